//! Tasks in a process that forks.
//!
//! Every test runs in a process of its own (`alone!`), as those of the collector do.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr, reason = "tests")]
#![cfg(unix)]

#[path = "../../../../tests/fork/child.rs"]
mod child;
mod fork;
#[path = "../../../../tests/support/mod.rs"]
mod support;
