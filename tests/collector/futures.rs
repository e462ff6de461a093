//! The futures adapter: any executor, no thread a call, nothing lost by dropping.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::support::*;
use forebay::collector::{FlushError, StopError};
use forebay::sink::{MemorySink, Sink, SinkExt as _, from_fn};
use forebay::{Batch, Collector, FlushStrategy, Outcome, Overflow};
use futures::executor::block_on;
use futures::{SinkExt, StreamExt, future, stream};

/// Counts how often it is woken.
#[derive(Default)]
struct WakeCounter(AtomicUsize);

impl Wake for WakeCounter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl WakeCounter {
    fn wakes(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn counting_waker() -> (Arc<WakeCounter>, Waker) {
    let counter = Arc::new(WakeCounter::default());
    (counter.clone(), counter.into())
}

/// Returns a collector with one slot, taken, that waits for space and delivers only when asked.
fn full() -> (Collector<Tick>, MemorySink<Tick>) {
    let memory = MemorySink::new();
    let collector = ticks()
        .capacity(1)
        .overflow(Overflow::Block { timeout: Duration::from_millis(1) })
        .flush(FlushStrategy::Manual)
        .sink(memory.clone())
        .start()
        .unwrap();
    assert_eq!(collector.collect(tick(0)), Outcome::Queued);
    (collector, memory)
}

/// Producers that share one executor with the flusher that makes space for them: were one of them to block
/// its thread, none would get on.
async fn share_an_executor(collector: &Collector<Tick>) {
    let produce = async |producer| {
        for number in 0..50 {
            assert!(collector.collect_async(Tick { producer, ..tick(number) }).await.is_queued());
        }
    };
    let producers = future::join_all((0..4).map(produce));
    let flush = async {
        loop {
            let _ = collector.flush_async().await.unwrap();
            if collector.stats().processed >= 201 {
                break;
            }
        }
    };
    future::join(producers, flush).await;
}

#[track_caller]
fn all_arrived(collector: &Collector<Tick>, memory: &MemorySink<Tick>) {
    collector.stop().unwrap();
    assert_eq!(law(collector, 201).processed, 201);
    for producer in 0..4 {
        let mut events = memory.events();
        events.retain(|event| event.producer == producer);
        let expected: Vec<u64> =
            if producer == 0 { [0].into_iter().chain(0..50).collect() } else { (0..50).collect() };
        assert_eq!(numbers(&events), expected, "in the order of its task");
    }
}

#[test]
fn waiting_for_space_blocks_no_executor_of_futures() {
    let (collector, memory) = full();
    block_on(share_an_executor(&collector));
    all_arrived(&collector, &memory);
}

#[test]
fn waiting_for_space_blocks_no_executor_of_tokio() {
    let (collector, memory) = full();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(share_an_executor(&collector));
    all_arrived(&collector, &memory);

    let (collector, memory) = full();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let spawned: Vec<_> = (0..4)
            .map(|producer| {
                let collector = collector.clone();
                tokio::spawn(async move {
                    for number in 0..50 {
                        let event = Tick { producer, ..tick(number) };
                        assert!(collector.collect_async(event).await.is_queued());
                    }
                })
            })
            .collect();
        while collector.stats().processed < 201 {
            let _ = collector.flush_async().await.unwrap();
        }
        future::try_join_all(spawned).await.unwrap();
    });
    all_arrived(&collector, &memory);
}

#[test]
fn waiting_for_space_blocks_no_executor_of_smol() {
    let (collector, memory) = full();
    let executor = smol::LocalExecutor::new();
    smol::block_on(executor.run(share_an_executor(&collector)));
    all_arrived(&collector, &memory);
}

#[test]
fn a_future_that_finds_space_is_ready_at_once() {
    let memory = MemorySink::new();
    let collector = ticks().sink(memory.clone()).start().unwrap();
    let mut collecting = pin!(collector.collect_async(tick(0)));
    let mut context = Context::from_waker(Waker::noop());
    assert_eq!(collecting.as_mut().poll(&mut context), Poll::Ready(Outcome::Queued));
    assert_eq!(collecting.as_mut().poll(&mut context), Poll::Ready(Outcome::Queued), "and stays so");
    collector.stop().unwrap();
    assert_eq!(block_on(collector.collect_async(tick(1))), Outcome::Stopped);
    assert_eq!(law(&collector, 2).rejected.stopped, 1);
}

