//! `RedisHistory` and `RedisReader`: the records of a stream, read page by page.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::time::Duration;

use forebay::Record;
use forebay_history::{EventQuery, Feed, History, HistoryError, Records};
use redis::streams::{StreamId, StreamRangeReply};
use redis::{Cmd, FromRedisValue, Value, cmd};

use crate::connection::Server;
use crate::entry::{COUNT, EVENTS, FIRST, GAP, Id, ORIGIN, REDRIVEN, REPLAYED, WRITER};
use crate::error::{Failure, UrlError};

/// History of a stream that a [`RedisSink`](crate::RedisSink) writes, from its oldest entry to the one that is its last when the query begins.
///
/// ```no_run
/// use forebay_history::{EventQuery, History};
/// use forebay_redis::RedisHistory;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let history = RedisHistory::open("redis://127.0.0.1/", "forebay:digits")?;
/// for record in history.query(&EventQuery::new().name("train.loss").newest_first().limit(10))? {
///     println!("{record}");
/// }
/// # Ok(())
/// # }
/// ```
pub struct RedisHistory {
    url: String,
    stream: String,
    #[cfg(feature = "tls")]
    root: Option<Vec<u8>>,
}

impl RedisHistory {
    /// Makes a history of a stream. Every query connects, and reads the stream from its beginning.
    ///
    /// # Errors
    ///
    /// The URL cannot be used.
    pub fn open(url: &str, stream: impl Into<String>) -> Result<Self, UrlError> {
        Server::open(url)?;
        Ok(Self {
            url: url.to_owned(),
            stream: stream.into(),
            #[cfg(feature = "tls")]
            root: None,
        })
    }

    /// Trusts servers whose certificate has this root, in PEM, in the place of the roots of the system. For `rediss://`.
    ///
    /// # Errors
    ///
    /// It is no certificate.
    #[cfg(feature = "tls")]
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Result<Self, UrlError> {
        self.root = Some(pem.into());
        self.reader()?;
        Ok(self)
    }

    /// Returns the names of the streams of a server that begin so, sorted. The user needs the right `+scan`.
    ///
    /// # Errors
    ///
    /// The URL cannot be used, or the server does not answer.
    pub fn streams(url: &str, prefix: &str) -> Result<Vec<String>, HistoryError> {
        let server = Server::open(url).map_err(|error| HistoryError::new("the server", error))?;
        let place = server.place().to_owned();
        let masters = server.masters().map_err(|failure| HistoryError::new(&place, failure.at(&place)))?;
        let mut pattern = String::new();
        for letter in prefix.chars() {
            if "*?[]\\^".contains(letter) {
                pattern.push('\\');
            }
            pattern.push(letter);
        }
        pattern.push('*');
        let mut found = BTreeSet::new();
        for mut server in masters {
            let mut cursor = "0".to_owned();
            loop {
                let mut command = cmd("SCAN");
                command.arg(&cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(1000);
                let answer: Result<(String, Vec<String>), Failure> =
                    server.query(command.arg("TYPE").arg("stream"));
                let answer = answer.map_err(|failure| failure.at(server.place()));
                let (next, names) = answer.map_err(|error| HistoryError::new(server.place(), error))?;
                // A name may come twice.
                found.extend(names);
                cursor = next;
                if cursor == "0" {
                    break;
                }
            }
        }
        Ok(found.into_iter().collect())
    }

    /// Begins to read.
    ///
    /// # Errors
    ///
    /// The URL cannot be used.
    pub fn reader(&self) -> Result<RedisReader, UrlError> {
        let reader = RedisReader::open(&self.url, self.stream.clone())?;
        #[cfg(feature = "tls")]
        if let Some(root) = &self.root {
            let mut reader = reader;
            reader.server.trust(root)?;
            return Ok(reader);
        }
        Ok(reader)
    }

    /// Reads the stream up to the entry that is its last one now, and returns what is in it and what is missing.
    ///
    /// # Errors
    ///
    /// The server does not answer, or what is in the stream is none of forebay's.
    pub fn account(&self) -> Result<Account, HistoryError> {
        let mut reader = self.reader_up_to_now()?;
        while reader.poll()?.is_some() {}
        Ok(reader.account())
    }

    fn reader_up_to_now(&self) -> Result<RedisReader, HistoryError> {
        let mut reader = self.reader().map_err(|error| HistoryError::new(&self.stream, error))?;
        reader.end_here()?;
        Ok(reader)
    }
}

impl History for RedisHistory {
    fn query(&self, query: &EventQuery) -> Result<Vec<Record>, HistoryError> {
        self.iter(query)?.collect()
    }

