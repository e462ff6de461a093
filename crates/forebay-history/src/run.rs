//! `Run`: what the files of a folder say of a run, as they grow, whichever program writes them.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use forebay::event::catalog::training;
use forebay::parts::settings;
use forebay::run::{RunInfo, RunStatus};
use forebay::{Event, Fields, Image, Record, Value};
use forebay_sync::sync::Arc;

use crate::distributions::{Distribution, Distributions};
use crate::event_files::{self, EventFiles};
use crate::feed::{self, Feed};
use crate::follow::{LineFollower, Look};
use crate::lines::PlainLines;
use crate::runs::{Lives, Trouble, TroubleKind};
use crate::series::{Point, Series};
#[cfg(feature = "sqlite")]
use crate::sqlite::{Seen, SqliteHistory};
use crate::values::{number_of, values};
use crate::{EventQuery, History, HistoryError, JsonLinesHistory, Records};

/// The file of JSON Lines that forebay's runs have.
const EVENTS: &str = "events.jsonl";

/// What the closed files beside it begin with.
const CLOSED: &str = "events.jsonl.";

/// The database that forebay's runs have.
const DATABASE: &str = "events.db";

/// Bytes after which a look at one run ends, so that many runs can be looked at in turn.
const MAX_BYTES: usize = 256 << 20;

/// Bytes of event files of which an iterator holds the records.
const MAX_ITER_BYTES: usize = 1 << 20;

/// Records that are read from a database or a feed at once.
const MAX_ROWS: usize = 10_000;

/// Points that a run keeps of all series together by default: 100 MB.
const MAX_TOTAL: usize = 4 << 20;

/// Most names of one run that get a series. What has more is no curve.
const MAX_SERIES: usize = 10_000;

/// Fewer points of a series show nothing.
const MIN_POINTS: usize = 32;

/// Longest text that is kept of what is no number, in letters; and of a run that was opened with its media, in bytes.
const MAX_TEXT: usize = 200;
const MAX_WHOLE_TEXT: usize = 64 << 10;

/// Who wrote the files of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// JSON Lines, by forebay.
    JsonLines,
    /// A database of SQLite, by forebay.
    #[cfg(feature = "sqlite")]
    Sqlite,
    /// Event files, by TensorBoard, PyTorch, tensorboardX or forebay.
    TensorBoard,
    /// No files: a [`Feed`], such as the stream of a server.
    Feed,
}

/// Most names of one run of which distributions and pictures are kept.
const MAX_MEDIA: usize = 200;

/// Largest picture that is kept, in bytes; and all of a run together.
const MAX_IMAGE: usize = 2 << 20;
const MAX_IMAGES: usize = 32 << 20;

/// What is known of the records of one name that are no numbers.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Other {
    /// The number of them.
    pub count: u64,
    /// The step of the last one.
    pub last_step: Option<i64>,
    /// The last one, as a short text.
    pub last: String,
    /// The last picture, of a run that was opened [`with_media`](Run::with_media).
    pub image: Option<Box<Image>>,
    /// The last text, of such a run, where `last` has its begin alone: up to 64 kB of it.
    pub text: Option<Box<str>>,
    distributions: Distributions,
    has_media: bool,
}

impl Other {
    /// Returns the distributions over the steps of the run, in their order, of one that was opened [`with_media`](Run::with_media): about
    /// evenly chosen where there are more than 128, the last one among them.
    pub fn distributions(&self) -> &[Distribution] {
        self.distributions.kept()
    }
}

/// A run, as its files tell it: its curves, its life, what is missing. It is read once, and then only what is new.
///
/// ```
/// use forebay::{Collector, Record, sink::JsonLinesSink};
/// use forebay_history::Run;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let collector =
///     Collector::builder().sink(JsonLinesSink::create(folder.path().join("events.jsonl"))?).start()?;
/// for step in 0..100 {
///     collector.collect(Record::scalar("loss", 1.0 / (step + 1) as f64).with_step(step));
/// }
/// collector.stop()?;
///
/// let mut run = Run::open(folder.path())?;
/// run.poll()?;
/// let loss = run.series("loss").unwrap();
/// assert_eq!((loss.count(), loss.min().unwrap().step), (100, 99));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Run {
    path: PathBuf,
    format: Format,
    /// `None` once it is closed.
    files: Option<Files>,
    is_torn: bool,
    has_two_writers: bool,
    lines: PlainLines,
    known: Known,
}

