//! P4: `flush()` covers every event whose `collect()` returned before it, ends by its deadline even under
//! full load, with a dead worker or a hung sink, and returns what happened, not just "ok".

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::support::*;
use forebay::collector::FlushError;
use forebay::event::catalog::metrics::FeatureUsed;
use forebay::sink::{MemorySink, SinkError, from_fn};
use forebay::{Batch, Builder, Collector, Event, FlushStrategy, Outcome, Overflow, Record};

#[test]
fn one_event_one_flush_one_batch() {
    let memory = MemorySink::new();
    let collector = ticks().sink(memory.clone()).start().unwrap();
    collector.collect(tick(7));
    let report = collector.flush().unwrap();
    assert_eq!((report.processed, report.evicted), (1, 0));
    assert!(report.is_clean());
    assert_eq!(memory.batches().len(), 1);
    assert_eq!(numbers(&memory.events()), [7]);
    let report = collector.flush().unwrap();
    assert_eq!(report.processed, 0, "nothing was left for a second flush");
    assert_eq!(memory.batches().len(), 1, "no empty batch");
    law(&collector, 1);
}

#[test]
fn a_flush_covers_all_lanes_under_every_strategy() {
    let interval = Duration::from_secs(3600);
    let strategies = [
        FlushStrategy::Time { interval },
        FlushStrategy::Size { events: 1000 },
        FlushStrategy::Hybrid { events: 1000, interval },
        FlushStrategy::Manual,
    ];
    for strategy in strategies {
        let memory = MemorySink::new();
        let collector = ticks().flush(strategy).batch_size(7).sink(memory.clone()).start().unwrap();
        for number in 0..100 {
            collector.collect(tick(number));
            collector.collect(low(number));
            collector.collect(critical(number));
        }
        let _ = collector.flush().unwrap();
        assert_eq!(memory.len(), 300, "{strategy:?}");
        assert_eq!(collector.pending(), 0);
        law(&collector, 300);
    }
}

#[test]
fn every_thread_finds_its_own_events_delivered_after_its_flush() {
    const THREADS: u32 = 4;
    const ROUNDS: u64 = 200;
    let memory = MemorySink::new();
    let collector = ticks().sink(memory.clone()).start().unwrap();
    let delivered: [AtomicU64; THREADS as usize] = Default::default();
    let delivered = Arc::new(delivered);
    collector
        .add_sink(from_fn("count", {
            let delivered = delivered.clone();
            move |batch: &Batch<Tick>| {
                for event in batch {
                    delivered[event.producer as usize].fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }
        }))
        .unwrap();
    std::thread::scope(|scope| {
        for producer in 0..THREADS {
            let (collector, delivered) = (&collector, &delivered);
            scope.spawn(move || {
                for number in 0..ROUNDS {
                    collector.collect(Tick { producer, ..tick(number) });
                    let _ = collector.flush().unwrap();
                    assert_eq!(delivered[producer as usize].load(Ordering::Relaxed), number + 1);
                }
            });
        }
    });
    collector.stop().unwrap();
    law(&collector, u64::from(THREADS) * ROUNDS);
}

/// An event that shows whether it still exists.
struct Marked(#[allow(dead_code, reason = "it is held, not read")] Option<Arc<()>>);

impl Event for Marked {}

#[test]
fn a_flush_under_saturating_load_ends_and_covers_what_came_before() {
    let collector = Builder::<Marked>::new()
        .capacity(64)
        .sink(from_fn("null", |_: &Batch<Marked>| Ok(())))
        .start()
        .unwrap();
    let (is_over, offered) = (AtomicBool::new(false), AtomicU64::new(0));
    let (pause, paused) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    collector.collect(Marked(None));
                    offered.fetch_add(1, Ordering::Relaxed);
                    if pause.load(Ordering::SeqCst) {
                        paused.fetch_add(1, Ordering::SeqCst);
                        while pause.load(Ordering::SeqCst) && !is_over.load(Ordering::Relaxed) {
                            std::thread::yield_now();
                        }
                        paused.fetch_sub(1, Ordering::SeqCst);
                    }
                }
            });
        }
        let _raise = Raise(&is_over);
        for _ in 0..300 {
            let mark = Arc::new(());
            collector.collect(Marked(Some(mark.clone())));
            offered.fetch_add(1, Ordering::Relaxed);
            // Nobody stops collecting, so a flush that waited for empty rings would not end.
            let _ = collector.flush_timeout(LONG).unwrap();
            // It has left: delivered and dropped, or evicted and, once who evicted it goes on, dropped.
            pause.store(true, Ordering::SeqCst);
            until("nobody collects", || paused.load(Ordering::SeqCst) == 3);
            assert_eq!(Arc::strong_count(&mark), 1, "the event is still queued after the flush");
            pause.store(false, Ordering::SeqCst);
            until("all go on", || paused.load(Ordering::SeqCst) == 0);
        }
    });
    collector.stop().unwrap();
    law(&collector, offered.into_inner());
}

#[test]
fn a_hung_sink_does_not_hold_a_flush_past_its_deadline_and_is_named() {
    let gate = Gate::closed();
    let collector = stalled(ticks(), &gate);
    collector.collect(tick(0));
    let error = collector.flush_timeout(Duration::from_millis(5)).unwrap_err();
    let FlushError::TimedOut { pending, busy_sink, .. } = &error else { panic!("{error}") };
    assert_eq!((*pending, busy_sink.as_deref()), (2, Some("gate")));
    assert!(error.to_string().ends_with("2 events are pending, sink \"gate\" is busy"), "{error}");
    gate.open();
    assert!(collector.flush().unwrap().is_clean());
    collector.stop().unwrap();
    law(&collector, 2);
}

