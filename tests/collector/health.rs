//! Tests of what an operator sees: health, alerts, and what forebay says of itself.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crate::support::*;
use forebay::config::{ConfigError, HealthConfig, Threshold};
use forebay::log::{LogEntry, LogLevel, LogTopic};
use forebay::sink::{
    BreakerPolicy, BreakerState, DeadLetters, MemorySink, RetryPolicy, Sink, SinkError, SinkExt, from_fn,
};
use forebay::stats::{AlertKind, HealthStatus};
use forebay::{Batch, Builder, Collector, Event, FlushStrategy, Health, ManualClock, Record};

fn kinds(health: &Health) -> Vec<AlertKind> {
    health.alerts.iter().map(|alert| alert.kind.clone()).collect()
}

/// Returns a sink that fails while the switch is on.
fn switched(name: &str, fails: &Arc<AtomicBool>) -> impl Sink<Tick> + 'static {
    let fails = Arc::clone(fails);
    from_fn(name, move |_: &Batch<Tick>| match fails.load(Ordering::SeqCst) {
        true => Err(SinkError::unavailable("switched off")),
        false => Ok(()),
    })
}

fn deliver(collector: &Collector<Tick>) {
    collector.collect(tick(1));
    let _ = collector.flush().unwrap();
}

#[test]
fn a_collector_at_rest_is_healthy_and_so_is_one_that_is_stopped() {
    let collector = ticks().sink(MemorySink::new()).start().unwrap();
    let health = collector.health();
    assert_eq!((health.status, health.alerts.len(), health.active_workers), (HealthStatus::Healthy, 0, 1));
    deliver(&collector);
    collector.stop().unwrap();
    let health = collector.health();
    assert_eq!((health.status, health.active_workers, health.queue_depth), (HealthStatus::Healthy, 0, 0));
    assert_eq!(health.to_string(), "healthy");
    law(&collector, 1);
}

#[test]
fn a_full_queue_is_an_alert_that_does_not_come_and_go_at_the_threshold() {
    let collector = ticks().flush(FlushStrategy::Manual).capacity(10).low_capacity(100).start().unwrap();
    let fill = |events: u64| (0..events).for_each(|number| _ = collector.collect(tick(number)));
    fill(7);
    assert_eq!(collector.health().status, HealthStatus::Healthy);
    fill(1);
    let health = collector.health();
    assert_eq!(
        (health.status, health.queue_depth, health.queue_utilization),
        (HealthStatus::Degraded, 8, 0.8)
    );
    assert_eq!(kinds(&health), [AlertKind::QueueDepth]);
    let alert = &health.alerts[0];
    assert_eq!((alert.value, alert.threshold, alert.is_acknowledged), (0.8, 0.8, false));
    assert!(alert.message.contains("80 %"), "{}", alert.message);
    // Less, but not less enough.
    let _ = collector.flush().unwrap();
    fill(7);
    let again = collector.health();
    assert_eq!(
        (again.alerts[0].id, again.alerts[0].since, again.alerts[0].value),
        (alert.id, alert.since, 0.7)
    );
    assert!(collector.acknowledge(alert.id));
    let known = collector.health();
    assert_eq!((known.status, known.alerts[0].is_acknowledged), (HealthStatus::Degraded, true));
    assert!(known.to_string().ends_with("(acknowledged)"), "{known}");
    let _ = collector.flush().unwrap();
    fill(6);
    assert_eq!(collector.health().status, HealthStatus::Healthy, "at the lower threshold");
    assert!(!collector.acknowledge(alert.id), "it is over");
    fill(2);
    let next = collector.health();
    assert_eq!((kinds(&next), next.alerts[0].is_acknowledged), (vec![AlertKind::QueueDepth], false));
    assert!(next.alerts[0].id > alert.id, "ids are not used again");
    collector.stop().unwrap();
    law(&collector, 8 + 7 + 8);
}

