//! `Queues`: events that wait for handlers in Python, one bounded queue a handler.
//!
//! The workers of the bus put events in, and never wait for Python: a handler that is behind loses its oldest events, counted. Threads of
//! Python take them out. A queue is in one list of those that are ready, or its call runs, or it is empty: so that a handler has one call
//! at a time, and its order.
//!
//! Rejected: calls by the workers of the bus, whose mailboxes would be the only queues. A worker that waits for the GIL holds the bus back
//! for as long as some handler computes, and one that waits while the interpreter ends never returns.
//!
//! An [`Emission`] ends when the last of its [`Pending`] parts does: what the bus holds of the event, and what every queue holds.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use forebay::{Event, Priority, Record};
use forebay_bus::SubscriptionId;
use forebay_sync::sync::{Arc, Condvar, Mutex, Ordering, PlainU64, Weak};

/// An event that was emitted, as the code that emitted it sees it.
pub(crate) struct Emission {
    pub(crate) handled: PlainU64,
    pub(crate) failed: PlainU64,
    pub(crate) evicted: PlainU64,
    pub(crate) cancelled: PlainU64,
    /// The event loop whose handlers it does not wait for, because its thread waits; 0 if there is none.
    pub(crate) unawaited_loop: u64,
    end: Mutex<EmissionEnd>,
    ended: Condvar,
    queues: Weak<Queues>,
}

#[derive(Default)]
struct EmissionEnd {
    is_over: bool,
    /// The numbers by which tasks wait for it.
    tokens: Vec<u64>,
}

impl Emission {
    pub(crate) fn new(queues: &Arc<Queues>, unawaited_loop: u64) -> Arc<Self> {
        Arc::new(Self {
            handled: PlainU64::new(0),
            failed: PlainU64::new(0),
            evicted: PlainU64::new(0),
            cancelled: PlainU64::new(0),
            unawaited_loop,
            end: Mutex::new(EmissionEnd::default()),
            ended: Condvar::new(),
            queues: Arc::downgrade(queues),
        })
    }

    /// Returns whether its handlers are done. In a forked child, nobody would do anything more.
    pub(crate) fn is_over(&self) -> bool {
        self.end.enter().map_or(true, |end| end.is_over)
    }

    /// Waits until its handlers are done, and returns whether they are.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let Ok(mut end) = self.end.enter() else { return true };
        while !end.is_over {
            if self.ended.wait_until(&mut end, Some(deadline)) {
                break;
            }
        }
        end.is_over
    }

    /// Has the number be a notice once the handlers are done. Returns `false` if they are already.
    pub(crate) fn watch(&self, token: u64) -> bool {
        let Ok(mut end) = self.end.enter() else { return false };
        if !end.is_over {
            end.tokens.push(token);
        }
        !end.is_over
    }

    fn count(&self, fate: Fate) {
        let count = match fate {
            Fate::Handled => &self.handled,
            Fate::Failed => &self.failed,
            Fate::Evicted => &self.evicted,
            Fate::Cancelled => &self.cancelled,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Part of an event that is not over: the drop of the last one ends its emission.
pub(crate) struct Pending(pub(crate) Arc<Emission>);

impl Drop for Pending {
    fn drop(&mut self) {
        let Ok(mut end) = self.0.end.enter() else { return };
        end.is_over = true;
        let tokens = std::mem::take(&mut end.tokens);
        drop(end);
        self.0.ended.notify_all();
        if let Some(queues) = self.0.queues.upgrade().filter(|_| !tokens.is_empty()) {
            queues.notify(&tokens);
        }
    }
}

/// What goes with an event through the bus.
pub(crate) struct Tracked {
    pub(crate) emission: Arc<Emission>,
    pub(crate) pending: Arc<Pending>,
    /// Number of events that led to it, each emitted by a handler of the one before.
    pub(crate) depth: u32,
}

/// Event that waits for a handler, or whose call runs.
pub(crate) struct Item {
    pub(crate) record: Record,
    pub(crate) depth: u32,
    number: u64,
    emission: Option<Arc<Emission>>,
    /// Dropped with the item: who waits for the event goes on.
    _pending: Option<Arc<Pending>>,
}

impl Item {
    fn count(&self, fate: Fate) {
        if let Some(emission) = &self.emission {
            emission.count(fate);
        }
    }

    fn letter(&self, key: u64, handler: &str, error: String) -> DeadLetter {
        DeadLetter {
            key,
            handler: handler.to_owned(),
            record: self.record.clone(),
            error,
            time: SystemTime::now(),
        }
    }
}

/// Fate of an event at one handler.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Handled,
    Failed,
    Evicted,
    Cancelled,
}

/// The account of one handler: `matched` is the sum of the others.
#[derive(Clone, Default)]
pub(crate) struct Counts {
    pub(crate) matched: u64,
    pub(crate) handled: u64,
    pub(crate) failed: u64,
    pub(crate) evicted: u64,
    pub(crate) cancelled: u64,
    pub(crate) in_flight: u64,
    pub(crate) last_error: Option<String>,
}

impl Counts {
    /// Moves an event from `in_flight` to its fate.
    fn end(&mut self, fate: Fate) {
        self.in_flight = self.in_flight.saturating_sub(1);
        match fate {
            Fate::Handled => self.handled += 1,
            Fate::Failed => self.failed += 1,
            Fate::Evicted => self.evicted += 1,
            Fate::Cancelled => self.cancelled += 1,
        }
    }

    fn add(&mut self, gone: &Self) {
        self.matched += gone.matched;
        self.handled += gone.handled;
        self.failed += gone.failed;
        self.evicted += gone.evicted;
        self.cancelled += gone.cancelled;
        self.in_flight += gone.in_flight;
    }
}

/// Who makes the calls of a handler.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A thread of the bus.
    Thread,
    /// The event loop of that number, which is never 0.
    Loop(u64),
}

