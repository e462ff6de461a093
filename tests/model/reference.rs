//! The collector as one would write it if there were only one thread: what the real one has to agree with.
//!
//! Nothing here is clever. The worker is a list of things to do that stops where the real one would wait: at a
//! closed gate (a sink that takes its time), or because there is nothing to do.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use forebay::config::Lanes;
use forebay::{Config, FlushStrategy, Outcome, Overflow, Priority};

use crate::lanes::{Holder, Pool, Push};
use crate::support::Tick;

/// Manner of a sink: what it does with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Good,
    /// Says that the whole batch failed.
    Failing,
    /// Says that one event of the batch failed.
    LosesOne,
    Panicking,
    /// Waits at a gate.
    Slow,
    /// Collects an echo of every third event.
    Reentrant,
}

/// Events of sinks have producers from here on.
pub(crate) const ECHO: u32 = 100;

/// Producers below this have a handle each, where threads have lanes.
pub(crate) const HANDLES: u32 = 3;

/// Returns the echo of an event, for the sinks that make one.
pub(crate) fn echo(event: &Tick) -> Option<Tick> {
    let is_heard = event.producer < ECHO && event.number.is_multiple_of(3);
    is_heard.then_some(Tick { producer: ECHO, number: event.number, priority: Priority::Low })
}

/// A batch as a sink sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) number: u64,
    pub(crate) first_event: u64,
    pub(crate) gap: u64,
    pub(crate) events: Vec<Tick>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sink {
    /// Sinks may have a name one after the other, but never a number.
    pub(crate) id: usize,
    pub(crate) name: String,
    pub(crate) manner: Manner,
    pub(crate) seen: Vec<Seen>,
    pub(crate) echoes: Vec<Outcome>,
    pub(crate) offered: u64,
    pub(crate) delivered: u64,
    pub(crate) failed: u64,
    pub(crate) in_flight: u64,
    pub(crate) errors: u64,
    pub(crate) panics: u64,
    pub(crate) flush_errors: u64,
    reported_delivered: u64,
    reported_failed: u64,
}

impl Sink {
    pub(crate) fn new(id: usize, name: &str, manner: Manner) -> Self {
        Self {
            id,
            name: name.to_owned(),
            manner,
            seen: Vec::new(),
            echoes: Vec::new(),
            offered: 0,
            delivered: 0,
            failed: 0,
            in_flight: 0,
            errors: 0,
            panics: 0,
            flush_errors: 0,
            reported_delivered: 0,
            reported_failed: 0,
        }
    }

    /// Counts a batch that has been written, well or badly.
    fn account(&mut self, events: u64) {
        self.in_flight = 0;
        let failed = match self.manner {
            Manner::Good | Manner::Slow | Manner::Reentrant => 0,
            Manner::LosesOne => events.min(1),
            Manner::Failing | Manner::Panicking => events,
        };
        self.delivered += events - failed;
        self.failed += failed;
        self.errors += u64::from(matches!(self.manner, Manner::Failing | Manner::LosesOne));
        self.panics += u64::from(self.manner == Manner::Panicking);
    }

    fn flush(&mut self) {
        self.errors += u64::from(self.manner == Manner::Failing);
        self.panics += u64::from(self.manner == Manner::Panicking);
        self.flush_errors += u64::from(matches!(self.manner, Manner::Failing | Manner::Panicking));
    }
}

/// Report of a flush: events processed and evicted, and for each sink those delivered and failed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Report {
    pub(crate) processed: u64,
    pub(crate) evicted: u64,
    pub(crate) sinks: Vec<(String, u64, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Idle,
    Running,
    Draining,
    Stopped,
}

/// Answer to a call that asks the worker for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    NotStarted,
    Stopped,
    StillStopping,
    TimedOut,
    Unknown,
    Duplicate,
}

/// Requests, as the worker takes them.
#[derive(Debug, Clone, Default)]
struct Asked {
    flushes: Vec<u64>,
    removals: Vec<String>,
    settings: bool,
}

impl Asked {
    fn is_waited_for(&self) -> bool {
        !self.flushes.is_empty() || !self.removals.is_empty()
    }
}

/// Place of the worker in its work.
#[derive(Debug, Clone)]
enum Doing {
    /// No worker runs.
    Out,
    Asleep,
    Looking,
    /// Takes events until the round is over, or `left` of them.
    Taking {
        round: Round,
        left: usize,
        then: Then,
    },
}

