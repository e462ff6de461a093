//! Every budget of speed, each as a ratio to the bare part or the rival, measured in turn in one run.
//!
//! `cargo bench --bench budget` prints the table and exits with 1 if a budget is missed; with `-- --test` it only
//! runs through. A word after `--` measures the lines that contain it. Machines are noisy: three runs of four on a
//! quiet one should hold. It takes about a minute.
#![allow(clippy::print_stdout, reason = "its output is for a person")]

mod duel;
mod former;
mod lanes;
#[path = "../support/mod.rs"]
mod support;
mod table;

use std::error::Error;
use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use forebay::collector::{State, StopError};
use forebay::sink::{JsonLinesSink, TensorBoardSink};
use forebay::{Builder, Collector, Event, FlushStrategy, Record};
use opentelemetry::logs::{LogRecord, Logger, LoggerProvider};
use tfevents::{Encoder, Summary};

use duel::{Duel, duel};
use former::FormerEncoder;
use support::{NEVER, Stopwatch, Words, null, stalled};
use table::{Budget, Table};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// 56 bytes, like a record.
type Plain = Words<7>;

const PLAIN: Plain = Words([1; 7]);

/// Makes an event as a program would: from values in registers, not from a constant.
fn plain(number: u64) -> Plain {
    Words([black_box(number), 1, 2, number, 3, 4, 5])
}

fn main() -> Outcome<()> {
    if !table::draw(measure)? {
        std::process::exit(1);
    }
    Ok(())
}

fn measure(table: &Table) -> Outcome<()> {
    table.ratio("collect, worker asleep / bare push", Budget::AtMost(1.3), |rounds| {
        not_full(rounds, Worker::Asleep)
    })?;
    table.ratio("collect, worker awake / bare push", Budget::AtMost(1.3), |rounds| {
        not_full(rounds, Worker::Busy)
    })?;
    table.ratio("collect into a full ring, worker stalled / bare push", Budget::AtMost(1.3), full)?;
    table.ratio("collect of a stamped scalar / bare push of the same", Budget::AtMost(1.3), |rounds| {
        stamped(rounds, |_| |step| Record::scalar("train.loss", black_box(0.5)).with_step(step))
    })?;
    // A record takes more than seven numbers and a clock: its share of the line above.
    table.ratio("collect of a stamped scalar / clock and 7 numbers", Budget::None, |rounds| {
        stamped(rounds, |clock| {
            let origin = clock.raw();
            move |step| {
                let now = clock.delta_as_nanos(origin, clock.raw());
                Words([now, black_box(0.5_f64).to_bits(), step, 1, 2, 3, 4])
            }
        })
    })?;
    for (shards, budget) in [(2, Budget::AtMost(1.3)), (1, Budget::None)] {
        let rings = if shards == 1 { "one ring" } else { "two rings" };
        table.ratio(&format!("two producers, {rings}, full / bare push of two"), budget, |rounds| {
            two_producers_full(rounds, shards)
        })?;
        table.ratio(&format!("two producers, {rings}, worker asleep / bare of two"), budget, |rounds| {
            two_producers_asleep(rounds, shards)
        })?;
    }
    lanes::measure(table)?;
    table.ratio("ten calls every 200 us / bare push in that loop", Budget::AtMost(1.3), steady)?;
    table.ratio("collect / tracing-appender, 10 lines a step", Budget::AtLeast(3.0), |rounds| {
        tracing_appender(rounds.div_ceil(2), 1_000, |n, push| steps(n, push))
    })?;
    // The ring alone is half of what a line costs there.
    table.ratio("collect / tracing-appender, 8,000 lines in a row", Budget::None, |rounds| {
        tracing_appender(rounds, BURST, |n, push| time(n, push))
    })?;
    table.ratio("collect of a scalar / OpenTelemetry, 2 attributes", Budget::AtLeast(8.0), open_telemetry)?;
    table.ratio("through the worker, batches of 512 / bare pop loop", Budget::AtLeast(0.8), |rounds| {
        through_the_worker(rounds, 512)
    })?;
    table.ratio("through the worker, batches of 100 / bare pop loop", Budget::AtLeast(0.8), |rounds| {
        through_the_worker(rounds, 100)
    })?;
    table.ratio("JSON Lines / bare loop of serde_json", Budget::AtLeast(1.4), json_lines)?;
    table.ratio("TensorBoard's encoder / as it was, 1 scalar a step", Budget::AtLeast(1.4), |rounds| {
        scalars(rounds, 1)
    })?;
    table.ratio("TensorBoard's encoder / as it was, 4 scalars a step", Budget::AtLeast(1.4), |rounds| {
        scalars(rounds, 4)
    })?;
    table.ratio("TensorBoard's encoder / as it was, 20 scalars a step", Budget::AtLeast(1.4), |rounds| {
        scalars(rounds, 20)
    })?;
    table.ratio("TensorBoard / bare loop of its encoder as it was", Budget::AtLeast(0.7), tensorboard)?;
    #[cfg(feature = "sqlite")]
    {
        table.ratio("SQLite / bare prepared inserts in one transaction", Budget::AtLeast(0.7), sqlite)?;
        query(table)?;
    }
    stop_with_pending(table)?;
    stop_with_a_hung_sink(table)?;
    if table.is_first {
        idle(table)?;
    }
    Ok(())
}

