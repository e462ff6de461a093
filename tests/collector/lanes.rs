//! Lanes of threads keep the promises that rings keep.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::*;
use forebay::config::Lanes;
use forebay::sink::{MemorySink, from_fn};
use forebay::{Batch, Builder, Collector, Event, FlushStrategy, Outcome, Overflow, Priority, Record};

const MANUAL: FlushStrategy = FlushStrategy::Manual;

fn lanes(max: usize) -> Builder<Tick> {
    ticks().lanes(Lanes::PerThread { max })
}

/// Event that owns memory, and counts its destruction.
struct Counted {
    producer: u64,
    number: u64,
    text: String,
    destroyed: Arc<AtomicU64>,
}

impl Counted {
    fn new(producer: u64, number: u64, destroyed: &Arc<AtomicU64>) -> Self {
        Self { producer, number, text: format!("{producer}-{number}"), destroyed: Arc::clone(destroyed) }
    }
}

impl Event for Counted {
    fn size_hint(&self) -> usize {
        size_of::<Self>() + self.text.capacity()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.destroyed.fetch_add(1, Ordering::Relaxed);
    }
}

/// Has `threads` threads collect `each` events, in `rounds` generations of threads, into a collector that is drained meanwhile. Checks
/// that each event is delivered once and in order or evicted, and destroyed once.
fn storm(
    capacity: usize,
    max: usize,
    threads: u64,
    each: u64,
    rounds: u64,
    overflow: Overflow,
) -> forebay::Stats {
    let destroyed = Arc::new(AtomicU64::new(0));
    let last = Arc::new(std::sync::Mutex::new(HashMap::<u64, u64>::new()));
    let gaps = Arc::new(AtomicU64::new(0));
    let sink = from_fn("order", {
        let (last, gaps) = (Arc::clone(&last), Arc::clone(&gaps));
        move |batch: &Batch<Counted>| {
            gaps.fetch_add(batch.gap(), Ordering::Relaxed);
            let mut last = last.lock().unwrap();
            for event in batch {
                assert_eq!(event.text, format!("{}-{}", event.producer, event.number));
                if let Some(before) = last.insert(event.producer, event.number) {
                    assert!(before < event.number, "{}: {before}, then {}", event.producer, event.number);
                }
            }
            Ok(())
        }
    });
    let builder = Builder::<Counted>::new().capacity(capacity).overflow(overflow);
    let builder =
        builder.lanes(Lanes::PerThread { max }).flush(FlushStrategy::Size { events: 20.min(capacity) });
    let collector = builder.sink(sink).start().unwrap();
    for round in 0..rounds {
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (collector, destroyed) = (&collector, &destroyed);
                scope.spawn(move || {
                    let producer = round * threads + thread;
                    for number in 0..each {
                        collector.collect(Counted::new(producer, number, destroyed));
                    }
                });
            }
        });
    }
    let offered = threads * each * rounds;
    collector.stop_timeout(LONG).unwrap();
    let stats = law(&collector, offered);
    assert_eq!(stats.pending_bytes, 0, "{stats:?}");
    assert_eq!(gaps.load(Ordering::Relaxed), stats.evicted);
    assert_eq!(stats.sinks[0].failed, 0, "{stats:?}");
    drop(collector);
    assert_eq!(destroyed.load(Ordering::Relaxed), offered, "each is destroyed once");
    stats
}

#[test]
fn all_events_of_one_thread_arrive_in_order() {
    let stats = storm(200_000, 4, 1, 100_000, 1, Overflow::DropOldest);
    assert_eq!(stats.evicted, 0);
}

#[test]
fn an_overloaded_pool_evicts_and_counts_what_it_evicts() {
    storm(64, 4, 4, 50_000, 2, Overflow::DropOldest);
    storm(8, 4, 4, 20_000, 2, Overflow::DropOldest);
    storm(1, 1, 2, 5_000, 1, Overflow::DropOldest);
}

#[test]
fn a_pool_that_refuses_or_waits_loses_nothing_that_it_took() {
    let stats = storm(64, 4, 4, 20_000, 1, Overflow::DropNewest);
    assert_eq!(stats.evicted, 0);
    let stats = storm(64, 4, 4, 5_000, 1, Overflow::Block { timeout: LONG });
    assert_eq!((stats.evicted, stats.rejected.full), (0, 0));
}

