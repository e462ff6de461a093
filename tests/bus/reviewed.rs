//! What a review of the bus found.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::{Gate, Raise, hush, until};
use forebay::bus::{
    AlertKind, Bus, BusConfig, EmitError, Emitter, Filter, Handler, HandlerError, Plugin, Plugins, Scaling,
    SubscribeError, Wiring, watch,
};
use forebay::sink::{RetryPolicy, Sink, SinkError, from_fn};
use forebay::{Batch, Config, FlushStrategy, HealthConfig, ManualClock, Outcome, Overflow, Record};

const HOUR: Duration = Duration::from_secs(3600);

/// No retries.
fn once() -> BusConfig {
    BusConfig { retry: RetryPolicy::list([]), ..BusConfig::default() }
}

/// Rings of so many events, for which whoever emits waits.
fn blocking(capacity: usize) -> Config {
    Config { capacity, overflow: Overflow::Block { timeout: HOUR }, ..BusConfig::default().collector }
}

fn counter(bus: &Bus, topic: &'static str) -> Arc<AtomicU64> {
    let calls = Arc::new(AtomicU64::new(0));
    let own = Arc::clone(&calls);
    bus.on(topic, move |_| _ = own.fetch_add(1, Ordering::SeqCst)).unwrap().keep();
    calls
}

struct Failing;

impl Plugin for Failing {
    fn name(&self) -> &str {
        "failing"
    }

    fn start(&self, wiring: &mut Wiring<'_>) -> Result<(), SubscribeError> {
        wiring.on("a.b", |_| Err(HandlerError::new("no")))
    }
}

#[test]
fn a_worker_that_tells_of_a_plugin_does_not_wait_for_room_that_it_makes() {
    let config = BusConfig { workers: 1, handler_queue: 2, collector: blocking(2), ..once() };
    let bus = Bus::builder().config(config).start().unwrap();
    let plugins = Plugins::new(&bus);
    plugins.start(Failing).unwrap();
    for _ in 0..200 {
        bus.emit("a.b", ()).unwrap();
    }
    bus.flush().unwrap();
    assert_eq!(bus.dead_letters().len(), 200);
    drop(plugins);
    bus.stop().unwrap().stats.check_law(200).unwrap();
}