#[test]
fn a_flush_says_what_failed_and_where() {
    let memory = MemorySink::new();
    let collector = ticks()
        .flush(HOURLY)
        .sink(failing("down"))
        .sink(memory.clone())
        .sink(panicking("mad"))
        .start()
        .unwrap();
    collector.collect_batch((0..3).map(tick));
    let report = collector.flush().unwrap();
    assert!(!report.is_clean());
    let reported: Vec<_> = report.sinks.iter().map(|s| (s.name.as_str(), s.delivered, s.failed)).collect();
    assert_eq!(reported, [("down", 0, 3), ("memory", 3, 0), ("mad", 0, 3)]);
    assert_eq!(report.sinks[0].error.as_deref(), Some("sink unavailable: nobody is there"));
    assert_eq!(report.sinks[1].error, None);
    assert_eq!(report.sinks[2].error.as_deref(), Some("panicked: on purpose"));
    // An old error is not reported again.
    let report = collector.flush().unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(collector.stop().unwrap().failed(), 6, "three in each of two sinks");
    law(&collector, 3);
}

#[test]
fn what_failed_between_two_flushes_is_reported_by_the_second() {
    let collector = ticks().flush(FlushStrategy::Size { events: 10 }).sink(failing("down")).start().unwrap();
    collector.collect_batch((0..100).map(tick));
    until("all is delivered, without any flush", || collector.pending() == 0);
    let report = collector.flush().unwrap();
    assert!(!report.is_clean());
    assert_eq!((report.processed, report.sinks[0].failed), (100, 100));
    assert!(collector.flush().unwrap().is_clean(), "it is reported once");
    collector.stop().unwrap();
    law(&collector, 100);
}

#[test]
fn what_a_flush_could_not_tell_because_its_caller_gave_up_is_reported_by_the_next() {
    let gate = Gate::closed();
    let collector = stalled(ticks().sink(failing("down")), &gate);
    let given_up = collector.flush_timeout(Duration::from_millis(1));
    assert!(given_up.is_err());
    gate.open();
    let report = collector.flush().unwrap();
    assert_eq!((report.processed, report.sinks[0].failed), (1, 1));
    collector.stop().unwrap();
    law(&collector, 1);
}

#[test]
fn a_sink_that_cannot_flush_differs_from_one_that_cannot_write() {
    struct NoFlush;
    impl forebay::sink::Sink<Tick> for NoFlush {
        fn name(&self) -> &str {
            "no_flush"
        }
        fn write_batch(&mut self, _: &Batch<Tick>) -> Result<(), SinkError> {
            Ok(())
        }
        fn flush(&mut self) -> Result<(), SinkError> {
            Err(SinkError::flush_failed("disk on fire"))
        }
    }
    let collector = ticks().sink(NoFlush).start().unwrap();
    collector.collect(tick(0));
    let report = collector.flush().unwrap();
    assert_eq!((report.sinks[0].delivered, report.sinks[0].failed), (1, 0));
    assert_eq!(report.sinks[0].error.as_deref(), Some("flush failed: disk on fire"));
    assert!(!report.is_clean(), "it took every event, and could not be flushed");
    let stats = collector.stats();
    assert_eq!((stats.sinks[0].errors, stats.sinks[0].flush_errors), (1, 1));
    assert!(stats.last_flush.is_some());
    collector.stop().unwrap();
    law(&collector, 1);
}

#[test]
fn a_flush_that_nobody_can_serve_says_so_at_once() {
    let collector = ticks().build().unwrap();
    collector.collect(tick(0));
    assert_eq!(collector.flush().unwrap_err(), FlushError::NotStarted);
    collector.start().unwrap();
    let _ = collector.flush().unwrap();
    collector.stop().unwrap();
    assert_eq!(collector.flush().unwrap_err(), FlushError::Stopped);
    law(&collector, 1);
}

#[test]
fn a_flush_while_another_thread_stops_is_answered() {
    for _ in 0..200 {
        let memory = MemorySink::new();
        let collector = ticks().sink(memory.clone()).start().unwrap();
        collector.collect(tick(0));
        let flushed = std::thread::scope(|scope| {
            let flusher = scope.spawn(|| collector.flush());
            collector.stop().unwrap();
            flusher.join().unwrap()
        });
        assert!(matches!(flushed, Ok(_) | Err(FlushError::Stopped)), "{flushed:?}");
        assert_eq!(memory.len(), 1);
        law(&collector, 1);
    }
}

#[test]
fn a_blocked_producer_does_not_hold_up_a_flush() {
    let overflow = Overflow::Block { timeout: LONG };
    let collector = ticks().capacity(1).overflow(overflow).flush(FlushStrategy::Manual).start().unwrap();
    collector.collect(tick(0));
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(collector.collect(tick(1)).is_queued()));
        until("a producer waits", || collector.stats().waits == 1);
        let _ = collector.flush().unwrap();
    });
    collector.stop().unwrap();
    assert_eq!(law(&collector, 2).processed, 2);
}

fn feature_used(feature: &str, action: &str) -> Record {
    FeatureUsed { feature: feature.to_owned(), action: action.to_owned(), success: true }.into()
}

#[test]
fn an_event_that_is_collected_is_a_batch_of_one_after_a_flush() {
    let collector = Collector::builder().start().unwrap();
    let sink = MemorySink::new();
    collector.add_sink(sink.clone()).unwrap();
    assert_eq!(collector.collect(feature_used("mission", "create")), Outcome::Queued);
    let _ = collector.flush().unwrap();
    let batches = sink.batches();
    assert_eq!(batches.len(), 1);
    assert_eq!(batches[0].len(), 1);
    collector.stop().unwrap();
    law(&collector, 1);
}
