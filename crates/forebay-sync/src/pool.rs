//! `Pool`: a queue whose producers have a lane each. Its slots are the only memory of forebay that threads share by `unsafe`.
//!
//! A thread that pushes has a *lane*. A lane has one open *block*, an array of slots. A push writes the next slot, and then the
//! count of written slots. No other thread writes to either, so that a push takes no locked instruction and no loop. A full block
//! is sealed, and its lane opens another one. Where none is free, the lane evicts a sealed one, with the oldest events. The drain
//! takes events from sealed and from open blocks.
//!
//! # Who may touch a slot
//!
//! One word for each block says it: a version in the upper bits, and flags.
//!
//! | flags | slots below `committed` | slots from `committed` on | who changes them |
//! |---|---|---|---|
//! | `FREE` | the thread that took the block's bit out of `free` | the same thread | that thread -> `OPEN` |
//! | `BUSY` | the thread that evicted the block | the same thread | that thread -> `OPEN`, or -> `FREE` and back into `free` |
//! | `OPEN` | the drain, while `PIN` is set | the lane that opened it | that lane -> `SEALED` |
//! | `SEALED` | the drain, while `PIN` is set | nobody | the drain -> `FREE`, and back into `free`; any thread, without `PIN`, -> `BUSY` |
//!
//! Only the drain sets and clears `PIN`, and only where it is not set. The version grows with every `OPEN` out of `FREE` and every
//! `BUSY`, so that no later word is taken for the one that was read. A producer never waits: it passes over a pinned block.
//!
//! | what goes from thread to thread | released by | acquired by |
//! |---|---|---|
//! | head of a block | the store of `OPEN` | the load of the word, by the drain and by who evicts |
//! | an event in an open block | the store of `committed` | the load of `committed`, by the drain |
//! | events of a sealed block | the change to `SEALED` | the load of the word, by the drain; the change to `BUSY` |
//! | slots that the drain has emptied, and `consumed` | the change that clears `PIN` | the change to `BUSY` |
//! | slots of a free block | the bit put into `free` | the bit taken out of it |
//! | a lane | the bit put into `vacant` | the bit taken out of it |
//! | every block of a lane up to a number | the store of `sealed_up_to` | its load, by the drain |
//!
//! # Who may touch a lane
//!
//! The thread that took its bit out of `vacant`, until it puts it back. Then the next thread goes on in the same block with the
//! same numbers, so that nothing has to be drained for it. What other threads read of a lane is atomic.
//!
//! The design, and what it was measured against, is that of Perfetto's shared memory buffers, of the reader page of ftrace, and
//! of Java's flight recorder.

#![allow(unsafe_code, reason = "events in slots that one thread at a time may touch: see the tables")]

mod threads;

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ops::Deref;
use std::ptr::NonNull;

use crate::clock;
use crate::sync::{
    Arc, AtomicU32, AtomicU64, CachePadded, Home, Mutex, Ordering, PlainU64, UnsafeCell, catch_panic,
};
use Ordering::{Acquire, Relaxed, Release};
use threads::Vacate;

/// Most slots of a block. More save little: a push into a full pool takes 5.3, 3.6, 3.0 and 2.8 ns with 16, 32, 64 and 128.
const MAX_BLOCK: usize = 64;
/// Fewest slots of a block, unless all lanes together have few.
const MIN_BLOCK: usize = 8;
/// Most blocks that a lane looks at to evict one of another lane.
const MAX_LOOKS: usize = 512;
/// Number of times that a lane looks for a block, where other threads get each that it tries for.
const ATTEMPTS: usize = 8;

const FREE: u64 = 0;
const OPEN: u64 = 1;
const SEALED: u64 = 2;
const PIN: u64 = 4;
const BUSY: u64 = 8;
const FLAGS: u64 = 15;
const ONE_VERSION: u64 = 16;

/// Place of a block that a lane does not have.
const NONE: u32 = u32::MAX;

fn version(word: u64) -> u64 {
    word & !FLAGS
}

/// Returns the time of an event, in nanoseconds.
type TimeOf<E> = fn(&E) -> u64;

type Slot<E> = UnsafeCell<MaybeUninit<E>>;

/// What a block says of its slots. Written by the thread that has the block; `consumed` by the drain while it pins.
#[derive(Debug)]
struct Head {
    /// Number of written slots.
    committed: AtomicU32,
    /// Number of slots whose events were taken out, at most `committed`.
    consumed: AtomicU32,
    lane: AtomicU32,
    /// Number of the event of slot 0, counted within the lane.
    first: AtomicU64,
    /// Time when it was opened, which grows within a lane. Blocks are taken in this order.
    opened: AtomicU64,
}

impl Head {
    fn new(committed: usize) -> CachePadded<Self> {
        CachePadded::new(Self {
            committed: AtomicU32::new(committed as u32),
            consumed: AtomicU32::new(0),
            lane: AtomicU32::new(NONE),
            first: AtomicU64::new(0),
            opened: AtomicU64::new(0),
        })
    }

    /// Returns the slots that hold events. For who has the block to itself.
    fn queued(&self) -> (u32, u32) {
        (self.consumed.load(Relaxed), self.committed.load(Relaxed))
    }
}

/// What one producer writes to. Everything in a `Cell` belongs to the thread that has the lane; see [`Owned`].
struct Lane<E> {
    /// Slot 0 of the open block.
    base: Cell<*const Slot<E>>,
    /// Head of the open block, or of one without space.
    head: Cell<*const Head>,
    /// Slots of the open block that still hold events of its former life, which were evicted: those from `committed` on count.
    stale: Cell<(u32, u32)>,
    /// Slots of the open block from `committed` up to here hold nothing. A push beyond asks `stale`.
    ready_to: Cell<u32>,
    /// The open block, or `NONE`.
    block: Cell<u32>,
    index: u32,
    /// Number of the event of slot 0 of the open block; of the next event where no block is open.
    first: Cell<u64>,
    opened: Cell<u64>,
    /// Whether the next look after a push has to be at all lanes: after each that opens a block.
    looks_at_all: Cell<bool>,
    /// Own blocks and their versions, the oldest first. Those whose version has passed are no longer its own.
    own: Cell<VecDeque<(u32, u64)>>,
    /// Nothing: a model sees by it whether two threads have the lane at once.
    owner: UnsafeCell<()>,
    /// What this lane evicted, of whichever lane.
    evicted: PlainU64,
    /// Number of the next event after the last sealed block.
    sealed_up_to: CachePadded<AtomicU64>,
    /// `block`, for others.
    shown: AtomicU32,
    /// Number of the next event that the drain has not seen. The drain writes it.
    taken_up_to: CachePadded<AtomicU64>,
}

impl<E> Lane<E> {
    fn new(index: usize, blocks: usize) -> CachePadded<Self> {
        CachePadded::new(Self {
            base: Cell::new(std::ptr::null()),
            head: Cell::new(std::ptr::null()),
            stale: Cell::new((0, 0)),
            ready_to: Cell::new(0),
            block: Cell::new(NONE),
            index: index as u32,
            first: Cell::new(0),
            opened: Cell::new(0),
            looks_at_all: Cell::new(false),
            own: Cell::new(VecDeque::with_capacity(blocks)),
            owner: UnsafeCell::new(()),
            evicted: PlainU64::new(0),
            sealed_up_to: CachePadded::new(AtomicU64::new(0)),
            shown: AtomicU32::new(NONE),
            taken_up_to: CachePadded::new(AtomicU64::new(0)),
        })
    }
}

