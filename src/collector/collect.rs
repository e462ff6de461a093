//! `collect` and its relatives: the way of an event into its lane.
//!
//! `collect` is the path that everything else makes way for: one load of the phase word, one push into a
//! ring, one fence, one more load. All that is rare (a sleeping worker, a full lane, a stop, a fork) is
//! told by those two loads or by the push, and handled out of line.

use std::time::{Duration, Instant};

use super::Collector;
use crate::event::{Event, Name, Priority, Record, Value};
use crate::gate::Gate;
use crate::lanes::owned_bytes;
use crate::outcome::{BatchOutcome, CollectError, Outcome, Refusal};
use crate::settings::Policy;
use crate::shared::Shared;
use crate::sync::announce_fence;
use crate::wake::{State, Word};

impl<E: Event> Collector<E> {
    /// Takes an event, to be delivered by the worker.
    ///
    /// It takes no lock, makes no system call but the one that wakes a sleeping worker, allocates nothing,
    /// and does not wait for a sink. It waits in two cases, both bounded: for room under
    /// [`Overflow::Block`](crate::Overflow::Block), and for room in a full critical lane
    /// ([`Config::critical_wait`](crate::Config::critical_wait)); never on the worker thread. It never
    /// fails: the outcome tells what happened, and so do the statistics.
    ///
    /// The destructor of an event that is evicted or not taken runs here. A call that is overtaken by a `stop`
    /// between its push and its end takes the event out again; this, once a stop at most, takes a lock and may
    /// allocate.
    #[inline(always)]
    pub fn collect(&self, event: impl Into<E>) -> Outcome {
        match self.shared.settings.gate() {
            None => self.collect_ungated(event.into()),
            // Out of line: to look at the event would keep it in memory on the way without a gate as well.
            Some(gate) => self.collect_gated(gate, event.into()),
        }
    }

    #[cold]
    #[inline(never)]
    fn collect_gated(&self, gate: &Gate, event: E) -> Outcome {
        match self.admit(gate, event) {
            Ok(event) => self.collect_ungated(event),
            Err(refused) => refused.reason.into(),
        }
    }

    #[inline(always)]
    fn collect_ungated(&self, event: E) -> Outcome {
        let priority = event.priority();
        let refused = |event, reason, policy, _| {
            self.shared.collect_refused(priority, CollectError { event, reason }, policy)
        };
        self.shared.offer(priority, event, |outcome, _| outcome, refused)
    }

    /// `collect`, and how many events made room for this one.
    fn collect_counting(&self, mut event: E) -> (Outcome, u64) {
        if let Some(gate) = self.shared.settings.gate() {
            event = match self.admit(gate, event) {
                Ok(event) => event,
                Err(refused) => return (refused.reason.into(), 0),
            };
        }
        let priority = event.priority();
        self.shared.offer(
            priority,
            event,
            |outcome, evicted| (outcome, evicted),
            |event, reason, policy, evicted| {
                let outcome = self.shared.collect_refused(priority, CollectError { event, reason }, policy);
                (outcome, evicted + u64::from(outcome == Outcome::QueuedEvicting))
            },
        )
    }

    /// Takes an event if that needs no wait, or gives it back.
    ///
    /// Like `collect`, but a full lane refuses at once under [`Overflow::Block`](crate::Overflow::Block) and for a critical event.
    /// `Ok` tells that the event was taken; [`Outcome::Stopped`] in it, that the collector stopped at this
    /// very moment and the event is gone and counted.
    ///
    /// # Errors
    ///
    /// The event was not taken, and is counted as rejected; here it is.
    pub fn try_collect(&self, event: impl Into<E>) -> Result<Outcome, CollectError<E>> {
        let mut event = event.into();
        if let Some(gate) = self.shared.settings.gate() {
            event = self.admit(gate, event)?;
        }
        self.shared.offer(
            event.priority(),
            event,
            |outcome, _| Ok(outcome),
            |event, reason, _, _| {
                self.shared.count_refusal(reason);
                Err(CollectError { event, reason })
            },
        )
    }

    /// Asks the gate; an event that is not let in is counted.
    pub(crate) fn admit(&self, gate: &Gate, event: E) -> Result<E, CollectError<E>> {
        // A collector that takes no events says so, whatever the gate would say.
        if self.shared.phase.load().admits()
            && let Err(reason) = gate.admit(event.priority(), &event)
        {
            self.shared.count_refusal(reason);
            return Err(CollectError { event, reason });
        }
        Ok(event)
    }

    /// Whether an event of that name, of normal priority, may come in at present: to skip the making of what would not.
    /// Sampling and limits are not asked.
    pub fn enabled(&self, name: &str) -> bool {
        self.shared.phase.load().admits() && self.shared.settings.gate().is_none_or(|gate| gate.enabled(name))
    }

