//! Rings and queues that are full: who waits for space, who must not, and what makes space.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::{Failing, Hanging, Spite, blocking, counter, law, once};
use crate::support::{Gate, LONG, hush, until};
use forebay::{FlushStrategy, ManualClock, Outcome, Overflow, Record};
use forebay_bus::{Bus, BusConfig, Emitter, Handler, Plugins};

#[test]
fn a_handler_that_is_behind_holds_the_rings_back_and_they_evict_or_block() {
    let collector = |overflow| BusConfig::default().collector.with_capacity(8).with_overflow(overflow);
    for overflow in [Overflow::DropOldest, Overflow::DropNewest, Overflow::Block { timeout: Duration::ZERO }]
    {
        let config = once().with_workers(1).with_handler_queue(4).with_collector(collector(overflow));
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
fn a_handler_does_not_wait_for_space_that_it_would_have_to_make_itself() {
    let overflow = Overflow::Block { timeout: LONG };
    let collector = BusConfig::default().collector.with_capacity(1).with_overflow(overflow);
    let config =
        once().with_workers(1).with_handler_queue(1).with_collector(collector).with_max_depth(u32::MAX);
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
fn a_worker_that_tells_of_a_plugin_does_not_wait_for_space_that_it_makes() {
    let config = once().with_workers(1).with_handler_queue(2).with_collector(blocking(2));
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
fn a_worker_that_goes_home_passes_the_ring_on() {
    let (clock, one, two) = (ManualClock::new(), Gate::closed(), Gate::closed());
    let bus = Bus::builder().config(once().with_workers(2)).manual_clock(&clock).start().unwrap();
    let (first, second) = (one.clone(), two.clone());
    let handler = Handler::new("h.*", move |event| match event.name() {
        "h.one" => first.pass(),
        _ => second.pass(),
    });
    bus.subscribe(handler.max_concurrent(1)).unwrap().keep();
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

/// Panics when it ends, and becomes a record.
#[derive(Clone)]
struct Typed(#[allow(dead_code, reason = "it is there to end")] Arc<Spite>);

impl From<Typed> for Record {
    fn from(_: Typed) -> Record {
        Record::new("typed.event")
    }
}

#[test]
fn what_panics_when_it_makes_space_for_an_event_of_the_bus_costs_no_other_handler_an_event() {
    hush();
    let (clock, gate, sink) = (ManualClock::new(), Gate::closed(), Gate::closed());
    let flush = FlushStrategy::Manual;
    let collector = BusConfig::default().collector.with_capacity(4).with_flush(flush);
    let config = once().with_workers(1).with_handler_queue(1).with_collector(collector);
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
        // What is reported of the plugin finds the ring full of these.
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

/// Emits when it ends.
#[derive(Clone)]
struct Last(#[allow(dead_code, reason = "it is there to end")] Arc<OnEnd>);

impl From<Last> for Record {
    fn from(_: Last) -> Record {
        Record::new("typed.last")
    }
}

struct OnEnd(Emitter, Arc<Mutex<Vec<Outcome>>>);

impl Drop for OnEnd {
    fn drop(&mut self) {
        let reported = self.0.emit("o.last", ()).unwrap();
        self.1.lock().unwrap().push(reported.outcome);
    }
}

#[test]
fn an_event_that_emits_when_it_ends_does_not_wait_for_space_that_its_worker_makes() {
    let folder = tempfile::tempdir().unwrap();
    let overflow = Overflow::Block { timeout: Duration::from_millis(100) };
    let collector = blocking(1).with_overflow(overflow);
    let config = once().with_workers(1).with_handler_queue(1).with_collector(collector);
    // Without a journal, the last events are remembered.
    let builder = Bus::builder().config(config).journal(folder.path().join("events.jsonl")).unwrap();
    let bus = builder.start().unwrap();
    let (gate, reported) = (Gate::closed(), Arc::new(Mutex::new(Vec::new())));
    let own = gate.clone();
    bus.on(["typed.last", "o.one"], move |_| own.pass()).unwrap().keep();
    bus.emit_event(Last(Arc::new(OnEnd(bus.emitter(), Arc::clone(&reported))))).unwrap();
    gate.await_arrivals(1);
    // One in the mailbox, one in the hands of who delivers, one in the ring.
    let mut emitted = 2;
    while bus.emit("o.one", ()).unwrap().outcome.is_queued() {
        emitted += 1;
    }
    let waits = bus.collector().stats().waits;
    gate.open();
    bus.flush().unwrap();
    assert_eq!(reported.lock().unwrap().len(), 1);
    let stats = bus.stop().unwrap().stats;
    assert_eq!(stats.events.waits, waits, "nobody has waited: {reported:?}");
    stats.check_law(emitted + 1).unwrap();
}
