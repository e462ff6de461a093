//! Times of single calls, where nobody publishes them: a queue that overflows, a reader that hangs, one processor
//! for both sides, 64 producers on a few processors.
//!
//! It belongs to the package of the peers:
//!
//! ```text
//! cargo run --release --manifest-path benches/peers/Cargo.toml --bin latency            # all of it
//! cargo run --release --manifest-path benches/peers/Cargo.toml --bin latency -- --test  # once, to see that it runs
//! ```
//!
//! Every call is timed by itself with the time-stamp counter. What two readings of it cost with nothing between
//! (their median) is taken off every figure, and printed. All queues have the same room; those that can choose drop what
//! does not fit, as a training loop would want it. Events that are dropped or evicted are part of what is timed.

#[path = "peers/src/loss.rs"]
mod loss;

use std::error::Error;
use std::hint::black_box;
use std::io::Write;
use std::process::Command;
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use forebay::config::Lanes;
use forebay::sink::from_fn;
use forebay::{Batch, Builder, Collector, Event, Record};
use hdrhistogram::Histogram;
use loss::Loss;

type Outcome<T> = Result<T, Box<dyn Error>>;

const CAPACITY: usize = 16_384;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Overflowing,
    Stalled,
    OneProcessor,
    ManyProducers,
}

impl Case {
    const ALL: [Self; 4] = [Self::Overflowing, Self::Stalled, Self::OneProcessor, Self::ManyProducers];

    fn title(self) -> &'static str {
        match self {
            Self::Overflowing => "the reader takes a microsecond an event, the queue overflows",
            Self::Stalled => "the reader hangs, the queue is full",
            Self::OneProcessor => "producer and reader share one processor, ten calls every 200 microseconds",
            Self::ManyProducers => "64 producers at full speed",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Overflowing => "overflowing",
            Self::Stalled => "stalled",
            Self::OneProcessor => "one-processor",
            Self::ManyProducers => "many-producers",
        }
    }

    fn producers(self) -> usize {
        if self == Self::ManyProducers { 64 } else { 1 }
    }
}

/// Reading side of a queue.
struct Reader {
    case: Case,
    is_released: Mutex<bool>,
    released: Condvar,
}

impl Reader {
    fn read(&self, events: usize) {
        match self.case {
            Case::Overflowing => {
                let begun = Instant::now();
                while begun.elapsed() < Duration::from_micros(events as u64) {
                    std::hint::spin_loop();
                }
            }
            Case::Stalled => {
                let Ok(mut is_released) = self.is_released.lock() else { return };
                while !*is_released {
                    match self.released.wait(is_released) {
                        Ok(again) => is_released = again,
                        Err(_) => return,
                    }
                }
            }
            Case::OneProcessor | Case::ManyProducers => {}
        }
    }

    fn release(&self) {
        if let Ok(mut is_released) = self.is_released.lock() {
            *is_released = true;
        }
        self.released.notify_all();
    }
}

/// Call of one of the compared collectors.
enum Call {
    /// One for all producers.
    Shared(Box<dyn Fn(u64) + Send + Sync>),
    /// Makes one for each producer.
    Own(Box<dyn Fn() -> Box<dyn Fn(u64)> + Send + Sync>),
}

impl Call {
    /// Runs `run` with the call of this thread.
    fn with<T>(&self, run: impl FnOnce(&dyn Fn(u64)) -> T) -> T {
        match self {
            Self::Shared(call) => run(&**call),
            Self::Own(make) => run(&*make()),
        }
    }
}

fn shared(call: impl Fn(u64) + Send + Sync + 'static) -> Call {
    Call::Shared(Box::new(call))
}

type Make = fn(&Arc<Reader>) -> Outcome<Call>;

