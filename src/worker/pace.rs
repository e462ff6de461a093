//! `Pace`: how long the worker naps while events keep coming.
//!
//! A producer that wakes the worker makes a system call, which costs it a hundred times what its event costs. So a worker
//! that has just seen events does not go to sleep until a batch is pending: it naps for about as long as the next two batches
//! take to fill at the present rate, by its timer. While it naps, producers wake it only for what cannot wait (see
//! [`Pace::wake_at`]). A nap in which nothing came is the last one.

use std::time::{Duration, Instant};

/// Shortest nap. A shorter one would cost more than the events that it is about.
const MIN_NAP: Duration = Duration::from_micros(200);

/// Number of longest naps in a row that may pass until the next batch is full. A slower stream wakes the worker seldom, so
/// that it sleeps.
const MAX_NAPS_PER_BATCH: u32 = 8;

/// Rate of the events, and the nap that fits it.
#[derive(Debug)]
pub(super) struct Pace {
    /// Longest nap.
    max_nap: Duration,
    /// Number of pending events that sets off a delivery.
    trigger: u32,
    /// Number of events of the fullest lane that may come in one nap: a quarter of its slots.
    quarter: u32,
    /// Number of pending events at which a producer ends a nap.
    wake_at: u32,
    /// Number of events that had come at the last look, and its time while the worker naps.
    seen: u64,
    looked_at: Option<Instant>,
}

impl Pace {
    /// Creates one for lanes whose smallest has so many slots, in so many rings. `None` where half of them are not more than a batch,
    /// so that a nap would end when a sleep does.
    pub(super) fn new(max_nap: Duration, trigger: u32, slots: u32, rings: u32) -> Option<Self> {
        let wake_at = slots / 2;
        (!max_nap.is_zero() && wake_at > trigger).then(|| Self {
            max_nap,
            trigger,
            quarter: (slots / rings.max(1) / 4).max(1),
            wake_at,
            seen: 0,
            looked_at: None,
        })
    }

    /// Returns how many events must be pending before a producer ends a nap: half a lane, so that nothing is evicted until the
    /// worker is there.
    pub(super) fn wake_at(&self) -> u32 {
        self.wake_at
    }

    /// Returns how long to nap, or `None` to sleep until there is something to do. So far, `seen` events have come, of which
    /// `pending` wait; all of them are delivered at `due`.
    pub(super) fn nap(
        &mut self,
        now: Instant,
        seen: u64,
        pending: u32,
        due: Option<Instant>,
    ) -> Option<Duration> {
        let came = seen.saturating_sub(std::mem::replace(&mut self.seen, seen));
        let looked_at = self.looked_at.take();
        if came == 0 {
            return None;
        }
        let nap = match looked_at {
            // How long the sleep was tells nothing of the rate. A step of the loop may take this long.
            None => self.max_nap,
            Some(before) => {
                let each = now.saturating_duration_since(before).as_secs_f64() / came as f64;
                let time_of = |events: u32| {
                    Duration::try_from_secs_f64(each * f64::from(events)).unwrap_or(Duration::MAX)
                };
                // A little more than a batch, so that the last few of its events need no nap of their own.
                let missing = (self.trigger + self.trigger / 8).saturating_sub(pending).max(1);
                let full_in = time_of(missing);
                let until_due = due.map_or(Duration::MAX, |due| due.saturating_duration_since(now));
                // A timer that comes before the end of a nap ends it.
                let in_naps = self.max_nap.saturating_mul(MAX_NAPS_PER_BATCH);
                if full_in > until_due.max(self.max_nap).min(in_naps) {
                    return None;
                }
                // Two batches: waking up costs the worker about what delivering one does.
                time_of(missing.saturating_add(self.trigger)).min(time_of(self.quarter))
            }
        };
        self.looked_at = Some(now);
        Some(nap.max(MIN_NAP).min(self.max_nap))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);
    const MAX_NAP: Duration = Duration::from_millis(20);

    /// Worker that looks at its pace, and time that passes as it naps.
    struct Looking {
        pace: Pace,
        now: Instant,
        seen: u64,
    }

