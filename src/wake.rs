//! `Phase`: one atomic word that says what the worker is doing and whether events are accepted. `SpaceWaiters`: where
//! producers wait for space in a full ring.
//!
//! # The problem
//!
//! A producer must never miss that the worker has gone to sleep. The worker must never sleep over an event that needs
//! it. Yet a producer may pay for neither a lock nor a system call while the worker is awake. A producer must also
//! notice that the collector stopped while its event was on the way into the ring. Otherwise the event would stay
//! there, accepted and never counted.
//!
//! One word answers both questions, after the push. This is the only Dekker pair in the crate:
//!
//! | producer | worker |
//! |---|---|
//! | 1. push into the ring | 1. write `Asleep` (or `Stopped`) into the word |
//! | 2. `push_fence` (SeqCst) | 2. `announce_fence` (SeqCst) |
//! | 3. load the word | 3. look at the rings again |
//!
//! Two SeqCst fences are totally ordered, so at least one side sees what the other wrote. Either the producer reads
//! `Asleep` and unparks the worker, or the worker sees the event and stays awake. Without the producer's fence, its
//! load may be satisfied before its push is visible. Without the worker's fence, its look at the rings may be
//! satisfied before `Asleep` is visible. In either case both sides may miss each other.
//!
//! Nothing is *published* through the word. Events travel through the rings, whose stamps are acquire/release.
//! Requests travel through the mailbox, a mutex. So every access to the word is Relaxed, except where a comment below
//! says otherwise.
//!
//! # States
//!
//! | state | events | meaning | who changes it |
//! |---|---|---|---|
//! | `Idle` | accepted | built, never started; events wait in the rings | `start` -> Awake, `stop` -> Stopped |
//! | `Awake` | accepted | the worker is awake and looks at the rings before it sleeps | worker -> Asleep, `stop` -> Draining |
//! | `Asleep(wake_at)` | accepted | the worker sleeps; the producer that makes `wake_at` events pending wakes it | that producer, or the worker by its timer -> Awake, `stop` -> Draining |
//! | `Draining` | refused | `stop` was called; the worker delivers what is queued | worker -> Stopped |
//! | `Stopped` | refused | the rings are drained; a producer that still finds its event there removes it | `start` -> Awake |
//! | `Gone` | refused | the worker ended by a panic of our own code | nobody |
//! | `Forked` | refused | this is a forked child, and the worker lives in the parent | nobody |
//!
//! `Draining` and `Stopped` are two states, because a late producer may empty the rings only once the worker no
//! longer needs what is in them.

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
const FORKED: u64 = 6;

/// The state is the low byte. The threshold of `Asleep` is the high half.
const STATE_MASK: u64 = 0xff;
const WAKE_AT_SHIFT: u32 = 32;

/// Threshold that is never reached: the worker sleeps until a request comes (`Manual`).
pub(crate) const NEVER: u32 = u32::MAX;

/// Reading of the phase word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word(u64);

impl Word {
    /// Returns whether events are accepted. The states are numbered so that this is one comparison.
    #[inline]
    pub(crate) fn admits(self) -> bool {
        self.0 & STATE_MASK <= ASLEEP
    }

    /// Returns whether the worker is awake, so that the producer has nothing left to do. `Awake` carries no
    /// threshold, so that this is one comparison.
    #[inline]
    pub(crate) fn is_awake(self) -> bool {
        self.0 == AWAKE
    }

    /// Returns the threshold of a sleeping worker, or `None` when it does not sleep.
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

/// State of a collector.
///
/// # Examples
///
/// ```
/// use forebay::Collector;
/// use forebay::collector::State;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let collector = Collector::builder().build()?;
/// assert_eq!(collector.state(), State::Idle);
/// collector.start()?;
/// assert!(collector.state().is_running());
/// collector.stop()?;
/// assert_eq!(collector.state(), State::Stopped);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum State {
    /// Built, but not started. Events wait in the rings.
    Idle,
    /// Running, and the worker is busy.
    Awake,
    /// Running, and the worker sleeps until there is something to do.
    Asleep,
    /// Stopping. New events are refused, and queued ones are being delivered.
    Draining,
    /// Stopped. [`Collector::start`](crate::Collector::start) starts it again.
    Stopped,
    /// The worker thread ended by a panic in forebay itself.
    WorkerGone,
    /// This process is a forked child. The worker lives in the parent.
    Forked,
}

