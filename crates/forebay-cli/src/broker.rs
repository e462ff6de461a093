//! Streams of a server, where a run may be named: of Redis and Valkey, `redis://HOST[:PORT][/DATABASE]/STREAM`, and of [`nats`].

mod nats;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use forebay::{Pattern, Record};
use forebay_history::{Feed, History, HistoryError, Run};

use crate::error::Error;

pub(crate) use nats::Poll;

/// What URLs of streams begin with.
const SCHEMES: [&str; 6] = [
    "redis://",
    "rediss://",
    "redis+cluster://",
    "rediss+cluster://",
    "redis+sentinel://",
    "rediss+sentinel://",
];

/// What the names of the sinks' own streams begin with.
const OWN: &str = "forebay:";

/// What makes a pattern of the name of a stream: as in [`Pattern`].
const WILD: [char; 4] = ['*', '?', '[', '{'];

/// Time between two looks at a stream that has nothing new, and after an error.
const INTERVAL: Duration = Duration::from_millis(200);
const PAUSE: Duration = Duration::from_secs(1);

/// Records that go from thread to thread at once, and how many such pieces wait.
const PIECE: usize = 256;
const PIECES: usize = 16;

/// Returns whether a path is the URL of a stream.
pub(crate) fn is_stream(path: &Path) -> bool {
    nats::is_url(path) || SCHEMES.iter().any(|scheme| path.to_string_lossy().starts_with(scheme))
}

/// Returns a path as it may be shown: a URL without its user and password.
pub(crate) fn shown(path: &Path) -> String {
    let text = path.display().to_string();
    if !is_stream(path) {
        return text;
    }
    let Some((scheme, rest)) = text.split_once("://") else { return text };
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, stream) = rest.split_at(end);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{stream}")
}

/// Returns the name of a stream that tells it from others of its server.
pub(crate) fn name(path: &Path) -> String {
    let url = path.to_string_lossy();
    parts(&url).map_or_else(|| shown(path), |(_, stream)| stream.to_owned())
}

/// Returns the URLs of the streams that a URL names: one; or those that fit a pattern, and those of forebay's sinks where none is named.
pub(crate) fn find(path: &Path) -> Result<Vec<PathBuf>, Error> {
    if nats::is_url(path) {
        return Ok(vec![path.to_owned()]);
    }
    let url = path.to_string_lossy();
    let (server, asked) = match parts(&url) {
        Some((server, stream)) => (server, stream.to_owned()),
        None => (url.trim_end_matches('/').to_owned(), format!("{OWN}*")),
    };
    let Some(wild) = asked.find(WILD) else { return Ok(vec![path.to_owned()]) };
    let pattern = Pattern::new(&*asked)
        .map_err(|error| Error::Asked(format!("invalid pattern: {asked:?} ({error})")))?;
    let mut names = streams_of(&server, asked.get(..wild).unwrap_or_default())?;
    names.retain(|name| pattern.matches(name));
    if names.is_empty() {
        let place = shown(Path::new(&server));
        return Err(Error::NotFound(format!("there is no stream that fits {asked:?} at {place}")));
    }
    Ok(names.into_iter().map(|name| PathBuf::from(format!("{server}/{name}"))).collect())
}

/// Opens the stream of a URL as a run, to be read up to its end.
pub(crate) fn run(path: &Path) -> Result<Run, Error> {
    Ok(Run::of(name(path), feed(path)?))
}

/// Opens the stream of a URL as a run that is read by a thread of its own, so that a server which does not answer holds up nobody.
pub(crate) fn live_run(path: &Path) -> Result<Run, Error> {
    let (sender, pieces) = sync_channel(PIECES);
    let (feed, alive) = (feed(path)?, Arc::new(()));
    let is_wanted = Arc::downgrade(&alive);
    let failed = |error: std::io::Error| Error::Asked(format!("cannot start a thread: {error}"));
    let thread = std::thread::Builder::new().name("stream".to_owned());
    thread.spawn(move || read_ahead(feed, &sender, &is_wanted)).map_err(failed)?;
    let ahead = Ahead { pieces, page: Vec::new().into_iter(), not_read: 0, failed: None, _alive: alive };
    Ok(Run::of(name(path), ahead))
}

