//! `Meter`: the rate of delivery, and the latency from the collection to the last sink.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::clock;
use crate::event::Event;
use crate::sync::{PlainMutex, catch_panic};

/// The most events of a batch that are measured, evenly spaced. A small batch is measured whole.
const MEASURED: usize = 16;

/// Time for which a histogram is filled. The latency covers the last one to two of these windows.
const WINDOW_NANOS: u64 = 60_000_000_000;

/// Longest latency that is distinguished: an hour, in nanoseconds.
const MAX_NANOS: u64 = 3_600_000_000_000;

/// Minimum time between the two deliveries of which the rate is computed.
const SECOND_NANOS: u64 = 1_000_000_000;

/// Latency of events: the time from their collection until all sinks had seen them. (An
/// [isolated](crate::sink::Isolated) sink has seen an event once its queue has it.) It covers the last one to two
/// minutes in which events were delivered. At most sixteen events of a batch are measured. The error is below one per
/// cent (an HDR histogram with two digits).
///
/// A record is measured from the moment at which it was made, even if it is kept, or cloned from a template, and
/// collected later. To leave such a record out, set its moment by [`Record::with_time`](crate::Record::with_time).
///
/// Some events are left out: a record whose moment the caller set, an event that does not say [when it was
/// made](crate::Event::made_at), one from the future, and one that waited while the system's clock was set. Every
/// value is zero where no event was measured.
///
/// # Examples
///
/// ```
/// use forebay::{Collector, Record};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let collector = Collector::builder().start()?;
/// collector.collect(Record::new("tick"));
/// let latency = collector.stop()?.stats.latency;
/// assert_eq!(latency.events, 1);
/// assert!(latency.p50 <= latency.max);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Latency {
    /// Number of events that these values stand for.
    pub events: u64,
    /// The mean.
    pub mean: Duration,
    /// Half of the events took at most this long.
    pub p50: Duration,
    /// 95 % took at most this long.
    pub p95: Duration,
    /// 99 % took at most this long.
    pub p99: Duration,
    /// The longest measured latency.
    pub max: Duration,
}

/// Meter of rate and latency. The worker writes it once a batch, and every caller may read it.
#[derive(Debug)]
pub(crate) struct Meter(PlainMutex<Readings>);

#[derive(Debug)]
struct Readings {
    /// Time when the meter was made, in nanoseconds of the collector's clock.
    begun: u64,
    /// The current window and the one before it. They exist once an event was measured.
    windows: [Option<Histogram<u64>>; 2],
    rotated_at: u64,
    /// Two deliveries at least a second apart, the older first: the moment, and how many events were delivered by
    /// then.
    marks: [(u64, u64); 2],
    processed: u64,
    steps: Steps,
}

/// Detector of steps of the system's clock. Latencies are differences of its moments: an event that waited while it
/// was set seems to have waited for days.
#[derive(Debug, Default)]
struct Steps {
    /// The last reading of the monotonic clock, and how far the system's clock was ahead of it, wrapping.
    last: Option<(u64, u64)>,
    /// Time when the clock was last seen to have been set, by the monotonic clock.
    set_at: Option<u64>,
}

/// Tolerance in nanoseconds. The system's clock is slewed by half a per mille at most. A change beyond twice that,
/// plus this tolerance, is a step.
const STEP_NANOS: u64 = 50_000_000;

impl Steps {
    /// Creates a detector that has read both clocks once.
    fn seen(unix: u64, monotonic: u64) -> Self {
        Self { last: Some((monotonic, unix.wrapping_sub(monotonic))), set_at: None }
    }

    /// Compares both clocks with the last reading.
    fn observe(&mut self, unix: u64, monotonic: u64) {
        let ahead = unix.wrapping_sub(monotonic);
        if let Some((before, was_ahead)) = self.last {
            let by = (ahead.wrapping_sub(was_ahead) as i64).unsigned_abs();
            if by > (monotonic.saturating_sub(before) / 1000).saturating_add(STEP_NANOS) {
                self.set_at = Some(monotonic);
            }
        }
        self.last = Some((monotonic, ahead));
    }

