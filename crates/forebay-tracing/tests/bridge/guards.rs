//! What logs within itself, panics, or is too much.

use std::fmt;
use std::time::Duration;

use forebay::config::GateConfig;
use forebay::sink::{DeadLetters, MemorySink, SinkExt, from_fn};
use forebay::{Batch, Collector, FlushStrategy, Priority};
use tracing_subscriber::prelude::*;

use crate::support::{Gate, alone, failing, hush, law, until};
use crate::{field, messages, records, records_by};

#[test]
fn what_a_sink_logs_does_not_come_back_to_it() {
    alone!();
    let memory = MemorySink::new();
    let talks = |name: &str| {
        from_fn(name, |batch: &Batch| {
            tracing::info!(events = batch.len(), "a sink logs");
            Ok(())
        })
    };
    let collector = Collector::builder()
        .sink(memory.clone())
        .sink(talks("worker"))
        .sink(talks("thread").isolated(8))
        .start()
        .unwrap();
    let (layer, guard) = forebay_tracing::layer(collector.clone());
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer)).unwrap();
    tracing::info!("from the loop");
    collector.flush().unwrap();
    let report = guard.stop();
    law(&collector, 1);
    assert_eq!(messages(&memory.events()), ["from the loop"]);
    assert_eq!(report.counts.own_thread, 2);
    assert_eq!(report.to_string(), "1 processed, 2 lost: 2 of the threads that deliver");
}

#[test]
fn targets_that_are_ignored_are_left_out_with_the_modules_below_them() {
    let (records, report) = records_by(
        |layer| layer.ignore(["ureq", "rustls::client"]),
        || {
            tracing::info!(target: "ureq", "ignored");
            tracing::info!(target: "ureq::pool", "ignored");
            tracing::info!(target: "ureq_proto", "another crate");
            tracing::info!(target: "rustls", "above");
            drop(tracing::info_span!(target: "ureq", "request").entered());
        },
    );
    assert_eq!(messages(&records), ["another crate", "above"]);
    assert_eq!((report.counts.ignored, report.lost()), (2, 0), "a span is no event");
}

#[test]
fn on_a_thread_that_delivers_only_events_that_somebody_wants_count_as_kept_away() {
    alone!();
    let talks = from_fn("talks", |_: &Batch| {
        let span = tracing::info_span!("write", later = tracing::field::Empty).entered();
        span.record("later", 1);
        tracing::info!(target: "ureq", "ignored");
        tracing::debug!("the gate rejects it");
        tracing::info!(target: "denied", "so it does this one");
        Ok(())
    });
    let gate = GateConfig::default().with_min_priority(Priority::Normal).with_deny(vec!["denied".into()]);
    let collector = Collector::builder().gate(gate).sink(talks).start().unwrap();
    let (layer, guard) = forebay_tracing::layer(collector.clone());
    let layer = layer.ignore(["ureq"]);
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer)).unwrap();
    tracing::info!("from the loop");
    let report = guard.stop();
    law(&collector, 1);
    let counts = report.counts;
    assert_eq!((counts.own_thread, counts.ignored, report.lost()), (0, 1, 0));
}

#[test]
fn two_layers_whose_sinks_log_do_not_feed_each_other() {
    alone!();
    let (first, second) = (MemorySink::new(), MemorySink::new());
    let collector = |memory: &MemorySink| {
        let talks = from_fn("talks", |_: &Batch| {
            tracing::info!("a sink logs");
            Ok(())
        });
        Collector::builder().sink(memory.clone()).sink(talks.isolated(8)).start().unwrap()
    };
    let (one, other) = (collector(&first), collector(&second));
    let ((layer, guard), (other_layer, other_guard)) =
        (forebay_tracing::layer(one.clone()), forebay_tracing::layer(other.clone()));
    let subscriber = tracing_subscriber::registry().with(layer).with(other_layer);
    tracing::subscriber::set_global_default(subscriber).unwrap();
    tracing::info!("from the loop");
    one.flush().unwrap();
    other.flush().unwrap();
    // Each sink has logged once, and neither line came anywhere.
    assert_eq!((guard.stop().counts.own_thread, other_guard.stop().counts.own_thread), (2, 2));
    law(&one, 1);
    law(&other, 1);
    assert_eq!(
        (messages(&first.events()), messages(&second.events())),
        (vec!["from the loop"], vec!["from the loop"])
    );
}

struct Panics;

impl fmt::Debug for Panics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("half")?;
        std::panic::panic_any("on purpose")
    }
}

/// An error whose code panics where its cause is asked for.
#[derive(Debug)]
struct NoCause;

impl fmt::Display for NoCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("half").and(Err(fmt::Error))
    }
}

impl std::error::Error for NoCause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::panic::panic_any("on purpose")
    }
}

