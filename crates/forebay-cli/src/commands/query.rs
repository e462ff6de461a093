//! `forebay query`: the records for which conditions hold, or the answer of SQL.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, SystemTime};

use forebay::{Event, Record, Value};
use forebay_history::{EventQuery, find_runs, open};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::args::{Query, Shape};
use crate::error::Error;
use crate::folder;
use crate::out::{Out, complain, number};

pub(crate) fn run(asked: &Query, out: &mut Out) -> Result<u8, Error> {
    let runs = find_runs(&asked.path)?;
    let shape = match (asked.json, asked.csv) {
        (true, _) => Shape::Json,
        (_, true) => Shape::Csv,
        _ => asked.shape,
    };
    if runs.is_empty() {
        return Err(Error::NotFound(format!("there is no run in {}", asked.path.display())));
    }
    if let Some(sql) = &asked.sql {
        let [path] = &runs[..] else {
            let count = runs.len();
            return Err(Error::Asked(format!(
                "--sql asks one database, {} has {count} runs",
                asked.path.display()
            )));
        };
        return ask(path, sql, shape, out);
    }
    let query = query_of(asked)?;
    let (several, mut failed) = (runs.len() > 1, 0);
    let mut head = vec!["time", "step", "name", "value"];
    if several {
        head.insert(0, "run");
    }
    let mut rows = Rows::begin(head.into_iter().map(str::to_owned).collect(), shape, out)?;
    for path in &runs {
        let name = several.then(|| folder::name_of(&asked.path, path, false));
        let mut broken = Ok(());
        let visited = open(path).and_then(|history| {
            history.visit(&query, &mut |record| {
                broken = print(&record, name.as_deref(), &mut rows);
                if broken.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })
        });
        broken?;
        // What is before and behind it is an answer, too.
        if let Err(error) = visited {
            complain(&error.into());
            failed = 2;
        }
    }
    rows.end().map(|code| code.max(failed))
}

fn print(record: &Record, run: Option<&str>, rows: &mut Rows<'_>) -> Result<(), Error> {
    if rows.shape == Shape::Json {
        let mut line = serde_json::to_value(record).unwrap_or_default();
        if let (Some(run), Some(fields)) = (run, line.as_object_mut()) {
            fields.insert("run".to_owned(), run.into());
        }
        return rows.json(&line);
    }
    let mut row = row_of(record, rows.shape);
    if let Some(run) = run {
        row.insert(0, run.to_owned());
    }
    rows.push(row)
}

/// Rows on their way out. Those of a table wait for its end, since its columns are as wide as the widest of their cells.
struct Rows<'a> {
    head: Vec<String>,
    shape: Shape,
    waiting: Vec<Vec<String>>,
    is_empty: bool,
    out: &'a mut Out,
}

/// Rows of a table that are made wide enough together.
const MAX_ROWS: usize = 10_000;

impl<'a> Rows<'a> {
    fn begin(head: Vec<String>, shape: Shape, out: &'a mut Out) -> Result<Self, Error> {
        if shape == Shape::Csv {
            out.csv(&head)?;
        }
        Ok(Self { head, shape, waiting: Vec::new(), is_empty: true, out })
    }

    fn json(&mut self, row: &serde_json::Value) -> Result<(), Error> {
        self.is_empty = false;
        self.out.json(row)
    }

