//! Streams of Redis and Valkey, where a run may be named: `redis://HOST[:PORT][/DATABASE]/STREAM`.

mod nats;

use std::path::Path;

use forebay_history::History;

use crate::error::Error;

pub(crate) use nats::Poll;

/// Returns whether a path is the URL of a stream.
pub(crate) fn is_stream(path: &Path) -> bool {
    nats::is_url(path)
        || ["redis://", "rediss://"].iter().any(|scheme| path.to_string_lossy().starts_with(scheme))
}

/// Opens the stream of a URL, to be queried.
#[cfg(feature = "redis")]
pub(crate) fn open(path: &Path) -> Result<Box<dyn History>, Error> {
    if let Some(opened) = nats::open(path) {
        return opened;
    }
    Ok(Box::new(history(path)?))
}

/// Opens the stream of a URL, to be followed from its beginning.
#[cfg(feature = "redis")]
pub(crate) fn follow(path: &Path) -> Result<Poll, Error> {
    if let Some(opened) = nats::follow(path) {
        return opened;
    }
    let mut reader = history(path)?.reader().map_err(|error| Error::Asked(error.to_string()))?;
    reader.end_here()?;
    Ok(Box::new(move |goes_on| {
        if goes_on {
            reader.go_on();
        }
        reader.poll()
    }))
}

#[cfg(feature = "redis")]
fn history(path: &Path) -> Result<forebay_redis::RedisHistory, Error> {
    let url = path.to_string_lossy();
    let (server, stream) = parts(&url).ok_or_else(|| {
        // Without the URL, which may have a password.
        let what = "a stream must be named: redis://[user:password@]host[:port][/database]/STREAM";
        Error::Asked(what.to_owned())
    })?;
    forebay_redis::RedisHistory::open(&server, stream).map_err(|error| Error::Asked(error.to_string()))
}

#[cfg(not(feature = "redis"))]
pub(crate) fn open(path: &Path) -> Result<Box<dyn History>, Error> {
    nats::open(path).unwrap_or_else(|| Err(Error::Asked(WITHOUT.to_owned())))
}

#[cfg(not(feature = "redis"))]
pub(crate) fn follow(path: &Path) -> Result<Poll, Error> {
    nats::follow(path).unwrap_or_else(|| Err(Error::Asked(WITHOUT.to_owned())))
}

#[cfg(not(feature = "redis"))]
const WITHOUT: &str =
    "redis:// takes the feature `redis` of forebay-cli, which this program was built without";

/// Splits a URL into that of the server, with its database, and the stream.
#[cfg(feature = "redis")]
fn parts(url: &str) -> Option<(String, &str)> {
    let authority = url.find("://")? + 3;
    let slash = authority + url.get(authority..)?.find('/')?;
    let (server, path) = (url.get(..slash)?, url.get(slash + 1..)?);
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (database, stream) =
        path.split_once('/').filter(|(first, _)| is_number(first)).unwrap_or(("0", path));
    (!stream.is_empty()).then(|| (format!("{server}/{database}"), stream))
}

#[cfg(all(test, feature = "redis"))]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_server_and_a_stream() {
        let of = |url| parts(url).map(|(server, stream)| (server, stream.to_owned()));
        let found = |server: &str, stream: &str| Some((server.to_owned(), stream.to_owned()));
        assert_eq!(of("redis://host/forebay:a"), found("redis://host/0", "forebay:a"));
        assert_eq!(of("rediss://u:p@host:1/3/a/b"), found("rediss://u:p@host:1/3", "a/b"));
        assert_eq!(of("redis://host/7"), found("redis://host/0", "7"));
        for url in ["redis://host", "redis://host/", "redis://host/3/"] {
            assert_eq!(of(url), None, "{url}");
        }
    }
}
