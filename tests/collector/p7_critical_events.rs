//! P7: a critical event is never evicted; if its lane stays full past the bound, the caller gets an error outcome.

use std::time::Duration;

use crate::support::*;
use forebay::sink::MemorySink;
use forebay::{FlushStrategy, Outcome, Overflow};

#[test]
fn a_flood_evicts_no_critical_event() {
    for overflow in [Overflow::DropOldest, Overflow::DropNewest] {
        let gate = Gate::closed();
        let memory = MemorySink::new();
        let collector =
            stalled(ticks().capacity(4).low_capacity(4).overflow(overflow).sink(memory.clone()), &gate);
        for number in 0..100 {
            assert_eq!(collector.collect(critical(number)), Outcome::Queued);
            for _ in 0..100 {
                collector.collect(tick(0));
                collector.collect(low(0));
            }
        }
        gate.open();
        collector.stop().unwrap();
        let mut events = memory.events();
        events.retain(|event| event.priority == forebay::Priority::Critical);
        assert_eq!(numbers(&events), (0..100).collect::<Vec<_>>());
        law(&collector, 1 + 100 * 201);
    }
}

#[test]
fn a_full_critical_lane_makes_the_caller_wait_until_there_is_space() {
    let gate = Gate::closed();
    let collector = stalled(ticks().critical_capacity(1).critical_timeout(LONG), &gate);
    assert_eq!(collector.collect(critical(0)), Outcome::Queued);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| collector.collect(critical(1)));
        until("the caller waits", || collector.stats().waits == 1);
        gate.open();
        assert_eq!(waiting.join().unwrap(), Outcome::QueuedAfterWait);
    });
    collector.stop().unwrap();
    assert_eq!(law(&collector, 3).processed, 3);
}

#[test]
fn a_critical_lane_that_stays_full_past_the_bound_is_reported() {
    let gate = Gate::closed();
    let collector = stalled(ticks().critical_capacity(1).critical_timeout(Duration::from_millis(1)), &gate);
    assert_eq!(collector.collect(critical(0)), Outcome::Queued);
    assert_eq!(collector.collect(critical(1)), Outcome::Full);
    assert_eq!(collector.try_collect(critical(2)).unwrap_err().event, critical(2), "without a wait");
    gate.open();
    collector.stop().unwrap();
    let stats = law(&collector, 4);
    assert_eq!((stats.rejected.full, stats.waits), (2, 1));
}

#[test]
fn a_critical_event_is_delivered_at_once_and_first_with_all_that_is_pending() {
    for strategy in [HOURLY, FlushStrategy::Size { events: 1000 }] {
        let memory = MemorySink::new();
        let collector = ticks().flush(strategy).sink(memory.clone()).start().unwrap();
        collector.collect(tick(0));
        collector.collect(low(1));
        until_asleep(&collector);
        collector.collect(critical(2));
        assert!(memory.wait_for(3, LONG), "nothing else asked for a delivery");
        assert_eq!(numbers(&memory.events()), [2, 0, 1]);
        collector.stop().unwrap();
        law(&collector, 3);
    }
}

#[test]
fn a_critical_event_that_comes_in_the_middle_of_a_long_delivery_is_in_its_next_batch() {
    let gate = Gate::closed();
    let memory = MemorySink::new();
    let builder = ticks().capacity(100).batch_size(10).flush(FlushStrategy::Size { events: 100 });
    let collector = builder.sink(memory.clone()).sink(gate.sink()).start().unwrap();
    collector.collect_batch((0..100).map(tick));
    gate.await_arrivals(1);
    // The worker stands in the first of ten batches.
    collector.collect_batch((1_000..1_020).map(critical));
    gate.open();
    let _ = collector.flush().unwrap();
    let batches = memory.batches();
    let critical =
        |at: usize| numbers(batches[at].events()).iter().filter(|number| **number >= 1_000).count();
    assert_eq!([critical(0), critical(1), critical(2)], [0, 5, 5], "half a batch, the rest goes on");
    collector.stop().unwrap();
    assert_eq!(law(&collector, 120).processed, 120);
    audit(&memory);
}
