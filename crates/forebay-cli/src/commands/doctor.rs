//! `forebay doctor`: what is wrong with runs, and what to do.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime};

use forebay::parts::open_to_read;
use forebay::run::RunStatus;
use forebay_history::{Run, TroubleKind};
use forebay_sync::unix::disk_usage;
use serde_json::json;

use crate::args::Doctor;
use crate::error::Error;
use crate::folder;
use crate::out::{Out, count};

/// What is wrong, and what to do.
struct Finding {
    kind: &'static str,
    what: String,
    advice: &'static str,
}

pub(crate) fn run(asked: &Doctor, out: &mut Out) -> Result<u8, Error> {
    let mut is_well = true;
    let now = SystemTime::now();
    folder::read_whole(&asked.folders.paths, &mut |name, run| {
        let findings = match &run {
            Ok(run) => look(run, now),
            Err(error) => vec![Finding {
                kind: "unreadable",
                what: error.to_string(),
                advice: "look at its permissions, and whether it is what its name says",
            }],
        };
        is_well &= findings.is_empty();
        if asked.json {
            for finding in findings {
                out.json(json!({"run": name, "kind": finding.kind, "what": finding.what, "advice": finding.advice}))?;
            }
            return Ok(());
        }
        let said = match &run {
            Ok(run) if findings.is_empty() => well(run, now),
            _ => "not well".to_owned(),
        };
        out.line(format_args!("{}: {said}", crate::out::harmless(&name)))?;
        for finding in findings {
            // A reason may be a traceback.
            let mut lines = finding.what.lines();
            let first = lines.next().unwrap_or_default();
            out.line(format_args!("  {}: {}", finding.kind, crate::out::harmless(first)))?;
            for line in lines {
                out.line(format_args!("      {}", crate::out::harmless(line)))?;
            }
            out.line(format_args!("    -> {}", finding.advice))?;
        }
        Ok(())
    })?;
    Ok(u8::from(!is_well))
}

/// Says that nothing is wrong, and what that does not cover.
fn well(run: &Run, now: SystemTime) -> String {
    match (run.status(now), run.last_event()) {
        // It may have died since.
        (Some(RunStatus::Running), Some(last)) => {
            format!("well, and running: its last event came {} ago", folder::age(last, now))
        }
        _ if folder::lost(run).is_none() => {
            "well, as far as it tells: its files do not say how it ended, nor what was lost".to_owned()
        }
        _ => "well".to_owned(),
    }
}

/// Returns whether a trouble is of a kind.
type IsIt = fn(&TroubleKind) -> bool;

/// Kinds of trouble that have no count of their own: word, which one, what it is, what to do.
const TROUBLES: [(&str, IsIt, &str, &str); 3] = [
    (
        "clock",
        |kind| matches!(kind, TroubleKind::ClockJump(_)),
        "the clock moved against that of the process",
        "it was set, or the machine slept: moments before and behind it do not compare",
    ),
    (
        "silence",
        |kind| matches!(kind, TroubleKind::Silence(_)),
        "three heartbeats or more are missing while its process lived",
        "its disk or its machine hung: look at its log at that time",
    ),
    (
        "writers",
        |kind| matches!(kind, TroubleKind::TwoWriters),
        "a process of an earlier generation goes on beside a later one",
        "end it: two processes write the same steps",
    ),
];

/// Places that are named; of more, how many there are.
const MAX_PLACES: usize = 3;

/// Says where troubles were.
fn places(run: &Run, is_it: IsIt) -> String {
    let all: Vec<_> = run.troubles().iter().filter(|trouble| is_it(&trouble.kind)).collect();
    let mut said: Vec<String> = all
        .iter()
        .take(MAX_PLACES)
        .map(|trouble| {
            let size = match &trouble.kind {
                TroubleKind::Gap(events) => format!("{events} "),
                TroubleKind::ClockJump(seconds) => format!("by {seconds:+} s "),
                TroubleKind::Silence(span) => format!("{} ", folder::span(*span)),
                _ => String::new(),
            };
            let step = trouble.step.map_or_else(String::new, |step| format!("behind step {step}, "));
            format!("{size}{step}at {}", crate::page::date(trouble.time))
        })
        .collect();
    if all.len() > MAX_PLACES {
        said.push(format!("and {} more", all.len() - MAX_PLACES));
    }
    if said.is_empty() { String::new() } else { format!(": {}", said.join("; ")) }
}

/// Returns the numbers of closed files that are missing between others. Those before all others were removed by the sink, as the oldest.
fn holes(folder: &Path) -> Vec<u64> {
    let number = |entry: std::io::Result<std::fs::DirEntry>| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        let number = name.strip_prefix("events.jsonl.")?;
        number.strip_suffix(".zst").unwrap_or(number).parse::<u64>().ok().filter(|number| *number < 1_000_000)
    };
    let numbers: BTreeSet<u64> = std::fs::read_dir(folder).into_iter().flatten().filter_map(number).collect();
    let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else { return Vec::new() };
    (*first..*last).filter(|number| !numbers.contains(number)).take(MAX_PLACES).collect()
}

/// Time for which a run that tells of no status counts as one that goes on, behind its last change.
const LIVE: Duration = Duration::from_secs(120);

/// How far the clocks of two machines may differ before it is worth a word.
const AHEAD: Duration = Duration::from_secs(60);

