//! Who takes what and who sleeps until when, asked without a thread.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use super::*;
use crate::clock::ManualClock;
use crate::sync::Parker;

/// A task that runs, with so many workers and a sender.
fn running(strategy: Strategy, workers: usize, clock: &ManualClock) -> State<u64> {
    let mut state = State::new();
    (state.plan, state.clock) = (strategy.plan(), Clock::Manual(clock.clone()));
    (state.phase, state.begun) = (Phase::Running, Some(state.clock.now()));
    (state.senders, state.hired, state.workers) = (1, workers, workers);
    state.bells = (0..workers).map(|_| Parker::new().1).collect();
    state
}

impl State<u64> {
    fn send(&mut self) {
        let since = self.clock.now();
        self.queue.push_back(Waiting { item: self.sent, since });
        self.sent += 1;
        self.ring_one();
    }

    fn look_as(&mut self, worker: usize) -> Turn {
        self.turn(worker, &mut Vec::new())
    }

    fn done(&mut self) {
        (self.in_flight, self.handled) = (self.in_flight - 1, self.handled + 1);
    }

    /// Those that sleep until somebody rings, and nobody has.
    fn asleep(&self) -> Vec<usize> {
        let mut idle = self.idle.clone();
        idle.sort_unstable();
        idle
    }
}

#[test]
fn one_worker_alone_waits_for_the_next_slot_of_a_rate() {
    let clock = ManualClock::new();
    let strategy = Strategy::Parallel { workers: 3, rate_limit: Some(10) };
    let mut state = running(strategy, 3, &clock);
    (0..13).for_each(|_| state.send());
    for number in 0..10 {
        assert_eq!(state.look_as(0), Turn::Work(number));
        state.done();
    }
    let next = state.clock.now() + Duration::from_millis(100);
    assert_eq!(state.look_as(0), Turn::Sleep(Some(next)));
    assert_eq!((state.look_as(1), state.look_as(2)), (Turn::Sleep(None), Turn::Sleep(None)));
    // What is sent meanwhile wakes nobody: it would have to wait for the same.
    state.send();
    assert_eq!(state.asleep(), [0, 1, 2]);
    clock.advance(Duration::from_millis(100));
    assert_eq!(state.look_as(0), Turn::Work(10));
    // The next slot is another's, while this one handles its item; he is rung.
    assert_eq!(state.asleep(), [1]);
    assert_eq!(state.look_as(2), Turn::Sleep(Some(next + Duration::from_millis(100))));
    assert_eq!(state.look_as(1), Turn::Sleep(None));
    state.done();
    assert_eq!(state.look_as(0), Turn::Sleep(None));
    // Whoever is there, when it is time, may take it.
    clock.advance(Duration::from_millis(100));
    assert_eq!(state.look_as(0), Turn::Work(11));
    assert_eq!(state.summary().check_law(14), Ok(()));
}

#[test]
fn one_worker_watches_that_something_is_completed_where_others_wait() {
    let (clock, window) = (ManualClock::new(), Duration::from_millis(100));
    let mut state = running(Strategy::Adaptive { min: 1, max: 4, window }, 2, &clock);
    assert_eq!((state.look_as(0), state.look_as(1)), (Turn::Sleep(None), Turn::Sleep(None)));
    state.send();
    assert_eq!(state.look_as(1), Turn::Work(0));
    // With nothing that waits, there is nothing to watch.
    assert_eq!(state.asleep(), [0]);
    state.send();
    assert_eq!((state.asleep(), state.keeper), (vec![], Some(0)), "he was rung");
    let due = state.clock.now() + window * 4;
    assert_eq!(state.look_as(0), Turn::Sleep(Some(due)));
    state.send();
    assert_eq!(state.asleep(), [0], "once is enough");
    clock.advance(window * 4);
    assert_eq!(state.look_as(0), Turn::Hire(1));
    assert_eq!((state.plan.limit, state.hired, state.look_as(0)), (2, 3, Turn::Work(1)));
    // Whoever comes next watches these two.
    state.bells.push(Parker::new().1);
    assert_eq!(state.look_as(2), Turn::Sleep(Some(due + window * 8)));
    assert_eq!(state.settle(Fate::Handled, 1), 0);
    assert_eq!(state.look_as(1), Turn::Work(2));
    state.settle(Fate::Handled, 1);
    state.settle(Fate::Handled, 1);
    assert_eq!(state.summary().check_law(3), Ok(()));
}
