//! Settings and sinks that change under full load from several threads: no event lost, none doubled.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::support::*;
use forebay::sink::{BreakerPolicy, DeadLetters, RetryPolicy, Sink, SinkError, SinkExt, from_fn};
use forebay::{Batch, FlushStrategy, Overflow, collector::StopError};

/// Counts of how often each event came, by producer.
type Seen = Arc<Mutex<Vec<HashMap<u64, u32>>>>;

const PRODUCERS: u32 = 3;
const EACH: u64 = 30_000;
const OFFERED: u64 = PRODUCERS as u64 * EACH;

fn seen() -> Seen {
    Arc::new(Mutex::new(vec![HashMap::new(); PRODUCERS as usize]))
}

fn note(seen: &Seen, batch: &Batch<Tick>) {
    let mut seen = seen.lock().unwrap();
    for event in batch {
        *seen[event.producer as usize].entry(event.number).or_default() += 1;
    }
}

/// Returns a sink that fails every third batch, as a whole and for now.
fn every_third(name: &str, seen: &Seen) -> impl Sink<Tick> + use<> {
    let (turn, seen) = (AtomicU64::new(0), Arc::clone(seen));
    from_fn(name, move |batch: &Batch<Tick>| match turn.fetch_add(1, Ordering::Relaxed) % 3 {
        0 => Err(SinkError::unavailable("every third")),
        _ => {
            note(&seen, batch);
            Ok(())
        }
    })
}

#[track_caller]
fn each_once(seen: &Seen) {
    for producer in seen.lock().unwrap().iter() {
        assert_eq!(producer.len() as u64, EACH);
        assert!(producer.values().all(|times| *times == 1), "an event came twice");
    }
}

#[test]
fn no_event_is_lost_or_doubled_while_settings_and_sinks_change() {
    let (plain, retried, lettered) = (seen(), seen(), seen());
    let letters = DeadLetters::new(1_000_000);
    let keep = Arc::clone(&plain);
    // Whatever is chosen below, nothing is evicted, and no queue is so short that it evicts.
    let collector = ticks()
        .capacity(1_024)
        .overflow(Overflow::Block { timeout: LONG })
        .sink(from_fn("plain", move |batch: &Batch<Tick>| {
            note(&keep, batch);
            Ok(())
        }))
        .sink(
            every_third("retried", &retried).retry(RetryPolicy::fixed(Duration::ZERO, 5)).isolated(1_000_000),
        )
        .sink(every_third("lettered", &lettered).dead_letters(&letters))
        .start()
        .unwrap();
    let is_over = AtomicBool::new(false);
    let passing = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let changer = |seed: u64| {
            let (collector, is_over, passing) = (&collector, &is_over, &passing);
            move || {
                let mut chance = fastrand::Rng::with_seed(seed);
                let mut round = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let events = chance.usize(1..600);
                    let interval = Duration::from_micros(chance.u64(100..5_000));
                    let flush = [
                        FlushStrategy::Size { events: 1 },
                        FlushStrategy::Hybrid { events, interval },
                        FlushStrategy::Time { interval },
                    ];
                    let timeout = LONG + interval;
                    collector
                        .update_config(|config| {
                            config.flush = flush[chance.usize(..3)];
                            config.batch_size = Some(events);
                            config.overflow = Overflow::Block { timeout };
                        })
                        .unwrap();
                    let (name, seen) = (format!("passing-{seed}-{round}"), seen());
                    round += 1;
                    let sink = every_third(&name, &seen).retry(RetryPolicy::fixed(Duration::ZERO, 5));
                    collector.add_sink(sink).unwrap();
                    let stats = collector.remove_sink(&name).unwrap();
                    passing.lock().unwrap().push((stats, seen));
                }
            }
        };
        scope.spawn(changer(1));
        scope.spawn(changer(2));
        let raised = Raise(&is_over);
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|producer| {
                let collector = &collector;
                scope.spawn(move || {
                    for number in 0..EACH {
                        assert!(collector.collect(Tick { producer, ..tick(number) }).is_queued());
                    }
                })
            })
            .collect();
        producers.into_iter().for_each(|producer| producer.join().unwrap());
        drop(raised);
    });
    // A third of these fails again.
    until("no letter waits", || {
        letters.redrive(None);
        let _ = collector.flush().unwrap();
        letters.is_empty()
    });
    collector.stop().unwrap();
    let stats = law(&collector, OFFERED);
    assert_eq!((stats.processed, stats.evicted), (OFFERED, 0));
    each_once(&plain);
    each_once(&retried);
    each_once(&lettered);
    // A sink that came and went had what was collected meanwhile, each once.
    let passing = passing.into_inner().unwrap();
    assert!(passing.len() >= 2, "both came to change something");
    for (stats, seen) in passing {
        let seen = seen.lock().unwrap();
        assert!(seen.iter().flat_map(HashMap::values).all(|times| *times == 1));
        let events: u64 = seen.iter().map(|producer| producer.len() as u64).sum();
        assert_eq!((stats.delivered, stats.offered - stats.evicted), (events, events), "{stats:?}");
    }
}

#[test]
fn a_stop_reports_a_retry_that_has_no_time_left_and_does_not_wait_for_it() {
    let hours = Duration::from_secs(3600);
    let (tried, letters) = (Gate::closed(), DeadLetters::new(10));
    tried.open();
    let arrive = tried.clone();
    let sink = from_fn("remote", move |_: &Batch<Tick>| {
        arrive.pass();
        Err(SinkError::unavailable("nobody"))
    });
    let collector = ticks()
        .sink(
            sink.breaker(BreakerPolicy::default()).retry(RetryPolicy::fixed(hours, 3)).dead_letters(&letters),
        )
        .start()
        .unwrap();
    collector.collect(tick(1));
    let _ = collector.flush_timeout(Duration::from_millis(1));
    tried.await_arrivals(1);
    let Err(StopError::TimedOut { report }) = collector.stop_timeout(Duration::from_millis(20)) else {
        panic!("it cannot have been delivered")
    };
    assert_eq!(report.busy_sink.as_deref(), Some("remote"));
    assert!(report.elapsed < hours);
    assert_eq!(law(&collector, 1).sinks[0].in_flight, 1, "not given up yet");
    drop(collector);
    // Its end ends the wait, and what it held is kept.
    until("the letter is there", || letters.len() == 1);
}
