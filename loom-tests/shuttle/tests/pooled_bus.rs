//! Models of a bus with threads: the shipped engine with its dispatcher, its workers and its scheduler, one promise each. They are
//! six threads and more, too many for loom. Run them with `../run shuttle`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use forebay::sink::RetryPolicy;
use forebay::{Config, FlushStrategy, ManualClock, Outcome, Priority};
use forebay_bus::{Bus, BusConfig, Calls, Delivery, EmitOptions, Filter, Handler, HandlerError};
use forebay_loom_tests::Witness;
use loom::sync::{Arc, Notify};
use loom::thread::{self, JoinHandle};

/// Returns the settings of a bus as small as it can be, with so many workers.
fn config(workers: usize) -> BusConfig {
    let collector = Config::default()
        .with_capacity(4)
        .with_critical_capacity(1)
        .with_low_capacity(1)
        .with_flush(FlushStrategy::Size { events: 1 })
        .with_session_id(Some("model".to_owned()))
        .with_host(Some("model".to_owned()))
        .with_rank(0);
    BusConfig::default().with_collector(collector).with_workers(workers)
}

fn bus(workers: usize) -> Bus {
    Bus::builder().config(config(workers)).start().unwrap()
}

/// Emits events with these numbers, on a thread of its own.
fn emits(bus: &Bus, numbers: std::ops::Range<u32>) -> JoinHandle<()> {
    let bus = bus.clone();
    thread::spawn(move || {
        numbers.for_each(|number| assert!(bus.emit("a", number).unwrap().outcome.is_queued()))
    })
}

/// Something that happens once. A wait for it may end without a reason, and goes on then.
#[derive(Clone, Default)]
struct Signal(Arc<(AtomicBool, Notify)>);

impl Signal {
    fn set(&self) {
        self.0.0.store(true, Ordering::SeqCst);
        self.0.1.notify();
    }

    fn wait(&self) {
        while !self.0.0.load(Ordering::SeqCst) {
            self.0.1.wait();
        }
    }
}

/// Checks a model; the bound and the floor are loom's.
#[track_caller]
fn check(name: &str, body: impl Fn() + Send + Sync + 'static) {
    forebay_loom_tests::check(name, 0, 0, body);
}

/// Stops the bus and checks the law. Returns how many calls were handled, cancelled and dead-lettered.
#[track_caller]
fn law(bus: &Bus, emitted: u64) -> [u64; 3] {
    let _ = bus.stop();
    let stats = bus.stats();
    stats.check_law(emitted).unwrap();
    let handlers = stats.handlers.iter().chain([&stats.gone]);
    let sums = handlers.fold([0; 3], |[handled, cancelled, dead], stats| {
        assert_eq!(stats.in_flight, 0, "{stats:?}");
        [handled + stats.handled, cancelled + stats.cancelled, dead + stats.dead_lettered]
    });
    assert_eq!(bus.dead_letters().len() as u64, sums[2], "a dead letter is counted and not kept");
    sums
}

/// Counts calls, and fails where more run at once than are allowed. loom's atomics, so that a call can be interrupted.
struct Counter {
    running: loom::sync::atomic::AtomicU32,
    max: u32,
    calls: AtomicU64,
}

impl Counter {
    fn new(max: u32) -> std::sync::Arc<Self> {
        let running = loom::sync::atomic::AtomicU32::new(0);
        std::sync::Arc::new(Self { running, max, calls: AtomicU64::new(0) })
    }

    fn call(&self) {
        let before = self.running.fetch_add(1, Ordering::SeqCst);
        assert!(before < self.max, "more calls at once than are allowed");
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.running.fetch_sub(1, Ordering::SeqCst);
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }
}

// ---- mailboxes ----

