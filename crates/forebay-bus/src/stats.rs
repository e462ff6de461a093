//! Reports of a bus about itself. Plain data.

use std::fmt;
use std::time::Duration;

use forebay::parts::OneLine;
use forebay::stats::HealthStatus;
use forebay::{Name, Stats};
use serde::Serialize;

use super::config::Mode;
use super::id::SubscriptionId;

/// Fates of the events that one handler was to be called for. Taken at one moment: the law holds in it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct HandlerStats {
    /// Id of its subscription; 0 for all together that are not subscribed any more.
    pub id: SubscriptionId,
    /// Name of the handler.
    pub name: Name,
    /// Events that are for it.
    pub matched: u64,
    /// Events that it took.
    pub handled: u64,
    /// Events that it did not take, and that were let go of.
    pub failed: u64,
    /// Events that became dead letters: it did not take them, or hung while they came.
    pub dead_lettered: u64,
    /// Events that it was not called for after all: it was unsubscribed, or the bus stopped by its deadline.
    pub cancelled: u64,
    /// Events that wait for it, it is busy with, wait for a retry or behind one, or are about to become dead letters.
    pub in_flight: u64,
    /// Calls that were to be made again, each time.
    pub retries: u64,
    /// Dead letters that it took after all. One may count here a moment before it counts as dead-lettered.
    pub redriven: u64,
    /// Calls that panicked.
    pub panics: u64,
    /// Calls that took longer than its deadline.
    pub overdue: u64,
    /// Message of the last error or panic, up to 4 KiB of it.
    pub last_error: Option<String>,
}

impl HandlerStats {
    /// Adds those of a handler that is gone.
    pub(super) fn add(&mut self, gone: &Self) {
        self.matched += gone.matched;
        self.handled += gone.handled;
        self.failed += gone.failed;
        self.dead_lettered += gone.dead_lettered;
        self.cancelled += gone.cancelled;
        self.in_flight += gone.in_flight;
        self.retries += gone.retries;
        self.redriven += gone.redriven;
        self.panics += gone.panics;
        self.overdue += gone.overdue;
    }
}

/// Fates of all events of a bus. Like [`Stats`], exact when nothing is on its way.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct BusStats {
    /// Mode at present, which says who calls the handlers: see [`OnWorkerFailure`](super::OnWorkerFailure).
    pub mode: Mode,
    /// Calls of `emit` and its relatives: the sum of the fates below.
    pub emitted: u64,
    /// Events whose names are not allowed.
    pub misnamed: u64,
    /// Events at the end of too long a chain ([`BusConfig::max_depth`](super::BusConfig::max_depth)).
    pub too_deep: u64,
    /// Events that a filter of the bus did not let in.
    pub filtered: u64,
    /// Events that came after the end, [inline](super::Mode::Inline).
    pub stopped: u64,
    /// Events that were given to their handlers by the thread that emitted them.
    pub inline: u64,
    /// Events that the bus emitted itself, of those above.
    pub own: u64,
    /// The account of the collector inside.
    pub events: Stats,
    /// Every handler that is subscribed, in the order of their subscription.
    pub handlers: Vec<HandlerStats>,
    /// All that were, together.
    pub gone: HandlerStats,
}

impl BusStats {
    /// Returns the handler of that name; the first, if there are several.
    pub fn handler(&self, name: &str) -> Option<&HandlerStats> {
        self.handlers.iter().find(|handler| handler.name == name)
    }