#[test]
fn an_error_that_panics_when_it_is_asked_for_its_cause_says_so_there() {
    hush();
    let error: &(dyn std::error::Error + 'static) = &NoCause;
    let (records, report) = records_by(|layer| layer, || tracing::error!(error, "it failed"));
    assert_eq!(field(&records[0], "error").as_str(), Some("half(failed)"));
    assert_eq!(field(&records[0], "error.sources").to_string(), "[(panicked: on purpose)]");
    assert_eq!((report.counts.panicked, report.counts.failed, report.lost()), (1, 1, 0));
}

#[test]
fn a_debug_that_panics_leaves_its_message_in_the_place_of_its_value() {
    hush();
    let (records, report) = records_by(
        |layer| layer,
        || {
            let _span = tracing::info_span!("span", of = ?Panics).entered();
            tracing::info!(value = ?Panics, number = 1, "{:?}", Panics);
        },
    );
    for name in ["message", "value", "of"] {
        assert_eq!(field(&records[0], name).as_str(), Some("(panicked: on purpose)"), "{name}");
    }
    assert_eq!((field(&records[0], "number").as_i64(), report.counts.panicked), (Some(1), 3));
}

/// Logs when it is formatted, and formats such a value for that, so many times.
struct Within(u32);

impl fmt::Debug for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 > 0 {
            tracing::info!(value = ?Within(self.0 - 1), "inner");
        }
        write!(f, "logs {}", self.0)
    }
}

#[test]
fn a_debug_that_logs_is_collected_four_deep_and_counted_beyond() {
    // tracing hands no event to the default of a thread while it hands another one to it. It does so with that of the process.
    alone!();
    let memory = MemorySink::new();
    let collector = Collector::builder().sink(memory.clone()).start().unwrap();
    let (layer, guard) = forebay_tracing::layer(collector.clone());
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer)).unwrap();
    // A span is not locked while its fields are formatted.
    let span = tracing::info_span!("span", of = ?Within(1), later = tracing::field::Empty);
    let entered = span.enter();
    span.record("later", tracing::field::debug(Within(1)));
    drop(entered);
    assert_eq!(collector.stats().offered, 2);
    tracing::info!(value = ?Within(10), "outer");
    let report = guard.stop();
    law(&collector, 6);
    assert_eq!(messages(&memory.events()), ["inner", "inner", "inner", "inner", "inner", "outer"]);
    assert_eq!(report.counts.too_deep, 1, "the fifth, within which nothing is formatted");
}

#[test]
fn a_long_text_is_cut_and_counted_and_a_megabyte_passes() {
    let (long, far) = ("x".repeat(1_000_000), "y".repeat(3 << 20));
    let (records, report) = records_by(
        |layer| layer,
        || {
            tracing::info!("{long}");
            tracing::info!(text = &*far, bytes = far.as_bytes(), "far too long");
        },
    );
    assert_eq!(field(&records[0], "message").as_str().map(str::len), Some(1_000_000));
    let text = field(&records[1], "text").as_str().unwrap();
    assert_eq!((text.len(), text.ends_with("y…")), ((1 << 20) + '…'.len_utf8(), true));
    assert_eq!(report.counts.cut, 2);
}

#[test]
fn a_text_of_a_span_is_cut_far_earlier() {
    let long = "x".repeat(5000);
    let (records, report) = records_by(
        |layer| layer,
        || {
            let span = tracing::info_span!("span", text = &*long, later = tracing::field::Empty).entered();
            span.record("later", &*long);
            tracing::info!("inside");
        },
    );
    let of = |name| field(&records[0], name).as_str().map(str::len);
    assert_eq!((of("text"), of("later")), (Some(4096 + '…'.len_utf8()), Some(4096 + '…'.len_utf8())));
    assert_eq!(report.counts.cut, 2);
}

#[test]
fn messages_of_a_megabyte_stay_within_the_byte_budget() {
    let gate = Gate::closed();
    let collector = Collector::builder()
        .flush(FlushStrategy::Size { events: 1 })
        .max_bytes(4 << 20)
        .sink(gate.sink())
        .start()
        .unwrap();
    let (layer, guard) = forebay_tracing::layer(collector.clone());
    let long = "x".repeat(1_000_000);
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        tracing::info!("first");
        gate.await_arrivals(1);
        for _ in 0..20 {
            tracing::info!("{long}");
        }
    });
    assert!(collector.pending_bytes() <= 4 << 20, "{}", collector.pending_bytes());
    gate.open();
    let report = guard.stop();
    let stats = law(&collector, 21);
    assert!(stats.evicted >= 16 && report.lost() + stats.processed == 21, "{report}");
}

