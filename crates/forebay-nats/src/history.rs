//! `NatsHistory` and `NatsReader`: the records of a subject, read page by page.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::datetime::{DateTime, from_nanos};
use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::pull::Config;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer};
use forebay::Record;
use forebay_history::{EventQuery, History, HistoryError, Records};
use futures_util::StreamExt;

use crate::connection::{Link, Server};
use crate::error::{Failure, UrlError};
use crate::message::{COUNT, FIRST, GAP, REDRIVEN, WRITER, number, text};

/// History of a subject that a [`NatsSink`](crate::NatsSink) writes, from its oldest message to the one that is its last when the query begins.
/// With wildcards, as in `forebay.digits.*`, those of several, as the stream has them.
///
/// ```no_run
/// use forebay_history::{EventQuery, History};
/// use forebay_nats::NatsHistory;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let history = NatsHistory::open("nats://127.0.0.1", "forebay.digits.0")?;
/// for record in history.query(&EventQuery::new().name("train.loss").newest_first().limit(10))? {
///     println!("{record}");
/// }
/// # Ok(())
/// # }
/// ```
pub struct NatsHistory {
    url: String,
    subject: String,
    root: Option<Vec<u8>>,
    #[cfg(feature = "nkeys")]
    nkey: Option<String>,
    #[cfg(feature = "nkeys")]
    credentials: Option<String>,
}

impl NatsHistory {
    /// Makes a history of a subject. Every query connects, and reads the subject from its beginning.
    ///
    /// # Errors
    ///
    /// The URL cannot be used.
    pub fn open(url: &str, subject: impl Into<String>) -> Result<Self, UrlError> {
        Server::open(url)?;
        Ok(Self {
            url: url.to_owned(),
            subject: subject.into(),
            root: None,
            #[cfg(feature = "nkeys")]
            nkey: None,
            #[cfg(feature = "nkeys")]
            credentials: None,
        })
    }

    /// Trusts servers whose certificate has this root, in PEM, in the place of the roots of the system.
    ///
    /// # Errors
    ///
    /// It is no certificate.
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Result<Self, UrlError> {
        self.root = Some(pem.into());
        self.reader()?;
        Ok(self)
    }

    /// Logs in by an nkey, whose seed this is.
    #[cfg(feature = "nkeys")]
    pub fn nkey(mut self, seed: impl Into<String>) -> Self {
        self.nkey = Some(seed.into());
        self
    }

    /// Logs in by credentials: what is in a file `.creds`.
    ///
    /// # Errors
    ///
    /// There is no JWT with its seed in it.
    #[cfg(feature = "nkeys")]
    pub fn credentials(mut self, content: impl Into<String>) -> Result<Self, UrlError> {
        self.credentials = Some(content.into());
        self.reader()?;
        Ok(self)
    }

    /// Begins to read.
    ///
    /// # Errors
    ///
    /// The URL cannot be used.
    pub fn reader(&self) -> Result<NatsReader, UrlError> {
        let mut reader = NatsReader::open(&self.url, self.subject.clone())?;
        if let Some(root) = &self.root {
            reader.server.trust(root)?;
        }
        #[cfg(feature = "nkeys")]
        if let Some(seed) = &self.nkey {
            reader.server.nkey(seed.clone());
        }
        #[cfg(feature = "nkeys")]
        if let Some(credentials) = &self.credentials {
            reader.server.credentials(credentials.clone())?;
        }
        Ok(reader)
    }

    /// Reads the subject up to the message that is its last one now, and returns what is in it and what is missing.
    ///
    /// # Errors
    ///
    /// The server does not answer, or what is in the stream is none of forebay's.
    pub fn account(&self) -> Result<Account, HistoryError> {
        let mut reader = self.reader_up_to_now()?;
        while reader.poll()?.is_some() {}
        Ok(reader.account())
    }

