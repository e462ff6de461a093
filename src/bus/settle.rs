//! What becomes of a call: handled, made again, a dead letter.

use std::time::{Instant, SystemTime};

use super::chores::later;
use super::context::Inside;
use super::engine::Engine;
use super::handler::{Call, Delivery, HandlerError, Past};
use super::mailbox::{Begun, End, Ended};
use super::table::Subscriber;
use crate::catalog::plugin;
use crate::escape::shortened;
use crate::event::{Progress, Record};
use crate::permit::Permit;
use crate::sink::DeadLetter;
use crate::sync::{Arc, guarded};

/// Why a call failed.
pub(super) struct Failure {
    said: String,
    is_transient: bool,
    is_panic: bool,
}

/// What is said of an event that finds no room behind a retry.
pub(super) const TOO_MANY_BEHIND: &str = "too many events wait behind a retry";

/// Calls a handler, unless it was unsubscribed since the event was taken out for it: then `None`.
pub(super) fn call(
    permit: &Permit,
    function: &Arc<Call>,
    delivery: &Delivery,
) -> Option<Result<(), Failure>> {
    let extra = delivery.extra();
    let _inside = Inside::enter(delivery.depth(), extra.and_then(|extra| extra.correlation_id.as_deref()));
    // Nothing may come between the question and the call.
    match guarded(|| permit.begin().then(|| function(delivery))) {
        Ok(None) => None,
        Ok(Some(Ok(()))) => Some(Ok(())),
        Ok(Some(Err(HandlerError { message, is_transient }))) => {
            Some(Err(Failure { said: message, is_transient, is_panic: false }))
        }
        Err(said) => {
            Some(Err(Failure { said: format!("panicked: {said}"), is_transient: true, is_panic: true }))
        }
    }
}

/// Ends what may hold foreign code.
pub(super) fn end<T>(it: T) {
    // What a destructor says when it panics is nobody's to hear.
    let _ = guarded(|| drop(it));
}

/// A function of the user, whose end is foreign code as well, wherever that is.
pub(super) struct Careful<F>(Option<F>);

impl<F> Careful<F> {
    pub(super) fn new(function: F) -> Self {
        Self(Some(function))
    }

    /// `None` only while it ends.
    pub(super) fn get(&self) -> Option<&F> {
        self.0.as_ref()
    }
}

impl<F> Drop for Careful<F> {
    fn drop(&mut self) {
        end(self.0.take());
    }
}

pub(super) fn letter_of(delivery: &Delivery, error: String) -> DeadLetter<Record> {
    let event = (**delivery).clone();
    // One that was a letter before has been here since then.
    let time = delivery.redriven.as_ref().map_or_else(SystemTime::now, |past| past.time);
    DeadLetter { event, attempts: delivery.attempt(), error, time }
}

/// Tells who waits for the handlers of this event.
pub(super) fn note(delivery: &Delivery, change: impl FnOnce(&mut Progress)) {
    if let Some(ticket) = delivery.mark().and_then(|mark| mark.ticket.as_ref()) {
        ticket.change(change);
    }
}

impl Engine {
    /// Sees to what a call came to.
    pub(super) fn settle(
        &self,
        subscriber: &Arc<Subscriber>,
        begun: Begun,
        result: Result<(), Failure>,
        (since, now): (Instant, Instant),
    ) {
        let Begun { mut delivery, number, call } = begun;
        end(call);
        let since = delivery.begun.unwrap_or(since);
        let delay = match &result {
            Err(failure) if failure.is_transient && delivery.redriven.is_none() => {
                subscriber.retry.next_delay_after(delivery.attempt, now.saturating_duration_since(since))
            }
            _ => None,
        };
        let is_first = delivery.attempt == 0 && delivery.redriven.is_none();
        let ticket = delivery.mark().and_then(|mark| mark.ticket.clone()).filter(|_| is_first);
        // Ends behind all else: whoever waits for it finds all of this done.
        let mut remains = Vec::new();
        let mut mailbox = subscriber.mailbox.lock();
        let delay = delay.filter(|_| mailbox.may_retry() && !self.timers.is_closed());
        let end_as = match &result {
            Ok(()) => End::Handled,
            Err(_) if delay.is_some() => End::Again,
            Err(_) => mailbox.lost_as(),
        };
        if let Err(failure) = &result {
            mailbox.stats.panics += u64::from(failure.is_panic);
            mailbox.stats.last_error = Some(shortened(failure.said.clone()));
        }
        if delay.is_some() {
            (delivery.attempt, delivery.begun) = (delivery.attempt + 1, Some(since));
            delivery.set_aside(&mut remains);
        }
        let Ended { was_overdue, overflow, remains: behind } =
            mailbox.end(number, &delivery, end_as, now, subscriber.deadline);
        self.tell_waiters(subscriber, &mut mailbox);
        if was_overdue {
            // Under the lock: whoever sees that nothing is on its way finds the worker back.
            self.crew.come_back();
        }
        drop(mailbox);
        if was_overdue {
            self.line_up(subscriber);
        }
        if let Err(failure) = &result
            && end_as == End::DeadLettered
        {
            self.bury(subscriber, &delivery, &failure.said);
        }
        if let Some(ticket) = ticket {
            ticket.change(|progress| match result {
                Ok(()) => progress.handled += 1,
                Err(_) => progress.failed += 1,
            });
        }
        self.lose(subscriber, overflow, TOO_MANY_BEHIND);
        match delay {
            Some(delay) => self.call_again(subscriber, delivery, later(now, delay)),
            None => end(delivery),
        }
        end((remains, behind));
    }

