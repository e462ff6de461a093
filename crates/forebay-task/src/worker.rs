//! Threads of a task: workers, and the thread of the source.

use std::error::Error;
use std::io;
use std::time::Duration;

use forebay_sync::clock::Clock;
use forebay_sync::sync::{self, Arc, Mutex, Parker, WorkerMark, catch_panic};

use crate::cancel::CancelToken;
use crate::channel::{Shared, THREAD};
use crate::item::ItemKind;
use crate::output::{Observer, Origin, Output};
use crate::policy::{Decision, ErrorPolicy, Failure};
use crate::sender::Sender;
use crate::source::{Source, SourceContext};
use crate::state::{Fate, Feeding, NextStep, Stop, Taken, bounded};
use crate::task::{Final, Promise};
use crate::user_code::{drop_each, drop_quietly};

/// State that all workers of a task share.
pub(crate) struct Job<T, R, O> {
    pub(crate) shared: Arc<Shared<T>>,
    /// Every worker has a handle of them, and drops it before it leaves. The last worker takes this one.
    pub(crate) tools: Mutex<Option<Arc<Tools<T, R>>>>,
    /// Taken by the last worker.
    pub(crate) output: Mutex<Option<Output<R, O>>>,
    /// Makes items, where they are gathered.
    pub(crate) observer: Option<Observer>,
    pub(crate) promise: Arc<Promise<O>>,
    pub(crate) clock: Clock,
    /// Held so that a cancellation reaches the task for as long as a worker lives, whoever else has dropped it.
    pub(crate) _token: CancelToken,
}

/// User code that workers call.
pub(crate) struct Tools<T, R> {
    pub(crate) work: Work<T, R>,
    pub(crate) policy: ErrorPolicy,
}

/// The handler.
pub(crate) enum Work<T, R> {
    /// Handler of one item.
    Item(Handler<T, R>),
    /// Handler of all items that a worker takes at once.
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
    /// Starts workers that are counted already. The error has the number of those that did not start: they have to depart.
    pub(crate) fn hire(self: &Arc<Self>, workers: usize) -> Result<(), (usize, io::Error)> {
        for hired in 0..workers {
            let job = Arc::clone(self);
            sync::spawn(THREAD, None, move || job.run()).map_err(|error| (workers - hired, error))?;
        }
        Ok(())
    }

    fn run(self: Arc<Self>) {
        let mark = WorkerMark::set(self.shared.address());
        let (parker, unparker) = Parker::new();
        let number = self.shared.register_waker(&unparker);
        let (tools, mut taken) =
            (self.tools.lock().clone(), Taken { items: Vec::new(), created: Vec::new() });
        // Every call of user code catches its own panic. This one is for a bug of ours, so that the task has an end.
        let _ = catch_panic(|| {
            while let Some(tools) = &tools {
                match self.shared.next_step(number, &mut taken) {
                    NextStep::Work(first) => self.handle(tools, first, &mut taken, &parker),
                    NextStep::Hire(workers) => self.hire_more(workers),
                    NextStep::Sleep(until) => self.clock.park(&parker, until),
                    NextStep::Leave => break,
                }
            }
        });
        drop_quietly(tools);
        self.depart(1);
        drop(mark);
    }

    /// Handles what a worker has taken, and drops it.
    fn handle(self: &Arc<Self>, tools: &Tools<T, R>, first: u64, taken: &mut Taken<T>, parker: &Parker) {
        let (policy, created) = (&tools.policy, std::mem::take(&mut taken.created));
        let origin = |place: usize, items| {
            let created = created.get(place).copied();
            Origin { number: first + place as u64, items, created, started: None }
        };
        match &tools.work {
            Work::Item(handler) => {
                // Each leaves by itself, the first first.
                taken.items.reverse();
                for place in 0..taken.items.len() {
                    let Some(item) = taken.items.last() else { break };
                    let origin = origin(place, 1);
                    let fate = self.attempt(policy, origin, parker, || handler(item));
                    drop_quietly(taken.items.pop());
                    self.complete(fate, 1);
                }
            }
            Work::Batch(handler) => {
                let count = taken.items.len() as u64;
                let fate = self.attempt(policy, origin(0, count), parker, || handler(&taken.items));
                drop_each(taken.items.drain(..));
                self.complete(fate, count);
            }
        }
    }

    fn complete(self: &Arc<Self>, fate: Fate, items: u64) {
        self.hire_more(self.shared.complete(fate, items));
    }

    fn hire_more(self: &Arc<Self>, workers: usize) {
        if let Err((missing, _)) = self.hire(workers) {
            // Fewer than would be right. Those that there are go on, and the next change tries again.
            self.shared.unhire(missing);
            self.depart(missing);
        }
    }

