//! Tests of what an operator reads: rates, latencies, what happened between two readings.

use std::time::{Duration, SystemTime};

use crate::support::*;
use forebay::collector::Origin;
use forebay::config::HealthConfig;
use forebay::sink::MemorySink;
use forebay::stats::{HealthStatus, Latency};
use forebay::{Builder, Collector, Event, FlushStrategy, ManualClock, Overflow, Priority, Record};

#[test]
fn the_rate_and_the_uptime_go_by_the_collectors_clock() {
    let clock = ManualClock::new();
    let collector =
        ticks().flush(FlushStrategy::Manual).capacity(100_000).manual_clock(&clock).start().unwrap();
    assert_eq!((collector.stats().uptime, collector.stats().rate), (Duration::ZERO, 0.0));
    for _ in 0..4 {
        (0..1000).for_each(|number| _ = collector.collect(tick(number)));
        let _ = collector.flush().unwrap();
        clock.advance(Duration::from_secs(1));
    }
    let stats = law(&collector, 4000);
    assert_eq!(stats.uptime, Duration::from_secs(4));
    assert!((900.0..1100.0).contains(&stats.rate), "{}", stats.rate);
    assert_eq!(collector.health().processing_rate, stats.rate, "health tells the same");
    clock.advance(Duration::from_secs(36));
    assert!(collector.stats().rate < 60.0, "it falls while nothing comes");
    collector.stop().unwrap();
}

/// Nanoseconds since 1970, so long ago.
fn ago(seconds: u64) -> u64 {
    let moment = SystemTime::now() - Duration::from_secs(seconds);
    moment.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64
}

/// Tells when it was made.
struct Made(u64);

impl Event for Made {
    fn made_at(&self) -> Option<u64> {
        Some(self.0)
    }
}

#[test]
fn latencies_are_those_of_events_that_tell_when_they_were_made() {
    let collector = Builder::<Made>::new().flush(FlushStrategy::Manual).start().unwrap();
    for seconds in [1, 1, 1, 100] {
        collector.collect(Made(ago(seconds)));
    }
    let _ = collector.flush().unwrap();
    let latency = law(&collector, 4).latency;
    assert_eq!(latency.events, 4);
    let seconds = |reported: Duration| reported.as_secs_f64().round() as i64;
    assert_eq!((seconds(latency.p50), latency.p50 < latency.p95), (1, true), "{latency:?}");
    assert!((99..=102).contains(&seconds(latency.max)) && (25..=27).contains(&seconds(latency.mean)));
    collector.stop().unwrap();

    let ticking = ticks().start().unwrap();
    ticking.collect(tick(1));
    ticking.stop().unwrap();
    assert_eq!(law(&ticking, 1).latency, Latency::default());
}