/// What is left of a round over the rings, and whether lanes of threads may give more.
#[derive(Debug, Clone)]
struct Round {
    rings: [usize; 3],
    threads: bool,
}

impl Round {
    fn is_over(&self) -> bool {
        self.rings == [0; 3] && !self.threads
    }
}

#[derive(Debug, Clone)]
enum Then {
    Look,
    Answer { asked: Asked, begun: Duration, taken: u64 },
    CloseTheDoor(Asked),
    Leave(Asked),
}

#[derive(Debug, Clone)]
pub(crate) struct Reference {
    pub(crate) state: State,
    pub(crate) rejected_full: u64,
    pub(crate) rejected_stopped: u64,
    pub(crate) evicted: u64,
    pub(crate) processed: u64,
    pub(crate) flushes: u64,
    pub(crate) waits: u64,
    pub(crate) offered: u64,
    pub(crate) sinks: Vec<Sink>,
    /// Sinks that were removed, as they were when that was done.
    pub(crate) retired: Vec<Sink>,
    /// Those that the worker has not admitted yet.
    pub(crate) added: Vec<Sink>,
    /// Flushes that were answered, by their number.
    pub(crate) answers: BTreeMap<u64, Report>,
    pub(crate) is_gate_open: bool,
    pub(crate) config: Config,
    /// Number of events that the stop of a collector that never ran has discarded last.
    pub(crate) discarded: u64,
    now: Duration,
    /// Critical, normal, low.
    lanes: [VecDeque<Tick>; 3],
    /// Lanes of threads. Then the normal ring is for those who have none.
    threads: Option<Pool>,
    /// Evictions of rings, and those among them that batches have reported.
    evicted_of_rings: u64,
    reported_of_rings: u64,
    /// Number of the batch that is put together, with those that came to nothing.
    attempt: u64,
    asked: Asked,
    abandoned: Vec<u64>,
    doing: Doing,
    in_hand: Option<(Seen, usize)>,
    /// The settings that the worker goes by.
    trigger: Option<usize>,
    interval: Option<Duration>,
    most: usize,
    due: Option<Duration>,
    taken: u64,
    next_batch: u64,
    next_event: u64,
    reported_gaps: u64,
    /// Number of normal events that were taken since the low lane had its turn.
    turn: usize,
    /// Whose turn it is where threads have lanes, and how many events they have given in it.
    turn_of_threads: (usize, usize),
    reported_processed: u64,
    reported_evicted: u64,
}

fn index(priority: Priority) -> usize {
    match priority {
        Priority::Critical => 0,
        Priority::Normal => 1,
        Priority::Low => 2,
    }
}

impl Reference {
    pub(crate) fn new(config: &Config, sinks: Vec<Sink>) -> Self {
        Self {
            state: State::Idle,
            rejected_full: 0,
            rejected_stopped: 0,
            evicted: 0,
            processed: 0,
            flushes: 0,
            waits: 0,
            offered: 0,
            sinks,
            retired: Vec::new(),
            added: Vec::new(),
            answers: BTreeMap::new(),
            is_gate_open: true,
            config: config.clone(),
            discarded: 0,
            now: Duration::ZERO,
            lanes: [VecDeque::new(), VecDeque::new(), VecDeque::new()],
            threads: match config.lanes {
                Lanes::PerThread { max } => Some(Pool::new(config.capacity, max, HANDLES)),
                _ => None,
            },
            evicted_of_rings: 0,
            reported_of_rings: 0,
            attempt: 0,
            asked: Asked::default(),
            abandoned: Vec::new(),
            doing: Doing::Out,
            in_hand: None,
            trigger: None,
            interval: None,
            most: 0,
            due: None,
            taken: 0,
            next_batch: 0,
            next_event: 0,
            reported_gaps: 0,
            turn: 0,
            turn_of_threads: (0, 0),
            reported_processed: 0,
            reported_evicted: 0,
        }
    }

    // ---- what a caller does ----

