//! `forebay runs`: the table of runs.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use forebay_history::Run;
use serde_json::{Value, json};

use crate::args::Runs;
use crate::error::Error;
use crate::folder;
use crate::out::{Out, number, short};

/// Metrics that the table shows unless others are asked for: those of a validation first, then losses and accuracies.
const MAX_METRICS: usize = 3;

/// Names of metrics that are gathered for an error.
const MAX_OTHERS: usize = 10_000;

pub(crate) fn run(asked: &Runs, out: &mut Out) -> Result<u8, Error> {
    let pattern = folder::pattern(asked.metric.as_deref())?;
    let now = SystemTime::now();
    let most = if asked.metric.is_some() { usize::MAX } else { MAX_METRICS };
    if asked.json {
        let mut is_any = false;
        folder::read_whole(&asked.folders.paths, &mut |name, run| match run {
            Ok(run) => {
                is_any = true;
                out.json(as_json(&name, &run, now, |name| pattern.matches(name)))
            }
            Err(error) => out.json(json!({"name": name, "error": error.to_string()})),
        })?;
        return Ok(if is_any { 0 } else { 2 });
    }
    let row = |name: String, run: Result<Run, Error>| match run {
        Ok(run) => {
            let last_step =
                run.names().filter_map(|name| run.series(name)?.last()).map(|point| point.step).max();
            let mut names: Vec<&str> = run.names().filter(|name| pattern.matches(name)).collect();
            names.sort_by_key(|name| rank(name));
            let values: Vec<_> = names
                .into_iter()
                .filter_map(|name| Some(format!("{name} {}", number(run.series(name)?.last()?.value))))
                .take(most)
                .collect();
            vec![
                name,
                folder::status(&run, now).to_owned(),
                last_step.map_or_else(|| "-".to_owned(), |step| step.to_string()),
                run.events().to_string(),
                folder::lost(&run).map_or_else(|| "-".to_owned(), |lost| lost.to_string()),
                if run.not_read() > 0 { run.not_read().to_string() } else { String::new() },
                run.last_event().map_or_else(|| "-".to_owned(), |last| folder::age(last, now)),
                folder::reason(&run).map(last_line).unwrap_or_default(),
                values.join(", "),
            ]
        }
        Err(error) => {
            let cells = [&name, "unreadable", "-", "-", "-", "", "-", &last_line(&error.to_string()), ""];
            cells.map(str::to_owned).into()
        }
    };
    let mut rows = Vec::new();
    let (mut count, mut readable) = (0, 0);
    let (mut others, mut is_known) = (BTreeSet::new(), false);
    folder::read_whole(&asked.folders.paths, &mut |name, run| {
        (count, readable) = (count + 1, readable + usize::from(run.is_ok()));
        for name in run.iter().flat_map(Run::names) {
            is_known |= pattern.matches(name);
            if others.len() < MAX_OTHERS {
                others.insert(name.to_owned());
            }
        }
        rows.push(row(name, run));
        Ok(())
    })?;
    if let Some(asked) = asked.metric.as_deref().filter(|_| !is_known && readable == count && count > 0) {
        return Err(Error::NotFound(folder::unknown(asked, &others)));
    }
    let mut head = vec!["run", "status", "step", "events", "lost", "not read", "age", "why", "last values"];
    // Where no run has something to say there, there is no column.
    for column in MAY_BE_EMPTY {
        if rows.iter().all(|row: &Vec<String>| row[column].is_empty()) {
            head.remove(column);
            rows.iter_mut().for_each(|row| _ = row.remove(column));
        }
    }
    out.table(&head, usize::MAX, rows)?;
    Ok(if count > 0 && readable == 0 { 2 } else { 0 })
}

/// Returns the place of a metric in the table, of which the first ones are shown.
fn rank(name: &str) -> usize {
    let name = name.to_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    let (is_validated, is_result) = (has(&["val", "eval", "test"]), has(&["loss", "acc"]));
    match (is_validated, is_result) {
        (true, true) => 0,
        (false, true) => 1,
        (true, false) => 2,
        (false, false) => 3,
    }
}

/// The places of the columns that say why a run ended, and how much of it was not read: the last one first.
const MAY_BE_EMPTY: [usize; 2] = [7, 5];

/// Returns the last line of a reason, which says most of a traceback.
fn last_line(reason: &str) -> String {
    short(reason.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default(), 60)
}

/// Returns what is known of a run.
pub(crate) fn as_json(name: &str, run: &Run, now: SystemTime, is_asked: impl Fn(&str) -> bool) -> Value {
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let metrics: serde_json::Map<_, _> = run
        .names()
        .filter(|name| is_asked(name))
        .filter_map(|name| {
            let series = run.series(name)?;
            let point = |point: Option<forebay_history::Point>| {
                point.map(|point| json!({"step": point.step, "value": as_number(point.value)}))
            };
            let all = json!({
                "count": series.count(),
                "last": point(series.last()),
                "min": point(series.min()),
                "max": point(series.max()),
            });
            Some((name.to_owned(), all))
        })
        .collect();
    json!({
        "name": name,
        "path": run.path().display().to_string(),
        "status": folder::status(run, now),
        "reason": folder::reason(run),
        "run_id": run.lives().last().map(|life| &life.run_id),
        "generations": run.lives().len(),
        "began": run.lives().first().map(|life| seconds(life.began)),
        "last_event": run.last_event().map(seconds),
        "events": run.events(),
        "lost": folder::lost(run),
        "not_read": run.not_read(),
        "config": run.settings(),
        "metrics": metrics,
    })
}

/// JSON has no infinities: these are texts, as in the files.
pub(crate) fn as_number(value: f64) -> Value {
    match value {
        value if value.is_nan() => json!("NaN"),
        value if value.is_infinite() => json!(if value > 0.0 { "Infinity" } else { "-Infinity" }),
        value => json!(value),
    }
}
