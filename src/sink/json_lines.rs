//! One JSON object a line, one `write` a batch.
//!
//! A process may be killed at any moment, and a disk may be full in the middle of a batch. What is in the
//! file then must still be whole lines, but for the very last: readers depend on it. So a batch is
//! encoded into one buffer and handed to the system in one call, nothing is kept back until later, and a
//! write that failed half-way is cut off again.

#[cfg(feature = "zstd")]
mod compression;
#[cfg(not(feature = "zstd"))]
#[path = "json_lines/no_compression.rs"]
mod compression;
mod rotation;

pub(crate) use compression::decode;
pub(crate) use rotation::{Closed, closed};

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::missing::Missing;
use super::presence::Presence;
use super::{Sink, SinkError};
use crate::batch::{Batch, Origin};
use crate::event::Record;

/// A sink that appends events to a file, one JSON object a line.
///
/// * Every batch is one `write` to the system. A process that is killed loses nothing that was written;
///   only the very last line can be torn.
/// * An existing file is continued, never overwritten. Should its last line be torn, that line is closed,
///   so that it stays the only one that is lost.
/// * Missing parent folders are created. A file that is removed under the sink, alone or with its folder, is begun anew
///   within a second or after a flush; what was written until then went with it.
/// * Names and texts are escaped; NaN and infinities are written as strings that read back.
/// * Events that are missing leave a line of their own, where they are missing: a record named `forebay.gap`
///   whose integer is their number. They were evicted, or an earlier write of this sink failed.
/// * An event that cannot be serialised fails alone; the rest of its batch is written. (`Serialize` of your own types runs on
///   the worker: one that recurses to any depth exhausts its stack. A [`Record`] never does.)
/// * A file that would grow beyond 100 MiB ([`rotate_at`](Self::rotate_at)) is closed before, and gets a number:
///   `events.jsonl.000001`, the next `events.jsonl.000002`. Numbers never change. All closed files stay, unless
///   [`keep_closed`](Self::keep_closed) says how many. [`JsonLinesHistory`](crate::history::JsonLinesHistory) reads
///   across them. A batch is never split. Should closing fail, the sink writes on into the same file and the error is
///   counted, without a failed event.
/// * Nothing is synced to the disk unless [`sync`](Self::sync) says so: a power cut may take what the system had not
///   written yet; the death of the process takes nothing.
///
/// Any event that implements [`serde::Serialize`] will do; for [`Record`] the format is
/// `{"name": .., "time": .., "step": .., "scalar": ..}`, with the kind of the value for its key (`integer`,
/// `bool`, `text`, `histogram`, `image`, `list`, `fields`), and it reads back with
/// [`serde_json::from_str`].
///
/// ```
/// use forebay::sink::JsonLinesSink;
/// use forebay::{Collector, Record};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let path = folder.path().join("runs/1/events.jsonl");
/// let collector = Collector::builder().sink(JsonLinesSink::create(&path)?).start()?;
/// collector.collect(Record::scalar("train.loss", f64::NAN).step(3));
/// collector.stop()?;
///
/// let line = std::fs::read_to_string(&path)?;
/// assert!(line.ends_with("\"step\":3,\"scalar\":\"NaN\"}\n"));
/// let record: Record = serde_json::from_str(&line)?;
/// assert_eq!(record.get_step(), Some(3));
/// # Ok(())
/// # }
/// ```
pub struct JsonLinesSink {
    name: String,
    path: PathBuf,
    file: File,
    /// The length of the file after our last write, as far as we know: where a failed write began.
    length: u64,
    /// Events that were lost on the way into this file and are not marked in it yet.
    missing: Missing,
    /// A failed write could not be cut off: the next one closes the torn line first.
    is_torn: bool,
    /// The encoded batch. Its capacity is that of the largest batch so far.
    lines: Vec<u8>,
    /// What goes into every line of the batch at hand, if anything does.
    origin: Option<Vec<u8>>,
    /// `None` never closes a file.
    most_bytes: Option<u64>,
    longest: Option<Duration>,
    keep: Option<usize>,
    /// What is done with files that were closed: called after each, and at a flush. It tells what went wrong since it was
    /// last called.
    after_close: Option<AfterClose>,
    /// When the file was begun, or found.
    begun: SystemTime,
    sync: SyncPolicy,
    synced: SystemTime,
    /// A pipe or a device cannot be closed and begun anew.
    is_file: bool,
    presence: Presence,
}

type AfterClose = Box<dyn FnMut() -> io::Result<()> + Send>;

