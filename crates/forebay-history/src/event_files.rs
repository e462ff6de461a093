//! Event files of a folder, read as they grow: those of TensorBoard, PyTorch, tensorboardX and forebay.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use forebay::{Fields, Histogram, Image, Record, Value};
use forebay_sync::unix::open_read;
use tfevents::{EventContent, Hparams, OnDamage, Position, ReadError, Reader, Setting};

use crate::follow::{Identity, Look};
use crate::series::Point;

/// What all event files have in their names.
const MARK: &str = ".tfevents.";

/// Largest data of a record that is read, in bytes. A writer may make one of nearly 2 GiB, but memory takes it as a whole.
const MAX_RECORD_BYTES: usize = 1 << 30;

/// Bytes of a record beside its data, and more.
const FRAME_BYTES: u64 = 1 << 10;

/// Value of an event file.
#[derive(Debug)]
pub(crate) enum Shown<'a> {
    /// A number of a tag.
    Point(&'a str, Point),
    /// A number that a session of hyper-parameters ended with. The run may have a curve of that tag.
    Metric(&'a str, Point),
    /// The settings with which a session of hyper-parameters began.
    Settings(Fields),
    /// What is no number.
    Record(Record),
}

/// Follower of the event files of one folder, in the order of their names, which begin with the time. TensorBoard leaves a file behind for
/// good once there is a later one; this one goes on with all, since several writers may share a folder. Between two looks, none is open.
#[derive(Debug)]
pub(crate) struct EventFiles {
    /// The folder, or the one file that is asked for.
    path: PathBuf,
    is_one_file: bool,
    files: BTreeMap<PathBuf, Seen>,
    /// [`MAX_RECORD_BYTES`], but in tests.
    max_record_bytes: usize,
    /// Tags of texts: the first value of a tag alone may say that it is one.
    texts: HashSet<String>,
}

/// What was read of a file.
#[derive(Debug)]
struct Seen {
    max_record_bytes: usize,
    identity: Option<Identity>,
    /// The first byte that was not read, and what came before: it may be within damage.
    position: Position,
    /// The size at the last look; 0 if that has not come to the end.
    length: u64,
    /// Why it could not be read at the last look.
    error: Option<io::Error>,
    /// The first and the last moment, in nanoseconds since 1970.
    span: Option<(u64, u64)>,
}

/// Returns whether a folder below that of a run has the name that PyTorch and tensorboardX give a session of `add_hparams`: the time, as
/// Python writes it. Where there is one alone, its settings and last metrics are those of the run; several are runs of their own.
pub(crate) fn is_session(name: &OsStr) -> bool {
    let parts = name.to_str().and_then(|name| name.split_once('.'));
    parts.is_some_and(|(seconds, rest)| {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        seconds.len() == 10 && is_number(seconds) && is_number(rest)
    })
}

/// Returns whether a file lies in the folder of a session, and not in that of the run.
fn is_below(run: &Path, file: &Path) -> bool {
    file.parent().and_then(Path::parent) == Some(run)
}

/// How long two files may be written at once: one that takes the place of another begins while that ends.
const MAX_OVERLAP: u64 = 10_000_000_000;

impl EventFiles {
    /// Makes a follower of the event files of a folder, or of one file.
    pub(crate) fn new(path: PathBuf, is_one_file: bool) -> Self {
        Self {
            path,
            is_one_file,
            files: BTreeMap::new(),
            max_record_bytes: MAX_RECORD_BYTES,
            texts: HashSet::new(),
        }
    }

    /// Returns whether a file has the name of an event file.
    pub(crate) fn is_one(name: &OsStr) -> bool {
        name.to_str().is_some_and(|name| name.contains(MARK))
    }

    /// Gives the values that are new to `take`, and says how many events there were. Ends behind the event with which `max_bytes` were read,
    /// all files together, so that one is read to its end before the next. A file that cannot be read is damage, and passed over.
    ///
    /// # Errors
    ///
    /// The folder cannot be listed.
    pub(crate) fn look(
        &mut self,
        max_bytes: u64,
        mut take: impl FnMut(Shown<'_>),
    ) -> io::Result<(u64, Look)> {
        let new = || Seen::new(self.max_record_bytes);
        if self.is_one_file {
            self.files.entry(self.path.clone()).or_insert_with(new);
        } else {
            let (mut session, mut sessions) = (None, 0);
            for entry in fs::read_dir(&self.path)? {
                let entry = entry?;
                if Self::is_one(&entry.file_name()) {
                    self.files.entry(entry.path()).or_insert_with(new);
                } else if is_session(&entry.file_name()) {
                    (session, sessions) = (Some(entry.path()), sessions + 1);
                }
            }
            let session = session.filter(|_| sessions == 1).and_then(|session| fs::read_dir(session).ok());
            for entry in session.into_iter().flatten().flatten() {
                if Self::is_one(&entry.file_name()) {
                    self.files.entry(entry.path()).or_insert_with(new);
                }
            }
        }
        let (mut events, mut left) = (0, max_bytes);
        // The files of the run itself first: what a session ended with comes behind their curves.
        let is_below = |file: &Path| is_below(&self.path, file);
        let (below, own): (Vec<_>, Vec<_>) = self.files.iter_mut().partition(|(path, _)| is_below(path));
        for (path, seen) in own.into_iter().chain(below) {
            if left == 0 {
                break;
            }
            let before = seen.position.offset();
            let mut take = |shown: Shown<'_>| match shown {
                Shown::Point(tag, point) if is_below(path) => take(Shown::Metric(tag, point)),
                shown => take(shown),
            };
            match seen.look(path, left, &mut self.texts, &mut take, &mut events) {
                Ok(Look::Replaced) => {
                    *self = Self::new(std::mem::take(&mut self.path), self.is_one_file);
                    return Ok((0, Look::Replaced));
                }
                Ok(_) => seen.error = None,
                // Somebody cleans up.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => seen.error = Some(error),
            }
            left = left.saturating_sub(seen.position.offset() - before);
        }
        Ok((events, if left == 0 { Look::More } else { Look::UpToDate }))
    }

    /// Returns how many places of all files were damaged, or files that cannot be read.
    pub(crate) fn damaged(&self) -> u64 {
        let damaged =
            |seen: &Seen| seen.position.skipped().places.saturating_add(u64::from(seen.error.is_some()));
        self.files.values().map(damaged).sum()
    }

    /// Returns a file that could not be read at the last look, and why.
    pub(crate) fn unreadable(&self) -> Option<(&Path, &io::Error)> {
        self.files.iter().find_map(|(path, seen)| Some((path.as_path(), seen.error.as_ref()?)))
    }

    /// Returns whether two files were written at the same time. Those of a session are written beside the others.
    pub(crate) fn overlap(&self) -> bool {
        let own = self.files.iter().filter(|(file, _)| !is_below(&self.path, file));
        let mut spans: Vec<(u64, u64)> = own.filter_map(|(_, seen)| seen.span).collect();
        spans.sort_unstable();
        let mut end = 0;
        spans.into_iter().any(|(first, last)| {
            let both = end.min(last).saturating_sub(first);
            end = end.max(last);
            both > MAX_OVERLAP
        })
    }

    /// Returns whether a file ends within a record: it is being written, or its writer was killed.
    pub(crate) fn is_torn(&self) -> bool {
        self.files.values().any(|seen| {
            seen.position.offset() < seen.length || seen.length > 0 && seen.position.is_within_record()
        })
    }
}

impl Seen {
    /// Begins at the start of a file.
    fn new(max_record_bytes: usize) -> Self {
        Self {
            max_record_bytes,
            identity: None,
            position: Position::default(),
            length: 0,
            error: None,
            span: None,
        }
    }

    /// Gives the values that are new in a file to `take`, and adds the number of their events. An error may come behind some of them.
    fn look(
        &mut self,
        path: &Path,
        max_bytes: u64,
        texts: &mut HashSet<String>,
        take: &mut impl FnMut(Shown<'_>),
        events: &mut u64,
    ) -> io::Result<Look> {
        let is_plain = |data: &Metadata| match data.is_file() {
            true => Ok(()),
            // A pipe or a device is none.
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "an event file must be a plain file")),
        };
        let data = fs::metadata(path)?;
        if self.identity == Some(Identity::of(&data)) && data.len() == self.length {
            return Ok(Look::UpToDate);
        }
        is_plain(&data)?;
        let file = open_read(path)?;
        // By now, another file may be there.
        is_plain(&file.metadata()?)?;
        self.look_at(file, max_bytes, texts, take, events)
    }

    /// Looks at an open file, whatever is at its path by now.
    fn look_at(
        &mut self,
        mut file: File,
        max_bytes: u64,
        texts: &mut HashSet<String>,
        take: &mut impl FnMut(Shown<'_>),
        events: &mut u64,
    ) -> io::Result<Look> {
        let data = file.metadata()?;
        let identity = Identity::of(&data);
        if self.identity.is_some_and(|known| known != identity) || data.len() < self.position.offset() {
            return Ok(Look::Replaced);
        }
        file.seek(SeekFrom::Start(self.position.offset()))?;
        // Until it is read to its end, there is more at the next look.
        (self.identity, self.length) = (Some(identity), 0);
        if self.read(file, max_bytes, texts, take, events)? {
            return Ok(Look::More);
        }
        self.length = data.len();
        Ok(Look::UpToDate)
    }

    /// Reads a file on from where it is, and says whether there is more. What came before an error is read, and does not come again.
    fn read(
        &mut self,
        file: impl Read,
        max_bytes: u64,
        texts: &mut HashSet<String>,
        take: &mut impl FnMut(Shown<'_>),
        events: &mut u64,
    ) -> io::Result<bool> {
        let end = self.position.offset().saturating_add(max_bytes);
        // What is damaged or too large is passed over in parts, too: a look may end within it.
        let room = (self.max_record_bytes as u64).saturating_add(FRAME_BYTES);
        let mut reader = Reader::new(file.take(max_bytes.saturating_add(room)))
            .max_record_bytes(self.max_record_bytes)
            .on_damage(OnDamage::Resync)
            .at(self.position);
        let read = loop {
            if reader.offset() >= end {
                break Ok(true);
            }
            match reader.next_event() {
                Ok(Some(event)) => {
                    *events += 1;
                    let EventContent::Summary(values) = event.content else { continue };
                    // Of values alone: a file begins when its writer does, and may have values of another time.
                    let moment = nanos(event.wall_time);
                    let (first, last) = self.span.unwrap_or((moment, moment));
                    self.span = Some((first.min(moment), last.max(moment)));
                    for value in values {
                        if let Some(settings) = settings_of(&value) {
                            take(Shown::Settings(settings));
                        }
                        take(shown_of(&value, texts, event.step, nanos(event.wall_time)));
                    }
                }
                // Before that, no record is too large for what was read of the file: it is at its end.
                Ok(None) => break Ok(reader.offset() >= end),
                Err(ReadError::Io(error)) => break Err(error),
                Err(error) => break Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        };
        self.position = reader.position();
        read
    }
}

/// Returns what is shown of a value. `texts` are the tags of texts so far: the first value of a tag alone may say that it is one.
fn shown_of<'a>(
    value: &tfevents::Value<'a>,
    texts: &mut HashSet<String>,
    step: i64,
    unix_nanos: u64,
) -> Shown<'a> {
    let plugin = value.plugin();
    if plugin == Some("text") && !texts.contains(value.tag) {
        texts.insert(value.tag.to_owned());
    }
    // A later value may leave out what it is, but not say that it is something else.
    if plugin == Some("text") || plugin.is_none() && texts.contains(value.tag) {
        let text = text_of(value).map_or(Value::Empty, |text| Value::from(&*text));
        return Shown::Record(record(value.tag, text, step, unix_nanos));
    }
    match value.scalar().filter(|_| plugin != Some("hparams")) {
        Some(number) => Shown::Point(value.tag, Point { step, unix_nanos, value: number }),
        None => Shown::Record(record(value.tag, value_of(value), step, unix_nanos)),
    }
}

/// Returns the settings with which a session of hyper-parameters begins, if a value tells them.
fn settings_of(value: &tfevents::Value<'_>) -> Option<Fields> {
    let told = value.metadata.filter(|metadata| metadata.plugin == "hparams")?.hparams().ok().flatten();
    let Some(Hparams::SessionStart { settings, .. }) = told else { return None };
    let setting = |setting| match setting {
        Setting::Number(number) => Value::from(number),
        Setting::Bool(is) => Value::from(is),
        Setting::Text(text) => Value::from(text),
    };
    Some(settings.map(|(name, own)| (name.to_owned(), setting(own))).collect())
}

/// Returns a distribution or a picture. All else has no form of ours.
fn value_of(value: &tfevents::Value<'_>) -> Value {
    if value.plugin() == Some("hparams") {
        return Value::Empty;
    }
    if let Some(image) = value.image() {
        let file = image.encoded;
        let image = Image::png(file).or_else(|_| Image::jpeg(file)).or_else(|_| Image::gif(file));
        return image.map_or(Value::Empty, |image| Value::Image(Box::new(image)));
    }
    let is_histogram = value.plugin().is_none_or(|plugin| plugin == "histograms");
    let histogram = value.bins().filter(|_| is_histogram).and_then(|bins| histogram_of(value, bins));
    histogram.map_or(Value::Empty, |histogram| Value::Histogram(Box::new(histogram)))
}

fn histogram_of(value: &tfevents::Value<'_>, bins: tfevents::Bins<'_>) -> Option<Histogram> {
    let (mut edges, mut counts, mut sum, mut squares) = (Vec::new(), Vec::new(), 0.0, 0.0);
    for (left, right, count) in bins {
        if edges.is_empty() {
            edges.push(left);
        }
        // Of equal values, the legacy form has limits around them.
        edges.push(edges.last().map_or(right, |last: &f64| last.max(right)));
        counts.push(count.max(0.0) as u64);
        let middle = left / 2.0 + right / 2.0;
        sum += middle * count;
        squares += middle * middle * count;
    }
    // The legacy form knows them.
    if let tfevents::ValueContent::Histogram(histogram) = &value.content {
        (sum, squares) = (histogram.sum, histogram.sum_squares);
    }
    Histogram::from_counts(edges, counts, sum, squares).ok()
}

fn text_of(value: &tfevents::Value<'_>) -> Option<String> {
    let tfevents::ValueContent::Tensor(tensor) = &value.content else { return None };
    let first = tensor.strings().next()?;
    Some(String::from_utf8_lossy(first).into_owned())
}

pub(crate) fn record(tag: &str, value: Value, step: i64, unix_nanos: u64) -> Record {
    let time = UNIX_EPOCH + Duration::from_nanos(unix_nanos);
    Record::with_value(tag.to_owned(), value).with_signed_step(step).with_time(time)
}

/// Returns a moment in nanoseconds; 0 for one before 1970, or none.
fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9).max(0.0) as u64
}

