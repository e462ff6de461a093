//! The models of `forebay-task`: the shipped channel, workers, cancellation and end of a task, one promise each. Run
//! them with `./run`.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use forebay::{Builder, FlushStrategy, Record};
use forebay_loom_tests::{Witness, check, check_long};
use forebay_sync::permit::Permit;
use forebay_task::{
    self as task, CancelToken, Decision, ErrorPolicy, Final, Gather, SendRefusal, Sender, Strategy, Summary,
    Task, TaskError, TaskOutcome,
};
use loom::cell::UnsafeCell;
use loom::sync::atomic::AtomicBool;
use loom::sync::{Arc, Notify};
use loom::thread;

const HOUR: Duration = Duration::from_secs(3600);

const PAIR: Strategy = Strategy::Parallel { workers: 2, rate_limit: None };

const TWO_AT_ONCE: Strategy = Strategy::Batched { size: 2, max_delay: HOUR };

/// Record of what handlers have done with each item, in cells whose accesses loom checks: two handlers of one item at a time, or
/// reading it without a happens-before edge from the handler, is an error.
#[derive(Clone)]
struct Book(std::sync::Arc<Vec<UnsafeCell<u32>>>);

// SAFETY: that no cell is accessed by two threads at once is what loom checks.
unsafe impl Send for Book {}
// SAFETY: the same.
unsafe impl Sync for Book {}

impl Book {
    fn of(items: usize) -> Self {
        Self(std::sync::Arc::new((0..items).map(|_| UnsafeCell::new(0)).collect()))
    }

    #[track_caller]
    fn enter(&self, item: usize) {
        // SAFETY: as above.
        self.0[item].with_mut(|calls| unsafe { *calls += 1 });
    }

    #[track_caller]
    fn calls(&self) -> Vec<u32> {
        // SAFETY: as above.
        self.0.iter().map(|cell| cell.with(|calls| unsafe { *calls })).collect()
    }
}

/// Waits for the end of the task, and checks the law.
#[track_caller]
fn end<O>(task: Task<O>, sent: u64) -> Summary {
    let Final { summary, .. } = task.wait().unwrap();
    summary.check_law(sent).unwrap();
    assert_eq!(summary.left, 0, "{summary:?}");
    summary
}

#[track_caller]
fn refused(sender: &Sender<usize>, item: usize) {
    assert_eq!(sender.send(item).unwrap_err().reason, SendRefusal::Closed);
}

// ---- fates ----

/// Must report `task-end-wakes-nobody`.
#[test]
fn every_item_gets_one_worker_and_one_fate() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("task: every item gets one of two workers, one fate", 2, 12_000, move || {
        let book = Book::of(2);
        let own = book.clone();
        let (sender, pipeline) = task::channel(1);
        let work = move |item: &usize| {
            own.enter(*item);
            if *item == 1 { Err("one") } else { Ok(()) }
        };
        let task = pipeline.strategy(PAIR).try_map(work).start().unwrap();
        sender.send(0).unwrap();
        sender.send(1).unwrap();
        drop(sender);
        let summary = end(task, 2);
        assert_eq!((summary.handled, summary.failed), (1, 1));
        // Read without any other edge than the end.
        assert_eq!(book.calls(), [1, 1]);
        seen.saw(summary.outcome);
    });
    witness.expect(&["Completed"]);
}

/// Must report `task-removed-items-uncounted`.
#[test]
fn a_failure_that_stops_the_task_leaves_every_item_one_fate() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("task: a failure that stops leaves each one fate", 3, 3_000, move || {
        let book = Book::of(3);
        let own = book.clone();
        let (sender, pipeline) = task::channel(3);
        (0..3).for_each(|item| sender.send(item).unwrap());
        let work = move |item: &usize| {
            own.enter(*item);
            if *item == 0 { Err("none") } else { Ok(()) }
        };
        let pipeline = pipeline.strategy(PAIR).on_error(ErrorPolicy::custom(|_, _| Decision::Stop));
        let summary = end(pipeline.try_map(work).start().unwrap(), 3);
        assert_eq!((summary.outcome, summary.failed), (TaskOutcome::Failed, 1));
        let calls = book.calls();
        assert!(calls.iter().all(|calls| *calls <= 1), "{calls:?}");
        assert_eq!(u64::from(calls.iter().sum::<u32>()), summary.handled + summary.failed);
        seen.saw((summary.handled, summary.cancelled));
    });
    witness.expect(&["(0, 2)", "(1, 1)", "(2, 0)"]);
}

