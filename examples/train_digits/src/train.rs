//! The loop, what it collects, and what collecting costs it.

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use forebay::event::catalog::training;
use forebay::run::{Epoch, RunError, TrainingRun};
use forebay::sink::JsonLinesSink;
use forebay::{Collector, Fields, Histogram, Record, collector::FlushError};
use hdrhistogram::Histogram as Latencies;
use indicatif::{ProgressBar, ProgressStyle};

use crate::checkpoint::Checkpoint;
use crate::data::{Digit, Digits, Random};
use crate::net::{Net, Step};
use crate::options::Options;

/// Number of pairs of epochs that the overhead is measured with.
const PAIRS: usize = 40;

/// End of a training.
pub(crate) enum End {
    Completed,
    Interrupted,
    Failed(String),
}

/// Result of a training.
pub(crate) struct Trained {
    pub(crate) end: End,
    pub(crate) epochs: u64,
    pub(crate) accuracy: f64,
    pub(crate) elapsed: Duration,
}

/// Tells a run what happens, and takes the time of every call of `collect`.
pub(crate) struct Observer {
    run: Option<TrainingRun>,
    epoch: Option<Epoch>,
    offered: u64,
    latencies: Latencies<u64>,
    clock_cost: u64,
}

impl Observer {
    /// Tells nobody.
    pub(crate) fn silent() -> Self {
        Self { run: None, epoch: None, offered: 0, latencies: latencies(), clock_cost: 0 }
    }

    pub(crate) fn new(run: TrainingRun) -> Self {
        // What reading the clock twice costs when nothing lies between.
        let mut empty = latencies();
        for _ in 0..10_000 {
            let begun = Instant::now();
            empty.saturating_record(begun.elapsed().as_nanos() as u64);
        }
        let clock_cost = empty.value_at_quantile(0.5);
        // Its begin is recorded.
        Self { run: Some(run), clock_cost, offered: 1, ..Self::silent() }
    }

    pub(crate) fn offered(&self) -> u64 {
        self.offered
    }

    /// Nanoseconds a call of `collect`, the clock's own median cost taken off.
    pub(crate) fn latencies(&self) -> (&Latencies<u64>, u64) {
        (&self.latencies, self.clock_cost)
    }

    fn collect(&mut self, make: impl FnOnce() -> Record) {
        if let Some(run) = &self.run {
            let record = make();
            let begun = Instant::now();
            run.collector().collect(record);
            let nanos = begun.elapsed().as_nanos() as u64;
            self.latencies.saturating_record(nanos.saturating_sub(self.clock_cost));
            self.offered += 1;
        }
    }

    fn epoch_started(&mut self, epoch: u64, total: u64) {
        if let Some(run) = &self.run {
            self.epoch = Some(run.epoch(epoch, total));
            self.offered += 1;
        }
    }

    fn epoch_completed(&mut self, metrics: Fields) {
        if let Some(epoch) = self.epoch.take() {
            epoch.completed(metrics);
            self.offered += 1;
        }
    }

    /// Collects what a batch was like.
    fn batch(&mut self, step: u64, now: &Step, rate: f64) {
        if let Some(run) = &self.run {
            run.set_step(step);
        }
        self.collect(|| Record::scalar("train.loss", now.loss).with_step(step));
        self.collect(|| Record::scalar("train.accuracy", now.accuracy).with_step(step));
        self.collect(|| Record::scalar("train.learning_rate", rate).with_step(step));
        self.collect(|| Record::scalar("train.gradient_norm", now.gradient_norm).with_step(step));
    }

    /// Delivers what was collected so far.
    fn flush(&self) -> Result<(), FlushError> {
        self.run.as_ref().map_or(Ok(()), |run| run.collector().flush().map(drop))
    }

    /// Tells how the training ended.
    pub(crate) fn end(&mut self, trained: &Trained) -> Result<(), RunError> {
        // An epoch that was not completed is not recorded, and keeps the collector.
        self.epoch = None;
        let Some(run) = self.run.take() else { return Ok(()) };
        self.offered += 1;
        match &trained.end {
            End::Completed => run.completed([("val_accuracy", trained.accuracy)]),
            // It may be resumed.
            End::Interrupted => run.preempted("interrupted"),
            End::Failed(error) => run.failed(error),
        }
    }
}

