//! Where a task was made: in this process, or in the one that it was forked from.
//!
//! In a forked child the threads of a task are not there, and a lock or a queue may be as one of them left it in the middle of
//! a change. So nothing of it is touched there: calls are refused, and what is dropped is left lying. The parent is asked for no
//! system call: a word that a hook of the system changes in the child says that it is one, and then the number of the process tells
//! its own tasks from its parent's.

use crate::sync::{Arc, OnceLock};
use crate::unix::{ForkWatch, watch_forks};
use crate::wake::{Phase, State};

/// For all tasks of the process; it says `Forked` in every child from then on.
static WATCH: OnceLock<(Arc<Phase>, ForkWatch)> = OnceLock::new();

/// The process in which something was made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Home {
    process: u32,
}

impl Home {
    pub(super) fn here() -> Self {
        WATCH.get_or_init(|| {
            let phase = Arc::new(Phase::new().0);
            let watch = watch_forks(&phase);
            (phase, watch)
        });
        Self { process: std::process::id() }
    }

    /// Whether this is a child of the process in which it was made.
    pub(super) fn is_left(self) -> bool {
        let is_child = WATCH.get().is_some_and(|(phase, _)| phase.load().state() == State::Forked);
        is_child && std::process::id() != self.process
    }
}
