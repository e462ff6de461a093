//! The normal lane: one ring, or several that producers share out among themselves.

use crate::ring::Ring;
use crate::sync::thread_index;

/// A power of two of rings. A thread always pushes into the same one, so that its events keep their order. Threads are
/// numbered one after the other, so that those which begin together are spread evenly.
#[derive(Debug)]
pub(crate) struct Shards<E> {
    /// Beside the collector's other fields: with one ring, `collect` follows no pointer more.
    first: Ring<E>,
    others: Box<[Ring<E>]>,
}

impl<E> Shards<E> {
    /// `capacity` slots in all, rounded up to the same number for each ring.
    pub(crate) fn new(capacity: usize, shards: usize) -> Self {
        let ring = || Ring::new(capacity.div_ceil(shards));
        Self { first: ring(), others: (1..shards).map(|_| ring()).collect() }
    }

    /// The ring of the calling thread.
    #[inline]
    pub(crate) fn of_this_thread(&self) -> &Ring<E> {
        if self.is_split() { self.get(thread_index()) } else { &self.first }
    }

    /// Tells apart the threads that share a ring: what the choice of the ring leaves of a thread's number.
    #[inline]
    pub(crate) fn stripe(&self) -> usize {
        thread_index() / self.count()
    }

    /// Whether there are several rings.
    #[inline(always)]
    pub(crate) fn is_split(&self) -> bool {
        !self.others.is_empty()
    }

    /// The ring of that number; counts on beyond the last.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> &Ring<E> {
        // Their number is a power of two, so this is the mask that counts round.
        match index & self.others.len() {
            0 => &self.first,
            // No panic is compiled in: `collect` holds an event meanwhile, and one that had to be dropped by an
            // unwinding `collect` could not stay in registers.
            index => self.others.get(index - 1).unwrap_or(&self.first),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Ring<E>> {
        std::iter::once(&self.first).chain(&self.others)
    }

    pub(crate) fn count(&self) -> usize {
        self.others.len() + 1
    }

    /// How many events would be queued if every ring held as many as `ring`.
    #[inline]
    pub(crate) fn load_like(&self, ring: &Ring<E>) -> usize {
        ring.len() * self.count()
    }

    /// How many would be queued if every ring held as many as the one that holds most: never less than there
    /// are. With one ring it is their number.
    pub(crate) fn load(&self) -> usize {
        self.iter().map(|ring| self.load_like(ring)).max().unwrap_or(0)
    }

    /// How many events are queued.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.iter().map(Ring::len).sum()
    }

    /// How many events were displaced.
    pub(crate) fn evicted(&self) -> u64 {
        self.iter().map(Ring::evicted).sum()
    }
}
