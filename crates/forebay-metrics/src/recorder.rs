//! `MetricsRecorder`: the recorder of the facade, and the samples of its series.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;
use forebay::{Collector, Event, Name, Record, Value};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use crate::cells::{Bounds, CounterCell, GaugeCell, HistogramCell, Taken};
use crate::registry::{Bound, Registry};
use crate::sync::{Arc, AtomicBool, AtomicU64, Ordering};

/// Most bytes of a name with its labels, and of a description.
const MAX_SERIES_BYTES: usize = 4 << 10;

/// Part of the queue that a sample fills before it waits until that is delivered.
const BURST: usize = 4;

/// Longest that a sample waits for space in all.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Bounds of histograms, as the program has chosen them.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChosenBounds {
    /// Those of a name.
    pub(crate) by_name: HashMap<String, Bounds>,
    pub(crate) of_others: Option<Bounds>,
}

impl ChosenBounds {
    /// Returns the bounds that are not finite or do not ascend, if any.
    pub(crate) fn wrong(&self) -> Option<&Bounds> {
        let is_right = |bounds: &Bounds| {
            let ascends = bounds.windows(2).all(|two| two.first() < two.last());
            !bounds.is_empty() && ascends && bounds.iter().all(|bound| bound.is_finite())
        };
        self.by_name.values().chain(&self.of_others).find(|bounds| !is_right(bounds))
    }

    fn of(&self, name: &str) -> Option<Bounds> {
        self.by_name.get(name).or(self.of_others.as_ref()).cloned()
    }
}

/// Kind of a metric. A name may be of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Series with its name and labels as records have them, made once.
#[derive(Debug, Default)]
struct Series<C> {
    name: Name,
    labels: Vec<(Name, Value)>,
    cell: C,
}

/// What the facade says of a name.
#[derive(Debug, Default)]
struct Description {
    unit: Option<Unit>,
    text: String,
    is_reported: AtomicBool,
}

/// Everything that a recorder knows.
pub(crate) struct Shared {
    counters: Registry<Key, Series<CounterCell>>,
    gauges: Registry<Key, Series<GaugeCell>>,
    histograms: Registry<Key, Series<HistogramCell>>,
    bounds: ChosenBounds,
    descriptions: Registry<(Kind, KeyName), Description>,
    /// Series of all kinds.
    series: Bound,
    /// Descriptions: as many as there may be series.
    described: Bound,
    refused: Series<CounterCell>,
    /// A sample is being taken. Two at a time could collect the totals of a counter in the wrong order.
    is_sampling: AtomicBool,
    /// Time of the last sample of histograms, in nanoseconds since 1970.
    sampled: AtomicU64,
    /// Time when the counters began at zero.
    begun: i64,
    /// `None` once the sampler has ended: the collector is not kept alive by those who record.
    collector: ArcSwapOption<Handle>,
    /// Number of events that the collector had evicted when the last sample began.
    evicted: AtomicU64,
}

/// Handle of a collector of events of any type.
struct Handle {
    /// Returns whether the collector took the record.
    collect: Box<dyn Fn(Record) -> bool + Send + Sync>,
    /// Returns how many events it has evicted.
    evicted: Box<dyn Fn() -> u64 + Send + Sync>,
    /// Waits until what was collected is delivered, or for that long.
    make_space: Box<dyn Fn(Duration) + Send + Sync>,
    /// Number of records after which space is made.
    burst: u64,
}

/// Recorder for the [`metrics`] facade: it keeps counters, gauges and histograms in atomic numbers, and a [`Sampler`](crate::Sampler)
/// collects them as events once an interval. Made by [`Builder::start`](crate::Builder::start). A clone is the same recorder.
///
/// A call such as `counter!("requests").increment(1)` takes no lock and collects no event. It hashes the key; keep the handle where that is
/// too dear.
#[derive(Clone)]
pub struct MetricsRecorder(Arc<Shared>);

impl MetricsRecorder {
    pub(crate) fn new<E: Event + From<Record>>(
        collector: &Collector<E>,
        max_series: usize,
        bounds: ChosenBounds,
    ) -> Self {
        let begun = Record::new("").unix_nanos();
        let burst = (collector.config().capacity / BURST).max(1) as u64;
        let collector = collector.clone();
        let (asked, flushed) = (collector.clone(), collector.clone());
        let handle = Handle {
            // What went wrong is in the statistics of the collector.
            make_space: Box::new(move |timeout| _ = flushed.flush_timeout(timeout)),
            burst,
            collect: Box::new(move |record| collector.collect(record).is_queued()),
            evicted: Box::new(move || asked.stats().evicted),
        };
        Self(Arc::new(Shared {
            counters: Registry::new(),
            gauges: Registry::new(),
            histograms: Registry::new(),
            bounds,
            descriptions: Registry::new(),
            series: Bound::new(max_series),
            described: Bound::new(max_series),
            refused: Series { name: Name::from_static("forebay.metrics.refused"), ..Series::default() },
            is_sampling: AtomicBool::new(false),
            sampled: AtomicU64::new(begun),
            begun: i64::try_from(begun).unwrap_or(i64::MAX),
            evicted: AtomicU64::new((handle.evicted)()),
            collector: ArcSwapOption::from_pointee(handle),
        }))
    }

