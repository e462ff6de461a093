//! Unit tests of the state, without threads.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use forebay_sync::clock::ManualClock;
use forebay_sync::sync::Parker;

use super::*;

/// Returns a running task, with so many workers and a sender.
fn running(strategy: Strategy, workers: usize, clock: &ManualClock) -> State<u64> {
    let mut state = State::new();
    (state.plan, state.clock) = (strategy.plan(), Clock::Manual(clock.clone()));
    (state.phase, state.begun) = (Phase::Running, Some(state.clock.now()));
    (state.senders, state.hired, state.workers) = (1, workers, workers);
    state.unparkers = (0..workers).map(|_| Parker::new().1).collect();
    state
}

impl State<u64> {
    fn send(&mut self) {
        let since = self.clock.now();
        self.queue.push_back(Waiting { item: self.sent, since });
        self.sent += 1;
        self.wake_one();
    }

    fn look_as(&mut self, worker: usize) -> NextStep {
        self.next_step(worker, &mut Taken { items: Vec::new(), created: Vec::new() })
    }

    fn done(&mut self) {
        (self.in_flight, self.handled) = (self.in_flight - 1, self.handled + 1);
    }

    /// Returns the workers that sleep until they are notified, and were not.
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
        assert_eq!(state.look_as(0), NextStep::Work(number));
        state.done();
    }
    let next = state.clock.now() + Duration::from_millis(100);
    assert_eq!(state.look_as(0), NextStep::Sleep(Some(next)));
    assert_eq!((state.look_as(1), state.look_as(2)), (NextStep::Sleep(None), NextStep::Sleep(None)));
    // What is sent meanwhile wakes nobody: it would have to wait for the same.
    state.send();
    assert_eq!(state.asleep(), [0, 1, 2]);
    clock.advance(Duration::from_millis(99));
    assert_eq!(state.look_as(0), NextStep::Sleep(Some(next)), "not yet");
    clock.advance(Duration::from_millis(1));
    assert_eq!(state.look_as(0), NextStep::Work(10));
    // The next slot is another worker's, which is woken, while this one handles its item.
    let rung = if state.asleep() == [1] { 2 } else { 1 };
    assert_eq!(state.asleep(), [3 - rung]);
    assert_eq!(state.look_as(rung), NextStep::Sleep(Some(next + Duration::from_millis(100))));
    assert_eq!(state.look_as(3 - rung), NextStep::Sleep(None));
    state.done();
    assert_eq!(state.look_as(0), NextStep::Sleep(None));
    // Whoever is there, when it is time, may take it.
    clock.advance(Duration::from_millis(100));
    assert_eq!(state.look_as(0), NextStep::Work(11));
    assert_eq!(state.summary().check_law(14), Ok(()));
}

#[test]
fn who_takes_the_last_item_wakes_those_that_have_to_leave() {
    let (clock, second) = (ManualClock::new(), Duration::from_secs(1));
    let mut state = running(Strategy::Parallel { workers: 3, rate_limit: Some(1) }, 3, &clock);
    (0..2).for_each(|_| state.send());
    assert_eq!(state.look_as(0), NextStep::Work(0));
    state.done();
    // The last sender is gone. Of those that look, one waits for the next slot, the others for a notification.
    state.senders = 0;
    state.wake_all();
    let next = state.clock.now() + second;
    assert_eq!(state.look_as(0), NextStep::Sleep(Some(next)));
    assert_eq!((state.look_as(1), state.look_as(2)), (NextStep::Sleep(None), NextStep::Sleep(None)));
    clock.advance(second);
    assert_eq!(state.look_as(0), NextStep::Work(1));
    assert!(state.asleep().is_empty(), "nothing else comes that would wake them");
    state.done();
    assert_eq!([0, 1, 2].map(|worker| state.look_as(worker)), [const { NextStep::Leave }; 3]);
    assert_eq!(state.summary().check_law(2), Ok(()));
}

