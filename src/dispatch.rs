//! `dispatch`: one batch to all sinks. What one sink does affects no other.
//!
//! Sinks are user code: a call may fail or panic at any time. Both are counted under the name of the sink, and the
//! next sink gets the batch all the same.

use std::fmt;
use std::task::{Poll, Waker};
use std::time::Instant;

use crate::batch::Batch;
use crate::clock;
use crate::event::Event;
use crate::sink::{Account, CatchPanics, Hook, Isolated, PendingFlush, Sink, UNNAMED};
use crate::stats::{Registry, SinkTally};
use crate::sync::{Arc, Home, Ordering, catch_panic};

/// Sink of a collector with its counters. The worker owns it while there is one, else the mailbox.
pub struct Slot<E> {
    sink: CatchPanics<E>,
    /// Account of the sink.
    pub tally: Arc<SinkTally>,
}

/// Flush that another thread finishes, and the sink to which it belongs.
pub struct LateFlush {
    pub(crate) pending: PendingFlush,
    /// The account of the sink.
    pub tally: Arc<SinkTally>,
    pub(crate) begun: Instant,
}

impl fmt::Debug for LateFlush {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LateFlush").field("sink", &self.tally.name).finish_non_exhaustive()
    }
}

impl LateFlush {
    /// Waits until the flush is complete, the sink's own time limit is over, or the deadline passes. Returns whether
    /// it was complete in time.
    pub fn wait(&self, deadline: Option<Instant>) -> bool {
        let own = self.begun.checked_add(self.pending.timeout);
        let first = match (own, deadline) {
            (Some(own), Some(deadline)) => Some(own.min(deadline)),
            (own, deadline) => own.or(deadline),
        };
        self.pending.reply.answer_by(first) == Some(true)
    }

    /// Returns whether the flush was complete, or stores the waker. There is no timer: whether the sink's own time limit
    /// is over is seen by this call alone.
    pub(crate) fn poll(&self, ticket: &mut Option<u64>, waker: &Waker) -> Poll<bool> {
        match self.pending.reply.poll_shared(ticket, waker) {
            Poll::Ready(answer) => Poll::Ready(answer == Some(true)),
            Poll::Pending if self.begun.elapsed() >= self.pending.timeout => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Capacity, in batches, of the queue of a sink that gets its own thread.
const QUEUE: usize = 64;

/// Sink that is ready for a slot. One that may wait gets its own thread, so that it does not delay all others.
pub(crate) struct Prepared<E> {
    sink: Box<dyn Sink<E>>,
    name: String,
    /// Messages of panics of its code, from before it had an account.
    panics: Vec<String>,
    /// The process before its code was called, which may have forked.
    home: Home,
}

/// Reason why a sink could not be registered.
pub(crate) enum NotRegistered {
    /// Another sink has its name.
    Taken(String),
    /// The code of the sink has forked, and this is the child.
    Forked,
}

impl<E: Event> Prepared<E> {
    pub(crate) fn new(mut sink: Box<dyn Sink<E>>) -> Self {
        let (mut panics, home) = (Vec::new(), Home::here());
        let name = catch_panic(|| sink.name().to_owned()).unwrap_or_else(|message| {
            panics.push(message);
            UNNAMED.to_owned()
        });
        let mut may_wait = false;
        if !home.is_left()
            && let Err(message) = catch_panic(|| sink.hook(Hook::MayWait(&mut may_wait)))
        {
            panics.push(message);
            may_wait = false;
        }
        let sink = if may_wait && !home.is_left() {
            Box::new(Isolated::named(name.clone(), sink, QUEUE))
        } else {
            sink
        };
        Self { sink, name, panics, home }
    }

    /// Opens an account under its name.
    pub(crate) fn register(self, registry: &Registry) -> Result<Slot<E>, NotRegistered> {
        let Self { sink, name, panics, home } = self;
        if home.is_left() {
            std::mem::forget(sink);
            return Err(NotRegistered::Forked);
        }
        let Some(tally) = registry.register(&name) else {
            // Its destructor is user code.
            _ = catch_panic(|| drop(sink));
            return Err(if home.is_left() { NotRegistered::Forked } else { NotRegistered::Taken(name) });
        };
        panics.into_iter().for_each(|message| tally.note_panic(message));
        let slot = Slot::new(sink, tally);
        if home.is_left() { Err(NotRegistered::Forked) } else { Ok(slot) }
    }
}

impl<E: Event> Slot<E> {
    /// Returns the slot of a sink that has an account.
    pub fn new(sink: Box<dyn Sink<E>>, tally: Arc<SinkTally>) -> Self {
        let sink = CatchPanics::new(sink, Account::new(Arc::clone(&tally)));
        Self { sink, tally }
    }
}

impl<E> fmt::Debug for Slot<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("sink", &self.tally.name).finish_non_exhaustive()
    }
}

impl<E> Slot<E> {
    /// Offers a batch to the sink and counts what becomes of it.
    fn write(&mut self, batch: &Batch<E>) {
        let events = batch.len() as u64;
        self.tally.in_flight.store(events, Ordering::Relaxed);
        self.tally.offered.bump(events);
        let (begun, (delivered, failed)) = self.timed_call(|sink| sink.write(batch));
        self.tally.write_nanos.add(clock::nanos().saturating_sub(begun));
        self.tally.failed.add(failed);
        self.tally.delivered.add(delivered);
        self.tally.in_flight.store(0, Ordering::Relaxed);
    }

