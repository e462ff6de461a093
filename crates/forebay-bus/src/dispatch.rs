//! Dispatch of events to the mailboxes of the handlers that they are for.

use std::collections::VecDeque;

use forebay::sink::{Sink, SinkError};
use forebay::{Batch, Record};
use forebay_sync::sync::Arc;

use super::completion::TOO_MANY_BEHIND;
use super::delivery::Delivery;
use super::engine::Engine;
use super::envelope::Envelope;
use super::id::SubscriptionId;
use super::in_flight::InFlight;
use super::mailbox::Mailbox;
use super::subscriber::Subscriber;
use super::subscribers::{Lookups, Table};
use super::user_code::drop_quietly;

/// Fate of events for which a mailbox has no space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WhenFull {
    /// The events stay, for another attempt.
    Keep,
    /// The events become dead letters.
    DeadLetter,
}

/// The events of a batch that takes more do not share it: what waits in a mailbox is bounded by the bytes of its own events.
const MAX_SHARED_BYTES: u64 = 64 << 10;

/// Events that a mailbox did not take.
struct Rejected {
    /// Events for which there was no space behind a retry.
    overflow: Vec<Delivery>,
    /// Events for which there was no space at all, or whose handler is gone.
    others: Vec<Delivery>,
    /// Reason why the others are rejected; `None` if the handler is gone.
    reason: Option<&'static str>,
    /// Batches that were shared. Events may end with them, and their destructors are user code.
    remains: Vec<Arc<InFlight>>,
}

/// The name of the dispatcher among the sinks.
pub(super) const DISPATCHER: &str = "bus";

/// The sink of the collector inside that gives events to the handlers.
pub(super) struct Dispatcher {
    engine: Arc<Engine>,
    /// The table that `lookups` is of.
    table: Option<Arc<Table>>,
    lookups: Lookups,
    /// Events for each subscriber, by its index in the table. Empty between batches, but after a panic.
    mail: Vec<VecDeque<Delivery>>,
}

impl Sink<Envelope> for Dispatcher {
    fn name(&self) -> &str {
        DISPATCHER
    }

    fn write_batch(&mut self, batch: &Batch<Envelope>) -> Result<(), SinkError> {
        self.dispatch(batch);
        Ok(())
    }
}

impl Dispatcher {
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        Self { engine, table: None, lookups: Lookups::default(), mail: Vec::new() }
    }

    /// Gives a batch to the handlers. Waits where a handler is behind and has no overdue call.
    fn dispatch(&mut self, batch: &Batch<Envelope>) {
        // What a panic has left goes first, to those it is for.
        if let Some(table) = &self.table {
            for (subscriber, mail) in table.subscribers.iter().zip(&mut self.mail) {
                self.engine.deliver(subscriber, mail);
            }
        }
        let table = self.engine.table();
        self.set_table(&table);
        let Self { engine, lookups, mail, .. } = self;
        let in_flight = engine.accept(batch.clone());
        let is_heavy = batch.len() > 1 && batch.bytes(drop) > MAX_SHARED_BYTES;
        let mut touched = Vec::new();
        for (index, event) in batch.iter().enumerate() {
            // A handler that is behind would hold all of a batch for each of its own events. (A copy would not tell who
            // waits for its calls.)
            let is_awaited = event.mark.ticket.is_some();
            let own = (is_heavy && !is_awaited)
                .then(|| engine.in_flight.add(batch.with_events(vec![event.clone()])));
            let (in_flight, index) = own.as_ref().map_or((&in_flight, index), |own| (own, 0));
            let mut found = 0;
            table.each_for(lookups, event, |subscriber| {
                if mail[subscriber].is_empty() {
                    touched.push(subscriber);
                }
                mail[subscriber].push_back(Delivery::new(in_flight, index));
                found += 1;
            });
            expect(event, found);
        }
        drop(in_flight);
        // Handlers with space come first: so none waits for the mailbox of another.
        touched.retain(|index| {
            engine.hand_out(&table.subscribers[*index], &mut mail[*index], WhenFull::Keep);
            !mail[*index].is_empty()
        });
        touched.into_iter().for_each(|index| engine.deliver(&table.subscribers[index], &mut mail[index]));
    }

    fn set_table(&mut self, table: &Arc<Table>) {
        if !self.table.as_ref().is_some_and(|own| Arc::ptr_eq(own, table)) {
            self.table = Some(Arc::clone(table));
            self.lookups = Lookups::default();
            self.mail.resize_with(table.subscribers.len(), VecDeque::new);
        }
    }
}

