//! P9: in a forked child, a task of its parent is refused, handles nothing and does not hang; a child may run a task of its own.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::child::{Forker, fork_once, in_child, leave_if_child, status_of};
use crate::support::*;
use forebay::Collector;
use forebay_task::{
    self as task, CancelToken, Decision, ErrorPolicy, Gather, SendRefusal, Stage, Strategy, TaskError,
};

#[test]
fn tasks_of_a_busy_parent_are_refused_in_the_child_and_neither_hang_nor_handle() {
    alone!();
    let token = CancelToken::new();
    let (sender, pipeline) = task::channel(4);
    let pair = Strategy::Parallel { workers: 2, rate_limit: None };
    let task =
        pipeline.strategy(pair).cancel_token(&token).map(|number: &u64| *number).gather(Gather::count());
    let task = Mutex::new(Some(task.start().unwrap()));
    let results =
        Mutex::new(Some(task::from_fn(|| Some(1)).capacity(2).map(|number| *number).results().unwrap()));
    let never = Mutex::new(Some(task::channel::<u64>(1).1));
    let is_over = AtomicBool::new(false);
    let mut sent = 0;
    std::thread::scope(|scope| {
        // Locks are held, and queues half-changed, when the fork catches them.
        let senders: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    (0..)
                        .take_while(|number| !is_over.load(Ordering::Relaxed) && sender.send(*number).is_ok())
                        .count()
                })
            })
            .collect();
        let raise = Raise(&is_over);
        for _ in 0..50 {
            let status = in_child(|| {
                assert_eq!(sender.send(0).unwrap_err().reason, SendRefusal::Forked);
                assert_eq!(sender.try_send(0).unwrap_err().reason, SendRefusal::Forked);
                assert_eq!(sender.send_timeout(0, LONG).unwrap_err().reason, SendRefusal::Forked);
                assert!(sender.is_closed());
                drop(sender.clone());
                token.cancel();
                assert!(token.is_cancelled() && token.child().is_cancelled());
                let task = task.lock().unwrap().take().unwrap();
                task.cancel();
                task.summary().check_law(0).unwrap();
                assert!(!task.is_over());
                let task = task.wait_timeout(LONG).unwrap_err();
                assert!(matches!(task.wait(), Err(TaskError::Forked)));
                let results = results.lock().unwrap().take().unwrap();
                assert!(results.recv().is_none() && results.iter().next().is_none());
                drop(results);
                let never = never.lock().unwrap().take().unwrap().capacity(2).map(|_| ()).start();
                assert!(matches!(never, Err(TaskError::Forked)));
                let (sender, pipeline) = task::channel(1);
                sender.send(1).unwrap();
                drop((pipeline, sender));
                true
            });
            assert_eq!(status, Some(0), "the child hangs or failed");
        }
        drop(raise);
        sent = senders.into_iter().map(|sender| sender.join().unwrap() as u64).sum();
    });
    assert!(!token.is_cancelled(), "the parent has nothing of it");
    drop((sender, results));
    let end = task.into_inner().unwrap().unwrap().wait().unwrap();
    end.summary.check_law(sent).unwrap();
    assert_eq!(end.results, sent);
}

#[test]
fn a_waker_that_forks_while_results_are_polled_leaves_them_to_their_parent() {
    alone!();
    use std::task::{Context, Poll, Waker};

    use futures::StreamExt;

    let forker = Forker::default();
    let (sender, pipeline) = task::channel::<u64>(4);
    let mut results = pipeline.map(|number| *number).results().unwrap();
    let own = forker.clone();
    let waker = waker_on_drop(move || own.fork());
    assert!(results.poll_next_unpin(&mut Context::from_waker(&waker)).is_pending());
    drop(waker);
    let polled = results.poll_next_unpin(&mut Context::from_waker(Waker::noop()));
    let is_ended = matches!(polled, Poll::Ready(None));
    leave_if_child(&forker.0, if is_ended { 0 } else { 9 });
    assert!(polled.is_pending());
    forker.child_has_ended();
    sender.send(7).unwrap();
    assert_eq!(futures::executor::block_on(results.next()), Some(7));
    drop(sender);
    assert_eq!(futures::executor::block_on(results.next()), None);
}

/// Part of a source. Counts its drops.
struct DropCount(Arc<AtomicU64>);

