//! Files that TensorBoard shows while the run goes on.
//!
//! What a record looks like is the encoder's business (the crate `tfevents`); here it is decided what is
//! written under which tag and step, into which file, and what happens when that cannot be written.

mod files;
mod folder;
mod hparams;
mod settings;
mod sub_runs;
mod values;

use std::fmt;
use std::io;
use std::path::Path;

use folder::RunFolder;
use settings::{OnFile, Settings};
use sub_runs::SubRuns;
pub use sub_runs::check as check_sub_run;
use values::Writer;

use super::panics::Panics;
use super::target::real_folder;
use super::{Hook, Sink, SinkError};
use crate::batch::Batch;
use crate::buffer::empty_text;
use crate::event::Record;
use crate::sync::{Arc, Home};

pub use settings::{BackwardStep, EarlierPoints, MissingStep, Tags};

/// Sink that writes a folder of TensorBoard event files: `tensorboard --logdir` shows them while the run goes on.
///
/// One folder is one run and has one writer: give every rank a folder of its own. Each sink begins a new file in it. Symbolic
/// links are followed once, when the sink is created. A collector that is stopped and started again goes on in the same file.
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
/// | image | image; raw pixels become a PNG here, on the worker. PNG, JPEG and GIF files are written as they are |
/// | [`Encoded`](crate::event::Encoded) | what its bytes say: see [Encoded messages](#encoded-messages) |
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
/// * **Tag**: the name of the record, with `/` for every `.`, so that `train.loss` stands in the group `train`. [`tags`](Self::tags)
///   has other ways.
/// * **Step**: that of the record, which may be negative. A record without a step has the one after the last of its tag, from
///   0; see [`MissingStep`]. (From 2^31 on, TensorBoard's table of hyper-parameters fails for the run; from 2^53 on, a browser
///   rounds them.)
/// * **Moment**: that of the record. Values of one step that follow one another share the moment of the first.
/// * A tag keeps the kind it had first: a value of another kind is refused. So are tags beyond
///   100,000 ([`max_tags`](Self::max_tags)), beyond 16 MiB of names ([`max_tag_bytes`](Self::max_tag_bytes)), and beyond
///   4 MiB for one record; and settings whose path another setting has.
/// * A step before the last one of its tag: see [`BackwardStep`].
///
/// What is refused is counted as failed; everything else in the batch is written. Names that make the same tag (`a.b` and
/// `a/b`) share it. Events that were evicted leave no mark here.
///
/// Of each batch, critical records are written first, and low ones take turns with normal ones. So a tag whose
/// records have several priorities meets steps that go backward.
///
/// # Sub-runs
///
/// A record [`with_sub_run`](Record::with_sub_run) goes to the folder of that name below the run's own, which TensorBoard shows
/// as a run beside it. Each has files, tags, kinds and last steps of its own; the settings of the sink hold for all.
///
/// * The name is a relative path with `/` between its parts, such as `eval/fold_1`. One that is empty or absolute, has an empty part,
///   `.` or `..`, more than 255 bytes a part or 2,048 in all, is refused.
/// * At most 32 files of sub-runs are open at once ([`max_open_runs`](Self::max_open_runs)): the one that was written to least
///   recently is closed, and opened again where records come for it.
/// * The sink remembers the 4,096 sub-runs that were written to last, and fewer where their tags, all together, come to the limits of
///   one run. What a sub-run needs more is taken from the one that was written to least recently. A sub-run that was forgotten
///   begins a new file, and its last steps are not known.
/// * A folder that cannot be written fails the records of its sub-run alone.
///
/// # Encoded messages
///
/// [`Encoded::Summary`](crate::event::Encoded::Summary) has values with tags of their own, for plugins of TensorBoard that this crate
/// does not know: neither the name of the record, nor the kinds and last steps of its other tags are compared with them. They have the
/// step and the moment of the record; without a step, 0. [`Encoded::Event`](crate::event::Encoded::Event) is an event of its own.
/// Bytes that TensorBoard could not decode are refused, however deep the fault lies: after such a record it reads no further, and one
/// of its loaders in no other run either.
///
/// ```
/// use forebay::event::Encoded;
/// use forebay::sink::{BackwardStep, MissingStep, Tags, TensorBoardSink};
/// use forebay::{Collector, Record};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let runs = folder.path();
/// // The ways of PyTorch's writer.
/// let sink = TensorBoardSink::create(runs.join("1"))?
///     .tags(Tags::Verbatim)
///     .missing_steps(MissingStep::Zero)
///     .backward_steps(BackwardStep::Write);
/// let collector = Collector::builder().sink(sink).start()?;
/// collector.collect(Record::scalar("val.loss", 2.5).with_signed_step(-1));
/// collector.collect(Record::scalar("loss", 0.5).with_step(3).with_sub_run("loss_train")); // runs/1/loss_train
/// // Summary { value: [Value { tag: "a", simple_value: 1.0 }] }
/// let bytes = *b"\x0a\x08\x0a\x01a\x15\0\0\x80\x3f";
/// collector.collect(Record::with_value("encoded", Encoded::Summary(bytes.into())).with_step(3));
/// assert_eq!(collector.stop()?.failed(), 0);
/// assert!(runs.join("1/loss_train").is_dir());
/// # Ok(())
/// # }
/// ```
///
/// # When it cannot be written
///
/// Every batch is one `write`, so a process that is killed loses nothing that was delivered; at most the last record
/// is torn, which TensorBoard waits for and never shows. A write that fails is cut off again and its batch counted as
/// failed. The next one begins a new file: TensorBoard reads on there. So does the next batch when the file was
/// removed, moved, hidden, replaced, cut or appended to, which is noticed within a second or at a flush; a batch is
/// never left in a file that had been removed before. A file that cannot be looked at, because the process has dropped
/// its privileges, stays in use. Nothing is synced to the disk: a power cut may take what the system had not written
/// yet. With sub-runs, a batch has one `write` for each folder, and may fail in part.
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
    settings: Settings,
    /// The folder of the run.
    run: RunFolder,
    sub_runs: SubRuns,
    /// Number of the batch at hand. One that is written again counts twice.
    batch: u64,
    /// The folder had event files with values when the sink was created.
    has_earlier_run: bool,
    /// The tag of the record at hand; its memory is used again.
    tag: String,
}

