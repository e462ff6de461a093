//! Primitives that synchronise, in one facade. Only this file and `sync/plain.rs` name `std::sync`, `std::thread`,
//! crossbeam-utils or loom.
//!
//! The model checker replaces them by its own primitives, which works only where no code goes around them. So the
//! other crates use what this file exports, and no more. Both halves below have the same items: `native` is what
//! ships, `model` is what `loom-tests` compiles in its place. The cfg that chooses is our own, so that a user's own
//! loom run does not switch our primitives.

pub mod plain;
pub use plain::{Arc, OnceLock, Ordering, PlainBool, PlainU64, Weak};

pub use crossbeam_utils::CachePadded;
/// Channel of user code: a source of items, read by iteration.
pub use std::sync::mpsc::Receiver;

#[cfg(forebay_loom)]
pub use model::*;
#[cfg(not(forebay_loom))]
pub use native::*;

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{PoisonError, TryLockError};
use std::task::Waker;

/// Process: this one, or the one that it was forked from.
///
/// The threads of a parent do not exist in its forked child. One of them may have held a lock at the fork, and what
/// it guards may be half-changed. So every value that a child can reach knows its process, and fails in any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Home(u64);

impl Home {
    /// Process of values that belong to every process.
    const EVERY: Self = Self(u64::MAX);

    /// Returns the process of the caller. Every fork from now on is noticed.
    pub fn here() -> Self {
        crate::unix::hook_forks();
        Self::now()
    }

    /// Returns the process of a caller that holds something made by `here`.
    #[inline]
    pub fn now() -> Self {
        Self(plain::forks())
    }

    /// Returns whether the caller is in a forked child of this process.
    #[inline]
    pub fn is_left(self) -> bool {
        self != Self::now() && self.0 != u64::MAX
    }

    /// Fails in a forked child of this process.
    #[inline]
    pub fn check(self) -> Result<(), Forked> {
        if self.is_left() { Err(Forked) } else { Ok(()) }
    }
}

/// Error of a call in a forked child, for something that is its parent's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is a forked child, and what was asked is its parent's")]
pub struct Forked;

/// Converts [`Forked`](crate::sync::Forked) into the error `Forked` of each type.
#[macro_export]
macro_rules! from_forked {
    ($($error:ty),+) => { $(
        #[doc(hidden)]
        impl From<$crate::sync::Forked> for $error {
            fn from(_: $crate::sync::Forked) -> Self {
                Self::Forked
            }
        }
    )+ };
}
pub use crate::from_forked;

/// Runs `body`, which uses locks that are not ours. No fork by another thread finds it halfway, unless it takes
/// longer than a second. In the child, the locks would be held for ever.
pub fn unforked<R>(body: impl FnOnce() -> R) -> R {
    let _section = crate::unix::Section::enter();
    body()
}

thread_local! {
    /// The process in which `spawn` started this thread; `None` for a thread of the user. It has no destructor, so
    /// that it can be read for as long as the thread lives.
    static THREAD_HOME: Cell<Option<Home>> = const { Cell::new(None) };
}

/// Ends the calling thread if it is the copy of a thread of ours in a forked child, because user code that it called
/// has forked. Its values and the stack above are the parent's: nothing of them is run or dropped. See
/// [`catch_panic`].
#[cold]
fn end_copied_thread() {
    if THREAD_HOME.get().is_some_and(Home::is_left) {
        crate::unix::end_thread();
    }
}

/// Mutex of the standard library, without poisoning, so that a sink that panics cannot block others. It is not
/// modelled: it is held for a few instructions, over nothing that is modelled.
///
/// parking_lot's was rejected: all its locks share one table of waiters, whose own locks a forked child may find held
/// by threads that it does not have. A child that builds its own collector would wait for them for ever.
///
/// It knows its process. Code that can run in a forked child locks it by `enter`, which fails there. Threads of ours,
/// which a child does not have, lock it by `lock`.
#[derive(Debug)]
pub struct PlainMutex<T> {
    inner: std::sync::Mutex<T>,
    home: Home,
}

