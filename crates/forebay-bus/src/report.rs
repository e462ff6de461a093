//! Reports of a bus: its account, its metrics, its health.

use forebay::collector::State;
use forebay::parts::Inside;
use forebay::stats::HealthStatus;
use forebay_sync::sync::Ordering;

use super::config::Mode;
use super::dispatch::DISPATCHER;
use super::shared::Shared;
use super::stats::{
    Alert, AlertKind, BusHealth, BusStats, HandlerStats, Metrics, QueueMetrics, RetryMetrics, WorkerStats,
};

/// The part of the normal ring above which its depth raises an alert.
const DEEP: f64 = 0.5;
/// The part of the bytes above which their number raises an alert.
const FULL: f64 = 0.8;

impl Shared {
    /// Returns how many events come, what waits, and how long calls take.
    pub(super) fn metrics(&self) -> Metrics {
        let engine = &self.engine;
        let is_forked = self.check().is_err();
        let unless_forked = |number: &dyn Fn() -> u64| if is_forked { 0 } else { number() };
        let (handlers, gone) = self.engine.subscribers.stats();
        let sum = |part: fn(&HandlerStats) -> u64| handlers.iter().chain([&gone]).map(part).sum::<u64>();
        let taken = sum(|it| it.handled + it.redriven);
        let ended = taken + sum(|it| it.failed + it.dead_lettered) - sum(|it| it.redriven);
        let retry = RetryMetrics {
            total: sum(|it| it.retries),
            waiting: unless_forked(&|| engine.retries.len() as u64),
            dead_letters: unless_forked(&|| engine.dead_letters.len() as u64),
            success_rate: if ended == 0 { 1.0 } else { taken as f64 / ended as f64 },
        };
        Metrics {
            total_events: engine.tally.events.get(),
            events_per_second: self.collector.stats().rate,
            avg_processing_time: engine.tally.mean(),
            processing_time_p50: engine.tally.quantile(0.5),
            processing_time_p95: engine.tally.quantile(0.95),
            processing_time_p99: engine.tally.quantile(0.99),
            queue: self.queue_metrics(),
            retry,
            workers: self.worker_stats(),
        }
    }

    /// Returns how many workers there are, and what they do.
    pub(super) fn worker_stats(&self) -> WorkerStats {
        let engine = &self.engine;
        if engine.config.mode == Mode::Inline || self.check().is_err() {
            return WorkerStats::default();
        }
        let counts = engine.pool.counts();
        WorkerStats {
            target: counts.target as u64,
            total: counts.workers as u64,
            active: counts.workers.saturating_sub(counts.idle) as u64,
            idle: counts.idle.min(counts.workers) as u64,
            stuck: counts.stuck as u64,
            restarts: engine.pool.restarts.load(Ordering::Relaxed),
            calls: engine.tally.calls(),
            avg_processing_time: engine.tally.mean(),
        }
    }

