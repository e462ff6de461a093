//! The lines of lanes of threads: each against a bare ring that all threads share.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use forebay::collector::{Producer, State};
use forebay::config::Lanes;
use forebay::{Builder, Collector, Event, Record};

use crate::duel::{Duel, duel};
use crate::support::{NEVER, stalled};
use crate::table::{Budget, Table};
use crate::{Outcome, PLAIN, Plain, plain, push, steps, time};

/// Number of events that fit into a pool with some left.
const NOT_FULL: usize = 8_000;
const FULL: usize = 100_000;

pub(crate) fn measure(table: &Table) -> Outcome<()> {
    table.ratio("lanes, not full, thread-local / bare push", Budget::AtMost(0.6), |rounds| {
        let collector = asleep()?;
        let ours = |n| _ = black_box(collector.collect(plain(n)));
        Outcome::Ok(not_full(rounds, &collector, ours))
    })?;
    table.ratio("lanes, not full, local() / bare push", Budget::AtMost(0.55), |rounds| {
        let collector = asleep()?;
        let producer = collector.local();
        let ours = |n| _ = black_box(producer.collect(plain(n)));
        Outcome::Ok(not_full(rounds, &collector, ours))
    })?;
    table.ratio("lanes, full, worker stalled, thread-local / bare push", Budget::AtMost(0.33), |rounds| {
        let (collector, _go_on) = full_and_stalled(|_| PLAIN);
        full(rounds, plain, |n| _ = black_box(collector.collect(plain(n))))
    })?;
    table.ratio("lanes, full, worker stalled, local() / bare push", Budget::AtMost(0.33), |rounds| {
        let (producer, _go_on) = full_producer(|_| PLAIN);
        full(rounds, plain, |n| _ = black_box(producer.collect(plain(n))))
    })?;
    table.ratio("lanes, full / not full", Budget::AtMost(1.25), full_by_not_full)?;
    table.ratio("lanes, full, a stamped scalar / bare push of the same", Budget::AtMost(0.85), |rounds| {
        let make = |step| Record::scalar("train.loss", black_box(0.5)).with_step(step);
        let (producer, _go_on) = full_producer(make);
        full(rounds, make, |n| _ = black_box(producer.collect(make(n))))
    })?;
    table.ratio("lanes, ten calls every 200 us / bare push in that loop", Budget::AtMost(0.8), steady)?;
    table.ratio("lanes, processor time, 8 producers / 1", Budget::AtMost(1.3), eight_by_one)?;
    for (batch, least) in [(10_000, 2.5), (512, 1.5), (100, 1.2)] {
        let what = format!("lanes, drained in batches of {batch} / bare pop loop");
        table.ratio(&what, Budget::AtLeast(least), |rounds| {
            let lanes = Builder::<Plain>::new().lanes(Lanes::PerThread { max: 2 });
            crate::through_the_worker_of(lanes, rounds, batch)
        })?;
    }
    if table.is_first {
        sixty_four(table)?;
    }
    Ok(())
}

fn lanes<E: Event>() -> Builder<E> {
    Builder::new().lanes(Lanes::PerThread { max: 16 })
}

/// Starts a collector whose worker sleeps, and is not called.
fn asleep() -> Outcome<Collector<Plain>> {
    Ok(lanes().capacity(2 * 16 * NOT_FULL).flush(NEVER).start()?)
}

/// The bare ring is drained by another thread as well: slots whose lines lie in the cache of another processor cost more to write.
#[expect(
    clippy::redundant_closure,
    reason = "by reference, the call would not be inlined, as it is in a program"
)]
fn not_full(rounds: usize, collector: &Collector<Plain>, mut ours: impl FnMut(u64)) -> Duel {
    let ring = ArrayQueue::new(2 * NOT_FULL + 2);
    let theirs = || {
        let time = time(NOT_FULL, |n| _ = push(&ring, plain(n)));
        thread::scope(|scope| _ = scope.spawn(|| while ring.pop().is_some() {}));
        time
    };
    let ours = || {
        let time = time(NOT_FULL, |n| ours(n));
        let _ = collector.flush();
        while collector.state() != State::Asleep {
            thread::yield_now();
        }
        time
    };
    duel(rounds, NOT_FULL, ours, theirs)
}

/// Returns a collector whose pool is full and whose worker hangs until the sender is dropped.
fn full_and_stalled<E: Event>(make: impl Fn(u64) -> E) -> (Collector<E>, Sender<()>) {
    let (collector, go_on) = stalled(lanes(), make(0));
    (0..FULL as u64).for_each(|n| _ = collector.collect(make(n)));
    (collector, go_on)
}

fn full_producer<E: Event>(make: impl Fn(u64) -> E) -> (Producer<E>, Sender<()>) {
    let (collector, go_on) = stalled(lanes(), make(0));
    let producer = collector.local();
    (0..FULL as u64).for_each(|n| _ = producer.collect(make(n)));
    (producer, go_on)
}

