//! Every budget of speed, each as a ratio to the bare part or the rival, measured in turn in one run.
//!
//! `cargo bench --bench budget` prints the table and exits with 1 if a budget is missed; with `-- --test` it only
//! runs through. A word after `--` measures the lines that contain it. Machines are noisy: three runs of four on a
//! quiet one should hold.
#![allow(clippy::print_stdout, reason = "its output is for a person")]

mod duel;

use std::error::Error;
use std::hint::black_box;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use forebay::sink::{JsonLinesSink, SinkError, from_fn};
use forebay::{Batch, Builder, Collector, Event, FlushStrategy, Record, State, StopError};
use opentelemetry::logs::{LogRecord, Logger, LoggerProvider};

use duel::{Budget, Duel, duel};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// 56 bytes, like a record, and plain data.
#[derive(Clone, Copy)]
struct Plain(#[allow(dead_code, reason = "it is only carried")] [u64; 7]);

impl Event for Plain {}

const PLAIN: Plain = Plain([1; 7]);

/// As a program would make one: from values in registers, not from a constant.
fn plain(number: u64) -> Plain {
    Plain([black_box(number), 1, 2, number, 3, 4, 5])
}

const NEVER: FlushStrategy = FlushStrategy::Time { interval: Duration::from_secs(3600) };

struct Table {
    rounds: usize,
    is_test: bool,
    only: Option<String>,
    missed: usize,
}

impl Table {
    fn wants(&self, what: &str) -> bool {
        self.only.as_ref().is_none_or(|only| what.contains(only.as_str()))
    }

    fn line(&mut self, what: &str, ours: String, theirs: String, value: f64, budget: Budget) {
        let verdict = if budget.holds(value) { "holds" } else { "MISSED" };
        self.missed += usize::from(!budget.holds(value));
        println!("{what:<58} {ours:>11} {theirs:>11} {value:>7.2}  {:<13} {verdict}", budget.to_string());
    }

    /// One line of two samplers. A budget that says "at least" means throughput: theirs by ours in time.
    fn ratio(
        &mut self,
        what: &str,
        budget: Budget,
        measure: impl FnOnce(usize) -> Outcome<Duel>,
    ) -> Outcome<()> {
        if self.wants(what) {
            let duel = measure(self.rounds)?;
            let value = match budget {
                Budget::AtMost(_) => duel.ratio,
                Budget::AtLeast(_) => 1.0 / duel.ratio,
            };
            self.line(what, format!("{:.1} ns", duel.ours), format!("{:.1} ns", duel.theirs), value, budget);
        }
        Ok(())
    }
}

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let is_test = args.iter().any(|arg| arg == "--test");
    let only = args.iter().find(|arg| !arg.starts_with("--")).cloned();
    let rounds = if is_test { 1 } else { 101 };
    let mut table = Table { rounds, is_test, only, missed: 0 };
    println!(
        "{:<58} {:>11} {:>11} {:>7}  {:<13}",
        "an event, medians", "forebay", "other", "ratio", "budget"
    );

    table.ratio("collect, worker asleep / bare push", Budget::AtMost(1.3), |rounds| {
        not_full(rounds, Worker::Asleep)
    })?;
    table.ratio("collect, worker awake / bare push", Budget::AtMost(1.3), |rounds| {
        not_full(rounds, Worker::Busy)
    })?;
    table.ratio("collect into a full ring, worker stalled / bare push", Budget::AtMost(1.3), full)?;
    table.ratio("collect of a stamped scalar / bare push and clock", Budget::AtMost(1.3), stamped)?;
    table.ratio("two producers, ring full / bare push of two", Budget::AtMost(1.3), two_producers_full)?;
    table.ratio(
        "two producers, worker asleep / bare push of two",
        Budget::AtMost(1.3),
        two_producers_asleep,
    )?;
    table.ratio("collect / tracing-appender, 10 lines a step", Budget::AtLeast(3.0), |rounds| {
        tracing_appender(rounds.div_ceil(2), 1_000, |n, push| steps(n, push))
    })?;
    // The ring alone is half of what a line costs there: no budget of ours, but nothing to hide either.
    table.ratio("collect / tracing-appender, 8,000 lines in a row", Budget::AtLeast(2.0), |rounds| {
        tracing_appender(rounds, BURST, |n, push| time(n, push))
    })?;
    table.ratio("collect of a scalar / OpenTelemetry, 2 attributes", Budget::AtLeast(8.0), open_telemetry)?;
    table.ratio("through the worker, batches of 512 / bare pop loop", Budget::AtLeast(0.8), |rounds| {
        through_the_worker(rounds, 512)
    })?;
    table.ratio("through the worker, batches of 100 / bare pop loop", Budget::AtLeast(0.8), |rounds| {
        through_the_worker(rounds, 100)
    })?;
    table.ratio("JSON Lines / bare loop of the encoder", Budget::AtLeast(0.7), json_lines)?;
    stop_with_pending(&mut table)?;
    stop_with_a_hung_sink(&mut table)?;
    idle(&mut table)?;

    if table.missed > 0 && !table.is_test {
        println!("{} missed", table.missed);
        std::process::exit(1);
    }
    Ok(())
}

