//! How events come in.

use std::any::Any;
use std::time::Duration;

use super::{Bus, Emitter, Mode, Shared, context};
use crate::config::{ConfigError, check};
use crate::event::{Event, EventId, Fields, Mark, Name, Priority, Record, Text, Ticket, Value};
use crate::outcome::{Outcome, Refusal};
use crate::sync::{Arc, Ordering, Weak, guarded};
use crate::wake::{State, deadline_in};

/// What became of an event that was emitted. It may be ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// Its id.
    pub id: EventId,
    /// Whether it was taken, or why not: as for [`Collector::collect`](crate::Collector::collect). Inline, `Queued` says that
    /// it was given to its handlers; to those that a stop had closed meanwhile it counts as cancelled.
    pub outcome: Outcome,
}

/// What became of an event whose handlers were waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SyncReceipt {
    /// Its id.
    pub id: EventId,
    /// Whether it was taken, or why not.
    pub outcome: Outcome,
    /// What its handlers made of it. `None` if nobody waited for that: it was emitted in a handler, or it was not taken, or
    /// it was lost on its way.
    pub calls: Option<Calls>,
}

/// What the handlers of an event made of it, each by its first call.
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

/// An event was not emitted, because of what it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EmitError {
    /// Its name is not allowed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A handler emitted it, and that of an event which a handler emitted, and so on: too often.
    #[error("event {name:?} is the end of a chain of {depth} events, allowed are {most}")]
    TooDeep {
        /// Its name.
        name: String,
        /// How many events led to it.
        depth: u32,
        /// How many may.
        most: u32,
    },
    /// Its handlers were not done in time. They go on.
    #[error("the handlers of the event were not done within {waited:?}")]
    TimedOut {
        /// How long the call waited.
        waited: Duration,
    },
}

/// What an event is emitted with, beside its name and data. By default with nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EmitOptions {
    /// Which lane it takes: critical events come before all others.
    pub priority: Priority,
    /// What it belongs to, in the place of the id of the [scope](super::correlate).
    pub correlation_id: Option<Text>,
    /// Who emits it.
    pub source: Option<Text>,
    /// Anything else.
    pub metadata: Fields,
}

impl EmitOptions {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`priority`](Self::priority).
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Sets [`correlation_id`](Self::correlation_id).
    pub fn correlation_id(mut self, id: impl Into<Text>) -> Self {
        self.correlation_id = Some(id.into());
        self
    }

    /// Sets [`source`](Self::source).
    pub fn source(mut self, source: impl Into<Text>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds to [`metadata`](Self::metadata).
    pub fn metadata(mut self, name: impl Into<Name>, value: impl Into<Value>) -> Self {
        self.metadata.set(name, value);
        self
    }
}

pub(super) const NAME_RULE: &str =
    "one or more words of letters, digits, _ and -, separated by dots, 200 bytes at most";

/// Whether an event may have that name.
pub(super) fn is_name(name: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    name.len() <= 200 && name.split('.').all(is_word)
}

impl Bus {
    /// Emits an event: a name, and data or `()`. Its handlers are called by workers; this does not wait for them.
    ///
    /// It waits for room only under [`Overflow::Block`](crate::Overflow::Block), or as a critical event that finds its lane
    /// full; in a handler, never. [Inline](Mode::Inline), it returns when the handlers have run; in a handler, at once: they
    /// run when that one has returned.
    ///
    /// # Errors
    ///
    /// The name is not one or more words of letters, digits, `_` and `-`, separated by dots, of 200 bytes at most; or too
    /// many events led to it ([`BusConfig::max_depth`](super::BusConfig::max_depth)). Any other event that is not taken is
    /// no error: the receipt tells.
    pub fn emit(&self, name: impl Into<Name>, data: impl Into<Value>) -> Result<Receipt, EmitError> {
        self.emit_record(Record::with_value(name, data))
    }

