//! Runs of the paths that were asked for, read.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use forebay::Pattern;
use forebay::run::{RunEnd, RunStatus};
use forebay_history::{Run, find_runs};

use crate::error::Error;

/// A run with a name that tells it from the others, or why it cannot be read.
pub(crate) type Named = (String, Result<Run, Error>);

/// Points that all runs keep together: 200 MB.
const MAX_TOTAL: usize = 8 << 20;

/// Returns the runs of all paths, each read to its end. `max_points` are kept of each series.
pub(crate) fn read(paths: &[PathBuf], max_points: usize) -> Result<Vec<Named>, Error> {
    let folders = find(paths)?;
    let total = share(folders.len());
    let mut runs = Vec::new();
    each(folders, &mut |folder| read_one(folder, max_points, total), &mut |name, run| {
        runs.push((name, run));
        Ok(())
    })?;
    Ok(runs)
}

/// Gives the runs of all paths to `take`, one after the other, of which the last and the best values are asked for alone.
pub(crate) fn read_whole(
    paths: &[PathBuf],
    take: &mut dyn FnMut(String, Result<Run, Error>) -> Result<(), Error>,
) -> Result<(), Error> {
    each(find(paths)?, &mut |folder| read_one(folder, 0, 0), take)
}

/// Returns how many points one of so many runs may keep.
pub(crate) fn share(runs: usize) -> usize {
    MAX_TOTAL / runs.max(1)
}

fn each(
    folders: Vec<(String, PathBuf)>,
    read: &mut dyn FnMut(&Path) -> Result<Run, Error>,
    take: &mut dyn FnMut(String, Result<Run, Error>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut progress = Progress::of(folders.len());
    for (name, folder) in folders {
        progress.step();
        let mut run = read(&folder);
        // There may be more runs than a process may have files open.
        run.iter_mut().for_each(Run::close);
        take(name, run)?;
    }
    Ok(())
}

/// Line on the terminal that says how far a command is, if it takes more than a second.
struct Progress {
    began: Instant,
    of: usize,
    done: usize,
    is_shown: bool,
}

impl Progress {
    fn of(of: usize) -> Self {
        Self { began: Instant::now(), of, done: 0, is_shown: false }
    }

    fn step(&mut self) {
        self.done += 1;
        if self.began.elapsed() > Duration::from_secs(1) && io::stderr().is_terminal() {
            self.is_shown = true;
            _ = write!(io::stderr(), "\r\x1b[Kreading run {} of {}", self.done, self.of);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// Returns the folders of the runs of all paths, each with the name that tells it from the others.
pub(crate) fn find(paths: &[PathBuf]) -> Result<Vec<(String, PathBuf)>, Error> {
    let mut runs = Vec::new();
    for path in paths {
        let found = find_runs(path)?;
        if found.is_empty() {
            let why = format!(
                "there is no run in {}: no events.jsonl or events.db, and no event files of TensorBoard",
                path.display()
            );
            return Err(Error::Asked(why));
        }
        runs.extend(found.into_iter().map(|folder| (name_of(path, &folder, paths.len() > 1), folder)));
    }
    Ok(runs)
}

fn read_one(folder: &Path, max_points: usize, max_total: usize) -> Result<Run, Error> {
    let mut run = Run::open(folder)?.with_max_points(max_points).with_max_total(max_total);
    while run.poll()? {}
    Ok(run)
}

/// Returns the path of a run as people tell it from others: from where they asked.
pub(crate) fn name_of(asked: &Path, folder: &Path, is_one_of_several: bool) -> String {
    match folder.strip_prefix(asked) {
        Ok(rest) if !rest.as_os_str().is_empty() && !is_one_of_several => rest.display().to_string(),
        _ => folder.display().to_string(),
    }
}

/// Returns the pattern that was asked for: that of everything where none was.
pub(crate) fn pattern(asked: Option<&str>) -> Result<Pattern, Error> {
    let asked = asked.unwrap_or("*");
    Pattern::new(asked).map_err(|error| Error::Asked(format!("invalid pattern: {asked:?} ({error})")))
}

/// Returns the status of a run in a word.
pub(crate) fn status(run: &Run, now: SystemTime) -> &'static str {
    match run.status(now) {
        Some(RunStatus::Running) => "running",
        Some(RunStatus::Finished) => "finished",
        Some(RunStatus::Failed) => "failed",
        Some(RunStatus::Preempted) => "preempted",
        Some(RunStatus::Vanished) => "vanished",
        Some(RunStatus::Unclear) => "unclear",
        _ => "-",
    }
}

/// Returns why a run ended, where it said so.
pub(crate) fn reason(run: &Run) -> Option<&str> {
    match run.lives().last()?.end.as_ref()? {
        RunEnd::Failed { error: reason } | RunEnd::EarlyStopped { reason } | RunEnd::Preempted { reason } => {
            Some(reason)
        }
        _ => None,
    }
}

/// Returns how long ago something was, in one unit.
pub(crate) fn age(then: SystemTime, now: SystemTime) -> String {
    let seconds = now.duration_since(then).unwrap_or_default().as_secs();
    let (number, unit) = match seconds {
        0..120 => (seconds, "s"),
        120..7_200 => (seconds / 60, "min"),
        7_200..172_800 => (seconds / 3_600, "h"),
        _ => (seconds / 86_400, "d"),
    };
    format!("{number} {unit}")
}

/// Returns how long something took, in the two largest units.
pub(crate) fn span(span: Duration) -> String {
    let whole = Duration::from_secs(span.as_secs());
    humantime::format_duration(whole).to_string().split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// Says that no run has a metric, and which ones there are.
pub(crate) fn unknown(metric: &str, others: &BTreeSet<String>) -> String {
    let more = if others.len() > 20 { ", ..." } else { "" };
    let names: Vec<&str> = others.iter().take(20).map(String::as_str).collect();
    format!("no run has the metric {metric:?} (there are: {}{more})", names.join(", "))
}
