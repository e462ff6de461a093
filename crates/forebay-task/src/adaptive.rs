//! The controller of [`Strategy::Adaptive`](crate::Strategy::Adaptive): how many workers are right.
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
//! Throughput says something of the number only while the number is what limits it: from a completion at which all had
//! an item and another waited, to the next. All other time is left out, so that a source that comes in bursts is
//! judged by its bursts, and one that is slow is not judged at all; a number that nothing needed for a window is
//! lowered. And where nothing completes, nothing can be measured: handlers that wait for what only a later item brings
//! would do so for ever. So a number that has completed nothing for long is doubled, unmeasured.
//!
//! The controller is pure: it gets the time as an argument.

use std::time::Duration;

/// Least elasticity of a step that pays: halfway between handlers that wait (1) and a limit that is reached (0).
const WORTH: f64 = 0.5;

/// The least items by which a number is judged.
const MIN_ITEMS: u64 = 16;

/// Such items for each worker, so that each has ended some.
const ITEMS_PER_WORKER: u64 = 4;

/// The most windows that a number is held between two steps that are tried.
const MAX_PATIENCE: u32 = 16;

/// Longest hold of a number, in multiples of the time for which a step is tried.
const HOLDS_A_TRY: u32 = 4;

/// Initial time without a completion that counts as a stall, in windows, and in times that an item takes. It doubles
/// with each step that has not helped, so that the number grows no faster than the time that was waited.
const STALL: u32 = 4;

/// Controller of how many workers may have items at a time.
#[derive(Debug)]
pub(crate) struct Controller {
    min: usize,
    max: usize,
    window: Duration,
    /// Limit from `min` to `max`.
    limit: usize,
    phase: Phase,
    /// Items still to pass over: they were begun under another limit.
    stale: u64,
    /// Number of windows that a number is held before a step is tried: 1 while steps pay, doubled with each that does
    /// not.
    patience: u32,
    /// Time when the last item was completed, and whether the limit was what held others back from then on.
    last: (Duration, Bound),
    /// Items whose time counts, and that time.
    completed: u64,
    counted: Duration,
    /// Present window of use: its begin, its items, the most that were busy, and whether that was not enough.
    used: Used,
    /// Time of an item by the last measurement.
    service: Duration,
    /// Time since when somebody watches that nothing completes, and how many steps were in vain.
    stall: Option<Duration>,
    stalls: u32,
}

/// Work at a completion, with the item that is completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    /// Items in handlers.
    pub(crate) busy: usize,
    /// True if another item waits.
    pub(crate) is_behind: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Limit,
    Other,
}

#[derive(Debug, Clone, Copy)]
struct Used {
    begun: Duration,
    items: u64,
    most: usize,
}

