//! Leaving a sink alone that fails again and again.

use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use super::{Account, Hook, Sink, SinkError};
use crate::batch::Batch;
use crate::clock::{Clock, ManualClock};
use crate::event::Record;
use crate::self_log::LogLevel;
pub use crate::stats::breaker_state::BreakerState;
use crate::sync::{Arc, Mutex, is_panicking};

/// Policy by which a breaker opens and closes.
///
/// # Examples
///
/// ```
/// use forebay::sink::{BreakerPolicy, BreakerState, Sink, SinkError, SinkExt, from_fn};
/// use forebay::{Batch, Record};
///
/// let mut policy = BreakerPolicy::default();
/// policy.failures = 2;
/// let mut sink = from_fn("remote", |_: &Batch| Err(SinkError::unavailable("refused"))).breaker(policy);
/// let watch = sink.watch();
/// let batch = Batch::from_events(vec![Record::new("tick")]);
/// for _ in 0..2 {
///     assert!(sink.write_batch(&batch).is_err());
/// }
/// assert_eq!((watch.state(), watch.opened()), (BreakerState::Open, 1));
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct BreakerPolicy {
    /// The breaker opens when that many batches in a row have failed; 0 counts as 1. Defaults to 5.
    pub failures: u32,
    /// The breaker also opens when that share of the last `window` batches has failed. Defaults to 0.5.
    pub rate: f64,
    /// Number of batches that the rate is taken over, 10,000 at most; it counts only once there were so many. 0 looks at no rate.
    /// Defaults to 20.
    pub window: usize,
    /// Time for which it stays open. Defaults to 30 s.
    pub open_for: Duration,
    /// Number of batches in a row that must succeed after that, before the breaker closes; 0 counts as 1. Defaults to 1.
    pub probes: u32,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self { failures: 5, rate: 0.5, window: 20, open_for: Duration::from_secs(30), probes: 1 }
    }
}

/// Sink that is left alone for a while when it fails again and again. Made by
/// [`SinkExt::breaker`](crate::sink::SinkExt::breaker).
///
/// While it is open, batches fail at once: put [`dead_letters`](crate::sink::SinkExt::dead_letters) outside of it to
/// keep them. A batch that failed in part counts as a failure where the sink would [go on](SinkError::resumable) with the rest, as after an answer
/// that did not come, and as a success where the rest cannot be delivered. Those that fail with a permanent error when they are redriven say nothing to a breaker that is closed.
/// Inside of a [`retry`](crate::sink::SinkExt::retry), every try counts. Put it inside of
/// [`isolated`](crate::sink::SinkExt::isolated), which fails no batch, and of [`route`](crate::sink::SinkExt::route),
/// which passes batches over that would count as successes. A flush always goes through.
pub struct Breaker<S, E = Record> {
    sink: S,
    policy: BreakerPolicy,
    clock: Clock,
    /// Failures of the last batches (true if failed), newest last.
    last: VecDeque<bool>,
    in_a_row: u32,
    state: BreakerState,
    /// Trips that a watch sees. A breaker may be moved into a forked child, where its watch is the parent's.
    shown: Arc<Mutex<Trips>>,
    opened: Instant,
    account: Account,
    of: PhantomData<fn(&E)>,
}

/// View of a breaker from outside. Made by [`Breaker::watch`].
#[derive(Debug, Clone)]
pub struct BreakerWatch(Arc<Mutex<Trips>>);

#[derive(Debug)]
struct Trips {
    state: BreakerState,
    opened: u64,
}

impl BreakerWatch {
    /// Returns what it lets through. In a forked child, which learns nothing, it is closed and has never opened.
    pub fn state(&self) -> BreakerState {
        self.0.enter().map_or(BreakerState::Closed, |trips| trips.state)
    }

    /// Returns how often it has opened.
    pub fn opened(&self) -> u64 {
        self.0.enter().map_or(0, |trips| trips.opened)
    }
}

impl<S, E> Breaker<S, E> {
    pub(super) fn new(sink: S, mut policy: BreakerPolicy) -> Self {
        policy.window = policy.window.min(10_000);
        let state = BreakerState::Closed;
        let shown = Arc::new(Mutex::new(Trips { state, opened: 0 }));
        let (last, of) = (VecDeque::new(), PhantomData);
        let clock = Clock::System;
        let account = Account::nobody();
        Self { sink, policy, opened: clock.now(), clock, last, in_a_row: 0, state, shown, account, of }
    }

