//! Emission of events, and the path by which they go on.

use std::time::Duration;

use forebay::collector::State;
use forebay::config::ConfigError;
use forebay::event::{EventId, Text};
use forebay::parts::{Inside, check};
use forebay::{Event, Fields, Name, Outcome, Priority, Record, Value};
use forebay_sync::sync::{Ordering, Weak, catch_panic};

use super::config::Mode;
use super::context;
use super::envelope::{Envelope, Mark};
use super::name::{NAME_RULE, is_name};
use super::shared::Shared;

/// Outcome of an event that was emitted. It may be ignored.
///
/// ```
/// use forebay_bus::{Bus, EventId};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::new()?;
/// let id = bus.emit("a.b", ())?.id;
/// assert_eq!((id.session(), id.number()), (bus.collector().session_id().to_owned(), 1));
/// assert_eq!(id.to_string().parse::<EventId>()?, id);
/// assert_ne!(id, Bus::new()?.emit("a.b", ())?.id);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// Id of the event.
    pub id: EventId,
    /// Outcome: taken, or why not, as for [`Collector::collect`](forebay::Collector::collect). Inline, `Queued` says that
    /// it was given to its handlers; to those that a stop had closed meanwhile it counts as cancelled.
    pub outcome: Outcome,
}

/// Outcome of an event whose handlers were waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SyncReceipt {
    /// Id of the event.
    pub id: EventId,
    /// Outcome: taken, or why not.
    pub outcome: Outcome,
    /// Results of its handlers. `None` if nobody waited for that: it was emitted in a handler, or it was not taken, or
    /// it was lost on its way.
    pub calls: Option<Calls>,
}

/// Results of the first calls of all handlers of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Calls {
    /// Handlers that took it.
    pub handled: u64,
    /// Handlers that failed. They may be called again later.
    pub failed: u64,
    /// Handlers that were not called: unsubscribed, or stopped meanwhile.
    pub cancelled: u64,
}

/// Error of an event that was not emitted, because of what it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EmitError {
    /// The name of the event is not allowed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Too many events led to it, each emitted by a handler of the one before.
    #[error("event {name:?} exceeds the maximum handler depth ({depth} > {max})")]
    TooDeep {
        /// Name of the event.
        name: String,
        /// Number of events that led to it.
        depth: u32,
        /// Maximum number that is allowed.
        max: u32,
    },
    /// The handlers were not done in time. They go on.
    #[error("the handlers of the event were not done within {waited:?}")]
    TimedOut {
        /// Time that the call waited.
        waited: Duration,
    },
}

/// Options of an event, beside its name and data. By default there are none.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EmitOptions {
    /// Priority, which selects the lane: critical events come before all others.
    pub priority: Priority,
    /// Correlation id, instead of that of the [scope](super::correlate).
    pub correlation_id: Option<Text>,
    /// Source: who emits the event.
    pub source: Option<Text>,
    /// Anything else.
    pub metadata: Fields,
}

impl EmitOptions {
    /// Returns options that set nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`priority`](Self::priority).
    pub fn with_priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Sets [`correlation_id`](Self::correlation_id).
    pub fn with_correlation_id(mut self, id: impl Into<Text>) -> Self {
        self.correlation_id = Some(id.into());
        self
    }

    /// Sets [`source`](Self::source).
    pub fn with_source(mut self, source: impl Into<Text>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds to [`metadata`](Self::metadata).
    pub fn with_metadata(mut self, name: impl Into<Name>, value: impl Into<Value>) -> Self {
        self.metadata.set(name, value);
        self
    }
}

/// Emitter of events that does not keep the bus alive: for handlers. Made by [`Bus::emitter`](super::Bus::emitter).
#[derive(Debug, Clone)]
pub struct Emitter(pub(super) Weak<Shared>);

impl Emitter {
    /// Emits an event: see [`Bus::emit`](super::Bus::emit). The outcome is [`Outcome::Stopped`] if the bus is gone.
    ///
    /// # Errors
    ///
    /// As for [`Bus::emit`](super::Bus::emit).
    pub fn emit(&self, name: impl Into<Name>, data: impl Into<Value>) -> Result<Receipt, EmitError> {
        self.emit_record(Record::with_value(name, data))
    }

