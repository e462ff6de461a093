//! A training run, from its begin to its end, whatever that is.
//!
//! A run is told by events, like everything else, so that every sink keeps it: `training.started`, a heartbeat now and
//! then, and one of `training.completed`, `early_stopped`, `failed` or `preempted`. From these alone
//! [`history::runs`](crate::history::runs) tells runs that go on, that ended, and that vanished.

mod builder;
mod folder;
mod info;
mod last_panic;
#[cfg(all(unix, feature = "signals"))]
mod signals;
mod timed;

pub use crate::event::catalog::training::HEARTBEAT;
pub use crate::origin::{Rank, RankError, RunIdentity};
pub use builder::RunBuilder;
pub use folder::folder;
pub use info::{RunEnd, RunInfo, RunStatus};
#[cfg(all(unix, feature = "signals"))]
pub use signals::{Signals, SignalsBuilder, SignalsError};
pub use timed::{Timed, timed};

use std::fmt;
use std::time::{Duration, Instant};

use crate::clock::deadline_in;
use crate::collector::{Collector, FlushError};
use crate::config::ConfigError;
use crate::event::catalog::training;
use crate::event::{Fields, Priority, Record};
use crate::outcome::Outcome;
use crate::reply::Reply;
use crate::sync::{self, Arc, Condvar, JoinHandle, Mutex, Ordering, PlainU64, is_panicking};
use crate::wake::State;

/// The guard of a training run: tells its begin, its epochs and batches, and its end.
///
/// Dropped without one of [`completed`](Self::completed), [`early_stopped`](Self::early_stopped),
/// [`failed`](Self::failed) and [`preempted`](Self::preempted), it tells that the run has failed: with the panic's
/// message and place, if that is why it is dropped.
///
/// ```
/// use forebay::run::TrainingRun;
/// use forebay::{Collector, Fields, Record, sink::MemorySink};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let memory = MemorySink::new();
/// let collector = Collector::builder().sink(memory.clone()).start()?;
/// let config = Fields::from([("learning_rate", 0.1)]);
/// let run = TrainingRun::builder().config(config).model_type("mlp").start(&collector)?;
/// let mut step = 0;
/// for number in 1..=2 {
///     let epoch = run.epoch(number, 2);
///     for _ in 0..10 {
///         let loss = 1.0 / (step + 1) as f64;
///         run.set_step(step);
///         collector.collect(Record::scalar("train.loss", loss).with_step(step));
///         step += 1;
///     }
///     epoch.completed(Fields::from([("val_loss", 0.1)]));
/// }
/// run.completed(Fields::from([("val_accuracy", 0.97)]))?;
/// let names: Vec<String> = memory.events().iter().map(|record| record.name().to_owned()).collect();
/// assert_eq!(names.first().map(String::as_str), Some("training.started"));
/// assert_eq!(names.last().map(String::as_str), Some("training.completed"));
/// # Ok(())
/// # }
/// ```
///
/// # What it costs
///
/// [`set_step`](Self::set_step) is one store. The other helpers make a record with fields, which allocates; begin and
/// end also flush, before, so that they stand where they belong among the other events, and after. A thread of its own
/// sleeps but for the heartbeats: they go on while the loop computes for an hour, and end with the process.
///
/// The first run of a process puts a panic hook of its own before the one that is there, to learn what a panic said. Without
/// it, because another hook was set later, or where `resume_unwind` carries a panic from another thread, which calls no
/// hook, the run tells that it panicked and no more.
///
/// In a forked child, it does nothing.
pub struct TrainingRun {
    life: Arc<Life>,
    heart: Option<JoinHandle<()>>,
}

/// What the guard, its heartbeat and its epochs share.
struct Life {
    collector: Collector,
    identity: Arc<RunIdentity>,
    rank: Rank,
    began: Instant,
    heartbeat: Duration,
    /// The epoch that the run is in, plus one; 0 before the first.
    epoch: PlainU64,
    /// The step that comes next.
    next_step: PlainU64,
    stage: Mutex<Stage>,
    /// Whether a heartbeat is being told, by a thread that has seen the run go on. Changes under the lock of `stage`.
    is_beating: PlainU64,
    /// Rung when one of these changes.
    changed: Condvar,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    /// Somebody is about to tell the end.
    Ending,
    Told,
}

