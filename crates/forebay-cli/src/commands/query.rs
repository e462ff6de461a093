//! `forebay query`: the records for which conditions hold, or the answer of SQL.

use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use forebay::{Event, Record, Value};
use forebay_history::{
    Aggregate, Aggregator, EventQuery, History, HistoryError, LastPerName, MergeOrder, Pivot, PivotTable,
    Reduce, Sample, TooLarge, Window, WindowStart, find_runs, merge, open, stragglers,
};
use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::args::{Order, Query, Reduction, Shape};
use crate::commands::runs::as_number;
use crate::error::Error;
use crate::folder;
use crate::input::Stdin;
use crate::out::{Out, complain, count, note, number};

pub(crate) fn run(asked: &Query, out: &mut Out) -> Result<u8, Error> {
    let is_stdin = folder::is_stdin(&asked.path);
    let runs = if is_stdin { vec![asked.path.clone()] } else { find_runs(&asked.path)? };
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
    let (query, stdin) = (query_of(asked)?, Stdin::default());
    let window = asked.per.as_deref().map(window_of).transpose()?;
    let several = runs.len() > 1;
    let mut failed = 0;
    let mut complain = |error: HistoryError| {
        complain(&error.into());
        failed = 2;
    };
    let mut sources: Vec<Source<'_>> = Vec::new();
    for path in &runs {
        let name = several.then(|| folder::name_of(&asked.path, path, false));
        sources.push(Source { name, path, stdin: is_stdin.then_some(&stdin) });
    }
    let code = if asked.stragglers {
        print_stragglers(&query, &sources, shape, out, &mut complain)
    } else if asked.pivot {
        pivot(asked, &query, &sources, shape, out, &mut complain)
    } else if let Some(window) = window {
        aggregate(asked, &query, window, &sources, shape, out, &mut complain)
    } else {
        events(asked, &query, &sources, shape, out, &mut complain)
    }?;
    if stdin.is_foreign() {
        return Err(Error::Asked("standard input holds no events of forebay".to_owned()));
    }
    Ok(code.max(failed))
}

/// A run that is asked, with its name where there are several.
struct Source<'a> {
    name: Option<String>,
    path: &'a Path,
    /// Standard input, if that is it.
    stdin: Option<&'a Stdin>,
}

impl<'a> Source<'a> {
    /// Opens it, and gives it to `ask`. What is before and behind an error is an answer, too.
    fn ask(
        &self,
        complain: &mut dyn FnMut(HistoryError),
        ask: impl FnOnce(&dyn History) -> Result<(), HistoryError>,
    ) {
        let asked = match self.stdin {
            Some(stdin) => ask(stdin),
            None => open(self.path).and_then(|history| ask(&*history)),
        };
        asked.unwrap_or_else(complain);
    }
}

/// Ranks of one job, open.
struct Ranks<'a> {
    histories: Vec<Box<dyn History>>,
    names: Vec<Option<&'a str>>,
    stdin: Option<&'a Stdin>,
}

impl<'a> Ranks<'a> {
    fn open(sources: &'a [Source<'a>], complain: &mut dyn FnMut(HistoryError)) -> Self {
        let mut ranks = Self { histories: Vec::new(), names: Vec::new(), stdin: None };
        for source in sources {
            match source.stdin {
                Some(stdin) => ranks.stdin = Some(stdin),
                None => match open(source.path) {
                    Ok(history) => {
                        ranks.histories.push(history);
                        ranks.names.push(source.name.as_deref());
                    }
                    Err(error) => complain(error),
                },
            }
        }
        ranks
    }

    fn histories(&self) -> impl Iterator<Item = &dyn History> {
        let histories = self.histories.iter().map(|history| &**history);
        histories.chain(self.stdin.map(|stdin| stdin as &dyn History))
    }
}

