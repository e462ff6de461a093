//! Values of series, changed by any thread and read by the sampler. All orderings are relaxed: a value is a number by itself, and nothing is
//! published by it.

use forebay::Histogram;
use metrics::{CounterFn, GaugeFn, HistogramFn};

use crate::sync::{Arc, AtomicU64, Ordering};

/// Number that stands for none: a counter ends below it, and as a gauge it is one of many NaN, which is not kept as such.
const NONE: u64 = u64::MAX;
/// Last total of a counter, at which it stays.
const LAST: u64 = NONE - 1;

/// A number, and the one that was last sampled.
#[derive(Debug)]
struct Sampled {
    now: AtomicU64,
    /// Written by samplers alone.
    sampled: AtomicU64,
}

impl Sampled {
    /// Returns the number, unless it is the one that was sampled, and always where samples may be lost.
    fn changed(&self, is_lost: bool) -> Option<u64> {
        let now = self.now.load(Ordering::Relaxed);
        (is_lost || now != self.sampled.load(Ordering::Relaxed)).then_some(now)
    }

    fn mark_sampled(&self, number: u64) {
        self.sampled.store(number, Ordering::Relaxed);
    }
}

impl Default for Sampled {
    /// Returns zero, of which no sample was taken.
    fn default() -> Self {
        Self { now: AtomicU64::new(0), sampled: AtomicU64::new(NONE) }
    }
}

/// Counter: the total since it was registered.
#[derive(Debug, Default)]
pub(crate) struct CounterCell(Sampled);

impl CounterCell {
    /// Returns the total, unless it is the one that was sampled.
    pub(crate) fn changed(&self, is_lost: bool) -> Option<u64> {
        self.0.changed(is_lost)
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.now.load(Ordering::Relaxed)
    }

    pub(crate) fn mark_sampled(&self, total: u64) {
        self.0.mark_sampled(total);
    }
}

impl CounterFn for CounterCell {
    fn increment(&self, value: u64) {
        let before = self.0.now.fetch_add(value, Ordering::Relaxed);
        // It is beyond the end for the moment that this takes: a sample then has the end, or is the next one's.
        if before.checked_add(value).is_none_or(|total| total > LAST) {
            self.0.now.store(LAST, Ordering::Relaxed);
        }
    }

    fn absolute(&self, value: u64) {
        self.0.now.fetch_max(value.min(LAST), Ordering::Relaxed);
    }
}

/// Gauge: the bits of its number.
#[derive(Debug, Default)]
pub(crate) struct GaugeCell(Sampled);

impl GaugeCell {
    /// Returns the bits of the number, unless they are those that were sampled.
    pub(crate) fn changed(&self, is_lost: bool) -> Option<u64> {
        self.0.changed(is_lost)
    }

    pub(crate) fn mark_sampled(&self, bits: u64) {
        self.0.mark_sampled(bits);
    }
}

impl GaugeFn for GaugeCell {
    fn increment(&self, value: f64) {
        add(&self.0.now, value);
    }

    fn decrement(&self, value: f64) {
        add(&self.0.now, -value);
    }

    fn set(&self, value: f64) {
        self.0.now.store(bits(value), Ordering::Relaxed);
    }
}

/// Returns the bits of a number. All NaN have the same, which are not [`NONE`].
fn bits(number: f64) -> u64 {
    if number.is_nan() { f64::NAN.to_bits() } else { number.to_bits() }
}

/// Adds to a floating-point number.
fn add(cell: &AtomicU64, value: f64) {
    change(cell, |number| number + value);
}

/// Changes a floating-point number, if that makes a difference.
fn change(cell: &AtomicU64, change: impl Fn(f64) -> f64) {
    let mut now = cell.load(Ordering::Relaxed);
    loop {
        let new = bits(change(f64::from_bits(now)));
        if new == now {
            return;
        }
        match cell.compare_exchange_weak(now, new, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return,
            Err(other) => now = other,
        }
    }
}

/// Bins between a number and its double.
const BINS_OF_OCTAVE: u64 = 8;
/// The bits of a floating-point number below those that choose its bin.
const SHIFT: u32 = 52 - BINS_OF_OCTAVE.trailing_zeros();
/// Powers of two between which numbers have bins: a picosecond in seconds, and a petabyte in bytes. What lies below is in the first bin, and
/// what lies above in the last.
const SMALLEST: f64 = 1.0 / (1_u64 << 40) as f64;
const LARGEST: f64 = (1_u64 << 50) as f64;
/// Number of bins from the smallest to the largest.
const BINS: usize = 90 * BINS_OF_OCTAVE as usize;

