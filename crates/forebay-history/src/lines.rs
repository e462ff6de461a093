//! Lines of plain records, read without serde: a number or a truth value, as a loop makes millions of them.
//!
//! The form is that of the sink, byte by byte (`{"name":"train.loss","time":"...Z","step":7,"scalar":0.5}`, perhaps with the run behind
//! it). Any other line, also one that means the same, is left to serde.

use std::time::UNIX_EPOCH;

/// Size of a date and time without fraction and zone: `2026-11-21T08:00:00`.
const DATE: usize = 19;

/// Reader of plain lines. It keeps the last date, since most lines of a second have the same.
#[derive(Debug, Default)]
pub(crate) struct PlainLines {
    /// The last date, and its seconds since 1970.
    last: Option<([u8; DATE], u64)>,
}

/// Plain record: a name without escapes, a moment, perhaps a step, and a number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Plain<'a> {
    pub(crate) name: &'a str,
    pub(crate) step: Option<i64>,
    pub(crate) unix_nanos: u64,
    pub(crate) value: f64,
}

impl PlainLines {
    /// Reads a line without its end. `None` for one that is not plain.
    pub(crate) fn read<'a>(&mut self, line: &'a [u8]) -> Option<Plain<'a>> {
        let line = line.strip_prefix(b"{\"name\":\"")?;
        let (name, line) = line.split_at(memchr::memchr2(b'"', b'\\', line)?);
        // Those of the life of a run, and of gaps, say more than a number.
        if !is_plain(name) || name.starts_with(b"training.") || name.starts_with(b"forebay.") {
            return None;
        }
        let line = line.strip_prefix(b"\",\"time\":\"")?;
        let (date, line) = line.split_first_chunk::<DATE>()?;
        let (fraction, line) = line.strip_prefix(b".")?.split_first_chunk::<9>()?;
        let line = line.strip_prefix(b"Z\"")?;
        let (step, line) = match line.strip_prefix(b",\"step\":") {
            Some(line) => {
                let (step, line) = number(line)?;
                (Some(step.parse().ok()?), line)
            }
            None => (None, line),
        };
        let (value, line) = if let Some(line) = line.strip_prefix(b",\"scalar\":") {
            if let Some(line) = line.strip_prefix(b"\"NaN\"") {
                (f64::NAN, line)
            } else {
                let (value, line) = number(line)?;
                (value.parse().ok().filter(|value: &f64| value.is_finite())?, line)
            }
        } else if let Some(line) = line.strip_prefix(b",\"integer\":") {
            let (value, line) = number(line)?;
            (value.parse::<i64>().ok()? as f64, line)
        } else {
            let line = line.strip_prefix(b",\"bool\":")?;
            match line.strip_prefix(b"true") {
                Some(line) => (1.0, line),
                None => (0.0, line.strip_prefix(b"false")?),
            }
        };
        if line != b"}" {
            let line = line.strip_prefix(b",\"run_id\":\"")?;
            let (run_id, line) = line.split_at(memchr::memchr2(b'"', b'\\', line)?);
            let (generation, line) = number(line.strip_prefix(b"\",\"generation\":")?)?;
            (is_plain(run_id) && generation.parse::<u64>().is_ok() && line == b"}").then_some(())?;
        }
        let unix_nanos = self.seconds_of(date)?.checked_mul(1_000_000_000)?.checked_add(digits(fraction)?)?;
        Some(Plain { name: std::str::from_utf8(name).ok()?, step, unix_nanos, value })
    }

    fn seconds_of(&mut self, date: &[u8; DATE]) -> Option<u64> {
        match self.last {
            Some((last, seconds)) if last == *date => Some(seconds),
            _ => {
                let moment = humantime::parse_rfc3339_weak(std::str::from_utf8(date).ok()?).ok()?;
                let seconds = moment.duration_since(UNIX_EPOCH).ok()?.as_secs();
                self.last = Some((*date, seconds));
                Some(seconds)
            }
        }
    }
}

/// Returns whether a text stands in JSON as it is, but for its quotes and backslashes.
fn is_plain(text: &[u8]) -> bool {
    text.iter().all(|byte| *byte >= b' ')
}

