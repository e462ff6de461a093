//! Standard input, read as the files of a run are: `-` where a file may be named.

use std::io::{self, StdinLock};
use std::sync::atomic::{AtomicU64, Ordering};

use forebay::Record;
use forebay_history::{EventQuery, History, HistoryError, JsonLinesReader, Records};

use crate::error::Error;

/// Events of standard input that are held, where the whole answer is known at their end alone.
const MAX_HELD: u64 = 1_000_000;

/// Lines of JSON from standard input. They can be asked once.
#[derive(Debug, Default)]
pub(crate) struct Stdin {
    /// Whether the answer is held until the end: that to what is current.
    is_held: bool,
    events: AtomicU64,
    skipped: AtomicU64,
}

impl Stdin {
    /// Makes it for a query whose answer is held until the end, or is not.
    pub(crate) fn new(is_held: bool) -> Self {
        Self { is_held, ..Self::default() }
    }

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
        let max = if self.is_held { MAX_HELD } else { u64::MAX };
        Ok(query.select(bounded(self.records(), query.clone(), max)))
    }
}

/// Returns records until more of them are found than may be held: then an error, as the last one.
fn bounded(
    records: impl Iterator<Item = Result<Record, HistoryError>>,
    query: EventQuery,
    max: u64,
) -> impl Iterator<Item = Result<Record, HistoryError>> {
    let (mut records, mut found) = (records.fuse(), 0);
    std::iter::from_fn(move || {
        let next = records.next()?;
        if found > max {
            return None;
        }
        found += u64::from(next.as_ref().is_ok_and(|record| query.matches(record)));
        if found > max {
            let why = format!(
                "--current holds what is found there, {max} events at most: ask a file, or for fewer"
            );
            return Some(Err(HistoryError::new("standard input", why)));
        }
        Some(next)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_of_standard_input_has_a_limit_and_what_is_not_asked_for_does_not_count() {
        let records =
            || (0..20).map(|step| Ok(Record::scalar(["a", "b"][step % 2], 0.5).with_step(step as u64)));
        let query = EventQuery::new().name("a").current();
        let ask = |max| -> Result<Vec<Record>, HistoryError> {
            query.select(bounded(records(), query.clone(), max)).collect()
        };
        assert_eq!(ask(10).unwrap().len(), 10);
        let error = crate::error::Error::from(ask(9).unwrap_err()).to_string();
        assert_eq!(
            error,
            "cannot read standard input: --current holds what is found there, 9 events at most: ask a file, or for fewer"
        );
    }
}
