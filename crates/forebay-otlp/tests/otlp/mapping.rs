//! What records become, read back by the messages that OpenTelemetry generates.

use std::collections::HashMap;
use std::time::{Duration, UNIX_EPOCH};

use forebay::sink::Sink;
use forebay::{
    Batch, Collector, Fields, Histogram, Image, Priority, Record, Value, event::Encoded, event::List,
};
use forebay_otlp::{OtlpBuilder, OtlpSink};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric::Data, number_data_point::Value as Number};
use proptest::prelude::*;
use prost::Message;

use crate::server::{Server, ok};
use crate::support;

pub(crate) fn logs(body: &[u8]) -> Vec<LogRecord> {
    let request = ExportLogsServiceRequest::decode(body).unwrap();
    request
        .resource_logs
        .into_iter()
        .flat_map(|logs| logs.scope_logs)
        .flat_map(|logs| logs.log_records)
        .collect()
}

pub(crate) fn metrics(body: &[u8]) -> Vec<Metric> {
    let request = ExportMetricsServiceRequest::decode(body).unwrap();
    let scopes = request.resource_metrics.into_iter().flat_map(|metrics| metrics.scope_metrics);
    scopes.flat_map(|metrics| metrics.metrics).collect()
}

pub(crate) fn named(attributes: &[KeyValue]) -> HashMap<&str, Any> {
    let pairs = attributes.iter().map(|pair| (pair.key.as_str(), pair.value.clone().unwrap().value.unwrap()));
    let named: HashMap<_, _> = pairs.collect();
    assert_eq!(named.len(), attributes.len(), "a key comes twice");
    named
}

fn text(text: &str) -> Any {
    Any::StringValue(text.to_owned())
}

/// Sends records as logs and returns what came.
fn sent_as_logs(records: Vec<Record>) -> Vec<LogRecord> {
    let server = Server::start(vec![ok()]);
    let mut sink = OtlpSink::builder().endpoint(server.url()).build().unwrap();
    sink.write_batch(&Batch::from_events(records)).unwrap();
    logs(&server.request().body)
}

/// Sends records as metrics, and returns what came.
fn sent_as_metrics(records: Vec<Record>, with: impl FnOnce(OtlpBuilder) -> OtlpBuilder) -> Vec<Metric> {
    let server = Server::start(vec![ok()]);
    let mut sink = with(OtlpSink::builder().endpoint(server.url()).metrics(true)).build().unwrap();
    sink.write_batch(&Batch::from_events(records)).unwrap();
    let request = server.request();
    assert_eq!(request.line, "POST /v1/metrics HTTP/1.1");
    assert!(server.has_no_request(), "there is nothing for logs");
    metrics(&request.body)
}

