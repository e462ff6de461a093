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

/// Gives a record a value of TensorBoard, with its tag, a name to be shown and a description.
pub(crate) fn encode_described(
    record: &mut Record,
    tag: &str,
    summary: Summary<'_>,
    name: &str,
    description: &str,
) {
    let is_plain = matches!(summary, Summary::Scalar(_));
    let mut value = Vec::new();
    summary.encode(tag, &mut value);
    // Behind the key and the length, which becomes another.
    let head = 2 + value.iter().skip(1).take_while(|byte| **byte >= 0x80).count();
    value.drain(..head.min(value.len()));
    // A message that comes twice, as this may, is the sum of both.
    let mut metadata = Vec::new();
    push_bytes(&mut metadata, 2, name.as_bytes());
    push_bytes(&mut metadata, 3, description.as_bytes());
    if is_plain {
        // Without plugin and class, TensorBoard's fast loader makes metadata of its own, which has neither name nor description.
        let mut plugin = Vec::new();
        push_bytes(&mut plugin, 1, b"scalars");
        push_bytes(&mut metadata, 1, &plugin);
        metadata.extend_from_slice(&[4 << 3, 1]);
    }
    push_bytes(&mut value, 9, &metadata);
    let mut message = Vec::new();
    push_bytes(&mut message, 1, &value);
    record.set_value(Encoded::Summary(message.into()));
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
