//! The loop, what it collects, and what collecting costs it.

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use forebay::catalog::training;
use forebay::sink::JsonLinesSink;
use forebay::{Collector, Fields, Histogram, Record};
use hdrhistogram::Histogram as Latencies;
use indicatif::{ProgressBar, ProgressStyle};

use crate::data::{Digit, Digits, Random};
use crate::net::Net;
use crate::options::Options;

/// How many pairs of epochs the overhead is measured with.
const PAIRS: usize = 40;

/// How a training ended.
pub(crate) enum End {
    Completed,
    Interrupted,
    Failed(String),
}

/// What came of a training.
pub(crate) struct Trained {
    pub(crate) end: End,
    pub(crate) epochs: u64,
    pub(crate) accuracy: f64,
    pub(crate) elapsed: Duration,
}

/// Hands events to a collector and takes the time of every call.
pub(crate) struct Observer {
    collector: Option<Collector>,
    offered: u64,
    latencies: Latencies<u64>,
    clock_cost: u64,
}

impl Observer {
    /// Collects nothing.
    pub(crate) fn silent() -> Self {
        Self { collector: None, offered: 0, latencies: latencies(), clock_cost: 0 }
    }

    pub(crate) fn new(collector: Collector) -> Self {
        // What reading the clock twice costs when nothing lies between.
        let mut empty = latencies();
        for _ in 0..10_000 {
            let begun = Instant::now();
            empty.saturating_record(begun.elapsed().as_nanos() as u64);
        }
        let clock_cost = empty.value_at_quantile(0.5);
        Self { collector: Some(collector), clock_cost, ..Self::silent() }
    }

    pub(crate) fn offered(&self) -> u64 {
        self.offered
    }

    /// Nanoseconds a call of `collect`, the clock's own median cost taken off.
    pub(crate) fn latencies(&self) -> (&Latencies<u64>, u64) {
        (&self.latencies, self.clock_cost)
    }

    fn collect(&mut self, make: impl FnOnce() -> Record) {
        if let Some(collector) = &self.collector {
            let record = make();
            let begun = Instant::now();
            collector.collect(record);
            let nanos = begun.elapsed().as_nanos() as u64;
            self.latencies.saturating_record(nanos.saturating_sub(self.clock_cost));
            self.offered += 1;
        }
    }
}

/// Up to ten seconds, to three digits.
fn latencies() -> Latencies<u64> {
    #[allow(clippy::expect_used, reason = "these bounds are allowed")]
    Latencies::new_with_bounds(1, 10_000_000_000, 3).expect("allowed bounds")
}

/// Trains a network, and tells the observer everything.
pub(crate) fn train(
    options: &Options,
    digits: &Digits,
    interrupted: &AtomicBool,
    observer: &mut Observer,
) -> Result<Trained, Box<dyn Error>> {
    let begun = Instant::now();
    let bar = progress_bar(options.epochs)?;
    let mut net = Net::new(options.seed);
    let mut order: Vec<usize> = (0..digits.train.len()).collect();
    let mut random = Random::new(options.seed);
    let mut trained = Trained {
        end: End::Completed,
        epochs: 0,
        accuracy: net.examine(&digits.test).0,
        elapsed: Duration::ZERO,
    };
    let mut step = 0;
    let mut best_loss = f64::INFINITY;
    observer.collect(|| started(options, begun).into());
    for epoch in 1..=options.epochs {
        let epoch_begun = Instant::now();
        observer.collect(|| training::EpochStarted { epoch, total_epochs: options.epochs }.into());
        random.shuffle(&mut order);
        let end = train_epoch(options, &digits.train, &order, epoch, &mut net, &mut step, |records| {
            records.into_iter().for_each(|record| observer.collect(|| record));
            !interrupted.load(Ordering::Relaxed)
        });
        if !matches!(end, End::Completed) {
            trained.end = end;
            break;
        }
        let (accuracy, loss) = net.examine(&digits.test);
        trained.accuracy = accuracy;
        trained.epochs = epoch;
        if loss < best_loss {
            best_loss = loss;
            observer.collect(|| training::NewBestModel { epoch, loss }.into());
        }
        observer.collect(|| weights("weights.first", &net.first.weights, step));
        observer.collect(|| weights("weights.second", &net.second.weights, step));
        let metrics = Fields::from([("val_loss", loss), ("val_accuracy", accuracy)]);
        let duration = epoch_begun.elapsed();
        observer.collect(|| Record::from(training::EpochCompleted { epoch, metrics, duration }).step(step));
        bar.set_message(format!("{:.1} %", accuracy * 100.0));
        bar.inc(1);
    }
    bar.finish_and_clear();
    trained.elapsed = begun.elapsed();
    observer.collect(|| ended(&trained));
    Ok(trained)
}

