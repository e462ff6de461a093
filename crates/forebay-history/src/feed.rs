//! Trait `Feed` of a place whose records come one after the other, and go on coming: a stream of a server.

use std::fmt;

use forebay::Record;

use crate::HistoryError;

/// Records of a place that grows, in the order in which they were delivered: what [`Run::of`](crate::Run::of) and
/// [`RecordFollower::of`](crate::RecordFollower::of) read where there is no file.
///
/// ```
/// use forebay::Record;
/// use forebay_history::{Feed, HistoryError, Run};
///
/// #[derive(Debug)]
/// struct Countdown(u64);
///
/// impl Feed for Countdown {
///     fn poll(&mut self) -> Result<Option<Record>, HistoryError> {
///         self.0 = self.0.saturating_sub(1);
///         Ok((self.0 > 0).then(|| Record::scalar("left", self.0 as f64).with_step(10 - self.0)))
///     }
/// }
///
/// # fn main() -> Result<(), HistoryError> {
/// let mut run = Run::of("countdown", Countdown(10));
/// run.poll()?;
/// assert_eq!(run.series("left").map(|series| series.count()), Some(9));
/// # Ok(())
/// # }
/// ```
pub trait Feed: fmt::Debug + Send {
    /// Returns the next record. `None`: there is none yet, and a later call may find one.
    ///
    /// # Errors
    ///
    /// The place cannot be read, and a later call may succeed. Or what comes next is no record: then [`not_read`](Self::not_read) counts it,
    /// and the next call goes on behind it.
    fn poll(&mut self) -> Result<Option<Record>, HistoryError>;

    /// Returns how many places were passed over, since they hold no record. Defaults to 0.
    fn not_read(&self) -> u64 {
        0
    }
}

impl Feed for Box<dyn Feed> {
    fn poll(&mut self) -> Result<Option<Record>, HistoryError> {
        (**self).poll()
    }

    fn not_read(&self) -> u64 {
        (**self).not_read()
    }
}

/// Gives up to `max` of the records that are new to `take`. Returns whether that was all.
#[cfg(all(feature = "json-lines", feature = "tensorboard"))]
pub(crate) fn look(
    feed: &mut dyn Feed,
    max: usize,
    take: &mut dyn FnMut(Record),
) -> Result<bool, HistoryError> {
    for _ in 0..max {
        let before = feed.not_read();
        match feed.poll() {
            Ok(Some(record)) => take(record),
            Ok(None) => return Ok(true),
            // Passed over, and counted.
            Err(_) if feed.not_read() > before => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}
