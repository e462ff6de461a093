//! Ends of calls: the event is handled, retried, or a dead letter. Ends of subscriptions, with all that waits for them.

use std::time::Instant;

use forebay::parts::shortened;
use forebay_sync::sync::Arc;

use super::dead_letters::letter_of;
use super::delivery::Delivery;
use super::engine::Engine;
use super::id::SubscriptionId;
use super::mailbox::{CloseReason, Closed, End, Ended, StartedCall};
use super::periodic_tasks::later;
use super::subscriber::Subscriber;
use super::user_code::drop_quietly;

/// Failure of a call.
pub(super) struct Failure {
    /// The text of the error or the panic.
    pub(super) text: String,
    pub(super) is_transient: bool,
    pub(super) is_panic: bool,
}

/// The error of an event that finds no space behind a retry.
pub(super) const TOO_MANY_BEHIND: &str = "too many events wait behind a retry";

impl Engine {
    /// Completes a call, which ran between the two times.
    pub(super) fn complete(
        &self,
        subscriber: &Arc<Subscriber>,
        started: StartedCall,
        result: Result<(), Failure>,
        (since, now): (Instant, Instant),
    ) {
        let StartedCall { mut delivery, number, call } = started;
        drop_quietly(call);
        let since = delivery.begun.unwrap_or(since);
        let delay = match &result {
            Err(failure) if failure.is_transient && delivery.redriven.is_none() => {
                subscriber.retry.next_delay_after(delivery.attempt, now.saturating_duration_since(since))
            }
            _ => None,
        };
        let is_first = delivery.attempt == 0 && delivery.redriven.is_none();
        let ticket = delivery.envelope().mark.ticket.clone().filter(|_| is_first);
        // Dropped last: whoever waits for these batches finds everything else done.
        let mut remains = Vec::new();
        let mut mailbox = subscriber.mailbox.lock();
        let delay = delay.filter(|_| mailbox.may_retry() && !self.retries.is_closed());
        let end = match &result {
            Ok(()) => End::Handled,
            Err(_) if delay.is_some() => End::Retry,
            Err(_) => mailbox.end_of_failed(),
        };
        if let Err(failure) = &result {
            mailbox.stats.panics += u64::from(failure.is_panic);
            mailbox.stats.last_error = Some(shortened(failure.text.clone()));
        }
        if let Err(failure) = &result
            && end == End::DeadLettered
        {
            // Before the call ends: a stop that waits for that, and reads the count, finds the letter.
            drop(mailbox);
            self.dead_letter(subscriber, &delivery, &failure.text);
            mailbox = subscriber.mailbox.lock();
        }
        if delay.is_some() {
            (delivery.attempt, delivery.begun) = (delivery.attempt + 1, Some(since));
            delivery.detach(&mut remains);
        }
        let Ended { was_overdue, overflow, remains: behind } =
            mailbox.end(number, &delivery, end, now, subscriber.deadline);
        self.notify_waiters(subscriber, &mut mailbox);
        if was_overdue {
            // Under the lock: whoever sees that nothing is on its way finds the worker back.
            self.pool.set_unstuck();
        }
        drop(mailbox);
        if was_overdue {
            self.schedule(subscriber);
        }
        if let Some(ticket) = ticket {
            ticket.change(|progress| match result {
                Ok(()) => progress.handled += 1,
                Err(_) => progress.failed += 1,
            });
        }
        self.fail_all(subscriber, overflow, TOO_MANY_BEHIND);
        match delay {
            Some(delay) => self.wait_for_retry(subscriber, delivery, later(now, delay)),
            None => drop_quietly(delivery),
        }
        drop_quietly((remains, behind));
    }

    /// Ends a call that did not begin, because the handler was unsubscribed after the event was taken out for it. The event ends
    /// like those that waited at that time.
    pub(super) fn withdraw(&self, subscriber: &Subscriber, started: StartedCall) {
        let StartedCall { mut delivery, number, call } = started;
        let end = subscriber.mailbox.lock().uncalled_end(&delivery);
        let is_redriven = delivery.redriven.is_some();
        // As in `complete`.
        self.keep_uncalled(subscriber, &mut delivery, end);
        let mut mailbox = subscriber.mailbox.lock();
        let ended = mailbox.end(number, &delivery, end, self.clock.now(), subscriber.deadline);
        if ended.was_overdue {
            self.pool.set_unstuck();
        }
        drop(mailbox);
        subscriber.changed.notify_all();
        drop_uncalled(delivery, is_redriven);
        drop_quietly(call);
    }

    /// Lets an event wait for its retry.
    fn wait_for_retry(&self, subscriber: &Arc<Subscriber>, delivery: Delivery, due: Instant) {
        if let Some(delivery) = self.retries.add(due, subscriber, delivery) {
            self.give_up(subscriber, delivery);
        }
        // A thread that unsubscribed the handler meanwhile may have looked before the event was there.
        if subscriber.mailbox.lock().is_over() {
            self.give_up_all(subscriber);
        }
    }

    /// Fails events that were rejected: they become dead letters, unless the handler discards them, and are counted.
    pub(super) fn fail_all(&self, subscriber: &Subscriber, rejected: Vec<Delivery>, text: &str) {
        let end = if subscriber.is_discarding { End::Failed } else { End::DeadLettered };
        for mut delivery in rejected {
            let is_redriven = delivery.redriven.is_some();
            if is_redriven {
                self.put_back(subscriber, &mut delivery);
            } else if end == End::DeadLettered {
                self.dead_letter(subscriber, &delivery, text);
            }
            self.count_uncalled(subscriber, end, is_redriven);
            if !is_redriven {
                delivery.report(|progress| progress.failed += 1);
            }
            drop_quietly(delivery);
        }
    }

