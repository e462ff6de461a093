//! What the test waits with: under shuttle, another file of this name takes the place of this one.

pub(crate) use std::sync::{Condvar, Mutex};
pub(crate) use std::thread::yield_now;
