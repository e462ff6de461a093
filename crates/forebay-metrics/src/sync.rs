//! What synchronises: the one file of this crate that names it. The facade asks for handles in an `Arc`, and a value that is counted from many
//! threads is an atomic number. There is no lock: a forked child may find none held.

pub(crate) use std::sync::Arc;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
