//! The file sinks on a disk that is full or read-only, and with a lot of data. Each has one outcome, which the
//! documentation of the sink tells; the others carry on, and the law holds.

use std::path::Path;
use std::process::Command;

use crate::support::*;
use forebay::sink::{JsonLinesSink, SqliteSink, TensorBoardSink};
use forebay::{Collector, Overflow, Record, stats::SinkStats};
use forebay_history::{EventQuery, History, JsonLinesHistory, SqliteHistory};
use tfevents::masked_crc32c;

/// Returns a collector with all three sinks in one folder. Nothing is delivered by itself.
fn collector(folder: &Path) -> Collector {
    Collector::builder()
        .max_bytes(200_000_000)
        .flush(HOURLY)
        .overflow(Overflow::Block { timeout: LONG })
        .flush_timeout(LONG)
        .sink(JsonLinesSink::create(folder.join("events.jsonl")).unwrap())
        .sink(TensorBoardSink::create(folder.join("tb")).unwrap())
        .sink(SqliteSink::create(folder.join("events.db")).unwrap())
        .start()
        .unwrap()
}

fn sinks(collector: &Collector) -> Vec<SinkStats> {
    collector.stats().sinks
}

/// Returns the bytes of the whole records in all event files of a folder, and how many files there are. Panics if one is torn.
fn event_files(folder: &Path) -> (usize, usize) {
    let (mut total, mut files) = (0, 0);
    for entry in std::fs::read_dir(folder).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let mut at = 0;
        while at < bytes.len() {
            let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
            assert_eq!(word(at + 8), masked_crc32c(&bytes[at..at + 8]));
            assert_eq!(word(at + 12 + length), masked_crc32c(&bytes[at + 12..at + 12 + length]));
            at += 16 + length;
            total += length;
        }
        files += 1;
    }
    (total, files)
}

#[test]
fn a_text_of_100_megabytes_is_delivered_to_all() {
    let folder = tempfile::tempdir().unwrap();
    let collector = collector(folder.path());
    let text = "x\"\n\u{1f984}".repeat(15_000_000);
    assert!(text.len() >= 100_000_000);
    collector.collect(Record::text("large", &*text).with_step(1));
    collector.collect(Record::scalar("small", 1.0).with_step(2));
    assert!(collector.flush().unwrap().is_clean());
    collector.stop().unwrap();
    law(&collector, 2);
    let query = EventQuery::new().name("large");
    let lines = JsonLinesHistory::new(folder.path().join("events.jsonl")).query(&query).unwrap();
    let rows = SqliteHistory::open(folder.path().join("events.db")).unwrap().query(&query).unwrap();
    for found in [lines, rows] {
        assert!(found.len() == 1 && found[0].value().as_str() == Some(&text));
    }
    assert!(event_files(&folder.path().join("tb")).0 > text.len());
}

