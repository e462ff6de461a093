//! Promises of the sink and the history, each against a real server on a port of its own.
#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub, reason = "tests")]

#[path = "../../../../tests/fork/child.rs"]
#[allow(dead_code, reason = "shared with the tests of the core")]
mod child;
#[path = "../../../../tests/support/mod.rs"]
mod support;

mod clusters;
mod delivery;
mod kills;
mod network;
mod server;
mod spill;
mod trouble;