/// Pushes into a bare ring. Out of line, because `collect` has it so, and a program that pushes at more than one place:
/// inlined into the loop that is timed, or not, by the luck of a build, it takes 6 or 10 ns.
#[inline(never)]
fn push<E>(ring: &ArrayQueue<E>, event: E) -> Option<E> {
    ring.force_push(event)
}

/// Times `events` pushes; each gets its number, of which it makes its event.
fn time(events: usize, mut push: impl FnMut(u64)) -> Duration {
    let begun = Instant::now();
    for number in 0..events as u64 {
        push(number);
    }
    begun.elapsed()
}

enum Worker {
    Asleep,
    Busy,
}

fn not_full(rounds: usize, worker: Worker) -> Outcome<Duel> {
    // Less than half a lane, so that a worker that sleeps is not called.
    const EVENTS: usize = 8_000;
    let ring = ArrayQueue::new(2 * EVENTS + 2);
    let bare = || {
        let time = time(EVENTS, |n| _ = push(&ring, plain(n)));
        while ring.pop().is_some() {}
        time
    };
    let builder = Builder::<Plain>::new().capacity(2 * EVENTS + 2).flush(NEVER);
    match worker {
        Worker::Asleep => {
            let collector = builder.start()?;
            let ours = || {
                let time = time(EVENTS, |n| _ = black_box(collector.collect(plain(n))));
                // It cannot fail: the collector runs.
                let _ = collector.flush();
                while collector.state() != State::Asleep {
                    std::thread::yield_now();
                }
                time
            };
            Ok(duel(rounds, EVENTS, ours, bare))
        }
        Worker::Busy => {
            // A collector for each round, because a worker that hangs drains nothing.
            let ours = || {
                let builder = Builder::new().capacity(2 * EVENTS + 2).critical_capacity(1).low_capacity(1);
                let (collector, go_on) = stalled(builder, PLAIN);
                // Its pages are touched before they are timed.
                collector.collect_batch((0..EVENTS).map(|_| PLAIN));
                let time = time(EVENTS, |n| _ = black_box(collector.collect(plain(n))));
                drop(go_on);
                time
            };
            let bare = || {
                let ring = ArrayQueue::new(2 * EVENTS + 2);
                (0..EVENTS).for_each(|_| _ = push(&ring, PLAIN));
                time(EVENTS, |n| _ = push(&ring, plain(n)))
            };
            Ok(duel(rounds, EVENTS, ours, bare))
        }
    }
}

/// Returns a collector whose ring is full and whose worker hangs until the sender is dropped.
fn full_and_stalled(shards: usize) -> (Collector<Plain>, Sender<()>) {
    let (collector, go_on) = stalled(Builder::new().shards(shards), PLAIN);
    for _ in 0..collector.config().capacity {
        collector.collect(PLAIN);
    }
    (collector, go_on)
}

