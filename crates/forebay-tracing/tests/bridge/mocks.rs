//! What tracing's own mock of a layer sees, and what the layer beside it collects: the same events, in the same spans, with the same fields.
//!
//! The mock comes from the crate by which tracing tests its subscribers. It fails where tracing asks or says something else than it expects.
//! (It knows no `record` of a span, and no `follows_from`: `spans.rs` has those.)

use forebay::sink::MemorySink;
use forebay::{Collector, Priority, Record, Value};
use forebay_tracing::CollectorLayer;
use tracing::{Dispatch, Event, Level, Subscriber};
use tracing_mock::layer::{MockLayer, MockLayerBuilder};
use tracing_mock::{expect, layer};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::Context;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Layer, Registry, reload};

use crate::support::law;
use crate::{field, messages};

/// Runs `body` under both layers, and returns the records. Fails unless the mock has seen exactly what it expects.
#[track_caller]
fn beside(
    expected: MockLayerBuilder,
    subscriber: impl FnOnce(CollectorLayer, MockLayer, &Collector) -> Dispatch,
    body: impl FnOnce(),
) -> Vec<Record> {
    let memory = MemorySink::new();
    let collector = Collector::builder().sink(memory.clone()).start().unwrap();
    let (ours, guard) = forebay_tracing::layer(collector.clone());
    // All of one priority, so that they keep their order.
    let ours = [Level::ERROR, Level::DEBUG, Level::TRACE]
        .into_iter()
        .fold(ours, |ours, level| ours.priority(level, Priority::Normal));
    let (mock, handle) = expected.only().run_with_handle();
    tracing::dispatcher::with_default(&subscriber(ours, mock, &collector), body);
    handle.assert_finished();
    guard.stop();
    law(&collector, memory.len() as u64);
    memory.events()
}

fn both(ours: CollectorLayer, mock: MockLayer, _: &Collector) -> Dispatch {
    Registry::default().with(ours).with(mock).into()
}

fn said(message: &str) -> tracing_mock::event::ExpectedEvent {
    expect::event().with_fields(expect::msg(message))
}

#[test]
fn an_event_is_in_the_spans_that_the_mock_sees_it_in() {
    let (run, epoch) = (expect::span().named("run"), expect::span().named("epoch"));
    let expected = layer::mock()
        .event(said("before").in_scope([]))
        .new_span(run.clone().with_fields(expect::field("user").with_value(&"ada").only()))
        .enter(&run)
        .new_span(epoch.clone().with_ancestry(expect::has_contextual_parent(&run)))
        .enter(&epoch)
        .event(said("inside").in_scope([epoch.clone(), run.clone()]))
        .event(said("of run").in_scope([run.clone()]))
        .event(said("of none").in_scope([]))
        .exit(&epoch)
        .event(said("between").in_scope([run.clone()]))
        .exit(&run)
        .event(said("after").in_scope([]));
    let records = beside(expected, both, || {
        tracing::info!("before");
        let run = tracing::info_span!("run", user = "ada");
        let epoch = run.in_scope(|| {
            let epoch = tracing::info_span!("epoch", epoch = 3);
            epoch.in_scope(|| {
                tracing::info!("inside");
                tracing::info!(parent: &run, "of run");
                tracing::info!(parent: None, "of none");
            });
            tracing::info!("between");
            epoch
        });
        tracing::info!("after");
        // Not before: where the mock expects an event, it takes no span that ends.
        drop((epoch, run));
    });
    assert_eq!(messages(&records), ["before", "inside", "of run", "of none", "between", "after"]);
    let spans: Vec<_> = records.iter().map(|record| field(record, "span").as_str().unwrap_or("")).collect();
    assert_eq!(spans, ["", "epoch", "run", "", "run", ""]);
    let users: Vec<_> = records.iter().map(|record| field(record, "user").as_str().is_some()).collect();
    assert_eq!(users, [false, true, true, false, true, false]);
}

