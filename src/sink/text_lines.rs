//! Lines of text, in a file or in one a day.
//!
//! Files are begun and never renamed: the name of a file tells its day and its part, so what is open has its name for good. A batch is
//! formatted into one buffer and handed to the system in one call, as lines of JSON are.

mod files;

use std::fmt::{self, Display, Write as _};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::append::Append;
use super::missing::Missing;
use super::panics::Panics;
use super::{Hook, Sink, SinkError};
use crate::batch::Batch;
use crate::buffer::empty;
use crate::escape::Escaping;
use crate::event::Record;
use crate::sync::catch_panic;
use files::{Files, Place, cannot_write};

/// Sink that appends events to a file, one line of text each; by [`daily`](Self::daily), to a file a day.
///
/// * A line is the event's `Display`, with control characters escaped. [`create_with`](Self::create_with) writes something else.
/// * Every batch is one `write` to the system. A process that is killed loses nothing that was written; only the very last line can be
///   torn. An existing file is continued, never overwritten. Missing parent folders are created.
/// * A file that is removed, moved, hidden or replaced is noticed within a second or at a flush: see
///   [`JsonLinesSink`](crate::sink::JsonLinesSink), which treats its file in the same way. So is a pipe or a device.
/// * Lines that are missing leave one in their place: `forebay: 17 lines were lost here`. They were evicted, or an earlier write failed.
///   [`gap_line`](Self::gap_line) writes something else.
/// * A file of a day has the day in its name: `app.log` becomes `app.2026-11-30.log`. **The day is that of UTC**, as in
///   tracing-appender; [`dated_by`](Self::dated_by) sets another clock, for local days. A batch goes into the file of the day on which it
///   is written, as a whole. Should the clock go back, lines stay in the later file.
/// * A file that would grow beyond [`roll_at`](Self::roll_at) is followed by another part: `app.2026-11-30.000001.log`,
///   `app.2026-11-30.000002.log`, and without days `app.000001.log`. Part 0 has no number. A part begins under a name that nothing has; a
///   restart goes on in the last one. The name of part 1,899,999 is the last.
/// * Where the next file cannot be opened, the old one is written on. That is reported, and tried again after a second.
/// * [`keep`](Self::keep) removes the oldest files. A file of another name is somebody else's, and is never removed: a number that is not
///   written in six digits or reads as a date, `app.8080.log` or `app.202611.log`, or one that is more than 100,000 above the lower ones.
///   So a restart where no part below 100,000 is left begins at part 0. Any other six digits are a part: name no file of yours so.
/// * Symbolic links are followed once, when the sink is created: all files lie beside the one that `path` leads to.
/// * User code that panics, a line of a gap or a clock, loses no event: it is reported.
///
/// # Examples
///
/// ```
/// use forebay::sink::TextLinesSink;
/// use forebay::{Collector, Record};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("logs/app.log");
/// let sink = TextLinesSink::create(&path)?.daily()?.keep(7); // path: "logs/app.log"
/// let today = sink.path().to_owned(); // "logs/app.2026-11-30.log"
/// let collector = Collector::builder().sink(sink).start()?;
/// collector.collect(Record::text("app.started", "version 1\n").with_step(3));
/// collector.stop()?;
/// assert_eq!(std::fs::read_to_string(today)?, "app.started = version 1\\n (step 3)\n");
/// # Ok(())
/// # }
/// ```
pub struct TextLinesSink<E = Record> {
    name: String,
    files: Files,
    /// What is open.
    place: Place,
    file: Append,
    has_earlier_run: bool,
    /// True if the file that is open was not there before.
    is_new: bool,
    format: Box<Format<E>>,
    gap_line: Box<dyn FnMut(u64) -> String + Send>,
    clock: Box<dyn FnMut() -> SystemTime + Send>,
    max_bytes: Option<u64>,
    keep: Option<usize>,
    /// True if the last part could not be opened when that was due: the first batch tries again.
    is_behind: bool,
    /// Time when the next file could not be opened last, by the worker's clock.
    not_rolled: Option<u64>,
    /// Events that were lost on the way into this file and are not marked in it yet.
    missing: Missing,
    /// The formatted batch.
    lines: Vec<u8>,
    /// A formatted event: user code gets at no other line.
    line: Vec<u8>,
    /// Error beside the events that was not reported yet.
    trouble: Option<io::Error>,
}

