//! Results of a task, as they come.

use std::collections::VecDeque;
use std::fmt;
use std::task::{Poll, Waker};

use forebay_sync::sync::{Arc, Condvar, Home, Mutex, wake_quietly};

use crate::gather::Gathering;
use crate::task::Task;

/// Results of a task, in the order in which handlers end. Made by [`Stage::results`](crate::Stage::results).
///
/// [`iter`](Self::iter) waits for one result after the other. As a `Stream` it registers a waker. It holds as many
/// results as the channel has slots. Handlers whose results find no space wait, and the source with them. Dropping it
/// drops the [`Task`] and the results that were not taken.
///
/// ```
/// use forebay_task as task;
///
/// # fn main() -> Result<(), forebay_task::TaskError> {
/// let squares = task::from_iter(1..=3).map(|n| n * n).results()?;
/// assert_eq!(squares.iter().sum::<i32>(), 14);
/// assert_eq!(squares.into_task().wait()?.summary.handled, 3);
/// # Ok(())
/// # }
/// ```
#[must_use = "results that are dropped cancel their task"]
pub struct Results<R> {
    /// Dropped before the task, so that no worker waits for space any more.
    reader: Reader<R>,
    task: Task<()>,
}

/// End at which results are taken.
struct Reader<R>(Arc<Outlet<R>>, Home);

/// End at which results are put in.
struct Writer<R>(Arc<Outlet<R>>);

struct Outlet<R> {
    queue: Mutex<Queue<R>>,
    changed: Condvar,
}

struct Queue<R> {
    results: VecDeque<R>,
    /// 1 or more.
    capacity: usize,
    /// True if nobody takes results any more.
    is_reader_gone: bool,
    /// True if no more results will come.
    is_ended: bool,
    waker: Option<Waker>,
}

/// Makes both ends of a queue of so many results: the one into which a task gathers, and the one of its reader.
pub(crate) fn outlet<R: Send + 'static>(
    capacity: usize,
) -> (impl Gathering<R, ()> + 'static, impl FnOnce(Task<()>) -> Results<R>) {
    let queue =
        Queue { results: VecDeque::new(), capacity, is_reader_gone: false, is_ended: false, waker: None };
    let outlet = Arc::new(Outlet { queue: Mutex::new(queue), changed: Condvar::new() });
    let reader = Reader(Arc::clone(&outlet), Home::here());
    (Writer(outlet), |task| Results { reader, task })
}

impl<R: Send> Gathering<R, ()> for Writer<R> {
    fn add(&mut self, _: u64, result: R) {
        let mut queue = self.0.queue.lock();
        while !queue.is_reader_gone && queue.results.len() >= queue.capacity {
            self.0.changed.wait_until(&mut queue, None);
        }
        if !queue.is_reader_gone {
            queue.results.push_back(result);
        }
        let waker = queue.waker.take();
        drop(queue);
        self.0.changed.notify_all();
        waker.into_iter().for_each(wake_quietly);
    }

    fn finish(self: Box<Self>) {}
}

impl<R> Drop for Writer<R> {
    fn drop(&mut self) {
        let mut queue = self.0.queue.lock();
        queue.is_ended = true;
        let waker = queue.waker.take();
        drop(queue);
        self.0.changed.notify_all();
        waker.into_iter().for_each(wake_quietly);
    }
}

impl<R> Drop for Reader<R> {
    fn drop(&mut self) {
        if self.1.is_left() {
            // It may be half-changed: it stays, until this process ends.
            return std::mem::forget(Arc::clone(&self.0));
        }
        let mut queue = self.0.queue.lock();
        queue.is_reader_gone = true;
        let (results, waker) = (std::mem::take(&mut queue.results), queue.waker.take());
        drop(queue);
        self.0.changed.notify_all();
        // Their destructors are user code: not under the lock.
        drop((results, waker));
    }
}

impl<R> Results<R> {
    /// Waits for the next result. Returns `None` when all were taken and no more will come. Then the task is over, or about to be, and
    /// the captures of its handler, its policy and its source are dropped.
    ///
    /// Returns `None` at once in a forked child, and in a handler or the source of the task, which cannot wait for itself.
    pub fn recv(&self) -> Option<R> {
        if self.task.is_left() || self.task.is_here() {
            return None;
        }
        let outlet = &self.reader.0;
        let mut queue = outlet.queue.lock();
        while queue.results.is_empty() && !queue.is_ended {
            outlet.changed.wait_until(&mut queue, None);
        }
        let next = queue.results.pop_front();
        drop(queue);
        outlet.changed.notify_all();
        next
    }

    /// Returns an iterator that waits for one result after the other, until the task is over.
    pub fn iter(&self) -> ResultsIter<'_, R> {
        ResultsIter(self)
    }

    /// Returns the task, to read its account or to cancel it. After a cancel, the results of handlers that run still come.
    pub fn task(&self) -> &Task<()> {
        &self.task
    }

    /// Returns the task, to wait for it. Results that come from now on are dropped.
    pub fn into_task(self) -> Task<()> {
        self.task
    }

    /// Returns the next result, or registers the waker.
    pub(crate) fn poll_next_result(&self, waker: &Waker) -> Poll<Option<R>> {
        // User code, and so is the drop of the one before: without the lock.
        let waker = waker.clone();
        if self.task.is_left() || self.task.is_here() {
            return Poll::Ready(None);
        }
        let mut queue = self.reader.0.queue.lock();
        let next = queue.results.pop_front();
        if next.is_some() || queue.is_ended {
            drop(queue);
            self.reader.0.changed.notify_all();
            return Poll::Ready(next);
        }
        let before = queue.waker.replace(waker);
        drop(queue);
        drop(before);
        // The drop may have forked, and this may be the child.
        if self.task.is_left() { Poll::Ready(None) } else { Poll::Pending }
    }
}

/// Iterator over the results of a task. Made by [`Results::iter`].
#[derive(Debug)]
pub struct ResultsIter<'a, R>(&'a Results<R>);

impl<R> Iterator for ResultsIter<'_, R> {
    type Item = R;

    fn next(&mut self) -> Option<R> {
        self.0.recv()
    }
}

impl<'a, R> IntoIterator for &'a Results<R> {
    type Item = R;
    type IntoIter = ResultsIter<'a, R>;

    fn into_iter(self) -> ResultsIter<'a, R> {
        self.iter()
    }
}

impl<R> fmt::Debug for Results<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Results").field("task", &self.task).finish_non_exhaustive()
    }
}
