//! Tasks: one suite over all strategies, then what each of them promises alone.

use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::task::{Context, Waker};
use std::time::Duration;

use crate::support::*;
use forebay::sink::{MemorySink, from_fn};
use forebay::{Batch, Builder, Collector, Event, ManualClock, Record, config::ConfigError};
use forebay_bus::{Bus, Envelope};
use forebay_task::{
    self as task, CancelToken, Decision, ErrorPolicy, Failure, Final, Gather, ItemKind, Pipeline,
    SendRefusal, Strategy, Summary, Task, TaskError, TaskOutcome,
};

const HOUR: Duration = Duration::from_secs(3600);

/// Returns every strategy, and how many handlers it begins with.
fn strategies() -> [(Strategy, u64); 7] {
    let window = Duration::from_millis(1);
    [
        (Strategy::Serial, 1),
        (Strategy::Parallel { workers: 1, rate_limit: None }, 1),
        (Strategy::Parallel { workers: 4, rate_limit: None }, 4),
        (Strategy::Parallel { workers: 3, rate_limit: Some(1_000_000) }, 3),
        (Strategy::Batched { size: 3, max_delay: Duration::ZERO }, 1),
        (Strategy::Batched { size: 64, max_delay: Duration::from_millis(1) }, 1),
        (Strategy::Adaptive { min: 1, max: 4, window }, 1),
    ]
}

/// Counts the items that it made, and those that were dropped; an item that is dropped twice is one too many.
#[derive(Debug, Clone, Default)]
struct Ledger(Arc<[AtomicU64; 2]>);

#[derive(Debug)]
struct Item {
    number: u64,
    ledger: Ledger,
}

impl Ledger {
    fn item(&self, number: u64) -> Item {
        self.0[0].fetch_add(1, Ordering::SeqCst);
        Item { number, ledger: self.clone() }
    }

    fn items(&self, count: u64) -> impl Iterator<Item = Item> + Send + use<> {
        let ledger = self.clone();
        (0..count).map(move |number| ledger.item(number))
    }

    fn counts(&self) -> (u64, u64) {
        (self.0[0].load(Ordering::SeqCst), self.0[1].load(Ordering::SeqCst))
    }

    /// Items may be in the hands of a source that a cancelled task does not wait for.
    #[track_caller]
    fn balances(&self) {
        until("every item is dropped", || self.counts().0 == self.counts().1);
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        self.ledger.0[1].fetch_add(1, Ordering::SeqCst);
    }
}

#[track_caller]
fn over(task: Task<impl std::fmt::Debug>) -> Summary {
    end(task).summary
}

/// Waits for the end of a task, but not for ever, and checks the law.
#[track_caller]
fn end<O: std::fmt::Debug>(task: Task<O>) -> Final<O> {
    let end = task.wait_timeout(LONG).unwrap_or_else(|task| panic!("it never ends: {task:?}"));
    end.summary.check_law(end.summary.sent).unwrap();
    assert_eq!(end.summary.left, 0);
    end
}

/// Collection that a task gathers into, to learn when nothing of the task is left: all of its reports were made by then.
#[derive(Debug, Clone, Default)]
struct Gone(Arc<()>);

impl Gone {
    #[track_caller]
    fn is_behind_all(&self) {
        until("nothing of it is left", || Arc::strong_count(&self.0) == 1);
    }
}

/// Returns a collector for the final event of a task, and the sink that gets it.
fn observed() -> (Collector, MemorySink) {
    let memory = MemorySink::new();
    let collector = Collector::builder().sink(memory.clone()).start().unwrap();
    (collector, memory)
}

/// Returns the outcome and the counts of the one final event.
#[track_caller]
fn final_event(collector: &Collector, memory: &MemorySink) -> (String, [i64; 5]) {
    let _ = collector.flush().unwrap();
    let events = memory.events();
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0].name(), "test.task.finished");
    let fields = events[0].value().as_fields().unwrap();
    let count = |name: &str| fields.get(name).unwrap().as_i64().unwrap();
    let counts = ["sent", "handled", "failed", "cancelled", "left"].map(count);
    assert_eq!(counts[0], counts[1..].iter().sum::<i64>(), "the law");
    (fields.get("outcome").unwrap().as_str().unwrap().to_owned(), counts)
}

#[test]
fn what_a_handler_and_a_source_log_goes_through_a_bridge() {
    let bridge = forebay::bridge::Bridge::new(Collector::builder().build().unwrap());
    let (of_source, of_handler) = (bridge.clone(), bridge.clone());
    let mut left = 3;
    let source = move || {
        assert!(of_source.enter().is_some());
        left -= 1;
        (left > 0).then_some(left)
    };
    let task = task::from_fn(source).map(move |_: &i32| assert!(of_handler.enter().is_some()));
    assert_eq!(task.gather(Gather::count()).run().unwrap().results, 2);
    assert_eq!(bridge.counts(), forebay::bridge::Counts::default());
}

#[test]
fn every_item_is_handled_once_and_dropped_once() {
    for (strategy, _) in strategies() {
        let (ledger, (collector, memory)) = (Ledger::default(), observed());
        let pipeline = task::from_iter(ledger.items(500)).capacity(7).strategy(strategy);
        let task = pipeline
            .report_to(&collector, "test.task.finished")
            .map(|item| item.number)
            .gather(Gather::ordered())
            .start();
        let end = end(task.unwrap());
        assert_eq!(ledger.counts(), (500, 500), "{strategy:?}: all are dropped before the end is reported");
        assert!(end.results.into_iter().eq(0..500), "{strategy:?}");
        let Summary { outcome, handled, .. } = end.summary;
        assert_eq!((outcome, handled), (TaskOutcome::Completed, 500), "{strategy:?}");
        assert_eq!(final_event(&collector, &memory), ("completed".to_owned(), [500, 500, 0, 0, 0]));
    }
}

/// Cannot be made of a record.
#[derive(Debug)]
struct Unmade;

impl Event for Unmade {}

impl From<Record> for Unmade {
    fn from(_: Record) -> Self {
        panic!("on purpose")
    }
}

#[test]
fn a_report_that_panics_keeps_no_task_from_its_end() {
    hush();
    let collector = Builder::<Unmade>::new().start().unwrap();
    let pipeline = task::from_iter(0..3).report_to(&collector, "test.task.finished");
    let end = end(pipeline.map(|number| *number).start().unwrap());
    assert_eq!((end.summary.outcome, end.summary.handled), (TaskOutcome::Completed, 3));
    collector.stop().unwrap();
    collector.stats().check_law(0).unwrap();
}

#[test]
fn failures_and_panics_fail_their_item_alone() {
    hush();
    for (strategy, _) in strategies() {
        let ledger = Ledger::default();
        let work = |item: &Item| match item.number % 10 {
            3 => Err("three"),
            7 => panic!("on purpose"),
            _ => Ok(item.number),
        };
        let pipeline = task::from_iter(ledger.items(100)).strategy(strategy);
        let end = end(pipeline.try_map(work).gather(Gather::list()).start().unwrap());
        let Summary { outcome, sent, handled, failed, .. } = end.summary;
        assert_eq!((outcome, sent, handled, failed), (TaskOutcome::Completed, 100, 80, 20), "{strategy:?}");
        let error = end.summary.first_error.unwrap();
        assert!(["three", "the handler panicked: on purpose"].contains(&&*error), "{error}");
        assert_eq!((end.results.len(), ledger.counts()), (80, (100, 100)));
    }
}

#[test]
fn the_first_failure_stops_the_task_if_the_policy_says_so() {
    for (strategy, workers) in strategies() {
        let (ledger, (collector, memory)) = (Ledger::default(), observed());
        let task = task::from_iter(ledger.items(1000))
            .strategy(strategy)
            .on_error(ErrorPolicy::StopOnFirst)
            .report_to(&collector, "test.task.finished")
            .try_map(|item| if item.number == 5 { Err("five") } else { Ok(()) });
        let summary = over(task.start().unwrap());
        assert_eq!((summary.outcome, summary.failed), (TaskOutcome::Failed, 1), "{strategy:?}");
        assert_eq!(summary.first_error.as_deref(), Some("five"));
        // Each other worker may hold an earlier item that it has not begun.
        let others = if let Strategy::Adaptive { max, .. } = strategy { max as u64 } else { workers } - 1;
        let may_be = if others > 0 { 5_u64.saturating_sub(others)..=999 } else { 5..=5 };
        assert!(may_be.contains(&summary.handled), "{strategy:?}: {summary}");
        assert_eq!(final_event(&collector, &memory).0, "failed");
        ledger.balances();
    }
}

#[test]
fn no_handler_starts_after_a_cancel_and_those_that_run_finish() {
    for (strategy, workers) in strategies() {
        let (ledger, gate, (collector, memory)) = (Ledger::default(), Gate::closed(), observed());
        let (token, behind) = (CancelToken::new(), gate.clone());
        let (sender, pipeline) = task::channel(50);
        (0..50).for_each(|number| sender.send(ledger.item(number)).unwrap());
        let pipeline =
            pipeline.strategy(strategy).cancel_token(&token).report_to(&collector, "test.task.finished");
        let task = pipeline.map(move |_| behind.pass()).start().unwrap();
        gate.await_arrivals(workers);
        token.cancel();
        let refused = sender.try_send(ledger.item(50)).unwrap_err();
        assert_eq!((refused.reason, refused.item.number), (SendRefusal::Closed, 50));
        assert!(!task.is_over() && sender.is_closed());
        drop(refused);
        gate.open();
        let summary = over(task);
        let Summary { outcome, sent, handled, failed, cancelled, .. } = summary;
        assert_eq!(outcome, TaskOutcome::Cancelled);
        assert_eq!((sent, handled, failed, cancelled), (50, workers, 0, 50 - workers), "{strategy:?}");
        assert_eq!(ledger.counts(), (51, 51));
        let counts = [50, workers as i64, 0, 50 - workers as i64, 0];
        assert_eq!(final_event(&collector, &memory), ("cancelled".to_owned(), counts));
    }
}

