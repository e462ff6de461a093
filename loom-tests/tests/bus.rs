//! The models of the bus: the shipped engine and its mailboxes, one promise each. Run them with `./run`.
//!
//! The bus is inline: the thread that emits takes events out of mailboxes and calls handlers by the same code as a worker does. A
//! bus with threads has four of them beside the model's own, too many for a model.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use forebay::Config;
use forebay::sink::RetryPolicy;
use forebay_bus::{
    Bus, BusConfig, Delivery, Filter, Handler, HandlerError, Mode, Plugin, Plugins, SubscribeError, Wiring,
};
use forebay_loom_tests::Witness;
use loom::cell::UnsafeCell;
use loom::sync::{Arc, Notify};
use loom::thread::{self, JoinHandle};

/// Returns an inline bus as small as it can be.
fn bus() -> Bus {
    bus_with(BusConfig::default())
}

/// Returns such a bus, with these settings beside those of the collector and the mode.
fn bus_with(config: BusConfig) -> Bus {
    let collector = Config::default()
        .with_capacity(1)
        .with_critical_capacity(1)
        .with_low_capacity(1)
        .with_session_id(Some("model".to_owned()))
        .with_host(Some("model".to_owned()))
        .with_rank(0);
    Bus::builder().config(config.with_collector(collector).with_mode(Mode::Inline)).start().unwrap()
}

/// Starts a thread of the model, with the stack that a bus takes.
fn spawn<R: Send + 'static>(body: impl FnOnce() -> R + Send + 'static) -> JoinHandle<R> {
    thread::Builder::new().stack_size(1 << 16).spawn(body).unwrap()
}

/// Subscribes a handler that is called before those that are subscribed later, and notifies. The event is in the mailboxes of
/// all by then: loom does not see who reads the table of handlers, so it would not change the order of that.
fn notifies_first(bus: &Bus) -> Arc<Notify> {
    let signal = Arc::new(Notify::new());
    let notifier = signal.clone();
    bus.on("a", move |_: &Delivery| notifier.notify()).unwrap().keep();
    signal
}

/// Emits one event, and calls its handlers.
fn emits(bus: &Bus) -> JoinHandle<()> {
    let bus = bus.clone();
    spawn(move || _ = bus.emit("a", ()).unwrap())
}

/// Checks a model on a thread with that stack.
#[track_caller]
fn check(name: &str, bound: usize, floor: u64, body: impl Fn() + Clone + Send + Sync + 'static) {
    forebay_loom_tests::check(name, bound, floor, move || spawn(body.clone()).join().unwrap());
}

/// Stops the bus and checks the law. How many calls were handled and cancelled, of all handlers that there ever were.
#[track_caller]
fn law(bus: &Bus, emitted: u64) -> (u64, u64) {
    let stats = bus.stop().unwrap().stats;
    stats.check_law(emitted).unwrap();
    let handlers = stats.handlers.iter().chain([&stats.gone]);
    handlers.fold((0, 0), |(handled, cancelled), stats| {
        assert_eq!(stats.in_flight, 0, "{stats:?}");
        (handled + stats.handled, cancelled + stats.cancelled)
    })
}

/// Returns two ends of a flag that says whether something was removed: std's, which loom does not see. So nothing
/// comes between the last question of the library and the first statement of the user's code; what comes before that
/// question, comes in every order.
fn flag() -> [std::sync::Arc<AtomicBool>; 2] {
    let flag = std::sync::Arc::new(AtomicBool::new(false));
    [flag.clone(), flag]
}

/// Word of loom's, which one thread reads and another one writes: so what lies behind either comes in both orders.
type Step = Arc<loom::sync::atomic::AtomicBool>;

/// Returns a filter that reports when it is asked: the list of filters was read by then, which loom does not see. It reads a word
/// before the next filter is asked.
fn rings() -> (Filter, Arc<Notify>, Step) {
    let (signal, step) = (Arc::new(Notify::new()), Step::default());
    let (notifier, own) = (signal.clone(), step.clone());
    let filter = Filter::new(move |_| {
        notifier.notify();
        let _ = own.load(Ordering::SeqCst);
        true
    });
    (filter, signal, step)
}

