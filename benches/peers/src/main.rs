//! Comparison of forebay with what people use in its place, on the same work: interleaved in one run, on one machine.
//!
//! ```text
//! cargo run --release --manifest-path benches/peers/Cargo.toml            # the table, and chart.svg beside it
//! cargo run --release --manifest-path benches/peers/Cargo.toml -- --test  # once, to see that it runs
//! ```
//!
//! `cpp/run` prints rows of quill and spdlog, which are written in C++.
//!
//! Two loads: 8,000 events in a row into a queue that has space for all of them, and a training loop of ten events
//! every 200 microseconds. The calls alone are timed; the reader is given time to catch up in between. All
//! readers count and throw away. Nobody loses an event, or the run fails.

mod chart;
mod loss;
mod peers;

use std::error::Error;
use std::time::{Duration, Instant};

use peers::Peer;

/// Space for a burst in every queue that has a size.
pub(crate) const CAPACITY: usize = 16_384;

/// Load: how the events come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    Burst,
    Steps,
}

impl Load {
    pub(crate) fn events(self) -> usize {
        match self {
            Load::Burst => 8_000,
            Load::Steps => 1_000,
        }
    }

    /// Runs `push` for every event, and says how long these calls took.
    pub(crate) fn time(self, mut push: impl FnMut(u64)) -> Duration {
        let mut timed = |range: std::ops::Range<u64>| {
            let begun = Instant::now();
            range.for_each(&mut push);
            begun.elapsed()
        };
        let events = self.events() as u64;
        match self {
            Load::Burst => timed(0..events),
            Load::Steps => (0..events / 10)
                .map(|step| {
                    let spent = timed(10 * step..10 * step + 10);
                    let work = Instant::now();
                    while work.elapsed() < Duration::from_micros(200) {
                        std::hint::spin_loop();
                    }
                    spent
                })
                .sum(),
        }
    }
}

/// Result of one peer, in nanoseconds a call.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) burst: f64,
    pub(crate) steps: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let rounds = if std::env::args().any(|arg| arg == "--test") { 1 } else { 31 };
    let mut peers = peers::all()?;
    let mut times: Vec<[Vec<f64>; 2]> = peers.iter().map(|_| Default::default()).collect();
    // In turn, and once more than is counted: caches, pages and threads come to rest.
    for round in 0..=rounds {
        for (peer, times) in peers.iter_mut().zip(&mut times) {
            for (load, times) in [Load::Burst, Load::Steps].into_iter().zip(times) {
                let nanos = peer.sample(load)?.as_nanos() as f64 / load.events() as f64;
                if round > 0 {
                    times.push(nanos);
                }
            }
        }
    }
    let row = |(peer, [burst, steps]): (&Peer, [Vec<f64>; 2])| Row {
        name: peer.name,
        what: peer.what,
        burst: median(burst),
        steps: median(steps),
    };
    let mut rows: Vec<Row> = peers.iter().zip(times).map(row).collect();
    rows.sort_by(|one, other| one.steps.total_cmp(&other.steps));
    println!("| who | what a call does | ns, 8,000 in a row | ns, 10 a step |");
    println!("|---|---|---|---|");
    for row in &rows {
        println!("| {} | {} | {:.0} | {:.0} |", row.name, row.what, row.burst, row.steps);
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/chart.svg");
    if rounds > 1 {
        chart::draw(&rows, path)?;
        println!("\nchart.svg is written");
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