#[test]
fn threads_come_and_go_by_the_thousand_and_more_of_them_than_lanes_share_a_ring() {
    let stats = storm(100_000, 8, 6, 40, 300, Overflow::DropOldest);
    assert_eq!((stats.evicted, stats.rejected.full), (0, 0));
    storm(1_000, 2, 6, 2_000, 5, Overflow::DropOldest);
}

#[test]
fn a_thread_that_ended_leaves_its_lane_to_the_next() {
    let collector = lanes(2).capacity(100_000).flush(MANUAL).start().unwrap();
    for number in 0..50 {
        let has_lane = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                collector.collect(tick(number));
                // While this thread has one, the other is vacant.
                collector.local().has_lane()
            });
            thread.join().unwrap()
        });
        assert!(has_lane, "thread {number} found none");
    }
    collector.stop().unwrap();
    law(&collector, 50);
}

#[test]
fn a_handle_may_go_to_another_thread_and_gives_its_lane_back() {
    let memory = MemorySink::new();
    let collector = lanes(1).capacity(1_000).flush(MANUAL).sink(memory.clone()).start().unwrap();
    let first = collector.local();
    assert!(first.has_lane());
    let second = collector.local();
    assert!(!second.has_lane(), "the only lane is taken");
    second.collect(tick(100));
    first.collect(tick(0));
    std::thread::spawn(move || first.collect(tick(1))).join().unwrap();
    let third = collector.local();
    assert!(third.has_lane());
    third.collect(tick(2));
    assert!(matches!(third.try_collect(tick(3)), Ok(Outcome::Queued)));
    collector.stop().unwrap();
    let numbers: Vec<_> = memory.events().iter().map(|event| event.number).filter(|n| *n < 100).collect();
    assert_eq!(numbers, [0, 1, 2, 3]);
    law(&collector, 5);
    let shared = ticks().start().unwrap();
    assert!(!shared.local().has_lane());
    assert_eq!(shared.local().collect(tick(0)), Outcome::Queued);
    shared.stop().unwrap();
    law(&shared, 1);
}

#[test]
fn a_handle_without_a_lane_keeps_its_order_on_threads_with_one() {
    let memory = MemorySink::new();
    let collector = lanes(2).capacity(1_000).flush(MANUAL).sink(memory.clone()).start().unwrap();
    let taken = [collector.local(), collector.local()];
    let handle = collector.local();
    assert!(!handle.has_lane());
    let [first, second] = taken;
    drop(first);
    // This thread has the lane now, and the next one will have none.
    collector.collect(tick(100));
    handle.collect(tick(0));
    let handle = std::thread::spawn(move || {
        handle.collect(tick(1));
        handle
    });
    let handle = handle.join().unwrap();
    drop(second);
    handle.collect(tick(2));
    collector.stop().unwrap();
    let numbers: Vec<_> = memory.events().iter().map(|event| event.number).filter(|n| *n < 100).collect();
    assert_eq!(numbers, [0, 1, 2]);
    law(&collector, 4);
}

/// Event that says how much it owns.
#[derive(Debug, Clone)]
struct Owns(Vec<u8>);

impl Owns {
    fn bytes(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }
}

impl Event for Owns {
    fn size_hint(&self) -> usize {
        size_of::<Self>() + self.0.capacity()
    }
}

#[test]
fn bytes_of_evicted_events_are_free_at_once() {
    let builder =
        Builder::<Owns>::new().lanes(Lanes::PerThread { max: 2 }).capacity(256).max_bytes(1_000_000);
    let collector = builder.flush(MANUAL).build().unwrap();
    let producer = collector.local();
    (0..32).for_each(|_| assert_eq!(producer.collect(Owns::bytes(25_000)), Outcome::Queued));
    let mut offered = 32;
    while collector.stats().evicted == 0 {
        producer.collect(Owns::bytes(0));
        offered += 1;
    }
    assert_eq!(collector.pending_bytes(), 0, "the first block is gone, and so are its bytes");
    collector.start().unwrap();
    let _ = collector.flush().unwrap();
    assert_eq!(collector.local().collect(Owns::bytes(200_000)), Outcome::Queued);
    collector.stop().unwrap();
    law(&collector, offered + 1);
}

