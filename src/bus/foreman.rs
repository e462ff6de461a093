//! Everything that happens by time: retries that are due, calls that take too long, the number of workers. One thread, which
//! sleeps while there is nothing to look at.

use std::time::{Duration, Instant};

use super::chores::later;
use super::context;
use super::engine::Engine;
use super::mailbox::Late;
use super::{Scaling, Shared};
use crate::catalog::system::PerformanceWarning;
use crate::sync::{Arc, Mutex, Parker, guarded};

/// How often it looks at calls that run, at least.
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// How often it looks for letters whose pace lets them go.
const PACE: Duration = Duration::from_millis(20);

/// Where the last handle is left when it is dropped by somebody who cannot wait for the end.
#[derive(Default)]
pub(super) struct Estate(Mutex<Option<Arc<Shared>>>);

impl Estate {
    pub(super) fn leave(&self, shared: Arc<Shared>) {
        *self.0.lock() = Some(shared);
    }

    fn take(&self) -> Option<Arc<Shared>> {
        self.0.lock().take()
    }
}

pub(super) struct Foreman {
    pub(super) engine: Arc<Engine>,
    pub(super) estate: Arc<Estate>,
    pub(super) parker: Parker,
    /// When the load was looked at last, and how long calls had taken by then.
    last_look: Option<(Instant, Duration)>,
}

impl Foreman {
    pub(super) fn new(engine: Arc<Engine>, estate: Arc<Estate>, parker: Parker) -> Self {
        Self { engine, estate, parker, last_look: None }
    }

    pub(super) fn run(mut self) {
        // It makes no calls, which may hang, and what ends here may hold the last handle: it cannot wait for this thread.
        let _within = context::within(self.engine.place());
        while !self.engine.crew.is_closed() {
            // What could panic here ends there: it must be back at the next ring.
            let next = guarded(|| self.look()).unwrap_or(None);
            if let Some(shared) = self.estate.take() {
                let _ = shared.stop(shared.drop_timeout());
                return;
            }
            if !self.engine.crew.is_closed() {
                self.engine.clock.park(&self.parker, next);
            }
        }
    }

    /// Does what is due, and says when to look again.
    fn look(&mut self) -> Option<Instant> {
        let now = self.engine.clock.now();
        let next_chore = self.engine.run_due(now);
        self.engine.redrive();
        let next_call = self.look_at_calls(now);
        let scaling = self.engine.config.scaling;
        let next_scale = scaling.map(|scaling| self.scale(&scaling, now));
        let paced = self.engine.letters.has_due().then(|| now + PACE);
        let is_least = scaling.is_none_or(|scaling| self.engine.crew.target() <= scaling.min);
        let watched = if is_least && self.engine.crew.go_unwatched() {
            self.last_look = None;
            None
        } else {
            [Some(next_call), next_scale].into_iter().flatten().min()
        };
        [watched, paced, next_chore, self.engine.timers.next()].into_iter().flatten().min()
    }

    /// Marks calls that take too long, tells of them, and puts others in the place of their workers. When the next one may.
    fn look_at_calls(&self, now: Instant) -> Instant {
        let mut warnings = Vec::new();
        let mut next = now + LONGEST_LOOK;
        for subscriber in self.engine.everybody() {
            let mut mailbox = subscriber.mailbox.lock();
            let late = mailbox.look(now, subscriber.deadline);
            let oldest = mailbox.busy(now).1;
            // Counted as stuck before the call can end: it waits for the mailbox.
            self.engine.crew.set_stuck(late.len());
            drop(mailbox);
            next = next.min(oldest.unwrap_or(now).checked_add(subscriber.deadline).unwrap_or(next));
            if late.is_empty() {
                continue;
            }
            // Who waits for room need not wait for this one.
            subscriber.changed.notify_all();
            let threshold = subscriber.deadline.as_secs_f64();
            // A warning that is slow to be handled is not warned of in turn.
            for Late { elapsed, depth, .. } in late.into_iter().filter(|late| !late.is_warning) {
                let (component, metric) = (subscriber.name.to_string(), "handler_seconds".to_owned());
                let value = elapsed.as_secs_f64();
                warnings.push((PerformanceWarning { component, metric, value, threshold }, depth));
            }
        }
        // Also those for which there was no thread before. Without one now, the others go on by themselves.
        let _ = self.engine.fill();
        warnings
            .into_iter()
            .for_each(|(warning, depth)| self.engine.say_at(warning, depth.saturating_add(1)));
        next
    }

    /// Changes the number of workers by load, if it is time for that. When it is, next.
    fn scale(&mut self, scaling: &Scaling, now: Instant) -> Instant {
        let running =
            self.engine.everybody().iter().map(|it| it.mailbox.lock().busy(now).0).sum::<Duration>();
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
        let workers = self.engine.crew.target();
        let time = elapsed.as_secs_f64() * workers as f64;
        let wanted = scaling.decide(workers, busy.saturating_sub(was_busy).as_secs_f64() / time);
        if wanted != workers {
            let _ = self.engine.scale_to(wanted);
        }
        later(now, scaling.interval)
    }
}
