//! `forebay export`: runs in the forms of other programs.

#[cfg(feature = "parquet")]
mod parquet;

use std::io::Write;
use std::path::Path;

use forebay::sink::{BackwardStep, Sink, Tags, TensorBoardSink};
use forebay::{Batch, Event, Pattern, Record, Value};
use forebay_history::{Format, values};

use crate::args::{Export, To};
use crate::broker;
use crate::error::Error;
use crate::file::Beside;
use crate::folder;
use crate::out::{Out, Written, count, csv, json_of, note};
use crate::progress::Progress;

/// Records of a batch.
const BATCH: usize = 1_000;

pub(crate) fn run(asked: &Export, out: &mut Out) -> Result<u8, Error> {
    let pattern = folder::pattern(asked.name.as_deref())?;
    let form = match (asked.to, asked.out.extension().and_then(|end| end.to_str())) {
        (Some(form), _) => form,
        (None, Some("csv")) => To::Csv,
        (None, Some("jsonl" | "json")) => To::Json,
        (None, Some("parquet" | "pq")) => To::Parquet,
        (None, _) => {
            let path = asked.out.display();
            return Err(Error::Asked(format!(
                "--to says in which form, unless the file ends in .csv, .jsonl or .parquet, got {path}"
            )));
        }
    };
    let runs = folder::find(&asked.folders.paths)?;
    let _progress = Progress::of(runs.iter().map(|(_, path)| path));
    if asked.json && asked.out == Path::new("-") && form != To::Tensorboard {
        return Err(Error::Asked(
            "--json says what was written, and --out - has that on standard output".to_owned(),
        ));
    }
    if form == To::Tensorboard {
        return to_tensorboard(&runs, &pattern, asked, out);
    }
    if form == To::Parquet && asked.out == Path::new("-") {
        return Err(Error::Asked(
            "--out must name a file for --to parquet, which is no text, got -".to_owned(),
        ));
    }
    if asked.out == Path::new("-") {
        return to_lines(&runs, &pattern, form, out).map(|(count, _)| u8::from(count == 0));
    }
    let failed = |error: std::io::Error| Error::Asked(format!("{}: {error}", asked.out.display()));
    let mut file = Beside::of(&asked.out).map_err(failed)?;
    let written = match form {
        To::Parquet => to_parquet(&runs, &pattern, &mut file),
        _ => to_lines(&runs, &pattern, form, &mut file),
    };
    let (count, left_out) = written.map_err(|error| match error {
        Error::Write(error) => failed(error),
        other => other,
    })?;
    file.commit().map_err(failed)?;
    let what = if form == To::Json { "event" } else { "value" };
    Written { path: &asked.out, what, count, runs: runs.len(), left_out }.report(asked.json, out)?;
    Ok(u8::from(count == 0))
}

/// Gives every record of a run that is asked for to `take`, until that fails. Says how much of its files was passed over.
fn each(
    path: &Path,
    pattern: &Pattern,
    take: &mut dyn FnMut(Record) -> Result<(), Error>,
) -> Result<(), Error> {
    let (mut follower, mut broken) = (folder::follow(path)?, Ok(()));
    follower.poll(&mut |record| {
        if broken.is_ok() && pattern.matches(Event::name(&record)) {
            broken = take(record);
        }
    })?;
    broken?;
    if let Some(error) = follower.unreadable() {
        return Err(error.into());
    }
    if follower.not_read() > 0 {
        note(&format!(
            "{}: {} passed over: no events",
            broker::shown(path),
            count(follower.not_read(), "place")
        ));
    }
    Ok(())
}

/// Writes numbers as CSV, or whole events as JSON Lines. Returns how many, and how many values were left out, since they are no numbers.
fn to_lines(
    runs: &[(String, std::path::PathBuf)],
    pattern: &Pattern,
    form: To,
    out: &mut dyn Write,
) -> Result<(u64, u64), Error> {
    let (mut count, mut left_out) = (0, 0);
    if form == To::Csv {
        writeln!(out, "run,name,step,time,value")?;
    }
    for (run, path) in runs {
        each(path, pattern, &mut |record| {
            if form == To::Json {
                count += 1;
                let run = (runs.len() > 1).then_some(run.as_str());
                return Ok(writeln!(out, "{}", json_of(&record, run))?);
            }
            let time = humantime::format_rfc3339_nanos(record.time()).to_string();
            let mut written = Ok(());
            values(&record, &mut |name, value, step| {
                let value = match value {
                    Value::Scalar(value) => value.to_string(),
                    Value::Integer(value) => value.to_string(),
                    Value::Bool(value) => u8::from(*value).to_string(),
                    _ => {
                        left_out += 1;
                        return;
                    }
                };
                count += 1;
                let step = step.map_or_else(String::new, |step| step.to_string());
                if written.is_ok() {
                    written = writeln!(out, "{}", csv(&[run.as_str(), name, &step, &time, &value]));
                }
            });
            Ok(written?)
        })?;
    }
    Ok((count, left_out))
}