/// Queue of one handler.
struct Queue {
    name: String,
    caller: Caller,
    /// The most events of one call.
    batch: usize,
    id: Option<SubscriptionId>,
    /// The critical ones, then the others, each in order.
    events: VecDeque<Item>,
    /// Number of critical ones.
    critical: usize,
    /// Bytes that these events own.
    bytes: usize,
    /// True while it is in a list of those that are ready, or its call runs.
    is_busy: bool,
    /// Lowest number of the events of the call that runs.
    running: Option<u64>,
    counts: Counts,
}

/// An event that a handler did not take.
pub(crate) struct DeadLetter {
    pub(crate) key: u64,
    pub(crate) handler: String,
    pub(crate) record: Record,
    pub(crate) error: String,
    pub(crate) time: SystemTime,
}

impl DeadLetter {
    fn owned_bytes(&self) -> usize {
        let texts = self.handler.len().saturating_add(self.error.len());
        Event::size_hint(&self.record).saturating_add(texts)
    }
}

/// Limits of the queues.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// The most events that wait for one handler.
    pub(crate) events: usize,
    /// The most bytes that these own, but for one event; and the most that the dead letters own, but for one.
    pub(crate) bytes: usize,
    /// The most dead letters that are kept.
    pub(crate) dead_letters: usize,
}

pub(crate) struct Queues {
    limits: Limits,
    state: Mutex<State>,
    /// Notified when a call is ready for a thread.
    calls: Condvar,
    /// Notified when there is a notice.
    notices: Condvar,
    /// Notified when a call has ended.
    idle: Condvar,
    /// Time of all calls, by powers of two nanoseconds: the number of calls in each.
    times: [PlainU64; 64],
    /// Nanoseconds of all calls.
    time: PlainU64,
}

#[derive(Default)]
struct State {
    queues: BTreeMap<u64, Queue>,
    last_key: u64,
    /// Number of the last event that was put in.
    last_number: u64,
    /// Queues whose calls are ready for a thread.
    for_threads: VecDeque<u64>,
    /// Queues whose calls are ready for their loop.
    for_loops: VecDeque<u64>,
    /// Emissions that have ended and for which a task waits.
    over: VecDeque<u64>,
    /// Calls that run for handlers that are not subscribed any more: the lowest number of each.
    gone_running: Vec<u64>,
    gone: Counts,
    letters: Letters,
    is_closed: bool,
}

/// Something for the thread that notifies event loops.
pub(crate) enum Notice {
    /// A call for the handler's loop.
    Call(u64, Vec<Item>),
    /// The emission has ended for which a task waits by that number.
    Over(u64),
}

impl Queue {
    fn has_room(&self, bytes: usize, limits: Limits) -> bool {
        self.events.is_empty()
            || self.events.len() < limits.events && self.bytes.saturating_add(bytes) <= limits.bytes
    }

    /// Returns the lowest number of the events that wait or are in a call.
    fn first(&self) -> Option<u64> {
        let waiting = [self.events.front(), self.events.get(self.critical)];
        waiting.into_iter().flatten().map(|item| item.number).chain(self.running).min()
    }
}

