//! The names of loom that forebay and its models use, on shuttle: one thread of the system runs all threads of a model, and a
//! random number says at each step which goes on.
//!
//! All that is written is visible at once, whatever the ordering says: what a missing fence or a weak ordering lets through, only
//! loom sees. What shuttle sees is what lies deeper than loom's few preemptions, and waits that end without a reason: those that
//! the system permits are made here ([`sync::Condvar`], [`sync::Notify`]), and so are weak exchanges that fail without one.

/// Mark of this crate: the helpers of the models name it, so that a patch which stops applying is an error of the build.
pub const ON_SHUTTLE: () = ();

pub use shuttle::{lazy_static, thread_local};

pub mod thread {
    pub use shuttle::thread::{Builder, JoinHandle, spawn, yield_now};
}

pub mod cell {
    use std::cell::Cell;

    use shuttle::sync::atomic::{AtomicBool, Ordering};

    /// Memory that its user guards. A thread that accesses it while another one does so is at fault.
    #[derive(Debug)]
    pub struct UnsafeCell<T> {
        value: std::cell::UnsafeCell<T>,
        /// The number of threads that read it; -1 while one writes.
        users: Cell<isize>,
    }

    // SAFETY: all threads of a model are coroutines of one thread of the system.
    unsafe impl<T: Send> Sync for UnsafeCell<T> {}

    impl<T> UnsafeCell<T> {
        pub const fn new(value: T) -> Self {
            Self { value: std::cell::UnsafeCell::new(value), users: Cell::new(0) }
        }

        #[track_caller]
        pub fn with<R>(&self, access: impl FnOnce(*const T) -> R) -> R {
            let _access = self.begin(self.users.get() >= 0, 1);
            access(self.value.get())
        }

        #[track_caller]
        pub fn with_mut<R>(&self, access: impl FnOnce(*mut T) -> R) -> R {
            let _access = self.begin(self.users.get() == 0, -1);
            access(self.value.get())
        }

        #[track_caller]
        fn begin(&self, is_allowed: bool, change: isize) -> Access<'_> {
            assert!(is_allowed, "two threads access a cell at once, and one of them writes");
            self.users.set(self.users.get() + change);
            let access = Access { users: &self.users, change };
            // Threads change places where they synchronise, and what accesses a cell does not: without this, nobody could come between.
            if !std::thread::panicking() {
                AtomicBool::new(false).load(Ordering::SeqCst);
            }
            access
        }
    }

    struct Access<'a> {
        users: &'a Cell<isize>,
        change: isize,
    }

    impl Drop for Access<'_> {
        fn drop(&mut self) {
            self.users.set(self.users.get() - self.change);
        }
    }
}

pub mod sync {
    pub use std::sync::Arc;

    use std::ops::{Deref, DerefMut};
    use std::sync::LockResult;

    use shuttle::rand::{Rng, thread_rng};

    /// Says whether a wait ends at once, without a reason.
    fn is_spurious() -> bool {
        thread_rng().gen_ratio(1, 4)
    }

    #[derive(Debug, Default)]
    pub struct Mutex<T>(shuttle::sync::Mutex<T>);

    #[derive(Debug)]
    pub struct MutexGuard<'a, T> {
        mutex: &'a Mutex<T>,
        held: shuttle::sync::MutexGuard<'a, T>,
    }

    impl<T> Mutex<T> {
        pub const fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        /// Is never poisoned: a panic that a model does not throw on purpose ends it.
        pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
            let held = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            Ok(MutexGuard { mutex: self, held })
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.held
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            &mut self.held
        }
    }

    /// Condition variable, of whose waits one in four ends without a notification.
    #[derive(Debug, Default)]
    pub struct Condvar(shuttle::sync::Condvar);

    impl Condvar {
        pub const fn new() -> Self {
            Self(shuttle::sync::Condvar::new())
        }

        pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
            let MutexGuard { mutex, held } = guard;
            if is_spurious() {
                // Others may come before the second half.
                drop(held);
                return mutex.lock();
            }
            let held = self.0.wait(held).unwrap_or_else(|poisoned| poisoned.into_inner());
            Ok(MutexGuard { mutex, held })
        }

        pub fn notify_one(&self) {
            self.0.notify_one();
        }

        pub fn notify_all(&self) {
            self.0.notify_all();
        }
    }

    /// One wake-up, kept until it is waited for. As in loom, one wait of each may end without it: the worker's parker has a
    /// time limit, and its sleep ends without a reason as well.
    #[derive(Debug, Default)]
    pub struct Notify {
        state: shuttle::sync::Mutex<Notified>,
        changed: shuttle::sync::Condvar,
    }

    #[derive(Debug, Default)]
    struct Notified {
        is_set: bool,
        was_spurious: bool,
    }

    impl Notify {
        pub fn new() -> Self {
            Self::default()
        }

        pub fn notify(&self) {
            self.state.lock().unwrap().is_set = true;
            self.changed.notify_one();
        }

        pub fn wait(&self) {
            let mut state = self.state.lock().unwrap();
            if !state.was_spurious && is_spurious() {
                state.was_spurious = true;
                drop(state);
                return shuttle::thread::yield_now();
            }
            while !state.is_set {
                state = self.changed.wait(state).unwrap();
            }
            state.is_set = false;
        }
    }

    pub mod atomic {
        pub use shuttle::sync::atomic::{AtomicBool, Ordering, fence};

        use shuttle::rand::{Rng, thread_rng};

        /// shuttle's atomic with loom's `with_mut`.
        macro_rules! atomic {
            ($name:ident, $integer:ty) => {
                #[derive(Debug, Default)]
                pub struct $name(shuttle::sync::atomic::$name);

                impl $name {
                    pub const fn new(value: $integer) -> Self {
                        Self(shuttle::sync::atomic::$name::new(value))
                    }

                    /// Fails without a reason once in eight times.
                    pub fn compare_exchange_weak(
                        &self,
                        current: $integer,
                        new: $integer,
                        success: Ordering,
                        failure: Ordering,
                    ) -> Result<$integer, $integer> {
                        if thread_rng().gen_ratio(1, 8) {
                            return Err(self.0.load(failure));
                        }
                        self.0.compare_exchange(current, new, success, failure)
                    }

                    /// For a caller that has it alone.
                    pub fn with_mut<R>(&mut self, access: impl FnOnce(&mut $integer) -> R) -> R {
                        access(self.0.get_mut())
                    }
                }

                impl std::ops::Deref for $name {
                    type Target = shuttle::sync::atomic::$name;

                    fn deref(&self) -> &Self::Target {
                        &self.0
                    }
                }
            };
        }

        atomic!(AtomicU32, u32);
        atomic!(AtomicU64, u64);
        atomic!(AtomicUsize, usize);
    }
}
