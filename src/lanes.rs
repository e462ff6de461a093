//! `Lanes`: three rings, one for each priority. Their memory is bounded, and the order in which they are emptied is
//! fixed.
//!
//! * *Critical* never evicts. A full lane makes the producer wait (`collector/collect.rs`).
//! * *Normal* and *low* follow the overflow policy. The normal lane may be split into several rings (`shards.rs`).
//!
//! The worker takes critical events first. Then it takes normal and low ones two to one, so that a flood of normal
//! events cannot starve the low lane. Within a lane, the events of one producer keep their order.

mod byte_budget;
mod shards;

use crate::config::Config;
use crate::event::{Event, Priority};
use crate::outcome::Refusal;
use crate::pool::{self, Eviction, Numbered, OwnLane, Owned, Place, Pool};
use crate::ring::{self, Ring};
use crate::sync::{Home, catch_panic, thread_index};
use crate::wake::NEVER;
use byte_budget::ByteBudget;
pub use byte_budget::owned_bytes;
use shards::Shards;

/// Normal events that are taken for [`LOW_SHARE`] low ones, of shared rings.
const NORMAL_SHARE: usize = 2;
const LOW_SHARE: usize = 1;

/// Events that lanes of threads give before the ring of threads without one has its turn, and then the low lane, with half as many
/// each. More than of rings, because lanes give their events by the block.
const THREADS_SHARE: usize = 64;

/// From here on, numbers of batches that no worker puts together.
const NO_WORKERS_BATCH: u64 = 1 << 63;

/// The most events that one event evicts for their bytes; of lanes of threads, up to a block more. It bounds the cost of `collect`.
const MAX_EVICTED: usize = 128;

/// Returns the bytes that an event owns, or 0 where its code panics. A panic of user code must not stop the
/// accounting; bytes that the event does not report are not released.
fn owned_bytes_or_zero<E: Event>(event: &E) -> u64 {
    catch_panic(|| owned_bytes(event)).unwrap_or(0)
}

/// Way of a normal event, where threads have lanes.
#[derive(Debug)]
pub(crate) enum Way<'a, E: Event> {
    /// Through the lane of the calling thread, or the shared ring where it has none.
    OfThread,
    /// Through the lane of a handle.
    Own(&'a OwnLane<E>),
    /// Through the shared ring: the way of a handle that has no lane. Its thread may have one, but not the next thread that it goes to.
    Ring,
}

impl<E: Event> Clone for Way<'_, E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E: Event> Copy for Way<'_, E> {}

impl<'a, E: Event> Way<'a, E> {
    /// Returns where a normal event on this way is pushed. `None`: into a ring.
    #[inline(always)]
    pub(crate) fn place(self, lanes: &'a Lanes<E>) -> Option<Place<'a, E>> {
        match self {
            Self::OfThread => lanes.threads().map(|pool| pool.place()),
            Self::Own(lane) => Some(lane.place()),
            Self::Ring => None,
        }
    }

    fn own(self) -> Option<&'a OwnLane<E>> {
        match self {
            Self::Own(lane) => Some(lane),
            Self::OfThread | Self::Ring => None,
        }
    }
}

/// Returns when an event was made. One that does not say, or panics, comes as soon as its lane gives it.
fn made_at<E: Event>(event: &E) -> u64 {
    catch_panic(|| event.made_at()).ok().flatten().unwrap_or(0)
}

/// Three lanes of a collector.
#[derive(Debug)]
pub(crate) struct Lanes<E> {
    critical: Ring<E>,
    normal: Shards<E>,
    /// Lanes of threads, if that is how normal events travel. Then `normal` is for threads that have none.
    threads: Option<Numbered<E>>,
    low: Ring<E>,
    budget: ByteBudget,
}

/// Lane that does not fit into memory: its setting, its number of slots, and the size of one slot.
#[derive(Debug)]
pub(crate) struct OutOfMemory {
    pub(crate) field: &'static str,
    pub(crate) slots: usize,
    pub(crate) slot_bytes: usize,
}