impl<T: Default> Default for PlainMutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

/// Guard of a [`PlainMutex`].
pub type PlainGuard<'a, T> = Guard<std::sync::MutexGuard<'a, T>>;

impl<T> PlainMutex<T> {
    /// Creates a free mutex of this process.
    pub fn new(value: T) -> Self {
        Self { inner: std::sync::Mutex::new(value), home: Home::here() }
    }

    /// Creates a mutex for a static. It belongs to every process, so no fork may find it locked (see [`unforked`]).
    pub const fn fixed(value: T) -> Self {
        Self { inner: std::sync::Mutex::new(value), home: Home::EVERY }
    }

    /// Fails where `enter` does, without taking the lock.
    #[cfg(not(forebay_loom))]
    pub fn check(&self) -> Result<(), Forked> {
        self.home.check()
    }

    /// Locks it, and waits until it is free. For threads of ours, which a forked child does not have.
    pub fn lock(&self) -> PlainGuard<'_, T> {
        Guard(Some(self.inner.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Locks it, or returns `None` while another thread holds it: for code that rather does without than waits.
    pub fn try_lock(&self) -> Option<PlainGuard<'_, T>> {
        let held = match self.inner.try_lock() {
            Ok(held) => held,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(Guard(Some(held)))
    }

    /// Locks it, unless this is a forked child of the process in which it was made: a thread that does not exist
    /// there may hold it.
    pub fn enter(&self) -> Result<PlainGuard<'_, T>, Forked> {
        self.home.check()?;
        Ok(self.lock())
    }
}

/// Guard of a mutex, which a condition variable can take apart and put together again. `None` only meanwhile.
#[derive(Debug)]
pub struct Guard<G>(Option<G>);

impl<G: Deref> Deref for Guard<G> {
    type Target = G::Target;

    fn deref(&self) -> &G::Target {
        match &self.0 {
            Some(guard) => guard,
            None => unreachable!("a guard in the middle of a wait"),
        }
    }
}

impl<G: DerefMut> DerefMut for Guard<G> {
    fn deref_mut(&mut self) -> &mut G::Target {
        match &mut self.0 {
            Some(guard) => guard,
            None => unreachable!("a guard in the middle of a wait"),
        }
    }
}

/// Changes a number as `change` says, unless it returns `None`. Returns whether the number was changed.
pub fn fetch_update(number: &PlainU64, change: impl FnMut(u64) -> Option<u64>) -> bool {
    number.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change).is_ok()
}

/// Orders a push before the second load of the phase word: the producer's half of the Dekker pair of `wake.rs`.
///
/// On x86-64 it is free. There, a push has claimed its slot by a locked instruction on the tail of the ring (`lock
/// cmpxchg`, or `xchg` where it evicts). This is a full barrier: no later load is satisfied before that claim is
/// visible to all. Only the slot itself may still lie in this processor's store buffer. Every thread that looks at
/// the ring reads the tail: `len` counts the claim, and `pop` waits for a slot that is claimed and not yet written.
/// The compiler must still be kept from moving the load. This one line is argued, and `.ci/fence` reads the assembly. It
/// is not model-checked: the models, Miri and all other processors run the fence.
#[inline(always)]
pub fn push_fence() {
    #[cfg(all(target_arch = "x86_64", not(forebay_loom), not(miri)))]
    std::sync::atomic::compiler_fence(Ordering::SeqCst);
    #[cfg(not(all(target_arch = "x86_64", not(forebay_loom), not(miri))))]
    fence(Ordering::SeqCst);
}

/// Orders a store to the phase word before the next look at the rings: the other halves of that pair.
#[inline]
pub fn announce_fence() {
    fence(Ordering::SeqCst);
}

/// Returns whether the calling thread unwinds.
#[inline]
pub fn is_panicking() -> bool {
    std::thread::panicking()
}

