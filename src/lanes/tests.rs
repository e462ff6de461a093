//! Unit tests of the lanes.

use super::*;

#[derive(Debug, Clone, Copy, PartialEq)]
struct Tagged(Priority, u32);

impl Event for Tagged {
    fn priority(&self) -> Priority {
        self.0
    }
}

fn lanes(capacity: usize) -> Lanes<Tagged> {
    let config =
        Config { capacity, critical_capacity: capacity, low_capacity: capacity, ..Config::default() };
    Lanes::new(&config, false).unwrap()
}

#[derive(Debug, PartialEq)]
enum Offer {
    Queued,
    Evicted(u32),
    Full(u32),
}

fn offer(lanes: &Lanes<Tagged>, priority: Priority, n: u32) -> Offer {
    let event = Tagged(priority, n);
    if priority != Priority::Critical {
        let mut evicted = lanes.push_evicting(priority, event);
        if evicted.is_some() {
            lanes.count_evicted(priority, &mut evicted);
        }
        match evicted {
            None => Offer::Queued,
            Some(evicted) => Offer::Evicted(evicted.1),
        }
    } else {
        lanes.push(priority, event).map_or_else(|event| Offer::Full(event.1), |()| Offer::Queued)
    }
}

#[test]
fn critical_first_then_normal_and_low_two_to_one() {
    let lanes = lanes(8);
    for n in 0..4 {
        for priority in [Priority::Low, Priority::Normal, Priority::Critical] {
            assert!(matches!(offer(&lanes, priority, n), Offer::Queued));
        }
    }
    let mut taken = Vec::new();
    let mut cursor = LaneCursor::default();
    lanes.take(&mut lanes.begin_pass(&mut cursor), &mut cursor, &mut taken, 100);
    let order: String = taken
        .iter()
        .map(|event| match event.0 {
            Priority::Critical => 'c',
            Priority::Normal => 'n',
            Priority::Low => 'l',
        })
        .collect();
    assert_eq!(order, "ccccnnlnnlll");
    for priority in [Priority::Critical, Priority::Normal, Priority::Low] {
        let of_lane: Vec<u32> = taken.iter().filter(|e| e.0 == priority).map(|e| e.1).collect();
        assert_eq!(of_lane, [0, 1, 2, 3], "a lane keeps its order");
    }
}

#[test]
fn turns_go_on_from_batch_to_batch() {
    for most in 1..=7 {
        let lanes = lanes(16);
        for n in 0..12 {
            offer(&lanes, Priority::Normal, n);
            offer(&lanes, Priority::Low, n);
        }
        let mut cursor = LaneCursor::default();
        let mut order = String::new();
        for _ in 0..18_usize.div_ceil(most) {
            let mut taken = Vec::new();
            lanes.take(&mut lanes.begin_pass(&mut cursor), &mut cursor, &mut taken, most);
            order.extend(taken.iter().map(|event| if event.0 == Priority::Low { 'l' } else { 'n' }));
        }
        assert!(order.starts_with("nnlnnlnnlnnlnnlnnl"), "batches of {most}: {order}");
    }
}

#[test]
fn a_critical_event_is_never_evicted_and_a_normal_one_is_counted() {
    let lanes = lanes(2);
    for n in 0..2 {
        offer(&lanes, Priority::Critical, n);
        offer(&lanes, Priority::Normal, n);
    }
    assert!(matches!(offer(&lanes, Priority::Critical, 2), Offer::Full(2)));
    assert!(matches!(offer(&lanes, Priority::Normal, 2), Offer::Evicted(0)));
    assert_eq!(lanes.evicted(), 1);
    assert_eq!(lanes.pending(), 4);
}

