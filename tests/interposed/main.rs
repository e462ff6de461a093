//! A program that answers some functions of the C library itself: the clock, and what writes files and brings them to the disk.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr, reason = "tests")]

#[cfg(target_os = "linux")]
mod clock_is_set;
#[cfg(all(target_os = "linux", feature = "json-lines"))]
mod removed_again;
#[cfg(all(target_os = "linux", feature = "json-lines"))]
mod rotation_sync;
#[path = "../support/mod.rs"]
mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Lets one test run at a time: what these functions answer holds for the whole process.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
