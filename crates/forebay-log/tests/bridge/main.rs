//! The logger, as a program has it. Every test that forks runs in a process of its own (`alone!`).
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr, reason = "tests")]

#[cfg(unix)]
#[allow(dead_code, reason = "a part of it is used")]
#[path = "../../../../tests/fork/child.rs"]
mod child;
mod filters;
#[cfg(unix)]
mod fork;
mod lines;
mod load;
#[path = "../../../../tests/support/mod.rs"]
mod support;

use forebay::sink::MemorySink;
use forebay::{Collector, Record, Value};
use forebay_log::{Logger, Report};
use log::LevelFilter;

/// Runs `body` with a logger of its own, and returns the records that it made. Checks the law.
#[track_caller]
fn records_by(logger: impl FnOnce(Logger) -> Logger, body: impl FnOnce(&Logger)) -> (Vec<Record>, Report) {
    log::set_max_level(LevelFilter::Trace);
    let memory = MemorySink::new();
    let collector = Collector::builder().sink(memory.clone()).start().unwrap();
    let logger = logger(Logger::new(collector.clone()).filter("trace").unwrap());
    let guard = logger.guard();
    body(&logger);
    let report = guard.stop();
    // All of them are there, and each test knows which it has made.
    support::law(&collector, memory.len() as u64);
    (memory.events(), report)
}

/// Returns a field of a record; `Empty` if there is none.
fn field<'a>(record: &'a Record, name: &str) -> &'a Value {
    record.value().as_fields().unwrap().get(name).unwrap_or(&Value::Empty)
}

/// Returns the messages of records.
fn messages(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| field(record, "message").as_str().unwrap_or("-")).collect()
}
