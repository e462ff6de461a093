//! The handle of a bus: what users call.

use std::any::Any;
use std::fmt;
use std::time::{Duration, Instant};

use forebay::collector::{FlushError, State};
use forebay::parts::Inside;
use forebay::sink::DeadLetters;
use forebay::{Collector, Name, Record, Value};
use forebay_history::{EventQuery, HistoryError};
use forebay_sync::clock::deadline_in;
use forebay_sync::permit::Permit;
use forebay_sync::sync::Arc;

use super::config::Mode;
use super::delivery::Delivery;
use super::emit::{Calls, EmitError, EmitOptions, Emitter, Receipt, SyncReceipt};
use super::envelope::{Envelope, Mark, Ticket};
use super::filter::Filter;
use super::handler::{Handled, Handler, Topics};
use super::id::{FilterId, SubscriptionId};
use super::scaling::{ScaleError, check_workers};
use super::shared::{AddedFilter, Shared};
use super::stats::{BusHealth, BusReport, BusStats, BusStopError, Metrics, WorkerStats};
use super::stop::Owner;
use super::subscribers::SubscribeError;
use super::subscription::Subscription;

/// Handle of a bus: hand a clone to everybody who emits or subscribes.
///
/// In a forked child every call returns: it is refused, or returns what can be read without a lock. The bus is the parent's, and so
/// are its [dead letters](Self::dead_letters): what looks at these takes a lock that may have no holder there.
///
/// When the last handle is dropped, the bus is stopped with a short deadline (`drop_timeout` of
/// [`Config`](forebay::Config)); call [`stop`](Self::stop) to learn how that went. A handler that holds a handle keeps its
/// bus alive: give it an [`Emitter`] instead.
pub struct Bus {
    pub(super) shared: Arc<Shared>,
    /// Held by handles alone: its drop is the drop of the last handle.
    pub(super) _owner: Arc<Owner>,
}

impl Bus {
    /// Calls a function for all events whose names one of the topics stands for: one name or
    /// [`Pattern`](forebay::Pattern), or an array of them. It gets every event that is emitted from now on, and may get some
    /// that are on their way. See [`Handler`] for more.
    ///
    /// # Errors
    ///
    /// There are too many subscriptions; a topic is a name that no event may have; the bus is stopped; or this is a forked
    /// child.
    pub fn on<R: Handled>(
        &self,
        topics: impl Into<Topics>,
        call: impl Fn(&Delivery) -> R + Send + Sync + 'static,
    ) -> Result<Subscription, SubscribeError> {
        self.subscribe(Handler::new(topics, call))
    }

    /// Calls a function for all events that are emitted as a `T` ([`emit_event`](Self::emit_event)).
    ///
    /// ```
    /// use forebay_bus::Bus;
    /// use forebay::event::catalog::training::Completed;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let bus = Bus::new()?;
    /// bus.on_type(|run: &Completed| assert_eq!(run.total_duration.as_secs(), 7))?.keep();
    /// bus.emit_event(Completed { total_duration: std::time::Duration::from_secs(7), ..Completed::default() })?;
    /// assert_eq!(bus.stop()?.stats.handlers[0].handled, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`on`](Self::on).
    pub fn on_type<T: Any + Send + Sync, R: Handled>(
        &self,
        call: impl Fn(&T) -> R + Send + Sync + 'static,
    ) -> Result<Subscription, SubscribeError> {
        self.subscribe(Handler::of_type(call))
    }

    /// Subscribes a handler.
    ///
    /// # Errors
    ///
    /// As for [`on`](Self::on), or something else of the handler is not allowed.
    pub fn subscribe(&self, handler: Handler) -> Result<Subscription, SubscribeError> {
        let id = self.shared.engine.subscribe(handler)?;
        Ok(Subscription { id, shared: Arc::downgrade(&self.shared) })
    }

