//! Plugins come and go as a whole and say so; watchers tell what they see, and stop with their owner.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::{hush, until};
use forebay::event::catalog::data::BatchLoaded;
use forebay::sink::RetryPolicy;
use forebay::{Fields, ManualClock, Record, Value};
use forebay_bus::{
    Bus, BusConfig, Handler, HandlerError, Plugin, PluginError, Plugins, SubscribeError, Wiring, watch,
};
use forebay_history::EventQuery;

#[track_caller]
fn law(bus: &Bus, emitted: u64) {
    if let Err(broken) = bus.stats().check_law(emitted) {
        panic!("{broken}");
    }
}

/// Returns the events of that name, those included that handlers have emitted.
fn reported(bus: &Bus, name: &str) -> Vec<Fields> {
    bus.flush().unwrap();
    let events = bus.query(&EventQuery::new().name(name)).unwrap();
    events.iter().map(|event| event.value().as_fields().unwrap().clone()).collect()
}

fn number(fields: &Fields, name: &str) -> f64 {
    fields.get(name).unwrap().as_f64().unwrap()
}

/// Runs a test with both ways of calling handlers, by a clock that is moved by hand.
fn both(test: impl Fn(Bus, ManualClock)) {
    for is_inline in [false, true] {
        let clock = ManualClock::new();
        let config = BusConfig::default().with_retry(RetryPolicy::list([]));
        let mut builder = Bus::builder().config(config).manual_clock(&clock);
        if is_inline {
            builder = builder.inline();
        }
        test(builder.start().unwrap(), clock);
    }
}

/// Counts events, and how often it was started and stopped.
#[derive(Clone, Default)]
struct Counter {
    events: Arc<AtomicU64>,
    stops: Arc<AtomicU64>,
}

impl Plugin for Counter {
    fn name(&self) -> &str {
        "counter"
    }

    fn version(&self) -> Option<String> {
        Some("1.2".to_owned())
    }

    fn capabilities(&self) -> Option<Vec<String>> {
        Some(vec!["counts".to_owned()])
    }

    fn start(&self, wiring: &mut Wiring<'_>) -> Result<(), SubscribeError> {
        for topic in ["training.*", "model.*"] {
            let events = Arc::clone(&self.events);
            wiring.on(topic, move |_| _ = events.fetch_add(1, Ordering::SeqCst))?;
        }
        wiring.subscribe(Handler::new("bad.event", |_| Err(HandlerError::new("no"))))
    }

    fn stop(&self) {
        self.stops.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_plugin_is_subscribed_while_it_is_in_service_and_says_when_it_comes_and_goes() {
    both(|bus, _| {
        let plugins = Plugins::new(&bus);
        let counter = Counter::default();
        plugins.start(counter.clone()).unwrap();
        let again = plugins.start(Counter::default()).unwrap_err();
        assert_eq!(again, PluginError::DuplicatePlugin { name: "counter".to_owned() });
        bus.emit_sync("training.started", ()).unwrap();
        bus.emit_sync("model.checkpoint_saved", ()).unwrap();
        assert_eq!(plugins.names(), ["counter"]);
        assert!(plugins.stop("counter") && !plugins.stop("counter"));
        bus.emit_sync("training.completed", ()).unwrap();
        assert_eq!(counter.events.load(Ordering::SeqCst), 2);
        assert_eq!(counter.stops.load(Ordering::SeqCst), 1);
        bus.flush().unwrap();
        let events = bus.query(&EventQuery::new().name("plugin.*")).unwrap();
        let names: Vec<&str> = events.iter().map(Record::name).collect();
        assert_eq!(names, ["plugin.loaded", "plugin.initialized", "plugin.activated", "plugin.deactivated"]);
        let activated = events[2].value().as_fields().unwrap();
        assert_eq!(activated.get("plugin_name"), Some(&Value::from("counter")));
        assert_eq!(activated.get("version"), Some(&Value::from("1.2")));
        // The drop of the host stops those that are left.
        plugins.start(counter.clone()).unwrap();
        drop(plugins);
        assert_eq!(counter.stops.load(Ordering::SeqCst), 2);
        assert_eq!(reported(&bus, "plugin.deactivated").len(), 2);
        assert!(bus.stats().handlers.is_empty());
        law(&bus, 3);
    });
}

#[test]
fn what_a_plugin_does_not_take_is_reported() {
    both(|bus, _| {
        let plugins = Plugins::new(&bus);
        plugins.start(Counter::default()).unwrap();
        bus.emit("bad.event", ()).unwrap();
        let errors = reported(&bus, "plugin.error");
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].get("plugin_name"), Some(&Value::from("counter")));
        assert_eq!(errors[0].get("error"), Some(&Value::from("no")));
        law(&bus, 1);
    });
}

