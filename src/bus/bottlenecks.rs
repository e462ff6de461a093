//! A watcher that asks how things are, and tells what holds them up.

use std::time::Duration;

use super::watch::{Watcher, probe};
use super::{AlertKind as BusAlert, Bus, SubscribeError};
use crate::catalog::system::BottleneckDetected;
use crate::collector::Collector;
use crate::event::Event;
use crate::stats::AlertKind;
use crate::sync::{Arc, Mutex};

/// Asks how the bus is ([`Bus::health`]) every so often (usually 5 s), and tells each alert once as long as it is up, as
/// `system.bottleneck_detected`: the component, what is wrong, and what may help. One that comes and goes between two looks is
/// not seen. [Inline](super::Mode::Inline), as for [`aggregate`](super::watch::aggregate).
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
        let told = alerts.into_iter().zip(is_new).filter(|(_, is_new)| *is_new);
        let told = told.map(|(alert, _)| {
            let component = alert.subject.unwrap_or_else(|| "bus".to_owned());
            found(component, alert.message, of_bus(alert.kind))
        });
        told.collect::<Vec<_>>()
    })
}

/// The same of a collector ([`Collector::health`]), which it does not keep alive. The component is the sink that an alert is of,
/// or `collector`.
///
/// ```
/// use std::time::Duration;
/// use forebay::Collector;
/// use forebay::bus::{Bus, watch};
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
    let (shared, up) = (Arc::downgrade(&collector.shared), Mutex::new(Vec::new()));
    probe(bus, every, "bottlenecks", move || {
        let alerts = shared.upgrade().map_or_else(Vec::new, |shared| shared.health().alerts);
        let is_new = new_of(&up, alerts.iter().map(|alert| alert.id).collect());
        let told = alerts.into_iter().zip(is_new).filter(|(_, is_new)| *is_new);
        let told = told.map(|(alert, _)| {
            let (component, suggestion) = of_collector(&alert.kind);
            found(component, alert.message, suggestion)
        });
        told.collect::<Vec<_>>()
    })
}

/// Which of those that are up were not up at the last look.
fn new_of<K: PartialEq>(up: &Mutex<Vec<K>>, now: Vec<K>) -> Vec<bool> {
    let mut before = up.lock();
    let is_new = now.iter().map(|key| !before.contains(key)).collect();
    *before = now;
    is_new
}

fn found(component: impl Into<String>, description: String, suggestion: &str) -> BottleneckDetected {
    BottleneckDetected { component: component.into(), description, suggestions: vec![suggestion.to_owned()] }
}

/// What may help.
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

/// Of what an alert is, and what may help.
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
    }
}
