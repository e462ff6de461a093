// Its first program has a sink that is a feature.
#![cfg_attr(feature = "tensorboard", doc = include_str!("../README.md"))]
#![cfg_attr(not(feature = "tensorboard"), doc = "An event collector for hot loops: see the README.")]
#![cfg_attr(not(feature = "futures"), allow(dead_code, reason = "wakers are left by the adapter alone"))]
#![cfg_attr(not(unix), allow(dead_code, reason = "what a fork needs is called by its hooks alone"))]

// In the order in which an event meets them; the blank lines keep it so.
mod event;
pub use event::{
    Event, Extra, Fields, Histogram, HistogramError, Image, ImageFormat, List, Name, Priority, Record, Text,
    Value, catalog,
};

mod collector;
pub use collector::{BatchOutcome, Collector, Outcome};

mod gate;

mod lanes;
mod ring;

mod wake;
pub use wake::State;

mod worker;

mod batch;
pub use batch::Batch;

mod origin;
pub use origin::Origin;

mod dispatch;

pub mod sink;

mod control;

// Looked up, not read through.
mod builder;
pub use builder::Builder;

mod config;
pub use config::{
    Config, ConfigError, ConfigLoader, ConfigPlace, ConfigWarning, FlushStrategy, GateConfig, HealthConfig,
    NameRule, Overflow, Preset, Sampling, Threshold,
};

mod stats;
pub use stats::{
    Alert, AlertKind, FlushReport, HealthStatus, Latency, Rejected, SinkDelta, SinkFlush, SinkStats, Stats,
    StatsDelta, StopReport,
};

mod health;
pub use health::Health;

mod self_log;
pub use self_log::{LogEntry, LogLevel, LogTopic};

mod error;
pub use error::{BuildError, CollectError, FlushError, Refusal, SinkChangeError, StartError, StopError};

pub mod history;

pub mod run;

pub mod emit;

#[cfg(feature = "testing")]
pub mod testing;

mod permit;

mod rate;

mod reply;

mod buffer;
mod escape;

mod subscription;
pub use subscription::{Events, RecvError, Subscription};

mod pattern;
pub use pattern::{Pattern, PatternError};

mod clock;
pub use clock::ManualClock;

#[cfg(feature = "futures")]
mod futures;
#[cfg(feature = "futures")]
pub use futures::{CollectAsync, CollectSink, CollectSinkError, FlushAsync};

pub mod bus;

mod global;
pub use global::{AlreadyInitialized, get_or_init, global, init, scoped};

mod sync;
mod unix;
