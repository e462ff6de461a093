//! Count of events that did not get into a file, until the file itself has reported them.

use std::time::SystemTime;

use crate::batch::Batch;

/// Account of a sink that marks in its output where events are missing, as those for files do by a record named `forebay.gap`. It adds
/// up the [gaps](Batch::gap) of batches and the events that the sink itself could not deliver, until the output has said so.
///
/// Call [`before`](Self::before) at the begin of every `write_batch`, and then one of the other two. A batch that is offered again, by
/// whoever tries again, is counted once. A batch of which nothing was said before the next one comes did not get in: its write has
/// panicked.
///
/// ```
/// use forebay::sink::{Missing, Sink, SinkError};
/// use forebay::{Batch, Record};
///
/// #[derive(Default)]
/// struct Lines { output: Vec<String>, missing: Missing, is_full: bool }
///
/// impl Sink for Lines {
///     fn name(&self) -> &str {
///         "lines"
///     }
///     fn write_batch(&mut self, batch: &Batch<Record>) -> Result<(), SinkError> {
///         let missing = self.missing.before(batch);
///         if self.is_full {
///             self.missing.add(batch);
///             return Err(SinkError::unavailable("full"));
///         }
///         if missing > 0 {
///             self.output.push(format!("{missing} events are missing here"));
///         }
///         self.output.extend(batch.iter().map(Record::to_string));
///         self.missing.mark_reported(0);
///         Ok(())
///     }
/// }
///
/// # fn main() -> Result<(), SinkError> {
/// let mut lines = Lines { is_full: true, ..Lines::default() };
/// assert!(lines.write_batch(&Batch::from_events(vec![Record::new("a"), Record::new("b")])).is_err());
/// lines.is_full = false;
/// lines.write_batch(&Batch::from_events(vec![Record::new("c")]))?;
/// assert_eq!(lines.output, ["2 events are missing here", "c"]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Missing {
    events: u64,
    /// The batch that is being written.
    at_hand: Option<AtHand>,
    /// The batch that failed last, and what it added.
    failed: Option<((u64, SystemTime), u64)>,
}

#[derive(Debug, Clone, Copy)]
struct AtHand {
    /// Id of the batch. A batch of letters has the number of a batch that failed, and is another one.
    id: (u64, SystemTime),
    /// Number of events that are missing without it. Letters were added when they failed first.
    added: u64,
    is_redriven: bool,
}

impl AtHand {
    fn of<E>(batch: &Batch<E>) -> Self {
        let is_redriven = batch.is_redriven();
        let added = if is_redriven { 0 } else { batch.gap().saturating_add(batch.len() as u64) };
        Self { id: (batch.number(), batch.time()), added, is_redriven }
    }
}

impl Missing {
    /// Returns how many events to tell of before those of this batch.
    pub fn before<E>(&mut self, batch: &Batch<E>) -> u64 {
        self.fail();
        let at_hand = AtHand::of(batch);
        if !at_hand.is_redriven
            && let Some((failed, added)) = self.failed.take()
            && failed == at_hand.id
        {
            self.events = self.events.saturating_sub(added);
        }
        self.at_hand = Some(at_hand);
        self.events.saturating_add(batch.gap())
    }

    /// Notes that the batch did not get in.
    pub fn add<E>(&mut self, batch: &Batch<E>) {
        self.at_hand = Some(AtHand::of(batch));
        self.fail();
    }

    /// Notes that it was reported, and the batch got in, but for that many of its events.
    pub fn mark_reported(&mut self, refused: u64) {
        let is_redriven = self.at_hand.is_some_and(|batch| batch.is_redriven);
        *self = Self { events: if is_redriven { 0 } else { refused }, ..Self::default() };
    }

    fn fail(&mut self) {
        if let Some(batch) = self.at_hand.take().filter(|batch| !batch.is_redriven) {
            self.events = self.events.saturating_add(batch.added);
            self.failed = Some((batch.id, batch.added));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(events: usize) -> Batch<u8> {
        Batch::from_events(vec![0; events])
    }

    #[test]
    fn a_batch_that_is_tried_again_is_missing_once() {
        let (mut missing, batch) = (Missing::default(), batch(10));
        for _ in 0..3 {
            assert_eq!(missing.before(&batch), 0);
            missing.add(&batch);
        }
        let mut next = self::batch(1);
        next.add_gap(2);
        assert_eq!(missing.before(&next), 12);
        missing.mark_reported(0);
        assert_eq!(missing.before(&batch), 0);
    }

    #[test]
    fn a_batch_whose_write_panicked_is_missing() {
        let (mut missing, batch) = (Missing::default(), batch(10));
        assert_eq!(missing.before(&batch), 0);
        // Neither `mark_reported` nor `add`. The same batch comes again, as by a retry.
        assert_eq!(missing.before(&batch), 0);
        assert_eq!(missing.before(&self::batch(1)), 10);
    }

    #[test]
    fn letters_are_not_taken_for_a_retry_of_the_batch_that_they_failed_in() {
        let (mut missing, failed) = (Missing::default(), batch(10));
        assert_eq!(missing.before(&failed), 0);
        missing.add(&failed);
        // A part of them comes again; the others were looked at and thrown away.
        let letters = failed.without_events(0).redriven(vec![0; 4]);
        assert_eq!(missing.before(&letters), 10, "they are missing where they were");
        missing.add(&letters);
        assert_eq!(missing.before(&letters), 10, "and no more than that");
        missing.mark_reported(1);
        assert_eq!(missing.before(&batch(1)), 0, "what is refused of letters was reported before");
    }

    #[test]
    fn the_largest_gap_does_not_overflow() {
        let (mut missing, mut largest) = (Missing::default(), batch(10));
        largest.add_gap(u64::MAX);
        largest.add_gap(u64::MAX);
        missing.before(&largest);
        missing.add(&largest);
        assert_eq!(missing.before(&batch(1)), u64::MAX);
    }
}