#[test]
fn records_are_measured_from_their_receipt_and_not_from_a_moment_that_the_caller_set() {
    let limit = HealthConfig::default().with_max_latency(Duration::from_secs(60));
    let collector = Collector::builder()
        .health(limit)
        .flush(FlushStrategy::Manual)
        .enrich(|record: &mut Record, _: &Origin| {
            if record.name() == "enriched" {
                *record = record.clone().with_unix_nanos(ago(4000));
            }
        })
        .start()
        .unwrap();
    let past = SystemTime::now() - Duration::from_secs(31_536_000);
    let future = SystemTime::now() + Duration::from_secs(31_536_000);
    for priority in [Priority::Critical, Priority::Normal, Priority::Low] {
        let record = Record::scalar("loss", 0.5).with_priority(priority);
        collector.collect(record.clone().with_time(past));
        collector.collect(record.clone().with_time(future));
        collector.collect(record.with_unix_nanos(7).with_step(3));
    }
    let read: Record = serde_json::from_str(r#"{"name":"read","time":"2020-02-03T04:05:06Z"}"#).unwrap();
    collector.collect(read);
    collector.collect(Record::new("enriched"));
    let _ = collector.flush().unwrap();
    assert_eq!(law(&collector, 11).latency, Latency::default());
    assert_eq!(collector.health().status, HealthStatus::Healthy);
    // Among these, those that forebay stamped are measured.
    for _ in 0..3 {
        collector.collect(Record::scalar("loss", 0.5).with_priority(Priority::Low).with_step(1));
        collector.collect(Record::scalar("loss", 0.5).with_time(past));
    }
    let _ = collector.flush().unwrap();
    let latency = law(&collector, 17).latency;
    assert_eq!((latency.events, latency.max < Duration::from_secs(60)), (3, true), "{latency:?}");
    collector.stop().unwrap();
}

#[test]
fn a_delta_tells_what_happened_between_two_readings() {
    hush();
    let clock = ManualClock::new();
    let memory = MemorySink::new();
    let collector = ticks()
        .flush(FlushStrategy::Manual)
        .capacity(4)
        .manual_clock(&clock)
        .sink(memory)
        .sink(failing::<Tick>("failing"))
        .start()
        .unwrap();
    (0..3).for_each(|number| _ = collector.collect(tick(number)));
    let _ = collector.flush().unwrap();
    let before = collector.stats();
    clock.advance(Duration::from_secs(2));
    (0..6).for_each(|number| _ = collector.collect(tick(number)));
    collector.update_config(|config| config.overflow = Overflow::DropNewest).unwrap();
    collector.collect(tick(6));
    collector.add_sink(MemorySink::new().named("later")).unwrap();
    let _ = collector.flush().unwrap();
    let now = law(&collector, 10);
    let delta = now.delta(&before);
    assert_eq!((delta.offered, delta.processed, delta.evicted, delta.rejected.full), (7, 4, 2, 1));
    assert_eq!((delta.rejected_or_evicted(), delta.batches, delta.elapsed), (3, 1, Duration::from_secs(2)));
    assert_eq!(delta.per_second(delta.processed), 2.0);
    let of = |name| delta.sinks.iter().find(|sink| sink.name == name).unwrap();
    assert_eq!((of("memory").delivered, of("failing").failed, of("later").delivered), (4, 4, 4));
    let backwards = before.delta(&now);
    assert_eq!((backwards.offered, backwards.per_second(5)), (0, 0.0), "no number wraps");
    collector.stop().unwrap();
}

#[test]
fn the_time_in_a_sink_is_counted() {
    let gate = Gate::closed();
    let collector = ticks().flush(FlushStrategy::Manual).sink(gate.sink()).start().unwrap();
    collector.collect(tick(1));
    let shortest = Duration::from_millis(5);
    std::thread::scope(|scope| {
        scope.spawn(|| collector.flush().map(drop).unwrap());
        gate.await_arrivals(1);
        let begun = std::time::Instant::now();
        while begun.elapsed() < shortest {
            std::thread::yield_now();
        }
        gate.open();
    });
    assert!(law(&collector, 1).sinks[0].write_time >= shortest);
    collector.stop().unwrap();
}

#[test]
fn the_most_that_were_ever_queued_is_kept() {
    let collector = ticks().flush(FlushStrategy::Manual).start().unwrap();
    for events in [5, 3] {
        (0..events).for_each(|number| _ = collector.collect(tick(number)));
        let _ = collector.flush().unwrap();
    }
    assert_eq!(law(&collector, 8).peak_pending, 5);
    collector.stop().unwrap();
}

#[test]
fn no_more_are_pending_than_ever_were() {
    let collector = ticks().capacity(10).build().unwrap();
    (0..7).for_each(|number| _ = collector.collect(tick(number)));
    let stats = law(&collector, 7);
    assert_eq!((stats.pending, stats.peak_pending), (7, 7), "nobody has come to take some yet");
    collector.stop().unwrap();
    let stats = law(&collector, 7);
    assert_eq!((stats.pending, stats.peak_pending), (0, 7));

    // In the hands of the worker they are pending as well.
    let gate = Gate::closed();
    let stalled = stalled(ticks(), &gate);
    (0..3).for_each(|number| _ = stalled.collect(tick(number)));
    let stats = stalled.stats();
    assert!(stats.pending == 4 && stats.peak_pending >= stats.pending, "{stats:?}");
    gate.open();
    stalled.stop().unwrap();
    law(&stalled, 4);
}
