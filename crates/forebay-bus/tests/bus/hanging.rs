//! Handlers and sinks that hang: the others go on, and the bus says so.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::{blocking, counter, law, once};
use crate::support;
use crate::support::{Gate, until};
use forebay::collector::FlushError;
use forebay::event::catalog::system::PerformanceWarning;
use forebay::{ManualClock, Overflow, Record, config::HealthConfig, stats::HealthStatus};
use forebay_bus::{AlertKind, Bus, BusConfig, BusStopError, EmitError, Handler};

#[test]
fn a_handler_that_hangs_is_reported_loses_no_worker_for_others_and_its_events_are_kept() {
    let clock = ManualClock::new();
    let config = once().with_workers(2).with_handler_queue(10).with_deadline(Duration::from_secs(5));
    let bus = Bus::builder().config(config).manual_clock(&clock).start().unwrap();
    let gate = Gate::closed();
    let own = gate.clone();
    bus.subscribe(Handler::new("hangs.*", move |_| own.pass()).named("hung")).unwrap().keep();
    let warnings = Arc::new(Mutex::new(Vec::new()));
    let reported = Arc::clone(&warnings);
    bus.on(PerformanceWarning::NAME, move |event| {
        let fields = event.value().as_fields().unwrap();
        reported.lock().unwrap().push(fields.get("component").unwrap().as_str().unwrap().to_owned());
    })
    .unwrap()
    .keep();
    // Both workers are taken.
    bus.emit("hangs.one", ()).unwrap();
    bus.emit("hangs.two", ()).unwrap();
    gate.await_arrivals(2);
    assert!(bus.health().alerts.is_empty());
    clock.advance(Duration::from_secs(5));
    until("it is reported", || warnings.lock().unwrap().len() == 2);
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
fn a_flush_has_the_deadline_that_it_is_given() {
    let bus = Bus::new().unwrap();
    let gate = Gate::closed();
    let own = gate.clone();
    bus.on("hangs", move |_| own.pass()).unwrap().keep();
    bus.emit("hangs", ()).unwrap();
    gate.await_arrivals(1);
    let short = Duration::from_millis(1);
    let error = bus.flush_timeout(short).unwrap_err();
    assert!(matches!(error, FlushError::TimedOut { waited, .. } if waited == short), "{error}");
    gate.open();
    bus.flush().unwrap();
    law(&bus, 1);
}

#[test]
fn a_handler_that_hangs_is_called_with_nothing_more_until_it_returns() {
    let clock = ManualClock::new();
    let config = once().with_workers(4).with_deadline(Duration::from_secs(5));
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
    until("it is reported", || bus.worker_stats().stuck == 1);
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
    let config = once().with_workers(2).with_handler_queue(2).with_deadline(Duration::from_secs(5));
    let bus = Bus::builder().config(config).manual_clock(&clock).start().unwrap();
    let (gate, seen) = (Gate::closed(), Arc::new(AtomicU64::new(0)));
    let (own, count) = (gate.clone(), Arc::clone(&seen));
    let hung = Handler::new("hangs.*", move |_| own.pass());
    bus.subscribe(hung.max_concurrent(1).named("hung")).unwrap().keep();
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
fn a_stop_ends_by_its_deadline_beside_a_handler_that_hangs() {
    let bus = Bus::builder().config(once().with_workers(1)).start().unwrap();
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
fn workers_that_hang_are_replaced_although_the_rings_are_full() {
    let (clock, gate) = (ManualClock::new(), Gate::closed());
    let config = once().with_workers(1).with_handler_queue(1).with_collector(blocking(1));
    let bus = Bus::builder().config(config).manual_clock(&clock).start().unwrap();
    let own = gate.clone();
    bus.on("h.one", move |_| own.pass()).unwrap().keep();
    let calls = counter(&bus, "o.one");
    bus.emit("h.one", ()).unwrap();
    gate.await_arrivals(1);
    std::thread::scope(|scope| {
        scope.spawn(|| (0..20).for_each(|_| _ = bus.emit("o.one", ()).unwrap()));
        until("the rings are full", || bus.collector().stats().waits > 0);
        // Once: moved again, it would make calls of the other handler late.
        clock.advance(Duration::from_secs(10));
        until("the one that hangs is seen", || bus.worker_stats().stuck > 0);
        until("another worker serves", || calls.load(Ordering::SeqCst) == 20);
    });
    gate.open();
    bus.flush().unwrap();
    bus.stop().unwrap().stats.check_law(21).unwrap();
}

#[test]
fn more_than_sixty_four_that_hang_at_once_are_replaced_as_far_as_that_goes() {
    let (clock, gate) = (ManualClock::new(), Gate::closed());
    let config = once().with_workers(66);
    let bus = Bus::builder().config(config).manual_clock(&clock).start().unwrap();
    let own = gate.clone();
    bus.on("h.one", move |_| own.pass()).unwrap().keep();
    let calls = counter(&bus, "o.one");
    (0..66).for_each(|_| _ = bus.emit("h.one", ()).unwrap());
    gate.await_arrivals(66);
    until("others take their places", || {
        clock.advance(Duration::from_secs(10));
        bus.worker_stats().total > 0
    });
    bus.emit("o.one", ()).unwrap();
    until("it is served", || calls.load(Ordering::SeqCst) == 1);
    gate.open();
    bus.flush().unwrap();
    bus.stop().unwrap().stats.check_law(67).unwrap();
}

#[test]
fn a_warning_of_a_call_that_hangs_is_an_event_of_its_chain() {
    let (clock, gate) = (ManualClock::new(), Gate::closed());
    let bus = Bus::builder().config(once().with_max_depth(1)).manual_clock(&clock);
    let bus = bus.start().unwrap();
    let (own, emitter, reported) = (gate.clone(), bus.emitter(), Arc::new(Mutex::new(Vec::new())));
    bus.on("h.one", move |_| own.pass()).unwrap().keep();
    let answers = Arc::clone(&reported);
    bus.on("system.performance_warning", move |_| answers.lock().unwrap().push(emitter.emit("h.one", ())))
        .unwrap()
        .keep();
    bus.emit("h.one", ()).unwrap();
    gate.await_arrivals(1);
    until("it is reported", || {
        clock.advance(Duration::from_secs(10));
        !reported.lock().unwrap().is_empty()
    });
    assert!(matches!(reported.lock().unwrap()[0], Err(EmitError::TooDeep { depth: 2, .. })));
    gate.open();
    bus.flush().unwrap();
    bus.stop().unwrap().stats.check_law(2).unwrap();
}

#[test]
fn a_sink_that_hangs_is_reported_by_the_health_of_its_bus() {
    for is_inline in [false, true] {
        let gate = Gate::closed();
        let health = HealthConfig::default().with_max_busy_time(Duration::from_nanos(1));
        let collector = BusConfig::default().collector.with_health(health);
        let builder = Bus::builder().config(once().with_collector(collector)).sink(gate.sink());
        let bus = if is_inline { builder.inline() } else { builder }.start().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| bus.emit("a.b", ()).unwrap());
            gate.await_arrivals(1);
            let (begun, mut alerts) = (std::time::Instant::now(), Vec::new());
            while alerts.is_empty() && begun.elapsed() < Duration::from_secs(5) {
                alerts = bus.health().alerts;
            }
            gate.open();
            assert_eq!(alerts.len(), 1);
            assert_eq!((alerts[0].kind, alerts[0].subject.as_deref()), (AlertKind::Sink, Some("gate")));
        });
        bus.stop().unwrap().stats.check_law(1).unwrap();
    }
}

