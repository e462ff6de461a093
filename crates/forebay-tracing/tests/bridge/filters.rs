//! Filters: those of tracing, and the gate of the collector.

use forebay::config::GateConfig;
use forebay::sink::MemorySink;
use forebay::{Collector, Priority};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::prelude::*;
use tracing_subscriber::reload;

use crate::messages;
use crate::support::law;

fn collector(gate: GateConfig) -> (Collector, MemorySink) {
    let memory = MemorySink::new();
    (Collector::builder().gate(gate).sink(memory.clone()).start().unwrap(), memory)
}

/// A value that nobody may format.
struct Unwanted;

impl std::fmt::Debug for Unwanted {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("it is formatted although nobody wants it")
    }
}

#[test]
fn an_event_that_the_gate_rejects_is_counted_and_none_of_its_fields_is_formatted() {
    let gate = GateConfig::default().with_min_priority(Priority::Normal).with_deny(vec!["noisy.*".into()]);
    let (collector, memory) = collector(gate);
    let (layer, guard) = forebay_tracing::layer(collector.clone());
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        tracing::debug!(value = ?Unwanted, "low");
        tracing::info!(target: "noisy::part", value = ?Unwanted, "denied");
        tracing::error!(target: "noisy::part", "critical ones pass");
        tracing::info!("wanted");
    });
    let report = guard.stop();
    let stats = law(&collector, 4);
    assert_eq!((stats.filtered, stats.processed, report.counts.panicked, report.lost()), (2, 2, 0, 0));
    let mut messages = messages(&memory.events()).iter().map(|text| text.to_string()).collect::<Vec<_>>();
    messages.sort();
    assert_eq!(messages, ["critical ones pass", "wanted"]);
}

#[test]
fn the_gate_as_a_filter_is_asked_before_an_event_is_made_and_may_change() {
    let (collector, memory) = collector(GateConfig::default().with_min_priority(Priority::Normal));
    let (layer, guard) = forebay_tracing::layer(collector.clone());
    let filter = forebay_tracing::gate(&collector);
    let log = || tracing::debug!("low");
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer.with_filter(filter)), || {
        log();
        collector.update_config(|config| config.gate.min_priority = Priority::Low).unwrap();
        log();
        collector.update_config(|config| config.gate.enabled = false).unwrap();
        log();
    });
    let everywhere = tracing_subscriber::registry().with(forebay_tracing::gate(&collector));
    tracing::subscriber::with_default(everywhere, || {
        assert!(!tracing::enabled!(tracing::Level::ERROR));
        collector.update_config(|config| config.gate.enabled = true).unwrap();
        assert!(tracing::enabled!(tracing::Level::TRACE));
    });
    drop(guard);
    law(&collector, 1);
    assert_eq!(messages(&memory.events()), ["low"]);
}

#[test]
fn filters_of_tracing_keep_events_from_this_layer_alone() {
    let ((wide, all), (narrow, some)) = (collector(GateConfig::default()), collector(GateConfig::default()));
    let ((wide, wide_guard), (narrow, narrow_guard)) =
        (forebay_tracing::layer(wide), forebay_tracing::layer(narrow));
    let filter = EnvFilter::new("warn,part[{special}]=trace");
    let subscriber = tracing_subscriber::registry().with(wide).with(narrow.with_filter(filter));
    tracing::subscriber::with_default(subscriber, || {
        tracing::trace!("trace");
        tracing::info!("info");
        tracing::warn!("warn");
    });
    assert_eq!((wide_guard.stop().lost(), narrow_guard.stop().lost()), (0, 0));
    assert_eq!((all.len(), messages(&some.events())), (3, vec!["warn"]));
}

#[test]
fn a_layer_and_its_filter_can_be_reloaded() {
    let ((first, before), (second, after)) =
        (collector(GateConfig::default()), collector(GateConfig::default()));
    let ((first, first_guard), (second, second_guard)) =
        (forebay_tracing::layer(first), forebay_tracing::layer(second));
    let (filter, filter_handle) = reload::Layer::new(LevelFilter::INFO);
    let (layer, layer_handle) = reload::Layer::new(first);
    let subscriber = tracing_subscriber::registry().with(filter).with(layer);
    tracing::subscriber::with_default(subscriber, || {
        let log = |number: u64| tracing::debug!("debug {number}");
        log(1);
        filter_handle.reload(LevelFilter::DEBUG).unwrap();
        let _span = tracing::info_span!("around", id = 7).entered();
        log(2);
        layer_handle.reload(second).unwrap();
        // The span is older than the layer.
        log(3);
    });
    assert_eq!((first_guard.stop().lost(), second_guard.stop().lost()), (0, 0));
    assert_eq!(messages(&before.events()), ["debug 2"]);
    assert_eq!(messages(&after.events()), ["debug 3"]);
    assert_eq!(crate::field(&after.events()[0], "id").as_i64(), Some(7));
}

#[test]
fn events_of_the_crate_log_are_kept_out_by_the_target_that_they_had() {
    let (collector, memory) = collector(GateConfig::default().with_deny(vec!["noisy.*".into()]));
    let (layer, guard) = forebay_tracing::layer(collector.clone());
    let layer = layer.ignore(["ureq"]);
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        for target in ["ureq::pool", "noisy::part", "other"] {
            let text: &dyn std::fmt::Debug = if target == "other" { &"wanted" } else { &Unwanted };
            let mut line = log::Record::builder();
            line.target(target).level(log::Level::Info);
            tracing_log::format_trace(&line.args(format_args!("{text:?}")).build()).unwrap();
        }
    });
    let report = guard.stop();
    assert_eq!((law(&collector, 2).filtered, report.counts.ignored, report.counts.panicked), (1, 1, 0));
    assert_eq!(messages(&memory.events()), ["\"wanted\""]);
}

#[test]
fn the_gate_as_a_filter_lets_spans_pass_and_everything_that_it_takes_after_a_stop() {
    let gate = GateConfig::default().with_min_priority(Priority::Normal);
    let ((stopped, _), (other, memory)) = (collector(gate), collector(GateConfig::default()));
    let everywhere = forebay_tracing::gate(&stopped);
    let (layer, guard) = forebay_tracing::layer(other.clone());
    let subscriber = tracing_subscriber::registry().with(layer).with(everywhere);
    tracing::subscriber::with_default(subscriber, || {
        let _epoch = tracing::debug_span!("epoch", epoch = 3).entered();
        tracing::debug!("low");
        tracing::info!("before");
        stopped.stop().unwrap();
        tracing::info!("after");
    });
    assert_eq!(guard.stop().lost(), 0);
    law(&stopped, 0);
    law(&other, 2);
    assert_eq!(messages(&memory.events()), ["before", "after"]);
    assert!(memory.events().iter().all(|record| crate::field(record, "epoch").as_i64() == Some(3)));
}
