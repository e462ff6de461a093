//! Everything that is asked of the worker by name: start, flush, stop, add and remove sinks.
//!
//! Requests never ride in the rings, where a flood of events could evict them. They lie in a mailbox
//! behind a mutex, which the worker empties before it drains: so a flush covers every event whose
//! `collect` returned before it was asked for. Every request carries the place for its answer. A worker
//! that ends, well or badly, leaves no request behind without one.

mod flush;
pub(crate) use flush::{Flush, Flushed, ToldOf};

mod settings;
pub(crate) use settings::{Policy, Settings};

use std::time::{Duration, Instant};

use crate::collector::{Collector, Shared};
use crate::dispatch::{LateFlush, NotEntered, Prepared, Slot};
use crate::error::{BuildError, FlushError, SinkChangeError, StartError, StopError};
use crate::event::Event;
use crate::reply::Reply;
use crate::sink::Sink;
use crate::stats::{FlushReport, SinkStats, StopReport};
use crate::sync::{self, Arc, Condvar, Forked, JoinHandle, Mutex, MutexGuard, guarded};
use crate::wake::{Closed, State, deadline_in};
use crate::worker::{self, Crew, Retired};

/// The mailbox of a collector.
pub(crate) struct Control<E> {
    desk: Mutex<Desk<E>>,
    /// Rung when a worker has given its crew back, or is lost.
    ended: Condvar,
}

/// What lies on the desk.
pub(crate) struct Desk<E> {
    /// Requests that the worker has not taken yet. Bounded by the callers that wait: a request leaves
    /// with the worker, or with its caller.
    asked: Asked,
    /// Sinks that the worker has not admitted yet.
    added: Vec<Slot<E>>,
    crew: Station<E>,
    /// What other threads have to finish of the last flush of the run that ended last.
    late: Vec<Arc<LateFlush>>,
    /// Of the run that is going on or ended last; taken by whoever joins it.
    thread: Option<JoinHandle<()>>,
    /// Counts the starts: who waits for the end of a run must not wait for that of the next.
    run: u64,
}

/// Where the crew is: sinks, numbering and bed of the worker.
enum Station<E> {
    /// On the desk: no worker runs.
    Here(Box<Crew<E>>),
    /// Still on the desk, but a worker was started and is about to take it.
    Boarding(Box<Crew<E>>),
    /// With the worker.
    AtWork,
    /// With a worker that ended by a panic. It does not come back.
    Lost,
}

/// Requests, as the worker takes them.
#[derive(Default)]
pub(crate) struct Asked {
    pub(crate) flushes: Vec<Flush>,
    pub(crate) removed: Vec<(String, Arc<Reply<Option<Retired>>>)>,
    /// Whether the settings changed since the worker last read them.
    pub(crate) is_reconfigured: bool,
    /// Whether nobody wants a sink any more that the worker has.
    pub(crate) has_leavers: bool,
}

impl Drop for Asked {
    /// Whoever asked is told, also when the worker panics with the request in its hands.
    fn drop(&mut self) {
        self.flushes.drain(..).for_each(|reply| _ = reply.answer(None));
        self.removed.drain(..).for_each(|(_, reply)| _ = reply.answer(None));
    }
}

impl Asked {
    /// Whether somebody waits for an answer, and everything that was collected so far is to be delivered first.
    pub(crate) fn wants_sweep(&self) -> bool {
        !self.flushes.is_empty() || !self.removed.is_empty()
    }
}

impl<E: Event> Control<E> {
    pub(crate) fn new(crew: Crew<E>) -> Self {
        let crew = Station::Here(Box::new(crew));
        let (added, late) = (Vec::new(), Vec::new());
        let desk = Desk { asked: Asked::default(), added, crew, late, thread: None, run: 0 };
        Self { desk: Mutex::new(desk), ended: Condvar::new() }
    }

    /// The worker takes what was asked so far.
    pub(crate) fn take(&self) -> Asked {
        std::mem::take(&mut self.desk.lock().asked)
    }

    /// The worker admits the sinks that were added.
    pub(crate) fn admit(&self, slots: &mut Vec<Slot<E>>) {
        slots.append(&mut self.desk.lock().added);
    }

