//! P6: one sink that fails, panics or blocks never corrupts another and never reaches the loop; and sinks
//! come and go while events flow.
//!
//! (A sink that blocks delays the others until sinks can have a thread of their own.)

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};

use crate::support::*;
use forebay::collector::{BuildError, SinkChangeError, StartError};
use forebay::sink::{MemorySink, Sink, SinkError, from_fn};
use forebay::{Batch, FlushStrategy};

#[test]
fn failing_and_panicking_sinks_are_counted_and_the_others_have_every_event() {
    let (first, last) = (MemorySink::new().named("first"), MemorySink::new().named("last"));
    let collector = ticks()
        .flush(FlushStrategy::Size { events: 10 })
        .sink(first.clone())
        .sink(failing("down"))
        .sink(panicking("mad"))
        .sink(last.clone())
        .start()
        .unwrap();
    collector.collect_batch((0..100).map(tick));
    collector.stop().unwrap();
    let all: Vec<u64> = (0..100).collect();
    assert_eq!((numbers(&first.events()), numbers(&last.events())), (all.clone(), all));
    let stats = law(&collector, 100);
    let (down, mad) = (stats.sink("down").unwrap(), stats.sink("mad").unwrap());
    assert_eq!((down.offered, down.delivered, down.failed), (100, 0, 100));
    assert_eq!((mad.offered, mad.delivered, mad.failed), (100, 0, 100));
    assert_eq!((down.errors, down.panics), (stats.batches, 0), "every batch was tried");
    assert_eq!((mad.errors, mad.panics), (0, stats.batches));
    assert_eq!(down.last_error.as_deref(), Some("sink unavailable: nobody is there"));
    assert_eq!(mad.last_error.as_deref(), Some("panicked: on purpose"));
}

/// Fails, panics or works, as the number of the call says.
struct Moody(u64);

impl Moody {
    fn act(&mut self) -> Result<(), SinkError> {
        self.0 += 1;
        match self.0 % 4 {
            0 => Err(SinkError::write_failed("in a mood")),
            1 => panic!("in a mood: {}", self.0),
            2 => std::panic::panic_any(42),
            _ => Ok(()),
        }
    }
}

impl Sink<Tick> for Moody {
    fn name(&self) -> &str {
        "moody"
    }

    fn write_batch(&mut self, _: &Batch<Tick>) -> Result<(), SinkError> {
        self.act()
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.act()
    }
}

impl Drop for Moody {
    fn drop(&mut self) {
        panic!("even now");
    }
}

#[test]
fn a_sink_that_misbehaves_at_every_call_harms_nobody() {
    let memory = MemorySink::new();
    let collector = ticks().flush(FlushStrategy::Manual).sink(Moody(0)).sink(memory.clone()).start().unwrap();
    for number in 0..40 {
        collector.collect(tick(number));
        let _ = collector.flush().unwrap();
    }
    assert_eq!(memory.len(), 40);
    let removed = collector.remove_sink("moody").unwrap();
    assert_eq!(removed.offered, 40);
    assert_eq!(removed.offered, removed.delivered + removed.failed);
    assert!(removed.errors > 0 && removed.panics > 0);
    assert_eq!(removed.last_error.as_deref(), Some("panicked: even now"));
    collector.collect(tick(40));
    collector.stop().unwrap();
    assert_eq!(memory.len(), 41);
    law(&collector, 41);
}

#[test]
fn sinks_whose_destructors_panic_do_not_reach_whoever_drops_the_collector() {
    struct Nasty(&'static str);
    impl Sink<Tick> for Nasty {
        fn name(&self) -> &str {
            self.0
        }
        fn write_batch(&mut self, _: &Batch<Tick>) -> Result<(), SinkError> {
            Ok(())
        }
    }
    impl Drop for Nasty {
        fn drop(&mut self) {
            panic!("in the destructor of a sink");
        }
    }
    for stops_first in [true, false] {
        let collector = ticks().sink(Nasty("one")).sink(Nasty("two")).start().unwrap();
        collector.collect(tick(0));
        if stops_first {
            collector.stop().unwrap();
            law(&collector, 1);
        }
        drop(collector);
    }
    drop(ticks().sink(Nasty("one")).sink(Nasty("two")).build().unwrap());
    // Nor one that is refused for its name.
    let collector = ticks().sink(Nasty("one")).start().unwrap();
    let error = collector.add_sink(Nasty("one")).unwrap_err();
    assert_eq!(error, SinkChangeError::DuplicateSink { name: "one".to_owned() });
    collector.stop().unwrap();
    law(&collector, 0);
}

#[test]
fn an_error_whose_source_panics_when_dropped_is_survived() {
    #[derive(Debug)]
    struct Nasty;
    impl std::fmt::Display for Nasty {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("nasty")
        }
    }
    impl std::error::Error for Nasty {}
    impl Drop for Nasty {
        fn drop(&mut self) {
            panic!("in the destructor of an error");
        }
    }
    let sink = from_fn("nasty", |_: &Batch<Tick>| Err(SinkError::write_failed("x").with_source(Nasty)));
    let collector = ticks().flush(FlushStrategy::Manual).sink(sink).start().unwrap();
    collector.collect(tick(0));
    assert_eq!(collector.flush().unwrap().sinks[0].failed, 1);
    collector.stop().unwrap();
    assert_eq!(law(&collector, 1).sink("nasty").unwrap().panics, 1);
}