/// Time that a file is written on to, where the next one could not be opened, before that is tried again.
const RETRY_NANOS: u64 = 1_000_000_000;

fn default_gap_line(lost: u64) -> String {
    format!("forebay: {lost} lines were lost here\n")
}

/// User code that formats an event. A line break at its end is added where there is none.
type Format<E> = dyn FnMut(&E, &mut Vec<u8>) -> fmt::Result + Send;

impl<E: Display> TextLinesSink<E> {
    /// Creates a sink named `text_lines` that appends to the file at `path`, which is created if it is missing, with its parent folders.
    ///
    /// # Errors
    ///
    /// The system's, with the path in its text.
    pub fn create(path: impl AsRef<Path>) -> io::Result<Self> {
        let mut text = String::new();
        Self::create_with(path, move |event: &E, line| {
            text.clear();
            write!(Escaping(&mut text), "{event}")?;
            line.extend_from_slice(text.as_bytes());
            Ok(())
        })
    }
}

impl<E> TextLinesSink<E> {
    /// Creates a sink whose lines `format` appends to the empty vector that it is given. What is in it then is written as it is, with a
    /// line break at its end. An event whose `format` fails or panics fails alone.
    ///
    /// # Errors
    ///
    /// As for [`create`](Self::create).
    ///
    /// # Examples
    ///
    /// ```
    /// use forebay::sink::TextLinesSink;
    /// use forebay::{Collector, Record};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("names.txt");
    /// let sink = TextLinesSink::create_with(&path, |event: &Record, line| {
    ///     line.extend_from_slice(event.name().as_bytes());
    ///     Ok(())
    /// })?;
    /// let collector = Collector::builder().sink(sink).start()?;
    /// collector.collect(Record::new("app.started"));
    /// collector.stop()?;
    /// assert_eq!(std::fs::read_to_string(&path)?, "app.started\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn create_with(
        path: impl AsRef<Path>,
        format: impl FnMut(&E, &mut Vec<u8>) -> fmt::Result + Send + 'static,
    ) -> io::Result<Self> {
        let files = Files::of(path.as_ref())?;
        let place = Place::default();
        let is_new = files.is_free(&place);
        let file = files.open(&place)?;
        Ok(Self {
            name: "text_lines".to_owned(),
            has_earlier_run: file.target().is_own_file() && file.length() > 0,
            is_new,
            files,
            place,
            file,
            format: Box::new(format),
            gap_line: Box::new(default_gap_line),
            clock: Box::new(SystemTime::now),
            max_bytes: None,
            keep: None,
            is_behind: false,
            not_rolled: None,
            missing: Missing::default(),
            lines: Vec::new(),
            line: Vec::new(),
            trouble: None,
        })
    }

    /// Writes a file a day, with the day in its name.
    ///
    /// # Errors
    ///
    /// The file of today cannot be opened.
    pub fn daily(mut self) -> io::Result<Self> {
        self.files.is_daily = true;
        self.reopen()?;
        Ok(self)
    }

    /// Reads the time that tells the day elsewhere: for local days, or for a test.
    ///
    /// # Errors
    ///
    /// The file of that day cannot be opened.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    /// use forebay::Record;
    /// use forebay::sink::TextLinesSink;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.log");
    /// let five_hours = Duration::from_secs(5 * 3600); // days of a zone that is five hours ahead of UTC
    /// let sink = TextLinesSink::<Record>::create(&path)?.dated_by(move || SystemTime::now() + five_hours)?.daily()?;
    /// # drop(sink);
    /// # Ok(())
    /// # }
    /// ```
    pub fn dated_by(mut self, clock: impl FnMut() -> SystemTime + Send + 'static) -> io::Result<Self> {
        self.clock = Box::new(clock);
        if self.files.is_daily {
            self.reopen()?;
        }
        Ok(self)
    }

    /// Begins another part before a file would grow beyond that many bytes, and goes on in the last part that is there. A batch is never
    /// split. Defaults to no limit: then everything goes into part 0.
    pub fn roll_at(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        if !self.files.is_daily {
            self.is_behind = self.reopen().is_err();
        }
        self
    }

    /// Keeps that many files, the one that is open among them, and removes the oldest when another is begun. Defaults to all. A file
    /// that cannot be removed stays, and is reported; one later than the file that is open stays as well, such as one of a clock that was
    /// ahead. Of several sinks on one path, set it for one alone: it removes what the others write.
    pub fn keep(mut self, files: usize) -> Self {
        self.keep = Some(files.max(1));
        self
    }

    /// Sets the name that it is counted under, `text_lines` by default.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets what is written where lines are missing. A line break at its end is added where there is none; an empty text writes no line.
    pub fn gap_line(mut self, line: impl FnMut(u64) -> String + Send + 'static) -> Self {
        self.gap_line = Box::new(line);
        self
    }

    /// Returns the path of the file that is open.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Opens the last part of today.
    fn reopen(&mut self) -> io::Result<()> {
        let day = self.files.day((self.clock)());
        let place = self.last_part(day)?;
        self.is_behind = false;
        if place == self.place {
            return Ok(());
        }
        let is_new = self.files.is_free(&place);
        let file = self.files.open(&place)?;
        if self.is_new && self.file.is_found() && self.file.length() == 0 {
            // Ours, and begun for nothing. One that cannot be removed does no harm.
            _ = std::fs::remove_file(self.file.path());
        }
        self.has_earlier_run = file.target().is_own_file() && file.length() > 0;
        (self.file, self.place, self.is_new) = (file, place, is_new);
        Ok(())
    }

    /// Returns the last part of a day. A pipe or a device has no parts.
    fn last_part(&self, day: String) -> io::Result<Place> {
        if day.is_empty() && !self.file.target().is_own_file() {
            return Ok(self.place.clone());
        }
        self.files.last_part(day, &self.place)
    }

    /// Goes on in the file of the next day, if it is time for that.
    fn roll_by_day(&mut self, day: String, now: u64) {
        if (self.is_behind || day > self.place.day) && self.may_roll(now) {
            let opened = self.last_part(day).and_then(|next| self.files.open(&next).map(|file| (next, file)));
            self.roll(opened, now);
        }
    }

    /// Begins the next part, if it is time for that.
    fn roll_by_size(&mut self, now: u64) {
        let Some(max) = self.max_bytes else { return };
        // Without the first byte, which closes a torn line.
        let length = self.file.length().saturating_add(self.lines.len() as u64 - 1);
        let is_full = self.file.length() > 0 && self.file.target().is_own_file() && length > max;
        if is_full && self.may_roll(now) {
            let opened = self.files.begin_part(&self.place);
            self.roll(opened, now);
        }
    }

    /// Returns whether the next file may be opened: not with every batch, where that fails, unless there is none to write to.
    fn may_roll(&self, now: u64) -> bool {
        let is_soon = |failed: u64| now.checked_sub(failed).is_some_and(|ago| ago < RETRY_NANOS);
        self.file.is_left() || !self.not_rolled.is_some_and(is_soon)
    }

    /// Goes on in another file, and removes the oldest. Should it not be open, the old one is written on.
    fn roll(&mut self, opened: io::Result<(Place, Append)>, now: u64) {
        match opened {
            Ok((place, file)) => {
                (self.place, self.file) = (place, file);
                (self.is_behind, self.not_rolled) = (false, None);
                let removed = self.keep.map_or(Ok(()), |keep| self.files.retain(keep, &self.place));
                self.note(removed);
            }
            Err(error) => {
                self.not_rolled = Some(now);
                self.note(Err(error));
            }
        }
    }

    /// Keeps the first error beside the events until it is reported.
    fn note(&mut self, outcome: io::Result<()>) {
        if let Err(error) = outcome {
            self.trouble.get_or_insert(error);
        }
    }

    /// Runs user code that is not about one event; `None` if it panics, which is reported.
    fn catch<R>(&mut self, what: &str, user_code: impl FnOnce(&mut Self) -> R) -> Option<R> {
        let result = catch_panic(|| user_code(self));
        result.map_err(|said| self.note(Err(io::Error::other(format!("{what} panicked: {said}"))))).ok()
    }

    /// Formats a batch. Returns how many events were refused, and the panics at events.
    fn format(&mut self, batch: &Batch<E>, missing: u64) -> (u64, Panics) {
        self.lines.clear();
        // In case that a torn line is to be closed.
        self.lines.push(b'\n');
        if missing > 0 {
            let line = self.catch("the gap line", |this| (this.gap_line)(missing));
            let line = line.unwrap_or_else(|| default_gap_line(missing));
            self.lines.extend_from_slice(line.as_bytes());
            if self.lines.last() != Some(&b'\n') {
                self.lines.push(b'\n');
            }
        }
        let (mut refused, mut panics) = (0, Panics::of("an event's format"));
        for event in batch {
            self.line.clear();
            if matches!(panics.catch(|| (self.format)(event, &mut self.line)), Some(Ok(()))) {
                self.lines.extend_from_slice(&self.line);
                if self.line.last() != Some(&b'\n') {
                    self.lines.push(b'\n');
                }
            } else {
                refused += 1;
            }
        }
        empty(&mut self.line);
        (refused, panics)
    }
}

