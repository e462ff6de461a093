//! Rows of values with a step and a moment, as other programs have them, on their way into a run of JSON Lines.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use forebay::sink::{JsonLinesSink, Sink};
use forebay::{Batch, Histogram, Record, Value};

use crate::error::Error;

/// Records of a batch.
const BATCH: usize = 1_000;

/// Names of columns, in small letters, that have the step or the moment of their row.
pub(super) const STEPS: [&str; 6] =
    ["_step", "step", "global_step", "iteration", "trainer/global_step", "steps"];
pub(super) const TIMES: [&str; 6] = ["_timestamp", "timestamp", "wall time", "wall_time", "time", "date"];

/// Writer of one run.
pub(super) struct Writer {
    folder: PathBuf,
    sink: JsonLinesSink,
    batch: Vec<Record>,
    pub(super) count: u64,
    /// Values that have no form in JSON Lines.
    pub(super) left_out: u64,
    broken: Result<(), Error>,
}

impl Writer {
    pub(super) fn new(folder: &Path) -> Result<Self, Error> {
        let failed = |error: std::io::Error| Error::Asked(format!("{}: {error}", folder.display()));
        std::fs::create_dir_all(folder).map_err(failed)?;
        let sink = JsonLinesSink::create(folder.join("events.jsonl")).map_err(failed)?;
        let folder = folder.to_owned();
        Ok(Self { folder, sink, batch: Vec::new(), count: 0, left_out: 0, broken: Ok(()) })
    }

    pub(super) fn push(&mut self, record: Record) {
        self.batch.push(record);
        if self.batch.len() >= BATCH {
            self.write();
        }
    }

    /// Adds a value of a row.
    pub(super) fn value(&mut self, name: &str, value: Value, step: Option<i64>, time: SystemTime) {
        let record = Record::with_value(name.to_owned(), value).with_time(time);
        self.push(match step {
            Some(step) => record.with_signed_step(step),
            None => record,
        });
    }

    fn write(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        let count = batch.len() as u64;
        if self.broken.is_ok() && count > 0 {
            match self.sink.write_batch(&Batch::from_events(batch)) {
                Ok(()) => self.count += count,
                Err(error) => {
                    self.broken = Err(Error::Asked(format!("{}: {error}", self.folder.display())));
                }
            }
        }
    }

    pub(super) fn end(&mut self) -> Result<(), Error> {
        self.write();
        std::mem::replace(&mut self.broken, Ok(()))?;
        let flushed = Sink::<Record>::flush(&mut self.sink);
        flushed.map_err(|error| Error::Asked(format!("{}: {error}", self.folder.display())))
    }
}

pub(super) fn object(
    row: &serde_json::Value,
    or_time: SystemTime,
    writer: &mut Writer,
) -> Result<(), &'static str> {
    let row = row.as_object().ok_or("an object with the values of a step was expected")?;
    let of =
        |names: &[&'static str]| names.iter().find_map(|name| row.get(*name).map(|value| (*name, value)));
    let (step, time) = (of(&STEPS), of(&TIMES));
    let step_of = |value: &serde_json::Value| value.as_i64().or_else(|| whole(&value.to_string()));
    let time_of = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => humantime::parse_rfc3339_weak(text).ok(),
        value => value.as_f64().map(seconds),
    };
    let number = match step {
        Some((_, value)) => Some(step_of(value).ok_or("a step must be a whole number")?),
        None => None,
    };
    let moment = time.and_then(|(_, value)| time_of(value)).unwrap_or(or_time);
    let is_own =
        |name: &str| step.is_some_and(|(own, _)| own == name) || time.is_some_and(|(own, _)| own == name);
    for (name, value) in row.iter().filter(|(name, _)| !is_own(name) && !name.starts_with('_')) {
        flat(name, value, number, moment, writer);
    }
    Ok(())
}

