//! Files of JSON Lines, read while they are written.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use forebay::Record;
use forebay::event::catalog::training;
use forebay::parts::{Closed, ClosedFiles, closed, decode, empty, resolve};
use forebay_sync::unix::open_read;

use crate::lineage::Lineage;
use crate::{EventQuery, History, HistoryError, Records};

/// 1 GiB.
const MAX_LINE_BYTES: u64 = 1 << 30;

/// Reader of the records of a file that a [`JsonLinesSink`](forebay::sink::JsonLinesSink) wrote, one after the other.
///
/// A last line without an end was torn by the death of its writer, or is being written: it is never read as a record, and
/// counted. So is any other line that is no record, and one of more than 1 GiB ([`max_line_bytes`](Self::max_line_bytes)). After the end,
/// or an error, there is nothing more: to see what was written since, begin again.
#[derive(Debug)]
pub struct JsonLinesReader<R = BufReader<File>> {
    lines: R,
    line: Vec<u8>,
    skipped: u64,
    max_line_bytes: u64,
    /// The end, or an error that will come again.
    is_over: bool,
}

impl JsonLinesReader {
    /// Opens a file, and begins with its first line.
    ///
    /// # Errors
    ///
    /// The file cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        File::open(path).map(|file| Self::new(BufReader::new(file)))
    }
}

impl<R: BufRead> JsonLinesReader<R> {
    /// Reads lines from where `lines` is.
    pub fn new(lines: R) -> Self {
        Self { lines, line: Vec::new(), skipped: 0, max_line_bytes: MAX_LINE_BYTES, is_over: false }
    }

    /// Passes over lines of more bytes than that, and counts them: no more of a file is held in memory. Defaults to
    /// 1 GiB.
    pub fn max_line_bytes(mut self, bytes: u64) -> Self {
        self.max_line_bytes = bytes;
        self
    }

    /// Reads the next line, with its end; of one that is too long, the beginning.
    fn read_line(&mut self) -> io::Result<usize> {
        empty(&mut self.line);
        let read = (&mut self.lines)
            .take(self.max_line_bytes.saturating_add(1))
            .read_until(b'\n', &mut self.line)?;
        if self.line.last() != Some(&b'\n') && read as u64 > self.max_line_bytes {
            self.lines.skip_until(b'\n')?;
        }
        Ok(read)
    }

    /// Returns how many lines were no records, so far.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }
}

impl<R: BufRead> Iterator for JsonLinesReader<R> {
    type Item = io::Result<Record>;

    fn next(&mut self) -> Option<io::Result<Record>> {
        self.next_of(|_| true)
    }
}

