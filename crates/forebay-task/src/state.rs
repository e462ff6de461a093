//! State under the lock of a task: items, workers, account, and the decision of who takes what.
//!
//! Nothing here locks, waits or calls user code.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::{self, Write as _};
use std::time::{Duration, Instant};

use forebay::{Name, Record};
use forebay_sync::clock::Clock;
use forebay_sync::sync::{Unparker, catch_panic};

use crate::adaptive::{Controller, Load};
use crate::strategy::{Plan, Strategy};
use crate::summary::{Summary, TaskOutcome};

/// Waiting item.
pub(crate) struct Waiting<T> {
    pub(crate) item: T,
    pub(crate) since: Instant,
}

/// Reason why no more items are taken, although there may be some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    Cancelled,
    Failed,
}

/// State of the thread of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feeding {
    /// The worker is in a call of the source, which may block for ever.
    Asking,
    /// The worker is in our own code, which does not block, or in the destructor of an item or of the source, which may.
    Sending,
    /// The thread has released the source, or there is none.
    Over,
}

/// Phase of a task. It goes forward only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// The pipeline is not started. Items wait.
    Building,
    Running,
    /// The last worker has left, or none was ever hired.
    Over,
}

pub(crate) struct State<T> {
    pub(crate) queue: VecDeque<Waiting<T>>,
    pub(crate) capacity: usize,
    /// The time without another item after which one is taken. The channel then holds at most one item, and the next
    /// replaces it.
    pub(crate) quiet: Option<Duration>,
    /// True if items are reported, and their times matter.
    pub(crate) is_observed: bool,
    /// The number of items that are taken in at most.
    pub(crate) max_items: u64,
    pub(crate) senders: usize,
    pub(crate) phase: Phase,
    /// Set once.
    pub(crate) stop: Option<Stop>,
    pub(crate) plan: Plan,
    pub(crate) clock: Clock,
    pub(crate) begun: Option<Instant>,
    pub(crate) ended: Option<Instant>,
    /// The unparkers of all workers, by their number, and of the source.
    pub(crate) unparkers: Vec<Unparker>,
    /// The numbers of workers that sleep and were not woken yet.
    pub(crate) idle: Vec<usize>,
    /// The sleeping worker that is woken by time, for all, and when. It looks by then, and makes sure that another
    /// one does if it has an item itself. A worker that has to look sooner replaces it.
    pub(crate) keeper: Option<(usize, Instant)>,
    /// Workers that were ever hired.
    pub(crate) hired: usize,
    /// Those of them that have not left.
    pub(crate) workers: usize,
    /// Items that workers have: one each, or the one worker has a batch.
    pub(crate) in_flight: u64,
    pub(crate) sent: u64,
    pub(crate) handled: u64,
    pub(crate) failed: u64,
    pub(crate) cancelled: u64,
    pub(crate) evicted: u64,
    pub(crate) retries: u64,
    pub(crate) first_error: Option<String>,
    pub(crate) is_source_broken: bool,
    pub(crate) feeding: Feeding,
    /// Dropped when the task is stopped or over, which wakes a source that waits for a receiver. `None` without a source.
    pub(crate) stop_signal: Option<crossbeam_channel::Sender<Infallible>>,
    /// Taken by the thread that reports the final event.
    pub(crate) report: Option<Report>,
}

/// Function that collects the final event. It holds a handle of its collector, of whatever events.
pub(crate) type Collect = Box<dyn Fn(Record) + Send>;

/// Place and name of the final event.
pub(crate) struct Report {
    pub(crate) collect: Collect,
    pub(crate) name: Name,
}

impl Report {
    /// Collects the final event. To make it, and to evict another for it, runs code of the user's events: a panic of that must not keep
    /// the task from its end.
    pub(crate) fn send(&self, summary: &Summary) {
        let _ = catch_panic(|| (self.collect)(summary.record(self.name.clone())));
    }
}

/// Bytes that are kept of the text of an error, at most.
const MAX_TEXT: usize = 1_000;

