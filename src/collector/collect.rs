//! `collect` and its variants: the way of an event into its lane.
//!
//! Everything else makes way for `collect`: one load of the phase word, one push into a ring, one fence, one more
//! load. Those two loads or the push reveal all that is rare (a sleeping worker, a full lane, a stop, a fork). It is
//! handled out of line.

use std::fmt;
use std::time::{Duration, Instant};

use super::Collector;
use crate::event::{Event, Name, Priority, Record, Value};
use crate::gate::Gate;
use crate::lanes::{Removed, Way, owned_bytes};
use crate::outcome::{BatchOutcome, CollectError, Outcome, Refusal};
use crate::pool::{self, Owned, Queued};
use crate::settings::Policy;
use crate::shared::Shared;
use crate::sync::announce_fence;
use crate::wake::{State, Word};

impl<E: Event> Collector<E> {
    /// Collects an event, which the worker delivers.
    ///
    /// It takes no lock, makes no system call but the one that wakes a sleeping worker, and does not wait for a sink.
    /// It allocates nothing, except for the first event of a thread under [`Lanes::PerThread`](crate::config::Lanes).
    /// It waits in two cases, both bounded and never on the worker thread. One is a full lane under
    /// [`Overflow::Block`](crate::Overflow::Block). The other is a full critical lane
    /// ([`Config::critical_timeout`](crate::Config::critical_timeout)). It never fails: the outcome and the statistics
    /// say what happened.
    ///
    /// The destructor of an event that is evicted or rejected runs here. A `stop` may overtake a call between its
    /// push and its end. Then the call takes the event out again. This happens once a stop at most; it takes a lock
    /// and may allocate.
    #[inline(always)]
    pub fn collect(&self, event: impl Into<E>) -> Outcome {
        self.collect_from(Way::OfThread, event.into())
    }

    /// Collects an event on this way.
    #[inline(always)]
    pub(super) fn collect_from(&self, way: Way<'_, E>, event: E) -> Outcome {
        match self.shared.settings.gate() {
            None => self.collect_ungated(way, event),
            // Out of line: looking at the event here would keep it in memory even on the way without a gate.
            Some(gate) => self.collect_gated(gate, way, event),
        }
    }

    #[cold]
    #[inline(never)]
    fn collect_gated(&self, gate: &Gate, way: Way<'_, E>, event: E) -> Outcome {
        match self.admit(gate, event) {
            Ok(event) => self.collect_ungated(way, event),
            Err(refused) => refused.reason.into(),
        }
    }

    #[inline(always)]
    fn collect_ungated(&self, way: Way<'_, E>, event: E) -> Outcome {
        let priority = event.priority();
        // It moves: what it borrowed would have to be in memory, also where nothing is refused.
        let refused = move |event, reason, policy, _| {
            self.shared.collect_refused(way, priority, CollectError { event, reason }, policy).0
        };
        self.shared.offer_from(way, priority, event, |outcome, _| outcome, refused)
    }

