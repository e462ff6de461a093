//! `RedisSink`: a batch becomes an entry, and never two.

use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, RandomState};
use std::time::{Duration, SystemTime};

use forebay::Batch;
use forebay::sink::{LineEncoder, Missing, Sink, SinkError};
use redis::streams::{StreamId, StreamInfoStreamReply, StreamRangeReply};
use redis::{Cmd, cmd};
use serde::Serialize;

use crate::connection::Server;
use crate::entry::{COUNT, EVENTS, FIRST, GAP, Id, ORIGIN, Part, REDRIVEN, REPLAYED, WRITER};
use crate::error::{Failure, UrlError};

/// 1 MiB.
const MAX_ENTRY_BYTES: usize = 1 << 20;

/// Sink that appends batches to a stream of Redis or Valkey: see the [crate](crate) for what it promises.
///
/// It is named `redis` unless [`named`](Self::named) says otherwise. It connects with the first batch.
pub struct RedisSink {
    name: String,
    server: Server,
    /// The stream; that of the session where none is named.
    stream: Option<String>,
    /// Id of this sink, in every entry that it writes.
    writer: String,
    /// Stream that what follows is about. Batches of an earlier process may belong into that of its session.
    key: String,
    /// Left half of the ids. `None` before the stream was looked at.
    generation: Option<u64>,
    /// The highest id that was ever tried.
    tried: Id,
    /// The batch that was tried last and not acknowledged: it is tried with the same ids again.
    at_hand: Option<AtHand>,
    /// Who has taken the stream over. Nothing is appended to it any more.
    fenced: Option<String>,
    max_len: Option<u64>,
    max_entry_bytes: usize,
    is_by_event: bool,
    encoder: LineEncoder,
    lines: Vec<u8>,
    /// Where the lines of events begin, behind that of a gap.
    events_begin: usize,
    missing: Missing,
}

impl RedisSink {
    /// Creates a sink for the server of a URL: `redis://[user:password@]host[:port][/database]`, or `rediss://` for TLS with the
    /// feature `tls`.
    ///
    /// # Errors
    ///
    /// The URL cannot be used. Whether the server is there shows with the first batch.
    pub fn open(url: &str) -> Result<Self, UrlError> {
        Ok(Self {
            name: "redis".to_owned(),
            server: Server::open(url)?,
            stream: None,
            writer: new_writer(),
            key: String::new(),
            generation: None,
            tried: Id::default(),
            at_hand: None,
            fenced: None,
            max_len: None,
            max_entry_bytes: MAX_ENTRY_BYTES,
            is_by_event: false,
            encoder: LineEncoder::new(),
            lines: Vec::new(),
            events_begin: 0,
            missing: Missing::default(),
        })
    }

    /// Sets the stream. Defaults to `forebay:SESSION`. A process that goes on with a training run, or comes after another one, appends
    /// behind what is there.
    pub fn stream(mut self, key: impl Into<String>) -> Self {
        self.stream = Some(key.into());
        self
    }

    /// Sets the name that it is counted under.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Keeps about that many entries; the server removes older ones. By default all stay.
    pub fn max_len(mut self, entries: u64) -> Self {
        self.max_len = Some(entries);
        self
    }

    /// Makes an entry of each event, for readers that know nothing of batches. By default a batch is one.
    pub fn entry_per_event(mut self) -> Self {
        self.is_by_event = true;
        self
    }

    /// Splits a batch where its lines are longer, between two events. Defaults to 1 MiB.
    pub fn max_entry_bytes(mut self, bytes: usize) -> Self {
        self.max_entry_bytes = bytes.max(1);
        self
    }

