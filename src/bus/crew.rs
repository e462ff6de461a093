//! The workers: handlers stand in line for them, urgent ones before the others.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::context;
use super::engine::Engine;
use super::table::Subscriber;
use crate::sync::{self, Arc, Condvar, JoinHandle, Mutex, Ordering, PlainU64, guarded};

/// The line, and who serves it.
#[derive(Debug, Default)]
pub(super) struct Crew {
    line: Mutex<Line>,
    /// Rung for a worker: there is something to do, or it is to go.
    bell: Condvar,
    /// Rung when a worker has gone.
    left: Condvar,
    /// How many stand in the urgent line. Relaxed: a worker that misses one looks again after the next call.
    urgent: PlainU64,
    /// How many workers there should be. Written under the lock of the line.
    target: PlainU64,
    is_closed: PlainU64,
    pub(super) restarts: PlainU64,
}

#[derive(Debug, Default)]
struct Line {
    urgent: VecDeque<Arc<Subscriber>>,
    others: VecDeque<Arc<Subscriber>>,
    /// Workers that do not hang, of which so many are idle.
    workers: usize,
    idle: usize,
    /// Workers in a call that takes too long. Others have taken their places.
    stuck: usize,
    /// Turns that are being served.
    serving: usize,
    /// Whether the foreman looks at it from time to time: while there is something to look at.
    is_watched: bool,
    is_closed: bool,
    threads: BTreeMap<u64, JoinHandle<()>>,
    /// Numbers of threads that have come to their end.
    ended: Vec<u64>,
    next_thread: u64,
}

/// How the crew is at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Roll {
    pub(super) target: usize,
    pub(super) workers: usize,
    pub(super) idle: usize,
    pub(super) stuck: usize,
}

/// The most threads that take the places of others that hang.
const MOST_STUCK: usize = 64;

impl Crew {
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

    pub(super) fn roll(&self) -> Roll {
        let line = self.line.lock();
        Roll { target: self.target(), workers: line.workers, idle: line.idle, stuck: line.stuck }
    }

    /// Has a handler stand in line so many times. Whether the foreman has to be called.
    pub(super) fn line_up(&self, subscriber: &Arc<Subscriber>, turns: usize, is_urgent: bool) -> bool {
        if turns == 0 {
            return false;
        }
        let mut line = self.line.lock();
        if line.is_closed {
            return false;
        }
        let queue = if is_urgent { &mut line.urgent } else { &mut line.others };
        queue.extend(std::iter::repeat_n(subscriber, turns).cloned());
        if is_urgent {
            self.urgent.fetch_add(turns as u64, Ordering::Relaxed);
        }
        let wanted = turns.min(line.idle);
        let is_watched = std::mem::replace(&mut line.is_watched, true);
        drop(line);
        (0..wanted).for_each(|_| self.bell.notify_one());
        !is_watched
    }

    fn pop(&self, line: &mut Line) -> Option<Arc<Subscriber>> {
        let urgent = line.urgent.pop_front();
        if urgent.is_some() {
            self.urgent.fetch_sub(1, Ordering::Relaxed);
        }
        let next = urgent.or_else(|| line.others.pop_front())?;
        line.serving += 1;
        Some(next)
    }

    /// Who comes next, if somebody stands in line; [`served`](Self::served) follows.
    pub(super) fn next_in_line(&self) -> Option<Arc<Subscriber>> {
        self.pop(&mut self.line.lock())
    }

    pub(super) fn served(&self) {
        self.line.lock().serving -= 1;
    }

    /// The same for a worker, which waits for somebody. The error sends it home, to join those that went before; it is not
    /// counted any more then.
    fn next_for_worker(&self, number: u64) -> Result<Arc<Subscriber>, Vec<JoinHandle<()>>> {
        let mut line = self.line.lock();
        loop {
            if line.is_closed || line.workers > self.target() {
                line.workers -= 1;
                // Nobody joins one that goes after it: so no two wait for each other.
                let before = if line.is_closed { Vec::new() } else { line.take_ended() };
                line.ended.push(number);
                if !line.urgent.is_empty() || !line.others.is_empty() {
                    // The ring that it has heard was for somebody who stays.
                    self.bell.notify_one();
                }
                self.left.notify_all();
                return Err(before);
            }
            if let Some(next) = self.pop(&mut line) {
                return Ok(next);
            }
            line.idle += 1;
            self.bell.wait_until(&mut line, None);
            line.idle -= 1;
        }
    }

