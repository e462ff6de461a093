//! Watchers: they look at the events of a bus, or at the machine, and emit the standard events for what they see. Each
//! stops when its [`Watcher`] is dropped; none keeps its bus alive. What they emit counts as the bus's own.
//!
//! The last events as they are, a watcher of another kind keeps: [`Recent`](forebay_history::Recent), as a sink.
//!
//! ```
//! use std::time::Duration;
//! use forebay_bus::{Bus, watch};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let bus = Bus::new()?;
//! let _errors = watch::error_budget(&bus, 10)?;
//! let _slow = watch::slow_batches(&bus, Duration::from_millis(200))?;
//! let _summary = watch::aggregate(&bus, Duration::from_secs(5), 50)?;
//! let _memory = watch::memory(&bus, Duration::from_secs(10))?;
//! let alarm = bus.on("system.error_threshold_exceeded", |event| println!("{event:?}"))?;
//! # drop(alarm);
//! # Ok(())
//! # }
//! ```

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use forebay::event::catalog::{data, metrics, system};
use forebay::parts::{Inside, check};
use forebay::stats::AlertKind;
use forebay::{Collector, Event, Record, Value};
use forebay_sync::sync::{Arc, Mutex, Weak};
use forebay_sync::unix;

use super::delivery::Delivery;
use super::engine::Engine;
use super::handle::Bus;
use super::handler::{Handler, Topics};
use super::periodic_tasks::TaskId;
use super::stats::AlertKind as BusAlert;
use super::subscribers::SubscribeError;
use super::subscription::Subscription;

/// Watcher, which watches until it is dropped.
#[must_use = "it stops when this is dropped"]
#[derive(Debug)]
pub struct Watcher {
    _subscription: Subscription,
    /// Periodic task of the watch, if it has one.
    task: Option<(Weak<Engine>, TaskId)>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some((engine, id)) = self.task.take()
            && let Some(engine) = engine.upgrade()
        {
            engine.periodic_tasks.remove(id);
        }
    }
}

/// Emits `metrics.aggregated` at each interval `every`, from the last `last` events: how many were of training and of
/// the system, and how many came a second in the time that they span. Nothing is emitted when nothing came. Good values
/// are 5 s and 50 events. [Inline](super::Mode::Inline), it is emitted by the first `emit` or `flush` that comes after
/// that time.
///
/// # Errors
///
/// `every` is zero or `last` is 0; there are too many subscriptions; or the bus is stopped.
pub fn aggregate(bus: &Bus, every: Duration, last: usize) -> Result<Watcher, SubscribeError> {
    check("every", format!("{every:?}"), "more than zero", !every.is_zero())?;
    check("last", last, "1 or more", last >= 1)?;
    let events: Arc<Mutex<VecDeque<(Instant, Kind)>>> = Arc::default();
    let (seen, engine) = (Arc::clone(&events), Arc::downgrade(&bus.shared.engine));
    let subscription = bus.subscribe(named("aggregator", "*", move |event| {
        let Some(engine) = engine.upgrade().filter(|_| event.name() != metrics::Aggregated::NAME) else {
            return;
        };
        let now = engine.clock.now();
        let mut seen = seen.lock();
        if seen.len() == last {
            seen.pop_front();
        }
        seen.push_back((now, Kind::of(event.name())));
    }))?;
    let summary = move |engine: &Engine| {
        let (mut events, now) = (events.lock(), engine.clock.now());
        let Some((first, _)) = events.front() else { return };
        let seconds = now.saturating_duration_since(*first).as_secs_f64();
        let count = |kind| events.iter().filter(|(_, of)| *of == kind).count() as u64;
        let summary = metrics::Aggregated {
            training_events_count: count(Kind::Training),
            system_events_count: count(Kind::System),
            events_per_second: if seconds > 0.0 { events.len() as f64 / seconds } else { 0.0 },
            timestamp: SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs_f64(),
        };
        events.clear();
        drop(events);
        engine.emit_own(summary);
    };
    Ok(every_period(bus, every, subscription, summary))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Training,
    System,
    Other,
}

impl Kind {
    fn of(name: &str) -> Self {
        match name.split('.').next() {
            Some("training") => Self::Training,
            Some("system") => Self::System,
            _ => Self::Other,
        }
    }
}