    /// Takes several events in order, as `collect` would one by one.
    pub fn collect_batch<T: Into<E>>(&self, events: impl IntoIterator<Item = T>) -> BatchOutcome {
        let mut all = BatchOutcome::default();
        for event in events {
            let (outcome, evicted) = self.collect_counting(event.into());
            all.evicted += evicted;
            if outcome.is_queued() {
                all.queued += 1;
            } else {
                all.rejected += 1;
                all.first_rejection.get_or_insert(outcome);
            }
        }
        all
    }
}

impl Collector {
    /// Collects the values of a step: one record for each name, like [`collect_batch`](Self::collect_batch).
    ///
    /// ```
    /// use forebay::{Collector, sink::MemorySink};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let memory = MemorySink::new();
    /// let collector = Collector::builder().sink(memory.clone()).start()?;
    /// let (loss, lr) = (0.25, 1e-3);
    /// collector.log(7, [("train.loss", loss), ("train.lr", lr)]);
    /// collector.stop()?;
    /// assert_eq!(memory.len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn log<N: Into<Name>, V: Into<Value>>(
        &self,
        step: u64,
        values: impl IntoIterator<Item = (N, V)>,
    ) -> BatchOutcome {
        self.collect_batch(
            values.into_iter().map(|(name, value)| Record::with_value(name, value).with_step(step)),
        )
    }
}

impl<E: Event> Shared<E> {
    /// The hot path. It goes on with `taken`, or with `refused` for an event that is not taken, which is not
    /// counted yet: with the reason, and the policy under which that was. Both are told how many events were evicted for it.
    #[inline(always)]
    pub(crate) fn offer<R>(
        &self,
        priority: Priority,
        event: E,
        taken: impl FnOnce(Outcome, u64) -> R,
        refused: impl FnOnce(E, Refusal, Policy, u64) -> R,
    ) -> R {
        let policy = self.settings.policy();
        // User code, which may fork: before the word is read, so that the child does not touch the rings.
        let bytes = owned_bytes(&event);
        let before = self.phase.load();
        if !before.admits() {
            return refused(event, Refusal::of(before), policy, 0);
        }
        let mut evictions = 0;
        if bytes > 0 {
            if event.is_too_deep() {
                return refused(event, Refusal::Oversize, policy, 0);
            }
            let (evicted, reserved) = self.reserve(priority, bytes, policy.evicts(priority));
            if let Err(reason) = reserved {
                return refused(event, reason, policy, evicted);
            }
            evictions = evicted;
        }
        // Event and evicted event stay where they are: moved into a result on their way, they would be copied, and
        // these copies would cost more than the push.
        if policy.evicts(priority) {
            let evicted = self.lanes.push_evicting(priority, event);
            if let Some(evicted) = &evicted {
                self.lanes.count_evicted(priority, evicted);
                evictions += 1;
            }
            let outcome = if evictions > 0 { Outcome::QueuedEvicting } else { Outcome::Queued };
            // What was evicted ends behind this, in its place: `drop` would copy it, also where there is none.
            taken(self.after_push(priority, outcome), evictions)
        } else {
            match self.lanes.push(priority, event) {
                Ok(()) => taken(self.after_push(priority, Outcome::Queued), evictions),
                Err(event) => {
                    self.lanes.release(priority, bytes);
                    refused(event, Refusal::Full, policy, evictions)
                }
            }
        }
    }

    /// Takes the bytes that an event owns out of the budget; see [`Lanes::reserve`]. Where they do not fit, the worker is
    /// called, as by a full lane.
    #[cold]
    #[inline(never)]
    fn reserve(&self, priority: Priority, bytes: u64, evicts: bool) -> (u64, Result<(), Refusal>) {
        let reserved = self.lanes.reserve(priority, bytes, evicts);
        if reserved.1 == Err(Refusal::Full) {
            // A worker that goes to sleep meanwhile sees that bytes are wanted, or we see that it sleeps. Nothing was pushed
            // that would be a fence by itself.
            announce_fence();
            if self.phase.load().wake_at().is_some_and(|wake_at| self.lanes.needs_worker(wake_at)) {
                self.phase.wake();
            }
        }
        reserved
    }

    /// After a push: wakes a worker that sleeps and is wanted, and sees to an event that came too late.
    #[inline]
    pub(crate) fn after_push(&self, priority: Priority, outcome: Outcome) -> Outcome {
        let after = self.phase.load_after_push();
        if after.is_awake() {
            return outcome;
        }
        match after.wake_at() {
            Some(wake_at) => {
                if self.lanes.needs_worker_after_push(priority, wake_at) {
                    self.phase.wake();
                }
                outcome
            }
            None => self.after_push_not_running(after, outcome),
        }
    }