/// Runs user code, and returns the message of a panic. The caller makes sure that a panic leaves nothing of ours
/// half-changed.
///
/// User code may fork and return on both sides. In the child, a thread of ours ends here: it is the copy of a thread
/// that continues in the parent. A thread of the user continues in the child, and its caller has to check whether it
/// is still in its process.
pub fn catch_panic<R>(user_code: impl FnOnce() -> R) -> Result<R, String> {
    let home = Home::now();
    let result = catch(user_code);
    if home.is_left() {
        end_copied_thread();
    }
    result
}

fn catch<R>(user_code: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(user_code)).map_err(|panic| {
        let panic = let_the_model_panic(panic);
        let message = if let Some(text) = panic.downcast_ref::<&str>() {
            (*text).to_owned()
        } else if let Some(text) = panic.downcast_ref::<String>() {
            text.clone()
        } else {
            "a value that is not text".to_owned()
        };
        // The destructor of the panic's value is user code as well, and may panic in turn. That second value is
        // leaked.
        if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
            std::mem::forget(again);
        }
        message
    })
}

/// Wakes a task, and catches a panic of its waker, which is its executor's bug.
pub fn wake_quietly(waker: Waker) {
    let _ = catch_panic(|| waker.wake());
}

/// Mark of the calling thread as the worker of the collector (or task) at an address, until the value is dropped.
/// Marks nest.
#[derive(Debug)]
pub struct WorkerMark(());

impl WorkerMark {
    /// Marks the calling thread.
    pub fn set(address: usize) -> Self {
        WORKER_OF.with(|cell| {
            let mut marks = cell.get();
            marks.rotate_right(1);
            marks[0] = address;
            cell.set(marks);
        });
        WorkerMark(())
    }
}

impl Drop for WorkerMark {
    fn drop(&mut self) {
        // `try_with`: a worker may end while its thread-local storage is being torn down.
        let _ = WORKER_OF.try_with(|cell| {
            let mut marks = cell.get();
            marks.rotate_left(1);
            marks[MARKS - 1] = 0;
            cell.set(marks);
        });
    }
}

/// Number of marks of a thread that are kept, the latest first. An array has no destructor, so that it can be read
/// for as long as the thread lives.
const MARKS: usize = 4;

/// Mark of the calling thread as one that runs a hook, until the value is dropped.
#[derive(Debug)]
pub struct HookMark(());

impl HookMark {
    /// Marks the calling thread. Returns `None` if it already runs a hook, or is torn down.
    pub fn set() -> Option<Self> {
        let was = IN_HOOK.try_with(|is_in| is_in.replace(true)).unwrap_or(true);
        // Not by `then_some`: a mark that is made is dropped, and would take the hook's away.
        if was { None } else { Some(HookMark(())) }
    }
}

impl Drop for HookMark {
    fn drop(&mut self) {
        let _ = IN_HOOK.try_with(|is_in| is_in.set(false));
    }
}

thread_local! {
    /// Mark of a thread in a hook. Not modelled, because a hook runs from its call to its return on one thread.
    static IN_HOOK: Cell<bool> = const { Cell::new(false) };
}

/// Returns the address of the collector whose worker the calling thread is, by its latest mark; 0 if it is none.
#[inline]
pub fn worker_of() -> usize {
    WORKER_OF.try_with(|cell| cell.get()[0]).unwrap_or(0)
}

/// Returns whether the calling thread is the worker of the collector at `address`, by any mark.
#[inline]
pub fn is_worker_of(address: usize) -> bool {
    WORKER_OF.try_with(|cell| cell.get().contains(&address)).unwrap_or(false)
}

/// Bit of the address of a task, whose threads run handlers of their user and deliver nothing. Addresses of collectors are even.
pub const OF_TASK: usize = 1;

/// Returns whether the calling thread delivers events of a collector, by any mark.
#[inline]
pub fn is_delivering() -> bool {
    let delivers = |mark: &usize| *mark != 0 && mark & OF_TASK == 0;
    WORKER_OF.try_with(|cell| cell.get().iter().any(delivers)).unwrap_or(false)
}

