//! The way in.

use std::fmt;
use std::time::Duration;

use super::channel::{SendError, Shared, Wait};
use crate::clock::deadline_in;
use crate::sync::Arc;

/// Sends items into the bounded channel of a task. Made by [`channel`](super::channel()).
///
/// A clone sends into the same channel. When the last one is dropped, the channel is closed: the task handles what waits, and
/// ends. So a handler that holds a sender keeps its own task from ending.
///
/// Items sent before the task is started wait in the channel. What a handler of the same task sends never waits for room, as
/// it would wait for itself: into a full channel it is refused.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Sender<T> {
    pub(super) fn new(shared: &Arc<Shared<T>>) -> Self {
        shared.enter();
        Self { shared: Arc::clone(shared) }
    }

    /// Sends an item, as soon as there is room.
    ///
    /// # Errors
    ///
    /// [`SendRefusal::Closed`](super::SendRefusal::Closed), also when that happens while it waits; [`SendRefusal::Full`](super::SendRefusal::Full) from a handler of this task.
    pub fn send(&self, item: T) -> Result<(), SendError<T>> {
        self.shared.put(item, Wait::Until(None))
    }

    /// The same, within `longest`.
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send), or there was no room in time.
    pub fn send_timeout(&self, item: T, timeout: Duration) -> Result<(), SendError<T>> {
        self.shared.put(item, Wait::Until(deadline_in(timeout)))
    }

    /// Sends an item if there is room now.
    ///
    /// # Errors
    ///
    /// As for [`send_timeout`](Self::send_timeout).
    pub fn try_send(&self, item: T) -> Result<(), SendError<T>> {
        self.shared.put(item, Wait::No)
    }

    /// Whether items would be refused as [`SendRefusal::Closed`](super::SendRefusal::Closed): no need to make another one.
    pub fn is_closed(&self) -> bool {
        !self.shared.is_wanted()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self::new(&self.shared)
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.shared.leave();
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("is_closed", &self.is_closed()).finish_non_exhaustive()
    }
}