/// Push that has succeeded.
#[derive(Debug)]
pub struct Queued<'a, E> {
    /// The lane that has the event.
    pub lane: Owned<'a, E>,
    /// Number of events that were evicted for it, with their block. `None`: its slot was ready. `Some(0)`: space was made without an
    /// eviction, or only an event taken out that was evicted before.
    pub evicted: Option<u64>,
}

/// What may be done where no block is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eviction {
    /// Nothing: the event is refused.
    Never,
    /// A block is evicted. Its events are dropped when their slots are written.
    AndDrop,
    /// The same, and events without a destructor are returned as well, for the bytes that they own.
    AndReturn,
}

/// Why an event was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// No block is free, and none could be evicted.
    Full,
    /// All lanes have their threads.
    NoLane,
}

/// Blocks, and the lanes that fill them.
pub struct Pool<E> {
    /// Number of this pool. It is never used again.
    id: u64,
    block_slots: u32,
    states: Box<[AtomicU64]>,
    /// One more than there are blocks: the last one has no space, for lanes without an open block.
    heads: Box<[CachePadded<Head>]>,
    slots: Box<[Slot<E>]>,
    /// A bit for each free block.
    free: Box<[AtomicU64]>,
    lanes: Box<[CachePadded<Lane<E>>]>,
    /// A bit for each lane without a thread.
    vacant: Box<[AtomicU64]>,
    /// Number of lanes that have ever had a thread: the first ones.
    used: AtomicU32,
    /// What threads without a lane evicted.
    evicted: PlainU64,
    drain: Mutex<Drain>,
    /// Time by which the events of several lanes are merged, if they are.
    time: Option<TimeOf<E>>,
    /// The process whose events they are.
    home: Home,
}

// SAFETY: slots go from thread to thread as the tables say, and events are `Send`. The cells of a `Lane` are used by the thread that
// has taken it, and its pointers point into the pool.
unsafe impl<E: Send> Send for Pool<E> {}
// SAFETY: as above. No reference to an event is shared.
unsafe impl<E: Send> Sync for Pool<E> {}

fn all_set(bits: usize) -> Box<[AtomicU64]> {
    let word = |bits: usize| if bits >= 64 { u64::MAX } else { (1 << bits) - 1 };
    (0..bits.div_ceil(64)).map(|index| AtomicU64::new(word(bits - index * 64))).collect()
}

fn set_bit(map: &[AtomicU64], bit: usize) {
    if let Some(word) = map.get(bit / 64) {
        // Release, paired with `take_bit`: who takes it sees what was done with what it stands for.
        word.fetch_or(1 << (bit % 64), Release);
    }
}

/// Takes the lowest bit. A lost race is a bit that another thread got, and each word is tried at most 64 times. Where the first
/// `look` finds none, a `second_look` also finds what was set a moment ago.
fn take_bit(map: &[AtomicU64], look: impl Fn(&AtomicU64) -> u64) -> Option<usize> {
    for (index, word) in map.iter().enumerate() {
        let mut seen = look(word);
        for _ in 0..64 {
            if seen == 0 {
                break;
            }
            let bit = seen & seen.wrapping_neg();
            // Acquire: see `set_bit`.
            seen = word.fetch_and(!bit, Acquire);
            if seen & bit != 0 {
                return Some(index * 64 + bit.trailing_zeros() as usize);
            }
        }
    }
    None
}

fn look(word: &AtomicU64) -> u64 {
    word.load(Relaxed)
}

/// Reads the last value that was written. A load may return an older one.
fn second_look(word: &AtomicU64) -> u64 {
    word.fetch_or(0, Relaxed)
}

/// Returns how many blocks there are, and the slots of each: 64, or fewer where the lanes together would hold much more than the
/// capacity. They hold `capacity` events whatever the lanes have open. Where the drain has emptied a part of an open block, up to that
/// part less, until it comes again.
fn shape(capacity: usize, lanes: usize) -> (usize, usize) {
    let fewest = (capacity / 4).clamp(1, MIN_BLOCK);
    let slots = (capacity / (4 * lanes)).clamp(fewest, MAX_BLOCK);
    (capacity.div_ceil(slots) + lanes, slots)
}

/// Returns the memory of a pool, in slots: those that it has, and what each lane knows of the blocks.
pub fn slots<E>(capacity: usize, lanes: usize) -> usize {
    let (blocks, slots) = shape(capacity, lanes);
    let known = lanes.saturating_mul(blocks).saturating_mul(size_of::<(u32, u64)>());
    blocks.saturating_mul(slots).saturating_add(known / size_of::<E>().max(1))
}

