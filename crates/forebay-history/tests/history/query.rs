//! Tests that every place that keeps records gives the answers of a plain filter to a query.

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support;
use forebay::sink::{JsonLinesSink, Sink};
use forebay::{Batch, Collector, Fields, Histogram, Priority, Record, Value};
use forebay_bus::Bus;
use forebay_history::{EventQuery, History, HistoryError, JsonLinesHistory, JsonLinesReader, Recent};
use proptest::prelude::*;

fn names() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => prop::sample::select(vec!["train.loss", "train.accuracy", "model.saved", "a.failed"]).prop_map(Into::into),
        1 => Just("\"quo'ted\"\n\0\u{1f984}[*".to_owned()),
        1 => Just(String::new()),
    ]
}

fn values() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<f64>().prop_map(Value::Scalar),
        Just(Value::Scalar(-0.0)),
        Just(Value::Scalar(f64::NAN)),
        any::<i64>().prop_map(Value::Integer),
        any::<bool>().prop_map(Value::Bool),
        ".{0,5}".prop_map(Value::from),
        Just(Value::Empty),
        (0..3i64).prop_map(|epoch| Value::from(Fields::new().with("epoch", epoch).with("note", "x"))),
        Just(Value::from(Histogram::from_values(&[1.0, 2.0, 3.5], 2))),
    ]
}

fn priorities() -> impl Strategy<Value = Priority> {
    prop::sample::select(vec![Priority::Critical, Priority::Normal, Priority::Low])
}

const EPOCH: u64 = 1_700_000_000_000_000_000;

fn times() -> impl Strategy<Value = u64> {
    (0..10u64).prop_map(|second| EPOCH + second * 1_000_000_000)
}

fn ids() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b"]).prop_map(Into::into)
}

pub(crate) fn records() -> impl Strategy<Value = Record> {
    let extras = (proptest::option::of(ids()), proptest::option::of(ids()), proptest::option::of(0..2i64));
    let step = proptest::option::of(prop_oneof![9 => -2..10i64, 1 => Just(i64::MAX)]);
    (names(), values(), step, times(), priorities(), extras).prop_map(
        |(name, value, step, time, priority, (source, correlation, metadata))| {
            let mut record = Record::with_value(name, value).with_unix_nanos(time).with_priority(priority);
            if let Some(step) = step {
                record = record.with_signed_step(step);
            }
            if let Some(source) = source {
                record = record.with_source(source);
            }
            if let Some(correlation) = correlation {
                record = record.with_correlation_id(correlation);
            }
            if let Some(value) = metadata {
                record = record.with_metadata("epoch", value);
            }
            record
        },
    )
}

/// Begins of two runs, new and resumed.
pub(crate) fn begins() -> impl Strategy<Value = Record> {
    let first_step = proptest::option::of(prop_oneof![9 => 0..10u64, 1 => Just(u64::MAX)]);
    (ids(), proptest::option::of(1..4u64), first_step, times()).prop_map(|(run, generation, step, time)| {
        let mut begin = Record::new("training.started").with_field("run_id", run).with_unix_nanos(time);
        if let Some(generation) = generation {
            begin = begin.with_field("generation", generation);
        }
        match step {
            Some(step) => begin.with_field("first_step", step),
            None => begin,
        }
    })
}

/// Returns whether the record at `place` is of the run and generation, and current, as the query says; by looking at all others.
fn is_of_its_generation(query: &EventQuery, records: &[Record], place: usize) -> bool {
    let of = |record: &Record, name| record.value().as_fields().unwrap().get(name).cloned();
    let begin = |record: &&Record| record.name() == "training.started";
    let own = records[..=place].iter().rfind(begin);
    let asked = format!("{query:?}");
    let after =
        |what: &str| asked.split(what).nth(1).map(|rest| rest.split([')', '"']).next().unwrap().to_owned());
    if let Some(run) = after("run_id: Some(\"") {
        let is_own = |own: &Record| of(own, "run_id").unwrap().as_str() == Some(&run);
        if !own.is_some_and(is_own) {
            return false;
        }
    }
    if let Some(one) = after("generation: Some(") {
        let is_own =
            |own: &Record| of(own, "generation").map_or(1, |own| own.as_i64().unwrap()).to_string() == one;
        if !own.is_some_and(is_own) {
            return false;
        }
    }
    let Some(step) = records[place].step().filter(|_| asked.contains("is_current: true")) else {
        return true;
    };
    // A later begin of the same run supersedes; for records without a begin, one of a run that had none before.
    let is_superseded = |(later, begin_of): (usize, &Record)| {
        let run = of(begin_of, "run_id");
        let is_same = match own {
            Some(own) => run == of(own, "run_id"),
            None => !records[..later].iter().filter(begin).any(|earlier| of(earlier, "run_id") == run),
        };
        is_same
            && of(begin_of, "first_step")
                .and_then(|first| first.as_i64())
                .is_some_and(|first| step as i64 >= first)
    };
    let later = records.iter().enumerate().skip(place + 1).filter(|(_, record)| begin(record));
    !later.into_iter().any(is_superseded)
}

