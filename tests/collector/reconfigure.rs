//! Settings that change at run time: what holds from when on, and what cannot change.
#![allow(unsafe_code, reason = "a waker by hand")]

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::support::*;
use forebay::sink::{MemorySink, from_fn};
use forebay::{Batch, Collector, Config, FlushStrategy, ManualClock, Outcome, Overflow, config::ConfigError};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn what_cannot_change_is_refused_by_name_and_nothing_changes() {
    let collector = ticks().session_id("one").start().unwrap();
    let before = collector.config();
    type Change = fn(&mut Config);
    let cases: [(&str, Change); 4] = [
        ("capacity", |config| config.capacity += 1),
        ("critical_capacity", |config| config.critical_capacity += 1),
        ("low_capacity", |config| config.low_capacity += 1),
        ("session_id", |config| config.session_id = None),
    ];
    for (field, change) in cases {
        let refused = collector.update_config(|config| {
            config.overflow = Overflow::DropNewest;
            change(config);
        });
        assert_eq!(refused, Err(ConfigError::Immutable { field }));
        assert!(Arc::ptr_eq(&before, &collector.config()), "{field}");
    }
    let refused = collector.update_config(|config| config.flush = FlushStrategy::Size { events: 0 });
    assert_eq!(refused.unwrap_err().to_string(), "invalid flush.events: 0 (expected 1 or more)");
    assert!(Arc::ptr_eq(&before, &collector.config()));
    law(&collector, 0);
}

#[test]
fn the_next_collect_goes_by_the_new_overflow_policy() {
    let collector = ticks().capacity(1).build().unwrap();
    assert_eq!(collector.collect(tick(0)), Outcome::Queued);
    assert_eq!(collector.collect(tick(1)), Outcome::QueuedEvicting);
    collector.update_config(|config| config.overflow = Overflow::DropNewest).unwrap();
    assert_eq!(collector.collect(tick(2)), Outcome::Full);
    collector.update_config(|config| config.overflow = Overflow::Block { timeout: Duration::ZERO }).unwrap();
    assert_eq!(collector.collect(tick(3)), Outcome::Full);
    collector.update_config(|config| config.overflow = Overflow::DropOldest).unwrap();
    assert_eq!(collector.collect(tick(4)), Outcome::QueuedEvicting);
    let stats = law(&collector, 5);
    assert_eq!((stats.evicted, stats.rejected.full, stats.pending), (2, 2, 1));
}

/// Tests what a change makes of a thread that waits in `collect` for space that never comes.
fn waiting_through(change: fn(&mut Config), wants: Outcome, critical_lane: bool) -> u64 {
    let collector = ticks()
        .capacity(1)
        .critical_capacity(1)
        .critical_timeout(LONG)
        .overflow(Overflow::Block { timeout: LONG })
        .build()
        .unwrap();
    let event = if critical_lane { critical } else { tick };
    collector.collect(event(0));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| collector.collect(event(1)));
        until("it waits", || collector.stats().waits == 1);
        collector.update_config(change).unwrap();
        assert_eq!(waiting.join().unwrap(), wants);
    });
    let stats = law(&collector, 2);
    assert_eq!(stats.pending, 1);
    stats.evicted
}

#[test]
fn who_waits_for_space_goes_by_the_new_policy_too() {
    let refuse = |config: &mut Config| config.overflow = Overflow::DropNewest;
    assert_eq!(waiting_through(refuse, Outcome::Full, false), 0);
    let evict = |config: &mut Config| config.overflow = Overflow::DropOldest;
    assert_eq!(waiting_through(evict, Outcome::QueuedEvicting, false), 1);
    let no_wait = |config: &mut Config| config.critical_timeout = Duration::ZERO;
    assert_eq!(waiting_through(no_wait, Outcome::Full, true), 0);
}

#[test]
#[cfg(feature = "futures")]
fn a_task_that_waits_for_space_goes_by_the_new_policy_too() {
    for (overflow, wants, evicted) in
        [(Overflow::DropNewest, Outcome::Full, 0), (Overflow::DropOldest, Outcome::QueuedEvicting, 1)]
    {
        let collector = ticks().capacity(1).overflow(Overflow::Block { timeout: LONG }).build().unwrap();
        collector.collect(tick(0));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| futures::executor::block_on(collector.collect_async(tick(1))));
            until("it waits", || collector.stats().waits == 1);
            collector.update_config(|config| config.overflow = overflow).unwrap();
            assert_eq!(waiting.join().unwrap(), wants);
        });
        assert_eq!(law(&collector, 2).evicted, evicted);
    }
}

