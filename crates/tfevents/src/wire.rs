//! Subset of protocol buffers that event files need, and the framing of records.

/// Wire types: <https://protobuf.dev/programming-guides/encoding/>.
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;
const FIXED32: u8 = 5;

/// Writer of the fields of a message. Field numbers must be below 16, so that a key takes one byte.
pub(super) trait Wire {
    fn varint(&mut self, field: u8, value: u64);
    fn fixed32(&mut self, field: u8, value: f32);
    fn fixed64(&mut self, field: u8, value: f64);
    fn bytes(&mut self, field: u8, value: &[u8]);
    /// Appends the head of a nested message of `length` bytes.
    fn key_of_message(&mut self, field: u8, length: u64);
    /// Appends a nested message.
    fn message(&mut self, field: u8, write: impl FnOnce(&mut Vec<u8>));
}

impl Wire for Vec<u8> {
    fn varint(&mut self, field: u8, value: u64) {
        self.push(field << 3 | VARINT);
        push_varint(self, value);
    }

    fn fixed32(&mut self, field: u8, value: f32) {
        self.push(field << 3 | FIXED32);
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn fixed64(&mut self, field: u8, value: f64) {
        self.push(field << 3 | FIXED64);
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn bytes(&mut self, field: u8, value: &[u8]) {
        self.push(field << 3 | BYTES);
        push_varint(self, value.len() as u64);
        self.extend_from_slice(value);
    }

    fn key_of_message(&mut self, field: u8, length: u64) {
        self.push(field << 3 | BYTES);
        push_varint(self, length);
    }

    fn message(&mut self, field: u8, write: impl FnOnce(&mut Vec<u8>)) {
        self.push(field << 3 | BYTES);
        let begin = self.len();
        write(self);
        // The length precedes the message and is known only now: it is appended, then rotated to the front.
        let length = self.len() - begin;
        push_varint(self, length as u64);
        let size = self.len() - begin - length;
        self[begin..].rotate_right(size);
    }
}

/// Returns the encoded size of a number, in bytes.
pub(super) fn varint_size(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends a number.
pub(super) fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Returns the checksum of a record: CRC-32C, rotated by 15 bits and shifted, so that the checksum of data that holds checksums is
/// not weak.
///
/// ```
/// assert_eq!(tfevents::masked_crc32c(b"\x1a\x11CRC test, one two"), 0x5794_d08a);
/// ```
pub fn masked_crc32c(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Bytes of a record before its data: their length, and its checksum.
pub(super) const HEAD_BYTES: usize = 8 + 4;

/// Bytes of a record beside its data: its head, and the checksum of the data.
pub(super) const RECORD_BYTES: usize = HEAD_BYTES + 4;

/// Returns the length of the data of the record that begins here, and `None` if its checksum is wrong or it is not whole.
pub(super) fn checked_length(record: &[u8]) -> Option<u64> {
    let (length, rest) = record.split_first_chunk::<8>()?;
    let checksum = rest.first_chunk::<4>()?;
    (masked_crc32c(length).to_le_bytes() == *checksum).then_some(u64::from_le_bytes(*length))
}

/// Frame of records, which keeps the last length and its checksum: most records are as long as the one before.
#[derive(Debug)]
pub(super) struct Frame {
    /// The length of the data.
    length: u64,
    /// The record up to its data.
    head: [u8; HEAD_BYTES],
}

impl Default for Frame {
    fn default() -> Self {
        Self { length: 0, head: head(0) }
    }
}

fn head(length: u64) -> [u8; HEAD_BYTES] {
    let length = length.to_le_bytes();
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(&length);
    head[8..].copy_from_slice(&masked_crc32c(&length).to_le_bytes());
    head
}

impl Frame {
    /// Appends a record: the length of the data and its checksum, the data that `write` appends, and the checksum of the data.
    pub(super) fn push_record(&mut self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        let begin = out.len();
        out.extend_from_slice(&[0; HEAD_BYTES]);
        write(out);
        let head = self.head((out.len() - begin - HEAD_BYTES) as u64);
        out[begin..begin + HEAD_BYTES].copy_from_slice(head);
        push_checksum(out, begin);
    }

    /// Appends a record whose data is `first` and then `second`.
    pub(super) fn push_record_of(&mut self, out: &mut Vec<u8>, first: &[u8], second: &[u8]) {
        let (begin, size) = (out.len(), first.len() + second.len());
        out.reserve(RECORD_BYTES + size);
        out.extend_from_slice(self.head(size as u64));
        out.extend_from_slice(first);
        out.extend_from_slice(second);
        push_checksum(out, begin);
    }

    fn head(&mut self, length: u64) -> &[u8; HEAD_BYTES] {
        if length != self.length {
            *self = Self { length, head: head(length) };
        }
        &self.head
    }
}

/// Appends the checksum of the data of the record that begins at `begin`.
fn push_checksum(out: &mut Vec<u8>, begin: usize) {
    let checksum = masked_crc32c(&out[begin + HEAD_BYTES..]);
    out.extend_from_slice(&checksum.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_format() {
        assert_eq!(masked_crc32c(b"\x1a\x11CRC test, one two"), 0x5794_d08a);
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn numbers_and_messages_of_every_length() {
        for (value, bytes) in [
            (0, &[0x08, 0][..]),
            (127, &[0x08, 0x7f]),
            (128, &[0x08, 0x80, 1]),
            (u64::MAX, &[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]),
        ] {
            let mut out = Vec::new();
            out.varint(1, value);
            assert_eq!(out, bytes);
        }
        for length in [0, 1, 127, 128, 16_383, 16_384, 100_000] {
            let inner: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let (mut message, mut bytes) = (vec![7], vec![7]);
            message.message(2, |out| out.extend_from_slice(&inner));
            bytes.bytes(2, &inner);
            assert_eq!(message, bytes);
        }
    }
}
