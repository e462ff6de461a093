//! What a bus makes of handlers that fail, panic, hang, emit for ever, unsubscribe themselves, or drop it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use crate::support;
use crate::support::{Gate, LONG, hush, until};
use forebay::bus::{
    AlertKind, Bus, BusConfig, BusStats, BusStopError, EmitError, Handler, HandlerError, Scaling,
};
use forebay::catalog::system::PerformanceWarning;
use forebay::sink::{RetryPolicy, from_fn};
use forebay::{Batch, Config, FlushError, HealthStatus, ManualClock, Outcome, Overflow, Record};

#[track_caller]
fn law(bus: &Bus, emitted: u64) -> BusStats {
    let stats = bus.stats();
    if let Err(broken) = stats.check_law(emitted) {
        panic!("{broken}");
    }
    stats
}

/// Settings without retries: the first failure is the last.
fn once() -> BusConfig {
    BusConfig { retry: RetryPolicy::list([]), ..BusConfig::default() }
}

fn failing(attempts: &Arc<Mutex<Vec<Duration>>>, clock: &ManualClock) -> Handler {
    let (attempts, clock) = (Arc::clone(attempts), clock.clone());
    Handler::new("fails.always", move |_| {
        attempts.lock().unwrap().push(clock.elapsed());
        Err(HandlerError::new("no luck"))
    })
}

#[test]
fn a_call_that_fails_is_made_again_after_1_2_and_4_seconds_and_then_the_event_is_a_dead_letter() {
    for is_inline in [false, true] {
        let clock = ManualClock::new();
        let mut builder = Bus::builder().manual_clock(&clock);
        if is_inline {
            builder = builder.inline();
        }
        let bus = builder.start().unwrap();
        let attempts = Arc::default();
        bus.subscribe(failing(&attempts, &clock).named("unlucky")).unwrap().keep();
        let seen = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&seen);
        bus.on("other.event", move |_| _ = count.fetch_add(1, Ordering::SeqCst)).unwrap().keep();
        let receipt = bus.emit_sync("fails.always", 7).unwrap();
        assert_eq!(receipt.calls.unwrap().failed, 1);
        for (retry, wait) in [(1, 1_000), (2, 2_000), (3, 4_000)] {
            clock.advance(Duration::from_millis(wait - 1));
            // Nothing before its time; and others are not held up.
            bus.emit_sync("other.event", ()).unwrap();
            bus.flush().unwrap();
            assert_eq!(attempts.lock().unwrap().len(), retry, "{retry}");
            clock.advance(Duration::from_millis(1));
            if is_inline {
                bus.flush().unwrap();
            }
            until("it is called again", || attempts.lock().unwrap().len() == retry + 1);
            // Its wait begins when the call has ended: not before the clock is moved again.
            until("the call is over", || {
                let unlucky = bus.stats().handler("unlucky").unwrap().clone();
                unlucky.retries + unlucky.dead_lettered == retry as u64 + 1
            });
        }
        until("it is a dead letter", || bus.dead_letters().len() == 1);
        let made: Vec<u128> = attempts.lock().unwrap().iter().map(Duration::as_millis).collect();
        assert_eq!(made, [0, 1_000, 3_000, 7_000]);
        let letter = bus.dead_letters().entries().remove(0);
        assert_eq!((letter.attempts, &*letter.error), (4, "unlucky: no luck"));
        assert_eq!(letter.event.value().as_i64(), Some(7));
        until("the call is over", || bus.stats().handler("unlucky").unwrap().in_flight == 0);
        let stats = law(&bus, 4);
        let unlucky = stats.handler("unlucky").unwrap();
        assert_eq!((unlucky.dead_lettered, unlucky.retries, unlucky.failed), (1, 3, 0));
        assert_eq!((bus.metrics().retry.total, seen.load(Ordering::SeqCst)), (3, 3));
        assert_eq!(bus.health().alerts[0].kind, AlertKind::DeadLetters);
    }
}

