//! Account of a sink, for its wrappers, and flushes that another thread finishes.

use std::path::Path;
use std::time::Duration;

use super::SinkError;
use crate::clock::{self, deadline_in};
use crate::escape::shortened;
use crate::reply::Reply;
use crate::self_log::{LogLevel, LogTopic};
use crate::stats::{BreakerState, Count, SinkTally};
use crate::sync::{Arc, Condvar, Mutex, Ordering};

/// Messages from the collector to a sink, beside its events. A wrapper passes on what it does not answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum Hook<'a> {
    /// Tells the account under which the sink is counted, before the first batch.
    Open(&'a Account),
    /// Begins a flush that another thread finishes, if there is one.
    BeginFlush(&'a mut Option<PendingFlush>),
    /// Asks whether a call may wait for something. The sink is given a thread of its own then. Comes before all others.
    MayWait(&'a mut bool),
    /// Asks whether nobody wants the sink any more. The worker takes it out then, after the batch at hand.
    IsOver(&'a mut bool),
}

/// The account of a sink, given to it by [`Hook::Open`].
///
/// By default the return value of `write_batch` completes all events of a batch: `Ok` delivered them, `Err` failed. A wrapper
/// that completes events otherwise [`keep`](Self::keep)s them: they are in flight then, and the return value is about the
/// rest of the batch. Later, on whatever thread, it [completes](Self::complete) each of them once. A clone is the same
/// account.
///
/// A wrapper that keeps events returns `Ok`: what fails in its stead would be tried again by a wrapper outside of it.
#[derive(Debug, Clone)]
pub struct Account {
    tally: Arc<SinkTally>,
    /// Events ever kept by the part of a chain that one thread calls.
    kept: Arc<Count>,
    /// Batches of which that part has seen nothing, because they were routed past it.
    passed: Arc<Count>,
    cancel: Option<Arc<Cancel>>,
    /// A collector counts by it. Otherwise the sink was never given its account.
    is_open: bool,
}

/// Fate of an event that a wrapper kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fate {
    /// The event is where it belongs.
    Delivered,
    /// The event was lost by an error.
    Failed,
    /// The event is a dead letter.
    DeadLettered,
    /// The event was evicted from a queue.
    Evicted,
    /// A full queue did not take it.
    Rejected,
}

impl Account {
    pub(crate) fn new(tally: Arc<SinkTally>) -> Self {
        Self { tally, kept: Arc::default(), passed: Arc::default(), cancel: None, is_open: true }
    }

    /// Creates an account of no collector, for a sink that is tried without one.
    pub(crate) fn nobody() -> Self {
        Self { is_open: false, ..Self::new(Arc::new(SinkTally::new(String::new(), Arc::default()))) }
    }

    /// Returns whether a collector counts by it. It does not for a sink that was never given its account, inside of a wrapper of
    /// somebody else.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Returns the account for the part of a chain that another thread calls, and that `cancel` releases.
    pub(crate) fn on_thread(&self, cancel: &Arc<Cancel>) -> Self {
        Self { cancel: Some(Arc::clone(cancel)), ..Self::new(Arc::clone(&self.tally)) }
    }

    /// Takes `events` of the batch at hand out of what its return value is about.
    pub fn keep(&self, events: u64) {
        self.kept.add(events);
        self.tally.kept.add(events);
    }

    /// Reports the fate of `events` that were kept.
    pub fn complete(&self, fate: Fate, events: u64) {
        let fates = &self.tally;
        let (count, is_worth_saying) = match fate {
            Fate::Delivered => (&fates.delivered, None),
            Fate::Failed => (&fates.failed, None),
            Fate::DeadLettered => {
                (&fates.dead_lettered, Some((LogTopic::DeadLettered, "became dead letters")))
            }
            Fate::Evicted => (&fates.evicted, Some((LogTopic::QueueFull, "were evicted by a full queue"))),
            Fate::Rejected => (&fates.rejected, Some((LogTopic::QueueFull, "were rejected by a full queue"))),
        };
        count.add(events);
        fates.kept.lower_by(events);
        if let Some((topic, what)) = is_worth_saying {
            self.tally.say(LogLevel::Warn, topic, || format!("{events} events {what}"));
        }
    }

    /// Completes a batch of which all events were kept: so many were delivered, and so many failed. A wrapper that has kept the
    /// rest completes that.
    pub(crate) fn complete_written(&self, begun: u64, events: u64, (delivered, failed): (u64, u64)) {
        self.tally.write_nanos.add(clock::nanos().saturating_sub(begun));
        self.tally.delivered.add(delivered);
        self.tally.failed.add(failed);
        self.tally.kept.lower_by(events);
    }

    /// Runs a call on the thread of an isolated sink, and notes since when it has been running. Returns that moment and the result.
    pub(crate) fn on_own_thread<R>(&self, call: impl FnOnce() -> R) -> (u64, R) {
        let begun = clock::nanos();
        self.tally.own_thread_since.store(begun, Ordering::Relaxed);
        let result = call();
        self.tally.own_thread_since.store(0, Ordering::Relaxed);
        (begun, result)
    }

    /// Counts a call that failed and is tried again.
    pub(crate) fn note_retry(&self, error: &SinkError) {
        self.tally.retries.add(1);
        self.tally.record_failure();
        let said = shortened(error.to_string());
        *self.tally.last_error.lock() = Some(said.clone());
        self.tally.say(LogLevel::Warn, LogTopic::Retried, || format!("tries again: {said}"));
    }

    /// Counts a call that failed, but whose events are complete.
    pub(crate) fn note_error(&self, error: &SinkError) {
        self.tally.note_error(error.to_string(), error.is_panic());
    }

    /// Counts a call that panicked, but whose events are complete.
    pub(crate) fn note_panic(&self, said: &str) {
        self.tally.note_panic(said.to_owned());
    }

    /// Shows a breaker to those who look at the sink.
    pub(crate) fn show_breaker(&self, state: impl Fn() -> BreakerState + Send + Sync + 'static) {
        self.tally.show_breaker(state);
    }

    /// Says that a breaker has opened, or closed.
    pub(crate) fn say_breaker(&self, level: LogLevel, what: &str) {
        self.tally.say(level, LogTopic::Breaker, || format!("the breaker {what}"));
    }

    /// Notes where an earlier run has written, and this one goes on.
    pub(crate) fn note_earlier_run(&self, path: &Path) {
        self.tally.note_earlier_run(path.display().to_string());
    }

    /// Shows how many dead letters wait to those who look at the sink.
    pub(crate) fn count_letters_with(&self, count: impl Fn() -> u64 + Send + Sync + 'static) {
        self.tally.count_letters_with(count);
    }

    /// Counts dead letters that were delivered after all.
    pub(crate) fn note_redriven(&self, events: u64) {
        self.tally.redriven.add(events);
        self.tally.record_success();
    }

    /// Waits for `timeout` on the thread of an isolated sink. Returns `false` at once if that is to end, and on every other
    /// thread.
    pub fn wait(&self, timeout: Duration) -> bool {
        let Some(cancel) = &self.cancel else { return false };
        // It is in no call meanwhile.
        let since = self.tally.own_thread_since.swap(0, Ordering::Relaxed);
        let goes_on = cancel.wait(timeout);
        if since > 0 {
            self.tally.own_thread_since.store(clock::nanos(), Ordering::Relaxed);
        }
        goes_on
    }

    /// Returns whether the thread that calls this part of a chain is to end.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancel.as_ref().is_some_and(|cancel| *cancel.is_cancelled.lock())
    }

    pub(crate) fn tally(&self) -> &Arc<SinkTally> {
        &self.tally
    }

    /// Events ever kept.
    pub(crate) fn kept(&self) -> u64 {
        self.kept.get()
    }

    /// Notes that the sink inside sees nothing of this batch, so that its success says nothing.
    pub(crate) fn pass(&self) {
        self.passed.add(1);
    }

    /// Batches ever passed.
    pub(crate) fn passed(&self) -> u64 {
        self.passed.get()
    }
}

/// Signal that ends waits.
#[derive(Debug, Default)]
pub(crate) struct Cancel {
    is_cancelled: Mutex<bool>,
    changed: Condvar,
}

impl Cancel {
    pub(crate) fn cancel(&self) {
        *self.is_cancelled.lock() = true;
        self.changed.notify_all();
    }

    /// Waits for `timeout`. Returns `false` when it was cancelled.
    fn wait(&self, timeout: Duration) -> bool {
        let deadline = deadline_in(timeout);
        let Ok(mut is_cancelled) = self.is_cancelled.enter() else { return false };
        while !*is_cancelled && !self.changed.wait_until(&mut is_cancelled, deadline) {}
        !*is_cancelled
    }
}

/// Flush that another thread finishes.
#[must_use = "nobody waits for it otherwise"]
pub struct PendingFlush {
    /// Reply that says whether all of it was done, in the end.
    pub(crate) reply: Arc<Reply<bool>>,
    /// Longest wait for it.
    pub(crate) timeout: Duration,
}

impl PendingFlush {
    /// Returns a flush that is over: the account reports what became of it.
    pub(crate) fn over() -> Self {
        let reply = Reply::new();
        reply.answer(Some(true));
        Self { reply, timeout: Duration::ZERO }
    }
}

impl std::fmt::Debug for PendingFlush {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PendingFlush").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}
