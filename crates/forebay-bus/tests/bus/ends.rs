//! The end of a bus, of its events, handlers and filters.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use crate::common::{Spite, failing, law, once};
use crate::support::{Gate, LONG, hush, until};
use forebay::{ManualClock, Outcome, Record};
use forebay_bus::{Bus, Filter, Handler, HandlerError, SubscribeError};

#[test]
fn a_bus_dropped_in_a_handler_stops_by_itself() {
    for is_inline in [false, true] {
        let mut builder = Bus::builder();
        if is_inline {
            builder = builder.inline();
        }
        let bus = builder.start().unwrap();
        let (own, emitter) = (Arc::new(Mutex::new(Some(bus.clone()))), bus.emitter());
        let (sender, dropped) = mpsc::channel();
        let held = Arc::new(());
        let (bait, gate) = (Arc::downgrade(&held), Gate::closed());
        let at = gate.clone();
        bus.on("a.b", move |_| {
            let _held = &held;
            if !is_inline {
                at.pass();
            }
            drop(own.lock().unwrap().take());
            sender.send(()).unwrap();
        })
        .unwrap()
        .keep();
        if is_inline {
            // The handle in the handler is not the last one while `bus` is borrowed.
            let emitter = bus.emitter();
            drop(bus);
            emitter.emit("a.b", ()).unwrap();
        } else {
            bus.emit("a.b", ()).unwrap();
            gate.await_arrivals(1);
            drop(bus);
            gate.open();
        }
        dropped.recv_timeout(LONG).unwrap();
        until("nobody takes events any more", || {
            emitter.emit("c.d", ()).unwrap().outcome == Outcome::Stopped
        });
        until("its handlers have ended", || bait.strong_count() == 0);
    }
}

#[test]
fn a_stop_handles_what_was_emitted_buries_retries_and_refuses_the_rest() {
    for is_inline in [false, true] {
        let clock = ManualClock::new();
        let mut builder = Bus::builder().manual_clock(&clock);
        if is_inline {
            builder = builder.inline();
        }
        let bus = builder.start().unwrap();
        let attempts = Arc::default();
        bus.subscribe(failing(&attempts, &clock)).unwrap().keep();
        let discards = failing(&attempts, &clock).discard_failed();
        bus.subscribe(discards).unwrap().keep();
        bus.on("a.b", |_| ()).unwrap().keep();
        bus.emit("fails.always", ()).unwrap();
        for _ in 0..1_000 {
            bus.emit("a.b", ()).unwrap();
        }
        let report = bus.stop().unwrap();
        assert_eq!(report.left_behind, 0);
        let handlers = &report.stats.handlers;
        assert_eq!((handlers[0].dead_lettered, handlers[1].failed, handlers[2].handled), (1, 1, 1_000));
        assert_eq!(bus.dead_letters().entries()[0].error, "fails.always: no luck");
        assert_eq!(bus.emit("a.b", ()).unwrap().outcome, Outcome::Stopped);
        assert!(bus.on("a.b", |_| ()).is_err());
        assert!(bus.flush().is_err());
        let again = bus.stop().unwrap();
        assert_eq!(again.stats.handlers, report.stats.handlers);
        law(&bus, 1_002);
    }
}

/// Counts its ends.
#[derive(Clone)]
struct Counted(#[allow(dead_code, reason = "it is there to end")] Arc<Ends>);

impl From<Counted> for Record {
    fn from(_: Counted) -> Record {
        Record::new("counted.event")
    }
}

struct Ends(Arc<AtomicU64>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn every_event_is_dropped_exactly_once() {
    hush();
    for is_inline in [false, true] {
        let ends = Arc::new(AtomicU64::new(0));
        let config = once().with_handler_queue(3).with_dead_letters(5);
        let collector = config.collector.clone().with_capacity(16);
        let mut builder = Bus::builder().config(config.with_collector(collector));
        if is_inline {
            builder = builder.inline();
        }
        let bus = builder.start().unwrap();
        let turn = AtomicU64::new(0);
        bus.on_type(move |_: &Counted| match turn.fetch_add(1, Ordering::SeqCst) % 3 {
            0 => Ok(()),
            1 => Err(HandlerError::new("no")),
            _ => panic!("on purpose"),
        })
        .unwrap()
        .keep();
        let guard = bus.on("counted.*", |_| ()).unwrap();
        for _ in 0..1_000 {
            bus.emit_event(Counted(Arc::new(Ends(Arc::clone(&ends))))).unwrap();
        }
        drop(guard);
        for _ in 0..1_000 {
            bus.emit_event(Counted(Arc::new(Ends(Arc::clone(&ends))))).unwrap();
        }
        bus.stop().unwrap();
        law(&bus, 2_000);
        assert!(ends.load(Ordering::SeqCst) <= 2_000);
        drop(bus);
        until("all have ended", || ends.load(Ordering::SeqCst) >= 2_000);
        assert_eq!(ends.load(Ordering::SeqCst), 2_000);
    }
}

#[test]
fn a_destructor_that_panics_costs_no_worker() {
    hush();
    let bus = Bus::builder().config(once().with_workers(1)).start().unwrap();
    // The function of a handler ends with its captures, on whatever thread has it last.
    let (gate, spite) = (Gate::closed(), Spite);
    let own = gate.clone();
    let id = bus
        .on("a.b", move |_| {
            let _spite = &spite;
            own.pass();
        })
        .unwrap()
        .keep();
    bus.emit("a.b", ()).unwrap();
    gate.await_arrivals(1);
    bus.unsubscribe(id);
    gate.open();
    bus.flush().unwrap();
    bus.on("a.b", |_| ()).unwrap().keep();
    assert_eq!(bus.emit_sync("a.b", ()).unwrap().calls.unwrap().handled, 1);
    assert_eq!((bus.worker_stats().total, bus.worker_stats().restarts), (1, 0));
    assert_eq!(law(&bus, 2).gone.in_flight, 0);
}

fn spiteful() -> Filter {
    let spite = Spite;
    Filter::new(move |_| {
        let _spite = &spite;
        true
    })
}

#[test]
fn a_filter_or_a_handler_that_ends_with_a_panic_does_no_harm() {
    hush();
    for is_inline in [false, true] {
        let builder = Bus::builder().config(once().with_max_subscribers(1));
        let bus = if is_inline { builder.inline() } else { builder }.start().unwrap();
        let id = bus.add_filter(spiteful());
        bus.emit("a.b", ()).unwrap();
        assert!(bus.remove_filter(id));
        let spite = Spite;
        let handler = Handler::new("a.b", move |_| _ = &spite).filter(spiteful());
        let id = bus.subscribe(handler).unwrap().keep();
        bus.emit_sync("a.b", ()).unwrap();
        let (spite, filtered) = (Spite, spiteful());
        let too_many = bus.subscribe(Handler::new("a.b", move |_| _ = &spite).filter(filtered));
        assert!(matches!(too_many, Err(SubscribeError::TooMany { .. })));
        assert!(bus.unsubscribe(id));
        bus.emit("a.b", ()).unwrap();
        bus.flush().unwrap();
        bus.add_filter(spiteful());
        bus.stop().unwrap().stats.check_law(3).unwrap();
        drop(bus);
    }
}
