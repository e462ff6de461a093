//! Training runs: what begins, ends and identifies them.
//!
//! A run reports itself by events, so that every sink keeps it: `training.started`, a heartbeat at an interval, and one of
//! `training.completed`, `early_stopped`, `failed` or `preempted`. These events alone show
//! `forebay_history::runs` which runs are alive, which have ended, and which have vanished.

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
use crate::event::{Event, Fields, Priority, Record};
use crate::outcome::Outcome;
use crate::reply::Reply;
use crate::sync::{self, Arc, Condvar, JoinHandle, Mutex, Ordering, PlainU64, catch_panic, is_panicking};
use crate::wake::State;

/// Guard of a training run. It reports the begin of the run, its epochs and batches, and its end.
///
/// A guard that is dropped without [`completed`](Self::completed), [`early_stopped`](Self::early_stopped),
/// [`failed`](Self::failed) or [`preempted`](Self::preempted) reports that the run has failed. If a panic drops it,
/// the report has the message and the place of the panic.
///
/// The run has one identity in every file and report: see [`RunIdentity`].
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
/// [`set_step`](Self::set_step) is one store. The other methods make a record with fields, which allocates. Begin and end
/// flush before they report, so that they stand in order among the other events; the end flushes afterwards as well. A thread of
/// its own sends the heartbeats and sleeps in between. They go on while the loop computes for an hour, and end with the process.
///
/// The first run of a process installs a panic hook in front of the present one, to learn the message of a panic.
/// Where that hook is not called (another one was set later, or `resume_unwind` carries a panic from another thread),
/// the run reports a panic without its message.
///
/// In a forked child, the guard does nothing.
///
/// # Several runs of one collector
///
/// A collector works on one run at a time: what it collects belongs to the run that began last, also once that has ended.
/// End a run before you start the next one. If two overlap, their heartbeats and ends still name their own run in the
/// fields `run_id` and `generation`. `run_info` and `forebay_history::runs` go by these, so neither ends the other. All
/// other events, such as the epochs of the first, count to the second.
///
/// In a loop, `run = TrainingRun::builder().start(&collector)?` begins the next run before it drops the last one, which
/// then reports that it has failed.
pub struct TrainingRun<E: Event + From<Record> = Record> {
    life: Arc<Life<E>>,
    heartbeat_thread: Option<JoinHandle<()>>,
}

/// State that the guard, its heartbeat thread and its epochs share.
struct Life<E: Event> {
    collector: Collector<E>,
    identity: Arc<RunIdentity>,
    rank: Rank,
    began: Instant,
    heartbeat: Duration,
    /// The present epoch plus one; 0 before the first.
    epoch: PlainU64,
    /// The step that comes next.
    next_step: PlainU64,
    stage: Mutex<Stage>,
    /// 1 while the heartbeat thread, which has seen the run alive, reports that. Changes under the lock of `stage`.
    is_beating: PlainU64,
    /// Notified when `stage` or `is_beating` changes.
    changed: Condvar,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    /// A thread is about to report the end.
    Ending,
    Reported,
}

/// Reason why a run could not start, or its end was not reported.
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

impl<E: Event + From<Record>> TrainingRun<E> {
    /// Returns the id of the run.
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

    /// Returns the rank: which of the processes this is that work on the run at the same time.
    pub fn rank(&self) -> Rank {
        self.life.rank
    }

    /// Returns the collector that gets the events of the run.
    pub fn collector(&self) -> &Collector<E> {
        &self.life.collector
    }

    /// Sets the step of the loop. Heartbeats, [`new_best_model`](Self::new_best_model), the end of an epoch and the end of the run
    /// carry it. [`batch_completed`](Self::batch_completed) sets it to the number of its batch.
    #[inline]
    pub fn set_step(&self, step: u64) {
        self.life.next_step.store(step.saturating_add(1), Ordering::Relaxed);
    }

