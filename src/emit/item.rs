//! Items as they are reported: where they came from, when, and what became of them.

use std::fmt;
use std::time::SystemTime;

use serde::Serialize;

use super::summary::Summary;
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
