//! A bus without threads: what its handlers and sinks do on the thread that emits.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::{Gate, LONG, Raise, failing, hush, panicking, until};
use forebay::collector::{FlushError, StartError};
use forebay::sink::{MemorySink, RetryPolicy, Sink, SinkError, SinkExt};
use forebay::stats::HealthStatus;
use forebay::{Batch, ManualClock, Outcome};
use forebay_bus::{
    AlertKind, Bus, BusConfig, BusStats, BusStopError, Envelope, Handler, HandlerError, Mode,
    OnWorkerFailure, Plugin, Plugins, ScaleError, SubscribeError, Wiring,
};

const HOUR: Duration = Duration::from_secs(3600);

#[track_caller]
fn law(bus: &Bus, emitted: u64) -> BusStats {
    let stats = bus.stats();
    if let Err(broken) = stats.check_law(emitted) {
        panic!("{broken}");
    }
    stats
}

fn inline() -> Bus {
    Bus::builder().inline().start().unwrap()
}

#[test]
fn a_handler_of_another_bus_emits_and_finds_the_handlers_called() {
    for outer in [inline(), Bus::new().unwrap()] {
        let (inner, calls) = (inline(), Arc::new(AtomicU64::new(0)));
        let count = Arc::clone(&calls);
        inner.on("b.c", move |_| _ = count.fetch_add(1, Ordering::SeqCst)).unwrap().keep();
        let (emitter, seen) = (inner.emitter(), Arc::new(Mutex::new(Vec::new())));
        let own = Arc::clone(&seen);
        outer
            .on("a.b", move |_| {
                emitter.emit("b.c", ()).unwrap();
                own.lock().unwrap().push(calls.load(Ordering::SeqCst));
            })
            .unwrap()
            .keep();
        outer.emit_sync("a.b", ()).unwrap();
        outer.emit_sync("a.b", ()).unwrap();
        assert_eq!(*seen.lock().unwrap(), [1, 2]);
        outer.stop().unwrap();
        inner.stop().unwrap();
        law(&outer, 2);
        assert_eq!(law(&inner, 2).handlers[0].handled, 2);
    }
}

#[test]
fn two_buses_that_emit_to_each_other_come_to_an_end() {
    let (one, two) = (inline(), inline());
    let seen = Arc::new(Mutex::new(Vec::new()));
    for (name, bus, other) in [("one", &one, &two), ("two", &two, &one)] {
        let (emitter, seen) = (other.emitter(), Arc::clone(&seen));
        bus.on("count.down", move |event| {
            let left = event.value().as_i64().unwrap();
            if left > 0 {
                emitter.emit("count.down", left - 1).unwrap();
            }
            seen.lock().unwrap().push((name, left));
        })
        .unwrap()
        .keep();
    }
    one.emit("count.down", 4).unwrap();
    // What comes back to the first waits until its handler has returned.
    assert_eq!(*seen.lock().unwrap(), [("two", 3), ("one", 4), ("two", 1), ("one", 2), ("one", 0)]);
    one.stop().unwrap();
    two.stop().unwrap();
    law(&one, 3);
    law(&two, 2);
}

/// Fails, and remembers where on the stack that was.
struct Failing(u64, String, Arc<Mutex<Vec<usize>>>);

impl Plugin for Failing {
    fn name(&self) -> &str {
        &self.1
    }

    fn start(&self, wiring: &mut Wiring<'_>) -> Result<(), SubscribeError> {
        let places = Arc::clone(&self.2);
        wiring.subscribe(Handler::new(format!("fails.{}", self.0).as_str(), move |_| {
            let here = 0_u8;
            places.lock().unwrap().push((&raw const here).addr());
            Err(HandlerError::new("no").permanent())
        }))
    }
}

