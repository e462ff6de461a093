//! The collector: its handle, and what a call of it does, a file for each role.

mod account;
mod collect;
mod flush;
mod handle;
mod lifecycle;
mod owner;
mod reconfigure;
mod sinks;

pub use flush::FlushError;
pub use handle::Collector;
pub use lifecycle::{BuildError, StartError, StopError};
pub use sinks::SinkChangeError;
