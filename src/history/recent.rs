//! The last records, in memory.

use std::collections::VecDeque;

use super::{EventQuery, History, HistoryError};
use crate::batch::Batch;
use crate::event::Record;
use crate::sink::{Sink, SinkError};
use crate::sync::{Arc, Mutex};

/// A sink that keeps the last `N` records and can be asked for them. A clone is the same history.
///
/// It takes no more memory than `N` records and what they own.
#[derive(Debug, Clone)]
pub struct Recent<const N: usize> {
    name: String,
    records: Arc<Mutex<VecDeque<Record>>>,
}

impl<const N: usize> Recent<N> {
    /// Keeps nothing yet. As a sink it is named `recent`.
    pub fn new() -> Self {
        let records = Arc::new(Mutex::new(VecDeque::with_capacity(N.min(1 << 16))));
        Self { name: "recent".to_owned(), records }
    }

    /// Gives it another name, so that a collector can have several. A [bus](crate::bus::Bus) without a journal has one of its
    /// own, named `recent`.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How many records it has.
    pub fn len(&self) -> usize {
        self.records.lock().len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<const N: usize> Default for Recent<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Sink<Record> for Recent<N> {
    fn name(&self) -> &str {
        &self.name
    }

    fn write_batch(&mut self, batch: &Batch<Record>) -> Result<(), SinkError> {
        batch.check()?;
        let mut records = self.records.lock();
        for record in batch.events().iter().skip(batch.len().saturating_sub(N)) {
            if records.len() == N {
                records.pop_front();
            }
            records.push_back(record.clone());
        }
        Ok(())
    }
}

impl<const N: usize> History for Recent<N> {
    fn query(&self, query: &EventQuery) -> Result<Vec<Record>, HistoryError> {
        let records = self.records.lock();
        let found = query.select(records.iter());
        Ok(found.into_iter().cloned().collect())
    }
}
