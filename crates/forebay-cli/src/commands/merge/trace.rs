//! Spans and steps of the ranks of a job in the trace event format, which Chrome and Perfetto show:
//! <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>.
//!
//! A rank is a process, its steps are a thread, and so is each name of a span. Slices of one thread must not overlap but by nesting, so
//! spans of one name that do have threads of their own.

use std::collections::HashMap;
use std::io::Write;
use std::ops::ControlFlow;
use std::time::Duration;

use forebay::{Event, Pattern, Priority, Record, Value};
use forebay_history::{EventQuery, History, values};
use serde_json::json;

use crate::commands::runs::as_number;
use crate::error::Error;

/// The thread of the steps. Spans have those behind it.
const STEPS: u64 = 1;

/// Names of spans of a rank that have threads of their own, and threads of one name.
const MAX_NAMES: usize = 1_000;
const MAX_LANES: usize = 64;

/// Fields of a record that say, in seconds, how long it took until the moment of the record.
const DURATIONS: [&str; 3] = ["duration", "load_time", "total_duration"];

/// Rank as a process of a trace.
pub(super) struct Process<'a> {
    pub(super) name: &'a str,
    /// How far its clock is ahead of the others, in nanoseconds.
    pub(super) offset: i128,
    pub(super) history: &'a dyn History,
}

impl Process<'_> {
    /// Returns a moment by the clocks of the others.
    fn moment(&self, record: &Record) -> i128 {
        i128::from(record.unix_nanos()) - self.offset
    }

    fn each(&self, take: &mut dyn FnMut(&Record)) -> Result<(), Error> {
        Ok(self.history.visit(&EventQuery::new(), &mut |record| {
            take(&record);
            ControlFlow::Continue(())
        })?)
    }
}

/// Writes a trace. Returns how many events it has.
pub(super) fn write(
    processes: &[Process<'_>],
    timer: Option<&Pattern>,
    out: &mut dyn Write,
) -> Result<u64, Error> {
    // A trace begins at 0: a moment since 1970 has more digits than a number of JavaScript.
    let mut begin = i128::MAX;
    for process in processes {
        process.each(&mut |record| {
            begin = begin.min(process.moment(record));
            spans(record, timer, &mut |_, took| begin = begin.min(process.moment(record) - nanos(took)));
        })?;
    }
    let mut trace = Trace { out, count: 0, written: Ok(()) };
    write!(trace.out, "{{\"displayTimeUnit\":\"ms\",\"traceEvents\":[")?;
    for (process, pid) in processes.iter().zip(1..) {
        trace.process(process, pid, begin, timer)?;
    }
    writeln!(trace.out, "\n]}}")?;
    Ok(trace.count)
}

fn nanos(took: Duration) -> i128 {
    i128::try_from(took.as_nanos()).unwrap_or(i128::MAX)
}

/// Gives the spans that a record tells of to `take`: by a field that says how long it took, or by a number that is a timer.
fn spans(record: &Record, timer: Option<&Pattern>, take: &mut dyn FnMut(&str, Duration)) {
    let took = |value: &Value| value.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    if let Some(fields) = record.value().as_fields()
        && let Some(took) = DURATIONS.iter().find_map(|name| fields.get(name).and_then(took))
    {
        return take(Event::name(record), took);
    }
    if let Some(timer) = timer {
        values(record, &mut |name, value, _| {
            if let Some(took) = took(value).filter(|_| timer.matches(name)) {
                take(name, took);
            }
        });
    }
}

struct Trace<'a> {
    out: &'a mut dyn Write,
    count: u64,
    /// The first error of a write.
    written: std::io::Result<()>,
}

/// Step whose slice is not written yet.
struct Open {
    step: i64,
    begin: i128,
    last: i128,
}

