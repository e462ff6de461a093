//! Account of every event: counters inside, plain data outside.
//!
//! # The law
//!
//! ```text
//! offered          = filtered + sampled_out + rate_limited + oversize + rejected (full | stopped | worker_gone | forked) + evicted + processed + pending
//! per sink:  offered = delivered + dead_lettered + failed + evicted + rejected + in_flight
//! sum of gaps over all batches = evicted (after a flush)
//! ```
//!
//! Nothing is counted on the way in, because a shared counter there would double the price of `collect`. The worker
//! counts what it took out, producers count the rare outcomes, and the rings know what is queued. So `offered` is a
//! sum here, and a test of the law counts its own calls.

mod alerts;
pub(crate) mod breaker_state;
mod delta;
mod meter;
#[cfg(feature = "prometheus")]
mod prometheus;
#[cfg(feature = "metrics")]
mod publish;
mod report;
pub(crate) mod tally;
pub(crate) mod totals;

pub use alerts::{Alert, AlertKind, HealthStatus};
pub(crate) use alerts::{Alerts, Finding};
pub(crate) use breaker_state::BreakerState;
pub use delta::{SinkDelta, StatsDelta};
pub use meter::Latency;
pub(crate) use meter::Meter;
pub use report::{FlushReport, SinkFlush, StopReport};
pub(crate) use tally::{Count, Registry, Reported, SinkTally, Tally};
pub(crate) use totals::Stats;

use std::time::Duration;

use serde::Serialize;

/// Events that were rejected, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Rejected {
    /// Their lane was full, did not evict, and had no space in time.
    pub full: u64,
    /// The collector was stopped or stopping.
    pub stopped: u64,
    /// The worker had ended by a panic.
    pub worker_gone: u64,
    /// The process was a forked child.
    pub forked: u64,
}

impl Rejected {
    /// Returns the sum over all reasons.
    pub fn total(&self) -> u64 {
        self.full + self.stopped + self.worker_gone + self.forked
    }
}

/// Account of the events that were offered to one sink.
///
/// # Examples
///
/// ```
/// use forebay::{Collector, Record, sink::MemorySink};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let collector = Collector::builder().sink(MemorySink::new()).start()?;
/// collector.collect(Record::new("tick"));
/// let stats = collector.stop()?.stats;
/// let sink = stats.sink("memory").unwrap();
/// assert_eq!((sink.offered, sink.delivered, sink.failed, sink.in_flight), (1, 1, 0, 0));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SinkStats {
    /// Name of the sink.
    pub name: String,
    /// Events offered to it.
    pub offered: u64,
    /// Events that it took.
    pub delivered: u64,
    /// Events that it failed to take, by an error or a panic.
    pub failed: u64,
    /// Events that became dead letters.
    pub dead_lettered: u64,
    /// Events that were evicted from its own queue for newer ones.
    pub evicted: u64,
    /// Events that its own queue did not take, because it was full.
    pub rejected: u64,
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
    /// Message of the last error or panic, up to 4 KiB of it.
    pub last_error: Option<String>,
    /// Dead letters of this sink that wait to be looked at.
    pub dead_letters: u64,
    /// The breaker of this sink, if it has one.
    pub breaker: Option<BreakerState>,
    /// The path of the file or folder, if an earlier run had written there when the sink was created, or to sub-runs of TensorBoard
    /// below it. To look for these, at most 100 folders below and 100 event files without a value are opened, those that lie less deep
    /// first, and 5,000 entries of a folder are looked at. A resumed run is reported too, except by
    /// [`TensorBoardSink::resume`](crate::sink::TensorBoardSink::resume), and so is a sink that is created again. Any other
    /// run may want a folder of its own ([`run::folder`](crate::run::folder)). Two processes that start at the same time
    /// may see nothing of each other.
    pub earlier_run: Option<String>,
    /// Total time of its writes.
    pub write_time: Duration,
}

impl SinkStats {
    /// Returns the outcomes of the events that are not in flight, by name.
    #[cfg(any(feature = "metrics", feature = "prometheus"))]
    fn fates(&self) -> [(&'static str, u64); 5] {
        [
            ("delivered", self.delivered),
            ("failed", self.failed),
            ("dead_lettered", self.dead_lettered),
            ("evicted", self.evicted),
            ("rejected", self.rejected),
        ]
    }
}