/// Must report `bus-push-wakes-no-worker`.
#[test]
fn every_event_is_handled_once_in_order_and_one_at_a_time() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("pooled: every event is handled once, in order", move || {
        let bus = bus(2);
        let (counter, order) = (Counter::new(1), std::sync::Arc::new(std::sync::Mutex::new(Vec::new())));
        let (own, numbers) = (counter.clone(), order.clone());
        let handler = Handler::new("a", move |delivery: &Delivery| {
            own.call();
            numbers.lock().unwrap().push(delivery.value().as_i64().unwrap());
        });
        bus.subscribe(handler.max_concurrent(1)).unwrap().keep();
        let emitters = [emits(&bus, 0..2), emits(&bus, 10..12)];
        emitters.into_iter().for_each(|emitter| emitter.join().unwrap());
        bus.flush().unwrap();
        assert_eq!(counter.calls(), 4, "the flush covers all");
        let order = order.lock().unwrap().clone();
        assert!(order.iter().filter(|number| **number < 10).is_sorted(), "{order:?}");
        assert!(order.iter().filter(|number| **number >= 10).is_sorted(), "{order:?}");
        seen.saw(order);
        assert_eq!(law(&bus, 4), [4, 0, 0]);
    });
    witness.expect(&["[0, 1, 10, 11]", "[10, 11, 0, 1]", "[0, 10, 1, 11]"]);
}

/// Must report `bus-dispatcher-unannounced`.
#[test]
fn a_handler_that_is_behind_holds_the_dispatcher_and_is_caught_up_with() {
    check("pooled: a full mailbox is waited for, and then filled", || {
        let bus = Bus::builder().config(config(2).with_handler_queue(1)).start().unwrap();
        let counter = Counter::new(1);
        let own = counter.clone();
        bus.subscribe(Handler::new("a", move |_: &Delivery| own.call()).max_concurrent(1)).unwrap().keep();
        emits(&bus, 0..2).join().unwrap();
        bus.flush().unwrap();
        emits(&bus, 2..4).join().unwrap();
        // Asks for no flush: the end of a call alone lets the dispatcher go on.
        assert_eq!(law(&bus, 4), [4, 0, 0]);
        assert_eq!(counter.calls(), 4);
    });
}

/// Must report `bus-closed-mailbox-takes-events`.
#[test]
fn an_unsubscription_releases_the_dispatcher_that_waits_for_the_handler() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("pooled: an unsubscription releases the dispatcher", move || {
        let bus = Bus::builder().config(config(1).with_handler_queue(1)).start().unwrap();
        let (is_called, may_end) = (Signal::default(), Signal::default());
        let (call, end) = (is_called.clone(), may_end.clone());
        let is_first = AtomicBool::new(true);
        let handler = Handler::new("a", move |_: &Delivery| {
            if is_first.swap(false, Ordering::SeqCst) {
                call.set();
                end.wait();
            }
        });
        let id = bus.subscribe(handler.max_concurrent(1)).unwrap().keep();
        let emitter = emits(&bus, 0..3);
        is_called.wait();
        let closer = thread::spawn({
            let bus = bus.clone();
            move || assert!(bus.unsubscribe_and_wait(id, Duration::MAX))
        });
        emitter.join().unwrap();
        may_end.set();
        closer.join().unwrap();
        bus.flush().unwrap();
        seen.saw(law(&bus, 3));
    });
    // The others had not come to the mailbox, or they had.
    witness.expect(&["[1, 0, 0]", "[1, 1, 0]"]);
}

/// Must report `bus-started-call-releases-nobody`.
#[test]
fn the_begin_of_a_call_releases_the_dispatcher() {
    check("pooled: the begin of a call releases the dispatcher", || {
        let bus = Bus::builder().config(config(2).with_handler_queue(1)).start().unwrap();
        let may_end = Signal::default();
        let (end, other) = (may_end.clone(), may_end);
        // A call ends only once the dispatcher has come to the event that lies behind a full mailbox.
        bus.subscribe(Handler::new("a", move |_: &Delivery| end.wait()).max_concurrent(1)).unwrap().keep();
        bus.on("b", move |_: &Delivery| other.set()).unwrap().keep();
        emits(&bus, 0..2).join().unwrap();
        bus.emit("b", ()).unwrap();
        assert_eq!(law(&bus, 3), [3, 0, 0]);
    });
}

