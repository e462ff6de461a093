//! The state of a breaker, as statistics tell it.

use serde::Serialize;

/// State of a breaker: which batches it lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BreakerState {
    /// Everything.
    Closed,
    /// No batch. They fail at once, by a transient error.
    Open,
    /// One batch after the other, to see whether the sink has recovered.
    HalfOpen,
}
