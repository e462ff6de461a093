//! `RedisSink`: a batch becomes an entry, and never two.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use forebay::Batch;
use forebay::sink::{LineEncoder, Missing, Sink, SinkError};
use redis::streams::{StreamId, StreamRangeReply};
use redis::{Cmd, Connection, RedisError, TypedCommands, cmd, pipe};
use serde::Serialize;

use crate::connection::Server;
use crate::entry::{COUNT, EVENTS, FIRST, GAP, Id, ORIGIN, Part, WRITER};
use crate::error::{UrlError, is_behind, is_transient, sink_error};

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
    /// Left half of ids without a training run.
    generation: u64,
    /// The highest id that was appended.
    last: Id,
    max_len: Option<u64>,
    max_entry_bytes: usize,
    is_by_event: bool,
    encoder: LineEncoder,
    lines: Vec<u8>,
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
            generation: 0,
            last: Id::default(),
            max_len: None,
            max_entry_bytes: MAX_ENTRY_BYTES,
            is_by_event: false,
            encoder: LineEncoder::new(),
            lines: Vec::new(),
            missing: Missing::default(),
        })
    }

    /// Sets the stream. Defaults to `forebay:SESSION`. A process that goes on with a training run appends to its stream; of others, use
    /// a stream for training runs alone, or for none.
    pub fn stream(mut self, key: impl Into<String>) -> Self {
        self.stream = Some(key.into());
        // A session without a training run goes on behind the one before it.
        self.generation = unix_millis(SystemTime::now());
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

    fn key<E>(&self, batch: &Batch<E>) -> String {
        self.stream.clone().unwrap_or_else(|| format!("forebay:{}", batch.session()))
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
        if parts.is_empty() && batch.gap() > 0 {
            // The place of the last evicted event, which has no entry. The next batch may begin with the number of this one.
            let first = batch.first_event().saturating_sub(1);
            parts.push(Part { first, count: 0, gap: batch.gap(), lines: (0, self.lines.len()) });
        }
        Ok((parts, refused, error))
    }

    fn append(&self, key: &str, id: &str, part: &Part, origin: &str) -> Cmd {
        let mut command = cmd("XADD");
        command.arg(key);
        if let Some(entries) = self.max_len {
            command.arg("MAXLEN").arg("~").arg(entries);
        }
        command.arg(id).arg(WRITER).arg(&self.writer).arg(FIRST).arg(part.first).arg(COUNT).arg(part.count);
        command.arg(GAP).arg(part.gap).arg(ORIGIN).arg(origin);
        command.arg(EVENTS).arg(self.lines.get(part.lines.0..part.lines.1).unwrap_or_default());
        command
    }

    /// Finds out what became of an entry whose id the server refused.
    fn find(&mut self, key: &str, id: Id) -> Result<Refused, RedisError> {
        let last = self.last;
        let (found, top) = self.server.run(|connection: &mut Connection| {
            let found: StreamRangeReply = connection.xrange(key, id.to_string(), id.to_string())?;
            let top: StreamRangeReply =
                cmd("XREVRANGE").arg(key).arg("+").arg("-").arg("COUNT").arg(1).query(connection)?;
            Ok((found.ids.into_iter().next(), top.ids.into_iter().next()))
        })?;
        Ok(match (found, top) {
            (Some(entry), _) if entry.get::<String>(WRITER).is_some_and(|writer| writer == self.writer) => {
                Refused::IsThere
            }
            (Some(entry), _) => Refused::ByOther(who_wrote(&entry)),
            _ if id <= last => Refused::Late,
            (None, Some(entry)) => Refused::ByOther(who_wrote(&entry)),
            // All entries were deleted, and this is the last id that the stream has had, or an earlier one.
            (None, None) => Refused::Late,
        })
    }

    /// Appends to the stream of what comes late, where the server chooses the id.
    fn append_late(&mut self, key: &str, part: &Part, origin: &str) -> Result<(), RedisError> {
        let command = self.append(&late(key), "*", part, origin);
        self.server.run(|connection| command.query(connection))
    }

    fn deliver<E>(&mut self, batch: &Batch<E>, parts: &[Part]) -> Result<(), (u64, SinkError)> {
        let key = self.key(batch);
        let whole = batch.len() as u64;
        let Some(last_part) = parts.last() else { return Ok(()) };
        // It never falls: a run that begins after another one may have a lower generation.
        let generation = batch.run().map_or(self.generation, |run| run.generation).max(self.last.generation);
        let id_of = |part: &Part| Id { generation, number: part.first.saturating_add(1) };
        let origin = serde_json::to_string(batch.origin()).unwrap_or_default();
        let mut pipeline = pipe();
        for part in parts {
            pipeline.add_command(self.append(&key, &id_of(part).to_string(), part, &origin));
        }
        if parts.len() > 1 {
            // Otherwise the second one might be appended and the first one not.
            pipeline.atomic();
        }
        pipeline.ignore_errors();
        let answers: Result<Vec<Result<String, RedisError>>, _> =
            self.server.run(|connection| pipeline.query(connection));
        let answers = match answers {
            Ok(answers) => answers,
            Err(error) => return Err((whole, sink_error(self.server.place(), &error))),
        };
        let (mut failed, mut first_error) = (0, None);
        for (part, answer) in parts.iter().zip(answers) {
            let outcome = match answer {
                Ok(_) => Ok(()),
                Err(error) if is_behind(&error) => self.resolve(&key, id_of(part), part, &origin),
                Err(error) if is_transient(&error) => {
                    return Err((whole, sink_error(self.server.place(), &error)));
                }
                Err(error) => Err(sink_error(self.server.place(), &error)),
            };
            if let Err(error) = outcome {
                if error.is_transient() {
                    return Err((whole, error));
                }
                failed += part.count;
                first_error.get_or_insert(error);
            }
        }
        if first_error.is_none() {
            self.last = self.last.max(id_of(last_part));
        }
        first_error.map_or(Ok(()), |error| Err((failed, error)))
    }

    fn resolve(&mut self, key: &str, id: Id, part: &Part, origin: &str) -> Result<(), SinkError> {
        let place = self.server.place().to_owned();
        match self.find(key, id) {
            Ok(Refused::IsThere) => Ok(()),
            Ok(Refused::Late) => {
                self.append_late(key, part, origin).map_err(|error| sink_error(&place, &error))
            }
            Ok(Refused::ByOther(who)) => {
                let said = format!("{place}: another producer writes to stream {key:?}: {who}");
                Err(SinkError::write_failed(said).permanent())
            }
            Err(error) => Err(sink_error(&place, &error)),
        }
    }
}

