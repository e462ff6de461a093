//! Everything that synchronises, in one facade: the only file that names `std::sync`, `std::thread`,
//! parking_lot or crossbeam-utils.
//!
//! The model checker needs to put its own primitives in their place, and it can do so only where nobody
//! goes around them. What the core may use is therefore what this file exports, no more.

pub(crate) use crossbeam_utils::CachePadded;
pub(crate) use parking_lot::{Mutex, MutexGuard};
pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
pub(crate) use std::sync::{Arc, OnceLock, Weak};
pub(crate) use std::thread::JoinHandle;

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

/// The producer's half of the Dekker pair of `wake.rs`: after the push, before the second load of the
/// phase word.
#[inline(always)]
pub(crate) fn push_fence() {
    std::sync::atomic::fence(Ordering::SeqCst);
}

/// The other halves: after a store to the phase word, before the rings are looked at again.
pub(crate) fn announce_fence() {
    std::sync::atomic::fence(Ordering::SeqCst);
}

/// A condition variable whose deadline may be absent.
#[derive(Debug, Default)]
pub(crate) struct Condvar(parking_lot::Condvar);

impl Condvar {
    pub(crate) fn new() -> Self {
        Self(parking_lot::Condvar::new())
    }

    /// Waits for a notification; `true` when `deadline` came first. `None` waits without end.
    pub(crate) fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, deadline: Option<Instant>) -> bool {
        match deadline {
            Some(deadline) => self.0.wait_until(guard, deadline).timed_out(),
            None => {
                self.0.wait(guard);
                false
            }
        }
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// The worker's bed. An `unpark` that comes before `park` is remembered, so that it is not lost.
#[derive(Debug)]
pub(crate) struct Parker(crossbeam_utils::sync::Parker);

/// The bell beside it; ringing it is the one system call that a producer may make.
#[derive(Debug, Clone)]
pub(crate) struct Unparker(crossbeam_utils::sync::Unparker);

impl Parker {
    pub(crate) fn new() -> (Parker, Unparker) {
        let parker = crossbeam_utils::sync::Parker::new();
        let unparker = Unparker(parker.unparker().clone());
        (Parker(parker), unparker)
    }

    pub(crate) fn park_timeout(&self, longest: Duration) {
        self.0.park_timeout(longest);
    }
}

impl Unparker {
    pub(crate) fn unpark(&self) {
        self.0.unpark();
    }
}

/// Starts a named thread; the error is the system's.
pub(crate) fn spawn(
    name: &str,
    stack_size: Option<usize>,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let mut builder = std::thread::Builder::new().name(name.to_owned());
    if let Some(bytes) = stack_size {
        builder = builder.stack_size(bytes);
    }
    builder.spawn(body)
}

thread_local! {
    /// The address of the collector whose worker this thread is; 0 on every other thread.
    static WORKER_OF: Cell<usize> = const { Cell::new(0) };
}

/// Marks the calling thread as the worker of the collector at `address`, until the value is dropped.
#[derive(Debug)]
pub(crate) struct WorkerMark(());

impl WorkerMark {
    pub(crate) fn set(address: usize) -> Self {
        WORKER_OF.with(|cell| cell.set(address));
        WorkerMark(())
    }
}

impl Drop for WorkerMark {
    fn drop(&mut self) {
        // `try_with`: a worker may end while its thread-local storage is being torn down.
        let _ = WORKER_OF.try_with(|cell| cell.set(0));
    }
}

/// Whether the calling thread is the worker of the collector at `address`.
pub(crate) fn is_worker_of(address: usize) -> bool {
    WORKER_OF.try_with(|cell| cell.get() == address).unwrap_or(false)
}
