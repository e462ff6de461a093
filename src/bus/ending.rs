//! How a bus is flushed, stopped, and dropped.

use std::time::{Duration, Instant};

use super::foreman::Estate;
use super::{BusReport, BusStopError, Mode, Shared};
use crate::collector::{FlushError, StopError};
use crate::sync::Arc;
use crate::wake::deadline_in;

impl Shared {
    pub(super) fn flush_once(&self, timeout: Duration, left: Duration) -> Result<(), FlushError> {
        let (deadline, mut busy_sink) = (deadline_in(left), None);
        match self.mode() {
            Mode::Pooled => _ = self.collector.flush_timeout(left)?,
            Mode::Inline => busy_sink = self.flush_inline(deadline)?,
        }
        if !self.engine.tower.await_all(&self.engine.flights(), deadline) {
            busy_sink.get_or_insert_with(|| "bus".to_owned());
        }
        if busy_sink.is_none() {
            return Ok(());
        }
        Err(FlushError::TimedOut { waited: timeout, pending: self.collector.pending(), busy_sink })
    }

    fn flush_inline(&self, deadline: Option<Instant>) -> Result<Option<String>, FlushError> {
        self.check()?;
        if self.engine.crew.is_closed() {
            return Err(FlushError::Stopped);
        }
        self.engine.redrive();
        self.engine.run_inline(deadline);
        // Behind every call of foreign code, which may have forked.
        self.check()?;
        let busy = self.sinks.flush(deadline);
        self.check()?;
        // What a sink has emitted in its flush.
        self.engine.run_inline(deadline);
        self.check()?;
        Ok(busy)
    }

    pub(super) fn stop(&self, timeout: Duration) -> Result<BusReport, BusStopError> {
        let begun = Instant::now();
        let deadline = deadline_in(timeout);
        self.engine.refuse();
        let is_drained = match self.collector.stop_timeout(timeout) {
            Ok(_) => true,
            Err(error) => error == StopError::WorkerGone && self.mode() == Mode::Inline,
        };
        let is_inline = self.mode() == Mode::Inline;
        // Behind every call of foreign code, which may have forked.
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
        let is_drained = is_drained & self.sinks.flush(deadline).is_none();
        ours()?;
        let left_behind = match self.engine.config.mode {
            Mode::Pooled => self.engine.crew.await_end(deadline),
            // Calls that other threads make, which emit.
            Mode::Inline => self.engine.everybody().iter().map(|it| it.mailbox.lock().load().0).sum(),
        } as u64;
        let report = BusReport { stats: self.stats(), left_behind, elapsed: begun.elapsed() };
        if is_drained && left_behind == 0 {
            Ok(report)
        } else {
            Err(BusStopError::TimedOut { report: Box::new(report) })
        }
    }
}

/// Stops the bus when the last handle is dropped.
pub(super) struct Owner {
    pub(super) shared: Arc<Shared>,
    pub(super) estate: Arc<Estate>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        let shared = Arc::clone(&self.shared);
        if shared.check().is_err() {
            // Locks and threads are the parent's.
            std::mem::forget(shared);
        } else if !shared.is_inside() {
            // Nobody is left to be told how it went.
            let _ = shared.stop(shared.drop_timeout());
        } else if shared.engine.config.mode == Mode::Pooled && !shared.engine.crew.is_closed() {
            // It cannot wait for itself; the foreman can.
            let engine = Arc::clone(&shared.engine);
            self.estate.leave(shared);
            engine.timers.ring();
        } else {
            shared.engine.close();
        }
    }
}
