//! The sinks of a bus that has no threads: called by whoever emits, and counted as those of a collector's worker.

use std::collections::VecDeque;
use std::time::Instant;

use super::context;
use crate::batch::Batch;
use crate::dispatch::{LateFlush, Slot, dispatch};
use crate::event::Record;
use crate::sync::{Mutex, guarded};

/// Sinks, and records that wait for them. One thread at a time has the sinks, out of the lock, and writes for those that
/// come meanwhile: so a sink may emit, and nobody waits for another's.
#[derive(Default)]
pub(super) struct InlineSinks {
    state: Mutex<State>,
    /// Of the bus: a sink that emits to it is not to make calls.
    place: usize,
}

#[derive(Default)]
struct State {
    /// `None` while a thread has them.
    slots: Option<Vec<Slot<Record>>>,
    waiting: VecDeque<Record>,
    /// Records that made room for others since the last batch.
    shed: u64,
}

/// To be asked for.
struct Flush;

/// While a sink hangs, the oldest make room.
const MOST_WAITING: usize = 10_000;

impl InlineSinks {
    pub(super) fn new(slots: Vec<Slot<Record>>, place: usize) -> Self {
        let state = State { slots: Some(slots), waiting: VecDeque::new(), shed: 0 };
        Self { state: Mutex::new(state), place }
    }

    pub(super) fn write(&self, record: &Record) {
        let record = record.clone();
        let mut state = self.state.lock();
        state.waiting.push_back(record);
        let shed = if state.waiting.len() > MOST_WAITING { state.waiting.pop_front() } else { None };
        state.shed += u64::from(shed.is_some());
        drop(state);
        // Foreign code: not under the lock.
        let _ = guarded(|| drop(shed));
        self.work(None);
    }

    /// Flushes all; the name of one whose thread was not done by the deadline.
    pub(super) fn flush(&self, deadline: Option<Instant>) -> Option<String> {
        let late = self.work(Some(Flush));
        let late: Vec<_> = late.iter().filter(|late| !late.wait(deadline)).collect();
        late.first().map(|late| late.tally.name.clone())
    }

    /// Writes until nothing waits, flushes if that is asked for, and writes what came meanwhile; unless another thread has
    /// the sinks, which goes on for this one. What the threads of isolated sinks have to finish.
    fn work(&self, mut last: Option<Flush>) -> Vec<LateFlush> {
        let mut late = Vec::new();
        let Some(mut slots) = self.state.lock().slots.take() else { return late };
        let _within = context::within(self.place);
        loop {
            let mut state = self.state.lock();
            let (records, shed): (Vec<Record>, u64) =
                (state.waiting.drain(..).collect(), std::mem::take(&mut state.shed));
            if records.is_empty() && last.is_none() {
                state.slots = Some(slots);
                return late;
            }
            drop(state);
            if records.is_empty() {
                last = None;
                slots.iter_mut().for_each(Slot::flush);
                late = slots.iter_mut().filter_map(Slot::begin_flush).collect();
                continue;
            }
            for slot in &slots {
                slot.tally.offered.bump(shed);
                slot.tally.shed.add(shed);
            }
            let mut batch = Batch::from_events(records);
            batch.add_gap(shed);
            dispatch(&mut slots, &batch);
            let _ = guarded(|| drop(batch));
        }
    }
}

impl Drop for InlineSinks {
    fn drop(&mut self) {
        // Their destructors are foreign code.
        let slots = self.state.lock().slots.take();
        slots.into_iter().flatten().for_each(|slot| _ = slot.end());
    }
}