/// Why a run could not start, or its end not be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A setting is outside of what is allowed.
    #[error(transparent)]
    Setting(#[from] ConfigError),
    /// The environment does not say which process of the run this is.
    #[error(transparent)]
    Rank(#[from] RankError),
    /// The collector did not take the begin of the run.
    #[error("the collector did not take the begin of the run: {0:?}")]
    NotCollected(Outcome),
    /// The collector did not take the end of the run.
    #[error("the collector did not take the end of the run: {0:?}")]
    EndNotCollected(Outcome),
    /// The events around it were not delivered in time.
    #[error(transparent)]
    Flush(#[from] FlushError),
    /// No thread could be created for the heartbeat.
    #[error("cannot create the thread of the heartbeat: {0}")]
    Thread(#[source] std::io::Error),
}

impl TrainingRun {
    /// Which run.
    pub fn run_id(&self) -> &str {
        &self.life.identity.run_id
    }

    /// Returns the name of the run, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.life.identity.name.as_deref()
    }

    /// Returns the generation of this run: 1 for its first process, and one more with each resumption.
    pub fn generation(&self) -> u64 {
        self.life.identity.generation
    }

    /// Returns the identity of the run: its id, its name and its generation.
    pub fn identity(&self) -> &RunIdentity {
        &self.life.identity
    }

    /// Which process this is, of those that work on the run at the same time.
    pub fn rank(&self) -> Rank {
        self.life.rank
    }

    /// The collector that it tells.
    pub fn collector(&self) -> &Collector {
        &self.life.collector
    }

    /// Says at which step the loop is. Heartbeats, epochs and the end of the run carry it.
    #[inline]
    pub fn set_step(&self, step: u64) {
        self.life.next_step.store(step.saturating_add(1), Ordering::Relaxed);
    }

    /// Tells that an epoch begins: number `epoch`, from 1, of `total`. The value tells its end.
    pub fn epoch(&self, epoch: u64, total: u64) -> Epoch {
        self.life.epoch.store(epoch.saturating_add(1), Ordering::Relaxed);
        // At the step that it begins with, so that a resume from there supersedes it.
        let next = self.life.next_step.load(Ordering::Relaxed);
        let started = training::EpochStarted { epoch, total_epochs: total };
        self.life.collector.collect(Record::from(started).with_step(next));
        Epoch { life: Arc::clone(&self.life), epoch, began: Instant::now() }
    }

    /// Tells that a batch is done, as a low event at the step of its number. Allocates; for the price of a scalar,
    /// collect a [`Record::scalar`].
    pub fn batch_completed(&self, batch: u64, loss: f64, metrics: impl Into<Fields>) -> Outcome {
        self.set_step(batch);
        self.life.tell(training::BatchCompleted { batch, loss, metrics: metrics.into() })
    }

    /// Tells that no model was better before.
    pub fn new_best_model(&self, epoch: u64, loss: f64) -> Outcome {
        self.life.tell(training::NewBestModel { epoch, loss })
    }

    /// Tells that the run ends well.
    ///
    /// # Errors
    ///
    /// The collector did not take it (it is stopped, or its critical lane stayed full); or it was told, but the flush before
    /// or after it did not end well. (What sinks failed to take is told by the next flush or stop.) A run that has ended
    /// already, as by a signal, tells nothing more, and is flushed.
    pub fn completed(self, final_metrics: impl Into<Fields>) -> Result<(), RunError> {
        let total_duration = self.life.began.elapsed();
        self.life.end(training::Completed { final_metrics: final_metrics.into(), total_duration })
    }

    /// Tells that the run ends early, on purpose.
    ///
    /// # Errors
    ///
    /// As for [`completed`](Self::completed).
    pub fn early_stopped(self, reason: impl Into<String>) -> Result<(), RunError> {
        let epoch = self.life.epoch().unwrap_or_default();
        self.life.end(training::EarlyStopped { epoch, reason: reason.into() })
    }

    /// Tells that the run ends badly.
    ///
    /// # Errors
    ///
    /// As for [`completed`](Self::completed).
    pub fn failed(self, error: impl fmt::Display) -> Result<(), RunError> {
        self.life.end(failed(error.to_string(), None, self.life.epoch()))
    }

    /// Tells that the run was interrupted, and may be resumed.
    ///
    /// # Errors
    ///
    /// As for [`completed`](Self::completed).
    pub fn preempted(self, reason: impl Into<String>) -> Result<(), RunError> {
        self.life.end(training::Preempted { reason: reason.into(), epoch: self.life.epoch() })
    }

    /// Does all of it: runs `body`, then tells that the run has completed, or has failed with the error of `body`, which
    /// comes back. A panic of `body` is told as well, and goes on.
    ///
    /// # Errors
    ///
    /// That of `body`.
    pub fn within<T, E: fmt::Display>(self, body: impl FnOnce(&Self) -> Result<T, E>) -> Result<T, E> {
        let result = body(&self);
        // How the flush went is told by the statistics.
        let _ = match &result {
            Ok(_) => self.completed(Fields::new()),
            Err(error) => self.failed(error),
        };
        result
    }
}

fn failed(error: impl Into<String>, traceback: Option<String>, epoch: Option<u64>) -> training::Failed {
    training::Failed { error: error.into(), traceback, epoch }
}

/// Adds what tells a run from others, to an event whose reader may not have its begin.
fn identified(record: Record, run: &RunIdentity) -> Record {
    let record = record.with_field("run_id", run.run_id.clone()).with_field("generation", run.generation);
    match &run.name {
        Some(name) => record.with_field("name", name.clone()),
        None => record,
    }
}

impl Life {
    /// Says that the run lives, again and again.
    fn beat(&self) {
        let mut stage = self.stage.lock();
        while *stage == Stage::Running {
            let next = Instant::now().checked_add(self.heartbeat);
            while *stage == Stage::Running && !self.changed.wait_until(&mut stage, next) {}
            if *stage == Stage::Running {
                // The lock is not held in the call, which may wait. Who tells the end waits for it: nothing is told behind
                // the end.
                self.is_beating.store(1, Ordering::Relaxed);
                drop(stage);
                // With all that a reader needs who finds the begin no longer.
                let alive = identified(Record::new(HEARTBEAT), &self.identity)
                    .with_field("rank", self.rank.rank)
                    .with_field("world_size", self.rank.world_size)
                    .with_field("heartbeat", self.heartbeat)
                    .with_field("uptime", self.began.elapsed());
                self.tell(alive.with_priority(Priority::Critical));
                stage = self.stage.lock();
                self.is_beating.store(0, Ordering::Relaxed);
                self.changed.notify_all();
            }
        }
    }

    fn epoch(&self) -> Option<u64> {
        self.epoch.load(Ordering::Relaxed).checked_sub(1)
    }

    /// At the step that was done last.
    fn tell(&self, event: impl Into<Record>) -> Outcome {
        let record = event.into();
        self.collector.collect(match self.next_step.load(Ordering::Relaxed).checked_sub(1) {
            Some(step) => record.with_step(step),
            None => record,
        })
    }

    /// Tells the end, once.
    fn end(&self, event: impl Into<Record>) -> Result<(), RunError> {
        self.end_within(event, self.collector.config().flush_timeout)
    }

    fn end_within(&self, event: impl Into<Record>, timeout: Duration) -> Result<(), RunError> {
        // In a forked child, the holder of the lock may not exist.
        if self.collector.state() == State::Forked {
            return Err(RunError::EndNotCollected(Outcome::Forked));
        }
        let deadline = deadline_in(timeout);
        let mut stage = self.stage.lock();
        if *stage != Stage::Running {
            // Another thread tells it just now, or has: whoever is next may stop the collector.
            while *stage != Stage::Told && !self.changed.wait_until(&mut stage, deadline) {}
            drop(stage);
            return Ok(self.flush(deadline)?);
        }
        *stage = Stage::Ending;
        self.changed.notify_all();
        let is_beating = || self.is_beating.load(Ordering::Relaxed) != 0;
        while is_beating() && !self.changed.wait_until(&mut stage, deadline) {}
        drop(stage);
        // The end is critical, and would come before what was collected before it.
        let before = self.flush(deadline);
        let outcome = self.tell(event);
        let after = self.flush(deadline);
        *self.stage.lock() = Stage::Told;
        self.changed.notify_all();
        if !outcome.is_queued() {
            return Err(RunError::EndNotCollected(outcome));
        }
        Ok(before.and(after)?)
    }

    /// What happened until then is the caller's to ask: the next flush tells it.
    fn flush(&self, deadline: Option<Instant>) -> Result<(), FlushError> {
        let left = deadline.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
        self.collector.shared.flush(Reply::unheard(), left).map(drop)
    }
}

impl Drop for TrainingRun {
    fn drop(&mut self) {
        if self.life.collector.state() == State::Forked {
            // Neither its heart nor whoever held a lock exists here.
            std::mem::forget((self.heart.take(), Arc::clone(&self.life)));
            return;
        }
        let has_ended = *self.life.stage.lock() != Stage::Running;
        if !has_ended {
            let (error, place) = match last_panic::take_since(self.life.began).filter(|_| is_panicking()) {
                Some((said, place)) => (format!("panicked: {said}"), place),
                None if is_panicking() => ("panicked".to_owned(), None),
                None => ("dropped before it was told how it ended".to_owned(), None),
            };
            let event = failed(error, place, self.life.epoch());
            // Nobody is left to be told how that went.
            let _ = self.life.end_within(event, self.life.collector.config().drop_timeout);
        }
        if let Some(heart) = self.heart.take() {
            // It was rung, and waits for room in a full lane at most.
            sync::join(heart);
        }
    }
}

impl fmt::Debug for TrainingRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrainingRun")
            .field("identity", &self.life.identity)
            .field("rank", &self.life.rank)
            .finish_non_exhaustive()
    }
}

