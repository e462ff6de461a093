//! `Reply`: the place for an answer from another thread.

use std::task::{Poll, Waker};
use std::time::Instant;

use crate::sync::{Arc, Condvar, Mutex, wake_quietly};

/// Place for one answer. The caller makes it; caller and mailbox hold it, then caller and worker.
pub(crate) struct Reply<T> {
    state: Mutex<ReplyState<T>>,
    changed: Condvar,
    /// Whether the caller reads the answer, and does not only wait for it.
    is_heard: bool,
}

struct ReplyState<T> {
    /// `None` until the answer is there. `Some(None)` means that the worker is gone and no answer will come.
    answer: Option<Option<T>>,
    waker: Option<Waker>,
    /// Whether the caller no longer waits.
    is_given_up: bool,
}

impl<T> Reply<T> {
    pub(crate) fn new() -> Arc<Self> {
        Self::with(true)
    }

    /// Makes a place for a caller that only waits and does not read the answer. So the next report covers the same
    /// events.
    pub(crate) fn unheard() -> Arc<Self> {
        Self::with(false)
    }

    fn with(is_heard: bool) -> Arc<Self> {
        let state = Mutex::new(ReplyState { answer: None, waker: None, is_given_up: false });
        Arc::new(Self { state, changed: Condvar::new(), is_heard })
    }

    /// Stores the answer; `None` means that the worker is gone. Returns whether the caller will read it: it reads
    /// answers, has not given up, and there was no answer before.
    pub(crate) fn answer(&self, answer: Option<T>) -> bool {
        let mut state = self.state.lock();
        if state.is_given_up || state.answer.is_some() {
            return false;
        }
        state.answer = Some(answer);
        self.changed.notify_all();
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            wake_quietly(waker);
        }
        self.is_heard
    }

    /// Notes that the caller no longer waits for the answer.
    pub(crate) fn give_up(&self) {
        let mut state = self.state.lock();
        state.is_given_up = true;
        let left = state.waker.take();
        // Its destructor is user code, so it must not run under our lock.
        drop(state);
        drop(left);
    }

    /// Waits for the answer. When the deadline comes first, gives up and returns `None`.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Option<Option<T>> {
        let mut state = self.state.lock();
        while state.answer.is_none() {
            if self.changed.wait_until(&mut state, deadline) {
                break;
            }
        }
        state.is_given_up = state.answer.is_none();
        state.answer.take()
    }

    /// Waits for the answer and leaves it there, so that many may wait. Returns `None` if it did not come before the
    /// deadline.
    pub(crate) fn answer_by(&self, deadline: Option<Instant>) -> Option<T>
    where
        T: Copy,
    {
        let mut state = self.state.lock();
        while state.answer.is_none() {
            if self.changed.wait_until(&mut state, deadline) {
                break;
            }
        }
        state.answer.flatten()
    }

    /// Returns whether the caller reads the answer, and does not only wait for it.
    pub(crate) fn is_heard(&self) -> bool {
        self.is_heard
    }

    /// Returns the answer, or stores the waker in the place of an earlier one.
    pub(crate) fn poll(&self, waker: &Waker) -> Poll<Option<T>> {
        let mut state = self.state.lock();
        match state.answer.take() {
            Some(answer) => Poll::Ready(answer),
            None => {
                let left = state.waker.replace(waker.clone());
                // Its destructor is user code, so it must not run under our lock.
                drop(state);
                drop(left);
                Poll::Pending
            }
        }
    }
}