/// Text of at most `MAX_TEXT` bytes.
struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let space = MAX_TEXT - self.0.len();
        if text.len() <= space {
            self.0.push_str(text);
            return Ok(());
        }
        let end = (0..=space).rev().find(|end| text.is_char_boundary(*end));
        self.0.push_str(&text[..end.unwrap_or(0)]);
        Err(fmt::Error)
    }
}

/// Returns the text of a value, cut where it is too long.
pub(crate) fn bounded(text: &dyn fmt::Display) -> String {
    let mut kept = Bounded(String::new());
    let is_whole = write!(kept, "{text}").is_ok();
    kept.0.push_str(if is_whole { "" } else { "…" });
    kept.0
}

/// Fate of items that a worker had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Handled,
    Failed,
    /// No handler saw them.
    Cancelled,
}

/// Answer to a worker that looks for items.
enum Look {
    Take(usize),
    Wait(Option<Instant>),
    /// Look again, with so many more beside it.
    Hire(usize),
    Leave,
}

/// The items of a worker, and when they were sent, where items are observed.
pub(crate) struct Taken<T> {
    pub(crate) items: Vec<T>,
    pub(crate) created: Vec<Instant>,
}

/// What a worker does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NextStep {
    /// The number of the first.
    Work(u64),
    Sleep(Option<Instant>),
    /// The caller hires so many workers. They are counted already.
    Hire(usize),
    Leave,
}

