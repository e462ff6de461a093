//! P2: what queued events own beyond their slots is bounded in bytes, and what does not fit meets the overflow policy.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::support::*;
use forebay::config::{ConfigError, Lanes};
use forebay::sink::{MemorySink, SinkExt};
use forebay::{Builder, Collector, Event, FlushStrategy, Outcome, Overflow, Priority, Record};

/// An event that says how much it owns.
#[derive(Debug, Clone)]
struct Heavy {
    bytes: usize,
    priority: Priority,
}

impl Event for Heavy {
    fn priority(&self) -> Priority {
        self.priority
    }

    fn size_hint(&self) -> usize {
        size_of::<Self>() + self.bytes
    }
}

fn heavy(bytes: usize) -> Heavy {
    Heavy { bytes, priority: Priority::Normal }
}

fn of(priority: Priority, bytes: usize) -> Heavy {
    Heavy { bytes, priority }
}

/// Returns a builder with 800 bytes: 700 for all, 100 more for critical events. Nothing is delivered by itself.
fn builder() -> Builder<Heavy> {
    Builder::new().max_bytes(800).flush(FlushStrategy::Manual).critical_timeout(Duration::ZERO)
}

#[test]
fn the_oldest_make_space_and_are_counted() {
    let memory = MemorySink::new();
    let collector = builder().sink(memory.clone()).start().unwrap();
    for _ in 0..7 {
        assert_eq!(collector.collect(heavy(100)), Outcome::Queued);
    }
    assert_eq!(collector.stats().pending_bytes, 700);
    assert_eq!(collector.collect(heavy(100)), Outcome::QueuedEvicting);
    assert_eq!(collector.collect(heavy(250)), Outcome::QueuedEvicting, "three make space for it");
    let stats = law(&collector, 9);
    assert_eq!((stats.evicted, stats.pending, stats.pending_bytes), (4, 5, 650));
    // What owns nothing is not asked.
    assert_eq!(collector.collect(heavy(0)), Outcome::Queued);
    assert_eq!(collector.collect(heavy(50)), Outcome::Queued);
    let report = collector.flush().unwrap();
    assert_eq!((report.processed, report.evicted), (7, 4));
    assert_eq!(law(&collector, 11).pending_bytes, 0, "delivered events own nothing any more");
    assert_eq!(audit(&memory), 4, "the gaps tell what is missing");
    collector.stop().unwrap();
}

#[test]
fn low_events_make_space_before_normal_ones_and_never_for_themselves_from_above() {
    let memory = MemorySink::new();
    let collector = builder().sink(memory.clone()).start().unwrap();
    collector.collect(heavy(300));
    collector.collect(of(Priority::Low, 200));
    collector.collect(of(Priority::Low, 200));
    // A normal event: the older of the low ones goes, although the normal one is older.
    assert_eq!(collector.collect(heavy(100)), Outcome::QueuedEvicting);
    // A low event makes low ones go, where that does.
    assert_eq!(collector.collect(of(Priority::Low, 500)), Outcome::Full);
    assert_eq!(collector.collect(of(Priority::Low, 210)), Outcome::QueuedEvicting);
    let _ = collector.flush().unwrap();
    let kept: Vec<usize> = memory.events().iter().map(|event| event.bytes).collect();
    assert_eq!(kept, [300, 100, 210]);
    let stats = law(&collector, 6);
    assert_eq!((stats.evicted, stats.rejected.full), (2, 1));
    collector.stop().unwrap();
}

#[test]
fn no_more_than_128_events_make_space_for_one() {
    let collector = builder().start().unwrap();
    for _ in 0..200 {
        collector.collect(heavy(0));
    }
    for _ in 0..7 {
        collector.collect(heavy(100));
    }
    assert_eq!(collector.collect(heavy(100)), Outcome::Full, "what is in front owns nothing");
    let stats = law(&collector, 208);
    assert_eq!((stats.evicted, stats.rejected.full), (128, 1));
    assert_eq!(collector.collect(heavy(100)), Outcome::QueuedEvicting, "the next one gets there");
    collector.stop().unwrap();
    law(&collector, 209);
}

