//! History in the database of an SQLite sink, read while it is written.

#[cfg(all(feature = "json-lines", feature = "tensorboard"))]
mod following;

use std::error::Error;
use std::path::{Path, PathBuf};

use forebay::parts::{
    Live, inside, open_fixed, open_to_read, refuse_inherited, resolve, row_to_record, version,
};
use forebay::{Record, event::catalog::training};
use forebay_sync::sync::{Home, Mutex, unforked};
use forebay_sync::unix::let_forks_in;
use rusqlite::types::Value as Cell;
use rusqlite::{Connection, params_from_iter};

use crate::lineage::Lineage;
use crate::{EventQuery, History, HistoryError, Records};

#[cfg(all(feature = "json-lines", feature = "tensorboard"))]
pub(crate) use following::Seen;

/// History in the database of a [`SqliteSink`](forebay::sink::SqliteSink), opened for reading alone: it holds up no
/// writer and changes no data. (Where nobody writes, SQLite may leave empty files `-wal` and `-shm` beside it. On a
/// disk that is read-only, and so without them, the database is opened again for every query, as one that nobody writes
/// to.)
///
/// A fork by another thread waits until a query comes to its next row, a second at most. Where SQLite needs longer for
/// one, because it looks through many events of which few fit, the child cannot use SQLite, and gets an error.
///
/// Every query looks whether the files are still those that are open. Where they were moved, removed or replaced, or the path is
/// a link that leads elsewhere by now, it opens what is at the path, and is an error while nothing can be read there.
#[derive(Debug)]
pub struct SqliteHistory {
    path: PathBuf,
    /// `None` only while it is dropped; in it, `None` after its files were replaced and could not be opened again.
    reader: Option<Mutex<Option<Reader>>>,
    /// The process that may use and close it.
    home: Home,
}

#[derive(Debug)]
struct Reader {
    live: Live,
    /// Path of the file, without a symbolic link at its end.
    target: PathBuf,
    /// Nobody can write to it, nor could we to the files that readers and writers share.
    is_fixed: bool,
}

impl SqliteHistory {
    /// Opens the database.
    ///
    /// # Errors
    ///
    /// There is none at `path`, it cannot be read, or it is not one of ours, or one of a newer version; or this is a forked child
    /// that cannot use SQLite, because a thread of its parent was inside it during the fork, or cannot use this file, because
    /// its parent has it open.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, HistoryError> {
        let (path, home) = (path.as_ref().to_owned(), Home::here());
        let refused = |source| HistoryError { place: path.display().to_string(), source: Box::new(source) };
        let reader = inside(home, || Reader::open(&path)).map_err(refused)??;
        Ok(Self { path, reader: Some(Mutex::new(Some(reader))), home })
    }

    /// Returns a part of what a query asks for, `max_records` at most, each with its number: what comes behind the record of that number, in
    /// the order that is asked for.
    ///
    /// # Errors
    ///
    /// As for a query.
    pub(crate) fn page(
        &self,
        query: &EventQuery,
        behind: Option<i64>,
        max_records: usize,
    ) -> Result<Vec<(i64, Record)>, HistoryError> {
        self.read(|reader| reader.find(query, behind, max_records))
    }

    fn read<T: Default>(
        &self,
        read: impl FnOnce(&mut Reader) -> Result<T, rusqlite::Error>,
    ) -> Result<T, HistoryError> {
        let refused =
            |source| HistoryError { place: self.path.display().to_string(), source: Box::new(source) };
        inside(self.home, || self.read_inside(read)).map_err(refused)?
    }

    fn read_inside<T: Default>(
        &self,
        read: impl FnOnce(&mut Reader) -> Result<T, rusqlite::Error>,
    ) -> Result<T, HistoryError> {
        let Some(reader) = &self.reader else { return Ok(T::default()) };
        let mut reader = reader.lock();
        // The old one is closed first: in one process, SQLite has two of the same file share what they know of it.
        _ = reader.take_if(|reader| !reader.is_found(&self.path));
        if reader.is_none() {
            *reader = Some(Reader::open(&self.path)?);
        }
        let Some(reader) = reader.as_mut() else { return Ok(T::default()) };
        read(reader).map_err(|error| failed(&self.path, error))
    }
}

