//! P3: every event has exactly one fate, and the fates add up. A loss is counted by reason and marked in
//! the stream that the sinks receive.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use crate::support::*;
use forebay::sink::MemorySink;
use forebay::{Collector, FlushStrategy, Outcome, Overflow, Priority, collector::FlushError};

#[test]
fn a_million_events_of_ten_threads_all_arrive_in_the_order_of_their_thread() {
    const THREADS: u32 = 10;
    const EACH: u64 = 100_000;
    let memory = MemorySink::new();
    let collector = ticks().capacity(1_000_000).sink(memory.clone()).start().unwrap();
    std::thread::scope(|scope| {
        for producer in 0..THREADS {
            let collector = collector.clone();
            scope.spawn(move || {
                for number in 0..EACH {
                    let event = Tick { producer, number, priority: Priority::Normal };
                    assert_eq!(collector.collect(event), Outcome::Queued);
                }
            });
        }
    });
    let report = collector.stop().unwrap();
    assert_eq!(report.stats.processed, 1_000_000);
    assert_eq!(report.stats.sink("memory").unwrap().delivered, 1_000_000);
    let mut next = [0; THREADS as usize];
    for event in memory.events() {
        let next = &mut next[event.producer as usize];
        assert_eq!(event.number, *next);
        *next += 1;
    }
    assert_eq!(next, [EACH; THREADS as usize]);
    assert_eq!(audit(&memory), 0);
    law(&collector, 1_000_000);
}

#[test]
fn with_a_stalled_sink_and_a_small_ring_the_law_holds_to_the_event() {
    const THREADS: u64 = 10;
    const EACH: u64 = 100_000;
    for overflow in [Overflow::DropOldest, Overflow::DropNewest] {
        let gate = Gate::closed();
        let memory = MemorySink::new();
        let builder = ticks().capacity(100).overflow(overflow).sink(memory.clone());
        let collector = stalled(builder, &gate);
        let taken: u64 = std::thread::scope(|scope| {
            let produce = || (0..EACH).filter(|n| collector.collect(tick(*n)).is_queued()).count();
            let producers: Vec<_> = (0..THREADS).map(|_| scope.spawn(produce)).collect();
            producers.into_iter().map(|producer| producer.join().unwrap() as u64).sum()
        });
        let offered = THREADS * EACH + 1;
        let stats = law(&collector, offered);
        assert_eq!(stats.pending, 101, "a full ring and one event at the gate");
        assert_eq!(taken + 1, stats.pending + stats.evicted);
        gate.open();
        collector.stop().unwrap();
        let stats = law(&collector, offered);
        assert_eq!((stats.processed, stats.pending), (101, 0));
        assert_eq!(stats.evicted + stats.rejected.full, offered - 101);
        assert_eq!(audit(&memory), stats.evicted, "every eviction is marked in the stream");
        assert_eq!(stats.evicted > 0, overflow == Overflow::DropOldest);
        assert_eq!(stats.rejected.full > 0, overflow == Overflow::DropNewest);
    }
}

#[test]
fn the_oldest_are_evicted_and_the_gap_stands_where_they_are_missing() {
    let gate = Gate::closed();
    let memory = MemorySink::new();
    let collector = stalled(ticks().capacity(3).sink(memory.clone()), &gate);
    for number in 0..5 {
        collector.collect(tick(number));
    }
    gate.open();
    let _ = collector.flush().unwrap();
    assert_eq!(numbers(&memory.events()), [u64::MAX, 2, 3, 4]);
    let batches = memory.batches();
    assert_eq!((batches[0].gap(), batches[1].gap()), (0, 2));
    assert_eq!((batches[1].number(), batches[1].first_event()), (1, 3));
    collector.stop().unwrap();
    assert_eq!(law(&collector, 6).evicted, audit(&memory));
}