    fn reader_up_to_now(&self) -> Result<NatsReader, HistoryError> {
        let mut reader = self.reader().map_err(|error| HistoryError::new(&self.subject, error))?;
        reader.end_here()?;
        Ok(reader)
    }
}

impl History for NatsHistory {
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

impl fmt::Debug for NatsHistory {
    /// Without the URL, which may have a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsHistory").field("subject", &self.subject).finish_non_exhaustive()
    }
}

/// What a subject has, and what it has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Account {
    /// Number of messages.
    pub messages: u64,
    /// Number of events in them, dead letters included.
    pub events: u64,
    /// Events that were evicted before they came to the sink.
    pub evicted: u64,
    /// Numbers before the first message of a subject, in a stream from which the server has removed messages: by a limit, or because
    /// somebody deleted them.
    pub removed: u64,
    /// Other numbers that no message has, beyond those that were evicted: batches that failed, that a filter before the sink left out, or
    /// that somebody deleted from the middle.
    pub absent: u64,
    /// Dead letters, delivered after all. They are among `events`, and fill a part of `absent`.
    pub redriven: u64,
    /// Number of sinks that wrote the messages.
    pub writers: u64,
}

/// Most messages that are read at once, and about how many bytes of them.
const PAGE: u64 = 64;
const PAGE_BYTES: u64 = 4 << 20;

/// How long the server keeps the place of a reader that asks for nothing.
const INACTIVE: Duration = Duration::from_secs(60);

/// Where to begin to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begin {
    /// With this message, or the first one after it.
    Message(u64),
    Time(SystemTime),
}

/// Reader of a subject that remembers its place, so that it can go on as the stream grows. A page of messages is in memory, of about 4 MiB where
/// they are of about one size, and the records of one message.
#[derive(Debug)]
pub struct NatsReader {
    server: Server,
    subject: String,
    /// What to ask for next.
    next: Begin,
    /// When the stream was made that is being read.
    created: Option<DateTime>,
    /// The last message to give.
    end: Option<u64>,
    /// Number of messages to ask for.
    page: u64,
    messages: VecDeque<Entry>,
    /// Records of a message that were not given yet.
    records: VecDeque<Record>,
    account: Account,
    /// True if the first message that is read need not be the first of its subject.
    is_from_middle: bool,
    /// Of each subject, the sink whose messages are being read, and the number of the event that should come next.
    expected: HashMap<String, (String, u64)>,
}

/// Message with its place in the stream.
#[derive(Debug)]
struct Entry {
    place: u64,
    message: Message,
}

impl NatsReader {
    /// Makes a reader that begins with the oldest message.
    ///
    /// # Errors
    ///
    /// The URL cannot be used.
    pub fn open(url: &str, subject: impl Into<String>) -> Result<Self, UrlError> {
        Ok(Self {
            server: Server::open(url)?,
            subject: subject.into(),
            next: Begin::Message(1),
            created: None,
            end: None,
            page: 8,
            messages: VecDeque::new(),
            records: VecDeque::new(),
            account: Account::default(),
            is_from_middle: false,
            expected: HashMap::new(),
        })
    }

    /// Begins with this message of the stream, or the first one after it: as [`next_message`](Self::next_message) of another reader says, or as the server
    /// numbers them. What was before does not count as missing.
    pub fn from_message(mut self, number: u64) -> Self {
        (self.next, self.is_from_middle) = (Begin::Message(number.max(1)), number > 1);
        self
    }

    /// Begins with the first message that the server got at that time, or later. What was before does not count as missing.
    pub fn from_time(mut self, time: SystemTime) -> Self {
        (self.next, self.is_from_middle) = (Begin::Time(time), true);
        self
    }

