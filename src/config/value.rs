//! Values of settings as files and variables tell them: numbers, tables, and for everything a text.

use std::time::Duration;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::draft::{Policy, Strategy};
use super::gate::{NameRule, Sampling};
use crate::event::Priority;
use crate::pattern::Pattern;

/// What a value that is read is called when it is not there.
pub(super) const NONE: &str = "none";

/// Reads a table of settings. `serde_json` would follow one that is nested to any depth, where the deserializer has no limit.
pub(super) fn read_table<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Map<String, Value>, D::Error> {
    match deserializer.deserialize_map(Nested { levels: MAX_LEVELS })? {
        Value::Object(table) => Ok(table),
        // A deserializer that gives something else has its own mind.
        _ => Err(de::Error::custom("settings must be a table")),
    }
}

/// Settings themselves have four.
const MAX_LEVELS: usize = 32;

/// Reads a value of so many levels at most.
#[derive(Clone, Copy)]
struct Nested {
    levels: usize,
}

impl Nested {
    fn inside<E: de::Error>(self) -> Result<Self, E> {
        let levels = self.levels.checked_sub(1);
        let too_deep = || E::custom(format_args!("settings must be nested at most {MAX_LEVELS} levels deep"));
        levels.map(|levels| Self { levels }).ok_or_else(too_deep)
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
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
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

/// What a setting may be. A text stands for every value that it can spell, since variables know nothing else.
pub(super) trait Setting: Sized {
    /// For the error.
    fn allowed() -> String;

    fn read(value: &Value) -> Result<Self, Wrong>;

    /// What `read` reads as the same.
    fn write(&self) -> Value;
}

/// Why a value cannot be read.
#[derive(Debug)]
pub(super) enum Wrong {
    /// It is none of those that are allowed.
    Value,
    /// A part of it is not.
    Part { value: String, allowed: String },
    /// A table in it has this key.
    Key(String),
}

impl Wrong {
    fn within(self, part: &str) -> Self {
        match self {
            Self::Key(key) => Self::Key(format!("{part}.{key}")),
            other => other,
        }
    }
}

macro_rules! whole_numbers {
    ($($kind:ty),*) => {$(
        impl Setting for $kind {
            fn allowed() -> String {
                format!("a whole number up to {}", Self::MAX)
            }

            fn read(value: &Value) -> Result<Self, Wrong> {
                let number = match value {
                    Value::Number(number) => number.as_u64().and_then(|number| number.try_into().ok()),
                    Value::String(text) => text.trim().parse().ok(),
                    _ => None,
                };
                number.ok_or(Wrong::Value)
            }

            fn write(&self) -> Value {
                // Above that, TOML has no numbers.
                i64::try_from(*self).map_or_else(|_| self.to_string().into(), Value::from)
            }
        }
    )*};
}

whole_numbers!(usize, u32, u64);

impl Setting for f64 {
    fn allowed() -> String {
        "a number".to_owned()
    }

    fn read(value: &Value) -> Result<Self, Wrong> {
        let number = match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        number.ok_or(Wrong::Value)
    }

    fn write(&self) -> Value {
        (*self).into()
    }
}

impl Setting for bool {
    fn allowed() -> String {
        "true or false".to_owned()
    }

    fn read(value: &Value) -> Result<Self, Wrong> {
        match value {
            Value::Bool(is_on) => Ok(*is_on),
            value => word(value, &[("true", true), ("false", false)]),
        }
    }

    fn write(&self) -> Value {
        (*self).into()
    }
}

impl Setting for String {
    fn allowed() -> String {
        "a text".to_owned()
    }

    fn read(value: &Value) -> Result<Self, Wrong> {
        value.as_str().map(str::to_owned).ok_or(Wrong::Value)
    }

    fn write(&self) -> Value {
        self.as_str().into()
    }
}

impl Setting for Duration {
    fn allowed() -> String {
        "a duration such as \"250ms\" or \"1s 500ms\", or a number of seconds".to_owned()
    }

    fn read(value: &Value) -> Result<Self, Wrong> {
        let wait = match value {
            Value::Number(number) => match number.as_u64() {
                Some(seconds) => Some(Duration::from_secs(seconds)),
                None => number.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            },
            Value::String(text) => match text.trim().parse() {
                Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
                Err(_) => humantime::parse_duration(text.trim()).ok(),
            },
            _ => None,
        };
        wait.ok_or(Wrong::Value)
    }

    fn write(&self) -> Value {
        humantime::format_duration(*self).to_string().into()
    }
}

impl<T: Setting> Setting for Option<T> {
    fn allowed() -> String {
        format!("{}, or \"{NONE}\"", T::allowed())
    }

    fn read(value: &Value) -> Result<Self, Wrong> {
        let is_none = value.is_null() || value.as_str().is_some_and(|text| text.trim() == NONE);
        if is_none { Ok(None) } else { T::read(value).map(Some) }
    }

    fn write(&self) -> Value {
        self.as_ref().map_or(Value::Null, T::write)
    }
}

const PRIORITIES: [(&str, Priority); 3] =
    [("critical", Priority::Critical), ("normal", Priority::Normal), ("low", Priority::Low)];

const POLICIES: [(&str, Policy); 3] =
    [("drop_oldest", Policy::DropOldest), ("drop_newest", Policy::DropNewest), ("block", Policy::Block)];

const STRATEGIES: [(&str, Strategy); 4] = [
    ("time", Strategy::Time),
    ("size", Strategy::Size),
    ("hybrid", Strategy::Hybrid),
    ("manual", Strategy::Manual),
];

macro_rules! words {
    ($($kind:ty: $words:ident),*) => {$(
        impl Setting for $kind {
            fn allowed() -> String {
                let words: Vec<&str> = $words.iter().map(|(word, _)| *word).collect();
                words.join(", ")
            }

            fn read(value: &Value) -> Result<Self, Wrong> {
                word(value, &$words)
            }

            fn write(&self) -> Value {
                $words.iter().find(|(_, meant)| meant == self).map_or(Value::Null, |(word, _)| (*word).into())
            }
        }
    )*};
}

pub(super) use words;

words!(Priority: PRIORITIES, Policy: POLICIES, Strategy: STRATEGIES);

pub(super) fn word<T: Copy>(value: &Value, words: &[(&str, T)]) -> Result<T, Wrong> {
    let text = value.as_str().ok_or(Wrong::Value)?.trim();
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, meant)| *meant).ok_or(Wrong::Value)
}

