//! The events of one handler: those that wait, those that are running, and the counts of all others. One lock guards them
//! together, so that the law of a handler holds at every moment:
//!
//! ```text
//! matched = handled + failed + dead_lettered + cancelled + in flight (queued | running | deferred | ending)
//! ```
//!
//! An event is deferred while it waits for a retry, or, where order is kept, behind such a retry. A deferred event takes no
//! space in the queue, shares no batch, and no flush waits for it. As many events may be deferred as may be queued. An event
//! for which that leaves no space is rejected at once.
//!
//! An event that ends without a call is ending until its dead letter is kept, and is counted then: who waits until nothing is in
//! flight finds every letter that is counted.
//!
//! A worker takes an event out under this lock. Whoever unsubscribes the handler takes the function out under the same lock,
//! and revokes the permit of the handler. The call comes after the lock is released, and asks the permit first: so no call
//! begins after an unsubscription.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use forebay::event::catalog::system::PerformanceWarning;
use forebay::{Name, Priority};
use forebay_sync::sync::Arc;

use super::delivery::Delivery;
use super::handler::Call;
use super::in_flight::InFlight;
use super::stats::HandlerStats;

/// Mailbox of a handler: everything about it that changes.
pub(super) struct Mailbox {
    /// The function; `None` once the handler is unsubscribed.
    call: Option<Arc<Call>>,
    /// Reason why the mailbox is closed; `None` while it is open.
    why: Option<CloseReason>,
    is_ordered: bool,
    /// Fate of an event that the handler does not take: `Failed` or `DeadLettered`.
    end_of_failed: End,
    /// The most events in the queue, and as many again deferred; likewise in bytes.
    max_events: usize,
    max_bytes: u64,
    /// Events that wait, by priority.
    lanes: [VecDeque<Delivery>; 3],
    /// Number of normal events that were taken since the last low one.
    turn: u32,
    /// Names, where order is kept, of which an event is running or waits for a retry, by priority.
    held: [HashMap<Name, Held>; 3],
    /// Events in the lanes, and parked events that are not deferred; and their bytes.
    queued: usize,
    bytes: u64,
    /// Deferred events, and their bytes.
    deferred: usize,
    deferred_bytes: u64,
    /// Events that end without a call, and are not counted yet.
    ending: usize,
    /// Dead letters among all of these, which are offered again: the law counts them no second time.
    redriven: usize,
    running: Vec<Running>,
    next_call: u64,
    /// Calls that have run past the deadline, as far as somebody looked.
    overdue: usize,
    /// Number of times that the handler is in the queue of the worker pool, or with a worker.
    pub(super) turns: usize,
    /// True if a thread waits for space, or for the end of calls.
    pub(super) has_waiters: bool,
    pub(super) stats: HandlerStats,
}

/// Events that wait behind another event of their name, in order.
#[derive(Default)]
struct Held {
    parked: VecDeque<Delivery>,
    /// True if the event waits for a retry, and these are deferred with it.
    is_deferred: bool,
    /// True if the first event of that name in the lane may go on: the event before is over, or due for its retry.
    is_next: bool,
}

/// Call that is running.
struct Running {
    number: u64,
    since: Instant,
    is_overdue: bool,
    is_redriven: bool,
    /// True if its event is itself a warning of an overdue call.
    is_warning: bool,
    /// Number of events that led to its event.
    depth: u32,
}

/// Call that was found to run past its deadline.
pub(super) struct OverdueCall {
    pub(super) elapsed: Duration,
    pub(super) is_warning: bool,
    pub(super) depth: u32,
}

/// Event that was taken out for a call, with the function to call.
pub(super) struct StartedCall {
    pub(super) delivery: Delivery,
    pub(super) call: Arc<Call>,
    pub(super) number: u64,
}

/// End of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Handled,
    Failed,
    DeadLettered,
    /// The handler is to be called again.
    Retry,
    /// The handler was not called after all.
    Cancelled,
}

/// Reason why a mailbox is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CloseReason {
    Unsubscribed,
    /// The bus stops, and has no time left.
    Stopped,
}

