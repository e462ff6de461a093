//! Number of workers that `Strategy::Adaptive` finds, beside `Serial` and fixed numbers, on two loads.
//!
//! * *Mixed*: of ten handlers nine compute for some 100 us, one waits for 20 ms.
//! * *Crowded*: handlers wait for a service that takes 2 ms with up to 8 calls at a time, and longer by the square of what is more,
//!   as a disk or a lock does that thrashes. The service is simulated; its waits are real.
//!
//! All take turns, for some seconds each, and Adaptive begins anew with one worker in every turn: its search is part of its
//! price. `cargo bench -p forebay-task --bench task` prints the tables, `-- --test` runs through them once.
#![allow(clippy::print_stdout, reason = "its output is for a person")]

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use forebay_task::{self as task, Strategy, Summary};

type Load = Arc<dyn Fn(u64) + Send + Sync>;

fn compute(rounds: u32) {
    let mut state = 1_u64;
    for _ in 0..rounds {
        state = black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    }
}

/// Rounds of computing that take about 100 us.
fn calibrate() -> u32 {
    const ROUNDS: u32 = 1_000_000;
    let best = (0..5).map(|_| {
        let begun = Instant::now();
        compute(ROUNDS);
        begun.elapsed()
    });
    let best = best.min().unwrap_or_default().as_nanos().max(1);
    (u128::from(ROUNDS) * 100_000 / best) as u32
}

fn mixed() -> Load {
    let rounds = calibrate();
    Arc::new(move |number| match number % 10 {
        0 => std::thread::sleep(Duration::from_millis(20)),
        _ => compute(rounds),
    })
}

fn crowded() -> Load {
    let calls = AtomicU32::new(0);
    Arc::new(move |_| {
        let now = calls.fetch_add(1, Ordering::Relaxed) + 1;
        let crowding = (f64::from(now) / 8.0).max(1.0);
        std::thread::sleep(Duration::from_millis(2).mul_f64(crowding * crowding));
        calls.fetch_sub(1, Ordering::Relaxed);
    })
}

/// Handles as much as it can until the time is over.
fn turn(strategy: Strategy, load: &Load, longest: Duration) -> Result<Summary, Box<dyn Error>> {
    let (begun, number, load) = (Instant::now(), AtomicU64::new(0), Arc::clone(load));
    let source = move || (begun.elapsed() < longest).then(|| number.fetch_add(1, Ordering::Relaxed));
    let summary = task::from_fn(source).strategy(strategy).map(move |number| load(*number)).run()?.summary;
    summary.check_law(summary.handled)?;
    Ok(summary)
}

fn main() -> Result<(), Box<dyn Error>> {
    let is_test = std::env::args().any(|arg| arg == "--test");
    let (rounds, longest) =
        if is_test { (1, Duration::from_millis(50)) } else { (3, Duration::from_secs(3)) };
    let parallel = |workers| Strategy::Parallel { workers, rate_limit: None };
    let strategies = [
        ("Serial", Strategy::Serial),
        ("Parallel, 1", parallel(1)),
        ("Parallel, 8", parallel(8)),
        ("Parallel, 64", parallel(64)),
        ("Adaptive, 1 to 64", Strategy::Adaptive { min: 1, max: 64, window: Duration::from_millis(50) }),
    ];
    println!("| load | strategy | items a second, median | from, to | to Serial | workers at the end |");
    println!("|---|---|---|---|---|---|");
    for (name, load) in [("mixed", mixed()), ("crowded", crowded())] {
        let mut speeds = [const { Vec::new() }; 5];
        let mut workers = [const { Vec::new() }; 5];
        for round in 0..rounds {
            for turn_of in 0..strategies.len() {
                let who = (round + turn_of) % strategies.len();
                let summary = turn(strategies[who].1, &load, longest)?;
                speeds[who].push(summary.handled as f64 / summary.elapsed.as_secs_f64());
                workers[who].push(summary.workers);
            }
        }
        speeds.iter_mut().for_each(|speeds| speeds.sort_by(f64::total_cmp));
        let median = |who: usize| speeds[who][rounds / 2];
        for (who, (strategy, _)) in strategies.iter().enumerate() {
            let (low, high, ratio) = (speeds[who][0], speeds[who][rounds - 1], median(who) / median(0));
            println!(
                "| {name} | {strategy} | {:.0} | {low:.0}, {high:.0} | {ratio:.2} | {:?} |",
                median(who),
                workers[who]
            );
        }
    }
    Ok(())
}