    /// Gives the handle of the collector back.
    pub(crate) fn end(&self) {
        // Dropped here, and not by a thread that records: the last handle drains the collector.
        drop(self.0.collector.swap(None));
    }

    /// Returns the number of series: pairs of a kind, a name and labels.
    pub fn series(&self) -> u64 {
        self.0.series.entries()
    }

    /// Returns how often a handle was asked for whose series is one too many. Such a handle does nothing.
    pub fn refused(&self) -> u64 {
        self.0.refused.cell.total()
    }

    /// Collects what has changed since the last sample. Returns the number of records that the collector took: 0 as well where another thread is
    /// just sampling, and once the [`Sampler`](crate::Sampler) has ended.
    ///
    /// Each time that it has filled a quarter of the queue, it waits until that is delivered, for a second at most in all.
    pub fn sample(&self) -> u64 {
        // Acquire and Release: a sample sees what the one before it has marked.
        if self.0.is_sampling.swap(true, Ordering::Acquire) {
            return 0;
        }
        let _guard = IsSampling(&self.0.is_sampling);
        self.0.sample()
    }

    fn register<C>(
        &self,
        key: &Key,
        among: &Registry<Key, Series<C>>,
        cell: impl FnOnce() -> C,
    ) -> Option<Arc<Series<C>>> {
        let bytes = key.labels().map(|label| label.key().len() + label.value().len()).sum::<usize>();
        let make = || {
            let mut labels: Vec<(Name, Value)> = Vec::new();
            for label in key.labels() {
                let mut name = label.key().to_owned();
                // A name that is ours, or that an earlier label has.
                while name.starts_with("metric.") || labels.iter().any(|(other, _)| other.as_str() == name) {
                    name.insert_str(0, "label.");
                }
                labels.push((Name::from(name), label.value().into()));
            }
            Series { name: Name::from(key.name().to_owned()), labels, cell: cell() }
        };
        let is_allowed = key.name().len().saturating_add(bytes) <= MAX_SERIES_BYTES;
        let series = is_allowed.then(|| among.get_or_add(key, &self.0.series, make)).flatten();
        if series.is_none() {
            metrics::CounterFn::increment(&self.0.refused.cell, 1);
        }
        series
    }

    fn describe(&self, kind: Kind, name: KeyName, unit: Option<Unit>, text: &SharedString) {
        if name.as_str().len() > MAX_SERIES_BYTES {
            return;
        }
        let make = || {
            // A sign has four bytes at most.
            let text = text.chars().take(MAX_SERIES_BYTES / 4).collect();
            Description { unit, text, is_reported: AtomicBool::new(false) }
        };
        _ = self.0.descriptions.get_or_add(&(kind, name), &self.0.described, make);
    }
}

/// Mark of a sample that is being taken. It goes also if user code panics, such as the destructor of an event.
struct IsSampling<'a>(&'a AtomicBool);

impl Drop for IsSampling<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Shared {
    fn sample(&self) -> u64 {
        // Whole: a sample may take long.
        let Some(to) = self.collector.load_full() else { return 0 };
        // What was evicted may have been a sample. It is made good by one of everything.
        let evicted = (to.evicted)();
        let is_whole = self.evicted.swap(evicted, Ordering::Relaxed) != evicted;
        // The time of all records: the next sample begins where this one ends.
        let now = Record::new("").unix_nanos();
        let mut taken = 0;
        let begun = Instant::now();
        let mut collect = |record| {
            let is_taken = (to.collect)(record);
            taken += u64::from(is_taken);
            if is_taken && taken % to.burst == 0 {
                let left = MAX_WAIT.saturating_sub(begun.elapsed());
                if !left.is_zero() {
                    (to.make_space)(left);
                }
            }
            is_taken
        };
        self.descriptions.for_each(|(kind, name), description| {
            if is_whole || !description.is_reported.load(Ordering::Relaxed) {
                let mut record = Record::new("metrics.described").with_field("name", name.as_str());
                record = record
                    .with_field("kind", kind.name())
                    .with_field("description", description.text.as_str());
                if let Some(unit) = description.unit {
                    record = record.with_field("unit", ucum(unit));
                }
                description.is_reported.store(collect(record), Ordering::Relaxed);
            }
        });
        let counter = |series: &Series<CounterCell>, collect: &mut dyn FnMut(Record) -> bool| {
            if let Some(total) = series.cell.changed(is_whole) {
                let record = self.record(series, now, Kind::Counter, total.into());
                // What was not taken is sampled again.
                if collect(record.with_metadata("metric.since", self.begun)) {
                    series.cell.mark_sampled(total);
                }
            }
        };
        self.counters.for_each(|_, series| counter(series, &mut collect));
        if self.refused.cell.total() > 0 {
            counter(&self.refused, &mut collect);
        }
        self.gauges.for_each(|_, series| {
            if let Some(bits) = series.cell.changed(is_whole)
                && collect(self.record(series, now, Kind::Gauge, f64::from_bits(bits).into()))
            {
                series.cell.mark_sampled(bits);
            }
        });
        let since = self.sampled.swap(now, Ordering::Relaxed);
        let since = i64::try_from(since).unwrap_or(i64::MAX);
        self.histograms.for_each(|_, series| {
            if let Some(Taken { histogram, extremes }) = series.cell.take() {
                let mut record = self.record(series, now, Kind::Histogram, histogram.into());
                if let Some((min, max)) = extremes {
                    record = record.with_metadata("metric.min", min).with_metadata("metric.max", max);
                }
                _ = collect(record.with_metadata("metric.since", since));
            }
        });
        taken
    }

