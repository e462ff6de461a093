//! Which lane a thread has in each pool. A thread keeps its lane until it ends.

use std::cell::{Cell, RefCell};

use crate::sync::{Weak, per_thread};

/// What the calling thread knows of its lane in a pool, from the last time that it came here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Near {
    /// It has the lane of this index.
    Lane(u32),
    /// All lanes had their threads when it came first. A thread never changes sides, so that its events keep their order.
    NoLane,
    /// It has to ask its list.
    Unknown,
}

/// Number of lanes of a thread that are found at once. Pools whose numbers differ by a multiple of it share a place.
const PLACES: usize = 4;

per_thread! {
    /// Lanes of this thread, by the number of their pool. It has no destructor, so that it can be read for as long as the thread lives.
    static NEAR: [Cell<(u64, Near)>; PLACES] = [const { Cell::new((0, Near::Unknown)) }; PLACES];
    static TAKEN: RefCell<TakenLanes> = RefCell::new(TakenLanes(Vec::new()));
}

/// Returns what the calling thread knows of its lane in the pool of this number.
#[inline(always)]
pub(super) fn near(pool_id: u64) -> Near {
    match NEAR.try_with(|near| near[pool_id as usize % PLACES].get()) {
        Ok((id, near)) if id == pool_id => near,
        _ => Near::Unknown,
    }
}

/// Returns what the calling thread knows of its lane in the pool of this number, also where it has to ask its list.
pub(super) fn find(pool_id: u64) -> Near {
    let listed = || {
        let of_pool = |taken: &TakenLanes| taken.0.iter().find(|entry| entry.pool_id == pool_id)?.lane;
        TAKEN.try_with(|taken| of_pool(&*taken.try_borrow().ok()?)).ok()?
    };
    match near(pool_id) {
        Near::Unknown => listed().map_or(Near::Unknown, Near::Lane),
        known => known,
    }
}

/// Returns the lane that the calling thread has in a pool, or has it `take` one for the rest of its life. `None`: it never gets one.
pub(super) fn enter(
    pool_id: u64,
    take: impl FnOnce() -> Option<u32>,
    pool: impl FnOnce() -> Weak<dyn Vacate>,
) -> Option<u32> {
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
    let found = lane.map_or(Near::NoLane, Near::Lane);
    _ = NEAR.try_with(|near| near[pool_id as usize % PLACES].set((pool_id, found)));
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
        _ = NEAR.try_with(|near| near.iter().for_each(|place| place.set((0, Near::Unknown))));
        for entry in self.0.drain(..) {
            if let (Some(lane), Some(pool)) = (entry.lane, entry.pool.upgrade()) {
                pool.vacate(lane);
            }
        }
    }
}
