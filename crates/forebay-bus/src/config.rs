//! The settings of a bus.

use std::time::Duration;

use forebay::config::{ConfigError, Preset};
use forebay::parts::{check, setters};
use forebay::sink::RetryPolicy;
use forebay::{Config, FlushStrategy};
use serde::{Deserialize, Serialize};

use super::scaling::{Scaling, check_workers};

/// Settings of a bus. Public fields with defaults, and a setter for each.
///
/// ```
/// use forebay_bus::{Bus, BusConfig};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().config(BusConfig::default().with_workers(2)).start()?;
/// assert_eq!(bus.worker_stats().total, 2);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct BusConfig {
    /// The rings, the gate and the deadlines of the collector inside. Defaults to those of [`Config`], but with the
    /// flush strategy `Size` with one event, because handlers do not wait for a batch to fill, and with 5 KiB (5,120
    /// bytes) for an event at most ([`GateConfig::max_event_bytes`](forebay::config::GateConfig::max_event_bytes)).
    /// Its `flush_timeout`, `stop_timeout` and `drop_timeout` hold for the bus as a whole.
    pub collector: Config,
    /// Threads that call the handlers. Defaults to [`Mode::Pooled`].
    pub mode: Mode,
    /// Number of worker threads at first. 1 to 256. Defaults to 4.
    pub workers: usize,
    /// Changes their number by load. Defaults to no: it stays until [`scale_workers`](super::Bus::scale_workers) changes it.
    pub scaling: Option<Scaling>,
    /// The most subscriptions at once. At least 1. Defaults to 1,000.
    pub max_subscribers: usize,
    /// Maximum number of events that wait for one handler. At least 1. Defaults to 1,000.
    ///
    /// A handler that is behind holds the bus back when it has so many, so that the rings do what their overflow policy
    /// says. What is too much for one that hangs becomes dead letters. As many again may wait for a retry, or behind one, where
    /// [order is kept](super::Handler::ordered); they come back into the queue when the retry is due.
    pub handler_queue: usize,
    /// Maximum bytes that these events own ([`Config::max_bytes`]), but for one event, which is always taken. At least 1.
    /// Defaults to 50 MiB.
    pub handler_bytes: u64,
    /// Schedule of the retries of a call that failed or panicked, unless a handler says otherwise. Defaults to three
    /// retries, after 1, 2 and 4 seconds.
    pub retry: RetryPolicy,
    /// Time that a call may take before it is reported ([`AlertKind::HandlerOverdue`](super::AlertKind)), unless a handler says
    /// otherwise. More than zero. Defaults to 10 s.
    pub deadline: Duration,
    /// Maximum number of dead letters that are kept, of 50 MiB in all. At least 1. Defaults to 1,000.
    pub dead_letters: usize,
    /// Maximum length of a chain of events, each emitted by a handler of the one before. With 0, a handler cannot emit.
    /// A longer chain ends with [`EmitError::TooDeep`](super::EmitError::TooDeep). Defaults to 16.
    pub max_depth: u32,
    /// Reaction when threads cannot be started, or the worker of the collector is gone. Defaults to
    /// [`OnWorkerFailure::Inline`].
    pub on_worker_failure: OnWorkerFailure,
}

setters! {
    BusConfig:
    with_collector, collector: Config;
    with_mode, mode: Mode;
    with_workers, workers: usize;
    with_scaling, scaling: Option<Scaling>;
    with_max_subscribers, max_subscribers: usize;
    with_handler_queue, handler_queue: usize;
    with_handler_bytes, handler_bytes: u64;
    with_retry, retry: RetryPolicy;
    with_deadline, deadline: Duration;
    with_dead_letters, dead_letters: usize;
    with_max_depth, max_depth: u32;
    with_on_worker_failure, on_worker_failure: OnWorkerFailure;
}

/// Reaction of a bus when threads that it needs fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum OnWorkerFailure {
    /// The bus goes on without them, and [`health`](super::Bus::health) reports it: where they cannot be started it is
    /// [inline](Mode::Inline), and where the worker of the collector has ended by a panic, the emitting thread gives
    /// events to the handlers, and calls those for which no worker has time. The sinks have ended with their worker,
    /// but for the last 1,000 events, which can be asked for as before.
    #[default]
    Inline,
    /// The bus does not start, or takes no events any more ([`Outcome::WorkerGone`](forebay::Outcome::WorkerGone)).
    Refuse,
}

/// Mode of a bus: which threads call the handlers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Worker threads, named `forebay-bus`.
    #[default]
    Pooled,
    /// The thread that emits: `emit` returns when the handlers have run. There is no thread but those of sinks that ask for one
    /// ([isolated](forebay::sink::SinkExt::isolated)); retries that are due are made by the next `emit`, `flush` or `stop`.
    Inline,
}

impl Default for BusConfig {
    fn default() -> Self {
        Self {
            collector: prompt(Config::default()),
            mode: Mode::default(),
            workers: 4,
            scaling: None,
            max_subscribers: 1_000,
            handler_queue: 1_000,
            handler_bytes: 50 << 20,
            retry: RetryPolicy::default(),
            deadline: Duration::from_secs(10),
            dead_letters: 1_000,
            max_depth: 16,
            on_worker_failure: OnWorkerFailure::default(),
        }
    }
}

/// Handlers get every event at once, and no large ones.
fn prompt(config: Config) -> Config {
    let gate = config.gate.clone().with_max_event_bytes(config.gate.max_event_bytes.or(Some(5_120)));
    config.with_flush(FlushStrategy::Size { events: 1 }).with_gate(gate)
}

impl BusConfig {
    /// Returns the bus that fits a purpose: [`development`](Self::development), [`production`](Self::production), or
    /// the defaults with the rings of [`Config::training`] or [`Config::analytics`].
    pub fn preset(preset: Preset) -> Self {
        match preset {
            Preset::Development => Self::development(),
            Preset::Production => Self::production(),
            other => Self { collector: prompt(other.config()), ..Self::default() },
        }
    }

    /// Returns settings for development: the defaults, but with 2 workers, rings of 1,000 events
    /// ([`Config::development`]), and a deadline of one second, so that a slow handler shows early.
    pub fn development() -> Self {
        Self {
            collector: prompt(Config::development()),
            workers: 2,
            deadline: Duration::from_secs(1),
            ..Self::default()
        }
    }

    /// Returns settings for services: the defaults, but with 8 workers, and with 50,000 events in the normal ring
    /// ([`Config::production`]).
    pub fn production() -> Self {
        Self { collector: prompt(Config::production()), workers: 8, ..Self::default() }
    }

    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// The first setting that is outside of what is allowed, with its value and what is allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        const SOME: &str = "1 or more";
        self.collector.validate()?;
        check_workers("workers", self.workers)?;
        if let Some(scaling) = &self.scaling {
            scaling.validate()?;
        }
        let counts = [
            ("max_subscribers", self.max_subscribers),
            ("handler_queue", self.handler_queue),
            ("dead_letters", self.dead_letters),
        ];
        for (field, count) in counts {
            check(field, count, SOME, count >= 1)?;
        }
        self.retry.validate()?;
        check("handler_bytes", self.handler_bytes, SOME, self.handler_bytes >= 1)?;
        check_deadline(self.deadline)
    }
}

pub(super) fn check_deadline(deadline: Duration) -> Result<(), ConfigError> {
    check("deadline", format!("{deadline:?}"), "more than zero", !deadline.is_zero())
}
