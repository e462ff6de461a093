//! The models of who waits: several at once, of all sorts, and each woken by one thing alone. Run them with `./run`.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use forebay::sink::{SinkExt, from_fn};
use forebay::stats::StopReport;
use forebay::subscription::{RecvError, Subscription};
use forebay::{Batch, Collector, FlushStrategy, Outcome, Overflow};
use forebay_loom_tests::{
    EAGER, Log, Tick, Witness, check, check_at, law, poll_once, signal_waker, small, wait_for,
};
use futures_core::Stream;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::sync::{Arc, Notify};
use loom::thread;

const MANUAL: FlushStrategy = FlushStrategy::Manual;
const BLOCK: Overflow = Overflow::Block { timeout: Duration::MAX };

/// How somebody waits.
#[derive(Debug, Clone, Copy)]
enum By {
    Thread,
    Task,
}

impl By {
    fn collect(self, collector: &Collector<Tick>, number: u32) -> Outcome {
        match self {
            By::Thread => collector.collect(Tick(number)),
            By::Task => wait_for(collector.collect_async(Tick(number))),
        }
    }

    fn stop(self, collector: &Collector<Tick>) -> StopReport {
        match self {
            By::Thread => collector.stop().unwrap(),
            By::Task => wait_for(collector.stop_async()).unwrap(),
        }
    }
}

// ---- for space ----

/// Must report `who-waited-does-not-notify`.
#[test]
fn the_push_of_who_waited_wakes_the_worker() {
    for (floor, by) in [(2_500, By::Thread), (4_800, By::Task)] {
        let witness = Witness::default();
        let seen = witness.clone();
        check(&format!("the push of who waited wakes the worker: {by:?}"), 1, floor, move || {
            let (signal, delivered) = (Arc::new(Notify::new()), Arc::new(AtomicU32::new(0)));
            let sink = from_fn("counts", {
                let (signal, delivered) = (Arc::clone(&signal), Arc::clone(&delivered));
                move |batch: &Batch<Tick>| {
                    delivered.fetch_add(batch.len() as u32, Ordering::Relaxed);
                    signal.notify();
                    Ok(())
                }
            });
            let collector = small(1, EAGER).overflow(BLOCK).sink(sink).start().unwrap();
            assert_eq!(collector.collect(Tick(0)), Outcome::Queued);
            let outcome = by.collect(&collector, 1);
            // Nothing but that push can wake the worker for the second event.
            while delivered.load(Ordering::Relaxed) < 2 {
                signal.wait();
            }
            collector.stop().unwrap();
            law(&collector, 2);
            seen.saw(outcome);
        });
        // With another preemption, it may find the first event taken out in time.
        witness.expect(&["QueuedAfterWait"]);
    }
}

/// Must report `threads-or-tasks-released`, `one-thread-released` and `one-task-released`.
#[test]
fn a_stop_releases_all_who_wait() {
    let sorts = [(34, [By::Thread, By::Thread]), (105, [By::Thread, By::Task]), (310, [By::Task, By::Task])];
    for (floor, sorts) in sorts {
        check_at(&format!("a stop releases all who wait: {sorts:?}"), 1, floor, move || {
            let collector = small(1, EAGER).overflow(BLOCK).build().unwrap();
            collector.collect(Tick(0));
            let others = sorts.map(|by| {
                let collector = collector.clone();
                thread::spawn(move || by.collect(&collector, 1))
            });
            // Both wait by then, or are about to under the lock that a stop takes.
            while collector.stats().waits < 2 {
                thread::yield_now();
            }
            collector.stop().unwrap();
            for other in others {
                assert_eq!(other.join().unwrap(), Outcome::Stopped);
            }
            law(&collector, 3);
        });
    }
}

/// Must report `ticket-used-again`.
#[test]
fn a_task_that_waits_again_takes_nobodys_place() {
    check("a task that waits again takes nobody's place", 3, 27, || {
        let collector = small(1, EAGER).overflow(BLOCK).build().unwrap();
        collector.collect(Tick(0));
        let [(_, first_waker), (second_signal, second_waker)] = [signal_waker(), signal_waker()];
        let mut first = collector.collect_async(Tick(1));
        assert!(poll_once(&mut first, &first_waker).is_pending());
        // Releases all who wait, so that each tries again.
        collector.update_config(|_| {}).unwrap();
        let mut second = collector.collect_async(Tick(2));
        assert!(poll_once(&mut second, &second_waker).is_pending());
        assert!(poll_once(&mut first, &first_waker).is_pending());
        let stops = collector.clone();
        let stopper = thread::spawn(move || stops.stop().unwrap());
        // It waits with its own waker, which the first has not replaced.
        second_signal.wait();
        assert_eq!([first, second].map(wait_for), [Outcome::Stopped; 2]);
        stopper.join().unwrap();
        law(&collector, 3);
    });
}

// ---- for the end ----

