//! Keeps what it gets, for tests and for looking at the last events of a running program.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use super::{Sink, SinkError};
use crate::batch::Batch;
use crate::clock::deadline_in;
use crate::event::Record;
use crate::sync::{Arc, Condvar, Mutex};

/// Sink that keeps batches in memory. A clone is another view of the same memory: give one to the
/// collector and look through the other.
///
/// It keeps everything, for as long as nobody clears it; [`keep_last`](Self::keep_last) bounds it. In a forked child it is
/// its parent's, and says that it is empty.
///
/// ```
/// use std::time::Duration;
/// use forebay::{Collector, Record, sink::MemorySink};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let memory = MemorySink::new();
/// let collector = Collector::builder().sink(memory.clone()).start()?;
/// collector.collect(Record::scalar("train.loss", 0.5));
/// collector.flush()?;
/// assert!(memory.wait_for(1, Duration::ZERO));
/// assert_eq!(memory.events()[0].name(), "train.loss");
/// # Ok(())
/// # }
/// ```
pub struct MemorySink<E = Record> {
    name: String,
    shared: Arc<Shared<E>>,
}

struct Shared<E> {
    kept: Mutex<Kept<E>>,
    grown: Condvar,
}

struct Kept<E> {
    /// Old batches are evicted as long as the rest holds that many events.
    max_events: usize,
    batches: VecDeque<Batch<E>>,
    /// Events in `batches`.
    events: usize,
    /// Events ever received, those that were cleared or pushed out included.
    received: u64,
}

impl<E> MemorySink<E> {
    /// Creates a sink named `memory` that keeps everything.
    pub fn new() -> Self {
        let kept = Kept { max_events: usize::MAX, batches: VecDeque::new(), events: 0, received: 0 };
        let shared = Arc::new(Shared { kept: Mutex::new(kept), grown: Condvar::new() });
        Self { name: "memory".to_owned(), shared }
    }

    /// Sets the name that it is counted under, `memory` by default.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Evicts the oldest batches as soon as the rest holds at least `events` events. It holds for all clones.
    pub fn keep_last(self, events: usize) -> Self {
        if let Ok(mut kept) = self.shared.kept.enter() {
            kept.max_events = events;
        }
        self
    }

    /// Returns the batches that the sink holds, oldest first. They are shared, not copied.
    pub fn batches(&self) -> Vec<Batch<E>> {
        self.shared.kept.enter().map_or_else(|_| Vec::new(), |kept| kept.batches.iter().cloned().collect())
    }

    /// Returns the events that it holds, in the order of their delivery.
    pub fn events(&self) -> Vec<E>
    where
        E: Clone,
    {
        self.batches().iter().flatten().cloned().collect()
    }

    /// Returns how many events it holds.
    pub fn len(&self) -> usize {
        self.shared.kept.enter().map_or(0, |kept| kept.events)
    }

    /// Returns whether it holds no event.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many events it ever received, those that it holds no longer included.
    pub fn received(&self) -> u64 {
        self.shared.kept.enter().map_or(0, |kept| kept.received)
    }

    /// Removes everything but the number of events received.
    pub fn clear(&self) {
        let Ok(mut kept) = self.shared.kept.enter() else { return };
        kept.events = 0;
        let cleared = std::mem::take(&mut kept.batches);
        drop(kept);
        drop(cleared);
    }

    /// Waits until `events` events were received in all; `false` when `timeout` passed first.
    pub fn wait_for(&self, events: u64, timeout: Duration) -> bool {
        let deadline = deadline_in(timeout);
        let Ok(mut kept) = self.shared.kept.enter() else { return false };
        while kept.received < events {
            if self.shared.grown.wait_until(&mut kept, deadline) {
                return kept.received >= events;
            }
        }
        true
    }
}

impl<E: Send + Sync> Sink<E> for MemorySink<E> {
    fn name(&self) -> &str {
        &self.name
    }

    fn write_batch(&mut self, batch: &Batch<E>) -> Result<(), SinkError> {
        batch.check()?;
        let mut kept = self.shared.kept.enter()?;
        kept.received += batch.len() as u64;
        kept.events += batch.len();
        kept.batches.push_back(batch.clone());
        let mut evicted = Vec::new();
        while let Some(oldest) = kept.batches.front() {
            if kept.events - oldest.len() < kept.max_events {
                break;
            }
            kept.events -= oldest.len();
            evicted.extend(kept.batches.pop_front());
        }
        self.shared.grown.notify_all();
        drop(kept);
        drop(evicted);
        Ok(())
    }
}

impl<E> Default for MemorySink<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E> Clone for MemorySink<E> {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<E> fmt::Debug for MemorySink<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySink")
            .field("name", &self.name)
            .field("events", &self.len())
            .finish_non_exhaustive()
    }
}
