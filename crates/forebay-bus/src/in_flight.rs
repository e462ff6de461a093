//! Events on their way to handlers, and the wait for their end.

use std::collections::VecDeque;
use std::time::Instant;

use forebay::Batch;
use forebay_sync::sync::{Arc, Condvar, Mutex, Ordering, PlainU64, Weak, announce_fence};

use super::envelope::Envelope;

/// Batch of events on its way to handlers. All deliveries of its events share it; it ends with the last of them.
pub(super) struct InFlight {
    /// Catches the panics of its events' destructors itself.
    batch: Batch<Envelope>,
    /// Set where its end is waited for; `None` if nobody waits for it.
    set: Option<Arc<InFlightSet>>,
}

impl InFlight {
    /// Wraps a batch that no flush waits for.
    pub(super) fn untracked(batch: Batch<Envelope>) -> Arc<Self> {
        Arc::new(Self { batch, set: None })
    }

    pub(super) fn batch(&self) -> &Batch<Envelope> {
        &self.batch
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(set) = &self.set {
            // The last reference to this batch is gone. Whoever starts to wait either sees that, or is counted here.
            announce_fence();
            if set.waiting.load(Ordering::Relaxed) > 0 {
                set.notify();
            }
        }
    }
}

/// Set of all batches that a flush waits for.
#[derive(Default)]
pub(super) struct InFlightSet {
    /// Batches that may not have ended, oldest first.
    batches: Mutex<VecDeque<Weak<InFlight>>>,
    /// Held by a waiter between its check and its wait.
    check: Mutex<()>,
    ended: Condvar,
    /// The number of waiting threads.
    waiting: PlainU64,
}

impl InFlightSet {
    /// Adds a batch, whose end is waited for from now on.
    pub(super) fn add(self: &Arc<Self>, batch: Batch<Envelope>) -> Arc<InFlight> {
        let in_flight = Arc::new(InFlight { batch, set: Some(Arc::clone(self)) });
        let mut batches = self.batches.lock();
        // Batches that have ended are only searched for when the list would grow.
        if batches.len() == batches.capacity() {
            batches.retain(|batch| batch.strong_count() > 0);
        }
        batches.push_back(Arc::downgrade(&in_flight));
        in_flight
    }

    /// Waits until all batches that were added before this call have ended. Returns `false` when the deadline came first.
    pub(super) fn await_all(&self, deadline: Option<Instant>) -> bool {
        let batches: Vec<_> = {
            let mut batches = self.batches.lock();
            batches.retain(|batch| batch.strong_count() > 0);
            batches.iter().cloned().collect()
        };
        let have_ended = || batches.iter().all(|batch| batch.strong_count() == 0);
        let mut check = self.check.lock();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // See `InFlight::drop`.
        announce_fence();
        let mut is_late = false;
        while !have_ended() && !is_late {
            is_late = self.ended.wait_until(&mut check, deadline);
        }
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        have_ended()
    }

    fn notify(&self) {
        // Taken and released, so that the notification does not fall between the check and the wait of a waiter.
        drop(self.check.lock());
        self.ended.notify_all();
    }
}
