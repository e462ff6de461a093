//! JSON format of records: see [`Record`].

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error as _, SerializeMap, SerializeStruct, Serializer};
use serde::{Deserialize, Serialize};

use super::{
    Encoded, EventId, Fields, Histogram, Image, ImageFormat, List, Name, Priority, Record, Text, Value,
};

/// Floating-point number that may be a string.
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

/// Moment in RFC 3339 with nanoseconds.
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
        if let Some(step) = self.signed_step() {
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
            Value::Encoded(encoded) => map.serialize_entry("encoded", encoded)?,
            Value::List(list) => map.serialize_entry("list", list)?,
            Value::Fields(fields) => map.serialize_entry("fields", fields)?,
            Value::TooDeep => return Err(S::Error::custom(TooDeep)),
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
            if let Some(name) = &extra.sub_run {
                map.serialize_entry("sub_run", name)?;
            }
            if !extra.metadata.is_empty() {
                map.serialize_entry("metadata", &extra.metadata)?;
            }
            if !extra.tags.is_empty() {
                map.serialize_entry("tags", &extra.tags)?;
            }
            if let Some(id) = self.event_id() {
                map.serialize_entry("event_id", &id)?;
            }
        }
        map.end()
    }
}

/// Declares the keys of an object. Each key may be there once or not at all. Unknown keys are ignored, so that a
/// later version's lines can be read; `derive(Deserialize)` would follow them to any depth.
macro_rules! object {
    ($(#[$doc:meta])* $object:ident { $($key:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Default)]
        struct $object {
            $($key: Option<$kind>,)*
        }

        impl<'de> Visitor<'de> for $object {
            type Value = Self;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
                while let Some(key) = map.next_key_seed(KeyOf(&[$(stringify!($key)),*]))? {
                    match key {
                        $(Some(key) if key == stringify!($key) => {
                            if self.$key.is_some() {
                                return Err(de::Error::duplicate_field(stringify!($key)));
                            }
                            self.$key = map.next_value()?;
                        })*
                        _ => map.next_value_seed(Ignored(Value::MAX_DEPTH))?,
                    }
                }
                Ok(self)
            }
        }
    };
}

/// One of these keys, or `None`.
struct KeyOf(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for KeyOf {
    type Value = Option<&'static str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for KeyOf {
    type Value = Option<&'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().copied().find(|key| *key == text))
    }
}

/// Reader that ignores a value of so many levels at most.
struct Ignored(usize);

impl Ignored {
    fn inside<E: de::Error>(&self) -> Result<usize, E> {
        self.0.checked_sub(1).ok_or_else(|| E::custom(TooDeep))
    }
}

impl<'de> DeserializeSeed<'de> for Ignored {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_ignored_any(self)
    }
}

impl<'de> Visitor<'de> for Ignored {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        Ignored(self.inside()?).deserialize(deserializer)
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_bytes<E>(self, _: &[u8]) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        while seq.next_element_seed(Ignored(inside))?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        while map.next_key_seed(Ignored(inside))?.is_some() {
            map.next_value_seed(Ignored(inside))?;
        }
        Ok(())
    }
}

/// Id in a line that may be somebody else's, where the key means something else. Then it is none.
struct MaybeId(Option<EventId>);

impl<'de> Deserialize<'de> for MaybeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MaybeIdVisitor;
        impl<'de> Visitor<'de> for MaybeIdVisitor {
            type Value = MaybeId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }
            fn visit_str<E>(self, text: &str) -> Result<MaybeId, E> {
                Ok(MaybeId(text.parse().ok()))
            }
            fn visit_unit<E>(self) -> Result<MaybeId, E> {
                Ok(MaybeId(None))
            }
            fn visit_bool<E>(self, _: bool) -> Result<MaybeId, E> {
                Ok(MaybeId(None))
            }
            fn visit_i64<E>(self, _: i64) -> Result<MaybeId, E> {
                Ok(MaybeId(None))
            }
            fn visit_u64<E>(self, _: u64) -> Result<MaybeId, E> {
                Ok(MaybeId(None))
            }
            fn visit_f64<E>(self, _: f64) -> Result<MaybeId, E> {
                Ok(MaybeId(None))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<MaybeId, A::Error> {
                Ignored(Value::MAX_DEPTH).visit_seq(seq).map(|()| MaybeId(None))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<MaybeId, A::Error> {
                Ignored(Value::MAX_DEPTH).visit_map(map).map(|()| MaybeId(None))
            }
        }
        deserializer.deserialize_any(MaybeIdVisitor)
    }
}

/// Step of a line. An earlier version wrote steps up to `u64::MAX - 1`.
#[derive(Clone, Copy)]
enum AnyStep {
    Signed(i64),
    Unsigned(u64),
}

