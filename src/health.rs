//! `Health`: the state of a collector as an operator sees it, judged by thresholds.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::clock;
use crate::collector::Collector;
use crate::config::{HealthConfig, Threshold};
use crate::escape::OneLine;
use crate::event::Event;
use crate::self_log::LogTopic;
use crate::shared::Shared;
use crate::stats::{Alert, AlertKind, BreakerState, Finding, HealthStatus, SinkTally, Stats};
use crate::sync::{Ordering, PlainU64};
use crate::wake::State;

/// Health of a collector. Plain data.
///
/// # Examples
///
/// ```
/// use forebay::sink::{SinkError, from_fn};
/// use forebay::stats::HealthStatus;
/// use forebay::{Batch, Collector, Record};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let broken = from_fn("disk", |_: &Batch| Err(SinkError::unavailable("no such device")));
/// let collector = Collector::builder().sink(broken).start()?;
/// assert_eq!(collector.health().status, HealthStatus::Healthy);
/// for _ in 0..5 {
///     collector.collect(Record::new("tick"));
///     collector.flush()?;
/// }
/// let health = collector.health();
/// assert!(health.status != HealthStatus::Healthy && !health.alerts.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// The worst of the alerts.
    pub status: HealthStatus,
    /// State of the collector. One that is stopped on purpose is healthy.
    pub state: State,
    /// Alerts, oldest first.
    pub alerts: Vec<Alert>,
    /// Events that are queued or with the worker.
    pub queue_depth: u64,
    /// Share of the fullest lane that is in use, 0 to 1.
    pub queue_utilization: f64,
    /// Share of the byte budget that is in use, 0 to 1; 0 without a limit.
    pub memory_utilization: f64,
    /// Events a second: see [`Stats::rate`].
    pub processing_rate: f64,
    /// Number of running workers: 1 or 0.
    pub active_workers: u64,
}

/// Threshold of a condition that holds or does not.
const YES: Threshold = Threshold { raise: 1.0, clear: 0.0 };

/// Returns for how many seconds a call has been running if that is too long, else 0, and the threshold.
fn lateness(since: &PlainU64, config: &HealthConfig) -> (f64, Threshold) {
    let late = config.max_busy_time.as_secs_f64();
    let busy = match since.load(Ordering::Relaxed) {
        0 => 0.0,
        since => Duration::from_nanos(clock::nanos().saturating_sub(since)).as_secs_f64(),
    };
    (if busy >= late { busy } else { 0.0 }, Threshold { raise: late, clear: 0.0 })
}

