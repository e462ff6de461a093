//! Primitives that are never modelled: counts, pointers and a raw mutex, for `unix.rs` and for the rest of `sync`.
//!
//! It stands below the fork hooks. These cannot use a mutex that knows its process, because such a mutex relies on
//! them.

pub use std::sync::atomic::Ordering;
/// Reference counts are trusted, not modelled.
pub use std::sync::{Arc, OnceLock, Weak};

#[cfg(all(unix, not(forebay_loom)))]
use std::sync::{MutexGuard, PoisonError, TryLockError};

/// Counter or time that no decision depends on. It is never modelled: it takes no part in the protocol, and every
/// operation that is modelled multiplies the schedules to visit.
pub type PlainU64 = std::sync::atomic::AtomicU64;

/// Pointer for a list that is read where nothing may wait.
#[cfg(all(unix, not(forebay_loom)))]
pub type PlainPtr<T> = std::sync::atomic::AtomicPtr<T>;

/// Flag for signal handlers. It is never modelled.
pub type PlainBool = std::sync::atomic::AtomicBool;

/// Number of forks between the first process and this one. Only [`note_fork`] writes it, in a child that has one
/// thread by then. Relaxed: `fork` orders it for that thread, and thread creation for all others.
static FORKS: PlainU64 = PlainU64::new(0);

/// Returns the number of forks between the first process and this one.
#[inline]
pub(super) fn forks() -> u64 {
    FORKS.load(Ordering::Relaxed)
}

/// Counts a fork, for the hook that runs in a child. What was made before is the parent's from now on.
#[cfg(all(unix, not(forebay_loom)))]
pub fn note_fork() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// Mutex of the standard library, without poisoning. It does not know its process, and is for the fork hooks alone.
#[cfg(all(unix, not(forebay_loom)))]
#[derive(Debug, Default)]
pub struct RawMutex<T>(std::sync::Mutex<T>);

#[cfg(all(unix, not(forebay_loom)))]
impl<T> RawMutex<T> {
    /// Creates a free mutex.
    pub fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    /// Locks it, and waits until it is free.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks it, or returns `None` while another thread holds it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(held) => Some(held),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// Puts the thread to sleep. Not modelled, because no decision of the protocol depends on it.
pub fn sleep(time: std::time::Duration) {
    std::thread::sleep(time);
}