/// Must report `bus-unsubscription-releases-nobody`.
#[test]
fn an_unsubscription_releases_the_dispatcher_while_a_call_runs() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("pooled: an unsubscription alone releases the dispatcher", move || {
        let bus = Bus::builder().config(config(2).with_handler_queue(1)).start().unwrap();
        let (is_called, may_end) = (Signal::default(), Signal::default());
        let (call, end, other) = (is_called.clone(), may_end.clone(), may_end);
        let handler = Handler::new("a", move |_: &Delivery| {
            call.set();
            end.wait();
        });
        let id = bus.subscribe(handler.max_concurrent(1)).unwrap().keep();
        bus.on("b", move |_: &Delivery| other.set()).unwrap().keep();
        let emitter = emits(&bus, 0..3);
        is_called.wait();
        emitter.join().unwrap();
        assert!(bus.unsubscribe(id));
        // The call ends only once the dispatcher has come to this event.
        bus.emit("b", ()).unwrap();
        seen.saw(law(&bus, 4));
    });
    // The second event had come to the mailbox, or it had not.
    witness.expect(&["[2, 0, 0]", "[2, 1, 0]"]);
}

// ---- the pool of workers ----

/// Must report `bus-push-wakes-one-worker`.
#[test]
fn two_events_are_handled_by_two_workers_side_by_side() {
    check("pooled: two events wake two workers, side by side", || {
        let bus = bus(2);
        let ends = <[Signal; 2]>::default();
        let own = ends.clone();
        // Each call ends only once the other has begun.
        let handler = Handler::new("a", move |delivery: &Delivery| {
            let number = delivery.value().as_i64().unwrap() as usize;
            own[1 - number].set();
            own[number].wait();
        });
        bus.subscribe(handler.max_concurrent(2)).unwrap().keep();
        emits(&bus, 0..2).join().unwrap();
        bus.flush().unwrap();
        assert_eq!(law(&bus, 2), [2, 0, 0]);
    });
}

/// Must report `bus-larger-pool-overlooked`, `bus-larger-pool-schedules-nobody`, `bus-larger-pool-starts-nobody` and
/// `bus-smaller-pool-wakes-nobody`.
#[test]
fn a_smaller_pool_still_handles_what_waits() {
    check("pooled: fewer workers, and more, handle every event", || {
        let bus = bus(2);
        let ends = <[Signal; 2]>::default();
        let own = ends.clone();
        let handler = Handler::new("a", move |delivery: &Delivery| {
            // The last two calls end only once both have begun.
            if let Some(number @ 2..) = delivery.value().as_i64() {
                own[3 - number as usize].set();
                own[number as usize - 2].wait();
            }
        });
        bus.subscribe(handler.max_concurrent(2)).unwrap().keep();
        let emitter = emits(&bus, 0..2);
        bus.scale_workers(1).unwrap();
        emitter.join().unwrap();
        bus.flush().unwrap();
        while bus.worker_stats().total > 1 {
            thread::yield_now();
        }
        emits(&bus, 2..4).join().unwrap();
        bus.scale_workers(2).unwrap();
        bus.flush().unwrap();
        assert_eq!(law(&bus, 4), [4, 0, 0]);
    });
}

/// Must report `bus-leaving-worker-wakes-no-other`.
#[test]
fn a_worker_that_leaves_wakes_one_that_stays() {
    check("pooled: a worker that leaves wakes one that stays", || {
        let clock = ManualClock::new();
        let bus = Bus::builder().config(config(2)).manual_clock(&clock).start().unwrap();
        let [hangs, is_replaced, may_end, is_called_again, is_over] = <[Signal; 5]>::default();
        let own = [hangs.clone(), may_end.clone(), is_called_again.clone(), is_over.clone()];
        let handler = Handler::new("a", move |delivery: &Delivery| {
            let [hangs, may_end, is_called_again, is_over] = &own;
            let (begun, end) = match delivery.value().as_i64() {
                Some(0) => (hangs, may_end),
                _ => (is_called_again, is_over),
            };
            begun.set();
            end.wait();
        });
        bus.subscribe(handler.max_concurrent(1).deadline(Duration::from_secs(1))).unwrap().keep();
        let replaced = is_replaced.clone();
        // Comes once the worker that hangs has been replaced.
        bus.on("system.performance_warning", move |_: &Delivery| replaced.set()).unwrap().keep();
        bus.on("b", move |_: &Delivery| is_over.set()).unwrap().keep();
        emits(&bus, 0..2).join().unwrap();
        hangs.wait();
        clock.advance(Duration::from_secs(2));
        is_replaced.wait();
        // Now there is one worker too many. The one that hung has the next call, and a worker that the event wakes may leave.
        may_end.set();
        is_called_again.wait();
        bus.emit("b", ()).unwrap();
        assert_eq!(law(&bus, 3), [4, 0, 0]);
    });
}

