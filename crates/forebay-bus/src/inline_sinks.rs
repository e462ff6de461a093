//! The sinks of a bus that has no threads: called by whoever emits, and counted as those of a collector's worker.

use std::collections::VecDeque;
use std::time::Instant;

use forebay::parts::{Inside, LateFlush, SinkTally, Slot, dispatch};
use forebay::{Batch, Collector};
use forebay_sync::sync::{Arc, Condvar, Mutex, MutexGuard, Ordering, WorkerMark, catch_panic};

use super::context;
use super::envelope::Envelope;

/// Sinks, and records that wait for them. One thread at a time has the sinks, out of the lock, and writes what is there when
/// it comes, and then for those that come meanwhile: so a sink may emit. Whoever comes while it writes for others waits, and
/// goes on in its address: so nobody writes for others without end.
pub(super) struct InlineSinks {
    state: Mutex<State>,
    /// Rung when the sinks are back, and somebody waits for them.
    back: Condvar,
    /// Address of the bus: a sink that emits to it is not to make calls.
    address: usize,
    /// Address of its collector: a thread that has the sinks stands in for its worker.
    worker: usize,
    /// Counts of the sinks.
    tallies: Vec<Arc<SinkTally>>,
    /// Makes a batch of the collector's origin and run.
    to_batch: Box<ToBatch>,
}

#[derive(Default)]
struct State {
    /// `None` while a thread has them.
    slots: Option<Slots>,
    /// True if that thread has done its own, and writes for others.
    is_overtime: bool,
    /// Number of threads that wait for the sinks.
    wanted: usize,
    waiting: VecDeque<Envelope>,
    /// Bytes that these own.
    bytes: u64,
    /// Records that were evicted for others since the last batch.
    evicted: u64,
}

/// Owner of the sinks: in a forked child, its parent. There they are neither called nor ended, and no lock is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Ours,
    Parents,
}

type Slots = Vec<Slot<Envelope>>;

type ToBatch = dyn Fn(Vec<Envelope>) -> Batch<Envelope> + Send + Sync;

/// While a sink hangs, the oldest are evicted: beyond so many, and beyond what so many bytes hold, but for one.
const MAX_WAITING: usize = 10_000;
const MAX_WAITING_BYTES: u64 = 50 << 20;

/// Number of batches that a thread writes for others, where none of them may wait to do it: they are in handlers or sinks.
const MAX_OVERTIME: usize = 64;

impl State {
    /// Takes a record in; those that are evicted for it come out, and are counted.
    fn push(&mut self, event: Envelope) -> Vec<Envelope> {
        self.bytes = self.bytes.saturating_add(event.owned_bytes());
        self.waiting.push_back(event);
        let mut evicted = Vec::new();
        while (self.waiting.len() > MAX_WAITING || self.bytes > MAX_WAITING_BYTES && self.waiting.len() > 1)
            && let Some(oldest) = self.waiting.pop_front()
        {
            self.bytes = self.bytes.saturating_sub(oldest.owned_bytes());
            evicted.push(oldest);
        }
        self.evicted += evicted.len() as u64;
        evicted
    }

    fn take(&mut self) -> Option<Slots> {
        self.is_overtime = false;
        self.slots.take()
    }
}

impl InlineSinks {
    pub(super) fn new(slots: Slots, address: usize, collector: &Collector<Envelope>) -> Self {
        let inside = Inside::of(collector);
        let (worker, to_batch) = (inside.address(), Box::new(inside.to_batch()));
        let tallies = slots.iter().map(|slot| Arc::clone(&slot.tally)).collect();
        let state = State { slots: Some(slots), ..State::default() };
        Self { state: Mutex::new(state), back: Condvar::new(), address, worker, tallies, to_batch }
    }

    pub(super) fn write(&self, event: &Envelope) {
        let (event, may_wait) = (event.clone(), !context::is_busy());
        let mut state = self.state.lock();
        let evicted = state.push(event);
        let slots = match &state.slots {
            // Whoever waits for them writes this as well.
            _ if state.wanted > 0 => None,
            Some(_) => state.take(),
            None if state.is_overtime && may_wait => self.wait(&mut state, None),
            None => None,
        };
        drop(state);
        // User code: not under the lock.
        let _ = catch_panic(|| drop(evicted));
        if let Some(mut slots) = slots {
            // A sink that starts a thread of its own hands the mark on, so that nothing is waited for there either.
            let _marks = (context::enter(self.address), WorkerMark::set(self.worker));
            match self.write_waiting(&mut slots) {
                Whose::Ours => self.return_slots(slots, None),
                Whose::Parents => std::mem::forget(slots),
            }
        }
    }

