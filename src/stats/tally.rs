//! The counters themselves.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{BreakerState, Meter, SinkFlush, SinkStats};
use crate::clock::Clock;
use crate::escape::shortened;
use crate::self_log::{LogLevel, LogPaces, LogTopic, SelfLog};
use crate::sync::{Arc, CachePadded, Mutex, Ordering, PlainMutex, PlainU64, fetch_update};

/// Counters of a collector. All Relaxed: they are counts, not signals; who must see a particular event
/// counted (after a flush, a stop) synchronises through the mailbox.
#[derive(Debug)]
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
    /// How fast events are delivered.
    pub(crate) meter: Meter,
    pub(crate) log: Arc<SelfLog>,
    pub(crate) paces: LogPaces,
}

impl Tally {
    pub(crate) fn new(clock: &Clock, log: Arc<SelfLog>) -> Self {
        Self {
            worker: CachePadded::default(),
            rejected: CachePadded::default(),
            filtered: Count::default(),
            sampled_out: Count::default(),
            rate_limited: Count::default(),
            oversize: Count::default(),
            waits: Count::default(),
            meter: Meter::new(clock.nanos()),
            log,
            paces: LogPaces::default(),
        }
    }

    /// Tells the hook of the collector.
    pub(crate) fn say(&self, level: LogLevel, topic: LogTopic, message: impl FnOnce() -> String) {
        self.log.say(&self.paces, (level, topic), None, message);
    }
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
    pub(crate) parks: Count,
    pub(crate) peak_pending: Count,
    pub(crate) enrich_panics: Count,
    /// Since when it has a batch in its hands, by `clock::nanos`; 0 while it has none.
    pub(crate) busy_since: PlainU64,
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
pub struct Count(PlainU64);

impl Count {
    /// Ends at the largest number: a sink may tell its account any.
    pub fn add(&self, n: u64) {
        if self.0.fetch_add(n, Ordering::Relaxed).checked_add(n).is_none() {
            self.0.store(u64::MAX, Ordering::Relaxed);
        }
    }

    /// The same for a counter that one thread alone writes: a third of the price.
    pub fn bump(&self, n: u64) {
        self.0.store(self.get() + n, Ordering::Relaxed);
    }

    /// Raises it to `n`, unless it is there or above.
    pub fn raise_to(&self, n: u64) {
        self.0.fetch_max(n, Ordering::Relaxed);
    }

    /// For a moment, not a count: the wall clock may have been set back.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// Ends at 0: a wrapper may settle more than it kept.
    pub fn lower_by(&self, n: u64) {
        fetch_update(&self.0, |count| Some(count.saturating_sub(n)));
    }

    /// Returns the count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters of one sink. Made when the sink is added; shared by the slot that writes them and the
/// registry that reads them; ends with the later of the two.
#[derive(Debug)]
pub struct SinkTally {
    /// The name of the sink.
    pub name: String,
    /// How many events it was offered.
    pub offered: Count,
    pub(crate) delivered: Count,
    pub(crate) failed: Count,
    pub(crate) dead_lettered: Count,
    /// How many events went to make room for newer ones.
    pub shed: Count,
    pub(crate) retries: Count,
    pub(crate) redriven: Count,
    /// Events that a part of the sink has kept, to settle them later.
    pub(crate) kept: Count,
    pub(crate) errors: Count,
    pub(crate) panics: Count,
    pub(crate) flush_errors: Count,
    /// Events that the sink is busy with; 0 between calls.
    pub(crate) in_flight: PlainU64,
    /// When the worker began the call of the sink in which it is, by `clock::nanos`; 0 while it is in none.
    pub busy_since: PlainU64,
    /// The same for the thread of an isolated sink.
    pub(crate) own_thread_since: PlainU64,
    /// A mean over the calls so far, 0 to 1, of whether they failed: the bits of a float.
    failure_rate: PlainU64,
    /// What wrappers show of themselves.
    shown: PlainMutex<Shown>,
    /// How long writes took, in nanoseconds.
    pub(crate) write_nanos: Count,
    pub(crate) last_error: Mutex<Option<String>>,
    log: Arc<SelfLog>,
    paces: LogPaces,
    /// What the counters were when a flush last told of them.
    pub(crate) reported: Mutex<Reported>,
}

/// What wrappers of a sink show of themselves.
#[derive(Default)]
struct Shown {
    /// The state of each of its breakers.
    breakers: Vec<Box<dyn Fn() -> BreakerState + Send + Sync>>,
    /// It is a live subscription, which cannot fail.
    is_tap: bool,
    /// How many dead letters wait, for each queue of them.
    letters: Vec<Box<dyn Fn() -> u64 + Send + Sync>>,
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown").field("breakers", &self.breakers.len()).finish_non_exhaustive()
    }
}

/// What the next call weighs in the mean over all.
const WEIGHT: f64 = 0.25;

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reported {
    delivered: u64,
    failed: u64,
    dead_lettered: u64,
    shed: u64,
    troubles: u64,
}

impl SinkTally {
    pub(crate) fn new(name: String, log: Arc<SelfLog>) -> Self {
        Self {
            name,
            log,
            paces: LogPaces::default(),
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
            busy_since: PlainU64::new(0),
            own_thread_since: PlainU64::new(0),
            failure_rate: PlainU64::new(0),
            shown: PlainMutex::default(),
            write_nanos: Count::default(),
            last_error: Mutex::new(None),
            reported: Mutex::default(),
        }
    }

