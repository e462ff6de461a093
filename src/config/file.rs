//! Settings in TOML.

use std::path::Path;

use serde_json::{Map, Number, Value};

use super::error::{ConfigError, ConfigPlace};
use super::layers::{ConfigLoader, Layer};
use super::settings::Config;
use super::value::NONE;

impl Config {
    /// The defaults, changed by a text in TOML. The environment is not asked.
    ///
    /// # Errors
    ///
    /// As for [`ConfigLoader::load`].
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        ConfigLoader::new().toml(text).load()
    }

    /// The defaults, changed by a file in TOML. The environment is not asked.
    ///
    /// # Errors
    ///
    /// As for [`ConfigLoader::load`].
    pub fn from_toml_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        ConfigLoader::new().toml_file(path).load()
    }

    /// Every setting, in TOML that [`from_toml`](Self::from_toml) reads as the same settings.
    ///
    /// Two things have no spelling there: the text `none` for a session id, a source or a host, which is read as none, and a
    /// pattern of the gate that [is none](crate::Pattern::new), which is refused.
    pub fn to_toml(&self) -> String {
        write(self.to_table())
    }
}

pub(super) fn write(table: Map<String, Value>) -> String {
    let table: toml::Table = table.into_iter().map(|(name, value)| (name, to_toml(value))).collect();
    table.to_string()
}

impl ConfigLoader {
    /// Adds a text in TOML, over the texts and files before it.
    pub fn toml(self, text: &str) -> Self {
        self.text(read(ConfigPlace::Given, text))
    }

    /// Adds a file in TOML, over the texts and files before it. It is read now; what is wrong is told by
    /// [`load`](Self::load).
    pub fn toml_file(self, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_owned();
        let layer = match std::fs::read_to_string(&path) {
            Ok(text) => read(ConfigPlace::File(path), &text),
            Err(error) => Err(ConfigError::Unreadable { path, why: error.to_string() }),
        };
        self.text(layer)
    }
}

fn read(place: ConfigPlace, text: &str) -> Result<Layer, ConfigError> {
    let table = match text.parse::<toml::Table>() {
        Ok(table) => table,
        Err(error) => {
            let start = error.span().map_or(0, |span| span.start);
            let before = text.get(..start).unwrap_or(text);
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or(before).chars().count() + 1;
            return Err(ConfigError::Syntax { place, line, column, why: error.message().to_owned() });
        }
    };
    Layer::of_table(place, table.into_iter().map(|(name, value)| (name, from_toml(value))).collect())
}

/// What JSON has no value for becomes a text.
fn from_toml(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => {
            Number::from_f64(number).map_or_else(|| number.to_string().into(), Value::Number)
        }
        toml::Value::Boolean(is_on) => is_on.into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(all) => all.into_iter().map(from_toml).collect(),
        toml::Value::Table(table) => {
            Value::Object(table.into_iter().map(|(name, value)| (name, from_toml(value))).collect())
        }
    }
}

/// What TOML has no value for becomes a text, which is read as the same.
fn to_toml(value: Value) -> toml::Value {
    match value {
        Value::Null => NONE.into(),
        Value::Bool(is_on) => is_on.into(),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => whole.into(),
            (None, Some(float)) => float.into(),
            (None, None) => number.to_string().into(),
        },
        Value::String(text) => text.into(),
        Value::Array(all) => toml::Value::Array(all.into_iter().map(to_toml).collect()),
        Value::Object(table) => {
            toml::Value::Table(table.into_iter().map(|(name, value)| (name, to_toml(value))).collect())
        }
    }
}