/// Returns how many threads can run at the same time; 1 if the system does not say.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Returns a small number of the calling thread, counted from thread to thread, for the choice of a ring.
#[inline]
pub fn thread_index() -> usize {
    // There is no number only while the thread is torn down. Then any ring will do.
    INDEX.try_with(|index| index.get().unwrap_or_else(|| number(index))).unwrap_or(0)
}

#[inline]
fn number(index: &Cell<Option<usize>>) -> usize {
    let next = NEXT_INDEX.fetch_add(1, Ordering::Relaxed);
    index.set(Some(next));
    next
}

#[cfg(not(forebay_loom))]
mod native {
    pub use super::{PlainGuard as MutexGuard, PlainMutex as Mutex};
    pub use std::sync::atomic::{AtomicU32, AtomicU64, fence};
    pub use std::thread::JoinHandle;

    use super::{Arc, MARKS, Ordering, PlainU64, PoisonError, Weak};
    use std::any::Any;
    use std::cell::Cell;
    use std::io;
    use std::sync::atomic::AtomicUsize;
    use std::time::{Duration, Instant};

    thread_local! {
        /// The marks: see `WorkerMark`.
        pub(super) static WORKER_OF: Cell<[usize; MARKS]> = const { Cell::new([0; MARKS]) };
        /// The number: see `thread_index`.
        pub(super) static INDEX: Cell<Option<usize>> = const { Cell::new(None) };
    }

    pub(super) static NEXT_INDEX: AtomicUsize = AtomicUsize::new(0);