    /// Collects an event, and also returns how many events were evicted for it.
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
                let refused = CollectError { event, reason };
                let (outcome, later) = self.shared.collect_refused(Way::OfThread, priority, refused, policy);
                (outcome, evicted + later)
            },
        )
    }

    /// Collects an event without waiting, or returns it if it is rejected.
    ///
    /// Unlike `collect`, it never waits: a full lane rejects at once under
    /// [`Overflow::Block`](crate::Overflow::Block) and for a critical event. `Ok` means that the event was queued,
    /// with two exceptions: [`Outcome::Stopped`] and [`Outcome::WorkerGone`] say that the collector ended at this very
    /// moment. Then the event is dropped and counted.
    ///
    /// # Errors
    ///
    /// The event was rejected and counted. The error returns it.
    pub fn try_collect(&self, event: impl Into<E>) -> Result<Outcome, CollectError<E>> {
        self.try_collect_from(Way::OfThread, event.into())
    }

    /// Collects an event without waiting, on this way.
    #[inline]
    pub(super) fn try_collect_from(&self, way: Way<'_, E>, mut event: E) -> Result<Outcome, CollectError<E>> {
        if let Some(gate) = self.shared.settings.gate() {
            event = self.admit(gate, event)?;
        }
        self.shared.offer_from(
            way,
            event.priority(),
            event,
            |outcome, _| Ok(outcome),
            |event, reason, _, _| {
                self.shared.count_refusal(reason);
                Err(CollectError { event, reason })
            },
        )
    }

    /// Collects an event as [`collect`](Self::collect) does, but returns it where there is no space for it.
    ///
    /// For a caller that has something to do before it waits, such as to release a lock. [`FullLane::wait`] waits then, and
    /// [`FullLane::reject`] does not. A queue with space costs what it costs `collect`.
    ///
    /// # Errors
    ///
    /// The lane of the event, or the byte budget, is full and does not evict. The event is in the error, and is not counted yet.
    ///
    /// # Examples
    ///
    /// ```
    /// use forebay::{Collector, Outcome, Overflow, Record};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let collector = Collector::builder().capacity(1).overflow(Overflow::DropNewest).build()?;
    /// assert!(matches!(collector.collect_unless_full(Record::new("tick")), Ok(Outcome::Queued)));
    /// let Err(full) = collector.collect_unless_full(Record::new("tick")) else { panic!("one place") };
    /// assert_eq!(full.reject(), Outcome::Full);
    /// assert_eq!(collector.stats().rejected.full, 1);
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub fn collect_unless_full(&self, event: impl Into<E>) -> Result<Outcome, FullLane<'_, E>> {
        let mut event = event.into();
        if let Some(gate) = self.shared.settings.gate() {
            event = match self.admit(gate, event) {
                Ok(event) => event,
                Err(refused) => return Ok(refused.reason.into()),
            };
        }
        let priority = event.priority();
        self.shared.offer(
            priority,
            event,
            |outcome, _| Ok(outcome),
            |event, reason, policy, _| {
                if reason == Refusal::Full {
                    return Err(FullLane { collector: self, priority, event: Some(event), policy });
                }
                self.shared.count_refusal(reason);
                Ok(reason.into())
            },
        )
    }

    /// Asks the gate, and counts an event that it rejects.
    pub(crate) fn admit(&self, gate: &Gate, event: E) -> Result<E, CollectError<E>> {
        // A collector that accepts no events says so, whatever the gate would say.
        if self.shared.phase.load().admits()
            && let Err(reason) = gate.admit(event.priority(), &event)
        {
            self.shared.count_refusal(reason);
            return Err(CollectError { event, reason });
        }
        Ok(event)
    }

    /// Returns whether the collector accepts an event of that name and normal priority at present. A caller can skip
    /// making an event that would be rejected. Sampling and limits are not asked.
    pub fn enabled(&self, name: &str) -> bool {
        self.accepts(name, Priority::Normal)
    }

    /// Returns whether the collector accepts an event of that name and priority at present, as [`enabled`](Self::enabled) does.
    pub fn accepts(&self, name: &str, priority: Priority) -> bool {
        self.shared.phase.load().admits() && self.passes_gate(name, priority)
    }

    /// Returns whether the [gate](crate::config::GateConfig) alone would let an event of that name and priority pass: also before the
    /// start, after the stop and in a forked child. Sampling and limits are not asked.
    pub fn passes_gate(&self, name: &str, priority: Priority) -> bool {
        self.shared.settings.gate().is_none_or(|gate| gate.enabled(name, priority))
    }

    /// Collects the event that `make` returns, unless an event of that name and priority would be rejected at present: then `make` is
    /// not called, and the refusal is counted.
    ///
    /// For events that are costly to make. Sampling, limits and the size are asked of the event itself.
    ///
    /// # Examples
    ///
    /// ```
    /// use forebay::{Collector, Outcome, Priority, Record};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let collector = Collector::builder().start()?;
    /// collector.stop()?;
    /// let outcome = collector.collect_with("layer.norms", Priority::Normal, || unreachable!("nobody wants it"));
    /// assert_eq!((outcome, collector.stats().rejected.stopped), (Outcome::Stopped, 1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn collect_with(&self, name: &str, priority: Priority, make: impl FnOnce() -> E) -> Outcome {
        let word = self.shared.phase.load();
        let refusal = if !word.admits() {
            Some(Refusal::of(word))
        } else {
            (!self.passes_gate(name, priority)).then_some(Refusal::Filtered)
        };
        match refusal {
            None => self.collect(make()),
            Some(reason) => {
                self.shared.count_refusal(reason);
                reason.into()
            }
        }
    }

    /// Collects several events in order, as `collect` would one by one.
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