impl AnyStep {
    fn of(self, record: Record) -> Record {
        match self {
            Self::Signed(step) => record.with_signed_step(step),
            Self::Unsigned(step) => record.with_step(step),
        }
    }
}

impl<'de> Deserialize<'de> for AnyStep {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StepVisitor;
        impl Visitor<'_> for StepVisitor {
            type Value = AnyStep;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }
            fn visit_i64<E: de::Error>(self, step: i64) -> Result<AnyStep, E> {
                Ok(AnyStep::Signed(step))
            }
            fn visit_u64<E: de::Error>(self, step: u64) -> Result<AnyStep, E> {
                Ok(AnyStep::Unsigned(step))
            }
        }
        deserializer.deserialize_any(StepVisitor)
    }
}

object! {
    /// Keys of a line.
    Line {
        name: Name,
        time: Moment,
        priority: Priority,
        step: AnyStep,
        scalar: Float,
        integer: i64,
        bool: bool,
        text: String,
        histogram: Histogram,
        image: Image,
        encoded: Encoded,
        list: List,
        fields: Fields,
        source: String,
        correlation_id: String,
        session_id: String,
        sub_run: Name,
        metadata: Fields,
        tags: Vec<Name>,
        event_id: MaybeId,
    }
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = deserializer.deserialize_map(Line::default())?;
        let kinds = [
            wire.scalar.map(|float| Value::Scalar(float.0)),
            wire.integer.map(Value::Integer),
            wire.bool.map(Value::Bool),
            wire.text.map(Value::from),
            wire.histogram.map(Value::from),
            wire.image.map(Value::from),
            wire.encoded.map(Value::from),
            wire.list.map(Value::from),
            wire.fields.map(Value::from),
        ];
        let mut values = kinds.into_iter().flatten();
        let value = values.next().unwrap_or_default();
        if values.next().is_some() {
            return Err(de::Error::custom("a record has one value, this one has several"));
        }
        let name = wire.name.ok_or_else(|| de::Error::missing_field("name"))?;
        let time = wire.time.ok_or_else(|| de::Error::missing_field("time"))?;
        let mut record = Record::with_value(name, value)
            .with_unix_nanos(time.0)
            .with_priority(wire.priority.unwrap_or_default());
        if let Some(step) = wire.step {
            record = step.of(record);
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
        if let Some(name) = wire.sub_run {
            record = record.with_sub_run(name);
        }
        if let Some(metadata) = wire.metadata.filter(|metadata| !metadata.is_empty()) {
            record.extra_mut().metadata = metadata;
        }
        for tag in wire.tags.unwrap_or_default() {
            record = record.with_tag(tag);
        }
        if let Some(id) = wire.event_id.and_then(|id| id.0) {
            record.set_event_id(id);
        }
        Ok(record)
    }
}

/// Writer of bytes as base64 text (RFC 4648, with padding).
struct AsBase64<'a>(&'a [u8]);

impl Serialize for AsBase64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Base64Display::new(self.0, &STANDARD))
    }
}

impl Serialize for Image {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Image", 4)?;
        object.serialize_field("width", &self.width)?;
        object.serialize_field("height", &self.height)?;
        object.serialize_field("format", &self.format)?;
        object.serialize_field("bytes", &AsBase64(&self.bytes))?;
        object.end()
    }
}

impl Serialize for Encoded {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Encoded", 2)?;
        object.serialize_field("message", self.message())?;
        object.serialize_field("bytes", &AsBase64(self.bytes()))?;
        object.end()
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
            Value::Encoded(encoded) => wrapped(serializer, "$encoded", encoded),
            Value::List(list) => list.serialize(serializer),
            Value::Fields(fields) if fields.iter().next().is_some_and(|(name, _)| name.starts_with('$')) => {
                wrapped(serializer, "$fields", fields)
            }
            Value::Fields(fields) => fields.serialize(serializer),
            Value::TooDeep => Err(S::Error::custom(TooDeep)),
        }
    }
}

/// Error of a value that can be neither written nor read.
struct TooDeep;

impl fmt::Display for TooDeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lists and fields must be nested at most {} levels deep", Value::MAX_DEPTH)
    }
}

fn wrapped<S: Serializer>(serializer: S, key: &str, value: &impl Serialize) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(1))?;
    map.serialize_entry(key, value)?;
    map.end()
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Beneath(Value::MAX_DEPTH).deserialize(deserializer)
    }
}

/// Reader of a value of so many levels at most. Not every deserializer limits them, and each takes a part of the
/// stack.
#[derive(Clone, Copy)]
struct Beneath(usize);

impl Beneath {
    /// Returns the reader of a value inside of a list or of fields here.
    fn inside<E: de::Error>(self) -> Result<Self, E> {
        self.0.checked_sub(1).map(Self).ok_or_else(|| E::custom(TooDeep))
    }