    /// Ends an event whose retry will not be made, because the bus stops or its handler was unsubscribed.
    pub(super) fn give_up(&self, subscriber: &Arc<Subscriber>, mut delivery: Delivery) {
        // The next call was not made.
        delivery.attempt -= 1;
        let mut mailbox = subscriber.mailbox.lock();
        let end = if self.retries.is_closed() { mailbox.end_of_failed() } else { End::Cancelled };
        if end == End::DeadLettered {
            let text = mailbox.stats.last_error.clone().unwrap_or_default();
            // As in `complete`.
            drop(mailbox);
            self.dead_letter(subscriber, &delivery, &text);
            mailbox = subscriber.mailbox.lock();
        }
        mailbox.give_up(&delivery, end);
        self.notify_waiters(subscriber, &mut mailbox);
        drop(mailbox);
        self.schedule(subscriber);
        drop_quietly(delivery);
    }

    /// Gives up all retries of a handler.
    fn give_up_all(&self, subscriber: &Arc<Subscriber>) {
        let waiting = self.retries.take_of(subscriber.id);
        waiting.into_iter().for_each(|(subscriber, delivery)| self.give_up(&subscriber, delivery));
    }

    /// Makes no retry any more: gives up those that wait, and lets what is parked behind them go on.
    pub(super) fn end_retries(&self) {
        for (subscriber, delivery) in self.retries.close() {
            self.give_up(&subscriber, delivery);
            drop_quietly(subscriber);
        }
    }

    /// Ends the contents of a mailbox that is closed. No call for them begins any more. The first that is counted releases all who wait
    /// for space: where there was none, something is in there.
    fn end_closed(&self, subscriber: &Subscriber, (call, out): Closed) {
        for (mut delivery, end) in out {
            let is_redriven = delivery.redriven.is_some();
            self.keep_uncalled(subscriber, &mut delivery, end);
            self.count_uncalled(subscriber, end, is_redriven);
            drop_uncalled(delivery, is_redriven);
        }
        drop_quietly(call);
    }

    /// Keeps the letter of an event that ends because its handler is not called any more, if that is its end.
    fn keep_uncalled(&self, subscriber: &Subscriber, delivery: &mut Delivery, end: End) {
        if delivery.redriven.is_some() {
            self.put_back(subscriber, delivery);
        } else if end == End::DeadLettered {
            let mut letter =
                letter_of(subscriber, delivery, format!("{}: the bus has stopped", subscriber.name));
            letter.attempts -= 1;
            self.dead_letters.keep(subscriber.id, vec![letter]);
        }
    }

    /// Unsubscribes a handler. Returns `None` if there is no handler of that number.
    pub(super) fn unsubscribe(&self, id: SubscriptionId) -> Option<Arc<Subscriber>> {
        let (subscriber, closed) = self.subscribers.remove(id.0)?;
        self.dead_letters.remove_taker(id.0);
        self.end_closed(&subscriber, closed);
        self.give_up_all(&subscriber);
        // Here as well, so that former handlers do not pile up where nobody asks for statistics.
        drop_quietly(self.subscribers.fold_former());
        Some(subscriber)
    }

    /// Waits until no call runs of a handler that was unsubscribed. Returns `false` when the deadline came first.
    pub(super) fn await_idle(&self, subscriber: &Subscriber, deadline: Option<Instant>) -> bool {
        let mut mailbox = subscriber.mailbox.lock();
        while mailbox.load().0 > 0 {
            mailbox.has_waiters = true;
            if subscriber.changed.wait_until(&mut mailbox, deadline) {
                return mailbox.load().0 == 0;
            }
        }
        true
    }

    /// Waits until nothing is on its way to any handler. Returns `false` when the deadline came first.
    pub(super) fn await_quiet(&self, deadline: Option<Instant>) -> bool {
        self.subscribers.everybody().into_iter().all(|subscriber| {
            let mut mailbox = subscriber.mailbox.lock();
            while !mailbox.is_quiet() {
                mailbox.has_waiters = true;
                if subscriber.changed.wait_until(&mut mailbox, deadline) {
                    return mailbox.is_quiet();
                }
            }
            true
        })
    }

    /// Closes the bus: what waits for a retry or behind one becomes a dead letter, what else waits is cancelled, and all threads
    /// end after their calls.
    pub(super) fn close(&self) {
        self.refuse();
        self.subscribers.close();
        self.pool.close();
        self.end_retries();
        for subscriber in &self.table().subscribers {
            let closed = subscriber.close(CloseReason::Stopped);
            self.end_closed(subscriber, closed);
        }
        // The scheduler ends as well.
        self.retries.wake_scheduler();
    }
}

/// Reports an event that ended because its handler is not called any more, and drops it.
fn drop_uncalled(delivery: Delivery, is_redriven: bool) {
    // An event for which the handler was called before is reported already.
    if delivery.attempt == 0 && !is_redriven {
        delivery.report(|progress| progress.cancelled += 1);
    }
    drop_quietly(delivery);
}

#[cfg(test)]
mod tests;
