//! A sink on a thread of its own, behind a bounded queue of batches.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use super::account::{Account, Cancel, Fate, Hook, PendingFlush};
use super::catch_panics::{CatchPanics, UNNAMED};
use super::{Sink, SinkError};
use crate::batch::Batch;
use crate::clock::deadline_in;
use crate::config::Overflow;
use crate::event::{Event, Record};
use crate::reply::Reply;
use crate::sync::{self, Arc, Condvar, Mutex, Ordering, PlainU64, WorkerMark, catch_panic};

/// Sink on a thread of its own. Made by [`SinkExt::isolated`](crate::sink::SinkExt::isolated).
///
/// The worker only puts batches into its queue, which it shares with the other sinks, not copies. So a sink that is slow,
/// or hangs for ever, holds up nobody but itself.
///
/// * A queue is full when it holds as many batches as it was made for, or batches of more than
///   [`max_bytes`](Self::max_bytes), but for one batch, which it always takes.
/// * A full queue evicts its oldest batch, or rejects the new one ([`overflow`](Self::overflow)). Their events are counted under
///   [`SinkStats::evicted`](crate::stats::SinkStats::evicted) or [`rejected`](crate::stats::SinkStats::rejected), and reported to the
///   sink by the [`gap`](Batch::gap) of the batch behind them.
/// * Events in the queue are in flight. `flush` and `stop` wait until the sink has all that was queued before and is
///   flushed, but not longer than [`flush_timeout`](Self::flush_timeout); then the report names it, and the rest stays in
///   the queue. (A flush that is awaited by a task knows no time, and waits for as long as it takes.)
/// * Critical events are in batches like others, and are evicted like others: what the rings keep, this queue may not.
/// * The thread starts with the first batch or flush. It ends when the sink is dropped, which does not wait for it: it
///   delivers what is in the queue, then drops the inner sink. A [`retry`](crate::sink::SinkExt::retry) that waits gives up then.
/// * Wrappers outside of it see no error: put [`retry`](crate::sink::SinkExt::retry), [`breaker`](crate::sink::SinkExt::breaker) and
///   [`dead_letters`](crate::sink::SinkExt::dead_letters) inside. Letters that are offered again from outside are not taken.
///
/// # Examples
///
/// ```
/// use forebay::sink::{MemorySink, SinkExt};
/// use forebay::{Collector, Record};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let memory = MemorySink::new();
/// // A queue of 64 batches: a sink that hangs delays no other.
/// let collector = Collector::builder().sink(memory.clone().isolated(64)).start()?;
/// collector.collect(Record::new("tick"));
/// collector.stop()?;
/// assert_eq!(memory.len(), 1);
/// # Ok(())
/// # }
/// ```
pub struct Isolated<S, E: Event = Record> {
    name: String,
    /// `None` once the thread has it.
    sink: Option<S>,
    /// Message of its name's panic, if it panicked.
    panicked: Option<String>,
    account: Account,
    flush_timeout: Duration,
    shared: Arc<Shared<E>>,
}

struct Shared<E> {
    queue: Mutex<Queue<E>>,
    /// Rung when there is something to do.
    changed: Condvar,
    /// Lets go of what waits in the inner sink.
    cancel: Arc<Cancel>,
    /// 1 once the inner sink has said that nobody wants it any more. Written by its thread, behind every call; Relaxed: nothing
    /// else is read by it.
    is_over: PlainU64,
}

struct Queue<E> {
    max_batches: usize,
    max_bytes: u64,
    overflow: Overflow,
    /// Batches with the bytes that each takes.
    batches: VecDeque<(Batch<E>, u64)>,
    /// Bytes of all of them.
    bytes: u64,
    /// Batches that ever came, and that ever left.
    came: u64,
    left: u64,
    /// Last place of the queue: a batch without events, whose gap tells what was rejected there.
    missing: Option<Batch<E>>,
    /// Flushes, and how many batches must have left before.
    flushes: VecDeque<(u64, Arc<Reply<bool>>)>,
    is_closed: bool,
}

impl<S: Sink<E>, E: Event> Isolated<S, E> {
    /// Creates the sink and its queue of that many batches, at least one.
    pub(crate) fn new(sink: S, batches: usize) -> Self {
        match catch_panic(|| sink.name().to_owned()) {
            Ok(name) => Self::named(name, sink, batches),
            // There is no account yet that could count it.
            Err(said) => {
                let mut isolated = Self::named(UNNAMED.to_owned(), sink, batches);
                isolated.panicked = Some(said);
                isolated
            }
        }
    }

