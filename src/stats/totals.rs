//! The account of all events of a collector.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::{Latency, Rejected, SinkStats};
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

impl Stats {
    /// The sink of that name.
    pub fn sink(&self, name: &str) -> Option<&SinkStats> {
        self.sinks.iter().find(|sink| sink.name == name)
    }

    /// What became of the events that are not pending, by name.
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
