//! Work that is left for the worker: what it makes of data that the loop has handed over.

pub(crate) mod audio;
pub(crate) mod curve;
pub(crate) mod histogram;
pub(crate) mod hparams;
pub(crate) mod layout;
pub(crate) mod pixels;
pub(crate) mod tensor;

use forebay::Record;
use forebay::event::Encoded;
use tfevents::Summary;

/// Gives a record a value of TensorBoard, with its tag.
pub(crate) fn encode(record: &mut Record, tag: &str, summary: Summary<'_>) {
    let mut bytes = Vec::new();
    summary.encode(tag, &mut bytes);
    record.set_value(Encoded::Summary(bytes.into()));
}

/// Appends a field of bytes to an encoded message. The number of the field is at most 15.
pub(crate) fn push_bytes(message: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    message.push(field << 3 | 2);
    let mut length = bytes.len();
    while length >= 0x80 {
        message.push(length as u8 | 0x80);
        length >>= 7;
    }
    message.push(length as u8);
    message.extend_from_slice(bytes);
}
