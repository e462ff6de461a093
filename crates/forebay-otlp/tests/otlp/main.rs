//! The sink for OpenTelemetry against servers made here, which answer what a test wants, and against OpenTelemetry's own messages.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod chain;
#[path = "../../../../tests/fork/child.rs"]
#[allow(dead_code, reason = "shared with the tests of the core")]
mod child;
mod mapping;
mod outcomes;
mod requests;
mod secrets;
mod server;
#[path = "../../../../tests/support/mod.rs"]
mod support;
#[cfg(feature = "tls")]
mod tls;
mod under_load;
mod variables;
