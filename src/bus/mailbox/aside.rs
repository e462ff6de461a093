//! What lies aside: events that wait for a retry, and those that wait behind one.

use std::collections::VecDeque;

use super::{Delivery, End, Ended, Flight, Mailbox};
use crate::lanes::payload_of;
use crate::sync::Arc;

impl Mailbox {
    /// Parks an event behind one that waits for a retry.
    pub(super) fn put_aside(
        &mut self,
        mut delivery: Delivery,
        remains: &mut Vec<Arc<Flight>>,
    ) -> Option<Delivery> {
        if !self.has_room_aside() {
            match delivery.redriven {
                Some(_) => self.letters -= 1,
                None => self.count(self.lost_as),
            }
            return Some(delivery);
        }
        delivery.set_aside(remains);
        self.aside += 1;
        self.aside_bytes += payload_of(&*delivery);
        if let Some(held) = self.held[delivery.get_priority() as usize].get_mut(delivery.name()) {
            held.parked.push_back(delivery);
        }
        None
    }

    /// A retry is due: it and what is parked behind it are waited for again, by `watch`. After the end it comes back.
    pub(in crate::bus) fn put_again(
        &mut self,
        mut delivery: Delivery,
        watch: &Arc<Flight>,
    ) -> Option<Delivery> {
        if self.is_over() {
            return Some(delivery);
        }
        self.take_back(&mut delivery, watch);
        self.bring_back(&delivery, Some(watch));
        self.put_first(delivery);
        None
    }

    /// An event is not aside any more, but queued.
    fn take_back(&mut self, delivery: &mut Delivery, watch: &Arc<Flight>) {
        let bytes = payload_of(&**delivery);
        (self.aside, self.aside_bytes) = (self.aside - 1, self.aside_bytes - bytes);
        (self.queued, self.bytes) = (self.queued + 1, self.bytes + bytes);
        delivery.watch = Some(Arc::clone(watch));
    }

    /// So is what is parked behind it.
    fn bring_back(&mut self, delivery: &Delivery, watch: Option<&Arc<Flight>>) {
        let Some(held) = self.held[delivery.get_priority() as usize].get_mut(delivery.name()) else { return };
        if !std::mem::take(&mut held.is_aside) {
            return;
        }
        let bytes = held.parked.iter().map(|parked| payload_of(&**parked)).sum::<u64>();
        let parked = held.parked.len();
        held.parked.iter_mut().for_each(|parked| parked.watch = watch.cloned());
        (self.aside, self.aside_bytes) = (self.aside - parked, self.aside_bytes - bytes);
        (self.queued, self.bytes) = (self.queued + parked, self.bytes + bytes);
    }

    /// All of that name and priority wait behind a retry, aside.
    pub(super) fn park_behind(&mut self, retry: &Delivery, ended: &mut Ended) {
        let lane = retry.get_priority() as usize;
        let Some(held) = self.held[lane].get_mut(retry.name()) else { return };
        held.is_aside = true;
        let mut behind = std::mem::take(&mut held.parked);
        let is_behind = |delivery: &Delivery| delivery.name() == retry.name();
        let (same, others) = std::mem::take(&mut self.lanes[lane]).into_iter().partition(is_behind);
        self.lanes[lane] = others;
        let same: VecDeque<Delivery> = same;
        behind.extend(same);
        for delivery in behind {
            self.queued -= 1;
            self.bytes -= payload_of(&*delivery);
            ended.overflow.extend(self.put_aside(delivery, &mut ended.remains));
        }
    }

    /// Lets the next event of that name and priority go on.
    pub(super) fn release(&mut self, before: &Delivery) {
        let lane = &mut self.held[before.get_priority() as usize];
        let Some(held) = lane.get_mut(before.name()) else { return };
        match held.parked.pop_front() {
            Some(next) => self.put_first(next),
            None => _ = lane.remove(before.name()),
        }
    }

    /// The next of its name and priority, where order is kept: at the front of its lane, so that it overtakes none of more
    /// importance.
    fn put_first(&mut self, delivery: Delivery) {
        let lane = delivery.get_priority() as usize;
        if let Some(held) = self.held[lane].get_mut(delivery.name()) {
            held.is_next = true;
        }
        self.lanes[lane].push_front(delivery);
    }

    /// A retry will not be made: it ends so. What is parked behind it goes on.
    pub(in crate::bus) fn give_up(&mut self, retry: &Delivery, end: End) {
        self.aside -= 1;
        self.aside_bytes -= payload_of(&**retry);
        self.count(end);
        self.bring_back(retry, None);
        self.release(retry);
    }
}
