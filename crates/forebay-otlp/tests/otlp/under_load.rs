//! Producers, eviction and a collector that takes some requests, refuses others and is busy in between: each event has one fate, and what is
//! missing is marked.

use std::collections::HashSet;
use std::time::Duration;

use forebay::sink::{RetryPolicy, SinkExt};
use forebay::{Collector, FlushStrategy, Record};
use forebay_otlp::OtlpSink;
use opentelemetry_proto::tonic::common::v1::any_value::Value::IntValue;

use crate::mapping::logs;
use crate::server::{Reply, Server, ok, reply};
use crate::support::{LONG, law};

const PRODUCERS: u64 = 3;
const EVENTS: u64 = 5_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Takes,
    Busy,
    Closes,
    Refuses,
    /// Two events, if there are so many.
    RejectsTwo,
}

fn answer(of: Answer) -> Reply {
    match of {
        Answer::Takes => ok(),
        Answer::Busy => reply("503 Service Unavailable", &["retry-after: 0"], b""),
        Answer::Closes => Reply::Raw(Vec::new()),
        Answer::Refuses => reply("400 Bad Request", &[], b"no"),
        Answer::RejectsTwo => reply("200 OK", &[], b"\x0a\x02\x08\x02"),
    }
}

#[test]
fn every_event_has_one_fate_under_load_and_the_marks_add_up_to_what_is_missing() {
    use Answer::{Busy, Closes, Refuses, RejectsTwo, Takes};
    // In a mixed order that is the same each time, and at the end it takes all.
    let kinds = [Takes, Busy, Takes, Refuses, Closes, Takes, RejectsTwo, Busy, Busy, Takes, Takes];
    let answers: Vec<_> =
        (0..150_usize).map(|number| kinds[(number * 7 + number / 11) % 11]).chain([Takes]).collect();
    let server = Server::start(answers.iter().map(|of| answer(*of)).collect());
    let otlp =
        OtlpSink::builder().endpoint(server.url()).timeout(LONG).max_request_bytes(8192).build().unwrap();
    let collector = Collector::builder()
        .capacity(512)
        .batch_size(100)
        .flush(FlushStrategy::Hybrid { events: 64, interval: Duration::from_millis(1) })
        .sink(otlp.retry(RetryPolicy::fixed(Duration::ZERO, 1_000_000)).isolated(8))
        .start()
        .unwrap();
    std::thread::scope(|scope| {
        for producer in 0..PRODUCERS {
            let collector = &collector;
            scope.spawn(move || {
                for number in 0..EVENTS {
                    collector.collect(
                        Record::new("event").with_field("producer", producer).with_field("number", number),
                    );
                    // Some are evicted, and not nearly all.
                    if number % 64 == 0 {
                        std::thread::yield_now();
                    }
                }
            });
        }
    });
    // What was refused last is marked before this one.
    collector.flush_timeout(LONG).unwrap();
    while server.answered() < answers.len() {
        collector.collect(Record::new("filler"));
        collector.flush_timeout(LONG).unwrap();
    }
    collector.collect(Record::new("last"));
    collector.stop_timeout(LONG).unwrap();
    let stats = law(&collector, collector.stats().offered);
    let otlp = stats.sink("otlp").unwrap();
    assert_eq!((otlp.in_flight, otlp.dead_lettered), (0, 0));

    let (mut taken, mut refused, mut marked, mut seen) = (0, 0, 0, HashSet::new());
    for number in 0..server.answered() {
        let is = answers[number.min(answers.len() - 1)];
        let came = logs(&server.request().body);
        let (gaps, events): (Vec<_>, Vec<_>) =
            came.into_iter().partition(|log| log.event_name == "forebay.gap");
        let count = events.len() as u64;
        match is {
            Takes | RejectsTwo => {
                let rejected = if is == RejectsTwo { count.min(2) } else { 0 };
                (taken, refused) = (taken + count - rejected, refused + rejected);
                for event in events.iter().filter(|log| log.event_name == "event") {
                    assert!(seen.insert(format!("{:?}", event.attributes)), "an event came twice");
                }
                for gap in gaps {
                    let Some(IntValue(missing)) = gap.body.unwrap().value else { panic!("no number") };
                    marked += missing as u64;
                }
            }
            Refuses => refused += count,
            Busy | Closes => {}
        }
    }
    assert_eq!((otlp.delivered, otlp.failed), (taken, refused));
    assert!(otlp.retries > 0 && otlp.failed > 0);
    assert_eq!(marked, stats.evicted + otlp.evicted + otlp.failed);
}