/// What a thread has read of a stream.
enum Piece {
    Records(Vec<Record>),
    NotRead(u64),
    Failed(HistoryError),
    /// It can be read again.
    Recovered,
}

/// Reader of a stream that another thread reads: it never waits.
#[derive(Debug)]
struct Ahead {
    pieces: Receiver<Piece>,
    page: std::vec::IntoIter<Record>,
    not_read: u64,
    /// Why the stream cannot be read now.
    failed: Option<String>,
    /// As long as this is there, the thread goes on.
    _alive: Arc<()>,
}

impl Feed for Ahead {
    fn poll(&mut self) -> Result<Option<Record>, HistoryError> {
        loop {
            if let Some(record) = self.page.next() {
                return Ok(Some(record));
            }
            match self.pieces.try_recv() {
                Ok(Piece::Records(page)) => self.page = page.into_iter(),
                Ok(Piece::NotRead(not_read)) => self.not_read = not_read,
                Ok(Piece::Recovered) => self.failed = None,
                Ok(Piece::Failed(error)) => {
                    let cause = std::error::Error::source(&error);
                    self.failed = Some(cause.map_or_else(|| error.to_string(), ToString::to_string));
                    return Err(error);
                }
                Err(TryRecvError::Empty) => {
                    return match &self.failed {
                        None => Ok(None),
                        Some(why) => Err(HistoryError::new("the stream", why.clone())),
                    };
                }
                Err(TryRecvError::Disconnected) => {
                    return Err(HistoryError::new("the stream", "its thread has ended"));
                }
            }
        }
    }

    fn not_read(&self) -> u64 {
        self.not_read
    }
}