#[derive(Debug)]
enum Files {
    JsonLines(LineFollower),
    #[cfg(feature = "sqlite")]
    Sqlite {
        history: Box<SqliteHistory>,
        /// The last record that was read.
        last: Seen,
    },
    TensorBoard(EventFiles),
    Feed(Box<dyn Feed>),
}

impl Files {
    fn format(&self) -> Format {
        match self {
            Self::JsonLines(_) => Format::JsonLines,
            #[cfg(feature = "sqlite")]
            Self::Sqlite { .. } => Format::Sqlite,
            Self::TensorBoard(_) => Format::TensorBoard,
            Self::Feed(_) => Format::Feed,
        }
    }

    fn open(path: &Path) -> Result<Self, HistoryError> {
        match place_of(path)? {
            Place::JsonLines(path) => Ok(Self::JsonLines(LineFollower::new(path))),
            #[cfg(feature = "sqlite")]
            Place::Sqlite(path) => {
                Ok(Self::Sqlite { history: Box::new(SqliteHistory::open(path)?), last: Seen::default() })
            }
            Place::TensorBoard(folder) => Ok(Self::TensorBoard(EventFiles::new(folder, false))),
            Place::EventFile(file) => Ok(Self::TensorBoard(EventFiles::new(file, true))),
        }
    }
}

/// Opens what is at a path, to ask it for records: what [`Run::open`] takes.
///
/// # Errors
///
/// There is nothing, nothing that is known here, or it cannot be read.
pub fn open(path: impl AsRef<Path>) -> Result<Box<dyn History>, HistoryError> {
    let path = path.as_ref();
    match place_of(path)? {
        Place::JsonLines(path) => Ok(Box::new(JsonLinesHistory::open(path)?)),
        #[cfg(feature = "sqlite")]
        Place::Sqlite(path) => Ok(Box::new(SqliteHistory::open(path)?)),
        Place::TensorBoard(path) | Place::EventFile(path) => Ok(Box::new(EventFilesHistory(path))),
    }
}

/// History in the event files of a folder, or in one, read from the begin for each query.
#[derive(Debug)]
struct EventFilesHistory(PathBuf);

impl History for EventFilesHistory {
    fn query(&self, query: &EventQuery) -> Result<Vec<Record>, HistoryError> {
        self.iter(query)?.collect()
    }

    /// In memory are the records of 1 MB of a file, and one more.
    fn iter<'a>(&'a self, query: &EventQuery) -> Result<Records<'a>, HistoryError> {
        // They tell of no runs, so a record is all that a condition asks.
        if query.wanted.run_id.is_some() || query.wanted.generation.is_some() {
            return Ok(Box::new(std::iter::empty()));
        }
        let mut follower = RecordFollower::open(&self.0)?;
        let mut left = query.limit.unwrap_or(usize::MAX);
        if query.is_newest_first {
            let last = follower.last(left, &mut |record| query.matches(record))?;
            if let Some(error) = follower.unreadable() {
                return Err(error);
            }
            return Ok(Box::new(last.into_iter().rev().map(Ok)));
        }
        let (query, mut found, mut is_over) = (query.clone(), VecDeque::new(), false);
        Ok(Box::new(std::iter::from_fn(move || {
            while found.is_empty() && left > 0 && !is_over {
                let look = follower.look(MAX_ITER_BYTES, &mut |record| {
                    if found.len() < left && query.matches(&record) {
                        found.push_back(record);
                    }
                });
                match look {
                    Ok(is_done) => is_over = is_done,
                    Err(error) => {
                        is_over = true;
                        return Some(Err(error));
                    }
                }
            }
            left = left.checked_sub(1)?;
            // Behind all that could be read.
            found.pop_front().map(Ok).or_else(|| {
                left = 0;
                follower.unreadable().map(Err)
            })
        })))
    }
}

/// Where the records of a run are.
enum Place {
    JsonLines(PathBuf),
    #[cfg(feature = "sqlite")]
    Sqlite(PathBuf),
    TensorBoard(PathBuf),
    EventFile(PathBuf),
}

