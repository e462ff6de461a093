//! A sink for the events of some names.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use super::{Account, PendingFlush, Sink, SinkError, forward};
use crate::batch::Batch;
use crate::event::{Event, Record};
use crate::pattern::Pattern;

/// A sink for the events of some names. Made by [`Sink::route`].
///
/// To the sink inside, what is passed over looks like numbers that are missing without a [`gap`](Batch::gap).
pub struct Route<S, E = Record> {
    sink: S,
    /// Patterns without a wildcard.
    names: HashSet<String>,
    patterns: Vec<Pattern>,
    account: Account,
    of: PhantomData<fn(&E)>,
}

impl<S, E> Route<S, E> {
    pub(super) fn new(sink: S) -> Self {
        let (names, patterns) = (HashSet::new(), Vec::new());
        Self { sink, names, patterns, account: Account::nobody(), of: PhantomData }
    }

    /// Takes events of these names as well.
    pub fn route(mut self, pattern: impl Into<Pattern>) -> Self {
        let pattern = pattern.into();
        match pattern.as_name() {
            Some(name) => _ = self.names.insert(name),
            None => self.patterns.push(pattern),
        }
        self
    }
}

/// Offers those events that are in. The others are passed over, and count as delivered: nothing of them is missing.
pub(super) fn offer<E: Clone>(
    (sink, account): (&mut impl Sink<E>, &Account),
    batch: &Batch<E>,
    mut is_in: impl FnMut(&E) -> bool,
) -> Result<(), SinkError> {
    let chosen: Vec<bool> = batch.iter().map(&mut is_in).collect();
    // They were chosen by user code, which may have forked.
    batch.check()?;
    let count = chosen.iter().filter(|is_in| **is_in).count();
    if count == batch.len() {
        return sink.write_batch(batch);
    }
    if count == 0 {
        account.pass();
    }
    if count == 0 && batch.gap() == 0 {
        return Ok(());
    }
    let events = batch.iter().zip(chosen).filter(|(_, is_in)| *is_in).map(|(event, _)| event.clone());
    let part = batch.with_events(events.collect());
    // So was a clone.
    batch.check()?;
    sink.write_batch(&part).map_err(|error| error.of_part(count as u64))
}

impl<S: Sink<E>, E: Event + Clone> Sink<E> for Route<S, E> {
    forward!(sink, without open);

    fn open(&mut self, account: Account) {
        self.account = account.clone();
        self.sink.open(account);
    }

    fn write_batch(&mut self, batch: &Batch<E>) -> Result<(), SinkError> {
        let Self { sink, names, patterns, account, .. } = self;
        offer((sink, account), batch, |event| {
            let name = event.name();
            names.contains(name) || patterns.iter().any(|pattern| pattern.matches(name))
        })
    }
}

impl<S, E> fmt::Debug for Route<S, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("names", &self.names)
            .field("patterns", &self.patterns)
            .finish_non_exhaustive()
    }
}