impl Drop for DropCount {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn the_source_of_a_parents_pipeline_is_not_dropped_in_the_child() {
    alone!();
    let drops = Arc::new(AtomicU64::new(0));
    let pipeline = || {
        let guard = DropCount(Arc::clone(&drops));
        let source = task::from_fn(move || {
            let _guard = &guard;
            None::<u64>
        });
        Mutex::new(Some(source))
    };
    let (dropped, started) = (pipeline(), pipeline());
    let status = in_child(|| {
        drop(dropped.lock().unwrap().take());
        let refused = started.lock().unwrap().take().unwrap().map(|_| ()).start();
        assert!(matches!(refused, Err(TaskError::Forked)));
        drops.load(Ordering::SeqCst) == 0
    });
    assert_eq!(status, Some(0), "the child has dropped what is the parent's");
    drop((dropped, started));
    assert_eq!(drops.load(Ordering::SeqCst), 2);
}

#[test]
fn a_source_that_forks_is_not_dropped_in_the_child() {
    alone!();
    /// Ends the child with 7 where that drops it.
    struct Own(Arc<AtomicI32>);
    impl Drop for Own {
        fn drop(&mut self) {
            leave_if_child(&self.0, 7);
        }
    }
    let child = Arc::new(AtomicI32::new(0));
    let own = Own(Arc::clone(&child));
    let source = task::from_fn(move || {
        fork_once(&own.0);
        None::<u64>
    });
    source.map(|number| *number).run().unwrap().summary.check_law(0).unwrap();
    assert_eq!(status_of(&child), Some(0), "7 where the child has dropped the source");
}

#[test]
fn a_handler_of_a_task_that_forks_may_return_in_the_child_which_handles_nothing_more() {
    alone!();
    let (child, calls) = (Arc::new(AtomicI32::new(0)), Arc::new(AtomicU64::new(0)));
    let (own, count) = (Arc::clone(&child), Arc::clone(&calls));
    let handler = move |_: &u64| {
        count.fetch_add(1, Ordering::SeqCst);
        leave_if_child(&own, 7);
        fork_once(&own);
    };
    let end = task::from_iter(0..10).map(handler).gather(Gather::count()).run().unwrap();
    end.summary.check_law(10).unwrap();
    assert_eq!((end.results, calls.load(Ordering::SeqCst)), (10, 10));
    assert_eq!(status_of(&child), Some(0), "7 where the child has handled an item");
}

#[test]
fn every_hook_of_a_task_may_fork() {
    alone!();
    let all = |pipeline: Stage<u64, u64, u64>, forker: &Forker| {
        let end = pipeline.run().unwrap();
        end.summary.check_law(10).unwrap();
        assert_eq!(end.results, 10);
        forker.child_has_ended();
    };
    let numbers = || (0..10_u64).collect::<Vec<_>>();
    // The source, on a thread of its own.
    let forker = Forker::default();
    let (own, mut next) = (forker.clone(), 0);
    let source = task::from_fn(move || {
        own.must_not_be_child();
        next += 1;
        if next == 5 {
            own.fork();
        }
        (next <= 10).then_some(next)
    });
    all(source.map(|number| *number).gather(Gather::count()), &forker);
    // The handler.
    let forker = Forker::default();
    let own = forker.clone();
    let handler = move |number: &u64| {
        own.must_not_be_child();
        if *number == 5 {
            own.fork();
        }
        *number
    };
    all(task::from_iter(numbers()).map(handler).gather(Gather::count()), &forker);
    // What gathers.
    let forker = Forker::default();
    let own = forker.clone();
    let fold = Gather::fold(0, move |count: &mut u64, number: u64| {
        own.must_not_be_child();
        if number == 5 {
            own.fork();
        }
        *count += 1;
    });
    all(task::from_iter(numbers()).map(|number| *number).gather(fold), &forker);
    // The policy.
    let (forker, failed) = (Forker::default(), AtomicU64::new(0));
    let (own, other) = (forker.clone(), forker.clone());
    let policy = ErrorPolicy::custom(move |_, _| {
        own.fork();
        Decision::Retry { after: Duration::ZERO }
    });
    let handler = move |number: &u64| {
        other.must_not_be_child();
        if *number == 5 && failed.fetch_add(1, Ordering::SeqCst) == 0 {
            Err("on purpose")
        } else {
            Ok(*number)
        }
    };
    all(task::from_iter(numbers()).on_error(policy).try_map(handler).gather(Gather::count()), &forker);
}

fn runs_a_task() -> bool {
    let own = task::from_iter(0..3).map(|number| *number).gather(Gather::list()).run().unwrap();
    own.summary.check_law(3).unwrap();
    own.results == [0, 1, 2]
}

#[test]
fn a_child_can_run_a_task_while_threads_of_its_parent_wait() {
    alone!();
    let collector = Collector::builder().flush(HOURLY).start().unwrap();
    let (sender, pipeline) = task::channel(1);
    let results = pipeline.map(|number: &u64| *number).results().unwrap();
    let (is_over, begun) = (AtomicBool::new(false), std::sync::Barrier::new(7));
    let mut sent = 0;
    std::thread::scope(|scope| {
        let raise = Raise(&is_over);
        let flush = || {
            begun.wait();
            while !is_over.load(Ordering::Relaxed) {
                let _ = collector.flush().unwrap();
            }
        };
        let (own, is_over) = (&sender, &is_over);
        let sends = scope.spawn(|| {
            begun.wait();
            (0..).take_while(|number| !is_over.load(Ordering::Relaxed) && own.send(*number).is_ok()).count()
        });
        let reads = scope.spawn(|| {
            begun.wait();
            results.iter().take_while(|_| !is_over.load(Ordering::Relaxed)).count()
        });
        (0..4).for_each(|_| _ = scope.spawn(flush));
        begun.wait();
        // Hundreds of forks, in all.
        for _ in 0..334 {
            assert_eq!(in_child(runs_a_task), Some(0), "a child hangs or failed");
        }
        drop(raise);
        reads.join().unwrap();
        // Handlers whose results nobody takes any more wait for space, and the sender with them.
        results.task().cancel();
        sent = sends.join().unwrap() as u64;
    });
    drop(sender);
    let end = results.into_task().wait().unwrap();
    end.summary.check_law(sent).unwrap();
    collector.stop().unwrap();
    law(&collector, 0);
}
