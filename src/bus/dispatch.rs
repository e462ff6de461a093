//! Events go to the mailboxes of those they are for.

use std::collections::VecDeque;

use super::SubscriptionId;
use super::engine::Engine;
use super::handler::{Delivery, Flight};
use super::mailbox::Mailbox;
use super::settle::{TOO_MANY_BEHIND, end, note};
use super::table::{Known, Subscriber, Table};
use crate::batch::Batch;
use crate::event::Record;
use crate::sink::{Sink, SinkError};
use crate::sync::{Arc, Weak};

/// What to do with events for which a mailbox has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Full {
    /// They stay, for another attempt.
    Leave,
    /// They become dead letters.
    Bury,
}

/// The events of a batch that takes more do not share it: what waits in a mailbox is bounded by what its own events take.
const MAX_SHARED_BYTES: u64 = 64 << 10;

/// Events that a mailbox did not take.
struct Lost {
    /// There was no room behind a retry.
    overflow: Vec<Delivery>,
    /// There was none at all, or the handler is gone.
    out: Vec<Delivery>,
    /// Why they are lost, unless the handler is gone.
    why: Option<&'static str>,
    /// What was shared. Events may end with it, which are foreign code.
    remains: Vec<Arc<Flight>>,
}

/// What the dispatcher has at hand from batch to batch.
#[derive(Default)]
pub(super) struct Desk {
    /// The table that `known` is of.
    table: Option<Arc<Table>>,
    known: Known,
    /// By place in the table.
    mail: Vec<VecDeque<Delivery>>,
}

impl Desk {
    fn sit_down(&mut self, table: &Arc<Table>) {
        if !self.table.as_ref().is_some_and(|own| Arc::ptr_eq(own, table)) {
            self.table = Some(Arc::clone(table));
            self.known = Known::default();
            self.mail.resize_with(table.subscribers.len(), VecDeque::new);
        }
    }
}

/// Its name.
pub(super) const DISPATCHER: &str = "bus";

/// The sink of the collector inside that gives events to the handlers.
pub(super) struct Dispatcher {
    pub(super) engine: Arc<Engine>,
    pub(super) desk: Desk,
}

impl Sink<Record> for Dispatcher {
    fn name(&self) -> &str {
        DISPATCHER
    }

    fn write_batch(&mut self, batch: &Batch<Record>) -> Result<(), SinkError> {
        self.engine.dispatch(&mut self.desk, batch);
        Ok(())
    }
}

impl Engine {
    /// Gives a batch to the handlers. Waits where a handler is behind and does not hang.
    pub(super) fn dispatch(&self, desk: &mut Desk, batch: &Batch<Record>) {
        // What a panic has left there goes first, to those it is for.
        if let Some(table) = &desk.table {
            for (subscriber, mail) in table.subscribers.iter().zip(&mut desk.mail) {
                self.deliver(subscriber, mail);
            }
        }
        let table = self.table();
        desk.sit_down(&table);
        let flight = self.launch(batch.clone());
        let is_heavy = batch.len() > 1 && batch.bytes(drop) > MAX_SHARED_BYTES;
        let Desk { known, mail, .. } = desk;
        let mut touched = Vec::new();
        for (place, event) in batch.iter().enumerate() {
            // A handler that is behind would hold all of a batch for each of its own events. (A copy would not tell who
            // waits for its calls.)
            let is_awaited = event.mark().is_some_and(|mark| mark.ticket.is_some());
            let own = (is_heavy && !is_awaited).then(|| self.watched(batch.with_events(vec![event.clone()])));
            let (flight, place) = own.as_ref().map_or((&flight, place), |own| (own, 0));
            let mut found = 0;
            table.each_for(known, event, |subscriber| {
                if mail[subscriber].is_empty() {
                    touched.push(subscriber);
                }
                mail[subscriber].push_back(Delivery::new(flight, place));
                found += 1;
            });
            expect(event, found);
        }
        drop(flight);
        // Who has room first: nobody waits for a handler of another.
        touched.retain(|place| {
            self.hand_out(&table.subscribers[*place], &mut mail[*place], Full::Leave);
            !mail[*place].is_empty()
        });
        touched.into_iter().for_each(|place| self.deliver(&table.subscribers[place], &mut mail[place]));
    }

    /// Hands out all, as room comes.
    fn deliver(&self, subscriber: &Arc<Subscriber>, mail: &mut VecDeque<Delivery>) {
        while !mail.is_empty() {
            self.await_room(subscriber);
            self.hand_out(subscriber, mail, Full::Leave);
        }
    }