impl State {
    /// Returns whether a worker is there to deliver what is collected.
    pub fn is_running(self) -> bool {
        matches!(self, State::Awake | State::Asleep)
    }
}

/// Result of [`Phase::close`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    /// A worker runs, and will drain the rings.
    Draining,
    /// No worker was ever started. Nobody will deliver what is queued.
    NeverStarted,
    /// The collector was stopped, gone or forked before.
    Already,
}

/// Phase word and the unparker of the worker that sleeps by it.
#[derive(Debug)]
pub(crate) struct Phase {
    /// Written by the worker, by producers that wake it, and by `start`, `stop` and the fork hook. Every `collect`
    /// reads it twice. It has its own cache line, and changes only when the worker falls asleep or wakes.
    word: CachePadded<AtomicU64>,
    unparker: Unparker,
}

impl Phase {
    pub(crate) fn new() -> (Self, Parker, Unparker) {
        let (parker, unparker) = Parker::new();
        let word = CachePadded::new(AtomicU64::new(IDLE));
        (Self { word, unparker: unparker.clone() }, parker, unparker)
    }

    /// Reads the word. Relaxed: before a push it is only a hint, and the load after the push catches a stop that it
    /// misses. Elsewhere a mutex orders it.
    #[inline]
    pub(crate) fn load(&self) -> Word {
        Word(self.word.load(Ordering::Relaxed))
    }

    /// Reads the word after a push: the producer's steps 2 and 3. Without the fence, the load could be satisfied
    /// before the push is visible, and worker and producer could miss each other.
    #[inline]
    pub(crate) fn load_after_push(&self) -> Word {
        sync::push_fence();
        self.load()
    }

    /// Reads the word after a push into the lane of a thread. The same, but such a push has no locked instruction that the
    /// first half of `push_fence` relies on.
    #[inline]
    pub(crate) fn load_after_lane_push(&self) -> Word {
        sync::announce_fence();
        self.load()
    }

    /// Wakes the worker if it sleeps. When several threads call at once, one makes the system call, and gets `true`.
    ///
    /// A threshold of `NEVER` does not prevent this, because every caller has a reason.
    #[cold]
    pub(crate) fn wake(&self) -> bool {
        let seen = self.load();
        let wakes = seen.wake_at().is_some() && self.swap_if(seen, Word(AWAKE));
        if wakes {
            self.unparker.unpark();
        }
        wakes
    }

    /// Announces that the worker falls asleep: the worker's steps 1 and 2. Returns `false` when the collector is no
    /// longer `Awake`, so that there is something to do. On `true`, the caller looks at rings and mailbox again
    /// before it parks.
    pub(crate) fn fall_asleep(&self, wake_at: u32) -> bool {
        let announced = self.swap_if(Word(AWAKE), Word::asleep(wake_at));
        // Partner: `load_after_push`. Without this fence, the second look at the rings could be satisfied before the
        // announcement is visible.
        sync::announce_fence();
        announced
    }

    /// Marks the worker as awake, after its timer or a producer woke it.
    pub(crate) fn set_awake(&self) {
        let seen = self.load();
        if seen.wake_at().is_some() {
            // The exchange fails only if another thread has changed the word, and then its value stays.
            self.swap_if(seen, Word(AWAKE));
        }
    }

    /// Accepts events from now on, for `start`. The caller holds the mailbox and has a worker ready.
    pub(crate) fn open(&self) {
        let seen = self.load();
        if matches!(seen.state(), State::Idle | State::Stopped) {
            self.swap_if(seen, Word(AWAKE));
        }
    }

