//! What watchers do from time to time: on the foreman, or on whoever emits.

use std::fmt;
use std::time::{Duration, Instant};

use super::engine::Engine;
use crate::permit::Permit;
use crate::sync::{Arc, Mutex, guarded};

/// Our own code alone: quick, and it waits for nothing.
type Chore = dyn Fn(&Engine) + Send + Sync;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChoreId(u64);

/// Chores, and when each is due.
#[derive(Default)]
pub(super) struct Chores(Mutex<List>);

#[derive(Default)]
struct List {
    chores: Vec<Entry>,
    next: u64,
}

struct Entry {
    id: u64,
    due: Instant,
    every: Duration,
    chore: Arc<Chore>,
    permit: Arc<Permit>,
}

impl Chores {
    pub(super) fn add(
        &self,
        now: Instant,
        every: Duration,
        chore: impl Fn(&Engine) + Send + Sync + 'static,
    ) -> ChoreId {
        let chore = Arc::new(chore);
        let mut list = self.0.lock();
        list.next += 1;
        let id = list.next;
        list.chores.push(Entry { id, due: later(now, every), every, chore, permit: Arc::new(Permit::new()) });
        ChoreId(id)
    }

    /// It is not begun once this has returned.
    pub(super) fn remove(&self, id: ChoreId) {
        let Ok(mut list) = self.0.enter() else { return };
        let place = list.chores.iter().position(|entry| entry.id == id.0);
        let removed = place.map(|place| list.chores.remove(place));
        drop(list);
        removed.iter().for_each(|entry| entry.permit.revoke());
    }

    /// Does those that are due, each once however late it is. When the next is.
    pub(super) fn run_due(&self, engine: &Engine, now: Instant) -> Option<Instant> {
        let mut due = Vec::new();
        let mut list = self.0.lock();
        for entry in list.chores.iter_mut().filter(|entry| entry.due <= now) {
            entry.due = later(now, entry.every);
            due.push((Arc::clone(&entry.permit), Arc::clone(&entry.chore)));
        }
        let next = list.chores.iter().map(|entry| entry.due).min();
        drop(list);
        for (permit, chore) in due {
            let _ = guarded(|| permit.begin().then(|| chore(engine)));
        }
        next
    }
}

/// As good as never, where the clock cannot tell.
pub(super) fn later(now: Instant, every: Duration) -> Instant {
    now.checked_add(every).unwrap_or_else(|| now + Duration::from_secs(365 * 24 * 3600))
}

impl fmt::Debug for Chores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chores").field("len", &self.0.lock().chores.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::BusConfig;
    use crate::clock::Clock;
    use crate::sync::{Ordering, PlainU64};

    #[test]
    fn a_chore_is_not_begun_once_it_is_removed() {
        let engine = Engine::new(BusConfig::default(), Clock::System);
        let (now, second) = (engine.clock.now(), Duration::from_secs(1));
        let (ids, done) = (Arc::new(Mutex::new(Vec::new())), Arc::new(PlainU64::new(0)));
        // Both are in the hands of whoever does them when the first removes the second.
        for _ in 0..2 {
            let (removes, counts) = (Arc::clone(&ids), Arc::clone(&done));
            let chore = move |engine: &Engine| {
                counts.fetch_add(1, Ordering::Relaxed);
                let ids: Vec<ChoreId> = std::mem::take(&mut *removes.lock());
                ids.into_iter().for_each(|id| engine.chores.remove(id));
            };
            let id = engine.chores.add(now, second, chore);
            ids.lock().push(id);
        }
        assert_eq!(engine.chores.run_due(&engine, now + second), Some(now + second * 2));
        assert_eq!(done.load(Ordering::Relaxed), 1);
        assert_eq!(engine.chores.run_due(&engine, now + second * 2), None);
    }
}
