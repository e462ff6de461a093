//! Standard input, read as the files of a run are: `-` where a file may be named.

use std::io::{self, StdinLock};
use std::sync::atomic::{AtomicU64, Ordering};

use forebay::Record;
use forebay_history::{EventQuery, History, HistoryError, JsonLinesReader, Records};

use crate::error::Error;

/// Lines of JSON from standard input. They can be asked once.
#[derive(Debug, Default)]
pub(crate) struct Stdin {
    events: AtomicU64,
    skipped: AtomicU64,
}

impl Stdin {
    /// Returns an error if it had lines, and none of them was an event.
    pub(crate) fn check(&self) -> Result<(), Error> {
        // Relaxed: it is asked by the thread that has read.
        if self.events.load(Ordering::Relaxed) == 0 && self.skipped.load(Ordering::Relaxed) > 0 {
            return Err(Error::foreign("standard input"));
        }
        Ok(())
    }

    /// Reads the events, one after the other. An error is the last item.
    pub(crate) fn records(&self) -> impl Iterator<Item = Result<Record, HistoryError>> + '_ {
        let mut lines: JsonLinesReader<StdinLock<'static>> = JsonLinesReader::new(io::stdin().lock());
        std::iter::from_fn(move || {
            let next = lines.next();
            self.skipped.store(lines.skipped(), Ordering::Relaxed);
            self.events.fetch_add(u64::from(matches!(next, Some(Ok(_)))), Ordering::Relaxed);
            next.map(|record| record.map_err(|error| HistoryError::new("standard input", error)))
        })
    }
}

impl History for &Stdin {
    fn query(&self, query: &EventQuery) -> Result<Vec<Record>, HistoryError> {
        self.iter(query)?.collect()
    }

    fn iter<'a>(&'a self, query: &EventQuery) -> Result<Records<'a>, HistoryError> {
        // It cannot be read twice: what is current is held until its end.
        Ok(query.select(self.records()))
    }
}
