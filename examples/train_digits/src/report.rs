//! Report that a person reads at the end.

use std::fmt;
use std::path::Path;

use forebay::stats::StopReport;
use hdrhistogram::Histogram;

use crate::train::{End, Trained};

pub(crate) struct Report<'a> {
    pub(crate) trained: &'a Trained,
    pub(crate) test_images: usize,
    pub(crate) stopped: &'a StopReport,
    /// Nanoseconds a call, and what the clock costs by itself.
    pub(crate) latencies: (&'a Histogram<u64>, u64),
    /// Overhead as a ratio above 1.
    pub(crate) overhead: Option<f64>,
    pub(crate) path: &'a Path,
}

/// Returns the accuracy, in one line.
pub(crate) fn accuracy_line(trained: &Trained, test_images: usize) -> String {
    let (right, seconds) = (trained.accuracy * 100.0, trained.elapsed.as_secs_f64());
    let how = match &trained.end {
        End::Completed => String::new(),
        End::Interrupted => " (interrupted)".to_owned(),
        End::Failed(error) => format!(" (failed: {error})"),
    };
    let epochs = trained.epochs;
    format!("{right:.1} % of {test_images} unseen digits right after {epochs} epochs in {seconds:.1} s{how}")
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = &self.stopped.stats;
        writeln!(f, "accuracy    {}", accuracy_line(self.trained, self.test_images))?;
        writeln!(
            f,
            "events      {} offered = {} processed + {} evicted + {} rejected + {} pending",
            grouped(stats.offered),
            grouped(stats.processed),
            grouped(stats.evicted),
            grouped(stats.rejected.total()),
            grouped(stats.pending)
        )?;
        for sink in &stats.sinks {
            write!(
                f,
                "  {:<12}{} delivered, {} failed",
                sink.name,
                grouped(sink.delivered),
                grouped(sink.failed)
            )?;
            match &sink.last_error {
                Some(error) => writeln!(f, ", last error: {error}")?,
                None => writeln!(f)?,
            }
        }
        let (latencies, clock_cost) = self.latencies;
        let at = |quantile| nanos(latencies.value_at_quantile(quantile));
        writeln!(
            f,
            "collect()   p50 {}, p99 {}, p99.9 {}, max {} of {} calls (less the clock's own {clock_cost} ns)",
            at(0.5),
            at(0.99),
            at(0.999),
            nanos(latencies.max()),
            grouped(latencies.len())
        )?;
        if let Some(overhead) = self.overhead {
            let percent = (overhead - 1.0) * 100.0;
            writeln!(
                f,
                "overhead    {percent:+.2} % of the training time (epochs with and without collecting, in turn)"
            )?;
        }
        writeln!(f, "stop        {:.1} ms", self.stopped.elapsed.as_secs_f64() * 1e3)?;
        let size = std::fs::metadata(self.path).map_or(0, |data| data.len());
        write!(f, "file        {} ({} KiB)", self.path.display(), grouped(size / 1024))
    }
}

/// Formats a duration in the unit that suits it.
fn nanos(nanos: u64) -> String {
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{:.1} us", nanos as f64 / 1e3),
        _ => format!("{:.1} ms", nanos as f64 / 1e6),
    }
}

/// Formats a number with commas.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
