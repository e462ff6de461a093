//! Files that TensorBoard shows while the run goes on.
//!
//! What a record looks like is the encoder's business (the crate `tfevents`); here it is decided what is
//! written under which tag and step, into which file, and what happens when that cannot be written.

mod files;
mod hparams;
mod life;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tfevents::{EncodeError, Encoder, SESSION_END, SESSION_START, SessionStatus, Summary};

use hparams::Hparams;
use life::Shown;

use super::panics::Panics;
use super::presence::{Found, Presence};
use super::target::real_folder;
use super::{Hook, Sink, SinkError};
use crate::batch::Batch;
use crate::buffer::empty_text;
use crate::event::catalog::training;
use crate::event::{Event, Image, ImageFormat, Record, Value};
use crate::unix::is_unlinked;

/// Sink that writes a folder of TensorBoard event files: `tensorboard --logdir` shows them while the run goes on.
///
/// One folder is one run and has one writer: give every rank a folder of its own. Each sink begins a new file in it. Symbolic
/// links are followed once, when the sink is created.
///
/// It takes every event that has a [`Record`] inside: `AsRef<Record>`. An event whose `AsRef` panics fails alone.
///
/// # What is written
///
/// | record | shown as |
/// |---|---|
/// | scalar, integer, boolean | scalar, as a 32-bit float: TensorBoard has no wider one. NaN and infinities are shown |
/// | text | text (Markdown) |
/// | histogram | histogram; values that were not finite are counted in a scalar beside it, `<tag>/non_finite` |
/// | image | image; raw pixels become a PNG here, on the worker |
/// | fields | each of its values by the same rules, under `<tag>/<name>`, nested ones too |
/// | [`training::Started`] | the row of the folder in the table of hyper-parameters, from its `config` and `model_type`: nested settings under their path (`optimizer/lr`), lists as text |
/// | [`training::EpochCompleted`], [`training::Completed`] | each metric under its own name: `val_loss`, not `training/epoch_completed/metrics/val_loss`. An epoch without a step has its number |
/// | `BatchCompleted` | its loss and each metric in the group `batch`: `batch/loss`. A record without a step has the number of its batch |
/// | [`model::CheckpointSaved`] | each metric in the group `checkpoint`: `checkpoint/val_loss`. A record without a step has the number of its epoch |
/// | [`training::Completed`], `EarlyStopped`, `Failed` | how the run ended, in the table of hyper-parameters |
/// | `Failed`, `EarlyStopped`, `Preempted` | text: the error or the reason |
///
/// What else a training run reports of itself (numbers of epochs, durations, ranks, heartbeats, the best model and its loss, paths and
/// sizes of checkpoints) is kept by JSON Lines and SQLite and has no card here, also where you made the event by hand. Records
/// without a value and lists have nothing to show either.
///
/// A metric and a record of one name share a tag. So collect `val_loss` as a record or give it to
/// [`Epoch::completed`](crate::run::Epoch::completed), not both: the curve would have the points of both.
///
/// * **Tag**: the name of the record, with `/` for every `.`, so that `train.loss` stands in the group `train`.
/// * **Step**: that of the record, which may be negative. A record without a step has the one after the last of its tag, from
///   0. (From 2^31 on, TensorBoard's table of hyper-parameters fails for the run; from 2^53 on, a browser rounds them.)
/// * **Moment**: that of the record. Values of one step that follow one another share the moment of the first.
/// * A tag keeps the kind it had first: a value of another kind is refused. So are tags beyond
///   100,000 ([`max_tags`](Self::max_tags)), beyond 16 MiB of names ([`max_tag_bytes`](Self::max_tag_bytes)), and beyond
///   4 MiB for one record; and settings whose path another setting has.
/// * A step before the last one of its tag: see [`BackwardStep`].
///
/// What is refused is counted as failed; everything else in the batch is written. Names that make the same tag (`a.b` and
/// `a/b`) share it. Events that were evicted leave no mark here.
///
/// Of each batch, critical records are written first, and low ones last. So a tag whose records have several priorities meets
/// steps that go backward.
///
/// # When it cannot be written
///
/// Every batch is one `write`, so a process that is killed loses nothing that was delivered; at most the last record
/// is torn, which TensorBoard waits for and never shows. A write that fails is cut off again and its batch counted as
/// failed. The next one begins a new file: TensorBoard reads on there. So does the next batch when the file was
/// removed, moved, hidden, replaced, cut or appended to, which is noticed within a second or at a flush; a batch is
/// never left in a file that had been removed before. A file that cannot be looked at, because the process has dropped
/// its privileges, stays in use. Nothing is synced to the disk: a power cut may take what the system had not written
/// yet.
///
/// TensorBoard shows 1,000 points a scalar tag, chosen at random, unless it is started with more, as in
/// `--samples_per_plugin scalars=1000000`; they are all in the file. (`scalars=0`, which is said to mean all, shows none
/// in version 2.21.)
///
/// ```
/// use forebay::sink::{SinkExt, TensorBoardSink};
/// use forebay::{Collector, Record};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let runs = folder.path();
/// let sink = TensorBoardSink::create(runs.join("1"))?.route("train.*");
/// let collector = Collector::builder().sink(sink).start()?;
/// for step in 0..100 {
///     collector.collect(Record::scalar("train.loss", 1.0 / (step + 1) as f64).with_step(step));
/// }
/// collector.stop()?;
/// # Ok(())
/// # }
/// ```
///
/// [`model::CheckpointSaved`]: crate::event::catalog::model::CheckpointSaved
/// [`training::Started`]: crate::event::catalog::training::Started
/// [`training::EpochCompleted`]: crate::event::catalog::training::EpochCompleted
/// [`training::Completed`]: crate::event::catalog::training::Completed
pub struct TensorBoardSink {
    name: String,
    folder: PathBuf,
    backward: BackwardStep,
    encoder: Encoder,
    /// `None` after a write failed: the next batch begins a new one.
    file: Option<File>,
    /// Bytes of whole records in it.
    length: u64,
    path: PathBuf,
    /// Number of events of the batch at hand that are in a file that was left for another.
    safe_events: u64,
    /// Number of events of the batch at hand that came before the one that is being encoded.
    events: u64,
    /// Reason why another file could not be begun in the middle of the batch at hand.
    broken: Option<io::Error>,
    /// Presence of the file, and `None` without one.
    presence: Option<Presence>,
    /// The folder had event files with values when the sink was created.
    has_earlier_run: bool,
    /// The tag of the record at hand; its memory is used again.
    tag: String,
}

