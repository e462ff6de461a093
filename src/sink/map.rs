//! A sink that gets other events in the place of those that there are.

use std::fmt;
use std::marker::PhantomData;

use super::{Account, PendingFlush, Sink, SinkError, forward};
use crate::batch::Batch;

/// A sink that gets what a function makes of the events. Made by [`Sink::map`].
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
    forward!(sink);

    fn write_batch(&mut self, batch: &Batch<E>) -> Result<(), SinkError> {
        let made = batch.with_events(batch.iter().map(&mut self.make).collect());
        // They were made by user code, which may have forked.
        batch.check()?;
        self.sink.write_batch(&made)
    }
}

impl<S, F, E, T> fmt::Debug for Map<S, F, E, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").finish_non_exhaustive()
    }
}
