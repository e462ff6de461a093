//! Tasks, also in a process that forks. Every test of that runs in a process of its own (`alone!`), as those of the collector do.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr, reason = "tests")]

#[cfg(unix)]
#[path = "../../../../tests/fork/child.rs"]
mod child;
#[cfg(unix)]
mod fork;
#[path = "../../../../tests/support/mod.rs"]
mod support;
mod task;
