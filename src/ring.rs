//! `Ring`: one bounded queue. This is the only file that names `ArrayQueue`, so that the queue can be sharded or
//! replaced without a change elsewhere.
//!
//! `ArrayQueue` takes no lock, but it is not wait-free. A thread may be preempted while it has written half of a
//! slot. Another producer or consumer that finds this slot spins, then yields, until the first thread has written its
//! few bytes. See "What lock-free means here" in `docs/guarantees.md`.

use std::hint::black_box;
use std::mem::MaybeUninit;

use crossbeam_queue::ArrayQueue;

use crate::sync::{CachePadded, Ordering, PlainU64};

/// The number of eviction counters. A power of two, so that a mask chooses one.
const STRIPES: usize = 4;

/// Bounded first-in first-out ring for any number of producers and consumers.
///
/// Other modules rely on these facts:
/// * The ring is linearisable.
/// * `len` never reads more than `capacity`.
/// * An element leaves exactly once: `pop` returns it, or a newer element displaces it.
/// * A claimed slot shows in `len`, and `pop` waits until it is written.
/// * On x86-64, a push claims its slot by a locked instruction. No later load of the pushing thread is satisfied
///   before the claim is visible. `sync::push_fence` builds on this.
#[derive(Debug)]
pub(crate) struct Ring<E> {
    queue: ArrayQueue<E>,
    /// The number of displaced events, as parts that add up. Producers that evict at the same time count in different
    /// parts: one shared word took two of them from 50 to 760 ns an event. Producers write it; the worker reads it
    /// for the gap of a batch.
    evicted: [CachePadded<PlainU64>; STRIPES],
}

/// Returns the size of one slot of a ring of `E`, in bytes.
pub(crate) const fn slot_size<E>() -> usize {
    size_of::<Slot<E>>()
}

/// Slot as `ArrayQueue` lays it out: a stamp and an element.
type Slot<E> = (usize, MaybeUninit<E>);

/// Returns the index of the first capacity that cannot be allocated together with those before it.
///
/// `ArrayQueue` aborts the process where the allocator refuses. So this function first asks the allocator for the
/// same sizes, and returns what it gets. The allocator may still refuse later, if other threads take the memory in
/// between.
pub(crate) fn first_too_large<E>(capacities: impl IntoIterator<Item = usize>) -> Option<usize> {
    let mut held: Vec<Vec<Slot<E>>> = Vec::new();
    capacities.into_iter().position(|capacity| {
        let mut slots = Vec::new();
        let is_refused = slots.try_reserve_exact(capacity).is_err();
        // Without `black_box`, the compiler may remove the unused allocation and assume that it succeeds.
        held.push(black_box(slots));
        is_refused
    })
}

impl<E> Ring<E> {
    /// Creates a ring and allocates all its slots. `capacity` is at least 1 (`Config::validate` checks it).
    pub(crate) fn new(capacity: usize) -> Self {
        Self { queue: ArrayQueue::new(capacity), evicted: Default::default() }
    }

    /// Appends `event`, or returns it when the ring is full.
    #[inline]
    pub(crate) fn push(&self, event: E) -> Result<(), E> {
        self.queue.push(event)
    }

    /// Appends `event`. In a full ring, displaces the oldest event and returns it; the caller counts it.
    #[inline(always)]
    pub(crate) fn push_evicting(&self, event: E) -> Option<E> {
        self.queue.force_push(event)
    }

    /// Counts an event that `push_evicting` returned. `stripe` tells threads apart. `push_evicting` does not count
    /// itself: its result would be moved once more, and even a moved `None` is a copy that stalls.
    #[inline(always)]
    pub(crate) fn count_evicted(&self, stripe: usize) {
        // Relaxed: a count, not a signal. A flush that must see it synchronises by a mutex.
        self.evicted[stripe & (STRIPES - 1)].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how many events were displaced so far.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted.iter().map(|part| part.load(Ordering::Relaxed)).sum()
    }

    /// Removes and returns the oldest event. `None` means that the ring was empty at one instant.
    #[inline]
    pub(crate) fn pop(&self) -> Option<E> {
        self.queue.pop()
    }

    /// Returns how many events are queued. It reads the cache line that the consumer writes, so the hot path asks
    /// only while the worker sleeps.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Returns whether no event is queued. It costs two loads.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.queue.capacity()
    }
}