// ---- wake-up ----

/// Must report `task-waiter-overlooked`.
#[test]
fn an_item_alone_wakes_the_worker_and_the_end_does() {
    check("task: an item alone wakes the worker; so does the end", 5, 1_000, || {
        let (signal, (sender, pipeline)) = (Arc::new(Notify::new()), task::channel(1));
        let notifier = signal.clone();
        let task = pipeline.map(move |_: &usize| notifier.notify()).start().unwrap();
        sender.send(0).unwrap();
        // Nothing but the item can wake the worker, nothing but the handler notifies.
        signal.wait();
        // Nor anything but the last sender now.
        drop(sender);
        assert_eq!(end(task, 1).handled, 1);
    });
}

/// Must report `task-end-wakes-nobody`.
#[test]
fn the_end_alone_wakes_all_workers() {
    check("task: the end alone wakes both workers", 4, 20_000, || {
        let (sender, pipeline) = task::channel::<usize>(1);
        let task = pipeline.strategy(PAIR).map(|_| ()).start().unwrap();
        drop(sender);
        assert_eq!(end(task, 0).outcome, TaskOutcome::Completed);
    });
}

/// Must report `task-busy-worker-keeps-others-asleep`.
#[test]
fn two_items_get_two_workers() {
    check_long("task: two items wake two workers, side by side", 2, 86_000, 2_200, || {
        let (sender, pipeline) = task::channel(2);
        let signals = [Arc::new(Notify::new()), Arc::new(Notify::new())];
        let met = Arc::new(Notify::new());
        // Each handler waits for the other: one worker alone would never end.
        let work = {
            let met = met.clone();
            move |item: &usize| {
                signals[1 - item].notify();
                signals[*item].wait();
                if *item == 0 {
                    met.notify();
                }
            }
        };
        let task = pipeline.strategy(PAIR).map(work).start().unwrap();
        sender.send(0).unwrap();
        sender.send(1).unwrap();
        // The end of the task would wake both.
        met.wait();
        drop(sender);
        assert_eq!(end(task, 2).handled, 2);
    });
}

/// Must report `task-full-batch-wakes-nobody`.
#[test]
fn the_item_that_completes_a_batch_wakes_the_worker() {
    check("task: what completes a batch wakes the worker", 4, 2_800, || {
        let (signal, (sender, pipeline)) = (Arc::new(Notify::new()), task::channel(4));
        let notifier = signal.clone();
        let work = move |items: &[usize]| {
            notifier.notify();
            Ok::<_, TaskError>(items.len())
        };
        let task = pipeline.strategy(TWO_AT_ONCE).map_batch(work).start().unwrap();
        // Time never comes.
        sender.send(0).unwrap();
        sender.send(1).unwrap();
        signal.wait();
        // Half a batch, that only the end completes.
        sender.send(2).unwrap();
        drop(sender);
        assert_eq!(end(task, 3).handled, 3);
    });
}

// ---- room ----

/// Must report `task-take-wakes-nobody`.
#[test]
fn a_sender_that_waits_for_space_is_released_by_a_take() {
    check("task: a take releases who waits for space", 4, 6_300, || {
        let (sender, pipeline) = task::channel(1);
        let task = pipeline.map(|_: &usize| ()).start().unwrap();
        (0..3).for_each(|item| sender.send(item).unwrap());
        drop(sender);
        assert_eq!(end(task, 3).handled, 3);
    });
}

