//! How a batch becomes requests.

use std::io::Read;
use std::time::Duration;

use flate2::read::GzDecoder;
use forebay::sink::{Sink, SinkError};
use forebay::{Batch, Record};
use forebay_otlp::OtlpSink;
use opentelemetry_proto::tonic::common::v1::any_value::Value::{IntValue, StringValue};

use crate::child::in_child;
use crate::mapping::{logs, metrics};
use crate::server::{Reply, Server, ok, reply};
use crate::support::alone;

fn names(body: &[u8]) -> Vec<String> {
    logs(body).into_iter().map(|log| log.event_name).collect()
}

#[test]
fn a_request_has_the_headers_of_the_standard_and_mine() {
    let server = Server::start(vec![ok()]);
    let sink = OtlpSink::builder().endpoint(format!("{}/otlp/", server.url())).header("X-Mine", "one");
    sink.build().unwrap().write_batch(&Batch::from_events(vec![Record::new("a")])).unwrap();
    let request = server.request();
    assert_eq!(request.line, "POST /otlp/v1/logs HTTP/1.1");
    assert_eq!(request.header("content-type"), Some("application/x-protobuf"));
    assert_eq!(request.header("x-mine"), Some("one"));
    assert_eq!(request.header("content-encoding"), None);
    assert!(request.header("user-agent").is_some_and(|agent| agent.starts_with("forebay-otlp/")));
    assert_eq!(names(&request.body), ["a"]);
}

#[test]
fn headers_of_any_length_arrive_on_a_connection_that_is_used_again_and_the_body_is_as_it_was() {
    let long = "long ".repeat(2000);
    let server = Server::start(vec![Reply::KeepAlive]);
    let builder =
        OtlpSink::builder().endpoint(server.url()).header("x-long", long.trim()).header("x-short", "1");
    let mut sink = builder.header("x-empty", "").build().unwrap();
    for round in 0..3 {
        // It looks like the head of a request in which a value is to be put.
        let text = format!("POST / HTTP/1.1\r\nx-short: *\r\n\r\n{round}");
        sink.write_batch(&Batch::from_events(vec![Record::text("a", text.clone())])).unwrap();
        let request = server.request();
        assert_eq!(request.header("x-long"), Some(long.trim()));
        assert_eq!((request.header("x-short"), request.header("x-empty")), (Some("1"), Some("")));
        assert_eq!(logs(&request.body)[0].body.clone().unwrap().value, Some(StringValue(text)));
    }
    drop(sink);
    // More than the client's buffer has.
    let huge = "h".repeat(200_000);
    let mut sink = OtlpSink::builder().endpoint(server.url()).header("x-huge", huge).build().unwrap();
    let error = sink.write_batch(&Batch::from_events(vec![Record::new("a")])).unwrap_err();
    assert!(!error.is_transient(), "{error}");
}

#[test]
fn a_forked_child_leaves_the_connection_to_its_parent() {
    alone!();
    let server = Server::start(vec![Reply::KeepAlive]);
    let mut sink = OtlpSink::builder().endpoint(server.url()).build().unwrap();
    let batch = |name| Batch::from_events(vec![Record::new(name)]);
    sink.write_batch(&batch("before")).unwrap();
    let of_parent = batch("of the parent");
    let status = in_child(|| {
        let error = sink.write_batch(&of_parent).unwrap_err();
        !error.is_transient() && error.to_string().contains("forked child")
    });
    assert_eq!(status, Some(0));
    sink.write_batch(&batch("after")).unwrap();
    let requests = [server.request(), server.request()];
    assert_eq!(requests.map(|request| names(&request.body)), [["before"], ["after"]]);
}