/// Must report `bus-close-wakes-no-worker` and `bus-end-of-workers-waited-for-once`.
#[test]
fn a_stop_handles_what_was_emitted_before_and_ends_every_thread() {
    check("pooled: a stop handles what came before it", || {
        let bus = bus(2);
        let counter = Counter::new(2);
        let own = counter.clone();
        bus.subscribe(Handler::new("a", move |_: &Delivery| own.call()).max_concurrent(2)).unwrap().keep();
        emits(&bus, 0..2).join().unwrap();
        let report = bus.stop().unwrap();
        assert_eq!((report.left_behind, counter.calls()), (0, 2));
        assert_eq!(law(&bus, 2), [2, 0, 0]);
    });
}

/// Must report `bus-stop-drains-no-mailbox`.
#[test]
fn an_event_against_a_stop_has_one_fate() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("pooled: an event against a stop has one fate", move || {
        let bus = bus(1);
        let counter = Counter::new(1);
        let own = counter.clone();
        bus.on("a", move |_: &Delivery| own.call()).unwrap().keep();
        let emitter = thread::spawn({
            let bus = bus.clone();
            move || bus.emit("a", ()).unwrap().outcome
        });
        let _ = bus.stop();
        let outcome = emitter.join().unwrap();
        let [handled, cancelled, _] = law(&bus, 1);
        assert_eq!(handled, counter.calls());
        assert_eq!(handled, u64::from(outcome.is_queued()), "taken and not handled");
        seen.saw((outcome, handled, cancelled));
    });
    witness.expect(&["(Queued, 1, 0)", "(Stopped, 0, 0)"]);
}

/// Must report `bus-end-of-a-worker-wakes-one-stop`.
#[test]
fn two_stops_are_both_answered() {
    check("pooled: two stops are both answered", || {
        let bus = bus(1);
        let counter = Counter::new(1);
        let own = counter.clone();
        bus.on("a", move |_: &Delivery| own.call()).unwrap().keep();
        emits(&bus, 0..1).join().unwrap();
        let other = thread::spawn({
            let bus = bus.clone();
            move || bus.stop().unwrap().left_behind
        });
        assert_eq!(bus.stop().unwrap().left_behind, 0);
        assert_eq!(other.join().unwrap(), 0);
        assert_eq!(law(&bus, 1), [1, 0, 0]);
    });
}

/// Must report `bus-last-handle-of-a-handler-stops-nobody`.
#[test]
fn the_last_handle_dropped_in_a_handler_ends_the_bus() {
    /// Notifies when it is dropped.
    struct NotifiesLast(Signal);

    impl Drop for NotifiesLast {
        fn drop(&mut self) {
            self.0.set();
        }
    }

    check("pooled: the last handle, dropped in a handler", || {
        let (bus, is_gone) = (bus(1), Signal::default());
        let last = NotifiesLast(is_gone.clone());
        let handle: std::sync::Arc<std::sync::Mutex<Option<Bus>>> = std::sync::Arc::default();
        let own = handle.clone();
        let call = move |_: &Delivery| {
            let _ = &last;
            let bus = own.lock().unwrap().take();
            drop(bus);
        };
        bus.on("a", call).unwrap().keep();
        *handle.lock().unwrap() = Some(bus.clone());
        drop(handle);
        assert_eq!(bus.emit("a", ()).unwrap().outcome, Outcome::Queued);
        drop(bus);
        // The function of the handler ends with the last thread of the bus.
        is_gone.wait();
    });
}

// ---- waits for calls ----

