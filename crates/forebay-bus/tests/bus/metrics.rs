//! Tests of what a bus reports of itself: metrics, workers, health, and the number of an event.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support;
use crate::support::until;
use forebay::{FlushStrategy, ManualClock, stats::HealthStatus};
use forebay_bus::{AlertKind, Bus, BusConfig, Handler, HandlerError};

#[test]
fn the_time_of_calls_and_the_workers_are_reported() {
    let clock = ManualClock::new();
    let own = clock.clone();
    let bus = Bus::builder().workers(2).manual_clock(&clock).start().unwrap();
    let slow = Handler::new("slow", move |_| own.advance(Duration::from_millis(2))).max_concurrent(1);
    bus.subscribe(slow).unwrap().keep();
    for _ in 0..10 {
        bus.emit_sync("slow", ()).unwrap();
    }
    bus.flush().unwrap();
    until("the workers are idle", || bus.worker_stats().idle == 2);
    let (metrics, workers) = (bus.metrics(), bus.worker_stats());
    assert_eq!((workers.target, workers.total, workers.active, workers.calls), (2, 2, 0, 10));
    assert_eq!((workers.stuck, workers.restarts), (0, 0));
    assert_eq!(workers.avg_processing_time, Duration::from_millis(2));
    assert_eq!(metrics.avg_processing_time, Duration::from_millis(2));
    let twice = Duration::from_millis(2)..=Duration::from_millis(4);
    assert!(twice.contains(&metrics.processing_time_p50), "{metrics:?}");
    assert_eq!((bus.health().active_workers, bus.health().status), (2, HealthStatus::Healthy));
    bus.stop().unwrap().stats.check_law(10).unwrap();
}

#[test]
fn a_bus_whose_rings_fill_says_so() {
    let collector = BusConfig::default()
        .collector
        .with_flush(FlushStrategy::Manual)
        .with_capacity(100)
        .with_max_bytes(100_000);
    let bus = Bus::builder().config(BusConfig::default().with_collector(collector)).start().unwrap();
    (0..50).for_each(|_| _ = bus.emit("a.b", ()).unwrap());
    assert_eq!(bus.health().status, HealthStatus::Healthy, "half is not more than half");
    bus.emit("a.b", "x".repeat(4_000)).unwrap();
    let (queue, health) = (bus.metrics().queue, bus.health());
    assert_eq!((queue.len, queue.utilization, health.queue_depth), (51, 0.51, 51));
    assert!((4_000..100_000).contains(&queue.memory_bytes), "{queue:?}");
    assert!((queue.memory_usage - queue.memory_bytes as f64 / 100_000.0).abs() < 1e-9);
    let kinds: Vec<AlertKind> = health.alerts.iter().map(|alert| alert.kind).collect();
    assert_eq!((health.status, kinds), (HealthStatus::Degraded, vec![AlertKind::QueueDeep]));
    bus.flush().unwrap();
    let queue = bus.metrics().queue;
    assert_eq!((queue.len, queue.memory_bytes, queue.processed), (0, 0, 51));
    assert_eq!(bus.health().status, HealthStatus::Healthy);
    bus.stop().unwrap().stats.check_law(51).unwrap();
}

#[test]
fn an_event_has_one_number_in_all_calls_of_all_handlers() {
    let clock = ManualClock::new();
    let bus = Bus::builder().inline().manual_clock(&clock).start().unwrap();
    let ids = Arc::new(Mutex::new(Vec::new()));
    for attempts in [2, 0] {
        let ids = Arc::clone(&ids);
        bus.subscribe(Handler::new("a.b", move |event| {
            ids.lock().unwrap().push(event.id());
            if event.attempt() < attempts { Err(HandlerError::new("not yet")) } else { Ok(()) }
        }))
        .unwrap()
        .keep();
    }
    let first = bus.emit("a.b", ()).unwrap().id;
    clock.advance(Duration::from_secs(1));
    bus.flush().unwrap();
    assert_eq!(*ids.lock().unwrap(), [first; 3], "two calls of the one, one of the other");
    let second = bus.emit("a.b", ()).unwrap().id;
    assert_ne!(first, second);
    bus.stop().unwrap().stats.check_law(2).unwrap();
}

#[test]
fn the_mailbox_of_a_handler_is_bounded_in_bytes_as_well() {
    let config = BusConfig::default().with_handler_bytes(10_000).with_workers(1);
    let bus = Bus::builder().config(config).start().unwrap();
    let gate = support::Gate::closed();
    let own = gate.clone();
    bus.subscribe(Handler::new("a.b", move |_| own.pass()).max_concurrent(1)).unwrap().keep();
    (0..40).for_each(|_| _ = bus.emit("a.b", "x".repeat(1_000)).unwrap());
    gate.await_arrivals(1);
    // One is in the call; of the others, some ten are in the mailbox, the rest where the rings bound them.
    until("the mailbox is full", || bus.metrics().queue.waiting >= 8);
    assert!(bus.metrics().queue.waiting <= 11, "{:?}", bus.metrics().queue);
    gate.open();
    bus.flush().unwrap();
    let stats = bus.stop().unwrap().stats;
    stats.check_law(40).unwrap();
    assert_eq!(stats.handlers[0].handled, 40);
}

#[test]
fn a_bus_tells_the_rate_of_its_collector_also_without_threads() {
    for is_inline in [false, true] {
        let clock = ManualClock::new();
        let builder = Bus::builder().manual_clock(&clock);
        let bus = if is_inline { builder.inline() } else { builder }.start().unwrap();
        for _ in 0..5 {
            clock.advance(Duration::from_secs(1));
            (0..20).for_each(|_| _ = bus.emit("a.b", ()).unwrap());
            bus.flush().unwrap();
        }
        let (rate, stats) = (bus.metrics().events_per_second, bus.stats());
        assert_eq!((rate, bus.health().processing_rate), (stats.events.rate, stats.events.rate));
        // A second counts from its first delivery, of one event or of twenty.
        assert!(rate > 0.0 && rate < 40.0, "{rate}");
        bus.stop().unwrap().stats.check_law(100).unwrap();
    }
}