    /// Pushes an event. `None` says that its lane is full and does not evict.
    fn push(&mut self, event: Tick) -> Option<Outcome> {
        let lane = index(event.priority);
        let evicts = lane != 0 && self.config.overflow == Overflow::DropOldest;
        if let (Priority::Normal, Some(pool)) = (event.priority, &mut self.threads) {
            let holder: Holder = (event.producer < HANDLES).then_some(event.producer);
            match pool.push(holder, event, evicts) {
                Push::Queued { evicted: 0 } => return Some(Outcome::Queued),
                Push::Queued { evicted } => {
                    self.evicted += evicted;
                    return Some(Outcome::QueuedEvicting);
                }
                Push::Full => return None,
                Push::NoLane => {}
            }
        }
        let is_full = self.lanes[lane].len() == self.capacity(lane);
        match (is_full, evicts) {
            (false, _) => {
                self.lanes[lane].push_back(event);
                Some(Outcome::Queued)
            }
            (true, true) => {
                self.lanes[lane].pop_front();
                self.evicted += 1;
                self.evicted_of_rings += 1;
                self.lanes[lane].push_back(event);
                Some(Outcome::QueuedEvicting)
            }
            (true, false) => None,
        }
    }

    fn admits(&self) -> bool {
        matches!(self.state, State::Idle | State::Running)
    }

    /// Performs `collect` or `try_collect`; the former waits for space, in vain, where nobody makes space.
    pub(crate) fn collect(&mut self, event: Tick, is_patient: bool) -> Outcome {
        self.offered += 1;
        if !self.admits() {
            self.rejected_stopped += 1;
            return Outcome::Stopped;
        }
        let outcome = match self.push(event) {
            Some(outcome) => outcome,
            None => {
                let wait = match (event.priority, self.config.overflow) {
                    (Priority::Critical, _) => self.config.critical_timeout,
                    (_, Overflow::Block { timeout }) => timeout,
                    _ => Duration::ZERO,
                };
                self.waits += u64::from(is_patient && !wait.is_zero());
                self.rejected_full += 1;
                Outcome::Full
            }
        };
        self.wake_for(event.priority);
        outcome
    }

    /// Polls `collect_async` once. `None` says that it waits.
    pub(crate) fn poll_collect(&mut self, event: Tick, is_first: bool) -> Option<Outcome> {
        if !self.admits() {
            self.offered += 1;
            self.rejected_stopped += 1;
            return Some(Outcome::Stopped);
        }
        let outcome = match self.push(event) {
            Some(Outcome::Queued) if !is_first => Outcome::QueuedAfterWait,
            Some(outcome) => outcome,
            None if event.priority == Priority::Critical
                || matches!(self.config.overflow, Overflow::Block { .. }) =>
            {
                self.waits += u64::from(is_first);
                return None;
            }
            None => {
                self.rejected_full += 1;
                Outcome::Full
            }
        };
        self.offered += 1;
        self.wake_for(event.priority);
        Some(outcome)
    }

    /// Wakes, after a push, a worker that sleeps, if it is wanted.
    fn wake_for(&mut self, priority: Priority) {
        let starts_the_timer = self.interval.is_some() && self.due.is_none();
        let calls = match self.trigger {
            None => false,
            Some(trigger) => {
                priority == Priority::Critical
                    || starts_the_timer
                    || self.load() >= trigger
                    || self.has_full_lane()
            }
        };
        if matches!(self.doing, Doing::Asleep) && calls {
            self.doing = Doing::Looking;
        }
        self.work();
    }

    pub(crate) fn flush(&mut self, number: u64) -> Answer {
        match (&self.doing, self.state) {
            (Doing::Out, State::Idle) => return Answer::NotStarted,
            (_, State::Stopped) => return Answer::Stopped,
            _ => self.asked.flushes.push(number),
        }
        self.ring();
        if self.answers.contains_key(&number) { Answer::Done } else { Answer::TimedOut }
    }

    /// Abandons a flush: its caller goes away before it has heard of its answer.
    pub(crate) fn abandon_flush(&mut self, number: u64) {
        self.asked.flushes.retain(|other| *other != number);
        self.abandoned.push(number);
    }

    pub(crate) fn start(&mut self) -> Answer {
        match (&self.doing, self.state) {
            (Doing::Out, _) => {}
            (_, State::Running) => return Answer::Done,
            _ => return Answer::StillStopping,
        }
        self.state = State::Running;
        self.read_settings();
        self.due = None;
        self.doing = Doing::Looking;
        self.work();
        Answer::Done
    }

    pub(crate) fn stop(&mut self) -> Answer {
        self.discarded = 0;
        match self.state {
            State::Idle => {
                let discarded: usize = self.lanes.iter_mut().map(|lane| lane.drain(..).len()).sum();
                let of_threads = self.threads.as_mut().map_or(0, Pool::take_all);
                self.discarded = (discarded + of_threads) as u64;
                self.rejected_stopped += self.discarded;
                self.state = State::Stopped;
            }
            State::Running => {
                self.state = State::Draining;
                self.ring();
            }
            State::Draining | State::Stopped => {}
        }
        if matches!(self.doing, Doing::Out) { Answer::Done } else { Answer::TimedOut }
    }

