//! Time: stamps for records, and the worker's clock, which a test can move.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::sync::{Arc, Mutex, OnceLock, Ordering, Parker, PlainU64, Unparker, WeakUnparker, unforked};

/// Longest uninterrupted sleep of a worker. No worker depends on it, because the protocol of `wake.rs` loses no
/// wake-up. If it did, this would bound the delay, and hide the loss: `.ci/naps` tests without it.
const MAX_SLEEP: Duration =
    if cfg!(forebay_unlimited_naps) { Duration::MAX } else { Duration::from_secs(10) };

/// Maximum age of an anchor of a [`Follower`], in nanoseconds: a tenth of a second.
const REANCHOR_AFTER_NANOS: u64 = 100_000_000;

/// How far the counter may lead the clock that it follows, in nanoseconds, for its time to stand still until that clock has caught up: a
/// millisecond. Clocks that lead by more were set.
const MAX_LEAD_NANOS: u64 = 1_000_000;

/// Value in the place of the counter time of an anchor, while a thread takes a new one.
const BUSY: u64 = u64::MAX;

/// Clock of the system, followed by the processor's time-stamp counter. A reading takes about 10 ns, where the
/// system's own takes 26.
///
/// The counter alone cannot be trusted. After a suspend, a hibernation or a restore by CRIU it starts again from
/// zero, or goes on far ahead. So it measures only the time since the last anchor. An anchor is taken again when it
/// is a tenth of a second old, or lies in the future of the counter. A system clock that is set is followed just as
/// fast.
///
/// A counter that is a little fast would have time go back at each anchor, by hundreds of nanoseconds, and events of one thread would
/// lie in another order by their times than they were collected in. Instead, time stands still for as long.
struct Follower<S> {
    source: S,
    /// System time minus counter time at the last anchor, wrapping.
    offset: PlainU64,
    /// Least reading under the last anchor: what the one before had come to say. 0 where the system clock was set, or leads.
    floor: PlainU64,
    /// Counter time of the last anchor, or [`BUSY`]. Together with `offset` and `floor` it is a sequence lock: a reader trusts them only
    /// if this word was the same before and after.
    anchored_at: PlainU64,
}

/// Source of a [`Follower`]: the counter and the clock that it follows, both in nanoseconds.
trait Source {
    fn counter(&self) -> u64;
    fn system(&self) -> u64;
}

impl<S: Source> Follower<S> {
    fn new(source: S) -> Self {
        let [offset, floor, anchored_at] = [0; 3].map(PlainU64::new);
        let follower = Self { source, offset, floor, anchored_at };
        follower.anchor(0);
        follower
    }

    #[inline]
    fn now(&self) -> u64 {
        // Acquire, paired with the Release in `anchor`: the offset of this anchor, or of a later one, is seen.
        let anchored_at = self.anchored_at.load(Ordering::Acquire);
        let counter = self.source.counter();
        // Acquire: a later offset comes with the earlier change of `anchored_at`, so that the next load shows it.
        // Without it, a new offset could be added to a counter from before it started again.
        let offset = self.offset.load(Ordering::Acquire);
        let floor = self.floor.load(Ordering::Acquire);
        // A counter that went backward wraps to a huge age.
        let is_stale = counter.wrapping_sub(anchored_at) >= REANCHOR_AFTER_NANOS;
        if is_stale || anchored_at == BUSY || self.anchored_at.load(Ordering::Relaxed) != anchored_at {
            return self.anchor(anchored_at);
        }
        counter.wrapping_add(offset).max(floor)
    }

    /// Takes a new anchor, unless another thread is doing so now or has done so since `seen` was read. Returns the
    /// time of the system, or that of the counter while it leads a little.
    ///
    /// No caller waits for that thread. It may be preempted, interrupted by a signal handler that comes here too, or
    /// not exist in a forked child. Until it is done, other threads ask the system.
    #[cold]
    #[inline(never)]
    fn anchor(&self, seen: u64) -> u64 {
        let claim = || self.anchored_at.compare_exchange(seen, BUSY, Ordering::Acquire, Ordering::Relaxed);
        if seen == BUSY || claim().is_err() {
            let (counter, system) = (self.source.counter(), self.source.system());
            return system.max(self.lead(counter, system));
        }
        // A thread that is preempted between the two readings would be late by that time, so it tries again.
        let (mut counter, mut system) = (0, 0);
        for _ in 0..3 {
            counter = self.source.counter();
            system = self.source.system();
            if self.source.counter().wrapping_sub(counter) < 10_000 {
                break;
            }
        }
        let floor = self.lead(counter, system);
        // Release for all: see `now`.
        self.offset.store(system.wrapping_sub(counter), Ordering::Release);
        self.floor.store(floor, Ordering::Release);
        self.anchored_at.store(if counter == BUSY { 0 } else { counter }, Ordering::Release);
        system.max(floor)
    }