const SUBJECTS: [(&str, Make); 17] = [
    ("bare ring", ring),
    ("forebay", |reader| forebay_plain(reader, 1)),
    ("forebay, 64 rings", |reader| forebay_plain(reader, 64)),
    ("forebay, lanes", forebay_lanes),
    ("forebay, local", forebay_local),
    ("forebay, record", forebay_record),
    ("crossbeam-channel", crossbeam),
    ("std mpsc", std_mpsc),
    ("flume", flume),
    ("kanal", kanal),
    ("tokio mpsc", tokio),
    ("thingbuf", thingbuf),
    ("tracing-appender", tracing_appender),
    ("OpenTelemetry", open_telemetry),
    ("slog-async", slog),
    ("spdlog-rs", spdlog),
    ("metrique", metrique),
];

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let is_test = args.iter().any(|arg| arg == "--test");
    let clock = quanta::Clock::new();
    // A process of its own for each, so that nobody's threads are in another's way.
    if let [case, subject, ..] = args.iter().filter(|arg| *arg != "--test").collect::<Vec<_>>()[..] {
        let case = Case::ALL.into_iter().find(|one| one.word() == case).ok_or("no such case")?;
        let (name, make) = SUBJECTS.into_iter().find(|one| one.0 == subject).ok_or("nobody of that name")?;
        return measure(&clock, case, name, make, is_test);
    }
    println!("{} processors; the clock's own {} ns are taken off\n", processors(), price(&clock));
    for case in Case::ALL {
        println!("{}: ns a call\n", case.title());
        println!("| who | p50 | p90 | p99 | p99.9 | p99.99 | longest |");
        println!("|---|---|---|---|---|---|---|");
        for (name, _) in SUBJECTS {
            let myself = std::env::current_exe()?;
            let mut command = if case == Case::OneProcessor {
                let mut command = Command::new("taskset");
                command.args(["-c", "0"]).arg(myself);
                command
            } else {
                Command::new(myself)
            };
            command.args([case.word(), name]).args(is_test.then_some("--test"));
            if !command.status()?.success() {
                return Err(format!("{name}: failed").into());
            }
        }
        println!();
    }
    Ok(())
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Returns the cost of two readings of the clock with nothing between them: the median, in nanoseconds.
fn price(clock: &quanta::Clock) -> u64 {
    let mut readings: Vec<u64> = (0..10_001)
        .map(|_| {
            let begun = clock.raw();
            clock.delta_as_nanos(begun, clock.raw())
        })
        .collect();
    readings.sort_unstable();
    readings[readings.len() / 2]
}

fn measure(clock: &quanta::Clock, case: Case, name: &str, make: Make, is_test: bool) -> Outcome<()> {
    let reader = Arc::new(Reader { case, is_released: Mutex::new(false), released: Condvar::new() });
    let call = make(&reader)?;
    let price = price(clock);
    let calls: u64 = match case {
        _ if is_test => 100,
        Case::OneProcessor => 20_000,
        Case::Overflowing | Case::Stalled => 400_000,
        Case::ManyProducers => 20_000,
    };
    // More than fits: from here on the queue is full where its reader hangs or is slow.
    let warm = if matches!(case, Case::Overflowing | Case::Stalled) { 2 * CAPACITY as u64 } else { 1_000 };
    call.with(|call| (0..warm).for_each(call));
    let begin = Barrier::new(case.producers());
    let one = |call: &dyn Fn(u64)| -> Outcome<Histogram<u64>> {
        let mut histogram = Histogram::new(3)?;
        begin.wait();
        for number in 0..calls {
            let begun = clock.raw();
            call(number);
            let nanos = clock.delta_as_nanos(begun, clock.raw());
            histogram.record(nanos.saturating_sub(price))?;
            if case == Case::OneProcessor && number % 10 == 9 {
                // The reader needs the processor, too: a loop that computes would be preempted for it.
                let work = Instant::now();
                while work.elapsed() < Duration::from_micros(200) {
                    std::hint::spin_loop();
                }
            }
        }
        Ok(histogram)
    };
    let mut all = Histogram::<u64>::new(3)?;
    thread::scope(|scope| -> Outcome<()> {
        let producers: Vec<_> = (0..case.producers())
            .map(|_| scope.spawn(|| call.with(one).map_err(|error| error.to_string())))
            .collect();
        for producer in producers {
            all.add(producer.join().map_err(|_| "a producer panicked")??)?;
        }
        Ok(())
    })?;
    reader.release();
    let at = |quantile| all.value_at_quantile(quantile);
    println!(
        "| {name} | {} | {} | {} | {} | {} | {} |",
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        at(0.9999),
        all.max()
    );
    std::io::stdout().flush()?;
    // Some end only when all they hold was read.
    std::process::exit(0);
}