/// Counts the events `*.error` and `*.failed`. When there are `threshold` of them (10 is a good value), it emits
/// `system.error_threshold_exceeded` and counts from 0 again. The component is the field `component` of the last one,
/// or the first word of its name.
///
/// # Errors
///
/// `threshold` is 0; there are too many subscriptions; or the bus is stopped.
pub fn error_budget(bus: &Bus, threshold: u64) -> Result<Watcher, SubscribeError> {
    check("threshold", threshold, "1 or more", threshold >= 1)?;
    let (errors, engine) = (Mutex::new(0), Arc::downgrade(&bus.shared.engine));
    let handler = named("error-budget", ["*.error", "*.failed"], move |event| {
        let mut errors = errors.lock();
        *errors += 1;
        if *errors < threshold {
            return;
        }
        let error_count = std::mem::take(&mut *errors);
        drop(errors);
        let component = component_of(event);
        if let Some(engine) = engine.upgrade() {
            engine.emit_own(system::ErrorThresholdExceeded { error_count, threshold, component });
        }
    });
    Ok(Watcher { _subscription: bus.subscribe(handler)?, task: None })
}

/// Reports every event of these topics in which the number in `field` (or the value itself, for `value`) is above `threshold`,
/// as `system.performance_warning`.
///
/// # Errors
///
/// A topic is a name that no event may have; there are too many subscriptions; or the bus is stopped.
pub fn threshold(
    bus: &Bus,
    topics: impl Into<Topics>,
    field: impl Into<String>,
    threshold: f64,
) -> Result<Watcher, SubscribeError> {
    let (metric, engine) = (field.into(), Arc::downgrade(&bus.shared.engine));
    let handler = named("threshold", topics, move |event| {
        let Some(value) = number_of(event, &metric).filter(|value| *value > threshold) else { return };
        // Its own warnings are not watched: each would cause the next.
        if event.name() != system::PerformanceWarning::NAME
            && let Some(engine) = engine.upgrade()
        {
            let (component, metric) = (component_of(event), metric.clone());
            engine.emit_own(system::PerformanceWarning { component, metric, value, threshold });
        }
    });
    Ok(Watcher { _subscription: bus.subscribe(handler)?, task: None })
}

/// Reports every `data.batch_loaded` that took longer than `threshold`, as `data.performance_warning`.
///
/// # Errors
///
/// There are too many subscriptions; or the bus is stopped.
pub fn slow_batches(bus: &Bus, threshold: Duration) -> Result<Watcher, SubscribeError> {
    let (threshold, engine) = (threshold.as_secs_f64(), Arc::downgrade(&bus.shared.engine));
    let handler = named("slow-batches", data::BatchLoaded::NAME, move |event| {
        let Some(value) = number_of(event, "load_time").filter(|value| *value > threshold) else { return };
        if let Some(engine) = engine.upgrade() {
            let (component, metric) = ("data_loader".to_owned(), "load_time".to_owned());
            engine.emit_own(data::PerformanceWarning { component, metric, value, threshold });
        }
    });
    Ok(Watcher { _subscription: bus.subscribe(handler)?, task: None })
}

/// Measures something every so often on a worker, and emits what comes of it, one event, some or none: of the graphics card,
/// for example, as
/// `system.gpu_usage`. A call that panics or hangs is treated as that of any handler. [Inline](super::Mode::Inline), as for
/// [`aggregate`].
///
/// ```
/// use std::time::Duration;
/// use forebay_bus::{Bus, watch};
/// use forebay::event::catalog::system::GpuUsage;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::new()?;
/// let measure = || Some(GpuUsage { utilization: 90.0, memory_used: 4096.0, temperature: 60.0 });
/// let watcher = watch::probe(&bus, Duration::from_secs(10), "gpu", measure)?;
/// # drop(watcher);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// `every` is zero; there are too many subscriptions; or the bus is stopped.
pub fn probe<I>(
    bus: &Bus,
    every: Duration,
    name: &'static str,
    measure: impl Fn() -> I + Send + Sync + 'static,
) -> Result<Watcher, SubscribeError>
where
    I: IntoIterator,
    I::Item: Into<Record>,
{
    check("every", format!("{every:?}"), "more than zero", !every.is_zero())?;
    let engine = Arc::downgrade(&bus.shared.engine);
    let handler = Handler::triggered(move || {
        if let Some(engine) = engine.upgrade() {
            measure().into_iter().for_each(|event| engine.emit_own(event));
        }
    });
    let subscription = bus.subscribe(handler.named(name))?;
    let id = subscription.id();
    Ok(every_period(bus, every, subscription, move |engine| engine.trigger(id)))
}