    /// Reads the elements of a list.
    fn list<'de, A: SeqAccess<'de>>(self, mut seq: A) -> Result<List, A::Error> {
        let inside = self.inside()?;
        let mut list = List::new();
        while let Some(value) = seq.next_element_seed(inside)? {
            list.push(value);
        }
        // Some fields in it count as two levels.
        if list.depth() > Value::MAX_DEPTH { Err(de::Error::custom(TooDeep)) } else { Ok(list) }
    }

    /// Reads the rest of an object whose first key was read already.
    fn fields<'de, A: MapAccess<'de>>(self, first: Option<String>, mut map: A) -> Result<Fields, A::Error> {
        let inside = self.inside()?;
        let mut fields = Fields::new();
        let mut key = first;
        while let Some(name) = key {
            fields.set(name, map.next_value_seed(inside)?);
            key = map.next_key()?;
        }
        // Some fields count as two levels.
        if fields.depth() > Value::MAX_DEPTH { Err(de::Error::custom(TooDeep)) } else { Ok(fields) }
    }
}

impl<'de> DeserializeSeed<'de> for Beneath {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Beneath {
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
    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Value, A::Error> {
        self.list(seq).map(Value::from)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let first = map.next_key::<String>()?;
        match first.as_deref() {
            Some("$scalar") => Ok(Value::Scalar(map.next_value::<Float>()?.0)),
            Some("$histogram") => Ok(map.next_value::<Histogram>()?.into()),
            Some("$image") => Ok(map.next_value::<Image>()?.into()),
            Some("$encoded") => Ok(map.next_value::<Encoded>()?.into()),
            Some("$fields") => Ok(map.next_value_seed(FieldsBeneath(self))?.into()),
            _ => Ok(self.fields(first, map)?.into()),
        }
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        FieldsBeneath(Beneath(Value::MAX_DEPTH)).deserialize(deserializer)
    }
}

/// Reader of fields of so many levels at most.
struct FieldsBeneath(Beneath);

impl<'de> DeserializeSeed<'de> for FieldsBeneath {
    type Value = Fields;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Fields, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FieldsBeneath {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        self.0.fields(map.next_key()?, map)
    }
}

impl Serialize for List {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self)
    }
}

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor;
        impl<'de> Visitor<'de> for ListVisitor {
            type Value = List;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<List, A::Error> {
                Beneath(Value::MAX_DEPTH).list(seq)
            }
        }
        deserializer.deserialize_seq(ListVisitor)
    }
}

/// Writer of a text as JSON text.
impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

object! {
    HistogramObject {
        edges: Vec<f64>,
        counts: Vec<u64>,
        sum: Float,
        sum_of_squares: Float,
        non_finite: u64,
    }
}

impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The edges are finite, but sums may have overflowed.
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
        let wire = deserializer.deserialize_map(HistogramObject::default())?;
        let histogram = Histogram::from_counts(
            wire.edges.ok_or_else(|| de::Error::missing_field("edges"))?,
            wire.counts.ok_or_else(|| de::Error::missing_field("counts"))?,
            wire.sum.ok_or_else(|| de::Error::missing_field("sum"))?.0,
            wire.sum_of_squares.ok_or_else(|| de::Error::missing_field("sum_of_squares"))?.0,
        );
        let histogram = histogram.map_err(de::Error::custom)?;
        Ok(Histogram { non_finite: wire.non_finite.unwrap_or_default(), ..histogram })
    }
}

object! {
    ImageObject {
        width: u32,
        height: u32,
        format: ImageFormat,
        bytes: Base64,
    }
}

impl<'de> Deserialize<'de> for Image {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = deserializer.deserialize_map(ImageObject::default())?;
        Ok(Image {
            width: wire.width.ok_or_else(|| de::Error::missing_field("width"))?,
            height: wire.height.ok_or_else(|| de::Error::missing_field("height"))?,
            format: wire.format.ok_or_else(|| de::Error::missing_field("format"))?,
            bytes: wire.bytes.ok_or_else(|| de::Error::missing_field("bytes"))?.0,
        })
    }
}

object! {
    EncodedObject {
        message: String,
        bytes: Base64,
    }
}

impl<'de> Deserialize<'de> for Encoded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = deserializer.deserialize_map(EncodedObject::default())?;
        let message = wire.message.ok_or_else(|| de::Error::missing_field("message"))?;
        let bytes = wire.bytes.ok_or_else(|| de::Error::missing_field("bytes"))?.0.into();
        match &*message {
            "Summary" => Ok(Encoded::Summary(bytes)),
            "Event" => Ok(Encoded::Event(bytes)),
            other => Err(de::Error::unknown_variant(other, &["Summary", "Event"])),
        }
    }
}

/// Reader of bytes from base64 text (RFC 4648, with padding).
struct Base64(Vec<u8>);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        STANDARD.decode(&*text).map(Self).map_err(de::Error::custom)
    }
}
