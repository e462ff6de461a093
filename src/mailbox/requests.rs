//! Requests to the worker, and what it answers to a flush.

use std::time::Instant;

use crate::dispatch::{LateFlush, Retired};
use crate::reply::Reply;
use crate::stats::{FlushReport, Reported, SinkTally};
use crate::sync::Arc;

/// Requests, as the worker takes them.
#[derive(Default)]
pub(crate) struct Requests {
    pub(crate) flushes: Vec<Flush>,
    pub(crate) removed: Vec<(String, Arc<Reply<Option<Retired>>>)>,
    /// Whether the settings changed since the worker last read them.
    pub(crate) is_reconfigured: bool,
    /// Whether nobody wants a sink any more that the worker has.
    pub(crate) has_finished_sinks: bool,
}

impl Drop for Requests {
    /// Whoever asked is told, also when the worker panics with the request in its hands.
    fn drop(&mut self) {
        self.flushes.drain(..).for_each(|reply| _ = reply.answer(None));
        self.removed.drain(..).for_each(|(_, reply)| _ = reply.answer(None));
    }
}

impl Requests {
    /// Whether somebody waits for an answer, and everything that was collected so far is to be delivered first.
    pub(crate) fn wants_sweep(&self) -> bool {
        !self.flushes.is_empty() || !self.removed.is_empty()
    }
}

/// The place for the answer to a flush.
pub(crate) type Flush = Arc<Reply<Flushed>>;

/// What a flush tells of one sink: from where, and up to where.
#[derive(Clone)]
pub(crate) struct ReportedRange {
    pub(crate) tally: Arc<SinkTally>,
    pub(crate) from: Reported,
    pub(crate) up_to: Reported,
}

/// The worker's part of a flush, and what is left to other threads.
pub(crate) struct Flushed {
    pub(crate) report: FlushReport,
    pub(crate) reported: Vec<ReportedRange>,
    pub(crate) late: Vec<LateFlush>,
    /// Those that ended, and whether they were done.
    pub(crate) done: Vec<(LateFlush, bool)>,
}

impl Flushed {
    /// Waits for the others, so long as they are waited for.
    pub(crate) fn finish(mut self, is_heard: bool, deadline: Option<Instant>) -> FlushReport {
        for late in std::mem::take(&mut self.late) {
            let is_done = late.wait(deadline);
            if is_heard {
                self.add_late(&late, is_done);
            }
        }
        self.report
    }

    /// Nobody will hear it: what it says of the sinks, the next flush tells.
    pub(crate) fn rollback(&self) {
        self.reported.iter().for_each(|reported| reported.tally.rollback(reported.from));
        self.late.iter().for_each(|late| late.pending.reply.give_up());
    }

    /// Adds what happened in a sink since the worker looked.
    pub(crate) fn add_late(&mut self, late: &LateFlush, is_done: bool) {
        // The worker sets this too, in its time; what it told is not to be told again.
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
