//! Recorder for the [`metrics`] facade: what a program counts, as events of [`forebay`], once an interval.
//!
//! `counter!("requests").increment(1)` adds to an atomic number. Every 10 s, a thread collects one record for each series that has changed.
//! So a counter that is bumped ten million times a second is one event in 10 s. [`Builder`] has an example.
//!
//! | metric | record, once an interval |
//! |---|---|
//! | counter | its name with the total, if that has changed. A counter that nobody has incremented yet is sampled once, as 0 |
//! | gauge | its name with the number, if that has changed |
//! | histogram | its name with a [`Histogram`](forebay::Histogram) of the numbers since the last sample, if there were any. A bin is as wide as an eighth of its lower edge at most. Only bins with numbers are in it, between the smallest and the largest number: two samples have other edges, and to add them up takes a merge of edges. With [`Builder::histogram_bounds`], all samples have the same |
//! | label | metadata of its name; `label.NAME` where the name begins with `metric.` or an earlier label has it |
//! | unit | metadata `metric.unit`, as a code of UCUM: `s`, `By`, `1` |
//! | description | one record `metrics.described`, with the fields `name`, `kind`, `unit` and `description` |
//! | kind | metadata `metric.kind`: `counter`, `gauge` or `histogram` |
//! | begin | metadata `metric.since`, in nanoseconds since 1970: of a counter when it was zero, of a histogram the last sample |
//!
//! `forebay-otlp` sends such records as sums, gauges and histograms. A total that gets lost on the way is made good by the next one, or after an
//! eviction by the next sample.
//!
//! # Not to be confused
//!
//! The feature `metrics` of the crate `forebay` goes the other way: `Stats::publish` gives forebay's *own* statistics to the recorder of the
//! program, whichever that is. This crate *is* a recorder. Both work together: what `publish` gives to this recorder becomes events.
//!
//! # What holds
//!
//! * A call takes no lock, makes no system call, and allocates only when a series is new.
//! * Memory is bounded by [`Builder::max_series`], and by 4 KiB for the name and the labels of a series. A description is cut to 1,024 characters.
//!   Handles for more series do nothing; how often is counted, and is an event of its own.
//! * A sample that the collector does not take is taken again at the next interval, except for histograms. Where the collector has evicted events
//!   since the last sample, which may have been of it, the next one has all counters, gauges and descriptions, changed or not.
//! * A sample has one event for each series that has changed: of 10,000 series, 10,000 events. It fills a quarter of the queue at once, and waits
//!   until that is delivered before it goes on: a second at most in all. Where sinks are slower, events are evicted, or as the collector has it.
//! * In a forked child, nothing hangs and nothing is collected: the collector is the parent's.

// From the bottom up: a module imports only from those that stand before it.
mod sync;

mod cells;
mod registry;

mod recorder;

mod builder;

pub use builder::{Builder, InstallError, Sampler};
pub use recorder::MetricsRecorder;
