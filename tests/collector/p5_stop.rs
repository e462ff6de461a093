//! P5: `stop()` refuses, drains, flushes, joins, in that order, by its deadline, and says what it left
//! behind. Dropping the last handle does the same with a short deadline; it never panics and never hangs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crate::support::*;
use forebay::collector::{FlushError, SinkChangeError, StartError, State, StopError};
use forebay::sink::{MemorySink, Sink, SinkError, SinkExt, from_fn};
use forebay::{Batch, Builder, Collector, Event, FlushStrategy, Outcome};

/// Writes down what is called, and what the collector takes at that moment.
struct Diary {
    handle: Arc<OnceLock<Collector<Tick>>>,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Diary {
    fn note(&self, what: &str) {
        let outcome = self.handle.get().map(|collector| collector.collect(tick(99)));
        self.lines.lock().unwrap().push(format!("{what}: {outcome:?}"));
    }
}

impl Sink<Tick> for Diary {
    fn name(&self) -> &str {
        "diary"
    }

    fn write_batch(&mut self, batch: &Batch<Tick>) -> Result<(), SinkError> {
        self.note(&format!("write {}", batch.len()));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.note("flush");
        Ok(())
    }
}

#[test]
fn stop_refuses_then_drains_then_flushes_then_joins() {
    let (handle, lines) = (Arc::new(OnceLock::new()), Arc::new(Mutex::new(Vec::new())));
    let diary = Diary { handle: handle.clone(), lines: lines.clone() };
    let collector = ticks().flush(FlushStrategy::Manual).batch_size(2).sink(diary).start().unwrap();
    assert!(handle.set(collector.clone()).is_ok());
    collector.collect_batch((0..5).map(tick));
    let report = collector.stop().unwrap();
    let expected = ["write 2", "write 2", "write 1", "flush"];
    let expected = expected.map(|what| format!("{what}: Some(Stopped)"));
    assert_eq!(*lines.lock().unwrap(), expected, "refused before the first batch, flushed after the last");
    assert_eq!((report.left_behind, report.stats.processed), (0, 5));
    assert_eq!(report.stats.state, State::Stopped);
    assert_eq!(collector.collect(tick(5)), Outcome::Stopped);
    assert_eq!(law(&collector, 10).rejected.stopped, 5);
}

#[test]
fn when_stop_returns_the_thread_has_ended() {
    /// Lives in the storage of the worker thread, and ends with it, once the gate is open.
    struct Last(Gate);
    impl Drop for Last {
        fn drop(&mut self) {
            self.0.pass();
        }
    }
    std::thread_local! {
        static LAST: std::cell::RefCell<Option<Last>> = const { std::cell::RefCell::new(None) };
    }
    let gate = Gate::closed();
    let sink = from_fn("storage", {
        let gate = gate.clone();
        move |_: &Batch<Tick>| {
            LAST.set(Some(Last(gate.clone())));
            Ok(())
        }
    });
    let collector = ticks().sink(sink).start().unwrap();
    collector.collect(tick(0));
    let has_returned = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            collector.stop().unwrap();
            has_returned.store(true, Ordering::Relaxed);
        });
        gate.await_arrivals(1);
        // Time enough for a stop that does not wait for the thread.
        for _ in 0..10_000 {
            std::thread::yield_now();
        }
        assert!(!has_returned.load(Ordering::Relaxed), "the thread has not ended");
        gate.open();
    });
    law(&collector, 1);
}

#[test]
fn stopping_twice_or_from_several_threads_tells_the_same_end() {
    let memory = MemorySink::new();
    let collector = ticks().sink(memory.clone()).start().unwrap();
    collector.collect_batch((0..50).map(tick));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(collector.stop().unwrap().stats.processed, 50));
        }
    });
    assert_eq!(collector.stop().unwrap().left_behind, 0);
    assert_eq!(memory.len(), 50);
    law(&collector, 50);
}