    /// Returns what a reading says at this moment if it leads the system by little, else 0. Beside a thread that takes an anchor, the
    /// offset may be the new one already, which leads by nothing.
    fn lead(&self, counter: u64, system: u64) -> u64 {
        let offset = self.offset.load(Ordering::Acquire);
        let reading = counter.wrapping_add(offset).max(self.floor.load(Ordering::Acquire));
        if reading.wrapping_sub(system) <= MAX_LEAD_NANOS { reading } else { 0 }
    }
}

/// Wall clock. It can be set, so it only labels.
struct Wall(quanta::Clock);

/// Monotonic clock.
struct Monotonic(quanta::Clock);

/// Returns the processor's counter, calibrated. Miri has no inline assembly and cannot read it, so there the system's
/// clock replaces it.
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

/// Returns nanoseconds since 1970-01-01 UTC, for labels, because the wall clock can be set. It costs a counter read,
/// four loads, an addition and a comparison. Readings of a thread do not go back, except where the clock is set back by more than a
/// millisecond.
///
/// It is not inlined. Inside `collect`, its rare paths would make the compiler move the record to memory and back,
/// which costs more (23 ns instead of 12, measured).
#[inline(never)]
pub fn unix_nanos() -> u64 {
    once(&WALL, || Follower::new(Wall(new_counter()))).now()
}

/// Returns the moment `timeout` from now. Returns `None`, which means no deadline, where that is beyond the range of
/// the clock.
#[inline]
pub fn deadline_in(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}

/// Returns nanoseconds since some moment before the first call, at least a day, by the monotonic clock: for spans of
/// time. Neither a clock that is set nor a counter that starts again disturbs them. Time in which the machine is
/// suspended does not count.
pub fn nanos() -> u64 {
    let since = once(&ORIGIN, Instant::now).elapsed();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX).saturating_add(DAY_NANOS)
}

/// Returns the time of [`nanos`] at the cost of [`unix_nanos`], for what is measured once an event. For a tenth of a
/// second after the counter has jumped, it may be wrong by as much.
#[inline]
pub fn fast_nanos() -> u64 {
    once(&MONOTONIC, || Follower::new(Monotonic(new_counter()))).now()
}

/// Returns the value in `place`, made by `make` once. A fork waits until it is made, because a child could never
/// finish it.
#[inline]
fn once<T>(place: &'static OnceLock<T>, make: impl FnOnce() -> T) -> &'static T {
    match place.get() {
        Some(made) => made,
        None => unforked(|| place.get_or_init(make)),
    }
}

/// Offset of `nanos`, so that no window of time has the number 0.
const DAY_NANOS: u64 = 86_400_000_000_000;

/// Calibrates the counter, once a process. It takes a few milliseconds, which the first record would pay otherwise.
pub fn calibrate() {
    _ = (unix_nanos(), fast_nanos());
}

/// Clock by which a worker measures its intervals.
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
            unparkers.retain(|known| known.upgrade().is_some());
            unparkers.push(unparker.downgrade());
        }
    }

    /// Sleeps until the worker is unparked or `until` comes. May return early.
    pub fn park(&self, parker: &Parker, until: Option<Instant>) {
        let time = match (self, until) {
            (Clock::System, Some(until)) => until.saturating_duration_since(Instant::now()),
            // A clock that is moved unparks the worker.
            (Clock::Manual(_), _) | (Clock::System, None) => MAX_SLEEP,
        };
        parker.park_timeout(time.min(MAX_SLEEP));
    }
}

/// Clock that stands still until it is moved, so that a test of intervals needs no sleep.
///
/// It drives the intervals of the flush strategy, the gate, the rate and the uptime in statistics, and the pace of
/// `Builder::on_log`. Deadlines of callers, and the time stamps of records and batches, come from the system. A clone
/// is the same clock.
#[derive(Debug, Clone)]
pub struct ManualClock {
    inner: Arc<ManualInner>,
}

#[derive(Debug)]
struct ManualInner {
    origin: Instant,
    /// Nanoseconds since `origin`.
    elapsed: PlainU64,
    /// Those of workers that are gone stay until the next one is added.
    unparkers: Mutex<Vec<WeakUnparker>>,
}

