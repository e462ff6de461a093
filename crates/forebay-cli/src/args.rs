//! Arguments of the command line.

use std::path::PathBuf;

use clap::{Args as Group, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Which run was best, why the other one failed, and what was lost: from the files of runs, also those of TensorBoard.
#[derive(Debug, Parser)]
#[command(name = "forebay", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  forebay runs                        what runs there are in the folder `runs`, and how they ended
  forebay best accuracy --max         which of them was best
  forebay compare runs/a runs/b       how their settings and values differ
  forebay tail -f runs/a              what comes, as it comes
  forebay query runs/a -n 'eval.*'    what it wrote under these names
  forebay merge runs/job              the ranks of a job as one, and who kept the others waiting
  forebay top                         all curves in the terminal, live (h: help, q: end)
  forebay plot loss --log             its curves, in the terminal
  forebay report runs -o report.html  a page to look at, or to send
  forebay serve runs                  the same, live
  forebay doctor runs/a               what is wrong with it, and what to do
  forebay export runs -o runs.csv     its numbers, for a table
  forebay import logs -o runs/logs    a folder of TensorBoard, as runs that all of these read

Exit codes: 0 answered, 1 nothing found or (doctor) something is wrong, 2 wrong arguments or unreadable files.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List runs: status, steps, last values, age, and what was lost.
    Runs(Runs),
    /// Rank runs by the best value of a metric.
    Best(Best),
    /// Compare runs: settings that differ, last and best values.
    Compare(Compare),
    /// Print the events for which conditions hold, or the answer of SQL.
    Query(Query),
    /// Print events in the order in which they were written.
    Tail(Tail),
    /// Reduce the ranks of a job, step by step, and name those that vanished, came late, began again or were slow.
    Merge(Merge),
    /// Show all curves in the terminal, live.
    Top(Top),
    /// Draw one chart, in the terminal or as an image.
    Plot(Plot),
    /// Write a page with all curves, settings and losses: one HTML file that needs no network.
    Report(Report),
    /// Show that page live, to the browsers of this machine.
    Serve(Serve),
    /// Write runs in the form of other programs: CSV, Parquet, JSON Lines, or event files of TensorBoard.
    Export(Export),
    /// Make runs of what other programs wrote: event files of TensorBoard, files of wandb, CSV, JSON.
    Import(Import),
    /// Find what is wrong with runs, and say what to do. Exits with 1 if it finds something.
    Doctor(Doctor),
    /// Print the completions of a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// Runs that are asked for.
#[derive(Debug, Group)]
pub(crate) struct Folders {
    /// Folders of runs, or folders that have such in them; also patterns, and streams, `redis://HOST/STREAM`.
    #[arg(default_value = "runs")]
    pub(crate) paths: Vec<PathBuf>,
}

const RUNS: &str = "\
Examples:
  forebay runs                                those in the folder `runs`
  forebay runs logs 'old/2026-*' -m '*loss*'  of several places, with the last values of these metrics
  forebay runs --json > runs.json             an object for each run, with settings and metrics

Status: running, finished, failed, preempted, vanished (three heartbeats are missing), unclear (its last
sign of life is in the future), or - where the files do not say, as those of TensorBoard.";

#[derive(Debug, Group)]
#[command(after_help = RUNS)]
pub(crate) struct Runs {
    #[command(flatten)]
    pub(crate) folders: Folders,
    /// Print one JSON object for each run.
    #[arg(long)]
    pub(crate) json: bool,
    /// Show the last values of these metrics (a pattern such as `*loss*`).
    #[arg(long, short, value_name = "PATTERN")]
    pub(crate) metric: Option<String>,
}

const BESTS: &str = "\
Examples:
  forebay best val_loss                   the lowest is best, as of every loss
  forebay best accuracy runs/a runs/b --max
  forebay best val_loss --json | head -1  the best run alone";

#[derive(Debug, Group)]
#[command(after_help = BESTS)]
pub(crate) struct Best {
    /// The name of the metric.
    pub(crate) metric: String,
    #[command(flatten)]
    pub(crate) folders: Folders,
    /// The lowest value is best (the default for names with a word such as loss, error, perplexity, mae or mse).
    #[arg(long, conflicts_with = "max")]
    pub(crate) min: bool,
    /// The highest value is best (the default for all others).
    #[arg(long)]
    pub(crate) max: bool,
    /// Print one JSON object for each run.
    #[arg(long)]
    pub(crate) json: bool,
}

const COMPARISONS: &str = "\
Examples:
  forebay compare runs/a runs/b   settings that differ, how each ended, values, curves
  forebay compare runs -m 'val*'  all runs of a folder, by these metrics";

#[derive(Debug, Group)]
#[command(after_help = COMPARISONS)]
pub(crate) struct Compare {
    /// Folders of runs, or folders that have such in them; also patterns, and streams, `redis://HOST/STREAM`.
    #[arg(default_value = "runs")]
    pub(crate) paths: Vec<PathBuf>,
    /// Compare these metrics alone (a pattern such as `*loss*`).
    #[arg(long, short, value_name = "PATTERN")]
    pub(crate) metric: Option<String>,
    /// Print one JSON object for each run.
    #[arg(long)]
    pub(crate) json: bool,
}

const TAILS: &str = "\
Examples:
  forebay tail -f                            what comes, from the run that was written to last
  forebay tail -n 50 -p 'training.*' runs/a  the last 50 events of these names
  forebay tail --merge -f runs/job           those of all ranks, by time
  forebay tail -n 100 runs/a --json          as JSON Lines";

#[derive(Debug, Group)]
#[command(after_help = TAILS)]
pub(crate) struct Tail {
    /// The folder of a run, or its file of JSON Lines; a stream, `redis://HOST/STREAM` or `nats://HOST/SUBJECT`. `-` is standard input.
    #[arg(default_value = "runs")]
    pub(crate) path: PathBuf,
    /// Wait for more, until Ctrl-C.
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Print the last N events first.
    #[arg(long, short = 'n', default_value_t = 20, value_name = "N")]
    pub(crate) lines: usize,
    /// Print these events alone (a pattern such as `train.*`).
    #[arg(long, short, value_name = "PATTERN")]
    pub(crate) pattern: Option<String>,
    /// Print JSON Lines: the same as --form json.
    #[arg(long, conflicts_with = "form")]
    pub(crate) json: bool,
    /// How to print them.
    #[arg(long, value_enum, default_value_t = Form::Text)]
    pub(crate) form: Form,
    /// Print the events of all runs below the folder, as of the ranks of one job, by time.
    #[arg(long)]
    pub(crate) merge: bool,
}

const QUERIES: &str = "\
Examples:
  forebay query runs/a --last                      the last event of each name
  forebay query runs/a -n loss --per all           its count, mean, lowest and highest value, and where they are
  forebay query runs/a -n '*loss*' --per 100       the same of every 100 steps (--per 10min: of every ten minutes)
  forebay query runs/a --pivot --csv               a row for each step, a column for each name
  forebay query runs/job --merge step              the events of all ranks, in the order of their steps
  forebay query runs/job --merge step --pivot --reduce mean
  forebay query runs/job --stragglers              which rank keeps the others waiting
  zstd -dc old.jsonl.zst | forebay query - -n loss";

#[derive(Debug, Group)]
#[command(after_help = QUERIES)]
pub(crate) struct Query {
    /// A folder of runs, that of one run, or a file; a stream, `redis://HOST/STREAM` or `nats://HOST/SUBJECT`. `-` is standard input.
    #[arg(default_value = "runs")]
    pub(crate) path: PathBuf,
    /// Events of these names (a pattern such as `train.*`).
    #[arg(long, short, value_name = "PATTERN")]
    pub(crate) name: Option<String>,
    /// Events of these steps: FIRST..END (without END), FIRST.., ..END, or one.
    #[arg(long, value_name = "STEPS")]
    pub(crate) steps: Option<String>,
    /// Events from this time on: a date, or how long ago (2h).
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Events before this time.
    #[arg(long, value_name = "TIME")]
    pub(crate) before: Option<String>,
    /// Events of this source.
    #[arg(long)]
    pub(crate) source: Option<String>,
    /// Events with this correlation id.
    #[arg(long, value_name = "ID")]
    pub(crate) correlation: Option<String>,
    /// Events of this run, where a file has several.
    #[arg(long, value_name = "ID")]
    pub(crate) run: Option<String>,
    /// Events of this generation.
    #[arg(long, value_name = "N")]
    pub(crate) generation: Option<u64>,
    /// Without the steps that a resumed run has made again.
    #[arg(long)]
    pub(crate) current: bool,
    /// At most so many events: of each run, or with --merge of all together. For a table, it takes --newest.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// The newest first. It takes a --limit.
    #[arg(long, requires = "limit")]
    pub(crate) newest: bool,
    /// The last event of each name.
    #[arg(long, conflicts_with_all = ["per", "pivot"])]
    pub(crate) last: bool,
    /// Count, mean, lowest, highest and last number of each name: of so many steps each (100), of so long (10min), or of `all`.
    #[arg(long, value_name = "WINDOW", conflicts_with = "pivot")]
    pub(crate) per: Option<String>,
    /// A row for each step, and a column for each name.
    #[arg(long)]
    pub(crate) pivot: bool,
    /// What --pivot shows of several numbers of one name and step.
    #[arg(long, value_enum, default_value_t = Reduction::Last, requires = "pivot")]
    pub(crate) reduce: Reduction,
    /// Take all runs as ranks of one job: how far each is behind the first one at the same step, in seconds.
    #[arg(long, conflicts_with_all = ["last", "per", "pivot", "merge", "limit"])]
    pub(crate) stragglers: bool,
    /// Take all runs as ranks of one job: merge their events in this order, and make one table of them.
    #[arg(long, value_enum, value_name = "ORDER", conflicts_with = "newest")]
    pub(crate) merge: Option<Order>,
    /// Ask the database of a run in SQL. Nothing can be changed by it.
    #[arg(long, value_name = "SQL", conflicts_with_all = ["name", "steps", "since", "before", "source", "correlation", "run", "generation", "current", "limit", "newest", "last", "per", "pivot", "merge", "stragglers"])]
    pub(crate) sql: Option<String>,
    /// Print a JSON object for each row: the same as --shape json.
    #[arg(long, conflicts_with_all = ["shape", "csv"])]
    pub(crate) json: bool,
    /// Print CSV: the same as --shape csv.
    #[arg(long, conflicts_with = "shape")]
    pub(crate) csv: bool,
    /// How to print the answer.
    #[arg(long, value_enum, default_value_t = Shape::Table)]
    pub(crate) shape: Shape,
}

const MERGES: &str = "\
Examples:
  forebay merge runs/job                             mean, lowest, highest and sum over the ranks, of each step
  forebay merge runs/job -n loss --reduce mean --csv
  forebay merge runs/job --pivot --reduce mean       a row for each step, a column for each name
  forebay merge runs/job --ranks --timer step_time   who was last, how often, and by how much
  forebay merge runs/job --trace job.json            steps and spans, for https://ui.perfetto.dev
  forebay merge -f redis://host/job:0 redis://host/job:1

A step is complete when every rank has begun a later one. Ranks that vanished, came late or began again, and clocks that
are wrong, are named on standard error.";

#[derive(Debug, Group)]
#[command(after_help = MERGES)]
pub(crate) struct Merge {
    /// The ranks: folders of runs, or folders that have such in them; also patterns; streams, `redis://HOST/STREAM`.
    #[arg(default_value = "runs")]
    pub(crate) paths: Vec<PathBuf>,
    /// Numbers of events of these names (a pattern such as `train.*`).
    #[arg(long, short, value_name = "PATTERN")]
    pub(crate) name: Option<String>,
    /// Steps: FIRST..END (without END), FIRST.., ..END, or one.
    #[arg(long, value_name = "STEPS")]
    pub(crate) steps: Option<String>,
    /// Print this alone of the numbers of all ranks.
    #[arg(long, value_enum)]
    pub(crate) reduce: Option<Reduction>,
    /// A row for each step, and a column for each name; the mean unless --reduce says otherwise.
    #[arg(long, conflicts_with = "ranks")]
    pub(crate) pivot: bool,
    /// A row for each rank in the place of the steps: how it stands, and how far it was behind the fastest.
    #[arg(long, conflicts_with = "reduce")]
    pub(crate) ranks: bool,
    /// Take numbers of these names (a pattern) as the seconds that a rank took for a step. By default, that is the time since its step
    /// before, by its own clock.
    #[arg(long, value_name = "PATTERN")]
    pub(crate) timer: Option<String>,
    /// A rank has vanished when it stands still while the others go on by more steps than that: 10, or 100 with --follow.
    #[arg(long, value_name = "STEPS")]
    pub(crate) max_lag: Option<u64>,
    /// Print steps as they are complete, and again where a late or a restarted rank changes them, until all ranks have reported their end.
    #[arg(long, short, conflicts_with_all = ["ranks", "pivot", "trace"])]
    pub(crate) follow: bool,
    /// Write steps and spans of all ranks to a file, for Perfetto or chrome://tracing: what has a duration, and timers (--timer).
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ranks", "pivot", "reduce", "csv", "shape"])]
    pub(crate) trace: Option<PathBuf>,
    /// Print a JSON object for each row: the same as --shape json.
    #[arg(long, conflicts_with_all = ["shape", "csv"])]
    pub(crate) json: bool,
    /// Print CSV: the same as --shape csv.
    #[arg(long, conflicts_with = "shape")]
    pub(crate) csv: bool,
    /// How to print the answer.
    #[arg(long, value_enum, default_value_t = Shape::Table)]
    pub(crate) shape: Shape,
}

/// One of several numbers, or what is made of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reduction {
    Last,
    Mean,
    Min,
    Max,
    Sum,
}

