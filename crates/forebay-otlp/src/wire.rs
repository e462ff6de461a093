//! The part of protocol buffers that OTLP needs: a writer of fields, and a reader for what collectors answer.

/// Wire types: <https://protobuf.dev/programming-guides/encoding/>.
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;
const FIXED32: u8 = 5;

/// Writer of the fields of a message. All field numbers of OTLP that we write are below 16, so that a key takes one byte.
pub(crate) trait Wire {
    fn varint(&mut self, field: u8, value: u64);
    fn fixed64(&mut self, field: u8, value: u64);
    fn bytes(&mut self, field: u8, value: &[u8]);
    /// Appends a nested message.
    fn message(&mut self, field: u8, write: impl FnOnce(&mut Vec<u8>));
}

impl Wire for Vec<u8> {
    fn varint(&mut self, field: u8, value: u64) {
        self.push(field << 3 | VARINT);
        push_varint(self, value);
    }

    fn fixed64(&mut self, field: u8, value: u64) {
        self.push(field << 3 | FIXED64);
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn bytes(&mut self, field: u8, value: &[u8]) {
        self.push(field << 3 | BYTES);
        push_varint(self, value.len() as u64);
        self.extend_from_slice(value);
    }

    fn message(&mut self, field: u8, write: impl FnOnce(&mut Vec<u8>)) {
        self.push(field << 3 | BYTES);
        let begin = self.len();
        write(self);
        // The length precedes the message and is known only now: it is appended, then rotated to the front.
        let length = self.len() - begin;
        push_varint(self, length as u64);
        let size = self.len() - begin - length;
        if let Some(message) = self.get_mut(begin..) {
            message.rotate_right(size);
        }
    }
}

/// Appends a number.
fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Value of a field that was read. What has 32 or 64 fixed bits is skipped: no answer has it.
#[derive(Debug, PartialEq)]
pub(crate) enum Read<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed,
}

/// Calls `each` with every field of a message. Returns `None` if the bytes are no message.
pub(crate) fn read<'a>(mut bytes: &'a [u8], mut each: impl FnMut(u64, Read<'a>)) -> Option<()> {
    while !bytes.is_empty() {
        let key = take_varint(&mut bytes)?;
        let value = match (key & 7) as u8 {
            VARINT => Read::Number(take_varint(&mut bytes)?),
            BYTES => {
                let length = usize::try_from(take_varint(&mut bytes)?).ok()?;
                Read::Bytes(take(&mut bytes, length)?)
            }
            FIXED64 => take(&mut bytes, 8).map(|_| Read::Fixed)?,
            FIXED32 => take(&mut bytes, 4).map(|_| Read::Fixed)?,
            _ => return None,
        };
        // No message has a field 0.
        (key >> 3 > 0).then(|| each(key >> 3, value))?;
    }
    Some(())
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for place in 0..10 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for length in [0, 1, 127, 128, 16_383, 16_384, 100_000] {
            let inner: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let mut out = Vec::new();
            out.varint(1, u64::MAX);
            out.message(2, |out| out.extend_from_slice(&inner));
            out.fixed64(3, 7);
            out.bytes(15, b"end");
            let mut fields = Vec::new();
            assert_eq!(read(&out, |field, value| fields.push((field, value))), Some(()));
            let expected = [
                (1, Read::Number(u64::MAX)),
                (2, Read::Bytes(&inner)),
                (3, Read::Fixed),
                (15, Read::Bytes(b"end")),
            ];
            assert_eq!(fields, expected);
            for cut in 1..out.len().min(40) {
                // What is cut anywhere is read without a panic. Between two fields it is a message of fewer.
                _ = read(&out[..out.len() - cut], |_, _| ());
            }
        }
    }

    #[test]
    fn text_is_no_message() {
        for text in ["ok", "<html>", "{}", "{\"partialSuccess\":{}}", "HTTP/1.1 200 OK", "\0", "\n\u{7f}"] {
            assert_eq!(read(text.as_bytes(), |_, _| ()), None, "{text:?}");
        }
        assert_eq!(read(&[0xff; 11], |_, _| ()), None);
        assert_eq!(read(b"", |_, _| ()), Some(()));
    }
}