/// Writes numbers as Parquet. Returns how many, and how many values were left out, since they are no numbers.
#[cfg(feature = "parquet")]
fn to_parquet(
    runs: &[(String, std::path::PathBuf)],
    pattern: &Pattern,
    file: &mut (dyn Write + Send),
) -> Result<(u64, u64), Error> {
    let failed = |error: ::parquet::errors::ParquetError| Error::Write(std::io::Error::other(error));
    let (mut numbers, mut count, mut left_out) = (parquet::Numbers::new(file).map_err(failed)?, 0, 0);
    for (run, path) in runs {
        let run = ::parquet::data_type::ByteArray::from(run.as_str());
        each(path, pattern, &mut |record| {
            let (unix_nanos, mut written) = (record.unix_nanos(), Ok(()));
            values(&record, &mut |name, value, step| match number_of(value) {
                None => left_out += 1,
                Some(value) => {
                    count += 1;
                    if written.is_ok() {
                        written = numbers.push(&run, name, step, unix_nanos, value);
                    }
                }
            });
            written.map_err(failed)
        })?;
    }
    numbers.end().map_err(failed)?;
    Ok((count, left_out))
}

#[cfg(not(feature = "parquet"))]
fn to_parquet(
    _: &[(String, std::path::PathBuf)],
    _: &Pattern,
    _: &mut dyn Write,
) -> Result<(u64, u64), Error> {
    Err(Error::Asked("this forebay was built without its feature `parquet`".to_owned()))
}

/// Returns the number that a value is, as Parquet has it: of 64 bits, so that integers beyond 2^53 are rounded. A truth value is 0 or 1.
#[cfg(feature = "parquet")]
fn number_of(value: &Value) -> Option<f64> {
    match value {
        Value::Scalar(value) => Some(*value),
        Value::Integer(value) => Some(*value as f64),
        Value::Bool(value) => Some(f64::from(*value)),
        _ => None,
    }
}

/// Writes a folder of event files for each run.
fn to_tensorboard(
    runs: &[(String, std::path::PathBuf)],
    pattern: &Pattern,
    asked: &Export,
    out: &mut Out,
) -> Result<u8, Error> {
    let to = asked.out.as_path();
    if std::fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Error::Asked(format!("--out must be an empty folder or none, got {}", to.display())));
    }
    let (mut count, mut refused) = (0_u64, 0_u64);
    for (run, path) in runs {
        let folder = if runs.len() > 1 { to.join(below(run)) } else { to.to_owned() };
        let failed = |error: std::io::Error| Error::Asked(format!("{}: {error}", folder.display()));
        let sink = TensorBoardSink::create(&folder).map_err(failed)?.backward_steps(BackwardStep::Write);
        // What was TensorBoard's has its tags already.
        let mut sink = match folder::open_run(path)?.format() {
            Format::TensorBoard => sink.tags(Tags::Verbatim),
            _ => sink,
        };
        let mut batch = Vec::new();
        let mut write = |batch: &mut Vec<Record>| {
            let all = batch.len() as u64;
            let written = sink.write_batch(&Batch::from_events(std::mem::take(batch)));
            let failed = written.as_ref().err().map_or(0, |error| error.failed_events().unwrap_or(all));
            count += all - failed.min(all);
            refused += failed;
        };
        each(path, pattern, &mut |record| {
            batch.push(record);
            if batch.len() >= BATCH {
                write(&mut batch);
            }
            Ok(())
        })?;
        write(&mut batch);
        Sink::<Record>::flush(&mut sink)
            .map_err(|error| Error::Asked(format!("{}: {error}", folder.display())))?;
    }
    if refused > 0 {
        note(&format!("{refused} events could not be written: TensorBoard has no form for them"));
    }
    Written { path: to, what: "event", count, runs: runs.len(), left_out: refused }
        .report(asked.json, out)?;
    Ok(u8::from(count == 0))
}

/// Returns the path of a run as one below another folder.
fn below(run: &str) -> std::path::PathBuf {
    use std::path::Component;
    Path::new(run).components().filter(|part| matches!(part, Component::Normal(_))).collect()
}
