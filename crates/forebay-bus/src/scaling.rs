//! The number of workers that fits the load, computed from numbers alone.

use std::io;
use std::time::Duration;

use forebay::config::ConfigError;
use forebay::parts::{check, duration, setters};
use serde::{Deserialize, Serialize};

const MAX_WORKERS: usize = 256;

/// Checks a number of workers.
pub(super) fn check_workers(field: &'static str, workers: usize) -> Result<(), ConfigError> {
    check(field, workers, "1 to 256", (1..=MAX_WORKERS).contains(&workers))
}

/// Error of a change of the number of workers, which was not made, or not in full.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScaleError {
    /// The number is not allowed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The system refused a thread.
    #[error("cannot create a worker thread: {0}")]
    Thread(#[source] io::Error),
    /// The bus has no workers: the emitting thread calls the handlers.
    #[error("the bus has no workers, because the emitting thread calls the handlers")]
    Inline,
    /// This process is a forked child; the threads live in the parent.
    #[error("this process is a fork of the one that started the bus")]
    Forked,
}

forebay_sync::from_forked!(ScaleError);

/// Settings by which the number of workers follows the load.
///
/// Every [`interval`](Self::interval) the bus looks at which part of their time the workers were busy. Above
/// [`high`](Self::high) their number doubles, below [`low`](Self::low) it is halved, within the bounds.
///
/// ```
/// use forebay_bus::Scaling;
///
/// let scaling = Scaling::default();
/// assert_eq!(scaling.decide(2, 0.9), 4);
/// assert_eq!(scaling.decide(8, 1.0), 8);
/// assert_eq!(scaling.decide(8, 0.5), 8);
/// assert_eq!(scaling.decide(8, 0.1), 4);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(
    default,
    deny_unknown_fields,
    expecting = "a table of min, max, low, high and interval, or some of them"
)]
#[non_exhaustive]
pub struct Scaling {
    /// The fewest workers. 1 to 256. Defaults to 2.
    pub min: usize,
    /// The most. `min` to 256. Defaults to 8.
    pub max: usize,
    /// Fewer are enough when they are busy for a smaller part of their time. 0 to `high`. Defaults to 0.2.
    pub low: f64,
    /// More are needed when they are busy for a larger part of it. `low` to 1. Defaults to 0.8.
    pub high: f64,
    /// Interval at which the bus looks at the load. More than zero. Defaults to one second.
    #[serde(with = "duration")]
    pub interval: Duration,
}

setters! {
    Scaling:
    with_min, min: usize;
    with_max, max: usize;
    with_low, low: f64;
    with_high, high: f64;
    with_interval, interval: Duration;
}

impl Default for Scaling {
    fn default() -> Self {
        Self { min: 2, max: 8, low: 0.2, high: 0.8, interval: Duration::from_secs(1) }
    }
}

impl Scaling {
    /// Returns how many workers there should be instead of `workers`, which were busy for that part of their time. A part that
    /// is no number changes nothing but what is out of bounds.
    pub fn decide(&self, workers: usize, utilization: f64) -> usize {
        let wanted = if utilization > self.high {
            workers.saturating_mul(2)
        } else if utilization < self.low {
            workers / 2
        } else {
            workers
        };
        wanted.clamp(self.min, self.max)
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        check_workers("scaling.min", self.min)?;
        check_workers("scaling.max", self.max)?;
        check("scaling.max", self.max, "scaling.min or more", self.max >= self.min)?;
        check("scaling.high", self.high, "scaling.low to 1", (self.low..=1.0).contains(&self.high))?;
        check("scaling.low", self.low, "0 to scaling.high", (0.0..=self.high).contains(&self.low))?;
        let interval = format!("{:?}", self.interval);
        check("scaling.interval", interval, "more than zero", !self.interval.is_zero())
    }
}
