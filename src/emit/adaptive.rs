//! The controller of [`Strategy::Adaptive`](super::Strategy::Adaptive): how many workers are right.
//!
//! It climbs the hill of throughput, as the thread pool of .NET does (Hellerstein, Morrison, Eilebrecht: Applying Control
//! Theory in the Real World, FeBID 2009), from a slow start that doubles, as that of TCP (Jacobson 1988). Latency, by which
//! Vegas and its heirs go, was rejected: on a mix of short and long handlers the least latency is that of the short ones,
//! and the mean of the rest looks like a queue.
//!
//! What is asked of a step is its *elasticity*: by how many percent throughput rises where the number rises by one percent. It
//! is 1 where handlers wait, 0 where processors, a lock or the source are the limit. A number is right when a step up has
//! less than half, and a step down would cost more than half.
//!
//! It is pure: it knows the time that it is told.

use std::time::Duration;

/// Of a step that pays. Halfway between what waits and what is saturated, where noise errs least.
const WORTH: f64 = 0.5;

/// The least items by which a number is judged.
const LEAST_ITEMS: u64 = 16;

/// Such items for each worker, so that each has ended some.
const ITEMS_PER_WORKER: u64 = 4;

/// The most windows that a number is held between two steps that are tried.
const MOST_PATIENCE: u32 = 16;

/// How many times as long a number is held as one is tried, at most.
const HOLDS_A_TRY: u32 = 4;

/// Decides how many workers may have items at a time.
#[derive(Debug)]
pub(super) struct Controller {
    min: usize,
    max: usize,
    window: Duration,
    /// From `min` to `max`.
    limit: usize,
    phase: Phase,
    /// Items still to pass over: they were begun under another limit.
    stale: u64,
    /// How many windows a number is held before a step is tried: 1 while steps pay, twice as many with each that does not.
    patience: u32,
    /// When the first of the counted items could begin.
    begun: Duration,
    completed: u64,
}

/// What is measured at present.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// The number that is held; after it, a step that way is tried.
    Hold(Way),
    /// A step from the measured number, and whether the next is to double again.
    Try(Measured, Way),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Up by as much again, as long as every step has paid.
    Double,
    Up,
    Down,
}

#[derive(Debug, Clone, Copy)]
struct Measured {
    limit: usize,
    /// Items a second.
    speed: f64,
}

impl Controller {
    /// Begins at `min`. `min` is 1 or more, `max` no less, the window longer than nothing.
    pub(super) fn new(min: usize, max: usize, window: Duration) -> Self {
        let phase = Phase::Hold(Way::Double);
        let (limit, begun) = (min, Duration::ZERO);
        Self { min, max, window, limit, phase, stale: 0, patience: 1, begun, completed: 0 }
    }

    /// An item was handled, or has failed, at `now`, counted from any moment. The new limit, if it changes.
    pub(super) fn completed(&mut self, now: Duration) -> Option<usize> {
        if self.stale > 0 {
            self.stale -= 1;
            self.begun = now;
            return None;
        }
        self.completed += 1;
        let elapsed = now.saturating_sub(self.begun);
        let windows = match self.phase {
            Phase::Hold(_) => self.patience,
            Phase::Try(..) => self.patience.div_ceil(HOLDS_A_TRY),
        };
        let least = LEAST_ITEMS.max(self.limit as u64 * ITEMS_PER_WORKER);
        if elapsed < self.window.saturating_mul(windows) || self.completed < least {
            return None;
        }
        let speed = self.completed as f64 / elapsed.as_secs_f64();
        let before = self.limit;
        self.judge(Measured { limit: self.limit, speed });
        (self.begun, self.completed) = (now, 0);
        if self.limit == before {
            return None;
        }
        self.stale = self.limit.max(before) as u64;
        Some(self.limit)
    }

    /// A number was measured.
    fn judge(&mut self, here: Measured) {
        match self.phase {
            Phase::Hold(way) => self.step(here, way),
            Phase::Try(before, Way::Double) if pays(before, here) => self.step(here, Way::Double),
            Phase::Try(before, Way::Up) if pays(before, here) => self.hold(Way::Up, 1),
            Phase::Try(before, Way::Down) if !pays(here, before) => self.hold(Way::Down, 1),
            Phase::Try(before, way) => {
                self.limit = before.limit;
                let way = if way == Way::Up { Way::Down } else { Way::Up };
                self.hold(way, (self.patience * 2).min(MOST_PATIENCE));
            }
        }
    }

    fn hold(&mut self, next: Way, patience: u32) {
        (self.phase, self.patience) = (Phase::Hold(next), patience);
    }

    /// Tries another number, on the other side where there is none on this one.
    fn step(&mut self, here: Measured, way: Way) {
        let stride = (here.limit / 4).max(1);
        let up = if way == Way::Double { here.limit } else { stride };
        let (higher, lower) =
            ((here.limit + up).min(self.max), here.limit.saturating_sub(stride).max(self.min));
        let goes_up = match way {
            Way::Double | Way::Up => higher > here.limit,
            Way::Down => lower == here.limit,
        };
        self.limit = if goes_up { higher } else { lower };
        let way = match way {
            Way::Double if goes_up => Way::Double,
            _ if goes_up => Way::Up,
            _ => Way::Down,
        };
        // Where there is one number alone, there is nothing to try.
        if self.limit != here.limit {
            self.phase = Phase::Try(here, way);
        }
    }
}

/// Whether the step from the lower number to the higher has paid.
fn pays(lower: Measured, higher: Measured) -> bool {
    let gain = (higher.speed / lower.speed).ln();
    gain >= WORTH * (higher.limit as f64 / lower.limit as f64).ln()
}

#[cfg(test)]
mod tests;
