//! Tests of what is asked of the allocator: by `collect`, nothing; by everything else, what its bounds allow.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr, reason = "tests")]

mod allocator;
#[cfg(feature = "json-lines")]
mod byte_bounds;
#[cfg(all(target_os = "linux", feature = "json-lines"))]
mod leaks;
mod p1_collect_never_waits;
#[path = "../support/mod.rs"]
mod support;