#[test]
fn a_future_wakes_its_last_task_when_there_is_space() {
    let (collector, _memory) = full();
    let (first, first_waker) = counting_waker();
    let (last, last_waker) = counting_waker();
    let mut collecting = pin!(collector.collect_async(tick(1)));
    assert!(collecting.as_mut().poll(&mut Context::from_waker(&first_waker)).is_pending());
    assert!(collecting.as_mut().poll(&mut Context::from_waker(&last_waker)).is_pending());
    let _ = collector.flush().unwrap();
    assert_eq!((first.wakes(), last.wakes()), (0, 1), "the task that polled last, and it alone");
    let polled = collecting.as_mut().poll(&mut Context::from_waker(&last_waker));
    assert_eq!(polled, Poll::Ready(Outcome::QueuedAfterWait));
    collector.stop().unwrap();
    assert_eq!(law(&collector, 2).processed, 2);
}

#[test]
fn dropping_a_waiting_future_leaks_no_waker_and_disturbs_nobody() {
    let (collector, memory) = full();
    let (dropped, dropped_waker) = counting_waker();
    let (kept, kept_waker) = counting_waker();
    let mut keeping = pin!(collector.collect_async(tick(1)));
    {
        let mut dropping = Box::pin(collector.collect_async(tick(2)));
        assert!(dropping.as_mut().poll(&mut Context::from_waker(&dropped_waker)).is_pending());
        assert!(keeping.as_mut().poll(&mut Context::from_waker(&kept_waker)).is_pending());
    }
    drop(dropped_waker);
    assert_eq!(Arc::strong_count(&dropped), 1, "its waker was taken back");
    let _ = collector.flush().unwrap();
    assert_eq!((dropped.wakes(), kept.wakes()), (0, 1));
    // Dropped after it was woken: the other must not wait for it.
    let mut next = pin!(collector.collect_async(tick(3)));
    assert_eq!(next.as_mut().poll(&mut Context::from_waker(&kept_waker)), Poll::Ready(Outcome::Queued));
    collector.stop().unwrap();
    assert_eq!(numbers(&memory.events()), [0, 3], "a future dropped before its end never offered its event");
    law(&collector, 2);
}

#[test]
fn a_waiting_future_is_answered_by_stop() {
    let (collector, _memory) = full();
    let (counter, waker) = counting_waker();
    let mut waiting = pin!(collector.collect_async(tick(1)));
    let mut critical_one = pin!(collector.collect_async(critical(2)));
    assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let polled = critical_one.as_mut().poll(&mut Context::from_waker(&waker));
    assert_eq!(polled, Poll::Ready(Outcome::Queued), "it has a lane of its own");
    collector.stop().unwrap();
    assert!(counter.wakes() >= 1);
    assert_eq!(waiting.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Ready(Outcome::Stopped));
    assert_eq!(law(&collector, 3).rejected.stopped, 1);
}

#[test]
fn a_policy_that_does_not_wait_does_not_wait_here_either() {
    let collector = ticks().capacity(1).build().unwrap();
    let collect = |number| block_on(collector.collect_async(tick(number)));
    assert_eq!([collect(0), collect(1)], [Outcome::Queued, Outcome::QueuedEvicting]);
    law(&collector, 2);
    let collector = ticks().capacity(1).overflow(Overflow::DropNewest).build().unwrap();
    let collect = |number| block_on(collector.collect_async(tick(number)));
    assert_eq!([collect(0), collect(1)], [Outcome::Queued, Outcome::Full]);
    law(&collector, 2);
}

#[test]
fn a_flush_that_is_dropped_is_taken_back_and_one_that_is_kept_is_answered() {
    let gate = Gate::closed();
    let collector = stalled(ticks(), &gate);
    let (counter, waker) = counting_waker();
    let mut context = Context::from_waker(&waker);
    for _ in 0..100 {
        let mut dropped = Box::pin(collector.flush_async());
        assert!(dropped.as_mut().poll(&mut context).is_pending());
    }
    drop(collector.flush_async());
    let mut kept = pin!(collector.flush_async());
    assert!(kept.as_mut().poll(&mut context).is_pending());
    assert_eq!(counter.wakes(), 0);
    gate.open();
    until("the flush is answered", || counter.wakes() == 1);
    assert!(matches!(kept.as_mut().poll(&mut context), Poll::Ready(Ok(_))));
    assert_eq!(collector.stats().flushes, 1);
    collector.stop().unwrap();
    assert_eq!(block_on(collector.flush_async()).unwrap_err(), FlushError::Stopped);
    law(&collector, 1);
}