    /// Returns whether all is well, and what is not.
    pub(super) fn health(&self) -> BusHealth {
        let queue = self.queue_metrics();
        let mut alerts = Vec::new();
        if self.check().is_err() {
            let message = "this process is a fork of the one that started the bus".to_owned();
            let (kind, subject) = (AlertKind::Stopped, None);
            alerts.push(Alert { kind, subject, message, value: 0.0, threshold: 1.0, id: None });
            let (status, queue_depth) = (HealthStatus::Unhealthy, queue.len);
            let mode = self.mode();
            return BusHealth { status, mode, active_workers: 0, queue_depth, processing_rate: 0.0, alerts };
        }
        let workers = self.engine.pool.counts();
        let mut alert = |kind, is_on: bool, message: String, value: f64, threshold: f64| {
            if is_on {
                alerts.push(Alert { kind, subject: None, message, value, threshold, id: None });
            }
        };
        let state = self.collector.state();
        let is_inline = self.mode() == Mode::Inline;
        let is_stopped = self.engine.is_refusing() || !is_inline && !state.is_running();
        let gone = (state == State::WorkerGone).then(|| "the worker of the collector is gone".to_owned());
        let failure = self.engine.failure.get().cloned().or(gone);
        let message =
            format!("{}: the emitting thread calls the handlers", failure.as_deref().unwrap_or_default());
        alert(AlertKind::WorkersFailed, is_inline && failure.is_some(), message, 0.0, 1.0);
        alert(AlertKind::Stopped, is_stopped, format!("the bus does not run: {state:?}"), 0.0, 1.0);
        let is_alone = !is_inline && !is_stopped && workers.workers == 0;
        alert(AlertKind::NoWorkers, is_alone, "no worker is there that does not hang".to_owned(), 0.0, 1.0);
        let (deep, full) = (queue.utilization, queue.memory_usage);
        alert(AlertKind::QueueDeep, deep > DEEP, format!("{} events wait", queue.len), deep, DEEP);
        alert(AlertKind::MemoryHigh, full > FULL, format!("{} bytes wait", queue.memory_bytes), full, FULL);
        let letters = self.engine.dead_letters.len();
        alert(AlertKind::DeadLetters, letters > 0, format!("{letters} dead letters"), letters as f64, 0.0);
        for subscriber in self.engine.subscribers.everybody() {
            if subscriber.mailbox.lock().hangs() {
                let (name, deadline) = (&subscriber.name, subscriber.deadline);
                let message = format!("handler {name:?} takes more than {deadline:?}");
                let (kind, subject) = (AlertKind::HandlerOverdue, Some(name.to_string()));
                let threshold = deadline.as_secs_f64();
                alerts.push(Alert { kind, subject, message, value: threshold, threshold, id: None });
            }
        }
        let found = self.collector.health();
        for found in found.alerts {
            use forebay::stats::AlertKind::{BreakerOpen, DeadLetters, SinkFailing, SinkLate, WorkerLate};
            let sink = match found.kind {
                BreakerOpen(sink) | DeadLetters(sink) | SinkFailing(sink) | SinkLate(sink) => Some(sink),
                // A handler that holds up the worker has an alert of its own.
                WorkerLate => Inside::of(&self.collector).busy_sink().filter(|sink| sink != DISPATCHER),
                _ => None,
            };
            let Some(sink) = sink else { continue };
            let (kind, subject, message) = (AlertKind::Sink, Some(sink), found.message);
            let id = Some(found.id);
            alerts.push(Alert { kind, subject, message, value: found.value, threshold: found.threshold, id });
        }
        let status = if is_stopped || is_alone {
            HealthStatus::Unhealthy
        } else if alerts.is_empty() {
            HealthStatus::Healthy
        } else {
            HealthStatus::Degraded
        };
        BusHealth {
            status,
            mode: self.mode(),
            active_workers: workers.workers as u64,
            queue_depth: queue.len,
            processing_rate: found.processing_rate,
            alerts,
        }
    }

    /// Returns the account of all events so far.
    pub(super) fn stats(&self) -> BusStats {
        let (handlers, gone) = self.engine.subscribers.stats();
        let counts = &self.counts;
        BusStats {
            mode: self.mode(),
            emitted: counts.emitted.get(),
            misnamed: counts.misnamed.get(),
            too_deep: counts.too_deep.get(),
            filtered: counts.filtered.get(),
            stopped: counts.stopped.get(),
            inline: counts.inline.get(),
            own: counts.own.get(),
            events: self.collector.stats(),
            handlers,
            gone,
        }
    }

    fn queue_metrics(&self) -> QueueMetrics {
        let stats = self.collector.stats();
        let config = self.collector.config();
        let everybody = self.engine.subscribers.everybody();
        let waiting = everybody.iter().map(|it| it.mailbox.lock().load().1 as u64).sum();
        let max_bytes = config.max_bytes.unwrap_or(usize::MAX) as f64;
        QueueMetrics {
            len: stats.pending,
            utilization: stats.pending as f64 / config.capacity as f64,
            processed: self.engine.tally.events.get(),
            waiting,
            memory_bytes: stats.pending_bytes,
            memory_usage: stats.pending_bytes as f64 / max_bytes,
        }
    }
}