pub(crate) fn queries() -> impl Strategy<Value = EventQuery> {
    let patterns =
        prop::sample::select(vec!["*", "train.*", "*.failed", "model.{saved,loaded}", "[*", "no such"]);
    let steps = prop_oneof![
        4 => (0..10u64, 0..4u64).prop_map(|(first, more)| first..first + more),
        1 => Just(0..u64::MAX),
        1 => Just(i64::MAX as u64 + 1..u64::MAX),
    ];
    let name = proptest::option::of(patterns);
    let times = (proptest::option::of(times()), proptest::option::of(times()));
    let of_extra = (proptest::option::of(ids()), proptest::option::of(ids()), proptest::option::of(0..3i64));
    let places = (any::<bool>(), proptest::option::of(1..4u64), proptest::option::of(ids()));
    let order = (proptest::option::of(0..6usize), any::<bool>(), places);
    let conditions = (name, times, proptest::option::of(steps), proptest::option::of(priorities()));
    (conditions, of_extra, order).prop_map(
        |(
            (name, (since, before), steps, priority),
            (source, correlation, epoch),
            (limit, is_newest_first, (is_current, generation, run)),
        )| {
            let at = |nanos| UNIX_EPOCH + Duration::from_nanos(nanos);
            let mut query = EventQuery::new();
            query = name.into_iter().fold(query, EventQuery::name);
            query = since.map(at).into_iter().fold(query, EventQuery::since);
            query = before.map(at).into_iter().fold(query, EventQuery::before);
            query = steps.into_iter().fold(query, |query, steps: Range<u64>| query.steps(steps));
            query = priority.into_iter().fold(query, EventQuery::priority);
            query = source.into_iter().fold(query, EventQuery::source);
            query = correlation.into_iter().fold(query, EventQuery::correlation);
            query = epoch.into_iter().fold(query, |query, epoch| query.contains("epoch", epoch));
            query = limit.into_iter().fold(query, EventQuery::limit);
            query = generation.into_iter().fold(query, EventQuery::generation);
            query = run.into_iter().fold(query, EventQuery::run);
            query = if is_current { query.current() } else { query };
            if is_newest_first { query.newest_first() } else { query }
        },
    )
}

/// Returns the records as text, so that NaN is equal to itself and 0 is not -0.
pub(crate) fn reported(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| serde_json::to_string(record).unwrap()).collect()
}

/// Every place that keeps records, with the same ones in it.
pub(crate) struct Places {
    lines: JsonLinesHistory,
    recent: Recent<1000>,
    #[cfg(feature = "sqlite")]
    database: forebay_history::SqliteHistory,
    _folder: tempfile::TempDir,
}

impl Places {
    /// Writes the records in batches of so many.
    pub(crate) fn new(records: &[Record], batch: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let mut lines = JsonLinesSink::create(&path).unwrap();
        let mut recent = Recent::<1000>::new();
        #[cfg(feature = "sqlite")]
        let mut database = forebay::sink::SqliteSink::create(folder.path().join("events.db")).unwrap();
        for batch in records.chunks(batch) {
            let batch = Batch::from_events(batch.to_vec());
            lines.write_batch(&batch).unwrap();
            recent.write_batch(&batch).unwrap();
            #[cfg(feature = "sqlite")]
            database.write_batch(&batch).unwrap();
        }
        Self {
            lines: JsonLinesHistory::open(&path).unwrap(),
            recent,
            #[cfg(feature = "sqlite")]
            database: forebay_history::SqliteHistory::open(database.path()).unwrap(),
            _folder: folder,
        }
    }

    /// Returns them, with their names, in the same order always.
    pub(crate) fn histories(&self) -> Vec<(&str, &dyn History)> {
        vec![
            ("JSON Lines", &self.lines),
            ("recent", &self.recent),
            #[cfg(feature = "sqlite")]
            ("SQLite", &self.database),
        ]
    }
}