#[test]
fn a_body_is_compressed_where_asked() {
    let server = Server::start(vec![ok()]);
    let mut sink = OtlpSink::builder().endpoint(server.url()).gzip(true).build().unwrap();
    let text = "many words ".repeat(1000);
    sink.write_batch(&Batch::from_events(vec![Record::text("a", text.clone())])).unwrap();
    let request = server.request();
    assert_eq!(request.header("content-encoding"), Some("gzip"));
    assert!(request.body.len() < text.len() / 10);
    let mut body = Vec::new();
    GzDecoder::new(&*request.body).read_to_end(&mut body).unwrap();
    assert_eq!(names(&body), ["a"]);
}

#[test]
fn nothing_is_sent_for_nothing() {
    let server = Server::start(vec![ok()]);
    let mut sink = OtlpSink::builder().endpoint(server.url()).metrics(true).build().unwrap();
    Sink::<Record>::write_batch(&mut sink, &Batch::from_events(Vec::new())).unwrap();
    Sink::<Record>::flush(&mut sink).unwrap();
    assert!(server.has_no_request());
}

#[test]
fn a_large_batch_becomes_several_requests_and_an_event_that_is_too_large_is_refused() {
    for as_metrics in [false, true] {
        let server = Server::start(vec![ok()]);
        let builder = OtlpSink::builder().endpoint(server.url()).metrics(as_metrics).max_request_bytes(4096);
        let mut sink = builder.build().unwrap();
        let name =
            |number: usize| format!("{number:03}{}", "x".repeat(if number == 50 { 5000 } else { 200 }));
        let events: Vec<_> = (0..100).map(|number| Record::integer(name(number), 1)).collect();
        let error = sink.write_batch(&Batch::from_events(events)).unwrap_err();
        assert_eq!((error.failed_events(), error.is_transient()), (Some(1), false));
        assert!(error.to_string().contains("event \"050xxx"), "{error}");
        assert!(error.to_string().contains("must have at most"), "{error}");
        let mut seen = Vec::new();
        while seen.len() < 99 {
            let request = server.request();
            assert!(request.body.len() <= 4096, "{}", request.body.len());
            if as_metrics {
                seen.extend(metrics(&request.body).into_iter().map(|metric| metric.name));
            } else {
                seen.extend(names(&request.body));
            }
        }
        let expected: Vec<_> = (0..100).filter(|number| *number != 50).map(name).collect();
        assert_eq!(seen, expected, "in order, each once");
    }
}

#[test]
fn a_timeout_may_be_as_long_as_it_likes() {
    let server = Server::start(vec![ok()]);
    let by_method = OtlpSink::builder().endpoint(server.url()).timeout(Duration::MAX);
    let vars = |name: &str| match name {
        "OTEL_EXPORTER_OTLP_ENDPOINT" => Some(server.url()),
        "OTEL_EXPORTER_OTLP_TIMEOUT" => Some(u64::MAX.to_string()),
        _ => None,
    };
    for builder in [by_method, forebay_otlp::OtlpBuilder::from_vars(vars).unwrap()] {
        builder.build().unwrap().write_batch(&Batch::from_events(vec![Record::new("a")])).unwrap();
        assert_eq!(names(&server.request().body), ["a"]);
    }
}

fn busy() -> Reply {
    reply("503 Service Unavailable", &["retry-after: 1"], b"")
}

fn three() -> Batch {
    // Two of them have no space in one request.
    Batch::from_events((0..3).map(|number| Record::text(format!("{number}"), "x".repeat(2500))).collect())
}

fn sink(server: &Server) -> OtlpSink {
    OtlpSink::builder().endpoint(server.url()).max_request_bytes(4096).build().unwrap()
}

#[test]
fn a_batch_that_failed_in_part_goes_on_where_it_stopped() {
    let server = Server::start(vec![ok(), busy(), busy(), ok()]);
    let (mut sink, batch) = (sink(&server), three());
    for _ in 0..2 {
        let error = sink.write_batch(&batch).unwrap_err();
        assert!(error.is_transient() && error.is_resumable(), "{error}");
        assert_eq!((error.failed_events(), error.retry_after()), (Some(2), Some(Duration::from_secs(1))));
    }
    sink.write_batch(&batch).unwrap();
    let seen: Vec<_> = (0..5).flat_map(|_| names(&server.request().body)).collect();
    assert_eq!(seen, ["0", "1", "1", "1", "2"]);
    assert!(server.has_no_request());
}

