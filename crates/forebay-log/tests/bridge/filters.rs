//! Filters, the gate, and threads that deliver.

use std::time::Duration;

use forebay::config::GateConfig;
use forebay::sink::{MemorySink, from_fn};
use forebay::{Batch, Collector, FlushStrategy, Priority};
use forebay_log::Logger;
use log::{Level, LevelFilter, Log, Metadata};

use crate::support::{Gate, HOURLY, LONG, alone, law};
use crate::{messages, records_by};

/// A value that nobody may format.
struct Unwanted;

impl std::fmt::Display for Unwanted {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("it is formatted although nobody wants it")
    }
}

#[test]
fn a_filter_is_that_of_env_logger() {
    let (records, report) = records_by(
        |logger| logger.filter("warn,train=debug,train::loop=off").unwrap().ignore(["ureq"]),
        |logger| {
            assert_eq!(logger.max_level(), LevelFilter::Debug);
            log::info!(logger: logger, target: "other", "{Unwanted}");
            log::warn!(logger: logger, target: "other", "warn");
            log::debug!(logger: logger, target: "train::step", "debug");
            log::trace!(logger: logger, target: "train::step", "{Unwanted}");
            log::error!(logger: logger, target: "train::loop", "{Unwanted}");
            log::warn!(logger: logger, target: "ureq::pool", "{Unwanted}");
            let enabled =
                |target, level| logger.enabled(&Metadata::builder().target(target).level(level).build());
            assert!(
                enabled("other", Level::Warn)
                    && !enabled("other", Level::Info)
                    && !enabled("ureq", Level::Error)
            );
        },
    );
    let mut messages = messages(&records);
    messages.sort();
    assert_eq!((messages, report.counts.ignored, report.counts.panicked), (vec!["debug", "warn"], 1, 0));
}

#[test]
fn a_variable_of_the_environment_is_read_and_names_itself_where_it_cannot_be() {
    alone!();
    let logger = || Logger::new(Collector::builder().build().unwrap());
    assert_eq!(logger().env("FOREBAY_TEST_LOG").unwrap().max_level(), LevelFilter::Info);
    // SAFETY: this process has one test, and no other thread that reads the environment.
    #[allow(unsafe_code, reason = "the environment of a process")]
    let set = |value: &str| unsafe { std::env::set_var("FOREBAY_TEST_LOG", value) };
    set("");
    assert_eq!(logger().env("FOREBAY_TEST_LOG").unwrap().max_level(), LevelFilter::Info);
    set("error,a=trace");
    assert_eq!(logger().env("FOREBAY_TEST_LOG").unwrap().max_level(), LevelFilter::Trace);
    set("a=loud");
    let error = logger().env("FOREBAY_TEST_LOG").unwrap_err().to_string();
    assert!(
        error.starts_with(
            "FOREBAY_TEST_LOG must be levels by target, as `info,train=debug`, got \"a=loud\": "
        ),
        "{error}"
    );
    // The filter of env_logger for texts would format every line, before anything bounds it.
    set("info/needle");
    let error = logger().env("FOREBAY_TEST_LOG").err().map(|error| error.to_string());
    assert!(
        error.as_ref().is_some_and(|error| error.ends_with("lines are not filtered by their text")),
        "{error:?}"
    );
}

#[test]
fn a_line_that_the_gate_rejects_is_counted_and_not_formatted() {
    let memory = MemorySink::new();
    let gate = GateConfig::default().with_min_priority(Priority::Normal);
    let collector = Collector::builder().gate(gate).sink(memory.clone()).start().unwrap();
    let logger = Logger::new(collector.clone()).filter("trace").unwrap();
    assert!(!logger.enabled(&Metadata::builder().level(Level::Debug).build()));
    log::set_max_level(LevelFilter::Trace);
    Log::log(&logger, &log::Record::builder().level(Level::Debug).args(format_args!("{Unwanted}")).build());
    log::info!(logger: logger, "wanted");
    assert_eq!(logger.guard().stop().lost(), 0);
    assert_eq!((law(&collector, 2).filtered, messages(&memory.events())), (1, vec!["wanted"]));
}

#[test]
fn a_flush_waits_until_what_was_logged_before_is_delivered() {
    let memory = MemorySink::new();
    let collector = Collector::builder().flush(HOURLY).sink(memory.clone()).start().unwrap();
    let logger = Logger::new(collector.clone()).flush_timeout(LONG);
    log::set_max_level(LevelFilter::Trace);
    log::info!(logger: logger, "before");
    Log::flush(&logger);
    assert_eq!(messages(&memory.events()), ["before"]);
    assert_eq!(logger.guard().stop().lost(), 0);
    law(&collector, 1);
}

#[test]
fn what_a_sink_logs_is_left_out_and_a_flush_ends_by_its_deadline() {
    alone!();
    let (memory, gate) = (MemorySink::new(), Gate::closed());
    let talks = from_fn("talks", |_: &Batch| {
        log::info!("a sink logs");
        log::debug!("what the gate rejects is not kept away");
        Ok(())
    });
    let collector = Collector::builder()
        .gate(GateConfig::default().with_min_priority(Priority::Normal))
        .flush(FlushStrategy::Size { events: 1 })
        .sink(memory.clone())
        .sink(talks)
        .sink(gate.sink())
        .start()
        .unwrap();
    let logger = Logger::new(collector.clone()).filter("trace").unwrap();
    let guard = logger.flush_timeout(Duration::from_millis(1)).install().unwrap();
    assert!(Logger::new(collector.clone()).install().is_err(), "a program has one logger");
    log::info!("from the loop");
    gate.await_arrivals(1);
    // The sink hangs.
    log::logger().flush();
    gate.open();
    let report = guard.stop();
    law(&collector, 1);
    assert_eq!((messages(&memory.events()), report.counts.own_thread), (vec!["from the loop"], 1));
}
