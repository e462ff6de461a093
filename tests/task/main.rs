//! Emitting tasks.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr, reason = "tests")]

mod emit;
#[path = "../support/mod.rs"]
mod support;