    /// Returns how long ago `made` was. Returns `None` if it lies in the future, or before the clock was set.
    fn since(&self, made: u64, unix: u64, monotonic: u64) -> Option<u64> {
        // Two readings of the clock differ by some microseconds where it was corrected in between.
        let wait =
            if made.saturating_sub(unix) < STEP_NANOS { unix.saturating_sub(made) } else { return None };
        let is_before = self.set_at.is_some_and(|set_at| wait >= monotonic.saturating_sub(set_at));
        (!is_before).then_some(wait)
    }
}

impl Meter {
    /// Creates a meter; `now` is the time of the collector's clock.
    pub(crate) fn new(now: u64) -> Self {
        let marks = [(now, 0); 2];
        Self(PlainMutex::new(Readings {
            begun: now,
            windows: [None, None],
            rotated_at: now,
            marks,
            processed: 0,
            // Events that are collected from now on may wait while the clock is set, even the first that is
            // delivered.
            steps: Steps::seen(clock::unix_nanos(), clock::fast_nanos()),
        }))
    }

    /// Notes that all sinks have seen these events, and `processed` events in all.
    pub(crate) fn delivered<E: Event>(&self, now: u64, events: &[E], processed: u64) {
        let step = events.len().div_ceil(MEASURED).max(1);
        let mut made = [None; MEASURED];
        // User code, so it must not run under the lock.
        for (made, event) in made.iter_mut().zip(events.iter().step_by(step)) {
            *made = catch_panic(|| event.made_at()).ok().flatten();
        }
        let clocks = made.iter().any(Option::is_some).then(|| (clock::unix_nanos(), clock::fast_nanos()));
        self.0.lock().delivered(now, processed, made, step as u64, clocks);
    }

    /// Returns the time since the meter was made, the rate, and the latency.
    pub(crate) fn read(&self, now: u64) -> (Duration, f64, Latency) {
        // A forked child has nothing to report.
        let Ok(mut readings) = self.0.enter() else { return Default::default() };
        readings.rotate(now);
        let uptime = Duration::from_nanos(now.saturating_sub(readings.begun));
        let (rate, windows) = (readings.rate(now), readings.windows.clone());
        drop(readings);
        (uptime, rate, latency(&windows))
    }
}

impl Readings {
    /// Notes a delivery. Each moment in `made` stands for `step` events. `clocks` are the system's and the monotonic
    /// one, if any moment is set.
    fn delivered(
        &mut self,
        now: u64,
        processed: u64,
        made: impl IntoIterator<Item = Option<u64>>,
        step: u64,
        clocks: Option<(u64, u64)>,
    ) {
        self.mark(now, processed);
        let Some((unix, monotonic)) = clocks else { return };
        self.rotate(now);
        self.steps.observe(unix, monotonic);
        for made in made.into_iter().flatten() {
            if let Some(wait) = self.steps.since(made, unix, monotonic) {
                self.note(wait, step);
            }
        }
    }

    fn mark(&mut self, now: u64, processed: u64) {
        // Threads that deliver at the same time may come in another order than they read the clock and the count.
        self.processed = self.processed.max(processed);
        let last = self.marks[1].0;
        if last.saturating_sub(now) >= SECOND_NANOS {
            // The clock went backward, as in a process that was restored on another machine.
            self.marks = [(now, self.processed); 2];
        } else if now.saturating_sub(last) >= SECOND_NANOS {
            self.marks = [self.marks[1], (now, self.processed)];
        }
    }

    /// Returns the rate between the marks. Once the newer mark is further away than they are from each other, it is
    /// the rate since the older mark.
    fn rate(&self, now: u64) -> f64 {
        let [(from, before), (to, after)] = self.marks;
        let is_over = now.saturating_sub(to) > to.saturating_sub(from);
        let (to, after) = if is_over { (now, self.processed) } else { (to, after) };
        let seconds = Duration::from_nanos(to.saturating_sub(from)).as_secs_f64();
        if seconds > 0.0 { after.saturating_sub(before) as f64 / seconds } else { 0.0 }
    }

    /// Begins a window when the current one is over.
    fn rotate(&mut self, now: u64) {
        self.rotated_at = self.rotated_at.min(now);
        let age = now.saturating_sub(self.rotated_at);
        if age < WINDOW_NANOS {
            return;
        }
        self.rotated_at = now;
        self.windows.swap(0, 1);
        let stale = if age < 2 * WINDOW_NANOS { 1 } else { 2 };
        for window in self.windows.iter_mut().take(stale).flatten() {
            window.reset();
        }
    }

