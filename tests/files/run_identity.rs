//! A training run has one identity, in every file and report: its id, its name and its generation.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::support::{self, hush, law, until};
use forebay::run::{RunEnd, RunIdentity, RunStatus, TrainingRun};
use forebay::sink::{JsonLinesSink, SqliteSink, from_fn};
use forebay::{Batch, Builder, Collector, Event, Fields, Record};
use forebay_history::{EventQuery, History, JsonLinesHistory, SqliteHistory, runs};
use rusqlite::Connection;
use serde_json::Value as Json;

const NO_FIELDS: [(&str, f64); 0] = [];

fn lines(path: &Path) -> Vec<Json> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn rows(path: &Path, sql: &str) -> Vec<Vec<rusqlite::types::Value>> {
    let database = Connection::open(path).unwrap();
    let mut statement = database.prepare(sql).unwrap();
    let columns = statement.column_count();
    let row = |row: &rusqlite::Row<'_>| (0..columns).map(|column| row.get(column)).collect();
    statement.query_map([], row).unwrap().map(Result::unwrap).collect()
}

/// Returns the rows as text, with `-` for NULL.
#[track_caller]
fn table(path: &Path, sql: &str) -> Vec<String> {
    use rusqlite::types::Value as Cell;
    let cell = |cell: Cell| match cell {
        Cell::Null => "-".to_owned(),
        Cell::Integer(number) => number.to_string(),
        Cell::Real(number) => number.to_string(),
        Cell::Text(text) => text,
        Cell::Blob(_) => "blob".to_owned(),
    };
    let line = |row: Vec<Cell>| row.into_iter().map(cell).collect::<Vec<_>>().join(" ");
    rows(path, sql).into_iter().map(line).collect()
}

#[test]
fn every_file_and_report_tells_the_same_identity_of_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let (path, database) = (folder.path().join("events.jsonl"), folder.path().join("events.db"));
    let reported = Arc::new(Mutex::new(Vec::<Option<RunIdentity>>::new()));
    let seen = Arc::clone(&reported);
    let collector = Collector::builder()
        .session_id("session")
        .sink(JsonLinesSink::create(&path).unwrap())
        .sink(SqliteSink::create(&database).unwrap())
        .sink(from_fn("seen", move |batch: &Batch| {
            let mut seen = seen.lock().unwrap();
            if seen.last() != Some(&batch.run().cloned()) {
                seen.push(batch.run().cloned());
            }
            Ok(())
        }))
        .start()
        .unwrap();
    let loss = |step| _ = collector.collect(Record::scalar("loss", 0.5).with_step(step));
    loss(0);
    assert_eq!(collector.current_run(), None);
    let begin = || TrainingRun::builder().run_id("7").name("digits").model_type("mlp").config([("lr", 0.1)]);
    let run = begin().start(&collector).unwrap();
    assert_eq!((run.run_id(), run.name(), run.generation()), ("7", Some("digits"), 1));
    assert_eq!(collector.current_run().as_deref(), Some(run.identity()));
    loss(1);
    run.preempted("SIGTERM").unwrap();
    let earlier = runs(&JsonLinesHistory::new(&path)).unwrap().pop().unwrap();
    assert_eq!(earlier.name.as_deref(), Some("digits"));
    let run = TrainingRun::builder().resume(&earlier, 1).start(&collector).unwrap();
    loss(1);
    run.failed("the loss is NaN").unwrap();
    let run = TrainingRun::builder().run_id("8").start(&collector).unwrap();
    loss(2);
    run.completed(NO_FIELDS).unwrap();
    let run = TrainingRun::builder().run_id("9").start(&collector).unwrap();
    loss(3);
    let report = collector.stop().unwrap();
    drop(run);
    let last = report.run.clone().unwrap();
    assert_eq!((report.run_id(), &*last.run_id, last.name, last.generation), ("9", "9", None, 1));
    assert_eq!(report.session_id, "session");

    // Every line, so that a reader can join on it.
    let of = |line: &Json| (line["run_id"].as_str().unwrap_or("-").to_owned(), line["generation"].as_u64());
    let lines = lines(&path);
    let losses: Vec<_> = lines.iter().filter(|line| line["name"] == "loss").map(of).collect();
    let expected = [("-", None), ("7", Some(1)), ("7", Some(2)), ("8", Some(1)), ("9", Some(1))];
    let expected = expected.map(|(id, generation)| (id.to_owned(), generation));
    assert_eq!(losses, expected);
    let begins = lines.iter().filter(|line| line["name"] == "training.started");
    let begins: Vec<_> = begins.map(|line| (of(line), line["fields"].clone())).collect();
    assert_eq!(begins.len(), 4);
    for ((run_id, generation), fields) in &begins {
        assert_eq!(
            (fields["run_id"].as_str(), fields["generation"].as_u64()),
            (Some(&**run_id), *generation)
        );
    }
    assert_eq!((&begins[1].1["name"], &begins[2].1["name"]), (&"digits".into(), &Json::Null));

    // A view with a row for each, to which the events refer.
    let sql =
        "SELECT run_id, name, generation, status, reason, json_extract(config, '$.lr'), model_type, session,
        ended >= started AND last_seen >= ended FROM run_info ORDER BY id";
    let expected = [
        "session - 1 - - - - session -",
        "7 digits 1 preempted SIGTERM 0.1 mlp session 1",
        "7 digits 2 failed the loss is NaN - - session 1",
        "8 - 1 finished - - - session 1",
        "9 - 1 running - - - session -",
    ];
    assert_eq!(table(&database, sql), expected);
    let sql = "SELECT run_id, generation, step FROM scalars JOIN run_info ON run_info.id = scalars.run
        WHERE scalars.name = 'loss' ORDER BY run_info.id";
    assert_eq!(table(&database, sql), ["session 1 0", "7 1 1", "7 2 1", "8 1 2", "9 1 3"]);
    let sql = "SELECT count(*) FROM log JOIN run_info ON run_info.id = log.run WHERE run_info.session = log.session";
    assert_eq!(table(&database, sql), [lines.len().to_string()]);

    // Whoever reads the events finds the same runs.
    for found in [runs(&JsonLinesHistory::new(&path)), runs(&SqliteHistory::open(&database).unwrap())] {
        let found = found.unwrap();
        let ids: Vec<_> =
            found.iter().map(|run| (&*run.run_id, run.name.as_deref(), run.generation)).collect();
        assert_eq!(ids, [("7", Some("digits"), 1), ("7", Some("digits"), 2), ("8", None, 1), ("9", None, 1)]);
        assert_eq!(found[3].status(std::time::SystemTime::now()), RunStatus::Running);
    }
    let reported = reported.lock().unwrap();
    let ids: Vec<_> =
        reported.iter().map(|run| run.as_ref().map(|run| (&*run.run_id, run.generation))).collect();
    assert_eq!(ids, [None, Some(("7", 1)), Some(("7", 2)), Some(("8", 1)), Some(("9", 1))]);
}