/// Finds out what a path is: the folder of a run, a file of JSON Lines, or a database.
fn place_of(path: &Path) -> Result<Place, HistoryError> {
    let failed = |error: io::Error| HistoryError::new(path.display().to_string(), error);
    if !std::fs::metadata(path).map_err(failed)?.is_dir() {
        #[cfg(feature = "sqlite")]
        if is_database(path).map_err(failed)? {
            return Ok(Place::Sqlite(path.to_owned()));
        }
        if path.extension().is_some_and(|end| end == "gz") {
            let why = "of compressed files, those that end in .zst are read: unpack it first";
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, why)));
        }
        if path.file_name().is_some_and(EventFiles::is_one) {
            return Ok(Place::EventFile(path.to_owned()));
        }
        return Ok(Place::JsonLines(path.to_owned()));
    }
    match format_of(path).map_err(failed)? {
        Some(Format::JsonLines) => Ok(Place::JsonLines(path.join(EVENTS))),
        #[cfg(feature = "sqlite")]
        Some(Format::Sqlite) => Ok(Place::Sqlite(path.join(DATABASE))),
        Some(Format::TensorBoard) => Ok(Place::TensorBoard(path.to_owned())),
        // No folder is a feed.
        None | Some(Format::Feed) => {
            let why = format!("it has neither {EVENTS} nor {DATABASE}, and no event files of TensorBoard");
            Err(failed(io::Error::new(io::ErrorKind::NotFound, why)))
        }
    }
}

/// Returns whether a file begins as a database does: <https://sqlite.org/fileformat.html#magic_header_string>.
#[cfg(feature = "sqlite")]
fn is_database(path: &Path) -> io::Result<bool> {
    use std::io::Read;
    let mut begin = Vec::new();
    forebay_sync::unix::open_read(path)?.take(16).read_to_end(&mut begin)?;
    Ok(begin == *b"SQLite format 3\0")
}

/// The records of a run in the order in which they were written, as it grows. Of event files, numbers, texts, histograms and pictures;
/// all else is a record without a value.
#[derive(Debug)]
pub struct RecordFollower {
    path: PathBuf,
    files: Files,
    /// Lines that are no records.
    no_records: u64,
}

impl RecordFollower {
    /// Follows what [`Run::open`] takes, from its begin.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, HistoryError> {
        let path = path.as_ref();
        let files = Files::open(path)?;
        Ok(Self { path: path.to_owned(), files, no_records: 0 })
    }

    /// Follows a feed, which errors name so.
    pub fn of(name: impl Into<PathBuf>, feed: impl Feed + 'static) -> Self {
        Self { path: name.into(), files: Files::Feed(Box::new(feed)), no_records: 0 }
    }

    /// Returns the last `count` records of those that `is_asked` wants, oldest first, and goes on behind the last one there is. JSON Lines
    /// and databases are read from the end, as far as it takes. To be called before the first [`poll`](Self::poll).
    ///
    /// # Errors
    ///
    /// A file cannot be read.
    pub fn last(
        &mut self,
        count: usize,
        is_asked: &mut dyn FnMut(&Record) -> bool,
    ) -> Result<Vec<Record>, HistoryError> {
        let failed = |error: io::Error| HistoryError::new(self.path.display().to_string(), error);
        match &mut self.files {
            Files::JsonLines(follower) => {
                let read = |line: &[u8]| serde_json::from_slice(line).ok().filter(&mut *is_asked);
                follower.last(count, read).map(Vec::from).map_err(failed)
            }
            #[cfg(feature = "sqlite")]
            Files::Sqlite { history, last } => {
                let all = EventQuery::new().newest_first();
                let (mut found, mut behind) = (VecDeque::new(), None);
                loop {
                    let page = history.page(&all, behind, MAX_ROWS)?;
                    if let (None, Some((number, record))) = (behind, page.first()) {
                        *last = Seen::of(*number, record);
                    }
                    let is_over = page.len() < MAX_ROWS;
                    behind = page.last().map(|(number, _)| *number);
                    for (_, record) in page {
                        if found.len() < count && is_asked(&record) {
                            found.push_front(record);
                        }
                    }
                    if is_over || found.len() >= count {
                        return Ok(found.into());
                    }
                }
            }
            Files::TensorBoard(_) | Files::Feed(_) => {
                let mut found = VecDeque::new();
                self.poll(&mut |record| {
                    if is_asked(&record) {
                        found.push_back(record);
                        if found.len() > count {
                            found.pop_front();
                        }
                    }
                })?;
                Ok(found.into())
            }
        }
    }

    /// Returns how many lines, or places in files, were no events so far, and how many of its files could not be read at the last look. JSON Lines
    /// that [`last`](Self::last) has passed over are not counted.
    pub fn not_read(&self) -> u64 {
        match &self.files {
            Files::JsonLines(follower) => self.no_records + follower.skipped(),
            #[cfg(feature = "sqlite")]
            Files::Sqlite { .. } => 0,
            Files::TensorBoard(files) => files.damaged(),
            Files::Feed(feed) => feed.not_read(),
        }
    }

    /// Returns why one of its event files could not be read at the last look, if one could not. The others were read, and it may be read
    /// later: for who looks once, it is an error.
    pub fn unreadable(&self) -> Option<HistoryError> {
        let Files::TensorBoard(files) = &self.files else { return None };
        let (path, error) = files.unreadable()?;
        Some(HistoryError::new(path.display().to_string(), io::Error::new(error.kind(), error.to_string())))
    }

    /// Gives all records that are new to `take`. A file that was replaced is read from its begin. Of several event files, one that cannot be
    /// read is passed over: [`unreadable`](Self::unreadable).
    ///
    /// # Errors
    ///
    /// A file cannot be read. It can be tried again.
    pub fn poll(&mut self, take: &mut dyn FnMut(Record)) -> Result<(), HistoryError> {
        while !self.look(MAX_BYTES, take)? {}
        Ok(())
    }

    /// Gives a part of what is new to `take`, about so many bytes of files, and says whether that was all: for who reads several histories side by
    /// side. Of a database, it is 10,000 records at most.
    ///
    /// # Errors
    ///
    /// As for [`poll`](Self::poll).
    pub fn look(&mut self, max_bytes: usize, take: &mut dyn FnMut(Record)) -> Result<bool, HistoryError> {
        let Self { path, files, no_records } = self;
        let failed = |error: io::Error| HistoryError::new(path.display().to_string(), error);
        match files {
            Files::JsonLines(follower) => {
                let look = follower.look(max_bytes, |line| {
                    match serde_json::from_slice::<Record>(line) {
                        Ok(record) => take(record),
                        // The sink closes a torn line that it finds: what follows may be empty.
                        Err(_) => *no_records += u64::from(!line.is_empty()),
                    }
                });
                let look = look.map_err(failed)?;
                if look == Look::Replaced {
                    *no_records = 0;
                }
                Ok(look == Look::UpToDate)
            }
            #[cfg(feature = "sqlite")]
            Files::Sqlite { history, last } => {
                let Some(records) = history.after(*last, MAX_ROWS)? else {
                    *last = Seen::default();
                    return Ok(false);
                };
                let is_done = records.len() < MAX_ROWS;
                for (number, record) in records {
                    *last = Seen::of(number, &record);
                    take(record);
                }
                Ok(is_done)
            }
            Files::TensorBoard(files) => {
                let events = files.look(max_bytes as u64, |shown| match shown {
                    event_files::Shown::Settings(_) => {}
                    event_files::Shown::Point(tag, point) | event_files::Shown::Metric(tag, point) => {
                        let value = Value::Scalar(point.value);
                        take(event_files::record(tag, value, point.step, point.unix_nanos));
                    }
                    event_files::Shown::Record(record) => take(record),
                });
                Ok(events.map_err(failed)?.1 == Look::UpToDate)
            }
            Files::Feed(feed) => feed::look(feed, MAX_ROWS, take),
        }
    }
}

