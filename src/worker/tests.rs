use super::*;
use crate::config::FlushStrategy;
use crate::sync::PlainBool;
use crate::wake::NEVER;

struct Tick;
impl Event for Tick {}

#[test]
fn a_worker_that_is_gone_strands_nobody() {
    use crate::collector::{FlushError, StartError, StopError};
    use crate::{Builder, Outcome, Overflow};

    /// Says whether it was woken.
    struct Woken(PlainBool);

    impl std::task::Wake for Woken {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    let collector = Builder::<Tick>::new()
        .capacity(1)
        // Long, and not for ever: whoever is not released fails, and does not hang.
        .overflow(Overflow::Block { timeout: 20 * SECOND })
        .flush(FlushStrategy::Size { events: 100 })
        .build()
        .unwrap();
    let shared = &collector.shared;
    // A worker takes the state, as after a start, and dies at its first step.
    shared.mailbox.prepare_worker();
    let state = shared.mailbox.take_worker();
    shared.phase.open();
    assert_eq!(collector.collect(Tick), Outcome::Queued);
    std::thread::scope(|scope| {
        let flusher = scope.spawn(|| collector.flush_timeout(Duration::MAX));
        let remover = scope.spawn(|| collector.remove_sink("none"));
        scope.spawn(|| {
            while shared.space_waiters.len() == 0 {
                std::thread::yield_now();
            }
            // A thread and a task wait. A thread that nobody releases goes on by its deadline; a task does not.
            let woken = std::sync::Arc::new(Woken(PlainBool::new(false)));
            let _ = shared.space_waiters.lock().register(&mut None, woken.clone().into());
            drop(state);
            abandon(shared);
            assert!(woken.0.load(Ordering::Relaxed), "it waited for space");
        });
        // Before the stop, which releases it as well.
        assert_eq!(collector.collect(Tick), Outcome::WorkerGone, "it waited for space");
        let stopper = scope.spawn(|| collector.stop_timeout(Duration::MAX));
        assert!(matches!(flusher.join().unwrap(), Err(FlushError::WorkerGone)));
        assert!(remover.join().unwrap().is_err());
        assert_eq!(stopper.join().unwrap(), Err(StopError::WorkerGone));
    });
    assert_eq!(collector.collect(Tick), Outcome::WorkerGone);
    assert!(matches!(collector.start(), Err(StartError::WorkerGone)));
    assert_eq!(collector.flush(), Err(FlushError::WorkerGone));
    assert!(collector.add_sink(crate::sink::from_fn("x", |_| Ok(()))).is_err());
    assert!(collector.sinks().is_empty());
    let stats = collector.stats();
    stats.check_law(3).unwrap();
    assert_eq!(stats.rejected.worker_gone, 3);
}

#[test]
fn a_panic_of_the_worker_itself_is_caught_and_reported() {
    let collector = crate::Builder::<Tick>::new().build().unwrap();
    let shared = &collector.shared;
    shared.mailbox.prepare_worker();
    shared.phase.open();
    let reply = shared.request_flush(crate::reply::Reply::new()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            work_with(shared, |worker| {
                // With a request and one of three events in its hands.
                let _asked = worker.shared.mailbox.take_requests();
                worker.shared.tally.worker.taken.add(3);
                worker.shared.tally.worker.processed.add(2);
                panic!("on purpose")
            });
        });
    });
    let answer = reply.poll(std::task::Waker::noop());
    assert!(matches!(answer, std::task::Poll::Ready(None)), "nobody is stranded");
    assert_eq!(collector.state(), State::WorkerGone);
    let stats = collector.stats();
    stats.check_law(3).unwrap();
    assert_eq!((stats.processed, stats.rejected.worker_gone), (2, 1));
    assert_eq!(collector.pending(), 0);
    assert_eq!(collector.stop(), Err(crate::collector::StopError::WorkerGone));
}

const SECOND: Duration = Duration::from_secs(1);

fn schedule(flush: FlushStrategy) -> Schedule {
    Schedule::new(&Config { flush, ..Config::default() }, &Clock::System)
}

#[test]
fn a_steady_stream_never_postpones_the_interval() {
    let mut schedule = schedule(FlushStrategy::Time { interval: SECOND });
    let start = Instant::now();
    schedule.observe(start, 0);
    assert_eq!((schedule.wake_at(), schedule.is_due(start + SECOND)), (1, false));
    for tenth in 0..10 {
        schedule.observe(start + SECOND / 10 * tenth, 1 + tenth as usize);
        assert_eq!(schedule.due, Some(start + SECOND));
    }
    assert!(!schedule.is_due(start + SECOND * 9 / 10) && schedule.is_due(start + SECOND));
}

