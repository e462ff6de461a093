//! `ChannelSink`: events into a channel of crossbeam, for `select!`.
//!
//! The channel itself knows no forks. A child that drops one of its ends may wait for the other end of its parent, half-way through a
//! slot that nobody completes. So an [`EventReceiver`] stands between: in a child it shows a channel that is closed, and leaves the
//! other one alone. The sink does the same with its sender.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;
use std::panic::{RefUnwindSafe, UnwindSafe};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::account::{Account, Fate, Hook};
use super::panics::Panics;
use super::{Sink, SinkError};
use crate::batch::Batch;
use crate::event::{Event, Record};
use crate::lanes::owned_bytes;
use crate::pattern::Pattern;
use crate::sync::{Arc, Home, Ordering, PlainU64, catch_panic};

/// Largest capacity of a channel, in events. Its buffer is allocated at once.
const MAX_CAPACITY: usize = 1 << 20;

/// Creates a sink and the channel into which it sends a clone of every event. The channel holds `capacity` events, at
/// least 1 and at most 1,048,576.
///
/// ```
/// use crossbeam_channel::{after, select};
/// use forebay::{Collector, Record, sink};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (sink, events) = sink::channel(100);
/// let collector = Collector::builder().sink(sink).start()?;
/// collector.collect(Record::scalar("train.loss", 0.5));
/// let _ = collector.flush()?;
/// select! {
///     recv(events) -> record => assert_eq!(record?.name(), "train.loss"),
///     recv(after(Duration::from_secs(60))) -> _ => panic!("no event within a minute"),
/// }
/// # Ok(())
/// # }
/// ```
pub fn channel<E>(capacity: usize) -> (ChannelSink<E>, EventReceiver<E>) {
    let capacity = capacity.clamp(1, MAX_CAPACITY);
    let (sender, receiver) = bounded(capacity);
    let (_, closed) = bounded(0);
    let is_over = Arc::new(PlainU64::new(0));
    let sink = ChannelSink {
        name: "channel".to_owned(),
        sender,
        home: Home::here(),
        pattern: None,
        max_bytes: 50 << 20,
        bytes: 0,
        sizes: VecDeque::new(),
        is_over: Arc::clone(&is_over),
        account: Account::nobody(),
    };
    let end = End { receiver, closed, home: Home::here(), is_over, leave: None };
    (sink, EventReceiver(Arc::new(end)))
}

/// Sink that sends a clone of every event into a channel. Made by [`channel`] and
/// [`Collector::subscribe_channel`](crate::Collector::subscribe_channel).
///
/// * It never waits. A full channel does not take the new event, which is counted under
///   [`SinkStats::rejected`](crate::stats::SinkStats::rejected). (A [`Subscription`](crate::subscription::Subscription) evicts the
///   oldest.) What is in the channel counts as delivered.
/// * The channel is full when it holds its capacity, or events that own more than [`max_bytes`](Self::max_bytes), but for one event.
/// * The sink is over when the last [`EventReceiver`] is dropped: the worker takes it out then.
/// * In a forked child, the channel is the parent's: the sink fails every batch there.
pub struct ChannelSink<E = Record> {
    name: String,
    sender: Sender<E>,
    /// The process of the channel.
    home: Home,
    /// Pattern of the names of events that are sent.
    pattern: Option<Pattern>,
    max_bytes: u64,
    /// Bytes that the events of `sizes` own.
    bytes: u64,
    /// Bytes of each event that was sent and, when this was last looked at, not received. Nobody else sends, so it is
    /// as long as the channel or longer.
    sizes: VecDeque<u64>,
    /// 1 once the last receiver is gone. Relaxed: nothing else is read by it.
    is_over: Arc<PlainU64>,
    account: Account,
}

