//! Live events for subscribers: bounded, and without an effect on the loop or the sinks.
//!
//! A subscription is a sink that passes the worker's batches on through a queue. What a slow subscriber loses there is reported
//! to it.

#[cfg(feature = "channel")]
mod channel;

use std::collections::VecDeque;
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::batch::Batch;
use crate::clock::deadline_in;
use crate::collector::{Collector, SinkChangeError};
use crate::event::{Event, Record};
use crate::lanes::owned_bytes;
use crate::pattern::Pattern;
use crate::sink::{Account, Hook, Panics, Sink, SinkError};
use crate::sync::{
    Arc, Condvar, Forked, Mutex, Ordering, PlainU64, Weak, catch_panic, is_worker_of, wake_quietly,
};

/// Events as they are delivered, for one subscriber. Made by [`Collector::subscribe`].
///
/// * It gets the events that are collected from then on and whose names fit, in the order in which sinks get them.
/// * It holds so many events at most ([`subscribe_with`](Collector::subscribe_with)), in batches of so many bytes at most
///   ([`max_bytes`](Self::max_bytes)), but for the last one. A subscriber that lags has its own
///   oldest evicted, and learns how many: by [`RecvError::Lagged`] where they are missing, and by [`evicted`](Self::evicted). Neither the
///   loop nor a sink waits for it.
/// * [`iter`](Self::iter), and the `Stream` that it is (feature `futures`), go from event to event until the collector is
///   gone.
/// * It shares the batches of the sinks; an event is cloned when it is received. Of a batch of which less than half
///   fits, by bytes, the worker makes a copy of these events instead, so that the others need not stay in memory.
/// * It ends with the collector: what is queued can be received, then [`RecvError::Closed`]. A stop does not end it: the
///   collector may start again.
/// * Among the sinks it is named `subscription-1` and so on; what is passed on to it, or passed over, counts as delivered.
///   Dropped, it is taken out at once, by the worker if there is one.
///
/// ```
/// use forebay::{Collector, Record};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let collector = Collector::builder().start()?;
/// let losses = collector.subscribe("train.loss")?;
/// for step in 0..3 {
///     collector.collect(Record::scalar("train.loss", 1.0 / (step + 1) as f64).with_step(step));
///     collector.collect(Record::scalar("train.accuracy", 0.5).with_step(step));
/// }
/// collector.stop()?;
/// drop(collector);
/// let steps: Vec<_> = losses.iter().filter_map(|record| record.step()).collect();
/// assert_eq!(steps, [0, 1, 2]);
/// # Ok(())
/// # }
/// ```
pub struct Subscription<E = Record> {
    shared: Arc<Shared<E>>,
    /// Takes its sink out of the collector, if that is still there.
    leave: Box<dyn Fn() + Send + Sync>,
}

/// A panic of the caller cannot leave it half-changed: no lock is poisoned.
impl<E> UnwindSafe for Subscription<E> {}
impl<E> RefUnwindSafe for Subscription<E> {}

/// Reason why nothing was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// Number of events that were evicted here, because the subscriber lagged. The next one can be received.
    #[error("{0} events were evicted, because the subscriber lagged")]
    Lagged(u64),
    /// The subscription has no event at present.
    #[error("there is no event at present")]
    Empty,
    /// The collector is gone, and everything was received.
    #[error("the collector is gone")]
    Closed,
    /// This process is a forked child; the subscription is its parent's.
    #[error("this process is a forked child; the subscription is its parent's")]
    Forked,
    /// The subscription has no event at present, and the worker thread would wait for itself.
    #[error("the worker thread cannot wait for its own events")]
    OnWorker,
}

#[doc(hidden)]
impl From<Forked> for RecvError {
    fn from(Forked: Forked) -> Self {
        RecvError::Forked
    }
}

struct Shared<E> {
    queue: Mutex<Queue<E>>,
    changed: Condvar,
    /// 1 once the subscriber is gone.
    is_over: PlainU64,
    /// The collector, as its worker is marked.
    worker: usize,
}

struct Queue<E> {
    capacity: usize,
    max_bytes: u64,
    batches: VecDeque<Queued<E>>,
    /// The bytes that these batches take.
    bytes: u64,
    /// Number of events in all.
    events: usize,
    evicted: u64,
    reported: u64,
    waker: Option<Waker>,
    is_closed: bool,
}

/// Batch, the bytes that it takes, and the places of those events that fit and were not received.
struct Queued<E> {
    batch: Batch<E>,
    bytes: u64,
    places: VecDeque<usize>,
}

