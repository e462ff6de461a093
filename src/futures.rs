//! Adapter to async code: named futures that any executor can poll.
//!
//! There is no runtime here, no thread and no timer. A future that waits stores its waker where the worker finds it,
//! and removes it when it is dropped.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use futures_core::Stream;
use futures_sink::Sink;

use crate::collector::lifecycle::{RunEnd, Stopping};
use crate::collector::{Collector, FlushError, StopError};
use crate::dispatch::LateFlush;
use crate::event::{Event, Priority, Record};
use crate::lanes::{Way, owned_bytes};
use crate::mailbox::{Flush, Flushed};
use crate::outcome::{CollectError, Outcome, Refusal};
use crate::reply::Reply;
use crate::settings::Policy;
use crate::stats::{FlushReport, StopReport};
use crate::subscription::Subscription;
use crate::sync::Arc;
use crate::wake::State;

impl<E: Event> Collector<E> {
    /// Collects an event. Where [`collect`](Self::collect) would wait for space, the future waits and leaves its
    /// executor free.
    ///
    /// It waits until there is space or the collector stops. Timeouts of the settings do not apply, because there is
    /// no timer: drop the future to give up. It does nothing before it is polled. If it is dropped before it is
    /// ready, its event counts as never offered.
    ///
    /// ```
    /// use forebay::{Collector, Record, sink::MemorySink};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let memory = MemorySink::new();
    /// let collector = Collector::builder().sink(memory.clone()).start()?;
    /// futures::executor::block_on(async {
    ///     collector.collect_async(Record::scalar("train.loss", 0.5)).await;
    ///     collector.flush_async().await
    /// })?;
    /// assert_eq!(memory.len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn collect_async(&self, event: impl Into<E>) -> CollectAsync<E> {
        let event = event.into();
        let priority = event.priority();
        CollectAsync { collector: self.clone(), priority, state: Collecting::New(event), ticket: None }
    }

    /// Flushes like [`flush`](Self::flush), without a deadline: drop the future to give up.
    ///
    /// It does nothing before it is polled, and covers every event whose `collect` returned before that.
    pub fn flush_async(&self) -> FlushAsync<E> {
        FlushAsync { collector: self.clone(), state: Flushing::NotAsked }
    }

    /// Stops like [`stop`](Self::stop), without a deadline: the future waits, and leaves its executor free.
    ///
    /// It does nothing before it is polled. The first poll refuses new events; the worker delivers those that are queued,
    /// flushes the sinks and ends, and the future is ready. A collector that was never started has no worker: there, the
    /// first poll flushes its sinks.
    ///
    /// [`Config::stop_timeout`](crate::Config::stop_timeout) does not apply, because there is no timer: use that of your
    /// executor, then ask for the report by [`stop_timeout`](Self::stop_timeout) with a timeout of zero. The time limit of
    /// an [isolated](crate::sink::Isolated::flush_timeout) sink is checked when the future is polled.
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped before its first poll stops nothing. Dropped later, it no longer waits, and the stop goes
    /// on: the collector stays closed. A later `stop` or `stop_async` reports the same end.
    ///
    /// # Errors
    ///
    /// As for [`stop`](Self::stop): a sink with a thread of its own did not end in its time, the worker is gone, this is a
    /// forked child, or the future is polled on the worker thread.
    ///
    /// # Examples
    ///
    /// ```
    /// use forebay::{Collector, Record, sink::MemorySink};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let memory = MemorySink::new();
    /// let collector = Collector::builder().sink(memory.clone()).start()?;
    /// collector.collect(Record::scalar("train.loss", 0.5));
    /// let report = futures::executor::block_on(collector.stop_async())?;
    /// assert_eq!((report.stats.processed, report.left_behind, memory.len()), (1, 0, 1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn stop_async(&self) -> StopAsync<E> {
        StopAsync { collector: self.clone(), state: StopState::NotBegun }
    }

    /// Returns a [`futures::Sink`](Sink) into this collector. Under [`Overflow::Block`](crate::Overflow::Block) it
    /// holds one event that found no space, and is ready again when that is queued. Dropping the sink drops that
    /// event. `flush` flushes the collector, and so does `close`, which does not stop it.
    pub fn as_sink(&self) -> CollectSink<E> {
        CollectSink { collector: self.clone(), collecting: None, flushing: None }
    }
}

/// Future of [`Collector::collect_async`]. It is cancel-safe: dropping it disturbs nobody else.
#[derive(Debug)]
#[must_use = "a future does nothing until it is polled"]
pub struct CollectAsync<E: Event = Record> {
    collector: Collector<E>,
    priority: Priority,
    state: Collecting<E>,
    /// The key of our waker in the collector's `SpaceWaiters`, while we wait.
    ticket: Option<u64>,
}