#[test]
fn a_task_that_is_cancelled_before_its_start_handles_nothing() {
    for (strategy, _) in strategies() {
        let (ledger, token) = (Ledger::default(), CancelToken::new());
        token.cancel();
        let pipeline = task::from_iter(ledger.items(10)).strategy(strategy).cancel_token(&token);
        let summary =
            over(pipeline.map(|_| panic!("on purpose")).gather(Gather::<(), _>::count()).start().unwrap());
        assert_eq!((summary.outcome, summary.handled, summary.failed), (TaskOutcome::Cancelled, 0, 0));
        ledger.balances();
    }
}

#[test]
fn a_full_channel_makes_senders_wait_until_there_is_space_or_no_hope() {
    for (strategy, _) in strategies() {
        let (gate, token) = (Gate::closed(), CancelToken::new());
        let (sender, pipeline) = task::channel(2);
        // Before the start, and as long as nobody takes it.
        (0..2).for_each(|number| sender.try_send(number).unwrap());
        assert_eq!(sender.try_send(2).unwrap_err().reason, SendRefusal::Full);
        let late = sender.send_timeout(3, Duration::from_millis(1)).unwrap_err();
        assert_eq!((late.item, late.reason), (3, SendRefusal::Full));
        std::thread::scope(|scope| {
            let many = scope.spawn(|| (4..200).try_for_each(|number| sender.send(number)));
            let behind = gate.clone();
            let stage = pipeline.strategy(strategy).cancel_token(&token).map(move |_| behind.pass());
            let task = stage.start().unwrap();
            gate.await_arrivals(1);
            gate.open();
            many.join().unwrap().unwrap();
            until("all are handled", || task.summary().handled == 198);
            gate.close();
            // One of them waits for space when the cancel comes, whatever happens to be taken before.
            let hopeless = scope.spawn(|| (0..20).try_for_each(|number| sender.send(number)));
            until("the channel is full", || task.summary().sent >= 200);
            task.cancel();
            assert_eq!(hopeless.join().unwrap().unwrap_err().reason, SendRefusal::Closed);
            assert!(!token.is_cancelled(), "a task does not cancel its parent");
            gate.open();
            over(task);
        });
    }
}

#[test]
fn workers_that_sleep_are_woken_by_what_is_sent_and_by_the_end() {
    for (strategy, _) in strategies() {
        for round in 0..20 {
            let (sender, pipeline) = task::channel(4);
            let task = pipeline.strategy(strategy).map(|_: &u64| ()).start().unwrap();
            for handled in 1..4 {
                sender.send(round).unwrap();
                until_timeout(SOON, "it is handled", || task.summary().handled == handled);
            }
            if round % 2 == 0 {
                task.cancel()
            } else {
                drop(sender)
            }
            assert!(task.wait_timeout(SOON).is_ok(), "{strategy:?}");
        }
    }
}

#[test]
fn an_item_is_tried_again_as_often_as_the_policy_says() {
    hush();
    for (strategy, _) in strategies() {
        for (policy, handled, retries) in [
            (ErrorPolicy::Continue, 0, 0),
            (ErrorPolicy::Retry(1), 0, 30),
            (ErrorPolicy::Retry(2), 30, 60),
            (ErrorPolicy::Retry(9), 30, 60),
            (ErrorPolicy::custom(|_, retries| [RETRY, RETRY, Decision::Stop][retries as usize]), 30, 60),
        ] {
            let attempts: Arc<Vec<AtomicUsize>> = Arc::new((0..30).map(|_| AtomicUsize::new(0)).collect());
            let work = move |number: &usize| match attempts[*number].fetch_add(1, Ordering::SeqCst) {
                0 => Err("once"),
                1 => panic!("on purpose"),
                _ => Ok(()),
            };
            let pipeline = task::from_iter(0..30).strategy(strategy).on_error(policy.clone());
            let summary = over(pipeline.try_map(work).start().unwrap());
            let counts = (summary.handled, summary.failed, summary.retries);
            assert_eq!(counts, (handled, 30 - handled, retries), "{strategy:?}, {policy:?}");
            assert_eq!(summary.first_error.is_some(), handled == 0);
        }
    }
}

const RETRY: Decision = Decision::Retry { after: Duration::ZERO };

#[test]
fn a_handler_that_hangs_holds_up_neither_the_drop_nor_the_final_event() {
    for (strategy, workers) in strategies() {
        let (ledger, gate, (collector, memory)) = (Ledger::default(), Gate::closed(), observed());
        let (behind, last) = (gate.clone(), Gone::default());
        let task = task::from_iter(ledger.items(100))
            .strategy(strategy)
            .drop_timeout(Duration::from_millis(1))
            .report_to(&collector, "test.task.finished")
            .map(move |_| behind.pass())
            .gather(Gather::fold(last.clone(), |_, ()| {}))
            .start()
            .unwrap();
        gate.await_arrivals(workers);
        let task = task.wait_timeout(Duration::from_millis(1)).unwrap_err();
        drop(task);
        let (outcome, [sent, handled, failed, cancelled, left]) = final_event(&collector, &memory);
        assert_eq!((&*outcome, handled, failed), ("cancelled", 0, 0), "{strategy:?}");
        // A batch hangs with its first.
        assert!(left >= workers as i64 && sent == cancelled + left, "{strategy:?}: {left} of {sent}");
        // They end all the same, when they can; nobody reports it again.
        gate.open();
        ledger.balances();
        last.is_behind_all();
        collector.stop().unwrap();
        assert_eq!(memory.len(), 1, "{strategy:?}");
    }
}

#[test]
fn the_final_event_comes_once_also_from_tasks_that_nobody_waits_for() {
    for (strategy, _) in strategies() {
        for drop_it in [|task: Task<Gone>| task.detach(), |task| drop(task)] {
            let (ledger, last, (collector, memory)) = (Ledger::default(), Gone::default(), observed());
            let pipeline = task::from_iter(ledger.items(20)).strategy(strategy);
            let pipeline = pipeline.report_to(&collector, "test.task.finished");
            let gather = Gather::fold(last.clone(), |_, _| {});
            drop_it(pipeline.map(|item| item.number).gather(gather).start().unwrap());
            ledger.balances();
            last.is_behind_all();
            assert!(memory.wait_for(1, LONG), "{strategy:?}");
            collector.stop().unwrap();
            final_event_after_stop(&memory);
        }
    }
}

#[track_caller]
fn final_event_after_stop(memory: &MemorySink) {
    let names: Vec<_> = memory.events().iter().map(|event| event.name().to_owned()).collect();
    assert_eq!(names, ["test.task.finished"]);
}

#[test]
fn results_come_one_by_one_and_wait_for_their_reader() {
    for (strategy, _) in strategies() {
        let (ledger, begun) = (Ledger::default(), Arc::new(AtomicU64::new(0)));
        let counter = begun.clone();
        let stage = task::from_iter(ledger.items(2_000)).capacity(3).strategy(strategy).map(move |item| {
            counter.fetch_add(1, Ordering::SeqCst);
            item.number
        });
        let results = stage.results().unwrap();
        let mut numbers = Vec::new();
        while let Some(number) = results.recv() {
            numbers.push(number);
            // Those taken, those held, one a worker.
            assert!(begun.load(Ordering::SeqCst) <= numbers.len() as u64 + 3 + 4, "{strategy:?}");
        }
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..2_000));
        assert_eq!(over(results.into_task()).handled, 2_000);
        ledger.balances();
    }
}

#[test]
fn results_that_are_dropped_cancel_their_task_although_handlers_wait_for_space() {
    for (strategy, _) in strategies() {
        let (ledger, (collector, memory)) = (Ledger::default(), observed());
        let pipeline = task::from_iter(ledger.items(1_000)).capacity(1).strategy(strategy);
        let stage =
            pipeline.drop_timeout(LONG).report_to(&collector, "test.task.finished").map(|item| item.number);
        let results = stage.results().unwrap();
        assert!(results.recv().is_some());
        drop(results);
        let (outcome, counts) = final_event(&collector, &memory);
        assert_eq!((&*outcome, counts[4]), ("cancelled", 0), "{strategy:?}");
        ledger.balances();
    }
}

#[test]
fn a_source_that_panics_fails_the_task_behind_what_it_has_sent() {
    hush();
    for (strategy, _) in strategies() {
        let ledger = Ledger::default();
        let items = ledger.items(40).inspect(|item| assert_ne_on_purpose(item.number, 30));
        let summary =
            over(task::from_iter(items).strategy(strategy).map(|item| item.number).start().unwrap());
        assert_eq!((summary.outcome, summary.handled), (TaskOutcome::Failed, 30), "{strategy:?}");
        assert_eq!(summary.first_error.as_deref(), Some("the source panicked: on purpose"));
        ledger.balances();
    }
}

