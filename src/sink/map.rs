//! A sink that gets other events in the place of those that there are.

use std::fmt;
use std::marker::PhantomData;

use super::panics::Panics;
use super::{Hook, Sink, SinkError};
use crate::batch::Batch;

/// Sink that gets what a function makes of the events. Made by [`SinkExt::map`](crate::sink::SinkExt::map). An event at which the function panics fails
/// alone, and is reported to the sink inside by the [`gap`](Batch::gap).
///
/// A [`retry`](crate::sink::SinkExt::retry) belongs inside of it: outside, a batch that failed in part is not tried again, because the sink inside
/// gets another batch with each try.
pub struct Map<S, F, E, T> {
    sink: S,
    make: F,
    of: PhantomData<fn(&E) -> T>,
}

impl<S, F, E, T> Map<S, F, E, T> {
    pub(super) fn new(sink: S, make: F) -> Self {
        Self { sink, make, of: PhantomData }
    }
}

impl<S: Sink<T>, F: FnMut(&E) -> T + Send, E, T> Sink<E> for Map<S, F, E, T> {
    fn name(&self) -> &str {
        self.sink.name()
    }

    fn write_batch(&mut self, batch: &Batch<E>) -> Result<(), SinkError> {
        let mut panics = Panics::of("the function of a map");
        let made = batch.iter().filter_map(|event| panics.catch(|| (self.make)(event))).collect();
        let mut part = batch.with_events(made);
        // They were made by user code, which may have forked.
        batch.check()?;
        panics.mark(&mut part);
        // The next try makes another batch.
        let written = self.sink.write_batch(&part).map_err(SinkError::not_resumable);
        panics.join(written, part.len())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.sink.flush()
    }

    fn hook(&mut self, hook: Hook<'_>) {
        self.sink.hook(hook);
    }
}

impl<S, F, E, T> fmt::Debug for Map<S, F, E, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").finish_non_exhaustive()
    }
}
