//! Items as they are told: where they came from, when, and what became of them.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use super::gather::Gather;
use super::summary::Summary;
use crate::clock::Clock;
use crate::sync::{Ordering, PlainU64};

/// Which task of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct TaskId(u64);

impl TaskId {
    /// The next number. Relaxed: nothing else goes by it.
    pub(super) fn next() -> Self {
        static NEXT: PlainU64 = PlainU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// The number: 1 for the first task that was started.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What became of an item, when. See [`Stage::items`](super::Stage::items).
///
/// Times go by the clock of the task, from what the system's clock showed at its start: one that was sent before was created then.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Item<R> {
    /// Of which task.
    pub task: TaskId,
    /// Its place in the order of sending, from 0; of a batch that is handled as one, that of its first. The [final
    /// one](ItemKind::Final) has the place behind the last.
    pub id: u64,
    /// How many items it stands for: those of a batch that is handled as one, 1 for all others, 0 for the final one.
    pub items: u64,
    /// When the channel took it in.
    pub created: SystemTime,
    /// When its handler was first called; `None` if no handler saw it.
    pub started: Option<SystemTime>,
    /// When its fate was known.
    pub completed: SystemTime,
    /// What became of it.
    pub kind: ItemKind<R>,
}

/// What became of an item.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ItemKind<R> {
    /// It was handled; the result.
    Data(R),
    /// It has failed, and the task goes on; the text of the error, of a long one the first 1,000 bytes.
    Continue(String),
    /// It has failed, and has stopped the task.
    Error(String),
    /// No handler saw it, because the task stopped.
    Cancelled,
    /// The end of the task, behind all others.
    Final(Summary),
}

impl<R> ItemKind<R> {
    /// The kind as a word: `data`, `continue`, `error`, `cancelled`, `final`.
    pub fn as_str(&self) -> &'static str {
        match self {
            ItemKind::Data(_) => "data",
            ItemKind::Continue(_) => "continue",
            ItemKind::Error(_) => "error",
            ItemKind::Cancelled => "cancelled",
            ItemKind::Final(_) => "final",
        }
    }
}

/// What is kept of a task.
pub(super) enum Keep<R, O> {
    Results(Gather<R, O>),
    /// All items, whatever became of them.
    Items(Gather<Item<R>, O>),
}

impl<R: 'static, O: 'static> Keep<R, O> {
    pub(super) fn finish(self) -> O {
        match self {
            Keep::Results(gather) => gather.finish(),
            Keep::Items(gather) => gather.finish(),
        }
    }
}

/// Where an item comes from. The times are there where items are told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub(super) number: u64,
    pub(super) items: u64,
    pub(super) created: Option<Instant>,
    pub(super) started: Option<Instant>,
}

/// Makes items, for those who want them.
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
