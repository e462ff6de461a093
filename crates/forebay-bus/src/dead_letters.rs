//! Dead letters of a bus: events that a handler did not take, kept and offered to it again.

use std::time::SystemTime;

use forebay::event::catalog::plugin;
use forebay::parts::shortened;
use forebay::sink::DeadLetter;

use super::delivery::{Delivery, EarlierLetter};
use super::engine::Engine;
use super::envelope::Envelope;
use super::mailbox::End;
use super::subscriber::Subscriber;
use super::user_code::drop_quietly;

/// Makes a dead letter of a delivery.
pub(super) fn letter_of(subscriber: &Subscriber, delivery: &Delivery, error: String) -> DeadLetter<Envelope> {
    let event = delivery.envelope().clone();
    // An event that was a dead letter before keeps the time of its first failure.
    let time = delivery.redriven.as_ref().map_or_else(SystemTime::now, |earlier| earlier.time);
    DeadLetter::new(event, delivery.attempt(), error, time).of_handler(subscriber.name.clone())
}

impl Engine {
    /// Keeps an event that a handler did not take, with the text of its error.
    pub(super) fn dead_letter(&self, subscriber: &Subscriber, delivery: &Delivery, text: &str) {
        let error = shortened(format!("{}: {text}", subscriber.name));
        self.dead_letters.keep(subscriber.id, vec![letter_of(subscriber, delivery, error)]);
        if subscriber.is_plugin && delivery.name() != plugin::Error::NAME {
            let (plugin_name, error) = (subscriber.name.to_string(), text.to_owned());
            self.emit_own_at(plugin::Error { plugin_name, error }, delivery.depth().saturating_add(1));
        }
    }

    /// Puts a dead letter back as it was, because it was offered again and the handler was not called.
    pub(super) fn put_back(&self, subscriber: &Subscriber, delivery: &mut Delivery) {
        if let Some(earlier) = delivery.redriven.take() {
            let EarlierLetter { attempts, error, time } = *earlier;
            let letter = DeadLetter::new(delivery.envelope().clone(), attempts, error, time)
                .of_handler(subscriber.name.clone());
            self.dead_letters.keep(subscriber.id, vec![letter]);
        }
    }

    /// Counts an event that ended without a call, once its letter is kept.
    pub(super) fn count_uncalled(&self, subscriber: &Subscriber, end: End, is_redriven: bool) {
        let mut mailbox = subscriber.mailbox.lock();
        mailbox.end_uncalled(end, is_redriven);
        self.notify_waiters(subscriber, &mut mailbox);
    }

    /// Offers all dead letters again that are due.
    pub(super) fn redrive(&self) {
        if !self.dead_letters.has_due() {
            return;
        }
        let table = self.table();
        let is_ours = |owner| table.subscribers.iter().any(|subscriber| subscriber.id == owner);
        self.dead_letters.leave_unknown(is_ours);
        for subscriber in &self.table().subscribers {
            // A stop waits meanwhile: else it would miss letters that are on their way.
            subscriber.mailbox.lock().hold_letter();
            loop {
                let letters = self.dead_letters.take_due(subscriber.id);
                if letters.is_empty() {
                    break;
                }
                letters.into_iter().for_each(|letter| self.offer_again(subscriber, letter));
            }
            self.count_uncalled(subscriber, End::Cancelled, true);
            self.schedule(subscriber);
        }
    }

    fn offer_again(&self, subscriber: &Subscriber, letter: DeadLetter<Envelope>) {
        let DeadLetter { event, attempts, error, time, .. } = letter;
        let in_flight = self.in_flight.add(self.blank.with_events(vec![event]));
        let redriven = Some(Box::new(EarlierLetter { attempts, error, time }));
        let delivery = Delivery { redriven, ..Delivery::new(&in_flight, 0) };
        drop(in_flight);
        let mut remains = Vec::new();
        let refused = subscriber.mailbox.lock().put_redriven(delivery, &mut remains);
        if let Some(mut delivery) = refused {
            self.put_back(subscriber, &mut delivery);
            self.count_uncalled(subscriber, End::Cancelled, true);
            drop_quietly(delivery);
        }
        drop_quietly(remains);
    }
}
