//! `Owner`: the end of the last handle.

use crate::event::Event;
use crate::shared::Shared;
use crate::sync::{Arc, Ordering, is_failing_model};
use crate::wake::State;

/// Guard that stops the collector when the last handle is dropped.
pub(super) struct Owner<E: Event>(Arc<Shared<E>>);

impl<E: Event> Owner<E> {
    pub(super) fn of(shared: &Arc<Shared<E>>) -> Self {
        Self(Arc::clone(shared))
    }
}

impl<E: Event> Drop for Owner<E> {
    fn drop(&mut self) {
        if is_failing_model() {
            return;
        }
        if self.0.phase.load().state() == State::Forked {
            // Rings and sinks are the parent's. A slot may be half-written, and a dropped sink may write what it
            // holds. So they stay untouched until this process ends.
            std::mem::forget(Arc::clone(&self.0));
            return;
        }
        // The worker ends the sinks too, so that this thread does not wait for their slow destructors.
        self.0.is_disowned.store(1, Ordering::Relaxed);
        if self.0.is_worker() {
            // A sink drops the last handle. The worker ends by itself, because it cannot wait for itself.
            self.0.phase.close();
        } else {
            // It ends by its deadline. Nobody is left to read the result.
            let _ = self.0.stop(self.0.settings.config().drop_timeout);
            if self.0.phase.load().state() == State::Forked {
                // A sink or an event has forked meanwhile, and this is the child.
                std::mem::forget(Arc::clone(&self.0));
            }
        }
    }
}
