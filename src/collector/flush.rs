//! Flushes, from the caller's side. The caller requests one, the worker answers, and the threads of isolated sinks
//! finish it.

use std::time::Duration;

use super::Collector;
use crate::clock::deadline_in;
use crate::event::Event;
use crate::mailbox::{Flush, WorkerSlot};
use crate::reply::Reply;
use crate::shared::Shared;
use crate::stats::FlushReport;
use crate::sync::Arc;
use crate::wake::State;

/// Error of a flush. What was delivered meanwhile stays delivered.
///
/// # Examples
///
/// ```
/// use forebay::Collector;
/// use forebay::collector::FlushError;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let collector = Collector::builder().build()?;
/// let error = collector.flush().unwrap_err();
/// assert_eq!((&error, error.to_string().as_str()), (&FlushError::NotStarted, "the collector is not started"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlushError {
    /// The deadline passed first.
    #[error("flush did not end within {waited:?}, {pending} events are pending{}", in_sink(.busy_sink))]
    TimedOut {
        /// The time that the call waited.
        waited: Duration,
        /// The number of pending events when the call gave up, including those collected after it.
        pending: u64,
        /// The sink that the worker was calling, if any.
        busy_sink: Option<String>,
    },
    /// The collector was never started. Events wait in the rings.
    #[error("the collector is not started")]
    NotStarted,
    /// The collector is stopped, and `stop` has flushed.
    #[error("the collector is stopped")]
    Stopped,
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

crate::sync::from_forked!(FlushError);

/// Returns the end of an error message that names the busy sink.
pub(super) fn in_sink(sink: &Option<String>) -> String {
    sink.as_ref().map_or_else(String::new, |name| format!(", sink {name:?} is busy"))
}

impl<E: Event> Collector<E> {
    /// Delivers every event whose `collect` returned before this call, flushes every sink, and waits for both. It
    /// waits up to [`Config::flush_timeout`](crate::Config::flush_timeout).
    ///
    /// It ends although others keep collecting. Evicted events are counted in the report.
    ///
    /// # Errors
    ///
    /// The deadline passed, there is no worker (not started, stopped, gone, forked), or this is the worker thread. A
    /// sink that fails is no error here: see [`FlushReport::is_clean`].
    pub fn flush(&self) -> Result<FlushReport, FlushError> {
        self.flush_timeout(self.config().flush_timeout)
    }

    /// Flushes like [`flush`](Self::flush), with another deadline.
    ///
    /// # Errors
    ///
    /// As for [`flush`](Self::flush).
    pub fn flush_timeout(&self, timeout: Duration) -> Result<FlushReport, FlushError> {
        self.shared.flush(Reply::new(), timeout)
    }
}

impl<E: Event> Shared<E> {
    /// Fails where the caller would wait for a worker that cannot answer.
    pub(super) fn refuse_waiting(&self) -> Result<(), FlushError> {
        // The phase first: a forked child must touch no lock, because its holder may not exist here.
        self.mailbox.contents.check()?;
        if self.is_worker() { Err(FlushError::OnWorker) } else { Ok(()) }
    }

    pub(super) fn flush_timed_out(&self, waited: Duration) -> FlushError {
        FlushError::TimedOut { waited, pending: self.pending(), busy_sink: self.registry.busy() }
    }

    /// Flushes the collector, and reports through `reply`.
    pub(crate) fn flush(&self, reply: Flush, timeout: Duration) -> Result<FlushReport, FlushError> {
        let deadline = deadline_in(timeout);
        let reply = self.request_flush(reply)?;
        let answer = reply.wait(deadline);
        self.withdraw_flush(&reply);
        match answer {
            Some(Some(flushed)) => Ok(flushed.finish(reply.is_heard(), deadline)),
            Some(None) => Err(FlushError::WorkerGone),
            None => Err(self.flush_timed_out(timeout)),
        }
    }

    /// Puts the request for a flush into the mailbox.
    pub(crate) fn request_flush(&self, reply: Flush) -> Result<Flush, FlushError> {
        self.refuse_waiting()?;
        let mut contents = self.mailbox.contents.lock();
        match (&contents.worker, self.phase.load().state()) {
            (WorkerSlot::Lost, _) => return Err(FlushError::WorkerGone),
            (WorkerSlot::InMailbox(_), State::Idle) => return Err(FlushError::NotStarted),
            (WorkerSlot::InMailbox(_), _) => return Err(FlushError::Stopped),
            // The worker is on its last flush. If it waited for this one, a caller that flushes in a loop could keep
            // it from ending.
            (_, State::Stopped) => return Err(FlushError::Stopped),
            (WorkerSlot::Starting(_) | WorkerSlot::WithWorker, _) => {}
        }
        contents.requests.flushes.push(Arc::clone(&reply));
        drop(contents);
        self.phase.wake();
        Ok(reply)
    }

    /// Removes the request of a caller that has gone, so that the mailbox does not grow while the worker hangs.
    pub(crate) fn withdraw_flush(&self, reply: &Flush) {
        if let Ok(mut contents) = self.mailbox.contents.enter() {
            contents.requests.flushes.retain(|asked| !Arc::ptr_eq(asked, reply));
        }
    }
}