#[test]
fn of_two_runs_that_overlap_each_ends_itself() {
    let folder = tempfile::tempdir().unwrap();
    let (path, database) = (folder.path().join("events.jsonl"), folder.path().join("events.db"));
    let collector = Collector::builder()
        .session_id("session")
        .sink(JsonLinesSink::create(&path).unwrap())
        .sink(SqliteSink::create(&database).unwrap())
        .start()
        .unwrap();
    let heartbeats = |run_id: &str| {
        let sql = format!(
            "SELECT count(*) FROM log WHERE name = 'training.heartbeat' AND json_extract(record, '$.fields.run_id') = '{run_id}'"
        );
        table(&database, &sql)[0].parse::<u64>().unwrap()
    };
    let begin = |run_id| {
        let run = TrainingRun::builder().run_id(run_id).model_type(run_id);
        run.heartbeat(std::time::Duration::from_millis(50)).start(&collector).unwrap()
    };
    let first = begin("first");
    let second = begin("second");
    let before = heartbeats("first");
    support::until("the first beats beside the second", || heartbeats("first") > before);
    second.failed("the loss is NaN").unwrap();
    first.completed(NO_FIELDS).unwrap();
    let mut run = begin("1");
    // The second begins before the first is dropped.
    for run_id in ["2", "3"] {
        run = begin(run_id);
    }
    run.completed(NO_FIELDS).unwrap();
    collector.stop().unwrap();
    let sql = "SELECT run_id, model_type, status, reason, ended >= started AND last_seen >= ended FROM run_info ORDER BY id";
    let dropped = "dropped before its end was reported";
    let expected = [
        "first first finished - 1".to_owned(),
        "second second failed the loss is NaN 1".to_owned(),
        format!("1 1 failed {dropped} 1"),
        format!("2 2 failed {dropped} 1"),
        "3 3 finished - 1".to_owned(),
    ];
    assert_eq!(table(&database, sql), expected);
    let failed = |error: &str| Some(RunEnd::Failed { error: error.to_owned() });
    for found in [runs(&JsonLinesHistory::new(&path)), runs(&SqliteHistory::open(&database).unwrap())] {
        let found: Vec<_> = found.unwrap().into_iter().map(|run| (run.run_id, run.end)).collect();
        let expected = [
            ("first", Some(RunEnd::Completed)),
            ("second", failed("the loss is NaN")),
            ("1", failed(dropped)),
            ("2", failed(dropped)),
            ("3", Some(RunEnd::Completed)),
        ];
        assert_eq!(found, expected.map(|(run_id, end)| (run_id.to_owned(), end)));
    }
    let current = collector.current_run().unwrap();
    assert_eq!(&*current.run_id, "3", "also a run that has ended");
    support::law(&collector, collector.stats().offered);
}

