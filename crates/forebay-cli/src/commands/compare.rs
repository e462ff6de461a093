//! `forebay compare`: settings that differ, last and best values, and the curves.

use std::collections::BTreeSet;
use std::time::SystemTime;

use forebay_history::{Point, Run, Series};

use crate::args::Compare;
use crate::commands::runs::as_json;
use crate::error::Error;
use crate::folder;
use crate::out::{Out, complain, number};

/// Points of a series that are read: enough for a curve in a cell.
const MAX_POINTS: usize = 512;

/// Columns of a curve, and its levels.
const COLUMNS: usize = 20;
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

pub(crate) fn run(asked: &Compare, out: &mut Out) -> Result<u8, Error> {
    let pattern = folder::pattern(asked.metric.as_deref())?;
    let now = SystemTime::now();
    let (mut runs, mut code): (Vec<(String, Run)>, u8) = (Vec::new(), 0);
    for (name, run) in folder::read(&asked.paths, MAX_POINTS, false)? {
        match run {
            Ok(run) => runs.push((name, run)),
            Err(error) => {
                complain(&error);
                code = error.code();
            }
        }
    }
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
    rows.push(line("lost", &runs, |run| folder::lost(run).map(|lost| lost.to_string())));
    for name in all(&runs, |run| run.settings().iter().map(|(name, _)| name.to_string()).collect()) {
        let row = line(&name, &runs, |run| run.settings().get(&name).map(ToString::to_string));
        // What is the same everywhere explains nothing.
        if runs.len() == 1 || row[2..].iter().any(|value| *value != row[1]) {
            rows.push(row);
        }
    }
    let metrics = all(&runs, |run| run.names().map(str::to_owned).collect());
    if let Some(asked) = asked.metric.as_deref().filter(|_| !metrics.iter().any(|name| pattern.matches(name)))
    {
        complain(&Error::NotFound(folder::unknown(asked, &metrics)));
        return Ok(code.max(1));
    }
    for name in metrics {
        if pattern.matches(&name) {
            let of = |run: &Run, point: fn(&Series) -> Option<Point>| {
                run.series(&name)
                    .and_then(point)
                    .map(|point| format!("{} @ {}", number(point.value), point.step))
            };
            rows.push(line(&format!("{name} (last)"), &runs, |run| of(run, Series::last)));
            rows.push(line(&format!("{name} (min)"), &runs, |run| of(run, Series::min)));
            rows.push(line(&format!("{name} (max)"), &runs, |run| of(run, Series::max)));
            rows.push(curves(&name, &runs));
        }
    }
    out.table(&head, 1, rows)?;
    Ok(code)
}

/// Returns the row with the curves of a metric: all have the same axes, so that they compare.
fn curves(name: &str, runs: &[(String, Run)]) -> Vec<String> {
    let all = || runs.iter().filter_map(|(_, run)| run.series(name));
    let ends =
        |of: fn(f64, f64) -> f64, value: fn(&Series) -> Option<f64>| all().filter_map(value).reduce(of);
    let steps =
        ends(f64::min, |series| series.points().iter().map(|point| point.step as f64).reduce(f64::min)).zip(
            ends(f64::max, |series| series.points().iter().map(|point| point.step as f64).reduce(f64::max)),
        );
    let ranges: Vec<_> =
        all().filter_map(|series| Some((series.min()?.value, series.max()?.value))).collect();
    let usual = usual_size(&ranges);
    let values = ranges
        .into_iter()
        .filter(|range| size(*range) <= usual)
        .reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)));
    line(&format!("{name} (curve)"), runs, |run| {
        let (series, steps, values) = (run.series(name)?, steps?, values?);
        Some(curve(&series.points(), steps, values))
    })
}

/// How much larger than those of most curves the values of one may be.
const MAX_SIZE: f64 = 20.0;

/// Returns the largest absolute value of a curve, of its lowest and highest one.
pub(crate) fn size((low, high): (f64, f64)) -> f64 {
    low.abs().max(high.abs())
}

