//! P8, under load and with three sinks at once: a process that is killed at any moment leaves files that open, with all
//! that was delivered, and at most a last record that is torn and never read.
//!
//! Ten kills; `FOREBAY_KILLS=200` makes more of them.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use crate::support::*;
use forebay::sink::{JsonLinesSink, SqliteSink, TensorBoardSink};
use forebay::{Collector, FlushStrategy, Overflow, Record};
use forebay_history::{EventQuery, History, JsonLinesReader, SqliteHistory};
use tfevents::masked_crc32c;

/// Set in the process that is to be killed.
const FOLDER: &str = "FOREBAY_TEST_FOLDER";

/// Runs in the process that is to be killed: collects 100,000 events a second, if its sinks take them, and tells, a
/// line each time, how many events each sink has delivered. Does nothing unless it was asked to.
#[test]
fn collects_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let collector = Collector::builder()
        .overflow(Overflow::Block { timeout: LONG })
        .flush(FlushStrategy::Hybrid { events: 500, interval: Duration::from_millis(20) })
        .sink(JsonLinesSink::create(folder.join("events.jsonl")).unwrap())
        .sink(TensorBoardSink::create(folder.join("tb")).unwrap())
        .sink(SqliteSink::create(folder.join("events.db")).unwrap())
        .start()
        .unwrap();
    let begun = Instant::now();
    for step in 0.. {
        // 100,000 a second.
        while begun.elapsed() < Duration::from_micros(step * 10) {
            std::thread::yield_now();
        }
        collector.collect(Record::scalar("train.loss", 1.0).with_step(step));
        if step % 500 == 0 {
            let delivered =
                collector.stats().sinks.iter().map(|sink| sink.delivered.to_string()).collect::<Vec<_>>();
            println!("delivered {}", delivered.join(" "));
        }
    }
}

/// Returns the steps of an event file, up to a record that is torn.
fn event_file(folder: &Path) -> Vec<u64> {
    let path = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let bytes = std::fs::read(path).unwrap();
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let (mut at, mut steps) = (0, Vec::new());
    while bytes.len() - at >= 12 {
        let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        assert_eq!(word(at + 8), masked_crc32c(&bytes[at..at + 8]));
        if bytes.len() - at < 16 + length {
            break;
        }
        let event = &bytes[at + 12..at + 12 + length];
        assert_eq!(word(at + 12 + length), masked_crc32c(event));
        at += 16 + length;
        // wall_time, then the step unless it is 0, then a summary or what is in the head.
        let (mut step, mut shift, mut next) = (0, 0, 9);
        if event[next] == 0x10 {
            loop {
                next += 1;
                step |= u64::from(event[next] & 0x7f) << shift;
                shift += 7;
                if event[next] < 0x80 {
                    break;
                }
            }
            next += 1;
        }
        if event[next] == 0x2a {
            steps.push(step);
        }
    }
    steps
}

#[track_caller]
fn check(what: &str, steps: &[u64], delivered: u64) {
    assert!(steps.iter().copied().eq(0..steps.len() as u64), "{what}: a hole");
    assert!(steps.len() as u64 >= delivered, "{what}: {delivered} were delivered, {} are there", steps.len());
}

#[test]
fn three_kinds_of_files_survive_kills_at_any_moment() {
    let mut oldest = Duration::ZERO;
    let kills = std::env::var("FOREBAY_KILLS").map_or(10, |kills| kills.parse().unwrap());
    for kill in 0..kills {
        let folder = tempfile::tempdir().unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name_of!(collects_until_it_is_killed), "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut child = Killed(child);
        let reported = BufReader::new(child.0.stdout.as_mut().unwrap()).lines().map_while(Result::ok);
        // Somewhere in the middle, elsewhere each time.
        let lines = reported.filter_map(|line| line.strip_prefix("delivered ").map(str::to_owned));
        let last = lines.take(20 + 7 * (kill % 30)).last().unwrap();
        let killed_at = SystemTime::now();
        drop(child);
        let delivered: Vec<u64> = last.split(' ').map(|number| number.parse().unwrap()).collect();
        let mut reader = JsonLinesReader::open(folder.path().join("events.jsonl")).unwrap();
        let lines: Vec<Record> = reader.by_ref().map(Result::unwrap).collect();
        // Steps follow one another without a pause: what is missing is younger than this.
        let age = killed_at.duration_since(lines.last().unwrap().time()).unwrap_or_default();
        oldest = oldest.max(age);
        let lines: Vec<u64> = lines.iter().map(|record| record.step().unwrap()).collect();
        assert!(reader.skipped() <= 1, "only the last line may be torn");
        check("JSON Lines", &lines, delivered[0]);
        check("TensorBoard", &event_file(&folder.path().join("tb")), delivered[1]);
        let database = SqliteHistory::open(folder.path().join("events.db")).unwrap();
        let rows = database.query(&EventQuery::new()).unwrap();
        let rows: Vec<u64> = rows.iter().map(|record| record.step().unwrap()).collect();
        check("SQLite", &rows, delivered[2]);
        // And the next process goes on with it.
        drop(SqliteSink::create(folder.path().join("events.db")).unwrap());
    }
    println!("{kills} kills: nothing is missing that was older than {oldest:?}; the interval is 20 ms");
    // Far more, because the machine may have something else to do.
    assert!(oldest < Duration::from_secs(10), "{oldest:?}");
}
