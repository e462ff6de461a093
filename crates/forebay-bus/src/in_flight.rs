//! Events on their way to handlers, and the wait for their end.

use std::collections::VecDeque;
use std::time::Instant;

use forebay::Batch;
use forebay_sync::sync::{Arc, AtomicU32, AtomicU64, Condvar, Mutex, Ordering, announce_fence};

use super::envelope::Envelope;

/// Batch of events on its way to handlers. All deliveries of its events share it; it ends with the last of them.
pub(super) struct InFlight {
    /// Catches the panics of its events' destructors itself.
    batch: Batch<Envelope>,
    /// `None` if nobody waits for its end.
    tracked: Option<Tracked>,
}

/// What a batch has whose end is waited for.
struct Tracked {
    set: Arc<InFlightSet>,
    end: Arc<BatchEnd>,
}

/// Mark of the end of a batch: 0 until the last reference to the batch is gone, then 1 for ever. Written by the thread that drops that reference;
/// read by threads that wait.
#[derive(Default)]
struct BatchEnd(AtomicU32);

impl BatchEnd {
    fn note(&self) {
        // Release pairs with the Acquire of `has_come`: without it, a thread that has waited might not see what the handlers did.
        self.0.store(1, Ordering::Release);
    }

    fn has_come(&self) -> bool {
        self.0.load(Ordering::Acquire) != 0
    }
}

impl InFlight {
    /// Wraps a batch that no flush waits for.
    pub(super) fn untracked(batch: Batch<Envelope>) -> Arc<Self> {
        Arc::new(Self { batch, tracked: None })
    }

    pub(super) fn batch(&self) -> &Batch<Envelope> {
        &self.batch
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(Tracked { set, end }) = &self.tracked {
            end.note();
            // A thread that starts to wait either sees that, or is counted here: without this fence, or that of `await_all`, each of the two
            // threads might miss what the other one wrote, and the waiter would sleep for ever.
            announce_fence();
            // Relaxed: the fences order it, and what it reads is a number alone.
            if set.waiting.load(Ordering::Relaxed) > 0 {
                set.notify();
            }
        }
    }
}

/// Set of all batches that a flush waits for.
#[derive(Default)]
pub(super) struct InFlightSet {
    /// The ends of batches that may not have ended, oldest first.
    ends: Mutex<VecDeque<Arc<BatchEnd>>>,
    /// Held by a waiter between its check and its wait.
    check: Mutex<()>,
    ended: Condvar,
    /// Number of threads that wait, or are about to. Each counts itself; read by the thread that ends a batch.
    waiting: AtomicU64,
}

impl InFlightSet {
    /// Adds a batch, whose end is waited for from now on.
    pub(super) fn add(self: &Arc<Self>, batch: Batch<Envelope>) -> Arc<InFlight> {
        let end = Arc::<BatchEnd>::default();
        let mut ends = self.ends.lock();
        // Batches that have ended are only searched for when the list would grow.
        if ends.len() == ends.capacity() {
            ends.retain(|end| !end.has_come());
        }
        ends.push_back(Arc::clone(&end));
        drop(ends);
        Arc::new(InFlight { batch, tracked: Some(Tracked { set: Arc::clone(self), end }) })
    }

    /// Waits until all batches that were added before this call have ended. Returns `false` when the deadline came first.
    pub(super) fn await_all(&self, deadline: Option<Instant>) -> bool {
        let ends: Vec<_> = {
            let mut ends = self.ends.lock();
            ends.retain(|end| !end.has_come());
            ends.iter().cloned().collect()
        };
        let have_ended = || ends.iter().all(|end| end.has_come());
        let mut check = self.check.lock();
        // Relaxed: the fence orders it before the look at the ends.
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
