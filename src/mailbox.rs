//! `Mailbox`: what is asked of the worker by name, and the worker's state while no worker runs.
//!
//! Requests never ride in the rings, where a flood of events could evict them. They lie in a mailbox
//! behind a mutex, which the worker empties before it drains: so a flush covers every event whose
//! `collect` returned before it was asked for. Every request carries the place for its answer. A worker
//! that ends, well or badly, leaves no request behind without one.

mod requests;
pub(crate) use requests::{Flush, Flushed, ReportedRange, Requests};

use crate::dispatch::{LateFlush, Slot};
use crate::sync::{Arc, Condvar, Forked, JoinHandle, Mutex, MutexGuard};

/// The mailbox of a collector. Between two runs it keeps `W`, what the worker works with.
pub(crate) struct Mailbox<E, W> {
    pub(crate) contents: Mutex<Contents<E, W>>,
    /// Notified when a worker has returned its state, or is lost.
    pub(crate) ended: Condvar,
}

/// What lies in the mailbox.
pub(crate) struct Contents<E, W> {
    /// Requests that the worker has not taken yet. Bounded by the callers that wait: a request leaves
    /// with the worker, or with its caller.
    pub(crate) requests: Requests,
    /// Sinks that the worker has not admitted yet.
    pub(crate) added: Vec<Slot<E>>,
    pub(crate) worker: WorkerSlot<W>,
    /// What other threads have to finish of the last flush of the run that ended last.
    pub(crate) late: Vec<Arc<LateFlush>>,
    /// Of the run that is going on or ended last; taken by whoever joins it.
    pub(crate) thread: Option<JoinHandle<()>>,
    /// Counts the starts: who waits for the end of a run must not wait for that of the next.
    pub(crate) run: u64,
}

/// Where the worker's state is: its sinks, its numbering and its parker.
pub(crate) enum WorkerSlot<W> {
    /// In the mailbox: no worker runs.
    InMailbox(Box<W>),
    /// Still in the mailbox, but a worker was started and is about to take it.
    Starting(Box<W>),
    /// With the worker.
    WithWorker,
    /// With a worker that ended by a panic. It does not come back.
    Lost,
}

impl<E, W: AsMut<Vec<Slot<E>>>> Mailbox<E, W> {
    pub(crate) fn new(worker: W) -> Self {
        let worker = WorkerSlot::InMailbox(Box::new(worker));
        let (added, late) = (Vec::new(), Vec::new());
        let contents = Contents { requests: Requests::default(), added, worker, late, thread: None, run: 0 };
        Self { contents: Mutex::new(contents), ended: Condvar::new() }
    }

    /// The worker takes what was asked so far.
    pub(crate) fn take_requests(&self) -> Requests {
        std::mem::take(&mut self.contents.lock().requests)
    }

    /// The worker admits the sinks that were added.
    pub(crate) fn admit(&self, slots: &mut Vec<Slot<E>>) {
        slots.append(&mut self.contents.lock().added);
    }

    /// Whether nothing was asked. The worker looks once more after it announced sleep: a request that
    /// comes later finds `Asleep` in the phase word, by the order of this mutex, and rings.
    pub(crate) fn has_no_requests(&self) -> bool {
        let contents = self.contents.lock();
        let requests = &contents.requests;
        !requests.wants_sweep() && !requests.is_reconfigured && !requests.has_finished_sinks
    }

    /// As long as the value lives, nobody else changes the settings.
    pub(crate) fn reconfigure(&self) -> Result<Reconfiguring<'_, E, W>, Forked> {
        self.contents.enter().map(Reconfiguring)
    }

    /// Makes the state ready for a worker, as `start` does.
    #[cfg(test)]
    pub(crate) fn prepare_worker(&self) {
        let mut contents = self.contents.lock();
        if let WorkerSlot::InMailbox(worker) = std::mem::replace(&mut contents.worker, WorkerSlot::WithWorker)
        {
            contents.worker = WorkerSlot::Starting(worker);
        }
    }

    /// The worker's first act: takes its state. `None` when `start` found no thread to give it to.
    pub(crate) fn take_worker(&self) -> Option<Box<W>> {
        let mut contents = self.contents.lock();
        match std::mem::replace(&mut contents.worker, WorkerSlot::WithWorker) {
            WorkerSlot::Starting(worker) => Some(worker),
            other => {
                contents.worker = other;
                None
            }
        }
    }

    /// What other threads have to finish of the last flush: for whoever stops.
    pub(crate) fn set_late(&self, late: Vec<LateFlush>) {
        self.contents.lock().late = late.into_iter().map(Arc::new).collect();
    }

    /// The worker's last act: returns its state, with the sinks that were added meanwhile. Not while there are
    /// requests to answer: then both come back.
    pub(crate) fn return_worker(&self, mut worker: Box<W>) -> Result<(), (Box<W>, Requests)> {
        let mut contents = self.contents.lock();
        (*worker).as_mut().append(&mut contents.added);
        if contents.requests.wants_sweep() || contents.requests.has_finished_sinks {
            return Err((worker, std::mem::take(&mut contents.requests)));
        }
        contents.worker = WorkerSlot::InMailbox(worker);
        self.ended.notify_all();
        Ok(())
    }

    /// Takes the sinks out of a collector that has no worker: somebody else calls them.
    pub(crate) fn take_slots(&self) -> Vec<Slot<E>> {
        match &mut self.contents.lock().worker {
            WorkerSlot::InMailbox(worker) => std::mem::take((**worker).as_mut()),
            _ => Vec::new(),
        }
    }

    /// As long as the value lives, nobody starts the collector.
    pub(crate) fn hold(&self) -> impl Sized + '_ {
        self.contents.lock()
    }

    /// The worker ended by a panic: nobody waits for an answer that cannot come.
    pub(crate) fn lose_worker(&self) -> Requests {
        let mut contents = self.contents.lock();
        contents.worker = WorkerSlot::Lost;
        self.ended.notify_all();
        std::mem::take(&mut contents.requests)
    }
}

/// The mailbox, held by whoever changes the settings.
pub(crate) struct Reconfiguring<'a, E, W>(MutexGuard<'a, Contents<E, W>>);

impl<E, W> Reconfiguring<'_, E, W> {
    /// Asks the worker to read the settings. One that starts reads them anyway.
    pub(crate) fn post(&mut self) {
        self.0.requests.is_reconfigured = true;
    }
}
