//! `Series`: the numbers of one name over the steps of a run, in bounded memory.

/// Most points that a series keeps by default: more than a screen has columns, and 400 kB.
const MAX_POINTS: usize = 16_384;

/// Points that become three at most when a series has too many.
const GROUP: usize = 8;

/// Number at a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// The step. Of a record without one: its place among the points of its name.
    pub step: i64,
    /// The moment, in nanoseconds since 1970.
    pub unix_nanos: u64,
    /// The number. A whole number as is, a truth value as 0 or 1.
    pub value: f64,
}

/// Numbers of one name over the steps of a run.
///
/// All points up to `max_points`; from there on, of each stretch of neighbours the lowest and the highest that are finite, and the first
/// that is not. So a spike of a single point is never lost, whatever the resolution. Count, extremes and the last point are exact.
///
/// ```
/// use forebay_history::{Point, Series};
///
/// let mut series = Series::with_max_points(100);
/// for step in 0..1_000_000 {
///     let value = if step == 400_000 { 7.0 } else { 1.0 };
///     series.push(Point { step, unix_nanos: 0, value });
/// }
/// assert_eq!((series.count(), series.max().unwrap().step), (1_000_000, 400_000));
/// assert!(series.points().len() <= 100);
/// assert!(series.points().iter().any(|point| point.value == 7.0));
/// ```
#[derive(Debug, Clone)]
pub struct Series {
    points: Vec<Point>,
    max_points: usize,
    /// Number of neighbours of which three points at most are kept; 1 while all are.
    stride: u64,
    /// The stretch that is not full yet.
    open: Stretch,
    count: u64,
    first: Option<Point>,
    last: Option<Point>,
    min: Option<Point>,
    max: Option<Point>,
    non_finite: u64,
    first_non_finite: Option<Point>,
    backward: u64,
}

/// Stretch of neighbouring points.
#[derive(Debug, Clone, Copy, Default)]
struct Stretch {
    count: u64,
    min: Option<Point>,
    max: Option<Point>,
    not_finite: Option<Point>,
}

impl Stretch {
    fn push(&mut self, point: Point) {
        self.count += 1;
        if !point.value.is_finite() {
            self.not_finite.get_or_insert(point);
            return;
        }
        lower(&mut self.min, point);
        higher(&mut self.max, point);
    }

    /// Appends what is kept of it, in the order in which it came.
    fn flush(&mut self, points: &mut Vec<Point>) {
        let begin = points.len();
        points.extend(self.min);
        points.extend(self.max.filter(|max| self.min != Some(*max)));
        points.extend(self.not_finite);
        points[begin..].sort_by_key(|point| (point.step, point.unix_nanos));
        *self = Self::default();
    }
}

/// Fewer points do not hold a group and what comes behind it.
fn at_least(max_points: usize) -> usize {
    if max_points == 0 { 0 } else { max_points.max(4 * GROUP) }
}

fn lower(least: &mut Option<Point>, point: Point) {
    if least.is_none_or(|least| point.value < least.value) {
        *least = Some(point);
    }
}

fn higher(most: &mut Option<Point>, point: Point) {
    if most.is_none_or(|most| point.value > most.value) {
        *most = Some(point);
    }
}

impl Default for Series {
    /// Makes a series that keeps 16,384 points.
    fn default() -> Self {
        Self::with_max_points(MAX_POINTS)
    }
}

impl Series {
    /// Makes a series that keeps so many points, 32 at least; with 0, none.
    pub fn with_max_points(max_points: usize) -> Self {
        Self {
            points: Vec::new(),
            max_points: at_least(max_points),
            stride: 1,
            open: Stretch::default(),
            count: 0,
            first: None,
            last: None,
            min: None,
            max: None,
            non_finite: 0,
            first_non_finite: None,
            backward: 0,
        }
    }

    /// Appends a point.
    pub fn push(&mut self, point: Point) {
        self.count += 1;
        self.backward += u64::from(self.last.is_some_and(|last| point.step < last.step));
        self.first.get_or_insert(point);
        self.last = Some(point);
        if point.value.is_finite() {
            lower(&mut self.min, point);
            higher(&mut self.max, point);
        } else {
            self.non_finite += 1;
            self.first_non_finite.get_or_insert(point);
        }
        if self.max_points == 0 {
            return;
        }
        if self.stride == 1 {
            self.points.push(point);
        } else {
            self.open.push(point);
            if self.open.count >= self.stride {
                self.open.flush(&mut self.points);
            }
        }
        self.fit();
    }

    /// Keeps so many points from here on, 32 at least: fewer than before. With 0, none.
    pub fn limit(&mut self, max_points: usize) {
        self.max_points = self.max_points.min(at_least(max_points));
        if self.max_points == 0 {
            self.points = Vec::new();
            return;
        }
        self.fit();
        self.points.shrink_to(self.max_points);
    }

    /// Returns how many points are kept: about the memory of the series in units of 24 bytes.
    pub fn kept(&self) -> usize {
        self.points.len()
    }

    fn fit(&mut self) {
        // What a stretch appends, and the last point in the end.
        while self.points.len() + 6 > self.max_points {
            self.thin();
        }
    }

