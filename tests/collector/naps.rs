//! A steady loop does not wake the worker, which naps while events keep coming; and what cannot wait ends a nap.
//!
//! What is counted is how often a producer wakes the worker: each time is a system call on the thread that must not wait.

use std::time::Duration;

use crate::support::*;
use forebay::sink::MemorySink;
use forebay::{Collector, FlushStrategy};

const HOUR: Duration = Duration::from_secs(3600);

/// Collects steps of ten events, and returns how often that woke the worker.
fn wakes_of(collector: &Collector<Tick>, steps: u64) -> u64 {
    let before = collector.stats().wakes;
    for step in 0..steps {
        for number in step * 10..(step + 1) * 10 {
            assert!(collector.collect(tick(number)).is_queued());
        }
    }
    collector.stats().wakes - before
}

#[test]
fn a_steady_loop_wakes_the_worker_once_in_ten_thousand_events_at_most() {
    let strategies = [
        FlushStrategy::default(),
        FlushStrategy::Size { events: 100 },
        FlushStrategy::Hybrid { events: 512, interval: Duration::from_millis(100) },
    ];
    for flush in strategies {
        // So large that half of it is never pending, however late a busy machine runs the worker.
        let lane = 1 << 20;
        let collector = ticks().capacity(lane).low_capacity(lane).flush(flush).start().unwrap();
        // The first event after an idle time wakes the worker.
        let wakes = wakes_of(&collector, 100_000);
        assert!(wakes <= 100, "{flush:?}: {wakes} times for 1,000,000 events");
        collector.stop().unwrap();
        assert_eq!(law(&collector, 1_000_000).evicted, 0, "{flush:?}");
    }
}

#[test]
fn without_naps_every_full_batch_wakes_a_worker_that_sleeps() {
    let collector =
        ticks().flush(FlushStrategy::Size { events: 10 }).max_nap(Duration::ZERO).start().unwrap();
    for batch in 1..=100 {
        until_asleep(&collector);
        assert_eq!(wakes_of(&collector, 1), 1);
        until("it is delivered", || collector.stats().processed == batch * 10);
    }
    collector.stop().unwrap();
    law(&collector, 1_000);
}

#[test]
fn a_critical_event_and_a_flush_and_a_stop_end_a_nap() {
    let memory = MemorySink::new();
    let builder = ticks().flush(FlushStrategy::Size { events: 1_000 }).max_nap(HOUR);
    let collector = builder.sink(memory.clone()).start().unwrap();
    // However long the naps between them become: nothing but the flushes delivers so few.
    let mut offered = 0;
    for number in 0..50 {
        collector.collect(tick(number));
        let _ = collector.flush().unwrap();
        offered += 1;
        assert_eq!(memory.len(), offered);
    }
    for number in 50..100 {
        collector.collect(critical(number));
        offered += 1;
        until("the critical event is delivered", || memory.len() == offered);
    }
    collector.collect(tick(100));
    collector.stop().unwrap();
    assert_eq!(memory.len(), 101);
    law(&collector, 101);
}

#[test]
fn a_smaller_rest_than_a_batch_is_delivered_by_its_interval() {
    let memory = MemorySink::new();
    let flush = FlushStrategy::Hybrid { events: 100, interval: Duration::from_millis(50) };
    let collector = ticks().flush(flush).max_nap(HOUR).sink(memory.clone()).start().unwrap();
    wakes_of(&collector, 15);
    until("the last fifty are delivered", || memory.len() == 150);
    collector.stop().unwrap();
    law(&collector, 150);
}

#[test]
fn half_a_lane_of_events_ends_a_nap_before_anything_is_evicted() {
    // Only the producer can end such a nap.
    let flush = FlushStrategy::Size { events: 100 };
    let collector = ticks().capacity(1_000).flush(flush).max_nap(HOUR).start().unwrap();
    for _ in 0..200 {
        wakes_of(&collector, 40);
        until("less than half of the lane is left", || collector.pending() < 500);
    }
    collector.stop().unwrap();
    assert_eq!(law(&collector, 80_000).evicted, 0);
}