#[test]
#[cfg(feature = "futures")]
fn a_task_that_is_about_to_wait_when_the_policy_changes_is_not_left_waiting() {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

    /// Changes the settings when it is cloned: between the future's look at them and its wait.
    struct Meddler(Collector<Tick>, AtomicBool);
    fn raw(meddler: *const ()) -> RawWaker {
        static TABLE: RawWakerVTable = RawWakerVTable::new(clone, drop_it, drop_it, drop_it);
        RawWaker::new(meddler, &TABLE)
    }
    fn clone(meddler: *const ()) -> RawWaker {
        // SAFETY: the meddler outlives all wakers of this test.
        let Meddler(collector, has_meddled) = unsafe { &*meddler.cast::<Meddler>() };
        if !has_meddled.swap(true, Ordering::Relaxed) {
            collector.update_config(|config| config.overflow = Overflow::DropNewest).unwrap();
        }
        raw(meddler)
    }
    fn drop_it(_: *const ()) {}

    let collector = ticks().capacity(1).overflow(Overflow::Block { timeout: LONG }).build().unwrap();
    collector.collect(tick(0));
    let meddler = Meddler(collector.clone(), AtomicBool::new(false));
    // SAFETY: as above; the functions of the table keep the contract of a waker without a count.
    let waker = unsafe { Waker::from_raw(raw(std::ptr::from_ref(&meddler).cast())) };
    let mut collecting = pin!(collector.collect_async(tick(1)));
    let polled = collecting.as_mut().poll(&mut Context::from_waker(&waker));
    assert_eq!(polled, Poll::Ready(Outcome::Full));
    assert_eq!(law(&collector, 2).rejected.full, 1);
}

#[test]
fn a_policy_that_changes_all_the_time_refuses_nothing_that_either_would_take() {
    let collector = ticks().capacity(1).build().unwrap();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let block = Overflow::Block { timeout: LONG };
    thread::scope(|scope| {
        let raise = Raise(&is_over);
        scope.spawn(|| {
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                for overflow in [block, Overflow::DropOldest] {
                    collector.update_config(|config| config.overflow = overflow).unwrap();
                }
            }
        });
        for number in 0..100_000 {
            assert!(collector.collect(tick(number)).is_queued());
        }
        drop(raise);
    });
    assert_eq!(law(&collector, 100_000).rejected.full, 0);
}

#[test]
fn a_worker_that_sleeps_learns_of_a_new_strategy_without_another_event() {
    for before in [FlushStrategy::Manual, HOURLY, FlushStrategy::Size { events: 100 }] {
        let memory = MemorySink::new();
        let collector = ticks().flush(before).sink(memory.clone()).start().unwrap();
        collector.collect(tick(0));
        until_asleep(&collector);
        assert_eq!(memory.len(), 0);
        collector.update_config(|config| config.flush = FlushStrategy::Size { events: 1 }).unwrap();
        assert!(memory.wait_for(1, SOON), "{before:?}");
        collector.collect(tick(1));
        assert!(memory.wait_for(2, SOON), "{before:?}");
        until("it is counted", || collector.pending() == 0);
        law(&collector, 2);
    }
}

#[test]
fn a_new_interval_makes_what_waits_due_sooner_and_never_later() {
    let minutes = |n: u32| FlushStrategy::Time { interval: n * 60 * SECOND };
    for (before, after, due_after) in [(60, 1, 1), (1, 60, 1), (5, 3, 3)] {
        let clock = ManualClock::new();
        let memory = MemorySink::new();
        let collector =
            ticks().manual_clock(&clock).flush(minutes(before)).sink(memory.clone()).start().unwrap();
        until_asleep(&collector);
        // This wakes the worker, which starts its timer and sleeps again.
        collector.collect(tick(0));
        until_asleep(&collector);
        collector.update_config(|config| config.flush = minutes(after)).unwrap();
        until_asleep(&collector);
        let parks = collector.stats().parks;
        clock.advance(due_after * 60 * SECOND - SECOND);
        until("it looks at the clock", || collector.stats().parks > parks);
        until_asleep(&collector);
        assert_eq!(memory.len(), 0, "{before} to {after} minutes: too early");
        clock.advance(SECOND);
        assert!(memory.wait_for(1, SOON), "{before} to {after} minutes: too late");
        let _ = collector.flush().unwrap();
        law(&collector, 1);
    }
}

