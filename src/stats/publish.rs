//! Statistics for the `metrics` facade.

use metrics::{counter, gauge};

use super::Stats;

impl Stats {
    /// Publishes these statistics, which are forebay's own, to the recorder of the [`metrics`] crate, under the names of
    /// `Stats::to_prometheus`. The time in writes is a gauge here, because counters of the facade are whole numbers.
    /// With several collectors in one process, each needs its own recorder or prefix. Without a recorder nothing
    /// happens. Call it every few seconds. (The crate `forebay-metrics` goes the other way: it is a recorder, and makes events of what a
    /// program counts.)
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let collector = forebay::Collector::builder().start()?;
    /// collector.stats().publish();
    /// # Ok(())
    /// # }
    /// ```
    pub fn publish(&self) {
        for (fate, number) in self.fates() {
            counter!("forebay_events_total", "fate" => fate).absolute(number);
        }
        gauge!("forebay_pending_events").set(self.pending as f64);
        gauge!("forebay_pending_bytes").set(self.pending_bytes as f64);
        counter!("forebay_batches_total").absolute(self.batches);
        counter!("forebay_flushes_total").absolute(self.flushes);
        counter!("forebay_wakes_total").absolute(self.wakes);
        counter!("forebay_waits_total").absolute(self.waits);
        gauge!("forebay_events_per_second").set(self.rate);
        let latency_stats = &self.latency;
        for (quantile, time) in
            [("0.5", latency_stats.p50), ("0.95", latency_stats.p95), ("0.99", latency_stats.p99)]
        {
            gauge!("forebay_latency_seconds", "quantile" => quantile).set(time.as_secs_f64());
        }
        for sink in &self.sinks {
            let name = || sink.name.clone();
            for (fate, number) in sink.fates() {
                counter!("forebay_sink_events_total", "sink" => name(), "fate" => fate).absolute(number);
            }
            counter!("forebay_sink_errors_total", "sink" => name()).absolute(sink.errors);
            counter!("forebay_sink_panics_total", "sink" => name()).absolute(sink.panics);
            counter!("forebay_sink_retries_total", "sink" => name()).absolute(sink.retries);
            gauge!("forebay_sink_in_flight_events", "sink" => name()).set(sink.in_flight as f64);
            gauge!("forebay_sink_dead_letters", "sink" => name()).set(sink.dead_letters as f64);
            gauge!("forebay_sink_write_seconds_total", "sink" => name()).set(sink.write_time.as_secs_f64());
        }
    }
}
