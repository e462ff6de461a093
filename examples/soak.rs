//! A soak: events at a steady rate through every wrapper, with faults at random, for as long as you like.
//!
//! `cargo run --release --example soak -- [SECONDS] [EVENTS_A_SECOND] [SEED]`, by default ten minutes at 200,000. Every ten
//! seconds the producers pause, everything is flushed, and the law is checked to the event; memory and threads are read from
//! `/proc`. It fails when the law is broken, when memory grows after the first fifth, or when a thread is left behind.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::panic, reason = "that is what it is for")]

use std::error::Error;
use std::process::ExitCode;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use forebay::config::{GateConfig, NameRule, Sampling};
use forebay::sink::{
    BreakerPolicy, DeadLetters, JsonLinesSink, MemorySink, RetryPolicy, Sink, SinkError, SinkExt, from_fn,
};
use forebay::{Batch, Collector, FlushStrategy, Overflow, Priority, Record};

const PRODUCERS: u64 = 2;
const EPOCH: Duration = Duration::from_secs(10);

/// Returns a sink that fails, panics, takes a part or takes its time, each time by chance.
fn faulty(name: &str, seed: u64) -> impl Sink + use<> {
    let mut chance = fastrand::Rng::with_seed(seed);
    from_fn(name, move |batch: &Batch| match chance.u32(..100) {
        0..6 => Err(SinkError::unavailable("by chance")),
        6..8 => Err(SinkError::write_failed("by chance").permanent()),
        8..10 => Err(SinkError::write_failed("a part, by chance").with_failed_events(batch.len() as u64 / 2)),
        10 => std::panic::panic_any("by chance"),
        11 => {
            thread::sleep(Duration::from_millis(chance.u64(..5)));
            Ok(())
        }
        _ => Ok(()),
    })
}

fn record(chance: &mut fastrand::Rng, step: u64) -> Record {
    let record = match chance.u32(..100) {
        0 => Record::text("log.line", "x".repeat(chance.usize(..2_000))),
        1 => Record::new("worker.failed").with_field("attempt", chance.i64(..9)),
        2..10 => Record::scalar("gradients.layer", chance.f64()),
        10..12 => Record::scalar("loader.debug", chance.f64()),
        _ => Record::scalar("train.loss", chance.f64()).with_step(step),
    };
    match chance.u32(..1_000) {
        0 => record.with_priority(Priority::Critical),
        1..100 => record.with_priority(Priority::Low),
        _ => record,
    }
}

/// Returns the resident bytes and threads of this process.
fn usage() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    (field("VmRSS:") * 1024, field("Threads:"))
}

/// Returns every wrapper, in several orders.
fn sinks(
    letters: &DeadLetters,
    folder: &std::path::Path,
    seed: u64,
) -> Result<Vec<Box<dyn Sink>>, Box<dyn Error>> {
    let mut breaker = BreakerPolicy::default();
    (breaker.failures, breaker.open_for) = (3, Duration::from_millis(20));
    let retry = || RetryPolicy::fixed(Duration::from_millis(1), 2);
    let lines = JsonLinesSink::create(folder.join("events.jsonl"))?.rotate_at(8 << 20).keep_closed(2);
    Ok(vec![
        Box::new(MemorySink::new().keep_last(1_000)),
        Box::new(lines.route("worker.*").route("log.*")),
        Box::new(faulty("bare", seed)),
        Box::new(faulty("retried", seed + 1).retry(retry()).isolated(32)),
        Box::new(
            faulty("guarded", seed + 2)
                .breaker(breaker)
                .retry(retry())
                .dead_letters(letters)
                .filter(|record: &Record| record.step().is_none_or(|step| step % 3 != 0))
                .route("train.*")
                .isolated(64)
                .max_bytes(4 << 20),
        ),
        Box::new(
            faulty("mapped", seed + 3)
                .dead_letters(letters)
                .map(|record: &Record| record.clone().with_source("soak"))
                .rate_limited(20_000)
                .route("gradients.*")
                .isolated(8),
        ),
    ])
}

