//! One JSON object a line, one `write` a batch.
//!
//! A process may be killed at any moment, and a disk may be full in the middle of a batch. What is in the
//! file then must still be whole lines, but for the very last: readers depend on it. So a batch is
//! encoded into one buffer and handed to the system in one call, nothing is kept back until later, and a
//! write that failed half-way is cut off again.

mod age;
#[cfg(feature = "zstd")]
mod compression;
#[cfg(not(feature = "zstd"))]
#[path = "json_lines/no_compression.rs"]
mod compression;
mod encoder;
mod plain;
mod rotation;

pub use compression::decode;
pub use encoder::LineEncoder;
pub use rotation::{Closed, ClosedFiles, closed};

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::append::Append;
use super::missing::Missing;
use super::target::Target;
use super::{Hook, Sink, SinkError};
use crate::batch::Batch;
use crate::buffer::empty;
use crate::event::Record;
use age::Age;

/// Sink that appends events to a file, one JSON object a line.
///
/// * Every batch is one `write` to the system. A process that is killed loses nothing that was written;
///   only the very last line can be torn.
/// * Lines stand in the order of delivery: of each batch, critical events come first, and low ones take turns with
///   normal ones. `time` tells when each was made.
/// * An existing file is continued, never overwritten. Should its last line be torn, that line is closed,
///   so that it stays the only one that is lost.
/// * Missing parent folders are created. A file that is removed, moved, hidden or replaced under the sink, alone or
///   with its folder, is noticed within a second or at a flush: the sink continues the file that is at the path, or
///   creates a new one. What was written until then went with the old file. A batch is never left in a file that had
///   been removed before. A file that cannot be looked at, because the process has dropped its privileges, stays in
///   use.
/// * A symbolic link, at the end of the path or in it, is followed once, by [`create`](Self::create): closed files lie beside the file that it leads to. A pipe, a
///   device, a socket, or a descriptor, as `/dev/stdout` is, is written as a stream: never renamed, closed, or cut. A pipe
///   must have a reader when the sink is created; one that goes away later is an error of each batch. A file that may be
///   written but not read is continued behind an empty line.
/// * Names and texts are escaped; NaN and infinities are written as strings that read back.
/// * Events that are missing leave a line of their own, where they are missing: a record named `forebay.gap`
///   whose integer is their number. They were evicted, or an earlier write of this sink failed.
/// * Every line of a training run has the keys `run_id` and `generation`, as they stand in `training.started`, which has the name and
///   the settings of the run: see [`TrainingRun`](crate::run::TrainingRun). A line of your own event type that
///   has such a key itself then has it twice.
/// * An event that cannot be serialised, or whose `Serialize` panics, fails alone; the rest of its batch is written. (`Serialize` of your own types runs on
///   the worker: one that recurses to any depth exhausts its stack. A [`Record`] never does.)
/// * A file that would grow beyond 100 MiB ([`rotate_at`](Self::rotate_at)) is closed before, and gets a number:
///   `events.jsonl.000001`, the next `events.jsonl.000002`. Numbers never change. All closed files stay, unless
///   [`keep_closed`](Self::keep_closed) says how many. `forebay_history::JsonLinesHistory` reads
///   across them. A batch is never split. Should closing fail, the sink writes on into the same file, tries again after a
///   second, and the error is counted, without a failed event. Should the file be closed and no other be begun, batches fail
///   until one is.
/// * Numbers have six digits, or seven up to 1,899,999; those that read as a date (`202611`, `261128`) are passed over. A file
///   whose number is more than 100,000 above all others, or of another name, as `events.jsonl.1` or `events.jsonl.20261128`, is somebody else's: it is never renamed, removed,
///   compressed, read, or overwritten.
/// * Nothing is synced to the disk unless [`sync`](Self::sync) says so: a power cut may take what the system had not
///   written yet; the death of the process takes nothing.
///
/// Any event that implements [`serde::Serialize`] will do. One with a [`Record`] inside can serialise as that record, and is
/// read back as one. For a `Record` the format is
/// `{"name": .., "time": .., "step": .., "scalar": ..}`, with the kind of the value for its key (`integer`,
/// `bool`, `text`, `histogram`, `image`, `encoded`, `list`, `fields`), and it reads back with
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
/// collector.collect(Record::scalar("train.loss", f64::NAN).with_step(3));
/// collector.stop()?;
///
/// let line = std::fs::read_to_string(&path)?;
/// assert!(line.ends_with("\"step\":3,\"scalar\":\"NaN\"}\n"));
/// let record: Record = serde_json::from_str(&line)?;
/// assert_eq!(record.step(), Some(3));
/// # Ok(())
/// # }
/// ```
pub struct JsonLinesSink {
    name: String,
    /// Path as it was given: the file may lie elsewhere.
    path: PathBuf,
    file: Append,
    /// Events that were lost on the way into this file and are not marked in it yet.
    missing: Missing,
    /// True if the file had events when the sink was created.
    has_earlier_run: bool,
    /// The encoded batch.
    lines: Vec<u8>,
    encoder: LineEncoder,
    /// `None` never closes a file.
    max_bytes: Option<u64>,
    max_age: Option<Duration>,
    keep: Option<usize>,
    /// Closed files that could not be removed, which was reported.
    kept_back: BTreeSet<u64>,
    /// Function for files that were closed: called after each, and at a flush. It returns what went wrong since it was
    /// last called.
    after_close: Option<AfterClose>,
    age: Age,
    /// Time when closing the file failed last.
    not_closed: Option<u64>,
    sync: SyncPolicy,
    /// Time when it was synced last, by the worker's clock; from the first batch on.
    synced: Option<u64>,
    /// The names in its folder have changed since that was synced.
    is_folder_dirty: bool,
    /// True if it was reported that the folder cannot be synced.
    is_folder_reported: bool,
    /// Error beside the events that was not reported yet.
    trouble: Option<io::Error>,
}

