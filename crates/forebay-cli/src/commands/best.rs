//! `forebay best`: runs by the best value of a metric.

use std::collections::BTreeSet;
use std::time::SystemTime;

use forebay_history::Point;
use serde_json::json;

use crate::args::Best;
use crate::commands::runs::as_number;
use crate::error::Error;
use crate::folder;
use crate::out::{Out, note, number, short};

/// Names of metrics that are remembered, for who has asked for one that is not there.
const MAX_OTHERS: usize = 1_000;

pub(crate) fn run(asked: &Best, out: &mut Out) -> Result<u8, Error> {
    let lowest = asked.min || !asked.max && is_better_low(&asked.metric);
    let now = SystemTime::now();
    let mut found: Vec<(String, &'static str, Point, Point)> = Vec::new();
    // Runs that cannot be compared, and why.
    let mut without: Vec<(String, &'static str, String)> = Vec::new();
    let mut others = BTreeSet::new();
    folder::read_whole(&asked.folders.paths, &mut |name, run| {
        let run = match run {
            Ok(run) => run,
            Err(error) => {
                without.push((name, "unreadable", error.to_string()));
                return Ok(());
            }
        };
        let status = folder::status(&run, now);
        match run.series(&asked.metric) {
            None => {
                let room = MAX_OTHERS.saturating_sub(others.len());
                others.extend(run.names().take(room).map(str::to_owned));
            }
            Some(series) => match (if lowest { series.min() } else { series.max() }, series.last()) {
                (Some(best), Some(last)) => found.push((name, status, best, last)),
                _ => without.push((name, status, "no finite value".to_owned())),
            },
        }
        Ok(())
    })?;
    found.sort_by(|(.., one, _), (.., other, _)| {
        let order = one.value.total_cmp(&other.value);
        if lowest { order } else { order.reverse() }
    });
    let is_without_any = found.is_empty() && without.iter().all(|(_, status, _)| *status == "unreadable");
    if is_without_any && (without.is_empty() || !others.is_empty()) {
        without.iter().for_each(|(.., why)| note(why));
        return Err(Error::NotFound(folder::unknown(&asked.metric, &others)));
    }
    let code = match (found.is_empty(), is_without_any) {
        (false, _) => 0,
        (true, false) => 1,
        (true, true) => 2,
    };
    if asked.json {
        for (name, status, best, last) in found {
            out.json(json!({
                "name": name, "status": status, "metric": asked.metric,
                "best": as_number(best.value), "step": best.step, "last": as_number(last.value), "last_step": last.step,
            }))?;
        }
        for (name, status, why) in without {
            out.json(
                json!({"name": name, "status": status, "metric": asked.metric, "best": null, "error": why}),
            )?;
        }
        return Ok(code);
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
    let unknown = || "-".to_owned();
    let without = without.into_iter().map(|(name, status, why)| {
        vec![name, short(&why, 60), unknown(), unknown(), unknown(), status.to_owned()]
    });
    out.table(&["run", &head, "at step", "last", "at step", "status"], 1, rows.chain(without))?;
    Ok(code)
}

/// Words in the name of a metric of which a low value is a good one.
const LOW: [&str; 9] = ["loss", "err", "error", "perplexity", "ppl", "rmse", "mae", "mse", "nll"];

/// Returns whether a low value of a metric is a good one, by the words of its name: `val_loss`, `eval/errorRate`.
fn is_better_low(metric: &str) -> bool {
    // A capital behind a small letter begins a word, too.
    let (mut words, mut before) = (String::new(), ' ');
    for letter in metric.chars() {
        if letter.is_uppercase() && before.is_lowercase() {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
        before = letter;
    }
    words.split(|letter: char| !letter.is_alphabetic()).any(|word| LOW.contains(&word) || word == "losses")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_is_better_by_whole_words() {
        for name in ["loss", "val_loss", "train.loss", "eval/errorRate", "MSE", "rmse_5", "valLoss", "err"] {
            assert!(is_better_low(name), "{name}");
        }
        for name in ["accuracy", "preferred_rate", "applied", "terrain", "closs", "f1", "glossary"] {
            assert!(!is_better_low(name), "{name}");
        }
    }
}
