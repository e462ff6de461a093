//! `FlushReport` and `StopReport`: what a flush and a stop return.

use std::time::Duration;

use serde::Serialize;

use super::Stats;
use crate::origin::RunIdentity;

/// Report of a flush: what happened since the flush before it (or the start) whose report reached its caller.
///
/// So nothing that fails between two flushes is missing in both. The exception is a `FlushAsync` that is dropped between
/// its answer and its next poll.
///
/// A sink that fails is no error of the flush, as it is none of a stop: [`flush`](crate::Collector::flush) and
/// [`stop`](crate::Collector::stop) are errors where they could not do their part. So `collector.flush()?;` is a complete
/// statement; [`is_clean`](Self::is_clean) tells whether every sink took everything.
///
/// ```
/// use forebay::sink::{SinkError, from_fn};
/// use forebay::{Batch, Collector, Record};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let full = from_fn("disk", |_: &Batch| Err(SinkError::write_failed("no space left")));
/// let collector = Collector::builder().sink(full).start()?;
/// collector.collect(Record::scalar("train.loss", 0.5));
/// let report = collector.flush()?;
/// assert!(!report.is_clean());
/// assert_eq!((report.processed, report.sinks[0].failed), (1, 1));
/// assert_eq!(report.sinks[0].error.as_deref(), Some("write failed: no space left"));
/// assert_eq!(collector.stop()?.failed(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct FlushReport {
    /// Events that every sink has seen.
    pub processed: u64,
    /// Events that were evicted.
    pub evicted: u64,
    /// Counts of each sink.
    pub sinks: Vec<SinkFlush>,
}

/// Report of a flush on one sink, since the flush before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SinkFlush {
    /// Name of the sink.
    pub name: String,
    /// Events that it took.
    pub delivered: u64,
    /// Events that it failed to take.
    pub failed: u64,
    /// Events that became dead letters.
    pub dead_lettered: u64,
    /// Events that were evicted from its own queue for newer ones.
    pub evicted: u64,
    /// Events that its own queue did not take, because it was full.
    pub rejected: u64,
    /// Message of the last error or panic, in a write or in the flush itself.
    pub error: Option<String>,
}

impl SinkFlush {
    /// Adds what happened later.
    pub(crate) fn add(&mut self, later: Self) {
        self.delivered = self.delivered.saturating_add(later.delivered);
        self.failed = self.failed.saturating_add(later.failed);
        self.dead_lettered = self.dead_lettered.saturating_add(later.dead_lettered);
        self.evicted = self.evicted.saturating_add(later.evicted);
        self.rejected = self.rejected.saturating_add(later.rejected);
        self.error = later.error.or(self.error.take());
    }
}

impl FlushReport {
    /// Returns whether every sink took every event since the flush before, and could be flushed. Evictions are no
    /// failure of a sink.
    pub fn is_clean(&self) -> bool {
        self.sinks
            .iter()
            .map(|sink| ([sink.failed, sink.dead_lettered, sink.evicted, sink.rejected], &sink.error))
            .all(|(not_taken, error)| not_taken == [0; 4] && error.is_none())
    }
}

/// Report of a stop: the account of all events, and what was left behind. A sink that fails is no error of the stop:
/// [`failed`](Self::failed) counts its events.
///
/// # Examples
///
/// ```
/// use forebay::{Collector, Record};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let collector = Collector::builder().start()?;
/// collector.collect(Record::new("tick"));
/// let report = collector.stop()?;
/// assert_eq!((report.stats.processed, report.left_behind, report.failed()), (1, 0, 0));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct StopReport {
    /// The account of all events since the collector was built.
    pub stats: Stats,
    /// Events that were accepted and reached no sink by this stop. They are still queued or with a worker that did
    /// not end in time. If there never was a worker, they were discarded and counted as rejected.
    pub left_behind: u64,
    /// The sink that the worker was calling when the deadline passed.
    pub busy_sink: Option<String>,
    /// Duration of the stop.
    pub elapsed: Duration,
    /// The session id of the collector.
    pub session_id: String,
    /// The training run that began last with the collector, if there was one.
    pub run: Option<RunIdentity>,
}

impl StopReport {
    /// Returns the id of the run. A collector without a [`TrainingRun`](crate::run::TrainingRun) is a run of its own,
    /// whose id is that of its session.
    pub fn run_id(&self) -> &str {
        self.run.as_ref().map_or(&self.session_id, |run| &run.run_id)
    }

    /// Returns how many events the sinks counted as failed, summed over the sinks. Events that became dead letters, or that a queue of
    /// a sink evicted or rejected, are not among them: [`SinkStats`](crate::stats::SinkStats) counts each kind.
    pub fn failed(&self) -> u64 {
        self.stats.sinks.iter().map(|sink| sink.failed).fold(0, u64::saturating_add)
    }
}
