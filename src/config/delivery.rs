//! `FlushStrategy`: when events are delivered. `Overflow`: what a full lane does.

use std::time::Duration;

/// Rule by which the worker delivers what is pending.
///
/// A critical event is delivered at once, together with everything that is pending, under every strategy but
/// `Manual`. `flush` and `stop` deliver everything under every strategy.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use forebay::{Collector, FlushStrategy, Record, sink::MemorySink};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let memory = MemorySink::new();
/// let collector = Collector::builder().flush(FlushStrategy::Manual).sink(memory.clone()).start()?;
/// collector.collect(Record::new("waits.for.a.flush"));
/// collector.flush()?;
/// assert_eq!(memory.len(), 1);
/// let hourly = FlushStrategy::Time { interval: Duration::from_secs(3600) };
/// collector.update_config(|config| config.flush = hourly)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FlushStrategy {
    /// Every event is delivered within `interval` of its collection. The timer starts with the first event, and no
    /// later event postpones it. Half a lane of events is delivered earlier, so that a ring does not overflow while
    /// the worker sleeps.
    Time {
        /// The longest wait of an event, apart from the time of its delivery. Not zero.
        interval: Duration,
    },
    /// Events are delivered when `events` of them are pending; while events keep coming, up to
    /// [`max_nap`](crate::Config::max_nap) later. A smaller rest stays until more events, a `flush` or a `stop` come.
    Size {
        /// Number of pending events that sets off a delivery. At least 1.
        events: usize,
    },
    /// Events are delivered when `events` are pending or `interval` is over, whichever comes first. While events keep coming,
    /// `events` are delivered up to [`max_nap`](crate::Config::max_nap) later, and never after the interval.
    Hybrid {
        /// Number of pending events that sets off a delivery. At least 1.
        events: usize,
        /// The longest wait of an event, apart from the time of its delivery. Not zero.
        interval: Duration,
    },
    /// Delivery by `flush` and `stop` alone, also of critical events. Meanwhile the rings overflow as the overflow
    /// policy says.
    Manual,
}

impl Default for FlushStrategy {
    /// Returns `Hybrid` with 100 events and one second.
    fn default() -> Self {
        Self::Hybrid { events: 100, interval: Duration::from_secs(1) }
    }
}

impl FlushStrategy {
    /// Returns the longest wait, for the strategies that have one.
    pub(crate) fn interval(self) -> Option<Duration> {
        match self {
            Self::Time { interval } | Self::Hybrid { interval, .. } => Some(interval),
            Self::Size { .. } | Self::Manual => None,
        }
    }

    /// Returns the number of events that sets off a delivery, for the strategies that have one.
    #[doc(hidden)]
    pub fn events(self) -> Option<usize> {
        match self {
            Self::Size { events } | Self::Hybrid { events, .. } => Some(events),
            Self::Time { .. } | Self::Manual => None,
        }
    }
}

/// How normal events travel to the worker.
///
/// ```
/// use forebay::config::Lanes;
/// use forebay::{Collector, Record};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let collector = Collector::builder().lanes(Lanes::PerThread { max: 0 }).start()?;
/// collector.collect(Record::scalar("train.loss", 0.5));
/// assert_eq!(collector.stop()?.stats.processed, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Lanes {
    /// Through one ring for all threads ([`Config::shards`](crate::Config::shards) makes it several). All events come in the order in
    /// which they were collected.
    #[default]
    Shared,
    /// Each thread that collects has a lane of its own, so that threads do not wait for each other's cache lines. `collect` has one
    /// fence, without which a worker that falls asleep at that moment would miss the event. What is different from a shared ring:
    ///
    /// * Events of one thread keep their order. Those of several come in runs of up to 64, unless
    ///   [`ordered_by_time`](crate::Builder::ordered_by_time) merges them.
    /// * Events are evicted by the block, up to 64 at once. [`Outcome::QueuedEvicting`](crate::Outcome::QueuedEvicting) is the outcome of the
    ///   call that evicts the block. The counts are exact. A thread gives its own oldest events before those of others. An evicted event
    ///   is dropped when its slot is needed, by the thread that needs it, and its bytes count until then.
    /// * Beside `capacity` events there is space for 64 of each lane, and for `capacity` events of threads without a lane.
    /// * "Pending" in a flush strategy means the fullest lane times the number of lanes that were ever in use at once. With 16 of them, a
    ///   thread that collects alone wakes the worker 16 times as often. Raise `flush.events` with the number of threads.
    /// * For the bytes of an event, a thread evicts what lies in full blocks or in its own open one. What others have in their open
    ///   blocks, up to 64 events each, it cannot evict; where that holds the bytes, its event is rejected.
    /// * A block that the worker has emptied in part is whole again only when the worker comes back. So the space may be a block for each
    ///   lane less than that for a while.
    /// * A thread takes a lane at its first event, which allocates, and gives it back when it ends. A thread that comes while
    ///   all lanes are taken shares a ring with others, for as long as it lives. What the destructors of a thread's thread-local values collect goes through that ring, and may
    ///   come before earlier events of the thread.
    /// * A signal handler must not collect.
    PerThread {
        /// Most threads that have a lane at the same time: 1 to 1024, or 0 for four for each processor and at least 16.
        max: usize,
    },
}

/// Policy for a normal or low event that finds its lane full.
///
/// It does not apply to critical events. Their lane evicts nothing, and a full one makes the caller wait for up to
/// [`Config::critical_timeout`](crate::Config::critical_timeout).
///
/// # Examples
///
/// ```
/// use forebay::{Collector, Outcome, Overflow, Record};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // Not started, so nobody makes space.
/// let full = |overflow| -> Result<Outcome, forebay::collector::BuildError> {
///     let collector = Collector::builder().capacity(1).overflow(overflow).build()?;
///     collector.collect(Record::new("first"));
///     Ok(collector.collect(Record::new("second")))
/// };
/// assert_eq!(full(Overflow::DropOldest)?, Outcome::QueuedEvicting);
/// assert_eq!(full(Overflow::DropNewest)?, Outcome::Full);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// The oldest queued event of the lane is evicted and counted. Its destructor runs on the collecting thread. This
    /// is the default, because a training run prefers recent events.
    #[default]
    DropOldest,
    /// The new event is rejected ([`Outcome::Full`](crate::Outcome::Full)).
    DropNewest,
    /// The caller waits for space, then its event is rejected. It is the one policy under which `collect` may wait.
    /// It never waits on the worker thread itself, where nobody could make space.
    Block {
        /// The longest wait. `Duration::MAX` waits for as long as the collector runs.
        timeout: Duration,
    },
}