/// Histogram of the numbers since the last sample, in bins whose width is at most an eighth of their lower edge: 720 of them, 6 KB. Numbers
/// below zero are in one bin. Or in bins of which the program has chosen the bounds.
#[derive(Debug)]
pub(crate) struct HistogramCell {
    bounds: Option<Bounds>,
    negative: AtomicU64,
    /// From zero up to the smallest that has a bin.
    small: AtomicU64,
    bins: Box<[AtomicU64]>,
    large: AtomicU64,
    non_finite: AtomicU64,
    /// Bits of floating-point numbers.
    sum: AtomicU64,
    sum_of_squares: AtomicU64,
    min: AtomicU64,
    max: AtomicU64,
}

/// Bounds between the bins of a histogram, ascending and finite.
pub(crate) type Bounds = Arc<[f64]>;

/// What was recorded since the last sample.
pub(crate) struct Taken {
    pub(crate) histogram: Histogram,
    /// The smallest and the largest number, where the edges of the histogram do not say so.
    pub(crate) extremes: Option<(f64, f64)>,
}

impl HistogramCell {
    pub(crate) fn new(bounds: Option<Bounds>) -> Self {
        let bins = bounds.as_ref().map_or(BINS, |bounds| bounds.len() + 1);
        let of = |number: f64| AtomicU64::new(number.to_bits());
        Self {
            bounds,
            negative: AtomicU64::new(0),
            small: AtomicU64::new(0),
            bins: (0..bins).map(|_| AtomicU64::new(0)).collect(),
            large: AtomicU64::new(0),
            non_finite: AtomicU64::new(0),
            sum: of(0.0),
            sum_of_squares: of(0.0),
            min: of(f64::INFINITY),
            max: of(f64::NEG_INFINITY),
        }
    }
}

/// Returns the place of a bin in the order of numbers, from the bits of a number in it.
fn bin_of(number: f64) -> usize {
    ((number.to_bits() >> SHIFT) - (SMALLEST.to_bits() >> SHIFT)) as usize
}

/// Returns the lower edge of a bin.
fn edge_of(bin: usize) -> f64 {
    f64::from_bits(((SMALLEST.to_bits() >> SHIFT) + bin as u64) << SHIFT)
}

impl HistogramCell {
    /// Takes the numbers since the last sample out of it; `None` if there are none. A number that another thread records meanwhile is in
    /// this sample or in the next, and its part of the sum may be in the other.
    pub(crate) fn take(&self) -> Option<Taken> {
        let taken = |cell: &AtomicU64| {
            if cell.load(Ordering::Relaxed) == 0 { 0 } else { cell.swap(0, Ordering::Relaxed) }
        };
        let non_finite = taken(&self.non_finite);
        let bits_of =
            |cell: &AtomicU64, empty: f64| f64::from_bits(cell.swap(empty.to_bits(), Ordering::Relaxed));
        // The lower and the upper edge, and the count.
        let mut filled: Vec<(f64, f64, u64)> = Vec::new();
        if let Some(bounds) = &self.bounds {
            let counts: Vec<u64> = self.bins.iter().map(taken).collect();
            if non_finite == 0 && counts.iter().all(|count| *count == 0) {
                return None;
            }
            let (sum, sum_of_squares) = (bits_of(&self.sum, 0.0), bits_of(&self.sum_of_squares, 0.0));
            let (min, max) = (bits_of(&self.min, f64::INFINITY), bits_of(&self.max, f64::NEG_INFINITY));
            let histogram = bounded(bounds, counts, min, max, sum, sum_of_squares);
            let extremes = (min <= max).then_some((min, max));
            return Some(Taken { histogram: histogram.with_non_finite(non_finite), extremes });
        }
        let mut push = |lower: f64, upper: f64, count: u64| {
            if count > 0 {
                filled.push((lower, upper, count));
            }
        };
        push(f64::NEG_INFINITY, 0.0, taken(&self.negative));
        push(0.0, SMALLEST, taken(&self.small));
        for (bin, cell) in self.bins.iter().enumerate() {
            push(edge_of(bin), edge_of(bin + 1), taken(cell));
        }
        push(LARGEST, f64::INFINITY, taken(&self.large));
        if filled.is_empty() && non_finite == 0 {
            return None;
        }
        let (sum, sum_of_squares) = (bits_of(&self.sum, 0.0), bits_of(&self.sum_of_squares, 0.0));
        let (min, max) = (bits_of(&self.min, f64::INFINITY), bits_of(&self.max, f64::NEG_INFINITY));
        let histogram = histogram(&filled, min, max, sum, sum_of_squares).with_non_finite(non_finite);
        Some(Taken { histogram, extremes: None })
    }