/// Subscribes, then fails.
struct Broken(&'static str);

impl Plugin for Broken {
    fn name(&self) -> &str {
        self.0
    }

    fn version(&self) -> Option<String> {
        assert!(self.0 != "has no version", "on purpose");
        None
    }

    fn config(&self) -> Fields {
        assert!(self.0 != "has no config", "on purpose");
        Fields::new()
    }

    fn start(&self, wiring: &mut Wiring<'_>) -> Result<(), SubscribeError> {
        wiring.on("a.b", |_| ())?;
        assert!(self.0 != "panics", "on purpose");
        if self.0 == "refused" { wiring.on("no name", |_| ()) } else { Ok(()) }
    }
}

#[test]
fn a_plugin_that_cannot_start_leaves_nothing_behind() {
    hush();
    both(|bus, _| {
        let plugins = Plugins::new(&bus);
        assert!(matches!(plugins.start(Broken("refused")).unwrap_err(), PluginError::Subscribe(_)));
        assert!(matches!(plugins.start(Broken("panics")).unwrap_err(), PluginError::Panicked { .. }));
        for name in ["has no version", "has no config"] {
            // Its name is free again each time.
            for _ in 0..2 {
                assert!(matches!(plugins.start(Broken(name)).unwrap_err(), PluginError::Panicked { .. }));
            }
        }
        assert!(bus.stats().handlers.is_empty() && plugins.names().is_empty());
        assert_eq!(reported(&bus, "plugin.error").len(), 6);
        assert!(reported(&bus, "plugin.activated").is_empty());
        bus.stop().unwrap();
        let late = plugins.start(Counter::default()).unwrap_err();
        assert_eq!(late, PluginError::Subscribe(SubscribeError::Stopped));
        law(&bus, 0);
    });
}

#[test]
fn ten_errors_are_too_many() {
    both(|bus, _| {
        let watcher = watch::error_budget(&bus, 10).unwrap();
        let emit = |name: &'static str| {
            bus.emit(name, Fields::new().with("component", "loader")).unwrap();
        };
        (0..5).for_each(|_| emit("plugin.error"));
        (0..4).for_each(|_| emit("training.failed"));
        emit("training.completed");
        assert!(reported(&bus, "system.error_threshold_exceeded").is_empty());
        emit("training.failed");
        let exceeded = reported(&bus, "system.error_threshold_exceeded");
        assert_eq!((number(&exceeded[0], "error_count"), number(&exceeded[0], "threshold")), (10.0, 10.0));
        assert_eq!(exceeded[0].get("component"), Some(&Value::from("loader")));
        // It begins anew, and stops with its owner.
        (0..9).for_each(|_| emit("plugin.error"));
        assert_eq!(reported(&bus, "system.error_threshold_exceeded").len(), 1);
        drop(watcher);
        (0..20).for_each(|_| emit("plugin.error"));
        assert_eq!(reported(&bus, "system.error_threshold_exceeded").len(), 1);
        law(&bus, 40);
    });
}

#[test]
fn what_crosses_a_threshold_is_reported() {
    both(|bus, _| {
        let watcher = watch::threshold(&bus, ["train.*", "system.*"], "value", 100.0).unwrap();
        let slow = watch::slow_batches(&bus, Duration::from_millis(200)).unwrap();
        for value in [99.0, 100.0, 101.0, f64::NAN] {
            bus.emit_record(Record::scalar("train.loss", value)).unwrap();
        }
        for load_time in [100, 200, 300] {
            let load_time = Duration::from_millis(load_time);
            bus.emit_event(BatchLoaded { load_time, ..BatchLoaded::default() }).unwrap();
        }
        let warnings = reported(&bus, "system.performance_warning");
        assert_eq!(warnings.len(), 1, "and none for the warning itself");
        assert_eq!((number(&warnings[0], "value"), number(&warnings[0], "threshold")), (101.0, 100.0));
        assert_eq!(warnings[0].get("component"), Some(&Value::from("train")));
        let late = reported(&bus, "data.performance_warning");
        assert_eq!((late.len(), number(&late[0], "value"), number(&late[0], "threshold")), (1, 0.3, 0.2));
        drop((watcher, slow));
        bus.emit_record(Record::scalar("train.loss", 1e9)).unwrap();
        assert_eq!(reported(&bus, "system.performance_warning").len(), 1);
        law(&bus, 8);
    });
}

/// Says when what is due was done: a probe that was added behind the others, and measures nothing.
struct Ticks<'a> {
    bus: &'a Bus,
    clock: &'a ManualClock,
    every: Duration,
    probe: watch::Watcher,
    ticks: Cell<u64>,
}

impl<'a> Ticks<'a> {
    fn new(bus: &'a Bus, clock: &'a ManualClock, every: Duration) -> Self {
        let probe = watch::probe(bus, every, "ticks", || None::<Record>).unwrap();
        Self { bus, clock, every, probe, ticks: Cell::new(0) }
    }

    /// Moves the clock, and waits until everything was done that was due then.
    fn tick(&self) {
        self.clock.advance(self.every);
        self.await_tick();
    }

    fn await_tick(&self) {
        self.ticks.set(self.ticks.get() + 1);
        // Inline, by this.
        self.bus.flush().unwrap();
        until("what is due is done", || self.calls_of("ticks") == self.ticks.get());
    }

    fn calls_of(&self, handler: &str) -> u64 {
        let stats = self.bus.stats();
        stats.handler(handler).map_or(0, |it| it.handled + it.dead_lettered)
    }

