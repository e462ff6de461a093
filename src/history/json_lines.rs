//! Files of JSON Lines, read while they are written.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::{EventQuery, History, HistoryError};
use crate::event::Record;
use crate::sink::{Closed, closed, decode};

/// 1 GiB.
const LONGEST_LINE: u64 = 1 << 30;

/// Reads the records of a file that a [`JsonLinesSink`](crate::sink::JsonLinesSink) wrote, one after the other.
///
/// A last line without an end was torn by the death of its writer, or is being written: it is never read as a record, and
/// counted. So is any other line that is no record, and one of more than 1 GiB ([`longest_line`](Self::longest_line)). After the end, or an error, there is nothing more: to see what was
/// written since, begin anew.
#[derive(Debug)]
pub struct JsonLinesReader<R = BufReader<File>> {
    lines: R,
    line: Vec<u8>,
    skipped: u64,
    longest: u64,
    /// The end, or an error that will come again.
    is_over: bool,
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
        Self { lines, line: Vec::new(), skipped: 0, longest: LONGEST_LINE, is_over: false }
    }

    /// Passes over lines of more bytes than that, and counts them: no more of a file is held in memory. Defaults to
    /// 1 GiB.
    pub fn longest_line(mut self, bytes: u64) -> Self {
        self.longest = bytes;
        self
    }

    /// Reads the next line, with its end; of one that is too long, the beginning.
    fn read_line(&mut self) -> io::Result<usize> {
        self.line.clear();
        let read =
            (&mut self.lines).take(self.longest.saturating_add(1)).read_until(b'\n', &mut self.line)?;
        if self.line.last() != Some(&b'\n') && read as u64 > self.longest {
            self.lines.skip_until(b'\n')?;
        }
        Ok(read)
    }

    /// How many lines were no records, so far.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }
}

impl<R: BufRead> Iterator for JsonLinesReader<R> {
    type Item = io::Result<Record>;

    fn next(&mut self) -> Option<io::Result<Record>> {
        while !self.is_over {
            match self.read_line() {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    self.is_over = true;
                    return Some(Err(error));
                }
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
        self.is_over = true;
        None
    }
}

/// The files of a [`JsonLinesSink`](crate::sink::JsonLinesSink), those that it has closed included. Each query reads them
/// from the beginning.
#[derive(Debug, Clone)]
pub struct JsonLinesHistory {
    path: PathBuf,
}

impl JsonLinesHistory {
    /// The files of the sink that writes to `path`; they are opened anew for every query.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Opens all files, oldest first. Opened, they stay readable whatever becomes of their names.
    fn open(&self) -> io::Result<Vec<Box<dyn BufRead>>> {
        loop {
            let closed = closed(&self.path)?;
            let last = File::open(&self.path);
            let mut files = Vec::with_capacity(closed.len() + 1);
            for closed in &closed {
                files.extend(open_closed(closed)?);
            }
            // The sink may have closed the last one meanwhile: then it would be read twice, or the next not at all.
            let number = |closed: &[Closed]| closed.last().map(|last| last.number);
            if number(&self::closed(&self.path)?) == number(&closed) {
                match last {
                    Ok(file) => files.push(Box::new(BufReader::new(file))),
                    // Just closed, and the next one not begun.
                    Err(error) if error.kind() == io::ErrorKind::NotFound && !files.is_empty() => {}
                    Err(error) => return Err(error),
                }
                return Ok(files);
            }
        }
    }
}

/// Opens a closed file, unless it is not there any more.
fn open_closed(closed: &Closed) -> io::Result<Option<Box<dyn BufRead>>> {
    let mut compressed = closed.path.clone().into_os_string();
    if !closed.is_compressed {
        compressed.push(".zst");
        match File::open(&closed.path) {
            Ok(file) => return Ok(Some(Box::new(BufReader::new(file)))),
            // It may just have been compressed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    match File::open(compressed) {
        Ok(file) => decode(file).map(Some),
        // The sink keeps only so many.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl History for JsonLinesHistory {
    fn query(&self, query: &EventQuery) -> Result<Vec<Record>, HistoryError> {
        let failed =
            |error: io::Error| HistoryError { place: self.path.display().to_string(), source: error.into() };
        let files = self.open().map_err(failed)?;
        let mut broken = None;
        let records = files.into_iter().flat_map(JsonLinesReader::new);
        let records = records.map_while(|record| record.map_err(|error| broken = Some(error)).ok());
        let found = query.select(records);
        broken.map_or(Ok(found), |error| Err(failed(error)))
    }
}
