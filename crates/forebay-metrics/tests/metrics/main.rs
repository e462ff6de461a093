//! The recorder, through the facade: what programs count becomes events, once an interval.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr, reason = "tests")]

#[cfg(unix)]
#[allow(dead_code, reason = "the tests of other crates use the rest")]
#[path = "../../../../tests/fork/child.rs"]
mod child;
#[cfg(unix)]
mod fork;
mod recorder;
#[path = "../../../../tests/support/mod.rs"]
mod support;
