//! Cost of one `collect` beside the bare ring it is built on: by state, by size, by number of producers.
//!
//! Gates do not exist yet. `cargo bench --bench collect -- WORD` measures what contains the word.

#[path = "support/mod.rs"]
mod support;

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main};
use crossbeam_queue::ArrayQueue;
use forebay::{Builder, Collector, Event, FlushStrategy, Record};
use support::{NEVER, Words, stalled};

const CAPACITY: usize = 16_384;

/// Number of events that one collector is timed with, where it has to have room for them.
const CHUNK: u64 = 4_000;

#[derive(Clone, Copy)]
enum State {
    /// The worker sleeps, the ring is empty to begin with.
    Asleep,
    /// The worker sleeps, the ring is half full to begin with.
    HalfFull,
    /// The worker is busy with a sink, the ring is empty to begin with.
    Awake,
    /// The worker is busy with a sink, the ring is full.
    Overflowing,
}

impl State {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Asleep, "asleep, empty"),
        (Self::HalfFull, "asleep, half full"),
        (Self::Awake, "awake, empty"),
        (Self::Overflowing, "stalled, overflowing"),
    ];

    /// Times `count` calls; whatever makes the state is not timed.
    fn time<E: Event>(self, count: u64, make: impl Fn(u64) -> E + Copy) -> Duration {
        let push = |collector: &Collector<E>, count| {
            let begun = Instant::now();
            (0..count).for_each(|n| _ = black_box(collector.collect(make(n))));
            begun.elapsed()
        };
        match self {
            Self::Overflowing => {
                let (collector, go_on) = stalled(builder(), make(0));
                push(&collector, CAPACITY as u64);
                let time = push(&collector, count);
                drop(go_on);
                time
            }
            Self::Awake => in_chunks(count, |count| {
                let (collector, go_on) = stalled(builder(), make(0));
                let time = push(&collector, count);
                drop(go_on);
                time
            }),
            Self::Asleep | Self::HalfFull => {
                let filled = if matches!(self, Self::HalfFull) { CAPACITY as u64 / 2 } else { 0 };
                let strategy = match self {
                    Self::HalfFull => FlushStrategy::Size { events: CAPACITY },
                    _ => NEVER,
                };
                let collector = match builder().flush(strategy).start() {
                    Ok(collector) => collector,
                    Err(error) => unreachable!("the settings are allowed: {error}"),
                };
                in_chunks(count, |count| {
                    let _ = collector.flush();
                    while collector.state() != forebay::collector::State::Asleep {
                        std::thread::yield_now();
                    }
                    push(&collector, filled);
                    push(&collector, count)
                })
            }
        }
    }
}

fn builder<E: Event>() -> Builder<E> {
    Builder::new().capacity(CAPACITY).critical_capacity(1).low_capacity(1)
}

fn in_chunks(count: u64, chunk: impl Fn(u64) -> Duration) -> Duration {
    let chunks = (0..count).step_by(CHUNK as usize);
    chunks.map(|begin| chunk(CHUNK.min(count - begin))).sum()
}

/// Times `count` pushes into a bare ring.
fn bare<E>(is_full: bool, count: u64, make: impl Fn(u64) -> E) -> Duration {
    let ring = ArrayQueue::new(CAPACITY);
    let push = |count| {
        let begun = Instant::now();
        (0..count).for_each(|n| _ = ring.force_push(make(n)));
        begun.elapsed()
    };
    if is_full {
        push(CAPACITY as u64);
        return push(count);
    }
    in_chunks(count, |count| {
        while ring.pop().is_some() {}
        push(count)
    })
}

fn states_of<E: Event>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    event: &str,
    make: impl Fn(u64) -> E + Copy,
) {
    for (is_full, state) in [(false, "bare ring, empty"), (true, "bare ring, overflowing")] {
        group.bench_function(BenchmarkId::new(state, event), |b| {
            b.iter_custom(|count| bare(is_full, count, make));
        });
    }
    for (state, name) in State::ALL {
        group.bench_function(BenchmarkId::new(name, event), |b| {
            b.iter_custom(|count| state.time(count, make));
        });
    }
}

fn words<const N: usize>(number: u64) -> Words<N> {
    let mut words = [number; N];
    words[0] = black_box(number);
    Words(words)
}

fn scalar(step: u64) -> Record {
    Record::scalar("train.loss", black_box(0.5)).with_step(step)
}

fn states(c: &mut Criterion) {
    let mut group = c.benchmark_group("one producer");
    states_of(&mut group, "8 bytes", words::<1>);
    states_of(&mut group, "56 bytes", words::<7>);
    states_of(&mut group, "256 bytes", words::<32>);
    states_of(&mut group, "record, scalar", scalar);
    // Evicting it frees memory: the price of an expensive destructor, paid by whoever collects.
    states_of(&mut group, "record, text", |step| {
        Record::text("note", "a text on the heap".to_owned()).with_step(step)
    });
    group.finish();
}

/// Returns the time from the first push to the last of `count` pushes by `threads` threads together: by events, the
/// reverse of what all of them get through.
fn together(threads: usize, count: u64, push: impl Fn(u64) + Sync) -> Duration {
    let each = count.div_ceil(threads as u64);
    let ready = Barrier::new(threads);
    let one = || {
        ready.wait();
        let begun = Instant::now();
        (0..each).for_each(&push);
        (begun, Instant::now())
    };
    let times: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let begun = times.iter().map(|time| time.0).min();
    let ended = times.iter().map(|time| time.1).max();
    let spent = begun.zip(ended).map_or(Duration::MAX, |(begun, ended)| ended - begun);
    // As many as were asked for, not the few more that make the parts even.
    spent.mul_f64(count as f64 / (each * threads as u64) as f64)
}

fn producers(c: &mut Criterion) {
    let mut group = c.benchmark_group("overflowing");
    for threads in [1, 2, 4, 8, 64] {
        let ring = ArrayQueue::new(CAPACITY);
        (0..CAPACITY as u64).for_each(|n| _ = ring.push(words::<7>(n)));
        group.bench_function(BenchmarkId::new("bare ring", threads), |b| {
            b.iter_custom(|count| together(threads, count, |n| _ = ring.force_push(words::<7>(n))));
        });
        for shards in [1, 2, 8, 64] {
            let (collector, go_on) = stalled(builder().shards(shards), words::<7>(0));
            let push = |n| _ = black_box(collector.collect(words::<7>(n)));
            // Every ring is full before anything is timed.
            together(64, 64 * CAPACITY as u64 / shards as u64, push);
            group.bench_function(BenchmarkId::new(format!("{shards} rings"), threads), |b| {
                b.iter_custom(|count| together(threads, count, push));
            });
            drop(go_on);
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = states, producers
}
criterion_main!(benches);
