//! Tests of what need not be said of each event: the origin that every batch shows, and what is completed on the worker.

use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use crate::support::*;
use forebay::event::catalog::metrics::FeatureUsed;
use forebay::sink::{JsonLinesSink, MemorySink, from_fn};
use forebay::{Batch, Builder, Collector, FlushStrategy, Record, config::ConfigError};
use forebay_history::{EventQuery, History, JsonLinesHistory};

#[test]
fn every_batch_tells_where_its_events_come_from() {
    let memory = MemorySink::new();
    let collector = Collector::builder()
        .session_id("run 7")
        .source("trainer")
        .host("node-3")
        .rank(5)
        .flush(FlushStrategy::Size { events: 1 })
        .sink(memory.clone())
        .start()
        .unwrap();
    for step in 0..3 {
        collector.collect(Record::scalar("loss", 1.0).with_step(step));
        let _ = collector.flush().unwrap();
    }
    collector.stop().unwrap();
    assert_eq!(memory.batches().len(), 3);
    for batch in memory.batches() {
        let origin = batch.origin();
        assert_eq!(origin, collector.origin());
        assert_eq!((&*origin.session_id, origin.source.as_deref()), ("run 7", Some("trainer")));
        assert_eq!((&*origin.host, origin.rank), ("node-3", Some(5)));
        assert_eq!(origin.pid, std::process::id());
        assert_eq!(batch.session(), "run 7");
    }
    law(&collector, 3);
    let fixed = [
        collector.update_config(|config| config.source = None),
        collector.update_config(|config| config.host = None),
        collector.update_config(|config| config.rank = None),
    ];
    let fields = fixed.map(|refused| match refused {
        Err(ConfigError::Immutable { field }) => field,
        other => panic!("{other:?}"),
    });
    assert_eq!(fields, ["source", "host", "rank"]);
}

#[test]
fn without_settings_the_system_is_asked_and_sessions_differ() {
    let [one, two] = [(); 2].map(|()| Collector::builder().start().unwrap());
    assert!(!one.origin().host.is_empty());
    assert_eq!((&one.origin().source, one.origin().pid), (&None, std::process::id()));
    assert_ne!(one.origin().session_id, two.origin().session_id);
    assert_eq!(one.session_id(), one.origin().session_id);
    law(&one, 0);
}

#[test]
fn events_are_completed_on_the_worker_in_order_for_every_sink() {
    let (one, two) = (MemorySink::new(), MemorySink::new());
    let mut number = 0;
    let here = thread::current().id();
    let collector = ticks()
        .flush(HOURLY)
        .enrich(move |tick: &mut Tick, _| {
            assert_ne!(thread::current().id(), here);
            tick.number = number;
            number += 1;
        })
        .sink(one.clone().named("one"))
        .sink(two.clone().named("two"))
        .start()
        .unwrap();
    (0..10).for_each(|_| _ = collector.collect(tick(99)));
    collector.stop().unwrap();
    collector.start().unwrap();
    (0..10).for_each(|_| _ = collector.collect(tick(99)));
    collector.stop().unwrap();
    for memory in [one, two] {
        assert_eq!(numbers(&memory.events()), (0..20).collect::<Vec<_>>(), "it goes on after a stop");
    }
    assert_eq!(law(&collector, 20).enrich_panics, 0);
}

#[test]
fn what_panics_in_completing_is_counted_and_the_event_goes_on() {
    hush();
    let memory = MemorySink::new();
    let collector = ticks()
        .flush(HOURLY)
        .enrich(|tick: &mut Tick, _| match tick.number % 3 {
            0 => panic!("on purpose"),
            _ => tick.number += 100,
        })
        .sink(memory.clone())
        .start()
        .unwrap();
    (0..6).for_each(|number| _ = collector.collect(tick(number)));
    collector.stop().unwrap();
    assert_eq!(numbers(&memory.events()), [0, 101, 102, 3, 104, 105]);
    assert_eq!(law(&collector, 6).enrich_panics, 2);
}

#[test]
fn what_is_added_on_the_worker_is_not_given_back_to_the_byte_budget() {
    let (seen, handle) = (Arc::new(Mutex::new(Vec::new())), Arc::new(OnceLock::<Collector>::new()));
    let (reported, own) = (Arc::clone(&seen), Arc::clone(&handle));
    let watch = from_fn("watch", move |_: &Batch| {
        reported.lock().unwrap().push(own.get().unwrap().stats().pending_bytes);
        Ok(())
    });
    let collector = Collector::builder()
        .flush(FlushStrategy::Manual)
        .batch_size(1)
        .enrich(|record: &mut Record, _| *record = Record::text("larger", "x".repeat(5_000)))
        .sink(watch)
        .start()
        .unwrap();
    handle.set(collector.clone()).unwrap();
    collector.collect(Record::text("text", "x".repeat(1_000)));
    let one = collector.stats().pending_bytes;
    collector.collect(Record::text("text", "x".repeat(1_000)));
    collector.stop().unwrap();
    // The first was gone when the second was at hand, with what it had brought and not with what it had become.
    assert_eq!(*seen.lock().unwrap(), [2 * one, one]);
    assert_eq!(law(&collector, 2).pending_bytes, 0);
    let _ = collector.remove_sink("watch").unwrap();
}

#[test]
fn json_lines_show_the_origin_if_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let sink = JsonLinesSink::create(&path).unwrap().with_origin();
    let collector =
        Collector::builder().session_id("s").source("\"t\"").host("h").rank(0).sink(sink).start().unwrap();
    collector.collect(Record::scalar("loss", 0.5).with_session_id("own"));
    collector.collect(Record::new("empty"));
    collector.stop().unwrap();
    law(&collector, 2);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    let origin = serde_json::json!({"session_id": "s", "source": "\"t\"", "host": "h", "pid": std::process::id(), "rank": 0});
    assert!(lines.iter().all(|line| line["origin"] == origin), "{text}");
    assert_eq!((&lines[0]["session_id"], &lines[0]["scalar"]), (&"own".into(), &0.5.into()));
    let records = JsonLinesHistory::new(&path).query(&EventQuery::new()).unwrap();
    assert_eq!(records.len(), 2, "read as ever");
}

/// An object without fields, and an event that is none.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(untagged)]
enum Odd {
    Empty {},
    Number(u64),
}

impl forebay::Event for Odd {}

#[test]
fn lines_stay_json_whatever_the_events_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let sink = JsonLinesSink::create(&path).unwrap().with_origin();
    let collector = Builder::<Odd>::new().sink(sink).start().unwrap();
    collector.collect(Odd::Empty {});
    collector.collect(Odd::Number(7));
    collector.stop().unwrap();
    law(&collector, 2);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["origin"]["pid"], std::process::id());
    assert_eq!(lines[1], 7);
}

fn feature_used(feature: &str, action: &str) -> Record {
    FeatureUsed { feature: feature.to_owned(), action: action.to_owned(), success: true }.into()
}

#[test]
fn the_batch_of_an_event_tells_its_session() {
    let collector = Collector::builder().start().unwrap();
    let sink = MemorySink::new();
    collector.add_sink(sink.clone()).unwrap();
    // The event has no place for a session: its batch has, and so has all that is kept of it.
    collector.collect(feature_used("session", "start"));
    let _ = collector.flush().unwrap();
    assert_eq!(sink.batches()[0].origin().session_id, collector.session_id());
    collector.stop().unwrap();
    law(&collector, 1);
}
