//! `start` and `stop` of a collector.

use std::io;
use std::time::{Duration, Instant};

use super::flush::in_sink;
use super::{Collector, FlushError};
use crate::clock::deadline_in;
use crate::config::ConfigError;
use crate::dispatch::LateFlush;
use crate::event::Event;
use crate::lanes::OutOfMemory;
use crate::mailbox::{Contents, WorkerSlot};
use crate::reply::Reply;
use crate::shared::Shared;
use crate::stats::{FlushReport, StopReport};
use crate::sync::{self, Arc, MutexGuard};
use crate::wake::Closed;
use crate::worker;
use crate::worker_state::WorkerState;

/// Error of a collector that could not be built.
///
/// # Examples
///
/// ```
/// use forebay::Collector;
///
/// let error = Collector::builder().capacity(0).build().unwrap_err();
/// assert_eq!(error.to_string(), "invalid capacity: 0 (expected 1..=1073741824)");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A setting is outside of what is allowed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Two sinks have the same name. Statistics and `remove_sink` could not tell them apart.
    #[error("a sink named {name:?} already exists")]
    DuplicateSink {
        /// The name.
        name: String,
    },
    /// A lane does not fit into memory. Some systems promise more memory than they have; there, a lane that fits may
    /// still take more than there is.
    #[error("{field} must fit into memory, got {slots} slots of {slot_bytes} bytes")]
    #[non_exhaustive]
    OutOfMemory {
        /// The setting, as a field of [`Config`](crate::Config).
        field: &'static str,
        /// The value it has.
        slots: usize,
        /// The size of each slot, in bytes.
        slot_bytes: usize,
    },
    /// A sink has forked while it was added, and this is the child. The sinks are those of the parent.
    #[error("this process is a fork of the one in which the collector is built")]
    Forked,
}

impl From<OutOfMemory> for BuildError {
    fn from(OutOfMemory { field, slots, slot_bytes }: OutOfMemory) -> Self {
        Self::OutOfMemory { field, slots, slot_bytes }
    }
}

/// Error of a collector that could not be started. The collector is as it was before the call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The collector could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The system refused a thread.
    #[error("cannot create the worker thread: {0}")]
    Thread(#[source] io::Error),
    /// The worker of an earlier `stop` has not ended yet, because a sink keeps it busy.
    #[error("the worker of the last run is still stopping")]
    StillStopping,
    /// The worker ended by a panic in forebay itself, and its sinks with it.
    #[error("the worker thread is gone")]
    WorkerGone,
    /// This process is a forked child. Build a new collector here.
    #[error("this process is a fork of the one that built the collector")]
    Forked,
}

impl From<ConfigError> for StartError {
    fn from(error: ConfigError) -> Self {
        StartError::Build(error.into())
    }
}

/// Error of a stop.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use forebay::collector::StopError;
/// use forebay::sink::from_fn;
/// use forebay::{Batch, Collector, Record};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (release, released) = std::sync::mpsc::channel::<()>();
/// let hangs = from_fn("disk", move |_: &Batch| {
///     _ = released.recv();
///     Ok(())
/// });
/// let collector = Collector::builder().sink(hangs).start()?;
/// collector.collect(Record::new("train.started"));
/// if let Err(StopError::TimedOut { report }) = collector.stop_timeout(Duration::from_millis(1)) {
///     assert_eq!(report.left_behind, 1);
/// }
/// release.send(())?;
/// assert_eq!(collector.stop()?.stats.processed, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StopError {
    /// The deadline passed first. The worker goes on, and ends by itself if its sink ever returns.
    #[error(
        "stop did not end within {:?}, {} events are left behind{}",
        .report.elapsed, .report.left_behind, in_sink(&.report.busy_sink)
    )]
    TimedOut {
        /// The report up to the deadline.
        report: Box<StopReport>,
    },
    /// The worker ended by a panic in forebay itself.
    #[error("the worker thread is gone")]
    WorkerGone,
    /// This process is a forked child, and the worker lives in the parent.
    #[error("this process is a fork of the one that started the collector")]
    Forked,
    /// The call came from a sink on the worker thread, which would have to wait for itself.
    #[error("called on the worker thread, which cannot wait for itself")]
    OnWorker,
}

crate::sync::from_forked!(StartError, StopError);

