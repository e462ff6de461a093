//! Errors of URLs, and what the errors of a server mean for a batch.

use forebay::sink::SinkError;
use redis::{ErrorKind, RedisError};

/// URL of a server that cannot be used. It does not show the URL, which may have a password.
#[derive(Debug, thiserror::Error)]
#[error(
    "invalid url of a server: {reason} (expected redis://[user:password@]host[:port][/database], redis+cluster://[user:password@]host[:port][,host..], redis+sentinel://[user:password@]host[:port][,host..]/MASTER[/database]{TLS})"
)]
#[non_exhaustive]
pub struct UrlError {
    /// What is wrong with it.
    pub reason: String,
}

const TLS: &str =
    if cfg!(feature = "tls") { ", or rediss:// for TLS" } else { "; rediss:// takes the feature `tls`" };

/// Codes of servers that may accept the same command later.
const LATER: [&str; 12] = [
    "ASK",
    "BUSY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "MOVED",
    "NOMASTERLINK",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "TRYAGAIN",
];

/// Codes after which another connection may lead to a server that accepts it: the name may mean another one, or the password be new.
const ELSEWHERE: [&str; 4] = ["LOADING", "MASTERDOWN", "NOAUTH", "READONLY"];

/// Error of a connection, or of a command.
#[derive(Debug)]
pub(crate) struct Failure {
    error: RedisError,
    is_of_connection: bool,
}

impl Failure {
    pub(crate) fn of_connection(error: RedisError) -> Self {
        Self { error, is_of_connection: true }
    }

    pub(crate) fn of_command(error: RedisError) -> Self {
        Self { error, is_of_connection: false }
    }

    /// Returns whether the connection was closed from the other side.
    pub(crate) fn is_dropped(&self) -> bool {
        !self.is_of_connection && self.error.is_connection_dropped()
    }

    pub(crate) fn asks_for_connection(&self) -> bool {
        self.error.code().is_some_and(|code| ELSEWHERE.contains(&code))
    }

    /// Returns whether the same batch may be accepted later.
    pub(crate) fn is_transient(&self) -> bool {
        match self.error.kind() {
            ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig => false,
            _ if self.is_of_connection => true,
            _ => match self.error.code() {
                Some(code) => LATER.contains(&code),
                None => self.error.is_io_error() || self.error.is_unrecoverable_error(),
            },
        }
    }

    /// Returns whether the server refused an id because the stream has come to it, or beyond.
    pub(crate) fn is_behind(&self) -> bool {
        self.error.detail().is_some_and(|detail| detail.contains("equal or smaller"))
    }

    /// Returns whether the server has nothing under the key.
    pub(crate) fn is_of_no_key(&self) -> bool {
        self.error.detail().is_some_and(|detail| detail.contains("no such key"))
    }

    /// Returns the error of a sink, or of a history, about the server at `place`.
    pub(crate) fn at(&self, place: &str) -> SinkError {
        let said = match (self.error.code(), self.error.detail()) {
            (Some(code), detail) => format!("{place}: {code} {}", detail.unwrap_or_default()),
            (None, _) => format!("{place}: {}", self.error),
        };
        let of_batch = SinkError::unavailable(said);
        if self.is_transient() { of_batch } else { of_batch.permanent() }
    }
}
