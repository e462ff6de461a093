//! P9 for a bus: a process that forks. Every test runs in a process of its own (`alone!`), as `tests/fork` of forebay says.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr, reason = "tests")]
#![cfg(unix)]

mod bus_fork;
#[allow(dead_code, reason = "shared with the tests of forebay")]
#[path = "../../../../tests/fork/child.rs"]
mod child;
#[path = "../../../../tests/support/mod.rs"]
mod support;
