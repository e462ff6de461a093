//! `Mailbox`: requests to the worker, and the worker's state while no worker runs.
//!
//! Requests never travel in the rings, where a flood of events could evict them. They lie in a mailbox behind a
//! mutex. The worker empties it before it drains the rings, so a flush covers every event whose `collect` returned
//! before the request. Every request carries the place for its answer. A worker that ends, well or badly, leaves no
//! request without one.

mod requests;
pub(crate) use requests::{Flush, Flushed, Removal, ReportedRange, Requests};

use crate::dispatch::{LateFlush, Slot};
use crate::reply::Reply;
use crate::sync::{Arc, Condvar, Forked, JoinHandle, Mutex, MutexGuard, wake_quietly};

/// Mailbox of a collector. Between two runs it keeps `W`, the worker's state.
pub(crate) struct Mailbox<E, W> {
    pub(crate) contents: Mutex<Contents<E, W>>,
    /// Notified when a worker has returned its state, or is lost.
    pub(crate) ended: Condvar,
}

/// Contents of the mailbox.
pub(crate) struct Contents<E, W> {
    /// Requests that the worker has not taken yet. Waiting callers bound their number: a request leaves with the
    /// worker, or with its caller.
    pub(crate) requests: Requests,
    /// Sinks that the worker has not admitted yet.
    pub(crate) added: Vec<Slot<E>>,
    pub(crate) worker: WorkerSlot<W>,
    /// Flushes of the last run that other threads have to finish.
    pub(crate) late: Vec<Arc<LateFlush>>,
    /// The thread of the current or last run. The caller that joins it takes it. A worker that wakes tasks at its end
    /// takes it first, and then nobody joins.
    pub(crate) thread: Option<JoinHandle<()>>,
    /// Reply by which tasks wait for the end of the current run. The first that does makes it.
    pub(crate) end: Option<Arc<Reply<()>>>,
    /// Counts the starts. A caller that waits for the end of a run must not wait for that of the next.
    pub(crate) run: u64,
}

/// Place of the worker's state: its sinks, its numbering and its parker.
pub(crate) enum WorkerSlot<W> {
    /// The state is in the mailbox: no worker runs.
    InMailbox(Box<W>),
    /// Still in the mailbox, but a worker was started and is about to take it.
    Starting(Box<W>),
    /// The worker has the state.
    WithWorker,
    /// A worker that ended by a panic had the state. It does not come back.
    Lost,
}

impl<E, W: AsMut<Vec<Slot<E>>>> Mailbox<E, W> {
    pub(crate) fn new(worker: W) -> Self {
        let worker = WorkerSlot::InMailbox(Box::new(worker));
        let (added, late) = (Vec::new(), Vec::new());
        let contents =
            Contents { requests: Requests::default(), added, worker, late, thread: None, end: None, run: 0 };
        Self { contents: Mutex::new(contents), ended: Condvar::new() }
    }

    /// Removes and returns the requests so far, for the worker.
    pub(crate) fn take_requests(&self) -> Requests {
        std::mem::take(&mut self.contents.lock().requests)
    }

    /// Moves the sinks that were added into `slots`, for the worker.
    pub(crate) fn admit(&self, slots: &mut Vec<Slot<E>>) {
        slots.append(&mut self.contents.lock().added);
    }

    /// Returns whether there is no request. The worker looks once more after it announced sleep. A later request
    /// finds `Asleep` in the phase word, by the order of this mutex, and wakes the worker.
    pub(crate) fn has_no_requests(&self) -> bool {
        let contents = self.contents.lock();
        let requests = &contents.requests;
        !requests.wants_sweep() && !requests.is_reconfigured && !requests.has_finished_sinks
    }

    /// Locks the settings: while the value lives, nobody else changes them.
    pub(crate) fn reconfigure(&self) -> Result<Reconfiguring<'_, E, W>, Forked> {
        self.contents.enter().map(Reconfiguring)
    }

    /// Makes the state ready for a worker, as `start` does.
    #[cfg(any(test, forebay_loom))]
    pub(crate) fn prepare_worker(&self) {
        let mut contents = self.contents.lock();
        if let WorkerSlot::InMailbox(worker) = std::mem::replace(&mut contents.worker, WorkerSlot::WithWorker)
        {
            contents.worker = WorkerSlot::Starting(worker);
        }
    }

    /// Takes the state, as the worker's first act. Returns `None` when `start` could not create the thread for it.
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

    /// Stores what other threads have to finish of the last flush, for callers of `stop`.
    pub(crate) fn set_late(&self, late: Vec<LateFlush>) {
        self.contents.lock().late = late.into_iter().map(Arc::new).collect();
    }

    /// Returns the state to the mailbox, with the sinks that were added meanwhile, and wakes those who wait for the
    /// end, as the worker's last act. While there are requests to answer, it fails and hands both back.
    pub(crate) fn return_worker(&self, mut worker: Box<W>) -> Result<(), (Box<W>, Requests)> {
        let mut contents = self.contents.lock();
        (*worker).as_mut().append(&mut contents.added);
        if contents.requests.wants_sweep() || contents.requests.has_finished_sinks {
            return Err((worker, std::mem::take(&mut contents.requests)));
        }
        contents.worker = WorkerSlot::InMailbox(worker);
        self.report_end(contents, Requests::default());
        Ok(())
    }

    /// Removes and returns the sinks of a collector that has no worker, for another caller.
    pub(crate) fn take_slots(&self) -> Vec<Slot<E>> {
        match &mut self.contents.lock().worker {
            WorkerSlot::InMailbox(worker) => std::mem::take((**worker).as_mut()),
            _ => Vec::new(),
        }
    }

    /// Prevents a start of the collector while the value lives.
    pub(crate) fn hold(&self) -> impl Sized + '_ {
        self.contents.lock()
    }

    /// Notes that the worker ended by a panic, and wakes those that wait for its end. Answers the requests, so that
    /// nobody waits for an answer that cannot come.
    pub(crate) fn lose_worker(&self) {
        let mut contents = self.contents.lock();
        contents.worker = WorkerSlot::Lost;
        let requests = std::mem::take(&mut contents.requests);
        self.report_end(contents, requests);
    }

    /// Wakes all threads and tasks that wait for the end of the run. Before the tasks, it drops the requests of a lost
    /// worker, which answers them.
    fn report_end(&self, mut contents: MutexGuard<'_, Contents<E, W>>, requests: Requests) {
        self.ended.notify_all();
        // Under our lock, so that no task adds a waker once it is decided whether the thread is joined.
        let wakers = contents.end.take().and_then(|end| end.store(Some(()))).unwrap_or_default();
        // A waker is user code: it must not run under our lock, and it may block. So nobody joins a thread that runs
        // some: its handle goes.
        let detached = if wakers.is_empty() { None } else { contents.thread.take() };
        drop(contents);
        drop(detached);
        drop(requests);
        wakers.into_iter().for_each(wake_quietly);
    }
}

/// Locked mailbox of a caller that changes the settings.
pub(crate) struct Reconfiguring<'a, E, W>(MutexGuard<'a, Contents<E, W>>);

impl<E, W> Reconfiguring<'_, E, W> {
    /// Requests that the worker reads the settings. A worker that starts reads them anyway.
    pub(crate) fn post(&mut self) {
        self.0.requests.is_reconfigured = true;
    }
}