    /// What happened since the flush that was told last, from where, and up to where.
    pub(crate) fn delta(&self) -> (SinkFlush, Reported, Reported) {
        let from = *self.reported.lock();
        let (delta, up_to) = self.delta_since(from);
        (delta, from, up_to)
    }

    /// The same, told to somebody by that.
    pub(crate) fn take_delta(&self) -> SinkFlush {
        let mut reported = self.reported.lock();
        let (delta, up_to) = self.delta_since(*reported);
        *reported = up_to;
        delta
    }

    fn delta_since(&self, reported: Reported) -> (SinkFlush, Reported) {
        let up_to = Reported {
            delivered: self.delivered.get(),
            failed: self.failed.get(),
            dead_lettered: self.dead_lettered.get(),
            shed: self.shed.get(),
            troubles: self.errors.get().saturating_add(self.panics.get()),
        };
        // Whoever adds to a count that is at its end makes it smaller for a moment.
        let since = u64::saturating_sub;
        let delta = SinkFlush {
            delivered: since(up_to.delivered, reported.delivered),
            failed: since(up_to.failed, reported.failed),
            dead_lettered: since(up_to.dead_lettered, reported.dead_lettered),
            shed: since(up_to.shed, reported.shed),
            error: if up_to.troubles > reported.troubles { self.last_error.lock().clone() } else { None },
            name: self.name.clone(),
        };
        (delta, up_to)
    }

    /// What was told since `from` was not heard after all. Better twice than never.
    pub(crate) fn rollback(&self, from: Reported) {
        let mut reported = self.reported.lock();
        *reported = Reported {
            delivered: reported.delivered.min(from.delivered),
            failed: reported.failed.min(from.failed),
            dead_lettered: reported.dead_lettered.min(from.dead_lettered),
            shed: reported.shed.min(from.shed),
            troubles: reported.troubles.min(from.troubles),
        };
    }

    /// The delta up to there were told to somebody. Others may have been told more meanwhile.
    pub(crate) fn mark_reported(&self, up_to: Reported) {
        let mut reported = self.reported.lock();
        *reported = Reported {
            delivered: reported.delivered.max(up_to.delivered),
            failed: reported.failed.max(up_to.failed),
            dead_lettered: reported.dead_lettered.max(up_to.dead_lettered),
            shed: reported.shed.max(up_to.shed),
            troubles: reported.troubles.max(up_to.troubles),
        };
    }

    /// Notes a call that panicked.
    pub(crate) fn note_panic(&self, said: String) {
        self.panics.add(1);
        self.went_wrong();
        let said = shortened(format!("panicked: {said}"));
        *self.last_error.lock() = Some(said.clone());
        self.say(LogLevel::Error, LogTopic::SinkPanicked, || said);
    }

    /// Notes a call that failed, or in which user code panicked and was caught.
    pub(crate) fn note_error(&self, said: String, is_panic: bool) {
        let (count, topic) = match is_panic {
            true => (&self.panics, LogTopic::SinkPanicked),
            false => (&self.errors, LogTopic::SinkFailed),
        };
        let said = shortened(said);
        count.add(1);
        self.went_wrong();
        *self.last_error.lock() = Some(said.clone());
        self.say(LogLevel::Error, topic, || said);
    }

