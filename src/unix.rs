//! What only Unix has: `fork`. Elsewhere, and under the model checker, this file does nothing.
//!
//! A forked child has one thread. The worker is not there, a lock may be held by a thread that is not
//! there, and a slot of a ring may be half-written by one: a push that came to it would spin for ever. So
//! the child must know before it touches anything, and without asking the system at every event: the
//! system tells us instead. A hook that runs in the child moves the phase word of every collector to
//! `Orphaned`; the load that every `collect` does anyway sees it.
//!
//! The sinks are the parent's: the child never calls nor drops them, so nothing there can write, or write again,
//! what the parent had collected.

pub(crate) use imp::{ForkWatch, watch_forks};

#[cfg(all(unix, not(forebay_loom)))]
mod imp {
    #![allow(unsafe_code)]

    use crate::sync::{Arc, Mutex, OnceLock, Ordering, PlainU64, Weak};
    use crate::wake::Phase;

    /// One entry of the list of collectors. Entries are never freed, so that the hook can walk along them
    /// without a lock; those of collectors that are gone are used again. There are as many as there ever
    /// were collectors at one time.
    struct Entry {
        /// 1 while a collector owns the entry. Who moves it from 0 to 1 is the owner.
        is_taken: PlainU64,
        /// Locked by the owner alone, while its collector is built and while it is dropped; the hook tries.
        phase: Mutex<Weak<Phase>>,
        next: OnceLock<&'static Entry>,
    }

    static FIRST: OnceLock<&'static Entry> = OnceLock::new();
    static HOOKED: OnceLock<()> = OnceLock::new();

    /// Owns an entry, until it is dropped with its collector.
    pub(crate) struct ForkWatch(&'static Entry);

    impl Drop for ForkWatch {
        fn drop(&mut self) {
            *self.0.phase.lock() = Weak::new();
            self.0.is_taken.store(0, Ordering::Release);
        }
    }

    /// Sees to it that a forked child finds this phase `Orphaned`.
    pub(crate) fn watch_forks(phase: &Arc<Phase>) -> ForkWatch {
        HOOKED.get_or_init(|| {
            // SAFETY: `orphan_all` is a function without arguments that lives as long as the program, as
            // pthread_atfork(3) asks. It allocates nothing and waits for no lock, as a child of a process
            // with threads must not. (Should there be no memory for the hook, forks go unnoticed, as they
            // would without it.)
            unsafe { libc::pthread_atfork(None, None, Some(orphan_all)) };
        });
        let mut link = &FIRST;
        loop {
            let free = || Entry {
                is_taken: PlainU64::new(0),
                phase: Mutex::new(Weak::new()),
                next: OnceLock::new(),
            };
            let entry: &'static Entry = link.get_or_init(|| Box::leak(Box::new(free())));
            if entry.is_taken.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                *entry.phase.lock() = Arc::downgrade(phase);
                return ForkWatch(entry);
            }
            link = &entry.next;
        }
    }

    /// Runs in the child, right after the fork.
    extern "C" fn orphan_all() {
        let mut link = &FIRST;
        while let Some(entry) = link.get() {
            // It is locked only if the fork caught another thread in building or dropping this collector: then
            // nobody in the child has it.
            if let Some(phase) = entry.phase.try_lock().and_then(|held| held.upgrade()) {
                phase.set_orphaned();
                // Should this be the last reference, the child frees memory here, which malloc allows.
            }
            link = &entry.next;
        }
    }
}

#[cfg(any(not(unix), forebay_loom))]
mod imp {
    use crate::sync::Arc;
    use crate::wake::Phase;

    pub(crate) struct ForkWatch(());

    pub(crate) fn watch_forks(_: &Arc<Phase>) -> ForkWatch {
        ForkWatch(())
    }
}