#[test]
fn an_eighth_is_kept_for_critical_events() {
    let collector = builder().start().unwrap();
    collector.collect(heavy(700));
    assert_eq!(collector.collect(of(Priority::Critical, 60)), Outcome::Queued);
    assert_eq!(collector.collect(of(Priority::Critical, 60)), Outcome::Full, "reported, not evicted");
    assert_eq!(collector.collect(of(Priority::Critical, 40)), Outcome::Queued);
    assert_eq!(collector.try_collect(of(Priority::Critical, 1)).unwrap_err().event.bytes, 1);
    let stats = law(&collector, 5);
    assert_eq!((stats.evicted, stats.rejected.full, stats.pending_bytes), (0, 2, 800));
    collector.stop().unwrap();
}

#[test]
fn what_is_larger_than_the_budget_is_oversize() {
    let collector = builder().start().unwrap();
    collector.collect(heavy(100));
    assert_eq!(collector.collect(heavy(701)), Outcome::Oversize);
    assert_eq!(collector.collect(of(Priority::Critical, 801)), Outcome::Oversize);
    let stats = law(&collector, 3);
    assert_eq!((stats.oversize, stats.evicted, stats.pending), (2, 0, 1), "nobody made space in vain");
    collector.stop().unwrap();
}

#[test]
fn drop_newest_refuses_and_block_waits() {
    let gate = Gate::closed();
    let collector = builder().overflow(Overflow::DropNewest).sink(gate.sink()).start().unwrap();
    collector.collect(heavy(700));
    assert_eq!(collector.collect(heavy(1)), Outcome::Full);
    assert_eq!(collector.collect(heavy(0)), Outcome::Queued);
    collector
        .update_config(|config| config.overflow = Overflow::Block { timeout: Duration::from_secs(60) })
        .unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| collector.collect(heavy(700)));
        until("it waits", || collector.stats().waits == 1);
        let flush = scope.spawn(|| collector.flush().unwrap());
        gate.await_arrivals(1);
        // Out of the ring, and still in the hands of the worker: the bytes are there.
        assert_eq!(collector.stats().pending_bytes, 700);
        gate.open();
        assert_eq!(waits.join().unwrap(), Outcome::QueuedAfterWait);
        let _ = flush.join().unwrap();
    });
    collector.stop().unwrap();
    let stats = law(&collector, 4);
    assert_eq!((stats.rejected.full, stats.evicted, stats.pending_bytes), (1, 0, 0));
}

#[test]
fn who_waits_for_bytes_evicts_for_them_as_soon_as_the_policy_does() {
    let block = Overflow::Block { timeout: LONG };
    for threads in [Lanes::Shared, Lanes::PerThread { max: 2 }] {
        // Nobody drains it.
        let collector = builder().lanes(threads).overflow(block).build().unwrap();
        assert_eq!(collector.collect(of(Priority::Low, 700)), Outcome::Queued);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| collector.collect(heavy(600)));
            until("it waits", || collector.stats().waits == 1);
            collector.update_config(|config| config.overflow = Overflow::DropOldest).unwrap();
            assert_eq!(waits.join().unwrap(), Outcome::QueuedEvicting);
        });
        let stats = law(&collector, 2);
        assert_eq!((stats.evicted, stats.rejected.full, stats.pending_bytes), (1, 0, 600));
        // Where eviction cannot help either, it is rejected as any other.
        collector.update_config(|config| config.overflow = block).unwrap();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| collector.collect(of(Priority::Low, 600)));
            until("it waits", || collector.stats().waits == 2);
            collector.update_config(|config| config.overflow = Overflow::DropOldest).unwrap();
            assert_eq!(waits.join().unwrap(), Outcome::Full);
        });
        let stats = law(&collector, 3);
        assert_eq!((stats.evicted, stats.rejected.full, stats.pending_bytes), (1, 1, 600));
        drop(collector);
    }
}

