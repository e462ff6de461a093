//! Runs of the paths that were asked for, read.

use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use forebay::run::{RunEnd, RunStatus};
use forebay::{Event, Pattern};
use forebay_history::{EventQuery, Format, RecordFollower, Run, find_runs, open, values};

use crate::broker;
use crate::error::Error;
use crate::progress::Progress;

/// A run with a name that tells it from the others, or why it cannot be read.
pub(crate) type Named = (String, Result<Run, Error>);

/// Points that all runs keep together: 200 MB.
const MAX_TOTAL: usize = 8 << 20;

/// Fewer points of a curve show nothing.
const MIN_POINTS: usize = 32;

/// Names of metrics in an error.
const MAX_NAMED: usize = 20;

/// How many points each curve may have, so that all runs together keep so many: fewer for all, once they are too many.
#[derive(Debug)]
pub(crate) struct Budget {
    pub(crate) max_points: usize,
}

impl Budget {
    pub(crate) fn new(max_points: usize) -> Self {
        Self { max_points }
    }

    /// Says whether runs that keep so many are to keep fewer of each curve, and has a lower limit by then.
    pub(crate) fn is_over(&mut self, kept: usize) -> bool {
        let is_over = kept > MAX_TOTAL && self.max_points > MIN_POINTS;
        if is_over {
            self.max_points = (self.max_points / 2).max(MIN_POINTS);
        }
        is_over
    }

    fn fit(&mut self, runs: &mut [Named]) {
        let kept = |runs: &[Named]| runs.iter().flat_map(|(_, run)| run).map(Run::kept).sum();
        while self.is_over(kept(runs)) {
            let max_points = self.max_points;
            runs.iter_mut().flat_map(|(_, run)| run).for_each(|run| run.limit(max_points));
        }
    }
}

/// Returns the runs of all paths, each read to its end. `max_points` are kept of each series, and fewer of many; pictures and
/// distributions, if they are asked for.
pub(crate) fn read(paths: &[PathBuf], max_points: usize, with_media: bool) -> Result<Vec<Named>, Error> {
    let (mut runs, folders) = (Vec::new(), find(paths)?);
    let (progress, mut budget) = (of(&folders), Budget::new(max_points));
    for (name, folder) in folders {
        progress.step();
        runs.push((name, read_one(&folder, budget.max_points, with_media)));
        budget.fit(&mut runs);
    }
    Ok(runs)
}

/// Gives the runs of all paths to `take`, one after the other, of which the last and the best values are asked for alone.
pub(crate) fn read_whole(
    paths: &[PathBuf],
    take: &mut dyn FnMut(String, Result<Run, Error>) -> Result<(), Error>,
) -> Result<(), Error> {
    let folders = find(paths)?;
    let progress = of(&folders);
    for (name, folder) in folders {
        progress.step();
        take(name, read_one(&folder, 0, false))?;
    }
    Ok(())
}

/// Begins to read runs.
fn of(folders: &[(String, PathBuf)]) -> Progress {
    Progress::of(folders.iter().map(|(_, folder)| folder))
}

/// Returns the folders of the runs of all paths, each with the name that tells it from the others.
pub(crate) fn find(paths: &[PathBuf]) -> Result<Vec<(String, PathBuf)>, Error> {
    let (mut runs, mut seen) = (Vec::new(), BTreeSet::new());
    for path in &expand(paths)? {
        if is_stdin(path) {
            let why = "- is standard input, which query, tail and import read; a folder of that name is ./-";
            return Err(Error::Asked(why.to_owned()));
        }
        if broker::is_stream(path) {
            let streams = broker::find(path)?.into_iter().filter(|stream| seen.insert(stream.clone()));
            runs.extend(streams.map(|stream| (name_of(path, &stream, are_several(paths)), stream)));
            continue;
        }
        // That is where runs are looked for unless a place is given.
        if path == Path::new("runs") && !path.exists() {
            let why = "there is no folder `runs` here: name the folder of your runs, or that of one";
            return Err(Error::Asked(why.to_owned()));
        }
        let found = find_runs(path)?;
        if found.is_empty() {
            let why = format!(
                "there is no run in {}: no events.jsonl or events.db, and no event files of TensorBoard",
                path.display()
            );
            return Err(Error::NotFound(why));
        }
        // A folder may be below another one that is asked for.
        runs.extend(
            found
                .into_iter()
                .filter(|folder| seen.insert(folder.clone()))
                .map(|folder| (name_of(path, &folder, are_several(paths)), folder)),
        );
    }
    Ok(runs)
}