fn full(rounds: usize) -> Outcome<Duel> {
    const EVENTS: usize = 100_000;
    let (collector, go_on) = full_and_stalled(1);
    let ring = ArrayQueue::new(collector.config().capacity);
    while ring.push(PLAIN).is_ok() {}
    let duel = duel(
        rounds,
        EVENTS,
        || time(EVENTS, |n| _ = black_box(collector.collect(plain(n)))),
        || time(EVENTS, |n| _ = push(&ring, plain(n))),
    );
    drop(go_on);
    Ok(duel)
}

fn stamped<E, M: FnMut(u64) -> E>(rounds: usize, maker: impl FnOnce(quanta::Clock) -> M) -> Outcome<Duel> {
    const EVENTS: usize = 8_000;
    let collector = Collector::builder().capacity(2 * EVENTS + 2).flush(NEVER).start()?;
    let ring = ArrayQueue::new(2 * EVENTS + 2);
    let ours = || {
        let time = time(EVENTS, |step| {
            black_box(collector.collect(Record::scalar("train.loss", black_box(0.5)).with_step(step)));
        });
        let _ = collector.flush();
        time
    };
    let mut make = maker(quanta::Clock::new());
    let bare = || {
        // Looked at in its place: moved, a record that was evicted, or none, costs another 25 ns.
        let time = time(EVENTS, |step| {
            let evicted = push(&ring, make(step));
            black_box(evicted.is_some());
        });
        while ring.pop().is_some() {}
        time
    };
    Ok(duel(rounds, EVENTS, ours, bare))
}

/// Measures two threads that push at once; returns the mean of their times. A sample in which they did not run side by
/// side for most of it says nothing about two producers, and is taken again.
fn both(events: usize, push: impl Fn(u64) + Sync, mut between: impl FnMut()) -> Duration {
    const TRIES: usize = 50;
    let mut mean = Duration::MAX;
    for _ in 0..TRIES {
        between();
        let ready = AtomicU64::new(0);
        let one = || {
            ready.fetch_add(1, Ordering::SeqCst);
            while ready.load(Ordering::SeqCst) < 2 {
                std::hint::spin_loop();
            }
            let begun = Instant::now();
            (begun, time(events, &push))
        };
        let (mine, theirs) = std::thread::scope(|scope| {
            // Both are new, so that they come one after the other in the choice of a ring.
            let (mine, theirs) = (scope.spawn(one), scope.spawn(one));
            let failed = (Instant::now(), Duration::MAX / 4);
            (mine.join().unwrap_or(failed), theirs.join().unwrap_or(failed))
        });
        let begun = mine.0.max(theirs.0);
        let ended = (mine.0 + mine.1).min(theirs.0 + theirs.1);
        mean = (mine.1 + theirs.1) / 2;
        if ended.saturating_duration_since(begun) >= mine.1.max(theirs.1).mul_f64(0.8) {
            break;
        }
    }
    mean
}

fn two_producers_full(rounds: usize, shards: usize) -> Outcome<Duel> {
    const EVENTS: usize = 200_000;
    let (collector, go_on) = full_and_stalled(shards);
    let ring = ArrayQueue::new(collector.config().capacity);
    while ring.push(PLAIN).is_ok() {}
    let duel = duel(
        rounds.div_ceil(2),
        EVENTS,
        || both(EVENTS, |n| _ = black_box(collector.collect(plain(n))), || ()),
        || both(EVENTS, |n| _ = push(&ring, plain(n)), || ()),
    );
    drop(go_on);
    Ok(duel)
}

fn two_producers_asleep(rounds: usize, shards: usize) -> Outcome<Duel> {
    const EVENTS: usize = 100_000;
    // Less than half a lane together, so that a worker that sleeps is not called.
    let capacity = 4 * EVENTS + 4;
    let collector = Builder::<Plain>::new().capacity(capacity).shards(shards).flush(NEVER).start()?;
    let ring = ArrayQueue::new(capacity);
    let ours = || {
        both(
            EVENTS,
            |n| _ = black_box(collector.collect(plain(n))),
            || {
                let _ = collector.flush();
                while collector.state() != State::Asleep {
                    std::thread::yield_now();
                }
            },
        )
    };
    let bare = || both(EVENTS, |n| _ = push(&ring, plain(n)), || while ring.pop().is_some() {});
    Ok(duel(rounds.div_ceil(2), EVENTS, ours, bare))
}

