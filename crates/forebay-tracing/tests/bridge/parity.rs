//! The fields of tracing-subscriber's formatter of JSON, and ours.

use std::io::Write;
use std::sync::{Arc, Mutex};

use forebay::Collector;
use forebay::sink::JsonLinesSink;
use serde_json::{Map, Value};
use tracing_subscriber::prelude::*;

use crate::support::law;

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
#[expect(dead_code, reason = "it is formatted")]
struct Shape {
    width: u32,
    label: &'static str,
}

fn workload() {
    tracing::info!("no fields");
    tracing::warn!(loss = 0.5, step = 7_u64, ok = true, "two {} {}", "words", 1);
    tracing::info!(target: "other::target", text = "quo\"te\u{1}\n", unsigned = 3_u64, signed = -4_i64);
    let _run = tracing::info_span!("run", user = "ada", rank = 1).entered();
    let span = tracing::info_span!("epoch", epoch = 3, state = tracing::field::Empty);
    span.record("state", "begun");
    let _epoch = span.enter();
    tracing::debug!(shape = ?Shape { width: 3, label: "x" }, shown = %1.5, "inside");
    let error: &(dyn std::error::Error + 'static) = &std::fmt::Error;
    tracing::error!(error, "it failed");
}

/// Returns what a line of the formatter says, in the form of ours.
fn as_ours(line: &Value) -> (String, Map<String, Value>) {
    let mut fields = line["fields"].as_object().unwrap().clone();
    fields.insert("level".to_owned(), line["level"].clone());
    // The spans, from the outermost on.
    let spans = line["spans"].as_array().cloned().unwrap_or_default();
    for span in spans.iter().rev() {
        for (name, value) in span.as_object().unwrap().iter().filter(|(name, _)| *name != "name") {
            fields.entry(name.clone()).or_insert(value.clone());
        }
    }
    if let Some(span) = spans.last() {
        fields.insert("span".to_owned(), span["name"].clone());
    }
    (line["target"].as_str().unwrap().replace("::", "."), fields)
}

#[test]
fn a_record_has_the_fields_that_the_formatter_of_json_writes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let collector = Collector::builder().sink(JsonLinesSink::create(&path).unwrap()).start().unwrap();
    let (layer, guard) = forebay_tracing::layer(collector.clone());
    let theirs = Shared::default();
    let out = theirs.clone();
    // All of one priority, so that they keep their order.
    let layer = layer
        .priority(tracing::Level::ERROR, forebay::Priority::Normal)
        .priority(tracing::Level::DEBUG, forebay::Priority::Normal);
    let format = tracing_subscriber::fmt::layer().json().with_writer(move || out.clone());
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer).with(format), workload);
    assert_eq!(guard.stop().lost(), 0);
    law(&collector, 5);
    let parse =
        |text: &str| -> Vec<Value> { text.lines().map(|line| serde_json::from_str(line).unwrap()).collect() };
    let theirs = parse(std::str::from_utf8(&theirs.0.lock().unwrap()).unwrap());
    let ours = parse(&std::fs::read_to_string(&path).unwrap());
    assert_eq!((ours.len(), theirs.len()), (5, 5));
    for (ours, theirs) in ours.iter().zip(&theirs) {
        let (name, mut fields) = as_ours(theirs);
        // A step has a place of its own.
        assert_eq!(fields.remove("step").unwrap_or_default(), ours["step"]);
        assert_eq!(ours["fields"].as_object().unwrap(), &fields, "{theirs}");
        assert_eq!(ours["name"].as_str().unwrap(), name);
    }
}