/// 56 bytes, as large as a record.
#[derive(Clone, Copy, Default)]
struct Plain(#[allow(dead_code, reason = "it is only carried")] [u64; 7]);

impl Event for Plain {}

fn plain(number: u64) -> Plain {
    Plain([black_box(number), 1, 2, number, 3, 4, 5])
}

/// Returns a call of a ring that nobody reads: what evicting alone is like, also by many.
fn ring(_: &Arc<Reader>) -> Outcome<Call> {
    let ring = crossbeam_queue::ArrayQueue::new(CAPACITY);
    Ok(shared(move |number| _ = ring.force_push(plain(number))))
}

// ---- forebay ----

fn forebay_plain(reader: &Arc<Reader>, shards: usize) -> Outcome<Call> {
    let reader = Arc::clone(reader);
    let sink = from_fn("read", move |batch: &Batch<Plain>| {
        reader.read(batch.len());
        Ok(())
    });
    let collector = Builder::<Plain>::new().capacity(CAPACITY).shards(shards).sink(sink).start()?;
    Ok(shared(move |number| _ = black_box(collector.collect(plain(number)))))
}

fn with_lanes(reader: &Arc<Reader>) -> Outcome<Collector<Plain>> {
    let reader = Arc::clone(reader);
    let sink = from_fn("read", move |batch: &Batch<Plain>| {
        reader.read(batch.len());
        Ok(())
    });
    // One for each producer, and for the thread that fills the queue before.
    let lanes = Lanes::PerThread { max: 128 };
    Ok(Builder::<Plain>::new().capacity(CAPACITY).lanes(lanes).sink(sink).start()?)
}

fn forebay_lanes(reader: &Arc<Reader>) -> Outcome<Call> {
    let collector = with_lanes(reader)?;
    Ok(shared(move |number| _ = black_box(collector.collect(plain(number)))))
}

fn forebay_local(reader: &Arc<Reader>) -> Outcome<Call> {
    let collector = with_lanes(reader)?;
    Ok(Call::Own(Box::new(move || {
        let producer = collector.local();
        assert!(producer.has_lane(), "else it times the ring");
        Box::new(move |number| _ = black_box(producer.collect(plain(number))))
    })))
}

fn forebay_record(reader: &Arc<Reader>) -> Outcome<Call> {
    let reader = Arc::clone(reader);
    let sink = from_fn("read", move |batch: &Batch| {
        reader.read(batch.len());
        Ok(())
    });
    let collector = Collector::builder().capacity(CAPACITY).sink(sink).start()?;
    Ok(shared(move |step| {
        _ = black_box(collector.collect(Record::scalar("train.loss", black_box(0.5)).with_step(step)));
    }))
}

// ---- channels ----

/// Starts a thread that receives until the senders are gone.
fn receive<T>(reader: &Arc<Reader>, mut next: impl FnMut() -> Option<T> + Send + 'static) {
    let reader = Arc::clone(reader);
    thread::spawn(move || {
        while let Some(event) = next() {
            black_box(event);
            reader.read(1);
        }
    });
}

fn crossbeam(reader: &Arc<Reader>) -> Outcome<Call> {
    let (sender, receiver) = crossbeam_channel::bounded(CAPACITY);
    receive(reader, move || receiver.recv().ok());
    Ok(shared(move |number| _ = black_box(sender.try_send(plain(number)))))
}

fn std_mpsc(reader: &Arc<Reader>) -> Outcome<Call> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(CAPACITY);
    receive(reader, move || receiver.recv().ok());
    Ok(shared(move |number| _ = black_box(sender.try_send(plain(number)))))
}

fn flume(reader: &Arc<Reader>) -> Outcome<Call> {
    let (sender, receiver) = flume::bounded(CAPACITY);
    receive(reader, move || receiver.recv().ok());
    Ok(shared(move |number| _ = black_box(sender.try_send(plain(number)))))
}

fn kanal(reader: &Arc<Reader>) -> Outcome<Call> {
    let (sender, receiver) = kanal::bounded(CAPACITY);
    receive(reader, move || receiver.recv().ok());
    Ok(shared(move |number| _ = black_box(sender.try_send(plain(number)))))
}

fn tokio(reader: &Arc<Reader>) -> Outcome<Call> {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(CAPACITY);
    receive(reader, move || receiver.blocking_recv());
    Ok(shared(move |number| _ = black_box(sender.try_send(plain(number)))))
}

fn thingbuf(reader: &Arc<Reader>) -> Outcome<Call> {
    let (sender, receiver) = thingbuf::mpsc::blocking::channel(CAPACITY);
    receive(reader, move || receiver.recv());
    Ok(shared(move |number| _ = black_box(sender.try_send(plain(number)))))
}

// ---- logging ----

/// The reader, as loggers want it.
#[derive(Clone)]
struct Reading(Arc<Reader>);

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reading").finish_non_exhaustive()
    }
}

