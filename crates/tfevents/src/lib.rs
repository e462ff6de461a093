//! Encoder of TensorBoard's event files.
//!
//! A file is a sequence of records. Each is framed by its length and two checksums ([`masked_crc32c`]) and holds an `Event`, a
//! protocol buffer. The first event tells the version of the file, the second that a session starts.
//!
//! The crate encodes into memory and writes no file. The format follows the sources of TensorBoard 2.21, and both of
//! TensorBoard's loaders read the result back in the tests of `forebay`, whose `TensorBoardSink` writes such files.
//!
//! ```
//! use tfevents::{Encoder, Summary};
//!
//! let mut encoder = Encoder::new();
//! encoder.begin_file(1_700_000_000.0, 0);
//! encoder.add(1_700_000_000.5, 1, "train/loss", Summary::Scalar(0.25))?;
//! encoder.add(1_700_000_000.5, 1, "train/accuracy", Summary::Scalar(0.5))?;
//! let bytes = encoder.take();
//! // To be written with one call, so that a reader never sees half a record for long.
//! # assert!(bytes.len() > 100);
//! # Ok::<(), tfevents::EncodeError>(())
//! ```

mod wire;

pub use wire::masked_crc32c;

use std::collections::HashMap;

use wire::{Wire, push_record, varint_size};

/// Largest number of values in one `Event`. With ten of them a scalar takes 22 bytes instead of 49; a reader takes an event into
/// memory as a whole.
const MAX_VALUES: usize = 64;

/// Size in bytes at which an `Event` takes no further value.
const MAX_EVENT_BYTES: usize = 1 << 20;

/// Capacity in bytes that a buffer keeps when it is cleared. A larger one is given back to the system.
const KEPT_BYTES: usize = 1 << 20;

/// Value of a tag at a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Summary<'a> {
    /// A number. TensorBoard's scalars are 32 bits wide; NaN and infinities are shown as such.
    Scalar(f32),
    /// Text, shown as Markdown.
    Text(&'a str),
    /// A distribution: the count of values in each bin.
    Histogram {
        /// The edges of the bins, ascending: one more than there are counts. Surplus edges or counts are left out.
        edges: &'a [f64],
        /// The number of values in each bin.
        counts: &'a [u64],
    },
    /// A picture, as the bytes of a PNG file.
    Image {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The file.
        png: &'a [u8],
    },
    /// The hyper-parameters of a run, for the tag [`SESSION_START`].
    SessionStart {
        /// The name under which sessions of the same settings share a row; empty for a row of its own.
        group: &'a str,
        /// The hyper-parameters and their names, each name once. TensorBoard shows `optimizer/lr` for a nested one.
        settings: &'a [(&'a str, Setting<'a>)],
        /// Seconds since 1970.
        began_at: f64,
    },
    /// The end of a run, for the tag [`SESSION_END`].
    SessionEnd {
        /// Status: whether the session ended well.
        status: SessionStatus,
        /// Seconds since 1970.
        ended_at: f64,
    },
}

/// Value of a hyper-parameter. TensorBoard's table knows these three types.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Setting<'a> {
    /// A number.
    Number(f64),
    /// A truth value.
    Bool(bool),
    /// A text.
    Text(&'a str),
}

/// Result of a run, in the table of hyper-parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionStatus {
    /// The run ended well.
    Success = 1,
    /// The run failed.
    Failure = 2,
}

/// The tag of [`Summary::SessionStart`].
pub const SESSION_START: &str = "_hparams_/session_start_info";

/// The tag of [`Summary::SessionEnd`].
pub const SESSION_END: &str = "_hparams_/session_end_info";

/// Kind of the values of a tag. It never changes: TensorBoard cannot show a tag with two kinds.
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
            Summary::Histogram { .. } => Kind::Histogram,
            Summary::Image { .. } => Kind::Image,
            Summary::SessionStart { .. } | Summary::SessionEnd { .. } => Kind::Settings,
        }
    }
}

/// Reason why a value is not encoded.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The tag has values of another kind, and TensorBoard cannot show both.
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
        /// The refused step.
        step: i64,
        /// The last step of the tag.
        last: i64,
    },
    /// The time is not finite: after such a record TensorBoard reads no further.
    #[error("the time of tag {tag:?} must be finite, got {wall_time}")]
    NotFinite {
        /// The tag.
        tag: String,
        /// The refused time, in seconds since 1970.
        wall_time: f64,
    },
    /// The file has as many tags as are allowed.
    #[error("tag {tag:?} would be one more than the {max} that are allowed")]
    TooManyTags {
        /// The refused tag.
        tag: String,
        /// The allowed number of tags.
        max: usize,
    },
    /// The names of all tags would take more bytes than are allowed.
    #[error("tag {tag:?} would bring the names of all tags beyond {max} bytes")]
    TooManyTagBytes {
        /// The refused tag.
        tag: String,
        /// The allowed size of all names, in bytes.
        max: usize,
    },
}