/// Function of the path of the sink's file, and of whether a file was just closed.
type AfterClose = Box<dyn FnMut(&Path, bool) -> io::Result<()> + Send>;

/// Policy by which a [`JsonLinesSink`] syncs its file to the disk. A sync of a few bytes takes about 250
/// microseconds, and 6 ms at the 99th percentile. No sink gets anything meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SyncPolicy {
    /// Never: the system does so when it likes. The default.
    #[default]
    Never,
    /// Sync at every `flush` and `stop`. A file that is closed in between, or was moved away, is synced when it is left.
    AtFlush,
    /// Sync with the first batch after this time, and as under [`AtFlush`](Self::AtFlush).
    Every(Duration),
}

/// 100 MiB.
const MAX_BYTES: u64 = 100 << 20;

/// Time that a file which could not be closed is written on to before that is tried again.
const RETRY_NANOS: u64 = 1_000_000_000;

impl JsonLinesSink {
    /// Creates a sink named `json_lines` that appends to the file at `path`, which is created if it is missing,
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
        let file = Append::open(&path).map_err(about_path)?;
        // What is in a shared file, such as that behind `/dev/stdout`, may be anybody's.
        let has_earlier_run = file.target().is_own_file()
            && (file.length() > 0 || closed(file.path()).is_ok_and(|closed| !closed.files.is_empty()));
        Ok(Self {
            name: "json_lines".to_owned(),
            file,
            missing: Missing::default(),
            has_earlier_run,
            lines: Vec::new(),
            encoder: LineEncoder::new(),
            max_bytes: Some(MAX_BYTES),
            max_age: None,
            keep: None,
            kept_back: BTreeSet::new(),
            after_close: None,
            age: Age::default(),
            not_closed: None,
            sync: SyncPolicy::default(),
            synced: None,
            is_folder_dirty: true,
            is_folder_reported: false,
            trouble: None,
            path,
        })
    }

    /// Closes a file that would grow beyond that many bytes; `u64::MAX` never does. Defaults to 100 MiB.
    pub fn rotate_at(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes).filter(|bytes| *bytes < u64::MAX);
        self
    }

    /// Closes a file for its age as well, with the first batch that comes this long after it was begun. By default
    /// none is closed for its age. That age survives a restart: the file system tells when the file was created, or
    /// its first line does, or when it was last written to. While the process runs, the worker's clock measures it,
    /// which nobody can set.
    pub fn rotate_every(mut self, max_age: Duration) -> Self {
        self.max_age = Some(max_age);
        self
    }

    /// Removes the oldest closed files, so that this many stay. By default all stay. A file that cannot be removed stays in
    /// addition, and is reported once. Of several sinks on one path, set it for one alone: it removes what the others have closed.
    pub fn keep_closed(mut self, files: usize) -> Self {
        self.keep = Some(files);
        self
    }

    /// Sets when the file is synced to the disk. Defaults to never.
    pub fn sync(mut self, when: SyncPolicy) -> Self {
        self.sync = when;
        if when != SyncPolicy::Never {
            // Now, because the folder may be out of reach later. Should that fail, it is tried again, and reported.
            self.is_folder_dirty = self.file.target().sync_name().is_err();
        }
        self
    }

    /// Sets the name that it is counted under, `json_lines` by default.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Returns the path that it was given, made absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives every line a key `origin` that tells where the event comes from, as [`Origin`](crate::collector::Origin) has it: for lines of many
    /// processes that end up in one place. Some hundred bytes a line. An event that is no object has none;
    /// one that has a key `origin` of its own has two.
    pub fn with_origin(mut self) -> Self {
        self.encoder = self.encoder.with_origin();
        self
    }

    /// Looks for the record inside of events of this type, which must serialise as that record. Most records have no more than a number,
    /// and their lines are written without serde, in a fraction of the time. Defaults to events that are records.
    pub fn records_in<E: AsRef<Record> + 'static>(mut self) -> Self {
        self.encoder = self.encoder.records_in::<E>();
        self
    }

    /// Goes on in what is at the path, if that is not the file that is open.
    fn find_again(&mut self, now: u64) -> io::Result<()> {
        let (sync, trouble) = (self.sync, &mut self.trouble);
        let found = self.file.find_again(now, |left| sync_left(left, sync, trouble));
        self.note_change();
        found
    }

    /// Leaves the file, and opens what is at its path.
    fn open_again(&mut self) -> io::Result<()> {
        let opened = self.file.open_again();
        self.note_change();
        opened
    }

    /// Takes note that another file is open.
    fn note_change(&mut self) {
        if self.file.take_change() {
            self.age = Age::default();
            self.is_folder_dirty = true;
        }
    }

    /// Returns whether it is time to close the file.
    fn is_over(&mut self, now: u64) -> bool {
        if !self.file.target().is_own_file() || self.file.length() == 0 {
            return false;
        }
        // Without the first byte, which closes a torn line.
        let length = self.file.length().saturating_add(self.lines.len() as u64 - 1);
        let is_full = self.max_bytes.is_some_and(|max| length > max);
        is_full || self.max_age.is_some_and(|max| self.age.is_over(max, now, self.file.target()))
    }

    /// Closes the file and begins a new one, if it is time for that.
    fn rotate(&mut self, now: u64) -> io::Result<()> {
        // Where it cannot be closed, it is not tried with every batch.
        let is_soon = |failed: u64| now.checked_sub(failed).is_some_and(|ago| ago < RETRY_NANOS);
        if self.not_closed.is_some_and(is_soon) || !self.is_over(now) {
            return Ok(());
        }
        // What is not ours is not renamed.
        if !self.file.is_found() {
            self.sync_left();
            self.open_again()?;
            return Err(io::Error::other("the file was removed or replaced before it could be closed"));
        }
        // Somebody may have cut it.
        if !self.is_over(now) {
            return Ok(());
        }
        self.sync_left();
        self.not_closed = Some(now);
        let is_closed = rotation::close(self.file.path(), self.file.presence())?;
        self.not_closed = None;
        self.open_again()?;
        if is_closed {
            let path = self.file.path();
            let retained = self.keep.map_or(Ok(()), |keep| rotation::retain(path, keep, &mut self.kept_back));
            let after = self.after_close.as_mut().map_or(Ok(()), |after_close| after_close(path, true));
            self.note(retained);
            self.note(after);
        }
        Ok(())
    }

    /// Keeps the first error beside the events until it is reported.
    fn note(&mut self, outcome: io::Result<()>) {
        if let Err(error) = outcome {
            self.trouble.get_or_insert(error);
        }
    }

    /// Syncs the file before another takes its place, unless that was never asked for.
    fn sync_left(&mut self) {
        sync_left(self.file.target(), self.sync, &mut self.trouble);
    }

    /// Syncs the file, and its name where that is new.
    fn sync_now(&mut self) -> io::Result<()> {
        self.file.target().sync()?;
        if !self.is_folder_dirty {
            return Ok(());
        }
        // Where that fails, it is tried again, and reported once.
        let synced = self.file.target().sync_name();
        self.is_folder_dirty = synced.is_err();
        if std::mem::replace(&mut self.is_folder_reported, synced.is_err()) { Ok(()) } else { synced }
    }

    /// Syncs the file, if it is time for that.
    fn sync_if_due(&mut self, now: u64) {
        let SyncPolicy::Every(interval) = self.sync else { return };
        let synced = *self.synced.get_or_insert(now);
        // A clock that began anew tells nothing.
        if now.checked_sub(synced).is_none_or(|ago| Duration::from_nanos(ago) >= interval) {
            self.synced = Some(now);
            let synced = self.sync_now();
            self.note(synced);
        }
    }
}