    /// Calls the handler, as often as the policy says; not at all once the task is stopped.
    fn attempt(
        &self,
        policy: &ErrorPolicy,
        mut origin: Origin,
        parker: &Parker,
        mut work: impl FnMut() -> Result<R, BoxedError>,
    ) -> Fate {
        let started = self.observer.as_ref().map(Observer::now);
        let mut retries = 0_u32;
        // Why the attempt before has failed.
        let mut before: Option<Failure> = None;
        loop {
            // Nothing may come between the question and the call.
            let outcome = match catch_panic(|| self.shared.permit.begin().then(&mut work)) {
                Ok(Some(outcome)) => Ok(outcome),
                Ok(None) => match before.take() {
                    Some(failure) => return self.fail(origin, failure, Decision::Continue),
                    None => {
                        self.report(origin, || ItemKind::Cancelled);
                        return Fate::Cancelled;
                    }
                },
                Err(panic) => Err(panic),
            };
            origin.started = started;
            if let Some(before) = before.take() {
                drop_quietly(before);
                retries = retries.saturating_add(1);
                self.shared.count_retry();
            }
            let failure = match outcome {
                Ok(Ok(result)) => match self.gather(origin, result) {
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
                before = Some(failure);
                continue;
            }
            return self.fail(origin, failure, decision);
        }
    }

    /// Accounts for an item that has failed for good.
    fn fail(&self, origin: Origin, failure: Failure, decision: Decision) -> Fate {
        let text = catch_panic(|| bounded(&failure));
        drop_quietly(failure);
        let text = text.unwrap_or_else(|panic| bounded(&format_args!("an error that panics: {panic}")));
        self.report(origin, || match decision {
            Decision::Stop => ItemKind::Error(text.clone()),
            _ => ItemKind::Continue(text.clone()),
        });
        self.shared.note_error(text);
        if decision == Decision::Stop {
            self.shared.stop(Stop::Failed);
        }
        Fate::Failed
    }

    /// Gathers a result. The error is the text of a panic.
    fn gather(&self, origin: Origin, result: R) -> Result<(), String> {
        let mut output = self.output.lock();
        catch_panic(|| match (&mut *output, &self.observer) {
            (Some(Output::Results(gather)), _) => gather.add(origin.number, result),
            (Some(Output::Items(gather)), Some(observer)) => {
                gather.add(origin.number, observer.item(origin, ItemKind::Data(result)));
            }
            _ => {}
        })
    }

    /// Gathers what became of an item that has no result, where items are gathered. A panic of the gathering is ignored.
    fn report(&self, origin: Origin, kind: impl FnOnce() -> ItemKind<R>) {
        let Some(observer) = &self.observer else { return };
        let mut output = self.output.lock();
        if let Some(Output::Items(gather)) = &mut *output {
            let item = observer.item(origin, kind());
            let _ = catch_panic(|| gather.add(origin.number, item));
        }
    }

    /// Waits before another attempt. Returns whether there should be one.
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

    /// Drops what waits in a task that was stopped.
    fn cancel_rest(&self) {
        let rest = self.shared.clear();
        let first = self.shared.sent() - rest.len() as u64;
        for (number, waiting) in (first..).zip(rest) {
            let created = Some(waiting.since);
            self.report(Origin { number, items: 1, created, started: None }, || ItemKind::Cancelled);
            drop_quietly(waiting);
        }
    }

    /// Ends so many workers, the last of which reports the end of the task.
    pub(crate) fn depart(&self, workers: usize) {
        if !self.shared.dismiss(workers) {
            return;
        }
        self.cancel_rest();
        let summary = self.shared.end();
        let end = Origin { number: summary.sent, items: 0, created: None, started: None };
        self.report(end, || ItemKind::Final(summary.clone()));
        // The others have dropped theirs. This drops handler and policy, and what they captured.
        let tools = self.tools.lock().take();
        drop_quietly(tools);
        // So does the source.
        self.shared.await_source();
        let report = self.shared.take_report();
        // Before the promise is fulfilled, so that every waiting caller finds the record. The finish notifies readers
        // of results.
        report.iter().for_each(|report| report.send(&summary));
        let output = self.output.lock().take();
        let results = output.and_then(|output| catch_panic(|| output.finish()).ok());
        results
            .into_iter()
            .for_each(|results| self.promise.fulfill(Final { summary: summary.clone(), results }));
        // It may be the last handle of a collector that takes its time to stop.
        drop(report);
    }
}

/// Starts the thread that sends what a source makes.
pub(crate) fn feed<T: Send + 'static>(shared: &Arc<Shared<T>>, mut source: Source<T>) -> io::Result<()> {
    shared.set_feeding(Feeding::Sending);
    let stopped = shared.signal_stop();
    let (own, sender) = (Arc::clone(shared), Sender::new(shared));
    let thread = sync::spawn(THREAD, None, move || {
        let shared = own;
        let (parker, unparker) = Parker::new();
        shared.register_waker(&unparker);
        let clock = shared.lock().clock.clone();
        let is_wanted = || shared.is_wanted();
        let context = SourceContext {
            clock: &clock,
            parker: &parker,
            unparker: &unparker,
            stopped: &stopped,
            is_wanted: &is_wanted,
        };
        while shared.ask_source() {
            let ask = || {
                // It cannot wait for its own task.
                let _mark = WorkerMark::set(shared.address());
                shared.permit.begin().then(|| source(&context)).flatten()
            };
            match catch_panic(ask) {
                Ok(Some(item)) => drop_quietly(sender.send(item)),
                Ok(None) => break,
                Err(panic) => {
                    shared.note_broken_source(&panic);
                    break;
                }
            }
        }
        shared.set_feeding(Feeding::Sending);
        drop(sender);
        if shared.is_left() {
            // The source has forked, and this is the child. What it captured is the parent's.
            return std::mem::forget(source);
        }
        let mark = WorkerMark::set(shared.address());
        drop_quietly(source);
        drop(mark);
        shared.set_feeding(Feeding::Over);
    });
    if thread.is_err() {
        shared.set_feeding(Feeding::Over);
    }
    thread.map(drop)
}

#[cfg(test)]
mod tests;
