//! What the threads of a task do.

use std::error::Error;
use std::io;
use std::time::Duration;

use super::cancel::CancelToken;
use super::channel::{Shared, drop_each, drop_quietly};
use super::gather::Gather;
use super::policy::{Decision, ErrorPolicy, Failure};
use super::sender::Sender;
use super::source::{Seat, Source};
use super::state::{Fate, Stop, Turn, bounded};
use super::task::{Final, Slot};
use crate::clock::Clock;
use crate::sync::{self, Arc, Mutex, Parker, WorkerMark, guarded};

/// The name of every thread of a task.
pub(super) const THREAD: &str = "forebay-emit";

/// What all workers of a task share.
pub(super) struct Job<T, R, O> {
    pub(super) shared: Arc<Shared<T>>,
    /// Every worker has a handle of them, and lets it go before it leaves; this one is taken by the last.
    pub(super) tools: Mutex<Option<Arc<Tools<T, R>>>>,
    /// Taken by the last worker.
    pub(super) gather: Mutex<Option<Gather<R, O>>>,
    pub(super) slot: Arc<Slot<O>>,
    pub(super) clock: Clock,
    /// It hears of a cancellation for as long as somebody works, whoever else has let it go.
    pub(super) _token: CancelToken,
}

/// What is foreign, and called.
pub(super) struct Tools<T, R> {
    pub(super) work: Work<T, R>,
    pub(super) policy: ErrorPolicy,
}

/// The handler.
pub(super) enum Work<T, R> {
    /// Of one item.
    Item(Handler<T, R>),
    /// Of all items that a worker takes at once.
    Batch(Handler<[T], R>),
}

type Handler<T, R> = Box<dyn Fn(&T) -> Result<R, BoxedError> + Send + Sync>;

type BoxedError = Box<dyn Error + Send + Sync>;