    /// Declares values of which every thread has its own.
    #[macro_export]
    macro_rules! per_thread {
        ($($(#[$attribute:meta])* static $name:ident: $type:ty = $initial:expr;)*) => {
            ::std::thread_local! { $($(#[$attribute])* static $name: $type = const { $initial };)* }
        };
    }
    pub use crate::per_thread;

    /// Memory that its user guards. A model checks that no two threads access it at once.
    #[derive(Debug)]
    #[repr(transparent)]
    pub struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        /// Creates a cell with a value.
        pub const fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        /// Calls `access` with a pointer that may be written to as long as it runs.
        #[inline(always)]
        pub fn with_mut<R>(&self, access: impl FnOnce(*mut T) -> R) -> R {
            access(self.0.get())
        }
    }

    /// Condition variable whose deadline may be absent, and whose notification costs a system call only where a
    /// thread waits.
    #[derive(Debug, Default)]
    pub struct Condvar {
        inner: std::sync::Condvar,
        /// Number of waiting threads. It changes under their mutex. A thread that changes their condition under this
        /// mutex sees every waiter that has not seen the change. So Relaxed suffices.
        waiting: PlainU64,
    }

    impl Condvar {
        /// Creates a condition variable for which nobody waits.
        pub const fn new() -> Self {
            Self { inner: std::sync::Condvar::new(), waiting: PlainU64::new(0) }
        }

        /// Waits for a notification. Returns `true` when `deadline` came first. `None` waits without end.
        pub fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, deadline: Option<Instant>) -> bool {
            let Some(held) = guard.0.take() else { return false };
            self.waiting.fetch_add(1, Ordering::Relaxed);
            let (held, is_late) = match deadline {
                Some(deadline) => {
                    let timeout = deadline.saturating_duration_since(Instant::now());
                    let woken = self.inner.wait_timeout(held, timeout);
                    let (held, waited) = woken.unwrap_or_else(PoisonError::into_inner);
                    (held, waited.timed_out())
                }
                None => (self.inner.wait(held).unwrap_or_else(PoisonError::into_inner), false),
            };
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            guard.0 = Some(held);
            is_late
        }

        /// Wakes all threads that wait.
        pub fn notify_all(&self) {
            if self.waiting.load(Ordering::Relaxed) > 0 {
                self.inner.notify_all();
            }
        }

        /// Wakes one thread that waits.
        pub fn notify_one(&self) {
            if self.waiting.load(Ordering::Relaxed) > 0 {
                self.inner.notify_one();
            }
        }
    }

    /// Place where the worker sleeps. It remembers an `unpark` that comes before `park`, so that this is not lost.
    #[derive(Debug)]
    pub struct Parker(crossbeam_utils::sync::Parker);

    /// Handle that wakes the worker. `unpark` is the one system call that a producer may make.
    #[derive(Debug, Clone)]
    pub struct Unparker(Arc<crossbeam_utils::sync::Unparker>);

    /// Unparker that keeps nothing of a worker that is gone.
    #[derive(Debug)]
    pub struct WeakUnparker(Weak<crossbeam_utils::sync::Unparker>);

    impl Parker {
        /// Returns both halves.
        pub fn new() -> (Parker, Unparker) {
            let parker = crossbeam_utils::sync::Parker::new();
            let unparker = Unparker(Arc::new(parker.unparker().clone()));
            (Parker(parker), unparker)
        }

        /// Sleeps until it is woken, for `timeout` at most.
        pub fn park_timeout(&self, timeout: Duration) {
            self.0.park_timeout(timeout);
        }
    }

    impl Unparker {
        /// Wakes the thread that sleeps at the parker, or prevents its next sleep.
        #[inline]
        pub fn unpark(&self) {
            self.0.unpark();
        }

        /// Returns a weak handle.
        pub fn downgrade(&self) -> WeakUnparker {
            WeakUnparker(Arc::downgrade(&self.0))
        }
    }

    impl WeakUnparker {
        /// Returns the handle, as long as there is one that is not weak.
        pub fn upgrade(&self) -> Option<Unparker> {
            self.0.upgrade().map(Unparker)
        }
    }

    /// Starts a named thread, on which a file that reaches the limit of the process is an error and no signal. The error is the
    /// system's.
    pub fn spawn(
        name: &str,
        stack_size: Option<usize>,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let mut builder = std::thread::Builder::new().name(name.to_owned());
        if let Some(bytes) = stack_size {
            builder = builder.stack_size(bytes);
        }
        let home = super::Home::here();
        builder.spawn(move || {
            super::THREAD_HOME.set(Some(home));
            // A thread of ours may be started by one of the user's, whose mask it would inherit.
            crate::unix::hold_sigxfsz();
            body();
        })
    }

    /// Waits for the end of a thread, unless it is this one.
    pub fn join(thread: JoinHandle<()>) {
        if thread.thread().id() != std::thread::current().id() {
            // Its body has caught its own panics.
            let _ = thread.join();
        }
    }

    pub(super) fn let_the_model_panic(panic: Box<dyn Any + Send>) -> Box<dyn Any + Send> {
        panic
    }

    /// Returns whether a failed model unwinds. Nothing may wait then.
    pub fn is_failing_model() -> bool {
        false
    }
}

/// Primitives of loom. A timed wait is an untimed one: a lost wake-up then shows as a deadlock, instead of hiding
/// behind the timer.
#[cfg(forebay_loom)]
mod model {
    #![allow(missing_docs, reason = "as in `native`")]

    pub use loom;
    pub use loom::cell::UnsafeCell;
    pub use loom::sync::atomic::{AtomicU32, AtomicU64, fence};
    pub use loom::thread::JoinHandle;

    use std::any::Any;
    use std::cell::Cell;
    use std::io;
    use std::sync::{Arc, Weak};
    use std::time::{Duration, Instant};

    loom::thread_local! {
        pub(super) static WORKER_OF: Cell<[usize; super::MARKS]> = Cell::new([0; super::MARKS]);
        pub(super) static INDEX: Cell<Option<usize>> = Cell::new(None);
    }

    loom::lazy_static! {
        /// Number of the next thread. It starts again with every execution, as the threads do. No decision of the
        /// protocol depends on it.
        pub(super) static ref NEXT_INDEX: std::sync::atomic::AtomicUsize =
            std::sync::atomic::AtomicUsize::new(0);
    }

    /// Declares values of which each of loom's threads has its own. They would all share a thread-local of the
    /// standard library.
    #[macro_export]
    macro_rules! per_thread {
        ($($(#[$attribute:meta])* static $name:ident: $type:ty = $initial:expr;)*) => {
            $crate::sync::loom::thread_local! { $($(#[$attribute])* static $name: $type = $initial;)* }
        };
    }
    pub use crate::per_thread;

    /// Mutex of loom, without poisoning.
    #[derive(Debug, Default)]
    pub struct Mutex<T>(loom::sync::Mutex<T>);

    pub type MutexGuard<'a, T> = super::Guard<loom::sync::MutexGuard<'a, T>>;

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        /// Succeeds, because nobody forks here.
        pub fn check(&self) -> Result<(), super::Forked> {
            Ok(())
        }

        pub fn enter(&self) -> Result<MutexGuard<'_, T>, super::Forked> {
            Ok(self.lock())
        }

        pub fn lock(&self) -> MutexGuard<'_, T> {
            super::Guard(Some(self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())))
        }
    }

    #[derive(Debug, Default)]
    pub struct Condvar(loom::sync::Condvar);

    impl Condvar {
        pub fn new() -> Self {
            Self(loom::sync::Condvar::new())
        }

        pub fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, _: Option<Instant>) -> bool {
            if let Some(held) = guard.0.take() {
                guard.0 = Some(self.0.wait(held).unwrap_or_else(|poisoned| poisoned.into_inner()));
            }
            false
        }

        pub fn notify_all(&self) {
            self.0.notify_all();
        }

        pub fn notify_one(&self) {
            self.0.notify_one();
        }
    }

    /// Parker made of loom's `Notify`, because its `park` loses its token at a contended mutex.
    #[derive(Debug)]
    pub struct Parker(Arc<loom::sync::Notify>);

    #[derive(Debug, Clone)]
    pub struct Unparker(Arc<loom::sync::Notify>);

    #[derive(Debug)]
    pub struct WeakUnparker(Weak<loom::sync::Notify>);

    impl Parker {
        pub fn new() -> (Parker, Unparker) {
            let notify = Arc::new(loom::sync::Notify::new());
            (Parker(Arc::clone(&notify)), Unparker(notify))
        }

        pub fn park_timeout(&self, _: Duration) {
            self.0.wait();
        }
    }

    impl Unparker {
        pub fn unpark(&self) {
            self.0.notify();
        }

        pub fn downgrade(&self) -> WeakUnparker {
            WeakUnparker(Arc::downgrade(&self.0))
        }
    }

    impl WeakUnparker {
        pub fn upgrade(&self) -> Option<Unparker> {
            self.0.upgrade().map(Unparker)
        }
    }

    pub fn spawn(
        _: &str,
        _: Option<usize>,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        Ok(loom::thread::spawn(body))
    }

    pub fn join(thread: JoinHandle<()>) {
        let _ = thread.join();
    }

    /// Resumes every panic that a model did not throw itself: it is a finding. A panic of the model belongs to user
    /// code.
    pub(super) fn let_the_model_panic(panic: Box<dyn Any + Send>) -> Box<dyn Any + Send> {
        match panic.downcast_ref::<&str>() {
            Some(text) if text.starts_with("on purpose") => panic,
            _ => std::panic::resume_unwind(panic),
        }
    }

    pub fn is_failing_model() -> bool {
        std::thread::panicking()
    }
}

#[cfg(test)]
mod tests {
    use super::HookMark;

    #[test]
    fn a_thread_in_a_hook_stays_marked_however_often_it_is_asked() {
        let mark = HookMark::set();
        assert!(mark.is_some());
        assert!((0..3).all(|_| HookMark::set().is_none()), "a hook would be called within itself");
        drop(mark);
        assert!(HookMark::set().is_some());
    }
}