#[test]
fn half_of_the_budget_wakes_the_worker() {
    for shards in [1, 2] {
        let memory = MemorySink::new();
        let collector = builder()
            .flush(FlushStrategy::Size { events: 10_000 })
            .shards(shards)
            .sink(memory.clone())
            .start()
            .unwrap();
        until_asleep(&collector);
        collector.collect(heavy(399));
        let parks = collector.stats().parks;
        collector.collect(heavy(1));
        until("both are delivered", || memory.len() == 2);
        until("it sleeps again", || collector.stats().parks > parks);
        until_asleep(&collector);
        collector.stop().unwrap();
        law(&collector, 2);
    }
}

#[test]
fn the_budget_changes_at_run_time() {
    let collector = builder().overflow(Overflow::DropNewest).start().unwrap();
    collector.collect(heavy(700));
    collector.update_config(|config| config.max_bytes = Some(8)).unwrap();
    assert_eq!(collector.collect(heavy(7)), Outcome::Full);
    collector.update_config(|config| config.max_bytes = None).unwrap();
    assert_eq!(collector.collect(heavy(usize::MAX / 4)), Outcome::Queued);
    let zero = collector.update_config(|config| config.max_bytes = Some(0)).unwrap_err();
    assert!(matches!(zero, ConfigError::Invalid { field: "max_bytes", .. }));
    collector.stop().unwrap();
    assert_eq!(law(&collector, 3).pending_bytes, 0);
}

#[test]
fn the_defaults_are_50_mib_and_numbers_own_nothing() {
    let collector = Collector::builder().flush(FlushStrategy::Manual).start().unwrap();
    assert_eq!(collector.config().max_bytes, Some(50 << 20));
    collector.collect(Record::scalar("loss", 1.0).with_step(3));
    assert_eq!(collector.stats().pending_bytes, 0);
    collector.collect(Record::text("note", "x".repeat(1000)));
    let note = collector.stats().pending_bytes;
    assert!((1000..1100).contains(&note), "{note}");
    collector.collect(Record::scalar(format!("layer.{}", 1), 1.0));
    assert_eq!(collector.stats().pending_bytes - note, 7, "a name made at run time");
    assert_eq!(collector.collect(Record::text("note", "x".repeat(50 << 20))), Outcome::Oversize);
    collector.stop().unwrap();
    assert_eq!(law(&collector, 4).pending_bytes, 0);
}

#[test]
fn late_and_forgotten_events_give_their_bytes_back() {
    let collector = builder().build().unwrap();
    collector.collect(heavy(700));
    collector.stop().unwrap();
    let stats = law(&collector, 1);
    assert_eq!((stats.rejected.stopped, stats.pending_bytes), (1, 0));
    collector.start().unwrap();
    assert_eq!(collector.collect(heavy(700)), Outcome::Queued);
    collector.stop().unwrap();
    law(&collector, 2);
}

/// An event whose destructor panics.
struct Bomb;

impl Event for Bomb {
    fn size_hint(&self) -> usize {
        100
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("boom");
    }
}

#[test]
fn a_destructor_that_panics_in_making_space_does_not_reach_the_loop() {
    hush();
    let collector = Builder::<Bomb>::new().max_bytes(114).flush(FlushStrategy::Manual).start().unwrap();
    assert_eq!(collector.collect(Bomb), Outcome::Queued);
    assert_eq!(collector.collect(Bomb), Outcome::QueuedEvicting);
    collector.stop().unwrap();
    assert_eq!(law(&collector, 2).pending_bytes, 0);
}