fn assert_ne_on_purpose(number: u64, bad: u64) {
    if number == bad {
        panic!("on purpose");
    }
}

#[test]
fn what_gathers_may_panic_and_fails_the_item() {
    hush();
    for (strategy, _) in strategies() {
        let add = |sum: &mut u64, number| {
            assert_ne_on_purpose(number, 4);
            *sum += number;
        };
        let pipeline = task::from_iter(0..10).strategy(strategy).on_error(ErrorPolicy::Retry(3));
        let end = end(pipeline.map(|number| *number).gather(Gather::fold(0, add)).start().unwrap());
        assert_eq!((end.results, end.summary.handled, end.summary.failed), (41, 9, 1), "{strategy:?}");
        assert_eq!(end.summary.retries, 0, "its handler has done its work");
        assert_eq!(end.summary.first_error.as_deref(), Some("the gathering panicked: on purpose"));
    }
}

#[test]
fn a_handler_that_sends_into_its_own_full_channel_is_refused_instead_of_waiting_for_itself() {
    for (strategy, workers) in strategies() {
        let (sender, pipeline) = task::channel(1);
        sender.send(0).unwrap();
        let own = Mutex::new(Some(sender));
        let task = pipeline.strategy(strategy).try_map(move |_: &u64| {
            let Some(own) = own.lock().unwrap().take() else { return Ok(()) };
            own.send(1)?;
            while own.send(2).is_ok() {}
            own.send(3)
        });
        let summary = over(task.start().unwrap());
        // Others may have made space meanwhile; on one thread nobody can.
        assert!(summary.handled + summary.failed >= 2, "{strategy:?}: {summary}");
        assert_eq!(summary.outcome, TaskOutcome::Completed);
        if workers == 1 {
            assert_eq!((summary.handled, summary.failed), (1, 1), "{strategy:?}");
            assert_eq!(summary.first_error.as_deref(), Some("item not sent: the channel is full"));
        }
    }
}

#[test]
fn a_task_that_its_own_handler_drops_does_not_wait_for_itself() {
    for (strategy, _) in strategies() {
        let (collector, memory) = observed();
        let own: Arc<Mutex<Option<Task<u64>>>> = Arc::default();
        let (sender, pipeline) = task::channel(1);
        let pipeline = pipeline.strategy(strategy).drop_timeout(LONG + LONG);
        let inside = own.clone();
        let stage = pipeline.report_to(&collector, "test.task.finished").map(move |_: &()| {
            let task = inside.lock().unwrap().take();
            drop(task);
        });
        *own.lock().unwrap() = Some(stage.start().unwrap());
        sender.send(()).unwrap();
        assert!(memory.wait_for(1, LONG), "{strategy:?}");
        assert_eq!(final_event(&collector, &memory), ("cancelled".to_owned(), [1, 0, 0, 0, 1]));
    }
}

#[test]
fn settings_that_make_no_sense_are_errors_that_name_them() {
    let window = Duration::from_secs(1);
    let pipeline = || task::from_iter([0_u64]);
    let (collector, memory) = observed();
    let cases: Vec<(Pipeline<u64>, &str)> = vec![
        (pipeline().capacity(0), "invalid task.capacity: 0 (expected 1 or more)"),
        (
            pipeline().strategy(Strategy::Parallel { workers: 0, rate_limit: None }),
            "invalid task.strategy.workers: 0 (expected 1 to 1024)",
        ),
        (
            pipeline().strategy(Strategy::Parallel { workers: 1025, rate_limit: None }),
            "invalid task.strategy.workers: 1025 (expected 1 to 1024)",
        ),
        (
            pipeline().strategy(Strategy::Parallel { workers: 1, rate_limit: Some(0) }),
            "invalid task.strategy.rate_limit: 0 (expected 1 or more)",
        ),
        (
            pipeline().strategy(Strategy::Batched { size: 0, max_delay: window }),
            "invalid task.strategy.size: 0 (expected 1 or more)",
        ),
        (
            pipeline().strategy(Strategy::Adaptive { min: 0, max: 4, window }),
            "invalid task.strategy.min: 0 (expected 1 to 1024)",
        ),
        (
            pipeline().strategy(Strategy::Adaptive { min: 4, max: 3, window }),
            "invalid task.strategy.max: 3 (expected task.strategy.min to 1024)",
        ),
        (
            pipeline().strategy(Strategy::Adaptive { min: 1, max: 3, window: Duration::ZERO }),
            "invalid task.strategy.window: 0ns (expected more than zero)",
        ),
        (task::interval(Duration::ZERO), "invalid task.interval: 0ns (expected more than zero)"),
        (pipeline().debounce(Duration::ZERO), "invalid task.debounce: 0ns (expected more than zero)"),
        (
            pipeline().debounce(window).strategy(Strategy::Batched { size: 2, max_delay: window }),
            "invalid task.debounce: 1s (expected none with Strategy::Batched)",
        ),
    ];
    let names =
        ["", "task", "Task.finished", "task..finished", ".task", "task.", "task finished.x", "täsk.x"];
    let name = |name: &'static str| {
        let allowed = "two or more words of a-z, 0-9 and _, joined by dots";
        let text = format!("invalid task.report_to: {name:?} (expected {allowed})");
        (pipeline().report_to(&collector, name), text)
    };
    let cases = cases.into_iter().map(|(pipeline, text)| (pipeline, text.to_owned()));
    for (pipeline, text) in cases.chain(names.map(name)) {
        match pipeline.map(|number| *number).start() {
            Err(error @ TaskError::Config(ConfigError::Invalid { .. })) => {
                assert_eq!(error.to_string(), text)
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    collector.stop().unwrap();
    assert!(memory.is_empty(), "nothing was started, nothing has ended");
}

#[test]
fn what_was_sent_into_a_pipeline_that_never_starts_is_dropped_and_senders_are_refused() {
    let ledger = Ledger::default();
    let (sender, pipeline) = task::channel(2);
    sender.send(ledger.item(0)).unwrap();
    let refused = |sender: &task::Sender<Item>| sender.send(ledger.item(1)).unwrap_err().reason;
    drop(pipeline);
    assert_eq!((refused(&sender), ledger.counts()), (SendRefusal::Closed, (2, 2)));
    let (sender, pipeline) = task::channel(0);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| (0..3).try_for_each(|number| sender.send(ledger.item(number))));
        assert!(pipeline.map(|item| item.number).start().is_err());
        assert_eq!(waiting.join().unwrap().unwrap_err().reason, SendRefusal::Closed);
    });
    ledger.balances();
}

#[test]
fn serial_and_batched_keep_the_order_of_sending() {
    for (strategy, workers) in strategies() {
        if let Strategy::Adaptive { .. } | Strategy::Parallel { .. } = strategy {
            assert!(workers >= 1);
            continue;
        }
        let seen = Arc::new(Mutex::new(Vec::new()));
        let inside = seen.clone();
        let pipeline = task::from_iter(0..300).strategy(strategy);
        let end = end(pipeline.map(move |number| inside.lock().unwrap().push(*number)).start().unwrap());
        assert_eq!(end.results, 300);
        assert!(seen.lock().unwrap().iter().copied().eq(0..300), "{strategy:?}");
    }
}

#[test]
fn parallel_handlers_run_side_by_side_on_threads_of_their_name() {
    let meeting = Barrier::new(4);
    let stage = task::from_iter(0..40).strategy(Strategy::Parallel { workers: 4, rate_limit: None });
    let stage = stage.map(move |_| {
        meeting.wait();
        std::thread::current().name().map(str::to_owned)
    });
    let end = end(stage.gather(Gather::by_key(Clone::clone)).start().unwrap());
    assert_eq!(end.results.keys().collect::<Vec<_>>(), [&Some("forebay-task".to_owned())]);
}

/// Lets handlers through, so many at a time.
#[derive(Default)]
struct Turnstile {
    /// Those that have come, and those that may go.
    counts: Mutex<[u64; 2]>,
    changed: std::sync::Condvar,
}

impl Turnstile {
    fn pass(&self) {
        let mut counts = self.counts.lock().unwrap();
        counts[0] += 1;
        let number = counts[0];
        drop(self.changed.wait_while(counts, |counts| counts[1] < number).unwrap());
    }

    fn have_come(&self) -> u64 {
        self.counts.lock().unwrap()[0]
    }

    fn admit(&self, all: u64) {
        self.counts.lock().unwrap()[1] = all;
        self.changed.notify_all();
    }
}

#[test]
fn an_adaptive_task_hires_workers_while_that_pays() {
    let (clock, turnstile) = (ManualClock::new(), Arc::new(Turnstile::default()));
    let strategy = Strategy::Adaptive { min: 1, max: 8, window: Duration::from_secs(1) };
    let (behind, pipeline) = (turnstile.clone(), task::from_fn(|| Some(())).manual_clock(&clock));
    let task = pipeline.strategy(strategy).map(move |()| behind.pass()).start().unwrap();
    // Every handler takes a tenth of a second, however many there are. They end one after the other: all the others are busy then.
    let (mut numbers, mut busy, mut handled) = (vec![1], 1, 0);
    for _ in 0..200 {
        until("all are at it, and others wait", || {
            turnstile.have_come() == handled + busy && task.summary().left == 64 + busy
        });
        clock.advance(Duration::from_millis(100));
        let round = handled + busy;
        while handled < round {
            handled += 1;
            turnstile.admit(handled);
            until("it is done", || task.summary().handled == handled);
            let workers = task.summary().workers as u64;
            numbers.extend((numbers.last() != Some(&workers)).then_some(workers));
            busy = workers.max(busy - 1);
            until("others take its place", || turnstile.have_come() == handled + busy);
        }
    }
    assert_eq!(numbers[..4], [1, 2, 4, 8], "{numbers:?}");
    assert!(numbers[4..].iter().all(|workers| *workers >= 6), "{numbers:?}");
    turnstile.admit(u64::MAX);
    task.cancel();
    over(task);
}

