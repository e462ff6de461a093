//! A task that runs, and its end.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::cancel::CancelToken;
use super::chain::EmitError;
use super::channel::Control;
use super::item::TaskId;
use super::summary::Summary;
use crate::sync::{Arc, Condvar, Home, Mutex};
use crate::wake::{deadline_in, wake_quietly};

/// A task that runs on threads of its own, named `forebay-emit`. Made by [`Stage::start`](super::Stage::start).
///
/// It is a `Future` of its [`Final`], for any executor: polling leaves a waker, no thread. Polled until its end, it
/// has given that away: polled again it is pending for ever, and nobody should wait for it.
///
/// Dropped before its end, it is cancelled; the drop waits for handlers that run, [1 s at most by
/// default](super::Chain::drop_timeout), and leaves those alone that have not returned by then: their threads end with them.
/// From a handler of its own it does not wait; where nothing may block, as in async code, set that time to zero. (The
/// record for the collector is critical, and waits in a full lane as any.)
/// [`detach`](Self::detach) lets it run on instead.
#[must_use = "a task that is dropped is cancelled"]
pub struct Task<O> {
    id: TaskId,
    control: Arc<dyn Control>,
    token: CancelToken,
    slot: Arc<Slot<O>>,
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

/// Where the last worker leaves the end.
pub(super) struct Slot<O> {
    told: Mutex<Told<O>>,
    changed: Condvar,
}

struct Told<O> {
    /// `None` before it is told, and after it was taken.
    ending: Option<Final<O>>,
    is_told: bool,
    waker: Option<Waker>,
}

impl<O> Slot<O> {
    pub(super) fn new() -> Self {
        let told = Told { ending: None, is_told: false, waker: None };
        Self { told: Mutex::new(told), changed: Condvar::new() }
    }

    pub(super) fn tell(&self, ending: Final<O>) {
        let mut told = self.told.lock();
        (told.ending, told.is_told) = (Some(ending), true);
        let waker = told.waker.take();
        drop(told);
        self.changed.notify_all();
        waker.into_iter().for_each(wake_quietly);
    }

    /// Waits for the end until then, and takes it; `None` also if it was taken before.
    fn take_by(&self, deadline: Option<Instant>) -> Option<Final<O>> {
        let mut told = self.told.lock();
        while !told.is_told && !self.changed.wait_until(&mut told, deadline) {}
        told.ending.take()
    }

    /// Whether it was told by then.
    fn wait(&self, deadline: Option<Instant>) -> bool {
        let mut told = self.told.lock();
        while !told.is_told {
            if self.changed.wait_until(&mut told, deadline) {
                break;
            }
        }
        told.is_told
    }
}

impl<O> Task<O> {
    pub(super) fn new(
        id: TaskId,
        control: Arc<dyn Control>,
        token: CancelToken,
        slot: Arc<Slot<O>>,
        drop_timeout: Duration,
    ) -> Self {
        let home = Home::here();
        Self { id, control, token, slot, home, drop_timeout: Some(drop_timeout) }
    }

    /// Which task of this process.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// Whether this is a handler of the task, or its source.
    pub(super) fn is_here(&self) -> bool {
        self.control.is_here()
    }

    /// Whether this is a forked child, whose parent has the task.
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
        self.slot.take_by(None).ok_or(EmitError::Taken)
    }

    /// The same, within `longest`.
    ///
    /// # Errors
    ///
    /// It goes on, or its end was polled, or this is a forked child: the task itself. In a handler or the source of the task,
    /// which cannot wait for itself, at once.
    pub fn wait_timeout(self, longest: Duration) -> Result<Final<O>, Self> {
        if self.is_left() || self.is_here() {
            return Err(self);
        }
        self.slot.take_by(deadline_in(longest)).ok_or(self)
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
        !self.is_left() && self.slot.told.lock().is_told
    }

    /// The account at this moment; an empty one in a forked child.
    pub fn summary(&self) -> Summary {
        self.control.summary()
    }

    /// Cancels a task that could not be started, and tells nobody.
    pub(super) fn disown(&self) {
        self.control.disown();
        self.token.cancel();
    }

    /// Lets it run to its end, which is then told to nobody but the collector of
    /// [`report_to`](super::Chain::report_to).
    pub fn detach(mut self) {
        self.drop_timeout = None;
    }
}

impl<O> Future for Task<O> {
    type Output = Final<O>;

    /// In a forked child, it is pending for ever; so it is in a handler or the source of the task, which must not block on it.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Final<O>> {
        // Foreign code, and so is the drop of the one before: without the lock.
        let waker = cx.waker().clone();
        if self.is_left() {
            return Poll::Pending;
        }
        let mut told = self.slot.told.lock();
        if let Some(ending) = told.ending.take() {
            drop(told);
            return Poll::Ready(ending);
        }
        let before = told.waker.replace(waker);
        drop(told);
        drop(before);
        Poll::Pending
    }
}

impl<O> Drop for Task<O> {
    fn drop(&mut self) {
        if self.is_left() {
            // Nothing of it may be touched: it stays, until this process ends.
            return std::mem::forget((Arc::clone(&self.control), Arc::clone(&self.slot)));
        }
        let waker = self.slot.told.lock().waker.take();
        drop(waker);
        let Some(longest) = self.drop_timeout.filter(|_| !self.is_over()) else { return };
        self.token.cancel();
        let longest = if self.control.is_here() { Duration::ZERO } else { longest };
        let is_over = if longest.is_zero() { self.is_over() } else { self.slot.wait(deadline_in(longest)) };
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
