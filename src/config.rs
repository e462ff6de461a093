//! The settings of a collector: what they are, their presets, and how files and variables say them.

mod error;
pub(crate) use error::check;
pub use error::{ConfigError, ConfigPlace, ConfigWarning};

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

mod bus;
mod draft;
#[cfg(feature = "toml")]
mod file;
mod keys;
mod layers;
mod value;
pub use layers::ConfigLoader;