    /// Ends an event that was taken out for a call, which the handler was unsubscribed before: like those that waited then.
    pub(super) fn withdraw(&self, subscriber: &Subscriber, begun: Begun) {
        let Begun { delivery, number, call } = begun;
        let mut mailbox = subscriber.mailbox.lock();
        let end_as = mailbox.uncalled_end(&delivery);
        let ended = mailbox.end(number, &delivery, end_as, self.clock.now(), subscriber.deadline);
        if ended.was_overdue {
            self.crew.come_back();
        }
        drop(mailbox);
        self.end_closed(subscriber, (Some(call), vec![(delivery, end_as)]));
    }

    /// Has an event wait for its retry.
    fn call_again(&self, subscriber: &Arc<Subscriber>, delivery: Delivery, due: Instant) {
        if let Some(delivery) = self.timers.add(due, subscriber, delivery) {
            self.give_up(subscriber, delivery);
        }
        // Whoever unsubscribed meanwhile may have looked before it was there.
        if subscriber.mailbox.lock().is_over() {
            self.give_up_all(subscriber);
        }
    }

    /// Sees to events that were not taken, and are counted.
    pub(super) fn lose(&self, subscriber: &Subscriber, lost: Vec<Delivery>, said: &str) {
        for delivery in lost {
            if delivery.redriven.is_some() {
                self.put_back(subscriber, delivery);
                continue;
            }
            note(&delivery, |progress| progress.failed += 1);
            if !subscriber.is_discarding {
                self.bury(subscriber, &delivery, said);
            }
            end(delivery);
        }
    }

    /// Keeps an event that a handler did not take.
    pub(super) fn bury(&self, subscriber: &Subscriber, delivery: &Delivery, said: &str) {
        let error = shortened(format!("{}: {said}", subscriber.name));
        self.letters.keep(subscriber.id, vec![letter_of(delivery, error)]);
        if subscriber.is_plugin && delivery.name() != plugin::Error::NAME {
            let (plugin_name, error) = (subscriber.name.to_string(), said.to_owned());
            self.say_at(plugin::Error { plugin_name, error }, delivery.depth().saturating_add(1));
        }
    }

    /// A retry will not be made, because the bus stops, or its handler was unsubscribed.
    pub(super) fn give_up(&self, subscriber: &Arc<Subscriber>, mut delivery: Delivery) {
        let mut mailbox = subscriber.mailbox.lock();
        let end_as = if self.timers.is_closed() { mailbox.lost_as() } else { End::Cancelled };
        mailbox.give_up(&delivery, end_as);
        let said = mailbox.stats.last_error.clone().unwrap_or_default();
        self.tell_waiters(subscriber, &mut mailbox);
        drop(mailbox);
        self.line_up(subscriber);
        // The next call was not made.
        delivery.attempt -= 1;
        if end_as == End::DeadLettered {
            self.bury(subscriber, &delivery, &said);
        }
        end(delivery);
    }

    /// The same for all of a handler.
    pub(super) fn give_up_all(&self, subscriber: &Arc<Subscriber>) {
        let waiting = self.timers.take_of(subscriber.id);
        waiting.into_iter().for_each(|(subscriber, delivery)| self.give_up(&subscriber, delivery));
    }

    /// Offers letters again that are due.
    pub(super) fn redrive(&self) {
        if !self.letters.has_due() {
            return;
        }
        let table = self.table();
        let is_ours = |owner| table.subscribers.iter().any(|subscriber| subscriber.id == owner);
        self.letters.leave_unknown(is_ours);
        for subscriber in &self.table().subscribers {
            loop {
                let letters = self.letters.take_due(subscriber.id);
                if letters.is_empty() {
                    break;
                }
                letters.into_iter().for_each(|letter| self.offer_again(subscriber, letter));
            }
            self.line_up(subscriber);
        }
    }

    fn offer_again(&self, subscriber: &Subscriber, letter: DeadLetter<Record>) {
        let DeadLetter { event, attempts, error, time } = letter;
        let flight = self.watched(self.blank.with_events(vec![event]));
        let redriven = Some(Box::new(Past { attempts, error, time }));
        let delivery = Delivery { redriven, ..Delivery::new(&flight, 0) };
        drop(flight);
        let mut remains = Vec::new();
        let refused = subscriber.mailbox.lock().put_letter(delivery, &mut remains);
        refused.into_iter().for_each(|delivery| self.put_back(subscriber, delivery));
        end(remains);
    }

    /// A letter was not called after all: it is what it was before.
    pub(super) fn put_back(&self, subscriber: &Subscriber, mut delivery: Delivery) {
        if let Some(past) = delivery.redriven.take() {
            let Past { attempts, error, time } = *past;
            let letter = DeadLetter { event: (*delivery).clone(), attempts, error, time };
            self.letters.keep(subscriber.id, vec![letter]);
        }
        end(delivery);
    }
}

#[cfg(test)]
mod tests;