    /// Sets how long the sink waits for the server: to connect, to send, and for an answer. Defaults to 5 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.server.timeout = timeout.max(Duration::from_millis(1));
        self
    }

    /// Trusts servers whose certificate has this root, in PEM, in the place of the roots of the system. For `rediss://`.
    ///
    /// # Errors
    ///
    /// It is no certificate.
    #[cfg(feature = "tls")]
    pub fn root_certificate(mut self, pem: impl AsRef<[u8]>) -> Result<Self, UrlError> {
        self.server.trust(pem.as_ref())?;
        Ok(self)
    }

    /// Encodes a batch. Returns its parts, how many of its events cannot be encoded, and the first error of those.
    fn encode<E: Serialize + 'static>(
        &mut self,
        batch: &Batch<E>,
    ) -> Result<(Vec<Part>, u64, Option<SinkError>), SinkError> {
        self.lines.clear();
        self.encoder.begin(batch);
        let missing = self.missing.before(batch);
        self.encoder.push_gap(&mut self.lines, missing)?;
        self.events_begin = self.lines.len();
        let (mut parts, mut refused, mut error) = (Vec::<Part>::new(), 0, None);
        for (number, event) in (batch.first_event()..).zip(batch) {
            let begin = self.lines.len();
            if let Err(why) = self.encoder.push(&mut self.lines, event) {
                refused += 1;
                error.get_or_insert(why);
                continue;
            }
            let end = self.lines.len();
            match parts.last_mut() {
                Some(part) if !self.is_by_event && end - part.lines.0 <= self.max_entry_bytes => {
                    part.count += 1;
                    part.lines.1 = end;
                }
                // The line of the gap goes with the first one.
                None => parts.push(Part { first: number, count: 1, gap: batch.gap(), lines: (0, end) }),
                Some(_) => parts.push(Part { first: number, count: 1, gap: 0, lines: (begin, end) }),
            }
        }
        if parts.is_empty() && missing > 0 {
            parts.push(Part {
                first: batch.first_event(),
                count: 0,
                gap: batch.gap(),
                lines: (0, self.lines.len()),
            });
        }
        Ok((parts, refused, error))
    }

    fn append<E>(&self, key: &str, id: Id, part: &Part, origin: &str, batch: &Batch<E>) -> Cmd {
        let mut command = cmd("XADD");
        command.arg(key);
        if let Some(entries) = self.max_len {
            command.arg("MAXLEN").arg("~").arg(entries);
        }
        command.arg(id.to_string()).arg(WRITER).arg(&self.writer);
        command.arg(FIRST).arg(part.first).arg(COUNT).arg(part.count).arg(GAP).arg(part.gap);
        for (field, is_set) in [(REDRIVEN, batch.is_redriven()), (REPLAYED, batch.is_replayed())] {
            if is_set {
                command.arg(field).arg(1);
            }
        }
        command.arg(ORIGIN).arg(origin);
        command.arg(EVENTS).arg(self.lines.get(part.lines.0..part.lines.1).unwrap_or_default());
        command
    }

    /// Returns the generation for a batch. It never falls; the first one is above that of every other writer, whose ids are then refused.
    /// Also returns what is at the end of the stream, if that was looked at.
    fn generation(&mut self, key: &str, wanted: u64) -> Result<(u64, Option<Last>), Failure> {
        let (least, last) = match self.generation {
            Some(generation) => (generation, None),
            None => match last_of(&mut self.server, key)? {
                Some(last) if last.writer.as_deref() != Some(&self.writer) => {
                    (last.id.generation.saturating_add(1), Some(last))
                }
                Some(last) => (last.id.generation, Some(last)),
                None => (1, None),
            },
        };
        let generation = least.max(wanted);
        self.generation = Some(generation);
        Ok((generation, last))
    }

    /// Chooses the ids of a batch: those with which it was tried before, or ids that were never tried. They follow from the numbers of
    /// the events, unless dead letters came between.
    fn ids(&mut self, generation: u64, batch: BatchId, parts: &[Part]) -> (Vec<Id>, bool) {
        if let Some(at_hand) =
            self.at_hand.take_if(|at_hand| at_hand.batch == batch && at_hand.ids.len() == parts.len())
        {
            return (at_hand.ids, true);
        }
        let mut ids = Vec::with_capacity(parts.len());
        for part in parts {
            let wanted = Id { generation, number: part.first.saturating_add(1) };
            self.tried = if wanted > self.tried { wanted } else { self.tried.next() };
            ids.push(self.tried);
        }
        (ids, false)
    }

    /// Appends the parts of a batch: all of them, or none.
    fn deliver<E>(&mut self, batch: &Batch<E>, parts: &[Part]) -> Result<(), SinkError> {
        if parts.is_empty() {
            return Ok(());
        }
        let place = self.server.place().to_owned();
        let key = self.stream.clone().unwrap_or_else(|| format!("forebay:{}", batch.session()));
        if key != self.key {
            self.key.clone_from(&key);
            (self.generation, self.tried, self.at_hand, self.fenced) = (None, Id::default(), None, None);
        }
        if let Some(who) = &self.fenced {
            return Err(fenced(&place, &key, who));
        }
        let origin = serde_json::to_string(batch.origin()).unwrap_or_default();
        let wanted = batch.run().map_or(1, |run| run.generation);
        let (generation, last) = self.generation(&key, wanted).map_err(|failure| failure.at(&place))?;
        if batch.is_replayed() && last.is_some_and(|last| last.has(&origin, batch)) {
            // The process that had it died before it saw the answer.
            return Ok(());
        }
        let id = BatchId {
            number: batch.number(),
            time: batch.time(),
            lines: BuildHasherDefault::<DefaultHasher>::default()
                .hash_one(self.lines.get(self.events_begin..)),
        };
        let (ids, is_retry) = self.ids(generation, id, parts);
        let append = |(part, id): (&Part, &Id)| self.append(&key, *id, part, &origin, batch);
        let commands: Vec<Cmd> = parts.iter().zip(&ids).map(append).collect();
        let first = ids[0];
        self.at_hand = Some(AtHand { batch: id, ids });
        let answers = self.server.run(commands).map_err(|failure| failure.at(&place))?;
        let is_retry = is_retry || self.server.has_sent_twice();
        // One for all: a transaction, whose commands differ by their ids alone.
        let outcome = match answers.into_iter().find_map(Result::err) {
            None => Ok(()),
            Some(failure) if failure.is_behind() => self.resolve(&key, first, is_retry),
            Some(failure) => Err(failure.at(&place)),
        };
        if outcome.is_ok() {
            self.at_hand = None;
        }
        outcome
    }

    /// Finds out why the server refused an id: the batch was appended before and the answer was lost, or another producer is here.
    fn resolve(&mut self, key: &str, id: Id, is_retry: bool) -> Result<(), SinkError> {
        let id = id.to_string();
        if self.first_of("XRANGE", key, (&id, &id))?.is_some_and(|entry| self.is_own(&entry)) {
            return Ok(());
        }
        let who = match self.first_of("XREVRANGE", key, ("+", "-"))? {
            // It was appended, and is gone: removed by the limit, or by a reader that has taken it. (No id is tried for two batches.)
            Some(last) if self.is_own(&last) => return Ok(()),
            None if is_retry => return Ok(()),
            Some(last) => who_wrote(&last),
            None => "its entries are gone".to_owned(),
        };
        let error = fenced(self.server.place(), key, &who);
        self.fenced = Some(who);
        Err(error)
    }

    /// Returns the first entry of a range.
    fn first_of(
        &mut self,
        range: &str,
        key: &str,
        ends: (&str, &str),
    ) -> Result<Option<StreamId>, SinkError> {
        let mut command = cmd(range);
        command.arg(key).arg(ends.0).arg(ends.1).arg("COUNT").arg(1);
        let found: Result<StreamRangeReply, Failure> = self.server.query(&command);
        Ok(found.map_err(|failure| failure.at(self.server.place()))?.ids.into_iter().next())
    }

    fn is_own(&self, entry: &StreamId) -> bool {
        entry.get::<String>(WRITER).is_some_and(|writer| writer == self.writer)
    }
}

