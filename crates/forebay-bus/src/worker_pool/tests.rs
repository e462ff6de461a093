use forebay::Outcome;
use forebay::collector::State;
use forebay::parts::Inside;
use forebay::stats::HealthStatus;
use forebay_history::EventQuery;

use super::*;
use crate::{AlertKind, Bus, BusConfig, Handler, Mode, OnWorkerFailure};

fn until(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + std::time::Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
}

#[test]
fn threads_that_have_gone_home_are_not_kept() {
    let bus = Bus::builder().workers(16).start().unwrap();
    let pool = &bus.shared.engine.pool;
    bus.scale_workers(1).unwrap();
    until(|| pool.queue.lock().workers == 1);
    let kept = pool.queue.lock().threads.len();
    assert!(
        kept <= 3,
        "{kept}: the one that works, the last that went, and one that went while it was started"
    );
    bus.stop().unwrap();
    assert_eq!(pool.queue.lock().threads.len(), 0);
}

#[test]
fn a_turn_that_ends_by_a_panic_is_over() {
    let bus = Bus::builder().inline().start().unwrap();
    bus.subscribe(Handler::new("a.b", |_| ()).max_concurrent(1)).unwrap().keep();
    let engine = &bus.shared.engine;
    let subscriber = Arc::clone(&engine.table().subscribers[0]);
    subscriber.mailbox.lock().turns += 1;
    // What panics there is none of ours to name: the clock, a lock, the allocator.
    let died = catch_panic(|| {
        let _service = engine.serving(&subscriber);
        std::panic::resume_unwind(Box::new("on purpose"));
    });
    assert!(died.is_err());
    assert_eq!(subscriber.mailbox.lock().turns, 0);
    assert_eq!(bus.emit_sync("a.b", ()).unwrap().calls.unwrap().handled, 1);
    bus.stop().unwrap().stats.check_law(1).unwrap();
}

/// Ends the worker of the collector as a panic outside of user code does.
fn kill(bus: &Bus) {
    bus.collector().flush().unwrap();
    Inside::of(&bus.shared.collector).lose_worker();
    assert_eq!(bus.collector().state(), State::WorkerGone);
}

#[test]
fn events_come_to_their_handlers_although_the_worker_of_the_collector_is_gone() {
    let collector = BusConfig::default().collector;
    let gate = collector.gate.clone().with_deny(vec!["denied.*".into()]);
    let collector = collector.with_gate(gate);
    let bus = Bus::builder().config(BusConfig { collector, ..BusConfig::default() }).start().unwrap();
    let emitter = bus.emitter();
    let derive = move |_: &crate::Delivery| _ = emitter.emit("c.d", ()).unwrap();
    bus.on("a.b", derive).unwrap().keep();
    bus.on(["c.d", "denied.one"], |_| ()).unwrap().keep();
    assert_eq!(bus.emit("a.b", ()).unwrap().outcome, Outcome::Queued);
    bus.flush().unwrap();
    kill(&bus);
    for _ in 0..10 {
        assert_eq!(bus.emit("a.b", ()).unwrap().outcome, Outcome::Queued);
        assert_eq!(bus.emit_sync("a.b", ()).unwrap().calls.unwrap().handled, 1);
    }
    assert_eq!(bus.emit("denied.one", ()).unwrap().outcome, Outcome::Filtered);
    bus.flush().unwrap();
    let stats = bus.stats();
    stats.check_law(2 + 40 + 1).unwrap();
    assert_eq!((stats.mode, stats.inline, stats.events.rejected.worker_gone), (Mode::Inline, 40, 0));
    assert_eq!((stats.handlers[0].handled, stats.handlers[1].handled), (21, 21));
    // Who looks back sees them; the sinks are gone with their worker.
    assert_eq!(bus.query(&EventQuery::new().name("c.d")).unwrap().len(), 21);
    let health = bus.health();
    assert_eq!((health.status, health.mode), (HealthStatus::Degraded, Mode::Inline));
    assert!(health.alerts.iter().any(|alert| alert.kind == AlertKind::WorkersFailed));
    let stats = bus.stop().unwrap().stats;
    assert_eq!(bus.emit("a.b", ()).unwrap().outcome, Outcome::Stopped);
    stats.check_law(43).unwrap();
}

#[test]
fn a_bus_may_rather_refuse_than_call_handlers_inline() {
    let bus = Bus::builder().on_worker_failure(OnWorkerFailure::Refuse).start().unwrap();
    bus.on("a.b", |_| ()).unwrap().keep();
    kill(&bus);
    assert_eq!(bus.emit("a.b", ()).unwrap().outcome, Outcome::WorkerGone);
    assert_eq!((bus.health().status, bus.stats().mode), (HealthStatus::Unhealthy, Mode::Pooled));
    assert!(bus.stop().is_err());
    bus.stats().check_law(1).unwrap();
}

/// Spins until it is opened.
#[derive(Clone, Default)]
struct Bar(Arc<std::sync::atomic::AtomicBool>);

impl Bar {
    fn pass(&self) {
        until(|| self.0.load(Ordering::SeqCst));
    }

    fn open(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn whoever_looks_after_the_calls_makes_none_although_the_worker_of_the_collector_is_gone() {
    let (clock, bar) = (forebay::ManualClock::new(), Bar::default());
    let bus = Bus::builder().workers(1).manual_clock(&clock).start().unwrap();
    for topic in ["h.one", "o.one", "system.performance_warning"] {
        let own = bar.clone();
        bus.subscribe(Handler::new(topic, move |_| own.pass()).max_concurrent(1)).unwrap().keep();
    }
    bus.emit("h.one", ()).unwrap();
    bus.emit("o.one", ()).unwrap();
    bus.collector().flush().unwrap();
    until(|| bus.metrics().queue.waiting == 1);
    kill(&bus);
    let begun = Instant::now();
    let mut stuck = 0;
    while stuck < 2 && begun.elapsed() < std::time::Duration::from_secs(5) {
        clock.advance(std::time::Duration::from_secs(10));
        stuck = bus.worker_stats().stuck;
        std::thread::yield_now();
    }
    bar.open();
    assert!(stuck >= 2, "nobody has looked at the second call: {stuck}");
    until(|| bus.stats().check_law(2).is_ok());
    bus.stop().unwrap().stats.check_law(2).unwrap();
}
