//! A sink for the events of some names.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use super::panics::Panics;
use super::{Account, Hook, Sink, SinkError};
use crate::batch::Batch;
use crate::event::{Event, Record};
use crate::pattern::Pattern;

/// Sink for the events of some names. Made by [`SinkExt::route`](crate::sink::SinkExt::route).
///
/// To the sink inside, what is passed over looks like numbers that are missing without a [`gap`](Batch::gap). An event whose
/// [`name`](Event::name) panics fails alone, and is reported by the gap. As with a [`Map`](crate::sink::Map), a retry belongs inside of it.
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
    what: &'static str,
    mut is_in: impl FnMut(&E) -> bool,
) -> Result<(), SinkError> {
    let mut panics = Panics::of(what);
    let chosen: Vec<bool> =
        batch.iter().map(|event| panics.catch(|| is_in(event)).unwrap_or(false)).collect();
    // They were chosen by user code, which may have forked.
    batch.check()?;
    let count = chosen.iter().filter(|is_in| **is_in).count();
    if count == batch.len() {
        // The next try may choose others.
        return sink.write_batch(batch).map_err(SinkError::not_resumable);
    }
    if count == 0 {
        account.pass();
    }
    if count == 0 && batch.gap() == 0 && panics.is_none() {
        return Ok(());
    }
    let events = batch.iter().zip(chosen).filter(|(_, is_in)| *is_in);
    // A clone is user code as well.
    let events: Vec<E> = events.filter_map(|(event, _)| panics.catch(|| event.clone())).collect();
    let mut part = batch.with_events(events);
    batch.check()?;
    panics.mark(&mut part);
    // The next try makes another batch.
    let written = sink.write_batch(&part).map_err(|error| error.of_part(part.len() as u64).not_resumable());
    panics.join(written, part.len())
}

impl<S: Sink<E>, E: Event + Clone> Sink<E> for Route<S, E> {
    fn name(&self) -> &str {
        self.sink.name()
    }

    fn write_batch(&mut self, batch: &Batch<E>) -> Result<(), SinkError> {
        let Self { sink, names, patterns, account, .. } = self;
        offer((sink, account), batch, "the name or the clone of an event", |event| {
            let name = event.name();
            names.contains(name) || patterns.iter().any(|pattern| pattern.matches(name))
        })
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

impl<S, E> fmt::Debug for Route<S, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("names", &self.names)
            .field("patterns", &self.patterns)
            .finish_non_exhaustive()
    }
}