impl ManualClock {
    /// Creates a clock that shows the present and stands still.
    pub fn new() -> Self {
        let inner = ManualInner {
            origin: Instant::now(),
            elapsed: PlainU64::new(0),
            unparkers: Mutex::new(Vec::new()),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Moves the clock forward, and wakes every worker that uses it.
    pub fn advance(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        // It stops at the end of its range, after 584 years.
        let later = |elapsed: u64| Some(elapsed.saturating_add(nanos));
        let _ = self.inner.elapsed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, later);
        // In a forked child, only what the child has made uses it, and that looks again by itself.
        if let Ok(unparkers) = self.inner.unparkers.enter() {
            unparkers.iter().filter_map(WeakUnparker::upgrade).for_each(|unparker| unparker.unpark());
        }
    }

    /// Returns how far it was moved so far.
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

    /// Counter and clock that the test moves.
    #[derive(Default)]
    struct Script {
        counter: PlainU64,
        system: PlainU64,
        /// Number of readings of the system's clock.
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

        /// Returns the difference to the clock that it follows.
        fn error(&self) -> u64 {
            self.now().abs_diff(self.source.system.load(Ordering::SeqCst))
        }
    }

    #[test]
    fn a_clock_keeps_nothing_of_workers_that_are_gone() {
        let manual = ManualClock::new();
        let clock = Clock::Manual(manual.clone());
        let (_parker, alive) = crate::sync::Parker::new();
        clock.register(&alive);
        for _ in 0..100 {
            let (_parker, unparker) = crate::sync::Parker::new();
            clock.register(&unparker);
        }
        assert_eq!(manual.inner.unparkers.lock().len(), 2);
        manual.advance(Duration::from_secs(1));
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
        // The counter started again, and has come just past the last anchor.
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
    fn a_counter_that_is_fast_stands_still_and_never_goes_back() {
        // A thousandth: much more than a counter has.
        let clock = Follower::at(8 * SECOND, 1_800_000_000 * SECOND);
        let (mut last, mut stood_still) = (clock.now(), 0);
        for _ in 0..1_000_000 {
            clock.source.counter.fetch_add(1_001, Ordering::SeqCst);
            clock.source.system.fetch_add(1_000, Ordering::SeqCst);
            let now = clock.now();
            assert!(now >= last, "{now} after {last}");
            assert!(clock.error() <= REANCHOR_AFTER_NANOS / 999);
            stood_still += u64::from(now == last);
            last = now;
        }
        assert!((900..1_100).contains(&stood_still), "{stood_still}: a thousandth of a second in a second");
        assert_eq!(clock.asked(), 11);
    }

    #[test]
    fn a_reader_beside_an_anchor_goes_back_neither() {
        let clock = Follower::at(8 * SECOND, 1_800_000_000 * SECOND);
        clock.source.counter.fetch_add(5_000, Ordering::SeqCst);
        let before = clock.now();
        assert_eq!(clock.error(), 5_000);
        // Another thread is about to take one.
        let anchored_at = clock.anchored_at.swap(BUSY, Ordering::SeqCst);
        assert_eq!(clock.now(), before);
        clock.anchored_at.store(anchored_at, Ordering::SeqCst);
        // It has taken one since this one looked.
        assert_eq!(clock.anchor(7), before);
    }

    #[test]
    fn a_clock_that_is_set_back_by_more_than_a_millisecond_is_followed() {
        for (back, error) in [(MAX_LEAD_NANOS, MAX_LEAD_NANOS), (MAX_LEAD_NANOS + 1, 0)] {
            let clock = Follower::at(8 * SECOND, 1_800_000_000 * SECOND);
            clock.pass(REANCHOR_AFTER_NANOS);
            clock.source.system.fetch_sub(back, Ordering::SeqCst);
            assert_eq!(clock.error(), error);
            clock.pass(MAX_LEAD_NANOS);
            assert_eq!(clock.error(), 0, "set back by {back}");
        }
    }

    #[test]
    fn a_reader_that_finds_an_anchor_half_taken_asks_the_system() {
        let clock = Follower::at(8 * SECOND, 1_800_000_000 * SECOND);
        // As left by a thread that a forked child does not have.
        clock.anchored_at.store(BUSY, Ordering::SeqCst);
        for counter in [8 * SECOND, 0, 99] {
            clock.source.counter.store(counter, Ordering::SeqCst);
            assert_eq!(clock.error(), 0);
        }
        // Another thread has taken an anchor since this one looked.
        clock.anchored_at.store(7, Ordering::SeqCst);
        assert_eq!(clock.anchor(6), clock.source.system());
        assert_eq!(clock.anchored_at.load(Ordering::SeqCst), 7);
    }

    #[test]
    fn threads_that_anchor_at_once_all_read_the_time() {
        let clock = Arc::new(Follower::at(8 * SECOND, 1_800_000_000 * SECOND));
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let clock = Arc::clone(&clock);
                let read = move || {
                    for _ in 0..20_000 {
                        // The clock of the system hardly moves. A mix of an old offset with a new counter is hours off.
                        let before = clock.source.system.load(Ordering::SeqCst);
                        let read_time = clock.now();
                        let after = clock.source.system.load(Ordering::SeqCst);
                        assert!(
                            before <= read_time + SECOND && read_time <= after + SECOND,
                            "{before} {read_time} {after}"
                        );
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
