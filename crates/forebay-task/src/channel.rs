//! The state of a task: the bounded channel, who works on it, and the account.
//!
//! One lock guards all of it, and no user code runs under it: an item is dropped, a waker woken and a handler called
//! without it. So a question ("is an item left, and may I have it?") is asked and answered in one step. An item is
//! *begun* when it is taken under this lock while nobody had stopped the task. Handlers take microseconds and more;
//! the lock takes a hundredth of that. A lock-free queue was rejected: it would hold the items, but not the answer.
//!
//! Between the lock and the call of the handler another thread may stop the task. So the last step before the call
//! asks the permit (`permit.rs` of forebay-sync), which a stop revokes. An item that was taken and not begun is cancelled.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use forebay_sync::clock::deadline_in;
use forebay_sync::permit::Permit;
use forebay_sync::sync::{self, Arc, Condvar, Home, Mutex, MutexGuard, Unparker};

use crate::cancel::Listener;
use crate::state::{Fate, Feeding, NextStep, Phase, Report, State, Stop, Taken, Waiting, bounded};
use crate::summary::Summary;
use crate::user_code::drop_each;

/// The name of every thread of a task.
pub(crate) const THREAD: &str = "forebay-task";

/// State that senders, workers, the source thread, the task and its token share.
pub(crate) struct Shared<T> {
    state: Mutex<State<T>>,
    home: Home,
    /// Notified when there is space, or never will be. Senders wait here.
    space: Condvar,
    /// Notified when the thread of the source has released it.
    source_gone: Condvar,
    /// Permission to call the handler and the source; revoked when the task is stopped.
    pub(crate) permit: Permit,
}

/// Time that the end of a stopped task waits for a call of its source. Most calls return at once. One that blocks, as
/// that of a receiver, must not delay the end.
const SOURCE_GRACE: Duration = Duration::from_millis(100);

/// Time that the end of a task waits for the thread of its source outside of such a call: for destructors of the
/// source and of items that came too late. Most return within a second. One that waits for another thread may never
/// return.
const DESTRUCTOR_GRACE: Duration = Duration::from_secs(3);

/// Error that returns an item that was not taken in, and the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("item not sent: {reason}")]
#[non_exhaustive]
pub struct SendError<T> {
    /// The item.
    pub item: T,
    /// The reason.
    pub reason: SendRefusal,
}

/// Reason why an item was not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum SendRefusal {
    /// The channel had no space, or none in time.
    #[error("the channel is full")]
    Full,
    /// Nobody will ever take it: the task is cancelled, has failed, has had as many items as it takes, or was never started.
    #[error("the task takes no more items")]
    Closed,
    /// This is a forked child, and the task is its parent's.
    #[error("the task is the parent's of this forked process")]
    Forked,
}

/// Wait of a sender for space.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wait {
    No,
    Until(Option<Instant>),
}

impl<T> Shared<T> {
    pub(crate) fn new() -> Self {
        let (space, source_gone) = (Condvar::new(), Condvar::new());
        Self {
            state: Mutex::new(State::new()),
            home: Home::here(),
            space,
            source_gone,
            permit: Permit::new(),
        }
    }

    /// Returns whether this is a forked child, where nothing of it may be touched.
    pub(crate) fn is_left(&self) -> bool {
        self.home.is_left()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock()
    }

    /// Returns the address under which the threads of this task are known (`sync::WorkerMark`).
    pub(crate) fn address(&self) -> usize {
        std::ptr::from_ref(self) as usize | sync::OF_TASK
    }

    pub(crate) fn enter(&self) {
        if !self.is_left() {
            self.lock().senders += 1;
        }
    }

    pub(crate) fn leave(self: &Arc<Self>) {
        if self.is_left() {
            return std::mem::forget(Arc::clone(self));
        }
        let mut state = self.lock();
        state.senders -= 1;
        if state.is_closed() {
            state.wake_all();
        }
    }

    /// Ends a task that was never begun.
    pub(crate) fn abandon(self: &Arc<Self>) {
        if self.is_left() {
            return std::mem::forget(Arc::clone(self));
        }
        let mut state = self.lock();
        if state.phase > Phase::Building {
            return;
        }
        state.stop = Some(Stop::Cancelled);
        state.phase = Phase::Over;
        state.stop_signal = None;
        state.wake_all();
        let report = state.report.take();
        self.space.notify_all();
        drop(state);
        drop(report);
        drop_each(self.clear());
    }