/// Event that found no space: what [`Collector::collect_unless_full`] returns. Dropped, it is rejected.
#[must_use = "an event that is dropped is rejected"]
pub struct FullLane<'a, E: Event> {
    collector: &'a Collector<E>,
    priority: Priority,
    /// `None` once it has been collected or counted.
    event: Option<E>,
    policy: Policy,
}

impl<E: Event> FullLane<'_, E> {
    /// Waits for space, for as long as the settings say, and collects the event.
    pub fn wait(mut self) -> Outcome {
        let Some(event) = self.event.take() else { return Outcome::Full };
        let refused = CollectError { event, reason: Refusal::Full };
        self.collector.shared.collect_refused(Way::OfThread, self.priority, refused, self.policy).0
    }

    /// Counts the event as rejected, and drops it.
    pub fn reject(self) -> Outcome {
        Outcome::Full
    }
}

impl<E: Event> Drop for FullLane<'_, E> {
    fn drop(&mut self) {
        if self.event.is_some() {
            // Counted before the event is dropped, because its destructor may panic.
            self.collector.shared.count_refusal(Refusal::Full);
        }
    }
}

impl<E: Event> fmt::Debug for FullLane<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FullLane").field("priority", &self.priority).finish_non_exhaustive()
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

/// What the push of a waiter displaced. It is counted and dropped without the lock of the waiters.
pub(crate) enum Displaced<E> {
    Nothing,
    OfRing(E),
    /// The push went into the lane of a thread; see [`Place::push`](pool::Place::push).
    OfLane {
        evicted: u64,
        stale: Option<E>,
    },
}

impl<E: Event> Shared<E> {
    /// Pushes an event into its lane: the hot path. It goes on with `taken`, or with `refused` for an event that is
    /// rejected and not counted yet. `refused` gets the reason and the policy at that time. Both get the number of
    /// events that were evicted for it.
    #[inline(always)]
    pub(crate) fn offer<R>(
        &self,
        priority: Priority,
        event: E,
        taken: impl FnOnce(Outcome, u64) -> R,
        refused: impl FnOnce(E, Refusal, Policy, u64) -> R,
    ) -> R {
        self.offer_from(Way::OfThread, priority, event, taken, refused)
    }

