//! The controller under a clock that is simulated: workers that wait, then compute on some processors.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// Machine on which handlers wait, then compute.
struct Machine {
    processors: usize,
    /// Microseconds that a handler waits and computes; drawn for every item, by the time.
    load: fn(&mut fastrand::Rng, u64) -> (u64, u64),
    /// Microseconds between items of the source; 0 is as fast as anybody takes them.
    every: u64,
    /// Number of items that come at once; above one, it is the mean, and the time between them varies as well.
    burst: u64,
    /// Number of handlers that wait for each other before they begin; 1 for none.
    meet: usize,
}

/// Handlers that meet nobody, and items that come one by one.
const PLAIN: Machine = Machine { processors: 1, load: |_, _| (0, 1), every: 0, burst: 1, meet: 1 };

/// Result of a run.
#[derive(Debug)]
struct Run {
    items: u64,
    /// Mean limit of the second half, in steps of an item.
    mean_limit: f64,
    highest: usize,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The item has waited, and now wants to compute for so long.
    Waited(u64),
    Computed,
    Arrived,
    /// Whoever watches for stalls looks.
    Watched,
}

impl Machine {
    /// Runs for so many simulated seconds. `controller` decides, unless the number is fixed.
    fn run(&self, seconds: u64, seed: u64, fixed: usize, mut controller: Option<&mut Controller>) -> Run {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut events = BinaryHeap::from([Reverse((self.every, 0, Event::Arrived))]);
        let (mut limit, mut busy, mut free, mut serial) = (fixed, 0, self.processors, 1);
        let (mut waiting, mut ready) = (0u64, VecDeque::new());
        let (mut met, mut is_watched) = (Vec::new(), false);
        let mut run = Run { items: 0, mean_limit: 0.0, highest: limit };
        let (end, mut late) = (seconds * 1_000_000, 0u64);
        while let Some(Reverse((now, _, event))) = events.pop().filter(|Reverse((now, ..))| *now < end) {
            let mut at = |when, event| {
                serial += 1;
                events.push(Reverse((when, serial, event)));
            };
            match event {
                Event::Arrived if self.every > 0 => {
                    let mut about = |mean| if self.burst > 1 { rng.u64(1..2 * mean) } else { mean };
                    waiting += about(self.burst);
                    at(now + about(self.every), Event::Arrived);
                }
                Event::Arrived => waiting = u64::MAX / 2,
                Event::Waited(computes) => ready.push_back(computes),
                Event::Computed => {
                    run.items += 1;
                    let load = Load { busy, is_behind: waiting > 0 };
                    (free, busy) = (free + 1, busy - 1);
                    if let Some(controller) = &mut controller {
                        limit = controller.completed(Duration::from_micros(now), load).unwrap_or(limit);
                    }
                    if now > end / 2 {
                        late += 1;
                        run.mean_limit += limit as f64;
                    }
                }
                Event::Watched => is_watched = false,
            }
            run.highest = run.highest.max(limit);
            loop {
                while busy < limit && waiting > 0 {
                    (busy, waiting) = (busy + 1, waiting - 1);
                    met.push((self.load)(&mut rng, now));
                    if met.len() >= self.meet {
                        met.drain(..).for_each(|(waits, computes)| at(now + waits, Event::Waited(computes)));
                    }
                }
                let is_held_up = busy >= limit && waiting > 0 && !is_watched;
                let Some(controller) = controller.as_mut().filter(|_| is_held_up) else { break };
                match controller.watch(Duration::from_micros(now)) {
                    Ok(raised) => limit = raised,
                    Err(due) => {
                        is_watched = true;
                        at(u64::try_from(due.as_micros()).unwrap() + 1, Event::Watched);
                    }
                }
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
    fn converges(&self, right: std::ops::RangeInclusive<f64>, least_of_best: f64) {
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
    Machine { processors: 4, load: |_, _| (0, 1_000), ..PLAIN }.converges(3.5..=5.5, 0.95);
}

#[test]
fn handlers_that_wait_get_all_workers() {
    Machine { processors: 4, load: |_, _| (20_000, 1), ..PLAIN }.converges(52.0..=64.0, 0.85);
}

#[test]
fn a_mixed_load_gets_as_many_as_keep_the_processors_busy() {
    // Each waits nine times as long as it computes: ten workers a processor, if nothing varied.
    Machine { processors: 2, load: |_, _| (4_500, 500), ..PLAIN }.converges(15.0..=27.0, 0.9);
}

#[test]
fn a_mixed_load_that_varies_gets_about_as_many() {
    // One in ten waits long; the others hardly. On the mean the same as above.
    let load = |rng: &mut fastrand::Rng, _| if rng.u32(..10) == 0 { (40_000, 500) } else { (555, 500) };
    Machine { processors: 2, load, ..PLAIN }.converges(12.0..=34.0, 0.8);
}

#[test]
fn a_source_that_is_slow_gets_no_more_than_keep_up_with_it() {
    // An item a millisecond, handled in ten: ten workers.
    let machine = Machine { processors: 64, load: |_, _| (10_000, 1), every: 1_000, ..PLAIN };
    let run = machine.adapt(120, 0);
    assert!((9.0..=15.0).contains(&run.mean_limit), "{run:?}");
    assert!(run.items > 118_000, "{run:?}");
}

#[test]
fn a_source_that_comes_in_bursts_is_judged_by_its_bursts() {
    // Two processors are busy for a tenth of the time; what comes when says nothing of them.
    for burst in [20, 100, 500] {
        let load = |rng: &mut fastrand::Rng, _| (0, rng.u64(500..1_500));
        let machine = Machine { processors: 2, load, every: burst * 5_000, burst, ..PLAIN };
        for seed in 0..5 {
            let run = machine.adapt(240, seed);
            assert!(run.mean_limit < 5.0 && run.highest <= 12, "{burst}: {run:?}");
        }
    }
    // Handlers that wait get as many as pay.
    let load = |_: &mut _, _| (20_000, 1);
    let run = Machine { processors: 2, load, every: 5_000_000, burst: 1_000, ..PLAIN }.adapt(240, 0);
    assert!(run.mean_limit > 30.0, "{run:?}");
}

#[test]
fn a_source_that_comes_by_chance_gets_no_more_than_keep_up_with_it() {
    // Ten busy on the mean.
    let load = |rng: &mut fastrand::Rng, _| (rng.u64(5_000..15_000), 1);
    let machine = Machine { processors: 64, load, every: 4_000, burst: 4, ..PLAIN };
    for seed in 0..5 {
        let run = machine.adapt(120, seed);
        assert!((9.0..=20.0).contains(&run.mean_limit), "{run:?}");
        assert!(run.items > 118_000, "{run:?}");
    }
}

#[test]
fn handlers_that_wait_for_each_other_get_each_other() {
    // Nothing completes before twelve have begun.
    for seconds in [10, 120] {
        let run = Machine { processors: 4, load: |_, _| (1_000, 1), meet: 12, ..PLAIN }.adapt(seconds, 0);
        assert!(run.items > seconds * 500 && run.highest >= 12, "{run:?}");
    }
}

#[test]
fn a_stall_is_left_in_no_longer_than_the_number_grows() {
    let window = Duration::from_millis(100);
    let mut controller = Controller::new(1, 64, window);
    let (mut now, mut steps) = (Duration::ZERO, Vec::new());
    while controller.has_more() {
        match controller.watch(now) {
            Ok(limit) => steps.push((limit, now.as_millis())),
            Err(due) => now = due,
        }
    }
    assert_eq!(steps, [(2, 400), (4, 1_200), (8, 2_800), (16, 6_000), (32, 12_400), (64, 25_200)]);
    assert!(controller.watch(now).is_err() && controller.watch(now + window * 1_000_000).is_err(), "no more");
    // Something completes: the stall is over, and the next one begins anew.
    let mut controller = Controller::new(1, 64, window);
    assert_eq!(controller.watch(now), Err(now + window * 4));
    assert_eq!(controller.watch(now + window * 4), Ok(2));
    let alone = Load { busy: 2, is_behind: true };
    assert_eq!(controller.completed(now + window * 5, alone), None);
    assert_eq!(controller.watch(now + window * 50), Err(now + window * 54));
}

#[test]
fn it_follows_a_load_that_changes() {
    // A minute of waiting, then three of computing.
    let load = |_: &mut _, now| if now < 60_000_000 { (10_000, 1) } else { (0, 1_000) };
    let run = Machine { processors: 2, load, ..PLAIN }.adapt(240, 0);
    assert!(run.highest > 50 && run.mean_limit < 4.0, "{run:?}");
}

#[test]
fn the_limit_stays_within_its_bounds_and_moves_only_where_there_is_space() {
    for (min, max) in [(1, 1), (3, 3), (2, 5), (7, 8)] {
        let mut controller = Controller::new(min, max, Duration::from_millis(1));
        let mut rng = fastrand::Rng::with_seed(1);
        let mut now = Duration::ZERO;
        for _ in 0..20_000 {
            now += Duration::from_micros(rng.u64(..300));
            let busy = rng.usize(1..=controller.limit);
            let load = Load { busy, is_behind: rng.bool() };
            let changed = if rng.u32(..50) == 0 {
                now += Duration::from_secs(1);
                controller.watch(now).ok()
            } else {
                controller.completed(now, load)
            };
            assert!((min..=max).contains(&controller.limit), "{controller:?}");
            assert!(changed.is_none_or(|limit| limit == controller.limit && min < max));
        }
    }
}

#[test]
fn a_clock_that_stands_still_decides_nothing() {
    let mut controller = Controller::new(1, 64, Duration::from_millis(1));
    let load = Load { busy: 1, is_behind: true };
    assert!((0..10_000).all(|_| controller.completed(Duration::ZERO, load).is_none()));
}
