//! The sinks that write files: JSON Lines, TensorBoard and SQLite, on good and bad days.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr, reason = "tests")]

#[cfg(all(target_os = "linux", feature = "sqlite", feature = "tensorboard"))]
mod disks;
#[cfg(feature = "tensorboard")]
mod earlier_run;
#[cfg(all(unix, feature = "sqlite", feature = "tensorboard"))]
mod file_identity;
#[cfg(unix)]
mod file_kinds;
#[cfg(all(feature = "sqlite", feature = "tensorboard"))]
mod order;
#[cfg(all(feature = "sqlite", feature = "tensorboard"))]
mod own_events;
#[cfg(all(unix, feature = "sqlite", feature = "tensorboard"))]
mod removed_folder;
#[cfg(unix)]
mod retention;
mod rotation;
#[cfg(feature = "sqlite")]
mod run_identity;
mod sinks;
mod spill;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "tensorboard")]
mod sub_runs;
#[path = "../support/mod.rs"]
mod support;
#[cfg(feature = "tensorboard")]
mod tensorboard;
mod text_lines;
