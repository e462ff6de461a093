//! Cost of collecting for a training run from end to end: the steps of the digits example at full speed, with 1, 10
//! and 100 events a step, beside the same loop with tracing-appender and with nothing.
//!
//! Both write JSON Lines into a file. forebay is given records and formats them on its worker; tracing-appender is
//! given lines, so the loop formats them. All train in turn, epoch by epoch, from the same weights; each step
//! is timed by itself. `cargo bench --bench overhead` prints the table, `-- --test` runs through it once.
#![allow(clippy::print_stdout, reason = "its output is for a person")]
#![allow(dead_code, reason = "the example uses more of its modules")]

#[path = "../examples/train_digits/src/data.rs"]
mod data;
#[path = "../examples/train_digits/src/net.rs"]
mod net;

use std::error::Error;
use std::hint::black_box;
use std::io::Write;
use std::time::{Duration, Instant};

use forebay::sink::JsonLinesSink;
use forebay::{Collector, FlushStrategy, Record};
use hdrhistogram::Histogram;

use data::Digits;
use net::{Net, Step};

/// Images a step.
const BATCH: usize = 32;

/// Observer of the steps of a loop.
trait Observer {
    fn observe(&mut self, number: u64, step: &Step, events: usize);
}

struct Nobody;

impl Observer for Nobody {
    fn observe(&mut self, _: u64, step: &Step, _: usize) {
        black_box(step.loss);
    }
}

/// The names a loop may have at hand: literals.
const NAMES: [&str; 4] = ["train.loss", "train.accuracy", "train.gradient_norm", "train.rate"];

fn values(step: &Step) -> [f32; 4] {
    [step.loss, step.accuracy, step.gradient_norm, 0.2]
}

struct Forebay(Collector);

impl Observer for Forebay {
    fn observe(&mut self, number: u64, step: &Step, events: usize) {
        let values = values(step);
        for event in 0..events {
            self.0.collect(Record::scalar(NAMES[event % 4], values[event % 4]).with_step(number));
        }
    }
}

struct Appender {
    writer: tracing_appender::non_blocking::NonBlocking,
    line: Vec<u8>,
}

impl Observer for Appender {
    fn observe(&mut self, number: u64, step: &Step, events: usize) {
        let values = values(step);
        for event in 0..events {
            self.line.clear();
            let (name, value) = (NAMES[event % 4], values[event % 4]);
            // Without a time stamp, which the records have. It cannot fail: it writes into memory.
            let _ = writeln!(self.line, r#"{{"name":"{name}","step":{number},"scalar":{value}}}"#);
            let _ = self.writer.write_all(&self.line);
        }
    }
}

fn epoch(digits: &Digits, events: usize, observer: &mut dyn Observer, times: &mut Histogram<u64>) {
    let mut net = Net::new(7);
    for (number, batch) in (0..).zip(digits.train.chunks_exact(BATCH)) {
        let begun = Instant::now();
        let step = net.learn(batch.iter(), 0.2);
        observer.observe(number, &step, events);
        // It grows with what it is given, and cannot fail.
        let _ = times.record(begun.elapsed().as_nanos() as u64);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let epochs = if std::env::args().any(|arg| arg == "--test") { 1 } else { 400 };
    let digits = data::load(7)?;
    let folder = tempfile::tempdir()?;
    println!("| events a step | | step, p50 | p99 | overhead, p50 | p99 |");
    println!("|---|---|---|---|---|---|");
    for events in [1, 10, 100] {
        let sink = JsonLinesSink::create(folder.path().join(format!("forebay-{events}.jsonl")))?;
        let collector = Collector::builder().sink(sink).start()?;
        let sink = JsonLinesSink::create(folder.path().join(format!("seldom-{events}.jsonl")))?;
        let flush = FlushStrategy::Hybrid { events: 2_000, interval: Duration::from_secs(1) };
        let seldom = Collector::builder().flush(flush).sink(sink).start()?;
        let file = std::fs::File::create(folder.path().join(format!("appender-{events}.jsonl")))?;
        let (writer, guard) = tracing_appender::non_blocking(file);
        let mut observers: [(&str, Box<dyn Observer>); 4] = [
            ("nothing", Box::new(Nobody)),
            ("forebay", Box::new(Forebay(collector.clone()))),
            ("forebay, woken every 2,000 events", Box::new(Forebay(seldom.clone()))),
            ("tracing-appender", Box::new(Appender { writer, line: Vec::new() })),
        ];
        let mut times = [Histogram::new(3)?, Histogram::new(3)?, Histogram::new(3)?, Histogram::new(3)?];
        // One more than is counted; who begins takes turns.
        for round in 0..=epochs {
            for turn in 0..4 {
                let who = (round + turn) % 4;
                epoch(&digits, events, &mut *observers[who].1, &mut times[who]);
            }
            if round == 0 {
                times.iter_mut().for_each(Histogram::clear);
            }
        }
        let offered = (epochs as u64 + 1) * (digits.train.len() / BATCH) as u64 * events as u64;
        let mut lost = 0;
        for collector in [collector, seldom] {
            let stats = collector.stop()?.stats;
            stats.check_law(offered)?;
            lost += offered - stats.processed;
        }
        drop(guard);
        let at = |who: usize, quantile| times[who].value_at_quantile(quantile) as f64 / 1e3;
        for (who, (name, _)) in observers.iter().enumerate() {
            let over = |quantile| 100.0 * (at(who, quantile) / at(0, quantile) - 1.0);
            let (p50, p99) = (at(who, 0.5), at(who, 0.99));
            println!(
                "| {events} | {name} | {p50:.1} us | {p99:.1} us | {:+.2} % | {:+.2} % |",
                over(0.5),
                over(0.99)
            );
        }
        if lost > 0 {
            return Err(format!("forebay evicted {lost} events").into());
        }
    }
    Ok(())
}
