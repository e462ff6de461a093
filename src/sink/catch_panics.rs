//! `CatchPanics`: one sink whose panics and errors end in its account.

use super::account::{Account, Hook, PendingFlush};
use super::{Sink, SinkError};
use crate::batch::Batch;
use crate::sync::{Home, catch_panic};

/// The name of a sink whose name panics.
pub(crate) const UNNAMED: &str = "unnamed";

/// Sink and its account: what the sink does is counted, and its panics end here. Owned by the thread that calls it.
pub(crate) struct CatchPanics<E> {
    sink: Box<dyn Sink<E>>,
    account: Account,
    /// Process of the sink. In a forked child of it, the sink is the parent's: it is neither called nor dropped there.
    home: Home,
}

/// Placeholder of a sink that has ended.
struct Ended;

impl<E> Sink<E> for Ended {
    fn name(&self) -> &str {
        "ended"
    }

    fn write_batch(&mut self, _: &Batch<E>) -> Result<(), SinkError> {
        Ok(())
    }
}

impl<E> Drop for CatchPanics<E> {
    fn drop(&mut self) {
        let sink = std::mem::replace(&mut self.sink, Box::new(Ended));
        if self.home.is_left() {
            return std::mem::forget(sink);
        }
        // Its destructor is user code too.
        if let Err(said) = catch_panic(|| drop(sink))
            && !self.home.is_left()
        {
            self.account.tally().note_panic(said);
        }
    }
}

impl<E> CatchPanics<E> {
    /// Opens the sink.
    pub(crate) fn new(sink: Box<dyn Sink<E>>, account: Account) -> Self {
        let mut this = Self { sink, account: account.clone(), home: Home::here() };
        if let Err(said) = catch_panic(|| this.sink.hook(Hook::Open(&account)))
            && !this.home.is_left()
        {
            this.account.tally().note_panic(said);
        }
        this
    }

    /// Offers a batch to the sink; how many of its events were delivered, and failed. The others it has kept.
    pub(crate) fn write(&mut self, batch: &Batch<E>) -> (u64, u64) {
        let (before, passed) = (self.account.kept(), self.account.passed());
        let outcome = self.catch_panic(|sink| sink.write_batch(batch));
        if batch.check().is_err() {
            // The sink has forked on a thread of the user, and this is the child: the account is the parent's.
            return (0, 0);
        }
        // What it has kept, it completes itself.
        let kept = self.account.kept().saturating_sub(before);
        let events = (batch.len() as u64).saturating_sub(kept);
        let failed = match outcome {
            Ok(()) => {
                // A batch that was kept tells nothing yet, and one that was routed past the sink never does.
                if events > 0 && self.account.passed() == passed {
                    self.account.tally().record_success();
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
        if self.catch_panic(|sink| sink.flush()).is_err() && !self.home.is_left() {
            self.account.tally().flush_errors.add(1);
        }
    }

    /// Begins a flush that another thread will finish, if the sink is of that kind. After a panic it is over, and not clean:
    /// whoever waits for it finds that in the account.
    pub(crate) fn begin_flush(&mut self) -> Option<PendingFlush> {
        if self.home.is_left() {
            return None;
        }
        let mut pending = None;
        if let Err(said) = catch_panic(|| self.sink.hook(Hook::BeginFlush(&mut pending))) {
            if self.home.is_left() {
                return None;
            }
            self.account.tally().flush_errors.add(1);
            self.account.tally().note_panic(said);
            pending = Some(PendingFlush::over());
        }
        pending
    }

    /// Returns whether it is to be taken out.
    pub(crate) fn is_over(&mut self) -> bool {
        if self.home.is_left() {
            return false;
        }
        let mut is_over = false;
        if let Err(said) = catch_panic(|| self.sink.hook(Hook::IsOver(&mut is_over))) {
            if !self.home.is_left() {
                self.account.tally().note_panic(said);
            }
            is_over = false;
        }
        is_over
    }

    /// Ends the sink.
    pub(crate) fn end(self) -> Account {
        self.account.clone()
    }

    /// Runs one call of the sink and counts what goes wrong. The error is that of the sink, unless it panicked.
    fn catch_panic(
        &mut self,
        call: impl FnOnce(&mut dyn Sink<E>) -> Result<(), SinkError>,
    ) -> Result<(), Option<SinkError>> {
        // A sink that panics stays in service, as its contract says; it must cope with its own state. Its error
        // is read and its source dropped in here, because that is its code as well.
        let describe = |error: SinkError| (error.to_string(), error.without_source());
        if self.home.is_left() {
            return Err(None);
        }
        match catch_panic(|| call(&mut *self.sink).map_err(describe)) {
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