/// Emits the memory of the machine every so often as `system.memory_usage`, from `/proc/meminfo`. Where there is none,
/// nothing is emitted.
///
/// # Errors
///
/// As for [`probe`].
pub fn memory(bus: &Bus, every: Duration) -> Result<Watcher, SubscribeError> {
    let measure = || std::fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(usage_of);
    probe(bus, every, "memory", measure)
}

/// Emits the use of the file system on which `path` lies every so often as `system.disk_usage`. On systems other than
/// Unix, and for a path that is not there, nothing is emitted.
///
/// # Errors
///
/// As for [`probe`].
pub fn disk(bus: &Bus, every: Duration, path: impl Into<PathBuf>) -> Result<Watcher, SubscribeError> {
    const GIB: f64 = (1_u64 << 30) as f64;
    let path = path.into();
    probe(bus, every, "disk", move || {
        let (used, available) = unix::disk_usage(&path)?;
        Some(system::DiskUsage { used_gb: used as f64 / GIB, available_gb: available as f64 / GIB })
    })
}

/// Asks for the [health](Bus::health) of the bus at each interval `every` (5 s is a good value). Each alert is reported
/// once while it is up, as `system.bottleneck_detected`: the component, what is wrong, and what may help. One that
/// comes and goes between two looks is not seen. [Inline](super::Mode::Inline), as for [`aggregate`].
///
/// # Errors
///
/// As for [`probe`].
pub fn bottlenecks(bus: &Bus, every: Duration) -> Result<Watcher, SubscribeError> {
    let (shared, up) = (Arc::downgrade(&bus.shared), Mutex::new(Vec::new()));
    probe(bus, every, "bottlenecks", move || {
        let alerts = shared.upgrade().map_or_else(Vec::new, |shared| shared.health().alerts);
        let keys = alerts.iter().map(|alert| (alert.kind, alert.subject.clone(), alert.id));
        let is_new = new_of(&up, keys.collect());
        let new = alerts.into_iter().zip(is_new).filter(|(_, is_new)| *is_new);
        let new = new.map(|(alert, _)| {
            let component = alert.subject.unwrap_or_else(|| "bus".to_owned());
            found(component, alert.message, of_bus(alert.kind))
        });
        new.collect::<Vec<_>>()
    })
}

/// Asks how a collector is ([`Collector::health`]) every so often, without keeping it alive, and reports like
/// [`bottlenecks`]. The component is the sink that an alert is of, or `collector`.
///
/// ```
/// use std::time::Duration;
/// use forebay::Collector;
/// use forebay_bus::{Bus, watch};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (bus, collector) = (Bus::new()?, Collector::builder().start()?);
/// let watcher = watch::bottlenecks_of(&bus, Duration::from_secs(5), &collector)?;
/// bus.on("system.bottleneck_detected", |event| println!("{event:?}"))?.keep();
/// # drop(watcher);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// As for [`probe`].
pub fn bottlenecks_of<E: Event>(
    bus: &Bus,
    every: Duration,
    collector: &Collector<E>,
) -> Result<Watcher, SubscribeError> {
    let (health, up) = (Inside::of(collector).watch_health(), Mutex::new(Vec::new()));
    probe(bus, every, "bottlenecks", move || {
        let alerts = health().map_or_else(Vec::new, |health| health.alerts);
        let is_new = new_of(&up, alerts.iter().map(|alert| alert.id).collect());
        let new = alerts.into_iter().zip(is_new).filter(|(_, is_new)| *is_new);
        let new = new.map(|(alert, _)| {
            let (component, suggestion) = of_collector(&alert.kind);
            found(component, alert.message, suggestion)
        });
        new.collect::<Vec<_>>()
    })
}

/// Returns which of the alerts that are up were not up at the last look.
fn new_of<K: PartialEq>(up: &Mutex<Vec<K>>, now: Vec<K>) -> Vec<bool> {
    let mut before = up.lock();
    let is_new = now.iter().map(|key| !before.contains(key)).collect();
    *before = now;
    is_new
}

fn found(component: impl Into<String>, description: String, suggestion: &str) -> system::BottleneckDetected {
    system::BottleneckDetected {
        component: component.into(),
        description,
        suggestions: vec![suggestion.to_owned()],
    }
}