#[test]
fn the_newest_is_refused_and_given_back_under_drop_newest() {
    let collector = ticks().capacity(2).overflow(Overflow::DropNewest).build().unwrap();
    assert_eq!(
        [0, 1, 2].map(|n| collector.collect(tick(n))),
        [Outcome::Queued, Outcome::Queued, Outcome::Full]
    );
    let refused = collector.try_collect(tick(3)).unwrap_err();
    assert_eq!((refused.event, refused.reason.to_string()), (tick(3), "event queue is full".to_owned()));
    assert_eq!(law(&collector, 4).rejected.full, 2);
}

#[test]
fn an_event_that_found_no_space_waits_or_is_rejected_as_its_holder_says() {
    let (gate, memory) = (Gate::closed(), MemorySink::new());
    let builder = ticks().capacity(1).overflow(Overflow::Block { timeout: Duration::from_secs(60) });
    let collector = stalled(builder.sink(memory.clone()), &gate);
    assert!(matches!(collector.collect_unless_full(tick(1)), Ok(Outcome::Queued)));
    let full = |number| collector.collect_unless_full(tick(number)).unwrap_err();
    let waiting = full(2);
    assert_eq!(law(&collector, 2).rejected.full, 0, "it has no fate yet");
    assert_eq!(full(3).reject(), Outcome::Full);
    drop(full(4));
    assert_eq!(law(&collector, 4).rejected.full, 2);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| waiting.wait());
        until("the event waits", || collector.stats().waits == 1);
        gate.open();
        assert_eq!(waiter.join().unwrap(), Outcome::QueuedAfterWait);
    });
    let full = collector.collect_unless_full(critical(5));
    assert!(full.is_ok(), "its lane has space");
    collector.stop().unwrap();
    assert_eq!(collector.collect_unless_full(tick(6)).unwrap(), Outcome::Stopped);
    let stats = law(&collector, 7);
    assert_eq!((stats.processed, stats.rejected.stopped), (4, 1));
}

#[test]
fn a_batch_of_events_reports_every_fate() {
    let memory = MemorySink::new();
    let collector = ticks().capacity(3).flush(FlushStrategy::Manual).sink(memory.clone()).start().unwrap();
    let outcome = collector.collect_batch((0..5).map(tick));
    assert_eq!((outcome.queued, outcome.evicted, outcome.rejected), (5, 2, 0));
    let report = collector.flush().unwrap();
    assert_eq!((report.processed, report.evicted), (3, 2));
    assert_eq!(numbers(&memory.events()), [2, 3, 4]);
    collector.stop().unwrap();
    let outcome = collector.collect_batch((0..5).map(tick));
    assert_eq!((outcome.queued, outcome.rejected), (0, 5));
    assert_eq!(outcome.first_rejection, Some(Outcome::Stopped));
    let stats = law(&collector, 10);
    assert_eq!((stats.rejected.stopped, stats.evicted), (5, 2));
}

#[test]
fn evictions_after_the_last_delivery_are_reported_at_the_flush() {
    let memory = MemorySink::new();
    let collector = ticks()
        .capacity(10)
        .low_capacity(1)
        .flush(FlushStrategy::Manual)
        .sink(memory.clone())
        .start()
        .unwrap();
    let mut offered = 0;
    for round in 0..50 {
        for number in 0..=round {
            collector.collect(low(number));
            collector.collect(tick(number));
            offered += 2;
        }
        let _ = collector.flush().unwrap();
        assert_eq!(audit(&memory), law(&collector, offered).evicted);
    }
}

#[test]
fn low_events_are_not_starved_by_normal_ones() {
    let memory = MemorySink::new();
    let collector = ticks().sink(memory.clone()).build().unwrap();
    for number in 0..90 {
        collector.collect(tick(number));
        collector.collect(low(number));
    }
    collector.start().unwrap();
    collector.stop().unwrap();
    let first: Vec<Priority> = memory.events()[..90].iter().map(|event| event.priority).collect();
    let lows = first.iter().filter(|priority| **priority == Priority::Low).count();
    assert_eq!(lows, 30, "two to one");
    law(&collector, 180);
}

