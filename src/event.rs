//! The parts of records, and the catalogue of standard ones.
//!
//! [`Event`], [`Record`] and the values that most programs name are in the crate root.

pub mod catalog;
mod encoded;
pub(crate) mod event_trait;
mod formatted;
mod id;
pub(crate) mod image;
#[cfg(feature = "json-lines")]
mod json;
pub(crate) mod name;
pub(crate) mod priority;
pub(crate) mod record;
pub(crate) mod shown;
mod spares;
pub(crate) mod value;

pub use crate::pattern::PatternError;
pub use encoded::Encoded;
pub use formatted::Formatted;
pub use id::{EventId, EventIdError};
pub use image::{ImageError, ImageFormat};
pub use record::Extra;
pub use value::{HistogramError, List, Text};

pub(crate) use event_trait::Event;
pub(crate) use image::Image;
pub(crate) use name::Name;
pub(crate) use priority::Priority;
pub(crate) use record::Record;
pub(crate) use value::{Fields, Histogram, Value};