impl<E: Serialize + 'static> Sink<E> for JsonLinesSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn hook(&mut self, hook: Hook<'_>) {
        if let Hook::Open(account) = hook
            && self.has_earlier_run
        {
            account.note_earlier_run(&self.path);
        }
    }

    fn write_batch(&mut self, batch: &Batch<E>) -> Result<(), SinkError> {
        batch.check()?;
        let now = batch.moment();
        let missing = self.missing.before(batch);
        if let Err(error) = self.find_again(now) {
            self.missing.add(batch);
            return Err(error.into());
        }
        self.lines.clear();
        // In case that a torn line is to be closed.
        self.lines.push(b'\n');
        self.encoder.begin(batch);
        self.encoder.push_gap(&mut self.lines, missing)?;
        let mut refused = None;
        let mut refused_events = 0;
        for event in batch {
            if let Err(error) = self.encoder.push(&mut self.lines, event) {
                refused_events += 1;
                refused.get_or_insert(error);
            }
        }
        // Serialised by user code, which may have forked.
        batch.check()?;
        let rotated = self.rotate(now);
        if self.file.is_left() {
            // The file that is open was closed, and the compressor may remove it.
            self.missing.add(batch);
            empty(&mut self.lines);
            return Err(rotated.err().unwrap_or_else(|| io::ErrorKind::NotFound.into()).into());
        }
        self.note(rotated);
        if self.file.length() == 0 {
            self.age = Age::begins(now);
        }
        let written = self.file.write_found(&self.lines);
        self.note_change();
        empty(&mut self.lines);
        if let Err(error) = written {
            self.missing.add(batch);
            return Err(error.into());
        }
        self.missing.mark_reported(refused_events);
        self.sync_if_due(now);
        match refused {
            Some(error) => Err(error.with_failed_events(refused_events)),
            // The gap is in the file. An error would be about no event, and a retry would write the gap twice.
            None if batch.is_empty() => Ok(()),
            // All events are in the file.
            None => {
                self.trouble.take().map_or(Ok(()), |error| Err(SinkError::from(error).with_failed_events(0)))
            }
        }
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        let is_found = self.file.is_found();
        if !is_found {
            self.sync_left();
        }
        // Whatever happens behind this look: the next batch looks again.
        self.file.doubt();
        let path = self.file.path();
        let after = self.after_close.as_mut().map_or(Ok(()), |after_close| after_close(path, false));
        if is_found && self.sync != SyncPolicy::Never {
            let synced = self.sync_now();
            self.note(synced);
        }
        self.note(after);
        self.trouble
            .take()
            .map_or(Ok(()), |error| Err(SinkError::flush_failed(error.to_string()).with_source(error)))
    }
}