#[test]
fn a_call_that_panics_fails_and_the_worker_goes_on() {
    hush();
    let bus = Bus::builder().config(BusConfig { workers: 1, ..once() }).start().unwrap();
    bus.on("a.b", |_| -> Result<(), HandlerError> { panic!("on purpose") }).unwrap().keep();
    let seen = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&seen);
    bus.on("a.b", move |_| _ = count.fetch_add(1, Ordering::SeqCst)).unwrap().keep();
    for _ in 0..100 {
        bus.emit("a.b", ()).unwrap();
    }
    bus.flush().unwrap();
    assert_eq!(seen.load(Ordering::SeqCst), 100);
    let stats = law(&bus, 100);
    assert_eq!((stats.handlers[0].panics, stats.handlers[0].dead_lettered), (100, 100));
    assert_eq!(stats.handlers[0].last_error.as_deref(), Some("panicked: on purpose"));
    assert_eq!(bus.worker_stats().total, 1);
}

#[test]
fn permanent_errors_are_not_tried_again_and_failures_can_be_let_go_of() {
    let bus = Bus::new().unwrap();
    let handler =
        |name: &'static str| Handler::new("a.b", |_| Err(HandlerError::new("never").permanent())).named(name);
    bus.subscribe(handler("kept")).unwrap().keep();
    bus.subscribe(handler("discarded").discard_failed()).unwrap().keep();
    bus.emit("a.b", ()).unwrap();
    bus.flush().unwrap();
    let stats = law(&bus, 1);
    assert_eq!((stats.handlers[0].dead_lettered, stats.handlers[0].retries), (1, 0));
    assert_eq!((stats.handlers[1].failed, bus.dead_letters().len()), (1, 1));
}

#[test]
fn dead_letters_are_offered_again_and_purged() {
    for is_inline in [false, true] {
        let mut builder = Bus::builder().config(once());
        if is_inline {
            builder = builder.inline();
        }
        let bus = builder.start().unwrap();
        let is_broken = Arc::new(AtomicU64::new(1));
        let broken = Arc::clone(&is_broken);
        let handler = Handler::new("a.b", move |event| match broken.load(Ordering::SeqCst) {
            0 => Ok(()),
            _ => Err(HandlerError::new(format!("attempt {}", event.attempt()))),
        });
        let id = bus.subscribe(handler.named("h")).unwrap().keep();
        for number in 0..150 {
            bus.emit("a.b", number).unwrap();
        }
        bus.flush().unwrap();
        assert_eq!(bus.dead_letters().len(), 150);
        // It fails again: the same letters, one attempt older.
        assert_eq!(bus.redrive(None), 150);
        let all_of = |attempts| {
            move |bus: &Bus| {
                let letters = bus.dead_letters().entries();
                letters.len() == 150 && letters.iter().all(|letter| letter.attempts == attempts)
            }
        };
        until("all were offered again", || all_of(2)(&bus));
        assert!(bus.dead_letters().entries().iter().all(|letter| letter.error == "h: attempt 2"));
        is_broken.store(0, Ordering::SeqCst);
        assert_eq!(bus.redrive(None), 150);
        until("all were taken", || bus.dead_letters().is_empty() && bus.stats().handlers[0].redriven == 150);
        let stats = law(&bus, 150);
        assert_eq!((stats.handlers[0].dead_lettered, stats.handlers[0].matched), (150, 150));
        // Those of a handler that is gone stay.
        is_broken.store(1, Ordering::SeqCst);
        bus.emit("a.b", ()).unwrap();
        bus.flush().unwrap();
        bus.unsubscribe(id);
        bus.redrive(None);
        bus.flush().unwrap();
        assert_eq!(bus.dead_letters().len(), 1);
        assert_eq!(bus.dead_letters().purge().len(), 1);
        law(&bus, 151);
    }
}