    /// The same, on a way that the caller chooses.
    #[inline(always)]
    fn offer_from<R>(
        &self,
        way: Way<'_, E>,
        priority: Priority,
        event: E,
        taken: impl FnOnce(Outcome, u64) -> R,
        refused: impl FnOnce(E, Refusal, Policy, u64) -> R,
    ) -> R {
        let policy = self.settings.policy();
        // User code, which may fork. It runs before the word is read, so that the child does not touch the rings.
        let bytes = owned_bytes(&event);
        let is_too_deep = bytes > 0 && event.is_too_deep();
        let before = self.phase.load();
        if !before.admits() {
            return refused(event, Refusal::of(before), policy, 0);
        }
        let evictions = if bytes > 0 {
            if is_too_deep {
                return refused(event, Refusal::Oversize, policy, 0);
            }
            let (evicted, reserved) = self.reserve(way, priority, bytes, policy.evicts(priority));
            if let Err(reason) = reserved {
                return refused(event, reason, policy, evicted);
            }
            evicted
        } else {
            0
        };
        if priority == Priority::Normal
            && let Some(place) = way.place(&self.lanes)
        {
            let eviction = self.lanes.eviction(policy.evicts(priority));
            // Dropped at the end, where it is.
            let mut stale = None;
            return match place.push(event, eviction, &mut stale) {
                Ok(queued) => {
                    let (outcome, evictions) = self.after_lane_push(&queued, &mut stale, way, evictions);
                    taken(outcome, evictions)
                }
                Err((event, pool::Refused::Full)) => {
                    self.lanes.release(priority, bytes);
                    refused(event, Refusal::Full, policy, evictions)
                }
                Err((event, pool::Refused::NoLane)) => {
                    self.offer_to_ring(event, bytes, evictions, policy, taken, refused)
                }
            };
        }
        self.push_to_ring(priority, event, bytes, evictions, policy, taken, refused)
    }

