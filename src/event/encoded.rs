//! `Encoded`: a message of TensorBoard that was encoded elsewhere.

use std::fmt;

/// Bytes of a protocol buffer of TensorBoard, made by code that knows more of its plugins than this crate.
///
/// [`TensorBoardSink`](crate::sink::TensorBoardSink) writes them as they are: for it alone they mean something. JSON Lines and
/// SQLite keep them, like an image. The bytes are not checked when the value is made; the sink refuses those that TensorBoard
/// could not decode.
///
/// ```
/// use forebay::event::Encoded;
/// use forebay::{Record, Value};
///
/// // Summary { value: [Value { tag: "a", simple_value: 1.0 }] }
/// let bytes = *b"\x0a\x08\x0a\x01a\x15\0\0\x80\x3f";
/// let record = Record::with_value("any name", Encoded::Summary(bytes.into())).with_step(3);
/// assert_eq!(record.value().to_string(), "encoded Summary of 10 bytes");
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Encoded {
    /// A `Summary`: values with their tags, which are shown at the step and the moment of the record. The name of the record
    /// is no part of them.
    Summary(Box<[u8]>),
    /// Parts of an `Event`, such as `graph_def` or `tagged_run_metadata`. It gets the moment and the step of the record, so it
    /// has neither itself.
    Event(Box<[u8]>),
}

impl Encoded {
    /// Returns the name of the message.
    pub fn message(&self) -> &'static str {
        match self {
            Self::Summary(_) => "Summary",
            Self::Event(_) => "Event",
        }
    }

    /// Returns the bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Summary(bytes) | Self::Event(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple(self.message()).field(&self.bytes()).finish()
    }
}

impl fmt::Display for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "encoded {} of {} bytes", self.message(), self.bytes().len())
    }
}