    /// Emits a record: see [`Bus::emit_record`](super::Bus::emit_record).
    ///
    /// # Errors
    ///
    /// As for [`Bus::emit`](super::Bus::emit).
    pub fn emit_record(&self, record: impl Into<Record>) -> Result<Receipt, EmitError> {
        match Weak::upgrade(&self.0) {
            Some(shared) => shared.emit(record.into(), Mark::default()),
            None => Ok(Receipt { id: EventId::default(), outcome: Outcome::Stopped }),
        }
    }
}

/// Limit of the time that an emitting thread waits for space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    None,
    OfSettings,
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
}

impl Shared {
    /// Emits an event of the bus itself, to which so many events led. The depth ends a chain of handlers that answer such an
    /// event with what caused it.
    pub(super) fn emit_own_at(&self, record: Record, depth: u32) {
        self.counts.own.add(1);
        if depth > self.engine.config.max_depth {
            self.counts.too_deep.add(1);
            return;
        }
        let mut mark = Mark::default();
        mark.depth = depth;
        // It is lost where the bus stops, or is full: a worker and the scheduler must not wait for space that they make. An event
        // that it evicts ends here, and its destructor is user code.
        let _ = catch_panic(|| self.take(record, mark, Patience::None));
    }

    /// Emits an event of the user.
    pub(super) fn emit(&self, mut record: Record, mut mark: Mark) -> Result<Receipt, EmitError> {
        self.counts.emitted.add(1);
        let name = Event::name(&record);
        check("name", format_args!("{name:?}"), NAME_RULE, is_name(name))
            .inspect_err(|_| self.counts.misnamed.add(1))?;
        let (depth, max) = (context::depth(), self.engine.config.max_depth);
        if depth > max {
            self.counts.too_deep.add(1);
            return Err(EmitError::TooDeep { name: name.to_owned(), depth, max });
        }
        if Event::correlation_id(&record).is_none()
            && let Some(id) = context::correlation()
        {
            record.extra_mut().correlation_id = Some(id);
        }
        mark.depth = depth;
        let patience = if self.is_inside() { Patience::None } else { Patience::OfSettings };
        Ok(self.take(record, mark, patience))
    }

    fn take(&self, mut record: Record, mark: Mark, patience: Patience) -> Receipt {
        let id = EventId::new(self.session, self.next_event.fetch_add(1, Ordering::Relaxed));
        record.set_event_id(id);
        let event = Envelope::new(record, mark);
        // After the push, also where the event that it evicts panics: a flush that sees no more of them has missed none.
        let _completes = OnDrop(|| self.counts.completed.add(1));
        // In a forked child no filter is asked: the event is refused below.
        let outcome = if self.check().is_ok() && !self.lets_in(&event) {
            self.counts.filtered.add(1);
            Outcome::Filtered
        } else if self.mode() == Mode::Inline {
            self.take_inline(event)
        } else {
            match patience {
                // A worker must not wait for space that handlers make.
                Patience::None => {
                    self.collector.try_collect(event).unwrap_or_else(|refused| refused.reason.into())
                }
                Patience::OfSettings => self.collector.collect(event),
            }
        };
        Receipt { id, outcome }
    }

    /// Returns whether all filters let the event in. A filter that is removed meanwhile is not asked.
    fn lets_in(&self, record: &Record) -> bool {
        self.filters.load().iter().all(|added| !added.permit.begin() || added.filter.lets_in(record))
    }

    fn take_inline(&self, event: Envelope) -> Outcome {
        let state = self.collector.state();
        if self.engine.is_refusing() || !matches!(state, State::Idle | State::WorkerGone) {
            self.counts.stopped.add(1);
            return if state == State::Forked { Outcome::Forked } else { Outcome::Stopped };
        }
        let collector = Inside::of(&self.collector);
        if let Err(reason) = collector.admit(&event) {
            return reason.into();
        }
        self.counts.inline.add(1);
        self.sinks.write(&event);
        if self.check().is_err() {
            // A sink has forked, and this is the child.
            return Outcome::Forked;
        }
        collector.note_delivered(&event, self.counts.inline.get());
        // In one piece: an event that is emitted meanwhile is handled after this one.
        let caller = context::enter(self.engine.address());
        self.engine.dispatch_one(event);
        if caller.is_some() {
            self.engine.serve_all(None);
        }
        Outcome::Queued
    }
}