impl TensorBoardSink {
    /// Creates a sink named `tensorboard` that begins a file in `folder`, which is created if it is missing, with its
    /// parents.
    ///
    /// # Errors
    ///
    /// The system's, with the path in its text.
    pub fn create(folder: impl AsRef<Path>) -> io::Result<Self> {
        Self::begin(folder.as_ref(), 0)
    }

    /// Creates a sink for a run that goes on at `step`, the first that is to be written: points from there on that an
    /// earlier process wrote are shown no longer, also those of sub-runs. Tags that come without steps go on from there.
    ///
    /// # Errors
    ///
    /// As for [`create`](Self::create).
    pub fn resume(folder: impl AsRef<Path>, step: u64) -> io::Result<Self> {
        let mut sink = Self::begin(folder.as_ref(), i64::try_from(step).unwrap_or(i64::MAX))?;
        // On purpose.
        sink.has_earlier_run = false;
        Ok(sink)
    }

    fn begin(folder: &Path, first_step: i64) -> io::Result<Self> {
        // Whatever the process makes its working directory later.
        let given = std::path::absolute(folder)?;
        let settings = Settings { first_step, ..Settings::new() };
        let begun = real_folder(&given).and_then(|folder| {
            let has_earlier_run = files::has_earlier_run(&folder)?;
            let mut run = RunFolder::new(folder, settings.encoder(), first_step);
            run.begin_file(first_step, &settings.suffix)?;
            Ok((run, has_earlier_run))
        });
        let (run, has_earlier_run) = begun.map_err(|error| cannot_write(&given, error))?;
        Ok(Self {
            name: "tensorboard".to_owned(),
            settings,
            run,
            sub_runs: SubRuns::default(),
            batch: 0,
            has_earlier_run,
            tag: String::new(),
        })
    }