#[test]
fn what_two_flushes_were_reported_together_is_not_reported_again() {
    let gate = Gate::closed();
    let collector = stalled(ticks(), &gate);
    let (counter, waker) = counting_waker();
    let mut context = Context::from_waker(&waker);
    let mut one = pin!(collector.flush_async());
    let mut other = pin!(collector.flush_async());
    assert!(one.as_mut().poll(&mut context).is_pending() && other.as_mut().poll(&mut context).is_pending());
    gate.open();
    until("both are answered", || counter.wakes() == 2);
    let reports =
        [block_on(one).unwrap(), block_on(other).unwrap(), block_on(collector.flush_async()).unwrap()];
    assert_eq!(reports.map(|report| report.processed), [1, 1, 0]);
    collector.stop().unwrap();
    law(&collector, 1);
}

#[test]
fn a_handle_is_a_futures_sink() {
    let (collector, memory) = full();
    let mut sink = collector.as_sink();
    block_on(async {
        // The slot is taken: the first event waits, and the flush that makes space belongs to the sink.
        sink.feed(tick(1)).await.unwrap();
        let flusher = async {
            while collector.stats().processed < 10 {
                let _ = collector.flush_async().await.unwrap();
            }
        };
        let sender = async {
            let mut events = stream::iter((2..10).map(|number| Ok(tick(number))));
            sink.send_all(&mut events).await.unwrap();
            sink.close().await.unwrap();
        };
        future::join(sender, flusher).await;
    });
    assert_eq!(numbers(&memory.events()), (0..10).collect::<Vec<_>>());
    assert!(collector.is_running(), "closing the sink does not stop the collector");
    collector.stop().unwrap();
    assert_eq!(block_on(sink.send(tick(10))).unwrap_err().to_string(), "collector is shut down");
    law(&collector, 11);
}

#[test]
fn a_flush_that_was_cancelled_is_not_taken_for_a_later_one() {
    let memory = MemorySink::new();
    let collector = ticks().flush(FlushStrategy::Manual).sink(memory.clone()).start().unwrap();
    let mut sink = collector.as_sink();
    // Begun, answered, and never awaited.
    let _ = pin!(sink.flush()).poll(&mut Context::from_waker(Waker::noop()));
    until("the flush is done", || collector.stats().flushes == 1);
    block_on(sink.feed(tick(1))).unwrap();
    block_on(sink.flush()).unwrap();
    assert_eq!(numbers(&memory.events()), [1], "what was sent before the flush is there after it");
    collector.stop().unwrap();
    law(&collector, 1);
}