/// What was read so far.
#[derive(Debug, Default)]
struct Known {
    points: Vec<Series>,
    /// Whether points of a series have steps of their own.
    has_steps: Vec<bool>,
    limits: Limits,
    /// The points that all series keep, together.
    kept: usize,
    /// The names of `points`, for the guess which one comes next.
    names: Vec<Arc<str>>,
    places: HashMap<Arc<str>, usize>,
    /// The series that came after each: loops report their numbers in the same order.
    next: Vec<usize>,
    last: usize,
    /// Whether there were names that got no series.
    has_more: bool,
    others: BTreeMap<String, Other>,
    /// Names of which distributions or pictures are kept, and the bytes of pictures and of long texts.
    media: usize,
    media_bytes: usize,
    lives: Lives,
    settings: Fields,
    events: u64,
    missing: u64,
    /// Lines that are no records.
    no_records: u64,
    not_read: u64,
    last_nanos: u64,
    /// What the generations before the last one took, and the begin of that, in nanoseconds since 1970.
    took_before: Duration,
    began_nanos: Option<u64>,
}

/// How much is kept.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Points of one series; `None` for its own default.
    points: Option<usize>,
    /// Points of all series together.
    total: usize,
    /// Whether distributions and pictures are kept.
    has_media: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { points: None, total: MAX_TOTAL, has_media: false }
    }
}

impl Known {
    fn restart(&mut self) {
        *self = Self { limits: self.limits, ..Self::default() };
    }

