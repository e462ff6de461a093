//! Every sink behind the worker, beside a bare loop that does the same with the same encoder.
//!
//! SQLite is among them with `--features sqlite`. Both get 20,000 records; forebay's side is the time of a flush, with
//! both wake-ups.

#[cfg(feature = "sqlite")]
#[path = "support/mod.rs"]
mod support;

use std::fmt::Write as _;
use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use forebay::sink::{ConsoleSink, JsonLinesSink, MemorySink, Sink};
use forebay::{Collector, FlushStrategy, Record};

const EVENTS: u64 = 20_000;

/// Size of a batch by default.
const BATCH: usize = 100;

/// Returns the records that are measured at a time. Their steps go on from round to round, as those of a run do.
fn records() -> impl Iterator<Item = Record> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let next = NEXT.fetch_add(EVENTS, Ordering::Relaxed);
    (next..next + EVENTS).map(|step| Record::scalar("train.loss", black_box(0.123_456_789)).with_step(step))
}

fn beside(
    c: &mut Criterion,
    name: &str,
    sink: impl Sink<Record> + 'static,
    mut after: impl FnMut(),
    mut bare: impl FnMut(&[Record]) -> std::io::Result<()>,
) {
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(EVENTS));
    let builder = Collector::builder().capacity(EVENTS as usize).flush(FlushStrategy::Manual);
    let collector = match builder.sink(sink).start() {
        Ok(collector) => collector,
        Err(error) => unreachable!("the settings are allowed: {error}"),
    };
    group.bench_function("sink", |b| {
        b.iter_custom(|rounds| {
            let round = |_| {
                collector.collect_batch(records());
                let begun = Instant::now();
                let _ = collector.flush();
                let time = begun.elapsed();
                after();
                time
            };
            (0..rounds).map(round).sum()
        });
    });
    group.bench_function("bare loop", |b| {
        b.iter_custom(|rounds| {
            let round = |_| {
                let records: Vec<Record> = records().collect();
                let begun = Instant::now();
                match bare(&records) {
                    Ok(()) => begun.elapsed(),
                    Err(_) => Duration::MAX,
                }
            };
            (0..rounds).map(round).sum()
        });
    });
    group.finish();
}

fn sinks(c: &mut Criterion) {
    let memory = MemorySink::new();
    beside(
        c,
        "memory",
        memory.clone(),
        || memory.clear(),
        |records| {
            let batches: Vec<Vec<Record>> = records.chunks(BATCH).map(<[Record]>::to_vec).collect();
            black_box(batches);
            Ok(())
        },
    );
    let mut text = String::new();
    beside(
        c,
        "console",
        ConsoleSink::to_writer("forebay", std::io::sink()),
        || (),
        |records| {
            for batch in records.chunks(BATCH) {
                text.clear();
                for record in batch {
                    // It cannot fail: it writes into memory.
                    let _ = writeln!(text, "[forebay] {record}");
                }
                std::io::sink().write_all(text.as_bytes())?;
            }
            Ok(())
        },
    );
    if let Err(error) = files(c) {
        unreachable!("a temporary file cannot be written: {error}");
    }
}

fn files(c: &mut Criterion) -> std::io::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| Path::new(folder.path()).join(name);
    let mut file = File::create(path("bare.jsonl"))?;
    let mut buffer = Vec::new();
    beside(
        c,
        "JSON Lines",
        JsonLinesSink::create(path("ours.jsonl"))?,
        || (),
        |records| {
            for batch in records.chunks(BATCH) {
                buffer.clear();
                for record in batch {
                    serde_json::to_writer(&mut buffer, record)?;
                    buffer.push(b'\n');
                }
                file.write_all(&buffer)?;
            }
            Ok(())
        },
    );
    #[cfg(feature = "tensorboard")]
    {
        use forebay::sink::TensorBoardSink;
        use tfevents::{Encoder, Summary};
        let mut file = File::create(path("bare.tfevents"))?;
        let mut encoder = Encoder::new();
        encoder.begin_file(0.0, 0);
        let sink = TensorBoardSink::create(path("ours"))?;
        beside(
            c,
            "TensorBoard",
            sink,
            || (),
            |records| {
                for batch in records.chunks(BATCH) {
                    for record in batch {
                        let step = record.step().map_or(0, |step| step as i64);
                        let value = Summary::Scalar(record.value().as_f64().unwrap_or(f64::NAN) as f32);
                        let time = record.unix_nanos() as f64 / 1e9;
                        let added = encoder.add(time, step, &record.name().replace('.', "/"), value);
                        added.map_err(std::io::Error::other)?;
                    }
                    file.write_all(encoder.bytes())?;
                    encoder.clear();
                }
                Ok(())
            },
        );
    }
    #[cfg(feature = "sqlite")]
    {
        let mut database = support::BareDatabase::create(&path("bare.db")).map_err(std::io::Error::other)?;
        let sink = forebay::sink::SqliteSink::create(path("ours.db")).map_err(std::io::Error::other)?;
        beside(
            c,
            "SQLite",
            sink,
            || (),
            |records| {
                let mut batches = records.chunks(BATCH);
                batches.try_for_each(|batch| database.insert(batch).map_err(std::io::Error::other))
            },
        );
    }
    Ok(())
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = sinks
}
criterion_main!(benches);
