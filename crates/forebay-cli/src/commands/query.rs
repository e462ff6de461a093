//! `forebay query`: the records for which conditions hold, or the answer of SQL.

use std::cell::Cell;
use std::collections::{BTreeSet, HashSet};
use std::fmt::Display;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use forebay::parts::open_to_read;
use forebay::{Event, Record, Value};
use forebay_history::{
    Aggregate, EventQuery, History, HistoryError, MergeOrder, Merged, Pivot, PivotTable, Records, Reduce,
    Sample, Window, WindowStart, merge, open, stragglers,
};
use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;

use crate::args::{Order, Query, Reduction, Shape};
use crate::broker;
use crate::commands::runs::as_number;
use crate::error::Error;
use crate::folder;
use crate::input::Stdin;
use crate::out::{Out, complain, count, json_of, note, number};
use crate::progress::Progress;

pub(crate) fn run(asked: &Query, out: &mut Out) -> Result<u8, Error> {
    let (is_stdin, is_stream) = (folder::is_stdin(&asked.path), broker::is_stream(&asked.path));
    let paths = match (is_stdin, is_stream) {
        (true, _) => vec![asked.path.clone()],
        (_, true) => broker::find(&asked.path)?,
        _ => folder::runs_of(&asked.path)?,
    };
    let shape = match (asked.json, asked.csv) {
        (true, _) => Shape::Json,
        (_, true) => Shape::Csv,
        _ => asked.shape,
    };
    if paths.is_empty() {
        return Err(Error::NotFound(format!("there is no run in {}", asked.path.display())));
    }
    if let Some(sql) = &asked.sql {
        let [path] = &paths[..] else {
            let count = paths.len();
            return Err(Error::Asked(format!(
                "--sql asks one database, {} has {count} runs",
                asked.path.display()
            )));
        };
        if is_stream {
            return Err(Error::Asked("--sql asks a database, and not a stream".to_owned()));
        }
        return ask(path, sql, shape, out);
    }
    if asked.limit.is_some() && !asked.newest && (asked.last || asked.per.is_some() || asked.pivot) {
        let why = "--limit with a table must come with --newest: it would cut off the newest events";
        return Err(Error::Asked(why.to_owned()));
    }
    let (stdin, several, progress) = (Stdin::default(), paths.len() > 1, Progress::of(&paths));
    let source = |path| Source {
        name: several.then(|| folder::name_of(&asked.path, path, false)),
        path,
        stdin: is_stdin.then_some(&stdin),
    };
    let sources = paths.iter().map(|path| source(path)).collect();
    let runs = Runs { asked, query: query_of(asked)?, sources, progress, has_failed: Cell::new(false) };
    let code = if asked.stragglers {
        print_stragglers(&runs, shape, out)
    } else if asked.pivot {
        pivot(&runs, shape, out)
    } else if let Some(per) = &asked.per {
        aggregate(&runs, window_of(per)?, shape, out)
    } else {
        events(&runs, shape, out)
    }?;
    stdin.check()?;
    if code == 1
        && !is_stdin
        && !is_stream
        && let Some(why) = asked.name.as_deref().and_then(|name| folder::unnamed(name, &paths))
    {
        note(&why);
    }
    Ok(if runs.has_failed.get() { code.max(2) } else { code })
}

/// Runs that are asked: each by itself, or all of them as the ranks of one job.
struct Runs<'a> {
    asked: &'a Query,
    query: EventQuery,
    sources: Vec<Source<'a>>,
    progress: Progress,
    /// Whether one of them could not be read.
    has_failed: Cell<bool>,
}

/// A run, with its name where there are several.
struct Source<'a> {
    name: Option<String>,
    path: &'a Path,
    /// Standard input, if that is it.
    stdin: Option<&'a Stdin>,
}

impl<'a> Source<'a> {
    fn open(&self) -> Result<Box<dyn History + 'a>, HistoryError> {
        match self.stdin {
            Some(stdin) => Ok(Box::new(stdin)),
            None if broker::is_stream(self.path) => {
                broker::open(self.path).map_err(|error| HistoryError::new("the stream", error.to_string()))
            }
            None => open(self.path).map(|history| history as Box<dyn History>),
        }
    }
}