impl Setting for Pattern {
    fn allowed() -> String {
        "a pattern".to_owned()
    }

    fn read(value: &Value) -> Result<Self, Wrong> {
        let text = value.as_str().ok_or(Wrong::Value)?;
        Pattern::new(text.trim()).map_err(|error| Wrong::Part {
            value: format!("{:?}", error.pattern),
            allowed: format!("a pattern: {}", error.why),
        })
    }

    fn write(&self) -> Value {
        self.as_str().into()
    }
}

impl Setting for Vec<Pattern> {
    fn allowed() -> String {
        "patterns, as an array of texts or a text with commas between them".to_owned()
    }

    fn read(value: &Value) -> Result<Self, Wrong> {
        match value {
            Value::Array(all) => all.iter().map(Pattern::read).collect(),
            Value::String(text) => between_commas(text).map(|one| Pattern::read(&one.into())).collect(),
            _ => Err(Wrong::Value),
        }
    }

    fn write(&self) -> Value {
        self.iter().map(Pattern::write).collect()
    }
}

/// The parts of a text, without those that are empty. Commas in braces and brackets belong to a pattern.
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
    parts.map(str::trim).filter(|part| !part.is_empty())
}

impl Setting for Sampling {
    fn allowed() -> String {
        "rate (with min_per_window and window), or every, or first and every, or keyed".to_owned()
    }

