//! Events that are read back, and the runs that they tell of.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr, reason = "tests")]

mod following;
mod query;
mod ranks;
#[path = "../../../../tests/support/mod.rs"]
mod support;
mod tables;
mod training_run;
