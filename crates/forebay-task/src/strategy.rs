//! Strategies: how many handlers run at a time, and when.

use std::time::Duration;

use forebay::config::ConfigError;
use forebay::parts::{Pace, check};

use crate::adaptive::Controller;

/// Strategy by which items are handled. Defaults to `Serial`.
///
/// Every item goes to one worker, in the order of sending. A worker handles one item after the other. A handler that
/// panics fails its item alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Strategy {
    /// One after the other, on one thread, in the order of sending.
    #[default]
    Serial,
    /// Several items at a time, begun in the order of sending, ended in any order.
    Parallel {
        /// Threads, 1 to 1,024.
        workers: usize,
        /// Items a second, with up to a second's worth at once; 1 or more. `None` sets no limit.
        rate_limit: Option<u32>,
    },
    /// Batches on one thread, in the order of sending. A batch begins when there are `size` items, when the oldest has waited for
    /// `max_delay`, or when the channel is full or closed. A handler of items gets them one after the other;
    /// [`map_batch`](crate::Pipeline::map_batch) gets them at once.
    Batched {
        /// Items, 1 or more; 64 is usual.
        size: usize,
        /// The longest wait of an item for others; 100 ms is usual.
        max_delay: Duration,
    },
    /// Between `min` and `max` at a time, for the highest throughput. The number is raised while that pays, and lowered while
    /// that costs nothing. [The crate page](crate#adaptive) describes how it is found.
    Adaptive {
        /// Threads, 1 or more.
        min: usize,
        /// Threads, `min` to 1,024. They are started when they are first needed, and one ahead: it watches for stalls.
        max: usize,
        /// The time for which one number is tried, more than zero. It is longer where handlers are slower. 100 ms is usual.
        window: Duration,
    },
}

/// Threads of a task, at most.
const MAX_WORKERS: usize = 1_024;

/// Plan of the workers, part of the state of a task.
pub(crate) struct Plan {
    /// The number of items that a worker takes at once.
    pub(crate) size: usize,
    /// The longest wait of an item for others of its batch.
    pub(crate) max_delay: Duration,
    pub(crate) pace: Option<Pace>,
    pub(crate) controller: Option<Controller>,
    /// The number of workers that may have items at a time; 1 or more.
    pub(crate) limit: usize,
}

impl Plan {
    /// Returns the number of threads.
    pub(crate) fn threads(&self) -> usize {
        self.controller.as_ref().map_or(self.limit, Controller::threads)
    }
}

impl Strategy {
    /// Checks every number.
    pub(crate) fn check(self) -> Result<(), ConfigError> {
        const WORKERS: &str = "1 to 1024";
        match self {
            Strategy::Serial => Ok(()),
            Strategy::Parallel { workers, rate_limit } => {
                check("task.strategy.workers", workers, WORKERS, (1..=MAX_WORKERS).contains(&workers))?;
                check("task.strategy.rate_limit", 0, "1 or more", rate_limit != Some(0))
            }
            Strategy::Batched { size, .. } => check("task.strategy.size", size, "1 or more", size >= 1),
            Strategy::Adaptive { min, max, window } => {
                check("task.strategy.min", min, WORKERS, (1..=MAX_WORKERS).contains(&min))?;
                let is_allowed = (min..=MAX_WORKERS).contains(&max);
                check("task.strategy.max", max, "task.strategy.min to 1024", is_allowed)?;
                let value = format!("{window:?}");
                check("task.strategy.window", value, "more than zero", !window.is_zero())
            }
        }
    }

    /// Makes the plan. The numbers were checked.
    pub(crate) fn plan(self) -> Plan {
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
