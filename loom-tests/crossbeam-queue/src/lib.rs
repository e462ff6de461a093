//! crossbeam-queue's own `array_queue.rs`, byte for byte, on loom.
//!
//! The file imports from `core` and `crossbeam_utils`. Here both names mean this crate, which offers what the
//! file asks for: loom's atomics, loom's checked cells, and a back-off that yields to loom's scheduler.
#![allow(dead_code, unused_imports, clippy::all, reason = "upstream's file decides what is used")]

extern crate alloc;
extern crate self as core;
extern crate self as crossbeam_utils;

/// Upstream's file.
mod upstream {
    include!(concat!(env!("OUT_DIR"), "/upstream.rs"));
}
pub use upstream::array_queue::ArrayQueue;

/// Mark of this crate: `forebay-loom-tests` names it, so that a patch which stops applying is an error of
/// the build.
pub const ON_LOOM: () = ();

// ---- core ----

pub mod fmt {
    pub use std::fmt::*;
}

pub mod mem {
    pub use std::mem::*;
}

pub mod panic {
    pub use std::panic::{RefUnwindSafe, UnwindSafe};
}

pub mod slice {
    pub use std::slice::*;
}

pub mod cell {
    /// `core::cell::UnsafeCell` whose accesses loom checks for races.
    pub struct UnsafeCell<T>(loom::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        #[track_caller]
        pub fn new(value: T) -> Self {
            Self(loom::cell::UnsafeCell::new(value))
        }

        pub fn get(&self) -> Pointer<'_, T> {
            Pointer(&self.0)
        }
    }

    /// The raw pointer of the cell, as upstream uses it.
    pub struct Pointer<'a, T>(&'a loom::cell::UnsafeCell<T>);

    impl<T> Pointer<'_, T> {
        #[track_caller]
        pub unsafe fn write(self, value: T) {
            self.0.with_mut(|pointer| pointer.write(value));
        }

        /// Moves the value out. Nothing else may access it meanwhile.
        #[track_caller]
        pub unsafe fn read(self) -> T {
            self.0.with_mut(|pointer| pointer.read())
        }

        #[track_caller]
        pub unsafe fn replace(self, value: T) -> T {
            self.0.with_mut(|pointer| pointer.replace(value))
        }
    }

    // Upstream dereferences the pointer itself only where it has the queue alone, in its `Drop`.
    impl<T> std::ops::Deref for Pointer<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            unsafe { &*self.0.with(|pointer| pointer) }
        }
    }

    impl<T> std::ops::DerefMut for Pointer<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            unsafe { &mut *self.0.with_mut(|pointer| pointer) }
        }
    }
}

pub mod sync {
    pub mod atomic {
        pub use loom::sync::atomic::{fence, Ordering};

        /// loom's atomic with a `get_mut`, for which loom has only `with_mut`.
        macro_rules! atomic {
            ($name:ident, $guard:ident, $integer:ty) => {
                pub struct $name(loom::sync::atomic::$name);

                impl $name {
                    #[track_caller]
                    pub fn new(value: $integer) -> Self {
                        Self(loom::sync::atomic::$name::new(value))
                    }

                    #[track_caller]
                    pub fn load(&self, order: Ordering) -> $integer {
                        self.0.load(order)
                    }

                    #[track_caller]
                    pub fn store(&self, value: $integer, order: Ordering) {
                        self.0.store(value, order);
                    }

                    #[track_caller]
                    pub fn compare_exchange_weak(
                        &self,
                        current: $integer,
                        new: $integer,
                        success: Ordering,
                        failure: Ordering,
                    ) -> Result<$integer, $integer> {
                        self.0.compare_exchange_weak(current, new, success, failure)
                    }

                    #[track_caller]
                    pub fn get_mut(&mut self) -> $guard<'_> {
                        let value = self.0.with_mut(|value| *value);
                        $guard { atomic: self, value }
                    }
                }

                pub struct $guard<'a> {
                    atomic: &'a mut $name,
                    value: $integer,
                }

                impl PartialEq for $guard<'_> {
                    fn eq(&self, other: &Self) -> bool {
                        self.value == other.value
                    }
                }

                impl std::ops::Deref for $guard<'_> {
                    type Target = $integer;

                    fn deref(&self) -> &$integer {
                        &self.value
                    }
                }

                impl std::ops::DerefMut for $guard<'_> {
                    fn deref_mut(&mut self) -> &mut $integer {
                        &mut self.value
                    }
                }

                impl Drop for $guard<'_> {
                    fn drop(&mut self) {
                        let value = self.value;
                        self.atomic.0.with_mut(|held| *held = value);
                    }
                }
            };
        }

        atomic!(AtomicU64, U64Mut, u64);
        atomic!(AtomicUsize, UsizeMut, usize);
    }
}

// ---- crossbeam_utils ----

pub struct CachePadded<T>(T);

impl<T> CachePadded<T> {
    pub const fn new(value: T) -> Self {
        Self(value)
    }
}

impl<T> std::ops::Deref for CachePadded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> std::ops::DerefMut for CachePadded<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// Waiting for another thread is giving way to it.
pub struct Backoff;

impl Backoff {
    pub fn new() -> Self {
        Self
    }

    pub fn spin(&self) {
        loom::thread::yield_now();
    }

    pub fn snooze(&self) {
        loom::thread::yield_now();
    }
}