    /// Whether nothing was asked. The worker looks once more after it announced sleep: a request that
    /// comes later finds `Asleep` in the phase word, by the order of this mutex, and rings.
    pub(crate) fn is_quiet(&self) -> bool {
        let desk = self.desk.lock();
        !desk.asked.wants_sweep() && !desk.asked.is_reconfigured && !desk.asked.has_leavers
    }

    /// As long as the value lives, nobody else changes the settings.
    pub(crate) fn reconfigure(&self) -> Result<Reconfiguring<'_, E>, Forked> {
        self.desk.enter().map(Reconfiguring)
    }

    /// Makes the crew ready for a worker, as `start` does.
    #[cfg(test)]
    pub(crate) fn board(&self) {
        let mut desk = self.desk.lock();
        if let Station::Here(crew) = std::mem::replace(&mut desk.crew, Station::AtWork) {
            desk.crew = Station::Boarding(crew);
        }
    }

    /// The worker's first act: takes the crew. `None` when `start` found no thread to give it to.
    pub(crate) fn clock_in(&self) -> Option<Box<Crew<E>>> {
        let mut desk = self.desk.lock();
        match std::mem::replace(&mut desk.crew, Station::AtWork) {
            Station::Boarding(crew) => Some(crew),
            other => {
                desk.crew = other;
                None
            }
        }
    }

    /// What other threads have to finish of the last flush: for whoever stops.
    pub(crate) fn leave_late(&self, late: Vec<LateFlush>) {
        self.desk.lock().late = late.into_iter().map(Arc::new).collect();
    }

    /// The worker's last act: gives the crew back, with the sinks that were added meanwhile. Not while there are
    /// requests to answer: then both come back.
    pub(crate) fn clock_out(&self, mut crew: Box<Crew<E>>) -> Result<(), (Box<Crew<E>>, Asked)> {
        let mut desk = self.desk.lock();
        crew.slots.append(&mut desk.added);
        if desk.asked.wants_sweep() || desk.asked.has_leavers {
            return Err((crew, std::mem::take(&mut desk.asked)));
        }
        desk.crew = Station::Here(crew);
        self.ended.notify_all();
        Ok(())
    }

    /// Takes the sinks out of a collector that has no worker: somebody else calls them.
    pub(crate) fn take_slots(&self) -> Vec<Slot<E>> {
        match &mut self.desk.lock().crew {
            Station::Here(crew) => std::mem::take(&mut crew.slots),
            _ => Vec::new(),
        }
    }

    /// As long as the value lives, nobody starts the collector.
    pub(crate) fn hold(&self) -> impl Sized + '_ {
        self.desk.lock()
    }

    /// The worker ended by a panic: nobody waits for an answer that cannot come.
    pub(crate) fn lose(&self) -> Asked {
        let mut desk = self.desk.lock();
        desk.crew = Station::Lost;
        self.ended.notify_all();
        std::mem::take(&mut desk.asked)
    }
}

/// The mailbox, held by whoever changes the settings.
pub(crate) struct Reconfiguring<'a, E>(MutexGuard<'a, Desk<E>>);

impl<E> Reconfiguring<'_, E> {
    /// Asks the worker to read the settings. One that starts reads them anyway.
    pub(crate) fn post(&mut self) {
        self.0.asked.is_reconfigured = true;
    }
}

impl<E: Event> Collector<E> {
    /// Starts the worker thread. A running collector stays as it is; a stopped one starts again, with its
    /// sinks, and goes on with its numbers. Events that were collected before the first start are
    /// delivered now.
    ///
    /// # Errors
    ///
    /// No thread could be created; the worker of the last run has not ended yet; the worker is gone; this
    /// is a forked child. Nothing changes then.
    pub fn start(&self) -> Result<(), StartError> {
        let mut desk = self.shared.control.desk.enter()?;
        let crew = match std::mem::replace(&mut desk.crew, Station::AtWork) {
            Station::Here(crew) => crew,
            other => {
                let is_lost = matches!(other, Station::Lost);
                desk.crew = other;
                return match is_lost {
                    true => Err(StartError::WorkerGone),
                    false if self.is_running() => Ok(()),
                    false => Err(StartError::StillStopping),
                };
            }
        };
        let shared = Arc::clone(&self.shared);
        let config = self.shared.settings.config();
        // The worker's first act is to take the crew from the desk, which we hold until the phase is open.
        let body = move || worker::work(&shared);
        match sync::spawn(&config.thread_name, config.thread_stack_size, body) {
            Ok(thread) => {
                desk.crew = Station::Boarding(crew);
                desk.thread = Some(thread);
                desk.late = Vec::new();
                desk.run += 1;
                self.shared.phase.open();
                Ok(())
            }
            Err(error) => {
                desk.crew = Station::Here(crew);
                Err(StartError::Thread(error))
            }
        }
    }