    fn push(&mut self, row: Vec<String>) -> Result<(), Error> {
        self.is_empty = false;
        if self.shape == Shape::Csv {
            return self.out.csv(&row);
        }
        self.waiting.push(row);
        if self.waiting.len() >= MAX_ROWS { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), Error> {
        let head: Vec<&str> = self.head.iter().map(String::as_str).collect();
        self.out.table(&head, usize::MAX, std::mem::take(&mut self.waiting))
    }

    fn end(mut self) -> Result<u8, Error> {
        if !self.waiting.is_empty() {
            self.write()?;
        }
        Ok(u8::from(self.is_empty))
    }
}

fn row_of(record: &Record, shape: Shape) -> Vec<String> {
    let value = match record.value() {
        Value::Scalar(value) if shape == Shape::Table => number(*value),
        Value::Empty => String::new(),
        value => value.to_string(),
    };
    vec![
        humantime::format_rfc3339_nanos(record.time()).to_string(),
        record.signed_step().map_or_else(String::new, |step| step.to_string()),
        Event::name(record).to_owned(),
        value,
    ]
}

fn query_of(asked: &Query) -> Result<EventQuery, Error> {
    let mut query = EventQuery::new();
    if let Some(name) = &asked.name {
        query = query.name(folder::pattern(Some(name))?);
    }
    if let Some(steps) = &asked.steps {
        let (first, last) = steps_of(steps)?;
        query = query.steps(first..=last);
    }
    if let Some(since) = &asked.since {
        query = query.since(moment(since)?);
    }
    if let Some(before) = &asked.before {
        query = query.before(moment(before)?);
    }
    if let Some(source) = &asked.source {
        query = query.source(source);
    }
    if let Some(id) = &asked.correlation {
        query = query.correlation(id);
    }
    if let Some(id) = &asked.run {
        query = query.run(id);
    }
    if let Some(generation) = asked.generation {
        query = query.generation(generation);
    }
    if asked.current {
        query = query.current();
    }
    if asked.newest {
        query = query.newest_first();
    }
    Ok(match asked.limit {
        Some(limit) => query.limit(limit),
        None => query,
    })
}

/// Reads `10..20` (20 is not among them), `10..`, `..20` or `10`.
fn steps_of(steps: &str) -> Result<(u64, u64), Error> {
    let wrong =
        || Error::Asked(format!("invalid steps: {steps:?} (expected FIRST..END, FIRST.., ..END or ONE)"));
    let number =
        |text: &str, or: u64| if text.is_empty() { Ok(or) } else { text.parse().map_err(|_| wrong()) };
    match steps.split_once("..") {
        Some((first, end)) => {
            let end: u64 = number(end, u64::MAX)?;
            let last = end.checked_sub(1).ok_or_else(|| {
                Error::Asked(format!(
                    "invalid steps: {steps:?} (the END is not among them, so it must be 1 or more)"
                ))
            })?;
            Ok((number(first, 0)?, last))
        }
        None => {
            let one = steps.parse().map_err(|_| wrong())?;
            Ok((one, one))
        }
    }
}

/// Reads a date and time, or a time before now (`2h`).
fn moment(text: &str) -> Result<SystemTime, Error> {
    // A date alone is its begin.
    let of_day = format!("{text}T00:00:00Z");
    if let Ok(time) = humantime::parse_rfc3339_weak(text).or_else(|_| humantime::parse_rfc3339(&of_day)) {
        return Ok(time);
    }
    let ago: Option<Duration> = humantime::parse_duration(text).ok();
    ago.and_then(|ago| SystemTime::now().checked_sub(ago)).ok_or_else(|| {
        Error::Asked(format!("invalid time: {text:?} (expected a date such as 2026-11-29 or 2026-11-29T08:00:00Z, or how long ago such as 2h)"))
    })
}

/// Asks a database, which is opened so that nothing can change it.
fn ask(path: &Path, sql: &str, shape: Shape, out: &mut Out) -> Result<u8, Error> {
    let path = if path.is_dir() { path.join("events.db") } else { path.to_owned() };
    let failed = |error: rusqlite::Error| Error::Asked(format!("{}: {error}", path.display()));
    if !path.exists() {
        return Err(Error::Asked(format!("--sql asks a database, and there is no {}", path.display())));
    }
    let database = open_database(&path).map_err(failed)?;
    let mut statement = database.prepare(sql).map_err(failed)?;
    if !statement.readonly() {
        return Err(Error::Asked("--sql is for questions: this one would change the database".to_owned()));
    }
    let names: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
    let mut answers = statement.query(()).map_err(failed)?;
    let mut rows = Rows::begin(names.clone(), shape, out)?;
    while let Some(row) = answers.next().map_err(failed)? {
        let cell = |place| row.get_ref(place).map_err(failed);
        match shape {
            Shape::Json => {
                let mut line = serde_json::Map::new();
                for (place, name) in names.iter().enumerate() {
                    line.insert(name.clone(), as_json(cell(place)?));
                }
                rows.json(&serde_json::Value::Object(line))?;
            }
            _ => {
                let cells = (0..names.len()).map(|place| Ok(as_text(cell(place)?)));
                rows.push(cells.collect::<Result<_, Error>>()?)?;
            }
        }
    }
    rows.end()
}

/// Opens a database for reading alone, also on a disk that is read-only.
pub(crate) fn open_database(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database = Connection::open_with_flags(path, flags)?;
    match database.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())) {
        // SQLite cannot make the files that readers and writers share: where nobody writes, it needs none.
        Err(error)
            if matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly))
                && !path.with_extension("db-wal").exists() =>
        {
            // What has a meaning in a URI (RFC 3986).
            let path = path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
            let path = format!("file:{path}?immutable=1");
            Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_URI)
        }
        _ => Ok(database),
    }
}

fn as_json(cell: ValueRef<'_>) -> serde_json::Value {
    match cell {
        ValueRef::Null => serde_json::Value::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => number.into(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into(),
        ValueRef::Blob(bytes) => format!("{} bytes", bytes.len()).into(),
    }
}

fn as_text(cell: ValueRef<'_>) -> String {
    match cell {
        ValueRef::Null => String::new(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        ValueRef::Blob(bytes) => format!("{} bytes", bytes.len()),
    }
}
