//! `forebay import`: what other programs wrote, as runs of JSON Lines.

mod rows;
mod wandb;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use forebay::Value;
use forebay_history::{RecordFollower, find_runs};

use crate::args::{Import, Source};
use crate::error::Error;
use crate::folder;
use crate::out::{Out, Written, count, note};
use crate::progress::Progress;

use rows::{STEPS, TIMES, Writer, modified, number, object, seconds, whole, with_words};

/// Longest row, or whole array, that is read.
const MAX_BYTES: u64 = 1 << 30;

pub(crate) fn run(asked: &Import, out: &mut Out) -> Result<u8, Error> {
    let failed = |error: std::io::Error| Error::Asked(format!("{}: {error}", asked.path.display()));
    let end = asked.path.extension().and_then(|end| end.to_str()).unwrap_or_default().to_lowercase();
    let is_stdin = folder::is_stdin(&asked.path);
    if is_stdin && !matches!(asked.from, Some(Source::Csv | Source::Json)) {
        return Err(Error::Asked("standard input takes --from csv or --from json".to_owned()));
    }
    let is_folder = !is_stdin && std::fs::metadata(&asked.path).map_err(failed)?.is_dir();
    let from = match (asked.from, end.as_str()) {
        (Some(from), _) => from,
        (None, "csv") if !is_folder => Source::Csv,
        (None, "json" | "jsonl" | "ndjson") if !is_folder => Source::Json,
        (None, "wandb") if !is_folder => Source::Wandb,
        // The folder of a run, or that of all runs.
        _ if is_folder => {
            let has_wandb = wandb::find(&asked.path).is_ok_and(|found| !found.is_empty());
            match (has_wandb, find_runs(&asked.path)?.is_empty()) {
                (true, false) => {
                    let place = asked.path.display();
                    return Err(Error::Asked(format!(
                        "--from must be tensorboard or wandb where there are files of both, got none: {place}"
                    )));
                }
                (_, true) => Source::Wandb,
                (false, false) => Source::Tensorboard,
            }
        }
        _ => Source::Tensorboard,
    };
    let found: Vec<(PathBuf, PathBuf)> = match from {
        Source::Tensorboard => {
            let place = |run: &PathBuf| run.strip_prefix(&asked.path).unwrap_or(Path::new("")).to_owned();
            find_runs(&asked.path)?.into_iter().map(|run| (run.clone(), place(&run))).collect()
        }
        Source::Wandb => wandb::find(&asked.path).map_err(failed)?,
        Source::Csv | Source::Json => vec![(asked.path.clone(), PathBuf::new())],
    };
    if found.is_empty() {
        let place = asked.path.display();
        return Err(Error::Asked(match from {
            Source::Wandb => format!("there are neither event files nor files of wandb in {place}"),
            _ => format!("there are no event files in {place}"),
        }));
    }
    let (paths, places): (Vec<PathBuf>, Vec<PathBuf>) = found.into_iter().unzip();
    let places = apart(&places).into_iter().map(|place| asked.out.join(place));
    let runs: Vec<(PathBuf, PathBuf)> = paths.into_iter().zip(places).collect();
    // Before anything is written.
    for (_, to) in &runs {
        let file = to.join("events.jsonl");
        if file.exists() {
            return Err(Error::Asked(format!("--out must have no run yet, {} is there", file.display())));
        }
    }
    if from == Source::Wandb {
        runs.iter().try_for_each(|(file, _)| wandb::check(file))?;
    }
    let (mut all, mut written, mut left_out, mut damaged) = (0, 0, 0, 0);
    let progress = Progress::of(runs.iter().map(|(from, _)| from));
    for (from_path, to) in &runs {
        progress.step();
        let mut writer = Writer::new(to)?;
        match from {
            Source::Tensorboard => damaged += tensorboard(from_path, &mut writer)?,
            Source::Csv => csv(from_path, &mut writer)?,
            Source::Json => json(from_path, &mut writer)?,
            Source::Wandb => damaged += wandb::read(from_path, &mut writer)?,
        }
        writer.end()?;
        all += writer.count;
        written += usize::from(writer.count > 0);
        left_out += writer.left_out;
    }
    if left_out > 0 {
        note(&format!("{} left out: neither numbers nor texts", count(left_out, "value")));
    }
    if damaged > 0 {
        note(&format!("{} passed over: damaged", count(damaged, "place")));
    }
    if written < runs.len() {
        note(&format!("{} without an event", count((runs.len() - written) as u64, "run")));
    }
    Written { path: &asked.out, what: "event", count: all, runs: written, left_out }
        .report(asked.json, out)?;
    Ok(u8::from(all == 0))
}

