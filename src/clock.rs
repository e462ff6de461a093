//! Time: stamps for records, and the worker's clock, which a test can move.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::sync::{Arc, Mutex, OnceLock, Ordering, Parker, PlainU64, Unparker};

/// The longest that a worker sleeps at a stretch. It never depends on this: the protocol of `wake.rs`
/// loses no wake-up. Should it do so all the same, this bounds what it costs.
const LONGEST_NAP: Duration = Duration::from_secs(10);

/// How often the counter is set to the system's clock again.
const REANCHOR_EVERY_NANOS: u64 = 1_000_000_000;

/// Reads the processor's time-stamp counter, and knows how far that is from the system's clock.
struct Stamper {
    counter: quanta::Clock,
    origin: u64,
    /// Unix time minus counter time, in nanoseconds. One word, so that it cannot be read half-written.
    /// Relaxed, like the next: each stands for itself, and a stale one is a microsecond off.
    offset: PlainU64,
    /// Counter time of the last correction.
    anchored_at: PlainU64,
}

static STAMPER: OnceLock<Stamper> = OnceLock::new();

impl Stamper {
    fn get() -> &'static Self {
        STAMPER.get_or_init(|| {
            let counter = quanta::Clock::new();
            let origin = counter.raw();
            let stamper = Self { counter, origin, offset: PlainU64::new(0), anchored_at: PlainU64::new(0) };
            stamper.anchor(stamper.counter_nanos());
            stamper
        })
    }

    #[inline]
    fn counter_nanos(&self) -> u64 {
        self.counter.delta_as_nanos(self.origin, self.counter.raw())
    }

    #[cold]
    fn anchor(&self, now: u64) {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.offset.store((unix.as_nanos() as u64).wrapping_sub(now), Ordering::Relaxed);
        self.anchored_at.store(now, Ordering::Relaxed);
    }
}

/// Nanoseconds since 1970-01-01 UTC.
///
/// A counter read, two loads and an addition: about 10 ns where `SystemTime::now` takes 26. Once a second a
/// caller sets it to the system's clock, so it follows that clock to some microseconds, corrections by the
/// system included.
#[inline]
pub(crate) fn unix_nanos() -> u64 {
    let stamper = Stamper::get();
    let now = stamper.counter_nanos();
    if now.wrapping_sub(stamper.anchored_at.load(Ordering::Relaxed)) >= REANCHOR_EVERY_NANOS {
        stamper.anchor(now);
    }
    now.wrapping_add(stamper.offset.load(Ordering::Relaxed))
}

/// Nanoseconds since some moment before the first call, at least a day: for spans of time, which do not care what the
/// system's clock is set to.
pub(crate) fn nanos() -> u64 {
    Stamper::get().counter_nanos().saturating_add(DAY_NANOS)
}

/// So that no window of time is the one before all others.
const DAY_NANOS: u64 = 86_400_000_000_000;

/// Calibrates the counter, once a process: a few milliseconds that the first record would pay otherwise.
pub(crate) fn calibrate() {
    Stamper::get();
}

/// The clock by which a worker keeps its intervals.
#[derive(Debug, Clone, Default)]
pub(crate) enum Clock {
    #[default]
    System,
    Manual(ManualClock),
}

impl Clock {
    pub(crate) fn now(&self) -> Instant {
        match self {
            Clock::System => Instant::now(),
            Clock::Manual(clock) => clock.now(),
        }
    }

    /// Nanoseconds since some moment: a third of the price of an `Instant`.
    pub(crate) fn nanos(&self) -> u64 {
        match self {
            Clock::System => nanos(),
            Clock::Manual(clock) => {
                u64::try_from(clock.elapsed().as_nanos()).unwrap_or(u64::MAX).saturating_add(DAY_NANOS)
            }
        }
    }

    /// Registers the worker's bell with a clock that is moved by hand.
    pub(crate) fn tell(&self, bell: &Unparker) {
        if let Clock::Manual(clock) = self {
            clock.inner.bells.lock().push(bell.clone());
        }
    }

    /// Sleeps until the bell rings or `until` comes. May return early.
    pub(crate) fn park(&self, parker: &Parker, until: Option<Instant>) {
        let nap = match (self, until) {
            (Clock::System, Some(until)) => until.saturating_duration_since(Instant::now()),
            // A clock that is moved rings the bell.
            (Clock::Manual(_), _) | (Clock::System, None) => LONGEST_NAP,
        };
        parker.park_timeout(nap.min(LONGEST_NAP));
    }
}

/// A clock that stands still until it is moved, so that a test of intervals needs no sleep.
///
/// It governs the intervals of the flush strategy, the gate, the rate and the uptime that statistics tell, and the pace of
/// [`on_log`](crate::Builder::on_log). Deadlines of callers, and the time stamps of records and batches, come from the system.
/// A clone is the same clock.
///
/// ```
/// use std::time::Duration;
/// use forebay::{Collector, FlushStrategy, ManualClock, Record, sink::MemorySink};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let clock = ManualClock::new();
/// let memory = MemorySink::new();
/// let collector = Collector::builder()
///     .manual_clock(&clock)
///     .flush(FlushStrategy::Time { interval: Duration::from_secs(3600) })
///     .sink(memory.clone())
///     .start()?;
/// collector.collect(Record::scalar("train.loss", 0.5));
/// while !memory.wait_for(1, Duration::from_millis(1)) {
///     clock.advance(Duration::from_secs(3600));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ManualClock {
    inner: Arc<ManualInner>,
}

#[derive(Debug)]
struct ManualInner {
    origin: Instant,
    /// Nanoseconds since `origin`.
    elapsed: PlainU64,
    bells: Mutex<Vec<Unparker>>,
}

impl ManualClock {
    /// A clock that shows the present, and stands.
    pub fn new() -> Self {
        let inner =
            ManualInner { origin: Instant::now(), elapsed: PlainU64::new(0), bells: Mutex::new(Vec::new()) };
        Self { inner: Arc::new(inner) }
    }

    /// Moves it forward, and wakes every worker that goes by it.
    pub fn advance(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        // It stops at the end of what it can tell: after 584 years.
        let later = |elapsed: u64| Some(elapsed.saturating_add(nanos));
        let _ = self.inner.elapsed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, later);
        for bell in &*self.inner.bells.lock() {
            bell.unpark();
        }
    }

    /// How far it was moved so far.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.inner.elapsed.load(Ordering::SeqCst))
    }

    fn now(&self) -> Instant {
        let now = self.inner.origin.checked_add(self.elapsed());
        now.unwrap_or(self.inner.origin)
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_follow_the_system_clock() {
        let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i128;
        let stamp = i128::from(unix_nanos());
        assert!((stamp - before).abs() < 1_000_000_000, "{stamp} is far from {before}");
    }
}