    /// The same with a priority, a correlation id, a source, metadata.
    ///
    /// # Errors
    ///
    /// As for [`emit`](Self::emit).
    pub fn emit_with(
        &self,
        name: impl Into<Name>,
        data: impl Into<Value>,
        options: EmitOptions,
    ) -> Result<Receipt, EmitError> {
        let EmitOptions { priority, correlation_id, source, metadata } = options;
        let mut record = Record::with_value(name, data).with_priority(priority);
        let extra = record.extra_mut();
        (extra.correlation_id, extra.source, extra.metadata) = (correlation_id, source, metadata);
        self.emit_record(record)
    }

    /// The same with a record, or what becomes one: the events of the [catalogue](crate::catalog), for example.
    ///
    /// # Errors
    ///
    /// As for [`emit`](Self::emit).
    pub fn emit_record(&self, record: impl Into<Record>) -> Result<Receipt, EmitError> {
        self.shared.emit(record.into(), Mark::default())
    }

    /// The same with something that becomes a record, and that handlers [by type](super::Handler::of_type) get as it is.
    ///
    /// # Errors
    ///
    /// As for [`emit`](Self::emit).
    pub fn emit_event<T>(&self, event: T) -> Result<Receipt, EmitError>
    where
        T: Clone + Into<Record> + Any + Send + Sync,
    {
        let record = event.clone().into();
        self.shared.emit(record, Mark::of_type(event))
    }

    /// Emits an event and waits until each of its handlers was called, once, up to the `flush_timeout` of
    /// [`Config`](crate::Config). In a handler of whatever bus, it does what `emit` does: nobody waits.
    ///
    /// # Errors
    ///
    /// As for [`emit`](Self::emit), or the handlers were not done in time.
    pub fn emit_sync(&self, name: impl Into<Name>, data: impl Into<Value>) -> Result<SyncReceipt, EmitError> {
        let record = Record::with_value(name, data);
        if self.shared.is_inside() {
            let Receipt { id, outcome } = self.shared.emit(record, Mark::default())?;
            return Ok(SyncReceipt { id, outcome, calls: None });
        }
        let timeout = self.shared.collector.config().flush_timeout;
        let deadline = deadline_in(timeout);
        let ticket = Arc::new(Ticket::default());
        let Receipt { id, outcome } = self.shared.emit(record, Mark::with_ticket(Arc::clone(&ticket)))?;
        if !outcome.is_queued() || self.shared.check().is_err() {
            return Ok(SyncReceipt { id, outcome, calls: None });
        }
        // Under a strategy that does not deliver by the first event, somebody has to ask for it.
        if self.shared.engine.config.mode == Mode::Pooled
            && self.shared.collector.config().flush.events() != Some(1)
        {
            let _ = self.shared.collector.flush_timeout(timeout);
        }
        let progress = ticket.wait(deadline).ok_or(EmitError::TimedOut { waited: timeout })?;
        let calls =
            Calls { handled: progress.handled, failed: progress.failed, cancelled: progress.cancelled };
        Ok(SyncReceipt { id, outcome, calls: (!progress.is_lost).then_some(calls) })
    }

    /// Whether an event of that name, of normal priority, may come in at present: to skip the making of its data. Sampling,
    /// limits and filters are not asked.
    pub fn enabled(&self, name: &str) -> bool {
        let shared = &self.shared.collector.shared;
        match self.shared.collector.state() {
            _ if self.shared.engine.is_refusing() => false,
            State::WorkerGone if self.shared.mode() == Mode::Inline => {
                shared.settings.gate().is_none_or(|gate| gate.enabled(name))
            }
            _ => self.shared.collector.enabled(name),
        }
    }
}

impl Emitter {
    /// See [`Bus::emit`]. Of a bus that is gone, the outcome is [`Outcome::Stopped`].
    ///
    /// # Errors
    ///
    /// As for [`Bus::emit`].
    pub fn emit(&self, name: impl Into<Name>, data: impl Into<Value>) -> Result<Receipt, EmitError> {
        self.emit_record(Record::with_value(name, data))
    }

    /// See [`Bus::emit_record`].
    ///
    /// # Errors
    ///
    /// As for [`Bus::emit`].
    pub fn emit_record(&self, record: impl Into<Record>) -> Result<Receipt, EmitError> {
        match Weak::upgrade(&self.0) {
            Some(shared) => shared.emit(record.into(), Mark::default()),
            None => Ok(Receipt { id: EventId::default(), outcome: Outcome::Stopped }),
        }
    }
}

