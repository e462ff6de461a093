//! Everybody who is compared. A peer is a closure that takes one sample: it runs a load, waits until all of it
//! has been read, and says how long the calls took.

use std::error::Error;
use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use forebay::config::Lanes;
use forebay::sink::from_fn;
use forebay::{Batch, Builder, Collector, Event, Record};

use crate::loss::Loss;
use crate::{CAPACITY, Load};

type Outcome<T> = Result<T, Box<dyn Error>>;

pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    sample: Box<dyn FnMut(Load) -> Outcome<Duration>>,
}

impl Peer {
    fn new(
        name: &'static str,
        what: &'static str,
        sample: impl FnMut(Load) -> Outcome<Duration> + 'static,
    ) -> Self {
        Self { name, what, sample: Box::new(sample) }
    }

    pub(crate) fn sample(&mut self, load: Load) -> Outcome<Duration> {
        (self.sample)(load).map_err(|error| format!("{}: {error}", self.name).into())
    }
}

/// 56 bytes, as large as a record.
#[derive(Clone, Copy, Default)]
struct Plain(#[allow(dead_code, reason = "it is only carried")] [u64; 7]);

impl Event for Plain {}

fn plain(number: u64) -> Plain {
    Plain([black_box(number), 1, 2, number, 3, 4, 5])
}

/// Counts what was read.
#[derive(Debug, Clone, Default)]
struct Counter(Arc<AtomicU64>);

impl Counter {
    fn add(&self, events: u64) {
        self.0.fetch_add(events, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Returns an error unless all events of a load were read since the counter stood at `before`.
    fn complete(&self, before: u64, load: Load) -> Outcome<()> {
        let missing = before + load.events() as u64 - self.get();
        if missing > 0 { Err(format!("{missing} events are missing").into()) } else { Ok(()) }
    }

    /// Times a load of a collector, which has delivered it when this returns.
    fn flushed<E: Event>(
        &self,
        load: Load,
        collector: &Collector<E>,
        push: impl FnMut(u64),
    ) -> Outcome<Duration> {
        let before = self.get();
        let time = load.time(push);
        let _ = collector.flush()?;
        self.complete(before, load)?;
        Ok(time)
    }

    /// Runs a load, then waits until it has been read.
    fn around(&self, load: Load, push: impl FnMut(u64)) -> Outcome<Duration> {
        let all = self.get() + load.events() as u64;
        let time = load.time(push);
        self.wait(all)?;
        Ok(time)
    }

    /// Waits until so many events were read in all.
    fn wait(&self, all: u64) -> Outcome<()> {
        let begun = Instant::now();
        while self.get() < all {
            if begun.elapsed() > Duration::from_secs(5) {
                return Err(format!("{} events are missing", all - self.get()).into());
            }
            thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }
}

pub(crate) fn all() -> Outcome<Vec<Peer>> {
    let mut peers = vec![ring(), rtrb(), forebay_plain()?, forebay_record()?];
    peers.extend([forebay_lanes()?, forebay_local()?]);
    peers.extend([crossbeam(), std_mpsc(), flume(), kanal(), tokio(), thingbuf()]);
    peers.extend([tracing_appender(), open_telemetry(), slog(), spdlog()?, fastrace()]);
    peers.extend([metrique(), dial9()?]);
    Ok(peers)
}

// ---- rings that nobody reads meanwhile ----

fn ring() -> Peer {
    let ring = crossbeam_queue::ArrayQueue::new(CAPACITY);
    Peer::new("bare ring", "`ArrayQueue::force_push`, 56 bytes; no reader", move |load| {
        let time = load.time(|n| _ = ring.force_push(plain(n)));
        while ring.pop().is_some() {}
        Ok(time)
    })
}

fn rtrb() -> Peer {
    let (mut sender, mut receiver) = rtrb::RingBuffer::new(CAPACITY);
    Peer::new("rtrb", "push, 56 bytes; one producer only, no reader", move |load| {
        let time = load.time(|n| _ = black_box(sender.push(plain(n))));
        while receiver.pop().is_ok() {}
        Ok(time)
    })
}

// ---- forebay, with its default settings but for the room ----

/// Starts a collector, and returns what counts its events as well.
fn counting<E: Event>(builder: Builder<E>) -> Outcome<(Collector<E>, Counter)> {
    let counter = Counter::default();
    let sink = counter.clone();
    let sink = from_fn("count", move |batch: &Batch<E>| {
        sink.add(batch.len() as u64);
        Ok(())
    });
    Ok((builder.capacity(CAPACITY).sink(sink).start()?, counter))
}

fn with_lanes() -> Outcome<(Collector<Plain>, Counter)> {
    counting(Builder::new().lanes(Lanes::PerThread { max: 0 }))
}

fn forebay_plain() -> Outcome<Peer> {
    let (collector, counter) = counting(Builder::<Plain>::new())?;
    Ok(Peer::new("forebay", "`collect`, 56 bytes", move |load| {
        counter.flushed(load, &collector, |n| _ = black_box(collector.collect(plain(n))))
    }))
}

fn forebay_record() -> Outcome<Peer> {
    let (collector, counter) = counting(Collector::builder())?;
    Ok(Peer::new("forebay, record", "`collect` of a scalar with name, step and time stamp", move |load| {
        let record = |step| Record::scalar("train.loss", black_box(0.5)).with_step(step);
        counter.flushed(load, &collector, |step| _ = black_box(collector.collect(record(step))))
    }))
}

fn forebay_lanes() -> Outcome<Peer> {
    let (collector, counter) = with_lanes()?;
    Ok(Peer::new("forebay, lanes", "`collect`, 56 bytes, into the lane of the thread", move |load| {
        counter.flushed(load, &collector, |n| _ = black_box(collector.collect(plain(n))))
    }))
}

fn forebay_local() -> Outcome<Peer> {
    let (collector, counter) = with_lanes()?;
    let producer = collector.local();
    assert!(producer.has_lane(), "else it times the ring");
    Ok(Peer::new("forebay, local", "`Producer::collect`, 56 bytes, into a lane of its own", move |load| {
        counter.flushed(load, &collector, |n| _ = black_box(producer.collect(plain(n))))
    }))
}

// ---- channels, with a thread that receives ----

/// Starts a thread that receives until the senders are gone.
fn receive<T>(mut next: impl FnMut() -> Option<T> + Send + 'static) -> Counter {
    let counter = Counter::default();
    let count = counter.clone();
    thread::spawn(move || {
        while let Some(event) = next() {
            black_box(event);
            count.add(1);
        }
    });
    counter
}

fn crossbeam() -> Peer {
    let (sender, receiver) = crossbeam_channel::bounded(CAPACITY);
    let counter = receive(move || receiver.recv().ok());
    Peer::new("crossbeam-channel", "`try_send`, 56 bytes", move |load| {
        counter.around(load, |n| _ = black_box(sender.try_send(plain(n))))
    })
}

fn std_mpsc() -> Peer {
    let (sender, receiver) = std::sync::mpsc::sync_channel(CAPACITY);
    let counter = receive(move || receiver.recv().ok());
    Peer::new("std mpsc", "`try_send`, 56 bytes", move |load| {
        counter.around(load, |n| _ = black_box(sender.try_send(plain(n))))
    })
}

fn flume() -> Peer {
    let (sender, receiver) = flume::bounded(CAPACITY);
    let counter = receive(move || receiver.recv().ok());
    Peer::new("flume", "`try_send`, 56 bytes", move |load| {
        counter.around(load, |n| _ = black_box(sender.try_send(plain(n))))
    })
}

fn kanal() -> Peer {
    let (sender, receiver) = kanal::bounded(CAPACITY);
    let counter = receive(move || receiver.recv().ok());
    Peer::new("kanal", "`try_send`, 56 bytes", move |load| {
        counter.around(load, |n| _ = black_box(sender.try_send(plain(n))))
    })
}

fn tokio() -> Peer {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(CAPACITY);
    let counter = receive(move || receiver.blocking_recv());
    Peer::new("tokio mpsc", "`try_send`, 56 bytes", move |load| {
        counter.around(load, |n| _ = black_box(sender.try_send(plain(n))))
    })
}

fn thingbuf() -> Peer {
    let (sender, receiver) = thingbuf::mpsc::blocking::channel(CAPACITY);
    let counter = receive(move || receiver.recv());
    Peer::new("thingbuf", "`try_send`, 56 bytes", move |load| {
        counter.around(load, |n| _ = black_box(sender.try_send(plain(n))))
    })
}

// ---- logging and tracing ----

impl Write for Counter {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.add(1);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn tracing_appender() -> Peer {
    let counter = Counter::default();
    let (mut writer, guard) = tracing_appender::non_blocking(counter.clone());
    let line = [b'x'; 64];
    Peer::new(
        "tracing-appender",
        "`NonBlocking::write` of 64 bytes that are formatted already",
        move |load| {
            let _ = &guard;
            counter.around(load, |_| _ = black_box(writer.write_all(black_box(&line))))
        },
    )
}

impl opentelemetry_sdk::logs::LogExporter for Counter {
    async fn export(
        &self,
        batch: opentelemetry_sdk::logs::LogBatch<'_>,
    ) -> opentelemetry_sdk::error::OTelSdkResult {
        self.add(batch.iter().count() as u64);
        Ok(())
    }
}

fn open_telemetry() -> Peer {
    use opentelemetry::logs::{LogRecord, Logger, LoggerProvider};
    use opentelemetry_sdk::logs::{BatchConfigBuilder, BatchLogProcessor, SdkLoggerProvider};
    let counter = Counter::default();
    let config = BatchConfigBuilder::default().with_max_queue_size(CAPACITY).build();
    let processor = BatchLogProcessor::builder(counter.clone()).with_batch_config(config).build();
    let provider = SdkLoggerProvider::builder().with_log_processor(processor).build();
    let logger = provider.logger("peers");
    Peer::new("OpenTelemetry", "batch log processor, two attributes", move |load| {
        let before = counter.get();
        let time = load.time(|step| {
            let mut record = logger.create_log_record();
            record.add_attribute("loss", black_box(0.5));
            record.add_attribute("step", step as i64);
            logger.emit(record);
        });
        provider.force_flush()?;
        let missing = before + load.events() as u64 - counter.get();
        if missing > 0 { Err(format!("{missing} records are missing").into()) } else { Ok(time) }
    })
}

impl slog::Drain for Counter {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, _: &slog::Record<'_>, _: &slog::OwnedKVList) -> Result<(), slog::Never> {
        self.add(1);
        Ok(())
    }
}

fn slog() -> Peer {
    use slog::Drain;
    let counter = Counter::default();
    let drain = slog_async::Async::new(counter.clone()).chan_size(CAPACITY).build().fuse();
    let logger = slog::Logger::root(drain, slog::o!());
    Peer::new("slog-async", "a message with two values", move |load| {
        counter.around(load, |step| slog::info!(logger, "train"; "loss" => black_box(0.5), "step" => step))
    })
}

/// Counts; the property is what spdlog's trait asks for.
struct Spdlog(Counter, spdlog::sink::SinkProp);

impl spdlog::sink::GetSinkProp for Spdlog {
    fn prop(&self) -> &spdlog::sink::SinkProp {
        &self.1
    }
}

impl spdlog::sink::Sink for Spdlog {
    fn log(&self, _: &spdlog::Record<'_>) -> spdlog::Result<()> {
        self.0.add(1);
        Ok(())
    }

    fn flush(&self) -> spdlog::Result<()> {
        Ok(())
    }
}

fn spdlog() -> Outcome<Peer> {
    let counter = Counter::default();
    let capacity = std::num::NonZeroUsize::new(CAPACITY).ok_or("no capacity")?;
    let pool = spdlog::ThreadPool::builder().capacity(capacity).build_arc()?;
    let sink = Arc::new(Spdlog(counter.clone(), Default::default()));
    let sink = spdlog::sink::AsyncPoolSink::builder().sink(sink).thread_pool(pool).build_arc()?;
    let logger = spdlog::Logger::builder().sink(sink).build()?;
    Ok(Peer::new("spdlog-rs", "a message with two values, formatted", move |load| {
        counter.around(load, |step| spdlog::info!(logger: logger, "loss {} step {step}", black_box(0.5)))
    }))
}

impl fastrace::collector::Reporter for Counter {
    fn report(&mut self, spans: Vec<fastrace::collector::SpanRecord>) {
        self.add(spans.len() as u64);
    }
}

fn fastrace() -> Peer {
    use fastrace::collector::{Config, SpanContext};
    let counter = Counter::default();
    fastrace::set_reporter(counter.clone(), Config::default());
    Peer::new("fastrace", "a root span with two properties", move |load| {
        let before = counter.get();
        let time = load.time(|step| {
            let span = fastrace::Span::root("train", SpanContext::random());
            drop(span.with_properties(|| [("loss", black_box(0.5).to_string()), ("step", step.to_string())]));
        });
        fastrace::flush();
        // It may drop what comes too fast, and does not say so.
        black_box(counter.get() - before);
        Ok(time)
    })
}

// ---- metrics and traces ----

impl metrique_writer::EntryIoStream for Counter {
    fn next(&mut self, entry: &impl metrique_writer::Entry) -> Result<(), metrique_writer::IoStreamError> {
        black_box(entry);
        self.add(1);
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn metrique() -> Peer {
    use metrique_writer::EntrySink;
    use metrique_writer::sink::BackgroundQueueBuilder;
    let counter = Counter::default();
    // For entries of one type, as its documentation prefers: nothing is boxed.
    let (queue, handle) = BackgroundQueueBuilder::new().capacity(CAPACITY).build::<Loss>(counter.clone());
    Peer::new("metrique", "`BackgroundQueue::append` of two values and a time stamp", move |load| {
        let _ = &handle;
        counter.around(load, |step| {
            queue.append(Loss::of(step));
        })
    })
}

/// Event of dial9 with the same content. Its name is that of the type.
#[derive(dial9_trace_format::TraceEvent)]
#[traceevent(wire_slot)]
struct TrainLoss {
    #[traceevent(timestamp)]
    timestamp_ns: u64,
    loss: f64,
    step: u64,
}

/// Reader of what dial9 reports of itself: how many events its thread took from the buffers of others.
impl metrique_writer::AnyEntrySink for Counter {
    fn append_any(&self, entry: impl metrique_writer::Entry + Send + 'static) {
        entry.write(&mut Taken(self));
    }

    fn flush_async(&self) -> metrique_writer::sink::FlushWait {
        metrique_writer::sink::FlushWait::ready()
    }
}

struct Taken<'c>(&'c Counter);

impl<'a> metrique_writer::EntryWriter<'a> for Taken<'_> {
    fn timestamp(&mut self, _: std::time::SystemTime) {}

    fn value(
        &mut self,
        name: impl Into<std::borrow::Cow<'a, str>>,
        value: &(impl metrique_writer::Value + ?Sized),
    ) {
        if name.into() == "EventCount" {
            value.write(Taken(self.0));
        }
    }

    fn config(&mut self, _: &'a dyn metrique_writer::EntryConfig) {}
}

impl metrique_writer::ValueWriter for Taken<'_> {
    fn string(self, _: &str) {}

    fn metric<'a>(
        self,
        distribution: impl IntoIterator<Item = metrique_writer::Observation>,
        _: metrique_writer::Unit,
        _: impl IntoIterator<Item = (&'a str, &'a str)>,
        _: metrique_writer::MetricFlags<'_>,
    ) {
        for observation in distribution {
            if let metrique_writer::Observation::Unsigned(events) = observation {
                self.0.add(events);
            }
        }
    }

    fn error(self, _: metrique_writer::ValidationError) {}
}

fn dial9() -> Outcome<Peer> {
    use dial9_core::buffer::MemoryBuffer;
    use dial9_core::clock::clock_monotonic_ns;
    use metrique_writer::AnyEntrySink;
    let counter = Counter::default();
    let recorder = dial9_core::recorder::recorder(MemoryBuffer::new(64 << 20)?);
    let recorder = recorder.metrics_sink(AnyEntrySink::boxed(counter.clone())).build();
    if !recorder.handle().is_enabled() {
        return Err("dial9 does not record".into());
    }
    Ok(Peer::new(
        "dial9",
        "`record_event` with two values and a time stamp, encoded into the thread's buffer; nobody is woken",
        move |load| {
            let handle = recorder.handle().clone();
            let record = move |step| {
                handle.record_event(TrainLoss {
                    timestamp_ns: clock_monotonic_ns(),
                    loss: black_box(0.5),
                    step,
                });
            };
            let all = counter.get() + 1 + load.events() as u64;
            // It hands a buffer over when it is full, after half a minute, or when its thread ends: so each sample has a thread.
            let thread = thread::spawn(move || {
                // The first event makes the buffer.
                record(0);
                load.time(record)
            });
            let time = thread.join().map_err(|_| "its thread panicked")?;
            counter.wait(all)?;
            Ok(time)
        },
    ))
}
