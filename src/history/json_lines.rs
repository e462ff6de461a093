//! Files of JSON Lines, read while they are written.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::{EventQuery, History, HistoryError};
use crate::event::Record;

/// Reads the records of a file that a [`JsonLinesSink`](crate::sink::JsonLinesSink) wrote, one after the other.
///
/// A last line without an end was torn by the death of its writer, or is being written: it is never read as a record, and
/// counted. So is any other line that is no record.
#[derive(Debug)]
pub struct JsonLinesReader<R = BufReader<File>> {
    lines: R,
    line: Vec<u8>,
    skipped: u64,
}

impl JsonLinesReader {
    /// Begins with the first line of the file.
    ///
    /// # Errors
    ///
    /// The file cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        File::open(path).map(|file| Self::new(BufReader::new(file)))
    }
}

impl<R: BufRead> JsonLinesReader<R> {
    /// Begins where `lines` is.
    pub fn new(lines: R) -> Self {
        Self { lines, line: Vec::new(), skipped: 0 }
    }

    /// How many lines were no records, so far.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }
}

impl<R: BufRead> Iterator for JsonLinesReader<R> {
    type Item = io::Result<Record>;

    fn next(&mut self) -> Option<io::Result<Record>> {
        loop {
            self.line.clear();
            match self.lines.read_until(b'\n', &mut self.line) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
            let is_whole = self.line.last() == Some(&b'\n');
            // The sink closes a torn line that it finds: what follows may be empty.
            if self.line == b"\n" {
                continue;
            }
            match serde_json::from_slice(&self.line) {
                Ok(record) if is_whole => return Some(Ok(record)),
                _ => self.skipped += 1,
            }
        }
    }
}

/// The file of a [`JsonLinesSink`](crate::sink::JsonLinesSink). Each query reads it from its beginning.
#[derive(Debug, Clone)]
pub struct JsonLinesHistory {
    path: PathBuf,
}

impl JsonLinesHistory {
    /// The file at `path`, which is opened anew for every query.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

impl History for JsonLinesHistory {
    fn query(&self, query: &EventQuery) -> Result<Vec<Record>, HistoryError> {
        let failed =
            |error: io::Error| HistoryError { place: self.path.display().to_string(), source: error.into() };
        let mut broken = None;
        let records = JsonLinesReader::open(&self.path).map_err(failed)?;
        let records = records.map_while(|record| record.map_err(|error| broken = Some(error)).ok());
        let found = query.select(records, |record| query.matches(record));
        broken.map_or(Ok(found), |error| Err(failed(error)))
    }
}
