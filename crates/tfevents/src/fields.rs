//! Fields of an encoded protocol buffer, one after the other, without knowing the message.

use std::fmt;

/// Reason why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("broken at byte {at} of the message: {rule}")]
pub struct DecodeError {
    /// The place in the message, in bytes from its begin.
    pub at: usize,
    /// The rule that the bytes break.
    pub rule: &'static str,
}

/// Value of one field.
#[derive(Clone, Copy, PartialEq)]
pub enum FieldValue<'a> {
    /// An integer, a truth value or an enumeration. Negative numbers are the two's complement.
    Varint(u64),
    /// Eight bytes: a `double`, in little-endian order.
    Fixed64([u8; 8]),
    /// A text, bytes, a message, or packed numbers.
    Bytes(&'a [u8]),
    /// Four bytes: a `float`, in little-endian order.
    Fixed32([u8; 4]),
}

impl fmt::Debug for FieldValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Varint(number) => f.debug_tuple("Varint").field(number).finish(),
            Self::Fixed64(bytes) => f.debug_tuple("Fixed64").field(&f64::from_le_bytes(*bytes)).finish(),
            // It may be an image.
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
            Self::Fixed32(bytes) => f.debug_tuple("Fixed32").field(&f32::from_le_bytes(*bytes)).finish(),
        }
    }
}

/// Iterator over the fields of a message, each with its number, in the order of the bytes. It ends behind the first error.
///
/// [`Event`](crate::Event) reads what event files are known to hold. This reads the rest: the content of a plugin, or a graph.
///
/// ```
/// use tfevents::{FieldValue, Fields};
///
/// let mut fields = Fields::new(b"\x08\x96\x01\x12\x02hi");
/// assert_eq!(fields.next(), Some(Ok((1, FieldValue::Varint(150)))));
/// assert_eq!(fields.next(), Some(Ok((2, FieldValue::Bytes(b"hi")))));
/// assert_eq!(fields.next(), None);
/// ```
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    message: &'a [u8],
    /// The begin of the next field; the length of the message behind the last one, and behind an error.
    at: usize,
}

impl<'a> Fields<'a> {
    /// Creates an iterator over the fields of `message`.
    pub fn new(message: &'a [u8]) -> Self {
        Self { message, at: 0 }
    }

    /// Returns the bytes of the whole message.
    pub(crate) fn message(&self) -> &'a [u8] {
        self.message
    }

    /// Returns the place of the next field, in bytes from the begin of the message.
    pub fn position(&self) -> usize {
        self.at
    }

    fn field(&mut self) -> Result<(u32, FieldValue<'a>), DecodeError> {
        let begin = self.at;
        let broken = |rule| DecodeError { at: begin, rule };
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).unwrap_or(u32::MAX);
        if number == 0 || number > MAX_FIELD {
            return Err(broken("the number of a field must be 1 to 536,870,911"));
        }
        let value = match key & 7 {
            0 => FieldValue::Varint(self.varint()?),
            1 => FieldValue::Fixed64(self.array()?),
            2 => {
                let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                FieldValue::Bytes(self.bytes(length)?)
            }
            5 => FieldValue::Fixed32(self.array()?),
            _ => return Err(broken("the type of a field must be 0, 1, 2 or 5")),
        };
        Ok((number, value))
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        let (begin, mut value) = (self.at, 0);
        for place in 0..10 {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                if place == 9 && byte > 1 {
                    break;
                }
                return Ok(value);
            }
        }
        Err(DecodeError { at: begin, rule: "a number must fit 64 bits" })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let bytes = self.bytes(N)?;
        bytes.try_into().map_err(|_| self.is_cut())
    }

    fn bytes(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let rest = self.message.get(self.at..).unwrap_or_default();
        let bytes = rest.get(..length).ok_or(self.is_cut())?;
        self.at += length;
        Ok(bytes)
    }

    fn is_cut(&self) -> DecodeError {
        DecodeError { at: self.at, rule: "a field must end within the message" }
    }
}

/// Takes the bits of a number off the front of `bytes`: of so many bytes, the least first, or of one to ten that tell their end.
/// `None` where it is not whole.
pub(crate) fn number_of(bytes: &mut &[u8], width: Option<usize>) -> Option<u64> {
    let Some(width) = width else {
        let mut fields = Fields::new(bytes);
        let number = fields.varint().ok()?;
        *bytes = bytes.get(fields.at..)?;
        return Some(number);
    };
    let (number, rest) = bytes.split_at_checked(width)?;
    *bytes = rest;
    Some(number.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// Largest number of a field that the format allows.
const MAX_FIELD: u32 = (1 << 29) - 1;

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, FieldValue<'a>), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.message.len() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.at = self.message.len();
        }
        Some(field)
    }
}

impl std::iter::FusedIterator for Fields<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(message: &[u8]) -> Result<Vec<(u32, FieldValue<'_>)>, DecodeError> {
        Fields::new(message).collect()
    }

    #[test]
    fn fields_of_every_type_are_read() {
        let message = b"\x08\x05\x11\0\0\0\0\0\0\xf0\x3f\x1a\x03abc\x25\0\0\x80\x3f\x80\x01\x01";
        assert_eq!(
            all(message).unwrap(),
            [
                (1, FieldValue::Varint(5)),
                (2, FieldValue::Fixed64(1.0_f64.to_le_bytes())),
                (3, FieldValue::Bytes(b"abc")),
                (4, FieldValue::Fixed32(1.0_f32.to_le_bytes())),
                (16, FieldValue::Varint(1)),
            ]
        );
        assert_eq!(all(b"").unwrap(), []);
        let largest = [0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1];
        assert_eq!(all(&largest).unwrap(), [(1, FieldValue::Varint(u64::MAX))]);
    }

    #[test]
    fn broken_fields_end_the_message_with_their_place() {
        for (message, at, rule) in [
            (&b"\x08\x01\x08"[..], 3, "a field must end within the message"),
            (b"\x0a\x02a", 2, "a field must end within the message"),
            (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, "a field must end within the message"),
            (b"\x08\x01\x00\x01", 2, "the number of a field must be 1 to 536,870,911"),
            (b"\x80\x80\x80\x80\x10\x00", 0, "the number of a field must be 1 to 536,870,911"),
            (b"\x0b\x01\x0c", 0, "the type of a field must be 0, 1, 2 or 5"),
            (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 1, "a number must fit 64 bits"),
            (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 1, "a number must fit 64 bits"),
        ] {
            assert_eq!(all(message), Err(DecodeError { at, rule }), "{message:?}");
            let mut fields = Fields::new(message);
            while fields.next().is_some_and(|field| field.is_ok()) {}
            assert_eq!(fields.next(), None);
        }
    }
}
