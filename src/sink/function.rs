//! A sink from a closure.

use std::fmt;

use super::{Sink, SinkError};
use crate::batch::Batch;

/// Makes a sink from a name and a function that is called with every batch, on the worker thread.
///
/// ```
/// use forebay::{Batch, Collector, Record};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (sender, receiver) = std::sync::mpsc::channel();
/// let collector = Collector::builder()
///     .sink(forebay::sink::from_fn("lengths", move |batch: &Batch<Record>| {
///         let _ = sender.send(batch.len());
///         Ok(())
///     }))
///     .start()?;
/// collector.collect(Record::scalar("train.loss", 0.5));
/// collector.stop()?;
/// assert_eq!(receiver.try_iter().sum::<usize>(), 1);
/// # Ok(())
/// # }
/// ```
pub fn from_fn<E, F>(name: impl Into<String>, write: F) -> FnSink<F>
where
    F: FnMut(&Batch<E>) -> Result<(), SinkError> + Send,
{
    FnSink { name: name.into(), write }
}

/// The sink that [`from_fn`] makes.
pub struct FnSink<F> {
    name: String,
    write: F,
}

impl<E, F> Sink<E> for FnSink<F>
where
    F: FnMut(&Batch<E>) -> Result<(), SinkError> + Send,
{
    fn name(&self) -> &str {
        &self.name
    }

    fn write_batch(&mut self, batch: &Batch<E>) -> Result<(), SinkError> {
        (self.write)(batch)
    }
}

impl<F> fmt::Debug for FnSink<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FnSink").field("name", &self.name).finish_non_exhaustive()
    }
}
