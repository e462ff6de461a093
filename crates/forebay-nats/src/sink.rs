//! `NatsSink`: a batch becomes a message, and never two.

use std::fmt::{self, Write as _};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, RandomState};
use std::time::{Duration, SystemTime};

use async_nats::HeaderMap;
use async_nats::header::{
    NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL, NATS_BATCH_ID, NATS_BATCH_SEQUENCE,
    NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_EXPECTED_STREAM, NATS_MESSAGE_ID,
};
use forebay::Batch;
use forebay::sink::{LineEncoder, Missing, Sink, SinkError};
use serde::Serialize;

use crate::connection::{Link, Server};
use crate::error::{Failure, UrlError};
use crate::message::{self, COUNT, FIRST, GAP, Id, ORIGIN, Part, REDRIVEN, WRITER};
use crate::stream::{NatsStream, Stream};

/// 1 MiB, as servers have it unless they are told otherwise.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Bytes of the headers of a message beside the origin, at most.
const HEADER_BYTES: usize = 512;

/// Number of messages that a server takes at once.
const MAX_AT_ONCE: usize = 1000;

/// Number of times that a batch is looked for in the stream before it fails for now.
const MAX_LOOKS: u32 = 3;

/// Sink that appends batches to a stream of NATS JetStream: see the [crate](crate) for what it promises.
///
/// It is named `nats` unless [`named`](Self::named) says otherwise. It connects with the first batch, and starts its thread then.
pub struct NatsSink {
    name: String,
    server: Server,
    /// The subject; that of the run, or of the session, where none is named.
    subject: Option<String>,
    stream: NatsStream,
    /// Id of this sink, in every message that it writes.
    writer: String,
    generation: u64,
    /// The highest id that was ever tried.
    tried: Id,
    /// The batch that was tried last and not acknowledged: it is tried with the same ids again.
    at_hand: Option<AtHand>,
    fence: Fence,
    max_message_bytes: usize,
    is_by_event: bool,
    encoder: LineEncoder,
    lines: Vec<u8>,
    /// Where the lines of events begin, behind that of a gap.
    events_begin: usize,
    missing: Missing,
}

impl NatsSink {
    /// Creates a sink for the server of a URL: `nats://[user:password@]host[:port]`, or `tls://` where TLS must be used. A token stands in
    /// the place of user and password. Several, with commas between, are servers of one cluster.
    ///
    /// # Errors
    ///
    /// The URL cannot be used. Whether the server is there shows with the first batch.
    pub fn open(url: &str) -> Result<Self, UrlError> {
        Ok(Self {
            name: "nats".to_owned(),
            server: Server::open(url)?,
            subject: None,
            stream: NatsStream::new(),
            writer: new_writer(),
            generation: 1,
            tried: Id::default(),
            at_hand: None,
            fence: Fence::default(),
            max_message_bytes: MAX_MESSAGE_BYTES,
            is_by_event: false,
            encoder: LineEncoder::new(),
            lines: Vec::new(),
            events_begin: 0,
            missing: Missing::default(),
        })
    }

    /// Sets the subject. Defaults to `forebay.RUN.RANK`: the run that the first batch belongs to, or the session where it belongs to none, and
    /// rank 0 where there is none. (What a subject cannot have becomes `%XX`.) A process that goes on with a training run, or comes after
    /// another one, appends behind what is there.
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Sets what stream is made where none takes the subject. Defaults to one that keeps all: [`NatsStream::new`].
    pub fn stream(mut self, stream: NatsStream) -> Self {
        self.stream = stream;
        self
    }

    /// Sets the name that it is counted under.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Makes a message of each event, for readers that know nothing of batches. By default a batch is one.
    pub fn message_per_event(mut self) -> Self {
        self.is_by_event = true;
        self
    }