/// Must report `bus-flush-waited-for-once`.
#[test]
fn a_flush_covers_what_another_thread_emitted_before_it() {
    check("pooled: two flushes each cover what came before", || {
        let bus = bus(1);
        let counter = Counter::new(1);
        let own = counter.clone();
        bus.on("a", move |_: &Delivery| own.call()).unwrap().keep();
        let other = thread::spawn({
            let (bus, counter) = (bus.clone(), counter.clone());
            move || {
                bus.emit("a", 0).unwrap();
                bus.flush().unwrap();
                assert!(counter.calls() >= 1, "the flush does not cover its own event");
            }
        });
        bus.emit("a", 1).unwrap();
        bus.flush().unwrap();
        assert!(counter.calls() >= 1, "the flush does not cover its own event");
        other.join().unwrap();
        assert_eq!(counter.calls(), 2);
        assert_eq!(law(&bus, 2), [2, 0, 0]);
    });
}

/// Must report `bus-handled-event-answers-nobody`.
#[test]
fn an_awaited_event_against_a_stop_is_answered() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("pooled: emit_sync against a stop is answered", move || {
        let bus = bus(1);
        let counter = Counter::new(1);
        let own = counter.clone();
        bus.on("a", move |_: &Delivery| own.call()).unwrap().keep();
        let emitter = thread::spawn({
            let bus = bus.clone();
            move || bus.emit_sync("a", ()).unwrap()
        });
        let _ = bus.stop();
        let receipt = emitter.join().unwrap();
        let [handled, cancelled, _] = law(&bus, 1);
        let calls = receipt.calls.map_or((0, 0), |Calls { handled, cancelled, .. }| (handled, cancelled));
        assert_eq!((handled, cancelled), calls, "the law and the answer differ: {receipt:?}");
        assert_eq!(handled, counter.calls());
        seen.saw((receipt.outcome, handled, cancelled));
    });
    witness.expect(&["(Queued, 1, 0)", "(Stopped, 0, 0)"]);
}

/// Must report `bus-ticket-waited-for-once`.
#[test]
fn an_awaited_event_is_answered_by_handlers_alone() {
    check("pooled: emit_sync is answered by its two handlers", || {
        let bus = bus(2);
        let counter = Counter::new(2);
        for _ in 0..2 {
            let own = counter.clone();
            bus.on("a", move |_: &Delivery| own.call()).unwrap().keep();
        }
        let receipt = bus.emit_sync("a", ()).unwrap();
        assert_eq!(receipt.calls.unwrap().handled, 2, "answered before the second: {receipt:?}");
        assert_eq!(counter.calls(), 2);
        assert_eq!(law(&bus, 1), [2, 0, 0]);
    });
}

/// Must report `bus-lost-event-answers-nobody`.
#[test]
fn an_awaited_event_that_is_evicted_is_answered() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("pooled: emit_sync of an evicted event is answered", move || {
        let config = config(1);
        let collector = config.collector.clone().with_capacity(1);
        let bus = Bus::builder().config(config.with_collector(collector)).start().unwrap();
        bus.on("a", |_: &Delivery| {}).unwrap().keep();
        let other = thread::spawn({
            let bus = bus.clone();
            move || (0..2).for_each(|number| assert!(bus.emit("a", number).unwrap().outcome.is_queued()))
        });
        let receipt = bus.emit_sync("a", ()).unwrap();
        other.join().unwrap();
        law(&bus, 3);
        seen.saw(receipt.calls.map(|calls| calls.handled));
    });
    witness.expect(&["Some(1)", "None"]);
}

/// Must report `bus-closed-event-answers-nobody` and `bus-refused-event-answers-nobody`.
#[test]
fn an_awaited_event_against_an_unsubscription_is_answered() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("pooled: emit_sync against an unsubscription", move || {
        let bus = bus(1);
        let id = bus.on("a", |_: &Delivery| {}).unwrap().keep();
        let emitter = thread::spawn({
            let bus = bus.clone();
            move || bus.emit_sync("a", ()).unwrap().calls.unwrap()
        });
        assert!(bus.unsubscribe(id));
        let Calls { handled, failed, cancelled, .. } = emitter.join().unwrap();
        // What was cancelled at the door of a mailbox that was closed is in no count of that handler.
        let [was_handled, was_cancelled, _] = law(&bus, 1);
        assert_eq!((handled, failed), (was_handled, 0));
        seen.saw((handled, cancelled, was_cancelled));
    });
    // It was handled, cancelled in the mailbox or at its door, or had no handler any more.
    witness.expect(&["(1, 0, 0)", "(0, 1, 1)", "(0, 1, 0)", "(0, 0, 0)"]);
}

