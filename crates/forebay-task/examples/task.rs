//! Counts the words of some texts with four workers, and shows the one final event.
//!
//! `cargo run -p forebay-task --example task`
#![allow(clippy::print_stdout, reason = "its output is for a person")]

use std::error::Error;
use std::time::Duration;

use forebay::Collector;
use forebay::sink::MemorySink;
use forebay_task::{self as task, CancelToken, ErrorPolicy, Gather, Strategy};

const TEXTS: [&str; 5] = [
    "a forebay is the basin in front of a turbine",
    "it takes the river as it comes",
    "",
    "evens it out",
    "and spills what is too much",
];

fn main() -> Result<(), Box<dyn Error>> {
    let memory = MemorySink::new();
    let collector = Collector::builder().sink(memory.clone()).start()?;

    // A source, a strategy, a policy, a handler, what becomes of the results: one pipeline.
    let end = task::from_iter(TEXTS)
        .strategy(Strategy::Parallel { workers: 4, rate_limit: None })
        .on_error(ErrorPolicy::Retry(1))
        .report_to(&collector, "words.counted")
        .try_map(|text| match text.split_whitespace().count() {
            0 => Err("a text without words"),
            words => Ok((words, *text)),
        })
        .gather(Gather::ordered())
        .run()?;
    for (words, text) in &end.results {
        println!("{words:>2} words  {text}");
    }
    println!("{}", end.summary);

    // Endless: results are taken as they come, until it is cancelled.
    let token = CancelToken::new();
    let ticks =
        task::interval(Duration::from_millis(1)).cancel_token(&token).map(|tick| tick * tick).results()?;
    println!("squares: {:?}", ticks.iter().take(3).collect::<Vec<_>>());
    token.cancel();
    println!("then {}", ticks.into_task().wait()?.summary.outcome);

    collector.stop()?;
    for event in memory.events() {
        println!("{event}");
    }
    Ok(())
}