    /// Halves the points of the series that have most, until all together are few enough.
    #[cold]
    fn shrink(&mut self) {
        let mut most = self.points.iter().map(Series::kept).max().unwrap_or(0);
        while self.kept > self.limits.total {
            most = (most / 2).max(MIN_POINTS);
            self.limit(most);
            // With so few, names are all that is left to limit, and there are 10,000 at most.
            if most == MIN_POINTS {
                self.limits.total = usize::MAX;
            }
        }
    }

    fn limit(&mut self, max_points: usize) {
        self.limits.points = Some(max_points);
        self.points.iter_mut().for_each(|series| series.limit(max_points));
        self.kept = self.points.iter().map(Series::kept).sum();
    }

    fn number(&mut self, name: &str, value: f64, step: Option<i64>, unix_nanos: u64) {
        self.last_nanos = unix_nanos;
        self.lives.at_step(step);
        let Some(place) = self.place(name) else { return };
        let (series, has_steps) = (&mut self.points[place], &mut self.has_steps[place]);
        *has_steps |= step.is_some();
        // Without a step, it belongs to the last one; where none has a step, they are counted.
        let or = match series.last() {
            Some(last) if *has_steps => last.step,
            _ => i64::try_from(series.count()).unwrap_or(i64::MAX),
        };
        let before = series.kept();
        series.push(Point { step: step.unwrap_or(or), unix_nanos, value });
        self.kept = self.kept - before + series.kept();
        if self.kept > self.limits.total {
            self.shrink();
        }
    }

    fn took(&self) -> Option<Duration> {
        let last = self.last_nanos.saturating_sub(self.began_nanos?);
        Some(self.took_before + Duration::from_nanos(last))
    }

    fn place(&mut self, name: &str) -> Option<usize> {
        let guess = self.next.get(self.last).copied().unwrap_or_default();
        let place = match self.names.get(guess) {
            Some(known) if **known == *name => guess,
            _ => match self.places.get(name) {
                Some(place) => *place,
                None if self.names.len() >= MAX_SERIES => {
                    self.has_more = true;
                    return None;
                }
                None => {
                    let place = self.names.len();
                    let name: Arc<str> = name.into();
                    self.names.push(Arc::clone(&name));
                    self.places.insert(name, place);
                    self.points
                        .push(self.limits.points.map_or_else(Series::default, Series::with_max_points));
                    self.has_steps.push(false);
                    self.next.push(0);
                    place
                }
            },
        };
        self.next[self.last] = place;
        self.last = place;
        Some(place)
    }

    /// Adds a record of any kind.
    fn record(&mut self, record: &Record) {
        let name = Event::name(record);
        if name == training::Started::NAME {
            self.took_before = self.took().unwrap_or_default();
            self.began_nanos = Some(record.unix_nanos());
        }
        self.last_nanos = record.unix_nanos();
        if name == "forebay.gap" {
            // Whatever form another program gave it: at least one is missing.
            let missing = record.value().as_i64().and_then(|missing| u64::try_from(missing).ok());
            let missing = missing.or_else(|| record.value().as_f64().map(|missing| missing as u64));
            let missing = missing.unwrap_or(1);
            self.missing = self.missing.saturating_add(missing);
            self.lives.trouble(TroubleKind::Gap(missing), record.time());
        }
        if name == training::Started::NAME {
            self.settings = settings(record.value().as_fields());
        }
        self.lives.see(record);
        values(record, &mut |name, value, step| match number_of(value) {
            Some(number) => self.number(name, number, step, record.unix_nanos()),
            None => self.other(name, value, step),
        });
    }

    fn other(&mut self, name: &str, value: &Value, step: Option<i64>) {
        if self.others.len() >= MAX_SERIES && !self.others.contains_key(name) {
            self.has_more = true;
            return;
        }
        let other = self.others.entry(name.to_owned()).or_default();
        other.count += 1;
        other.last_step = step.or(other.last_step);
        other.last = match value {
            Value::Empty => String::new(),
            value => value.to_string().chars().take(MAX_TEXT).collect(),
        };
        if !self.limits.has_media {
            return;
        }
        let text = value.as_str().filter(|text| text.chars().nth(MAX_TEXT).is_some());
        let text = text.map(|text| {
            let end = (0..=text.len().min(MAX_WHOLE_TEXT)).rfind(|end| text.is_char_boundary(*end));
            &text[..end.unwrap_or(0)]
        });
        self.media_bytes -= other.text.take().map_or(0, |text| text.len());
        if let Some(text) = text
            && self.media_bytes + text.len() <= MAX_IMAGES
        {
            self.media_bytes += text.len();
            other.text = Some(text.into());
        }
        if !matches!(value, Value::Image(_) | Value::Histogram(_)) {
            return;
        }
        if !other.has_media {
            if self.media >= MAX_MEDIA {
                return;
            }
            (self.media, other.has_media) = (self.media + 1, true);
        }
        match value {
            Value::Histogram(histogram) => other.distributions.push(step, histogram),
            Value::Image(image) => {
                self.media_bytes -= other.image.take().map_or(0, |image| image.bytes.len());
                let size = image.bytes.len();
                if size <= MAX_IMAGE && self.media_bytes + size <= MAX_IMAGES {
                    self.media_bytes += size;
                    other.image = Some(image.clone());
                }
            }
            _ => {}
        }
    }
}