/// Must report `bus-ended-call-releases-nobody`.
#[test]
fn who_waits_for_a_call_is_released_by_its_end_alone() {
    check("pooled: the end of a call releases who waits for it", || {
        let bus = bus(1);
        let (is_called, may_end) = (Signal::default(), Signal::default());
        let (call, end) = (is_called.clone(), may_end.clone());
        let handler = Handler::new("a", move |_: &Delivery| {
            call.set();
            end.wait();
        });
        let id = bus.subscribe(handler).unwrap().keep();
        // The dispatcher asks it right before it gives the event to the handler.
        let other = Handler::new("b", |_: &Delivery| {}).filter(Filter::new(move |_| {
            may_end.set();
            true
        }));
        bus.subscribe(other).unwrap().keep();
        bus.emit("a", ()).unwrap();
        is_called.wait();
        let closer = thread::spawn({
            let bus = bus.clone();
            move || assert!(bus.unsubscribe_and_wait(id, Duration::MAX))
        });
        // The worker goes on with this one, and does not look at the other handler again.
        bus.emit_with("b", (), EmitOptions::new().with_priority(Priority::Critical)).unwrap();
        closer.join().unwrap();
        assert_eq!(law(&bus, 2), [2, 0, 0]);
    });
}

/// Must report `bus-idle-waited-for-once`.
#[test]
fn no_call_begins_once_unsubscribe_and_wait_has_returned() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("pooled: no call runs once unsubscribe_and_wait has", move || {
        let bus = bus(2);
        let gone = Arc::new(loom::sync::atomic::AtomicBool::new(false));
        let own = gone.clone();
        let call = move |_: &Delivery| {
            assert!(!own.load(Ordering::SeqCst), "called after unsubscribe_and_wait");
            thread::yield_now();
            assert!(!own.load(Ordering::SeqCst), "runs after unsubscribe_and_wait");
        };
        let id = bus.subscribe(Handler::new("a", call).max_concurrent(2)).unwrap().keep();
        let emitter = emits(&bus, 0..2);
        assert!(bus.unsubscribe_and_wait(id, Duration::MAX));
        gone.store(true, Ordering::SeqCst);
        emitter.join().unwrap();
        bus.flush().unwrap();
        let [handled, cancelled, _] = law(&bus, 2);
        seen.saw((handled, cancelled));
    });
    witness.expect(&["(0, 0)", "(0, 1)", "(1, 0)", "(2, 0)"]);
}

// ---- time ----

/// Returns a handler whose first call fails, and a signal of each of its calls.
fn fails_first(policy: RetryPolicy) -> (Handler, Signal) {
    let called = Signal::default();
    let notifier = called.clone();
    let handler = Handler::new("a", move |delivery: &Delivery| {
        let is_first = delivery.attempt() == 1;
        if !is_first {
            notifier.set();
        }
        if is_first { Err(HandlerError::new("on purpose")) } else { Ok(()) }
    });
    (handler.retry(policy), called)
}

/// Must report `bus-retry-wakes-no-scheduler`.
#[test]
fn a_retry_that_is_due_at_once_wakes_the_scheduler() {
    check("pooled: a retry alone wakes the scheduler", || {
        let bus = bus(1);
        let (handler, is_retried) = fails_first(RetryPolicy::fixed(Duration::ZERO, 1));
        bus.subscribe(handler).unwrap().keep();
        bus.emit("a", ()).unwrap();
        is_retried.wait();
        let _ = bus.flush();
        let [handled, _, dead] = law(&bus, 1);
        assert_eq!(handled + dead, 1);
    });
}

/// Must report `bus-moved-clock-wakes-nobody`.
#[test]
fn a_clock_that_is_moved_sets_off_a_retry() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("pooled: the clock alone sets off a retry", move || {
        let clock = ManualClock::new();
        let bus = Bus::builder().config(config(1)).manual_clock(&clock).start().unwrap();
        let (handler, is_retried) = fails_first(RetryPolicy::fixed(Duration::from_secs(1), 1));
        bus.subscribe(handler).unwrap().keep();
        bus.emit("a", ()).unwrap();
        // The retry waits once the flush has returned.
        bus.flush().unwrap();
        clock.advance(Duration::from_secs(1));
        is_retried.wait();
        let [handled, _, dead] = law(&bus, 1);
        assert_eq!(handled + dead, 1);
        seen.saw(handled);
    });
    witness.expect(&["1"]);
}

