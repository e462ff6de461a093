//! What the test waits with, under shuttle.

pub(crate) use loom::sync::{Condvar, Mutex};
pub(crate) use loom::thread::yield_now;
