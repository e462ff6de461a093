//! Trying again.

use std::fmt;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Account, Hook, Sink, SinkError};
use crate::batch::Batch;
use crate::config::duration;
use crate::config::error::{ConfigError, check};
use crate::event::Record;

/// Policy of retries: how often, and after which waits, a batch is tried again.
///
/// ```
/// use std::time::Duration;
/// use forebay::sink::RetryPolicy;
///
/// let policy = RetryPolicy::exponential(Duration::from_millis(100), 5).cap(Duration::from_secs(1));
/// let waits: Vec<u128> = (0..6).map_while(|retry| policy.delay(retry)).map(|wait| wait.as_millis()).collect();
/// assert_eq!(waits, [100, 200, 400, 800, 1000]);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryPolicy {
    /// The waits before the first retries; after them the last one doubles each time.
    #[serde(with = "duration::list")]
    pub(crate) delays: Vec<Duration>,
    /// Factor by which the last of them is multiplied for every further retry.
    pub(crate) factor: u32,
    pub(crate) retries: u32,
    #[serde(with = "duration")]
    pub(crate) cap: Duration,
    /// 0 to 1.
    pub(crate) jitter: f64,
    #[serde(with = "duration::option")]
    pub(crate) max_elapsed: Option<Duration>,
}

impl Default for RetryPolicy {
    /// Returns three retries, after 1, 2 and 4 seconds.
    fn default() -> Self {
        Self::exponential(Duration::from_secs(1), 3)
    }
}

impl RetryPolicy {
    /// Creates a policy in which all waits are the same. A [`cap`](Self::cap) is not set.
    pub fn fixed(delay: Duration, retries: u32) -> Self {
        Self { factor: 1, cap: Duration::MAX, ..Self::exponential(delay, retries) }
    }

    /// Creates a policy in which each wait is twice the one before, 30 s at most ([`cap`](Self::cap)).
    pub fn exponential(first: Duration, retries: u32) -> Self {
        let (delays, cap) = (vec![first], Duration::from_secs(30));
        Self { delays, factor: 2, retries, cap, jitter: 0.0, max_elapsed: None }
    }

    /// Creates a policy of these waits, one for each retry.
    pub fn list(delays: impl IntoIterator<Item = Duration>) -> Self {
        let delays: Vec<Duration> = delays.into_iter().collect();
        let retries = u32::try_from(delays.len()).unwrap_or(u32::MAX);
        Self { delays, cap: Duration::MAX, ..Self::exponential(Duration::ZERO, retries) }
    }

    /// Sets the number of retries. Where a list has fewer waits, the last one doubles from then on.
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Sets the longest wait. Defaults to 30 s for [`exponential`](Self::exponential), and to no limit for the others.
    pub fn cap(mut self, max: Duration) -> Self {
        self.cap = max;
        self
    }

    /// Makes every wait longer or shorter by up to that part of it, at random, so that many do not come back at once: 0 to
    /// 1, others become the nearest of these; NaN becomes 0. Defaults to 0.
    pub fn jitter(mut self, part: f64) -> Self {
        self.jitter = if part.is_nan() { 0.0 } else { part.clamp(0.0, 1.0) };
        self
    }

    /// Gives up rather than wait longer than that since the first try. By default only the number of retries counts.
    pub fn max_elapsed(mut self, max: Duration) -> Self {
        self.max_elapsed = Some(max);
        self
    }

    /// Checks the policy, which may come from a file.
    ///
    /// # Errors
    ///
    /// The jitter is not 0 to 1.
    #[doc(hidden)]
    pub fn validate(&self) -> Result<(), ConfigError> {
        check("retry.jitter", self.jitter, "0 to 1", (0.0..=1.0).contains(&self.jitter))
    }

    /// Returns the wait before retry number `retry`, from 0, without jitter; `None` if there is none.
    pub fn delay(&self, retry: u32) -> Option<Duration> {
        if retry >= self.retries {
            return None;
        }
        let last = u32::try_from(self.delays.len().saturating_sub(1)).unwrap_or(u32::MAX);
        let delay = self.delays.get(retry.min(last) as usize).copied().unwrap_or_default();
        let doublings = retry.saturating_sub(last);
        let times = self.factor.checked_pow(doublings).unwrap_or(u32::MAX);
        Some(delay.checked_mul(times).unwrap_or(Duration::MAX).min(self.cap))
    }

    /// Returns the delay with jitter.
    pub(crate) fn next_delay(&self, retry: u32) -> Option<Duration> {
        let delay = self.delay(retry)?;
        let part = 1.0 + self.jitter * (2.0 * fastrand::f64() - 1.0);
        let nanos = (delay.as_nanos() as f64 * part).min(self.cap.as_nanos() as f64);
        // What is beyond a u64 saturates: 584 years.
        Some(if self.jitter == 0.0 { delay } else { Duration::from_nanos(nanos as u64) })
    }

    /// Returns the delay with jitter, so long after the first try; `None` if that would take too long.
    #[doc(hidden)]
    pub fn next_delay_after(&self, retry: u32, elapsed: Duration) -> Option<Duration> {
        self.delay_unless_later(retry, elapsed, None)
    }