/// Gives the events of all runs to `take`, merged as those of ranks, until that breaks off. Each comes with the name of its run.
fn merged(
    order: Order,
    query: &EventQuery,
    sources: &[Source<'_>],
    complain: &mut dyn FnMut(HistoryError),
    mut take: impl FnMut(Option<&str>, Record) -> Result<(), Error>,
) -> Result<(), Error> {
    let ranks = Ranks::open(sources, complain);
    let order = match order {
        Order::Time => MergeOrder::Time,
        Order::Step => MergeOrder::Step,
    };
    for record in merge(ranks.histories(), query, order) {
        match record {
            Ok((place, record)) => take(ranks.names.get(place).copied().flatten(), record)?,
            Err(error) => complain(error),
        }
    }
    Ok(())
}

/// Prints how far each run is behind the first one.
fn print_stragglers(
    query: &EventQuery,
    sources: &[Source<'_>],
    shape: Shape,
    out: &mut Out,
    complain: &mut dyn FnMut(HistoryError),
) -> Result<u8, Error> {
    let ranks = Ranks::open(sources, complain);
    let head = ["run", "steps", "last", "mean", "max", "max_step"].map(str::to_owned);
    let mut rows = Rows::begin(head.into(), shape, out)?;
    for (place, it) in stragglers(ranks.histories(), query)?.iter().enumerate() {
        let name = ranks.names.get(place).copied().flatten().unwrap_or("-");
        let cells = [
            Cell::Text(name.to_owned()),
            Cell::Count(it.steps),
            Cell::Count(it.last),
            Cell::Number(it.mean().as_secs_f64()),
            it.max.map_or(Cell::None, |(max, _)| Cell::Number(max.as_secs_f64())),
            it.max.map_or(Cell::None, |(_, step)| Cell::Step(step)),
        ];
        rows.cells(cells.into_iter())?;
    }
    rows.end()
}

/// Prints events: all, or the last one of each name.
fn events(
    asked: &Query,
    query: &EventQuery,
    sources: &[Source<'_>],
    shape: Shape,
    out: &mut Out,
    complain: &mut dyn FnMut(HistoryError),
) -> Result<u8, Error> {
    let mut head = vec!["time", "step", "name", "value"];
    // Of all ranks together, the last one is no run's.
    let has_run = sources.len() > 1 && !(asked.last && asked.merge.is_some());
    if has_run {
        head.insert(0, "run");
    }
    let mut rows = Rows::begin(head.into_iter().map(str::to_owned).collect(), shape, out)?;
    if let Some(order) = asked.merge {
        let mut last = LastPerName::new();
        merged(order, query, sources, complain, |run, record| {
            if asked.last { last.add(record).map_err(too_large) } else { print(&record, run, &mut rows) }
        })?;
        last.finish().iter().try_for_each(|record| print(record, None, &mut rows))?;
        return rows.end();
    }
    for source in sources {
        let (name, mut broken) = (source.name.as_deref(), Ok(()));
        source.ask(complain, |history| {
            let mut take = |record: Record| {
                broken = print(&record, name, &mut rows);
                if broken.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            };
            if asked.last {
                _ = history.last_per_name(query)?.into_iter().try_for_each(take);
                return Ok(());
            }
            history.visit(query, &mut take)
        });
        broken?;
    }
    rows.end()
}

fn too_large(error: TooLarge) -> Error {
    Error::Asked(error.to_string())
}

/// Columns of aggregates.
const AGGREGATES: [&str; 11] =
    ["name", "from", "count", "finite", "mean", "min", "min_step", "max", "max_step", "last", "last_step"];

/// Prints a row for each name and window.
fn aggregate(
    asked: &Query,
    query: &EventQuery,
    window: Window,
    sources: &[Source<'_>],
    shape: Shape,
    out: &mut Out,
    complain: &mut dyn FnMut(HistoryError),
) -> Result<u8, Error> {
    let mut head: Vec<String> = AGGREGATES.map(str::to_owned).into();
    if sources.len() > 1 && asked.merge.is_none() {
        head.insert(0, "run".to_owned());
    }
    let mut rows = Rows::begin(head, shape, out)?;
    if let Some(order) = asked.merge {
        let mut table = Aggregator::new(window);
        merged(order, query, sources, complain, |_, record| table.add(&record).map_err(too_large))?;
        let table = table.finish();
        table.rows.iter().try_for_each(|row| print_aggregate(row, None, &mut rows))?;
        note_left_out(table.left_out);
        return rows.end();
    }
    let mut left_out = 0;
    for source in sources {
        let mut broken = Ok(());
        source.ask(complain, |history| {
            let table = history.aggregate(query, window)?;
            left_out += table.left_out;
            let name = source.name.as_deref();
            broken = table.rows.iter().try_for_each(|row| print_aggregate(row, name, &mut rows));
            Ok(())
        });
        broken?;
    }
    note_left_out(left_out);
    rows.end()
}

fn print_aggregate(row: &Aggregate, run: Option<&str>, rows: &mut Rows<'_>) -> Result<(), Error> {
    let step = |sample: Option<Sample>| sample.and_then(|sample| sample.step);
    let from = match row.start {
        WindowStart::Step(step) => Cell::Step(step),
        WindowStart::Time(nanos) => Cell::Time(UNIX_EPOCH + Duration::from_nanos(nanos)),
        _ => Cell::None,
    };
    let value = |value: Option<f64>| value.map_or(Cell::None, Cell::Number);
    let place = |step: Option<i64>| step.map_or(Cell::None, Cell::Step);
    let cells = [
        Cell::Text(row.name.to_string()),
        from,
        Cell::Count(row.count),
        Cell::Count(row.finite),
        value(row.mean),
        value(row.min.map(|sample| sample.value)),
        place(step(row.min)),
        value(row.max.map(|sample| sample.value)),
        place(step(row.max)),
        value(Some(row.last.value)),
        place(row.last.step),
    ];
    rows.cells(run.map(|run| Cell::Text(run.to_owned())).into_iter().chain(cells))
}

/// Prints a row for each step.
fn pivot(
    asked: &Query,
    query: &EventQuery,
    sources: &[Source<'_>],
    shape: Shape,
    out: &mut Out,
    complain: &mut dyn FnMut(HistoryError),
) -> Result<u8, Error> {
    let reduce = match asked.reduce {
        Reduction::Last => Reduce::Last,
        Reduction::Mean => Reduce::Mean,
        Reduction::Min => Reduce::Min,
        Reduction::Max => Reduce::Max,
        Reduction::Sum => Reduce::Sum,
    };
    let mut tables: Vec<(Option<&str>, PivotTable)> = Vec::new();
    if let Some(order) = asked.merge {
        let mut table = Pivot::new(reduce);
        merged(order, query, sources, complain, |_, record| table.add(&record).map_err(too_large))?;
        tables.push((None, table.finish()));
    } else {
        let (mut cells, mut is_too_large) = (0, false);
        for source in sources {
            source.ask(complain, |history| {
                let table = history.pivot(query, reduce)?;
                cells += table.names.len() * table.rows.len();
                is_too_large = cells > MAX_CELLS;
                tables.push((source.name.as_deref(), table));
                Ok(())
            });
            if is_too_large {
                return Err(Error::Asked(format!(
                    "the tables of all runs have more than {MAX_CELLS} cells: ask for fewer runs, names or steps"
                )));
            }
        }
    }
    let names: BTreeSet<&str> =
        tables.iter().flat_map(|(_, table)| &table.names).map(|name| &**name).collect();
    let mut head = vec!["step".to_owned()];
    let has_run = sources.len() > 1 && asked.merge.is_none();
    if has_run {
        head.insert(0, "run".to_owned());
    }
    head.extend(names.iter().map(|name| (*name).to_owned()));
    let mut rows = Rows::begin(head, shape, out)?;
    for (run, table) in &tables {
        // Of each column of all tables, that of this one.
        let places: Vec<Option<usize>> =
            names.iter().map(|name| table.names.binary_search_by(|own| (**own).cmp(name)).ok()).collect();
        for row in &table.rows {
            let values = places.iter().map(|place| {
                place
                    .and_then(|place| row.values.get(place).copied().flatten())
                    .map_or(Cell::None, Cell::Number)
            });
            let front = run.map(|run| Cell::Text(run.to_owned())).into_iter().chain([Cell::Step(row.step)]);
            rows.cells(front.chain(values))?;
        }
    }
    note_left_out(tables.iter().map(|(_, table)| table.left_out).sum());
    rows.end()
}

/// Says how many numbers are in no row, since they have no step.
fn note_left_out(numbers: u64) {
    if numbers > 0 {
        note(&format!("{} left out: without a step", count(numbers, "number")));
    }
}

/// Cells of the tables of all runs: 64 MB.
const MAX_CELLS: usize = 4_000_000;

/// Reads `100` (steps), `10min`, or `all`.
fn window_of(text: &str) -> Result<Window, Error> {
    let wrong = || {
        Error::Asked(format!(
            "invalid window: {text:?} (expected a number of steps such as 100, a time such as 10min, or all)"
        ))
    };
    if text == "all" {
        return Ok(Window::All);
    }
    if let Ok(steps) = text.parse() {
        return if steps > 0 { Ok(Window::Steps(steps)) } else { Err(wrong()) };
    }
    match humantime::parse_duration(text) {
        Ok(time) if !time.is_zero() => Ok(Window::Time(time)),
        _ => Err(wrong()),
    }
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

/// Cell of a row.
enum Cell {
    None,
    Text(String),
    Count(u64),
    Step(i64),
    Time(SystemTime),
    Number(f64),
}

impl Cell {
    fn as_text(&self, shape: Shape) -> String {
        match self {
            Self::None => String::new(),
            Self::Text(text) => text.clone(),
            Self::Count(number) => number.to_string(),
            Self::Step(step) => step.to_string(),
            Self::Time(time) => humantime::format_rfc3339(*time).to_string(),
            Self::Number(value) if shape == Shape::Table => number(*value),
            Self::Number(value) => value.to_string(),
        }
    }

    fn as_json(&self) -> serde_json::Value {
        match self {
            Self::None => serde_json::Value::Null,
            Self::Count(number) => (*number).into(),
            Self::Step(step) => (*step).into(),
            Self::Number(value) => as_number(*value),
            Self::Text(_) | Self::Time(_) => self.as_text(Shape::Json).into(),
        }
    }
}

/// Returns names of which each is another: the second one of a name gets a number.
fn unique(names: Vec<String>) -> Vec<String> {
    let own: HashSet<String> = names.iter().cloned().collect();
    let mut taken = HashSet::new();
    let unique = |name: String| {
        let numbered = (2_u64..).map(|number| format!("{name}_{number}"));
        let mut names = std::iter::once(name.clone()).chain(numbered.filter(|name| !own.contains(name)));
        // There is always one more.
        let name = names.find(|name| !taken.contains(name)).unwrap_or(name.clone());
        taken.insert(name.clone());
        name
    };
    names.into_iter().map(unique).collect()
}

impl<'a> Rows<'a> {
    fn begin(head: Vec<String>, shape: Shape, out: &'a mut Out) -> Result<Self, Error> {
        let head = unique(head);
        if shape == Shape::Csv {
            out.csv(&head)?;
        }
        Ok(Self { head, shape, waiting: Vec::new(), is_empty: true, out })
    }

    /// Adds a row, with a cell for each name of the head.
    fn cells(&mut self, cells: impl Iterator<Item = Cell>) -> Result<(), Error> {
        if self.shape == Shape::Json {
            let row = self.head.iter().cloned().zip(cells.map(|cell| cell.as_json())).collect();
            return self.json(&serde_json::Value::Object(row));
        }
        let shape = self.shape;
        self.push(cells.map(|cell| cell.as_text(shape)).collect())
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
    // No other file is anybody's answer, and none is made.
    database.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0).map_err(failed)?;
    let mut statement = database.prepare(sql).map_err(failed)?;
    if !statement.readonly() {
        return Err(Error::Asked("--sql is for questions: this one would change the database".to_owned()));
    }
    let names: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
    let mut answers = statement.query(()).map_err(failed)?;
    let mut rows = Rows::begin(names, shape, out)?;
    while let Some(row) = answers.next().map_err(failed)? {
        let cell = |place| row.get_ref(place).map_err(failed);
        match shape {
            Shape::Json => {
                let mut line = serde_json::Map::new();
                for (place, name) in rows.head.iter().enumerate() {
                    line.insert(name.clone(), as_json(cell(place)?));
                }
                rows.json(&serde_json::Value::Object(line))?;
            }
            _ => {
                let cells = (0..rows.head.len()).map(|place| Ok(as_text(cell(place)?)));
                rows.push(cells.collect::<Result<_, Error>>()?)?;
            }
        }
    }
    rows.end()
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// Opens a database for reading alone, also on a disk that is read-only.
pub(crate) fn open_database(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database = Connection::open_with_flags(path, flags)?;
    match database.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())) {
        // SQLite cannot make the files that readers and writers share: where nobody writes, it needs none.
        Err(error)
            if matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly))
                && !std::fs::metadata(beside(path, "-wal")).is_ok_and(|data| data.len() > 0) =>
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