#[test]
fn a_hung_sink_does_not_hold_stop_past_its_deadline() {
    let gate = Gate::closed();
    let collector = stalled(ticks(), &gate);
    collector.collect_batch((0..9).map(tick));
    let error = collector.stop_timeout(Duration::from_millis(5)).unwrap_err();
    let StopError::TimedOut { report } = &error else { panic!("{error}") };
    assert_eq!((report.left_behind, report.busy_sink.as_deref()), (10, Some("gate")));
    assert!(error.to_string().contains("10 events are left behind, sink \"gate\" is busy"));
    assert!(matches!(collector.start(), Err(StartError::StillStopping)));
    assert_eq!(collector.collect(tick(0)), Outcome::Stopped);
    // The worker ends by itself once its sink returns, and delivers what it had been given.
    gate.open();
    assert_eq!(collector.stop().unwrap().stats.processed, 10);
    collector.start().unwrap();
    assert!(collector.is_running());
    collector.stop().unwrap();
    law(&collector, 11);
}

#[test]
fn stop_runs_destructors_and_wakers_that_come_back_into_the_collector() {
    /// An event whose destructor flushes and stops, as a log line about its own loss might.
    struct Chatty(Arc<OnceLock<Collector<Chatty>>>, Arc<AtomicU64>);
    impl Event for Chatty {}
    impl Drop for Chatty {
        fn drop(&mut self) {
            if let Some(collector) = self.0.get() {
                let _ = collector.flush_timeout(Duration::ZERO);
                let _ = collector.stats();
                let stopped = collector.stop_timeout(LONG);
                self.1.fetch_add(u64::from(matches!(stopped, Err(StopError::OnWorker))), Ordering::SeqCst);
            }
        }
    }
    let (handle, refused) = (Arc::new(OnceLock::new()), Arc::new(AtomicU64::new(0)));
    let collector = Builder::<Chatty>::new().build().unwrap();
    assert!(handle.set(collector.clone()).is_ok());
    for _ in 0..3 {
        collector.collect(Chatty(handle.clone(), refused.clone()));
    }
    assert_eq!(collector.stop().unwrap().left_behind, 3);
    assert_eq!(
        refused.load(Ordering::SeqCst),
        3,
        "this thread stands for the worker, and must not wait for itself"
    );
    collector.start().unwrap();
    collector.stop().unwrap();
    law(&collector, 3);
}

#[test]
fn a_stop_does_not_wait_for_a_later_run() {
    for _ in 0..50 {
        let collector = ticks().sink(MemorySink::new()).start().unwrap();
        std::thread::scope(|scope| {
            let stopper = scope.spawn(|| collector.stop_timeout(LONG));
            // Starts again as soon as it can, and keeps running.
            until("it starts again", || {
                collector.state() != State::Draining
                    && collector.start().is_ok()
                    && (stopper.is_finished() || collector.is_running())
            });
            stopper.join().unwrap().unwrap();
        });
        collector.stop().unwrap();
        law(&collector, 0);
    }
}

#[test]
fn a_sink_is_removed_while_the_collector_stops() {
    let gate = Gate::closed();
    let collector = stalled(ticks().sink(MemorySink::new()), &gate);
    std::thread::scope(|scope| {
        let stopper = scope.spawn(|| collector.stop());
        until("it stops", || collector.state() == State::Draining);
        let remover = scope.spawn(|| collector.remove_sink("memory"));
        gate.open();
        assert_eq!(remover.join().unwrap().unwrap().delivered, 1);
        stopper.join().unwrap().unwrap();
    });
    assert_eq!(collector.sinks(), ["gate"]);
    law(&collector, 1);
}

#[test]
fn the_last_handle_may_live_in_the_thread_local_storage_of_the_worker() {
    std::thread_local! {
        static HANDLE: std::cell::RefCell<Option<Collector<Tick>>> = const { std::cell::RefCell::new(None) };
    }
    let memory = MemorySink::new();
    let collector = ticks().sink(memory.clone()).start().unwrap();
    let (give, take) = std::sync::mpsc::channel::<Collector<Tick>>();
    let gate = Gate::closed();
    collector
        .add_sink(from_fn("thread_local", {
            let gate = gate.clone();
            move |_: &Batch<Tick>| {
                // By way of a channel, so that the worker's handle is a second one, and the last.
                if let Ok(handle) = take.recv() {
                    HANDLE.with(|held| *held.borrow_mut() = Some(handle));
                }
                gate.pass();
                Ok(())
            }
        }))
        .unwrap();
    collector.collect(critical(0));
    give.send(collector.clone()).unwrap();
    gate.await_arrivals(1);
    assert!(collector.stop_timeout(Duration::ZERO).is_err());
    drop(collector);
    // The worker ends now, and with its thread-local storage the last handle: it must not wait for itself.
    gate.open();
    assert!(memory.wait_for(1, LONG));
}

