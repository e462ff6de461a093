//! `add_sink` and `remove_sink`: sinks that come and go while the collector exists.

use std::time::Instant;

use super::{Collector, FlushError};
use crate::clock::deadline_in;
use crate::dispatch::{NotRegistered, Prepared, Retired, retire};
use crate::event::Event;
use crate::mailbox::{Removal, WorkerSlot};
use crate::reply::Reply;
use crate::shared::Shared;
use crate::sink::Sink;
use crate::stats::SinkStats;
use crate::sync::{Arc, Forked};
use crate::wake::State;

/// Error of a sink that could not be added or removed.
///
/// # Examples
///
/// ```
/// use forebay::{Collector, sink::MemorySink};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let collector = Collector::builder().sink(MemorySink::new()).start()?;
/// let error = collector.add_sink(MemorySink::new()).unwrap_err();
/// assert_eq!(error.to_string(), "a sink named \"memory\" already exists");
/// let stats = collector.remove_sink("memory")?;
/// assert_eq!(stats.delivered, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SinkChangeError {
    /// Another sink has this name.
    #[error("a sink named {name:?} already exists")]
    DuplicateSink {
        /// The name.
        name: String,
    },
    /// No sink has this name.
    #[error("no sink is named {name:?}")]
    UnknownSink {
        /// The name.
        name: String,
    },
    /// The worker did not answer. A sink that was to be removed is removed as soon as the worker can.
    #[error(transparent)]
    Unanswered(#[from] FlushError),
}

#[doc(hidden)]
impl From<Forked> for SinkChangeError {
    fn from(forked: Forked) -> Self {
        FlushError::from(forked).into()
    }
}

impl<E: Event> Collector<E> {
    /// Adds a sink. It gets every event that is collected from now on, and may get some that are queued.
    ///
    /// # Errors
    ///
    /// Another sink has its name, the worker is gone, or this is a forked child, possibly one that the sink has made
    /// meanwhile.
    pub fn add_sink(&self, sink: impl Sink<E> + 'static) -> Result<(), SinkChangeError> {
        self.shared.mailbox.contents.check()?;
        let slot =
            Prepared::new(Box::new(sink)).register(&self.shared.registry).map_err(|reason| match reason {
                NotRegistered::Taken(name) => SinkChangeError::DuplicateSink { name },
                NotRegistered::Forked => Forked.into(),
            })?;
        let name = slot.tally.name.clone();
        let mut contents = self.shared.mailbox.contents.lock();
        match &mut contents.worker {
            WorkerSlot::InMailbox(state) => state.slots.push(slot),
            WorkerSlot::Starting(_) | WorkerSlot::WithWorker => {
                // The worker admits it with the next batch or flush. Nothing needs to happen before.
                contents.added.push(slot);
            }
            WorkerSlot::Lost => {
                drop(contents);
                self.shared.registry.remove(&name);
                drop(slot.end());
                self.shared.mailbox.contents.check()?;
                return Err(FlushError::WorkerGone.into());
            }
        }
        Ok(())
    }

    /// Removes the sink of that name, and returns its statistics. A running collector delivers to it every event
    /// collected before this call. In any case it is flushed. (An [isolated](crate::sink::Isolated) one is dropped by
    /// its thread, some time after this call.)
    ///
    /// # Errors
    ///
    /// No sink has that name, the worker is gone, or this is a forked child or the worker thread. Or the worker did
    /// not get to it within [`Config::flush_timeout`](crate::Config::flush_timeout); then it removes the sink as soon
    /// as it can.
    pub fn remove_sink(&self, name: &str) -> Result<SinkStats, SinkChangeError> {
        let removed = self.request_removal(name);
        // The sink may have forked on this thread.
        self.shared.mailbox.contents.check()?;
        removed
    }

