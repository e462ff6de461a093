//! Scheduler thread of a bus, for everything that happens by time: retries that are due, overdue calls, the number of workers.
//! It sleeps while there is nothing to look at.

use std::time::{Duration, Instant};

use forebay::event::catalog::system::PerformanceWarning;
use forebay_sync::sync::{Arc, Parker, catch_panic};

use super::context;
use super::engine::Engine;
use super::mailbox::OverdueCall;
use super::periodic_tasks::later;
use super::scaling::Scaling;
use super::stop::DeferredStop;

/// The longest time between two looks at the calls that run.
const MAX_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Interval at which the scheduler looks for dead letters that their pace releases.
const PACE: Duration = Duration::from_millis(20);

/// The body of the scheduler thread.
pub(super) struct Scheduler {
    engine: Arc<Engine>,
    deferred_stop: Arc<DeferredStop>,
    parker: Parker,
    /// Time when the load was measured last, and how long calls had taken together by then.
    last_look: Option<(Instant, Duration)>,
}

/// Mark of a scheduler that runs: its drop says to a stop that it has ended.
struct Running(Arc<Engine>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.pool.set_scheduler(false);
    }
}

impl Scheduler {
    pub(super) fn new(engine: Arc<Engine>, deferred_stop: Arc<DeferredStop>, parker: Parker) -> Self {
        Self { engine, deferred_stop, parker, last_look: None }
    }

    pub(super) fn run(mut self) {
        // This thread makes no calls, which may hang. It is marked as one of the bus all the same: what it drops may hold the
        // last handle, which cannot wait for it.
        let _caller = context::enter(self.engine.address());
        let running = Running(Arc::clone(&self.engine));
        while !self.engine.pool.is_closed() {
            // A panic must not end this thread: it is needed again.
            let next = catch_panic(|| self.look()).unwrap_or(None);
            if let Some(shared) = self.deferred_stop.take() {
                // This stop cannot wait for the end of its own thread.
                drop(running);
                let _ = shared.stop(shared.drop_timeout());
                return;
            }
            if !self.engine.pool.is_closed() {
                self.engine.clock.park(&self.parker, next);
            }
        }
    }

    /// Runs everything that is due. Returns when to look again.
    fn look(&mut self) -> Option<Instant> {
        let now = self.engine.clock.now();
        let next_task = self.engine.run_due(now);
        self.engine.redrive();
        let next_call = self.look_at_calls(now);
        let scaling = self.engine.config.scaling;
        let next_scale = scaling.map(|scaling| self.scale(&scaling, now));
        let paced = self.engine.dead_letters.has_due().then(|| now + PACE);
        let is_least = scaling.is_none_or(|scaling| self.engine.pool.target() <= scaling.min);
        let watched = if is_least && self.engine.pool.go_unwatched() {
            self.last_look = None;
            None
        } else {
            [Some(next_call), next_scale].into_iter().flatten().min()
        };
        [watched, paced, next_task, self.engine.retries.next_due()].into_iter().flatten().min()
    }

    /// Marks overdue calls, emits a warning of each, and replaces their workers. Returns when the next call may become overdue.
    fn look_at_calls(&self, now: Instant) -> Instant {
        let mut warnings = Vec::new();
        let mut next = now + MAX_LOOK_INTERVAL;
        for subscriber in self.engine.subscribers.everybody() {
            let mut mailbox = subscriber.mailbox.lock();
            let overdue = mailbox.mark_overdue(now, subscriber.deadline);
            let oldest = mailbox.running_time(now).1;
            // Before the lock is released, and so before such a call can end: its end counts the worker back.
            self.engine.pool.set_stuck(overdue.len());
            drop(mailbox);
            next = next.min(oldest.unwrap_or(now).checked_add(subscriber.deadline).unwrap_or(next));
            if overdue.is_empty() {
                continue;
            }
            // Nobody waits for space in the mailbox of a handler with an overdue call.
            subscriber.changed.notify_all();
            let threshold = subscriber.deadline.as_secs_f64();
            // An overdue call for a warning is not warned of in turn.
            for OverdueCall { elapsed, depth, .. } in overdue.into_iter().filter(|call| !call.is_warning) {
                let (component, metric) = (subscriber.name.to_string(), "handler_seconds".to_owned());
                let value = elapsed.as_secs_f64();
                warnings.push((PerformanceWarning { component, metric, value, threshold }, depth));
            }
        }
        // Also workers that the system refused before. If it refuses again, the bus goes on with fewer.
        let _ = self.engine.start_workers();
        warnings
            .into_iter()
            .for_each(|(warning, depth)| self.engine.emit_own_at(warning, depth.saturating_add(1)));
        next
    }

    /// Changes the number of workers by load, if it is time. Returns when it is time again.
    fn scale(&mut self, scaling: &Scaling, now: Instant) -> Instant {
        let running = self
            .engine
            .subscribers
            .everybody()
            .iter()
            .map(|it| it.mailbox.lock().running_time(now).0)
            .sum::<Duration>();
        let busy = self.engine.tally.busy() + running;
        let Some((last, was_busy)) = self.last_look else {
            self.last_look = Some((now, busy));
            return later(now, scaling.interval);
        };
        let elapsed = now.saturating_duration_since(last);
        if elapsed < scaling.interval {
            return later(last, scaling.interval);
        }
        self.last_look = Some((now, busy));
        let workers = self.engine.pool.target();
        let time = elapsed.as_secs_f64() * workers as f64;
        let wanted = scaling.decide(workers, busy.saturating_sub(was_busy).as_secs_f64() / time);
        if wanted != workers {
            let _ = self.engine.scale_to(wanted);
        }
        later(now, scaling.interval)
    }
}
