//! Sender of items.

use std::fmt;
use std::time::Duration;

use forebay_sync::clock::deadline_in;
use forebay_sync::sync::Arc;

use crate::channel::{SendError, Shared, Wait};

/// Sender of items into the bounded channel of a task. Made by [`channel`](crate::channel()).
///
/// A clone sends into the same channel. Dropping the last sender closes the channel: the task handles what waits, and ends. So a
/// handler that holds a sender keeps its own task from ending.
///
/// Items that are sent before the start wait in the channel. A handler that sends into its own task never waits for
/// space, because it would wait for itself. A full channel refuses its items.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Sender<T> {
    pub(crate) fn new(shared: &Arc<Shared<T>>) -> Self {
        shared.enter();
        Self { shared: Arc::clone(shared) }
    }

    /// Waits until there is space, and sends an item.
    ///
    /// # Errors
    ///
    /// [`SendRefusal::Closed`](crate::SendRefusal::Closed), also when that happens while it waits; [`SendRefusal::Full`](crate::SendRefusal::Full) from a handler of this task.
    pub fn send(&self, item: T) -> Result<(), SendError<T>> {
        self.shared.put(item, Wait::Until(None))
    }

    /// Sends an item, and waits for space until the timeout.
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send), or there was no space in time.
    pub fn send_timeout(&self, item: T, timeout: Duration) -> Result<(), SendError<T>> {
        self.shared.put(item, Wait::Until(deadline_in(timeout)))
    }

    /// Sends an item if there is space now.
    ///
    /// # Errors
    ///
    /// As for [`send_timeout`](Self::send_timeout).
    pub fn try_send(&self, item: T) -> Result<(), SendError<T>> {
        self.shared.put(item, Wait::No)
    }

    /// Returns whether items are refused as [`SendRefusal::Closed`](crate::SendRefusal::Closed), so that there is no need to make
    /// another one.
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
