//! What only Unix has: `fork`, and a last word at the end of the process. Elsewhere, and under the model checker, this
//! file does nothing.
//!
//! A forked child has one thread. The worker is not there, a lock may be held by a thread that is not
//! there, and a slot of a ring may be half-written by one: a push that came to it would spin for ever. So
//! the child must know before it touches anything, and without asking the system at every event: the
//! system tells us instead. A hook that runs in the child moves the phase word of every collector to
//! `Orphaned`; the load that every `collect` does anyway sees it.
//!
//! The sinks are the parent's: the child never calls nor drops them, so nothing there can write, or write again,
//! what the parent had collected.

#[cfg(all(unix, feature = "signals", not(forebay_loom)))]
pub(crate) use imp::{ForkSignals, when_forked};
pub(crate) use imp::{ForkWatch, at_exit, watch_forks};

#[cfg(all(unix, not(forebay_loom)))]
mod imp {
    #![allow(unsafe_code)]

    use crate::sync::{Arc, Mutex, OnceLock, Ordering, PlainU64, Weak};
    #[cfg(feature = "signals")]
    use crate::sync::{PlainBool, PlainUsize};
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

    /// What handlers of signals go by in a forked child, which has no thread that they could tell.
    #[cfg(feature = "signals")]
    #[derive(Clone, Default)]
    pub(crate) struct ForkSignals {
        /// Raised in the child.
        pub(crate) is_child: Arc<PlainBool>,
        /// The signal that came last; 0 before the first.
        pub(crate) last: Arc<PlainUsize>,
    }

    /// See `when_forked`. A child that asks gets other ones: its own children will be told by those.
    #[cfg(feature = "signals")]
    static FORK_SIGNALS: Mutex<Option<ForkSignals>> = Mutex::new(None);

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
        hook();
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

    /// What the next forked child will go by.
    #[cfg(feature = "signals")]
    pub(crate) fn when_forked() -> ForkSignals {
        hook();
        FORK_SIGNALS.lock().get_or_insert_default().clone()
    }

    fn hook() {
        HOOKED.get_or_init(|| {
            // SAFETY: `orphan_all` is a function without arguments that lives as long as the program, as
            // pthread_atfork(3) asks. It allocates nothing and waits for no lock, as a child of a process
            // with threads must not. (Should there be no memory for the hook, forks go unnoticed, as they
            // would without it.)
            unsafe { libc::pthread_atfork(None, None, Some(orphan_all)) };
        });
    }

    /// Has `last_word` said when the process ends by `exit`, or by a return from its main function.
    pub(crate) fn at_exit(last_word: extern "C" fn()) {
        // SAFETY: a function without arguments that lives as long as the program, or as the library that it is linked
        // into: the system calls it when that is unloaded. (Should there be no memory for it, it is not called.)
        unsafe { libc::atexit(last_word) };
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
        #[cfg(feature = "signals")]
        if let Some(signals) = FORK_SIGNALS.try_lock().and_then(|mut held| held.take()) {
            signals.is_child.store(true, Ordering::SeqCst);
            let last = signals.last.load(Ordering::SeqCst);
            if last != 0 {
                // It came between the fork and here, or ends the parent just now.
                // SAFETY: the number of a signal that a handler has got.
                unsafe { libc::raise(last as i32) };
            }
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

    pub(crate) fn at_exit(_: extern "C" fn()) {}
}
