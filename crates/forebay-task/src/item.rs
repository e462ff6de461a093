//! Items as they are reported: their origin, their times and their fate.

use std::fmt;
use std::time::SystemTime;

use forebay_sync::sync::{Ordering, PlainU64};
use serde::Serialize;

use crate::summary::Summary;

/// Number of a task in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct TaskId(u64);

impl TaskId {
    /// Takes the next number. Relaxed: no other memory depends on it.
    pub(crate) fn next() -> Self {
        static NEXT: PlainU64 = PlainU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Returns the number: 1 for the first task that was started.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Item that was done with, and its times. See [`Stage::items`](crate::Stage::items).
///
/// Times go by the clock of the task, and begin with the system time at its start. An item that was sent before counts as created
/// then.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Item<R> {
    /// The task.
    pub task: TaskId,
    /// The place in the order of sending, from 0. A batch that is handled as one has the place of its first item. The
    /// [final one](ItemKind::Final) has the place after the last.
    pub id: u64,
    /// The number of items that it stands for: all of a batch that is handled as one, 0 for the final one, 1 for all others.
    pub items: u64,
    /// The time at which the channel took it in.
    pub created: SystemTime,
    /// The time of the first call of its handler; `None` if no handler saw it.
    pub started: Option<SystemTime>,
    /// The time at which its fate was known.
    pub completed: SystemTime,
    /// The fate.
    pub kind: ItemKind<R>,
}

/// Fate of an item.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ItemKind<R> {
    /// The handler succeeded, with this result.
    Data(R),
    /// The handler failed, and the task goes on. The text of the error, cut after 1,000 bytes.
    Continue(String),
    /// The handler failed, and that stopped the task. The text of the error, cut after 1,000 bytes.
    Error(String),
    /// The task stopped before a handler saw the item.
    Cancelled,
    /// The end of the task, behind all others.
    Final(Summary),
}

impl<R> ItemKind<R> {
    /// Returns the kind as a word: `data`, `continue`, `error`, `cancelled`, `final`.
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
