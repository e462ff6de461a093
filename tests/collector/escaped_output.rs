//! Tests that what is shown to people stays on its line and shows what it holds, whoever named it.

use std::io::Write;
use std::sync::{Arc, Mutex};

use crate::support::*;
use forebay::sink::{ConsoleSink, SinkError, from_fn};
use forebay::{Batch, Collector, Fields, Record, Value};

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_console_escapes_names_texts_fields_and_its_prefix() {
    let evil = || EVIL.to_owned();
    let records = [
        Record::scalar(evil(), 0.5),
        Record::text("a", evil()),
        Record::fields("a", Fields::new().with(evil(), 1)),
        Record::with_value("a", vec![Value::from(evil())]),
    ];
    for (prefix, record) in records.into_iter().map(|record| ("x", record)).chain([(EVIL, Record::new("a"))])
    {
        let out = Shared::default();
        let collector =
            Collector::builder().sink(ConsoleSink::to_writer(prefix, out.clone())).start().unwrap();
        collector.collect(record);
        collector.stop().unwrap();
        law(&collector, 1);
        is_harmless(&String::from_utf8(out.0.lock().unwrap().clone()).unwrap(), 1);
    }
    // What is harmless stays as it is.
    let out = Shared::default();
    let collector = Collector::builder().sink(ConsoleSink::to_writer("ä", out.clone())).start().unwrap();
    collector.collect(Record::text("שלום", "a\\b \u{1F469}\u{200d}\u{1F680} é"));
    collector.stop().unwrap();
    law(&collector, 1);
    let shown = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
    assert_eq!(shown, "[ä] שלום = a\\b \u{1F469}\u{200d}\u{1F680} é\n");
}

#[test]
fn statistics_health_and_log_entries_escape_the_names_and_the_errors_of_sinks() {
    let said = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&said);
    let failing = || from_fn(EVIL.to_owned(), |_: &Batch<Record>| Err(SinkError::unavailable(EVIL)));
    let collector = Collector::builder()
        .on_log(move |entry| log.lock().unwrap().push(entry.to_string()))
        .sink(failing())
        .start()
        .unwrap();
    for _ in 0..20 {
        collector.collect(Record::new("a"));
        assert!(collector.flush().is_ok());
    }
    let health = collector.health();
    collector.stop().unwrap();
    let stats = law(&collector, 20);
    assert_eq!(stats.sinks[0].name, EVIL, "as a value it is what it is");
    is_harmless(&stats.to_string(), 2);
    let said = said.lock().unwrap();
    assert!(!said.is_empty());
    said.iter().for_each(|entry| is_harmless(entry, 1));
    if !health.alerts.is_empty() {
        is_harmless(&health.to_string(), 1 + health.alerts.len());
    }
}