impl Runs<'_> {
    /// Says that a run cannot be read. The others go on.
    fn complain(&self, error: HistoryError) {
        complain(&error.into());
        self.has_failed.set(true);
    }

    /// Returns whether rows come from several runs, each with its name.
    fn has_names(&self) -> bool {
        self.sources.len() > 1 && self.asked.merge.is_none()
    }

    /// Opens the ranks of the job. What cannot be opened is given to `refuse`.
    fn job(&self, mut refuse: impl FnMut(HistoryError) -> Result<(), Error>) -> Result<Job<'_>, Error> {
        let order = match self.asked.merge {
            Some(Order::Time) => MergeOrder::Time,
            Some(Order::Step) | None => MergeOrder::Step,
        };
        let mut job = Job { ranks: Vec::new(), names: Vec::new(), order };
        for source in &self.sources {
            match source.open() {
                Ok(history) => {
                    job.ranks.push(history);
                    job.names.push(source.name.as_deref());
                }
                Err(error) => refuse(error)?,
            }
        }
        Ok(job)
    }

    /// Opens the ranks of the job, for an answer that is wrong without one of them.
    fn whole_job(&self) -> Result<Job<'_>, Error> {
        self.job(|error| Err(error.into()))
    }

    /// Gives the history of each run, with its name, to `ask`; or that of the whole job. A run that cannot be read ends no other, and what
    /// came before is an answer, too. A job of which a rank cannot be read is an error.
    fn each(
        &self,
        mut ask: impl FnMut(Option<&str>, &dyn History) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.asked.merge.is_some() {
            return ask(None, &self.whole_job()?);
        }
        for source in &self.sources {
            self.progress.step();
            let history = source.open().map_err(Error::from);
            match history.and_then(|history| ask(source.name.as_deref(), &*history)) {
                Err(Error::Read(error)) => self.complain(error),
                asked => asked?,
            }
        }
        Ok(())
    }

    /// Gives the events of all runs to `take`, each with the name of its run: of one run after the other, or merged. A run that cannot be
    /// read ends no other.
    fn events(&self, mut take: impl FnMut(Option<&str>, &Record) -> Result<(), Error>) -> Result<(), Error> {
        if self.asked.merge.is_none() {
            return self
                .each(|run, history| history.iter(&self.query)?.try_for_each(|record| take(run, &record?)));
        }
        let job = self.job(|error| {
            self.complain(error);
            Ok(())
        })?;
        for next in job.merged(&self.query) {
            match next {
                Ok((place, record)) => take(job.names.get(place).copied().flatten(), &record)?,
                Err(error) => self.complain(error),
            }
        }
        Ok(())
    }
}

/// Ranks of one job, as one history: the records of all of them in one order.
struct Job<'a> {
    ranks: Vec<Box<dyn History + 'a>>,
    names: Vec<Option<&'a str>>,
    order: MergeOrder,
}

impl Job<'_> {
    fn ranks(&self) -> impl Iterator<Item = &dyn History> {
        self.ranks.iter().map(|rank| &**rank as &dyn History)
    }

    fn merged(&self, query: &EventQuery) -> Merged<'_> {
        merge(self.ranks(), query, self.order)
    }
}

impl History for Job<'_> {
    fn query(&self, query: &EventQuery) -> Result<Vec<Record>, HistoryError> {
        self.iter(query)?.collect()
    }

    fn iter<'a>(&'a self, query: &EventQuery) -> Result<Records<'a>, HistoryError> {
        Ok(Box::new(self.merged(query).map(|next| next.map(|(_, record)| record))))
    }
}

/// Prints how far each run is behind the first one.
fn print_stragglers(runs: &Runs<'_>, shape: Shape, out: &mut Out) -> Result<u8, Error> {
    let job = runs.whole_job()?;
    let found = stragglers(job.ranks(), &runs.query)?;
    let head = ["run", "steps", "last", "mean", "max", "max_step"].map(str::to_owned);
    let mut rows = Rows::begin(head.into(), shape, out);
    for (name, it) in job.names.iter().zip(&found) {
        let cells = [
            Field::Text(name.unwrap_or("-").to_owned()),
            Field::Count(it.steps),
            Field::Count(it.last),
            Field::Number(it.mean().as_secs_f64()),
            it.max.map_or(Field::None, |(max, _)| Field::Number(max.as_secs_f64())),
            it.max.map_or(Field::None, |(_, step)| Field::Step(step)),
        ];
        rows.cells(cells.into_iter())?;
    }
    rows.end()
}

/// Prints events: all, or the last one of each name.
fn events(runs: &Runs<'_>, shape: Shape, out: &mut Out) -> Result<u8, Error> {
    let mut head = vec!["time", "step", "name", "value"];
    // The last event of all ranks belongs to no single run.
    let has_run = if runs.asked.last { runs.has_names() } else { runs.sources.len() > 1 };
    if has_run {
        head.insert(0, "run");
    }
    let mut rows = Rows::begin(head.into_iter().map(str::to_owned).collect(), shape, out);
    if runs.asked.last {
        runs.each(|run, history| {
            let last = history.last_per_name(&runs.query)?;
            last.iter().try_for_each(|record| print(record, run, &mut rows))
        })?;
    } else {
        runs.events(|run, record| print(record, run, &mut rows))?;
    }
    rows.end()
}

