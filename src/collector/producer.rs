//! `Producer`: a handle with a lane of its own.

use std::fmt;

use super::Collector;
use crate::event::{Event, Record};
use crate::lanes::Way;
use crate::outcome::{CollectError, Outcome};
use crate::pool::OwnLane;

/// Handle of a collector with a lane of its own, for one thread at a time: what [`Collector::local`] returns.
///
/// It collects as the collector does, without the look for the lane of the thread. It may be sent to another thread, and its events
/// keep their order. Dropped, it gives its lane back.
///
/// ```
/// use forebay::config::Lanes;
/// use forebay::{Collector, Record};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let collector = Collector::builder().lanes(Lanes::PerThread { max: 0 }).start()?;
/// let producer = collector.local();
/// std::thread::spawn(move || {
///     for step in 0..1000 {
///         producer.collect(Record::scalar("train.loss", 0.5).with_step(step));
///     }
/// })
/// .join()
/// .expect("it does not panic");
/// assert_eq!(collector.stop()?.stats.processed, 1000);
/// # Ok(())
/// # }
/// ```
pub struct Producer<E: Event = Record> {
    /// `None` where normal events share rings, or all lanes were taken. Dropped first, because it uses the collector's pool.
    lane: Option<OwnLane<E>>,
    collector: Collector<E>,
}

impl<E: Event> Collector<E> {
    /// Returns a handle with a lane of its own. Where the collector has no lanes of threads
    /// ([`Lanes::Shared`](crate::config::Lanes::Shared)), or all are taken, it collects through the shared ring.
    pub fn local(&self) -> Producer<E> {
        let lane = self.shared.lanes.threads().and_then(|pool| pool.own_lane());
        Producer { lane, collector: self.clone() }
    }
}

impl<E: Event> Producer<E> {
    /// Collects an event, as [`Collector::collect`] does.
    #[inline(always)]
    pub fn collect(&self, event: impl Into<E>) -> Outcome {
        self.collector.collect_from(self.way(), event.into())
    }

    /// Collects an event without waiting, or returns it if it is rejected, as [`Collector::try_collect`] does.
    ///
    /// # Errors
    ///
    /// The event was rejected and counted. The error returns it.
    pub fn try_collect(&self, event: impl Into<E>) -> Result<Outcome, CollectError<E>> {
        self.collector.try_collect_from(self.way(), event.into())
    }

    #[inline(always)]
    fn way(&self) -> Way<'_, E> {
        self.lane.as_ref().map_or(Way::Ring, Way::Own)
    }

    /// Returns the collector.
    pub fn collector(&self) -> &Collector<E> {
        &self.collector
    }

    /// Returns whether it has a lane of its own.
    pub fn has_lane(&self) -> bool {
        self.lane.is_some()
    }
}

impl<E: Event> fmt::Debug for Producer<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("has_lane", &self.has_lane()).finish_non_exhaustive()
    }
}
