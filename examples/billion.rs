//! A thousand million events through one collector: four producers as fast as they can, drop-oldest, a sink that
//! cannot keep up. In the end every event must be accounted for.
//!
//! ```text
//! cargo run --release --example billion            # 10^9 events
//! cargo run --release --example billion 10000000   # fewer
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its purpose")]

use std::error::Error;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

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

const USAGE: &str = "usage: billion [EVENTS], 1000000000 by default";

/// Reads the command line. The error is one line for a person.
fn asked(args: &[String]) -> Result<u64, String> {
    match args {
        [] => Ok(1_000_000_000),
        [events] => {
            events.parse().map_err(|_| format!("EVENTS must be a whole number, got {events:?}, {USAGE}"))
        }
        _ => Err(format!("EVENTS must be one number, {USAGE}")),
    }
}

fn main() -> ExitCode {
    let args: Vec<String> =
        std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        println!("{USAGE}");
        return ExitCode::from(2);
    }
    let events = match asked(&args) {
        Ok(events) => events,
        Err(error) => {
            eprintln!("billion: {error}");
            return ExitCode::from(2);
        }
    };
    match run(events) {
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
