//! The account of every event: counters inside, plain data outside.
//!
//! # The law
//!
//! ```text
//! offered          = filtered + sampled_out + rate_limited + oversize + rejected (full | stopped | worker_gone | forked) + evicted + processed + pending
//! per sink:  offered = delivered + dead_lettered + failed + shed + in_flight
//! sum of gaps over all batches = evicted (after a flush)
//! ```
//!
//! Nothing is counted on the way in: a shared counter there would double the price of `collect`. The
//! worker counts what it took out, producers count the rare fates, and what is queued can be asked of the
//! rings. So `offered` is a sum here, and a test of the law counts its own calls.

mod alerts;
mod delta;
mod meter;
#[cfg(feature = "prometheus")]
mod prometheus;
#[cfg(feature = "metrics")]
mod publish;
mod report;
mod tally;

pub use alerts::{Alert, AlertKind, HealthStatus};
pub(crate) use alerts::{Alerts, Finding};
pub use delta::{SinkDelta, StatsDelta};
pub use meter::Latency;
pub(crate) use meter::Meter;
pub use report::{FlushReport, SinkFlush, StopReport};
pub(crate) use tally::{Count, Registry, Reported, SinkTally, Tally};

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::escape::OneLine;
use crate::wake::State;

/// What became of all events since the collector was built. Plain data: it does not change any more.
///
/// Taken while producers and worker are busy, its numbers are each right but not of one instant; after
/// [`flush`](crate::Collector::flush) or [`stop`](crate::Collector::stop), with no producer at work, they
/// are exact and the law holds to the event.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// What the collector is doing.
    pub state: State,
    /// How long it is since the collector was built.
    pub uptime: Duration,
    /// Events given to `collect` and its relatives: the sum of all fates below.
    pub offered: u64,
    /// Events that the gate did not let in: by the switch, their names, or their priority.
    pub filtered: u64,
    /// Events that the gate did not let in, because it let in others of their names.
    pub sampled_out: u64,
    /// Events that the gate did not let in, because there were so many at that time.
    pub rate_limited: u64,
    /// Events that were not let in, because they were too large or their values were nested too deep.
    pub oversize: u64,
    /// Events that were not taken, by reason.
    pub rejected: Rejected,
    /// Events that made room for newer ones.
    pub evicted: u64,
    /// Events that every sink has seen. What each made of them is told under `sinks`.
    pub processed: u64,
    /// Events that are queued or in the hands of the worker.
    pub pending: u64,
    /// How many bytes they own, beyond the slots of the rings.
    pub pending_bytes: u64,
    /// Events a second that all sinks have seen: between the last two deliveries that are a second or more apart; less and
    /// less once it is longer since then.
    pub rate: f64,
    /// How long events took until all sinks had seen them.
    pub latency: Latency,
    /// The most events that were ever pending when the worker came to take some, or statistics were asked for. Never below
    /// `pending`.
    pub peak_pending: u64,
    /// Batches put together.
    pub batches: u64,
    /// Flushes done, those of `stop` included.
    pub flushes: u64,
    /// When the last of them was done.
    pub last_flush: Option<SystemTime>,
    /// How often the worker went to sleep, or was about to when something came up.
    pub naps: u64,
    /// How often a producer had to wait for room.
    pub waits: u64,
    /// How often what completes events panicked ([`Builder::enrich`](crate::Builder::enrich)).
    pub enrich_panics: u64,
    /// Every sink that is there.
    pub sinks: Vec<SinkStats>,
}

/// Events that were not taken, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Rejected {
    /// Their lane was full, and neither evicted nor had room in time.
    pub full: u64,
    /// The collector was stopped or stopping.
    pub stopped: u64,
    /// The worker had ended by a panic.
    pub worker_gone: u64,
    /// The process was a forked child.
    pub forked: u64,
}

impl Rejected {
    /// All reasons together.
    pub fn total(&self) -> u64 {
        self.full + self.stopped + self.worker_gone + self.forked
    }
}

