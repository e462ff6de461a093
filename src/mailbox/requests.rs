//! `Requests` to the worker, and its answer to a flush.

use std::time::Instant;

use crate::dispatch::{LateFlush, Retired};
use crate::reply::Reply;
use crate::stats::{FlushReport, Reported, SinkTally};
use crate::sync::Arc;

/// Requests, as the worker takes them.
#[derive(Default)]
pub(crate) struct Requests {
    pub(crate) flushes: Vec<Flush>,
    pub(crate) removed: Vec<Removal>,
    /// True if the settings changed since the worker last read them.
    pub(crate) is_reconfigured: bool,
    /// True if the worker has a finished sink, which nobody needs any more.
    pub(crate) has_finished_sinks: bool,
}

/// Request to remove a sink.
pub(crate) struct Removal {
    /// Counters of the sink, by which it is known: a sink that is added later may have its name.
    pub(crate) tally: Arc<SinkTally>,
    pub(crate) reply: Arc<Reply<Option<Retired>>>,
}

impl Drop for Requests {
    /// Answers every caller, even when the worker panics while it holds the request.
    fn drop(&mut self) {
        self.flushes.drain(..).for_each(|reply| _ = reply.answer(None));
        self.removed.drain(..).for_each(|removal| _ = removal.reply.answer(None));
    }
}

impl Requests {
    /// Returns whether a caller waits for an answer that must come after the delivery of everything collected so far.
    pub(crate) fn wants_sweep(&self) -> bool {
        !self.flushes.is_empty() || !self.removed.is_empty()
    }
}

/// Place for the answer to a flush.
pub(crate) type Flush = Arc<Reply<Flushed>>;

/// Counters between which a flush reports on one sink.
#[derive(Clone)]
pub(crate) struct ReportedRange {
    pub(crate) tally: Arc<SinkTally>,
    pub(crate) from: Reported,
    pub(crate) up_to: Reported,
}

/// The worker's part of a flush, and what other threads have left to do.
pub(crate) struct Flushed {
    pub(crate) report: FlushReport,
    pub(crate) reported: Vec<ReportedRange>,
    pub(crate) late: Vec<LateFlush>,
    /// Flushes of other threads that have ended, and whether they were complete.
    pub(crate) done: Vec<(LateFlush, bool)>,
}

impl Flushed {
    /// Waits for the other threads, up to the deadline, and returns the complete report.
    pub(crate) fn finish(mut self, is_heard: bool, deadline: Option<Instant>) -> FlushReport {
        for late in std::mem::take(&mut self.late) {
            let is_done = late.wait(deadline);
            if is_heard {
                self.add_late(&late, is_done);
            }
        }
        self.report
    }

    /// Withdraws a report that nobody will read, so that the next flush reports the same counts.
    pub(crate) fn rollback(&self) {
        self.reported.iter().for_each(|reported| reported.tally.rollback(reported.from));
        self.late.iter().for_each(|late| late.pending.reply.give_up());
    }

    /// Adds to the report what happened in a sink since the worker looked.
    pub(crate) fn add_late(&mut self, late: &LateFlush, is_done: bool) {
        // The worker marks this too, later. What it has reported must not be reported again.
        let own = self.reported.iter().find(|reported| Arc::ptr_eq(&reported.tally, &late.tally));
        own.into_iter().for_each(|reported| reported.tally.mark_reported(reported.up_to));
        let mut delta = late.tally.take_delta();
        if !is_done {
            let events = late.tally.snapshot().in_flight;
            delta.error = Some(format!("not flushed in time, {events} events are in its queue"));
        }
        match self.report.sinks.iter_mut().find(|sink| sink.name == delta.name) {
            Some(sink) => sink.add(delta),
            None => self.report.sinks.push(delta),
        }
    }
}
