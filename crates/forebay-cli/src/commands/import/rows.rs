//! Rows of values with a step and a moment, as other programs have them, on their way into a run of JSON Lines.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use forebay::sink::{JsonLinesSink, Sink};
use forebay::{Batch, Event, Histogram, Record, Value};

use crate::error::Error;
use crate::out::short;

/// Records of a batch.
const BATCH: usize = 1_000;

/// Names of columns, in small letters, that have the step or the moment of their row.
pub(super) const STEPS: [&str; 6] =
    ["_step", "step", "global_step", "iteration", "trainer/global_step", "steps"];
pub(super) const TIMES: [&str; 6] = ["_timestamp", "timestamp", "wall time", "wall_time", "time", "date"];

/// Longest line that readers take, in bytes; and the size of a record in memory from which it is measured: JSON writes a byte as six at most.
const MAX_LINE: usize = 64 << 20;
const MAX_UNMEASURED: usize = 10 << 20;

/// Longest name of a value, in bytes.
pub(super) const MAX_NAME: usize = 10_000;

/// Writer of one run. What is written gets its name at the end: of an import that fails, nothing is left.
pub(super) struct Writer {
    folder: PathBuf,
    /// The folders that it has made, the outermost first.
    made: Vec<PathBuf>,
    /// The file until its end.
    part: PathBuf,
    /// `None` once it is closed.
    sink: Option<JsonLinesSink>,
    batch: Vec<Record>,
    /// Of the batch, in memory.
    bytes: usize,
    pub(super) count: u64,
    /// Values that have no form in JSON Lines.
    pub(super) left_out: u64,
    broken: Result<(), Error>,
}

impl Writer {
    pub(super) fn new(folder: &Path) -> Result<Self, Error> {
        let failed = |error: std::io::Error| Error::Asked(format!("{}: {error}", folder.display()));
        let mut made: Vec<PathBuf> =
            folder.ancestors().take_while(|it| !it.exists()).map(Path::to_owned).collect();
        made.retain(|it| !it.as_os_str().is_empty());
        made.reverse();
        std::fs::create_dir_all(folder).map_err(failed)?;
        let part = folder.join(format!(".import-{}.tmp", std::process::id()));
        let mut own = Self {
            folder: folder.to_owned(),
            made,
            part,
            sink: None,
            batch: Vec::new(),
            bytes: 0,
            count: 0,
            left_out: 0,
            broken: Ok(()),
        };
        // By a process of the same number that was killed.
        _ = std::fs::remove_file(&own.part);
        own.sink = Some(JsonLinesSink::create(&own.part).map_err(failed)?);
        Ok(own)
    }

