//! `SinkError`: why a sink failed.

use std::error::Error as StdError;
#[cfg(feature = "sqlite")]
use std::path::Path;
use std::time::Duration;

use crate::sync::Forked;

/// Reason why a sink failed, and whether trying again may help.
///
/// # Examples
///
/// ```
/// use forebay::sink::SinkError;
///
/// let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
/// let error = SinkError::from(full);
/// assert!(error.to_string().starts_with("write failed: "));
/// let in_part = SinkError::write_failed("3 rows were not valid").permanent().with_failed_events(3);
/// assert_eq!(in_part.failed_events(), Some(3));
/// ```
#[derive(Debug, thiserror::Error)]
#[error("{what}: {message}")]
pub struct SinkError {
    what: What,
    message: String,
    #[source]
    source: Option<Box<dyn StdError + Send + Sync>>,
    is_transient: bool,
    /// Somebody else's code panicked at some of the events, and was caught.
    is_panic: bool,
    failed_events: Option<u64>,
    /// The sink remembers which events failed, until it gets another batch.
    is_resumable: bool,
    /// Wait that the destination asks for.
    retry_after: Option<Duration>,
    /// Number of events, if a part of a batch was offered. All of them failed unless `failed_events` says otherwise.
    part: Option<u64>,
    attempts: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum What {
    #[error("sink unavailable")]
    Unavailable,
    #[error("write failed")]
    WriteFailed,
    #[error("flush failed")]
    FlushFailed,
}

impl SinkError {
    /// Makes a transient error: the destination cannot be reached at present.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(What::Unavailable, message.into())
    }

    /// Creates an error of a destination that did not take the data. It is transient unless [`permanent`](Self::permanent) says
    /// otherwise.
    pub fn write_failed(message: impl Into<String>) -> Self {
        Self::new(What::WriteFailed, message.into())
    }

    /// Makes an error of earlier events that could not be pushed out. Transient unless [`permanent`](Self::permanent)
    /// says otherwise.
    pub fn flush_failed(message: impl Into<String>) -> Self {
        Self::new(What::FlushFailed, message.into())
    }

    /// Marks the error as permanent: trying again cannot help.
    pub fn permanent(mut self) -> Self {
        self.is_transient = false;
        self
    }

    /// Creates an error of user code that panicked at some events: `what` it was and `said`. Permanent. Counted as a panic.
    pub(crate) fn panicked(what: &str, said: &str) -> Self {
        Self { is_panic: true, ..Self::write_failed(format!("{what} panicked: {said}")).permanent() }
    }

    /// Returns whether it stands for a panic.
    pub(crate) fn is_panic(&self) -> bool {
        self.is_panic
    }

    /// Adds the path that could not be opened.
    #[cfg(feature = "sqlite")]
    pub(super) fn with_path(mut self, path: &Path) -> Self {
        self.message = format!("cannot open {}: {}", path.display(), self.message);
        self
    }

    /// Adds the error below this one.
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Says that only this many events of the batch failed; the others are where they belong.
    pub fn with_failed_events(mut self, events: u64) -> Self {
        self.failed_events = Some(events);
        self
    }

    /// Says that the sink remembers which events failed: offered the same batch again, before any other, it goes on with these. A
    /// [`Retry`](crate::sink::Retry) then tries again although only a part has failed.
    pub fn resumable(mut self) -> Self {
        self.is_resumable = true;
        self
    }

    /// Returns whether the sink would go on with the events that failed: see [`resumable`](Self::resumable).
    pub fn is_resumable(&self) -> bool {
        self.is_resumable
    }

    /// Creates the error of a batch in a [forked child](crate::Batch::is_forked) of the process that delivers it. It is permanent: a child
    /// does not become the parent again.
    pub fn forked() -> Self {
        Self::unavailable(Forked.to_string()).permanent()
    }

    /// Says that the sink does not go on: what is offered next is another batch to it.
    pub(super) fn not_resumable(mut self) -> Self {
        self.is_resumable = false;
        self
    }

    /// Adds how long the destination asks to be left alone, such as by `Retry-After` of HTTP. A
    /// [`Retry`](crate::sink::Retry) waits that long at least. Bound what comes from outside.
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Returns how long the destination asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Marks the error as that of so many events of a larger batch.
    pub(super) fn of_part(mut self, events: u64) -> Self {
        self.part.get_or_insert(events);
        self
    }

    /// Returns how many of the events that were offered have failed.
    pub(crate) fn failed_of(&self, events: u64) -> u64 {
        self.failed_events.or(self.part).unwrap_or(events).min(events)
    }

    /// Returns whether it was offered as a part of a batch.
    pub(super) fn is_of_part(&self) -> bool {
        self.part.is_some()
    }

    /// Returns whether some of the events that were offered are where they belong. Then nobody knows which.
    pub(super) fn is_partial(&self, events: usize) -> bool {
        let offered = self.part.unwrap_or(events as u64);
        self.failed_events.is_some_and(|failed| failed < offered)
    }

    /// Ends what lies below it.
    pub(crate) fn without_source(mut self) -> Self {
        self.source = None;
        self
    }

    pub(super) fn with_attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Returns how often the batch was tried.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Returns how many events failed, when it is not the whole batch.
    pub fn failed_events(&self) -> Option<u64> {
        self.failed_events
    }

    /// Returns whether trying again may help.
    pub fn is_transient(&self) -> bool {
        self.is_transient
    }

    fn new(what: What, message: String) -> Self {
        Self {
            what,
            message,
            source: None,
            is_transient: true,
            is_panic: false,
            failed_events: None,
            is_resumable: false,
            retry_after: None,
            part: None,
            attempts: 1,
        }
    }
}

#[doc(hidden)]
impl From<Forked> for SinkError {
    fn from(Forked: Forked) -> Self {
        Self::forked()
    }
}

impl From<std::io::Error> for SinkError {
    /// Returns the error of a failed write. It is permanent for what does not mend itself: no permission, a broken
    /// pipe, a path that is gone, data that cannot be written.
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind as Kind;
        let is_permanent = matches!(
            error.kind(),
            Kind::PermissionDenied
                | Kind::BrokenPipe
                | Kind::NotFound
                | Kind::InvalidInput
                | Kind::InvalidData
                | Kind::Unsupported
                | Kind::ReadOnlyFilesystem
        );
        let failed = Self::write_failed(error.to_string()).with_source(error);
        if is_permanent { failed.permanent() } else { failed }
    }
}
