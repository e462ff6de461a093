//! The end of user code: a destructor of the user's may panic anywhere, and the panic must stop there.

use crate::sync::catch_panic;

/// Drops a value that may hold user code. Catches a panic of its destructor; nobody is left to be told of it.
pub(super) fn drop_quietly<X>(value: X) {
    let _ = catch_panic(|| drop(value));
}

/// Drops each of many values, so that a panic of one destructor spares the others.
pub(super) fn drop_each<X>(values: impl IntoIterator<Item = X>) {
    values.into_iter().for_each(drop_quietly);
}
