//! Names of all settings outside of Rust: the table for files, variables, serde and the documentation.

use serde_json::{Number, Value};

use super::value::number;

/// Beginning of the name of every variable.
pub(super) const PREFIX: &str = "FOREBAY_";

/// Key of a setting.
#[derive(Debug)]
pub struct Key {
    /// The name in a file, with dots between tables.
    pub name: &'static str,
    /// Other names in a file: those of the documents to which this crate was written.
    pub aliases: &'static [Alias],
}

/// Alias of a setting.
#[derive(Debug)]
pub struct Alias {
    /// The name in a file.
    pub name: &'static str,
    /// Converts a value under the alias to one under the setting's own name.
    pub meant: fn(&Value) -> Value,
}

/// Makes a key with its aliases.
pub const fn key(name: &'static str, aliases: &'static [Alias]) -> Key {
    Key { name, aliases }
}

/// Makes an alias that does not convert the value.
pub const fn same(name: &'static str) -> Alias {
    Alias { name, meant: Value::clone }
}

/// Makes an alias under which a bare number is in milliseconds, even inside a list.
pub const fn millis(name: &'static str) -> Alias {
    Alias { name, meant: in_millis }
}

fn in_millis(value: &Value) -> Value {
    match value {
        Value::Array(all) => all.iter().map(in_millis).collect(),
        Value::String(text) if text.contains(',') => {
            text.split(',').map(|one| in_millis(&one.trim().into())).collect()
        }
        value => scaled(value, |millis| Number::from_f64(millis / 1e3).map(Value::Number)),
    }
}

/// Makes an alias under which a bare number is in MiB.
const fn mib(name: &'static str) -> Alias {
    let meant = |value: &Value| {
        scaled(value, |mib| {
            let bytes = mib * f64::from(1 << 20);
            let is_whole = bytes.fract() == 0.0 && (0.0..9e15).contains(&bytes);
            Some(if is_whole { (bytes as u64).into() } else { bytes.to_string().into() })
        })
    };
    Alias { name, meant }
}

/// Converts a number, or a text that spells one, to another unit. Returns every other value as it is, so that it is
/// refused under its own text.
fn scaled(value: &Value, unit: impl Fn(f64) -> Option<Value>) -> Value {
    let spelled = value.as_str().and_then(|text| number(text.trim()));
    let scaled = spelled.as_ref().unwrap_or(value).as_f64().and_then(unit);
    scaled.unwrap_or_else(|| value.clone())
}

/// Settings of a collector, in the order of `docs/configuration.md`.
pub(super) static KEYS: &[Key] = &[
    key("capacity", &[same("ring_capacity"), same("maxQueueSize"), same("memoryLimits.maxQueueSize")]),
    key("critical_capacity", &[]),
    key("low_capacity", &[]),
    key("shards", &[]),
    key("lanes", &[]),
    key("max_lanes", &[]),
    key("max_bytes", &[mib("maxMemoryMB"), mib("memoryLimits.totalMemoryMB")]),
    key("batch_size", &[]),
    key("overflow", &[]),
    key("overflow_timeout", &[]),
    key("flush.strategy", &[]),
    key("flush.events", &[]),
    key("flush.interval", &[millis("flushInterval")]),
    key("max_nap", &[]),
    key("critical_timeout", &[]),
    key("flush_timeout", &[]),
    key("stop_timeout", &[same("shutdown_timeout"), millis("reliabilityLimits.gracefulShutdownTimeout")]),
    key("drop_timeout", &[]),
    key("session_id", &[]),
    key("source", &[]),
    key("host", &[]),
    key("rank", &[]),
    key("thread_name", &[]),
    key("thread_stack_size", &[]),
    key("gate.enabled", &[same("enabled")]),
    key("gate.allow", &[]),
    key("gate.deny", &[]),
    key("gate.rules", &[]),
    key("gate.min_priority", &[]),
    key("gate.sampling", &[]),
    key("gate.rate_limit", &[same("performanceLimits.maxInputRate")]),
    key("gate.max_event_bytes", &[same("maxEventSize"), same("memoryLimits.maxEventSize")]),
    key("gate.seed", &[]),
    key("health.queue_depth.raise", &[]),
    key("health.queue_depth.clear", &[]),
    key("health.memory.raise", &[]),
    key("health.memory.clear", &[]),
    key("health.failing.raise", &[]),
    key("health.failing.clear", &[]),
    key("health.max_busy_time", &[]),
    key("health.max_latency", &[millis("performanceLimits.maxQueueLatency")]),
    key("health.min_rate", &[same("performanceLimits.targetProcessingRate")]),
    key("health.max_dead_letters", &[]),
];

impl Key {
    /// Returns the name of its variable.
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.name.to_uppercase().replace('.', "__"))
    }

    /// Returns its name and all others, with what a value means under each.
    pub fn names(&self) -> impl Iterator<Item = (&'static str, fn(&Value) -> Value)> {
        let own: (&'static str, fn(&Value) -> Value) = (self.name, Value::clone);
        [own].into_iter().chain(self.aliases.iter().map(|alias| (alias.name, alias.meant)))
    }
}
