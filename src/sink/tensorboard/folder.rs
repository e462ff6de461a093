//! Event files of one run folder, one after the other, and the encoder that knows their tags.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tfevents::Encoder;

use super::files;
use super::settings::{OnFile, seconds};
use crate::sink::SinkError;
use crate::sink::presence::{Found, Presence};
use crate::sink::target::real_folder;
use crate::sync::{Home, catch_panic};
use crate::unix::is_unlinked;

/// Folder of one run: the only writer of event files in it.
pub(super) struct RunFolder {
    folder: PathBuf,
    pub(super) encoder: Encoder,
    file: Place,
    /// Bytes of whole records in the file.
    length: u64,
    path: PathBuf,
    /// Presence of the file, and `None` before the first one.
    presence: Option<Presence>,
    /// Number of the last batch that had a record for this folder.
    batch: u64,
    /// Fate of the events of that batch.
    pub(super) fates: Fates,
    /// The folder takes nothing more of that batch: a write failed, or a file could not be begun.
    is_broken: bool,
    /// The file was removed while that batch was written: nobody can read it.
    is_lost: bool,
    /// Step of the head of its very first file.
    first_step: i64,
    /// Whether the heads of its files tell no step, so that points of earlier files stay.
    keeps_earlier: bool,
    on_file: Option<OnFile>,
    /// What the hook said when it panicked, until a batch reports it.
    hook_panic: Option<String>,
}

/// State of the file that the next batch goes to.
enum Place {
    Open(File),
    /// Closed to spare a descriptor. It is whole and ours as long as it has its identity and its length.
    Closed,
    /// The next batch begins a file.
    Nothing,
}

/// Numbers of events of the batch at hand, and the first reasons of failure.
#[derive(Debug, Default)]
pub(super) struct Fates {
    /// Events whose values are encoded and not in a file yet.
    pub(super) unwritten: u64,
    /// Events that are in a file.
    pub(super) written: u64,
    /// Events of which a part cannot be shown. The rest of them is written.
    pub(super) refused: u64,
    /// Events that no file took.
    pub(super) failed: u64,
    pub(super) refusal: Option<SinkError>,
    pub(super) error: Option<io::Error>,
}

impl Fates {
    pub(super) fn refuse(&mut self, why: SinkError) {
        self.refused += 1;
        self.refusal.get_or_insert(why);
    }

    /// Notes that what was written is gone.
    pub(super) fn fail_written(&mut self, error: io::Error) {
        self.failed += std::mem::take(&mut self.written);
        self.error.get_or_insert(error);
    }

    /// Adds those of another folder.
    pub(super) fn add(&mut self, other: Self) {
        self.unwritten += other.unwritten;
        self.written += other.written;
        self.refused += other.refused;
        self.failed += other.failed;
        self.refusal = self.refusal.take().or(other.refusal);
        self.error = self.error.take().or(other.error);
    }

    /// Returns what became of a batch of so many events.
    pub(super) fn result(self, events: u64) -> Result<(), SinkError> {
        let lost = self.refused + self.failed;
        match (self.error, self.refusal) {
            // A batch of which nothing is written may be tried again as a whole.
            (Some(error), _) if lost >= events => Err(error.into()),
            (Some(error), _) => Err(SinkError::from(error).with_failed_events(lost)),
            (None, Some(refusal)) => Err(refusal.with_failed_events(lost)),
            (None, None) => Ok(()),
        }
    }
}

impl RunFolder {
    /// Makes a folder that has no file yet. Its first batch begins one, whose head says that points from `first_step` on are its
    /// own. Values without a step begin there.
    pub(super) fn new(folder: PathBuf, mut encoder: Encoder, first_step: i64) -> Self {
        encoder.count_from(first_step);
        Self {
            folder,
            encoder,
            file: Place::Nothing,
            length: 0,
            path: PathBuf::new(),
            presence: None,
            batch: 0,
            fates: Fates::default(),
            is_broken: false,
            is_lost: false,
            first_step,
            keeps_earlier: false,
            on_file: None,
            hook_panic: None,
        }
    }

    /// Sets what hears of every file that is begun from here on.
    pub(super) fn on_file(&mut self, hook: Option<OnFile>) {
        self.on_file = hook;
    }

    /// Has the heads of its files tell no step, or tell it again.
    pub(super) fn keep_earlier(&mut self, keeps: bool) {
        self.keeps_earlier = keeps;
    }