    /// Delivers every event whose `collect` returned before this call, flushes every sink, and waits for
    /// that, up to [`Config::flush_timeout`](crate::Config::flush_timeout).
    ///
    /// It ends although others keep collecting. Events that were evicted have left, and are told in the
    /// report.
    ///
    /// # Errors
    ///
    /// The deadline passed; there is no worker (not started, stopped, gone, forked); or this is the worker
    /// thread. A sink that fails is no error here: see [`FlushReport::is_clean`].
    pub fn flush(&self) -> Result<FlushReport, FlushError> {
        self.flush_timeout(self.config().flush_timeout)
    }

    /// The same with another deadline.
    ///
    /// # Errors
    ///
    /// As for [`flush`](Self::flush).
    pub fn flush_timeout(&self, timeout: Duration) -> Result<FlushReport, FlushError> {
        self.shared.flush(Reply::new(), timeout)
    }

    /// Refuses new events, delivers those that are queued, flushes the sinks and ends the worker thread,
    /// in that order, within [`Config::stop_timeout`](crate::Config::stop_timeout).
    ///
    /// Called twice, or by several threads, every call reports the same end. The collector can be started
    /// again. One that was never started discards what is queued and counts it as rejected.
    ///
    /// # Errors
    ///
    /// The deadline passed (the error carries the report, with what was left behind and where the worker
    /// hangs; the worker ends by itself should its sink return); the worker is gone; this is a forked
    /// child; or this is the worker thread.
    pub fn stop(&self) -> Result<StopReport, StopError> {
        self.stop_timeout(self.config().stop_timeout)
    }

    /// The same with another deadline.
    ///
    /// # Errors
    ///
    /// As for [`stop`](Self::stop).
    pub fn stop_timeout(&self, timeout: Duration) -> Result<StopReport, StopError> {
        self.shared.stop(timeout)
    }

    /// Adds a sink. It gets every event that is collected from now on, and may get some that are queued.
    ///
    /// # Errors
    ///
    /// Another sink has its name; the worker is gone; or this is a forked child, also one that the sink has made meanwhile.
    pub fn add_sink(&self, sink: impl Sink<E> + 'static) -> Result<(), SinkChangeError> {
        self.shared.control.desk.check()?;
        let slot =
            Prepared::new(Box::new(sink)).enter(&self.shared.registry).map_err(|reason| match reason {
                NotEntered::Taken(name) => SinkChangeError::DuplicateSink { name },
                NotEntered::Forked => Forked.into(),
            })?;
        let name = slot.tally.name.clone();
        let mut desk = self.shared.control.desk.lock();
        match &mut desk.crew {
            Station::Here(crew) => crew.slots.push(slot),
            Station::Boarding(_) | Station::AtWork => {
                // It is admitted with the next batch or flush; nothing needs to happen before.
                desk.added.push(slot);
            }
            Station::Lost => {
                drop(desk);
                self.shared.registry.strike(&name);
                drop(slot.end());
                self.shared.control.desk.check()?;
                return Err(FlushError::WorkerGone.into());
            }
        }
        Ok(())
    }

    /// Removes the sink of that name, and tells what became of its events. A running collector delivers to
    /// it every event collected before this call; in any case it is flushed. (One that is
    /// [isolated](crate::sink::Isolated) is dropped by its thread, some time after this call.)
    ///
    /// # Errors
    ///
    /// No sink has that name; the worker is gone; this is a forked child or the worker thread; or the worker did not get to
    /// it within [`Config::flush_timeout`](crate::Config::flush_timeout): it is then removed as soon as the
    /// worker can.
    pub fn remove_sink(&self, name: &str) -> Result<SinkStats, SinkChangeError> {
        let removed = self.take_out(name);
        // The sink may have forked on this thread.
        self.shared.control.desk.check()?;
        removed
    }