/// Whether who emits may wait for room.
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
    /// Whether the calling thread is in a handler of some bus, or in a sink of this one: it cannot wait for handlers.
    pub(super) fn is_inside(&self) -> bool {
        context::is_inside() || context::is_within(self.engine.place()) || self.collector.shared.is_worker()
    }

    /// Emits an event of the bus itself.
    pub(super) fn emit_own(&self, record: Record) {
        self.emit_own_at(record, context::depth());
    }

    /// The same, to which so many events led: handlers that answer it with what caused it come to an end.
    pub(super) fn emit_own_at(&self, record: Record, depth: u32) {
        self.counts.own.add(1);
        if depth > self.engine.config.max_depth {
            self.counts.too_deep.add(1);
            return;
        }
        let mut mark = Mark::default();
        mark.depth = depth;
        // It is lost where the bus stops, or is full: a worker and the foreman must not wait for room that they make. What it
        // evicts ends here, which is foreign code.
        let _ = guarded(|| self.take(record, mark, Patience::None));
    }

    fn emit(&self, mut record: Record, mut mark: Mark) -> Result<Receipt, EmitError> {
        self.counts.emitted.add(1);
        let name = Event::name(&record);
        check("name", format_args!("{name:?}"), NAME_RULE, is_name(name))
            .inspect_err(|_| self.counts.misnamed.add(1))?;
        let (depth, most) = (context::depth(), self.engine.config.max_depth);
        if depth > most {
            self.counts.too_deep.add(1);
            return Err(EmitError::TooDeep { name: name.to_owned(), depth, most });
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

    fn take(&self, mut record: Record, mut mark: Mark, patience: Patience) -> Receipt {
        let id = EventId::new(self.session, self.next_event.fetch_add(1, Ordering::Relaxed));
        mark.id = id;
        record.extra_mut().mark = Some(mark);
        // Behind the push, also where what it evicts panics: a flush that sees no more of them has missed none.
        let _settles = OnDrop(|| self.counts.settled.add(1));
        // In a forked child nobody is asked: it is refused below.
        let outcome = if self.check().is_ok() && !self.lets_in(&record) {
            self.counts.filtered.add(1);
            Outcome::Filtered
        } else if self.mode() == Mode::Inline {
            self.take_inline(record)
        } else {
            match patience {
                // A worker must not wait for room that handlers make.
                Patience::None => {
                    self.collector.try_collect(record).unwrap_or_else(|refused| refused.reason.into())
                }
                Patience::OfSettings => self.collector.collect(record),
            }
        };
        Receipt { id, outcome }
    }

    /// Whether all filters let it in. One that is removed meanwhile is not asked.
    fn lets_in(&self, record: &Record) -> bool {
        self.filters.load().iter().all(|added| !added.permit.begin() || added.filter.lets_in(record))
    }

    fn take_inline(&self, record: Record) -> Outcome {
        let state = self.collector.state();
        if self.engine.is_refusing() || !matches!(state, State::Idle | State::WorkerGone) {
            self.counts.stopped.add(1);
            return if state == State::Forked { Outcome::Forked } else { Outcome::Stopped };
        }
        if let Some(gate) = self.collector.shared.settings.gate()
            && let Err(reason) = gate.admit(Event::priority(&record), &record)
        {
            self.collector.shared.count_refusal(reason);
            return reason.into();
        }
        if record.is_too_deep() {
            self.collector.shared.count_refusal(Refusal::Oversize);
            return Outcome::Oversize;
        }
        self.counts.inline.add(1);
        self.sinks.write(&record);
        if self.check().is_err() {
            // A sink has forked, and this is the child.
            return Outcome::Forked;
        }
        let tally = &self.collector.shared.tally;
        let delivered = self.counts.inline.get() + tally.worker.processed.get();
        let now = self.collector.shared.clock.fast_nanos();
        tally.meter.delivered(now, std::slice::from_ref(&record), delivered);
        // As one: what is emitted meanwhile is handled behind it.
        let within = context::within(self.engine.place());
        self.engine.dispatch_one(record);
        if within.is_some() {
            self.engine.call_all(None);
        }
        Outcome::Queued
    }
}
