//! Counts of a bus: how many events came, and how long calls take.

use std::time::Duration;

use forebay::parts::Count;
use forebay_sync::sync::{CachePadded, thread_index};

/// Counters of a bus, spread so that workers do not meet. All Relaxed: they are counts, not signals.
#[derive(Debug, Default)]
pub(super) struct Tally {
    calls: [CachePadded<Calls>; 8],
    /// Events that came to the handlers.
    pub(super) events: Count,
}

/// Counts of the calls that some of the threads have made.
#[derive(Debug)]
struct Calls {
    nanos: Count,
    /// Calls by the number of bits of their duration in nanoseconds.
    by_length: [Count; 64],
}

impl Default for Calls {
    fn default() -> Self {
        Self { nanos: Count::default(), by_length: std::array::from_fn(|_| Count::default()) }
    }
}

impl Tally {
    pub(super) fn note_call(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let calls = &self.calls[thread_index() % self.calls.len()];
        calls.nanos.add(nanos);
        calls.by_length[(63 - (nanos | 1).leading_zeros()) as usize].add(1);
    }

    pub(super) fn busy(&self) -> Duration {
        Duration::from_nanos(self.calls.iter().map(|calls| calls.nanos.get()).sum())
    }

    fn lengths(&self) -> [u64; 64] {
        std::array::from_fn(|bits| self.calls.iter().map(|calls| calls.by_length[bits].get()).sum())
    }

    pub(super) fn calls(&self) -> u64 {
        self.lengths().iter().sum()
    }

    /// Returns how long a call takes, in the mean.
    pub(super) fn mean(&self) -> Duration {
        let calls = u32::try_from(self.calls()).unwrap_or(u32::MAX);
        self.busy().checked_div(calls).unwrap_or_default()
    }

    /// Returns how long that part of the calls take at most, to within a factor of two.
    pub(super) fn quantile(&self, part: f64) -> Duration {
        let lengths = self.lengths();
        let wanted = (lengths.iter().sum::<u64>() as f64 * part).ceil() as u64;
        let mut seen = 0;
        let longest = lengths.iter().position(|calls| {
            seen += calls;
            wanted > 0 && seen >= wanted
        });
        longest.map_or(Duration::ZERO, |bits| Duration::from_nanos(2 << bits.min(62)))
    }
}