#[test]
fn thresholds_change_at_run_time_and_wrong_ones_are_named() {
    let collector = ticks().flush(FlushStrategy::Manual).capacity(10).start().unwrap();
    (0..3).for_each(|number| _ = collector.collect(tick(number)));
    assert_eq!(collector.health().status, HealthStatus::Healthy);
    let at = |raise, clear| HealthConfig::default().with_queue_depth(Threshold::new(raise, clear));
    collector.update_config(|config| config.health = at(0.3, 0.2)).unwrap();
    assert_eq!(collector.health().status, HealthStatus::Degraded);
    let field = |health: HealthConfig| match collector.update_config(|config| config.health = health.clone())
    {
        Err(ConfigError::Invalid { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(at(0.0, 0.0)), "health.queue_depth.raise");
    assert_eq!(field(at(f64::NAN, 0.0)), "health.queue_depth.raise");
    assert_eq!(field(at(0.5, 0.6)), "health.queue_depth.clear");
    let default = HealthConfig::default;
    let failing = |raise, clear| default().with_failing(Threshold::new(raise, clear));
    assert_eq!(field(failing(1.0, 0.5)), "health.failing.raise");
    assert_eq!(field(failing(0.5, 0.0)), "health.failing.clear");
    collector.update_config(|config| config.health.max_dead_letters = u64::MAX).unwrap();
    assert_eq!(collector.health().status, HealthStatus::Degraded);
    assert_eq!(field(default().with_max_busy_time(Duration::ZERO)), "health.max_busy_time");
    assert_eq!(field(default().with_min_rate(0.0)), "health.min_rate");
    assert_eq!(field(default().with_max_latency(Duration::ZERO)), "health.max_latency");
    collector.stop().unwrap();
    law(&collector, 3);
}

struct Heavy;

impl Event for Heavy {
    fn size_hint(&self) -> usize {
        90
    }
}

#[test]
fn bytes_that_run_short_are_an_alert() {
    let collector = Builder::<Heavy>::new().max_bytes(110).flush(FlushStrategy::Manual).start().unwrap();
    collector.collect(Heavy);
    // 90 of 110: all that normal events may take is less than all.
    let health = collector.health();
    assert_eq!(kinds(&health), [AlertKind::Memory]);
    assert!(health.alerts[0].message.ends_with("or raise max_bytes"), "{}", health.alerts[0].message);
    assert!((health.memory_utilization - 90.0 / 110.0).abs() < 1e-9);
    let _ = collector.flush().unwrap();
    assert_eq!(collector.health().status, HealthStatus::Healthy);
    collector.stop().unwrap();
    law(&collector, 1);
}

#[test]
fn a_sink_that_fails_degrades_and_where_all_fail_nothing_is_delivered() {
    let fails = Arc::new(AtomicBool::new(false));
    let collector = ticks().sink(MemorySink::new()).sink(switched("disk", &fails)).start().unwrap();
    deliver(&collector);
    fails.store(true, Ordering::SeqCst);
    deliver(&collector);
    deliver(&collector);
    assert_eq!(collector.health().status, HealthStatus::Healthy, "two failures may happen");
    deliver(&collector);
    let health = collector.health();
    assert_eq!(
        (health.status, kinds(&health)),
        (HealthStatus::Degraded, vec![AlertKind::SinkFailing("disk".into())])
    );
    let _ = collector.remove_sink("memory").unwrap();
    assert_eq!(collector.health().status, HealthStatus::Unhealthy, "it was the only one that delivered");
    fails.store(false, Ordering::SeqCst);
    deliver(&collector);
    assert_ne!(collector.health().status, HealthStatus::Healthy, "one success is not enough");
    (0..10).for_each(|_| deliver(&collector));
    assert_eq!(collector.health().status, HealthStatus::Healthy);
    collector.stop().unwrap();
    law(&collector, 15);
}

#[test]
fn every_second_failure_is_one_too() {
    let turn = AtomicU64::new(0);
    let sink = from_fn("odd", move |_: &Batch<Tick>| match turn.fetch_add(1, Ordering::SeqCst) % 2 {
        0 => Err(SinkError::write_failed("every other")),
        _ => Ok(()),
    });
    let collector = ticks().sink(sink).sink(MemorySink::new()).start().unwrap();
    (0..21).for_each(|_| deliver(&collector));
    assert_eq!(kinds(&collector.health()), [AlertKind::SinkFailing("odd".into())]);
    collector.stop().unwrap();
    law(&collector, 21);
}

#[test]
fn breakers_and_dead_letters_are_seen() {
    let (fails, clock, letters) =
        (Arc::new(AtomicBool::new(true)), ManualClock::new(), DeadLetters::new(100));
    let mut policy = BreakerPolicy::default();
    policy.failures = 2;
    let sink = switched("disk", &fails).breaker(policy).manual_clock(&clock).dead_letters(&letters);
    let collector = ticks().sink(sink).sink(MemorySink::new()).start().unwrap();
    (0..2).for_each(|_| deliver(&collector));
    let disk = || AlertKind::BreakerOpen("disk".into());
    let health = collector.health();
    assert!(
        kinds(&health).contains(&disk()) && kinds(&health).contains(&AlertKind::DeadLetters("disk".into()))
    );
    let stats = law(&collector, 2);
    let of = stats.sink("disk").unwrap();
    assert_eq!((of.breaker, of.dead_letters, of.dead_lettered), (Some(BreakerState::Open), 2, 2));
    fails.store(false, Ordering::SeqCst);
    clock.advance(Duration::from_secs(30));
    letters.redrive(None);
    (0..10).for_each(|_| deliver(&collector));
    assert_eq!(collector.health().status, HealthStatus::Healthy);
    let stats = law(&collector, 12);
    let of = stats.sink("disk").unwrap();
    assert_eq!((of.breaker, of.dead_letters, of.redriven), (Some(BreakerState::Closed), 0, 2));
    collector.stop().unwrap();
}

#[test]
fn a_worker_that_does_not_come_back_is_named_and_so_is_an_isolated_sink() {
    let (gate, own) = (Gate::closed(), Gate::closed());
    let late = HealthConfig::default().with_max_busy_time(Duration::from_millis(1));
    let isolated = {
        let own = own.clone();
        from_fn("own", move |_: &Batch<Tick>| {
            own.pass();
            Ok(())
        })
    };
    let collector = ticks().health(late).sink(isolated.isolated(10)).start().unwrap();
    collector.collect(tick(1));
    let _ = collector.flush_timeout(Duration::ZERO);
    own.await_arrivals(1);
    until("the isolated sink is late", || kinds(&collector.health()) == [AlertKind::SinkLate("own".into())]);
    assert_eq!(collector.health().status, HealthStatus::Degraded);
    collector.add_sink(gate.sink()).unwrap();
    collector.collect(tick(2));
    let _ = collector.flush_timeout(Duration::ZERO);
    gate.await_arrivals(1);
    until("the worker is late", || collector.health().status == HealthStatus::Unhealthy);
    let health = collector.health();
    let alert = health.alerts.iter().find(|alert| alert.kind == AlertKind::WorkerLate).unwrap();
    assert!(alert.message.contains("\"gate\""), "{}", alert.message);
    gate.open();
    own.open();
    until("both are back", || collector.health().status == HealthStatus::Healthy);
    collector.stop().unwrap();
    law(&collector, 2);
}

#[test]
fn what_completes_events_makes_the_worker_late_as_well() {
    let gate = Gate::closed();
    let late = HealthConfig::default().with_max_busy_time(Duration::from_millis(1));
    let own = gate.clone();
    let collector = ticks().health(late).enrich(move |_: &mut Tick, _| own.pass()).start().unwrap();
    collector.collect(tick(1));
    let _ = collector.flush_timeout(Duration::ZERO);
    gate.await_arrivals(1);
    until("the worker is late", || kinds(&collector.health()) == [AlertKind::WorkerLate]);
    gate.open();
    collector.stop().unwrap();
    assert_eq!(collector.health().status, HealthStatus::Healthy);
    law(&collector, 1);
}

/// Made so many seconds ago.
struct Made(u64);

impl Event for Made {
    fn made_at(&self) -> Option<u64> {
        let moment = std::time::SystemTime::now() - Duration::from_secs(self.0);
        Some(moment.duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64)
    }
}

#[test]
fn latencies_beyond_the_limit_are_an_alert() {
    let slow = HealthConfig::default().with_max_latency(Duration::from_secs(100));
    let collector = Builder::<Made>::new().health(slow).flush(FlushStrategy::Manual).start().unwrap();
    collector.collect(Made(90));
    let _ = collector.flush().unwrap();
    assert_eq!(collector.health().status, HealthStatus::Healthy);
    collector.collect(Made(300));
    let _ = collector.flush().unwrap();
    assert_eq!(kinds(&collector.health()), [AlertKind::Latency]);
    collector.stop().unwrap();
    law(&collector, 2);
}

/// Returns a collector whose hook keeps what is said, and the clock by which it is said.
fn talking(builder: Builder<Tick>) -> (Builder<Tick>, ManualClock, Arc<Mutex<Vec<LogEntry>>>) {
    let (clock, said) = (ManualClock::new(), Arc::new(Mutex::new(Vec::new())));
    let hears = Arc::clone(&said);
    let builder = builder
        .manual_clock(&clock)
        .on_log(move |entry: &LogEntry| hears.lock().unwrap().push(entry.clone()));
    (builder, clock, said)
}

fn topics(said: &Mutex<Vec<LogEntry>>) -> Vec<(LogTopic, u64)> {
    said.lock().unwrap().iter().map(|entry| (entry.topic, entry.held_back)).collect()
}

#[test]
fn the_hook_is_called_once_a_second_and_learns_how_much_was_held_back() {
    let (builder, clock, said) = talking(ticks());
    let collector = builder.sink(failing::<Tick>("disk")).sink(panicking::<Tick>("worse")).start().unwrap();
    hush();
    (0..5).for_each(|_| deliver(&collector));
    let both = [(LogTopic::SinkFailed, 0), (LogTopic::SinkPanicked, 0)];
    assert_eq!(topics(&said), both);
    clock.advance(Duration::from_millis(999));
    deliver(&collector);
    assert_eq!(topics(&said), both);
    clock.advance(Duration::from_millis(1));
    deliver(&collector);
    assert_eq!(topics(&said)[2..], [(LogTopic::SinkFailed, 5), (LogTopic::SinkPanicked, 5)]);
    let last = said.lock().unwrap()[2].clone();
    assert_eq!((last.level, last.sink.as_deref()), (LogLevel::Error, Some("disk")));
    let text = "error: disk: sink unavailable: nobody is there (and 5 more before)";
    assert_eq!(last.to_string(), text);
    clock.advance(Duration::from_secs(1));
    deliver(&collector);
    assert_eq!(topics(&said)[4..], both);
    collector.stop().unwrap();
    law(&collector, 8);
}

#[test]
fn every_loss_is_said() {
    hush();
    let (builder, clock, said) = talking(ticks().capacity(2).flush(FlushStrategy::Manual));
    let (fails, letters) = (Arc::new(AtomicBool::new(true)), DeadLetters::new(10));
    let (mut breaker, gate) = (BreakerPolicy::default(), Gate::closed());
    breaker.failures = 1;
    let retried = RetryPolicy::fixed(Duration::ZERO, 1);
    let collector = builder
        .enrich(|tick: &mut Tick, _| assert_ne!(tick.number, 1, "on purpose"))
        .sink(switched("a", &fails).breaker(breaker).manual_clock(&clock).dead_letters(&letters))
        .sink(switched("b", &fails).retry(retried))
        .sink(gate.sink().isolated(1))
        .start()
        .unwrap();
    (0..3).for_each(|number| _ = collector.collect(tick(number)));
    until_delivered(&collector);
    gate.await_arrivals(1);
    for _ in 0..3 {
        collector.collect(tick(9));
        until_delivered(&collector);
    }
    let expected = [
        LogTopic::Evicted,
        LogTopic::EnrichPanicked,
        LogTopic::SinkFailed,
        LogTopic::Breaker,
        LogTopic::DeadLettered,
        LogTopic::Retried,
        LogTopic::QueueFull,
    ];
    until("all were said", || {
        expected.iter().all(|topic| topics(&said).iter().any(|(said, _)| said == topic))
    });
    gate.open();
    collector.stop().unwrap();
    law(&collector, 6);
    let _ = collector.health();
    assert!(topics(&said).iter().any(|(topic, _)| *topic == LogTopic::Alert));
}

#[test]
fn alerts_are_said_when_they_come_and_go() {
    let (builder, clock, said) = talking(ticks().capacity(10).flush(FlushStrategy::Manual));
    let collector = builder.start().unwrap();
    (0..9).for_each(|number| _ = collector.collect(tick(number)));
    let _ = collector.health();
    let _ = collector.health();
    clock.advance(Duration::from_secs(1));
    let _ = collector.flush().unwrap();
    let _ = collector.health();
    let entries = said.lock().unwrap().clone();
    assert_eq!(entries.iter().map(|entry| entry.level).collect::<Vec<_>>(), [LogLevel::Warn, LogLevel::Info]);
    assert_eq!(entries[1].message, "alert 0 is over");
    collector.stop().unwrap();
    law(&collector, 9);
}

#[test]
fn a_hook_may_collect_ask_and_panic_and_is_not_called_within_itself() {
    hush();
    let handle = Arc::new(OnceLock::<Collector<Tick>>::new());
    let (calls, depth) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (own, counter, deep) = (Arc::clone(&handle), Arc::clone(&calls), Arc::clone(&depth));
    let clock = ManualClock::new();
    let collector = ticks()
        .flush(FlushStrategy::Manual)
        .capacity(10)
        .manual_clock(&clock)
        .sink(failing::<Tick>("disk"))
        .on_log(move |_: &LogEntry| {
            counter.fetch_add(1, Ordering::SeqCst);
            if deep.fetch_add(1, Ordering::SeqCst) > 0 {
                return;
            }
            let collector = own.get().unwrap();
            (0..9).for_each(|_| _ = collector.collect(tick(1)));
            // Raises an alert, which would be said.
            assert_eq!(collector.health().status, HealthStatus::Degraded);
            assert!(collector.flush().is_err(), "the worker cannot wait for itself");
            let _ = collector.stats();
            deep.store(0, Ordering::SeqCst);
            panic!("on purpose");
        })
        .start()
        .unwrap();
    handle.set(collector.clone()).unwrap();
    collector.collect(tick(1));
    let _ = collector.flush().unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 1, "not within itself");
    // What it collected fails as well, and is not said within the second.
    let _ = collector.flush().unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert_eq!(law(&collector, 10).sinks[0].errors, 2);
    collector.stop().unwrap();
    let _ = collector.remove_sink("disk").unwrap();
}

#[test]
fn a_sink_that_is_rarely_meant_is_judged_by_its_own_calls_alone() {
    let fails = Arc::new(AtomicBool::new(true));
    let collector = Collector::builder()
        .sink(MemorySink::new())
        .sink({
            let fails = Arc::clone(&fails);
            from_fn("rare", move |_: &Batch| match fails.load(Ordering::SeqCst) {
                true => Err(SinkError::unavailable("always")),
                false => Ok(()),
            })
            .route("rare")
        })
        .start()
        .unwrap();
    for round in 0..40 {
        let name = if round % 4 == 0 { "rare" } else { "often" };
        collector.collect(Record::scalar(name, 0.5));
        let _ = collector.flush().unwrap();
    }
    assert_eq!(kinds(&collector.health()), [AlertKind::SinkFailing("rare".into())]);
    let live = collector.subscribe("*").unwrap();
    let _ = collector.remove_sink("memory").unwrap();
    assert_eq!(collector.health().status, HealthStatus::Unhealthy, "who watches is no sink that delivers");
    drop(live);
    collector.stop().unwrap();
    law(&collector, 40);
}

#[test]
fn a_sink_that_waits_by_itself_does_not_hang() {
    let late = HealthConfig::default().with_max_busy_time(Duration::from_millis(200));
    let memory = MemorySink::new();
    let collector = ticks().health(late).sink(memory.clone().rate_limited(1)).start().unwrap();
    collector.collect(tick(0));
    collector.flush().unwrap();
    assert_eq!(memory.len(), 1);
    collector.collect(tick(1));
    // The second event waits for the rest of a second, five times as long as a call may take.
    let begun = std::time::Instant::now();
    while memory.len() == 1 && begun.elapsed() < Duration::from_millis(500) {
        assert_eq!(kinds(&collector.health()), []);
        std::thread::yield_now();
    }
    drop(collector);
}

#[test]
fn an_alert_that_is_raised_and_cleared_at_one_value_stays_there() {
    let at_all = HealthConfig::default().with_queue_depth(Threshold::new(1.0, 1.0));
    let collector = ticks().health(at_all).flush(FlushStrategy::Manual).capacity(2).start().unwrap();
    (0..2).for_each(|number| _ = collector.collect(tick(number)));
    let ids: Vec<u64> = (0..4).map(|_| collector.health().alerts[0].id).collect();
    assert_eq!(ids, [0; 4]);
    collector.stop().unwrap();
    law(&collector, 2);
}

#[test]
fn events_that_wait_while_few_are_delivered_are_an_alert() {
    let clock = ManualClock::new();
    let slow = HealthConfig::default().with_min_rate(500.0);
    let collector = ticks().health(slow).flush(FlushStrategy::Manual).manual_clock(&clock).start().unwrap();
    assert_eq!(collector.health().status, HealthStatus::Healthy, "nothing waits");
    (0..100).for_each(|number| _ = collector.collect(tick(number)));
    assert_eq!(kinds(&collector.health()), [AlertKind::TooSlow]);
    let _ = collector.flush().unwrap();
    assert_eq!(collector.health().status, HealthStatus::Healthy);
    for _ in 0..3 {
        clock.advance(Duration::from_secs(1));
        (0..1000).for_each(|number| _ = collector.collect(tick(number)));
        let _ = collector.flush().unwrap();
    }
    collector.collect(tick(1));
    assert_eq!(collector.health().status, HealthStatus::Healthy, "a thousand a second are enough");
    collector.stop().unwrap();
    law(&collector, 3101);
}