impl<E: Event> Lanes<E> {
    /// Creates the lanes and allocates all slots. Lanes of threads are merged by time if `is_ordered`.
    ///
    /// # Errors
    ///
    /// The allocator refuses the memory of a lane.
    pub(crate) fn new(config: &Config, is_ordered: bool) -> Result<Self, OutOfMemory> {
        // Blocks of slots beside the ring, with a word less each.
        let blocks = config.lane_count().map_or(0, |lanes| pool::slots::<E>(config.capacity, lanes));
        let lanes = [
            ("capacity", config.capacity),
            ("lanes", blocks),
            ("critical_capacity", config.critical_capacity),
            ("low_capacity", config.low_capacity),
        ];
        let slots = lanes.map(|(_, slots)| slots);
        if let Some((field, slots)) =
            ring::first_too_large::<E>(slots).and_then(|place| lanes.get(place).copied())
        {
            return Err(OutOfMemory { field, slots, slot_bytes: ring::slot_size::<E>() });
        }
        Ok(Self {
            critical: Ring::new(config.critical_capacity),
            normal: Shards::new(config.capacity, config.shards),
            threads: config
                .lane_count()
                .map(|lanes| Pool::new(config.capacity, lanes, is_ordered.then_some(made_at::<E>)))
                .map(Numbered::new),
            low: Ring::new(config.low_capacity),
            budget: ByteBudget::new(config.max_bytes),
        })
    }

    /// Returns the lanes of threads, if there are any.
    #[inline(always)]
    pub(crate) fn threads(&self) -> Option<&Numbered<E>> {
        self.threads.as_ref()
    }

    /// Returns the function that a push asks what it may evict. It moves what it needs: borrowed, that would have to be in memory.
    #[inline(always)]
    pub(crate) fn eviction(&self, evicts: bool) -> impl Fn() -> Eviction {
        move || match (evicts, self.budget.held() > 0) {
            (false, _) => Eviction::Never,
            (true, false) => Eviction::AndDrop,
            (true, true) => Eviction::AndReturn,
        }
    }

    /// Returns the budget of bytes that events own beyond their slots.
    pub(crate) fn budget(&self) -> &ByteBudget {
        &self.budget
    }

    /// Reserves the bytes that an event owns, before its push. Returns how many events were evicted for it, even if
    /// that was not enough.
    ///
    /// Where the bytes are not free and `evicts` allows it, the oldest events are evicted. Low events come first; for
    /// a normal event, normal ones follow. At most [`MAX_EVICTED`] events are evicted. Where that cannot be enough,
    /// judged by the average size of the queued events, none is evicted and the new event alone is rejected.
    pub(crate) fn reserve(
        &self,
        way: Way<'_, E>,
        priority: Priority,
        bytes: u64,
        evicts: bool,
    ) -> (u64, Result<(), Refusal>) {
        if self.budget.try_reserve(priority, bytes) {
            return (0, Ok(()));
        }
        if bytes > self.budget.max_for(priority) {
            return (0, Err(Refusal::Oversize));
        }
        self.budget.mark_wanted();
        if !evicts || !self.can_make_space(way, priority, bytes) {
            return (0, Err(Refusal::Full));
        }
        let (mut evicted, mut destroyed, home) = (0, 0, Home::now());
        while destroyed < MAX_EVICTED as u64 {
            let Some(events) = self.evict(way, priority) else { break };
            (evicted, destroyed) = (evicted + events, destroyed + events.max(1));
            if home.is_left() {
                // The destructor of an event has forked, and this is the child. The rings are the parent's.
                return (evicted, Err(Refusal::Forked));
            }
            if self.budget.try_reserve(priority, bytes) {
                return (evicted, Ok(()));
            }
        }
        (evicted, Err(Refusal::Full))
    }

    fn can_make_space(&self, way: Way<'_, E>, priority: Priority, bytes: u64) -> bool {
        let (missing, reach) = self.budget.shortage(priority, bytes);
        let normal = if priority == Priority::Normal { self.normal_len() } else { 0 };
        let events = (self.low.len() + normal) as u128;
        // What lies in the open blocks of other threads is out of reach.
        let out_of_reach = match &self.threads {
            Some(pool) if priority == Priority::Normal => {
                pool.pending().saturating_sub(pool.evictable(way.own()))
            }
            _ => 0,
        };
        let evictable = events.saturating_sub(out_of_reach as u128).min(MAX_EVICTED as u128);
        missing <= reach && u128::from(missing) * events <= u128::from(reach) * evictable
    }