#[test]
fn an_adaptive_task_leaves_a_stall_of_handlers_that_wait_for_later_items() {
    let clock = ManualClock::new();
    let meeting = Barrier::new(5);
    let strategy = Strategy::Adaptive { min: 1, max: 8, window: HOUR };
    let pipeline = task::from_iter(0..5).strategy(strategy).manual_clock(&clock);
    // Nothing is completed before five are begun.
    let task = pipeline.map(move |_| _ = meeting.wait()).start().unwrap();
    until("all have met", || {
        clock.advance(HOUR);
        task.summary().handled == 5
    });
    assert_eq!(over(task).workers, 8);
}

#[test]
fn a_debounced_item_is_handled_when_no_other_has_come_for_so_long() {
    for (strategy, _) in strategies() {
        if let Strategy::Batched { .. } = strategy {
            continue;
        }
        let (ledger, clock, (collector, memory)) = (Ledger::default(), ManualClock::new(), observed());
        let (sender, pipeline) = task::channel(2);
        // Before it is said, and before the start.
        (0..2).for_each(|number| sender.send(ledger.item(number)).unwrap());
        let pipeline = pipeline.debounce(HOUR).strategy(strategy).manual_clock(&clock);
        let inside = clock.clone();
        let stage = pipeline.report_to(&collector, "test.task.finished");
        let results = stage.map(move |item| (item.number, inside.elapsed())).results().unwrap();
        // Nobody waits for space.
        (2..9).for_each(|number| sender.try_send(ledger.item(number)).unwrap());
        assert_eq!(results.task().summary().evicted, 8);
        clock.advance(HOUR / 2);
        sender.send(ledger.item(9)).unwrap();
        clock.advance(HOUR - Duration::from_nanos(1));
        assert_eq!((results.task().summary().handled, results.task().summary().left), (0, 1));
        clock.advance(Duration::from_nanos(1));
        assert_eq!(results.recv(), Some((9, HOUR * 3 / 2)), "{strategy:?}");
        // The last at the end, at once.
        sender.send(ledger.item(10)).unwrap();
        sender.send(ledger.item(11)).unwrap();
        drop(sender);
        assert_eq!(results.recv(), Some((11, HOUR * 3 / 2)));
        assert_eq!(results.recv(), None);
        let summary = over(results.into_task());
        assert_eq!((summary.sent, summary.handled, summary.evicted), (12, 2, 10), "{strategy:?}");
        assert_eq!(
            summary.to_string(),
            "completed: 12 sent = 2 handled + 0 failed + 0 cancelled + 0 left + 10 evicted"
        );
        assert_eq!(ledger.counts(), (12, 12));
        let _ = collector.flush().unwrap();
        let events = memory.events();
        assert_eq!(events[0].value().as_fields().unwrap().get("evicted").unwrap().as_i64(), Some(10));
    }
}

#[test]
fn a_rate_limit_lets_a_second_s_worth_through_and_then_goes_by_the_clock() {
    let clock = ManualClock::new();
    let strategy = Strategy::Parallel { workers: 2, rate_limit: Some(10) };
    let (inside, taken) = (clock.clone(), Arc::new(Mutex::new(Vec::new())));
    let times = taken.clone();
    let pipeline = task::from_iter(0..15).strategy(strategy).manual_clock(&clock);
    let task = pipeline.map(move |_| times.lock().unwrap().push(inside.elapsed())).start().unwrap();
    until("the first second's worth is handled", || task.summary().handled == 10);
    for handled in 11..=15 {
        // Whoever looks before a tenth of a second is over may not take it.
        clock.advance(Duration::from_millis(99));
        assert_eq!(task.summary().handled, handled - 1);
        clock.advance(Duration::from_millis(1));
        until("one more is handled", || task.summary().handled == handled);
    }
    over(task);
    let taken = taken.lock().unwrap();
    let slots = (1..=5).map(|slot| Duration::from_millis(100) * slot);
    assert!(taken[10..].iter().copied().eq(slots), "{taken:?}");
}

#[test]
fn the_next_slot_of_a_rate_is_waited_for_although_the_one_before_is_still_handled() {
    // The last two meet: whoever takes the first of them cannot take the second.
    let meeting = Barrier::new(2);
    let strategy = Strategy::Parallel { workers: 4, rate_limit: Some(20) };
    let stage = task::from_iter(0..22).strategy(strategy);
    let stage = stage.map(move |number| _ = (*number >= 20).then(|| meeting.wait()));
    let task = stage.start().unwrap();
    until_timeout(SOON, "somebody takes the last", || task.summary().handled == 22);
    over(task);
}

#[test]
fn a_batch_is_handled_when_it_is_full_or_late_or_the_last() {
    let clock = ManualClock::new();
    let (sender, pipeline) = task::channel(100);
    let strategy = Strategy::Batched { size: 4, max_delay: HOUR };
    let pipeline = pipeline.strategy(strategy).manual_clock(&clock);
    let batches = pipeline.map_batch(|items: &[u32]| Ok::<_, TaskError>(items.to_vec())).results().unwrap();
    (0..9).for_each(|number| sender.send(number).unwrap());
    assert_eq!([batches.recv().unwrap(), batches.recv().unwrap()], [[0, 1, 2, 3], [4, 5, 6, 7]]);
    until("both are complete", || batches.task().summary().handled == 8);
    clock.advance(HOUR - Duration::from_nanos(1));
    assert_eq!((batches.task().summary().handled, batches.task().summary().left), (8, 1));
    clock.advance(Duration::from_nanos(1));
    assert_eq!(batches.recv().unwrap(), [8]);
    (9..11).for_each(|number| sender.send(number).unwrap());
    drop(sender);
    assert_eq!(batches.recv().unwrap(), [9, 10]);
    assert_eq!(batches.recv(), None);
    assert_eq!(over(batches.into_task()).handled, 11);
}

#[test]
fn a_channel_smaller_than_a_batch_fills_no_batch_and_stops_nobody() {
    let strategy = Strategy::Batched { size: 100, max_delay: HOUR };
    let stage = task::from_iter(0..10).capacity(3).strategy(strategy);
    let stage = stage.map_batch(|items| Ok::<_, TaskError>(items.len())).gather(Gather::list());
    assert_eq!(end(stage.start().unwrap()).results, [3, 3, 3, 1]);
}

#[test]
fn a_batch_succeeds_or_fails_as_one() {
    let tries = Arc::new(AtomicU64::new(0));
    let work = move |items: &[u64]| match (items[0], tries.fetch_add(1, Ordering::SeqCst)) {
        (0, 0) => Err("once more"),
        (5, _) => Err("never"),
        _ => Ok(items.iter().sum::<u64>()),
    };
    let strategy = Strategy::Batched { size: 5, max_delay: HOUR };
    let pipeline = task::from_iter(0..15).strategy(strategy).on_error(ErrorPolicy::Retry(1));
    let end = end(pipeline.map_batch(work).gather(Gather::list()).start().unwrap());
    assert_eq!(end.results, [10, 60]);
    let Summary { handled, failed, retries, .. } = end.summary;
    assert_eq!((handled, failed, retries), (10, 5, 2));
}

#[test]
fn a_retry_waits_by_the_clock_and_not_beyond_a_cancel() {
    let clock = ManualClock::new();
    let policy = ErrorPolicy::custom(|failure, retries| match failure {
        Failure::Error(_) if retries < 3 => Decision::Retry { after: HOUR },
        _ => Decision::Stop,
    });
    let tries = Arc::new(Mutex::new(Vec::new()));
    let (begun, inside) = (tries.clone(), clock.clone());
    let pipeline = task::from_iter([()]).on_error(policy).manual_clock(&clock);
    let work = move |_: &()| {
        let mut begun = begun.lock().unwrap();
        begun.push(inside.elapsed());
        Err::<(), _>(format!("attempt {}", begun.len()))
    };
    let task = pipeline.try_map(work).start().unwrap();
    let tried = || tries.lock().unwrap().len();
    for attempts in 2..=3 {
        until("it has tried once more", || {
            clock.advance(HOUR / 10);
            tried() >= attempts
        });
    }
    task.cancel();
    let summary = over(task);
    assert_eq!((summary.outcome, summary.failed, summary.retries), (TaskOutcome::Cancelled, 1, 2));
    assert_eq!((summary.first_error.as_deref(), tried()), (Some("attempt 3"), 3));
    let tries = tries.lock().unwrap();
    assert!(tries.windows(2).all(|pair| pair[1] - pair[0] >= HOUR), "{tries:?}");
}