/// Must report `task-take-wakes-one`.
#[test]
fn a_take_of_several_items_releases_several_senders() {
    check("task: a take of several items releases all senders", 1, 870, || {
        let (sender, pipeline) = task::channel(2);
        (0..2).for_each(|item| sender.send(item).unwrap());
        let others = [2, 3].map(|item| {
            let sender = sender.clone();
            thread::spawn(move || sender.send(item).unwrap())
        });
        let work = |items: &[usize]| Ok::<_, TaskError>(items.len());
        let task = pipeline.strategy(TWO_AT_ONCE).map_batch(work).start().unwrap();
        others.into_iter().for_each(|other| other.join().unwrap());
        drop(sender);
        assert_eq!(end(task, 4).handled, 4);
    });
}

/// Must report `task-stop-wakes-nobody`.
#[test]
fn a_sender_that_waits_for_space_is_released_by_a_cancel() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("task: a cancel releases who waits for space", 2, 1_700, move || {
        let (gate, (sender, pipeline)) = (Arc::new(Notify::new()), task::channel(1));
        let behind = gate.clone();
        let task = pipeline.map(move |_: &usize| behind.wait()).start().unwrap();
        let token = task.token().clone();
        let other = thread::spawn(move || token.cancel());
        // The handler of the first waits for this thread: of three, the last finds no space, unless all is over before.
        let sent = (0..3).take_while(|item| sender.send(*item).is_ok()).count();
        refused(&sender, 3);
        gate.notify();
        other.join().unwrap();
        let summary = end(task, sent as u64);
        assert_eq!(summary.outcome, TaskOutcome::Cancelled);
        seen.saw((sent, summary.handled));
    });
    witness.expect(&["(0, 0)", "(1, 0)", "(1, 1)", "(2, 1)"]);
}

/// Must report `task-take-wakes-nobody`.
#[test]
fn a_sender_that_waits_for_space_is_released_by_the_end() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("task: the end releases who waits for space", 2, 3_900, move || {
        let (sender, pipeline) = task::channel(1);
        sender.send(0).unwrap();
        let other = thread::spawn({
            let sender = sender.clone();
            move || sender.send(1).is_ok()
        });
        // Two are taken in; of the two that wait for space, one is not wanted any more.
        let task = pipeline.take(2).map(|_: &usize| ()).start().unwrap();
        let sent = (sender.send(2).is_ok(), other.join().unwrap());
        assert!(sent.0 != sent.1, "{sent:?}");
        assert_eq!(end(task, 2).handled, 2);
        seen.saw(sent);
    });
    witness.expect(&["(true, false)", "(false, true)"]);
}

/// Must report `task-failure-releases-nobody`.
#[test]
fn a_sender_that_waits_for_space_is_released_by_a_failure_that_stops() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("task: a failure that stops releases who waits", 4, 2_600, move || {
        let (sender, pipeline) = task::channel(1);
        let pipeline = pipeline.on_error(ErrorPolicy::StopOnFirst);
        let task = pipeline.try_map(|_: &usize| Err::<(), _>("never")).start().unwrap();
        let sent = (0..3).take_while(|item| sender.send(*item).is_ok()).count();
        refused(&sender, 3);
        assert!(sent <= 2, "the first that is taken stops it");
        assert_eq!(end(task, sent as u64).failed, 1);
        seen.saw(sent);
    });
    witness.expect(&["1", "2"]);
}

/// Must report `task-larger-bounds-wake-nobody`.
#[test]
fn a_sender_that_waits_for_space_is_released_by_more_of_it() {
    check("task: more room releases who waits for it", 3, 3, || {
        let (sender, pipeline) = task::channel(1);
        sender.send(0).unwrap();
        let other = thread::spawn({
            let sender = sender.clone();
            move || sender.send(1).unwrap()
        });
        let pipeline = pipeline.capacity(2);
        other.join().unwrap();
        drop(pipeline);
        refused(&sender, 2);
    });
}

/// Must report `task-that-never-begins-releases-nobody`.
#[test]
fn a_sender_that_waits_for_space_is_released_by_a_pipeline_that_never_starts() {
    check("task: a pipeline let go releases who waits for space", 3, 9, || {
        let (sender, pipeline) = task::channel(1);
        sender.send(0).unwrap();
        let other = thread::spawn({
            let sender = sender.clone();
            move || refused(&sender, 1)
        });
        drop(pipeline);
        other.join().unwrap();
    });
}

