//! `forebay report`: one page with all curves, settings and losses.

use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

use serde_json::json;

use crate::args::Report;
use crate::error::Error;
use crate::out::{Out, count, note};
use crate::{file, folder, page};

/// Size of a page that a browser shows at once.
const MAX_BYTES: usize = 20_000_000;

/// Fewer points of a curve show nothing.
const MIN_POINTS: usize = 64;

pub(crate) fn run(asked: &Report, out: &mut Out) -> Result<u8, Error> {
    if asked.out == Path::new("-") && asked.json {
        return Err(Error::Asked(
            "--json says what was written, and --out - has that on standard output".to_owned(),
        ));
    }
    let runs = folder::read(&asked.folders.paths, asked.points, true)?;
    let (title, now) = (folder::title(&asked.folders.paths), SystemTime::now());
    let render = |points: usize| page::page(&page::data(&title, &runs, points, now));
    let (mut points, mut page) = (asked.points, render(asked.points));
    while page.len() > MAX_BYTES && points > MIN_POINTS {
        points = (points / 2).max(MIN_POINTS);
        page = render(points);
    }
    if points < asked.points {
        note(&format!(
            "each curve has {points} points at most, so that the page has {} MB",
            page.len() / 1_000_000
        ));
    }
    if asked.out == Path::new("-") {
        out.write_all(page.as_bytes())?;
        return Ok(0);
    }
    file::replace(&asked.out, page.as_bytes())
        .map_err(|error| Error::Asked(format!("{}: {error}", asked.out.display())))?;
    if asked.json {
        let (path, unreadable) =
            (asked.out.display().to_string(), runs.iter().filter(|(_, run)| run.is_err()).count());
        out.json(json!({ "path": path, "runs": runs.len(), "unreadable": unreadable, "bytes": page.len() }))?;
        return Ok(0);
    }
    let of = count(runs.len() as u64, "run");
    out.line(format_args!("{} ({of}, {} kB)", asked.out.display(), page.len() / 1000))?;
    Ok(0)
}
