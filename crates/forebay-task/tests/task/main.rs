//! Tasks.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr, reason = "tests")]

#[path = "../../../../tests/support/mod.rs"]
mod support;
mod task;