#[test]
fn more_tags_than_tensorboard_takes_are_refused_there_and_taken_by_the_others() {
    // A million by hand: FOREBAY_TAGS=1000000, and some time.
    let tags = std::env::var("FOREBAY_TAGS").map_or(110_000, |tags| tags.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let collector = collector(folder.path());
    for tag in 0..tags {
        collector.collect(Record::scalar(format!("layer.{tag}.norm"), 1.0).with_step(0));
    }
    collector.collect(Record::scalar("layer.7.norm", 2.0).with_step(1));
    let _ = collector.flush().unwrap();
    collector.stop().unwrap();
    law(&collector, tags + 1);
    for sink in sinks(&collector) {
        let refused = if sink.name == "tensorboard" { tags - 100_000 } else { 0 };
        assert_eq!((sink.name.as_str(), sink.failed), (sink.name.as_str(), refused));
        let said = sink.last_error.unwrap_or_default();
        assert!(refused == 0 || said.contains("the 100000 that are allowed"), "{said}");
    }
    let database = SqliteHistory::open(folder.path().join("events.db")).unwrap();
    let found = database.query(&EventQuery::new().name("layer.7.norm")).unwrap();
    assert_eq!(found.iter().map(Record::step).collect::<Vec<_>>(), [Some(0), Some(1)]);
}

/// Set in the process that has a file system of its own.
const FOLDER: &str = "FOREBAY_TEST_FOLDER";

fn run(command: &str, args: &[&str], folder: &Path) {
    let status = Command::new(command).args(args).arg(folder).status().unwrap();
    assert!(status.success(), "{command} {args:?}");
}

/// Runs one of the tests below in a process that may mount, where the system allows that.
fn in_a_namespace(test: &str) {
    let folder = tempfile::tempdir().unwrap();
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount"]);
        command
    };
    if !unshare().arg("true").status().is_ok_and(|status| status.success()) {
        return skipped("this system gives no namespace for mounts");
    }
    let output = unshare()
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Runs only in the process that its parent test starts.
#[test]
fn on_a_tiny_disk() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    run("mount", &["-t", "tmpfs", "-o", "size=1m", "none"], folder);
    let ballast = folder.join("ballast");
    std::fs::write(&ballast, vec![0; 512 << 10]).unwrap();
    let collector = collector(folder);
    let mut step = 0;
    let mut some = |name: &'static str| {
        for _ in 0..100 {
            collector.collect(Record::scalar(name, 0.5).with_step(step));
            step += 1;
        }
        collector.flush().unwrap().is_clean()
    };
    while sinks(&collector).iter().any(|sink| sink.failed == 0) {
        some("filling");
    }
    assert!(!some("full"), "still full");
    // Somebody makes space.
    std::fs::remove_file(ballast).unwrap();
    assert!(some("after"), "all have recovered: {:?}", sinks(&collector));
    collector.stop().unwrap();
    law(&collector, step);
    let query = EventQuery::new().name("after");
    let history = JsonLinesHistory::new(folder.join("events.jsonl"));
    assert_eq!(history.query(&query).unwrap().len(), 100);
    let database = SqliteHistory::open(folder.join("events.db")).unwrap();
    assert_eq!(database.query(&query).unwrap().len(), 100);
    // Both tell what is missing, to the event.
    let gaps: [Vec<Record>; 2] = [
        history.query(&EventQuery::new().name("forebay.gap")).unwrap(),
        database.query(&EventQuery::new().name("forebay.gap")).unwrap(),
    ];
    for (gaps, sink) in gaps.iter().zip(["json_lines", "sqlite"]) {
        let reported: i64 = gaps.iter().map(|gap| gap.value().as_i64().unwrap()).sum();
        let failed = sinks(&collector).into_iter().find(|stats| stats.name == sink).unwrap().failed;
        assert_eq!(reported as u64, failed, "{sink}");
    }
    assert!(event_files(&folder.join("tb")).1 >= 2, "TensorBoard goes on in a new file");
}

#[test]
fn a_disk_that_is_full_is_reported_and_written_to_again_when_there_is_space() {
    in_a_namespace(name_of!(on_a_tiny_disk));
}

/// Runs only in the process that its parent test starts.
#[test]
fn on_a_read_only_disk() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    run("mount", &["-t", "tmpfs", "-o", "size=1m", "none"], folder);
    let collector = collector(folder);
    (0..10).for_each(|step| _ = collector.collect(Record::scalar("a", 0.5).with_step(step)));
    collector.stop().unwrap();
    law(&collector, 10);
    drop(collector);
    run("mount", &["-o", "remount,ro"], folder);
    let said = [
        JsonLinesSink::create(folder.join("events.jsonl")).unwrap_err().to_string(),
        JsonLinesSink::create(folder.join("new/events.jsonl")).unwrap_err().to_string(),
        TensorBoardSink::create(folder.join("tb")).unwrap_err().to_string(),
        SqliteSink::create(folder.join("new.db")).unwrap_err().to_string(),
        SqliteSink::create(folder.join("events.db")).unwrap_err().to_string(),
    ];
    for said in &said {
        assert!(
            said.contains("Read-only") || said.contains("readonly") || said.contains("unable to open"),
            "{said}"
        );
    }
    // What is there can be asked all the same.
    let steps = |found: Vec<Record>| found.iter().filter_map(Record::step).collect::<Vec<_>>();
    let all = EventQuery::new();
    let expected: Vec<u64> = (0..10).collect();
    assert_eq!(steps(JsonLinesHistory::new(folder.join("events.jsonl")).query(&all).unwrap()), expected);
    let database = SqliteHistory::open(folder.join("events.db")).unwrap();
    assert_eq!(steps(database.query(&all).unwrap()), expected);
    assert_eq!(steps(database.query(&all).unwrap()), expected, "and again");
    assert!(SqliteHistory::open(folder.join("other.db")).is_err());
}

#[test]
fn a_disk_that_is_read_only_is_reported_at_once_and_its_files_can_be_asked() {
    in_a_namespace(name_of!(on_a_read_only_disk));
}