#[test]
fn results_are_gathered_in_every_way() {
    let squares = || task::from_iter(0..6_u64).map(|number| number * number);
    assert_eq!(squares().run().unwrap().results, 6);
    assert_eq!(squares().gather(Gather::count()).run().unwrap().results, 6);
    assert_eq!(squares().gather(Gather::list()).run().unwrap().results, [0, 1, 4, 9, 16, 25]);
    assert_eq!(squares().gather(Gather::last(2)).run().unwrap().results, [16, 25]);
    assert!(squares().gather(Gather::last(0)).run().unwrap().results.is_empty());
    assert_eq!(squares().gather(Gather::fold(1, |sum, square| *sum += square)).run().unwrap().results, 56);
    let by_parity = squares().gather(Gather::by_key(|square| square % 2)).run().unwrap().results;
    assert_eq!((&by_parity[&0][..], &by_parity[&1][..]), (&[0, 4, 16][..], &[1, 9, 25][..]));
    // By the order of sending, although the first of two ends last.
    let (first, last) = mpsc::channel();
    let last = Mutex::new(last);
    let stage = task::from_iter(0..2).strategy(Strategy::Parallel { workers: 2, rate_limit: None });
    let stage = stage.map(move |number| {
        if *number == 0 {
            last.lock().unwrap().recv().unwrap()
        } else {
            first.send(()).unwrap()
        };
        *number
    });
    assert_eq!(end(stage.gather(Gather::ordered()).start().unwrap()).results, [0, 1]);
}

#[test]
fn every_item_is_reported_with_its_place_times_and_fate_and_then_the_end() {
    hush();
    let mut ids = Vec::new();
    for (strategy, _) in strategies() {
        let work = |number: &u64| match number % 5 {
            3 => Err("three"),
            4 => panic!("on purpose"),
            _ => Ok(number * 2),
        };
        let stage = task::from_iter(0..50).strategy(strategy).capacity(3).try_map(work);
        let results = stage.items().unwrap();
        let mut items: Vec<_> = results.iter().collect();
        let task = results.into_task();
        ids.push(task.id());
        assert!(items.iter().all(|item| item.task == task.id()), "{strategy:?}");
        let end = items.pop().unwrap();
        let summary = over(task);
        assert_eq!((end.id, end.items, &end.kind), (50, 0, &ItemKind::Final(summary)), "{strategy:?}");
        items.sort_by_key(|item| item.id);
        assert!(items.iter().map(|item| item.id).eq(0..50), "{strategy:?}: each once");
        for item in items {
            let expected = match item.id % 5 {
                3 => ItemKind::Continue("three".to_owned()),
                4 => ItemKind::Continue("the handler panicked: on purpose".to_owned()),
                _ => ItemKind::Data(item.id * 2),
            };
            assert_eq!((item.items, item.kind), (1, expected));
            let started = item.started.unwrap();
            assert!(item.created <= started && started <= item.completed && item.completed <= end.completed);
        }
    }
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
}

#[test]
fn items_that_stop_a_task_or_are_stopped_by_it_are_reported_as_such() {
    for (strategy, workers) in strategies() {
        let ledger = Ledger::default();
        let (sender, pipeline) = task::channel(9);
        (0..9).for_each(|number| sender.send(ledger.item(number)).unwrap());
        let work = |item: &Item| if item.number < 1 { Err("none") } else { Ok(item.number) };
        let pipeline = pipeline.strategy(strategy).on_error(ErrorPolicy::StopOnFirst);
        let gather = Gather::by_key(|item: &task::Item<u64>| item.kind.as_str());
        let end = end(pipeline.try_map(work).gather_items(gather).start().unwrap());
        let count = |kind| end.results.get(kind).map_or(0, Vec::len) as u64;
        let Summary { handled, failed, cancelled, .. } = end.summary;
        assert_eq!((count("data"), count("error"), count("cancelled")), (handled, failed, cancelled));
        assert_eq!((failed, count("final"), count("continue")), (1, 1, 0), "{strategy:?}");
        assert!(cancelled >= 1 || workers > 1, "{strategy:?}");
        let all = end.results.into_values().flatten();
        let mut ids: Vec<_> = all.filter(|item| item.items == 1).map(|item| item.id).collect();
        ids.sort_unstable();
        assert!(ids.into_iter().eq(0..9), "{strategy:?}");
        assert_eq!(ledger.counts(), (9, 9));
    }
}

#[test]
fn items_have_their_times_from_the_clock_of_the_task() {
    let (clock, gate) = (ManualClock::new(), Gate::closed());
    let (sender, pipeline) = task::channel(4);
    let strategy = Strategy::Batched { size: 2, max_delay: HOUR };
    let behind = gate.clone();
    let work = move |items: &[u64]| {
        behind.pass();
        Ok::<_, TaskError>(items.iter().sum::<u64>())
    };
    let stage = pipeline.strategy(strategy).manual_clock(&clock).map_batch(work);
    let task = stage.gather_items(Gather::list()).start().unwrap();
    clock.advance(HOUR);
    sender.send(1).unwrap();
    clock.advance(HOUR / 2);
    sender.send(2).unwrap();
    gate.await_arrivals(1);
    clock.advance(HOUR * 2);
    gate.open();
    drop(sender);
    let items = end(task).results;
    let (batch, last) = (&items[0], &items[1]);
    let since = |time: std::time::SystemTime| time.duration_since(last.created).unwrap();
    assert_eq!((batch.id, batch.items, &batch.kind), (0, 2, &ItemKind::Data(3)));
    let times = [batch.created, batch.started.unwrap(), batch.completed].map(since);
    assert_eq!(times, [HOUR, HOUR * 3 / 2, HOUR * 7 / 2]);
    assert_eq!(since(last.completed), HOUR * 7 / 2);
}

#[test]
fn an_interval_goes_by_the_clock_and_leaves_out_what_is_missed() {
    let clock = ManualClock::new();
    let pipeline = task::interval(HOUR).take(4).manual_clock(&clock);
    let ticks = pipeline.map(|tick| *tick).results().unwrap();
    assert_eq!(ticks.recv(), Some(0));
    for tick in 1..3 {
        assert_eq!(ticks.task().summary().sent, tick);
        clock.advance(HOUR);
        assert_eq!(ticks.recv(), Some(tick));
    }
    clock.advance(HOUR * 5);
    assert_eq!((ticks.recv(), ticks.recv()), (Some(7), None));
    assert_eq!(over(ticks.into_task()).outcome, TaskOutcome::Completed);
    let endless = task::interval(HOUR).manual_clock(&clock).map(|_| ()).start().unwrap();
    until("the first tick is handled", || endless.summary().handled == 1);
    endless.cancel();
    assert_eq!(over(endless).outcome, TaskOutcome::Cancelled);
}

#[test]
fn receivers_and_subscriptions_are_sources() {
    let (sender, receiver) = mpsc::channel();
    let task = task::from_mpsc(receiver).map(|number: &u64| *number).gather(Gather::list()).start().unwrap();
    (0..3).for_each(|number| sender.send(number).unwrap());
    drop(sender);
    assert_eq!(end(task).results, [0, 1, 2]);

    let subscribed =
        |collector: &Collector, name: &str| task::from_subscription(collector.subscribe(name).unwrap());
    // Its source sleeps, and is woken by the cancel: then its subscription is gone with the next batch.
    events_are_a_source(subscribed, |collector| {
        collector.collect(Record::new("other"));
        let _ = collector.flush().unwrap();
        collector.sinks().len() == 1
    });
}

#[test]
fn a_subscription_that_is_a_channel_is_a_source() {
    let subscribed =
        |collector: &Collector, name: &str| task::from_events(collector.subscribe_channel(name, 10).unwrap());
    events_are_a_source(subscribed, |collector| collector.sinks().len() == 1);
}

/// Checks a source of a collector's events: one task takes three, and a cancel ends one that waits for ever.
fn events_are_a_source(
    source: impl Fn(&Collector, &str) -> task::Pipeline<Record>,
    is_gone: impl Fn(&Collector) -> bool,
) {
    let collector = Collector::builder().start().unwrap();
    let steps = |name| source(&collector, name).map(Record::step).gather(Gather::list()).start().unwrap();
    let (all, endless) = (steps("train.*"), steps("other"));
    (0..3).for_each(|step| _ = collector.collect(Record::scalar("train.loss", 0.5).with_step(step)));
    let _ = collector.flush().unwrap();
    assert_eq!(collector.sinks().len(), 2);
    endless.cancel();
    assert_eq!(end(endless).summary.outcome, TaskOutcome::Cancelled);
    until("its subscription is gone", || is_gone(&collector));
    let stats = collector.stop().unwrap().stats;
    stats.check_law(stats.offered).unwrap();
    drop(collector);
    assert_eq!(end(all).results, [Some(0), Some(1), Some(2)]);
}

#[test]
fn a_receiver_is_a_source_under_every_strategy_until_its_senders_are_gone() {
    for (strategy, _) in strategies() {
        let (ledger, (sender, receiver)) = (Ledger::default(), crossbeam_channel::bounded(3));
        let pipeline = task::from_receiver(receiver).capacity(2).strategy(strategy);
        let task = pipeline.map(|item: &Item| item.number).gather(Gather::ordered()).start().unwrap();
        for item in ledger.items(200) {
            sender.send(item).unwrap();
        }
        assert!(!task.is_over(), "{strategy:?}: a sender is there");
        drop(sender);
        let end = end(task);
        assert!(end.results.into_iter().eq(0..200), "{strategy:?}");
        assert_eq!((end.summary.outcome, end.summary.handled), (TaskOutcome::Completed, 200));
        assert_eq!(ledger.counts(), (200, 200), "{strategy:?}");
    }
}

