//! Trains a small neural network on real handwritten digits and collects every batch of it.
//!
//! `cargo run --release -p train_digits -- --help` tells the options.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks to a person")]

mod checkpoint;
mod data;
mod net;
mod options;
mod ranks;
mod report;
mod train;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use forebay::run::{HEARTBEAT, RunBuilder, TrainingRun};
#[cfg(feature = "redis")]
use forebay::sink::SinkExt;
use forebay::sink::{JsonLinesSink, MemorySink};
use forebay::{Collector, Fields};
use forebay_history::{EventQuery, History, JsonLinesHistory, runs};

use checkpoint::Checkpoint;
use options::{Asked, Options};
use report::Report;
use train::{End, Observer};

fn main() -> ExitCode {
    match options::parse(std::env::args_os()) {
        Ok(Asked::Help) => {
            println!("{}", options::HELP);
            ExitCode::SUCCESS
        }
        Ok(Asked::Run(options)) if options.ranks > 1 => ranks::run(options).unwrap_or_else(|error| {
            eprintln!("train_digits: {error}");
            ExitCode::FAILURE
        }),
        Ok(Asked::Run(options)) => run(options).unwrap_or_else(|error| {
            eprintln!("train_digits: {error}");
            ExitCode::FAILURE
        }),
        Err(error) => {
            eprintln!("train_digits: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(mut options: Options) -> Result<ExitCode, Box<dyn Error>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    ctrlc::set_handler({
        let interrupted = Arc::clone(&interrupted);
        move || interrupted.store(true, Ordering::Relaxed)
    })?;
    let checkpoint = options.resume.then(|| Checkpoint::load(&options.out)).transpose()?;
    if let Some(checkpoint) = &checkpoint {
        checkpoint.set(&mut options);
    }
    if options.collect && options.out.as_os_str().is_empty() {
        options.out = forebay::run::folder("runs")?;
    }
    let options = &options;
    let digits = data::load(options.seed)?;
    if !options.collect {
        let trained = train::train(options, &digits, None, &interrupted, &mut Observer::silent())?;
        println!("{}", report::accuracy_line(&trained, digits.test.len()));
        return Ok(exit_code(&trained.end));
    }

    let path = options.out.join("events.jsonl");
    let recent = MemorySink::new().keep_last(1000).named("last 1,000");
    let builder = Collector::builder()
        .overflow(options.overflow)
        .sink(JsonLinesSink::create(&path)?)
        .sink(recent.clone());
    let builder = builder.sink(match &checkpoint {
        None => forebay::sink::TensorBoardSink::create(&options.out)?,
        Some(checkpoint) => forebay::sink::TensorBoardSink::resume(&options.out, checkpoint.step)?,
    });
    #[cfg(feature = "redis")]
    let builder = match &options.redis {
        None => builder,
        Some(url) => {
            let stream = format!("forebay:digits:{}", forebay::run::Rank::from_env()?.rank);
            let sink = forebay_redis::RedisSink::open(url)?.stream(stream);
            // Where the server is away, batches wait beside the other files.
            builder.sink(sink.spill(options.out.join("redis.spill"))?)
        }
    };
    let history = JsonLinesHistory::open(&path)?;
    let run = begin_run(options, &history, checkpoint.as_ref())?;
    let collector = builder.start()?;
    let run = run.start(&collector)?;
    let (run_id, generation) = (run.run_id().to_owned(), run.generation());
    let mut observer = Observer::new(run);
    let trained = train::train(options, &digits, checkpoint.as_ref(), &interrupted, &mut observer)?;
    observer.end(&trained)?;
    let stopped = collector.stop()?;
    // The heart beats by itself: its events are the ones that nobody here has counted.
    let beats = EventQuery::new().name(HEARTBEAT).run(run_id).generation(generation);
    let beats = history.query(&beats)?.len() as u64;
    stopped.stats.check_law(observer.offered() + beats)?;

    let overhead = match trained.end {
        End::Completed => train::overhead(options, &digits, &interrupted).unwrap_or_else(|error| {
            eprintln!("train_digits: the overhead could not be measured: {error}");
            None
        }),
        End::Interrupted | End::Failed(_) => None,
    };
    let report = Report {
        trained: &trained,
        test_images: digits.test.len(),
        stopped: &stopped,
        latencies: observer.latencies(),
        overhead,
        path: &path,
    };
    println!("{report}");
    if stopped.failed() > 0 {
        return Err(format!("{} events did not reach a sink", stopped.failed()).into());
    }
    Ok(exit_code(&trained.end))
}

/// Begins the run: a new one, or the next generation of the one whose files are there.
fn begin_run(
    options: &Options,
    history: &JsonLinesHistory,
    checkpoint: Option<&Checkpoint>,
) -> Result<RunBuilder, Box<dyn Error>> {
    let config = Fields::new()
        .with("epochs", options.epochs)
        .with("batch_size", options.batch_size)
        .with("learning_rate", options.learning_rate)
        .with("seed", options.seed);
    let run = TrainingRun::builder().name("digits").config(config).model_type("mlp 64-64-10");
    let Some(checkpoint) = checkpoint else {
        return Ok(run);
    };
    let last = runs(history)?.pop().ok_or("the file tells of no run")?;
    if checkpoint.epoch >= options.epochs {
        return Err(format!("{} epochs are done, --epochs must be more", checkpoint.epoch).into());
    }
    Ok(run.resume(&last, checkpoint.step))
}

fn exit_code(end: &End) -> ExitCode {
    match end {
        End::Completed => ExitCode::SUCCESS,
        End::Failed(_) => ExitCode::FAILURE,
        // As shells tell a program that Ctrl-C has ended.
        End::Interrupted => ExitCode::from(130),
    }
}
