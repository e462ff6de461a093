//! A tour of a sink that breaks: what the loop, the other sink and the operator see of it.
//!
//! `cargo run --example degraded` takes three seconds.
#![allow(clippy::print_stdout, reason = "that is what it is for")]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

use forebay::sink::{BreakerPolicy, DeadLetters, MemorySink, RetryPolicy, Sink, SinkError, SinkExt, from_fn};
use forebay::{Batch, Collector, FlushStrategy, Record, log::LogEntry};

const WELL: u64 = 0;
const FAILS_EVERY_OTHER: u64 = 1;
const GONE: u64 = 2;

/// Returns a share that is as the dial says.
fn share(dial: &Arc<AtomicU64>) -> impl Sink + use<> {
    let (dial, turn) = (Arc::clone(dial), AtomicU64::new(0));
    from_fn("share", move |_: &Batch| {
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        match dial.load(Ordering::Relaxed) {
            GONE => Err(SinkError::unavailable("no route to the server")),
            FAILS_EVERY_OTHER if turn.is_multiple_of(2) => Err(SinkError::write_failed("timed out")),
            _ => Ok(()),
        }
    })
}

fn chapter(title: &str) {
    println!("\n── {title}");
}

/// Trains for half a second: fifty steps, then a look as an operator would take it.
fn train(collector: &Collector, letters: &DeadLetters, step: &mut u64) {
    let before = collector.stats();
    for _ in 0..50 {
        collector.collect(Record::scalar("train.loss", 1.0 / (*step + 1) as f64).with_step(*step));
        *step += 1;
        sleep(Duration::from_millis(10));
    }
    let stats = collector.stats();
    let delta = stats.delta(&before);
    for sink in &delta.sinks {
        println!(
            "   {:<6} {:>3} delivered, {:>3} dead letters, {:>3} failed, {:>3} evicted",
            sink.name, sink.delivered, sink.dead_lettered, sink.failed, sink.evicted
        );
    }
    let health = collector.health();
    println!("   health: {}", health.to_string().replace('\n', "\n           "));
    println!("   {} dead letters wait", letters.len());
}

fn main() -> Result<(), Box<dyn Error>> {
    let (dial, letters) = (Arc::new(AtomicU64::new(WELL)), DeadLetters::new(1_000));
    let mut breaker = BreakerPolicy::default();
    (breaker.failures, breaker.rate, breaker.open_for) = (4, 0.9, Duration::from_millis(400));
    let collector = Collector::builder()
        .flush(FlushStrategy::Hybrid { events: 10, interval: Duration::from_millis(50) })
        .on_log(|entry: &LogEntry| println!("   log: {entry}"))
        .sink(
            share(&dial)
                .breaker(breaker)
                .retry(RetryPolicy::fixed(Duration::from_millis(5), 1))
                .dead_letters(&letters)
                .isolated(64),
        )
        .sink(MemorySink::new().named("disk"))
        .start()?;
    let mut step = 0;

    chapter("All is well");
    train(&collector, &letters, &mut step);

    chapter("Every other write to the share fails: it is tried again, and nothing is lost");
    dial.store(FAILS_EVERY_OTHER, Ordering::Relaxed);
    train(&collector, &letters, &mut step);

    chapter("The share is gone: its breaker opens, its events become dead letters, the rest goes on");
    dial.store(GONE, Ordering::Relaxed);
    train(&collector, &letters, &mut step);
    train(&collector, &letters, &mut step);

    chapter("It is back: the breaker lets a probe through, and closes");
    dial.store(WELL, Ordering::Relaxed);
    train(&collector, &letters, &mut step);

    chapter("The operator looks at a letter, and has all of them offered again");
    if let Some(letter) = letters.entries().first() {
        println!("   the first: {} after {} attempts: {}", letter.event, letter.attempts, letter.error);
    }
    println!("   {} letters, at 500 a second", letters.redrive(Some(500)));
    train(&collector, &letters, &mut step);

    chapter("The account");
    let report = collector.stop()?;
    println!("{}", report.stats);
    if let Some(share) = report.stats.sink("share") {
        println!(
            "share: {} dead letters were delivered after all, {} wait",
            share.redriven, share.dead_letters
        );
    }
    report.stats.check_law(step)?;
    println!("the law holds: every one of the {step} events has one fate");
    Ok(())
}
