//! `forebay tail`: events in the order in which they were written.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use forebay::{Event, Pattern, Record, Value};
use forebay_history::{HistoryError, RecordFollower};

use crate::args::{Form, Tail};
use crate::broker;
use crate::error::Error;
use crate::folder;
use crate::input::Stdin;
use crate::out::{Out, complain, harmless, json_of, note, number};
use crate::progress::Progress;

/// Time between two looks at the files.
const INTERVAL: Duration = Duration::from_millis(200);

/// Events that wait to be merged. What is more is printed at once.
const MAX_WAITING: usize = 100_000;

pub(crate) fn run(asked: &Tail, out: &mut Out) -> Result<u8, Error> {
    let pattern = folder::pattern(asked.pattern.as_deref())?;
    let form = if asked.json { Form::Json } else { asked.form };
    if folder::is_stdin(&asked.path) {
        return of_stdin(asked, &pattern, form, out);
    }
    if broker::is_stream(&asked.path) {
        return of_stream(asked, &pattern, form, out);
    }
    let runs = if asked.merge { folder::runs_of(&asked.path)? } else { vec![last_run(&asked.path)?] };
    if runs.is_empty() {
        return Err(none_in(&asked.path));
    }
    if !asked.merge && runs[0] != asked.path {
        note(&format!("{} was written to last", runs[0].display()));
    }
    let name = |run: &PathBuf| (runs.len() > 1).then(|| folder::name_of(&asked.path, run, false));
    let names: Vec<Option<String>> = runs.iter().map(name).collect();
    let mut followers = runs.iter().map(RecordFollower::open).collect::<Result<Vec<_>, _>>()?;
    let (mut last, progress) = (Vec::new(), Progress::of(&runs));
    for (place, follower) in followers.iter_mut().enumerate() {
        let own = follower.last(asked.lines, &mut |record| matches(&pattern, record))?;
        last.extend(own.into_iter().map(|record| (place, record)));
    }
    drop(progress);
    let count = last.len();
    sort(&mut last, followers.len());
    for (place, record) in &last[count.saturating_sub(asked.lines)..] {
        print(record, names[*place].as_deref(), form, out)?;
    }
    out.flush()?;
    let unreadable: Vec<_> = followers.iter().filter_map(RecordFollower::unreadable).collect();
    let code = if unreadable.is_empty() { u8::from(last.is_empty()) } else { 2 };
    unreadable.into_iter().for_each(|error| complain(&error.into()));
    if code == 1
        && !asked.follow
        && let Some(why) = asked.pattern.as_deref().and_then(|name| folder::unnamed(name, &runs))
    {
        note(&why);
    }
    if !asked.follow {
        return Ok(code);
    }
    drop(last);
    let mut waiting = Vec::new();
    loop {
        for (place, follower) in followers.iter_mut().enumerate() {
            let (is_alone, mut broken) = (names.len() == 1, Ok(()));
            follower.poll(&mut |record| {
                if broken.is_err() || !matches(&pattern, &record) {
                    return;
                }
                if is_alone {
                    broken = print(&record, None, form, out);
                    return;
                }
                waiting.push((place, record));
                if waiting.len() >= MAX_WAITING {
                    broken = write(&mut waiting, &names, form, out);
                }
            })?;
            broken?;
        }
        write(&mut waiting, &names, form, out)?;
        out.flush()?;
        std::thread::sleep(INTERVAL);
    }
}

/// Puts the events of several runs in the order of time. Those of one have their own.
fn sort(events: &mut [(usize, Record)], runs: usize) {
    if runs > 1 {
        events.sort_by_key(|(_, record)| record.unix_nanos());
    }
}

/// Prints the events that wait, by time.
fn write(
    waiting: &mut Vec<(usize, Record)>,
    names: &[Option<String>],
    form: Form,
    out: &mut Out,
) -> Result<(), Error> {
    sort(waiting, names.len());
    waiting.drain(..).try_for_each(|(place, record)| print(&record, names[place].as_deref(), form, out))
}

