//! The phase word: one atomic word that says what the worker is doing and whether events are welcome,
//! and the place where producers wait for room.
//!
//! # The problem
//!
//! A producer must never miss that the worker has gone to sleep, and the worker must never sleep over an
//! event that asks for it; yet the producer may pay for neither a lock nor a system call when the worker
//! is awake. And a producer must notice that the collector stopped while its event was on the way into
//! the ring, or the event would lie there, accepted and never counted.
//!
//! Both are one question, asked of one word, after the push. That is the only Dekker pair in the crate:
//!
//! | producer | worker |
//! |---|---|
//! | 1. push into the ring | 1. write `Asleep` (or `Stopped`) into the word |
//! | 2. `push_fence` (SeqCst) | 2. `announce_fence` (SeqCst) |
//! | 3. load the word | 3. look at the rings again |
//!
//! Two SeqCst fences are totally ordered, so at least one side sees what the other wrote: either the
//! producer reads `Asleep` and rings, or the worker sees the event and stays up. Without the producer's
//! fence its load may be satisfied before its push is visible; without the worker's, the look at the
//! rings may be satisfied before `Asleep` is visible. Either way both sides may miss each other.
//!
//! Nothing is *published* through the word: events travel through the rings (whose stamps are
//! acquire/release) and requests through the mailbox (a mutex). All its accesses can therefore be
//! Relaxed, but for those that say otherwise below.
//!
//! # States
//!
//! | state | events | meaning | who moves it on |
//! |---|---|---|---|
//! | `Idle` | welcome | built, never started; events wait in the rings | `start` -> Awake, `stop` -> Stopped |
//! | `Awake` | welcome | the worker is up and will look at the rings before it sleeps | worker -> Asleep, `stop` -> Draining |
//! | `Asleep(wake_at)` | welcome | the worker sleeps; whoever makes `wake_at` pending rings | whoever rings, or the worker by its timer -> Awake, `stop` -> Draining |
//! | `Draining` | refused | `stop` was called; the worker delivers what is queued | worker -> Stopped |
//! | `Stopped` | refused | the rings are drained; whoever still finds its event in them takes it out again | `start` -> Awake |
//! | `Gone` | refused | the worker ended by a panic of our own code | nobody |
//! | `Orphaned` | refused | this is a forked child, the worker lives in the parent | nobody |
//!
//! `Draining` and `Stopped` are two states, because a late producer may empty the rings only once the
//! worker no longer wants what is in them.

use std::task::Waker;
use std::time::Instant;

use crate::sync::{
    self, AtomicU64, CachePadded, Condvar, Mutex, MutexGuard, Ordering, Parker, Unparker, wake_quietly,
};
use crate::unix::Orphan;

const IDLE: u64 = 0;
const AWAKE: u64 = 1;
const ASLEEP: u64 = 2;
const DRAINING: u64 = 3;
const STOPPED: u64 = 4;
const GONE: u64 = 5;
const ORPHANED: u64 = 6;

/// The state lies in the low byte, the threshold of `Asleep` in the high half.
const STATE_MASK: u64 = 0xff;
const WAKE_AT_SHIFT: u32 = 32;

/// A threshold that is never reached: the worker sleeps until somebody asks by name (`Manual`).
pub(crate) const NEVER: u32 = u32::MAX;

/// One reading of the phase word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word(u64);

impl Word {
    /// Whether events are welcome. The states are numbered so that this is one comparison.
    #[inline]
    pub(crate) fn admits(self) -> bool {
        self.0 & STATE_MASK <= ASLEEP
    }

    /// Whether the worker is up: nothing is left to do for a producer. `Awake` carries no threshold, so
    /// that this is one comparison.
    #[inline]
    pub(crate) fn is_awake(self) -> bool {
        self.0 == AWAKE
    }

    /// The threshold of a sleeping worker; `None` when it does not sleep.
    #[inline]
    pub(crate) fn wake_at(self) -> Option<u32> {
        (self.0 & STATE_MASK == ASLEEP).then_some((self.0 >> WAKE_AT_SHIFT) as u32)
    }

    pub(crate) fn state(self) -> State {
        match self.0 & STATE_MASK {
            IDLE => State::Idle,
            AWAKE => State::Awake,
            ASLEEP => State::Asleep,
            DRAINING => State::Draining,
            STOPPED => State::Stopped,
            GONE => State::WorkerGone,
            _ => State::Forked,
        }
    }

    fn asleep(wake_at: u32) -> Self {
        Word(ASLEEP | u64::from(wake_at) << WAKE_AT_SHIFT)
    }
}

/// What a collector is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum State {
    /// Built, but not started: events wait in the rings.
    Idle,
    /// Running, and the worker is busy.
    Awake,
    /// Running, and the worker sleeps until there is something to do.
    Asleep,
    /// Stopping: new events are refused, those that are queued are being delivered.
    Draining,
    /// Stopped. [`Collector::start`](crate::Collector::start) starts it again.
    Stopped,
    /// The worker thread ended by a panic in forebay itself.
    WorkerGone,
    /// This process is a forked child; the worker lives in the parent.
    Forked,
}

