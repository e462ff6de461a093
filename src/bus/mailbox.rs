//! What waits for one handler, what it is busy with, and what became of the rest: all under one lock, so that the law of a
//! handler holds at every moment.
//!
//! ```text
//! matched = handled + failed + dead_lettered + cancelled + in flight (queued | running | waiting for a retry)
//! ```
//!
//! Whoever takes an event out to call the handler does so under this lock; whoever unsubscribes takes the function out
//! under it. So no call begins after that.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::HandlerStats;
use super::handler::{Call, Delivery};
use crate::catalog::system::PerformanceWarning;
use crate::event::{Name, Priority};
use crate::lanes::payload_of;
use crate::sync::Arc;

/// Everything about one handler that changes.
pub(super) struct Mailbox {
    /// `None` once it is unsubscribed.
    call: Option<Arc<Call>>,
    is_ordered: bool,
    most: usize,
    most_bytes: u64,
    /// By priority.
    lanes: [VecDeque<Delivery>; 3],
    /// Normal events since the last low one.
    turn: u32,
    /// Before all others: retries, letters that are offered again, and what was parked and may go on.
    first: VecDeque<Delivery>,
    /// Names of which an event is running or waits for a retry, where order is kept; and what is parked behind it.
    held: HashMap<Name, VecDeque<Delivery>>,
    /// In the lanes and parked, and what these own in bytes.
    queued: usize,
    bytes: u64,
    running: Vec<Running>,
    next_call: u64,
    /// Calls that run for longer than they should.
    overdue: usize,
    retrying: u64,
    /// How often it stands in line for a worker, or is with one.
    pub(super) turns: usize,
    /// Somebody waits for room.
    pub(super) is_wanted: bool,
    pub(super) stats: HandlerStats,
}

/// A call.
struct Running {
    number: u64,
    since: Instant,
    is_overdue: bool,
    is_redriven: bool,
    /// It is about such a call.
    is_warning: bool,
}

/// What a worker has taken out.
pub(super) struct Begun {
    pub(super) delivery: Delivery,
    pub(super) call: Arc<Call>,
    pub(super) number: u64,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Handled,
    Failed,
    DeadLettered,
    /// It is to be called again.
    Again,
}

/// How many low events there are for how many normal ones.
const NORMAL_PER_LOW: u32 = 2;