    /// Reports that an epoch begins: number `epoch`, from 1, of `total`. Use the returned value to report its end.
    pub fn epoch(&self, epoch: u64, total: u64) -> Epoch<E> {
        self.life.epoch.store(epoch.saturating_add(1), Ordering::Relaxed);
        // At the step that it begins with, so that a resume from there supersedes it.
        let next = self.life.next_step.load(Ordering::Relaxed);
        let started = training::EpochStarted { epoch, total_epochs: total };
        self.life.collector.collect(Record::from(started).with_step(next));
        Epoch { life: Arc::clone(&self.life), epoch, began: Instant::now() }
    }

    /// Reports that a batch is done, as an event of low priority at the step of its number. It allocates; a
    /// [`Record::scalar`] does not.
    pub fn batch_completed(&self, batch: u64, loss: f64, metrics: impl Into<Fields>) -> Outcome {
        self.set_step(batch);
        self.life.report(training::BatchCompleted { batch, loss, metrics: metrics.into() })
    }

    /// Reports that no model was better before.
    pub fn new_best_model(&self, epoch: u64, loss: f64) -> Outcome {
        self.life.report(training::NewBestModel { epoch, loss })
    }

    /// Reports that the run has completed, and flushes.
    ///
    /// # Errors
    ///
    /// The collector did not take the event: it is stopped, or its critical lane stayed full. Or it did, but a flush
    /// before or after it failed. (The next flush or stop reports what sinks failed to take.) A run that has ended
    /// already, as by a signal, reports nothing more, and is flushed.
    pub fn completed(self, final_metrics: impl Into<Fields>) -> Result<(), RunError> {
        let total_duration = self.life.began.elapsed();
        self.life.end(training::Completed { final_metrics: final_metrics.into(), total_duration })
    }

    /// Reports that the run ends early, on purpose, and flushes.
    ///
    /// # Errors
    ///
    /// As for [`completed`](Self::completed).
    pub fn early_stopped(self, reason: impl Into<String>) -> Result<(), RunError> {
        let epoch = self.life.epoch().unwrap_or_default();
        self.life.end(training::EarlyStopped { epoch, reason: reason.into() })
    }

    /// Reports that the run has failed, and flushes.
    ///
    /// # Errors
    ///
    /// As for [`completed`](Self::completed).
    pub fn failed(self, error: impl fmt::Display) -> Result<(), RunError> {
        self.life.end(failed(error.to_string(), None, self.life.epoch()))
    }

    /// Reports that the run was interrupted and may be resumed, and flushes.
    ///
    /// # Errors
    ///
    /// As for [`completed`](Self::completed).
    pub fn preempted(self, reason: impl Into<String>) -> Result<(), RunError> {
        self.life.end(training::Preempted { reason: reason.into(), epoch: self.life.epoch() })
    }

