//! Events that set something off: a bus calls handlers, by name, pattern or type, on worker threads of its own.
//!
//! It is built on a [`Collector`]: emitting is a push into its rings, whose bounds, priorities, overflow policy, gate and
//! account hold for the bus. Behind them every event goes to a history, to whatever sinks there are, and to its handlers.
//!
//! ```
//! use forebay::Fields;
//! use forebay::bus::Bus;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let bus = Bus::new()?;
//! let emitter = bus.emitter();
//! let best = bus.on("training.epoch_completed", move |event| {
//!     let loss = event.value().as_fields().and_then(|fields| fields.get("val_loss")?.as_f64());
//!     if loss.is_some_and(|loss| loss < 0.2) {
//!         // Derived from the event at hand.
//!         let _ = emitter.emit("training.new_best_model", loss);
//!     }
//! })?;
//! bus.emit("training.epoch_completed", Fields::new().with("epoch", 5).with("val_loss", 0.15))?;
//! bus.flush()?;
//! assert_eq!(bus.query(&forebay::history::EventQuery::new().name("training.new_*"))?.len(), 1);
//! drop(best);
//! # Ok(())
//! # }
//! ```
//!
//! `docs/bus.md` in the repository tells what is delivered when, in which order, and what happens on bad days.

mod bottlenecks;
mod builder;
mod chores;
mod config;
mod context;
mod crew;
mod dispatch;
mod emit;
mod ending;
mod engine;
mod filter;
mod foreman;
mod handler;
mod mailbox;
mod plugin;
mod report;
mod scaling;
mod settle;
mod sinks;
mod stats;
mod subscription;
mod table;
mod tally;
mod timers;
pub mod watch;

pub use crate::event::{EventId, EventIdError};
pub use builder::BusBuilder;
pub use config::{BusConfig, Mode, OnWorkerFailure};
pub use context::{CorrelationScope, correlate};
pub use emit::{Calls, EmitError, EmitOptions, Receipt, SyncReceipt};
pub use filter::Filter;
pub use handler::{Delivery, Handled, Handler, HandlerError, Topics};
pub use plugin::{Plugin, PluginError, Plugins, Wiring};
pub use scaling::{ScaleError, Scaling};
pub use stats::{
    Alert, AlertKind, BusHealth, BusReport, BusStats, BusStopError, HandlerStats, Metrics, QueueMetrics,
    RetryMetrics, WorkerStats,
};
pub use subscription::{SubscribeError, Subscription, SubscriptionId};

use std::any::Any;
use std::fmt;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use uuid::Uuid;

use crate::collector::{Collector, FlushError, StartError};
use crate::event::Record;
use crate::history::{EventQuery, History, HistoryError};
use crate::permit::Permit;
use crate::sink::DeadLetters;
use crate::stats::Count;
use crate::sync::{Arc, Forked, Mutex, PlainU64, Weak};
use crate::wake::{State, deadline_in};
use ending::Owner;
use engine::Engine;
use sinks::InlineSinks;

/// A bus: hand a clone to everybody who emits or subscribes.
///
/// In a forked child every call returns: it is refused, or tells what can be told without a lock. The bus is the parent's, and so
/// are its [dead letters](Self::dead_letters): what looks at these takes a lock that may have no holder there.
///
/// When the last handle is dropped, the bus is stopped with a short deadline (`drop_timeout` of
/// [`Config`](crate::Config)); call [`stop`](Self::stop) to learn how that went. A handler that holds a handle keeps its
/// bus alive: give it an [`Emitter`] instead.
pub struct Bus {
    shared: Arc<Shared>,
    /// Held by handles alone: its drop is the drop of the last handle.
    _owner: Arc<Owner>,
}

/// A way to emit that does not keep the bus alive: for handlers. Made by [`Bus::emitter`].
#[derive(Debug, Clone)]
pub struct Emitter(Weak<Shared>);

/// The number of a filter. Never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FilterId(u64);

/// How many events can be asked for without a journal.
const RECENT: usize = 1_000;

/// What handles share.
pub(crate) struct Shared {
    collector: Collector,
    engine: Arc<Engine>,
    /// Read without a lock by whoever emits; changed under the lock of `changes`, which counts their numbers.
    filters: ArcSwap<Vec<Added>>,
    changes: Mutex<u64>,
    history: Box<dyn History + Send + Sync>,
    sinks: InlineSinks,
    counts: Counts,
    /// Of the ids of its events.
    session: Uuid,
    next_event: PlainU64,
}

