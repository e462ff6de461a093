//! `Tally` and `SinkTally`: the counters of a collector and of its sinks. `Registry`: the sinks by name.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{BreakerState, Meter, SinkFlush, SinkStats};
use crate::clock::Clock;
use crate::escape::shortened;
use crate::self_log::{LogLevel, LogPaces, LogTopic, SelfLog};
use crate::sync::{Arc, CachePadded, Mutex, Ordering, PlainMutex, PlainU64, fetch_update};

/// Counters of a collector. All are Relaxed, because they are counts, not signals. A caller that must see a
/// particular event counted (after a flush, a stop) synchronises through the mailbox.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Written by the worker alone.
    pub(crate) worker: CachePadded<WorkerTally>,
    /// Written by producers whose event was rejected, and by those that remove late events.
    pub(crate) rejected: CachePadded<RejectedTally>,
    /// Events that the gate rejected.
    pub(crate) filtered: Count,
    pub(crate) sampled_out: Count,
    pub(crate) rate_limited: Count,
    pub(crate) oversize: Count,
    /// Number of times that a producer woke the worker.
    pub(crate) wakes: Count,
    /// Number of times that a producer waited for space.
    pub(crate) waits: Count,
    /// Speed of delivery.
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
            wakes: Count::default(),
            waits: Count::default(),
            meter: Meter::new(clock.nanos()),
            log,
            paces: LogPaces::default(),
        }
    }

    /// Passes a message to the hook of the collector.
    pub(crate) fn say(&self, level: LogLevel, topic: LogTopic, message: impl FnOnce() -> String) {
        self.log.say(&self.paces, (level, topic), None, message);
    }
}

/// Counters of the worker.
#[derive(Debug, Default)]
pub(crate) struct WorkerTally {
    /// Events taken out of the rings and put into a batch.
    pub(crate) taken: Count,
    /// Events of batches that all sinks have seen. Never more than `taken`.
    pub(crate) processed: Count,
    pub(crate) batches: Count,
    pub(crate) flushes: Count,
    /// The last flush, in nanoseconds since 1970; 0 before the first one.
    pub(crate) last_flush: Count,
    pub(crate) parks: Count,
    pub(crate) peak_pending: Count,
    pub(crate) enrich_panics: Count,
    /// Start of the current batch, by `clock::nanos`; 0 while the worker has none.
    pub(crate) busy_since: PlainU64,
}

impl WorkerTally {
    /// Returns the moment of the last flush.
    pub(crate) fn last_flush(&self) -> Option<SystemTime> {
        let nanos = self.last_flush.get();
        (nanos > 0).then(|| UNIX_EPOCH + Duration::from_nanos(nanos))
    }
}

/// Events that were rejected, by reason.
#[derive(Debug, Default)]
pub(crate) struct RejectedTally {
    pub(crate) full: Count,
    pub(crate) stopped: Count,
    pub(crate) worker_gone: Count,
    pub(crate) forked: Count,
}

/// Counter.
#[derive(Debug, Default)]
pub struct Count(PlainU64);

impl Count {
    /// Adds `n`, and saturates: a sink may give its account any number.
    pub fn add(&self, n: u64) {
        if self.0.fetch_add(n, Ordering::Relaxed).checked_add(n).is_none() {
            self.0.store(u64::MAX, Ordering::Relaxed);
        }
    }

    /// Adds `n` to a counter that one thread alone writes. It costs a third of `add`.
    pub fn bump(&self, n: u64) {
        self.0.store(self.get() + n, Ordering::Relaxed);
    }

    /// Raises the counter to `n`, unless it is there or above.
    pub fn raise_to(&self, n: u64) {
        self.0.fetch_max(n, Ordering::Relaxed);
    }

    /// Sets a moment, which is no count: the wall clock may have been set back.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// Subtracts `n`, and stops at 0: a wrapper may complete more events than it kept.
    pub fn lower_by(&self, n: u64) {
        fetch_update(&self.0, |count| Some(count.saturating_sub(n)));
    }

