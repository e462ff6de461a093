//! Bad answers and none: each has one outcome.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use forebay::sink::{Sink, SinkError};
use forebay::{Batch, Record};
use forebay_otlp::OtlpSink;
use proptest::prelude::*;

use crate::server::{Gate, Reply, Server, ok, reply};
use crate::support::LONG;

fn batch(events: usize) -> Batch {
    Batch::from_events((0..events).map(|number| Record::integer("n", number as i64)).collect())
}

/// Offers three events to a server with this reply.
fn outcome(of: Reply) -> Result<(), SinkError> {
    let server = Server::start(vec![of]);
    let mut sink = OtlpSink::builder().endpoint(server.url()).timeout(LONG).build().unwrap();
    let result = sink.write_batch(&batch(3));
    result.inspect_err(|error| {
        let said = error.to_string();
        assert!(said.contains(&server.address.to_string()) || error.failed_events().is_some(), "{said}");
    })
}

#[track_caller]
fn is_permanent(reply: Reply, says: &str) {
    let error = outcome(reply).unwrap_err();
    assert!(!error.is_transient(), "{error}");
    assert_eq!(error.failed_events(), Some(3));
    assert!(error.to_string().contains(says), "{error}");
}

#[track_caller]
fn is_transient(reply: Reply, says: &str) -> SinkError {
    let error = outcome(reply).unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(error.failed_events(), None, "all of them");
    assert!(error.to_string().contains(says), "{error}");
    error
}

fn raw(bytes: &[u8]) -> Reply {
    Reply::Raw(bytes.to_vec())
}

#[test]
fn a_status_of_success_delivers_whatever_the_code() {
    for status in ["200 OK", "202 Accepted", "204 No Content"] {
        assert!(outcome(reply(status, &[], b"")).is_ok(), "{status}");
    }
}