/// An epoch that has begun. Dropped, it is told of no more. It keeps the collector, like a handle of it.
#[must_use = "without `completed`, the end of the epoch is not told"]
pub struct Epoch {
    life: Arc<Life>,
    epoch: u64,
    began: Instant,
}

impl Epoch {
    /// Tells that it is done, how long it took, and what was measured.
    pub fn completed(self, metrics: impl Into<Fields>) -> Outcome {
        let (epoch, metrics, duration) = (self.epoch, metrics.into(), self.began.elapsed());
        self.life.tell(training::EpochCompleted { epoch, metrics, duration })
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Epoch").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::MemorySink;

    #[test]
    fn no_heartbeat_is_told_behind_the_end() {
        let memory = MemorySink::new();
        let collector = Collector::builder().sink(memory.clone()).start().unwrap();
        let run = TrainingRun::builder().start(&collector).unwrap();
        let life = Arc::clone(&run.life);
        // The heart has seen the run go on, and is about to tell so.
        life.is_beating.store(1, Ordering::Relaxed);
        let ends = sync::spawn("ends", None, move || run.completed(Fields::new()).unwrap()).unwrap();
        while *life.stage.lock() != Stage::Ending {
            std::hint::spin_loop();
        }
        // Time for an end that came too early.
        (0..200).for_each(|_| drop(collector.flush().unwrap()));
        life.tell(Record::new(HEARTBEAT).with_priority(Priority::Critical));
        let stage = life.stage.lock();
        life.is_beating.store(0, Ordering::Relaxed);
        life.changed.notify_all();
        drop(stage);
        sync::join(ends);
        let names: Vec<String> = memory.events().iter().map(|record| record.name().to_owned()).collect();
        assert_eq!(names, ["training.started", HEARTBEAT, "training.completed"]);
        collector.stop().unwrap();
        collector.stats().check_law(3).unwrap();
    }
}
