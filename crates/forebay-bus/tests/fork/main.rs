//! P9 for a bus: a process that forks; and a process with little memory. Every test runs in a process of its own (`alone!`), as
//! `tests/fork` of forebay says.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr, reason = "tests")]
#![cfg(unix)]

mod bus_fork;
#[allow(dead_code, reason = "shared with the tests of forebay")]
#[path = "../../../../tests/fork/child.rs"]
mod child;
mod fork_in_user_code;
#[path = "../../../../tests/fork/forking_sink.rs"]
mod forking_sink;
#[cfg(target_os = "linux")]
mod memory_limit;
mod p9_fork_child;
#[path = "../../../../tests/support/mod.rs"]
mod support;