#[test]
fn a_pass_ends_although_events_keep_coming() {
    let lanes = lanes(4);
    for n in 0..4 {
        offer(&lanes, Priority::Normal, n);
    }
    let mut cursor = LaneCursor::default();
    let mut pass = lanes.begin_pass(&mut cursor);
    let mut taken = Vec::new();
    let mut n = 4;
    while !pass.is_over() {
        let most = taken.len() + 1;
        lanes.take(&mut pass, &mut cursor, &mut taken, most);
        offer(&lanes, Priority::Normal, n);
        n += 1;
    }
    assert_eq!(taken.len(), 4, "as many as the lane has slots, then the pass is over");
    assert_eq!(taken.iter().map(|e| e.1).collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[test]
fn a_sleeping_worker_is_woken_by_number_by_a_full_lane_and_by_a_critical_event() {
    let lanes = lanes(3);
    offer(&lanes, Priority::Normal, 0);
    assert!(!lanes.needs_worker_after_push(Priority::Normal, 2));
    offer(&lanes, Priority::Low, 0);
    for priority in [Priority::Low, Priority::Normal] {
        assert!(lanes.needs_worker_after_push(priority, 2), "two lanes count together");
    }
    assert!(!lanes.needs_worker(100));
    offer(&lanes, Priority::Normal, 1);
    offer(&lanes, Priority::Normal, 2);
    assert!(lanes.needs_worker_after_push(Priority::Normal, 100) && lanes.needs_worker(100), "a full lane");
    assert!(!lanes.needs_worker(NEVER) && !lanes.needs_worker_after_push(Priority::Critical, NEVER));
    assert_eq!(lanes.take_all().len(), 4);
    offer(&lanes, Priority::Critical, 0);
    assert!(lanes.needs_worker(100) && lanes.needs_worker_after_push(Priority::Critical, 100));
}
/// Returns lanes with four normal rings of four slots.
fn split() -> Lanes<Tagged> {
    Lanes::new(&Config { capacity: 16, shards: 4, ..Config::default() }, false).unwrap()
}

fn into_ring(lanes: &Lanes<Tagged>, ring: usize, n: u32) {
    lanes.normal.get(ring).push(Tagged(Priority::Normal, n)).unwrap();
}

#[test]
fn a_pass_goes_through_every_ring_once() {
    for most in 1..=20 {
        let lanes = split();
        for n in 0..16 {
            into_ring(&lanes, n as usize, n);
        }
        offer(&lanes, Priority::Low, 100);
        let mut cursor = LaneCursor::default();
        let mut pass = lanes.begin_pass(&mut cursor);
        let mut taken = Vec::new();
        while !pass.is_over() {
            let batch = taken.len() + most;
            lanes.take(&mut pass, &mut cursor, &mut taken, batch);
            // What comes later does not keep the pass from ending.
            let _ = lanes.normal.get(3).push(Tagged(Priority::Normal, 200));
        }
        for ring in 0..4 {
            let of_ring: Vec<u32> = taken.iter().map(|e| e.1).filter(|n| *n < 100 && n % 4 == ring).collect();
            assert_eq!(of_ring, [ring, ring + 4, ring + 8, ring + 12], "batches of {most}");
        }
        assert_eq!(taken.iter().filter(|e| e.1 == 100).count(), 1);
    }
}

#[test]
fn a_flood_in_one_ring_does_not_starve_the_others() {
    let lanes = split();
    (0..4).for_each(|ring| into_ring(&lanes, ring, ring as u32));
    let mut cursor = LaneCursor::default();
    let mut taken = Vec::new();
    for _ in 0..4 {
        // A pass that is not finished, as in `deliver_load`.
        let mut pass = lanes.begin_pass(&mut cursor);
        let most = taken.len() + 1;
        lanes.take(&mut pass, &mut cursor, &mut taken, most);
        while lanes.normal.get(1).push(Tagged(Priority::Normal, 200)).is_ok() {}
    }
    let mut first: Vec<u32> = taken.iter().map(|e| e.1).collect();
    first.sort_unstable();
    assert_eq!(first, [0, 1, 2, 3]);
}

#[test]
fn a_flood_does_not_starve_the_others_when_a_batch_ends_with_a_ring() {
    // A whole ring, a half and a quarter: in each case a batch ends at the end of a ring.
    for most in [4, 2, 1] {
        let lanes = split();
        (0..4).for_each(|ring| into_ring(&lanes, ring, ring as u32));
        let mut cursor = LaneCursor::default();
        let mut taken = Vec::new();
        for _ in 0..4 {
            let mut pass = lanes.begin_pass(&mut cursor);
            let mut left = 4_usize;
            while left > 0 && !pass.is_over() {
                for flooded in [1, 3] {
                    while lanes.normal.get(flooded).push(Tagged(Priority::Normal, 200)).is_ok() {}
                }
                let before = taken.len();
                lanes.take(&mut pass, &mut cursor, &mut taken, before + most);
                left = left.saturating_sub(taken.len() - before);
            }
        }
        assert!([0, 2].iter().all(|n| taken.iter().any(|e| e.1 == *n)), "batches of {most}: {taken:?}");
    }
}

#[test]
fn a_flood_does_not_starve_the_others_when_a_low_event_ends_a_batch_behind_a_ring() {
    // Two rings of four, one flooded, and a flood of low events: two to one, six at a time.
    let config = Config { capacity: 8, shards: 2, low_capacity: 8, ..Config::default() };
    for (flooded, starved) in [(0, 1), (1, 0)] {
        let lanes = Lanes::new(&config, false).unwrap();
        into_ring(&lanes, starved, 0);
        let mut cursor = LaneCursor::default();
        let mut taken = Vec::new();
        for _ in 0..4 {
            while lanes.normal.get(flooded).push(Tagged(Priority::Normal, 200)).is_ok() {}
            while lanes.low.push(Tagged(Priority::Low, 100)).is_ok() {}
            let mut pass = lanes.begin_pass(&mut cursor);
            let most = taken.len() + 6;
            lanes.take(&mut pass, &mut cursor, &mut taken, most);
        }
        assert!(taken.iter().any(|event| event.1 == 0), "ring {starved}: {taken:?}");
    }
}

#[test]
fn a_sleeping_worker_is_woken_by_the_fullest_ring_times_their_number() {
    let lanes = split();
    into_ring(&lanes, 2, 0);
    assert!(!lanes.has_load(5) && lanes.has_load(4));
    offer(&lanes, Priority::Low, 0);
    assert!(lanes.has_load(5) && lanes.needs_worker_after_push(Priority::Low, 5));
    assert!(!lanes.has_load(6) && !lanes.needs_worker_after_push(Priority::Low, 6));
    into_ring(&lanes, 3, 0);
    assert!(!lanes.has_load(6), "the others count as if they held as many, not twice");
    (1..4).for_each(|n| into_ring(&lanes, 2, n));
    assert!(lanes.has_load(1000), "a full ring");
    // The ring of this thread, whichever it is.
    let lanes = split();
    offer(&lanes, Priority::Normal, 0);
    assert!(
        lanes.needs_worker_after_push(Priority::Normal, 4)
            && !lanes.needs_worker_after_push(Priority::Normal, 5)
    );
    assert!(!lanes.needs_worker_after_push(Priority::Normal, NEVER));
    assert_eq!(lanes.pending(), 1);
}