#[test]
fn a_nap_ends_when_the_interval_does_and_never_begins_before_the_timer_runs() {
    let flush = FlushStrategy::Hybrid { events: 100, interval: Duration::from_millis(3) };
    let mut schedule = schedule(flush);
    let far = Duration::from_secs(3600);
    assert_eq!(schedule.rest(50, 0), (1, None), "events have come, but no timer runs");
    let start = Instant::now();
    schedule.observe(start, 10);
    let (wake_at, until) = schedule.rest(60, 10);
    assert_eq!((wake_at, until), (5_000, Some(start + Duration::from_millis(3))));
    assert_eq!(schedule.rest(60, 10), (100, schedule.due), "nothing came in the nap");
    let mut sleeps =
        Schedule::new(&Config { flush, max_nap: Duration::ZERO, ..Config::default() }, &Clock::System);
    sleeps.observe(start, 10);
    assert_eq!(sleeps.rest(10, 10).0, 100);
    let naps = Config { flush: FlushStrategy::Size { events: 100 }, max_nap: far, ..Config::default() };
    let (wake_at, until) = Schedule::new(&naps, &Clock::System).rest(10, 10);
    assert!(wake_at == 5_000 && until.is_some_and(|until| until > start + far / 2));
}

#[test]
fn the_timer_runs_while_events_come_and_stops_after_an_empty_interval() {
    let mut schedule = schedule(FlushStrategy::Hybrid { events: 10, interval: SECOND });
    let start = Instant::now();
    schedule.observe(start, 1);
    schedule.swept(start + SECOND, true);
    assert_eq!((schedule.due, schedule.wake_at()), (Some(start + SECOND * 2), 10));
    schedule.swept(start + SECOND * 2, false);
    assert_eq!((schedule.due, schedule.wake_at()), (None, 1));
}

#[test]
fn size_and_manual_have_no_timer() {
    for (flush, wake_at) in [
        (FlushStrategy::Size { events: 7 }, 7),
        (FlushStrategy::Size { events: 1 << 20 }, 10_000),
        (FlushStrategy::Manual, NEVER),
    ] {
        let mut schedule = schedule(flush);
        schedule.observe(Instant::now(), 5);
        assert_eq!((schedule.due, schedule.wake_at()), (None, wake_at));
    }
}

#[test]
fn an_endless_interval_is_a_long_one() {
    let mut schedule = schedule(FlushStrategy::Time { interval: Duration::MAX });
    let now = Instant::now();
    schedule.observe(now, 1);
    assert_eq!(schedule.due, Some(now + Duration::from_secs(365 * 24 * 3600)));
}

#[test]
fn a_caller_that_waits_for_a_dead_worker_does_not_wait_for_its_sinks_to_end() {
    use std::sync::mpsc::{Receiver, channel};

    /// Sink whose destructor waits until the test lets it go on.
    struct SlowToEnd(std::sync::Mutex<Receiver<()>>);
    impl crate::sink::Sink<Tick> for SlowToEnd {
        fn name(&self) -> &str {
            "slow to end"
        }
        fn write_batch(&mut self, _: &Batch<Tick>) -> Result<(), crate::sink::SinkError> {
            Ok(())
        }
    }
    impl Drop for SlowToEnd {
        fn drop(&mut self) {
            let received = self.0.lock().unwrap().recv_timeout(60 * SECOND);
            assert!(received.is_ok(), "whoever waits for the worker waits for its sinks");
        }
    }
    let (go_on, go_on_received) = channel();
    let sink = SlowToEnd(std::sync::Mutex::new(go_on_received));
    let collector = crate::Builder::<Tick>::new().sink(sink).build().unwrap();
    let shared = &collector.shared;
    shared.mailbox.prepare_worker();
    shared.phase.open();
    std::thread::scope(|scope| {
        scope.spawn(|| work_with(shared, |_| panic!("on purpose")));
        assert_eq!(collector.stop_timeout(60 * SECOND), Err(crate::collector::StopError::WorkerGone));
        go_on.send(()).unwrap();
    });
    collector.stats().check_law(0).unwrap();
}

/// Writes down, when it is woken, whether a flush has been answered by then.
struct AnswerCheck {
    flush: crate::mailbox::Flush,
    was_answered: PlainBool,
}