#[test]
fn order_is_kept_through_a_retry_and_other_names_do_not_wait() {
    let clock = ManualClock::new();
    let bus = Bus::builder().manual_clock(&clock).start().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let own = Arc::clone(&seen);
    let handler = Handler::new("order.*", move |event| {
        if event.name() == "order.a" && event.value().as_i64() == Some(0) && event.attempt() == 1 {
            return Err(HandlerError::new("once"));
        }
        own.lock().unwrap().push((event.name().to_owned(), event.value().as_i64().unwrap()));
        Ok(())
    });
    bus.subscribe(handler.ordered()).unwrap().keep();
    for number in 0..3 {
        bus.emit("order.a", number).unwrap();
    }
    bus.emit("order.b", 9).unwrap();
    until("the other name went on", || *seen.lock().unwrap() == [("order.b".to_owned(), 9)]);
    clock.advance(Duration::from_secs(1));
    until("all are taken", || seen.lock().unwrap().len() == 4);
    bus.flush().unwrap();
    let numbers: Vec<i64> = seen.lock().unwrap().iter().map(|(_, number)| *number).collect();
    assert_eq!(numbers, [9, 0, 1, 2]);
    law(&bus, 4);
}

#[test]
fn a_handler_that_hangs_is_told_loses_no_worker_for_others_and_its_events_are_kept() {
    let clock = ManualClock::new();
    let config = BusConfig { workers: 2, handler_queue: 10, deadline: Duration::from_secs(5), ..once() };
    let bus = Bus::builder().config(config).manual_clock(&clock).start().unwrap();
    let gate = Gate::closed();
    let own = gate.clone();
    bus.subscribe(Handler::new("hangs.*", move |_| own.pass()).named("hung")).unwrap().keep();
    let warnings = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&warnings);
    bus.on(PerformanceWarning::NAME, move |event| {
        let fields = event.value().as_fields().unwrap();
        told.lock().unwrap().push(fields.get("component").unwrap().as_str().unwrap().to_owned());
    })
    .unwrap()
    .keep();
    // Both workers are taken.
    bus.emit("hangs.one", ()).unwrap();
    bus.emit("hangs.two", ()).unwrap();
    gate.await_arrivals(2);
    assert!(bus.health().alerts.is_empty());
    clock.advance(Duration::from_secs(5));
    until("it is told", || warnings.lock().unwrap().len() == 2);
    assert_eq!(*warnings.lock().unwrap(), ["hung", "hung"]);
    let health = bus.health();
    assert_eq!(health.status, HealthStatus::Degraded);
    assert_eq!(health.alerts[0].kind, AlertKind::HandlerOverdue);
    until("others take their places", || {
        let workers = bus.worker_stats();
        (workers.stuck, workers.total) == (2, 2)
    });
    // Others are called at once, by workers that took the places.
    bus.on("other.event", |_| ()).unwrap().keep();
    assert_eq!(bus.emit_sync("other.event", ()).unwrap().calls.unwrap().handled, 1);
    // It gets no more, and holds nobody up: ten wait, the others are dead letters.
    for _ in 0..50 {
        bus.emit("hangs.more", ()).unwrap();
        bus.emit_sync("other.event", ()).unwrap();
    }
    assert_eq!(bus.dead_letters().len(), 40);
    assert_eq!(bus.dead_letters().entries()[0].error, "hung: its queue is full, because a call hangs");
    gate.open();
    bus.flush().unwrap();
    until("its workers are back, and too many", || {
        let workers = bus.worker_stats();
        (workers.stuck, workers.total) == (0, 2)
    });
    assert!(bus.health().alerts.iter().all(|alert| alert.kind == AlertKind::DeadLetters));
    let stats = law(&bus, 103);
    let hung = stats.handler("hung").unwrap();
    assert_eq!((hung.handled, hung.dead_lettered, hung.overdue), (12, 40, 2));
    assert_eq!(stats.own, 2);
}

#[test]
fn a_handler_that_hangs_is_called_with_nothing_more_until_it_returns() {
    let clock = ManualClock::new();
    let config = BusConfig { workers: 4, deadline: Duration::from_secs(5), ..once() };
    let bus = Bus::builder().config(config).manual_clock(&clock).start().unwrap();
    let (gate, calls) = (Gate::closed(), Arc::new(AtomicU64::new(0)));
    let (own, count) = (gate.clone(), Arc::clone(&calls));
    bus.on("hangs.*", move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        own.pass();
    })
    .unwrap()
    .keep();
    bus.on("other.event", |_| ()).unwrap().keep();
    bus.emit("hangs.one", ()).unwrap();
    gate.await_arrivals(1);
    clock.advance(Duration::from_secs(5));
    until("it is told", || bus.worker_stats().stuck == 1);
    bus.emit("hangs.two", ()).unwrap();
    for _ in 0..100 {
        bus.emit_sync("other.event", ()).unwrap();
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    gate.open();
    bus.flush().unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    assert_eq!(law(&bus, 102).handlers[0].handled, 2);
}

