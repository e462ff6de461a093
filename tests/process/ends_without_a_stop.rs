//! A process that ends without a stop, beside a sink that hangs and threads that collect: it ends, and keeps what was delivered.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::*;
use forebay::sink::{JsonLinesSink, from_fn};
use forebay::{Batch, Collector, FlushStrategy, Record};

/// Set in a process that ends without a stop: the file it writes, and how it ends.
const FILE: &str = "FOREBAY_TEST_FILE";

const ENDING: &str = "FOREBAY_TEST_ENDING";

/// Runs only in a process whose worker hangs in a sink, whose threads collect without end, and which nobody stops. Does
/// nothing unless it was asked to.
#[test]
fn ends_without_a_stop() {
    let Some(path) = std::env::var_os(FILE) else { return };
    let hung = Arc::new(AtomicBool::new(false));
    let is_hung = Arc::clone(&hung);
    let collector = Collector::builder()
        .flush(FlushStrategy::Size { events: 1 })
        .sink(JsonLinesSink::create(path).unwrap())
        .sink(from_fn("hangs", move |batch: &Batch<Record>| {
            while batch.iter().any(|record| record.name() == "last") {
                is_hung.store(true, Ordering::Relaxed);
                std::thread::park();
            }
            Ok(())
        }))
        .start()
        .unwrap();
    forebay::init(collector.clone()).unwrap();
    for number in 0..1_000 {
        collector.collect(Record::integer("number", number));
    }
    let _ = collector.flush().unwrap();
    collector.collect(Record::new("last"));
    until("the worker hangs", || hung.load(Ordering::Relaxed));
    for _ in 0..4 {
        std::thread::spawn(|| {
            while forebay::global().is_some_and(|all| all.collect(Record::new("more")).is_queued()) {}
        });
    }
    match std::env::var(ENDING).unwrap().as_str() {
        // As when `main` returns: destructors of the process run, other threads just end with it.
        "exit" => std::process::exit(7),
        "abort" => std::process::abort(),
        "exec" => exec(),
        other => panic!("{other}"),
    }
}

#[cfg(unix)]
fn exec() {
    use std::os::unix::process::CommandExt;
    let error = Command::new("sh").args(["-c", "exit 7"]).exec();
    panic!("{error}");
}

#[cfg(not(unix))]
fn exec() {
    std::process::exit(7);
}

fn end_without_a_stop(ending: &str, path: &Path) -> Option<i32> {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name_of!(ends_without_a_stop), "--nocapture"])
        .env(FILE, path)
        .env(ENDING, ending)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Killed(child).code()
}

#[test]
fn a_process_that_ends_without_a_stop_ends_and_keeps_what_was_delivered() {
    let folder = tempfile::tempdir().unwrap();
    for (ending, code) in [("exit", Some(7)), ("abort", None), ("exec", Some(7))] {
        let path = folder.path().join(ending);
        let ended = end_without_a_stop(ending, &path);
        // What code an abort leaves behind is the system's own affair.
        assert_eq!(ended.filter(|_| ending != "abort"), code, "{ending}");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with('\n'), "{ending}: a torn line");
        let records: Vec<Record> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(records.len(), 1_001, "{ending}");
        assert_eq!(records[1_000].name(), "last");
    }
}