impl Reader {
    fn open(path: &Path) -> Result<Self, HistoryError> {
        let refused =
            |source: Box<dyn Error + Send + Sync>| HistoryError { place: path.display().to_string(), source };
        refuse_inherited(path).map_err(|error| refused(error.into()))?;
        let target = resolve(path).map_err(|error| refused(error.into()))?;
        let mut is_fixed = false;
        let live = Live::open_once(&target, || {
            let (database, is_so) = open_to_read(&target)?;
            is_fixed = is_so;
            Ok(database)
        })
        .map_err(|error| failed(path, error))?;
        version(&live.connection).map_err(|error| refused(error.into()))?;
        Ok(Self { live, target, is_fixed })
    }

    /// Returns whether it reads what is at the path.
    fn is_found(&self, path: &Path) -> bool {
        resolve(path).is_ok_and(|target| target == self.target) && self.live.is_found()
    }

    /// Returns the database as it is now.
    fn database(&mut self) -> Result<&Connection, rusqlite::Error> {
        if self.is_fixed {
            // Somebody may have changed it in a way that is not seen from here.
            self.live.connection = open_fixed(&self.target)?;
        }
        Ok(&self.live.connection)
    }

    fn find(
        &mut self,
        query: &EventQuery,
        behind: Option<i64>,
        max_records: usize,
    ) -> Result<Vec<(i64, Record)>, rusqlite::Error> {
        let max_records = query.limit.map_or(max_records, |limit| limit.min(max_records));
        let database = self.database()?;
        // All that follows sees the same state.
        let database = database.unchecked_transaction()?;
        let mut sql = "SELECT name, time, step, priority, kind, value, record, id FROM (
            SELECT events.id AS id, names.name AS name, time, step, priority, kind, value, record
            FROM events JOIN names ON names.id = events.name WHERE true"
            .to_owned();
        let mut given: Vec<Cell> = Vec::new();
        let mut and = |condition: &str, cell: Cell| {
            sql.push_str(condition);
            given.push(cell);
        };
        let whole = |number: u64| Cell::Integer(i64::try_from(number).unwrap_or(i64::MAX));
        // Beyond what the columns can hold, there is nothing.
        if query
            .from_time
            .into_iter()
            .chain(query.steps.map(|(first, _)| first))
            .any(|from| from > i64::MAX as u64)
        {
            return Ok(Vec::new());
        }
        // Behind a part that was full, there may be as much again: going on from there beats sorting all that fits for each part.
        // The plus keeps the indexes out of it.
        let plus = if behind.is_some() { "+" } else { "" };
        if let Some(behind) = behind {
            and(
                if query.is_newest_first { " AND events.id < ?" } else { " AND events.id > ?" },
                Cell::Integer(behind),
            );
        }
        if let Some(from) = query.from_time {
            and(&format!(" AND {plus}time >= ?"), whole(from));
        }
        if let Some(until) = query.until_time {
            and(&format!(" AND {plus}time < ?"), whole(until));
        }
        if let Some((first, last)) = query.steps {
            and(&format!(" AND {plus}step >= ?"), whole(first));
            and(&format!(" AND {plus}step <= ?"), whole(last));
        }
        if let Some(priority) = query.priority {
            and(" AND priority = ?", Cell::Integer(priority as i64));
        }
        if let Some(source) = &query.source {
            and(" AND source = ?", Cell::Text(source.clone()));
        }
        if let Some(correlation) = &query.correlation {
            and(" AND correlation = ?", Cell::Text(correlation.clone()));
        }
        if let Some(pattern) = &query.name {
            // There are few names and many events: the pattern is tried on the names.
            let mut names = database.prepare_cached("SELECT id, name FROM names")?;
            let names = names.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?;
            let ids: Vec<String> = names
                .filter(|name| !matches!(name, Ok((_, name)) if !pattern.matches(name)))
                .map(|name| name.map(|(id, _)| id.to_string()))
                .collect::<Result<_, _>>()?;
            // With a limit and no other bound, going through the events until there are enough beats sorting all that
            // fit: the plus keeps the index of names out of it.
            let is_bounded = query.from_time.or(query.until_time).is_some() || query.steps.is_some();
            let plus = if query.limit.is_some() && !is_bounded { "+" } else { plus };
            sql.push_str(&format!(" AND {plus}events.name IN ({})", ids.join(",")));
        }
        let (begins, lineage) =
            if query.wanted.is_everything() { Default::default() } else { self::begins(&database)? };
        // What the columns cannot tell is looked for in the records, and then the limit comes after that.
        let in_records = !query.contains.is_empty() || !query.wanted.is_everything();
        sql.push_str(if query.is_newest_first { ") ORDER BY id DESC" } else { ") ORDER BY id" });
        if !in_records && max_records < usize::MAX {
            sql.push_str(&format!(" LIMIT {}", max_records.min(i64::MAX as usize)));
        }
        let mut statement = database.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(given))?;
        let mut found = Vec::new();
        while found.len() < max_records
            && let Some(row) = rows.next()?
        {
            let_forks_in();
            let record = row_to_record(row)?;
            let id: i64 = row.get(7)?;
            let begun = begins.partition_point(|begin| *begin <= id);
            let is_in = || query.matches(&record) && lineage.has(&query.wanted, begun, record.step());
            if !in_records || is_in() {
                found.push((id, record));
            }
        }
        Ok(found)
    }
}

