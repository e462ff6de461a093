//! What synchronises and is never modelled: counts, pointers and a raw mutex, for `unix.rs` and for the rest of `sync`.
//!
//! It stands below the fork hooks, which cannot use a mutex that knows its process: they are what tells it.

pub use std::sync::atomic::Ordering;
/// Reference counts are trusted, not modelled.
pub use std::sync::{Arc, OnceLock, Weak};

#[cfg(all(unix, not(forebay_loom)))]
use std::sync::{MutexGuard, PoisonError, TryLockError};

/// A counter that no decision depends on, and time. Never modelled: it takes no part in the protocol, and
/// every operation that is modelled multiplies the schedules to visit.
pub type PlainU64 = std::sync::atomic::AtomicU64;

/// For a list that is read where nothing may wait.
#[cfg(all(unix, not(forebay_loom)))]
pub type PlainPtr<T> = std::sync::atomic::AtomicPtr<T>;

/// A flag for signal handlers. Never modelled.
pub type PlainBool = std::sync::atomic::AtomicBool;

/// The number of forks between the first process and this one. Written by [`note_fork`] alone, in a child that has one thread
/// by then. Relaxed: `fork` orders it for that thread, and thread creation for all others.
static FORKS: PlainU64 = PlainU64::new(0);

/// Returns the number of forks between the first process and this one.
#[inline]
pub(super) fn forks() -> u64 {
    FORKS.load(Ordering::Relaxed)
}

/// For the hook that runs in a child: what was made before is inherited from now on.
#[cfg(all(unix, not(forebay_loom)))]
pub fn note_fork() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// The standard library's mutex, without poisoning. It does not know its process: for the fork hooks alone.
#[cfg(all(unix, not(forebay_loom)))]
#[derive(Debug, Default)]
pub struct RawMutex<T>(std::sync::Mutex<T>);

#[cfg(all(unix, not(forebay_loom)))]
impl<T> RawMutex<T> {
    /// Returns a mutex that is free.
    pub fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    /// Locks it, and waits until it is free.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns `None` while somebody has it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(held) => Some(held),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// Does nothing for a while. Not modelled: no decision of the protocol depends on it.
pub fn sleep(time: std::time::Duration) {
    std::thread::sleep(time);
}
