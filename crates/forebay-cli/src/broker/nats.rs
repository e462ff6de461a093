//! Subjects of NATS JetStream, where a run may be named: `nats://[user:password@]HOST[:PORT]/SUBJECT`.

use std::path::Path;

use forebay::Record;
use forebay_history::{Feed, History, HistoryError};

use crate::error::Error;

/// Asks for the next record of a stream: first up to the entry that is its last one at the begin, and then, where it goes on, for what
/// has come since. `None` if there is none yet.
pub(crate) type Poll = Box<dyn FnMut(bool) -> Result<Option<Record>, HistoryError>>;

/// Returns whether a path is the URL of a subject.
pub(super) fn is_url(path: &Path) -> bool {
    ["nats://", "tls://"].iter().any(|scheme| path.to_string_lossy().starts_with(scheme))
}

/// Opens the subject of a URL, to be queried. `None`: it is no such URL.
#[cfg(feature = "nats")]
pub(super) fn open(path: &Path) -> Option<Result<Box<dyn History>, Error>> {
    is_url(path).then(|| history(path).map(|history| -> Box<dyn History> { Box::new(history) }))
}

/// Opens the subject of a URL, to be followed from its beginning. `None`: it is no such URL.
#[cfg(feature = "nats")]
pub(super) fn follow(path: &Path) -> Option<Result<Poll, Error>> {
    let begin = || {
        let mut reader = history(path)?.reader().map_err(|error| Error::Asked(error.to_string()))?;
        reader.end_here()?;
        let poll = move |goes_on| {
            if goes_on {
                reader.go_on();
            }
            reader.poll()
        };
        Ok(Box::new(poll) as Poll)
    };
    is_url(path).then(begin)
}

/// Opens the subject of a URL, to be read as it grows. `None`: it is no such URL.
#[cfg(feature = "nats")]
pub(super) fn feed(path: &Path) -> Option<Result<Box<dyn Feed>, Error>> {
    let begin = || {
        let reader = history(path)?.reader().map_err(|error| Error::Asked(error.to_string()))?;
        Ok(Box::new(Subject(reader)) as Box<dyn Feed>)
    };
    is_url(path).then(begin)
}

/// Subject that is read as it grows.
#[cfg(feature = "nats")]
#[derive(Debug)]
struct Subject(forebay_nats::NatsReader);

#[cfg(feature = "nats")]
impl Feed for Subject {
    fn poll(&mut self) -> Result<Option<Record>, HistoryError> {
        self.0.poll()
    }
}

#[cfg(feature = "nats")]
fn history(path: &Path) -> Result<forebay_nats::NatsHistory, Error> {
    let url = path.to_string_lossy();
    let (server, subject) = parts(&url).ok_or_else(|| {
        // Without the URL, which may have a password.
        Error::Asked("a subject must be named: nats://[user:password@]host[:port]/SUBJECT".to_owned())
    })?;
    forebay_nats::NatsHistory::open(server, subject).map_err(|error| Error::Asked(error.to_string()))
}

#[cfg(not(feature = "nats"))]
pub(super) fn open(path: &Path) -> Option<Result<Box<dyn History>, Error>> {
    is_url(path).then(|| Err(Error::Asked(WITHOUT.to_owned())))
}

#[cfg(not(feature = "nats"))]
pub(super) fn follow(path: &Path) -> Option<Result<Poll, Error>> {
    is_url(path).then(|| Err(Error::Asked(WITHOUT.to_owned())))
}

#[cfg(not(feature = "nats"))]
pub(super) fn feed(path: &Path) -> Option<Result<Box<dyn Feed>, Error>> {
    is_url(path).then(|| Err(Error::Asked(WITHOUT.to_owned())))
}

#[cfg(not(feature = "nats"))]
const WITHOUT: &str = "nats:// takes the feature `nats` of forebay-cli, which this program was built without";

/// Splits a URL into that of the server and the subject.
#[cfg(feature = "nats")]
fn parts(url: &str) -> Option<(&str, &str)> {
    let authority = url.find("://")? + 3;
    let slash = authority + url.get(authority..)?.find('/')?;
    let (server, subject) = (url.get(..slash)?, url.get(slash + 1..)?);
    (!subject.is_empty()).then_some((server, subject))
}
