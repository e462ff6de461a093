//! What handlers, workers, foreman and dispatcher share: who is subscribed, and the turns of those who are called. Who calls
//! is another matter: workers (`crew.rs`), or whoever emits.
//!
//! No lock is held while a handler, a filter or a destructor of theirs runs. Where two locks are held at once, they are
//! taken in this order: the roster, under which the table is exchanged; a mailbox; the line of handlers that wait for a
//! worker. All others are taken alone.

use std::collections::VecDeque;
use std::fmt;
use std::time::Instant;

use arc_swap::ArcSwap;

use super::chores::Chores;
use super::context;
use super::crew::Crew;
use super::handler::{Flight, Handler, Tower};
use super::mailbox::{Closed, End, Mailbox, Why};
use super::settle::{call, end, letter_of, note};
use super::table::{Fixed, Subscriber, Table};
use super::tally::Tally;
use super::timers::Timers;
use super::{BusConfig, HandlerStats, Mode, Shared, SubscribeError, SubscriptionId};
use crate::batch::Batch;
use crate::clock::Clock;
use crate::event::Record;
use crate::sink::DeadLetters;
use crate::sync::{Arc, Forked, Mutex, OnceLock, Ordering, PlainU64, Weak};

/// What handles, workers, foreman and dispatcher share.
pub(super) struct Engine {
    pub(super) config: BusConfig,
    pub(super) clock: Clock,
    table: ArcSwap<Table>,
    roster: Mutex<Roster>,
    pub(super) crew: Crew,
    pub(super) timers: Timers,
    pub(super) chores: Chores,
    pub(super) letters: DeadLetters<Record>,
    pub(super) tower: Arc<Tower>,
    /// Those that may not have ended, oldest first.
    pub(super) flights: Mutex<VecDeque<Weak<Flight>>>,
    pub(super) tally: Tally,
    /// The header of events that came in no batch.
    pub(super) blank: Batch<Record>,
    /// Why there are no threads, although there should be.
    pub(super) failure: OnceLock<String>,
    /// 1 once the bus stops. Relaxed: an event that comes meanwhile may come to handlers, or not.
    is_refusing: PlainU64,
    /// For events that the bus emits itself.
    pub(super) voice: OnceLock<Weak<Shared>>,
}

/// Changes the table; remembers those who left it.
#[derive(Default)]
struct Roster {
    /// Unsubscribed, but busy.
    leaving: Vec<Arc<Subscriber>>,
    gone: HandlerStats,
    is_closed: bool,
}

/// A turn that is being served.
pub(super) struct Turn<'a> {
    engine: &'a Engine,
    subscriber: &'a Arc<Subscriber>,
    is_over: bool,
}

impl Drop for Turn<'_> {
    /// To the end of the line, if there is more; also where it ends by a panic.
    fn drop(&mut self) {
        if !self.is_over {
            self.subscriber.mailbox.lock().turns -= 1;
            self.engine.line_up(self.subscriber);
        }
    }
}

/// How many calls a worker makes for one handler before it lets others have a turn.
const BURST: usize = 64;

impl Engine {
    pub(super) fn new(config: BusConfig, clock: Clock) -> Self {
        Self {
            crew: Crew::new(config.workers),
            letters: DeadLetters::new(config.dead_letters),
            config,
            clock,
            table: ArcSwap::from_pointee(Table::default()),
            roster: Mutex::default(),
            timers: Timers::default(),
            chores: Chores::default(),
            tower: Arc::default(),
            flights: Mutex::default(),
            tally: Tally::default(),
            blank: Batch::from_events(Vec::new()),
            failure: OnceLock::new(),
            is_refusing: PlainU64::new(0),
            voice: OnceLock::new(),
        }
    }

    pub(super) fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// Takes no event any more from those who give them to the handlers themselves.
    pub(super) fn refuse(&self) {
        self.is_refusing.store(1, Ordering::Relaxed);
    }

