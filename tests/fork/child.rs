//! Helpers that tests of forks share.
#![allow(unsafe_code, reason = "fork and waitpid")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use crate::support::{look_again, until};

/// Far more than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// Runs `body` in a forked child; its exit status, or `None` if it did not end.
pub(crate) fn in_child(body: impl FnOnce() -> bool) -> Option<i32> {
    // SAFETY: the child runs `body` and leaves by `_exit`. Like any child of a process with threads it must
    // not take a lock that another thread may hold; that forebay does not is what is tested here.
    match unsafe { libc::fork() } {
        0 => {
            let is_good = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or(false);
            unsafe { libc::_exit(if is_good { 0 } else { 1 }) }
        }
        child => {
            assert!(child > 0, "no fork");
            exit_of(child)
        }
    }
}

/// Waits for the end of a child; its exit status, or `None` if it did not end.
fn exit_of(child: i32) -> Option<i32> {
    let (begun, mut status) = (Instant::now(), 0);
    // SAFETY: the number is that of a child of this process which nobody else waits for.
    while unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } == 0 {
        if begun.elapsed() > LONG {
            unsafe { libc::kill(child, libc::SIGKILL) };
            unsafe { libc::waitpid(child, &mut status, 0) };
            return None;
        }
        look_again();
    }
    libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status))
}

/// Forks once, and returns on both sides; the child, as the parent knows it, or -1.
pub(crate) fn fork_once(child: &AtomicI32) {
    if child.load(Ordering::SeqCst) == 0 {
        // SAFETY: the child goes on where the parent was, which is what is tested here; it has no other thread.
        let pid = unsafe { libc::fork() };
        child.store(if pid == 0 { -1 } else { pid }, Ordering::SeqCst);
    }
}

/// Ends the process if it is the child, whose number is not known to itself, with what it has seen.
pub(crate) fn leave_if_child(child: &AtomicI32, seen: u64) {
    if child.load(Ordering::SeqCst) == -1 {
        // SAFETY: this process is a child that the test has made.
        unsafe { libc::_exit(i32::try_from(seen).unwrap_or(99)) };
    }
}

/// Returns the exit status of a child that `fork_once` has made.
pub(crate) fn status_of(child: &AtomicI32) -> Option<i32> {
    exit_of(child.load(Ordering::SeqCst))
}

/// Forks once, on whichever thread asks it first, and returns on both sides.
#[derive(Clone, Default)]
pub(crate) struct Forker(pub(crate) Arc<AtomicI32>);

impl Forker {
    pub(crate) fn fork(&self) {
        // A second call in the child says that something went on there.
        self.must_not_be_child();
        fork_once(&self.0);
    }

    pub(crate) fn must_not_be_child(&self) {
        leave_if_child(&self.0, 7);
    }

    /// Waits for the child, which must have ended by itself.
    #[track_caller]
    pub(crate) fn child_has_ended(&self) {
        // An isolated sink is dropped behind the end of its collector.
        until("somebody forks", || self.0.load(Ordering::SeqCst) != 0);
        assert_eq!(
            status_of(&self.0),
            Some(0),
            "the child goes on: 7 where something was called there, 8 dropped"
        );
    }
}
