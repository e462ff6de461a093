//! The settings of a collector: what they are, their presets, and how files and variables say them.

mod error;

pub use error::{ConfigError, ConfigPlace, ConfigWarning, check};

mod setters;
pub(crate) use setters::setters;

mod delivery;
pub use delivery::{FlushStrategy, Overflow};

mod gate;
pub use gate::{GateConfig, NameRule, Sampling};

mod health;
pub use health::{HealthConfig, Threshold};

mod settings;
pub use settings::Config;

mod preset;
pub use preset::Preset;

pub mod duration;

#[cfg(feature = "config")]
mod form;
#[cfg(feature = "config")]
mod keys;
#[cfg(feature = "config")]
mod loader;
#[cfg(test)]
#[cfg(feature = "config")]
pub(crate) mod tests;
#[cfg(feature = "config")]
mod value;
#[cfg(feature = "config")]
pub use keys::{Alias, Key, key, millis, same};
#[cfg(feature = "config")]
pub use loader::{Choice, ConfigLoader, Settings, Unread, deserialize, read, to_table, write};
