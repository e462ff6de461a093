//! A sink for the events that a function chooses.

use std::fmt;
use std::marker::PhantomData;

use super::route::offer;
use super::{Account, Hook, Sink, SinkError};
use crate::batch::Batch;
use crate::event::Record;

/// Sink for the events that a function chooses. Made by [`SinkExt::filter`](crate::sink::SinkExt::filter). An event at which the function panics fails alone,
/// and is reported to the sink inside by the [`gap`](Batch::gap). As with a [`Map`](crate::sink::Map), a retry belongs inside of it.
pub struct Filter<S, F, E = Record> {
    sink: S,
    is_in: F,
    account: Account,
    of: PhantomData<fn(&E)>,
}

impl<S, F, E> Filter<S, F, E> {
    pub(super) fn new(sink: S, is_in: F) -> Self {
        Self { sink, is_in, account: Account::nobody(), of: PhantomData }
    }
}

impl<S: Sink<E>, F: FnMut(&E) -> bool + Send, E: Clone> Sink<E> for Filter<S, F, E> {
    fn name(&self) -> &str {
        self.sink.name()
    }

    fn write_batch(&mut self, batch: &Batch<E>) -> Result<(), SinkError> {
        offer((&mut self.sink, &self.account), batch, "a filter", &mut self.is_in)
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.sink.flush()
    }

    fn hook(&mut self, hook: Hook<'_>) {
        if let Hook::Open(account) = &hook {
            self.account = Account::clone(account);
        }
        self.sink.hook(hook);
    }
}

impl<S, F, E> fmt::Debug for Filter<S, F, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filter").finish_non_exhaustive()
    }
}
