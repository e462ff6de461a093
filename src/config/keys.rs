//! What every setting is called outside of Rust: the one table, for files, variables, serde and the documentation.

use serde_json::{Number, Value};

use super::draft::Draft;
use super::value::{Setting, Wrong};

/// With what the name of a variable begins.
pub(super) const PREFIX: &str = "FOREBAY_";

/// With what the name of a setting of a bus begins.
const OF_BUS: &str = "bus.";

/// A setting. [`KEYS`] has them all.
pub(super) struct Key {
    /// The name in a file; dots are between tables.
    pub(super) name: &'static str,
    /// Other names in a file, those of the documents that this crate was written to.
    pub(super) aliases: &'static [Alias],
    /// Puts a value into its place.
    pub(super) set: fn(&mut Draft, &Value) -> Result<(), Wrong>,
    /// The value in that place, as `set` reads it; null if there is none.
    pub(super) get: fn(&Draft) -> Value,
    /// What `set` takes.
    pub(super) allowed: fn() -> String,
}

/// What a value that stands under some name is under the setting's own.
type Meaning = fn(&Value) -> Value;

/// Another name of a setting.
pub(super) struct Alias {
    name: &'static str,
    meant: Meaning,
}

/// An alias under which a value means what it always means.
const fn same(name: &'static str) -> Alias {
    Alias { name, meant: Value::clone }
}

/// An alias under which a bare number is one of milliseconds.
const fn millis(name: &'static str) -> Alias {
    Alias { name, meant: in_millis }
}

fn in_millis(value: &Value) -> Value {
    // What is no number of seconds is refused, by what it says.
    let seconds = number(value).and_then(|millis| Number::from_f64(millis / 1e3));
    seconds.map_or_else(|| value.clone(), Value::Number)
}

/// An alias under which true is `inline`, and false `refuse`.
const fn on_or_off(name: &'static str) -> Alias {
    let meant: Meaning = |value| match bool::read(value) {
        Ok(true) => "inline".into(),
        Ok(false) => "refuse".into(),
        Err(_) => value.clone(),
    };
    Alias { name, meant }
}

/// An alias under which bare numbers in a list are milliseconds.
const fn millis_each(name: &'static str) -> Alias {
    let meant: Meaning = |value| match value {
        Value::Array(all) => all.iter().map(in_millis).collect(),
        Value::String(text) => text.split(',').map(|one| in_millis(&one.trim().into())).collect(),
        value => in_millis(value),
    };
    Alias { name, meant }
}

/// An alias under which a bare number is one of MiB.
const fn mib(name: &'static str) -> Alias {
    Alias {
        name,
        // What is no number of bytes is refused, by what it says.
        meant: |value| match number(value).map(|mib| mib * f64::from(1 << 20)) {
            Some(bytes) if bytes.fract() == 0.0 && (0.0..9e15).contains(&bytes) => (bytes as u64).into(),
            Some(_) => value.to_string().into(),
            None => value.clone(),
        },
    }
}

/// A number, or a text that is one.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) => text.trim().parse().ok(),
        value => value.as_f64(),
    }
}

/// `key!(name, place in the draft, aliases)`.
macro_rules! key {
    ($name:literal, $($place:ident).+ $(, $alias:expr)*) => {
        Key {
            name: $name,
            aliases: &[$($alias),*],
            set: |draft, value| put(&mut draft.$($place).+, value),
            get: |draft| draft.$($place).+.write(),
            allowed: || allowed(|draft| &draft.$($place).+),
        }
    };
}