/// Contents of a mailbox that is closed: the function, and every event that waited with its end.
pub(super) type Closed = (Option<Arc<Call>>, Vec<(Delivery, End)>);

/// Work that the end of a call leaves to be done without the lock.
#[derive(Default)]
pub(super) struct Ended {
    pub(super) was_overdue: bool,
    /// Events that could not be deferred, for lack of space.
    pub(super) overflow: Vec<Delivery>,
    /// Batches that were shared. Events may end with them, and their destructors are user code.
    pub(super) remains: Vec<Arc<InFlight>>,
}

/// Number of normal events that are taken for each low one, while both wait.
const NORMAL_PER_LOW: u32 = 2;

impl Mailbox {
    pub(super) fn new(handler: (Arc<Call>, bool, End), limits: (usize, u64), stats: HandlerStats) -> Self {
        let (call, is_ordered, end_of_failed) = handler;
        Self {
            call: Some(call),
            why: None,
            is_ordered,
            end_of_failed,
            max_events: limits.0,
            max_bytes: limits.1,
            lanes: [VecDeque::new(), VecDeque::new(), VecDeque::new()],
            turn: 0,
            held: Default::default(),
            queued: 0,
            bytes: 0,
            deferred: 0,
            deferred_bytes: 0,
            ending: 0,
            redriven: 0,
            running: Vec::new(),
            next_call: 0,
            overdue: 0,
            turns: 0,
            has_waiters: false,
            stats,
        }
    }

