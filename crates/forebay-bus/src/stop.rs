//! Flush, stop and drop of a bus.

use std::time::{Duration, Instant};

use forebay::collector::{FlushError, StopError};
use forebay_sync::clock::deadline_in;
use forebay_sync::sync::{Arc, Mutex};

use super::config::Mode;
use super::shared::Shared;
use super::stats::{BusReport, BusStopError};
use super::worker_pool::LeftBehind;

impl Shared {
    /// Flushes once: covers the events that were emitted before, not those that their handlers emit.
    pub(super) fn flush_once(&self, timeout: Duration, left: Duration) -> Result<(), FlushError> {
        let (deadline, mut busy_sink) = (deadline_in(left), None);
        match self.mode() {
            Mode::Pooled => match self.collector.flush_timeout(left) {
                Err(FlushError::TimedOut { pending, busy_sink, .. }) => {
                    return Err(FlushError::TimedOut { waited: timeout, pending, busy_sink });
                }
                flushed => _ = flushed?,
            },
            Mode::Inline => busy_sink = self.flush_inline(deadline)?,
        }
        if !self.engine.in_flight.await_all(deadline) {
            busy_sink.get_or_insert_with(|| "bus".to_owned());
        }
        if busy_sink.is_none() {
            return Ok(());
        }
        Err(FlushError::TimedOut { waited: timeout, pending: self.collector.pending(), busy_sink })
    }

    fn flush_inline(&self, deadline: Option<Instant>) -> Result<Option<String>, FlushError> {
        self.check()?;
        if self.engine.pool.is_closed() {
            return Err(FlushError::Stopped);
        }
        self.engine.redrive();
        self.engine.run_inline(deadline);
        // After every call of user code, which may have forked.
        self.check()?;
        let busy = self.sinks.flush(deadline);
        self.check()?;
        // Events that a sink has emitted in its flush.
        self.engine.run_inline(deadline);
        self.check()?;
        Ok(busy)
    }

    /// Stops the bus: see [`Bus::stop`](super::Bus::stop).
    pub(super) fn stop(&self, timeout: Duration) -> Result<BusReport, BusStopError> {
        let begun = Instant::now();
        let deadline = deadline_in(timeout);
        self.engine.refuse();
        let is_drained = match self.collector.stop_timeout(timeout) {
            Ok(_) => true,
            Err(error) => error == StopError::WorkerGone && self.mode() == Mode::Inline,
        };
        let is_inline = self.mode() == Mode::Inline;
        // After every call of user code, which may have forked.
        let ours = || self.check().map_err(BusStopError::from);
        if is_inline {
            self.engine.run_inline(deadline);
            ours()?;
        }
        self.engine.retry_due(self.engine.clock.now());
        self.engine.end_retries();
        if is_inline {
            self.engine.run_inline(deadline);
            ours()?;
        }
        let is_drained = is_drained & self.engine.await_quiet(deadline);
        self.engine.close();
        // Events that came before a mailbox was closed, and those that another stop took out of it, have their ends.
        let is_drained = is_drained & self.engine.await_quiet(deadline);
        let is_drained = is_drained & self.sinks.flush(deadline).is_none();
        ours()?;
        let (left_behind, is_drained) = match self.engine.config.mode {
            Mode::Pooled => {
                let LeftBehind { workers, has_scheduler } = self.engine.pool.await_end(deadline);
                (workers, is_drained & !has_scheduler)
            }
            // Calls that other threads make, which emit.
            Mode::Inline => {
                let everybody = self.engine.subscribers.everybody();
                (everybody.iter().map(|it| it.mailbox.lock().load().0).sum(), is_drained)
            }
        };
        let left_behind = left_behind as u64;
        let report = BusReport { stats: self.stats(), left_behind, elapsed: begun.elapsed() };
        if is_drained && left_behind == 0 {
            Ok(report)
        } else {
            Err(BusStopError::TimedOut { report: Box::new(report) })
        }
    }
}

/// Stop of a bus that is left to the scheduler, because the thread that dropped the last handle cannot wait for it.
#[derive(Default)]
pub(super) struct DeferredStop(Mutex<Option<Arc<Shared>>>);

impl DeferredStop {
    /// Leaves the bus to the scheduler.
    fn request(&self, shared: Arc<Shared>) {
        *self.0.lock() = Some(shared);
    }

    /// Takes the bus that is to be stopped, if there is one.
    pub(super) fn take(&self) -> Option<Arc<Shared>> {
        self.0.lock().take()
    }
}

/// Stops the bus when the last handle is dropped. Held by handles alone.
pub(super) struct Owner {
    pub(super) shared: Arc<Shared>,
    pub(super) deferred_stop: Arc<DeferredStop>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        let shared = Arc::clone(&self.shared);
        if shared.check().is_err() {
            // Locks and threads are the parent's.
            std::mem::forget(shared);
        } else if !shared.is_inside() {
            // Nobody is left who could read the result.
            let _ = shared.stop(shared.drop_timeout());
        } else if shared.engine.config.mode == Mode::Pooled && !shared.engine.pool.is_closed() {
            // This thread cannot wait for itself; the scheduler can wait for it.
            let engine = Arc::clone(&shared.engine);
            self.deferred_stop.request(shared);
            engine.retries.wake_scheduler();
        } else {
            shared.engine.close();
        }
    }
}
