//! The state of a task: the bounded channel, who works on it, and the account.
//!
//! One lock guards all of it, and no foreign code runs under it: an item is dropped, a waker woken and a handler called
//! without. So whatever is asked ("is an item left, and may I have it?") is asked and answered in one step, and *begun*
//! means: taken under this lock, while nobody had stopped the task. Handlers take microseconds and more; the lock takes a
//! hundredth of that. A lock-free queue was rejected: it would hold the items, and not the answer.
//!
//! Between the lock and the call of the handler somebody may stop the task. So the last step before the call asks the permit
//! (`permit.rs`), which a stop revokes: an item that was taken and not begun is cancelled.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::cancel::Listener;
use super::sender::{SendError, SendRefusal};
use super::state::{Fate, Feeding, Phase, Report, State, Stop, Taken, Turn, Waiting, bounded};
use super::summary::Summary;
use super::worker::THREAD;
use crate::permit::Permit;
use crate::sync::{self, Arc, Condvar, Home, Mutex, MutexGuard, Unparker};
use crate::wake::deadline_in;

/// Shared by senders, workers, the source thread, the task and its token.
pub(super) struct Shared<T> {
    state: Mutex<State<T>>,
    home: Home,
    /// Senders that wait for room.
    room: Condvar,
    /// Rung when the thread of the source has let go of it.
    source_gone: Condvar,
    /// To call the handler and the source; revoked when the task is stopped.
    pub(super) permit: Permit,
}

/// How long the end of a task that was stopped waits for a call of its source. Most calls return at once; one that blocks, as
/// that of a receiver, must not hold up the end.
const SOURCE_GRACE: Duration = Duration::from_millis(100);

/// How long the end of a task waits for the thread of its source outside of such a call: for destructors of the source and of
/// items that came too late. Most return within a second. One that waits for somebody else may never return.
const DESTRUCTOR_GRACE: Duration = Duration::from_secs(3);

/// How long a sender waits for room.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wait {
    No,
    Until(Option<Instant>),
}

impl<T> Shared<T> {
    pub(super) fn new() -> Self {
        let (room, source_gone) = (Condvar::new(), Condvar::new());
        Self { state: Mutex::new(State::new()), home: Home::here(), room, source_gone, permit: Permit::new() }
    }

    /// Whether this is a forked child, and nothing of it may be touched.
    pub(super) fn is_left(&self) -> bool {
        self.home.is_left()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock()
    }

    /// Under which the threads of this task are known (`sync::WorkerMark`).
    pub(super) fn address(&self) -> usize {
        std::ptr::from_ref(self) as usize
    }

    pub(super) fn enter(&self) {
        if !self.is_left() {
            self.lock().senders += 1;
        }
    }

    pub(super) fn leave(self: &Arc<Self>) {
        if self.is_left() {
            return std::mem::forget(Arc::clone(self));
        }
        let mut state = self.lock();
        state.senders -= 1;
        if state.is_closed() {
            state.ring_all();
        }
    }

    /// Ends what was never begun.
    pub(super) fn abandon(self: &Arc<Self>) {
        if self.is_left() {
            return std::mem::forget(Arc::clone(self));
        }
        let mut state = self.lock();
        if state.phase > Phase::Building {
            return;
        }
        state.stop = Some(Stop::Cancelled);
        state.phase = Phase::Over;
        let report = state.report.take();
        self.room.notify_all();
        drop(state);
        drop(report);
        drop_each(self.clear());
    }

    /// Takes an item in, as soon as there is room; gives it back when there is none by the deadline, or it is not wanted.
    pub(super) fn put(&self, item: T, wait: Wait) -> Result<(), SendError<T>> {
        if self.is_left() {
            return Err(SendError { item, reason: SendRefusal::Forked });
        }
        let mut state = self.lock();
        if state.feeding == Feeding::Asking {
            // A source has no other sender beside its thread.
            state.feeding = Feeding::Sending;
        }
        while state.is_wanted() && state.is_full() {
            // Who works here would wait for itself.
            let has_time = !sync::is_worker_of(self.address());
            let is_late = match wait {
                Wait::Until(deadline) if has_time => self.room.wait_until(&mut state, deadline),
                Wait::Until(_) | Wait::No => true,
            };
            if is_late && state.is_wanted() && state.is_full() {
                return Err(SendError { item, reason: SendRefusal::Full });
            }
        }
        if !state.is_wanted() {
            return Err(SendError { item, reason: SendRefusal::Closed });
        }
        let before = state.supersede();
        let since = state.clock.now();
        state.queue.push_back(Waiting { item, since });
        state.sent += 1;
        let waiting = state.queue.len();
        if state.is_closed() {
            state.ring_all();
            self.room.notify_all();
        } else if !before.is_empty() {
            // Somebody waits already, and will see that it takes longer.
        } else if waiting == 1 || waiting >= state.plan.size.min(state.capacity) {
            // The first of a batch sets its time, the last completes it.
            state.ring_one();
        }
        drop(state);
        drop_each(before);
        Ok(())
    }

    /// Has one item alone wait, for so long after the last.
    pub(super) fn debounce(&self, quiet: Duration) {
        if self.is_left() {
            return;
        }
        let mut state = self.lock();
        state.quiet = Some(quiet);
        let last = state.queue.pop_back();
        let before = state.supersede();
        state.queue.extend(last);
        drop(state);
        self.room.notify_all();
        drop_each(before);
    }