/// Returns a suggestion for an alert of a bus.
fn of_bus(kind: BusAlert) -> &'static str {
    match kind {
        BusAlert::QueueDeep => "make handlers shorter, give the bus more workers, or let it scale by load",
        BusAlert::MemoryHigh => "make events smaller, or raise max_bytes",
        BusAlert::HandlerOverdue => {
            "give the call a time limit of its own: what it waits for does not come back"
        }
        BusAlert::DeadLetters => "look at their errors, and offer them again when the cause is gone",
        BusAlert::NoWorkers => "give the calls that hang a time limit of their own",
        BusAlert::Sink => "look at its last error, and let it retry; where it hangs, isolate it",
        BusAlert::WorkersFailed => {
            "raise the limit of threads, and start the bus again: those who emit wait for handlers"
        }
        BusAlert::Stopped => "start another bus",
    }
}

/// Returns the component of an alert of a collector, and a suggestion.
fn of_collector(kind: &AlertKind) -> (&str, &'static str) {
    const ISOLATE: &str = "isolate the sink that is behind, or make it faster";
    match kind {
        AlertKind::QueueDepth => ("collector", ISOLATE),
        AlertKind::Memory => {
            ("collector", "isolate the sink that is behind, make events smaller, or raise max_bytes")
        }
        AlertKind::Latency => {
            ("collector", "deliver more often: a shorter interval, or fewer events a batch")
        }
        AlertKind::TooSlow | AlertKind::WorkerLate => ("collector", ISOLATE),
        AlertKind::WorkerGone => ("collector", "build another collector: this one delivers nothing any more"),
        AlertKind::SinkFailing(sink) => (sink, "look at its last error; let it retry, and keep dead letters"),
        AlertKind::SinkLate(sink) => {
            (sink, "give it a time limit of its own: what it waits for does not come back")
        }
        AlertKind::BreakerOpen(sink) => (sink, "look at its last error: it is left alone for a while"),
        AlertKind::DeadLetters(sink) => {
            (sink, "look at their errors, and redrive them when the cause is gone")
        }
        // An alert that was added to a later collector.
        _ => ("collector", "look at the text of the alert, and at the health of the collector"),
    }
}

/// Reads `/proc/meminfo`, whose numbers are in KiB.
fn usage_of(meminfo: &str) -> Option<system::MemoryUsage> {
    let mib_of = |key: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        Some(line.trim().trim_end_matches("kB").trim_end().parse::<f64>().ok()? / 1024.0)
    };
    let (total, available_mb) = (mib_of("MemTotal")?, mib_of("MemAvailable")?);
    let used_mb = total - available_mb;
    let percentage = if total > 0.0 { 100.0 * used_mb / total } else { 0.0 };
    Some(system::MemoryUsage { used_mb, available_mb, percentage })
}

fn named(
    name: &'static str,
    topics: impl Into<Topics>,
    call: impl Fn(&Delivery) + Send + Sync + 'static,
) -> Handler {
    Handler::new(topics, call).named(name)
}

fn every_period(
    bus: &Bus,
    every: Duration,
    subscription: Subscription,
    run: impl Fn(&Engine) + Send + Sync + 'static,
) -> Watcher {
    let engine = &bus.shared.engine;
    let own = Arc::downgrade(engine);
    let run_if_alive = move || own.upgrade().iter().for_each(|engine| run(engine));
    let id = engine.periodic_tasks.add(engine.clock.now(), every, run_if_alive);
    engine.retries.wake_scheduler();
    Watcher { _subscription: subscription, task: Some((Arc::downgrade(engine), id)) }
}

fn number_of(event: &Delivery, field: &str) -> Option<f64> {
    match event.value() {
        Value::Fields(fields) => fields.get(field)?.as_f64(),
        value if field == "value" => value.as_f64(),
        _ => None,
    }
}

fn component_of(event: &Delivery) -> String {
    let given = event.value().as_fields().and_then(|fields| fields.get("component")?.as_str());
    let word = || event.name().split('.').next().unwrap_or_default();
    given.unwrap_or_else(word).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_is_measured() {
        let usage = unix::disk_usage(std::path::Path::new("/"));
        assert_eq!(usage.is_some_and(|(used, available)| used + available > 0), cfg!(unix));
        assert_eq!(unix::disk_usage(std::path::Path::new("/is/not/there")), None);
    }

    #[test]
    fn the_memory_is_read_from_what_linux_shows() {
        let usage = usage_of("MemTotal:        2048 kB\nMemFree: 1 kB\nMemAvailable:    512 kB\n").unwrap();
        assert_eq!((usage.used_mb, usage.available_mb, usage.percentage), (1.5, 0.5, 75.0));
        assert_eq!(usage_of("MemTotal: 2048 kB\n"), None);
        assert_eq!(usage_of("MemTotal: a lot\nMemAvailable: 1 kB\n"), None);
    }
}