/// A filter of a bus.
#[derive(Clone)]
struct Added {
    id: FilterId,
    filter: Filter,
    /// To ask it; revoked when it is removed.
    permit: Arc<Permit>,
}

/// What became of events before the rings.
#[derive(Debug, Default)]
struct Counts {
    emitted: Count,
    misnamed: Count,
    too_deep: Count,
    filtered: Count,
    stopped: Count,
    inline: Count,
    own: Count,
    /// Events whose fate before the handlers is known, those of the bus itself included.
    settled: Count,
}

impl Bus {
    /// Starts a bus with the default settings.
    ///
    /// # Errors
    ///
    /// As for [`BusBuilder::start`].
    pub fn new() -> Result<Self, StartError> {
        Self::builder().start()
    }

    /// Begins a bus with the default settings and no sinks.
    pub fn builder() -> BusBuilder {
        BusBuilder::new()
    }

    /// Calls a function for all events whose names one of the topics stands for: one name or
    /// [`Pattern`](crate::Pattern), or an array of them. It gets every event that is emitted from now on, and may get some
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
    /// use forebay::bus::Bus;
    /// use forebay::catalog::training::Completed;
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
    /// cancelled; calls that have begun go on. May be called from the handler itself. Whether there was one of that number.
    ///
    /// The last step of a worker before the call asks whether the handler is subscribed. A call that has passed this check has
    /// begun, although its first statement may run a moment after this has returned, where the system takes the processor
    /// from the worker just there. Whoever takes apart what the handler uses calls
    /// [`unsubscribe_and_wait`](Self::unsubscribe_and_wait): no call runs once that has returned `true`.
    pub fn unsubscribe(&self, id: SubscriptionId) -> bool {
        self.shared.engine.unsubscribe(id).is_some()
    }

    /// The same, and waits until no call of it runs, up to `longest`; `false` when that came first, too. In a handler, nobody
    /// waits: `false` while a call of it runs, as in the call itself.
    pub fn unsubscribe_and_wait(&self, id: SubscriptionId, longest: Duration) -> bool {
        let Some(subscriber) = self.shared.engine.unsubscribe(id) else { return false };
        let longest = if self.shared.is_inside() { Duration::ZERO } else { longest };
        self.shared.engine.await_idle(&subscriber, deadline_in(longest))
    }

    /// Lets in only events that the filter lets in, beside those that were added before. It is asked by whoever emits,
    /// before the event is queued, also for critical events.
    pub fn add_filter(&self, filter: Filter) -> FilterId {
        // In a forked child, nothing comes in.
        let Ok(mut changes) = self.shared.changes.enter() else { return FilterId(0) };
        *changes += 1;
        let mut filters = Vec::clone(&self.shared.filters.load());
        filters.push(Added { id: FilterId(*changes), filter, permit: Arc::new(Permit::new()) });
        self.shared.filters.store(Arc::new(filters));
        FilterId(*changes)
    }

    /// Takes a filter out: no thread begins to ask it once this has returned. Whether there was one of that number.
    pub fn remove_filter(&self, id: FilterId) -> bool {
        let Ok(changes) = self.shared.changes.enter() else { return false };
        let before = self.shared.filters.load_full();
        let (removed, filters): (Vec<_>, Vec<_>) = before.iter().cloned().partition(|added| added.id == id);
        let is_found = !removed.is_empty();
        self.shared.filters.store(Arc::new(filters));
        removed.iter().for_each(|added| added.permit.revoke());
        // The filter may end here, which is foreign code.
        drop(changes);
        drop((before, removed));
        is_found
    }

    /// A way to emit that does not keep the bus alive.
    pub fn emitter(&self) -> Emitter {
        Emitter(Arc::downgrade(&self.shared))
    }

    /// The collector inside: its rings, gate, sinks, settings and subscriptions. Its sink `bus` is the bus.
    /// [Inline](Mode::Inline), it is never started, and its gate alone is used.
    pub fn collector(&self) -> &Collector {
        &self.shared.collector
    }

    /// Waits until all events that were emitted before have come to their handlers and their calls have ended, and so for
    /// what these handlers have emitted, up to the `flush_timeout` of [`Config`](crate::Config). It ends although others keep
    /// emitting. What is to be called again later is not waited for.
    ///
    /// # Errors
    ///
    /// The deadline passed; the bus is stopped; this is a forked child; or a handler or a sink calls, which would have to
    /// wait for itself.
    pub fn flush(&self) -> Result<(), FlushError> {
        if self.shared.is_inside() {
            return Err(FlushError::OnWorker);
        }
        let (timeout, begun) = (self.shared.collector.config().flush_timeout, Instant::now());
        // Every round covers one more link of each chain of events; there are no longer ones.
        for _ in 0..=self.shared.engine.config.max_depth {
            let before = self.shared.counts.settled.get();
            self.shared.flush_once(timeout, timeout.saturating_sub(begun.elapsed()))?;
            if self.shared.counts.settled.get() == before {
                break;
            }
        }
        Ok(())
    }

