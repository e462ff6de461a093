//! P1: `collect()` never waits for a sink, never makes a system call but the one that wakes a sleeping
//! worker, never allocates. Two waits exist, both asked for by name, bounded, and reported in the outcome.

use std::time::Duration;

use crate::allocator::{calls_of_this_thread, turn};
use crate::support;
use crate::support::*;
use forebay::collector::State;
use forebay::config::{GateConfig, Lanes, NameRule, Sampling};
use forebay::{Collector, FlushStrategy, Outcome, Overflow, Record};

/// Returns how often `body` allocates or frees.
fn allocations(body: impl FnOnce()) -> u64 {
    let before = calls_of_this_thread();
    body();
    calls_of_this_thread() - before
}

#[test]
fn the_counter_counts() {
    let _turn = turn();
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 2);
}

#[test]
fn collecting_scalars_allocates_nothing_whether_the_worker_sleeps_wakes_or_the_ring_is_full() {
    let _turn = turn();
    let collector = Collector::builder().capacity(1000).start().unwrap();
    let collect = |events: u64| {
        for step in 0..events {
            let record = Record::scalar("train.loss", 0.5).with_step(step);
            assert!(collector.collect(record).is_queued());
        }
    };
    collect(1);
    // Asleep, waking the worker by number, awake, and overflowing: at this rate all of them happen.
    assert_eq!(allocations(|| collect(100_000)), 0);
    let _ = collector.flush().unwrap();
    until("the worker sleeps", || collector.state() == State::Asleep);
    assert_eq!(allocations(|| collect(10)), 0);
    collector.stop().unwrap();
    let refused = allocations(|| {
        assert_eq!(collector.collect(Record::scalar("late", 1.0)), Outcome::Stopped);
    });
    assert_eq!(refused, 0);
    law(&collector, 100_012);
}

#[test]
fn a_lane_is_allocated_for_at_most_once_for_each_thread() {
    let _turn = turn();
    let builder = Collector::builder().capacity(1000).lanes(Lanes::PerThread { max: 2 });
    let collector = builder.flush(FlushStrategy::Manual).start().unwrap();
    let record = |step| Record::scalar("train.loss", 0.5).with_step(step);
    collector.collect(record(0));
    // Into free blocks, into evicted ones, and into those of the other lane.
    let more = || (0..100_000).for_each(|step| assert!(collector.collect(record(step)).is_queued()));
    assert_eq!(allocations(more), 0);
    let producer = collector.local();
    let first = || (0..100_000).for_each(|step| assert!(producer.collect(record(step)).is_queued()));
    assert_eq!(allocations(first), 0, "a handle has its lane from the beginning");
    drop(producer);
    collector.stop().unwrap();
    law(&collector, 200_001);
}

#[test]
fn a_gate_allocates_nothing_not_even_the_first_time_on_a_thread() {
    let _turn = turn();
    let second = Duration::from_secs(1);
    let gate = GateConfig::default()
        .with_deny(vec!["*.debug".into()])
        .with_rules(vec![NameRule::new("keyed.*").with_sampling(Sampling::Keyed { rate: 0.5 })])
        .with_sampling(Some(Sampling::Rate { rate: 0.5, min_per_window: 1, window: second }))
        .with_rate_limit(100_000)
        .with_max_event_bytes(1000);
    let collector = Collector::builder().gate(gate).start().unwrap();
    let collect = |name: &'static str| _ = collector.collect(Record::scalar(name, 0.5));
    let one_round = || ["train.loss", "train.debug", "keyed.a"].into_iter().for_each(collect);
    std::thread::scope(|scope| {
        let fresh = scope.spawn(|| allocations(|| (0..1000).for_each(|_| one_round())));
        assert_eq!(fresh.join().unwrap(), 0);
    });
    collector.stop().unwrap();
    law(&collector, 3000);
}

/// An event that says it owns much, and owns nothing: what is freed is not the test's.
#[derive(Clone, Copy)]
struct Claims(usize);

impl forebay::Event for Claims {
    fn size_hint(&self) -> usize {
        size_of::<Self>() + self.0
    }
}

#[test]
fn a_full_byte_budget_allocates_nothing_be_it_that_others_make_space_or_not() {
    let _turn = turn();
    let builder = forebay::Builder::<Claims>::new().max_bytes(8_000).flush(FlushStrategy::Manual);
    let collector = builder.start().unwrap();
    let collect = |events: u64, bytes: usize| {
        let mut outcome = Outcome::Queued;
        let allocated = allocations(|| (0..events).for_each(|_| outcome = collector.collect(Claims(bytes))));
        (outcome, allocated)
    };
    assert_eq!(collect(1_000, 100), (Outcome::QueuedEvicting, 0));
    assert_eq!(collect(1, 9_000), (Outcome::Oversize, 0));
    collector.update_config(|config| config.overflow = Overflow::DropNewest).unwrap();
    assert_eq!(collect(1_000, 100), (Outcome::Full, 0));
    collector.stop().unwrap();
    law(&collector, 2_001);
}

