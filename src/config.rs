//! Settings: of the gate, of health, and where they come from.
//!
//! [`Config`], [`FlushStrategy`] and [`Overflow`] are in the crate root.

pub(crate) mod error;
pub(crate) use error::check;
pub use error::{ConfigError, ConfigPlace, ConfigWarning};

pub(crate) mod setters;

pub(crate) mod delivery;
pub use delivery::Lanes;
pub(crate) use delivery::{FlushStrategy, Overflow};

mod gate;
pub use gate::{GateConfig, NameRule, Sampling};

mod health;
pub use health::{HealthConfig, Threshold};

pub(crate) mod settings;
pub(crate) use settings::Config;

mod preset;
pub use preset::Preset;

#[doc(hidden)]
pub mod duration;

#[cfg(feature = "config")]
mod form;
#[cfg(feature = "config")]
pub(crate) mod keys;
#[cfg(feature = "config")]
pub(crate) mod loader;
#[cfg(test)]
#[cfg(feature = "config")]
pub(crate) mod tests;
#[cfg(feature = "config")]
mod value;
#[cfg(feature = "config")]
pub use loader::ConfigLoader;