    pub(crate) fn add_sink(&mut self, sink: Sink) -> Answer {
        if self.knows(&sink.name) {
            return Answer::Duplicate;
        }
        match self.doing {
            Doing::Out => self.sinks.push(sink),
            _ => self.added.push(sink),
        }
        Answer::Done
    }

    pub(crate) fn remove_sink(&mut self, name: &str) -> Answer {
        if !self.knows(name) {
            return Answer::Unknown;
        }
        if matches!(self.doing, Doing::Out) {
            self.retire(name);
            return Answer::Done;
        }
        if self.state == State::Stopped {
            // The worker is on its last flush; it is let go first.
            return Answer::TimedOut;
        }
        if !self.asked.removals.iter().any(|asked| asked == name) {
            self.asked.removals.push(name.to_owned());
        }
        self.ring();
        if self.knows(name) { Answer::TimedOut } else { Answer::Done }
    }

    pub(crate) fn update_config(&mut self, change: impl Fn(&mut Config)) {
        change(&mut self.config);
        self.asked.settings = true;
        self.ring();
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        self.now += by;
        self.ring();
    }

    pub(crate) fn set_gate(&mut self, is_open: bool) {
        self.is_gate_open = is_open;
        self.work();
    }

    fn ring(&mut self) {
        if matches!(self.doing, Doing::Asleep) {
            self.doing = Doing::Looking;
        }
        self.work();
    }

    // ---- what a caller may ask ----

    pub(crate) fn is_stalled(&self) -> bool {
        self.in_hand.is_some()
    }

    /// Returns whether no event that is collected now can reach the worker before the next operation.
    pub(crate) fn is_deaf(&self) -> bool {
        self.is_stalled() || matches!(self.doing, Doing::Out) || self.config.flush == FlushStrategy::Manual
    }

    pub(crate) fn pending(&self) -> u64 {
        self.queued() as u64 + self.in_hand.as_ref().map_or(0, |(seen, _)| seen.events.len() as u64)
    }

    pub(crate) fn knows(&self, name: &str) -> bool {
        self.sinks.iter().chain(&self.added).any(|sink| sink.name == name)
    }

    // ---- the worker ----

    /// Works until there is nothing to do, or the gate is in the way.
    fn work(&mut self) {
        loop {
            if !self.dispatch() {
                return;
            }
            match std::mem::replace(&mut self.doing, Doing::Looking) {
                Doing::Looking => self.look(),
                Doing::Taking { mut round, left, then } => {
                    let is_over = left == 0 || round.is_over();
                    if is_over {
                        self.go_on(then);
                    } else {
                        let taken = self.take_batch(&mut round);
                        self.doing = Doing::Taking { round, left: left.saturating_sub(taken), then };
                    }
                }
                rest @ (Doing::Out | Doing::Asleep) => {
                    self.doing = rest;
                    return;
                }
            }
        }
    }

    fn look(&mut self) {
        let asked = std::mem::take(&mut self.asked);
        if asked.settings {
            let due = self.due;
            self.read_settings();
            self.due = match (due, self.interval) {
                (Some(due), Some(interval)) => Some(due.min(self.now + interval)),
                _ => None,
            };
        }
        if self.queued() > 0 && self.due.is_none() {
            self.due = self.interval.map(|interval| self.now + interval);
        }
        let is_due = self.due.is_some_and(|due| due <= self.now);
        self.doing = match self.trigger {
            _ if self.state == State::Draining => self.sweep(Then::CloseTheDoor(asked)),
            _ if asked.is_waited_for() || is_due => {
                self.sweep(Then::Answer { asked, begun: self.now, taken: self.taken })
            }
            Some(_) if !self.lanes[0].is_empty() => {
                self.sweep(Then::Answer { asked, begun: self.now, taken: self.taken })
            }
            Some(trigger) if self.load() >= trigger || self.has_full_lane() => {
                Doing::Taking { round: self.begin_round(), left: trigger, then: Then::Look }
            }
            _ => Doing::Asleep,
        };
    }

    fn sweep(&mut self, then: Then) -> Doing {
        Doing::Taking { round: self.begin_round(), left: usize::MAX, then }
    }

