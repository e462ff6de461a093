//! A normal lane of several rings keeps the same promises.

use std::sync::Barrier;

use crate::support::*;
use forebay::sink::MemorySink;
use forebay::{FlushStrategy, Outcome, Overflow, Priority, config::ConfigError};

#[test]
fn events_of_a_thread_keep_their_order_and_all_arrive() {
    const THREADS: u32 = 9;
    const EACH: u64 = 50_000;
    let memory = MemorySink::new();
    // Space for all even if all threads share one ring.
    let capacity = 4 * THREADS as usize * EACH as usize;
    let collector = ticks().capacity(capacity).shards(4).sink(memory.clone()).start().unwrap();
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
    // Whoever flushes need not be of those who collected.
    let offered = u64::from(THREADS) * EACH;
    assert_eq!(collector.flush().unwrap().processed, offered);
    let mut next = [0; THREADS as usize];
    for event in memory.events() {
        let next = &mut next[event.producer as usize];
        assert_eq!(event.number, *next);
        *next += 1;
    }
    assert_eq!(next, [EACH; THREADS as usize]);
    assert_eq!(audit(&memory), 0);
    collector.stop().unwrap();
    assert_eq!(law(&collector, offered).processed, offered);
}

#[test]
fn with_a_stalled_sink_every_ring_evicts_or_refuses_by_itself() {
    const THREADS: u64 = 8;
    const EACH: u64 = 20_000;
    for overflow in [Overflow::DropOldest, Overflow::DropNewest] {
        let gate = Gate::closed();
        let memory = MemorySink::new();
        let builder = ticks().capacity(40).shards(4).overflow(overflow).sink(memory.clone());
        let collector = stalled(builder, &gate);
        let taken: u64 = std::thread::scope(|scope| {
            let produce = || (0..EACH).filter(|n| collector.collect(tick(*n)).is_queued()).count();
            let producers: Vec<_> = (0..THREADS).map(|_| scope.spawn(produce)).collect();
            producers.into_iter().map(|producer| producer.join().unwrap() as u64).sum()
        });
        let offered = THREADS * EACH + 1;
        let stats = law(&collector, offered);
        // Other tests may have threads counted between ours, so not every ring need be used.
        assert!((10..=40).contains(&(stats.pending - 1)), "{stats:?}");
        assert_eq!(taken + 1, stats.pending + stats.evicted);
        gate.open();
        collector.stop().unwrap();
        let stats = law(&collector, offered);
        assert_eq!(stats.pending, 0);
        assert_eq!(audit(&memory), stats.evicted, "every eviction is marked in the stream");
        assert_eq!(stats.evicted > 0, overflow == Overflow::DropOldest);
        assert_eq!(stats.rejected.full > 0, overflow == Overflow::DropNewest);
    }
}

#[test]
fn a_thread_alone_has_its_part_of_the_capacity() {
    use Outcome::{Full, Queued, QueuedEvicting};
    for (overflow, third) in [(Overflow::DropOldest, QueuedEvicting), (Overflow::DropNewest, Full)] {
        let gate = Gate::closed();
        // Seven slots in four rings: two each.
        let collector = stalled(ticks().capacity(7).shards(4).overflow(overflow), &gate);
        assert_eq!([0, 1, 2].map(|n| collector.collect(tick(n))), [Queued, Queued, third]);
        gate.open();
        collector.stop().unwrap();
        law(&collector, 4);
    }
}

#[test]
fn who_waits_for_space_waits_for_space_in_its_own_ring() {
    let gate = Gate::closed();
    let memory = MemorySink::new();
    let builder = ticks().capacity(4).shards(4).overflow(Overflow::Block { timeout: LONG });
    let collector = stalled(builder.sink(memory.clone()), &gate);
    assert_eq!(collector.collect(tick(0)), Outcome::Queued);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            // In the ring of this thread, which may be that of the other.
            (1..4).map(|n| collector.collect(tick(n))).filter(|outcome| outcome.is_queued()).count()
        });
        until("the thread waits", || collector.stats().waits > 0);
        gate.open();
        assert_eq!(waiting.join().unwrap(), 3);
    });
    collector.stop().unwrap();
    assert_eq!(law(&collector, 5).processed, 5);
}

#[test]
fn a_part_of_the_number_in_one_ring_sets_off_a_delivery() {
    let memory = MemorySink::new();
    let flush = FlushStrategy::Size { events: 8 };
    let collector = ticks().capacity(400).shards(4).flush(flush).sink(memory.clone()).start().unwrap();
    until_asleep(&collector);
    collector.collect(tick(0));
    assert_eq!(collector.pending(), 1, "one times four is not eight");
    collector.collect(tick(1));
    assert!(memory.wait_for(2, LONG), "two times four is");
    collector.stop().unwrap();
    assert_eq!(law(&collector, 2).processed, 2);
}

#[test]
fn threads_that_collect_during_a_stop_lose_nothing_uncounted() {
    const THREADS: u64 = 4;
    const EACH: u64 = 10_000;
    let memory = MemorySink::new();
    let collector = ticks().shards(8).sink(memory.clone()).start().unwrap();
    let begin = Barrier::new(THREADS as usize + 1);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                begin.wait();
                (0..EACH).for_each(|n| _ = collector.collect(tick(n)));
            });
        }
        begin.wait();
        collector.stop().unwrap();
    });
    let stats = law(&collector, THREADS * EACH);
    assert_eq!(stats.pending, 0);
    assert_eq!(memory.len() as u64, stats.processed);
    // Whatever a later run reads, it numbers on from there.
    collector.start().unwrap();
    collector.collect(tick(0));
    collector.stop().unwrap();
    assert_eq!(audit(&memory), law(&collector, THREADS * EACH + 1).evicted);
}

#[test]
fn the_number_of_rings_cannot_change() {
    let collector = ticks().shards(2).start().unwrap();
    let refused = collector.update_config(|config| config.shards = 4);
    assert_eq!(refused, Err(ConfigError::Immutable { field: "shards" }));
    collector.stop().unwrap();
    law(&collector, 0);
}