/// Must report `permit-not-asked`.
#[test]
fn no_call_begins_once_unsubscribe_has_returned() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("bus: no call begins once unsubscribe has returned", 3, 91, move || {
        let bus = bus();
        let (is_called, [gone, own]) = (notifies_first(&bus), flag());
        let call = move |_: &Delivery| assert!(!own.load(Ordering::SeqCst), "called after unsubscribe");
        let id = bus.on("a", call).unwrap().keep();
        let emitter = emits(&bus);
        is_called.wait();
        assert!(bus.unsubscribe(id));
        gone.store(true, Ordering::SeqCst);
        emitter.join().unwrap();
        seen.saw(law(&bus, 1));
    });
    // With the call of the other handler: taken out in time or not.
    witness.expect(&["(1, 1)", "(2, 0)"]);
}

/// Plugin with one handler, which must not be called once it is gone.
struct Guarded(std::sync::Arc<AtomicBool>);

impl Plugin for Guarded {
    fn name(&self) -> &str {
        "guarded"
    }

    fn start(&self, wiring: &mut Wiring<'_>) -> Result<(), SubscribeError> {
        let gone = self.0.clone();
        wiring.on("a", move |_: &Delivery| assert!(!gone.load(Ordering::SeqCst), "called after its stop"))
    }
}

/// Must report `plugin-stopped-and-still-subscribed`.
#[test]
fn no_call_of_a_plugin_begins_once_its_stop_has_returned() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("bus: no call of a plugin begins once it is stopped", 3, 1_087, move || {
        let bus = bus();
        let (is_called, [gone, own]) = (notifies_first(&bus), flag());
        let plugins = Plugins::new(&bus);
        plugins.start(Guarded(own)).unwrap();
        let emitter = emits(&bus);
        is_called.wait();
        assert!(plugins.stop("guarded"));
        gone.store(true, Ordering::SeqCst);
        emitter.join().unwrap();
        drop(plugins);
        let stats = bus.stop().unwrap().stats;
        seen.saw(stats.handlers.iter().chain([&stats.gone]).map(|it| it.cancelled).sum::<u64>());
    });
    witness.expect(&["0", "1"]);
}

/// Must report `subscription-dropped-and-still-subscribed`.
#[test]
fn no_call_begins_once_a_subscription_is_dropped() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("bus: no call begins once a subscription is dropped", 3, 91, move || {
        let bus = bus();
        let (is_called, [gone, own]) = (notifies_first(&bus), flag());
        let call = move |_: &Delivery| assert!(!own.load(Ordering::SeqCst), "called after the drop");
        let subscription = bus.on("a", call).unwrap();
        let emitter = emits(&bus);
        is_called.wait();
        drop(subscription);
        gone.store(true, Ordering::SeqCst);
        emitter.join().unwrap();
        seen.saw(law(&bus, 1));
    });
    witness.expect(&["(1, 1)", "(2, 0)"]);
}

/// Must report `bus-stop-awaits-nobody`.
#[test]
fn no_call_runs_once_a_stop_has_returned() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("bus: no call runs once a stop has returned", 3, 1_900, move || {
        let bus = bus();
        let is_called = notifies_first(&bus);
        // loom's: in every order, also within the call.
        let gone = Arc::new(loom::sync::atomic::AtomicBool::new(false));
        let own = gone.clone();
        let call = move |_: &Delivery| assert!(!own.load(Ordering::SeqCst), "called after the stop");
        bus.on("a", call).unwrap().keep();
        let emitter = emits(&bus);
        is_called.wait();
        let is_stopped = bus.stop().is_ok();
        gone.store(is_stopped, Ordering::SeqCst);
        emitter.join().unwrap();
        seen.saw((is_stopped, law(&bus, 1)));
    });
    witness.expect(&["(true, (2, 0))"]);
}