// ---- cancel ----

/// Must report `task-removed-items-uncounted`.
#[test]
fn nothing_is_taken_once_a_cancel_has_returned() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("task: nothing is taken once a cancel has returned", 5, 3_700, move || {
        // Not modelled, so that it adds no edge and no schedules.
        let begun = std::sync::Arc::new(AtomicU64::new(0));
        let own = begun.clone();
        let (sender, pipeline) = task::channel(3);
        (0..3).for_each(|item| sender.send(item).unwrap());
        let count = move |_: &usize| _ = own.fetch_add(1, Ordering::SeqCst);
        let task = pipeline.map(count).start().unwrap();
        task.cancel();
        let handled = task.summary().handled;
        refused(&sender, 3);
        let summary = end(task, 3);
        assert!(
            summary.handled <= handled + 1,
            "but for the one that the worker had: {summary:?}, {handled}"
        );
        assert_eq!(begun.load(Ordering::SeqCst), summary.handled);
        seen.saw(summary.handled);
    });
    witness.expect(&["0", "1", "2", "3"]);
}

/// Must report `permit-asked-by-a-load` and `task-stop-does-not-revoke`.
#[test]
fn no_call_begins_once_a_cancel_has_returned() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("task: no call begins once a cancel has returned", 3, 10_000, move || {
        // Not modelled: nothing comes between the last question of the library and the first statement of the handler.
        let cancelled = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let own = cancelled.clone();
        let (sender, pipeline) = task::channel(2);
        (0..2).for_each(|item| sender.send(item).unwrap());
        let work = move |_: &usize| assert!(!own.load(Ordering::SeqCst), "called after the cancel");
        let task = pipeline.strategy(PAIR).map(work).start().unwrap();
        task.cancel();
        cancelled.store(true, Ordering::SeqCst);
        let summary = end(task, 2);
        seen.saw((summary.handled, summary.cancelled));
    });
    witness.expect(&["(0, 2)", "(1, 1)", "(2, 0)"]);
}

/// Must report `task-stop-does-not-revoke`.
#[test]
fn no_retry_begins_once_a_cancel_has_returned() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("task: no retry begins once a cancel has returned", 3, 100, move || {
        let cancelled = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let own = cancelled.clone();
        let (sender, pipeline) = task::channel(1);
        sender.send(0).unwrap();
        let work = move |_: &usize| {
            assert!(!own.load(Ordering::SeqCst), "called after the cancel");
            Err::<(), _>("again")
        };
        let task = pipeline.on_error(ErrorPolicy::Retry(1)).try_map(work).start().unwrap();
        task.cancel();
        cancelled.store(true, Ordering::SeqCst);
        let summary = end(task, 1);
        assert_eq!(summary.failed + summary.cancelled, 1);
        seen.saw((summary.failed, summary.retries));
    });
    witness.expect(&["(0, 0)", "(1, 0)", "(1, 1)"]);
}

/// Must report `task-cancel-overlooked`.
#[test]
fn a_cancel_ends_the_wait_for_a_full_batch() {
    check("task: a cancel ends the wait for a full batch", 3, 100, || {
        let (sender, pipeline) = task::channel(4);
        let work = |items: &[usize]| Ok::<_, TaskError>(items.len());
        let task = pipeline.strategy(TWO_AT_ONCE).map_batch(work).start().unwrap();
        sender.send(0).unwrap();
        // Neither another item nor the end of the senders comes.
        task.cancel();
        assert_eq!(end(task, 1).cancelled, 1);
        drop(sender);
    });
}

/// Must report `task-cancel-asked-before-the-lock`.
#[test]
fn a_cancel_against_a_start_is_not_lost() {
    check("task: a cancel against a start is not lost", 2, 140, || {
        let token = CancelToken::new();
        let (sender, pipeline) = task::channel::<usize>(1);
        let other = thread::spawn({
            let token = token.clone();
            move || token.cancel()
        });
        let task = pipeline.cancel_token(&token).map(|_| ()).start().unwrap();
        other.join().unwrap();
        // The channel stays open: the cancel alone ends it.
        assert_eq!(end(task, 0).outcome, TaskOutcome::Cancelled);
        drop(sender);
    });
}

