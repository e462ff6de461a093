//! The order of the records in a file, and what an error of `create` says.

use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use crate::support::law;
use forebay::sink::{JsonLinesSink, SqliteSink, TensorBoardSink};
use forebay::{Collector, Priority, Record};
use forebay_history::{EventQuery, History, JsonLinesHistory, Recent, SqliteHistory};

#[test]
fn records_stand_in_the_order_of_delivery_and_sort_by_time() -> Result<(), Box<dyn std::error::Error>> {
    use Priority::{Critical, Low, Normal};
    let folder = tempfile::tempdir()?;
    let (jsonl, sqlite) = (folder.path().join("events.jsonl"), folder.path().join("events.db"));
    let recent = Recent::<100>::new();
    let collector = Collector::builder()
        .sink(JsonLinesSink::create(&jsonl)?)
        .sink(SqliteSink::create(&sqlite)?)
        .sink(recent.clone())
        .build()?;
    // All are in the first batch, because the worker starts behind them.
    for (step, priority) in [Low, Normal, Critical, Normal, Critical].into_iter().enumerate() {
        let time = UNIX_EPOCH + Duration::from_secs(1_000 + step as u64);
        let record = Record::scalar("a", 0.5).with_step(step as u64).with_priority(priority).with_time(time);
        collector.collect(record);
    }
    collector.start()?;
    collector.stop()?;
    assert_eq!(law(&collector, 5).batches, 1);
    let histories: [Box<dyn History>; 3] =
        [Box::new(JsonLinesHistory::new(&jsonl)), Box::new(SqliteHistory::open(&sqlite)?), Box::new(recent)];
    for history in histories {
        let steps = |records: &[Record]| records.iter().filter_map(Record::step).collect::<Vec<_>>();
        let mut found = history.query(&EventQuery::new())?;
        assert_eq!(steps(&found), [2, 4, 1, 3, 0]);
        assert_eq!(steps(&history.query(&EventQuery::new().newest_first())?), [0, 3, 1, 4, 2]);
        found.sort_by_key(Record::time);
        assert_eq!(steps(&found), [0, 1, 2, 3, 4]);
    }
    Ok(())
}

#[test]
fn an_error_of_create_names_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a_file");
    fs::write(&file, "").unwrap();
    let below = file.join("below");
    let said = [
        JsonLinesSink::create(&below).unwrap_err().to_string(),
        SqliteSink::create(&below).unwrap_err().to_string(),
        TensorBoardSink::create(&below).unwrap_err().to_string(),
        TensorBoardSink::resume(&below, 1).unwrap_err().to_string(),
    ];
    for said in said {
        assert!(said.contains(below.to_str().unwrap()), "{said}");
    }
}