    fn take_out(&self, name: &str) -> Result<SinkStats, SinkChangeError> {
        let unknown = || SinkChangeError::UnknownSink { name: name.to_owned() };
        self.shared.refuse_waiting()?;
        if !self.shared.registry.knows(name) {
            return Err(unknown());
        }
        let timeout = self.config().flush_timeout;
        let deadline = deadline_in(timeout);
        let reply = Reply::new();
        let mut desk = self.shared.control.desk.lock();
        // A worker on its last flush is let go first: callers that add and remove in a loop could keep it.
        while self.state() == State::Stopped && matches!(desk.crew, Station::AtWork) {
            if self.shared.control.ended.wait_until(&mut desk, deadline) {
                drop(desk);
                return Err(self.shared.flush_timed_out(timeout).into());
            }
        }
        match &mut desk.crew {
            Station::Here(crew) => {
                let slot = crew.take_slot(name);
                // The sink's own code runs without our lock.
                drop(desk);
                let slot = slot.ok_or_else(unknown)?;
                return self.shared.await_retired(worker::retire(slot, &self.shared.registry), deadline);
            }
            Station::Lost => return Err(FlushError::WorkerGone.into()),
            Station::Boarding(_) | Station::AtWork => {
                desk.asked.removed.push((name.to_owned(), Arc::clone(&reply)));
            }
        }
        drop(desk);
        self.shared.phase.wake();
        match reply.wait(deadline) {
            Some(Some(retired)) => self.shared.await_retired(retired.ok_or_else(unknown)?, deadline),
            Some(None) => Err(FlushError::WorkerGone.into()),
            None => {
                // It stays asked for, but once for a name: the mailbox does not grow while the worker hangs.
                let mut desk = self.shared.control.desk.lock();
                let is_mine = |asked: &(String, Arc<_>)| Arc::ptr_eq(&asked.1, &reply);
                if desk.asked.removed.iter().filter(|asked| asked.0 == name).count() > 1 {
                    desk.asked.removed.retain(|asked| !is_mine(asked));
                }
                drop(desk);
                Err(self.shared.flush_timed_out(timeout).into())
            }
        }
    }

    /// The names of the sinks, in the order in which they get batches.
    pub fn sinks(&self) -> Vec<String> {
        self.shared.registry.snapshot().into_iter().map(|sink| sink.name).collect()
    }
}

impl<E: Event> Shared<E> {
    /// Refuses a call that would have to wait for a worker which cannot answer.
    fn refuse_waiting(&self) -> Result<(), FlushError> {
        // The phase first: in a forked child no lock may be touched, its holder does not exist here.
        self.control.desk.check()?;
        if self.is_worker() { Err(FlushError::OnWorker) } else { Ok(()) }
    }

    /// Takes out a sink of that name that nobody wants any more. Where a worker has it, that does so; nobody waits for it.
    pub(crate) fn let_go(&self, name: &str) {
        // In a forked child no lock may be touched.
        let Ok(mut desk) = self.control.desk.enter() else { return };
        let added = desk.added.iter().position(|slot| slot.tally.name == name);
        let mut over = added.map(|place| desk.added.remove(place));
        match &mut desk.crew {
            Station::Here(crew) => over = over.or_else(|| crew.take_slot(name)),
            Station::Boarding(_) | Station::AtWork => desk.asked.has_leavers |= over.is_none(),
            Station::Lost => {}
        }
        let is_asked = desk.asked.has_leavers;
        // A sink ends without our lock.
        drop(desk);
        if let Some(slot) = over {
            drop(slot.end());
            if self.control.desk.check().is_err() {
                return;
            }
            self.registry.strike(name);
        }
        if is_asked {
            self.phase.wake();
        }
    }