/// Returns what a query asks of records, in its order, by looking at each and at all others.
pub(crate) fn expected(query: &EventQuery, records: &[Record]) -> Vec<Record> {
    let is_in = |(place, record): &(usize, &Record)| {
        query.matches(record) && is_of_its_generation(query, records, *place)
    };
    let mut expected: Vec<Record> =
        records.iter().enumerate().filter(is_in).map(|(_, record)| record.clone()).collect();
    if format!("{query:?}").contains("is_newest_first: true") {
        expected.reverse();
    }
    if let Some(limit) = format!("{query:?}").split("limit: Some(").nth(1) {
        expected.truncate(limit.split(')').next().unwrap().parse().unwrap());
    }
    expected
}

/// Asks all places.
fn ask_all(records: &[Record], batch: usize, queries: &[EventQuery]) -> Result<(), TestCaseError> {
    let places = Places::new(records, batch);
    for query in queries {
        let expected = reported(&expected(query, records));
        for (name, place) in places.histories() {
            prop_assert_eq!(reported(&place.query(query).unwrap()), &expected[..], "{}, {:?}", name, query);
            let one_by_one: Result<Vec<Record>, _> = place.iter(query).unwrap().collect();
            prop_assert_eq!(reported(&one_by_one.unwrap()), &expected[..], "{}, {:?}", name, query);
        }
        let all = records.iter().cloned().map(Ok::<_, HistoryError>);
        let selected: Result<Vec<Record>, _> = query.select(all).collect();
        prop_assert_eq!(reported(&selected.unwrap()), &expected[..], "select, {:?}", query);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 150, ..Default::default() })]

    #[test]
    fn all_places_answer_as_a_plain_filter_does(
        records in prop::collection::vec(prop_oneof![8 => records(), 1 => begins()], 0..60),
        batch in 1..20usize,
        queries in prop::collection::vec(queries(), 10),
    ) {
        ask_all(&records, batch, &queries)?;
    }
}

#[test]
fn ranges_of_every_kind_are_steps() {
    let inside =
        |query: EventQuery| (0..6).filter(|step| query.matches(&Record::new("x").with_step(*step))).collect();
    let steps: [Vec<u64>; 6] = [
        inside(EventQuery::new().steps(2..4)),
        inside(EventQuery::new().steps(2..=4)),
        inside(EventQuery::new().steps(..2)),
        inside(EventQuery::new().steps(4..)),
        inside(EventQuery::new().steps(..)),
        inside(EventQuery::new().steps(3..3)),
    ];
    assert_eq!(steps, [vec![2, 3], vec![2, 3, 4], vec![0, 1], vec![4, 5], vec![0, 1, 2, 3, 4, 5], vec![]]);
    assert!(!EventQuery::new().steps(..).matches(&Record::new("without")));
}

#[test]
fn what_belongs_together_is_found_by_its_id() {
    let mut recent = Recent::<10>::new();
    let record = |name: &'static str, id: &str| Record::new(name).with_correlation_id(id.to_owned());
    recent
        .write_batch(&Batch::from_events(vec![record("a", "1"), record("b", "2"), record("c", "1")]))
        .unwrap();
    let names: Vec<String> =
        recent.correlated("1").unwrap().iter().map(|record| record.name().to_owned()).collect();
    assert_eq!(names, ["a", "c"]);
}

#[test]
fn recent_keeps_the_last_and_no_more() {
    let mut recent = Recent::<3>::new();
    for batch in [0..2u64, 2..9, 9..10] {
        recent
            .write_batch(&Batch::from_events(batch.map(|step| Record::new("x").with_step(step)).collect()))
            .unwrap();
        assert!(recent.len() <= 3);
    }
    let steps: Vec<_> =
        recent.query(&EventQuery::new()).unwrap().iter().map(|record| record.step()).collect();
    assert_eq!(steps, [Some(7), Some(8), Some(9)]);
    let mut nothing = Recent::<0>::new();
    nothing.write_batch(&Batch::from_events(vec![Record::new("x")])).unwrap();
    assert!(nothing.is_empty());
}

