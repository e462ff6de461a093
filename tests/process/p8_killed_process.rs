//! P8: a killed process loses at most what was still in the ring. What a sink had written stays; at most its
//! very last record is torn.

#[path = "../support/whole_records.rs"]
mod whole_records;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::*;
use forebay::sink::JsonLinesSink;
use forebay::{Collector, FlushStrategy, Overflow, Record};
use whole_records::whole_records;

/// Set in the process that is to be killed.
const FILE: &str = "FOREBAY_TEST_FILE";

/// Runs in the process that is to be killed: collects as fast as it can and tells, a line each time, how many events
/// its sink has delivered. Does nothing unless it was asked to.
#[test]
fn collects_until_it_is_killed() {
    let Some(path) = std::env::var_os(FILE) else { return };
    let collector = Collector::builder()
        .overflow(Overflow::Block { timeout: LONG })
        .flush(FlushStrategy::Hybrid { events: 100, interval: Duration::from_millis(20) })
        .sink(JsonLinesSink::create(path).unwrap())
        .start()
        .unwrap();
    for number in 0.. {
        collector.collect(Record::integer("number", number));
        if number % 1000 == 0 {
            println!("delivered {}", collector.stats().sinks[0].delivered);
        }
    }
}

#[test]
fn what_was_delivered_survives_a_kill_in_whole_lines() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let path = folder.path().join(format!("{round}.jsonl"));
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name_of!(collects_until_it_is_killed), "--nocapture"])
            .env(FILE, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut child = Killed(child);
        let reported = BufReader::new(child.0.stdout.as_mut().unwrap()).lines().map_while(Result::ok);
        let counts = reported.filter_map(|line| line.strip_prefix("delivered ")?.parse::<usize>().ok());
        let delivered = counts.into_iter().find(|count| *count > 5_000 * (round + 1)).unwrap();
        child.0.kill().unwrap();
        child.0.wait().unwrap();

        let records = whole_records(&path);
        let numbers = records.iter().filter(|record| record.name() == "number");
        let numbers: Vec<i64> = numbers.filter_map(|record| record.value().as_i64()).collect();
        assert!(numbers.len() >= delivered, "{} of {delivered} delivered events are there", numbers.len());
        assert_eq!(numbers, (0..numbers.len() as i64).collect::<Vec<_>>(), "in order, without a hole");
    }
}
