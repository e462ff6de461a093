//! An event as a handler gets it.

use std::any::Any;
use std::fmt;
use std::ops::Deref;
use std::time::{Instant, SystemTime};

use forebay::Record;
use forebay::event::EventId;
use forebay_sync::sync::Arc;

use super::envelope::{Envelope, Progress};
use super::in_flight::InFlight;

/// Event, as it is given to a handler: a [`Record`] that nobody changes any more, and which call for it this is. All
/// handlers share one.
pub struct Delivery {
    /// The batch that holds the event.
    pub(super) in_flight: Arc<InFlight>,
    /// The index of the event in its batch.
    pub(super) index: usize,
    /// Number of calls that failed before this one.
    pub(super) attempt: u32,
    /// The dead letter that it was, if it is one that is offered again.
    pub(super) redriven: Option<Box<EarlierLetter>>,
    /// Time when the first call began, if another call is to be made.
    pub(super) begun: Option<Instant>,
    /// True if the event was deferred: a stop without time keeps it like an event that failed.
    pub(super) is_kept: bool,
    /// The batch by whose end a flush waits for it, once its retry is due.
    pub(super) awaited_by: Option<Arc<InFlight>>,
}

/// Dead letter as it was before it was offered again.
pub(super) struct EarlierLetter {
    pub(super) attempts: u32,
    pub(super) error: String,
    pub(super) time: SystemTime,
}

impl Delivery {
    /// Delivers an event of a batch for the first time.
    pub(super) fn new(in_flight: &Arc<InFlight>, index: usize) -> Self {
        let in_flight = Arc::clone(in_flight);
        Self { in_flight, index, attempt: 0, redriven: None, begun: None, is_kept: false, awaited_by: None }
    }

    /// Moves the event into a batch of its own that no flush waits for. The batches that it shared are pushed to `remains`:
    /// events may end with them.
    pub(super) fn detach(&mut self, remains: &mut Vec<Arc<InFlight>>) {
        remains.extend(self.awaited_by.take());
        self.is_kept = true;
        let batch = self.in_flight.batch();
        // A copy of the event has no ticket: it could not tell whoever waits for its first call.
        let is_awaited = self.attempt == 0 && self.envelope().mark.ticket.is_some();
        let own = match batch.len() {
            1 => batch.clone(),
            _ if is_awaited => batch.clone(),
            _ => {
                let own = batch.with_events(vec![self.envelope().clone()]);
                self.index = 0;
                own
            }
        };
        remains.push(std::mem::replace(&mut self.in_flight, InFlight::untracked(own)));
    }

    /// Returns the event with what the bus keeps with it.
    pub(super) fn envelope(&self) -> &Envelope {
        &self.in_flight.batch().events()[self.index]
    }

    /// Returns how many bytes the event owns beyond its own size.
    pub(super) fn owned_bytes(&self) -> u64 {
        self.envelope().owned_bytes()
    }

    /// Tells whoever waits for the handlers of this event.
    pub(super) fn report(&self, change: impl FnOnce(&mut Progress)) {
        if let Some(ticket) = &self.envelope().mark.ticket {
            ticket.change(change);
        }
    }

    /// Returns the id of the event, as [`Receipt::id`](super::Receipt::id) reported it: the same for all handlers and
    /// all calls, and unique across runs.
    pub fn id(&self) -> EventId {
        self.event_id().unwrap_or_default()
    }

    /// Returns which call for this event this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.redriven.as_ref().map_or(0, |earlier| earlier.attempts) + self.attempt + 1
    }

    /// Returns how many events led to this one.
    pub(super) fn depth(&self) -> u32 {
        self.envelope().mark.depth
    }

    /// Returns what it was emitted as, if that was a `T`.
    pub fn as_type<T: Any>(&self) -> Option<&T> {
        self.envelope().mark.typed.as_ref()?.downcast_ref()
    }
}

impl Deref for Delivery {
    type Target = Record;

    fn deref(&self) -> &Record {
        self.envelope()
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
