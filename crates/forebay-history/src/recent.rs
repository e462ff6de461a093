//! The last records, in memory.

use std::collections::VecDeque;

use forebay::parts::{Panics, owned_bytes};
use forebay::sink::{Sink, SinkError};
use forebay::{Batch, Record};
use forebay_sync::sync::{Arc, Mutex};

use crate::{EventQuery, History, HistoryError};

/// Sink that keeps the last `N` records, and history of them. A clone is the same history. It takes every event that has a record
/// inside: `AsRef<Record>`. An event whose `AsRef` panics fails alone.
///
/// In a forked child, a query is refused and all counts are 0: the history is its parent's.
///
/// It takes no more memory than `N` records, and [`max_bytes`](Self::max_bytes) for what they own, but for one record: the
/// oldest are evicted.
#[derive(Debug, Clone)]
pub struct Recent<const N: usize> {
    name: String,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug)]
struct Kept {
    records: VecDeque<Record>,
    max_bytes: u64,
    /// Bytes that the records own.
    bytes: u64,
    evicted: u64,
}

impl Kept {
    /// Takes a record in. Evicts the oldest one if it is full.
    fn push(&mut self, record: Record, max: usize) {
        if max == 0 {
            return;
        }
        // Before it comes in: one more than there is space for would double the room.
        if self.records.len() >= max {
            self.pop();
        }
        if self.records.len() == self.records.capacity() {
            let more = self.records.len().clamp(1, max - self.records.len());
            self.records.reserve_exact(more);
        }
        self.bytes = self.bytes.saturating_add(owned_bytes(&record));
        self.records.push_back(record);
        self.make_room();
    }

    fn make_room(&mut self) {
        while self.bytes > self.max_bytes && self.records.len() > 1 {
            self.pop();
            self.evicted += 1;
        }
    }

    fn pop(&mut self) {
        let oldest = self.records.pop_front();
        self.bytes = self.bytes.saturating_sub(oldest.as_ref().map_or(0, owned_bytes));
    }
}

impl<const N: usize> Recent<N> {
    /// Makes an empty history. As a sink it is named `recent`.
    pub fn new() -> Self {
        let records = VecDeque::with_capacity(N.min(1 << 16));
        let kept = Kept { records, max_bytes: 50 << 20, bytes: 0, evicted: 0 };
        Self { name: "recent".to_owned(), kept: Arc::new(Mutex::new(kept)) }
    }

    /// Changes how many bytes the records may own beyond their own size
    /// ([`Event::size_hint`](forebay::Event::size_hint)). Defaults to 50 MiB.
    pub fn max_bytes(self, bytes: usize) -> Self {
        if let Ok(mut kept) = self.kept.enter() {
            kept.max_bytes = bytes as u64;
            kept.make_room();
        }
        self
    }

    /// Returns how many of the last `N` records were evicted for their bytes.
    pub fn evicted(&self) -> u64 {
        self.kept.enter().map_or(0, |kept| kept.evicted)
    }

    /// Sets the name, so that a collector can have several. A bus without a journal has one of its own, named `recent`.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Returns how many records it has.
    pub fn len(&self) -> usize {
        self.kept.enter().map_or(0, |kept| kept.records.len())
    }

    /// Returns whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<const N: usize> Default for Recent<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E: AsRef<Record>, const N: usize> Sink<E> for Recent<N> {
    fn name(&self) -> &str {
        &self.name
    }

    fn write_batch(&mut self, batch: &Batch<E>) -> Result<(), SinkError> {
        let mut panics = Panics::of("an event's AsRef<Record>");
        let last = batch.events().iter().skip(batch.len().saturating_sub(N));
        // User code: not under the lock.
        let records: Vec<Record> = last.filter_map(|event| panics.catch(|| event.as_ref().clone())).collect();
        let offered = records.len();
        // Refuses in a forked child, whose parent delivers this batch.
        let mut kept = self.kept.enter()?;
        records.into_iter().for_each(|record| kept.push(record, N));
        panics.join(Ok(()), offered)
    }
}

impl<const N: usize> History for Recent<N> {
    fn query(&self, query: &EventQuery) -> Result<Vec<Record>, HistoryError> {
        let refused = |source| HistoryError { place: self.name.clone(), source: Box::new(source) };
        let kept = self.kept.enter().map_err(refused)?;
        let found = query.select(kept.records.iter().map(Ok::<_, HistoryError>));
        found.map(|record| record.cloned()).collect()
    }
}