    /// Writes and flushes everything. Returns the name of a sink that was not done by the deadline, whichever thread calls it.
    pub(super) fn flush(&self, deadline: Option<Instant>) -> Option<String> {
        let mut state = self.state.lock();
        let slots = if state.slots.is_some() { state.take() } else { self.wait(&mut state, deadline) };
        drop(state);
        let Some(mut slots) = slots else { return Some(self.busy()) };
        let marks = (context::enter(self.address), WorkerMark::set(self.worker));
        let each = |slot: &mut Slot<Envelope>| {
            slot.flush();
            self.whose() == Whose::Ours
        };
        if self.write_waiting(&mut slots) == Whose::Parents || !slots.iter_mut().all(each) {
            std::mem::forget(slots);
            return None;
        }
        let late: Vec<_> = slots.iter_mut().filter_map(Slot::begin_flush).collect();
        if self.whose() == Whose::Parents {
            std::mem::forget((slots, late));
            return None;
        }
        self.return_slots(slots, deadline);
        drop(marks);
        let mut late = late.iter().filter(|late: &&LateFlush| !late.wait(deadline));
        late.next().map(|late| late.tally.name.clone())
    }

    /// Waits for the sinks; `None` when the deadline came first.
    fn wait(&self, state: &mut MutexGuard<'_, State>, deadline: Option<Instant>) -> Option<Slots> {
        state.wanted += 1;
        while state.slots.is_none() && !self.back.wait_until(state, deadline) {}
        state.wanted -= 1;
        state.take()
    }

    /// Returns the name of the sink that is in a call.
    fn busy(&self) -> String {
        let busy = self.tallies.iter().find(|tally| tally.busy_since.load(Ordering::Relaxed) != 0);
        busy.map_or_else(|| "bus".to_owned(), |tally| tally.name.clone())
    }

    /// Returns whose the sinks and the locks are, behind a call of a sink, which may have forked.
    fn whose(&self) -> Whose {
        if self.state.check().is_err() { Whose::Parents } else { Whose::Ours }
    }

    fn write_waiting(&self, slots: &mut Slots) -> Whose {
        let mut state = self.state.lock();
        let events: Vec<Envelope> = state.waiting.drain(..).collect();
        state.bytes = 0;
        let evicted = std::mem::take(&mut state.evicted);
        drop(state);
        if events.is_empty() {
            return Whose::Ours;
        }
        for slot in &*slots {
            slot.tally.offered.bump(evicted);
            slot.tally.evicted.add(evicted);
        }
        let mut batch = (self.to_batch)(events);
        batch.add_gap(evicted);
        for slot in slots {
            dispatch(std::slice::from_mut(slot), &batch);
            if self.whose() == Whose::Parents {
                std::mem::forget(batch);
                return Whose::Parents;
            }
        }
        let _ = catch_panic(|| drop(batch));
        Whose::Ours
    }

    /// Writes what has come meanwhile, until nothing waits, another thread wants the sinks, or time is over.
    fn return_slots(&self, mut slots: Slots, deadline: Option<Instant>) {
        for left in (0..=MAX_OVERTIME).rev() {
            let mut state = self.state.lock();
            let is_late = left == 0 || deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if state.wanted > 0 || state.waiting.is_empty() || is_late {
                state.slots = Some(slots);
                if state.wanted > 0 {
                    self.back.notify_all();
                }
                return;
            }
            state.is_overtime = true;
            drop(state);
            if self.write_waiting(&mut slots) == Whose::Parents {
                std::mem::forget(slots);
                return;
            }
        }
    }
}

impl Drop for InlineSinks {
    fn drop(&mut self) {
        // Their destructors are user code.
        let slots = self.state.lock().slots.take();
        slots.into_iter().flatten().for_each(|slot| _ = slot.end());
    }
}