#[test]
fn another_batch_begins_at_its_begin_and_says_what_is_missing() {
    let server = Server::start(vec![ok(), busy(), ok()]);
    let mut sink = sink(&server);
    // The second lies where the first lay, if the memory of that is free.
    assert!(sink.write_batch(&three()).is_err_and(|error| error.is_resumable()));
    sink.write_batch(&three()).unwrap();
    let came: Vec<_> = (0..5).flat_map(|_| logs(&server.request().body)).collect();
    let names: Vec<_> = came.iter().map(|log| log.event_name.as_str()).collect();
    assert_eq!(names, ["0", "1", "forebay.gap", "0", "1", "2"]);
    assert_eq!(came[2].body.clone().unwrap().value, Some(IntValue(2)), "the second and the third");
    assert!(server.has_no_request());
}

#[test]
fn a_refused_request_takes_no_other_with_it_and_a_refused_sink_sends_no_more() {
    let bad = reply("400 Bad Request", &[], b"");
    let server = Server::start(vec![bad, ok()]);
    let error = sink(&server).write_batch(&three()).unwrap_err();
    assert_eq!((error.failed_events(), error.is_transient()), (Some(1), false));
    let seen: Vec<_> = (0..3).flat_map(|_| names(&server.request().body)).collect();
    assert_eq!(seen, ["0", "1", "2"]);

    let server = Server::start(vec![ok(), reply("401 Unauthorized", &[], b""), ok()]);
    let error = sink(&server).write_batch(&three()).unwrap_err();
    assert_eq!((error.failed_events(), error.is_transient()), (Some(2), false));
    let seen: Vec<_> = (0..2).flat_map(|_| names(&server.request().body)).collect();
    assert_eq!(seen, ["0", "1"]);
    assert!(server.has_no_request());
}

#[test]
fn a_gap_that_could_not_be_said_is_said_later() {
    let server = Server::start(vec![reply("400 Bad Request", &[], b""), busy(), ok()]);
    let mut sink = OtlpSink::builder().endpoint(server.url()).build().unwrap();
    let mut write = |batch: &Batch| -> Result<(), SinkError> { sink.write_batch(batch) };
    let batch = |name: &'static str| Batch::from_events(vec![Record::new(name)]);
    let mut gapped = batch("a");
    gapped.add_gap(5);
    assert!(write(&gapped).is_err_and(|error| !error.is_transient()));
    assert!(write(&batch("b")).is_err_and(|error| error.is_transient()));
    write(&batch("c")).unwrap();
    let requests: Vec<_> = (0..3).map(|_| logs(&server.request().body)).collect();
    let gaps: Vec<_> = requests.iter().map(|logs| logs[0].body.clone().unwrap().value.unwrap()).collect();
    assert_eq!(gaps, [IntValue(5), IntValue(6), IntValue(7)]);
}

/// Returns the gap of each request, or the number of points of one for metrics.
fn seen(server: &Server, requests: usize) -> Vec<String> {
    let of = |request: crate::server::Request| {
        if request.line.contains("/v1/metrics") {
            return format!("{} points", metrics(&request.body).len());
        }
        let logs = logs(&request.body);
        let gap = logs.iter().find(|log| log.event_name == "forebay.gap").and_then(|log| log.body.clone());
        match gap.and_then(|gap| gap.value) {
            Some(IntValue(gap)) => format!("{} logs with gap {gap}", logs.len()),
            _ => format!("{} logs", logs.len()),
        }
    };
    (0..requests).map(|_| of(server.request())).collect()
}

fn numbers(events: i64) -> Batch {
    Batch::from_events((0..events).map(|number| Record::integer(number.to_string(), number)).collect())
}