impl State {
    /// Whether a worker is there to deliver what is collected.
    pub fn is_running(self) -> bool {
        matches!(self, State::Awake | State::Asleep)
    }
}

/// What [`Phase::close`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    /// A worker is there; it will drain.
    Draining,
    /// There never was one; what is queued has nobody to go to.
    NeverStarted,
    /// Stopped, gone or orphaned before.
    Already,
}

/// The word and the unparker of the worker that sleeps behind it.
#[derive(Debug)]
pub(crate) struct Phase {
    /// Written by the worker, by whoever rings, by `start`, `stop` and the fork hook; read twice by every
    /// `collect`. On a cache line of its own: it changes only when the worker sleeps or wakes.
    word: CachePadded<AtomicU64>,
    unparker: Unparker,
}

impl Phase {
    pub(crate) fn new() -> (Self, Parker, Unparker) {
        let (parker, unparker) = Parker::new();
        let word = CachePadded::new(AtomicU64::new(IDLE));
        (Self { word, unparker: unparker.clone() }, parker, unparker)
    }

    /// The word as it is. Relaxed: before a push it is only a hint (a stop that it misses is caught after
    /// the push), and elsewhere a mutex orders it.
    #[inline]
    pub(crate) fn load(&self) -> Word {
        Word(self.word.load(Ordering::Relaxed))
    }

    /// The producer's steps 2 and 3. Without the fence the load could be satisfied before the push is
    /// visible, and worker and producer could miss each other.
    #[inline]
    pub(crate) fn load_after_push(&self) -> Word {
        sync::push_fence();
        self.load()
    }

    /// Wakes the worker if it sleeps. Of all who call at once, one makes the system call.
    ///
    /// A threshold of `NEVER` does not protect it from this: whoever calls has a reason.
    #[cold]
    pub(crate) fn wake(&self) {
        let seen = self.load();
        if seen.wake_at().is_some() && self.swap_if(seen, Word(AWAKE)) {
            self.unparker.unpark();
        }
    }

    /// The worker's steps 1 and 2: announces sleep. `false` when the collector is no longer `Awake`:
    /// then there is something to do. On `true` the caller looks at rings and mailbox again before it parks.
    pub(crate) fn fall_asleep(&self, wake_at: u32) -> bool {
        let announced = self.swap_if(Word(AWAKE), Word::asleep(wake_at));
        // Partner: `load_after_push`. Without it the second look at the rings could be satisfied before
        // the announcement is visible.
        sync::announce_fence();
        announced
    }

    /// The worker is up again, by its timer or because somebody rang.
    pub(crate) fn set_awake(&self) {
        let seen = self.load();
        if seen.wake_at().is_some() {
            // It fails only where somebody else moved the word on, and then that holds.
            self.swap_if(seen, Word(AWAKE));
        }
    }

    /// `start`: the caller holds the mailbox and has a worker ready.
    pub(crate) fn open(&self) {
        let seen = self.load();
        if matches!(seen.state(), State::Idle | State::Stopped) {
            self.swap_if(seen, Word(AWAKE));
        }
    }

    /// `stop`: refuses events from now on, and wakes the worker so that it drains.
    pub(crate) fn close(&self) -> Closed {
        loop {
            let seen = self.load();
            let (next, found) = match seen.state() {
                State::Idle => (STOPPED, Closed::NeverStarted),
                State::Awake | State::Asleep => (DRAINING, Closed::Draining),
                State::Draining => return Closed::Draining,
                State::Stopped | State::WorkerGone | State::Forked => return Closed::Already,
            };
            if self.swap_if(seen, Word(next)) {
                if seen.wake_at().is_some() {
                    self.unparker.unpark();
                }
                // Partner: `load_after_push`, for the sweep that follows `NeverStarted`.
                sync::announce_fence();
                return found;
            }
        }
    }

    /// The worker has drained; the caller looks at the rings once more. From here on a producer that
    /// finds its event accepted too late takes it out itself.
    pub(crate) fn set_stopped(&self) {
        self.word.store(STOPPED, Ordering::Relaxed);
        // Partner: `load_after_push`. Without it a late event could be seen by neither side.
        sync::announce_fence();
    }

    /// The worker ends by a panic.
    pub(crate) fn set_gone(&self) {
        self.word.store(GONE, Ordering::Relaxed);
        // Partner: `load_after_push`, as above.
        sync::announce_fence();
    }