#[test]
fn a_collector_and_a_bus_have_several_recents_by_name() {
    let (long, short) = (Recent::<100>::new(), Recent::<2>::new().named("latest"));
    let collector = Collector::builder().sink(long.clone()).sink(short.clone()).start().unwrap();
    (0..5).for_each(|step| assert!(collector.collect(Record::new("x").with_step(step)).is_queued()));
    collector.stop().unwrap();
    assert_eq!(collector.sinks(), ["recent", "latest"]);
    assert_eq!((long.len(), short.len()), (5, 2));
    support::law(&collector, 5);

    // A bus has one of its own.
    let own = Recent::<2>::new().named("latest");
    let bus = Bus::builder().sink(own.clone()).start().unwrap();
    (0..5).for_each(|number| assert!(bus.emit("a.b", number).unwrap().outcome.is_queued()));
    bus.flush().unwrap();
    assert_eq!(bus.query(&EventQuery::new()).unwrap().len(), 5);
    let values: Vec<_> = own.query(&EventQuery::new()).unwrap().into_iter().map(Record::into_value).collect();
    assert_eq!(values, [Value::from(3), Value::from(4)]);
    bus.stop().unwrap().stats.check_law(5).unwrap();
}

#[test]
fn a_torn_last_line_is_no_record_and_counted() {
    let whole = serde_json::to_string(&Record::new("a").with_time(SystemTime::now())).unwrap();
    // The second has no end: it may be whole, and may be the begin of a longer one.
    for (torn, expected) in [(&whole[..20], 1), (&whole[..], 1), ("", 0)] {
        let text = format!("{whole}\n{torn}");
        let mut reader = JsonLinesReader::new(text.as_bytes());
        let read: Vec<Record> = reader.by_ref().collect::<Result<_, _>>().unwrap();
        assert_eq!((read.len(), reader.skipped()), (1, expected));
    }
    let text = format!("{whole}\n{{\"na\n{whole}\n\n{whole}\n");
    let mut reader = JsonLinesReader::new(text.as_bytes());
    assert_eq!(reader.by_ref().count(), 3);
    assert_eq!(reader.skipped(), 1, "the line that was closed later");
}