    fn begin_round(&mut self) -> Round {
        if let Some(pool) = &mut self.threads {
            pool.begin_round();
        }
        Round { rings: [0, 1, 2].map(|lane| self.capacity(lane)), threads: self.threads.is_some() }
    }

    fn go_on(&mut self, then: Then) {
        match then {
            Then::Look => {}
            Then::Answer { asked, begun, taken } => {
                // The timer runs on while events keep coming.
                let was_busy = self.taken > taken;
                self.due = self.interval.filter(|_| was_busy).map(|interval| begun + interval);
                let report = if asked.flushes.is_empty() { Report::default() } else { self.flush_sinks() };
                self.answer(asked, &report);
            }
            Then::CloseTheDoor(asked) => {
                self.state = State::Stopped;
                self.doing = self.sweep(Then::Leave(asked));
            }
            Then::Leave(asked) => {
                let report = self.flush_sinks();
                self.answer(asked, &report);
                let late = std::mem::take(&mut self.asked);
                self.asked.settings = late.settings;
                self.answer(late, &report);
                self.doing = Doing::Out;
            }
        }
    }

    /// Puts a batch together; how many events it has.
    fn take_batch(&mut self, round: &mut Round) -> usize {
        self.attempt += 1;
        let mut gap = self.evicted_of_rings - self.reported_of_rings;
        let mut events = Vec::new();
        if round.rings[0] == 0 && !round.is_over() {
            // Those that came since the round began are first as well, up to half a batch.
            while events.len() < self.most / 2
                && let Some(event) = self.lanes[0].pop_front()
            {
                events.push(event);
            }
        }
        // Critical ones first, then two normal ones for a low one, from batch to batch.
        while events.len() < self.most && !round.is_over() {
            if let Some(event) = self.pop(0, &mut round.rings) {
                events.push(event);
                continue;
            }
            if self.threads.is_some() {
                if self.take_turn(round, &mut events, &mut gap) {
                    break;
                }
                continue;
            }
            if (self.turn < 2 || round.rings[2] == 0)
                && let Some(event) = self.pop(1, &mut round.rings)
            {
                events.push(event);
                self.turn = (self.turn + 1).min(2);
                continue;
            }
            if round.rings[2] > 0 {
                events.extend(self.pop(2, &mut round.rings));
                self.turn = 0;
            }
        }
        let length = events.len();
        if length == 0 && gap == 0 {
            return 0;
        }
        self.reported_of_rings = self.evicted_of_rings;
        self.reported_gaps += gap;
        let first_event = self.next_event + gap;
        let seen = Seen { number: self.next_batch, first_event, gap, events };
        self.next_batch += 1;
        self.next_event = first_event + length as u64;
        self.taken += length as u64;
        self.sinks.append(&mut self.added);
        self.in_hand = Some((seen, 0));
        length
    }

    /// Takes events of those whose turn it is, where threads have lanes: 64 of these, 32 of the ring, 32 low ones. Returns whether the
    /// batch has to end.
    fn take_turn(&mut self, round: &mut Round, events: &mut Vec<Tick>, gap: &mut u64) -> bool {
        let space = self.most - events.len();
        let (who, of_turn) = self.turn_of_threads;
        let left = [64, 32, 32][who] - of_turn;
        let before = events.len();
        let (mut is_over, mut ends_batch) = (true, false);
        match (who, &mut self.threads) {
            (0, Some(pool)) if round.threads => {
                let is_alone = round.rings[1..] == [0, 0];
                let taken = pool.take(if is_alone { space } else { left.min(space) }, self.attempt);
                *gap += taken.gap;
                events.extend(taken.events);
                (is_over, ends_batch) = (taken.is_over, taken.ends_batch);
                round.threads = !is_over;
            }
            (1 | 2, _) => {
                for _ in 0..left.min(space) {
                    events.extend(self.pop(who, &mut round.rings));
                }
                is_over = round.rings[who] == 0;
            }
            _ => {}
        }
        let of_turn = of_turn + events.len() - before;
        let is_next = is_over || of_turn >= [64, 32, 32][who];
        self.turn_of_threads = if is_next { ((who + 1) % 3, 0) } else { (who, of_turn) };
        ends_batch
    }

    /// Takes the oldest event of a lane, if the round has not seen the end of it.
    fn pop(&mut self, lane: usize, round: &mut [usize; 3]) -> Option<Tick> {
        if round[lane] == 0 {
            return None;
        }
        let event = self.lanes[lane].pop_front();
        round[lane] = if event.is_some() { round[lane] - 1 } else { 0 };
        event
    }