impl Engine {
    /// Hands out all events to one handler, as space comes.
    fn deliver(&self, subscriber: &Arc<Subscriber>, mail: &mut VecDeque<Delivery>) {
        while !mail.is_empty() {
            self.await_room(subscriber);
            self.hand_out(subscriber, mail, WhenFull::Keep);
        }
    }

    /// Gives one event to the handlers, without a wait.
    pub(super) fn dispatch_one(&self, event: Envelope) {
        let table = self.table();
        let in_flight = self.accept(self.blank.with_events(vec![event]));
        let mut indices = Vec::new();
        let event = &in_flight.batch().events()[0];
        table.each_for(&mut Lookups::default(), event, |index| indices.push(index));
        expect(event, indices.len() as u64);
        let handed_out: Vec<_> = indices
            .into_iter()
            .map(|index| {
                let mut mail = VecDeque::from([Delivery::new(&in_flight, 0)]);
                (index, self.put_in(&table.subscribers[index], &mut mail, WhenFull::DeadLetter))
            })
            .collect();
        // Events about a rejection come behind this one, also for the handlers that come last.
        handed_out.into_iter().for_each(|(index, rejected)| self.reject(&table.subscribers[index], rejected));
    }

    /// Calls a handler without an event, unless it is busy with such a call.
    pub(super) fn trigger(&self, id: SubscriptionId) {
        let table = self.table();
        let Some(subscriber) = table.subscribers.iter().find(|subscriber| subscriber.id == id.0) else {
            return;
        };
        if subscriber.mailbox.lock().load() == (0, 0) {
            let in_flight =
                InFlight::untracked(self.blank.with_events(vec![Record::new("forebay.trigger").into()]));
            let mut mail = VecDeque::from([Delivery::new(&in_flight, 0)]);
            self.hand_out(subscriber, &mut mail, WhenFull::DeadLetter);
        }
    }

    /// Puts events into a mailbox while it has space, and ends those that it rejects.
    fn hand_out(&self, subscriber: &Arc<Subscriber>, mail: &mut VecDeque<Delivery>, full: WhenFull) {
        let rejected = self.put_in(subscriber, mail, full);
        self.reject(subscriber, rejected);
    }

    /// Puts events into a mailbox while it has space. Returns those that it rejects.
    fn put_in(
        &self,
        subscriber: &Arc<Subscriber>,
        mail: &mut VecDeque<Delivery>,
        full: WhenFull,
    ) -> Rejected {
        let (mut overflow, mut remains) = (Vec::new(), Vec::new());
        let mut mailbox = subscriber.mailbox.lock();
        while mail.front().is_some_and(|next| mailbox.takes(next))
            && let Some(delivery) = mail.pop_front()
        {
            overflow.extend(mailbox.put(delivery, &mut remains));
        }
        let is_over = mailbox.is_over();
        let rejects = !is_over && (full == WhenFull::DeadLetter || mailbox.is_full() && mailbox.hangs());
        let others: Vec<Delivery> = if is_over || rejects { mail.drain(..).collect() } else { Vec::new() };
        let full =
            if mailbox.hangs() { "its queue is full, because a call hangs" } else { "its queue is full" };
        let reason = rejects.then_some(full);
        let count = if rejects { Mailbox::reject } else { Mailbox::count_after_stop };
        others.iter().for_each(|_| count(&mut mailbox));
        drop(mailbox);
        self.schedule(subscriber);
        Rejected { overflow, others, reason, remains }
    }

    /// Ends events that a mailbox rejected.
    fn reject(&self, subscriber: &Subscriber, rejected: Rejected) {
        let Rejected { overflow, others, reason, remains } = rejected;
        self.fail_all(subscriber, overflow, TOO_MANY_BEHIND);
        match reason {
            Some(reason) => self.fail_all(subscriber, others, reason),
            None => others.iter().for_each(|delivery| delivery.report(|progress| progress.cancelled += 1)),
        }
        drop_quietly(remains);
    }

    /// Waits until a mailbox has space, or need not be waited for.
    fn await_room(&self, subscriber: &Subscriber) {
        let mut mailbox = subscriber.mailbox.lock();
        while mailbox.is_full() && !mailbox.is_over() && !mailbox.hangs() {
            mailbox.has_waiters = true;
            subscriber.changed.wait_until(&mut mailbox, None);
        }
    }
}

/// Tells whoever waits for an event how many handlers have it.
fn expect(event: &Envelope, handlers: u64) {
    if let Some(ticket) = &event.mark.ticket {
        ticket.expect(handlers);
    }
}

#[cfg(test)]
mod tests;
