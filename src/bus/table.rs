//! Who gets an event: looked up by its name, once a name.

use std::any::TypeId;
use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use super::Filter;
use super::handler::Topics;
use super::mailbox::{Closed, Mailbox, Why};
use crate::event::{Event, Name, Record};
use crate::permit::Permit;
use crate::sink::RetryPolicy;
use crate::sync::{Arc, Condvar, Mutex};

/// A handler at work. Made by `subscribe`; held by the table, and by whoever calls it.
pub(super) struct Subscriber {
    pub(super) id: u64,
    pub(super) name: Name,
    topics: Topics,
    typed: Option<TypeId>,
    filters: Vec<Filter>,
    pub(super) at_once: usize,
    pub(super) retry: RetryPolicy,
    pub(super) deadline: Duration,
    pub(super) is_discarding: bool,
    pub(super) is_plugin: bool,
    pub(super) mailbox: Mutex<Mailbox>,
    /// To call the function and the filters; revoked under the lock of the mailbox, when that is closed.
    pub(super) permit: Permit,
    /// Rung when there is room in the mailbox, or will never be; and when a call ends that is waited for.
    pub(super) changed: Condvar,
}

/// The parts of a handler that never change.
pub(super) struct Fixed {
    pub(super) id: u64,
    pub(super) name: Name,
    pub(super) topics: Topics,
    pub(super) typed: Option<TypeId>,
    pub(super) filters: Vec<Filter>,
    pub(super) at_once: usize,
    pub(super) retry: RetryPolicy,
    pub(super) deadline: Duration,
    pub(super) is_discarding: bool,
    pub(super) is_plugin: bool,
}

impl Subscriber {
    pub(super) fn new(fixed: Fixed, mailbox: Mailbox) -> Arc<Self> {
        let Fixed { id, name, topics, typed, filters, at_once, retry, deadline, is_discarding, is_plugin } =
            fixed;
        let (mailbox, changed) = (Mutex::new(mailbox), Condvar::new());
        Arc::new(Self {
            id,
            name,
            topics,
            typed,
            filters,
            at_once,
            retry,
            deadline,
            is_discarding,
            is_plugin,
            mailbox,
            permit: Permit::new(),
            changed,
        })
    }

    /// Takes the function out, and all that waits: see [`Mailbox::close`]. No call begins once this has returned.
    pub(super) fn close(&self, why: Why) -> Closed {
        let mut mailbox = self.mailbox.lock();
        self.permit.revoke();
        mailbox.close(why)
    }

    fn lets_in(&self, event: &Record) -> bool {
        self.filters.iter().all(|filter| self.permit.begin() && filter.lets_in(event))
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

/// All handlers at one moment. Never changes: a new one takes its place.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// In the order of their subscription.
    pub(super) subscribers: Vec<Arc<Subscriber>>,
    /// By exact names; by patterns, each told by its place among the topics; by types. Numbers are places.
    names: HashMap<String, Vec<usize>>,
    patterns: Vec<(usize, usize)>,
    types: HashMap<TypeId, Vec<usize>>,
}

impl Table {
    pub(super) fn new(subscribers: Vec<Arc<Subscriber>>) -> Self {
        let mut table = Self { subscribers, ..Self::default() };
        for (place, subscriber) in table.subscribers.iter().enumerate() {
            for (topic, pattern) in subscriber.topics.0.iter().enumerate() {
                match pattern.as_name() {
                    Some(name) => table.names.entry(name).or_default().push(place),
                    None => table.patterns.push((place, topic)),
                }
            }
            if let Some(typed) = subscriber.typed {
                table.types.entry(typed).or_default().push(place);
            }
        }
        table
    }

    /// The places of those whose topics fit the name, each once.
    fn by_name(&self, name: &str) -> Arc<[usize]> {
        let mut places = self.names.get(name).cloned().unwrap_or_default();
        let fits = |place: usize, topic: usize| {
            let subscriber = self.subscribers.get(place);
            subscriber.and_then(|it| it.topics.0.get(topic)).is_some_and(|pattern| pattern.matches(name))
        };
        let fitting = self.patterns.iter().filter(|(place, topic)| fits(*place, *topic));
        places.extend(fitting.map(|(place, _)| *place));
        places.sort_unstable();
        places.dedup();
        places.into()
    }

    /// Calls `found` with the place of everybody who gets the event. Filters are foreign code: no lock is held.
    pub(super) fn each_for(&self, known: &mut Known, event: &Record, mut found: impl FnMut(usize)) {
        let mut offer = |place: usize| {
            if self.subscribers.get(place).is_some_and(|subscriber| subscriber.lets_in(event)) {
                found(place);
            }
        };
        known.of(self, event).iter().copied().for_each(&mut offer);
        if !self.types.is_empty()
            && let Some(typed) = event.mark().and_then(|mark| mark.typed.as_deref())
        {
            self.types.get(&typed.type_id()).into_iter().flatten().copied().for_each(&mut offer);
        }
    }
}

/// What was looked up before, by name. Of one table; not shared.
#[derive(Debug, Default)]
pub(super) struct Known(HashMap<Name, Arc<[usize]>>);

/// More names than this are looked up anew.
const MOST_KNOWN: usize = 4_096;

impl Known {
    fn of(&mut self, table: &Table, event: &Record) -> Arc<[usize]> {
        let name = Event::name(event);
        if let Some(places) = self.0.get(name) {
            return Arc::clone(places);
        }
        let places = table.by_name(name);
        if self.0.len() >= MOST_KNOWN {
            self.0.clear();
        }
        self.0.insert(event.shared_name().clone(), Arc::clone(&places));
        places
    }
}