/// A batch that takes less is shared, however few of its events fit: a copy would save too little.
const SHARED_BYTES: u64 = 4 << 10;

/// The default capacity.
const CAPACITY: usize = 1000;

/// Names subscriptions.
static NEXT: PlainU64 = PlainU64::new(1);

/// Returns the name of the next subscription.
fn next_name() -> String {
    format!("subscription-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

impl<E: Event + Clone> Collector<E> {
    /// Receives events as they are delivered, whose names the pattern stands for, and holds 1,000 of them. A text that is no
    /// [`Pattern`] stands for itself. What nobody subscribes to costs nothing.
    ///
    /// # Errors
    ///
    /// The worker is gone, or this is a forked child.
    pub fn subscribe(&self, pattern: impl Into<Pattern>) -> Result<Subscription<E>, SinkChangeError> {
        self.subscribe_with(pattern, CAPACITY)
    }

    /// Subscribes with another capacity, in events; 0 counts as 1. The memory that is held is bounded by
    /// [`Subscription::max_bytes`].
    ///
    /// # Errors
    ///
    /// As for [`subscribe`](Self::subscribe).
    pub fn subscribe_with(
        &self,
        pattern: impl Into<Pattern>,
        capacity: usize,
    ) -> Result<Subscription<E>, SinkChangeError> {
        let queue = Queue {
            capacity: capacity.max(1),
            max_bytes: 50 << 20,
            batches: VecDeque::new(),
            bytes: 0,
            events: 0,
            evicted: 0,
            reported: 0,
            waker: None,
            is_closed: false,
        };
        let (queue, changed, is_over) = (Mutex::new(queue), Condvar::new(), PlainU64::new(0));
        let shared = Shared { queue, changed, is_over, worker: self.shared.address() };
        let shared = Arc::new(shared);
        let name = next_name();
        let tap = Tap {
            shared: Arc::clone(&shared),
            account: Account::nobody(),
            name: name.clone(),
            pattern: pattern.into(),
        };
        self.add_sink(tap)?;
        let collector = Arc::downgrade(&self.shared);
        let leave = move || _ = Weak::upgrade(&collector).map(|collector| collector.remove_finished(&name));
        Ok(Subscription { shared, leave: Box::new(leave) })
    }
}

/// Result of a receive: an event in its batch, to be cloned without the lock.
type Taken<E> = Result<(Batch<E>, usize), RecvError>;

impl<E> Queue<E> {
    fn take(&mut self) -> Taken<E> {
        if self.evicted > self.reported {
            let lagged = self.evicted - self.reported;
            self.reported = self.evicted;
            return Err(RecvError::Lagged(lagged));
        }
        let Some(Queued { batch, places, .. }) = self.batches.front_mut() else {
            return Err(if self.is_closed { RecvError::Closed } else { RecvError::Empty });
        };
        // A batch without a place left does not stay.
        let place = places.pop_front().unwrap_or_default();
        self.events -= 1;
        let batch = if places.is_empty() { self.pop() } else { Some(batch.clone()) };
        batch.map(|batch| (batch, place)).ok_or(RecvError::Empty)
    }

    /// Takes events in; the batches of those that are evicted for them come out.
    fn put(&mut self, new: Queued<E>) -> Vec<Batch<E>> {
        self.events += new.places.len();
        self.bytes = self.bytes.saturating_add(new.bytes);
        self.batches.push_back(new);
        self.make_room()
    }

    /// Lets go of the oldest events where there are too many, and of the oldest batches where they take too much.
    fn make_room(&mut self) -> Vec<Batch<E>> {
        let mut ended = Vec::new();
        loop {
            let is_heavy = self.bytes > self.max_bytes && self.batches.len() > 1;
            let too_many = self.events.saturating_sub(self.capacity);
            let Some(oldest) = self.batches.front_mut().filter(|_| is_heavy || too_many > 0) else {
                return ended;
            };
            let all = oldest.places.len();
            let evicted = if is_heavy { all } else { all.min(too_many) };
            oldest.places.drain(..evicted);
            let is_empty = oldest.places.is_empty();
            self.events -= evicted;
            self.evicted += evicted as u64;
            if is_empty {
                ended.extend(self.pop());
            }
        }
    }

    fn pop(&mut self) -> Option<Batch<E>> {
        let Queued { batch, bytes, .. } = self.batches.pop_front()?;
        self.bytes = self.bytes.saturating_sub(bytes);
        Some(batch)
    }
}

impl<E> Subscription<E> {
    /// Changes how many bytes the batches that it holds may take: their buffers, and what the events own
    /// ([`Event::size_hint`]). Beyond that, the oldest batch is evicted. Defaults to 50 MiB.
    pub fn max_bytes(self, bytes: usize) -> Self {
        let Ok(mut queue) = self.shared.queue.enter() else { return self };
        queue.max_bytes = bytes as u64;
        let ended = queue.make_room();
        drop(queue);
        // Events may end here: not under the lock.
        drop(ended);
        self
    }
}

impl<E: Event + Clone> Subscription<E> {
    /// Returns the next event, as soon as there is one.
    ///
    /// # Errors
    ///
    /// Events were evicted here; the collector is gone; this is a forked child; or there is nothing and this is the
    /// worker thread, as in a sink, which would wait for itself.
    pub fn recv(&self) -> Result<E, RecvError> {
        self.recv_until(None)
    }

    /// Returns the next event, as soon as there is one, and waits for it at most `timeout`.
    ///
    /// # Errors
    ///
    /// As for [`recv`](Self::recv), or there was none in time ([`RecvError::Empty`]).
    pub fn recv_timeout(&self, timeout: Duration) -> Result<E, RecvError> {
        self.recv_until(deadline_in(timeout))
    }

    /// Returns the next event, if there is one.
    ///
    /// # Errors
    ///
    /// As for [`recv_timeout`](Self::recv_timeout).
    pub fn try_recv(&self) -> Result<E, RecvError> {
        let taken = self.shared.queue.enter()?.take();
        given(taken)
    }

    /// Waits for one event after the other, until the collector is gone. Evictions are passed over
    /// ([`evicted`](Self::evicted)). It ends at once in a forked child, and on the worker thread where there is
    /// nothing.
    pub fn iter(&self) -> Events<'_, E> {
        Events(self)
    }

    /// Returns how many events can be received. 0 in a forked child.
    pub fn len(&self) -> usize {
        self.shared.queue.enter().map_or(0, |queue| queue.events)
    }

    /// Returns whether none can be received.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many events were evicted so far, reported or not. 0 in a forked child.
    pub fn evicted(&self) -> u64 {
        self.shared.queue.enter().map_or(0, |queue| queue.evicted)
    }

    fn recv_until(&self, deadline: Option<Instant>) -> Result<E, RecvError> {
        let is_worker = is_worker_of(self.shared.worker);
        let mut queue = self.shared.queue.enter()?;
        let taken = loop {
            match queue.take() {
                Err(RecvError::Empty) if is_worker => break Err(RecvError::OnWorker),
                Err(RecvError::Empty) if !self.shared.changed.wait_until(&mut queue, deadline) => {}
                taken => break taken,
            }
        };
        drop(queue);
        given(taken)
    }

    /// Returns the next event, or the waker is left. Evictions are passed over.
    #[cfg_attr(not(feature = "futures"), allow(dead_code, reason = "a `Stream` alone waits so"))]
    pub(crate) fn poll_next_event(&self, waker: &Waker) -> Poll<Option<E>> {
        // User code, and so is the drop of the one before: without the lock.
        let waker = waker.clone();
        let Ok(mut queue) = self.shared.queue.enter() else { return Poll::Ready(None) };
        loop {
            match queue.take() {
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Poll::Ready(None),
                Err(RecvError::Empty) => {
                    let before = queue.waker.replace(waker);
                    drop(queue);
                    drop(before);
                    // Both may fork, and this may be the child.
                    let is_left = self.shared.queue.check().is_err();
                    return if is_left { Poll::Ready(None) } else { Poll::Pending };
                }
                taken => {
                    drop(queue);
                    return Poll::Ready(given(taken).ok());
                }
            }
        }
    }
}

/// Clones an event out of its batch, which may end here.
fn given<E: Clone>(taken: Taken<E>) -> Result<E, RecvError> {
    let (batch, place) = taken?;
    batch.events().get(place).cloned().ok_or(RecvError::Empty)
}

/// The events of a [`Subscription`], one after the other. Made by [`Subscription::iter`].
#[derive(Debug)]
pub struct Events<'a, E = Record>(&'a Subscription<E>);

