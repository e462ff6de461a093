//! The standard variables, read from a list: no test changes the environment of its process.

use std::time::Duration;

use forebay::sink::Sink;
use forebay::{Batch, Record};
use forebay_otlp::{OtlpBuilder, OtlpError, OtlpSink};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use prost::Message;

use crate::mapping::named;
use crate::server::{Server, ok};

fn from(vars: &[(&str, &str)]) -> Result<OtlpSink, OtlpError> {
    let value_of =
        |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    OtlpBuilder::from_vars(value_of)?.build()
}

fn batch() -> Batch {
    Batch::from_events(vec![Record::text("log", "x"), Record::scalar("metric", 1.0)])
}

#[test]
fn a_value_that_is_not_allowed_is_named_with_what_is() {
    let error_of = |name, value| from(&[(name, value)]).unwrap_err().to_string();
    for name in [
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL",
        "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
    ] {
        assert_eq!(error_of(name, "grpc"), format!("{name} must be http/protobuf, got \"grpc\""));
        assert_eq!(error_of(name, "http/json"), format!("{name} must be http/protobuf, got \"http/json\""));
    }
    let expected = "OTEL_EXPORTER_OTLP_ENDPOINT must be a URL that begins with http:// or https://, got \"localhost:4318\"";
    assert_eq!(error_of("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318"), expected);
    for timeout in ["0", "-1", "1.5", "10s", "99999999999999999999"] {
        let expected = format!(
            "OTEL_EXPORTER_OTLP_TIMEOUT must be a whole number of milliseconds from 1, got {timeout:?}"
        );
        assert_eq!(error_of("OTEL_EXPORTER_OTLP_TIMEOUT", timeout), expected);
    }
    let expected = "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION must be gzip or none, got \"zstd\"";
    assert_eq!(error_of("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "zstd"), expected);
    let error = error_of("OTEL_EXPORTER_OTLP_HEADERS", "5ecret");
    assert!(error.starts_with("OTEL_EXPORTER_OTLP_HEADERS must be") && !error.contains("5ecret"), "{error}");
    let expected = "OTEL_RESOURCE_ATTRIBUTES must be a list such as name=value,name=value, got \"a\"";
    assert_eq!(error_of("OTEL_RESOURCE_ATTRIBUTES", "a"), expected);
    let error = error_of("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such/file");
    assert!(error.starts_with("OTEL_EXPORTER_OTLP_CERTIFICATE must be "), "{error}");
    assert!(error.contains("got \"/no/such/file\""), "{error}");
    let error = error_of("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/no/such/file");
    assert!(error.starts_with("OTEL_EXPORTER_OTLP_CLIENT_KEY must be "), "{error}");
    let error = error_of("http_proxy", "socks5://user:5ecret@localhost:1");
    assert_eq!(
        error,
        "http_proxy must be the URL of a proxy, http:// or https://, got \"socks5://***@localhost:1\""
    );
}

#[test]
fn a_variable_that_is_empty_is_not_set() {
    from(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", ""),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", " "),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", ""),
        ("OTEL_EXPORTER_OTLP_HEADERS", ""),
        ("OTEL_RESOURCE_ATTRIBUTES", ""),
        ("HTTP_PROXY", ""),
    ])
    .unwrap();
}

#[test]
fn variables_of_a_signal_go_before_those_of_all_and_methods_before_both() {
    let (all, own) = (Server::start(vec![ok()]), Server::start(vec![ok()]));
    let (base, whole) = (all.url(), format!("{}/my/logs", own.url()));
    let vars = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", base.as_str()),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", whole.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-all=1"),
        ("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "x-logs=2%2C3"),
        ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_SERVICE_NAME", "checkout"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,service.version=1%2E2,host.name=mine"),
    ];
    let value_of =
        |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    let builder = || OtlpBuilder::from_vars(value_of).unwrap().metrics(true);
    builder().header("x-mine", "4").build().unwrap().write_batch(&batch()).unwrap();
    let (logs, metrics) = (own.request(), all.request());
    assert_eq!(
        (logs.line.as_str(), metrics.line.as_str()),
        ("POST /my/logs HTTP/1.1", "POST /v1/metrics HTTP/1.1")
    );
    assert_eq!(
        (logs.header("x-all"), logs.header("x-logs"), logs.header("x-mine")),
        (None, Some("2,3"), Some("4"))
    );
    assert_eq!((metrics.header("x-all"), metrics.header("x-mine")), (Some("1"), Some("4")));
    assert_eq!((logs.header("content-encoding"), metrics.header("content-encoding")), (None, Some("gzip")));
    let request = ExportLogsServiceRequest::decode(&*logs.body).unwrap();
    let attributes = request.resource_logs[0].resource.clone().unwrap().attributes;
    let attributes = named(&attributes);
    for (key, value) in [("service.name", "checkout"), ("service.version", "1.2"), ("host.name", "mine")] {
        assert_eq!(attributes[key], Any::StringValue(value.to_owned()), "{key}");
    }
    let sink =
        builder().gzip(false).timeout(Duration::from_secs(60)).logs_endpoint(all.url()).service_name("mine");
    sink.build().unwrap().write_batch(&batch()).unwrap();
    let (logs, metrics) = (all.request(), all.request());
    assert_eq!((logs.line.as_str(), metrics.line.as_str()), ("POST / HTTP/1.1", "POST /v1/metrics HTTP/1.1"));
    assert_eq!(metrics.header("content-encoding"), None);
    // The endpoint of all signals, too, takes the place of what a variable says for one.
    builder()
        .metrics(false)
        .endpoint(format!("{}/here", all.url()))
        .build()
        .unwrap()
        .write_batch(&batch())
        .unwrap();
    assert_eq!(all.request().line, "POST /here/v1/logs HTTP/1.1");
}

#[test]
fn a_proxy_is_asked_to_connect_unless_no_proxy_names_the_host() {
    let (target, proxy) = (Server::start(vec![ok()]), Server::start(vec![ok()]));
    let (endpoint, through) = (target.url(), format!("http://user:5ecret@{}", proxy.address));
    let vars = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("HTTP_PROXY", through.as_str())];
    // The proxy of this test answers and closes: nothing goes further, and the password is not shown.
    let error = from(&vars).unwrap().write_batch(&batch()).unwrap_err();
    assert!(error.is_transient() && !error.to_string().contains("5ecret"), "{error}");
    let request = proxy.request();
    assert_eq!(request.line, format!("CONNECT {} HTTP/1.1", target.address));
    assert!(request.header("proxy-authorization").is_some());
    assert!(target.has_no_request());

    for no_proxy in ["127.0.0.1", "example.org, 127.0.0.1", "*"] {
        let vars = [vars[0], vars[1], ("NO_PROXY", no_proxy)];
        from(&vars).unwrap().write_batch(&batch()).unwrap();
        target.request();
        assert!(proxy.has_no_request(), "{no_proxy}");
    }
    // That of the other scheme is not for it, and one that is set by a method reads no variable.
    from(&[vars[0], ("HTTPS_PROXY", through.as_str())]).unwrap().write_batch(&batch()).unwrap();
    OtlpSink::builder().endpoint(&endpoint).build().unwrap().write_batch(&batch()).unwrap();
    target.request();
    target.request();
    assert!(proxy.has_no_request());
}