/// A sink in which the worker stays until the sender is dropped.
fn hung<E: Event>(arrived: std::sync::mpsc::Sender<()>, go_on: Receiver<()>) -> impl forebay::sink::Sink<E> {
    let go_on = Mutex::new(go_on);
    from_fn("hung", move |_: &Batch<E>| {
        let _ = arrived.send(());
        if let Ok(go_on) = go_on.lock() {
            let _ = go_on.recv();
        }
        Ok(())
    })
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
        let time = time(EVENTS, |n| _ = black_box(ring.force_push(plain(n))));
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
                let (arrived, arrivals) = channel();
                let (go_on, wait) = channel();
                let builder =
                    Builder::<Plain>::new().capacity(2 * EVENTS + 2).critical_capacity(1).low_capacity(1);
                let builder = builder.flush(FlushStrategy::Size { events: 1 });
                let Ok(collector) = builder.sink(hung(arrived, wait)).start() else { return Duration::MAX };
                collector.collect(PLAIN);
                let _ = arrivals.recv();
                // Its pages are touched before they are timed.
                collector.collect_batch((0..EVENTS).map(|_| PLAIN));
                let time = time(EVENTS, |n| _ = black_box(collector.collect(plain(n))));
                drop(go_on);
                time
            };
            let bare = || {
                let ring = ArrayQueue::new(2 * EVENTS + 2);
                (0..EVENTS).for_each(|_| _ = ring.force_push(PLAIN));
                time(EVENTS, |n| _ = black_box(ring.force_push(plain(n))))
            };
            Ok(duel(rounds, EVENTS, ours, bare))
        }
    }
}

/// A collector whose ring is full and whose worker hangs until the sender is dropped.
fn full_and_stalled<E: Event + Clone>(event: E) -> Outcome<(Collector<E>, std::sync::mpsc::Sender<()>)> {
    let (arrived, arrivals) = channel();
    let (go_on, wait) = channel();
    let builder = Builder::<E>::new().flush(FlushStrategy::Size { events: 1 }).sink(hung(arrived, wait));
    let collector = builder.start()?;
    collector.collect(event.clone());
    arrivals.recv()?;
    for _ in 0..collector.config().capacity {
        collector.collect(event.clone());
    }
    Ok((collector, go_on))
}

fn full(rounds: usize) -> Outcome<Duel> {
    const EVENTS: usize = 100_000;
    let (collector, go_on) = full_and_stalled(PLAIN)?;
    let ring = ArrayQueue::new(collector.config().capacity);
    while ring.push(PLAIN).is_ok() {}
    let duel = duel(
        rounds,
        EVENTS,
        || time(EVENTS, |n| _ = black_box(collector.collect(plain(n)))),
        || time(EVENTS, |n| _ = black_box(ring.force_push(plain(n)))),
    );
    drop(go_on);
    Ok(duel)
}

fn stamped(rounds: usize) -> Outcome<Duel> {
    const EVENTS: usize = 8_000;
    let collector = Collector::builder().capacity(2 * EVENTS + 2).flush(NEVER).start()?;
    let ring = ArrayQueue::new(2 * EVENTS + 2);
    let clock = quanta::Clock::new();
    let origin = clock.raw();
    let ours = || {
        let time = time(EVENTS, |step| {
            black_box(collector.collect(Record::scalar("train.loss", black_box(0.5)).step(step)));
        });
        let _ = collector.flush();
        time
    };
    let bare = || {
        let time = time(EVENTS, |step| {
            let now = clock.delta_as_nanos(origin, clock.raw());
            black_box(ring.force_push(Plain([now, black_box(0.5_f64).to_bits(), step, 1, 2, 3, 4])));
        });
        while ring.pop().is_some() {}
        time
    };
    Ok(duel(rounds, EVENTS, ours, bare))
}

/// Two threads push at once; the mean of their times. A sample in which they did not run side by side for most of
/// it says nothing about two producers, and is taken again.
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
            let other = scope.spawn(one);
            let mine = one();
            (mine, other.join().unwrap_or(mine))
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

fn two_producers_full(rounds: usize) -> Outcome<Duel> {
    const EVENTS: usize = 200_000;
    let (collector, go_on) = full_and_stalled(PLAIN)?;
    let ring = ArrayQueue::new(collector.config().capacity);
    while ring.push(PLAIN).is_ok() {}
    let duel = duel(
        rounds.div_ceil(2),
        EVENTS,
        || both(EVENTS, |n| _ = black_box(collector.collect(plain(n))), || ()),
        || both(EVENTS, |n| _ = black_box(ring.force_push(plain(n))), || ()),
    );
    drop(go_on);
    Ok(duel)
}