    /// Splits a batch where its lines are longer, between two events. Defaults to 1 MiB, or to what server and stream allow if that is less.
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.max_message_bytes = bytes.max(1);
        self
    }

    /// Sets how long the sink waits for the server: to connect, and then for all answers to a batch. Defaults to 5 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.server.timeout = timeout.max(Duration::from_millis(1));
        self
    }

    /// Trusts servers whose certificate has this root, in PEM, in the place of the roots of the system.
    ///
    /// # Errors
    ///
    /// It is no certificate.
    pub fn root_certificate(mut self, pem: impl AsRef<[u8]>) -> Result<Self, UrlError> {
        self.server.trust(pem.as_ref())?;
        Ok(self)
    }

    /// Logs in by an nkey, whose seed this is.
    #[cfg(feature = "nkeys")]
    pub fn nkey(mut self, seed: impl Into<String>) -> Self {
        self.server.nkey(seed.into());
        self
    }

    /// Logs in by credentials: what is in a file `.creds`.
    ///
    /// # Errors
    ///
    /// There is no JWT with its seed in it.
    #[cfg(feature = "nkeys")]
    pub fn credentials(mut self, content: impl Into<String>) -> Result<Self, UrlError> {
        self.server.credentials(content.into())?;
        Ok(self)
    }

    /// Returns the subject, which stays what it was with the first batch.
    fn subject_of<E>(&mut self, batch: &Batch<E>) -> Result<String, Failure> {
        let subject = self.subject.get_or_insert_with(|| {
            let run = batch.run().map_or(batch.session(), |run| &run.run_id);
            format!("forebay.{}.{}", token(run), batch.origin().rank.unwrap_or_default())
        });
        let is_token = |part: &str| !part.is_empty() && !part.contains(['*', '>']);
        if subject.contains(char::is_whitespace) || !subject.split('.').all(is_token) {
            let must = "a subject must be parts with dots between, without spaces, * and >";
            return Err(Failure::never(format!("{must}, got {subject:?}")));
        }
        Ok(subject.clone())
    }

    /// Encodes a batch into parts of so many bytes. Returns them, how many of its events are not in them, and why the first of those is not.
    fn encode<E: Serialize + 'static>(
        &mut self,
        batch: &Batch<E>,
        max_bytes: usize,
    ) -> Result<(Vec<Part>, u64, Option<SinkError>), SinkError> {
        self.lines.clear();
        self.encoder.begin(batch);
        let missing = self.missing.before(batch);
        self.encoder.push_gap(&mut self.lines, missing)?;
        self.events_begin = self.lines.len();
        let wanted = self.max_message_bytes.min(max_bytes);
        let (mut parts, mut refused, mut error) = (Vec::<Part>::new(), 0, None);
        for (number, event) in (batch.first_event()..).zip(batch) {
            let begin = self.lines.len();
            let mut encoded = self.encoder.push(&mut self.lines, event);
            let end = self.lines.len();
            // The line of the gap goes with the first one.
            let most = max_bytes.saturating_sub(if parts.is_empty() { self.events_begin } else { 0 });
            if encoded.is_ok() && end - begin > most {
                self.lines.truncate(begin);
                let is =
                    format!("an event must have at most {most} bytes for this server, got {}", end - begin);
                encoded = Err(SinkError::write_failed(is).permanent());
            }
            if let Err(why) = encoded {
                refused += 1;
                error.get_or_insert(why);
                continue;
            }
            match parts.last_mut() {
                Some(part) if !self.is_by_event && end - part.lines.0 <= wanted => {
                    part.count += 1;
                    part.lines.1 = end;
                }
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

    /// Chooses the ids of a batch: those with which it was tried before, or ids that were never tried. They follow from the numbers of
    /// the events, unless dead letters came between.
    fn ids<E>(&mut self, batch: &Batch<E>, parts: &[Part]) -> Vec<Id> {
        let id = BatchId {
            number: batch.number(),
            time: batch.time(),
            lines: BuildHasherDefault::<DefaultHasher>::default()
                .hash_one(self.lines.get(self.events_begin..)),
        };
        if let Some(at_hand) =
            self.at_hand.as_ref().filter(|at_hand| at_hand.batch == id && at_hand.ids.len() == parts.len())
        {
            return at_hand.ids.clone();
        }
        self.generation = self.generation.max(batch.run().map_or(1, |run| run.generation));
        let mut ids = Vec::with_capacity(parts.len());
        for part in parts {
            let wanted = Id { generation: self.generation, number: part.first.saturating_add(1) };
            self.tried = if wanted > self.tried { wanted } else { self.tried.next() };
            ids.push(self.tried);
        }
        self.at_hand = Some(AtHand { batch: id, ids: ids.clone() });
        ids
    }

    fn message<E>(&self, part: &Part, id: Id, batch: &Batch<E>, origin: &str) -> Message {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, format!("{}/{id}", self.writer));
        headers.insert(WRITER, &*self.writer);
        headers.insert(FIRST, part.first.to_string());
        headers.insert(COUNT, part.count.to_string());
        headers.insert(GAP, part.gap.to_string());
        if batch.is_redriven() {
            headers.insert(REDRIVEN, "1");
        }
        headers.insert(ORIGIN, origin);
        let lines = self.lines.get(part.lines.0..part.lines.1).unwrap_or_default();
        Message { id, headers, lines: lines.to_vec() }
    }

    /// Appends the parts of a batch.
    fn deliver<E>(
        &mut self,
        batch: &Batch<E>,
        parts: &[Part],
        subject: &str,
        origin: &str,
    ) -> Result<(), Failure> {
        if parts.is_empty() {
            return Ok(());
        }
        let ids = self.ids(batch, parts);
        let all = parts.iter().zip(ids).map(|(part, id)| self.message(part, id, batch, origin));
        let messages: Vec<Message> = all.collect();
        let (fence, settings, writer) = (&mut self.fence, &self.stream, &*self.writer);
        let append = async |link: &mut Link| fence.append(link, settings, writer, subject, &messages).await;
        self.server.run(append)?;
        self.at_hand = None;
        Ok(())
    }

    fn write<E: Serialize + 'static>(&mut self, batch: &Batch<E>) -> Result<Written, SinkError> {
        let at = |server: &Server, failure: &Failure| failure.at(server.place());
        if let Some(who) = &self.fence.taken_by {
            return Err(at(&self.server, &taken(&self.subject.clone().unwrap_or_default(), who)));
        }
        let subject = self.subject_of(batch).map_err(|failure| at(&self.server, &failure))?;
        let settings = &self.stream;
        let stream = self.server.run(async |link: &mut Link| link.ensure(&subject, settings).await);
        let stream = stream.map_err(|failure| at(&self.server, &failure))?;
        // (A header has no room for a line that ends, and JSON has none in its text.)
        let origin = serde_json::to_string(batch.origin()).unwrap_or_default();
        let max_bytes = stream.max_message.saturating_sub(HEADER_BYTES + origin.len());
        let (parts, refused, not_encoded) = self.encode(batch, max_bytes)?;
        // Serialised by user code, which may have forked: the connection is the parent's.
        if batch.is_forked() {
            return Err(SinkError::forked());
        }
        let delivered = self.deliver(batch, &parts, &subject, &origin);
        if self.lines.capacity() > 4 * MAX_MESSAGE_BYTES {
            self.lines = Vec::new();
        }
        delivered.map_err(|failure| at(&self.server, &failure))?;
        Ok(Written { is_empty: parts.is_empty(), refused, not_encoded })
    }
}

