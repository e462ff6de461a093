//! The layer and the writer, as a program has them. Every test that forks runs in a process of its own (`alone!`).
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr, reason = "tests")]

#[cfg(unix)]
#[allow(dead_code, reason = "a part of it is used")]
#[path = "../../../../tests/fork/child.rs"]
mod child;
mod fields;
mod filters;
#[cfg(unix)]
mod fork;
mod guards;
mod lines;
mod load;
mod mocks;
mod parity;
mod spans;
#[path = "../../../../tests/support/mod.rs"]
mod support;

use forebay::sink::MemorySink;
use forebay::{Collector, Record, Value};
use forebay_tracing::{CollectorLayer, Report};
use tracing_subscriber::prelude::*;

/// Runs `body` under a layer, and returns the records that it made. Checks the law.
#[track_caller]
fn records_by(
    layer: impl FnOnce(CollectorLayer) -> CollectorLayer,
    body: impl FnOnce(),
) -> (Vec<Record>, Report) {
    let memory = MemorySink::new();
    let collector = Collector::builder().sink(memory.clone()).start().unwrap();
    let (made, guard) = forebay_tracing::layer(collector.clone());
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer(made)), body);
    let report = guard.stop();
    // All of them are there, and each test knows which it has made.
    support::law(&collector, memory.len() as u64);
    (memory.events(), report)
}

#[track_caller]
fn records(body: impl FnOnce()) -> Vec<Record> {
    records_by(|layer| layer, body).0
}

/// Returns a field of a record; `Empty` if there is none.
fn field<'a>(record: &'a Record, name: &str) -> &'a Value {
    record.value().as_fields().unwrap().get(name).unwrap_or(&Value::Empty)
}

/// Returns the messages of records.
fn messages(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| field(record, "message").as_str().unwrap_or("-")).collect()
}