#[derive(Debug)]
enum Collecting<E> {
    /// The gate has not been asked yet.
    New(E),
    Holding(E),
    Done(Outcome),
}

/// The event is moved, never pinned.
impl<E: Event> Unpin for CollectAsync<E> {}

impl<E: Event> Future for CollectAsync<E> {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let this = self.get_mut();
        // The outcome here takes the place of the event while that is moved; nobody sees it. A future that is polled
        // again after its end returns its outcome again.
        let event = match std::mem::replace(&mut this.state, Collecting::Done(Outcome::Full)) {
            Collecting::New(event) => match this.collector.shared.settings.gate() {
                None => event,
                Some(gate) => match this.collector.admit(gate, event) {
                    Ok(event) => event,
                    Err(refused) => {
                        let outcome = refused.reason.into();
                        this.state = Collecting::Done(outcome);
                        return Poll::Ready(outcome);
                    }
                },
            },
            Collecting::Holding(event) => event,
            Collecting::Done(outcome) => {
                this.state = Collecting::Done(outcome);
                return Poll::Ready(outcome);
            }
        };
        let refused = |event, reason, policy, _| Err((CollectError { event, reason }, policy));
        let outcome =
            match this.collector.shared.offer(this.priority, event, |outcome, _| Ok(outcome), refused) {
                Ok(Outcome::Queued) if this.ticket.is_some() => Outcome::QueuedAfterWait,
                Ok(outcome) => outcome,
                Err((refused, before)) => {
                    if refused.reason == Refusal::Full && this.may_stay(before) {
                        ready!(this.wait(refused.event, cx))
                    } else {
                        this.refuse(refused)
                    }
                }
            };
        this.withdraw();
        this.state = Collecting::Done(outcome);
        Poll::Ready(outcome)
    }
}

impl<E: Event> CollectAsync<E> {
    /// Returns whether to wait at a full lane: the policy waits, or it evicts by now and could not before. Never on
    /// the worker thread, which alone makes space.
    fn may_stay(&self, before: Policy) -> bool {
        let (policy, priority) = (self.collector.shared.settings.policy(), self.priority);
        let evicts_by_now = policy.evicts(priority) && !before.evicts(priority);
        (policy.waits(priority) || evicts_by_now) && !self.collector.shared.is_worker()
    }

    /// Tries again under the lock of the waiters, and registers the waker if that fails.
    fn wait(&mut self, event: E, cx: &Context<'_>) -> Poll<Outcome> {
        let shared = &self.collector.shared;
        // User code, so it must not run under the lock.
        let (waker, bytes) = (cx.waker().clone(), owned_bytes(&event));
        let word = shared.phase.load();
        if !word.admits() {
            // The user code may have forked. Then this lock is the parent's.
            return Poll::Ready(self.refuse(CollectError { event, reason: Refusal::of(word) }));
        }
        let mut waiting = shared.space_waiters.lock();
        let policy = shared.settings.policy();
        match shared.retry_push(Way::OfThread, policy, self.priority, event, bytes) {
            Ok(evicted) => {
                drop(waiting);
                Poll::Ready(shared.after_waiter_push(Way::OfThread, self.priority, evicted).0)
            }
            // Asked again under the lock: a thread that changes the settings takes the lock afterwards, and finds the
            // waker.
            Err(refused) if refused.reason == Refusal::Full && self.may_stay(policy) => {
                if self.ticket.is_none() {
                    shared.tally.waits.add(1);
                }
                let left = waiting.register(&mut self.ticket, waker);
                drop(waiting);
                drop(left);
                // The drop is user code as well.
                if self.collector.state() == State::Forked {
                    let reason = Refusal::Forked;
                    return Poll::Ready(self.refuse(CollectError { event: refused.event, reason }));
                }
                self.state = Collecting::Holding(refused.event);
                Poll::Pending
            }
            Err(refused) => {
                drop(waiting);
                Poll::Ready(self.refuse(refused))
            }
        }
    }

    /// Counts an event that is rejected.
    fn refuse(&self, refused: CollectError<E>) -> Outcome {
        self.collector.shared.count_refusal(refused.reason);
        refused.reason.into()
    }

    /// Removes our waker.
    fn withdraw(&mut self) {
        // A forked child must not take the lock, because its holder may not exist here.
        if self.ticket.is_some() && self.collector.state() != State::Forked {
            let left = self.collector.shared.space_waiters.lock().deregister(&mut self.ticket);
            drop(left);
        }
    }
}

impl<E: Event> Drop for CollectAsync<E> {
    fn drop(&mut self) {
        self.withdraw();
    }
}