#[test]
fn a_value_of_every_kind_becomes_a_log_record() {
    let time = UNIX_EPOCH + Duration::from_nanos(1_795_000_000_123_456_789);
    let histogram = Histogram::from_counts(vec![0.0, 1.0, 2.0], vec![3, 4], 7.5, 9.0).unwrap();
    let image = Image::gray(2, 1, vec![0, 255]).unwrap();
    let list = List::from_iter([Value::from(1), Value::from("two"), Value::Empty]);
    let values = [
        Value::Empty,
        Value::from(0.5),
        Value::from(f64::NAN),
        Value::from(-7),
        Value::from(true),
        Value::from("text\u{1b}[31m\n\0"),
        Value::from(list),
        Value::from(histogram),
        Value::from(image),
        Value::from(Encoded::Summary(vec![1, 2].into())),
        Value::from(
            Fields::new()
                .with("message", "hello")
                .with("answer", 42)
                .with("inner", Fields::new().with("a", 1)),
        ),
    ];
    let records = values.map(|value| Record::with_value("a.b", value).with_time(time).with_step(3));
    let logs = sent_as_logs(records.into());
    assert_eq!(logs.len(), 11);
    for log in &logs {
        assert_eq!((log.event_name.as_str(), log.time_unix_nano), ("a.b", 1_795_000_000_123_456_789));
        assert!(log.observed_time_unix_nano > 0);
        assert_eq!((log.severity_number, log.severity_text.as_str()), (9, "INFO"));
        assert_eq!(named(&log.attributes)["forebay.step"], Any::IntValue(3));
    }
    let body = |at: usize| logs[at].body.clone().and_then(|body| body.value);
    assert_eq!(body(0), None);
    assert_eq!(body(1), Some(Any::DoubleValue(0.5)));
    assert!(matches!(body(2), Some(Any::DoubleValue(value)) if value.is_nan()));
    assert_eq!(body(3), Some(Any::IntValue(-7)));
    assert_eq!(body(4), Some(Any::BoolValue(true)));
    assert_eq!(body(5), Some(text("text\u{1b}[31m\n\0")));
    let Some(Any::ArrayValue(array)) = body(6) else { panic!("{:?}", body(6)) };
    let array: Vec<_> = array.values.into_iter().map(|value| value.value).collect();
    assert_eq!(array, [Some(Any::IntValue(1)), Some(text("two")), None]);
    let Some(Any::KvlistValue(pairs)) = body(7) else { panic!("{:?}", body(7)) };
    let pairs = named(&pairs.values);
    assert_eq!(pairs["sum"], Any::DoubleValue(7.5));
    let Any::ArrayValue(counts) = &pairs["counts"] else { panic!("{pairs:?}") };
    let int = |value| AnyValue { value: Some(Any::IntValue(value)) };
    assert_eq!(counts.values, [int(3), int(4)]);
    assert_eq!(body(8), Some(Any::BytesValue(vec![0, 255])));
    assert_eq!(named(&logs[8].attributes)["forebay.image.width"], Any::IntValue(2));
    assert_eq!(body(9), Some(Any::BytesValue(vec![1, 2])));
    // The message is what people read; other fields are attributes.
    assert_eq!(body(10), Some(text("hello")));
    let attributes = named(&logs[10].attributes);
    assert_eq!((&attributes["message"], &attributes["answer"]), (&text("hello"), &Any::IntValue(42)));
    let Any::KvlistValue(inner) = &attributes["inner"] else { panic!("{attributes:?}") };
    assert_eq!(named(&inner.values)["a"], Any::IntValue(1));
}

#[test]
fn no_value_is_nested_so_deep_that_a_decoder_refuses_the_request() {
    let (mut list, mut fields) = (Value::from(1), Value::from(1));
    for _ in 0..Value::MAX_DEPTH - 1 {
        list = List::from_iter([list]).into();
        fields = Fields::new().with("f", fields).into();
    }
    let fields =
        Record::with_value("fields", Fields::new().with("f", fields)).with_metadata("list", list.clone());
    let logs = sent_as_logs(vec![Record::with_value("list", list), fields]);
    let mut value = logs[0].body.clone().unwrap();
    let mut levels = 0;
    while let Some(Any::ArrayValue(mut array)) = value.value {
        (value, levels) = (array.values.remove(0), levels + 1);
    }
    assert_eq!(levels, 24);
    let Some(Any::StringValue(rest)) = value.value else { panic!("{value:?}") };
    assert!(rest.starts_with("[[[") && rest.contains('1'), "{rest}");
}

fn any_value() -> impl Strategy<Value = Value> {
    let plain = prop_oneof![
        Just(Value::Empty),
        any::<f64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop::collection::vec(any::<f64>(), 0..50).prop_map(|numbers| Histogram::from_values(
            &numbers,
            numbers.len()
        )
        .into()),
        prop::collection::vec(any::<u8>(), 0..50).prop_map(|bytes| Encoded::Event(bytes.into()).into()),
    ];
    plain.prop_recursive(6, 50, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..5).prop_map(|pairs| {
                let with = |fields: Fields, (name, value): (String, Value)| fields.with(name, value);
                pairs.into_iter().fold(Fields::new(), with).into()
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..Default::default() })]

    #[test]
    fn any_records_are_decoded_each_once(
        records in prop::collection::vec((any::<String>(), any_value(), any::<i64>(), any_value()), 1..20),
        limit in 4096..20_000_usize,
    ) {
        let server = Server::start(vec![ok()]);
        let builder = OtlpSink::builder().endpoint(server.url()).metrics(true).max_request_bytes(limit);
        let records = records.into_iter().map(|(name, value, step, metadata)| {
            Record::with_value(name, value).with_signed_step(step).with_metadata("m", metadata)
        });
        let records: Vec<_> = records.collect();
        let count = records.len();
        let result = builder.build().unwrap().write_batch(&Batch::from_events(records));
        let refused = result.err().map_or(0, |error| error.failed_events().unwrap() as usize);
        let mut decoded = 0;
        while decoded < count - refused {
            let request = server.request();
            prop_assert!(request.body.len() <= limit);
            decoded += if request.line.contains("logs") {
                logs(&request.body).len()
            } else {
                let points = metrics(&request.body).into_iter().map(|metric| match metric.data.unwrap() {
                    Data::Gauge(gauge) => gauge.data_points.len(),
                    Data::Histogram(histogram) => histogram.data_points.len(),
                    other => panic!("{other:?}"),
                });
                points.sum()
            };
        }
        prop_assert_eq!(decoded, count - refused);
        prop_assert!(server.has_no_request());
    }
}

