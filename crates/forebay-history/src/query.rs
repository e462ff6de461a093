//! Trait `History` of a place that keeps records, and its question, `EventQuery`.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::ops::{Bound, ControlFlow, RangeBounds};
use std::time::{SystemTime, UNIX_EPOCH};

use forebay::{Event, Name, Pattern, Priority, Record, Value};

use crate::lineage::{Lineage, Wanted};

/// Place that keeps records and answers queries.
pub trait History {
    /// Returns the records that the query asks for, in the order in which they were delivered, or the other way round. Of each
    /// batch, critical records were delivered first, and low ones last: for the order of time, sort by [`Record::time`].
    ///
    /// # Errors
    ///
    /// The place cannot be read.
    fn query(&self, query: &EventQuery) -> Result<Vec<Record>, HistoryError>;

    /// Gives the same records to `take`, one after the other, until that breaks off. Files of JSON Lines and databases hold no more than a
    /// few of them in memory, but for what must be known as a whole: the newest of JSON Lines, and what is current there.
    ///
    /// # Errors
    ///
    /// As for [`query`](Self::query), perhaps after some records were given.
    fn visit(
        &self,
        query: &EventQuery,
        take: &mut dyn FnMut(Record) -> ControlFlow<()>,
    ) -> Result<(), HistoryError> {
        _ = self.query(query)?.into_iter().try_for_each(take);
        Ok(())
    }

    /// Returns all records with that correlation id.
    ///
    /// # Errors
    ///
    /// As for [`query`](Self::query).
    fn correlated(&self, id: &str) -> Result<Vec<Record>, HistoryError> {
        self.query(&EventQuery::new().correlation(id))
    }
}

/// Error of a place that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {place}")]
#[non_exhaustive]
pub struct HistoryError {
    /// The place.
    pub place: String,
    /// The cause.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl HistoryError {
    /// Makes the error of a place.
    pub fn new(
        place: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { place: place.into(), source: source.into() }
    }
}

/// Query for the records for which all conditions hold. Without a condition it asks for all.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EventQuery {
    pub(crate) name: Option<Pattern>,
    /// Nanoseconds since 1970; the first that is inside, the first that is not.
    pub(crate) from_time: Option<u64>,
    pub(crate) until_time: Option<u64>,
    /// The first and the last that are inside.
    pub(crate) steps: Option<(u64, u64)>,
    pub(crate) priority: Option<Priority>,
    pub(crate) source: Option<String>,
    pub(crate) correlation: Option<String>,
    pub(crate) contains: Vec<(Name, Value)>,
    pub(crate) wanted: Wanted,
    pub(crate) limit: Option<usize>,
    pub(crate) is_newest_first: bool,
}

impl EventQuery {
    /// Asks for everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Selects by name. A text that is no [`Pattern`] stands for itself.
    pub fn name(mut self, pattern: impl Into<Pattern>) -> Self {
        self.name = Some(pattern.into());
        self
    }

    /// Selects records that were made at `time` or later.
    pub fn since(mut self, time: SystemTime) -> Self {
        self.from_time = Some(nanos(time));
        self
    }

    /// Selects records that were made before `time`.
    pub fn before(mut self, time: SystemTime) -> Self {
        self.until_time = Some(nanos(time));
        self
    }

    /// Selects records whose step lies in the range. A negative step lies in none, also not in `..`.
    pub fn steps(mut self, range: impl RangeBounds<u64>) -> Self {
        let first = match range.start_bound() {
            Bound::Included(first) => Some(*first),
            Bound::Excluded(before) => before.checked_add(1),
            Bound::Unbounded => Some(0),
        };
        let last = match range.end_bound() {
            Bound::Included(last) => Some(*last),
            Bound::Excluded(after) => after.checked_sub(1),
            Bound::Unbounded => Some(u64::MAX),
        };
        // A range in which nothing lies.
        self.steps = Some(first.zip(last).unwrap_or((1, 0)));
        self
    }

    /// Selects by priority.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Selects by source.
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Selects by correlation id.
    pub fn correlation(mut self, id: impl Into<String>) -> Self {
        self.correlation = Some(id.into());
        self
    }

