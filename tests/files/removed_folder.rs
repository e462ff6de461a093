//! The folder is removed under the sinks, and something else stands in its place for a while.

use crate::support;
use forebay::sink::{JsonLinesSink, MemorySink, SqliteSink, TensorBoardSink};
use forebay::{Collector, Record};
use forebay_history::{EventQuery, History, JsonLinesHistory, SqliteHistory};

#[test]
fn every_sink_fails_while_it_must_and_begins_anew_when_it_can() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("run");
    let memory = MemorySink::new();
    let collector = Collector::builder()
        .sink(JsonLinesSink::create(folder.join("events.jsonl")).unwrap())
        .sink(SqliteSink::create(folder.join("events.db")).unwrap())
        .sink(TensorBoardSink::create(&folder).unwrap())
        .sink(memory.clone())
        .start()
        .unwrap();
    let collect = |step| {
        collector.collect(Record::scalar("train.loss", 1.0).with_step(step));
        collector.flush().unwrap()
    };
    assert!(collect(0).is_clean());
    std::fs::remove_dir_all(&folder).unwrap();
    // Nothing can be made here.
    std::fs::write(&folder, "").unwrap();
    let report = collect(1);
    let failed: Vec<(String, u64)> =
        report.sinks.iter().map(|sink| (sink.name.clone(), sink.failed)).collect();
    let expected = [("json_lines", 1), ("sqlite", 1), ("tensorboard", 1), ("memory", 0)];
    assert_eq!(failed, expected.map(|(name, failed)| (name.to_owned(), failed)));
    std::fs::remove_file(&folder).unwrap();
    assert!(collect(2).is_clean());
    collector.stop().unwrap();
    let stats = support::law(&collector, 3);
    assert_eq!((stats.processed, memory.len()), (3, 3));
    // What was delivered before is gone with the folder; what failed is reported.
    let reported = |records: Vec<Record>| {
        records.iter().map(|record| (record.name().to_owned(), record.value().as_f64())).collect::<Vec<_>>()
    };
    let expected = [("forebay.gap".to_owned(), Some(1.0)), ("train.loss".to_owned(), Some(1.0))];
    let everything = EventQuery::new();
    assert_eq!(
        reported(JsonLinesHistory::new(folder.join("events.jsonl")).query(&everything).unwrap()),
        expected
    );
    let database = SqliteHistory::open(folder.join("events.db")).unwrap();
    assert_eq!(reported(database.query(&everything).unwrap()), expected);
    let names = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name());
    assert_eq!(names.filter(|name| name.to_str().unwrap().contains("tfevents")).count(), 1);
}