    /// Runs `body`, then reports that the run has completed, or has failed with the error of `body`. A panic of `body`
    /// is reported as well, and goes on.
    ///
    /// # Errors
    ///
    /// Returns the error of `body`.
    pub fn within<T, F: fmt::Display>(self, body: impl FnOnce(&Self) -> Result<T, F>) -> Result<T, F> {
        let result = body(&self);
        // The statistics show how the flush ended.
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

/// Adds the id and the generation of the run to an event.
fn with_id(record: Record, run: &RunIdentity) -> Record {
    record.with_field("run_id", run.run_id.clone()).with_field("generation", run.generation)
}

/// Adds the identity of the run to an event.
fn identified(record: Record, run: &RunIdentity) -> Record {
    let record = with_id(record, run);
    match &run.name {
        Some(name) => record.with_field("name", name.clone()),
        None => record,
    }
}

impl<E: Event + From<Record>> Life<E> {
    /// Reports at the interval of the heartbeat that the process lives, until the run ends.
    fn send_heartbeats(&self) {
        let mut stage = self.stage.lock();
        while *stage == Stage::Running {
            let next = Instant::now().checked_add(self.heartbeat);
            while *stage == Stage::Running && !self.changed.wait_until(&mut stage, next) {}
            if *stage == Stage::Running {
                // The call runs user code, so the lock is not held. Whoever reports the end waits for it: no heartbeat comes behind the
                // end.
                self.is_beating.store(1, Ordering::Relaxed);
                drop(stage);
                // With all that a reader needs for which the begin is not kept any more.
                let alive = identified(Record::new(HEARTBEAT), &self.identity)
                    .with_field("rank", self.rank.rank)
                    .with_field("world_size", self.rank.world_size)
                    .with_field("heartbeat", self.heartbeat)
                    .with_field("uptime", self.began.elapsed());
                // Where the lane is full, or the code of an event panics, the next one may get in.
                let _ = catch_panic(|| self.try_report(alive.with_priority(Priority::Critical)));
                stage = self.stage.lock();
                self.is_beating.store(0, Ordering::Relaxed);
                self.changed.notify_all();
            }
        }
    }

    fn epoch(&self) -> Option<u64> {
        self.epoch.load(Ordering::Relaxed).checked_sub(1)
    }

    /// Collects an event at the step that was done last.
    fn report(&self, event: impl Into<Record>) -> Outcome {
        self.collector.collect(self.at_last_step(event.into()))
    }

    /// Collects an event as `report` does, but never waits for space.
    fn try_report(&self, event: impl Into<Record>) -> Outcome {
        let tried = self.collector.try_collect(self.at_last_step(event.into()));
        tried.unwrap_or_else(|refused| refused.reason.into())
    }

    /// Collects an event as `report` does, but waits for space only where that ends by the deadline.
    fn report_by(&self, event: impl Into<Record>, deadline: Option<Instant>) -> Outcome {
        let wait_end = Instant::now().checked_add(self.collector.config().critical_timeout);
        let is_in_time = deadline.is_none_or(|deadline| wait_end.is_some_and(|end| end <= deadline));
        if is_in_time { self.report(event) } else { self.try_report(event) }
    }

    fn at_last_step(&self, record: Record) -> Record {
        match self.next_step.load(Ordering::Relaxed).checked_sub(1) {
            Some(step) => record.with_step(step),
            None => record,
        }
    }

    /// Reports the end, once.
    fn end(&self, event: impl Into<Record>) -> Result<(), RunError> {
        self.end_timeout(event, self.collector.config().flush_timeout)
    }

    fn end_timeout(&self, event: impl Into<Record>, timeout: Duration) -> Result<(), RunError> {
        // In a forked child, the holder of the lock may not exist.
        if self.collector.state() == State::Forked {
            return Err(RunError::EndNotCollected(Outcome::Forked));
        }
        let deadline = deadline_in(timeout);
        let mut stage = self.stage.lock();
        if *stage != Stage::Running {
            // Another thread reports it now, or has. The caller may stop the collector next, so it waits for that thread.
            while *stage != Stage::Reported && !self.changed.wait_until(&mut stage, deadline) {}
            drop(stage);
            return Ok(self.flush(deadline)?);
        }
        *stage = Stage::Ending;
        self.changed.notify_all();
        let is_beating = || self.is_beating.load(Ordering::Relaxed) != 0;
        while is_beating() && !self.changed.wait_until(&mut stage, deadline) {}
        drop(stage);
        // The end is critical, and would overtake what was collected before it.
        let before = self.flush(deadline);
        // With its run, because the collector may work on another one by now.
        let outcome = self.report_by(with_id(event.into(), &self.identity), deadline);
        let after = self.flush(deadline);
        *self.stage.lock() = Stage::Reported;
        self.changed.notify_all();
        if !outcome.is_queued() {
            return Err(RunError::EndNotCollected(outcome));
        }
        Ok(before.and(after)?)
    }

    /// Flushes the collector, and leaves the report to the next flush.
    fn flush(&self, deadline: Option<Instant>) -> Result<(), FlushError> {
        let left = deadline.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
        self.collector.shared.flush(Reply::unheard(), left).map(drop)
    }
}

impl<E: Event + From<Record>> Drop for TrainingRun<E> {
    fn drop(&mut self) {
        if self.life.collector.state() == State::Forked {
            // The heartbeat thread does not exist here, nor does a thread that may hold a lock.
            std::mem::forget((self.heartbeat_thread.take(), Arc::clone(&self.life)));
            return;
        }
        let has_ended = *self.life.stage.lock() != Stage::Running;
        if !has_ended {
            let (error, place) = match last_panic::take_since(self.life.began).filter(|_| is_panicking()) {
                Some((said, place)) => (format!("panicked: {said}"), place),
                None if is_panicking() => ("panicked".to_owned(), None),
                None => ("dropped before its end was reported".to_owned(), None),
            };
            let event = failed(error, place, self.life.epoch());
            // No caller is left who could get the error.
            let _ = self.life.end_timeout(event, self.life.collector.config().drop_timeout);
        }
        if let Some(thread) = self.heartbeat_thread.take() {
            // It was notified, and waits for nothing.
            sync::join(thread);
        }
    }
}

impl<E: Event + From<Record>> fmt::Debug for TrainingRun<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrainingRun")
            .field("identity", &self.life.identity)
            .field("rank", &self.life.rank)
            .finish_non_exhaustive()
    }
}

