//! `SpillFile`: batches in a file, each with its header, and a place that says up to where they were taken.
//!
//! | line | what it is |
//! |---|---|
//! | first | `forebay.spill`, with the place: it has always as many bytes, and is written over |
//! | then, for each batch | `forebay.batch`, with its header and the length of its lines, and these |
//!
//! A batch goes to the end in one write, and the place moves behind what was taken: what is torn at the end was not taken by anybody. Where
//! all were taken, the file is cut behind its first line.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::batch::{Batch, KeptHeader};
use crate::event::Event;
use crate::origin::{Origin, RunIdentity};
use crate::sink::SinkError;
use crate::sync::{Arc, catch_panic};

/// Length of the first line.
const FIRST: u64 = 128;

/// Longest header that is read.
const MAX_HEADER: u64 = 1 << 20;

/// First line of the file.
#[derive(Debug, Serialize, Deserialize)]
struct First {
    name: String,
    time: String,
    /// Where the next batch begins, with leading zeros.
    next: String,
}

/// Line in front of the events of a batch.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    name: String,
    /// As other records have it. The moment in `batch` is the exact one.
    time: String,
    batch: KeptBatch,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeptBatch {
    number: u64,
    first_event: u64,
    gap: u64,
    unix_nanos: u64,
    /// Number of its events, and bytes of their lines.
    events: u64,
    bytes: u64,
    origin: Origin,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run: Option<RunIdentity>,
}

const SPILL: &str = "forebay.spill";
const BATCH: &str = "forebay.batch";

/// Batch in the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// Bytes of all its lines.
    pub(super) size: u64,
    pub(super) events: u64,
    /// True if an earlier process has put it there.
    pub(super) is_earlier: bool,
}

#[derive(Debug)]
pub(super) struct SpillFile {
    path: PathBuf,
    file: File,
    pub(super) max_bytes: u64,
    /// Where the oldest batch begins, and where the file ends.
    next: u64,
    end: u64,
    batches: u64,
    /// Those among them that an earlier process has put there: the oldest ones.
    earlier: u64,
}

