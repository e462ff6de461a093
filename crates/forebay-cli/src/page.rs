//! The page that `report` writes and `serve` shows: one file, with all that it needs in it.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forebay::Image;
use forebay_history::{Distribution, Point, Run, Series};
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
    let mut runs: Vec<Value> = runs
        .iter()
        .enumerate()
        .map(|(id, (name, run))| run_of(id, name, run.as_ref(), Some(max_points), now))
        .collect();
    let mut room = MAX_PICTURES;
    for run in &mut runs {
        limit_pictures(run, &mut room);
    }
    json!({ "title": title, "read": date(now), "runs": runs })
}

/// Leaves out the pictures and texts for which there is no room.
fn limit_pictures(run: &mut Value, room: &mut usize) {
    for other in run["others"].as_array_mut().into_iter().flatten() {
        let size = |value: &Value| value.as_str().map_or(0, str::len);
        match room.checked_sub(size(&other["image"]["bytes"]) + size(&other["text"])) {
            Some(left) => *room = left,
            None => (other["image"], other["text"]) = (Value::Null, Value::Null),
        }
    }
}

/// Returns what the page shows of a run that is no number: pictures, distributions and whole texts.
pub(crate) fn media_of(run: &Run) -> Value {
    let mut all = run_of(0, "", Ok(run), None, SystemTime::now());
    limit_pictures(&mut all, &mut { MAX_PICTURES });
    all["others"].take()
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
        Ok(run) if folder::is_foreign(run) => {
            let why = Error::foreign(run.path().display()).to_string();
            return json!({ "id": id, "name": name, "status": "unreadable", "error": why });
        }
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
        .map(|(name, other)| json!({ "name": name, "count": other.count, "step": other.last_step, "last": other.last, "text": other.text, "image": other.image.as_deref().map(image_of), "heat": heat_of(other.distributions()) }))
        .collect();
    // Curves of one run have one begin, whichever of them came first.
    let first =
        || run.names().filter_map(|name| run.series(name)?.first()).map(|point| point.unix_nanos).min();
    let began = run.lives().first().and_then(|life| life.began.duration_since(UNIX_EPOCH).ok());
    let began = began.map(|began| began.as_secs_f64()).or_else(|| first().map(|nanos| nanos as f64 / 1e9));
    json!({
        "id": id,
        "name": name,
        "status": folder::status(run, now),
        "began": began,
        "reason": folder::reason(run),
        "step": run.names().filter_map(|name| run.series(name)?.last()).map(|point| point.step).max(),
        "events": run.events(),
        "lost": folder::lost(run),
        "not_read": run.not_read(),
        "took": run.took().map(folder::span),
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

/// Returns a picture: its form, its size and its bytes, in base64.
fn image_of(image: &Image) -> Value {
    json!({
        "form": image.format.to_string(),
        "width": image.width,
        "height": image.height,
        "bytes": STANDARD.encode(&image.bytes),
    })
}

/// Size of all pictures and long texts of a page, as they are in it.
const MAX_PICTURES: usize = 12_000_000;

/// Rows of a heat map.
const HEAT_ROWS: usize = 48;

/// Returns distributions as a heat map: of each step, how much of its values lies in each of the rows between the lowest and the highest
/// value of all, in thousandths.
fn heat_of(all: &[Distribution]) -> Value {
    let bins = |it: &Distribution| -> Vec<(f64, f64, f64)> {
        let edges = it.edges.windows(2).map(|edges| (edges[0], edges[1]));
        edges
            .zip(&it.counts)
            .filter(|(_, count)| **count > 0)
            .map(|((left, right), count)| (left, right, *count as f64))
            .collect()
    };
    let ends = all
        .iter()
        .flat_map(&bins)
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (left, right, _)| {
            (low.min(left), high.max(right))
        });
    let (low, high) = match ends {
        (low, high) if low > high => return Value::Null,
        (low, high) if low == high => (low - 0.5, high + 0.5),
        ends => ends,
    };
    let place = |value: f64| (value / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0) * HEAT_ROWS as f64;
    let rows = |it: &Distribution| -> Vec<u64> {
        let (mut rows, bins) = ([0.0; HEAT_ROWS], bins(it));
        let total: f64 = bins.iter().map(|(.., count)| count).sum();
        for (left, right, count) in bins {
            let (from, to) = (place(left), place(right));
            let (first, last) = ((from as usize).min(HEAT_ROWS - 1), (to as usize).min(HEAT_ROWS - 1));
            for (row, cell) in rows.iter_mut().enumerate().take(last + 1).skip(first) {
                let inside = to.min(row as f64 + 1.0) - from.max(row as f64);
                // A bin of no width is in one row.
                *cell += if to > from { count * (inside / (to - from)).max(0.0) } else { count };
            }
        }
        rows.iter().map(|count| (count / total * 1_000.0).round() as u64).collect()
    };
    json!({
        "low": low,
        "high": high,
        "steps": all.iter().map(|it| it.step).collect::<Vec<_>>(),
        "columns": all.iter().map(rows).collect::<Vec<_>>(),
    })
}

pub(crate) fn date(time: SystemTime) -> String {
    let time = time.max(UNIX_EPOCH);
    humantime::format_rfc3339_seconds(time).to_string()
}
