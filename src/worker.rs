//! The worker: one thread that waits, drains the lanes, dispatches batches and answers requests.
//!
//! It owns the sinks, so that they need no lock, and it alone numbers batches. Its body is a plain function of the
//! shared state. All user code that runs here (sinks, destructors of events, wakers) has its panics caught at the
//! call. If the worker itself panics all the same, every waiting caller gets an answer.

mod pace;

use std::time::{Duration, Instant};

use crate::batch::Batch;
use crate::clock::{self, Clock, deadline_in};
use crate::config::Config;
use crate::dispatch::{Slot, dispatch};
use crate::event::Event;
use crate::mailbox::{ReportedRange, Requests};
use crate::self_log::{LogLevel, LogTopic};
use crate::shared::Shared;
use crate::stats::FlushReport;
use crate::sync::{Arc, Ordering, catch_panic};
use crate::wake::{NEVER, State};
use crate::worker_state::WorkerState;
use pace::Pace;

/// Runs the worker thread.
pub(crate) fn work<E: Event>(shared: &Shared<E>) {
    work_with(shared, |worker| worker.run());
}

fn work_with<E: Event>(shared: &Shared<E>, run: impl FnOnce(&mut Worker<'_, E>) -> FlushReport) {
    let Some(state) = shared.mailbox.take_worker() else { return };
    let _mark = shared.mark_worker();
    let config = shared.settings.config();
    let mut worker = Worker { shared, state, schedule: Schedule::new(&config, &shared.clock) };
    worker.state.batcher.set_max_events(config.batch_limit());
    match catch_panic(|| run(&mut worker)) {
        Ok(last_flush) => return_state(shared, worker.state, &last_flush),
        Err(_) => {
            // This comes before the worker drops its sinks: their destructors may be slow, and others wait.
            abandon(shared);
            drop(worker);
        }
    }
}

/// Returns the state to the mailbox once every request is answered. The last flush covers the requests that came
/// since it began, because nothing was accepted meanwhile.
pub(crate) fn return_state<E: Event>(
    shared: &Shared<E>,
    mut state: Box<WorkerState<E>>,
    last_flush: &FlushReport,
) {
    // Every call of a sink may fork, on a thread of the user as well. In the child, the state forgets its contents
    // when it is dropped.
    let late = state.begin_flushes();
    if state.home.is_left() {
        return std::mem::forget(late);
    }
    let is_disowned = shared.is_disowned.load(Ordering::Relaxed) != 0;
    if is_disowned {
        // The drop of a sink ends its waits, so it must not come before the time that the last handle allows.
        let deadline = deadline_in(shared.settings.config().drop_timeout);
        late.iter().for_each(|late| _ = late.wait(deadline));
    }
    shared.mailbox.set_late(late);
    if is_disowned {
        state.end();
    }
    if state.home.is_left() {
        return;
    }
    while let Err((same, requests)) = shared.mailbox.return_worker(state) {
        state = same;
        state.remove_finished_sinks(&shared.registry);
        if state.home.is_left() {
            return std::mem::forget(requests);
        }
        if state.answer(requests, last_flush, &shared.registry) {
            state.mark_reported(shared.tally.worker.processed.get());
        }
        if state.home.is_left() {
            return;
        }
    }
}

/// Refuses events and answers all who wait, after the worker has panicked.
fn abandon<E: Event>(shared: &Shared<E>) {
    shared.phase.set_gone();
    let tally = &shared.tally;
    // The events of its current batch were dropped with it.
    let in_hand = tally.worker.taken.get() - tally.worker.processed.get();
    tally.rejected.worker_gone.add(in_hand);
    tally.worker.taken.lower_by(in_hand);
    shared.discard(shared.lanes.take_all());
    // All bytes, including those of the current batch.
    shared.lanes.budget().release(shared.lanes.budget().held());
    shared.space_waiters.wake_all();
    shared.mailbox.lose_worker();
    tally.say(LogLevel::Error, LogTopic::WorkerGone, || {
        "the worker is gone: nothing is delivered any more".to_owned()
    });
}

/// Next step of the worker.
enum Duty {
    /// Drains and ends, because the collector stops.
    Finish,
    /// Delivers everything that is pending.
    Sweep,
    /// Delivers as many events as the strategy's trigger.
    Load,
    Sleep,
}

struct Worker<'a, E> {
    shared: &'a Shared<E>,
    state: Box<WorkerState<E>>,
    schedule: Schedule,
}