    /// Checks the law for a caller who knows how often `emit` and its relatives were called:
    ///
    /// ```text
    /// emitted = misnamed + too_deep + filtered + stopped + inline + offered to the collector (whose own law holds)
    /// per handler:  matched = handled + failed + dead_lettered + cancelled + in_flight
    /// ```
    ///
    /// # Errors
    ///
    /// A sentence that says which sum does not hold, with its numbers.
    pub fn check_law(&self, emitted: u64) -> Result<(), String> {
        let fates = self.misnamed + self.too_deep + self.filtered + self.stopped + self.inline;
        let fates = fates + self.events.offered;
        if fates != emitted + self.own || self.emitted != emitted {
            return Err(format!("{emitted} events were emitted, their fates add up to {fates}: {self:?}"));
        }
        self.events.check_law(self.events.offered)?;
        for handler in self.handlers.iter().chain([&self.gone]) {
            let fates = handler.handled + handler.failed + handler.dead_lettered + handler.cancelled;
            if handler.matched != fates + handler.in_flight {
                return Err(format!("the fates at a handler do not add up: {handler:?}"));
            }
        }
        Ok(())
    }
}

impl fmt::Display for BusStats {
    /// Writes the law with its numbers, a line for every handler, then the account of the collector. Control characters are
    /// escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} emitted + {} of the bus = {} offered", self.emitted, self.own, self.events.offered)?;
        let others = [
            (self.inline, "inline"),
            (self.filtered, "filtered"),
            (self.misnamed, "misnamed"),
            (self.too_deep, "too deep"),
            (self.stopped, "stopped"),
        ];
        write_others(f, others)?;
        for handler in &self.handlers {
            write!(f, "\n{}: {handler}", OneLine(&handler.name))?;
        }
        if self.gone.matched > 0 {
            write!(f, "\nunsubscribed handlers: {}", self.gone)?;
        }
        write!(f, "\n{}", self.events)
    }
}

impl fmt::Display for HandlerStats {
    /// Writes the law of the handler with its numbers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} matched = {} handled + {} in flight", self.matched, self.handled, self.in_flight)?;
        let others =
            [(self.dead_lettered, "dead letters"), (self.failed, "failed"), (self.cancelled, "cancelled")];
        write_others(f, others)?;
        self.last_error.as_ref().map_or(Ok(()), |error| write!(f, " (last error: {})", OneLine(error)))
    }
}

/// Writes the terms of a sum that are not 0.
fn write_others<const N: usize>(f: &mut fmt::Formatter<'_>, others: [(u64, &str); N]) -> fmt::Result {
    let mut others = others.into_iter().filter(|(events, _)| *events > 0);
    others.try_for_each(|(events, fate)| write!(f, " + {events} {fate}"))
}

/// Metrics of a bus. See [`Bus::metrics`](super::Bus::metrics).
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Metrics {
    /// Events that came to the handlers.
    pub total_events: u64,
    /// Events a second at present: [`Stats::rate`].
    pub events_per_second: f64,
    /// Mean time that a call takes.
    pub avg_processing_time: Duration,
    /// Maximum time that 50, 95 and 99 of 100 calls take, to within a factor of two.
    pub processing_time_p50: Duration,
    #[allow(missing_docs, reason = "see above")]
    pub processing_time_p95: Duration,
    #[allow(missing_docs, reason = "see above")]
    pub processing_time_p99: Duration,
    /// The ring for normal events, and what waits behind it.
    pub queue: QueueMetrics,
    /// Calls that are made again.
    pub retry: RetryMetrics,
    /// Workers, which make the calls.
    pub workers: WorkerStats,
}

/// Metrics of the events that wait.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct QueueMetrics {
    /// Events that have not come to the handlers yet.
    pub len: u64,
    /// Fraction of the capacity: 0 to 1, or more where other lanes are filled as well.
    pub utilization: f64,
    /// Events that have come to the handlers.
    pub processed: u64,
    /// Events that wait for a handler, each counted for every handler.
    pub waiting: u64,
    /// Bytes that the events in the rings own.
    pub memory_bytes: u64,
    /// Fraction of [`Config::max_bytes`](forebay::Config::max_bytes); 0 without a limit.
    pub memory_usage: f64,
}