    /// Selects records with a field of that name and value, or such metadata. Several calls must all fit.
    pub fn contains(mut self, name: impl Into<Name>, value: impl Into<Value>) -> Self {
        self.contains.push((name.into(), value.into()));
        self
    }

    /// Selects the records of a run: those that were delivered after its begin and before that of another. (A
    /// [`TrainingRun`](forebay::run::TrainingRun) reports its begin. Once that is evicted, its records are not found by this.)
    pub fn run(mut self, id: impl Into<String>) -> Self {
        self.wanted.run_id = Some(id.into());
        self
    }

    /// Selects the events of one generation of a run. The first process that works on a run is generation 1, and each resumption is
    /// the next one. The begin of a run tells which run an event belongs to.
    pub fn generation(mut self, generation: u64) -> Self {
        self.wanted.generation = Some(generation);
        self
    }

    /// Selects of every step the records of the last generation that reached it. A run that was resumed at a step has records of
    /// later steps twice: those that were delivered before a `training.started` of the same run with a `first_step`, from that step
    /// on, are left out. Records without a step stay, and so do those with a negative one.
    pub fn current(mut self) -> Self {
        self.wanted.is_current = true;
        self
    }

    /// Limits the answer to the first `records`, in the order that is asked for.
    pub fn limit(mut self, records: usize) -> Self {
        self.limit = Some(records);
        self
    }

    /// Reverses the order: the last delivered comes first.
    pub fn newest_first(mut self) -> Self {
        self.is_newest_first = true;
        self
    }

    /// Returns whether all conditions hold that a record alone decides. Run and generation depend on its place among others, and are
    /// not asked; nor are order and limit.
    pub fn matches(&self, record: &Record) -> bool {
        let time = record.unix_nanos();
        let extra = record.extra();
        let of_extra = |wanted: &Option<String>, part: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| part == Some(wanted))
        };
        self.name.as_ref().is_none_or(|name| name.matches(Event::name(record)))
            && self.from_time.is_none_or(|from| time >= from)
            && self.until_time.is_none_or(|until| time < until)
            && self
                .steps
                .is_none_or(|(first, last)| record.step().is_some_and(|step| (first..=last).contains(&step)))
            && self.priority.is_none_or(|priority| priority == record.priority())
            && of_extra(&self.source, extra.and_then(|extra| extra.source.as_deref()))
            && of_extra(&self.correlation, extra.and_then(|extra| extra.correlation_id.as_deref()))
            && self.contains.iter().all(|(name, value)| {
                let fields = record.value().as_fields();
                let metadata = extra.map(|extra| &extra.metadata);
                fields.into_iter().chain(metadata).any(|fields| fields.get(name) == Some(value))
            })
    }

    /// Selects from all records, in the order of their delivery.
    pub(crate) fn select<T: Borrow<Record>>(&self, records: impl Iterator<Item = T>) -> Vec<T> {
        let limit = self.limit.unwrap_or(usize::MAX);
        let mut lineage = Lineage::default();
        let mut found = VecDeque::new();
        for record in records {
            let begun = if self.wanted.is_everything() { 0 } else { lineage.see(record.borrow()) };
            let step = record.borrow().step();
            // What is asked of one run or generation is known at once; what is current, at the end alone.
            if !lineage.has(&self.wanted, begun, step) || !self.matches(record.borrow()) {
                continue;
            }
            found.push_back((begun, record));
            if !self.wanted.is_current && found.len() >= limit {
                // Keeps no more than that.
                match self.is_newest_first {
                    false => break,
                    true if found.len() > limit => _ = found.pop_front(),
                    true => {}
                }
            }
        }
        let is_in = |(begun, record): &(usize, T)| lineage.has(&self.wanted, *begun, record.borrow().step());
        let found = found.into_iter();
        let found: Box<dyn Iterator<Item = (usize, T)>> =
            if self.is_newest_first { Box::new(found.rev()) } else { Box::new(found) };
        found.filter(is_in).take(limit).map(|(_, record)| record).collect()
    }
}

pub(crate) fn nanos(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}