impl Mailbox {
    pub(super) fn new(call: Arc<Call>, is_ordered: bool, room: (usize, u64), stats: HandlerStats) -> Self {
        Self {
            call: Some(call),
            is_ordered,
            most: room.0,
            most_bytes: room.1,
            lanes: [VecDeque::new(), VecDeque::new(), VecDeque::new()],
            turn: 0,
            first: VecDeque::new(),
            held: HashMap::new(),
            queued: 0,
            bytes: 0,
            running: Vec::new(),
            next_call: 0,
            overdue: 0,
            retrying: 0,
            turns: 0,
            is_wanted: false,
            stats,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.call.is_none()
    }

    /// Whether one of its calls runs for longer than it should.
    pub(super) fn hangs(&self) -> bool {
        self.overdue > 0
    }

    /// Whether another event may wait for a retry: as many as may wait for a call.
    pub(super) fn may_retry(&self) -> bool {
        self.retrying < self.most as u64
    }

    pub(super) fn is_full(&self) -> bool {
        self.queued >= self.most || self.queued > 0 && self.bytes >= self.most_bytes
    }

    /// Whether something may be taken out when `most` calls may run at once.
    pub(super) fn is_ready(&self, most: usize) -> bool {
        self.call.is_some() && !self.hangs() && self.running.len() < most && self.waiting() > 0
    }

    fn waiting(&self) -> usize {
        self.first.len() + self.lanes.iter().map(VecDeque::len).sum::<usize>()
    }

    /// How much more often it should stand in line; it does from now on.
    pub(super) fn take_turns(&mut self, most: usize) -> usize {
        if !self.is_ready(most) {
            return 0;
        }
        let more = most.min(self.running.len() + self.waiting()).saturating_sub(self.turns);
        self.turns += more;
        more
    }

    /// Whether a critical event waits.
    pub(super) fn is_urgent(&self) -> bool {
        !self.lanes[Priority::Critical as usize].is_empty()
    }

    /// Takes an event in; there is room, or it is not asked for.
    pub(super) fn put(&mut self, delivery: Delivery) {
        self.stats.matched += 1;
        self.queued += 1;
        self.bytes += payload_of(&*delivery);
        self.lanes[delivery.get_priority() as usize].push_back(delivery);
    }

    /// Notes an event that was not taken in, and becomes a dead letter.
    pub(super) fn pass_by(&mut self) {
        self.stats.matched += 1;
        self.stats.dead_lettered += 1;
    }

    /// Whether who waits for room should be told.
    pub(super) fn has_much_room(&self) -> bool {
        self.queued <= self.most / 2 && !self.is_full()
    }

    /// A retry is due. What is unsubscribed comes back.
    pub(super) fn put_again(&mut self, delivery: Delivery) -> Option<Delivery> {
        self.retrying -= 1;
        if self.is_over() {
            self.stats.cancelled += 1;
            return Some(delivery);
        }
        self.queued += 1;
        self.bytes += payload_of(&*delivery);
        self.first.push_back(delivery);
        None
    }

    /// A dead letter is offered again. What is unsubscribed comes back.
    pub(super) fn put_letter(&mut self, delivery: Delivery) -> Option<Delivery> {
        if self.is_over() {
            return Some(delivery);
        }
        self.queued += 1;
        self.bytes += payload_of(&*delivery);
        self.first.push_back(delivery);
        None
    }

    /// Takes the next event out, for a call that begins now.
    pub(super) fn begin(&mut self, most: usize, now: Instant) -> Option<Begun> {
        if !self.is_ready(most) {
            return None;
        }
        let call = Arc::clone(self.call.as_ref()?);
        let delivery = self.next()?;
        self.queued -= 1;
        self.bytes -= payload_of(&*delivery);
        let number = self.next_call;
        self.next_call += 1;
        let is_redriven = delivery.redriven.is_some();
        let is_warning = delivery.name() == PerformanceWarning::NAME;
        self.running.push(Running { number, since: now, is_overdue: false, is_redriven, is_warning });
        Some(Begun { delivery, call, number })
    }

    fn next(&mut self) -> Option<Delivery> {
        if let Some(delivery) = self.first.pop_front() {
            return Some(delivery);
        }
        while let Some(delivery) = self.next_of_lanes() {
            if !self.is_ordered {
                return Some(delivery);
            }
            match self.held.get_mut(delivery.name()) {
                Some(parked) => parked.push_back(delivery),
                None => {
                    self.held.insert(delivery.shared_name().clone(), VecDeque::new());
                    return Some(delivery);
                }
            }
        }
        None
    }

    /// Critical ones first, then two normal ones for a low one.
    fn next_of_lanes(&mut self) -> Option<Delivery> {
        let [critical, normal, low] = &mut self.lanes;
        if let Some(delivery) = critical.pop_front() {
            return Some(delivery);
        }
        if self.turn >= NORMAL_PER_LOW || normal.is_empty() {
            self.turn = 0;
            return low.pop_front().or_else(|| normal.pop_front());
        }
        self.turn += 1;
        normal.pop_front()
    }

    /// A call has ended; whether it was marked as overdue.
    pub(super) fn end(
        &mut self,
        number: u64,
        delivery: &Delivery,
        end: End,
        now: Instant,
        deadline: Duration,
    ) -> bool {
        let place = self.running.iter().position(|running| running.number == number);
        let Some(call) = place.map(|place| self.running.swap_remove(place)) else { return false };
        self.overdue -= usize::from(call.is_overdue);
        // It ended before anybody looked.
        let was_late = now.saturating_duration_since(call.since) >= deadline;
        self.stats.overdue += u64::from(was_late && !call.is_overdue);
        // What became of a letter before is counted: offered again, it can only change for the better.
        match end {
            End::Handled if call.is_redriven => self.stats.redriven += 1,
            _ if call.is_redriven => {}
            End::Handled => self.stats.handled += 1,
            End::Failed => self.stats.failed += 1,
            End::DeadLettered => self.stats.dead_lettered += 1,
            End::Again => {
                self.retrying += 1;
                self.stats.retries += 1;
            }
        }
        // A letter that is offered again holds up nobody.
        if self.is_ordered && end != End::Again && !call.is_redriven {
            self.release(delivery.name());
        }
        call.is_overdue
    }

    /// Lets the next event of that name go on.
    fn release(&mut self, name: &str) {
        let Some(parked) = self.held.get_mut(name) else { return };
        match parked.pop_front() {
            Some(next) => self.first.push_back(next),
            None => _ = self.held.remove(name),
        }
    }

    /// A retry will not be made; without an end, it is cancelled.
    pub(super) fn give_up(&mut self, end: Option<End>) {
        self.retrying -= 1;
        match end {
            Some(End::DeadLettered) => self.stats.dead_lettered += 1,
            Some(_) => self.stats.failed += 1,
            None => self.stats.cancelled += 1,
        }
    }

    /// Takes the function and all that waits out. Nothing is called from now on. Letters among them are to be put back.
    pub(super) fn close(&mut self) -> (Option<Arc<Call>>, Vec<Delivery>) {
        let mut out: Vec<Delivery> = self.first.drain(..).collect();
        self.lanes.iter_mut().for_each(|lane| out.extend(lane.drain(..)));
        self.held.drain().for_each(|(_, parked)| out.extend(parked));
        (self.queued, self.bytes) = (0, 0);
        self.stats.cancelled += out.iter().filter(|delivery| delivery.redriven.is_none()).count() as u64;
        (self.call.take(), out)
    }

    /// Marks calls that run for longer than they should: for how long each does, and whether it is about such a call.
    pub(super) fn look(&mut self, now: Instant, deadline: Duration) -> Vec<(Duration, bool)> {
        let mut late = Vec::new();
        for call in self.running.iter_mut().filter(|call| !call.is_overdue) {
            let elapsed = now.saturating_duration_since(call.since);
            if elapsed >= deadline {
                call.is_overdue = true;
                late.push((elapsed, call.is_warning));
            }
        }
        self.overdue += late.len();
        self.stats.overdue += late.len() as u64;
        late
    }

    /// For how long its calls have been running, all together, and since when the oldest has; without those that are
    /// marked.
    pub(super) fn busy(&self, now: Instant) -> (Duration, Option<Instant>) {
        let since = self.running.iter().filter(|call| !call.is_overdue).map(|call| call.since);
        (since.clone().map(|since| now.saturating_duration_since(since)).sum(), since.min())
    }

    /// How many events it is called with, and how many wait for it.
    pub(super) fn load(&self) -> (usize, usize) {
        (self.running.len(), self.queued)
    }

    pub(super) fn snapshot(&self) -> HandlerStats {
        let letters = self.first.iter().filter(|delivery| delivery.redriven.is_some()).count();
        let running = self.running.iter().filter(|call| !call.is_redriven).count();
        let in_flight = (self.queued - letters + running) as u64 + self.retrying;
        HandlerStats { in_flight, ..self.stats.clone() }
    }
}
