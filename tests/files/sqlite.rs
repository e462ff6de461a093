//! The SQLite sink, looked at with SQLite itself.

use std::path::Path;
use std::time::Duration;

use crate::support;
use forebay::event::Encoded;
use forebay::sink::{Sink, SinkError, SqliteSink};
use forebay::{Batch, Collector, Record};
use forebay_history::{EventQuery, History, SqliteHistory};
use rusqlite::Connection;

fn scalar(step: u64, value: f64) -> Record {
    Record::scalar("train.loss", value).with_step(step)
}

fn batch(steps: std::ops::Range<u64>) -> Batch {
    Batch::from_events(steps.map(|step| scalar(step, 0.1 * step as f64)).collect())
}

fn number(path: &Path, sql: &str) -> i64 {
    Connection::open(path).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn a_run_can_be_asked_while_it_goes_on_and_the_schema_is_the_documented_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("runs/1/events.db");
    let collector = Collector::builder()
        .session_id("run-7")
        .batch_size(10)
        .sink(SqliteSink::create(&path).unwrap())
        .start()
        .unwrap();
    for step in 0..100 {
        collector.collect(scalar(step, step as f64));
    }
    let _ = collector.flush().unwrap();
    // Still running: its connection is open.
    assert_eq!(number(&path, "SELECT count(*) FROM scalars WHERE name = 'train.loss'"), 100);
    assert_eq!(number(&path, "SELECT count(*) FROM log WHERE session = 'run-7' AND kind = 'scalar'"), 100);
    let reader = SqliteHistory::open(&path).unwrap();
    let last = reader.query(&EventQuery::new().name("train.*").newest_first().limit(1)).unwrap();
    assert_eq!(last[0].step(), Some(99));
    collector.stop().unwrap();
    support::law(&collector, 100);
    assert_eq!(number(&path, "PRAGMA user_version"), 3);
    assert_eq!(number(&path, "PRAGMA application_id"), 0x666f_7265);
    let mode: String =
        Connection::open(&path).unwrap().query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
    // The queries that history asks go by an index.
    for (sql, index) in [
        ("SELECT * FROM events WHERE name IN (1, 2) AND time >= 5 AND time < 9", "events_by_time"),
        ("SELECT * FROM events WHERE name = 1 AND step >= 5", "events_by_step"),
        ("SELECT * FROM events WHERE correlation = 'x'", "events_by_correlation"),
    ] {
        let database = Connection::open(&path).unwrap();
        let plan: String =
            database.query_row(&format!("EXPLAIN QUERY PLAN {sql}"), [], |row| row.get(3)).unwrap();
        assert!(plan.contains(index), "{plan}");
    }
}

#[test]
fn a_database_is_continued_by_the_next_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    for session in ["first", "second", "first"] {
        let sink = SqliteSink::create(&path).unwrap();
        let collector = Collector::builder().session_id(session).sink(sink).start().unwrap();
        collector.collect(scalar(1, 0.5));
        collector.stop().unwrap();
        support::law(&collector, 1);
    }
    assert_eq!(number(&path, "SELECT count(*) FROM runs"), 2);
    assert_eq!(number(&path, "SELECT count(*) FROM names"), 1);
    assert_eq!(number(&path, "SELECT count(*) FROM log WHERE session = 'first'"), 2);
}

#[test]
fn another_process_that_holds_the_database_fails_a_batch_and_what_is_missing_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let mut sink = SqliteSink::create(&path).unwrap().busy_timeout(Duration::ZERO).unwrap();
    sink.write_batch(&batch(0..3)).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // A name that is new: its id must not outlive the failure.
    let fresh =
        |step| Batch::from_events(vec![Record::scalar("new", 1.0).with_step(step), scalar(step, 1.0)]);
    let error = sink.write_batch(&fresh(3)).unwrap_err();
    assert!(error.is_transient() && error.failed_events().is_none(), "{error}");
    assert!(error.to_string().starts_with("sink unavailable"), "{error}");
    other.execute_batch("ROLLBACK").unwrap();
    sink.write_batch(&fresh(4)).unwrap();
    let all = SqliteHistory::open(&path).unwrap().query(&EventQuery::new()).unwrap();
    let reported: Vec<(String, Option<u64>)> =
        all.iter().map(|record| (record.name().to_owned(), record.step())).collect();
    let of = |name: &str, step| (name.to_owned(), step);
    assert_eq!(reported[3..], [of("forebay.gap", None), of("new", Some(4)), of("train.loss", Some(4))]);
    assert_eq!(all[3].value().as_i64(), Some(2));
}

