//! What of a span is in the records of its events, and the record of a span that closes.

use forebay::Value;
use tracing::Level;
use tracing_subscriber::prelude::*;

use crate::{field, messages, records, records_by};

#[test]
fn an_event_has_the_fields_of_the_spans_around_it_and_the_inner_ones_win() {
    let records = records(|| {
        let _run = tracing::info_span!("run", user = "ada", step = 1, model = "small").entered();
        let _epoch = tracing::info_span!("epoch", epoch = 3, model = "large").entered();
        tracing::info!(loss = 0.5, "inside");
        tracing::info!(epoch = "its own", step = 9, "own fields win");
    });
    let inside = &records[0];
    assert_eq!((field(inside, "user").as_str(), field(inside, "epoch").as_i64()), (Some("ada"), Some(3)));
    assert_eq!((field(inside, "model").as_str(), inside.step()), (Some("large"), Some(1)));
    assert_eq!(field(inside, "span").as_str(), Some("epoch"));
    assert_eq!((field(&records[1], "epoch").as_str(), records[1].step()), (Some("its own"), Some(9)));
}

#[test]
fn what_is_recorded_later_is_there_from_then_on() {
    let records = records(|| {
        let span =
            tracing::info_span!("job", id = 1, state = tracing::field::Empty, step = tracing::field::Empty);
        span.in_scope(|| tracing::info!("before"));
        span.record("state", "done");
        span.record("step", 4);
        span.record("id", 2);
        span.in_scope(|| tracing::info!("after"));
    });
    assert_eq!((field(&records[0], "state"), records[0].step()), (&Value::Empty, None));
    assert_eq!((field(&records[1], "state").as_str(), records[1].step()), (Some("done"), Some(4)));
    assert_eq!(field(&records[1], "id").as_i64(), Some(2));
}

#[test]
fn an_event_belongs_to_the_parent_that_it_names_and_follows_from_none() {
    let records = records(|| {
        let other = tracing::info_span!("other", of = "other");
        let span = tracing::info_span!("current", of = "current");
        span.follows_from(&other);
        let _entered = span.enter();
        tracing::info!("current");
        tracing::info!(parent: &other, "other");
        tracing::info!(parent: None, "none");
    });
    assert_eq!(messages(&records), ["current", "other", "none"]);
    let of: Vec<_> = records.iter().map(|record| field(record, "of").as_str()).collect();
    assert_eq!(of, [Some("current"), Some("other"), None]);
    assert_eq!(field(&records[2], "span"), &Value::Empty);
}

#[test]
fn a_span_that_closes_is_a_record_of_its_duration_where_that_is_asked_for() {
    let body = || {
        let run = tracing::info_span!("run", user = "ada").entered();
        let span = tracing::debug_span!(target: "train::loop", "epoch", epoch = 3, step = 5);
        let copy = span.clone();
        span.in_scope(|| tracing::info!("inside"));
        drop(span);
        tracing::info!("not closed yet");
        drop(copy);
        drop(run);
    };
    let (closed, _) = records_by(|layer| layer.with_durations(), body);
    let names: Vec<_> = closed.iter().map(|record| record.name().to_owned()).collect();
    let mut sorted = names.clone();
    sorted.sort();
    assert_eq!(sorted, ["bridge.spans", "bridge.spans", "bridge.spans.run", "train.loop.epoch"]);
    let epoch = closed.iter().find(|record| record.name() == "train.loop.epoch").unwrap();
    let duration = field(epoch, "duration").as_f64().unwrap();
    assert!((0.0..60.0).contains(&duration), "{duration}");
    assert_eq!((field(epoch, "epoch").as_i64(), epoch.step()), (Some(3), Some(5)));
    assert_eq!((field(epoch, "user").as_str(), field(epoch, "level").as_str()), (Some("ada"), Some("DEBUG")));
    let (events, _) = records_by(|layer| layer, body);
    assert_eq!(events.len(), 2);
    let (alone, _) = records_by(|layer| layer.inherit_fields(false).with_durations(), body);
    assert_eq!(alone.len(), 4);
    let inside = alone.iter().find(|record| field(record, "message").as_str() == Some("inside")).unwrap();
    assert_eq!((field(inside, "epoch"), inside.step()), (&Value::Empty, None));
}

#[test]
fn a_span_that_is_made_before_the_start_has_its_fields_in_the_events_after_it() {
    let memory = forebay::sink::MemorySink::new();
    let collector = forebay::Collector::builder().sink(memory.clone()).build().unwrap();
    let (layer, guard) = forebay_tracing::layer(collector.clone());
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        let span = tracing::info_span!("run", user = "ada", rank = tracing::field::Empty).entered();
        span.record("rank", 1);
        collector.start().unwrap();
        tracing::info!("started");
    });
    assert_eq!(guard.stop().lost(), 0);
    crate::support::law(&collector, 1);
    let record = &memory.events()[0];
    assert_eq!((field(record, "user").as_str(), field(record, "rank").as_i64()), (Some("ada"), Some(1)));
}

#[test]
fn a_span_keeps_its_own_duration_and_has_none_of_those_around_it() {
    let body = || {
        let _outer = tracing::info_span!("outer", duration = "its own").entered();
        drop(tracing::info_span!("inner").entered());
    };
    let (closed, _) = records_by(|layer| layer.with_durations(), body);
    let of = |name: &str| closed.iter().find(|record| record.name() == name).unwrap();
    assert_eq!(field(of("bridge.spans.outer"), "duration").as_str(), Some("its own"));
    assert!(field(of("bridge.spans.inner"), "duration").as_f64().is_some());
}

#[test]
fn a_span_may_close_on_another_thread() {
    let (closed, _) = records_by(
        |layer| layer.with_durations(),
        || {
            let span = tracing::info_span!("moved", id = 7);
            let entered = span.enter();
            tracing::info!("here");
            drop(entered);
            let dispatch = tracing::dispatcher::get_default(Clone::clone);
            let there = move || tracing::dispatcher::with_default(&dispatch, || drop(span));
            std::thread::spawn(there).join().unwrap();
        },
    );
    let names: Vec<_> = closed.iter().map(|record| record.name()).collect();
    assert_eq!(names, ["bridge.spans", "bridge.spans.moved"]);
    assert_eq!(field(&closed[1], "id").as_i64(), Some(7));
    assert!(field(&closed[1], "duration").as_f64().is_some());
}

#[test]
fn two_layers_have_the_fields_of_a_span_both() {
    let outer = forebay::sink::MemorySink::new();
    let collector = forebay::Collector::builder().sink(outer.clone()).start().unwrap();
    let (second, guard) = forebay_tracing::layer(collector);
    let inner = records(|| {
        // The default of this thread has one layer; a registry with two is set within.
        let memory = forebay::sink::MemorySink::new();
        let collector = forebay::Collector::builder().sink(memory.clone()).start().unwrap();
        let (first, first_guard) = forebay_tracing::layer(collector);
        let both = tracing_subscriber::registry().with(first).with(second.with_durations());
        tracing::subscriber::with_default(both, || {
            let _span = tracing::span!(Level::INFO, "both", id = 7).entered();
            tracing::info!("once for each");
        });
        assert_eq!(first_guard.stop().lost(), 0);
        assert_eq!(
            memory.events().iter().map(|record| field(record, "id").as_i64()).collect::<Vec<_>>(),
            [Some(7)]
        );
    });
    assert!(inner.is_empty());
    assert_eq!(guard.stop().stats.processed, 2);
    assert!(outer.events().iter().all(|record| field(record, "id").as_i64() == Some(7)));
}
