//! Drops of user values: a destructor may panic anywhere, and the panic must stop there.

use forebay_sync::sync::catch_panic;

/// Drops a value that may hold user code. A panic of its destructor is caught and ignored: nobody is left who could handle it.
pub(crate) fn drop_quietly<X>(value: X) {
    let _ = catch_panic(|| drop(value));
}

/// Drops each of many values, so that a panic of one destructor spares the others.
pub(crate) fn drop_each<X>(values: impl IntoIterator<Item = X>) {
    values.into_iter().for_each(drop_quietly);
}