#[cfg(test)]
mod tests {
    use forebay::Batch;
    use forebay::sink::{Sink, TensorBoardSink};

    use super::*;

    /// Writes the event file of a run: so many points.
    fn write(folder: &Path, name: &str, steps: std::ops::Range<u64>) {
        let own = tempfile::tempdir().unwrap();
        let mut sink = TensorBoardSink::create(own.path()).unwrap();
        let points = steps.map(|step| Record::scalar("loss", 0.5).with_step(step));
        sink.write_batch(&Batch::from_events(points.collect())).unwrap();
        Sink::<Record>::flush(&mut sink).unwrap();
        let file = fs::read_dir(own.path()).unwrap().next().unwrap().unwrap().path();
        fs::copy(file, folder.join(format!("{name}.tfevents.1"))).unwrap();
    }

    /// All files together give no more than so many bytes and an event, and none before the one in front of it is at its end.
    #[test]
    fn a_look_ends_after_so_many_bytes_of_all_files_together() {
        let folder = tempfile::tempdir().unwrap();
        for (name, steps) in [("a", 0..100), ("b", 100..110), ("c", 110..200)] {
            write(folder.path(), name, steps);
        }
        let mut files = EventFiles::new(folder.path().to_owned(), false);
        let (mut seen, mut looks) = (Vec::new(), 0);
        loop {
            let before = seen.len();
            let take = |shown: Shown<'_>| match shown {
                Shown::Point(_, point) => seen.push(point.step),
                Shown::Record(record) => seen.push(record.signed_step().unwrap_or(-1)),
                Shown::Metric(..) | Shown::Settings(_) => panic!("there is no session"),
            };
            let (_, look) = files.look(1_000, take).unwrap();
            // A point takes more than 25 bytes.
            assert!(seen.len() - before <= 1_000 / 25 + 1, "{}", seen.len() - before);
            looks += 1;
            if look == Look::UpToDate {
                break;
            }
        }
        seen.retain(|step| *step >= 0);
        assert_eq!(seen, Vec::from_iter(0..200));
        assert!(looks > 5, "{looks}");
    }

    /// What an iterator has not come to is not read yet: that of a file that is removed meanwhile does not come.
    #[test]
    fn an_iterator_reads_a_megabyte_ahead_at_most() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a", 0..40_000);
        write(folder.path(), "b", 0..10);
        let size = fs::metadata(folder.path().join("a.tfevents.1")).unwrap().len();
        assert!(size > 1 << 20, "{size}");
        let history = crate::open(folder.path()).unwrap();
        let mut records = history.iter(&crate::EventQuery::new().name("loss")).unwrap();
        assert_eq!(records.next().unwrap().unwrap().signed_step(), Some(0));
        fs::remove_file(folder.path().join("b.tfevents.1")).unwrap();
        assert_eq!(records.count(), 39_999);
    }

    /// File that cannot be read for once, at a place.
    struct FailsOnce<'a> {
        bytes: &'a [u8],
        at: u64,
        fails_at: &'a mut Option<u64>,
    }

    impl Read for FailsOnce<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let rest = &self.bytes[usize::try_from(self.at).unwrap()..];
            let room = self.fails_at.map_or(rest.len() as u64, |place| place.saturating_sub(self.at));
            let size = (&rest[..rest.len().min(room as usize)]).read(buffer)?;
            if size == 0 && self.fails_at.take().is_some() {
                return Err(io::Error::other("a disk that is away"));
            }
            self.at += size as u64;
            Ok(size)
        }
    }

    #[test]
    fn what_was_read_before_an_error_does_not_come_again() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a", 0..100);
        let bytes = fs::read(folder.path().join("a.tfevents.1")).unwrap();
        for place in [0, 1, 500, 1_000, bytes.len() as u64 - 1] {
            let (mut seen, mut texts, mut steps, mut events) =
                (Seen::new(MAX_RECORD_BYTES), HashSet::new(), Vec::new(), 0);
            let mut fails_at = Some(place);
            let mut read = |seen: &mut Seen, fails_at: &mut Option<u64>| {
                let file = FailsOnce { bytes: &bytes, at: seen.position.offset(), fails_at };
                let mut take = |shown: Shown<'_>| {
                    if let Shown::Point(_, point) = shown {
                        steps.push(point.step);
                    }
                };
                seen.read(file, u64::MAX, &mut texts, &mut take, &mut events)
            };
            assert!(read(&mut seen, &mut fails_at).is_err(), "{place}");
            assert!(seen.position.offset() <= place);
            assert!(!read(&mut seen, &mut fails_at).unwrap());
            assert_eq!(steps, Vec::from_iter(0..100), "{place}");
            // Two events in front tell of the file.
            assert_eq!((events, seen.position.skipped().places), (102, 0), "{place}");
            assert_eq!(seen.position.offset(), bytes.len() as u64);
        }
    }

    /// Reads all there is, in looks of so many bytes. Returns the steps of the points.
    fn read_all(files: &mut EventFiles, max_bytes: u64) -> Vec<i64> {
        let mut steps = Vec::new();
        loop {
            let take = |shown: Shown<'_>| {
                if let Shown::Point(_, point) = shown {
                    steps.push(point.step);
                }
            };
            match files.look(max_bytes, take).unwrap().1 {
                Look::More => {}
                look => {
                    assert_eq!(look, Look::UpToDate);
                    return steps;
                }
            }
        }
    }

    #[test]
    fn a_record_of_more_than_the_readers_usual_bound_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let mut encoder = tfevents::Encoder::new();
        encoder.begin_plain_file(0.0);
        let graph = vec![0; 66 << 20];
        encoder.add_graph(0.0, 0, &graph).unwrap();
        encoder.add(0.0, 7, "a", tfevents::Summary::Scalar(1.0)).unwrap();
        fs::write(folder.path().join("a.tfevents.1"), encoder.take()).unwrap();
        let mut files = EventFiles::new(folder.path().to_owned(), false);
        assert_eq!(read_all(&mut files, 1_000), [7]);
        assert_eq!(files.damaged(), 0);
    }

    /// A look ends within a record of 68 MiB, and what is in there looks like records.
    #[test]
    fn what_is_behind_a_record_that_is_too_large_is_read_and_what_is_in_it_is_not() {
        use std::io::Write;

        let folder = tempfile::tempdir().unwrap();
        for (name, steps) in [("a", 0..10), ("b", 10..20)] {
            write(folder.path(), name, steps);
        }
        let path = |name: &str| folder.path().join(format!("{name}.tfevents.1"));
        let (first, behind) = (fs::read(path("a")).unwrap(), fs::read(path("b")).unwrap());
        let size = 68_u64 << 20;
        let mut file = File::options().append(true).open(path("a")).unwrap();
        file.write_all(&size.to_le_bytes()).unwrap();
        file.write_all(&tfevents::masked_crc32c(&size.to_le_bytes()).to_le_bytes()).unwrap();
        file.set_len(first.len() as u64 + (64 << 20)).unwrap();
        file.write_all(&behind.repeat((4 << 20) / behind.len())).unwrap();
        // Its head and the checksum of its data have 16 bytes.
        file.set_len(first.len() as u64 + size + 16).unwrap();
        file.write_all(&behind).unwrap();
        drop(file);
        fs::remove_file(path("b")).unwrap();
        let followed = || {
            let files = EventFiles::new(folder.path().to_owned(), false);
            EventFiles { max_record_bytes: 64 << 20, ..files }
        };
        let mut files = followed();
        assert_eq!(read_all(&mut files, 1_000), Vec::from_iter(0..20));
        assert_eq!((files.damaged(), files.is_torn()), (1, false));
        // While it is written, it is torn.
        File::options()
            .write(true)
            .open(path("a"))
            .unwrap()
            .set_len(first.len() as u64 + (67 << 20))
            .unwrap();
        let mut files = followed();
        assert_eq!(read_all(&mut files, 1_000), Vec::from_iter(0..10));
        assert_eq!((files.damaged(), files.is_torn()), (1, true));
    }

    #[test]
    fn damage_counts_once_wherever_a_read_within_it_fails() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a", 0..10);
        write(folder.path(), "b", 10..20);
        let of = |name: &str| fs::read(folder.path().join(format!("{name}.tfevents.1"))).unwrap();
        let bytes = [of("a"), vec![0xff; 300], of("b")].concat();
        for place in 0..bytes.len() as u64 {
            let (mut seen, mut texts, mut steps, mut events) =
                (Seen::new(MAX_RECORD_BYTES), HashSet::new(), Vec::new(), 0);
            let mut fails_at = Some(place);
            let mut read = |seen: &mut Seen, fails_at: &mut Option<u64>| {
                let file = FailsOnce { bytes: &bytes, at: seen.position.offset(), fails_at };
                let mut take = |shown: Shown<'_>| {
                    if let Shown::Point(_, point) = shown {
                        steps.push(point.step);
                    }
                };
                seen.read(file, u64::MAX, &mut texts, &mut take, &mut events)
            };
            assert!(read(&mut seen, &mut fails_at).is_err(), "{place}");
            assert!(!read(&mut seen, &mut fails_at).unwrap());
            assert_eq!((steps, seen.position.skipped().places), (Vec::from_iter(0..20), 1), "{place}");
        }
    }

    /// What is read is of the file whose identity is kept, also where another one takes its place while it is opened.
    #[test]
    fn a_file_that_is_replaced_while_it_is_opened_is_read_and_then_replaced() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a", 0..10);
        write(folder.path(), "b", 10..20);
        let path = folder.path().join("a.tfevents.1");
        let open = File::open(&path).unwrap();
        fs::rename(folder.path().join("b.tfevents.1"), &path).unwrap();
        let (mut seen, mut texts, mut steps, mut events) =
            (Seen::new(MAX_RECORD_BYTES), HashSet::new(), Vec::new(), 0);
        let mut take = |shown: Shown<'_>| {
            if let Shown::Point(_, point) = shown {
                steps.push(point.step);
            }
        };
        let look = seen.look_at(open, u64::MAX, &mut texts, &mut take, &mut events).unwrap();
        assert_eq!(look, Look::UpToDate);
        let look = seen.look(&path, u64::MAX, &mut texts, &mut take, &mut events).unwrap();
        assert_eq!(look, Look::Replaced);
        assert_eq!(steps, Vec::from_iter(0..10));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named_with_the_reason_until_it_can_be() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a", 0..10);
        let other = folder.path().join("b.tfevents.1");
        fs::create_dir(&other).unwrap();
        let mut files = EventFiles::new(folder.path().to_owned(), false);
        assert_eq!(read_all(&mut files, u64::MAX), Vec::from_iter(0..10));
        let (path, error) = files.unreadable().unwrap();
        assert_eq!(
            (path, error.to_string().as_str()),
            (other.as_path(), "an event file must be a plain file")
        );
        assert_eq!(files.damaged(), 1);
        fs::remove_dir(&other).unwrap();
        write(folder.path(), "b", 10..20);
        assert_eq!(read_all(&mut files, u64::MAX), Vec::from_iter(10..20));
        assert!(files.unreadable().is_none() && files.damaged() == 0);
    }
}