/// Returns a histogram of up to ten seconds, to three digits.
fn latencies() -> Latencies<u64> {
    #[allow(clippy::expect_used, reason = "these bounds are allowed")]
    Latencies::new_with_bounds(1, 10_000_000_000, 3).expect("allowed bounds")
}

/// Trains a network, and tells the observer everything. The same whether it was interrupted or not.
pub(crate) fn train(
    options: &Options,
    digits: &Digits,
    from: Option<&Checkpoint>,
    interrupted: &AtomicBool,
    observer: &mut Observer,
) -> Result<Trained, Box<dyn Error>> {
    let begun = Instant::now();
    let bar = progress_bar(options.epochs)?;
    let mut net = from.map_or_else(|| Ok(Net::new(options.seed)), Checkpoint::net)?;
    let (done, mut step, mut best_loss) =
        from.map_or((0, 0, f64::INFINITY), |from| (from.epoch, from.step, from.best_loss()));
    bar.set_position(done);
    let accuracy = net.examine(&digits.test).0;
    let mut trained = Trained { end: End::Completed, epochs: done, accuracy, elapsed: Duration::ZERO };
    for epoch in done + 1..=options.epochs {
        observer.epoch_started(epoch, options.epochs);
        let order = order(options.seed, epoch, digits.train.len());
        let end =
            train_epoch(options, &digits.train, &order, epoch, &mut net, &mut step, |step, now, rate| {
                observer.batch(step, now, rate);
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
        // At the last step that was done: whoever resumes tells the next one again.
        observer.collect(|| weights("weights.first", &net.first.weights, step - 1));
        observer.collect(|| weights("weights.second", &net.second.weights, step - 1));
        observer.epoch_completed(Fields::from([("val_loss", loss), ("val_accuracy", accuracy)]));
        if options.collect {
            // First: were the process killed right after, whoever resumes here would find a hole before it.
            observer.flush()?;
            Checkpoint::of(&net, options, epoch, step, best_loss).save(&options.out)?;
        }
        bar.set_message(format!("{:.1} %", accuracy * 100.0));
        bar.inc(1);
    }
    bar.finish_and_clear();
    trained.elapsed = begun.elapsed();
    Ok(trained)
}

/// Returns the order in which an epoch goes through the data: of its own, so that it is the same after a resume.
fn order(seed: u64, epoch: u64, digits: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..digits).collect();
    Random::new(seed ^ epoch.rotate_left(32)).shuffle(&mut order);
    order
}

/// Goes through the data once. `tell` gets number, outcome and learning rate of every batch, and says whether to go on.
fn train_epoch(
    options: &Options,
    digits: &[Digit],
    order: &[usize],
    epoch: u64,
    net: &mut Net,
    step: &mut u64,
    mut tell: impl FnMut(u64, &Step, f64) -> bool,
) -> End {
    let rate = options.learning_rate / (1.0 + 0.05 * (epoch - 1) as f64);
    for batch in order.chunks(options.batch_size) {
        let now = net.learn(batch.iter().map(|index| &digits[*index]), rate as f32);
        let goes_on = tell(*step, &now, rate);
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

/// Measures the overhead of collecting, as a ratio above 1: epochs with and without, in turn and from the same
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
        train_epoch(options, &digits.train, &order, 1, &mut net, &mut step, |step, now, rate| {
            collect([
                Record::scalar("train.loss", now.loss).with_step(step),
                Record::scalar("train.accuracy", now.accuracy).with_step(step),
                Record::scalar("train.learning_rate", rate).with_step(step),
                Record::scalar("train.gradient_norm", now.gradient_norm).with_step(step),
            ]);
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

fn weights<const IN: usize>(name: &'static str, rows: &[[f32; IN]], step: u64) -> Record {
    Record::histogram(name, Histogram::from_values(rows.as_flattened(), 30)).with_step(step)
}

/// Returns a bar where there is a terminal; indicatif shows nothing elsewhere.
fn progress_bar(epochs: u64) -> Result<ProgressBar, Box<dyn Error>> {
    let style =
        ProgressStyle::with_template("training {bar:40} {pos}/{len} epochs, {msg} right, {eta} left")?;
    Ok(ProgressBar::new(epochs).with_style(style))
}