#[test]
fn a_batch_that_is_tried_again_is_missing_once_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let mut sink = SqliteSink::create(&path).unwrap().busy_timeout(Duration::ZERO).unwrap();
    let other = Connection::open(&path).unwrap();
    let (first, second) = (batch(0..2), batch(2..5));
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for again in [&first, &first, &second, &second] {
        assert!(sink.write_batch(again).is_err());
    }
    other.execute_batch("ROLLBACK").unwrap();
    sink.write_batch(&second).unwrap();
    assert_eq!(
        number(&path, "SELECT value FROM log WHERE name = 'forebay.gap'"),
        2,
        "those of the first alone"
    );
    assert_eq!(number(&path, "SELECT count(*) FROM scalars"), 3);
}

#[test]
fn values_nested_too_deep_to_be_read_back_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let mut sink = SqliteSink::create(&path).unwrap();
    let nested =
        |depth| (0..depth).fold(forebay::Value::from(1), |value, _| forebay::Value::from(vec![value]));
    let records = vec![Record::with_value("deep", nested(100)), Record::with_value("deeper", nested(101))];
    let error = sink.write_batch(&Batch::from_events(records)).unwrap_err();
    assert_eq!(error.failed_events(), Some(1));
    let stored = SqliteHistory::open(&path).unwrap().query(&EventQuery::new()).unwrap();
    assert_eq!(stored.len(), 1, "and what is stored reads back");
}

#[test]
fn steps_of_every_size_sub_runs_and_encoded_messages_are_stored_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let sink = SqliteSink::create(folder.path().join("events.db")).unwrap();
    let path = sink.path().to_owned();
    let collector = Collector::builder().sink(sink).start().unwrap();
    let steps = [i64::MIN + 1, -1, 0, i64::MAX];
    for step in steps {
        collector.collect(Record::scalar("a", 0.5).with_signed_step(step));
    }
    let encoded = Record::with_value("b", Encoded::Summary(Box::new([10, 0]))).with_sub_run("fold/1");
    collector.collect(encoded.clone());
    collector.stop().unwrap();
    support::law(&collector, 5);
    assert_eq!(number(&path, "SELECT count(*) FROM scalars WHERE step < 0"), 2);
    assert_eq!(
        number(&path, "SELECT count(*) FROM log WHERE json_extract(record, '$.sub_run') = 'fold/1'"),
        1
    );
    let history = SqliteHistory::open(&path).unwrap();
    let stored = history.query(&EventQuery::new()).unwrap();
    let read: Vec<Option<i64>> = stored.iter().map(Record::signed_step).collect();
    assert_eq!(read, [Some(steps[0]), Some(-1), Some(0), Some(i64::MAX), None]);
    assert_eq!(stored[4], encoded);
    assert_eq!(history.query(&EventQuery::new().steps(..)).unwrap().len(), 2, "those from 0 on");
}

#[track_caller]
fn refused(path: &Path) -> SinkError {
    SqliteSink::create(path).map(|_| ()).unwrap_err()
}