#[test]
fn an_event_whose_bytes_only_others_hold_is_refused_and_evicts_nothing() {
    let builder = Builder::<Owns>::new().lanes(Lanes::PerThread { max: 2 }).max_bytes(100_000);
    let collector = builder.flush(MANUAL).start().unwrap();
    let (holder, other) = (collector.local(), collector.local());
    (0..8).for_each(|_| assert_eq!(holder.collect(Owns::bytes(10_000)), Outcome::Queued));
    assert_eq!(
        other.collect(Owns::bytes(10_000)),
        Outcome::Full,
        "they lie in the open block of another lane"
    );
    assert_eq!(collector.stats().evicted, 0);
    assert_eq!(holder.collect(Owns::bytes(10_000)), Outcome::QueuedEvicting, "the holder can give them");
    collector.stop().unwrap();
    law(&collector, 10);
}

#[test]
fn a_lane_that_takes_the_last_free_block_wakes_the_worker() {
    let memory = MemorySink::new();
    let builder =
        lanes(2).capacity(56).overflow(Overflow::DropNewest).flush(FlushStrategy::Size { events: 56 });
    let collector = builder.sink(memory.clone()).start().unwrap();
    let (a, b) = (collector.local(), collector.local());
    let collect = |handle: &forebay::collector::Producer<Tick>, events: u64| {
        (0..events).for_each(|number| assert_eq!(handle.collect(tick(number)), Outcome::Queued));
    };
    collect(&a, 8);
    collect(&b, 8);
    let _ = collector.flush().unwrap();
    until("the worker sleeps", || collector.state() == forebay::collector::State::Asleep);
    collect(&a, 24);
    collect(&b, 25);
    until("all blocks are taken, and the worker empties them", || memory.len() == 16 + 49);
    collector.stop().unwrap();
    law(&collector, 65);
}

#[test]
fn threads_without_a_lane_do_not_starve_beside_lanes_that_are_never_empty() {
    // Each batch makes a lane as full as it was, so that a delivery by number never comes to its end.
    let collector = Arc::new(std::sync::Mutex::new(None::<forebay::collector::Producer<Tick>>));
    let (from_ring, refills) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let sink = from_fn("refills", {
        let (collector, from_ring, refills) =
            (Arc::clone(&collector), Arc::clone(&from_ring), Arc::clone(&refills));
        move |batch: &Batch<Tick>| {
            for event in batch {
                from_ring.fetch_add(u64::from(event.producer == 1), Ordering::Relaxed);
            }
            if let Some(producer) = &*collector.lock().unwrap()
                && refills.fetch_add(1, Ordering::Relaxed) < 10_000
            {
                (0..20).for_each(|number| _ = producer.collect(tick(number)));
            }
            Ok(())
        }
    });
    let builder = lanes(1).capacity(1_000).batch_size(10).flush(FlushStrategy::Size { events: 10 });
    let shared = builder.sink(sink).build().unwrap();
    let producer = shared.local();
    let without = shared.local();
    assert!(!without.has_lane());
    for number in 0..30 {
        without.collect(Tick { producer: 1, number, priority: Priority::Normal });
    }
    (0..100).for_each(|number| _ = producer.collect(tick(number)));
    *collector.lock().unwrap() = Some(producer);
    shared.start().unwrap();
    until("they come as well", || from_ring.load(Ordering::Relaxed) == 30);
    assert!(refills.load(Ordering::Relaxed) < 10_000, "they came when the lane was empty");
    shared.stop().unwrap();
    *collector.lock().unwrap() = None;
    let stats = shared.stats();
    stats.check_law(stats.offered).unwrap();
}

#[test]
fn lanes_are_merged_by_the_times_of_their_events() {
    let memory = MemorySink::new();
    let builder = Collector::builder().lanes(Lanes::PerThread { max: 3 }).capacity(10_000).ordered_by_time();
    let collector = builder.flush(MANUAL).sink(memory.clone()).start().unwrap();
    let handles = [(); 3].map(|()| collector.local());
    // Runs of all lengths, which end within blocks and batches, and beyond.
    let mut turn = (0..).flat_map(|run: usize| std::iter::repeat_n(run % 3, 1 + run * 7 % 90));
    let mut collect = |events: u64| {
        for step in 0..events {
            let handle = &handles[turn.next().unwrap()];
            assert_eq!(handle.collect(Record::new("x").with_step(step)), Outcome::Queued);
        }
    };
    for events in [1, 64, 1_000, 5_000] {
        collect(events);
        let _ = collector.flush().unwrap();
    }
    assert!(memory.events().is_sorted_by_key(|record| record.unix_nanos()));
    // Evicted by one lane, from itself and from the others.
    (0..20_000).for_each(|step| _ = handles[0].collect(Record::new("x").with_step(step)));
    let before = memory.len();
    collector.stop().unwrap();
    assert!(memory.events()[before..].is_sorted_by_key(|record| record.unix_nanos()));
    let stats = law(&collector, 26_065);
    assert!(stats.evicted > 0 && stats.pending == 0, "{stats:?}");
}

