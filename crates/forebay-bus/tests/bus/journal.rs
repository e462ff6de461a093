//! The journal of a bus.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forebay::sink::RetryPolicy;
use forebay::{Fields, ManualClock, Outcome, Record, Value};
use forebay_bus::{Bus, BusConfig, Delivery, EmitOptions, EventId, Handler, HandlerError};
use forebay_history::{EventQuery, JsonLinesReader};

/// Returns how many files there are after an event behind so many bytes that were there.
fn files_after(bytes: usize) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    std::fs::write(&path, "\n".repeat(bytes)).unwrap();
    let bus = Bus::builder().journal(&path).unwrap().inline().start().unwrap();
    bus.emit("train.loss", 0.5).unwrap();
    bus.stop().unwrap().stats.check_law(1).unwrap();
    std::fs::read_dir(folder.path()).unwrap().count()
}

#[test]
fn a_journal_is_closed_at_100_mib_by_default() {
    const MOST: usize = 100 << 20;
    assert_eq!(files_after(MOST - 1_000), 1);
    assert_eq!(files_after(MOST - 1), 2);
}

/// Emits three events into a journal; their ids as `emit` reported them, as the handler saw them, and as the journal has them.
fn run_of(path: &std::path::Path, inline: bool, session: Option<&str>) -> [Vec<EventId>; 3] {
    let mut config = BusConfig::default();
    config.collector.session_id = session.map(Into::into);
    let mut builder = Bus::builder().config(config).journal(path).unwrap();
    if inline {
        builder = builder.inline();
    }
    let bus = builder.start().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let own = Arc::clone(&seen);
    bus.subscribe(
        Handler::new("a.b", move |event: &Delivery| own.lock().unwrap().push(event.id())).max_concurrent(1),
    )
    .unwrap()
    .keep();
    let reported: Vec<EventId> = (0..3).map(|number| bus.emit("a.b", number).unwrap().id).collect();
    bus.flush().unwrap();
    if session.is_none() {
        assert_eq!(reported[0].session(), bus.collector().session_id());
    }
    assert_eq!(reported.iter().map(|id| id.number()).collect::<Vec<_>>(), [1, 2, 3]);
    let kept = bus.query(&EventQuery::new()).unwrap();
    let kept =
        kept.iter().filter_map(Record::event_id).filter(|id| id.session() == reported[0].session()).collect();
    bus.stop().unwrap().stats.check_law(3).unwrap();
    let seen = seen.lock().unwrap().clone();
    [reported, seen, kept]
}

#[test]
fn ids_are_unique_across_runs_and_in_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let mut all = HashSet::new();
    // Also where runs have one session, as one that is resumed.
    for (inline, session) in [(false, None), (false, Some("run-7")), (false, Some("run-7")), (true, None)] {
        let [reported, seen, kept] = run_of(&path, inline, session);
        assert_eq!((&seen, &kept), (&reported, &reported));
        assert!(reported.is_sorted());
        all.extend(reported);
    }
    assert_eq!(all.len(), 4 * 3);
    // Another program reads them without us.
    let text = std::fs::read_to_string(&path).unwrap();
    let ids: HashSet<EventId> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| line["event_id"].as_str().unwrap().parse().unwrap())
        .collect();
    assert_eq!(ids, all);
}

#[test]
fn a_journal_without_ids_is_read_and_so_is_what_others_call_by_that_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let begin = r#"{"name":"a.b","time":"2026-11-21T08:00:00Z","integer":1"#;
    let ids = [
        "",
        r#","event_id":7"#,
        r#","event_id":"seven""#,
        r#","event_id":{"a":[1,null,{"b":true}]}"#,
        r#","event_id":null"#,
    ];
    let text: String = ids.iter().map(|id| format!("{begin}{id}}}\n")).collect();
    std::fs::write(&path, text).unwrap();
    let bus = Bus::builder().journal(&path).unwrap().start().unwrap();
    let receipt = bus.emit("a.b", 1).unwrap();
    bus.flush().unwrap();
    let kept = bus.query(&EventQuery::new()).unwrap();
    assert_eq!(kept.len(), ids.len() + 1);
    assert!(kept[..ids.len()].iter().all(|record| record.event_id().is_none()));
    assert_eq!(kept[ids.len()].event_id(), Some(receipt.id));
    bus.stop().unwrap().stats.check_law(1).unwrap();
}

