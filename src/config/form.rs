//! Forms of the settings for serde, and the keys that depend on others.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::delivery::{FlushStrategy, Lanes, Overflow};
use super::duration;
use super::error::ConfigError;
use super::gate::GateConfig;
use super::health::HealthConfig;
use super::keys::{KEYS, Key};
use super::loader::{Choice, Settings, Unread, read};
use super::preset::Preset;
use super::settings::Config;

/// Form of [`Overflow`]: two keys beside those of the collector.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Overflow", tag = "overflow", rename_all = "snake_case")]
enum OverflowForm {
    DropOldest,
    DropNewest,
    Block {
        #[serde(rename = "overflow_timeout", with = "duration")]
        timeout: Duration,
    },
}

/// Form of [`Lanes`]: two keys beside those of the collector.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Lanes", tag = "lanes", rename_all = "snake_case")]
enum LanesForm {
    Shared,
    PerThread {
        #[serde(rename = "max_lanes")]
        max: usize,
    },
}

/// Form of [`FlushStrategy`]: a table.
#[derive(Serialize, Deserialize)]
#[serde(remote = "FlushStrategy", tag = "strategy", rename_all = "snake_case")]
enum FlushForm {
    Time {
        #[serde(with = "duration")]
        interval: Duration,
    },
    Size {
        events: usize,
    },
    Hybrid {
        events: usize,
        #[serde(with = "duration")]
        interval: Duration,
    },
    Manual,
}

/// Form of [`Config`].
#[derive(Serialize, Deserialize)]
#[serde(remote = "Config")]
struct ConfigForm {
    capacity: usize,
    critical_capacity: usize,
    low_capacity: usize,
    shards: usize,
    #[serde(flatten, with = "LanesForm")]
    lanes: Lanes,
    max_bytes: Option<usize>,
    batch_size: Option<usize>,
    #[serde(flatten, with = "OverflowForm")]
    overflow: Overflow,
    #[serde(with = "FlushForm")]
    flush: FlushStrategy,
    #[serde(with = "duration")]
    max_nap: Duration,
    #[serde(with = "duration")]
    critical_timeout: Duration,
    #[serde(with = "duration")]
    flush_timeout: Duration,
    #[serde(with = "duration")]
    stop_timeout: Duration,
    #[serde(with = "duration")]
    drop_timeout: Duration,
    session_id: Option<String>,
    source: Option<String>,
    host: Option<String>,
    rank: Option<u64>,
    thread_name: String,
    thread_stack_size: Option<usize>,
    gate: GateConfig,
    health: HealthConfig,
    #[serde(skip)]
    ignored_variables: Vec<String>,
}

impl Settings for Config {
    /// Names of the bus, which reads the same files and variables.
    const PASSED_OVER: &'static [&'static str] = &[
        "bus",
        "workerCount",
        "maxSubscribers",
        "retryDelays",
        "retryAttempts",
        "reliabilityLimits.maxRetryAttempts",
        "fallbackToSync",
    ];

    const CHOICES: &'static [Choice] = &[
        Choice { part: "flush.events", of: "flush.strategy", with: &["size", "hybrid"] },
        Choice { part: "flush.interval", of: "flush.strategy", with: &["time", "hybrid"] },
        Choice { part: "max_lanes", of: "lanes", with: &["per_thread"] },
        Choice { part: "overflow_timeout", of: "overflow", with: &["block"] },
    ];

    fn keys() -> Vec<&'static Key> {
        KEYS.iter().collect()
    }

    fn preset(preset: Option<Preset>) -> Self {
        preset.map_or_else(Self::default, Preset::config)
    }

    fn collector(&mut self) -> &mut Config {
        self
    }

    fn to_tree(&self) -> Value {
        ConfigForm::serialize(self, serde_json::value::Serializer).unwrap_or_default()
    }

    fn from_tree(tree: Value) -> Result<Self, Unread> {
        read(tree, |tree| ConfigForm::deserialize(tree))
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.validate()
    }
}