    /// Takes an item in, as soon as there is space. Returns it when there is none by the deadline, or it is not
    /// wanted.
    pub(crate) fn put(&self, item: T, wait: Wait) -> Result<(), SendError<T>> {
        if self.is_left() {
            return Err(SendError { item, reason: SendRefusal::Forked });
        }
        let mut state = self.lock();
        if state.feeding == Feeding::Asking {
            // A source has no other sender beside its thread.
            state.feeding = Feeding::Sending;
        }
        while state.is_wanted() && state.is_full() {
            // A worker would wait for itself.
            let has_time = !sync::is_worker_of(self.address());
            let is_late = match wait {
                Wait::Until(deadline) if has_time => self.space.wait_until(&mut state, deadline),
                Wait::Until(_) | Wait::No => true,
            };
            if is_late && state.is_wanted() && state.is_full() {
                return Err(SendError { item, reason: SendRefusal::Full });
            }
        }
        if !state.is_wanted() {
            return Err(SendError { item, reason: SendRefusal::Closed });
        }
        let before = state.evict();
        let since = state.clock.now();
        state.queue.push_back(Waiting { item, since });
        state.sent += 1;
        let waiting = state.queue.len();
        if state.is_closed() {
            state.wake_all();
            self.space.notify_all();
        } else if !before.is_empty() {
            // A worker waits already, and will see that it takes longer.
        } else if waiting == 1 || waiting >= state.plan.size.min(state.capacity) {
            // The first of a batch sets its time, the last completes it.
            state.wake_one();
        }
        drop(state);
        drop_each(before);
        Ok(())
    }

    /// Lets only the latest item wait, until no other has come for `quiet`.
    pub(crate) fn debounce(&self, quiet: Duration) {
        if self.is_left() {
            return;
        }
        let mut state = self.lock();
        state.quiet = Some(quiet);
        let last = state.queue.pop_back();
        let before = state.evict();
        state.queue.extend(last);
        drop(state);
        self.space.notify_all();
        drop_each(before);
    }

    /// Changes the bounds, and wakes the senders that wait for space.
    pub(crate) fn change_bounds(&self, change: impl FnOnce(&mut State<T>)) {
        if self.is_left() {
            return;
        }
        let mut state = self.lock();
        change(&mut state);
        // Those that wait use the clock of the task from now on.
        let now = state.clock.now();
        state.queue.iter_mut().for_each(|waiting| waiting.since = now);
        drop(state);
        self.space.notify_all();
    }