/// Returns when one of the files of a run was changed last.
fn last_change(path: &Path) -> Option<SystemTime> {
    let of = |path: &Path| std::fs::metadata(path).and_then(|data| data.modified()).ok();
    let files = std::fs::read_dir(path).into_iter().flatten().flatten();
    files.filter_map(|file| of(&file.path())).max().or_else(|| of(path))
}

/// Largest database that is looked through.
const MAX_DATABASE: u64 = 1 << 30;

/// Returns what SQLite finds wrong with the database of a run, if there is one.
fn database_damage(folder: &Path) -> Option<String> {
    let path = folder.join("events.db");
    std::fs::metadata(&path).ok().filter(|data| data.is_file() && data.len() <= MAX_DATABASE)?;
    let found = open_to_read(&path).and_then(|(database, _)| {
        database.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))
    });
    match found {
        Ok(found) if found == "ok" => None,
        Ok(found) => Some(format!("events.db: {}", found.replace('\n', " "))),
        Err(error) => Some(format!("events.db: {error}")),
    }
}

fn look(run: &Run, now: SystemTime) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |kind, what, advice| findings.push(Finding { kind, what, advice });
    if run.events() == 0 {
        find(
            "empty",
            "there are no events in it".to_owned(),
            "its process ended before its first flush, or it has just begun",
        );
    }
    if run.missing() > 0 {
        let is_it = |kind: &TroubleKind| matches!(kind, TroubleKind::Gap(_));
        let what =
            format!("{} events were evicted before they were written{}", run.missing(), places(run, is_it));
        find("gap", what, "raise the capacity of the collector, or sample what comes often");
    }
    for (kind, is_it, what, advice) in TROUBLES {
        let count = run.troubles().iter().filter(|trouble| is_it(&trouble.kind)).count();
        if count > 0 {
            find(kind, format!("{what}{}", places(run, is_it)), advice);
        }
    }
    if run.has_two_writers() {
        find(
            "writers",
            "several of its event files were written at the same time".to_owned(),
            "give each process a folder of its own",
        );
    }
    for number in holes(run.path()) {
        find(
            "missing file",
            format!("the closed file {number} is not there, and those before and behind it are"),
            "somebody removed it, or a copy was not complete: what it had is lost",
        );
    }
    if let Some(damage) = database_damage(run.path()) {
        find(
            "damage",
            damage,
            "the disk lost something: `sqlite3 events.db .recover` saves what can be read",
        );
    }
    if let Some((used, free)) = disk_usage(run.path())
        && free < used / 100
    {
        let what = format!("the disk is full but for {} MB", free / 1_000_000);
        find("disk", what, "remove what is not needed: when it is full, whole batches are lost");
    }
    if run.not_read() > 0 {
        let what = format!("{} places in its files are no events", run.not_read());
        find(
            "damage",
            what,
            "a writer was killed in the middle of a write, or the disk lost something: what is whole was read",
        );
    }
    if run.has_more() {
        let what = "it has more than 10,000 names: of those that came later, nothing is shown".to_owned();
        find(
            "names",
            what,
            "what changes, such as the id of a sample, belongs into a field, not into a name",
        );
    }
    let status = run.status(now);
    let is_written = match status {
        Some(status) => status == RunStatus::Running,
        // Nobody says whether it goes on.
        None => {
            last_change(run.path()).is_some_and(|then| now.duration_since(then).is_ok_and(|age| age < LIVE))
        }
    };
    if run.is_torn() && !is_written {
        let what = "its last event has no end".to_owned();
        find("torn", what, "its writer was killed in the middle of a write: the rest is whole");
    }
    match status {
        Some(RunStatus::Failed) => {
            let what = folder::reason(run).unwrap_or("it gave no reason").to_owned();
            find("failed", what, "`forebay tail` shows what came before");
        }
        Some(RunStatus::Vanished) => {
            // One in the future is no sign of life.
            let last_seen = run.lives().last().map(|life| life.last_seen);
            let last = run.last_event().filter(|last| *last <= now).or(last_seen);
            let what =
                last.map_or_else(String::new, |last| format!("nothing for {}", folder::age(last, now)));
            find(
                "vanished",
                what,
                "its process is gone and said nothing: look for the OOM killer, and at the scheduler's log",
            );
        }
        _ => {}
    }
    if status == Some(RunStatus::Unclear) || run.last_event().is_some_and(|last| last > now + AHEAD) {
        find(
            "clock",
            "its last event is in the future".to_owned(),
            "a clock was set back, or those of two machines differ",
        );
    }
    for name in run.names().filter(|name| run.others().contains_key(*name)) {
        let what = format!("{name} is a number in some events and none in others");
        find("kind", what, "give each kind a name of its own: a curve has numbers alone");
    }
    for name in run.names() {
        let Some(series) = run.series(name) else { continue };
        if series.non_finite() > 0 {
            let first = series.first_non_finite().map(|point| format!(", the first at step {}", point.step));
            let number = count(series.non_finite(), "number");
            let what = format!("{name} has {number} not finite{}", first.unwrap_or_default());
            find(
                "not finite",
                what,
                "lower the learning rate, clip gradients, or look for a division by zero",
            );
        }
        if series.backward_steps() > 0 && run.lives().len() < 2 {
            let what =
                format!("{name} went back {} to an earlier step", count(series.backward_steps(), "time"));
            find(
                "steps",
                what,
                "two writers share the name, or the run was resumed: give each a folder of its own",
            );
        }
    }
    findings
}