    fn end(self) {
        drop(self.probe);
    }
}

#[test]
fn the_last_fifty_events_are_summed_up_every_five_seconds() {
    both(|bus, clock| {
        let watcher = watch::aggregate(&bus, Duration::from_secs(5), 50).unwrap();
        let ticks = Ticks::new(&bus, &clock, Duration::from_secs(5));
        for round in 0..30 {
            bus.emit("other.event", round).unwrap();
        }
        for _ in 0..30 {
            bus.emit("training.batch_completed", ()).unwrap();
        }
        for _ in 0..10 {
            bus.emit("system.disk_usage", ()).unwrap();
        }
        bus.flush().unwrap();
        clock.advance(Duration::from_millis(4_999));
        assert!(reported(&bus, "metrics.aggregated").is_empty());
        clock.advance(Duration::from_millis(1));
        ticks.await_tick();
        let mut summaries = reported(&bus, "metrics.aggregated");
        let summary = summaries.remove(0);
        assert!(summaries.is_empty());
        assert_eq!(number(&summary, "training_events_count"), 30.0);
        assert_eq!(number(&summary, "system_events_count"), 10.0);
        assert_eq!(number(&summary, "events_per_second"), 10.0, "fifty in five seconds");
        // Nothing came since.
        ticks.tick();
        assert_eq!(reported(&bus, "metrics.aggregated").len(), 1);
        bus.emit("training.late", ()).unwrap();
        bus.flush().unwrap();
        ticks.tick();
        assert_eq!(reported(&bus, "metrics.aggregated").len(), 2);
        drop(watcher);
        bus.emit("training.late", ()).unwrap();
        ticks.tick();
        assert_eq!(reported(&bus, "metrics.aggregated").len(), 2);
        ticks.end();
        law(&bus, 72);
    });
}

#[test]
fn the_memory_of_the_machine_is_reported_while_somebody_watches() {
    if !std::path::Path::new("/proc/meminfo").exists() {
        return;
    }
    both(|bus, clock| {
        let watcher = watch::memory(&bus, Duration::from_secs(10)).unwrap();
        let ticks = Ticks::new(&bus, &clock, Duration::from_secs(10));
        ticks.tick();
        until("it was measured", || ticks.calls_of("memory") == 1);
        let mut usages = reported(&bus, "system.memory_usage");
        let usage = usages.remove(0);
        assert!(usages.is_empty());
        assert!((0.0..=100.0).contains(&number(&usage, "percentage")));
        assert!(number(&usage, "available_mb") > 0.0);
        drop(watcher);
        ticks.tick();
        assert_eq!(reported(&bus, "system.memory_usage").len(), 1);
        ticks.end();
        law(&bus, 0);
    });
}

#[test]
fn what_is_measured_is_reported_while_somebody_watches_and_what_panics_is_reported_as_well() {
    hush();
    both(|bus, clock| {
        let every = Duration::from_secs(10);
        let disk = watch::disk(&bus, every, "/").unwrap();
        let broken =
            watch::probe(&bus, every, "broken", || -> Option<Record> { panic!("on purpose") }).unwrap();
        let missing = watch::disk(&bus, every, "/is/not/there").unwrap();
        let ticks = Ticks::new(&bus, &clock, every);
        ticks.tick();
        until("all were measured", || {
            bus.stats().handlers.iter().all(|handler| handler.handled + handler.dead_lettered == 1)
        });
        let usages = reported(&bus, "system.disk_usage");
        assert_eq!(usages.len(), usize::from(cfg!(unix)));
        assert!(usages.iter().all(|usage| number(usage, "used_gb") > 0.0));
        assert_eq!(bus.stats().handler("broken").unwrap().panics, 1);
        drop((disk, broken, missing));
        ticks.end();
        assert!(bus.stats().handlers.is_empty());
        law(&bus, 0);
    });
}

#[test]
fn watchers_refuse_what_makes_no_sense() {
    let bus = Bus::new().unwrap();
    let wrong = [
        watch::aggregate(&bus, Duration::ZERO, 50).map(drop),
        watch::aggregate(&bus, Duration::from_secs(5), 0).map(drop),
        watch::error_budget(&bus, 0).map(drop),
        watch::memory(&bus, Duration::ZERO).map(drop),
    ];
    assert!(wrong.iter().all(|refused| matches!(refused, Err(SubscribeError::Config(_)))));
    assert!(bus.stats().handlers.is_empty());
}

#[test]
fn a_watcher_does_not_keep_its_bus_alive() {
    let bus = Bus::new().unwrap();
    let watchers = (watch::aggregate(&bus, Duration::from_secs(5), 50), watch::error_budget(&bus, 10));
    let plugins = Plugins::new(&bus);
    plugins.start(Counter::default()).unwrap();
    let emitter = bus.emitter();
    drop(bus);
    let seen = Mutex::new(emitter.emit("a.b", ()).unwrap().outcome);
    assert_eq!(*seen.lock().unwrap(), forebay::Outcome::Stopped);
    drop((watchers, plugins));
}
