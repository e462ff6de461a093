//! Histograms, counted as NumPy counts them and cut as PyTorch cuts them.

use forebay_sync::sync::OnceLock;
use tfevents::Summary;

use crate::array::Array;

/// Bins by their edges, which grow.
pub(crate) struct Bins {
    edges: Vec<f64>,
    /// Of edges that many histograms have: where the search for a number begins.
    starts: Option<Starts>,
}

/// Numbers of edges that lie below all numbers with the same uppermost bits.
struct Starts {
    /// Uppermost bits of the first edge.
    base: usize,
    /// For every value of these bits from `base` on.
    edges_below: Vec<u16>,
}

/// Returns the bins that TensorFlow has always used: from 1e-12 on, each edge is a tenth larger than the one before, up to 1e20; the same
/// below zero; and zero.
pub(crate) fn default_bins() -> &'static Bins {
    static BINS: OnceLock<Bins> = OnceLock::new();
    BINS.get_or_init(|| {
        let positive: Vec<f64> = std::iter::successors(Some(1e-12), |edge| Some(edge * 1.1))
            .take_while(|edge| *edge < 1e20)
            .collect();
        let negative = positive.iter().rev().map(|edge| -edge);
        let edges: Vec<f64> = negative.chain([0.0]).chain(positive.iter().copied()).collect();
        Bins { starts: Some(Starts::of(&edges)), edges }
    })
}

impl Bins {
    /// Makes bins of edges that a caller has given.
    pub(crate) fn of(edges: Vec<f64>) -> Self {
        Self { edges, starts: None }
    }

    /// Returns the edges.
    pub(crate) fn edges(&self) -> &[f64] {
        &self.edges
    }

    /// Returns the number of the bin that has this number in it. Each has its left edge and not its right one; the last has both.
    fn bin_of(&self, number: f64) -> Option<usize> {
        let edges = &self.edges;
        let edges_below = match &self.starts {
            Some(starts) => starts.edges_until(number, edges),
            None => edges.partition_point(|edge| *edge <= number),
        };
        match edges_below {
            0 => None,
            right if right < edges.len() => Some(right - 1),
            // Beyond the last edge, or on it.
            _ => edges.last().filter(|last| **last == number).and(edges.len().checked_sub(2)),
        }
    }
}

impl Starts {
    /// The sign, the exponent, and so much of the fraction that two of the default edges are never alike.
    const BITS: u32 = 17;

    fn of(edges: &[f64]) -> Self {
        let bits = edges.iter().map(|edge| Self::bits_of(*edge)).collect::<Vec<_>>();
        debug_assert!(bits.is_sorted_by(|one, next| one < next), "two edges with the same bits");
        let (base, last) = (bits.first().copied().unwrap_or(0), bits.last().copied().unwrap_or(0));
        let below = |wanted| bits.partition_point(|bits| *bits < wanted) as u16;
        Self { base, edges_below: (base..=last).map(below).collect() }
    }

    /// Returns the uppermost bits of a number, as a number that grows with it.
    fn bits_of(number: f64) -> usize {
        let bits = number.to_bits();
        // Of negative numbers, those of a greater amount come first.
        let ordered = if number.is_sign_negative() { !bits } else { bits | 1 << 63 };
        (ordered >> (u64::BITS - Self::BITS)) as usize
    }

    /// Returns how many edges there are up to a number. It costs a look at a table and about one comparison, where a search in 1,549 edges
    /// takes eleven.
    fn edges_until(&self, number: f64, edges: &[f64]) -> usize {
        let place = Self::bits_of(number).wrapping_sub(self.base);
        // What is beyond the table is beyond the edges, on either side; so is NaN.
        let Some(below) = self.edges_below.get(place) else {
            return if number > 0.0 { edges.len() } else { 0 };
        };
        // One edge at most has the bits of the number. Without a branch, which could not be predicted.
        let below = usize::from(*below);
        below + usize::from(edges.get(below).is_some_and(|edge| *edge <= number))
    }
}

/// Distribution of values.
pub(crate) struct Histogram {
    min: f64,
    max: f64,
    num: f64,
    sum: f64,
    sum_squares: f64,
    /// The right edges of the bins.
    limits: Vec<f64>,
    counts: Vec<f64>,
}

impl Histogram {
    /// Counts values. What lies in no bin, and NaN, is left out, but is among the sums.
    ///
    /// `counts` are those of a caller who has counted already.
    pub(crate) fn of(values: &Array, bins: &Bins, counts: Option<Vec<f64>>, max_bins: Option<usize>) -> Self {
        let edges = bins.edges();
        let (mut min, mut max) = (f64::INFINITY, f64::NEG_INFINITY);
        let (mut sum, mut sum_squares) = (0.0, 0.0);
        let is_counted = counts.is_some();
        let mut counts = counts.unwrap_or_else(|| vec![0.0; edges.len().saturating_sub(1)]);
        values.for_each(|value| {
            // NaN stays, as in NumPy.
            min = if value < min || value.is_nan() { value } else { min };
            max = if value > max || value.is_nan() { value } else { max };
            sum += value;
            sum_squares += value * value;
            if !is_counted && let Some(bin) = bins.bin_of(value) {
                counts[bin] += 1.0;
            }
        });
        let (counts, limits) = join(counts, edges.to_vec(), max_bins);
        let (counts, limits) = cut(&counts, &limits);
        Self { min, max, num: values.len() as f64, sum, sum_squares, limits, counts }
    }

    /// Makes a distribution that somebody else has counted. `numbers` are its minimum, maximum, number of values, sum, and sum of squares.
    pub(crate) fn counted(numbers: [f64; 5], limits: Vec<f64>, counts: Vec<f64>) -> Self {
        let [min, max, num, sum, sum_squares] = numbers;
        Self { min, max, num, sum, sum_squares, limits, counts }
    }

    /// Returns how many bytes its bins occupy.
    pub(crate) fn byte_len(&self) -> usize {
        size_of_val(&*self.limits).saturating_add(size_of_val(&*self.counts))
    }

    /// Returns what is written of it.
    pub(crate) fn summary(&self) -> Summary<'_> {
        let Self { min, max, num, sum, sum_squares, ref limits, ref counts } = *self;
        Summary::LegacyHistogram { min, max, num, sum, sum_squares, limits, counts }
    }
}

/// Joins neighbouring bins, as many as make `max_bins` or a few more of them.
fn join(counts: Vec<f64>, limits: Vec<f64>, max_bins: Option<usize>) -> (Vec<f64>, Vec<f64>) {
    let Some(max_bins) = max_bins.filter(|max| counts.len() > *max) else { return (counts, limits) };
    let joined = counts.len() / max_bins.max(1);
    let counts: Vec<f64> = counts.chunks(joined).map(|bins| bins.iter().sum()).collect();
    let mut left: Vec<f64> =
        limits[..limits.len() - 1].iter().copied().step_by(joined).take(counts.len()).collect();
    left.extend(limits.last());
    (counts, left)
}

/// Cuts the empty bins at both ends, but for one to the left: TensorBoard knows right edges only, and that one's is the left edge of the
/// first bin.
fn cut(counts: &[f64], limits: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let first = counts.iter().position(|count| *count > 0.0);
    let last = counts.iter().rposition(|count| *count > 0.0);
    let (Some(first), Some(last)) = (first, last) else { return (vec![0.0], vec![0.0]) };
    let mut kept = vec![0.0];
    kept.extend(&counts[first..=last]);
    (kept, limits[first..last + 2].to_vec())
}