impl Run {
    /// Finds out what a path is: the folder of a run, or a file of JSON Lines. Nothing of it is read before [`poll`](Self::poll).
    ///
    /// # Errors
    ///
    /// There is nothing, or nothing that is known here.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, HistoryError> {
        let path = path.as_ref();
        let files = Files::open(path)?;
        let format = files.format();
        let (files, known) = (Some(files), Known::default());
        let (path, lines) = (path.to_owned(), PlainLines::default());
        Ok(Self { path, format, files, is_torn: false, has_two_writers: false, lines, known })
    }

    /// Makes a run of a feed, with this name for a path. Nothing of it is read before [`poll`](Self::poll).
    pub fn of(name: impl Into<PathBuf>, feed: impl Feed + 'static) -> Self {
        let (path, files) = (name.into(), Files::Feed(Box::new(feed)));
        let (format, files, known) = (files.format(), Some(files), Known::default());
        let lines = PlainLines::default();
        Self { path, format, files, is_torn: false, has_two_writers: false, lines, known }
    }

    /// Keeps so many points of each series, 32 at least, and not 16,384. With 0 none, for who asks for the last and the best values alone. To
    /// be called before the first [`poll`](Self::poll).
    pub fn with_max_points(mut self, max_points: usize) -> Self {
        self.known.limits.points = Some(max_points);
        self
    }

    /// Keeps so many points of all series together; of more, each series keeps fewer, 32 at least. Defaults to 4,194,304, which are 100 MB. To
    /// be called before the first [`poll`](Self::poll).
    pub fn with_max_total(mut self, max_points: usize) -> Self {
        self.known.limits.total = max_points;
        self
    }

    /// Keeps so many points of each series from now on, 32 at least: fewer than before.
    pub fn limit(&mut self, max_points: usize) {
        self.known.limit(max_points);
    }

    /// Returns how many points it keeps, of all series together. A point has 24 bytes.
    pub fn kept(&self) -> usize {
        self.known.kept
    }

    /// Keeps the last picture of each name, up to 2 MB, and its last text, up to 64 kB (32 MB in all), and its histograms. Pictures and
    /// histograms are kept of 200 names at most. To be called before the first [`poll`](Self::poll).
    pub fn with_media(mut self) -> Self {
        self.known.limits.has_media = true;
        self
    }

    /// Reads what is new, 256 MB of it at most, and says whether there is more by now. A file that was replaced is read from its begin,
    /// and nothing is left of the one before.
    ///
    /// # Errors
    ///
    /// A file cannot be read. It can be tried again.
    pub fn poll(&mut self) -> Result<bool, HistoryError> {
        let Self { path, files, lines, known, .. } = self;
        let failed = |error: io::Error| HistoryError::new(path.display().to_string(), error);
        let Some(files) = files else { return Ok(false) };
        match files {
            Files::JsonLines(follower) => {
                let look = follower.look(MAX_BYTES, |line| {
                    if let Some(plain) = lines.read(line) {
                        known.events += 1;
                        known.number(plain.name, plain.value, plain.step, plain.unix_nanos);
                    } else if line.is_empty() {
                        // The sink closes a torn line that it finds: what follows may be empty.
                    } else if let Ok(record) = serde_json::from_slice::<Record>(line) {
                        known.events += 1;
                        known.record(&record);
                    } else {
                        known.no_records += 1;
                    }
                });
                let look = look.map_err(failed)?;
                if look == Look::Replaced {
                    known.restart();
                }
                known.not_read = known.no_records + follower.skipped();
                Ok(look != Look::UpToDate)
            }
            #[cfg(feature = "sqlite")]
            Files::Sqlite { history, last } => {
                let Some(records) = history.after(*last, MAX_ROWS)? else {
                    *last = Seen::default();
                    known.restart();
                    return Ok(true);
                };
                for (number, record) in &records {
                    *last = Seen::of(*number, record);
                    known.events += 1;
                    known.record(record);
                }
                Ok(records.len() >= MAX_ROWS)
            }
            Files::TensorBoard(files) => {
                let events = files.look(MAX_BYTES as u64, |shown| {
                    let before = known.last_nanos;
                    match shown {
                        event_files::Shown::Point(tag, point) => {
                            known.number(tag, point.value, Some(point.step), point.unix_nanos);
                        }
                        event_files::Shown::Metric(tag, _) if known.places.contains_key(tag) => {}
                        event_files::Shown::Metric(tag, point) => {
                            known.number(tag, point.value, Some(point.step), point.unix_nanos);
                        }
                        event_files::Shown::Settings(settings) => known.settings = settings,
                        event_files::Shown::Record(record) => known.record(&record),
                    }
                    // Several files are read one behind the other.
                    known.last_nanos = known.last_nanos.max(before);
                });
                let (events, look) = events.map_err(failed)?;
                if look == Look::Replaced {
                    known.restart();
                }
                known.events += events;
                known.not_read = files.damaged();
                Ok(look != Look::UpToDate)
            }
            Files::Feed(feed) => {
                let is_done = feed::look(feed, MAX_ROWS, &mut |record| {
                    known.events += 1;
                    known.record(&record);
                });
                known.not_read = feed.not_read();
                Ok(!is_done?)
            }
        }
    }

    /// Closes its files until the next [`poll`](Self::poll): for who follows more runs than a process may have files open.
    pub fn release(&mut self) {
        match &mut self.files {
            // A file that cannot be asked what it is stays open.
            Some(Files::JsonLines(follower)) => _ = follower.release(),
            #[cfg(feature = "sqlite")]
            Some(Files::Sqlite { history, .. }) => history.release(),
            Some(Files::TensorBoard(_) | Files::Feed(_)) | None => {}
        }
    }

    /// Lets go of its files for good: what was read stays.
    pub fn close(&mut self) {
        self.is_torn = self.is_torn();
        self.has_two_writers = self.has_two_writers();
        self.files = None;
    }

    /// Returns the path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns who wrote its files.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Returns the names of all series, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let mut names: Vec<&str> = self.known.names.iter().map(|name| &**name).collect();
        names.sort_unstable();
        names.into_iter()
    }

    /// Returns a series.
    pub fn series(&self, name: &str) -> Option<&Series> {
        self.known.places.get(name).and_then(|place| self.known.points.get(*place))
    }

    /// Returns whether it has names of which nothing is kept: beyond 10,000.
    pub fn has_more(&self) -> bool {
        self.known.has_more
    }

    /// Returns what is no number, by name.
    pub fn others(&self) -> &BTreeMap<String, Other> {
        &self.known.others
    }

    /// Returns the settings that it began with.
    pub fn settings(&self) -> &Fields {
        &self.known.settings
    }

    /// Returns its generations, the last one last: none where no event names one, as in the files of other programs.
    pub fn lives(&self) -> &[RunInfo] {
        self.known.lives.runs()
    }

    /// Returns what went wrong in it, and where: the first thousand such places.
    pub fn troubles(&self) -> &[Trouble] {
        self.known.lives.troubles()
    }

    /// Returns whether several of its event files were written at the same time: two writers share the folder.
    pub fn has_two_writers(&self) -> bool {
        match &self.files {
            Some(Files::TensorBoard(files)) => files.overlap(),
            _ => self.has_two_writers,
        }
    }

    /// Returns its status, if its files tell of its life. (`add_hparams` of PyTorch says "success" whenever it is called.)
    pub fn status(&self, now: SystemTime) -> Option<RunStatus> {
        let mut life = self.lives().last()?.clone();
        // All its events show that it lives, not heartbeats alone.
        if let Some(last) = self.last_event()
            && let Ok(later) = last.duration_since(life.last_seen)
            && life.heartbeat.is_none_or(|heartbeat| later <= heartbeat.saturating_mul(3))
        {
            life.last_seen = last;
        }
        Some(life.status(now))
    }

    /// Returns how long its processes took, from the begin of each to its last event, if its files tell of them: the pause before it was resumed
    /// is none of it.
    pub fn took(&self) -> Option<Duration> {
        self.known.took()
    }

    /// Returns the number of events that were read.
    pub fn events(&self) -> u64 {
        self.known.events
    }

    /// Returns how many events are missing by its own account.
    pub fn missing(&self) -> u64 {
        self.known.missing
    }

    /// Returns how many lines, or places in files, were none.
    pub fn not_read(&self) -> u64 {
        self.known.not_read
    }

    /// Returns whether a file ends within an event: it is being written, or its writer was killed.
    pub fn is_torn(&self) -> bool {
        match &self.files {
            Some(Files::JsonLines(follower)) => follower.is_torn(),
            Some(Files::TensorBoard(files)) => files.is_torn(),
            #[cfg(feature = "sqlite")]
            Some(Files::Sqlite { .. }) => false,
            Some(Files::Feed(_)) => false,
            None => self.is_torn,
        }
    }

    /// Returns the moment of the event that came last.
    pub fn last_event(&self) -> Option<SystemTime> {
        (self.known.last_nanos > 0).then(|| UNIX_EPOCH + Duration::from_nanos(self.known.last_nanos))
    }
}