#[test]
fn a_waker_that_ends_a_task_may_come_back_into_the_collector() {
    /// Waker that drops a task that holds a flush, as an executor that is shutting down does.
    struct LastTask(std::sync::Mutex<Option<forebay::futures::FlushAsync<Tick>>>);
    impl Wake for LastTask {
        fn wake(self: Arc<Self>) {
            drop(self.0.lock().unwrap().take());
        }
    }
    let collector = ticks().capacity(1).overflow(Overflow::Block { timeout: LONG }).build().unwrap();
    collector.collect(tick(0));
    collector.start().unwrap();
    let _ = collector.flush().unwrap();
    let gate = Gate::closed();
    collector.add_sink(gate.sink()).unwrap();
    collector.collect(tick(1));
    let mut flushing = Box::pin(collector.flush_async());
    assert!(flushing.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    gate.await_arrivals(1);
    collector.collect(tick(2));
    let mut second = collector.flush_async();
    assert!(pin!(&mut second).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let waker: Waker = Arc::new(LastTask(std::sync::Mutex::new(Some(second)))).into();
    let mut waiting = Box::pin(collector.collect_async(tick(3)));
    assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    // Stop tells the waiting task, whose waker takes a flush back.
    assert!(collector.stop_timeout(Duration::ZERO).is_err());
    gate.open();
    collector.stop().unwrap();
    assert_eq!(block_on(waiting), Outcome::Stopped);
    law(&collector, 4);
}

#[test]
fn a_stream_can_be_forwarded() {
    let memory = MemorySink::new();
    let collector = ticks().sink(memory.clone()).start().unwrap();
    let events = stream::iter((0..100).map(tick)).map(Ok);
    block_on(events.forward(collector.as_sink())).unwrap();
    assert_eq!(memory.len(), 100, "forwarding ends with a flush");
    collector.stop().unwrap();
    law(&collector, 100);
}

#[test]
fn dropping_a_waker_may_come_back_into_the_collector() {
    /// A task whose end drops another future of the same collector, as executors do with theirs.
    struct Task(
        #[allow(dead_code, reason = "it is held, not read")]
        std::sync::Mutex<Option<forebay::futures::CollectAsync<Tick>>>,
    );
    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }
    let (collector, _memory) = full();
    let mut inner = collector.collect_async(tick(1));
    assert!(pin!(&mut inner).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let waker: Waker = Arc::new(Task(std::sync::Mutex::new(Some(inner)))).into();
    let mut outer = Box::pin(collector.collect_async(tick(2)));
    assert!(outer.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop(waker);
    // Replaces the only waker of the task, whose drop drops `inner`, which takes its own waker back.
    assert!(outer.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(outer);
    collector.stop().unwrap();
    law(&collector, 1);
}

/// Stops a collector whose sink hangs, and lets it go on by a task of the same executor: were the stop to block its
/// thread, none would.
async fn stop_beside_the_task_that_frees_the_sink(collector: &Collector<Tick>, gate: &Gate) {
    let free = async {
        assert!(!collector.is_running(), "the first poll closes it");
        gate.open();
    };
    let (report, ()) = future::join(collector.stop_async(), free).await;
    let report = report.unwrap();
    assert_eq!((report.stats.processed, report.left_behind, report.busy_sink), (1, 0, None));
}

#[test]
fn a_stop_that_is_awaited_blocks_no_executor() {
    let tokio = |threads| {
        let mut builder = match threads {
            1 => tokio::runtime::Builder::new_current_thread(),
            _ => tokio::runtime::Builder::new_multi_thread(),
        };
        builder.build().unwrap()
    };
    for executor in ["futures", "tokio", "tokio with threads", "smol"] {
        let gate = Gate::closed();
        let collector = stalled(ticks(), &gate);
        let stop = stop_beside_the_task_that_frees_the_sink(&collector, &gate);
        match executor {
            "futures" => block_on(stop),
            "tokio" => tokio(1).block_on(stop),
            "tokio with threads" => tokio(2).block_on(stop),
            _ => smol::block_on(smol::LocalExecutor::new().run(stop)),
        }
        assert_eq!(collector.collect(tick(1)), Outcome::Stopped, "{executor}");
        law(&collector, 2);
        collector.start().unwrap();
        assert_eq!(collector.collect(tick(2)), Outcome::Queued, "{executor}: it starts again");
        block_on(collector.stop_async()).unwrap();
        assert_eq!(law(&collector, 3).processed, 2);
    }
}

#[test]
fn a_stop_that_is_dropped_goes_on_and_leaks_no_waker() {
    let gate = Gate::closed();
    let collector = stalled(ticks(), &gate);
    drop(collector.stop_async());
    assert!(collector.is_running(), "never polled, it does nothing");
    let (counter, waker) = counting_waker();
    let (kept, kept_waker) = counting_waker();
    let mut keeping = pin!(collector.stop_async());
    assert!(keeping.as_mut().poll(&mut Context::from_waker(&kept_waker)).is_pending());
    for _ in 0..100 {
        let mut dropped = Box::pin(collector.stop_async());
        assert!(dropped.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert!(dropped.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    drop(waker);
    assert_eq!(Arc::strong_count(&counter), 1, "its wakers were taken back");
    assert!(collector.stop_timeout(Duration::ZERO).is_err(), "the sink hangs");
    gate.open();
    until("the stop is done", || kept.wakes() == 1);
    let polled = keeping.as_mut().poll(&mut Context::from_waker(&kept_waker));
    let Poll::Ready(Ok(report)) = polled else { panic!("{polled:?}") };
    assert_eq!((counter.wakes(), report.left_behind), (0, 0));
    let again = collector.stop().unwrap();
    assert_eq!(
        (again.stats.sinks, again.left_behind),
        (report.stats.sinks, 0),
        "every stop reports the same end"
    );
    assert_eq!(law(&collector, 1).processed, 1);
}

/// Stands at a gate when it is woken.
struct StandingWaker(Gate);

impl Wake for StandingWaker {
    fn wake(self: Arc<Self>) {
        self.0.pass();
    }
}

#[test]
fn a_waker_that_blocks_at_the_end_of_the_worker_delays_no_stop() {
    let (sink, waking) = (Gate::closed(), Gate::closed());
    let collector = stalled(ticks(), &sink);
    let waker = Waker::from(Arc::new(StandingWaker(waking.clone())));
    let mut awaited = pin!(collector.stop_async());
    assert!(awaited.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    sink.open();
    waking.await_arrivals(1);
    let (sender, stops) = std::sync::mpsc::channel();
    let stopping = collector.clone();
    let thread = std::thread::spawn(move || {
        let stopped = stopping.stop_timeout(Duration::from_millis(10)).map(|report| report.left_behind);
        sender.send(stopped.map_err(|error| error.to_string())).is_ok()
    });
    let stopped = stops.recv_timeout(Duration::from_secs(20));
    let polled = stopped.is_ok().then(|| awaited.as_mut().poll(&mut Context::from_waker(Waker::noop())));
    waking.open();
    assert!(thread.join().unwrap());
    assert_eq!(stopped.expect("it waits for the waker"), Ok(0));
    assert!(matches!(polled, Some(Poll::Ready(Ok(_)))), "{polled:?}");
    law(&collector, 1);
}

#[test]
fn a_waker_that_blocks_when_a_flush_clones_it_holds_up_no_worker() {
    let (sink, cloning) = (Gate::closed(), Gate::closed());
    let collector = stalled(ticks(), &sink);
    let mut flushing = Box::pin(collector.flush_async());
    let at_gate = cloning.clone();
    let waker = waker_on_clone(move || at_gate.pass());
    std::thread::scope(|scope| {
        let poll = scope.spawn(|| {
            // The answer may have come meanwhile.
            let _ = flushing.as_mut().poll(&mut Context::from_waker(&waker));
        });
        cloning.await_arrivals(1);
        sink.open();
        // The worker answers the flushes in turn.
        let flushed = collector.flush_timeout(Duration::from_secs(20));
        cloning.open();
        poll.join().unwrap();
        assert!(flushed.expect("the worker waits for the waker").is_clean());
    });
    assert!(block_on(flushing).unwrap().is_clean());
    collector.stop().unwrap();
    law(&collector, 1);
}

#[test]
fn a_stop_that_is_awaited_waits_for_the_threads_of_isolated_sinks_by_their_own_limit() {
    let gate = Gate::closed();
    let collector = ticks().sink(gate.sink().isolated(8).flush_timeout(LONG)).start().unwrap();
    collector.collect(tick(0));
    gate.await_arrivals(1);
    let (_counter, waker) = counting_waker();
    let mut stops = [Box::pin(collector.stop_async()), Box::pin(collector.stop_async())];
    for stop in &mut stops {
        assert!(stop.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    until("the worker has ended, and the thread of the sink has not", || {
        let stopped = collector.stop_timeout(Duration::ZERO);
        matches!(stopped, Err(StopError::TimedOut { report }) if report.busy_sink.is_some())
    });
    for stop in &mut stops {
        assert!(stop.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    gate.open();
    for stop in stops {
        let report = block_on(stop).unwrap();
        assert_eq!((report.stats.sinks[0].delivered, report.busy_sink), (1, None));
    }
    law(&collector, 1);

    let gate = Gate::closed();
    let hung = gate.sink().isolated(8).flush_timeout(Duration::ZERO);
    let name = Sink::<Tick>::name(&hung).to_owned();
    let collector = ticks().sink(hung).start().unwrap();
    collector.collect(tick(0));
    gate.await_arrivals(1);
    let Err(StopError::TimedOut { report }) = block_on(collector.stop_async()) else {
        panic!("the sink has not ended")
    };
    assert_eq!(report.busy_sink, Some(name));
    gate.open();
}

#[test]
fn a_stop_that_is_awaited_discards_what_a_collector_that_never_ran_holds() {
    let collector = ticks().build().unwrap();
    collector.collect(tick(0));
    let report = block_on(collector.stop_async()).unwrap();
    assert_eq!((report.left_behind, report.stats.rejected.stopped), (1, 1));
    law(&collector, 1);
}

#[test]
fn a_sink_cannot_await_the_stop_of_its_own_worker() {
    let own = Arc::new(std::sync::OnceLock::<Collector<Tick>>::new());
    let seen = Arc::clone(&own);
    let sink = from_fn("stops", move |_: &Batch<Tick>| {
        let error = block_on(seen.get().unwrap().stop_async()).unwrap_err();
        assert_eq!(error, StopError::OnWorker);
        Ok(())
    });
    let collector = ticks().flush(FlushStrategy::Manual).sink(sink).start().unwrap();
    assert!(own.set(collector.clone()).is_ok());
    collector.collect(tick(0));
    assert!(collector.flush().unwrap().is_clean());
    block_on(collector.stop_async()).unwrap();
    assert_eq!(law(&collector, 1).sinks[0].panics, 0);
}
