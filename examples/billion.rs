//! A thousand million events through one collector: four producers as fast as they can, drop-oldest, a sink that
//! cannot keep up. In the end every event must be accounted for.
//!
//! ```text
//! cargo run --release --example billion            # 10^9 events
//! cargo run --release --example billion 10000000   # fewer
//! cargo run --release --example billion 1000000000 lanes
//! ```
//!
//! With `lanes`, threads have lanes of their own: eight threads at a time that come and go, more than there are lanes. Then every
//! event has a destructor, which must run once.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its purpose")]

use std::error::Error;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use forebay::config::Lanes;
use forebay::sink::from_fn;
use forebay::{Batch, Builder, Event};

const PRODUCERS: u32 = 4;

#[derive(Clone, Copy)]
struct Tick {
    producer: u32,
    number: u64,
}

impl Event for Tick {}

/// Record of what the sink has seen.
#[derive(Default)]
struct Seen {
    events: u64,
    gaps: u64,
    next: [u64; PRODUCERS as usize],
    out_of_order: u64,
}

const USAGE: &str = "usage: billion [EVENTS [lanes]], 1000000000 by default";

/// Reads the command line: the number of events, and whether threads have lanes. The error is one line for a person.
fn asked(args: &[String]) -> Result<(u64, bool), String> {
    let (events, lanes) = match args {
        [] => return Ok((1_000_000_000, false)),
        [events] => (events, false),
        [events, lanes] if lanes == "lanes" => (events, true),
        _ => return Err(format!("EVENTS must be one number, {USAGE}")),
    };
    let events = events.parse();
    events
        .map(|events| (events, lanes))
        .map_err(|_| format!("EVENTS must be a whole number, got {:?}, {USAGE}", args[0]))
}

fn main() -> ExitCode {
    let args: Vec<String> =
        std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        println!("{USAGE}");
        return ExitCode::from(2);
    }
    let (events, lanes) = match asked(&args) {
        Ok(asked) => asked,
        Err(error) => {
            eprintln!("billion: {error}");
            return ExitCode::from(2);
        }
    };
    match if lanes { run_in_lanes(events) } else { run(events) } {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("billion: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(events: u64) -> Result<(), Box<dyn Error>> {
    let each = events / u64::from(PRODUCERS);
    let seen = Arc::new(Mutex::new(Seen::default()));
    let sink = from_fn("slow", {
        let seen = Arc::clone(&seen);
        move |batch: &Batch<Tick>| {
            let mut seen = seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            seen.gaps += batch.gap();
            for tick in batch {
                seen.events += 1;
                let next = &mut seen.next[tick.producer as usize];
                let is_late = tick.number < *next;
                *next = tick.number + 1;
                seen.out_of_order += u64::from(is_late);
            }
            drop(seen);
            std::thread::sleep(Duration::from_micros(200));
            Ok(())
        }
    });
    let collector = Builder::<Tick>::new().sink(sink).start()?;
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for producer in 0..PRODUCERS {
            let collector = &collector;
            scope.spawn(move || {
                for number in 0..each {
                    collector.collect(Tick { producer, number });
                }
            });
        }
    });
    let elapsed = begun.elapsed();
    let report = collector.stop()?;
    let offered = each * u64::from(PRODUCERS);
    println!("{}", report.stats);
    println!(
        "{:.1} s, {:.1} million events a second",
        elapsed.as_secs_f64(),
        offered as f64 / elapsed.as_secs_f64() / 1e6
    );

    report.stats.check_law(offered)?;
    let seen = seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let sums = (seen.events, seen.gaps, seen.out_of_order);
    let wants = (report.stats.processed, report.stats.evicted, 0);
    if sums != wants || report.stats.pending != 0 {
        return Err(format!("events, gaps, out of order: {sums:?}, expected {wants:?}").into());
    }
    println!("The law holds to the event.");
    Ok(())
}

/// Threads at a time, each with so many events, and the lanes for them.
const THREADS: u64 = 8;
const EACH: u64 = 100_000;
const LANES: usize = 6;

/// Number of events that were destroyed, and the sum of their numbers.
#[derive(Default)]
struct Destroyed {
    events: AtomicU64,
    numbers: AtomicU64,
}

/// Event that counts its destruction, beside others of its place among the threads.
struct Counted {
    place: usize,
    /// Counted by one thread after the other of this place, from 0.
    number: u64,
    destroyed: &'static [Destroyed; THREADS as usize],
}

impl Event for Counted {}

impl Drop for Counted {
    fn drop(&mut self) {
        let destroyed = &self.destroyed[self.place];
        destroyed.events.fetch_add(1, Ordering::Relaxed);
        destroyed.numbers.fetch_add(self.number, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct SeenInLanes {
    events: u64,
    gaps: u64,
    next: [u64; THREADS as usize],
    out_of_order: u64,
}

fn run_in_lanes(events: u64) -> Result<(), Box<dyn Error>> {
    let generations = events.div_ceil(THREADS * EACH);
    let seen = Arc::new(Mutex::new(SeenInLanes::default()));
    let sink = from_fn("slow", {
        let seen = Arc::clone(&seen);
        move |batch: &Batch<Counted>| {
            let mut seen = seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            seen.gaps += batch.gap();
            for event in batch {
                seen.events += 1;
                // A thread ends before the next one of its place begins. But the next one may have another lane.
                let next = &mut seen.next[event.place];
                let is_late = event.number < *next && event.number / EACH == (*next - 1) / EACH;
                *next = event.number + 1;
                seen.out_of_order += u64::from(is_late);
            }
            drop(seen);
            std::thread::sleep(Duration::from_micros(200));
            Ok(())
        }
    });
    let collector = Builder::<Counted>::new().lanes(Lanes::PerThread { max: LANES }).sink(sink).start()?;
    // Events tell it when they are destroyed, the last ones after the collector.
    let destroyed: &'static [Destroyed; THREADS as usize] = Box::leak(Box::default());
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for place in 0..THREADS as usize {
            let collector = &collector;
            scope.spawn(move || {
                for generation in 0..generations {
                    // A thread that ends, and gives its lane back to the next one.
                    std::thread::scope(|scope| {
                        scope.spawn(|| {
                            for number in 0..EACH {
                                let number = generation * EACH + number;
                                collector.collect(Counted { place, number, destroyed });
                            }
                        });
                    });
                }
            });
        }
    });
    let elapsed = begun.elapsed();
    let report = collector.stop()?;
    let each = generations * EACH;
    let offered = each * THREADS;
    println!("{}", report.stats);
    println!(
        "{:.1} s, {:.1} million events a second, {} threads",
        elapsed.as_secs_f64(),
        offered as f64 / elapsed.as_secs_f64() / 1e6,
        generations * THREADS
    );

    report.stats.check_law(offered)?;
    let seen = seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let sums = (seen.events, seen.gaps, seen.out_of_order);
    let wants = (report.stats.processed, report.stats.evicted, 0);
    if sums != wants || report.stats.pending != 0 {
        return Err(format!("events, gaps, out of order: {sums:?}, expected {wants:?}").into());
    }
    // Evicted events lie in their slots until the collector goes.
    drop(collector);
    for (place, destroyed) in destroyed.iter().enumerate() {
        let was = (destroyed.events.load(Ordering::Relaxed), destroyed.numbers.load(Ordering::Relaxed));
        let numbers = (0..each).fold(0, u64::wrapping_add);
        if was != (each, numbers) {
            return Err(format!("destroyed in place {place}: {was:?}, expected {:?}", (each, numbers)).into());
        }
    }
    println!("The law holds to the event, and each was destroyed once.");
    Ok(())
}
