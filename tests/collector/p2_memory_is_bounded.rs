//! P2: memory is bounded, whatever the producers do.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::support::*;
use forebay::{Builder, Event, FlushStrategy, Overflow, Priority};

static ALIVE: AtomicI64 = AtomicI64::new(0);
static MOST: AtomicI64 = AtomicI64::new(0);

/// An event that counts how many of it exist.
struct Counted(Priority);

impl Counted {
    fn new(priority: Priority) -> Self {
        MOST.fetch_max(ALIVE.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        Self(priority)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Event for Counted {
    fn priority(&self) -> Priority {
        self.0
    }
}

#[test]
fn no_more_events_exist_than_the_lanes_and_one_batch_hold() {
    const PRODUCERS: i64 = 8;
    const EACH: u64 = 20_000;
    for overflow in [Overflow::DropOldest, Overflow::DropNewest] {
        MOST.store(0, Ordering::SeqCst);
        let gate = Gate::closed();
        let collector = Builder::<Counted>::new()
            .capacity(100)
            .low_capacity(50)
            .critical_capacity(10)
            .critical_timeout(std::time::Duration::ZERO)
            .batch_size(20)
            .overflow(overflow)
            .flush(FlushStrategy::Size { events: 10 })
            .sink(gate.sink())
            .start()
            .unwrap();
        std::thread::scope(|scope| {
            for _ in 0..PRODUCERS {
                scope.spawn(|| {
                    for number in 0..EACH {
                        let priority = match number % 10 {
                            0 => Priority::Critical,
                            1..4 => Priority::Low,
                            _ => Priority::Normal,
                        };
                        collector.collect(Counted::new(priority));
                    }
                });
            }
        });
        // Lanes, one batch at the gate, and one event on its way in the hand of each producer, two if it
        // carries an evicted one.
        let most = MOST.load(Ordering::SeqCst);
        assert!(most <= 160 + 20 + 2 * PRODUCERS, "{most} events existed at one time");
        assert!(collector.pending() <= 180);
        law(&collector, PRODUCERS as u64 * EACH);
        gate.open();
        collector.stop().unwrap();
        law(&collector, PRODUCERS as u64 * EACH);
        drop(collector);
        until("the last batch is dropped", || ALIVE.load(Ordering::SeqCst) == 0);
    }
}

#[test]
fn flushes_that_time_out_leave_nothing_in_the_mailbox() {
    // Seen from outside: after thousands of flushes that gave up, the one that gets through is alone.
    let gate = Gate::closed();
    let collector = stalled(ticks(), &gate);
    for _ in 0..1000 {
        assert!(collector.flush_timeout(std::time::Duration::ZERO).is_err());
    }
    gate.open();
    let _ = collector.flush().unwrap();
    assert_eq!(collector.stats().flushes, 1, "the flushes that gave up were taken back");
    collector.stop().unwrap();
    law(&collector, 1);
}