#[test]
fn a_cancel_wakes_a_source_that_waits_for_a_receiver() {
    for (strategy, _) in strategies() {
        let ((collector, memory), token) = (observed(), CancelToken::new());
        let (sender, receiver) = crossbeam_channel::unbounded::<u64>();
        let pipeline = task::from_receiver(receiver).strategy(strategy).cancel_token(&token);
        let task = pipeline.report_to(&collector, "test.task.finished").map(|_| ()).start().unwrap();
        sender.send(0).unwrap();
        until("the item is handled", || task.summary().handled == 1);
        token.cancel();
        // The sender lives, and the task took the receiver with it: the source has let go of it before the end.
        let summary = over(task);
        assert_eq!((summary.outcome, summary.sent, summary.handled), (TaskOutcome::Cancelled, 1, 1));
        assert!(sender.send(1).is_err(), "{strategy:?}: the receiver is gone");
        assert_eq!(final_event(&collector, &memory), ("cancelled".to_owned(), [1, 1, 0, 0, 0]));
    }
}

#[test]
fn a_failure_that_stops_the_task_wakes_a_source_that_waits_for_a_receiver() {
    let (sender, receiver) = crossbeam_channel::unbounded();
    let pipeline = task::from_receiver(receiver).on_error(ErrorPolicy::StopOnFirst);
    let task = pipeline.try_map(|_: &u64| Err::<(), _>("no")).start().unwrap();
    sender.send(0).unwrap();
    let summary = over(task);
    assert_eq!((summary.outcome, summary.sent, summary.failed), (TaskOutcome::Failed, 1, 1));
    assert!(sender.send(1).is_err(), "the receiver is gone");
}

#[test]
fn what_a_cancelled_task_has_not_received_stays_for_other_receivers() {
    for (strategy, _) in strategies() {
        let (ledger, gate) = (Ledger::default(), Gate::closed());
        let (sender, receiver) = crossbeam_channel::unbounded();
        ledger.items(100).for_each(|item| sender.send(item).unwrap());
        let inside = gate.clone();
        let pipeline = task::from_receiver(receiver.clone()).capacity(2).strategy(strategy);
        let task = pipeline.map(move |_: &Item| inside.pass()).start().unwrap();
        gate.await_arrivals(1);
        task.cancel();
        gate.open();
        let summary = over(task);
        assert_eq!(summary.outcome, TaskOutcome::Cancelled);
        let rest: Vec<u64> = receiver.try_iter().map(|item| item.number).collect();
        // But for one at most, which was received and came too late.
        let missing = 100 - summary.sent - rest.len() as u64;
        assert!(missing <= 1, "{strategy:?}: {missing} of {summary:?}");
        assert!(rest.into_iter().eq(summary.sent + missing..100), "{strategy:?}");
        assert_eq!(ledger.counts(), (100, 100), "{strategy:?}");
    }
}

#[test]
fn a_cancelled_task_ends_although_its_standard_receiver_waits_for_an_item() {
    let (sender, receiver) = mpsc::channel();
    let task = task::from_mpsc(receiver).map(|_: &Item| ()).start().unwrap();
    let ledger = Ledger::default();
    sender.send(ledger.item(0)).unwrap();
    until("the item is handled", || task.summary().handled == 1);
    task.cancel();
    let summary = over(task);
    assert_eq!((summary.outcome, summary.sent, summary.handled), (TaskOutcome::Cancelled, 1, 1));
    // One more item ends the thread of the source, and is dropped.
    sender.send(ledger.item(1)).unwrap();
    until("the receiver is gone", || match sender.send(ledger.item(2)) {
        Ok(()) => false,
        Err(refused) => refused.0.number == 2,
    });
    ledger.balances();
}

#[test]
fn a_token_cancels_its_children_and_not_its_parent() {
    let root = CancelToken::new();
    let (left, right) = (root.child(), root.child());
    let leaf = left.child();
    left.cancel();
    left.cancel();
    assert!(left.is_cancelled() && leaf.is_cancelled() && !root.is_cancelled() && !right.is_cancelled());
    root.cancel();
    assert!(right.is_cancelled() && right.child().is_cancelled());
}

#[test]
fn a_summary_shows_the_law_and_when_it_is_broken() {
    let mut summary = task::from_iter(0..3).map(|_| ()).run().unwrap().summary;
    assert_eq!(summary.to_string(), "completed: 3 sent = 3 handled + 0 failed + 0 cancelled + 0 left");
    assert!(summary.check_law(3).is_ok() && summary.check_law(4).is_err());
    summary.failed = 1;
    assert!(summary.check_law(3).is_err());
}

mod with_futures {
    use super::*;
    use futures::StreamExt;
    use futures::executor::block_on;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Wake};

    struct WakeCounter(AtomicUsize);

    impl Wake for WakeCounter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_task_is_a_future_that_is_woken_once_at_its_end() {
        for (strategy, _) in strategies() {
            let (gate, counter) = (Gate::closed(), Arc::new(WakeCounter(AtomicUsize::new(0))));
            let behind = gate.clone();
            let stage = task::from_iter(0..5).strategy(strategy).map(move |_| behind.pass());
            let mut task = pin!(stage.start().unwrap());
            let left = Arc::new(WakeCounter(AtomicUsize::new(0)));
            assert!(task.as_mut().poll(&mut Context::from_waker(&left.clone().into())).is_pending());
            let waker = counter.clone().into();
            let mut cx = Context::from_waker(&waker);
            assert!(task.as_mut().poll(&mut cx).is_pending() && task.as_mut().poll(&mut cx).is_pending());
            gate.await_arrivals(1);
            assert_eq!(counter.0.load(Ordering::SeqCst), 0);
            gate.open();
            until("it is woken", || counter.0.load(Ordering::SeqCst) == 1);
            let Poll::Ready(end) = task.as_mut().poll(&mut cx) else { panic!("it was woken too early") };
            assert_eq!(end.results, 5);
            assert!(task.as_mut().poll(&mut cx).is_pending(), "polled again after its end");
            assert_eq!(left.0.load(Ordering::SeqCst), 0, "whoever polled last is woken");
        }
    }

    #[test]
    fn results_are_a_stream() {
        for (strategy, _) in strategies() {
            let stage = task::from_iter(0..100_u64).capacity(2).strategy(strategy).map(|number| *number);
            let mut numbers: Vec<_> = block_on(stage.results().unwrap().collect());
            numbers.sort_unstable();
            assert!(numbers.into_iter().eq(0..100), "{strategy:?}");
            let end = block_on(task::from_iter(0..100_u64).strategy(strategy).map(|_| ()).start().unwrap());
            assert_eq!(end.results, 100);
        }
    }

    #[test]
    fn the_drop_of_a_waker_may_wait_for_the_next_result() {
        let (gate, calls) = (Gate::closed(), Arc::new(AtomicUsize::new(0)));
        let (behind, counter) = (gate.clone(), Arc::clone(&calls));
        let stage = task::from_iter(0..2).strategy(Strategy::Serial).map(move |number| {
            behind.pass();
            counter.fetch_add(1, Ordering::SeqCst);
            *number
        });
        let mut results = stage.results().unwrap();
        // The second call begins once the result of the first one is in the queue.
        let wait = move || {
            gate.open();
            until("a result is queued", || calls.load(Ordering::SeqCst) == 2);
        };
        let waker = waker_on_drop(wait);
        assert!(results.poll_next_unpin(&mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        assert!(results.poll_next_unpin(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(block_on(results.collect::<Vec<_>>()), [0, 1]);
    }
}

// ---- edges ----

#[test]
fn a_token_reaches_a_task_whose_handles_and_links_were_let_go() {
    for is_detached in [true, false] {
        let program = CancelToken::new();
        let (collector, memory) = observed();
        let pipeline = task::interval(Duration::from_micros(100)).report_to(&collector, "test.task.finished");
        // The token between is gone at once.
        let task = pipeline.cancel_token(&program.child().child()).map(|_| ()).start().unwrap();
        let task = if is_detached {
            task.detach();
            None
        } else {
            Some(task)
        };
        program.cancel();
        until("it has ended", || {
            let _ = collector.flush().unwrap();
            memory.len() == 1
        });
        assert_eq!(final_event(&collector, &memory).0, "cancelled");
        assert!(task.is_none_or(|task| over(task).outcome == TaskOutcome::Cancelled));
    }
}

/// Panics at its end.
struct Bad;

impl Drop for Bad {
    fn drop(&mut self) {
        panic!("on purpose");
    }
}

#[test]
fn a_destructor_that_panics_in_what_gathers_costs_no_result() {
    hush();
    let bad = Bad;
    let add = move |sum: &mut u64, number: u64| {
        let _captured = &bad;
        *sum += number;
    };
    let task = task::from_iter(0..5u64).map(|number| *number).gather(Gather::fold(0, add)).start().unwrap();
    assert_eq!(end(task).results, 10);
}

#[test]
fn more_space_wakes_who_waits_for_it() {
    let (sender, pipeline) = task::channel(1);
    sender.send(0).unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| sender.send_timeout(1, LONG));
        let hourly = Strategy::Batched { size: 2, max_delay: HOUR };
        let task =
            pipeline.capacity(100).strategy(hourly).take(2).map(|number: &i32| *number).start().unwrap();
        waits.join().unwrap().unwrap();
        assert_eq!(over(task).handled, 2);
    });
}

