//! Tables of records: the last one of each name, numbers of windows, a row for each step.
//!
//! Each is filled by one record after the other, of one history or of several, and has a largest size: what would be larger is an error, and
//! never an answer from which something is missing.

use std::collections::BTreeMap;
use std::time::Duration;

use forebay::{Event, Record};
use forebay_sync::sync::Arc;

use crate::values::{number_of, values};

/// Names of which the last record is kept.
const MAX_NAMES: usize = 10_000;

/// Rows of aggregates.
const MAX_ROWS: usize = 1_000_000;

/// Error of a table that would be too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the table has more than {max} {what}: ask for fewer names or steps, or for wider windows")]
#[non_exhaustive]
pub struct TooLarge {
    /// What there is too much of: `names`, `rows` or `cells`.
    pub what: &'static str,
    /// The largest number.
    pub max: usize,
}

/// Gives the numbers of a record to `take`, as curves show them: each with its name and step.
pub(crate) fn numbers(record: &Record, take: &mut dyn FnMut(&str, f64, Option<i64>)) {
    values(record, &mut |name, value, step| {
        if let Some(number) = number_of(value) {
            take(name, number, step);
        }
    });
}

/// Last record of each name.
///
/// ```
/// use forebay::Record;
/// use forebay_history::LastPerName;
///
/// let mut last = LastPerName::new();
/// for step in 0..100 {
///     last.add(Record::scalar("loss", 0.5).with_step(step))?;
/// }
/// assert_eq!(last.finish()[0].step(), Some(99));
/// # Ok::<(), forebay_history::TooLarge>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct LastPerName {
    records: BTreeMap<String, Record>,
    /// Whether the last one comes first.
    pub(crate) is_reversed: bool,
}

impl LastPerName {
    /// Makes an empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a record: the last one of its name, until there is a later one.
    ///
    /// # Errors
    ///
    /// There are more than 10,000 names.
    pub fn add(&mut self, record: Record) -> Result<(), TooLarge> {
        let count = self.records.len();
        match self.records.get_mut(Event::name(&record)) {
            Some(_) if self.is_reversed => {}
            Some(last) => *last = record,
            None if count >= MAX_NAMES => return Err(TooLarge { what: "names", max: MAX_NAMES }),
            None => _ = self.records.insert(Event::name(&record).to_owned(), record),
        }
        Ok(())
    }

    /// Returns the records, sorted by name.
    pub fn finish(self) -> Vec<Record> {
        self.records.into_values().collect()
    }
}

/// Window of numbers that one row of [`Aggregator`] sums up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Window {
    /// All numbers of a name in one row.
    All,
    /// So many steps: with 100, those from 0 to 99, from 100 to 199. A width of 0 stands for 1. Numbers without a step are left out.
    Steps(u64),
    /// So long, counted from 1970: with an hour, the hours of UTC. A width of zero stands for a nanosecond.
    Time(Duration),
}

/// Begin of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum WindowStart {
    /// That of everything.
    All,
    /// The first step.
    Step(i64),
    /// Nanoseconds since 1970.
    Time(u64),
}

impl Window {
    /// Returns the begin of the window that a number lies in. `None` without a step, where steps are asked for.
    fn start(self, step: Option<i64>, unix_nanos: u64) -> Option<WindowStart> {
        match self {
            Self::All => Some(WindowStart::All),
            Self::Steps(width) => {
                let (step, width) = (i128::from(step?), i128::from(width.max(1)));
                let start = step.div_euclid(width) * width;
                // The first window may begin before the first step there is.
                Some(WindowStart::Step(i64::try_from(start).unwrap_or(i64::MIN)))
            }
            Self::Time(width) => {
                let width = u64::try_from(width.as_nanos()).unwrap_or(u64::MAX).max(1);
                Some(WindowStart::Time(unix_nanos / width * width))
            }
        }
    }
}

/// Number of a record, with its place.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Sample {
    /// The number.
    pub value: f64,
    /// The step, if it has one.
    pub step: Option<i64>,
    /// The moment, in nanoseconds since 1970.
    pub unix_nanos: u64,
}

/// Row of aggregates: what the numbers of one name are in one window.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Aggregate {
    /// The name, as curves have it: `name`, or `name/field` for a field of a record.
    pub name: Arc<str>,
    /// The begin of the window.
    pub start: WindowStart,
    /// How many numbers there are, those that are not finite among them.
    pub count: u64,
    /// How many of them are finite.
    pub finite: u64,
    /// The mean of the finite ones. `None` where there is none.
    pub mean: Option<f64>,
    /// The lowest finite one, the first of several.
    pub min: Option<Sample>,
    /// The highest finite one, the first of several.
    pub max: Option<Sample>,
    /// The last one that was delivered, finite or not.
    pub last: Sample,
}

/// Table of [`Aggregator`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AggregateTable {
    /// The rows, sorted by name and then by window.
    pub rows: Vec<Aggregate>,
    /// How many numbers were left out, since they have no step and windows of steps are asked for.
    pub left_out: u64,
}

