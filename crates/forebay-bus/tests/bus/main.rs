//! The bus: handlers, filters, retries, its journal and its account.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr, reason = "tests")]

mod bottlenecks;
mod chains;
mod common;
#[cfg(feature = "config")]
mod config_bus;
mod emit_and_handle;
mod ends;
mod failures;
mod full_rings;
mod hanging;
mod inline;
mod journal;
mod metrics;
mod once;
mod retries;
mod scaling;
#[path = "../../../../tests/support/mod.rs"]
mod support;
#[cfg(feature = "testing")]
mod testing;
mod unsubscribe;
mod watch;