/// Order of the events of several ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    /// By the moment, as the clocks of their machines had it.
    Time,
    /// By generation, and then by step.
    Step,
}

/// Shape of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shape {
    /// A table for people.
    Table,
    /// A JSON object for each row.
    Json,
    /// Values that commas part, with a head: RFC 4180.
    Csv,
}

/// Form of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// Lines for people.
    Text,
    /// JSON Lines.
    Json,
}

const TOPS: &str = "\
Examples:
  forebay top                                 all runs of the folder `runs`; h shows the keys
  forebay top -f loss runs/a logs             metrics with these letters in their names
  forebay top redis://host/                   all streams of a server of Redis (feature `redis`)
  forebay top --once --width 100 --height 30  one look, for a log";

#[derive(Debug, Group)]
#[command(after_help = TOPS)]
pub(crate) struct Top {
    #[command(flatten)]
    pub(crate) folders: Folders,
    /// Metrics with these letters in their names.
    #[arg(long, short, value_name = "LETTERS")]
    pub(crate) filter: Option<String>,
    /// Print once what it would show, and end.
    #[arg(long)]
    pub(crate) once: bool,
    /// Print once one JSON object for each run, with its metrics and what its machine did, and end.
    #[arg(long, conflicts_with_all = ["once", "width", "height"])]
    pub(crate) json: bool,
    /// Columns of what is printed once; those of the terminal unless it is given.
    #[arg(long, value_name = "N", requires = "once")]
    pub(crate) width: Option<usize>,
    /// Rows of what is printed once.
    #[arg(long, value_name = "N", requires = "once")]
    pub(crate) height: Option<usize>,
}

