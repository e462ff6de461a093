//! Calls `collect` many times while the worker is awake, for a tool that counts instructions: `.ci/instructions`.
//! `instructions WAY CALLS`: WAY is `loop` (nothing is called), `queue` (the bare queue), `ring`, `lanes` or `local`.

#![expect(clippy::print_stderr, reason = "a program")]

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::mpsc;

use crossbeam_queue::ArrayQueue;
use forebay::config::Lanes;
use forebay::sink::from_fn;
use forebay::{Batch, Builder, Event, FlushStrategy, Outcome};

/// 56 bytes.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "nobody reads it")]
struct Plain([u64; 7]);

impl Event for Plain {}

/// Calls `push` for events that the compiler does not know, and counts those for which it is true.
#[inline(always)]
fn counted(calls: u64, mut push: impl FnMut(Plain) -> bool) -> u64 {
    (0..calls).map(|number| u64::from(push(Plain([black_box(number), 1, 2, number, 3, 4, 5])))).sum()
}

#[inline(never)]
fn calls_loop(calls: u64) -> u64 {
    counted(calls, |event| black_box(event.0[0]) == 0)
}

#[inline(never)]
fn calls_queue(queue: &ArrayQueue<Plain>, calls: u64) -> u64 {
    counted(calls, |event| queue.force_push(event).is_none())
}

#[inline(never)]
fn calls_ring_or_lanes(collector: &forebay::Collector<Plain>, calls: u64) -> u64 {
    counted(calls, |event| collector.collect(event) == Outcome::Queued)
}

#[inline(never)]
fn calls_local(producer: &forebay::collector::Producer<Plain>, calls: u64) -> u64 {
    counted(calls, |event| producer.collect(event) == Outcome::Queued)
}

fn run(way: &str, calls: u64) -> Result<u64, Box<dyn std::error::Error>> {
    let lanes = match way {
        "loop" => return Ok(calls_loop(calls)),
        "queue" => return Ok(calls_queue(&ArrayQueue::new(1_000_000), calls)),
        "ring" => Lanes::Shared,
        "lanes" | "local" => Lanes::PerThread { max: 4 },
        _ => return Err(format!("invalid way: {way} (expected loop, queue, ring, lanes or local)").into()),
    };
    let (begun, has_begun) = mpsc::channel();
    let (end, ends) = mpsc::channel::<()>();
    // It keeps the worker in its first batch, which is awake and takes nothing.
    let sink = from_fn("first", move |_: &Batch<Plain>| {
        _ = begun.send(());
        _ = ends.recv();
        Ok(())
    });
    let every = FlushStrategy::Size { events: 1 };
    let collector =
        Builder::<Plain>::new().capacity(1_000_000).flush(every).lanes(lanes).sink(sink).start()?;
    collector.collect(Plain([0; 7]));
    has_begun.recv()?;
    let queued = match way {
        "local" => calls_local(&collector.local(), calls),
        _ => calls_ring_or_lanes(&collector, calls),
    };
    drop(end);
    if queued != calls {
        return Err(format!("{queued} of {calls} events were queued").into());
    }
    Ok(queued)
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let way = arguments.next().unwrap_or_default();
    let calls = arguments.next().and_then(|calls| calls.parse().ok()).unwrap_or(100_000);
    match run(&way, calls) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