/// What tells one batch from another, also where dead letters have the number of the batch in which they failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BatchId {
    number: u64,
    time: SystemTime,
    lines: u64,
}

/// Batch that was tried, with its ids.
struct AtHand {
    batch: BatchId,
    ids: Vec<Id>,
}

/// The highest id that a stream has had, and what its last entry says.
struct Last {
    id: Id,
    writer: Option<String>,
    origin: Option<String>,
    /// Number behind its last event, and whether it has none. `None` for dead letters.
    end: Option<(u64, bool)>,
}

impl Last {
    /// Returns whether a batch of that origin is in the stream: whole batches are appended, in the order of their numbers.
    fn has<E>(&self, origin: &str, batch: &Batch<E>) -> bool {
        // An entry of a gap alone ends where the next batch begins.
        self.origin.as_deref() == Some(origin)
            && self.end.is_some_and(|(end, is_gap)| {
                let all = batch.first_event().saturating_add(batch.len() as u64);
                if batch.is_empty() && end == all { is_gap } else { end >= all }
            })
    }
}

/// Looks at the end of a stream. `None`: there is no stream.
fn last_of(server: &mut Server, key: &str) -> Result<Option<Last>, Failure> {
    let info: Result<StreamInfoStreamReply, Failure> = server.query(cmd("XINFO").arg("STREAM").arg(key));
    let info = match info {
        Ok(info) => info,
        Err(failure) if failure.is_of_no_key() => return Ok(None),
        Err(failure) => return Err(failure),
    };
    let number = |field: &str| info.last_entry.get::<u64>(field);
    let end =
        number(FIRST).zip(number(COUNT)).map(|(first, count)| (first.saturating_add(count), count == 0));
    Ok(Some(Last {
        id: info.last_generated_id.parse().unwrap_or_default(),
        writer: info.last_entry.get(WRITER),
        origin: info.last_entry.get(ORIGIN),
        end: end.filter(|_| !info.last_entry.contains_key(REDRIVEN)),
    }))
}