    /// Unsubscribes a handler: no call of it, and of its filters, begins once this has returned. What waits for it is
    /// cancelled; calls that have begun go on. May be called from the handler itself. Returns whether there was a
    /// handler of that number.
    ///
    /// The last step of a worker before the call asks whether the handler is subscribed. A call that has passed this
    /// check has begun, although its first statement may run a moment after this has returned, where the system takes
    /// the processor from the worker just there. Before you take apart what the handler uses, call
    /// [`unsubscribe_and_wait`](Self::unsubscribe_and_wait): no call runs once that has returned `true`.
    pub fn unsubscribe(&self, id: SubscriptionId) -> bool {
        self.shared.engine.unsubscribe(id).is_some()
    }

    /// Unsubscribes a handler and waits until no call of it runs, for `timeout` at most. Returns `false` if there is no handler of
    /// that number, or if a call runs on. In a handler, nobody waits: it returns `false` while a call runs, as in the call itself.
    pub fn unsubscribe_and_wait(&self, id: SubscriptionId, timeout: Duration) -> bool {
        let Some(subscriber) = self.shared.engine.unsubscribe(id) else { return false };
        let timeout = if self.shared.is_inside() { Duration::ZERO } else { timeout };
        self.shared.engine.await_idle(&subscriber, deadline_in(timeout))
    }

    /// Lets in only events that the filter lets in, beside those that were added before. The emitting thread asks it,
    /// before the event is queued, also for critical events.
    pub fn add_filter(&self, filter: Filter) -> FilterId {
        // In a forked child, nothing comes in.
        let Ok(mut last_filter) = self.shared.last_filter.enter() else { return FilterId(0) };
        *last_filter += 1;
        let mut filters = Vec::clone(&self.shared.filters.load());
        filters.push(AddedFilter { id: FilterId(*last_filter), filter, permit: Arc::new(Permit::new()) });
        self.shared.filters.store(Arc::new(filters));
        FilterId(*last_filter)
    }

    /// Takes a filter out: no thread begins to ask it once this has returned. Returns whether there was a filter of
    /// that number.
    pub fn remove_filter(&self, id: FilterId) -> bool {
        let Ok(last_filter) = self.shared.last_filter.enter() else { return false };
        let before = self.shared.filters.load_full();
        let (removed, filters): (Vec<_>, Vec<_>) = before.iter().cloned().partition(|added| added.id == id);
        let is_found = !removed.is_empty();
        self.shared.filters.store(Arc::new(filters));
        removed.iter().for_each(|added| added.permit.revoke());
        // The filter may end here, and its destructor is user code.
        drop(last_filter);
        drop((before, removed));
        is_found
    }

    /// Returns an emitter that does not keep the bus alive.
    pub fn emitter(&self) -> Emitter {
        Emitter(Arc::downgrade(&self.shared))
    }

    /// Returns the collector inside, for its rings, gate, sinks, settings and subscriptions. Its sink `bus` is the bus.
    /// [Inline](Mode::Inline), it is never started, and its gate alone is used.
    pub fn collector(&self) -> &Collector<Envelope> {
        &self.shared.collector
    }

    /// Waits until all events that were emitted before have come to their handlers and their calls have ended, and so for
    /// what these handlers have emitted, up to the `flush_timeout` of [`Config`](forebay::Config). It ends although others keep
    /// emitting. What is to be called again later is not waited for.
    ///
    /// # Errors
    ///
    /// The deadline passed; the bus is stopped; this is a forked child; or a handler or a sink calls, which would have to
    /// wait for itself.
    pub fn flush(&self) -> Result<(), FlushError> {
        self.flush_timeout(self.shared.collector.config().flush_timeout)
    }

    /// Flushes the bus like [`flush`](Self::flush), with another deadline.
    ///
    /// # Errors
    ///
    /// As for [`flush`](Self::flush).
    pub fn flush_timeout(&self, timeout: Duration) -> Result<(), FlushError> {
        if self.shared.is_inside() {
            return Err(FlushError::OnWorker);
        }
        let begun = Instant::now();
        // Every round covers one more link of each chain of events, and no chain is longer.
        for _ in 0..=self.shared.engine.config.max_depth {
            let before = self.shared.counts.completed.get();
            self.shared.flush_once(timeout, timeout.saturating_sub(begun.elapsed()))?;
            if self.shared.counts.completed.get() == before {
                break;
            }
        }
        Ok(())
    }

