//! Policy for handlers that fail.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use forebay_sync::sync::{Arc, catch_panic};

/// Cause of a failure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The handler returned an error.
    #[error("{0}")]
    Error(#[source] Box<dyn Error + Send + Sync>),
    /// The handler panicked, with this text.
    #[error("the handler panicked: {0}")]
    Panic(String),
    /// The handler succeeded, and the gathering of its result panicked, with this text. The item is not tried again.
    #[error("the gathering panicked: {0}")]
    Gather(String),
}

/// Decision about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// The item has failed, and the task stops. No other item is taken; calls that run are finished.
    Stop,
    /// The item has failed, and the task goes on.
    Continue,
    /// The handler gets the item once more after that time. If the task stops before, the item has failed.
    Retry {
        /// The time that the worker waits first.
        after: Duration,
    },
}

/// Policy for handlers that fail, by an error or by a panic. Defaults to `Continue`.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum ErrorPolicy {
    /// The first failure stops the task, whose outcome is [`TaskOutcome::Failed`](crate::TaskOutcome::Failed).
    StopOnFirst,
    /// A failure is counted, and the task goes on.
    #[default]
    Continue,
    /// An item that failed is tried again at once, at most so many times. Then its failure is counted, and the task goes on.
    Retry(u32),
    /// The function decides. It gets the failure and the number of retries of this item so far. Several threads may call it at a
    /// time. If it panics, the task stops.
    Custom(Arc<Decide>),
}

/// Function of a custom policy.
pub type Decide = dyn Fn(&Failure, u32) -> Decision + Send + Sync;

impl ErrorPolicy {
    /// Makes a policy of a function: see [`ErrorPolicy::Custom`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use forebay_task::{Decision, ErrorPolicy, Failure};
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

    pub(crate) fn decide(&self, failure: &Failure, retries: u32) -> Decision {
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