    fn add(&self, value: f64, count: u64) {
        if !value.is_finite() {
            self.non_finite.fetch_add(count, Ordering::Relaxed);
            return;
        }
        let cell = if let Some(bounds) = &self.bounds {
            let bin = bounds.partition_point(|bound| *bound <= value);
            self.bins.get(bin).unwrap_or(&self.large)
        } else if value < 0.0 {
            &self.negative
        } else if value < SMALLEST {
            &self.small
        } else {
            self.bins.get(bin_of(value)).unwrap_or(&self.large)
        };
        cell.fetch_add(count, Ordering::Relaxed);
        let times = count as f64;
        add(&self.sum, value * times);
        add(&self.sum_of_squares, value * value * times);
        change(&self.min, |min| min.min(value));
        change(&self.max, |max| max.max(value));
    }
}

/// Makes a histogram of bins in order. Where none is filled between two, one empty bin takes their place. The outer edges are the smallest and
/// the largest number, as far as they lie in these bins: another thread may have recorded one that is in the next sample.
fn histogram(filled: &[(f64, f64, u64)], min: f64, max: f64, sum: f64, sum_of_squares: f64) -> Histogram {
    let (Some((lower, upper, _)), Some((last_lower, last_upper, _))) = (filled.first(), filled.last()) else {
        return Histogram::default();
    };
    let min = if (*lower..*upper).contains(&min) { min } else { lower.max(f64::MIN) };
    let max = if (*last_lower..*last_upper).contains(&max) { max } else { last_upper.min(f64::MAX) };
    // Both may be in one bin, and one of them of the next sample.
    let min = min.min(max);
    let (mut edges, mut counts) = (vec![min], Vec::new());
    for (lower, upper, count) in filled {
        if !counts.is_empty() && edges.last() != Some(lower) {
            edges.push(*lower);
            counts.push(0);
        }
        edges.push(upper.min(max));
        counts.push(*count);
    }
    Histogram::from_counts(edges, counts, sum, sum_of_squares).unwrap_or_default()
}

/// Makes a histogram whose inner edges are the bounds, also where a bin has no number. The outer ones are the smallest and the largest number,
/// or next to the outer bounds where no number is beyond them.
fn bounded(bounds: &[f64], counts: Vec<u64>, min: f64, max: f64, sum: f64, sum_of_squares: f64) -> Histogram {
    let (Some(first), Some(last)) = (bounds.first(), bounds.last()) else { return Histogram::default() };
    let mut edges = vec![min.min(*first)];
    edges.extend_from_slice(bounds);
    // Not equal to the bound, so that this stays one: see the sums of `forebay-otlp`.
    edges.push(max.max(last.next_up()).min(f64::MAX));
    Histogram::from_counts(edges, counts, sum, sum_of_squares).unwrap_or_default()
}

impl HistogramFn for HistogramCell {
    fn record(&self, value: f64) {
        self.add(value, 1);
    }