/// Returns a new id: random bits of the system, with the process and the time, because a forked child has the bits of its parent.
fn new_writer() -> String {
    format!("{:016x}", RandomState::new().hash_one((std::process::id(), SystemTime::now())))
}

/// Returns the stream of what comes late.
pub(crate) fn late(key: &str) -> String {
    format!("{key}:late")
}

/// Why the server refused an id.
enum Refused {
    /// The entry was appended before, and the answer was lost.
    IsThere,
    /// This sink has appended later ones.
    Late,
    ByOther(String),
}

fn who_wrote(entry: &StreamId) -> String {
    entry.get::<String>(ORIGIN).unwrap_or_else(|| format!("entry {} is none of forebay's", entry.id))
}

fn unix_millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl<E: Serialize + Send + Sync + 'static> Sink<E> for RedisSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn write_batch(&mut self, batch: &Batch<E>) -> Result<(), SinkError> {
        let (parts, refused, not_encoded) = self.encode(batch)?;
        let delivered = self.deliver(batch, &parts);
        if self.lines.capacity() > 4 * MAX_ENTRY_BYTES {
            self.lines = Vec::new();
        }
        match delivered {
            Ok(()) => self.missing.mark_reported(refused),
            Err(_) => self.missing.add(batch),
        }
        match (delivered, not_encoded) {
            (Err((_, error)), _) if error.is_transient() => Err(error),
            (Err((failed, error)), _) => Err(error.with_failed_events(failed + refused)),
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