#[test]
fn a_plugin_that_fails_is_reported_behind_its_call_and_not_within() {
    let bus = inline();
    let (plugins, places) = (Plugins::new(&bus), Arc::default());
    for number in 0..6 {
        plugins.start(Failing(number, format!("plugin-{number}"), Arc::clone(&places))).unwrap();
    }
    let (emitter, next) = (bus.emitter(), AtomicU64::new(1));
    bus.on("plugin.error", move |_| {
        let next = next.fetch_add(1, Ordering::SeqCst);
        if next < 6 {
            emitter.emit(format!("fails.{next}"), ()).unwrap();
        }
    })
    .unwrap()
    .keep();
    bus.emit("fails.0", ()).unwrap();
    let places = places.lock().unwrap().clone();
    assert_eq!(places.len(), 6);
    let deep = places.iter().max().unwrap() - places.iter().min().unwrap();
    assert!(deep < 1_000, "calls within calls: {deep} bytes of stack");
    drop(plugins);
    bus.stop().unwrap();
    law(&bus, 6);
}

/// Takes everything, and cannot be flushed.
struct Unflushed;

impl Sink<Envelope> for Unflushed {
    fn name(&self) -> &str {
        "unflushed"
    }

    fn write_batch(&mut self, _: &Batch<Envelope>) -> Result<(), SinkError> {
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        Err(SinkError::flush_failed("on purpose"))
    }
}

#[test]
fn what_sinks_do_is_counted_and_reported_as_that_of_a_bus_with_threads() {
    hush();
    for is_inline in [false, true] {
        let memory = MemorySink::new();
        let builder = Bus::builder().sink(failing("fails")).sink(panicking("panics")).sink(Unflushed);
        let builder = builder.sink(memory.clone());
        let bus = if is_inline { builder.inline() } else { builder }.start().unwrap();
        for number in 0..10 {
            bus.emit("a.b", number).unwrap();
            bus.flush().unwrap();
        }
        let stats = law(&bus, 10);
        let sink = |name| stats.events.sink(name).unwrap();
        assert_eq!((sink("fails").offered, sink("fails").failed, sink("fails").errors), (10, 10, 10));
        assert_eq!(sink("fails").last_error.as_deref(), Some("sink unavailable: nobody is there"));
        assert_eq!((sink("panics").failed, sink("panics").panics), (10, 10));
        assert_eq!((sink("unflushed").delivered, sink("unflushed").flush_errors), (10, 10));
        assert_eq!((sink("recent").delivered, memory.len()), (10, 10));
        let health = bus.health();
        assert_eq!(health.status, HealthStatus::Degraded);
        let failing = health.alerts.iter().filter(|alert| alert.kind == AlertKind::Sink);
        let reported: Vec<&str> = failing.map(|alert| &*alert.message).collect();
        assert!(reported.iter().any(|reported| reported.contains("\"fails\"")), "{reported:?}");
        bus.stop().unwrap();
        law(&bus, 10);
    }
}

#[test]
fn two_sinks_of_one_name_are_refused() {
    let twice = Bus::builder().inline().sink(MemorySink::new()).sink(MemorySink::new()).start();
    assert!(matches!(twice, Err(StartError::Build(_))), "{twice:?}");
}

#[test]
fn what_is_too_much_for_a_sink_that_hangs_is_counted() {
    let gate = Gate::closed();
    let bus = Bus::builder().inline().sink(gate.sink()).start().unwrap();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| bus.emit("a.b", ()).unwrap());
        gate.await_arrivals(1);
        (0..10_005).for_each(|_| _ = bus.emit("a.b", ()).unwrap());
        gate.open();
        first.join().unwrap();
    });
    bus.flush().unwrap();
    let stats = law(&bus, 10_006);
    let sink = stats.events.sink("gate").unwrap();
    assert_eq!((sink.offered, sink.delivered, sink.evicted), (10_006, 10_001, 5));
    bus.stop().unwrap();
}

