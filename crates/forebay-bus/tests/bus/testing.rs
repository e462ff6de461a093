//! Tests of the helpers by which programs test themselves.

use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::support::{Tick, hush, law, numbers, tick};
use forebay::sink::{DeadLetters, MemorySink, RetryPolicy, SinkExt};
use forebay::testing::{Act, Gate, RecordingCollector, ScriptedSink};
use forebay::{Builder, Collector, FlushStrategy, Record, assert_emitted};
use forebay_bus::testing::MockBus;
use forebay_bus::{Bus, Handler};

/// Returns what a panic of `body` says.
fn said(body: impl FnOnce() + std::panic::UnwindSafe) -> String {
    *catch_unwind(body).unwrap_err().downcast::<String>().unwrap()
}

#[test]
fn a_mock_bus_calls_handlers_at_once_and_remembers_what_they_emit() {
    let bus = MockBus::new().unwrap();
    let emitter = bus.emitter();
    bus.on("training.epoch_completed", move |event| {
        let _ = emitter.emit("training.new_best_model", event.value().clone());
    })
    .unwrap()
    .keep();
    bus.emit("training.epoch_completed", 3).unwrap();
    assert_emitted!(bus, "training.epoch_completed", times = 1);
    assert_emitted!(bus, "training.new_best_model", |event| event.value().as_i64() == Some(3));
    assert_emitted!(bus, "training.*", times = 2);
    bus.clear();
    assert_emitted!(bus, "*", times = 0);
    assert_eq!(bus.worker_stats().total, 0, "no thread");
    bus.stop().unwrap().stats.check_law(2).unwrap();
}

#[test]
fn a_mock_bus_has_the_settings_of_its_builder() {
    let clock = forebay::testing::ManualClock::new();
    let bus = MockBus::of(Bus::builder().manual_clock(&clock)).unwrap();
    let calls = Arc::new(AtomicU64::new(0));
    let own = Arc::clone(&calls);
    bus.subscribe(Handler::new("a.b", move |_| match own.fetch_add(1, Ordering::SeqCst) {
        0 => Err(forebay_bus::HandlerError::new("once")),
        _ => Ok(()),
    }))
    .unwrap()
    .keep();
    bus.emit("a.b", ()).unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    clock.advance(Duration::from_secs(1));
    bus.flush().unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 2, "tried again after a second of its clock");
}

#[test]
fn what_was_not_emitted_is_reported_with_what_was() {
    hush();
    let memory = MemorySink::new();
    let collector = Collector::builder().sink(memory.clone()).start().unwrap();
    collector.collect(Record::scalar("train.loss", 0.5));
    collector.stop().unwrap();
    law(&collector, 1);
    assert_emitted!(memory, "train.loss");
    let memory = std::panic::AssertUnwindSafe(memory);
    let never = said(|| assert_emitted!(*memory, "train.accuracy"));
    assert_eq!(never, "train.accuracy was never emitted; all: train.loss");
    let often = said(|| {
        assert_emitted!(*memory, "train.*", times = 2);
    });
    assert_eq!(often, "train.* was emitted 1 times, expected were 2; all: train.loss");
    let other = said(|| assert_emitted!(*memory, "train.loss", |loss| loss.step().is_some()));
    assert!(other.starts_with("train.loss was emitted 1 times, never as expected: [Record"), "{other}");
    let none = said(|| assert_emitted!(MemorySink::new(), "x"));
    assert_eq!(none, "x was never emitted; all: none");
}

#[test]
fn a_recording_collector_flushes_to_tell_and_goes_by_its_clock() {
    let recording = RecordingCollector::of(Builder::<Tick>::new().flush(FlushStrategy::Manual)).unwrap();
    (0..3).for_each(|number| _ = recording.collect(tick(number)));
    assert_eq!(numbers(&recording.events()), [0, 1, 2]);
    recording.clear();
    recording.collect(tick(3));
    assert_eq!(numbers(&recording.events()), [3]);
    recording.clock().advance(Duration::from_secs(7));
    assert_eq!(recording.stats().uptime, Duration::from_secs(7));
    recording.stop().unwrap();
    assert_eq!(recording.collect(tick(4)), forebay::Outcome::Stopped);
    assert_eq!(numbers(&recording.events()), [3], "of a stopped one, too");
    law(&recording, 5);
}