/// Returns the runs of all paths that are not known yet. What cannot be listed now may be later.
pub(crate) fn find_new(paths: &[PathBuf], known: &HashSet<PathBuf>) -> Vec<(String, PathBuf)> {
    let places = paths.iter().flat_map(|path| expand(std::slice::from_ref(path)).unwrap_or_default());
    let runs = places.flat_map(|place| {
        let found = match broker::is_stream(&place) {
            true => broker::find(&place).unwrap_or_default(),
            false => find_runs(&place).unwrap_or_default(),
        };
        found.into_iter().map(move |run| (name_of(&place, &run, are_several(paths)), run))
    });
    runs.filter(|(_, run)| !known.contains(run)).collect()
}

fn are_several(paths: &[PathBuf]) -> bool {
    paths.len() > 1 || paths.iter().any(|path| !broker::is_stream(path) && is_pattern(path))
}

/// What a pattern for paths has in it: those of [`Pattern`].
const WILD: [char; 4] = ['*', '?', '[', '{'];

/// Returns whether a path is a pattern, and that of no file.
fn is_pattern(path: &Path) -> bool {
    path.to_str().is_some_and(|text| text.contains(WILD)) && std::fs::symlink_metadata(path).is_err()
}

/// Returns the paths that were asked for. In the place of a pattern, which a shell may have left as it is, there are those that fit it, sorted;
/// but no folder without a run.
pub(crate) fn expand(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let mut all = Vec::new();
    for path in paths {
        if broker::is_stream(path) || !is_pattern(path) {
            all.push(path.clone());
            continue;
        }
        let mut found = fitting(path)?;
        found.retain(|path| !path.is_dir() || find_runs(path).map_or(true, |runs| !runs.is_empty()));
        if found.is_empty() {
            return Err(Error::NotFound(format!("there is no run that fits the pattern {}", path.display())));
        }
        all.extend(found);
    }
    Ok(all)
}

/// Returns the paths that fit a pattern: part by part, as a shell has it.
fn fitting(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = vec![PathBuf::new()];
    for part in path.components() {
        let wild = part.as_os_str().to_str().filter(|text| text.contains(WILD));
        let Some(text) = wild else {
            found.iter_mut().for_each(|path| path.push(part));
            continue;
        };
        let pattern = pattern(Some(text))?;
        let fits = |name: &str| pattern.matches(name) && (text.starts_with('.') || !name.starts_with('.'));
        let mut next = Vec::new();
        for folder in found {
            let place = if folder.as_os_str().is_empty() { Path::new(".") } else { &folder };
            let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
            let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
            next.extend(names.filter(|name| fits(name)).map(|name| folder.join(name)));
        }
        next.sort();
        found = next;
    }
    found.retain(|path| path.exists());
    Ok(found)
}

/// Returns the runs of a path, or of those that fit a pattern.
pub(crate) fn runs_of(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let places = expand(&[path.to_owned()])?;
    let runs = places.iter().map(find_runs).collect::<Result<Vec<_>, _>>()?;
    Ok(runs.concat())
}

/// Returns whether a path stands for standard input.
pub(crate) fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// Reads a run to its end, and closes it: there may be more runs than a process may have files open.
fn read_one(folder: &Path, max_points: usize, with_media: bool) -> Result<Run, Error> {
    let mut run = open_run(folder)?.with_max_points(max_points);
    if with_media {
        run = run.with_media();
    }
    while run.poll()? {}
    run.close();
    if is_foreign(&run) {
        return Err(Error::foreign(broker::shown(folder)));
    }
    Ok(run)
}

/// Opens a run, or the stream of one.
pub(crate) fn open_run(path: &Path) -> Result<Run, Error> {
    if broker::is_stream(path) { broker::run(path) } else { Ok(Run::open(path)?) }
}

/// Opens a run, or the stream of one, for who looks at it again and again and may not wait for a server.
pub(crate) fn open_live(path: &Path) -> Result<Run, Error> {
    if broker::is_stream(path) { broker::live_run(path) } else { Ok(Run::open(path)?) }
}

/// Follows the events of a run, or those of a stream.
pub(crate) fn follow(path: &Path) -> Result<RecordFollower, Error> {
    if broker::is_stream(path) {
        return Ok(RecordFollower::of(broker::name(path), broker::feed(path)?));
    }
    Ok(RecordFollower::open(path)?)
}

/// Returns the paths that were asked for, as a title.
pub(crate) fn title(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| broker::shown(path)).collect::<Vec<_>>().join(", ")
}

/// Returns whether all that was read of a run is none of forebay's: somebody else's file, or damage.
pub(crate) fn is_foreign(run: &Run) -> bool {
    run.events() == 0 && run.not_read() > 0
}

