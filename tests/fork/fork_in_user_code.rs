//! P9, where the fork happens inside user code that forebay calls: what is called on a thread of forebay forks and returns on
//! both sides. In the child, the copy of that thread ends at once, and the process with it: nothing is written, dropped or
//! called a second time. The parent does not notice.
#![allow(unsafe_code, reason = "fork and waitpid")]

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::child::{Forker, leave_if_child};
use crate::support::*;
use forebay::sink::{
    BreakerPolicy, ConsoleSink, DeadLetters, Hook, JsonLinesSink, MemorySink, RetryPolicy, Sink, SinkError,
    SinkExt, from_fn,
};
use forebay::{Batch, Builder, Collector, Event, FlushStrategy, Outcome, Record};

/// A sink that must neither be called nor dropped in the child.
struct Witness(Forker);

impl<E> Sink<E> for Witness {
    fn name(&self) -> &str {
        "witness"
    }

    fn write_batch(&mut self, _: &Batch<E>) -> Result<(), SinkError> {
        self.0.must_not_be_child();
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.0.must_not_be_child();
        Ok(())
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        leave_if_child(&self.0.0, 8);
    }
}

const EVENTS: u64 = 20;

/// Collects some events, stops, and checks that the file has each of them once, in order.
#[track_caller]
fn each_once_in(path: &Path, builder: Builder, forker: &Forker) {
    let collector = builder.start().unwrap();
    for number in 0..EVENTS {
        assert_eq!(collector.collect(Record::integer("parent", number as i64)), Outcome::Queued);
    }
    let _ = collector.flush().unwrap();
    let _ = collector.stop().unwrap();
    law(&collector, EVENTS);
    drop(collector);
    forker.child_has_ended();
    let text = std::fs::read_to_string(path).unwrap();
    let records: Vec<Record> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let own: Vec<i64> = records.iter().filter_map(|record| record.value().as_i64()).collect();
    assert_eq!(own, (0..EVENTS as i64).collect::<Vec<_>>(), "every event once");
}

/// Runs the test with one sink that forks, in front of a file and a witness.
#[track_caller]
fn with_sink<S: Sink<Record> + 'static>(sink: impl FnOnce(&Forker, &Path) -> S) {
    let (folder, forker) = (tempfile::tempdir().unwrap(), Forker::default());
    let path = folder.path().join("events.jsonl");
    let builder = Collector::builder()
        .sink(sink(&forker, folder.path()))
        .sink(JsonLinesSink::create(&path).unwrap())
        .sink(Witness(forker.clone()));
    each_once_in(&path, builder, &forker);
}

/// Runs the test where what forks stands in front of the file itself.
#[track_caller]
fn in_front_of_the_file<S: Sink<Record> + 'static>(wrap: impl FnOnce(JsonLinesSink, &Forker) -> S) {
    let (folder, forker) = (tempfile::tempdir().unwrap(), Forker::default());
    let path = folder.path().join("events.jsonl");
    let builder = Collector::builder()
        .sink(wrap(JsonLinesSink::create(&path).unwrap(), &forker))
        .sink(Witness(forker.clone()));
    each_once_in(&path, builder, &forker);
}

/// A sink that forks in the calls that are asked for.
struct ForksIn {
    forker: Forker,
    call: &'static str,
}

impl Sink<Record> for ForksIn {
    fn name(&self) -> &str {
        "forks"
    }

    fn write_batch(&mut self, _: &Batch<Record>) -> Result<(), SinkError> {
        self.fork_in("write");
        self.fork_in("fail");
        if self.call == "fail" { Err(SinkError::unavailable("on purpose")) } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.fork_in("flush");
        Ok(())
    }

    fn hook(&mut self, hook: Hook<'_>) {
        if matches!(hook, Hook::IsOver(_)) {
            self.fork_in("is_over");
        }
    }
}

impl ForksIn {
    fn new(forker: &Forker, call: &'static str) -> Self {
        Self { forker: forker.clone(), call }
    }

    fn fork_in(&self, call: &str) {
        if self.call == call {
            self.forker.fork();
        }
    }
}