    pub(crate) fn named(name: String, sink: S, batches: usize) -> Self {
        let queue = Queue {
            max_batches: batches.max(1),
            max_bytes: 50 << 20,
            overflow: Overflow::default(),
            batches: VecDeque::new(),
            bytes: 0,
            came: 0,
            left: 0,
            missing: None,
            flushes: VecDeque::new(),
            is_closed: false,
        };
        let (queue, changed, cancel) = (Mutex::new(queue), Condvar::new(), Arc::default());
        Self {
            name,
            sink: Some(sink),
            panicked: None,
            account: Account::nobody(),
            flush_timeout: Duration::from_secs(5),
            shared: Arc::new(Shared { queue, changed, cancel, is_over: PlainU64::new(0) }),
        }
    }

    /// Sets what a full queue does. The worker never waits for space: [`Overflow::Block`] rejects the new batch, as
    /// [`Overflow::DropNewest`] does. Defaults to [`Overflow::DropOldest`], which evicts the oldest batch.
    pub fn overflow(self, overflow: Overflow) -> Self {
        self.shared.queue.lock().overflow = overflow;
        self
    }

    /// Sets how many bytes the batches in the queue may take: their buffers, and what the events own
    /// ([`Event::size_hint`](crate::Event::size_hint)). Defaults to 50 MiB.
    pub fn max_bytes(self, bytes: usize) -> Self {
        self.shared.queue.lock().max_bytes = bytes as u64;
        self
    }

    /// Sets how long `flush` and `stop` wait for this sink. Defaults to 5 s, and never longer than they wait at all.
    pub fn flush_timeout(mut self, timeout: Duration) -> Self {
        self.flush_timeout = timeout;
        self
    }
}

impl<S: Sink<E> + 'static, E: Event> Isolated<S, E> {
    /// Starts the thread, unless it runs.
    fn start(&mut self) -> Result<(), SinkError> {
        let Some(sink) = self.sink.take() else { return Ok(()) };
        // The sink stays ours should the system refuse the thread.
        let place = Arc::new(Mutex::new(Some(sink)));
        let (inner, shared) = (Arc::clone(&place), Arc::clone(&self.shared));
        let account = self.account.on_thread(&shared.cancel);
        // This thread is the worker, or is marked as it. A flush from inside of the sink would wait for itself here as well as there.
        let worker_of = sync::worker_of();
        let body = move || {
            let _mark = WorkerMark::set(worker_of);
            let Some(sink) = inner.lock().take() else { return };
            drop(inner);
            shared.run(CatchPanics::new(Box::new(sink), account.clone()), &account);
        };
        match sync::spawn("forebay-sink", None, body) {
            Ok(_) => Ok(()),
            Err(error) => {
                self.sink = place.lock().take();
                Err(SinkError::unavailable(format!("no thread for the sink: {error}")).with_source(error))
            }
        }
    }

    /// Returns the sink inside if no collector has given its account: somebody else's wrapper is around this one, and
    /// counts by what is returned.
    fn unopened(&mut self) -> Option<&mut S> {
        self.sink.as_mut().filter(|_| !self.account.is_open())
    }

    fn begin_flush(&mut self) -> Option<PendingFlush> {
        // Also before its first batch: the sink inside may have something to push out.
        self.start().ok()?;
        let reply = Reply::new();
        let mut queue = self.shared.queue.lock();
        let after = queue.came;
        // Those that nobody waits for any more: beside a sink that hangs there could be any number.
        let (left, gone): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut queue.flushes)
            .into_iter()
            .partition(|(_, reply)| Arc::strong_count(reply) > 1);
        queue.flushes = left;
        queue.flushes.push_back((after, Arc::clone(&reply)));
        drop(queue);
        drop(gone);
        self.shared.changed.notify_all();
        Some(PendingFlush { reply, timeout: self.flush_timeout })
    }
}

impl<S: Sink<E> + 'static, E: Event> Sink<E> for Isolated<S, E> {
    fn name(&self) -> &str {
        &self.name
    }

    fn write_batch(&mut self, batch: &Batch<E>) -> Result<(), SinkError> {
        if let Some(sink) = self.unopened() {
            return sink.write_batch(batch);
        }
        if batch.is_redriven() {
            // They have their fate already, and what becomes of them in the queue would give them a second one.
            let why = "dead_letters is outside of isolated, which cannot tell it what became of a letter";
            return Err(SinkError::unavailable(why).permanent());
        }
        self.start()?;
        // User code: before anything is kept.
        let bytes = batch.bytes(|said| self.account.note_panic(&said));
        batch.check()?;
        self.account.keep(batch.len() as u64);
        let (fate, ended) = self.shared.queue.lock().push(batch.clone(), bytes);
        self.shared.changed.notify_all();
        // They end here, without the lock: events have destructors.
        for batch in ended {
            self.account.complete(fate, batch.len() as u64);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.unopened().map_or(Ok(()), Sink::flush)
    }

    fn hook(&mut self, hook: Hook<'_>) {
        match hook {
            Hook::Open(account) => {
                if let Some(said) = self.panicked.take() {
                    account.note_panic(&said);
                }
                self.account = account.clone();
            }
            Hook::BeginFlush(pending) => *pending = self.begin_flush(),
            Hook::MayWait(may_wait) => *may_wait = false,
            Hook::IsOver(is_over) => match &mut self.sink {
                // Its thread has not begun.
                Some(sink) => sink.hook(Hook::IsOver(is_over)),
                None => *is_over = self.shared.is_over.load(Ordering::Relaxed) == 1,
            },
        }
    }
}