impl<E: Send + 'static> Pool<E> {
    /// Creates a pool whose lanes hold about `capacity` events before one is evicted. Both numbers are at least 1. With a `time`, a round
    /// gives the earliest of the events first that the lanes give next. It is asked while the drain is locked, so that it must not
    /// take events, nor panic.
    pub fn new(capacity: usize, lanes: usize, time: Option<TimeOf<E>>) -> Arc<Self> {
        let (blocks, slots) = shape(capacity, lanes);
        Self::with_blocks(blocks, slots, lanes, time)
    }

    /// Creates a pool of that many blocks and slots of each. There are more blocks than lanes.
    pub fn with_blocks(blocks: usize, slots: usize, lanes: usize, time: Option<TimeOf<E>>) -> Arc<Self> {
        static NEXT: PlainU64 = PlainU64::new(1);
        // What has no slot has no place for an event.
        let (blocks, slots) = (blocks.max(lanes + 1), slots.max(1));
        // The last one is full.
        let committed = |index| if index < blocks { 0 } else { slots };
        let heads: Box<[_]> = (0..=blocks).map(|index| Head::new(committed(index))).collect();
        let pool = Arc::new(Self {
            id: NEXT.fetch_add(1, Relaxed),
            block_slots: slots as u32,
            states: (0..blocks).map(|_| AtomicU64::new(FREE)).collect(),
            heads,
            slots: (0..blocks * slots).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect(),
            free: all_set(blocks),
            lanes: (0..lanes).map(|index| Lane::new(index, blocks)).collect(),
            vacant: all_set(lanes),
            used: AtomicU32::new(0),
            evicted: PlainU64::new(0),
            drain: Mutex::new(Drain::new(blocks, lanes)),
            time,
            home: Home::here(),
        });
        // Now that the heads stay where they are.
        pool.lanes.iter().for_each(|lane| lane.head.set(pool.no_space()));
        pool
    }

    /// Returns the head that has no space.
    fn no_space(&self) -> *const Head {
        self.heads.last().map_or(std::ptr::null(), |head| std::ptr::from_ref(&**head))
    }

    // ---- a push ----

    /// Returns the lane with a slot for an event, and how many events were evicted for that. `stale` gets what lay in the slot.
    #[cold]
    #[inline(never)]
    fn make_space<'a>(
        self: &'a Arc<Self>,
        lane: Option<&'a Lane<E>>,
        eviction: impl Fn() -> Eviction,
        stale: &mut Option<E>,
    ) -> Result<(&'a Lane<E>, u64), Refused> {
        let known = lane.map(|lane| Owned { pool: self, lane, _not_send: PhantomData });
        let lane = known.or_else(|| self.owned(self.enter()?)).ok_or(Refused::NoLane)?;
        let evicted = if lane.has_space() { 0 } else { lane.next_block(&eviction).ok_or(Refused::Full)? };
        lane.clear_next_slot(stale);
        Ok((lane.lane, evicted))
    }

    /// Returns the lane of the calling thread, where that is known at once.
    #[inline(always)]
    fn near(&self) -> Option<&Lane<E>> {
        // SAFETY: it is the number of this pool.
        unsafe { self.near_by(self.id) }
    }

    /// The same, for a caller that has the number of this pool at hand.
    ///
    /// # Safety
    ///
    /// `id` is the number of this pool.
    #[inline(always)]
    unsafe fn near_by(&self, id: u64) -> Option<&Lane<E>> {
        // SAFETY: under the number of this pool, `enter` notes its lanes, which stay where they are. A thread that gives its lane back
        // forgets it.
        threads::near(id).map(|lane| unsafe { lane.cast::<Lane<E>>().as_ref() })
    }

    /// Returns a lane that the caller has: its bit was taken out of `vacant` for this thread, or for the [`OwnLane`] that it holds.
    #[inline(always)]
    fn owned(&self, index: u32) -> Option<Owned<'_, E>> {
        let lane = self.lanes.get(index as usize)?;
        Some(Owned { pool: self, lane, _not_send: PhantomData })
    }

    /// Returns the lane that the calling thread has, or that of `own`.
    fn lane_of(&self, own: Option<&OwnLane<E>>) -> Option<Owned<'_, E>> {
        match own {
            Some(own) => self.owned(own.lane().index).filter(|_| own.pool.id == self.id),
            None => self.owned(self.near().map(|lane| lane.index).or_else(|| threads::listed(self.id))?),
        }
    }

    /// Returns a lane that the caller may send to another thread, if one is vacant.
    pub fn own_lane(self: &Arc<Self>) -> Option<OwnLane<E>> {
        let lane = self.owned(self.take_lane()?)?.lane;
        Some(OwnLane { lane: NonNull::from(lane), pool: Arc::clone(self) })
    }

    /// Returns the lane that the calling thread has, or takes one for the rest of its life.
    fn enter(self: &Arc<Self>) -> Option<u32> {
        let weak = || Arc::downgrade(&(Arc::clone(self) as Arc<dyn Vacate>));
        let lane_at = |index| self.owned(index).map(|owned| NonNull::from(owned.lane).cast());
        threads::enter(self.id, || self.take_lane(), lane_at, weak)
    }

    /// Takes a vacant lane.
    fn take_lane(&self) -> Option<u32> {
        let lane = self.owned(take_bit(&self.vacant, look)? as u32)?.lane;
        lane.owner.with_mut(|_| ());
        if self.used.load(Relaxed) <= lane.index {
            self.used.fetch_max(lane.index + 1, Relaxed);
        }
        Some(lane.index)
    }

    /// Takes a free block, and returns its word.
    fn take_free(&self, look: impl Fn(&AtomicU64) -> u64) -> Option<(usize, u64)> {
        let block = take_bit(&self.free, look)?;
        // Relaxed: the bit has published the word.
        let word = self.states.get(block)?.load(Relaxed);
        debug_assert!(word & FLAGS == FREE, "a block in `free` is not free: {word:#x}");
        Some((block, word))
    }

    // ---- eviction ----

    /// Evicts the block that was opened first, among some hundreds from a place that `from` says, but none of lane `but`. Each
    /// attempt that fails is a block that another thread got.
    fn evict_oldest(&self, but: u32, from: u64) -> Option<(usize, u64)> {
        for _ in 0..8 {
            // With as many again as may be open, so that some hundred sealed ones are among them.
            let looked_at = self.taken_blocks(from).take(MAX_LOOKS + self.lanes.len());
            let sealed = looked_at.filter_map(|(block, state, head)| {
                // Acquire: the head.
                let word = state.load(Acquire);
                let is_candidate = word & FLAGS == SEALED && head.lane.load(Relaxed) != but;
                is_candidate.then(|| (head.opened.load(Relaxed), block, word))
            });
            let (_, block, word) = sealed.min()?;
            if self.evict(block, word) {
                return Some((block, word));
            }
        }
        None
    }

    /// Evicts a block if its word is still `word`, which is sealed and not pinned. Then the caller has it to itself.
    fn evict(&self, block: usize, word: u64) -> bool {
        let busy = (version(word) + ONE_VERSION) | BUSY;
        // Acquire: the slots, as the lane that sealed it left them, and what the drain has consumed.
        let evicts = |state: &AtomicU64| state.compare_exchange(word, busy, Acquire, Relaxed).is_ok();
        self.states.get(block).is_some_and(evicts)
    }

    /// Evicts a block for the bytes of its events: the oldest sealed one, or else the open one of the caller's lane, which is that of
    /// `own` or of its thread. The events are counted, and the caller destroys them.
    pub fn evict_block(&self, own: Option<&OwnLane<E>>) -> Option<Evicted<'_, E>> {
        let own = self.lane_of(own);
        let oldest = self.evict_oldest(NONE, own.map_or(0, |own| own.lane.first.get()));
        let (block, word) = oldest.or_else(|| own?.evict_open())?;
        let (from, to) = self.heads.get(block)?.queued();
        let events = u64::from(to - from);
        match own {
            Some(own) => own.add_evicted(events),
            None => _ = self.evicted.fetch_add(events, Relaxed),
        }
        Some(Evicted { pool: self, block, version: version(word) + ONE_VERSION, slots: (from, to) })
    }

    /// Takes out an event that was evicted before, and whose slot in the open block of the caller's lane is not needed yet; see
    /// [`evict_block`](Self::evict_block).
    pub fn next_stale(&self, own: Option<&OwnLane<E>>) -> Option<E> {
        self.lane_of(own)?.next_stale()
    }

    /// Returns how many events a thread can evict for their bytes: those in sealed blocks, and in the open one of its lane.
    pub fn evictable(&self, own: Option<&OwnLane<E>>) -> usize {
        let own = self.lane_of(own).map_or(NONE, |own| own.lane.index);
        let of = |(_, state, head): (usize, &AtomicU64, &Head)| {
            // Acquire: the head, as it was when the word was written.
            let word = state.load(Acquire);
            let is_own = word & OPEN != 0 && head.lane.load(Relaxed) == own;
            let (consumed, committed) = head.queued();
            if word & SEALED != 0 || is_own { committed.saturating_sub(consumed) as usize } else { 0 }
        };
        self.taken_blocks(0).map(of).sum()
    }

    /// Iterates over the blocks that are not free, from a place that `from` says, around.
    fn taken_blocks(&self, from: u64) -> impl Iterator<Item = (usize, &AtomicU64, &Head)> {
        let words = self.free.len();
        let begin = (from / u64::from(self.block_slots) / 64 % words as u64) as usize;
        let around = (begin..words).chain(0..begin);
        around
            .flat_map(move |index| {
                // Relaxed: a block that has to be seen was taken before a store that the caller has acquired, or a fence.
                let mut taken = self.free.get(index).map_or(0, |word| !word.load(Relaxed));
                std::iter::from_fn(move || {
                    let bit = (taken != 0).then(|| taken.trailing_zeros() as usize)?;
                    taken &= taken - 1;
                    Some(index * 64 + bit)
                })
            })
            .filter_map(|block| Some((block, self.states.get(block)?, &**self.heads.get(block)?)))
    }

    // ---- the drain ----

    /// Begins a round, which covers everything that was pushed before it.
    pub fn begin_round(&self) {
        self.drain.lock().look(self, self.time.is_some());
    }

    /// Begins a round that takes block after block, also where lanes are merged: it asks no event for its time.
    pub fn begin_unmerged_round(&self) {
        self.drain.lock().look(self, false);
    }

    /// Takes at most `max` events of the round into `events`, for a batch of this number. A batch may take several times.
    pub fn take(&self, events: &mut Vec<E>, max: usize, batch: u64) -> Taken {
        self.drain.lock().take(self, events, max, batch)
    }

    /// Has evictions reported once more, by the next call of `take`.
    pub fn owe(&self, events: u64) {
        self.drain.lock().owe(events);
    }

    /// Pins a block of this version, if it is open or sealed.
    fn pin(&self, block: usize, of_version: u64) -> Option<Pinned<'_, E>> {
        let (state, head) = (self.states.get(block)?, self.heads.get(block)?);
        // Acquire: the head, and of a sealed block the slots, as they were when the word was written.
        let mut word = state.load(Acquire);
        loop {
            if version(word) != of_version || word & (OPEN | SEALED) == 0 || word & PIN != 0 {
                return None;
            }
            // Relaxed: the word is the one that was acquired. Acquire where it fails, because its lane has sealed it meanwhile, once,
            // or it was evicted.
            match state.compare_exchange(word, word | PIN, Relaxed, Acquire) {
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        // Acquire: the slots of an open block, paired with `append`.
        let (consumed, committed) = (head.consumed.load(Relaxed), head.committed.load(Acquire));
        Some(Pinned { pool: self, state, head, block, word, consumed, committed })
    }

    // ---- memory ----

    /// Returns a slot of a block.
    fn slot(&self, block: usize, slot: u32) -> Option<&Slot<E>> {
        self.slots.get(block * self.block_slots as usize + slot as usize)
    }

    /// Moves the event out of a slot.
    ///
    /// # Safety
    ///
    /// The caller has the slot to itself, and it holds an event that nobody reads again.
    unsafe fn move_out(&self, block: usize, slot: u32) -> Option<E> {
        // In a model a move is a write: it may meet no other access.
        // SAFETY: the caller's.
        Some(self.slot(block, slot)?.with_mut(|slot| unsafe { (*slot).assume_init_read() }))
    }

    // ---- counts ----

    /// Returns how many events are queued. Exact while nobody pushes or takes.
    pub fn pending(&self) -> usize {
        let of = |(_, state, head): (usize, &AtomicU64, &Head)| {
            // Acquire: the head, as it was when the word was written.
            let is_used = state.load(Acquire) & (OPEN | SEALED) != 0;
            let (consumed, committed) = head.queued();
            if is_used { committed.saturating_sub(consumed) as usize } else { 0 }
        };
        self.taken_blocks(0).map(of).sum()
    }

    /// Returns how many events would be pending if every lane held as many as the fullest. Never less than are pending, once
    /// those who push have come to their look.
    pub fn load(&self) -> usize {
        let used = self.used.load(Relaxed) as usize;
        let fullest = self.lanes.iter().take(used).map(|lane| self.pending_of(lane)).max();
        usize::try_from(fullest.unwrap_or(0)).unwrap_or(usize::MAX).saturating_mul(used)
    }

    /// Returns how many events of a lane the drain has not seen, as far as it can be seen from outside. Relaxed: what was pushed
    /// before a fence is seen by who looks after one, and what is pushed later is followed by a look of its own.
    fn pending_of(&self, lane: &Lane<E>) -> u64 {
        let open = self.heads.get(lane.shown.load(Relaxed) as usize);
        let committed = open.map_or(0, |head| head.committed.load(Relaxed));
        let up_to = lane.sealed_up_to.load(Relaxed) + u64::from(committed);
        up_to.saturating_sub(lane.taken_up_to.load(Relaxed))
    }

    /// Returns whether no block is free.
    pub fn is_full(&self) -> bool {
        self.free.iter().all(|word| word.load(Relaxed) == 0)
    }

    /// Returns how full it is, from 0 to 1: the part of the blocks that are not open which hold events.
    pub fn fullness(&self) -> f64 {
        let (mut open, mut sealed) = (0, 0);
        for (_, state, _) in self.taken_blocks(0) {
            // Relaxed: it is an estimate while producers push.
            let word = state.load(Relaxed);
            (open, sealed) = (open + u32::from(word & OPEN != 0), sealed + u32::from(word & SEALED != 0));
        }
        f64::from(sealed) / (self.states.len() as f64 - f64::from(open)).max(1.0)
    }

    /// Returns how many events were evicted.
    pub fn evicted(&self) -> u64 {
        self.lanes.iter().fold(self.evicted.load(Relaxed), |sum, lane| sum + lane.evicted.load(Relaxed))
    }
}

