//! The tests that stand in the documents themselves, restated with what forebay has in the place of what they call, and named
//! after their items: see `docs/internal/requirements.md`. Where a document waits for a time, these flush.

use std::sync::{Arc, Mutex};

use crate::support::law;
use forebay::bus::{Bus, Filter};
use forebay::catalog::metrics::{FeatureUsed, Measured};
use forebay::sink::MemorySink;
use forebay::{Collector, Fields, GateConfig, Outcome, Record, Sampling};

fn used(feature: &str, action: &str) -> Record {
    FeatureUsed { feature: feature.to_owned(), action: action.to_owned(), success: true }.into()
}

#[test]
fn s1_89_collector_creation() {
    let collector = Collector::new(forebay::Config::default()).unwrap();
    assert_eq!(collector.stats().offered, 0);
    collector.stop().unwrap();
    law(&collector, 0);
}

#[test]
fn s1_90_event_collection() {
    let collector = Collector::builder().start().unwrap();
    let sink = MemorySink::new();
    collector.add_sink(sink.clone()).unwrap();
    assert_eq!(collector.collect(used("mission", "create")), Outcome::Queued);
    let _ = collector.flush().unwrap();
    let batches = sink.batches();
    assert_eq!(batches.len(), 1);
    assert_eq!(batches[0].len(), 1);
    collector.stop().unwrap();
    law(&collector, 1);
}

#[test]
fn s1_91_session_enrichment() {
    let collector = Collector::builder().start().unwrap();
    let sink = MemorySink::new();
    collector.add_sink(sink.clone()).unwrap();
    // The event has no place for a session: its batch has, and so has all that is kept of it.
    collector.collect(used("session", "start"));
    let _ = collector.flush().unwrap();
    assert_eq!(sink.batches()[0].origin().session_id, collector.session_id());
    collector.stop().unwrap();
    law(&collector, 1);
}

#[test]
fn s1_92_broadcast_subscription() {
    let collector = Collector::builder().start().unwrap();
    let subscriber = collector.subscribe("*").unwrap();
    let event = used("test", "action");
    collector.collect(event.clone());
    let _ = collector.flush().unwrap();
    assert_eq!(subscriber.try_recv(), Ok(event));
    collector.stop().unwrap();
    law(&collector, 1);
}

#[test]
fn s1_93_sampling() {
    let half = Sampling::Rate { rate: 0.5, min_per_window: 0, window: std::time::Duration::from_secs(1) };
    for sampling in [None, Some(half)] {
        let (sink, is_sampled) = (MemorySink::new(), sampling.is_some());
        let gate = GateConfig { sampling, ..GateConfig::default() };
        let collector = Collector::builder().gate(gate).sink(sink.clone()).start().unwrap();
        for _ in 0..100 {
            let measured = Measured { metric: "latency".to_owned(), value: 100.0, unit: "ms".to_owned() };
            collector.collect(Record::from(measured));
        }
        let _ = collector.flush().unwrap();
        let stats = law(&collector, 100);
        assert_eq!(stats.offered, 100, "all are counted, those as well that were left out");
        assert_eq!(stats.processed, sink.len() as u64);
        assert_eq!(stats.sampled_out, 100 - stats.processed);
        assert_eq!(is_sampled, stats.sampled_out > 0);
        collector.stop().unwrap();
    }
}

type Received = Arc<Mutex<Vec<Record>>>;

/// Keeps what comes.
fn keep(bus: &Bus, topics: &str) -> Received {
    let received = Received::default();
    let kept = Arc::clone(&received);
    bus.on(topics, move |event| kept.lock().unwrap().push(Record::clone(event))).unwrap().keep();
    received
}

#[test]
fn s2_90_event_emission_and_subscription() {
    let bus = Bus::new().unwrap();
    let received = keep(&bus, "test.*");
    bus.emit("test.example", Fields::new().with("key", "value")).unwrap();
    bus.flush().unwrap();
    let received = received.lock().unwrap();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].name(), "test.example");
    assert_eq!(received[0].value().as_fields(), Some(&Fields::new().with("key", "value")));
    bus.stop().unwrap().stats.check_law(1).unwrap();
}

#[test]
fn s2_91_event_filtering() {
    let bus = Bus::new().unwrap();
    let is_important = |event: &Record| {
        event.value().as_fields().and_then(|fields| fields.get("important")?.as_bool()).unwrap_or(false)
    };
    bus.add_filter(Filter::new(is_important));
    let received = keep(&bus, "test.*");
    _ = bus.emit("test.filtered", Fields::new().with("important", false));
    bus.emit("test.important", Fields::new().with("important", true)).unwrap();
    bus.flush().unwrap();
    let received = received.lock().unwrap();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].name(), "test.important");
    bus.stop().unwrap().stats.check_law(2).unwrap();
}

/// The component of the document: it says when it begins and when it is done.
#[cfg(feature = "testing")]
fn do_something(bus: &Bus) -> Result<(), forebay::bus::EmitError> {
    bus.emit("component.started", ())?;
    bus.emit("component.completed", ()).map(drop)
}

#[cfg(feature = "testing")]
#[test]
fn s2_92_component_with_events() {
    use forebay::testing::{Emitted, MockBus};
    let bus = MockBus::new().unwrap();
    do_something(&bus).unwrap();
    let names: Vec<String> = bus.emitted().iter().map(|event| event.name().to_owned()).collect();
    assert_eq!(names, ["component.started", "component.completed"]);
    bus.stop().unwrap().stats.check_law(2).unwrap();
}
