//! Task that runs, and its end.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use forebay::config::ConfigError;
use forebay_sync::clock::deadline_in;
use forebay_sync::sync::{Arc, Condvar, Home, Mutex, wake_quietly};

use crate::cancel::CancelToken;
use crate::channel::Control;
use crate::item::TaskId;
use crate::summary::Summary;

/// Error of a task that could not be started, or could not be waited for. A task that could not be started drops the items that were
/// sent, and refuses senders. It has no final event.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// A setting is not allowed.
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
    /// The end was taken by a poll before.
    #[error("the end of the task was taken before, by a poll")]
    Taken,
}

/// Task that runs on threads of its own, named `forebay-task`. Made by [`Stage::start`](crate::Stage::start).
///
/// A task is a `Future` of its [`Final`], for any executor: a poll registers a waker and needs no thread. The poll that is ready takes the
/// end. After that a poll is pending for ever, and [`wait`](Self::wait) returns an error.
///
/// Dropping a task before its end cancels it. The drop waits for handlers that run, by default [at most
/// 1 s](crate::Pipeline::drop_timeout). Handlers that have not returned by then run on, and their threads end with them. A drop in a
/// handler of the same task does not wait. Where nothing may block, as in async code, set that time to zero. (The record for the
/// collector is critical, and may wait in a full lane.) [`detach`](Self::detach) lets the task run on instead.
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

/// End of a task: its account, and what was gathered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Final<O> {
    /// The outcome and the counts.
    pub summary: Summary,
    /// The gathered results, whatever the outcome.
    pub results: O,
}

/// Promise of the end of a task, which the last worker fulfills.
pub(crate) struct Promise<O> {
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
    pub(crate) fn new() -> Self {
        let state = PromiseState { ending: None, is_fulfilled: false, waker: None };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    pub(crate) fn fulfill(&self, ending: Final<O>) {
        let mut state = self.state.lock();
        (state.ending, state.is_fulfilled) = (Some(ending), true);
        let waker = state.waker.take();
        drop(state);
        self.changed.notify_all();
        waker.into_iter().for_each(wake_quietly);
    }

    /// Waits for the end until then, and takes it. Returns `None` also if it was taken before.
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
    pub(crate) fn new(
        id: TaskId,
        control: Arc<dyn Control>,
        token: CancelToken,
        promise: Arc<Promise<O>>,
        drop_timeout: Duration,
    ) -> Self {
        let home = Home::here();
        Self { id, control, token, promise, home, drop_timeout: Some(drop_timeout) }
    }

    /// Returns the number of the task in this process.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// Returns whether the calling thread is in a handler of the task, or in its source.
    pub(crate) fn is_here(&self) -> bool {
        self.control.is_here()
    }

    /// Returns whether this is a forked child, whose parent has the task.
    pub(crate) fn is_left(&self) -> bool {
        self.home.is_left()
    }

    /// Waits for the end without a timeout.
    ///
    /// # Errors
    ///
    /// [`TaskError::Taken`] if a poll took the end before. [`TaskError::Forked`] in a forked child, whose parent has the task.
    /// [`TaskError::Inside`] in a handler or the source of the task, which cannot wait for itself; the task is dropped there.
    pub fn wait(self) -> Result<Final<O>, TaskError> {
        if self.is_left() {
            return Err(TaskError::Forked);
        }
        if self.is_here() {
            return Err(TaskError::Inside);
        }
        self.promise.take_by(None).ok_or(TaskError::Taken)
    }

    /// Waits for the end until the timeout.
    ///
    /// # Errors
    ///
    /// The task itself, if it goes on, if a poll took its end, or in a forked child. In a handler or the source of the task, which cannot
    /// wait for itself, this returns at once.
    pub fn wait_timeout(self, timeout: Duration) -> Result<Final<O>, Self> {
        if self.is_left() || self.is_here() {
            return Err(self);
        }
        self.promise.take_by(deadline_in(timeout)).ok_or(self)
    }

    /// Cancels the task, without waiting for its end. Once this has returned, no handler takes an item; calls that run are finished. The
    /// outcome is [`Cancelled`](crate::TaskOutcome::Cancelled), unless the task was over before.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// Returns the token that cancels this task alone.
    pub fn token(&self) -> &CancelToken {
        &self.token
    }

    /// Returns whether the task is over, so that waiting for it takes no time.
    pub fn is_over(&self) -> bool {
        !self.is_left() && self.promise.state.lock().is_fulfilled
    }

    /// Returns the account at this moment; an empty one in a forked child.
    pub fn summary(&self) -> Summary {
        self.control.summary()
    }

    /// Cancels a task that could not be started, without a report.
    pub(crate) fn disown(&self) {
        self.control.disown();
        self.token.cancel();
    }

    /// Lets the task run to its end. Only the collector of [`report_to`](crate::Pipeline::report_to) gets a report of that.
    pub fn detach(mut self) {
        self.drop_timeout = None;
    }
}

impl<O> Future for Task<O> {
    type Output = Final<O>;

    /// Polls the end. In a forked child it is pending for ever. So it is in a handler or the source of the task, which must not block on it.
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
