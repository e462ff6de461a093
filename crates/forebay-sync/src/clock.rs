//! Time: stamps for records, and the worker's clock, which a test can move.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::sync::{Arc, Mutex, OnceLock, Ordering, Parker, PlainU64, Unparker, unforked};

/// The longest that a worker sleeps at a stretch. It never depends on this: the protocol of `wake.rs`
/// loses no wake-up. Should it do so all the same, this bounds what it costs.
const LONGEST_NAP: Duration = Duration::from_secs(10);

/// How old an anchor of a [`Follower`] may become, in nanoseconds: a tenth of a second.
const REANCHOR_AFTER_NANOS: u64 = 100_000_000;

/// In the place of the counter time of an anchor, while somebody takes a new one.
const BUSY: u64 = u64::MAX;

/// A clock of the system, followed by the processor's time-stamp counter: a reading takes about 10 ns, where the system's
/// own takes 26.
///
/// The counter alone cannot be trusted. After a suspend, a hibernation or a restore by CRIU it begins anew from zero, or
/// goes on far ahead. So it measures only the time since the last anchor, and an anchor is taken
/// again when it is a tenth of a second old, or lies in the future of the counter. A clock of the system that is set is
/// followed just as fast.
struct Follower<S> {
    source: S,
    /// System time minus counter time at the last anchor, wrapping.
    offset: PlainU64,
    /// Counter time of the last anchor, or [`BUSY`]. Together with `offset` it is a sequence lock: a reader trusts an
    /// offset only if this word was the same before and after.
    anchored_at: PlainU64,
}

/// Where a [`Follower`] reads the counter and the clock that it follows, both in nanoseconds.
trait Source {
    fn counter(&self) -> u64;
    fn system(&self) -> u64;
}

impl<S: Source> Follower<S> {
    fn new(source: S) -> Self {
        let follower = Self { source, offset: PlainU64::new(0), anchored_at: PlainU64::new(0) };
        follower.anchor(0);
        follower
    }

    #[inline]
    fn now(&self) -> u64 {
        // Acquire: the offset of this anchor, or of a later one, is seen (Release in `anchor`).
        let anchored_at = self.anchored_at.load(Ordering::Acquire);
        let counter = self.source.counter();
        // Acquire: a later offset brings the change of `anchored_at` with it that was made before, so that the next load
        // tells. Without, a new offset could be added to a counter of before it began anew.
        let offset = self.offset.load(Ordering::Acquire);
        // A counter that went backward wraps to a huge age.
        let is_stale = counter.wrapping_sub(anchored_at) >= REANCHOR_AFTER_NANOS;
        if is_stale || anchored_at == BUSY || self.anchored_at.load(Ordering::Relaxed) != anchored_at {
            return self.anchor(anchored_at);
        }
        counter.wrapping_add(offset)
    }

    /// Takes a new anchor, unless another thread does so now or has since `seen` was read. Returns the time of the system.
    ///
    /// Nobody waits for that thread: it may be preempted, interrupted by a signal handler that comes here too, or, in a
    /// forked child, not exist. Until it is done, others ask the system.
    #[cold]
    #[inline(never)]
    fn anchor(&self, seen: u64) -> u64 {
        let claim = || self.anchored_at.compare_exchange(seen, BUSY, Ordering::Acquire, Ordering::Relaxed);
        if seen == BUSY || claim().is_err() {
            return self.source.system();
        }
        // A thread that is preempted between the two readings would be late by that: it tries again.
        let (mut counter, mut system) = (0, 0);
        for _ in 0..3 {
            counter = self.source.counter();
            system = self.source.system();
            if self.source.counter().wrapping_sub(counter) < 10_000 {
                break;
            }
        }
        // Release, both: see `now`.
        self.offset.store(system.wrapping_sub(counter), Ordering::Release);
        self.anchored_at.store(if counter == BUSY { 0 } else { counter }, Ordering::Release);
        system
    }
}

/// The wall clock. It can be set, so it only labels.
struct Wall(quanta::Clock);

/// The monotonic clock.
struct Monotonic(quanta::Clock);