    /// Sets how long it waits for the server. Defaults to 5 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.server.timeout = timeout.max(Duration::from_millis(1));
        self
    }

    /// Returns the number of the message whose records come next, once those of the message at hand were given. `None`: it began with a time, and has read
    /// nothing yet.
    pub fn next_message(&self) -> Option<u64> {
        match (self.messages.front(), self.next) {
            (Some(entry), _) => Some(entry.place),
            (None, Begin::Message(number)) => Some(number),
            (None, Begin::Time(_)) => None,
        }
    }

    /// Returns the next record. `None`: there is none yet, and a later call may find one.
    ///
    /// # Errors
    ///
    /// The server does not answer: the next call tries again. Or a message is none of forebay's: all records before it were given, and the
    /// next call goes on behind it.
    pub fn poll(&mut self) -> Result<Option<Record>, HistoryError> {
        loop {
            if let Some(record) = self.records.pop_front() {
                return Ok(Some(record));
            }
            if self.messages.is_empty() && !self.read_page()? {
                return Ok(None);
            }
            let is_later = |entry: &Entry| self.end.is_some_and(|end| entry.place > end);
            if self.messages.front().is_some_and(is_later) {
                return Ok(None);
            }
            let Some(entry) = self.messages.pop_front() else { continue };
            let refused = |why| HistoryError::new(&self.subject, format!("message {}: {why}", entry.place));
            self.records = records_of(&entry.message).map_err(refused)?;
            self.count(&entry)?;
        }
    }

    /// Makes [`poll`](Self::poll) return `None` behind the message that is the last one now, however fast the stream grows.
    ///
    /// # Errors
    ///
    /// The server does not answer.
    pub fn end_here(&mut self) -> Result<(), HistoryError> {
        let subject = self.subject.clone();
        let last = self.ask(async |link: &mut Link| {
            let Some(stream) = link.stream_of(&subject).await? else { return Ok(0) };
            Ok(link.info(&stream).await?.state.last_sequence)
        })?;
        self.end = Some(last);
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

    fn ask<T>(&mut self, work: impl AsyncFnMut(&mut Link) -> Result<T, Failure>) -> Result<T, HistoryError> {
        let answer = self.server.run(work);
        answer.map_err(|failure| HistoryError::new(&self.subject, failure.at(self.server.place())))
    }

    /// Reads some messages. Returns `false` if there are none.
    fn read_page(&mut self) -> Result<bool, HistoryError> {
        let is_over = |end| matches!(self.next, Begin::Message(next) if next > end);
        if self.end.is_some_and(is_over) {
            return Ok(false);
        }
        let (subject, next, page, mut created) = (self.subject.clone(), self.next, self.page, self.created);
        let found = self.ask(async |link: &mut Link| link.page(&subject, next, &mut created, page).await)?;
        self.created = created;
        let Some(last) = found.last() else { return Ok(false) };
        self.next = Begin::Message(last.place.saturating_add(1));
        let bytes: u64 = found.iter().map(|entry| entry.message.payload.len() as u64).sum();
        self.page = (PAGE_BYTES * found.len() as u64 / bytes.max(1)).clamp(1, PAGE);
        self.messages = found.into();
        Ok(true)
    }

    /// Counts a message that was read, and what is missing before it.
    fn count(&mut self, entry: &Entry) -> Result<(), HistoryError> {
        let Some(headers) = &entry.message.headers else { return Ok(()) };
        let number = |name: &str| number(headers, name).unwrap_or_default();
        let (first, count, gap) = (number(FIRST), number(COUNT), number(GAP));
        self.account.messages += 1;
        self.account.events += count;
        self.account.evicted += gap;
        if headers.get(REDRIVEN).is_some() {
            self.account.redriven += count;
            return Ok(());
        }
        let writer = text(headers, WRITER).unwrap_or_default().to_owned();
        let (subject, begin) = (entry.message.subject.as_str(), first.saturating_sub(gap));
        match self.expected.get(subject) {
            Some((known, expected)) if *known == writer => {
                self.account.absent += begin.saturating_sub(*expected);
            }
            known => {
                let is_first = known.is_none();
                self.account.writers += 1;
                if begin == 0 || is_first && self.is_from_middle {
                    // Nothing is missing.
                } else if is_first && self.has_lost_messages()? {
                    self.account.removed += begin;
                } else {
                    self.account.absent += begin;
                }
            }
        }
        self.expected.insert(subject.to_owned(), (writer, first + count));
        Ok(())
    }

    /// Returns whether the stream has had more messages than it has.
    fn has_lost_messages(&mut self) -> Result<bool, HistoryError> {
        let subject = self.subject.clone();
        self.ask(async |link: &mut Link| {
            let Some(stream) = link.stream_of(&subject).await? else { return Ok(true) };
            let state = link.info(&stream).await?.state;
            Ok(state.first_sequence > 1 || state.deleted_count.is_some_and(|deleted| deleted > 0))
        })
    }
}

