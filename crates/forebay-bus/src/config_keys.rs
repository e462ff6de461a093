//! Keys of the settings of a bus, beside those of a collector.

use std::time::Duration;

use forebay::Config;
use forebay::config::{ConfigError, ConfigLoader, Preset};
use forebay::parts::{
    Alias, Choice, Key, Settings, Unread, deserialize, duration, key, millis, read, same, to_table, write,
};
use forebay::sink::RetryPolicy;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::config::{BusConfig, Mode, OnWorkerFailure};
use super::scaling::Scaling;

/// The table of a bus in a file.
const TABLE: &str = "bus";

/// Every setting of a bus but those of the collector inside, in the order of `docs/configuration.md`.
static KEYS: &[Key] = &[
    key("bus.mode", &[]),
    key("bus.workers", &[same("workerCount")]),
    key("bus.scaling", &[]),
    key("bus.max_subscribers", &[same("maxSubscribers")]),
    key("bus.handler_queue", &[]),
    key("bus.handler_bytes", &[]),
    key("bus.retry.delays", &[millis("retryDelays")]),
    key("bus.retry.retries", &[same("retryAttempts"), same("reliabilityLimits.maxRetryAttempts")]),
    key("bus.retry.factor", &[]),
    key("bus.retry.cap", &[]),
    key("bus.retry.jitter", &[]),
    key("bus.retry.max_elapsed", &[]),
    key("bus.deadline", &[]),
    key("bus.dead_letters", &[]),
    key("bus.max_depth", &[]),
    key("bus.on_worker_failure", &[inline_or_refuse("fallbackToSync")]),
];

/// Returns an alias under which true is `inline`, and false `refuse`.
const fn inline_or_refuse(name: &'static str) -> Alias {
    let meant = |value: &Value| match value
        .as_str()
        .map_or_else(|| value.to_string(), |text| text.trim().to_owned())
        .as_str()
    {
        "true" => "inline".into(),
        "false" => "refuse".into(),
        _ => value.clone(),
    };
    Alias { name, meant }
}

/// The form of [`BusConfig`] below its table.
#[derive(Serialize, Deserialize)]
#[serde(remote = "BusConfig")]
struct BusForm {
    #[serde(skip)]
    collector: Config,
    mode: Mode,
    workers: usize,
    scaling: Option<Scaling>,
    max_subscribers: usize,
    handler_queue: usize,
    handler_bytes: u64,
    retry: RetryPolicy,
    #[serde(with = "duration")]
    deadline: Duration,
    dead_letters: usize,
    max_depth: u32,
    on_worker_failure: OnWorkerFailure,
}

impl Settings for BusConfig {
    const PASSED_OVER: &'static [&'static str] = &[];
    const CHOICES: &'static [Choice] = Config::CHOICES;
    const PREFIX: &'static str = "bus.";

    fn keys() -> Vec<&'static Key> {
        Config::keys().into_iter().chain(KEYS).collect()
    }

    fn preset(preset: Option<Preset>) -> Self {
        preset.map_or_else(Self::default, Self::preset)
    }

    fn collector(&mut self) -> &mut Config {
        &mut self.collector
    }

    fn to_tree(&self) -> Value {
        let mut tree = self.collector.to_tree();
        tree[TABLE] = BusForm::serialize(self, serde_json::value::Serializer).unwrap_or_default();
        tree
    }

    fn from_tree(mut tree: Value) -> Result<Self, Unread> {
        let own = tree[TABLE].take();
        let own = read(own, |own| BusForm::deserialize(own)).map_err(|unread| unread.within(TABLE))?;
        Ok(Self { collector: Config::from_tree(tree)?, ..own })
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.validate()
    }
}

impl BusConfig {
    /// Loads the settings of a bus: its own keys begin with `bus.`, the others are those of the collector inside. They
    /// are laid over [`BusConfig::default`], or over the bus of the preset ([`BusConfig::preset`]).
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use forebay_bus::BusConfig;
    /// use forebay::{Config, config::Preset};
    ///
    /// let text = "
    ///     bus.workers = 2
    ///     bus.retry.delays = ['100ms', '1s']
    ///     capacity = 500
    /// ";
    /// let config = BusConfig::load(Config::loader().preset(Preset::Production).toml(text))?;
    /// assert_eq!((config.workers, config.collector.capacity), (2, 500));
    /// assert_eq!(config.dead_letters, BusConfig::production().dead_letters);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`ConfigLoader::load`].
    pub fn load(loader: ConfigLoader) -> Result<Self, ConfigError> {
        loader.load_as()
    }

    /// Returns every setting, in TOML that [`load`](Self::load) reads as the same settings, but for
    /// what [`Config::to_toml`](forebay::Config::to_toml) names.
    pub fn to_toml(&self) -> String {
        write(self)
    }
}

impl Serialize for BusConfig {
    /// Returns a table of all settings, by the keys of a file.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        to_table(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for BusConfig {
    /// Reads settings from one layer, by the rules of [`load`](Self::load).
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests;