    /// Releases the bytes of the event that lay in the slot of a push. Where the push has just `evicted` events, drops the others of
    /// them as well, because others may need their bytes.
    #[inline]
    pub(crate) fn release_stale(&self, stale: &mut Option<E>, evicted: u64, way: Way<'_, E>) {
        if self.budget.held() > 0 {
            self.release_stale_bytes(stale, evicted, way);
        }
    }

    #[cold]
    #[inline(never)]
    fn release_stale_bytes(&self, stale: &mut Option<E>, evicted: u64, way: Way<'_, E>) {
        let home = Home::now();
        if stale.is_some() {
            self.release_bytes_of(Priority::Normal, stale);
        }
        let Some(pool) = self.threads.as_ref().filter(|_| evicted > 0 && !home.is_left()) else { return };
        while self.budget.held() > 0 {
            let mut next = pool.next_stale(way.own());
            if next.is_none() || !self.release_and_drop(Priority::Normal, &mut next) {
                break;
            }
        }
    }

    /// Releases the bytes of an event that has left its ring, or never came to it.
    #[inline(always)]
    pub(crate) fn release(&self, priority: Priority, bytes: u64) {
        if bytes > 0 {
            self.budget.dequeue(priority, bytes);
            self.budget.release(bytes);
        }
    }

    /// Removes and drops the oldest event that may be evicted for one of this priority, or a block of them. Returns how many
    /// were evicted; none if they were evicted before, and `None` if there are none.
    fn evict(&self, way: Way<'_, E>, priority: Priority) -> Option<u64> {
        if priority == Priority::Normal && self.low.is_empty() {
            let events = self.evict_of_threads(way);
            if events.is_some() {
                return events;
            }
        }
        let low = std::iter::once((Priority::Low, &self.low));
        let normal = std::iter::once(self.normal.of_this_thread()).chain(self.normal.iter());
        let normal = normal.filter(|_| priority != Priority::Low).map(|ring| (Priority::Normal, ring));
        let popped = low.chain(normal).find_map(|(lane, ring)| Some((lane, ring, ring.pop()?)));
        let (lane, ring, event) = popped?;
        ring.count_evicted(thread_index());
        self.release_and_drop(lane, &mut Some(event));
        Some(1)
    }

    /// Releases the bytes of an event that was evicted, and drops it in its place. Returns whether this is still the same process.
    fn release_and_drop(&self, lane: Priority, event: &mut Option<E>) -> bool {
        let home = Home::now();
        // Every event that owns bytes has reserved them. So without any reserved, no event need be asked.
        if self.budget.held() > 0 {
            self.release_bytes_of(lane, event);
        }
        _ = catch_panic(|| *event = None);
        !home.is_left()
    }

    /// Drops an event that was evicted before, or else a block of the oldest ones.
    fn evict_of_threads(&self, way: Way<'_, E>) -> Option<u64> {
        let pool = self.threads.as_ref()?;
        let mut stale = pool.next_stale(way.own());
        if stale.is_some() {
            self.release_and_drop(Priority::Normal, &mut stale);
            return Some(0);
        }
        let mut block = pool.evict_block(way.own())?;
        let events = block.events();
        while let Some(event) = block.next() {
            if !self.release_and_drop(Priority::Normal, &mut Some(event)) {
                std::mem::forget(block);
                break;
            }
        }
        Some(events)
    }

    /// Returns how many normal events are queued.
    fn normal_len(&self) -> usize {
        self.normal.len() + self.threads.as_ref().map_or(0, |pool| pool.pending())
    }

    /// Returns the bytes that these events own. They were removed from the rings and still count.
    fn owned_bytes_of(&self, events: &[E]) -> u64 {
        // Every event that owns bytes has reserved them. So without any reserved, no event need be asked.
        if self.budget.held() == 0 {
            return 0;
        }
        // Saturating, because an event may report any number.
        events.iter().map(owned_bytes_or_zero).fold(0, u64::saturating_add)
    }

    /// Appends `event` to the lane of its priority, or returns it when the lane is full.
    #[inline(always)]
    pub(crate) fn push(&self, priority: Priority, event: E) -> Result<(), E> {
        self.lane(priority).push(event)
    }

    /// Appends `event` to the lane of its priority, which must be one that may evict. Returns the oldest event, if it
    /// was evicted. The caller counts it and drops it when the push is complete, because its destructor is user code
    /// and may be slow.
    #[inline(always)]
    pub(crate) fn push_evicting(&self, priority: Priority, event: E) -> Option<E> {
        self.lane(priority).push_evicting(event)
    }

