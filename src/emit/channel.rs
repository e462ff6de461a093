//! The state of a task: the bounded channel, who works on it, and the account.
//!
//! One lock guards all of it, and no foreign code runs under it: an item is dropped, a waker woken and a handler called
//! without. So whatever is asked ("is an item left, and may I have it?") is asked and answered in one step, and *begun*
//! means: taken under this lock, while nobody had stopped the task. Handlers take microseconds and more; the lock takes a
//! hundredth of that. A lock-free queue was rejected: it would hold the items, and not the answer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::cancel::Listener;
use super::sender::{SendError, SendRefusal};
use super::strategy::{Plan, Strategy};
use super::summary::{Summary, TaskOutcome};
use crate::clock::Clock;
use crate::sync::{self, Condvar, Mutex, MutexGuard, Unparker};

/// Shared by senders, workers, the source thread, the task and its token.
pub(super) struct Shared<T> {
    state: Mutex<State<T>>,
    /// Senders that wait for room.
    room: Condvar,
}

/// An item that waits.
pub(super) struct Waiting<T> {
    item: T,
    since: Instant,
}

/// Why no more items are taken, although there may be some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    Cancelled,
    Failed,
}

/// From left to right, each once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// A chain that is still put together. Items wait.
    Building,
    Running,
    /// The last worker has left, or none was ever hired.
    Over,
}

pub(super) struct State<T> {
    queue: VecDeque<Waiting<T>>,
    pub(super) capacity: usize,
    /// How many items are taken in at most.
    pub(super) most: u64,
    senders: usize,
    pub(super) phase: Phase,
    /// Set once.
    stop: Option<Stop>,
    pub(super) plan: Plan,
    pub(super) clock: Clock,
    begun: Option<Instant>,
    ended: Option<Instant>,
    /// Those of all workers, by their number, and of the source.
    bells: Vec<Unparker>,
    /// The numbers of workers that sleep and were not woken yet.
    idle: Vec<usize>,
    /// Workers that were ever hired.
    pub(super) hired: usize,
    /// Those of them that have not left.
    workers: usize,
    /// Items that workers have: one each, or the one worker has a batch.
    in_flight: u64,
    sent: u64,
    handled: u64,
    failed: u64,
    cancelled: u64,
    retries: u64,
    first_error: Option<String>,
    is_source_broken: bool,
    /// Gone once the final event was told.
    pub(super) report: Option<Report>,
}

/// Tells the final event.
pub(super) type Report = Box<dyn FnOnce(&Summary) + Send>;

/// What became of items that a worker had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Handled,
    Failed,
    /// No handler saw them.
    Cancelled,
}

/// How long a sender waits for room.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wait {
    No,
    Until(Option<Instant>),
}

/// What a worker finds.
enum Look {
    Take(usize),
    Wait(Option<Instant>),
    Leave,
}

/// What a worker gets: items that follow each other.
pub(super) enum Turn {
    /// The number of the first.
    Work(u64),
    Sleep(Option<Instant>),
    Leave,
}

impl<T> State<T> {
    fn is_closed(&self) -> bool {
        self.senders == 0 || self.sent >= self.most
    }

    fn is_wanted(&self) -> bool {
        self.stop.is_none() && self.phase < Phase::Over && self.sent < self.most
    }

    fn ring_all(&mut self) {
        self.idle.clear();
        self.bells.iter().for_each(Unparker::unpark);
    }

    /// Has somebody look. Where nobody may take an item, those that have one will look when they are done with it.
    fn ring_one(&mut self) {
        if self.in_flight >= self.plan.limit as u64 {
            return;
        }
        if let Some(bell) = self.idle.pop().and_then(|worker| self.bells.get(worker)) {
            bell.unpark();
        }
    }

    fn look(&mut self) -> Look {
        if self.stop.is_some() {
            return Look::Leave;
        }
        let Some(oldest) = self.queue.front().map(|waiting| waiting.since) else {
            return if self.is_closed() { Look::Leave } else { Look::Wait(None) };
        };
        if self.in_flight >= self.plan.limit as u64 {
            return Look::Wait(None);
        }
        let now = self.clock.now();
        let waiting = self.queue.len();
        if waiting < self.plan.size.min(self.capacity) && !self.is_closed() {
            match oldest.checked_add(self.plan.max_delay) {
                Some(due) if due <= now => {}
                due => return Look::Wait(due),
            }
        }
        if let (Some(pace), Some(begun)) = (&mut self.plan.pace, self.begun)
            && let Err(wait) = pace.take(now.saturating_duration_since(begun))
        {
            return Look::Wait(now.checked_add(wait));
        }
        Look::Take(waiting.min(self.plan.size))
    }

    /// The account at this moment.
    fn summary(&self) -> Summary {
        let outcome = match (self.phase, self.stop) {
            (_, Some(Stop::Cancelled)) => TaskOutcome::Cancelled,
            (_, Some(Stop::Failed)) => TaskOutcome::Failed,
            (Phase::Over, None) if self.is_source_broken => TaskOutcome::Failed,
            (Phase::Over, None) => TaskOutcome::Completed,
            (Phase::Building | Phase::Running, None) => TaskOutcome::Running,
        };
        let elapsed = self.begun.map(|begun| {
            let end = self.ended.unwrap_or_else(|| self.clock.now());
            end.saturating_duration_since(begun)
        });
        Summary {
            outcome,
            sent: self.sent,
            handled: self.handled,
            failed: self.failed,
            cancelled: self.cancelled,
            left: self.queue.len() as u64 + self.in_flight,
            retries: self.retries,
            workers: self.plan.limit,
            elapsed: elapsed.unwrap_or_default(),
            first_error: self.first_error.clone(),
        }
    }
}