#[test]
fn a_sink_that_ends_with_a_panic_does_no_harm() {
    struct Spite;
    impl Sink<Envelope> for Spite {
        fn name(&self) -> &str {
            "spite"
        }
        fn write_batch(&mut self, _: &Batch<Envelope>) -> Result<(), SinkError> {
            Ok(())
        }
    }
    impl Drop for Spite {
        fn drop(&mut self) {
            panic!("on purpose");
        }
    }
    hush();
    let bus = Bus::builder().inline().sink(Spite).start().unwrap();
    bus.emit("a.b", ()).unwrap();
    bus.stop().unwrap();
    law(&bus, 1);
    drop(bus);
}

/// Returns settings under which no thread starts: no system has that much address space for the stack of the worker.
fn without_threads() -> BusConfig {
    let thread_stack_size = Some(isize::MAX as usize & !0xffff);
    let collector = BusConfig::default().collector.with_thread_stack_size(thread_stack_size);
    BusConfig::default().with_collector(collector)
}

#[test]
fn a_bus_whose_threads_cannot_be_started_is_inline_and_says_so() {
    let (memory, calls) = (MemorySink::new(), Arc::new(AtomicU64::new(0)));
    let bus = Bus::builder().config(without_threads()).sink(memory.clone()).start().unwrap();
    assert_eq!(bus.stats().mode, Mode::Inline);
    let health = bus.health();
    assert_eq!((health.status, health.mode), (HealthStatus::Degraded, Mode::Inline));
    assert_eq!(health.alerts[0].kind, AlertKind::WorkersFailed);
    assert!(health.alerts[0].message.contains("cannot create the worker thread"), "{health:?}");
    let count = Arc::clone(&calls);
    bus.on("a.b", move |_| _ = count.fetch_add(1, Ordering::SeqCst)).unwrap().keep();
    for number in 1..=10 {
        bus.emit("a.b", ()).unwrap();
        assert_eq!(calls.load(Ordering::SeqCst), number, "within the emit");
    }
    assert!(matches!(bus.scale_workers(3), Err(ScaleError::Inline)));
    bus.flush().unwrap();
    let stats = law(&bus, 10);
    assert_eq!((memory.len(), stats.inline, stats.events.sink("memory").unwrap().delivered), (10, 10, 10));
    assert!(stats.events.sink("bus").is_none());
    bus.stop().unwrap();
    law(&bus, 10);
}

#[test]
fn a_bus_may_rather_not_start_than_be_inline() {
    let builder = Bus::builder().config(without_threads()).on_worker_failure(OnWorkerFailure::Refuse);
    assert!(matches!(builder.start(), Err(StartError::Thread(_))));
    let bus = Bus::new().unwrap();
    assert_eq!((bus.stats().mode, bus.health().mode), (Mode::Pooled, Mode::Pooled));
    assert_eq!(bus.health().status, HealthStatus::Healthy);
    bus.stop().unwrap();
    law(&bus, 0);
}

/// Counts what it writes and how often it is flushed, and does something in each call.
struct Busy<F> {
    flushes: Arc<AtomicU64>,
    work: F,
}

impl<F: FnMut() + Send> Sink<Envelope> for Busy<F> {
    fn name(&self) -> &str {
        "busy"
    }