/// What became of the events that were offered to one sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SinkStats {
    /// Its name.
    pub name: String,
    /// Events offered to it.
    pub offered: u64,
    /// Events that it took.
    pub delivered: u64,
    /// Events that it failed to take, by an error or a panic.
    pub failed: u64,
    /// Events that became dead letters.
    pub dead_lettered: u64,
    /// Events that were lost because its own queue overflowed.
    pub shed: u64,
    /// Batches that were tried again, each time.
    pub retries: u64,
    /// Dead letters that were delivered after all.
    pub redriven: u64,
    /// Events that it is busy with, those in its own queue included.
    pub in_flight: u64,
    /// Calls that returned an error, those of `flush` included.
    pub errors: u64,
    /// Calls that panicked, those of `flush` included.
    pub panics: u64,
    /// Calls of `flush` that returned an error or panicked.
    pub flush_errors: u64,
    /// What the last error or panic said, up to 4 KiB of it.
    pub last_error: Option<String>,
    /// Dead letters of this sink that wait to be looked at.
    pub dead_letters: u64,
    /// The breaker of this sink, if it has one.
    pub breaker: Option<BreakerState>,
    /// How long its writes took, all together.
    pub write_time: Duration,
}

/// What a breaker lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BreakerState {
    /// Everything.
    Closed,
    /// No batch: they fail at once, by a transient error.
    Open,
    /// One batch after the other, to see whether the sink has recovered.
    HalfOpen,
}

impl Stats {
    /// The sink of that name.
    pub fn sink(&self, name: &str) -> Option<&SinkStats> {
        self.sinks.iter().find(|sink| sink.name == name)
    }

    /// What became of the events that are not pending, by name.
    #[cfg(any(feature = "metrics", feature = "prometheus"))]
    fn fates(&self) -> [(&'static str, u64); 10] {
        [
            ("filtered", self.filtered),
            ("sampled_out", self.sampled_out),
            ("rate_limited", self.rate_limited),
            ("oversize", self.oversize),
            ("rejected_full", self.rejected.full),
            ("rejected_stopped", self.rejected.stopped),
            ("rejected_worker_gone", self.rejected.worker_gone),
            ("rejected_forked", self.rejected.forked),
            ("evicted", self.evicted),
            ("processed", self.processed),
        ]
    }

    /// Checks the law for a caller who knows how many events were offered.
    ///
    /// # Errors
    ///
    /// A sentence that says which sum does not hold, with its numbers.
    pub fn check_law(&self, offered: u64) -> Result<(), String> {
        let not_let_in = self.filtered + self.sampled_out + self.rate_limited + self.oversize;
        let fates = not_let_in + self.rejected.total() + self.evicted + self.processed + self.pending;
        if fates != offered || self.offered != offered {
            return Err(format!("{offered} events were offered, their fates add up to {fates}: {self:?}"));
        }
        for sink in &self.sinks {
            // A sink may have told its account any number.
            let fates = [sink.delivered, sink.dead_lettered, sink.failed, sink.shed, sink.in_flight];
            let fates = fates.into_iter().fold(0, u64::saturating_add);
            if sink.offered != fates {
                return Err(format!("the fates in a sink do not add up: {sink:?}"));
            }
        }
        Ok(())
    }
}

impl SinkStats {
    /// What became of the events that are not in flight, by name.
    #[cfg(any(feature = "metrics", feature = "prometheus"))]
    fn fates(&self) -> [(&'static str, u64); 4] {
        [
            ("delivered", self.delivered),
            ("failed", self.failed),
            ("dead_lettered", self.dead_lettered),
            ("shed", self.shed),
        ]
    }
}

impl fmt::Display for Stats {
    /// The law with its numbers, then a line for every sink. Control and bidirectional characters are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} offered = {} processed + {} evicted + {} rejected + {} pending",
            self.offered,
            self.processed,
            self.evicted,
            self.rejected.total(),
            self.pending
        )?;
        let gate = [
            (self.filtered, "filtered"),
            (self.sampled_out, "sampled out"),
            (self.rate_limited, "rate limited"),
            (self.oversize, "oversize"),
        ];
        for (events, fate) in gate.into_iter().filter(|(events, _)| *events > 0) {
            write!(f, " + {events} {fate}")?;
        }
        for sink in &self.sinks {
            write!(
                f,
                "\n{}: {} offered = {} delivered + {} failed + {} in flight",
                OneLine(&sink.name),
                sink.offered,
                sink.delivered,
                sink.failed,
                sink.in_flight
            )?;
            for (events, fate) in [(sink.dead_lettered, "dead letters"), (sink.shed, "shed")] {
                if events > 0 {
                    write!(f, " + {events} {fate}")?;
                }
            }
            if let Some(error) = &sink.last_error {
                write!(f, " (last error: {})", OneLine(error))?;
            }
        }
        Ok(())
    }
}