impl<E: Send + 'static> Vacate for Pool<E> {
    fn vacate(&self, index: u32) {
        if let Some(lane) = self.owned(index) {
            lane.lane.owner.with_mut(|_| ());
            set_bit(&self.vacant, index as usize);
        }
    }
}

impl<E> Drop for Pool<E> {
    fn drop(&mut self) {
        if self.home.is_left() {
            return;
        }
        // The owner has taken what was queued. What is left are evicted events, and memory.
        for lane in &self.lanes {
            let (from, to) = lane.stale.get();
            let Some(head) = self.heads.get(lane.block.get() as usize) else { continue };
            for slot in from.max(head.committed.load(Relaxed))..to {
                let index = lane.block.get() as usize * self.block_slots as usize + slot as usize;
                let Some(slot) = self.slots.get(index) else { continue };
                // SAFETY: nobody else has the pool; `stale` says that it holds an event that nobody has taken.
                let event = slot.with_mut(|slot| unsafe { (*slot).assume_init_read() });
                _ = catch_panic(|| drop(event));
            }
        }
    }
}

impl<E> fmt::Debug for Pool<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("lanes", &self.lanes.len())
            .field("blocks", &self.states.len())
            .field("block_slots", &self.block_slots)
            .finish_non_exhaustive()
    }
}

/// Pool with its number at hand. A push of a thread begins with that number, and would have to wait for it behind a pointer.
pub struct Numbered<E> {
    /// The number of `pool`.
    id: u64,
    pool: Arc<Pool<E>>,
}

