//! Step of a job: what its ranks reported at it, and what that is together.

use std::collections::BTreeMap;
use std::time::Duration;

use forebay_sync::sync::Arc;

use crate::Reduce;

/// Step of a job, reduced over its ranks.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RankStep {
    /// The step.
    pub step: i64,
    /// The highest generation of the ranks that are in it.
    pub generation: u64,
    /// How often it was given before: 0 for the first time. More where a late or a restarted rank changed it since.
    pub revision: u64,
    /// Whether every rank that is waited for has gone on to a later step.
    pub is_complete: bool,
    /// The number of ranks that reported something at this step.
    pub ranks: u64,
    /// The ranks that are not in it, since they began later, or ended or vanished before: their places.
    pub missing: Vec<usize>,
    /// The numbers, sorted by name.
    pub values: Vec<Reduced>,
    /// The rank that took longest, where two or more took a time that is known.
    pub slowest: Option<Slowest>,
}

/// Numbers of one name at one step, reduced over the ranks.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Reduced {
    /// The name, as curves have it: `name`, or `name/field` for a field of a record.
    pub name: Arc<str>,
    /// How many ranks have a number, those whose number is not finite among them.
    pub count: u64,
    /// How many of the numbers are finite.
    pub finite: u64,
    /// The mean of the finite ones. `None` where there is none.
    pub mean: Option<f64>,
    /// The sum of the finite ones.
    pub sum: Option<f64>,
    /// The lowest finite one, and the place of the first rank that has it.
    pub min: Option<(f64, usize)>,
    /// The highest finite one, and the place of the first rank that has it.
    pub max: Option<(f64, usize)>,
    /// The number of the last rank that has one, finite or not.
    pub last: f64,
}

impl Reduced {
    /// Returns the number that is asked for. `None` where no number is finite.
    pub fn get(&self, reduce: Reduce) -> Option<f64> {
        match reduce {
            Reduce::Last => Some(self.last),
            Reduce::Mean => self.mean,
            Reduce::Min => self.min.map(|(value, _)| value),
            Reduce::Max => self.max.map(|(value, _)| value),
            Reduce::Sum => self.sum,
        }
    }
}

/// Rank that took longest for a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Slowest {
    /// Its place.
    pub rank: usize,
    /// The time that it took, by its own clock.
    pub took: Duration,
    /// The time by which it was behind the fastest rank.
    pub behind: Duration,
}

/// No time is known: a step that takes longer than 584 years has none.
const UNKNOWN: u64 = u64::MAX;

/// Numbers of one name, by rank.
#[derive(Debug, Default)]
struct Column {
    values: Vec<f64>,
    /// A bit for each rank that has one.
    has: Vec<u64>,
}

impl Column {
    fn get(&self, rank: usize) -> Option<f64> {
        let is_there = self.has.get(rank / 64).is_some_and(|bits| bits >> (rank % 64) & 1 == 1);
        self.values.get(rank).copied().filter(|_| is_there)
    }

    /// Sets the number of a rank, which has a place. Returns whether it had one.
    fn set(&mut self, rank: usize, value: f64) -> bool {
        let (bits, bit) = (&mut self.has[rank / 64], 1 << (rank % 64));
        let had = *bits & bit != 0;
        *bits |= bit;
        self.values[rank] = value;
        had
    }

    fn clear(&mut self, rank: usize) -> bool {
        let had = self.get(rank).is_some();
        if had {
            self.has[rank / 64] &= !(1 << (rank % 64));
        }
        had
    }

    fn grow(&mut self, ranks: usize) {
        self.values.resize(ranks, 0.0);
        self.has.resize(ranks.div_ceil(64), 0);
    }

    fn is_empty(&self) -> bool {
        self.has.iter().all(|bits| *bits == 0)
    }

    fn numbers(&self) -> impl Iterator<Item = (usize, f64)> {
        (0..self.values.len()).filter_map(|rank| Some((rank, self.get(rank)?)))
    }

    fn reduced(&self, name: Arc<str>) -> Reduced {
        let (mut count, mut finite, mut mean, mut sum) = (0, 0, 0.0, 0.0);
        let (mut min, mut max, mut last) = (None::<(f64, usize)>, None::<(f64, usize)>, f64::NAN);
        for (rank, value) in self.numbers() {
            count += 1;
            last = value;
            if !value.is_finite() {
                continue;
            }
            finite += 1;
            // A sum could leave what a number can be; this cannot.
            let number = finite as f64;
            mean += value / number - mean / number;
            sum += value;
            if min.is_none_or(|(least, _)| value < least) {
                min = Some((value, rank));
            }
            if max.is_none_or(|(most, _)| value > most) {
                max = Some((value, rank));
            }
        }
        let is_any = finite > 0;
        let (mean, sum) = (is_any.then_some(mean), is_any.then_some(sum));
        Reduced { name, count, finite, mean, sum, min, max, last }
    }
}

