//! `forebay best`: runs by the best value of a metric.

use std::collections::BTreeSet;
use std::time::SystemTime;

use forebay_history::Point;
use serde_json::json;

use crate::args::Best;
use crate::commands::runs::as_number;
use crate::error::Error;
use crate::folder;
use crate::out::{Out, number};

/// Names of metrics that are remembered, for who has asked for one that is not there.
const MAX_OTHERS: usize = 1_000;

pub(crate) fn run(asked: &Best, out: &mut Out) -> Result<u8, Error> {
    let lowest = asked.min || !asked.max && is_better_low(&asked.metric);
    let now = SystemTime::now();
    let mut found: Vec<(String, &'static str, Point, Point)> = Vec::new();
    let mut others = BTreeSet::new();
    folder::read_whole(&asked.folders.paths, &mut |name, run| {
        let Ok(run) = run else { return Ok(()) };
        let Some(series) = run.series(&asked.metric) else {
            let room = MAX_OTHERS.saturating_sub(others.len());
            others.extend(run.names().take(room).map(str::to_owned));
            return Ok(());
        };
        let best = if lowest { series.min() } else { series.max() };
        // Where no value is finite, none is best.
        if let (Some(best), Some(last)) = (best, series.last()) {
            found.push((name, folder::status(&run, now), best, last));
        }
        Ok(())
    })?;
    found.sort_by(|(.., one, _), (.., other, _)| {
        let order = one.value.total_cmp(&other.value);
        if lowest { order } else { order.reverse() }
    });
    if found.is_empty() {
        return Err(Error::NotFound(folder::unknown(&asked.metric, &others)));
    }
    if asked.json {
        for (name, status, best, last) in found {
            out.line(json!({
                "name": name, "status": status, "metric": asked.metric,
                "best": as_number(best.value), "step": best.step, "last": as_number(last.value), "last_step": last.step,
            }))?;
        }
        return Ok(0);
    }
    let head = format!("{} {}", if lowest { "lowest" } else { "highest" }, asked.metric);
    let rows = found.into_iter().map(|(name, status, best, last)| {
        vec![
            name,
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
