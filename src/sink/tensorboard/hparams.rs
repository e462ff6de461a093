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
    settings: Vec<(Box<str>, Shown<'a>)>,
    /// The number of settings that are left out.
    pub(super) left_out: u64,
}

impl<'a> Hparams<'a> {
    /// Gives every setting of a run, also a nested one, a path of its own: `optimizer/lr`.
    pub(super) fn flatten(settings: &'a Fields) -> Self {
        let mut walk = Walk::default();
        walk.enter(settings);
        walk.found
    }

    /// Returns the settings and their paths.
    pub(super) fn settings<'s>(&'s self) -> Vec<(&'s str, Setting<'s>)> {
        let setting = |(path, shown): &'s (Box<str>, Shown<'a>)| {
            let setting = match shown {
                Shown::Same(setting) => *setting,
                Shown::Written(text) => Setting::Text(text),
            };
            (&**path, setting)
        };
        self.settings.iter().map(setting).collect()
    }
}

/// Setting as the table shows it, which knows finite numbers, truth values and texts. All else is a text: `[64, 32]`, `NaN`.
#[derive(Debug)]
enum Shown<'a> {
    Same(Setting<'a>),
    Written(String),
}

impl<'a> Shown<'a> {
    fn of(value: &'a Value) -> Self {
        match value {
            Value::Bool(is) => Self::Same(Setting::Bool(*is)),
            Value::Text(text) => Self::Same(Setting::Text(text)),
            other => match other.as_f64() {
                Some(number) if number.is_finite() => Self::Same(Setting::Number(number)),
                // TensorBoard's table fails as a whole on a number that is none.
                _ => Self::Written(other.to_string()),
            },
        }
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
                setting => self.found.settings.push((self.path.as_str().into(), Shown::of(setting))),
            }
            self.path.truncate(end);
        }
    }
}
