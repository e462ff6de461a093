//! Watchers: they look at the events of a bus, or at the machine, and emit the standard events that tell what they see. Each
//! stops when its [`Watcher`] is dropped; none keeps its bus alive. What they emit counts as the bus's own.
//!
//! The last events as they are, a watcher of another kind keeps: [`Recent`](crate::history::Recent), as a sink.
//!
//! ```
//! use std::time::Duration;
//! use forebay::bus::{Bus, watch};
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
use std::time::{Duration, Instant};

pub use super::bottlenecks::{bottlenecks, bottlenecks_of};

use super::chores::ChoreId;
use super::engine::Engine;
use super::{Bus, Delivery, Handler, SubscribeError, Subscription, Topics};
use crate::catalog::{data, metrics, system};
use crate::clock::unix_nanos;
use crate::config::check;
use crate::event::{Record, Value};
use crate::sync::{Arc, Mutex, Weak};
use crate::unix;

/// Something that watches until this is dropped.
#[must_use = "it stops when this is dropped"]
#[derive(Debug)]
pub struct Watcher {
    _subscription: Subscription,
    /// What is done from time to time.
    chore: Option<(Weak<Engine>, ChoreId)>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some((engine, id)) = self.chore.take()
            && let Some(engine) = engine.upgrade()
        {
            engine.chores.remove(id);
        }
    }
}

/// Sums up the last `last` events every `every` (usually 50, and 5 s): how many were of training and of the system, and how
/// many events a second came over the time that these took; as `metrics.aggregated`. Nothing is told when nothing came.
/// [Inline](super::Mode::Inline), it is told by the first `emit` or `flush` that comes after that time.
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
            timestamp: unix_nanos() as f64 / 1e9,
        };
        events.clear();
        drop(events);
        engine.say(summary);
    };
    Ok(every_so_often(bus, every, subscription, summary))
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

/// Counts the events `*.error` and `*.failed`, tells when there are `threshold` of them (usually 10) as
/// `system.error_threshold_exceeded`, and begins anew. The component is that field of the last one, or its name's first word.
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
            engine.say(system::ErrorThresholdExceeded { error_count, threshold, component });
        }
    });
    Ok(Watcher { _subscription: bus.subscribe(handler)?, chore: None })
}

/// Tells every event of these topics in which the number in `field` (or the value itself, for `value`) is above `threshold`,
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
        // Its own warnings are not watched: it would warn of them for ever.
        if event.name() != system::PerformanceWarning::NAME
            && let Some(engine) = engine.upgrade()
        {
            let (component, metric) = (component_of(event), metric.clone());
            engine.say(system::PerformanceWarning { component, metric, value, threshold });
        }
    });
    Ok(Watcher { _subscription: bus.subscribe(handler)?, chore: None })
}

/// Tells every `data.batch_loaded` that took longer than `longest`, as `data.performance_warning`.
///
/// # Errors
///
/// There are too many subscriptions; or the bus is stopped.
pub fn slow_batches(bus: &Bus, longest: Duration) -> Result<Watcher, SubscribeError> {
    let (threshold, engine) = (longest.as_secs_f64(), Arc::downgrade(&bus.shared.engine));
    let handler = named("slow-batches", data::BatchLoaded::NAME, move |event| {
        let Some(value) = number_of(event, "load_time").filter(|value| *value > threshold) else { return };
        if let Some(engine) = engine.upgrade() {
            let (component, metric) = ("data_loader".to_owned(), "load_time".to_owned());
            engine.say(data::PerformanceWarning { component, metric, value, threshold });
        }
    });
    Ok(Watcher { _subscription: bus.subscribe(handler)?, chore: None })
}

/// Measures something every so often on a worker, and emits what comes of it, one event, some or none: of the graphics card,
/// for example, as
/// `system.gpu_usage`. A call that panics or hangs is treated as that of any handler. [Inline](super::Mode::Inline), as for
/// [`aggregate`].
///
/// ```
/// use std::time::Duration;
/// use forebay::bus::{Bus, watch};
/// use forebay::catalog::system::GpuUsage;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::new()?;
/// let measure = || Some(GpuUsage { utilization: 0.9, memory_used: 4096.0, temperature: 60.0 });
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
    let handler = Handler::poked(move || {
        if let Some(engine) = engine.upgrade() {
            measure().into_iter().for_each(|event| engine.say(event));
        }
    });
    let subscription = bus.subscribe(handler.named(name))?;
    let id = subscription.id();
    Ok(every_so_often(bus, every, subscription, move |engine| engine.poke(id)))
}

/// Tells the memory of the machine every so often as `system.memory_usage`, from `/proc/meminfo`. Where there is none,
/// nothing is told.
///
/// # Errors
///
/// As for [`probe`].
pub fn memory(bus: &Bus, every: Duration) -> Result<Watcher, SubscribeError> {
    let measure = || std::fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(usage_of);
    probe(bus, every, "memory", measure)
}

/// Tells the file system on which `path` lies every so often as `system.disk_usage`. On systems other than Unix, and for
/// a path that is not there, nothing is told.
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

fn every_so_often(
    bus: &Bus,
    every: Duration,
    subscription: Subscription,
    chore: impl Fn(&Engine) + Send + Sync + 'static,
) -> Watcher {
    let engine = &bus.shared.engine;
    let id = engine.chores.add(engine.clock.now(), every, chore);
    engine.timers.ring();
    Watcher { _subscription: subscription, chore: Some((Arc::downgrade(engine), id)) }
}

fn number_of(event: &Delivery, field: &str) -> Option<f64> {
    match event.value() {
        Value::Fields(fields) => fields.get(field)?.as_f64(),
        value if field == "value" => value.as_f64(),
        _ => None,
    }
}

fn component_of(event: &Delivery) -> String {
    let told = event.value().as_fields().and_then(|fields| fields.get("component")?.as_str());
    let word = || event.name().split('.').next().unwrap_or_default();
    told.unwrap_or_else(word).to_owned()
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
    fn the_memory_is_read_from_what_linux_tells() {
        let usage = usage_of("MemTotal:        2048 kB\nMemFree: 1 kB\nMemAvailable:    512 kB\n").unwrap();
        assert_eq!((usage.used_mb, usage.available_mb, usage.percentage), (1.5, 0.5, 75.0));
        assert_eq!(usage_of("MemTotal: 2048 kB\n"), None);
        assert_eq!(usage_of("MemTotal: a lot\nMemAvailable: 1 kB\n"), None);
    }
}