impl<E: Event> Worker<'_, E> {
    /// Runs until the collector is stopped. Returns the report of the last flush.
    fn run(&mut self) -> FlushReport {
        loop {
            // Requests before rings: a caller that asks for a flush has collected before. In the other order, its
            // flush would miss an event that was collected between the two looks.
            let requests = self.shared.mailbox.take_requests();
            let now = self.shared.clock.now();
            if requests.is_reconfigured {
                self.reconfigure(now);
            }
            if requests.has_finished_sinks {
                self.state.remove_finished_sinks(&self.shared.registry);
            }
            match self.next_duty(&requests, now) {
                Duty::Finish => return self.finish(requests),
                Duty::Sweep => self.serve(requests, now),
                Duty::Load => self.deliver_load(),
                Duty::Sleep => self.sleep(),
            }
        }
    }

    fn next_duty(&mut self, requests: &Requests, now: Instant) -> Duty {
        let lanes = &self.shared.lanes;
        let pending = lanes.pending();
        self.shared.tally.worker.peak_pending.raise_to(pending as u64);
        self.schedule.observe(now, pending);
        let trigger = self.schedule.trigger;
        if self.shared.phase.load().state() == State::Draining {
            Duty::Finish
        } else if requests.wants_sweep() || self.schedule.is_due(now) || lanes.has_critical(trigger) {
            Duty::Sweep
        } else if lanes.has_load(trigger) {
            Duty::Load
        } else {
            Duty::Sleep
        }
    }

    /// Applies the current settings.
    fn reconfigure(&mut self, now: Instant) {
        let config = self.shared.settings.config();
        self.schedule.change(&config, &self.shared.clock, now);
        self.state.batcher.set_max_events(config.batch_limit());
    }

    /// Delivers everything that is pending, then answers the requests.
    fn serve(&mut self, requests: Requests, now: Instant) {
        let taken = self.shared.tally.worker.taken.get();
        self.sweep();
        self.schedule.swept(now, self.shared.tally.worker.taken.get() > taken);
        if requests.flushes.is_empty() {
            self.answer(requests, &FlushReport::default());
        } else {
            let report = self.flush();
            self.answer(requests, &report);
        }
    }

    /// Drains the lanes, marks the collector as stopped, and flushes.
    fn finish(&mut self, requests: Requests) -> FlushReport {
        // Since `Draining`, only events that were on their way come in.
        self.sweep();
        self.shared.phase.set_stopped();
        // Producers of events that came after this drain began find `Stopped`, and remove them.
        self.sweep();
        let report = self.flush();
        self.answer(requests, &report);
        report
    }

    /// Delivers every event that was pending when it began. It ends although more keep coming: see
    /// [`DrainPass`](crate::lanes::DrainPass).
    fn sweep(&mut self) {
        let mut pass = self.state.batcher.begin_pass(&self.shared.lanes);
        while !pass.is_over() {
            if let Some(batch) = self.state.batcher.next_batch(&self.shared.lanes, &mut pass) {
                self.deliver(batch);
            }
        }
    }

    /// Delivers as many events as the trigger, or more if they fit into the last batch.
    fn deliver_load(&mut self) {
        let mut pass = self.state.batcher.begin_pass(&self.shared.lanes);
        let mut left = self.schedule.trigger as usize;
        while left > 0 && !pass.is_over() {
            if let Some(batch) = self.state.batcher.next_batch(&self.shared.lanes, &mut pass) {
                left = left.saturating_sub(batch.len());
                self.deliver(batch);
            }
        }
    }

    fn deliver(&mut self, mut batch: Batch<E>) {
        batch.set_moment(self.shared.clock.nanos());
        let events = batch.len() as u64;
        let (bytes, budget) = (self.state.batcher.bytes(), self.shared.lanes.budget());
        budget.clear_wanted();
        let tally = &self.shared.tally.worker;
        tally.taken.bump(events);
        tally.batches.bump(1);
        tally.busy_since.store(clock::nanos(), Ordering::Relaxed);
        // Before the sinks, which may be slow: there is space by now.
        self.shared.space_waiters.wake_all();
        if batch.gap() > 0 {
            let gap = batch.gap();
            self.shared.tally.say(LogLevel::Warn, LogTopic::Evicted, || format!("{gap} events were evicted"));
        }
        self.enrich(&mut batch);
        // After the events were taken, so that a sink gets every event that is collected after it was added.
        self.shared.mailbox.admit(&mut self.state.slots);
        dispatch(&mut self.state.slots, &batch);
        self.state.remove_finished_sinks(&self.shared.registry);
        tally.processed.bump(events);
        let now = self.shared.clock.nanos();
        self.shared.tally.meter.delivered(now, batch.events(), tally.processed.get());
        self.state.batcher.recycle(batch);
        tally.busy_since.store(0, Ordering::Relaxed);
        if bytes > 0 {
            budget.release(bytes);
            self.shared.space_waiters.wake_all();
        }
    }

    /// Completes the events, if the builder was given code for that.
    fn enrich(&mut self, batch: &mut Batch<E>) {
        let Some(enrich) = &mut self.state.enrich else { return };
        let panics = batch.enrich(enrich);
        if panics > 0 {
            let tally = &self.shared.tally;
            tally.worker.enrich_panics.bump(panics);
            tally.say(LogLevel::Error, LogTopic::EnrichPanicked, || {
                format!("what completes events panicked at {panics} of them")
            });
        }
    }

    /// Flushes every sink. Returns what happened since the last flush whose report reached its caller.
    fn flush(&mut self) -> FlushReport {
        self.shared.mailbox.admit(&mut self.state.slots);
        self.state.slots.iter_mut().for_each(Slot::flush);
        let tally = &self.shared.tally.worker;
        tally.flushes.bump(1);
        tally.last_flush.set(clock::unix_nanos());
        // Asked before the report, because it calls the code of sinks, which may panic.
        let finished = self.state.finished_sinks();
        let (sinks, reported) = self
            .state
            .slots
            .iter()
            .map(|slot| {
                let (delta, from, up_to) = slot.tally.delta();
                (delta, ReportedRange { tally: Arc::clone(&slot.tally), from, up_to })
            })
            .unzip();
        self.state.reported_sinks = reported;
        // After their last report.
        self.state.remove_sinks(finished, &self.shared.registry);
        FlushReport {
            processed: tally.processed.get() - self.state.reported_processed,
            evicted: self.state.batcher.reported_evictions() - self.state.reported_evictions,
            sinks,
        }
    }

    fn answer(&mut self, requests: Requests, report: &FlushReport) {
        self.shared.mailbox.admit(&mut self.state.slots);
        // A caller that has given up meanwhile has not read the report. So the next report covers the same events.
        if self.state.answer(requests, report, &self.shared.registry) {
            self.state.mark_reported(self.shared.tally.worker.processed.get());
        }
    }

    /// Sleeps until the timer or another thread wakes it; while events keep coming, for a nap.
    fn sleep(&mut self) {
        let seen = self.shared.tally.worker.taken.get();
        let (wake_at, until) = self.schedule.rest(seen, self.shared.lanes.pending());
        // Counted before the phase shows it: a thread that sees the worker asleep sees this park counted.
        self.shared.tally.worker.parks.bump(1);
        self.shared.sleep(wake_at, || self.shared.clock.park(&self.state.parker, until));
    }
}

