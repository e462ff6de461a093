//! State that the handle, the workers, the scheduler and the dispatcher of a bus share.
//!
//! The files above this one add to it, each one role: how dead letters are kept and offered again (`dead_letters.rs`), how
//! calls and subscriptions end (`completion.rs`), how calls are made (`calls.rs`), how events get to the mailboxes
//! (`dispatch.rs`).
//!
//! No lock is held while user code runs: a handler, a filter, or a destructor. Where two locks are held at once, they are
//! taken in this order: the list of subscribers; a mailbox; the queue of the worker pool. All others are taken alone.

use std::fmt;

use forebay::sink::DeadLetters;
use forebay::{Batch, Record};
use forebay_sync::clock::Clock;
use forebay_sync::sync::{Arc, Forked, OnceLock, Ordering, PlainU64};

use super::config::{BusConfig, Mode};
use super::context;
use super::envelope::Envelope;
use super::handler::Handler;
use super::id::SubscriptionId;
use super::in_flight::{InFlight, InFlightSet};
use super::mailbox::Mailbox;
use super::periodic_tasks::PeriodicTasks;
use super::retry_queue::RetryQueue;
use super::subscriber::Subscriber;
use super::subscribers::{SubscribeError, Subscribers, Table};
use super::tally::Tally;
use super::worker_pool::WorkerPool;

/// State that all threads of a bus share.
pub(super) struct Engine {
    pub(super) config: BusConfig,
    pub(super) clock: Clock,
    pub(super) subscribers: Subscribers,
    pub(super) pool: WorkerPool,
    pub(super) retries: RetryQueue,
    pub(super) periodic_tasks: PeriodicTasks,
    pub(super) dead_letters: DeadLetters<Envelope>,
    pub(super) in_flight: Arc<InFlightSet>,
    pub(super) tally: Tally,
    /// Empty batch, whose header goes to events that came in no batch.
    pub(super) blank: Batch<Envelope>,
    /// Reason why there are no threads, although there should be.
    pub(super) failure: OnceLock<String>,
    /// 1 once the bus stops. Relaxed: an event that comes meanwhile may come to handlers, or not.
    is_refusing: PlainU64,
    /// Emits events of the bus itself. Set once, when the bus is complete.
    pub(super) emitter: OnceLock<Box<EmitOwn>>,
}

/// Emits an event of the bus itself, given how many events led to it.
pub(super) type EmitOwn = dyn Fn(Record, u32) + Send + Sync;

/// Number of calls that a worker makes for one handler before it serves others.
pub(super) const BURST: usize = 64;

impl Engine {
    pub(super) fn new(config: BusConfig, clock: Clock) -> Self {
        Self {
            pool: WorkerPool::new(config.workers),
            dead_letters: DeadLetters::new(config.dead_letters),
            config,
            clock,
            subscribers: Subscribers::default(),
            retries: RetryQueue::default(),
            periodic_tasks: PeriodicTasks::default(),
            in_flight: Arc::default(),
            tally: Tally::default(),
            blank: Batch::from_events(Vec::new()),
            failure: OnceLock::new(),
            is_refusing: PlainU64::new(0),
            emitter: OnceLock::new(),
        }
    }

    pub(super) fn table(&self) -> Arc<Table> {
        self.subscribers.table()
    }

    /// Refuses events from now on, where whoever emits calls the handlers.
    pub(super) fn refuse(&self) {
        self.is_refusing.store(1, Ordering::Relaxed);
    }

    pub(super) fn is_refusing(&self) -> bool {
        self.is_refusing.load(Ordering::Relaxed) != 0
    }

    /// Returns the address by which a thread knows that it makes calls for this bus.
    pub(super) fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Refuses in a forked child, where no lock may be taken.
    pub(super) fn check(&self) -> Result<(), Forked> {
        self.subscribers.check()
    }

    /// Returns how many calls of a handler may run at once.
    pub(super) fn max_calls(&self, subscriber: &Subscriber) -> usize {
        match self.config.mode {
            Mode::Pooled => subscriber.max_concurrent.min(self.pool.target()),
            Mode::Inline => subscriber.max_concurrent.min(BURST),
        }
    }

    /// Returns the number of a new subscription. Never used again. It is also the owner of the handler's dead letters.
    pub(super) fn new_id() -> SubscriptionId {
        SubscriptionId(DeadLetters::<Envelope>::new_owner())
    }

    /// Subscribes a handler.
    pub(super) fn subscribe(&self, handler: Handler) -> Result<SubscriptionId, SubscribeError> {
        let id = Self::new_id();
        self.subscribe_as(id, handler).map(|()| id)
    }

    /// Subscribes a handler under a number that nobody has yet.
    pub(super) fn subscribe_as(
        &self,
        SubscriptionId(id): SubscriptionId,
        handler: Handler,
    ) -> Result<(), SubscribeError> {
        handler.validate()?;
        let subscriber = Subscriber::new(id, handler, &self.config);
        self.dead_letters.add_taker(id);
        let added = self.subscribers.add(subscriber, self.config.max_subscribers);
        if added.is_err() {
            self.dead_letters.remove_taker(id);
        }
        added
    }

    /// Queues a handler for as many workers as it has use for.
    pub(super) fn schedule(&self, subscriber: &Arc<Subscriber>) {
        let mut mailbox = subscriber.mailbox.lock();
        let max_calls = self.max_calls(subscriber);
        let is_urgent = mailbox.is_urgent();
        let mut turns = mailbox.take_turns(max_calls);
        if is_urgent && turns == 0 && mailbox.turns <= max_calls && mailbox.is_ready(max_calls) {
            // It is queued already, but not as urgent.
            mailbox.turns += 1;
            turns = 1;
        }
        drop(mailbox);
        if self.pool.push(subscriber, turns, is_urgent) {
            self.retries.wake_scheduler();
        }
    }

    /// Wakes those who wait for space in a mailbox, if there is enough.
    pub(super) fn notify_waiters(&self, subscriber: &Subscriber, mailbox: &mut Mailbox) {
        if mailbox.has_waiters && mailbox.has_much_room() {
            mailbox.has_waiters = false;
            subscriber.changed.notify_all();
        }
    }

    /// Takes a batch for delivery to the handlers. A flush waits for its end.
    pub(super) fn accept(&self, batch: Batch<Envelope>) -> Arc<InFlight> {
        self.tally.events.add(batch.len() as u64);
        self.in_flight.add(batch)
    }

    /// Emits an event of the bus itself.
    pub(super) fn emit_own(&self, event: impl Into<Record>) {
        self.emit_own_at(event, context::depth());
    }

    /// Emits an event of the bus itself, to which so many events led.
    pub(super) fn emit_own_at(&self, event: impl Into<Record>, depth: u32) {
        if let Some(emit) = self.emitter.get() {
            emit(event.into(), depth);
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("config", &self.config).finish_non_exhaustive()
    }
}
