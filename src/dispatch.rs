//! One batch to all sinks, each fenced off from the others.
//!
//! Sinks are foreign code: a call may fail or panic, at any time. Both are counted under the name of the
//! sink, and the next sink gets the batch all the same.

use std::time::Instant;

use crate::batch::Batch;
use crate::clock;
use crate::event::Event;
use crate::sink::{Account, Isolated, PendingFlush, Sink, SinkError};
use crate::stats::{Registry, SinkTally};
use crate::sync::{Arc, Home, Ordering, guarded};

/// A sink and its account, behind a fence: what it does is counted, and its panics end here. Owned by whichever thread
/// calls it.
pub(crate) struct Fenced<E> {
    sink: Box<dyn Sink<E>>,
    account: Account,
    /// In a forked child of it, the sink is the parent's: it is neither called nor dropped there.
    home: Home,
}

/// Stands in for a sink that has ended.
struct Ended;

impl<E> Sink<E> for Ended {
    fn name(&self) -> &str {
        "ended"
    }

    fn write_batch(&mut self, _: &Batch<E>) -> Result<(), SinkError> {
        Ok(())
    }
}

impl<E> Drop for Fenced<E> {
    fn drop(&mut self) {
        let sink = std::mem::replace(&mut self.sink, Box::new(Ended));
        if self.home.is_left() {
            return std::mem::forget(sink);
        }
        // Its destructor is foreign code too.
        if let Err(said) = guarded(|| drop(sink))
            && !self.home.is_left()
        {
            self.account.tally().note_panic(said);
        }
    }
}

impl<E> Fenced<E> {
    /// Opens the sink.
    pub(crate) fn new(sink: Box<dyn Sink<E>>, account: Account) -> Self {
        let mut fenced = Self { sink, account: account.clone(), home: Home::here() };
        if let Err(said) = guarded(|| fenced.sink.open(account))
            && !fenced.home.is_left()
        {
            fenced.account.tally().note_panic(said);
        }
        fenced
    }

    /// Offers a batch to the sink; how many of its events were delivered, and failed. The others it has kept.
    pub(crate) fn write(&mut self, batch: &Batch<E>) -> (u64, u64) {
        let (before, passed) = (self.account.kept(), self.account.passed());
        let outcome = self.guarded(|sink| sink.write_batch(batch));
        if batch.check().is_err() {
            // The sink has forked on a thread of the user, and this is the child: the account is the parent's.
            return (0, 0);
        }
        // What it has kept, it settles itself.
        let kept = self.account.kept().saturating_sub(before);
        let events = (batch.len() as u64).saturating_sub(kept);
        let failed = match outcome {
            Ok(()) => {
                // A batch that was kept tells nothing yet, and one that was routed past the sink never does.
                if events > 0 && self.account.passed() == passed {
                    self.account.tally().went_well();
                }
                0
            }
            Err(None) => events,
            Err(Some(error)) => error.failed_of(events),
        };
        (events - failed, failed)
    }

    /// Flushes the sink; what goes wrong is counted.
    pub(crate) fn flush(&mut self) {
        if self.guarded(|sink| sink.flush()).is_err() && !self.home.is_left() {
            self.account.tally().flush_errors.add(1);
        }
    }

    /// Begins a flush that another thread will finish, if the sink is of that kind. After a panic it is over, and not clean:
    /// whoever waits for it finds that in the account.
    pub(crate) fn begin_flush(&mut self) -> Option<PendingFlush> {
        if self.home.is_left() {
            return None;
        }
        guarded(|| self.sink.begin_flush()).unwrap_or_else(|said| {
            if self.home.is_left() {
                return None;
            }
            self.account.tally().flush_errors.add(1);
            self.account.tally().note_panic(said);
            Some(PendingFlush::over())
        })
    }

    /// Whether it is to be taken out.
    pub(crate) fn is_over(&self) -> bool {
        if self.home.is_left() {
            return false;
        }
        guarded(|| self.sink.is_over()).unwrap_or_else(|said| {
            if !self.home.is_left() {
                self.account.tally().note_panic(said);
            }
            false
        })
    }

    /// Ends the sink.
    pub(crate) fn end(self) -> Account {
        self.account.clone()
    }

    /// Runs one call of the sink and counts what goes wrong. The error is that of the sink, unless it panicked.
    fn guarded(
        &mut self,
        call: impl FnOnce(&mut dyn Sink<E>) -> Result<(), SinkError>,
    ) -> Result<(), Option<SinkError>> {
        // A sink that panics stays in service, as its contract says; it must cope with its own state. Its error
        // is read and its source dropped in here, because that is its code as well.
        let told = |error: SinkError| (error.to_string(), error.without_source());
        if self.home.is_left() {
            return Err(None);
        }
        match guarded(|| call(&mut *self.sink).map_err(told)) {
            Ok(Ok(())) => Ok(()),
            // It has forked on a thread of the user, and this is the child: no lock of the account is taken.
            _ if self.home.is_left() => Err(None),
            Ok(Err((said, error))) => {
                self.account.tally().note_error(said, error.is_panic());
                Err(Some(error))
            }
            Err(said) => {
                self.account.tally().note_panic(said);
                Err(None)
            }
        }
    }
}

