//! Standard input, read as the files of a run are: `-` where a file may be named.

use std::borrow::Borrow;
use std::cell::Cell;
use std::io::{self, StdinLock};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use forebay::{Event, Record};
use forebay_history::{EventQuery, History, HistoryError, JsonLinesReader, Records};

use crate::error::Error;

/// How much of standard input is held where the answer is known at its end alone: events, and bytes of them in memory.
const MAX_HELD: Held = Held { events: 1_000_000, bytes: 1 << 30 };

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
        Ok(bounded(self.records(), query, MAX_HELD))
    }
}

/// Events, and bytes of them in memory.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    events: u64,
    bytes: u64,
}

/// Record that counts among those that are held, as long as it is there.
struct Counted {
    record: Record,
    _share: Share,
}

struct Share {
    bytes: u64,
    all: Rc<Cell<Held>>,
}

impl Counted {
    fn new(record: Record, all: &Rc<Cell<Held>>) -> Self {
        let (bytes, before) = (record.size_hint() as u64, all.get());
        all.set(Held { events: before.events + 1, bytes: before.bytes + bytes });
        Self { record, _share: Share { bytes, all: Rc::clone(all) } }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let before = self.all.get();
        self.all.set(Held { events: before.events - 1, bytes: before.bytes - self.bytes });
    }
}

impl Borrow<Record> for Counted {
    fn borrow(&self) -> &Record {
        &self.record
    }
}

/// Selects from records. Those that must be held until the end, since they come only once (the newest, and what is current), are bounded: an
/// error is the last item then.
fn bounded<'a>(
    records: impl Iterator<Item = Result<Record, HistoryError>> + 'a,
    query: &EventQuery,
    max: Held,
) -> Records<'a> {
    let (mut records, all) = (records.fuse(), Rc::new(Cell::new(Held::default())));
    let counted = std::iter::from_fn(move || {
        let held = all.get();
        if held.events > max.events || held.bytes > max.bytes {
            let why = format!(
                "what is current, and the newest, is held until the end: at most {} events, {} MB of memory, got more: ask a file, or for fewer",
                max.events,
                max.bytes >> 20
            );
            return Some(Err(HistoryError::new("standard input", why)));
        }
        records.next().map(|record| record.map(|record| Counted::new(record, &all)))
    });
    let selected = query.select(counted);
    Box::new(selected.map(|record| record.map(|Counted { record, _share }| record)))
}

#[cfg(test)]
mod tests {
    use forebay::event::catalog::training::Started;
    use forebay::{Fields, Value};

    use super::*;

    #[test]
    fn what_is_held_of_standard_input_has_a_limit_and_what_is_not_asked_for_does_not_count() {
        // Two generations, each with ten events of each name.
        let begin = |generation: i64| {
            let started = Started { run_id: "r".to_owned(), config: Fields::new(), model_type: None };
            Record::from(started).with_field("generation", Value::from(generation))
        };
        let values = |_| {
            (0..20)
                .map(|step| Record::scalar(["a", "b"][step % 2], 0.5).with_step(step as u64))
                .collect::<Vec<_>>()
        };
        let records: Vec<Record> =
            [1, 2].into_iter().flat_map(|it| [vec![begin(it)], values(it)].concat()).collect();
        let ask = |query: EventQuery, events: u64, bytes: u64| -> Result<Vec<Record>, HistoryError> {
            bounded(records.clone().into_iter().map(Ok), &query, Held { events, bytes }).collect()
        };
        let asked = [
            EventQuery::new().name("a").current().generation(2),
            EventQuery::new().name("a").newest_first().limit(10),
        ];
        let size = 10 * Record::scalar("a", 0.5).size_hint() as u64;
        for query in asked {
            assert_eq!(ask(query.clone(), 11, 2 * size).unwrap().len(), 10, "{query:?}");
            let error = crate::error::Error::from(ask(query.clone(), 9, 2 * size).unwrap_err()).to_string();
            assert_eq!(
                error,
                "cannot read standard input: what is current, and the newest, is held until the end: at most 9 events, 0 MB of memory, got more: ask a file, or for fewer"
            );
            assert!(ask(query, 11, size - 1).is_err());
        }
        // What is given as it is found is not held.
        assert_eq!(ask(EventQuery::new().name("a"), 1, size).unwrap().len(), 20);
    }
}