/// Changes settings, sinks and subscriptions all the time.
fn disturb(collector: &Collector, letters: &DeadLetters, seed: u64) {
    let mut chance = fastrand::Rng::with_seed(seed);
    let pause = Duration::from_millis(chance.u64(1..20));
    match chance.u32(..6) {
        0 => {
            let overflow = [Overflow::DropOldest, Overflow::DropNewest][chance.usize(..2)];
            _ = collector.update_config(|config| config.overflow = overflow);
        }
        1 => {
            let (events, interval) = (chance.usize(100..2_000), Duration::from_millis(chance.u64(5..200)));
            let flush = [FlushStrategy::Size { events }, FlushStrategy::Hybrid { events, interval }];
            _ = collector.update_config(|config| config.flush = flush[chance.usize(..2)]);
        }
        2 => {
            let name = format!("passing-{seed}");
            if collector.add_sink(faulty(&name, seed).isolated(4)).is_ok() {
                thread::sleep(pause);
                _ = collector.remove_sink(&name);
            }
        }
        3 => {
            if let Ok(live) = collector.subscribe_with("train.*", 64) {
                (0..100).for_each(|_| _ = live.recv_timeout(Duration::from_micros(100)));
            }
        }
        4 => _ = letters.redrive(Some(5_000)),
        _ => drop((collector.stats(), collector.health(), letters.purge())),
    }
    thread::sleep(pause);
}

const USAGE: &str = "usage: soak [SECONDS] [EVENTS_A_SECOND] [SEED], 600, 200000 and 7 by default";

/// Reads the command line. The error is one line for a person.
fn asked(args: &[String]) -> Result<[u64; 3], String> {
    let mut numbers = [600, 200_000, 7];
    if args.len() > numbers.len() {
        return Err(format!("there must be at most three numbers, got {}, {USAGE}", args.len()));
    }
    for (number, arg) in numbers.iter_mut().zip(args) {
        *number = arg.parse().map_err(|_| format!("each must be a whole number, got {arg:?}, {USAGE}"))?;
    }
    Ok(numbers)
}