fn flat(name: &str, value: &serde_json::Value, step: Option<i64>, time: SystemTime, writer: &mut Writer) {
    match value {
        // What wandb calls media: but for histograms, files beside it.
        serde_json::Value::Object(fields) if fields.contains_key("_type") => match histogram_of(fields) {
            Some(histogram) => writer.value(name, histogram, step, time),
            None => writer.left_out += 1,
        },
        serde_json::Value::Object(fields) => {
            fields
                .iter()
                .for_each(|(inner, value)| flat(&format!("{name}/{inner}"), value, step, time, writer));
        }
        serde_json::Value::Bool(is) => writer.value(name, Value::Bool(*is), step, time),
        serde_json::Value::Number(number) => {
            let value = number
                .as_i64()
                .map_or_else(|| Value::Scalar(number.as_f64().unwrap_or(f64::NAN)), Value::Integer);
            writer.value(name, value, step, time);
        }
        serde_json::Value::String(text) => {
            let value = self::number(text).unwrap_or_else(|| Value::from(text.as_str()));
            writer.value(name, value, step, time);
        }
        serde_json::Value::Null => {}
        serde_json::Value::Array(_) => writer.left_out += 1,
    }
}

/// Returns a histogram of wandb: limits of bins, and how many values are in each.
fn histogram_of(fields: &serde_json::Map<String, serde_json::Value>) -> Option<Value> {
    if fields.get("_type")?.as_str()? != "histogram" {
        return None;
    }
    let numbers = |name: &str| -> Option<Vec<f64>> {
        fields.get(name)?.as_array()?.iter().map(serde_json::Value::as_f64).collect()
    };
    let (edges, counts) = (numbers("bins")?, numbers("values")?);
    let (mut sum, mut squares) = (0.0, 0.0);
    for (ends, count) in edges.windows(2).zip(&counts) {
        let middle = ends[0] / 2.0 + ends[1] / 2.0;
        sum += middle * count;
        squares += middle * middle * count;
    }
    let counts = counts.into_iter().map(|count| count.max(0.0) as u64).collect();
    Histogram::from_counts(edges, counts, sum, squares).ok().map(|it| Value::Histogram(Box::new(it)))
}

/// Writes what Python has for numbers that JSON lacks as texts.
pub(super) fn with_words(text: Vec<u8>) -> Vec<u8> {
    if !text.windows(3).any(|word| word == b"NaN" || word == b"Inf") {
        return text;
    }
    let (mut fixed, mut at, mut is_text) = (Vec::with_capacity(text.len() + 16), 0, false);
    while at < text.len() {
        let words: [&[u8]; 3] = [b"NaN", b"-Infinity", b"Infinity"];
        match words.iter().find(|word| !is_text && text[at..].starts_with(word)) {
            Some(word) => {
                fixed.push(b'"');
                fixed.extend_from_slice(word);
                fixed.push(b'"');
                at += word.len();
            }
            None => {
                // What is behind a backslash ends no text.
                let size = if is_text && text[at] == b'\\' { 2 } else { 1 };
                is_text ^= text[at] == b'"';
                fixed.extend_from_slice(&text[at..text.len().min(at + size)]);
                at += size;
            }
        }
    }
    fixed
}

/// Returns a number of a text, as JSON, Python and spreadsheets write it.
pub(super) fn number(text: &str) -> Option<Value> {
    let text = text.trim();
    if let Ok(number) = text.parse::<i64>() {
        return Some(Value::Integer(number));
    }
    match text {
        "true" | "True" | "TRUE" => Some(Value::Bool(true)),
        "false" | "False" | "FALSE" => Some(Value::Bool(false)),
        text => text.parse().ok().map(Value::Scalar),
    }
}

/// Returns a whole number, also one that is written with a fraction of 0, as tables of pandas are.
pub(super) fn whole(text: &str) -> Option<i64> {
    let as_float = || text.parse::<f64>().ok().filter(|number| number.fract() == 0.0 && number.abs() < 2e15);
    text.parse().ok().or_else(|| as_float().map(|number| number as i64))
}

/// Returns a moment: seconds since 1970, or milliseconds, which are larger than seconds will be for a while.
pub(super) fn seconds(number: f64) -> SystemTime {
    let seconds = if number.abs() > 1e11 { number / 1e3 } else { number };
    UNIX_EPOCH + Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default()
}

pub(super) fn modified(file: &std::fs::File) -> SystemTime {
    file.metadata().and_then(|data| data.modified()).unwrap_or_else(|_| SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_python_are_texts_of_json_outside_of_texts() {
        let text = br#"{"a":NaN,"NaN":[-Infinity,Infinity],"b":"NaN \" NaN"}"#.to_vec();
        let fixed = br#"{"a":"NaN","NaN":["-Infinity","Infinity"],"b":"NaN \" NaN"}"#;
        assert_eq!(with_words(text), fixed);
    }
}