    /// Returns the count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters of one sink. They are made when the sink is added. The slot writes them, the registry reads them, and
/// they end with the later of the two.
#[derive(Debug)]
pub struct SinkTally {
    /// The name of the sink.
    pub name: String,
    /// Events that were offered to it.
    pub offered: Count,
    pub(crate) delivered: Count,
    pub(crate) failed: Count,
    pub(crate) dead_lettered: Count,
    /// Events that were evicted for newer ones.
    pub evicted: Count,
    pub(crate) rejected: Count,
    pub(crate) retries: Count,
    pub(crate) redriven: Count,
    /// Events that a part of the sink has kept, to complete them later.
    pub(crate) kept: Count,
    pub(crate) errors: Count,
    pub(crate) panics: Count,
    pub(crate) flush_errors: Count,
    /// Events that the sink is busy with; 0 between calls.
    pub(crate) in_flight: PlainU64,
    /// Time when the worker began its current call of the sink, by `clock::nanos`; 0 between calls.
    pub busy_since: PlainU64,
    /// Time when the thread of an isolated sink began its current call, by `clock::nanos`; 0 between calls.
    pub(crate) own_thread_since: PlainU64,
    /// Weighted share of failed calls, 0 to 1, as the bits of a float.
    failure_rate: PlainU64,
    /// State that wrappers publish.
    shown: PlainMutex<Shown>,
    /// Total time of writes, in nanoseconds.
    pub(crate) write_nanos: Count,
    pub(crate) last_error: Mutex<Option<String>>,
    log: Arc<SelfLog>,
    paces: LogPaces,
    /// The counters at the last flush whose report reached its caller.
    pub(crate) reported: Mutex<Reported>,
}

/// State that the wrappers of a sink publish.
#[derive(Default)]
struct Shown {
    /// The state of each of its breakers.
    breakers: Vec<Arc<dyn Fn() -> BreakerState + Send + Sync>>,
    /// True if the sink is a live subscription, which cannot fail.
    is_tap: bool,
    /// The number of dead letters, for each queue of them.
    letters: Vec<Arc<dyn Fn() -> u64 + Send + Sync>>,
    /// Path that an earlier run has written to.
    earlier_run: Option<String>,
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown").field("breakers", &self.breakers.len()).finish_non_exhaustive()
    }
}

/// Weight of the next call in the mean over all.
const WEIGHT: f64 = 0.25;

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reported {
    delivered: u64,
    failed: u64,
    dead_lettered: u64,
    evicted: u64,
    rejected: u64,
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
            evicted: Count::default(),
            rejected: Count::default(),
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

    /// Returns the counts since the last flush whose report reached its caller, and the readings between which they
    /// lie.
    pub(crate) fn delta(&self) -> (SinkFlush, Reported, Reported) {
        let from = *self.reported.lock();
        let (delta, up_to) = self.delta_since(from);
        (delta, from, up_to)
    }

    /// Returns the counts since the last report, and marks them as reported.
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
            evicted: self.evicted.get(),
            rejected: self.rejected.get(),
            troubles: self.errors.get().saturating_add(self.panics.get()),
        };
        // Saturating: a count that is at its end becomes smaller for a moment while a thread adds to it.
        let since = u64::saturating_sub;
        let delta = SinkFlush {
            delivered: since(up_to.delivered, reported.delivered),
            failed: since(up_to.failed, reported.failed),
            dead_lettered: since(up_to.dead_lettered, reported.dead_lettered),
            evicted: since(up_to.evicted, reported.evicted),
            rejected: since(up_to.rejected, reported.rejected),
            error: if up_to.troubles > reported.troubles { self.last_error.lock().clone() } else { None },
            name: self.name.clone(),
        };
        (delta, up_to)
    }

    /// Takes back reports since `from`, because no caller read them. A loss may be reported twice, but never not at
    /// all.
    pub(crate) fn rollback(&self, from: Reported) {
        let mut reported = self.reported.lock();
        *reported = Reported {
            delivered: reported.delivered.min(from.delivered),
            failed: reported.failed.min(from.failed),
            dead_lettered: reported.dead_lettered.min(from.dead_lettered),
            evicted: reported.evicted.min(from.evicted),
            rejected: reported.rejected.min(from.rejected),
            troubles: reported.troubles.min(from.troubles),
        };
    }

    /// Marks the counts up to `up_to` as reported. Other threads may have reported more meanwhile.
    pub(crate) fn mark_reported(&self, up_to: Reported) {
        let mut reported = self.reported.lock();
        *reported = Reported {
            delivered: reported.delivered.max(up_to.delivered),
            failed: reported.failed.max(up_to.failed),
            dead_lettered: reported.dead_lettered.max(up_to.dead_lettered),
            evicted: reported.evicted.max(up_to.evicted),
            rejected: reported.rejected.max(up_to.rejected),
            troubles: reported.troubles.max(up_to.troubles),
        };
    }

    /// Notes a call that panicked.
    pub(crate) fn note_panic(&self, message: String) {
        self.panics.add(1);
        self.record_failure();
        let message = shortened(format!("panicked: {message}"));
        *self.last_error.lock() = Some(message.clone());
        self.say(LogLevel::Error, LogTopic::SinkPanicked, || message);
    }

    /// Notes a call that failed, or in which user code panicked and was caught.
    pub(crate) fn note_error(&self, message: String, is_panic: bool) {
        let (count, topic) = match is_panic {
            true => (&self.panics, LogTopic::SinkPanicked),
            false => (&self.errors, LogTopic::SinkFailed),
        };
        let message = shortened(message);
        count.add(1);
        self.record_failure();
        *self.last_error.lock() = Some(message.clone());
        self.say(LogLevel::Error, topic, || message);
    }

    /// Notes where an earlier run has written, and this one goes on.
    pub(crate) fn note_earlier_run(&self, path: String) {
        self.say(LogLevel::Info, LogTopic::EarlierRun, || {
            format!("goes on where an earlier run has written: {path}")
        });
        self.shown.lock().earlier_run = Some(path);
    }

    /// Passes a message to the hook of the collector.
    pub(crate) fn say(&self, level: LogLevel, topic: LogTopic, message: impl FnOnce() -> String) {
        self.log.say(&self.paces, (level, topic), Some(&self.name), message);
    }

    /// Notes a call that succeeded.
    pub(crate) fn record_success(&self) {
        self.weigh_call(0.0);
    }

    /// Notes a call that failed, whatever became of its events.
    pub(crate) fn record_failure(&self) {
        self.weigh_call(1.0);
    }

    fn weigh_call(&self, call: f64) {
        fetch_update(&self.failure_rate, |bits| {
            let mean = f64::from_bits(bits);
            Some((mean + (call - mean) * WEIGHT).to_bits())
        });
    }

    /// Returns the weighted share of failed calls, 0 to 1.
    pub(crate) fn failure_rate(&self) -> f64 {
        f64::from_bits(self.failure_rate.load(Ordering::Relaxed))
    }

    pub(crate) fn show_breaker(&self, state: impl Fn() -> BreakerState + Send + Sync + 'static) {
        self.shown.lock().breakers.push(Arc::new(state));
    }

    pub(crate) fn show_tap(&self) {
        self.shown.lock().is_tap = true;
    }

    pub(crate) fn is_tap(&self) -> bool {
        self.shown.lock().is_tap
    }

    pub(crate) fn count_letters_with(&self, count: impl Fn() -> u64 + Send + Sync + 'static) {
        self.shown.lock().letters.push(Arc::new(count));
    }

    /// Returns the state of the breaker that is furthest from closed, if there is one.
    pub(crate) fn breaker(&self) -> Option<BreakerState> {
        let severity = |state: &BreakerState| match state {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        };
        let breakers = self.shown.lock().breakers.clone();
        breakers.iter().map(|state| state()).max_by_key(severity)
    }

    /// Returns how many dead letters wait.
    pub(crate) fn letters(&self) -> u64 {
        // Without the lock: who asks last drops the letters, and the code of their events may ask for statistics.
        let letters = self.shown.lock().letters.clone();
        letters.iter().map(|count| count()).fold(0, u64::saturating_add)
    }

    pub(crate) fn snapshot(&self) -> SinkStats {
        SinkStats {
            name: self.name.clone(),
            offered: self.offered.get(),
            delivered: self.delivered.get(),
            failed: self.failed.get(),
            dead_lettered: self.dead_lettered.get(),
            evicted: self.evicted.get(),
            rejected: self.rejected.get(),
            retries: self.retries.get(),
            redriven: self.redriven.get(),
            in_flight: self.in_flight.load(Ordering::Relaxed).saturating_add(self.kept.get()),
            errors: self.errors.get(),
            panics: self.panics.get(),
            flush_errors: self.flush_errors.get(),
            last_error: self.last_error.lock().clone(),
            dead_letters: self.letters(),
            breaker: self.breaker(),
            earlier_run: self.shown.lock().earlier_run.clone(),
            write_time: Duration::from_nanos(self.write_nanos.get()),
        }
    }
}