    /// Makes three points at most of each group.
    #[cold]
    fn thin(&mut self) {
        let all = std::mem::take(&mut self.points);
        for group in all.chunks(GROUP) {
            let mut stretch = Stretch::default();
            group.iter().for_each(|point| stretch.push(*point));
            stretch.flush(&mut self.points);
        }
        // A stretch has two points most of the time.
        self.stride =
            if self.stride == 1 { GROUP as u64 } else { self.stride.saturating_mul(GROUP as u64 / 2) };
    }

    /// Returns the points that are kept, in the order in which they came, the last one among them unless none is kept.
    pub fn points(&self) -> Vec<Point> {
        let mut points = self.points.clone();
        let mut open = self.open;
        open.flush(&mut points);
        // Without values: NaN differs from itself.
        let place = |point: &Point| (point.step, point.unix_nanos);
        if self.max_points > 0 && points.last().map(place) != self.last.as_ref().map(place) {
            points.extend(self.last);
        }
        points
    }

    /// Returns the [points](Self::points), thinned until there are so many at most, 32 at least.
    pub fn thinned(&self, max_points: usize) -> Vec<Point> {
        let mut thinned = Self::with_max_points(max_points);
        self.points().into_iter().for_each(|point| thinned.push(point));
        thinned.points()
    }

    /// Returns whether every point is among [`points`](Self::points).
    pub fn is_whole(&self) -> bool {
        self.stride == 1
    }

    /// Returns the number of points that came.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns the point that came first.
    pub fn first(&self) -> Option<Point> {
        self.first
    }

    /// Returns the point that came last.
    pub fn last(&self) -> Option<Point> {
        self.last
    }

    /// Returns the first of the lowest points. Only finite numbers count.
    pub fn min(&self) -> Option<Point> {
        self.min
    }

    /// Returns the first of the highest points. Only finite numbers count.
    pub fn max(&self) -> Option<Point> {
        self.max
    }

    /// Returns how many of the numbers are infinite, or none.
    pub fn non_finite(&self) -> u64 {
        self.non_finite
    }

    /// Returns the first of the numbers that are infinite, or none.
    pub fn first_non_finite(&self) -> Option<Point> {
        self.first_non_finite
    }

    /// Returns how often a step was lower than the one before.
    pub fn backward_steps(&self) -> u64 {
        self.backward
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn point(step: i64, value: f64) -> Point {
        Point { step, unix_nanos: 0, value }
    }

    #[test]
    fn a_short_series_keeps_every_point() {
        let mut series = Series::with_max_points(100);
        for step in 0..90 {
            series.push(point(step, -step as f64));
        }
        assert!(series.is_whole());
        assert_eq!(series.points().len(), 90);
        assert_eq!(series.min(), Some(point(89, -89.0)));
    }

    #[test]
    fn the_first_number_that_is_none_stays_visible() {
        let mut series = Series::with_max_points(64);
        for step in 0..100_000 {
            series.push(point(step, if step == 70_001 { f64::NAN } else { 0.5 }));
        }
        assert!(series.points().iter().any(|point| point.value.is_nan() && point.step == 70_001));
        assert_eq!(series.non_finite(), 1);
        assert!(series.first_non_finite().is_some_and(|point| point.step == 70_001));
    }

    #[test]
    fn an_infinity_hides_no_extreme_beside_it() {
        let mut series = Series::with_max_points(64);
        for step in 0..100_000 {
            let value = match step {
                70_001 => f64::INFINITY,
                70_002 => 7.0,
                70_003 => f64::NEG_INFINITY,
                70_004 => -7.0,
                _ => 0.5,
            };
            series.push(point(step, value));
        }
        for value in [7.0, -7.0] {
            assert!(series.points().iter().any(|point| point.value == value), "{value}");
        }
    }

    #[test]
    fn the_last_point_is_there_once_also_where_it_is_no_number() {
        let mut series = Series::default();
        series.push(point(1, 0.5));
        series.push(point(2, f64::NAN));
        assert_eq!(series.points().len(), 2);
    }

    #[test]
    fn a_lower_limit_keeps_the_extremes_and_none_keeps_the_count() {
        let mut series = Series::default();
        for step in 0..5_000 {
            series.push(point(step, if step == 1_234 { 7.0 } else { 0.5 }));
        }
        series.limit(100);
        assert!(series.kept() <= 100 && series.points().iter().any(|point| point.value == 7.0));
        series.limit(0);
        series.push(point(5_000, 0.25));
        assert_eq!(
            (series.points().len(), series.count(), series.min()),
            (0, 5_001, Some(point(5_000, 0.25)))
        );
    }

    proptest! {
        #[test]
        fn extremes_are_kept_in_bounded_memory(values in proptest::collection::vec(-1e9..1e9_f64, 1..5_000), max in 32..200_usize) {
            let mut series = Series::with_max_points(max);
            for (step, value) in values.iter().enumerate() {
                series.push(point(step as i64, *value));
                prop_assert!(series.points.len() <= max);
            }
            let points = series.points();
            prop_assert!(points.len() <= max);
            prop_assert!(points.is_sorted_by_key(|point| point.step));
            let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(*value), high.max(*value)));
            prop_assert!(points.iter().any(|point| point.value == low) && points.iter().any(|point| point.value == high));
            prop_assert_eq!(points.last().map(|point| point.step), Some(values.len() as i64 - 1));
        }
    }
}
