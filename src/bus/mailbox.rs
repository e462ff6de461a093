//! What waits for one handler, what it is busy with, and what became of the rest: all under one lock, so that the law of a
//! handler holds at every moment.
//!
//! ```text
//! matched = handled + failed + dead_lettered + cancelled + in flight (queued | running | aside)
//! ```
//!
//! Aside is what waits for a retry, and, where order is kept, what waits behind that. It takes no room in the mailbox, shares
//! no batch, and nobody waits for it; of it, there may be as much as may be queued. What is too much is lost at once.
//!
//! Whoever takes an event out to call the handler does so under this lock; whoever unsubscribes takes the function out
//! under it, and revokes the permit of the handler. The call comes behind the lock, and asks the permit: so no call begins
//! after that.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::HandlerStats;
use super::handler::{Call, Delivery, Flight};
use crate::catalog::system::PerformanceWarning;
use crate::event::{Name, Priority};
use crate::lanes::payload_of;
use crate::sync::Arc;

/// Everything about one handler that changes.
pub(super) struct Mailbox {
    /// `None` once it is unsubscribed.
    call: Option<Arc<Call>>,
    /// Why it is not called any more.
    why: Option<Why>,
    is_ordered: bool,
    /// What becomes of events that are not taken.
    lost_as: End,
    most: usize,
    most_bytes: u64,
    /// By priority.
    lanes: [VecDeque<Delivery>; 3],
    /// Normal events since the last low one.
    turn: u32,
    /// By priority: names of which an event is running or waits for a retry, where order is kept.
    held: [HashMap<Name, Held>; 3],
    /// In the lanes, and parked but not aside; and what these own in bytes.
    queued: usize,
    bytes: u64,
    /// Aside, and what these own in bytes.
    aside: usize,
    aside_bytes: u64,
    /// Of all of these, dead letters that are offered again: they are not counted a second time.
    letters: usize,
    running: Vec<Running>,
    next_call: u64,
    /// Calls that run for longer than they should.
    overdue: usize,
    /// How often it stands in line for a worker, or is with one.
    pub(super) turns: usize,
    /// Somebody waits for room.
    pub(super) is_wanted: bool,
    pub(super) stats: HandlerStats,
}

/// What is parked behind an event, in order.
#[derive(Default)]
struct Held {
    parked: VecDeque<Delivery>,
    /// The event waits for a retry: these are aside with it.
    is_aside: bool,
    /// It is over, or to be called again: the first of that name in the lane goes on.
    is_next: bool,
}

/// A call.
struct Running {
    number: u64,
    since: Instant,
    is_overdue: bool,
    is_redriven: bool,
    /// It is about such a call.
    is_warning: bool,
    /// How many events led to its own.
    depth: u32,
}

/// A call that runs for longer than it should.
pub(super) struct Late {
    pub(super) elapsed: Duration,
    pub(super) is_warning: bool,
    pub(super) depth: u32,
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
    /// It was not called after all.
    Cancelled,
}

/// Why nothing is called any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Unsubscribed,
    /// The bus stops, and has no time left.
    Stopped,
}

/// The function, which ends, and what waited, with what becomes of it.
pub(super) type Closed = (Option<Arc<Call>>, Vec<(Delivery, End)>);

/// What is to be done without the lock, once a call has ended.
#[derive(Default)]
pub(super) struct Ended {
    pub(super) was_overdue: bool,
    /// What there was no room for aside.
    pub(super) overflow: Vec<Delivery>,
    /// What was shared. Events may end with it, which are foreign code.
    pub(super) remains: Vec<Arc<Flight>>,
}

/// How many low events there are for how many normal ones.
const NORMAL_PER_LOW: u32 = 2;

impl Mailbox {
    pub(super) fn new(handler: (Arc<Call>, bool, End), room: (usize, u64), stats: HandlerStats) -> Self {
        let (call, is_ordered, lost_as) = handler;
        Self {
            call: Some(call),
            why: None,
            is_ordered,
            lost_as,
            most: room.0,
            most_bytes: room.1,
            lanes: [VecDeque::new(), VecDeque::new(), VecDeque::new()],
            turn: 0,
            held: Default::default(),
            queued: 0,
            bytes: 0,
            aside: 0,
            aside_bytes: 0,
            letters: 0,
            running: Vec::new(),
            next_call: 0,
            overdue: 0,
            turns: 0,
            is_wanted: false,
            stats,
        }
    }

