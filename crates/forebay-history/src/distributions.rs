//! `Distribution`: a histogram at a step, and those of one name over a run, in bounded memory.

use forebay::Histogram;

/// Most steps that are kept before every other one is dropped.
const MAX_STEPS: usize = 128;

/// Most bins of a histogram that is kept.
const MAX_BINS: usize = 64;

/// Histogram at a step, in 64 bins at most.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Distribution {
    /// The step. Of a record without one: its place among those of its name.
    pub step: i64,
    /// The borders of the bins, ascending: one more than there are bins, or none.
    pub edges: Vec<f64>,
    /// How many values lie in each bin.
    pub counts: Vec<u64>,
}

impl Distribution {
    fn of(step: i64, histogram: &Histogram) -> Self {
        let together = histogram.counts().len().div_ceil(MAX_BINS).max(1);
        let counts = histogram.counts().chunks(together);
        let mut edges: Vec<f64> = histogram.edges().iter().copied().step_by(together).collect();
        // The last bin may be one of fewer.
        if let Some(last) = histogram.edges().last().filter(|_| edges.len() == counts.len()) {
            edges.push(*last);
        }
        let sum = |counts: &[u64]| counts.iter().fold(0, |sum: u64, count| sum.saturating_add(*count));
        Self { step, edges, counts: counts.map(sum).collect() }
    }
}

/// Those of one name: the last one, and each `stride`-th.
#[derive(Debug, Clone, Default)]
pub(crate) struct Distributions {
    kept: Vec<Distribution>,
    count: u64,
    /// 0 before the first.
    stride: u64,
    /// Whether the last one goes when there is another.
    is_last_extra: bool,
}

impl Distributions {
    pub(crate) fn push(&mut self, step: Option<i64>, histogram: &Histogram) {
        if std::mem::take(&mut self.is_last_extra) {
            self.kept.pop();
        }
        self.stride = self.stride.max(1);
        self.is_last_extra = !self.count.is_multiple_of(self.stride);
        let step = step.unwrap_or(i64::try_from(self.count).unwrap_or(i64::MAX));
        self.kept.push(Distribution::of(step, histogram));
        self.count += 1;
        if self.kept.len() > MAX_STEPS && !self.is_last_extra {
            let mut place = 0;
            self.kept.retain(|_| {
                place += 1;
                place % 2 == 1
            });
            self.stride = self.stride.saturating_mul(2);
        }
    }

    pub(crate) fn kept(&self) -> &[Distribution] {
        &self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_thinned_evenly_and_the_last_is_there() {
        let mut all = Distributions::default();
        for step in 0..10_001 {
            all.push(Some(step), &Histogram::from_values(&[step as f64, 0.5], 4));
            let steps: Vec<i64> = all.kept().iter().map(|it| it.step).collect();
            assert!(steps.len() <= MAX_STEPS + 1 && steps.first() == Some(&0) && steps.last() == Some(&step));
            let gaps: Vec<i64> = steps.windows(2).map(|two| two[1] - two[0]).collect();
            assert!(gaps.iter().rev().skip(1).all(|gap| *gap == gaps[0]), "{gaps:?}");
        }
    }

    #[test]
    fn bins_are_put_together_and_lose_no_value() {
        for bins in [1, 2, 63, 64, 65, 130, 1_000] {
            let values: Vec<f64> = (0..5_000).map(f64::from).collect();
            let all = Histogram::from_values(&values, bins);
            let kept = Distribution::of(1, &all);
            assert_eq!(kept.edges.len(), kept.counts.len() + 1, "{bins}");
            assert!(kept.counts.len() <= MAX_BINS && kept.counts.iter().sum::<u64>() == 5_000, "{bins}");
            let ends = (kept.edges.first().copied(), kept.edges.last().copied());
            assert_eq!(ends, (Some(all.min()), Some(all.max())), "{bins}");
        }
        let none = Distribution::of(1, &Histogram::from_values::<f64>(&[], 4));
        assert_eq!((none.edges.len(), none.counts.len()), (0, 0));
    }
}