    fn read(value: &Value) -> Result<Self, Wrong> {
        let parts = Parts::of(value, &["rate", "min_per_window", "window", "every", "first", "keyed"])?;
        let (rate, keyed) = (parts.get("rate")?, parts.get("keyed")?);
        let (every, first) = (parts.get("every")?, parts.get("first")?);
        match (rate, every, first, keyed, parts.get("min_per_window")?, parts.get("window")?) {
            (Some(rate), None, None, None, least, window) => Ok(Self::Rate {
                rate,
                min_per_window: least.unwrap_or(0),
                window: window.unwrap_or(Duration::from_secs(1)),
            }),
            (None, Some(nth), None, None, None, None) => Ok(Self::Every { nth }),
            (None, Some(every), Some(first), None, None, None) => Ok(Self::FirstThenEvery { first, every }),
            (None, None, None, Some(rate), None, None) => Ok(Self::Keyed { rate }),
            _ => Err(Wrong::Value),
        }
    }

    fn write(&self) -> Value {
        match self {
            Self::Rate { rate, min_per_window, window } => serde_json::json!({
                "rate": rate, "min_per_window": min_per_window, "window": window.write()
            }),
            Self::Every { nth } => serde_json::json!({ "every": nth }),
            Self::FirstThenEvery { first, every } => serde_json::json!({ "first": first, "every": every }),
            Self::Keyed { rate } => serde_json::json!({ "keyed": rate }),
        }
    }
}

impl Setting for Vec<NameRule> {
    fn allowed() -> String {
        "an array of tables with pattern, min_priority and sampling, which a variable cannot hold".to_owned()
    }

    fn read(value: &Value) -> Result<Self, Wrong> {
        value.as_array().ok_or(Wrong::Value)?.iter().map(rule).collect()
    }

    fn write(&self) -> Value {
        let rule = |rule: &NameRule| {
            let mut table = Map::new();
            table.insert("pattern".to_owned(), rule.pattern.write());
            let settings = [("min_priority", rule.min_priority.write()), ("sampling", rule.sampling.write())];
            for (name, value) in settings.into_iter().filter(|(_, value)| !value.is_null()) {
                table.insert(name.to_owned(), value);
            }
            Value::Object(table)
        };
        self.iter().map(rule).collect()
    }
}

fn rule(value: &Value) -> Result<NameRule, Wrong> {
    if !value.is_object() {
        return Err(Wrong::Value);
    }
    let parts = Parts::of(value, &["pattern", "min_priority", "sampling"])?;
    let mut rule = NameRule::new(parts.get::<Pattern>("pattern")?.ok_or(Wrong::Value)?);
    rule.min_priority = parts.get::<Option<Priority>>("min_priority")?.flatten();
    rule.sampling = parts.get::<Option<Sampling>>("sampling")?.flatten();
    Ok(rule)
}

/// The parts of a value that has several: a table, or a text of the form `rate=0.1, window=1s`.
pub(super) struct Parts(Map<String, Value>);

impl Parts {
    pub(super) fn of(value: &Value, known: &[&str]) -> Result<Self, Wrong> {
        let parts = match value {
            Value::Object(table) => table.clone(),
            Value::String(text) => {
                let mut table = Map::new();
                for part in text.split(',') {
                    let (name, value) = part.split_once('=').ok_or(Wrong::Value)?;
                    let before = table.insert(name.trim().to_owned(), value.trim().into());
                    before.map_or(Ok(()), |_| Err(Wrong::Value))?;
                }
                table
            }
            _ => return Err(Wrong::Value),
        };
        match parts.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(Wrong::Key(key.clone())),
            None => Ok(Self(parts)),
        }
    }

    pub(super) fn get<T: Setting>(&self, name: &str) -> Result<Option<T>, Wrong> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        T::read(value).map(Some).map_err(|wrong| match wrong {
            Wrong::Value => Wrong::Part { value: format!("{name} = {value}"), allowed: T::allowed() },
            wrong => wrong.within(name),
        })
    }
}