#[test]
fn what_waited_before_the_start_goes_by_the_clock_of_the_task() {
    let clock = ManualClock::new();
    // By this clock the item below is not due when the task starts; by that of the system it is, for hours.
    clock.advance(2 * HOUR);
    let (sender, pipeline) = task::channel(10);
    sender.send(1).unwrap();
    let late = Strategy::Batched { size: 3, max_delay: HOUR };
    let pipeline = pipeline.manual_clock(&clock).strategy(late);
    let stage = pipeline.map_batch(|items: &[i32]| Ok::<_, TaskError>(items.len())).gather(Gather::list());
    let task = stage.start().unwrap();
    (0..1000).for_each(|_| std::thread::yield_now());
    sender.send(2).unwrap();
    sender.send(3).unwrap();
    until("the batch is full", || task.summary().handled == 3);
    sender.send(4).unwrap();
    until("the batch is due", || {
        clock.advance(HOUR);
        task.summary().handled == 4
    });
    drop(sender);
    assert_eq!(end(task).results, [3, 1]);
}

#[test]
fn an_end_that_was_polled_is_not_waited_for_in_vain() {
    use std::future::Future;
    use std::task::{Context, Poll, Waker};
    let mut task = task::from_iter(0..3).map(|_| ()).start().unwrap();
    until("it is over", || task.is_over());
    let polled = std::pin::Pin::new(&mut task).poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(polled, Poll::Ready(_)));
    let task = task.wait_timeout(LONG).unwrap_err();
    assert!(matches!(task.wait(), Err(TaskError::Taken)), "at once");
}

/// Stands at a gate while it is dropped.
struct Slow(Gate);

impl std::fmt::Debug for Slow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Slow")
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.0.pass();
    }
}

/// Opens a gate at its end, so that the threads of a scope end although an assertion failed.
struct Opens<'a>(&'a Gate);

impl Drop for Opens<'_> {
    fn drop(&mut self) {
        self.0.open();
    }
}

#[test]
fn what_handler_and_policy_captured_is_gone_before_the_end_is_reported() {
    for (strategy, _) in strategies() {
        let gates = [Gate::closed(), Gate::closed()];
        let [handler, policy] = gates.clone().map(Slow);
        let (collector, memory) = observed();
        let policy = ErrorPolicy::custom(move |_, _| {
            let _captured = &policy;
            Decision::Continue
        });
        let pipeline = task::from_iter(0..9).strategy(strategy).on_error(policy);
        let stage = pipeline.report_to(&collector, "test.task.finished").map(move |_| {
            let _captured = &handler;
        });
        let task = stage.start().unwrap();
        for gate in gates {
            gate.await_arrivals(1);
            assert!(!task.is_over(), "{strategy:?}");
            gate.open();
        }
        assert_eq!(over(task).handled, 9);
        assert_eq!(final_event(&collector, &memory).0, "completed");
    }
}

#[test]
fn a_task_that_its_handler_captured_is_over_when_it_is_dropped() {
    let (collector, memory) = observed();
    let own: Arc<Mutex<Option<Task<u64>>>> = Arc::default();
    let (sender, pipeline) = task::channel(1);
    let inside = own.clone();
    let stage = pipeline.report_to(&collector, "test.task.finished").map(move |_: &()| drop(inside.clone()));
    *own.lock().unwrap() = Some(stage.start().unwrap());
    sender.send(()).unwrap();
    drop((own, sender));
    assert!(memory.wait_for(1, LONG));
    assert_eq!(final_event(&collector, &memory), ("completed".to_owned(), [1, 1, 0, 0, 0]));
}

/// Returns a source of the numbers from 0 whose destructor stands at a gate.
fn gated_source(gate: &Gate) -> impl FnMut() -> Option<u64> + Send + 'static {
    let (slow, mut next) = (Slow(gate.clone()), 0..);
    move || {
        let _captured = &slow;
        next.next()
    }
}

#[test]
fn what_the_source_captured_is_gone_before_the_end_is_reported() {
    hush();
    type Start = fn(task::Pipeline<u64>) -> Task<u64>;
    let ends: [(TaskOutcome, Start); 4] = [
        (TaskOutcome::Completed, |pipeline| pipeline.take(3).map(|_| ()).start().unwrap()),
        (TaskOutcome::Failed, |pipeline| {
            let pipeline = pipeline.on_error(ErrorPolicy::StopOnFirst);
            pipeline.try_map(|number| if *number == 2 { Err("two") } else { Ok(()) }).start().unwrap()
        }),
        (TaskOutcome::Cancelled, |pipeline| {
            let task = pipeline.map(|_| ()).start().unwrap();
            until("it is under way", || task.summary().handled > 9);
            task.cancel();
            task
        }),
        (TaskOutcome::Cancelled, |pipeline| {
            let token = CancelToken::new();
            token.cancel();
            pipeline.cancel_token(&token).map(|_| ()).start().unwrap()
        }),
    ];
    for (outcome, start) in ends {
        let gate = Gate::closed();
        let mut task = start(task::from_fn(gated_source(&gate)));
        gate.await_arrivals(1);
        assert!(!task.is_over(), "{outcome:?}");
        let polled = std::pin::Pin::new(&mut task).poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending(), "{outcome:?}");
        gate.open();
        assert_eq!(over(task).outcome, outcome);
    }
    // A source that ends by itself, and one that panics.
    for panics in [false, true] {
        let (gate, mut left) = (Gate::closed(), 3);
        let slow = Slow(gate.clone());
        let source = move || {
            let _captured = &slow;
            assert!(!panics, "the source panics");
            left -= 1;
            (left >= 0).then_some(left)
        };
        let task = task::from_fn(source).map(|_| ()).start().unwrap();
        gate.await_arrivals(1);
        assert!(!task.is_over());
        gate.open();
        over(task);
    }
}

#[test]
fn the_last_result_comes_before_and_the_end_behind_the_drop_of_the_source() {
    let gate = Gate::closed();
    let results = task::from_fn(gated_source(&gate)).take(2).map(|number| *number).results().unwrap();
    assert_eq!((results.recv(), results.recv()), (Some(0), Some(1)));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| results.recv());
        let opens = Opens(&gate);
        gate.await_arrivals(1);
        until("its handlers are done", || results.task().summary().outcome == TaskOutcome::Completed);
        // Time for an end that came too early.
        (0..100).for_each(|_| std::thread::yield_now());
        assert!(!reader.is_finished());
        drop(opens);
        assert_eq!(reader.join().unwrap(), None);
    });
    assert_eq!(over(results.into_task()).handled, 2);
}

#[test]
fn a_source_that_blocks_holds_up_no_cancel() {
    let gate = Gate::closed();
    let inside = gate.clone();
    let source = move || {
        inside.pass();
        None::<u64>
    };
    let task = task::from_fn(source).map(|_| ()).start().unwrap();
    gate.await_arrivals(1);
    task.cancel();
    assert_eq!(over(task).outcome, TaskOutcome::Cancelled);
    gate.open();
}

/// An iterator whose destructor waits for its producer, and the producer for room in the channel that the iterator has.
struct Producer(std::sync::mpsc::Receiver<u64>, Gate);

impl Iterator for Producer {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.0.recv().ok()
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.1.pass();
    }
}

/// Runs it on a thread of its own; opens the gate when it has ended, or did not end soon.
#[track_caller]
fn ends_beside_a_destructor_that_blocks(gate: &Gate, run: impl FnOnce() -> TaskOutcome + Send) {
    std::thread::scope(|scope| {
        let runs = scope.spawn(run);
        let opens = Opens(gate);
        gate.await_arrivals(1);
        until_timeout(SOON, "the end is reported", || runs.is_finished());
        drop(opens);
        assert_eq!(runs.join().unwrap(), TaskOutcome::Completed);
    });
}

#[test]
fn a_source_whose_destructor_blocks_for_ever_holds_up_no_end() {
    let gate = Gate::closed();
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    let producer = std::thread::spawn(move || while sender.send(1).is_ok() {});
    let source = Producer(receiver, gate.clone());
    ends_beside_a_destructor_that_blocks(&gate, move || {
        let end = task::from_iter(source).take(3).map(|number| *number).run().unwrap();
        assert_eq!(end.summary.handled, 3);
        end.summary.outcome
    });
    producer.join().unwrap();

    let gate = Gate::closed();
    let task = task::from_fn(gated_source(&gate)).take(2).map(|_| ()).start().unwrap();
    ends_beside_a_destructor_that_blocks(&gate, move || task.wait().unwrap().summary.outcome);
}

#[test]
fn an_item_that_is_refused_and_whose_destructor_blocks_holds_up_no_end() {
    let (asked, gate) = (Gate::closed(), Gate::closed());
    let (inside, item) = (asked.clone(), gate.clone());
    let source = move || {
        inside.pass();
        Some(Slow(item.clone()))
    };
    let task = task::from_fn(source).map(|_| ()).start().unwrap();
    asked.await_arrivals(1);
    std::thread::scope(|scope| {
        let ends = [Opens(&asked), Opens(&gate)];
        task.cancel();
        asked.open();
        gate.await_arrivals(1);
        let waits = scope.spawn(|| task.wait().unwrap().summary.outcome);
        until_timeout(SOON, "the end is reported", || waits.is_finished());
        drop(ends);
        assert_eq!(waits.join().unwrap(), TaskOutcome::Cancelled);
    });
}