    fn write_batch(&mut self, _: &Batch<Envelope>) -> Result<(), SinkError> {
        (self.work)();
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[test]
fn a_thread_that_writes_for_another_comes_back_while_that_one_goes_on() {
    let (emitted, calls, is_over) =
        (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)), AtomicBool::new(false));
    let (seen, own, first) = (Arc::clone(&emitted), Arc::clone(&calls), std::thread::current().id());
    let work = move || {
        if std::thread::current().id() != first {
            return;
        }
        // At the first call until the other has surely left something; then as far as it gets without a wait.
        let (is_first, before) = (own.fetch_add(1, Ordering::SeqCst) == 0, seen.load(Ordering::SeqCst));
        let mut looks = 0;
        while seen.load(Ordering::SeqCst) < before + 2 && (is_first || looks < 10_000) {
            looks += 1;
            std::thread::yield_now();
        }
    };
    let bus = Bus::builder().inline().sink(Busy { flushes: Arc::default(), work }).start().unwrap();
    let mut all = 1;
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut own = 0;
            while own < 2 || !is_over.load(Ordering::SeqCst) && calls.load(Ordering::SeqCst) < 50 {
                bus.emit("a.b", ()).unwrap();
                emitted.fetch_add(1, Ordering::SeqCst);
                own += 1;
            }
            own
        });
        let raise = Raise(&is_over);
        bus.emit("a.b", ()).unwrap();
        drop(raise);
        all += other.join().unwrap();
    });
    assert!(calls.load(Ordering::SeqCst) <= 2, "its own, and what came meanwhile");
    bus.flush().unwrap();
    let stats = law(&bus, all);
    let sink = stats.events.sink("busy").unwrap();
    assert_eq!(sink.delivered + sink.evicted, all);
    bus.stop().unwrap();
}

#[test]
fn a_flush_waits_for_a_thread_that_has_the_sinks_and_a_stop_does_so_too() {
    let (gate, flushes) = (Gate::closed(), Arc::new(AtomicU64::new(0)));
    let own = gate.clone();
    let sink = Busy { flushes: Arc::clone(&flushes), work: move || own.pass() };
    let collector = BusConfig::default().collector.with_flush_timeout(Duration::from_millis(20));
    let config = BusConfig::default().with_collector(collector);
    let bus = Bus::builder().config(config).inline().sink(sink).start().unwrap();
    std::thread::scope(|scope| {
        let emitting = scope.spawn(|| bus.emit("a.b", ()).unwrap());
        gate.await_arrivals(1);
        let (flushed, stopped) = (bus.flush(), bus.stop_timeout(Duration::from_millis(20)));
        let before = flushes.load(Ordering::SeqCst);
        let stop = scope.spawn(|| bus.stop());
        gate.open();
        stop.join().unwrap().unwrap();
        assert!(
            matches!(&flushed, Err(FlushError::TimedOut { busy_sink: Some(sink), .. }) if sink == "busy"),
            "{flushed:?}"
        );
        assert!(stopped.is_err());
        let after = flushes.load(Ordering::SeqCst);
        assert_eq!((before, after), (0, 1), "once what was being written was written");
        emitting.join().unwrap();
    });
    law(&bus, 1);
}

#[test]
fn a_flush_ends_by_its_deadline_although_others_keep_emitting_to_the_handler_that_it_calls() {
    let timeout = Duration::from_millis(20);
    let collector = BusConfig::default().collector.with_flush_timeout(timeout);
    let config = BusConfig::default().with_collector(collector).with_retry(RetryPolicy::fixed(HOUR, 1));
    let clock = ManualClock::new();
    let bus = Bus::builder().config(config).inline().manual_clock(&clock).start().unwrap();
    let ((ask, asked), (answer, answered)) = (channel(), channel());
    let (answered, late) = (Mutex::new(answered), Arc::new(AtomicU64::new(0)));
    let (begun, own) = (Arc::new(Mutex::new(None::<Instant>)), Arc::clone(&late));
    let since = Arc::clone(&begun);
    let handler = Handler::new("a.b", move |event| {
        if event.value().as_i64() == Some(0) && event.attempt() == 1 {
            return Err(HandlerError::new("once"));
        }
        // One more for every call, until the flush should long be over.
        let begun: Instant = since.lock().unwrap().unwrap();
        let is_late = begun.elapsed() > 2 * timeout;
        if !is_late || own.fetch_add(1, Ordering::SeqCst) < 1_000 {
            ask.send(()).unwrap();
            answered.lock().unwrap().recv().unwrap();
        }
        Ok(())
    });
    bus.subscribe(handler.max_concurrent(1)).unwrap().keep();
    bus.emit("a.b", 0).unwrap();
    clock.advance(HOUR);
    let mut emitted = 1;
    std::thread::scope(|scope| {
        let bus = &bus;
        let other = scope.spawn(move || {
            let mut emitted = 0;
            while asked.recv_timeout(LONG).is_ok() {
                emitted += 1;
                bus.emit("a.b", 1).unwrap();
                answer.send(()).unwrap();
            }
            emitted
        });
        *begun.lock().unwrap() = Some(Instant::now());
        let flushed = bus.flush();
        let calls = late.load(Ordering::SeqCst);
        // What was left is done by the next, and lets go of the other thread with its handler.
        until("all is handled", || bus.flush().is_ok());
        bus.unsubscribe(bus.stats().handlers[0].id);
        emitted += other.join().unwrap();
        assert!(matches!(flushed, Err(FlushError::TimedOut { .. })), "{flushed:?}");
        assert!(calls <= 128, "{calls}: a turn, and what is left of one");
    });
    law(&bus, emitted);
    bus.stop().unwrap();
}