impl Drop for ForksIn {
    fn drop(&mut self) {
        leave_if_child(&self.forker.0, 8);
        self.fork_in("drop");
    }
}

#[test]
fn a_sink_that_forks_in_a_write_leaves_the_batch_to_its_parent() {
    alone!();
    with_sink(|forker, _| ForksIn::new(forker, "write"));
}

#[test]
fn a_sink_that_forks_and_fails_leaves_the_batch_to_its_parent() {
    alone!();
    with_sink(|forker, _| ForksIn::new(forker, "fail"));
}

#[test]
fn a_sink_that_forks_and_panics_leaves_the_batch_to_its_parent() {
    alone!();
    with_sink(|forker, _| {
        let forker = forker.clone();
        from_fn("forks", move |_: &Batch<Record>| {
            forker.fork();
            panic!("on purpose")
        })
    });
}

#[test]
fn a_sink_that_forks_in_a_flush_leaves_the_others_to_its_parent() {
    alone!();
    with_sink(|forker, _| ForksIn::new(forker, "flush"));
}

#[test]
fn a_sink_that_forks_when_it_is_asked_whether_it_is_over_leaves_the_rest_to_its_parent() {
    alone!();
    with_sink(|forker, _| ForksIn::new(forker, "is_over"));
}

#[test]
fn a_sink_that_forks_in_its_drop_leaves_the_rest_to_its_parent() {
    alone!();
    let (folder, forker) = (tempfile::tempdir().unwrap(), Forker::default());
    let path = folder.path().join("events.jsonl");
    let collector = Collector::builder()
        .sink(ForksIn::new(&forker, "drop"))
        .sink(JsonLinesSink::create(&path).unwrap())
        .sink(Witness(forker.clone()))
        .start()
        .unwrap();
    collector.collect(Record::integer("parent", 0));
    // The worker drops it.
    collector.remove_sink("forks").unwrap();
    collector.collect(Record::integer("parent", 1));
    collector.stop().unwrap();
    law(&collector, 2);
    drop(collector);
    forker.child_has_ended();
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
}

#[test]
fn an_isolated_sink_that_forks_ends_its_own_thread_in_the_child() {
    alone!();
    with_sink(|forker, _| ForksIn::new(forker, "write").isolated(8));
    with_sink(|forker, _| ForksIn::new(forker, "flush").isolated(8));
}

#[test]
fn an_isolated_sink_that_forks_in_its_drop_leaves_the_rest_to_its_parent() {
    alone!();
    with_sink(|forker, _| ForksIn::new(forker, "drop").isolated(8));
}

#[test]
fn a_sink_that_forks_and_fails_is_not_tried_again_in_the_child() {
    alone!();
    with_sink(|forker, _| {
        let (forker, mut calls) = (forker.clone(), 0);
        let failing = from_fn("retried", move |_: &Batch<Record>| {
            calls += 1;
            if calls == 1 {
                forker.fork();
                return Err(SinkError::unavailable("on purpose"));
            }
            forker.must_not_be_child();
            Ok(())
        });
        failing.retry(RetryPolicy::fixed(Duration::ZERO, 3))
    });
}

#[test]
fn what_stands_around_a_sink_that_forks_and_fails_does_nothing_in_the_child() {
    alone!();
    with_sink(|forker, _| {
        let breaker = BreakerPolicy::default();
        ForksIn::new(forker, "fail").breaker(breaker).dead_letters(&DeadLetters::new(8)).route("**")
    });
}

#[test]
fn a_filter_that_forks_lets_nothing_through_in_the_child() {
    alone!();
    in_front_of_the_file(|file, forker| {
        let forker = forker.clone();
        file.filter(move |record: &Record| {
            if record.value().as_i64() == Some(3) {
                forker.fork();
            }
            true
        })
    });
}

#[test]
fn a_map_that_forks_hands_nothing_on_in_the_child() {
    alone!();
    in_front_of_the_file(|file, forker| {
        let forker = forker.clone();
        file.map(move |record: &Record| {
            if record.value().as_i64() == Some(EVENTS as i64 - 1) {
                forker.fork();
            }
            record.clone()
        })
    });
}