/// Phase of the search: what is measured at present.
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
    pub(crate) fn new(min: usize, max: usize, window: Duration) -> Self {
        let phase = Phase::Hold(Way::Double);
        let (limit, last) = (min, (Duration::ZERO, Bound::Other));
        let used = Used { begun: Duration::ZERO, items: 0, most: 0 };
        let (service, counted) = (Duration::ZERO, Duration::ZERO);
        let (completed, stall, stalls) = (0, None, 0);
        Self {
            min,
            max,
            window,
            limit,
            phase,
            stale: 0,
            patience: 1,
            last,
            completed,
            counted,
            used,
            service,
            stall,
            stalls,
        }
    }

    /// Returns the number of threads: one more than may have items, which watches that one of these completes.
    pub(crate) fn threads(&self) -> usize {
        (self.limit + 1).min(self.max)
    }

    /// Returns whether there is a number above this one.
    pub(crate) fn has_more(&self) -> bool {
        self.limit < self.max
    }

    /// Counts an item that was handled, or has failed, at `now`, counted from any moment. Returns the new limit if it changes.
    pub(crate) fn completed(&mut self, now: Duration, load: Load) -> Option<usize> {
        (self.stall, self.stalls) = (None, 0);
        let (since, bound) = self.last;
        let is_bound = load.is_behind && load.busy >= self.limit;
        self.last = (now, if is_bound { Bound::Limit } else { Bound::Other });
        if self.stale > 0 {
            self.stale -= 1;
            return None;
        }
        self.used.items += 1;
        self.used.most = self.used.most.max(load.busy + usize::from(is_bound));
        if bound == Bound::Limit {
            self.completed += 1;
            self.counted += now.saturating_sub(since);
        }
        let before = self.limit;
        let windows = match self.phase {
            Phase::Hold(_) => self.patience,
            Phase::Try(..) => self.patience.div_ceil(HOLDS_A_TRY),
        };
        let least = MIN_ITEMS.max(self.limit as u64 * ITEMS_PER_WORKER);
        if self.counted >= self.window.saturating_mul(windows) && self.completed >= least {
            let speed = self.completed as f64 / self.counted.as_secs_f64();
            self.service = Duration::try_from_secs_f64(before as f64 / speed).unwrap_or_default();
            self.judge(Measured { limit: self.limit, speed });
            self.restart(now);
        } else if now.saturating_sub(self.used.begun) >= self.window && self.used.items >= least {
            self.lower();
            self.used = Used { begun: now, items: 0, most: 0 };
        }
        self.change_from(before, now)
    }

    /// Watches a moment, `now` by the same count, at which all workers have an item and another waits. Returns the new limit if
    /// nothing was completed for too long, or else the moment of the next look.
    pub(crate) fn watch(&mut self, now: Duration) -> Result<usize, Duration> {
        let since = *self.stall.get_or_insert(now);
        let first = self.window.max(self.service).saturating_mul(STALL);
        let due = since.saturating_add(first.saturating_mul(1 << self.stalls.min(16)));
        if now < due {
            return Err(due);
        }
        let before = self.limit;
        self.limit = (before * 2).min(self.max);
        self.hold(Way::Up, 1);
        (self.stall, self.stalls) = (Some(now), self.stalls + 1);
        self.change_from(before, now).ok_or(due.saturating_add(first))
    }

    /// Lowers a limit for which a window had no use: by a quarter, or to as many as it had use for.
    fn lower(&mut self) {
        if self.used.most < self.limit {
            self.limit = (self.limit - stride(self.limit)).max(self.used.most).max(self.min);
            // What comes next may be anything.
            self.hold(Way::Double, 1);
        }
    }

    fn restart(&mut self, now: Duration) {
        (self.completed, self.counted) = (0, Duration::ZERO);
        self.used = Used { begun: now, items: 0, most: 0 };
    }

    fn change_from(&mut self, before: usize, now: Duration) -> Option<usize> {
        if self.limit == before {
            return None;
        }
        self.restart(now);
        self.stale = self.limit.max(before) as u64;
        Some(self.limit)
    }

    /// Decides by a measurement which number comes next.
    fn judge(&mut self, here: Measured) {
        match self.phase {
            Phase::Hold(way) => self.step(here, way),
            Phase::Try(before, Way::Double) if pays(before, here) => self.step(here, Way::Double),
            Phase::Try(before, Way::Up) if pays(before, here) => self.hold(Way::Up, 1),
            Phase::Try(before, Way::Down) if !pays(here, before) => self.hold(Way::Down, 1),
            Phase::Try(before, way) => {
                self.limit = before.limit;
                let way = if way == Way::Up { Way::Down } else { Way::Up };
                self.hold(way, (self.patience * 2).min(MAX_PATIENCE));
            }
        }
    }

    fn hold(&mut self, next: Way, patience: u32) {
        (self.phase, self.patience) = (Phase::Hold(next), patience);
    }

    /// Tries another number, on the other side where there is none on this one.
    fn step(&mut self, here: Measured, way: Way) {
        let stride = stride(here.limit);
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

/// Returns a quarter of the number.
fn stride(limit: usize) -> usize {
    (limit / 4).max(1)
}

/// Returns whether the step from the lower number to the higher has paid.
fn pays(lower: Measured, higher: Measured) -> bool {
    let gain = (higher.speed / lower.speed).ln();
    gain >= WORTH * (higher.limit as f64 / lower.limit as f64).ln()
}

#[cfg(test)]
mod tests;
