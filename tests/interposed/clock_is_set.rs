//! The system's clock is set by days while a collector runs, forward and back. This program answers `clock_gettime` itself;
//! the machine's clock is left alone.
#![allow(unsafe_code, reason = "libc")]

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use crate::support::*;
use forebay::config::{GateConfig, HealthConfig, Sampling};
use forebay::run::HEARTBEAT;
use forebay::sink::{MemorySink, SinkExt, from_fn};
use forebay::stats::HealthStatus;
use forebay::{Batch, Collector, FlushStrategy, Outcome, Record};

/// Seconds that the system's clock is ahead of the machine's.
static AHEAD: AtomicI64 = AtomicI64::new(0);

#[unsafe(no_mangle)]
extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    // SAFETY: the caller's pointer goes to the kernel as it is, and is written to if that has answered well.
    let result = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) } as libc::c_int;
    if result == 0 && clock == libc::CLOCK_REALTIME {
        unsafe { (*time).tv_sec += AHEAD.load(SeqCst) };
    }
    result
}

const DAY: i64 = 86_400;

/// One test at a time sets the clock, and leaves it right.
struct Clock(#[allow(dead_code, reason = "held")] MutexGuard<'static, ()>);

fn clock() -> Clock {
    let turn = crate::turn();
    AHEAD.store(0, SeqCst);
    Clock(turn)
}

impl Clock {
    /// Sets it, and waits until stamps follow.
    fn set(&self, days: i64) {
        AHEAD.store(days * DAY, SeqCst);
        until("stamps follow", || {
            let (stamp, now) = (Record::new("x").time(), SystemTime::now());
            let off = stamp.duration_since(now).unwrap_or_else(|error| error.duration());
            off < Duration::from_secs(1)
        });
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        AHEAD.store(0, SeqCst);
    }
}

#[test]
fn stamps_and_the_last_flush_follow_a_clock_that_is_set() {
    let clock = clock();
    let collector = Collector::builder().sink(MemorySink::new()).start().unwrap();
    for days in [2, -2, 0, 400, 0] {
        clock.set(days);
        collector.collect(Record::new("x"));
        let _ = collector.flush().unwrap();
        let last = collector.stats().last_flush.unwrap();
        let off = last.duration_since(SystemTime::now()).unwrap_or_else(|error| error.duration());
        assert!(off < Duration::from_secs(60), "{days} days: the last flush is {off:?} off");
    }
    collector.stop().unwrap();
    law(&collector, 5);
}

#[test]
fn what_waits_while_the_clock_is_set_is_not_late_for_days() {
    let clock = clock();
    let limit = HealthConfig::default().with_max_latency(Duration::from_secs(60));
    let collector = Collector::builder()
        .health(limit)
        .flush(FlushStrategy::Manual)
        .sink(MemorySink::new())
        .start()
        .unwrap();
    let collect = || _ = collector.collect(Record::scalar("loss", 0.5));
    let flush = || _ = collector.flush().unwrap().is_clean();
    collect();
    flush();
    for days in [3, 0, -3, 0] {
        (0..50).for_each(|_| collect());
        clock.set(days);
        flush();
        assert_eq!(collector.health().status, HealthStatus::Healthy, "{days} days");
        let measured = collector.stats().latency.events;
        collect();
        flush();
        let latency = collector.stats().latency;
        assert_eq!(latency.events, measured + 1, "{days} days: those that come later are measured");
        assert!(latency.max < Duration::from_secs(60), "{days} days: {latency:?}");
    }
    collector.stop().unwrap();
    law(&collector, 205);
}

#[test]
fn what_waits_for_the_first_delivery_while_the_clock_is_set_is_not_late_for_days() {
    let clock = clock();
    for days in [2, -2, 400] {
        clock.set(0);
        let limit = HealthConfig::default().with_max_latency(Duration::from_secs(60));
        let collector = Collector::builder()
            .health(limit)
            .flush(FlushStrategy::Manual)
            .sink(MemorySink::new())
            .start()
            .unwrap();
        (0..20).for_each(|_| _ = collector.collect(Record::scalar("loss", 0.5)));
        clock.set(days);
        let _ = collector.flush().unwrap();
        let latency = collector.stats().latency;
        assert_eq!(latency.events, 0, "{days} days: {latency:?}");
        assert_eq!(collector.health().status, HealthStatus::Healthy, "{days} days");
        collector.collect(Record::scalar("loss", 0.5));
        collector.stop().unwrap();
        assert_eq!(law(&collector, 21).latency.events, 1, "{days} days: those that come later are measured");
    }
}

#[test]
fn no_rate_no_uptime_and_no_pace_stops_because_of_a_clock_that_is_set() {
    let clock = clock();
    let said = Arc::new(AtomicU64::new(0));
    let hears = Arc::clone(&said);
    let sampling = Sampling::Rate { rate: 0.0, min_per_window: 1_000_000, window: Duration::from_millis(1) };
    let gate = GateConfig::default().with_rate_limit(1_000_000).with_sampling(Some(sampling));
    let collector = Collector::builder()
        .gate(gate)
        .flush(FlushStrategy::Time { interval: Duration::from_millis(1) })
        .on_log(move |_| _ = hears.fetch_add(1, SeqCst))
        .sink(failing::<Record>("failing"))
        .start()
        .unwrap();
    let (begun, collected) = (Instant::now(), AtomicU64::new(0));
    for days in [2, 0, -2, 0] {
        clock.set(days);
        let (before, marked) = (said.load(SeqCst), collector.stats().processed);
        until("the hook is called, and events are delivered by the interval", || {
            // On a busy machine the loop may outrun the worker: then the oldest makes space.
            let outcome = collector.collect(Record::new("x"));
            assert!(matches!(outcome, Outcome::Queued | Outcome::QueuedEvicting), "{days} days: {outcome:?}");
            collected.fetch_add(1, SeqCst);
            said.load(SeqCst) > before && collector.stats().processed > marked
        });
        // The meter hears of a batch a moment after the counters.
        until("a rate is reported", || collector.stats().rate > 0.0);
        assert!(collector.stats().uptime <= begun.elapsed() + Duration::from_secs(1), "{days} days");
        assert!(!collector.health().alerts.iter().any(|alert| alert.message.contains("is busy")));
    }
    collector.stop().unwrap();
    law(&collector, collected.load(SeqCst));
}

#[test]
fn a_sink_with_a_pace_and_a_heartbeat_go_on_whatever_the_clock_is_set_to() {
    let clock = clock();
    let (memory, beats) = (MemorySink::new(), Arc::new(AtomicU64::new(0)));
    let counts = Arc::clone(&beats);
    let count = from_fn("beats", move |batch: &Batch| {
        let found = batch.iter().filter(|record| record.name() == HEARTBEAT).count();
        _ = counts.fetch_add(found as u64, SeqCst);
        Ok(())
    });
    let collector = Collector::builder()
        .flush(FlushStrategy::Size { events: 1 })
        .sink(memory.clone().rate_limited(10_000).isolated(10_000))
        .sink(count)
        .start()
        .unwrap();
    let run =
        forebay::run::TrainingRun::builder().heartbeat(Duration::from_millis(1)).start(&collector).unwrap();
    for days in [2, 0, -2, 0] {
        clock.set(days);
        let (before, received) = (beats.load(SeqCst), memory.received());
        until("it beats, and the sink gets it", || {
            beats.load(SeqCst) > before + 3 && memory.received() > received + 3
        });
    }
    run.completed(forebay::Fields::new()).unwrap();
    collector.stop().unwrap();
    law(&collector, collector.stats().offered);
}