/// Must report `cancel-reaches-one-task`.
#[test]
fn a_cancel_reaches_all_tasks_of_a_token() {
    check("task: a cancel reaches all tasks of a token", 2, 340, || {
        let token = CancelToken::new();
        let tasks = [(); 2].map(|()| {
            let (sender, pipeline) = task::channel::<usize>(1);
            (sender, pipeline.cancel_token(&token).map(|_| ()).start().unwrap())
        });
        token.cancel();
        for (sender, task) in tasks {
            // Its channel is open: the cancel alone ends it.
            assert_eq!(end(task, 0).outcome, TaskOutcome::Cancelled);
            drop(sender);
        }
    });
}

/// Must report `task-second-cancel-returns-early`.
#[test]
fn a_second_cancel_returns_no_sooner_than_all_are_notified() {
    check("task: a second cancel has the promise of the first", 3, 3_700, || {
        let token = CancelToken::new();
        let (sender, pipeline) = task::channel(3);
        let task = pipeline.cancel_token(&token).map(|_: &usize| ()).start().unwrap();
        let cancel = move |token: &CancelToken, sender: &Sender<usize>| {
            token.cancel();
            refused(sender, 0);
        };
        let other = thread::spawn({
            let (token, sender) = (token.clone(), sender.clone());
            move || cancel(&token, &sender)
        });
        cancel(&token, &sender);
        other.join().unwrap();
        assert_eq!(end(task, 0).outcome, TaskOutcome::Cancelled);
    });
}

/// Must report `task-stop-leaves-workers-asleep`.
#[test]
fn a_worker_that_sleeps_is_woken_by_a_cancel() {
    check("task: a cancel wakes workers that sleep", 3, 5_300, || {
        let (sender, pipeline) = task::channel::<usize>(1);
        let task = pipeline.strategy(PAIR).map(|_| ()).start().unwrap();
        task.cancel();
        assert_eq!(end(task, 0).outcome, TaskOutcome::Cancelled);
        drop(sender);
    });
}

// ---- the end ----

/// Sets a flag and notifies when it is dropped: a notification alone may wake somebody for nothing.
struct Last(Arc<AtomicBool>, Arc<Notify>);

impl Drop for Last {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
        self.1.notify();
    }
}

/// Returns a collector that keeps what it gets in its ring.
fn keeping() -> forebay::Collector {
    let builder = Builder::<Record>::new().capacity(2).critical_capacity(2).low_capacity(1);
    builder.session_id("model").host("model").rank(0).flush(FlushStrategy::Manual).build().unwrap()
}

/// Must report `task-reported-behind-who-waits`.
#[test]
fn the_end_is_reported_once_and_before_who_waits() {
    check("task: one final event, before whoever waits", 3, 12_000, || {
        let collector = keeping();
        let (sender, pipeline) = task::channel(1);
        let pipeline = pipeline.strategy(PAIR).report_to(&collector, "model.task.ended");
        let task = pipeline.map(|_: &usize| ()).start().unwrap();
        sender.send(0).unwrap();
        drop(sender);
        assert_eq!(end(task, 1).handled, 1);
        assert_eq!(collector.stats().pending, 1, "reported once, before who waits");
        collector.stop().unwrap();
        collector.stats().check_law(1).unwrap();
    });
}

/// Must report `task-stop-leaves-workers-asleep`.
#[test]
fn the_end_of_a_task_that_is_dropped_is_reported_once_by_whoever_comes_first() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("task: a task that is dropped has one final event", 4, 9_300, move || {
        let (collector, signal) = (keeping(), Arc::new(Notify::new()));
        let gone = Arc::new(AtomicBool::new(false));
        let (sender, pipeline) = task::channel(1);
        sender.send(0).unwrap();
        let pipeline = pipeline.report_to(&collector, "model.task.ended").drop_timeout(Duration::ZERO);
        let last = Gather::fold(Last(gone.clone(), signal.clone()), |_, ()| {});
        let task = pipeline.map(|_: &usize| ()).gather(last).start().unwrap();
        seen.saw(task.is_over());
        drop(task);
        // What was gathered goes with whoever is the last to go.
        while !gone.load(Ordering::Acquire) {
            signal.wait();
        }
        // Where this thread is the last, the count of references is what orders the two, and that is not modelled.
        while collector.stats().pending == 0 {
            thread::yield_now();
        }
        assert_eq!(collector.stats().pending, 1, "reported once");
        collector.stop().unwrap();
        collector.stats().check_law(1).unwrap();
    });
    witness.expect(&["false"]);
}