#[test]
fn the_worker_allocates_nothing_from_batch_to_batch() {
    let _turn = turn();
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    let between = Arc::new(AtomicU64::new(u64::MAX));
    let least = Arc::clone(&between);
    let mut last = None;
    let sink = forebay::sink::from_fn("between", move |_: &forebay::Batch<Tick>| {
        let now = calls_of_this_thread();
        if let Some(last) = last.replace(now) {
            least.store(now - last, Ordering::Relaxed);
        }
        Ok(())
    });
    let collector = ticks().batch_size(10).flush(FlushStrategy::Manual).sink(sink).start().unwrap();
    collector.collect_batch((0..1000).map(support::tick));
    let _ = collector.flush().unwrap();
    assert_eq!(between.load(Ordering::Relaxed), 0, "between the last two of a hundred batches");
    collector.stop().unwrap();
    law(&collector, 1000);
}

#[test]
fn the_worker_recycles_the_buffers_of_batches_that_a_sink_keeps_for_a_while() {
    let _turn = turn();
    use std::collections::VecDeque;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    for kept in 1..=4 {
        let between = Arc::new(AtomicU64::new(u64::MAX));
        let least = Arc::clone(&between);
        // A sink that holds the last batches has their buffers while the worker fills the next.
        let mut last = None;
        let mut batches = VecDeque::with_capacity(kept + 1);
        let sink = forebay::sink::from_fn("keeper", move |batch: &forebay::Batch<Tick>| {
            batches.push_back(batch.clone());
            if batches.len() > kept {
                batches.pop_front();
            }
            let now = calls_of_this_thread();
            if let Some(last) = last.replace(now) {
                least.store(now - last, Ordering::Relaxed);
            }
            Ok(())
        });
        let collector = ticks().batch_size(10).flush(FlushStrategy::Manual).sink(sink).start().unwrap();
        collector.collect_batch((0..1000).map(support::tick));
        let _ = collector.flush().unwrap();
        // The counted reference to the buffer comes and goes with its batch. The buffer itself is used again.
        assert_eq!(
            between.load(Ordering::Relaxed),
            2,
            "between the last two of a hundred batches, {kept} kept"
        );
        collector.stop().unwrap();
        law(&collector, 1000);
    }
}

#[test]
fn being_refused_allocates_nothing_not_even_the_first_time_on_a_thread() {
    let _turn = turn();
    use crate::support::{critical, tick};
    let refusing = [
        ticks().overflow(Overflow::DropNewest),
        ticks().overflow(Overflow::Block { timeout: Duration::ZERO }),
        ticks().critical_timeout(Duration::ZERO),
    ];
    for (builder, event) in refusing.into_iter().zip([tick(0), tick(0), critical(0)]) {
        let collector = builder.capacity(1).critical_capacity(1).build().unwrap();
        collector.collect(event);
        std::thread::scope(|scope| {
            scope
                .spawn(|| assert_eq!(allocations(|| assert_eq!(collector.collect(event), Outcome::Full)), 0));
        });
        law(&collector, 2);
    }
}

#[test]
fn a_stalled_sink_does_not_hold_up_the_loop_and_eviction_allocates_nothing() {
    let _turn = turn();
    let gate = Gate::closed();
    let collector = stalled(ticks().capacity(100), &gate);
    // The worker stands in the sink and does not move. Were there any wait for it, this would not end.
    let allocated = allocations(|| {
        for number in 0..100_000 {
            let expected = if number < 100 { Outcome::Queued } else { Outcome::QueuedEvicting };
            assert_eq!(collector.collect(tick(number)), expected);
        }
    });
    assert_eq!(allocated, 0);
    assert_eq!(law(&collector, 100_001).evicted, 99_900);
    gate.open();
    collector.stop().unwrap();
    let stats = law(&collector, 100_001);
    assert_eq!((stats.processed, stats.pending), (101, 0));
}

#[test]
fn only_the_call_that_makes_enough_pending_wakes_the_worker() {
    let _turn = turn();
    let clock = forebay::ManualClock::new();
    let builder = ticks().manual_clock(&clock);
    let collector = builder.flush(FlushStrategy::Size { events: 1000 }).start().unwrap();
    until_asleep(&collector);
    let parks = collector.stats().parks;
    for number in 0..999 {
        collector.collect(tick(number));
        assert_eq!(collector.state(), State::Asleep, "event {number} woke the worker");
    }
    collector.collect(tick(999));
    until("the worker slept again", || collector.stats().parks > parks);
    assert_eq!(collector.stats().parks, parks + 1);
    collector.stop().unwrap();
    assert_eq!(law(&collector, 1000).processed, 1000);
}