/// Columns of aggregates.
const AGGREGATES: [&str; 11] =
    ["name", "from", "count", "finite", "mean", "min", "min_step", "max", "max_step", "last", "last_step"];

/// Prints a row for each name and window.
fn aggregate(runs: &Runs<'_>, window: Window, shape: Shape, out: &mut Out) -> Result<u8, Error> {
    let mut head: Vec<String> = AGGREGATES.map(str::to_owned).into();
    if runs.has_names() {
        head.insert(0, "run".to_owned());
    }
    let (mut rows, mut left_out) = (Rows::begin(head, shape, out), 0);
    runs.each(|run, history| {
        let table = history.aggregate(&runs.query, window)?;
        left_out += table.left_out;
        table.rows.iter().try_for_each(|row| print_aggregate(row, run, &mut rows))
    })?;
    note_left_out(left_out);
    rows.end()
}

fn print_aggregate(row: &Aggregate, run: Option<&str>, rows: &mut Rows<'_>) -> Result<(), Error> {
    let step = |sample: Option<Sample>| sample.and_then(|sample| sample.step);
    let from = match row.start {
        WindowStart::Step(step) => Field::Step(step),
        WindowStart::Time(nanos) => Field::Time(UNIX_EPOCH + Duration::from_nanos(nanos)),
        _ => Field::None,
    };
    let value = |value: Option<f64>| value.map_or(Field::None, Field::Number);
    let place = |step: Option<i64>| step.map_or(Field::None, Field::Step);
    let cells = [
        Field::Text(row.name.to_string()),
        from,
        Field::Count(row.count),
        Field::Count(row.finite),
        value(row.mean),
        value(row.min.map(|sample| sample.value)),
        place(step(row.min)),
        value(row.max.map(|sample| sample.value)),
        place(step(row.max)),
        value(Some(row.last.value)),
        place(row.last.step),
    ];
    rows.cells(run.map(|run| Field::Text(run.to_owned())).into_iter().chain(cells))
}

/// Prints a row for each step.
fn pivot(runs: &Runs<'_>, shape: Shape, out: &mut Out) -> Result<u8, Error> {
    let reduce = match runs.asked.reduce {
        Reduction::Last => Reduce::Last,
        Reduction::Mean => Reduce::Mean,
        Reduction::Min => Reduce::Min,
        Reduction::Max => Reduce::Max,
        Reduction::Sum => Reduce::Sum,
    };
    let mut tables: Vec<(Option<String>, PivotTable)> = Vec::new();
    let (mut cells, max) = (0, Pivot::MAX_CELLS);
    runs.each(|run, history| {
        let table = history.pivot(&runs.query, reduce)?;
        cells += table.names.len() * table.rows.len();
        if cells > max {
            return Err(Error::Asked(format!(
                "the tables of all runs have more than {max} cells: ask for fewer runs, names or steps"
            )));
        }
        tables.push((run.map(str::to_owned), table));
        Ok(())
    })?;
    let names: BTreeSet<&str> =
        tables.iter().flat_map(|(_, table)| &table.names).map(|name| &**name).collect();
    let mut head = vec!["step".to_owned()];
    if runs.has_names() {
        head.insert(0, "run".to_owned());
    }
    head.extend(names.iter().map(|name| (*name).to_owned()));
    let mut rows = Rows::begin(head, shape, out);
    for (run, table) in &tables {
        // Of each column of all tables, that of this one.
        let places: Vec<Option<usize>> =
            names.iter().map(|name| table.names.binary_search_by(|own| (**own).cmp(name)).ok()).collect();
        for row in &table.rows {
            let values = places.iter().map(|place| {
                place
                    .and_then(|place| row.values.get(place).copied().flatten())
                    .map_or(Field::None, Field::Number)
            });
            let front = run.clone().map(Field::Text).into_iter().chain([Field::Step(row.step)]);
            rows.cells(front.chain(values))?;
        }
    }
    note_left_out(tables.iter().map(|(_, table)| table.left_out).sum());
    rows.end()
}