// ---- results, one by one ----

/// Must report `task-result-waited-for-once` and `task-results-end-unreported`.
#[test]
fn results_wait_for_space_and_their_reader_for_results() {
    check("task: results and their reader wait for each other", 2, 3_000, || {
        let (sender, pipeline) = task::channel(1);
        let results = pipeline.map(|item: &usize| *item).results().unwrap();
        let other = thread::spawn(move || (0..2).for_each(|item| sender.send(item).unwrap()));
        assert_eq!((results.recv(), results.recv(), results.recv()), (Some(0), Some(1), None));
        other.join().unwrap();
        assert_eq!(end(results.into_task(), 2).handled, 2);
    });
}

/// Must report `task-reader-that-leaves-releases-nobody`.
#[test]
fn results_that_nobody_takes_hold_up_no_handler() {
    check("task: a reader that leaves releases handlers", 3, 15_000, || {
        let (sender, pipeline) = task::channel(1);
        let results = pipeline.map(|item: &usize| *item).results().unwrap();
        let other = thread::spawn(move || (0..3).for_each(|item| _ = sender.send(item)));
        let task = results.into_task();
        other.join().unwrap();
        assert_eq!(end(task, 3).handled, 3);
    });
}

// ---- async ----

struct NotifyingWaker(Notify);

impl Wake for NotifyingWaker {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.notify();
    }
}

/// Must report `task-end-wakes-no-task`.
#[test]
fn a_task_that_is_polled_is_woken_by_its_end() {
    check("task: a task that is polled is woken by its end", 5, 100, || {
        let (sender, pipeline) = task::channel::<usize>(1);
        let mut task = pipeline.map(|_| ()).start().unwrap();
        drop(sender);
        let notifier = std::sync::Arc::new(NotifyingWaker(Notify::new()));
        let waker: Waker = notifier.clone().into();
        let mut cx = Context::from_waker(&waker);
        let ending = loop {
            match Pin::new(&mut task).poll(&mut cx) {
                Poll::Ready(ending) => break ending,
                Poll::Pending => notifier.0.wait(),
            }
        };
        ending.summary.check_law(0).unwrap();
    });
}

/// Must report `permit-refusal-without-acquire`.
#[test]
fn who_is_refused_a_call_sees_what_came_before() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("task: who is refused a call sees what came before", 3, 4, move || {
        let (permit, done) = (Arc::new(Permit::new()), Arc::new(AtomicBool::new(false)));
        let other = thread::spawn({
            let (permit, done) = (permit.clone(), done.clone());
            move || {
                done.store(true, Ordering::Relaxed);
                permit.revoke();
            }
        });
        let begins = permit.begin();
        assert!(begins || done.load(Ordering::Relaxed), "refused, and saw nothing of why");
        other.join().unwrap();
        seen.saw(begins);
    });
    witness.expect(&["true", "false"]);
}

/// Must report `cancel-asked-without-acquire`.
#[test]
fn who_sees_a_cancel_sees_what_came_before() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("task: who sees a cancel sees what came before", 3, 4, move || {
        let (token, done) = (CancelToken::new(), Arc::new(AtomicBool::new(false)));
        let other = thread::spawn({
            let (token, done) = (token.clone(), done.clone());
            move || {
                done.store(true, Ordering::Relaxed);
                token.cancel();
            }
        });
        let is_cancelled = token.is_cancelled();
        assert!(!is_cancelled || done.load(Ordering::Relaxed), "cancelled, and saw nothing of why");
        other.join().unwrap();
        seen.saw(is_cancelled);
    });
    witness.expect(&["true", "false"]);
}
