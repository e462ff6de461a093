//! What is alarming: the thresholds of the collector's health.

use super::setters::setters;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::duration;
use super::error::{ConfigError, check};

/// From where on something is alarming, and from where on it is no more: a part of [`Config`](crate::Config). All can
/// change at run time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct HealthConfig {
    /// How full the fullest lane is, 0 to 1. Defaults to 0.8 and 0.6.
    pub queue_depth: Threshold,
    /// How much of [`Config::max_bytes`](crate::Config::max_bytes) is taken, 0 to 1; events that are not
    /// critical take seven eighths at most. Defaults to 0.8 and 0.6.
    pub memory: Threshold,
    /// Which part of the last calls of a sink have failed, 0 to 1: a mean in which each call weighs three quarters of the one
    /// after it. 0.01 to 0.99. Defaults to 0.5, which is three failures in a row, and 0.1.
    pub failing: Threshold,
    /// How long the worker may be busy with one batch, all its sinks together, and an isolated sink with one of its own. More
    /// than zero. Defaults to 2 s.
    #[serde(with = "duration")]
    pub max_busy_time: Duration,
    /// The longest latency of 95 % of the events ([`Stats::latency`](crate::Stats::latency)); it is no more alarming at half of that. Defaults to
    /// none.
    #[serde(with = "duration::option")]
    pub max_latency: Option<Duration>,
    /// The fewest events a second that are delivered while some wait ([`Stats::rate`](crate::Stats::rate)). More than 0. Defaults to none.
    pub min_rate: Option<f64>,
    /// How many dead letters of one sink may wait; it is no more alarming at half of that. Defaults to 0: each is too many.
    pub max_dead_letters: u64,
}

setters! {
    HealthConfig:
    with_queue_depth, queue_depth: Threshold;
    with_memory, memory: Threshold;
    with_failing, failing: Threshold;
    with_max_busy_time, max_busy_time: Duration;
    with_max_latency, max_latency: Option<Duration>;
    with_min_rate, min_rate: Option<f64>;
    with_max_dead_letters, max_dead_letters: u64;
}

/// Where an alert is raised, and where it is cleared: less, so that it does not come and go.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Threshold {
    /// At that value or more it is raised.
    pub raise: f64,
    /// At that value or less it is cleared. Not more than `raise`.
    pub clear: f64,
}

impl Threshold {
    /// Returns a threshold that is raised at one value or more, and cleared at the other or less.
    pub fn new(raise: f64, clear: f64) -> Self {
        Self { raise, clear }
    }
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            queue_depth: Threshold { raise: 0.8, clear: 0.6 },
            memory: Threshold { raise: 0.8, clear: 0.6 },
            failing: Threshold { raise: 0.5, clear: 0.1 },
            max_busy_time: Duration::from_secs(2),
            max_latency: None,
            min_rate: None,
            max_dead_letters: 0,
        }
    }
}

impl HealthConfig {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let thresholds = [
            ("health.queue_depth.raise", "health.queue_depth.clear", self.queue_depth),
            ("health.memory.raise", "health.memory.clear", self.memory),
            ("health.failing.raise", "health.failing.clear", self.failing),
        ];
        for (raise, clear, at) in thresholds {
            check(raise, at.raise, "more than 0, and 1 at most", at.raise > 0.0 && at.raise <= 1.0)?;
            check(clear, at.clear, "0 to where it is raised", at.clear >= 0.0 && at.clear <= at.raise)?;
        }
        // The mean comes near 0 and 1, and never quite there.
        let failing = self.failing;
        check("health.failing.raise", failing.raise, "0.01 to 0.99", failing.raise <= 0.99)?;
        check("health.failing.clear", failing.clear, "0.01 to where it is raised", failing.clear >= 0.01)?;
        let late = format!("{:?}", self.max_busy_time);
        check("health.max_busy_time", late, "more than zero", !self.max_busy_time.is_zero())?;
        check("health.max_latency", "0ns", "more than zero", self.max_latency != Some(Duration::ZERO))?;
        let least = self.min_rate.unwrap_or(1.0);
        check("health.min_rate", least, "a number of more than 0", least > 0.0 && least.is_finite())
    }
}