    /// Returns events that were emitted and delivered, from the journal if there is one, or else of the last 1,000 events.
    /// [`flush`](Self::flush) before, to see all.
    ///
    /// # Errors
    ///
    /// The journal cannot be read; or this is a forked child.
    pub fn query(&self, query: &EventQuery) -> Result<Vec<Record>, HistoryError> {
        self.shared.history()?.query(query)
    }

    /// Returns all events with that correlation id, from where [`query`](Self::query) finds them.
    ///
    /// # Errors
    ///
    /// As for [`query`](Self::query).
    pub fn correlated(&self, id: &str) -> Result<Vec<Record>, HistoryError> {
        self.shared.history()?.correlated(id)
    }

    /// Returns the events that handlers did not take, to be looked at and taken out. [`DeadLetter::handler`] names the handler.
    ///
    /// ```
    /// use forebay::sink::RetryPolicy;
    /// use forebay_bus::{Bus, Handler, HandlerError};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let bus = Bus::new()?;
    /// let upload = Handler::new("model.saved", |_| Err(HandlerError::new("no network")));
    /// bus.subscribe(upload.named("upload").retry(RetryPolicy::list([])))?.keep();
    /// bus.emit_sync("model.saved", ())?;
    /// let letter = &bus.dead_letters().entries()[0];
    /// assert_eq!((letter.handler(), letter.event.name()), (Some("upload"), "model.saved"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// [`DeadLetter::handler`]: forebay::sink::DeadLetter::handler
    pub fn dead_letters(&self) -> &DeadLetters<Envelope> {
        &self.shared.engine.dead_letters
    }

    /// Offers all dead letters once more to the handlers that they come from, and returns how many. Letters of handlers
    /// that are no longer subscribed stay.
    ///
    /// `per_second` limits the pace; `None` sets no limit, and 0 counts as 1. A letter is gone once its handler has
    /// taken it; one that fails again is a dead letter again. [Inline](Mode::Inline), calls of [`flush`](Self::flush)
    /// keep the pace.
    pub fn redrive(&self, per_second: Option<u32>) -> usize {
        if self.shared.check().is_err() {
            return 0;
        }
        let letters = self.shared.engine.dead_letters.redrive(per_second);
        match self.shared.engine.config.mode {
            Mode::Pooled => self.shared.engine.retries.wake_scheduler(),
            Mode::Inline => {
                self.shared.engine.redrive();
                self.shared.engine.run_inline(None);
            }
        }
        letters
    }

    /// Changes the number of workers. Those that are too many end after the call at hand. Where
    /// [scaling](super::BusConfig::scaling) is on, it goes on from there.
    ///
    /// # Errors
    ///
    /// The number is not 1 to 256; the bus has no workers; no thread could be created; or this is a forked child.
    pub fn scale_workers(&self, workers: usize) -> Result<(), ScaleError> {
        self.shared.check()?;
        check_workers("workers", workers)?;
        if self.shared.engine.config.mode == Mode::Inline {
            return Err(ScaleError::Inline);
        }
        self.shared.engine.scale_to(workers).map_err(ScaleError::Thread)
    }

    /// Refuses new events, waits until those that were emitted have been handled, and ends the threads, up to the
    /// `stop_timeout` of [`Config`](forebay::Config). What waits for a retry becomes a dead letter. What handlers emit
    /// meanwhile is refused. A bus that was stopped stays stopped; called again, it reports the same end.
    ///
    /// # Errors
    ///
    /// The deadline passed: what still waited is cancelled, and calls that hang are left behind; or a handler or a sink
    /// calls, or a forked child.
    pub fn stop(&self) -> Result<BusReport, BusStopError> {
        self.stop_timeout(self.shared.collector.config().stop_timeout)
    }