impl SpillFile {
    /// Opens a file, or makes one, with its folders.
    pub(super) fn open(path: &Path, max_bytes: u64) -> io::Result<Self> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(named)?;
        }
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(named)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let why = io::Error::new(io::ErrorKind::ResourceBusy, "another process or sink has it open");
                return Err(named(why));
            }
            // A file system without locks: nobody can say.
            Err(TryLockError::Error(_)) => {}
        }
        let mut this =
            Self { path: path.to_owned(), file, max_bytes, next: FIRST, end: FIRST, batches: 0, earlier: 0 };
        this.look().map_err(named)?;
        Ok(this)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn batches(&self) -> u64 {
        self.batches
    }

    /// Finds out what an earlier process has left.
    fn look(&mut self) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        if length < FIRST {
            let mut begin = Vec::new();
            (&self.file).read_to_end(&mut begin)?;
            // One that was just made may be torn.
            if !first_line(FIRST).starts_with(&begin) {
                return Err(foreign());
            }
            self.file.set_len(0)?;
            return self.write_at(0, &first_line(FIRST));
        }
        let mut first = vec![0; FIRST as usize];
        self.read_at(0, &mut first)?;
        let first: First = serde_json::from_slice(&first).map_err(|_| foreign())?;
        let next = first.next.parse().ok().filter(|next| first.name == SPILL && *next >= FIRST);
        self.next = next.ok_or_else(foreign)?;
        // It is cut before its place is written.
        self.next = if self.next > length { FIRST } else { self.next };
        self.end = self.next;
        let mut file = BufReader::new(&self.file);
        file.seek(SeekFrom::Start(self.next))?;
        while self.end < length {
            let mut line = Vec::new();
            file.by_ref().take(MAX_HEADER).read_until(b'\n', &mut line)?;
            let header = match serde_json::from_slice::<Header>(&line) {
                Ok(header) if line.ends_with(b"\n") && header.name == BATCH => header,
                // The process has died while it wrote.
                _ if self.end + (line.len() as u64) == length => break,
                _ => return Err(foreign()),
            };
            let size = (line.len() as u64).saturating_add(header.batch.bytes);
            if size > length - self.end {
                break;
            }
            file.seek_relative(i64::try_from(header.batch.bytes).unwrap_or(i64::MAX))?;
            self.end += size;
            self.batches += 1;
        }
        self.earlier = self.batches;
        if self.end < length {
            self.file.set_len(self.end)?;
        }
        if self.batches == 0 { self.clear() } else { Ok(()) }
    }

    /// Returns the oldest batch. `None`: there is none.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, SinkError> {
        if self.batches == 0 {
            return Ok(None);
        }
        let (header, line) = self.header()?;
        let (size, is_earlier) = (line.saturating_add(header.bytes), self.earlier > 0);
        Ok(Some(Entry { size, events: header.events, is_earlier }))
    }

    /// Reads the header of the oldest batch, and the length of its line.
    fn header(&mut self) -> Result<(KeptBatch, u64), SinkError> {
        let mut file = BufReader::new(&self.file);
        file.seek(SeekFrom::Start(self.next))?;
        let mut line = Vec::new();
        file.take(MAX_HEADER).read_until(b'\n', &mut line)?;
        let header: Header = serde_json::from_slice(&line)
            .map_err(|error| self.changed(&format!("no header of a batch: {error}")))?;
        Ok((header.batch, line.len() as u64))
    }

    /// Returns the error of a file that somebody has written to.
    fn changed(&self, why: &str) -> SinkError {
        let (path, place) = (self.path.display(), self.next);
        SinkError::write_failed(format!("{path} was changed by somebody, at byte {place}: {why}")).permanent()
    }

    /// Reads the oldest batch.
    pub(super) fn read<E: Event + DeserializeOwned>(&mut self) -> Result<Batch<E>, SinkError> {
        let (header, line) = self.header()?;
        let size = usize::try_from(header.bytes).unwrap_or(usize::MAX);
        let mut lines = vec![0; size.min(usize::try_from(self.end).unwrap_or(usize::MAX))];
        self.read_at(self.next + line, &mut lines)?;
        let (mut events, lines) = (Vec::new(), lines.split(|byte| *byte == b'\n'));
        for line in lines.filter(|line| !line.is_empty()) {
            let event = catch_panic(|| serde_json::from_slice(line))
                .map_err(|said| SinkError::panicked("an event's Deserialize", &said))?;
            events.push(event.map_err(|error| self.changed(&format!("no event: {error}")))?);
        }
        let KeptBatch { number, first_event, gap, unix_nanos, origin, run, .. } = header;
        let time = UNIX_EPOCH + Duration::from_nanos(unix_nanos);
        let is_replayed = self.earlier > 0;
        let (origin, run) = (Arc::new(origin), run.map(Arc::new));
        let header = KeptHeader { number, first_event, gap, time, origin, run, is_replayed };
        Ok(Batch::restored(header, events))
    }

    /// Notes that the oldest batch was taken, of that size.
    pub(super) fn advance(&mut self, size: u64) -> Result<(), SinkError> {
        self.next = self.next.saturating_add(size).min(self.end);
        self.batches = self.batches.saturating_sub(1);
        self.earlier = self.earlier.saturating_sub(1);
        if self.batches == 0 {
            return Ok(self.clear()?);
        }
        Ok(self.write_at(0, &first_line(self.next))?)
    }

    /// Cuts the file behind its first line.
    fn clear(&mut self) -> io::Result<()> {
        (self.next, self.end) = (FIRST, FIRST);
        self.file.set_len(FIRST)?;
        self.write_at(0, &first_line(FIRST))
    }

    /// Puts lines behind all others.
    pub(super) fn append(&mut self, lines: &[u8]) -> Result<(), SinkError> {
        let size = lines.len() as u64;
        let is_full = |this: &Self| this.end.saturating_add(size) > this.max_bytes;
        if is_full(self) && self.next > FIRST {
            self.compact()?;
        }
        if is_full(self) {
            let (path, max) = (self.path.display(), self.max_bytes);
            let why = format!("no space in {path}: at most {max} bytes, got {} and {size} more", self.end);
            return Err(SinkError::write_failed(why).permanent());
        }
        if let Err(error) = self.write_at(self.end, lines) {
            // What is torn goes, or else the next batch writes over it.
            _ = self.file.set_len(self.end);
            let (path, error) = (self.path.display(), error.to_string());
            return Err(SinkError::write_failed(format!("{path}: {error}")).permanent());
        }
        self.end += size;
        self.batches += 1;
        Ok(())
    }

    /// Moves what was not taken to the begin. A process that dies meanwhile leaves the file as it was.
    fn compact(&mut self) -> io::Result<()> {
        let mut beside = self.path.clone().into_os_string();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        let copied = self.copy_to(&beside);
        if copied.is_err() {
            _ = std::fs::remove_file(&beside);
        }
        self.file = copied?;
        self.end = FIRST + (self.end - self.next);
        self.next = FIRST;
        Ok(())
    }

    fn copy_to(&self, beside: &Path) -> io::Result<File> {
        let mut new = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(beside)?;
        _ = new.try_lock();
        new.write_all(&first_line(FIRST))?;
        (&self.file).seek(SeekFrom::Start(self.next))?;
        io::copy(&mut (&self.file).take(self.end - self.next), &mut new)?;
        std::fs::rename(beside, &self.path)?;
        Ok(new)
    }

    fn read_at(&self, place: u64, bytes: &mut [u8]) -> io::Result<()> {
        (&self.file).seek(SeekFrom::Start(place))?;
        (&self.file).read_exact(bytes)
    }

    fn write_at(&self, place: u64, bytes: &[u8]) -> io::Result<()> {
        (&self.file).seek(SeekFrom::Start(place))?;
        (&self.file).write_all(bytes)
    }
}

