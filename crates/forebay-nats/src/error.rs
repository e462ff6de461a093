//! Errors of URLs, and what the errors of a server mean for a batch.

use std::fmt::Display;

use async_nats::jetstream::Error as Answer;
use async_nats::{ConnectError, ConnectErrorKind};
use forebay::sink::SinkError;

/// URL of a server, or something that goes with it, that cannot be used. It does not show the URL, which may have a password.
#[derive(Debug, thiserror::Error)]
#[error("invalid url of a server: {reason} (expected nats://[user:password@]host[:port], or tls://)")]
#[non_exhaustive]
pub struct UrlError {
    /// What is wrong with it.
    pub reason: String,
}

/// Error of a connection, or the answer of a server that refuses.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    kind: Kind,
    said: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The connection ended while it was used.
    Dropped,
    /// The connection is of no more use: there was no answer in time, or there is no connection.
    Broken,
    /// The server may accept the same later.
    Later,
    Never,
    /// The fence: another message is the last one of the subject.
    Behind,
    /// There is no stream that takes the subject.
    NoStream,
    NoMessage,
}

impl Failure {
    pub(crate) fn dropped() -> Self {
        Self { kind: Kind::Dropped, said: "the connection has ended".to_owned() }
    }

    pub(crate) fn broken(said: impl Display) -> Self {
        Self { kind: Kind::Broken, said: said.to_string() }
    }

    pub(crate) fn later(said: impl Into<String>) -> Self {
        Self { kind: Kind::Later, said: said.into() }
    }

    pub(crate) fn never(said: impl Into<String>) -> Self {
        Self { kind: Kind::Never, said: said.into() }
    }

    pub(crate) fn no_stream() -> Self {
        Self { kind: Kind::NoStream, said: "no stream takes the subject".to_owned() }
    }

    pub(crate) fn of_connection(error: &ConnectError) -> Self {
        let kind = match error.kind() {
            ConnectErrorKind::Authentication
            | ConnectErrorKind::AuthorizationViolation
            | ConnectErrorKind::ServerParse => Kind::Never,
            _ => Kind::Broken,
        };
        Self { kind, said: error.to_string() }
    }

    /// Reads the answer of a server that refuses. (Codes: `errors.json` of nats-server.)
    pub(crate) fn of_answer(answer: &Answer) -> Self {
        let code = answer.error_code().0;
        let kind = match code {
            10_071 | 10_164 => Kind::Behind,
            10_059 => Kind::NoStream,
            10_037 => Kind::NoMessage,
            // JetStream is not enabled, for this account or at all.
            10_039 | 10_076 => Kind::Never,
            // Limits of the account, and of its storage; a batch that was given up.
            10_002 | 10_023 | 10_028 | 10_047 | 10_077 | 10_176 => Kind::Later,
            _ if answer.code() >= 500 || matches!(answer.code(), 408 | 409 | 429) => Kind::Later,
            _ => Kind::Never,
        };
        Self { kind, said: answer.to_string() }
    }

    /// Returns whether the connection ended while it was used.
    pub(crate) fn is_dropped(&self) -> bool {
        self.kind == Kind::Dropped
    }

    /// Returns whether the connection is of no more use.
    pub(crate) fn is_of_connection(&self) -> bool {
        matches!(self.kind, Kind::Dropped | Kind::Broken)
    }

    pub(crate) fn is_behind(&self) -> bool {
        self.kind == Kind::Behind
    }

    pub(crate) fn is_of_no_stream(&self) -> bool {
        self.kind == Kind::NoStream
    }

    pub(crate) fn is_of_no_message(&self) -> bool {
        self.kind == Kind::NoMessage
    }

    /// Returns the error of a sink, or of a history, about the server at `place`.
    pub(crate) fn at(&self, place: &str) -> SinkError {
        let of_batch = SinkError::unavailable(format!("{place}: {}", self.said));
        if self.kind == Kind::Never { of_batch.permanent() } else { of_batch }
    }
}