#[test]
fn parts_that_few_records_have_are_attributes_and_no_key_comes_twice() {
    let record = Record::new("a")
        .with_field("host", "field")
        .with_metadata("host", "metadata")
        .with_metadata("zone", "eu")
        .with_source("web")
        .with_correlation_id("c-1")
        .with_session_id("s-1")
        .with_sub_run("eval")
        .with_tag("one")
        .with_tag("two")
        .with_signed_step(-1);
    let logs = sent_as_logs(vec![record]);
    let attributes = named(&logs[0].attributes);
    for (key, value) in [
        ("host", "field"),
        ("forebay.metadata.host", "metadata"),
        ("zone", "eu"),
        ("forebay.source", "web"),
        ("forebay.correlation_id", "c-1"),
        ("forebay.session", "s-1"),
        ("forebay.sub_run", "eval"),
    ] {
        assert_eq!(attributes[key], text(value), "{key}");
    }
    assert_eq!(attributes["forebay.step"], Any::IntValue(-1));
    let Any::ArrayValue(tags) = &attributes["forebay.tags"] else { panic!("{attributes:?}") };
    assert_eq!(tags.values.len(), 2);
}

#[test]
fn no_name_that_a_record_has_collides_with_another_or_with_ours() {
    let names = [
        "forebay.step",
        "forebay.source",
        "forebay.tags",
        "forebay.metadata.a",
        "forebay.field.a",
        "a",
        "host",
    ];
    let mut record =
        Record::new("x").with_step(7).with_source("web").with_tag("one").with_correlation_id("c");
    for name in names {
        record = record.with_field(name, "field").with_metadata(name, "metadata");
    }
    for (log, expected) in [(true, 2 * names.len() + 4), (false, names.len() + 4)] {
        let keys: Vec<String> = if log {
            sent_as_logs(vec![record.clone()])[0].attributes.iter().map(|pair| pair.key.clone()).collect()
        } else {
            let mut number = Record::scalar("x", 1.0).with_step(7).with_source("web").with_tag("one");
            number = number.with_correlation_id("c");
            for name in names {
                number = number.with_metadata(name, "metadata");
            }
            let metrics = sent_as_metrics(vec![number], |builder| builder);
            let Some(Data::Gauge(gauge)) = &metrics[0].data else { panic!("{metrics:?}") };
            gauge.data_points[0].attributes.iter().map(|pair| pair.key.clone()).collect()
        };
        let distinct: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!((keys.len(), distinct.len()), (expected, expected), "{keys:?}");
    }
}

#[test]
fn the_severity_is_what_the_record_says_or_what_its_priority_stands_for() {
    let critical = Record::new("a").with_priority(Priority::Critical);
    let records = vec![
        critical.clone(),
        Record::new("a").with_priority(Priority::Low),
        critical.with_field("level", "error"),
        Record::new("a").with_metadata("level", "TRACE"),
        Record::new("a").with_field("severity", "Warning"),
        Record::new("a").with_field("level", "odd"),
        Record::new("a").with_field("level", 3),
        Record::integer("a", 1).with_metadata("level", "error").with_metadata("metric.kind", "counter"),
    ];
    let severities = sent_as_logs(records).into_iter().map(|log| (log.severity_number, log.severity_text));
    let severities: Vec<_> = severities.collect();
    let expected = [
        (12, "INFO4"),
        (5, "DEBUG"),
        (17, "ERROR"),
        (1, "TRACE"),
        (13, "WARN"),
        (9, "INFO"),
        (9, "INFO"),
        (9, "INFO"),
    ];
    assert_eq!(severities, expected.map(|(number, text)| (number, text.to_owned())));
}