/// Prints the last events of standard input; or with -f all, as they come.
fn of_stdin(asked: &Tail, pattern: &Pattern, form: Form, out: &mut Out) -> Result<u8, Error> {
    let (stdin, mut last, mut is_empty) = (Stdin::default(), VecDeque::new(), true);
    // What is followed has no end.
    let _progress = (!asked.follow).then(|| Progress::of([&asked.path]));
    for record in stdin.records() {
        let record = record?;
        if !matches(pattern, &record) {
            continue;
        }
        is_empty = false;
        if asked.follow {
            print(&record, None, form, out)?;
            out.flush()?;
            continue;
        }
        last.push_back(record);
        if last.len() > asked.lines {
            last.pop_front();
        }
    }
    stdin.check()?;
    last.iter().try_for_each(|record| print(record, None, form, out))?;
    Ok(u8::from(is_empty))
}

/// Prints the last events of a stream; and with -f what comes.
fn of_stream(asked: &Tail, pattern: &Pattern, form: Form, out: &mut Out) -> Result<u8, Error> {
    let (mut poll, mut last, mut is_empty) = (broker::follow(&asked.path)?, VecDeque::new(), true);
    let mut said = String::new();
    loop {
        match poll(false) {
            Ok(None) => break,
            Ok(Some(record)) => {
                said.clear();
                if matches(pattern, &record) {
                    is_empty = false;
                    last.push_back(record);
                    if last.len() > asked.lines {
                        last.pop_front();
                    }
                }
            }
            // An entry of somebody else: the others are read. A server that does not answer says so twice.
            Err(error) => complain_of(error, &mut said).map_err(Error::from)?,
        }
    }
    last.iter().try_for_each(|record| print(record, None, form, out))?;
    out.flush()?;
    if !asked.follow {
        return Ok(u8::from(is_empty));
    }
    drop(last);
    loop {
        match poll(true) {
            Ok(Some(record)) => {
                said.clear();
                if matches(pattern, &record) {
                    print(&record, None, form, out)?;
                }
                continue;
            }
            Ok(None) => {}
            // It may come back.
            Err(error) => _ = complain_of(error, &mut said),
        }
        out.flush()?;
        std::thread::sleep(INTERVAL);
    }
}

/// Says what went wrong, unless that was said last: then it is returned.
fn complain_of(error: HistoryError, said: &mut String) -> Result<(), HistoryError> {
    let what = Error::from(error);
    let text = what.to_string();
    if *said == text {
        let Error::Read(error) = what else { return Ok(()) };
        return Err(error);
    }
    complain(&what);
    *said = text;
    Ok(())
}

fn none_in(path: &Path) -> Error {
    Error::NotFound(format!("there is no run in {}", path.display()))
}

/// Returns the run at a path, or the one below it that was written to last.
fn last_run(path: &Path) -> Result<PathBuf, Error> {
    let runs = folder::runs_of(path)?;
    let of = |path: &Path| std::fs::metadata(path).and_then(|data| data.modified()).ok();
    let modified = |path: &PathBuf| {
        let files = std::fs::read_dir(path).into_iter().flatten().flatten().map(|file| of(&file.path()));
        files.max().flatten().max(of(path))
    };
    runs.into_iter().max_by_key(modified).ok_or_else(|| none_in(path))
}

/// Gaps are always shown.
fn matches(pattern: &Pattern, record: &Record) -> bool {
    let name = Event::name(record);
    name == "forebay.gap" || pattern.matches(name)
}

fn print(record: &Record, run: Option<&str>, form: Form, out: &mut Out) -> Result<(), Error> {
    if form == Form::Json {
        return out.json(json_of(record, run));
    }
    let run = run.map_or_else(String::new, |run| format!("{:<16}  ", harmless(run)));
    let time = humantime::format_rfc3339_millis(record.time()).to_string();
    let time = time.get(11..23).unwrap_or(&time);
    if Event::name(record) == "forebay.gap" {
        let missing = harmless(&record.value().to_string());
        return out.line(format_args!("{time}  {run}--- {missing} events are missing here ---"));
    }
    let step = record.signed_step().map_or_else(String::new, |step| step.to_string());
    let value = match record.value() {
        Value::Scalar(value) => number(*value),
        Value::Empty => String::new(),
        value => value.to_string(),
    };
    out.line(format_args!(
        "{time}  {run}{step:>8}  {:<32}  {}",
        harmless(Event::name(record)),
        harmless(&value)
    ))
}
