//! Check of messages that were encoded elsewhere, as deep as TensorBoard decodes them.
//!
//! It decodes the event of a record as a whole. Where that fails anywhere, the default loader reads no further in the run, and the
//! other one in none of the runs (both seen in TensorBoard 2.21). So one broken value would take all that is in the same folder with
//! it. The fields are those of `event.proto`, `summary.proto`, `tensor.proto`, `tensor_shape.proto` and `resource_handle.proto`.

use crate::fields::{DecodeError, FieldValue, Fields};

/// What the bytes of a field must be. A field of another wire type is unknown to a decoder, which passes over it.
#[derive(Clone, Copy)]
enum Due {
    Text,
    Message(&'static Schema),
    /// Numbers of so many bytes, one behind the other.
    Fixed(usize),
    /// Numbers of any length, one behind the other.
    Varints,
}

/// Message: its fields whose bytes must be something. Any bytes will do for the others.
pub(super) struct Schema(&'static [(u32, Due)]);

/// `Event`.
pub(super) static EVENT: Schema = Schema(&[
    (3, Due::Text),
    (5, Due::Message(&SUMMARY)),
    (6, Due::Message(&Schema(&[(2, Due::Text)]))),
    (7, Due::Message(&Schema(&[(2, Due::Text), (3, Due::Text)]))),
    (8, Due::Message(&Schema(&[(1, Due::Text)]))),
    (10, Due::Message(&Schema(&[(1, Due::Text)]))),
]);

/// `Summary`.
pub(super) static SUMMARY: Schema = Schema(&[(1, Due::Message(&VALUE))]);

static VALUE: Schema = Schema(&[
    (1, Due::Text),
    (4, Due::Message(&Schema(&[]))),
    (5, Due::Message(&Schema(&[(6, Due::Fixed(8)), (7, Due::Fixed(8))]))),
    (6, Due::Message(&Schema(&[(5, Due::Text)]))),
    (7, Due::Text),
    (8, Due::Message(&TENSOR)),
    (9, Due::Message(&METADATA)),
]);

static METADATA: Schema =
    Schema(&[(1, Due::Message(&Schema(&[(1, Due::Text)]))), (2, Due::Text), (3, Due::Text)]);

static TENSOR: Schema = Schema(&[
    (2, Due::Message(&SHAPE)),
    (5, Due::Fixed(4)),
    (6, Due::Fixed(8)),
    (7, Due::Varints),
    (9, Due::Fixed(4)),
    (10, Due::Varints),
    (11, Due::Varints),
    (12, Due::Fixed(8)),
    (13, Due::Varints),
    (14, Due::Message(&RESOURCE)),
    // A variant, which has tensors inside.
    (15, Due::Message(&Schema(&[(1, Due::Text), (3, Due::Message(&TENSOR))]))),
    (16, Due::Varints),
    (17, Due::Varints),
]);

static SHAPE: Schema = Schema(&[(2, Due::Message(&Schema(&[(2, Due::Text)])))]);

static RESOURCE: Schema = Schema(&[
    (1, Due::Text),
    (2, Due::Text),
    (3, Due::Text),
    (5, Due::Text),
    (6, Due::Message(&Schema(&[(2, Due::Message(&SHAPE))]))),
]);

/// Most levels of messages inside of one another. A tensor has four.
const MAX_DEPTH: usize = 16;

/// Checks a message and all that is inside.
pub(super) fn check(message: &[u8], schema: &Schema) -> Result<(), DecodeError> {
    check_at(0, message, schema, MAX_DEPTH)
}

/// Checks a message that begins at byte `begin` of the whole.
fn check_at(begin: usize, message: &[u8], schema: &Schema, depth: usize) -> Result<(), DecodeError> {
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next() {
        let (number, value) = field.map_err(|error| DecodeError { at: begin + error.at, ..error })?;
        let Some((_, due)) = schema.0.iter().find(|(known, _)| *known == number) else { continue };
        let FieldValue::Bytes(bytes) = value else { continue };
        let at = begin + fields.position() - bytes.len();
        let broken = |rule| DecodeError { at, rule };
        match due {
            Due::Text => {
                let text = std::str::from_utf8(bytes);
                text.map_err(|error| DecodeError {
                    at: at + error.valid_up_to(),
                    rule: "a text must be UTF-8",
                })?;
            }
            Due::Message(inner) => {
                let depth = depth.checked_sub(1).ok_or(broken("messages must lie at most 16 levels deep"))?;
                check_at(at, bytes, inner, depth)?;
            }
            Due::Fixed(size) if bytes.len() % size != 0 => {
                return Err(broken("packed numbers must be whole"));
            }
            Due::Fixed(_) => {}
            Due::Varints => check_varints(at, bytes)?,
        }
    }
    Ok(())
}

fn check_varints(begin: usize, numbers: &[u8]) -> Result<(), DecodeError> {
    let mut length = 0;
    for (place, byte) in numbers.iter().enumerate() {
        length += 1;
        if length > 10 || length == 10 && *byte > 1 {
            return Err(DecodeError { at: begin + place, rule: "a number must fit 64 bits" });
        }
        if *byte < 0x80 {
            length = 0;
        }
    }
    match length {
        0 => Ok(()),
        _ => Err(DecodeError { at: begin + numbers.len(), rule: "packed numbers must be whole" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the field of a number, with its bytes.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
    }

    #[test]
    fn what_tensorboard_cannot_decode_is_refused_at_its_place_however_deep() {
        let value = |bytes: &[u8]| field(1, bytes);
        let tensor = |bytes: &[u8]| value(&field(8, bytes));
        for (summary, at, rule) in [
            (value(&field(1, b"a\xff")), 5, "a text must be UTF-8"),
            (value(&field(7, b"\xff")), 4, "a text must be UTF-8"),
            (value(b"\x0b"), 2, "the type of a field must be 0, 1, 2 or 5"),
            (value(&field(4, b"\x08")), 5, "a field must end within the message"),
            (value(&field(5, &field(6, b"abc"))), 6, "packed numbers must be whole"),
            (value(&field(6, &field(5, b"\xff"))), 6, "a text must be UTF-8"),
            (value(&field(9, &field(1, &field(1, b"\xff")))), 8, "a text must be UTF-8"),
            (tensor(&field(2, &field(2, &field(2, b"\xff")))), 10, "a text must be UTF-8"),
            (tensor(&field(5, b"abc")), 6, "packed numbers must be whole"),
            (tensor(&field(7, b"\x01\x80")), 8, "packed numbers must be whole"),
            (tensor(&field(10, &[0xff; 11])), 15, "a number must fit 64 bits"),
            (
                tensor(&field(14, &field(6, &field(2, b"\x12\x01")))),
                12,
                "a field must end within the message",
            ),
            (tensor(&field(15, &field(3, &field(6, b"a")))), 10, "packed numbers must be whole"),
        ] {
            assert_eq!(check(&summary, &SUMMARY), Err(DecodeError { at, rule }), "{summary:?}");
            let event = field(5, &summary);
            assert_eq!(check(&event, &EVENT), Err(DecodeError { at: at + 2, rule }), "{summary:?}");
        }
        for event in [field(7, &field(3, b"\xff")), field(8, b"\x0a\x05"), field(10, &field(1, b"\xff"))] {
            assert!(check(&event, &EVENT).is_err(), "{event:?}");
        }
    }

    #[test]
    fn what_a_decoder_passes_over_may_be_anything() {
        let any = b"\xff\xff";
        let value = [
            field(1, b"tag"),
            field(3, any),
            field(4, &field(4, any)),
            field(9, &field(1, &field(2, any))),
            // A text of another type, and an unknown field.
            b"\x08\x01".to_vec(),
            field(15, any),
            field(
                8,
                &[field(4, any), field(8, any), field(7, b"\x80\x01\0"), field(6, &[0xff; 16])].concat(),
            ),
        ];
        assert_eq!(check(&field(1, &value.concat()), &SUMMARY), Ok(()));
        assert_eq!(check(&[field(4, any), field(9, any), field(8, &field(2, any))].concat(), &EVENT), Ok(()));
        assert_eq!(check(b"", &SUMMARY), Ok(()));
    }

    #[test]
    fn messages_without_end_inside_of_one_another_are_refused() {
        let mut tensor = Vec::new();
        for _ in 0..6 {
            tensor = field(15, &field(3, &tensor));
        }
        assert_eq!(check(&field(1, &field(8, &tensor)), &SUMMARY), Ok(()));
        let deeper = field(15, &field(3, &field(15, &field(3, &tensor))));
        let error = check(&field(1, &field(8, &deeper)), &SUMMARY).unwrap_err();
        assert_eq!(error.rule, "messages must lie at most 16 levels deep");
    }
}
