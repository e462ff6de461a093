//! `forebay tail`: events in the order in which they were written.

use std::path::Path;
use std::time::Duration;

use forebay::{Event, Pattern, Record, Value};
use forebay_history::{RecordFollower, find_runs};

use crate::args::{Form, Tail};
use crate::error::Error;
use crate::folder;
use crate::out::{Out, harmless, note, number};

/// Time between two looks at the files.
const INTERVAL: Duration = Duration::from_millis(200);

pub(crate) fn run(asked: &Tail, out: &mut Out) -> Result<u8, Error> {
    let pattern = folder::pattern(asked.pattern.as_deref())?;
    let form = if asked.json { Form::Json } else { asked.form };
    let run = last_run(&asked.path)?;
    if run != asked.path {
        note(&format!("{} was written to last", run.display()));
    }
    let mut follower = RecordFollower::open(run)?;
    let last = follower.last(asked.lines, &mut |record| matches(&pattern, record))?;
    for record in &last {
        print(record, form, out)?;
    }
    out.flush()?;
    if !asked.follow {
        return Ok(u8::from(last.is_empty()));
    }
    loop {
        let mut broken = Ok(());
        follower.poll(&mut |record| {
            if broken.is_ok() && matches(&pattern, &record) {
                broken = print(&record, form, out);
            }
        })?;
        broken?;
        out.flush()?;
        std::thread::sleep(INTERVAL);
    }
}

/// Returns the run at a path, or the one below it that was written to last.
fn last_run(path: &Path) -> Result<std::path::PathBuf, Error> {
    let runs = find_runs(path)?;
    let of = |path: &Path| std::fs::metadata(path).and_then(|data| data.modified()).ok();
    let modified = |path: &std::path::PathBuf| {
        let files = std::fs::read_dir(path).into_iter().flatten().flatten().map(|file| of(&file.path()));
        files.max().flatten().max(of(path))
    };
    runs.into_iter()
        .max_by_key(modified)
        .ok_or_else(|| Error::NotFound(format!("there is no run in {}", path.display())))
}

/// Gaps are always shown.
fn matches(pattern: &Pattern, record: &Record) -> bool {
    let name = Event::name(record);
    name == "forebay.gap" || pattern.matches(name)
}

fn print(record: &Record, form: Form, out: &mut Out) -> Result<(), Error> {
    if form == Form::Json {
        return out.json(serde_json::to_string(record).unwrap_or_default());
    }
    let time = humantime::format_rfc3339_millis(record.time()).to_string();
    let time = time.get(11..23).unwrap_or(&time);
    if Event::name(record) == "forebay.gap" {
        let missing = harmless(&record.value().to_string());
        return out.line(format_args!("{time}  --- {missing} events are missing here ---"));
    }
    let step = record.signed_step().map_or_else(String::new, |step| step.to_string());
    let value = match record.value() {
        Value::Scalar(value) => number(*value),
        Value::Empty => String::new(),
        value => value.to_string(),
    };
    out.line(format_args!("{time}  {step:>8}  {:<32}  {}", harmless(Event::name(record)), harmless(&value)))
}