/// Returns the processor's counter, calibrated. Miri cannot read it (it has no inline assembly): there the system's clock stands in.
fn new_counter() -> quanta::Clock {
    if cfg!(miri) { quanta::Clock::mock().0 } else { quanta::Clock::new() }
}

fn counter_of(counter: &quanta::Clock) -> u64 {
    if cfg!(miri) { nanos() } else { counter.delta_as_nanos(0, counter.raw()) }
}

impl Source for Wall {
    fn counter(&self) -> u64 {
        counter_of(&self.0)
    }

    fn system(&self) -> u64 {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Source for Monotonic {
    fn counter(&self) -> u64 {
        counter_of(&self.0)
    }

    fn system(&self) -> u64 {
        nanos()
    }
}

static WALL: OnceLock<Follower<Wall>> = OnceLock::new();
static MONOTONIC: OnceLock<Follower<Monotonic>> = OnceLock::new();
static ORIGIN: OnceLock<Instant> = OnceLock::new();

/// Nanoseconds since 1970-01-01 UTC, for labels: the wall clock can be set. A counter read, three loads and an addition.
///
/// A call of its own: inlined into `collect`, its rare paths have the compiler move the record to memory and back, which
/// costs more (23 ns instead of 12, measured).
#[inline(never)]
pub fn unix_nanos() -> u64 {
    once(&WALL, || Follower::new(Wall(new_counter()))).now()
}

/// Returns the moment `longest` from now. `None` where that is beyond what the clock can tell: no deadline.
#[inline]
pub fn deadline_in(longest: Duration) -> Option<Instant> {
    Instant::now().checked_add(longest)
}

/// Nanoseconds since some moment before the first call, at least a day, by the monotonic clock: for spans of time. Neither a
/// clock that is set nor a counter that begins anew disturbs them. Time in which the machine is suspended does not count.
pub fn nanos() -> u64 {
    let since = once(&ORIGIN, Instant::now).elapsed();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX).saturating_add(DAY_NANOS)
}

/// The same at the price of [`unix_nanos`], for what is measured once an event. For a tenth of a second after the counter
/// has jumped it may be wrong by as much.
#[inline]
pub fn fast_nanos() -> u64 {
    once(&MONOTONIC, || Follower::new(Monotonic(new_counter()))).now()
}

/// What `make` makes, once. A fork waits for that: in the child, it would never be done.
#[inline]
fn once<T>(place: &'static OnceLock<T>, make: impl FnOnce() -> T) -> &'static T {
    match place.get() {
        Some(made) => made,
        None => unforked(|| place.get_or_init(make)),
    }
}

/// So that no window of time is the one before all others.
const DAY_NANOS: u64 = 86_400_000_000_000;

/// Calibrates the counter, once a process: a few milliseconds that the first record would pay otherwise.
pub fn calibrate() {
    _ = (unix_nanos(), fast_nanos());
}

/// The clock by which a worker keeps its intervals.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The clock of the system.
    #[default]
    System,
    /// A clock that a test moves.
    Manual(ManualClock),
}

impl Clock {
    /// Returns the present moment.
    #[inline]
    pub fn now(&self) -> Instant {
        match self {
            Clock::System => Instant::now(),
            Clock::Manual(clock) => clock.now(),
        }
    }

    /// Returns nanoseconds since some moment: see the function [`nanos`].
    #[inline]
    pub fn nanos(&self) -> u64 {
        match self {
            Clock::System => nanos(),
            Clock::Manual(clock) => clock.nanos(),
        }
    }

    /// Returns nanoseconds since some moment, for what is measured once an event: see the function [`fast_nanos`].
    #[inline]
    pub fn fast_nanos(&self) -> u64 {
        match self {
            Clock::System => fast_nanos(),
            Clock::Manual(clock) => clock.nanos(),
        }
    }

    /// Registers the worker's unparker with a clock that is moved by hand.
    pub fn register(&self, unparker: &Unparker) {
        if let Clock::Manual(clock) = self
            && let Ok(mut unparkers) = clock.inner.unparkers.enter()
        {
            unparkers.push(unparker.clone());
        }
    }