#[test]
fn a_handle_that_waits_stays_in_its_lane() {
    let overflow = Overflow::Block { timeout: std::time::Duration::from_millis(1) };
    let collector = lanes(2).capacity(8).overflow(overflow).build().unwrap();
    let producer = collector.local();
    let offered = (0..).find(|&number| producer.collect(tick(number)) == Outcome::Full).unwrap() + 1;
    assert!(
        collector.local().has_lane(),
        "the thread that waited for the handle has taken a lane for itself"
    );
    drop(producer);
    collector.stop().unwrap();
    law(&collector, offered);
}

#[test]
fn a_batch_that_waits_counts_all_that_a_change_of_the_policy_has_it_evict() {
    let collector = lanes(2).capacity(1_000).overflow(Overflow::Block { timeout: LONG }).build().unwrap();
    let all = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| collector.collect_batch((0..2_000).map(tick)));
        until("it waits", || collector.stats().waits == 1);
        collector.update_config(|config| config.overflow = Overflow::DropOldest).unwrap();
        waiting.join().unwrap()
    });
    let stats = law(&collector, 2_000);
    assert!(stats.evicted > 1, "{stats:?}");
    assert_eq!((all.queued, all.evicted, all.rejected), (2_000, stats.evicted, 0));
}

#[test]
fn a_thread_that_starts_late_gets_its_share() {
    let memory = MemorySink::new();
    let collector = lanes(4).capacity(1_000).sink(memory.clone()).build().unwrap();
    let handles: Vec<_> = (0..2)
        .map(|producer| {
            let handle = collector.local();
            for number in 0..10_000 {
                handle.collect(Tick { producer, number, priority: Priority::Normal });
            }
            handle
        })
        .collect();
    collector.start().unwrap();
    collector.stop().unwrap();
    for producer in 0..2 {
        let kept = memory.events().iter().filter(|event| event.producer == producer).count();
        assert!(kept >= 250, "{kept} of thread {producer}");
    }
    assert!(law(&collector, 20_000).processed >= 1_000);
    drop(handles);
}

#[test]
fn bytes_of_one_producer_evict_its_oldest_events() {
    bytes_evict_the_oldest(|collector| move |event| collector.collect(event));
    bytes_evict_the_oldest(|collector| {
        let producer = collector.local();
        move |event| producer.collect(event)
    });
}

fn bytes_evict_the_oldest<F: Fn(Counted) -> Outcome>(way: impl FnOnce(Collector<Counted>) -> F) {
    let destroyed = Arc::new(AtomicU64::new(0));
    let numbers = Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = from_fn("numbers", {
        let numbers = Arc::clone(&numbers);
        move |batch: &Batch<Counted>| {
            numbers.lock().unwrap().extend(batch.iter().map(|event| event.number));
            Ok(())
        }
    });
    let builder = Builder::<Counted>::new().lanes(Lanes::PerThread { max: 2 }).max_bytes(100_000);
    let collector = builder.flush(MANUAL).sink(sink).start().unwrap();
    let collect = way(collector.clone());
    for number in 0..1_000 {
        let mut event = Counted::new(0, number, &destroyed);
        event.text.reserve_exact(10_000);
        let outcome = collect(event);
        assert!(outcome.is_queued(), "{number}: {outcome:?}");
        assert!(collector.pending_bytes() <= 100_000);
    }
    collector.stop().unwrap();
    let stats = law(&collector, 1_000);
    assert!(stats.evicted > 900 && stats.pending_bytes == 0, "{stats:?}");
    let numbers = numbers.lock().unwrap();
    assert_eq!(numbers.last(), Some(&999), "the newest stay");
    assert!(numbers.is_sorted());
    drop((collect, collector));
    assert_eq!(destroyed.load(Ordering::Relaxed), 1_000);
}

#[test]
fn several_collectors_of_a_thread_have_a_lane_each() {
    // More than are found at once.
    let all: Vec<_> = (0..9).map(|_| lanes(1).capacity(1_000).start().unwrap()).collect();
    for number in 0..100 {
        for collector in &all {
            assert_eq!(collector.collect(tick(number)), Outcome::Queued);
        }
    }
    for collector in &all {
        assert!(!collector.local().has_lane(), "this thread has it");
        collector.stop().unwrap();
        assert_eq!(law(collector, 100).processed, 100);
    }
}