#[test]
fn what_is_reported_of_a_plugin_comes_behind_the_event_that_it_did_not_take() {
    let gate = Gate::closed();
    let bus = Bus::builder().config(BusConfig::default().with_handler_queue(2)).inline();
    let bus = bus.start().unwrap();
    let (plugins, seen) = (Plugins::new(&bus), Arc::new(Mutex::new(Vec::new())));
    plugins.start(Hanging(gate.clone())).unwrap();
    let own = Arc::clone(&seen);
    bus.on("**", move |event| own.lock().unwrap().push((event.name().to_owned(), event.value().as_i64())))
        .unwrap()
        .keep();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| bus.emit("a.b", 1).unwrap());
        gate.await_arrivals(1);
        (2..5).for_each(|number| _ = bus.emit("a.b", number).unwrap());
        gate.open();
        first.join().unwrap();
    });
    let reported = |name: &str, number| (name.to_owned(), number);
    let seen = seen.lock().unwrap().clone();
    assert_eq!(
        seen,
        [
            reported("a.b", Some(1)),
            reported("a.b", Some(2)),
            reported("a.b", Some(3)),
            reported("a.b", Some(4)),
            reported("plugin.error", None)
        ]
    );
    assert_eq!(bus.dead_letters().entries()[0].error, "hanging: its queue is full");
    drop(plugins);
    bus.stop().unwrap();
    law(&bus, 4);
}

/// One call at a time, at a gate.
struct Hanging(Gate);

impl Plugin for Hanging {
    fn name(&self) -> &str {
        "hanging"
    }

    fn start(&self, wiring: &mut Wiring<'_>) -> Result<(), SubscribeError> {
        let gate = self.0.clone();
        wiring.subscribe(Handler::new("a.b", move |_| gate.pass()).max_concurrent(1))
    }
}

#[test]
fn a_stop_tells_of_calls_that_other_threads_are_in() {
    let gate = Gate::closed();
    let bus = inline();
    let own = gate.clone();
    bus.on("a.b", move |_| own.pass()).unwrap().keep();
    std::thread::scope(|scope| {
        let emitting = scope.spawn(|| bus.emit("a.b", ()).unwrap());
        gate.await_arrivals(1);
        let stopped = bus.stop_timeout(Duration::from_millis(20));
        gate.open();
        emitting.join().unwrap();
        let Err(BusStopError::TimedOut { report }) = stopped else { panic!("{stopped:?}") };
        assert_eq!(report.left_behind, 1);
    });
    law(&bus, 1);
}

/// Sink on a thread of its own; calls what would have to wait for it.
struct Waiting(Arc<Mutex<Option<Bus>>>, Arc<Mutex<Vec<bool>>>);

impl Sink<Envelope> for Waiting {
    fn name(&self) -> &str {
        "waiting"
    }

