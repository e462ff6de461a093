//! Which lane a thread has in each pool. A thread keeps its lane until it ends.

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;

use crate::sync::{Weak, per_thread};

/// Number of lanes of a thread that are found at once. Pools whose numbers differ by a multiple of it share a note.
const NOTES: usize = 4;

/// A note of no pool.
const NOTHING: (u64, NonNull<()>) = (0, NonNull::dangling());

/// In the number of a pool: the thread has no lane there.
const NO_LANE_BIT: u64 = 1 << 63;

per_thread! {
    /// Lanes of this thread, by the number of their pool. It has no destructor, so that it can be read for as long as the thread lives.
    static NOTED: [Cell<(u64, NonNull<()>)>; NOTES] = [const { Cell::new(NOTHING) }; NOTES];
    static TAKEN: RefCell<TakenLanes> = RefCell::new(TakenLanes(Vec::new()));
}

/// Returns the lane of the calling thread in the pool of this number, if it is the last one that was noted there.
#[inline(always)]
pub(super) fn near(pool_id: u64) -> Option<NonNull<()>> {
    let (id, lane) = noted(pool_id);
    (id == pool_id).then_some(lane)
}

#[inline(always)]
fn noted(pool_id: u64) -> (u64, NonNull<()>) {
    NOTED.try_with(|notes| notes[pool_id as usize % NOTES].get()).unwrap_or(NOTHING)
}

/// Returns the index of the lane that the calling thread has in the pool of this number.
pub(super) fn listed(pool_id: u64) -> Option<u32> {
    let of_pool = |taken: &TakenLanes| taken.0.iter().find(|entry| entry.pool_id == pool_id)?.lane;
    TAKEN.try_with(|taken| of_pool(&*taken.try_borrow().ok()?)).ok()?
}

/// Returns the lane that the calling thread has in a pool, or has it `take` one for the rest of its life. `None`: all lanes had their
/// threads when it came first, and it never gets one, so that its events keep their order.
pub(super) fn enter(
    pool_id: u64,
    take: impl FnOnce() -> Option<u32>,
    lane_at: impl FnOnce(u32) -> Option<NonNull<()>>,
    pool: impl FnOnce() -> Weak<dyn Vacate>,
) -> Option<u32> {
    if noted(pool_id).0 == pool_id | NO_LANE_BIT {
        return None;
    }
    let known = TAKEN.try_with(|taken| {
        // Fails only in an allocator that collects while this list grows.
        let mut taken = taken.try_borrow_mut().ok()?;
        let known = taken.0.iter().find(|entry| entry.pool_id == pool_id).map(|entry| entry.lane);
        Some(known.unwrap_or_else(|| {
            // Those of pools that are gone.
            taken.0.retain(|entry| entry.pool.strong_count() > 0);
            let lane = take();
            taken.0.push(Entry { pool_id, lane, pool: pool() });
            lane
        }))
    });
    // A thread whose lists are gone already has given its lane back, and ends.
    let lane = known.ok()??;
    let found = lane.and_then(lane_at).map_or((pool_id | NO_LANE_BIT, NOTHING.1), |lane| (pool_id, lane));
    _ = NOTED.try_with(|notes| notes[pool_id as usize % NOTES].set(found));
    lane
}

/// Pool of any events, to which a thread gives back its lane when it ends.
pub(super) trait Vacate: Send + Sync {
    /// Makes a lane vacant. The caller has it, and does not use it again.
    fn vacate(&self, lane: u32);
}

/// Lane that a thread has taken, or found none.
struct Entry {
    pool_id: u64,
    lane: Option<u32>,
    pool: Weak<dyn Vacate>,
}

/// All lanes that a thread has taken. When the thread ends, it gives them back.
struct TakenLanes(Vec<Entry>);

impl Drop for TakenLanes {
    fn drop(&mut self) {
        // What the thread still collects goes without a lane.
        _ = NOTED.try_with(|notes| notes.iter().for_each(|note| note.set(NOTHING)));
        for entry in self.0.drain(..) {
            if let (Some(lane), Some(pool)) = (entry.lane, entry.pool.upgrade()) {
                pool.vacate(lane);
            }
        }
    }
}
