//! TensorBoard's event files, without a collector: what a record looks like, byte for byte.
//!
//! [`TensorBoardSink`](crate::sink::TensorBoardSink) writes them; this module is for programs that want to do so by
//! themselves. It was written by the sources of TensorBoard 2.21 and is read back by both of its loaders in
//! `tests/interop`.
//!
//! A file is a run of records, each framed by its length and two checksums
//! ([`masked_crc32c`]); a record holds an `Event`, a protocol buffer. The first says which version the file has, the
//! second that a session starts.
//!
//! ```
//! use forebay::tfevents::{Encoder, Summary};
//!
//! let mut encoder = Encoder::new();
//! encoder.begin_file(1_700_000_000.0, 0);
//! encoder.add(1_700_000_000.5, 1, "train/loss", Summary::Scalar(0.25))?;
//! encoder.add(1_700_000_000.5, 1, "train/accuracy", Summary::Scalar(0.5))?;
//! let bytes = encoder.take();
//! // One write; a reader never sees half a record for long.
//! # assert!(bytes.len() > 100);
//! # Ok::<(), forebay::tfevents::Refused>(())
//! ```

mod wire;

pub use wire::masked_crc32c;

use std::collections::{HashMap, HashSet};

use crate::buffer::empty;
use crate::event::{Fields, Histogram, Value};
use wire::{Wire, push_record, varint_size};

/// How many values one `Event` carries at most. At ten, a scalar takes 22 bytes instead of 49; far more than that and
/// readers have to take in a large event at once.
const MOST_VALUES: usize = 64;

/// And in bytes, before the last value: a reader takes an event into memory as a whole.
const MOST_BYTES: usize = 1 << 20;

/// What a tag has at a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Summary<'a> {
    /// A number. TensorBoard's scalars are 32 bits wide; NaN and infinities are shown as such.
    Scalar(f32),
    /// Text, shown as Markdown.
    Text(&'a str),
    /// A distribution.
    Histogram(&'a Histogram),
    /// A picture, as the bytes of a PNG file.
    Image {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The file.
        png: &'a [u8],
    },
    /// The settings of a run. Belongs under [`SESSION_START`].
    ///
    /// The table of hyper-parameters knows numbers, texts and booleans. Nested settings appear under their path
    /// (`optimizer/lr`), lists and all else as text (`[64, 32]`). Settings without a value stay blank. Of two settings of
    /// one path, the later is left out; so is what would bring the paths beyond 1 MiB.
    SessionStart {
        /// The name under which sessions of the same settings are shown in one row; empty for a row of its own.
        group: &'a str,
        /// The settings.
        settings: &'a Fields,
        /// Seconds since 1970.
        began_at: f64,
    },
    /// How a run ended. Belongs under [`SESSION_END`].
    SessionEnd {
        /// How.
        status: SessionStatus,
        /// Seconds since 1970.
        ended_at: f64,
    },
}

/// How a run ended, in the table of hyper-parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionStatus {
    /// Well.
    Success = 1,
    /// Badly.
    Failure = 2,
}

/// The tag of [`Summary::SessionStart`].
pub const SESSION_START: &str = "_hparams_/session_start_info";

/// The tag of [`Summary::SessionEnd`].
pub const SESSION_END: &str = "_hparams_/session_end_info";

/// What kind of thing a tag has. It never changes: TensorBoard cannot show a tag that has two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Scalar,
    Text,
    Histogram,
    Image,
    Settings,
}

impl Summary<'_> {
    fn kind(&self) -> Kind {
        match self {
            Summary::Scalar(_) => Kind::Scalar,
            Summary::Text(_) => Kind::Text,
            Summary::Histogram(_) => Kind::Histogram,
            Summary::Image { .. } => Kind::Image,
            Summary::SessionStart { .. } | Summary::SessionEnd { .. } => Kind::Settings,
        }
    }
}