    /// Refuses events from now on and wakes the worker so that it drains, for `stop`.
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
                // Partner: `load_after_push`, for the drain that follows `NeverStarted`. Without this fence, that
                // drain could miss a late event whose producer still read `Idle`.
                sync::announce_fence();
                return found;
            }
        }
    }

    /// Marks the collector as stopped, after the worker has drained. The caller then looks at the rings once more. A
    /// producer that sees this state and finds its event accepted too late removes it.
    pub(crate) fn set_stopped(&self) {
        self.word.store(STOPPED, Ordering::Relaxed);
        // Partner: `load_after_push`. Without this fence, neither side might see a late event.
        sync::announce_fence();
    }

    /// Marks the worker as ended by a panic.
    pub(crate) fn set_gone(&self) {
        self.word.store(GONE, Ordering::Relaxed);
        // Partner: `load_after_push`, as in `set_stopped`.
        sync::announce_fence();
    }

    fn swap_if(&self, current: Word, new: Word) -> bool {
        self.word.compare_exchange(current.0, new.0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

impl Orphan for Phase {
    /// Marks the collector as forked. Runs in the child, where no other thread exists.
    fn set_orphaned(&self) {
        self.word.store(FORKED, Ordering::Relaxed);
    }
}

/// Producers that wait for space in a full ring. Two kinds come here: those under `Overflow::Block`, and those with a
/// critical event whose lane is full.
///
/// This is a plain condition variable. A waiter tries its push while it holds the lock, and the worker takes the lock
/// after it popped. Either the waiter's push comes after the pop and succeeds, or the waiter is registered before the
/// worker gets the lock, and is woken. The worker pays for one uncontended lock a batch.
#[derive(Debug, Default)]
pub(crate) struct SpaceWaiters {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

/// Threads and tasks that wait. Threads are only counted; tasks leave their waker.
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

    /// Takes the lock under which a waiter tries its push.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock()
    }

    /// Sleeps until something was popped or the collector changed its state. Returns `true` when `deadline` came
    /// first.
    pub(crate) fn wait(&self, waiting: &mut MutexGuard<'_, Waiting>, deadline: Option<Instant>) -> bool {
        waiting.threads += 1;
        let timed_out = self.changed.wait_until(waiting, deadline);
        waiting.threads -= 1;
        timed_out
    }

    /// Wakes all waiters, and each tries again. One alone is not enough, because a woken waiter may have gone away.
    pub(crate) fn wake_all(&self) {
        let mut waiting = self.waiting.lock();
        if waiting.threads > 0 {
            self.changed.notify_all();
        }
        if !waiting.tasks.is_empty() {
            let tasks = std::mem::take(&mut waiting.tasks);
            // A waker runs user code, so it must not run under our lock.
            drop(waiting);
            for (_, waker) in tasks {
                wake_quietly(waker);
            }
        }
    }

    /// Returns how many threads and tasks wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let waiting = self.waiting.lock();
        waiting.threads + waiting.tasks.len()
    }
}

impl Waiting {
    /// Stores `waker` under `ticket`, or under a new ticket. Returns the waker that it replaces.
    #[must_use = "a waker's destructor is user code and may come back here: drop it without the lock"]
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

    /// Removes and returns the waker of `ticket`, if it is still there.
    #[must_use = "a waker's destructor is user code and may come back here: drop it without the lock"]
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
        for word in [IDLE, AWAKE, ASLEEP, DRAINING, STOPPED, GONE, FORKED] {
            assert_eq!(Word(word).admits(), admitted.contains(&word));
        }
    }

    #[test]
    fn only_one_of_many_wakers_rings() {
        let (phase, _parker, _unparker) = Phase::new();
        phase.open();
        assert!(phase.fall_asleep(1));
        assert!(phase.wake());
        assert!(phase.load().is_awake());
        assert!(!phase.wake());
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