fn main() -> ExitCode {
    let args: Vec<String> =
        std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        println!("{USAGE}");
        return ExitCode::from(2);
    }
    let numbers = match asked(&args) {
        Ok(numbers) => numbers,
        Err(error) => {
            eprintln!("soak: {error}");
            return ExitCode::from(2);
        }
    };
    match run(numbers) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run([seconds, per_second, seed]: [u64; 3]) -> Result<(), Box<dyn Error>> {
    // The panics of sinks are on purpose; what panics else ends the run all the same.
    std::panic::set_hook(Box::new(|_| {}));
    let folder = std::env::temp_dir().join(format!("forebay-soak-{}", std::process::id()));
    let letters = DeadLetters::new(1_000);
    let gate = GateConfig::default()
        .with_deny(vec!["*.debug".into()])
        .with_rules(vec![NameRule::new("gradients.*").with_sampling(Sampling::Every { nth: 2 })])
        .with_max_event_bytes(1_900);
    let threads_before = usage().1;
    let mut builder = Collector::builder()
        .capacity(32_768)
        .max_bytes(8 << 20)
        .gate(gate)
        .enrich(|record: &mut Record, _| record.extra_mut().tags.clear())
        .flush(FlushStrategy::Hybrid { events: 512, interval: Duration::from_millis(100) });
    builder = builder.sinks(sinks(&letters, &folder, seed)?);
    let collector = builder.start()?;

    let (offered, is_over, is_paused) = (AtomicU64::new(0), AtomicBool::new(false), AtomicBool::new(false));
    // Producers, whoever disturbs, and this thread meet here before and after each look.
    let meet = Barrier::new(PRODUCERS as usize + 2);
    let wait_if_paused = || {
        if is_paused.load(Ordering::SeqCst) {
            meet.wait();
            meet.wait();
        }
    };
    let mut readings = Vec::new();
    let begun = Instant::now();
    let outcome = thread::scope(|scope| {
        for producer in 0..PRODUCERS {
            let (collector, offered, is_over, wait) = (&collector, &offered, &is_over, &wait_if_paused);
            scope.spawn(move || {
                let mut chance = fastrand::Rng::with_seed(seed ^ (producer + 100));
                let burst = per_second / PRODUCERS / 1_000;
                let (mut step, mut due) = (0, Instant::now());
                while !is_over.load(Ordering::SeqCst) {
                    wait();
                    for _ in 0..burst {
                        collector.collect(record(&mut chance, step));
                        step += 1;
                    }
                    offered.fetch_add(burst, Ordering::SeqCst);
                    due = (due + Duration::from_millis(1)).max(Instant::now() - Duration::from_millis(50));
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                }
            });
        }
        let (disturbed, quarrel) = (&collector, &letters);
        let (is_over, wait) = (&is_over, &wait_if_paused);
        scope.spawn(move || {
            for round in seed.. {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                wait();
                disturb(disturbed, quarrel, round);
            }
        });
        let mut look = || -> Result<(), Box<dyn Error>> {
            collector.flush_timeout(Duration::from_secs(60))?;
            let stats = collector.stats();
            stats.check_law(offered.load(Ordering::SeqCst))?;
            if stats.pending > 0 || stats.pending_bytes > 0 {
                return Err(
                    format!("{} events and {} bytes are left", stats.pending, stats.pending_bytes).into()
                );
            }
            let (memory, threads) = usage();
            readings.push(memory);
            println!(
                "{:>4} s: {:>11} offered, {:>5.1} MB, {threads} threads, {} retries, {} dead letters, {} evicted by queues, p99 {:.0?}",
                begun.elapsed().as_secs(),
                stats.offered,
                memory as f64 / 1e6,
                stats.sinks.iter().map(|sink| sink.retries).sum::<u64>(),
                stats.sinks.iter().map(|sink| sink.dead_lettered).sum::<u64>(),
                stats.sinks.iter().map(|sink| sink.evicted).sum::<u64>(),
                stats.latency.p99,
            );
            Ok(())
        };
        let mut outcome = Ok(());
        while outcome.is_ok() && begun.elapsed() < Duration::from_secs(seconds) {
            thread::sleep(EPOCH.min(Duration::from_secs(seconds)));
            is_paused.store(true, Ordering::SeqCst);
            meet.wait();
            outcome = look();
            is_paused.store(false, Ordering::SeqCst);
            meet.wait();
        }
        is_over.store(true, Ordering::SeqCst);
        outcome
    });
    outcome?;
    let report = collector.stop_timeout(Duration::from_secs(60))?;
    report.stats.check_law(offered.into_inner())?;
    println!("{}", report.stats);
    drop(collector);
    // Threads of isolated sinks end by themselves.
    let patience = Instant::now();
    while usage().1 > threads_before && patience.elapsed() < Duration::from_secs(10) {
        thread::sleep(Duration::from_millis(10));
    }
    _ = std::fs::remove_dir_all(&folder);
    let threads = usage().1;
    if threads > threads_before {
        return Err(format!("{threads} threads are left, {threads_before} were there before").into());
    }
    let early = readings.iter().take(readings.len().div_ceil(5)).max().copied().unwrap_or(0);
    let late = readings.iter().rev().take(readings.len().div_ceil(5)).min().copied().unwrap_or(0);
    println!(
        "memory: {:.1} MB at most in the first fifth, {:.1} MB at least in the last",
        early as f64 / 1e6,
        late as f64 / 1e6
    );
    if readings.len() >= 10 && late > early + early / 10 + (4 << 20) {
        return Err("memory grew".into());
    }
    println!("the law held {} times, memory is flat, no thread is left", readings.len() + 1);
    Ok(())
}
