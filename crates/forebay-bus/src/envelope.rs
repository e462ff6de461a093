//! An event of a bus on its way: a record, and what the bus keeps with it.

use std::any::Any;
use std::fmt;
use std::ops::Deref;
use std::time::Instant;

use forebay::{Event, Priority, Record};
use forebay_sync::sync::{Arc, Condvar, Mutex};
use serde::{Serialize, Serializer};

/// Event of a bus, as its [collector](super::Bus::collector) and its sinks get it: a [`Record`], and what the bus keeps with it
/// on its way. A sink of a bus is a `Sink<Envelope>`; the sinks of this crate that write records are that as well.
///
/// ```
/// use forebay_bus::{Bus, Envelope};
/// use forebay::sink::MemorySink;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let memory = MemorySink::<Envelope>::new();
/// let bus = Bus::builder().sink(memory.clone()).start()?;
/// bus.emit("training.started", 7)?;
/// bus.stop()?;
/// assert_eq!(memory.events()[0].name(), "training.started");
/// assert_eq!(memory.events()[0].value().as_i64(), Some(7));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Envelope {
    record: Record,
    pub(super) mark: Mark,
}

impl Envelope {
    pub(super) fn new(record: Record, mark: Mark) -> Self {
        Self { record, mark }
    }

    /// Returns how many bytes it owns beyond its own size.
    pub(super) fn owned_bytes(&self) -> u64 {
        self.size_hint().saturating_sub(size_of::<Self>()) as u64
    }

    /// Returns the record.
    pub fn into_record(self) -> Record {
        self.record
    }
}

impl From<Record> for Envelope {
    fn from(record: Record) -> Self {
        Self::new(record, Mark::default())
    }
}

impl AsRef<Record> for Envelope {
    fn as_ref(&self) -> &Record {
        &self.record
    }
}

impl Deref for Envelope {
    type Target = Record;

    fn deref(&self) -> &Record {
        &self.record
    }
}

impl Event for Envelope {
    fn name(&self) -> &str {
        self.record.name()
    }

    #[inline]
    fn priority(&self) -> Priority {
        Event::priority(&self.record)
    }

    fn made_at(&self) -> Option<u64> {
        self.record.made_at()
    }

    fn correlation_id(&self) -> Option<&str> {
        self.record.correlation_id()
    }

    #[inline]
    fn is_too_deep(&self) -> bool {
        self.record.is_too_deep()
    }

    #[inline]
    fn size_hint(&self) -> usize {
        size_of::<Self>() - size_of::<Record>() + self.record.size_hint() + self.mark.heap_size()
    }
}

impl Serialize for Envelope {
    /// Writes the record.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.record.serialize(serializer)
    }
}

impl fmt::Display for Envelope {
    /// Writes the record.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.record, f)
    }
}

impl fmt::Debug for Envelope {
    /// Writes the record.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.record, f)
    }
}

/// Mark that the bus keeps with a record. Made when the event is emitted; ends with it.
#[derive(Default)]
pub(super) struct Mark {
    /// Number of events that led to it, each emitted by a handler of the one before.
    pub(super) depth: u32,
    /// Value that the record was made from, for handlers by type.
    pub(super) typed: Option<Arc<dyn Any + Send + Sync>>,
    /// Ticket of a thread that waits for the handlers of this very event. A copy of the event has none.
    pub(super) ticket: Option<Arc<Ticket>>,
}

impl Mark {
    /// Makes the mark of an event that was made from `event`.
    pub(super) fn of_type<T: Any + Send + Sync>(event: T) -> Self {
        let mut mark = Self::default();
        mark.typed = Some(Arc::new(event));
        mark
    }

    /// Makes the mark of an event that somebody waits for.
    pub(super) fn with_ticket(ticket: Arc<Ticket>) -> Self {
        let mut mark = Self::default();
        mark.ticket = Some(ticket);
        mark
    }

    /// Returns how many bytes it owns, about.
    fn heap_size(&self) -> usize {
        self.typed.as_ref().map_or(0, |event| size_of_val(&**event))
    }
}

impl Clone for Mark {
    fn clone(&self) -> Self {
        Self { depth: self.depth, typed: self.typed.clone(), ticket: None }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        // Evicted, refused or discarded: whoever waits learns it. Nothing changes if its handlers were called.
        if let Some(ticket) = &self.ticket {
            ticket.lose();
        }
    }
}

/// Ticket by which a thread waits until all handlers of one event were called.
#[derive(Debug, Default)]
pub(super) struct Ticket {
    state: Mutex<Progress>,
    changed: Condvar,
}

/// Results of the first calls of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Progress {
    /// Number of handlers that have the event; `None` until that is known.
    expected: Option<u64>,
    pub(super) handled: u64,
    pub(super) failed: u64,
    /// Number of calls that were not made after all: unsubscribed or stopped meanwhile.
    pub(super) cancelled: u64,
    /// True if the event never came to its handlers.
    pub(super) is_lost: bool,
}

impl Progress {
    fn is_over(&self) -> bool {
        let completed = self.handled + self.failed + self.cancelled;
        self.is_lost || self.expected.is_some_and(|expected| completed >= expected)
    }
}

impl Ticket {
    /// Sets the number of handlers that have the event; some may have been called already.
    pub(super) fn expect(&self, handlers: u64) {
        self.change(|progress| progress.expected = Some(handlers));
    }

    /// Notes that the event has ended. Has no effect once it came to its handlers.
    fn lose(&self) {
        self.change(|progress| progress.is_lost |= progress.expected.is_none());
    }

    /// Notes what a call came to.
    pub(super) fn change(&self, note: impl FnOnce(&mut Progress)) {
        let mut state = self.state.lock();
        note(&mut state);
        let is_over = state.is_over();
        drop(state);
        if is_over {
            self.changed.notify_all();
        }
    }

    /// Waits until all were called; `None` when the deadline came first.
    pub(super) fn wait(&self, deadline: Option<Instant>) -> Option<Progress> {
        let mut state = self.state.lock();
        while !state.is_over() {
            if self.changed.wait_until(&mut state, deadline) {
                return state.is_over().then_some(*state);
            }
        }
        Some(*state)
    }
}
