//! Trait `History` of a place that keeps records, and its question, `EventQuery`.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::ops::{Bound, ControlFlow, RangeBounds};
use std::time::{SystemTime, UNIX_EPOCH};

use forebay::{Event, Name, Pattern, Priority, Record, Value};

use crate::lineage::{Lineage, Wanted};
use crate::tables::{AggregateTable, Aggregator, LastPerName, Pivot, PivotTable, Reduce, TooLarge, Window};

/// Records of a history, one after the other. An error is the last item.
pub type Records<'a> = Box<dyn Iterator<Item = Result<Record, HistoryError>> + 'a>;

/// Place that keeps records and answers queries.
pub trait History {
    /// Returns the records that the query asks for, in the order in which they were delivered, or the other way round. Of each
    /// batch, critical records were delivered first, and low ones took turns with normal ones: for the order of time, sort by
    /// [`Record::time`].
    ///
    /// # Errors
    ///
    /// The place cannot be read.
    fn query(&self, query: &EventQuery) -> Result<Vec<Record>, HistoryError>;

    /// Returns the same records one after the other. An error is the last item. Files and databases hold no more than 2,000 of them in
    /// memory, and event files those in 1 MB, but for the newest of files: as many as the [limit](EventQuery::limit), and all of them
    /// without one.
    ///
    /// # Errors
    ///
    /// As for [`query`](Self::query).
    fn iter<'a>(&'a self, query: &EventQuery) -> Result<Records<'a>, HistoryError> {
        Ok(Box::new(self.query(query)?.into_iter().map(Ok)))
    }

    /// Gives the records of [`iter`](Self::iter) to `take`, one after the other, until that breaks off.
    ///
    /// # Errors
    ///
    /// As for [`query`](Self::query), perhaps after some records were given.
    fn visit(
        &self,
        query: &EventQuery,
        take: &mut dyn FnMut(Record) -> ControlFlow<()>,
    ) -> Result<(), HistoryError> {
        for record in self.iter(query)? {
            if take(record?).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Returns the last record of each name, sorted by name: of those that the query asks for, the one that was delivered last.
    ///
    /// One record of each name is in memory.
    ///
    /// # Errors
    ///
    /// As for [`query`](Self::query), or there are more than 10,000 names ([`TooLarge`](crate::TooLarge)).
    fn last_per_name(&self, query: &EventQuery) -> Result<Vec<Record>, HistoryError> {
        let mut last = LastPerName::new();
        last.is_reversed = query.is_newest_first;
        fill(self.iter(query)?, |record| last.add(record))?;
        Ok(last.finish())
    }

    /// Returns count, mean, lowest, highest and last number of each name in each window: see [`Aggregator`], which also takes the records
    /// of several histories.
    ///
    /// A row takes about 300 bytes.
    ///
    /// # Errors
    ///
    /// As for [`query`](Self::query), or there are more than 1,000,000 rows ([`TooLarge`](crate::TooLarge)).
    fn aggregate(&self, query: &EventQuery, window: Window) -> Result<AggregateTable, HistoryError> {
        let mut rows = Aggregator::new(window);
        rows.is_reversed = query.is_newest_first;
        fill(self.iter(query)?, |record| rows.add(&record))?;
        Ok(rows.finish())
    }

    /// Returns a table with a row for each step, and a column for each name, sorted: see [`Pivot`], which also takes the records of several
    /// histories. `reduce` makes one of several numbers of one name and step.
    ///
    /// A cell takes 16 bytes.
    ///
    /// # Errors
    ///
    /// As for [`query`](Self::query), or there are more than 4,000,000 cells ([`TooLarge`](crate::TooLarge)).
    fn pivot(&self, query: &EventQuery, reduce: Reduce) -> Result<PivotTable, HistoryError> {
        let mut table = Pivot::new(reduce);
        table.is_reversed = query.is_newest_first;
        fill(self.iter(query)?, |record| table.add(&record))?;
        Ok(table.finish())
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

    /// Selects from records in the order of their delivery, as a history of them does. An error is the last item.
    ///
    /// What comes in that order is given as it is found. The newest, and what is current, are known at the end alone: they are held until
    /// then, the newest no more than the limit.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::convert::Infallible;
    ///
    /// use forebay::Record;
    /// use forebay_history::EventQuery;
    ///
    /// let records = (0..100).map(|step| Ok::<_, Infallible>(Record::scalar("loss", 0.5).with_step(step)));
    /// let query = EventQuery::new().steps(90..);
    /// assert_eq!(query.select(records).count(), 10);
    /// ```
    pub fn select<'a, T, E, I>(&self, records: I) -> Box<dyn Iterator<Item = Result<T, E>> + 'a>
    where
        T: Borrow<Record> + 'a,
        E: 'a,
        I: IntoIterator<Item = Result<T, E>, IntoIter: 'a>,
    {
        self.clone().select_of(records, None)
    }

    /// Selects from records, of which all sections may be known before: what is current is known at once then.
    pub(crate) fn select_of<'a, T, E, I>(
        self,
        records: I,
        known: Option<Lineage>,
    ) -> Box<dyn Iterator<Item = Result<T, E>> + 'a>
    where
        T: Borrow<Record> + 'a,
        E: 'a,
        I: IntoIterator<Item = Result<T, E>, IntoIter: 'a>,
    {
        let limit = self.limit.unwrap_or(usize::MAX);
        let (is_whole, lineage) = (known.is_some(), known.unwrap_or_default());
        let records = records.into_iter();
        let mut selecting = Selecting { query: self, records, lineage, is_whole, begun: 0, is_over: false };
        let is_at_once = is_whole || !selecting.query.wanted.is_current;
        if is_at_once && !selecting.query.is_newest_first {
            let mut left = limit;
            return Box::new(std::iter::from_fn(move || {
                left = left.checked_sub(1)?;
                Some(selecting.next()?.map(|(_, record)| record))
            }));
        }
        let mut found = VecDeque::new();
        while let Some(next) = selecting.next() {
            match next {
                Ok(next) => found.push_back(next),
                Err(error) => return Box::new(std::iter::once(Err(error))),
            }
            if is_at_once && found.len() > limit {
                found.pop_front();
            }
        }
        let Selecting { query, lineage, .. } = selecting;
        let is_in =
            move |(begun, record): &(usize, T)| lineage.has(&query.wanted, *begun, record.borrow().step());
        let found = found.into_iter();
        let found: Box<dyn Iterator<Item = (usize, T)>> =
            if query.is_newest_first { Box::new(found.rev()) } else { Box::new(found) };
        Box::new(found.filter(is_in).take(limit).map(|(_, record)| Ok(record)))
    }
}

/// Records on their way through a query, in the order of their delivery.
struct Selecting<I> {
    query: EventQuery,
    records: I,
    lineage: Lineage,
    /// Whether the lineage is that of all records, and not of those before alone.
    is_whole: bool,
    /// The sections that have begun.
    begun: usize,
    is_over: bool,
}

impl<T: Borrow<Record>, E, I: Iterator<Item = Result<T, E>>> Selecting<I> {
    /// Returns the next record that is asked for, as far as that is known, and how many sections have begun by then.
    fn next(&mut self) -> Option<Result<(usize, T), E>> {
        let wanted = &self.query.wanted;
        while !self.is_over {
            let record = match self.records.next() {
                Some(Ok(record)) => record,
                Some(Err(error)) => {
                    self.is_over = true;
                    return Some(Err(error));
                }
                None => break,
            };
            if !wanted.is_everything() {
                self.begun = match self.is_whole {
                    true => match self.lineage.begun_by(record.borrow(), self.begun) {
                        Some(begun) => begun,
                        // The answer is of the time before it.
                        None => break,
                    },
                    false => self.lineage.see(record.borrow()),
                };
            }
            if self.lineage.has(wanted, self.begun, record.borrow().step())
                && self.query.matches(record.borrow())
            {
                return Some(Ok((self.begun, record)));
            }
        }
        self.is_over = true;
        None
    }
}

/// Gives records to a table, until it is too large.
fn fill(
    records: Records<'_>,
    mut add: impl FnMut(Record) -> Result<(), TooLarge>,
) -> Result<(), HistoryError> {
    for record in records {
        add(record?).map_err(|error| HistoryError::new("the answer", error))?;
    }
    Ok(())
}

pub(crate) fn nanos(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}
