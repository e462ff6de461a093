//! Time of `info!` with two fields, through bridges and what they take the place of: interleaved in one run, on one machine.
//!
//! It belongs to the package of the peers:
//!
//! ```text
//! cargo run --release --manifest-path benches/peers/Cargo.toml --bin logging            # the table
//! cargo run --release --manifest-path benches/peers/Cargo.toml --bin logging -- --test  # once, to see that it runs
//! cargo run --release --manifest-path benches/peers/Cargo.toml --bin logging -- slog    # those with this in their name
//! ```
//!
//! The calls alone are timed, 8,000 in a row into a queue that has space for all of them; the reader catches up in between. All readers
//! count and throw away. All events keep level, target, message and both fields; nobody loses one, or the run fails.

use std::error::Error;
use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use forebay::sink::from_fn;
use forebay::{Batch, Builder, Collector};
use tracing::Dispatch;
use tracing_subscriber::prelude::*;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Events of a sample.
const EVENTS: u64 = 8_000;

/// Space in every queue.
const CAPACITY: usize = 16_384;

/// Counts what was read.
#[derive(Debug, Clone, Default)]
struct Counter(Arc<AtomicU64>);

impl Counter {
    fn add(&self, events: u64) {
        self.0.fetch_add(events, Ordering::Relaxed);
    }

    /// Waits until all events of a sample were read, beginning at `before`.
    fn wait(&self, before: u64) -> Outcome<()> {
        let begun = Instant::now();
        while self.0.load(Ordering::Relaxed) < before + EVENTS {
            if begun.elapsed() > Duration::from_secs(10) {
                return Err("events are missing".into());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }
}

impl Write for Counter {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.add(line.iter().filter(|byte| **byte == b'\n').count() as u64);
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
        self.add(batch.iter().count() as u64);
        Ok(())
    }
}

impl slog::Drain for Counter {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, _: &slog::Record<'_>, _: &slog::OwnedKVList) -> Result<(), slog::Never> {
        self.add(1);
        Ok(())
    }
}

impl logforth::Append for Counter {
    fn append(
        &self,
        record: &logforth::record::Record,
        _: &[Box<dyn logforth::Diagnostic>],
    ) -> Result<(), logforth::Error> {
        black_box(record);
        self.add(1);
        Ok(())
    }

    fn flush(&self) -> Result<(), logforth::Error> {
        Ok(())
    }
}

impl fastrace::collector::Reporter for Counter {
    fn report(&mut self, spans: Vec<fastrace::collector::SpanRecord>) {
        self.add(spans.iter().map(|span| span.events.len() as u64).sum());
    }
}

