//! The controller under a clock that is simulated: workers that wait, then compute on some processors.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// A machine on which handlers wait, then compute.
struct Machine {
    processors: usize,
    /// Microseconds that a handler waits and computes; drawn for every item, by the time.
    load: fn(&mut fastrand::Rng, u64) -> (u64, u64),
    /// Microseconds between items of the source; 0 is as fast as anybody takes them.
    every: u64,
}

/// What a run of it came to.
#[derive(Debug)]
struct Run {
    items: u64,
    /// Of the second half, in steps of an item.
    mean_limit: f64,
    highest: usize,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// It has waited, and now wants to compute for so long.
    Waited(u64),
    Computed,
    Arrived,
}

impl Machine {
    /// Runs for so many simulated seconds. `controller` decides, unless the number is fixed.
    fn run(&self, seconds: u64, seed: u64, fixed: usize, mut controller: Option<&mut Controller>) -> Run {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut events = BinaryHeap::from([Reverse((self.every, 0, Event::Arrived))]);
        let (mut limit, mut busy, mut free, mut serial) = (fixed, 0, self.processors, 1);
        let (mut waiting, mut ready) = (0u64, VecDeque::new());
        let mut run = Run { items: 0, mean_limit: 0.0, highest: limit };
        let (end, mut late) = (seconds * 1_000_000, 0u64);
        while let Some(Reverse((now, _, event))) = events.pop().filter(|Reverse((now, ..))| *now < end) {
            let mut at = |when, event| {
                serial += 1;
                events.push(Reverse((when, serial, event)));
            };
            match event {
                Event::Arrived if self.every > 0 => {
                    waiting += 1;
                    at(now + self.every, Event::Arrived);
                }
                Event::Arrived => waiting = u64::MAX / 2,
                Event::Waited(computes) => ready.push_back(computes),
                Event::Computed => {
                    (free, busy) = (free + 1, busy - 1);
                    run.items += 1;
                    if let Some(controller) = &mut controller {
                        limit = controller.completed(Duration::from_micros(now)).unwrap_or(limit);
                    }
                    if now > end / 2 {
                        late += 1;
                        run.mean_limit += limit as f64;
                    }
                    run.highest = run.highest.max(limit);
                }
            }
            while busy < limit && waiting > 0 {
                (busy, waiting) = (busy + 1, waiting - 1);
                let (waits, computes) = (self.load)(&mut rng, now);
                at(now + waits, Event::Waited(computes));
            }
            while free > 0 && !ready.is_empty() {
                free -= 1;
                at(now + ready.pop_front().unwrap_or(0), Event::Computed);
            }
        }
        run.mean_limit /= late as f64;
        run
    }

    fn adapt(&self, seconds: u64, seed: u64) -> Run {
        let mut controller = Controller::new(1, 64, Duration::from_millis(100));
        self.run(seconds, seed, 1, Some(&mut controller))
    }

    #[track_caller]
    fn settles(&self, right: std::ops::RangeInclusive<f64>, least_of_best: f64) {
        let speed = |fixed| self.run(10, 0, fixed, None).items * 12;
        let best = [1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 48, 64].map(speed).into_iter().max().unwrap();
        for seed in 0..5 {
            let adapted = self.adapt(120, seed);
            assert!(right.contains(&adapted.mean_limit), "{adapted:?}, right is {right:?}");
            assert!(
                adapted.items as f64 > least_of_best * best as f64,
                "{adapted:?}, the best fixed: {best}"
            );
        }
    }
}

#[test]
fn handlers_that_compute_get_a_worker_a_processor() {
    Machine { processors: 4, load: |_, _| (0, 1_000), every: 0 }.settles(3.5..=5.5, 0.95);
}

#[test]
fn handlers_that_wait_get_all_workers() {
    Machine { processors: 4, load: |_, _| (20_000, 1), every: 0 }.settles(52.0..=64.0, 0.85);
}

#[test]
fn a_mixed_load_gets_as_many_as_keep_the_processors_busy() {
    // Each waits nine times as long as it computes: ten workers a processor, if nothing varied.
    Machine { processors: 2, load: |_, _| (4_500, 500), every: 0 }.settles(15.0..=27.0, 0.9);
}

#[test]
fn a_mixed_load_that_varies_gets_about_as_many() {
    // One in ten waits long; the others hardly. On the mean the same as above.
    let load = |rng: &mut fastrand::Rng, _| if rng.u32(..10) == 0 { (40_000, 500) } else { (555, 500) };
    Machine { processors: 2, load, every: 0 }.settles(12.0..=34.0, 0.8);
}

#[test]
fn a_source_that_is_slow_gets_no_more_than_keep_up_with_it() {
    // An item a millisecond, handled in ten: ten workers.
    let machine = Machine { processors: 64, load: |_, _| (10_000, 1), every: 1_000 };
    let run = machine.adapt(120, 0);
    assert!((9.0..=15.0).contains(&run.mean_limit), "{run:?}");
    assert!(run.items > 118_000, "{run:?}");
}

#[test]
fn it_follows_a_load_that_changes() {
    // A minute of waiting, then three of computing.
    let load = |_: &mut _, now| if now < 60_000_000 { (10_000, 1) } else { (0, 1_000) };
    let run = Machine { processors: 2, load, every: 0 }.adapt(240, 0);
    assert!(run.highest > 50 && run.mean_limit < 4.0, "{run:?}");
}

#[test]
fn the_limit_stays_within_its_bounds_and_moves_only_where_there_is_room() {
    for (min, max) in [(1, 1), (3, 3), (2, 5), (7, 8)] {
        let mut controller = Controller::new(min, max, Duration::from_millis(1));
        let mut rng = fastrand::Rng::with_seed(1);
        let mut now = Duration::ZERO;
        for _ in 0..20_000 {
            now += Duration::from_micros(rng.u64(..300));
            let changed = controller.completed(now);
            assert!((min..=max).contains(&controller.limit), "{controller:?}");
            assert!(changed.is_none_or(|limit| limit == controller.limit && min < max));
        }
    }
}

#[test]
fn a_clock_that_stands_still_decides_nothing() {
    let mut controller = Controller::new(1, 64, Duration::from_millis(1));
    assert!((0..10_000).all(|_| controller.completed(Duration::ZERO).is_none()));
}