#[test]
fn block_waits_for_space_and_says_so() {
    let _turn = turn();
    let gate = Gate::closed();
    let builder = ticks().capacity(1).overflow(Overflow::Block { timeout: LONG });
    let collector = stalled(builder, &gate);
    assert_eq!(collector.collect(tick(0)), Outcome::Queued);
    let blocked = std::thread::spawn({
        let collector = collector.clone();
        move || collector.collect(tick(1))
    });
    until("a producer waits", || collector.stats().waits == 1);
    assert!(!blocked.is_finished());
    gate.open();
    assert_eq!(blocked.join().unwrap(), Outcome::QueuedAfterWait);
    collector.stop().unwrap();
    assert_eq!(law(&collector, 3).processed, 3);
}

#[test]
fn block_gives_up_at_its_timeout_and_says_so() {
    let _turn = turn();
    let gate = Gate::closed();
    let timeout = Duration::from_millis(1);
    let collector = stalled(ticks().capacity(1).overflow(Overflow::Block { timeout }), &gate);
    assert_eq!(collector.collect(tick(0)), Outcome::Queued);
    assert_eq!(collector.collect(tick(1)), Outcome::Full);
    let refused = collector.try_collect(tick(2)).unwrap_err();
    assert_eq!(refused.event, tick(2), "it comes back");
    gate.open();
    collector.stop().unwrap();
    let stats = law(&collector, 4);
    assert_eq!((stats.rejected.full, stats.waits), (2, 1));
}

#[test]
fn the_destructor_of_an_event_that_found_no_space_may_collect_again() {
    let _turn = turn();
    struct Again(std::sync::Weak<std::sync::OnceLock<Collector<Again>>>);
    impl forebay::Event for Again {}
    impl Drop for Again {
        fn drop(&mut self) {
            if let Some(handle) = self.0.upgrade()
                && let Some(collector) = handle.get()
            {
                collector.collect(Again(std::sync::Weak::new()));
            }
        }
    }
    let handle = std::sync::Arc::new(std::sync::OnceLock::new());
    let collector = forebay::Builder::<Again>::new()
        .capacity(1)
        .overflow(Overflow::Block { timeout: Duration::from_millis(1) })
        .build()
        .unwrap();
    assert!(handle.set(collector.clone()).is_ok());
    collector.collect(Again(std::sync::Weak::new()));
    assert_eq!(collector.collect(Again(std::sync::Arc::downgrade(&handle))), Outcome::Full);
    assert_eq!(law(&collector, 3).rejected.full, 2);
    collector.stop().unwrap();
}

#[test]
fn a_blocked_producer_is_released_by_stop() {
    let _turn = turn();
    for is_started in [true, false] {
        let gate = Gate::closed();
        let overflow = Overflow::Block { timeout: Duration::MAX };
        let builder = ticks().capacity(1).overflow(overflow);
        let collector = if is_started { stalled(builder, &gate) } else { builder.build().unwrap() };
        assert_eq!(collector.collect(tick(0)), Outcome::Queued);
        let blocked = std::thread::spawn({
            let collector = collector.clone();
            move || collector.collect(tick(1))
        });
        until("a producer waits", || collector.stats().waits == 1);
        let stopped = collector.stop_timeout(Duration::ZERO);
        assert_eq!(stopped.is_err(), is_started, "a worker at a closed gate cannot end");
        assert_eq!(blocked.join().unwrap(), Outcome::Stopped);
        gate.open();
        collector.stop().unwrap();
        assert_eq!(law(&collector, 2 + u64::from(is_started)).pending, 0);
    }
}

#[test]
fn the_worker_never_waits_for_space_that_only_it_can_make() {
    let _turn = turn();
    // A sink that collects into its own full collector, under a policy that would wait for ever.
    let handle = std::sync::Arc::new(std::sync::OnceLock::<Collector<Tick>>::new());
    let outcomes = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = forebay::sink::from_fn("reentrant", {
        let (handle, outcomes) = (handle.clone(), outcomes.clone());
        move |batch: &forebay::Batch<Tick>| {
            if batch.events()[0].number == 0 {
                let collector = handle.get().unwrap();
                outcomes.lock().unwrap().extend([1, 2].map(|n| collector.collect(tick(n))));
                outcomes.lock().unwrap().extend([3, 4].map(|n| collector.collect(critical(n))));
            }
            Ok(())
        }
    });
    let collector = ticks()
        .capacity(1)
        .critical_capacity(1)
        .critical_timeout(LONG)
        .overflow(Overflow::Block { timeout: Duration::MAX })
        .flush(FlushStrategy::Size { events: 1 })
        .sink(sink)
        .build()
        .unwrap();
    assert!(handle.set(collector.clone()).is_ok());
    collector.collect(tick(0));
    collector.start().unwrap();
    let _ = collector.flush().unwrap();
    collector.stop().unwrap();
    use Outcome::{Full, Queued};
    assert_eq!(*outcomes.lock().unwrap(), [Queued, Full, Queued, Full]);
    let stats = law(&collector, 5);
    assert_eq!((stats.processed, stats.rejected.full), (3, 2));
}
