//! Records as JSON: see [`Record`] for the format.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};

use super::{Event, Fields, Histogram, Image, Name, Priority, Record, Text, Value};

/// A floating-point number that may be a string.
#[derive(Clone, Copy)]
struct Float(f64);

impl Serialize for Float {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            value if value.is_finite() => serializer.serialize_f64(value),
            value if value.is_nan() => serializer.serialize_str("NaN"),
            value if value > 0.0 => serializer.serialize_str("Infinity"),
            _ => serializer.serialize_str("-Infinity"),
        }
    }
}

impl<'de> Deserialize<'de> for Float {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FloatVisitor;
        impl Visitor<'_> for FloatVisitor {
            type Value = Float;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, \"NaN\", \"Infinity\" or \"-Infinity\"")
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Float, E> {
                Ok(Float(value))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Float, E> {
                Ok(Float(value as f64))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Float, E> {
                Ok(Float(value as f64))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Float, E> {
                match text {
                    "NaN" => Ok(Float(f64::NAN)),
                    "Infinity" => Ok(Float(f64::INFINITY)),
                    "-Infinity" => Ok(Float(f64::NEG_INFINITY)),
                    other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
                }
            }
        }
        deserializer.deserialize_any(FloatVisitor)
    }
}

/// A moment in RFC 3339 with nanoseconds.
struct Moment(u64);

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let time = UNIX_EPOCH + Duration::from_nanos(self.0);
        serializer.collect_str(&humantime::format_rfc3339_nanos(time))
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let time: SystemTime = humantime::parse_rfc3339_weak(&text).map_err(de::Error::custom)?;
        let nanos = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        Ok(Moment(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", self.name())?;
        map.serialize_entry("time", &Moment(self.unix_nanos()))?;
        if self.priority() != Priority::Normal {
            map.serialize_entry("priority", &self.priority())?;
        }
        if let Some(step) = self.get_step() {
            map.serialize_entry("step", &step)?;
        }
        match self.value() {
            Value::Empty => {}
            Value::Scalar(value) => map.serialize_entry("scalar", &Float(*value))?,
            Value::Integer(value) => map.serialize_entry("integer", value)?,
            Value::Bool(value) => map.serialize_entry("bool", value)?,
            Value::Text(text) => map.serialize_entry("text", &**text)?,
            Value::Histogram(histogram) => map.serialize_entry("histogram", histogram)?,
            Value::Image(image) => map.serialize_entry("image", image)?,
            Value::List(list) => map.serialize_entry("list", list)?,
            Value::Fields(fields) => map.serialize_entry("fields", fields)?,
        }
        if let Some(extra) = self.extra() {
            let texts = [
                ("source", &extra.source),
                ("correlation_id", &extra.correlation_id),
                ("session_id", &extra.session_id),
            ];
            for (key, text) in texts {
                if let Some(text) = text {
                    map.serialize_entry(key, &**text)?;
                }
            }
            if !extra.metadata.is_empty() {
                map.serialize_entry("metadata", &extra.metadata)?;
            }
            if !extra.tags.is_empty() {
                map.serialize_entry("tags", &extra.tags)?;
            }
        }
        map.end()
    }
}

