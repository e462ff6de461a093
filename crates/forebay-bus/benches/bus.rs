//! A bus beside a plain fan-out: 1,000,000 events to 10 handlers on 4 threads.
//!
//! The fan-out is what one writes by hand: a bounded crossbeam-channel of events, and four threads that call all handlers
//! with each. It waits where the bus is made to wait (`Overflow::Block`), has no names, no order, no priorities, no account,
//! and one handler that hangs takes it down. `cargo bench -p forebay-bus` prints the table, `-- --test` runs through it once.
#![allow(clippy::print_stdout, reason = "its output is for a person")]

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use forebay::{Overflow, Record};
use forebay_bus::{Bus, BusConfig, Handler};

const HANDLERS: u64 = 10;
const WORKERS: usize = 4;

/// Counter of one handler, each on a cache line of its own: something to do, and to check.
#[repr(align(128))]
#[derive(Default)]
struct Counter(AtomicU64);

impl Counter {
    fn count(&self, event: &Record) {
        black_box(event.step());
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn counters() -> Vec<Arc<Counter>> {
    (0..HANDLERS).map(|_| Arc::default()).collect()
}

fn check(counters: &[Arc<Counter>], events: u64) -> Result<(), Box<dyn Error>> {
    match counters.iter().all(|counter| counter.0.load(Ordering::Relaxed) == events) {
        true => Ok(()),
        false => Err("a handler was not called with every event".into()),
    }
}

fn bus(events: u64, at_once: usize) -> Result<Duration, Box<dyn Error>> {
    let overflow = Overflow::Block { timeout: Duration::from_secs(60) };
    let config = BusConfig::default();
    let collector = config.collector.clone().with_overflow(overflow);
    let bus = Bus::builder().config(config.with_workers(WORKERS).with_collector(collector)).start()?;
    let counters = counters();
    for counter in &counters {
        let counter = Arc::clone(counter);
        let handler = Handler::new("train.*", move |event| counter.count(event));
        bus.subscribe(handler.max_concurrent(at_once))?.keep();
    }
    let begun = Instant::now();
    for step in 0..events {
        bus.emit_record(Record::scalar("train.loss", 0.5).with_step(step))?;
    }
    let report = bus.stop_timeout(Duration::from_secs(60))?;
    let took = begun.elapsed();
    report.stats.check_law(events)?;
    check(&counters, events)?;
    Ok(took)
}

fn fan_out(events: u64) -> Result<Duration, Box<dyn Error>> {
    let counters = counters();
    let (sender, receiver) = crossbeam_channel::bounded::<Record>(10_000);
    let begun = Instant::now();
    std::thread::scope(|scope| -> Result<(), Box<dyn Error>> {
        for _ in 0..WORKERS {
            let (receiver, counters) = (receiver.clone(), &counters);
            scope.spawn(move || {
                for event in receiver {
                    counters.iter().for_each(|counter| counter.count(&event));
                }
            });
        }
        drop(receiver);
        for step in 0..events {
            sender.send(Record::scalar("train.loss", 0.5).with_step(step))?;
        }
        drop(sender);
        Ok(())
    })?;
    let took = begun.elapsed();
    check(&counters, events)?;
    Ok(took)
}

fn main() -> Result<(), Box<dyn Error>> {
    let is_test = std::env::args().any(|arg| arg == "--test");
    let (events, rounds) = if is_test { (10_000, 1) } else { (1_000_000, 5) };
    let mut best = [Duration::MAX; 3];
    for _ in 0..rounds {
        best[0] = best[0].min(bus(events, usize::MAX)?);
        best[1] = best[1].min(bus(events, 1)?);
        best[2] = best[2].min(fan_out(events)?);
    }
    println!("{events} events to {HANDLERS} handlers on {WORKERS} threads, best of {rounds}\n");
    println!("| | time | events/s | a call |");
    println!("|---|---|---|---|");
    for (who, took) in ["bus", "bus, one call at a time each", "plain crossbeam-channel"].iter().zip(best) {
        let seconds = took.as_secs_f64();
        let (rate, call) = (events as f64 / seconds, 1e9 * seconds / (events * HANDLERS) as f64);
        println!("| {who} | {:.0} ms | {rate:.0} | {call:.0} ns |", seconds * 1e3);
    }
    Ok(())
}