#[test]
fn what_is_not_a_database_of_ours_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let newer = folder.path().join("newer.db");
    drop(SqliteSink::create(&newer).unwrap());
    Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = refused(&newer);
    assert!(!error.is_transient());
    assert_eq!(
        error.to_string(),
        format!(
            "sink unavailable: cannot open {}: the database has version 99, this program knows versions up to 3",
            newer.display()
        )
    );

    let foreign = folder.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    let error = refused(&foreign);
    let why = "the database holds tables of something else";
    assert_eq!(error.to_string(), format!("sink unavailable: cannot open {}: {why}", foreign.display()));
    assert_eq!(number(&foreign, "SELECT count(*) FROM sqlite_schema"), 1);
    let mode: String =
        Connection::open(&foreign).unwrap().query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "delete", "its mode is its own");
    assert!(SqliteHistory::open(&foreign).is_err());

    let text = folder.path().join("text.db");
    std::fs::write(&text, "this is no database, however long it may be; ".repeat(100)).unwrap();
    assert!(!refused(&text).is_transient());
    assert!(std::fs::read_to_string(&text).unwrap().starts_with("this is no database"));

    assert!(!refused(folder.path()).is_transient(), "a folder");
}

#[test]
fn two_thousand_runs_in_one_database_can_be_asked_for_by_generation() {
    use forebay_history::{EventQuery, History, SqliteHistory};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let mut sink = SqliteSink::create(&path).unwrap();
    let begin = |run: usize| Record::new("training.started").with_field("run_id", run.to_string());
    let events = (0..2000).flat_map(|run| [begin(run), Record::scalar("a", run as f64).with_step(0)]);
    sink.write_batch(&Batch::from_events(events.collect())).unwrap();
    let history = SqliteHistory::open(&path).unwrap();
    let count = |query: EventQuery| history.query(&query.name("a")).unwrap().len();
    assert_eq!(count(EventQuery::new().generation(1)), 2000);
    assert_eq!(count(EventQuery::new().current()), 2000);
    assert_eq!(count(EventQuery::new().run("1234").generation(1)), 1);
    assert_eq!(count(EventQuery::new().generation(2)), 0);
}

/// Makes a database what version 1 or 2 left.
fn put_back(database: &Connection, version: i64) {
    let columns = if version == 1 { "" } else { ", origin TEXT, host TEXT, pid INTEGER, rank INTEGER" };
    let kept = if version == 1 { "" } else { ", origin, host, pid, rank" };
    let sql = format!(
        "PRAGMA foreign_keys = OFF;
        DROP VIEW run_info; DROP VIEW scalars; DROP VIEW log;
        CREATE TABLE old (id INTEGER PRIMARY KEY, session TEXT NOT NULL UNIQUE, began INTEGER NOT NULL{columns});
        INSERT INTO old SELECT id, session, began{kept} FROM runs;
        DROP TABLE runs;
        ALTER TABLE old RENAME TO runs;
        CREATE VIEW scalars AS SELECT run, names.name AS name, step, time, value
            FROM events JOIN names ON names.id = events.name WHERE kind = 'scalar';
        CREATE VIEW log AS SELECT events.id AS id, session, names.name AS name
            FROM events JOIN names ON names.id = events.name JOIN runs ON runs.id = events.run;
        PRAGMA user_version = {version}"
    );
    database.execute_batch(&sql).unwrap();
}

#[test]
fn runs_of_a_database_of_version_2_get_the_identity_that_their_begins_tell() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let session = |session: &str, begin: Option<Record>| {
        let sink = SqliteSink::create(&path).unwrap();
        let collector = Collector::builder().session_id(session).host("node-3").sink(sink).start().unwrap();
        begin.into_iter().for_each(|begin| _ = collector.collect(begin));
        collector.collect(scalar(1, 0.5));
        collector.stop().unwrap();
    };
    let begin = Record::new("training.started").with_field("run_id", "digits").with_field("generation", 2);
    session("first", Some(begin));
    session("second", None);
    let old = Connection::open(&path).unwrap();
    put_back(&old, 2);
    drop(old);
    session("third", None);
    let database = Connection::open(&path).unwrap();
    let mut found = database
        .prepare(
            "SELECT run_id || ' ' || generation || ' ' || session || ' ' || host || ' ' || count(*)
            FROM run_info JOIN scalars ON scalars.run = run_info.id GROUP BY run_info.id ORDER BY run_info.id",
        )
        .unwrap();
    let found: Vec<String> = found.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let expected = ["digits 2 first node-3 1", "second 1 second node-3 1", "third 1 third node-3 1"];
    assert_eq!(found, expected);
    assert_eq!(number(&path, "PRAGMA user_version"), 3);
}