impl<R: BufRead> JsonLinesReader<R> {
    /// Returns the next record whose line may be one that is asked for.
    fn next_of(&mut self, is_asked: impl Fn(&[u8]) -> bool) -> Option<io::Result<Record>> {
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
            if self.line == b"\n" || !is_asked(&self.line) {
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

/// History in the files of a [`JsonLinesSink`](forebay::sink::JsonLinesSink), those that it has closed included. Each query reads them
/// from the beginning. A compressed file that is named by itself (`events.jsonl.000001.zst`) is read alone.
#[derive(Debug, Clone)]
pub struct JsonLinesHistory {
    path: PathBuf,
}

impl JsonLinesHistory {
    /// Makes a history of the sink that writes to `path`. Its files are opened again for every query.
    ///
    /// # Errors
    ///
    /// The oldest file cannot be read, or there is none: see [`new`](Self::new).
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, HistoryError> {
        let history = Self::new(path);
        let first = history.files().and_then(|mut files| files.next().transpose());
        first.map_err(|error| history.refused(error))?;
        Ok(history)
    }

    /// Makes a history like [`open`](Self::open), of files that need not be there before the first query.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Reads the records of all files, oldest first, in the order in which they were delivered. One of them is in memory at a time.
    ///
    /// # Errors
    ///
    /// The files cannot be listed. A file that cannot be read is an error in the place of its records, and the last item.
    pub fn records(
        &self,
    ) -> Result<impl Iterator<Item = Result<Record, HistoryError>> + Send + use<>, HistoryError> {
        let files = self.files().map_err(|error| self.refused(error))?;
        let (history, mut is_broken) = (self.clone(), false);
        let records = files.flat_map(|file| {
            let (file, error) = match file {
                Ok(file) => (Some(file), None),
                Err(error) => (None, Some(Err(error))),
            };
            file.into_iter().flat_map(JsonLinesReader::new).chain(error)
        });
        Ok(records
            .take_while(move |record| !std::mem::replace(&mut is_broken, record.is_err()))
            .map(move |record| record.map_err(|error| history.refused(error))))
    }

    /// Returns the sections that its runs have.
    fn lineage(&self) -> Result<Lineage, HistoryError> {
        let mut lineage = Lineage::default();
        let name = memchr::memmem::Finder::new(training::Started::NAME);
        let mut read = || -> io::Result<()> {
            for file in self.files()? {
                let mut reader = JsonLinesReader::new(file?);
                // Another program may write a name with escapes.
                while let Some(record) = reader
                    .next_of(|line| name.find(line).is_some() || memchr::memmem::find(line, b"\\u").is_some())
                {
                    lineage.see(&record?);
                }
            }
            Ok(())
        };
        read().map_err(|error| self.refused(error))?;
        Ok(lineage)
    }

    fn refused(&self, error: io::Error) -> HistoryError {
        HistoryError { place: self.path.display().to_string(), source: error.into() }
    }

    /// Returns all files, oldest first, one open at a time. Ends with the file that the sink writes to now, whatever becomes of that
    /// meanwhile.
    fn files(&self) -> io::Result<impl Iterator<Item = io::Result<Box<dyn BufRead + Send>>> + Send + use<>> {
        // Closed files lie where the sink's file lies, and not where a link to it lies.
        let path = resolve(&self.path)?;
        // What the sink writes to now will have the next number, once it is closed.
        let ClosedFiles { files, next, .. } = files_of(&path)?;
        let (mut closed, open) = (VecDeque::from(files), next.unwrap_or(u64::MAX));
        let mut is_over = is_alone(&path);
        if is_over {
            std::fs::metadata(&path)?;
        }
        Ok(std::iter::from_fn(move || {
            while let Some(next) = closed.pop_front() {
                // Or it is not there any more: the sink keeps only so many.
                if let Some(file) = open_closed(&next).transpose() {
                    return Some(file);
                }
            }
            if std::mem::replace(&mut is_over, true) {
                return None;
            }
            Some(open_last(&path, open))
        }))
    }
}

/// Returns whether a path names a compressed file, which is read by itself.
pub(crate) fn is_alone(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "zst")
}

/// Returns the closed files beside a file; or a compressed file that is named by itself.
pub(crate) fn files_of(path: &Path) -> io::Result<ClosedFiles> {
    if !is_alone(path) {
        return closed(path);
    }
    let mut files = ClosedFiles::default();
    files.files.push(Closed { number: 0, is_compressed: true, path: path.to_owned() });
    files.next = Some(1);
    Ok(files)
}

/// Opens the file that the sink writes to, or wrote to until it was closed under that number.
fn open_last(path: &Path, number: u64) -> io::Result<Box<dyn BufRead + Send>> {
    let open = open_plain(path);
    let mut closed = closed(path)?.files.into_iter().filter(|closed| closed.number >= number).peekable();
    // Should it have been closed before it was opened, this is another one.
    if closed.peek().is_some() {
        let own = closed.find(|closed| closed.number == number);
        let file = own.map_or(Ok(None), |own| open_closed(&own))?;
        // Or it was removed since, as the oldest.
        return Ok(file.unwrap_or_else(|| Box::new(io::empty())));
    }
    match open {
        Ok(file) => Ok(Box::new(BufReader::new(file))),
        // Just closed, and the next one not begun: or there never was one.
        Err(error) if error.kind() == io::ErrorKind::NotFound && number > 1 => Ok(Box::new(io::empty())),
        Err(error) => Err(error),
    }
}

/// Opens a plain file. From a pipe, this reader would take what is meant for another.
fn open_plain(path: &Path) -> io::Result<File> {
    let file = open_read(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "what is queried must be a plain file"))
}

/// Opens a closed file, unless it is not there any more.
fn open_closed(closed: &Closed) -> io::Result<Option<Box<dyn BufRead + Send>>> {
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
        self.iter(query)?.collect()
    }

    /// What is current takes two readings: the first for the begins alone, so that nothing is held.
    fn iter<'a>(&'a self, query: &EventQuery) -> Result<Records<'a>, HistoryError> {
        let known = if query.wanted.is_current { Some(self.lineage()?) } else { None };
        Ok(query.clone().select_of(self.records()?, known))
    }
}
