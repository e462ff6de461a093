//! `StatsDelta`: the difference of two readings.

use std::time::Duration;

use serde::Serialize;

use super::{Rejected, SinkStats, Stats};

/// Difference between one reading of [`Stats`] and a later one of the same collector. Plain data.
///
/// # Examples
///
/// ```
/// use forebay::{Collector, Record};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let collector = Collector::builder().start()?;
/// let before = collector.stats();
/// collector.collect(Record::new("tick"));
/// collector.flush()?;
/// let delta = collector.stats().delta(&before);
/// assert_eq!((delta.offered, delta.processed), (1, 1));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StatsDelta {
    /// Time from the one to the other.
    pub elapsed: Duration,
    /// See [`Stats::offered`].
    pub offered: u64,
    /// See [`Stats::filtered`].
    pub filtered: u64,
    /// See [`Stats::sampled_out`].
    pub sampled_out: u64,
    /// See [`Stats::rate_limited`].
    pub rate_limited: u64,
    /// See [`Stats::oversize`].
    pub oversize: u64,
    /// See [`Stats::rejected`].
    pub rejected: Rejected,
    /// See [`Stats::evicted`].
    pub evicted: u64,
    /// See [`Stats::processed`].
    pub processed: u64,
    /// See [`Stats::batches`].
    pub batches: u64,
    /// The sinks of the later reading.
    pub sinks: Vec<SinkDelta>,
}

/// Difference in one sink between one reading and a later one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SinkDelta {
    /// Name of the sink.
    pub name: String,
    /// See [`SinkStats::offered`].
    pub offered: u64,
    /// See [`SinkStats::delivered`].
    pub delivered: u64,
    /// See [`SinkStats::failed`].
    pub failed: u64,
    /// See [`SinkStats::dead_lettered`].
    pub dead_lettered: u64,
    /// See [`SinkStats::evicted`].
    pub evicted: u64,
    /// See [`SinkStats::rejected`].
    pub rejected: u64,
    /// See [`SinkStats::write_time`].
    pub write_time: Duration,
}

impl Stats {
    /// Returns the difference to an earlier reading of the same collector. A number that was larger then counts as 0.
    /// A sink that was not there then begins at 0.
    ///
    /// ```
    /// use forebay::{Collector, Record};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let collector = Collector::builder().start()?;
    /// let before = collector.stats();
    /// collector.collect(Record::scalar("train.loss", 0.5));
    /// collector.flush()?;
    /// let delta = collector.stats().delta(&before);
    /// assert_eq!((delta.offered, delta.processed), (1, 1));
    /// println!("{:.0} events/s", delta.per_second(delta.processed));
    /// # Ok(())
    /// # }
    /// ```
    pub fn delta(&self, earlier: &Self) -> StatsDelta {
        let (now, then) = (&self.rejected, &earlier.rejected);
        StatsDelta {
            elapsed: self.uptime.saturating_sub(earlier.uptime),
            offered: self.offered.saturating_sub(earlier.offered),
            filtered: self.filtered.saturating_sub(earlier.filtered),
            sampled_out: self.sampled_out.saturating_sub(earlier.sampled_out),
            rate_limited: self.rate_limited.saturating_sub(earlier.rate_limited),
            oversize: self.oversize.saturating_sub(earlier.oversize),
            rejected: Rejected {
                full: now.full.saturating_sub(then.full),
                stopped: now.stopped.saturating_sub(then.stopped),
                worker_gone: now.worker_gone.saturating_sub(then.worker_gone),
                forked: now.forked.saturating_sub(then.forked),
            },
            evicted: self.evicted.saturating_sub(earlier.evicted),
            processed: self.processed.saturating_sub(earlier.processed),
            batches: self.batches.saturating_sub(earlier.batches),
            sinks: self.sinks.iter().map(|sink| sink.delta(earlier.sink(&sink.name))).collect(),
        }
    }
}

impl SinkStats {
    fn delta(&self, earlier: Option<&Self>) -> SinkDelta {
        let since = |of: fn(&Self) -> u64| of(self).saturating_sub(earlier.map_or(0, of));
        let time_before = earlier.map_or(Duration::ZERO, |sink| sink.write_time);
        SinkDelta {
            name: self.name.clone(),
            offered: since(|sink| sink.offered),
            delivered: since(|sink| sink.delivered),
            failed: since(|sink| sink.failed),
            dead_lettered: since(|sink| sink.dead_lettered),
            evicted: since(|sink| sink.evicted),
            rejected: since(|sink| sink.rejected),
            write_time: self.write_time.saturating_sub(time_before),
        }
    }
}

impl StatsDelta {
    /// Returns this number of events divided by the seconds between the readings, or 0 if no time has passed.
    pub fn per_second(&self, events: u64) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { events as f64 / seconds } else { 0.0 }
    }

    /// Returns how many events were rejected or evicted on the way in. Events that the gate rejected are not among them.
    pub fn rejected_or_evicted(&self) -> u64 {
        self.rejected.total() + self.evicted
    }
}
