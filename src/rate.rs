//! `Rate`: a rate limit by the generic cell rate algorithm (ITU-T I.371, as a virtual schedule), which remembers one
//! number.

use std::time::Duration;

const SECOND_NANOS: u64 = 1_000_000_000;

/// Rate limit of so many events a second, and so many at once. It uses the clock of its caller, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Nanoseconds of one event.
    increment: u64,
    /// Time by which an event may come ahead of its schedule, in nanoseconds.
    tolerance: u64,
}

impl Rate {
    /// Creates a rate limit. Both numbers are at least 1.
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        let increment = SECOND_NANOS / u64::from(per_second.max(1));
        // Beyond a billion a second, an event takes no time, and nothing is refused.
        let tolerance = if increment == 0 { SECOND_NANOS } else { increment * u64::from(burst.max(1) - 1) };
        Self { increment, tolerance }
    }

    /// Takes an event at `now`, where the next one is on schedule at `due` (the theoretical arrival time). Returns
    /// when the one after it is due, or how long to wait until one may come.
    pub(crate) fn next(self, due: u64, now: u64) -> Result<u64, u64> {
        let ahead = due.saturating_sub(now);
        match ahead.saturating_sub(self.tolerance) {
            0 => Ok(due.max(now).saturating_add(self.increment)),
            // No schedule reaches that far ahead, even when another thread has read the clock a little later. So the
            // clock has gone backward, as in a process that was restored on another machine.
            wait if wait > self.increment.max(SECOND_NANOS) * 2 => Ok(now.saturating_add(self.increment)),
            wait => Err(wait),
        }
    }
}

/// Rate limit with its state, for one thread. It counts its time from its start.
#[derive(Debug, Clone)]
pub struct Pace {
    rate: Rate,
    due: u64,
}

impl Pace {
    /// Creates a limit that lets a second's worth through at once.
    pub fn new(per_second: u32) -> Self {
        Self { rate: Rate::new(per_second, per_second), due: 0 }
    }

    /// Takes an event at `now`, or returns how long to wait until one may come.
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.due = self.rate.next(self.due, now).map_err(Duration::from_nanos)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use governor::clock::FakeRelativeClock;
    use governor::{Quota, RateLimiter};
    use proptest::prelude::*;
    use std::num::NonZeroU32;

    #[test]
    fn a_clock_that_goes_backward_closes_no_limit() {
        for per_second in [1, 7, 1000, u32::MAX] {
            let rate = Rate::new(per_second, per_second);
            let due = (0..2000).fold(1 << 50, |due, _| rate.next(due, 1 << 50).unwrap_or(due));
            assert!(rate.next(due, 5).is_ok(), "{per_second} a second");
            // No more than the limit at once, and no second chance by a clock that is read a little earlier.
            let now = 1 << 50;
            let refused = rate.next(due, now - SECOND_NANOS / 2).is_err();
            assert_eq!(refused, per_second <= 1000, "{per_second} a second");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn events_come_when_governor_lets_them(
            rate in 1..2_000u32,
            burst in 1..50u32,
            pauses in prop::collection::vec(prop_oneof![3 => Just(0u64), 2 => 0..2_000_000u64, 1 => 0..3_000_000_000u64], 1..200),
        ) {
            let quota = Quota::per_second(NonZeroU32::new(rate).unwrap()).allow_burst(NonZeroU32::new(burst).unwrap());
            let clock = FakeRelativeClock::default();
            let theirs = RateLimiter::direct_with_clock(quota, clock.clone());
            let (mut ours, mut now) = (Pace { rate: Rate::new(rate, burst), due: 0 }, Duration::ZERO);
            for pause in pauses {
                clock.advance(Duration::from_nanos(pause));
                now += Duration::from_nanos(pause);
                let taken = ours.take(now);
                prop_assert_eq!(taken.is_ok(), theirs.check().is_ok());
                if let Err(wait) = taken {
                    let mut later = ours.clone();
                    prop_assert!(later.take(now + wait).is_ok(), "that long, and not longer");
                    prop_assert!(ours.clone().take(now + wait - Duration::from_nanos(1)).is_err());
                }
            }
        }
    }
}