impl<E: Send + 'static> Numbered<E> {
    /// Reads the number of a pool.
    pub fn new(pool: Arc<Pool<E>>) -> Self {
        Self { id: pool.id, pool }
    }

    /// Returns the place of the calling thread.
    #[inline(always)]
    pub fn place(&self) -> Place<'_, E> {
        Place { pool: &self.pool, way: Lookup::Thread { id: self.id }, _not_send: PhantomData }
    }
}

impl<E> Deref for Numbered<E> {
    type Target = Arc<Pool<E>>;

    fn deref(&self) -> &Arc<Pool<E>> {
        &self.pool
    }
}

impl<E> fmt::Debug for Numbered<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pool.fmt(f)
    }
}

/// Which lane a push looks up.
enum Lookup<'a, E: Send + 'static> {
    /// That of the thread, in the pool of this number.
    Thread {
        id: u64,
    },
    Own(&'a OwnLane<E>),
}

/// Where the calling thread pushes: into the lane of the thread, or of a handle that it borrows. It stays on the thread.
pub struct Place<'a, E: Send + 'static> {
    pool: &'a Arc<Pool<E>>,
    way: Lookup<'a, E>,
    _not_send: PhantomData<*const ()>,
}

impl<E: Send + 'static> fmt::Debug for Place<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = match self.way {
            Lookup::Own(own) => Some(own),
            Lookup::Thread { .. } => None,
        };
        f.debug_struct("Place").field("own", &own).finish_non_exhaustive()
    }
}

impl<'a, E: Send + 'static> Place<'a, E> {
    /// Pushes an event, or returns it. `eviction` says what may be done where no block is free, and again once a block is evicted; it
    /// neither pushes nor panics. `stale`, which is `None`, gets an event that was evicted with its block before, and lay in the slot; the
    /// caller drops it. (As part of the result, it would be copied, even where there is none.)
    #[inline(always)]
    pub fn push(
        self,
        event: E,
        eviction: impl Fn() -> Eviction,
        stale: &mut Option<E>,
    ) -> Result<Queued<'a, E>, (E, Refused)> {
        let Self { pool, way, .. } = self;
        let lane = match way {
            // SAFETY: `Numbered` has read the number from the pool.
            Lookup::Thread { id } => unsafe { pool.near_by(id) },
            Lookup::Own(own) => Some(own.lane()),
        };
        let owned = |lane| Owned { pool, lane, _not_send: PhantomData };
        // What is called meanwhile may unwind, as far as the compiler knows. An event that had to be dropped then would have to lie
        // in memory, and not in registers, which costs more than the push. So it would leak.
        let event = ManuallyDrop::new(event);
        // Taken apart, so that they stay in registers.
        let (next, evicted) = match lane.and_then(|lane| owned(lane).ready_slot()) {
            Some(next) => (next, None),
            None => match pool.make_space(lane, eviction, stale) {
                Ok((lane, evicted)) => (owned(lane).next_slot(), Some(evicted)),
                Err(why) => return Err((ManuallyDrop::into_inner(event), why)),
            },
        };
        // SAFETY: the slot is there, and holds nothing: it was ready, or `make_space` made it so.
        unsafe { next.append(ManuallyDrop::into_inner(event)) };
        Ok(Queued { lane: next.owned, evicted })
    }
}

/// Next slot of a lane.
struct NextSlot<'a, E> {
    owned: Owned<'a, E>,
    head: &'a Head,
    at: u32,
}

impl<E: Send + 'static> NextSlot<'_, E> {
    /// Writes an event into the slot.
    ///
    /// # Safety
    ///
    /// The slot is there, and it holds nothing.
    #[inline(always)]
    unsafe fn append(&self, event: E) {
        // SAFETY: the caller's.
        let slot = unsafe { self.owned.slot(self.at) };
        // SAFETY: the slot is this lane's until it is committed.
        slot.with_mut(|slot| unsafe { put(slot, event) });
        // Release, paired with `Pool::pin`: who reads the count sees the slot.
        self.head.committed.store(self.at + 1, Release);
    }
}

/// Lane that the calling thread has: the permission to use its cells.
pub struct Owned<'a, E> {
    pool: &'a Pool<E>,
    lane: &'a Lane<E>,
    /// A lane stays on its thread.
    _not_send: PhantomData<*const ()>,
}

impl<E> Clone for Owned<'_, E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Owned<'_, E> {}

impl<E> fmt::Debug for Owned<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owned").field("lane", &self.lane.index).finish_non_exhaustive()
    }
}