    /// Returns the path of the folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the path of the file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether it holds a descriptor.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.file, Place::Open(_))
    }

    /// Returns whether it ever had a file.
    pub(super) fn has_begun(&self) -> bool {
        self.presence.is_some()
    }

    /// Returns whether it takes nothing more of the batch at hand.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Returns whether the batch at hand has to be written again.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Returns the number of the last batch that had a record for this folder.
    pub(super) fn batch(&self) -> u64 {
        self.batch
    }

    /// Returns whether batch number `batch` writes again what was lost.
    pub(super) fn is_again(&self, batch: u64) -> bool {
        self.is_lost || self.batch == batch
    }

    /// Takes the fates of the events of the batch at hand, which is over. A file that was removed again holds none of them.
    pub(super) fn take_fates(&mut self) -> Fates {
        let mut fates = std::mem::take(&mut self.fates);
        if self.is_lost && fates.written > 0 {
            fates.fail_written(io::ErrorKind::NotFound.into());
        }
        fates
    }

    /// Notes that a record was encoded, as far as it was not refused.
    pub(super) fn note_encoded(&mut self, refused: Option<SinkError>) {
        match refused {
            _ if self.is_broken => self.fates.failed += 1,
            Some(why) => self.fates.refuse(why),
            None => self.fates.unwritten += 1,
        }
    }

    /// Begins a new file. Its head says that points from `step` on are its own, unless those of earlier files are kept.
    pub(super) fn begin_file(&mut self, step: i64, suffix: &str) -> io::Result<()> {
        let step = (!self.keeps_earlier).then_some(step);
        self.begin_file_at(step, suffix)
    }

    fn begin_file_at(&mut self, step: Option<i64>, suffix: &str) -> io::Result<()> {
        self.file = Place::Nothing;
        let (path, file) = files::create(&self.folder, suffix)?;
        self.path = path;
        let presence = Presence::of(&file)?;
        self.file = Place::Open(file);
        let begun = self.rewrite_head(step);
        if begun.is_err() && matches!(presence.look(&self.path), Found::Own(_)) {
            // On a full disk, every try would leave an empty file.
            let _ = fs::remove_file(&self.path);
        }
        self.presence = Some(presence);
        begun.and_then(|()| self.report_file())
    }

    /// Reports the file to the caller. Fails in a forked child: the file is its parent's.
    pub(super) fn report_file(&mut self) -> io::Result<()> {
        let Some(hook) = &self.on_file else { return Ok(()) };
        let home = Home::now();
        // A panic of the hook harms no file, and no event.
        if let Err(said) = catch_panic(|| hook(&self.path)) {
            self.hook_panic.get_or_insert(said);
        }
        home.check().map_err(io::Error::other)
    }

    /// Writes the head of a file that has nothing behind it yet.
    fn rewrite_head(&mut self, step: Option<i64>) -> io::Result<()> {
        if let Place::Open(file) = &mut self.file {
            file.set_len(0)?;
        }
        self.length = 0;
        let now = seconds(crate::clock::unix_nanos());
        match step {
            Some(step) => self.encoder.begin_file(now, step),
            None => self.encoder.begin_plain_file(now),
        }
        self.append()
    }

    /// Replaces the first file, as long as it has nothing behind its head.
    pub(super) fn replace_file(&mut self, suffix: &str) -> io::Result<()> {
        self.file = Place::Nothing;
        if self.presence.as_ref().is_some_and(|presence| matches!(presence.look(&self.path), Found::Own(_))) {
            fs::remove_file(&self.path)?;
        }
        self.begin_file(self.first_step, suffix)
    }

    /// Returns whether the file is still at its path, as long as we wrote it.
    fn is_found(&self) -> bool {
        let Some(presence) = &self.presence else { return false };
        match (&self.file, presence.look(&self.path)) {
            (Place::Nothing, _) => false,
            // Somebody has cut it, or appended to it: what follows would be no records.
            (_, Found::Own(length)) => length == self.length,
            (Place::Open(file), Found::Unknown) => !is_unlinked(file),
            (_, Found::Unknown | Found::Other | Found::Nothing) => false,
        }
    }

    /// Looks for the file, and has the next batch look again.
    pub(super) fn doubt(&mut self) {
        if self.is_open() && !self.is_found() {
            self.file = Place::Nothing;
        }
        if let Some(presence) = &mut self.presence {
            presence.doubt();
        }
    }

    /// Has a file ready for a record of batch number `batch`. Returns `false` if this is not to be encoded: the folder is broken,
    /// which fails the record, or the batch has to be written again.
    pub(super) fn enter_batch(&mut self, batch: u64, moment: u64, suffix: &str) -> bool {
        if self.batch != batch {
            self.batch = batch;
            self.fates = Fates::default();
            (self.is_broken, self.is_lost) = (false, false);
            // Should a panic have left something behind: its steps may come again.
            if !self.encoder.bytes().is_empty() {
                self.encoder.forget_steps();
            }
            self.encoder.clear();
        } else if self.is_open() {
            return true;
        }
        if !self.is_broken
            && !self.is_lost
            && let Err(error) = self.make_ready(moment, suffix)
        {
            self.break_off(error);
        }
        self.fates.failed += u64::from(self.is_broken);
        !self.is_broken && !self.is_lost
    }

    fn make_ready(&mut self, moment: u64, suffix: &str) -> io::Result<()> {
        let is_due = self.presence.as_mut().is_none_or(|presence| presence.is_due(moment));
        let is_good = match self.file {
            Place::Open(_) => !is_due || self.is_found(),
            Place::Closed => self.reopen(),
            Place::Nothing => false,
        };
        if is_good {
            return Ok(());
        }
        if !self.has_begun() {
            // Symbolic links in the path are followed once.
            self.folder = real_folder(&self.folder)?;
            return self.begin_file(self.first_step, suffix);
        }
        // Behind all that was written: no point of an older file is meant.
        let after = self.encoder.last_step().map_or(self.first_step, |last| last.saturating_add(1));
        self.begin_file(after, suffix)
    }

    /// Opens a file that was closed; `false` if it is not the one that it was.
    fn reopen(&mut self) -> bool {
        // Looked at before: opening creates a file where none is.
        if !self.is_found() {
            return false;
        }
        let file = crate::unix::open_append(&self.path);
        let (Ok(file), Some(presence)) = (file, &self.presence) else { return false };
        if !presence.is_of(&file) {
            return false;
        }
        self.file = Place::Open(file);
        true
    }

    /// Goes on in a new file: what was encoded so far belongs to the old one.
    pub(super) fn next_file(&mut self, step: i64, suffix: &str) {
        self.write();
        if self.is_broken {
            return;
        }
        self.encoder.forget_steps();
        // Which takes the place of what earlier files have: that is what a new file is for.
        if let Err(error) = self.begin_file_at(Some(step), suffix) {
            self.break_off(error);
        }
    }

    /// Writes what was encoded, and notes what became of its events.
    pub(super) fn write(&mut self) {
        if self.is_broken {
            return;
        }
        let written = if self.encoder.bytes().is_empty() { Ok(()) } else { self.append() };
        match written {
            Ok(()) => self.fates.written += std::mem::take(&mut self.fates.unwritten),
            Err(error) => self.break_off(error),
        }
    }

    fn break_off(&mut self, error: io::Error) {
        self.is_broken = true;
        self.fates.failed += std::mem::take(&mut self.fates.unwritten);
        self.fates.error.get_or_insert(error);
    }

    /// Writes the batch to its end. A file that was removed meanwhile is left.
    pub(super) fn finish(&mut self) {
        self.write();
        // What became of events comes first.
        if self.fates.refusal.is_none()
            && self.fates.error.is_none()
            && let Some(said) = self.hook_panic.take()
        {
            self.fates.refusal = Some(SinkError::panicked("the hook of on_file", &said));
        }
        if let Place::Open(file) = &self.file
            && is_unlinked(file)
        {
            // Nobody can read what was removed meanwhile. The same steps come again.
            self.file = Place::Nothing;
            self.encoder.forget_steps();
            self.is_lost = true;
        }
    }

    /// Closes the file, and keeps no more memory than it must.
    pub(super) fn close(&mut self) {
        self.finish();
        if self.is_open() {
            self.file = Place::Closed;
        }
        self.encoder.free_buffers();
    }

    /// Appends what was encoded to the file, all of it or nothing.
    fn append(&mut self) -> io::Result<()> {
        let bytes = self.encoder.bytes();
        let Place::Open(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
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
                self.file = Place::Nothing;
                // Whoever tries again comes with the same steps.
                self.encoder.forget_steps();
                Err(error)
            }
        }
    }
}