    /// Sets the name that it is counted under, `tensorboard` by default.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets which tag a name has. Defaults to [`Tags::Slashes`].
    pub fn tags(mut self, tags: Tags) -> Self {
        self.settings.tags = tags;
        self
    }

    /// Sets the step of a value without one. Defaults to [`MissingStep::Next`].
    pub fn missing_steps(mut self, what: MissingStep) -> Self {
        self.settings.missing = what;
        self
    }

    /// Sets what happens to a step before the last one of its tag. Defaults to [`BackwardStep::Refuse`].
    pub fn backward_steps(mut self, what: BackwardStep) -> Self {
        self.settings.backward = what;
        let encoder = std::mem::take(&mut self.run.encoder);
        self.run.encoder = encoder.with_backward_steps(what == BackwardStep::Write);
        self
    }

    /// Sets what becomes of points that earlier files of the folder have. Defaults to [`EarlierPoints::Hide`]. The file that was
    /// begun is replaced.
    ///
    /// # Errors
    ///
    /// As for [`create`](Self::create).
    pub fn earlier_points(mut self, what: EarlierPoints) -> io::Result<Self> {
        self.settings.earlier = what;
        self.run.keep_earlier(what == EarlierPoints::Keep);
        self.replace_file()
    }

    /// Sets the end of the names of its files, such as `.trainer`. Defaults to none. The file that was begun gets the name.
    ///
    /// # Errors
    ///
    /// A suffix with a separator of paths or a zero byte is refused ([`InvalidInput`](io::ErrorKind::InvalidInput)); and as for
    /// [`create`](Self::create).
    pub fn filename_suffix(mut self, suffix: impl Into<String>) -> io::Result<Self> {
        let suffix = suffix.into();
        if suffix.contains(['/', '\\', '\0']) {
            let why = format!("the suffix of a file must have no '/', '\\' and zero byte, got {suffix:?}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        self.settings.suffix = suffix;
        self.replace_file()
    }

    fn replace_file(mut self) -> io::Result<Self> {
        let begun = self.run.replace_file(&self.settings.suffix);
        begun.map_err(|error| cannot_write(self.run.folder(), error))?;
        Ok(self)
    }

    /// Sets the allowed number of tags. Each takes about 100 bytes and the length of its name. All sub-runs together may have as
    /// many. Defaults to 100,000.
    pub fn max_tags(mut self, tags: usize) -> Self {
        self.settings.max_tags = tags;
        self.run.encoder.set_max_tags(tags);
        self
    }

    /// Sets the allowed size of the names of all tags, in bytes. Those of all sub-runs together may be as large. Defaults to
    /// 16 MiB.
    pub fn max_tag_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_tag_bytes = bytes;
        self.run.encoder.set_max_tag_bytes(bytes);
        self
    }

    /// Sets the largest number of files of sub-runs that are open at once, at least 1. Defaults to 32.
    pub fn max_open_runs(mut self, files: usize) -> Self {
        self.settings.max_open_runs = files;
        self
    }

    /// Calls `hook` with the path of every file that it begins, also of sub-runs, and now with the path of the file that it has begun.
    ///
    /// For a program that looks for its own files among those of others. The worker calls it, before a value is in the file; for the
    /// file that is begun already, the thread that builds the sink. Call it last: [`filename_suffix`](Self::filename_suffix) and
    /// [`earlier_points`](Self::earlier_points) replace the first file, and the hook is called again. Where it panics, the file is
    /// written nevertheless; the next batch reports the panic as an error of the sink.
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    /// use forebay::{Collector, Record, sink::TensorBoardSink};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// let files = Arc::new(Mutex::new(Vec::new()));
    /// let begun = Arc::clone(&files);
    /// let sink = TensorBoardSink::create(folder.path())?
    ///     .on_file(move |path| begun.lock().map_or((), |mut files| files.push(path.to_owned())));
    /// let collector = Collector::builder().sink(sink).start()?;
    /// collector.collect(Record::scalar("loss", 0.5).with_sub_run("eval"));
    /// collector.stop()?;
    /// assert_eq!(files.lock().map_or(0, |files| files.len()), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_file(mut self, hook: impl Fn(&Path) + Send + Sync + 'static) -> Self {
        let hook: OnFile = Arc::new(hook);
        self.settings.on_file = Some(Arc::clone(&hook));
        self.run.on_file(Some(hook));
        // It may fork here, as the program may before.
        _ = self.run.report_file();
        self
    }