/// Numbers of one name in one window, so far.
#[derive(Debug, Clone)]
struct Sums {
    count: u64,
    finite: u64,
    mean: f64,
    /// The lowest and the highest.
    ends: Option<(Sample, Sample)>,
    last: Sample,
}

impl Sums {
    fn new(sample: Sample) -> Self {
        Self { count: 0, finite: 0, mean: 0.0, ends: None, last: sample }
    }

    fn add(&mut self, sample: Sample, is_reversed: bool) {
        self.count += 1;
        if !is_reversed {
            self.last = sample;
        }
        let value = sample.value;
        if !value.is_finite() {
            return;
        }
        self.finite += 1;
        // A sum could leave what a number can be; this cannot.
        let count = self.finite as f64;
        self.mean += value / count - self.mean / count;
        let (low, high) = self.ends.get_or_insert((sample, sample));
        if value < low.value || is_reversed && value == low.value {
            *low = sample;
        }
        if value > high.value || is_reversed && value == high.value {
            *high = sample;
        }
    }
}

/// Aggregates of the numbers of records, by name and window: count, mean, lowest, highest, last.
///
/// What counts as a number, and under which name, is what curves show ([`values`](crate::values)): scalars, integers and truth values, the
/// fields of a record, the metrics of a run.
///
/// ```
/// use forebay::Record;
/// use forebay_history::{Aggregator, Window, WindowStart};
///
/// let mut rows = Aggregator::new(Window::Steps(100));
/// for step in 0..250 {
///     rows.add(&Record::scalar("loss", step as f64).with_step(step))?;
/// }
/// let rows = rows.finish().rows;
/// let means: Vec<_> = rows.iter().map(|row| (row.start, row.mean.unwrap())).collect();
/// assert_eq!(means[1..], [(WindowStart::Step(100), 149.5), (WindowStart::Step(200), 224.5)]);
/// assert_eq!((rows[2].count, rows[2].min.unwrap().step), (50, Some(200)));
/// # Ok::<(), forebay_history::TooLarge>(())
/// ```
#[derive(Debug, Clone)]
pub struct Aggregator {
    window: Window,
    max_rows: usize,
    rows: usize,
    names: BTreeMap<Arc<str>, BTreeMap<WindowStart, Sums>>,
    left_out: u64,
    pub(crate) is_reversed: bool,
}

impl Aggregator {
    /// Makes an empty one.
    pub fn new(window: Window) -> Self {
        Self { window, max_rows: MAX_ROWS, rows: 0, names: BTreeMap::new(), left_out: 0, is_reversed: false }
    }

    /// Limits the rows: one takes about 300 bytes until it is finished. Defaults to 1,000,000.
    pub fn max_rows(mut self, rows: usize) -> Self {
        self.max_rows = rows;
        self
    }

    /// Adds the numbers of a record. Records are to come in the order of their delivery.
    ///
    /// # Errors
    ///
    /// There are too many rows. Nothing of the number that would begin one more is in them.
    pub fn add(&mut self, record: &Record) -> Result<(), TooLarge> {
        let (unix_nanos, mut is_added) = (record.unix_nanos(), Ok(()));
        numbers(record, &mut |name, value, step| {
            if is_added.is_ok() {
                is_added = self.number(name, Sample { value, step, unix_nanos });
            }
        });
        is_added
    }

    fn number(&mut self, name: &str, sample: Sample) -> Result<(), TooLarge> {
        let Some(start) = self.window.start(sample.step, sample.unix_nanos) else {
            self.left_out += 1;
            return Ok(());
        };
        let row = match self.names.get_mut(name).and_then(|windows| windows.get_mut(&start)) {
            Some(row) => row,
            None if self.rows >= self.max_rows => {
                return Err(TooLarge { what: "rows", max: self.max_rows });
            }
            None => {
                self.rows += 1;
                let windows = match self.names.get_mut(name) {
                    Some(windows) => windows,
                    None => self.names.entry(name.into()).or_default(),
                };
                windows.entry(start).or_insert(Sums::new(sample))
            }
        };
        row.add(sample, self.is_reversed);
        Ok(())
    }

    /// Returns the table.
    pub fn finish(self) -> AggregateTable {
        let row = |name: &Arc<str>, start, sums: Sums| Aggregate {
            name: Arc::clone(name),
            start,
            count: sums.count,
            finite: sums.finite,
            mean: (sums.finite > 0).then_some(sums.mean),
            min: sums.ends.map(|(low, _)| low),
            max: sums.ends.map(|(_, high)| high),
            last: sums.last,
        };
        let mut rows = Vec::with_capacity(self.rows);
        for (name, windows) in self.names {
            rows.extend(windows.into_iter().map(|(start, sums)| row(&name, start, sums)));
        }
        AggregateTable { rows, left_out: self.left_out }
    }
}

/// How a cell of a pivot combines several numbers of one name and step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reduce {
    /// The last one that was delivered.
    Last,
    /// The mean: infinite where one is, and NaN where one is NaN.
    Mean,
    /// The lowest, without those that are NaN, unless all are.
    Min,
    /// The highest, without those that are NaN, unless all are.
    Max,
    /// The sum: NaN where one is NaN.
    Sum,
}

