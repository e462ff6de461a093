//! `Reply`: the place for the answer of another thread.

use std::task::{Poll, Waker};
use std::time::Instant;

use crate::sync::{Arc, Condvar, Mutex, wake_quietly};

/// The place for one answer. Made by the caller, held by caller and mailbox, then worker.
pub(crate) struct Reply<T> {
    state: Mutex<ReplyState<T>>,
    changed: Condvar,
    /// Whether who asked looks at the answer, beyond that it came.
    is_heard: bool,
}

struct ReplyState<T> {
    /// `None` until it is there; `Some(None)` says that there will be none, because the worker is gone.
    answer: Option<Option<T>>,
    waker: Option<Waker>,
    /// Nobody waits any more.
    is_given_up: bool,
}

impl<T> Reply<T> {
    pub(crate) fn new() -> Arc<Self> {
        Self::with(true)
    }

    /// For who only waits for it: what it tells, the next one is told as well.
    pub(crate) fn unheard() -> Arc<Self> {
        Self::with(false)
    }

    fn with(is_heard: bool) -> Arc<Self> {
        let state = Mutex::new(ReplyState { answer: None, waker: None, is_given_up: false });
        Arc::new(Self { state, changed: Condvar::new(), is_heard })
    }

    /// Answers; `None` says that the worker is gone. Whether somebody will hear it: the caller listens, has
    /// not given up, and there was no answer before.
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

    /// The caller goes away without the answer.
    pub(crate) fn give_up(&self) {
        let mut state = self.state.lock();
        state.is_given_up = true;
        let left = state.waker.take();
        // Its destructor is foreign code: not under our lock.
        drop(state);
        drop(left);
    }

    /// Waits for the answer; gives up, with `None`, when the deadline comes first.
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

    /// Waits for the answer and leaves it there, so that many may wait; `None` if it did not come before the deadline.
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

    /// Whether who asked looks at the answer, beyond that it came.
    pub(crate) fn is_heard(&self) -> bool {
        self.is_heard
    }

    /// The answer, or the waker is left behind in the place of an earlier one.
    pub(crate) fn poll(&self, waker: &Waker) -> Poll<Option<T>> {
        let mut state = self.state.lock();
        match state.answer.take() {
            Some(answer) => Poll::Ready(answer),
            None => {
                let left = state.waker.replace(waker.clone());
                // Its destructor is foreign code: not under our lock.
                drop(state);
                drop(left);
                Poll::Pending
            }
        }
    }
}
