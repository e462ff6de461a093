//! The end of the last handle.

use crate::event::Event;
use crate::shared::Shared;
use crate::sync::{Arc, Ordering, is_failing_model};
use crate::wake::State;

/// Stops the collector when the last handle is dropped.
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
            // Rings and sinks are the parent's: a slot may be half-written, and a sink that is dropped may write
            // what it holds. They stay, untouched, until this process ends.
            std::mem::forget(Arc::clone(&self.0));
            return;
        }
        // The worker ends the sinks too, so that a slow destructor of theirs is not ours to wait for.
        self.0.is_disowned.store(1, Ordering::Relaxed);
        if self.0.is_worker() {
            // A sink drops the last handle: the worker ends by itself, it cannot wait for itself.
            self.0.phase.close();
        } else {
            // It ends by its deadline. Nobody is left to be told how it went.
            let _ = self.0.stop(self.0.settings.config().drop_timeout);
            if self.0.phase.load().state() == State::Forked {
                // A sink or an event has forked in there, and this is the child.
                std::mem::forget(Arc::clone(&self.0));
            }
        }
    }
}