/// What the ranks reported at a step.
#[derive(Debug, Default)]
pub(super) struct Held {
    columns: BTreeMap<usize, Column>,
    /// The moment of the first record of each rank, by its own clock. 0 where there is none.
    arrived: Vec<u64>,
    /// The time that each rank took, in nanoseconds.
    took: Vec<u64>,
    /// The ranks that have arrived, and the numbers that are in it.
    pub(super) ranks: u64,
    pub(super) numbers: u64,
    pub(super) generation: u64,
    pub(super) revision: u64,
    /// Whether it is to be given, for the first time or again.
    pub(super) is_changed: bool,
    /// Whether it was given and let go before, and a restarted rank has reached it since.
    pub(super) is_again: bool,
}

impl Held {
    pub(super) fn new(ranks: usize) -> Self {
        Self { arrived: vec![0; ranks], took: vec![UNKNOWN; ranks], is_changed: true, ..Self::default() }
    }

    /// Returns how many ranks have a place in it.
    pub(super) fn places(&self) -> usize {
        self.arrived.len()
    }

    /// Returns how many cells it takes: one for each number that a rank may have, and two for its times.
    pub(super) fn cells(&self) -> usize {
        (self.columns.len() + 2) * self.places()
    }

    pub(super) fn grow(&mut self, ranks: usize) {
        self.arrived.resize(ranks, 0);
        self.took.resize(ranks, UNKNOWN);
        self.columns.values_mut().for_each(|column| column.grow(ranks));
    }

    /// Returns whether a name has a column.
    pub(super) fn has_column(&self, name: usize) -> bool {
        self.columns.contains_key(&name)
    }

    /// Sets the number of a rank. Returns whether it replaces an earlier one.
    pub(super) fn set(&mut self, name: usize, rank: usize, value: f64) -> bool {
        let ranks = self.places();
        let column = self.columns.entry(name).or_insert_with(|| {
            let mut column = Column::default();
            column.grow(ranks);
            column
        });
        let had = column.set(rank, value);
        self.numbers += u64::from(!had);
        self.is_changed = true;
        had
    }

    /// Notes that a rank has arrived. Returns whether that is news.
    pub(super) fn arrive(&mut self, rank: usize, unix_nanos: u64, took: Option<u64>) -> bool {
        if self.arrived[rank] != 0 {
            return false;
        }
        self.ranks += 1;
        self.arrived[rank] = unix_nanos.max(1);
        self.took[rank] = took.unwrap_or(UNKNOWN);
        self.is_changed = true;
        true
    }

    /// Notes how long a rank took, as it says itself.
    pub(super) fn took(&mut self, rank: usize, nanos: u64) {
        self.took[rank] = nanos;
        self.is_changed = true;
    }

    /// Takes out what a rank reported. Returns how many numbers that were.
    pub(super) fn clear(&mut self, rank: usize) -> u64 {
        let cleared = self.columns.values_mut().map(|column| u64::from(column.clear(rank))).sum();
        self.is_changed |= cleared > 0 || self.has(rank);
        self.ranks -= u64::from(self.has(rank));
        if let (Some(arrived), Some(took)) = (self.arrived.get_mut(rank), self.took.get_mut(rank)) {
            (*arrived, *took) = (0, UNKNOWN);
        }
        self.numbers -= cleared;
        cleared
    }

    /// Returns how many numbers a rank has in it.
    pub(super) fn numbers_of(&self, rank: usize) -> u64 {
        self.columns.values().filter(|column| column.get(rank).is_some()).count() as u64
    }

    pub(super) fn has(&self, rank: usize) -> bool {
        self.arrived.get(rank).is_some_and(|nanos| *nanos != 0)
    }

    /// Returns the time that each rank took that took one.
    pub(super) fn times(&self) -> impl Iterator<Item = (usize, u64)> {
        self.took.iter().copied().enumerate().filter(|(_, nanos)| *nanos != UNKNOWN)
    }

    /// Returns the moment at which each rank arrived, and the middle one of all, where there are three or more.
    pub(super) fn arrivals(&self) -> Option<(u64, impl Iterator<Item = (usize, u64)>)> {
        let mut all: Vec<u64> = self.arrived.iter().copied().filter(|nanos| *nanos != 0).collect();
        if all.len() < 3 {
            return None;
        }
        let middle = (all.len() - 1) / 2;
        let (_, middle, _) = all.select_nth_unstable(middle);
        Some((*middle, self.arrived.iter().copied().enumerate().filter(|(_, nanos)| *nanos != 0)))
    }

    /// Returns what all ranks together have.
    pub(super) fn reduced(&self, names: &[Arc<str>]) -> Vec<Reduced> {
        let columns = self.columns.iter().filter(|(_, column)| !column.is_empty());
        let mut values: Vec<Reduced> = columns
            .filter_map(|(name, column)| Some(column.reduced(Arc::clone(names.get(*name)?))))
            .collect();
        values.sort_by(|one, other| one.name.cmp(&other.name));
        values
    }

    pub(super) fn slowest(&self) -> Option<Slowest> {
        let least = self.times().map(|(_, nanos)| nanos).min()?;
        // The first of several.
        let (rank, most) = self.times().max_by_key(|(rank, nanos)| (*nanos, std::cmp::Reverse(*rank)))?;
        let behind = Duration::from_nanos(most - least);
        (self.times().nth(1).is_some()).then_some(Slowest { rank, took: Duration::from_nanos(most), behind })
    }
}
