//! Results as a `Stream`.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use crate::results::Results;

/// The reader is behind a pointer; results are moved, never pinned.
impl<R> Unpin for Results<R> {}

impl<R> Stream for Results<R> {
    type Item = R;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<R>> {
        self.poll_next_result(cx.waker())
    }
}