#[test]
fn an_error_waits_for_space_in_a_full_lane_as_long_as_the_settings_say_and_not_at_all_with_another_priority()
{
    let gate = Gate::closed();
    let collector = Collector::builder()
        .flush(FlushStrategy::Size { events: 1 })
        .critical_capacity(1)
        .critical_timeout(Duration::from_millis(20))
        .sink(gate.sink())
        .start()
        .unwrap();
    let (layer, guard) = forebay_tracing::layer(collector.clone());
    let (plain, plain_guard) = forebay_tracing::layer(collector.clone());
    let plain = plain.priority(tracing::Level::ERROR, Priority::Normal);
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        tracing::error!("it is with the sink");
        gate.await_arrivals(1);
        tracing::error!("it fills the lane");
        let begun = std::time::Instant::now();
        tracing::error!("no space");
        assert!(begun.elapsed() >= Duration::from_millis(20));
    });
    assert_eq!((collector.stats().rejected.full, collector.stats().waits), (1, 1));
    tracing::subscriber::with_default(tracing_subscriber::registry().with(plain), || {
        tracing::error!("normal");
    });
    gate.open();
    assert_eq!(guard.stop().to_string(), "3 processed, 1 lost: 1 rejected as full");
    assert_eq!(law(&collector, 4).waits, 1);
    drop(plain_guard);
}

#[test]
fn a_guard_reports_at_its_drop_and_ends_by_its_deadline() {
    let gate = Gate::closed();
    let collector =
        Collector::builder().flush(FlushStrategy::Size { events: 1 }).sink(gate.sink()).start().unwrap();
    let (layer, guard) = forebay_tracing::layer(collector.clone());
    let (said, heard) = std::sync::mpsc::channel();
    let guard =
        guard.timeout(Duration::from_millis(1)).on_stop(move |report| said.send(report.clone()).unwrap());
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        tracing::info!("it hangs");
        drop(guard);
        tracing::info!("late");
    });
    let report = heard.recv().unwrap();
    assert_eq!(report.stats.pending, 1);
    assert!(
        report.to_string().starts_with("0 processed, 1 lost: 1 left behind (stop did not end within"),
        "{report}"
    );
    gate.open();
    collector.stop().unwrap();
    let stats = law(&collector, 2);
    assert_eq!((stats.processed, stats.rejected.stopped), (1, 1));
}

#[test]
fn a_report_counts_what_a_sink_lost_in_its_queue_and_what_is_still_there() {
    let (memory, gate) = (MemorySink::new(), Gate::closed());
    let collector = Collector::builder()
        .flush(FlushStrategy::Size { events: 1 })
        .sink(gate.sink().isolated(2).flush_timeout(Duration::ZERO))
        .sink(failing("letters").dead_letters(&DeadLetters::new(100)))
        .sink(memory.clone())
        .start()
        .unwrap();
    let (layer, guard) = forebay_tracing::layer(collector.clone());
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        tracing::info!("first");
        gate.await_arrivals(1);
        for number in 1..6 {
            tracing::info!(number, "more");
            until("the queue has got a batch of it", || memory.len() == number + 1);
        }
    });
    let report = guard.stop();
    let lost = "12 lost: 3 evicted by the queue of a sink, 6 dead letters, 3 left in the queue of a sink";
    assert!(report.to_string().starts_with(&format!("6 processed, {lost} (stop did not end")), "{report}");
    gate.open();
    law(&collector, 6);
}

#[test]
fn a_program_may_have_any_number_of_places_that_log() {
    const PLACES: usize = 20_000;
    let records = records(|| {
        for place in 0..PLACES {
            callsite(place);
        }
    });
    assert_eq!(records.len(), PLACES);
    for (place, record) in records.iter().enumerate() {
        assert_eq!(record.name(), format!("many.place.{place}"));
    }
}

/// Makes a place that logs, as a macro does, and logs there once.
fn callsite(place: usize) {
    use tracing::callsite::{Callsite, Identifier};
    use tracing::field::FieldSet;
    use tracing::metadata::Kind;
    use tracing::subscriber::Interest;
    use tracing::{Event, Level, Metadata};

    struct Place(std::sync::OnceLock<Metadata<'static>>);
    impl Callsite for Place {
        fn set_interest(&self, _: Interest) {}
        fn metadata(&self) -> &Metadata<'_> {
            self.0.get().unwrap()
        }
    }
    let callsite: &'static Place = Box::leak(Box::new(Place(std::sync::OnceLock::new())));
    let target: &'static str = format!("many::place::{place}").leak();
    let fields = FieldSet::new(&[], Identifier(callsite));
    let metadata = Metadata::new("event here", target, Level::INFO, None, None, None, fields, Kind::EVENT);
    callsite.0.set(metadata).ok().unwrap();
    let metadata = callsite.0.get().unwrap();
    Event::dispatch(metadata, &metadata.fields().value_set(&[]));
}