#[test]
fn stop_ends_while_four_threads_keep_collecting() {
    for _ in 0..20 {
        let memory = MemorySink::new();
        let collector = ticks().capacity(100).sink(memory.clone()).start().unwrap();
        let (is_over, offered) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut number = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        collector.collect(tick(number));
                        number += 1;
                    }
                    offered.fetch_add(number, Ordering::Relaxed);
                });
            }
            let _raise = Raise(&is_over);
            until("events come", || collector.stats().processed > 0);
            collector.stop_timeout(LONG).unwrap();
        });
        let stats = law(&collector, offered.into_inner());
        assert_eq!(stats.pending, 0, "what came too late is counted, not left");
        // An eviction by a call that was under way at the stop may be counted after the last batch; the
        // next run tells it.
        collector.start().unwrap();
        collector.stop().unwrap();
        assert_eq!(audit(&memory), stats.evicted);
    }
}

#[test]
fn a_stopped_collector_starts_again_and_goes_on_counting() {
    let memory = MemorySink::new();
    let collector = ticks().sink(memory.clone()).build().unwrap();
    assert_eq!(collector.state(), State::Idle);
    assert_eq!(collector.collect(tick(0)), Outcome::Queued, "events wait for the start");
    for round in 1..4 {
        collector.start().unwrap();
        collector.start().unwrap();
        assert!(collector.is_running());
        collector.collect(tick(round));
        collector.stop().unwrap();
        assert!(!collector.is_running());
        assert_eq!(collector.collect(tick(99)), Outcome::Stopped);
    }
    assert_eq!(numbers(&memory.events()), [0, 1, 2, 3]);
    assert_eq!(audit(&memory), 0, "batches are numbered through");
    law(&collector, 7);
}

#[test]
fn stopping_a_collector_that_was_never_started_counts_what_it_held() {
    let collector = ticks().build().unwrap();
    collector.collect_batch((0..3).map(tick));
    let report = collector.stop().unwrap();
    assert_eq!((report.left_behind, report.stats.rejected.stopped), (3, 3));
    assert_eq!(law(&collector, 3).pending, 0);
}

#[test]
fn the_worker_cannot_be_made_to_wait_for_itself() {
    let handle = Arc::new(OnceLock::<Collector<Tick>>::new());
    let errors = Arc::new(Mutex::new(Vec::new()));
    let sink = from_fn("inside", {
        let (handle, errors) = (handle.clone(), errors.clone());
        move |_: &Batch<Tick>| {
            let collector = handle.get().unwrap();
            let unanswered = SinkChangeError::Unanswered(FlushError::OnWorker);
            assert_eq!(collector.flush().unwrap_err(), FlushError::OnWorker);
            assert_eq!(collector.stop().unwrap_err(), StopError::OnWorker);
            assert_eq!(collector.remove_sink("inside").unwrap_err(), unanswered);
            errors.lock().unwrap().push(collector.start().is_ok());
            Ok(())
        }
    });
    let collector = ticks().sink(sink).build().unwrap();
    assert!(handle.set(collector.clone()).is_ok());
    collector.collect(tick(0));
    collector.start().unwrap();
    let _ = collector.flush().unwrap();
    assert_eq!(*errors.lock().unwrap(), [true], "no assertion in the sink failed: {:?}", collector.stats());
    collector.stop().unwrap();
    assert_eq!(law(&collector, 1).sink("inside").unwrap().delivered, 1);
}

/// Sink that asks its collector to flush and to stop, when it is flushed itself.
struct Asks {
    handle: Arc<OnceLock<Collector<Tick>>>,
    answers: Arc<Mutex<Vec<(FlushError, StopError)>>>,
}

impl Sink<Tick> for Asks {
    fn name(&self) -> &str {
        "asks"
    }

    fn write_batch(&mut self, _: &Batch<Tick>) -> Result<(), SinkError> {
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        let collector = self.handle.get().unwrap();
        let answers = (collector.flush().unwrap_err(), collector.stop().unwrap_err());
        self.answers.lock().unwrap().push(answers);
        Ok(())
    }
}