impl<E: Event> Collector<E> {
    /// Starts the worker thread. A running collector stays as it is. A stopped one starts again with its sinks and
    /// continues its numbers. Events that were collected before the first start are delivered now.
    ///
    /// # Errors
    ///
    /// No thread could be created, the worker of the last run has not ended yet, the worker is gone, or this is a
    /// forked child. Nothing changes then.
    pub fn start(&self) -> Result<(), StartError> {
        let mut contents = self.shared.mailbox.contents.enter()?;
        let state = match std::mem::replace(&mut contents.worker, WorkerSlot::WithWorker) {
            WorkerSlot::InMailbox(state) => state,
            other => {
                let is_lost = matches!(other, WorkerSlot::Lost);
                contents.worker = other;
                return match is_lost {
                    true => Err(StartError::WorkerGone),
                    false if self.is_running() => Ok(()),
                    false => Err(StartError::StillStopping),
                };
            }
        };
        let shared = Arc::clone(&self.shared);
        let config = self.shared.settings.config();
        // The worker's first act is to take the state from the contents. We hold these until the phase is open.
        let body = move || worker::work(&shared);
        match sync::spawn(&config.thread_name, config.thread_stack_size, body) {
            Ok(thread) => {
                contents.worker = WorkerSlot::Starting(state);
                contents.thread = Some(thread);
                contents.late = Vec::new();
                contents.run += 1;
                self.shared.phase.open();
                Ok(())
            }
            Err(error) => {
                contents.worker = WorkerSlot::InMailbox(state);
                Err(StartError::Thread(error))
            }
        }
    }

    /// Refuses new events, delivers queued ones, flushes the sinks and ends the worker thread, in that order, within
    /// [`Config::stop_timeout`](crate::Config::stop_timeout).
    ///
    /// Every call reports the same end, also from several threads. The collector can be started again. One that was
    /// never started discards what is queued and counts it as rejected.
    ///
    /// The worker thread is joined. Where the code of a sink has left a thread-local value there whose destructor takes long, the
    /// stop takes as long, beyond its deadline.
    ///
    /// # Errors
    ///
    /// The deadline passed, the worker is gone, this is a forked child, or this is the worker thread. After the
    /// deadline, the error carries the report with what was left behind and the sink that hangs. The worker ends by
    /// itself if that sink returns.
    pub fn stop(&self) -> Result<StopReport, StopError> {
        self.stop_timeout(self.config().stop_timeout)
    }

    /// Stops like [`stop`](Self::stop), with another deadline.
    ///
    /// # Errors
    ///
    /// As for [`stop`](Self::stop).
    pub fn stop_timeout(&self, timeout: Duration) -> Result<StopReport, StopError> {
        self.shared.stop(timeout)
    }
}

/// A stop that has begun: the collector accepts no events.
#[derive(Clone, Copy)]
pub(crate) struct Stopping {
    begun: Instant,
    run: u64,
    /// Number of events of a collector that never had a worker, which were discarded.
    discarded: u64,
}

/// End that a task which stops a collector waits for.
pub(crate) enum RunEnd {
    /// The worker, which tells here when it has ended.
    Ahead(Arc<Reply<()>>),
    /// The flushes that other threads have to finish.
    Reached(Vec<Arc<LateFlush>>),
}

impl<E: Event> Shared<E> {
    pub(crate) fn stop(&self, timeout: Duration) -> Result<StopReport, StopError> {
        let deadline = deadline_in(timeout);
        let stopping = self.begin_stop()?;
        let mut contents = self.mailbox.contents.lock();
        if !self.await_end(&mut contents, stopping.run, deadline) {
            drop(contents);
            let busy = self.registry.busy();
            let report = Box::new(self.stop_report(&stopping, self.pending(), busy));
            return Err(StopError::TimedOut { report });
        }
        let late = self.end_run(contents, stopping.run)?;
        // Waits for all of them, even after one that does not end.
        let hung: Vec<_> = late.iter().filter(|late| !late.wait(deadline)).collect();
        self.finish_stop(&stopping, hung.first().map(|late| &***late))
    }