impl<'a, E: Send + 'static> Owned<'a, E> {
    /// Returns whether the next look has to be at all lanes, and forgets it.
    pub fn looks_at_all(self) -> bool {
        let looks = self.lane.looks_at_all.get();
        if looks {
            self.lane.looks_at_all.set(false);
        }
        looks
    }

    /// Returns how many events would be pending if every lane held as many as this one.
    #[inline]
    pub fn load(self) -> usize {
        let up_to = self.lane.first.get() + u64::from(self.written());
        // Relaxed: an older number makes it more, and wakes the worker too early.
        let pending = up_to.saturating_sub(self.lane.taken_up_to.load(Relaxed)) as usize;
        pending.saturating_mul(self.pool.used.load(Relaxed) as usize)
    }

    #[inline(always)]
    fn head(self) -> &'a Head {
        // SAFETY: it points into `heads` of the pool, since `with_blocks`.
        unsafe { &*self.lane.head.get() }
    }

    #[inline(always)]
    fn written(self) -> u32 {
        // Relaxed: this thread alone writes it.
        self.head().committed.load(Relaxed)
    }

    /// Returns a slot of the open block.
    ///
    /// # Safety
    ///
    /// A block is open, and `at` is one of its slots.
    #[inline(always)]
    unsafe fn slot(self, at: u32) -> &'a Slot<E> {
        // SAFETY: `base` points to its first slot, in the pool.
        unsafe { &*self.lane.base.get().add(at as usize) }
    }

    #[inline(always)]
    fn next_slot(self) -> NextSlot<'a, E> {
        NextSlot { owned: self, head: self.head(), at: self.written() }
    }

    /// Returns the next slot, if it is known to be there and to hold nothing.
    #[inline(always)]
    fn ready_slot(self) -> Option<NextSlot<'a, E>> {
        let next = self.next_slot();
        (next.at < self.lane.ready_to.get()).then_some(next)
    }

    fn has_space(self) -> bool {
        self.written() != self.pool.block_slots
    }

    fn add_evicted(self, events: u64) {
        // Written by the lane's thread alone.
        self.lane.evicted.store(self.lane.evicted.load(Relaxed) + events, Relaxed);
    }

    /// Moves what was evicted from the next slot, which is there, to `stale`, and notes up to where the following ones hold nothing.
    fn clear_next_slot(self, stale: &mut Option<E>) {
        let (at, (from, to)) = (self.written(), self.lane.stale.get());
        self.lane.ready_to.set(if at < to { from.max(at) } else { self.pool.block_slots });
        if (from..to).contains(&at) {
            self.lane.stale.set((at + 1, to));
            // SAFETY: there is a next slot.
            let slot = unsafe { self.slot(at) };
            // SAFETY: the slot is this lane's until it is committed. The range said that it holds an event that nobody has taken. That
            // is written, not assigned: no destructor may find the slot before it is filled.
            slot.with_mut(|slot| unsafe { std::ptr::write(stale, Some((*slot).assume_init_read())) });
        }
    }

    /// Opens the next block, and returns how many events were evicted for it. `None`: there is no block.
    fn next_block(self, eviction: impl Fn() -> Eviction) -> Option<u64> {
        let (pool, lane) = (self.pool, self.lane);
        self.seal();
        let (block, was) = self.find_block(eviction())?;
        let (state, head) = (pool.states.get(block)?, pool.heads.get(block)?);
        let mut evicted = 0;
        lane.stale.set((0, 0));
        if was & SEALED != 0 {
            let (from, to) = head.queued();
            evicted = u64::from(to - from);
            self.add_evicted(evicted);
            // Asked again: what was pushed into the block meanwhile may be the first that has to be returned.
            if std::mem::needs_drop::<E>() || eviction() != Eviction::AndDrop {
                lane.stale.set((from, to));
            }
        }
        // It grows within a lane, whatever the clock does.
        lane.opened.set(clock::nanos().max(lane.opened.get() + 1));
        // This may be the last free block, and the lane may be a new one, with which the others have not reckoned.
        lane.looks_at_all.set(true);
        head.committed.store(0, Relaxed);
        head.consumed.store(0, Relaxed);
        head.lane.store(lane.index, Relaxed);
        head.first.store(lane.first.get(), Relaxed);
        head.opened.store(lane.opened.get(), Relaxed);
        let now = version(was) + ONE_VERSION;
        // Release, paired with all who load the word: who sees it open sees its head.
        state.store(now | OPEN, Release);
        self.remember((block as u32, now));
        lane.base.set(pool.slots.as_ptr().wrapping_add(block * pool.block_slots as usize));
        lane.head.set(std::ptr::from_ref(&**head));
        lane.block.set(block as u32);
        lane.shown.store(block as u32, Relaxed);
        Some(evicted)
    }

    /// Returns a block for this lane, with the word that it had: a free one, or else a sealed one, which is evicted.
    fn find_block(self, eviction: Eviction) -> Option<(usize, u64)> {
        if let Some(free) = self.pool.take_free(look) {
            return Some(free);
        }
        if eviction == Eviction::Never {
            return None;
        }
        // There are more blocks than the lanes and the drain can hold. But they may be elsewhere whenever this thread looks, or with
        // threads that evict for bytes.
        (0..ATTEMPTS).find_map(|_| self.evict_any().or_else(|| self.pool.take_free(second_look)))
    }

    /// Notes a block that this lane has opened, and forgets those that it no longer has.
    fn remember(self, opened: (u32, u64)) {
        let is_sealed = |&(block, then): &(u32, u64)| {
            let word = self.pool.states.get(block as usize).map_or(FREE, |state| state.load(Relaxed));
            version(word) == then && word & SEALED != 0
        };
        let mut own = self.lane.own.take();
        while own.front().is_some_and(|block| !is_sealed(block)) || own.len() == own.capacity() {
            own.pop_front();
        }
        own.push_back(opened);
        self.lane.own.set(own);
    }

    /// Seals the open block, if there is one.
    fn seal(self) {
        let lane = self.lane;
        let Some(state) = self.pool.states.get(lane.block.replace(NONE) as usize) else { return };
        lane.first.set(lane.first.get() + u64::from(self.written()));
        // From `OPEN` to `SEALED`, pinned or not. Release, paired with `evict` and `pin`: the slots.
        state.fetch_xor(OPEN | SEALED, Release);
        // Release, paired with `Drain::look`: who reads the number sees all blocks up to it, or that they were evicted.
        lane.sealed_up_to.store(lane.first.get(), Release);
        lane.shown.store(NONE, Relaxed);
        lane.head.set(self.pool.no_space());
    }

    /// Evicts a block for this lane. A lane that has half of its share or more gives its own oldest one, a lane that has less takes
    /// the oldest of the others. Half of it, so that lanes with about the same number need not look through all blocks.
    fn evict_any(self) -> Option<(usize, u64)> {
        let (pool, lane) = (self.pool, self.lane);
        let vacant: u32 = pool.vacant.iter().map(|word| word.load(Relaxed).count_ones()).sum();
        let share = pool.states.len() / pool.lanes.len().saturating_sub(vacant as usize).max(1);
        let own = lane.own.take();
        let has_half = 2 * own.len() >= share;
        lane.own.set(own);
        let of_others = || pool.evict_oldest(lane.index, lane.first.get());
        if has_half { self.evict_own().or_else(of_others) } else { of_others().or_else(|| self.evict_own()) }
    }

    /// Evicts the oldest block of this lane that is not pinned.
    fn evict_own(self) -> Option<(usize, u64)> {
        let mut own = self.lane.own.take();
        let place = own.iter().position(|&(block, then)| self.pool.evict(block as usize, then | SEALED));
        let evicted = place.and_then(|place| own.remove(place));
        self.lane.own.set(own);
        evicted.map(|(block, then)| (block as usize, then | SEALED))
    }

    /// Evicts the open block, if it holds events.
    fn evict_open(self) -> Option<(usize, u64)> {
        let block = self.lane.block.get() as usize;
        let state = self.pool.states.get(block).filter(|_| self.written() > 0)?;
        debug_assert!(self.stale().is_none(), "sealed, its slots would be forgotten");
        self.seal();
        let word = state.load(Relaxed);
        // The drain may have pinned it, or emptied and freed it.
        (word & FLAGS == SEALED && self.pool.evict(block, word)).then_some((block, word))
    }

    /// Takes out an event that was evicted before, and whose slot is not needed yet.
    pub fn next_stale(self) -> Option<E> {
        let (from, to) = self.stale()?;
        self.lane.stale.set((from, to - 1));
        // SAFETY: the slot is this lane's until it is committed, and `stale` said that it holds an event that nobody has taken.
        unsafe { self.pool.move_out(self.lane.block.get() as usize, to - 1) }
    }

    /// Returns the slots of the open block that still hold evicted events.
    fn stale(self) -> Option<(u32, u32)> {
        let (from, to) = self.lane.stale.get();
        let from = from.max(self.written());
        (from < to && self.lane.block.get() != NONE).then_some((from, to))
    }
}

/// Lane of a handle, which may go from thread to thread. Dropped, it is vacant.
pub struct OwnLane<E: Send + 'static> {
    /// A lane of the pool. It is not `Sync`: one thread at a time has it.
    lane: NonNull<Lane<E>>,
    pool: Arc<Pool<E>>,
}

// SAFETY: the lane belongs to this handle, which one thread at a time has, and the pool is `Send`.
unsafe impl<E: Send> Send for OwnLane<E> {}