/// Policy of a [`TensorBoardSink`] for a step before the last one of its tag.
///
/// TensorBoard deletes the points of a tag from such a step on. That is right where a run was resumed and goes over
/// steps again, and wrong where two threads merely came in the wrong order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum BackwardStep {
    /// The value is refused, and counted as failed. The default.
    #[default]
    Refuse,
    /// A new file begins at that step, as for a run that was resumed: from there on, the new points take the place of
    /// the old ones. The old ones stay in the older file.
    NewFile,
}

impl TensorBoardSink {
    /// Creates a sink named `tensorboard` that begins a file in `folder`, which is created if it is missing, with its
    /// parents.
    ///
    /// # Errors
    ///
    /// The system's, with the path in its text.
    pub fn create(folder: impl AsRef<Path>) -> io::Result<Self> {
        // Whatever the process makes its working directory later.
        let folder = std::path::absolute(folder.as_ref())?;
        let mut sink = Self {
            name: "tensorboard".to_owned(),
            backward: BackwardStep::default(),
            encoder: Encoder::new().with_writer(concat!("forebay ", env!("CARGO_PKG_VERSION"))),
            file: None,
            length: 0,
            path: PathBuf::new(),
            safe_events: 0,
            events: 0,
            broken: None,
            presence: None,
            has_earlier_run: false,
            tag: String::new(),
            folder,
        };
        let begun = real_folder(&sink.folder).and_then(|folder| {
            sink.folder = folder;
            sink.has_earlier_run = files::has_earlier_run(&sink.folder)?;
            sink.begin_file(0)
        });
        begun.map_err(|error| cannot_write(&sink.folder, error))?;
        Ok(sink)
    }

    /// Creates a sink for a run that goes on at `step`, the first that is to be written: points from there on that an
    /// earlier process wrote are shown no longer. Tags that come without steps go on from there.
    ///
    /// # Errors
    ///
    /// As for [`create`](Self::create).
    pub fn resume(folder: impl AsRef<Path>, step: u64) -> io::Result<Self> {
        let mut sink = Self::create(folder)?;
        // On purpose.
        sink.has_earlier_run = false;
        let step = i64::try_from(step).unwrap_or(i64::MAX);
        sink.encoder.count_from(step);
        // In the file that was just begun: nothing was written behind its head yet.
        sink.rewrite_head(step).map_err(|error| cannot_write(&sink.folder, error))?;
        Ok(sink)
    }

