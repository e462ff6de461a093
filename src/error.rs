//! Every way in which a call of the collector can fail.

use std::io;
use std::time::Duration;

use crate::config::ConfigError;
use crate::lanes::OutOfMemory;
use crate::stats::StopReport;

/// A collector could not be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A setting is outside of what is allowed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Two sinks have one name; statistics and `remove_sink` could not tell them apart.
    #[error("sink name is {name:?}, which another sink has, allowed is a name of its own")]
    DuplicateSink {
        /// The name.
        name: String,
    },
    /// A lane does not fit into memory. On a system that promises more memory than it has, a lane that fits may still take
    /// more than there is.
    #[error("{field} must fit into memory, got {slots} slots of {slot_bytes} bytes")]
    #[non_exhaustive]
    OutOfMemory {
        /// The setting, as a field of [`Config`](crate::Config).
        field: &'static str,
        /// The value it has.
        slots: usize,
        /// What each slot takes, in bytes.
        slot_bytes: usize,
    },
    /// A sink has forked while it was added, and this is the child: the sinks are those of the parent.
    #[error("this process is a fork of the one in which the collector is built")]
    Forked,
}

impl From<OutOfMemory> for BuildError {
    fn from(OutOfMemory { field, slots, slot_bytes }: OutOfMemory) -> Self {
        Self::OutOfMemory { field, slots, slot_bytes }
    }
}

/// A collector could not be started. Nothing is half-started: it is as it was before the call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// It could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The system refused a thread.
    #[error("cannot create the worker thread: {0}")]
    Thread(#[source] io::Error),
    /// The worker of an earlier `stop` has not ended yet: a sink keeps it busy.
    #[error("the worker of the last run is still stopping")]
    StillStopping,
    /// The worker ended by a panic in forebay itself, and its sinks with it.
    #[error("the worker thread is gone")]
    WorkerGone,
    /// This process is a forked child. Build a new collector here.
    #[error("this process is a fork of the one that built the collector")]
    Forked,
}

crate::sync::from_forked!(StartError, FlushError, StopError);

impl From<crate::sync::Forked> for SinkChangeError {
    fn from(forked: crate::sync::Forked) -> Self {
        FlushError::from(forked).into()
    }
}

impl From<ConfigError> for StartError {
    fn from(error: ConfigError) -> Self {
        StartError::Build(error.into())
    }
}

/// A flush did not end well. What was delivered meanwhile is delivered all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlushError {
    /// The deadline passed first.
    #[error("flush did not end within {waited:?}, {pending} events are pending{}", in_sink(.busy_sink))]
    TimedOut {
        /// How long the call waited.
        waited: Duration,
        /// How many events were pending when it gave up, those collected after the call included.
        pending: u64,
        /// The sink in which the worker was, if it was in one.
        busy_sink: Option<String>,
    },
    /// The collector was never started; events wait in the rings.
    #[error("the collector is not started")]
    NotStarted,
    /// The collector is stopped; `stop` has flushed.
    #[error("the collector is stopped")]
    Stopped,
    /// The worker ended by a panic in forebay itself.
    #[error("the worker thread is gone")]
    WorkerGone,
    /// This process is a forked child; the worker lives in the parent.
    #[error("this process is a fork of the one that started the collector")]
    Forked,
    /// Called from a sink, on the worker thread, which would have to wait for itself.
    #[error("called on the worker thread, which cannot wait for itself")]
    OnWorker,
}

/// A stop did not end well.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StopError {
    /// The deadline passed first. The worker goes on and ends by itself if its sink ever returns.
    #[error(
        "stop did not end within {:?}, {} events are left behind{}",
        .report.elapsed, .report.left_behind, in_sink(&.report.busy_sink)
    )]
    TimedOut {
        /// What happened until then.
        report: Box<StopReport>,
    },
    /// The worker ended by a panic in forebay itself.
    #[error("the worker thread is gone")]
    WorkerGone,
    /// This process is a forked child; the worker lives in the parent.
    #[error("this process is a fork of the one that started the collector")]
    Forked,
    /// Called from a sink, on the worker thread, which would have to wait for itself.
    #[error("called on the worker thread, which cannot wait for itself")]
    OnWorker,
}

/// A sink could not be added or removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SinkChangeError {
    /// Another sink has this name.
    #[error("sink name is {name:?}, which another sink has, allowed is a name of its own")]
    DuplicateSink {
        /// The name.
        name: String,
    },
    /// No sink has this name.
    #[error("sink name is {name:?}, which no sink has")]
    UnknownSink {
        /// The name.
        name: String,
    },
    /// The worker did not answer. A sink that was to be removed is removed as soon as the worker can.
    #[error(transparent)]
    Unanswered(#[from] FlushError),
}

/// The half-sentence that names the sink that is waited for.
fn in_sink(sink: &Option<String>) -> String {
    sink.as_ref().map_or_else(String::new, |name| format!(", sink {name:?} is busy"))
}
