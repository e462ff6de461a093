//! The page that `report` writes and `serve` shows: one file, with all that it needs in it.

use std::time::{SystemTime, UNIX_EPOCH};

use forebay_history::{Point, Run, Series};
use serde_json::{Value, json};

use crate::error::Error;
use crate::folder::{self, Named};

const PAGE: &str = include_str!("../assets/page.html");

/// Parts of the page, and where each goes. uPlot 1.6.32 is by Leon Sorokin, under the MIT licence: assets/uPlot-LICENSE.
const PARTS: [(&str, &str); 4] = [
    ("/*{uplot.css}*/", include_str!("../assets/uPlot.min.css")),
    ("/*{page.css}*/", include_str!("../assets/page.css")),
    (
        "/*{uplot.js}*/",
        concat!(
            "/*! ",
            include_str!("../assets/uPlot-LICENSE"),
            "*/\n",
            include_str!("../assets/uPlot.iife.min.js")
        ),
    ),
    ("/*{page.js}*/", include_str!("../assets/page.js")),
];

/// Returns the page with these data in it.
pub(crate) fn page(data: &Value) -> String {
    page_of(&data.to_string(), false)
}

/// Returns the page that asks for its data.
pub(crate) fn live(title: &str) -> String {
    page_of(&json!({ "title": title, "read": "", "runs": [] }).to_string(), true)
}

fn page_of(data: &str, is_live: bool) -> String {
    let mut page = String::new();
    // In one pass: what is put in may look like the mark of a part.
    let mut rest = PAGE;
    while let Some(begin) = rest.find("/*{") {
        let end = rest[begin..].find("}*/").map_or(rest.len(), |end| begin + end + 3);
        page.push_str(&rest[..begin]);
        let mark = &rest[begin..end];
        match PARTS.iter().find(|(name, _)| *name == mark) {
            Some((_, part)) => page.push_str(part),
            None if mark == "/*{live}*/" => page.push_str(if is_live { "true" } else { "false" }),
            // `</script>` within a text of JSON would end the script.
            None => page.push_str(&data.replace('<', "\\u003c")),
        }
        rest = &rest[end..];
    }
    page.push_str(rest);
    page
}

/// Returns what the page shows of runs, with so many points of each series at most.
pub(crate) fn data(title: &str, runs: &[Named], max_points: usize, now: SystemTime) -> Value {
    let runs: Vec<Value> = runs
        .iter()
        .enumerate()
        .map(|(id, (name, run))| run_of(id, name, run.as_ref(), Some(max_points), now))
        .collect();
    json!({ "title": title, "read": date(now), "runs": runs })
}

/// Returns what the page shows of one run. Without `max_points`, its series are named and counted, and have no points.
pub(crate) fn run_of(
    id: usize,
    name: &str,
    run: Result<&Run, &Error>,
    max_points: Option<usize>,
    now: SystemTime,
) -> Value {
    let run = match run {
        Ok(run) => run,
        Err(error) => {
            return json!({ "id": id, "name": name, "status": "unreadable", "error": error.to_string() });
        }
    };
    let shown_of = |series: &Series| match max_points {
        Some(max_points) => series_of(series, max_points),
        None => json!({ "count": series.count(), "not_finite": series.non_finite() }),
    };
    let series: serde_json::Map<_, _> =
        run.names().filter_map(|name| Some((name.to_owned(), shown_of(run.series(name)?)))).collect();
    let others: Vec<Value> = run
        .others()
        .iter()
        .map(|(name, other)| json!({ "name": name, "count": other.count, "step": other.last_step, "last": other.last }))
        .collect();
    // Curves of one run have one begin, whichever of them came first.
    let first =
        || run.names().filter_map(|name| run.series(name)?.first()).map(|point| point.unix_nanos).min();
    let began = run.lives().first().and_then(|life| life.began.duration_since(UNIX_EPOCH).ok());
    let began = began.map(|began| began.as_secs_f64()).or_else(|| first().map(|nanos| nanos as f64 / 1e9));
    let took = run.lives().first().and_then(|life| run.last_event()?.duration_since(life.began).ok());
    json!({
        "id": id,
        "name": name,
        "status": folder::status(run, now),
        "began": began,
        "reason": folder::reason(run),
        "step": run.names().filter_map(|name| run.series(name)?.last()).map(|point| point.step).max(),
        "events": run.events(),
        "lost": run.missing(),
        "not_read": run.not_read(),
        "took": took.map(folder::span),
        "last_event": run.last_event().map(date),
        "config": run.settings(),
        "series": series,
        "others": others,
    })
}

pub(crate) fn series_of(series: &Series, max_points: usize) -> Value {
    let points = series.thinned(max_points);
    let seconds = |point: &Point| point.unix_nanos as f64 / 1e9;
    json!({
        "steps": points.iter().map(|point| point.step).collect::<Vec<_>>(),
        "times": points.iter().map(seconds).collect::<Vec<_>>(),
        // JSON has no number that is none: these are null.
        "values": points.iter().map(|point| point.value).collect::<Vec<_>>(),
        "count": series.count(),
        "not_finite": series.non_finite(),
    })
}

pub(crate) fn date(time: SystemTime) -> String {
    let time = time.max(UNIX_EPOCH);
    humantime::format_rfc3339_seconds(time).to_string()
}
