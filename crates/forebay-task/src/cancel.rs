//! Token that cancels tasks: a flag, and the listeners to notify.

use std::fmt;

use forebay_sync::sync::{Arc, AtomicU64, Home, Mutex, Ordering, Weak};

/// Token that cancels tasks, and says whether they are cancelled. A clone is the same token.
///
/// Tokens form a tree ([`child`](Self::child)): a cancel reaches the children, and never the parent. A task has a child of the token
/// that its pipeline was given. So one token can stop many tasks, and each of them can be stopped alone.
///
/// In a forked child, a token of the parent counts as cancelled, and reaches no task.
///
/// ```
/// use forebay_task::CancelToken;
///
/// let program = CancelToken::new();
/// let (import, export) = (program.child(), program.child());
/// import.cancel();
/// assert!(import.is_cancelled() && !export.is_cancelled());
/// program.cancel();
/// assert!(export.is_cancelled());
/// ```
#[derive(Clone)]
pub struct CancelToken {
    inner: Arc<Inner>,
}

/// Listener for a cancellation. It runs under the lock of the token: it calls no user code and no token.
pub(crate) trait Listener: Send + Sync {
    fn on_cancel(&self);
}

struct Inner {
    /// 1 once it is cancelled. Written under the lock of `listeners`, read without: a Release that hands what came before
    /// `cancel` on to whoever reads 1.
    flag: AtomicU64,
    home: Home,
    /// Empty once it is cancelled. Each may be gone already.
    listeners: Mutex<Vec<Weak<dyn Listener>>>,
    /// Kept for as long as this one, so that the word gets here from above it.
    _parent: Option<Arc<Inner>>,
}

impl CancelToken {
    /// Makes a token without a parent.
    pub fn new() -> Self {
        Self::below(None)
    }

    fn below(parent: Option<Arc<Inner>>) -> Self {
        let (flag, listeners) = (AtomicU64::new(0), Mutex::new(Vec::new()));
        Self { inner: Arc::new(Inner { flag, home: Home::here(), listeners, _parent: parent }) }
    }

    /// Makes a token that is cancelled with this one, or before it.
    pub fn child(&self) -> Self {
        let child = Self::below(Some(Arc::clone(&self.inner)));
        let listener: Arc<dyn Listener> = Arc::<Inner>::clone(&child.inner);
        self.add_listener(&listener);
        child
    }

    /// Cancels the token and its children. Once this has returned, to any caller, no task of this token takes another item or begins
    /// a call of its handler or its source. Calls that have begun are finished. Items that were taken and not begun are cancelled.
    /// Items that wait are dropped, by the threads of the task. A second call does nothing.
    ///
    /// A call has begun once the last check before it has passed: its first statement may run a moment after this has
    /// returned. Who must know that none runs waits for the [task](crate::Task::wait).
    pub fn cancel(&self) {
        self.inner.on_cancel();
    }

    /// Returns whether it is cancelled. Who learns that it is sees what was done before the cancel.
    pub fn is_cancelled(&self) -> bool {
        self.inner.flag.load(Ordering::Acquire) != 0
    }

    /// Adds a listener, which is notified at once if the token is cancelled already.
    pub(crate) fn add_listener(&self, listener: &Arc<dyn Listener>) {
        if self.inner.home.is_left() {
            if self.is_cancelled() {
                listener.on_cancel();
            }
            return;
        }
        let mut listeners = self.inner.listeners.lock();
        if self.is_cancelled() {
            drop(listeners);
            listener.on_cancel();
            return;
        }
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Arc::downgrade(listener));
    }
}

impl Listener for Inner {
    fn on_cancel(&self) {
        if self.home.is_left() {
            return self.flag.store(1, Ordering::Release);
        }
        let mut notified = Vec::new();
        let mut listeners = self.listeners.lock();
        self.flag.store(1, Ordering::Release);
        // Under the lock, so that a second caller returns no sooner than all were notified.
        for listener in listeners.drain(..).filter_map(|listener| listener.upgrade()) {
            listener.on_cancel();
            notified.push(listener);
        }
        drop(listeners);
        // We may hold a task by now that everybody else has let go, and its items with it.
        drop(notified);
    }
}

impl Drop for CancelToken {
    fn drop(&mut self) {
        if self.inner.home.is_left() {
            // The list may be half-changed: it stays, until this process ends.
            std::mem::forget(Arc::clone(&self.inner));
        }
    }
}

impl Default for CancelToken {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelToken").field("is_cancelled", &self.is_cancelled()).finish_non_exhaustive()
    }
}