#[test]
fn whatever_producers_do_no_more_is_held_than_the_budget() {
    const MOST: usize = 10_000;
    const EACH: u64 = 20_000;
    let policies =
        [Overflow::DropOldest, Overflow::DropNewest, Overflow::Block { timeout: Duration::from_micros(50) }];
    for overflow in policies {
        let memory = MemorySink::new();
        let collector = builder()
            .max_bytes(MOST)
            .capacity(256)
            .shards(2)
            .overflow(overflow)
            .flush(FlushStrategy::Size { events: 64 })
            .sink(memory.clone())
            .start()
            .unwrap();
        let most = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let (collector, most) = (&collector, &most);
                scope.spawn(move || {
                    let mut chance = fastrand::Rng::with_seed(seed);
                    for _ in 0..EACH {
                        let priority =
                            [Priority::Critical, Priority::Normal, Priority::Normal, Priority::Low]
                                [chance.usize(..4)];
                        let bytes = if chance.bool() { 0 } else { chance.usize(..3000) };
                        collector.collect(of(priority, bytes));
                        most.fetch_max(collector.stats().pending_bytes, Ordering::Relaxed);
                    }
                });
            }
        });
        let _ = collector.flush().unwrap();
        let stats = law(&collector, 4 * EACH);
        assert_eq!(stats.pending_bytes, 0);
        assert_eq!(audit(&memory), stats.evicted);
        assert!(stats.evicted + stats.rejected.full > 0, "the budget was met: {stats}");
        assert!(most.into_inner() <= MOST as u64);
        collector.stop().unwrap();
    }
}

#[test]
fn the_queue_of_an_isolated_sink_is_bounded_in_bytes_as_well() {
    let (gate, memory) = (Gate::closed(), MemorySink::new());
    let hung = gate.sink().isolated(1000).max_bytes(1000);
    let collector = builder().max_bytes(8000).sink(hung).sink(memory.clone()).start().unwrap();
    collector.collect(heavy(1));
    until_delivered(&collector);
    gate.await_arrivals(1);
    for _ in 0..10 {
        collector.collect(heavy(400));
        until_delivered(&collector);
    }
    let stats = collector.stats();
    let sink = stats.sinks.iter().find(|sink| sink.name != "memory").unwrap();
    assert_eq!((sink.evicted, sink.in_flight), (8, 3), "two of 400 in the queue, one in its hands");
    // One that is larger than the queue is taken alone.
    collector.collect(heavy(5000));
    until_delivered(&collector);
    gate.open();
    collector.stop().unwrap();
    let stats = law(&collector, 12);
    assert_eq!(memory.len(), 12, "the other sink has all");
    let sink = stats.sinks.iter().find(|sink| sink.name != "memory").unwrap();
    assert_eq!((sink.evicted, sink.delivered), (10, 2));
}

#[test]
fn who_waits_for_bytes_calls_the_worker() {
    // Too little is pending to set off a delivery by itself, by number or by bytes.
    let memory = MemorySink::new();
    let collector = builder()
        .flush(FlushStrategy::Size { events: 1000 })
        .critical_timeout(Duration::from_secs(3600))
        .sink(memory.clone())
        .start()
        .unwrap();
    until_asleep(&collector);
    collector.collect(heavy(300));
    let waits = Overflow::Block { timeout: Duration::from_secs(3600) };
    for priority in [Priority::Critical, Priority::Normal] {
        collector.update_config(|config| config.overflow = waits).unwrap();
        assert!(collector.collect(of(priority, 600)).is_queued());
        until("all is delivered but the last", || !memory.is_empty() && collector.pending() <= 1);
        let _ = collector.flush().unwrap();
        collector.collect(heavy(300));
        until_asleep(&collector);
    }
    // One that does not wait calls it for those who come later.
    collector.update_config(|config| config.overflow = Overflow::DropNewest).unwrap();
    let before = memory.len();
    assert_eq!(collector.collect(heavy(600)), Outcome::Full);
    until("there is space", || memory.len() == before + 1 && collector.stats().pending_bytes == 0);
    collector.stop().unwrap();
    law(&collector, 6);
}

