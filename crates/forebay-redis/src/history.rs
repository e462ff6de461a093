//! `RedisHistory` and `RedisReader`: the records of a stream, read page by page.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use forebay::Record;
use forebay_history::{EventQuery, History, HistoryError, Records};
use redis::streams::{StreamId, StreamRangeReply};
use redis::{RedisError, cmd};

use crate::connection::Server;
use crate::entry::{COUNT, EVENTS, FIRST, GAP, Id};
use crate::error::{UrlError, sink_error};
use crate::sink::late;

/// Entries that are read at once.
const PAGE: usize = 64;

/// History of a stream that a [`RedisSink`](crate::RedisSink) writes, from its oldest entry on; what came late is read last.
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

    /// Reads the whole stream, and returns what is in it and what is missing.
    ///
    /// # Errors
    ///
    /// The server does not answer, or what is in the stream is none of forebay's.
    pub fn account(&self) -> Result<Account, HistoryError> {
        let mut reader = self.reader().map_err(|error| HistoryError::new(&self.stream, error))?;
        while reader.poll()?.is_some() {}
        Ok(reader.account())
    }
}

impl History for RedisHistory {
    fn query(&self, query: &EventQuery) -> Result<Vec<Record>, HistoryError> {
        self.iter(query)?.collect()
    }

    fn iter<'a>(&'a self, query: &EventQuery) -> Result<Records<'a>, HistoryError> {
        let reader = self.reader().map_err(|error| HistoryError::new(&self.stream, error))?;
        let reader = RefCell::new((reader, false));
        let records = std::iter::from_fn(move || {
            let (reader, is_over) = &mut *reader.borrow_mut();
            if *is_over {
                return None;
            }
            let next = reader.poll().transpose();
            *is_over = !matches!(next, Some(Ok(_)));
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
    /// Number of events in them.
    pub events: u64,
    /// Events that were evicted before they came to the sink.
    pub evicted: u64,
    /// Numbers before the first entry: what the server has removed, by its limit or because somebody deleted it.
    pub removed: u64,
    /// Numbers between two entries, beyond those that were evicted: batches that failed, or that a filter before the sink left out.
    pub absent: u64,
    /// Events that came late, as dead letters do. They may fill a part of `absent`.
    pub late: u64,
}

/// Reader of a stream that remembers its place, so that it can go on as the stream grows.
#[derive(Debug)]
pub struct RedisReader {
    server: Server,
    stream: String,
    /// The next id to ask for, in the stream and in that of what came late.
    next: [Id; 2],
    /// Which of the two is being read.
    at: usize,
    /// Records that were read and not given yet.
    records: VecDeque<Record>,
    account: Account,
    /// Number of the event that should come next.
    expected: Option<u64>,
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
            next: [Id::default(); 2],
            at: 0,
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
    /// The server does not answer, or an entry is none of forebay's. The next call tries again, behind such an entry.
    pub fn poll(&mut self) -> Result<Option<Record>, HistoryError> {
        let begun_at = self.at;
        while self.records.is_empty() {
            if !self.read_page()? {
                self.at = (self.at + 1) % 2;
                if self.at == begun_at {
                    // Both were looked at; the next call begins with the stream.
                    self.at = 0;
                    return Ok(None);
                }
            }
        }
        Ok(self.records.pop_front())
    }

    /// Returns what was read so far.
    pub fn account(&self) -> Account {
        self.account
    }

    /// Reads some entries. Returns `false` if there are none.
    fn read_page(&mut self) -> Result<bool, HistoryError> {
        let key = if self.at == 0 { self.stream.clone() } else { late(&self.stream) };
        let from = self.next[self.at];
        let command = || {
            let mut command = cmd("XRANGE");
            command.arg(&key).arg(from.to_string()).arg("+").arg("COUNT").arg(PAGE);
            command
        };
        let page: Result<StreamRangeReply, RedisError> =
            self.server.run(|connection| command().query(connection));
        let page = page.map_err(|error| HistoryError::new(&key, sink_error(self.server.place(), &error)))?;
        for entry in &page.ids {
            let Ok(id) = entry.id.parse::<Id>() else {
                return Err(HistoryError::new(&key, format!("entry id {:?} is none of a stream", entry.id)));
            };
            self.next[self.at] = id.next();
            self.take(entry).map_err(|why| HistoryError::new(&key, format!("entry {}: {why}", entry.id)))?;
        }
        Ok(!page.ids.is_empty())
    }

    fn take(&mut self, entry: &StreamId) -> Result<(), String> {
        let number = |field: &str| {
            entry.get::<u64>(field).ok_or_else(|| format!("field {field:?} must be a number, and is not"))
        };
        let (first, count, gap) = (number(FIRST)?, number(COUNT)?, number(GAP)?);
        let lines: Vec<u8> = entry.get(EVENTS).ok_or_else(|| format!("field {EVENTS:?} is missing"))?;
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let record = serde_json::from_slice(line).map_err(|error| format!("not a record: {error}"))?;
            self.records.push_back(record);
        }
        let account = &mut self.account;
        account.entries += 1;
        account.events += count;
        if self.at == 1 {
            account.late += count;
            return Ok(());
        }
        let begin = first.saturating_sub(if count == 0 { gap.saturating_sub(1) } else { gap });
        match self.expected {
            None => account.removed += begin,
            Some(expected) => account.absent += begin.saturating_sub(expected),
        }
        account.evicted += gap;
        self.expected = Some(first + count.max(1));
        Ok(())
    }
}