/// Timer and threshold by which the worker delivers without a request.
#[derive(Debug)]
struct Schedule {
    /// The longest wait of an event, for the strategies that have one.
    interval: Option<Duration>,
    /// Number of pending events that set off a delivery.
    trigger: u32,
    /// Time when everything pending is due. It is set when something is seen pending, and never postponed before it is
    /// reached. So a steady stream does not postpone it.
    due: Option<Instant>,
    /// Naps while batches fill; `None` where no batch has to fill, or a test moves the clock.
    pace: Option<Pace>,
}

impl Schedule {
    /// Practically for ever, and far from the end of what an `Instant` can hold.
    const MAX_INTERVAL: Duration = Duration::from_secs(365 * 24 * 3600);

    fn new(config: &Config, clock: &Clock) -> Self {
        let interval = config.flush.interval().map(|interval| interval.min(Self::MAX_INTERVAL));
        let trigger = config.trigger().unwrap_or(NEVER);
        let fills_batches = config.flush.events().is_some_and(|events| events > 1);
        let naps = fills_batches && matches!(clock, Clock::System);
        let max_nap = config.max_nap.min(Self::MAX_INTERVAL);
        let rings = config.shards as u32;
        let pace = naps.then(|| Pace::new(max_nap, trigger, config.fewest_slots(), rings)).flatten();
        Self { interval, trigger, due: None, pace }
    }

    /// Applies other settings. What already waits is due no later than under the old and the new ones.
    fn change(&mut self, config: &Config, clock: &Clock, now: Instant) {
        let due = self.due;
        *self = Self::new(config, clock);
        self.due = self.interval.and_then(|interval| due.map(|due| due.min(now + interval)));
    }

    /// Starts the timer when something is pending and it does not run.
    fn observe(&mut self, now: Instant, pending: usize) {
        if pending > 0 && self.due.is_none() {
            self.due = self.interval.map(|interval| now + interval);
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// Notes that everything pending at `now` was delivered. While events keep coming the timer runs on, so that no
    /// producer has to wake the worker for it. After an interval without events it stops.
    fn swept(&mut self, now: Instant, was_busy: bool) {
        self.due = self.interval.filter(|_| was_busy).map(|interval| now + interval);
    }

    /// Returns how many events must be pending before a producer wakes the worker, and when it wakes by itself. So far, it
    /// has taken so many events, and so many are pending.
    fn rest(&mut self, taken: u64, pending: usize) -> (u32, Option<Instant>) {
        // The first event must start the timer.
        let waits_for_first = self.interval.is_some() && self.due.is_none();
        if let Some(pace) = self.pace.as_mut().filter(|_| !waits_for_first) {
            let now = Instant::now();
            if let Some(nap) = pace.nap(now, taken + pending as u64, pending as u32, self.due) {
                let until = now + nap;
                return (pace.wake_at(), Some(self.due.map_or(until, |due| due.min(until))));
            }
        }
        (self.wake_at(), self.due)
    }

    /// Returns how many events must be pending before a producer wakes a worker that sleeps. It is one where the first
    /// event must start the timer.
    fn wake_at(&self) -> u32 {
        if self.interval.is_some() && self.due.is_none() { 1 } else { self.trigger }
    }
}

#[cfg(test)]
mod tests;
