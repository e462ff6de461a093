//! Where results and items of a task go.

use std::time::{Duration, Instant, SystemTime};

use super::gather::Gather;
use super::item::{Item, ItemKind, TaskId};
use crate::clock::Clock;

/// Output of a task: what it gathers.
pub(super) enum Output<R, O> {
    /// The results alone.
    Results(Gather<R, O>),
    /// All items, whatever became of them.
    Items(Gather<Item<R>, O>),
}

impl<R: 'static, O: 'static> Output<R, O> {
    pub(super) fn finish(self) -> O {
        match self {
            Output::Results(gather) => gather.finish(),
            Output::Items(gather) => gather.finish(),
        }
    }
}

/// Origin of an item. The times are known where items are gathered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub(super) number: u64,
    pub(super) items: u64,
    pub(super) created: Option<Instant>,
    pub(super) started: Option<Instant>,
}

/// Maker of items, where items are gathered.
pub(super) struct Observer {
    task: TaskId,
    begun: (Instant, SystemTime),
    clock: Clock,
}

impl Observer {
    pub(super) fn new(task: TaskId, clock: &Clock) -> Self {
        Self { task, begun: (clock.now(), SystemTime::now()), clock: clock.clone() }
    }

    pub(super) fn now(&self) -> Instant {
        self.clock.now()
    }

    fn time(&self, at: Instant) -> SystemTime {
        let (begun, time) = self.begun;
        let since: Duration = at.saturating_duration_since(begun);
        time.checked_add(since).unwrap_or(time)
    }

    pub(super) fn item<R>(&self, origin: Origin, kind: ItemKind<R>) -> Item<R> {
        let Origin { number, items, created, started } = origin;
        let completed = self.time(self.now());
        let created = created.map_or(self.begun.1, |created| self.time(created));
        let started = started.map(|started| self.time(started));
        Item { task: self.task, id: number, items, created, started, completed, kind }
    }
}