impl<E> Sink<E> for TextLinesSink<E> {
    fn name(&self) -> &str {
        &self.name
    }

    fn hook(&mut self, hook: Hook<'_>) {
        if let Hook::Open(account) = hook
            && self.has_earlier_run
        {
            account.note_earlier_run(self.file.path());
        }
    }

    fn write_batch(&mut self, batch: &Batch<E>) -> Result<(), SinkError> {
        batch.check()?;
        let missing = self.missing.before(batch);
        let time = self.catch("the clock of days", |this| (this.clock)());
        let day = time.map_or_else(|| self.place.day.clone(), |time| self.files.day(time));
        let (refused, panics) = self.format(batch, missing);
        // User code may have forked.
        batch.check()?;
        let now = batch.moment();
        // First, in case that the old file cannot be opened any more.
        self.roll_by_day(day, now);
        let written = self.file.find_again(now, |_| {}).and_then(|()| {
            self.roll_by_size(now);
            self.file.write_found(&self.lines)
        });
        empty(&mut self.lines);
        if let Err(error) = written {
            self.missing.add(batch);
            return Err(cannot_write(self.file.path(), error).into());
        }
        self.missing.mark_reported(refused);
        match refused {
            // An error would be about no event, and a retry would write the gap twice.
            0 if batch.is_empty() => Ok(()),
            // All events are in the file.
            0 => {
                self.trouble.take().map_or(Ok(()), |error| Err(SinkError::from(error).with_failed_events(0)))
            }
            _ if !panics.is_none() => Err(panics.error().with_failed_events(refused)),
            _ => {
                let error = SinkError::write_failed("an event's format failed").permanent();
                Err(error.with_failed_events(refused))
            }
        }
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        // Whatever happens behind this look: the next batch looks again.
        self.file.doubt();
        self.trouble
            .take()
            .map_or(Ok(()), |error| Err(SinkError::flush_failed(error.to_string()).with_source(error)))
    }
}

impl<E> fmt::Debug for TextLinesSink<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextLinesSink")
            .field("name", &self.name)
            .field("path", &PathBuf::from(self.file.path()))
            .finish_non_exhaustive()
    }
}
