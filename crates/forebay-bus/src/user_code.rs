//! The end of user code: a destructor of the user's may panic anywhere, and the panic must stop there.

use forebay_sync::sync::catch_panic;

/// Drops a value that may hold user code. Catches a panic of its destructor; nobody is left to learn of it.
pub(super) fn drop_quietly<T>(value: T) {
    let _ = catch_panic(|| drop(value));
}

/// User function whose destructor cannot panic into its owner, wherever it is dropped.
pub(super) struct UserFunction<F>(Option<F>);

impl<F> UserFunction<F> {
    pub(super) fn new(function: F) -> Self {
        Self(Some(function))
    }

    /// Returns the function; `None` only while it is dropped.
    pub(super) fn get(&self) -> Option<&F> {
        self.0.as_ref()
    }
}

impl<F> Drop for UserFunction<F> {
    fn drop(&mut self) {
        drop_quietly(self.0.take());
    }
}