impl<E: Send + 'static> OwnLane<E> {
    /// Returns the place of this handle.
    #[inline(always)]
    pub fn place(&self) -> Place<'_, E> {
        Place { pool: &self.pool, way: Lookup::Own(self), _not_send: PhantomData }
    }

    #[inline(always)]
    fn lane(&self) -> &Lane<E> {
        // SAFETY: it points into the pool, whose lanes stay where they are.
        unsafe { self.lane.as_ref() }
    }
}

impl<E: Send + 'static> Drop for OwnLane<E> {
    fn drop(&mut self) {
        self.pool.vacate(self.lane().index);
    }
}

impl<E: Send + 'static> fmt::Debug for OwnLane<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnLane").field("lane", &self.lane().index).finish_non_exhaustive()
    }
}

/// Block that was evicted, whose events are taken out one by one. Dropped, it is free.
#[derive(Debug)]
pub struct Evicted<'a, E: Send + 'static> {
    pool: &'a Pool<E>,
    block: usize,
    version: u64,
    /// Those that still hold an event.
    slots: (u32, u32),
}

impl<E: Send + 'static> Evicted<'_, E> {
    /// Returns how many events are left.
    pub fn events(&self) -> u64 {
        u64::from(self.slots.1 - self.slots.0)
    }
}

impl<E: Send + 'static> Iterator for Evicted<'_, E> {
    type Item = E;

    fn next(&mut self) -> Option<E> {
        let slot = self.slots.0;
        if slot == self.slots.1 {
            return None;
        }
        self.slots.0 += 1;
        // SAFETY: the block is `BUSY` by this thread, and the slot holds an event that was not taken.
        unsafe { self.pool.move_out(self.block, slot) }
    }
}

impl<E: Send + 'static> Drop for Evicted<'_, E> {
    fn drop(&mut self) {
        for event in self.by_ref() {
            _ = catch_panic(|| drop(event));
        }
        if let Some(state) = self.pool.states.get(self.block) {
            // Relaxed: the bit publishes it, and what was read of the slots.
            state.store(self.version | FREE, Relaxed);
            set_bit(&self.pool.free, self.block);
        }
    }
}

/// Block that the drain has pinned, so that nobody evicts it. Dropped, it is unpinned, or free where nothing can follow.
#[derive(Debug)]
struct Pinned<'a, E: Send + 'static> {
    pool: &'a Pool<E>,
    state: &'a AtomicU64,
    head: &'a Head,
    block: usize,
    /// Its word, before it was pinned.
    word: u64,
    /// Slots that hold an event.
    consumed: u32,
    committed: u32,
}

impl<E: Send + 'static> Pinned<'_, E> {
    fn lane(&self) -> usize {
        self.head.lane.load(Relaxed) as usize
    }

    /// Returns the number of the next event, within its lane.
    fn next_number(&self) -> u64 {
        self.head.first.load(Relaxed) + u64::from(self.consumed)
    }

    /// Returns whether it has no event that was committed when it was pinned.
    fn is_empty(&self) -> bool {
        self.consumed == self.committed
    }

    /// Returns when the next event but `skipped` was made, if there is one.
    fn time_of(&self, skipped: u32, time: TimeOf<E>) -> Option<u64> {
        let at = self.consumed + skipped;
        let slot = self.pool.slot(self.block, at).filter(|_| at < self.committed)?;
        // SAFETY: the slot is the drain's while it is pinned, and holds an event.
        Some(slot.with_mut(|slot| time(unsafe { (*slot).assume_init_ref() })))
    }

    /// Returns how many of its events, at most `max`, come before what another lane gives next.
    fn count_before(&self, max: usize, (seen, until): (Seen, Next), time: TimeOf<E>) -> usize {
        let is_earlier = |skipped| self.time_of(skipped, time).is_some_and(|time| (time, seen) < until);
        (0..self.committed - self.consumed).take(max).take_while(|&skipped| is_earlier(skipped)).count()
    }

    /// Moves at most `max` events to the end of `events`, and returns how many.
    fn take(&mut self, max: usize, events: &mut Vec<E>) -> usize {
        let count = (self.committed - self.consumed).min(u32::try_from(max).unwrap_or(u32::MAX));
        let begin = self.block * self.pool.block_slots as usize + self.consumed as usize;
        let Some(slots) = self.pool.slots.get(begin..begin + count as usize) else { return 0 };
        // First: the allocator may panic, and then nothing has moved.
        events.reserve(slots.len());
        // In a model, each move is a write of its own.
        if cfg!(forebay_loom) {
            // SAFETY: the slots are the drain's while they are pinned, hold events, and count as consumed from now on.
            events.extend(
                (0..count).filter_map(|slot| unsafe { self.pool.move_out(self.block, self.consumed + slot) }),
            );
        } else {
            // SAFETY: as above. `events` has space for them, and slots have the layout of events.
            unsafe {
                let to = events.as_mut_ptr().add(events.len());
                std::ptr::copy_nonoverlapping(slots.as_ptr().cast::<E>(), to, slots.len());
                events.set_len(events.len() + slots.len());
            }
        }
        self.consumed += count;
        self.head.consumed.store(self.consumed, Relaxed);
        slots.len()
    }
}

impl<E: Send + 'static> Drop for Pinned<'_, E> {
    fn drop(&mut self) {
        if self.word & SEALED != 0 && self.is_empty() {
            // Pinned and sealed, so that nobody else changes the word. Relaxed: the bit publishes it, and what was read of the slots.
            self.state.store(version(self.word) | FREE, Relaxed);
            set_bit(&self.pool.free, self.block);
        } else {
            // Release, paired with `evict`: `consumed`, and what was read of the slots.
            self.state.fetch_and(!PIN, Release);
        }
    }
}

/// What [`Pool::take`] took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Taken {
    /// Number of events.
    pub events: usize,
    /// Number of events that were evicted before these, and not reported before.
    pub gap: u64,
    /// Whether a gap comes next that lies behind events of the batch.
    pub ends_batch: bool,
    /// Whether the round gives no more.
    pub is_over: bool,
}

/// Block as a round has seen it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    opened: u64,
    block: u32,
    version: u64,
    lane: u32,
}

/// What a lane gives next: when the event was made, and its block, for events of one time.
type Next = (u64, Seen);

/// What the drain knows of a lane.
#[derive(Debug, Clone, Default)]
struct LaneView {
    /// Number of the next event.
    expected: u64,
    /// Number of the next event after what was sealed when the round began.
    sealed: u64,
    /// Number of the last batch that got events of it.
    last_batch: u64,
    /// Where lanes are merged: its blocks of the round that are left, the next one last, and what they give next where that is known.
    run: Vec<Seen>,
    next: Option<Next>,
}

/// State of the drain.
///
/// A round covers everything that was committed before it began: each event is taken, or was evicted and is reported as a gap, at the
/// latest by the next round. It ends, whatever producers do, because it goes through the blocks that it has seen once. What was
/// sealed before the look stays where it is, so that what the look does not find was evicted. Blocks that were opened later are left
/// to the next round: one of the same lane before them may have been opened in a place that the look had passed.
#[derive(Debug)]
struct Drain {
    /// Blocks of the round that are left, the next one last.
    seen: Vec<Seen>,
    lanes: Vec<LaneView>,
    /// Evictions that were found, for the next batch to tell.
    owed: u64,
}