    fn iter<'a>(&'a self, query: &EventQuery) -> Result<Records<'a>, HistoryError> {
        let (mut reader, mut is_over) = (self.reader_up_to_now()?, false);
        let records = std::iter::from_fn(move || {
            if is_over {
                return None;
            }
            let next = reader.poll().transpose();
            is_over = !matches!(next, Some(Ok(_)));
            next
        });
        Ok(query.select(records))
    }
}

impl fmt::Debug for RedisHistory {
    /// Without the URL, which may have a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisHistory").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// What is in a stream, and what is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Account {
    /// Number of entries.
    pub entries: u64,
    /// Number of events in them, dead letters included.
    pub events: u64,
    /// Events that were evicted before they came to the sink.
    pub evicted: u64,
    /// Numbers before the first entry of a stream from which the server has removed entries: by its limit, or because somebody deleted
    /// them. Servers before Redis 7 do not say whether they have; there, all such numbers count here.
    pub removed: u64,
    /// Other numbers that no entry has, beyond those that were evicted: batches that failed, that a filter before the sink left out, or
    /// that somebody deleted from the middle.
    pub absent: u64,
    /// Dead letters, delivered after all. They are among `events`, and fill a part of `absent`.
    pub redriven: u64,
    /// Number of sinks that wrote the entries, one after the other.
    pub writers: u64,
    /// Number of entries that are none of forebay's, and are in no other number here.
    pub foreign: u64,
}

/// Most entries that are read at once, and about how many bytes of them.
const PAGE: u64 = 64;
const PAGE_BYTES: u64 = 4 << 20;

/// Reader of a stream that remembers its place, so that it can go on as the stream grows. A page of entries is in memory, of about 4 MiB where
/// they are of about one size, and the records of one entry.
#[derive(Debug)]
pub struct RedisReader {
    server: Server,
    stream: String,
    /// The next id to ask for.
    next: Id,
    /// The last one to ask for.
    end: Option<Id>,
    /// Number of entries to ask for.
    page: u64,
    entries: VecDeque<StreamId>,
    /// Records of an entry that were not given yet.
    records: VecDeque<Record>,
    account: Account,
    /// The sink and the origin whose entries are being read, and the number of the event that should come next.
    expected: Option<(String, String, u64)>,
}

impl RedisReader {
    /// Makes a reader that begins with the oldest entry.
    ///
    /// # Errors
    ///
    /// The URL cannot be used.
    pub fn open(url: &str, stream: impl Into<String>) -> Result<Self, UrlError> {
        Ok(Self {
            server: Server::open(url)?,
            stream: stream.into(),
            next: Id::default(),
            end: None,
            page: 8,
            entries: VecDeque::new(),
            records: VecDeque::new(),
            account: Account::default(),
            expected: None,
        })
    }