#[test]
fn who_waits_for_a_handler_waits_no_longer_than_its_deadline() {
    let clock = ManualClock::new();
    let config = BusConfig { workers: 2, handler_queue: 2, deadline: Duration::from_secs(5), ..once() };
    let bus = Bus::builder().config(config).manual_clock(&clock).start().unwrap();
    let (gate, seen) = (Gate::closed(), Arc::new(AtomicU64::new(0)));
    let (own, count) = (gate.clone(), Arc::clone(&seen));
    let hung = Handler::new("hangs.*", move |_| own.pass());
    bus.subscribe(hung.at_once(1).named("hung")).unwrap().keep();
    bus.on("other.event", move |_| _ = count.fetch_add(1, Ordering::SeqCst)).unwrap().keep();
    for _ in 0..10 {
        bus.emit("hangs.one", ()).unwrap();
    }
    gate.await_arrivals(1);
    until("its queue is full", || bus.stats().handler("hung").unwrap().in_flight == 3);
    bus.emit("other.event", ()).unwrap();
    clock.advance(Duration::from_secs(5));
    until("others have their events", || seen.load(Ordering::SeqCst) == 1);
    assert_eq!(bus.dead_letters().len(), 7);
    gate.open();
    bus.flush().unwrap();
    let stats = law(&bus, 11);
    assert_eq!((stats.handlers[0].handled, stats.handlers[0].dead_lettered), (3, 7));
}

#[test]
fn a_handler_that_is_behind_holds_the_rings_back_and_they_evict_or_block() {
    let collector = |overflow| Config { capacity: 8, overflow, ..BusConfig::default().collector };
    for overflow in [Overflow::DropOldest, Overflow::DropNewest, Overflow::Block { timeout: Duration::ZERO }]
    {
        let config = BusConfig { workers: 1, handler_queue: 4, collector: collector(overflow), ..once() };
        let bus = Bus::builder().config(config).start().unwrap();
        let gate = Gate::closed();
        let own = gate.clone();
        bus.on("a.b", move |_| own.pass()).unwrap().keep();
        bus.emit("a.b", ()).unwrap();
        gate.await_arrivals(1);
        for _ in 0..1_000 {
            bus.emit("a.b", ()).unwrap();
        }
        // In the rings, in the hands of their worker, in the queue of the handler, in the call. Their worker comes to rest.
        until("all are where they are to wait", || bus.stats().check_law(1_001).is_ok());
        let stats = bus.stats();
        assert!(stats.events.evicted + stats.events.rejected.full > 900, "{stats:?}");
        assert!(stats.events.pending <= 8 + 8 && stats.handlers[0].in_flight <= 5, "{stats:?}");
        gate.open();
        bus.flush().unwrap();
        let stats = law(&bus, 1_001);
        assert_eq!(stats.handlers[0].handled, stats.events.processed);
    }
}

#[test]
fn a_handler_does_not_wait_for_room_that_it_would_have_to_make_itself() {
    let overflow = Overflow::Block { timeout: LONG };
    let collector = Config { capacity: 1, overflow, ..BusConfig::default().collector };
    let config = BusConfig { workers: 1, handler_queue: 1, collector, max_depth: u32::MAX, ..once() };
    let bus = Bus::builder().config(config).start().unwrap();
    let (emitter, refused) = (bus.emitter(), Arc::new(AtomicU64::new(0)));
    let full = Arc::clone(&refused);
    bus.on("a.b", move |_| {
        for _ in 0..100 {
            if emitter.emit("derived.one", ()).unwrap().outcome == Outcome::Full {
                full.fetch_add(1, Ordering::SeqCst);
            }
        }
    })
    .unwrap()
    .keep();
    bus.on("derived.*", |_| ()).unwrap().keep();
    let begun = Instant::now();
    bus.emit_sync("a.b", ()).unwrap();
    assert!(begun.elapsed() < LONG / 2);
    bus.flush().unwrap();
    assert!(refused.load(Ordering::SeqCst) > 0);
    law(&bus, 101);
}