    /// Counts an event that came to a closed mailbox: as cancelled after a stop, not at all after an unsubscription.
    pub(super) fn count_after_stop(&mut self) {
        if self.why == Some(CloseReason::Stopped) {
            self.stats.matched += 1;
            self.count(End::Cancelled);
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.call.is_none()
    }

    /// Returns whether a call is overdue.
    pub(super) fn hangs(&self) -> bool {
        self.overdue > 0
    }

    /// Returns whether another event may wait for a retry.
    pub(super) fn may_retry(&self) -> bool {
        !self.is_over() && self.has_room_for_deferred()
    }

    fn has_room_for_deferred(&self) -> bool {
        self.deferred < self.max_events && (self.deferred == 0 || self.deferred_bytes < self.max_bytes)
    }

    /// Returns whether the mailbox accepts this event: there is space, or the event needs none.
    pub(super) fn takes(&self, delivery: &Delivery) -> bool {
        !self.is_over() && (!self.is_full() || self.is_behind_retry(delivery))
    }

    fn is_behind_retry(&self, delivery: &Delivery) -> bool {
        let held = || self.held[delivery.priority() as usize].get(delivery.name());
        self.is_ordered && held().is_some_and(|held| held.is_deferred)
    }

    /// Returns whether nothing waits, runs, is deferred or ends.
    pub(super) fn is_quiet(&self) -> bool {
        self.queued == 0 && self.running.is_empty() && self.deferred == 0 && self.ending == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.queued >= self.max_events || self.queued > 0 && self.bytes >= self.max_bytes
    }

    /// Returns whether an event may be taken out, if `max_calls` calls may run at once.
    pub(super) fn is_ready(&self, max_calls: usize) -> bool {
        self.call.is_some() && !self.hangs() && self.running.len() < max_calls && self.waiting() > 0
    }

    fn waiting(&self) -> usize {
        self.lanes.iter().map(VecDeque::len).sum::<usize>()
    }

    /// Returns how many more turns the handler needs in the worker pool, and counts them as given.
    pub(super) fn take_turns(&mut self, max_calls: usize) -> usize {
        if !self.is_ready(max_calls) {
            return 0;
        }
        let more = max_calls.min(self.running.len() + self.waiting()).saturating_sub(self.turns);
        self.turns += more;
        more
    }

    /// Returns whether a critical event waits.
    pub(super) fn is_urgent(&self) -> bool {
        !self.lanes[Priority::Critical as usize].is_empty()
    }

    /// Puts an event in. Returns it if it would have to be deferred and there is no space: it is ending then.
    pub(super) fn put(&mut self, delivery: Delivery, remains: &mut Vec<Arc<InFlight>>) -> Option<Delivery> {
        self.stats.matched += 1;
        self.take_in(delivery, remains)
    }

    fn take_in(&mut self, delivery: Delivery, remains: &mut Vec<Arc<InFlight>>) -> Option<Delivery> {
        if self.is_behind_retry(&delivery) {
            return self.defer(delivery, remains);
        }
        self.queued += 1;
        self.bytes += delivery.owned_bytes();
        self.lanes[delivery.priority() as usize].push_back(delivery);
        None
    }

    /// Takes note of an event that is rejected. [`end_uncalled`](Self::end_uncalled) must follow, once its letter is kept.
    pub(super) fn reject(&mut self) {
        self.stats.matched += 1;
        self.ending += 1;
    }

    /// Takes note of a dead letter that is taken out of the list. [`end_uncalled`](Self::end_uncalled) must follow, once it is in
    /// the list again, or in here.
    pub(super) fn hold_letter(&mut self) {
        self.redriven += 1;
        self.ending += 1;
    }

    /// Counts an event that ended without a call, unless it was a dead letter before, whose first fate is counted already.
    pub(super) fn end_uncalled(&mut self, end: End, is_redriven: bool) {
        self.ending -= 1;
        if is_redriven {
            self.redriven -= 1;
        } else {
            self.count(end);
        }
    }

    fn count(&mut self, end: End) {
        match end {
            End::Handled => self.stats.handled += 1,
            End::Failed => self.stats.failed += 1,
            End::DeadLettered => self.stats.dead_lettered += 1,
            End::Cancelled => self.stats.cancelled += 1,
            End::Retry => self.stats.retries += 1,
        }
    }

    /// Returns what becomes of an event that the handler does not take.
    pub(super) fn end_of_failed(&self) -> End {
        self.end_of_failed
    }

    /// Returns whether there is space enough to wake those who wait for it.
    pub(super) fn has_much_room(&self) -> bool {
        self.queued <= self.max_events / 2 && !self.is_full()
    }

    /// Puts a dead letter in again, like any event. Returns it if it would have to be deferred and there is no space, or if the
    /// mailbox is closed: it is ending then.
    pub(super) fn put_redriven(
        &mut self,
        delivery: Delivery,
        remains: &mut Vec<Arc<InFlight>>,
    ) -> Option<Delivery> {
        if self.is_over() {
            self.hold_letter();
            return Some(delivery);
        }
        self.redriven += 1;
        self.take_in(delivery, remains)
    }

    /// Takes the next event out, for a call that starts now.
    pub(super) fn start_call(&mut self, max_calls: usize, now: Instant) -> Option<StartedCall> {
        if !self.is_ready(max_calls) {
            return None;
        }
        let call = Arc::clone(self.call.as_ref()?);
        let delivery = self.next()?;
        self.queued -= 1;
        self.bytes -= delivery.owned_bytes();
        let number = self.next_call;
        self.next_call += 1;
        let is_redriven = delivery.redriven.is_some();
        self.redriven -= usize::from(is_redriven);
        let is_warning = delivery.name() == PerformanceWarning::NAME;
        let (since, depth) = (now, delivery.depth());
        self.running.push(Running { number, since, is_overdue: false, is_redriven, is_warning, depth });
        Some(StartedCall { delivery, call, number })
    }

    fn next(&mut self) -> Option<Delivery> {
        loop {
            let delivery = self.next_of_lanes()?;
            if !self.is_ordered {
                return Some(delivery);
            }
            let held = &mut self.held[delivery.priority() as usize];
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

    /// Takes critical events first, then two normal ones for each low one.
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

    /// Ends a call.
    pub(super) fn end(
        &mut self,
        number: u64,
        delivery: &Delivery,
        end: End,
        now: Instant,
        deadline: Duration,
    ) -> Ended {
        let mut ended = Ended::default();
        let index = self.running.iter().position(|running| running.number == number);
        let Some(call) = index.map(|index| self.running.swap_remove(index)) else { return ended };
        ended.was_overdue = call.is_overdue;
        self.overdue -= usize::from(call.is_overdue);
        // It ended before the scheduler looked.
        let was_late = now.saturating_duration_since(call.since) >= deadline;
        self.stats.overdue += u64::from(was_late && !call.is_overdue);
        // The first fate of a dead letter is counted already. Offered again, it can only change for the better.
        match end {
            End::Handled if call.is_redriven => self.stats.redriven += 1,
            _ if call.is_redriven => {}
            _ => self.count(end),
        }
        if end == End::Retry {
            self.deferred += 1;
            self.deferred_bytes += delivery.owned_bytes();
        }
        if self.is_ordered {
            match end {
                End::Retry => self.defer_behind(delivery, &mut ended),
                _ => self.release_next(delivery),
            }
        }
        ended
    }

    /// Closes the mailbox: takes out the function, and all events that wait but for retries that are not due. No call starts
    /// from now on. These events are ending: the caller keeps the letters, and puts back those that were some before.
    pub(super) fn close(&mut self, why: CloseReason) -> Closed {
        self.why = Some(why);
        let mut out: Vec<Delivery> = Vec::new();
        self.lanes.iter_mut().for_each(|lane| out.extend(lane.drain(..)));
        for (_, held) in self.held.iter_mut().flat_map(HashMap::drain) {
            if held.is_deferred {
                self.deferred -= held.parked.len();
                self.deferred_bytes -= held.parked.iter().map(Delivery::owned_bytes).sum::<u64>();
            }
            out.extend(held.parked);
        }
        (self.queued, self.bytes) = (0, 0);
        self.ending += out.len();
        let with_end = |delivery: Delivery| {
            let end = self.uncalled_end(&delivery);
            (delivery, end)
        };
        let out = out.into_iter().map(with_end).collect();
        (self.call.take(), out)
    }

    /// Returns what becomes of an event for which the handler is not called any more.
    pub(super) fn uncalled_end(&self, delivery: &Delivery) -> End {
        match self.why {
            Some(CloseReason::Stopped) if delivery.is_kept => self.end_of_failed,
            _ => End::Cancelled,
        }
    }

    /// Marks calls that have run past the deadline, and returns those that were not marked before.
    pub(super) fn mark_overdue(&mut self, now: Instant, deadline: Duration) -> Vec<OverdueCall> {
        let mut late = Vec::new();
        for call in self.running.iter_mut().filter(|call| !call.is_overdue) {
            let elapsed = now.saturating_duration_since(call.since);
            if elapsed >= deadline {
                call.is_overdue = true;
                late.push(OverdueCall { elapsed, is_warning: call.is_warning, depth: call.depth });
            }
        }
        self.overdue += late.len();
        self.stats.overdue += late.len() as u64;
        late
    }

    /// Returns for how long all calls have run together, and when the oldest started. Overdue calls are left out.
    pub(super) fn running_time(&self, now: Instant) -> (Duration, Option<Instant>) {
        let since = self.running.iter().filter(|call| !call.is_overdue).map(|call| call.since);
        (since.clone().map(|since| now.saturating_duration_since(since)).sum(), since.min())
    }

    /// Returns how many calls run, and how many events are queued.
    pub(super) fn load(&self) -> (usize, usize) {
        (self.running.len(), self.queued)
    }

    pub(super) fn snapshot(&self) -> HandlerStats {
        let running = self.running.iter().filter(|call| !call.is_redriven).count();
        let in_flight = (self.queued + self.deferred + self.ending - self.redriven + running) as u64;
        HandlerStats { in_flight, ..self.stats.clone() }
    }

    /// Defers an event behind one that waits for a retry. Returns it if there is no space: it is ending then.
    pub(super) fn defer(
        &mut self,
        mut delivery: Delivery,
        remains: &mut Vec<Arc<InFlight>>,
    ) -> Option<Delivery> {
        if !self.has_room_for_deferred() {
            self.ending += 1;
            return Some(delivery);
        }
        delivery.detach(remains);
        self.deferred += 1;
        self.deferred_bytes += delivery.owned_bytes();
        if let Some(held) = self.held[delivery.priority() as usize].get_mut(delivery.name()) {
            held.parked.push_back(delivery);
        }
        None
    }

    /// Queues a retry that is due, and what is parked behind it. A flush waits for all of them by `awaited_by`. Returns the
    /// event if the mailbox is closed.
    pub(super) fn requeue(&mut self, mut delivery: Delivery, awaited_by: &Arc<InFlight>) -> Option<Delivery> {
        if self.is_over() {
            return Some(delivery);
        }
        self.move_to_queue(&mut delivery, awaited_by);
        self.move_parked_to_queue(&delivery, Some(awaited_by));
        self.put_first(delivery);
        None
    }

    /// Counts a deferred event as queued.
    fn move_to_queue(&mut self, delivery: &mut Delivery, awaited_by: &Arc<InFlight>) {
        let bytes = delivery.owned_bytes();
        (self.deferred, self.deferred_bytes) = (self.deferred - 1, self.deferred_bytes - bytes);
        (self.queued, self.bytes) = (self.queued + 1, self.bytes + bytes);
        delivery.awaited_by = Some(Arc::clone(awaited_by));
    }

    /// Counts the events that are parked behind a deferred one as queued.
    fn move_parked_to_queue(&mut self, delivery: &Delivery, awaited_by: Option<&Arc<InFlight>>) {
        let Some(held) = self.held[delivery.priority() as usize].get_mut(delivery.name()) else { return };
        if !std::mem::take(&mut held.is_deferred) {
            return;
        }
        let bytes = held.parked.iter().map(Delivery::owned_bytes).sum::<u64>();
        let parked = held.parked.len();
        held.parked.iter_mut().for_each(|parked| parked.awaited_by = awaited_by.cloned());
        (self.deferred, self.deferred_bytes) = (self.deferred - parked, self.deferred_bytes - bytes);
        (self.queued, self.bytes) = (self.queued + parked, self.bytes + bytes);
    }

    /// Defers all events of that name and priority behind a retry.
    pub(super) fn defer_behind(&mut self, retry: &Delivery, ended: &mut Ended) {
        let lane = retry.priority() as usize;
        let Some(held) = self.held[lane].get_mut(retry.name()) else { return };
        held.is_deferred = true;
        let mut behind = std::mem::take(&mut held.parked);
        let is_behind = |delivery: &Delivery| delivery.name() == retry.name();
        let (same, others) = std::mem::take(&mut self.lanes[lane]).into_iter().partition(is_behind);
        self.lanes[lane] = others;
        let same: VecDeque<Delivery> = same;
        behind.extend(same);
        for delivery in behind {
            self.queued -= 1;
            self.bytes -= delivery.owned_bytes();
            ended.overflow.extend(self.defer(delivery, &mut ended.remains));
        }
    }

    /// Lets the next event of the name and priority of `before` go on, if one waits behind it.
    pub(super) fn release_next(&mut self, before: &Delivery) {
        let lane = &mut self.held[before.priority() as usize];
        let Some(held) = lane.get_mut(before.name()) else { return };
        match held.parked.pop_front() {
            Some(next) => self.put_first(next),
            None => _ = lane.remove(before.name()),
        }
    }

    /// Puts an event at the front of its own lane, so that it overtakes no event of a higher priority.
    fn put_first(&mut self, delivery: Delivery) {
        let lane = delivery.priority() as usize;
        if let Some(held) = self.held[lane].get_mut(delivery.name()) {
            held.is_next = true;
        }
        self.lanes[lane].push_front(delivery);
    }

    /// Ends an event whose retry will not be made. What is parked behind it goes on.
    pub(super) fn give_up(&mut self, retry: &Delivery, end: End) {
        self.deferred -= 1;
        self.deferred_bytes -= retry.owned_bytes();
        self.count(end);
        self.move_parked_to_queue(retry, None);
        self.release_next(retry);
    }
}
