//! The lines, each measured in several processes: where memory comes to lie is drawn once a process, and may cost a
//! line ten nanoseconds for as long as that lives. What counts is the median process.

use std::error::Error;
use std::fmt;
use std::process::Command;

use crate::duel::{Duel, median};

/// Number of processes that measure.
const PROCESSES: usize = 7;

/// Given to a process that measures, and is not to draw the table.
const SAMPLE: &str = "--sample";

/// Limit that a ratio is held against.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Budget {
    AtMost(f64),
    AtLeast(f64),
    /// None: listed so that nothing is hidden.
    None,
}

impl Budget {
    fn holds(self, value: f64) -> bool {
        match self {
            Budget::AtMost(most) => value <= most,
            Budget::AtLeast(least) => value >= least,
            Budget::None => true,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let number = |prefix| text.strip_prefix(prefix).and_then(|number: &str| number.parse().ok());
        if text == "none" { Some(Self::None) } else { None }
            .or_else(|| number("at most ").map(Self::AtMost))
            .or_else(|| number("at least ").map(Self::AtLeast))
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Budget::AtMost(most) => write!(f, "at most {most}"),
            Budget::AtLeast(least) => write!(f, "at least {least}"),
            Budget::None => write!(f, "none"),
        }
    }
}

/// Measurement of one process. Nanoseconds an event, both 0 where only the value says something.
struct Line {
    what: String,
    ours: f64,
    theirs: f64,
    value: f64,
    budget: Budget,
}

impl Line {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('\t');
        let what = parts.next()?.to_owned();
        let mut number = || parts.next()?.parse().ok();
        let (ours, theirs, value) = (number()?, number()?, number()?);
        Some(Self { what, ours, theirs, value, budget: Budget::parse(parts.next()?)? })
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, ours, theirs, value, budget } = self;
        write!(f, "{what}\t{ours}\t{theirs}\t{value}\t{budget}")
    }
}

/// Table of what a process measures.
pub(crate) struct Table {
    /// Number of turns that both sides of a line take.
    pub(crate) rounds: usize,
    /// True if the run only shows that everything works.
    pub(crate) is_test: bool,
    /// The first process also measures what takes long and draws no memory.
    pub(crate) is_first: bool,
    only: Option<String>,
}

impl Table {
    pub(crate) fn wants(&self, what: &str) -> bool {
        self.only.as_ref().is_none_or(|only| what.contains(only.as_str()))
    }

    pub(crate) fn line(&self, what: &str, ours: f64, theirs: f64, value: f64, budget: Budget) {
        println!("{}", Line { what: what.to_owned(), ours, theirs, value, budget });
    }

    /// Measures one line with two samplers. A budget that says "at least" means throughput: theirs by ours in time.
    pub(crate) fn ratio<E>(
        &self,
        what: &str,
        budget: Budget,
        measure: impl FnOnce(usize) -> Result<Duel, E>,
    ) -> Result<(), E> {
        if self.wants(what) {
            let duel = measure(self.rounds)?;
            let value = match budget {
                Budget::AtMost(_) | Budget::None => duel.ratio,
                Budget::AtLeast(_) => 1.0 / duel.ratio,
            };
            self.line(what, duel.ours, duel.theirs, value, budget);
        }
        Ok(())
    }
}

/// Runs `measure`, in this process if it is set to or for a test, else in several, and draws the table. Whether every
/// budget holds.
pub(crate) fn draw(
    measure: impl FnOnce(&Table) -> Result<(), Box<dyn Error>>,
) -> Result<bool, Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let is_test = args.iter().any(|arg| arg == "--test");
    let only = args.iter().find(|arg| !arg.starts_with("--")).cloned();
    if is_test || args.iter().any(|arg| arg.starts_with(SAMPLE)) {
        let is_first = is_test || args.iter().any(|arg| *arg == format!("{SAMPLE}=0"));
        let rounds = if is_test { 1 } else { 31 };
        measure(&Table { rounds, is_test, is_first, only })?;
        return Ok(true);
    }
    let mut samples: Vec<Vec<Line>> = Vec::new();
    for process in 0..PROCESSES {
        let mut command = Command::new(std::env::current_exe()?);
        let output = command.arg(format!("{SAMPLE}={process}")).args(&only).output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        for line in String::from_utf8(output.stdout)?.lines().filter_map(Line::parse) {
            match samples.iter_mut().find(|samples| samples[0].what == line.what) {
                Some(samples) => samples.push(line),
                None => samples.push(vec![line]),
            }
        }
    }
    println!(
        "{:<58} {:>9} {:>9} {:>7} {:>15}  {:<13}",
        format!("an event, median of {PROCESSES} processes"),
        "forebay",
        "other",
        "ratio",
        "(from, to)",
        "budget"
    );
    let mut missed = 0;
    for lines in &samples {
        let of = |part: fn(&Line) -> f64| lines.iter().map(part).collect::<Vec<f64>>();
        let (ours, theirs, value) =
            (median(of(|line| line.ours)), median(of(|line| line.theirs)), median(of(|line| line.value)));
        let least = of(|line| line.value).into_iter().fold(f64::INFINITY, f64::min);
        let most = of(|line| line.value).into_iter().fold(0.0, f64::max);
        let Line { what, budget, .. } = &lines[0];
        let verdict = match budget {
            Budget::None => "",
            _ if budget.holds(value) => "holds",
            _ => "MISSED",
        };
        missed += usize::from(!budget.holds(value));
        let nanos = |nanos: f64| if nanos > 0.0 { format!("{nanos:.1} ns") } else { String::new() };
        println!(
            "{what:<58} {:>9} {:>9} {value:>7.2} {:>15}  {:<13} {verdict}",
            nanos(ours),
            nanos(theirs),
            format!("({least:.2}, {most:.2})"),
            budget.to_string()
        );
    }
    if missed > 0 {
        println!("{missed} missed");
    }
    Ok(missed == 0)
}
