//! A limit on the size of files, as batch systems set it (`ulimit -f`).
#![allow(unsafe_code, reason = "libc")]

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::*;
use forebay::sink::{JsonLinesSink, Sink, SinkExt, SqliteSink, TensorBoardSink, ignore_sigxfsz};
use forebay::{Batch, Builder, Collector, Record};
use forebay_history::JsonLinesReader;

/// Set in the limited process: what it does.
const LIMITED: &str = "FOREBAY_TEST_LIMITED";

const EVENTS: u64 = 5_000;

/// Limits the size of files to 64 KiB.
fn limit_files() {
    let limit = libc::rlimit { rlim_cur: 64 << 10, rlim_max: 64 << 10 };
    // SAFETY: the call is given a structure of its own.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) }, 0);
}

/// Runs only in the limited process.
#[test]
fn goes_beyond_the_limit() {
    let Some(what) = std::env::var_os(LIMITED) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    limit_files();
    let json_lines = || JsonLinesSink::create(&path).unwrap();
    match what.to_str().unwrap() {
        "json lines" => overfill(json_lines(), Some(&path)),
        "isolated" => overfill(SinkExt::<Record>::isolated(json_lines(), 1_000), Some(&path)),
        "compressed" => overfill(json_lines().rotate_at(60 << 10).compress_closed(), None),
        "tensorboard" => overfill(TensorBoardSink::create(folder.path()).unwrap(), None),
        "sqlite" => overfill(SqliteSink::create(folder.path().join("events.db")).unwrap(), None),
        "without a collector" => {
            ignore_sigxfsz();
            let mut sink = json_lines();
            let batch = |from: u64| Batch::from_events((from..from + 1_000).map(record).collect());
            assert!(sink.write_batch(&batch(0)).is_err());
            assert!(sink.write_batch(&Batch::from_events(vec![record(0)])).is_ok(), "it fits");
        }
        "own handler" => {
            // SAFETY: a handler that does nothing is allowed to run at any time.
            unsafe { libc::signal(libc::SIGXFSZ, nothing as *const () as usize) };
            ignore_sigxfsz();
            // SAFETY: it only reads.
            let kept = unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_DFL) };
            assert_eq!(kept, nothing as *const () as usize, "the handler of the program stays");
        }
        other => panic!("{other}"),
    }
}

extern "C" fn nothing(_: i32) {}

fn record(step: u64) -> Record {
    Record::scalar("train.loss", 1.0).with_field("note", "x".repeat(200)).with_step(step)
}

/// Makes a collector write more than the limit allows. What is counted as delivered into `path` must be readable there.
fn overfill(sink: impl Sink<Record> + 'static, path: Option<&Path>) {
    let builder: Builder = Collector::builder().capacity(2 * EVENTS as usize);
    let collector = builder.sink(sink).start().unwrap();
    for step in 0..EVENTS {
        collector.collect(record(step));
        if step % 500 == 0 {
            let _ = collector.flush().unwrap();
        }
    }
    collector.stop().unwrap();
    let stats = law(&collector, EVENTS);
    let sink = &stats.sinks[0];
    if let Some(path) = path {
        assert!(sink.delivered > 0 && sink.failed > 0, "{stats}");
        let records = JsonLinesReader::open(path).unwrap().map(Result::unwrap);
        let found = records.filter(|record| record.name() == "train.loss").count();
        assert_eq!(found as u64, sink.delivered);
    }
}

#[track_caller]
fn survives(what: &str) {
    // Pipes: the output of this process may be a file that is larger than the limit.
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name_of!(goes_beyond_the_limit), "--nocapture"])
        .env(LIMITED, what)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    let mut said = String::new();
    child.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.code(), Some(0), "{what}: a process that is killed has no code: {said}");
}

#[test]
fn a_write_beyond_the_limit_is_counted_and_does_not_end_the_process() {
    for sink in ["json lines", "isolated", "compressed", "tensorboard", "sqlite"] {
        survives(sink);
    }
}

#[test]
fn a_program_that_calls_sinks_itself_can_ignore_the_signal() {
    survives("without a collector");
    survives("own handler");
}
