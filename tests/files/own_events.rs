//! Events of the user's own type that have a record inside reach every sink.

use crate::support::{hush, law};
use crate::tensorboard::scalars;
use forebay::sink::{
    ConsoleSink, JsonLinesSink, MemorySink, Sink, SinkError, SinkExt, SqliteSink, TensorBoardSink,
};
use forebay::{Batch, Builder, Collector, Event, Priority, Record};
use forebay_history::{EventQuery, History, JsonLinesHistory, Recent, SqliteHistory};
use serde::{Serialize, Serializer};

/// A record, and what the program keeps beside it.
#[derive(Debug, Clone)]
struct Sample {
    record: Record,
    worker: u32,
}

impl Sample {
    fn new(step: u64) -> Self {
        Self {
            record: Record::scalar("train.loss", step as f64 / 4.0).with_step(step),
            worker: step as u32 % 2,
        }
    }

    /// Makes an event without a record: to look for it panics.
    fn bare(step: u64) -> Self {
        Self { worker: u32::MAX, ..Self::new(step) }
    }
}

impl Event for Sample {
    fn name(&self) -> &str {
        Event::name(&self.record)
    }

    fn priority(&self) -> Priority {
        self.record.priority()
    }

    fn size_hint(&self) -> usize {
        size_of::<Self>() - size_of::<Record>() + self.record.size_hint()
    }
}

impl AsRef<Record> for Sample {
    fn as_ref(&self) -> &Record {
        assert!(self.worker != u32::MAX, "no record");
        &self.record
    }
}

impl Serialize for Sample {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let record: &Record = self.as_ref();
        record.serialize(serializer)
    }
}

impl std::fmt::Display for Sample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of worker {}", self.record, self.worker)
    }
}

#[test]
fn a_users_event_with_a_record_inside_reaches_all_sinks() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let (jsonl, plain, sqlite, board) = (
        folder.path().join("events.jsonl"),
        folder.path().join("plain.jsonl"),
        folder.path().join("events.db"),
        folder.path().join("tensorboard"),
    );
    let (memory, recent) = (MemorySink::new(), Recent::<100>::new());
    // No type is named where a sink is added.
    let collector: Collector<Sample> = Builder::new()
        .sink(JsonLinesSink::create(&jsonl)?)
        .sink(JsonLinesSink::create(&plain)?.records_in::<Sample>().named("plain"))
        .sink(SqliteSink::create(&sqlite)?.route("train.*"))
        .sink(TensorBoardSink::create(&board)?)
        .sink(ConsoleSink::to_writer("test", std::io::sink()))
        .sink(recent.clone())
        .sink(memory.clone())
        .start()?;
    for step in 0..100 {
        collector.collect(Sample::new(step));
    }
    collector.stop()?;
    let stats = law(&collector, 100);
    assert!(stats.sinks.iter().all(|sink| sink.delivered == 100), "{stats:?}");

    let expected: Vec<Record> = memory.events().into_iter().map(|sample| sample.record).collect();
    let all = EventQuery::new();
    assert_eq!(JsonLinesHistory::new(&jsonl).query(&all)?, expected);
    assert_eq!(std::fs::read(&plain)?, std::fs::read(&jsonl)?, "with serde and without");
    assert_eq!(SqliteHistory::open(&sqlite)?.query(&all)?, expected);
    assert_eq!(recent.query(&all)?, expected);
    let shown: Vec<(i64, f32)> = (0..100).map(|step| (step, step as f32 / 4.0)).collect();
    assert_eq!(scalars(&board)["train/loss"], shown);
    Ok(())
}

#[test]
fn an_event_whose_record_cannot_be_had_fails_alone() -> Result<(), Box<dyn std::error::Error>> {
    hush();
    let folder = tempfile::tempdir()?;
    let batch = || Batch::from_events(vec![Sample::new(0), Sample::bare(1), Sample::new(2)]);
    let only_one = |written: Result<(), SinkError>| {
        let error = written.unwrap_err();
        assert_eq!(error.failed_events(), Some(1));
        let said = error.to_string();
        assert!(said.starts_with("write failed: an event's AsRef<Record> panicked: no record"), "{said}");
    };

    let path = folder.path().join("events.db");
    let mut sink = SqliteSink::create(&path)?;
    only_one(sink.write_batch(&batch()));
    only_one(sink.write_batch(&batch()));
    drop(sink);
    let found = SqliteHistory::open(&path)?.query(&EventQuery::new().name("train.loss"))?;
    let steps: Vec<_> = found.iter().map(|record| record.step()).collect();
    assert_eq!(steps, [Some(0), Some(2), Some(0), Some(2)]);
    let gaps = SqliteHistory::open(&path)?.query(&EventQuery::new().name("forebay.gap"))?;
    assert_eq!(gaps.iter().map(|gap| gap.value().as_i64()).collect::<Vec<_>>(), [Some(1)]);

    let mut sink = TensorBoardSink::create(folder.path().join("tensorboard"))?;
    only_one(sink.write_batch(&batch()));
    drop(sink);
    assert_eq!(scalars(&folder.path().join("tensorboard"))["train/loss"], [(0, 0.0), (2, 0.5)]);

    let path = folder.path().join("events.jsonl");
    let mut sink = JsonLinesSink::create(&path)?.records_in::<Sample>();
    only_one(sink.write_batch(&batch()));
    drop(sink);
    let steps: Vec<_> = JsonLinesHistory::new(&path)
        .records()?
        .map(|record| record.map(|r| r.step()))
        .collect::<Result<_, _>>()?;
    assert_eq!(steps, [Some(0), Some(2)]);

    let mut recent = Recent::<10>::new();
    only_one(recent.write_batch(&batch()));
    let steps: Vec<_> = recent.query(&EventQuery::new())?.iter().map(|record| record.step()).collect();
    assert_eq!(steps, [Some(0), Some(2)]);
    Ok(())
}
