//! Records of several histories in one order: those of the ranks of a job.
//!
//! Each history keeps its own order. Of the records that come next in each, the least is taken, so that one of each is in memory.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use forebay::event::catalog::training;
use forebay::{Event, Record};

use crate::lineage::generation_of;
use crate::{EventQuery, History, HistoryError, Records};

/// Order of merged records. Where it does not decide, the earlier history comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MergeOrder {
    /// By the moment, as the clocks of their machines had it.
    Time,
    /// By generation, and then by step. Where no begin of a run was reported, as by ranks of which the first one reports for all, the
    /// generation is 1. A record without a step, or with one that is less than the one before it in its history, counts as one of the step
    /// before it.
    Step,
}

/// Iterator of the merged records: each with the place of its history. It goes on with the others where one ends, and where one cannot be
/// read: that is an item, and the last one of its history.
pub struct Merged<'a> {
    query: EventQuery,
    order: MergeOrder,
    sources: Vec<Source<'a>>,
    /// The next record of each history, by its key.
    next: BinaryHeap<Reverse<(Key, usize)>>,
    left: usize,
    /// The histories that are asked for their next record before another is given: at first all, and then the one that gave the last one.
    asked: Vec<usize>,
}

/// A moment; or a generation and a step.
type Key = (u64, i64);

struct Source<'a> {
    records: Records<'a>,
    head: Option<Record>,
    /// 0 before the first begin, which counts as 1.
    generation: u64,
    step: i64,
}

impl std::fmt::Debug for Merged<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Merged").field("order", &self.order).field("histories", &self.sources.len()).finish()
    }
}

/// Merges what a query asks of several histories, such as those of the ranks of a job, oldest first. The limit of the query is that of the
/// whole; that the newest come first cannot be asked for, and is not heeded. In memory are the next record of each history, and what
/// [`History::iter`] says.
///
/// A history that cannot be read is an error among the items; the others go on.
///
/// # Examples
///
/// ```
/// use forebay::sink::Sink;
/// use forebay::{Batch, Record};
/// use forebay_history::{EventQuery, History, MergeOrder, Recent, merge};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut ranks = [Recent::<100>::new(), Recent::<100>::new()];
/// for rank in &mut ranks {
///     let records = (0..3).map(|step| Record::scalar("loss", 0.5).with_step(step));
///     rank.write_batch(&Batch::from_events(records.collect()))?;
/// }
/// let query = EventQuery::new();
/// let ranks = ranks.iter().map(|rank| rank as &dyn History);
/// let merged: Result<Vec<_>, _> = merge(ranks, &query, MergeOrder::Step).collect();
/// let steps: Vec<_> = merged?.iter().map(|(rank, record)| (record.step().unwrap(), *rank)).collect();
/// assert_eq!(steps, [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]);
/// # Ok(())
/// # }
/// ```
pub fn merge<'a>(
    histories: impl IntoIterator<Item = &'a dyn History>,
    query: &EventQuery,
    order: MergeOrder,
) -> Merged<'a> {
    // Where a name or a time is asked for, the begins of generations are not among the answers.
    let wide = match order {
        MergeOrder::Time => EventQuery { limit: None, is_newest_first: false, ..query.clone() },
        MergeOrder::Step => EventQuery { wanted: query.wanted.clone(), ..EventQuery::new() },
    };
    let source = |history: &'a dyn History| {
        let records = history.iter(&wide).unwrap_or_else(|error| Box::new(std::iter::once(Err(error))));
        Source { records, head: None, generation: 0, step: i64::MIN }
    };
    let sources: Vec<Source<'a>> = histories.into_iter().map(source).collect();
    let (left, next) = (query.limit.unwrap_or(usize::MAX), BinaryHeap::new());
    let asked = (0..sources.len()).collect();
    Merged { query: query.clone(), order, sources, next, left, asked }
}

impl Source<'_> {
    /// Goes on to the next record that is asked for. Returns its key.
    fn advance(&mut self, query: &EventQuery, order: MergeOrder) -> Result<Option<Key>, HistoryError> {
        loop {
            let Some(record) = self.records.next().transpose()? else { return Ok(None) };
            if Event::name(&record) == training::Started::NAME {
                // A file may have several runs, one after the other.
                let before = self.generation.max(1);
                self.generation = generation_of(&record).max(self.generation.saturating_add(1));
                // Else keys would go back.
                if self.generation > before {
                    self.step = i64::MIN;
                }
            }
            self.step = record.signed_step().map_or(self.step, |step| step.max(self.step));
            if query.matches(&record) {
                let key = match order {
                    MergeOrder::Time => (record.unix_nanos(), 0),
                    MergeOrder::Step => (self.generation.max(1), self.step),
                };
                self.head = Some(record);
                return Ok(Some(key));
            }
        }
    }
}

