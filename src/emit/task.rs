//! A task that runs, and its end.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::cancel::CancelToken;
use super::channel::Control;
use super::item::TaskId;
use super::summary::Summary;
use crate::clock::deadline_in;
use crate::config::ConfigError;
use crate::sync::{Arc, Condvar, Home, Mutex, wake_quietly};

/// A task could not be started, or not be waited for. One that could not be started drops the items that were sent, and refuses
/// senders; there is no final event.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmitError {
    /// A setting is outside of what is allowed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The system refused a thread.
    #[error("cannot create a thread of the task: {0}")]
    Thread(#[source] io::Error),
    /// This is a forked child, and the task is its parent's.
    #[error("the task is the parent's of this forked process")]
    Forked,
    /// A handler of the task cannot wait for it.
    #[error("called from a handler of the task, which cannot wait for itself")]
    Inside,
    /// Its end was polled before.
    #[error("the end of the task was taken before, by a poll")]
    Taken,
}

/// A task that runs on threads of its own, named `forebay-emit`. Made by [`Stage::start`](super::Stage::start).
///
/// It is a `Future` of its [`Final`], for any executor: polling leaves a waker, no thread. Polled until its end, it
/// has given that away: polled again it is pending for ever, and nobody should wait for it.
///
/// Dropped before its end, it is cancelled; the drop waits for handlers that run, [1 s at most by
/// default](super::Pipeline::drop_timeout), and leaves those alone that have not returned by then: their threads end with them.
/// From a handler of its own it does not wait; where nothing may block, as in async code, set that time to zero. (The
/// record for the collector is critical, and waits in a full lane as any.)
/// [`detach`](Self::detach) lets it run on instead.
#[must_use = "a task that is dropped is cancelled"]
pub struct Task<O> {
    id: TaskId,
    control: Arc<dyn Control>,
    token: CancelToken,
    promise: Arc<Promise<O>>,
    home: Home,
    /// `None` if the drop lets it run on.
    drop_timeout: Option<Duration>,
}

/// The end of a task: its account, and what was gathered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Final<O> {
    /// The outcome and the counts.
    pub summary: Summary,
    /// What was gathered until the end, whatever the outcome.
    pub results: O,
}

/// Promise of the end of a task, which the last worker fulfills.
pub(super) struct Promise<O> {
    state: Mutex<PromiseState<O>>,
    changed: Condvar,
}

struct PromiseState<O> {
    /// `None` before the promise is fulfilled, and after the end was taken.
    ending: Option<Final<O>>,
    is_fulfilled: bool,
    waker: Option<Waker>,
}

impl<O> Promise<O> {
    pub(super) fn new() -> Self {
        let state = PromiseState { ending: None, is_fulfilled: false, waker: None };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    pub(super) fn fulfill(&self, ending: Final<O>) {
        let mut state = self.state.lock();
        (state.ending, state.is_fulfilled) = (Some(ending), true);
        let waker = state.waker.take();
        drop(state);
        self.changed.notify_all();
        waker.into_iter().for_each(wake_quietly);
    }

    /// Waits for the end until then, and takes it. `None` also if it was taken before.
    fn take_by(&self, deadline: Option<Instant>) -> Option<Final<O>> {
        let mut state = self.state.lock();
        while !state.is_fulfilled && !self.changed.wait_until(&mut state, deadline) {}
        state.ending.take()
    }

    /// Waits until then. Returns whether the promise is fulfilled.
    fn wait(&self, deadline: Option<Instant>) -> bool {
        let mut state = self.state.lock();
        while !state.is_fulfilled {
            if self.changed.wait_until(&mut state, deadline) {
                break;
            }
        }
        state.is_fulfilled
    }
}

impl<O> Task<O> {
    pub(super) fn new(
        id: TaskId,
        control: Arc<dyn Control>,
        token: CancelToken,
        promise: Arc<Promise<O>>,
        drop_timeout: Duration,
    ) -> Self {
        let home = Home::here();
        Self { id, control, token, promise, home, drop_timeout: Some(drop_timeout) }
    }

