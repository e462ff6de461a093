//! `Spares`: what one thread has no more use for, on its way to a thread that needs it.
//!
//! The loop makes the fields of an event, and the worker drops them. An allocator that serves both has them meet at one of its locks, with
//! every event. So the worker hands them back, many at once.
//!
//! No thread waits here. A slot whose lock is held is passed by, also in a forked child, where one may be held for ever. What finds no slot
//! goes back to the allocator.

use crate::sync::{Ordering, PlainMutex, PlainU64};

/// Number of values that are handed over at once.
const HANDED_OVER: usize = 64;

/// Number of slots: for as many values as a queue of the usual size has events, and some more.
const SLOTS: usize = 256;

/// Slots that are looked at before values go to the allocator, or come from there.
const PROBES: usize = 4;

/// Values between threads: 16,384 of them at most, and 128 with each thread.
pub(super) struct Spares<T> {
    /// Each has no value, or [`HANDED_OVER`] of them.
    slots: [PlainMutex<Vec<T>>; SLOTS],
    /// Number of slots with values, which are the first ones. A hint: threads change it without a lock.
    taken: PlainU64,
}

impl<T> Spares<T> {
    pub(super) const fn new() -> Self {
        Self { slots: [const { PlainMutex::fixed(Vec::new()) }; SLOTS], taken: PlainU64::new(0) }
    }

    /// Returns a value of this thread, or of another one.
    #[inline]
    pub(super) fn take(&self, own: &mut Vec<T>) -> Option<T> {
        if own.is_empty() {
            self.refill(own);
        }
        own.pop()
    }

    /// Keeps a value for this thread, and hands some over if it has many.
    #[inline]
    pub(super) fn keep(&self, own: &mut Vec<T>, value: T) {
        own.push(value);
        if own.len() >= 2 * HANDED_OVER {
            self.hand_over(own);
        }
    }

    /// Takes the values of the last slot that has any.
    #[cold]
    fn refill(&self, own: &mut Vec<T>) {
        let taken = (self.taken.load(Ordering::Relaxed) as usize).min(SLOTS);
        for (place, slot) in self.slots.iter().enumerate().take(taken).rev().take(PROBES) {
            if let Some(mut slot) = slot.try_lock()
                && !slot.is_empty()
            {
                // Both lists keep their memory.
                std::mem::swap(own, &mut slot);
                self.taken.store(place as u64, Ordering::Relaxed);
                return;
            }
        }
        // Where there are none, the next call looks further down.
        self.taken.store(taken.saturating_sub(PROBES) as u64, Ordering::Relaxed);
    }

    /// Puts all but the first values into the first slot that has none, or drops them.
    #[cold]
    fn hand_over(&self, own: &mut Vec<T>) {
        let values = own.drain(HANDED_OVER..);
        let taken = self.taken.load(Ordering::Relaxed) as usize;
        for (place, slot) in self.slots.iter().enumerate().skip(taken).take(PROBES) {
            if let Some(mut slot) = slot.try_lock()
                && slot.is_empty()
            {
                slot.extend(values);
                self.taken.store(place as u64 + 1, Ordering::Relaxed);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Arc;

    fn fill(spares: &Spares<Arc<()>>, own: &mut Vec<Arc<()>>, value: &Arc<()>, count: usize) {
        (0..count).for_each(|_| spares.keep(own, Arc::clone(value)));
    }

    #[test]
    fn what_one_thread_keeps_another_one_takes() {
        let (spares, value) = (Spares::new(), Arc::new(()));
        let (mut one, mut other) = (Vec::new(), Vec::new());
        fill(&spares, &mut one, &value, 3 * HANDED_OVER);
        assert_eq!(one.len(), HANDED_OVER, "two slots were filled");
        let taken: Vec<_> = std::iter::from_fn(|| spares.take(&mut other)).collect();
        assert_eq!(taken.len(), 2 * HANDED_OVER);
        assert_eq!(Arc::strong_count(&value), 1 + 3 * HANDED_OVER, "none is lost, none is there twice");
    }

    #[test]
    fn what_finds_no_slot_is_dropped() {
        let (spares, value, mut own) = (Spares::new(), Arc::new(()), Vec::new());
        fill(&spares, &mut own, &value, (SLOTS + 10) * HANDED_OVER);
        assert_eq!(Arc::strong_count(&value), 1 + (SLOTS + 1) * HANDED_OVER);
        let taken: Vec<_> = std::iter::from_fn(|| spares.take(&mut own)).collect();
        assert_eq!(taken.len(), (SLOTS + 1) * HANDED_OVER);
    }

    #[test]
    fn a_slot_that_is_held_is_passed_by() {
        let (spares, value, mut own) = (Spares::new(), Arc::new(()), Vec::new());
        let held: Vec<_> = spares.slots[..PROBES - 1].iter().map(|slot| slot.try_lock().unwrap()).collect();
        fill(&spares, &mut own, &value, 2 * HANDED_OVER);
        drop(held);
        assert_eq!(spares.slots[PROBES - 1].lock().len(), HANDED_OVER);
        // Slots without values below one that has some are found by a later call.
        let held = spares.slots[PROBES - 1].try_lock();
        own.clear();
        assert!(spares.take(&mut own).is_none());
        drop(held);
        fill(&spares, &mut own, &value, 2 * HANDED_OVER);
        own.clear();
        let taken = (0..PROBES * HANDED_OVER).filter(|_| spares.take(&mut own).is_some()).count();
        assert!(taken >= HANDED_OVER, "{taken}");
    }
}