#[test]
fn a_wrapper_of_somebody_else_that_forks_can_write_nothing_in_the_child() {
    alone!();
    struct Wrapper(JsonLinesSink, Forker);
    impl Sink<Record> for Wrapper {
        fn name(&self) -> &str {
            "wrapper"
        }
        fn write_batch(&mut self, batch: &Batch<Record>) -> Result<(), SinkError> {
            self.1.fork();
            self.0.write_batch(batch)
        }
    }
    in_front_of_the_file(|file, forker| Wrapper(file, forker.clone()));
}

#[test]
fn enrichment_that_forks_completes_nothing_more_in_the_child() {
    alone!();
    let (folder, forker) = (tempfile::tempdir().unwrap(), Forker::default());
    let path = folder.path().join("events.jsonl");
    let own = forker.clone();
    let builder = Collector::builder()
        .enrich(move |record: &mut Record, _| {
            own.must_not_be_child();
            if record.value().as_i64() == Some(2) {
                own.fork();
            }
        })
        .sink(JsonLinesSink::create(&path).unwrap())
        .sink(Witness(forker.clone()));
    each_once_in(&path, builder, &forker);
}

#[test]
#[cfg(feature = "tensorboard")]
fn a_mapping_of_tags_that_forks_writes_nothing_in_the_child() {
    use forebay::sink::{BackwardStep, Tags, TensorBoardSink};
    alone!();
    // In the middle of a record, of which the child would begin a file; and on a thread of the program.
    for on_worker in [true, false] {
        let (folder, forker) = (tempfile::tempdir().unwrap(), Forker::default());
        let own = forker.clone();
        let tags = Tags::mapped(move |name| {
            if name == "second" {
                own.fork();
            }
            name.to_owned()
        });
        let sink = TensorBoardSink::create(folder.path()).unwrap().tags(tags);
        let mut sink = sink.backward_steps(BackwardStep::NewFile);
        let fields = forebay::Fields::new().with("first", 1.0).with("second", 1.0).with("third", 1.0);
        let record = |step| Record::fields("fields", fields.clone()).with_step(step);
        let expect_files = |files| {
            forker.child_has_ended();
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), files);
        };
        if on_worker {
            let collector = Collector::builder().sink(sink).sink(Witness(forker.clone())).start().unwrap();
            [2, 1].into_iter().for_each(|step| _ = collector.collect(record(step)));
            let _ = collector.stop().unwrap();
            assert_eq!(law(&collector, 2).sinks[0].delivered, 2);
            drop(collector);
            expect_files(2);
        } else {
            let written = sink.write_batch(&Batch::from_events(vec![record(2), record(1)]));
            leave_if_child(&forker.0, if written.is_err() { 0 } else { 9 });
            written.unwrap();
            expect_files(2);
        }
    }
}

#[test]
#[cfg(feature = "tensorboard")]
fn a_hook_of_files_that_forks_writes_nothing_in_the_child() {
    use forebay::sink::TensorBoardSink;
    alone!();
    // On the worker, and on a thread of the program.
    for on_worker in [true, false] {
        let (folder, forker) = (tempfile::tempdir().unwrap(), Forker::default());
        let own = forker.clone();
        let mut sink = TensorBoardSink::create(folder.path()).unwrap().on_file(move |path| {
            own.must_not_be_child();
            if path.parent().unwrap().ends_with("second") {
                own.fork();
            }
        });
        // All in one batch, so that two records are left when it forks.
        let records = ["first", "second", "first", "third"]
            .map(|sub_run| Record::scalar("loss", 1.0).with_step(1).with_sub_run(sub_run));
        if on_worker {
            let builder = Collector::builder().flush(FlushStrategy::Manual);
            let collector = builder.sink(sink).sink(Witness(forker.clone())).start().unwrap();
            records.into_iter().for_each(|record| _ = collector.collect(record));
            let _ = collector.stop().unwrap();
            assert_eq!(law(&collector, 4).sinks[0].delivered, 4);
        } else {
            let written = sink.write_batch(&Batch::from_events(records.to_vec()));
            leave_if_child(&forker.0, if written.is_err() { 0 } else { 9 });
            written.unwrap();
        }
        forker.child_has_ended();
        for (sub_run, values) in [("first", 2), ("second", 1), ("third", 1)] {
            let files: Vec<_> = std::fs::read_dir(folder.path().join(sub_run)).unwrap().flatten().collect();
            let bytes = std::fs::read(files[0].path()).unwrap();
            let found = bytes.windows(4).filter(|bytes| bytes == b"loss").count();
            assert_eq!((files.len(), found), (1, values), "{sub_run}");
        }
    }
}