    /// Makes the record of a series, with a time in nanoseconds since 1970. Its labels are metadata, beside what it is.
    fn record<C>(&self, series: &Series<C>, time: u64, kind: Kind, value: Value) -> Record {
        let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(time);
        let mut record = Record::with_value(series.name.clone(), value).with_time(time);
        for (name, value) in &series.labels {
            record = record.with_metadata(name.clone(), value.clone());
        }
        record = record.with_metadata("metric.kind", kind.name());
        let description = self.descriptions.get(&(kind, KeyName::from(series.name.as_str().to_owned())));
        match description.and_then(|description| description.unit) {
            Some(unit) => record.with_metadata("metric.unit", ucum(unit)),
            None => record,
        }
    }
}

/// Returns the code of a unit in the Unified Code for Units of Measure, which OpenTelemetry uses.
fn ucum(unit: Unit) -> &'static str {
    match unit {
        Unit::Count => "1",
        Unit::Percent => "%",
        Unit::Seconds => "s",
        Unit::Milliseconds => "ms",
        Unit::Microseconds => "us",
        Unit::Nanoseconds => "ns",
        Unit::Tebibytes => "TiBy",
        Unit::Gibibytes => "GiBy",
        Unit::Mebibytes => "MiBy",
        Unit::Kibibytes => "KiBy",
        Unit::Bytes => "By",
        Unit::TerabitsPerSecond => "Tbit/s",
        Unit::GigabitsPerSecond => "Gbit/s",
        Unit::MegabitsPerSecond => "Mbit/s",
        Unit::KilobitsPerSecond => "kbit/s",
        Unit::BitsPerSecond => "bit/s",
        Unit::CountPerSecond => "1/s",
    }
}

impl Recorder for MetricsRecorder {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe(Kind::Counter, name, unit, &text);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe(Kind::Gauge, name, unit, &text);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe(Kind::Histogram, name, unit, &text);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.register(key, &self.0.counters, CounterCell::default)
            .map_or_else(Counter::noop, Counter::from_arc)
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.register(key, &self.0.gauges, GaugeCell::default).map_or_else(Gauge::noop, Gauge::from_arc)
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let cell = || HistogramCell::new(self.0.bounds.of(key.name()));
        self.register(key, &self.0.histograms, cell).map_or_else(Histogram::noop, Histogram::from_arc)
    }
}

impl metrics::CounterFn for Series<CounterCell> {
    fn increment(&self, value: u64) {
        metrics::CounterFn::increment(&self.cell, value);
    }

    fn absolute(&self, value: u64) {
        metrics::CounterFn::absolute(&self.cell, value);
    }
}

impl metrics::GaugeFn for Series<GaugeCell> {
    fn increment(&self, value: f64) {
        metrics::GaugeFn::increment(&self.cell, value);
    }

    fn decrement(&self, value: f64) {
        metrics::GaugeFn::decrement(&self.cell, value);
    }

    fn set(&self, value: f64) {
        metrics::GaugeFn::set(&self.cell, value);
    }
}

impl metrics::HistogramFn for Series<HistogramCell> {
    fn record(&self, value: f64) {
        metrics::HistogramFn::record(&self.cell, value);
    }

    fn record_many(&self, value: f64, count: usize) {
        metrics::HistogramFn::record_many(&self.cell, value, count);
    }
}

impl fmt::Debug for MetricsRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsRecorder")
            .field("series", &self.series())
            .field("refused", &self.refused())
            .finish_non_exhaustive()
    }
}