/// Must report `end-wakes-one-task-that-stops` and `end-ticket-used-again`.
#[test]
fn two_tasks_and_a_thread_that_stop_are_all_answered() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("two tasks and a thread that stop are all answered", 2, 1_900, move || {
        let log = Log::new();
        let collector = small(2, MANUAL).sink(log.clone()).start().unwrap();
        collector.collect(Tick(0));
        let mut stops = [collector.stop_async(), collector.stop_async()];
        let polls = stops.each_mut().map(|stop| {
            let (signal, waker) = signal_waker();
            (poll_once(stop, &waker).is_ready(), signal)
        });
        seen.saw(polls.each_ref().map(|(is_ready, _)| *is_ready));
        // One that is dropped takes its own waker along, and no other.
        let mut dropped = collector.stop_async();
        let _ = poll_once(&mut dropped, Waker::noop());
        drop(dropped);
        // The thread does not wake them.
        assert_eq!(collector.stop().unwrap().stats.processed, 1);
        for (stop, (is_ready, signal)) in stops.into_iter().zip(polls) {
            if !is_ready {
                signal.wait();
            }
            assert_eq!(wait_for(stop).unwrap().stats.processed, 1);
        }
        assert_eq!(log.numbers(), [0]);
        law(&collector, 1);
    });
    witness.expect(&["[false, false]", "[true, true]"]);
}

/// Must report `answer-wakes-one-thread` and `answer-wakes-one-task`.
#[test]
fn all_who_stop_await_the_same_isolated_sink() {
    let sorts =
        [(160, [By::Thread, By::Thread]), (1_000, [By::Thread, By::Task]), (3_800, [By::Task, By::Task])];
    for (floor, sorts) in sorts {
        check_at(&format!("all who stop await an isolated sink: {sorts:?}"), 1, floor, move || {
            let log = Log::new();
            let collector = small(2, MANUAL).sink(log.clone().isolated(2)).start().unwrap();
            collector.collect(Tick(0));
            let stop = move |by: By, collector: &Collector<Tick>, log: &Log| {
                by.stop(collector);
                assert_eq!(log.numbers(), [0]);
            };
            let other = thread::spawn({
                let (collector, log) = (collector.clone(), log.clone());
                move || stop(sorts[1], &collector, &log)
            });
            stop(sorts[0], &collector, &log);
            other.join().unwrap();
            law(&collector, 1);
        });
    }
}

// ---- for an event ----

fn next_of(stream: &mut Subscription<Tick>) -> Option<Tick> {
    let (signal, waker) = signal_waker();
    loop {
        match Pin::new(&mut *stream).poll_next(&mut Context::from_waker(&waker)) {
            Poll::Ready(next) => return next,
            Poll::Pending => signal.wait(),
        }
    }
}

/// Must report `subscriber-not-woken-by-events`.
#[test]
fn a_subscriber_that_waits_is_woken_by_an_event_and_by_the_end() {
    check("a subscriber is woken by an event alone", 2, 2_900, || {
        let collector = small(2, EAGER).start().unwrap();
        let subscription = collector.subscribe("*").unwrap();
        collector.collect(Tick(7));
        assert_eq!(subscription.recv(), Ok(Tick(7)));
        drop(subscription);
        collector.stop().unwrap();
        law(&collector, 1);
    });
    check("a subscriber is woken by an event and by the end", 2, 1_500, || {
        let collector = small(2, EAGER).start().unwrap();
        let subscription = collector.subscribe("*").unwrap();
        let waiting = thread::spawn(move || (subscription.recv(), subscription.recv()));
        collector.collect(Tick(7));
        drop(collector);
        // Nobody else rings: a lost one is a deadlock.
        assert_eq!(waiting.join().unwrap(), (Ok(Tick(7)), Err(RecvError::Closed)));
    });
}

/// Must report `stream-not-woken-by-events` and `stream-not-woken-by-the-end`.
#[test]
fn a_stream_is_woken_by_an_event_and_by_the_end() {
    check("a stream is woken by an event alone", 2, 5_300, || {
        let collector = small(2, EAGER).start().unwrap();
        let mut stream = collector.subscribe("*").unwrap();
        collector.collect(Tick(7));
        assert_eq!(next_of(&mut stream), Some(Tick(7)));
        drop(stream);
        collector.stop().unwrap();
        law(&collector, 1);
    });
    check("a stream is woken by an event and by the end", 2, 3_000, || {
        let collector = small(2, EAGER).start().unwrap();
        let mut stream = collector.subscribe("*").unwrap();
        let waiting = thread::spawn(move || [next_of(&mut stream), next_of(&mut stream)]);
        collector.collect(Tick(7));
        drop(collector);
        assert_eq!(waiting.join().unwrap(), [Some(Tick(7)), None]);
    });
}

/// Must report `end-of-a-subscription-does-not-notify`, `finished-sink-is-no-request` and `finished-sink-left-by-the-end`.
#[test]
fn a_subscription_that_ends_is_removed() {
    check("a subscription that ends is removed", 2, 580, || {
        let collector = small(2, MANUAL).start().unwrap();
        let subscription = collector.subscribe("*").unwrap();
        assert_eq!(collector.sinks().len(), 1);
        // The worker is there, and has nothing to do.
        let _ = collector.flush().unwrap();
        drop(subscription);
        // Nobody waits for that, but the worker does it without an event.
        while !collector.sinks().is_empty() {
            thread::yield_now();
        }
        collector.stop().unwrap();
    });
    check("a subscription that ends against a stop is removed", 2, 310, || {
        let collector = small(2, MANUAL).start().unwrap();
        let subscription = collector.subscribe("*").unwrap();
        let other = thread::spawn(move || drop(subscription));
        collector.stop().unwrap();
        other.join().unwrap();
        assert!(collector.sinks().is_empty(), "left by the end");
    });
}
