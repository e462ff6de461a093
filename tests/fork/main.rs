//! P9: a process that forks.
//!
//! Every test runs in a process of its own (`alone!`). Rust starts threads under a lock of its own, which a child finds held if
//! a thread of the parent was just being started, as by other tests. Nothing can be done about that here; `docs/guarantees.md` says so.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr, reason = "tests")]
#![cfg(unix)]

#[cfg_attr(
    not(feature = "json-lines"),
    allow(dead_code, reason = "forks in user code are tested with files")
)]
mod child;
mod fork_beside_console;
#[cfg(feature = "json-lines")]
mod fork_in_user_code;
mod fork_on_user_thread;
#[cfg(feature = "json-lines")]
mod fork_readers;
mod forking_sink;
#[cfg(feature = "json-lines")]
mod p9_fork;
mod p9_fork_child;
#[cfg(feature = "signals")]
mod signals_fork;
#[cfg(feature = "sqlite")]
mod sqlite_fork;
#[cfg(feature = "sqlite")]
mod sqlite_fork_handlers;
#[path = "../support/mod.rs"]
mod support;