#[test]
fn a_log_hook_that_forks_on_the_worker_leaves_the_batch_to_its_parent() {
    alone!();
    let (folder, forker) = (tempfile::tempdir().unwrap(), Forker::default());
    let path = folder.path().join("events.jsonl");
    let own = forker.clone();
    let builder = Collector::builder()
        .on_log(move |_| own.fork())
        .sink(from_fn("fails", |_: &Batch<Record>| Err(SinkError::unavailable("on purpose"))))
        .sink(JsonLinesSink::create(&path).unwrap())
        .sink(Witness(forker.clone()));
    each_once_in(&path, builder, &forker);
}

/// An event whose code forks, in one of its calls.
#[derive(Clone)]
struct Odd {
    forker: Forker,
    call: &'static str,
}

impl Odd {
    fn fork_in(&self, call: &str) {
        if self.call == call && self.forker.0.load(Ordering::SeqCst) == 0 {
            self.forker.fork();
        }
    }
}

impl Event for Odd {
    fn name(&self) -> &str {
        self.fork_in("name");
        "odd"
    }

    fn size_hint(&self) -> usize {
        self.fork_in("size");
        size_of::<Self>()
    }
}

impl fmt::Display for Odd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fork_in("display");
        f.write_str("odd")
    }
}

impl serde::Serialize for Odd {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.fork_in("serialize");
        serializer.serialize_str("odd")
    }
}

impl Drop for Odd {
    fn drop(&mut self) {
        self.fork_in("drop");
    }
}

/// Collects one event that forks, and others behind it.
#[track_caller]
fn odd(call: &'static str, sink: impl Sink<Odd> + 'static) {
    let forker = Forker::default();
    let collector = Builder::new().sink(sink).sink(Witness(forker.clone())).flush(HOURLY).start().unwrap();
    let quiet = || Odd { forker: forker.clone(), call: "never" };
    collector.collect(Odd { forker: forker.clone(), call });
    (1..EVENTS).for_each(|_| _ = collector.collect(quiet()));
    let _ = collector.flush().unwrap();
    collector.stop().unwrap();
    law(&collector, EVENTS);
    drop(collector);
    forker.child_has_ended();
}

#[test]
fn an_event_that_forks_in_its_destructor_on_the_worker_leaves_the_rest_to_its_parent() {
    alone!();
    odd("drop", from_fn("nobody", |_: &Batch<Odd>| Ok(())));
}

#[test]
fn an_event_that_forks_while_it_is_written_is_not_written_by_the_child() {
    alone!();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    odd("serialize", JsonLinesSink::create(&path).unwrap());
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count() as u64, EVENTS);
    let path = folder.path().join("console");
    odd("display", ConsoleSink::to_writer("x", std::fs::File::create(&path).unwrap()));
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count() as u64, EVENTS);
}

#[test]
fn an_event_that_forks_when_it_is_named_or_measured_goes_no_further_in_the_child() {
    alone!();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    odd("name", JsonLinesSink::create(&path).unwrap().route("odd"));
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count() as u64, EVENTS);
}