impl Merged<'_> {
    /// Returns the next record, with its key and the place of its history.
    fn next_keyed(&mut self) -> Option<Result<(Key, usize, Record), HistoryError>> {
        if self.left == 0 {
            return None;
        }
        while let Some(place) = self.asked.pop() {
            match self.sources.get_mut(place)?.advance(&self.query, self.order) {
                Ok(key) => self.next.extend(key.map(|key| Reverse((key, place)))),
                // It has no next record any more, and is not asked again.
                Err(error) => return Some(Err(error)),
            }
        }
        let Reverse((key, place)) = self.next.pop()?;
        self.left -= 1;
        self.asked.push(place);
        self.sources.get_mut(place)?.head.take().map(|record| Ok((key, place, record)))
    }
}

impl Iterator for Merged<'_> {
    type Item = Result<(usize, Record), HistoryError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_keyed().map(|next| next.map(|(_, place, record)| (place, record)))
    }
}

/// How far a rank was behind the first one, over the steps that others reached as well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Straggler {
    /// How many such steps it reached.
    pub steps: u64,
    /// At how many of them it came last, and not at the same moment as the first.
    pub last: u64,
    /// How far it was behind the first rank, all steps together.
    pub total: Duration,
    /// How far it was behind at most, and at which step that was first.
    pub max: Option<(Duration, i64)>,
}

impl Straggler {
    /// Returns how far it was behind the first rank, on average.
    pub fn mean(&self) -> Duration {
        let nanos = self.total.as_nanos() / u128::from(self.steps.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// Returns how far each rank is behind: by the first record that a query asks for of each step, in the order in which the histories are given.
/// The moments are those of the clocks of their machines. In memory is what [`merge`] has, and a few words for each rank.
///
/// # Errors
///
/// A history cannot be read.
///
/// # Examples
///
/// ```
/// use forebay::sink::Sink;
/// use forebay::{Batch, Record};
/// use forebay_history::{EventQuery, History, Recent, stragglers};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut ranks = [Recent::<100>::new(), Recent::<100>::new()];
/// for (rank, second) in ranks.iter_mut().zip([1, 3]) {
///     let records = (0..10).map(|step| {
///         Record::scalar("loss", 0.5).with_step(step).with_unix_nanos((10 * step + second) * 1_000_000_000)
///     });
///     rank.write_batch(&Batch::from_events(records.collect()))?;
/// }
/// let behind = stragglers(ranks.iter().map(|rank| rank as &dyn History), &EventQuery::new())?;
/// assert_eq!((behind[0].last, behind[1].last, behind[1].mean().as_secs()), (0, 10, 2));
/// # Ok(())
/// # }
/// ```
pub fn stragglers<'a>(
    histories: impl IntoIterator<Item = &'a dyn History>,
    query: &EventQuery,
) -> Result<Vec<Straggler>, HistoryError> {
    let mut merged = merge(histories, query, MergeOrder::Step);
    let mut found = vec![Straggler::default(); merged.sources.len()];
    // When each rank reached the step that is looked at.
    let (mut arrived, mut at): (Vec<Option<u64>>, _) = (vec![None; found.len()], None);
    while let Some(next) = merged.next_keyed() {
        let (key, place, record) = next?;
        if at != Some(key) {
            complete_step(&mut found, &mut arrived, at);
            at = Some(key);
        }
        // Others of the same key came later than their step.
        if record.signed_step() == Some(key.1) {
            let nanos = record.unix_nanos();
            arrived[place] = Some(arrived[place].map_or(nanos, |before| before.min(nanos)));
        }
    }
    complete_step(&mut found, &mut arrived, at);
    Ok(found)
}

/// Adds what a step says, which all ranks that will have reached it by now.
fn complete_step(found: &mut [Straggler], arrived: &mut [Option<u64>], key: Option<Key>) {
    let all = || arrived.iter().flatten().copied();
    if let (Some((_, step)), Some(first), Some(last), 2..) = (key, all().min(), all().max(), all().count()) {
        for (it, nanos) in found.iter_mut().zip(&*arrived) {
            let Some(nanos) = nanos else { continue };
            let behind = Duration::from_nanos(nanos - first);
            it.steps += 1;
            it.last += u64::from(*nanos == last && last > first);
            it.total = it.total.saturating_add(behind);
            if it.max.is_none_or(|(max, _)| behind > max) {
                it.max = Some((behind, step));
            }
        }
    }
    arrived.fill(None);
}
