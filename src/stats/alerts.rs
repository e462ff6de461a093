//! `Alerts` of a collector: what is wrong, from one call of `health` to the next.

use std::fmt;
use std::time::SystemTime;

use serde::Serialize;

use crate::config::Threshold;
use crate::self_log::LogLevel;

/// Status of a collector: the worst severity of its alerts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// Nothing is wrong.
    Healthy,
    /// Something is wrong, but events are delivered.
    Degraded,
    /// No event is delivered, or soon none will be.
    Unhealthy,
}

/// Alert about something that is wrong.
///
/// # Examples
///
/// ```
/// use forebay::sink::{SinkError, from_fn};
/// use forebay::stats::AlertKind;
/// use forebay::{Batch, Collector, Record};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let broken = from_fn("disk", |_: &Batch| Err(SinkError::unavailable("no such device")));
/// let collector = Collector::builder().sink(broken).start()?;
/// for _ in 0..5 {
///     collector.collect(Record::new("tick"));
///     collector.flush()?;
/// }
/// let alerts = collector.health().alerts;
/// assert!(alerts.iter().any(|alert| matches!(alert.kind, AlertKind::SinkFailing(_))));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Alert {
    /// Number by which the alert is [acknowledged](crate::Collector::acknowledge). It is not used again.
    pub id: u64,
    /// The kind.
    pub kind: AlertKind,
    /// The severity.
    pub severity: HealthStatus,
    /// A sentence without a full stop.
    pub message: String,
    /// Time when it was first seen.
    pub since: SystemTime,
    /// The last measured value.
    pub value: f64,
    /// The value at which it is raised.
    pub threshold: f64,
    /// True if the alert is acknowledged.
    pub is_acknowledged: bool,
}

/// Kind of an alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AlertKind {
    /// A lane is nearly full.
    QueueDepth,
    /// The byte budget is nearly used up.
    Memory,
    /// Events take long.
    Latency,
    /// Events wait, and few are delivered.
    TooSlow,
    /// Calls of that sink fail.
    SinkFailing(String),
    /// The sink of that name, which has its own thread, does not return from a call.
    SinkLate(String),
    /// A breaker of that sink is not closed.
    BreakerOpen(String),
    /// Dead letters of that sink wait.
    DeadLetters(String),
    /// The worker does not return from a call of a sink, or of the closure of `enrich`.
    WorkerLate,
    /// The worker ended by a panic. (In a forked child the status says so, and there are no alerts.)
    WorkerGone,
}

/// Measured value with the threshold of its alert.
pub(crate) struct Finding {
    pub(crate) kind: AlertKind,
    pub(crate) severity: HealthStatus,
    pub(crate) value: f64,
    pub(crate) at: Threshold,
    pub(crate) message: String,
}

/// Raised alerts, kept from one call of `health` to the next.
#[derive(Debug, Default)]
pub(crate) struct Alerts {
    up: Vec<Alert>,
    next_id: u64,
}

impl Alerts {
    /// Raises, keeps and clears alerts by these findings. Returns log messages for those that were raised or cleared.
    pub(crate) fn update(&mut self, findings: Vec<Finding>, now: SystemTime) -> Vec<(LogLevel, String)> {
        let mut changes = Vec::new();
        let before = std::mem::take(&mut self.up);
        let was_up = |kind: &AlertKind| before.iter().find(|alert| alert.kind == *kind).cloned();
        for finding in findings {
            let Finding { kind, severity, value, at, message } = finding;
            let known = was_up(&kind);
            let is_up = value >= at.raise || known.is_some() && value > at.clear;
            if !is_up {
                continue;
            }
            let is_new = known.is_none();
            let (id, since, is_acknowledged) = match known {
                Some(alert) => (alert.id, alert.since, alert.is_acknowledged),
                None => (self.next_id, now, false),
            };
            self.next_id += u64::from(is_new);
            if is_new {
                changes.push((LogLevel::Warn, format!("alert {id}: {message}")));
            }
            let threshold = at.raise;
            self.up.push(Alert { id, kind, severity, message, since, value, threshold, is_acknowledged });
        }
        let cleared = before.iter().filter(|alert| self.up.iter().all(|up| up.id != alert.id));
        changes.extend(cleared.map(|alert| (LogLevel::Info, format!("alert {} is over", alert.id))));
        self.up.sort_by_key(|alert| alert.id);
        changes
    }

    /// Returns the raised alerts, oldest first.
    pub(crate) fn up(&self) -> &[Alert] {
        &self.up
    }

    /// Marks an alert as acknowledged. Returns `false` if it is over.
    pub(crate) fn acknowledge(&mut self, id: u64) -> bool {
        let found = self.up.iter_mut().find(|up| up.id == id);
        found.map(|up| up.is_acknowledged = true).is_some()
    }
}

impl fmt::Display for HealthStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        })
    }
}
