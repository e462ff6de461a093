//! Tests of when events are delivered, by a clock that the tests move.

use std::time::Duration;

use crate::support::*;
use forebay::sink::{MemorySink, from_fn};
use forebay::{Batch, Collector, Config, FlushStrategy, ManualClock};

const SECOND: Duration = Duration::from_secs(1);

/// Returns a collector by a clock that stands, whose worker sleeps.
fn start(strategy: FlushStrategy) -> (Collector<Tick>, MemorySink<Tick>, ManualClock) {
    let (clock, memory) = (ManualClock::new(), MemorySink::new());
    let collector = ticks().manual_clock(&clock).flush(strategy).sink(memory.clone()).start().unwrap();
    until_asleep(&collector);
    (collector, memory, clock)
}

/// Moves the clock, and waits until the worker has reacted and sleeps again.
fn advance(collector: &Collector<Tick>, clock: &ManualClock, by: Duration) {
    until_asleep(collector);
    let parks = collector.stats().parks;
    clock.advance(by);
    until("the worker slept again", || collector.stats().parks > parks);
    until_asleep(collector);
}

#[test]
fn time_delivers_within_one_interval_of_the_event_and_not_before() {
    let (collector, memory, clock) = start(FlushStrategy::Time { interval: SECOND });
    for number in 0..200 {
        collector.collect(tick(number));
    }
    advance(&collector, &clock, SECOND * 9 / 10);
    assert!(memory.is_empty(), "number alone sets off nothing");
    advance(&collector, &clock, SECOND / 10);
    assert_eq!(memory.len(), 200);
    collector.stop().unwrap();
    law(&collector, 200);
}

#[test]
fn a_steady_trickle_never_postpones_the_interval() {
    let interval = SECOND;
    for strategy in [FlushStrategy::Time { interval }, FlushStrategy::Hybrid { events: 1000, interval }] {
        let (clock, memory) = (ManualClock::new(), MemorySink::<Tick>::new());
        // Events carry the moment of their collection, in milliseconds of the clock.
        let lateness = from_fn("lateness", {
            let clock = clock.clone();
            move |batch: &Batch<Tick>| {
                let now = clock.elapsed().as_millis() as u64;
                for event in batch {
                    assert!(now - event.number <= 1000, "{} ms late", now - event.number);
                }
                Ok(())
            }
        });
        let collector =
            ticks().manual_clock(&clock).flush(strategy).sink(lateness).sink(memory.clone()).start().unwrap();
        for _ in 0..50 {
            collector.collect(tick(clock.elapsed().as_millis() as u64));
            advance(&collector, &clock, SECOND / 10);
        }
        let stats = collector.stats();
        assert!(memory.len() >= 40, "5 s have passed, only {} of 50 are there", memory.len());
        assert!(stats.batches <= 5, "in batches, not one by one");
        assert_eq!(stats.sink("lateness").unwrap().failed, 0, "{stats:?}");
        collector.stop().unwrap();
        law(&collector, 50);
    }
}

#[test]
fn an_idle_tail_is_delivered_without_a_next_event() {
    let (collector, memory, clock) = start(FlushStrategy::Hybrid { events: 10, interval: SECOND });
    // A long quiet time first, so that the worker sleeps without a timer.
    for _ in 0..3 {
        collector.collect(tick(0));
        advance(&collector, &clock, SECOND);
        advance(&collector, &clock, SECOND);
    }
    assert_eq!(memory.len(), 3);
    collector.collect(tick(1));
    advance(&collector, &clock, SECOND);
    assert_eq!(memory.len(), 4);
    collector.stop().unwrap();
    law(&collector, 4);
}

#[test]
fn time_delivers_early_what_would_overflow() {
    let (clock, memory) = (ManualClock::new(), MemorySink::new());
    let builder = ticks().manual_clock(&clock).capacity(100).flush(HOURLY).sink(memory.clone());
    let collector = builder.start().unwrap();
    until_asleep(&collector);
    for number in 0..50 {
        collector.collect(tick(number));
    }
    assert!(memory.wait_for(1, LONG), "half a lane is pending");
    collector.stop().unwrap();
    assert_eq!(law(&collector, 50).evicted, 0);
}