impl State {
    /// Takes the events of the next call out of a queue. Returns `None` where there are none.
    fn begin(&mut self, key: u64) -> Option<Vec<Item>> {
        let queue = self.queues.get_mut(&key)?;
        let count = queue.batch.min(queue.events.len());
        let items: Vec<Item> = queue.events.drain(..count).collect();
        queue.bytes = queue.bytes.saturating_sub(items.iter().map(owned_bytes).sum());
        queue.critical = queue.critical.saturating_sub(count);
        queue.running = first(&items);
        queue.is_busy = !items.is_empty();
        queue.is_busy.then_some(items)
    }

    /// Returns whether the events up to a number are over, but for those of one loop.
    fn is_done(&self, number: u64, unawaited_loop: u64) -> bool {
        self.gone_running.iter().all(|first| *first > number)
            && self.queues.values().all(|queue| {
                let is_unawaited = matches!(queue.caller, Caller::Loop(key) if key == unawaited_loop);
                is_unawaited || queue.first().is_none_or(|first| first > number)
            })
    }
}

/// Dead letters, of which the oldest go.
#[derive(Default)]
struct Letters {
    kept: VecDeque<DeadLetter>,
    /// Bytes that these own.
    bytes: usize,
    evicted: u64,
}

impl Letters {
    /// Keeps a letter. Returns those that go for it.
    fn keep(&mut self, letter: DeadLetter, limits: Limits) -> Vec<DeadLetter> {
        self.bytes = self.bytes.saturating_add(letter.owned_bytes());
        self.kept.push_back(letter);
        let mut evicted = Vec::new();
        while self.kept.len() > limits.dead_letters || self.bytes > limits.bytes && self.kept.len() > 1 {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(oldest.owned_bytes());
            self.evicted += 1;
            evicted.push(oldest);
        }
        evicted
    }

    /// Takes all of them out.
    fn take(&mut self) -> VecDeque<DeadLetter> {
        self.bytes = 0;
        std::mem::take(&mut self.kept)
    }
}

/// Returns the lowest number of events.
fn first(items: &[Item]) -> Option<u64> {
    items.iter().map(|item| item.number).min()
}

fn owned_bytes(item: &Item) -> usize {
    Event::size_hint(&item.record)
}

