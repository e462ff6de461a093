//! Sends events of all kinds where the variables of OpenTelemetry say, for `otlp.py`. Ends with an error if any of them is not delivered.
#![allow(clippy::print_stdout, reason = "that is what it is for")]

use std::error::Error;
use std::time::Duration;

use forebay::sink::{RetryPolicy, SinkExt};
use forebay::{Collector, Fields, Histogram, Image, Priority, Record};
use forebay_otlp::OtlpBuilder;
use metrics::{Unit, counter, describe_counter, gauge, histogram};

fn main() -> Result<(), Box<dyn Error>> {
    let otlp = OtlpBuilder::from_env()?.metrics(true).sums("tokens.*").build()?;
    let retry = RetryPolicy::fixed(Duration::from_millis(20), 500);
    let collector =
        Collector::builder().source("interop").rank(3).session_id("s-1").sink(otlp.retry(retry)).start()?;
    let sampler = forebay_metrics::Builder::new().install(&collector)?;
    describe_counter!("requests", Unit::Count, "that came");
    counter!("requests", "route" => "/").increment(42);
    gauge!("queue").set(2.5);
    (1..=100).for_each(|number| histogram!("latency").record(f64::from(number)));
    sampler.stop();

    for step in 0..1000 {
        collector.collect(Record::scalar("train.loss", 1.0 / (step + 1) as f64).with_step(step));
    }
    collector.collect(Record::integer("tokens.total", i64::MAX).with_step(1));
    collector.collect(Record::scalar("train.nan", f64::NAN));
    let weights = Histogram::from_values(&[0.1, 0.4, -0.2, 0.3], 3);
    collector.collect(Record::histogram("weights", weights).with_step(1));
    collector.collect(Record::text("answer", "It is a **seven** \u{1b}[31m\u{0}\u{1F980}."));
    collector.collect(Record::image("input", Image::gray(2, 2, [0, 80, 160, 240])?));
    collector.collect(Record::boolean("is.done", true));
    let order = Record::new("order.placed")
        .with_field("message", "an order")
        .with_field("items", 3)
        .with_field("nested", Fields::new().with("list", vec![1.5, 2.5]))
        .with_field("level", "warn")
        .with_metadata("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736")
        .with_metadata("span_id", "00f067aa0ba902b7")
        .with_tag("shop")
        .with_priority(Priority::Critical);
    collector.collect(order);
    collector.collect(Record::text("large", "x".repeat(1 << 20)));

    let report = collector.stop()?;
    report.stats.check_law(report.stats.offered)?;
    let sink = report.stats.sink("otlp").ok_or("there is no such sink")?;
    if sink.delivered != sink.offered || sink.errors > sink.retries {
        return Err(format!("{sink:?}").into());
    }
    println!("{} events delivered, {} retries", sink.delivered, sink.retries);
    Ok(())
}
