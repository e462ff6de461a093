//! What a [bus](crate::bus) keeps with an event on its way. It is no part of what the event says: records that differ in it
//! alone are equal. Of it, sinks write the id alone.

use std::any::Any;
use std::fmt;
use std::time::Instant;

use super::EventId;
use crate::sync::{Arc, Condvar, Mutex};

/// Made when the event is emitted; ends with it.
#[derive(Default)]
pub(crate) struct Mark {
    /// Which event it is.
    pub(crate) id: EventId,
    /// How many events led to it, each emitted by a handler of the one before.
    pub(crate) depth: u32,
    /// What the record was made from, for handlers by type.
    pub(crate) typed: Option<Arc<dyn Any + Send + Sync>>,
    /// Of that, in bytes.
    pub(crate) typed_size: usize,
    /// Where somebody waits for the handlers of this very event. A copy of the event has none.
    pub(crate) ticket: Option<Arc<Ticket>>,
}

impl Mark {
    /// Of an event that was read back.
    pub(crate) fn of_id(id: EventId) -> Self {
        let mut mark = Self::default();
        mark.id = id;
        mark
    }

    /// Of an event that was made from `event`.
    pub(crate) fn of_type<T: Any + Send + Sync>(event: T) -> Self {
        let mut mark = Self::default();
        mark.typed = Some(Arc::new(event));
        mark.typed_size = size_of::<T>();
        mark
    }

    /// Of an event that somebody waits for.
    pub(crate) fn with_ticket(ticket: Arc<Ticket>) -> Self {
        let mut mark = Self::default();
        mark.ticket = Some(ticket);
        mark
    }

    /// About how many bytes it owns.
    pub(super) fn heap_size(&self) -> usize {
        self.typed_size
    }
}

impl Clone for Mark {
    fn clone(&self) -> Self {
        let typed = self.typed.clone();
        Self { id: self.id, depth: self.depth, typed, typed_size: self.typed_size, ticket: None }
    }
}

impl PartialEq for Mark {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        // Evicted, refused or discarded: whoever waits is told. Nothing changes if its handlers were called.
        if let Some(ticket) = &self.ticket {
            ticket.lose();
        }
    }
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mark").field("id", &self.id).field("depth", &self.depth).finish_non_exhaustive()
    }
}

/// Where somebody waits until all handlers of one event were called.
#[derive(Debug, Default)]
pub(crate) struct Ticket {
    state: Mutex<Progress>,
    changed: Condvar,
}

/// What the first calls of an event came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Progress {
    /// How many handlers have it; `None` until that is known.
    expected: Option<u64>,
    pub(crate) handled: u64,
    pub(crate) failed: u64,
    /// Not called after all: unsubscribed or stopped meanwhile.
    pub(crate) cancelled: u64,
    /// It never came to its handlers.
    pub(crate) is_lost: bool,
}

impl Progress {
    fn is_over(&self) -> bool {
        let told = self.handled + self.failed + self.cancelled;
        self.is_lost || self.expected.is_some_and(|expected| told >= expected)
    }
}

impl Ticket {
    /// So many handlers have it; some may have been called already.
    pub(crate) fn expect(&self, handlers: u64) {
        self.change(|progress| progress.expected = Some(handlers));
    }

    /// The event has ended. Of no meaning once it came to its handlers.
    fn lose(&self) {
        self.change(|progress| progress.is_lost |= progress.expected.is_none());
    }

    /// Notes what a call came to.
    pub(crate) fn change(&self, note: impl FnOnce(&mut Progress)) {
        let mut state = self.state.lock();
        note(&mut state);
        let is_over = state.is_over();
        drop(state);
        if is_over {
            self.changed.notify_all();
        }
    }

    /// Waits until all were called; `None` when the deadline came first.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Option<Progress> {
        let mut state = self.state.lock();
        while !state.is_over() {
            if self.changed.wait_until(&mut state, deadline) {
                return state.is_over().then_some(*state);
            }
        }
        Some(*state)
    }
}
