//! Encoder of the files of one run: which value goes into which event, and which is refused.
//!
//! Nearly all values are scalars, and nearly all loops log the same tags in the same order, step after step. So a scalar costs no
//! hash where its tag follows the same one as last time, and what stands before its number in a file is kept from the first time.

mod limits;

use crate::fields::{FieldValue, Fields};
use crate::schema::{self, EVENT, SUMMARY};
use crate::summary::{Kind, Summary};
use crate::tags::{Tag, Tags};
use crate::wire::{Frame, Wire};

/// Largest number of values in one `Event`. With ten of them a scalar takes 22 bytes instead of 49; a reader takes an event into
/// memory as a whole.
const MAX_VALUES: usize = 64;

/// Size in bytes at which an `Event` takes no further value.
const MAX_EVENT_BYTES: usize = 1 << 20;

/// Largest size in bytes of a value with its tag. An event has such a value, others of less than `MAX_EVENT_BYTES`, and what stands
/// before them; a protobuf message of 2 GiB cannot be decoded.
const MAX_VALUE_BYTES: usize = i32::MAX as usize - 2 * MAX_EVENT_BYTES;

/// Capacity in bytes that a buffer keeps when it is cleared. A larger one is given back to the system.
const KEPT_BYTES: usize = 1 << 20;

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
    /// The bytes that were encoded elsewhere are no such message.
    #[error("the encoded message of tag {tag:?} is broken at byte {at}: {rule}")]
    Malformed {
        /// The tag; empty for an event.
        tag: String,
        /// The place in the message, in bytes from its begin.
        at: usize,
        /// The rule that the bytes break.
        rule: &'static str,
    },
    /// The content of a tensor is not what its type and shape say.
    #[error("the tensor of tag {tag:?} must have {due} bytes by its type and shape, got {got}")]
    WrongLength {
        /// The tag.
        tag: String,
        /// The size that the type and the shape ask for, in bytes.
        due: u64,
        /// The size of the content, in bytes.
        got: u64,
    },
    /// The type of a tensor has no fixed size: strings.
    #[error("the tensor of tag {tag:?} must have numbers, got strings")]
    Strings {
        /// The tag.
        tag: String,
    },
    /// The value is too large for any reader: a protobuf message has less than 2 GiB.
    #[error("the value of tag {tag:?} must have at most {max} bytes, got {bytes}")]
    TooLarge {
        /// The tag; empty for an event and a graph.
        tag: String,
        /// The size of the refused value, in bytes.
        bytes: usize,
        /// The allowed size, in bytes.
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

/// Encoder of the files of one run, one file after the other. It keeps about 150 bytes for each tag, and its name.
#[derive(Debug)]
pub struct Encoder {
    /// Complete records.
    out: Vec<u8>,
    /// The program that writes the files.
    writer: String,
    tags: Tags,
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
    /// Whether a step before the last one of its tag is written as it is.
    allows_backward: bool,
    /// How far the time of a value may be from that of the event that takes it, in seconds.
    shared_time: f64,
    /// [`MAX_VALUE_BYTES`], but in tests.
    max_value_bytes: usize,
    frame: Frame,
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
            tags: Tags::default(),
            max_tags: 100_000,
            tag_bytes: 0,
            max_tag_bytes: 16 << 20,
            file: 0,
            values: Vec::new(),
            open: None,
            first_step: 0,
            allows_backward: false,
            shared_time: f64::INFINITY,
            max_value_bytes: MAX_VALUE_BYTES,
            frame: Frame::default(),
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

    /// Sets how far, in seconds, the time of a value may be from that of the event that it shares with other values of its step. One that is
    /// further away gets an event, and so its time, to itself. Defaults to [`f64::INFINITY`].
    pub fn with_shared_time(mut self, seconds: f64) -> Self {
        self.shared_time = seconds;
        self
    }

    /// Sets whether a step before the last one of its tag is written as it is, as PyTorch does, instead of being refused. TensorBoard
    /// then deletes the points of the tag from that step on. Defaults to no.
    pub fn with_backward_steps(mut self, allowed: bool) -> Self {
        self.allows_backward = allowed;
        self
    }

    /// Begins a file with its version and the start of a session at `first_step`. Drops records that were not taken.
    ///
    /// One of TensorBoard's loaders forgets all points of the run from that step on. The other does so for each tag, at its next
    /// point.
    pub fn begin_file(&mut self, wall_time: f64, first_step: i64) {
        self.begin_plain_file(wall_time);
        self.frame.push_record(&mut self.out, |event| {
            event.fixed64(1, wall_time);
            push_step(event, first_step);
            event.message(7, |log| log.varint(1, 1));
        });
    }

    /// Begins a file with its version alone, as PyTorch's writer does: points of earlier files stay. Drops records that were not
    /// taken.
    pub fn begin_plain_file(&mut self, wall_time: f64) {
        self.clear();
        self.file += 1;
        self.frame.push_record(&mut self.out, |event| {
            event.fixed64(1, wall_time);
            event.bytes(3, b"brain.Event:2");
            event.message(10, |source| {
                source.bytes(1, self.writer.as_bytes());
            });
        });
    }

    /// Sets the first step of tags whose values come without steps, for a run that is resumed. Defaults to 0.
    pub fn count_from(&mut self, step: i64) {
        self.first_step = step;
    }

    /// Allows every tag to repeat its steps. The kinds of the tags stay, and values without a step still go on after all
    /// others.
    pub fn forget_steps(&mut self) {
        self.tags.iter_mut().for_each(|tag| tag.last_step = None);
    }

    /// Returns the largest step of any tag.
    pub fn last_step(&self) -> Option<i64> {
        self.tags.iter().map(|tag| tag.largest_step).max()
    }

    /// Returns the step after the largest one of `tag`, for a value without a step.
    pub fn next_step(&self, tag: &str) -> i64 {
        self.tags.get(tag).map_or(self.first_step, |tag| tag.largest_step.saturating_add(1))
    }

    /// Adds the value of `tag` at `step`. `wall_time` is in seconds since 1970. Consecutive values of one step share
    /// an event, and the time of the first; see [`with_shared_time`](Self::with_shared_time).
    ///
    /// The values of [`Summary::Encoded`] have tags of their own: `tag` then only names the summary in errors. Bytes that TensorBoard
    /// could not decode are [`EncodeError::Malformed`]: after such a record it reads no further.
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
        if let Summary::Scalar(scalar) = summary {
            let (known, _) = self.take_step(tag, Kind::Scalar, step)?;
            self.open_event(wall_time, step, 1);
            let head = self.tags.head(known);
            self.values.reserve(head.len() + size_of::<f32>());
            self.values.extend_from_slice(head);
            self.values.extend_from_slice(&scalar.to_le_bytes());
            return Ok(());
        }
        self.check_size(tag, tag.len().saturating_add(summary.payload_bytes()))?;
        if let Summary::Encoded(bytes) = summary {
            let values = count_values(bytes).map_err(|(at, rule)| malformed(tag, at, rule))?;
            if values > 0 {
                self.open_event(wall_time, step, values);
                self.values.extend_from_slice(bytes);
            }
            return Ok(());
        }
        if let Summary::Tensor { dtype, .. } = summary
            && dtype.size().is_none()
        {
            return Err(EncodeError::Strings { tag: tag.to_owned() });
        }
        if let Some((due, got)) = summary.wrong_length() {
            return Err(EncodeError::WrongLength { tag: tag.to_owned(), due, got });
        }
        let (_, is_new) = self.take_step(tag, summary.kind(), step)?;
        self.open_event(wall_time, step, 1);
        self.values.message(1, |value| {
            value.bytes(1, tag.as_bytes());
            if is_new || summary.has_metadata_always() {
                summary.push_metadata(value);
            }
            summary.push(value);
        });
        Ok(())
    }

    /// Refuses a value that would make an event too large.
    fn check_size(&self, tag: &str, bytes: usize) -> Result<(), EncodeError> {
        let max = self.max_value_bytes;
        if bytes > max { Err(EncodeError::TooLarge { tag: tag.to_owned(), bytes, max }) } else { Ok(()) }
    }

    /// Finds or makes a tag and notes its step. Returns its place, and whether the file does not hold its metadata yet.
    fn take_step(&mut self, name: &str, kind: Kind, step: i64) -> Result<(usize, bool), EncodeError> {
        let Some(place) = self.tags.find(name) else { return Ok((self.new_tag(name, kind, step)?, true)) };
        let tag = self.tags.get_mut(place);
        if tag.kind != kind {
            return Err(EncodeError::OtherKind { tag: name.to_owned() });
        }
        if let Some(last) = tag.last_step.filter(|last| step < *last && !self.allows_backward) {
            return Err(EncodeError::Backward { tag: name.to_owned(), step, last });
        }
        tag.last_step = Some(step);
        tag.largest_step = tag.largest_step.max(step);
        Ok((place, std::mem::replace(&mut tag.described_in, self.file) != self.file))
    }

    fn new_tag(&mut self, name: &str, kind: Kind, step: i64) -> Result<usize, EncodeError> {
        if self.tags.len() >= self.max_tags {
            return Err(EncodeError::TooManyTags { tag: name.to_owned(), max: self.max_tags });
        }
        if name.len() > self.max_tag_bytes.saturating_sub(self.tag_bytes) {
            return Err(EncodeError::TooManyTagBytes { tag: name.to_owned(), max: self.max_tag_bytes });
        }
        self.tag_bytes += name.len();
        let tag = Tag { kind, last_step: Some(step), largest_step: step, described_in: self.file };
        Ok(self.tags.insert(name, tag))
    }

    /// Adds an event of its own, from the encoded fields of an `Event` message that follow its time and its step: a graph (4), a
    /// summary (5), the log of a session (7), metadata of a run (8). They are written as they are.
    ///
    /// # Errors
    ///
    /// [`EncodeError::NotFinite`] for a time that is not finite, and [`EncodeError::Malformed`] where TensorBoard could not decode
    /// `parts`, or one of them is a time (1) or a step (2). [`EncodeError::TooLarge`] for 2 GiB. Nothing changes then.
    pub fn add_event(&mut self, wall_time: f64, step: i64, parts: &[u8]) -> Result<(), EncodeError> {
        self.check_size("", parts.len())?;
        let mut fields = Fields::new(parts);
        loop {
            let at = fields.position();
            match fields.next() {
                None => break,
                Some(Err(error)) => return Err(malformed("", error.at, error.rule)),
                Some(Ok((1 | 2, _))) => {
                    return Err(malformed("", at, "the time and the step must not be among the fields"));
                }
                Some(Ok(_)) => {}
            }
        }
        schema::check(parts, &EVENT).map_err(|error| malformed("", error.at, error.rule))?;
        self.push_event(wall_time, step, "", |event| event.extend_from_slice(parts))
    }

    /// Adds the graph of a model: the bytes of a `GraphDef` message. TensorBoard shows one for a run.
    ///
    /// # Errors
    ///
    /// [`EncodeError::NotFinite`] for a time that is not finite, and [`EncodeError::TooLarge`] for 2 GiB.
    pub fn add_graph(&mut self, wall_time: f64, step: i64, graph_def: &[u8]) -> Result<(), EncodeError> {
        self.check_size("", graph_def.len())?;
        self.push_event(wall_time, step, "", |event| event.bytes(4, graph_def))
    }

    /// Adds what was measured of a step of the graph: the bytes of a `RunMetadata` message. TensorBoard shows one for a tag.
    ///
    /// # Errors
    ///
    /// [`EncodeError::NotFinite`] for a time that is not finite, and [`EncodeError::TooLarge`] for 2 GiB.
    pub fn add_run_metadata(
        &mut self,
        wall_time: f64,
        step: i64,
        tag: &str,
        run_metadata: &[u8],
    ) -> Result<(), EncodeError> {
        self.check_size(tag, tag.len().saturating_add(run_metadata.len()))?;
        self.push_event(wall_time, step, tag, |event| {
            event.message(8, |tagged| {
                tagged.bytes(1, tag.as_bytes());
                tagged.bytes(2, run_metadata);
            });
        })
    }

    /// Appends a record, behind the event that still takes values.
    fn push_event(
        &mut self,
        wall_time: f64,
        step: i64,
        tag: &str,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), EncodeError> {
        if !wall_time.is_finite() {
            return Err(EncodeError::NotFinite { tag: tag.to_owned(), wall_time });
        }
        self.close_event();
        self.frame.push_record(&mut self.out, |event| {
            event.fixed64(1, wall_time);
            push_step(event, step);
            write(event);
        });
        Ok(())
    }

    /// Makes room for so many values of `step`, in the open event or in another.
    fn open_event(&mut self, wall_time: f64, step: i64, values: usize) {
        match &mut self.open {
            Some(open)
                if open.step == step
                    && (wall_time - open.wall_time).abs() <= self.shared_time
                    && open.values.saturating_add(values) <= MAX_VALUES
                    && self.values.len() < MAX_EVENT_BYTES =>
            {
                open.values += values;
            }
            _ => {
                self.close_event();
                self.open = Some(Open { wall_time, step, values });
            }
        }
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
        let mut head = EventHead::default();
        head.push(1 << 3 | 1, &open.wall_time.to_le_bytes());
        if open.step != 0 {
            head.push_number(2 << 3, open.step as u64);
        }
        head.push_number(5 << 3 | 2, self.values.len() as u64);
        self.frame.push_record_of(&mut self.out, head.bytes(), &self.values);
        reset(&mut self.values);
    }
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns the number of values in an encoded `Summary`, and else the place and the rule that is broken there.
fn count_values(summary: &[u8]) -> Result<usize, (usize, &'static str)> {
    let (mut fields, mut values) = (Fields::new(summary), 0);
    loop {
        let at = fields.position();
        match fields.next() {
            None => break,
            Some(Ok((1, FieldValue::Bytes(_)))) => values += 1,
            Some(Ok(_)) => return Err((at, "a summary must have values (field 1) alone")),
            Some(Err(error)) => return Err((error.at, error.rule)),
        }
    }
    schema::check(summary, &SUMMARY).map_err(|error| (error.at, error.rule))?;
    Ok(values)
}

fn malformed(tag: &str, at: usize, rule: &'static str) -> EncodeError {
    EncodeError::Malformed { tag: tag.to_owned(), at, rule }
}

/// Empties a buffer, and limits the capacity that it keeps.
fn reset(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.shrink_to(KEPT_BYTES);
}

/// What stands before the values of an event, put together where it costs no look at the room that is left.
#[derive(Default)]
struct EventHead {
    /// Three keys, a time and two numbers of at most ten bytes.
    bytes: [u8; 3 + 8 + 2 * 10],
    end: usize,
}

impl EventHead {
    fn push(&mut self, key: u8, value: &[u8]) {
        self.bytes[self.end] = key;
        self.bytes[self.end + 1..][..value.len()].copy_from_slice(value);
        self.end += 1 + value.len();
    }

    fn push_number(&mut self, key: u8, mut value: u64) {
        self.bytes[self.end] = key;
        self.end += 1;
        while value >= 0x80 {
            self.bytes[self.end] = value as u8 | 0x80;
            self.end += 1;
            value >>= 7;
        }
        self.bytes[self.end] = value as u8;
        self.end += 1;
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.end]
    }
}