/// Future of [`Collector::flush_async`]. It is cancel-safe: dropping it withdraws the request.
#[must_use = "a future does nothing until it is polled"]
pub struct FlushAsync<E: Event = Record> {
    collector: Collector<E>,
    state: Flushing,
}

enum Flushing {
    NotAsked,
    Waiting(Flush),
    /// The worker has done its part. The threads of these isolated sinks have not; the last one is polled first.
    Late(Flushed),
    Done(Result<FlushReport, FlushError>),
}

impl<E: Event> Future for FlushAsync<E> {
    type Output = Result<FlushReport, FlushError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if matches!(this.state, Flushing::NotAsked) {
            this.state = match this.collector.shared.request_flush(Reply::new()) {
                Ok(reply) => Flushing::Waiting(reply),
                Err(error) => Flushing::Done(Err(error)),
            };
        }
        if this.collector.state() == State::Forked && !matches!(this.state, Flushing::Done(_)) {
            this.state = Flushing::Done(Err(FlushError::Forked));
        }
        if let Flushing::Waiting(reply) = &this.state {
            let answer = reply.poll(cx.waker());
            // The waker may have forked when it was cloned or dropped, and this may be the child.
            this.state = match answer {
                _ if this.collector.state() == State::Forked => Flushing::Done(Err(FlushError::Forked)),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(flushed)) => Flushing::Late(flushed),
                Poll::Ready(None) => Flushing::Done(Err(FlushError::WorkerGone)),
            };
        }
        if let Flushing::Late(flushed) = &mut this.state {
            while let Some(late) = flushed.late.last() {
                let answer = late.pending.reply.poll(cx.waker());
                // As above.
                if this.collector.state() == State::Forked {
                    this.state = Flushing::Done(Err(FlushError::Forked));
                    return Poll::Ready(Err(FlushError::Forked));
                }
                let is_done = ready!(answer).unwrap_or_default();
                if let Some(late) = flushed.late.pop() {
                    flushed.done.push((late, is_done));
                }
            }
            for (late, is_done) in std::mem::take(&mut flushed.done) {
                flushed.add_late(&late, is_done);
            }
            this.state = Flushing::Done(Ok(std::mem::take(&mut flushed.report)));
        }
        match &this.state {
            Flushing::Done(result) => Poll::Ready(result.clone()),
            Flushing::NotAsked | Flushing::Waiting(_) | Flushing::Late(_) => Poll::Pending,
        }
    }
}

impl<E: Event> Drop for FlushAsync<E> {
    fn drop(&mut self) {
        // A forked child must not take the lock, because its holder may not exist here.
        if self.collector.state() == State::Forked {
            return;
        }
        match &self.state {
            Flushing::Waiting(reply) => {
                reply.give_up();
                self.collector.shared.withdraw_flush(reply);
            }
            Flushing::Late(flushed) => flushed.rollback(),
            Flushing::NotAsked | Flushing::Done(_) => {}
        }
    }
}

impl<E: Event> std::fmt::Debug for FlushAsync<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlushAsync").field("collector", &self.collector).finish_non_exhaustive()
    }
}

/// The future of [`Collector::stop_async`]. Dropping it after its first poll leaves the stop to go on.
#[must_use = "a future does nothing until it is polled"]
pub struct StopAsync<E: Event = Record> {
    collector: Collector<E>,
    state: StopState,
}

enum StopState {
    NotBegun,
    /// The worker has not ended, as far as we know. Its end is reported here.
    Ending(Stopping, Option<(Arc<Reply<()>>, Option<u64>)>),
    /// The worker has ended. Of the flushes by other threads, those before `next` have as well.
    Late {
        stopping: Stopping,
        late: Vec<Arc<LateFlush>>,
        next: usize,
        hung: Option<usize>,
        ticket: Option<u64>,
    },
    /// Result of the stop, in a box: a report is much larger than the other states.
    Done(Box<Result<StopReport, StopError>>),
}