    /// Counts an event that `push_evicting` returned, and releases its bytes.
    #[inline(always)]
    pub(crate) fn count_evicted(&self, priority: Priority, evicted: &mut Option<E>) {
        let stripe = if priority == Priority::Normal { self.normal.stripe() } else { thread_index() };
        self.lane(priority).count_evicted(stripe);
        // Every event that owns bytes has reserved them. So without any reserved, no event need be asked.
        if self.budget.held() > 0 {
            self.release_bytes_of(priority, evicted);
        }
    }

    /// Releases the bytes that an event owns. If the code that is asked for them forks, the event is the parent's: in the child, nothing
    /// is left to drop. Out of line: catching panics of its code inline would slow down a full ring of scalars.
    #[cold]
    #[inline(never)]
    fn release_bytes_of(&self, priority: Priority, evicted: &mut Option<E>) {
        let home = Home::now();
        self.release(priority, evicted.as_ref().map_or(0, owned_bytes_or_zero));
        if home.is_left() {
            std::mem::forget(evicted.take());
        }
    }

    /// Returns whether a worker that sleeps with threshold `wake_at` must wake after a push to the lane of
    /// `priority`. A steady loop asks with every push, because its worker naps: so a normal event and one ring have their
    /// answer here, and all else has it out of line.
    #[inline(always)]
    pub(crate) fn needs_worker_after_push(&self, priority: Priority, wake_at: u32) -> bool {
        if priority == Priority::Normal && !self.normal.is_split() && self.threads.is_none() {
            self.needs_worker_for(self.normal.first(), &self.low, wake_at)
        } else {
            self.needs_worker_after_rare_push(priority, wake_at)
        }
    }

    /// Answers `needs_worker_after_push` for a push into `lane`. A sleeping worker that producers may wake has left no critical
    /// event behind, so `lane` and `other` hold all that is pending.
    #[inline(always)]
    fn needs_worker_for(&self, lane: &Ring<E>, other: &Ring<E>, wake_at: u32) -> bool {
        if wake_at == NEVER {
            return false;
        }
        let pending = lane.len();
        pending >= wake_at as usize
            || pending == lane.capacity()
            || self.budget.is_short()
            || !other.is_empty() && pending + other.len() >= wake_at as usize
    }

    #[inline(never)]
    fn needs_worker_after_rare_push(&self, priority: Priority, wake_at: u32) -> bool {
        match priority {
            Priority::Critical => wake_at != NEVER,
            _ if self.threads.is_some() => self.has_load(wake_at),
            Priority::Normal => self.needs_worker_after_push_to_shard(wake_at),
            Priority::Low if self.normal.is_split() => self.has_load(wake_at),
            Priority::Low => self.needs_worker_for(&self.low, self.normal.first(), wake_at),
        }
    }

    /// Answers `needs_worker_after_push` after a push into the lane of a thread. Like a producer with a ring of its own, it
    /// looks at its lane alone, and counts the others as if they held as many. A lane that has just opened a block
    /// looks at all.
    #[inline]
    pub(crate) fn needs_worker_after_lane_push(&self, lane: Owned<'_, E>, wake_at: u32) -> bool {
        if wake_at == NEVER {
            return false;
        }
        if lane.looks_at_all() {
            return self.has_load(wake_at);
        }
        // Few threads are without a lane, and few events are low: that they are none costs less than to count them.
        let (without_lane, low) = (self.normal.first(), &self.low);
        let others =
            if without_lane.is_empty() && low.is_empty() { 0 } else { without_lane.len() + low.len() };
        lane.load() + others >= wake_at as usize || self.budget.is_short()
    }

    /// Answers `needs_worker_after_push` where the normal lane is several rings. A producer looks at its own ring
    /// alone, and counts the others as if they held as many. The last producer that pushes into the fullest ring or
    /// the low lane sees what `has_load` sees.
    fn needs_worker_after_push_to_shard(&self, wake_at: u32) -> bool {
        let ring = self.normal.of_this_thread();
        wake_at != NEVER
            && (ring.len() == ring.capacity()
                || self.budget.is_short()
                || self.normal.load_like(ring) + self.low.len() >= wake_at as usize)
    }