    /// Sleeps until the worker is unparked or `until` comes. May return early.
    pub fn park(&self, parker: &Parker, until: Option<Instant>) {
        let nap = match (self, until) {
            (Clock::System, Some(until)) => until.saturating_duration_since(Instant::now()),
            // A clock that is moved unparks the worker.
            (Clock::Manual(_), _) | (Clock::System, None) => LONGEST_NAP,
        };
        parker.park_timeout(nap.min(LONGEST_NAP));
    }
}

/// A clock that stands still until it is moved, so that a test of intervals needs no sleep.
///
/// It governs the intervals of the flush strategy, the gate, the rate and the uptime that statistics tell, and the pace of
/// `Builder::on_log`. Deadlines of callers, and the time stamps of records and batches, come from the system.
/// A clone is the same clock.
#[derive(Debug, Clone)]
pub struct ManualClock {
    inner: Arc<ManualInner>,
}

#[derive(Debug)]
struct ManualInner {
    origin: Instant,
    /// Nanoseconds since `origin`.
    elapsed: PlainU64,
    unparkers: Mutex<Vec<Unparker>>,
}

impl ManualClock {
    /// A clock that shows the present, and stands.
    pub fn new() -> Self {
        let inner = ManualInner {
            origin: Instant::now(),
            elapsed: PlainU64::new(0),
            unparkers: Mutex::new(Vec::new()),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Moves it forward, and wakes every worker that goes by it.
    pub fn advance(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        // It stops at the end of what it can tell: after 584 years.
        let later = |elapsed: u64| Some(elapsed.saturating_add(nanos));
        let _ = self.inner.elapsed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, later);
        // In a forked child, nobody goes by it but what the child has made; and that looks again by itself.
        if let Ok(unparkers) = self.inner.unparkers.enter() {
            unparkers.iter().for_each(Unparker::unpark);
        }
    }

    /// How far it was moved so far.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.inner.elapsed.load(Ordering::SeqCst))
    }

