//! Lines of the records that loops make most: a number or a truth value, and nothing beside it.
//!
//! serde asks of each record how it looks and of each part what it is, and formats the date anew. Here the line is put together from
//! parts whose form is known, to the same bytes; the date is formatted once a second. What is not plain is left to serde.

use std::time::{Duration, UNIX_EPOCH};

use crate::event::{Event, Priority, Record, Value};

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// Size of a date and time without fraction and zone: `2026-11-21T08:00:00`.
const DATE: usize = 19;

/// Writer of the lines of plain records.
#[derive(Debug)]
pub(super) struct PlainLines {
    /// The second whose date is in `date`, since 1970.
    second: u64,
    date: [u8; DATE],
}

impl Default for PlainLines {
    fn default() -> Self {
        Self { second: 0, date: *b"1970-01-01T00:00:00" }
    }
}

impl PlainLines {
    /// Appends the object that serde would write for the record. Returns `false`, and appends nothing, if the record is none of
    /// these.
    pub(super) fn push(&mut self, out: &mut Vec<u8>, record: &Record) -> bool {
        let is_number = matches!(record.value(), Value::Scalar(_) | Value::Integer(_) | Value::Bool(_));
        let name = Event::name(record);
        let is_plain = is_number && record.extra().is_none() && record.priority() == Priority::Normal;
        if !is_plain || !name.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
            return false;
        }
        out.extend_from_slice(b"{\"name\":\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\",\"time\":\"");
        self.push_time(out, record.unix_nanos());
        out.push(b'"');
        if let Some(step) = record.signed_step() {
            out.extend_from_slice(b",\"step\":");
            push_json(out, &step);
        }
        match record.value() {
            Value::Scalar(value) => {
                out.extend_from_slice(b",\"scalar\":");
                match *value {
                    value if value.is_finite() => push_json(out, &value),
                    value if value.is_nan() => out.extend_from_slice(b"\"NaN\""),
                    value if value > 0.0 => out.extend_from_slice(b"\"Infinity\""),
                    _ => out.extend_from_slice(b"\"-Infinity\""),
                }
            }
            Value::Integer(value) => {
                out.extend_from_slice(b",\"integer\":");
                push_json(out, value);
            }
            Value::Bool(true) => out.extend_from_slice(b",\"bool\":true"),
            _ => out.extend_from_slice(b",\"bool\":false"),
        }
        out.push(b'}');
        true
    }

    /// Appends a moment in RFC 3339 with nanoseconds.
    fn push_time(&mut self, out: &mut Vec<u8>, nanos: u64) {
        let (second, mut rest) = (nanos / SECOND, (nanos % SECOND) as u32);
        if second != self.second {
            let date =
                humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(second)).to_string();
            // Moments end in the year 2554, so the year has four digits.
            if let Some(date) = date.as_bytes().first_chunk() {
                (self.second, self.date) = (second, *date);
            }
        }
        let mut fraction = *b".000000000Z";
        for digit in fraction[1..10].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        out.extend_from_slice(&self.date);
        out.extend_from_slice(&fraction);
    }
}

fn push_json(out: &mut Vec<u8>, number: &impl serde::Serialize) {
    // Numbers cannot fail, and memory has room.
    _ = serde_json::to_writer(out, number);
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use proptest::prelude::*;

    use super::*;

    fn any_time() -> impl Strategy<Value = SystemTime> {
        // Often in the same second, and up to the last one that there is.
        prop_oneof![0..3 * SECOND, any::<u64>()].prop_map(|nanos| UNIX_EPOCH + Duration::from_nanos(nanos))
    }

    fn any_record() -> impl Strategy<Value = Record> {
        let name = prop_oneof!["[a-z.]{0,20}", any::<String>()];
        let value = prop_oneof![
            any::<u64>().prop_map(|bits| Value::Scalar(f64::from_bits(bits))),
            any::<f64>().prop_map(Value::Scalar),
            (-1000_i64..1000).prop_map(|number| Value::Scalar(number as f64 / 8.0)),
            any::<i64>().prop_map(Value::Integer),
            any::<bool>().prop_map(Value::Bool),
            any::<String>().prop_map(|text| Value::from(text.as_str())),
            Just(Value::Empty),
        ];
        let step = proptest::option::of(any::<i64>());
        let rest = (any::<bool>(), any::<bool>());
        (name, value, any_time(), step, rest).prop_map(|(name, value, time, step, (is_critical, has_tag))| {
            let mut record = Record::with_value(name, value).with_time(time);
            if let Some(step) = step {
                record = record.with_signed_step(step);
            }
            if is_critical {
                record = record.with_priority(Priority::Critical);
            }
            if has_tag { record.with_tag("tag") } else { record }
        })
    }

    proptest! {
        #[test]
        fn lines_of_plain_records_are_those_of_serde(records in proptest::collection::vec(any_record(), 1..20)) {
            let mut lines = PlainLines::default();
            for record in records {
                let mut line = b"before".to_vec();
                let is_plain = lines.push(&mut line, &record);
                if is_plain {
                    let serde = serde_json::to_string(&record).unwrap_or_default();
                    prop_assert_eq!(String::from_utf8_lossy(&line[6..]), serde);
                } else {
                    prop_assert_eq!(&line, b"before");
                }
            }
        }
    }

    #[test]
    fn a_scalar_is_plain_and_what_has_more_is_not() {
        let mut lines = PlainLines::default();
        let mut is_plain = |record: &Record| lines.push(&mut Vec::new(), record);
        let scalar = || Record::scalar("train.loss", 0.5);
        for record in
            [scalar(), scalar().with_step(3), scalar().with_signed_step(-3), Record::integer("n", 1)]
        {
            assert!(is_plain(&record));
        }
        assert!(is_plain(&Record::scalar("Verlust é", f64::NAN)));
        for record in [
            scalar().with_priority(Priority::Low),
            scalar().with_tag("tag"),
            Record::scalar("a\"b", 0.5),
            Record::scalar("a\\b", 0.5),
            Record::scalar("a\nb", 0.5),
            Record::text("note", "0.5"),
            Record::new("nothing"),
        ] {
            assert!(!is_plain(&record), "{record:?}");
        }
    }
}
