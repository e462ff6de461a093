//! Log records: <https://opentelemetry.io/docs/specs/otel/logs/data-model/>.

use std::time::SystemTime;

use forebay::{Priority, Record, Value};

use crate::attributes;
use crate::wire::Wire;

/// Names of fields and of metadata that say how severe a record is, in this order.
const LEVELS: [&str; 2] = ["level", "severity"];

/// Appends the fields of a `LogRecord`.
pub(crate) fn log_record(out: &mut Vec<u8>, record: &Record, observed: SystemTime) {
    out.fixed64(1, record.unix_nanos());
    let (number, text) = severity(record);
    out.varint(2, number);
    out.bytes(3, text.as_bytes());
    let fields = record.value().as_fields();
    match fields {
        // What people read. The other fields are attributes.
        Some(fields) => {
            if let Some(message) = fields.get("message") {
                out.message(5, |out| attributes::any_value(out, message));
            }
        }
        None if record.value() == &Value::Empty => {}
        None => out.message(5, |out| attributes::any_value(out, record.value())),
    }
    attributes::of_record(out, 6, record, fields);
    // They are written as fields of their own as well, by which a backend finds the trace.
    if let Some(id) = hex_of::<16>(record, "trace_id") {
        out.bytes(9, &id);
    }
    if let Some(id) = hex_of::<8>(record, "span_id") {
        out.bytes(10, &id);
    }
    out.fixed64(11, unix_nanos(observed));
    out.bytes(12, record.name().as_bytes());
}

/// Returns the moment in nanoseconds since 1970; 0 before, which means unknown.
pub(crate) fn unix_nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns a field or metadata of a record.
fn text_of<'a>(record: &'a Record, name: &str) -> Option<&'a str> {
    let in_fields = record.value().as_fields().and_then(|fields| fields.get(name));
    in_fields.or_else(|| record.extra()?.metadata.get(name))?.as_str()
}

/// Returns the severity: what the record says itself, or else what its priority stands for. A critical event is one that must arrive,
/// which says nothing about how bad it is.
fn severity(record: &Record) -> (u64, &'static str) {
    // A label of a metric may have any name, and says nothing of that.
    let is_metric = record.extra().is_some_and(|extra| extra.metadata.get(attributes::KIND).is_some());
    let levels = if is_metric { &[][..] } else { &LEVELS[..] };
    let said = levels.iter().find_map(|name| text_of(record, name)).and_then(|level| {
        let levels = [(1, "TRACE"), (5, "DEBUG"), (9, "INFO"), (13, "WARN"), (17, "ERROR"), (21, "FATAL")];
        let level = if level.eq_ignore_ascii_case("warning") { "WARN" } else { level };
        levels.into_iter().find(|(_, name)| name.eq_ignore_ascii_case(level))
    });
    said.unwrap_or(match record.priority() {
        Priority::Critical => (12, "INFO4"),
        Priority::Normal => (9, "INFO"),
        Priority::Low => (5, "DEBUG"),
    })
}

/// Returns the bytes of an id that is written in hexadecimal digits, unless all of them are zero.
fn hex_of<const N: usize>(record: &Record, name: &str) -> Option<[u8; N]> {
    let digits = text_of(record, name)?.as_bytes();
    let mut bytes = [0; N];
    if digits.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(*pair.get(at)?).to_digit(16);
        *byte = (digit(0)? << 4 | digit(1)?) as u8;
    }
    (bytes != [0; N]).then_some(bytes)
}
