//! What models need that are too small for a whole worker.

use std::fmt;
use std::time::Duration;

use crate::collector::Collector;
use crate::event::Event;
use crate::lanes::LaneCursor;
use crate::shared::Shared;
use crate::stats::FlushReport;
use crate::sync::Arc;
use crate::worker_state::WorkerState;

/// Worker of a model: sleep, drain and stop as they ship, without mailbox, batches, sinks and timers. Dropped, it has ended.
pub struct BareWorker<E: Event> {
    shared: Arc<Shared<E>>,
    /// `None` once it is dropped.
    state: Option<Box<WorkerState<E>>>,
}

impl<E: Event> BareWorker<E> {
    /// Opens a collector that was built and not started. `None` if it was.
    pub fn of(collector: &Collector<E>) -> Option<Self> {
        let shared = Arc::clone(&collector.shared);
        shared.mailbox.prepare_worker();
        let state = shared.mailbox.take_worker()?;
        shared.phase.open();
        Some(Self { shared, state: Some(state) })
    }

    /// Sleeps until `wake_at` events are pending, or something cannot wait.
    pub fn sleep(&self, wake_at: u32) {
        let Some(state) = &self.state else { return };
        self.shared.sleep(wake_at, || state.parker.park_timeout(Duration::MAX));
    }

    /// Announces that it sleeps until `wake_at` events are pending, and does not look nor park, even if it has announced that before.
    /// The model asks who woke it.
    pub fn announce(&self, wake_at: u32) {
        self.shared.phase.set_awake();
        self.shared.phase.fall_asleep(wake_at);
    }

    /// Takes everything that is queued.
    pub fn take(&self) -> Vec<E> {
        self.shared.lanes.take_all()
    }

    /// Takes at most `max` events, and leaves the rest of its round.
    pub fn take_some(&self, max: usize) -> Vec<E> {
        let (mut events, mut cursor) = (Vec::new(), LaneCursor::default());
        let mut pass = self.shared.lanes.begin_pass(&mut cursor);
        self.shared.lanes.take(&mut pass, &mut cursor, &mut events, max);
        events
    }

    /// Takes the requests, then everything that is queued, and answers, in the order of a worker. Returns what it took, and whether
    /// somebody had asked for a flush.
    pub fn serve(&mut self) -> (Vec<E>, bool) {
        let Some(state) = &mut self.state else { return (Vec::new(), false) };
        let requests = self.shared.mailbox.take_requests();
        let events = self.shared.lanes.take_all();
        let report = FlushReport { processed: events.len() as u64, ..FlushReport::default() };
        (events, state.answer(requests, &report, &self.shared.registry))
    }

    /// Stops the collector, and takes everything that came in.
    pub fn stop(&self) -> Vec<E> {
        self.shared.phase.close();
        let mut events = self.take();
        self.shared.phase.set_stopped();
        // Who pushed after the first look takes the event out itself, or it is found here.
        events.extend(self.take());
        events
    }
}

impl<E: Event> Drop for BareWorker<E> {
    fn drop(&mut self) {
        drop(self.stop());
        if let Some(state) = self.state.take() {
            // Nobody has asked for anything.
            _ = self.shared.mailbox.return_worker(state);
        }
    }
}

impl<E: Event> fmt::Debug for BareWorker<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BareWorker").finish_non_exhaustive()
    }
}
