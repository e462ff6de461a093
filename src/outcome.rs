//! What `collect` and its relatives return.

use crate::wake::{State, Word};

/// What became of an event. It may be ignored: every fate is also counted in
/// [`Stats`](crate::Stats).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// It is queued. Should the collector stop at this very moment, it can still end up counted as
    /// [`Rejected::stopped`](crate::stats::Rejected::stopped); and of several threads that are late for a stop, one may be told `Stopped` in
    /// the place of another. The counts are right all the same.
    Queued,
    /// It is queued, in the place of the oldest of its lane, which is counted as evicted. This is told also where
    /// it had waited before, because the settings changed to [`Overflow::DropOldest`](crate::Overflow::DropOldest).
    QueuedEvicting,
    /// It is queued after a wait for room, under [`Overflow::Block`](crate::Overflow::Block) or as a critical event.
    QueuedAfterWait,
    /// Not taken: its lane is full, and neither evicts nor had room in time.
    Full,
    /// Not taken: the [gate](crate::config::GateConfig) does not let it in, by the switch, its name, or its priority.
    Filtered,
    /// Not taken: the gate let others of its name in.
    SampledOut,
    /// Not taken: the gate lets in so many events a second.
    RateLimited,
    /// Not taken: it is larger than the gate or the byte budget allows, or its values are nested deeper than
    /// [`Value::MAX_DEPTH`](crate::Value::MAX_DEPTH).
    Oversize,
    /// Not taken: the collector is stopped or stopping.
    Stopped,
    /// Not taken: the worker ended by a panic in forebay itself.
    WorkerGone,
    /// Not taken: this process is a forked child, the worker lives in the parent.
    Forked,
}

impl Outcome {
    /// Whether the event was taken.
    pub fn is_queued(self) -> bool {
        matches!(self, Self::Queued | Self::QueuedEvicting | Self::QueuedAfterWait)
    }
}

impl From<Refusal> for Outcome {
    fn from(reason: Refusal) -> Self {
        match reason {
            Refusal::Full => Outcome::Full,
            Refusal::Filtered => Outcome::Filtered,
            Refusal::SampledOut => Outcome::SampledOut,
            Refusal::RateLimited => Outcome::RateLimited,
            Refusal::Oversize => Outcome::Oversize,
            Refusal::Stopped => Outcome::Stopped,
            Refusal::WorkerGone => Outcome::WorkerGone,
            Refusal::Forked => Outcome::Forked,
        }
    }
}

/// What became of a batch of events: how many met each fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct BatchOutcome {
    /// Events that were queued.
    pub queued: u64,
    /// Events of earlier calls or of this one that made room for them.
    pub evicted: u64,
    /// Events that were not taken.
    pub rejected: u64,
    /// Why the first of those was not taken.
    pub first_rejection: Option<Outcome>,
}

/// An event that was not taken, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event not taken: {reason}")]
#[non_exhaustive]
pub struct CollectError<E> {
    /// The event, given back.
    pub event: E,
    /// Why it was not taken.
    pub reason: Refusal,
}

/// Why an event was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Its lane is full, and neither evicts nor had room in time.
    #[error("event queue is full")]
    Full,
    /// The gate does not let it in: by the switch, its name, or its priority.
    #[error("the event is filtered out")]
    Filtered,
    /// The gate let others of its name in.
    #[error("the event is sampled out")]
    SampledOut,
    /// The gate lets in so many events a second.
    #[error("the rate limit is reached")]
    RateLimited,
    /// It is larger than the gate or the byte budget allows, or its values are nested deeper than
    /// [`Value::MAX_DEPTH`](crate::Value::MAX_DEPTH).
    #[error("the event is too large")]
    Oversize,
    /// The collector is stopped or stopping.
    #[error("collector is shut down")]
    Stopped,
    /// The worker ended by a panic in forebay itself.
    #[error("the worker thread is gone")]
    WorkerGone,
    /// This process is a forked child; the worker lives in the parent.
    #[error("this process is a fork of the one that started the collector")]
    Forked,
}

impl Refusal {
    /// Returns why a collector in this state takes no events.
    pub(crate) fn of(word: Word) -> Self {
        match word.state() {
            State::WorkerGone => Self::WorkerGone,
            State::Forked => Self::Forked,
            _ => Self::Stopped,
        }
    }
}