    /// Returns the file that it writes to, but for sub-runs.
    pub fn path(&self) -> &Path {
        self.run.path()
    }

    /// Writes a batch. What is in files that were removed meanwhile is written again.
    fn write_records(&mut self, batch: &Batch<&Record>) -> Result<(), SinkError> {
        // Should a panic have ended the batch before.
        drop(self.sub_runs.take_fates());
        self.write_pass(batch, false)?;
        if self.run.batch() == self.batch && self.run.is_lost() || self.sub_runs.is_any_lost() {
            self.write_pass(batch, true)?;
        }
        let mut fates = self.run.take_fates();
        fates.add(self.sub_runs.take_fates());
        fates.result(batch.len() as u64)
    }

    /// Writes a batch, or of it what is to be written `again`.
    fn write_pass(&mut self, batch: &Batch<&Record>, again: bool) -> Result<(), SinkError> {
        self.batch += 1;
        let Self { settings, run, sub_runs, batch: number, tag, .. } = self;
        let home = Home::now();
        for record in batch {
            let (folder, others) = match record.sub_run() {
                None if again && !run.is_again(*number) => continue,
                None => (&mut *run, None),
                Some(name) if again && !sub_runs.is_again(name, *number) => continue,
                Some(name) if !again && sub_runs.is_put_off(name) => continue,
                Some(name) => match sub_runs.enter(name, *number, run.folder(), settings) {
                    Some((folder, others)) => (folder, Some(others)),
                    None => continue,
                },
            };
            if folder.enter_batch(*number, batch.moment(), &settings.suffix) {
                Writer::new(settings, folder, others, record, home).encode(tag, record);
                empty_text(tag);
            }
            if settings.has_user_code() {
                // It may have forked.
                batch.check()?;
            }
        }
        if run.batch() == *number {
            run.finish();
        }
        sub_runs.finish(*number);
        Ok(())
    }
}

fn cannot_write(folder: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot write to {}: {error}", folder.display()))
}

impl<E: AsRef<Record>> Sink<E> for TensorBoardSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn hook(&mut self, hook: Hook<'_>) {
        if let Hook::Open(account) = hook
            && self.has_earlier_run
        {
            account.note_earlier_run(self.run.folder());
        }
    }

    fn write_batch(&mut self, batch: &Batch<E>) -> Result<(), SinkError> {
        let mut panics = Panics::of("an event's AsRef<Record>");
        let records = panics.records(batch);
        // Those were found by user code, which may have forked.
        batch.check()?;
        panics.join(self.write_records(&records), records.len())
    }

    /// Checks whether the files are still there, and so does the next batch. Nothing is to be written.
    fn flush(&mut self) -> Result<(), SinkError> {
        self.run.doubt();
        self.sub_runs.doubt();
        Ok(())
    }
}

impl fmt::Debug for TensorBoardSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TensorBoardSink")
            .field("name", &self.name)
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}