    /// Sets the name that it is counted under, `tensorboard` by default.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets what happens to a step before the last one of its tag.
    pub fn backward_steps(mut self, what: BackwardStep) -> Self {
        self.backward = what;
        self
    }

    /// Sets the allowed number of tags. Each takes about 100 bytes and the length of its name. Defaults to 100,000.
    pub fn max_tags(mut self, tags: usize) -> Self {
        self.encoder = self.encoder.with_max_tags(tags);
        self
    }

    /// Sets the allowed size of the names of all tags, in bytes. Defaults to 16 MiB.
    pub fn max_tag_bytes(mut self, bytes: usize) -> Self {
        self.encoder = self.encoder.with_max_tag_bytes(bytes);
        self
    }

    /// Returns the file that it writes to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Begins a new file, whose head says that points from `step` on are its own.
    fn begin_file(&mut self, step: i64) -> io::Result<()> {
        self.file = None;
        let (path, file) = files::create(&self.folder)?;
        self.path = path;
        let presence = Presence::of(&file)?;
        self.file = Some(file);
        let begun = self.rewrite_head(step);
        if begun.is_err() && matches!(presence.look(&self.path), Found::Own(_)) {
            // On a full disk, every try would leave an empty file.
            let _ = fs::remove_file(&self.path);
        }
        self.presence = Some(presence);
        begun
    }

    /// Returns whether the open file is still at its path, as long as we wrote it.
    fn is_found(&self) -> bool {
        let (Some(file), Some(presence)) = (&self.file, &self.presence) else { return false };
        match presence.look(&self.path) {
            // Somebody has cut it, or appended to it: what follows would be no records.
            Found::Own(length) => length == self.length,
            Found::Unknown => !is_unlinked(file),
            Found::Other | Found::Nothing => false,
        }
    }

    fn rewrite_head(&mut self, step: i64) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            file.set_len(0)?;
        }
        self.length = 0;
        self.encoder.begin_file(seconds(crate::clock::unix_nanos()), step);
        self.write()
    }

    /// Writes what was encoded, all of it or nothing.
    fn write(&mut self) -> io::Result<()> {
        let bytes = self.encoder.bytes();
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        let written = file.write_all(bytes);
        let length = bytes.len() as u64;
        self.encoder.clear();
        match written {
            Ok(()) => {
                self.length += length;
                Ok(())
            }
            Err(error) => {
                // Should that fail as well, the torn record stays the last of its file.
                if file.metadata().is_ok_and(|data| data.len() > self.length) {
                    let _ = file.set_len(self.length);
                }
                self.file = None;
                // Whoever tries again comes with the same steps.
                self.encoder.forget_steps();
                Err(error)
            }
        }
    }

    /// Encodes all that a record shows; why the first of its values was refused, if one was.
    fn encode(&mut self, record: &Record) -> Option<SinkError> {
        let mut tag = std::mem::take(&mut self.tag);
        tag.clear();
        push_name(&mut tag, Event::name(record));
        let mut writer = Writer {
            sink: self,
            step: record.signed_step(),
            wall_time: seconds(record.unix_nanos()),
            left: MAX_RECORD_TAG_BYTES,
            refused: None,
        };
        writer.session(record);
        writer.show(&mut tag, record);
        let refused = writer.refused;
        empty_text(&mut tag);
        self.tag = tag;
        refused
    }
}

fn cannot_write(folder: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot write to {}: {error}", folder.display()))
}

/// Maximum bytes that the tags of one record take. Each value of nested fields has the names of all that it lies in, so
/// a record of 9 MiB could have tags of gigabytes.
const MAX_RECORD_TAG_BYTES: usize = 4 << 20;

/// Appends the name of a record or of a field to a tag.
fn push_name(tag: &mut String, name: &str) {
    for (place, part) in name.split('.').enumerate() {
        if place > 0 {
            tag.push('/');
        }
        tag.push_str(part);
    }
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// Writer of the values of one record.
struct Writer<'a> {
    sink: &'a mut TensorBoardSink,
    step: Option<i64>,
    wall_time: f64,
    /// Bytes that the tags of this record may still take.
    left: usize,
    /// Reason why the first of its values was refused.
    refused: Option<SinkError>,
}

