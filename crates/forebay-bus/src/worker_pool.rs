//! The worker threads, and the queue of handlers that wait for one of them, urgent ones first.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::Instant;

use forebay_sync::sync;
use forebay_sync::sync::{Arc, Condvar, JoinHandle, Mutex, Ordering, PlainU64, catch_panic};

use super::subscriber::Subscriber;

/// Pool of worker threads. Whoever emits takes their place in a bus without threads: then it is a queue alone.
#[derive(Debug, Default)]
pub(super) struct WorkerPool {
    queue: Mutex<Queue>,
    /// Notified for one worker: a handler waits, or a worker is to end.
    work: Condvar,
    /// Notified when a worker has ended.
    ended: Condvar,
    /// The length of the urgent queue. Relaxed: a worker that misses an entry looks again after its next call.
    urgent: PlainU64,
    /// Number of workers that there should be. Written under the lock of the queue. Relaxed: a worker that must be
    /// right holds it.
    target: PlainU64,
    /// 1 once the pool is closed. Written under the lock of the queue. Relaxed, for the same reason.
    is_closed: PlainU64,
    /// Number of times that a worker went on after a panic outside of a handler.
    pub(super) restarts: PlainU64,
}

#[derive(Debug, Default)]
struct Queue {
    urgent: VecDeque<Arc<Subscriber>>,
    others: VecDeque<Arc<Subscriber>>,
    /// Workers that are not in an overdue call, idle ones included.
    workers: usize,
    idle: usize,
    /// Workers in overdue calls. Other workers have replaced them.
    stuck: usize,
    /// Handlers that were taken out and are being served.
    serving: usize,
    /// True while the scheduler runs. It emits events of the bus itself, which a stop must not miss.
    has_scheduler: bool,
    /// True if the scheduler looks at the calls from time to time. It does so while a handler waits or is served.
    is_watched: bool,
    is_closed: bool,
    threads: BTreeMap<u64, JoinHandle<()>>,
    /// Numbers of threads that have ended, or are about to.
    ended: Vec<u64>,
    last_thread: u64,
}

/// Numbers of workers at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WorkerCounts {
    pub(super) target: usize,
    pub(super) workers: usize,
    pub(super) idle: usize,
    pub(super) stuck: usize,
}

/// What had not ended when a stop gave up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LeftBehind {
    /// Workers that were stuck or busy.
    pub(super) workers: usize,
    /// True if the scheduler ran, which runs destructors of events that it evicts or gives up.
    pub(super) has_scheduler: bool,
}

/// The most threads that replace others in overdue calls.
const MAX_STUCK: usize = 64;

impl WorkerPool {
    pub(super) fn new(target: usize) -> Self {
        Self { target: PlainU64::new(target as u64), ..Self::default() }
    }

    pub(super) fn target(&self) -> usize {
        self.target.load(Ordering::Relaxed) as usize
    }