    pub(crate) fn stop(&self, timeout: Duration) -> Result<StopReport, StopError> {
        let begun = Instant::now();
        match self.refuse_waiting() {
            Err(FlushError::Forked) => return Err(StopError::Forked),
            Err(_) => return Err(StopError::OnWorker),
            Ok(()) => {}
        }
        let deadline = deadline_in(timeout);
        let (crew, run) = self.close();
        let discarded = match crew {
            Some(crew) => {
                let late = self.lanes.take_all();
                if let Err(forked) = self.control.desk.check() {
                    std::mem::forget((late, crew));
                    return Err(forked.into());
                }
                let discarded = self.discard(late);
                worker::leave(self, crew, &FlushReport::default());
                discarded
            }
            None => 0,
        };
        // An event or a sink may have forked on this thread: the locks are the parent's then.
        self.control.desk.check()?;
        self.room.release();
        let mut desk = self.control.desk.lock();
        let report = |left_behind, busy_sink| StopReport {
            stats: self.stats(),
            left_behind,
            busy_sink,
            elapsed: begun.elapsed(),
        };
        if !self.await_end(&mut desk, run, deadline) {
            drop(desk);
            let busy = self.registry.busy();
            let report = Box::new(report(self.pending(), busy));
            return Err(StopError::TimedOut { report });
        }
        let is_ours = desk.run == run;
        let is_lost = is_ours && matches!(desk.crew, Station::Lost);
        // Its last act was to give the crew back, so the join waits for no sink. A lost one may still be
        // taking its crew apart.
        let thread = if is_ours && !is_lost { desk.thread.take() } else { None };
        let late = if is_ours { desk.late.clone() } else { Vec::new() };
        drop(desk);
        if let Some(thread) = thread {
            sync::join(thread);
        }
        if is_lost {
            return Err(StopError::WorkerGone);
        }
        // All of them, also behind one that does not end.
        let hung: Vec<_> = late.iter().filter(|late| !late.wait(deadline)).collect();
        match hung.first() {
            None => Ok(report(discarded, None)),
            Some(late) => {
                let report = Box::new(report(discarded, Some(late.tally.name.clone())));
                Err(StopError::TimedOut { report })
            }
        }
    }

    /// Refuses events from now on, and says which run that ends. The crew of a collector that never had a
    /// worker is the caller's until it has done what the worker would have: nothing can start meanwhile.
    fn close(&self) -> (Option<Box<Crew<E>>>, u64) {
        let mut desk = self.control.desk.lock();
        let crew = match (self.phase.close(), std::mem::replace(&mut desk.crew, Station::AtWork)) {
            (Closed::NeverStarted, Station::Here(crew)) => Some(crew),
            (_, crew) => {
                desk.crew = crew;
                None
            }
        };
        (crew, desk.run)
    }

    /// Waits until no worker of this run has the crew; `false` when the deadline comes first.
    fn await_end(&self, desk: &mut MutexGuard<'_, Desk<E>>, run: u64, deadline: Option<Instant>) -> bool {
        let is_out =
            |desk: &Desk<E>| desk.run == run && matches!(desk.crew, Station::Boarding(_) | Station::AtWork);
        while is_out(desk) {
            if self.control.ended.wait_until(desk, deadline) {
                return !is_out(desk);
            }
        }
        true
    }
}

/// Enters the sinks of a builder.
pub(crate) fn enter_all<E: Event>(
    sinks: Vec<Box<dyn Sink<E>>>,
    registry: &crate::stats::Registry,
) -> Result<Vec<Slot<E>>, BuildError> {
    let mut slots = Vec::with_capacity(sinks.len());
    let mut sinks = sinks.into_iter();
    for sink in &mut sinks {
        match Prepared::new(sink).enter(registry) {
            Ok(slot) => slots.push(slot),
            Err(NotEntered::Forked) => {
                std::mem::forget(sinks);
                return Err(BuildError::Forked);
            }
            Err(NotEntered::Taken(name)) => {
                // Destructors of sinks are foreign code.
                slots.into_iter().for_each(|slot| drop(slot.end()));
                sinks.for_each(|sink| _ = guarded(|| drop(sink)));
                return Err(BuildError::DuplicateSink { name });
            }
        }
    }
    Ok(slots)
}