#[test]
fn ids_of_a_trace_are_ids() {
    let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let with = |trace: &str, span: &str| {
        Record::new("a").with_metadata("trace_id", trace).with_field("span_id", span)
    };
    let records = vec![with(trace, span), with("short", "xyz"), with(&"0".repeat(32), &"é".repeat(8))];
    let logs = sent_as_logs(records);
    assert_eq!((logs[0].trace_id.len(), logs[0].trace_id[0], logs[0].span_id[1]), (16, 0x4b, 0xf0));
    for log in &logs[1..] {
        assert!(log.trace_id.is_empty() && log.span_id.is_empty(), "no id, and no error");
    }
}

#[test]
fn numbers_are_points_of_gauges_and_sums_and_histograms_have_bounds() {
    let time = UNIX_EPOCH + Duration::from_secs(2_000_000_000);
    let histogram = Histogram::from_counts(vec![-1.0, 0.0, 0.0, 5.0], vec![1, 2, 4], 7.5, 9.0).unwrap();
    // As forebay-metrics makes it of two numbers and chosen bounds.
    let chosen =
        Histogram::from_counts(vec![0.1, 0.1, 1.0, 1.0_f64.next_up()], vec![0, 2, 0], 0.5, 0.13).unwrap();
    let counter = Record::integer("requests", 9)
        .with_metadata("metric.kind", "counter")
        .with_metadata("metric.unit", "1")
        .with_metadata("metric.since", 1_900_000_000_000_000_000_i64)
        .with_metadata("route", "/");
    let mut records = vec![
        Record::scalar("loss", 0.5).with_step(1),
        Record::scalar("loss", 0.25).with_step(2),
        Record::integer("loss", 7).with_step(3),
        Record::integer("tokens.total", 100),
        counter,
        Record::histogram("weights", histogram),
        Record::histogram("empty", Histogram::default()),
        Record::scalar("nan", f64::NAN),
        Record::histogram("chosen", chosen).with_metadata("metric.min", 0.2).with_metadata("metric.max", 0.3),
    ];
    records.iter_mut().for_each(|record| *record = record.clone().with_time(time));
    let metrics = sent_as_metrics(records, |builder| builder.sums("tokens.total"));
    let names: Vec<_> = metrics.iter().map(|metric| (metric.name.as_str(), metric.unit.as_str())).collect();
    let expected = ["loss", "tokens.total", "requests", "weights", "empty", "nan", "chosen"]
        .map(|name| (name, if name == "requests" { "1" } else { "" }));
    assert_eq!(names, expected, "points of one metric are together");

    let Some(Data::Gauge(loss)) = &metrics[0].data else { panic!("{:?}", metrics[0]) };
    let points: Vec<_> = loss.data_points.iter().map(|point| point.value.unwrap()).collect();
    assert_eq!(points, [Number::AsDouble(0.5), Number::AsDouble(0.25), Number::AsInt(7)]);
    assert_eq!(named(&loss.data_points[1].attributes)["forebay.step"], Any::IntValue(2));
    assert_eq!(loss.data_points[0].time_unix_nano, 2_000_000_000_000_000_000);

    for at in [1, 2] {
        let Some(Data::Sum(sum)) = &metrics[at].data else { panic!("{:?}", metrics[at]) };
        assert_eq!((sum.aggregation_temporality, sum.is_monotonic), (2, true));
    }
    let Some(Data::Sum(requests)) = &metrics[2].data else { panic!("{:?}", metrics[2]) };
    let point = &requests.data_points[0];
    assert_eq!(
        (point.value, point.start_time_unix_nano),
        (Some(Number::AsInt(9)), 1_900_000_000_000_000_000)
    );
    assert_eq!(
        named(&point.attributes),
        HashMap::from([("route", text("/"))]),
        "what it is, is no attribute"
    );

    let Some(Data::Histogram(weights)) = &metrics[3].data else { panic!("{:?}", metrics[3]) };
    assert_eq!(weights.aggregation_temporality, 1);
    let point = &weights.data_points[0];
    assert_eq!((point.count, point.sum), (7, Some(7.5)));
    assert_eq!((point.min, point.max), (Some(-1.0), Some(5.0)));
    assert_eq!(
        (&point.explicit_bounds[..], &point.bucket_counts[..]),
        (&[0.0][..], &[3, 4][..]),
        "bounds ascend"
    );

    let Some(Data::Histogram(empty)) = &metrics[4].data else { panic!("{:?}", metrics[4]) };
    let point = &empty.data_points[0];
    assert_eq!((point.count, point.bucket_counts.len(), point.min), (0, 0, None));

    let Some(Data::Histogram(chosen)) = &metrics[6].data else { panic!("{:?}", metrics[6]) };
    let point = &chosen.data_points[0];
    assert_eq!((&point.explicit_bounds[..], &point.bucket_counts[..]), (&[0.1, 1.0][..], &[0, 2, 0][..]));
    assert_eq!((point.min, point.max, point.attributes.len()), (Some(0.2), Some(0.3), 0));
}