/// Goes through the data once. `tell` gets the records of every batch and says whether to go on.
fn train_epoch(
    options: &Options,
    digits: &[Digit],
    order: &[usize],
    epoch: u64,
    net: &mut Net,
    step: &mut u64,
    mut tell: impl FnMut([Record; 4]) -> bool,
) -> End {
    let rate = options.learning_rate / (1.0 + 0.05 * (epoch - 1) as f64);
    for batch in order.chunks(options.batch_size) {
        let now = net.learn(batch.iter().map(|index| &digits[*index]), rate as f32);
        let goes_on = tell([
            Record::scalar("train.loss", now.loss).step(*step),
            Record::scalar("train.accuracy", now.accuracy).step(*step),
            Record::scalar("train.learning_rate", rate).step(*step),
            Record::scalar("train.gradient_norm", now.gradient_norm).step(*step),
        ]);
        if !now.loss.is_finite() {
            return End::Failed(format!("the loss is {} at step {step}", now.loss));
        }
        if !goes_on {
            return End::Interrupted;
        }
        *step += 1;
    }
    End::Completed
}

/// The overhead of collecting, as a ratio above 1: epochs with and without, in turn and from the same
/// weights, the median of the ratios of pairs. `None` when it was interrupted.
pub(crate) fn overhead(
    options: &Options,
    digits: &Digits,
    interrupted: &AtomicBool,
) -> Result<Option<f64>, Box<dyn Error>> {
    let path = options.out.join("overhead.jsonl");
    let collector =
        Collector::builder().overflow(options.overflow).sink(JsonLinesSink::create(&path)?).start()?;
    let order: Vec<usize> = (0..digits.train.len()).collect();
    let net = Net::new(options.seed);
    let epoch = |collect: &mut dyn FnMut([Record; 4])| {
        let (mut net, mut step) = (net.clone(), 0);
        let begun = Instant::now();
        train_epoch(options, &digits.train, &order, 1, &mut net, &mut step, |records| {
            collect(records);
            true
        });
        begun.elapsed().as_secs_f64()
    };
    let mut ratios = Vec::with_capacity(PAIRS);
    for pair in 0..PAIRS {
        let with = || {
            epoch(&mut |records| {
                records.into_iter().for_each(|record| _ = collector.collect(record));
            })
        };
        // Also without it the records are made, and the clock is read for them: that is the caller's part.
        let without = || epoch(&mut |records| drop(std::hint::black_box(records)));
        // Whoever comes second finds warmer caches, so they take turns at that too.
        ratios.push(if pair % 2 == 0 {
            let first = with();
            first / without()
        } else {
            let first = without();
            with() / first
        });
        if interrupted.load(Ordering::Relaxed) {
            break;
        }
    }
    collector.stop()?;
    std::fs::remove_file(path)?;
    ratios.sort_by(f64::total_cmp);
    Ok((ratios.len() == PAIRS).then(|| ratios[PAIRS / 2]))
}

fn started(options: &Options, begun: Instant) -> training::Started {
    let config = Fields::new()
        .with("epochs", options.epochs)
        .with("batch_size", options.batch_size)
        .with("learning_rate", options.learning_rate)
        .with("seed", options.seed)
        .with("preparation", begun.elapsed());
    let run_id = format!("digits-{}", options.seed);
    training::Started { run_id, config, model_type: Some("mlp 64-64-10".to_owned()) }
}

fn ended(trained: &Trained) -> Record {
    match &trained.end {
        End::Completed => {
            let final_metrics = Fields::from([("val_accuracy", trained.accuracy)]);
            training::Completed { final_metrics, total_duration: trained.elapsed }.into()
        }
        End::Interrupted => {
            training::EarlyStopped { epoch: trained.epochs, reason: "interrupted".to_owned() }.into()
        }
        End::Failed(error) => {
            let epoch = Some(trained.epochs + 1);
            training::Failed { error: error.clone(), traceback: None, epoch }.into()
        }
    }
}

fn weights<const IN: usize>(name: &'static str, rows: &[[f32; IN]], step: u64) -> Record {
    Record::histogram(name, Histogram::from_values(rows.as_flattened(), 30)).step(step)
}

/// A bar where there is a terminal; indicatif shows nothing elsewhere.
fn progress_bar(epochs: u64) -> Result<ProgressBar, Box<dyn Error>> {
    let style =
        ProgressStyle::with_template("training {bar:40} {pos}/{len} epochs, {msg} right, {eta} left")?;
    Ok(ProgressBar::new(epochs).with_style(style))
}
