//! User code that is called for every event: where it panics, that event fails alone.

use super::SinkError;
use crate::batch::Batch;
use crate::event::Record;
use crate::sync::catch_panic;

/// The panics of one batch.
#[derive(Debug)]
pub struct Panics {
    /// Name of the code that panicked.
    what: &'static str,
    /// Number of events that it panicked at.
    events: u64,
    /// Message of the first panic.
    said: String,
}

impl Panics {
    /// Creates a count of the panics of the code that `what` names: none so far.
    pub fn of(what: &'static str) -> Self {
        Self { what, events: 0, said: String::new() }
    }

    /// Runs it for one event; `None` if it panics.
    pub fn catch<R>(&mut self, user_code: impl FnOnce() -> R) -> Option<R> {
        match catch_panic(user_code) {
            Ok(result) => Some(result),
            Err(said) => {
                if self.events == 0 {
                    self.said = said;
                }
                self.events += 1;
                None
            }
        }
    }

    /// Returns a batch of the records inside of its events, but for those whose `AsRef` panics.
    pub fn records<'a, E: AsRef<Record>>(&mut self, batch: &'a Batch<E>) -> Batch<&'a Record> {
        batch.with_events(batch.iter().filter_map(|event| self.catch(|| event.as_ref())).collect())
    }

    /// Returns how many events it panicked at.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Returns whether there was none.
    pub(crate) fn is_none(&self) -> bool {
        self.events == 0
    }

    /// Returns what became of these events alone.
    pub(crate) fn error(&self) -> SinkError {
        SinkError::panicked(self.what, &self.said).with_failed_events(self.events)
    }

    /// Tells the sink inside that these events are missing, unless they were offered before: then that was reported.
    pub(crate) fn mark<E>(&self, part: &mut Batch<E>) {
        if !part.is_redriven() {
            part.add_gap(self.events);
        }
    }

    /// Returns what became of the whole batch, if that became of the `offered` events that were left.
    pub fn join(self, rest: Result<(), SinkError>, offered: usize) -> Result<(), SinkError> {
        match rest {
            _ if self.is_none() => rest,
            Ok(()) => Err(self.error()),
            Err(error) => {
                let failed = error.failed_of(offered as u64).saturating_add(self.events);
                Err(error.with_failed_events(failed))
            }
        }
    }
}