/// Must report `bus-filter-of-a-handler-asks-no-permit`.
#[test]
fn no_filter_of_a_handler_is_asked_once_unsubscribe_has_returned() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("bus: no filter of a handler is asked once it is gone", 3, 199, move || {
        let bus = bus();
        let [gone, own] = flag();
        let (first, is_asked, step) = rings();
        let second = Filter::new(move |_| {
            assert!(!own.load(Ordering::SeqCst), "asked after unsubscribe");
            true
        });
        let handler = Handler::new("a", |_: &Delivery| {}).filter(first).filter(second);
        let id = bus.subscribe(handler).unwrap().keep();
        let emitter = emits(&bus);
        is_asked.wait();
        assert!(bus.unsubscribe(id));
        gone.store(true, Ordering::SeqCst);
        step.store(true, Ordering::SeqCst);
        emitter.join().unwrap();
        seen.saw(law(&bus, 1));
    });
    witness.expect(&["(0, 0)"]);
}

/// Must report `bus-filter-removed-and-still-asked`.
#[test]
fn no_filter_is_asked_once_it_is_removed() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("bus: no filter is asked once it is removed", 3, 18, move || {
        let bus = bus();
        let [gone, own] = flag();
        let (first, is_asked, step) = rings();
        bus.add_filter(first);
        let id = bus.add_filter(Filter::new(move |_| {
            assert!(!own.load(Ordering::SeqCst), "asked after its removal");
            true
        }));
        let emitter = emits(&bus);
        is_asked.wait();
        assert!(bus.remove_filter(id));
        gone.store(true, Ordering::SeqCst);
        step.store(true, Ordering::SeqCst);
        emitter.join().unwrap();
        seen.saw(law(&bus, 1));
    });
    witness.expect(&["(0, 0)"]);
}

/// Must report `bus-waiter-unannounced` and `bus-withdrawn-call-wakes-nobody`.
#[test]
fn no_call_runs_once_unsubscribe_and_wait_has_returned() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("bus: no call runs once unsubscribe_and_wait has", 3, 130, move || {
        let bus = bus();
        let is_called = notifies_first(&bus);
        // loom's: in every order, also within the call.
        let gone = Arc::new(loom::sync::atomic::AtomicBool::new(false));
        let own = gone.clone();
        let call =
            move |_: &Delivery| assert!(!own.load(Ordering::SeqCst), "called after unsubscribe_and_wait");
        let id = bus.on("a", call).unwrap().keep();
        let emitter = emits(&bus);
        is_called.wait();
        assert!(bus.unsubscribe_and_wait(id, Duration::MAX));
        gone.store(true, Ordering::SeqCst);
        emitter.join().unwrap();
        seen.saw(law(&bus, 1));
    });
    witness.expect(&["(1, 1)", "(2, 0)"]);
}

/// Must report `bus-closed-events-are-not-ending`.
#[test]
fn an_event_against_a_stop_has_one_fate() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("bus: an event against a stop has one fate", 3, 1_900, move || {
        let bus = bus();
        let is_called = notifies_first(&bus);
        let called = std::sync::Arc::new(AtomicU64::new(0));
        let own = called.clone();
        bus.on("a", move |_: &Delivery| _ = own.fetch_add(1, Ordering::SeqCst)).unwrap().keep();
        let emitter = emits(&bus);
        is_called.wait();
        let stopped = bus.stop();
        emitter.join().unwrap();
        let stats = bus.stats();
        stats.check_law(1).unwrap();
        let [_, handler] = &stats.handlers[..] else { panic!("two handlers") };
        assert_eq!((handler.in_flight, handler.handled), (0, called.load(Ordering::SeqCst)));
        seen.saw((stopped.is_ok(), handler.handled, handler.cancelled));
    });
    witness.expect(&["(true, 0, 1)", "(true, 1, 0)"]);
}

/// Number in a cell whose accesses loom checks: to read it without a happens-before edge from the write is an error.
#[derive(Clone)]
struct Checked(std::sync::Arc<UnsafeCell<u32>>);