impl<T> Shared<T> {
    pub(super) fn new() -> Self {
        let state = State {
            queue: VecDeque::new(),
            capacity: 64,
            most: u64::MAX,
            senders: 0,
            phase: Phase::Building,
            stop: None,
            plan: Strategy::Serial.plan(),
            clock: Clock::System,
            begun: None,
            ended: None,
            bells: Vec::new(),
            idle: Vec::new(),
            hired: 0,
            workers: 0,
            in_flight: 0,
            sent: 0,
            handled: 0,
            failed: 0,
            cancelled: 0,
            retries: 0,
            first_error: None,
            is_source_broken: false,
            report: None,
        };
        Self { state: Mutex::new(state), room: Condvar::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock()
    }

    /// Under which the threads of this task are known (`sync::WorkerMark`).
    pub(super) fn address(&self) -> usize {
        std::ptr::from_ref(self) as usize
    }

    pub(super) fn enter(&self) {
        self.lock().senders += 1;
    }

    pub(super) fn leave(&self) {
        let mut state = self.lock();
        state.senders -= 1;
        if state.is_closed() {
            state.ring_all();
        }
    }

    /// Ends what was never begun.
    pub(super) fn abandon(&self) {
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
        let mut state = self.lock();
        while state.is_wanted() && state.queue.len() >= state.capacity {
            // Who works here would wait for itself.
            let has_time = !sync::is_worker_of(self.address());
            let is_late = match wait {
                Wait::Until(deadline) if has_time => self.room.wait_until(&mut state, deadline),
                Wait::Until(_) | Wait::No => true,
            };
            if is_late && state.is_wanted() && state.queue.len() >= state.capacity {
                return Err(SendError { item, reason: SendRefusal::Full });
            }
        }
        if !state.is_wanted() {
            return Err(SendError { item, reason: SendRefusal::Closed });
        }
        let since = state.clock.now();
        state.queue.push_back(Waiting { item, since });
        state.sent += 1;
        let waiting = state.queue.len();
        if state.is_closed() {
            state.ring_all();
            self.room.notify_all();
        } else if waiting == 1 || waiting >= state.plan.size.min(state.capacity) {
            // The first of a batch sets its time, the last completes it.
            state.ring_one();
        }
        Ok(())
    }

    /// Has who waits for room look again: the bounds have changed.
    pub(super) fn change_bounds(&self, change: impl FnOnce(&mut State<T>)) {
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
        self.lock().is_wanted()
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

    /// What the worker does next; its items go into `items`, which is empty.
    pub(super) fn turn(&self, worker: usize, items: &mut Vec<T>) -> Turn {
        let mut state = self.lock();
        // Who was woken by time still stands there.
        state.idle.retain(|idle| *idle != worker);
        match state.look() {
            Look::Leave => Turn::Leave,
            Look::Wait(until) => {
                state.idle.push(worker);
                Turn::Sleep(until)
            }
            Look::Take(count) => {
                let first = state.sent - state.queue.len() as u64;
                items.extend(state.queue.drain(..count).map(|waiting| waiting.item));
                state.in_flight += count as u64;
                self.room.notify_all();
                if state.queue.is_empty() && state.is_closed() {
                    state.ring_all();
                }
                Turn::Work(first)
            }
        }
    }

    /// Whether nobody has stopped the task.
    pub(super) fn goes_on(&self) -> bool {
        self.lock().stop.is_none()
    }

    /// Accounts for items that a worker has done with. The number of workers to hire.
    pub(super) fn settle(&self, fate: Fate, items: u64) -> usize {
        let mut state = self.lock();
        state.in_flight -= items;
        let counter = match fate {
            Fate::Handled => &mut state.handled,
            Fate::Failed => &mut state.failed,
            Fate::Cancelled => &mut state.cancelled,
        };
        *counter += items;
        let (now, begun) = (state.clock.now(), state.begun);
        let now = begun.map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun));
        let controller = state.plan.controller.as_mut().filter(|_| fate != Fate::Cancelled);
        let Some(limit) = controller.and_then(|controller| controller.completed(now)) else { return 0 };
        state.plan.limit = limit;
        state.ring_all();
        let more = limit.saturating_sub(state.hired);
        state.hired += more;
        state.workers += more;
        more
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
        state.first_error.get_or_insert(format!("the source panicked: {panic}"));
    }

    /// Lets no worker take another item, and no sender send one.
    pub(super) fn stop(&self, why: Stop) {
        let mut state = self.lock();
        if state.phase < Phase::Over && state.stop.is_none() {
            state.stop = Some(why);
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

    /// So many workers leave. Whether nobody is left.
    pub(super) fn dismiss(&self, workers: usize) -> bool {
        let mut state = self.lock();
        state.workers -= workers;
        state.workers == 0
    }

    /// The last worker has left. What is told of it, and to whom, if nobody told it before: see `give_up`.
    pub(super) fn end(&self) -> (Summary, Option<Report>) {
        let mut state = self.lock();
        state.phase = Phase::Over;
        state.ended = Some(state.clock.now());
        self.room.notify_all();
        (state.summary(), state.report.take())
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

impl<T: Send> Control for Shared<T> {
    fn summary(&self) -> Summary {
        self.lock().summary()
    }

    fn is_here(&self) -> bool {
        sync::is_worker_of(self.address())
    }

    fn give_up(&self) {
        drop_each(self.clear());
        let mut state = self.lock();
        let (summary, report) = (state.summary(), state.report.take());
        drop(state);
        report.into_iter().for_each(|report| report(&summary));
    }

    fn disown(&self) {
        let report = self.lock().report.take();
        drop(report);
    }
}

impl<T: Send> Listener for Shared<T> {
    fn on_cancel(&self) {
        self.stop(Stop::Cancelled);
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