/// Calls that are made again.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RetryMetrics {
    /// Calls that failed and were to be made again.
    pub total: u64,
    /// Events that wait for that at present.
    pub waiting: u64,
    /// Dead letters at present.
    pub dead_letters: u64,
    /// The part of the events that handlers took in the end; 1 before the first.
    pub success_rate: f64,
}

/// The worker threads. All zero [inline](super::Mode::Inline).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct WorkerStats {
    /// Number of workers that there should be.
    pub target: u64,
    /// Number of workers, without those that hang.
    pub total: u64,
    /// Number of workers that are busy.
    pub active: u64,
    /// Number of workers that are not busy.
    pub idle: u64,
    /// Number of workers in a call that takes longer than the deadline of its handler: others have taken their places.
    pub stuck: u64,
    /// Number of times that a worker was restarted after a panic outside of a handler.
    pub restarts: u64,
    /// Calls that have ended.
    pub calls: u64,
    /// Mean time that a call takes.
    pub avg_processing_time: Duration,
}

/// Health of a bus. See [`Bus::health`](super::Bus::health).
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct BusHealth {
    /// Status as a whole: unhealthy when events do not come to the handlers, because the bus is stopped or there is
    /// nobody to call them; degraded when there are other alerts.
    pub status: HealthStatus,
    /// Mode at present, which says who calls the handlers.
    pub mode: Mode,
    /// Workers that do not hang.
    pub active_workers: u64,
    /// Events that have not come to the handlers yet.
    pub queue_depth: u64,
    /// Events a second that come to the handlers: [`Stats::rate`].
    pub processing_rate: f64,
    /// Alerts about what is not well.
    pub alerts: Vec<Alert>,
}

/// Something that is not well.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Alert {
    /// Kind of the alert.
    pub kind: AlertKind,
    /// Name of the handler or sink that the alert is about, if it is about one.
    pub subject: Option<String>,
    /// Message for a person.
    pub message: String,
    /// Value that was measured.
    pub value: f64,
    /// Threshold that the value should not cross.
    pub threshold: f64,
    /// Id of the alert of the collector inside, if it is one: a sink may have several.
    #[serde(skip)]
    pub(super) id: Option<u64>,
}

/// Kind of an alert of a bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// More than half of the normal ring is filled.
    QueueDeep,
    /// More than four fifths of [`Config::max_bytes`](forebay::Config::max_bytes) are taken: events that are not critical take
    /// seven eighths at most.
    MemoryHigh,
    /// A call takes longer than the deadline of its handler.
    HandlerOverdue,
    /// The bus has dead letters.
    DeadLetters,
    /// A sink fails or hangs, or what wraps it says so: an alert of [`Collector::health`](forebay::Collector::health).
    Sink,
    /// Every worker hangs.
    NoWorkers,
    /// Threads cannot be started, or the worker of the collector is gone: the emitting thread calls the handlers
    /// ([`OnWorkerFailure`](super::OnWorkerFailure)).
    WorkersFailed,
    /// The bus is stopped, or its collector is gone.
    Stopped,
}

/// Report of a stop: what happened until then.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct BusReport {
    /// The account of all events.
    pub stats: BusStats,
    /// Calls of handlers that had not ended. 0 where something else was late: a sink, or the destructor of an event.
    pub left_behind: u64,
    /// Time that the stop took.
    pub elapsed: Duration,
}

/// Error of a stop.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BusStopError {
    /// The deadline passed first. What waited is cancelled; handlers that run go on and end by themselves.
    #[error("stop did not end within {:?}, {} calls of handlers are left behind", .report.elapsed, .report.left_behind)]
    TimedOut {
        /// Report of what happened until then.
        report: Box<BusReport>,
    },
    /// Called from a handler or a sink, which would have to wait for itself.
    #[error("called from a handler or a sink, which cannot wait for itself")]
    Inside,
    /// This process is a forked child; the threads live in the parent.
    #[error("this process is a fork of the one that started the bus")]
    Forked,
}

forebay_sync::from_forked!(BusStopError);
