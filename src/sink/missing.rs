//! Count of events that did not get into a file, until the file itself has reported them.

use std::time::SystemTime;

use crate::batch::Batch;

/// Account of a sink that marks in its output where events are missing, as those for files do by a record named `forebay.gap`. It adds
/// up the [gaps](Batch::gap) of batches and the events that the sink itself could not deliver, until the output has said so.
///
/// Call [`before`](Self::before) at the begin of every `write_batch`, and then one of the others. A batch that is offered again, by
/// a retry or by dead letters, is counted once. A batch of which nothing was said before the next one comes did not get in: its write has
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
    /// The batch of which events failed last.
    failed: Option<Failed>,
}

#[derive(Debug)]
struct Failed {
    id: (u64, SystemTime, u64),
    /// Number of events that it added.
    added: u64,
    /// Number of events of its own gap that were reported.
    reported: u64,
}

#[derive(Debug, Clone, Copy)]
struct AtHand {
    /// Id of the batch. A batch of letters has the number of a batch that failed, and is another one, and so is a gap that follows a batch.
    id: (u64, SystemTime, u64),
    /// Number of events that are missing without it. Letters were added when they failed first.
    added: u64,
    gap: u64,
    /// Number of events of the gap that were reported when the batch was offered before.
    reported: u64,
    is_redriven: bool,
}

impl AtHand {
    fn of<E>(batch: &Batch<E>) -> Self {
        let is_redriven = batch.is_redriven();
        let added = if is_redriven { 0 } else { batch.gap().saturating_add(batch.len() as u64) };
        Self {
            id: (batch.number(), batch.time(), batch.first_event()),
            added,
            gap: batch.gap(),
            reported: 0,
            is_redriven,
        }
    }
}

impl Missing {
    /// Returns how many events to tell of before those of this batch.
    pub fn before<E>(&mut self, batch: &Batch<E>) -> u64 {
        self.fail();
        let at_hand = AtHand::of(batch);
        let mut reported = 0;
        if !at_hand.is_redriven
            && let Some(failed) = self.failed.take()
            && failed.id == at_hand.id
        {
            self.events = self.events.saturating_sub(failed.added);
            reported = failed.reported.min(at_hand.gap);
        }
        self.at_hand = Some(AtHand { reported, ..at_hand });
        self.events.saturating_add(at_hand.gap - reported)
    }

    /// Notes that the batch did not get in.
    pub fn add<E>(&mut self, batch: &Batch<E>) {
        let reported = self.at_hand.take().map_or(0, |at_hand| at_hand.reported);
        self.at_hand = Some(AtHand { reported, ..AtHand::of(batch) });
        self.fail();
    }

    /// Notes that it was reported, and the batch got in, but for that many of its events.
    pub fn mark_reported(&mut self, refused: u64) {
        self.mark_written(0, refused);
    }

    /// Notes that the batch got in, but for `refused` of its events, and that so many of those that [`before`](Self::before) returned were not
    /// reported: the next batch tells of them.
    pub fn mark_written(&mut self, unreported: u64, refused: u64) {
        let Some(batch) = self.at_hand.take() else {
            return *self = Self { events: unreported.saturating_add(refused), ..Self::default() };
        };
        // What is refused of letters was reported when they failed first.
        let refused = if batch.is_redriven { 0 } else { refused };
        // Offered again, it has its own gap again: what is missing from before it is reported first.
        let of_gap = unreported.min(batch.gap - batch.reported);
        let failed =
            Failed { id: batch.id, added: refused.saturating_add(of_gap), reported: batch.gap - of_gap };
        self.events = unreported.saturating_add(refused);
        self.failed = (!batch.is_redriven && failed.added > 0).then_some(failed);
    }

    fn fail(&mut self) {
        if let Some(batch) = self.at_hand.take().filter(|batch| !batch.is_redriven) {
            let added = batch.added.saturating_sub(batch.reported);
            self.events = self.events.saturating_add(added);
            self.failed = Some(Failed { id: batch.id, added, reported: batch.reported });
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
    fn what_was_not_reported_stays_also_where_letters_got_in() {
        let (mut missing, failed) = (Missing::default(), batch(10));
        missing.before(&failed);
        missing.add(&failed);
        let letters = failed.without_events(0).redriven(vec![0; 4]);
        assert_eq!(missing.before(&letters), 10);
        missing.mark_written(10, 2);
        assert_eq!(missing.before(&letters), 10);
        missing.mark_written(3, 0);
        assert_eq!(missing.before(&batch(1)), 3);
        missing.mark_written(3, 1);
        assert_eq!(missing.before(&batch(1)), 4);
    }

    #[test]
    fn a_gap_that_was_reported_by_a_batch_that_failed_is_not_in_its_next_try() {
        let (mut missing, first, mut second) = (Missing::default(), batch(10), batch(4));
        missing.before(&first);
        missing.add(&first);
        second.add_gap(5);
        for _ in 0..2 {
            assert_eq!(missing.before(&second), 15);
            missing.mark_written(15, 4);
        }
        assert_eq!(missing.before(&second), 15);
        missing.mark_written(0, 4);
        for _ in 0..2 {
            assert_eq!(missing.before(&second), 0, "all was reported");
            missing.add(&second);
        }
        assert_eq!(missing.before(&batch(1)), 4, "and its own events are missing");
    }

    #[test]
    fn a_gap_that_follows_a_batch_which_failed_in_part_is_no_retry_of_it() {
        let (mut missing, mut first) = (Missing::default(), batch(10));
        first.add_gap(5);
        assert_eq!(missing.before(&first), 5);
        missing.mark_reported(2);
        assert_eq!(missing.before(&first.without_events(3)), 5);
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
