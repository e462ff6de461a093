//! Account of a task.

use std::fmt;
use std::time::Duration;

use forebay::config::ConfigError;
use forebay::parts::{OneLine, check};
use forebay::{Fields, Name, Priority, Record};
use serde::Serialize;

/// Outcome of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TaskOutcome {
    /// The task goes on.
    Running,
    /// All items were handled or have failed; the policy was to go on.
    Completed,
    /// A failure stopped the task, by its policy, or the source panicked.
    Failed,
    /// The task was cancelled or dropped before its end.
    Cancelled,
}

/// Account of a task.
///
/// The law: `sent = handled + failed + cancelled + evicted + left`, at every moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Summary {
    /// The outcome.
    pub outcome: TaskOutcome,
    /// Items that the channel took in.
    pub sent: u64,
    /// Items whose handler succeeded, and whose results were gathered.
    pub handled: u64,
    /// Items whose handler failed in the last of its attempts, by an error or a panic.
    pub failed: u64,
    /// Items that no handler saw, because the task stopped.
    pub cancelled: u64,
    /// Items that another one replaced before their time: see [`Pipeline::debounce`](crate::Pipeline::debounce).
    pub evicted: u64,
    /// Items that wait or are in a handler. After the end there are none, unless the task was dropped and its handlers did not return
    /// in time: then these are the items that they had.
    pub left: u64,
    /// Attempts beyond the first of an item.
    pub retries: u64,
    /// Handlers that may run at a time. [`Strategy::Adaptive`](crate::Strategy::Adaptive) finds this number.
    pub workers: usize,
    /// Time from the start to the end, or until now.
    pub elapsed: Duration,
    /// The first error of the source, or of a handler after its last attempt. The text is cut after 1,000 bytes.
    pub first_error: Option<String>,
}

impl Summary {
    /// Checks the law for a task into which so many items were sent.
    ///
    /// # Errors
    ///
    /// The law does not hold; the text has the numbers.
    pub fn check_law(&self, sent: u64) -> Result<(), String> {
        let fates = self.handled + self.failed + self.cancelled + self.evicted + self.left;
        if fates != sent || self.sent != sent {
            return Err(format!("{sent} items were sent, their fates add up to {fates}: {self:?}"));
        }
        Ok(())
    }

    /// Makes the final event.
    pub(crate) fn record(&self, name: Name) -> Record {
        let mut fields = Fields::new()
            .with("outcome", self.outcome.as_str())
            .with("sent", self.sent)
            .with("handled", self.handled)
            .with("failed", self.failed)
            .with("cancelled", self.cancelled)
            .with("evicted", self.evicted)
            .with("left", self.left)
            .with("retries", self.retries)
            .with("workers", self.workers)
            .with("elapsed", self.elapsed);
        if let Some(error) = &self.first_error {
            fields.set("first_error", error.clone());
        }
        Record::fields(name, fields).with_priority(Priority::Critical)
    }
}

impl TaskOutcome {
    /// Returns the outcome as the final event has it.
    pub fn as_str(self) -> &'static str {
        match self {
            TaskOutcome::Running => "running",
            TaskOutcome::Completed => "completed",
            TaskOutcome::Failed => "failed",
            TaskOutcome::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for TaskOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Summary {
    /// Writes the outcome, then the law with its numbers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { outcome, sent, handled, failed, cancelled, evicted, left, .. } = self;
        write!(
            f,
            "{outcome}: {sent} sent = {handled} handled + {failed} failed + {cancelled} cancelled + {left} left"
        )?;
        if *evicted > 0 {
            write!(f, " + {evicted} evicted")?;
        }
        match &self.first_error {
            Some(error) => write!(f, " ({})", OneLine(error)),
            None => Ok(()),
        }
    }
}

/// Checks the name of a final event.
pub(crate) fn check_name(name: &str) -> Result<(), ConfigError> {
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
    };
    let is_allowed = name.contains('.') && name.split('.').all(is_word);
    let allowed = "two or more words of a-z, 0-9 and _, joined by dots";
    check("task.report_to", format!("{name:?}"), allowed, is_allowed)
}
