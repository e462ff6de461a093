//! A sink of [`forebay`] for collectors of OpenTelemetry: logs, and metrics where asked, by OTLP/HTTP with protocol buffers.
//!
//! It blocks on the thread of the sink, and brings no async runtime. [`OtlpSink`] has an example.
//!
//! ```
//! use forebay::sink::{RetryPolicy, SinkExt};
//! use forebay_otlp::OtlpSink;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let otlp = OtlpSink::builder().endpoint("http://localhost:4318").build()?.retry(RetryPolicy::default());
//! let collector = forebay::Collector::builder().sink(otlp).start()?;
//! assert_eq!(collector.sinks(), ["otlp"]);
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! * `tls`, on by default: endpoints that begin with `https://`.

// From the bottom up: a module imports only from those that stand before it.
mod error;
mod wire;

mod endpoint;

mod attributes;
mod logs;
mod metrics;
mod request;

mod secret;

mod client;

mod sink;

mod builder;

pub use builder::OtlpBuilder;
pub use error::OtlpError;
pub use sink::OtlpSink;

/// The code of the page in `docs/`, compiled with the other tests of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/otlp.md")]
struct Page;
