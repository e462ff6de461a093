//! The sink in a collector, behind the wrappers: what becomes of events, and that the loop notices nothing.

use std::sync::Arc;
use std::time::Duration;

use forebay::sink::{BreakerPolicy, BreakerState, DeadLetters, MemorySink, RetryPolicy, SinkExt};
use forebay::{Collector, Outcome, Record};
use forebay_otlp::OtlpSink;
use opentelemetry_proto::tonic::common::v1::any_value::Value::IntValue;
use opentelemetry_proto::tonic::logs::v1::LogRecord as Log;

use crate::mapping::logs;
use crate::server::{Gate, Reply, Server, ok, reply};
use crate::support::{self, HOURLY, LONG, until};

fn busy() -> Reply {
    reply("429 Too Many Requests", &["retry-after: 0"], b"")
}

fn sink(server: &Server) -> OtlpSink {
    OtlpSink::builder().endpoint(server.url()).timeout(LONG).build().unwrap()
}

fn at_once(retries: u32) -> RetryPolicy {
    RetryPolicy::fixed(Duration::ZERO, retries)
}

#[test]
fn a_collector_that_was_busy_gets_each_event_once() {
    let server = Server::start(vec![busy(), busy(), ok()]);
    let collector = Collector::builder().sink(sink(&server).retry(at_once(3))).start().unwrap();
    for step in 0..10 {
        collector.collect(Record::scalar("a", 0.0).with_step(step));
    }
    collector.stop().unwrap();
    let stats = support::law(&collector, 10);
    let of_sink = stats.sink("otlp").unwrap();
    assert_eq!((of_sink.delivered, of_sink.retries), (10, 2));
    let requests: Vec<_> = (0..3).map(|_| logs(&server.request().body).len()).collect();
    assert_eq!(requests[0], requests[1]);
}

#[test]
fn a_batch_that_failed_in_part_is_tried_again_and_no_event_comes_twice() {
    let server = Server::start(vec![ok(), busy(), ok()]);
    let otlp =
        OtlpSink::builder().endpoint(server.url()).timeout(LONG).max_request_bytes(4096).build().unwrap();
    let collector = Collector::builder().flush(HOURLY).sink(otlp.retry(at_once(3))).start().unwrap();
    for step in 0..3 {
        collector.collect(Record::text("a", "x".repeat(2500)).with_step(step));
    }
    collector.stop().unwrap();
    let stats = support::law(&collector, 3);
    let of_sink = stats.sink("otlp").unwrap();
    assert_eq!((of_sink.delivered, of_sink.failed, of_sink.retries), (3, 0, 1));
    for _ in 0..4 {
        assert_eq!(logs(&server.request().body).len(), 1);
    }
    assert!(server.has_no_request());
}

#[test]
fn a_wrapper_that_makes_other_batches_sends_nothing_twice_and_a_retry_inside_of_it_goes_on() {
    type Chain = fn(OtlpSink) -> Box<dyn forebay::sink::Sink>;
    let chains: [(Chain, bool, u64); 4] = [
        (|otlp| Box::new(otlp.map(|record: &Record| record.clone()).retry(at_once(3))), false, 1),
        (|otlp| Box::new(otlp.filter(|record: &Record| record.name() != "no").retry(at_once(3))), true, 1),
        (|otlp| Box::new(otlp.route("a").retry(at_once(3))), true, 1),
        (|otlp| Box::new(otlp.retry(at_once(3)).map(|record: &Record| record.clone())), false, 3),
    ];
    for (chain, has_other, delivered) in chains {
        let server = Server::start(vec![ok(), busy(), ok()]);
        let otlp =
            OtlpSink::builder().endpoint(server.url()).timeout(LONG).max_request_bytes(4096).build().unwrap();
        let collector = Collector::builder().flush(HOURLY).sink(chain(otlp)).start().unwrap();
        for step in 0..3 {
            collector.collect(Record::text("a", "x".repeat(2500)).with_step(step));
        }
        if has_other {
            collector.collect(Record::new("no"));
        }
        _ = collector.flush_timeout(LONG);
        collector.collect(Record::new("a"));
        collector.stop().unwrap();
        let stats = support::law(&collector, 4 + u64::from(has_other));
        assert_eq!(stats.sink("otlp").unwrap().failed, 3 - delivered);
        let mut came = Vec::new();
        while came.iter().filter(|log: &&Log| log.event_name == "a" && log.body.is_none()).count() == 0 {
            came.extend(logs(&server.request().body));
        }
        // The second was refused once with its request.
        let of_step = |step| came.iter().filter(|log| step_of(log) == Some(step)).count();
        assert_eq!([of_step(0), of_step(1), of_step(2)], if delivered == 3 { [1, 2, 1] } else { [1, 1, 0] });
        let gaps = came.iter().filter(|log| log.event_name == "forebay.gap");
        let gaps: Vec<_> = gaps.map(|log| log.body.clone().unwrap().value.unwrap()).collect();
        assert_eq!(gaps, if delivered == 3 { vec![] } else { vec![IntValue(2)] });
    }
}