#[test]
fn fields_are_those_that_the_mock_sees() {
    let numbers = expect::field("int").with_value(&-3_i64).and(expect::field("float").with_value(&0.5));
    let flags = expect::field("yes").with_value(&true).and(expect::field("text").with_value(&"a b"));
    let message = expect::msg("all of them");
    let fields = numbers.and(expect::field("yes").with_value(&true));
    let fields = fields.and(expect::field("text").with_value(&"a b")).and(message).only();
    let expected = layer::mock()
        .event(expect::event().at_level(Level::WARN).with_target("a::b").with_fields(fields))
        .event(expect::event().with_fields(flags.only()))
        .event(
            expect::event()
                .named("named here")
                .with_fields(expect::field("debug").with_value(&tracing::field::debug([1, 2])).only()),
        );
    let records = beside(expected, both, || {
        tracing::warn!(target: "a::b", int = -3, float = 0.5, yes = true, text = "a b", "all of them");
        tracing::info!(yes = true, text = "a b");
        tracing::event!(name: "named here", Level::INFO, debug = ?[1, 2]);
    });
    let of = |record: &Record| -> Vec<(String, Value)> {
        let fields = record.value().as_fields().unwrap().iter();
        fields
            .filter(|(name, _)| **name != "level")
            .map(|(name, value)| (name.to_string(), value.clone()))
            .collect()
    };
    let pair = |name: &str, value: Value| (name.to_owned(), value);
    let pairs = [
        pair("message", "all of them".into()),
        pair("int", (-3).into()),
        pair("float", 0.5.into()),
        pair("yes", true.into()),
        pair("text", "a b".into()),
    ];
    assert_eq!((records[0].name(), field(&records[0], "level").as_str()), ("a.b", Some("WARN")));
    assert_eq!(of(&records[0]), pairs);
    assert_eq!(of(&records[1]), pairs[3..]);
    assert_eq!(of(&records[2]), [pair("debug", "[1, 2]".into())]);
    assert!(records[2].name().ends_with(".named here"), "{}", records[2].name());
}

fn some_of_each() {
    // Twice: what tracing has cached of a place at the first time holds for the second one.
    for _ in 0..2 {
        tracing::error!(target: "loud", "error");
        tracing::info!(target: "loud", "info");
        tracing::trace!(target: "loud", "trace");
        tracing::info!(target: "quiet", "hush");
        tracing::debug!(target: "other", "debug");
    }
}

#[test]
fn a_filter_lets_the_same_events_through_to_both() {
    for (filter, wanted) in [
        ("info", &["error", "info", "hush"][..]),
        ("loud=trace", &["error", "info", "trace"]),
        ("debug,quiet=off", &["error", "info", "debug"]),
        ("off", &[]),
    ] {
        let twice: Vec<&str> = wanted.iter().chain(wanted).copied().collect();
        let expected = || twice.iter().fold(layer::mock(), |mock, message| mock.event(said(message)));
        // One filter for each, and one for both.
        let each = |ours: CollectorLayer, mock: MockLayer, _: &Collector| {
            let ours = ours.with_filter(EnvFilter::new(filter));
            Registry::default().with(ours).with(mock.with_filter(EnvFilter::new(filter))).into()
        };
        assert_eq!(messages(&beside(expected(), each, some_of_each)), twice);
        let all = |ours: CollectorLayer, mock: MockLayer, _: &Collector| {
            Registry::default().with(EnvFilter::new(filter)).with(ours).with(mock).into()
        };
        assert_eq!(messages(&beside(expected(), all, some_of_each)), twice);
    }
}

#[test]
fn a_filter_of_one_keeps_nothing_from_the_other() {
    let all = ["error", "info", "trace", "hush", "debug"];
    let everything = || all.iter().chain(&all).fold(layer::mock(), |mock, message| mock.event(said(message)));
    let none_of_ours = |ours: CollectorLayer, mock: MockLayer, collector: &Collector| {
        collector.update_config(|config| config.gate.enabled = false).unwrap();
        let gate = forebay_tracing::gate(collector);
        Registry::default().with(ours.with_filter(gate)).with(mock.with_filter(LevelFilter::TRACE)).into()
    };
    assert!(beside(everything(), none_of_ours, some_of_each).is_empty());
    let none_of_theirs = |ours: CollectorLayer, mock: MockLayer, _: &Collector| {
        Registry::default().with(ours).with(mock.with_filter(LevelFilter::OFF)).into()
    };
    assert_eq!(messages(&beside(layer::mock(), none_of_theirs, some_of_each)), [all, all].concat());
}

/// Layer that disables some events for all layers, once their fields are known.
struct Disabling;

impl<S: Subscriber> Layer<S> for Disabling {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        *event.metadata().level() != Level::INFO
    }
}

#[test]
fn an_event_that_another_layer_disables_reaches_neither() {
    let expected = layer::mock().event(said("error")).event(said("error"));
    let subscriber = |ours: CollectorLayer, mock: MockLayer, _: &Collector| {
        Registry::default().with(ours).with(mock).with(Disabling).with(LevelFilter::INFO).into()
    };
    assert_eq!(messages(&beside(expected, subscriber, some_of_each)), ["error", "error"]);
}

#[test]
fn a_filter_that_is_reloaded_holds_for_both_from_then_on() {
    let expected = layer::mock().event(said("one")).event(said("three"));
    let (filter, handle) = reload::Layer::new(LevelFilter::INFO);
    let subscriber = |ours: CollectorLayer, mock: MockLayer, _: &Collector| {
        Registry::default().with(filter).with(ours).with(mock).into()
    };
    let log = |message| tracing::info!("{message}");
    let records = beside(expected, subscriber, || {
        log("one");
        handle.reload(LevelFilter::ERROR).unwrap();
        log("two");
        handle.reload(LevelFilter::TRACE).unwrap();
        log("three");
    });
    assert_eq!(messages(&records), ["one", "three"]);
}