    fn write_batch(&mut self, _: &Batch<Envelope>) -> Result<(), SinkError> {
        if let Some(bus) = self.0.lock().unwrap().take() {
            let is_flush_refused = matches!(bus.flush(), Err(FlushError::OnWorker));
            let is_stop_refused = matches!(bus.stop(), Err(BusStopError::Inside));
            let is_enqueued =
                matches!(bus.emit_sync("never.this", ()), Ok(reported) if reported.calls.is_none());
            self.1.lock().unwrap().extend([is_flush_refused, is_stop_refused, is_enqueued]);
        }
        Ok(())
    }
}

#[test]
fn a_sink_on_a_thread_of_its_own_is_refused_what_would_wait_for_it() {
    let (place, reported) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(Vec::new())));
    let waits = Duration::from_millis(100);
    let collector = BusConfig::default().collector.with_flush_timeout(waits).with_stop_timeout(waits);
    let sink = Waiting(Arc::clone(&place), Arc::clone(&reported)).isolated(10);
    let config = BusConfig::default().with_collector(collector);
    let bus = Bus::builder().config(config).inline().sink(sink).start().unwrap();
    *place.lock().unwrap() = Some(bus.clone());
    bus.emit("a.b", ()).unwrap();
    until("it has called", || reported.lock().unwrap().len() == 3);
    assert_eq!(*reported.lock().unwrap(), [true; 3]);
    bus.flush().unwrap();
    bus.stop_timeout(LONG).unwrap();
    law(&bus, 2);
}

#[test]
fn an_event_that_is_overtaken_by_a_stop_is_in_the_account_of_its_handlers() {
    let gate = Gate::closed();
    let bus = Bus::builder().inline().sink(gate.sink()).start().unwrap();
    bus.on("a.b", |_| ()).unwrap().keep();
    std::thread::scope(|scope| {
        let emitting = scope.spawn(|| bus.emit("a.b", ()).unwrap());
        gate.await_arrivals(1);
        let stopped = bus.stop_timeout(Duration::from_millis(20));
        gate.open();
        let outcome = emitting.join().unwrap().outcome;
        assert!(stopped.is_err());
        assert_eq!(outcome, Outcome::Queued);
    });
    let stats = law(&bus, 1);
    assert_eq!((stats.handlers[0].matched, stats.handlers[0].cancelled), (1, 1));
}

/// Counts what it gets, and stands at a gate when it is flushed.
struct Slow(Gate, Arc<AtomicU64>);

impl Sink<Envelope> for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    fn write_batch(&mut self, batch: &Batch<Envelope>) -> Result<(), SinkError> {
        self.1.fetch_add(batch.len() as u64, Ordering::SeqCst);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.0.pass();
        Ok(())
    }
}

#[test]
fn inline_what_is_emitted_while_another_thread_flushes_reaches_the_sinks() {
    let (gate, seen) = (Gate::closed(), Arc::new(AtomicU64::new(0)));
    let bus = Bus::builder().inline().sink(Slow(gate.clone(), Arc::clone(&seen))).start().unwrap();
    std::thread::scope(|scope| {
        let flush = scope.spawn(|| bus.flush().unwrap());
        gate.await_arrivals(1);
        bus.emit("a.b", ()).unwrap();
        gate.open();
        flush.join().unwrap();
    });
    assert_eq!(seen.load(Ordering::SeqCst), 1);
    bus.stop().unwrap().stats.check_law(1).unwrap();
}

#[test]
fn sinks_of_a_bus_without_threads_see_where_the_events_come_from() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let own = Arc::clone(&seen);
    let sink = forebay::sink::from_fn("origin", move |batch: &Batch<forebay_bus::Envelope>| {
        own.lock().unwrap().push((batch.session().to_owned(), batch.origin().pid));
        Ok(())
    });
    let bus = Bus::builder().inline().sink(sink).start().unwrap();
    bus.emit("a.b", ()).unwrap();
    let origin = (bus.collector().session_id().to_owned(), std::process::id());
    assert_eq!(*seen.lock().unwrap(), [origin]);
    bus.stop().unwrap().stats.check_law(1).unwrap();
}
