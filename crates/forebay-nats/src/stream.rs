//! `NatsStream`: the stream of a sink, made where there is none.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};

/// Stream that a [`NatsSink`](crate::NatsSink) makes where none takes its subject. One that is there stays as it is.
///
/// ```
/// use std::time::Duration;
/// use forebay_nats::{NatsSink, NatsStream};
///
/// # fn main() -> Result<(), forebay_nats::UrlError> {
/// let week = Duration::from_secs(7 * 24 * 3600);
/// let stream = NatsStream::new().max_bytes(10 << 30).max_age(week);
/// let sink = NatsSink::open("nats://127.0.0.1")?.stream(stream);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct NatsStream {
    pub(crate) name: Option<String>,
    subjects: Vec<String>,
    max_bytes: Option<u64>,
    max_messages: Option<u64>,
    max_age: Duration,
    duplicate_window: Duration,
    replicas: usize,
    refuses_when_full: bool,
    is_in_memory: bool,
}

impl NatsStream {
    /// Makes the settings of a stream that keeps all: in files, once, with the server's window of duplicates (2 min).
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the name. Defaults to the first part of the subject: `forebay`.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the subjects that it takes. Defaults to all that begin with the first part of the sink's: `forebay.>`.
    pub fn subjects<S: Into<String>>(mut self, subjects: impl IntoIterator<Item = S>) -> Self {
        self.subjects = subjects.into_iter().map(Into::into).collect();
        self
    }

    /// Keeps at most that many bytes; the server removes the oldest messages.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// Keeps at most that many messages; the server removes the oldest.
    pub fn max_messages(mut self, messages: u64) -> Self {
        self.max_messages = Some(messages);
        self
    }

    /// Keeps messages for so long.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// Refuses new messages at a limit, in the place of removing old ones: their batches fail for now.
    pub fn refuse_when_full(mut self) -> Self {
        self.refuses_when_full = true;
        self
    }

    /// Sets for how long the server knows the ids of messages. Behind that window, a batch that is tried again is found in the stream.
    pub fn duplicate_window(mut self, window: Duration) -> Self {
        self.duplicate_window = window;
        self
    }

    /// Keeps every message on so many servers of a cluster. Defaults to 1.
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// Keeps messages in memory, in the place of files.
    pub fn in_memory(mut self) -> Self {
        self.is_in_memory = true;
        self
    }

    pub(crate) fn config(&self, subject: &str, is_atomic: bool) -> Config {
        let root = subject.split('.').next().unwrap_or(subject);
        let limit = |limit: Option<u64>| limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(-1));
        let subjects = match &*self.subjects {
            [] if root == subject => vec![root.to_owned()],
            [] => vec![format!("{root}.>")],
            named => named.to_vec(),
        };
        Config {
            name: self.name.clone().unwrap_or_else(|| root.to_owned()),
            subjects,
            max_bytes: limit(self.max_bytes),
            max_messages: limit(self.max_messages),
            max_age: self.max_age,
            duplicate_window: self.duplicate_window,
            num_replicas: self.replicas.max(1),
            discard: if self.refuses_when_full { DiscardPolicy::New } else { DiscardPolicy::Old },
            storage: if self.is_in_memory { StorageType::Memory } else { StorageType::File },
            allow_direct: true,
            allow_atomic_publish: is_atomic,
            ..Config::default()
        }
    }
}

/// What is known of the stream that takes a subject.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    pub(crate) name: String,
    /// How long a message may be, its headers included.
    pub(crate) max_message: usize,
    /// Whether several messages can be written at once, all of them or none.
    pub(crate) is_atomic: bool,
}
