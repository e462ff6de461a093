//! Output of a task: its results, or its items.

use std::time::{Duration, Instant, SystemTime};

use forebay_sync::clock::Clock;

use crate::gather::Gather;
use crate::item::{Item, ItemKind, TaskId};

/// Output of a task: what it gathers.
pub(crate) enum Output<R, O> {
    /// The results alone.
    Results(Gather<R, O>),
    /// All items, also those without a result.
    Items(Gather<Item<R>, O>),
}

impl<R: 'static, O: 'static> Output<R, O> {
    pub(crate) fn finish(self) -> O {
        match self {
            Output::Results(gather) => gather.finish(),
            Output::Items(gather) => gather.finish(),
        }
    }
}

/// Origin of an item. The times are known where items are gathered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    pub(crate) number: u64,
    pub(crate) items: u64,
    pub(crate) created: Option<Instant>,
    pub(crate) started: Option<Instant>,
}

/// Maker of items, where items are gathered.
pub(crate) struct Observer {
    task: TaskId,
    begun: (Instant, SystemTime),
    clock: Clock,
}

impl Observer {
    pub(crate) fn new(task: TaskId, clock: &Clock) -> Self {
        Self { task, begun: (clock.now(), SystemTime::now()), clock: clock.clone() }
    }

    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    fn time(&self, at: Instant) -> SystemTime {
        let (begun, time) = self.begun;
        let since: Duration = at.saturating_duration_since(begun);
        time.checked_add(since).unwrap_or(time)
    }

    pub(crate) fn item<R>(&self, origin: Origin, kind: ItemKind<R>) -> Item<R> {
        let Origin { number, items, created, started } = origin;
        let completed = self.time(self.now());
        let created = created.map_or(self.begun.1, |created| self.time(created));
        let started = started.map(|started| self.time(started));
        Item { task: self.task, id: number, items, created, started, completed, kind }
    }
}