    /// Returns that delay, or a longer one that the destination asks for.
    fn delay_unless_later(&self, retry: u32, elapsed: Duration, asked: Option<Duration>) -> Option<Duration> {
        let delay = self.next_delay(retry)?.max(asked.unwrap_or_default());
        self.max_elapsed.is_none_or(|max| elapsed.saturating_add(delay) <= max).then_some(delay)
    }
}

/// Sink that is offered a batch again after it failed. Made by [`SinkExt::retry`](crate::sink::SinkExt::retry).
///
/// * Only a batch that failed by an error that is [transient](SinkError::is_transient) is tried again, and only if it failed as a
///   whole or the sink [remembers](SinkError::resumable) which events failed: of others that failed in part, nobody knows which
///   events would be delivered twice. Nor is one that panicked. Put it inside of a map, a filter and a route: they make another batch
///   with each try, which no sink remembers.
/// * A batch that failed in part, and of which the rest was given up, has failed in part: [dead letters](crate::sink::SinkExt::dead_letters) count its
///   rest as failed, and keep no event of it, because nobody outside of the sink knows which they are.
/// * Where the destination asks for a [longer wait](SinkError::retry_after) than the policy has, that is waited. The policy alone says
///   how often, and for how long in all ([`RetryPolicy::max_elapsed`]).
/// * It waits on a thread of its own: a chain with a retry is [`isolated`](crate::sink::SinkExt::isolated), by a queue of 64 batches unless
///   it says otherwise outside of the retry. Other sinks go on meanwhile.
/// * A `flush` or `stop` does not shorten the waits; it ends by its own deadline, and tells that this sink was not flushed.
///   The drop of the sink ends them: the batch has failed then. The drop of the last handle waits before, up to its
///   deadline.
/// * Put it inside of [`isolated`](crate::sink::SinkExt::isolated), if that is there: outside, it sees no error.
pub struct Retry<S, E = Record> {
    sink: S,
    policy: RetryPolicy,
    account: Account,
    of: PhantomData<fn(&E)>,
}

impl<S: Sink<E>, E> Retry<S, E> {
    pub(super) fn new(sink: S, policy: RetryPolicy) -> Self {
        Self { sink, policy, account: Account::nobody(), of: PhantomData }
    }
}

impl<S: Sink<E>, E> Sink<E> for Retry<S, E> {
    fn name(&self) -> &str {
        self.sink.name()
    }

    fn write_batch(&mut self, batch: &Batch<E>) -> Result<(), SinkError> {
        let begun = Instant::now();
        let mut retry = 0_u32;
        // Number of events that are left of a batch that failed in part. Where it goes on, no more than that can fail, whatever a later error says.
        let mut left: Option<u64> = None;
        loop {
            let Err(error) = self.sink.write_batch(batch) else { return Ok(()) };
            // The sink may have forked.
            batch.check()?;
            let error = error.with_attempts(retry.saturating_add(1));
            let is_unknown = error.is_partial(batch.len()) && !error.is_resumable();
            if error.is_partial(batch.len()) && error.is_resumable() || left.is_some() {
                let failed = error.failed_of(batch.len() as u64);
                left = Some(left.map_or(failed, |left| left.min(failed)));
            }
            let error = match left {
                Some(left) => error.with_failed_events(left),
                None => error,
            };
            if !error.is_transient() || is_unknown {
                return Err(error);
            }
            let delay = self.policy.delay_unless_later(retry, begun.elapsed(), error.retry_after());
            if !delay.is_some_and(|delay| self.account.wait(delay)) {
                return Err(error);
            }
            self.account.note_retry(&error);
            retry = retry.saturating_add(1);
        }
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.sink.flush()
    }

    fn hook(&mut self, hook: Hook<'_>) {
        match hook {
            Hook::MayWait(may_wait) => return *may_wait = true,
            Hook::Open(account) => self.account = account.clone(),
            _ => {}
        }
        self.sink.hook(hook);
    }
}

impl<S, E> fmt::Debug for Retry<S, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry").field("policy", &self.policy).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_makes_waits_longer_and_not_more_or_shorter() {
        let seconds = Duration::from_secs;
        let policy = RetryPolicy::list([seconds(1), seconds(4)]).max_elapsed(seconds(100));
        let wait = |retry, elapsed, asked: Option<u64>| {
            policy.delay_unless_later(retry, seconds(elapsed), asked.map(seconds)).map(|wait| wait.as_secs())
        };
        assert_eq!([wait(0, 0, None), wait(0, 0, Some(0)), wait(0, 0, Some(3))], [Some(1), Some(1), Some(3)]);
        assert_eq!([wait(1, 0, Some(3)), wait(1, 0, Some(5))], [Some(4), Some(5)]);
        assert_eq!(
            [wait(1, 90, Some(10)), wait(1, 90, Some(11))],
            [Some(10), None],
            "it would take too long"
        );
        assert_eq!(wait(2, 0, Some(1)), None, "there is no third retry");
    }
}