    /// Notes an event that came when the bus had stopped, and is cancelled; nothing where the handler was unsubscribed before.
    pub(super) fn come_late(&mut self) {
        if self.why == Some(Why::Stopped) {
            self.stats.matched += 1;
            self.count(End::Cancelled);
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.call.is_none()
    }

    /// Whether one of its calls runs for longer than it should.
    pub(super) fn hangs(&self) -> bool {
        self.overdue > 0
    }

    /// Whether another event may wait for a retry.
    pub(super) fn may_retry(&self) -> bool {
        !self.is_over() && self.has_room_aside()
    }

    fn has_room_aside(&self) -> bool {
        self.aside < self.most && (self.aside == 0 || self.aside_bytes < self.most_bytes)
    }

    /// Whether it takes this event in: there is room, or it needs none.
    pub(super) fn takes(&self, delivery: &Delivery) -> bool {
        !self.is_over() && (!self.is_full() || self.is_behind_retry(delivery))
    }

    fn is_behind_retry(&self, delivery: &Delivery) -> bool {
        let held = || self.held[delivery.get_priority() as usize].get(delivery.name());
        self.is_ordered && held().is_some_and(|held| held.is_aside)
    }

    /// Whether nothing is on its way.
    pub(super) fn is_quiet(&self) -> bool {
        self.queued == 0 && self.running.is_empty() && self.aside == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.queued >= self.most || self.queued > 0 && self.bytes >= self.most_bytes
    }

    /// Whether something may be taken out when `most` calls may run at once.
    pub(super) fn is_ready(&self, most: usize) -> bool {
        self.call.is_some() && !self.hangs() && self.running.len() < most && self.waiting() > 0
    }

    fn waiting(&self) -> usize {
        self.lanes.iter().map(VecDeque::len).sum::<usize>()
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

    /// Takes an event in; what has no room aside is lost, and comes out.
    pub(super) fn put(&mut self, delivery: Delivery, remains: &mut Vec<Arc<Flight>>) -> Option<Delivery> {
        self.stats.matched += 1;
        self.take_in(delivery, remains)
    }

    fn take_in(&mut self, delivery: Delivery, remains: &mut Vec<Arc<Flight>>) -> Option<Delivery> {
        if self.is_behind_retry(&delivery) {
            return self.put_aside(delivery, remains);
        }
        self.queued += 1;
        self.bytes += payload_of(&*delivery);
        self.lanes[delivery.get_priority() as usize].push_back(delivery);
        None
    }

    /// Notes an event that was not taken in, and is lost.
    pub(super) fn pass_by(&mut self) {
        self.stats.matched += 1;
        self.count(self.lost_as);
    }

    fn count(&mut self, end: End) {
        match end {
            End::Handled => self.stats.handled += 1,
            End::Failed => self.stats.failed += 1,
            End::DeadLettered => self.stats.dead_lettered += 1,
            End::Cancelled => self.stats.cancelled += 1,
            End::Again => self.stats.retries += 1,
        }
    }

    /// What becomes of events that are not taken.
    pub(super) fn lost_as(&self) -> End {
        self.lost_as
    }

    /// Whether who waits for room should be told.
    pub(super) fn has_much_room(&self) -> bool {
        self.queued <= self.most / 2 && !self.is_full()
    }

    /// A dead letter is offered again, like any event. What finds no room behind a retry comes back, and so does what comes to
    /// a handler that is unsubscribed.
    pub(super) fn put_letter(
        &mut self,
        delivery: Delivery,
        remains: &mut Vec<Arc<Flight>>,
    ) -> Option<Delivery> {
        if self.is_over() {
            return Some(delivery);
        }
        self.letters += 1;
        self.take_in(delivery, remains)
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
        self.letters -= usize::from(is_redriven);
        let is_warning = delivery.name() == PerformanceWarning::NAME;
        let (since, depth) = (now, delivery.depth());
        self.running.push(Running { number, since, is_overdue: false, is_redriven, is_warning, depth });
        Some(Begun { delivery, call, number })
    }

    fn next(&mut self) -> Option<Delivery> {
        loop {
            let delivery = self.next_of_lanes()?;
            if !self.is_ordered {
                return Some(delivery);
            }
            let held = &mut self.held[delivery.get_priority() as usize];
            match held.get_mut(delivery.name()) {
                Some(held) => {
                    if std::mem::take(&mut held.is_next) {
                        return Some(delivery);
                    }
                    held.parked.push_back(delivery);
                }
                None => {
                    held.insert(delivery.shared_name().clone(), Held::default());
                    return Some(delivery);
                }
            }
        }
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

    /// A call has ended.
    pub(super) fn end(
        &mut self,
        number: u64,
        delivery: &Delivery,
        end: End,
        now: Instant,
        deadline: Duration,
    ) -> Ended {
        let mut ended = Ended::default();
        let place = self.running.iter().position(|running| running.number == number);
        let Some(call) = place.map(|place| self.running.swap_remove(place)) else { return ended };
        ended.was_overdue = call.is_overdue;
        self.overdue -= usize::from(call.is_overdue);
        // It ended before anybody looked.
        let was_late = now.saturating_duration_since(call.since) >= deadline;
        self.stats.overdue += u64::from(was_late && !call.is_overdue);
        // What became of a letter before is counted: offered again, it can only change for the better.
        match end {
            End::Handled if call.is_redriven => self.stats.redriven += 1,
            _ if call.is_redriven => {}
            _ => self.count(end),
        }
        if end == End::Again {
            self.aside += 1;
            self.aside_bytes += payload_of(&**delivery);
        }
        if self.is_ordered {
            match end {
                End::Again => self.park_behind(delivery, &mut ended),
                _ => self.release(delivery),
            }
        }
        ended
    }

    /// Takes the function out, and all that waits but for retries that are not due: with what becomes of it. Nothing is called
    /// from now on. Letters among them are to be put back, and are not counted.
    pub(super) fn close(&mut self, why: Why) -> Closed {
        self.why = Some(why);
        let mut out: Vec<Delivery> = Vec::new();
        self.lanes.iter_mut().for_each(|lane| out.extend(lane.drain(..)));
        for (_, held) in self.held.iter_mut().flat_map(HashMap::drain) {
            if held.is_aside {
                self.aside -= held.parked.len();
                self.aside_bytes -= held.parked.iter().map(|parked| payload_of(&**parked)).sum::<u64>();
            }
            out.extend(held.parked);
        }
        (self.queued, self.bytes, self.letters) = (0, 0, 0);
        let out: Vec<_> = out.into_iter().map(|delivery| (self.uncalled_end(&delivery), delivery)).collect();
        out.iter().filter(|(_, it)| it.redriven.is_none()).for_each(|(end, _)| self.count(*end));
        (self.call.take(), out.into_iter().map(|(end, delivery)| (delivery, end)).collect())
    }

    /// What becomes of an event that is not called any more.
    pub(super) fn uncalled_end(&self, delivery: &Delivery) -> End {
        match self.why {
            Some(Why::Stopped) if delivery.is_kept => self.lost_as,
            _ => End::Cancelled,
        }
    }

    /// Marks calls that run for longer than they should.
    pub(super) fn look(&mut self, now: Instant, deadline: Duration) -> Vec<Late> {
        let mut late = Vec::new();
        for call in self.running.iter_mut().filter(|call| !call.is_overdue) {
            let elapsed = now.saturating_duration_since(call.since);
            if elapsed >= deadline {
                call.is_overdue = true;
                late.push(Late { elapsed, is_warning: call.is_warning, depth: call.depth });
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
        let running = self.running.iter().filter(|call| !call.is_redriven).count();
        let in_flight = (self.queued + self.aside - self.letters + running) as u64;
        HandlerStats { in_flight, ..self.stats.clone() }
    }
}

mod aside;
