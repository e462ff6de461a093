//! What an idle collector costs, and how long a stop takes.
//!
//! `cargo bench --bench lifecycle` prints both; with `-- --test` it only runs through.
#![allow(clippy::print_stdout, reason = "its output is for a person")]

use std::error::Error;
use std::fs;
use std::time::{Duration, Instant};

use forebay::sink::JsonLinesSink;
use forebay::{Collector, FlushStrategy, Record};

fn main() -> Result<(), Box<dyn Error>> {
    let is_test = std::env::args().any(|arg| arg == "--test");
    let (idle, stops) = if is_test { (Duration::from_millis(10), 2) } else { (Duration::from_secs(10), 50) };

    let collector = Collector::builder().start()?;
    collector.collect(Record::new("last event"));
    let _ = collector.flush()?;
    let (before, naps) = (processor_time()?, collector.stats().naps);
    std::thread::sleep(idle);
    let spent = processor_time()? - before;
    let naps = collector.stats().naps - naps;
    println!("idle for {idle:?}: {spent:?} of processor time, the worker woke {naps} times");

    let folder = tempfile::tempdir()?;
    let mut times = Vec::new();
    for round in 0..stops {
        let sink = JsonLinesSink::create(folder.path().join(format!("{round}.jsonl")))?;
        let collector = Collector::builder().flush(FlushStrategy::Manual).sink(sink).start()?;
        for step in 0..10_000 {
            collector.collect(Record::scalar("train.loss", 0.5).step(step));
        }
        let begun = Instant::now();
        let report = collector.stop()?;
        times.push(begun.elapsed());
        report.stats.check_law(10_000)?;
    }
    times.sort();
    println!(
        "stop with 10,000 pending records for a JSON Lines file: median {:?}, longest {:?} of {stops}",
        times[times.len() / 2],
        times[times.len() - 1]
    );
    Ok(())
}

/// What this process has used so far, in steps of a hundredth of a second or finer. Linux only.
fn processor_time() -> Result<Duration, Box<dyn Error>> {
    let mut nanos = 0;
    for task in fs::read_dir("/proc/self/task")? {
        let schedstat = fs::read_to_string(task?.path().join("schedstat"))?;
        nanos += schedstat.split(' ').next().ok_or("no field")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanos))
}
