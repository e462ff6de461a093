//! What watchers do from time to time: on the foreman, or on whoever emits.

use std::fmt;
use std::time::{Duration, Instant};

use super::engine::Engine;
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
        list.chores.push(Entry { id, due: later(now, every), every, chore });
        ChoreId(id)
    }

    pub(super) fn remove(&self, id: ChoreId) {
        self.0.lock().chores.retain(|entry| entry.id != id.0);
    }

    /// Does those that are due, each once however late it is. When the next is.
    pub(super) fn run_due(&self, engine: &Engine, now: Instant) -> Option<Instant> {
        let mut due = Vec::new();
        let mut list = self.0.lock();
        for entry in list.chores.iter_mut().filter(|entry| entry.due <= now) {
            entry.due = later(now, entry.every);
            due.push(Arc::clone(&entry.chore));
        }
        let next = list.chores.iter().map(|entry| entry.due).min();
        drop(list);
        for chore in due {
            let _ = guarded(|| chore(engine));
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