#[test]
fn a_panic_whose_payload_panics_when_dropped_is_survived() {
    struct Nasty;
    impl Drop for Nasty {
        fn drop(&mut self) {
            panic!("a panic in the destructor of a panic");
        }
    }
    let memory = MemorySink::new();
    let nasty = from_fn("nasty", |_: &Batch<Tick>| std::panic::panic_any(Nasty));
    let collector = ticks().sink(nasty).sink(memory.clone()).start().unwrap();
    collector.collect(tick(0));
    collector.stop().unwrap();
    assert_eq!(memory.len(), 1);
    assert_eq!(law(&collector, 1).sink("nasty").unwrap().panics, 1);
}

#[test]
fn events_whose_destructor_panics_do_not_end_the_worker() {
    struct Nasty;
    impl forebay::Event for Nasty {}
    impl Drop for Nasty {
        fn drop(&mut self) {
            panic!("in the destructor of an event");
        }
    }
    let collector = forebay::Builder::<Nasty>::new()
        .flush(FlushStrategy::Manual)
        .sink(from_fn("count", |_: &Batch<Nasty>| Ok(())))
        .start()
        .unwrap();
    for _ in 0..3 {
        // Several in one batch: a second panic while the first unwinds would end the process.
        collector.collect(Nasty);
        collector.collect(Nasty);
        let _ = collector.flush().unwrap();
    }
    collector.stop().unwrap();
    assert_eq!(law(&collector, 6).sink("count").unwrap().delivered, 6);
}

#[test]
fn a_sink_that_delivers_a_part_says_how_much_failed() {
    let partial = from_fn("partial", |batch: &Batch<Tick>| {
        let odd = batch.iter().filter(|event| event.number % 2 == 1).count() as u64;
        Err(SinkError::write_failed("odd ones out").with_failed_events(odd))
    });
    let collector = ticks().flush(FlushStrategy::Manual).sink(partial).start().unwrap();
    collector.collect_batch((0..5).map(tick));
    collector.stop().unwrap();
    let stats = law(&collector, 5);
    let partial = stats.sink("partial").unwrap();
    assert_eq!((partial.delivered, partial.failed, partial.errors), (3, 2, 1));
}

#[test]
fn two_sinks_of_one_name_are_refused() {
    let error = ticks().sink(MemorySink::new()).sink(MemorySink::new()).start().unwrap_err();
    assert!(matches!(&error, StartError::Build(BuildError::DuplicateSink { name }) if name == "memory"));
    assert_eq!(error.to_string(), "a sink named \"memory\" already exists");
    let collector = ticks().sink(MemorySink::new()).start().unwrap();
    let error = collector.add_sink(MemorySink::new()).unwrap_err();
    assert_eq!(error, SinkChangeError::DuplicateSink { name: "memory".to_owned() });
    collector.stop().unwrap();
    law(&collector, 0);
}

#[test]
fn a_sink_gets_what_is_collected_between_its_adding_and_its_removal() {
    let (all, some) = (MemorySink::new(), MemorySink::new().named("some"));
    let collector = ticks().flush(FlushStrategy::Manual).sink(all.clone()).start().unwrap();
    collector.collect(tick(0));
    let _ = collector.flush().unwrap();
    collector.add_sink(some.clone()).unwrap();
    assert_eq!(collector.sinks(), ["memory", "some"]);
    collector.collect(tick(1));
    let reported = collector.remove_sink("some").unwrap();
    assert_eq!((reported.name.as_str(), reported.delivered), ("some", 1));
    collector.collect(tick(2));
    assert!(matches!(collector.remove_sink("some"), Err(SinkChangeError::UnknownSink { .. })));
    collector.stop().unwrap();
    assert_eq!(numbers(&some.events()), [1]);
    assert_eq!(numbers(&all.events()), [0, 1, 2]);
    // Its name is free again, also while the collector is stopped.
    collector.add_sink(some.clone()).unwrap();
    assert_eq!(collector.remove_sink("some").unwrap().offered, 0);
    assert_eq!(collector.sinks(), ["memory"]);
    law(&collector, 3);
}

#[test]
fn sinks_come_and_go_while_threads_collect() {
    const ROUNDS: u64 = 200;
    let all = MemorySink::new();
    let collector =
        ticks().overflow(forebay::Overflow::Block { timeout: LONG }).sink(all.clone()).start().unwrap();
    let offered = AtomicU64::new(0);
    let barrier = Arc::new(Barrier::new(3));
    std::thread::scope(|scope| {
        for producer in 0..2 {
            let (collector, offered, barrier) = (&collector, &offered, barrier.clone());
            scope.spawn(move || {
                barrier.wait();
                for number in 0..20_000 {
                    collector.collect(Tick { producer, ..tick(number) });
                    offered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        barrier.wait();
        for round in 0..ROUNDS {
            let passing = MemorySink::new().named("passing");
            collector.add_sink(passing.clone()).unwrap();
            collector.collect(critical(round));
            let reported = collector.remove_sink("passing").unwrap();
            assert_eq!(reported.offered, reported.delivered);
            assert_eq!(passing.received(), reported.delivered);
            assert!(passing.events().contains(&critical(round)));
        }
    });
    collector.stop().unwrap();
    let offered = offered.into_inner() + ROUNDS;
    assert_eq!(law(&collector, offered).processed, offered);
    assert_eq!(all.received(), offered);
}