#[test]
fn what_users_have_added_to_an_old_database_stays_and_works() {
    for version in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.db");
        let run = |session: &str| {
            let sink = SqliteSink::create(&path).unwrap();
            let collector = Collector::builder().session_id(session).sink(sink).start().unwrap();
            collector.collect(scalar(1, 0.5));
            collector.stop().unwrap();
            support::law(&collector, 1);
        };
        run("first");
        let old = Connection::open(&path).unwrap();
        put_back(&old, version);
        old.execute_batch(
            "CREATE TABLE seen (session TEXT);
            CREATE VIEW losses AS SELECT step, value FROM scalars WHERE name = 'train.loss';
            CREATE VIEW named AS SELECT id, session, name FROM log;
            CREATE VIEW sessions AS SELECT runs.id, session, count(*) AS events
                FROM runs JOIN events ON events.run = runs.id GROUP BY runs.id;
            CREATE TRIGGER on_event AFTER INSERT ON events BEGIN
                INSERT INTO seen SELECT session FROM runs WHERE id = new.run;
            END;
            CREATE TRIGGER on_run AFTER INSERT ON runs BEGIN
                INSERT INTO seen VALUES ('run ' || new.session);
            END;
            CREATE TRIGGER \"no \"\"change\" BEFORE UPDATE ON events BEGIN
                SELECT raise(ABORT, 'events are not changed');
            END;
            -- Triggers have names of their own.
            CREATE TRIGGER seen AFTER INSERT ON names BEGIN
                INSERT INTO seen VALUES ('name ' || new.name);
            END;
            CREATE VIEW broken AS SELECT * FROM gone;
            CREATE INDEX runs_by_time ON runs (began);",
        )
        .unwrap();
        drop(old);
        run("second");
        run("third");
        let database = Connection::open(&path).unwrap();
        let triggers = "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND name = 'seen'";
        assert_eq!(number(&path, triggers), 1, "a trigger with the name of a table, from version {version}");
        let mut seen = database.prepare("SELECT session FROM seen").unwrap();
        let seen: Vec<String> = seen.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        assert_eq!(seen, ["run second", "second", "run third", "third"], "from version {version}");
        for sql in
            ["SELECT count(*) FROM losses", "SELECT count(*) FROM named", "SELECT sum(events) FROM sessions"]
        {
            assert_eq!(number(&path, sql), 3, "{sql}, from version {version}");
        }
        assert_eq!(number(&path, "SELECT count(*) FROM sqlite_schema WHERE name = 'runs_by_time'"), 1);
        let changed = database.execute("UPDATE events SET step = 2", []).unwrap_err();
        assert!(changed.to_string().contains("events are not changed"), "{changed}");
    }
}

#[test]
fn an_old_database_with_a_run_info_of_the_user_is_refused_until_that_is_renamed() {
    for (kind, name, what) in [
        ("table", "Run_Info", "CREATE TABLE Run_Info (note TEXT)"),
        ("view", "run_info", "CREATE VIEW run_info AS SELECT id FROM runs"),
        ("index", "run_info", "CREATE INDEX run_info ON runs (began)"),
    ] {
        for version in [1, 2] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("events.db");
            SqliteSink::create(&path).unwrap().write_batch(&batch(0..3)).unwrap();
            let old = Connection::open(&path).unwrap();
            put_back(&old, version);
            // A trigger may have the name of a view.
            let trigger = "CREATE TRIGGER run_info AFTER INSERT ON events BEGIN SELECT 1; END";
            old.execute_batch(&format!("{what}; {trigger}")).unwrap();
            drop(old);
            let error = refused(&path);
            assert!(!error.is_transient());
            assert_eq!(
                error.to_string(),
                format!(
                    "sink unavailable: cannot open {}: the database has a {kind} named \"{name}\", which version 3 needs \
                    for a view: rename the {kind}",
                    path.display()
                )
            );
            assert_eq!(number(&path, "PRAGMA user_version"), version);
            assert_eq!(number(&path, "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger'"), 1);
            let old = Connection::open(&path).unwrap();
            old.execute_batch(&match kind {
                "table" => "ALTER TABLE run_info RENAME TO notes".to_owned(),
                // SQLite renames only tables.
                _ => format!("DROP {kind} run_info; {}", what.replace("run_info", "notes")),
            })
            .unwrap();
            drop(old);
            SqliteSink::create(&path).unwrap().write_batch(&batch(3..4)).unwrap();
            assert_eq!(
                number(&path, "SELECT count(*) FROM run_info JOIN scalars ON scalars.run = run_info.id"),
                4
            );
            assert_eq!(
                number(&path, "SELECT count(*) FROM sqlite_schema WHERE name IN ('notes', 'run_info')"),
                3
            );
        }
    }
}