#[test]
fn a_text_beside_numbers_is_a_log_and_a_number_without_a_name_as_well() {
    let server = Server::start(vec![ok()]);
    let mut sink = OtlpSink::builder().endpoint(server.url()).metrics(true).build().unwrap();
    let records = vec![Record::scalar("a", 1.0), Record::text("b", "x"), Record::scalar("", 2.0)];
    sink.write_batch(&Batch::from_events(records)).unwrap();
    let (first, second) = (server.request(), server.request());
    assert_eq!(
        (first.line.as_str(), second.line.as_str()),
        ("POST /v1/logs HTTP/1.1", "POST /v1/metrics HTTP/1.1")
    );
    let names: Vec<_> = logs(&first.body).into_iter().map(|log| log.event_name).collect();
    assert_eq!(names, ["b", ""]);
    assert_eq!(metrics(&second.body).len(), 1);
}

#[test]
fn the_resource_says_where_events_come_from() {
    let server = Server::start(vec![ok()]);
    let sink = OtlpSink::builder()
        .endpoint(server.url())
        .resource("deployment.environment.name", "staging")
        .resource("host.name", "mine")
        .build()
        .unwrap();
    let collector =
        Collector::builder().source("trainer").rank(3).session_id("s-1").sink(sink).start().unwrap();
    collector.collect(Record::new("a"));
    collector.stop().unwrap();
    support::law(&collector, 1);
    let request = ExportLogsServiceRequest::decode(&*server.request().body).unwrap();
    assert_eq!(request.resource_logs.len(), 1);
    let scope = request.resource_logs[0].scope_logs[0].scope.clone().unwrap();
    assert_eq!((scope.name.as_str(), scope.version.as_str()), ("forebay", env!("CARGO_PKG_VERSION")));
    let attributes = request.resource_logs[0].resource.clone().unwrap().attributes;
    let attributes = named(&attributes);
    for (key, value) in [
        ("service.name", "trainer"),
        ("service.instance.id", "s-1"),
        ("forebay.session", "s-1"),
        ("host.name", "mine"),
        ("deployment.environment.name", "staging"),
    ] {
        assert_eq!(attributes[key], text(value), "{key}");
    }
    assert_eq!(attributes["process.pid"], Any::IntValue(std::process::id().into()));
    assert_eq!(attributes["forebay.rank"], Any::IntValue(3));
}

#[test]
fn events_that_are_missing_are_marked_at_their_place() {
    let server = Server::start(vec![ok()]);
    let sink = OtlpSink::builder().endpoint(server.url()).build().unwrap();
    // Nothing is delivered before all is collected: the oldest are evicted.
    let collector = Collector::builder().capacity(8).flush(support::HOURLY).sink(sink).build().unwrap();
    for step in 0..20 {
        collector.collect(Record::scalar("a", 0.0).with_step(step));
    }
    collector.start().unwrap();
    collector.stop().unwrap();
    let stats = support::law(&collector, 20);
    assert_eq!(stats.evicted, 12);
    let logs = logs(&server.request().body);
    assert_eq!(logs.len(), 9);
    assert_eq!((logs[0].event_name.as_str(), logs[0].severity_text.as_str()), ("forebay.gap", "WARN"));
    assert_eq!(logs[0].body.clone().unwrap().value, Some(Any::IntValue(12)));
    assert_eq!(named(&logs[1].attributes)["forebay.step"], Any::IntValue(12));
}