/// One who is compared: a name, and a function that times a sample and waits until it was read.
struct Peer(&'static str, Box<dyn FnMut() -> Outcome<Duration>>);

fn time(mut event: impl FnMut(u64)) -> Duration {
    let begun = Instant::now();
    (0..EVENTS).for_each(&mut event);
    begun.elapsed()
}

/// Makes a peer of a subscriber of tracing, and of what brings its events to the reader.
fn of_tracing(
    name: &'static str,
    subscriber: impl Into<Dispatch>,
    counter: Counter,
    flush: impl Fn() -> Outcome<()> + 'static,
) -> Peer {
    let dispatch = subscriber.into();
    let sample = move || {
        let before = counter.0.load(Ordering::Relaxed);
        let spent = tracing::dispatcher::with_default(&dispatch, || {
            time(|step| tracing::info!(loss = black_box(0.5), epoch = black_box(step), "step done"))
        });
        flush()?;
        counter.wait(before)?;
        Ok(spent)
    };
    Peer(name, Box::new(sample))
}

fn counting(counter: &Counter) -> Outcome<Collector> {
    let counter = counter.clone();
    let sink = from_fn("count", move |batch: &Batch| {
        counter.add(batch.len() as u64);
        Ok(())
    });
    Ok(Collector::builder().capacity(CAPACITY).sink(sink).start()?)
}

fn forebay_tracing() -> Outcome<Peer> {
    let counter = Counter::default();
    let (layer, guard) = forebay_tracing::layer(counting(&counter)?);
    let flush = move || Ok(_ = guard.collector().flush()?);
    Ok(of_tracing("forebay-tracing, layer", tracing_subscriber::registry().with(layer), counter, flush))
}

fn forebay_lines() -> Outcome<Peer> {
    let counter = Counter::default();
    let sink = forebay_tracing::LinesSink::new(counter.clone());
    let (writer, guard) = forebay_tracing::lines(Builder::new().capacity(CAPACITY).sink(sink).start()?);
    let format = tracing_subscriber::fmt::layer().json().with_writer(writer);
    let flush = move || Ok(_ = guard.collector().flush()?);
    let name = "forebay-tracing, writer + formatter of JSON";
    Ok(of_tracing(name, tracing_subscriber::registry().with(format), counter, flush))
}

fn tracing_appender() -> Peer {
    let counter = Counter::default();
    let (writer, guard) = tracing_appender::non_blocking(counter.clone());
    let format = tracing_subscriber::fmt::layer().json().with_writer(writer);
    let flush = move || {
        let _ = &guard;
        Ok(())
    };
    let name = "tracing-appender + formatter of JSON";
    of_tracing(name, tracing_subscriber::registry().with(format), counter, flush)
}

fn open_telemetry() -> Peer {
    use opentelemetry_sdk::logs::{BatchConfigBuilder, BatchLogProcessor, SdkLoggerProvider};
    let counter = Counter::default();
    let config = BatchConfigBuilder::default().with_max_queue_size(CAPACITY).build();
    let processor = BatchLogProcessor::builder(counter.clone()).with_batch_config(config).build();
    let provider = SdkLoggerProvider::builder().with_log_processor(processor).build();
    let layer = opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge::new(&provider);
    let flush = move || Ok(provider.force_flush()?);
    of_tracing("opentelemetry-appender-tracing", tracing_subscriber::registry().with(layer), counter, flush)
}

fn slog_async() -> Peer {
    use slog::Drain;
    let counter = Counter::default();
    let drain = slog_async::Async::new(counter.clone()).chan_size(CAPACITY).build().fuse();
    let logger = slog::Logger::root(drain, slog::o!());
    let sample = move || {
        let before = counter.0.load(Ordering::Relaxed);
        let spent = time(
            |step| slog::info!(logger, "step done"; "loss" => black_box(0.5), "epoch" => black_box(step)),
        );
        counter.wait(before)?;
        Ok(spent)
    };
    Peer("slog-async", Box::new(sample))
}

fn forebay_log() -> Outcome<Peer> {
    let counter = Counter::default();
    let collector = counting(&counter)?;
    let logger = forebay_log::Logger::new(collector.clone());
    log::set_max_level(log::LevelFilter::Info);
    let sample = move || {
        let before = counter.0.load(Ordering::Relaxed);
        let spent = time(|step| {
            log::info!(logger: logger, loss = black_box(0.5), epoch = black_box(step); "step done");
        });
        _ = collector.flush()?;
        counter.wait(before)?;
        Ok(spent)
    };
    Ok(Peer("forebay-log", Box::new(sample)))
}

fn logforth_async() -> Peer {
    let counter = Counter::default();
    let append = logforth::append::asynchronous::AsyncBuilder::new("logforth")
        .buffered_lines_limit(Some(CAPACITY))
        .append(counter.clone())
        .build();
    let logger = logforth::core::builder().dispatch(|dispatch| dispatch.append(append)).build();
    let bridge = logforth::bridge::log::LogBridge::new(logger);
    let sample = move || {
        let before = counter.0.load(Ordering::Relaxed);
        let spent = time(|step| {
            log::info!(logger: bridge, loss = black_box(0.5), epoch = black_box(step); "step done");
        });
        counter.wait(before)?;
        Ok(spent)
    };
    Peer("logforth, async", Box::new(sample))
}

/// Events of one span, which its thread keeps until the span ends. They have texts alone.
fn fastrace_event() -> Peer {
    use fastrace::collector::{Config, SpanContext};
    let counter = Counter::default();
    fastrace::set_reporter(counter.clone(), Config::default());
    let sample = move || {
        let before = counter.0.load(Ordering::Relaxed);
        let root = fastrace::Span::root("train", SpanContext::random());
        let parent = root.set_local_parent();
        let spent = time(|step| {
            let event = fastrace::Event::new("step done").with_properties(|| {
                let numbers = [("loss", black_box(0.5).to_string()), ("epoch", black_box(step).to_string())];
                let texts = [("level", "INFO"), ("target", module_path!())];
                let texts = texts.map(|(name, text)| (name, std::borrow::Cow::Borrowed(text)));
                numbers.map(|(name, text)| (name, text.into())).into_iter().chain(texts)
            });
            fastrace::local::LocalSpan::add_event(event);
        });
        drop(parent);
        drop(root);
        fastrace::flush();
        counter.wait(before)?;
        Ok(spent)
    };
    Peer("fastrace, an event of a span", Box::new(sample))
}

fn main() -> Outcome<()> {
    let rounds = if std::env::args().any(|arg| arg == "--test") { 1 } else { 31 };
    let peers = [
        forebay_tracing()?,
        forebay_log()?,
        forebay_lines()?,
        tracing_appender(),
        slog_async(),
        open_telemetry(),
        logforth_async(),
        fastrace_event(),
    ];
    let mut peers = Vec::from(peers);
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    peers.retain(|Peer(name, _)| wanted.as_ref().is_none_or(|wanted| name.contains(wanted.as_str())));
    let mut times = vec![Vec::new(); peers.len()];
    // In turn, and once more than is counted: caches, pages and threads come to rest.
    for round in 0..=rounds {
        for (Peer(name, sample), times) in peers.iter_mut().zip(&mut times) {
            let spent = sample().map_err(|error| format!("{name}: {error}"))?;
            if round > 0 {
                times.push(spent.as_nanos() as f64 / EVENTS as f64);
            }
        }
    }
    println!("| nanoseconds a call of `info!` with two fields | median | a quarter on each side | fastest |");
    println!("|---|---|---|---|");
    for (Peer(name, _), times) in peers.iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        let at = |share: usize| times[(times.len() - 1) * share / 4];
        println!("| {name} | {:.0} | {:.0} to {:.0} | {:.0} |", at(2), at(1), at(3), at(0));
    }
    Ok(())
}
