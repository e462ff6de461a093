//! `WorkerState`: the sinks, the batcher and the parker of the worker, kept from run to run.

use crate::batch::{Batcher, Enrich};
use crate::dispatch::{LateFlush, Slot, retire};
use crate::event::Event;
use crate::mailbox::{Flushed, Removal, ReportedRange, Requests};
use crate::stats::{FlushReport, Registry, SinkTally};
use crate::sync::{Arc, Home, Parker, catch_panic};

/// Sinks, batcher and parker of the worker, kept from run to run. Between runs they lie in the mailbox.
pub(crate) struct WorkerState<E> {
    pub(crate) slots: Vec<Slot<E>>,
    pub(crate) batcher: Batcher<E>,
    pub(crate) parker: Parker,
    pub(crate) enrich: Option<Box<Enrich<E>>>,
    /// `processed` at the last flush whose report reached its caller.
    pub(crate) reported_processed: u64,
    pub(crate) reported_evictions: u64,
    /// Counts that the last flush reports of each sink.
    pub(crate) reported_sinks: Vec<ReportedRange>,
    /// The process that made it. In a forked child, all of this is the parent's.
    pub(crate) home: Home,
}

impl<E> WorkerState<E> {
    pub(crate) fn new(
        slots: Vec<Slot<E>>,
        batcher: Batcher<E>,
        parker: Parker,
        enrich: Option<Box<Enrich<E>>>,
    ) -> Self {
        Self {
            slots,
            batcher,
            parker,
            enrich,
            reported_processed: 0,
            reported_evictions: 0,
            reported_sinks: Vec::new(),
            home: Home::here(),
        }
    }

    /// Answers every request. Returns whether a caller took the report of a flush.
    pub(crate) fn answer(&mut self, mut requests: Requests, report: &FlushReport, registry: &Registry) -> bool
    where
        E: Event,
    {
        while !requests.removed.is_empty() {
            let Removal { tally, reply } = requests.removed.remove(0);
            let retired = self.take_slot_of(&tally).map(|slot| retire(slot, registry));
            if self.home.is_left() {
                std::mem::forget((requests, reply, retired));
                return false;
            }
            reply.answer(Some(retired));
        }
        let mut is_heard = false;
        while !requests.flushes.is_empty() {
            let reply = requests.flushes.remove(0);
            let (report, reported) = (report.clone(), self.reported_sinks.clone());
            let late = self.begin_flushes();
            if self.home.is_left() {
                std::mem::forget((requests, reply, late));
                return false;
            }
            is_heard |= reply.answer(Some(Flushed { report, reported, late, done: Vec::new() }));
        }
        is_heard
    }

    /// Starts the flushes that the threads of isolated sinks carry out.
    pub(crate) fn begin_flushes(&mut self) -> Vec<LateFlush> {
        self.slots.iter_mut().filter_map(Slot::begin_flush).collect()
    }

    /// Notes that a report of everything up to `processed` events has reached its caller.
    pub(crate) fn mark_reported(&mut self, processed: u64)
    where
        E: Event,
    {
        self.reported_sinks.iter().for_each(|reported| reported.tally.mark_reported(reported.up_to));
        self.reported_processed = processed;
        self.reported_evictions = self.batcher.reported_evictions();
    }

    /// Ends all sinks. One by one, because each may panic.
    pub(crate) fn end(&mut self) {
        self.slots.drain(..).for_each(|slot| drop(slot.end()));
    }

    /// Removes the sinks that are finished: nobody needs them any more.
    pub(crate) fn remove_finished_sinks(&mut self, registry: &Registry) {
        let finished = self.finished_sinks();
        self.remove_sinks(finished, registry);
    }

    /// Returns the indices of finished sinks.
    pub(crate) fn finished_sinks(&mut self) -> Vec<usize> {
        self.slots
            .iter_mut()
            .enumerate()
            .filter_map(|(place, slot)| slot.is_over().then_some(place))
            .collect()
    }

    pub(crate) fn remove_sinks(&mut self, places: Vec<usize>, registry: &Registry) {
        for place in places.into_iter().rev() {
            let tally = self.slots.remove(place).end();
            if self.home.is_left() {
                return;
            }
            registry.remove(&tally.name);
        }
    }

    /// Removes and returns the slot with these counters.
    pub(crate) fn take_slot_of(&mut self, tally: &Arc<SinkTally>) -> Option<Slot<E>> {
        let index = self.slots.iter().position(|slot| Arc::ptr_eq(&slot.tally, tally))?;
        Some(self.slots.remove(index))
    }

    /// Removes and returns the slot of that name.
    pub(crate) fn take_slot(&mut self, name: &str) -> Option<Slot<E>> {
        let index = self.slots.iter().position(|slot| slot.tally.name == name)?;
        Some(self.slots.remove(index))
    }
}

impl<E> AsMut<Vec<Slot<E>>> for WorkerState<E> {
    fn as_mut(&mut self) -> &mut Vec<Slot<E>> {
        &mut self.slots
    }
}

impl<E> Drop for WorkerState<E> {
    fn drop(&mut self) {
        self.end();
        // This closure is user code as well.
        let enrich = self.enrich.take();
        if self.home.is_left() {
            return std::mem::forget(enrich);
        }
        _ = catch_panic(|| drop(enrich));
    }
}