#[test]
fn a_scripted_sink_does_what_its_script_says() {
    hush();
    let (gate, letters) = (Gate::closed(), DeadLetters::new(10));
    let acts = [Act::Fail, Act::FailForGood, Act::FailFor(1), Act::Panic, Act::Wait(gate.clone())];
    let sink = ScriptedSink::new("disk", acts);
    let other = ScriptedSink::new("other", [Act::Fail, Act::Fail, Act::Take]);
    let collector = Builder::<Tick>::new()
        .flush(FlushStrategy::Manual)
        .sink(sink.clone())
        .sink(other.clone().retry(RetryPolicy::fixed(Duration::ZERO, 1)).dead_letters(&letters))
        .start()
        .unwrap();
    for number in 0..4 {
        collector.collect(tick(number * 2));
        collector.collect(tick(number * 2 + 1));
        let _ = collector.flush().unwrap();
    }
    let stats = law(&collector, 8);
    assert_eq!((stats.sink("disk").unwrap().failed, stats.sink("disk").unwrap().delivered), (7, 1));
    assert_eq!((sink.calls(), sink.taken().len()), (4, 0), "what a part delivers is not reported");
    assert_eq!((letters.len(), other.calls(), other.taken().len()), (2, 5, 6));
    collector.collect(tick(8));
    std::thread::scope(|scope| {
        let flush = scope.spawn(|| collector.flush().map(drop).unwrap());
        assert!(gate.await_arrivals(1));
        assert!(sink.taken().is_empty());
        gate.open();
        flush.join().unwrap();
    });
    assert_eq!(numbers(&sink.taken()), [8]);
    sink.then([Act::Fail]);
    collector.collect(tick(9));
    collector.collect(tick(10));
    let _ = collector.flush().unwrap();
    assert_eq!((sink.calls(), numbers(&sink.taken())), (6, vec![8]));
    collector.stop().unwrap();
    law(&collector, 11);
}

#[test]
fn a_pattern_that_no_name_can_fit_is_an_error_also_where_nothing_is_expected() {
    hush();
    let memory = std::panic::AssertUnwindSafe(MemorySink::new());
    for (pattern, why) in [
        ("training.{failed", "pattern \"training.{failed\": a { is not closed"),
        ("training.[ab", "pattern \"training.[ab\": a [ is not closed"),
    ] {
        assert_eq!(said(|| assert_emitted!(*memory, pattern, times = 0)), why);
        assert_eq!(said(|| assert_emitted!(*memory, pattern)), why);
    }
    assert_emitted!(*memory, "training.{failed,preempted}", times = 0);
}

#[test]
fn what_remembers_may_be_asked_through_a_reference() {
    fn failed(of: &impl forebay::testing::Emitted) -> usize {
        of.emitted().iter().filter(|record| record.name() == "training.failed").count()
    }
    let bus = Arc::new(MockBus::new().unwrap());
    bus.emit("training.failed", ()).unwrap();
    assert_emitted!(bus, "training.failed", times = 1);
    assert_emitted!(&bus, "training.failed");
    assert_eq!((failed(&bus), failed(&&*bus)), (1, 1));
    bus.stop().unwrap().stats.check_law(1).unwrap();
}

/// Runs the component of the document: it says when it begins and when it is done.
fn do_something(bus: &Bus) -> Result<(), forebay_bus::EmitError> {
    bus.emit("component.started", ())?;
    bus.emit("component.completed", ()).map(drop)
}

#[test]
fn a_mock_bus_remembers_what_a_component_emits() {
    use forebay::testing::Emitted;
    use forebay_bus::testing::MockBus;
    let bus = MockBus::new().unwrap();
    do_something(&bus).unwrap();
    let names: Vec<String> = bus.emitted().iter().map(|event| event.name().to_owned()).collect();
    assert_eq!(names, ["component.started", "component.completed"]);
    bus.stop().unwrap().stats.check_law(2).unwrap();
}