#[test]
fn each_run_of_a_session_in_an_old_database_gets_a_row_and_its_events() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let begin = |run_id: &'static str| Record::new("training.started").with_field("run_id", run_id);
    let sessions = [
        vec![
            scalar(0, 0.5),
            begin("a"),
            scalar(1, 0.5),
            Record::new("training.completed"),
            begin("b"),
            scalar(2, 0.5),
            Record::new("training.failed").with_field("error", "the loss is NaN"),
            begin("c"),
            scalar(3, 0.5),
        ],
        vec![begin("b"), scalar(4, 0.5), Record::new("training.preempted").with_field("reason", "SIGTERM")],
        vec![scalar(5, 0.5)],
    ];
    for (number, records) in sessions.into_iter().enumerate() {
        let mut sink = SqliteSink::create(&path).unwrap();
        sink.write_batch(&Batch::from_events(records)).unwrap();
        drop(sink);
        // A batch that is made by hand is of the session "test".
        let database = Connection::open(&path).unwrap();
        let session = format!("UPDATE runs SET session = 'session-{number}' WHERE session = 'test'");
        database.execute_batch(&session).unwrap();
    }
    let old = Connection::open(&path).unwrap();
    put_back(&old, 2);
    // The migration changes events.
    let guard = "CREATE TRIGGER no_change BEFORE UPDATE ON events BEGIN SELECT raise(ABORT, 'no'); END";
    old.execute_batch(guard).unwrap();
    drop(old);
    drop(SqliteSink::create(&path).unwrap());
    let database = Connection::open(&path).unwrap();
    let mut found = database
        .prepare(
            "SELECT session || ' ' || run_id || ' ' || coalesce(status, '-') || ' ' || coalesce(reason, '-') || ' '
                || group_concat(step, ',')
            FROM run_info JOIN scalars ON scalars.run = run_info.id GROUP BY run_info.id ORDER BY min(step)",
        )
        .unwrap();
    let found: Vec<String> = found.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let expected = [
        "session-0 a finished - 0,1",
        "session-0 b failed the loss is NaN 2",
        "session-0 c running - 3",
        "session-1 b preempted SIGTERM 4",
        "session-2 session-2 - - 5",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_run_tells_where_it_was_and_a_database_of_version_1_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let run = |session: &str| {
        let sink = SqliteSink::create(&path).unwrap();
        let builder = Collector::builder().session_id(session).source("trainer").host("node-3").rank(5);
        let collector = builder.sink(sink).start().unwrap();
        collector.collect(scalar(1, 0.5));
        collector.stop().unwrap();
        support::law(&collector, 1);
    };
    run("first");
    let reported = |session: &str| -> (Option<String>, Option<String>, Option<i64>, Option<i64>) {
        let sql = "SELECT origin, host, pid, rank FROM runs WHERE session = ?1";
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
        Connection::open(&path).unwrap().query_row(sql, [session], row).unwrap()
    };
    let here = (Some("trainer".into()), Some("node-3".into()), Some(std::process::id().into()), Some(5));
    assert_eq!(reported("first"), here);
    // As version 1 left it.
    let old = Connection::open(&path).unwrap();
    put_back(&old, 1);
    drop(old);
    run("second");
    assert_eq!((reported("first"), reported("second")), ((None, None, None, None), here));
    assert_eq!(number(&path, "SELECT count(*) FROM scalars"), 2);
}