    /// Stops the bus like [`stop`](Self::stop), with another deadline.
    ///
    /// # Errors
    ///
    /// As for [`stop`](Self::stop).
    pub fn stop_timeout(&self, timeout: Duration) -> Result<BusReport, BusStopError> {
        self.shared.check()?;
        if self.shared.is_inside() { Err(BusStopError::Inside) } else { self.shared.stop(timeout) }
    }

    /// Emits an event: a name, and data or `()`. Its handlers are called by workers; this does not wait for them.
    ///
    /// It waits for space only under [`Overflow::Block`](forebay::Overflow::Block), or as a critical event that finds its lane
    /// full; in a handler, never. [Inline](Mode::Inline), it returns when the handlers have run; in a handler, at once: they
    /// run when that one has returned.
    ///
    /// # Errors
    ///
    /// The name is not one or more words of letters, digits, `_` and `-`, separated by dots, of 200 bytes at most; or too
    /// many events led to it ([`BusConfig::max_depth`](super::BusConfig::max_depth)). Any other event that is not taken is
    /// no error: see the receipt.
    pub fn emit(&self, name: impl Into<Name>, data: impl Into<Value>) -> Result<Receipt, EmitError> {
        self.emit_record(Record::with_value(name, data))
    }

    /// Emits an event with a priority, a correlation id, a source, metadata.
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

    /// Emits a record, or what becomes one: the events of the [catalogue](forebay::event::catalog), for example.
    ///
    /// # Errors
    ///
    /// As for [`emit`](Self::emit).
    pub fn emit_record(&self, record: impl Into<Record>) -> Result<Receipt, EmitError> {
        self.shared.emit(record.into(), Mark::default())
    }

    /// Emits something that becomes a record, and that handlers [by type](super::Handler::of_type) get as it is.
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

    /// Emits a record that a value accompanies: handlers find it by [`Delivery::as_type`], and handlers
    /// [by type](super::Handler::of_type) get it. No sink sees it. It is dropped when nothing on the bus needs the event any more.
    ///
    /// ```
    /// use forebay::Record;
    /// use forebay_bus::Bus;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let bus = Bus::new()?;
    /// bus.on("request.*", |event| assert_eq!(event.as_type::<u16>(), Some(&443)))?.keep();
    /// bus.emit_record_along(Record::text("request.begun", "/"), 443_u16)?;
    /// bus.stop()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`emit`](Self::emit).
    pub fn emit_record_along<T: Any + Send + Sync>(
        &self,
        record: impl Into<Record>,
        value: T,
    ) -> Result<Receipt, EmitError> {
        self.shared.emit(record.into(), Mark::of_type(value))
    }

    /// Emits an event and waits until each of its handlers was called, once, up to the `flush_timeout` of
    /// [`Config`](forebay::Config). In a handler of whatever bus, it does what `emit` does: nobody waits.
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

    /// Returns whether an event of that name, of normal priority, may come in at present: to skip the making of its data. Sampling,
    /// limits and filters are not asked.
    pub fn enabled(&self, name: &str) -> bool {
        match self.shared.collector.state() {
            _ if self.shared.engine.is_refusing() => false,
            State::WorkerGone if self.shared.mode() == Mode::Inline => {
                Inside::of(&self.shared.collector).is_enabled(name)
            }
            _ => self.shared.collector.enabled(name),
        }
    }

    /// Returns the account of all events so far.
    pub fn stats(&self) -> BusStats {
        self.shared.stats()
    }

    /// Returns how many events come, what waits, and how long calls take.
    pub fn metrics(&self) -> Metrics {
        self.shared.metrics()
    }

    /// Returns how many workers there are, and what they do.
    pub fn worker_stats(&self) -> WorkerStats {
        self.shared.worker_stats()
    }

    /// Returns whether all is well, and what is not. Takes some locks for a moment; waits for no handler.
    pub fn health(&self) -> BusHealth {
        self.shared.health()
    }
}

impl Clone for Bus {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), _owner: Arc::clone(&self._owner) }
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").field("collector", &self.shared.collector).finish_non_exhaustive()
    }
}