impl<E: Event> Future for StopAsync<E> {
    type Output = Result<StopReport, StopError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let shared = &this.collector.shared;
        'stop: loop {
            // In a forked child, no lock may be touched.
            if this.collector.state() == State::Forked && !matches!(this.state, StopState::Done(_)) {
                this.state = StopState::Done(Box::new(Err(StopError::Forked)));
            }
            match &mut this.state {
                StopState::NotBegun => {
                    this.state = match shared.begin_stop() {
                        Ok(stopping) => StopState::Ending(stopping, None),
                        Err(error) => StopState::Done(Box::new(Err(error))),
                    };
                }
                StopState::Ending(stopping, waiting) => {
                    if let Some((end, ticket)) = waiting {
                        ready!(end.poll_shared(ticket, cx.waker()));
                        // The waker may have forked when it was cloned or dropped, and this may be the child.
                        if this.collector.state() == State::Forked {
                            continue 'stop;
                        }
                    }
                    match shared.next_of_stop(stopping) {
                        Ok(RunEnd::Ahead(end)) => *waiting = Some((end, None)),
                        Ok(RunEnd::Reached(late)) => {
                            let stopping = *stopping;
                            this.state =
                                StopState::Late { stopping, late, next: 0, hung: None, ticket: None };
                        }
                        Err(error) => this.state = StopState::Done(Box::new(Err(error))),
                    }
                }
                StopState::Late { stopping, late, next, hung, ticket } => {
                    while let Some(flush) = late.get(*next) {
                        let is_done = ready!(flush.poll(ticket, cx.waker()));
                        // As above.
                        if this.collector.state() == State::Forked {
                            continue 'stop;
                        }
                        if !is_done {
                            hung.get_or_insert(*next);
                        }
                        flush.pending.reply.withdraw(ticket);
                        *next += 1;
                    }
                    let hung = hung.and_then(|index| late.get(index));
                    let result = shared.finish_stop(stopping, hung.map(|late| &**late));
                    this.state = StopState::Done(Box::new(result));
                }
                StopState::Done(result) => return Poll::Ready(Result::clone(result)),
            }
        }
    }
}

impl<E: Event> Drop for StopAsync<E> {
    fn drop(&mut self) {
        // A forked child must not take the lock, because its holder may not exist here.
        if self.collector.state() == State::Forked {
            return;
        }
        match &mut self.state {
            StopState::Ending(_, Some((end, ticket))) => end.withdraw(ticket),
            StopState::Late { late, next, ticket, .. } => {
                if let Some(flush) = late.get(*next) {
                    flush.pending.reply.withdraw(ticket);
                }
            }
            StopState::NotBegun | StopState::Ending(_, None) | StopState::Done(_) => {}
        }
    }
}

impl<E: Event> std::fmt::Debug for StopAsync<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StopAsync").field("collector", &self.collector).finish_non_exhaustive()
    }
}

/// Events of the subscription. Evicted events are skipped: see [`evicted`](Subscription::evicted).
impl<E: Event + Clone> Stream for Subscription<E> {
    type Item = E;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<E>> {
        self.poll_next_event(cx.waker())
    }
}

/// `futures::Sink` into a collector, made by [`Collector::as_sink`].
#[derive(Debug)]
pub struct CollectSink<E: Event = Record> {
    collector: Collector<E>,
    /// An event that found no space yet. Dropping the sink drops it.
    collecting: Option<CollectAsync<E>>,
    flushing: Option<FlushAsync<E>>,
}

/// Error of a [`CollectSink`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CollectSinkError {
    /// The collector accepts no more events. An event that a full lane rejects under
    /// [`Overflow::DropNewest`](crate::Overflow::DropNewest) is no error here; it is counted.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The flush failed.
    #[error(transparent)]
    Flush(#[from] FlushError),
}

impl<E: Event> CollectSink<E> {
    /// Polls the event that found no space yet.
    fn poll_collecting(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CollectSinkError>> {
        if let Some(collecting) = &mut self.collecting {
            let outcome = ready!(Pin::new(collecting).poll(cx));
            self.collecting = None;
            let refusal = match outcome {
                Outcome::Stopped => Refusal::Stopped,
                Outcome::WorkerGone => Refusal::WorkerGone,
                Outcome::Forked => Refusal::Forked,
                _ => return Poll::Ready(Ok(())),
            };
            return Poll::Ready(Err(refusal.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl<E: Event> Sink<E> for CollectSink<E> {
    type Error = CollectSinkError;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.get_mut().poll_collecting(cx)
    }

    fn start_send(self: Pin<&mut Self>, event: E) -> Result<(), Self::Error> {
        let this = self.get_mut();
        // A flush that was begun and not awaited does not cover this event. Its end must not be taken for one that
        // does.
        this.flushing = None;
        this.collecting = Some(this.collector.collect_async(event));
        // Polled at once, so that an event for which there is space does not depend on another poll. Otherwise this
        // registers a waker that wakes nobody, and the next `poll_ready` replaces it.
        match this.poll_collecting(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let this = self.get_mut();
        ready!(this.poll_collecting(cx))?;
        let flushing = this.flushing.get_or_insert_with(|| this.collector.flush_async());
        let result = ready!(Pin::new(flushing).poll(cx));
        this.flushing = None;
        // The statistics say what sinks did with the events.
        Poll::Ready(result.map(drop).map_err(Into::into))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.poll_flush(cx)
    }
}

#[cfg(test)]
mod tests;