/// Every setting, in the order of `docs/configuration.md`.
pub(super) static KEYS: &[Key] = &[
    key!(
        "capacity",
        config.capacity,
        same("ring_capacity"),
        same("maxQueueSize"),
        same("memoryLimits.maxQueueSize")
    ),
    key!("critical_capacity", config.critical_capacity),
    key!("low_capacity", config.low_capacity),
    key!("shards", config.shards),
    key!("max_bytes", config.max_bytes, mib("maxMemoryMB"), mib("memoryLimits.totalMemoryMB")),
    key!("batch_size", config.batch_size),
    key!("overflow", policy),
    key!("overflow_timeout", overflow_timeout),
    key!("flush.strategy", strategy),
    key!("flush.events", events),
    key!("flush.interval", interval, millis("flushInterval")),
    key!("critical_wait", config.critical_wait),
    key!("flush_timeout", config.flush_timeout),
    key!(
        "stop_timeout",
        config.stop_timeout,
        same("shutdown_timeout"),
        millis("reliabilityLimits.gracefulShutdownTimeout")
    ),
    key!("drop_timeout", config.drop_timeout),
    key!("session_id", config.session_id),
    key!("source", config.source),
    key!("host", config.host),
    key!("rank", config.rank),
    key!("thread_name", config.thread_name),
    key!("thread_stack_size", config.thread_stack_size),
    key!("gate.enabled", config.gate.enabled, same("enabled")),
    key!("gate.allow", config.gate.allow),
    key!("gate.deny", config.gate.deny),
    key!("gate.rules", config.gate.rules),
    key!("gate.min_priority", config.gate.min_priority),
    key!("gate.sampling", config.gate.sampling),
    key!("gate.rate_limit", config.gate.rate_limit, same("performanceLimits.maxInputRate")),
    key!(
        "gate.max_event_bytes",
        config.gate.max_event_bytes,
        same("maxEventSize"),
        same("memoryLimits.maxEventSize")
    ),
    key!("gate.seed", config.gate.seed),
    key!("health.queue_depth.raise", config.health.queue_depth.raise),
    key!("health.queue_depth.clear", config.health.queue_depth.clear),
    key!("health.memory.raise", config.health.memory.raise),
    key!("health.memory.clear", config.health.memory.clear),
    key!("health.failing.raise", config.health.failing.raise),
    key!("health.failing.clear", config.health.failing.clear),
    key!("health.late_after", config.health.late_after),
    key!("health.latency", config.health.latency, millis("performanceLimits.maxQueueLatency")),
    key!("health.least_rate", config.health.least_rate, same("performanceLimits.targetProcessingRate")),
    key!("health.dead_letters", config.health.dead_letters),
    key!("bus.mode", bus.mode),
    key!("bus.workers", bus.workers, same("workerCount")),
    key!("bus.scaling", bus.scaling),
    key!("bus.max_subscribers", bus.max_subscribers, same("maxSubscribers")),
    key!("bus.handler_queue", bus.handler_queue),
    key!("bus.handler_bytes", bus.handler_bytes),
    key!("bus.retry.delays", bus.retry.delays, millis_each("retryDelays")),
    key!(
        "bus.retry.retries",
        bus.retry.retries,
        same("retryAttempts"),
        same("reliabilityLimits.maxRetryAttempts")
    ),
    key!("bus.retry.factor", bus.retry.factor),
    key!("bus.retry.cap", bus.retry.cap),
    key!("bus.retry.jitter", bus.retry.jitter),
    key!("bus.retry.max_elapsed", bus.retry.most_elapsed),
    key!("bus.deadline", bus.deadline),
    key!("bus.dead_letters", bus.dead_letters),
    key!("bus.max_depth", bus.max_depth),
    key!("bus.on_worker_failure", bus.on_worker_failure, on_or_off("fallbackToSync")),
];

fn put<T: Setting>(place: &mut T, value: &Value) -> Result<(), Wrong> {
    *place = T::read(value)?;
    Ok(())
}

fn allowed<T: Setting>(_: fn(&Draft) -> &T) -> String {
    T::allowed()
}

impl Key {
    /// The name of its variable.
    pub(super) fn variable(&self) -> String {
        format!("{PREFIX}{}", self.name.to_uppercase().replace('.', "__"))
    }

    /// Whether it is a setting of a bus, and none of the collector inside.
    pub(super) fn is_of_bus(&self) -> bool {
        self.name.starts_with(OF_BUS)
    }

    /// What errors of the settings themselves call it.
    pub(super) fn field(&self) -> &'static str {
        self.name.strip_prefix(OF_BUS).unwrap_or(self.name)
    }

    /// Its name and all others.
    fn names(&self) -> impl Iterator<Item = &'static str> {
        [self.name].into_iter().chain(self.aliases.iter().map(|alias| alias.name))
    }
}

/// The setting that has that name in a file, and what a value means under it.
pub(super) fn find(name: &str) -> Option<(&'static Key, Meaning)> {
    KEYS.iter().find_map(|key| {
        let alias = key.aliases.iter().find(|alias| alias.name == name).map(|alias| alias.meant);
        let meant = alias.or_else(|| (key.name == name).then_some(Value::clone as Meaning));
        meant.map(|meant| (key, meant))
    })
}