    /// Gives the batch in hand to the sinks that have not seen it. `false` where one waits at the gate.
    fn dispatch(&mut self) -> bool {
        let Some((seen, next)) = self.in_hand.take() else { return true };
        let events = seen.events.len() as u64;
        for at in next..self.sinks.len() {
            let manner = self.sinks[at].manner;
            let sink = &mut self.sinks[at];
            let is_new = sink.seen.last() != Some(&seen);
            if is_new {
                sink.offered += events;
                sink.in_flight = events;
                sink.seen.push(seen.clone());
            }
            if manner == Manner::Slow && !self.is_gate_open {
                self.in_hand = Some((seen, at));
                return false;
            }
            if manner == Manner::Reentrant {
                for event in seen.events.iter().filter_map(echo) {
                    let outcome = self.echo(event);
                    self.sinks[at].echoes.push(outcome);
                }
            }
            self.sinks[at].account(events);
        }
        self.processed += events;
        true
    }

    /// Collects from a sink: on the worker thread, which never waits and need not be woken.
    fn echo(&mut self, event: Tick) -> Outcome {
        self.offered += 1;
        if !self.admits() {
            self.rejected_stopped += 1;
            return Outcome::Stopped;
        }
        self.push(event).unwrap_or_else(|| {
            self.rejected_full += 1;
            Outcome::Full
        })
    }

    fn flush_sinks(&mut self) -> Report {
        self.sinks.append(&mut self.added);
        self.sinks.iter_mut().for_each(Sink::flush);
        self.flushes += 1;
        let delta = |sink: &Sink| {
            let delivered = sink.delivered - sink.reported_delivered;
            (sink.name.clone(), delivered, sink.failed - sink.reported_failed)
        };
        Report {
            processed: self.processed - self.reported_processed,
            evicted: self.reported_gaps - self.reported_evicted,
            sinks: self.sinks.iter().map(delta).collect(),
        }
    }

    fn answer(&mut self, asked: Asked, report: &Report) {
        self.sinks.append(&mut self.added);
        for name in asked.removals {
            self.retire(&name);
        }
        let mut is_heard = false;
        for flush in asked.flushes {
            if !self.abandoned.contains(&flush) {
                is_heard = true;
                self.answers.insert(flush, report.clone());
            }
        }
        if is_heard {
            for sink in &mut self.sinks {
                (sink.reported_delivered, sink.reported_failed) = (sink.delivered, sink.failed);
            }
            (self.reported_processed, self.reported_evicted) = (self.processed, self.reported_gaps);
        }
    }

    fn retire(&mut self, name: &str) {
        if let Some(at) = self.sinks.iter().position(|sink| sink.name == name) {
            let mut sink = self.sinks.remove(at);
            sink.flush();
            self.retired.push(sink);
        }
    }

    fn read_settings(&mut self) {
        let config = &self.config;
        let (events, interval) = match config.flush {
            FlushStrategy::Time { interval } => (None, Some(interval)),
            FlushStrategy::Size { events } => (Some(events), None),
            FlushStrategy::Hybrid { events, interval } => (Some(events), Some(interval)),
            _ => (None, None),
        };
        self.interval = interval;
        self.trigger = match config.flush {
            FlushStrategy::Manual => None,
            _ => Some(events.unwrap_or(config.capacity.div_ceil(2)).min(config.capacity)),
        };
        let by_default = events.unwrap_or(1).max(100);
        self.most = config.batch_size.unwrap_or(by_default).min(config.capacity);
    }

    fn capacity(&self, lane: usize) -> usize {
        [self.config.critical_capacity, self.config.capacity, self.config.low_capacity][lane]
    }

    fn queued(&self) -> usize {
        self.of_rings() + self.threads.as_ref().map_or(0, Pool::pending)
    }

    /// Returns the number of pending events, as far as a delivery goes by it.
    fn load(&self) -> usize {
        self.of_rings() + self.threads.as_ref().map_or(0, Pool::load)
    }

    fn of_rings(&self) -> usize {
        self.lanes.iter().map(VecDeque::len).sum()
    }

    fn has_full_lane(&self) -> bool {
        (0..3).any(|lane| self.lanes[lane].len() == self.capacity(lane))
            || self.threads.as_ref().is_some_and(Pool::is_full)
    }

    /// Returns whether producers have handles.
    pub(crate) fn has_handles(&self) -> bool {
        self.threads.is_some()
    }
}
