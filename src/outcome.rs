//! `Outcome`, `BatchOutcome` and `CollectError`: what `collect` and its variants return.

use crate::wake::{State, Word};

/// Outcome of `collect` for one event. It may be ignored: every outcome is also counted in [`Stats`](crate::Stats).
///
/// # Examples
///
/// ```
/// use forebay::{Collector, Outcome, Record};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let collector = Collector::builder().start()?;
/// let outcome = collector.collect(Record::new("tick"));
/// assert!(outcome.is_queued());
/// collector.stop()?;
/// assert_eq!(collector.collect(Record::new("late")), Outcome::Stopped);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The event is queued. If the collector stops at this very moment, the event may still be counted as
    /// [`Rejected::stopped`](crate::stats::Rejected::stopped). Of several threads that are late for a stop, one may get
    /// `Stopped` in the place of another. The counts are right all the same.
    Queued,
    /// The event is queued in the place of the oldest of its lane, which is counted as evicted. This is also the
    /// outcome after a wait, if the settings changed to [`Overflow::DropOldest`](crate::Overflow::DropOldest)
    /// meanwhile.
    QueuedEvicting,
    /// The event is queued after a wait for space, under [`Overflow::Block`](crate::Overflow::Block) or as a critical
    /// event.
    QueuedAfterWait,
    /// The event is rejected: its lane is full, does not evict, and had no space in time.
    Full,
    /// The [gate](crate::config::GateConfig) rejects the event, by the switch, its name, or its priority.
    Filtered,
    /// The gate's sampling leaves the event out.
    SampledOut,
    /// The event exceeds the gate's rate limit.
    RateLimited,
    /// The event is larger than the gate or the byte budget allows, or its values are nested deeper than
    /// [`Value::MAX_DEPTH`](crate::Value::MAX_DEPTH).
    Oversize,
    /// The event is rejected: the collector is stopped or stopping.
    Stopped,
    /// The event is rejected: the worker ended by a panic in forebay itself.
    WorkerGone,
    /// The event is rejected: this process is a forked child, and the worker lives in the parent.
    Forked,
}

impl Outcome {
    /// Returns whether the event was queued.
    pub fn is_queued(self) -> bool {
        matches!(self, Self::Queued | Self::QueuedEvicting | Self::QueuedAfterWait)
    }

    /// Returns the outcome of a push that evicted so many.
    #[inline(always)]
    pub(crate) fn of_push(evictions: u64) -> Self {
        if evictions > 0 { Self::QueuedEvicting } else { Self::Queued }
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

/// Outcome of `collect_batch`: how many events had each outcome.
///
/// # Examples
///
/// ```
/// use forebay::{Collector, Outcome, Overflow, Record};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let collector = Collector::builder().capacity(2).overflow(Overflow::DropNewest).build()?;
/// let outcome = collector.collect_batch((0..5).map(|step| Record::new("tick").with_step(step)));
/// assert_eq!((outcome.queued, outcome.rejected), (2, 3));
/// assert_eq!(outcome.first_rejection, Some(Outcome::Full));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct BatchOutcome {
    /// Events that were queued.
    pub queued: u64,
    /// Events of earlier calls or of this one that were evicted for them.
    pub evicted: u64,
    /// Events that were not queued.
    pub rejected: u64,
    /// Outcome of the first event that was not queued.
    pub first_rejection: Option<Outcome>,
}

/// Error that returns an event that was not queued, and the reason.
///
/// # Examples
///
/// ```
/// use forebay::collector::Refusal;
/// use forebay::{Collector, Record};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let collector = Collector::builder().start()?;
/// collector.stop()?;
/// let error = collector.try_collect(Record::new("late")).unwrap_err();
/// assert_eq!((error.reason, error.event.name()), (Refusal::Stopped, "late"));
/// assert_eq!(error.to_string(), "event not taken: collector is shut down");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event not taken: {reason}")]
#[non_exhaustive]
pub struct CollectError<E> {
    /// The event.
    pub event: E,
    /// The reason.
    pub reason: Refusal,
}

/// Reason why an event was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The lane is full, does not evict, and had no space in time.
    #[error("event queue is full")]
    Full,
    /// The gate rejects the event, by the switch, its name, or its priority.
    #[error("the event is filtered out")]
    Filtered,
    /// The gate's sampling leaves the event out.
    #[error("the event is sampled out")]
    SampledOut,
    /// The event exceeds the gate's rate limit.
    #[error("the rate limit is reached")]
    RateLimited,
    /// The event is larger than the gate or the byte budget allows, or its values are nested deeper than
    /// [`Value::MAX_DEPTH`](crate::Value::MAX_DEPTH).
    #[error("the event is too large")]
    Oversize,
    /// The collector is stopped or stopping.
    #[error("collector is shut down")]
    Stopped,
    /// The worker ended by a panic in forebay itself.
    #[error("the worker thread is gone")]
    WorkerGone,
    /// This process is a forked child, and the worker lives in the parent.
    #[error("this process is a fork of the one that started the collector")]
    Forked,
}

impl Refusal {
    /// Returns why a collector in this state accepts no events.
    pub(crate) fn of(word: Word) -> Self {
        match word.state() {
            State::WorkerGone => Self::WorkerGone,
            State::Forked => Self::Forked,
            _ => Self::Stopped,
        }
    }
}
