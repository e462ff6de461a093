//! `forebay compare`: settings that differ, last and best values.

use std::collections::BTreeSet;
use std::time::SystemTime;

use forebay_history::Run;

use crate::args::Compare;
use crate::commands::runs::as_json;
use crate::error::Error;
use crate::folder;
use crate::out::{Out, complain, number};

pub(crate) fn run(asked: &Compare, out: &mut Out) -> Result<u8, Error> {
    let pattern = folder::pattern(asked.metric.as_deref())?;
    let now = SystemTime::now();
    let (mut runs, mut code): (Vec<(String, Run)>, u8) = (Vec::new(), 0);
    folder::read_whole(&asked.paths, &mut |name, run| {
        match run {
            Ok(run) => runs.push((name, run)),
            Err(error) => {
                complain(&error);
                code = error.code();
            }
        }
        Ok(())
    })?;
    if runs.is_empty() {
        return Ok(code);
    }
    if asked.json {
        for (name, run) in &runs {
            out.json(as_json(name, run, now, |name| pattern.matches(name)))?;
        }
        return Ok(code);
    }
    let mut head = vec![""];
    head.extend(runs.iter().map(|(name, _)| name.as_str()));
    let mut rows = vec![line("status", &runs, |run| Some(folder::status(run, now).to_owned()))];
    if runs.iter().any(|(_, run)| folder::reason(run).is_some()) {
        rows.push(line("reason", &runs, |run| folder::short_reason(run, 60)));
    }
    rows.push(line("took", &runs, |run| run.took().map(folder::span)));
    rows.push(line("lost", &runs, |run| Some(run.missing().to_string())));
    for name in all(&runs, |run| run.settings().iter().map(|(name, _)| name.to_string()).collect()) {
        let row = line(&name, &runs, |run| run.settings().get(&name).map(ToString::to_string));
        // What is the same everywhere explains nothing.
        if runs.len() == 1 || row[2..].iter().any(|value| *value != row[1]) {
            rows.push(row);
        }
    }
    for name in all(&runs, |run| run.names().map(str::to_owned).collect()) {
        if pattern.matches(&name) {
            let of = |run: &Run, point: fn(&forebay_history::Series) -> Option<forebay_history::Point>| {
                run.series(&name)
                    .and_then(point)
                    .map(|point| format!("{} @ {}", number(point.value), point.step))
            };
            rows.push(line(&format!("{name} (last)"), &runs, |run| of(run, forebay_history::Series::last)));
            rows.push(line(&format!("{name} (min)"), &runs, |run| of(run, forebay_history::Series::min)));
            rows.push(line(&format!("{name} (max)"), &runs, |run| of(run, forebay_history::Series::max)));
        }
    }
    out.table(&head, 1, rows)?;
    Ok(code)
}

fn all(runs: &[(String, Run)], names: impl Fn(&Run) -> Vec<String>) -> BTreeSet<String> {
    runs.iter().flat_map(|(_, run)| names(run)).collect()
}

fn line(what: &str, runs: &[(String, Run)], value: impl Fn(&Run) -> Option<String>) -> Vec<String> {
    let values = runs.iter().map(|(_, run)| value(run).unwrap_or_else(|| "-".to_owned()));
    std::iter::once(what.to_owned()).chain(values).collect()
}