    /// What was emitted and has been delivered, from the journal if there is one, or else the last 1,000 events.
    /// [`flush`](Self::flush) before, to see all.
    ///
    /// # Errors
    ///
    /// The journal cannot be read; or this is a forked child.
    pub fn query(&self, query: &EventQuery) -> Result<Vec<Record>, HistoryError> {
        self.shared.history()?.query(query)
    }

    /// The same for all events with that correlation id.
    ///
    /// # Errors
    ///
    /// As for [`query`](Self::query).
    pub fn correlated(&self, id: &str) -> Result<Vec<Record>, HistoryError> {
        self.shared.history()?.correlated(id)
    }

    /// Events that handlers did not take, to be looked at and taken out. The error tells the handler.
    pub fn dead_letters(&self) -> &DeadLetters {
        &self.shared.engine.letters
    }

    /// Offers all dead letters to the handlers again that they come from, at `per_second` letters a second at most; `None`
    /// sets no pace. Each is gone once its handler has taken it; one that fails again is a dead letter again. Those of
    /// handlers that are not subscribed any more stay. How many will be offered. [Inline](Mode::Inline), a pace is kept by calls of
    /// [`flush`](Self::flush).
    pub fn redrive(&self, per_second: Option<u32>) -> usize {
        if self.shared.check().is_err() {
            return 0;
        }
        let letters = self.shared.engine.letters.redrive(per_second);
        match self.shared.engine.config.mode {
            Mode::Pooled => self.shared.engine.timers.ring(),
            Mode::Inline => {
                self.shared.engine.redrive();
                self.shared.engine.run_inline(None);
            }
        }
        letters
    }

    /// Changes the number of workers. Those that are too many end after the call at hand. Where
    /// [scaling](BusConfig::scaling) is on, it goes on from there.
    ///
    /// # Errors
    ///
    /// The number is not 1 to 256; the bus has no workers; no thread could be created; or this is a forked child.
    pub fn scale_workers(&self, workers: usize) -> Result<(), ScaleError> {
        self.shared.check()?;
        config::check_workers("workers", workers)?;
        if self.shared.engine.config.mode == Mode::Inline {
            return Err(ScaleError::Inline);
        }
        self.shared.engine.scale_to(workers).map_err(ScaleError::Thread)
    }

    /// Refuses new events, waits until those that were emitted have been handled, and ends the threads, up to the
    /// `stop_timeout` of [`Config`](crate::Config). What waits for a retry becomes a dead letter. What handlers emit
    /// meanwhile is refused. A bus that was stopped stays stopped; called again, it reports the same end.
    ///
    /// # Errors
    ///
    /// The deadline passed: what still waited is cancelled, and calls that hang are left behind; or a handler or a sink
    /// calls, or a forked child.
    pub fn stop(&self) -> Result<BusReport, BusStopError> {
        self.stop_timeout(self.shared.collector.config().stop_timeout)
    }

    /// The same with another deadline.
    ///
    /// # Errors
    ///
    /// As for [`stop`](Self::stop).
    pub fn stop_timeout(&self, timeout: Duration) -> Result<BusReport, BusStopError> {
        self.shared.check()?;
        if self.shared.is_inside() { Err(BusStopError::Inside) } else { self.shared.stop(timeout) }
    }
}

impl Shared {
    /// Refuses in a forked child, where the bus and its locks are the parent's.
    fn check(&self) -> Result<(), Forked> {
        self.engine.check()
    }

    /// Who calls the handlers at present.
    fn mode(&self) -> Mode {
        let config = &self.engine.config;
        match config.on_worker_failure {
            OnWorkerFailure::Inline if self.collector.state() == State::WorkerGone => Mode::Inline,
            _ => config.mode,
        }
    }

    fn history(&self) -> Result<&(dyn History + Send + Sync), HistoryError> {
        let refused = |forked| {
            let place = "the events of the bus".to_owned();
            HistoryError { place, source: FlushError::from(forked).into() }
        };
        self.check().map_err(refused)?;
        Ok(&*self.history)
    }

    fn drop_timeout(&self) -> Duration {
        self.collector.config().drop_timeout
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

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("collector", &self.collector).finish_non_exhaustive()
    }
}