impl std::task::Wake for AnswerCheck {
    fn wake(self: Arc<Self>) {
        let answer = self.flush.wait(Some(Instant::now()));
        self.was_answered.store(answer.is_some(), Ordering::Relaxed);
    }
}

#[test]
fn a_dead_worker_answers_requests_before_it_wakes_tasks_that_wait_for_its_end() {
    let collector = crate::Builder::<Tick>::new().build().unwrap();
    let shared = &collector.shared;
    shared.mailbox.prepare_worker();
    shared.phase.open();
    let flush = shared.request_flush(crate::reply::Reply::new()).unwrap();
    let check = Arc::new(AnswerCheck { flush, was_answered: PlainBool::new(false) });
    let end = Arc::clone(shared.mailbox.contents.lock().end.get_or_insert_with(crate::reply::Reply::new));
    assert!(end.poll_shared(&mut None, &Arc::clone(&check).into()).is_pending());
    std::thread::scope(|scope| _ = scope.spawn(|| work_with(shared, |_| panic!("on purpose"))));
    assert!(check.was_answered.load(Ordering::Relaxed));
}

#[cfg(feature = "futures")]
#[test]
fn a_worker_that_wakes_no_task_at_its_end_is_left_to_be_joined() {
    for is_dropped in [true, false] {
        let collector = crate::Builder::<Tick>::new().build().unwrap();
        let shared = &collector.shared;
        shared.mailbox.prepare_worker();
        let state = shared.mailbox.take_worker().unwrap();
        shared.mailbox.contents.lock().thread = Some(crate::sync::spawn("ends", None, || ()).unwrap());
        shared.phase.open();
        let mut stopping = Box::pin(collector.stop_async());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(stopping.as_mut().poll(&mut context).is_pending());
        let kept = Some(stopping).filter(|_| !is_dropped);
        assert!(shared.mailbox.return_worker(state).is_ok());
        assert_eq!(shared.mailbox.contents.lock().thread.is_some(), is_dropped);
        drop(kept);
        collector.stats().check_law(0).unwrap();
    }
}

#[test]
fn requests_that_time_out_do_not_fill_the_mailbox() {
    let config = Config { flush_timeout: Duration::ZERO, ..Config::default() };
    let sink = || crate::sink::from_fn("a sink", |_: &Batch<Tick>| Ok(()));
    let collector = crate::Builder::<Tick>::new().config(config).sink(sink()).build().unwrap();
    let shared = &collector.shared;
    // A worker has the state and never looks at its requests.
    shared.mailbox.prepare_worker();
    let state = shared.mailbox.take_worker().unwrap();
    shared.phase.open();
    for _ in 0..100 {
        assert!(collector.remove_sink("a sink").is_err());
        assert!(collector.flush().is_err());
    }
    let requests = shared.mailbox.take_requests();
    assert_eq!((requests.removed.len(), requests.flushes.len()), (1, 0), "one removal for a name");
    drop(requests);
    assert!(shared.mailbox.return_worker(state).is_ok());
    assert_eq!(collector.sinks(), ["a sink"]);
    collector.stats().check_law(0).unwrap();
}

#[test]
fn a_removal_that_timed_out_leaves_a_later_sink_of_its_name_alone() {
    let config = Config { flush_timeout: Duration::ZERO, ..Config::default() };
    let sink = || crate::sink::from_fn("a sink", |_: &Batch<Tick>| Ok(()));
    let collector = crate::Builder::<Tick>::new().config(config).sink(sink()).build().unwrap();
    let shared = &collector.shared;
    shared.mailbox.prepare_worker();
    let mut state = shared.mailbox.take_worker().unwrap();
    shared.phase.open();
    // One request is served while another one comes in, which times out.
    assert!(collector.remove_sink("a sink").is_err());
    let first = shared.mailbox.take_requests();
    assert!(collector.remove_sink("a sink").is_err());
    state.answer(first, &FlushReport::default(), &shared.registry);
    assert!(collector.sinks().is_empty());

    collector.add_sink(sink()).unwrap();
    shared.mailbox.admit(&mut state.slots);
    let second = shared.mailbox.take_requests();
    assert_eq!(second.removed.len(), 1);
    state.answer(second, &FlushReport::default(), &shared.registry);
    assert_eq!((collector.sinks().len(), state.slots.len()), (1, 1), "the later sink stays");
    assert!(shared.mailbox.return_worker(state).is_ok());
    collector.stats().check_law(0).unwrap();
}