/// When a [`JsonLinesSink`] has the system write its file to the disk. A sync of a few bytes takes about 250
/// microseconds, and 6 ms at the 99th percentile, in which no sink gets anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SyncPolicy {
    /// Never: the system does so when it likes. The default.
    #[default]
    Never,
    /// At every `flush` and `stop`.
    AtFlush,
    /// With the first batch after this time, and at every `flush` and `stop`.
    Every(Duration),
}

/// 100 MiB.
const MOST_BYTES: u64 = 100 << 20;

impl JsonLinesSink {
    /// A sink named `json_lines` that appends to the file at `path`, which is created if it is missing,
    /// with its parent folders.
    ///
    /// # Errors
    ///
    /// The system's, with the path in its text.
    pub fn create(path: impl AsRef<Path>) -> io::Result<Self> {
        // Whatever the process makes its working directory later.
        let path = std::path::absolute(path.as_ref())?;
        let about_path = |error: io::Error| {
            io::Error::new(error.kind(), format!("cannot write to {}: {error}", path.display()))
        };
        if path.file_name().and_then(|name| name.to_str()).is_none() {
            // Closed files get a number behind it.
            let error = io::Error::new(io::ErrorKind::InvalidInput, "the name of the file is not UTF-8");
            return Err(about_path(error));
        }
        let mut file = open(&path).map_err(about_path)?;
        let (length, is_torn) = examine(&mut file).map_err(about_path)?;
        Ok(Self {
            name: "json_lines".to_owned(),
            file,
            length,
            missing: Missing::default(),
            is_torn,
            lines: Vec::new(),
            origin: None,
            most_bytes: Some(MOST_BYTES),
            longest: None,
            keep: None,
            after_close: None,
            begun: SystemTime::now(),
            sync: SyncPolicy::default(),
            synced: SystemTime::now(),
            is_file: fs::metadata(&path).is_ok_and(|data| data.is_file()),
            path,
            presence: Presence::default(),
        })
    }

    /// Closes a file that would grow beyond that many bytes; `u64::MAX` never does. Defaults to 100 MiB.
    pub fn rotate_at(mut self, bytes: u64) -> Self {
        self.most_bytes = Some(bytes).filter(|bytes| *bytes < u64::MAX);
        self
    }

    /// Also closes a file with the first batch that comes this long after it was begun. By default none is closed for
    /// its age.
    pub fn rotate_every(mut self, longest: Duration) -> Self {
        self.longest = Some(longest);
        self
    }

    /// Removes the oldest closed files, so that this many stay. By default all stay.
    pub fn keep_closed(mut self, files: usize) -> Self {
        self.keep = Some(files);
        self
    }

    /// Says when the file is synced to the disk. Defaults to never.
    pub fn sync(mut self, when: SyncPolicy) -> Self {
        self.sync = when;
        self
    }

    /// Gives it another name.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Where it writes to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives every line a key `origin` that tells where the event comes from, as [`Origin`] has it: for lines of many
    /// processes that end up in one place. Some hundred bytes a line. An event that is no object has none;
    /// one that has a key `origin` of its own has two.
    pub fn with_origin(mut self) -> Self {
        self.origin = Some(Vec::new());
        self
    }

    /// Encodes one line; an event that fails leaves nothing behind.
    fn encode(&mut self, event: &impl Serialize) -> Result<(), serde_json::Error> {
        let begin = self.lines.len();
        let encoded = serde_json::to_writer(&mut self.lines, event);
        match encoded {
            Ok(()) => {
                if let Some(origin) = &self.origin
                    && self.lines.pop_if(|last| *last == b'}').is_some()
                {
                    let is_first = self.lines.last() == Some(&b'{');
                    self.lines.extend_from_slice(if is_first {
                        origin.get(1..).unwrap_or_default()
                    } else {
                        origin
                    });
                }
                self.lines.push(b'\n');
            }
            Err(_) => self.lines.truncate(begin),
        }
        encoded
    }

    /// What goes into every line of the batch, from the comma to the end of the object.
    fn set_origin(&mut self, origin: &Origin) {
        if let Some(text) = &mut self.origin {
            text.clear();
            text.extend_from_slice(b",\"origin\":");
            // Numbers and text cannot fail.
            _ = serde_json::to_writer(&mut *text, origin);
            text.push(b'}');
        }
    }

    /// Begins the file anew where it was removed, with its folder.
    fn find_again(&mut self, now: SystemTime) -> io::Result<()> {
        if self.is_file && self.presence.is_lost(&self.path, now) {
            // Should that fail, the next batch looks again.
            self.presence.doubt();
            self.file = open(&self.path)?;
            (self.length, self.is_torn) = (0, false);
            self.begun = now;
        }
        Ok(())
    }