    /// The collector is not running: it was never started, or it stopped while the event was on its way.
    #[cold]
    fn after_push_not_running(&self, after: Word, outcome: Outcome) -> Outcome {
        match after.state() {
            // A worker will come to look at it.
            State::Idle | State::Awake | State::Asleep | State::Draining => outcome,
            // The only thread of a forked child; the ring is its own, and nobody will ever drain it.
            State::Forked => outcome,
            // None will. What lies in the rings now came too late, all of it: they were drained before
            // the word said so. When there is nothing, another has taken the event out and seen to it.
            State::Stopped | State::WorkerGone => {
                // Were it started again between the load and here, these would be events of the new run. Nobody
                // can start it while we hold the mailbox; and a run that is `Draining` by now has a worker
                // that will deliver ours as well.
                let held = self.mailbox.hold();
                let is_over = matches!(self.phase.load().state(), State::Stopped | State::WorkerGone);
                let late = if is_over { self.lanes.take_all() } else { Vec::new() };
                drop(held);
                match self.discard(late) {
                    0 => outcome,
                    _ => Refusal::of(after).into(),
                }
            }
        }
    }

    /// `collect` of an event that was not taken at once: waits where that was asked for, else counts it.
    #[cold]
    #[inline(never)]
    fn collect_refused(&self, priority: Priority, refused: CollectError<E>, before: Policy) -> Outcome {
        let policy = self.settings.policy();
        // It may evict by now, if the settings changed meanwhile. Where it could before, there was nothing to evict.
        let may_stay = policy.evicts(priority) && !before.evicts(priority)
            || !self.settings.wait_timeout(policy, priority).is_zero() && !self.is_worker();
        let outcome = if refused.reason == Refusal::Full && may_stay {
            self.wait_for_space(priority, refused.event)
        } else {
            Err(refused)
        };
        outcome.unwrap_or_else(|refused| {
            // Counted before the event ends: its destructor may panic.
            self.count_refusal(refused.reason);
            refused.reason.into()
        })
    }

    /// Waits for room for as long as the settings say, then gives the event up. Settings that change meanwhile
    /// hold from then on.
    fn wait_for_space(&self, priority: Priority, event: E) -> Result<Outcome, CollectError<E>> {
        let begun = Instant::now();
        // It alone makes room: it must not wait, whatever the settings come to say.
        let is_worker = self.is_worker();
        let mut has_waited = false;
        let mut event = event;
        let mut is_late = false;
        // Foreign code: not under our lock.
        let bytes = owned_bytes(&event);
        let word = self.phase.load();
        if !word.admits() {
            // It may have forked: this lock is the parent's.
            return Err(CollectError { event, reason: Refusal::of(word) });
        }
        let mut waiting = self.space_waiters.lock();
        let evicted = loop {
            let policy = self.settings.policy();
            let wait_timeout =
                if is_worker { Duration::ZERO } else { self.settings.wait_timeout(policy, priority) };
            match self.retry_push(policy, priority, event, bytes) {
                Ok(evicted) => break evicted,
                Err(refused) if refused.reason == Refusal::Full && !is_late && !wait_timeout.is_zero() => {
                    event = refused.event;
                }
                Err(refused) => {
                    // The event will end, and its destructor is foreign code: not under our lock.
                    drop(waiting);
                    return Err(refused);
                }
            }
            if !has_waited {
                self.tally.waits.add(1);
                has_waited = true;
            }
            is_late = self.space_waiters.wait(&mut waiting, begun.checked_add(wait_timeout));
        };
        drop(waiting);
        Ok(self.after_waiter_push(priority, evicted))
    }

    /// After the push of a waiter, without the lock of the room: the end of what it evicted is foreign code.
    pub(crate) fn after_waiter_push(&self, priority: Priority, evicted: Option<E>) -> Outcome {
        let outcome = match &evicted {
            Some(evicted) => {
                self.lanes.count_evicted(priority, evicted);
                Outcome::QueuedEvicting
            }
            None => Outcome::QueuedAfterWait,
        };
        self.after_push(priority, outcome)
    }

    /// One attempt of a waiter, which holds the lock of the room, for an event that owns so many bytes. It evicts only if the
    /// settings have come to say so; what it evicted is to be counted and dropped without the lock (`after_waiter_push`). A full
    /// lane makes sure that the worker is up, unless its strategy is not to be disturbed.
    pub(crate) fn retry_push(
        &self,
        policy: Policy,
        priority: Priority,
        event: E,
        bytes: u64,
    ) -> Result<Option<E>, CollectError<E>> {
        let word = self.phase.load();
        if !word.admits() {
            return Err(CollectError { event, reason: Refusal::of(word) });
        }
        // No other event makes room for it: what it ended would end under the lock.
        if bytes > 0
            && let Err(reason) = self.reserve(priority, bytes, false).1
        {
            return Err(CollectError { event, reason });
        }
        if policy.evicts(priority) {
            return Ok(self.lanes.push_evicting(priority, event));
        }
        self.lanes.push(priority, event).map(|()| None).map_err(|event| {
            self.lanes.release(priority, bytes);
            if word.wake_at().is_some_and(|wake_at| self.lanes.needs_worker(wake_at)) {
                self.phase.wake();
            }
            CollectError { event, reason: Refusal::Full }
        })
    }
}