/// Why a value was not encoded.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The tag has had a value of another kind, and TensorBoard cannot show both.
    #[error("tag {tag:?} has had values of another kind")]
    OtherKind {
        /// The tag.
        tag: String,
    },
    /// The step lies before the last one of the tag: TensorBoard would delete all points from there on.
    #[error("step {step} of tag {tag:?} lies before its last one, {last}")]
    Backward {
        /// The tag.
        tag: String,
        /// The step.
        step: i64,
        /// The last step of the tag.
        last: i64,
    },
    /// The moment is not finite: one such record and TensorBoard reads no further.
    #[error("the moment {wall_time} of tag {tag:?} is not finite")]
    NotFinite {
        /// The tag.
        tag: String,
        /// The moment.
        wall_time: f64,
    },
    /// There are as many tags as are allowed.
    #[error("tag {tag:?} would be one more than the {most} that are allowed")]
    TooManyTags {
        /// The tag.
        tag: String,
        /// How many are allowed.
        most: usize,
    },
    /// The names of all tags would take more bytes than are allowed.
    #[error("tag {tag:?} would bring the names of all tags beyond {max} bytes")]
    TooManyTagBytes {
        /// The tag.
        tag: String,
        /// How many bytes are allowed.
        max: usize,
    },
}

#[derive(Debug)]
struct Tag {
    kind: Kind,
    /// Below which no step may come.
    last_step: Option<i64>,
    /// Of all that there ever were: what comes without a step goes on behind it.
    largest_step: i64,
    /// The file in which its metadata was written last.
    described_in: u64,
}

/// Encodes the files of one run, one after the other. Keeps what it has to know of every tag, about 100 bytes each.
#[derive(Debug)]
pub struct Encoder {
    /// Whole records.
    out: Vec<u8>,
    tags: HashMap<Box<str>, Tag>,
    most_tags: usize,
    /// How many bytes the names of the tags take, and how many they may.
    tag_bytes: usize,
    max_tag_bytes: usize,
    /// Counts the files, from 1.
    file: u64,
    /// The values of the event that is being put together, all of one step.
    values: Vec<u8>,
    open: Option<Open>,
    /// Where tags that come without steps begin.
    first_step: i64,
}

#[derive(Debug)]
struct Open {
    wall_time: f64,
    step: i64,
    values: usize,
}

impl Encoder {
    /// Allows 100,000 tags, and 16 MiB for their names.
    pub fn new() -> Self {
        let tags = HashMap::new();
        Self {
            out: Vec::new(),
            tags,
            most_tags: 100_000,
            tag_bytes: 0,
            max_tag_bytes: 16 << 20,
            file: 0,
            values: Vec::new(),
            open: None,
            first_step: 0,
        }
    }

    /// Changes how many tags are allowed.
    pub fn with_most_tags(mut self, most: usize) -> Self {
        self.most_tags = most;
        self
    }

    /// Changes how many bytes the names of all tags may take.
    pub fn with_max_tag_bytes(mut self, bytes: usize) -> Self {
        self.max_tag_bytes = bytes;
        self
    }

    /// Begins a file: its version, and that a session starts at `first_step`. What was not taken yet is dropped.
    ///
    /// One of TensorBoard's loaders forgets all points of the run from that step on; the other does so tag by tag,
    /// when it meets a point.
    pub fn begin_file(&mut self, wall_time: f64, first_step: i64) {
        self.clear();
        self.file += 1;
        push_record(&mut self.out, |event| {
            event.fixed64(1, wall_time);
            event.bytes(3, b"brain.Event:2");
            event.message(10, |source| {
                source.bytes(1, concat!("forebay ", env!("CARGO_PKG_VERSION")).as_bytes())
            });
        });
        push_record(&mut self.out, |event| {
            event.fixed64(1, wall_time);
            push_step(event, first_step);
            event.message(7, |log| log.varint(1, 1));
        });
    }

    /// Lets tags that come without steps begin at `step`, for a run that is resumed there. From 0 by default.
    pub fn count_from(&mut self, step: i64) {
        self.first_step = step;
    }

    /// Forgets the last step of every tag: what comes now may go over steps again. The kinds stay, and what comes
    /// without a step still goes on behind all that came before.
    pub fn forget_steps(&mut self) {
        self.tags.values_mut().for_each(|tag| tag.last_step = None);
    }

    /// The largest step of any tag.
    pub fn last_step(&self) -> Option<i64> {
        self.tags.values().map(|tag| tag.largest_step).max()
    }

    /// The step after the last one of `tag`: for what comes without a step.
    pub fn next_step(&self, tag: &str) -> i64 {
        self.tags.get(tag).map_or(self.first_step, |tag| tag.largest_step.saturating_add(1))
    }

