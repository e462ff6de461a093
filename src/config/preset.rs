//! `Preset`: settings that fit a purpose.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::delivery::{FlushStrategy, Overflow};
use super::error::ConfigError;
use super::gate::GateConfig;
use super::settings::Config;

/// Preset of settings for a purpose.
///
/// A file chooses one by `preset = "production"`, the environment by `FOREBAY_PRESET`; see
/// [`ConfigLoader`](crate::config::ConfigLoader).
///
/// ```
/// use forebay::{Config, config::Preset};
///
/// let preset: Preset = "production".parse()?;
/// assert_eq!(preset.config(), Config::production());
/// # Ok::<(), forebay::config::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Preset {
    /// [`Config::training`].
    Training,
    /// [`Config::analytics`].
    Analytics,
    /// [`Config::development`].
    Development,
    /// [`Config::production`].
    Production,
}

impl Preset {
    /// All presets.
    pub const ALL: [Self; 4] = [Self::Training, Self::Analytics, Self::Development, Self::Production];

    pub(crate) const NAMES: &str = "training, analytics, development, production";

    /// Returns its settings.
    pub fn config(self) -> Config {
        match self {
            Self::Training => Config::training(),
            Self::Analytics => Config::analytics(),
            Self::Development => Config::development(),
            Self::Production => Config::production(),
        }
    }

    /// Returns its name: `training`, `analytics`, `development` or `production`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Training => "training",
            Self::Analytics => "analytics",
            Self::Development => "development",
            Self::Production => "production",
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Preset {
    type Err = ConfigError;

    /// Reads a [`name`](Self::name).
    fn from_str(name: &str) -> Result<Self, ConfigError> {
        let found = Self::ALL.into_iter().find(|preset| preset.name() == name);
        let (field, value) = ("preset", format!("{name:?}"));
        found.ok_or(ConfigError::Invalid { field, value, expected: Self::NAMES.into() })
    }
}

impl Config {
    /// Returns settings for a training loop: nothing waits, and a step may bring thousands of events at once.
    ///
    /// They are the defaults, but with a `capacity` of 65,536 events and the flush strategy `Hybrid` with 512 events
    /// and one second. Bursts fit, and fewer batches cost the loop fewer wake-ups. What is too much evicts the
    /// oldest.
    pub fn training() -> Self {
        Self {
            capacity: 65_536,
            flush: FlushStrategy::Hybrid { events: 512, interval: Duration::from_secs(1) },
            ..Self::default()
        }
    }

    /// Returns settings for analytics: a loss matters more than a short wait, and throughput more than freshness.
    ///
    /// They are the defaults, but with the overflow policy `Block` with 10 ms and the flush strategy `Hybrid` with
    /// 1,000 events and 30 seconds. A killed process loses up to 30 seconds.
    pub fn analytics() -> Self {
        Self {
            overflow: Overflow::Block { timeout: Duration::from_millis(10) },
            flush: FlushStrategy::Hybrid { events: 1_000, interval: Duration::from_secs(30) },
            ..Self::default()
        }
    }

    /// Returns settings for development: events are seen at once, and a program that collects too much shows it
    /// early.
    ///
    /// They are the defaults, but with a `capacity` and a `low_capacity` of 1,000 events and the flush strategy
    /// `Time` with 50 ms.
    pub fn development() -> Self {
        Self {
            capacity: 1_000,
            low_capacity: 1_000,
            flush: FlushStrategy::Time { interval: Duration::from_millis(50) },
            ..Self::default()
        }
    }

    /// Returns settings for services: bounded in every direction.
    ///
    /// They are the defaults (the flush strategy `Hybrid` with 100 events and one second, and ten seconds for
    /// `stop`), but with a `capacity` of 50,000 events and a `gate.max_event_bytes` of 5,120 (5 KiB).
    pub fn production() -> Self {
        Self {
            capacity: 50_000,
            gate: GateConfig { max_event_bytes: Some(5_120), ..GateConfig::default() },
            ..Self::default()
        }
    }
}
