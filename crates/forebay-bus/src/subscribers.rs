//! All handlers of a bus, and the lookup of those that get an event: by its name, once for each name.

use std::any::TypeId;
use std::collections::HashMap;

use arc_swap::ArcSwap;
use forebay::config::ConfigError;
use forebay::{Event, Name};
use forebay_sync::sync::{Arc, Forked, Mutex};

use super::envelope::Envelope;
use super::mailbox::{CloseReason, Closed};
use super::stats::HandlerStats;
use super::subscriber::Subscriber;

/// Reason why a subscription was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// Something of the handler is not allowed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The bus has as many subscribers as are allowed ([`BusConfig::max_subscribers`](super::BusConfig::max_subscribers)).
    #[error("the bus has the maximum of {max} subscriptions (max_subscribers)")]
    TooMany {
        /// Number that is allowed.
        max: usize,
    },
    /// The bus is stopped.
    #[error("the bus is stopped")]
    Stopped,
    /// This process is a forked child; the threads live in the parent.
    #[error("this process is a fork of the one that started the bus")]
    Forked,
}

forebay_sync::from_forked!(SubscribeError);

/// All handlers that are subscribed, and those that were and are still busy.
#[derive(Default)]
pub(super) struct Subscribers {
    /// Read without a lock by whoever delivers; replaced under the lock of `former`.
    table: ArcSwap<Table>,
    former: Mutex<Former>,
}

/// Handlers that are subscribed no more.
#[derive(Default)]
struct Former {
    /// Handlers whose events are not all over.
    busy: Vec<Arc<Subscriber>>,
    /// The counts of all others.
    stats: HandlerStats,
    /// True if the bus is stopped: nobody is added any more.
    is_closed: bool,
}

impl Subscribers {
    /// Returns the table of this moment.
    pub(super) fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// Adds a handler, unless there are `max` already or the bus is stopped.
    pub(super) fn add(&self, subscriber: Arc<Subscriber>, max: usize) -> Result<(), SubscribeError> {
        let former = self.former.enter()?;
        let mut subscribers = self.table().subscribers.clone();
        let refused = match subscribers.len() {
            _ if former.is_closed => Some(SubscribeError::Stopped),
            full if full >= max => Some(SubscribeError::TooMany { max }),
            _ => None,
        };
        if let Some(refused) = refused {
            // The function of the handler ends with it, and its destructor is user code: not under the lock.
            drop(former);
            return Err(refused);
        }
        subscribers.push(subscriber);
        self.table.store(Arc::new(Table::new(subscribers)));
        Ok(())
    }

    /// Removes a handler and closes its mailbox. Returns `None` if there is no handler of that number.
    pub(super) fn remove(&self, id: u64) -> Option<(Arc<Subscriber>, Closed)> {
        let mut former = self.former.enter().ok()?;
        let mut subscribers = self.table().subscribers.clone();
        let index = subscribers.iter().position(|subscriber| subscriber.id == id)?;
        let subscriber = subscribers.remove(index);
        self.table.store(Arc::new(Table::new(subscribers)));
        // Closed before anybody can add its counts to the others: nothing more comes to it.
        let closed = subscriber.close(CloseReason::Unsubscribed);
        former.busy.push(Arc::clone(&subscriber));
        Some((subscriber, closed))
    }

    /// Lets nobody in from now on.
    pub(super) fn close(&self) {
        self.former.lock().is_closed = true;
    }

    /// Refuses in a forked child, where no lock may be taken.
    pub(super) fn check(&self) -> Result<(), Forked> {
        self.former.check()
    }

    /// Returns all handlers that are subscribed, or were and may be busy.
    pub(super) fn everybody(&self) -> Vec<Arc<Subscriber>> {
        let Ok(former) = self.former.enter() else { return Vec::new() };
        self.table().subscribers.iter().chain(&former.busy).cloned().collect()
    }

    /// Adds the counts of former handlers that are not busy any more to the others. Returns these handlers, to be dropped
    /// without a lock: the destructors of their functions are user code.
    pub(super) fn fold_former(&self) -> Vec<Arc<Subscriber>> {
        self.former.lock().fold()
    }