fn two_producers_asleep(rounds: usize) -> Outcome<Duel> {
    const EVENTS: usize = 100_000;
    // Less than half a lane together, so that a worker that sleeps is not called.
    let capacity = 4 * EVENTS + 4;
    let collector = Builder::<Plain>::new().capacity(capacity).flush(NEVER).start()?;
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
    let bare =
        || both(EVENTS, |n| _ = black_box(ring.force_push(plain(n))), || while ring.pop().is_some() {});
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

fn null<E: Event>() -> impl forebay::sink::Sink<E> {
    from_fn("null", |_: &Batch<E>| Ok(()))
}

/// Ten calls, then 200 microseconds of other work, as in a fast training loop; the calls alone are timed.
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
        |step| Record::scalar("train.loss", black_box(0.5)).step(step),
        |n, push| time(n, push),
    )?;
    Ok(duel(rounds, BURST, ours, theirs))
}

/// Writes down when its first batch came and when it was flushed.
struct Stopwatch(Arc<Mutex<(Option<Instant>, Duration)>>);

impl forebay::sink::Sink<Plain> for Stopwatch {
    fn name(&self) -> &str {
        "stopwatch"
    }

    fn write_batch(&mut self, _: &Batch<Plain>) -> Result<(), SinkError> {
        if let Ok(mut watch) = self.0.lock() {
            watch.0.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        if let Ok(mut watch) = self.0.lock() {
            watch.1 = watch.0.take().map_or(Duration::MAX, |begun| begun.elapsed());
        }
        Ok(())
    }
}

/// Timed on the worker, without the two wake-ups of the flush that starts it.
fn through_the_worker(rounds: usize, batch: usize) -> Outcome<Duel> {
    const EVENTS: usize = 100_000;
    let watch = Arc::new(Mutex::new((None, Duration::ZERO)));
    let builder = Builder::<Plain>::new().capacity(EVENTS).batch_size(batch).flush(FlushStrategy::Manual);
    let collector = builder.sink(Stopwatch(Arc::clone(&watch))).start()?;
    let ring = ArrayQueue::new(EVENTS);
    let ours = || {
        collector.collect_batch((0..EVENTS as u64).map(plain));
        let _ = collector.flush();
        watch.lock().map_or(Duration::MAX, |watch| watch.1)
    };
    let theirs = || {
        (0..EVENTS as u64).for_each(|n| _ = ring.force_push(plain(n)));
        let begun = Instant::now();
        while let Some(event) = ring.pop() {
            black_box(event);
        }
        begun.elapsed()
    };
    Ok(duel(rounds.div_ceil(2), EVENTS, ours, theirs))
}

fn json_lines(rounds: usize) -> Outcome<Duel> {
    const EVENTS: usize = 20_000;
    let folder = tempfile::tempdir()?;
    let record = |step| Record::scalar("train.loss", 0.123_456_789).step(step);
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

fn stop_with_pending(table: &mut Table) -> Outcome<()> {
    let what = "stop with 10,000 pending, in ms";
    if !table.wants(what) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let mut times = Vec::new();
    for round in 0..table.rounds.div_ceil(5) {
        let sink = JsonLinesSink::create(folder.path().join(format!("{round}.jsonl")))?;
        let collector = Collector::builder().flush(FlushStrategy::Manual).sink(sink).start()?;
        collector.collect_batch((0..10_000).map(|step| Record::scalar("train.loss", 0.5).step(step)));
        let begun = Instant::now();
        let report = collector.stop()?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        report.stats.check_law(10_000)?;
    }
    table.line(what, String::new(), String::new(), duel::median(times), Budget::AtMost(20.0));
    Ok(())
}

fn stop_with_a_hung_sink(table: &mut Table) -> Outcome<()> {
    let what = "stop with a hung sink, ms past its deadline";
    if !table.wants(what) {
        return Ok(());
    }
    let deadline = Duration::from_millis(50);
    let mut times = Vec::new();
    for _ in 0..table.rounds.div_ceil(10) {
        let (collector, go_on) = full_and_stalled(PLAIN)?;
        let begun = Instant::now();
        let Err(StopError::TimedOut { .. }) = collector.stop_timeout(deadline) else {
            return Err("the sink did not hang".into());
        };
        times.push((begun.elapsed() - deadline).as_secs_f64() * 1e3);
        drop(go_on);
    }
    table.line(what, String::new(), String::new(), duel::median(times), Budget::AtMost(50.0));
    Ok(())
}

fn idle(table: &mut Table) -> Outcome<()> {
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
    table.line(what, String::new(), String::new(), spent.as_secs_f64() * 1e3, Budget::AtMost(10.0));
    Ok(())
}

/// What this process has used so far; `None` where the system does not say (only Linux does).
fn processor_time() -> Option<Duration> {
    let mut nanos = 0;
    for task in std::fs::read_dir("/proc/self/task").ok()? {
        let schedstat = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        nanos += schedstat.split(' ').next()?.parse::<u64>().ok()?;
    }
    Some(Duration::from_nanos(nanos))
}
