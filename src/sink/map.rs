//! A sink that gets other events in the place of those that there are.

use std::fmt;
use std::marker::PhantomData;

use super::panics::Panics;
use super::{Hook, Sink, SinkError};
use crate::batch::Batch;

/// Sink that gets what a function makes of the events. Made by [`SinkExt::map`](crate::sink::SinkExt::map). An event at which the function panics fails
/// alone, and is reported to the sink inside by the [`gap`](Batch::gap).
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
        panics.join(self.sink.write_batch(&part), part.len())
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
