//! One bounded ring: the only file that names `ArrayQueue`, so that the ring can be sharded or replaced
//! without touching anything else.
//!
//! `ArrayQueue` takes no lock, but it is not wait-free: a producer or consumer that finds a slot
//! half-written by a thread the scheduler has just preempted spins, then yields, until that thread has
//! written its few bytes. See "What lock-free means here" in the README.

use crossbeam_queue::ArrayQueue;

/// A bounded first-in first-out ring for any number of producers and consumers.
///
/// Facts that others build on: it is linearisable; `len` never reads more than `capacity`; an element
/// leaves exactly once, by `pop` or by being displaced; a slot that is claimed shows in `len`, and `pop` waits for
/// it; and on x86-64 the claim of a push is a locked instruction, at or behind which no load of the pushing thread
/// is satisfied before the claim is visible (`sync::push_fence` builds on it).
#[derive(Debug)]
pub(crate) struct Ring<E> {
    queue: ArrayQueue<E>,
}

impl<E> Ring<E> {
    /// Allocates all slots at once. `capacity` is at least 1 (`Config::validate` sees to it).
    pub(crate) fn new(capacity: usize) -> Self {
        Self { queue: ArrayQueue::new(capacity) }
    }

    /// Appends `event`, or gives it back when the ring is full.
    #[inline]
    pub(crate) fn push(&self, event: E) -> Result<(), E> {
        self.queue.push(event)
    }

    /// Appends `event`; in a full ring it takes the place of the oldest, which is returned.
    #[inline]
    pub(crate) fn push_evicting(&self, event: E) -> Option<E> {
        self.queue.force_push(event)
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

    pub(crate) fn capacity(&self) -> usize {
        self.queue.capacity()
    }
}
