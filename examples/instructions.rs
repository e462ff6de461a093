//! Calls `collect` many times, for a tool that counts instructions: `.ci/instructions`.
//! `instructions WAY EVENTS CALLS`: WAY is `loop` (nothing is called), `queue` (the bare queue), `ring`, `lanes` or `local`; EVENTS is
//! `plain` (56 bytes), `full` (the same, and each evicts one), or `records` (full of scalars, which have a destructor), while the worker
//! is awake; or `asleep` (56 bytes), while it sleeps and no call wakes it.

#![expect(clippy::print_stderr, reason = "a program")]

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use forebay::collector::{Producer, State};
use forebay::config::Lanes;
use forebay::sink::from_fn;
use forebay::{Batch, Builder, Collector, Event, FlushStrategy, Record};

/// 56 bytes.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "nobody reads it")]
struct Plain([u64; 7]);

impl Event for Plain {}

fn plain(number: u64) -> Plain {
    Plain([number, 1, 2, number, 3, 4, 5])
}

fn record(number: u64) -> Record {
    Record::scalar("train.loss", 0.5).with_step(number)
}

/// Calls `push` with numbers that the compiler does not know, and counts the calls for which it is true.
#[inline(always)]
fn counted(calls: u64, mut push: impl FnMut(u64) -> bool) -> u64 {
    (0..calls).map(|number| u64::from(push(black_box(number)))).sum()
}

#[inline(never)]
fn calls_loop<E>(calls: u64, make: impl Fn(u64) -> E) -> u64 {
    counted(calls, |number| {
        black_box(make(number));
        true
    })
}

#[inline(never)]
fn calls_queue<E>(queue: &ArrayQueue<E>, calls: u64, make: impl Fn(u64) -> E) -> u64 {
    // Looked at in its place: moved, an event that was evicted would cost more.
    counted(calls, |number| {
        let evicted = queue.force_push(make(number));
        black_box(evicted.is_some());
        true
    })
}

#[inline(never)]
fn calls_collector<E: Event>(collector: &Collector<E>, calls: u64, make: impl Fn(u64) -> E) -> u64 {
    counted(calls, |number| collector.collect(make(number)).is_queued())
}

#[inline(never)]
fn calls_local<E: Event>(producer: &Producer<E>, calls: u64, make: impl Fn(u64) -> E) -> u64 {
    counted(calls, |number| producer.collect(make(number)).is_queued())
}

/// Returns how many events were queued.
fn run<E: Event>(
    way: &str,
    capacity: usize,
    calls: u64,
    make: impl Fn(u64) -> E + Copy,
    sleeps: bool,
) -> Result<u64, Box<dyn std::error::Error>> {
    // Nothing is full of a million events.
    let fill = if capacity < calls as usize { 3 * capacity as u64 } else { 0 };
    let lanes = match way {
        "loop" => return Ok(calls_loop(calls, make)),
        "queue" => {
            let queue = ArrayQueue::new(capacity);
            (0..fill).for_each(|number| _ = queue.force_push(make(number)));
            return Ok(calls_queue(&queue, calls, make));
        }
        "ring" => Lanes::Shared,
        "lanes" | "local" => Lanes::PerThread { max: 4 },
        _ => return Err(format!("invalid way: {way} (expected loop, queue, ring, lanes or local)").into()),
    };
    let (begun, has_begun) = mpsc::channel();
    let (end, ends) = mpsc::channel::<()>();
    // It keeps the worker in its first batch, which is awake and takes nothing.
    let sink = from_fn("first", move |_: &Batch<E>| {
        _ = begun.send(());
        _ = ends.recv();
        Ok(())
    });
    let builder = Builder::<E>::new().capacity(capacity).lanes(lanes);
    let collector = if sleeps {
        // Behind the first event, it sleeps until a lane is half full.
        builder.flush(FlushStrategy::Time { interval: Duration::from_secs(3600) }).start()?
    } else {
        builder.flush(FlushStrategy::Size { events: 1 }).sink(sink).start()?
    };
    collector.collect(make(0));
    if sleeps {
        while collector.state() != State::Asleep {
            std::thread::yield_now();
        }
    } else {
        has_begun.recv()?;
    }
    let queued = if way == "local" {
        let producer = collector.local();
        if !producer.has_lane() {
            return Err("no lane was vacant".into());
        }
        (0..fill).for_each(|number| _ = producer.collect(make(number)));
        calls_local(&producer, calls, make)
    } else {
        (0..fill).for_each(|number| _ = collector.collect(make(number)));
        calls_collector(&collector, calls, make)
    };
    drop(end);
    Ok(queued)
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (way, events) = (arguments.next().unwrap_or_default(), arguments.next().unwrap_or_default());
    let calls = arguments.next().and_then(|calls| calls.parse().ok()).unwrap_or(100_000);
    let queued = match events.as_str() {
        "plain" => run(&way, 1_000_000, calls, plain, false),
        "asleep" => run(&way, 1_000_000, calls, plain, true),
        "full" => run(&way, 10_000, calls, plain, false),
        "records" => run(&way, 10_000, calls, record, false),
        _ => Err(format!("invalid events: {events} (expected plain, asleep, full or records)").into()),
    };
    let wrong = match queued {
        Ok(queued) if queued == calls => return ExitCode::SUCCESS,
        Ok(queued) => format!("{queued} of {calls} events were queued"),
        Err(error) => error.to_string(),
    };
    eprintln!("{wrong}");
    ExitCode::from(2)
}