const PLOTS: &str = "\
Examples:
  forebay plot val_loss --log        one curve for each run, in the terminal
  forebay plot '*loss*' runs/a --smooth 0.9 --across time
  forebay plot val_loss -o loss.png  an image (or .svg)";

#[derive(Debug, Group)]
#[command(after_help = PLOTS)]
pub(crate) struct Plot {
    /// The name of the metric, or a pattern such as `*loss*`: a curve for each that fits.
    pub(crate) metric: String,
    #[command(flatten)]
    pub(crate) folders: Folders,
    /// Write an image; its name ends in .svg or .png. `-` is standard output, as SVG.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// What the chart has from left to right.
    #[arg(long, value_enum, default_value_t = Across::Step)]
    pub(crate) across: Across,
    /// A logarithmic axis.
    #[arg(long)]
    pub(crate) log: bool,
    /// Smooth the curves, as TensorBoard does: from 0 (not at all) to 0.99.
    #[arg(long, default_value_t = 0.0, value_name = "WEIGHT", value_parser = weight)]
    pub(crate) smooth: f64,
    /// Columns of the terminal; all of them unless it is given.
    #[arg(long, value_name = "N")]
    pub(crate) width: Option<usize>,
    /// Rows of the chart.
    #[arg(long, value_name = "N")]
    pub(crate) height: Option<usize>,
    /// Print one JSON object for each curve, with its points.
    #[arg(long, conflicts_with = "out")]
    pub(crate) json: bool,
}

