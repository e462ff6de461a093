//! A sink that forks in one of its calls, on a thread of the user.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::child::{fork_once, leave_if_child, status_of};
use forebay::sink::{Hook, Sink, SinkError};
use forebay::{Batch, Event};

/// Status of a child whose call did not say `Forked`.
const WRONG: u64 = 6;
/// Status of a child where something of the parent was called, and dropped.
const CALLED: u64 = 7;
pub(crate) const DROPPED: u64 = 8;

/// Fork that is made at most once, on the thread of a user, and returns on both sides.
#[derive(Clone, Default)]
pub(crate) struct Forker(pub(crate) Arc<AtomicI32>);

impl Forker {
    /// Ends the child, with whether the call has said what it should.
    pub(crate) fn end_child(&self, is_good: bool) {
        leave_if_child(&self.0, if is_good { 0 } else { WRONG });
    }

    /// Checks in the parent that the child has ended well.
    #[track_caller]
    pub(crate) fn child_has_ended(&self) {
        assert_ne!(self.0.load(Ordering::SeqCst), 0, "nobody has forked");
        assert_eq!(
            status_of(&self.0),
            Some(0),
            "6: does not know that it is a child; 7: something was called; 8: dropped; none: it hangs"
        );
    }
}

/// A sink that forks in one of its calls, or in none; nothing of it may be called or dropped in the child.
pub(crate) struct Odd {
    forker: Forker,
    call: &'static str,
}

pub(crate) fn odd(forker: &Forker, call: &'static str) -> Odd {
    Odd { forker: forker.clone(), call }
}

impl Odd {
    pub(crate) fn called(&self, call: &str) {
        leave_if_child(&self.forker.0, if call == "drop" { DROPPED } else { CALLED });
        if self.call == call {
            fork_once(&self.forker.0);
        }
    }
}

impl<E: Event> Sink<E> for Odd {
    fn name(&self) -> &str {
        if self.forker.0.load(Ordering::SeqCst) == 0 {
            self.called("name");
        }
        if self.call == "quiet" { "quiet" } else { "odd" }
    }

    fn write_batch(&mut self, _: &Batch<E>) -> Result<(), SinkError> {
        self.called("write");
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.called("flush");
        Ok(())
    }

    fn hook(&mut self, hook: Hook<'_>) {
        match hook {
            Hook::Open(_) => self.called("open"),
            Hook::MayWait(_) => self.called("may_wait"),
            _ => {}
        }
    }
}

impl Drop for Odd {
    fn drop(&mut self) {
        self.called("drop");
    }
}
