//! Calls of handlers, by workers or by the thread that emits.

use std::io;
use std::time::Instant;

use forebay::Event;
use forebay_sync::permit::Permit;
use forebay_sync::sync::{Arc, catch_panic};

use super::completion::Failure;
use super::context::{self, Inside};
use super::delivery::Delivery;
use super::engine::{BURST, Engine};
use super::handler::{Call, HandlerError};
use super::subscriber::Subscriber;
use super::user_code::drop_quietly;

/// Calls a handler. Returns `None` without a call if the handler was unsubscribed after the event was taken out for it.
pub(super) fn call(
    permit: &Permit,
    function: &Arc<Call>,
    delivery: &Delivery,
) -> Option<Result<(), Failure>> {
    let _inside = Inside::enter(delivery.depth(), delivery.correlation_id());
    // Nothing may come between the question and the call.
    match catch_panic(|| permit.begin().then(|| function(delivery))) {
        Ok(None) => None,
        Ok(Some(Ok(()))) => Some(Ok(())),
        Ok(Some(Err(HandlerError { message, is_transient }))) => {
            Some(Err(Failure { text: message, is_transient, is_panic: false }))
        }
        Err(panic) => {
            Some(Err(Failure { text: format!("panicked: {panic}"), is_transient: true, is_panic: true }))
        }
    }
}

/// Guard of a handler that is being served: its drop ends the turn.
pub(super) struct Service<'a> {
    engine: &'a Engine,
    subscriber: &'a Arc<Subscriber>,
    /// True if the turn is accounted for already.
    is_over: bool,
}

impl Drop for Service<'_> {
    /// Queues the handler again if more waits for it; also where the turn ends by a panic.
    fn drop(&mut self) {
        if !self.is_over {
            self.subscriber.mailbox.lock().turns -= 1;
            self.engine.schedule(self.subscriber);
        }
    }
}

impl Engine {
    pub(super) fn serving<'a>(&'a self, subscriber: &'a Arc<Subscriber>) -> Service<'a> {
        Service { engine: self, subscriber, is_over: false }
    }

    /// Serves a handler for one turn: calls it with the events that wait, up to a burst.
    pub(super) fn serve(&self, subscriber: &Arc<Subscriber>) {
        let mut service = self.serving(subscriber);
        let mut now = self.clock.now();
        for left in (0..BURST).rev() {
            let mut mailbox = subscriber.mailbox.lock();
            // Under the lock: with a number from before `scale_to`, the turn might end although that lets another call begin.
            let max_calls = self.max_calls(subscriber);
            let started = mailbox.start_call(max_calls, now);
            self.notify_waiters(subscriber, &mut mailbox);
            let Some(started) = started else {
                mailbox.turns -= 1;
                service.is_over = true;
                return;
            };
            drop(mailbox);
            let result = call(&subscriber.permit, &started.call, &started.delivery);
            if self.check().is_err() {
                // The handler has forked, and this is the child: the event is the parent's, and so are the locks.
                std::mem::forget((service, started, result));
                return;
            }
            let Some(result) = result else {
                self.withdraw(subscriber, started);
                return;
            };
            let since = std::mem::replace(&mut now, self.clock.now());
            self.tally.note_call(now.saturating_duration_since(since));
            self.complete(subscriber, started, result, (since, now));
            // An urgent handler does not wait for the burst of another.
            if left == 0 || self.pool.has_urgent() {
                break;
            }
        }
    }

    /// Starts the workers that are missing.
    pub(super) fn start_workers(self: &Arc<Self>) -> io::Result<()> {
        self.pool.fill(|number| {
            let engine = Arc::clone(self);
            move || engine.work(number)
        })
    }

    /// Runs a worker.
    fn work(&self, number: u64) {
        // Marked to its very end: a destructor here may drop the last handle of the bus, which cannot wait for this thread.
        let _caller = context::enter(self.address());
        self.pool.run(number, |subscriber| self.serve(subscriber));
    }

    /// Changes how many workers there should be, and starts those that are missing.
    pub(super) fn scale_to(self: &Arc<Self>, workers: usize) -> io::Result<()> {
        self.pool.set_target(workers);
        self.start_workers()?;
        // A handler may have use for more of them.
        self.table().subscribers.iter().for_each(|subscriber| self.schedule(subscriber));
        Ok(())
    }

    /// Makes the retries that are due, and runs the periodic tasks that are due. Returns when the next of these tasks is due.
    pub(super) fn run_due(&self, now: Instant) -> Option<Instant> {
        self.retry_due(now);
        self.periodic_tasks.run_due(now)
    }

    /// Makes the retries that are due.
    pub(super) fn retry_due(&self, now: Instant) {
        let due = self.retries.take_due(now);
        if !due.is_empty() {
            let in_flight = self.in_flight.add(self.blank.clone());
            // Each goes to the front of its lane.
            for (subscriber, delivery) in due.into_iter().rev() {
                let refused = subscriber.mailbox.lock().requeue(delivery, &in_flight);
                match refused {
                    Some(delivery) => self.give_up(&subscriber, delivery),
                    None => self.schedule(&subscriber),
                }
                // The last reference may drop a function of the user.
                drop_quietly(subscriber);
            }
        }
    }

    /// Runs what is due, and serves handlers on this thread until none waits or the deadline comes. Does nothing in a thread that
    /// is doing so already.
    pub(super) fn run_inline(&self, deadline: Option<Instant>) {
        if let Some(_caller) = context::enter(self.address()) {
            self.serve_all(deadline);
        }
    }

    /// Makes the calls of [`run_inline`](Self::run_inline), for a thread that is marked already.
    pub(super) fn serve_all(&self, deadline: Option<Instant>) {
        self.run_due(self.clock.now());
        while deadline.is_none_or(|deadline| Instant::now() < deadline)
            && let Some(subscriber) = self.pool.next()
        {
            self.serve(&subscriber);
            if self.check().is_err() {
                std::mem::forget(subscriber);
                return;
            }
            self.pool.served();
        }
    }
}
