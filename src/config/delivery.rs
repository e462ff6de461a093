//! When events are delivered, and what a full lane does.

use std::time::Duration;

/// When the worker delivers what is pending.
///
/// A critical event is delivered at once, together with everything that is pending, under every strategy
/// but `Manual`. `flush` and `stop` deliver everything under every strategy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FlushStrategy {
    /// Every event is delivered within `interval` of its collection. The timer starts with the first
    /// event and no later event postpones it. Half a lane of events is delivered earlier, so that a
    /// ring does not overflow while the worker sleeps.
    Time {
        /// The longest that an event waits, apart from the time its delivery takes. Not zero.
        interval: Duration,
    },
    /// Events are delivered when `events` of them are pending. A smaller rest stays until more events,
    /// a `flush` or a `stop` come.
    Size {
        /// How many pending events set off a delivery. At least 1.
        events: usize,
    },
    /// Whichever of the two comes first.
    Hybrid {
        /// How many pending events set off a delivery. At least 1.
        events: usize,
        /// The longest that an event waits. Not zero.
        interval: Duration,
    },
    /// Nothing is delivered until `flush` or `stop` is called, critical events included. Meanwhile the
    /// rings overflow as the overflow policy says.
    Manual,
}

impl Default for FlushStrategy {
    /// `Hybrid` with 100 events and one second.
    fn default() -> Self {
        Self::Hybrid { events: 100, interval: Duration::from_secs(1) }
    }
}

impl FlushStrategy {
    /// The longest wait, for the strategies that have one.
    pub(crate) fn interval(self) -> Option<Duration> {
        match self {
            Self::Time { interval } | Self::Hybrid { interval, .. } => Some(interval),
            Self::Size { .. } | Self::Manual => None,
        }
    }

    /// The number of events that sets off a delivery, for the strategies that have one.
    pub(crate) fn events(self) -> Option<usize> {
        match self {
            Self::Size { events } | Self::Hybrid { events, .. } => Some(events),
            Self::Time { .. } | Self::Manual => None,
        }
    }
}

/// What happens to a normal or low event that finds its lane full.
///
/// Critical events know no policy: their lane evicts nothing, and a full one makes the caller wait for
/// up to [`Config::critical_timeout`](crate::Config::critical_timeout).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// The oldest queued event of the lane makes room, and is counted as evicted. Its destructor runs on
    /// the collecting thread. This is the default: a training run would rather see what happens now.
    #[default]
    DropOldest,
    /// The new event is refused ([`Outcome::Full`](crate::Outcome::Full)).
    DropNewest,
    /// The caller waits for room, then is refused. The one policy under which `collect` may wait; it
    /// never does on the worker thread itself, where nobody could make room.
    Block {
        /// The longest wait. `Duration::MAX` waits for as long as the collector runs.
        timeout: Duration,
    },
}
