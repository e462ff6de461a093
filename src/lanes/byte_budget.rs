//! `ByteBudget`: the bytes that queued events own beyond their slots.

use crate::event::{Event, Priority};
use crate::sync::{AtomicU64, CachePadded, Ordering, PlainU64, fetch_update};

/// Divisor of the budget: one part in so many is for critical events alone.
const RESERVED_FOR_CRITICAL: u64 = 8;

/// Bytes owned by events that are queued or with the worker, and their limit.
///
/// The bytes of an event are reserved before its push and released after it has left. So they are never fewer than
/// what the rings hold. Relaxed: these numbers guard no other data. The ring's own ordering shows a reservation to
/// the thread that pops the event. Loom does not model the numbers, but it models `is_wanted`.
#[derive(Debug)]
pub(crate) struct ByteBudget {
    held: CachePadded<PlainU64>,
    /// The part of `held` that lies in the rings, by priority.
    queued: [PlainU64; 3],
    /// `u64::MAX` without a limit.
    max: PlainU64,
    /// 1 from when an event did not fit until the worker takes some out. With the phase word it forms one half of a
    /// Dekker pair: see `Shared::reserve`.
    is_wanted: AtomicU64,
}

/// Returns the bytes that an event owns beyond its slot. For events that own nothing, the compiler knows that it is
/// 0.
#[inline(always)]
pub fn owned_bytes<E: Event>(event: &E) -> u64 {
    event.size_hint().saturating_sub(size_of::<E>()) as u64
}

impl ByteBudget {
    pub(crate) fn new(max: Option<usize>) -> Self {
        let budget = Self {
            held: CachePadded::default(),
            queued: Default::default(),
            max: PlainU64::new(0),
            is_wanted: AtomicU64::new(0),
        };
        budget.set_max(max);
        budget
    }

    pub(crate) fn set_max(&self, max: Option<usize>) {
        self.max.store(max.map_or(u64::MAX, |bytes| bytes as u64), Ordering::Relaxed);
    }

    /// Returns how many bytes are held.
    #[inline]
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Returns the limit of held bytes for events of this priority.
    pub(crate) fn max_for(&self, priority: Priority) -> u64 {
        match (self.max.load(Ordering::Relaxed), priority) {
            (u64::MAX, _) => u64::MAX,
            (max, Priority::Critical) => max,
            (max, Priority::Normal | Priority::Low) => max - max / RESERVED_FOR_CRITICAL,
        }
    }

    /// Reserves bytes for an event that is to be pushed. Returns whether that many were free.
    pub(crate) fn try_reserve(&self, priority: Priority, bytes: u64) -> bool {
        let max = self.max_for(priority);
        let has_taken = fetch_update(&self.held, |held| held.checked_add(bytes).filter(|held| *held <= max));
        if has_taken {
            self.queued[priority as usize].fetch_add(bytes, Ordering::Relaxed);
        }
        has_taken
    }

    /// Subtracts the bytes of events that have left the ring, or never came to it.
    pub(crate) fn dequeue(&self, priority: Priority, bytes: u64) {
        lower(&self.queued[priority as usize], bytes);
    }

    /// Returns how many bytes are missing for an event, and how many belong to events that may be evicted for it.
    /// Critical events and those with the worker are out of reach.
    pub(crate) fn shortage(&self, priority: Priority, bytes: u64) -> (u64, u64) {
        let missing = self.held().saturating_add(bytes).saturating_sub(self.max_for(priority));
        let queued = |of: Priority| self.queued[of as usize].load(Ordering::Relaxed);
        let reach = match priority {
            Priority::Critical => 0,
            Priority::Normal => queued(Priority::Normal).saturating_add(queued(Priority::Low)),
            Priority::Low => queued(Priority::Low),
        };
        (missing, reach)
    }

    /// Releases held bytes. An event may report more bytes than when it reserved them. The count then stops at 0, so
    /// that it does not take those of another event for ever.
    pub(crate) fn release(&self, bytes: u64) {
        lower(&self.held, bytes);
    }

    /// Notes that an event did not fit.
    pub(crate) fn mark_wanted(&self) {
        self.is_wanted.store(1, Ordering::Relaxed);
    }

    /// Notes that the worker takes events out.
    #[inline]
    pub(crate) fn clear_wanted(&self) {
        if self.held() > 0 && self.is_wanted.load(Ordering::Relaxed) != 0 {
            self.is_wanted.store(0, Ordering::Relaxed);
        }
    }

    /// Returns whether half of the budget is used, or an event did not fit. Then a sleeping worker must wake if there
    /// is something to deliver.
    #[inline]
    pub(crate) fn is_short(&self) -> bool {
        let held = self.held();
        held > 0
            && (held >= self.max_for(Priority::Critical) / 2 || self.is_wanted.load(Ordering::Relaxed) != 0)
    }
}

fn lower(number: &PlainU64, by: u64) {
    fetch_update(number, |number| Some(number.saturating_sub(by)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_eighth_is_kept_for_critical_events() {
        let budget = ByteBudget::new(Some(80));
        assert!(budget.try_reserve(Priority::Normal, 70) && !budget.try_reserve(Priority::Low, 1));
        assert!(budget.try_reserve(Priority::Critical, 10) && !budget.try_reserve(Priority::Critical, 1));
        budget.release(11);
        assert!(budget.try_reserve(Priority::Normal, 1) && !budget.try_reserve(Priority::Normal, 1));
        assert_eq!(budget.held(), 70);
    }

    #[test]
    fn no_limit_and_the_largest_numbers() {
        let budget = ByteBudget::new(None);
        assert!(budget.try_reserve(Priority::Low, u64::MAX - 1) && budget.try_reserve(Priority::Low, 1));
        assert!(!budget.try_reserve(Priority::Low, 1), "no count wraps");
        budget.release(u64::MAX);
        budget.release(5);
        assert_eq!(budget.held(), 0);
        budget.set_max(Some(4));
        assert!(budget.try_reserve(Priority::Critical, 4) && budget.is_short());
    }
}