#[test]
fn nobody_makes_space_where_that_cannot_do() {
    // What is in the way is critical.
    let collector = builder().start().unwrap();
    collector.collect(of(Priority::Critical, 700));
    (0..100).for_each(|_| _ = collector.collect(heavy(0)));
    assert_eq!(collector.collect(heavy(100)), Outcome::Full);
    let stats = law(&collector, 102);
    assert_eq!((stats.evicted, stats.rejected.full), (0, 1), "no event is lost in vain");
    // A low event takes none from the normal lane.
    let _ = collector.flush().unwrap();
    collector.collect(heavy(700));
    (0..100).for_each(|_| _ = collector.collect(of(Priority::Low, 0)));
    assert_eq!(collector.collect(of(Priority::Low, 100)), Outcome::Full);
    assert_eq!(law(&collector, 204).evicted, 0);
    collector.stop().unwrap();

    // It is in the hands of the worker.
    let gate = Gate::closed();
    let collector = builder().sink(gate.sink()).start().unwrap();
    collector.collect(heavy(700));
    std::thread::scope(|scope| {
        let flush = scope.spawn(|| collector.flush().map(drop).unwrap());
        gate.await_arrivals(1);
        (0..100).for_each(|_| _ = collector.collect(heavy(0)));
        assert_eq!(collector.collect(heavy(100)), Outcome::Full);
        assert_eq!(collector.stats().evicted, 0);
        gate.open();
        flush.join().unwrap();
    });
    collector.stop().unwrap();
    assert_eq!(law(&collector, 102).pending_bytes, 0);
}

#[test]
fn one_event_is_refused_rather_than_hundreds_evicted() {
    let collector = builder().max_bytes(8_000).start().unwrap();
    // On average, a thousand would have to go for the last.
    for _ in 0..7 {
        (0..300).for_each(|_| _ = collector.collect(heavy(0)));
        collector.collect(heavy(1_000));
    }
    assert_eq!(collector.collect(heavy(3_000)), Outcome::Full);
    assert_eq!(law(&collector, 2108).evicted, 0);
    collector.stop().unwrap();
}

#[cfg(feature = "futures")]
#[test]
fn a_future_waits_for_bytes_only_where_collect_would_and_evicts_once() {
    use std::task::{Context, Poll, Waker};
    let collector = builder().start().unwrap();
    collector.collect(of(Priority::Critical, 700));
    (0..500).for_each(|_| _ = collector.collect(heavy(0)));
    let mut refused = Box::pin(collector.collect_async(heavy(100)));
    let poll = |future: &mut std::pin::Pin<Box<_>>| {
        std::future::Future::poll(std::pin::Pin::as_mut(future), &mut Context::from_waker(Waker::noop()))
    };
    assert_eq!(poll(&mut refused), Poll::Ready(Outcome::Full), "as `collect` says at once");
    assert_eq!(collector.stats().evicted, 0);
    // A critical one waits, and is there when the bytes are.
    let mut waits = Box::pin(collector.collect_async(of(Priority::Critical, 200)));
    assert_eq!((poll(&mut waits), poll(&mut waits)), (Poll::Pending, Poll::Pending));
    let _ = collector.flush().unwrap();
    assert_eq!(poll(&mut waits), Poll::Ready(Outcome::QueuedAfterWait));
    drop((refused, waits));
    collector.stop().unwrap();
    assert_eq!(law(&collector, 503).pending_bytes, 0);
}

/// Asks the collector for its statistics when it is asked for its size, and panics if it is set to.
struct Nosy(std::sync::Arc<std::sync::OnceLock<Collector<Nosy>>>, bool);

impl Event for Nosy {
    fn size_hint(&self) -> usize {
        if let Some(collector) = self.0.get() {
            let _ = (collector.stats(), collector.health());
        }
        assert!(!self.1 || std::thread::current().name() != Some("forebay-worker"), "on purpose");
        size_of::<Self>() + 100
    }

    fn made_at(&self) -> Option<u64> {
        if let Some(collector) = self.0.get() {
            let _ = (collector.stats(), collector.health());
        }
        Some(0)
    }
}

#[test]
fn foreign_code_may_ask_and_panic_and_keeps_no_bytes_of_others() {
    hush();
    let handle = std::sync::Arc::new(std::sync::OnceLock::new());
    let collector = Builder::<Nosy>::new().max_bytes(10_000).flush(FlushStrategy::Manual).start().unwrap();
    handle.set(collector.clone()).ok().unwrap();
    for number in 0..10 {
        collector.collect(Nosy(handle.clone(), number == 5));
    }
    let _ = collector.flush().unwrap();
    assert_eq!(law(&collector, 10).pending_bytes, 100, "those of the one that panicked");
    collector.stop().unwrap();
}

/// Says that it owns nearly everything, once it is with the worker.
struct Boaster;