/// Syncs a file that is left, unless that was never asked for, and keeps the first error.
fn sync_left(file: &Target, sync: SyncPolicy, trouble: &mut Option<io::Error>) {
    if sync != SyncPolicy::Never
        && let Err(error) = file.sync()
    {
        trouble.get_or_insert(error);
    }
}

impl fmt::Debug for JsonLinesSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonLinesSink")
            .field("name", &self.name)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_batch_of_a_gap_alone_is_written_once_where_a_closed_file_makes_trouble() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let mut sink = JsonLinesSink::create(&path).unwrap().rotate_at(1);
        sink.after_close =
            Some(Box::new(|_, is_closed| if is_closed { Err(io::Error::other("no zstd")) } else { Ok(()) }));
        sink.write_batch(&Batch::from_events(vec![Record::new("first")])).unwrap();
        let gap = Batch::<Record>::from_events(Vec::new()).without_events(3);
        assert_eq!((gap.len(), gap.gap()), (0, 3));
        sink.write_batch(&gap).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().matches("forebay.gap").count(), 1);
        // The next one with an event reports it, or a flush.
        let error = sink.write_batch(&Batch::from_events(vec![Record::new("second")])).unwrap_err();
        assert_eq!(error.failed_events(), Some(0));
        assert!(error.to_string().contains("no zstd"), "{error}");
    }
}
