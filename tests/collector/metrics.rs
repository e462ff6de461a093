//! Statistics for other systems: Prometheus and the `metrics` facade.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::*;
use forebay::sink::MemorySink;
use forebay::{Collector, FlushStrategy, Record, Stats, config::GateConfig};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

/// Statistics in which something of everything has happened, of a collector that is stopped.
fn busy() -> Stats {
    hush();
    let gate = GateConfig::default().with_deny(vec!["denied".into()]);
    let collector = Collector::builder()
        .gate(gate)
        .capacity(4)
        .flush(FlushStrategy::Manual)
        .sink(MemorySink::new())
        .sink(failing("bad \"disk\"\n\\"))
        .start()
        .unwrap();
    for step in 0..6 {
        collector.collect(Record::scalar("loss", 0.5).with_step(step));
        collector.collect(Record::new("denied"));
    }
    collector.stop().unwrap();
    collector.collect(Record::new("late"));
    law(&collector, 13)
}

/// Reads the text format as its specification has it: every value by its name and labels, and the types.
fn parse(text: &str) -> (BTreeMap<String, f64>, BTreeMap<String, String>) {
    let (mut values, mut types, mut helped) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap();
            assert!(helped.insert(name.to_owned()) && !words.is_empty(), "{line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(["counter", "gauge", "summary"].contains(&kind) && helped.contains(name), "{line}");
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{line}");
            assert!(types.contains_key(name), "a value before its type: {line}");
            // promtool takes this label in a summary alone.
            assert_eq!(series.contains("quantile="), types[name] == "summary", "{line}");
            assert!(values.insert(series.to_owned(), value.parse().unwrap()).is_none(), "twice: {line}");
        }
    }
    (values, types)
}

#[test]
fn the_text_has_every_number_once_and_adds_up() {
    let stats = busy();
    let (values, types) = parse(&stats.to_prometheus(""));
    let of = |series: &str| values[series];
    assert_eq!(of("forebay_events_total{fate=\"processed\"}"), 4.0);
    assert_eq!(of("forebay_events_total{fate=\"evicted\"}"), 2.0);
    assert_eq!(of("forebay_events_total{fate=\"filtered\"}"), 6.0);
    assert_eq!(of("forebay_events_total{fate=\"rejected_stopped\"}"), 1.0);
    let all: f64 =
        values.iter().filter(|(name, _)| name.starts_with("forebay_events_total")).map(|of| of.1).sum();
    assert_eq!(all + of("forebay_pending_events"), stats.offered as f64);
    assert_eq!(of("forebay_sink_events_total{sink=\"memory\",fate=\"delivered\"}"), 4.0);
    let odd = "bad \\\"disk\\\"\\n\\\\";
    assert_eq!(of(&format!("forebay_sink_events_total{{sink=\"{odd}\",fate=\"failed\"}}")), 4.0);
    assert!(of("forebay_latency_seconds{quantile=\"0.5\"}") > 0.0);
    assert!(types.iter().all(|(name, kind)| name.ends_with("_total") == (kind == "counter")), "{types:?}");
}

#[test]
fn every_value_has_the_name_of_the_collector_as_a_label_and_it_is_escaped() {
    let stats = busy();
    let (bare, _) = parse(&stats.to_prometheus(""));
    let (named, _) = parse(&stats.to_prometheus("a \"b\"\n\\"));
    let label = "collector=\"a \\\"b\\\"\\n\\\\\"";
    let labelled = bare.into_iter().map(|(series, value)| match series.split_once('{') {
        Some((name, labels)) => (format!("{name}{{{label},{labels}"), value),
        None => (format!("{series}{{{label}}}"), value),
    });
    assert_eq!(named, labelled.collect());
}

#[test]
fn the_facade_gets_the_same_numbers() {
    let stats = busy();
    let recorder = DebuggingRecorder::new();
    let snapshot = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || stats.publish());
    let mut seen = BTreeMap::new();
    for (key, _, _, value) in snapshot.snapshot().into_vec() {
        let key = key.key();
        let labels: Vec<String> =
            key.labels().map(|label| format!("{}={:?}", label.key(), label.value())).collect();
        let series = if labels.is_empty() {
            key.name().to_owned()
        } else {
            format!("{}{{{}}}", key.name(), labels.join(","))
        };
        let value = match value {
            DebugValue::Counter(number) => number as f64,
            DebugValue::Gauge(number) => number.into_inner(),
            DebugValue::Histogram(_) => panic!("{series}"),
        };
        seen.insert(series, value);
    }
    let (reported, _) = parse(&stats.to_prometheus(""));
    assert_eq!(seen, reported);
}