#[derive(Debug)]
struct Tag {
    kind: Kind,
    /// The step that the next one must not lie before; `None` after [`Encoder::forget_steps`].
    last_step: Option<i64>,
    /// The largest step ever seen: values without a step go on after it.
    largest_step: i64,
    /// The number of the last file that holds the metadata of the tag.
    described_in: u64,
}

/// Encoder of the files of one run, one file after the other. It keeps about 100 bytes for each tag, and its name.
#[derive(Debug)]
pub struct Encoder {
    /// Complete records.
    out: Vec<u8>,
    /// The program that writes the files.
    writer: String,
    tags: HashMap<Box<str>, Tag>,
    max_tags: usize,
    /// The size of the names of all tags, in bytes; at most `max_tag_bytes`.
    tag_bytes: usize,
    max_tag_bytes: usize,
    /// The number of the file, from 1.
    file: u64,
    /// The encoded values of the open event, all of one step.
    values: Vec<u8>,
    open: Option<Open>,
    /// The first step of a tag whose values come without steps.
    first_step: i64,
}

/// The event that still takes values.
#[derive(Debug)]
struct Open {
    wall_time: f64,
    step: i64,
    values: usize,
}

impl Encoder {
    /// Creates an encoder that allows 100,000 tags, and 16 MiB for their names.
    pub fn new() -> Self {
        Self {
            out: Vec::new(),
            writer: concat!("tfevents ", env!("CARGO_PKG_VERSION")).to_owned(),
            tags: HashMap::new(),
            max_tags: 100_000,
            tag_bytes: 0,
            max_tag_bytes: 16 << 20,
            file: 0,
            values: Vec::new(),
            open: None,
            first_step: 0,
        }
    }

    /// Sets the name of the program that the files tell as their writer. Defaults to this crate and its version.
    pub fn with_writer(mut self, name: impl Into<String>) -> Self {
        self.writer = name.into();
        self
    }

    /// Sets the allowed number of tags. Defaults to 100,000.
    pub fn with_max_tags(mut self, tags: usize) -> Self {
        self.max_tags = tags;
        self
    }

    /// Sets the allowed size of the names of all tags, in bytes. Defaults to 16 MiB.
    pub fn with_max_tag_bytes(mut self, bytes: usize) -> Self {
        self.max_tag_bytes = bytes;
        self
    }

    /// Begins a file with its version and the start of a session at `first_step`. Drops records that were not taken.
    ///
    /// One of TensorBoard's loaders forgets all points of the run from that step on. The other does so for each tag, at its next
    /// point.
    pub fn begin_file(&mut self, wall_time: f64, first_step: i64) {
        self.clear();
        self.file += 1;
        push_record(&mut self.out, |event| {
            event.fixed64(1, wall_time);
            event.bytes(3, b"brain.Event:2");
            event.message(10, |source| {
                source.bytes(1, self.writer.as_bytes());
            });
        });
        push_record(&mut self.out, |event| {
            event.fixed64(1, wall_time);
            push_step(event, first_step);
            event.message(7, |log| log.varint(1, 1));
        });
    }

    /// Sets the first step of tags whose values come without steps, for a run that is resumed. Defaults to 0.
    pub fn count_from(&mut self, step: i64) {
        self.first_step = step;
    }

    /// Allows every tag to repeat its steps. The kinds of the tags stay, and values without a step still go on after all
    /// others.
    pub fn forget_steps(&mut self) {
        self.tags.values_mut().for_each(|tag| tag.last_step = None);
    }

    /// Returns the largest step of any tag.
    pub fn last_step(&self) -> Option<i64> {
        self.tags.values().map(|tag| tag.largest_step).max()
    }

    /// Returns the step after the largest one of `tag`, for a value without a step.
    pub fn next_step(&self, tag: &str) -> i64 {
        self.tags.get(tag).map_or(self.first_step, |tag| tag.largest_step.saturating_add(1))
    }

    /// Adds the value of `tag` at `step`. `wall_time` is in seconds since 1970. Consecutive values of one step share
    /// an event, and the time of the first.
    ///
    /// # Errors
    ///
    /// Returns the reason why the value is not encoded. Nothing else changes then.
    pub fn add(
        &mut self,
        wall_time: f64,
        step: i64,
        tag: &str,
        summary: Summary<'_>,
    ) -> Result<(), EncodeError> {
        if !wall_time.is_finite() {
            return Err(EncodeError::NotFinite { tag: tag.to_owned(), wall_time });
        }
        let kind = summary.kind();
        let has_room = self.tags.len() < self.max_tags;
        let is_new = match self.tags.get_mut(tag) {
            Some(known) if known.kind != kind => return Err(EncodeError::OtherKind { tag: tag.to_owned() }),
            Some(known) => {
                if let Some(last) = known.last_step.filter(|last| step < *last) {
                    return Err(EncodeError::Backward { tag: tag.to_owned(), step, last });
                }
                known.last_step = Some(step);
                known.largest_step = known.largest_step.max(step);
                std::mem::replace(&mut known.described_in, self.file) != self.file
            }
            None if !has_room => {
                return Err(EncodeError::TooManyTags { tag: tag.to_owned(), max: self.max_tags });
            }
            None if tag.len() > self.max_tag_bytes.saturating_sub(self.tag_bytes) => {
                return Err(EncodeError::TooManyTagBytes { tag: tag.to_owned(), max: self.max_tag_bytes });
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
                if open.step == step && open.values < MAX_VALUES && self.values.len() < MAX_EVENT_BYTES =>
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
            // The metadata holds all that a session has.
            if is_new || kind == Kind::Settings {
                push_metadata(value, &summary);
            }
            push_summary(value, &summary);
        });
        Ok(())
    }

