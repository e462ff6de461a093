//! Metrics: numbers as points of a gauge or a sum, histograms with explicit bounds.
//! <https://opentelemetry.io/docs/specs/otel/metrics/data-model/>.

use std::collections::HashMap;

use forebay::{Histogram, Pattern, Record, Value};

use crate::attributes::{self, KIND, SINCE, UNIT, saturated};
use crate::wire::Wire;

/// `AggregationTemporality`.
const DELTA: u64 = 1;
const CUMULATIVE: u64 = 2;

/// Kind of a metric, by the number of its field in `Metric`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Gauge = 5,
    Sum = 7,
    Histogram = 9,
}

/// Returns whether a record becomes a point of a metric.
pub(crate) fn is_metric(record: &Record) -> bool {
    // A metric without a name is invalid.
    let is_number = matches!(record.value(), Value::Scalar(_) | Value::Integer(_) | Value::Histogram(_));
    is_number && !record.name().is_empty()
}

/// Metrics of a request, each with its points. All points of one name, kind and unit are in one metric.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    places: HashMap<(Kind, String, String), usize>,
    metrics: Vec<(Kind, String, String, Vec<u8>)>,
}

/// Bytes of a metric beside its names and its points: keys, lengths, temporality.
const METRIC_BYTES: usize = 40;

impl Metrics {
    /// Adds a point, and returns about how many bytes that takes, not less than in the message. Adds none that takes more than `space`, and
    /// returns how many it would take.
    pub(crate) fn add(&mut self, record: &Record, sums: &[Pattern], space: usize) -> Result<usize, usize> {
        let metadata = |name| record.extra().and_then(|extra| extra.metadata.get(name));
        let is_sum = || {
            metadata(KIND).and_then(Value::as_str) == Some("counter")
                || sums.iter().any(|pattern| pattern.matches(record.name()))
        };
        let kind = match record.value() {
            Value::Histogram(_) => Kind::Histogram,
            _ if is_sum() => Kind::Sum,
            _ => Kind::Gauge,
        };
        let unit = metadata(UNIT).and_then(Value::as_str).unwrap_or_default();
        let since = metadata(SINCE).and_then(Value::as_i64).and_then(|nanos| u64::try_from(nanos).ok());
        let key = (kind, record.name().to_owned(), unit.to_owned());
        if let Some((_, _, _, points)) = self.places.get(&key).and_then(|place| self.metrics.get_mut(*place))
        {
            let before = points.len();
            points.message(1, |out| point(out, record, since));
            let size = points.len() - before;
            if size > space {
                points.truncate(before);
                return Err(size);
            }
            return Ok(size);
        }
        let mut points = Vec::new();
        points.message(1, |out| point(out, record, since));
        let size = points.len() + record.name().len() + unit.len() + METRIC_BYTES;
        if size > space {
            return Err(size);
        }
        let (kind, name, unit) = key.clone();
        self.places.insert(key, self.metrics.len());
        self.metrics.push((kind, name, unit, points));
        Ok(size)
    }

    /// Appends the metrics to a `ScopeMetrics`.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        for (kind, name, unit, points) in &self.metrics {
            out.message(2, |out| {
                out.bytes(1, name.as_bytes());
                if !unit.is_empty() {
                    out.bytes(3, unit.as_bytes());
                }
                out.message(*kind as u8, |out| {
                    out.extend_from_slice(points);
                    match kind {
                        Kind::Gauge => {}
                        Kind::Sum => {
                            out.varint(2, CUMULATIVE);
                            // It never falls.
                            out.varint(3, 1);
                        }
                        Kind::Histogram => out.varint(2, DELTA),
                    }
                });
            });
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.metrics.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

fn point(out: &mut Vec<u8>, record: &Record, since: Option<u64>) {
    if let Some(since) = since {
        out.fixed64(2, since);
    }
    out.fixed64(3, record.unix_nanos());
    match record.value() {
        Value::Histogram(value) => {
            attributes::of_record(out, 9, record, None);
            if value.non_finite() > 0 {
                attributes::put_integer(out, 9, "forebay.non_finite", saturated(value.non_finite()));
            }
            histogram(out, value, record);
        }
        Value::Integer(value) => {
            out.fixed64(6, *value as u64);
            attributes::of_record(out, 7, record, None);
        }
        value => {
            out.fixed64(4, value.as_f64().unwrap_or(f64::NAN).to_bits());
            attributes::of_record(out, 7, record, None);
        }
    }
}

/// Appends counts and bounds. Our first and last edge are `min` and `max`, unless metadata says otherwise, and those between are the bounds.
/// Edges that are equal have one bound, since bounds ascend.
fn histogram(out: &mut Vec<u8>, value: &Histogram, record: &Record) {
    out.fixed64(4, value.count());
    out.fixed64(5, value.sum().to_bits());
    let (mut bounds, mut counts) = (Vec::new(), Vec::new());
    let mut last = None;
    for (count, upper) in value.counts().iter().zip(value.edges().iter().skip(1)) {
        match counts.last_mut() {
            // A bin without a width: its values are in the bucket that ends there.
            Some(bucket) if last == Some(*upper) => *bucket += count,
            _ => {
                bounds.push(*upper);
                counts.push(*count);
            }
        }
        last = Some(*upper);
    }
    // The last bucket has no upper bound.
    bounds.pop();
    if counts.is_empty() {
        return;
    }
    out.message(6, |out| counts.iter().for_each(|count| out.extend_from_slice(&count.to_le_bytes())));
    out.message(7, |out| bounds.iter().for_each(|bound| out.extend_from_slice(&bound.to_le_bytes())));
    let said = |name| record.extra()?.metadata.get(name)?.as_f64();
    out.fixed64(11, said(attributes::MIN).unwrap_or(value.min()).to_bits());
    out.fixed64(12, said(attributes::MAX).unwrap_or(value.max()).to_bits());
}