    /// Gives one event to the handlers, without a wait.
    pub(super) fn dispatch_one(&self, record: Record) {
        let table = self.table();
        let flight = self.launch(self.blank.with_events(vec![record]));
        let mut places = Vec::new();
        let event = &flight.batch().events()[0];
        table.each_for(&mut Known::default(), event, |place| places.push(place));
        expect(event, places.len() as u64);
        let handed_out: Vec<_> = places
            .into_iter()
            .map(|place| {
                let mut mail = VecDeque::from([Delivery::new(&flight, 0)]);
                (place, self.put_in(&table.subscribers[place], &mut mail, Full::Bury))
            })
            .collect();
        // What is told of it comes behind it, also to those who come last.
        handed_out.into_iter().for_each(|(place, lost)| self.see_to(&table.subscribers[place], lost));
    }

    /// Calls a handler without an event, unless it is busy with such a call.
    pub(super) fn poke(&self, id: SubscriptionId) {
        let table = self.table();
        let Some(subscriber) = table.subscribers.iter().find(|subscriber| subscriber.id == id.0) else {
            return;
        };
        if subscriber.mailbox.lock().load() == (0, 0) {
            let flight = Flight::new(self.blank.with_events(vec![Record::new("forebay.poke")]), None);
            let mut mail = VecDeque::from([Delivery::new(&flight, 0)]);
            self.hand_out(subscriber, &mut mail, Full::Bury);
        }
    }

    /// A flight that is waited for.
    pub(super) fn launch(&self, batch: Batch<Record>) -> Arc<Flight> {
        self.tally.events.add(batch.len() as u64);
        self.watched(batch)
    }

    /// The same, without a count.
    pub(super) fn watched(&self, batch: Batch<Record>) -> Arc<Flight> {
        let flight = Flight::new(batch, Some(&self.tower));
        let mut flights = self.flights.lock();
        // Those behind one that is late are found out only when there are many.
        if flights.len() == flights.capacity() {
            flights.retain(|flight| flight.strong_count() > 0);
        }
        flights.push_back(Arc::downgrade(&flight));
        flight
    }

    /// What has not ended.
    pub(super) fn flights(&self) -> Vec<Weak<Flight>> {
        let mut flights = self.flights.lock();
        flights.retain(|flight| flight.strong_count() > 0);
        flights.iter().cloned().collect()
    }

    /// Puts events into a mailbox while it has room, and sees to the others.
    fn hand_out(&self, subscriber: &Arc<Subscriber>, mail: &mut VecDeque<Delivery>, full: Full) {
        let lost = self.put_in(subscriber, mail, full);
        self.see_to(subscriber, lost);
    }

    /// Puts events into a mailbox while it has room; those that it does not take come out.
    fn put_in(&self, subscriber: &Arc<Subscriber>, mail: &mut VecDeque<Delivery>, full: Full) -> Lost {
        let (mut overflow, mut remains) = (Vec::new(), Vec::new());
        let mut mailbox = subscriber.mailbox.lock();
        while mail.front().is_some_and(|next| mailbox.takes(next))
            && let Some(delivery) = mail.pop_front()
        {
            overflow.extend(mailbox.put(delivery, &mut remains));
        }
        let is_over = mailbox.is_over();
        let buries = !is_over && (full == Full::Bury || mailbox.is_full() && mailbox.hangs());
        let out: Vec<Delivery> = if is_over || buries { mail.drain(..).collect() } else { Vec::new() };
        let full =
            if mailbox.hangs() { "its queue is full, because a call hangs" } else { "its queue is full" };
        let why = buries.then_some(full);
        let count = if buries { Mailbox::pass_by } else { Mailbox::come_late };
        out.iter().for_each(|_| count(&mut mailbox));
        drop(mailbox);
        self.line_up(subscriber);
        Lost { overflow, out, why, remains }
    }

    /// Sees to events that a mailbox did not take, and are counted.
    fn see_to(&self, subscriber: &Subscriber, lost: Lost) {
        let Lost { overflow, out, why, remains } = lost;
        self.lose(subscriber, overflow, TOO_MANY_BEHIND);
        match why {
            Some(why) => self.lose(subscriber, out, why),
            None => out.iter().for_each(|delivery| note(delivery, |progress| progress.cancelled += 1)),
        }
        end(remains);
    }

    /// Waits until a mailbox has room, or need not be waited for.
    fn await_room(&self, subscriber: &Subscriber) {
        let mut mailbox = subscriber.mailbox.lock();
        while mailbox.is_full() && !mailbox.is_over() && !mailbox.hangs() {
            mailbox.is_wanted = true;
            subscriber.changed.wait_until(&mut mailbox, None);
        }
    }
}

fn expect(event: &Record, handlers: u64) {
    if let Some(ticket) = event.mark().and_then(|mark| mark.ticket.as_ref()) {
        ticket.expect(handlers);
    }
}
