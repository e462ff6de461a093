//! Attributes: named values of OpenTelemetry, made of ours.

use forebay::event::ImageFormat;
use forebay::{Fields, Histogram, Record, Value};

use crate::wire::Wire;

/// Metadata that says what a number is: [`metrics`](crate::metrics) reads it, and it is no attribute.
pub(crate) const KIND: &str = "metric.kind";
pub(crate) const UNIT: &str = "metric.unit";
pub(crate) const SINCE: &str = "metric.since";
pub(crate) const MIN: &str = "metric.min";
pub(crate) const MAX: &str = "metric.max";

/// Appends a `KeyValue`.
pub(crate) fn put(out: &mut Vec<u8>, field: u8, key: &str, value: impl FnOnce(&mut Vec<u8>)) {
    out.message(field, |out| {
        out.bytes(1, key.as_bytes());
        out.message(2, value);
    });
}

/// Appends a `KeyValue` of a text.
pub(crate) fn put_text(out: &mut Vec<u8>, field: u8, key: &str, value: &str) {
    put(out, field, key, |out| text(out, value));
}

/// Appends a `KeyValue` of a whole number.
pub(crate) fn put_integer(out: &mut Vec<u8>, field: u8, key: &str, value: i64) {
    put(out, field, key, |out| integer(out, value));
}

fn text(out: &mut Vec<u8>, value: &str) {
    out.bytes(1, value.as_bytes());
}

fn integer(out: &mut Vec<u8>, value: i64) {
    out.varint(3, value as u64);
}

fn double(out: &mut Vec<u8>, value: f64) {
    out.fixed64(4, value.to_bits());
}

/// Levels of lists and fields that are encoded as such. What lies deeper is text. Decoders of protocol buffers in C++, Java and Rust refuse a whole
/// request in which messages are nested more than 100 deep, and a level of fields has three.
const MAX_LEVELS: usize = 24;

/// Appends the fields of an `AnyValue`. An empty value is one without a field.
pub(crate) fn any_value(out: &mut Vec<u8>, value: &Value) {
    nested(out, value, MAX_LEVELS);
}

fn nested(out: &mut Vec<u8>, value: &Value, levels: usize) {
    let Some(below) = levels.checked_sub(1) else {
        return match value {
            Value::List(_) | Value::Fields(_) => text(out, &value.to_string()),
            value => plain(out, value),
        };
    };
    match value {
        Value::List(values) => out.message(5, |out| {
            values.iter().for_each(|value| out.message(1, |out| nested(out, value, below)));
        }),
        Value::Fields(fields) => out.message(6, |out| {
            fields.iter().for_each(|(name, value)| put(out, 1, name, |out| nested(out, value, below)));
        }),
        value => plain(out, value),
    }
}

/// Appends a value without levels.
fn plain(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Empty => {}
        Value::Scalar(value) => double(out, *value),
        Value::Integer(value) => integer(out, *value),
        Value::Bool(value) => out.varint(2, u64::from(*value)),
        Value::Text(value) => text(out, value),
        Value::Histogram(value) => out.message(6, |out| histogram(out, value)),
        Value::Image(image) => out.bytes(7, &image.bytes),
        Value::Encoded(encoded) => out.bytes(7, encoded.bytes()),
        other => text(out, &other.to_string()),
    }
}

fn histogram(out: &mut Vec<u8>, value: &Histogram) {
    let doubles = |out: &mut Vec<u8>, key, values: &[f64]| {
        put(out, 1, key, |out| {
            out.message(5, |out| values.iter().for_each(|value| out.message(1, |out| double(out, *value))));
        });
    };
    doubles(out, "edges", value.edges());
    put(out, 1, "counts", |out| {
        out.message(5, |out| {
            value.counts().iter().for_each(|count| out.message(1, |out| integer(out, saturated(*count))));
        });
    });
    put(out, 1, "sum", |out| double(out, value.sum()));
    put(out, 1, "sum_of_squares", |out| double(out, value.sum_of_squares()));
    put_integer(out, 1, "non_finite", saturated(value.non_finite()));
}

/// Returns the number as OTLP has it, which knows no larger one than `i64::MAX`.
pub(crate) fn saturated(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Returns whether a name may be that of an attribute of ours.
fn is_ours(name: &str) -> bool {
    name.starts_with("forebay.")
}

/// Appends the attributes of a record: its fields, if they are wanted, its metadata, and under `forebay.*` the rest. No key comes twice:
/// metadata that has the name of a field is `forebay.metadata.NAME`, and so is what begins with `forebay.`; such a field is
/// `forebay.field.NAME`.
pub(crate) fn of_record(out: &mut Vec<u8>, field: u8, record: &Record, fields: Option<&Fields>) {
    for (name, value) in fields.into_iter().flat_map(Fields::iter) {
        let ours = is_ours(name).then(|| format!("forebay.field.{name}"));
        put(out, field, ours.as_deref().unwrap_or(name), |out| any_value(out, value));
    }
    if let Some(step) = record.signed_step() {
        put_integer(out, field, "forebay.step", step);
    }
    if let Value::Image(image) = record.value() {
        put_integer(out, field, "forebay.image.width", image.width.into());
        put_integer(out, field, "forebay.image.height", image.height.into());
        put_text(out, field, "forebay.image.format", format_name(image.format));
    }
    if let Value::Encoded(encoded) = record.value() {
        put_text(out, field, "forebay.encoded", encoded.message());
    }
    let Some(extra) = record.extra() else { return };
    let is_attribute = |name: &str| ![KIND, UNIT, SINCE, MIN, MAX].contains(&name);
    for (name, value) in extra.metadata.iter().filter(|(name, _)| is_attribute(name)) {
        let is_taken = is_ours(name) || fields.is_some_and(|fields| fields.get(name).is_some());
        let key = if is_taken { format!("forebay.metadata.{name}") } else { name.to_string() };
        put(out, field, &key, |out| any_value(out, value));
    }
    let texts = [
        ("forebay.source", extra.source.as_deref()),
        ("forebay.correlation_id", extra.correlation_id.as_deref()),
        ("forebay.session", extra.session_id.as_deref()),
        ("forebay.sub_run", extra.sub_run.as_deref()),
    ];
    for (key, value) in texts {
        if let Some(value) = value {
            put_text(out, field, key, value);
        }
    }
    if !extra.tags.is_empty() {
        put(out, field, "forebay.tags", |out| {
            out.message(5, |out| extra.tags.iter().for_each(|tag| out.message(1, |out| text(out, tag))));
        });
    }
    if let Some(id) = record.event_id() {
        put_text(out, field, "forebay.event_id", &id.to_string());
    }
}

fn format_name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Png => "png",
        ImageFormat::Jpeg => "jpeg",
        ImageFormat::Gif => "gif",
        ImageFormat::Gray8 => "gray8",
        ImageFormat::Rgb8 => "rgb8",
        ImageFormat::Rgba8 => "rgba8",
        _ => "other",
    }
}