fn weight(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|weight| (0.0..=0.99).contains(weight))
        .ok_or_else(|| "it must be from 0 to 0.99".to_owned())
}

/// What a chart has from left to right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Across {
    /// Steps.
    Step,
    /// Seconds since the begin of each run.
    Time,
}

const EXPORTS: &str = "\
Examples:
  forebay export runs -o runs.csv                   run, name, step, time and value of each number
  forebay export runs -o runs.parquet -n 'val*'     these metrics alone
  forebay export runs/a --to tensorboard -o logs/a  event files, for TensorBoard
  forebay export runs/a -o - --to json              whole events, to a pipe";

#[derive(Debug, Group)]
#[command(after_help = EXPORTS)]
pub(crate) struct Export {
    #[command(flatten)]
    pub(crate) folders: Folders,
    /// Where to: a file, or for TensorBoard a folder. `-` is standard output.
    #[arg(long, short, value_name = "PATH")]
    pub(crate) out: PathBuf,
    /// In which form; that of the end of the name unless it is given.
    #[arg(long, value_enum)]
    pub(crate) to: Option<To>,
    /// Events of these names alone (a pattern such as `train.*`).
    #[arg(long, short, value_name = "PATTERN")]
    pub(crate) name: Option<String>,
    /// Say what was written as a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Form of what is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum To {
    /// The numbers, one a row: run, name, step, time, value.
    Csv,
    /// Whole events, one a line.
    Json,
    /// Numbers as Parquet, with the columns of CSV, for pandas, polars or DuckDB.
    Parquet,
    /// Event files, in a folder for each run.
    Tensorboard,
}