/// A batch that is in the stream, but for events that were refused.
struct Written {
    is_empty: bool,
    refused: u64,
    not_encoded: Option<SinkError>,
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

/// Message that is to be appended.
struct Message {
    id: Id,
    headers: HeaderMap,
    lines: Vec<u8>,
}

/// What keeps two producers apart: every message names the one that must be the last of its subject.
#[derive(Debug, Default)]
struct Fence {
    /// Place of the last message in the stream, 0 where there is none. `None` where it must be looked for.
    last: Option<u64>,
    /// True once the subject was looked at: from then on, messages of others are those of a later producer.
    has_begun: bool,
    /// Who has taken the subject over. Nothing is appended to it any more.
    taken_by: Option<String>,
}

impl Fence {
    /// Appends messages, but for those that are in the stream already.
    async fn append(
        &mut self,
        link: &mut Link,
        settings: &NatsStream,
        writer: &str,
        subject: &str,
        messages: &[Message],
    ) -> Result<(), Failure> {
        let (mut done, mut looks) = (0, 0);
        let mut stream = link.ensure(subject, settings).await?;
        while done < messages.len() {
            let last = match self.last {
                Some(last) => last,
                None => {
                    let found = link.last_of(&stream.name, subject).await;
                    let (last, is_own) = self.judge(found?, writer, subject)?;
                    // They went in one after the other.
                    let written = is_own.map_or(0, |id| messages.partition_point(|message| message.id <= id));
                    done = done.max(written);
                    self.last = Some(last);
                    continue;
                }
            };
            let rest = messages.get(done..).unwrap_or_default();
            match append_some(link, &stream, subject, last, rest).await {
                Ok((count, last)) => {
                    done += count;
                    self.last = Some(last);
                }
                Err(failure) if looks == MAX_LOOKS => return Err(failure),
                // It was appended before and the answer was lost, or another producer is here, or the stream is another one.
                Err(failure) if failure.is_behind() => self.last = None,
                Err(failure) if failure.is_of_no_stream() => {
                    (link.stream, self.last) = (None, None);
                    stream = link.ensure(subject, settings).await?;
                }
                Err(failure) => return Err(failure),
            }
            looks += u32::from(self.last.is_none());
        }
        Ok(())
    }