    /// Takes the records since the last call. They are complete, to be written with one call.
    pub fn take(&mut self) -> Vec<u8> {
        self.close_event();
        std::mem::take(&mut self.out)
    }

    /// Borrows the records since the last [`clear`](Self::clear), which keeps their buffer for the next ones.
    pub fn bytes(&mut self) -> &[u8] {
        self.close_event();
        &self.out
    }

    /// Drops the records since the last call, and keeps at most 1 MiB of their buffer.
    pub fn clear(&mut self) {
        reset(&mut self.out);
        reset(&mut self.values);
        self.open = None;
    }

    fn close_event(&mut self) {
        let Some(open) = self.open.take() else { return };
        push_record(&mut self.out, |event| {
            event.fixed64(1, open.wall_time);
            push_step(event, open.step);
            event.bytes(5, &self.values);
        });
        reset(&mut self.values);
    }
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

/// Empties a buffer, and limits the capacity that it keeps.
fn reset(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.shrink_to(KEPT_BYTES);
}

/// Appends a scalar: the most frequent value, whose length is known before.
fn push_scalar(values: &mut Vec<u8>, tag: &str, scalar: f32) {
    const SIMPLE_VALUE: usize = 5;
    let tag_length = 1 + varint_size(tag.len() as u64) + tag.len();
    values.reserve(tag_length + SIMPLE_VALUE + 11);
    values.key_of_message(1, (tag_length + SIMPLE_VALUE) as u64);
    values.bytes(1, tag.as_bytes());
    values.fixed32(2, scalar);
}

/// Appends a step, an `int64`: the two's complement, so that a negative number takes ten bytes.
fn push_step(event: &mut Vec<u8>, step: i64) {
    if step != 0 {
        event.varint(2, step as u64);
    }
}

/// Appends the metadata that a plugin of TensorBoard needs of a tag, once in a file.
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

fn push_session_start(content: &mut Vec<u8>, group: &str, settings: &[(&str, Setting<'_>)], began_at: f64) {
    content.message(3, |start| {
        for (name, setting) in settings {
            start.message(1, |entry| {
                entry.bytes(1, name.as_bytes());
                entry.message(2, |value| match setting {
                    Setting::Number(number) => value.fixed64(2, *number),
                    Setting::Text(text) => value.bytes(3, text.as_bytes()),
                    Setting::Bool(is) => value.varint(4, u64::from(*is)),
                });
            });
        }
        start.bytes(4, group.as_bytes());
        start.fixed64(5, began_at);
    });
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
        Summary::Histogram { edges, counts } => value.message(8, |tensor| {
            tensor.varint(1, DOUBLE);
            let bins = edges.len().saturating_sub(1).min(counts.len());
            push_shape(tensor, &[bins as u64, 3]);
            tensor.message(4, |content| {
                for (edges, count) in edges.windows(2).zip(*counts) {
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
        // The metadata holds all that they tell, but TensorBoard's Python loader finds no value without a tensor.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surplus_edges_and_counts_of_a_histogram_are_left_out() {
        let encoded = |edges: &[f64], counts: &[u64]| {
            let mut value = Vec::new();
            push_summary(&mut value, &Summary::Histogram { edges, counts });
            value
        };
        let whole = encoded(&[0.0, 1.0, 2.0], &[3, 4]);
        assert_eq!(encoded(&[0.0, 1.0, 2.0, 3.0], &[3, 4]), whole);
        assert_eq!(encoded(&[0.0, 1.0, 2.0], &[3, 4, 5]), whole);
        assert_eq!(encoded(&[], &[3]), encoded(&[0.0], &[]));
    }

    #[test]
    fn a_cleared_buffer_keeps_a_mebibyte_at_most() {
        let mut encoder = Encoder::new();
        encoder.begin_file(0.0, 0);
        encoder.add(0.0, 0, "a", Summary::Text(&"x".repeat(5 << 20))).unwrap();
        assert!(encoder.bytes().len() > 5 << 20);
        encoder.clear();
        assert!(encoder.out.capacity() <= 1 << 20 && encoder.values.capacity() <= 1 << 20);
    }
}