#[test]
fn one_worker_watches_that_something_is_completed_where_others_wait() {
    let (clock, window) = (ManualClock::new(), Duration::from_millis(100));
    let mut state = running(Strategy::Adaptive { min: 1, max: 4, window }, 2, &clock);
    assert_eq!((state.look_as(0), state.look_as(1)), (NextStep::Sleep(None), NextStep::Sleep(None)));
    state.send();
    assert_eq!(state.look_as(1), NextStep::Work(0));
    // With nothing that waits, there is nothing to watch.
    assert_eq!(state.asleep(), [0]);
    state.send();
    let keeper = state.keeper.map(|(keeper, _)| keeper);
    assert_eq!((state.asleep(), keeper), (vec![], Some(0)), "he was rung");
    let due = state.clock.now() + window * 4;
    assert_eq!(state.look_as(0), NextStep::Sleep(Some(due)));
    state.send();
    assert_eq!(state.asleep(), [0], "once is enough");
    clock.advance(window * 4);
    assert_eq!(state.look_as(0), NextStep::Hire(1));
    assert_eq!((state.plan.limit, state.hired, state.look_as(0)), (2, 3, NextStep::Work(1)));
    // Whoever comes next watches these two.
    state.unparkers.push(Parker::new().1);
    assert_eq!(state.look_as(2), NextStep::Sleep(Some(due + window * 8)));
    assert_eq!(state.complete(Fate::Handled, 1), 0);
    assert_eq!(state.look_as(1), NextStep::Work(2));
    state.complete(Fate::Handled, 1);
    state.complete(Fate::Handled, 1);
    assert_eq!(state.summary().check_law(3), Ok(()));
}

#[test]
fn who_has_to_look_sooner_takes_the_place_of_who_watches_for_a_stall() {
    let (clock, window) = (ManualClock::new(), Duration::from_millis(100));
    let mut state = running(Strategy::Adaptive { min: 1, max: 4, window }, 2, &clock);
    let quiet = Duration::from_millis(50);
    state.quiet = Some(quiet);
    state.send();
    clock.advance(quiet);
    assert_eq!(state.look_as(0), NextStep::Work(0));
    state.send();
    let stall = state.clock.now() + window * 4;
    assert_eq!(state.look_as(1), NextStep::Sleep(Some(stall)), "the only one is busy, and an item waits");
    assert_eq!(state.complete(Fate::Handled, 1), 0);
    let due = state.clock.now() + quiet;
    assert_eq!(state.look_as(0), NextStep::Sleep(Some(due)), "not behind the stall");
    assert_eq!(state.look_as(1), NextStep::Sleep(None));
    clock.advance(quiet);
    assert_eq!(state.look_as(0), NextStep::Work(1));
    assert_eq!(state.complete(Fate::Handled, 1), 0);
    assert_eq!(state.summary().check_law(2), Ok(()));
}

#[test]
fn a_batch_is_taken_when_it_is_full_late_or_the_last_and_no_sooner() {
    let clock = ManualClock::new();
    let (hour, moment) = (Duration::from_secs(3600), Duration::from_nanos(1));
    let mut state = running(Strategy::Batched { size: 3, max_delay: hour }, 1, &clock);
    let due = state.clock.now() + hour;
    state.send();
    clock.advance(hour - moment);
    state.send();
    assert_eq!(state.look_as(0), NextStep::Sleep(Some(due)), "the oldest counts");
    clock.advance(moment);
    let mut taken = Taken { items: Vec::new(), created: Vec::new() };
    assert_eq!((state.next_step(0, &mut taken), &taken.items[..]), (NextStep::Work(0), &[0, 1][..]));
    state.complete(Fate::Handled, 2);
    (0..4).for_each(|_| state.send());
    taken.items.clear();
    assert_eq!((state.next_step(0, &mut taken), &taken.items[..]), (NextStep::Work(2), &[2, 3, 4][..]));
    state.complete(Fate::Failed, 3);
    assert_eq!(state.look_as(0), NextStep::Sleep(Some(due + hour)));
    state.senders = 0;
    assert_eq!(state.look_as(0), NextStep::Work(5));
    state.complete(Fate::Handled, 1);
    assert_eq!((state.look_as(0), state.summary().check_law(6)), (NextStep::Leave, Ok(())));
}