/// Counters of the current sinks, by name. Names are unique.
#[derive(Debug)]
pub(crate) struct Registry {
    tallies: Mutex<Vec<Arc<SinkTally>>>,
    log: Arc<SelfLog>,
}

impl Registry {
    pub(crate) fn new(log: Arc<SelfLog>) -> Self {
        Self { tallies: Mutex::default(), log }
    }

    /// Adds a name and makes its counters. Returns `None` when another sink has the name.
    pub(crate) fn register(&self, name: &str) -> Option<Arc<SinkTally>> {
        let mut tallies = self.tallies.lock();
        if tallies.iter().any(|tally| tally.name == name) {
            return None;
        }
        let tally = Arc::new(SinkTally::new(name.to_owned(), Arc::clone(&self.log)));
        tallies.push(Arc::clone(&tally));
        Some(tally)
    }

    /// Returns the counters of the sink that has this name.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<SinkTally>> {
        self.tallies.lock().iter().find(|tally| tally.name == name).cloned()
    }

    /// Removes a name.
    pub(crate) fn remove(&self, name: &str) {
        self.tallies.lock().retain(|tally| tally.name != name);
    }

    pub(crate) fn snapshot(&self) -> Vec<SinkStats> {
        // In a forked child the sinks are the parent's.
        let Ok(tallies) = self.tallies.enter().map(|tallies| tallies.clone()) else { return Vec::new() };
        tallies.iter().map(|tally| tally.snapshot()).collect()
    }

    /// Returns how many events the queues of the sinks hold.
    pub(crate) fn kept(&self) -> u64 {
        // In a forked child the sinks are the parent's.
        let Ok(tallies) = self.tallies.enter() else { return 0 };
        tallies.iter().map(|tally| tally.kept.get()).fold(0, u64::saturating_add)
    }

    pub(crate) fn all(&self) -> Vec<Arc<SinkTally>> {
        self.tallies.lock().clone()
    }

    /// Returns the name of the sink that the worker is calling, if any.
    pub(crate) fn busy(&self) -> Option<String> {
        let tallies = self.tallies.lock();
        let busy = tallies.iter().find(|tally| tally.busy_since.load(Ordering::Relaxed) != 0);
        busy.map(|tally| tally.name.clone())
    }
}
