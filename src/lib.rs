//! Event collector for hot loops: a call hands an event over and returns, and one thread delivers batches to sinks.
//!
//! A [`Collector`] takes events with [`collect`](Collector::collect), which never waits for a sink. A worker thread puts them into a
//! [`Batch`] and gives it to every [`Sink`](sink::Sink). **By default the oldest events are dropped when a sink is too slow, never
//! silently**: [`stop`](Collector::stop) returns the count, and [`Collector::stats`] has it at any time.
//!
//! ```
//! use forebay::sink::{JsonLinesSink, MemorySink};
//! use forebay::{Collector, Record};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("runs/1/events.jsonl");
//! let memory = MemorySink::new();
//! let collector = Collector::builder()
//!     .sink(JsonLinesSink::create(path)?) // "runs/1/events.jsonl"
//!     .sink(memory.clone())
//!     .start()?;
//! for step in 0..1000 {
//!     collector.collect(Record::scalar("train.loss", 1.0 / (step + 1) as f64).with_step(step));
//! }
//! let stats = collector.stop()?.stats;
//! assert_eq!((stats.offered, stats.processed, stats.evicted), (1000, 1000, 0));
//! assert_eq!(memory.len(), 1000);
//! # Ok(())
//! # }
//! ```
//!
//! # Where to look
//!
//! | you want to | look at |
//! |---|---|
//! | make events | [`Record`]: a name, a [`Value`] (number, text, [`Histogram`], [`Image`], [`Fields`]), a step; [`catalog`](event::catalog) for standard ones; [`Event`] for types of your own |
//! | choose what happens when the queue is full | [`Overflow`], [`Priority`], [`Outcome`] |
//! | choose when events are delivered | [`FlushStrategy`] |
//! | keep some events out | [`GateConfig`](config::GateConfig), [`Sampling`](config::Sampling) |
//! | write files | [`TextLinesSink`](sink::TextLinesSink), [`JsonLinesSink`](sink::JsonLinesSink) (feature `json-lines`), `TensorBoardSink` (feature `tensorboard`), `SqliteSink` (feature `sqlite`) |
//! | send to a collector of OpenTelemetry | the crate `forebay-otlp` |
//! | collect what the facade `metrics` counts | the crate `forebay-metrics` |
//! | write somewhere else | [`Sink`](sink::Sink), [`from_fn`](sink::from_fn) |
//! | survive a sink that fails or hangs | [`retry`](sink::SinkExt::retry), [`breaker`](sink::SinkExt::breaker), [`DeadLetters`](sink::DeadLetters), [`isolated`](sink::SinkExt::isolated) |
//! | know how it is | [`Stats`], [`Health`], [`Builder::on_log`] |
//! | watch events live | [`Collector::subscribe`], [`Subscription`](subscription::Subscription); `Collector::subscribe_channel` for `select!` |
//! | read files back | the crate `forebay-history` |
//! | record a training run | [`TrainingRun`](run::TrainingRun), [`Rank`](run::Rank), `Signals` (feature `signals`) |
//! | take in what `tracing` or `log` says | the crates `forebay-tracing` and `forebay-log`; [`bridge`] for one of your own |
//! | call functions for events | the crate `forebay-bus` |
//! | run many items through handlers | the crate `forebay-task` |
//! | read settings from a file or the environment | [`Config`], `ConfigLoader` (feature `config`), [`Preset`](config::Preset) |
//! | use one collector everywhere | [`init`], [`global`], [`track_event!`] |
//! | test your program | `testing` (feature `testing`), [`MemorySink`](sink::MemorySink), [`ManualClock`] |
//!
//! # The life of an event
//!
//! 1. `collect` asks the [gate](config::GateConfig), pushes the event into the bounded ring of its [`Priority`] and returns an [`Outcome`].
//!    A full ring follows the [`Overflow`] policy. Nothing is locked, and a scalar allocates nothing.
//! 2. The worker wakes when enough is pending or the interval is over, as the [`FlushStrategy`] says. It takes critical events first.
//! 3. Every sink gets the batch. An error, a panic or a full disk of one sink reaches neither the loop nor another sink.
//! 4. [`Stats`] counts what became of every event, and [`Stats::check_law`] checks that the counts add up.
//!
//! [`flush`](Collector::flush) covers everything that was collected before it. [`stop`](Collector::stop) delivers what is pending and
//! ends the worker. Both have a deadline. Dropping the last handle stops with a short one.
//!
//! The guarantees, the guide and the measurements are pages in the folder `docs` of the repository.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(all(feature = "futures", feature = "json-lines")),
    allow(
        dead_code,
        reason = "wakers are left by the adapter alone, and some parts are there for files and their readers"
    )
)]
#![cfg_attr(not(unix), allow(dead_code, reason = "what a fork needs is called by its hooks alone"))]