impl<E> ChannelSink<E> {
    /// Sets the name that it is counted under, `channel` by default.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Changes how many bytes the events in the channel may own beyond their own size
    /// ([`Event::size_hint`](crate::Event::size_hint)). Defaults to 50 MiB.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes as u64;
        self
    }

    /// Lets only events through whose names the pattern stands for.
    pub(crate) fn with_pattern(mut self, pattern: Pattern) -> Self {
        self.pattern = Some(pattern);
        self
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed) == 1
    }

    /// Drops the sizes of events that were received meanwhile.
    fn look_at_receiver(&mut self) {
        while self.sizes.len() > self.sender.len()
            && let Some(size) = self.sizes.pop_front()
        {
            self.bytes = self.bytes.saturating_sub(size);
        }
    }

    /// Returns whether the channel has space for an event that owns so many bytes.
    fn has_room(&mut self, bytes: u64) -> bool {
        self.look_at_receiver();
        let fits = bytes <= self.max_bytes.saturating_sub(self.bytes);
        self.sizes.is_empty() || fits && !self.sender.is_full()
    }

    /// Returns whether the pattern, if there is one, lets the event through.
    fn lets_through(&self, event: &E) -> bool
    where
        E: Event,
    {
        self.pattern.as_ref().is_none_or(|pattern| pattern.matches(event.name()))
    }

    /// Returns whether the channel has space for all events of the batch. Nobody else sends, so it keeps the space.
    fn has_room_for_all(&mut self, batch: &Batch<E>) -> bool
    where
        E: Event,
    {
        self.look_at_receiver();
        let capacity = self.sender.capacity().unwrap_or(usize::MAX);
        let (mut events, mut bytes) = (self.sizes.len(), self.bytes);
        batch.iter().all(|event| {
            // An event whose code panics is not sent; that is reported when it is its turn.
            let size = catch_panic(|| self.lets_through(event).then(|| owned_bytes(event)));
            let Ok(Some(size)) = size else { return true };
            let fits = events == 0 || events < capacity && size <= self.max_bytes.saturating_sub(bytes);
            events += 1;
            bytes = bytes.saturating_add(size);
            fits
        })
    }
}

impl<E: Event + Clone> Sink<E> for ChannelSink<E> {
    fn name(&self) -> &str {
        &self.name
    }

    fn write_batch(&mut self, batch: &Batch<E>) -> Result<(), SinkError> {
        self.home.check()?;
        if batch.is_redriven() && batch.len() > 1 && !self.is_over() && !self.has_room_for_all(batch) {
            batch.check()?;
            // Nobody could tell later which letters were sent. So none is, and `dead_letters` offers each by itself.
            return Err(SinkError::unavailable("the channel has no space for all").permanent());
        }
        let mut panics = Panics::of("the name, the size hint or the clone of an event");
        let mut rejected = 0;
        for event in batch {
            if self.is_over() {
                break;
            }
            let size = panics.catch(|| self.lets_through(event).then(|| owned_bytes(event)));
            let Some(Some(bytes)) = size else { continue };
            if !self.has_room(bytes) {
                rejected += 1;
                continue;
            }
            let Some(clone) = panics.catch(|| event.clone()) else { continue };
            // User code may have forked, and this may be the child.
            batch.check()?;
            match self.sender.try_send(clone) {
                Ok(()) => {
                    self.sizes.push_back(bytes);
                    self.bytes = self.bytes.saturating_add(bytes);
                }
                Err(TrySendError::Full(_)) => rejected += 1,
                Err(TrySendError::Disconnected(_)) => self.is_over.store(1, Ordering::Relaxed),
            }
        }
        batch.check()?;
        if rejected > 0 && (batch.is_redriven() || !self.account.is_open()) {
            // Dead letters have their fate already, and a wrapper counts events by what is returned.
            let full = SinkError::unavailable("the channel is full").with_failed_events(rejected);
            return panics.join(Err(full), batch.len());
        }
        if rejected > 0 {
            self.account.keep(rejected);
            self.account.complete(Fate::Rejected, rejected);
        }
        panics.join(Ok(()), batch.len())
    }

    fn hook(&mut self, hook: Hook<'_>) {
        match hook {
            Hook::Open(account) => {
                account.tally().show_tap();
                self.account = account.clone();
            }
            Hook::IsOver(is_over) => *is_over = self.is_over(),
            _ => {}
        }
    }
}