impl<T> State<T> {
    pub(crate) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            capacity: 64,
            quiet: None,
            is_observed: false,
            max_items: u64::MAX,
            senders: 0,
            phase: Phase::Building,
            stop: None,
            plan: Strategy::Serial.plan(),
            clock: Clock::System,
            begun: None,
            ended: None,
            unparkers: Vec::new(),
            idle: Vec::new(),
            keeper: None,
            hired: 0,
            workers: 0,
            in_flight: 0,
            sent: 0,
            handled: 0,
            failed: 0,
            cancelled: 0,
            evicted: 0,
            retries: 0,
            first_error: None,
            is_source_broken: false,
            feeding: Feeding::Over,
            stop_signal: None,
            report: None,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.senders == 0 || self.sent >= self.max_items
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.stop.is_none() && self.phase < Phase::Over && self.sent < self.max_items
    }

    /// Returns whether an item has to wait for space.
    pub(crate) fn is_full(&self) -> bool {
        self.quiet.is_none() && self.queue.len() >= self.capacity
    }

    /// Evicts the items that the next one replaces. The caller drops them without the lock.
    pub(crate) fn evict(&mut self) -> VecDeque<Waiting<T>> {
        let before = if self.quiet.is_some() { std::mem::take(&mut self.queue) } else { VecDeque::new() };
        self.evicted += before.len() as u64;
        before
    }

    pub(crate) fn wake_all(&mut self) {
        self.idle.clear();
        self.unparkers.iter().for_each(Unparker::unpark);
    }

    /// Wakes a worker to look. If none may take an item, those that have one will look when they are done with it;
    /// but one has to watch that they ever are.
    pub(crate) fn wake_one(&mut self) {
        let is_full = self.in_flight >= self.plan.limit as u64;
        // No worker may take one before the next moment that the rate allows, and one waits for it already.
        let is_kept = self.keeper.is_some();
        if is_full && (is_kept || !self.can_stall()) || self.plan.pace.is_some() && is_kept {
            return;
        }
        let Some(worker) = self.idle.pop() else { return };
        if is_full {
            // It looks at once.
            self.keeper = Some((worker, self.clock.now()));
        }
        if let Some(unparker) = self.unparkers.get(worker) {
            unparker.unpark();
        }
    }

    /// Returns whether more workers might help where nothing is completed.
    fn can_stall(&self) -> bool {
        self.plan.controller.as_ref().is_some_and(Controller::has_more)
    }

    /// Returns the time since the start, which the controller uses.
    fn elapsed(&self) -> Duration {
        self.begun.map_or(Duration::ZERO, |begun| self.clock.now().saturating_duration_since(begun))
    }

    /// Sets how many workers may have items. Returns the number of workers to hire for it.
    fn set_limit(&mut self, limit: usize) -> usize {
        self.plan.limit = limit;
        self.wake_all();
        let more = self.plan.threads().saturating_sub(self.hired);
        self.hired += more;
        self.workers += more;
        more
    }

    /// Decides what to do where all that may have items have one, and others wait.
    fn watch(&mut self) -> Look {
        let now = self.elapsed();
        if self.keeper.is_some() || !self.can_stall() {
            return Look::Wait(None);
        }
        match self.plan.controller.as_mut().map(|controller| controller.watch(now)) {
            Some(Ok(limit)) => Look::Hire(self.set_limit(limit)),
            Some(Err(due)) => Look::Wait(self.begun.and_then(|begun| begun.checked_add(due))),
            None => Look::Wait(None),
        }
    }

    /// Counts items that a worker has completed. Returns the number of workers to start.
    pub(crate) fn complete(&mut self, fate: Fate, items: u64) -> usize {
        let busy = self.in_flight;
        self.in_flight -= items;
        let counter = match fate {
            Fate::Handled => &mut self.handled,
            Fate::Failed => &mut self.failed,
            Fate::Cancelled => &mut self.cancelled,
        };
        *counter += items;
        let load = Load { busy: busy as usize, is_behind: !self.queue.is_empty() };
        let now = self.elapsed();
        let controller = self.plan.controller.as_mut().filter(|_| fate != Fate::Cancelled);
        let limit = controller.and_then(|controller| controller.completed(now, load));
        limit.map_or(0, |limit| self.set_limit(limit))
    }

    fn look(&mut self) -> Look {
        if self.stop.is_some() {
            return Look::Leave;
        }
        let Some(oldest) = self.queue.front().map(|waiting| waiting.since) else {
            return if self.is_closed() { Look::Leave } else { Look::Wait(None) };
        };
        if self.in_flight >= self.plan.limit as u64 {
            return self.watch();
        }
        let now = self.clock.now();
        if let Some(quiet) = self.quiet.filter(|_| !self.is_closed()) {
            match oldest.checked_add(quiet) {
                Some(due) if due <= now => {}
                due => return Look::Wait(due),
            }
        }
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

    /// Decides what the worker does next. Its items go into `taken`, which is empty.
    pub(crate) fn next_step(&mut self, worker: usize, taken: &mut Taken<T>) -> NextStep {
        // A worker that was woken by time is still registered.
        self.idle.retain(|idle| *idle != worker);
        self.keeper = self.keeper.filter(|(keeper, _)| *keeper != worker);
        match self.look() {
            Look::Leave => NextStep::Leave,
            Look::Hire(workers) => NextStep::Hire(workers),
            Look::Wait(until) => {
                self.idle.push(worker);
                let until = until.filter(|until| self.keeper.is_none_or(|(_, due)| *until < due));
                self.keeper = until.map(|until| (worker, until)).or(self.keeper);
                NextStep::Sleep(until)
            }
            Look::Take(count) => {
                let first = self.sent - self.queue.len() as u64;
                if self.is_observed {
                    taken.created.extend(self.queue.iter().take(count).map(|waiting| waiting.since));
                }
                taken.items.extend(self.queue.drain(..count).map(|waiting| waiting.item));
                self.in_flight += count as u64;
                match self.queue.is_empty() {
                    true if self.is_closed() => self.wake_all(),
                    true => {}
                    false => self.wake_one(),
                }
                NextStep::Work(first)
            }
        }
    }

    /// Returns the account at this moment.
    pub(crate) fn summary(&self) -> Summary {
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
            evicted: self.evicted,
            retries: self.retries,
            workers: self.plan.limit,
            elapsed: elapsed.unwrap_or_default(),
            first_error: self.first_error.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
