//! Tests of what a bus asks of the allocator: no more than its bounds allow.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr, reason = "tests")]

#[allow(dead_code, reason = "shared with the tests of forebay")]
#[path = "../../../../tests/memory/allocator.rs"]
mod allocator;
mod byte_bounds;
#[path = "../../../../tests/support/mod.rs"]
mod support;