impl<E> Drop for ChannelSink<E> {
    fn drop(&mut self) {
        if self.home.is_left() {
            // The end of the channel is never dropped in a child: its receivers may have been at work.
            std::mem::forget(self.sender.clone());
        }
    }
}

impl<E> fmt::Debug for ChannelSink<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelSink").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The receiving end of a [`ChannelSink`]: a [`crossbeam_channel::Receiver`], by `Deref`, for `recv`, `iter` and
/// `select!`. A clone receives from the same channel.
///
/// * The channel ends with the sink, that is with the collector: what is in it can be received, then it is disconnected.
/// * In a forked child, it is disconnected and empty. The channel is the parent's, and the child touches nothing of it. (A clone of
///   the inner receiver knows no forks: use this one.)
/// * Do not wait in it on the worker's thread, that is in a sink of the same collector. The worker would wait for itself. Nothing
///   refuses that, unlike in a [`Subscription`](crate::subscription::Subscription): once the channel is empty, `recv` and
///   [`iter`](Self::iter) wait for ever, `flush` and `stop` end by their deadlines, and no sink gets anything more. `try_recv` and
///   [`try_iter`](Self::try_iter) do not wait.
pub struct EventReceiver<E = Record>(Arc<End<E>>);

/// A panic of the caller cannot leave it half-changed.
impl<E> UnwindSafe for EventReceiver<E> {}
impl<E> RefUnwindSafe for EventReceiver<E> {}

struct End<E> {
    receiver: Receiver<E>,
    /// Closed channel that a forked child sees.
    closed: Receiver<E>,
    home: Home,
    is_over: Arc<PlainU64>,
    /// Takes the sink out of its collector.
    leave: Option<Box<dyn Fn() + Send + Sync>>,
}

impl<E> EventReceiver<E> {
    /// Calls `leave` once the last receiver is gone. For a receiver that was just made: one with a clone stays as it is.
    pub(crate) fn on_leave(mut self, leave: impl Fn() + Send + Sync + 'static) -> Self {
        if let Some(end) = Arc::get_mut(&mut self.0) {
            end.leave = Some(Box::new(leave));
        }
        self
    }

    /// Iterates over the events, waits for each, and ends with the channel. A forked child that goes on with it finds the end.
    pub fn iter(&self) -> EventReceiverIter<'_, E> {
        EventReceiverIter(self)
    }

    /// Iterates over the events that are in the channel, and waits for none. A forked child that goes on with it finds the end.
    pub fn try_iter(&self) -> impl Iterator<Item = E> + '_ {
        std::iter::from_fn(|| self.try_recv().ok())
    }
}

/// Iterator over the events of an [`EventReceiver`].
#[derive(Debug)]
pub struct EventReceiverIter<'a, E = Record>(&'a EventReceiver<E>);

impl<E> Iterator for EventReceiverIter<'_, E> {
    type Item = E;

    fn next(&mut self) -> Option<E> {
        // Asked every time which channel this process has: a loop may have begun before the fork.
        self.0.recv().ok()
    }
}

impl<E> Deref for EventReceiver<E> {
    type Target = Receiver<E>;

    fn deref(&self) -> &Receiver<E> {
        if self.0.home.is_left() { &self.0.closed } else { &self.0.receiver }
    }
}

impl<E> Clone for EventReceiver<E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<E> Drop for EventReceiver<E> {
    fn drop(&mut self) {
        if self.0.home.is_left() {
            // The end of the channel is never dropped in a child: its sender may have been at work.
            std::mem::forget(Arc::clone(&self.0));
        }
    }
}

impl<E> Drop for End<E> {
    fn drop(&mut self) {
        self.is_over.store(1, Ordering::Relaxed);
        self.leave.take().into_iter().for_each(|leave| leave());
    }
}

impl<'a, E> IntoIterator for &'a EventReceiver<E> {
    type Item = E;
    type IntoIter = EventReceiverIter<'a, E>;

    fn into_iter(self) -> EventReceiverIter<'a, E> {
        self.iter()
    }
}

impl<E> fmt::Debug for EventReceiver<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventReceiver").field("len", &self.len()).finish_non_exhaustive()
    }
}