// In the order in which data flows; the blank lines keep it so. Imports go the other way, as `.ci/layers` checks.

// What is collected.
pub mod event;
pub use event::event_trait::Event;
pub use event::image::Image;
pub use event::name::Name;
pub use event::priority::Priority;
pub use event::record::Record;
pub use event::value::{Fields, Histogram, Value};

// On the thread that collects.
pub mod collector;
pub use collector::global::{global, init};
pub use collector::handle::Collector;

mod outcome;
pub use outcome::Outcome;

mod settings;
mod shared;

mod gate;

mod lanes;
mod ring;

mod wake;

// On the worker.
mod worker;

mod mailbox;
mod worker_state;

mod batch;
pub use batch::Batch;

mod origin;

mod dispatch;

pub mod sink;

pub mod subscription;

// How a collector is put together, and how it is.
mod builder;
pub use builder::Builder;

pub mod config;
pub use config::delivery::{FlushStrategy, Overflow};
pub use config::settings::Config;

pub mod stats;
pub use stats::totals::Stats;

mod health;
pub use health::Health;

mod self_log;

/// Messages of forebay about itself: see [`Builder::on_log`].
pub mod log {
    pub use crate::self_log::{LogEntry, LogLevel, LogTopic};
}

// What stands on the collector.
pub mod bridge;

#[cfg(feature = "futures")]
pub mod futures;

pub mod run;

#[doc(hidden)]
pub mod parts;

#[cfg(feature = "testing")]
pub mod testing;

// What all of it stands on.
mod reply;

mod pattern;
pub use pattern::Pattern;

mod buffer;
mod escape;
mod rate;

use forebay_sync::{clock, pool, sync, unix};

/// # Examples
///
/// ```
/// use std::time::Duration;
/// use forebay::{Collector, FlushStrategy, ManualClock, Record, sink::MemorySink};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let clock = ManualClock::new();
/// let memory = MemorySink::new();
/// let collector = Collector::builder()
///     .manual_clock(&clock)
///     .flush(FlushStrategy::Time { interval: Duration::from_secs(3600) })
///     .sink(memory.clone())
///     .start()?;
/// collector.collect(Record::scalar("train.loss", 0.5));
/// while !memory.wait_for(1, Duration::from_millis(1)) {
///     clock.advance(Duration::from_secs(3600));
/// }
/// # Ok(())
/// # }
/// ```
#[doc(inline)]
pub use clock::ManualClock;

/// The code of the README and of the pages in `docs/`, but for those that show a bus or a task: their crates have these. It is
/// compiled and run with the other tests of the documentation.
#[cfg(all(doctest, feature = "json-lines"))]
mod pages {
    // Its programs have a sink that is a feature.
    #[cfg(feature = "tensorboard")]
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/guide.md")]
    struct Guide;
    #[doc = include_str!("../docs/reading.md")]
    struct Reading;
    #[cfg(feature = "config")]
    #[doc = include_str!("../docs/configuration.md")]
    struct Configuration;
}