    /// Refuses events from now on, and does for a collector that never had a worker what the worker would have done.
    pub(crate) fn begin_stop(&self) -> Result<Stopping, StopError> {
        let begun = Instant::now();
        match self.refuse_waiting() {
            Err(FlushError::Forked) => return Err(StopError::Forked),
            Err(_) => return Err(StopError::OnWorker),
            Ok(()) => {}
        }
        let (state, run) = self.close();
        let discarded = match state {
            Some(state) => {
                // Events and sinks must not wait for what this thread does in the place of the worker, nor the threads that they begin here.
                let _mark = self.mark_worker();
                let late = self.lanes.take_all();
                if let Err(forked) = self.mailbox.contents.check() {
                    std::mem::forget((late, state));
                    return Err(forked.into());
                }
                let discarded = self.discard(late);
                worker::return_state(self, state, &FlushReport::default());
                discarded
            }
            None => 0,
        };
        // An event or a sink may have forked on this thread. Then the locks are the parent's.
        self.mailbox.contents.check()?;
        self.space_waiters.wake_all();
        Ok(Stopping { begun, run, discarded })
    }

    /// Returns what a task has to wait for next.
    pub(crate) fn next_of_stop(&self, stopping: &Stopping) -> Result<RunEnd, StopError> {
        let mut contents = self.mailbox.contents.enter()?;
        if is_out(&contents, stopping.run) {
            return Ok(RunEnd::Ahead(Arc::clone(contents.end.get_or_insert_with(Reply::new))));
        }
        self.end_run(contents, stopping.run).map(RunEnd::Reached)
    }

    /// Joins the worker of a run that has ended. Returns the flushes that other threads have to finish.
    fn end_run(
        &self,
        mut contents: MutexGuard<'_, Contents<E, WorkerState<E>>>,
        run: u64,
    ) -> Result<Vec<Arc<LateFlush>>, StopError> {
        let is_ours = contents.run == run;
        let is_lost = is_ours && matches!(contents.worker, WorkerSlot::Lost);
        // The worker's last act was to return the state, so the join waits for no user code: a worker that then wakes
        // tasks has taken its handle away. A lost worker may still be dropping its state.
        let thread = if is_ours && !is_lost { contents.thread.take() } else { None };
        let late = if is_ours { contents.late.clone() } else { Vec::new() };
        drop(contents);
        if let Some(thread) = thread {
            sync::join(thread);
        }
        if is_lost { Err(StopError::WorkerGone) } else { Ok(late) }
    }

    /// Returns the result of a stop after the worker has ended, and the first sink whose own thread did not.
    pub(crate) fn finish_stop(
        &self,
        stopping: &Stopping,
        hung: Option<&LateFlush>,
    ) -> Result<StopReport, StopError> {
        let report = self.stop_report(stopping, stopping.discarded, hung.map(|late| late.tally.name.clone()));
        match hung {
            None => Ok(report),
            Some(_) => Err(StopError::TimedOut { report: Box::new(report) }),
        }
    }

    fn stop_report(&self, stopping: &Stopping, left_behind: u64, busy_sink: Option<String>) -> StopReport {
        StopReport {
            stats: self.stats(),
            left_behind,
            busy_sink,
            elapsed: stopping.begun.elapsed(),
            session_id: self.origin.session_id.clone(),
            run: self.run.get().as_deref().cloned(),
        }
    }

    /// Refuses events from now on, and returns the run that this ends. If the collector never had a worker, also
    /// returns the state: the caller does what the worker would have done, and nothing can start meanwhile.
    fn close(&self) -> (Option<Box<WorkerState<E>>>, u64) {
        let mut contents = self.mailbox.contents.lock();
        let state =
            match (self.phase.close(), std::mem::replace(&mut contents.worker, WorkerSlot::WithWorker)) {
                (Closed::NeverStarted, WorkerSlot::InMailbox(state)) => Some(state),
                (_, state) => {
                    contents.worker = state;
                    None
                }
            };
        (state, contents.run)
    }

    /// Waits until no worker of this run has the state. Returns `false` when the deadline comes first.
    fn await_end(
        &self,
        contents: &mut MutexGuard<'_, Contents<E, WorkerState<E>>>,
        run: u64,
        deadline: Option<Instant>,
    ) -> bool {
        while is_out(contents, run) {
            if self.mailbox.ended.wait_until(contents, deadline) {
                return !is_out(contents, run);
            }
        }
        true
    }
}

/// Returns whether a worker of this run has the state, or is about to take it.
fn is_out<E, W>(contents: &Contents<E, W>, run: u64) -> bool {
    contents.run == run && matches!(contents.worker, WorkerSlot::Starting(_) | WorkerSlot::WithWorker)
}
