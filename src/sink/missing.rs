//! How many events did not get into a file, until the file itself has told so.

use std::time::SystemTime;

use crate::batch::Batch;

/// The account of a sink that marks what is missing. A batch that is offered again, by whoever tries again, is counted
/// once.
#[derive(Debug, Default)]
pub(super) struct Missing {
    events: u64,
    /// The batch that failed last, and what it added.
    failed: Option<((u64, SystemTime), u64)>,
}

impl Missing {
    /// How many events to tell of before those of this batch.
    pub(super) fn before<E>(&mut self, batch: &Batch<E>) -> u64 {
        if let Some((failed, added)) = self.failed.take()
            && failed == (batch.number(), batch.time())
        {
            self.events -= added;
        }
        self.events + batch.gap()
    }

    /// The batch did not get in.
    pub(super) fn add<E>(&mut self, batch: &Batch<E>) {
        if batch.is_redriven() {
            // They were added when they failed first.
            return;
        }
        let added = batch.gap() + batch.len() as u64;
        self.events += added;
        self.failed = Some(((batch.number(), batch.time()), added));
    }

    /// It was told, and the batch got in, but for that many of its events.
    pub(super) fn told(&mut self, refused: u64) {
        *self = Self { events: refused, failed: None };
    }
}
