//! Events that wait for their retry, and the scheduler's alarm.

use std::collections::BTreeMap;
use std::time::Instant;

use forebay_sync::sync::{Arc, Mutex, OnceLock, Ordering, PlainU64, Unparker};

use super::delivery::Delivery;
use super::subscriber::Subscriber;

/// Events that wait for their retry, in the order in which they are due.
#[derive(Default)]
pub(super) struct RetryQueue {
    waiting: Mutex<Waiting>,
    /// 1 once no retry is kept any more. Written under the lock. Relaxed: a reader that must be right holds the lock.
    is_closed: PlainU64,
    /// Wakes the scheduler; unset where there is none.
    pub(super) scheduler: OnceLock<Unparker>,
}

#[derive(Default)]
struct Waiting {
    /// Retries, by the time when each is due, and by the order in which they were added.
    retries: BTreeMap<(Instant, u64), Retry>,
    last_number: u64,
}

/// Event, and the handler that is to be called again.
pub(super) type Retry = (Arc<Subscriber>, Delivery);

impl RetryQueue {
    /// Keeps an event until it is due. Returns it if the queue is closed.
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
        waiting.last_number += 1;
        let key = (due, waiting.last_number);
        waiting.retries.insert(key, (Arc::clone(subscriber), delivery));
        let is_first = waiting.retries.first_key_value().is_some_and(|(first, _)| *first == key);
        drop(waiting);
        if is_first {
            self.wake_scheduler();
        }
        None
    }

    pub(super) fn wake_scheduler(&self) {
        if let Some(scheduler) = self.scheduler.get() {
            scheduler.unpark();
        }
    }

    /// Takes out all retries that are due.
    pub(super) fn take_due(&self, now: Instant) -> Vec<Retry> {
        let mut waiting = self.waiting.lock();
        let mut due = Vec::new();
        while let Some(first) = waiting.retries.first_entry()
            && first.key().0 <= now
        {
            due.push(first.remove());
        }
        due
    }

    /// Takes out all retries of one handler.
    pub(super) fn take_of(&self, id: u64) -> Vec<Retry> {
        let mut waiting = self.waiting.lock();
        let keys = waiting.retries.iter().filter(|(_, (subscriber, _))| subscriber.id == id);
        let keys: Vec<_> = keys.map(|(key, _)| *key).collect();
        keys.iter().filter_map(|key| waiting.retries.remove(key)).collect()
    }

    /// Returns when the first retry is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.lock().retries.first_key_value().map(|((due, _), _)| *due)
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.lock().retries.len()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed) != 0
    }

    /// Keeps no retry from now on. Returns those that it has.
    pub(super) fn close(&self) -> Vec<Retry> {
        let mut waiting = self.waiting.lock();
        self.is_closed.store(1, Ordering::Relaxed);
        std::mem::take(&mut waiting.retries).into_values().collect()
    }
}