    pub(super) fn has_urgent(&self) -> bool {
        self.urgent.load(Ordering::Relaxed) > 0
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed) != 0
    }

    pub(super) fn counts(&self) -> WorkerCounts {
        let queue = self.queue.lock();
        WorkerCounts { target: self.target(), workers: queue.workers, idle: queue.idle, stuck: queue.stuck }
    }

    /// Queues a handler so many times. Returns whether the scheduler has to be woken.
    pub(super) fn push(&self, subscriber: &Arc<Subscriber>, turns: usize, is_urgent: bool) -> bool {
        if turns == 0 {
            return false;
        }
        let mut queue = self.queue.lock();
        if queue.is_closed {
            return false;
        }
        let lane = if is_urgent { &mut queue.urgent } else { &mut queue.others };
        lane.extend(std::iter::repeat_n(subscriber, turns).cloned());
        if is_urgent {
            self.urgent.fetch_add(turns as u64, Ordering::Relaxed);
        }
        let wanted = turns.min(queue.idle);
        let is_watched = std::mem::replace(&mut queue.is_watched, true);
        drop(queue);
        (0..wanted).for_each(|_| self.work.notify_one());
        !is_watched
    }

    fn pop(&self, queue: &mut Queue) -> Option<Arc<Subscriber>> {
        let urgent = queue.urgent.pop_front();
        if urgent.is_some() {
            self.urgent.fetch_sub(1, Ordering::Relaxed);
        }
        let next = urgent.or_else(|| queue.others.pop_front())?;
        queue.serving += 1;
        Some(next)
    }

    /// Takes out the next handler, if one waits. [`served`](Self::served) must follow.
    pub(super) fn next(&self) -> Option<Arc<Subscriber>> {
        self.pop(&mut self.queue.lock())
    }

    pub(super) fn served(&self) {
        self.queue.lock().serving -= 1;
    }

    /// Takes out the next handler for a worker, as soon as one waits. The error ends the worker, which is not counted any more
    /// then, with the threads that it has to join.
    fn next_for_worker(&self, number: u64) -> Result<Arc<Subscriber>, Vec<JoinHandle<()>>> {
        let mut queue = self.queue.lock();
        loop {
            if queue.is_closed || queue.workers > self.target() {
                queue.workers -= 1;
                // A worker joins only threads that ended before it: so no two threads join each other.
                let before = if queue.is_closed { Vec::new() } else { queue.take_ended() };
                queue.ended.push(number);
                if !queue.urgent.is_empty() || !queue.others.is_empty() {
                    // The notification that woke this worker was meant for one that stays.
                    self.work.notify_one();
                }
                self.ended.notify_all();
                return Err(before);
            }
            if let Some(next) = self.pop(&mut queue) {
                return Ok(next);
            }
            queue.idle += 1;
            self.work.wait_until(&mut queue, None);
            queue.idle -= 1;
        }
    }

    /// Notes that so many calls have become overdue: their workers do not count any more.
    pub(super) fn set_stuck(&self, workers: usize) {
        let mut queue = self.queue.lock();
        queue.workers = queue.workers.saturating_sub(workers);
        queue.stuck += workers;
        drop(queue);
        self.ended.notify_all();
    }

    /// Notes that an overdue call has ended: its worker counts again.
    pub(super) fn set_unstuck(&self) {
        let mut queue = self.queue.lock();
        queue.stuck = queue.stuck.saturating_sub(1);
        queue.workers += 1;
    }

    /// Returns whether no handler waits or is served. If so, `push` asks for the scheduler when that changes.
    pub(super) fn go_unwatched(&self) -> bool {
        let mut queue = self.queue.lock();
        let is_quiet = queue.urgent.is_empty() && queue.others.is_empty() && queue.serving == 0;
        queue.is_watched &= !is_quiet;
        is_quiet
    }

    /// Changes how many workers there should be. Workers that are too many end after their calls.
    pub(super) fn set_target(&self, workers: usize) {
        {
            // Under the lock, so that no worker misses it between its check and its wait.
            let _queue = self.queue.lock();
            self.target.store(workers as u64, Ordering::Relaxed);
        }
        self.work.notify_all();
        self.reap();
    }

    /// Starts the workers that are missing. `body` makes what each thread runs, which calls [`run`](Self::run) with its number.
    pub(super) fn fill<B: FnOnce() + Send + 'static>(&self, body: impl Fn(u64) -> B) -> io::Result<()> {
        loop {
            let number = {
                let mut queue = self.queue.lock();
                let target = self.target();
                let is_full = queue.workers >= target || queue.workers + queue.stuck >= target + MAX_STUCK;
                if queue.is_closed || is_full {
                    return Ok(());
                }
                queue.workers += 1;
                queue.last_thread += 1;
                queue.last_thread
            };
            match sync::spawn("forebay-bus", None, body(number)) {
                Ok(thread) => _ = self.queue.lock().threads.insert(number, thread),
                Err(error) => {
                    let mut queue = self.queue.lock();
                    queue.workers -= 1;
                    self.ended.notify_all();
                    return Err(error);
                }
            }
        }
    }

    /// Serves one handler after the other, as the worker of that number, until it is to end. A panic of `serve` ends one turn,
    /// not the worker.
    pub(super) fn run(&self, number: u64, serve: impl Fn(&Arc<Subscriber>)) {
        let before = loop {
            let subscriber = match self.next_for_worker(number) {
                Ok(subscriber) => subscriber,
                Err(before) => break before,
            };
            if catch_panic(|| serve(&subscriber)).is_err() {
                self.restarts.fetch_add(1, Ordering::Relaxed);
            }
            // The last reference may drop a function of the user.
            let _ = catch_panic(|| drop(subscriber));
            self.served();
        };
        before.into_iter().for_each(sync::join);
    }

    /// Empties the queue for good, and ends the workers after their calls.
    pub(super) fn close(&self) {
        let mut queue = self.queue.lock();
        queue.is_closed = true;
        self.is_closed.store(1, Ordering::Relaxed);
        let waiting = (std::mem::take(&mut queue.urgent), std::mem::take(&mut queue.others));
        self.urgent.store(0, Ordering::Relaxed);
        drop(queue);
        self.work.notify_all();
        drop(waiting);
    }

    /// Notes that the scheduler runs from now on, or has ended.
    pub(super) fn set_scheduler(&self, is_running: bool) {
        self.queue.lock().has_scheduler = is_running;
        self.ended.notify_all();
    }

    /// Waits for the end of all workers that are not stuck, and joins their threads; and for that of the scheduler.
    pub(super) fn await_end(&self, deadline: Option<Instant>) -> LeftBehind {
        let mut queue = self.queue.lock();
        while (queue.workers > 0 || queue.has_scheduler) && !self.ended.wait_until(&mut queue, deadline) {}
        let left_behind =
            LeftBehind { workers: queue.workers + queue.stuck, has_scheduler: queue.has_scheduler };
        drop(queue);
        self.reap();
        left_behind
    }

    /// Joins threads that have ended.
    fn reap(&self) {
        let ended = self.queue.lock().take_ended();
        ended.into_iter().for_each(sync::join);
    }
}

impl Queue {
    /// Takes out threads that have ended, or are about to.
    fn take_ended(&mut self) -> Vec<JoinHandle<()>> {
        // Whoever started a thread may not have put it in yet.
        let (known, unknown) =
            std::mem::take(&mut self.ended).into_iter().partition(|number| self.threads.contains_key(number));
        self.ended = unknown;
        let known: Vec<u64> = known;
        known.iter().filter_map(|number| self.threads.remove(number)).collect()
    }
}

#[cfg(test)]
mod tests;
