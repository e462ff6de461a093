//! The pool alone, as small as Miri needs it. What lanes promise is tested on the collector.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Eviction, Numbered, OwnLane, Pool};
use crate::sync::Arc;

/// Event that owns memory, and counts those that are alive.
struct Counted {
    number: Box<u64>,
    alive: Arc<AtomicU64>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

fn counted(number: u64, alive: &Arc<AtomicU64>) -> Counted {
    alive.fetch_add(1, Ordering::Relaxed);
    Counted { number: Box::new(number), alive: Arc::clone(alive) }
}

fn push(lane: &OwnLane<Counted>, number: u64, alive: &Arc<AtomicU64>) -> u64 {
    let pushed = lane.place().push(counted(number, alive), || Eviction::AndDrop, &mut None);
    pushed
        .map(|queued| queued.evicted.unwrap_or(0))
        .unwrap_or_else(|_| unreachable!("a block can be evicted"))
}

/// Makes a round. Returns the numbers that it got, and how many events were evicted between them.
fn round(pool: &Pool<Counted>) -> (Vec<u64>, u64) {
    let (mut numbers, mut gap) = (Vec::new(), 0);
    pool.begin_round();
    for batch in 1.. {
        let mut events = Vec::new();
        let taken = pool.take(&mut events, 3, batch);
        gap += taken.gap;
        numbers.extend(events.iter().map(|event| *event.number));
        if taken.is_over {
            break;
        }
    }
    (numbers, gap)
}

#[test]
fn every_event_is_taken_or_evicted_and_dropped_once() {
    let alive = Arc::new(AtomicU64::new(0));
    let pool = Pool::with_blocks(4, 4, 2, None);
    let lane = pool.own_lane().unwrap();
    let evicted: u64 = (0..30).map(|number| push(&lane, number, &alive)).sum();
    let (numbers, gap) = round(&pool);
    assert_eq!((evicted, gap), (16, 16));
    assert!(numbers.iter().copied().eq(16..30), "{numbers:?}");
    assert_eq!(pool.pending(), 0);
    // Some lie in slots that were not needed since then.
    (30..40).for_each(|number| _ = push(&lane, number, &alive));
    drop(pool.evict_block(Some(&lane)));
    drop(lane);
    let (numbers, gap) = round(&pool);
    assert_eq!(numbers.len() as u64 + gap, 10);
    drop(pool);
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

#[test]
fn threads_that_push_and_end_meet_a_drain() {
    let alive = Arc::new(AtomicU64::new(0));
    let pool = Pool::with_blocks(5, 2, 2, None);
    let each = if cfg!(miri) { 20 } else { 20_000 };
    let mut got = (0, 0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let (pool, alive) = (&pool, &alive);
                scope.spawn(move || {
                    // Two find no lane, unless another thread has ended.
                    (0..each).filter(|number| is_queued(pool, counted(thread * each + number, alive))).count()
                })
            })
            .collect();
        while threads.iter().any(|thread| !thread.is_finished()) {
            let (numbers, gap) = round(&pool);
            got = (got.0 + numbers.len() as u64, got.1 + gap);
        }
        let queued: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        // A gap may be reported by the round after the one that meets it.
        for _ in 0..2 {
            let (numbers, gap) = round(&pool);
            got = (got.0 + numbers.len() as u64, got.1 + gap);
        }
        assert_eq!((got.0 + got.1, got.1), (queued as u64, pool.evicted()));
    });
    drop(pool);
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

fn is_queued(pool: &Arc<Pool<Counted>>, event: Counted) -> bool {
    Numbered::new(Arc::clone(pool)).place().push(event, || Eviction::AndDrop, &mut None).is_ok()
}

#[test]
fn lanes_are_merged_by_time() {
    let alive = Arc::new(AtomicU64::new(0));
    // In blocks of two; the number is the time.
    let pool = Pool::with_blocks(20, 2, 3, Some(|event: &Counted| *event.number));
    let lanes = [(); 3].map(|()| pool.own_lane().unwrap());
    let times: [&[u64]; 3] = [&[1, 4, 5, 6, 20], &[2, 3, 9, 9, 9], &[0, 7, 8, 10]];
    for (lane, times) in lanes.iter().zip(times) {
        times.iter().for_each(|&time| _ = push(lane, time, &alive));
    }
    let (numbers, gap) = round(&pool);
    assert!(numbers.is_sorted() && numbers.len() == 14, "{numbers:?}");
    // One lane makes a gap: it is reported before what follows it, and after what precedes it.
    push(&lanes[0], 21, &alive);
    push(&lanes[1], 22, &alive);
    (23..26).for_each(|time| _ = push(&lanes[0], time, &alive));
    drop(pool.evict_block(Some(&lanes[0])));
    let evicted = pool.evicted();
    let (numbers, later_gap) = round(&pool);
    assert_eq!((gap, later_gap), (0, evicted));
    assert!(numbers.is_sorted(), "{numbers:?}");
    assert_eq!(numbers.len() as u64 + evicted, 5);
}

/// Tests a lane that is given back in the middle of a block of evicted events, of which one was taken out from behind.
#[test]
fn who_takes_a_lane_over_drops_what_was_evicted_before() {
    let alive = Arc::new(AtomicU64::new(0));
    let pool = Pool::with_blocks(2, 4, 1, None);
    let lane = pool.own_lane().unwrap();
    let evicted: u64 = (0..9).map(|number| push(&lane, number, &alive)).sum();
    // Slot 0 has the ninth event; 1 to 3 still have evicted ones.
    assert_eq!((evicted, alive.load(Ordering::Relaxed)), (4, 8));
    drop(pool.next_stale(Some(&lane)).unwrap());
    assert_eq!(alive.load(Ordering::Relaxed), 7);
    drop(lane);
    let lane = pool.own_lane().unwrap();
    assert_eq!((9..12).map(|number| push(&lane, number, &alive)).sum::<u64>(), 0);
    assert_eq!(alive.load(Ordering::Relaxed), 8, "two were dropped for their slots");
    let (numbers, gap) = round(&pool);
    assert!(numbers.iter().copied().eq(4..12) && gap == 4, "{numbers:?}");
    drop((lane, pool));
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

#[test]
fn what_an_evicted_event_leaves_is_decided_once_it_is_evicted() {
    let pool = Pool::with_blocks(2, 1, 1, None);
    let lane = pool.own_lane().unwrap();
    let asked = Cell::new(0);
    let push = |number: u64, before| {
        asked.set(0);
        // No event owns bytes when the push begins; the event that is evicted was pushed meanwhile, and does.
        let eviction = || if asked.replace(asked.get() + 1) == 0 { before } else { Eviction::AndReturn };
        let mut stale = None;
        lane.place().push(number, eviction, &mut stale).map(|_| stale).unwrap()
    };
    let stale: Vec<_> = (0..4).map(|number| push(number, Eviction::AndDrop)).collect();
    assert_eq!(stale, [None, None, Some(0), Some(1)], "an event without a destructor");
    pool.begin_round();
    let mut events = Vec::new();
    assert_eq!((pool.take(&mut events, 9, 1).gap, events.as_slice()), (2, [2, 3].as_slice()));
}