#[test]
fn a_chain_of_events_ends_at_its_greatest_depth() {
    for is_inline in [false, true] {
        let mut builder = Bus::builder();
        if is_inline {
            builder = builder.inline();
        }
        let bus = builder.start().unwrap();
        let (emitter, (sender, ended)) = (bus.emitter(), mpsc::channel());
        bus.on("again.and_again", move |_| {
            if let Err(error) = emitter.emit("again.and_again", ()) {
                sender.send(error).unwrap();
            }
        })
        .unwrap()
        .keep();
        bus.emit("again.and_again", ()).unwrap();
        let error = ended.recv_timeout(LONG).unwrap();
        let name = "again.and_again".to_owned();
        assert_eq!(error, EmitError::TooDeep { name, depth: 17, most: 16 });
        bus.flush().unwrap();
        let stats = law(&bus, 18);
        assert_eq!((stats.too_deep, stats.handlers[0].handled), (1, 17));
    }
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
        let stats = law(&bus, 2);
        assert_eq!((stats.handlers.len(), stats.gone.handled), (1, 1));
    }
}

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
fn calls_that_would_wait_for_themselves_are_refused() {
    let bus = Bus::new().unwrap();
    let (own, (sender, told)) = (bus.clone(), mpsc::channel());
    let id = bus
        .on("a.b", move |_| {
            assert_eq!(own.flush().unwrap_err(), FlushError::OnWorker);
            assert_eq!(own.stop().unwrap_err(), BusStopError::Inside);
            sender.send(()).unwrap();
        })
        .unwrap()
        .keep();
    bus.emit_sync("a.b", ()).unwrap();
    told.recv_timeout(LONG).unwrap();
    bus.unsubscribe(id);
    law(&bus, 1);
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

#[test]
fn a_stop_ends_by_its_deadline_beside_a_handler_that_hangs() {
    let bus = Bus::builder().config(BusConfig { workers: 1, ..once() }).start().unwrap();
    let gate = Gate::closed();
    let own = gate.clone();
    bus.on("a.b", move |_| own.pass()).unwrap().keep();
    for _ in 0..10 {
        bus.emit("a.b", ()).unwrap();
    }
    let _ = bus.collector().flush().unwrap();
    gate.await_arrivals(1);
    let begun = Instant::now();
    let Err(BusStopError::TimedOut { report }) = bus.stop_timeout(Duration::from_millis(50)) else {
        panic!()
    };
    assert!(begun.elapsed() < support::SOON);
    assert_eq!(report.left_behind, 1);
    report.stats.check_law(10).unwrap();
    assert_eq!((report.stats.handlers[0].cancelled, report.stats.handlers[0].in_flight), (9, 1));
    gate.open();
    until("the last call is over", || bus.stats().handlers[0].in_flight == 0);
    assert_eq!(law(&bus, 10).handlers[0].handled, 1);
}

#[test]
fn the_number_of_workers_follows_the_load_and_the_hand() {
    let clock = ManualClock::new();
    let scaling = Some(Scaling::default());
    let config = BusConfig { workers: 2, scaling, deadline: Duration::from_secs(3_600), ..once() };
    let bus = Bus::builder().config(config).manual_clock(&clock).start().unwrap();
    let gate = Gate::closed();
    let own = gate.clone();
    bus.on("a.b", move |_| own.pass()).unwrap().keep();
    let looked = |is_there: fn(u64) -> bool| {
        // The first look only begins the window, so the clock is moved until the number changes.
        until("the number of workers changes", || {
            clock.advance(Duration::from_secs(1));
            is_there(bus.worker_stats().target)
        });
    };
    for _ in 0..8 {
        bus.emit("a.b", ()).unwrap();
    }
    gate.await_arrivals(2);
    looked(|workers| workers >= 4);
    gate.await_arrivals(4);
    looked(|workers| workers == 8);
    gate.await_arrivals(8);
    assert_eq!(bus.worker_stats().active, 8);
    gate.open();
    bus.flush().unwrap();
    looked(|workers| workers == 2);
    until("the others have gone", || bus.worker_stats().total == 2);
    bus.stop().unwrap();
    law(&bus, 8);
    // By hand, where nobody else changes it.
    let bus = Bus::builder().workers(2).start().unwrap();
    bus.scale_workers(5).unwrap();
    until("there are five", || bus.worker_stats().total == 5);
    bus.scale_workers(1).unwrap();
    until("there is one", || bus.worker_stats().total == 1);
    bus.stop().unwrap();
    law(&bus, 0);
}

#[test]
fn the_decision_to_scale_is_one_of_numbers() {
    let scaling = Scaling::default();
    let cases = [
        (2, 0.81, 4),
        (4, 0.81, 8),
        (5, 0.9, 8),
        (8, 1.0, 8),
        (2, 0.8, 2),
        (8, 0.2, 8),
        (8, 0.19, 4),
        (4, 0.0, 2),
        (3, 0.0, 2),
        (2, 0.0, 2),
        (1, 0.5, 2),
        (100, 0.5, 8),
        (4, f64::NAN, 4),
        (usize::MAX, f64::INFINITY, 8),
    ];
    for (workers, utilization, expected) in cases {
        assert_eq!(scaling.decide(workers, utilization), expected, "{workers} at {utilization}");
    }
}

/// Counts its ends.
#[derive(Clone)]
struct Counted(#[allow(dead_code, reason = "it is there to end")] Arc<Ends>);

struct Ends(Arc<AtomicU64>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl From<Counted> for Record {
    fn from(_: Counted) -> Record {
        Record::new("counted.event")
    }
}

#[test]
fn every_event_is_dropped_exactly_once() {
    hush();
    for is_inline in [false, true] {
        let ends = Arc::new(AtomicU64::new(0));
        let config = BusConfig { handler_queue: 3, dead_letters: 5, ..once() };
        let mut builder = Bus::builder()
            .config(BusConfig { collector: Config { capacity: 16, ..config.collector.clone() }, ..config });
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

/// Panics when it ends.
struct Spite;

impl Drop for Spite {
    fn drop(&mut self) {
        panic!("on purpose");
    }
}

#[test]
fn a_destructor_that_panics_costs_no_worker() {
    hush();
    let bus = Bus::builder().config(BusConfig { workers: 1, ..once() }).start().unwrap();
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

#[test]
fn a_sink_that_emits_and_waits_only_enqueues() {
    for is_inline in [false, true] {
        let place: Arc<Mutex<Option<forebay::bus::Emitter>>> = Arc::default();
        let own = Arc::clone(&place);
        let sink = from_fn("echo", move |batch: &Batch<Record>| {
            let emitter = own.lock().unwrap().clone();
            for event in batch.iter().filter(|event| event.name() == "a.b") {
                let echo = Record::with_value("echo.event", event.value().clone());
                emitter.as_ref().unwrap().emit_record(echo).unwrap();
            }
            Ok(())
        });
        let mut builder = Bus::builder().sink(sink);
        if is_inline {
            builder = builder.inline();
        }
        let bus = builder.start().unwrap();
        *place.lock().unwrap() = Some(bus.emitter());
        let seen = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&seen);
        bus.on("echo.event", move |_| _ = count.fetch_add(1, Ordering::SeqCst)).unwrap().keep();
        for _ in 0..10 {
            bus.emit_sync("a.b", ()).unwrap();
        }
        until("all are echoed", || seen.load(Ordering::SeqCst) == 10);
        bus.flush().unwrap();
        law(&bus, 20);
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
    let stats = law(&bus, emitted.load(Ordering::Relaxed));
    assert_eq!(stats.handlers[0].handled, stats.events.processed);
    assert_eq!(stats.gone.in_flight, 0);
    assert!(stats.gone.matched >= 500 && stats.gone.cancelled > 0);
}