    /// Tells the hook of the collector.
    pub(crate) fn say(&self, level: LogLevel, topic: LogTopic, message: impl FnOnce() -> String) {
        self.log.say(&self.paces, (level, topic), Some(&self.name), message);
    }

    /// A call succeeded.
    pub(crate) fn went_well(&self) {
        self.weigh(0.0);
    }

    /// A call failed, whatever became of its events.
    pub(crate) fn went_wrong(&self) {
        self.weigh(1.0);
    }

    fn weigh(&self, call: f64) {
        fetch_update(&self.failure_rate, |bits| {
            let mean = f64::from_bits(bits);
            Some((mean + (call - mean) * WEIGHT).to_bits())
        });
    }

    /// Which part of the last calls failed.
    pub(crate) fn failure_rate(&self) -> f64 {
        f64::from_bits(self.failure_rate.load(Ordering::Relaxed))
    }

    pub(crate) fn show_breaker(&self, state: impl Fn() -> BreakerState + Send + Sync + 'static) {
        self.shown.lock().breakers.push(Box::new(state));
    }

    pub(crate) fn show_tap(&self) {
        self.shown.lock().is_tap = true;
    }

    pub(crate) fn is_tap(&self) -> bool {
        self.shown.lock().is_tap
    }

    pub(crate) fn show_letters(&self, count: impl Fn() -> u64 + Send + Sync + 'static) {
        self.shown.lock().letters.push(Box::new(count));
    }

    /// The state of the breaker that is furthest from closed, if there is one.
    pub(crate) fn breaker(&self) -> Option<BreakerState> {
        let severity = |state: &BreakerState| match state {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        };
        self.shown.lock().breakers.iter().map(|state| state()).max_by_key(severity)
    }

    /// How many dead letters wait.
    pub(crate) fn letters(&self) -> u64 {
        self.shown.lock().letters.iter().map(|count| count()).fold(0, u64::saturating_add)
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
            in_flight: self.in_flight.load(Ordering::Relaxed).saturating_add(self.kept.get()),
            errors: self.errors.get(),
            panics: self.panics.get(),
            flush_errors: self.flush_errors.get(),
            last_error: self.last_error.lock().clone(),
            dead_letters: self.letters(),
            breaker: self.breaker(),
            write_time: Duration::from_nanos(self.write_nanos.get()),
        }
    }
}

/// The tallies of the sinks that are there, by name: names are unique.
#[derive(Debug)]
pub(crate) struct Registry {
    tallies: Mutex<Vec<Arc<SinkTally>>>,
    log: Arc<SelfLog>,
}

impl Registry {
    pub(crate) fn new(log: Arc<SelfLog>) -> Self {
        Self { tallies: Mutex::default(), log }
    }

    /// Enters a name; `None` when it is taken.
    pub(crate) fn register(&self, name: &str) -> Option<Arc<SinkTally>> {
        let mut tallies = self.tallies.lock();
        if tallies.iter().any(|tally| tally.name == name) {
            return None;
        }
        let tally = Arc::new(SinkTally::new(name.to_owned(), Arc::clone(&self.log)));
        tallies.push(Arc::clone(&tally));
        Some(tally)
    }

    /// Whether a sink has this name.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.tallies.lock().iter().any(|tally| tally.name == name)
    }

    /// Strikes a name out.
    pub(crate) fn remove(&self, name: &str) {
        self.tallies.lock().retain(|tally| tally.name != name);
    }

    pub(crate) fn snapshot(&self) -> Vec<SinkStats> {
        // In a forked child the sinks are the parent's.
        let Ok(tallies) = self.tallies.enter() else { return Vec::new() };
        tallies.iter().map(|tally| tally.snapshot()).collect()
    }

    pub(crate) fn all(&self) -> Vec<Arc<SinkTally>> {
        self.tallies.lock().clone()
    }

    /// The sink in which the worker is at present.
    pub(crate) fn busy(&self) -> Option<String> {
        let tallies = self.tallies.lock();
        let busy = tallies.iter().find(|tally| tally.busy_since.load(Ordering::Relaxed) != 0);
        busy.map(|tally| tally.name.clone())
    }
}
