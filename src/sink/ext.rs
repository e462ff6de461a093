//! `SinkExt`: the wrappers, as methods of every sink.

use super::Sink;
use super::breaker::{Breaker, BreakerPolicy};
use super::dead_letters::{DeadLettering, DeadLetters};
use super::filter::Filter;
use super::isolated::Isolated;
use super::map::Map;
use super::rate_limited::RateLimited;
use super::retry::{Retry, RetryPolicy};
use super::route::Route;
#[cfg(feature = "json-lines")]
use super::spill::Spill;
use crate::event::{Event, Record};
use crate::pattern::Pattern;

/// Wrappers of sinks, as methods. Every [`Sink`] has them. They compose like the adapters of an iterator: the last one is outermost.
///
/// ```
/// use forebay::sink::{MemorySink, SinkExt};
/// use forebay::{Collector, Record};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let memory = MemorySink::new();
/// let collector = Collector::builder().sink(memory.clone().route("train.*").isolated(64)).start()?;
/// collector.collect(Record::scalar("train.loss", 0.5));
/// collector.collect(Record::scalar("eval.loss", 0.7));
/// collector.stop()?;
/// assert_eq!(memory.len(), 1);
/// # Ok(())
/// # }
/// ```
pub trait SinkExt<E = Record>: Sink<E> + Sized {
    /// Lets only events through whose names the pattern stands for. A second call adds a pattern. A text that is no [`Pattern`]
    /// stands for itself.
    fn route(self, pattern: impl Into<Pattern>) -> Route<Self, E> {
        Route::new(self).route(pattern)
    }

    /// Lets only events through for which `is_in` returns true.
    fn filter<F: FnMut(&E) -> bool + Send>(self, is_in: F) -> Filter<Self, F, E> {
        Filter::new(self, is_in)
    }

    /// Gives the sink what `make` makes of every event.
    fn map<A, F: FnMut(&A) -> E + Send>(self, make: F) -> Map<Self, F, A, E> {
        Map::new(self, make)
    }

    /// Tries a batch again that failed: see [`Retry`].
    fn retry(self, policy: RetryPolicy) -> Retry<Self, E> {
        Retry::new(self, policy)
    }

    /// Keeps events that could not be delivered: see [`DeadLettering`] and [`DeadLetters`].
    fn dead_letters(self, letters: &DeadLetters<E>) -> DeadLettering<Self, E> {
        DeadLettering::new(self, letters)
    }

    /// Leaves the sink alone for a while when it fails again and again: see [`Breaker`].
    fn breaker(self, policy: BreakerPolicy) -> Breaker<Self, E> {
        Breaker::new(self, policy)
    }

    /// Puts batches into a local file while the sink cannot take them, and replays them when it can: see [`Spill`].
    ///
    /// # Errors
    ///
    /// The file cannot be opened, is none of a spill, or another process has it open.
    #[cfg(feature = "json-lines")]
    fn spill(self, path: impl AsRef<std::path::Path>) -> std::io::Result<Spill<Self, E>> {
        Spill::new(self, path.as_ref())
    }

    /// Limits the events to `per_second` a second in the long run, up to a second's worth at once; 0 counts as 1. See
    /// [`RateLimited`].
    fn rate_limited(self, per_second: u32) -> RateLimited<Self, E> {
        RateLimited::new(self, per_second)
    }

    /// Gives the sink a thread of its own, behind a queue of that many batches; 0 counts as 1. A full queue evicts its
    /// oldest batch by default. See [`Isolated`].
    fn isolated(self, batches: usize) -> Isolated<Self, E>
    where
        E: Event,
    {
        Isolated::new(self, batches)
    }
}

impl<E, S: Sink<E>> SinkExt<E> for S {}
