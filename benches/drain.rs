//! Events a second that go through the worker, by the size of batches, beside a bare pop loop.
//!
//! Timed on the worker, from its first batch to the flush; the sink does nothing.

#[path = "support/mod.rs"]
mod support;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use crossbeam_queue::ArrayQueue;
use forebay::{Builder, Event, FlushStrategy, Record};
use support::{Stopwatch, Words};

const EVENTS: u64 = 100_000;

fn drain_of<E: Event>(c: &mut Criterion, event: &str, make: impl Fn(u64) -> E + Copy) {
    let mut group = c.benchmark_group(format!("drain, {event}"));
    group.throughput(Throughput::Elements(EVENTS));
    let ring = ArrayQueue::new(EVENTS as usize);
    group.bench_function("bare pop loop", |b| {
        b.iter_custom(|rounds| {
            let round = |_| {
                (0..EVENTS).for_each(|n| _ = ring.push(make(n)));
                let pop_all = || {
                    let begun = Instant::now();
                    while let Some(event) = ring.pop() {
                        black_box(event);
                    }
                    begun.elapsed()
                };
                // By another thread than the one that pushed, as with us.
                std::thread::scope(|scope| scope.spawn(pop_all).join().unwrap_or(Duration::MAX))
            };
            (0..rounds).map(round).sum()
        });
    });
    for batch in [1, 10, 100, 512, 4096] {
        let watch = Stopwatch::new();
        let builder = Builder::<E>::new().capacity(EVENTS as usize).batch_size(batch);
        let collector = match builder.flush(FlushStrategy::Manual).sink(watch.clone()).start() {
            Ok(collector) => collector,
            Err(error) => unreachable!("the settings are allowed: {error}"),
        };
        group.bench_function(BenchmarkId::new("batches of", batch), |b| {
            b.iter_custom(|rounds| {
                let round = |_| {
                    collector.collect_batch((0..EVENTS).map(make));
                    let _ = collector.flush();
                    watch.read()
                };
                (0..rounds).map(round).sum()
            });
        });
    }
    group.finish();
}

fn drain(c: &mut Criterion) {
    drain_of(c, "56 bytes", |n| Words([black_box(n); 7]));
    drain_of(c, "record", |step| Record::scalar("train.loss", black_box(0.5)).with_step(step));
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = drain
}
criterion_main!(benches);
