//! Values of headers appear nowhere: not in logs of ours or of the client, not in errors, not in `Debug`.

use std::sync::Mutex;

use forebay::sink::{Sink, SinkExt};
use forebay::{Batch, Collector, Record};
use forebay_otlp::{OtlpBuilder, OtlpSink};

use crate::server::{Server, ok, reply};
use crate::support;

/// No other test has it: the logger gets what all tests of the process have to say.
const SECRET: &str = "Bearer t0ken-of-0ne";

/// Logger of everything that this process has to say.
struct Everything(Mutex<Vec<String>>);

static LOGGER: Everything = Everything(Mutex::new(Vec::new()));

impl log::Log for Everything {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.lock().unwrap().push(format!("{} {}", record.target(), record.args()));
    }

    fn flush(&self) {}
}

#[test]
fn no_secret_of_a_header_is_in_a_log_an_error_or_debug() {
    log::set_logger(&LOGGER).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    // It repeats what it was sent, as some do.
    let echo = reply("403 Forbidden", &[], format!("authorization: {SECRET} is not t0ken-of-0ne").as_bytes());
    // partial_success { error_message: "t0ken-of-0ne" }
    let warning = reply("200 OK", &[], b"\x0a\x0e\x12\x0ct0ken-of-0ne");
    let server = Server::start(vec![ok(), echo, warning]);
    let vars = |name: &str| match name {
        "OTEL_EXPORTER_OTLP_ENDPOINT" => Some(server.url()),
        "OTEL_EXPORTER_OTLP_HEADERS" => Some("authorization=Bearer%20t0ken-of-0ne".to_owned()),
        _ => None,
    };
    let builder = OtlpBuilder::from_vars(vars).unwrap();
    let mut said = vec![format!("{builder:?}")];
    let sink = builder.build().unwrap();
    said.push(format!("{sink:?}"));
    let hook = std::sync::Arc::new(Mutex::new(Vec::new()));
    let entries = std::sync::Arc::clone(&hook);
    let collector = Collector::builder()
        .on_log(move |entry| entries.lock().unwrap().push(format!("{entry} {entry:?}")))
        .sink(sink.isolated(4))
        .start()
        .unwrap();
    for round in 0..3 {
        if round == 1 {
            // Bytes that come are shown as they are: what a collector repeats is in them.
            assert_eq!(server.request().header("authorization"), Some(SECRET));
            log::set_max_level(log::LevelFilter::Debug);
        }
        collector.collect(Record::new("a"));
        collector.flush().unwrap();
    }
    let report = collector.stop().unwrap();
    support::law(&collector, 3);
    said.push(format!("{report:?}"));
    said.extend(hook.lock().unwrap().drain(..));
    for _ in 0..2 {
        assert_eq!(server.request().header("authorization"), Some(SECRET));
    }
    let errors = report.stats.sink("otlp").unwrap();
    assert_eq!((errors.errors, errors.failed), (2, 1));

    // Where it cannot be sent at all.
    let mut unreachable =
        OtlpSink::builder().endpoint("http://127.0.0.1:1").header("a", SECRET).build().unwrap();
    let error = unreachable.write_batch(&Batch::from_events(vec![Record::new("a")])).unwrap_err();
    said.push(format!("{error} {error:?}"));
    for header in [("bad name", SECRET), (SECRET, "="), ("a", "t0ken-of-0ne\n")] {
        let error = OtlpSink::builder().header(header.0, header.1).build().unwrap_err();
        said.push(format!("{error} {error:?}"));
    }
    // A key in the place of a name.
    for list in [
        "Bearer t0ken-of-0ne==",
        "a=b,t0ken-of-0ne==",
        "t0ken-of-0ne=",
        "authorization: Basic t0ken-of-0ne=",
        "t0ken-of-0ne:a=x",
    ] {
        let vars = |name: &str| (name == "OTEL_EXPORTER_OTLP_HEADERS").then(|| list.to_owned());
        let error = OtlpBuilder::from_vars(vars).and_then(OtlpBuilder::build).unwrap_err();
        said.push(format!("{error} {error:?}"));
    }
    let sink = OtlpSink::builder().header("t0ken-of-0ne", "x").build().unwrap();
    said.push(format!("{sink:?}"));
    // The client shows every byte that it sends, and those are stars.
    let logged = std::mem::take(&mut *LOGGER.0.lock().unwrap());
    assert!(logged.iter().any(|line| line.starts_with("ureq::")), "the client has said something");
    assert!(
        logged.iter().any(|line| line.starts_with("ureq_proto::") && line.contains("***")),
        "and shown bytes"
    );
    for line in said.iter().chain(&logged) {
        assert!(!line.contains("t0ken"), "{line}");
    }
    assert!(said.iter().any(|line| line.contains("***")), "{said:?}");
}

#[test]
fn a_secret_that_is_repeated_is_masked_whatever_is_cut_and_escaped() {
    let long = format!("Bearer {}", "5ecret".repeat(150));
    let quoted = "5ecret\"with\"quotes\\and";
    let server = |reply| Server::start(vec![reply]);
    for secret in [long.as_str(), quoted] {
        let text = format!("{} {secret} {secret}", "x".repeat(150));
        let partial =
            [&[0x12][..], &[text.len() as u8 | 0x80, (text.len() >> 7) as u8], text.as_bytes()].concat();
        let warning =
            [&[0x0a][..], &[partial.len() as u8 | 0x80, (partial.len() >> 7) as u8], &partial].concat();
        for reply in [
            reply("403 Forbidden", &[], text.as_bytes()),
            reply("302 Found", &[&format!("location: http://host/{text}")], b""),
            reply("302 Found", &[&format!("location: http://host/?{text}")], b""),
            reply("200 OK", &[], &warning),
        ] {
            let server = server(reply);
            let builder =
                OtlpSink::builder().endpoint(server.url()).header("a", "5ecret\"with").header("b", secret);
            let mut sink = builder.build().unwrap();
            let error =
                sink.write_batch(&Batch::from_events(vec![Record::new("a")])).unwrap_err().to_string();
            assert!(!error.contains("5ecr") && !error.contains("quotes") && error.contains("***"), "{error}");
        }
    }
}