#[test]
fn an_event_that_forks_on_the_thread_that_collects_it_is_refused_in_the_child() {
    alone!();
    let (forker, memory) = (Forker::default(), MemorySink::<Odd>::new());
    let collector = Builder::new().sink(memory.clone()).start().unwrap();
    let outcome = collector.collect(Odd { forker: forker.clone(), call: "size" });
    leave_if_child(&forker.0, if outcome == Outcome::Forked { 0 } else { 9 });
    assert_eq!(outcome, Outcome::Queued);
    collector.stop().unwrap();
    law(&collector, 1);
    forker.child_has_ended();
    assert_eq!(memory.len(), 1);
}

#[cfg(feature = "futures")]
#[test]
fn a_waker_that_forks_on_the_worker_leaves_the_rest_to_its_parent() {
    alone!();
    use std::task::{Context, Poll, Wake, Waker};

    struct Forks(Forker);
    impl Wake for Forks {
        fn wake(self: Arc<Self>) {
            if self.0.0.load(Ordering::SeqCst) == 0 {
                self.0.fork();
            }
        }
    }
    let forker = Forker::default();
    let collector = Collector::builder().sink(Witness(forker.clone())).start().unwrap();
    let waker = Waker::from(Arc::new(Forks(forker.clone())));
    let events = collector.subscribe("**").unwrap();
    let mut events = std::pin::pin!(events);
    let polled = futures::Stream::poll_next(events.as_mut(), &mut Context::from_waker(&waker));
    assert!(matches!(polled, Poll::Pending));
    (0..EVENTS).for_each(|number| _ = collector.collect(Record::integer("parent", number as i64)));
    collector.stop().unwrap();
    law(&collector, EVENTS);
    forker.child_has_ended();
}

/// What forks while a future is polled.
#[cfg(feature = "futures")]
#[derive(Clone, Copy)]
enum Forks {
    CloneOfWaker,
    DropOfWaker,
}

#[cfg(feature = "futures")]
impl Forks {
    const ALL: [Self; 2] = [Self::CloneOfWaker, Self::DropOfWaker];

    /// Polls a future that is pending, and forks meanwhile.
    fn poll<F: std::future::Future>(
        self,
        mut future: std::pin::Pin<&mut F>,
        forker: &Forker,
    ) -> std::task::Poll<F::Output> {
        use std::task::{Context, Waker};

        match self {
            Self::CloneOfWaker => {
                let forker = forker.clone();
                future.poll(&mut Context::from_waker(&waker_on_clone(move || forker.fork())))
            }
            Self::DropOfWaker => {
                let forker = forker.clone();
                let waker = waker_on_drop(move || forker.fork());
                assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
                drop(waker);
                future.poll(&mut Context::from_waker(Waker::noop()))
            }
        }
    }
}

/// Returns a collector whose sink, on a thread of its own or not, holds an event at the gate.
#[cfg(feature = "futures")]
fn held_at(gate: &Gate, is_isolated: bool) -> Collector<Record> {
    let at_once = FlushStrategy::Size { events: 1 };
    let (builder, at_gate) = (Collector::builder().flush(at_once), gate.clone());
    let sink = from_fn("at the gate", move |_: &Batch<Record>| {
        at_gate.pass();
        Ok(())
    });
    let builder =
        if is_isolated { builder.sink(sink.isolated(8).flush_timeout(LONG)) } else { builder.sink(sink) };
    let collector = builder.start().unwrap();
    collector.collect(Record::integer("parent", 1));
    gate.await_arrivals(1);
    collector
}

