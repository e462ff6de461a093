//! Histograms, counted as NumPy counts them and cut as PyTorch cuts them.

use forebay_sync::sync::OnceLock;
use tfevents::Summary;

use crate::array::Array;

/// Returns the edges of the bins that TensorFlow has always used: from 1e-12 on, each a tenth larger than the one before, up to 1e20; the
/// same below zero; and zero.
pub(crate) fn default_edges() -> &'static [f64] {
    static EDGES: OnceLock<Vec<f64>> = OnceLock::new();
    EDGES.get_or_init(|| {
        let positive: Vec<f64> = std::iter::successors(Some(1e-12), |edge| Some(edge * 1.1))
            .take_while(|edge| *edge < 1e20)
            .collect();
        let negative = positive.iter().rev().map(|edge| -edge);
        negative.chain([0.0]).chain(positive.iter().copied()).collect()
    })
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
    /// Counts values. Each bin has its left edge and not its right one; the last has both. What lies in no bin, and NaN, is left out, but
    /// is among the sums.
    ///
    /// `counts` are those of a caller who has counted already.
    pub(crate) fn of(
        values: &Array,
        edges: &[f64],
        counts: Option<Vec<f64>>,
        max_bins: Option<usize>,
    ) -> Self {
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
            if !is_counted && let Some(bin) = bin_of(value, edges) {
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

    /// Returns what is written of it.
    pub(crate) fn summary(&self) -> Summary<'_> {
        let Self { min, max, num, sum, sum_squares, ref limits, ref counts } = *self;
        Summary::LegacyHistogram { min, max, num, sum, sum_squares, limits, counts }
    }
}

fn bin_of(value: f64, edges: &[f64]) -> Option<usize> {
    match edges.partition_point(|edge| *edge <= value) {
        0 => None,
        right if right < edges.len() => Some(right - 1),
        // Beyond the last edge, or on it.
        _ => edges.last().filter(|last| **last == value).and(edges.len().checked_sub(2)),
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