/// Returns who wrote the files of a folder, if it is that of a run.
fn format_of(folder: &Path) -> io::Result<Option<Format>> {
    let (mut lines, mut database, mut has_event_file) = (None, None, false);
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        // One of no size says nothing of the run yet.
        let has_size = || std::fs::metadata(entry.path()).is_ok_and(|data| data.len() > 0);
        if name == EVENTS {
            lines = Some(lines == Some(true) || has_size());
        } else if name
            .to_str()
            .and_then(|name| name.strip_prefix(CLOSED))
            .is_some_and(|rest| rest.starts_with(|letter: char| letter.is_ascii_digit()))
        {
            // Between two files of a rotation, or where the last one was taken away, there is no other.
            lines = Some(true);
        } else if name == DATABASE {
            database = Some(has_size());
        }
        has_event_file |= EventFiles::is_one(&name);
    }
    let format = |place: usize| match place {
        0 => Some(Format::JsonLines),
        #[cfg(feature = "sqlite")]
        1 => Some(Format::Sqlite),
        2 => Some(Format::TensorBoard),
        _ => None,
    };
    let has =
        [lines == Some(true), database == Some(true), has_event_file, lines.is_some(), database.is_some()];
    Ok(has.iter().position(|has| *has).and_then(|place| format(place % 3)))
}