    /// So many calls take too long: their workers do not count.
    pub(super) fn set_stuck(&self, workers: usize) {
        let mut line = self.line.lock();
        line.workers = line.workers.saturating_sub(workers);
        line.stuck += workers;
        drop(line);
        self.left.notify_all();
    }

    /// Such a call has ended.
    pub(super) fn come_back(&self) {
        let mut line = self.line.lock();
        line.stuck = line.stuck.saturating_sub(1);
        line.workers += 1;
    }

    /// Whether nobody stands in line and none is served; then the foreman is called when that changes.
    pub(super) fn go_unwatched(&self) -> bool {
        let mut line = self.line.lock();
        let is_quiet = line.urgent.is_empty() && line.others.is_empty() && line.serving == 0;
        line.is_watched &= !is_quiet;
        is_quiet
    }

    pub(super) fn close(&self) {
        let mut line = self.line.lock();
        line.is_closed = true;
        self.is_closed.store(1, Ordering::Relaxed);
        let gone = (std::mem::take(&mut line.urgent), std::mem::take(&mut line.others));
        self.urgent.store(0, Ordering::Relaxed);
        drop(line);
        self.bell.notify_all();
        drop(gone);
    }

    /// Waits until the workers that do not hang have gone, and until their threads have ended; how many hang or are busy.
    pub(super) fn await_end(&self, deadline: Option<Instant>) -> usize {
        let mut line = self.line.lock();
        while line.workers > 0 && !self.left.wait_until(&mut line, deadline) {}
        let behind = line.workers + line.stuck;
        drop(line);
        self.reap();
        behind
    }

    /// Joins threads that have come to their end.
    fn reap(&self) {
        let ended = self.line.lock().take_ended();
        ended.into_iter().for_each(sync::join);
    }
}

impl Line {
    /// Threads that have come to their end, or are about to.
    fn take_ended(&mut self) -> Vec<JoinHandle<()>> {
        // Whoever started one may not have put it in yet.
        let (known, unknown) =
            std::mem::take(&mut self.ended).into_iter().partition(|number| self.threads.contains_key(number));
        self.ended = unknown;
        let known: Vec<u64> = known;
        known.iter().filter_map(|number| self.threads.remove(number)).collect()
    }
}

impl Engine {
    /// Changes how many workers there should be, and starts those that are missing.
    pub(super) fn scale_to(self: &Arc<Self>, workers: usize) -> std::io::Result<()> {
        {
            // Under the lock, so that no worker misses it between its look and its wait.
            let _line = self.crew.line.lock();
            self.crew.target.store(workers as u64, Ordering::Relaxed);
        }
        self.crew.bell.notify_all();
        self.crew.reap();
        self.fill()?;
        // A handler may have use for more of them.
        self.table().subscribers.iter().for_each(|subscriber| self.line_up(subscriber));
        Ok(())
    }

    /// Starts the workers that are missing.
    pub(super) fn fill(self: &Arc<Self>) -> std::io::Result<()> {
        loop {
            let number = {
                let mut line = self.crew.line.lock();
                let target = self.crew.target();
                let is_full = line.workers >= target || line.workers + line.stuck >= target + MOST_STUCK;
                if line.is_closed || is_full {
                    return Ok(());
                }
                line.workers += 1;
                line.next_thread += 1;
                line.next_thread
            };
            let engine = Arc::clone(self);
            match sync::spawn("forebay-bus", None, move || engine.work(number)) {
                Ok(thread) => _ = self.crew.line.lock().threads.insert(number, thread),
                Err(error) => {
                    let mut line = self.crew.line.lock();
                    line.workers -= 1;
                    self.crew.left.notify_all();
                    return Err(error);
                }
            }
        }
    }

    /// The body of a worker. A panic outside of a handler costs it its turn, not its life.
    fn work(&self, number: u64) {
        // All of it: what ends here may hold the last handle of the bus, which cannot wait for this thread.
        let _within = context::within(self.place());
        let before = loop {
            let subscriber = match self.crew.next_for_worker(number) {
                Ok(subscriber) => subscriber,
                Err(before) => break before,
            };
            if guarded(|| self.serve(&subscriber)).is_err() {
                self.crew.restarts.fetch_add(1, Ordering::Relaxed);
            }
            // Its last reference may end a function of the user.
            let _ = guarded(|| drop(subscriber));
            self.crew.served();
        };
        before.into_iter().for_each(sync::join);
    }
}

#[cfg(test)]
mod tests;