/// Whether settings are in the table of that name.
pub(super) fn is_table(name: &str) -> bool {
    let is_in = |key: &str| key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
    KEYS.iter().any(|key| key.names().any(is_in))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::BusConfig;
    use crate::config::{Config, Preset};

    const DOCUMENT: &str = include_str!("../../docs/configuration.md");

    /// The rows of the table below a heading, by cells, without its two first.
    fn table(heading: &str) -> Vec<Vec<String>> {
        let rest = DOCUMENT.split(&format!("\n## {heading}\n")).nth(1).unwrap();
        let section = rest.split("\n## ").next().unwrap();
        let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
        let cells = |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
        rows.map(cells).collect()
    }

    fn as_written(value: &Value) -> String {
        match value {
            Value::Null => "none".to_owned(),
            Value::Array(all) if all.is_empty() => "none".to_owned(),
            Value::Array(all) => all.iter().map(as_written).collect::<Vec<_>>().join(", "),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }

    fn value_of(preset: Option<Preset>, key: &Key) -> String {
        let bus = preset.map_or_else(BusConfig::default, BusConfig::preset);
        let config = preset.map_or_else(Config::default, Preset::config);
        as_written(&(key.get)(&Draft { bus, ..Draft::new(config) }))
    }

    #[test]
    fn every_key_is_documented_with_its_variable_aliases_and_default() {
        let rows = table("Keys");
        let names: Vec<&str> = rows.iter().map(|row| row[0].trim_matches('`')).collect();
        let expected: Vec<&str> = ["preset"].into_iter().chain(KEYS.iter().map(|key| key.name)).collect();
        assert_eq!(names, expected);
        for (key, row) in KEYS.iter().zip(&rows[1..]) {
            assert_eq!(row[1].split('`').nth(1), Some(&*key.variable()), "{}", key.name);
            let alias = |alias: &Alias| {
                let unit = match (alias.meant)(&1000.into()).as_f64() {
                    Some(1000.0) => "",
                    Some(1.0) => " (ms)",
                    _ => " (MiB)",
                };
                format!("`{}`{unit}", alias.name)
            };
            assert_eq!(row[2], key.aliases.iter().map(alias).collect::<Vec<_>>().join(", "), "{}", key.name);
            assert_eq!(row[3].replace(',', ""), value_of(None, key), "{}", key.name);
        }
    }

    #[test]
    fn what_can_change_at_run_time_is_what_the_document_says() {
        let defaults = Config::default();
        for (key, row) in KEYS.iter().zip(&table("Keys")[1..]) {
            let samples: [Value; 8] = [
                1.into(),
                2.into(),
                "a".into(),
                "false".into(),
                "normal".into(),
                serde_json::json!([{ "pattern": "a" }]),
                serde_json::json!({ "every": 1 }),
                serde_json::json!({ "min": 1 }),
            ];
            let words = ["drop_newest", "manual", "inline", "refuse"].map(Value::from);
            let mut changes = 0;
            for sample in samples.iter().chain(&words) {
                let mut draft = Draft::new(defaults.clone());
                let before = (key.get)(&draft);
                if (key.set)(&mut draft, sample).is_err() || (key.get)(&draft) == before {
                    continue;
                }
                changes += 1;
                draft.settle().unwrap();
                let is_fixed = key.is_of_bus() || draft.config.keeps_what_is_fixed(&defaults).is_err();
                assert_eq!(
                    row[5].split(',').next(),
                    Some(if is_fixed { "no" } else { "yes" }),
                    "{}",
                    key.name
                );
            }
            assert!(changes > 0, "{} takes none of the samples", key.name);
        }
    }

    #[test]
    fn every_preset_is_what_the_document_says() {
        let rows = table("Presets");
        for key in KEYS {
            let name = format!("`{}`", key.name);
            let row = rows.iter().find(|row| row[0] == name);
            for (column, preset) in Preset::ALL.into_iter().enumerate() {
                let cell = row.map_or("", |row| &row[column + 1]).replace(',', "");
                let expected = if cell.is_empty() { value_of(None, key) } else { cell };
                assert_eq!(value_of(Some(preset), key), expected, "{} of {preset}", key.name);
            }
        }
        assert!(rows.iter().all(|row| KEYS.iter().any(|key| row[0] == format!("`{}`", key.name))));
    }

    #[test]
    fn no_name_stands_for_two_settings_or_for_a_table() {
        let mut names: Vec<&str> = KEYS.iter().flat_map(Key::names).collect();
        assert!(names.iter().all(|name| !is_table(name)));
        let before = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), before);
    }
}