/// Appends a step, an `int64`: the two's complement, so that a negative number takes ten bytes.
fn push_step(event: &mut Vec<u8>, step: i64) {
    if step != 0 {
        event.varint(2, step as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cleared_buffer_keeps_a_mebibyte_at_most() {
        let mut encoder = Encoder::new();
        encoder.begin_file(0.0, 0);
        encoder.add(0.0, 0, "a", Summary::Text(&"x".repeat(5 << 20))).unwrap();
        assert!(encoder.bytes().len() > 5 << 20);
        encoder.clear();
        assert!(encoder.out.capacity() <= 1 << 20 && encoder.values.capacity() <= 1 << 20);
    }

    #[test]
    fn what_no_reader_could_decode_is_refused_and_changes_nothing() {
        // Less than a reader takes, with the head of an event and the values that share it.
        const { assert!(MAX_VALUE_BYTES + MAX_EVENT_BYTES + (64 << 10) < i32::MAX as usize) };
        let mut encoder = Encoder { max_value_bytes: 1_000, ..Encoder::new() };
        encoder.begin_plain_file(0.0);
        encoder.clear();
        let (text, bytes, numbers) = ("x".repeat(1_000), vec![0; 1_001], vec![0.0; 200]);
        let texts = vec![&*text; 2];
        let rows = [&[0.0_f32; 100][..]; 6];
        let vertices = crate::MeshTensor { shape: [1, 100, 3], values: &[0.0; 300] };
        let mesh = crate::Mesh { name: "m", config: "", vertices, faces: None, colors: None };
        let settings = [("a", crate::Setting::Text(&text))];
        for summary in [
            Summary::Text(&text),
            Summary::Texts(&texts),
            Summary::Histogram { edges: &numbers, counts: &[0; 199] },
            Summary::Image { width: 1, height: 1, encoded: &bytes },
            Summary::LegacyImage { width: 1, height: 1, colorspace: 1, encoded: &bytes },
            Summary::Audio { wav: &bytes },
            Summary::Tensor { dtype: crate::DataType::Uint8, shape: &[1_001], content: &bytes },
            Summary::PrCurve { rows },
            Summary::MeshTensor { mesh, part: crate::MeshPart::Vertices },
            Summary::SessionStart { group: "", settings: &settings, began_at: 0.0 },
            Summary::Encoded(&bytes),
        ] {
            let refused = encoder.add(0.0, 7, "a", summary).unwrap_err();
            assert!(matches!(refused, EncodeError::TooLarge { max: 1_000, .. }), "{refused}");
        }
        assert!(matches!(encoder.add_event(0.0, 7, &bytes), Err(EncodeError::TooLarge { .. })));
        assert!(matches!(encoder.add_graph(0.0, 7, &bytes), Err(EncodeError::TooLarge { .. })));
        assert!(matches!(encoder.add_run_metadata(0.0, 7, "a", &bytes), Err(EncodeError::TooLarge { .. })));
        assert_eq!((encoder.tags(), encoder.bytes().len()), (0, 0));
        // One byte less is taken, and so is its tag at an earlier step.
        assert_eq!(encoder.add(0.0, 3, "a", Summary::Text(&text[1..])), Ok(()));
    }
}
