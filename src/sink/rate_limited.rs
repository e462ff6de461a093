//! Rate limit of a sink.

use std::fmt;
use std::marker::PhantomData;
use std::time::Instant;

use super::{Account, Hook, Sink, SinkError};
use crate::batch::Batch;
use crate::event::Record;
use crate::rate::Pace;

/// Sink that gets so many events a second in the long run, up to a second's worth at once. Made by
/// [`SinkExt::rate_limited`](crate::sink::SinkExt::rate_limited).
///
/// A batch waits until its events may come; it is not split. It waits on a thread of its own, as a
/// [`retry`](crate::sink::SinkExt::retry) does, and what comes faster for long overflows that thread's queue.
pub struct RateLimited<S, E = Record> {
    sink: S,
    limit: Pace,
    begun: Instant,
    account: Account,
    of: PhantomData<fn(&E)>,
}

impl<S, E> RateLimited<S, E> {
    pub(super) fn new(sink: S, per_second: u32) -> Self {
        Self {
            sink,
            limit: Pace::new(per_second),
            begun: Instant::now(),
            account: Account::nobody(),
            of: PhantomData,
        }
    }
}

impl<S: Sink<E>, E> Sink<E> for RateLimited<S, E> {
    fn name(&self) -> &str {
        self.sink.name()
    }

    fn write_batch(&mut self, batch: &Batch<E>) -> Result<(), SinkError> {
        for _ in batch {
            while let Err(wait) = self.limit.take(self.begun.elapsed()) {
                // When the sink is to end, what is left goes as fast as it can.
                if !self.account.wait(wait) {
                    break;
                }
            }
        }
        self.sink.write_batch(batch)
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

impl<S, E> fmt::Debug for RateLimited<S, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimited").field("limit", &self.limit).finish_non_exhaustive()
    }
}