    /// Returns the counts of every handler that is subscribed, and of all former ones together. In a forked child, none.
    pub(super) fn stats(&self) -> (Vec<HandlerStats>, HandlerStats) {
        let Ok(mut former) = self.former.enter() else { return Default::default() };
        let table = self.table();
        let over = former.fold();
        let mut gone = former.stats.clone();
        former.busy.iter().for_each(|subscriber| gone.add(&subscriber.mailbox.lock().snapshot()));
        drop(former);
        drop(over);
        (table.subscribers.iter().map(|it| it.mailbox.lock().snapshot()).collect(), gone)
    }
}

impl Former {
    fn fold(&mut self) -> Vec<Arc<Subscriber>> {
        let mut over = Vec::new();
        for subscriber in std::mem::take(&mut self.busy) {
            let mailbox = subscriber.mailbox.lock();
            // Calls for dead letters keep a mailbox busy as well, although they are in no count.
            let stats = mailbox.is_quiet().then(|| mailbox.snapshot());
            drop(mailbox);
            match stats {
                Some(stats) => {
                    self.stats.add(&stats);
                    over.push(subscriber);
                }
                None => self.busy.push(subscriber),
            }
        }
        over
    }
}

/// All handlers at one moment. Never changes: a new table replaces it.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Subscribers in the order of their subscription.
    pub(super) subscribers: Vec<Arc<Subscriber>>,
    /// Indices of subscribers by exact name.
    names: HashMap<String, Vec<usize>>,
    /// Indices of subscribers with patterns, each with the index of the pattern among their topics.
    patterns: Vec<(usize, usize)>,
    /// Indices of subscribers by type.
    types: HashMap<TypeId, Vec<usize>>,
}

impl Table {
    fn new(subscribers: Vec<Arc<Subscriber>>) -> Self {
        let mut table = Self { subscribers, ..Self::default() };
        for (index, subscriber) in table.subscribers.iter().enumerate() {
            for (topic, pattern) in subscriber.topics.0.iter().enumerate() {
                match pattern.as_name() {
                    Some(name) => table.names.entry(name).or_default().push(index),
                    None => table.patterns.push((index, topic)),
                }
            }
            if let Some(typed) = subscriber.typed {
                table.types.entry(typed).or_default().push(index);
            }
        }
        table
    }

    /// Returns the indices of the subscribers whose topics match the name, each once.
    fn by_name(&self, name: &str) -> Arc<[usize]> {
        let mut indices = self.names.get(name).cloned().unwrap_or_default();
        let matches = |index: usize, topic: usize| {
            let subscriber = self.subscribers.get(index);
            subscriber.and_then(|it| it.topics.0.get(topic)).is_some_and(|pattern| pattern.matches(name))
        };
        let matching = self.patterns.iter().filter(|(index, topic)| matches(*index, *topic));
        indices.extend(matching.map(|(index, _)| *index));
        indices.sort_unstable();
        indices.dedup();
        indices.into()
    }

    /// Calls `found` with the index of every subscriber that gets the event. Filters are user code: no lock is held.
    pub(super) fn each_for(&self, lookups: &mut Lookups, event: &Envelope, mut found: impl FnMut(usize)) {
        let mut offer = |index: usize| {
            if self.subscribers.get(index).is_some_and(|subscriber| subscriber.lets_in(event)) {
                found(index);
            }
        };
        lookups.of(self, event).iter().copied().for_each(&mut offer);
        if !self.types.is_empty()
            && let Some(typed) = event.mark.typed.as_deref()
        {
            self.types.get(&typed.type_id()).into_iter().flatten().copied().for_each(&mut offer);
        }
    }
}

/// Earlier lookups in one table, by name. Not shared between threads.
#[derive(Debug, Default)]
pub(super) struct Lookups(HashMap<Name, Arc<[usize]>>);

/// The most names that are remembered.
const MAX_LOOKUPS: usize = 4_096;

impl Lookups {
    fn of(&mut self, table: &Table, event: &Envelope) -> Arc<[usize]> {
        let name = Event::name(event);
        if let Some(indices) = self.0.get(name) {
            return Arc::clone(indices);
        }
        let indices = table.by_name(name);
        if self.0.len() >= MAX_LOOKUPS {
            self.0.clear();
        }
        self.0.insert(event.shared_name().clone(), Arc::clone(&indices));
        indices
    }
}