    pub(super) fn push(&mut self, record: Record) {
        let size = record.size_hint();
        let is_too_long = size > MAX_UNMEASURED
            && serde_json::to_string(&record).map_or(usize::MAX, |line| line.len()) >= MAX_LINE;
        if is_too_long || record.is_too_deep() {
            self.left_out += 1;
            return;
        }
        self.bytes += size;
        self.batch.push(record);
        if self.batch.len() >= BATCH || self.bytes >= MAX_UNMEASURED {
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
        self.bytes = 0;
        let count = batch.len() as u64;
        if let (Ok(()), Some(sink), 1..) = (&self.broken, &mut self.sink, count) {
            match sink.write_batch(&Batch::from_events(batch)) {
                Ok(()) => self.count += count,
                Err(error) => {
                    self.broken = Err(Error::Asked(format!("{}: {error}", self.folder.display())));
                }
            }
        }
    }

    /// Gives the run its name. One without an event is none.
    pub(super) fn end(&mut self) -> Result<(), Error> {
        self.write();
        std::mem::replace(&mut self.broken, Ok(()))?;
        let folder = &self.folder;
        let failed = |error: &dyn std::fmt::Display| Error::Asked(format!("{}: {error}", folder.display()));
        if let Some(mut sink) = self.sink.take() {
            Sink::<Record>::flush(&mut sink).map_err(|error| failed(&error))?;
        }
        if self.count > 0 {
            let file = folder.join("events.jsonl");
            if file.exists() {
                return Err(failed(&"a run was written there meanwhile"));
            }
            std::fs::rename(&self.part, file).map_err(|error| failed(&error))?;
            self.made.clear();
        }
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.sink = None;
        // Where it has its name, neither is there to be removed.
        _ = std::fs::remove_file(&self.part);
        for folder in self.made.iter().rev() {
            _ = std::fs::remove_dir(folder);
        }
    }
}

/// Adds the values of a step.
pub(super) fn object(
    row: &serde_json::Value,
    or_time: SystemTime,
    writer: &mut Writer,
) -> Result<(), String> {
    each_of(row, or_time, &mut |name, value, step, time| match value {
        Some(value) => writer.value(name, value, step, time),
        None => writer.left_out += 1,
    })
}

/// What takes a value: its name, the value, its step and its moment.
type Take<'a> = dyn FnMut(&str, Option<Value>, Option<i64>, SystemTime) + 'a;

/// Gives each value of a step to `take`, with its name, its step and its moment; none for one that is neither a number nor a text.
pub(super) fn each_of(
    row: &serde_json::Value,
    or_time: SystemTime,
    take: &mut Take<'_>,
) -> Result<(), String> {
    let got = |value: &serde_json::Value| short(&value.to_string(), 40);
    let row = row
        .as_object()
        .ok_or_else(|| format!("a row must be an object with the values of a step, got {}", got(row)))?;
    let of =
        |names: &[&'static str]| names.iter().find_map(|name| row.get(*name).map(|value| (*name, value)));
    let (step, time) = (of(&STEPS), of(&TIMES));
    let time_of = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => humantime::parse_rfc3339_weak(text).ok(),
        value => value.as_f64().and_then(seconds),
    };
    let number = match step {
        Some((name, value)) => {
            Some(step_of(value).ok_or_else(|| format!("{name} must be a whole number, got {}", got(value)))?)
        }
        None => None,
    };
    let moment = time.and_then(|(_, value)| time_of(value)).unwrap_or(or_time);
    let is_own =
        |name: &str| step.is_some_and(|(own, _)| own == name) || time.is_some_and(|(own, _)| own == name);
    for (name, value) in row.iter().filter(|(name, _)| !is_own(name) && !name.starts_with('_')) {
        flat(name, value, &mut |name, value| take(name, value, number, moment));
    }
    Ok(())
}

/// Returns the step that a value is.
pub(super) fn step_of(value: &serde_json::Value) -> Option<i64> {
    value.as_i64().or_else(|| whole(&value.to_string()))
}

/// Gives each value within another to `take`, with the names on the way to it; none for one that is neither a number nor a text.
pub(super) fn flat(name: &str, value: &serde_json::Value, take: &mut dyn FnMut(&str, Option<Value>)) {
    if name.len() > MAX_NAME {
        return take(name, None);
    }
    match value {
        // What wandb calls media: but for histograms, files beside it.
        serde_json::Value::Object(fields) if fields.contains_key("_type") => take(name, histogram_of(fields)),
        serde_json::Value::Object(fields) => {
            fields.iter().for_each(|(inner, value)| flat(&format!("{name}/{inner}"), value, take));
        }
        serde_json::Value::Bool(is) => take(name, Some(Value::Bool(*is))),
        serde_json::Value::Number(number) => {
            let float = || Value::Scalar(number.as_f64().unwrap_or(f64::NAN));
            take(name, Some(number.as_i64().map_or_else(float, Value::Integer)));
        }
        serde_json::Value::String(text) => {
            take(name, Some(self::number(text).unwrap_or_else(|| Value::from(text.as_str()))));
        }
        serde_json::Value::Null => {}
        serde_json::Value::Array(_) => take(name, None),
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

/// Returns a moment: seconds since 1970, or milliseconds, which are larger than seconds will be for a while. None for one that is too far away.
pub(super) fn seconds(number: f64) -> Option<SystemTime> {
    let seconds = if number.abs() > 1e11 { number / 1e3 } else { number };
    UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds.max(0.0)).ok()?)
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