impl Event for Boaster {
    fn size_hint(&self) -> usize {
        let is_delivered = std::thread::current().name() == Some("forebay-worker");
        if is_delivered { usize::MAX } else { size_of::<Self>() + 100 }
    }
}

#[test]
fn events_that_come_to_own_more_than_can_be_counted_cost_no_worker() {
    let collector = Builder::<Boaster>::new().flush(HOURLY).start().unwrap();
    (0..3).for_each(|_| _ = collector.collect(Boaster));
    let _ = collector.flush().unwrap();
    assert_eq!(law(&collector, 3).pending_bytes, 0);
    assert_eq!(collector.collect(Boaster), Outcome::Queued, "the worker is there");
    collector.stop().unwrap();
    assert_eq!(law(&collector, 4).processed, 4);
}

#[test]
fn a_batch_tells_every_event_that_was_evicted_for_it_be_it_by_bytes_or_by_slots() {
    struct Owns(usize);
    impl Event for Owns {
        fn size_hint(&self) -> usize {
            size_of::<Self>() + self.0
        }
    }
    // Seven eighths of it are for events that are not critical.
    let collector =
        Builder::<Owns>::new().max_bytes(8_000).capacity(100).flush(FlushStrategy::Manual).start().unwrap();
    let mut offered = 0;
    let mut collect = |sizes: &[usize]| {
        offered += sizes.len() as u64;
        let before = collector.stats().evicted;
        let outcome = collector.collect_batch(sizes.iter().map(|bytes| Owns(*bytes)));
        assert_eq!(outcome.evicted, collector.stats().evicted - before, "{outcome:?}");
        assert_eq!(outcome.queued + outcome.rejected, sizes.len() as u64);
        outcome.evicted
    };
    assert_eq!(collect(&[1_000; 7]), 0);
    assert_eq!(collect(&[3_000]), 3, "one event makes three give up their bytes");
    assert_eq!(collect(&[7_000, 7_001, 10]), 5 + 1, "five for the first, and that one for the last");
    assert_eq!(collect(&[0; 150]), 51, "and by slots");
    let _ = collector.flush().unwrap();
    // Many small ones before a large one: some go, and it is refused all the same, or more are evicted than one may.
    assert_eq!(collect(&[70; 100]), 0);
    let _ = collect(&[6_999]);
    collector.stop().unwrap();
    law(&collector, offered);
}

#[test]
fn an_evicted_event_whose_size_panics_stops_neither_the_count_nor_the_new_one() {
    /// Tells its size as often as it may, then panics.
    struct Shy(std::sync::atomic::AtomicU64);
    impl Event for Shy {
        fn size_hint(&self) -> usize {
            let left = self.0.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
            assert!(left > 0 && left < 1 << 60, "on purpose");
            size_of::<Self>() + 100
        }
    }
    hush();
    for (slots, bytes) in [(2, 1_000_000), (100, 400)] {
        let collector = Builder::<Shy>::new()
            .capacity(slots)
            .max_bytes(bytes)
            .flush(FlushStrategy::Manual)
            .start()
            .unwrap();
        // Each is asked once when it comes.
        for _ in 0..6 {
            let outcome = collector.collect(Shy(std::sync::atomic::AtomicU64::new(1)));
            assert!(outcome.is_queued() || outcome == Outcome::Full, "{outcome:?}");
        }
        let _ = collector.flush().unwrap();
        assert!(collector.stats().evicted > 0 || collector.stats().rejected.full > 0);
        collector.stop().unwrap();
        law(&collector, 6);
    }
}

/// The first stops the collector when it is evicted; the second when it is asked for its size once more.
struct Stops {
    collector: std::sync::Arc<std::sync::OnceLock<Collector<Stops>>>,
    priority: Priority,
    bytes: usize,
    asked: AtomicU64,
}

impl Stops {
    fn stop(&self) {
        if let Some(collector) = self.collector.get() {
            collector.stop().unwrap();
        }
    }
}

impl Event for Stops {
    fn priority(&self) -> Priority {
        self.priority
    }

