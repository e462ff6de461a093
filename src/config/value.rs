//! Interpretation of values of any format.

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Text that stands for no value.
pub(super) const NONE: &str = "none";

/// Element type of a setting that is a list.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Parts {
    /// The setting is no list.
    None,
    /// A list of texts. Empty ones between commas do not count, so that a comma is an empty list.
    Texts,
    /// A list of something else. Each part must be there.
    Others,
}

/// Returns the values that a value may stand for, best first. A text may stand for every value, because variables
/// hold nothing else. Where a list is expected, a text stands for its parts, and a number for a list of one.
pub(super) fn candidates(value: &Value, parts: Parts) -> Vec<Value> {
    let Value::String(text) = value else {
        let list = (parts != Parts::None && value.is_number()).then(|| vec![value.clone()].into());
        return [value.clone(), loosened(value, MAX_TABLES)].into_iter().chain(list).collect();
    };
    let word = [loosened(value, MAX_TABLES)].into_iter().filter(|word| !word.is_string());
    let none = word.clone().filter(Value::is_null);
    let list = match parts {
        Parts::None => None,
        Parts::Texts => Some(between_commas(text).filter(|part| !part.is_empty()).map(Value::from).collect()),
        Parts::Others => Some(between_commas(text).map(Value::from).collect()),
    };
    none.chain([value.clone(), text.trim().into()]).chain(word).chain(list).collect()
}

/// Maximum depth of texts that are tables within tables: the sampling of a rule.
const MAX_TABLES: usize = 2;

/// Returns the value with every text replaced that stands for nothing, a switch, a number or a table.
fn loosened(value: &Value, tables: usize) -> Value {
    match value {
        Value::String(text) => match text.trim() {
            NONE => Value::Null,
            "true" => true.into(),
            "false" => false.into(),
            text => number(text).or_else(|| table(text, tables)).unwrap_or_else(|| value.clone()),
        },
        Value::Array(all) => all.iter().map(|value| loosened(value, tables)).collect(),
        Value::Object(table) => {
            // A pattern is a text, whatever it looks like.
            let inner =
                |name, value| if name == "pattern" { Value::clone(value) } else { loosened(value, tables) };
            table.iter().map(|(name, value)| (name.clone(), inner(name, value))).collect()
        }
        other => other.clone(),
    }
}

/// Returns the number that a text spells.
pub(super) fn number(text: &str) -> Option<Value> {
    let whole = text.parse::<u64>().ok().map(Number::from);
    whole.or_else(|| text.parse().ok().and_then(Number::from_f64)).map(Value::Number)
}

/// Reads a text of the form `rate=0.1, window=1s`.
fn table(text: &str, tables: usize) -> Option<Value> {
    let tables = tables.checked_sub(1)?;
    let mut table = Map::new();
    for part in text.split(',') {
        let (name, value) = part.split_once('=')?;
        if table.insert(name.trim().to_owned(), loosened(&value.trim().into(), tables)).is_some() {
            return None;
        }
    }
    Some(table.into())
}

/// Returns the parts of a text. Commas in braces and brackets belong to a pattern.
fn between_commas(text: &str) -> impl Iterator<Item = &str> {
    let (mut depth, mut is_in_class) = (0_usize, false);
    let parts = text.split(move |char| {
        match char {
            ']' => is_in_class = false,
            _ if is_in_class => {}
            '[' => is_in_class = true,
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        char == ',' && depth == 0 && !is_in_class
    });
    parts.map(str::trim)
}

/// Returns whether both have the same structure of lists, tables and words. Serde reads a list as a table, by
/// position, and a number or a table as a word; a setting must not. (A number is also a duration, which is written as
/// a text.)
pub(super) fn have_one_shape(given: &Value, read: &Value) -> bool {
    match (given, read) {
        (Value::Array(given), Value::Array(read)) => {
            given.iter().zip(read).all(|(a, b)| have_one_shape(a, b))
        }
        (Value::Array(_), _) => false,
        (Value::Object(given), Value::Object(read)) => {
            given.iter().all(|(name, value)| read.get(name).is_none_or(|read| have_one_shape(value, read)))
        }
        (Value::Object(_), Value::String(_)) => false,
        (Value::Number(_), Value::String(read)) => humantime::parse_duration(read).is_ok(),
        _ => true,
    }
}

/// Reads a table of settings from any format, to a limited depth. `serde_json` would follow any depth, where the
/// format has no limit.
pub(super) fn read_table<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Map<String, Value>, D::Error> {
    match deserializer.deserialize_map(Nested { levels: MAX_LEVELS })? {
        Value::Object(table) => Ok(table),
        _ => Err(de::Error::custom("settings must be a table")),
    }
}

/// Maximum depth of a value. Settings themselves have four levels.
const MAX_LEVELS: usize = 32;

/// Reader of a value of so many levels at most.
#[derive(Clone, Copy)]
struct Nested {
    levels: usize,
}

impl Nested {
    fn inside<E: de::Error>(self) -> Result<Self, E> {
        let too_deep = || E::custom(format_args!("settings must be nested at most {MAX_LEVELS} levels deep"));
        self.levels.checked_sub(1).map(|levels| Self { levels }).ok_or_else(too_deep)
    }
}

impl<'de> DeserializeSeed<'de> for Nested {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Nested {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a table of settings")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.inside()?.deserialize(deserializer)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or_else(|| value.to_string().into(), Value::Number))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inside = self.inside()?;
        let mut all = Vec::new();
        while let Some(value) = seq.next_element_seed(inside)? {
            all.push(value);
        }
        Ok(Value::Array(all))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inside = self.inside()?;
        let mut table = Map::new();
        while let Some(name) = map.next_key()? {
            table.insert(name, map.next_value_seed(inside)?);
        }
        Ok(Value::Object(table))
    }
}
