//! Tests that what was taken out of a bus is not called any more, whoever is about to call it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use crate::common::once;
use crate::support;
use crate::support::{Gate, LONG, Raise};
use forebay_bus::{Bus, Delivery, Filter, Handler, HandlerError, Plugin, Plugins, SubscribeError, Wiring};

/// Runs a test with both ways of calling handlers, which are to do the same.
fn both(test: impl Fn(Bus)) {
    test(Bus::new().unwrap());
    test(Bus::builder().inline().start().unwrap());
}

fn forbidden(_: &Delivery) {
    panic!("called");
}

/// Stops the bus, and checks the law of the bus and of every handler.
#[track_caller]
fn law(bus: &Bus, emitted: u64) {
    let stats = bus.stop().unwrap().stats;
    stats.check_law(emitted).unwrap();
    for handler in stats.handlers.iter().chain([&stats.gone]) {
        assert_eq!((handler.in_flight, handler.panics), (0, 0), "{handler:?}");
    }
}

#[test]
fn no_filter_of_a_handler_is_asked_after_its_unsubscription() {
    both(|bus| {
        let asked = Arc::new(AtomicU64::new(0));
        let (own, counts) = (Arc::new(OnceLock::new()), asked.clone());
        let (id, inside) = (own.clone(), bus.clone());
        let first = Filter::new(move |_| inside.unsubscribe(*id.get().unwrap()));
        let second = Filter::new(move |_| counts.fetch_add(1, Ordering::SeqCst) > u64::MAX / 2);
        let handler = Handler::new("a.b", forbidden).filter(first).filter(second);
        own.set(bus.subscribe(handler).unwrap().keep()).unwrap();
        bus.emit("a.b", ()).unwrap();
        bus.flush().unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 0);
        law(&bus, 1);
    });
}

#[test]
fn no_filter_of_the_bus_is_asked_after_its_removal() {
    both(|bus| {
        let asked = Arc::new(AtomicU64::new(0));
        let (own, counts) = (Arc::new(OnceLock::new()), asked.clone());
        let (id, inside) = (own.clone(), bus.clone());
        bus.add_filter(Filter::new(move |_| inside.remove_filter(*id.get().unwrap())));
        let second =
            bus.add_filter(Filter::new(move |_| counts.fetch_add(1, Ordering::SeqCst) > u64::MAX / 2));
        own.set(second).unwrap();
        // The thread that emits has the second in its hands when the first removes it.
        assert!(bus.emit("a.b", ()).unwrap().outcome.is_queued());
        assert_eq!(asked.load(Ordering::SeqCst), 0);
        bus.flush().unwrap();
        law(&bus, 1);
    });
}

/// Says what is done with it, in order; its start stands at a gate.
struct Slow(Gate, Arc<Mutex<Vec<&'static str>>>);

impl Plugin for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    fn start(&self, wiring: &mut Wiring<'_>) -> Result<(), SubscribeError> {
        wiring.on("a.b", forbidden)?;
        self.0.pass();
        self.1.lock().unwrap().push("started");
        Ok(())
    }

    fn stop(&self) {
        self.1.lock().unwrap().push("stopped");
    }
}

#[test]
fn a_plugin_that_is_stopped_while_it_starts_is_stopped_behind_its_start() {
    both(|bus| {
        let (plugins, gate, reported) = (Plugins::new(&bus), Gate::closed(), Arc::default());
        std::thread::scope(|scope| {
            let starts = scope.spawn(|| plugins.start(Slow(gate.clone(), Arc::clone(&reported))));
            gate.await_arrivals(1);
            let stopped = (plugins.stop("slow"), plugins.stop("slow"));
            let reported = reported.lock().unwrap().clone();
            gate.open();
            starts.join().unwrap().unwrap();
            assert_eq!((stopped, reported), ((true, false), vec![]), "once, and not beside its start");
        });
        assert_eq!(*reported.lock().unwrap(), ["started", "stopped"]);
        assert!(plugins.names().is_empty());
        bus.emit("a.b", ()).unwrap();
        bus.flush().unwrap();
        drop(plugins);
        law(&bus, 1);
    });
}

#[test]
fn an_unsubscription_that_waits_says_in_a_handler_whether_a_call_runs() {
    both(|bus| {
        let (own, other, reported) =
            (Arc::new(OnceLock::new()), Arc::new(OnceLock::new()), Arc::new(OnceLock::new()));
        let (ids, inside, tells) = ((own.clone(), other.clone()), bus.clone(), reported.clone());
        let call = move |_: &Delivery| {
            let (own, other) = (*ids.0.get().unwrap(), *ids.1.get().unwrap());
            // Of this very call; once more, when it is gone; of a handler that nobody calls.
            let reported = [own, own, other].map(|id| inside.unsubscribe_and_wait(id, LONG));
            tells.set(reported).unwrap();
        };
        // One call at a time: another worker must not take the second event before the first call unsubscribes.
        own.set(bus.subscribe(Handler::new("a.b", call).max_concurrent(1)).unwrap().keep()).unwrap();
        other.set(bus.on("a.c", forbidden).unwrap().keep()).unwrap();
        bus.emit("a.b", ()).unwrap();
        bus.emit("a.b", ()).unwrap();
        bus.flush().unwrap();
        assert_eq!(reported.get(), Some(&[false, false, true]));
        bus.emit("a.c", ()).unwrap();
        bus.flush().unwrap();
        law(&bus, 3);
    });
}

