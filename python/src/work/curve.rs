//! Curves of precision and recall.

use crate::array::{Array, Kind};

/// Returns true positives, false positives, true negatives, false negatives, precision and recall at so many thresholds from 0 to 1.
///
/// Elements whose prediction is not within 0 to 1 are left out. `weights` are one for all, or one for each.
pub(crate) fn precision_recall(
    labels: &Array,
    predictions: &Array,
    weights: Option<&Array>,
    thresholds: usize,
) -> [Vec<f32>; 6] {
    let last = thresholds.saturating_sub(1);
    let is_single = matches!(predictions.kind(), Kind::F32 | Kind::F16);
    let (mut tp, mut fp) = (vec![0.0; thresholds], vec![0.0; thresholds]);
    // All are read in their own types: as `f64`, labels of a byte would take eight times as much memory.
    let one =
        weights.filter(|weights| weights.len() == 1).map_or(Some(1.0), |weights| weights.numbers().next());
    let mut weights = weights.filter(|weights| weights.len() > 1).map(Array::numbers);
    let mut labels = labels.numbers();
    predictions.for_each(|prediction| {
        // In the precision of the predictions, as NumPy.
        let scaled =
            if is_single { f64::from(prediction as f32 * last as f32) } else { prediction * last as f64 };
        let weight = weights.as_mut().map_or(one, Iterator::next);
        if let (Some(label), Some(weight)) = (labels.next(), weight)
            && (0.0..(last + 1) as f64).contains(&scaled.floor())
        {
            tp[scaled as usize] += label * weight;
            fp[scaled as usize] += (1.0 - label) * weight;
        }
    });
    // Every threshold counts what is above it.
    for counts in [&mut tp, &mut fp] {
        let mut sum = 0.0;
        for count in counts.iter_mut().rev() {
            sum += *count;
            *count = sum;
        }
    }
    let (positives, negatives) = (tp.first().copied().unwrap_or(0.0), fp.first().copied().unwrap_or(0.0));
    let share = |part: f64, rest: f64| {
        let all = part + rest;
        // NaN stays, as in NumPy.
        (part / if all < 1e-7 { 1e-7 } else { all }) as f32
    };
    let rows = tp.iter().zip(&fp);
    let narrow = |numbers: &[f64]| numbers.iter().map(|number| *number as f32).collect();
    [
        narrow(&tp),
        narrow(&fp),
        fp.iter().map(|fp| (negatives - fp) as f32).collect(),
        tp.iter().map(|tp| (positives - tp) as f32).collect(),
        rows.clone().map(|(tp, fp)| share(*tp, *fp)).collect(),
        rows.map(|(tp, _)| share(*tp, positives - tp)).collect(),
    ]
}