    /// Lets it go by a clock that is moved by hand, for tests.
    pub fn manual_clock(mut self, clock: &ManualClock) -> Self {
        self.clock = Clock::Manual(clock.clone());
        self.opened = self.clock.now();
        self
    }

    /// Returns a watch of the breaker, for use once a collector owns it.
    pub fn watch(&self) -> BreakerWatch {
        BreakerWatch(Arc::clone(&self.shown))
    }

    fn set(&mut self, state: BreakerState) {
        self.state = state;
        if let Ok(mut trips) = self.shown.enter() {
            trips.opened += u64::from(state == BreakerState::Open);
            trips.state = state;
        }
        self.in_a_row = 0;
        self.last.clear();
        match state {
            BreakerState::Open => {
                self.opened = self.clock.now();
                self.account.say_breaker(LogLevel::Warn, "has opened");
            }
            BreakerState::Closed => self.account.say_breaker(LogLevel::Info, "is closed again"),
            BreakerState::HalfOpen => {}
        }
    }

    /// Goes by what became of a batch.
    fn note(&mut self, has_failed: bool) {
        match (self.state, has_failed) {
            (BreakerState::HalfOpen, true) => self.set(BreakerState::Open),
            (BreakerState::HalfOpen, false) => {
                self.in_a_row = self.in_a_row.saturating_add(1);
                if self.in_a_row >= self.policy.probes {
                    self.set(BreakerState::Closed);
                }
            }
            (_, has_failed) => {
                self.in_a_row = if has_failed { self.in_a_row.saturating_add(1) } else { 0 };
                self.last.push_back(has_failed);
                if self.last.len() > self.policy.window {
                    self.last.pop_front();
                }
                let failed = self.last.iter().filter(|has_failed| **has_failed).count() as f64;
                let window = self.policy.window;
                let is_bad = window > 0
                    && self.last.len() == window
                    && failed >= self.policy.rate * window as f64
                    && failed > 0.0;
                if is_bad || self.in_a_row >= self.policy.failures.max(1) {
                    self.set(BreakerState::Open);
                }
            }
        }
    }
}

/// Guard that counts a panic as a failure, while it goes on its way.
struct Panicked<'a, S, E>(&'a mut Breaker<S, E>);

impl<S, E> Drop for Panicked<'_, S, E> {
    fn drop(&mut self) {
        if is_panicking() {
            self.0.note(true);
        }
    }
}

impl<S: Sink<E>, E> Sink<E> for Breaker<S, E> {
    fn name(&self) -> &str {
        self.sink.name()
    }

    fn write_batch(&mut self, batch: &Batch<E>) -> Result<(), SinkError> {
        if self.state == BreakerState::Open {
            let since = self.clock.now().saturating_duration_since(self.opened);
            if since < self.policy.open_for {
                return Err(SinkError::unavailable("the breaker is open"));
            }
            self.set(BreakerState::HalfOpen);
        }
        let guard = Panicked(self);
        let result = guard.0.sink.write_batch(batch);
        // The sink may have forked.
        batch.check()?;
        // A part that cannot be delivered says nothing of the destination; the rest was delivered. One that is to be sent again does.
        let is_failure = |error: &&SinkError| {
            !error.is_partial(batch.len()) || error.is_transient() && error.is_resumable()
        };
        let error = result.as_ref().err().filter(is_failure);
        // Dead letters that no retry can help may be refused for what they are, each by itself.
        let is_closed = guard.0.state == BreakerState::Closed;
        let may_be_their_fault =
            is_closed && batch.is_redriven() && error.is_some_and(|error| !error.is_transient());
        if !may_be_their_fault {
            guard.0.note(error.is_some());
        }
        result
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.sink.flush()
    }

    fn hook(&mut self, hook: Hook<'_>) {
        if let Hook::Open(account) = &hook {
            let watch = self.watch();
            account.show_breaker(move || watch.state());
            self.account = Account::clone(account);
        }
        self.sink.hook(hook);
    }
}

impl<S, E> fmt::Debug for Breaker<S, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("state", &self.state)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