#[test]
fn an_unsubscription_that_waits_in_a_handler_tells_of_a_call_on_another_thread() {
    let (gate, reported, bus) =
        (Gate::closed(), Arc::new(OnceLock::new()), Bus::builder().workers(2).start().unwrap());
    let slow = gate.clone();
    let id = bus.on("a.slow", move |_: &Delivery| slow.pass()).unwrap().keep();
    let (inside, tells) = (bus.clone(), reported.clone());
    bus.on("a.quick", move |_: &Delivery| tells.set(inside.unsubscribe_and_wait(id, LONG)).unwrap())
        .unwrap()
        .keep();
    bus.emit("a.slow", ()).unwrap();
    gate.await_arrivals(1);
    bus.emit("a.quick", ()).unwrap();
    support::until("the other handler is done", || reported.get().is_some());
    gate.open();
    assert_eq!(reported.get(), Some(&false));
    law(&bus, 2);
}

#[test]
fn no_call_runs_after_an_unsubscription_that_waits_however_events_race_it() {
    const ROUNDS: u64 = 20_000;
    let bus = Bus::builder().workers(2).start().unwrap();
    let (late, calls) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    for round in 0..ROUNDS {
        let gone = Arc::new(AtomicBool::new(false));
        let (own, late, calls) = (gone.clone(), late.clone(), calls.clone());
        let call = move |_: &Delivery| {
            calls.fetch_add(1, Ordering::SeqCst);
            late.fetch_add(u64::from(own.load(Ordering::SeqCst)), Ordering::SeqCst);
        };
        let id = bus.on("a.b", call).unwrap().keep();
        bus.emit("a.b", ()).unwrap();
        (0..(round % 400) * 25).for_each(|_| std::hint::spin_loop());
        // Every other time without a wait: then the call may have begun.
        if round % 2 == 0 {
            assert!(bus.unsubscribe_and_wait(id, LONG));
            gone.store(true, Ordering::SeqCst);
        } else {
            assert!(bus.unsubscribe(id));
        }
    }
    let stats = bus.stop().unwrap().stats;
    stats.check_law(ROUNDS).unwrap();
    assert_eq!(late.load(Ordering::SeqCst), 0, "calls after unsubscribe_and_wait");
    // Each event has one fate: called, or cancelled, or it came when its handler was gone.
    assert_eq!(stats.gone.handled, calls.load(Ordering::SeqCst));
    assert_eq!(stats.gone.matched, stats.gone.handled + stats.gone.cancelled);
    assert!(stats.gone.matched <= ROUNDS);
}

#[test]
fn a_handler_may_unsubscribe_itself_and_subscribe_others() {
    for is_inline in [false, true] {
        let mut builder = Bus::builder();
        if is_inline {
            builder = builder.inline();
        }
        let bus = builder.start().unwrap();
        let calls = Arc::new(AtomicU64::new(0));
        let id = Arc::new(Mutex::new(None));
        let (inner, number, count) = (bus.clone(), Arc::clone(&id), Arc::clone(&calls));
        let first = bus
            .on("a.b", move |_| {
                let own = number.lock().unwrap().take();
                if let Some(own) = own {
                    assert!(inner.unsubscribe(own));
                    // Nor does it wait for itself.
                    assert!(!inner.unsubscribe_and_wait(own, LONG));
                    let count = Arc::clone(&count);
                    inner.on("a.b", move |_| _ = count.fetch_add(1, Ordering::SeqCst)).unwrap().keep();
                }
            })
            .unwrap()
            .keep();
        *id.lock().unwrap() = Some(first);
        bus.emit_sync("a.b", ()).unwrap();
        bus.emit_sync("a.b", ()).unwrap();
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        let stats = crate::common::law(&bus, 2);
        assert_eq!((stats.handlers.len(), stats.gone.handled), (1, 1));
    }
}

#[test]
fn many_threads_emit_subscribe_and_unsubscribe_and_nothing_is_lost_silently() {
    let bus = Bus::new().unwrap();
    bus.on("a.*", |_| ()).unwrap().keep();
    let emitted = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for producer in 0..3 {
            let (bus, emitted) = (&bus, &emitted);
            scope.spawn(move || {
                for number in 0..5_000 {
                    bus.emit(["a.b", "a.c"][number % 2], number + producer).unwrap();
                    emitted.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..500 {
                let guard = bus.on("a.b", |_| Err(HandlerError::new("no"))).unwrap();
                bus.emit_sync("a.b", ()).unwrap();
                emitted.fetch_add(1, Ordering::Relaxed);
                drop(guard);
            }
        });
    });
    bus.stop().unwrap();
    let stats = crate::common::law(&bus, emitted.load(Ordering::Relaxed));
    assert_eq!(stats.handlers[0].handled, stats.events.processed);
    assert_eq!(stats.gone.in_flight, 0);
    assert!(stats.gone.matched >= 500 && stats.gone.cancelled > 0);
}

#[test]
fn every_call_is_in_the_account_although_others_look_while_its_handler_is_unsubscribed() {
    let bus = Bus::builder().config(once()).start().unwrap();
    let (calls, emitted, is_over) = (Arc::new(AtomicU64::new(0)), AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let _ = bus.stats();
                }
            });
        }
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                bus.emit_sync("a.b", ()).unwrap();
                emitted.fetch_add(1, Ordering::Relaxed);
            }
        });
        let raise = Raise(&is_over);
        for _ in 0..3_000 {
            let count = Arc::clone(&calls);
            drop(bus.on("a.b", move |_| _ = count.fetch_add(1, Ordering::SeqCst)).unwrap());
        }
        drop(raise);
    });
    let stats = bus.stop().unwrap().stats;
    stats.check_law(emitted.load(Ordering::Relaxed)).unwrap();
    assert_eq!(stats.gone.handled, calls.load(Ordering::SeqCst));
}