    fn nanos(&self) -> u64 {
        u64::try_from(self.elapsed().as_nanos()).unwrap_or(u64::MAX).saturating_add(DAY_NANOS)
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
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// A counter and a clock that the test moves.
    #[derive(Default)]
    struct Script {
        counter: PlainU64,
        system: PlainU64,
        /// How often the clock of the system was asked.
        asked: PlainU64,
    }

    impl Source for Script {
        fn counter(&self) -> u64 {
            self.counter.load(Ordering::SeqCst)
        }

        fn system(&self) -> u64 {
            self.asked.fetch_add(1, Ordering::SeqCst);
            self.system.load(Ordering::SeqCst)
        }
    }

    impl Follower<Script> {
        fn at(counter: u64, system: u64) -> Self {
            let script = Script::default();
            script.counter.store(counter, Ordering::SeqCst);
            script.system.store(system, Ordering::SeqCst);
            Self::new(script)
        }

        fn pass(&self, nanos: u64) {
            self.source.counter.fetch_add(nanos, Ordering::SeqCst);
            self.source.system.fetch_add(nanos, Ordering::SeqCst);
        }

        fn asked(&self) -> u64 {
            self.source.asked.load(Ordering::SeqCst)
        }

        /// How far it is from the clock that it follows.
        fn error(&self) -> u64 {
            self.now().abs_diff(self.source.system.load(Ordering::SeqCst))
        }
    }

    #[test]
    fn the_system_is_asked_ten_times_a_second_and_not_once_a_reading() {
        let clock = Follower::at(5 * SECOND, 1_800_000_000 * SECOND);
        let before = clock.asked();
        for _ in 0..1000 {
            clock.pass(SECOND / 1000);
            assert_eq!(clock.error(), 0);
        }
        assert_eq!(clock.asked() - before, 10);
    }

    #[test]
    fn a_counter_that_begins_anew_is_right_at_the_next_reading() {
        for counter in [0, 1, 4 * SECOND, 8 * SECOND - 1] {
            let clock = Follower::at(8 * SECOND, 1_800_000_000 * SECOND);
            clock.pass(1);
            assert_eq!(clock.error(), 0);
            clock.source.counter.store(counter, Ordering::SeqCst);
            // Slept through.
            clock.source.system.fetch_add(3600 * SECOND, Ordering::SeqCst);
            assert_eq!(clock.error(), 0, "from {counter}");
            clock.pass(7);
            assert_eq!(clock.error(), 0, "from {counter}");
        }
    }

    #[test]
    fn a_counter_that_jumps_ahead_is_right_at_the_next_reading() {
        for ahead in [SECOND / 10, SECOND, 300 * 86_400 * SECOND, u64::MAX / 2] {
            let clock = Follower::at(8 * SECOND, 1_800_000_000 * SECOND);
            clock.source.counter.fetch_add(ahead, Ordering::SeqCst);
            assert_eq!(clock.error(), 0, "by {ahead}");
            clock.pass(SECOND / 20);
            assert_eq!(clock.error(), 0, "by {ahead}");
        }
    }

    #[test]
    fn a_jump_too_small_to_be_seen_is_over_within_a_tenth_of_a_second() {
        let clock = Follower::at(8 * SECOND, 1_800_000_000 * SECOND);
        // It began anew, and has come just past the last anchor again.
        clock.source.counter.store(8 * SECOND + 5, Ordering::SeqCst);
        clock.source.system.fetch_add(3600 * SECOND, Ordering::SeqCst);
        assert!(clock.error() > 0);
        clock.pass(REANCHOR_AFTER_NANOS);
        assert_eq!(clock.error(), 0);
    }

    #[test]
    fn a_clock_that_is_set_by_days_is_followed_within_a_tenth_of_a_second() {
        let clock = Follower::at(8 * SECOND, 1_800_000_000 * SECOND);
        for set in [|now| now - 2 * 86_400 * SECOND, |now| now + 9 * 86_400 * SECOND, |_| 0] {
            let now = clock.source.system.load(Ordering::SeqCst);
            clock.source.system.store(set(now), Ordering::SeqCst);
            clock.pass(REANCHOR_AFTER_NANOS);
            assert_eq!(clock.error(), 0);
        }
    }

    #[test]
    fn whoever_finds_an_anchor_half_taken_asks_the_system() {
        let clock = Follower::at(8 * SECOND, 1_800_000_000 * SECOND);
        // Of a thread that a forked child does not have.
        clock.anchored_at.store(BUSY, Ordering::SeqCst);
        for counter in [8 * SECOND, 0, 99] {
            clock.source.counter.store(counter, Ordering::SeqCst);
            assert_eq!(clock.error(), 0);
        }
        // Another thread took one since this one looked.
        clock.anchored_at.store(7, Ordering::SeqCst);
        assert_eq!(clock.anchor(6), clock.source.system());
        assert_eq!(clock.anchored_at.load(Ordering::SeqCst), 7);
    }

    #[test]
    fn threads_that_anchor_at_once_all_tell_the_time() {
        let clock = Arc::new(Follower::at(8 * SECOND, 1_800_000_000 * SECOND));
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let clock = Arc::clone(&clock);
                let read = move || {
                    for _ in 0..20_000 {
                        // The clock of the system hardly moves. A mix of an old offset with a new counter is hours off.
                        let before = clock.source.system.load(Ordering::SeqCst);
                        let told = clock.now();
                        let after = clock.source.system.load(Ordering::SeqCst);
                        assert!(before <= told + SECOND && told <= after + SECOND, "{before} {told} {after}");
                    }
                };
                crate::sync::spawn("reader", None, read).unwrap()
            })
            .collect();
        for round in 0..20_000_u64 {
            // Hours ahead or back, and at no moment twice.
            clock.source.counter.store((round % 7) * 3600 * SECOND + round, Ordering::SeqCst);
            clock.source.system.fetch_add(1, Ordering::SeqCst);
        }
        for reader in readers {
            assert!(reader.join().is_ok(), "a reading was hours off");
        }
    }

    #[test]
    fn stamps_and_spans_follow_the_clocks_of_the_system() {
        let (wall, monotonic) = (Wall(new_counter()), Monotonic(new_counter()));
        assert!(unix_nanos().abs_diff(wall.system()) < SECOND);
        assert!(fast_nanos().abs_diff(monotonic.system()) < SECOND);
        assert!(nanos() <= nanos());
    }
}
