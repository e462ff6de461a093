//! Sinks, where batches go: the trait and its contract.
//!
//! One file a destination below this one. All of them run on the worker thread and may block, fail or
//! panic there without reaching the loop that collects.

mod account;
mod append;
mod breaker;
mod catch_panics;
mod console;
#[cfg(feature = "channel")]
mod crossbeam;
mod dead_letters;
mod error;
mod ext;
mod filter;
mod function;
mod isolated;
#[cfg(feature = "json-lines")]
pub(crate) mod json_lines;
mod map;
mod memory;
mod missing;
mod numbers;
pub(crate) mod panics;
mod presence;
mod rate_limited;
mod retry;
mod route;
#[cfg(feature = "json-lines")]
mod spill;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;
pub(crate) mod target;
#[cfg(feature = "tensorboard")]
pub(crate) mod tensorboard;
mod text_lines;

#[doc(hidden)]
pub use account::{Account, Fate, Hook, PendingFlush};
pub use breaker::{Breaker, BreakerPolicy, BreakerState, BreakerWatch};
pub(crate) use catch_panics::{CatchPanics, UNNAMED};
pub use console::ConsoleSink;
#[cfg(feature = "channel")]
pub use crossbeam::{ChannelSink, EventReceiver, EventReceiverIter, channel};
pub use dead_letters::{DeadLetter, DeadLettering, DeadLetters};
pub use error::SinkError;
pub use ext::SinkExt;
pub use filter::Filter;
pub use function::{FnSink, from_fn};
pub use isolated::Isolated;
#[cfg(feature = "json-lines")]
pub use json_lines::{JsonLinesSink, LineEncoder, SyncPolicy};
pub use map::Map;
pub use memory::MemorySink;
pub use missing::Missing;
pub(crate) use panics::Panics;
pub use rate_limited::RateLimited;
pub use retry::{Retry, RetryPolicy};
pub use route::Route;
#[cfg(feature = "json-lines")]
pub use spill::Spill;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteSink;
#[cfg(feature = "tensorboard")]
pub use tensorboard::{BackwardStep, EarlierPoints, MissingStep, Tags, TensorBoardSink};
pub use text_lines::TextLinesSink;

use crate::batch::Batch;
use crate::event::Record;
#[doc(inline)]
pub use crate::unix::ignore_sigxfsz;

/// Destination of batches.
///
/// # For callers
///
/// A sink is given to [`Builder::sink`](crate::Builder::sink) or
/// [`Collector::add_sink`](crate::Collector::add_sink), and is owned by the worker thread from then on.
/// Every sink gets every batch that is put together while it is there, in order. What becomes of them is
/// reported by [`SinkStats`](crate::stats::SinkStats) under the name of the sink.
///
/// # For implementors
///
/// * [`write_batch`](Sink::write_batch) gets the sink alone (`&mut self`): no lock is needed.
/// * `Ok` means that the events are where they belong as far as this process can do it: a process that
///   is killed right after must not lose them. Do not keep them in a buffer of your own until `flush`,
///   or say so in your documentation.
/// * `Err` means that the batch failed: as a whole, or as many of its events as
///   [`SinkError::with_failed_events`] says. They are counted under [`SinkStats::failed`] and not offered again; the
///   next batch is.
/// * A panic is caught and counted like an error, in whichever method it comes. The sink is called again with the next batch, so leave
///   nothing behind that a panic makes invalid. In a program that is built with `panic = "abort"`, nothing can be caught: a
///   panic ends the process.
/// * While a call runs, no other sink gets anything: this is what the deadline of `flush` and `stop` is
///   for.
/// * A batch may carry no event, only a [`gap`](Batch::gap). [`Missing`] adds up what is to be marked in the output.
/// * A batch that takes several requests may fail in the middle. Keep where it stopped, say so by [`SinkError::resumable`], and a
///   [`retry`](SinkExt::retry) offers it again for the rest. Where the destination says when it wants to be asked again, pass that on
///   ([`SinkError::with_retry_after`]).
/// * `collect` may be called from here. `flush`, `stop` and `remove_sink` refuse at once, because the
///   worker would wait for itself.
///
/// * A call may fork. If it returns in the child, the copy of the worker thread ends there, and with it the process if it has no
///   other thread: with status 0, and without exit handlers, destructors or a flush of buffers, as by `_exit`. The batch is the
///   parent's. A child that is to do something of its own must do it before it returns. (On a Unix other than Linux, all threads
///   of the child end.)
///
/// * A sink may wrap another one: it passes on what it is called with. The wrappers of [`SinkExt`] then belong outside of it. Inside,
///   they know neither a thread of their own nor waits: `isolated` writes at once, a `retry` tries once, and `dead_letters` keeps the
///   events that failed, which count as failed. The worker asks a sink whether it is still wanted, and cannot ask through your
///   wrapper. So a `ChannelSink` inside stays when its receivers are gone: it takes events, which count as delivered, and sends
///   none. Take the wrapper out by [`remove_sink`](crate::Collector::remove_sink).
///
/// [`SinkStats::failed`]: crate::stats::SinkStats::failed
///
/// A sink that writes lines into a file. One `write` a batch keeps lines whole when the process is killed, and `?` makes a
/// [`SinkError`] of an [`io::Error`](std::io::Error):
///
/// ```
/// use std::{fs::File, io::Write};
/// use forebay::sink::{Sink, SinkError};
/// use forebay::{Batch, Collector, Record};
///
/// struct TextFile(File);
///
/// impl Sink for TextFile {
///     fn name(&self) -> &str {
///         "text_file"
///     }
///     fn write_batch(&mut self, batch: &Batch<Record>) -> Result<(), SinkError> {
///         let lines: String = batch.iter().map(|event| format!("{} {:?}\n", event.name(), event.value())).collect();
///         Ok(self.0.write_all(lines.as_bytes())?)
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("events.txt");
/// let collector = Collector::builder().sink(TextFile(File::create(&path)?)).start()?; // path: "events.txt"
/// collector.collect(Record::scalar("train.loss", 0.5));
/// collector.stop()?;
/// assert_eq!(std::fs::read_to_string(&path)?, "train.loss Scalar(0.5)\n");
/// # Ok(())
/// # }
/// ```
pub trait Sink<E = Record>: Send {
    /// Returns the name under which the sink is counted. The collector asks once, when the sink is added. No two
    /// sinks of a collector may have the same name.
    fn name(&self) -> &str;

    /// Delivers one batch.
    ///
    /// # Errors
    ///
    /// The batch failed, or as many of its events as [`SinkError::with_failed_events`] says.
    fn write_batch(&mut self, batch: &Batch<E>) -> Result<(), SinkError>;

    /// Pushes out what the sink holds back. Called by `flush` and `stop`, and before the sink is removed.
    /// Does nothing by default.
    ///
    /// # Errors
    ///
    /// Something that was accepted earlier could not be pushed out.
    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Answers the collector where it asks more than events: for the wrappers of this crate alone, and no part of the interface.
    #[doc(hidden)]
    fn hook(&mut self, hook: Hook<'_>) {
        _ = hook;
    }
}

impl<E, S: Sink<E> + ?Sized> Sink<E> for Box<S> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn write_batch(&mut self, batch: &Batch<E>) -> Result<(), SinkError> {
        (**self).write_batch(batch)
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        (**self).flush()
    }

    fn hook(&mut self, hook: Hook<'_>) {
        (**self).hook(hook);
    }
}
