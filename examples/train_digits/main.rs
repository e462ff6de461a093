//! Trains a small neural network on real handwritten digits and collects every batch of it.
//!
//! `cargo run --release --example train_digits -- --help` tells the options.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks to a person")]

mod data;
mod net;
mod options;
mod report;
mod train;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use forebay::Collector;
use forebay::sink::{JsonLinesSink, MemorySink};

use options::{Asked, Options};
use report::Report;
use train::{End, Observer};

fn main() -> ExitCode {
    match options::parse(std::env::args_os()) {
        Ok(Asked::Help) => {
            println!("{}", options::HELP);
            ExitCode::SUCCESS
        }
        Ok(Asked::Run(options)) => run(&options).unwrap_or_else(|error| {
            eprintln!("train_digits: {error}");
            ExitCode::FAILURE
        }),
        Err(error) => {
            eprintln!("train_digits: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    ctrlc::set_handler({
        let interrupted = Arc::clone(&interrupted);
        move || interrupted.store(true, Ordering::Relaxed)
    })?;
    let digits = data::load(options.seed)?;
    if !options.collect {
        let trained = train::train(options, &digits, &interrupted, &mut Observer::silent())?;
        println!("{}", report::accuracy_line(&trained, digits.test.len()));
        return Ok(exit_code(&trained.end));
    }

    let path = options.out.join("events.jsonl");
    let recent = MemorySink::new().keep_last(1000).named("last 1,000");
    let builder = Collector::builder()
        .overflow(options.overflow)
        .sink(JsonLinesSink::create(&path)?)
        .sink(recent.clone());
    #[cfg(feature = "tensorboard")]
    let builder = builder.sink(forebay::sink::TensorBoardSink::create(&options.out)?);
    let collector = builder.start()?;
    let mut observer = Observer::new(collector.clone());
    let trained = train::train(options, &digits, &interrupted, &mut observer)?;
    let stopped = collector.stop()?;
    stopped.stats.check_law(observer.offered())?;

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

fn exit_code(end: &End) -> ExitCode {
    match end {
        End::Completed => ExitCode::SUCCESS,
        End::Failed(_) => ExitCode::FAILURE,
        // As shells tell a program that Ctrl-C has ended.
        End::Interrupted => ExitCode::from(130),
    }
}
