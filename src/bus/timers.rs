//! Retries that are not due yet, and the bell of whoever waits for them.

use std::collections::BTreeMap;
use std::time::Instant;

use super::handler::Delivery;
use super::table::Subscriber;
use crate::sync::{Arc, Mutex, OnceLock, Ordering, PlainU64, Unparker};

/// Events that are to be given to their handlers again.
#[derive(Default)]
pub(super) struct Timers {
    waiting: Mutex<Waiting>,
    /// No retry is kept any more. Written under the lock.
    is_closed: PlainU64,
    /// Of the foreman, if there is one.
    pub(super) bell: OnceLock<Unparker>,
}

#[derive(Default)]
struct Waiting {
    /// By the moment when they are due, and by the order in which they came.
    events: BTreeMap<(Instant, u64), Again>,
    next: u64,
}

/// An event and its handler.
pub(super) type Again = (Arc<Subscriber>, Delivery);

impl Timers {
    /// Keeps an event until it is due. After the end it comes back.
    pub(super) fn add(
        &self,
        due: Instant,
        subscriber: &Arc<Subscriber>,
        delivery: Delivery,
    ) -> Option<Delivery> {
        let mut waiting = self.waiting.lock();
        if self.is_closed() {
            return Some(delivery);
        }
        waiting.next += 1;
        let key = (due, waiting.next);
        waiting.events.insert(key, (Arc::clone(subscriber), delivery));
        let is_first = waiting.events.first_key_value().is_some_and(|(first, _)| *first == key);
        drop(waiting);
        if is_first {
            self.ring();
        }
        None
    }

    /// Calls the foreman.
    pub(super) fn ring(&self) {
        if let Some(bell) = self.bell.get() {
            bell.unpark();
        }
    }

    pub(super) fn take_due(&self, now: Instant) -> Vec<Again> {
        let mut waiting = self.waiting.lock();
        let mut due = Vec::new();
        while let Some(first) = waiting.events.first_entry()
            && first.key().0 <= now
        {
            due.push(first.remove());
        }
        due
    }

    /// Takes out those of one handler.
    pub(super) fn take_of(&self, id: u64) -> Vec<Again> {
        let mut waiting = self.waiting.lock();
        let keys = waiting.events.iter().filter(|(_, (subscriber, _))| subscriber.id == id);
        let keys: Vec<_> = keys.map(|(key, _)| *key).collect();
        keys.iter().filter_map(|key| waiting.events.remove(key)).collect()
    }

    /// When the first is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.waiting.lock().events.first_key_value().map(|((due, _), _)| *due)
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.lock().events.len()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed) != 0
    }

    /// Keeps nothing from now on; what it has comes out.
    pub(super) fn close(&self) -> Vec<Again> {
        let mut waiting = self.waiting.lock();
        self.is_closed.store(1, Ordering::Relaxed);
        std::mem::take(&mut waiting.events).into_values().collect()
    }
}