    /// Sets how long it waits for the server. Defaults to 5 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.server.timeout = timeout.max(Duration::from_millis(1));
        self
    }

    /// Returns the next record. `None`: there is none yet, and a later call may find one.
    ///
    /// # Errors
    ///
    /// The server does not answer: the next call tries again. Or an entry is none of forebay's: all records before it were given, and the
    /// next call goes on behind it.
    pub fn poll(&mut self) -> Result<Option<Record>, HistoryError> {
        loop {
            if let Some(record) = self.records.pop_front() {
                return Ok(Some(record));
            }
            if let Some(entry) = self.entries.pop_front() {
                match records_of(&entry) {
                    Ok(records) => self.records = records,
                    Err(why) => {
                        self.account.foreign += 1;
                        return Err(HistoryError::new(&self.stream, format!("entry {}: {why}", entry.id)));
                    }
                }
                self.count(&entry)?;
            } else if !self.read_page()? {
                return Ok(None);
            }
        }
    }

    /// Makes [`poll`](Self::poll) return `None` behind the entry that is the last one now, however fast the stream grows.
    ///
    /// # Errors
    ///
    /// The server does not answer.
    pub fn end_here(&mut self) -> Result<(), HistoryError> {
        self.end = Some(self.last()?);
        Ok(())
    }

    /// Makes [`poll`](Self::poll) go on with what has come since [`end_here`](Self::end_here).
    pub fn go_on(&mut self) {
        self.end = None;
    }

    /// Returns what was read so far.
    pub fn account(&self) -> Account {
        self.account
    }

    /// Returns the id of the last entry.
    fn last(&mut self) -> Result<Id, HistoryError> {
        let top: StreamRangeReply =
            self.ask(cmd("XREVRANGE").arg(self.stream.clone()).arg("+").arg("-").arg("COUNT").arg(1))?;
        Ok(top.ids.first().and_then(|entry| entry.id.parse().ok()).unwrap_or_default())
    }

    fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, HistoryError> {
        let answer = self.server.query(command);
        answer.map_err(|failure| HistoryError::new(&self.stream, failure.at(self.server.place())))
    }

    /// Reads some entries. Returns `false` if there are none.
    fn read_page(&mut self) -> Result<bool, HistoryError> {
        if self.end.is_some_and(|end| self.next > end) {
            return Ok(false);
        }
        let end = self.end.map_or("+".to_owned(), |end| end.to_string());
        let mut command = cmd("XRANGE");
        command.arg(&self.stream).arg(self.next.to_string()).arg(end).arg("COUNT").arg(self.page);
        let page: StreamRangeReply = self.ask(&command)?;
        let last = page.ids.last().map(|entry| entry.id.parse::<Id>());
        match last {
            None => return Ok(false),
            Some(Ok(last)) => self.next = last.next(),
            Some(Err(())) => return Err(HistoryError::new(&self.stream, "an id that is none of a stream")),
        }
        let bytes: u64 = page.ids.iter().filter_map(|entry| Some(bytes_of(entry)?.len() as u64)).sum();
        self.page = (PAGE_BYTES * page.ids.len() as u64 / bytes.max(1)).clamp(1, PAGE);
        self.entries = page.ids.into();
        Ok(true)
    }

    /// Counts an entry that was read, and what is missing before it.
    fn count(&mut self, entry: &StreamId) -> Result<(), HistoryError> {
        let number = |field: &str| entry.get::<u64>(field).unwrap_or_default();
        let (first, count, gap) = (number(FIRST), number(COUNT), number(GAP));
        self.account.entries += 1;
        self.account.events += count;
        self.account.evicted += gap;
        if entry.contains_key(REDRIVEN) {
            self.account.redriven += count;
            return Ok(());
        }
        let text = |field: &str| entry.get::<String>(field).unwrap_or_default();
        let (writer, origin) = (text(WRITER), text(ORIGIN));
        let begin = first.saturating_sub(gap);
        // What a process has left in a spill is written by the next one, and goes on behind its other events.
        let goes_on =
            |known: &str, of: &str| of == origin && (known == writer || entry.contains_key(REPLAYED));
        match &self.expected {
            Some((known, of, expected)) if goes_on(known, of) => {
                self.account.absent += begin.saturating_sub(*expected);
            }
            known => {
                let is_oldest = known.is_none() && self.account.entries == 1;
                self.account.writers += 1;
                if begin > 0 && is_oldest && self.has_lost_entries()? {
                    self.account.removed += begin;
                } else {
                    self.account.absent += begin;
                }
            }
        }
        self.expected = Some((writer, origin, first + count));
        Ok(())
    }

    /// Returns whether the stream has had more entries than it has, as far as the server says.
    fn has_lost_entries(&mut self) -> Result<bool, HistoryError> {
        let info: HashMap<String, Value> = self.ask(cmd("XINFO").arg("STREAM").arg(self.stream.clone()))?;
        let number = |field: &str| match info.get(field) {
            Some(Value::Int(number)) => Some(*number),
            _ => None,
        };
        Ok(number("entries-added").is_none_or(|added| Some(added) > number("length")))
    }
}

impl Feed for RedisReader {
    fn poll(&mut self) -> Result<Option<Record>, HistoryError> {
        Self::poll(self)
    }

    fn not_read(&self) -> u64 {
        self.account.foreign
    }
}

fn bytes_of(entry: &StreamId) -> Option<&[u8]> {
    match entry.map.get(EVENTS) {
        Some(Value::BulkString(bytes)) => Some(bytes),
        _ => None,
    }
}

/// Returns the records of an entry.
fn records_of(entry: &StreamId) -> Result<VecDeque<Record>, String> {
    for field in [FIRST, COUNT, GAP] {
        entry.get::<u64>(field).ok_or_else(|| {
            format!(
                "field {field:?} must be a number, got {:?}",
                entry.get::<String>(field).unwrap_or_default()
            )
        })?;
    }
    let lines = bytes_of(entry).ok_or_else(|| format!("field {EVENTS:?} is missing"))?;
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).map_err(|error| format!("not a record: {error}"))).collect()
}