#[test]
fn workers_that_hang_are_replaced_although_the_rings_are_full() {
    let (clock, gate) = (ManualClock::new(), Gate::closed());
    let config = BusConfig { workers: 1, handler_queue: 1, collector: blocking(1), ..once() };
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
    let config = BusConfig { workers: 66, ..once() };
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
fn a_worker_that_goes_home_passes_the_ring_on() {
    let (clock, one, two) = (ManualClock::new(), Gate::closed(), Gate::closed());
    let bus = Bus::builder().config(BusConfig { workers: 2, ..once() }).manual_clock(&clock).start().unwrap();
    let (first, second) = (one.clone(), two.clone());
    let handler = Handler::new("h.*", move |event| match event.name() {
        "h.one" => first.pass(),
        _ => second.pass(),
    });
    bus.subscribe(handler.at_once(1)).unwrap().keep();
    let calls = counter(&bus, "o.one");
    bus.emit("h.one", ()).unwrap();
    one.await_arrivals(1);
    bus.emit("h.two", ()).unwrap();
    until("another has taken its place", || {
        clock.advance(Duration::from_secs(10));
        bus.worker_stats().idle == 2
    });
    one.open();
    two.await_arrivals(1);
    // There is one worker too many, which hears of this first, perhaps.
    for number in 1..=5 {
        bus.emit("o.one", ()).unwrap();
        until("it is served beside the call", || calls.load(Ordering::SeqCst) == number);
    }
    two.open();
    bus.flush().unwrap();
    bus.stop().unwrap().stats.check_law(7).unwrap();
}

#[test]
fn a_retry_that_is_given_up_is_no_second_answer() {
    let (clock, busy, other) = (ManualClock::new(), Gate::closed(), Gate::closed());
    let bus = Bus::builder().manual_clock(&clock).start().unwrap();
    let (first, second) = (busy.clone(), other.clone());
    let handler = Handler::new("x.*", move |event| match event.name() {
        "x.block" => {
            first.pass();
            Ok(())
        }
        _ => Err(HandlerError::new("no")),
    });
    let id = bus.subscribe(handler.at_once(1).named("failing")).unwrap().keep();
    bus.on("x.sync", move |_| second.pass()).unwrap().keep();
    std::thread::scope(|scope| {
        let emitting = scope.spawn(|| bus.emit_sync("x.sync", ()).unwrap().calls.unwrap());
        other.await_arrivals(1);
        until("the one waits for its retry", || bus.metrics().retry.waiting == 1);
        bus.emit("x.block", ()).unwrap();
        busy.await_arrivals(1);
        until("the retry is due", || {
            clock.advance(Duration::from_secs(1));
            bus.metrics().retry.waiting == 0
        });
        bus.unsubscribe(id);
        busy.open();
        other.open();
        let calls = emitting.join().unwrap();
        assert_eq!((calls.handled, calls.failed, calls.cancelled), (1, 1, 0));
    });
    bus.stop().unwrap().stats.check_law(2).unwrap();
}

#[test]
fn dead_letters_of_a_sink_and_of_a_handler_are_not_mixed_up() {
    let bus = Bus::builder().config(once()).start().unwrap();
    let calls = counter(&bus, "never.this");
    let broken = from_fn("broken", |_: &Batch<Record>| Err(SinkError::unavailable("always")));
    bus.collector().add_sink(broken.dead_letters(bus.dead_letters())).unwrap();
    bus.emit("a.b", ()).unwrap();
    bus.flush().unwrap();
    bus.redrive(None);
    bus.flush().unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    assert_eq!(bus.stats().handlers[0].redriven, 0);
    bus.stop().unwrap().stats.check_law(1).unwrap();
}

#[test]
fn a_flush_covers_what_a_handler_is_about_to_emit() {
    let bus = Bus::builder().config(once()).start().unwrap();
    let (gate, seen) = (Gate::closed(), Arc::new(Mutex::new(Vec::new())));
    let (own, emitter) = (gate.clone(), bus.emitter());
    bus.add_filter(Filter::new(move |event| {
        if event.name() == "derived.one" {
            own.pass();
        }
        true
    }));
    bus.on("a.b", move |_| _ = emitter.emit("derived.one", ())).unwrap().keep();
    let told = Arc::clone(&seen);
    bus.on("derived.one", move |event| told.lock().unwrap().push(event.id())).unwrap().keep();
    bus.emit("a.b", ()).unwrap();
    gate.await_arrivals(1);
    std::thread::scope(|scope| {
        let flush = scope.spawn(|| bus.flush().map(|()| seen.lock().unwrap().len()).unwrap());
        until("the flush has begun", || bus.collector().stats().flushes > 0);
        gate.open();
        assert_eq!(flush.join().unwrap(), 1);
    });
    bus.stop().unwrap().stats.check_law(2).unwrap();
}

#[test]
fn retries_are_bounded_and_what_is_too_many_is_a_dead_letter() {
    let config = BusConfig { handler_queue: 10, retry: RetryPolicy::fixed(HOUR, 1), ..BusConfig::default() };
    let bus = Bus::builder().config(config).start().unwrap();
    bus.subscribe(Handler::new("a.b", |_| Err(HandlerError::new("no"))).at_once(1)).unwrap().keep();
    for _ in 0..100 {
        bus.emit("a.b", ()).unwrap();
    }
    bus.flush().unwrap();
    assert_eq!((bus.metrics().retry.waiting, bus.dead_letters().len()), (10, 90));
    let stats = bus.stop().unwrap().stats;
    stats.check_law(100).unwrap();
    assert_eq!(stats.handlers[0].dead_lettered, 100);
}

/// Counts what it gets, and stands at a gate when it is flushed.
struct Slow(Gate, Arc<AtomicU64>);

impl Sink<Record> for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    fn write_batch(&mut self, batch: &Batch<Record>) -> Result<(), SinkError> {
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
fn events_of_the_bus_that_are_answered_by_what_caused_them_come_to_an_end() {
    for is_inline in [false, true] {
        let builder = Bus::builder().config(once());
        let bus = if is_inline { builder.inline() } else { builder }.start().unwrap();
        let plugins = Plugins::new(&bus);
        plugins.start(Failing).unwrap();
        let (emitter, refused) = (bus.emitter(), Arc::new(Mutex::new(Vec::new())));
        let (own, answers) = (Arc::clone(&refused), AtomicU64::new(0));
        bus.on("plugin.error", move |_| {
            // Were there no end, the test would have one.
            if answers.fetch_add(1, Ordering::SeqCst) < 100 {
                own.lock().unwrap().extend(emitter.emit("a.b", ()).err());
            }
        })
        .unwrap()
        .keep();
        bus.emit("a.b", ()).unwrap();
        bus.flush().unwrap();
        let refused = refused.lock().unwrap().clone();
        // 0, 2, ... 16 are the causes, 1, 3, ... what is told of them: the last is at 17.
        assert_eq!((refused.len(), bus.dead_letters().len()), (0, 9));
        let stats = bus.stats();
        assert_eq!((stats.too_deep, stats.emitted), (1, 9));
        drop(plugins);
        bus.stop().unwrap().stats.check_law(9).unwrap();
    }
}

#[test]
fn a_warning_of_a_call_that_hangs_is_an_event_of_its_chain() {
    let (clock, gate) = (ManualClock::new(), Gate::closed());
    let bus = Bus::builder().config(BusConfig { max_depth: 1, ..once() }).manual_clock(&clock);
    let bus = bus.start().unwrap();
    let (own, emitter, told) = (gate.clone(), bus.emitter(), Arc::new(Mutex::new(Vec::new())));
    bus.on("h.one", move |_| own.pass()).unwrap().keep();
    let answers = Arc::clone(&told);
    bus.on("system.performance_warning", move |_| answers.lock().unwrap().push(emitter.emit("h.one", ())))
        .unwrap()
        .keep();
    bus.emit("h.one", ()).unwrap();
    gate.await_arrivals(1);
    until("it is told", || {
        clock.advance(Duration::from_secs(10));
        !told.lock().unwrap().is_empty()
    });
    assert!(matches!(told.lock().unwrap()[0], Err(EmitError::TooDeep { depth: 2, .. })));
    gate.open();
    bus.flush().unwrap();
    bus.stop().unwrap().stats.check_law(2).unwrap();
}

#[test]
fn what_a_watcher_tells_is_an_event_of_the_chain_that_it_watches() {
    for is_inline in [false, true] {
        let builder = Bus::builder().config(BusConfig { max_depth: 1, ..once() });
        let bus = if is_inline { builder.inline() } else { builder }.start().unwrap();
        let watcher = watch::threshold(&bus, "x.*", "value", 1.0).unwrap();
        let (emitter, told) = (bus.emitter(), Arc::new(Mutex::new(Vec::new())));
        let answers = Arc::clone(&told);
        bus.on("system.performance_warning", move |_| {
            answers.lock().unwrap().push(emitter.emit("x.one", 2.0))
        })
        .unwrap()
        .keep();
        bus.emit("x.one", 2.0).unwrap();
        bus.flush().unwrap();
        assert!(matches!(told.lock().unwrap()[..], [Err(EmitError::TooDeep { depth: 2, .. })]));
        drop(watcher);
        bus.stop().unwrap().stats.check_law(2).unwrap();
    }
}

/// Panics when it ends.
struct Spite;

impl Drop for Spite {
    fn drop(&mut self) {
        panic!("on purpose");
    }
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
        let builder = Bus::builder().config(BusConfig { max_subscribers: 1, ..once() });
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

/// Panics in the process whose text has this.
fn panics_with(text: &'static str) -> Arc<AtomicU64> {
    let (count, tell) = (Arc::new(AtomicU64::new(0)), std::panic::take_hook());
    let own = Arc::clone(&count);
    std::panic::set_hook(Box::new(move |panic| {
        if panic.to_string().contains(text) {
            own.fetch_add(1, Ordering::SeqCst);
        }
        tell(panic);
    }));
    count
}

#[test]
fn the_longest_intervals_are_as_good_as_never() {
    let panics = panics_with("overflow when adding duration");
    let clock = ManualClock::new();
    let scaling = Some(Scaling { interval: Duration::MAX, ..Scaling::default() });
    let retry = RetryPolicy::fixed(Duration::MAX, 1);
    let config = BusConfig { scaling, workers: 2, deadline: Duration::MAX, retry, ..BusConfig::default() };
    let bus = Bus::builder().config(config).manual_clock(&clock).start().unwrap();
    let watcher = watch::aggregate(&bus, Duration::MAX, 10).unwrap();
    bus.on("a.b", |_| Err(HandlerError::new("no"))).unwrap().keep();
    let calls = counter(&bus, "a.c");
    bus.emit("a.b", ()).unwrap();
    for number in 1..=10 {
        clock.advance(Duration::from_secs(1));
        bus.emit("a.c", ()).unwrap();
        until("it is served", || calls.load(Ordering::SeqCst) == number);
    }
    bus.flush().unwrap();
    assert_eq!(bus.metrics().retry.waiting, 1, "it is due when no clock can tell, not at once");
    drop(watcher);
    bus.stop().unwrap().stats.check_law(11).unwrap();
    assert_eq!(panics.load(Ordering::SeqCst), 0);
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

/// Panics when it ends, and becomes a record.
#[derive(Clone)]
struct Typed(#[allow(dead_code, reason = "it is there to end")] Arc<Spite>);

impl From<Typed> for Record {
    fn from(_: Typed) -> Record {
        Record::new("typed.event")
    }
}

#[test]
fn what_panics_when_it_makes_room_for_an_event_of_the_bus_costs_no_other_handler_an_event() {
    hush();
    let (clock, gate, sink) = (ManualClock::new(), Gate::closed(), Gate::closed());
    let flush = FlushStrategy::Manual;
    let collector = Config { capacity: 4, flush, ..BusConfig::default().collector };
    let config = BusConfig { workers: 1, handler_queue: 1, collector, ..once() };
    // Without a journal, the last events are remembered.
    let folder = tempfile::tempdir().unwrap();
    let builder = Bus::builder().config(config).journal(folder.path().join("events.jsonl")).unwrap();
    let bus = builder.manual_clock(&clock).sink(sink.sink()).start().unwrap();
    let plugins = Plugins::new(&bus);
    plugins.start(Hanging(gate.clone())).unwrap();
    let calls = counter(&bus, "a.b");
    sink.open();
    bus.emit("a.b", ()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| _ = bus.collector().flush().unwrap());
        gate.await_arrivals(1);
    });
    until("it hangs", || {
        clock.advance(Duration::from_secs(10));
        bus.worker_stats().stuck == 1
    });
    until("the other is served", || calls.load(Ordering::SeqCst) == 1);
    until("the warning is there", || bus.collector().stats().pending == 1);
    let _ = bus.collector().flush().unwrap();
    sink.close();
    (0..2).for_each(|_| _ = bus.emit("a.b", ()).unwrap());
    std::thread::scope(|scope| {
        let flush = scope.spawn(|| bus.collector().flush().unwrap());
        sink.await_arrivals(3);
        // What is told of the plugin finds the ring full of these.
        (0..4).for_each(|_| _ = bus.emit_event(Typed(Arc::new(Spite))).unwrap());
        sink.open();
        let _ = flush.join().unwrap();
    });
    let _ = bus.collector().flush().unwrap();
    bus.emit("a.b", ()).unwrap();
    let _ = bus.collector().flush().unwrap();
    let begun = std::time::Instant::now();
    while calls.load(Ordering::SeqCst) < 4 && begun.elapsed() < Duration::from_secs(5) {
        std::thread::yield_now();
    }
    gate.open();
    let _ = bus.flush();
    drop(plugins);
    let stopped = bus.stop();
    assert_eq!(calls.load(Ordering::SeqCst), 4);
    stopped.unwrap().stats.check_law(8).unwrap();
}

/// One call at a time, at a gate.
struct Hanging(Gate);

impl Plugin for Hanging {
    fn name(&self) -> &str {
        "hanging"
    }

    fn start(&self, wiring: &mut Wiring<'_>) -> Result<(), SubscribeError> {
        let gate = self.0.clone();
        wiring.subscribe(Handler::new("a.b", move |_| gate.pass()).at_once(1))
    }
}

#[test]
fn a_sink_that_hangs_is_told_by_the_health_of_its_bus() {
    for is_inline in [false, true] {
        let gate = Gate::closed();
        let health = HealthConfig { late_after: Duration::from_nanos(1), ..HealthConfig::default() };
        let collector = Config { health, ..BusConfig::default().collector };
        let builder = Bus::builder().config(BusConfig { collector, ..once() }).sink(gate.sink());
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

/// Emits when it ends.
#[derive(Clone)]
struct Last(#[allow(dead_code, reason = "it is there to end")] Arc<OnEnd>);

struct OnEnd(Emitter, Arc<Mutex<Vec<Outcome>>>);

impl Drop for OnEnd {
    fn drop(&mut self) {
        let told = self.0.emit("o.last", ()).unwrap();
        self.1.lock().unwrap().push(told.outcome);
    }
}

impl From<Last> for Record {
    fn from(_: Last) -> Record {
        Record::new("typed.last")
    }
}

#[test]
fn an_event_that_emits_when_it_ends_does_not_wait_for_room_that_its_worker_makes() {
    let folder = tempfile::tempdir().unwrap();
    let overflow = Overflow::Block { timeout: Duration::from_millis(100) };
    let collector = Config { overflow, ..blocking(1) };
    let config = BusConfig { workers: 1, handler_queue: 1, collector, ..once() };
    // Without a journal, the last events are remembered.
    let builder = Bus::builder().config(config).journal(folder.path().join("events.jsonl")).unwrap();
    let bus = builder.start().unwrap();
    let (gate, told) = (Gate::closed(), Arc::new(Mutex::new(Vec::new())));
    let own = gate.clone();
    bus.on(["typed.last", "o.one"], move |_| own.pass()).unwrap().keep();
    bus.emit_event(Last(Arc::new(OnEnd(bus.emitter(), Arc::clone(&told))))).unwrap();
    gate.await_arrivals(1);
    // One in the mailbox, one in the hands of who delivers, one in the ring.
    let mut emitted = 2;
    while bus.emit("o.one", ()).unwrap().outcome.is_queued() {
        emitted += 1;
    }
    let waits = bus.collector().stats().waits;
    gate.open();
    bus.flush().unwrap();
    assert_eq!(told.lock().unwrap().len(), 1);
    let stats = bus.stop().unwrap().stats;
    assert_eq!(stats.events.waits, waits, "nobody has waited: {told:?}");
    stats.check_law(emitted + 1).unwrap();
}
