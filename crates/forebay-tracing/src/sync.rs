//! What this crate shares between threads: slots that one thread fills. No thread waits for another, so nothing of it needs a model. No
//! other file names a primitive.

pub(crate) use std::sync::OnceLock;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