#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    /// 0 for an empty one. Saturates.
    count: u32,
    value: f64,
}

/// Table with a row for each step and a column for each name, as it is filled.
///
/// ```
/// use forebay::Record;
/// use forebay_history::{Pivot, Reduce};
///
/// // Two ranks that report the same step.
/// let mut table = Pivot::new(Reduce::Mean);
/// for loss in [0.25, 0.75] {
///     table.add(&Record::scalar("loss", loss).with_step(7))?;
/// }
/// table.add(&Record::scalar("accuracy", 0.5).with_step(8))?;
/// let table = table.finish();
/// assert_eq!(table.names.iter().map(|name| &**name).collect::<Vec<_>>(), ["accuracy", "loss"]);
/// assert_eq!((table.rows[0].step, table.rows[0].values[1]), (7, Some(0.5)));
/// assert_eq!(table.rows[1].values, [Some(0.5), None]);
/// # Ok::<(), forebay_history::TooLarge>(())
/// ```
#[derive(Debug, Clone)]
pub struct Pivot {
    reduce: Reduce,
    max_cells: usize,
    /// The column of each name, in the order in which they came.
    columns: BTreeMap<Arc<str>, usize>,
    rows: BTreeMap<i64, Vec<Cell>>,
    left_out: u64,
    pub(crate) is_reversed: bool,
}

/// Table of [`Pivot`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PivotTable {
    /// The names of the columns, sorted: those of [`Aggregate::name`].
    pub names: Vec<Arc<str>>,
    /// The rows, sorted by step.
    pub rows: Vec<PivotRow>,
    /// How many numbers were left out, since they have no step.
    pub left_out: u64,
}

/// Row of a [`PivotTable`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PivotRow {
    /// The step.
    pub step: i64,
    /// What each column has at that step. There are as many as there are names.
    pub values: Vec<Option<f64>>,
}

impl Pivot {
    /// The largest number of cells of a table by default: 64 MB.
    pub const MAX_CELLS: usize = 4_000_000;

    /// Makes an empty table.
    pub fn new(reduce: Reduce) -> Self {
        Self {
            reduce,
            max_cells: Self::MAX_CELLS,
            columns: BTreeMap::new(),
            rows: BTreeMap::new(),
            left_out: 0,
            is_reversed: false,
        }
    }

    /// Limits the cells, empty ones included: one takes 16 bytes. Defaults to 4,000,000.
    pub fn max_cells(mut self, cells: usize) -> Self {
        self.max_cells = cells;
        self
    }

    /// Adds the numbers of a record. Records are to come in the order of their delivery.
    ///
    /// # Errors
    ///
    /// There are too many cells. Nothing of the number that would take one more is in them.
    pub fn add(&mut self, record: &Record) -> Result<(), TooLarge> {
        let mut is_added = Ok(());
        numbers(record, &mut |name, value, step| match step {
            Some(step) if is_added.is_ok() => is_added = self.number(name, step, value),
            Some(_) => {}
            None => self.left_out += 1,
        });
        is_added
    }

    fn number(&mut self, name: &str, step: i64, value: f64) -> Result<(), TooLarge> {
        let (known, count) = (self.columns.get(name).copied(), self.columns.len());
        let column = known.unwrap_or(count);
        // The finished table has a cell for each step and name.
        let columns = count + usize::from(known.is_none());
        let rows = self.rows.len() + usize::from(!self.rows.contains_key(&step));
        if rows.saturating_mul(columns) > self.max_cells {
            return Err(TooLarge { what: "cells", max: self.max_cells });
        }
        if known.is_none() {
            self.columns.insert(name.into(), column);
        }
        let row = self.rows.entry(step).or_default();
        if row.len() <= column {
            row.reserve_exact(columns - row.len());
            row.resize(columns, Cell::default());
        }
        let cell = &mut row[column];
        let is_first = cell.count == 0;
        cell.count = cell.count.saturating_add(1);
        let count = f64::from(cell.count);
        cell.value = match self.reduce {
            _ if is_first => value,
            Reduce::Last if self.is_reversed => cell.value,
            Reduce::Last => value,
            // With an infinity, a share of one would be taken off the other.
            Reduce::Mean if !(cell.value.is_finite() && value.is_finite()) => cell.value + value,
            Reduce::Mean => cell.value + (value / count - cell.value / count),
            Reduce::Min => cell.value.min(value),
            Reduce::Max => cell.value.max(value),
            Reduce::Sum => cell.value + value,
        };
        Ok(())
    }

    /// Returns the table.
    pub fn finish(self) -> PivotTable {
        let (names, places): (Vec<Arc<str>>, Vec<usize>) = self.columns.into_iter().unzip();
        let value = |cell: Option<&Cell>| cell.filter(|cell| cell.count > 0).map(|cell| cell.value);
        let row = |(step, cells): (i64, Vec<Cell>)| {
            let values = places.iter().map(|place| value(cells.get(*place))).collect();
            PivotRow { step, values }
        };
        let rows = self.rows.into_iter().map(row).collect();
        PivotTable { names, rows, left_out: self.left_out }
    }
}