const IMPORTS: &str = "\
Examples:
  forebay import logs -o runs/logs      a folder of TensorBoard
  forebay import wandb -o runs/wandb    what wandb left when it was offline
  forebay import history.csv -o runs/a  a table: a column for each metric, or name and value";

#[derive(Debug, Group)]
#[command(after_help = IMPORTS)]
pub(crate) struct Import {
    /// A folder of TensorBoard (or PyTorch, or tensorboardX) or of wandb, or a file of CSV or JSON. `-` is standard input, which takes --from.
    pub(crate) path: PathBuf,
    /// The folder that the run gets; of several runs, each gets one below it.
    #[arg(long, short, value_name = "FOLDER")]
    pub(crate) out: PathBuf,
    /// The kind of the input. By default, its name says it.
    #[arg(long, value_enum)]
    pub(crate) from: Option<Source>,
    /// Say what was written as a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Source {
    /// Event files. Graphs, sounds and what other plugins have are left out.
    Tensorboard,
    /// A table: with a column for each metric, with `name` and `value`, or TensorBoard's download.
    Csv,
    /// Objects, one for each step, in lines or an array: the history of wandb, or what a loop wrote.
    Json,
    /// Files `run-ID.wandb`, or the folder `wandb` that has them: what offline runs logged, their settings and how they ended.
    Wandb,
}