#[test]
fn a_line_that_is_too_long_is_passed_over_and_counted() {
    let record = |name: &str| format!("{}\n", serde_json::to_string(&Record::new(name.to_owned())).unwrap());
    let (short, long) = (record("a"), record(&"b".repeat(100)));
    let text = format!("{short}{long}{short}{long}");
    for (longest, expected) in [(long.len(), 0), (long.len() - 1, 0), (long.len() - 2, 2), (short.len(), 2)] {
        let mut reader = JsonLinesReader::new(text.as_bytes()).max_line_bytes(longest as u64);
        assert_eq!(reader.by_ref().count() as u64, 4 - expected);
        assert_eq!(reader.skipped(), expected, "{longest}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let path = "no/such/file.jsonl";
    let queried = JsonLinesHistory::new(path).query(&EventQuery::new()).unwrap_err();
    for error in [queried, JsonLinesHistory::open(path).unwrap_err()] {
        assert_eq!(error.to_string(), "cannot read no/such/file.jsonl");
    }
}

/// A visit gives what a query answers, in parts where it is long, and ends where its caller says so.
#[cfg(feature = "sqlite")]
#[test]
fn a_visit_gives_what_a_query_answers_and_stops_when_it_is_told_to() {
    use std::ops::ControlFlow;

    use forebay::sink::SqliteSink;
    use forebay_history::SqliteHistory;

    let folder = tempfile::tempdir().unwrap();
    let (lines, database) = (folder.path().join("events.jsonl"), folder.path().join("events.db"));
    let collector = Collector::builder()
        .capacity(50_000)
        .sink(JsonLinesSink::create(&lines).unwrap())
        .sink(SqliteSink::create(&database).unwrap())
        .start()
        .unwrap();
    for step in 0..5_000 {
        let name = if step % 3 == 0 { "a" } else { "b" };
        collector.collect(Record::scalar(name, step as f64).with_step(step));
    }
    collector.stop().unwrap().stats.check_law(5_000).unwrap();
    let histories: [Box<dyn History>; 2] = [
        Box::new(JsonLinesHistory::open(&lines).unwrap()),
        Box::new(SqliteHistory::open(&database).unwrap()),
    ];
    for history in &histories {
        for query in [
            EventQuery::new(),
            EventQuery::new().name("b"),
            EventQuery::new().steps(100..4_900),
            EventQuery::new().name("b").limit(2_345),
            EventQuery::new().newest_first().limit(3_000),
            EventQuery::new().current(),
            EventQuery::new().limit(0),
        ] {
            let mut visited = Vec::new();
            history
                .visit(&query, &mut |record| {
                    visited.push(record.step());
                    ControlFlow::Continue(())
                })
                .unwrap();
            let asked: Vec<_> = history.query(&query).unwrap().iter().map(|record| record.step()).collect();
            assert_eq!(visited, asked, "{query:?}");
        }
        let mut count = 0;
        history
            .visit(&EventQuery::new(), &mut |_| {
                count += 1;
                if count < 7 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })
            .unwrap();
        assert_eq!(count, 7);
    }
}

/// What is current is given as it is read: what came since the query began is no part of the answer, and nothing is held.
#[test]
fn what_is_current_is_that_of_the_moment_when_it_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let mut sink = JsonLinesSink::create(&path).unwrap();
    let begin = |generation: i64, first_step: i64| {
        Record::new("training.started")
            .with_field("run_id", "a")
            .with_field("generation", generation)
            .with_field("first_step", first_step)
            .with_unix_nanos(generation as u64)
    };
    let steps = |steps: Range<u64>| steps.map(|step| Record::scalar("x", 0.5).with_step(step));
    let mut write = |records: Vec<Record>| sink.write_batch(&Batch::from_events(records)).unwrap();
    write([begin(1, 0)].into_iter().chain(steps(0..5)).chain([begin(2, 3)]).chain(steps(3..6)).collect());
    let history = JsonLinesHistory::open(&path).unwrap();
    let query = EventQuery::new().name("x").current();
    let mut answer = history.iter(&query).unwrap();
    let first = answer.next().unwrap().unwrap();
    // The next generation begins, while the answer is read.
    write([begin(3, 1)].into_iter().chain(steps(1..3)).collect());
    let rest: Vec<_> = answer.map(|record| record.unwrap().step().unwrap()).collect();
    assert_eq!((first.step(), rest), (Some(0), vec![1, 2, 3, 4, 5]));
    let steps: Vec<_> = history.query(&query).unwrap().iter().map(|record| record.step().unwrap()).collect();
    assert_eq!(steps, [0, 1, 2]);
    let newest = history.query(&EventQuery::new().name("x").current().newest_first().limit(2)).unwrap();
    assert_eq!(newest.iter().map(|record| record.step().unwrap()).collect::<Vec<_>>(), [2, 1]);
}

/// The oldest file may be removed between the two readings.
#[test]
fn what_is_current_is_known_though_the_first_begins_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let begin = |run: &str, generation: i64, step: i64| {
        let begin = Record::new("training.started").with_field("run_id", run.to_owned());
        begin.with_field("generation", generation).with_field("first_step", step).with_unix_nanos(1)
    };
    let lines = |records: &[Record]| -> String { reported(records).join("\n") + "\n" };
    let x = |step: u64| Record::scalar("x", 0.5).with_step(step);
    std::fs::write(folder.path().join("events.jsonl.000001"), lines(&[begin("a", 1, 0), x(0), x(1)]))
        .unwrap();
    std::fs::write(&path, lines(&[begin("b", 1, 0), x(5), x(6), begin("b", 2, 6), x(6)])).unwrap();
    let history = JsonLinesHistory::open(&path).unwrap();
    let query = EventQuery::new().name("x").current();
    let answer = history.iter(&query).unwrap();
    std::fs::remove_file(folder.path().join("events.jsonl.000001")).unwrap();
    let steps: Vec<_> = answer.map(|record| record.unwrap().step().unwrap()).collect();
    assert_eq!(steps, [5, 6]);
}

/// On a disk that is read-only, SQLite cannot make the file that readers and writers share. A link in its place, which SQLite does not follow,
/// stands for that: it cannot be made there either.
#[cfg(all(unix, feature = "sqlite"))]
#[test]
fn a_database_where_nothing_can_be_written_is_read_unless_its_log_has_more() {
    use forebay::sink::SqliteSink;
    use forebay_history::SqliteHistory;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let mut sink = SqliteSink::create(&path).unwrap();
    sink.write_batch(&Batch::from_events(vec![Record::scalar("loss", 0.5)])).unwrap();
    drop(sink);
    let beside = |end: &str| folder.path().join(format!("events.db{end}"));
    for end in ["-wal", "-shm"] {
        _ = std::fs::remove_file(beside(end));
    }
    std::os::unix::fs::symlink(folder.path().join("nowhere"), beside("-shm")).unwrap();
    let count = || SqliteHistory::open(&path)?.query(&EventQuery::new()).map(|records| records.len());
    assert_eq!(count().unwrap(), 1);
    // An empty log, which a reader may leave, has nothing more.
    std::fs::write(beside("-wal"), []).unwrap();
    assert_eq!(count().unwrap(), 1);
    std::fs::write(beside("-wal"), [0; 32]).unwrap();
    assert!(count().is_err());
}