/// Splits off a number, if it is one of JSON: <https://www.rfc-editor.org/rfc/rfc8259#section-6>.
fn number(line: &[u8]) -> Option<(&str, &[u8])> {
    let digits = |at: usize| line[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let whole = usize::from(line.first() == Some(&b'-'));
    let mut end = whole + digits(whole);
    let has_zero_in_front = line.get(whole) == Some(&b'0') && end > whole + 1;
    if end == whole || has_zero_in_front {
        return None;
    }
    if line.get(end) == Some(&b'.') {
        let fraction = digits(end + 1);
        if fraction == 0 {
            return None;
        }
        end += 1 + fraction;
    }
    if matches!(line.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(line.get(end + 1), Some(b'-' | b'+')));
        let exponent = digits(end + 1 + sign);
        if exponent == 0 {
            return None;
        }
        end += 1 + sign + exponent;
    }
    let (number, line) = line.split_at(end);
    Some((std::str::from_utf8(number).ok()?, line))
}

fn digits(digits: &[u8; 9]) -> Option<u64> {
    digits.iter().try_fold(0, |number: u64, digit| {
        digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use forebay::{Record, Value};
    use proptest::prelude::*;

    use super::*;
    use crate::values::number_of;

    fn any_record() -> impl Strategy<Value = Record> {
        let value = prop_oneof![
            any::<f64>().prop_map(Value::Scalar),
            Just(Value::Scalar(f64::NAN)),
            Just(Value::Scalar(f64::INFINITY)),
            (-1000_i64..1000).prop_map(|number| Value::Scalar(number as f64 / 8.0)),
            any::<i64>().prop_map(Value::Integer),
            any::<bool>().prop_map(Value::Bool),
            any::<String>().prop_map(|text| Value::from(text.as_str())),
        ];
        let name = prop_oneof!["[a-z./]{0,20}", any::<String>()];
        (name, value, 0..4_102_444_800_000_000_000_u64, proptest::option::of(any::<i64>())).prop_map(
            |(name, value, nanos, step)| {
                let record =
                    Record::with_value(name, value).with_time(UNIX_EPOCH + Duration::from_nanos(nanos));
                match step {
                    Some(step) => record.with_signed_step(step),
                    None => record,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn a_plain_line_is_read_as_serde_reads_it(records in proptest::collection::vec(any_record(), 1..20)) {
            let mut lines = PlainLines::default();
            for record in records {
                let line = serde_json::to_string(&record).unwrap();
                let Some(plain) = lines.read(line.as_bytes()) else {
                    let is_odd = number_of(record.value()).is_none_or(f64::is_infinite) || line.contains('\\');
                    prop_assert!(is_odd, "{line}");
                    continue;
                };
                let read: Record = serde_json::from_str(&line).unwrap();
                prop_assert_eq!(plain.name, read.name());
                prop_assert_eq!(plain.step, read.signed_step());
                prop_assert_eq!(plain.unix_nanos, read.unix_nanos());
                let value = number_of(read.value()).unwrap();
                prop_assert!(plain.value == value || plain.value.is_nan() && value.is_nan());
            }
        }

        #[test]
        fn a_changed_line_is_read_as_serde_reads_it_or_left(at in 0..120_usize, byte in any::<u8>(), is_more in any::<bool>()) {
            let whole = br#"{"name":"a","time":"2026-11-21T08:00:00.000000001Z","step":17,"scalar":0.5e-3,"run_id":"x","generation":1}"#;
            let mut line = whole.to_vec();
            let at = at % line.len();
            if is_more { line.insert(at, byte) } else { line[at] = byte }
            let mut lines = PlainLines::default();
            if let Some(plain) = lines.read(&line) {
                let read: Result<Record, _> = serde_json::from_slice(&line);
                prop_assert!(read.is_ok(), "{}", String::from_utf8_lossy(&line));
                let read = read.unwrap();
                prop_assert_eq!((plain.name, plain.step, plain.unix_nanos), (read.name(), read.signed_step(), read.unix_nanos()));
                prop_assert_eq!(Some(plain.value), number_of(read.value()));
            }
        }

        #[test]
        fn bytes_of_any_kind_are_read_or_left(line in proptest::collection::vec(any::<u8>(), 0..200), cut in 0..100_usize) {
            let mut lines = PlainLines::default();
            _ = lines.read(&line);
            let whole = br#"{"name":"a","time":"2026-11-21T08:00:00.000000001Z","step":1,"scalar":0.5,"run_id":"x","generation":1}"#;
            prop_assert!(lines.read(whole).is_some());
            prop_assert!(lines.read(&whole[..cut.min(whole.len() - 1)]).is_none());
        }
    }
}