    fn note(&mut self, nanos: u64, events: u64) {
        let [window, _] = &mut self.windows;
        if window.is_none() {
            // These bounds are allowed. Otherwise nothing would be measured.
            *window = Histogram::new_with_bounds(1, MAX_NANOS, 2).ok();
        }
        if let Some(window) = window {
            window.saturating_record_n(nanos.max(1), events);
        }
    }
}

fn latency(windows: &[Option<Histogram<u64>>; 2]) -> Latency {
    let mut windows = windows.iter().flatten();
    let Some(first) = windows.next() else { return Latency::default() };
    let mut all = first.clone();
    for window in windows {
        // Both histograms have the same bounds, so this cannot fail.
        _ = all.add(window);
    }
    if all.is_empty() {
        return Latency::default();
    }
    let at = |quantile| Duration::from_nanos(all.value_at_quantile(quantile));
    Latency {
        events: all.len(),
        mean: Duration::from_nanos(all.mean() as u64),
        p50: at(0.5),
        p95: at(0.95),
        p99: at(0.99),
        max: Duration::from_nanos(all.max()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Event that was made so many milliseconds ago.
    struct Made(u64);

    impl Event for Made {
        fn made_at(&self) -> Option<u64> {
            Some(clock::unix_nanos() - self.0 * MS)
        }
    }

    fn close(measured: Duration, millis: u64) -> bool {
        let wanted = Duration::from_millis(millis);
        measured >= wanted.mul_f64(0.99) && measured <= wanted.mul_f64(1.02) + Duration::from_millis(20)
    }

    #[test]
    fn quantiles_are_those_of_the_events() {
        let meter = Meter::new(0);
        // Batches of one, so that each is measured.
        for millis in 1..=1000 {
            meter.delivered(0, &[Made(1000 * millis)], millis);
        }
        let latency = meter.read(0).2;
        assert_eq!(latency.events, 1000);
        assert!(close(latency.p50, 500_000) && close(latency.p95, 950_000), "{latency:?}");
        assert!(close(latency.p99, 990_000) && close(latency.max, 1_000_000), "{latency:?}");
        assert!(close(latency.mean, 500_500), "{latency:?}");
    }

    #[test]
    fn a_large_batch_is_measured_in_steps_that_stand_for_all_of_it() {
        let meter = Meter::new(0);
        let events: Vec<Made> = (0..160).map(|n| Made(if n < 80 { 10_000 } else { 1_000 })).collect();
        meter.delivered(0, &events, 160);
        let latency = meter.read(0).2;
        assert_eq!(latency.events, 160);
        assert!(close(latency.p50, 1_000) && close(latency.p95, 10_000), "{latency:?}");
    }

    #[test]
    fn what_is_older_than_two_windows_is_dropped() {
        let meter = Meter::new(0);
        meter.delivered(0, &[Made(100_000)], 1);
        meter.delivered(WINDOW_NANOS, &[Made(1_000)], 2);
        assert_eq!(meter.read(WINDOW_NANOS).2.events, 2);
        let later = meter.read(2 * WINDOW_NANOS).2;
        assert_eq!(later.events, 1);
        assert!(close(later.max, 1_000), "{later:?}");
        assert_eq!(meter.read(4 * WINDOW_NANOS).2, Latency::default(), "a long pause drops both");
    }

    #[test]
    fn the_rate_is_that_of_the_last_deliveries_and_falls_when_nothing_comes() {
        let meter = Meter::new(0);
        let tenth = SECOND_NANOS / 10;
        let rate = |now| meter.read(now).1;
        let batch = |events| (0..events).map(|_| Made(0)).collect::<Vec<_>>();
        for n in 1..=30 {
            meter.delivered(n * tenth, &batch(100), n * 100);
        }
        for now in [30, 35, 39] {
            assert!((rate(now * tenth) - 1000.0).abs() < 1.0, "steady: {}", rate(now * tenth));
        }
        for n in 31..=50 {
            meter.delivered(n * tenth, &batch(500), 3000 + (n - 30) * 500);
        }
        assert!((rate(50 * tenth) - 5000.0).abs() < 1.0, "the new rate alone: {}", rate(50 * tenth));
        assert!(rate(150 * tenth) < 1000.0);
        assert_eq!(meter.read(70 * tenth).0, Duration::from_secs(7));
        assert_eq!(Meter::new(5).read(5).1, 0.0, "no time has passed");
    }

    #[test]
    fn the_rate_of_rare_batches_is_what_comes_in_not_one_batch_a_second() {
        let meter = Meter::new(0);
        for n in 1..=4 {
            meter.delivered(n * 30 * SECOND_NANOS, &[Made(0)], n * 1500);
        }
        for seconds in [120, 121, 135, 149] {
            let rate = meter.read(seconds * SECOND_NANOS).1;
            assert!((rate - 50.0).abs() < 0.1, "after {seconds} s: {rate}");
        }
    }

    #[test]
    fn a_monotonic_clock_that_goes_backward_all_the_same_stops_no_rate() {
        let meter = Meter::new(0);
        for n in 100..=103 {
            meter.delivered(n * SECOND_NANOS, &[Made(0)], n * 10);
        }
        for n in 1..=4 {
            meter.delivered(n * SECOND_NANOS, &[Made(0)], 2000 + n * 10);
        }
        assert!((meter.read(4 * SECOND_NANOS).1 - 10.0).abs() < 0.1);
    }

    #[test]
    fn threads_that_read_the_clock_in_another_order_than_they_deliver_reset_no_rate() {
        for late in [1, 1000, 20 * MS, SECOND_NANOS - 1] {
            let meter = Meter::new(0);
            for n in 1..=10 {
                meter.delivered(n * SECOND_NANOS, &[Made(0)], n * 100);
            }
            // Read before the last one, and delivered behind it.
            meter.delivered(10 * SECOND_NANOS - late, &[Made(0)], 1000 - 1);
            for now in [10 * SECOND_NANOS, 10 * SECOND_NANOS + SECOND_NANOS / 2] {
                let rate = meter.read(now).1;
                assert!((rate - 100.0).abs() < 1.0, "{late} ns late: {rate}");
            }
            meter.delivered(11 * SECOND_NANOS, &[Made(0)], 1100);
            assert!((meter.read(11 * SECOND_NANOS).1 - 100.0).abs() < 1.0, "{late} ns late");
        }
    }

    #[test]
    fn a_clock_that_was_set_back_and_an_event_from_the_future_do_no_harm() {
        struct Future;
        impl Event for Future {
            fn made_at(&self) -> Option<u64> {
                Some(u64::MAX)
            }
        }
        let meter = Meter::new(1000);
        meter.delivered(0, &[Future], 1);
        let (uptime, rate, latency) = meter.read(500);
        assert_eq!((uptime, rate, latency), (Duration::ZERO, 0.0, Latency::default()));
    }

    #[test]
    fn what_waited_while_the_clock_was_set_is_left_out_and_what_came_later_is_not() {
        const DAY: u64 = 86_400 * SECOND_NANOS;
        let unix = 20_000 * DAY;
        for set in [|unix: u64| unix + 2 * DAY, |unix: u64| unix - 2 * DAY] {
            let meter = Meter::new(0);
            meter.0.lock().steps = Steps::default();
            // A batch of one event, made so many milliseconds ago by the clock as it was then.
            let deliver = |made: u64, clocks| {
                meter.0.lock().delivered(0, 1, [Some(made)], 1, Some(clocks));
                meter.read(0).2.events
            };
            assert_eq!(deliver(unix - 5 * MS, (unix, DAY)), 1);
            let later = set(unix + 10 * MS);
            assert_eq!(deliver(unix, (later, DAY + 10 * MS)), 1, "it waited while the clock was set");
            assert_eq!(
                deliver(unix, (later + 10 * MS, DAY + 20 * MS)),
                1,
                "so did the next, in a batch behind"
            );
            assert_eq!(deliver(later + 11 * MS, (later + 12 * MS, DAY + 22 * MS)), 2);
            assert!(meter.read(0).2.max < Duration::from_millis(6), "{:?}", meter.read(0).2);
        }
    }

    #[test]
    fn a_clock_that_is_slewed_is_not_one_that_is_set() {
        let meter = Meter::new(0);
        meter.0.lock().steps = Steps::default();
        for hour in 1..=5 {
            let monotonic = hour * 3600 * SECOND_NANOS;
            // Half a per mille too fast.
            let unix = monotonic + monotonic / 2000;
            meter.0.lock().delivered(0, 1, [Some(unix - MS)], 1, Some((unix, monotonic)));
        }
        assert_eq!(meter.read(0).2.events, 5);
    }
}
