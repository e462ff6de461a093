//! What one `collect` costs beside the bare ring it is built on.

use criterion::{Criterion, criterion_group, criterion_main};
use crossbeam_queue::ArrayQueue;
use forebay::{Builder, Collector, Event, FlushStrategy, Record};
use std::hint::black_box;
use std::time::Duration;

/// 56 bytes, like a record, and plain data.
#[derive(Clone, Copy)]
struct Plain(#[allow(dead_code, reason = "it is only carried")] [u64; 7]);

impl Event for Plain {}

const CAPACITY: usize = 10_000;

/// A collector whose worker sleeps for ever: only the producer's side is measured.
fn collector<E: Event>() -> Collector<E> {
    let flush = FlushStrategy::Time { interval: Duration::from_secs(3600) };
    match Builder::new().capacity(CAPACITY).flush(flush).start() {
        Ok(collector) => collector,
        Err(error) => unreachable!("the settings are allowed: {error}"),
    }
}

fn collect(c: &mut Criterion) {
    let mut group = c.benchmark_group("collect");
    let ring = ArrayQueue::new(CAPACITY);
    group.bench_function("bare force_push, 56 bytes", |b| {
        b.iter(|| black_box(ring.force_push(Plain([1; 7]))))
    });
    let plain = collector::<Plain>();
    group.bench_function("collect, 56 bytes", |b| b.iter(|| black_box(plain.collect(Plain([1; 7])))));
    let ring = ArrayQueue::new(CAPACITY);
    let mut step = 0;
    group.bench_function("bare force_push of a record", |b| {
        b.iter(|| {
            step += 1;
            black_box(ring.force_push(Record::scalar("train.loss", 0.5).step(step)))
        });
    });
    let records = collector::<Record>();
    group.bench_function("collect of a record", |b| {
        b.iter(|| {
            step += 1;
            black_box(records.collect(Record::scalar("train.loss", 0.5).step(step)))
        });
    });
    group.finish();
}

criterion_group!(benches, collect);
criterion_main!(benches);