impl<T, R, O> Job<T, R, O>
where
    T: Send + 'static,
    R: Send + 'static,
    O: Send + 'static,
{
    /// Starts workers that are counted already. With the error, how many it could not start: they have to depart.
    pub(super) fn hire(self: &Arc<Self>, workers: usize) -> Result<(), (usize, io::Error)> {
        for hired in 0..workers {
            let job = Arc::clone(self);
            sync::spawn(THREAD, None, move || job.run()).map_err(|error| (workers - hired, error))?;
        }
        Ok(())
    }

    fn run(self: Arc<Self>) {
        let mark = WorkerMark::set(self.shared.address());
        let (parker, bell) = Parker::new();
        let number = self.shared.hang_up(&bell);
        let (tools, mut items) = (self.tools.lock().clone(), Vec::new());
        // All foreign code is guarded by itself; this is for a bug of ours, so that the task has an end.
        let _ = guarded(|| {
            while let Some(tools) = &tools {
                match self.shared.turn(number, &mut items) {
                    Turn::Work(first) => self.handle(tools, first, &mut items, &parker),
                    Turn::Hire(workers) => self.hire_more(workers),
                    Turn::Sleep(until) => self.clock.park(&parker, until),
                    Turn::Leave => break,
                }
            }
        });
        drop_quietly(tools);
        self.depart(1);
        drop(mark);
    }

    /// Handles what a worker has taken, and drops it.
    fn handle(self: &Arc<Self>, tools: &Tools<T, R>, first: u64, items: &mut Vec<T>, parker: &Parker) {
        let policy = &tools.policy;
        match &tools.work {
            Work::Item(handler) => {
                for (number, item) in (first..).zip(items.drain(..)) {
                    // The first was begun when it was taken.
                    let fate = if number == first || self.shared.goes_on() {
                        self.attempt(policy, number, parker, || handler(&item))
                    } else {
                        Fate::Cancelled
                    };
                    drop_quietly(item);
                    self.settle(fate, 1);
                }
            }
            Work::Batch(handler) => {
                let fate = self.attempt(policy, first, parker, || handler(items));
                let count = items.len() as u64;
                drop_each(items.drain(..));
                self.settle(fate, count);
            }
        }
    }

    fn settle(self: &Arc<Self>, fate: Fate, items: u64) {
        self.hire_more(self.shared.settle(fate, items));
    }

    fn hire_more(self: &Arc<Self>, workers: usize) {
        if let Err((missing, _)) = self.hire(workers) {
            // Fewer than would be right: those that there are go on.
            self.depart(missing);
        }
    }

    /// Calls the handler, as often as the policy says.
    fn attempt(
        &self,
        policy: &ErrorPolicy,
        number: u64,
        parker: &Parker,
        mut work: impl FnMut() -> Result<R, BoxedError>,
    ) -> Fate {
        let mut retries = 0;
        loop {
            let failure = match guarded(&mut work) {
                Ok(Ok(result)) => match self.gather(number, result) {
                    Ok(()) => return Fate::Handled,
                    Err(panic) => Failure::Gather(panic),
                },
                Ok(Err(error)) => Failure::Error(error),
                Err(panic) => Failure::Panic(panic),
            };
            let decision = policy.decide(&failure, retries);
            if let Decision::Retry { after } = decision
                && self.pause(after, parker)
            {
                drop_quietly(failure);
                retries += 1;
                self.shared.count_retry();
                continue;
            }
            let text = guarded(|| bounded(&failure));
            drop_quietly(failure);
            self.shared.note_error(
                text.unwrap_or_else(|panic| bounded(&format_args!("an error that panics: {panic}"))),
            );
            if decision == Decision::Stop {
                self.shared.stop(Stop::Failed);
            }
            return Fate::Failed;
        }
    }

    /// Hands a result over; the error is the text of a panic.
    fn gather(&self, number: u64, result: R) -> Result<(), String> {
        let mut gather = self.gather.lock();
        guarded(|| {
            if let Some(gather) = &mut *gather {
                gather.add(number, result);
            }
        })
    }

    /// Waits before another attempt; whether there should be one.
    fn pause(&self, after: Duration, parker: &Parker) -> bool {
        let due = self.clock.now().checked_add(after);
        while self.shared.goes_on() {
            if due.is_some_and(|due| self.clock.now() >= due) {
                return true;
            }
            self.clock.park(parker, due);
        }
        false
    }

    /// So many workers leave, the last of whom tells the end.
    pub(super) fn depart(&self, workers: usize) {
        if !self.shared.dismiss(workers) {
            return;
        }
        drop_each(self.shared.clear());
        let gather = self.gather.lock().take();
        let results = gather.and_then(|gather| guarded(|| gather.finish()).ok());
        let summary = self.shared.end();
        // The others have let go of theirs: with this go handler and policy, and what they captured.
        let tools = self.tools.lock().take();
        drop_quietly(tools);
        let report = self.shared.take_report();
        // Before whoever waits is told, so that it is there by then.
        report.iter().for_each(|report| report.tell(&summary));
        results.into_iter().for_each(|results| self.slot.tell(Final { summary: summary.clone(), results }));
        // It may be the last handle of a collector that takes its time to stop.
        drop(report);
    }
}

/// Starts the thread that sends what a source makes.
pub(super) fn feed<T: Send + 'static>(shared: &Arc<Shared<T>>, mut source: Source<T>) -> io::Result<()> {
    let (shared, sender) = (Arc::clone(shared), Sender::new(shared));
    sync::spawn(THREAD, None, move || {
        let (parker, bell) = Parker::new();
        shared.hang_up(&bell);
        let clock = shared.lock().clock.clone();
        let is_wanted = || shared.is_wanted();
        let seat = Seat { clock: &clock, parker: &parker, bell: &bell, is_wanted: &is_wanted };
        while shared.is_wanted() {
            match guarded(|| source(&seat)) {
                Ok(Some(item)) => drop_quietly(sender.send(item)),
                Ok(None) => break,
                Err(panic) => {
                    shared.note_broken_source(&panic);
                    break;
                }
            }
        }
        drop(sender);
        drop_quietly(source);
    })
    .map(drop)
}