    fn record_many(&self, value: f64, count: usize) {
        if count > 0 {
            self.add(value, count as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_the_next_sample_takes_no_count_away() {
        // The smallest and the largest are read one after the other, while other threads record.
        for (min, max) in [(1.1, 1.05), (1.05, 1.1), (f64::INFINITY, f64::NEG_INFINITY), (0.5, 7.0)] {
            let one = histogram(&[(1.0, 1.125, 3)], min, max, 3.2, 3.5);
            assert_eq!((one.count(), one.sum()), (3, 3.2), "{min} {max}");
            assert!(one.min() >= 1.0 && one.max() <= 1.125);
            let two = histogram(&[(1.0, 1.125, 3), (4.0, 4.5, 2)], min, max, 3.2, 3.5);
            assert_eq!(two.count(), 5);
        }
    }

    #[test]
    fn numbers_are_in_the_bin_whose_edges_are_around_them() {
        assert_eq!((bin_of(SMALLEST), edge_of(0)), (0, SMALLEST));
        assert_eq!(edge_of(BINS), LARGEST);
        assert_eq!(bin_of(LARGEST), BINS);
        let mut number = SMALLEST;
        while number < LARGEST {
            let bin = bin_of(number);
            assert!(edge_of(bin) <= number && number < edge_of(bin + 1), "{number}");
            assert!(edge_of(bin + 1) - edge_of(bin) <= edge_of(bin) / 8.0);
            number *= 1.0123;
        }
    }

    #[test]
    fn the_largest_total_is_sampled_and_stays() {
        for counters in [["add", "set"], ["set", "add"]] {
            let counter = CounterCell::default();
            for by in counters {
                match by {
                    "add" => CounterFn::increment(&counter, u64::MAX),
                    _ => CounterFn::absolute(&counter, u64::MAX),
                }
                assert_eq!((counter.changed(false), counter.total()), (Some(LAST), LAST));
            }
            CounterFn::increment(&counter, 1);
            CounterFn::increment(&counter, u64::MAX);
            assert_eq!(counter.total(), LAST, "it does not begin again");
        }
    }

    #[test]
    fn a_gauge_of_any_nan_is_sampled() {
        for set in [GaugeFn::set as fn(&GaugeCell, f64), GaugeFn::increment, GaugeFn::decrement] {
            let gauge = GaugeCell::default();
            set(&gauge, f64::from_bits(NONE));
            assert!(gauge.changed(false).is_some_and(|bits| f64::from_bits(bits).is_nan()));
        }
    }

    #[test]
    fn a_histogram_has_every_number_and_its_smallest_and_largest() {
        let cell = HistogramCell::new(None);
        assert!(cell.take().is_none());
        let numbers = [0.5, 0.5, 3.0, -2.0, -7.0, 0.0, 1e-30, 1e30, f64::MAX, 0.51, f64::MIN_POSITIVE];
        numbers.iter().for_each(|number| cell.record(*number));
        cell.record_many(100.0, 1000);
        cell.record_many(1.0, 0);
        cell.record(f64::NAN);
        cell.record(f64::NEG_INFINITY);
        let histogram = cell.take().unwrap().histogram;
        assert_eq!((histogram.count(), histogram.non_finite()), (1011, 2));
        assert_eq!((histogram.min(), histogram.max()), (-7.0, f64::MAX));
        assert!(histogram.edges().is_sorted());
        assert!(cell.take().is_none(), "they were taken");

        cell.record_many(0.25, 4);
        let histogram = cell.take().unwrap().histogram;
        assert_eq!((histogram.min(), histogram.max(), histogram.count()), (0.25, 0.25, 4));
        assert_eq!((histogram.sum(), histogram.sum_of_squares()), (1.0, 0.25));
        cell.record(f64::INFINITY);
        let histogram = cell.take().unwrap().histogram;
        assert_eq!((histogram.count(), histogram.non_finite()), (0, 1));
    }

    #[test]
    fn chosen_bounds_are_in_every_sample() {
        let cell = HistogramCell::new(Some([0.1, 0.5, 1.0].into()));
        assert!(cell.take().is_none());
        for (numbers, counts, extremes) in [
            (&[0.2, 0.3][..], [0, 2, 0, 0], (0.2, 0.3)),
            (&[0.05, 0.1, 7.0, 1.0], [1, 1, 0, 2], (0.05, 7.0)),
            (&[-f64::MAX, f64::MAX], [1, 0, 0, 1], (-f64::MAX, f64::MAX)),
        ] {
            numbers.iter().for_each(|number| cell.record(*number));
            let Taken { histogram, extremes: seen } = cell.take().unwrap();
            assert_eq!((histogram.counts(), seen), (&counts[..], Some(extremes)));
            assert_eq!(histogram.edges()[1..4], [0.1, 0.5, 1.0]);
            assert!(histogram.edges().is_sorted() && histogram.max() > 1.0, "{:?}", histogram.edges());
        }
        cell.record(f64::NAN);
        let Taken { histogram, extremes } = cell.take().unwrap();
        assert_eq!((histogram.count(), histogram.non_finite(), extremes), (0, 1, None));
    }
}