impl Trace<'_> {
    fn event(&mut self, event: &serde_json::Value) {
        let comma = if self.count == 0 { "" } else { "," };
        if self.written.is_ok() {
            self.written = write!(self.out, "{comma}\n{event}");
        }
        self.count += 1;
    }

    fn meta(&mut self, what: &str, pid: u64, tid: u64, args: &serde_json::Value) {
        self.event(&json!({ "name": what, "ph": "M", "pid": pid, "tid": tid, "args": args }));
    }

    /// Writes a slice, from one moment of the trace to another, in nanoseconds.
    fn slice(
        &mut self,
        name: &str,
        category: &str,
        (pid, tid): (u64, u64),
        (begin, end): (i128, i128),
        args: &serde_json::Value,
    ) {
        let (ts, dur) = (micros(begin), micros((end - begin).max(0)));
        self.event(&json!({
            "name": name, "cat": category, "ph": "X", "ts": ts, "dur": dur, "pid": pid, "tid": tid, "args": args,
        }));
    }

    fn process(
        &mut self,
        process: &Process<'_>,
        pid: u64,
        begin: i128,
        timer: Option<&Pattern>,
    ) -> Result<(), Error> {
        self.meta("process_name", pid, 0, &json!({ "name": process.name }));
        self.meta("process_sort_index", pid, 0, &json!({ "sort_index": pid }));
        self.meta("thread_name", pid, STEPS, &json!({ "name": "steps" }));
        let (mut open, mut threads, mut last_end) = (None::<Open>, Threads::default(), 0);
        process.each(&mut |record| {
            let moment = process.moment(record) - begin;
            let args = args_of(record);
            spans(record, timer, &mut |name, took| {
                let from = moment - nanos(took);
                let (tid, is_new) = threads.of(name, from, moment);
                if is_new {
                    self.meta("thread_name", pid, tid, &json!({ "name": name }));
                }
                self.slice(name, "span", (pid, tid), (from, moment), &args);
            });
            let name = Event::name(record);
            if record.priority() == Priority::Critical {
                // What a run says of itself, and what else was not to be lost.
                self.event(&json!({
                    "name": name, "cat": "event", "ph": "i", "s": "p", "ts": micros(moment), "pid": pid, "tid": STEPS, "args": args,
                }));
                return;
            }
            let Some(step) = record.signed_step() else { return };
            match &mut open {
                Some(open) if open.step == step => open.last = open.last.max(moment),
                before => {
                    // A step lasts until the next one; the last one of a session until its last record.
                    if let Some(it) = before.take() {
                        last_end = if step > it.step { moment.max(it.last) } else { it.last };
                        self.step(&it, last_end, pid);
                    }
                    // A clock that was set back makes no steps that overlap.
                    let begin = moment.max(last_end);
                    *before = Some(Open { step, begin, last: begin });
                }
            }
        })?;
        if let Some(it) = open {
            self.step(&it, it.last, pid);
        }
        Ok(std::mem::replace(&mut self.written, Ok(()))?)
    }

    fn step(&mut self, open: &Open, end: i128, pid: u64) {
        let name = format!("step {}", open.step);
        self.slice(&name, "step", (pid, STEPS), (open.begin, end), &json!({ "step": open.step }));
    }
}

/// Threads of a process, each with the end of its last span: those of one name, in their order.
#[derive(Default)]
struct Threads {
    names: HashMap<String, Vec<(u64, i128)>>,
    count: u64,
}

impl Threads {
    /// Returns the thread that has space for a span, and whether it is new.
    fn of(&mut self, name: &str, begin: i128, end: i128) -> (u64, bool) {
        // Names without an end share the threads of one.
        let name = if self.names.len() >= MAX_NAMES && !self.names.contains_key(name) { "" } else { name };
        let lanes = self.names.entry(name.to_owned()).or_default();
        let is_full = lanes.len() >= MAX_LANES;
        let free = lanes.iter_mut().find(|(_, last)| *last <= begin);
        match free {
            Some((tid, last)) => {
                *last = end;
                (*tid, false)
            }
            None if is_full => {
                let (tid, last) = &mut lanes[MAX_LANES - 1];
                *last = end.max(*last);
                (*tid, false)
            }
            None => {
                self.count += 1;
                lanes.push((STEPS + self.count, end));
                (STEPS + self.count, true)
            }
        }
    }
}

/// Returns nanoseconds as microseconds, in which a trace counts.
fn micros(nanos: i128) -> f64 {
    nanos as f64 / 1_000.0
}

/// Returns the short values of a record.
fn args_of(record: &Record) -> serde_json::Value {
    let mut args = serde_json::Map::new();
    if let Some(step) = record.signed_step() {
        args.insert("step".to_owned(), step.into());
    }
    values(record, &mut |name, value, _| {
        let name = name.rsplit('/').next().unwrap_or(name).to_owned();
        let value = match value {
            Value::Scalar(value) => as_number(*value),
            Value::Integer(value) => (*value).into(),
            Value::Bool(is) => (*is).into(),
            Value::Text(text) => text.chars().take(200).collect::<String>().into(),
            _ => return,
        };
        args.insert(name, value);
    });
    args.into()
}