impl Queues {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            state: Mutex::new(State::default()),
            calls: Condvar::new(),
            notices: Condvar::new(),
            idle: Condvar::new(),
            times: [const { PlainU64::new(0) }; 64],
            time: PlainU64::new(0),
        })
    }

    /// Adds the queue of a handler, and returns its number. Returns `None` once they are closed, and in a forked child.
    pub(crate) fn add(&self, name: String, caller: Caller, batch: usize) -> Option<u64> {
        let mut state = self.state.enter().ok().filter(|state| !state.is_closed)?;
        state.last_key += 1;
        let key = state.last_key;
        let queue = Queue {
            name,
            caller,
            batch: batch.max(1),
            id: None,
            events: VecDeque::new(),
            critical: 0,
            bytes: 0,
            is_busy: false,
            running: None,
            counts: Counts::default(),
        };
        state.queues.insert(key, queue);
        Some(key)
    }

    /// Says which subscription of the bus fills a queue.
    pub(crate) fn set_id(&self, key: u64, id: SubscriptionId) {
        if let Ok(mut state) = self.state.enter()
            && let Some(queue) = state.queues.get_mut(&key)
        {
            queue.id = Some(id);
        }
    }

    /// Removes a queue. What waits in it is cancelled. Returns the subscription that filled it.
    pub(crate) fn remove(&self, key: u64) -> Option<Option<SubscriptionId>> {
        let mut state = self.state.enter().ok()?;
        let mut queue = state.queues.remove(&key)?;
        for item in &queue.events {
            queue.counts.end(Fate::Cancelled);
            item.count(Fate::Cancelled);
        }
        state.gone_running.extend(queue.running);
        state.gone.add(&queue.counts);
        drop(state);
        self.idle.notify_all();
        // Those who wait for its events are woken without the lock.
        let id = queue.id;
        drop(queue);
        Some(id)
    }

    /// Puts an event into a queue, on a worker of the bus. The oldest go where it is full, but for critical ones. Where it is full of
    /// these, another critical one becomes a dead letter. Returns `false` if there is no such queue, or no longer.
    pub(crate) fn push(&self, key: u64, record: &Record, tracked: Option<&Tracked>) -> bool {
        let Ok(mut state) = self.state.enter() else { return false };
        let mut evicted = Vec::new();
        let State { queues, last_number, for_threads, for_loops, letters, is_closed, .. } = &mut *state;
        let Some(queue) = queues.get_mut(&key).filter(|_| !*is_closed) else { return false };
        *last_number += 1;
        let is_awaited =
            |it: &Tracked| !matches!(queue.caller, Caller::Loop(key) if key == it.emission.unawaited_loop);
        let item = Item {
            record: record.clone(),
            depth: tracked.map_or(0, |it| it.depth),
            number: *last_number,
            emission: tracked.map(|it| Arc::clone(&it.emission)),
            _pending: tracked.filter(|it| is_awaited(it)).map(|it| Arc::clone(&it.pending)),
        };
        queue.counts.matched += 1;
        queue.counts.in_flight += 1;
        let bytes = owned_bytes(&item);
        while !queue.has_room(bytes, self.limits) {
            let Some(oldest) = queue.events.remove(queue.critical) else { break };
            queue.bytes = queue.bytes.saturating_sub(owned_bytes(&oldest));
            queue.counts.end(Fate::Evicted);
            oldest.count(Fate::Evicted);
            evicted.push(oldest);
        }
        let is_critical = Event::priority(record) == Priority::Critical;
        if !queue.has_room(bytes, self.limits) {
            let fate = if is_critical { Fate::Failed } else { Fate::Evicted };
            queue.counts.end(fate);
            item.count(fate);
            let letter = is_critical.then(|| {
                let error = "its queue is full of critical events".to_owned();
                queue.counts.last_error = Some(error.clone());
                letters.keep(item.letter(key, &queue.name, error), self.limits)
            });
            drop(state);
            drop((item, letter, evicted));
            return true;
        }
        queue.bytes += bytes;
        if is_critical {
            queue.events.insert(queue.critical, item);
            queue.critical += 1;
        } else {
            queue.events.push_back(item);
        }
        if !queue.is_busy {
            queue.is_busy = true;
            match queue.caller {
                Caller::Thread => {
                    for_threads.push_back(key);
                    self.calls.notify_one();
                }
                Caller::Loop(_) => {
                    for_loops.push_back(key);
                    self.notices.notify_one();
                }
            }
        }
        drop(state);
        drop(evicted);
        true
    }

    /// Adds notices: the emission has ended for which tasks wait.
    fn notify(&self, tokens: &[u64]) {
        let Ok(mut state) = self.state.enter() else { return };
        state.over.extend(tokens);
        self.notices.notify_one();
    }

    /// Waits for a call that a thread is to make. Returns `None` once they are closed.
    pub(crate) fn next_call(&self) -> Option<(u64, Vec<Item>)> {
        let mut state = self.state.enter().ok()?;
        loop {
            while let Some(key) = state.for_threads.pop_front() {
                if let Some(items) = state.begin(key) {
                    return Some((key, items));
                }
            }
            if state.is_closed {
                return None;
            }
            self.calls.wait_until(&mut state, None);
        }
    }

    /// Waits for a notice. Returns `None` once they are closed.
    pub(crate) fn next_notice(&self) -> Option<Notice> {
        let mut state = self.state.enter().ok()?;
        loop {
            if let Some(token) = state.over.pop_front() {
                return Some(Notice::Over(token));
            }
            while let Some(key) = state.for_loops.pop_front() {
                if let Some(items) = state.begin(key) {
                    return Some(Notice::Call(key, items));
                }
            }
            if state.is_closed {
                return None;
            }
            self.notices.wait_until(&mut state, None);
        }
    }

    /// Ends a call. What failed becomes dead letters. Returns the next call of the handler, where the caller takes it: its loop.
    pub(crate) fn end(
        &self,
        key: u64,
        items: Vec<Item>,
        fate: Fate,
        error: Option<String>,
        time: Duration,
        takes_next: bool,
    ) -> Option<Vec<Item>> {
        let mut state = self.state.enter().ok()?;
        if fate != Fate::Cancelled {
            let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1);
            self.times[nanos.ilog2() as usize].fetch_add(1, Ordering::Relaxed);
            self.time.fetch_add(nanos, Ordering::Relaxed);
        }
        let first = first(&items);
        let (mut ready, mut handler) = (None, String::new());
        let State { queues, gone, gone_running, .. } = &mut *state;
        let counts = match queues.get_mut(&key) {
            Some(queue) => {
                queue.running = None;
                queue.is_busy = !queue.events.is_empty();
                ready = queue.is_busy.then_some(queue.caller);
                handler.clone_from(&queue.name);
                &mut queue.counts
            }
            None => {
                if let Some(index) = gone_running.iter().position(|running| Some(*running) == first) {
                    gone_running.swap_remove(index);
                }
                gone
            }
        };
        for item in &items {
            counts.end(fate);
            item.count(fate);
        }
        let mut remains = Vec::new();
        if let Some(error) = error {
            counts.last_error = Some(error.clone());
            for item in &items {
                remains.extend(state.letters.keep(item.letter(key, &handler, error.clone()), self.limits));
            }
        }
        let mut next = None;
        match ready {
            Some(Caller::Thread) => {
                state.for_threads.push_back(key);
                self.calls.notify_one();
            }
            Some(Caller::Loop(_)) if takes_next => next = state.begin(key),
            Some(Caller::Loop(_)) => {
                state.for_loops.push_back(key);
                self.notices.notify_one();
            }
            None => {}
        }
        drop(state);
        self.idle.notify_all();
        drop((items, remains));
        next
    }

    /// Returns the number of the last event that was put in.
    pub(crate) fn last_number(&self) -> u64 {
        self.state.enter().map_or(0, |state| state.last_number)
    }

    /// Waits until the events up to a number are over, but for those of one loop. Returns whether they are.
    pub(crate) fn wait(&self, number: u64, unawaited_loop: u64, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let Ok(mut state) = self.state.enter() else { return true };
        while !state.is_done(number, unawaited_loop) {
            if self.idle.wait_until(&mut state, Some(deadline)) {
                return state.is_done(number, unawaited_loop);
            }
        }
        true
    }

    /// Cancels what waits, and ends the threads that wait for calls.
    pub(crate) fn close(&self) {
        let Ok(mut state) = self.state.enter() else { return };
        state.is_closed = true;
        let mut cancelled = Vec::new();
        for queue in state.queues.values_mut() {
            for item in queue.events.drain(..) {
                queue.counts.end(Fate::Cancelled);
                item.count(Fate::Cancelled);
                cancelled.push(item);
            }
            (queue.bytes, queue.critical) = (0, 0);
        }
        drop(state);
        // Before the threads end: those that wait for these events get a notice.
        drop(cancelled);
        self.calls.notify_all();
        self.notices.notify_all();
        self.idle.notify_all();
    }

    /// Returns the name and the account of every handler, then that of all that are gone.
    pub(crate) fn counts(&self) -> (Vec<(u64, String, Counts)>, Counts) {
        let Ok(state) = self.state.enter() else { return Default::default() };
        let each = |(key, queue): (&u64, &Queue)| (*key, queue.name.clone(), queue.counts.clone());
        (state.queues.iter().map(each).collect(), state.gone.clone())
    }

    /// Returns the mean time of a call, and the times that 50, 95 and 99 of 100 take, to within a factor of two, in milliseconds.
    pub(crate) fn times(&self) -> [f64; 4] {
        let counts: Vec<u64> = self.times.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let calls: u64 = counts.iter().sum();
        if calls == 0 {
            return [0.0; 4];
        }
        let quantile = |part: f64| {
            let mut left = (part * calls as f64).ceil() as u64;
            for (power, count) in counts.iter().enumerate() {
                left = left.saturating_sub(*count);
                if left == 0 {
                    return 2f64.powi(power as i32 + 1) / 1e6;
                }
            }
            0.0
        };
        let mean = self.time.load(Ordering::Relaxed) as f64 / calls as f64 / 1e6;
        [mean, quantile(0.5), quantile(0.95), quantile(0.99)]
    }

    /// Calls `each` with every dead letter. Returns how many were evicted.
    pub(crate) fn with_dead_letters(&self, mut each: impl FnMut(&DeadLetter)) -> u64 {
        let Ok(state) = self.state.enter() else { return 0 };
        state.letters.kept.iter().for_each(&mut each);
        state.letters.evicted
    }

    /// Takes all dead letters out.
    pub(crate) fn take_dead_letters(&self) -> VecDeque<DeadLetter> {
        self.state.enter().map_or_else(|_| VecDeque::new(), |mut state| state.letters.take())
    }

    /// Offers all dead letters again to the handlers that they come from. Those of handlers that are gone stay.
    pub(crate) fn redrive(&self) -> usize {
        let letters = self.take_dead_letters();
        let mut offered = 0;
        for letter in letters {
            if self.push(letter.key, &letter.record, None) {
                offered += 1;
            } else if let Ok(mut state) = self.state.enter() {
                let evicted = state.letters.keep(letter, self.limits);
                drop(state);
                drop(evicted);
            }
        }
        offered
    }
}
