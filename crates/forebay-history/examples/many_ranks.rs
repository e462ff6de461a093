//! Reduces a job of many ranks that are simulated in one process, and prints how long it took and how much memory:
//! `cargo run --release -p forebay-history --example many_ranks -- [RANKS] [STEPS] [NAMES]`.
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::time::{Duration, Instant};

use forebay::Record;
use forebay_history::{EventQuery, History, HistoryError, RankReducer, RankStatus, Records, reduce_ranks};

/// Rank whose records are made as they are asked for. One rank of the job stops in the middle, and one has a clock that is an hour ahead.
struct Simulated {
    rank: u64,
    steps: u64,
    names: Vec<forebay::Name>,
}

impl History for Simulated {
    fn query(&self, query: &EventQuery) -> Result<Vec<Record>, HistoryError> {
        self.iter(query)?.collect()
    }

    fn iter<'a>(&'a self, query: &EventQuery) -> Result<Records<'a>, HistoryError> {
        let begin = 1_780_000_000_000_000_000 + if self.rank == 1 { 3_600_000_000_000 } else { 0 };
        let records = (0..self.steps).flat_map(move |step| {
            self.names.iter().map(move |name| {
                let moment = begin + step * 100_000_000 + self.rank * 1_000;
                let value = (self.rank + step) as f64;
                Ok(Record::scalar(name.clone(), value).with_step(step).with_unix_nanos(moment))
            })
        });
        Ok(query.select(records))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let asked: Vec<u64> = std::env::args().skip(1).map(|arg| arg.parse()).collect::<Result<_, _>>()?;
    let number = |place: usize, or: u64| asked.get(place).copied().unwrap_or(or);
    let (ranks, steps, names) = (number(0, 4_096), number(1, 200), number(2, 4));
    let all_names: Vec<forebay::Name> =
        (0..names).map(|name| forebay::Name::from(format!("metric.{name}"))).collect();
    let of = |rank| if rank == 2 { steps / 2 } else { steps };
    let histories: Vec<Simulated> =
        (0..ranks).map(|rank| Simulated { rank, steps: of(rank), names: all_names.clone() }).collect();
    // What it takes to make the records is none of the merge: both passes over each.
    let begun = Instant::now();
    let mut count = 0_u64;
    for history in &histories {
        count += history.iter(&EventQuery::new())?.count() as u64;
    }
    let alone = begun.elapsed() * 2;
    let before = peak_memory();

    let begun = Instant::now();
    let named = histories.iter().map(|it| (format!("rank-{}", it.rank), it as &dyn History));
    let mut rows = reduce_ranks(named, RankReducer::new().max_lag(10));
    let (mut complete, mut numbers) = (0_u64, 0_u64);
    for row in &mut rows {
        let row = row?;
        complete += u64::from(row.is_complete);
        numbers += row.values.iter().map(|value| value.count).sum::<u64>();
    }
    let took = begun.elapsed().saturating_sub(alone);
    let vanished = rows.job().ranks().filter(|rank| rank.status == RankStatus::Vanished).count();
    let wrong = rows.job().ranks().filter(|rank| rank.clock.is_some_and(|clock| clock.is_wrong())).count();
    println!(
        "{ranks} ranks, {steps} steps, {names} names: {count} numbers, {complete} complete steps, {numbers} reduced"
    );
    println!(
        "{vanished} vanished, {wrong} with a wrong clock, account balanced: {}",
        rows.job().account().is_balanced()
    );
    println!(
        "merge: {took:.2?}, {:.0} ns a number (making the records twice: {alone:.2?})",
        per(took, count)
    );
    match (before, peak_memory()) {
        (Some(before), Some(after)) => {
            println!("memory: {} MB at most, {} MB of it before", after >> 20, before >> 20)
        }
        _ => println!("memory: not known on this system"),
    }
    Ok(())
}

fn per(took: Duration, count: u64) -> f64 {
    took.as_nanos() as f64 / count.max(1) as f64
}

/// Returns the most memory that the process has had, in bytes, where the system says it.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}