#[test]
fn an_end_made_by_hand_that_has_a_generation_of_its_own_ends_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let (path, database) = (folder.path().join("events.jsonl"), folder.path().join("events.db"));
    let collector = Collector::builder()
        .sink(JsonLinesSink::create(&path).unwrap())
        .sink(SqliteSink::create(&database).unwrap())
        .start()
        .unwrap();
    let run = TrainingRun::builder().run_id("7").start(&collector).unwrap();
    // Such as that of an evolutionary search.
    collector.collect(Record::new("training.completed").with_field("generation", 7));
    collector.stop().unwrap();
    drop(run);
    let sql = "SELECT run_id, generation, status, ended = last_seen FROM run_info";
    assert_eq!(table(&database, sql), ["7 1 finished 1"]);
    for found in [runs(&JsonLinesHistory::new(&path)), runs(&SqliteHistory::open(&database).unwrap())] {
        let found: Vec<_> = found.unwrap().into_iter().map(|run| (run.generation, run.end)).collect();
        assert_eq!(found, [(1, Some(RunEnd::Completed))]);
    }
    support::law(&collector, collector.stats().offered);
}

#[test]
fn a_collector_without_a_training_run_is_a_run_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (path, database) = (folder.path().join("events.jsonl"), folder.path().join("events.db"));
    let collector = Collector::builder()
        .sink(JsonLinesSink::create(&path).unwrap().with_origin())
        .sink(SqliteSink::create(&database).unwrap())
        .start()
        .unwrap();
    collector.collect(Record::new("alone"));
    let report = collector.stop().unwrap();
    assert_eq!((report.run_id(), &report.run), (collector.session_id(), &None));
    let line = &lines(&path)[0];
    assert_eq!(
        (&line["run_id"], line["origin"]["session_id"].as_str()),
        (&Json::Null, Some(collector.session_id()))
    );
    let expected = format!("{0} {0} 1 -", collector.session_id());
    assert_eq!(table(&database, "SELECT run_id, session, generation, status FROM run_info"), [expected]);
}

#[test]
fn lines_that_tell_their_origin_tell_their_run_as_well_also_those_of_the_next_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let sink = JsonLinesSink::create(&path).unwrap().with_origin().rotate_at(2_000);
    let collector = Collector::builder().batch_size(1).sink(sink).start().unwrap();
    let run = TrainingRun::builder().run_id("a \"quoted\" id").start(&collector).unwrap();
    for step in 0..30 {
        collector.collect(Record::scalar("loss", 0.5).with_step(step));
    }
    run.completed(NO_FIELDS).unwrap();
    collector.stop().unwrap();
    let files = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let lines: Vec<Json> =
        files.filter(|file| file.extension().unwrap() != "zst").flat_map(|file| lines(&file)).collect();
    assert!(lines.len() > 5, "{} lines", lines.len());
    for line in lines {
        assert_eq!((&line["run_id"], &line["generation"]), (&"a \"quoted\" id".into(), &1.into()), "{line}");
        assert_eq!(line["origin"]["session_id"], collector.session_id());
    }
    let history = JsonLinesHistory::new(&path);
    let losses = EventQuery::new().name("loss").run("a \"quoted\" id");
    assert_eq!(history.query(&losses).unwrap().len(), 30, "and they read back");
}

#[test]
fn the_view_tells_a_run_that_vanished_and_one_from_the_future() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("events.db");
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    for (run_id, begun) in [("gone", now - 100), ("alive", now - 20), ("ahead", now + 100)] {
        let sink = SqliteSink::create(&database).unwrap();
        let collector = Collector::builder().sink(sink).start().unwrap();
        // Made by hand, as another program may.
        let reported = |name: &'static str, seconds: u64| {
            let record = Record::new(name).with_field("run_id", run_id).with_field("heartbeat", 10.0);
            collector.collect(record.with_unix_nanos(seconds * 1_000_000_000));
        };
        reported("training.started", begun);
        reported("training.heartbeat", begun + 10);
        collector.stop().unwrap();
    }
    let sql = "SELECT status, last_seen - started FROM run_info ORDER BY id";
    assert_eq!(
        table(&database, sql),
        ["vanished", "running", "unclear"].map(|status| format!("{status} 10000000000"))
    );
}

#[test]
fn a_heartbeat_that_panics_is_not_the_last() {
    /// Counts how often it was to be made of a heartbeat, and cannot be made of the first.
    struct Beat;
    static BEATS: AtomicU64 = AtomicU64::new(0);
    impl Event for Beat {}
    impl From<Record> for Beat {
        fn from(record: Record) -> Self {
            let is_beat = record.name() == forebay::run::HEARTBEAT;
            assert!(!is_beat || BEATS.fetch_add(1, Ordering::SeqCst) > 0, "on purpose");
            Self
        }
    }
    hush();
    let collector = Builder::<Beat>::new().start().unwrap();
    let run =
        TrainingRun::builder().heartbeat(std::time::Duration::from_millis(1)).start(&collector).unwrap();
    until("another follows", || BEATS.load(Ordering::SeqCst) > 1);
    run.completed(Fields::new()).unwrap();
    let beats = BEATS.load(Ordering::SeqCst) - 1;
    collector.stop().unwrap();
    law(&collector, beats + 2);
}
