//! `Stats::to_prometheus`: statistics in the format of Prometheus.

use std::fmt::{self, Write};

use super::Stats;

/// Writer of one metric of the export.
struct Family<'a> {
    out: &'a mut String,
    name: &'static str,
    /// The collector's name; empty for no label.
    collector: &'a str,
}

/// Export of the numbers of one collector.
struct Export<'a> {
    out: &'a mut String,
    collector: &'a str,
}

impl Export<'_> {
    fn begin(&mut self, name: &'static str, kind: &str, help: &str) -> Result<Family<'_>, fmt::Error> {
        writeln!(self.out, "# HELP {name} {help}")?;
        writeln!(self.out, "# TYPE {name} {kind}")?;
        Ok(Family { out: self.out, name, collector: self.collector })
    }
}

impl Family<'_> {
    fn value(&mut self, labels: &[(&str, &str)], value: impl fmt::Display) -> fmt::Result {
        self.out.push_str(self.name);
        let collector = Some(("collector", self.collector)).filter(|(_, name)| !name.is_empty());
        let mut end = "";
        for (label, text) in collector.iter().chain(labels) {
            let before = if end.is_empty() { '{' } else { ',' };
            end = "}";
            write!(self.out, "{before}{label}=\"")?;
            for letter in text.chars() {
                match letter {
                    '\\' => self.out.push_str("\\\\"),
                    '"' => self.out.push_str("\\\""),
                    '\n' => self.out.push_str("\\n"),
                    other => self.out.push(other),
                }
            }
            self.out.push('"');
        }
        writeln!(self.out, "{end} {value}")
    }
}

impl Stats {
    /// Writes these statistics in the [text format of Prometheus][format] (version 0.0.4), to be served at `/metrics`. Times
    /// are in seconds.
    ///
    /// Every value has the label `collector` with the given name, so that several collectors of a program, or of a job, stay
    /// apart. An empty name leaves the label out.
    ///
    /// ```
    /// use forebay::Collector;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let collector = Collector::builder().start()?;
    /// let text = collector.stats().to_prometheus("trainer");
    /// assert!(text.contains("forebay_batches_total{collector=\"trainer\"} 0\n"));
    /// # collector.stop()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// | name | type | labels |
    /// |---|---|---|
    /// | `forebay_events_total` | counter | `fate`: filtered, sampled_out, rate_limited, oversize, rejected_full, rejected_stopped, rejected_worker_gone, rejected_forked, evicted, processed |
    /// | `forebay_pending_events`, `forebay_pending_bytes` | gauge | |
    /// | `forebay_batches_total`, `forebay_flushes_total`, `forebay_wakes_total`, `forebay_waits_total` | counter | |
    /// | `forebay_events_per_second` | gauge | |
    /// | `forebay_latency_seconds` | summary, without a sum | `quantile`: 0.5, 0.95, 0.99; of the last one to two minutes |
    /// | `forebay_sink_events_total` | counter | `sink`; `fate`: delivered, failed, dead_lettered, evicted, rejected |
    /// | `forebay_sink_errors_total`, `forebay_sink_panics_total`, `forebay_sink_retries_total`, `forebay_sink_write_seconds_total` | counter | `sink` |
    /// | `forebay_sink_in_flight_events`, `forebay_sink_dead_letters` | gauge | `sink` |
    ///
    /// [format]: https://prometheus.io/docs/instrumenting/exposition_formats/
    pub fn to_prometheus(&self, collector: &str) -> String {
        let mut out = String::new();
        // Writing into a text cannot fail.
        _ = self.export(&mut Export { out: &mut out, collector });
        out
    }

    fn export(&self, out: &mut Export<'_>) -> fmt::Result {
        let mut events = out.begin("forebay_events_total", "counter", "Events by what became of them.")?;
        for (fate, number) in self.fates() {
            events.value(&[("fate", fate)], number)?;
        }
        let numbers = [
            ("forebay_pending_events", "gauge", "Events that are queued or with the worker.", self.pending),
            ("forebay_pending_bytes", "gauge", "Bytes that they own.", self.pending_bytes),
            ("forebay_batches_total", "counter", "Batches put together.", self.batches),
            ("forebay_flushes_total", "counter", "Flushes done.", self.flushes),
            ("forebay_wakes_total", "counter", "Times that a producer woke the worker.", self.wakes),
            ("forebay_waits_total", "counter", "Waits of producers for space.", self.waits),
        ];
        for (name, kind, help, number) in numbers {
            out.begin(name, kind, help)?.value(&[], number)?;
        }
        let help = "Events a second that all sinks have seen.";
        out.begin("forebay_events_per_second", "gauge", help)?.value(&[], self.rate)?;
        let help = "From the collection of an event until all sinks had seen it.";
        let mut latency = out.begin("forebay_latency_seconds", "summary", help)?;
        let latency_stats = &self.latency;
        for (quantile, time) in
            [("0.5", latency_stats.p50), ("0.95", latency_stats.p95), ("0.99", latency_stats.p99)]
        {
            latency.value(&[("quantile", quantile)], time.as_secs_f64())?;
        }
        self.export_sinks(out)
    }

    fn export_sinks(&self, out: &mut Export<'_>) -> fmt::Result {
        let help = "Events offered to a sink, by what became of them.";
        let mut events = out.begin("forebay_sink_events_total", "counter", help)?;
        for sink in &self.sinks {
            for (fate, number) in sink.fates() {
                events.value(&[("sink", &sink.name), ("fate", fate)], number)?;
            }
        }
        let numbers = [
            ("forebay_sink_errors_total", "counter", "Calls that failed."),
            ("forebay_sink_panics_total", "counter", "Calls that panicked."),
            ("forebay_sink_retries_total", "counter", "Batches tried again."),
            ("forebay_sink_in_flight_events", "gauge", "Events that it is busy with."),
            ("forebay_sink_dead_letters", "gauge", "Dead letters that wait."),
        ];
        for (place, (name, kind, help)) in numbers.into_iter().enumerate() {
            let mut family = out.begin(name, kind, help)?;
            for sink in &self.sinks {
                let of = [sink.errors, sink.panics, sink.retries, sink.in_flight, sink.dead_letters];
                family.value(&[("sink", &sink.name)], of[place])?;
            }
        }
        let help = "Time spent in writes.";
        let mut time = out.begin("forebay_sink_write_seconds_total", "counter", help)?;
        for sink in &self.sinks {
            time.value(&[("sink", &sink.name)], sink.write_time.as_secs_f64())?;
        }
        Ok(())
    }
}