#[test]
fn sixty_four_producers_on_few_processors_keep_law_and_order() {
    const PRODUCERS: u32 = 64;
    const EVENTS: u64 = 2_000;
    for overflow in [Overflow::DropOldest, Overflow::DropNewest, Overflow::Block { timeout: LONG }] {
        let memory = MemorySink::new();
        let collector = ticks().capacity(64).overflow(overflow).sink(memory.clone()).start().unwrap();
        let queued = AtomicU64::new(0);
        let barrier = Barrier::new(PRODUCERS as usize);
        std::thread::scope(|scope| {
            for producer in 0..PRODUCERS {
                let (collector, barrier, queued) = (&collector, &barrier, &queued);
                scope.spawn(move || {
                    barrier.wait();
                    for number in 0..EVENTS {
                        let outcome = collector.collect(Tick { producer, ..tick(number) });
                        queued.fetch_add(u64::from(outcome.is_queued()), Ordering::Relaxed);
                    }
                });
            }
        });
        let report = collector.stop().unwrap();
        let stats = law(&collector, u64::from(PRODUCERS) * EVENTS);
        assert_eq!(stats.processed + stats.evicted, queued.into_inner(), "{overflow:?}");
        report.stats.check_law(stats.offered).unwrap();
        assert_eq!(stats.delta(&report.stats).processed + stats.delta(&report.stats).evicted, 0);
        assert_eq!(audit(&memory), stats.evicted);
        let mut next = vec![0; PRODUCERS as usize];
        for event in memory.events() {
            let next = &mut next[event.producer as usize];
            assert!(event.number >= *next, "{overflow:?}: {event:?} comes after number {next}");
            *next = event.number + 1;
        }
        if matches!(overflow, Overflow::Block { .. }) {
            assert_eq!(stats.processed, stats.offered);
        }
    }
}

#[test]
fn an_event_may_collect_and_flush_in_its_destructor_wherever_that_runs() {
    use std::sync::OnceLock;

    /// Collects a plain event, asks for a flush, when it is dropped.
    enum Loud {
        Plain,
        Echoing(Arc<OnceLock<Collector<Loud>>>),
    }
    static FLUSHED: Mutex<Vec<(bool, Result<u64, FlushError>)>> = Mutex::new(Vec::new());
    impl forebay::Event for Loud {}
    impl Drop for Loud {
        fn drop(&mut self) {
            if let Loud::Echoing(handle) = self
                && let Some(collector) = handle.get()
            {
                let is_queued = collector.collect(Loud::Plain).is_queued();
                // On the worker thread a panic would not be seen: it is looked at below.
                let flushed = collector.flush().map(|report| report.processed);
                FLUSHED.lock().unwrap().push((is_queued, flushed));
            }
        }
    }
    let handle = Arc::new(OnceLock::new());
    let builder = forebay::Builder::<Loud>::new().capacity(1).flush(FlushStrategy::Manual);
    let collector = builder.build().unwrap();
    assert!(handle.set(collector.clone()).is_ok());
    // Evicted on this thread: it evicts the event that took its place in turn.
    collector.collect(Loud::Echoing(Arc::clone(&handle)));
    assert_eq!(collector.collect(Loud::Plain), Outcome::QueuedEvicting);
    law(&collector, 3);
    // Destroyed on the worker, after its batch.
    collector.start().unwrap();
    collector.collect(Loud::Echoing(Arc::clone(&handle)));
    let _ = collector.flush().unwrap();
    let _ = collector.flush().unwrap();
    let stats = law(&collector, 5);
    assert_eq!((stats.processed, stats.evicted), (2, 3));
    let wants = [(true, Err(FlushError::NotStarted)), (true, Err(FlushError::OnWorker))];
    assert_eq!(*FLUSHED.lock().unwrap(), wants);
    collector.stop().unwrap();
}