    fn request_removal(&self, name: &str) -> Result<SinkStats, SinkChangeError> {
        let unknown = || SinkChangeError::UnknownSink { name: name.to_owned() };
        self.shared.refuse_waiting()?;
        // The sink of this moment: another one may have its name by the time when the request is served.
        let tally = self.shared.registry.find(name).ok_or_else(unknown)?;
        let timeout = self.config().flush_timeout;
        let deadline = deadline_in(timeout);
        let reply = Reply::new();
        let mut contents = self.shared.mailbox.contents.lock();
        // A worker on its last flush ends first: callers that add and remove in a loop could keep it busy.
        while self.state() == State::Stopped && matches!(contents.worker, WorkerSlot::WithWorker) {
            if self.shared.mailbox.ended.wait_until(&mut contents, deadline) {
                drop(contents);
                return Err(self.shared.flush_timed_out(timeout).into());
            }
        }
        match &mut contents.worker {
            WorkerSlot::InMailbox(state) => {
                let slot = state.take_slot_of(&tally);
                // The sink's code runs without our lock.
                drop(contents);
                let slot = slot.ok_or_else(unknown)?;
                // Nor must it wait for what this thread does in the place of the worker.
                let mark = self.shared.mark_worker();
                let retired = retire(slot, &self.shared.registry);
                drop(mark);
                return self.shared.await_retired(retired, deadline);
            }
            WorkerSlot::Lost => return Err(FlushError::WorkerGone.into()),
            WorkerSlot::Starting(_) | WorkerSlot::WithWorker => {
                let removal = Removal { tally: Arc::clone(&tally), reply: Arc::clone(&reply) };
                contents.requests.removed.push(removal);
            }
        }
        drop(contents);
        self.shared.phase.wake();
        match reply.wait(deadline) {
            Some(Some(retired)) => self.shared.await_retired(retired.ok_or_else(unknown)?, deadline),
            Some(None) => Err(FlushError::WorkerGone.into()),
            None => {
                // The request stays, but only once for a sink, so that the mailbox does not grow while the worker
                // hangs.
                let mut contents = self.shared.mailbox.contents.lock();
                let removed = &mut contents.requests.removed;
                if removed.iter().filter(|asked| Arc::ptr_eq(&asked.tally, &tally)).count() > 1 {
                    removed.retain(|asked| !Arc::ptr_eq(&asked.reply, &reply));
                }
                drop(contents);
                Err(self.shared.flush_timed_out(timeout).into())
            }
        }
    }

    /// Returns the names of the sinks, in the order in which they get batches.
    pub fn sinks(&self) -> Vec<String> {
        self.shared.registry.snapshot().into_iter().map(|sink| sink.name).collect()
    }
}

impl<E: Event> Shared<E> {
    /// Removes a finished sink of that name. If a worker has it, the worker removes it; nobody waits for that.
    pub(crate) fn remove_finished(&self, name: &str) {
        // A forked child must touch no lock.
        let Ok(mut contents) = self.mailbox.contents.enter() else { return };
        let added = contents.added.iter().position(|slot| slot.tally.name == name);
        let mut over = added.map(|place| contents.added.remove(place));
        match &mut contents.worker {
            WorkerSlot::InMailbox(state) => over = over.or_else(|| state.take_slot(name)),
            WorkerSlot::Starting(_) | WorkerSlot::WithWorker => {
                contents.requests.has_finished_sinks |= over.is_none()
            }
            WorkerSlot::Lost => {}
        }
        let is_asked = contents.requests.has_finished_sinks;
        // The sink's destructor runs without our lock.
        drop(contents);
        if let Some(slot) = over {
            drop(slot.end());
            if self.mailbox.contents.check().is_err() {
                return;
            }
            self.registry.remove(name);
        }
        if is_asked {
            self.phase.wake();
        }
    }

    /// Waits until the thread of a removed sink has flushed it, if it has one.
    fn await_retired(
        &self,
        retired: Retired,
        deadline: Option<Instant>,
    ) -> Result<SinkStats, SinkChangeError> {
        match &retired.late {
            Some(late) if !late.wait(deadline) => Err(FlushError::TimedOut {
                waited: late.begun.elapsed(),
                pending: self.pending(),
                busy_sink: Some(retired.tally.name.clone()),
            }
            .into()),
            _ => Ok(retired.tally.snapshot()),
        }
    }
}