/// Reads a stream for as long as somebody wants it.
fn read_ahead(mut feed: Box<dyn Feed>, to: &SyncSender<Piece>, is_wanted: &Weak<()>) {
    let (mut page, mut not_read, mut has_failed) = (Vec::new(), 0, false);
    while is_wanted.strong_count() > 0 {
        let next = feed.poll();
        let is_record = matches!(next, Ok(Some(_)));
        if let Ok(Some(record)) = next {
            page.push(record);
            if page.len() < PIECE {
                continue;
            }
        } else if let Err(error) = next {
            let piece = match feed.not_read() {
                more if more > not_read => {
                    not_read = more;
                    Piece::NotRead(more)
                }
                _ => {
                    has_failed = true;
                    Piece::Failed(error)
                }
            };
            let page = std::mem::take(&mut page);
            if to.send(Piece::Records(page)).is_err() || to.send(piece).is_err() {
                return;
            }
            if has_failed {
                std::thread::sleep(PAUSE);
            }
            continue;
        }
        if std::mem::take(&mut has_failed) && to.send(Piece::Recovered).is_err() {
            return;
        }
        if !page.is_empty() && to.send(Piece::Records(std::mem::take(&mut page))).is_err() {
            return;
        }
        if !is_record {
            std::thread::sleep(INTERVAL);
        }
    }
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

/// Opens the stream of a URL, to be read as it grows.
#[cfg(feature = "redis")]
pub(crate) fn feed(path: &Path) -> Result<Box<dyn Feed>, Error> {
    if let Some(opened) = nats::feed(path) {
        return opened;
    }
    Ok(Box::new(history(path)?.reader().map_err(|error| Error::Asked(error.to_string()))?))
}

/// Returns the names of the streams of a server that begin so.
#[cfg(feature = "redis")]
fn streams_of(server: &str, prefix: &str) -> Result<Vec<String>, Error> {
    Ok(forebay_redis::RedisHistory::streams(server, prefix)?)
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
pub(crate) fn feed(path: &Path) -> Result<Box<dyn Feed>, Error> {
    nats::feed(path).unwrap_or_else(|| Err(Error::Asked(WITHOUT.to_owned())))
}

#[cfg(not(feature = "redis"))]
fn streams_of(_: &str, _: &str) -> Result<Vec<String>, Error> {
    Err(Error::Asked(WITHOUT.to_owned()))
}

#[cfg(not(feature = "redis"))]
const WITHOUT: &str =
    "redis:// takes the feature `redis` of forebay-cli, which this program was built without";

/// Splits a URL into that of the server, with its database, and the stream.
fn parts(url: &str) -> Option<(String, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let (mut server, mut path) = rest.split_once('/').map(|(host, path)| (host.to_owned(), path))?;
    if scheme.ends_with("+sentinel") {
        let (master, below) = path.split_once('/')?;
        server = format!("{server}/{master}");
        path = below;
    }
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (database, stream) = match path.split_once('/').filter(|(first, _)| is_number(first)) {
        // A cluster has no databases.
        _ if scheme.ends_with("+cluster") => (String::new(), path),
        Some((database, stream)) => (format!("/{database}"), stream),
        None => ("/0".to_owned(), path),
    };
    (!stream.is_empty()).then(|| (format!("{scheme}://{server}{database}"), stream))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_server_and_a_stream() {
        let of = |url| parts(url).map(|(server, stream)| (server, stream.to_owned()));
        let found = |server: &str, stream: &str| Some((server.to_owned(), stream.to_owned()));
        assert_eq!(of("redis://host/forebay:a"), found("redis://host/0", "forebay:a"));
        assert_eq!(of("rediss://u:p@host:1/3/a/b"), found("rediss://u:p@host:1/3", "a/b"));
        assert_eq!(of("redis://host/7"), found("redis://host/0", "7"));
        assert_eq!(
            of("redis+cluster://a:1,b:2/forebay:a/0"),
            found("redis+cluster://a:1,b:2", "forebay:a/0")
        );
        assert_eq!(of("redis+sentinel://a,b/m/forebay:a"), found("redis+sentinel://a,b/m/0", "forebay:a"));
        assert_eq!(of("rediss+sentinel://a/m/3/s"), found("rediss+sentinel://a/m/3", "s"));
        for url in
            ["redis://host", "redis://host/", "redis://host/3/", "redis+sentinel://a/m", "redis+cluster://a/"]
        {
            assert_eq!(of(url), None, "{url}");
        }
    }

    #[test]
    fn a_url_is_shown_without_its_user_and_password() {
        for (url, expected) in [
            ("redis://u:p@ss@host:1/3/a@b", "redis://host:1/3/a@b"),
            ("redis://host/a", "redis://host/a"),
            ("rediss://:p@host", "rediss://host"),
            ("runs/a@b", "runs/a@b"),
        ] {
            assert_eq!(shown(Path::new(url)), expected);
        }
        assert_eq!(name(Path::new("redis://:p@host/3/forebay:a")), "forebay:a");
    }

    /// Feed of what it is made of: numbers of a record, or errors.
    #[derive(Debug)]
    struct Script(std::vec::IntoIter<Result<u64, bool>>, u64);

    impl Feed for Script {
        fn poll(&mut self) -> Result<Option<Record>, HistoryError> {
            match self.0.next() {
                None => Ok(None),
                Some(Ok(step)) => Ok(Some(Record::scalar("a", 0.5).with_step(step))),
                Some(Err(is_foreign)) => {
                    self.1 += u64::from(is_foreign);
                    Err(HistoryError::new("it", "broken"))
                }
            }
        }

        fn not_read(&self) -> u64 {
            self.1
        }
    }

    #[test]
    fn what_a_thread_reads_arrives_in_order_with_its_errors_between() {
        let script = vec![Ok(0), Ok(1), Err(true), Ok(2), Err(false), Ok(3)];
        let (sender, pieces) = sync_channel(PIECES);
        let alive = Arc::new(());
        let (is_wanted, feed) = (Arc::downgrade(&alive), Script(script.into_iter(), 0));
        let thread = std::thread::spawn(move || read_ahead(Box::new(feed), &sender, &is_wanted));
        let mut ahead =
            Ahead { pieces, page: Vec::new().into_iter(), not_read: 0, failed: None, _alive: alive };
        let (mut steps, mut errors) = (Vec::new(), 0);
        while steps.len() < 4 {
            match ahead.poll() {
                Ok(Some(record)) => steps.extend(record.step()),
                Ok(None) => std::thread::yield_now(),
                // As long as it fails, it says so.
                Err(_) => {
                    assert_eq!(steps, [0, 1, 2]);
                    errors += 1;
                }
            }
        }
        assert!(errors > 0);
        assert_eq!((steps, ahead.not_read()), (vec![0, 1, 2, 3], 1));
        assert!(ahead.poll().unwrap().is_none(), "it can be read again");
        drop(ahead);
        thread.join().unwrap();
    }
}
