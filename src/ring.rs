//! One bounded ring: the only file that names `ArrayQueue`, so that the ring can be sharded or replaced
//! without touching anything else.
//!
//! `ArrayQueue` takes no lock, but it is not wait-free: a producer or consumer that finds a slot
//! half-written by a thread the scheduler has just preempted spins, then yields, until that thread has
//! written its few bytes. See "What lock-free means here" in `docs/guarantees.md`.

use std::hint::black_box;
use std::mem::MaybeUninit;

use crossbeam_queue::ArrayQueue;

use crate::sync::{CachePadded, Ordering, PlainU64};

/// A power of two, so that the choice is a mask.
const STRIPES: usize = 4;

/// A bounded first-in first-out ring for any number of producers and consumers.
///
/// Facts that others build on: it is linearisable; `len` never reads more than `capacity`; an element
/// leaves exactly once, by `pop` or by being displaced; a slot that is claimed shows in `len`, and `pop` waits for
/// it; and on x86-64 the claim of a push is a locked instruction, at or behind which no load of the pushing thread
/// is satisfied before the claim is visible (`sync::push_fence` builds on it).
#[derive(Debug)]
pub(crate) struct Ring<E> {
    queue: ArrayQueue<E>,
    /// How many events were displaced, in parts that add up: producers that evict side by side count in different
    /// ones. Counting in one word took two of them from 50 to 760 ns an event. Read by the worker for the gap of a
    /// batch.
    evicted: [CachePadded<PlainU64>; STRIPES],
}

/// The size of a slot of a ring of `E`, in bytes.
pub(crate) const fn slot_size<E>() -> usize {
    size_of::<Slot<E>>()
}

/// A slot as `ArrayQueue` lays it out: a stamp and an element.
type Slot<E> = (usize, MaybeUninit<E>);

/// Returns the place of the first of these capacities that cannot be allocated together with those before it.
///
/// `ArrayQueue` aborts the process where the allocator refuses. So it is asked here first, for the same sizes, and what it
/// gives is returned to it. It may still refuse later, if other threads take the memory in between.
pub(crate) fn first_too_large<E>(capacities: impl IntoIterator<Item = usize>) -> Option<usize> {
    let mut held: Vec<Vec<Slot<E>>> = Vec::new();
    capacities.into_iter().position(|capacity| {
        let mut slots = Vec::new();
        let is_refused = slots.try_reserve_exact(capacity).is_err();
        // Without it, the compiler may take an allocation that nobody uses for one that succeeds.
        held.push(black_box(slots));
        is_refused
    })
}

impl<E> Ring<E> {
    /// Allocates all slots at once. `capacity` is at least 1 (`Config::validate` sees to it).
    pub(crate) fn new(capacity: usize) -> Self {
        Self { queue: ArrayQueue::new(capacity), evicted: Default::default() }
    }

    /// Appends `event`, or gives it back when the ring is full.
    #[inline]
    pub(crate) fn push(&self, event: E) -> Result<(), E> {
        self.queue.push(event)
    }

    /// Appends `event`; in a full ring it takes the place of the oldest, which is returned: the caller counts it.
    #[inline(always)]
    pub(crate) fn push_evicting(&self, event: E) -> Option<E> {
        self.queue.force_push(event)
    }

    /// Counts an event that `push_evicting` returned; `stripe` tells threads apart. Not done there, where the result would be moved once more on
    /// its way: a copy that stalls, also of nothing.
    #[inline(always)]
    pub(crate) fn count_evicted(&self, stripe: usize) {
        // Relaxed: a count, not a signal; the flush that must see it comes with a mutex.
        self.evicted[stripe & (STRIPES - 1)].fetch_add(1, Ordering::Relaxed);
    }

    /// How many events were displaced so far.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted.iter().map(|part| part.load(Ordering::Relaxed)).sum()
    }

    /// Takes the oldest event. `None` means that the ring was seen empty at one instant.
    #[inline]
    pub(crate) fn pop(&self) -> Option<E> {
        self.queue.pop()
    }

    /// How many events are queued. It reads the line that the consumer writes, so the hot path asks
    /// only while the worker sleeps.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// The same as `len() == 0`, for two loads.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.queue.capacity()
    }
}