#[test]
fn size_delivers_at_the_batch_size_from_collect_alone() {
    let (clock, memory) = (ManualClock::new(), MemorySink::new());
    let builder = ticks().manual_clock(&clock).flush(FlushStrategy::Size { events: 10 }).batch_size(10);
    let collector = builder.sink(memory.clone()).start().unwrap();
    until_asleep(&collector);
    for number in 0..9 {
        collector.collect(tick(number));
    }
    advance(&collector, &clock, SECOND * 3600);
    assert!(memory.is_empty(), "time alone sets off nothing");
    collector.collect(low(9));
    assert!(memory.wait_for(10, LONG), "lanes count together");
    for number in 10..35 {
        collector.collect(tick(number));
    }
    assert!(memory.wait_for(30, LONG));
    until_asleep(&collector);
    assert_eq!(collector.pending(), 5, "the rest waits");
    collector.stop().unwrap();
    assert_eq!(memory.len(), 35);
    law(&collector, 35);
}

#[test]
fn hybrid_delivers_at_whichever_comes_first() {
    let (collector, memory, clock) = start(FlushStrategy::Hybrid { events: 10, interval: SECOND });
    for number in 0..10 {
        collector.collect(tick(number));
    }
    assert!(memory.wait_for(10, LONG), "by number, the clock stands");
    for number in 10..13 {
        collector.collect(tick(number));
    }
    until_asleep(&collector);
    assert_eq!(memory.len(), 10);
    advance(&collector, &clock, SECOND);
    assert_eq!(memory.len(), 13, "by time");
    collector.stop().unwrap();
    law(&collector, 13);
}

#[test]
fn manual_delivers_nothing_until_asked() {
    let (collector, memory, clock) = start(FlushStrategy::Manual);
    for number in 0..20_000 {
        collector.collect(tick(number));
    }
    collector.collect(critical(0));
    advance(&collector, &clock, SECOND * 3600);
    assert!(memory.is_empty());
    assert_eq!(collector.stats().evicted, 10_000, "the ring goes on as its policy says");
    let _ = collector.flush().unwrap();
    assert_eq!(memory.len(), 10_001);
    collector.stop().unwrap();
    law(&collector, 20_001);
}

#[test]
fn a_batch_carries_no_more_than_its_limit() {
    let limits = [
        (Some(5), FlushStrategy::Manual, 5),
        (Some(5), FlushStrategy::Size { events: 20 }, 5),
        (Some(30), FlushStrategy::Size { events: 20 }, 30),
        (None, FlushStrategy::Size { events: 20 }, 100),
        (None, FlushStrategy::Size { events: 150 }, 150),
    ];
    for (batch_size, strategy, limit) in limits {
        let memory = MemorySink::new();
        let config = Config::default().with_batch_size(batch_size).with_flush(strategy);
        let collector = ticks().config(config).sink(memory.clone()).build().unwrap();
        for number in 0..300 {
            collector.collect(tick(number));
        }
        collector.start().unwrap();
        collector.stop().unwrap();
        let sizes: Vec<usize> = memory.batches().iter().map(Batch::len).collect();
        assert_eq!(sizes.iter().max(), Some(&limit), "{strategy:?}: {sizes:?}");
        assert_eq!(numbers(&memory.events()), (0..300).collect::<Vec<_>>());
        law(&collector, 300);
    }
}

#[test]
fn the_timer_runs_on_while_events_come_so_that_they_need_not_wake_the_worker() {
    let (collector, memory, clock) = start(FlushStrategy::Time { interval: SECOND });
    let wakes = |number| {
        let parks = collector.stats().parks;
        collector.collect(tick(number));
        until_asleep(&collector);
        collector.stats().parks > parks
    };
    assert!(wakes(0), "the first event starts the timer");
    advance(&collector, &clock, SECOND);
    assert_eq!(memory.len(), 1);
    // Due a second after the delivery, not after the event.
    advance(&collector, &clock, SECOND / 2);
    assert!(!wakes(1), "the timer runs");
    advance(&collector, &clock, SECOND / 2);
    assert_eq!(memory.len(), 2);
    // An interval without an event stops it.
    advance(&collector, &clock, SECOND);
    assert!(wakes(2), "the timer has stopped");
    advance(&collector, &clock, SECOND);
    assert_eq!(memory.len(), 3);
    collector.stop().unwrap();
    law(&collector, 3);
}