/// Most folders that are searched for runs. A search that reaches the limit says so.
const MAX_FOLDERS: usize = 100_000;

/// Returns the folders of all runs at a path, sorted: the path itself, or what lies below it. What lies below the folder of a run of
/// forebay belongs to that run.
///
/// # Errors
///
/// The path is no folder that can be listed, or has more than 100,000 folders below it. Folders below it that cannot be listed are left
/// out.
pub fn find_runs(path: impl AsRef<Path>) -> Result<Vec<PathBuf>, HistoryError> {
    let path = path.as_ref();
    let failed = |error: io::Error| HistoryError::new(path.display().to_string(), error);
    if !std::fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let first = format_of(path).map_err(failed)?;
    let (mut runs, mut folders) = (Vec::new(), vec![(path.to_owned(), first)]);
    let (root, mut links) = (std::fs::canonicalize(path).map_err(failed)?, HashSet::new());
    // A link may lead back, or to what is found without it.
    let mut is_new = |link: &Path| {
        std::fs::canonicalize(link).is_ok_and(|target| {
            target.is_dir()
                && !target.starts_with(&root)
                && !root.starts_with(&target)
                && links.insert(target)
        })
    };
    let mut seen = 0;
    while let Some((folder, format)) = folders.pop() {
        if format.is_some() {
            runs.push(folder.clone());
        }
        if !matches!(format, None | Some(Format::TensorBoard)) {
            continue;
        }
        let entries: Vec<_> = std::fs::read_dir(&folder).into_iter().flatten().flatten().collect();
        let is_session = |entry: &&std::fs::DirEntry| event_files::is_session(&entry.file_name());
        let has_one_session =
            format == Some(Format::TensorBoard) && entries.iter().filter(is_session).count() == 1;
        for entry in entries {
            let kind = entry.file_type();
            if kind.is_ok_and(|kind| kind.is_dir() || kind.is_symlink() && is_new(&entry.path())) {
                seen += 1;
                if seen > MAX_FOLDERS {
                    let why =
                        format!("there are more than {MAX_FOLDERS} folders below it: ask for one of them");
                    return Err(failed(io::Error::other(why)));
                }
                let below = entry.path();
                if let Ok(format) = format_of(&below) {
                    // A session belongs to this run. What lies below it is looked for all the same.
                    let is_part =
                        has_one_session && is_session(&&entry) && format == Some(Format::TensorBoard);
                    folders.push((below, format.filter(|_| !is_part)));
                }
            }
        }
    }
    runs.sort();
    Ok(runs)
}
