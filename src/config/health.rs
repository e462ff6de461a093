//! `HealthConfig`: the thresholds of the collector's health.

use super::setters::setters;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::duration;
use super::error::{ConfigError, check};

/// Thresholds of alerts: a part of [`Config`](crate::Config). All can change at run time.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use forebay::Collector;
/// use forebay::config::{HealthConfig, Threshold};
/// use forebay::stats::HealthStatus;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let health = HealthConfig::default()
///     .with_queue_depth(Threshold::new(0.5, 0.3))
///     .with_max_latency(Duration::from_secs(60));
/// let collector = Collector::builder().health(health).start()?;
/// assert_eq!(collector.health().status, HealthStatus::Healthy);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct HealthConfig {
    /// Share of the fullest lane that is in use, 0 to 1. Defaults to 0.8 and 0.6.
    pub queue_depth: Threshold,
    /// Share of [`Config::max_bytes`](crate::Config::max_bytes) that is in use, 0 to 1. Events that are not critical
    /// use seven eighths at most. Defaults to 0.8 and 0.6.
    pub memory: Threshold,
    /// Share of the last calls of a sink that failed, 0.01 to 0.99: a mean in which each call weighs three quarters
    /// of the one after it. Defaults to 0.5, which is three failures in a row, and 0.1.
    pub failing: Threshold,
    /// Longest time that the worker may be busy with one batch, all its sinks together, and an isolated sink with one
    /// of its own. More than zero. Defaults to 2 s.
    #[serde(with = "duration")]
    pub max_busy_time: Duration,
    /// Maximum latency of 95 % of the events ([`Stats::latency`](crate::Stats::latency)). The alert is cleared at
    /// half of that. Defaults to none.
    #[serde(with = "duration::option")]
    pub max_latency: Option<Duration>,
    /// Minimum number of events a second that are delivered while some wait ([`Stats::rate`](crate::Stats::rate)).
    /// More than 0. Defaults to none.
    pub min_rate: Option<f64>,
    /// Number of dead letters of one sink that may wait. The alert is cleared at half of that. Defaults to 0: each
    /// one raises it.
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

/// Values at which an alert is raised and cleared. The second is lower, so that the alert does not come and go.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Threshold {
    /// The alert is raised at this value or more.
    pub raise: f64,
    /// The alert is cleared at this value or less. Not more than `raise`.
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
        // The mean comes near 0 and 1, but never reaches them.
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