#[test]
fn a_sink_of_a_collector_that_was_never_started_cannot_wait_for_it_either() {
    // A stop flushes such a sink only where it has a thread of its own.
    for (is_removed, is_isolated) in [(true, true), (true, false), (false, true)] {
        let (handle, answers) = (Arc::new(OnceLock::new()), Arc::new(Mutex::new(Vec::new())));
        let sink = Asks { handle: handle.clone(), answers: answers.clone() };
        let builder = if is_isolated { ticks().sink(sink.isolated(4)) } else { ticks().sink(sink) };
        let collector = builder.build().unwrap();
        assert!(handle.set(collector.clone()).is_ok());
        if is_removed {
            let _ = collector.remove_sink("asks").unwrap();
        } else {
            collector.stop().unwrap();
        }
        // On the thread of this caller, or on one that it has begun.
        let answers = answers.lock().unwrap();
        assert!(matches!(answers[..], [(FlushError::OnWorker, StopError::OnWorker)]), "{answers:?}");
        law(&collector, 0);
    }
}

#[test]
fn dropping_the_last_handle_delivers_what_is_queued() {
    let memory = MemorySink::new();
    let collector = ticks().flush(FlushStrategy::Manual).sink(memory.clone()).start().unwrap();
    let other = collector.clone();
    other.collect(tick(0));
    drop(other);
    assert!(collector.is_running(), "a handle is left");
    collector.collect(tick(1));
    drop(collector);
    assert_eq!(numbers(&memory.events()), [0, 1]);
}

#[test]
fn the_last_handle_may_be_dropped_while_others_finish_collecting() {
    for _ in 0..100 {
        let memory = MemorySink::new();
        let collector = ticks().sink(memory.clone()).start().unwrap();
        let threads: Vec<_> = (0..4)
            .map(|producer| {
                let collector = collector.clone();
                std::thread::spawn(move || {
                    for number in 0..100 {
                        collector.collect(Tick { producer, ..tick(number) });
                    }
                })
            })
            .collect();
        drop(collector);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(memory.len(), 400, "whoever dropped last has stopped it");
    }
}

/// Drops the last handle of a collector whose worker stands at the gate, with 9 events behind it, on a thread of its own.
fn dropped(builder: Builder<Tick>, gate: &Gate) -> std::thread::JoinHandle<()> {
    let collector = stalled(builder, gate);
    collector.collect_batch((0..9).map(tick));
    law(&collector, 10);
    std::thread::spawn(move || drop(collector))
}

#[test]
fn dropping_the_last_handle_with_a_hung_sink_ends_by_its_own_deadline() {
    let (gate, memory) = (Gate::closed(), MemorySink::new());
    let builder = ticks().drop_timeout(Duration::from_millis(5)).stop_timeout(Duration::MAX);
    let end = dropped(builder.sink(memory.clone()), &gate);
    // The gate is closed until the drop has ended, and nobody but its deadline ends it.
    until("the drop ends", || end.is_finished());
    end.join().unwrap();
    assert!(memory.len() <= 1, "the worker has not passed the gate");
    gate.open();
    // The worker ends by itself once its sink returns.
    assert!(memory.wait_for(10, LONG));
}

#[test]
fn dropping_the_last_handle_waits_for_the_worker_until_its_deadline() {
    let (gate, memory) = (Gate::closed(), MemorySink::new());
    let builder = ticks().drop_timeout(Duration::MAX).stop_timeout(Duration::ZERO);
    let end = dropped(builder.sink(memory.clone()), &gate);
    // Time enough for a drop that does not wait.
    for _ in 0..10_000 {
        std::thread::yield_now();
    }
    assert!(!end.is_finished(), "a sink has not returned");
    gate.open();
    end.join().unwrap();
    assert_eq!(memory.len(), 10, "all is delivered when the drop ends");
}

#[test]
fn the_last_handle_may_be_dropped_by_a_sink() {
    let handle = Arc::new(Mutex::new(None::<Collector<Tick>>));
    let memory = MemorySink::new();
    let sink = from_fn("dropper", {
        let handle = handle.clone();
        move |_: &Batch<Tick>| {
            drop(handle.lock().unwrap().take());
            Ok(())
        }
    });
    let collector = ticks().sink(sink).sink(memory.clone()).build().unwrap();
    collector.collect(tick(0));
    *handle.lock().unwrap() = Some(collector.clone());
    collector.start().unwrap();
    collector.collect(tick(1));
    // One of the two handles is dropped by the worker, the other here, in either order.
    drop(collector);
    assert!(memory.wait_for(2, LONG));
}