const REPORTS: &str = "\
Examples:
  forebay report  report.html, of the folder `runs`
  forebay report runs/a runs/b -o two.html
  forebay report runs -o - | gzip > report.html.gz";

#[derive(Debug, Group)]
#[command(after_help = REPORTS)]
pub(crate) struct Report {
    #[command(flatten)]
    pub(crate) folders: Folders,
    /// Where to write it; `-` is standard output.
    #[arg(long, short, default_value = "report.html", value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// At most so many points of each curve: of more, the extremes.
    #[arg(long, default_value_t = 2_000, value_name = "N")]
    pub(crate) points: usize,
    /// Say what was written as a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

const SERVES: &str = "\
Examples:
  forebay serve                                   http://127.0.0.1:6007, until Ctrl-C
  forebay serve runs logs --port 0                at a port that is free
  forebay serve --address 0.0.0.0 --token SECRET  for other machines as well";

#[derive(Debug, Group)]
#[command(after_help = SERVES)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) folders: Folders,
    /// The port; 0 is one that is free.
    #[arg(long, short, default_value_t = 6007)]
    pub(crate) port: u16,
    /// The address to listen on. Beyond loopback, it takes a token.
    #[arg(long, default_value = "127.0.0.1", value_parser = address)]
    pub(crate) address: std::net::IpAddr,
    /// A secret that every question must have: `?token=SECRET`.
    #[arg(long, value_name = "SECRET", env = "FOREBAY_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// At most so many points of each curve: of more, the extremes.
    #[arg(long, default_value_t = 2_000, value_name = "N")]
    pub(crate) points: usize,
    /// Say where it listens as a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

fn address(text: &str) -> Result<std::net::IpAddr, String> {
    match text {
        "localhost" => Ok(std::net::Ipv4Addr::LOCALHOST.into()),
        text => text.parse().map_err(|_| "it must be an address such as 127.0.0.1, or localhost".to_owned()),
    }
}

const DOCTORS: &str = "\
Examples:
  forebay doctor                all runs of the folder `runs`
  forebay doctor runs/a --json  an object for each finding";

#[derive(Debug, Group)]
#[command(after_help = DOCTORS)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) folders: Folders,
    /// Print one JSON object for each finding.
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Returns the words of a line, as a shell has them, up to two spaces: behind them is what it does.
    fn words(line: &str) -> Vec<String> {
        let (command, _) = line.split_once("  ").unwrap_or((line, ""));
        let (command, _) = command.split_once(['|', '>']).unwrap_or((command, ""));
        command.split_whitespace().map(|word| word.trim_matches('\'').to_owned()).collect()
    }

    #[test]
    fn every_command_is_taught_by_examples_that_it_understands() {
        for command in Args::command().get_subcommands() {
            if command.get_name() == "completions" {
                continue;
            }
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples: Vec<_> = help.lines().filter_map(|line| line.split_once("forebay ")).collect();
            assert!(examples.len() >= 2, "{}: {help:?}", command.get_name());
            for (_, example) in examples {
                let args = words(&format!("forebay {example}"));
                assert_eq!(args[1], command.get_name());
                assert!(Args::try_parse_from(&args).is_ok(), "{example:?} is no command");
            }
        }
        for line in EXAMPLES.lines().filter(|line| line.starts_with("  forebay")) {
            assert!(Args::try_parse_from(words(line.trim())).is_ok(), "{line:?} is no command");
        }
    }
}
