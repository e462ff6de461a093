//! `History`, the trait of a place that keeps records, and `EventQuery`, what it is asked.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::ops::{Bound, RangeBounds};
use std::time::{SystemTime, UNIX_EPOCH};

use super::lineage::{Lineage, Wanted};
use crate::event::{Event, Name, Priority, Record, Value};
use crate::pattern::Pattern;

/// A place that keeps records and can be asked for them.
pub trait History {
    /// Returns the records that the query asks for, in the order in which they were delivered, or the other way round. Of each
    /// batch, critical records were delivered first, and low ones last: for the order of time, sort by [`Record::time`].
    ///
    /// # Errors
    ///
    /// The place cannot be read.
    fn query(&self, query: &EventQuery) -> Result<Vec<Record>, HistoryError>;

    /// All records with that correlation id.
    ///
    /// # Errors
    ///
    /// As for [`query`](Self::query).
    fn correlated(&self, id: &str) -> Result<Vec<Record>, HistoryError> {
        self.query(&EventQuery::new().correlation(id))
    }
}

/// Why a place could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {place}")]
#[non_exhaustive]
pub struct HistoryError {
    /// Which place.
    pub place: String,
    /// Why.
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

/// Which records are asked for: those for which all conditions hold. Without any, all.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EventQuery {
    pub(super) name: Option<Pattern>,
    /// Nanoseconds since 1970; the first that is inside, the first that is not.
    pub(super) from_time: Option<u64>,
    pub(super) until_time: Option<u64>,
    /// The first and the last that are inside.
    pub(super) steps: Option<(u64, u64)>,
    pub(super) priority: Option<Priority>,
    pub(super) source: Option<String>,
    pub(super) correlation: Option<String>,
    pub(super) contains: Vec<(Name, Value)>,
    pub(super) wanted: Wanted,
    pub(super) limit: Option<usize>,
    pub(super) is_newest_first: bool,
}

impl EventQuery {
    /// Asks for everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// The name fits the pattern. A text that is no [`Pattern`] stands for itself.
    pub fn name(mut self, pattern: impl Into<Pattern>) -> Self {
        self.name = Some(pattern.into());
        self
    }

    /// It was made at `time` or later.
    pub fn since(mut self, time: SystemTime) -> Self {
        self.from_time = Some(nanos(time));
        self
    }

    /// It was made before `time`.
    pub fn before(mut self, time: SystemTime) -> Self {
        self.until_time = Some(nanos(time));
        self
    }

    /// It has a step, and that lies in the range.
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

    /// It has that priority.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// It has that source.
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// It has that correlation id.
    pub fn correlation(mut self, id: impl Into<String>) -> Self {
        self.correlation = Some(id.into());
        self
    }

    /// Among its fields, or in its metadata, there is one of that name and value. May be said several times: all must be
    /// there.
    pub fn contains(mut self, name: impl Into<Name>, value: impl Into<Value>) -> Self {
        self.contains.push((name.into(), value.into()));
        self
    }

    /// It belongs to that run: it was delivered behind its begin, and before that of another. (Runs tell their begin:
    /// [`TrainingRun`](crate::run::TrainingRun). Where that is not kept any more, its records are not found by this.)
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

    /// Of a step that was told several times, because the run was resumed before it, the last time: without what was
    /// delivered before a `training.started` of the same run with a `first_step`, from that step on. Records without a
    /// step are all there.
    pub fn current(mut self) -> Self {
        self.wanted.is_current = true;
        self
    }

    /// The first `records` of those that fit, in the order that is asked for.
    pub fn limit(mut self, records: usize) -> Self {
        self.limit = Some(records);
        self
    }

    /// The last delivered comes first.
    pub fn newest_first(mut self) -> Self {
        self.is_newest_first = true;
        self
    }

    /// Whether all conditions hold for the record that it tells by itself: order and limit are none, and of which
    /// generation it is, its place among others tells.
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

    /// Takes of all records, in the order of their delivery, those that are asked for.
    pub(super) fn select<T: Borrow<Record>>(&self, records: impl Iterator<Item = T>) -> Vec<T> {
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

pub(super) fn nanos(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}