impl<S, E: Event> Drop for Isolated<S, E> {
    fn drop(&mut self) {
        self.shared.queue.lock().is_closed = true;
        self.shared.changed.notify_all();
        self.shared.cancel.cancel();
    }
}

/// Next step of the thread.
enum Task<E> {
    Write(Batch<E>),
    Flush(Vec<Arc<Reply<bool>>>),
    End,
}

/// Returns how many events are missing where this batch is.
fn missing_with<E>(batch: &Batch<E>) -> u64 {
    batch.gap().saturating_add(batch.len() as u64)
}

impl<E> Queue<E> {
    /// Takes a batch in, which takes so many bytes. Returns the batches that are evicted for that, or the batch itself if it is
    /// rejected.
    fn push(&mut self, mut batch: Batch<E>, bytes: u64) -> (Fate, Vec<Batch<E>>) {
        if self.overflow != Overflow::DropOldest && self.is_full(bytes) {
            let missing = missing_with(&batch).saturating_add(self.missing.as_ref().map_or(0, Batch::gap));
            self.missing = Some(batch.without_events(missing));
            return (Fate::Rejected, vec![batch]);
        }
        if let Some(missing) = self.missing.take() {
            batch.add_gap(missing.gap());
        }
        let (mut evicted, mut missing) = (Vec::new(), 0_u64);
        while self.is_full(bytes)
            && let Some(oldest) = self.pop()
        {
            missing = missing.saturating_add(missing_with(&oldest));
            evicted.push(oldest);
        }
        self.came += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        self.batches.push_back((batch, bytes));
        if let Some((next, _)) = self.batches.front_mut() {
            next.add_gap(missing);
        }
        (Fate::Evicted, evicted)
    }

    /// Returns whether there is no space for a batch of so many bytes.
    fn is_full(&self, bytes: u64) -> bool {
        let has_bytes = bytes <= self.max_bytes.saturating_sub(self.bytes);
        self.batches.len() >= self.max_batches || !self.batches.is_empty() && !has_bytes
    }

    fn pop(&mut self) -> Option<Batch<E>> {
        let (batch, bytes) = self.batches.pop_front()?;
        self.bytes = self.bytes.saturating_sub(bytes);
        self.left += 1;
        Some(batch)
    }

    fn next(&mut self) -> Option<Task<E>> {
        let is_flush_due = self.flushes.front().is_some_and(|(after, _)| *after <= self.left);
        if self.batches.is_empty()
            && (is_flush_due || self.is_closed)
            && let Some(missing) = self.missing.take()
        {
            return Some(Task::Write(missing));
        }
        if is_flush_due {
            let due = self.flushes.iter().take_while(|(after, _)| *after <= self.left).count();
            return Some(Task::Flush(self.flushes.drain(..due).map(|(_, reply)| reply).collect()));
        }
        match self.pop() {
            Some(batch) => Some(Task::Write(batch)),
            None => self.is_closed.then_some(Task::End),
        }
    }
}

impl<E: Event> Shared<E> {
    /// Runs the thread.
    fn run(&self, mut sink: CatchPanics<E>, account: &Account) {
        loop {
            let task = {
                let mut queue = self.queue.lock();
                loop {
                    match queue.next() {
                        Some(task) => break task,
                        None => _ = self.changed.wait_until(&mut queue, None),
                    }
                }
            };
            match task {
                Task::Write(batch) => {
                    let (begun, written) = account.on_own_thread(|| sink.write(&batch));
                    account.complete_written(begun, batch.len() as u64, written);
                    self.ask(&mut sink);
                }
                Task::Flush(replies) => {
                    account.on_own_thread(|| sink.flush());
                    // A sink inside may have a thread of its own.
                    let is_done = sink.begin_flush().is_none_or(|pending| {
                        pending.reply.answer_by(deadline_in(pending.timeout)) == Some(true)
                    });
                    self.ask(&mut sink);
                    replies.iter().for_each(|reply| _ = reply.answer(Some(is_done)));
                }
                Task::End => break,
            }
        }
        drop(sink.end());
    }

    /// Asks the sink whether nobody wants it any more.
    fn ask(&self, sink: &mut CatchPanics<E>) {
        self.is_over.store(u64::from(sink.is_over()), Ordering::Relaxed);
    }
}

impl<S, E: Event> fmt::Debug for Isolated<S, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Isolated").field("name", &self.name).finish_non_exhaustive()
    }
}