#[test]
fn a_collector_that_is_gone_leaves_nothing_on_the_thread() {
    for _ in 0..1_000 {
        let collector = lanes(1).capacity(8).start().unwrap();
        assert_eq!(collector.collect(tick(0)), Outcome::Queued);
        collector.stop().unwrap();
        law(&collector, 1);
    }
}

#[test]
fn a_restart_goes_on_in_the_same_lanes() {
    let memory = MemorySink::new();
    let collector = lanes(2).capacity(100).flush(MANUAL).sink(memory.clone()).start().unwrap();
    for round in 0..5 {
        for number in 0..10 {
            assert_eq!(collector.collect(tick(round * 10 + number)), Outcome::Queued);
        }
        collector.stop().unwrap();
        assert_eq!(collector.collect(tick(1_000)), Outcome::Stopped);
        collector.start().unwrap();
    }
    collector.stop().unwrap();
    let numbers: Vec<_> = memory.events().iter().map(|event| event.number).collect();
    assert!(numbers.iter().copied().eq(0..50), "{numbers:?}");
    assert_eq!(audit(&memory), 0);
    law(&collector, 55);
}

#[test]
fn destructors_that_collect_or_panic_in_a_full_pool_harm_nothing() {
    struct Collects(Option<Collector<Collects>>);
    impl Event for Collects {}
    impl Drop for Collects {
        fn drop(&mut self) {
            if let Some(collector) = self.0.take() {
                collector.collect(Collects(None));
            }
        }
    }
    let builder = Builder::<Collects>::new().capacity(32).lanes(Lanes::PerThread { max: 1 });
    let collector = builder.flush(MANUAL).start().unwrap();
    for _ in 0..10_000 {
        collector.collect(Collects(Some(collector.clone())));
    }
    let _ = collector.flush().unwrap();
    let stats = collector.stats();
    stats.check_law(stats.offered).unwrap();
    // The events hold handles: those that are left collect once more while they are dropped.
    assert!(stats.offered >= 10_000, "{stats:?}");
    collector.stop().unwrap();

    struct Panics;
    impl Event for Panics {}
    impl Drop for Panics {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                std::panic::panic_any("on purpose");
            }
        }
    }
    let builder = Builder::<Panics>::new().capacity(8).lanes(Lanes::PerThread { max: 1 });
    let collector = builder.flush(MANUAL).start().unwrap();
    let mut panics = 0;
    for _ in 0..200 {
        let collects = std::panic::AssertUnwindSafe(|| collector.collect(Panics));
        panics += u64::from(std::panic::catch_unwind(collects).is_err());
    }
    assert!(panics > 0, "evicted events are dropped by who collects");
    collector.stop().unwrap();
    law(&collector, 200);
}

#[test]
fn what_destructors_of_thread_locals_collect_is_not_lost() {
    thread_local! {
        static LAST: RefCell<Option<AtTheEnd>> = const { RefCell::new(None) };
    }
    struct AtTheEnd(Collector<Tick>);
    impl Drop for AtTheEnd {
        fn drop(&mut self) {
            (100..110).for_each(|number| _ = self.0.collect(tick(number)));
        }
    }
    for before in [true, false] {
        let collector = lanes(4).capacity(1_000).flush(MANUAL).start().unwrap();
        for _ in 0..20 {
            let collector = collector.clone();
            std::thread::spawn(move || {
                let last = || LAST.with(|last| *last.borrow_mut() = Some(AtTheEnd(collector.clone())));
                // Destroyed after the list of lanes, or before it.
                if before {
                    last();
                }
                collector.collect(tick(0));
                if !before {
                    last();
                }
            })
            .join()
            .unwrap();
        }
        collector.stop().unwrap();
        assert_eq!(law(&collector, 20 * 11).processed, 20 * 11);
    }
}

#[test]
fn settings_of_lanes_are_checked() {
    let refused = |builder: Builder<Tick>| builder.build().unwrap_err().to_string();
    assert!(refused(lanes(1025)).contains("invalid max_lanes: 1025 (expected 0..=1024)"));
    assert!(refused(lanes(4).shards(2)).contains("invalid shards: 2 (expected 1 with lanes of threads)"));
}