    /// Returns whether the worker must wake, judged by all lanes.
    pub(crate) fn needs_worker(&self, wake_at: u32) -> bool {
        self.has_critical(wake_at) || self.has_load(wake_at)
    }

    /// Returns whether a critical event waits for a worker that sleeps with this threshold.
    pub(crate) fn has_critical(&self, wake_at: u32) -> bool {
        wake_at != NEVER && !self.critical.is_empty()
    }

    /// Returns whether `trigger` events are pending, a ring is full, or bytes run short.
    pub(crate) fn has_load(&self, trigger: u32) -> bool {
        let full = |ring: &Ring<E>| ring.len() == ring.capacity();
        trigger != NEVER
            && (self.critical.len() + self.normal.load() + self.load_of_threads() + self.low.len()
                >= trigger as usize
                || self.threads.as_ref().is_some_and(|pool| pool.is_full())
                || self.budget.is_short() && self.pending() > 0
                || self.normal.iter().any(full)
                || full(&self.low)
                || full(&self.critical))
    }

    fn load_of_threads(&self) -> usize {
        self.threads.as_ref().map_or(0, |pool| pool.load())
    }

    /// Returns how many events are queued in all lanes.
    #[inline]
    pub(crate) fn pending(&self) -> usize {
        self.critical.len() + self.normal_len() + self.low.len()
    }

    /// Returns how full the fullest ring is, from 0 to 1.
    pub(crate) fn fullest(&self) -> f64 {
        let rings = self.normal.iter().chain([&self.critical, &self.low]);
        let rings = rings.map(|ring| ring.len() as f64 / ring.capacity() as f64);
        rings.chain(self.threads.as_ref().map(|pool| pool.fullness())).fold(0.0, f64::max)
    }

