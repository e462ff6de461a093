//! The records of a database as they come.

use forebay::Record;
use forebay::parts::row_to_record;
use forebay_sync::sync::unforked;
use forebay_sync::unix::let_forks_in;
use rusqlite::OptionalExtension;

use super::{Reader, SqliteHistory};
use crate::HistoryError;

/// Record by which a reader knows how far it is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Seen {
    /// 0 before the first.
    pub(crate) number: i64,
    pub(crate) time: i64,
}

impl Seen {
    pub(crate) fn of(number: i64, record: &Record) -> Self {
        Self { number, time: i64::try_from(record.unix_nanos()).unwrap_or(i64::MAX) }
    }
}

impl SqliteHistory {
    /// Returns the records behind that one, in the order in which they were delivered, `max_records` at most, each with its number. All
    /// numbers are positive. `None` where the database has that record no more, nor one behind it: it is another one.
    ///
    /// # Errors
    ///
    /// As for a query.
    pub(crate) fn after(
        &self,
        last: Seen,
        max_records: usize,
    ) -> Result<Option<Vec<(i64, Record)>>, HistoryError> {
        self.read(|reader| reader.after(last, max_records))
    }

    /// Closes the database until the next question.
    pub(crate) fn release(&mut self) {
        if let Some(reader) = &mut self.reader
            && !self.home.is_left()
        {
            unforked(|| *reader.lock() = None);
        }
    }
}

impl Reader {
    fn after(
        &mut self,
        last: Seen,
        max_records: usize,
    ) -> Result<Option<Vec<(i64, Record)>>, rusqlite::Error> {
        let database = self.database()?;
        if last.number > 0 {
            // The largest number that is not beyond it: its own, or it was evicted while others came.
            let newest = database
                .prepare_cached("SELECT id, time FROM events WHERE id >= ? ORDER BY id LIMIT 1")?
                .query_row([last.number], |row| Ok(Seen { number: row.get(0)?, time: row.get(1)? }))
                .optional()?;
            if newest.is_none_or(|newest| newest.number == last.number && newest.time != last.time) {
                return Ok(None);
            }
        }
        let mut statement = database.prepare_cached(
            "SELECT names.name, time, step, priority, kind, value, record, events.id
            FROM events JOIN names ON names.id = events.name WHERE events.id > ? ORDER BY events.id LIMIT ?",
        )?;
        let mut rows = statement.query((last.number, i64::try_from(max_records).unwrap_or(i64::MAX)))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let_forks_in();
            found.push((row.get(7)?, row_to_record(row)?));
        }
        Ok(Some(found))
    }
}
