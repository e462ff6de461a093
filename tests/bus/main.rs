//! The bus: handlers, filters, retries, its journal and its account.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr, reason = "tests")]

mod bad_days;
mod bottlenecks;
#[cfg(feature = "toml")]
mod config_bus;
mod emit_and_handle;
mod inline;
mod journal;
mod metrics;
mod retries;
mod reviewed;
#[path = "../support/mod.rs"]
mod support;
#[cfg(feature = "testing")]
mod testing;
mod unsubscribe;
mod watch;
