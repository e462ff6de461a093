//! What is done about a handler that fails.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::sync::{Arc, catch_panic};

/// Why a handler failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// It returned an error.
    #[error("{0}")]
    Error(#[source] Box<dyn Error + Send + Sync>),
    /// It panicked; the text of the panic.
    #[error("the handler panicked: {0}")]
    Panic(String),
    /// It succeeded, and what gathers its results panicked; the text of the panic. It is not tried again.
    #[error("the gathering panicked: {0}")]
    Gather(String),
}

/// What is done about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// The item has failed, and the task stops: no other item is taken, those in handlers are finished.
    Stop,
    /// The item has failed, and the task goes on.
    Continue,
    /// The handler gets the item once more, after that time, unless the task stops meanwhile: then the item has failed.
    Retry {
        /// How long the worker waits first.
        after: Duration,
    },
}

/// What is done about handlers that fail, by an error or by a panic. Defaults to `Continue`.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum ErrorPolicy {
    /// The first failure stops the task, whose outcome is [`TaskOutcome::Failed`](super::TaskOutcome::Failed).
    StopOnFirst,
    /// A failure is counted, and the task goes on.
    #[default]
    Continue,
    /// An item that failed is tried again, so many times at most and at once; then its failure is counted, and the task
    /// goes on.
    Retry(u32),
    /// The function decides, by the failure and by how often this item was tried again (0 at first). It may be called by
    /// several threads at a time. If it panics, the task stops.
    Custom(Arc<Decide>),
}

/// A policy of your own.
pub type Decide = dyn Fn(&Failure, u32) -> Decision + Send + Sync;

impl ErrorPolicy {
    /// A policy of your own: see [`ErrorPolicy::Custom`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use forebay::emit::{Decision, ErrorPolicy, Failure};
    ///
    /// let patient = ErrorPolicy::custom(|failure, retries| match failure {
    ///     Failure::Error(_) if retries < 5 => Decision::Retry { after: Duration::from_millis(10 << retries) },
    ///     Failure::Error(_) => Decision::Continue,
    ///     _ => Decision::Stop,
    /// });
    /// ```
    pub fn custom(decide: impl Fn(&Failure, u32) -> Decision + Send + Sync + 'static) -> Self {
        Self::Custom(Arc::new(decide))
    }

    pub(super) fn decide(&self, failure: &Failure, retries: u32) -> Decision {
        let decision = match self {
            Self::StopOnFirst => Decision::Stop,
            Self::Continue => Decision::Continue,
            Self::Retry(max) if retries < *max => Decision::Retry { after: Duration::ZERO },
            Self::Retry(_) => Decision::Continue,
            Self::Custom(decide) => catch_panic(|| decide(failure, retries)).unwrap_or(Decision::Stop),
        };
        match (failure, decision) {
            // Its result is gone; the handler has done its work.
            (Failure::Gather(_), Decision::Retry { .. }) => Decision::Continue,
            _ => decision,
        }
    }
}

impl fmt::Debug for ErrorPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StopOnFirst => f.write_str("StopOnFirst"),
            Self::Continue => f.write_str("Continue"),
            Self::Retry(max) => f.debug_tuple("Retry").field(max).finish(),
            Self::Custom(_) => f.write_str("Custom(..)"),
        }
    }
}