#[test]
fn the_drop_of_a_task_waits_for_no_destructor() {
    let (hung, slow) = (Gate::closed(), Gate::closed());
    let (behind, (sender, pipeline)) = (hung.clone(), task::channel(2));
    let (collector, memory) = observed();
    let pipeline = pipeline.drop_timeout(Duration::ZERO).report_to(&collector, "test.task.finished");
    let task = pipeline.map(move |_: &Option<Slow>| behind.pass()).start().unwrap();
    sender.send(None).unwrap();
    hung.await_arrivals(1);
    sender.send(Some(Slow(slow.clone()))).unwrap();
    std::thread::scope(|scope| {
        let drops = scope.spawn(|| drop(task));
        let opens = Opens(&slow);
        until_timeout(SOON, "the drop returns", || drops.is_finished());
        slow.await_arrivals(1);
        drop(opens);
    });
    assert_eq!(final_event(&collector, &memory), ("cancelled".to_owned(), [2, 0, 0, 1, 1]));
    hung.open();
}

/// Says so much that nobody can keep it.
#[derive(Debug)]
struct Talkative;

impl std::fmt::Display for Talkative {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (0..1 << 22).try_for_each(|_| f.write_str("ä lot, "))
    }
}

impl std::error::Error for Talkative {}

#[test]
fn the_text_of_an_error_is_bounded() {
    hush();
    let summary = over(task::from_iter([0]).try_map(|_| Err::<(), _>(Talkative)).start().unwrap());
    let text = summary.first_error.unwrap();
    assert!(text.starts_with("ä lot, ä lot") && text.ends_with('…') && text.len() <= 1_003, "{}", text.len());
    let panics = |_: &u64| -> u64 { std::panic::panic_any("x".repeat(10_000_000)) };
    let text = over(task::from_iter([0]).map(panics).start().unwrap()).first_error.unwrap();
    assert!(text.starts_with("the handler panicked: xxx") && text.len() <= 1_003, "{}", text.len());
    let broken = || -> Option<u64> { std::panic::panic_any("x".repeat(10_000_000)) };
    let text = over(task::from_fn(broken).map(|_| ()).start().unwrap()).first_error.unwrap();
    assert!(text.starts_with("the source panicked: xxx") && text.len() <= 1_003, "{}", text.len());
}

#[test]
fn a_handler_that_waits_for_its_own_task_is_refused_at_once() {
    let (sender, pipeline) = task::channel(4);
    let (handle, refused) = (Arc::new(Mutex::new(None::<Task<u64>>)), Arc::new(Mutex::new(None)));
    let (own, answer) = (Arc::clone(&handle), Arc::clone(&refused));
    let stage = pipeline.map(move |_: &u64| {
        let task = own.lock().unwrap().take();
        *answer.lock().unwrap() = task.map(|task| task.wait().unwrap_err().to_string());
    });
    *handle.lock().unwrap() = Some(stage.gather(Gather::count()).start().unwrap());
    sender.send(1).unwrap();
    until("the handler has asked", || refused.lock().unwrap().is_some());
    let said = "called from a handler of the task, which cannot wait for itself";
    assert_eq!(refused.lock().unwrap().as_deref(), Some(said));
    // It was dropped there, and so cancelled.
    until("it is over", || sender.is_closed());
}

/// Hands a task to whoever runs in it, and returns what came of a wait there.
fn asked_inside<O: Send + 'static>(
    start: impl FnOnce(Box<dyn Fn() + Send + Sync>) -> O,
    wait: impl Fn(O) -> &'static str + Send + Sync + 'static,
) -> &'static str {
    let (handle, answer) = (Arc::new(Mutex::new(None::<O>)), Arc::new(Mutex::new(None)));
    let (inside, asked) = (handle.clone(), answer.clone());
    let asks = Box::new(move || {
        until("the task is at hand", || inside.lock().unwrap().is_some() || asked.lock().unwrap().is_some());
        let own = inside.lock().unwrap().take();
        if let Some(own) = own {
            *asked.lock().unwrap() = Some(wait(own));
        }
    });
    *handle.lock().unwrap() = Some(start(asks));
    until("it has asked", || answer.lock().unwrap().is_some());
    answer.lock().unwrap().unwrap()
}

#[test]
fn whoever_runs_in_a_task_is_refused_every_way_to_wait_for_it() {
    // For ever, unless it is refused: nobody else ends the task.
    let timed = |task: Task<u64>| match task.wait_timeout(Duration::MAX) {
        Ok(_) => "over",
        Err(task) => match task.wait() {
            Err(TaskError::Inside) => "refused",
            _ => "waited",
        },
    };
    let in_handler =
        |asks: Box<dyn Fn() + Send + Sync>| task::from_iter([0]).map(move |_| asks()).start().unwrap();
    assert_eq!(asked_inside(in_handler, timed), "refused");
    let in_source = |asks: Box<dyn Fn() + Send + Sync>| {
        let source = move || {
            asks();
            None::<u64>
        };
        task::from_fn(source).map(|_| ()).start().unwrap()
    };
    assert_eq!(asked_inside(in_source, timed), "refused");
    let in_policy = |asks: Box<dyn Fn() + Send + Sync>| {
        let policy = ErrorPolicy::custom(move |_, _| {
            asks();
            Decision::Continue
        });
        task::from_iter([0]).on_error(policy).try_map(|_| Err::<(), _>("no")).start().unwrap()
    };
    assert_eq!(asked_inside(in_policy, timed), "refused");
    let in_gathering = |asks: Box<dyn Fn() + Send + Sync>| {
        let gather = Gather::fold(0, move |_, _: ()| asks());
        task::from_iter([0]).map(|_| ()).gather(gather).start().unwrap()
    };
    assert_eq!(asked_inside(in_gathering, timed), "refused");
    let read = |results: task::Results<()>| match (results.recv(), results.iter().next()) {
        (None, None) => "refused",
        _ => "read",
    };
    let results =
        |asks: Box<dyn Fn() + Send + Sync>| task::from_iter([0, 1]).map(move |_| asks()).results().unwrap();
    assert_eq!(asked_inside(results, read), "refused");
}

#[test]
fn a_sink_of_an_inline_bus_that_sends_into_the_task_that_it_runs_in_does_not_wait_for_itself() {
    let (sender, pipeline) = task::channel(1);
    let (own, answer) = (sender.clone(), Arc::new(Mutex::new(Vec::new())));
    let kept = Arc::clone(&answer);
    let sends = from_fn("sends", move |_: &Batch<Envelope>| {
        let sent = [7, 8].map(|number| own.send(number).map_err(|refused| refused.reason));
        kept.lock().unwrap().extend(sent);
        Ok(())
    });
    let bus = Bus::builder().inline().sink(sends).start().unwrap();
    let emitter = bus.emitter();
    let handler = move |number: &u64| _ = (*number == 0).then(|| emitter.emit("a.b", ()).unwrap());
    let task = pipeline.take(3).map(handler).gather(Gather::count()).start().unwrap();
    sender.send(0).unwrap();
    until("the sink has sent", || answer.lock().unwrap().len() == 2);
    assert_eq!(
        *answer.lock().unwrap(),
        [Ok(()), Err(SendRefusal::Full)],
        "room is made by this thread alone"
    );
    sender.send(1).unwrap();
    assert_eq!(over(task).handled, 3);
    bus.stop().unwrap().stats.check_law(1).unwrap();
}

#[test]
fn tasks_with_the_largest_and_the_smallest_numbers() {
    for large in [1, usize::MAX] {
        for long in [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(u64::MAX), Duration::MAX] {
            let clock = ManualClock::new();
            clock.advance(Duration::MAX);
            let strategies = [
                Strategy::Parallel { workers: 2, rate_limit: Some(large as u32) },
                Strategy::Batched { size: large, max_delay: long },
                Strategy::Adaptive { min: 1, max: 2, window: long.max(Duration::from_nanos(1)) },
            ];
            for strategy in strategies {
                let report = task::from_iter(0..3_u64)
                    .capacity(large)
                    .take(large as u64)
                    .strategy(strategy)
                    .on_error(ErrorPolicy::Retry(large as u32))
                    .drop_timeout(long)
                    .map(|item| item.saturating_add(1))
                    .run()
                    .unwrap();
                assert_eq!(report.summary.handled, (large as u64).min(3), "{strategy:?}");
            }
            let ticks = task::interval(long.max(Duration::from_nanos(1)));
            let task = ticks
                .manual_clock(&clock)
                .debounce(long.max(Duration::from_nanos(1)))
                .take(1)
                .map(|_| ())
                .start()
                .unwrap();
            clock.advance(Duration::MAX);
            task.cancel();
            drop(task);
        }
    }
}

#[test]
fn a_summary_escapes_its_first_error() {
    let end = task::from_iter([1]).try_map(|_| Err::<i32, _>(EVIL)).run().unwrap();
    is_harmless(&end.summary.to_string(), 1);
}

#[test]
fn a_task_reports_to_the_collector_of_a_bus() {
    let bus = Bus::new().unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    let handler = move |event: &forebay_bus::Delivery| sender.send(Record::clone(event));
    bus.on("test.task.finished", handler).unwrap().keep();
    let stage =
        task::from_iter(0..3).report_to(bus.collector(), "test.task.finished").map(|item: &i32| *item);
    stage.run().unwrap().summary.check_law(3).unwrap();
    let record = receiver.recv_timeout(LONG).unwrap();
    let handled = record.value().as_fields().and_then(|fields| fields.get("handled")?.as_i64());
    assert_eq!(handled, Some(3));
}