impl<E: Event + Clone> Iterator for Events<'_, E> {
    type Item = E;

    fn next(&mut self) -> Option<E> {
        loop {
            match self.0.recv() {
                Ok(event) => return Some(event),
                Err(RecvError::Closed | RecvError::Forked | RecvError::OnWorker) => return None,
                Err(RecvError::Lagged(_) | RecvError::Empty) => {}
            }
        }
    }
}

impl<'a, E: Event + Clone> IntoIterator for &'a Subscription<E> {
    type Item = E;
    type IntoIter = Events<'a, E>;

    fn into_iter(self) -> Events<'a, E> {
        self.iter()
    }
}

impl<E> Drop for Subscription<E> {
    fn drop(&mut self) {
        self.shared.is_over.store(1, Ordering::Relaxed);
        let Ok(mut queue) = self.shared.queue.enter() else { return };
        let batches = std::mem::take(&mut queue.batches);
        drop(queue);
        // Events may end here: not under the lock.
        drop(batches);
        (self.leave)();
    }
}

/// The worker's end.
struct Tap<E> {
    shared: Arc<Shared<E>>,
    account: Account,
    name: String,
    pattern: Pattern,
}

impl<E: Event + Clone> Tap<E> {
    /// Returns what is queued of a batch: the batch itself, or a copy of the events that fit where the others take more.
    fn queued(&self, batch: &Batch<E>, places: VecDeque<usize>) -> Queued<E> {
        let shared = batch.bytes(|said| self.account.note_panic(&said));
        let copy = if shared > SHARED_BYTES { Self::copy(batch, &places, shared / 2) } else { None };
        let (batch, bytes, places) = match copy {
            Some((copy, bytes)) => {
                let all = 0..copy.len();
                (copy, bytes, all.collect())
            }
            None => (batch.clone(), shared, places),
        };
        let beside = places.capacity().saturating_mul(size_of::<usize>()) as u64;
        Queued { batch, bytes: bytes.saturating_add(beside), places }
    }

