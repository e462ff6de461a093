//! Tests of what holds for a whole process: signals, limits, its end, and the global collector. Each test that changes
//! such a thing does so in a process of its own.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr, reason = "tests")]

#[cfg(unix)]
mod console_without_space;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod counter_begins_anew;
#[cfg(feature = "json-lines")]
mod ends_without_a_stop;
#[cfg(all(target_os = "linux", feature = "sqlite", feature = "tensorboard", feature = "zstd"))]
mod file_size_limit;
#[cfg(all(any(feature = "tensorboard", feature = "sqlite"), target_os = "linux"))]
mod full_disk;
mod global;
#[cfg(target_os = "linux")]
mod memory_limit;
#[cfg(target_os = "linux")]
mod p1_no_system_call;
#[cfg(all(unix, feature = "sqlite", feature = "tensorboard"))]
mod p8_kill_under_load;
#[cfg(all(unix, feature = "json-lines"))]
mod p8_killed_process;
#[cfg(all(unix, feature = "json-lines", feature = "signals"))]
mod signals;
#[path = "../support/mod.rs"]
mod support;