#[cfg(feature = "futures")]
#[test]
fn a_waker_that_forks_while_a_stop_is_polled_leaves_the_stop_to_its_parent() {
    alone!();
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    use forebay::collector::StopError;

    // The stop waits for the worker, or for the thread of a sink.
    for (is_isolated, forks) in [false, true].into_iter().flat_map(|is| Forks::ALL.map(|forks| (is, forks))) {
        let (gate, forker) = (Gate::closed(), Forker::default());
        let collector = held_at(&gate, is_isolated);
        let mut stopping = Box::pin(collector.stop_async());
        assert!(stopping.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        if is_isolated {
            until("the worker has ended, and the thread of the sink has not", || {
                let stopped = collector.stop_timeout(Duration::ZERO);
                matches!(stopped, Err(StopError::TimedOut { report }) if report.busy_sink.is_some())
            });
            assert!(stopping.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        let polled = forks.poll(stopping.as_mut(), &forker);
        let is_refused = matches!(polled, Poll::Ready(Err(StopError::Forked)));
        leave_if_child(&forker.0, if is_refused { 0 } else { 9 });
        assert!(polled.is_pending());
        forker.child_has_ended();
        gate.open();
        futures::executor::block_on(stopping).unwrap();
        law(&collector, 1);
    }
}

#[cfg(feature = "futures")]
#[test]
fn a_waker_that_forks_while_a_flush_is_polled_leaves_the_flush_to_its_parent() {
    alone!();
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    use forebay::collector::FlushError;

    // The flush waits for the worker, or for the thread of a sink.
    for (is_isolated, forks) in [false, true].into_iter().flat_map(|is| Forks::ALL.map(|forks| (is, forks))) {
        let (gate, forker) = (Gate::closed(), Forker::default());
        let collector = held_at(&gate, is_isolated);
        let mut flushing = Box::pin(collector.flush_async());
        assert!(flushing.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        if is_isolated {
            // Of a later flush as well.
            until("the worker has done its part", || {
                collector.flush_timeout(Duration::from_millis(1)).is_ok()
            });
            assert!(flushing.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        let polled = forks.poll(flushing.as_mut(), &forker);
        let is_refused = matches!(polled, Poll::Ready(Err(FlushError::Forked)));
        leave_if_child(&forker.0, if is_refused { 0 } else { 9 });
        assert!(polled.is_pending());
        forker.child_has_ended();
        gate.open();
        assert!(futures::executor::block_on(flushing).unwrap().is_clean());
        collector.stop().unwrap();
        law(&collector, 1);
    }
}

#[cfg(feature = "futures")]
#[test]
fn a_waker_that_forks_while_an_event_waits_for_space_leaves_the_event_to_its_parent() {
    alone!();
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    use forebay::{Outcome, Overflow};

    for forks in Forks::ALL {
        let (gate, forker) = (Gate::closed(), Forker::default());
        let at_gate = gate.clone();
        let sink = from_fn("at the gate", move |_: &Batch<Record>| {
            at_gate.pass();
            Ok(())
        });
        let builder = Collector::builder().capacity(1).overflow(Overflow::Block { timeout: LONG });
        let collector = builder.sink(sink).start().unwrap();
        collector.collect(Record::integer("at the gate", 1));
        gate.await_arrivals(1);
        collector.collect(Record::integer("in the lane", 2));
        let mut collecting = Box::pin(collector.collect_async(Record::integer("waits", 3)));
        assert!(collecting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let polled = forks.poll(collecting.as_mut(), &forker);
        let is_refused = matches!(polled, Poll::Ready(Outcome::Forked));
        leave_if_child(&forker.0, if is_refused { 0 } else { 9 });
        assert!(polled.is_pending());
        forker.child_has_ended();
        gate.open();
        assert_eq!(futures::executor::block_on(collecting), Outcome::QueuedAfterWait);
        collector.stop().unwrap();
        law(&collector, 3);
    }
}

#[cfg(feature = "futures")]
#[test]
fn a_waker_that_forks_while_a_subscription_is_polled_leaves_it_to_its_parent() {
    alone!();
    use std::task::Poll;

    use futures::StreamExt;

    for forks in Forks::ALL {
        let forker = Forker::default();
        let at_once = FlushStrategy::Size { events: 1 };
        let collector = Collector::<Record>::builder().flush(at_once).start().unwrap();
        let mut events = collector.subscribe("**").unwrap();
        let polled = forks.poll(std::pin::pin!(events.next()), &forker);
        let is_ended = matches!(polled, Poll::Ready(None));
        leave_if_child(&forker.0, if is_ended { 0 } else { 9 });
        assert!(polled.is_pending());
        forker.child_has_ended();
        collector.collect(Record::integer("later", 1));
        assert_eq!(futures::executor::block_on(events.next()).unwrap().name(), "later");
        collector.stop().unwrap();
        law(&collector, 1);
    }
}