#[test]
fn a_collector_that_is_busy_is_asked_again_when_it_wants() {
    for status in
        ["429 Too Many Requests", "502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"]
    {
        assert_eq!(is_transient(reply(status, &[], b""), &status[..3]).retry_after(), None);
        let error = is_transient(reply(status, &["retry-after: 7"], b""), status);
        assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
    }
    // A date far ahead is cut, and one that is over is no wait.
    let of_date = |date: &str| {
        is_transient(reply("429 Too Many Requests", &[&format!("Retry-After: {date}")], b""), "429")
            .retry_after()
    };
    assert_eq!(of_date("Wed, 21 Oct 2099 07:28:00 GMT"), Some(Duration::from_secs(300)));
    assert_eq!(of_date("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
    assert_eq!(of_date("tomorrow"), None);
}

#[test]
fn any_other_status_is_permanent_and_says_why() {
    // google.rpc.Status { code: 3, message: "no such field" }
    is_permanent(
        reply("400 Bad Request", &[], b"\x08\x03\x12\x0dno such field"),
        "400 Bad Request: \"no such field\"",
    );
    is_permanent(reply("401 Unauthorized", &[], b"who are you?"), "401 Unauthorized: \"who are you?\"");
    is_permanent(reply("404 Not Found", &[], b"<html>\x1b[31m"), "404 Not Found: \"<html>\\u{1b}[31m\"");
    is_permanent(reply("413 Payload Too Large", &[], b""), "413");
    is_permanent(reply("500 Internal Server Error", &["retry-after: 7"], b""), "500");
    is_permanent(reply("405 Method Not Allowed", &[], &[b'x'; 200_000]), "405");
}

#[test]
fn a_redirect_is_not_followed() {
    for status in
        ["301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent"]
    {
        let elsewhere = Server::start(vec![ok()]);
        let location = format!("location: http://user:5ecret@{}/v1/logs?key=5ecret", elsewhere.address);
        let error = outcome(reply(status, &[&location], b"")).unwrap_err();
        assert!(!error.is_transient() && error.to_string().contains("redirects"), "{error}");
        assert!(error.to_string().contains(&elsewhere.address.to_string()), "{error}");
        assert!(!error.to_string().contains("5ecret"), "{error}");
        assert!(elsewhere.has_no_request(), "it got nothing");
    }
}

#[test]
fn an_answer_that_is_none_delivers_nothing() {
    is_permanent(
        reply("200 OK", &["content-type: text/html"], b"<html>log in first</html>"),
        "no answer of OTLP",
    );
    is_permanent(reply("200 OK", &["Content-Type: Text/HTML; charset=utf-8"], b"ok"), "no answer of OTLP");
    is_permanent(reply("200 OK", &[], b"\n <!DOCTYPE html>"), "no answer of OTLP");
    is_permanent(reply("200 OK", &[], &vec![0x12; 100_000]), "more than 65536 bytes");
    is_permanent(raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "does not speak HTTP/1.1");
    is_permanent(raw(b"HTTP/1.1 two hundred\r\n\r\n"), "does not speak HTTP/1.1");
    // What a port for gRPC says: a frame of HTTP/2.
    is_permanent(
        raw(b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64\0\x04\0\x10\0\0\0\x06\0\0\x20\0"),
        "does not speak HTTP/1.1",
    );
    let many = "x: y\r\n".repeat(100_000);
    let error = outcome(raw(format!("HTTP/1.1 200 OK\r\n{many}\r\n").as_bytes())).unwrap_err();
    assert!(error.failed_events().is_none_or(|failed| failed == 3), "{error}");
}

#[test]
fn a_gateway_that_takes_the_events_may_say_so_in_its_own_words() {
    for body in [&b"{\"partialSuccess\":{}}"[..], b"{}", b"ok", b"accepted"] {
        let error = outcome(reply("200 OK", &["content-type: application/json"], body)).unwrap_err();
        assert_eq!((error.is_transient(), error.failed_events()), (false, Some(0)), "all are delivered");
        assert!(
            error.to_string().contains("warns") && error.to_string().contains("no answer of OTLP"),
            "{error}"
        );
    }
}

#[test]
fn a_collector_that_closes_early_may_be_asked_again() {
    is_transient(raw(b""), "cannot be reached");
    is_transient(raw(b"HTTP/1.1 200"), "cannot be reached");
    is_transient(raw(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n\x0a"), "cannot be reached");
}

#[test]
fn a_collector_that_is_not_there_or_silent_may_be_asked_again() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut sink = OtlpSink::builder().endpoint(format!("http://{address}")).build().unwrap();
    let error = sink.write_batch(&batch(1)).unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("cannot be reached"), "{error}");

    // It takes the connection and says nothing: the timeout ends it.
    let gate = Arc::new(Gate::default());
    let server = Server::start(vec![Reply::Gate(Arc::clone(&gate))]);
    let timeout = Duration::from_millis(50);
    let mut sink = OtlpSink::builder().endpoint(server.url()).timeout(timeout).build().unwrap();
    let error = sink.write_batch(&batch(1)).unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("did not answer in time"), "{error}");
    gate.open();

    // A name that no machine has (RFC 2606).
    let mut sink = OtlpSink::builder().endpoint("http://forebay.invalid:4318").timeout(LONG).build().unwrap();
    let error = sink.write_batch(&batch(1)).unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("cannot be reached"), "{error}");
}

#[test]
fn an_answer_that_trickles_ends_at_the_timeout() {
    // Each byte comes soon after the one before, and the answer never ends.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while stream.write_all(b"a: b\r\n").is_ok() {
            crate::support::look_again();
        }
    });
    let timeout = Duration::from_millis(100);
    let mut sink =
        OtlpSink::builder().endpoint(format!("http://{address}")).timeout(timeout).build().unwrap();
    // Either the time is over, or the head of the answer is too long.
    let error = sink.write_batch(&batch(1)).unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    drop(sink);
    thread.join().unwrap();
}

#[test]
fn what_a_collector_rejects_is_lost_with_its_reason_and_the_rest_is_delivered() {
    // partial_success { rejected_log_records: 2, error_message: "too old" }
    let error = outcome(reply("200 OK", &[], b"\x0a\x0b\x08\x02\x12\x07too old")).unwrap_err();
    assert_eq!((error.is_transient(), error.failed_events()), (false, Some(2)));
    assert!(error.to_string().contains("rejected 2 of 3 events: \"too old\""), "{error}");
    // More than there were.
    let error = outcome(reply("200 OK", &[], b"\x0a\x02\x08\x63")).unwrap_err();
    assert_eq!(error.failed_events(), Some(3));
    // A warning: all were taken.
    let error = outcome(reply("200 OK", &[], b"\x0a\x06\x12\x04slow")).unwrap_err();
    assert_eq!((error.is_transient(), error.failed_events()), (false, Some(0)));
    assert!(error.to_string().contains("warns: \"slow\""), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 200, ..Default::default() })]

    #[test]
    fn whatever_is_answered_there_is_one_outcome(
        status in "HTTP/1\\.[019] [0-9]{3} [a-z]{0,3}\r\n|[ -~]{0,20}",
        headers in "(content-length: [0-9]{1,3}\r\n|transfer-encoding: chunked\r\n|retry-after: [ -~]{0,9}\r\n){0,2}",
        body in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let answer = [status.as_bytes(), headers.as_bytes(), b"\r\n", &body].concat();
        if let Err(error) = outcome(Reply::Raw(answer)) {
            // All failed, or as many as it says.
            prop_assert!(error.failed_events().is_none_or(|failed| failed <= 3));
            prop_assert!(!error.to_string().chars().any(char::is_control), "{}", error);
        }
    }
}