    impl Looking {
        fn at(trigger: u32, slots: u32) -> Self {
            Self { pace: Pace::new(MAX_NAP, trigger, slots, 1).unwrap(), now: Instant::now(), seen: 0 }
        }

        /// Looks after `came` events in `slept`, with none left.
        fn after(&mut self, slept: Duration, came: u64) -> Option<Duration> {
            self.now += slept;
            self.seen += came;
            self.pace.nap(self.now, self.seen, 0, None)
        }
    }

    #[test]
    fn a_nap_is_as_long_as_the_next_two_batches_take_to_fill() {
        let mut worker = Looking::at(80, 10_000);
        assert_eq!(worker.after(MILLISECOND, 80), Some(MAX_NAP), "the rate is not known yet");
        // 170 events are a little more than two batches.
        assert_eq!(worker.after(MILLISECOND, 10), Some(17 * MILLISECOND));
        assert_eq!(worker.after(17 * MILLISECOND, 340), Some(Duration::from_micros(8_500)));
        assert_eq!(worker.after(5 * MILLISECOND, 1_000_000), Some(MIN_NAP));
        assert_eq!(
            worker.after(MILLISECOND, 1),
            Some(MAX_NAP),
            "90 ms for one, of which naps take 20 at most"
        );
    }

    #[test]
    fn what_is_pending_shortens_the_nap() {
        let mut pace = Pace::new(MAX_NAP, 80, 10_000, 1).unwrap();
        let now = Instant::now();
        assert_eq!(pace.nap(now, 40, 40, None), Some(MAX_NAP));
        assert_eq!(
            pace.nap(now + MILLISECOND, 50, 50, None),
            Some(12 * MILLISECOND),
            "120 of 170 are missing"
        );
    }

    #[test]
    fn a_nap_fills_a_quarter_of_a_lane_at_most() {
        let mut worker = Looking::at(400, 1_000);
        worker.after(MILLISECOND, 1);
        assert_eq!(worker.after(MILLISECOND, 100), Some(Duration::from_micros(2_500)));
        assert_eq!(worker.pace.wake_at(), 500, "half of its slots");
        worker.pace = Pace::new(MAX_NAP, 400, 1_000, 4).unwrap();
        worker.after(MILLISECOND, 1);
        assert_eq!(
            worker.after(MILLISECOND, 100),
            Some(Duration::from_micros(620)),
            "a quarter of one of four rings"
        );
        assert!(Pace::new(MAX_NAP, 500, 1_000, 1).is_none(), "half of its slots are no more than a batch");
        assert!(Pace::new(Duration::ZERO, 80, 10_000, 1).is_none(), "there are no naps");
    }

    #[test]
    fn a_nap_without_events_is_the_last_one() {
        let mut worker = Looking::at(100, 10_000);
        assert!(worker.after(MILLISECOND, 100).is_some());
        assert_eq!(worker.after(MILLISECOND, 0), None);
        // What has come since then came at any time of the sleep.
        assert_eq!(worker.after(60_000 * MILLISECOND, 1), Some(MAX_NAP));
    }

    #[test]
    fn a_slow_stream_lets_the_worker_sleep() {
        let mut worker = Looking::at(80, 10_000);
        worker.after(MILLISECOND, 1);
        assert_eq!(worker.after(20 * MILLISECOND, 10), None, "180 ms until a batch is full");
        let mut pace = Pace::new(MAX_NAP, 80, 10_000, 1).unwrap();
        let now = Instant::now();
        pace.nap(now, 1, 1, None);
        let due = Some(now + 30 * MILLISECOND);
        assert_eq!(pace.nap(now + MILLISECOND, 3, 3, due), None, "all is delivered before a batch is full");
        let due = Some(now + 10 * MILLISECOND);
        pace.nap(now + MILLISECOND, 4, 4, due);
        assert!(pace.nap(now + 2 * MILLISECOND, 9, 9, due).is_some(), "the timer ends the nap");
    }
}