/// Says how many numbers are in no row, since they have no step.
pub(crate) fn note_left_out(numbers: u64) {
    if numbers > 0 {
        note(&format!("{} left out: without a step", count(numbers, "number")));
    }
}

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
        return rows.json(json_of(record, run));
    }
    let mut row = row_of(record, rows.shape);
    if let Some(run) = run {
        row.insert(0, run.to_owned());
    }
    rows.push(row)
}

/// Rows on their way out. Those of a table wait for its end, since its columns are as wide as the widest of their cells. The head comes with
/// the first row, or at the end: of an answer that is an error from the begin, nothing is printed.
pub(crate) struct Rows<'a> {
    head: Vec<String>,
    shape: Shape,
    waiting: Vec<Vec<String>>,
    is_empty: bool,
    out: &'a mut Out,
}

/// Rows of a table that are made wide enough together.
const MAX_ROWS: usize = 10_000;

/// Field of a row.
pub(crate) enum Field {
    None,
    Text(String),
    Count(u64),
    Step(i64),
    Time(SystemTime),
    Number(f64),
}

impl Field {
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

/// Makes names unique: a repeated one gets a number.
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
    pub(crate) fn begin(head: Vec<String>, shape: Shape, out: &'a mut Out) -> Self {
        Self { head: unique(head), shape, waiting: Vec::new(), is_empty: true, out }
    }

    /// Sets the head of a table that has no row yet.
    pub(crate) fn head(&mut self, head: Vec<String>) {
        self.head = unique(head);
    }

    /// Prints a line in the place of a row.
    pub(crate) fn line(&mut self, line: impl Display) -> Result<(), Error> {
        self.is_empty = false;
        self.out.line(line)
    }

    /// Prints what waits for nothing.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        self.out.flush()
    }

    /// Adds a row, with a cell for each name of the head.
    pub(crate) fn cells(&mut self, cells: impl Iterator<Item = Field>) -> Result<(), Error> {
        if self.shape == Shape::Json {
            let row = self.head.iter().cloned().zip(cells.map(|cell| cell.as_json())).collect();
            return self.json(serde_json::Value::Object(row));
        }
        let shape = self.shape;
        self.push(cells.map(|cell| cell.as_text(shape)).collect())
    }

    pub(crate) fn json(&mut self, row: impl Display) -> Result<(), Error> {
        self.is_empty = false;
        self.out.json(row)
    }

    fn push(&mut self, row: Vec<String>) -> Result<(), Error> {
        let is_first = std::mem::replace(&mut self.is_empty, false);
        if self.shape == Shape::Csv {
            if is_first {
                self.out.csv(&self.head)?;
            }
            return self.out.csv(&row);
        }
        self.waiting.push(row);
        if self.waiting.len() >= MAX_ROWS { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), Error> {
        let head: Vec<&str> = self.head.iter().map(String::as_str).collect();
        self.out.table(&head, usize::MAX, std::mem::take(&mut self.waiting))
    }

    pub(crate) fn end(mut self) -> Result<u8, Error> {
        if self.is_empty && self.shape == Shape::Csv {
            self.out.csv(&self.head)?;
        }
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
pub(crate) fn steps_of(steps: &str) -> Result<(u64, u64), Error> {
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
    let _progress = Progress::of([&path]);
    if !path.exists() {
        return Err(Error::Asked(format!("--sql asks a database, and there is no {}", path.display())));
    }
    let (database, _) = open_to_read(&path).map_err(failed)?;
    // ATTACH could read or create another file.
    database.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0).map_err(failed)?;
    if sql.trim().is_empty() {
        return Err(Error::Asked("--sql must be a question, got an empty text".to_owned()));
    }
    let mut statement = database.prepare(sql).map_err(failed)?;
    if !statement.readonly() {
        return Err(Error::Asked("--sql is for questions: this one would change the database".to_owned()));
    }
    let names: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
    let mut answers = statement.query(()).map_err(failed)?;
    let mut rows = Rows::begin(names, shape, out);
    while let Some(row) = answers.next().map_err(failed)? {
        let cell = |place| row.get_ref(place).map_err(failed);
        match shape {
            Shape::Json => {
                let mut line = serde_json::Map::new();
                for (place, name) in rows.head.iter().enumerate() {
                    line.insert(name.clone(), as_json(cell(place)?));
                }
                rows.json(serde_json::Value::Object(line))?;
            }
            _ => {
                let cells = (0..rows.head.len()).map(|place| Ok(as_text(cell(place)?)));
                rows.push(cells.collect::<Result<_, Error>>()?)?;
            }
        }
    }
    rows.end()
}

fn as_json(cell: ValueRef<'_>) -> serde_json::Value {
    match cell {
        ValueRef::Null => serde_json::Value::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => as_number(number),
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