#[expect(
    clippy::redundant_closure,
    reason = "by reference, the call would not be inlined, as it is in a program"
)]
fn full<E: Event>(rounds: usize, make: impl Fn(u64) -> E + Copy, mut ours: impl FnMut(u64)) -> Outcome<Duel> {
    let ring = ArrayQueue::new(10_000);
    while ring.push(make(0)).is_ok() {}
    // Looked at in its place: moved, an event that was evicted would cost more.
    let theirs = || {
        time(FULL, |n| {
            let evicted = push(&ring, make(n));
            black_box(evicted.is_some());
        })
    };
    Ok(duel(rounds, FULL, || time(FULL, |n| ours(n)), theirs))
}

fn full_by_not_full(rounds: usize) -> Outcome<Duel> {
    let collector = asleep()?;
    let producer = collector.local();
    let (full, _go_on) = full_producer(|_| PLAIN);
    let theirs = || {
        let time = time(NOT_FULL, |n| _ = black_box(producer.collect(plain(n))));
        let _ = collector.flush();
        time
    };
    Ok(duel(rounds, NOT_FULL, || time(NOT_FULL, |n| _ = black_box(full.collect(plain(n)))), theirs))
}

/// Measures the loop that users have, with default settings but for the lanes.
fn steady(rounds: usize) -> Outcome<Duel> {
    const EVENTS: usize = 5_000;
    let ring = ArrayQueue::new(10_000);
    let theirs = || {
        let time = steps(EVENTS, |number| _ = black_box(push(&ring, plain(number))));
        while ring.pop().is_some() {}
        time
    };
    let collector = Builder::<Plain>::new().lanes(Lanes::PerThread { max: 0 }).start()?;
    let producer = collector.local();
    let ours = || {
        let time = steps(EVENTS, |n| _ = black_box(producer.collect(plain(n))));
        let _ = collector.flush();
        time
    };
    Ok(duel(rounds, EVENTS, ours, theirs))
}

/// Measures the processor time of an event with eight producers, by that with one.
fn eight_by_one(rounds: usize) -> Outcome<Duel> {
    const EVENTS: usize = 1_000_000;
    let (collector, _go_on) = full_and_stalled(|_| PLAIN);
    let of = |producers: u32| {
        let ready = Barrier::new(producers as usize);
        let one = || {
            ready.wait();
            let before = processor_time();
            (0..EVENTS as u64).for_each(|n| _ = black_box(collector.collect(plain(n))));
            processor_time().saturating_sub(before)
        };
        let spent: Duration = thread::scope(|scope| {
            let threads: Vec<_> = (0..producers).map(|_| scope.spawn(one)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or(Duration::MAX / 64)).sum()
        });
        // Where the system does not say, both are the same.
        (spent / producers).max(Duration::from_nanos(1))
    };
    Ok(duel(rounds.div_ceil(4), EVENTS, || of(8), || of(1)))
}

/// Returns the processor time of the calling thread; zero where the system does not say (only Linux does).
fn processor_time() -> Duration {
    // Brings the account up to date.
    thread::yield_now();
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = schedstat.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// Measures how long calls take at worst with 64 producers, against a loop that only reads the clock.
fn sixty_four(table: &Table) -> Outcome<()> {
    const PRODUCERS: usize = 64;
    let (late, tail) =
        ("lanes, 64 producers, calls over 1 ms / empty loop", "lanes, 64 producers, p99.999, us");
    if !table.wants(late) && !table.wants(tail) {
        return Ok(());
    }
    let each = if table.is_test { 100 } else { 20_000 };
    let collector = Builder::<Plain>::new().lanes(Lanes::PerThread { max: PRODUCERS }).start()?;
    let measure = |call: &(dyn Fn(u64) + Sync)| {
        let ready = Barrier::new(PRODUCERS);
        let one = || {
            let mut calls = Vec::with_capacity(each);
            ready.wait();
            for n in 0..each as u64 {
                let begun = Instant::now();
                call(n);
                calls.push(begun.elapsed());
            }
            calls
        };
        let mut calls: Vec<Duration> = thread::scope(|scope| {
            let threads: Vec<_> = (0..PRODUCERS).map(|_| scope.spawn(one)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
        });
        calls.sort_unstable();
        let over = calls.iter().filter(|call| **call > Duration::from_millis(1)).count();
        let at = (calls.len() as f64 * 0.99999) as usize;
        (over as f64, calls.get(at).map_or(0.0, |call| call.as_secs_f64() * 1e6))
    };
    let (empty_over, empty_tail) = measure(&|n| _ = black_box(n));
    let (over, p99999) = measure(&|n| _ = black_box(collector.collect(plain(n))));
    table.line(late, over, empty_over, over - empty_over, Budget::AtMost(3.0));
    table.line(tail, p99999 * 1e3, empty_tail * 1e3, p99999, Budget::AtMost(20.0));
    collector.stop()?;
    Ok(())
}