/// Records that are read at once.
const PAGE: usize = 2_000;

impl History for SqliteHistory {
    fn query(&self, query: &EventQuery) -> Result<Vec<Record>, HistoryError> {
        let found = self.page(query, None, usize::MAX)?;
        Ok(found.into_iter().map(|(_, record)| record).collect())
    }

    /// The database is read in parts, so that it is free between them.
    fn iter<'a>(&'a self, query: &EventQuery) -> Result<Records<'a>, HistoryError> {
        let (query, mut left) = (query.clone(), query.limit.unwrap_or(usize::MAX));
        let (mut behind, mut page) = (None, Vec::new().into_iter());
        Ok(Box::new(std::iter::from_fn(move || {
            loop {
                if let Some((number, record)) = page.next() {
                    behind = Some(number);
                    return Some(Ok(record));
                }
                let wanted = left.min(PAGE);
                if wanted == 0 {
                    return None;
                }
                match self.page(&query, behind, wanted) {
                    Ok(found) => {
                        left = if found.len() < wanted { 0 } else { left - found.len() };
                        page = found.into_iter();
                    }
                    Err(error) => {
                        left = 0;
                        return Some(Err(error));
                    }
                }
            }
        })))
    }
}

impl Drop for SqliteHistory {
    fn drop(&mut self) {
        let reader = self.reader.take();
        if self.home.is_left() {
            // A forked child must not close what is its parent's.
            return std::mem::forget(reader);
        }
        // With the note that it is open, for which a lock is taken that a child must not find held.
        unforked(|| drop(reader));
    }
}

/// Returns the begins of all runs: their ids, and what they tell.
fn begins(database: &Connection) -> Result<(Vec<i64>, Lineage), rusqlite::Error> {
    let mut begins = database.prepare_cached(
        "SELECT names.name, time, step, priority, kind, value, record, events.id
        FROM events JOIN names ON names.id = events.name WHERE names.name = ? ORDER BY events.id",
    )?;
    let (mut ids, mut lineage) = (Vec::new(), Lineage::default());
    let mut rows = begins.query([training::Started::NAME])?;
    while let Some(row) = rows.next()? {
        lineage.see(&row_to_record(row)?);
        ids.push(row.get(7)?);
    }
    Ok((ids, lineage))
}

fn failed(path: &Path, error: rusqlite::Error) -> HistoryError {
    HistoryError { place: path.display().to_string(), source: error.into() }
}