/// Returns the places of runs, changed so that none is that of two, or above that of another: what lies below a run is part of it.
fn apart(places: &[PathBuf]) -> Vec<PathBuf> {
    let above: BTreeSet<&Path> = places.iter().flat_map(|place| place.ancestors().skip(1)).collect();
    let mut taken = BTreeSet::new();
    let mut own = Vec::new();
    for place in places {
        let mut place = place.clone();
        if above.contains(&*place) {
            place.push("run");
        }
        let (name, mut number) = (place.file_name().unwrap_or_default().to_owned(), 1_u64);
        while above.contains(&*place) || !taken.insert(place.clone()) {
            number += 1;
            let mut name = name.clone();
            name.push(format!("-{number}"));
            place.set_file_name(name);
        }
        own.push(place);
    }
    own
}

/// Reads event files. Returns how many of their places were damaged.
fn tensorboard(path: &Path, writer: &mut Writer) -> Result<u64, Error> {
    let mut follower = RecordFollower::open(path)?;
    follower.poll(&mut |record| match record.value() {
        Value::Empty => writer.left_out += 1,
        _ => writer.push(record),
    })?;
    match follower.unreadable() {
        Some(error) => Err(error.into()),
        None => Ok(follower.not_read()),
    }
}

/// Reads CSV with a head: a table with a column for each metric, one with `name` and `value`, or that of TensorBoard's download (`Wall time`,
/// `Step`, `Value`), whose metric has the name of the file.
fn csv(path: &Path, writer: &mut Writer) -> Result<(), Error> {
    let failed = |error: std::io::Error| Error::Asked(format!("{}: {error}", path.display()));
    let (lines, or_time) = lines_of(path).map_err(failed)?;
    let mut rows = Rows { lines, number: 0 };
    let wrong = |number: u64, what: &str| Error::Asked(format!("{}, line {number}: {what}", path.display()));
    let head = match rows.next() {
        Ok(Some(head)) if head.len() > 1 => head,
        Ok(_) => return Err(wrong(1, "a table begins with the names of its columns")),
        Err(error) => return Err(failed(error)),
    };
    let head: Vec<String> =
        head.iter().map(|name| name.trim_start_matches('\u{feff}').trim().to_owned()).collect();
    let of = |names: &[&str]| {
        let is_it = |name: &&str| head.iter().position(|column| column.eq_ignore_ascii_case(name));
        names.iter().find_map(is_it)
    };
    let (step, time, name, value) = (of(&STEPS), of(&TIMES), of(&["name", "tag", "metric"]), of(&["value"]));
    let stem = path.file_stem().filter(|_| !folder::is_stdin(path));
    let stem = stem.map_or_else(|| "value".to_owned(), |stem| stem.to_string_lossy().into_owned());
    loop {
        let row = match rows.next() {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        if row.len() == 1 && row[0].is_empty() {
            continue;
        }
        if row.len() != head.len() {
            let what = format!("it has {} values, and the head has {} names", row.len(), head.len());
            return Err(wrong(rows.number, &what));
        }
        let step = match step.map(|step| row[step].trim()).filter(|step| !step.is_empty()) {
            Some(text) => match whole(text) {
                Some(step) => Some(step),
                None => {
                    return Err(wrong(rows.number, &format!("a step must be a whole number, got {text:?}")));
                }
            },
            None => None,
        };
        let time_of = |text: &str| {
            text.parse().ok().and_then(seconds).or_else(|| humantime::parse_rfc3339_weak(text).ok())
        };
        let time = time.and_then(|time| time_of(row[time].trim())).unwrap_or(or_time);
        let mut take = |name: &str, text: &str| match number(text) {
            Some(value) => writer.value(name, value, step, time),
            None if text.trim().is_empty() => {}
            None => writer.left_out += 1,
        };
        match (name, value) {
            (Some(name), Some(value)) => take(&row[name], &row[value]),
            (None, Some(value)) => take(&stem, &row[value]),
            _ => {
                for (place, text) in row.iter().enumerate() {
                    let name = head[place].as_str();
                    if Some(place) != of(&STEPS) && Some(place) != of(&TIMES) && !name.starts_with('_') {
                        take(name, text);
                    }
                }
            }
        }
    }
}

/// Reads objects, in lines or in an array, each with the values of one step: what `run.history()` and `scan_history()` of wandb give, and what
/// many loops write. What begins with `_` is bookkeeping, but for the step and the moment.
fn json(path: &Path, writer: &mut Writer) -> Result<(), Error> {
    let failed = |error: std::io::Error| Error::Asked(format!("{}: {error}", path.display()));
    let (mut lines, or_time) = lines_of(path).map_err(failed)?;
    let first = lines.fill_buf().map_err(failed)?.iter().copied().find(|byte| !byte.is_ascii_whitespace());
    let wrong = |number: u64, error: &dyn std::fmt::Display| {
        Error::Asked(format!("{}, line {number}: {error}", path.display()))
    };
    if first == Some(b'[') {
        let mut text = Vec::new();
        lines.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(failed)?;
        if text.len() as u64 > MAX_BYTES {
            return Err(wrong(1, &"an array must be below 1 GiB: write an object in each line"));
        }
        let rows: Vec<serde_json::Value> =
            serde_json::from_slice(&with_words(text)).map_err(|error| wrong(error.line() as u64, &error))?;
        for (number, row) in rows.iter().enumerate() {
            object(row, or_time, writer).map_err(|what| wrong(number as u64 + 1, &what))?;
        }
        return Ok(());
    }
    let (mut line, mut number) = (Vec::new(), 0);
    loop {
        line.clear();
        number += 1;
        if (&mut lines).take(MAX_BYTES).read_until(b'\n', &mut line).map_err(failed)? == 0 {
            return Ok(());
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let row = serde_json::from_slice(&with_words(std::mem::take(&mut line)))
            .map_err(|error| wrong(number, &error))?;
        object(&row, or_time, writer).map_err(|what| wrong(number, &what))?;
    }
}

/// Opens a file, or standard input, and returns when it was written.
fn lines_of(path: &Path) -> std::io::Result<(Box<dyn BufRead>, SystemTime)> {
    if folder::is_stdin(path) {
        return Ok((Box::new(std::io::stdin().lock()), SystemTime::now()));
    }
    let file = std::fs::File::open(path)?;
    let written = modified(&file);
    Ok((Box::new(BufReader::new(file)), written))
}

/// Rows of CSV: <https://www.rfc-editor.org/rfc/rfc4180>.
struct Rows<R> {
    lines: R,
    /// Of the line that was read last, from 1.
    number: u64,
}

impl<R: BufRead> Rows<R> {
    fn next(&mut self) -> std::io::Result<Option<Vec<String>>> {
        let (mut row, mut quotes) = (Vec::new(), 0_usize);
        loop {
            let read = (&mut self.lines).take(MAX_BYTES).read_until(b'\n', &mut row)?;
            if read == 0 {
                break;
            }
            self.number += 1;
            quotes += row[row.len() - read..].iter().filter(|byte| **byte == b'"').count();
            // A line may end within quotes.
            if row.len() as u64 >= MAX_BYTES || quotes.is_multiple_of(2) {
                break;
            }
        }
        if row.is_empty() {
            return Ok(None);
        }
        let row = String::from_utf8_lossy(&row);
        let row = row.strip_suffix('\n').unwrap_or(&row);
        let row = row.strip_suffix('\r').unwrap_or(row);
        let (mut cells, mut cell, mut is_quoted) = (Vec::new(), String::new(), false);
        let mut letters = row.chars().peekable();
        while let Some(letter) = letters.next() {
            match letter {
                '"' if is_quoted && letters.peek() == Some(&'"') => {
                    letters.next();
                    cell.push('"');
                }
                '"' => is_quoted = !is_quoted,
                ',' if !is_quoted => cells.push(std::mem::take(&mut cell)),
                letter => cell.push(letter),
            }
        }
        cells.push(cell);
        Ok(Some(cells))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_run_is_in_the_place_of_another_or_above_it() {
        let of = |places: &[&str]| -> Vec<String> {
            let places: Vec<PathBuf> = places.iter().map(PathBuf::from).collect();
            apart(&places).iter().map(|place| place.display().to_string()).collect()
        };
        assert_eq!(of(&[""]), [""]);
        assert_eq!(of(&["a", "b/c"]), ["a", "b/c"]);
        assert_eq!(of(&["", "eval"]), ["run", "eval"]);
        assert_eq!(of(&["", "run", "run/x"]), ["run-2", "run/run", "run/x"]);
        assert_eq!(of(&["a", "b", "a"]), ["a", "b", "a-2"]);
        assert_eq!(of(&["a", "a", "a-2/x", "a-2"]), ["a", "a-3", "a-2/x", "a-2/run"]);
    }

    #[test]
    fn rows_of_csv_have_quotes_and_ends_of_lines_within_them() {
        let text = "a,\"b,c\",\"d \"\"e\"\"\"\r\n1,\"two\nlines\",\n\nlast,,";
        let mut rows = Rows { lines: text.as_bytes(), number: 0 };
        let mut all = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            all.push(row);
        }
        assert_eq!(
            all,
            [vec!["a", "b,c", "d \"e\""], vec!["1", "two\nlines", ""], vec![""], vec!["last", "", ""]]
        );
    }
}