    /// Closes the file and begins a new one, if it is time for that.
    fn rotate(&mut self, now: SystemTime) -> io::Result<()> {
        let is_full = self.most_bytes.is_some_and(|most| self.length + self.lines.len() as u64 > most);
        let is_old =
            self.longest.zip(now.duration_since(self.begun).ok()).is_some_and(|(most, age)| age >= most);
        if !self.is_file || self.length == 0 || !(is_full || is_old) {
            return Ok(());
        }
        let closed = rotation::close(&self.path, self.keep);
        // Should the old one be gone, or still there: what is at the path is ours to write to.
        self.file = open(&self.path)?;
        (self.length, self.is_torn) = examine(&mut self.file)?;
        self.begun = now;
        let after = self.after_close.as_mut().map_or(Ok(()), |after_close| after_close());
        closed.and(after)
    }

    /// Syncs the file, if it is time for that.
    fn sync_if_due(&mut self, now: SystemTime) -> io::Result<()> {
        let SyncPolicy::Every(interval) = self.sync else { return Ok(()) };
        if now.duration_since(self.synced).is_ok_and(|ago| ago >= interval) {
            self.synced = now;
            return self.file.sync_data();
        }
        Ok(())
    }

    /// Writes the encoded batch, all of it or nothing.
    fn write_lines(&mut self) -> io::Result<()> {
        let mut written = 0;
        while written < self.lines.len() {
            match self.file.write(&self.lines[written..]) {
                Ok(0) => return self.cut_back(written, io::ErrorKind::WriteZero.into()),
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.cut_back(written, error),
            }
        }
        self.is_torn = false;
        self.length += written as u64;
        Ok(())
    }

    /// A write failed after `written` bytes: they would stay as a torn line in the middle of the file.
    fn cut_back(&mut self, written: usize, error: io::Error) -> io::Result<()> {
        let length = self.file.metadata().map(|data| data.len());
        let is_ours = matches!(length, Ok(length) if length == self.length + written as u64);
        // Should the file be of another length than we left it with, somebody else writes to it or has cut
        // it: then nothing is cut off, lest it be theirs.
        if written > 0 && !(is_ours && self.file.set_len(self.length).is_ok()) {
            self.is_torn = true;
        }
        self.length = self.file.metadata().map_or(self.length, |data| data.len());
        Err(error)
    }
}

impl<E: Serialize> Sink<E> for JsonLinesSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn write_batch(&mut self, batch: &Batch<E>) -> Result<(), SinkError> {
        let missing = self.missing.before(batch);
        if let Err(error) = self.find_again(batch.time()) {
            self.missing.add(batch);
            return Err(error.into());
        }
        self.lines.clear();
        self.set_origin(batch.origin());
        if self.is_torn {
            self.lines.push(b'\n');
        }
        if missing > 0 {
            let missing = i64::try_from(missing).unwrap_or(i64::MAX);
            let gap = Record::integer("forebay.gap", missing).with_time(batch.time());
            self.encode(&gap).map_err(not_serialised)?;
        }
        let mut refused = None;
        let mut refused_events = 0;
        for event in batch {
            if let Err(error) = self.encode(event) {
                refused_events += 1;
                refused.get_or_insert(error);
            }
        }
        let rotated = self.rotate(batch.time());
        if let Err(error) = self.write_lines() {
            self.missing.add(batch);
            return Err(error.into());
        }
        self.missing.told(refused_events);
        let synced = self.sync_if_due(batch.time());
        match refused {
            Some(error) => Err(not_serialised(error).only(refused_events)),
            // All events are in the file.
            None => rotated.and(synced).map_err(|error| SinkError::from(error).only(0)),
        }
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.presence.doubt();
        let flush_failed = |error: io::Error| SinkError::flush_failed(error.to_string()).with_source(error);
        let after = self.after_close.as_mut().map_or(Ok(()), |after_close| after_close());
        if self.sync != SyncPolicy::Never {
            self.file.sync_data().map_err(flush_failed)?;
        }
        after.map_err(flush_failed)
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    OpenOptions::new().read(true).append(true).create(true).open(path)
}

fn not_serialised(error: serde_json::Error) -> SinkError {
    SinkError::write_failed(format!("event not serialised: {error}")).with_source(error).permanent()
}

/// The length of a file, and whether its last line is torn.
fn examine(file: &mut File) -> io::Result<(u64, bool)> {
    let length = file.metadata()?.len();
    // A pipe or a device has no length and no last line.
    if length == 0 {
        return Ok((0, false));
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok((length, last != [b'\n']))
}

impl fmt::Debug for JsonLinesSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonLinesSink")
            .field("name", &self.name)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