fn as_value(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

impl<E: Event> Shared<E> {
    pub(crate) fn health(&self) -> Health {
        let (stats, config) = (self.stats(), self.settings.config());
        let mut health = Health {
            status: HealthStatus::Healthy,
            state: stats.state,
            alerts: Vec::new(),
            queue_depth: stats.pending,
            queue_utilization: self.lanes.fullest(),
            memory_utilization: config.max_bytes.map_or(0.0, |most| stats.pending_bytes as f64 / most as f64),
            processing_rate: stats.rate,
            active_workers: u64::from(stats.state.is_running()),
        };
        if stats.state == State::Forked {
            // The holder of our locks may not exist in this process.
            health.status = HealthStatus::Unhealthy;
            return health;
        }
        let findings = self.findings(&config.health, &stats, &health);
        let mut alerts = self.alerts.lock();
        let changes = alerts.update(findings, SystemTime::now());
        health.alerts = alerts.up().to_vec();
        drop(alerts);
        health.status =
            health.alerts.iter().map(|alert| alert.severity).max().unwrap_or(HealthStatus::Healthy);
        // Joined into one entry, because others within a second are held back.
        if let Some(level) = changes.iter().map(|(level, _)| *level).max() {
            let messages = changes.into_iter().map(|(_, message)| message).collect::<Vec<_>>();
            self.tally.say(level, LogTopic::Alert, || messages.join("; "));
        }
        health
    }

    fn findings(&self, config: &HealthConfig, stats: &Stats, health: &Health) -> Vec<Finding> {
        let mut all = Vec::new();
        let mut find = |kind, severity, value, at, message| {
            all.push(Finding { kind, severity, value, at, message });
        };
        let is_gone = as_value(stats.state == State::WorkerGone);
        find(AlertKind::WorkerGone, HealthStatus::Unhealthy, is_gone, YES, "the worker is gone".to_owned());
        let tallies = self.registry.all();
        let busy = tallies.iter().map(|tally| lateness(&tally.busy_since, config).0);
        let (own, at) = lateness(&self.tally.worker.busy_since, config);
        let busy = busy.fold(own, f64::max);
        let place = self.registry.busy().map_or_else(String::new, |sink| format!(" in {sink:?}"));
        let message = format!("the worker is busy{place} for {busy:.1} s");
        find(AlertKind::WorkerLate, HealthStatus::Unhealthy, busy, at, message);
        let full = health.queue_utilization;
        let message = format!("a lane is {:.0} % full", full * 100.0);
        find(AlertKind::QueueDepth, HealthStatus::Degraded, full, config.queue_depth, message);
        let full = health.memory_utilization;
        let message = format!(
            "{:.0} % of the bytes are taken: isolate the sink that is behind, make events smaller, or raise max_bytes",
            full * 100.0
        );
        find(AlertKind::Memory, HealthStatus::Degraded, full, config.memory, message);
        if let Some(max_latency) = config.max_latency {
            let (max_latency, p95) = (max_latency.as_secs_f64(), stats.latency.p95);
            let at = Threshold { raise: max_latency, clear: max_latency / 2.0 };
            let message = format!("95 % of the events take up to {p95:?}");
            find(AlertKind::Latency, HealthStatus::Degraded, p95.as_secs_f64(), at, message);
        }
        if let Some(least) = config.min_rate {
            let behind = if stats.pending > 0 { (least - stats.rate).max(0.0) } else { 0.0 };
            let message = format!("{:.0} events/s are delivered, {least:.0} should be", stats.rate);
            let at = Threshold { raise: f64::MIN_POSITIVE, clear: 0.0 };
            find(AlertKind::TooSlow, HealthStatus::Degraded, behind, at, message);
        }
        // If every sink fails, nothing is delivered.
        let mut sinks = tallies.iter().filter(|tally| !tally.is_tap()).peekable();
        let fail_all =
            sinks.peek().is_some() && sinks.all(|tally| tally.failure_rate() >= config.failing.raise);
        let severity = if fail_all { HealthStatus::Unhealthy } else { HealthStatus::Degraded };
        all.extend(tallies.iter().flat_map(|tally| sink_findings(tally, config, severity)));
        all
    }
}

/// Returns the findings of one sink. `severity` is that of a sink that fails.
fn sink_findings(tally: &SinkTally, config: &HealthConfig, severity: HealthStatus) -> [Finding; 4] {
    let name = &tally.name;
    let (busy, late) = lateness(&tally.own_thread_since, config);
    let (failure_rate, letters) = (tally.failure_rate(), tally.letters());
    let is_open = tally.breaker().is_some_and(|state| state != BreakerState::Closed);
    let raise = config.max_dead_letters.saturating_add(1) as f64;
    let clear = (config.max_dead_letters / 2) as f64;
    let degraded = HealthStatus::Degraded;
    let find = |kind: fn(String) -> AlertKind, severity, value, at, message| Finding {
        kind: kind(name.clone()),
        severity,
        value,
        at,
        message,
    };
    [
        find(AlertKind::SinkLate, degraded, busy, late, format!("{name:?} is in a call for {busy:.1} s")),
        find(
            AlertKind::SinkFailing,
            severity,
            failure_rate,
            config.failing,
            format!("{:.0} % of the last calls of {name:?} failed", failure_rate * 100.0),
        ),
        find(
            AlertKind::BreakerOpen,
            degraded,
            as_value(is_open),
            YES,
            format!("a breaker of {name:?} is open"),
        ),
        find(
            AlertKind::DeadLetters,
            degraded,
            letters as f64,
            Threshold { raise, clear },
            format!("{letters} dead letters of {name:?} wait"),
        ),
    ]
}

impl<E: Event> Collector<E> {
    /// Returns the health of the collector: raises the alerts that are due now and clears those that are over.
    /// [`Config::health`](crate::Config::health) has the thresholds. Alerts that come and go between two calls are
    /// not seen. Call it every few seconds, or let a bus do so
    /// (`watch::bottlenecks_of` of `forebay-bus`). It takes locks that the worker holds for moments, and
    /// waits for no sink.
    ///
    /// ```
    /// use forebay::{Collector, stats::HealthStatus};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let collector = Collector::builder().start()?;
    /// let health = collector.health();
    /// assert_eq!(health.status, HealthStatus::Healthy);
    /// for alert in &health.alerts {
    ///     println!("{} since {:?}", alert.message, alert.since);
    ///     collector.acknowledge(alert.id);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn health(&self) -> Health {
        self.shared.health()
    }

    /// Marks an alert as known. Returns `false` if it is over. It stays as long as its reason, and so does the
    /// status.
    pub fn acknowledge(&self, alert: u64) -> bool {
        let Ok(mut alerts) = self.shared.alerts.enter() else { return false };
        alerts.acknowledge(alert)
    }
}

impl fmt::Display for Health {
    /// Writes the status, then a line for every alert.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        for alert in &self.alerts {
            let known = if alert.is_acknowledged { " (acknowledged)" } else { "" };
            write!(f, "\n{}: {}{known}", alert.severity, OneLine(&alert.message))?;
        }
        Ok(())
    }
}
