//! `Stats`: the account of all events of a collector.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::{Latency, Rejected, SinkStats};
use crate::escape::OneLine;
use crate::wake::State;

/// Account of all events since the collector was built. Plain data: it no longer changes.
///
/// While producers and worker are busy, each number is right, but not of one instant. After
/// [`flush`](crate::Collector::flush) or [`stop`](crate::Collector::stop), with no producer at work, they are exact
/// and the law holds to the event.
///
/// # Examples
///
/// ```
/// use forebay::{Collector, Overflow, Record};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let collector = Collector::builder().capacity(2).overflow(Overflow::DropOldest).build()?;
/// for step in 0..5 {
///     collector.collect(Record::new("tick").with_step(step));
/// }
/// collector.start()?;
/// let stats = collector.stop()?.stats;
/// assert_eq!((stats.offered, stats.processed, stats.evicted), (5, 2, 3));
/// stats.check_law(5)?;
/// assert_eq!(stats.to_string(), "5 offered = 2 processed + 3 evicted + 0 rejected + 0 pending");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// State of the collector.
    pub state: State,
    /// Time since the collector was built.
    pub uptime: Duration,
    /// Events given to `collect` and its variants: the sum of all outcomes below.
    pub offered: u64,
    /// Events that the gate rejected by the switch, their names, or their priority.
    pub filtered: u64,
    /// Events that the gate's sampling left out.
    pub sampled_out: u64,
    /// Events that exceeded the gate's rate limit.
    pub rate_limited: u64,
    /// Events that were rejected because they were too large or their values were nested too deep.
    pub oversize: u64,
    /// Events that were rejected, by reason.
    pub rejected: Rejected,
    /// Events that were evicted for newer ones.
    pub evicted: u64,
    /// Events that every sink has seen. `sinks` says what each sink did with them.
    pub processed: u64,
    /// Events that are queued or with the worker.
    pub pending: u64,
    /// Bytes that pending events own, beyond the slots of the rings.
    pub pending_bytes: u64,
    /// Events a second that all sinks have seen. It is measured between the last two deliveries that are a second or
    /// more apart, and falls once more time than that has passed.
    pub rate: f64,
    /// Time from the collection of events until all sinks had seen them.
    pub latency: Latency,
    /// The most events that were ever pending when the worker came to take some, or statistics were asked for. It is
    /// never below `pending`.
    pub peak_pending: u64,
    /// Batches made.
    pub batches: u64,
    /// Flushes done, those of `stop` included.
    pub flushes: u64,
    /// Time when the last flush was done.
    pub last_flush: Option<SystemTime>,
    /// Number of times that the worker went to sleep, or was about to when something came up.
    pub parks: u64,
    /// Number of times that a producer woke the worker, which is a system call.
    pub wakes: u64,
    /// Number of times that a producer waited for space.
    pub waits: u64,
    /// Panics of the closure of [`Builder::enrich`](crate::Builder::enrich).
    pub enrich_panics: u64,
    /// The current sinks.
    pub sinks: Vec<SinkStats>,
}

impl Stats {
    /// Returns the statistics of the sink of that name.
    pub fn sink(&self, name: &str) -> Option<&SinkStats> {
        self.sinks.iter().find(|sink| sink.name == name)
    }

    /// Returns the outcomes of the events that are not pending, by name.
    #[cfg(any(feature = "metrics", feature = "prometheus"))]
    pub(super) fn fates(&self) -> [(&'static str, u64); 10] {
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

    /// Checks the law for a caller that knows how many events were offered.
    ///
    /// # Errors
    ///
    /// The error is a sentence that says which sum does not hold, with its numbers.
    pub fn check_law(&self, offered: u64) -> Result<(), String> {
        let not_let_in = self.filtered + self.sampled_out + self.rate_limited + self.oversize;
        let fates = not_let_in + self.rejected.total() + self.evicted + self.processed + self.pending;
        if fates != offered || self.offered != offered {
            return Err(format!("{offered} events were offered, their fates add up to {fates}: {self:?}"));
        }
        for sink in &self.sinks {
            // Saturating, because a sink may have given its account any number.
            let full = [sink.evicted, sink.rejected];
            let fates =
                [sink.delivered, sink.dead_lettered, sink.failed, sink.in_flight].into_iter().chain(full);
            let fates = fates.fold(0, u64::saturating_add);
            if sink.offered != fates {
                return Err(format!("the fates in a sink do not add up: {sink:?}"));
            }
        }
        Ok(())
    }
}

impl fmt::Display for Stats {
    /// Writes the law with its numbers, then a line for every sink. Control and bidirectional characters are escaped.
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
            let others = [
                (sink.dead_lettered, "dead letters"),
                (sink.evicted, "evicted"),
                (sink.rejected, "rejected"),
            ];
            for (events, fate) in others {
                if events > 0 {
                    write!(f, " + {events} {fate}")?;
                }
            }
            if let Some(error) = &sink.last_error {
                write!(f, " (last error: {})", OneLine(error))?;
            }
            if let Some(path) = &sink.earlier_run {
                write!(f, " (goes on where an earlier run has written: {})", OneLine(path))?;
            }
        }
        Ok(())
    }
}