    /// Which task of this process.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// Returns whether the calling thread is in a handler of the task, or in its source.
    pub(super) fn is_here(&self) -> bool {
        self.control.is_here()
    }

    /// Returns whether this is a forked child, whose parent has the task.
    pub(super) fn is_left(&self) -> bool {
        self.home.is_left()
    }

    /// Waits for the end, however long handlers take.
    ///
    /// # Errors
    ///
    /// Its end was polled before ([`EmitError::Taken`]), or comes to the parent of this forked child
    /// ([`EmitError::Forked`]): there is nothing to wait for. In a handler or the source of the task, which cannot wait for
    /// itself, [`EmitError::Inside`]; the task is dropped there.
    pub fn wait(self) -> Result<Final<O>, EmitError> {
        if self.is_left() {
            return Err(EmitError::Forked);
        }
        if self.is_here() {
            return Err(EmitError::Inside);
        }
        self.promise.take_by(None).ok_or(EmitError::Taken)
    }

    /// The same, within `longest`.
    ///
    /// # Errors
    ///
    /// It goes on, or its end was polled, or this is a forked child: the task itself. In a handler or the source of the task,
    /// which cannot wait for itself, at once.
    pub fn wait_timeout(self, timeout: Duration) -> Result<Final<O>, Self> {
        if self.is_left() || self.is_here() {
            return Err(self);
        }
        self.promise.take_by(deadline_in(timeout)).ok_or(self)
    }

    /// Stops it: once this has returned, no item is taken by a handler; those that run are finished. The outcome is
    /// [`Cancelled`](super::TaskOutcome::Cancelled), unless it was over before. Does not wait.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// What cancels this task alone.
    pub fn token(&self) -> &CancelToken {
        &self.token
    }

    /// Whether it is over, so that waiting for it takes no time.
    pub fn is_over(&self) -> bool {
        !self.is_left() && self.promise.state.lock().is_fulfilled
    }

    /// The account at this moment; an empty one in a forked child.
    pub fn summary(&self) -> Summary {
        self.control.summary()
    }

    /// Cancels a task that could not be started, and reports that to nobody.
    pub(super) fn disown(&self) {
        self.control.disown();
        self.token.cancel();
    }

    /// Lets it run to its end, which is then reported to nobody but the collector of
    /// [`report_to`](super::Pipeline::report_to).
    pub fn detach(mut self) {
        self.drop_timeout = None;
    }
}

impl<O> Future for Task<O> {
    type Output = Final<O>;

    /// In a forked child, it is pending for ever; so it is in a handler or the source of the task, which must not block on it.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Final<O>> {
        // User code, and so is the drop of the one before: without the lock.
        let waker = cx.waker().clone();
        if self.is_left() {
            return Poll::Pending;
        }
        let mut state = self.promise.state.lock();
        if let Some(ending) = state.ending.take() {
            drop(state);
            return Poll::Ready(ending);
        }
        let before = state.waker.replace(waker);
        drop(state);
        drop(before);
        Poll::Pending
    }
}

impl<O> Drop for Task<O> {
    fn drop(&mut self) {
        if self.is_left() {
            // Nothing of it may be touched: it stays, until this process ends.
            return std::mem::forget((Arc::clone(&self.control), Arc::clone(&self.promise)));
        }
        let waker = self.promise.state.lock().waker.take();
        drop(waker);
        let Some(timeout) = self.drop_timeout.filter(|_| !self.is_over()) else { return };
        self.token.cancel();
        let timeout = if self.control.is_here() { Duration::ZERO } else { timeout };
        let is_over =
            if timeout.is_zero() { self.is_over() } else { self.promise.wait(deadline_in(timeout)) };
        if !is_over {
            self.control.give_up();
        }
    }
}

impl<O> fmt::Debug for Task<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("summary", &self.summary()).finish_non_exhaustive()
    }
}