#[test]
fn a_gap_that_was_said_is_not_said_again_though_all_metrics_are_refused() {
    let no = || reply("404 Not Found", &[], b"");
    let server = Server::start(vec![no(), ok(), no(), ok(), no(), ok()]);
    let mut sink = OtlpSink::builder().endpoint(server.url()).metrics(true).build().unwrap();
    for (round, expected) in
        [vec!["3 points"], vec!["1 logs with gap 3", "2 points"], vec!["1 logs with gap 2", "4 points"]]
            .iter()
            .enumerate()
    {
        let error = sink.write_batch(&numbers([3, 2, 4][round])).unwrap_err();
        assert_eq!((error.is_transient(), error.failed_events()), (false, Some([3, 2, 4][round] as u64)));
        assert_eq!(seen(&server, expected.len()), *expected);
    }
    sink.write_batch(&Batch::from_events(vec![Record::new("a")])).unwrap();
    assert_eq!(seen(&server, 1), ["2 logs with gap 4"]);
}

#[test]
fn a_gap_that_was_said_is_not_said_again_with_each_try() {
    let server = Server::start(vec![ok(), busy(), busy(), ok()]);
    let mut sink = OtlpSink::builder().endpoint(server.url()).metrics(true).build().unwrap();
    let mut batch = numbers(3);
    batch.add_gap(7);
    for _ in 0..2 {
        let error = sink.write_batch(&batch).unwrap_err();
        assert!(error.is_transient() && error.is_resumable(), "{error}");
        assert_eq!(error.failed_events(), Some(3));
    }
    sink.write_batch(&batch).unwrap();
    assert_eq!(seen(&server, 4), ["1 logs with gap 7", "3 points", "3 points", "3 points"]);
    sink.write_batch(&numbers(1)).unwrap();
    assert_eq!(seen(&server, 1), ["1 points"], "nothing is missing");
    assert!(server.has_no_request());
}

#[test]
fn a_gap_was_said_by_a_request_all_of_whose_events_are_rejected() {
    // partial_success { rejected_log_records: 99 }
    let server = Server::start(vec![reply("200 OK", &[], b"\x0a\x02\x08\x63"), ok()]);
    let mut sink = OtlpSink::builder().endpoint(server.url()).build().unwrap();
    let mut batch = numbers(3);
    batch.add_gap(7);
    assert_eq!(sink.write_batch(&batch).unwrap_err().failed_events(), Some(3));
    sink.write_batch(&numbers(1)).unwrap();
    assert_eq!(seen(&server, 2), ["4 logs with gap 7", "2 logs with gap 3"]);
}

/// Event whose code panics where it has no record.
#[derive(Clone)]
struct Odd(Option<Record>);

impl forebay::Event for Odd {}

impl AsRef<Record> for Odd {
    fn as_ref(&self) -> &Record {
        self.0.as_ref().expect("no record")
    }
}

#[test]
fn an_event_that_panics_fails_alone_and_counts_once_also_when_it_is_tried_again() {
    let server = Server::start(vec![ok(), busy(), ok(), ok()]);
    let mut sink =
        OtlpSink::builder().endpoint(server.url()).max_request_bytes(4096).metrics(true).build().unwrap();
    let large = |name: &'static str| Odd(Some(Record::text(name, "x".repeat(2500))));
    let number = Odd(Some(Record::scalar("number", 1.0)));
    let batch = Batch::from_events(vec![Odd(None), large("a"), Odd(None), large("b"), number, Odd(None)]);
    let error = sink.write_batch(&batch).unwrap_err();
    assert!(error.is_transient() && error.is_resumable(), "{error}");
    assert_eq!(error.failed_events(), Some(5));
    let error = sink.write_batch(&batch).unwrap_err();
    assert_eq!((error.is_transient(), error.failed_events()), (false, Some(3)));
    assert!(error.to_string().contains("as_ref"), "{error}");
    let names: Vec<_> = (0..3).flat_map(|_| names(&server.request().body)).collect();
    assert_eq!(names, ["a", "b", "b"]);
    assert_eq!(metrics(&server.request().body).len(), 1);
    assert!(server.has_no_request());
}