// SAFETY: that the cell is not accessed by two threads at once is what loom checks.
unsafe impl Send for Checked {}
// SAFETY: as above.
unsafe impl Sync for Checked {}

impl Checked {
    fn new() -> Self {
        Self(std::sync::Arc::new(UnsafeCell::new(0)))
    }

    fn set(&self, number: u32) {
        // SAFETY: as above.
        self.0.with_mut(|cell| unsafe { *cell = number });
    }

    fn get(&self) -> u32 {
        // SAFETY: as above.
        self.0.with(|cell| unsafe { *cell })
    }
}

/// Must report `bus-end-of-a-batch-without-fence`, `bus-wait-for-batches-without-fence`, `bus-end-of-a-batch-without-release` and
/// `bus-end-of-a-batch-read-without-acquire`.
#[test]
fn a_flush_covers_and_happens_after_calls_of_another_thread() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("bus: a flush covers calls of another thread", 3, 1_125, move || {
        let (bus, written, [begun, own]) = (bus(), Checked::new(), flag());
        let is_called = Arc::new(Notify::new());
        let notifier = is_called.clone();
        let first = move |_: &Delivery| {
            own.store(true, Ordering::SeqCst);
            notifier.notify();
        };
        bus.on("a", first).unwrap().keep();
        let own = written.clone();
        bus.on("a", move |_: &Delivery| own.set(1)).unwrap().keep();
        let emitter = emits(&bus);
        // May end without a reason, and then the event may come later than the flush.
        is_called.wait();
        let is_before = begun.load(Ordering::SeqCst);
        bus.flush().unwrap();
        if is_before {
            // Read without any other edge than the flush.
            assert_eq!(written.get(), 1, "the flush does not cover the call");
        }
        emitter.join().unwrap();
        assert_eq!(law(&bus, 1), (2, 0));
        seen.saw(is_before);
    });
    witness.expect(&["true"]);
}

/// Must report `bus-dead-letter-kept-behind-its-count`.
#[test]
fn every_dead_letter_that_is_counted_is_kept_once_a_stop_has_returned() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("bus: a dead letter is kept once a stop has returned", 3, 2_000, move || {
        let bus = bus();
        let is_called = notifies_first(&bus);
        let fails = |_: &Delivery| Err::<(), _>(HandlerError::new("cannot").permanent());
        bus.on("a", fails).unwrap().keep();
        let emitter = emits(&bus);
        is_called.wait();
        let stopped = bus.stop();
        if let Ok(report) = &stopped {
            let counted: u64 = report.stats.handlers.iter().map(|stats| stats.dead_lettered).sum();
            assert_eq!(bus.dead_letters().len() as u64, counted, "a dead letter is counted and not kept");
            seen.saw(counted);
        }
        emitter.join().unwrap();
        law(&bus, 1);
    });
    witness.expect(&["1"]);
}

/// Must report `bus-rejection-counted-before-its-letter`.
#[test]
fn every_rejection_that_is_counted_is_kept_once_a_stop_has_returned() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("bus: a rejection is kept once a stop has returned", 3, 1_600, move || {
        let bus = bus_with(BusConfig::default().with_handler_queue(1));
        let fails = |_: &Delivery| Err::<(), _>(HandlerError::new("cannot"));
        let handler =
            Handler::new("a", fails).ordered().retry(RetryPolicy::fixed(Duration::from_secs(3600), 1));
        bus.subscribe(handler).unwrap().keep();
        // It waits for its retry, and there is no space for another one behind it.
        bus.emit("a", ()).unwrap();
        let (filter, is_asked, _) = rings();
        bus.add_filter(filter);
        let emitter = emits(&bus);
        is_asked.wait();
        if let Ok(report) = bus.stop() {
            let stats = &report.stats.handlers[0];
            assert!(
                bus.dead_letters().len() as u64 >= stats.dead_lettered,
                "a dead letter is counted and not kept"
            );
            seen.saw((stats.dead_lettered, stats.in_flight));
        }
        emitter.join().unwrap();
        law(&bus, 2);
    });
    witness.expect(&["(1, 0)", "(2, 0)"]);
}
