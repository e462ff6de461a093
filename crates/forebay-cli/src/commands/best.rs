//! `forebay best`: runs by the best value of a metric.

use std::time::SystemTime;

use forebay_history::Point;
use serde_json::json;

use crate::args::Best;
use crate::error::Error;
use crate::folder;
use crate::out::{Out, number};

pub(crate) fn run(asked: &Best, out: &mut Out) -> Result<u8, Error> {
    let runs = folder::read_whole(&asked.folders.paths)?;
    let lowest = asked.min || !asked.max && is_better_low(&asked.metric);
    let now = SystemTime::now();
    let mut found: Vec<(&str, &'static str, Point, Point)> = runs
        .iter()
        .filter_map(|(name, run)| {
            let run = run.as_ref().ok()?;
            let series = run.series(&asked.metric)?;
            let best = if lowest { series.min() } else { series.max() };
            Some((name.as_str(), folder::status(run, now), best?, series.last()?))
        })
        .collect();
    found.sort_by(|(.., one, _), (.., other, _)| {
        let order = one.value.total_cmp(&other.value);
        if lowest { order } else { order.reverse() }
    });
    if found.is_empty() {
        return Err(Error::NotFound(unknown(
            &asked.metric,
            runs.iter().filter_map(|(_, run)| run.as_ref().ok()),
        )));
    }
    if asked.json {
        for (name, status, best, last) in found {
            out.line(json!({
                "name": name, "status": status, "metric": asked.metric,
                "best": best.value, "step": best.step, "last": last.value, "last_step": last.step,
            }))?;
        }
        return Ok(0);
    }
    let head = format!("{} {}", if lowest { "lowest" } else { "highest" }, asked.metric);
    let rows = found.into_iter().map(|(name, status, best, last)| {
        vec![
            name.to_owned(),
            number(best.value),
            best.step.to_string(),
            number(last.value),
            last.step.to_string(),
            status.to_owned(),
        ]
    });
    out.table(&["run", &head, "at step", "last", "at step", "status"], 1, rows)?;
    Ok(0)
}

/// Returns whether a low value of a metric is a good one, by its name.
fn is_better_low(metric: &str) -> bool {
    let metric = metric.to_lowercase();
    ["loss", "err", "perplexity", "ppl", "rmse", "mae", "mse"].iter().any(|word| metric.contains(word))
}

/// Says that there is no such metric, and which ones there are.
fn unknown<'a>(metric: &str, runs: impl Iterator<Item = &'a forebay_history::Run>) -> String {
    let mut names: Vec<String> =
        runs.flat_map(|run| run.names().map(str::to_owned).collect::<Vec<_>>()).collect();
    names.sort();
    names.dedup();
    let more = if names.len() > 20 { ", ..." } else { "" };
    names.truncate(20);
    format!("no run has the metric {metric:?} (there are: {}{more})", names.join(", "))
}
