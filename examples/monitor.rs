//! Watches a run from outside, live: rates, last values, and whether it is well. It reads the files of the run alone, as they
//! grow: another process, that costs the run nothing.
//!
//! `cargo run --release -p train_digits -- --out runs/1` in one terminal, and in another:
//! `cargo run --release --example monitor -- runs/1` (`--once` for a single look, without colours).
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "that is what it is for")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use forebay::{Record, Value};
use forebay_history::{JsonLinesHistory, RunStatus, runs};

/// Follows a file of JSON Lines from its beginning, through its rotation.
struct Follower {
    path: PathBuf,
    file: Option<File>,
    offset: u64,
    /// A line whose end was not written yet.
    rest: Vec<u8>,
}

impl Follower {
    /// Reads the records that came since the last call, at most so many bytes of them.
    fn read(&mut self, most: u64) -> io::Result<Vec<Record>> {
        let length = std::fs::metadata(&self.path).map_or(0, |data| data.len());
        if self.file.is_none() || length < self.offset {
            // Not there yet, or begun anew.
            let Ok(file) = File::open(&self.path) else { return Ok(Vec::new()) };
            (self.file, self.offset) = (Some(file), 0);
            self.rest.clear();
        }
        let Some(file) = &mut self.file else { return Ok(Vec::new()) };
        file.seek(SeekFrom::Start(self.offset))?;
        self.offset += file.take(most).read_to_end(&mut self.rest)? as u64;
        let whole = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines: Vec<u8> = self.rest.drain(..whole).collect();
        let records = lines.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
        Ok(records.collect())
    }
}

/// Line of the table: what is known of the events of one name.
#[derive(Default)]
struct Line {
    events: u64,
    /// Number of events at the last look.
    before: u64,
    last: String,
    step: Option<u64>,
    /// The last numbers, to be drawn.
    numbers: Vec<f64>,
}

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

fn drawn(numbers: &[f64]) -> String {
    let finite = || numbers.iter().copied().filter(|number| number.is_finite());
    let (low, high) = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
    let bar = |number: f64| {
        let part = if high > low { (number - low) / (high - low) } else { 0.5 };
        BARS[((part * 7.0).round() as usize).min(7)]
    };
    numbers.iter().map(|number| if number.is_finite() { bar(*number) } else { '?' }).collect()
}

#[derive(Default)]
struct View {
    lines: BTreeMap<String, Line>,
    events: u64,
    missing: u64,
    newest: Option<SystemTime>,
}

impl View {
    fn take(&mut self, record: Record) {
        self.events += 1;
        self.newest = self.newest.max(Some(record.time()));
        if record.name() == "forebay.gap" {
            self.missing += record.value().as_i64().map_or(0, |events| events as u64);
        }
        let line = self.lines.entry(record.name().to_owned()).or_default();
        line.events += 1;
        line.step = record.step().or(line.step);
        if let Some(number) = record.value().as_f64() {
            line.numbers.push(number);
            // The newest hundred thousand, to bound what is held.
            if line.numbers.len() > 100_000 {
                line.numbers.drain(..50_000);
            }
        }
        line.last = match record.value() {
            Value::Scalar(number) => format!("{number:.5}"),
            value => value.to_string().chars().take(34).collect(),
        };
    }

    fn show(&mut self, run: &str, elapsed: f64) {
        let since =
            self.newest.and_then(|newest| newest.elapsed().ok()).map_or(f64::NAN, |age| age.as_secs_f64());
        println!("{run}   {} events, {} missing, the last {since:.1} s ago", self.events, self.missing);
        println!("{:<28} {:>9} {:>9} {:>7}  {:<34} ", "name", "events", "events/s", "step", "last");
        for (name, line) in &mut self.lines {
            let rate = (line.events - line.before) as f64 / elapsed;
            line.before = line.events;
            let step = line.step.map_or_else(String::new, |step| step.to_string());
            let tail = &line.numbers[line.numbers.len().saturating_sub(24)..];
            println!(
                "{name:<28.28} {:>9} {rate:>9.0} {step:>7}  {:<34} {}",
                line.events,
                line.last,
                drawn(tail)
            );
        }
    }
}

/// Returns the last run that the files tell of, in words.
fn run_of(path: &Path) -> String {
    let found = runs(&JsonLinesHistory::new(path)).ok().and_then(|mut runs| runs.pop());
    let Some(run) = found else { return "no run yet".to_owned() };
    let status = match run.status(SystemTime::now()) {
        RunStatus::Running => "is running",
        RunStatus::Finished => "has finished",
        RunStatus::Failed => "has failed",
        RunStatus::Preempted => "was preempted",
        RunStatus::Vanished => "has vanished: three heartbeats are missing",
        RunStatus::Unclear => "was last heard of in the future: a clock was set back",
        _ => "is in a state that is new",
    };
    let name = run.name.map_or_else(String::new, |name| format!("{name} "));
    format!("run {name}{} (generation {}) {status}", run.run_id, run.generation)
}

const USAGE: &str = "usage: monitor FOLDER [--once], where FOLDER is that of a run, with its events.jsonl";

/// Arguments of the command line.
struct Asked {
    folder: PathBuf,
    is_once: bool,
}

/// Reads the command line. The error is one line for a person.
fn asked(args: impl Iterator<Item = OsString>) -> Result<Asked, String> {
    let (mut folder, mut is_once) = (None, false);
    for arg in args {
        if arg == "--once" {
            is_once = true;
        } else if arg.to_string_lossy().starts_with('-') {
            return Err(format!("unknown option {arg:?}, {USAGE}"));
        } else if folder.replace(PathBuf::from(arg)).is_some() {
            return Err(format!("FOLDER must be one folder, {USAGE}"));
        }
    }
    let folder = folder.ok_or(USAGE)?;
    match std::fs::metadata(&folder) {
        Ok(data) if data.is_dir() => Ok(Asked { folder, is_once }),
        Ok(_) => Err(format!("FOLDER must be a folder, got the file {folder:?}")),
        Err(error) => Err(format!("cannot look into the folder {folder:?}: {error}")),
    }
}

fn main() -> ExitCode {
    if std::env::args_os().skip(1).any(|arg| arg == "--help" || arg == "-h") {
        println!("{USAGE}");
        return ExitCode::from(2);
    }
    let asked = match asked(std::env::args_os().skip(1)) {
        Ok(asked) => asked,
        Err(error) => {
            eprintln!("monitor: {error}");
            return ExitCode::from(2);
        }
    };
    match watch(&asked) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("monitor: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Shows the run, once or for ever.
fn watch(asked: &Asked) -> io::Result<()> {
    let path = asked.folder.join("events.jsonl");
    let mut follower = Follower { path: path.clone(), file: None, offset: 0, rest: Vec::new() };
    let (mut view, mut run, mut looks) = (View::default(), String::new(), 0_u64);
    let mut before = Instant::now();
    loop {
        loop {
            let records = follower.read(8 << 20)?;
            if records.is_empty() {
                break;
            }
            records.into_iter().for_each(|record| view.take(record));
        }
        // The whole file is read for that: not with every look.
        if looks.is_multiple_of(5) {
            run = run_of(&path);
        }
        looks += 1;
        if !asked.is_once {
            print!("\x1b[2J\x1b[H");
        }
        view.show(&run, before.elapsed().as_secs_f64().max(0.001));
        if asked.is_once {
            return Ok(());
        }
        before = Instant::now();
        sleep(Duration::from_secs(1));
    }
}