impl Link {
    /// Reads some messages, from that one on. There are none where there is no stream.
    async fn page(
        &mut self,
        subject: &str,
        begin: Begin,
        known: &mut Option<DateTime>,
        most: u64,
    ) -> Result<Vec<Entry>, Failure> {
        // Its server has lost it: another one begins in the same place.
        let page = self.page.take();
        if let Some((consumer, place)) = page.filter(|(_, place)| begin == Begin::Message(*place))
            && let Ok(found) = self.fetch(consumer, place, most).await
        {
            return Ok(found);
        }
        let Some(stream) = self.stream_of(subject).await? else { return Ok(Vec::new()) };
        // A stream that was made again numbers its messages again.
        let created = self.info(&stream).await?.created;
        let begin = if known.replace(created).is_some_and(|known| known != created) {
            Begin::Message(1)
        } else {
            begin
        };
        let (deliver_policy, place) = match begin {
            Begin::Message(place) => (DeliverPolicy::ByStartSequence { start_sequence: place }, place),
            Begin::Time(time) => {
                let nanos = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
                let start_time = from_nanos(i128::try_from(nanos).unwrap_or(i128::MAX));
                let start_time = start_time.map_err(|error| Failure::never(error.to_string()))?;
                (DeliverPolicy::ByStartTime { start_time }, 1)
            }
        };
        let config = Config {
            deliver_policy,
            ack_policy: AckPolicy::None,
            filter_subject: subject.to_owned(),
            inactive_threshold: INACTIVE,
            memory_storage: true,
            num_replicas: 1,
            ..Config::default()
        };
        let consumer = self.jetstream.create_consumer_on_stream(config, &*stream).await;
        let consumer = consumer.map_err(|error| Failure::later(error.to_string()))?;
        self.fetch(consumer, place, most).await
    }

    async fn fetch(
        &mut self,
        consumer: PullConsumer,
        mut place: u64,
        most: u64,
    ) -> Result<Vec<Entry>, Failure> {
        let most = usize::try_from(most).unwrap_or(1);
        let mut batch = consumer.fetch().max_messages(most).messages().await.map_err(Failure::broken)?;
        let mut found = Vec::new();
        while let Some(message) = batch.next().await {
            let message = message.map_err(|error| Failure::later(error.to_string()))?;
            let info = message.info().map_err(|error| Failure::later(error.to_string()))?;
            place = info.stream_sequence;
            found.push(Entry { place, message });
        }
        let next = if found.is_empty() { place } else { place.saturating_add(1) };
        self.page = Some((consumer, next));
        Ok(found)
    }
}

/// Returns the records of a message.
fn records_of(message: &Message) -> Result<VecDeque<Record>, String> {
    let headers = message.headers.as_ref();
    for name in [FIRST, COUNT, GAP] {
        let found = headers.and_then(|headers| text(headers, name)).unwrap_or_default();
        let is_number = found.parse::<u64>().is_ok();
        if !is_number {
            return Err(format!("header {name:?} must be a number, got {found:?}"));
        }
    }
    let lines = message.payload.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).map_err(|error| format!("not a record: {error}"))).collect()
}