    /// Pushes an event into its ring, and completes the push.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "inlined into its callers, whose arguments they are")]
    fn push_to_ring<R>(
        &self,
        priority: Priority,
        event: E,
        bytes: u64,
        mut evictions: u64,
        policy: Policy,
        taken: impl FnOnce(Outcome, u64) -> R,
        refused: impl FnOnce(E, Refusal, Policy, u64) -> R,
    ) -> R {
        // Event and evicted event stay where they are. A move into a result would copy them, and these copies would
        // cost more than the push.
        if policy.evicts(priority) {
            let mut evicted = self.lanes.push_evicting(priority, event);
            if evicted.is_some() {
                self.lanes.count_evicted(priority, &mut evicted);
                evictions += 1;
            }
            let outcome = Outcome::of_push(evictions);
            // The evicted event is dropped at the end of this scope, in its place. A call of `drop` would copy it,
            // even where there is none.
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

    /// Pushes a normal event of a thread that has no lane.
    #[cold]
    #[inline(never)]
    fn offer_to_ring<R>(
        &self,
        event: E,
        bytes: u64,
        evictions: u64,
        policy: Policy,
        taken: impl FnOnce(Outcome, u64) -> R,
        refused: impl FnOnce(E, Refusal, Policy, u64) -> R,
    ) -> R {
        self.push_to_ring(Priority::Normal, event, bytes, evictions, policy, taken, refused)
    }

    /// Completes a push into the lane of a thread. Returns its outcome, and how many events were evicted for it in all.
    #[inline(always)]
    fn after_lane_push(
        &self,
        queued: &Queued<'_, E>,
        stale: &mut Option<E>,
        way: Way<'_, E>,
        evictions: u64,
    ) -> (Outcome, u64) {
        match queued.evicted {
            None => (self.complete_in_lane(queued.lane, Outcome::of_push(evictions)), evictions),
            Some(evicted) => self.after_lane_push_with_new_space(queued.lane, evicted, stale, way, evictions),
        }
    }

    /// Completes a push into a slot that was not ready. The worker learns of it first, because the code of evicted events may wait for it.
    #[cold]
    #[inline(never)]
    fn after_lane_push_with_new_space(
        &self,
        lane: Owned<'_, E>,
        evicted: u64,
        stale: &mut Option<E>,
        way: Way<'_, E>,
        evictions: u64,
    ) -> (Outcome, u64) {
        let evictions = evictions + evicted;
        let outcome = self.complete_in_lane(lane, Outcome::of_push(evictions));
        self.lanes.release_stale(stale, evicted, way);
        (outcome, evictions)
    }

    /// Completes a push into a lane, as `after_push` does one into a ring.
    #[inline(always)]
    fn complete_in_lane(&self, lane: Owned<'_, E>, outcome: Outcome) -> Outcome {
        let after = self.phase.load_after_lane_push();
        if after.is_awake() {
            return outcome;
        }
        match after.wake_at() {
            Some(wake_at) => {
                if self.lanes.needs_worker_after_lane_push(lane, wake_at) {
                    self.wake_for_event();
                }
                outcome
            }
            None => self.after_push_not_running(after, outcome),
        }
    }

    /// Reserves the bytes that an event owns; see [`Lanes::reserve`]. Where they do not fit, wakes the worker, as a
    /// full lane does.
    #[cold]
    #[inline(never)]
    fn reserve(
        &self,
        way: Way<'_, E>,
        priority: Priority,
        bytes: u64,
        evicts: bool,
    ) -> (u64, Result<(), Refusal>) {
        let reserved = self.lanes.reserve(way, priority, bytes, evicts);
        if reserved.1 == Err(Refusal::Full) {
            // Either a worker that goes to sleep meanwhile sees that bytes are wanted, or this thread sees that it
            // sleeps. An explicit fence is needed: no push came before that would be one.
            announce_fence();
            if self.phase.load().wake_at().is_some_and(|wake_at| self.lanes.needs_worker(wake_at)) {
                self.wake_for_event();
            }
        }
        reserved
    }

    /// Completes a push: wakes a worker that sleeps and is needed, and removes an event that came too late.
    #[inline(always)]
    pub(crate) fn after_push(&self, priority: Priority, outcome: Outcome) -> Outcome {
        let after = self.phase.load_after_push();
        if after.is_awake() || self.lets_sleep(after, priority) {
            outcome
        } else {
            self.after_push_not_awake(after, outcome)
        }
    }

    /// Returns whether the worker sleeps and is not needed after a push.
    #[inline(always)]
    fn lets_sleep(&self, after: Word, priority: Priority) -> bool {
        after.wake_at().is_some_and(|wake_at| !self.lanes.needs_worker_after_push(priority, wake_at))
    }

    #[cold]
    #[inline(never)]
    fn after_push_not_awake(&self, after: Word, outcome: Outcome) -> Outcome {
        if after.wake_at().is_none() {
            return self.after_push_not_running(after, outcome);
        }
        self.wake_for_event();
        outcome
    }

    /// Wakes the worker, and counts that.
    #[cold]
    fn wake_for_event(&self) {
        if self.phase.wake() {
            self.tally.wakes.add(1);
        }
    }

    /// Completes a push into a collector that is not running: it was never started, or it stopped while the event was
    /// on its way.
    #[cold]
    fn after_push_not_running(&self, after: Word, outcome: Outcome) -> Outcome {
        match after.state() {
            // A worker will take the event.
            State::Idle | State::Awake | State::Asleep | State::Draining => outcome,
            // This is the only thread of a forked child. The ring is its own copy, and nobody will ever drain it.
            State::Forked => outcome,
            // No worker will take the event. Everything in the rings now came too late, because they were drained
            // before the word said so. If they are empty, another thread has removed and counted the event.
            State::Stopped | State::WorkerGone => {
                // If the collector was started again since the load, these would be events of the new run. Nobody can
                // start it while we hold the mailbox. A run that is `Draining` by now has a worker that delivers our
                // event as well.
                let held = self.mailbox.hold();
                let is_over = matches!(self.phase.load().state(), State::Stopped | State::WorkerGone);
                let late = if is_over { self.lanes.remove_all() } else { Removed::default() };
                drop(held);
                // What an event owns and how it is dropped is user code, which must not run under our lock.
                match self.discard_removed(late) {
                    0 => outcome,
                    _ => Refusal::of(after).into(),
                }
            }
        }
    }

    /// Releases, counts and drops events that came too late. Returns how many there were.
    fn discard_removed(&self, late: Removed<E>) -> u64 {
        let discarded = self.discard(self.lanes.release_removed(late));
        // The next run may have begun meanwhile, and somebody in it wait for these bytes. In a forked child, nobody does.
        if discarded > 0 && self.mailbox.contents.check().is_ok() {
            self.space_waiters.wake_all();
        }
        discarded
    }

    /// Finishes `collect` of an event that was not queued at once: waits where the settings say so, else counts it. Also returns how
    /// many events were evicted for it after a wait.
    #[cold]
    #[inline(never)]
    fn collect_refused(
        &self,
        way: Way<'_, E>,
        priority: Priority,
        refused: CollectError<E>,
        before: Policy,
    ) -> (Outcome, u64) {
        let policy = self.settings.policy();
        // The policy may evict by now, if the settings changed meanwhile. If it could evict before, there was nothing
        // to evict.
        let may_stay = policy.evicts(priority) && !before.evicts(priority)
            || !self.settings.wait_timeout(policy, priority).is_zero() && !self.is_worker();
        let (outcome, evicted) = if refused.reason == Refusal::Full && may_stay {
            self.wait_for_space(way, priority, refused.event)
        } else {
            (Err(refused), 0)
        };
        let outcome = outcome.unwrap_or_else(|refused| {
            // Counted before the event is dropped, because its destructor may panic.
            self.count_refusal(refused.reason);
            refused.reason.into()
        });
        (outcome, evicted)
    }

    /// Waits for space for as long as the settings say, then returns the event. Settings that change meanwhile apply
    /// at once. Also returns how many events were evicted for it.
    fn wait_for_space(
        &self,
        way: Way<'_, E>,
        priority: Priority,
        event: E,
    ) -> (Result<Outcome, CollectError<E>>, u64) {
        let begun = Instant::now();
        // The worker alone makes space. It must not wait, whatever the settings come to say.
        let is_worker = self.is_worker();
        let mut has_waited = false;
        let mut event = event;
        let mut is_late = false;
        let mut evicted = 0;
        // User code, so it must not run under our lock.
        let bytes = owned_bytes(&event);
        let word = self.phase.load();
        if !word.admits() {
            // The user code may have forked. Then this lock is the parent's.
            return (Err(CollectError { event, reason: Refusal::of(word) }), 0);
        }
        let mut waiting = self.space_waiters.lock();
        let displaced = loop {
            let policy = self.settings.policy();
            let wait_timeout =
                if is_worker { Duration::ZERO } else { self.settings.wait_timeout(policy, priority) };
            match self.retry_push(way, policy, priority, event, bytes) {
                Ok(displaced) => break displaced,
                Err(refused) if refused.reason == Refusal::Full && policy.evicts(priority) => {
                    // Only its bytes found no space. Others are evicted for them without our lock, because their
                    // destructors are user code.
                    drop(waiting);
                    let (offered, more) = self.offer_after_wait(way, priority, refused.event, has_waited);
                    evicted += more;
                    match offered {
                        Err((refused, policy))
                            if refused.reason == Refusal::Full && !policy.evicts(priority) =>
                        {
                            // The settings have changed again.
                            event = refused.event;
                            waiting = self.space_waiters.lock();
                            continue;
                        }
                        offered => return (offered.map_err(|(refused, _)| refused), evicted),
                    }
                }
                Err(refused) if refused.reason == Refusal::Full && !is_late && !wait_timeout.is_zero() => {
                    event = refused.event;
                }
                Err(refused) => {
                    // The event will be dropped, and its destructor is user code. It must not run under our lock.
                    drop(waiting);
                    return (Err(refused), evicted);
                }
            }
            if !has_waited {
                self.tally.waits.add(1);
                has_waited = true;
            }
            is_late = self.space_waiters.wait(&mut waiting, begun.checked_add(wait_timeout));
        };
        drop(waiting);
        let (outcome, more) = self.after_waiter_push(way, priority, displaced);
        (Ok(outcome), evicted + more)
    }

    /// Offers the event of a waiter as a new call would, without the lock of the waiters. An event that is refused comes back
    /// with the policy at that time. Also returns how many events were evicted for it.
    fn offer_after_wait(
        &self,
        way: Way<'_, E>,
        priority: Priority,
        event: E,
        has_waited: bool,
    ) -> (Result<Outcome, (CollectError<E>, Policy)>, u64) {
        self.offer_from(
            way,
            priority,
            event,
            |outcome, evicted| {
                let queued = if has_waited { Outcome::QueuedAfterWait } else { Outcome::Queued };
                (Ok(if outcome == Outcome::Queued { queued } else { outcome }), evicted)
            },
            |event, reason, policy, evicted| (Err((CollectError { event, reason }, policy)), evicted),
        )
    }

    /// Completes the push of a waiter. The caller has released the lock of the waiters, because the destructor of an
    /// evicted event is user code. Also returns how many were evicted.
    pub(crate) fn after_waiter_push(
        &self,
        way: Way<'_, E>,
        priority: Priority,
        displaced: Displaced<E>,
    ) -> (Outcome, u64) {
        match displaced {
            Displaced::Nothing => (self.after_push(priority, Outcome::QueuedAfterWait), 0),
            Displaced::OfRing(evicted) => {
                let mut evicted = Some(evicted);
                self.lanes.count_evicted(priority, &mut evicted);
                (self.after_push(priority, Outcome::QueuedEvicting), 1)
            }
            Displaced::OfLane { evicted, mut stale } => {
                let outcome = if evicted > 0 { Outcome::QueuedEvicting } else { Outcome::QueuedAfterWait };
                // A push into a lane has no locked instruction: see `load_after_lane_push`.
                announce_fence();
                let outcome = self.after_push(priority, outcome);
                self.lanes.release_stale(&mut stale, evicted, way);
                (outcome, evicted)
            }
        }
    }

    /// Tries to push the event of a waiter, which owns `bytes` and holds the lock of the waiters. It evicts only if
    /// the settings have come to say so. The caller counts and drops an evicted event without the lock
    /// (`after_waiter_push`). A full lane makes sure that the worker is awake, unless its strategy must not be
    /// disturbed.
    pub(crate) fn retry_push(
        &self,
        way: Way<'_, E>,
        policy: Policy,
        priority: Priority,
        event: E,
        bytes: u64,
    ) -> Result<Displaced<E>, CollectError<E>> {
        let word = self.phase.load();
        if !word.admits() {
            return Err(CollectError { event, reason: Refusal::of(word) });
        }
        // No other event is evicted for the bytes, because its destructor would run under the lock.
        if bytes > 0
            && let Err(reason) = self.reserve(way, priority, bytes, false).1
        {
            return Err(CollectError { event, reason });
        }
        let evicts = policy.evicts(priority);
        let is_normal = priority == Priority::Normal;
        let mut pushed = match is_normal.then(|| way.place(&self.lanes)).flatten() {
            Some(place) => {
                // Nothing is dropped here: what is evicted lies in its slots until they are needed.
                let eviction = self.lanes.eviction(evicts);
                // The same way as before, so that the producer's events keep their order.
                let mut stale = None;
                let pushed = place.push(event, eviction, &mut stale);
                pushed
                    .map(|queued| Displaced::OfLane { evicted: queued.evicted.unwrap_or(0), stale })
                    .map_err(|(event, why)| (event, why == pool::Refused::Full))
            }
            None => Err((event, false)),
        };
        if let Err((event, false)) = pushed {
            pushed = if evicts {
                let evicted = self.lanes.push_evicting(priority, event);
                Ok(evicted.map_or(Displaced::Nothing, Displaced::OfRing))
            } else {
                self.lanes.push(priority, event).map(|()| Displaced::Nothing).map_err(|event| (event, true))
            };
        }
        pushed.map_err(|(event, _)| {
            self.lanes.release(priority, bytes);
            // A push into a lane that fails is no fence: see `load_after_lane_push`.
            let word = if self.lanes.threads().is_some() { self.phase.load_after_lane_push() } else { word };
            if word.wake_at().is_some_and(|wake_at| self.lanes.needs_worker(wake_at)) {
                self.wake_for_event();
            }
            CollectError { event, reason: Refusal::Full }
        })
    }
}