/// What a line may hold. Unknown keys are passed over, so that a later version's lines can be read.
#[derive(Deserialize)]
struct Wire {
    name: Name,
    time: Moment,
    #[serde(default)]
    priority: Priority,
    step: Option<u64>,
    scalar: Option<Float>,
    integer: Option<i64>,
    bool: Option<bool>,
    text: Option<String>,
    histogram: Option<Histogram>,
    image: Option<Image>,
    list: Option<Vec<Value>>,
    fields: Option<Fields>,
    source: Option<String>,
    correlation_id: Option<String>,
    session_id: Option<String>,
    metadata: Option<Fields>,
    tags: Option<Vec<Name>>,
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        let kinds = [
            wire.scalar.map(|float| Value::Scalar(float.0)),
            wire.integer.map(Value::Integer),
            wire.bool.map(Value::Bool),
            wire.text.map(Value::from),
            wire.histogram.map(Value::from),
            wire.image.map(Value::from),
            wire.list.map(Value::from),
            wire.fields.map(Value::from),
        ];
        let mut values = kinds.into_iter().flatten();
        let value = values.next().unwrap_or_default();
        if values.next().is_some() {
            return Err(de::Error::custom("a record has one value, this one has several"));
        }
        let mut record =
            Record::with_value(wire.name, value).with_unix_nanos(wire.time.0).with_priority(wire.priority);
        if let Some(step) = wire.step {
            record = record.step(step);
        }
        if let Some(source) = wire.source {
            record = record.with_source(source);
        }
        if let Some(id) = wire.correlation_id {
            record = record.with_correlation_id(id);
        }
        if let Some(id) = wire.session_id {
            record = record.with_session_id(id);
        }
        for (name, value) in wire.metadata.unwrap_or_default().0 {
            record = record.with_metadata(name, value);
        }
        for tag in wire.tags.unwrap_or_default() {
            record = record.with_tag(tag);
        }
        Ok(record)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Empty => serializer.serialize_unit(),
            Value::Scalar(value) if value.is_finite() => serializer.serialize_f64(*value),
            Value::Scalar(value) => wrapped(serializer, "$scalar", &Float(*value)),
            Value::Integer(value) => serializer.serialize_i64(*value),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Text(text) => serializer.serialize_str(text),
            Value::Histogram(histogram) => wrapped(serializer, "$histogram", histogram),
            Value::Image(image) => wrapped(serializer, "$image", image),
            Value::List(list) => {
                let mut seq = serializer.serialize_seq(Some(list.len()))?;
                for value in &**list {
                    seq.serialize_element(value)?;
                }
                seq.end()
            }
            Value::Fields(fields) if fields.0.first().is_some_and(|(name, _)| name.starts_with('$')) => {
                wrapped(serializer, "$fields", fields)
            }
            Value::Fields(fields) => fields.serialize(serializer),
        }
    }
}

fn wrapped<S: Serializer>(serializer: S, key: &str, value: &impl Serialize) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(1))?;
    map.serialize_entry(key, value)?;
    map.end()
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueVisitor;
        impl<'de> Visitor<'de> for ValueVisitor {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
                Ok(Value::Empty)
            }
            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Bool(value))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
                Ok(Value::Integer(value))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
                Ok(Value::Scalar(value))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
                Ok(text.into())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let mut list: Vec<Value> = Vec::new();
                while let Some(value) = seq.next_element()? {
                    list.push(value);
                }
                Ok(list.into())
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let first = map.next_key::<String>()?;
                match first.as_deref() {
                    Some("$scalar") => Ok(Value::Scalar(map.next_value::<Float>()?.0)),
                    Some("$histogram") => Ok(map.next_value::<Histogram>()?.into()),
                    Some("$image") => Ok(map.next_value::<Image>()?.into()),
                    Some("$fields") => Ok(map.next_value::<Fields>()?.into()),
                    _ => Ok(read_fields(first, map)?.into()),
                }
            }
        }
        deserializer.deserialize_any(ValueVisitor)
    }
}

/// Reads the rest of an object whose first key was read already.
fn read_fields<'de, A: MapAccess<'de>>(first: Option<String>, mut map: A) -> Result<Fields, A::Error> {
    let mut fields = Fields::new();
    let mut key = first;
    while let Some(name) = key {
        let value: Value = map.next_value()?;
        fields.set(name, value);
        key = map.next_key()?;
    }
    Ok(fields)
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;
        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                read_fields(map.next_key()?, map)
            }
        }
        deserializer.deserialize_map(FieldsVisitor)
    }
}

/// Text as JSON text.
impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

#[derive(Deserialize)]
struct HistogramWire {
    edges: Vec<f64>,
    counts: Vec<u64>,
    sum: Float,
    sum_of_squares: Float,
    #[serde(default)]
    non_finite: u64,
}

impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The edges are finite; sums may have overflowed.
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("edges", &self.edges)?;
        map.serialize_entry("counts", &self.counts)?;
        map.serialize_entry("sum", &Float(self.sum))?;
        map.serialize_entry("sum_of_squares", &Float(self.sum_of_squares))?;
        if self.non_finite > 0 {
            map.serialize_entry("non_finite", &self.non_finite)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Histogram {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = HistogramWire::deserialize(deserializer)?;
        let histogram = Histogram::from_counts(wire.edges, wire.counts, wire.sum.0, wire.sum_of_squares.0);
        let histogram = histogram.map_err(de::Error::custom)?;
        Ok(Histogram { non_finite: wire.non_finite, ..histogram })
    }
}

/// Bytes as base64 text (RFC 4648, with padding).
pub(super) mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&base64::display::Base64Display::new(bytes, &STANDARD))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        STANDARD.decode(&*text).map_err(D::Error::custom)
    }
}