#[test]
fn a_timer_ends_with_the_strategy_that_had_it() {
    let clock = ManualClock::new();
    let memory = MemorySink::new();
    let collector = ticks().manual_clock(&clock).flush(HOURLY).sink(memory.clone()).start().unwrap();
    until_asleep(&collector);
    // This wakes the worker, which starts its timer and sleeps again.
    collector.collect(tick(0));
    until_asleep(&collector);
    collector.update_config(|config| config.flush = FlushStrategy::Size { events: 2 }).unwrap();
    until_asleep(&collector);
    let parks = collector.stats().parks;
    clock.advance(24 * 3600 * SECOND);
    until("it looks at the clock", || collector.stats().parks > parks);
    until_asleep(&collector);
    assert_eq!(memory.len(), 0);
    collector.collect(tick(1));
    assert!(memory.wait_for(2, SOON));
    let _ = collector.flush().unwrap();
    law(&collector, 2);
}

#[test]
fn batches_and_the_thread_follow_the_settings() {
    let memory = MemorySink::new();
    let names = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&names);
    let collector = ticks()
        .flush(FlushStrategy::Manual)
        .batch_size(3)
        .sink(memory.clone())
        .sink(from_fn("names", move |_: &Batch<Tick>| {
            seen.lock().unwrap().push(thread::current().name().unwrap_or_default().to_owned());
            Ok(())
        }))
        .start()
        .unwrap();
    let lengths = |from: usize| memory.batches()[from..].iter().map(Batch::len).collect::<Vec<_>>();
    collector.collect_batch((0..6).map(tick));
    let _ = collector.flush().unwrap();
    collector.update_config(|config| config.batch_size = Some(2)).unwrap();
    collector.collect_batch((6..12).map(tick));
    let _ = collector.flush().unwrap();
    assert_eq!((lengths(0), lengths(2)), (vec![3, 3, 2, 2, 2], vec![2, 2, 2]));
    collector.stop().unwrap();
    collector
        .update_config(|config| {
            config.batch_size = Some(6);
            config.thread_name = "second".into();
        })
        .unwrap();
    collector.start().unwrap();
    collector.collect_batch((12..18).map(tick));
    collector.stop().unwrap();
    assert_eq!(lengths(5), [6]);
    assert_eq!(names.lock().unwrap()[4..], ["forebay-worker", "second"]);
    law(&collector, 18);
    audit(&memory);
}

#[test]
fn a_sink_may_change_the_settings() {
    let (sender, receiver) = std::sync::mpsc::channel::<Collector<Tick>>();
    let mut handle = None;
    let memory = MemorySink::new();
    let collector = ticks()
        .flush(FlushStrategy::Size { events: 1 })
        .sink(from_fn("governor", move |_: &Batch<Tick>| {
            let collector: &mut Collector<Tick> = handle.get_or_insert_with(|| receiver.recv().unwrap());
            collector.update_config(|config| config.flush = FlushStrategy::Manual).unwrap();
            Ok(())
        }))
        .sink(memory.clone())
        .start()
        .unwrap();
    sender.send(collector.clone()).unwrap();
    collector.collect(tick(0));
    assert!(memory.wait_for(1, SOON));
    until_asleep(&collector);
    collector.collect(tick(1));
    collector.collect(critical(2));
    assert_eq!((collector.pending(), memory.len()), (2, 1));
    collector.remove_sink("governor").unwrap();
    assert_eq!(memory.len(), 3);
    law(&collector, 3);
}

#[test]
fn changes_by_several_threads_are_all_kept() {
    let collector = ticks().start().unwrap();
    let rounds = 500;
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..rounds {
                collector.update_config(|config| config.flush_timeout += SECOND).unwrap();
            }
        });
        for _ in 0..rounds {
            collector.update_config(|config| config.stop_timeout += SECOND).unwrap();
            collector.collect(tick(0));
        }
    });
    let config = collector.config();
    assert_eq!((config.flush_timeout, config.stop_timeout), ((rounds + 10) * SECOND, (rounds + 10) * SECOND));
    let _ = collector.flush().unwrap();
    law(&collector, u64::from(rounds));
}
