//! `Visitor`: the fields of events and spans as values of forebay.

use std::error::Error;
use std::fmt::{self, Debug, Write};

use forebay::bridge::Bridge;
use forebay::event::Text;
use forebay::{Fields, Name, Value};
use tracing_core::Event;
use tracing_core::field::{Field, Visit};

use crate::callsites::Found;

/// Collects fields. User code that formats a value cannot fail here: see [`Bridge::text`].
pub(crate) struct Visitor<'a> {
    pub(crate) fields: Fields,
    pub(crate) step: Option<i64>,
    /// The place, where it is that of an event.
    pub(crate) callsite: Option<&'a Found>,
    pub(crate) is_of_log: bool,
    pub(crate) max_text_bytes: usize,
    pub(crate) bridge: &'a Bridge,
}

impl Visitor<'_> {
    fn set(&mut self, field: &Field, value: impl Into<Value>) {
        let name = field.name();
        // As `r#type = 1` is written.
        let name = name.strip_prefix("r#").unwrap_or(name);
        self.fields.set(Name::from_static(name), value);
    }

    fn set_integer(&mut self, field: &Field, value: i64) {
        if field.name() == "step" {
            self.step = Some(value);
        } else {
            self.set(field, value);
        }
    }

    /// Sets a number that is larger than those of forebay, with all of its digits.
    fn set_large(&mut self, field: &Field, value: impl fmt::Display) {
        let text = self.text(format_args!("{value}"));
        self.set(field, text);
    }

    fn text(&self, arguments: fmt::Arguments<'_>) -> Text {
        self.bridge.text(self.max_text_bytes, arguments)
    }
}

impl Visit for Visitor<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set_integer(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match i64::try_from(value) {
            Ok(value) if !(self.is_of_log && field.name() == "log.line") => self.set_integer(field, value),
            Ok(_) => {}
            Err(_) => self.set_large(field, value),
        }
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        match i64::try_from(value) {
            Ok(value) => self.set_integer(field, value),
            Err(_) => self.set_large(field, value),
        }
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        match i64::try_from(value) {
            Ok(value) => self.set_integer(field, value),
            Err(_) => self.set_large(field, value),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        // The target is in the name. The others no reader of logs asks for, and other events do not have them.
        if self.is_of_log && matches!(field.name(), "log.target" | "log.module_path" | "log.file") {
            return;
        }
        let text = if value.len() <= self.max_text_bytes {
            Text::from(value)
        } else {
            self.text(format_args!("{value}"))
        };
        self.set(field, text);
    }

    fn record_bytes(&mut self, field: &Field, value: &[u8]) {
        let text = self.text(format_args!("{}", Hex(value)));
        self.set(field, text);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let text = self.text(format_args!("{value}"));
        self.set(field, text);
        let causes = self.bridge.causes(self.max_text_bytes, value);
        if !causes.is_empty() {
            self.fields.set(format!("{}.sources", field.name()), causes);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let callsite = self.callsite.filter(|_| field.name() == "message");
        let known = callsite.and_then(Found::message);
        let text = self.bridge.text_known(self.max_text_bytes, format_args!("{value:?}"), known);
        if let Some(callsite) = callsite.filter(|_| known.is_none()) {
            callsite.keep_message(&text);
        }
        self.set(field, text);
    }
}

/// Target of an event of the crate `log`, which stands in a field. It is read before all else, so that no value is formatted for it.
pub(crate) struct LogTarget(Option<String>);

impl LogTarget {
    pub(crate) fn of(event: &Event<'_>) -> Option<String> {
        let mut target = Self(None);
        event.record(&mut target);
        target.0
    }
}

impl Visit for LogTarget {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "log.target" {
            self.0 = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

/// Bytes as digits.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: [char; 16] =
            ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
        self.0.iter().try_for_each(|byte| {
            f.write_char(DIGITS[usize::from(byte >> 4)])?;
            f.write_char(DIGITS[usize::from(byte & 15)])
        })
    }
}