impl Writer<'_> {
    /// Writes what is shown of a record, whose name `tag` is made of.
    fn show(&mut self, tag: &mut String, record: &Record) {
        match life::shown_of(record) {
            Shown::Value => self.value(tag, record.value()),
            Shown::Metrics { group, metrics, number } => {
                self.step = self.step.or(number);
                for (name, value) in metrics.iter() {
                    if !self.spend(name.len()) {
                        return;
                    }
                    tag.clear();
                    if !group.is_empty() {
                        tag.push_str(group);
                        tag.push('/');
                    }
                    push_name(tag, name);
                    self.value(tag, value);
                }
            }
            Shown::Text(text) => self.add(tag, Summary::Text(&text)),
            Shown::Nothing => {}
        }
    }

    /// Writes a value, and those inside of it behind its tag. The tag is left as it was.
    fn value(&mut self, tag: &mut String, value: &Value) {
        match value {
            Value::Empty | Value::List(_) => {}
            Value::Encoded(encoded) => self.refuse(|| format!("{tag:?} is an {encoded}")),
            Value::TooDeep => self.refuse(|| format!("{tag:?} is nested too deep")),
            Value::Scalar(number) => self.add(tag, Summary::Scalar(*number as f32)),
            Value::Integer(number) => self.add(tag, Summary::Scalar(*number as f32)),
            Value::Bool(is) => self.add(tag, Summary::Scalar(f32::from(*is))),
            Value::Text(text) => self.add(tag, Summary::Text(text)),
            Value::Histogram(histogram) => {
                // Both at the same step.
                self.step = self.step.or_else(|| Some(self.sink.encoder.next_step(tag)));
                self.add(tag, Summary::Histogram { edges: histogram.edges(), counts: histogram.counts() });
                if histogram.non_finite() > 0 {
                    let count = histogram.non_finite() as f32;
                    self.add(&format!("{tag}/non_finite"), Summary::Scalar(count));
                }
            }
            Value::Image(image) => match as_png(image) {
                Ok(png) => {
                    let (width, height) = (image.width, image.height);
                    self.add(tag, Summary::Image { width, height, encoded: &png });
                }
                Err(why) => self.refuse(|| format!("image {tag:?}: {why}")),
            },
            Value::Fields(fields) => {
                let end = tag.len();
                for (name, value) in fields.iter() {
                    // Also where it has nothing to show: to put the tag together takes time.
                    if !self.spend(1 + name.len()) {
                        return;
                    }
                    tag.push('/');
                    push_name(tag, name);
                    self.value(tag, value);
                    tag.truncate(end);
                }
            }
        }
    }

    /// Takes so many bytes of what the tags of the record may have; `false` when there are not that many left.
    fn spend(&mut self, bytes: usize) -> bool {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                true
            }
            None => {
                self.left = 0;
                let why = || format!("the tags of one record must take at most {MAX_RECORD_TAG_BYTES} bytes");
                self.refuse(why);
                false
            }
        }
    }

    /// Notes that a part of the record is not written. The first reason is reported.
    fn refuse(&mut self, why: impl FnOnce() -> String) {
        self.refused.get_or_insert_with(|| SinkError::write_failed(why()).permanent());
    }

    /// Writes what the table of hyper-parameters shows of the life of a run.
    fn session(&mut self, record: &Record) {
        if !Event::name(record).starts_with("training.") {
            return;
        }
        let fields = record.value().as_fields();
        let ended = |status| Summary::SessionEnd { status, ended_at: seconds(record.unix_nanos()) };
        match Event::name(record) {
            training::Started::NAME => {
                let settings = life::settings(fields);
                let hparams = Hparams::flatten(&settings);
                if hparams.left_out > 0 {
                    self.refuse(|| {
                        format!(
                            "{} settings were left out: their paths are taken or too long",
                            hparams.left_out
                        )
                    });
                }
                // Without a name of its group, a folder has a row of its own in the table.
                let start = Summary::SessionStart {
                    group: "",
                    settings: &hparams.settings(),
                    began_at: self.wall_time,
                };
                self.add(SESSION_START, start);
            }
            training::Completed::NAME | training::EarlyStopped::NAME => {
                self.add(SESSION_END, ended(SessionStatus::Success));
            }
            training::Failed::NAME => self.add(SESSION_END, ended(SessionStatus::Failure)),
            _ => {}
        }
    }

    fn add(&mut self, tag: &str, summary: Summary<'_>) {
        if self.sink.broken.is_some() || !self.spend(tag.len()) {
            return;
        }
        let step = self.step.unwrap_or_else(|| self.sink.encoder.next_step(tag));
        let mut added = self.sink.encoder.add(self.wall_time, step, tag, summary);
        if matches!(added, Err(EncodeError::Backward { .. })) && self.sink.backward == BackwardStep::NewFile {
            // What was encoded so far belongs to the old file.
            let begun = self.sink.write().and_then(|()| {
                self.sink.safe_events = self.sink.events;
                self.sink.encoder.forget_steps();
                self.sink.begin_file(step)
            });
            if let Err(error) = begun {
                self.sink.broken = Some(error);
                return;
            }
            added = self.sink.encoder.add(self.wall_time, step, tag, summary);
        }
        if let Err(refused) = added {
            self.refuse(|| refused.to_string());
        }
    }
}

