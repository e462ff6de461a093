//! Errors of URLs, and what the errors of a server mean for a batch.

use forebay::sink::SinkError;
use redis::{ErrorKind, RedisError};

/// URL of a server that cannot be used. It does not show the URL, which may have a password.
#[derive(Debug, thiserror::Error)]
#[error("invalid url of a server: {reason} (expected redis://[user:password@]host[:port][/database]{TLS})")]
#[non_exhaustive]
pub struct UrlError {
    /// What is wrong with it.
    pub reason: String,
}

const TLS: &str =
    if cfg!(feature = "tls") { ", or rediss:// for TLS" } else { "; rediss:// takes the feature `tls`" };

/// Codes of servers that may accept the same command later.
const LATER: [&str; 10] = [
    "BUSY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "NOMASTERLINK",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "TRYAGAIN",
];

/// Returns the error of a sink for one of the client, or of the server.
pub(crate) fn sink_error(place: &str, error: &RedisError) -> SinkError {
    let said = match refusals(error).next() {
        Some((code, detail)) => format!("{place}: {code} {detail}"),
        None => format!("{place}: {error}"),
    };
    let of_batch = SinkError::unavailable(said);
    if is_transient(error) { of_batch } else { of_batch.permanent() }
}

/// Returns code and text of what the server said. Of a transaction, what it said to its commands comes before that it broke off.
fn refusals(error: &RedisError) -> impl Iterator<Item = (String, String)> {
    let of_commands = error.clone().into_server_errors();
    let of_commands: Vec<_> = of_commands
        .iter()
        .flat_map(|all| all.iter())
        .map(|(_, error)| (error.code().to_owned(), error.details().unwrap_or_default().to_owned()))
        .collect();
    let alone = of_commands
        .is_empty()
        .then(|| Some((error.code()?.to_owned(), error.detail().unwrap_or_default().to_owned())));
    of_commands.into_iter().chain(alone.flatten())
}

/// Returns whether the same batch may be accepted later.
pub(crate) fn is_transient(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig => false,
        _ if refusals(error).next().is_some() => {
            refusals(error).any(|(code, _)| LATER.contains(&code.as_str()))
        }
        _ => breaks_connection(error),
    }
}

/// Returns whether the connection is of no more use.
pub(crate) fn breaks_connection(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_unrecoverable_error()
        || matches!(error.code(), Some("READONLY" | "MASTERDOWN" | "LOADING"))
}

/// Returns whether the server refused an id because the stream has come to it, or beyond.
pub(crate) fn is_behind(error: &RedisError) -> bool {
    error.detail().is_some_and(|detail| detail.contains("equal or smaller"))
}