fn step_of(log: &Log) -> Option<i64> {
    let step = log.attributes.iter().find(|attribute| attribute.key == "forebay.step")?;
    match step.value.clone()?.value? {
        IntValue(step) => Some(step),
        _ => None,
    }
}

#[test]
fn retry_breaker_and_dead_letters_work_on_it() {
    // Two batches with two tries each: the breaker opens. Then the collector is there again.
    let server = Server::start(vec![busy(), busy(), busy(), busy(), ok()]);
    let letters = DeadLetters::new(100);
    let clock = forebay::ManualClock::new();
    let mut policy = BreakerPolicy::default();
    (policy.failures, policy.open_for) = (4, Duration::from_secs(30));
    let breaker = sink(&server).breaker(policy).manual_clock(&clock);
    let watch = breaker.watch();
    let chain = breaker.retry(at_once(1)).dead_letters(&letters).isolated(64);
    let collector = Collector::builder().flush(HOURLY).sink(chain).start().unwrap();
    for number in 1..=3 {
        collector.collect(Record::integer("a", number));
        collector.flush_timeout(LONG).unwrap();
        until("it is a dead letter", || letters.len() == number as usize);
    }
    assert_eq!(watch.state(), BreakerState::Open);
    for _ in 0..4 {
        server.request();
    }
    assert!(server.has_no_request(), "the third batch was not sent");
    assert!(letters.entries()[0].error.contains("429 Too Many Requests"));
    assert!(letters.entries()[2].error.contains("the breaker is open"));

    clock.advance(Duration::from_secs(31));
    letters.redrive(None);
    collector.collect(Record::integer("a", 4));
    until("the letters are delivered", || {
        _ = collector.flush_timeout(LONG);
        letters.is_empty()
    });
    assert_eq!(watch.state(), BreakerState::Closed);
    collector.stop().unwrap();
    let stats = support::law(&collector, 4);
    let of_sink = stats.sink("otlp").unwrap();
    assert_eq!((of_sink.delivered, of_sink.dead_lettered, of_sink.redriven), (1, 3, 3));
    let mut came = Vec::new();
    while came.len() < 4 {
        let logs = logs(&server.request().body);
        came.extend(logs.into_iter().filter(|log| log.event_name == "a"));
    }
}

#[test]
fn a_collector_that_hangs_delays_neither_the_loop_nor_another_sink() {
    let gate = Arc::new(Gate::default());
    let server = Server::start(vec![Reply::Gate(Arc::clone(&gate)), ok()]);
    let memory = MemorySink::new();
    let collector =
        Collector::builder().sink(sink(&server).isolated(64)).sink(memory.clone()).start().unwrap();
    collector.collect(Record::new("first"));
    // It hangs from now on.
    server.request();
    for step in 0..1000 {
        assert_eq!(collector.collect(Record::scalar("a", 0.0).with_step(step)), Outcome::Queued);
    }
    assert!(memory.wait_for(1001, LONG), "the other sink has them all");
    let of_sink = collector.stats().sink("otlp").unwrap().clone();
    assert_eq!((of_sink.delivered, of_sink.in_flight), (0, 1001));
    gate.open();
    collector.stop_timeout(LONG).unwrap();
    let stats = support::law(&collector, 1001);
    assert_eq!(stats.sink("otlp").unwrap().delivered, 1001);
}

#[test]
fn what_fails_for_good_is_counted_and_the_error_is_shown() {
    let server = Server::start(vec![reply("401 Unauthorized", &[], b"who are you?")]);
    let collector = Collector::builder().flush(HOURLY).sink(sink(&server).retry(at_once(3))).start().unwrap();
    collector.collect(Record::new("a"));
    collector.stop().unwrap();
    let stats = support::law(&collector, 1);
    let of_sink = stats.sink("otlp").unwrap();
    assert_eq!((of_sink.delivered, of_sink.failed, of_sink.retries), (0, 1, 0));
    assert!(
        of_sink
            .last_error
            .as_deref()
            .is_some_and(|error| error.contains("401 Unauthorized: \"who are you?\""))
    );
}