/// A burst that no queue drops any of, then a pause until the other side has seen all of it.
const BURST: usize = 8_000;

/// Counts what reaches it.
#[derive(Debug, Clone, Default)]
struct Counter(Arc<AtomicU64>);

impl Counter {
    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn await_total(&self, events: u64) {
        while self.get() < events {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}

impl Write for Counter {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl opentelemetry_sdk::logs::LogExporter for Counter {
    async fn export(
        &self,
        batch: opentelemetry_sdk::logs::LogBatch<'_>,
    ) -> opentelemetry_sdk::error::OTelSdkResult {
        self.0.fetch_add(batch.iter().count() as u64, Ordering::Relaxed);
        Ok(())
    }
}

/// Times ten calls, then 200 microseconds of other work, as in a fast training loop; the calls alone are timed.
fn steps(events: usize, mut push: impl FnMut(u64)) -> Duration {
    let mut spent = Duration::ZERO;
    for step in 0..events as u64 / 10 {
        spent += time(10, |n| push(10 * step + n));
        let work = Instant::now();
        while work.elapsed() < Duration::from_micros(200) {
            std::hint::spin_loop();
        }
    }
    spent
}

/// Ours with its default settings, under the same burst.
fn burst<E: Event>(
    events: usize,
    make: impl Fn(u64) -> E,
    timer: impl Fn(usize, &mut dyn FnMut(u64)) -> Duration,
) -> Outcome<impl FnMut() -> Duration> {
    let collector = Builder::<E>::new().sink(null()).start()?;
    Ok(move || {
        let time = timer(events, &mut |n| _ = black_box(collector.collect(make(n))));
        let _ = collector.flush();
        time
    })
}

/// Measures the loop that users have: its worker would be woken once in a hundred calls, did it not nap.
fn steady(rounds: usize) -> Outcome<Duel> {
    const EVENTS: usize = 5_000;
    let ring = ArrayQueue::new(10_000);
    let theirs = || {
        let time = steps(EVENTS, |number| _ = black_box(push(&ring, plain(number))));
        while ring.pop().is_some() {}
        time
    };
    Ok(duel(rounds, EVENTS, burst(EVENTS, plain, |number, push| steps(number, push))?, theirs))
}

fn tracing_appender(
    rounds: usize,
    events: usize,
    timer: impl Fn(usize, &mut dyn FnMut(u64)) -> Duration + Copy,
) -> Outcome<Duel> {
    let counter = Counter::default();
    let (mut writer, _guard) = tracing_appender::non_blocking(counter.clone());
    let line = [b'x'; 64];
    let theirs = || {
        let all = counter.get() + events as u64;
        let time = timer(events, &mut |_| _ = black_box(writer.write_all(black_box(&line))));
        counter.await_total(all);
        time
    };
    Ok(duel(rounds, events, burst(events, plain, timer)?, theirs))
}

fn open_telemetry(rounds: usize) -> Outcome<Duel> {
    use opentelemetry_sdk::logs::{BatchConfigBuilder, BatchLogProcessor, SdkLoggerProvider};
    let counter = Counter::default();
    let config = BatchConfigBuilder::default().with_max_queue_size(2 * BURST).build();
    let processor = BatchLogProcessor::builder(counter.clone()).with_batch_config(config).build();
    let provider = SdkLoggerProvider::builder().with_log_processor(processor).build();
    let logger = provider.logger("budget");
    let theirs = || {
        let all = counter.get() + BURST as u64;
        let time = time(BURST, |step| {
            let mut record = logger.create_log_record();
            record.add_attribute("loss", black_box(0.5));
            record.add_attribute("step", step as i64);
            logger.emit(record);
        });
        let _ = provider.force_flush();
        counter.await_total(all);
        time
    };
    let ours = burst(
        BURST,
        |step| Record::scalar("train.loss", black_box(0.5)).with_step(step),
        |n, push| time(n, push),
    )?;
    Ok(duel(rounds, BURST, ours, theirs))
}

/// Times the worker, without the two wake-ups of the flush that starts it.
fn through_the_worker(rounds: usize, batch: usize) -> Outcome<Duel> {
    through_the_worker_of(Builder::new(), rounds, batch)
}

fn through_the_worker_of(builder: Builder<Plain>, rounds: usize, batch: usize) -> Outcome<Duel> {
    const EVENTS: usize = 100_000;
    let watch = Stopwatch::new();
    let builder = builder.capacity(EVENTS).batch_size(batch).flush(FlushStrategy::Manual);
    let collector = builder.sink(watch.clone()).start()?;
    let ring = ArrayQueue::new(EVENTS);
    let ours = || {
        collector.collect_batch((0..EVENTS as u64).map(plain));
        let _ = collector.flush();
        watch.read()
    };
    let theirs = || {
        (0..EVENTS as u64).for_each(|n| _ = push(&ring, plain(n)));
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
    Ok(duel(rounds.div_ceil(2), EVENTS, ours, theirs))
}

fn json_lines(rounds: usize) -> Outcome<Duel> {
    const EVENTS: usize = 20_000;
    let folder = tempfile::tempdir()?;
    let record = |step| Record::scalar("train.loss", 0.123_456_789).with_step(step);
    let sink = JsonLinesSink::create(folder.path().join("ours.jsonl"))?;
    let collector = Collector::builder().capacity(EVENTS).flush(FlushStrategy::Manual).sink(sink).start()?;
    let ours = || {
        collector.collect_batch((0..EVENTS as u64).map(record));
        let begun = Instant::now();
        let _ = collector.flush();
        begun.elapsed()
    };
    let mut file = std::fs::File::create(folder.path().join("theirs.jsonl"))?;
    let mut buffer = Vec::new();
    let mut theirs = || -> std::io::Result<Duration> {
        let records: Vec<Record> = (0..EVENTS as u64).map(record).collect();
        let begun = Instant::now();
        for batch in records.chunks(100) {
            buffer.clear();
            for record in batch {
                serde_json::to_writer(&mut buffer, record)?;
                buffer.push(b'\n');
            }
            file.write_all(&buffer)?;
        }
        Ok(begun.elapsed())
    };
    theirs()?;
    Ok(duel(rounds.div_ceil(4), EVENTS, ours, || theirs().unwrap_or(Duration::MAX)))
}

/// Encodes so many scalars a step, by the encoder of today and as it was, from the same tags; nothing is written.
fn scalars(rounds: usize, tags: u64) -> Outcome<Duel> {
    const EVENTS: u64 = 20_000;
    let names: Vec<String> = (0..tags).map(|tag| format!("train/layer_{tag}/gradient_norm")).collect();
    let point =
        |n: u64| (n as f64 / 1e3, (n / tags) as i64, &*names[(n % tags) as usize], 1.0 / (n + 1) as f32);
    let (mut encoder, mut former) = (Encoder::new(), FormerEncoder::default());
    for n in 0..EVENTS {
        let (time, step, tag, scalar) = point(n);
        encoder.add(time, step, tag, Summary::Scalar(scalar))?;
        former.add(time, step, tag, scalar).map_err(|refused| format!("{refused:?}"))?;
    }
    if encoder.bytes() != former.bytes() {
        return Err("both must write the same bytes".into());
    }
    let mut next = EVENTS;
    let ours = || {
        let begun = Instant::now();
        for n in next..next + EVENTS {
            let (time, step, tag, scalar) = point(n);
            // It cannot fail: the steps go on.
            let _ = encoder.add(time, step, black_box(tag), Summary::Scalar(scalar));
            if n % 100 == 99 {
                black_box(encoder.bytes());
                encoder.clear();
            }
        }
        next += EVENTS;
        begun.elapsed()
    };
    let mut next = EVENTS;
    let theirs = || {
        let begun = Instant::now();
        for n in next..next + EVENTS {
            let (time, step, tag, scalar) = point(n);
            let _ = former.add(time, step, black_box(tag), scalar);
            if n % 100 == 99 {
                black_box(former.bytes());
                former.clear();
            }
        }
        next += EVENTS;
        begun.elapsed()
    };
    Ok(duel(rounds, EVENTS as usize, ours, theirs))
}

fn tensorboard(rounds: usize) -> Outcome<Duel> {
    const EVENTS: u64 = 20_000;
    const NAMES: [&str; 4] = ["train.loss", "train.accuracy", "train.gradient_norm", "train.rate"];
    let folder = tempfile::tempdir()?;
    let sink = TensorBoardSink::create(folder.path().join("ours"))?;
    let collector =
        Collector::builder().capacity(EVENTS as usize).flush(FlushStrategy::Manual).sink(sink).start()?;
    let record = |n: u64| Record::scalar(NAMES[n as usize % 4], 0.123_456_789).with_step(n / 4);
    let mut next = 0;
    let ours = || {
        collector.collect_batch((next..next + EVENTS).map(record));
        next += EVENTS;
        let begun = Instant::now();
        let _ = collector.flush();
        begun.elapsed()
    };
    let mut file = std::fs::File::create(folder.path().join("theirs"))?;
    let mut encoder = FormerEncoder::default();
    let mut next = 0;
    // From the same records, which lie in memory here.
    let mut theirs = || -> Outcome<Duration> {
        let records: Vec<Record> = (next..next + EVENTS).map(record).collect();
        next += EVENTS;
        let begun = Instant::now();
        for batch in records.chunks(100) {
            for record in batch {
                let step = record.step().map_or(0, |step| step as i64);
                let value = record.value().as_f64().unwrap_or(f64::NAN) as f32;
                let time = record.unix_nanos() as f64 / 1e9;
                let added = encoder.add(time, step, &record.name().replace('.', "/"), value);
                added.map_err(|refused| format!("{refused:?}"))?;
            }
            file.write_all(encoder.bytes())?;
            encoder.clear();
        }
        Ok(begun.elapsed())
    };
    theirs()?;
    Ok(duel(rounds, EVENTS as usize, ours, || theirs().unwrap_or(Duration::MAX)))
}

/// Measures 20,000 records, a transaction each time, into tables of the same form with the same indices.
#[cfg(feature = "sqlite")]
fn sqlite(rounds: usize) -> Outcome<Duel> {
    const EVENTS: u64 = 20_000;
    let folder = tempfile::tempdir()?;
    let record = |step| Record::scalar("train.loss", 0.123_456_789).with_step(step);
    let sink = forebay::sink::SqliteSink::create(folder.path().join("ours.db"))?;
    let builder = Collector::builder().capacity(EVENTS as usize).batch_size(EVENTS as usize);
    let collector = builder.flush(FlushStrategy::Manual).sink(sink).start()?;
    let mut next = 0;
    let ours = || {
        collector.collect_batch((next..next + EVENTS).map(record));
        next += EVENTS;
        let begun = Instant::now();
        let _ = collector.flush();
        begun.elapsed()
    };
    let theirs = support::BareDatabase::create(&folder.path().join("theirs.db"));
    let mut database = theirs.map_err(|error| error.to_string())?;
    let mut next = 0;
    let mut theirs = || -> Outcome<Duration> {
        let records: Vec<Record> = (next..next + EVENTS).map(record).collect();
        next += EVENTS;
        let begun = Instant::now();
        database.insert(&records)?;
        Ok(begun.elapsed())
    };
    theirs()?;
    Ok(duel(rounds.div_ceil(4), EVENTS as usize, ours, || theirs().unwrap_or(Duration::MAX)))
}

#[cfg(feature = "sqlite")]
fn query(table: &Table) -> Outcome<()> {
    use forebay::sink::Sink;
    use forebay_history::{EventQuery, History, SqliteHistory};
    let what = "a query of 1,000,000 events by name and time, in ms";
    if !table.wants(what) || !table.is_first {
        return Ok(());
    }
    let events = if table.is_test { 1_000 } else { 1_000_000 };
    const NAMES: [&str; 4] = ["train.loss", "train.accuracy", "train.gradient_norm", "train.rate"];
    let folder = tempfile::tempdir()?;
    let mut sink = forebay::sink::SqliteSink::create(folder.path().join("events.db"))?;
    let second = |n: u64| std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + n / 100);
    let record = |n: u64| Record::scalar(NAMES[n as usize % 4], 0.5).with_step(n / 4).with_time(second(n));
    for begin in (0..events).step_by(1_000) {
        sink.write_batch(&forebay::Batch::from_events((begin..begin + 1_000).map(record).collect()))?;
    }
    let history = SqliteHistory::open(folder.path().join("events.db"))?;
    // Ten seconds in the middle: 250 of a million.
    let middle = second(events / 2);
    let query = EventQuery::new().name("train.loss").since(middle).before(middle + Duration::from_secs(10));
    let mut times = Vec::new();
    for _ in 0..5 {
        let begun = Instant::now();
        let found = history.query(&query)?.len();
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        if !table.is_test && found != 250 {
            return Err(format!("{found} events were found").into());
        }
    }
    table.line(what, 0.0, 0.0, duel::median(times), Budget::AtMost(50.0));
    Ok(())
}

fn stop_with_pending(table: &Table) -> Outcome<()> {
    let what = "stop with 10,000 pending, in ms";
    if !table.wants(what) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let mut times = Vec::new();
    for round in 0..table.rounds.div_ceil(5) {
        let sink = JsonLinesSink::create(folder.path().join(format!("{round}.jsonl")))?;
        let collector = Collector::builder().flush(FlushStrategy::Manual).sink(sink).start()?;
        collector.collect_batch((0..10_000).map(|step| Record::scalar("train.loss", 0.5).with_step(step)));
        let begun = Instant::now();
        let report = collector.stop()?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        report.stats.check_law(10_000)?;
    }
    table.line(what, 0.0, 0.0, duel::median(times), Budget::AtMost(20.0));
    Ok(())
}

fn stop_with_a_hung_sink(table: &Table) -> Outcome<()> {
    let what = "stop with a hung sink, ms past its deadline";
    if !table.wants(what) {
        return Ok(());
    }
    let deadline = Duration::from_millis(50);
    let mut times = Vec::new();
    for _ in 0..table.rounds.div_ceil(10) {
        let (collector, go_on) = full_and_stalled(1);
        let begun = Instant::now();
        let Err(StopError::TimedOut { .. }) = collector.stop_timeout(deadline) else {
            return Err("the sink did not hang".into());
        };
        times.push((begun.elapsed() - deadline).as_secs_f64() * 1e3);
        drop(go_on);
    }
    table.line(what, 0.0, 0.0, duel::median(times), Budget::AtMost(50.0));
    Ok(())
}

fn idle(table: &Table) -> Outcome<()> {
    let what = "idle for 10 s, ms of processor time";
    if !table.wants(what) {
        return Ok(());
    }
    let collector = Collector::builder().start()?;
    collector.collect(Record::new("last event"));
    let _ = collector.flush()?;
    let Some(before) = processor_time() else { return Ok(()) };
    std::thread::sleep(if table.is_test { Duration::from_millis(10) } else { Duration::from_secs(10) });
    let spent = processor_time().unwrap_or(before).saturating_sub(before);
    table.line(what, 0.0, 0.0, spent.as_secs_f64() * 1e3, Budget::AtMost(10.0));
    Ok(())
}

/// Returns the processor time that this process has used so far; `None` where the system does not say (only Linux does).
fn processor_time() -> Option<Duration> {
    let mut nanos = 0;
    for task in std::fs::read_dir("/proc/self/task").ok()? {
        let schedstat = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        nanos += schedstat.split(' ').next()?.parse::<u64>().ok()?;
    }
    Some(Duration::from_nanos(nanos))
}
