//! Hyper-parameters of a run, as TensorBoard's table shows them.

use std::collections::HashSet;

use tfevents::Setting;

use crate::event::{Fields, Value};

/// Size in bytes that the paths of all settings of a run may take.
const MAX_PATH_BYTES: usize = 1 << 20;

/// Settings of a run without their nesting: `optimizer/lr`.
///
/// Settings without a value are not among them. Of two settings with one path the later is left out, and so is a setting that
/// would bring the paths beyond 1 MiB.
#[derive(Debug, Default)]
pub(super) struct Hparams<'a> {
    settings: Vec<(Box<str>, &'a Value, String)>,
    /// The number of settings that are left out.
    pub(super) left_out: u64,
}

impl<'a> Hparams<'a> {
    /// Flattens the settings of a run.
    pub(super) fn flatten(settings: &'a Fields) -> Self {
        let mut walk = Walk::default();
        walk.enter(settings);
        walk.found
    }

    /// Returns the settings and their paths. The table knows numbers, truth values and texts; all else is a text (`[64, 32]`).
    pub(super) fn settings(&self) -> Vec<(&str, Setting<'_>)> {
        let setting = |value: &'a Value, text| match value {
            Value::Bool(is) => Setting::Bool(*is),
            other => other.as_f64().map_or(Setting::Text(text), Setting::Number),
        };
        self.settings.iter().map(|(path, value, text)| (&**path, setting(value, text.as_str()))).collect()
    }
}

/// State of the walk over nested settings.
#[derive(Default)]
struct Walk<'a> {
    path: String,
    /// The paths so far, and their size in bytes.
    known: HashSet<Box<str>>,
    bytes: usize,
    found: Hparams<'a>,
}

impl<'a> Walk<'a> {
    fn enter(&mut self, settings: &'a Fields) {
        let end = self.path.len();
        for (name, setting) in settings.iter() {
            if self.bytes > MAX_PATH_BYTES {
                // The path is not even put together: that would take the square of its length.
                self.found.left_out += 1;
                continue;
            }
            if end > 0 {
                self.path.push('/');
            }
            self.path.push_str(name);
            self.bytes += self.path.len();
            match setting {
                Value::Empty => {}
                Value::Fields(inner) if !inner.is_empty() => self.enter(inner),
                // The values inside were left out when the record was made.
                Value::TooDeep => self.found.left_out += 1,
                _ if self.bytes > MAX_PATH_BYTES || !self.known.insert(self.path.as_str().into()) => {
                    self.found.left_out += 1;
                }
                setting => self.found.settings.push((self.path.as_str().into(), setting, text_of(setting))),
            }
            self.path.truncate(end);
        }
    }
}

/// Returns the text of a setting that is neither a number nor a truth value; empty for those.
fn text_of(setting: &Value) -> String {
    match setting {
        Value::Text(text) => text.to_string(),
        Value::Bool(_) => String::new(),
        other if other.as_f64().is_some() => String::new(),
        other => other.to_string(),
    }
}