    /// Has who waits for room look again: the bounds have changed.
    pub(super) fn change_bounds(&self, change: impl FnOnce(&mut State<T>)) {
        if self.is_left() {
            return;
        }
        let mut state = self.lock();
        change(&mut state);
        // Those that wait go by the clock of the task from now on.
        let now = state.clock.now();
        state.queue.iter_mut().for_each(|waiting| waiting.since = now);
        drop(state);
        self.room.notify_all();
    }

    /// Whether another item would be taken in, if there were room.
    pub(super) fn is_wanted(&self) -> bool {
        !self.is_left() && self.lock().is_wanted()
    }

    /// Whether the source is to be asked for another item.
    pub(super) fn ask_source(&self) -> bool {
        if self.is_left() {
            return false;
        }
        let mut state = self.lock();
        let is_wanted = state.is_wanted();
        state.feeding = if is_wanted { Feeding::Asking } else { Feeding::Sending };
        is_wanted
    }

    /// Tells where the thread of the source is.
    pub(super) fn set_feeding(&self, feeding: Feeding) {
        if self.is_left() {
            return;
        }
        self.lock().feeding = feeding;
        if feeding == Feeding::Over {
            self.source_gone.notify_all();
        }
    }

    /// Waits until the thread of the source has let go of it. A source that is in a call is waited for briefly: the task was
    /// stopped then, and the call may block for ever. So may a destructor, which is waited for longer.
    pub(super) fn await_source(&self) {
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

    /// Begins, with so many workers to be hired.
    pub(super) fn begin(&self, workers: usize) {
        let mut state = self.lock();
        state.phase = Phase::Running;
        state.begun = Some(state.clock.now());
        (state.hired, state.workers) = (workers, workers);
    }

    /// Takes the bell of a thread; who rings all rings it as well. Its number.
    pub(super) fn hang_up(&self, bell: &Unparker) -> usize {
        let mut state = self.lock();
        state.clock.tell(bell);
        state.bells.push(bell.clone());
        state.bells.len() - 1
    }

    /// What the worker does next; its items go into `taken`, which is empty.
    pub(super) fn turn(&self, worker: usize, taken: &mut Taken<T>) -> Turn {
        let turn = self.lock().turn(worker, taken);
        if let Turn::Work(_) = turn {
            self.room.notify_all();
        }
        turn
    }

    /// Whether nobody has stopped the task. Says nothing of a call that comes later: see `permit`.
    pub(super) fn goes_on(&self) -> bool {
        self.lock().stop.is_none()
    }

    /// Accounts for items that a worker has done with. The number of workers to hire.
    pub(super) fn settle(&self, fate: Fate, items: u64) -> usize {
        self.lock().settle(fate, items)
    }

    pub(super) fn count_retry(&self) {
        self.lock().retries += 1;
    }

    /// The first is kept.
    pub(super) fn note_error(&self, error: String) {
        self.lock().first_error.get_or_insert(error);
    }

    /// The source will make no more items, and should have.
    pub(super) fn note_broken_source(&self, panic: &str) {
        let mut state = self.lock();
        state.is_source_broken = true;
        let text = bounded(&format_args!("the source panicked: {panic}"));
        state.first_error.get_or_insert(text);
    }

    /// Lets no worker take another item, and no sender send one.
    pub(super) fn stop(&self, why: Stop) {
        let mut state = self.lock();
        if state.phase < Phase::Over && state.stop.is_none() {
            state.stop = Some(why);
            self.permit.revoke();
            state.ring_all();
            self.room.notify_all();
        }
    }

    /// Takes out what waits in a task that was stopped, and counts it as cancelled. To be dropped without the lock.
    pub(super) fn clear(&self) -> VecDeque<Waiting<T>> {
        let mut state = self.lock();
        if state.stop.is_none() {
            return VecDeque::new();
        }
        state.cancelled += state.queue.len() as u64;
        std::mem::take(&mut state.queue)
    }

    /// How many items were sent.
    pub(super) fn sent(&self) -> u64 {
        self.lock().sent
    }

    /// So many were never there.
    pub(super) fn unhire(&self, workers: usize) {
        self.lock().hired -= workers;
    }

    /// So many workers leave. Whether nobody is left.
    pub(super) fn dismiss(&self, workers: usize) -> bool {
        let mut state = self.lock();
        state.workers -= workers;
        state.workers == 0
    }

    /// The last worker has left: the account that is told of it.
    pub(super) fn end(&self) -> Summary {
        let mut state = self.lock();
        state.phase = Phase::Over;
        state.ended = Some(state.clock.now());
        self.room.notify_all();
        state.summary()
    }

    /// Whom to tell, if nobody told him before: see `give_up`.
    pub(super) fn take_report(&self) -> Option<Report> {
        self.lock().report.take()
    }
}

/// What a task knows of its state, whatever its items are.
pub(super) trait Control: Send + Sync {
    fn summary(&self) -> Summary;

    /// Whether the calling thread is a worker of this task.
    fn is_here(&self) -> bool;

    /// Tells the end of a task that is stopped, and whose handlers do not return.
    fn give_up(&self);

    /// Tells nobody of the end.
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
        report.iter().for_each(|report| report.tell(&summary));
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

/// Drops what is foreign; a panic of its destructor ends here.
pub(super) fn drop_quietly<X>(foreign: X) {
    let _ = sync::guarded(|| drop(foreign));
}

/// The same for each of many.
pub(super) fn drop_each<X>(foreign: impl IntoIterator<Item = X>) {
    foreign.into_iter().for_each(drop_quietly);
}