    fn swap_if(&self, current: Word, new: Word) -> bool {
        self.word.compare_exchange(current.0, new.0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

impl Orphan for Phase {
    /// Called in a forked child, where no other thread exists.
    fn set_orphaned(&self) {
        self.word.store(ORPHANED, Ordering::Relaxed);
    }
}

/// Where producers wait for room in a full ring: a cold place, entered under `Overflow::Block` and by a
/// critical event that finds its lane full.
///
/// A plain condition variable: a waiter tries its push while it holds the lock, and the worker takes the
/// lock after it popped. Either the waiter's push comes after the pop and succeeds, or the waiter is
/// registered before the worker gets the lock and is woken. The worker pays one uncontended lock a batch.
#[derive(Debug, Default)]
pub(crate) struct SpaceWaiters {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

/// Who waits: sleeping threads are only counted, tasks leave their waker.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    threads: usize,
    next_task: u64,
    tasks: Vec<(u64, Waker)>,
}

impl SpaceWaiters {
    pub(crate) fn new() -> Self {
        Self { waiting: Mutex::new(Waiting::default()), changed: Condvar::new() }
    }

    /// The lock under which a waiter tries its push.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock()
    }

    /// Sleeps until something was popped or the collector changed its state; `true` when `deadline` came
    /// first.
    pub(crate) fn wait(&self, waiting: &mut MutexGuard<'_, Waiting>, deadline: Option<Instant>) -> bool {
        waiting.threads += 1;
        let timed_out = self.changed.wait_until(waiting, deadline);
        waiting.threads -= 1;
        timed_out
    }

    /// Wakes all who wait; each tries again. All, because a waiter that was woken may have gone away.
    pub(crate) fn wake_all(&self) {
        let mut waiting = self.waiting.lock();
        if waiting.threads > 0 {
            self.changed.notify_all();
        }
        if !waiting.tasks.is_empty() {
            let tasks = std::mem::take(&mut waiting.tasks);
            // A waker runs foreign code: not under our lock.
            drop(waiting);
            for (_, waker) in tasks {
                wake_quietly(waker);
            }
        }
    }

    /// How many threads and tasks wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let waiting = self.waiting.lock();
        waiting.threads + waiting.tasks.len()
    }
}

impl Waiting {
    /// Leaves `waker` under `ticket`, or under a new ticket, and returns the one that lay there before.
    #[must_use = "a waker's destructor is foreign code and may come back here: drop it without the lock"]
    pub(crate) fn register(&mut self, ticket: &mut Option<u64>, waker: Waker) -> Option<Waker> {
        match ticket.and_then(|id| self.tasks.iter_mut().find(|(other, _)| *other == id)) {
            Some((_, left)) => Some(std::mem::replace(left, waker)),
            None => {
                self.next_task += 1;
                *ticket = Some(self.next_task);
                self.tasks.push((self.next_task, waker));
                None
            }
        }
    }

    /// Takes the waker of `ticket` back, if it is still there.
    #[must_use = "a waker's destructor is foreign code and may come back here: drop it without the lock"]
    pub(crate) fn deregister(&mut self, ticket: &mut Option<u64>) -> Option<Waker> {
        let id = ticket.take()?;
        let index = self.tasks.iter().position(|(other, _)| *other == id)?;
        Some(self.tasks.swap_remove(index).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_tells_its_state_and_threshold() {
        for wake_at in [0, 1, 100, NEVER] {
            let word = Word::asleep(wake_at);
            assert_eq!(word.wake_at(), Some(wake_at));
            assert_eq!(word.state(), State::Asleep);
            assert!(word.admits() && !word.is_awake());
        }
        let admitted = [IDLE, AWAKE, ASLEEP];
        for word in [IDLE, AWAKE, ASLEEP, DRAINING, STOPPED, GONE, ORPHANED] {
            assert_eq!(Word(word).admits(), admitted.contains(&word));
        }
    }

    #[test]
    fn only_one_of_many_wakers_rings() {
        let (phase, _parker, _unparker) = Phase::new();
        phase.open();
        assert!(phase.fall_asleep(1));
        phase.wake();
        assert!(phase.load().is_awake());
        phase.wake();
        assert!(phase.load().is_awake());
    }

    #[test]
    fn a_stopping_collector_does_not_fall_asleep() {
        let (phase, _parker, _unparker) = Phase::new();
        phase.open();
        assert_eq!(phase.close(), Closed::Draining);
        assert!(!phase.fall_asleep(1));
        assert_eq!(phase.close(), Closed::Draining);
        phase.set_stopped();
        assert_eq!(phase.close(), Closed::Already);
        phase.open();
        assert!(phase.load().is_awake());
    }

    #[test]
    fn a_thread_that_has_waited_is_no_longer_counted() {
        let waiters = SpaceWaiters::new();
        assert!(waiters.wait(&mut waiters.lock(), Some(Instant::now())), "the deadline came first");
        assert_eq!(waiters.len(), 0);
    }

    #[test]
    fn a_task_that_waits_twice_leaves_one_waker_and_takes_it_back() {
        let waiters = SpaceWaiters::new();
        let mut ticket = None;
        assert!(waiters.lock().register(&mut ticket, Waker::noop().clone()).is_none());
        assert!(waiters.lock().register(&mut ticket, Waker::noop().clone()).is_some());
        assert_eq!(waiters.len(), 1);
        assert!(waiters.lock().deregister(&mut ticket).is_some());
        assert_eq!(waiters.len(), 0);
        assert_eq!(ticket, None);
    }
}