impl<E: AsRef<Record>> Sink<E> for TensorBoardSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn hook(&mut self, hook: Hook<'_>) {
        if let Hook::Open(account) = hook
            && self.has_earlier_run
        {
            account.note_earlier_run(&self.folder);
        }
    }

    fn write_batch(&mut self, batch: &Batch<E>) -> Result<(), SinkError> {
        let mut panics = Panics::of("an event's AsRef<Record>");
        let records = panics.records(batch);
        // Those were found by user code, which may have forked.
        batch.check()?;
        panics.join(self.write_records(&records), records.len())
    }

    /// Checks whether the file is still there, and so does the next batch. Nothing is to be written.
    fn flush(&mut self) -> Result<(), SinkError> {
        if !self.is_found() {
            self.file = None;
        }
        if let Some(presence) = &mut self.presence {
            presence.doubt();
        }
        Ok(())
    }
}

impl TensorBoardSink {
    /// Writes a batch, twice should its file be removed meanwhile.
    fn write_records(&mut self, batch: &Batch<&Record>) -> Result<(), SinkError> {
        let written = self.write_once(batch);
        if !self.file.as_ref().is_some_and(is_unlinked) {
            return written;
        }
        // Nobody can read what was removed meanwhile. The same steps come again.
        self.file = None;
        self.encoder.forget_steps();
        self.write_once(batch)
    }

    fn write_once(&mut self, batch: &Batch<&Record>) -> Result<(), SinkError> {
        // Should a panic have left something behind: its steps may come again.
        if !self.encoder.bytes().is_empty() {
            self.encoder.forget_steps();
        }
        self.encoder.clear();
        (self.safe_events, self.events, self.broken) = (0, 0, None);
        let is_due = self.presence.as_mut().is_none_or(|presence| presence.is_due(batch.moment()));
        if self.file.is_none() || is_due && !self.is_found() {
            // Behind all that was written: no point of an older file is meant.
            let after = self.encoder.last_step().map_or(0, |last| last.saturating_add(1));
            self.begin_file(after)?;
        }
        let (mut refused_events, mut first) = (0, None);
        for record in batch {
            if let Some(error) = self.encode(record) {
                refused_events += 1;
                first = first.or(Some(error));
            }
            self.events += 1;
        }
        let written = self.broken.take().map_or_else(|| self.write(), Err);
        if let Err(error) = written {
            // What is in a file that was left before is safe.
            let error = SinkError::from(error);
            return Err(match self.safe_events {
                0 => error,
                safe => error.with_failed_events(batch.len() as u64 - safe),
            });
        }
        match first {
            None => Ok(()),
            Some(error) => Err(error.with_failed_events(refused_events)),
        }
    }
}

/// Returns the bytes of a PNG file.
fn as_png(image: &Image) -> Result<Vec<u8>, String> {
    let color = match image.format {
        ImageFormat::Png => return Ok(image.bytes.clone()),
        ImageFormat::Gray8 => png::ColorType::Grayscale,
        ImageFormat::Rgb8 => png::ColorType::Rgb,
        ImageFormat::Rgba8 => png::ColorType::Rgba,
    };
    // Its fields are public: it need not be one of the constructors'.
    image.check().map_err(|error| error.to_string())?;
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, image.width, image.height);
    encoder.set_color(color);
    encoder.set_depth(png::BitDepth::Eight);
    // The worker has other things to do: large files are better than late ones.
    encoder.set_compression(png::Compression::Fast);
    let written = encoder.write_header().and_then(|mut writer| {
        writer.write_image_data(&image.bytes)?;
        writer.finish()
    });
    match written {
        Ok(()) => Ok(file),
        Err(error) => Err(error.to_string()),
    }
}

impl fmt::Debug for TensorBoardSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TensorBoardSink")
            .field("name", &self.name)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