    /// Adds what `tag` has at `step`. `wall_time` is in seconds since 1970. Values of one step that follow one another
    /// share an event, and the moment of the first.
    ///
    /// # Errors
    ///
    /// The value is not encoded, and nothing else changes.
    pub fn add(&mut self, wall_time: f64, step: i64, tag: &str, summary: Summary<'_>) -> Result<(), Refused> {
        if !wall_time.is_finite() {
            return Err(Refused::NotFinite { tag: tag.to_owned(), wall_time });
        }
        let kind = summary.kind();
        let has_room = self.tags.len() < self.most_tags;
        let is_new = match self.tags.get_mut(tag) {
            Some(known) if known.kind != kind => return Err(Refused::OtherKind { tag: tag.to_owned() }),
            Some(known) => {
                if let Some(last) = known.last_step.filter(|last| step < *last) {
                    return Err(Refused::Backward { tag: tag.to_owned(), step, last });
                }
                known.last_step = Some(step);
                known.largest_step = known.largest_step.max(step);
                std::mem::replace(&mut known.described_in, self.file) != self.file
            }
            None if !has_room => {
                return Err(Refused::TooManyTags { tag: tag.to_owned(), most: self.most_tags });
            }
            None if tag.len() > self.max_tag_bytes.saturating_sub(self.tag_bytes) => {
                return Err(Refused::TooManyTagBytes { tag: tag.to_owned(), max: self.max_tag_bytes });
            }
            None => {
                self.tag_bytes += tag.len();
                let known = Tag { kind, last_step: Some(step), largest_step: step, described_in: self.file };
                self.tags.insert(tag.into(), known);
                true
            }
        };
        match &mut self.open {
            Some(open)
                if open.step == step && open.values < MOST_VALUES && self.values.len() < MOST_BYTES =>
            {
                open.values += 1;
            }
            _ => {
                self.close_event();
                self.open = Some(Open { wall_time, step, values: 1 });
            }
        }
        if let Summary::Scalar(scalar) = summary {
            push_scalar(&mut self.values, tag, scalar);
            return Ok(());
        }
        self.values.message(1, |value| {
            value.bytes(1, tag.as_bytes());
            // All that settings say is in their metadata.
            if is_new || kind == Kind::Settings {
                push_metadata(value, &summary);
            }
            push_summary(value, &summary);
        });
        Ok(())
    }

    /// The records since the last call: whole ones, to be written with one `write`.
    pub fn take(&mut self) -> Vec<u8> {
        self.close_event();
        std::mem::take(&mut self.out)
    }

    /// The same, lent; [`clear`](Self::clear) them when they are written. The buffer is used again.
    pub fn bytes(&mut self) -> &[u8] {
        self.close_event();
        &self.out
    }

    /// Drops the records since the last call.
    pub fn clear(&mut self) {
        empty(&mut self.out);
        empty(&mut self.values);
        self.open = None;
    }

    fn close_event(&mut self) {
        let Some(open) = self.open.take() else { return };
        push_record(&mut self.out, |event| {
            event.fixed64(1, open.wall_time);
            push_step(event, open.step);
            event.bytes(5, &self.values);
        });
        empty(&mut self.values);
    }
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

/// The value that is written most; its length is known before.
fn push_scalar(values: &mut Vec<u8>, tag: &str, scalar: f32) {
    const SIMPLE_VALUE: usize = 5;
    let tag_length = 1 + varint_size(tag.len() as u64) + tag.len();
    values.reserve(tag_length + SIMPLE_VALUE + 11);
    values.key_of_message(1, (tag_length + SIMPLE_VALUE) as u64);
    values.bytes(1, tag.as_bytes());
    values.fixed32(2, scalar);
}

/// `int64`: the two's complement, as for every negative number of ten bytes.
fn push_step(event: &mut Vec<u8>, step: i64) {
    if step != 0 {
        event.varint(2, step as u64);
    }
}

/// What the plugin of a kind has to know of a tag, once a file.
fn push_metadata(value: &mut Vec<u8>, summary: &Summary<'_>) {
    const TENSOR: u64 = 2;
    const BLOB_SEQUENCE: u64 = 3;
    let (plugin, class) = match summary.kind() {
        // `simple_value` needs none, in either loader.
        Kind::Scalar => return,
        Kind::Text => ("text", TENSOR),
        Kind::Histogram => ("histograms", TENSOR),
        Kind::Image => ("images", BLOB_SEQUENCE),
        Kind::Settings => ("hparams", TENSOR),
    };
    value.message(9, |metadata| {
        metadata.message(1, |data| {
            data.bytes(1, plugin.as_bytes());
            match summary {
                Summary::SessionStart { group, settings, began_at } => {
                    data.message(2, |content| push_session_start(content, group, settings, *began_at));
                }
                Summary::SessionEnd { status, ended_at } => data.message(2, |content| {
                    content.message(4, |end| {
                        end.varint(1, *status as u64);
                        end.fixed64(2, *ended_at);
                    });
                }),
                _ => {}
            }
        });
        metadata.varint(4, class);
    });
}

fn push_session_start(content: &mut Vec<u8>, group: &str, settings: &Fields, began_at: f64) {
    content.message(3, |start| {
        Settings::default().each(settings, &mut |path, setting| {
            start.message(1, |entry| {
                entry.bytes(1, path.as_bytes());
                entry.message(2, |value| match setting {
                    Value::Bool(is) => value.varint(4, u64::from(*is)),
                    Value::Text(text) => value.bytes(3, text.as_bytes()),
                    other => match other.as_f64() {
                        Some(number) => value.fixed64(2, number),
                        None => value.bytes(3, other.to_string().as_bytes()),
                    },
                });
            });
        });
        start.bytes(4, group.as_bytes());
        start.fixed64(5, began_at);
    });
}

/// How many bytes the paths of all settings of a run take at most.
const MAX_SETTING_BYTES: usize = 1 << 20;

/// Nested settings, one by one.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    path: String,
    /// All paths so far.
    known: HashSet<Box<str>>,
    bytes: usize,
    /// How many were left out.
    left_out: u64,
}