    pub(super) fn is_refusing(&self) -> bool {
        self.is_refusing.load(Ordering::Relaxed) != 0
    }

    /// By which a thread knows that it makes calls for this bus.
    pub(super) fn place(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// How many calls of that handler may run at once.
    fn most(&self, subscriber: &Subscriber) -> usize {
        match self.config.mode {
            Mode::Pooled => subscriber.at_once.min(self.crew.target()),
            Mode::Inline => subscriber.at_once.min(BURST),
        }
    }

    pub(super) fn subscribe(&self, handler: Handler) -> Result<SubscriptionId, SubscribeError> {
        handler.validate()?;
        let name = handler.label();
        // Never used again, and the owner of its dead letters.
        let id = DeadLetters::<Record>::new_owner();
        let stats = HandlerStats { id: SubscriptionId(id), name: name.clone(), ..HandlerStats::default() };
        let room = (self.config.handler_queue, self.config.handler_bytes);
        let lost_as = if handler.is_discarding { End::Failed } else { End::DeadLettered };
        let mailbox = Mailbox::new((handler.call, handler.is_ordered, lost_as), room, stats);
        let fixed = Fixed {
            id,
            name,
            topics: handler.topics,
            typed: handler.typed,
            filters: handler.filters,
            at_once: handler.at_once,
            retry: handler.retry.unwrap_or_else(|| self.config.retry.clone()),
            deadline: handler.deadline.unwrap_or(self.config.deadline),
            is_discarding: handler.is_discarding,
            is_plugin: handler.is_plugin,
        };
        let subscriber = Subscriber::new(fixed, mailbox);
        let roster = self.roster.enter()?;
        let mut subscribers = self.table().subscribers.clone();
        let most = self.config.max_subscribers;
        let refused = match subscribers.len() {
            _ if roster.is_closed => Some(SubscribeError::Stopped),
            full if full >= most => Some(SubscribeError::TooMany { most }),
            _ => None,
        };
        if let Some(refused) = refused {
            // The function is foreign code, and ends with the subscriber: not under the lock.
            drop(roster);
            return Err(refused);
        }
        subscribers.push(subscriber);
        self.table.store(Arc::new(Table::new(subscribers)));
        self.letters.add_taker(id);
        Ok(SubscriptionId(id))
    }

    /// Takes a handler out; `None` if there is none of that id.
    pub(super) fn unsubscribe(&self, id: SubscriptionId) -> Option<Arc<Subscriber>> {
        let mut roster = self.roster.enter().ok()?;
        let mut subscribers = self.table().subscribers.clone();
        let place = subscribers.iter().position(|subscriber| subscriber.id == id.0)?;
        let subscriber = subscribers.remove(place);
        self.table.store(Arc::new(Table::new(subscribers)));
        // Closed before anybody can sum it up: nothing more comes to it.
        let closed = subscriber.close(Why::Unsubscribed);
        roster.leaving.push(Arc::clone(&subscriber));
        drop(roster);
        self.letters.remove_taker(id.0);
        self.end_closed(&subscriber, closed);
        self.give_up_all(&subscriber);
        // Those that have ended since are summed up, whether somebody asks for statistics or not.
        let over = self.fold_leaving(&mut self.roster.lock());
        end(over);
        Some(subscriber)
    }

    /// Sees to what has come out of a mailbox that is closed: no call of it begins any more.
    pub(super) fn end_closed(&self, subscriber: &Subscriber, (call, out): Closed) {
        subscriber.changed.notify_all();
        for (delivery, end_as) in out {
            if delivery.redriven.is_some() {
                self.put_back(subscriber, delivery);
                continue;
            }
            if end_as == End::DeadLettered {
                let mut letter = letter_of(&delivery, format!("{}: the bus has stopped", subscriber.name));
                letter.attempts -= 1;
                self.letters.keep(subscriber.id, vec![letter]);
            }
            // What was called before is told.
            if delivery.attempt == 0 {
                note(&delivery, |progress| progress.cancelled += 1);
            }
            end(delivery);
        }
        end(call);
    }

    /// Waits until no call of a handler runs that was unsubscribed; `false` when the deadline came first.
    pub(super) fn await_idle(&self, subscriber: &Subscriber, deadline: Option<Instant>) -> bool {
        let mut mailbox = subscriber.mailbox.lock();
        while mailbox.load().0 > 0 {
            mailbox.is_wanted = true;
            if subscriber.changed.wait_until(&mut mailbox, deadline) {
                return mailbox.load().0 == 0;
            }
        }
        true
    }

    /// Has a handler stand in line as often as it has use for a worker.
    pub(super) fn line_up(&self, subscriber: &Arc<Subscriber>) {
        let most = self.most(subscriber);
        let mut mailbox = subscriber.mailbox.lock();
        let is_urgent = mailbox.is_urgent();
        let mut turns = mailbox.take_turns(most);
        if is_urgent && turns == 0 && mailbox.turns <= most && mailbox.is_ready(most) {
            // It stands among the others already.
            mailbox.turns += 1;
            turns = 1;
        }
        drop(mailbox);
        if self.crew.line_up(subscriber, turns, is_urgent) {
            self.timers.ring();
        }
    }

    pub(super) fn turn<'a>(&'a self, subscriber: &'a Arc<Subscriber>) -> Turn<'a> {
        Turn { engine: self, subscriber, is_over: false }
    }

    /// A turn of a handler: calls it with what waits, up to a burst.
    pub(super) fn serve(&self, subscriber: &Arc<Subscriber>) {
        let mut turn = self.turn(subscriber);
        let mut now = self.clock.now();
        for left in (0..BURST).rev() {
            let most = self.most(subscriber);
            let mut mailbox = subscriber.mailbox.lock();
            let begun = mailbox.begin(most, now);
            self.tell_waiters(subscriber, &mut mailbox);
            let Some(begun) = begun else {
                mailbox.turns -= 1;
                turn.is_over = true;
                return;
            };
            drop(mailbox);
            let result = call(&subscriber.permit, &begun.call, &begun.delivery);
            if self.check().is_err() {
                // The handler has forked, and this is the child: what is in hand is the parent's, and so are the locks.
                std::mem::forget((turn, begun, result));
                return;
            }
            let Some(result) = result else {
                self.withdraw(subscriber, begun);
                return;
            };
            let since = std::mem::replace(&mut now, self.clock.now());
            self.tally.note_call(now.saturating_duration_since(since));
            self.settle(subscriber, begun, result, (since, now));
            // An urgent handler does not wait for the burst of another.
            if left == 0 || self.crew.has_urgent() {
                break;
            }
        }
    }

    pub(super) fn tell_waiters(&self, subscriber: &Subscriber, mailbox: &mut Mailbox) {
        if mailbox.is_wanted && mailbox.has_much_room() {
            mailbox.is_wanted = false;
            subscriber.changed.notify_all();
        }
    }

    /// Refuses in a forked child: no lock is to be taken.
    pub(super) fn check(&self) -> Result<(), Forked> {
        self.roster.check()
    }

    /// Emits an event of the bus itself.
    pub(super) fn say(&self, event: impl Into<Record>) {
        self.say_at(event, context::depth());
    }

    /// The same, to which so many events led.
    pub(super) fn say_at(&self, event: impl Into<Record>, depth: u32) {
        if let Some(shared) = self.voice.get().and_then(Weak::upgrade) {
            shared.emit_own_at(event.into(), depth);
        }
    }

    /// Makes the retries that are due, and does the chores; when the next of these is due.
    pub(super) fn run_due(&self, now: Instant) -> Option<Instant> {
        self.retry_due(now);
        self.chores.run_due(self, now)
    }

    /// Makes the retries that are due.
    pub(super) fn retry_due(&self, now: Instant) {
        let due = self.timers.take_due(now);
        if !due.is_empty() {
            let watch = self.watched(self.blank.clone());
            // Each goes to the front.
            for (subscriber, delivery) in due.into_iter().rev() {
                let refused = subscriber.mailbox.lock().put_again(delivery, &watch);
                match refused {
                    Some(delivery) => self.give_up(&subscriber, delivery),
                    None => self.line_up(&subscriber),
                }
                // Its last reference may end a function of the user.
                end(subscriber);
            }
        }
    }

    /// Makes no retry any more: those that wait are given up, and what is parked behind them goes on.
    pub(super) fn end_retries(&self) {
        for (subscriber, delivery) in self.timers.close() {
            self.give_up(&subscriber, delivery);
            end(subscriber);
        }
    }

    /// Waits until nothing is on its way to any handler; `false` when the deadline came first.
    pub(super) fn await_quiet(&self, deadline: Option<Instant>) -> bool {
        self.everybody().into_iter().all(|subscriber| {
            let mut mailbox = subscriber.mailbox.lock();
            while !mailbox.is_quiet() {
                mailbox.is_wanted = true;
                if subscriber.changed.wait_until(&mut mailbox, deadline) {
                    return mailbox.is_quiet();
                }
            }
            true
        })
    }

    /// All who are, or were, subscribed and may be busy.
    pub(super) fn everybody(&self) -> Vec<Arc<Subscriber>> {
        let Ok(roster) = self.roster.enter() else { return Vec::new() };
        self.table().subscribers.iter().chain(&roster.leaving).cloned().collect()
    }

    /// Sums up those of whom nothing is on its way any more. They come out, to end without the lock: their functions are
    /// foreign.
    fn fold_leaving(&self, roster: &mut Roster) -> Vec<Arc<Subscriber>> {
        let mut over = Vec::new();
        for subscriber in std::mem::take(&mut roster.leaving) {
            let mailbox = subscriber.mailbox.lock();
            // With its calls for letters, which are in no account.
            let stats = mailbox.is_quiet().then(|| mailbox.snapshot());
            drop(mailbox);
            match stats {
                Some(stats) => {
                    roster.gone.add(&stats);
                    over.push(subscriber);
                }
                None => roster.leaving.push(subscriber),
            }
        }
        over
    }

    /// The accounts of all that are subscribed, and of all that were.
    pub(super) fn handler_stats(&self) -> (Vec<HandlerStats>, HandlerStats) {
        let Ok(mut roster) = self.roster.enter() else { return Default::default() };
        let table = self.table();
        let over = self.fold_leaving(&mut roster);
        let mut gone = roster.gone.clone();
        roster.leaving.iter().for_each(|subscriber| gone.add(&subscriber.mailbox.lock().snapshot()));
        drop(roster);
        drop(over);
        (table.subscribers.iter().map(|it| it.mailbox.lock().snapshot()).collect(), gone)
    }

    /// Buries what waits for a retry or behind one, cancels what else waits, and sends the workers home.
    pub(super) fn close(&self) {
        self.refuse();
        self.roster.lock().is_closed = true;
        self.crew.close();
        self.end_retries();
        for subscriber in &self.table().subscribers {
            let closed = subscriber.close(Why::Stopped);
            self.end_closed(subscriber, closed);
        }
        // The foreman goes home as well.
        self.timers.ring();
    }

    /// Does what is due, and calls whoever stands in line, on this thread, until nobody does or time is over; unless it is in
    /// the middle of that already.
    pub(super) fn run_inline(&self, deadline: Option<Instant>) {
        if let Some(_within) = context::within(self.place()) {
            self.call_all(deadline);
        }
    }

    /// The same for a thread that is marked.
    pub(super) fn call_all(&self, deadline: Option<Instant>) {
        self.run_due(self.clock.now());
        while deadline.is_none_or(|deadline| Instant::now() < deadline)
            && let Some(subscriber) = self.crew.next_in_line()
        {
            self.serve(&subscriber);
            if self.check().is_err() {
                std::mem::forget(subscriber);
                return;
            }
            self.crew.served();
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("config", &self.config).finish_non_exhaustive()
    }
}