    /// Flushes the sink and counts what fails.
    pub fn flush(&mut self) {
        self.timed_call(CatchPanics::flush);
    }

    /// Returns whether the sink is finished and must be removed.
    pub(crate) fn is_over(&mut self) -> bool {
        self.sink.is_over()
    }

    /// Starts the flush that the sink's own thread carries out, if it has one. See [`LateFlush`].
    pub fn begin_flush(&mut self) -> Option<LateFlush> {
        let pending = self.timed_call(CatchPanics::begin_flush).1?;
        Some(LateFlush { pending, tally: Arc::clone(&self.tally), begun: Instant::now() })
    }

    /// Ends the sink.
    pub fn end(self) -> Arc<SinkTally> {
        drop(self.sink.end());
        self.tally
    }

    /// Runs a call of the sink and notes since when it has been running. Returns that moment and the result of the
    /// call.
    fn timed_call<R>(&mut self, call: impl FnOnce(&mut CatchPanics<E>) -> R) -> (u64, R) {
        let begun = clock::nanos();
        self.tally.busy_since.store(begun, Ordering::Relaxed);
        let result = call(&mut self.sink);
        self.tally.busy_since.store(0, Ordering::Relaxed);
        (begun, result)
    }
}

/// Sink that was removed.
pub(crate) struct Retired {
    pub(crate) tally: Arc<SinkTally>,
    /// The last flush, if its own thread has to finish it.
    pub(crate) late: Option<LateFlush>,
    /// Ends the sink after that flush. Not earlier, because its end ends the waits of a retry.
    end: Option<Box<dyn FnOnce() + Send>>,
}

impl Drop for Retired {
    fn drop(&mut self) {
        self.end.take().into_iter().for_each(|end| end());
    }
}

/// Flushes and ends a sink that was removed, and frees its name. The caller that waits for the flush ends a sink with
/// a thread of its own.
pub(crate) fn retire<E: Event>(mut slot: Slot<E>, registry: &Registry) -> Retired {
    let home = Home::now();
    slot.flush();
    let (late, tally) = (slot.begin_flush(), Arc::clone(&slot.tally));
    let end = move || drop(slot.end());
    let end: Option<Box<dyn FnOnce() + Send>> = if late.is_some() {
        Some(Box::new(end))
    } else {
        end();
        None
    };
    // Its code may have forked on a thread of the user. The child takes no lock.
    if !home.is_left() {
        registry.remove(&tally.name);
    }
    Retired { tally, late, end }
}

/// Offers a batch to all sinks in turn.
pub fn dispatch<E>(slots: &mut [Slot<E>], batch: &Batch<E>) {
    for slot in slots {
        slot.write(batch);
        if batch.check().is_err() {
            return;
        }
    }
}
