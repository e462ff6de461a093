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

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::control::SinkFlush;
use crate::sync::{Arc, CachePadded, Mutex, Ordering, PlainU64};
use crate::wake::State;

/// Counters of a collector. All Relaxed: they are counts, not signals; who must see a particular event
/// counted (after a flush, a stop) synchronises through the mailbox.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Written by the worker alone.
    pub(crate) worker: CachePadded<WorkerTally>,
    /// Written by producers whose event was not taken, and by those who take late events out again.
    pub(crate) rejected: CachePadded<RejectedTally>,
    /// Events that the gate did not let in.
    pub(crate) filtered: Count,
    pub(crate) sampled_out: Count,
    pub(crate) rate_limited: Count,
    pub(crate) oversize: Count,
    /// How often a producer waited for room.
    pub(crate) waits: Count,
}

/// What the worker counts.
#[derive(Debug, Default)]
pub(crate) struct WorkerTally {
    /// Events taken out of the rings and put into a batch.
    pub(crate) taken: Count,
    /// Events of batches that all sinks have seen. Never more than `taken`.
    pub(crate) processed: Count,
    pub(crate) batches: Count,
    pub(crate) flushes: Count,
    /// Nanoseconds since 1970, 0 before the first flush.
    pub(crate) last_flush: Count,
    pub(crate) naps: Count,
    pub(crate) peak_pending: Count,
    pub(crate) enrich_panics: Count,
}

impl WorkerTally {
    /// The moment of the last flush.
    pub(crate) fn last_flush(&self) -> Option<SystemTime> {
        let nanos = self.last_flush.get();
        (nanos > 0).then(|| UNIX_EPOCH + Duration::from_nanos(nanos))
    }
}

/// Events that were not taken, by reason.
#[derive(Debug, Default)]
pub(crate) struct RejectedTally {
    pub(crate) full: Count,
    pub(crate) stopped: Count,
    pub(crate) worker_gone: Count,
    pub(crate) forked: Count,
}

/// One counter.
#[derive(Debug, Default)]
pub(crate) struct Count(PlainU64);

impl Count {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The same for a counter that one thread alone writes: a third of the price.
    pub(crate) fn bump(&self, n: u64) {
        self.0.store(self.get() + n, Ordering::Relaxed);
    }

    pub(crate) fn raise_to(&self, n: u64) {
        self.0.fetch_max(n, Ordering::Relaxed);
    }

