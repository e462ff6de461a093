//! One batch to all sinks, each fenced off from the others.
//!
//! Sinks are foreign code: a call may fail or panic, at any time. Both are counted under the name of the
//! sink, and the next sink gets the batch all the same.

use crate::batch::Batch;
use crate::control::SinkFlush;
use crate::sink::{Sink, SinkError};
use crate::stats::SinkTally;
use crate::sync::{Arc, Ordering, guarded};

/// A sink and its account. Owned by the worker while there is one, else by the mailbox.
pub(crate) struct Slot<E> {
    sink: Box<dyn Sink<E>>,
    pub(crate) tally: Arc<SinkTally>,
    /// What the counters were when a flush last told of them.
    told: Told,
}

#[derive(Debug, Clone, Copy, Default)]
struct Told {
    delivered: u64,
    failed: u64,
    troubles: u64,
}

impl<E> Slot<E> {
    pub(crate) fn new(sink: Box<dyn Sink<E>>, tally: Arc<SinkTally>) -> Self {
        Self { sink, tally, told: Told::default() }
    }

    /// Offers a batch to the sink and counts what becomes of it.
    fn write(&mut self, batch: &Batch<E>) {
        let events = batch.len() as u64;
        self.tally.in_flight.store(events, Ordering::Relaxed);
        self.tally.offered.bump(events);
        let failed = match self.guarded(|sink| sink.write_batch(batch)) {
            Ok(()) => 0,
            Err(failed_events) => failed_events.unwrap_or(events).min(events),
        };
        self.tally.failed.bump(failed);
        self.tally.delivered.bump(events - failed);
        self.tally.in_flight.store(0, Ordering::Relaxed);
    }

    /// Flushes the sink; what goes wrong is counted.
    pub(crate) fn flush(&mut self) {
        if self.guarded(|sink| sink.flush()).is_err() {
            self.tally.flush_errors.bump(1);
        }
    }

    /// What happened since the flush that was told last.
    pub(crate) fn news(&self) -> SinkFlush {
        let (now, told) = (self.tally.snapshot(), self.told);
        SinkFlush {
            delivered: now.delivered - told.delivered,
            failed: now.failed - told.failed,
            error: now.last_error.filter(|_| now.errors + now.panics > told.troubles),
            name: now.name,
        }
    }

    /// The news were told to somebody.
    pub(crate) fn set_told(&mut self) {
        let tally = &self.tally;
        self.told = Told {
            delivered: tally.delivered.get(),
            failed: tally.failed.get(),
            troubles: tally.errors.get() + tally.panics.get(),
        };
    }

    /// Ends the sink; its destructor is foreign code too.
    pub(crate) fn end(self) -> Arc<SinkTally> {
        let Self { sink, tally, .. } = self;
        if let Err(said) = guarded(|| drop(sink)) {
            note_panic(&tally, said);
        }
        tally
    }

    /// Runs one call of the sink and counts what goes wrong. The error is how many events failed, if the sink
    /// said so.
    fn guarded(
        &mut self,
        call: impl FnOnce(&mut dyn Sink<E>) -> Result<(), SinkError>,
    ) -> Result<(), Option<u64>> {
        self.tally.is_busy.store(1, Ordering::Relaxed);
        // A sink that panics stays in service, as its contract says; it must cope with its own state. Its error
        // is read and dropped in here, because that is its code as well.
        let told = |error: SinkError| (error.to_string(), error.failed_events());
        let outcome = guarded(|| call(&mut *self.sink).map_err(told));
        self.tally.is_busy.store(0, Ordering::Relaxed);
        match outcome {
            Ok(Ok(())) => Ok(()),
            Ok(Err((said, failed_events))) => {
                self.tally.errors.bump(1);
                *self.tally.last_error.lock() = Some(said);
                Err(failed_events)
            }
            Err(said) => {
                note_panic(&self.tally, said);
                Err(None)
            }
        }
    }
}

/// Offers a batch to all sinks in turn.
pub(crate) fn dispatch<E>(slots: &mut [Slot<E>], batch: &Batch<E>) {
    for slot in slots {
        slot.write(batch);
    }
}

fn note_panic(tally: &SinkTally, said: String) {
    tally.panics.bump(1);
    *tally.last_error.lock() = Some(format!("panicked: {said}"));
}