impl Drain {
    fn new(blocks: usize, lanes: usize) -> Self {
        Self { seen: Vec::with_capacity(blocks), lanes: vec![LaneView::default(); lanes], owed: 0 }
    }

    fn owe(&mut self, events: u64) {
        self.owed += events;
    }

    /// Looks at what is there: begins a round, in which lanes are merged by time or not.
    fn look<E: Send + 'static>(&mut self, pool: &Pool<E>, merges: bool) {
        for (view, lane) in self.lanes.iter_mut().zip(&pool.lanes) {
            // Acquire: see `Owned::seal`.
            view.sealed = lane.sealed_up_to.load(Acquire);
        }
        self.seen.clear();
        for (block, state, head) in pool.taken_blocks(0) {
            // Acquire: the head, as it was when the word was written.
            let word = state.load(Acquire);
            if word & (OPEN | SEALED) == 0 {
                continue;
            }
            // These may be of a later version, or mixed, but only if the pin will fail.
            let (first, lane) = (head.first.load(Relaxed), head.lane.load(Relaxed));
            if self.lanes.get(lane as usize).is_some_and(|view| first <= view.sealed) {
                let opened = head.opened.load(Relaxed);
                self.seen.push(Seen { opened, block: block as u32, version: version(word), lane });
            }
        }
        self.seen.sort_unstable_by(|one, other| other.cmp(one));
        if pool.time.is_some() {
            for view in &mut self.lanes {
                view.run.clear();
                view.next = None;
            }
        }
        if merges {
            for seen in self.seen.drain(..) {
                if let Some(view) = self.lanes.get_mut(seen.lane as usize) {
                    view.run.push(seen);
                }
            }
        }
    }

    /// Takes at most `max` events. It ends before a gap that lies behind events of the same lane in the same batch, so that no
    /// gap is reported before the events that precede it.
    fn take<E: Send + 'static>(
        &mut self,
        pool: &Pool<E>,
        events: &mut Vec<E>,
        max: usize,
        batch: u64,
    ) -> Taken {
        let mut taken = Taken { gap: std::mem::take(&mut self.owed), ..Taken::default() };
        while taken.events < max
            && let Some(&seen) = self.seen.last()
        {
            if self.take_block(pool, (seen, None), events, max, batch, &mut taken) {
                self.seen.pop();
            }
            if taken.ends_batch {
                return taken;
            }
        }
        while taken.events < max
            && let Some(time) = pool.time
            && let Some((seen, until)) = self.earliest(pool, time)
        {
            let until = until.map(|until| (until, time));
            let is_done = self.take_block(pool, (seen, until), events, max, batch, &mut taken);
            if let Some(view) = self.lanes.get_mut(seen.lane as usize) {
                view.next = None;
                if is_done {
                    view.run.pop();
                }
            }
            if taken.ends_batch {
                return taken;
            }
        }
        if self.seen.is_empty() && self.lanes.iter().all(|view| view.run.is_empty()) {
            self.look_behind_the_last(pool, batch, &mut taken);
            taken.ends_batch = self.owed > 0;
            taken.is_over = !taken.ends_batch;
        }
        taken
    }

    /// Returns the block with the earliest event of those that the lanes give next, and what comes after it.
    fn earliest<E: Send + 'static>(
        &mut self,
        pool: &Pool<E>,
        time: TimeOf<E>,
    ) -> Option<(Seen, Option<Next>)> {
        let (mut first, mut second) = (None, None);
        for view in &mut self.lanes {
            while let (None, Some(&seen)) = (view.next, view.run.last()) {
                let block = pool.pin(seen.block as usize, seen.version);
                view.next = block.and_then(|block| Some((block.time_of(0, time)?, seen)));
                if view.next.is_none() {
                    // Evicted, or empty. A gap that it leaves is found behind it.
                    view.run.pop();
                }
            }
            let Some(next) = view.next else { continue };
            if first.is_none_or(|first| next < first) {
                second = first.replace(next);
            } else if second.is_none_or(|second| next < second) {
                second = Some(next);
            }
        }
        first.map(|(_, seen)| (seen, second))
    }

    /// Takes events of one block, where lanes are merged those that come before `until`. Returns whether the round is done with it.
    fn take_block<E: Send + 'static>(
        &mut self,
        pool: &Pool<E>,
        (seen, until): (Seen, Option<(Next, TimeOf<E>)>),
        events: &mut Vec<E>,
        max: usize,
        batch: u64,
        taken: &mut Taken,
    ) -> bool {
        let Some(mut block) = pool.pin(seen.block as usize, seen.version) else { return true };
        let lane = block.lane();
        let (Some(view), Some(lane)) = (self.lanes.get_mut(lane), pool.lanes.get(lane)) else { return true };
        let gap = block.next_number().saturating_sub(view.expected);
        if gap > 0 && view.last_batch == batch {
            taken.ends_batch = true;
            return false;
        }
        let left = max - taken.events;
        let count = match until {
            None => block.take(left, events),
            Some((until, time)) => block.take(block.count_before(left, (seen, until), time), events),
        };
        taken.gap += gap;
        taken.events += count;
        if count > 0 {
            view.last_batch = batch;
        }
        view.expected = block.next_number();
        // Relaxed: an older number makes a producer wake the worker too early.
        lane.taken_up_to.store(view.expected, Relaxed);
        block.is_empty()
    }

    /// Finds what was evicted behind the last block of a lane.
    fn look_behind_the_last<E: Send + 'static>(&mut self, pool: &Pool<E>, batch: u64, taken: &mut Taken) {
        for (view, lane) in self.lanes.iter_mut().zip(&pool.lanes) {
            let gap = view.sealed.saturating_sub(view.expected);
            if gap > 0 {
                if view.last_batch == batch {
                    self.owed += gap;
                } else {
                    taken.gap += gap;
                }
                view.expected = view.sealed;
                lane.taken_up_to.store(view.sealed, Relaxed);
            }
        }
    }
}

/// Writes an event word by word. One that was just made lies in registers, or in memory in words: read as a vector, it would have to
/// wait until all its words have left the store buffer, which takes 5 ns.
///
/// # Safety
///
/// `slot` may be written, and what it holds needs no drop.
#[inline(always)]
unsafe fn put<E>(slot: *mut MaybeUninit<E>, event: E) {
    let words = size_of::<E>() / 8;
    if cfg!(not(any(forebay_loom, miri)))
        && size_of::<E>() == words * 8
        && align_of::<E>() == 8
        && words <= 16
    {
        let event = ManuallyDrop::new(event);
        let (from, to) = ((&raw const event).cast::<MaybeUninit<u64>>(), slot.cast::<MaybeUninit<u64>>());
        for word in 0..words {
            // SAFETY: both have so many words, and the alignment of words. Volatile, so that they are not joined to vectors.
            unsafe { to.add(word).write_volatile(from.add(word).read()) };
        }
    } else {
        // SAFETY: the caller's.
        unsafe { (*slot).write(event) };
    }
}

#[cfg(all(test, not(forebay_loom)))]
mod tests;
