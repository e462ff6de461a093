//! `Shards`: the normal lane, as one ring or as several that producers share out among themselves.

use crate::ring::Ring;
use crate::sync::thread_index;

/// Rings of the normal lane; their number is a power of two. A thread always pushes into the same ring, so that its
/// events keep their order. Threads are numbered one after the other, so that those that begin together are spread
/// evenly.
#[derive(Debug)]
pub(crate) struct Shards<E> {
    /// Stored beside the collector's other fields, so that with one ring `collect` follows no further pointer.
    first: Ring<E>,
    others: Box<[Ring<E>]>,
}

impl<E> Shards<E> {
    /// Creates the rings with `capacity` slots in all, rounded up to the same number for each.
    pub(crate) fn new(capacity: usize, shards: usize) -> Self {
        let ring = || Ring::new(capacity.div_ceil(shards));
        Self { first: ring(), others: (1..shards).map(|_| ring()).collect() }
    }

    /// Returns the ring of the calling thread.
    #[inline]
    pub(crate) fn of_this_thread(&self) -> &Ring<E> {
        if self.is_split() { self.get(thread_index()) } else { &self.first }
    }

    /// Returns which of its ring's counters the calling thread counts evictions in. The ring wraps the number.
    #[inline]
    pub(crate) fn stripe(&self) -> usize {
        thread_index() / self.count()
    }

    /// Returns the first ring.
    pub(crate) fn first(&self) -> &Ring<E> {
        &self.first
    }

    /// Returns whether there are several rings.
    #[inline(always)]
    pub(crate) fn is_split(&self) -> bool {
        !self.others.is_empty()
    }

    /// Returns the ring at `index`, which counts on beyond the last.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> &Ring<E> {
        // The number of rings is a power of two, so this mask wraps the index.
        match index & self.others.len() {
            0 => &self.first,
            // No indexing, because that compiles in a panic. `collect` holds an event here. If an unwinding `collect`
            // had to drop it, the event could not stay in registers.
            index => self.others.get(index - 1).unwrap_or(&self.first),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Ring<E>> {
        std::iter::once(&self.first).chain(&self.others)
    }

    pub(crate) fn count(&self) -> usize {
        self.others.len() + 1
    }

    /// Returns how many events would be queued if every ring held as many as `ring`.
    #[inline]
    pub(crate) fn load_like(&self, ring: &Ring<E>) -> usize {
        ring.len() * self.count()
    }

    /// Returns how many events would be queued if every ring held as many as the fullest. It is never less than the
    /// true number, and with one ring it is that number.
    pub(crate) fn load(&self) -> usize {
        self.iter().map(|ring| self.load_like(ring)).max().unwrap_or(0)
    }

    /// Returns how many events are queued.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.iter().map(Ring::len).sum()
    }

    /// Returns how many events were displaced.
    pub(crate) fn evicted(&self) -> u64 {
        self.iter().map(Ring::evicted).sum()
    }
}