fn foreign() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the file must be one of a spill, or none")
}

/// Returns the first line, with that place in it.
fn first_line(next: u64) -> Vec<u8> {
    let time = "1970-01-01T00:00:00.000000000Z";
    let mut line =
        format!("{{\"name\":\"{SPILL}\",\"time\":\"{time}\",\"next\":\"{next:020}\"}}").into_bytes();
    line.resize(FIRST as usize - 1, b' ');
    line.push(b'\n');
    line
}

/// Returns the lines of a batch.
///
/// # Errors
///
/// An event cannot be serialised, or its code panics: then none of the batch can be kept.
pub(super) fn encode<E: Event + Serialize>(batch: &Batch<E>) -> Result<Vec<u8>, SinkError> {
    let mut lines = Vec::new();
    for event in batch {
        match catch_panic(|| serde_json::to_writer(&mut lines, event)) {
            Ok(Ok(())) => lines.push(b'\n'),
            Ok(Err(error)) => {
                return Err(SinkError::write_failed(format!("event not serialised: {error}")).permanent());
            }
            Err(said) => return Err(SinkError::panicked("an event's Serialize", &said)),
        }
    }
    let since = batch.time().duration_since(UNIX_EPOCH).unwrap_or_default();
    let header = Header {
        name: BATCH.to_owned(),
        time: humantime::format_rfc3339_nanos(batch.time().max(SystemTime::UNIX_EPOCH)).to_string(),
        batch: KeptBatch {
            number: batch.number(),
            first_event: batch.first_event(),
            gap: batch.gap(),
            unix_nanos: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
            events: batch.len() as u64,
            bytes: lines.len() as u64,
            origin: batch.origin().clone(),
            run: batch.run().cloned(),
        },
    };
    let mut bytes = serde_json::to_vec(&header)
        .map_err(|error| SinkError::write_failed(format!("header not serialised: {error}")).permanent())?;
    bytes.push(b'\n');
    bytes.append(&mut lines);
    Ok(bytes)
}