/// Must report `bus-closed-queue-keeps-a-retry`.
#[test]
fn a_retry_against_a_stop_has_one_fate() {
    // Due at once, or never.
    let delays = [(Duration::ZERO, &["(1, 0)", "(0, 1)"][..]), (Duration::from_secs(3600), &["(0, 1)"])];
    for (delay, fates) in delays {
        let witness = Witness::default();
        let seen = witness.clone();
        check(&format!("pooled: a retry in {delay:?} against a stop"), move || {
            let bus = bus(1);
            let (handler, _) = fails_first(RetryPolicy::fixed(delay, 1));
            bus.subscribe(handler).unwrap().keep();
            bus.emit("a", ()).unwrap();
            let report = bus.stop().unwrap();
            assert_eq!(report.left_behind, 0);
            let [handled, cancelled, dead] = law(&bus, 1);
            assert_eq!((handled + dead, cancelled), (1, 0));
            seen.saw((handled, dead));
        });
        witness.expect(fates);
    }
}

/// Must report `bus-requeued-retry-is-called-after-all`.
#[test]
fn a_retry_against_an_unsubscription_has_one_fate() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("pooled: a retry against an unsubscription", move || {
        let bus = bus(1);
        let (handler, _) = fails_first(RetryPolicy::fixed(Duration::ZERO, 1));
        let id = bus.subscribe(handler).unwrap().keep();
        bus.emit("a", ()).unwrap();
        bus.flush().unwrap();
        assert!(bus.unsubscribe_and_wait(id, Duration::MAX));
        let [handled, cancelled, dead] = law(&bus, 1);
        assert_eq!(handled + cancelled + dead, 1);
        seen.saw((handled, cancelled));
    });
    witness.expect(&["(1, 0)", "(0, 1)"]);
}

/// Must report `bus-late-retry-outlives-its-handler` and `bus-unsubscription-leaves-its-retries`.
#[test]
fn a_retry_against_an_unsubscription_is_given_up() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("pooled: a retry is given up by an unsubscription", move || {
        let (bus, is_called) = (bus(1), Signal::default());
        let called = is_called.clone();
        let handler = Handler::new("a", move |_: &Delivery| {
            called.set();
            Err::<(), _>(HandlerError::new("cannot"))
        });
        let handler = handler.retry(RetryPolicy::fixed(Duration::from_secs(3600), 1));
        let id = bus.subscribe(handler).unwrap().keep();
        bus.emit("a", ()).unwrap();
        is_called.wait();
        assert!(bus.unsubscribe_and_wait(id, Duration::MAX));
        // Whoever comes last gives it up: this thread, or the worker a little later. No stop does that for them.
        while bus.stats().gone.in_flight > 0 {
            thread::yield_now();
        }
        seen.saw(law(&bus, 1));
    });
    // The call failed before it, or after it.
    witness.expect(&["[0, 1, 0]", "[0, 0, 1]"]);
}

/// Must report `bus-hanging-worker-not-replaced` and `bus-stop-awaits-no-scheduler`.
#[test]
fn a_call_that_hangs_is_replaced() {
    check("pooled: another worker replaces one that hangs", || {
        let clock = ManualClock::new();
        let bus = Bus::builder().config(config(1)).manual_clock(&clock).start().unwrap();
        let (hangs, may_end, is_called) = (Signal::default(), Signal::default(), Signal::default());
        let (begun, end) = (hangs.clone(), may_end.clone());
        let handler = Handler::new("a", move |_: &Delivery| {
            begun.set();
            end.wait();
        });
        bus.subscribe(handler.deadline(Duration::from_secs(1))).unwrap().keep();
        let called = is_called.clone();
        bus.on("b", move |_: &Delivery| called.set()).unwrap().keep();
        bus.emit("a", ()).unwrap();
        hangs.wait();
        bus.emit("b", ()).unwrap();
        clock.advance(Duration::from_secs(2));
        is_called.wait();
        may_end.set();
        assert_eq!(law(&bus, 2), [2, 0, 0]);
    });
}