/// Returns the largest absolute value of curves that share an axis. That of a run that diverged would leave a flat line of all others: its own
/// curve ends at the edge.
pub(crate) fn usual_size(ranges: &[(f64, f64)]) -> f64 {
    let mut sizes: Vec<f64> = ranges.iter().copied().map(size).collect();
    sizes.sort_unstable_by(f64::total_cmp);
    match sizes.get(sizes.len().saturating_sub(1) / 2) {
        Some(middle) if *middle > 0.0 => middle * MAX_SIZE,
        _ => f64::INFINITY,
    }
}

/// Draws a curve in one line. A column has the mean of its lowest and highest value; one without a value is empty.
fn curve(points: &[Point], steps: (f64, f64), values: (f64, f64)) -> String {
    let part = |value: f64, (low, high): (f64, f64)| {
        if low < high { (value / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0) } else { 0.5 }
    };
    let place = |part: f64, count: usize| ((part * count as f64) as usize).min(count - 1);
    let mut columns: [Option<(f64, f64)>; COLUMNS] = [None; COLUMNS];
    for point in points.iter().filter(|point| point.value.is_finite()) {
        let column = &mut columns[place(part(point.step as f64, steps), COLUMNS)];
        let (low, high) = column.unwrap_or((point.value, point.value));
        *column = Some((low.min(point.value), high.max(point.value)));
    }
    let letter = |column: Option<(f64, f64)>| {
        column.map_or(' ', |(low, high)| LEVELS[place(part(low / 2.0 + high / 2.0, values), LEVELS.len())])
    };
    columns.into_iter().map(letter).collect()
}

fn all(runs: &[(String, Run)], names: impl Fn(&Run) -> Vec<String>) -> BTreeSet<String> {
    runs.iter().flat_map(|(_, run)| names(run)).collect()
}

fn line(what: &str, runs: &[(String, Run)], value: impl Fn(&Run) -> Option<String>) -> Vec<String> {
    let values = runs.iter().map(|(_, run)| value(run).unwrap_or_else(|| "-".to_owned()));
    std::iter::once(what.to_owned()).chain(values).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_with_far_larger_values_than_most_does_not_choose_the_axis() {
        assert_eq!(usual_size(&[(0.0, 1.0), (0.5, 8e7), (-1.0, 0.0)]), 20.0);
        assert_eq!(usual_size(&[(8e7, 8e7), (0.0, 1.0)]), 20.0, "of two, the smaller one");
        // A run that has just begun beside one that is done.
        assert!(size((0.2, 2.31)) <= usual_size(&[(2.30, 2.31), (0.2, 2.31)]));
        assert!(usual_size(&[(0.0, 0.0), (0.0, 9.0)]).is_infinite() && usual_size(&[]).is_infinite());
    }

    fn points(values: &[f64]) -> Vec<Point> {
        values
            .iter()
            .enumerate()
            .map(|(step, value)| Point { step: step as i64, value: *value, unix_nanos: 0 })
            .collect()
    }

    #[test]
    fn a_curve_has_a_column_for_each_stretch_of_steps_and_none_where_there_is_no_value() {
        let falling: Vec<f64> = (0..COLUMNS).map(|step| (COLUMNS - step) as f64).collect();
        let (steps, values) = ((0.0, 19.0), (1.0, 20.0));
        assert_eq!(curve(&points(&falling), steps, values), "███▇▇▆▆▆▅▅▄▄▃▃▃▂▂▁▁▁");
        // A run that is shorter than the others; a number that is none; a curve that is flat; values that are too far from each other.
        assert_eq!(curve(&points(&falling[..3]), steps, values), "███                 ");
        assert_eq!(curve(&points(&[1.0, f64::NAN, 20.0]), (0.0, 2.0), values), "▁                  █");
        assert_eq!(curve(&points(&[3.0, 3.0]), (0.0, 1.0), (3.0, 3.0)), "▅                  ▅");
        assert_eq!(
            curve(&points(&[f64::MIN, f64::MAX]), (0.0, 1.0), (f64::MIN, f64::MAX)),
            "▁                  █"
        );
        assert_eq!(curve(&[], steps, values), " ".repeat(COLUMNS));
    }
}