/// A sink of a collector. Owned by the worker while there is one, else by the mailbox.
pub(crate) struct Slot<E> {
    fenced: Fenced<E>,
    pub(crate) tally: Arc<SinkTally>,
}

/// A flush that another thread finishes, and whose it is.
pub(crate) struct LateFlush {
    pub(crate) pending: PendingFlush,
    pub(crate) tally: Arc<SinkTally>,
    pub(crate) begun: Instant,
}

impl LateFlush {
    /// Waits for it, for as long as that sink is waited for, and until the deadline; whether it was done in time.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> bool {
        let own = self.begun.checked_add(self.pending.within);
        let first = match (own, deadline) {
            (Some(own), Some(deadline)) => Some(own.min(deadline)),
            (own, deadline) => own.or(deadline),
        };
        self.pending.reply.answer_by(first) == Some(true)
    }
}

/// The queue of a sink that asks for a thread of its own, in batches.
const QUEUE: usize = 64;

/// A sink as it goes into a slot: one that may wait would let all others wait with it.
pub(crate) struct Prepared<E> {
    sink: Box<dyn Sink<E>>,
    name: String,
    /// What its own code said when it panicked before it had an account.
    panics: Vec<String>,
    /// Before its own code was called, which may have forked.
    home: Home,
}

/// Why a sink could not be entered.
pub(crate) enum NotEntered {
    /// Another one has its name.
    Taken(String),
    /// Its own code has forked, and this is the child.
    Forked,
}

/// The name of a sink whose name panics.
pub(crate) const UNNAMED: &str = "unnamed";

impl<E: Event> Prepared<E> {
    pub(crate) fn new(sink: Box<dyn Sink<E>>) -> Self {
        let (mut panics, home) = (Vec::new(), Home::here());
        let name = guarded(|| sink.name().to_owned()).unwrap_or_else(|said| {
            panics.push(said);
            UNNAMED.to_owned()
        });
        let asked = || !home.is_left() && sink.may_wait();
        let may_wait = guarded(asked).unwrap_or_else(|said| {
            panics.push(said);
            false
        });
        let sink = if may_wait && !home.is_left() {
            Box::new(Isolated::named(name.clone(), sink, QUEUE))
        } else {
            sink
        };
        Self { sink, name, panics, home }
    }

    /// Opens an account under its name.
    pub(crate) fn enter(self, registry: &Registry) -> Result<Slot<E>, NotEntered> {
        let Self { sink, name, panics, home } = self;
        if home.is_left() {
            std::mem::forget(sink);
            return Err(NotEntered::Forked);
        }
        let Some(tally) = registry.enter(&name) else {
            // Its destructor is foreign code.
            _ = guarded(|| drop(sink));
            return Err(if home.is_left() { NotEntered::Forked } else { NotEntered::Taken(name) });
        };
        panics.into_iter().for_each(|said| tally.note_panic(said));
        let slot = Slot::new(sink, tally);
        if home.is_left() { Err(NotEntered::Forked) } else { Ok(slot) }
    }
}

impl<E: Event> Slot<E> {
    pub(crate) fn new(sink: Box<dyn Sink<E>>, tally: Arc<SinkTally>) -> Self {
        let fenced = Fenced::new(sink, Account::new(Arc::clone(&tally)));
        Self { fenced, tally }
    }
}

impl<E> Slot<E> {
    /// Offers a batch to the sink and counts what becomes of it.
    fn write(&mut self, batch: &Batch<E>) {
        let events = batch.len() as u64;
        self.tally.in_flight.store(events, Ordering::Relaxed);
        self.tally.offered.bump(events);
        let (begun, (delivered, failed)) = self.busy(|fenced| fenced.write(batch));
        self.tally.write_nanos.add(clock::nanos().saturating_sub(begun));
        self.tally.failed.add(failed);
        self.tally.delivered.add(delivered);
        self.tally.in_flight.store(0, Ordering::Relaxed);
    }

    /// Flushes the sink; what goes wrong is counted.
    pub(crate) fn flush(&mut self) {
        self.busy(Fenced::flush);
    }

    /// Whether it is to be taken out.
    pub(crate) fn is_over(&self) -> bool {
        self.fenced.is_over()
    }

    /// See [`LateFlush`].
    pub(crate) fn begin_flush(&mut self) -> Option<LateFlush> {
        let pending = self.busy(Fenced::begin_flush).1?;
        Some(LateFlush { pending, tally: Arc::clone(&self.tally), begun: Instant::now() })
    }

    /// Ends the sink.
    pub(crate) fn end(self) -> Arc<SinkTally> {
        drop(self.fenced.end());
        self.tally
    }

    /// Notes since when a call goes on; when that was, and what it returned.
    fn busy<R>(&mut self, call: impl FnOnce(&mut Fenced<E>) -> R) -> (u64, R) {
        let begun = clock::nanos();
        self.tally.busy_since.store(begun, Ordering::Relaxed);
        let result = call(&mut self.fenced);
        self.tally.busy_since.store(0, Ordering::Relaxed);
        (begun, result)
    }
}

/// Offers a batch to all sinks in turn.
pub(crate) fn dispatch<E>(slots: &mut [Slot<E>], batch: &Batch<E>) {
    for slot in slots {
        slot.write(batch);
        if batch.check().is_err() {
            return;
        }
    }
}