/// Returns the path of a run as people tell it from others: from where they asked.
pub(crate) fn name_of(asked: &Path, folder: &Path, is_one_of_several: bool) -> String {
    if broker::is_stream(folder) {
        return if is_one_of_several { broker::shown(folder) } else { broker::name(folder) };
    }
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

/// Returns how many events of a run are lost, where its files tell: TensorBoard's do not.
pub(crate) fn lost(run: &Run) -> Option<u64> {
    (run.format() != Format::TensorBoard || run.missing() > 0).then(|| run.missing())
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

/// Returns why a run ended, in a line of about so many letters.
pub(crate) fn short_reason(run: &Run, max: usize) -> Option<String> {
    reason(run).map(|reason| crate::out::short(reason, max))
}

/// Returns how long ago something was, in one unit.
pub(crate) fn age(then: SystemTime, now: SystemTime) -> String {
    let Ok(age) = now.duration_since(then) else { return "in the future".to_owned() };
    let seconds = age.as_secs();
    let (number, unit) = match seconds {
        0..120 => (seconds, "s"),
        120..7_200 => (seconds / 60, "min"),
        7_200..172_800 => (seconds / 3_600, "h"),
        _ => (seconds / 86_400, "d"),
    };
    format!("{number} {unit}")
}

/// Returns how long something took, in the two largest units; less than a second in milliseconds.
pub(crate) fn span(span: Duration) -> String {
    let whole = match span.as_secs() {
        0 => Duration::from_millis(u64::from(span.subsec_millis())),
        seconds => Duration::from_secs(seconds),
    };
    humantime::format_duration(whole).to_string().split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// Says that no run has a metric, and which ones there are: those first that have it in their names.
pub(crate) fn unknown(metric: &str, others: &BTreeSet<String>) -> String {
    format!("no run has the metric {metric:?} (there are: {})", some(metric, others))
}

/// Returns some of many names, those first that have a part of what was asked for.
fn some(asked: &str, names: &BTreeSet<String>) -> String {
    let part = asked.trim_matches(|letter| WILD.contains(&letter)).to_lowercase();
    let more = if names.len() > MAX_NAMED { ", ..." } else { "" };
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.sort_by_key(|name| !name.to_lowercase().contains(&part));
    names.truncate(MAX_NAMED);
    format!("{}{more}", names.join(", "))
}

/// Says why no event of these runs has a name that fits: in which events a metric of this name is, or which names there are. Returns none
/// where an event has such a name, nothing can be read, or there is more to read than it is worth.
pub(crate) fn unnamed(asked: &str, runs: &[PathBuf]) -> Option<String> {
    let pattern = pattern(Some(asked)).ok()?;
    let (mut names, mut of_events, mut is_named, mut count) = (BTreeSet::new(), BTreeSet::new(), false, 0);
    for run in runs {
        let visited = open(run).and_then(|history| {
            history.visit(&EventQuery::new(), &mut |record| {
                count += 1;
                if count > MAX_VISITED {
                    return ControlFlow::Break(());
                }
                let name = Event::name(&record);
                is_named = pattern.matches(name);
                if names.len() < MAX_NAMES && !names.contains(name) {
                    names.insert(name.to_owned());
                }
                if of_events.len() < MAX_NAMES && !of_events.contains(name) {
                    values(&record, &mut |metric, _, _| {
                        if pattern.matches(metric) {
                            of_events.insert(name.to_owned());
                        }
                    });
                }
                if is_named { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
        });
        if is_named || visited.is_err() || count > MAX_VISITED {
            return None;
        }
    }
    if names.is_empty() {
        return None;
    }
    Some(match of_events.is_empty() {
        true => format!("no event is named {asked:?} (there are: {})", some(asked, &names)),
        false => format!("no event is named {asked:?}: it is in the events {}", some(asked, &of_events)),
    })
}

/// Events that are looked at for an error: a second.
const MAX_VISITED: u64 = 500_000;

/// Names of events that are gathered for an error.
const MAX_NAMES: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_metrics_those_are_named_first_that_have_what_was_asked_for_in_their_names() {
        let others = (0..30)
            .map(|number| format!("a{number:02}"))
            .chain(["train.LOSS".to_owned(), "val_loss".to_owned()]);
        let said = unknown("Loss", &others.collect());
        assert!(
            said.starts_with("no run has the metric \"Loss\" (there are: train.LOSS, val_loss, a00, "),
            "{said}"
        );
        assert!(said.ends_with(", a17, ...)"), "{said}");
    }

    #[test]
    fn a_short_time_is_no_time_of_nothing() {
        let said = [0, 7, 412, 1_900, 61_000, 90_061_000].map(|millis| span(Duration::from_millis(millis)));
        assert_eq!(said, ["0s", "7ms", "412ms", "1s", "1m 1s", "1day 1h"]);
    }
}