    /// Returns how many events were evicted since the collector was built.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted_of_rings() + self.threads.as_ref().map_or(0, |pool| pool.evicted())
    }

    /// Returns how many events of rings were evicted. What lanes of threads evicted, [`take`](Self::take) tells.
    pub(crate) fn evicted_of_rings(&self) -> u64 {
        self.normal.evicted() + self.low.evicted()
    }

    /// Begins a [`DrainPass`]. The pass before it may not have ended; so the next of several normal rings comes
    /// first.
    pub(crate) fn begin_pass(&self, cursor: &mut LaneCursor) -> DrainPass {
        cursor.shard = cursor.shard.wrapping_add(1);
        if let Some(pool) = &self.threads {
            pool.begin_round();
        }
        DrainPass {
            critical: self.critical.capacity(),
            threads: self.threads.is_some(),
            normal: self.normal.get(cursor.shard).capacity(),
            more_normal: self.normal.count() - 1,
            low: self.low.capacity(),
        }
    }

    /// Moves events into `events` until it holds `max_events`, or the pass has ended. Returns how many bytes they
    /// own. These still count until the caller releases them.
    pub(crate) fn take(
        &self,
        pass: &mut DrainPass,
        cursor: &mut LaneCursor,
        events: &mut Vec<E>,
        max_events: usize,
    ) -> u64 {
        cursor.batch += 1;
        // User code tells what an event owns. If it forks on a thread of the user, the rings are the parent's.
        let (mut bytes, home) = (0_u64, Home::now());
        let mut add = |taken| bytes = bytes.saturating_add(taken);
        if pass.critical == 0 && !pass.is_over() {
            // Critical events that came since the pass saw the end of their lane. At most half a batch, so that a
            // flood of them cannot keep the pass from ending.
            let left = &mut (max_events / 2);
            add(self.take_from((Priority::Critical, &self.critical), left, usize::MAX, events, max_events));
        }
        while events.len() < max_events && !pass.is_over() && !home.is_left() {
            let left = &mut pass.critical;
            add(self.take_from((Priority::Critical, &self.critical), left, usize::MAX, events, max_events));
            if let Some(pool) = &self.threads {
                if events.len() == max_events {
                    break;
                }
                let (bytes, ends_batch) = self.take_turn(pool, pass, cursor, events, max_events);
                add(bytes);
                if ends_batch {
                    break;
                }
                continue;
            }
            // Alone, the normal lane need not take turns.
            let share = if pass.low == 0 { usize::MAX } else { NORMAL_SHARE - cursor.normal };
            if share > 0 && pass.normal == 0 && pass.more_normal > 0 {
                // The cursor moves only now, when this ring gives at least one event. A pass that ended before is
                // followed by one that begins with this ring.
                cursor.shard = cursor.shard.wrapping_add(1);
                pass.more_normal -= 1;
                pass.normal = self.normal.get(cursor.shard).capacity();
            }
            let before = events.len();
            let ring = self.normal.get(cursor.shard);
            add(self.take_from((Priority::Normal, ring), &mut pass.normal, share, events, max_events));
            cursor.normal = (cursor.normal + events.len() - before).min(NORMAL_SHARE);
            let is_over = pass.normal == 0 && pass.more_normal == 0;
            if pass.normal == 0 && !is_over && cursor.normal < NORMAL_SHARE {
                // The rest of the share belongs to the next ring.
                continue;
            }
            if events.len() < max_events && pass.low > 0 {
                // The normal lane has given its share, or has no more.
                let share = if is_over { usize::MAX } else { LOW_SHARE };
                add(self.take_from((Priority::Low, &self.low), &mut pass.low, share, events, max_events));
                cursor.normal = 0;
            }
        }
        bytes
    }

    /// Removes events of those whose turn it is, where threads have lanes. Returns how many bytes they own, and whether the batch has
    /// to end.
    fn take_turn(
        &self,
        pool: &Pool<E>,
        pass: &mut DrainPass,
        cursor: &mut LaneCursor,
        events: &mut Vec<E>,
        max_events: usize,
    ) -> (u64, bool) {
        let before = events.len();
        let (mut bytes, mut ends_batch) = (0, false);
        let share = match cursor.turn {
            Turn::Threads => THREADS_SHARE,
            Turn::Ring | Turn::Low => THREADS_SHARE / 2,
        };
        let left = share - cursor.of_turn;
        let is_over = match cursor.turn {
            Turn::Threads if pass.threads => {
                // Alone, they need not take turns.
                let left = if pass.normal == 0 && pass.low == 0 { usize::MAX } else { left };
                let taken = pool.take(events, left.min(max_events - before), cursor.batch);
                cursor.gap += taken.gap;
                (pass.threads, ends_batch) = (!taken.is_over, taken.ends_batch);
                bytes = self.owned_bytes_of(&events[before..]);
                if bytes > 0 {
                    self.budget.dequeue(Priority::Normal, bytes);
                }
                taken.is_over
            }
            Turn::Threads => true,
            Turn::Ring => {
                let ring = (Priority::Normal, self.normal.first());
                bytes = self.take_from(ring, &mut pass.normal, left, events, max_events);
                pass.normal == 0
            }
            Turn::Low => {
                let low = (Priority::Low, &self.low);
                bytes = self.take_from(low, &mut pass.low, left, events, max_events);
                pass.low == 0
            }
        };
        cursor.of_turn += events.len() - before;
        if is_over || cursor.of_turn >= share {
            (cursor.turn, cursor.of_turn) = (cursor.turn.next(), 0);
        }
        (bytes, ends_batch)
    }

    /// Removes at most `share` events of one lane, and returns how many bytes they own. `left` becomes 0 when the
    /// lane was empty.
    fn take_from(
        &self,
        (lane, ring): (Priority, &Ring<E>),
        left: &mut usize,
        share: usize,
        events: &mut Vec<E>,
        max_events: usize,
    ) -> u64 {
        let wanted = share.min(*left).min(max_events - events.len());
        let before = events.len();
        events.extend(std::iter::from_fn(|| ring.pop()).take(wanted));
        *left = if events.len() - before < wanted { 0 } else { *left - wanted };
        let bytes = self.owned_bytes_of(&events[before..]);
        if bytes > 0 {
            self.budget.dequeue(lane, bytes);
        }
        bytes
    }

    /// Removes all queued events and releases their bytes. For callers that find events in the rings of a collector
    /// without a worker.
    pub(crate) fn take_all(&self) -> Vec<E> {
        self.release_removed(self.remove_all())
    }

    /// Removes all queued events, and runs no code of theirs, so that the caller may hold a lock. Their bytes still count until
    /// [`release_removed`](Self::release_removed). Those of several threads are not merged.
    pub(crate) fn remove_all(&self) -> Removed<E> {
        // At most as many as a ring holds, because others may go on pushing.
        let all = |ring: &Ring<E>| std::iter::from_fn(|| ring.pop()).take(ring.capacity()).collect();
        if let Some(pool) = &self.threads {
            pool.begin_unmerged_round();
        }
        let critical = all(&self.critical);
        let mut normal = Vec::new();
        if let Some(pool) = &self.threads {
            let (mut gap, mut batch, mut is_over) = (0, NO_WORKERS_BATCH, false);
            while !is_over {
                batch += 1;
                let taken = pool.take(&mut normal, usize::MAX, batch);
                (gap, is_over) = (gap + taken.gap, taken.is_over);
            }
            // Nobody sees these as a batch, so that the next one tells of it.
            pool.owe(gap);
        }
        self.normal.iter().for_each(|ring| normal.append(&mut all(ring)));
        let low = all(&self.low);
        Removed([(Priority::Critical, critical), (Priority::Normal, normal), (Priority::Low, low)])
    }

    /// Releases the bytes of events that were removed, and returns the events. If the code that tells their bytes forks, they are the
    /// parent's: the child gets none.
    pub(crate) fn release_removed(&self, removed: Removed<E>) -> Vec<E> {
        let home = Home::now();
        let mut all = Vec::new();
        for (priority, mut events) in removed.0 {
            if !home.is_left() {
                self.release(priority, self.owned_bytes_of(&events));
            }
            all.append(&mut events);
        }
        if home.is_left() {
            std::mem::forget(std::mem::take(&mut all));
        }
        all
    }

    #[inline(always)]
    fn lane(&self, priority: Priority) -> &Ring<E> {
        match priority {
            Priority::Critical => &self.critical,
            Priority::Normal => self.normal.of_this_thread(),
            Priority::Low => &self.low,
        }
    }
}