    /// Returns a copy of these events, and the bytes that it takes; `None` if these are more than `most`, or the clone
    /// of an event panics.
    fn copy(batch: &Batch<E>, places: &VecDeque<usize>, most: u64) -> Option<(Batch<E>, u64)> {
        let own = (places.len() as u64).saturating_mul(size_of::<E>() as u64);
        if own > most {
            return None;
        }
        let chosen = || places.iter().filter_map(|place| batch.events().get(*place));
        let of = |event: &E| catch_panic(|| owned_bytes(event)).unwrap_or(0);
        if chosen().map(of).fold(own, u64::saturating_add) > most {
            return None;
        }
        // The receiver meets the panic of a clone, if it still panics then.
        let events = catch_panic(|| chosen().cloned().collect::<Vec<E>>()).ok()?;
        let copy = batch.with_events(events);
        let bytes = copy.bytes(drop);
        Some((copy, bytes))
    }
}

impl<E: Event + Clone> Sink<E> for Tap<E> {
    fn name(&self) -> &str {
        &self.name
    }

    fn write_batch(&mut self, batch: &Batch<E>) -> Result<(), SinkError> {
        if self.shared.is_over.load(Ordering::Relaxed) != 0 {
            return Ok(());
        }
        // User code: not under the lock.
        let mut panics = Panics::of("the name of an event");
        let mut fits = |event: &E| panics.catch(|| self.pattern.matches(event.name())).unwrap_or(false);
        let places = batch.iter().enumerate().filter_map(|(place, event)| fits(event).then_some(place));
        let places: VecDeque<usize> = places.collect();
        if places.is_empty() {
            return panics.join(Ok(()), batch.len());
        }
        let new = self.queued(batch, places);
        // The clone of an event may have forked, and this may be the child.
        batch.check()?;
        let mut queue = self.shared.queue.lock();
        let ended = queue.put(new);
        let waker = queue.waker.take();
        drop(queue);
        self.shared.changed.notify_all();
        waker.into_iter().for_each(wake_quietly);
        drop(ended);
        panics.join(Ok(()), batch.len())
    }

    fn hook(&mut self, hook: Hook<'_>) {
        match hook {
            Hook::Open(account) => {
                account.tally().show_tap();
                self.account = account.clone();
            }
            Hook::IsOver(is_over) => *is_over = self.shared.is_over.load(Ordering::Relaxed) != 0,
            _ => {}
        }
    }
}

impl<E> Drop for Tap<E> {
    fn drop(&mut self) {
        let Ok(mut queue) = self.shared.queue.enter() else { return };
        queue.is_closed = true;
        let waker = queue.waker.take();
        drop(queue);
        self.shared.changed.notify_all();
        waker.into_iter().for_each(wake_quietly);
    }
}

impl<E> fmt::Debug for Subscription<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (events, evicted) =
            self.shared.queue.enter().map_or((0, 0), |queue| (queue.events, queue.evicted));
        f.debug_struct("Subscription")
            .field("len", &events)
            .field("evicted", &evicted)
            .finish_non_exhaustive()
    }
}
