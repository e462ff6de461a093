//! Tasks of watchers that run from time to time: on the scheduler, or on whoever emits.

use std::fmt;
use std::time::{Duration, Instant};

use forebay_sync::permit::Permit;
use forebay_sync::sync::{Arc, Mutex, catch_panic};

/// Task of the bus's own code: quick, and it waits for nothing.
type Run = dyn Fn() + Send + Sync;

/// The number of a periodic task. Never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TaskId(u64);

/// Periodic tasks, and when each is due.
#[derive(Default)]
pub(super) struct PeriodicTasks(Mutex<List>);

#[derive(Default)]
struct List {
    tasks: Vec<Task>,
    /// The number of the task that was added last.
    last_id: u64,
}

struct Task {
    id: u64,
    due: Instant,
    every: Duration,
    run: Arc<Run>,
    /// Permission to run it, revoked when it is removed.
    permit: Arc<Permit>,
}

impl PeriodicTasks {
    /// Adds a task, which is due for the first time after one period.
    pub(super) fn add(
        &self,
        now: Instant,
        every: Duration,
        run: impl Fn() + Send + Sync + 'static,
    ) -> TaskId {
        let run = Arc::new(run);
        let mut list = self.0.lock();
        list.last_id += 1;
        let id = list.last_id;
        list.tasks.push(Task { id, due: later(now, every), every, run, permit: Arc::new(Permit::new()) });
        TaskId(id)
    }

    /// Removes a task. It is not begun once this has returned.
    pub(super) fn remove(&self, id: TaskId) {
        let Ok(mut list) = self.0.enter() else { return };
        let index = list.tasks.iter().position(|task| task.id == id.0);
        let removed = index.map(|index| list.tasks.remove(index));
        drop(list);
        removed.iter().for_each(|task| task.permit.revoke());
    }

    /// Runs each task that is due once, however late it is. Returns when the next one is due.
    pub(super) fn run_due(&self, now: Instant) -> Option<Instant> {
        let mut due = Vec::new();
        let mut list = self.0.lock();
        for task in list.tasks.iter_mut().filter(|task| task.due <= now) {
            task.due = later(now, task.every);
            due.push((Arc::clone(&task.permit), Arc::clone(&task.run)));
        }
        let next = list.tasks.iter().map(|task| task.due).min();
        drop(list);
        for (permit, run) in due {
            let _ = catch_panic(|| permit.begin().then(|| run()));
        }
        next
    }
}

/// Returns `now + delay`, or as good as never where the clock cannot tell that.
pub(super) fn later(now: Instant, delay: Duration) -> Instant {
    now.checked_add(delay).unwrap_or_else(|| now + Duration::from_secs(365 * 24 * 3600))
}

impl fmt::Debug for PeriodicTasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeriodicTasks").field("len", &self.0.lock().tasks.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_sync::sync::{Ordering, PlainU64};

    #[test]
    fn a_task_is_not_begun_once_it_is_removed() {
        let tasks = Arc::new(PeriodicTasks::default());
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let (ids, done) = (Arc::new(Mutex::new(Vec::new())), Arc::new(PlainU64::new(0)));
        // The runner has taken out both when the first removes the second.
        for _ in 0..2 {
            let (removes, counts, own) = (Arc::clone(&ids), Arc::clone(&done), Arc::clone(&tasks));
            let run = move || {
                counts.fetch_add(1, Ordering::Relaxed);
                let ids: Vec<TaskId> = std::mem::take(&mut *removes.lock());
                ids.into_iter().for_each(|id| own.remove(id));
            };
            let id = tasks.add(now, second, run);
            ids.lock().push(id);
        }
        assert_eq!(tasks.run_due(now + second), Some(now + second * 2));
        assert_eq!(done.load(Ordering::Relaxed), 1);
        assert_eq!(tasks.run_due(now + second * 2), None);
    }
}