/// Epoch that has begun. Nothing is reported when it is dropped. It holds a handle of the collector.
///
/// # Examples
///
/// ```
/// use forebay::run::TrainingRun;
/// use forebay::{Collector, fields, sink::MemorySink};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let memory = MemorySink::new();
/// let collector = Collector::builder().sink(memory.clone()).start()?;
/// let run = TrainingRun::builder().start(&collector)?;
/// let epoch = run.epoch(1, 1);
/// epoch.completed(fields! { "loss": 0.12 });
/// run.completed(forebay::Fields::new())?;
/// collector.stop()?;
/// assert!(memory.events().iter().any(|event| event.name().contains("epoch_completed")));
/// # Ok(())
/// # }
/// ```
#[must_use = "without `completed`, the end of the epoch is not reported"]
pub struct Epoch<E: Event + From<Record> = Record> {
    life: Arc<Life<E>>,
    epoch: u64,
    began: Instant,
}

impl<E: Event + From<Record>> Epoch<E> {
    /// Reports that the epoch is done, its duration, and what was measured.
    pub fn completed(self, metrics: impl Into<Fields>) -> Outcome {
        let (epoch, metrics, duration) = (self.epoch, metrics.into(), self.began.elapsed());
        self.life.report(training::EpochCompleted { epoch, metrics, duration })
    }
}

impl<E: Event + From<Record>> fmt::Debug for Epoch<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Epoch").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::MemorySink;

    #[test]
    fn neither_the_end_of_a_run_nor_a_heartbeat_waits_longer_for_a_full_lane_than_the_end_may_take() {
        // Nobody drains it, and a critical event would wait for ever.
        let build = || {
            let builder = Collector::builder().critical_capacity(1).critical_timeout(Duration::MAX);
            builder.flush_timeout(Duration::ZERO).drop_timeout(Duration::ZERO).build().unwrap()
        };
        let collector = build();
        let run = TrainingRun::builder().heartbeat(Duration::from_millis(1)).start(&collector).unwrap();
        while collector.stats().rejected.full == 0 {
            std::hint::spin_loop();
        }
        let error = run.completed(Fields::new()).unwrap_err();
        assert!(matches!(error, RunError::EndNotCollected(Outcome::Full)), "{error}");
        let stats = collector.stats();
        stats.check_law(stats.rejected.full + 1).unwrap();

        let collector = build();
        drop(TrainingRun::builder().start(&collector).unwrap());
        let stats = collector.stats();
        assert_eq!(stats.rejected.full, 1);
        stats.check_law(2).unwrap();
    }

    #[test]
    fn no_heartbeat_comes_behind_the_end() {
        let memory = MemorySink::new();
        let collector = Collector::builder().sink(memory.clone()).start().unwrap();
        let run = TrainingRun::builder().start(&collector).unwrap();
        let life = Arc::clone(&run.life);
        // The heartbeat thread has seen the run alive, and is about to report that.
        life.is_beating.store(1, Ordering::Relaxed);
        let ends = sync::spawn("ends", None, move || run.completed(Fields::new()).unwrap()).unwrap();
        while *life.stage.lock() != Stage::Ending {
            std::hint::spin_loop();
        }
        // Time for an end that came too early.
        (0..200).for_each(|_| drop(collector.flush().unwrap()));
        life.report(Record::new(HEARTBEAT).with_priority(Priority::Critical));
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