    /// Returns whether another item would be taken in, if there were space.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.is_left() && self.lock().is_wanted()
    }

    /// Returns whether the source is asked for another item.
    pub(crate) fn ask_source(&self) -> bool {
        if self.is_left() {
            return false;
        }
        let mut state = self.lock();
        let is_wanted = state.is_wanted();
        state.feeding = if is_wanted { Feeding::Asking } else { Feeding::Sending };
        is_wanted
    }

    /// Returns a channel that is disconnected when the task is stopped.
    pub(crate) fn signal_stop(&self) -> Receiver<Infallible> {
        let (signal, stopped) = crossbeam_channel::bounded(0);
        let mut state = self.lock();
        state.stop_signal = state.stop.is_none().then_some(signal);
        stopped
    }

    /// Sets where the thread of the source is.
    pub(crate) fn set_feeding(&self, feeding: Feeding) {
        if self.is_left() {
            return;
        }
        self.lock().feeding = feeding;
        if feeding == Feeding::Over {
            self.source_gone.notify_all();
        }
    }

    /// Waits until the thread of the source has released it. A wait for a call of the source is brief: the task was
    /// stopped, and the call may block for ever. So may a destructor, for which it waits longer.
    pub(crate) fn await_source(&self) {
        let (asked, ended) = (deadline_in(SOURCE_GRACE), deadline_in(DESTRUCTOR_GRACE));
        let mut state = self.lock();
        while state.feeding != Feeding::Over {
            let feeding = state.feeding;
            let until = if feeding == Feeding::Asking { asked } else { ended };
            if self.source_gone.wait_until(&mut state, until) && state.feeding == feeding {
                return;
            }
        }
    }

    /// Begins the task with so many workers, which are counted already.
    pub(crate) fn begin(&self, workers: usize) {
        let mut state = self.lock();
        state.phase = Phase::Running;
        state.begun = Some(state.clock.now());
        (state.hired, state.workers) = (workers, workers);
    }

    /// Registers the unparker of a thread, which `wake_all` unparks as well. Returns the number of the thread.
    pub(crate) fn register_waker(&self, unparker: &Unparker) -> usize {
        let mut state = self.lock();
        state.clock.register(unparker);
        state.unparkers.push(unparker.clone());
        state.unparkers.len() - 1
    }

    /// Decides what the worker does next. Its items go into `taken`, which is empty.
    pub(crate) fn next_step(&self, worker: usize, taken: &mut Taken<T>) -> NextStep {
        let next = self.lock().next_step(worker, taken);
        if let NextStep::Work(_) = next {
            self.space.notify_all();
        }
        next
    }

    /// Returns whether nobody has stopped the task. Says nothing of a call that comes later: see `permit`.
    pub(crate) fn goes_on(&self) -> bool {
        self.lock().stop.is_none()
    }

    /// Counts items that a worker has completed. Returns the number of workers to start.
    pub(crate) fn complete(&self, fate: Fate, items: u64) -> usize {
        self.lock().complete(fate, items)
    }

    pub(crate) fn count_retry(&self) {
        self.lock().retries += 1;
    }

    /// Keeps the text of an error, if it is the first.
    pub(crate) fn note_error(&self, error: String) {
        self.lock().first_error.get_or_insert(error);
    }

    /// Notes that the source panicked, and makes no more items.
    pub(crate) fn note_broken_source(&self, panic: &str) {
        let mut state = self.lock();
        state.is_source_broken = true;
        let text = bounded(&format_args!("the source panicked: {panic}"));
        state.first_error.get_or_insert(text);
    }

    /// Stops the task: from now on no worker takes an item, and no sender sends one.
    pub(crate) fn stop(&self, why: Stop) {
        let mut state = self.lock();
        if state.phase < Phase::Over && state.stop.is_none() {
            state.stop = Some(why);
            self.permit.revoke();
            state.stop_signal = None;
            state.wake_all();
            self.space.notify_all();
        }
    }

    /// Removes what waits in a stopped task, and counts it as cancelled. The caller drops it without the lock.
    pub(crate) fn clear(&self) -> VecDeque<Waiting<T>> {
        let mut state = self.lock();
        if state.stop.is_none() {
            return VecDeque::new();
        }
        state.cancelled += state.queue.len() as u64;
        std::mem::take(&mut state.queue)
    }

    /// Returns how many items were sent.
    pub(crate) fn sent(&self) -> u64 {
        self.lock().sent
    }

    /// Removes so many workers, which could not be started, from the count.
    pub(crate) fn unhire(&self, workers: usize) {
        self.lock().hired -= workers;
    }

    /// Counts so many workers out. Returns whether none is left.
    pub(crate) fn dismiss(&self, workers: usize) -> bool {
        let mut state = self.lock();
        state.workers -= workers;
        state.workers == 0
    }

    /// Ends the task after its last worker. Returns the account to report.
    pub(crate) fn end(&self) -> Summary {
        let mut state = self.lock();
        state.phase = Phase::Over;
        state.ended = Some(state.clock.now());
        // Where no worker could be started, nobody has stopped the task, and its source may wait.
        state.stop_signal = None;
        state.wake_all();
        self.space.notify_all();
        state.summary()
    }

    /// Removes and returns the place to report the end. Returns `None` if that was done before: see `give_up`.
    pub(crate) fn take_report(&self) -> Option<Report> {
        self.lock().report.take()
    }
}

/// State of a task, without the type of its items.
pub(crate) trait Control: Send + Sync {
    fn summary(&self) -> Summary;

    /// Returns whether the calling thread is a worker of this task.
    fn is_here(&self) -> bool;

    /// Reports the end of a task that is stopped, and whose handlers do not return.
    fn give_up(&self);

    /// Suppresses the report of the end.
    fn disown(&self);
}

impl<T: Send + 'static> Control for Shared<T> {
    fn summary(&self) -> Summary {
        if self.is_left() { State::<T>::new().summary() } else { self.lock().summary() }
    }

    fn is_here(&self) -> bool {
        sync::is_worker_of(self.address())
    }

    fn give_up(&self) {
        let items = self.clear();
        let (summary, report) = {
            let mut state = self.lock();
            (state.summary(), state.report.take())
        };
        report.iter().for_each(|report| report.send(&summary));
        // Destructors take their time, and so does the last handle of a collector. Where there is no thread for them, they go here.
        if !items.is_empty() || report.is_some() {
            let _ = sync::spawn(THREAD, None, move || drop((drop_each(items), report)));
        }
    }

    fn disown(&self) {
        drop(self.take_report());
    }
}

impl<T: Send> Listener for Shared<T> {
    fn on_cancel(&self) {
        if !self.is_left() {
            self.stop(Stop::Cancelled);
        }
    }
}