impl Settings {
    /// How many of these settings the table cannot show.
    pub(crate) fn left_out(settings: &Fields) -> u64 {
        let mut all = Self::default();
        all.each(settings, &mut |_, _| {});
        all.left_out
    }

    /// Calls `show` with the path of every setting that has a value, and with that.
    fn each(&mut self, settings: &Fields, show: &mut impl FnMut(&str, &Value)) {
        let end = self.path.len();
        for (name, setting) in settings.iter() {
            if self.bytes > MAX_SETTING_BYTES {
                // A path is not even put together: that would take the square of its length.
                self.left_out += 1;
                continue;
            }
            if end > 0 {
                self.path.push('/');
            }
            self.path.push_str(name);
            self.bytes += self.path.len();
            match setting {
                Value::Empty => {}
                Value::Fields(inner) if !inner.is_empty() => self.each(inner, show),
                // What is in it was left out before.
                Value::TooDeep => self.left_out += 1,
                _ if self.bytes > MAX_SETTING_BYTES || !self.known.insert(self.path.as_str().into()) => {
                    self.left_out += 1;
                }
                setting => show(&self.path, setting),
            }
            self.path.truncate(end);
        }
    }
}

fn push_summary(value: &mut Vec<u8>, summary: &Summary<'_>) {
    const FLOAT: u64 = 1;
    const DOUBLE: u64 = 2;
    const STRING: u64 = 7;
    match summary {
        Summary::Scalar(scalar) => value.fixed32(2, *scalar),
        Summary::Text(text) => value.message(8, |tensor| {
            tensor.varint(1, STRING);
            // Rank 0.
            tensor.bytes(2, &[]);
            tensor.bytes(8, text.as_bytes());
        }),
        Summary::Histogram(histogram) => value.message(8, |tensor| {
            tensor.varint(1, DOUBLE);
            push_shape(tensor, &[histogram.counts().len() as u64, 3]);
            tensor.message(4, |content| {
                for (edges, count) in histogram.edges().windows(2).zip(histogram.counts()) {
                    for number in [edges[0], edges[1], *count as f64] {
                        content.extend_from_slice(&number.to_le_bytes());
                    }
                }
            });
        }),
        Summary::Image { width, height, png } => value.message(8, |tensor| {
            tensor.varint(1, STRING);
            push_shape(tensor, &[3]);
            tensor.bytes(8, width.to_string().as_bytes());
            tensor.bytes(8, height.to_string().as_bytes());
            tensor.bytes(8, png);
        }),
        // All they say is in the metadata; but without a tensor, TensorBoard's Python loader does not find them.
        Summary::SessionStart { .. } | Summary::SessionEnd { .. } => value.message(8, |tensor| {
            tensor.varint(1, FLOAT);
            push_shape(tensor, &[1]);
            tensor.bytes(4, &[0; 4]);
        }),
    }
}

fn push_shape(tensor: &mut Vec<u8>, dimensions: &[u64]) {
    tensor.message(2, |shape| {
        for size in dimensions {
            shape.message(2, |dimension| dimension.varint(1, *size));
        }
    });
}