    fn size_hint(&self) -> usize {
        if self.asked.fetch_add(1, Ordering::SeqCst) > 0 {
            self.stop();
        }
        size_of::<Self>() + self.bytes
    }

    fn made_at(&self) -> Option<u64> {
        self.stop();
        Some(0)
    }
}

impl Drop for Stops {
    fn drop(&mut self) {
        self.stop();
    }
}

#[test]
fn an_event_that_comes_too_late_may_use_the_collector_when_it_is_asked() {
    let of = |lanes, by_time: bool, priority| {
        let handle = std::sync::Arc::new(std::sync::OnceLock::new());
        let builder = Builder::<Stops>::new().max_bytes(1_000).lanes(lanes).flush(FlushStrategy::Manual);
        let builder = if by_time { builder.ordered_by_time() } else { builder };
        let collector = builder.start().unwrap();
        let owning =
            |priority, bytes| Stops { collector: handle.clone(), priority, bytes, asked: AtomicU64::new(0) };
        assert_eq!(collector.collect(owning(Priority::Low, 700)), Outcome::Queued);
        handle.set(collector.clone()).ok().unwrap();
        // Admitted before it makes space by the first, and queued after the stop.
        assert_eq!(collector.collect(owning(priority, 800)), Outcome::Stopped);
        let stats = law(&collector, 2);
        assert_eq!((stats.evicted, stats.rejected.stopped, stats.pending_bytes), (1, 1, 0));
    };
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for priority in [Priority::Normal, Priority::Low] {
            of(Lanes::Shared, false, priority);
            of(Lanes::PerThread { max: 4 }, false, priority);
            of(Lanes::PerThread { max: 4 }, true, priority);
        }
        done.send(())
    });
    assert_eq!(ended.recv_timeout(LONG), Ok(()), "it waits for itself, or a promise is broken");
}

/// Calls `again` when it is asked for its size once more, and `dropped` in its destructor.
struct Calls {
    bytes: usize,
    asked: AtomicU64,
    again: Box<dyn Fn() + Send + Sync>,
    dropped: Box<dyn Fn() + Send + Sync>,
}

impl Calls {
    fn new(
        bytes: usize,
        again: impl Fn() + Send + Sync + 'static,
        dropped: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self { bytes, asked: AtomicU64::new(0), again: Box::new(again), dropped: Box::new(dropped) }
    }
}

impl Event for Calls {
    fn size_hint(&self) -> usize {
        if self.asked.fetch_add(1, Ordering::SeqCst) == 1 {
            (self.again)();
        }
        size_of::<Self>() + self.bytes
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        (self.dropped)();
    }
}

#[test]
fn bytes_of_a_late_event_are_free_for_who_waits_in_the_next_run() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let collector = Builder::<Calls>::new().max_bytes(1_000).flush(FlushStrategy::Manual).start().unwrap();
    let stops = {
        let collector = collector.clone();
        Calls::new(700, || (), move || drop(collector.stop().unwrap()))
    };
    assert_eq!(collector.collect(stops), Outcome::Queued);
    let waiting = std::sync::Arc::new(std::sync::Mutex::new(None));
    // Asked for its bytes while they count still: the next run begins, and somebody waits for them.
    let again = {
        let (collector, waiting) = (collector.clone(), waiting.clone());
        move || {
            collector.start().unwrap();
            collector.update_config(|config| config.overflow = Overflow::Block { timeout: DAY }).unwrap();
            let waits = collector.clone();
            let thread = std::thread::spawn(move || waits.collect(Calls::new(800, || (), || ())));
            *waiting.lock().unwrap() = Some(thread);
            until("it waits", || collector.stats().waits == 1);
        }
    };
    assert_eq!(collector.collect(Calls::new(800, again, || ())), Outcome::Stopped);
    let thread = waiting.lock().unwrap().take().unwrap();
    until("somebody wakes it", || thread.is_finished());
    assert_eq!(thread.join().unwrap(), Outcome::QueuedAfterWait);
    collector.stop().unwrap();
    let stats = law(&collector, 3);
    assert_eq!((stats.evicted, stats.rejected.stopped, stats.processed, stats.pending_bytes), (1, 1, 1, 0));
}