impl Write for Reading {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.read(1);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn tracing_appender(reader: &Arc<Reader>) -> Outcome<Call> {
    let builder = tracing_appender::non_blocking::NonBlockingBuilder::default();
    let builder = builder.buffered_lines_limit(CAPACITY).lossy(true);
    let (writer, guard) = builder.finish(Reading(Arc::clone(reader)));
    let line = [b'x'; 64];
    Ok(shared(move |_| {
        let _ = &guard;
        _ = black_box(writer.clone().write_all(black_box(&line)));
    }))
}

impl opentelemetry_sdk::logs::LogExporter for Reading {
    async fn export(
        &self,
        batch: opentelemetry_sdk::logs::LogBatch<'_>,
    ) -> opentelemetry_sdk::error::OTelSdkResult {
        self.0.read(batch.iter().count());
        Ok(())
    }
}

fn open_telemetry(reader: &Arc<Reader>) -> Outcome<Call> {
    use opentelemetry::logs::{LogRecord, Logger, LoggerProvider};
    use opentelemetry_sdk::logs::{BatchConfigBuilder, BatchLogProcessor, SdkLoggerProvider};
    let config = BatchConfigBuilder::default().with_max_queue_size(CAPACITY).build();
    let processor = BatchLogProcessor::builder(Reading(Arc::clone(reader))).with_batch_config(config).build();
    let provider = SdkLoggerProvider::builder().with_log_processor(processor).build();
    let logger = provider.logger("latency");
    Ok(shared(move |step| {
        let mut record = logger.create_log_record();
        record.add_attribute("loss", black_box(0.5));
        record.add_attribute("step", step as i64);
        logger.emit(record);
    }))
}

impl slog::Drain for Reading {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, _: &slog::Record<'_>, _: &slog::OwnedKVList) -> Result<(), slog::Never> {
        self.0.read(1);
        Ok(())
    }
}

fn slog(reader: &Arc<Reader>) -> Outcome<Call> {
    use slog::Drain;
    let drain = slog_async::Async::new(Reading(Arc::clone(reader)))
        .chan_size(CAPACITY)
        .overflow_strategy(slog_async::OverflowStrategy::Drop)
        .build()
        .fuse();
    let logger = slog::Logger::root(drain, slog::o!());
    Ok(shared(move |step| slog::info!(logger, "train"; "loss" => black_box(0.5), "step" => step)))
}

/// The property is what spdlog's trait asks for.
struct Spdlog(Arc<Reader>, spdlog::sink::SinkProp);

impl spdlog::sink::GetSinkProp for Spdlog {
    fn prop(&self) -> &spdlog::sink::SinkProp {
        &self.1
    }
}

impl spdlog::sink::Sink for Spdlog {
    fn log(&self, _: &spdlog::Record<'_>) -> spdlog::Result<()> {
        self.0.read(1);
        Ok(())
    }

    fn flush(&self) -> spdlog::Result<()> {
        Ok(())
    }
}

fn spdlog(reader: &Arc<Reader>) -> Outcome<Call> {
    let capacity = std::num::NonZeroUsize::new(CAPACITY).ok_or("no capacity")?;
    let pool = spdlog::ThreadPool::builder().capacity(capacity).build_arc()?;
    let sink = Arc::new(Spdlog(Arc::clone(reader), Default::default()));
    let sink = spdlog::sink::AsyncPoolSink::builder()
        .sink(sink)
        .thread_pool(pool)
        .overflow_policy(spdlog::sink::OverflowPolicy::DropIncoming)
        .build_arc()?;
    // Silent about what it drops, like the others.
    let logger = spdlog::Logger::builder().sink(sink).error_handler(|_| ()).build()?;
    Ok(shared(move |step| spdlog::info!(logger: logger, "loss {} step {step}", black_box(0.5))))
}

// ---- metrics ----

impl metrique_writer::EntryIoStream for Reading {
    fn next(&mut self, entry: &impl metrique_writer::Entry) -> Result<(), metrique_writer::IoStreamError> {
        black_box(entry);
        self.0.read(1);
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn metrique(reader: &Arc<Reader>) -> Outcome<Call> {
    use metrique_writer::EntrySink;
    use metrique_writer::sink::BackgroundQueueBuilder;
    let builder = BackgroundQueueBuilder::new().capacity(CAPACITY);
    let (queue, handle) = builder.build::<Loss>(Reading(Arc::clone(reader)));
    Ok(shared(move |step| {
        let _ = &handle;
        queue.append(Loss::of(step));
    }))
}