/// Events that were removed from their lanes, and whose bytes still count.
#[derive(Debug)]
pub(crate) struct Removed<E>([(Priority, Vec<E>); 3]);

impl<E> Default for Removed<E> {
    fn default() -> Self {
        Self([Priority::Critical, Priority::Normal, Priority::Low].map(|priority| (priority, Vec::new())))
    }
}

/// Barrier without tickets: how many events each lane may still give.
///
/// A ring is first-in first-out and bounded. Once it was empty, or gave as many events as it has slots, everything
/// that was in it when the pass began has left. (An evicted event has left too.) So a pass ends even while producers
/// keep pushing, and it covers every event that was collected before it began.
#[derive(Debug)]
pub(crate) struct DrainPass {
    critical: usize,
    /// Whether the lanes of threads may give more.
    threads: bool,
    /// Position of the normal ring at the cursor.
    normal: usize,
    /// Number of normal rings that come after it.
    more_normal: usize,
    low: usize,
}

impl DrainPass {
    pub(crate) fn is_over(&self) -> bool {
        self.critical == 0 && !self.threads && self.normal == 0 && self.more_normal == 0 && self.low == 0
    }
}

/// Who gives normal and low events, where threads have lanes.
#[derive(Debug, Clone, Copy, Default)]
enum Turn {
    #[default]
    Threads,
    /// The ring of threads without a lane.
    Ring,
    Low,
}

impl Turn {
    fn next(self) -> Self {
        match self {
            Self::Threads => Self::Ring,
            Self::Ring => Self::Low,
            Self::Low => Self::Threads,
        }
    }
}

/// Cursor over the lanes: whose turn it is, the normal or the low lane's. It is kept from batch to batch, so that
/// small batches starve no lane.
#[derive(Debug, Default)]
pub(crate) struct LaneCursor {
    /// Normal events taken since the last turn of the low lane.
    normal: usize,
    /// Index of the normal ring that gives events. It counts on beyond the last ring.
    shard: usize,
    /// Whose turn it is where threads have lanes, and how many events they have given in it.
    turn: Turn,
    of_turn: usize,
    /// Number of the batch that is put together.
    batch: u64,
    /// Evictions of lanes of threads that the batch has to tell.
    gap: u64,
}

impl LaneCursor {
    /// Returns how many events of lanes of threads were evicted before those that were taken last.
    pub(crate) fn take_gap(&mut self) -> u64 {
        std::mem::take(&mut self.gap)
    }
}

#[cfg(test)]
mod tests;