#[test]
fn collecting_flushing_and_stopping_while_a_thread_panics_works() {
    struct OnDrop(Collector<Tick>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            assert!(std::thread::panicking());
            assert_eq!(self.0.collect(tick(0)), Outcome::Queued);
            assert_eq!(self.0.flush().unwrap().processed, 1);
            assert_eq!(self.0.collect(tick(1)), Outcome::Queued);
        }
    }
    let memory = MemorySink::new();
    let collector = ticks().flush(FlushStrategy::Manual).sink(memory.clone()).start().unwrap();
    let panicked = std::thread::spawn(move || {
        let _on_drop = OnDrop(collector);
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    assert_eq!(numbers(&memory.events()), [0, 1], "the unwinding thread dropped the last handle");
}

#[test]
fn no_thread_means_an_error_and_a_collector_as_it_was() {
    let memory = MemorySink::new();
    // No system has that much address space for a stack.
    let collector =
        ticks().thread_stack_size(isize::MAX as usize & !0xffff).sink(memory.clone()).build().unwrap();
    collector.collect(tick(0));
    for _ in 0..2 {
        let error = collector.start().unwrap_err();
        assert!(matches!(error, StartError::Thread(_)), "{error}");
        assert!(error.to_string().starts_with("cannot create the worker thread: "), "{error}");
        assert_eq!(collector.state(), State::Idle);
    }
    assert_eq!(collector.sinks(), ["memory"]);
    assert_eq!(collector.collect(tick(1)), Outcome::Queued);
    assert_eq!(law(&collector, 2).pending, 2);
}

#[test]
fn collectors_do_not_hear_each_other() {
    let sinks: Vec<_> = (0..8).map(|_| MemorySink::new()).collect();
    let collectors: Vec<_> = sinks.iter().map(|s| ticks().sink(s.clone()).start().unwrap()).collect();
    for number in 0..100 {
        for (producer, collector) in collectors.iter().enumerate() {
            collector.collect(Tick { producer: producer as u32, ..tick(number) });
        }
    }
    for (producer, (collector, memory)) in collectors.iter().zip(&sinks).enumerate() {
        collector.stop().unwrap();
        assert_eq!(numbers(&memory.events()), (0..100).collect::<Vec<_>>());
        assert!(memory.events().iter().all(|event| event.producer == producer as u32));
        law(collector, 100);
    }
    let ids: std::collections::HashSet<_> = collectors.iter().map(|c| c.session_id()).collect();
    assert_eq!(ids.len(), 8);
}

#[test]
fn a_sink_that_outlasts_every_deadline_holds_nobody_and_ends_by_itself() {
    let soon = Duration::from_millis(5);
    let gate = Gate::closed();
    let memory = MemorySink::new();
    let collector = stalled(ticks().capacity(8).sink(memory.clone()), &gate);
    for number in 0..100 {
        collector.collect(tick(number));
    }
    for _ in 0..3 {
        let late = collector.flush_timeout(soon).unwrap_err();
        assert!(
            matches!(&late, FlushError::TimedOut { busy_sink: Some(sink), .. } if sink == "gate"),
            "{late}"
        );
    }
    for _ in 0..3 {
        let Err(StopError::TimedOut { report }) = collector.stop_timeout(soon) else { panic!() };
        assert_eq!((report.left_behind, report.busy_sink.as_deref()), (9, Some("gate")));
    }
    assert_eq!(collector.state(), State::Draining);
    assert_eq!(collector.collect(tick(100)), Outcome::Stopped);
    // It comes back after all: what was left behind is delivered, and the next stop says so.
    gate.open();
    let report = collector.stop_timeout(LONG).unwrap();
    assert_eq!((report.left_behind, report.busy_sink), (0, None));
    let stats = law(&collector, 102);
    assert_eq!((stats.processed, stats.evicted, stats.rejected.stopped), (9, 92, 1));
    assert_eq!(memory.len(), 9);
    collector.start().unwrap();
    collector.stop().unwrap();
}