#[test]
fn a_retry_a_dead_letter_and_its_redrive_have_the_id_of_the_event() {
    let (bus, clock) = {
        let clock = ManualClock::new();
        (Bus::builder().inline().manual_clock(&clock).start().unwrap(), clock)
    };
    let seen = Arc::new(Mutex::new(Vec::new()));
    let own = Arc::clone(&seen);
    let call = move |event: &Delivery| {
        let mut seen = own.lock().unwrap();
        seen.push(event.id());
        if seen.len() < 3 { Err(HandlerError::new("not yet")) } else { Ok(()) }
    };
    let second = Duration::from_secs(1);
    bus.subscribe(Handler::new("a.b", call).retry(RetryPolicy::fixed(second, 1))).unwrap().keep();
    let id = bus.emit("a.b", ()).unwrap().id;
    clock.advance(second * 2);
    bus.flush().unwrap();
    assert_eq!(bus.dead_letters().entries()[0].event.event_id(), Some(id));
    assert_eq!(bus.redrive(None), 1);
    bus.flush().unwrap();
    assert_eq!(*seen.lock().unwrap(), [id; 3]);
    // The history in memory has it as well; a record that goes through a bus again is another event.
    let kept = bus.query(&EventQuery::new()).unwrap();
    assert_eq!(kept[0].event_id(), Some(id));
    let again = bus.emit_record(kept[0].clone()).unwrap().id;
    assert_eq!((again.session(), again.number()), (id.session(), 2));
    bus.stop().unwrap().stats.check_law(2).unwrap();
}

#[cfg(feature = "sqlite")]
#[test]
fn a_database_keeps_the_id_of_an_event() {
    use forebay_history::{History, SqliteHistory};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let sink = forebay::sink::SqliteSink::create(&path).unwrap();
    let bus = Bus::builder().sink(sink).start().unwrap();
    let id = bus.emit("a.b", 1).unwrap().id;
    bus.stop().unwrap().stats.check_law(1).unwrap();
    let kept = SqliteHistory::open(&path).unwrap().query(&EventQuery::new()).unwrap();
    assert_eq!(kept[0].event_id(), Some(id));
}

const MAX_DEPTH: usize = Value::MAX_DEPTH;

fn deep(levels: usize) -> Value {
    (0..levels).fold(Value::from("leaf"), |inner, _| Fields::new().with("k", inner).into())
}

#[test]
fn a_bus_refuses_what_is_too_deep_and_its_journal_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    for inline in [true, false] {
        let path = folder.path().join(format!("{inline}.jsonl"));
        let builder = Bus::builder().journal(&path).unwrap();
        let bus = if inline { builder.inline() } else { builder }.start().unwrap();
        let outcomes = [MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, 1_000_000]
            .map(|levels| bus.emit("a.b", deep(levels)).unwrap().outcome);
        assert_eq!(outcomes, [Outcome::Queued, Outcome::Queued, Outcome::Oversize, Outcome::Oversize]);
        let options = EmitOptions::new().with_metadata("m", deep(MAX_DEPTH));
        assert_eq!(bus.emit_with("a.b", (), options).unwrap().outcome, Outcome::Oversize);
        let report = bus.stop().unwrap();
        report.stats.check_law(5).unwrap();
        assert_eq!(report.stats.events.oversize, 3);
        let mut reader = JsonLinesReader::open(&path).unwrap();
        let values: Vec<_> = reader.by_ref().map(|record| record.unwrap().into_value()).collect();
        assert_eq!(values.iter().map(Value::depth).collect::<Vec<_>>(), [MAX_DEPTH - 1, MAX_DEPTH]);
        assert_eq!(reader.skipped(), 0);
    }
}

#[test]
fn the_times_of_a_loader_reach_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let bus = Bus::builder().journal(folder.path().join("events.jsonl")).unwrap().start().unwrap();
    assert_eq!(forebay::run::timed([1, 2], bus.collector(), "loader").count(), 2);
    bus.flush().unwrap();
    let kept = bus.query(&EventQuery::new()).unwrap();
    assert_eq!(kept.iter().map(Record::name).collect::<Vec<_>>(), ["data.batch_loaded"; 2]);
    bus.stop().unwrap().stats.events.check_law(2).unwrap();
}
