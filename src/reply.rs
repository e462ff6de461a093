//! `Reply`: the place for an answer from another thread.

use std::task::{Poll, Waker};
use std::time::Instant;

use crate::sync::{Arc, Condvar, Mutex, wake_quietly};

/// Place for one answer. The caller makes it; caller and mailbox hold it, then caller and worker.
pub(crate) struct Reply<T> {
    state: Mutex<ReplyState<T>>,
    changed: Condvar,
    /// True if the caller reads the answer, and does not only wait for it.
    is_heard: bool,
}

struct ReplyState<T> {
    /// `None` until the answer is there. `Some(None)` means that the worker is gone and no answer will come.
    answer: Option<Option<T>>,
    waker: Option<Waker>,
    /// Wakers of tasks that share the answer, each with its ticket.
    sharing: Vec<(u64, Waker)>,
    last_ticket: u64,
    /// True if the caller no longer waits.
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
        let state = Mutex::new(ReplyState {
            answer: None,
            waker: None,
            sharing: Vec::new(),
            last_ticket: 0,
            is_given_up: false,
        });
        Arc::new(Self { state, changed: Condvar::new(), is_heard })
    }

    /// Stores the answer; `None` means that the worker is gone. Returns whether the caller will read it: it reads
    /// answers, has not given up, and there was no answer before.
    pub(crate) fn answer(&self, answer: Option<T>) -> bool {
        let Some(wakers) = self.store(answer) else { return false };
        wakers.into_iter().for_each(wake_quietly);
        self.is_heard
    }

    /// Stores the answer like [`answer`](Self::answer), and returns the wakers of the tasks that wait, which the caller
    /// wakes: they are user code. Returns `None` if the answer comes too late.
    pub(crate) fn store(&self, answer: Option<T>) -> Option<Vec<Waker>> {
        let mut state = self.state.lock();
        if state.is_given_up || state.answer.is_some() {
            return None;
        }
        state.answer = Some(answer);
        self.changed.notify_all();
        let (waker, sharing) = (state.waker.take(), std::mem::take(&mut state.sharing));
        drop(state);
        Some(waker.into_iter().chain(sharing.into_iter().map(|(_, waker)| waker)).collect())
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

    /// Returns the answer, or stores the waker in the place of an earlier one. In a forked child, there is no answer.
    pub(crate) fn poll(&self, waker: &Waker) -> Poll<Option<T>> {
        // User code, so it must not run under our lock. It may fork, and in the child the lock is the parent's.
        let waker = waker.clone();
        let Ok(mut state) = self.state.enter() else { return Poll::Ready(None) };
        if let Some(answer) = state.answer.take() {
            return Poll::Ready(answer);
        }
        let left = state.waker.replace(waker);
        // Its destructor is user code, so it must not run under our lock. It may fork as well.
        drop(state);
        drop(left);
        if self.state.check().is_err() { Poll::Ready(None) } else { Poll::Pending }
    }

    /// Returns the answer and leaves it there, so that many tasks may wait; or stores the waker with the task's ticket.
    pub(crate) fn poll_shared(&self, ticket: &mut Option<u64>, waker: &Waker) -> Poll<Option<T>>
    where
        T: Copy,
    {
        // User code, so it must not run under our lock. It may fork, and in the child the lock is the parent's.
        let waker = waker.clone();
        let Ok(mut state) = self.state.enter() else { return Poll::Ready(None) };
        if let Some(answer) = state.answer {
            return Poll::Ready(answer);
        }
        let left = match ticket.and_then(|id| state.sharing.iter_mut().find(|(other, _)| *other == id)) {
            Some((_, left)) => Some(std::mem::replace(left, waker)),
            None => {
                state.last_ticket += 1;
                let id = state.last_ticket;
                *ticket = Some(id);
                state.sharing.push((id, waker));
                None
            }
        };
        // As above.
        drop(state);
        drop(left);
        if self.state.check().is_err() { Poll::Ready(None) } else { Poll::Pending }
    }

    /// Removes the waker of a task that no longer waits.
    pub(crate) fn withdraw(&self, ticket: &mut Option<u64>) {
        let Some(id) = ticket.take() else { return };
        let mut state = self.state.lock();
        let index = state.sharing.iter().position(|(other, _)| *other == id);
        let left = index.map(|index| state.sharing.swap_remove(index));
        // Its destructor is user code, so it must not run under our lock.
        drop(state);
        drop(left);
    }
}