fn fenced(place: &str, key: &str, who: &str) -> SinkError {
    SinkError::write_failed(format!("{place}: another producer writes to stream {key:?}: {who}")).permanent()
}

/// Returns a new id: random bits of the system, with the process and the time, because a forked child has the bits of its parent.
fn new_writer() -> String {
    format!("{:016x}", RandomState::new().hash_one((std::process::id(), SystemTime::now())))
}

fn who_wrote(entry: &StreamId) -> String {
    entry.get::<String>(ORIGIN).unwrap_or_else(|| format!("entry {} is none of forebay's", entry.id))
}

impl<E: Serialize + Send + Sync + 'static> Sink<E> for RedisSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn write_batch(&mut self, batch: &Batch<E>) -> Result<(), SinkError> {
        if batch.is_forked() {
            return Err(SinkError::forked());
        }
        let (parts, refused, not_encoded) = self.encode(batch)?;
        // Serialised by user code, which may have forked: the connection is the parent's.
        if batch.is_forked() {
            return Err(SinkError::forked());
        }
        let delivered = self.deliver(batch, &parts);
        if self.lines.capacity() > 4 * MAX_ENTRY_BYTES {
            self.lines = Vec::new();
        }
        if delivered.is_ok() && !parts.is_empty() {
            self.missing.mark_reported(refused);
        } else {
            self.missing.add(batch);
        }
        match (delivered, not_encoded) {
            (Err(error), _) => Err(error),
            (Ok(()), Some(error)) => Err(error.with_failed_events(refused)),
            (Ok(()), None) => Ok(()),
        }
    }
}

impl fmt::Debug for RedisSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSink")
            .field("name", &self.name)
            .field("server", &self.server)
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}
