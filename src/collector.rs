//! Errors and outcomes of a [`Collector`], and the collector of a whole program.

// A file for each role of the handle.
mod account;
mod collect;
mod flush;
pub(crate) mod global;
pub(crate) mod handle;
pub(crate) mod lifecycle;
mod owner;
mod producer;
mod reconfigure;
mod sinks;

pub use crate::origin::Origin;
pub use crate::outcome::{BatchOutcome, CollectError, Refusal};
pub use crate::wake::State;
pub use collect::FullLane;
pub use flush::FlushError;
pub use global::{AlreadyInitialized, current, get_or_init, scoped};
pub(crate) use handle::Collector;
pub use lifecycle::{BuildError, StartError, StopError};
pub use producer::Producer;
pub use sinks::SinkChangeError;
