//! Flushes, from the caller's side: asked of the worker, answered by it, and finished by the threads of isolated sinks.

use std::time::{Duration, Instant};

use super::Station;
use crate::collector::Shared;
use crate::dispatch::LateFlush;
use crate::error::{FlushError, SinkChangeError};
use crate::event::Event;
use crate::reply::Reply;
use crate::stats::{FlushReport, SinkStats, SinkTally, Told};
use crate::sync::Arc;
use crate::wake::{State, deadline_in};
use crate::worker::Retired;

/// The place for the answer to a flush.
pub(crate) type Flush = Arc<Reply<Flushed>>;

/// What a flush tells of one sink: from where, and up to where.
#[derive(Clone)]
pub(crate) struct ToldOf {
    pub(crate) tally: Arc<SinkTally>,
    pub(crate) from: Told,
    pub(crate) up_to: Told,
}

/// The worker's part of a flush, and what is left to other threads.
pub(crate) struct Flushed {
    pub(crate) report: FlushReport,
    pub(crate) told: Vec<ToldOf>,
    pub(crate) late: Vec<LateFlush>,
    /// Those that ended, and whether they were done.
    pub(crate) done: Vec<(LateFlush, bool)>,
}

impl Flushed {
    /// Waits for the others, so long as they are waited for.
    fn finish(mut self, is_heard: bool, deadline: Option<Instant>) -> FlushReport {
        for late in std::mem::take(&mut self.late) {
            let is_done = late.wait(deadline);
            if is_heard {
                self.tell(&late, is_done);
            }
        }
        self.report
    }

    /// Nobody will hear it: what it says of the sinks, the next flush tells.
    pub(crate) fn withdraw(&self) {
        self.told.iter().for_each(|told| told.tally.untell(told.from));
        self.late.iter().for_each(|late| late.pending.reply.give_up());
    }

    /// Adds what happened in a sink since the worker looked.
    pub(crate) fn tell(&mut self, late: &LateFlush, is_done: bool) {
        // The worker sets this too, in its time; what it told is not to be told again.
        let own = self.told.iter().find(|told| Arc::ptr_eq(&told.tally, &late.tally));
        own.into_iter().for_each(|told| told.tally.set_told(told.up_to));
        let mut news = late.tally.take_news();
        if !is_done {
            let events = late.tally.snapshot().in_flight;
            news.error = Some(format!("not flushed in time, {events} events are in its queue"));
        }
        match self.report.sinks.iter_mut().find(|sink| sink.name == news.name) {
            Some(sink) => sink.add(news),
            None => self.report.sinks.push(news),
        }
    }
}

impl<E: Event> Shared<E> {
    pub(super) fn flush_timed_out(&self, waited: Duration) -> FlushError {
        FlushError::TimedOut { waited, pending: self.pending(), busy_sink: self.registry.busy() }
    }

    /// Flushes, and has what happened told by `reply`.
    pub(crate) fn flush(&self, reply: Flush, timeout: Duration) -> Result<FlushReport, FlushError> {
        let deadline = deadline_in(timeout);
        let reply = self.ask_flush(reply)?;
        let answer = reply.wait(deadline);
        self.withdraw_flush(&reply);
        match answer {
            Some(Some(flushed)) => Ok(flushed.finish(reply.is_heard(), deadline)),
            Some(None) => Err(FlushError::WorkerGone),
            None => Err(self.flush_timed_out(timeout)),
        }
    }

    /// Puts a flush into the mailbox.
    pub(crate) fn ask_flush(&self, reply: Flush) -> Result<Flush, FlushError> {
        self.refuse_waiting()?;
        let mut desk = self.control.desk.lock();
        match (&desk.crew, self.phase.load().state()) {
            (Station::Lost, _) => return Err(FlushError::WorkerGone),
            (Station::Here(_), State::Idle) => return Err(FlushError::NotStarted),
            (Station::Here(_), _) => return Err(FlushError::Stopped),
            // It is on its last flush. Were it to wait for this one, a caller that flushes in a loop could keep
            // it from ending.
            (_, State::Stopped) => return Err(FlushError::Stopped),
            (Station::Boarding(_) | Station::AtWork, _) => {}
        }
        desk.asked.flushes.push(Arc::clone(&reply));
        drop(desk);
        self.phase.wake();
        Ok(reply)
    }

    /// Takes a flush back whose caller has gone, so that the mailbox does not grow while the worker hangs.
    pub(crate) fn withdraw_flush(&self, reply: &Flush) {
        if let Ok(mut desk) = self.control.desk.enter() {
            desk.asked.flushes.retain(|asked| !Arc::ptr_eq(asked, reply));
        }
    }

    /// Waits until the thread of a sink that was taken out has flushed it, if it has one.
    pub(super) fn await_retired(
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
