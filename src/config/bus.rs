//! The settings of a bus, in the same files and variables.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::draft::Draft;
use super::error::{ConfigError, ConfigPlace};
use super::layers::{ConfigLoader, Layer, with_its_place};
use super::preset::Preset;
use super::value::{Parts, Setting, Wrong, read_table, word, words};
use crate::bus::{BusConfig, Mode, OnWorkerFailure, Scaling};

impl ConfigLoader {
    /// As [`load`](Self::load), for a bus: its own keys begin with `bus.`, the others are those of the collector inside. They
    /// are laid over [`BusConfig::default`], or over the bus of the preset ([`BusConfig::preset`]).
    ///
    /// ```
    /// # #[cfg(feature = "toml")]
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use forebay::bus::BusConfig;
    /// use forebay::{Config, Preset};
    ///
    /// let text = "
    ///     bus.workers = 2
    ///     bus.retry.delays = ['100ms', '1s']
    ///     capacity = 500
    /// ";
    /// let config = Config::loader().preset(Preset::Production).toml(text).load_bus()?;
    /// assert_eq!((config.workers, config.collector.capacity), (2, 500));
    /// assert_eq!(config.dead_letters, BusConfig::production().dead_letters);
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "toml"))]
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`load`](Self::load).
    pub fn load_bus(self) -> Result<BusConfig, ConfigError> {
        let base = |preset: Option<Preset>| preset.map_or_else(BusConfig::default, BusConfig::preset);
        let (draft, layers) = self.lay(|preset| Draft::of_bus(base(preset)))?;
        let config = BusConfig { collector: draft.config, ..draft.bus };
        config.validate().map_err(|error| with_its_place(error, &layers))?;
        Ok(config)
    }
}

impl BusConfig {
    /// Every setting, in TOML that [`ConfigLoader::load_bus`](crate::ConfigLoader::load_bus) reads as the same settings, but for
    /// what [`Config::to_toml`](crate::Config::to_toml) names.
    #[cfg(feature = "toml")]
    pub fn to_toml(&self) -> String {
        super::file::write(self.to_table())
    }

    fn to_table(&self) -> Map<String, Value> {
        Draft::of_bus(self.clone()).to_table(|_| true)
    }
}

impl Serialize for BusConfig {
    /// A table of all settings, by the keys of a file.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_table().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for BusConfig {
    /// As [`ConfigLoader::load_bus`](crate::ConfigLoader::load_bus) of one layer.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = read_table(deserializer)?;
        let loader = ConfigLoader::new().text(Layer::of_table(ConfigPlace::Given, table));
        loader.load_bus().map_err(serde::de::Error::custom)
    }
}

const MODES: [(&str, Mode); 2] = [("pooled", Mode::Pooled), ("inline", Mode::Inline)];

const FAILURES: [(&str, OnWorkerFailure); 2] =
    [("inline", OnWorkerFailure::Inline), ("refuse", OnWorkerFailure::Refuse)];

words!(Mode: MODES, OnWorkerFailure: FAILURES);

impl Setting for Scaling {
    fn allowed() -> String {
        "a table of min, max, low, high and interval, or some of them".to_owned()
    }

    fn read(value: &Value) -> Result<Self, Wrong> {
        let parts = Parts::of(value, &["min", "max", "low", "high", "interval"])?;
        let usual = Self::default();
        Ok(Self {
            min: parts.get("min")?.unwrap_or(usual.min),
            max: parts.get("max")?.unwrap_or(usual.max),
            low: parts.get("low")?.unwrap_or(usual.low),
            high: parts.get("high")?.unwrap_or(usual.high),
            interval: parts.get("interval")?.unwrap_or(usual.interval),
        })
    }

    fn write(&self) -> Value {
        let Self { min, max, low, high, interval } = self;
        serde_json::json!({ "min": min, "max": max, "low": low, "high": high, "interval": interval.write() })
    }
}

impl Setting for Vec<Duration> {
    fn allowed() -> String {
        "durations, as an array or a text with commas between them".to_owned()
    }

    fn read(value: &Value) -> Result<Self, Wrong> {
        match value {
            Value::Array(all) => all.iter().map(Duration::read).collect(),
            Value::String(text) => text.split(',').map(|one| Duration::read(&one.trim().into())).collect(),
            value => Ok(vec![Duration::read(value)?]),
        }
    }

    fn write(&self) -> Value {
        self.iter().map(Duration::write).collect()
    }
}