    /// Returns the place of the last message, and its id if it is of this sink.
    fn judge(
        &mut self,
        last: Option<(u64, HeaderMap)>,
        writer: &str,
        subject: &str,
    ) -> Result<(u64, Option<Id>), Failure> {
        let has_begun = std::mem::replace(&mut self.has_begun, true);
        let Some((place, headers)) = last else { return Ok((0, None)) };
        if message::text(&headers, WRITER) == Some(writer) {
            let id = message::text(&headers, "Nats-Msg-Id").and_then(|id| id.rsplit_once('/'));
            return Ok((place, id.and_then(|(_, id)| id.parse().ok())));
        }
        if has_begun {
            let none = || format!("message {place} is none of forebay's");
            let who = message::text(&headers, ORIGIN).map_or_else(none, str::to_owned);
            let failure = taken(subject, &who);
            self.taken_by = Some(who);
            return Err(failure);
        }
        Ok((place, None))
    }
}

/// Appends the first of some messages, or all of them where the stream takes several at once. Returns how many, and the place of the last.
async fn append_some(
    link: &Link,
    stream: &Stream,
    subject: &str,
    last: u64,
    messages: &[Message],
) -> Result<(usize, u64), Failure> {
    let at_once = if stream.is_atomic { messages.len().min(MAX_AT_ONCE) } else { 1 };
    let batch = (at_once > 1).then(new_writer);
    for (number, message) in (1..).zip(messages.iter().take(at_once)) {
        let mut headers = message.headers.clone();
        if number == 1 {
            headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, last.to_string());
            headers.insert(NATS_EXPECTED_STREAM, &*stream.name);
        }
        if let Some(batch) = &batch {
            headers.insert(NATS_BATCH_ID, &**batch);
            headers.insert(NATS_BATCH_SEQUENCE, number.to_string());
        }
        if number < at_once {
            link.send(subject, headers, message.lines.clone()).await?;
            continue;
        }
        if batch.is_some() {
            headers.insert(NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL);
        }
        let place = link.publish(subject, headers, message.lines.clone()).await?;
        return Ok((at_once, place));
    }
    Ok((0, last))
}

fn taken(subject: &str, who: &str) -> Failure {
    Failure::never(format!("another producer writes to subject {subject:?}: {who}"))
}

/// Returns a new id: random bits of the system, with the process and the time, because a forked child has the bits of its parent.
fn new_writer() -> String {
    format!("{:016x}", RandomState::new().hash_one((std::process::id(), SystemTime::now())))
}

/// Returns a text as one part of a subject: letters, digits, `-` and `_`, and all else as `%XX`.
fn token(text: &str) -> String {
    let mut token = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => token.push(char::from(byte)),
            _ => _ = write!(token, "%{byte:02X}"),
        }
    }
    if token.is_empty() { "%".to_owned() } else { token }
}

impl<E: Serialize + Send + Sync + 'static> Sink<E> for NatsSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn write_batch(&mut self, batch: &Batch<E>) -> Result<(), SinkError> {
        if batch.is_forked() {
            return Err(SinkError::forked());
        }
        let written = match self.write(batch) {
            Ok(written) => written,
            Err(error) => {
                self.missing.add(batch);
                return Err(error);
            }
        };
        if written.is_empty {
            self.missing.add(batch);
        } else {
            self.missing.mark_reported(written.refused);
        }
        match written.not_encoded {
            Some(error) => Err(error.with_failed_events(written.refused)),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for NatsSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsSink")
            .field("name", &self.name)
            .field("server", &self.server)
            .field("subject", &self.subject)
            .finish_non_exhaustive()
    }
}
