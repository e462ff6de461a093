//! How many handlers run at a time, and when.

use std::time::Duration;

use super::adaptive::Controller;
use crate::config::{ConfigError, check};
use crate::rate::Pace;

/// How items are handled. Defaults to `Serial`.
///
/// All strategies have in common: every item gets to one worker, in the order of sending; a worker handles one after the
/// other; a handler that panics fails its item and no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Strategy {
    /// One after the other, on one thread, in the order of sending.
    #[default]
    Serial,
    /// So many at a time, begun in the order of sending, ended in any.
    Parallel {
        /// Threads, 1 to 1,024.
        workers: usize,
        /// Items a second, with up to a second's worth at once; 1 or more. `None` sets no limit.
        rate_limit: Option<u32>,
    },
    /// On one thread, in the order of sending, so many together: as soon as there are `size`, or the oldest has waited for
    /// `max_delay`, or the channel is full or closed. A handler of items gets them one after the other,
    /// [`map_batch`](super::Pipeline::map_batch) gets them at once.
    Batched {
        /// Items, 1 or more; 64 is usual.
        size: usize,
        /// How long an item may wait for others; 100 ms is usual.
        max_delay: Duration,
    },
    /// Between `min` and `max` at a time, by what gets most done: the number is raised while that pays, and lowered while
    /// that costs nothing. See [the module](super#adaptive) for how it is found.
    Adaptive {
        /// Threads, 1 or more.
        min: usize,
        /// Threads, `min` to 1,024. They are started when they are first needed, and one ahead: it watches for stalls.
        max: usize,
        /// How long one number is tried before it is judged, more than zero; longer where handlers are slower. 100 ms is
        /// usual.
        window: Duration,
    },
}

/// The most threads of a task.
const MAX_WORKERS: usize = 1_024;

/// What workers go by; part of the task's state.
pub(super) struct Plan {
    /// How many items a worker takes at once.
    pub(super) size: usize,
    /// How long an item may wait for others of its batch.
    pub(super) max_delay: Duration,
    pub(super) pace: Option<Pace>,
    pub(super) controller: Option<Controller>,
    /// How many workers may have items at a time; 1 or more.
    pub(super) limit: usize,
}

impl Plan {
    /// How many threads that takes.
    pub(super) fn threads(&self) -> usize {
        self.controller.as_ref().map_or(self.limit, Controller::threads)
    }
}

impl Strategy {
    /// Checks every number.
    pub(super) fn check(self) -> Result<(), ConfigError> {
        const WORKERS: &str = "1 to 1024";
        match self {
            Strategy::Serial => Ok(()),
            Strategy::Parallel { workers, rate_limit } => {
                check("emit.strategy.workers", workers, WORKERS, (1..=MAX_WORKERS).contains(&workers))?;
                check("emit.strategy.rate_limit", 0, "1 or more", rate_limit != Some(0))
            }
            Strategy::Batched { size, .. } => check("emit.strategy.size", size, "1 or more", size >= 1),
            Strategy::Adaptive { min, max, window } => {
                check("emit.strategy.min", min, WORKERS, (1..=MAX_WORKERS).contains(&min))?;
                let is_allowed = (min..=MAX_WORKERS).contains(&max);
                check("emit.strategy.max", max, "emit.strategy.min to 1024", is_allowed)?;
                let value = format!("{window:?}");
                check("emit.strategy.window", value, "more than zero", !window.is_zero())
            }
        }
    }

    /// What it comes to, for numbers that are allowed.
    pub(super) fn plan(self) -> Plan {
        let plan = Plan { size: 1, max_delay: Duration::ZERO, pace: None, controller: None, limit: 1 };
        match self {
            Strategy::Serial => plan,
            Strategy::Parallel { workers, rate_limit } => {
                Plan { pace: rate_limit.map(Pace::new), limit: workers, ..plan }
            }
            Strategy::Batched { size, max_delay } => Plan { size, max_delay, ..plan },
            Strategy::Adaptive { min, max, window } => {
                Plan { controller: Some(Controller::new(min, max, window)), limit: min, ..plan }
            }
        }
    }
}
