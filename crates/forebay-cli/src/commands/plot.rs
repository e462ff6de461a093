//! `forebay plot`: one chart, in the terminal or as an image.

use std::path::Path;

use forebay_history::{Run, Series};
use serde_json::json;

use crate::args::{Across, Plot};
use crate::chart::{self, Area, Axes, Curve, Grid, Style};
use crate::commands::compare::{size, usual_size};
use crate::commands::runs::as_number;
use crate::error::Error;
use crate::out::{Out, count, note, number};
use crate::{file, folder, image, screen};

/// Points of a curve that are read: more than a terminal or an image shows.
const MAX_POINTS: usize = 16_384;

/// Curves of one chart. More look alike.
const MAX_CURVES: usize = 20;

pub(crate) fn run(asked: &Plot, out: &mut Out) -> Result<u8, Error> {
    let pattern = folder::pattern(Some(&asked.metric))?;
    let form = asked.out.as_deref().map(form_of).transpose()?;
    let runs = folder::read(&asked.folders.paths, MAX_POINTS, false)?;
    let (mut curves, mut others) = (Vec::new(), std::collections::BTreeSet::new());
    let mut metrics = std::collections::BTreeSet::new();
    let mut left_out = 0;
    for (run_name, run) in &runs {
        let Ok(run) = run else { continue };
        for name in run.names() {
            let Some(series) = run.series(name).filter(|_| pattern.matches(name)) else {
                others.insert(name.to_owned());
                continue;
            };
            if curves.len() >= MAX_CURVES {
                left_out += 1;
                continue;
            }
            metrics.insert(name.to_owned());
            if let Some(first) = series.first_non_finite().filter(|_| !asked.json) {
                let values = count(series.non_finite(), "value");
                note(&format!(
                    "{run_name}: {name} has {values} not finite, from step {} on: they are left out",
                    first.step
                ));
            }
            let mut points = points_of(series, run, asked.across);
            chart::smooth(&mut points, asked.smooth);
            curves.push((run_name.as_str(), name, points));
        }
    }
    if curves.is_empty() {
        return Err(Error::NotFound(folder::unknown(&asked.metric, &others)));
    }
    if left_out > 0 {
        note(&format!("{left_out} more curves are left out: name runs, or a narrower pattern"));
    }
    if asked.json {
        let points = |points: &[(f64, f64)]| -> Vec<_> {
            points.iter().map(|(across, value)| json!([as_number(*across), as_number(*value)])).collect()
        };
        let across = if asked.across == Across::Step { "step" } else { "seconds" };
        for (run, name, own) in &curves {
            out.json(json!({ "run": run, "name": name, "across": across, "points": points(own) }))?;
        }
        return Ok(0);
    }
    let range = |points: &[(f64, f64)]| {
        let values = points.iter().map(|(_, value)| *value).filter(|value| value.is_finite());
        values
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
    };
    let ranges: Vec<_> =
        curves.iter().map(|(.., points)| range(points)).filter(|(low, high)| low <= high).collect();
    let usual = usual_size(&ranges);
    // Curves of several metrics are of several sizes.
    for (run, name, points) in curves.iter().filter(|_| metrics.len() == 1 && !asked.log) {
        let (low, high) = range(points);
        if low <= high && size((low, high)) > usual {
            let (low, high) = (number(low), number(high));
            note(&format!(
                "{run}: {name} goes from {low} to {high}, far beyond most: name the other runs, or try --log"
            ));
        }
    }
    let has_names = metrics.len() > 1;
    let curves: Vec<Curve> = curves
        .into_iter()
        .enumerate()
        .map(|(colour, (run, name, points))| {
            let name = if has_names { format!("{run}: {name}") } else { run.to_owned() };
            Curve { name, colour, points }
        })
        .collect();
    let axes = Axes { is_log: asked.log, across: None };
    let below = match asked.across {
        Across::Step => "step",
        Across::Time => "seconds since the begin",
    };
    let title = if has_names { asked.metric.clone() } else { metrics.into_iter().next().unwrap_or_default() };
    if let Some(path) = &asked.out {
        let image = match form {
            Some(Form::Png) => image::png(&title, below, &curves, axes)
                .map_err(|error| Error::Asked(format!("{}: {error}", path.display())))?,
            _ => image::svg(&title, below, &curves, axes).into_bytes(),
        };
        if path == Path::new("-") {
            std::io::Write::write_all(out, &image)?;
        } else {
            file::replace(path, &image)
                .map_err(|error| Error::Asked(format!("{}: {error}", path.display())))?;
            out.line(format_args!("{} ({})", path.display(), count(curves.len() as u64, "curve")))?;
        }
        return Ok(0);
    }
    let (columns, rows) = screen::size().unwrap_or((80, 24));
    let width = asked.width.unwrap_or(columns).clamp(10, 1_000);
    let height = asked.height.unwrap_or(rows.saturating_sub(curves.len() + 3).clamp(8, 24)).clamp(2, 500);
    let has_colours = out.has_colours();
    let has_letters = curves.len() > 1 && !has_colours;
    let mut grid = Grid::new(width, height + 1 + curves.len());
    let taken = grid.text(0, 0, width, &title, Style { is_bold: true, ..Style::default() });
    grid.text(taken + 2, 0, width, &format!("({below})"), Style::of(245));
    chart::draw(&mut grid, Area { left: 0, top: 1, width, height }, &curves, axes, has_letters);
    for (place, curve) in curves.iter().enumerate() {
        let style = Style::of(chart::colour(curve.colour));
        let mark = chart::letter(place).filter(|_| has_letters).unwrap_or('━');
        let row = height + 1 + place;
        let at = grid.text(0, row, width, &format!("{mark} "), style);
        let last = curve.points.last().map_or_else(String::new, |(_, value)| format!("  {}", number(*value)));
        let at = at
            + grid.text(
                at,
                row,
                width.saturating_sub(crate::out::width(&last)),
                &curve.name,
                Style::default(),
            );
        grid.text(at, row, width, &last, Style::of(245));
    }
    for line in grid.lines(has_colours) {
        out.line(line)?;
    }
    Ok(0)
}

/// Form of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Svg,
    Png,
}

/// Returns the form that the end of a name stands for.
fn form_of(path: &Path) -> Result<Form, Error> {
    let end = path.extension().and_then(|end| end.to_str()).unwrap_or_default().to_ascii_lowercase();
    match end.as_str() {
        "svg" => Ok(Form::Svg),
        "png" => Ok(Form::Png),
        _ if path == Path::new("-") => Ok(Form::Svg),
        _ => Err(Error::Asked(format!("--out must end in .svg or .png, got {}", path.display()))),
    }
}

/// Returns the points of a series, from left to right.
pub(crate) fn points_of(series: &Series, run: &Run, across: Across) -> Vec<(f64, f64)> {
    let points = series.points();
    // The begin of the run, where it is known: curves of one run begin at different times.
    let begin = run.lives().first().and_then(|life| life.began.duration_since(std::time::UNIX_EPOCH).ok());
    let begin = begin.map_or(f64::INFINITY, |begin| begin.as_nanos() as f64);
    let begin = points.iter().fold(begin, |begin, point| begin.min(point.unix_nanos as f64));
    let mut points: Vec<(f64, f64)> = points
        .iter()
        .map(|point| match across {
            Across::Step => (point.step as f64, point.value),
            Across::Time => ((point.unix_nanos as f64 - begin) / 1e9, point.value),
        })
        .collect();
    if !points.is_sorted_by(|one, other| one.0 <= other.0) {
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
    }
    points
}
