//! What becomes of a call: handled, made again, a dead letter.

use std::time::{Instant, SystemTime};

use super::context::Inside;
use super::engine::Engine;
use super::handler::{Call, Delivery, Flight, HandlerError};
use super::mailbox::End;
use super::table::Subscriber;
use crate::catalog::plugin;
use crate::event::{Progress, Record};
use crate::sink::DeadLetter;
use crate::sync::{Arc, guarded};

/// Why a call failed.
pub(super) struct Failure {
    said: String,
    is_transient: bool,
    is_panic: bool,
}

/// Calls a handler.
pub(super) fn call(function: &Arc<Call>, delivery: &Delivery) -> Result<(), Failure> {
    let depth = delivery.mark().map_or(0, |mark| mark.depth);
    let extra = delivery.extra();
    let _inside = Inside::enter(depth, extra.and_then(|extra| extra.correlation_id.as_deref()));
    match guarded(|| function(delivery)) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(HandlerError { message, is_transient })) => {
            Err(Failure { said: message, is_transient, is_panic: false })
        }
        Err(said) => Err(Failure { said: format!("panicked: {said}"), is_transient: true, is_panic: true }),
    }
}

/// Ends what may hold foreign code.
pub(super) fn end<T>(it: T) {
    // What a destructor says when it panics is nobody's to hear.
    let _ = guarded(|| drop(it));
}

pub(super) fn letter_of(delivery: &Delivery, error: String) -> DeadLetter<Record> {
    let event = (**delivery).clone();
    DeadLetter { event, attempts: delivery.attempt(), error, time: SystemTime::now() }
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
        number: u64,
        delivery: Delivery,
        result: Result<(), Failure>,
        now: Instant,
    ) {
        let delay = match &result {
            Err(failure) if failure.is_transient && delivery.redriven.is_none() => {
                let delay = subscriber.retry.next_delay(delivery.attempt);
                delay.filter(|_| !self.crew.is_closed() && subscriber.mailbox.lock().may_retry())
            }
            _ => None,
        };
        let end_as = match &result {
            Ok(()) => End::Handled,
            Err(_) if delay.is_some() => End::Again,
            Err(_) if subscriber.is_discarding => End::Failed,
            Err(_) => End::DeadLettered,
        };
        let is_first = delivery.attempt == 0 && delivery.redriven.is_none();
        let mut mailbox = subscriber.mailbox.lock();
        if let Err(failure) = &result {
            mailbox.stats.panics += u64::from(failure.is_panic);
            mailbox.stats.last_error = Some(failure.said.clone());
        }
        let was_overdue = mailbox.end(number, &delivery, end_as, now, subscriber.deadline);
        self.tell_waiters(subscriber, &mut mailbox);
        drop(mailbox);
        if was_overdue {
            self.crew.come_back();
            self.line_up(subscriber);
        }
        if let Err(failure) = &result
            && end_as == End::DeadLettered
        {
            self.bury(subscriber, &delivery, &failure.said);
        }
        if is_first {
            note(&delivery, |progress| match result {
                Ok(()) => progress.handled += 1,
                Err(_) => progress.failed += 1,
            });
        }
        if let Some(delay) = delay {
            let flight = delivery.flight.unwatched();
            let again = Delivery { flight, attempt: delivery.attempt + 1, ..delivery };
            let due = now.checked_add(delay).unwrap_or(now);
            if let Some(again) = self.timers.add(due, subscriber, again) {
                self.give_up(subscriber, again);
            }
        } else {
            end(delivery);
        }
    }

    /// Keeps an event that a handler did not take.
    pub(super) fn bury(&self, subscriber: &Subscriber, delivery: &Delivery, said: &str) {
        let error = format!("{}: {said}", subscriber.name);
        self.letters.keep(subscriber.id, vec![letter_of(delivery, error)]);
        if subscriber.is_plugin && delivery.name() != plugin::Error::NAME {
            let (plugin_name, error) = (subscriber.name.to_string(), said.to_owned());
            self.say(plugin::Error { plugin_name, error });
        }
    }

    /// A retry that will not be made, because the bus stops.
    pub(super) fn give_up(&self, subscriber: &Subscriber, delivery: Delivery) {
        let end_as = if subscriber.is_discarding { End::Failed } else { End::DeadLettered };
        let said = {
            let mut mailbox = subscriber.mailbox.lock();
            mailbox.give_up(Some(end_as));
            mailbox.stats.last_error.clone().unwrap_or_default()
        };
        if end_as == End::DeadLettered {
            self.bury(subscriber, &delivery, &said);
        }
        end(delivery);
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
        let flight = Flight::new(self.blank.with_events(vec![letter.event]), Some(&self.tower));
        self.flights.lock().push_back(Arc::downgrade(&flight));
        let delivery = Delivery { flight, place: 0, attempt: 0, redriven: Some(letter.attempts) };
        let refused = subscriber.mailbox.lock().put_letter(delivery);
        if let Some(delivery) = refused {
            let (event, attempts) = ((*delivery).clone(), letter.attempts);
            let letter = DeadLetter { event, attempts, error: letter.error, time: letter.time };
            self.letters.keep(subscriber.id, vec![letter]);
        }
    }
}