    pub(crate) fn lower_by(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters of one sink. Made when the sink is added; shared by the slot that writes them and the
/// registry that reads them; ends with the later of the two.
#[derive(Debug)]
pub(crate) struct SinkTally {
    pub(crate) name: String,
    pub(crate) offered: Count,
    pub(crate) delivered: Count,
    pub(crate) failed: Count,
    pub(crate) dead_lettered: Count,
    pub(crate) shed: Count,
    pub(crate) retries: Count,
    pub(crate) redriven: Count,
    /// Events that a part of the sink has kept, to settle them later.
    pub(crate) kept: Count,
    pub(crate) errors: Count,
    pub(crate) panics: Count,
    pub(crate) flush_errors: Count,
    /// Events that the sink is busy with; 0 between calls.
    pub(crate) in_flight: PlainU64,
    /// 1 while the worker is in a call of the sink.
    pub(crate) is_busy: PlainU64,
    pub(crate) last_error: Mutex<Option<String>>,
    /// What the counters were when a flush last told of them.
    pub(crate) told: Mutex<Told>,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Told {
    delivered: u64,
    failed: u64,
    dead_lettered: u64,
    shed: u64,
    troubles: u64,
}

impl SinkTally {
    pub(crate) fn new(name: String) -> Self {
        Self {
            name,
            offered: Count::default(),
            delivered: Count::default(),
            failed: Count::default(),
            dead_lettered: Count::default(),
            shed: Count::default(),
            retries: Count::default(),
            redriven: Count::default(),
            kept: Count::default(),
            errors: Count::default(),
            panics: Count::default(),
            flush_errors: Count::default(),
            in_flight: PlainU64::new(0),
            is_busy: PlainU64::new(0),
            last_error: Mutex::new(None),
            told: Mutex::default(),
        }
    }

    /// What happened since the flush that was told last, from where, and up to where.
    pub(crate) fn news(&self) -> (SinkFlush, Told, Told) {
        let from = *self.told.lock();
        let (news, up_to) = self.news_since(from);
        (news, from, up_to)
    }

    /// The same, told to somebody by that.
    pub(crate) fn take_news(&self) -> SinkFlush {
        let mut told = self.told.lock();
        let (news, up_to) = self.news_since(*told);
        *told = up_to;
        news
    }

    fn news_since(&self, told: Told) -> (SinkFlush, Told) {
        let now = self.snapshot();
        let up_to = Told {
            delivered: now.delivered,
            failed: now.failed,
            dead_lettered: now.dead_lettered,
            shed: now.shed,
            troubles: now.errors + now.panics,
        };
        let news = SinkFlush {
            delivered: up_to.delivered - told.delivered,
            failed: up_to.failed - told.failed,
            dead_lettered: up_to.dead_lettered - told.dead_lettered,
            shed: up_to.shed - told.shed,
            error: now.last_error.filter(|_| up_to.troubles > told.troubles),
            name: now.name,
        };
        (news, up_to)
    }

    /// What was told since `from` was not heard after all. Better twice than never.
    pub(crate) fn untell(&self, from: Told) {
        let mut told = self.told.lock();
        *told = Told {
            delivered: told.delivered.min(from.delivered),
            failed: told.failed.min(from.failed),
            dead_lettered: told.dead_lettered.min(from.dead_lettered),
            shed: told.shed.min(from.shed),
            troubles: told.troubles.min(from.troubles),
        };
    }

    /// The news up to there were told to somebody. Others may have been told more meanwhile.
    pub(crate) fn set_told(&self, up_to: Told) {
        let mut told = self.told.lock();
        *told = Told {
            delivered: told.delivered.max(up_to.delivered),
            failed: told.failed.max(up_to.failed),
            dead_lettered: told.dead_lettered.max(up_to.dead_lettered),
            shed: told.shed.max(up_to.shed),
            troubles: told.troubles.max(up_to.troubles),
        };
    }

    /// Notes a call that panicked.
    pub(crate) fn note_panic(&self, said: String) {
        self.panics.add(1);
        *self.last_error.lock() = Some(format!("panicked: {said}"));
    }

    /// Notes a call that failed.
    pub(crate) fn note_error(&self, said: String) {
        self.errors.add(1);
        *self.last_error.lock() = Some(said);
    }

    pub(crate) fn snapshot(&self) -> SinkStats {
        SinkStats {
            name: self.name.clone(),
            offered: self.offered.get(),
            delivered: self.delivered.get(),
            failed: self.failed.get(),
            dead_lettered: self.dead_lettered.get(),
            shed: self.shed.get(),
            retries: self.retries.get(),
            redriven: self.redriven.get(),
            in_flight: self.in_flight.load(Ordering::Relaxed) + self.kept.get(),
            errors: self.errors.get(),
            panics: self.panics.get(),
            flush_errors: self.flush_errors.get(),
            last_error: self.last_error.lock().clone(),
        }
    }
}

/// The tallies of the sinks that are there, by name: names are unique.
#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<Vec<Arc<SinkTally>>>);

impl Registry {
    /// Enters a name; `None` when it is taken.
    pub(crate) fn enter(&self, name: &str) -> Option<Arc<SinkTally>> {
        let mut tallies = self.0.lock();
        if tallies.iter().any(|tally| tally.name == name) {
            return None;
        }
        let tally = Arc::new(SinkTally::new(name.to_owned()));
        tallies.push(Arc::clone(&tally));
        Some(tally)
    }

    /// Whether a sink has this name.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.0.lock().iter().any(|tally| tally.name == name)
    }

    /// Strikes a name out.
    pub(crate) fn strike(&self, name: &str) {
        self.0.lock().retain(|tally| tally.name != name);
    }

    pub(crate) fn snapshot(&self) -> Vec<SinkStats> {
        self.0.lock().iter().map(|tally| tally.snapshot()).collect()
    }

    /// The sink in which the worker is at present.
    pub(crate) fn busy(&self) -> Option<String> {
        let tallies = self.0.lock();
        let busy = tallies.iter().find(|tally| tally.is_busy.load(Ordering::Relaxed) != 0);
        busy.map(|tally| tally.name.clone())
    }
}

/// What became of all events since the collector was built. Plain data: it does not change any more.
///
/// Taken while producers and worker are busy, its numbers are each right but not of one instant; after
/// [`flush`](crate::Collector::flush) or [`stop`](crate::Collector::stop), with no producer at work, they
/// are exact and the law holds to the event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// What the collector is doing.
    pub state: State,
    /// Events given to `collect` and its relatives: the sum of all fates below.
    pub offered: u64,
    /// Events that the gate did not let in: by the switch, their names, or their priority.
    pub filtered: u64,
    /// Events that the gate did not let in, because it let in others of their names.
    pub sampled_out: u64,
    /// Events that the gate did not let in, because there were so many at that time.
    pub rate_limited: u64,
    /// Events that the gate did not let in, because they were too large.
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
    /// The most events that were ever queued when the worker came to take some.
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
    /// What the last error or panic said.
    pub last_error: Option<String>,
}

impl Stats {
    /// The sink of that name.
    pub fn sink(&self, name: &str) -> Option<&SinkStats> {
        self.sinks.iter().find(|sink| sink.name == name)
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
            let fates = sink.delivered + sink.dead_lettered + sink.failed + sink.shed + sink.in_flight;
            if sink.offered != fates {
                return Err(format!("the fates in a sink do not add up: {sink:?}"));
            }
        }
        Ok(())
    }
}

impl fmt::Display for Stats {
    /// The law with its numbers, then a line for every sink.
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
                sink.name, sink.offered, sink.delivered, sink.failed, sink.in_flight
            )?;
            for (events, fate) in [(sink.dead_lettered, "dead letters"), (sink.shed, "shed")] {
                if events > 0 {
                    write!(f, " + {events} {fate}")?;
                }
            }
            if let Some(error) = &sink.last_error {
                write!(f, " (last error: {error})")?;
            }
        }
        Ok(())
    }
}
