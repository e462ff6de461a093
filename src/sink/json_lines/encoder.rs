//! `LineEncoder`: the lines of JSON Lines, without the file.

use std::any::Any;
use std::fmt;
use std::time::SystemTime;

use serde::Serialize;

use super::plain::PlainLines;
use crate::batch::Batch;
use crate::event::Record;
use crate::origin::{Origin, RunIdentity};
use crate::sink::SinkError;
use crate::sync::catch_panic;

/// Encoder of the lines that a [`JsonLinesSink`](crate::sink::JsonLinesSink) writes, for a sink that sends them elsewhere.
///
/// [`begin`](Self::begin) every batch, then push its gap and its events. Every line ends with a line feed.
///
/// # Examples
///
/// ```
/// use forebay::sink::LineEncoder;
/// use forebay::{Batch, Record};
///
/// # fn main() -> Result<(), forebay::sink::SinkError> {
/// let batch = Batch::from_events(vec![Record::scalar("train.loss", 0.5).with_unix_nanos(0)]);
/// let (mut encoder, mut lines) = (LineEncoder::new(), Vec::new());
/// encoder.begin(&batch);
/// for record in &batch {
///     encoder.push(&mut lines, record)?;
/// }
/// let line = "{\"name\":\"train.loss\",\"time\":\"1970-01-01T00:00:00.000000000Z\",\"scalar\":0.5}\n";
/// assert_eq!(lines, line.as_bytes());
/// # Ok(())
/// # }
/// ```
pub struct LineEncoder {
    plain: PlainLines,
    /// User code that finds the record inside of an event. `None` takes events that are records alone.
    record_in: Option<fn(&dyn Any) -> Option<&Record>>,
    /// True if every line shows its origin.
    has_origin: bool,
    /// Text that goes into every line of the batch at hand, from the comma to the end of the object. Empty if nothing does.
    suffix: Vec<u8>,
    /// The time of that batch.
    time: SystemTime,
}

impl LineEncoder {
    /// Creates an encoder whose lines do not show their origin.
    pub fn new() -> Self {
        Self {
            plain: PlainLines::default(),
            record_in: None,
            has_origin: false,
            suffix: Vec::new(),
            time: SystemTime::UNIX_EPOCH,
        }
    }

    /// Gives every line a key `origin`: see [`JsonLinesSink::with_origin`](crate::sink::JsonLinesSink::with_origin).
    pub fn with_origin(mut self) -> Self {
        self.has_origin = true;
        self
    }

    /// Looks for the record inside of events of this type: see
    /// [`JsonLinesSink::records_in`](crate::sink::JsonLinesSink::records_in).
    pub fn records_in<E: AsRef<Record> + 'static>(mut self) -> Self {
        self.record_in = Some(|event| event.downcast_ref::<E>().map(AsRef::as_ref));
        self
    }

    /// Begins a batch. Its lines have the keys of its run, and of its origin if they show it.
    pub fn begin<E>(&mut self, batch: &Batch<E>) {
        self.time = batch.time();
        self.set_suffix(batch.origin(), batch.run());
    }

    /// Appends the line that tells how many events are missing there; nothing if none are.
    ///
    /// # Errors
    ///
    /// None at present.
    pub fn push_gap(&mut self, lines: &mut Vec<u8>, missing: u64) -> Result<(), SinkError> {
        if missing == 0 {
            return Ok(());
        }
        let missing = i64::try_from(missing).unwrap_or(i64::MAX);
        self.push(lines, &Record::integer("forebay.gap", missing).with_time(self.time))
    }

    /// Appends the line of an event. One that fails leaves nothing behind.
    ///
    /// # Errors
    ///
    /// The event cannot be serialised, or its code panics. The error is permanent.
    pub fn push<E: Serialize + 'static>(&mut self, lines: &mut Vec<u8>, event: &E) -> Result<(), SinkError> {
        let begin = lines.len();
        let record = match self.record_in {
            None => (event as &dyn Any).downcast_ref(),
            Some(record_in) => catch_panic(|| record_in(event))
                .map_err(|said| SinkError::panicked("an event's AsRef<Record>", &said))?,
        };
        if record.is_none_or(|record| !self.plain.push(lines, record)) {
            let encoded = match catch_panic(|| serde_json::to_writer(&mut *lines, event)) {
                Ok(encoded) => encoded.map_err(not_serialised),
                Err(said) => Err(SinkError::panicked("an event's Serialize", &said)),
            };
            if encoded.is_err() {
                lines.truncate(begin);
                return encoded;
            }
        }
        if !self.suffix.is_empty() && lines.pop_if(|last| *last == b'}').is_some() {
            let is_first = lines.last() == Some(&b'{');
            let suffix = self.suffix.get(usize::from(is_first)..).unwrap_or_default();
            lines.extend_from_slice(suffix);
        }
        lines.push(b'\n');
        Ok(())
    }

    /// Puts together what goes into every line of a batch.
    fn set_suffix(&mut self, origin: &Origin, run: Option<&RunIdentity>) {
        let text = &mut self.suffix;
        text.clear();
        // Numbers and text cannot fail.
        if let Some(run) = run {
            text.extend_from_slice(b",\"run_id\":");
            _ = serde_json::to_writer(&mut *text, &run.run_id);
            text.extend_from_slice(b",\"generation\":");
            _ = serde_json::to_writer(&mut *text, &run.generation);
        }
        if self.has_origin {
            text.extend_from_slice(b",\"origin\":");
            _ = serde_json::to_writer(&mut *text, origin);
        }
        if !text.is_empty() {
            text.push(b'}');
        }
    }
}

impl Default for LineEncoder {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for LineEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineEncoder").field("has_origin", &self.has_origin).finish_non_exhaustive()
    }
}

fn not_serialised(error: serde_json::Error) -> SinkError {
    SinkError::write_failed(format!("event not serialised: {error}")).with_source(error).permanent()
}