/// Waits at a gate when it ends.
#[derive(Clone)]
struct Held(#[allow(dead_code, reason = "it is there to end")] Arc<PassOnEnd>);

struct PassOnEnd(Gate);

impl Drop for PassOnEnd {
    fn drop(&mut self) {
        self.0.pass();
    }
}

impl From<Held> for Record {
    fn from(_: Held) -> Record {
        Record::new("held.event")
    }
}

#[test]
fn a_stop_says_that_it_gave_up_on_the_scheduler() {
    let (clock, call, sink, end) = (ManualClock::new(), Gate::closed(), Gate::closed(), Gate::closed());
    let collector = BusConfig::default().collector.with_capacity(1).with_overflow(Overflow::DropOldest);
    let config = once().with_workers(1).with_deadline(Duration::from_secs(5)).with_collector(collector);
    // Without a journal, the last events are remembered.
    let folder = tempfile::tempdir().unwrap();
    let builder = Bus::builder().config(config).journal(folder.path().join("events.jsonl")).unwrap();
    let bus = builder.manual_clock(&clock).sink(sink.sink()).start().unwrap();
    let own = call.clone();
    bus.on("hangs.one", move |_| own.pass()).unwrap().keep();
    sink.open();
    bus.emit("hangs.one", ()).unwrap();
    call.await_arrivals(1);
    sink.close();
    bus.emit("a.b", ()).unwrap();
    sink.await_arrivals(2);
    bus.emit_event(Held(Arc::new(PassOnEnd(end.clone())))).unwrap();
    // The warning of the call takes the place of that event, which ends on the thread of the scheduler.
    clock.advance(Duration::from_secs(5));
    end.await_arrivals(1);
    sink.open();
    call.open();
    until("its worker is back", || bus.worker_stats().stuck == 0);
    let stopped = bus.stop_timeout(Duration::from_secs(1));
    end.open();
    let Err(BusStopError::TimedOut { report }) = stopped else { panic!("{stopped:?}") };
    assert_eq!(report.left_behind, 0, "no call");
    bus.stop().unwrap();
    law(&bus, 3);
}
