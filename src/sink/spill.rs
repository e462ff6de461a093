//! A file that takes batches while a destination is away.

mod file;

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Account, Fate, Hook, Sink, SinkError};
use crate::batch::Batch;
use crate::clock::{Clock, ManualClock};
use crate::event::{Event, Record};
use crate::sync::catch_panic;
use file::{Entry, SpillFile};

/// Size of the file unless another is asked for: 256 MiB.
const MAX_BYTES: u64 = 256 << 20;

/// The most batches that are replayed with one batch that comes: who comes behind must not wait for all of them.
const AT_ONCE: usize = 64;

/// Sink with a local file for the batches that its destination cannot take for now. Made by
/// [`SinkExt::spill`](crate::sink::SinkExt::spill).
///
/// * A batch that fails as a whole by an error that is [transient](SinkError::is_transient) goes to the file, and so do all that come behind
///   it. After a [`pause`](Self::pause), the oldest one is offered again with the next batch, and with every flush. Once the sink has taken it,
///   the others follow in their order, up to 64 with each batch that comes, and all of them with a flush.
/// * Events in the file are in flight ([`SinkStats::in_flight`](crate::stats::SinkStats::in_flight)). They get their fate as the sink takes or
///   refuses them. A flush fails while there are some, and says how many batches there are.
/// * The batch that failed is offered again as it was, before any other: a sink that knows it again writes nothing twice.
/// * The file has at most [`max_bytes`](Self::max_bytes). A batch for which there is no space fails, as does one that the disk does not
///   take, or with an event that cannot be serialised. The error says so, and the next batch tells of it by its [gap](Batch::gap).
/// * What is in the file survives the process. The next one that opens it replays it first, before its own batches, each with the header that it
///   had: number, origin, run, gap. They are [replayed](Batch::is_replayed), and count as
///   [`redriven`](crate::stats::SinkStats::redriven), because this process was not offered them. A place in the file says how far
///   that is; it is written behind each batch. So a process that dies offers at most one batch again that was taken: `RedisSink` knows it by
///   its header, and other sinks may write it twice. A batch that was being written to the file is cut off. A power cut may take what the system had not
///   written to the disk yet.
/// * The file is one of JSON Lines: in front of the events of each batch is a record `forebay.batch` with its header. What reads JSON Lines
///   reads it. One process at a time can have it open.
/// * It may wait, for the sink as well as for the disk, and so has a thread of its own: a chain with a spill is
///   [`isolated`](crate::sink::SinkExt::isolated), by a queue of 64 batches unless it says otherwise outside of the spill.
/// * Put it outside of a [`retry`](crate::sink::SinkExt::retry), which it takes the place of; of its tries, all but the last are waited for. Dead letters
///   that are offered again from outside go to the sink alone, once the file is empty.
///
/// # Examples
///
/// ```
/// use forebay::sink::{SinkError, SinkExt, from_fn};
/// use forebay::{Batch, Collector, Record};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("spill.jsonl");
/// let broken = from_fn("broken", |_: &Batch<Record>| Err(SinkError::unavailable("nobody is there")));
/// let collector = Collector::builder().sink(broken.spill(&path)?).start()?; // path: "spill.jsonl"
/// collector.collect(Record::scalar("train.loss", 0.5));
/// let report = collector.stop()?;
/// assert_eq!(report.stats.sinks[0].in_flight, 1);
/// assert!(std::fs::read_to_string(&path)?.contains("train.loss"));
/// # Ok(())
/// # }
/// ```
pub struct Spill<S, E = Record> {
    sink: S,
    file: SpillFile,
    /// The oldest batch of the file, as it was offered. `None` before it was offered by this process.
    head: Option<Batch<E>>,
    /// When the sink failed last. `None`: it takes batches.
    failed: Option<Instant>,
    /// What it said then.
    said: String,
    pause: Duration,
    clock: Clock,
    /// Events for which there was no space, and that no batch has told of.
    missing: u64,
    account: Account,
    of: PhantomData<fn(&E)>,
}

impl<S: Sink<E>, E> Spill<S, E> {
    pub(super) fn new(sink: S, path: &Path) -> io::Result<Self> {
        let (file, clock) = (SpillFile::open(path, MAX_BYTES)?, Clock::System);
        Ok(Self {
            sink,
            file,
            head: None,
            failed: None,
            said: String::new(),
            pause: Duration::from_secs(1),
            clock,
            missing: 0,
            account: Account::nobody(),
            of: PhantomData,
        })
    }

    /// Sets how many bytes the file may have. Defaults to 256 MiB. What is there already stays.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.file.max_bytes = bytes;
        self
    }

    /// Sets how long the sink is left alone after it failed. Defaults to 1 s.
    pub fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Lets it go by a clock that is moved by hand, for tests.
    pub fn manual_clock(mut self, clock: &ManualClock) -> Self {
        self.clock = Clock::Manual(clock.clone());
        self
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Returns how many batches are in the file.
    pub fn batches(&self) -> u64 {
        self.file.batches()
    }

    fn is_paused(&self) -> bool {
        let now = self.clock.now();
        self.failed.is_some_and(|failed| now.saturating_duration_since(failed) < self.pause)
    }
}

/// What became of a batch that was offered.
enum Outcome {
    /// So many of its events failed, and the others were delivered.
    Done(u64),
    /// It may be taken later.
    Later,
}

impl<S: Sink<E>, E: Event + Serialize + DeserializeOwned> Spill<S, E> {
    /// Offers a batch of the file to the sink.
    fn offer(&mut self, batch: &Batch<E>) -> Outcome {
        let events = batch.len() as u64;
        // What lies below an error is user code, and ends in here.
        let describe = |error: SinkError| (error.to_string(), error.without_source());
        match catch_panic(|| self.sink.write_batch(batch).map_err(describe)) {
            Ok(Ok(())) => Outcome::Done(0),
            Ok(Err((said, error))) if may_be_taken_later(&error, batch.len()) => {
                self.leave(&error, said);
                Outcome::Later
            }
            Ok(Err((_, error))) => {
                self.account.note_error(&error);
                Outcome::Done(error.failed_of(events))
            }
            Err(said) => {
                self.account.note_panic(&said);
                Outcome::Done(events)
            }
        }
    }

    /// Leaves the sink alone for a while.
    fn leave(&mut self, error: &SinkError, said: String) {
        self.account.note_retry(error);
        (self.failed, self.said) = (Some(self.clock.now()), said);
    }

    /// Offers up to so many batches of the file to the sink, oldest first, until it takes one for now. Returns whether none is left.
    fn replay(&mut self, max: usize) -> Result<bool, SinkError> {
        for _ in 0..max {
            let Some(Entry { size, events, is_earlier }) = self.file.next()? else { return Ok(true) };
            let batch = match self.head.take() {
                Some(batch) => batch,
                None => match self.file.read::<E>() {
                    Ok(batch) => batch,
                    // Somebody has written to the file. What cannot be read is passed over, and has failed.
                    Err(error) => {
                        self.account.note_error(&error);
                        self.complete(is_earlier, 0, events);
                        self.file.advance(size)?;
                        continue;
                    }
                },
            };
            let outcome = self.offer(&batch);
            // The sink may have forked.
            batch.check()?;
            match outcome {
                Outcome::Later => {
                    self.head = Some(batch);
                    return Ok(false);
                }
                Outcome::Done(failed) => {
                    self.failed = None;
                    self.complete(is_earlier, events.saturating_sub(failed), failed);
                    self.file.advance(size)?;
                }
            }
        }
        Ok(self.file.next()?.is_none())
    }

    /// Gives the events of a batch their fate. Those of an earlier process were never offered to this one.
    fn complete(&self, is_earlier: bool, delivered: u64, failed: u64) {
        if is_earlier {
            self.account.note_redriven(delivered);
        } else if self.account.is_open() {
            self.account.complete(Fate::Delivered, delivered);
            self.account.complete(Fate::Failed, failed);
        }
    }

    /// Puts a batch into the file.
    fn keep(&mut self, batch: Batch<E>, was_offered: bool) -> Result<(), SinkError> {
        let is_only = self.file.batches() == 0;
        let lines = file::encode(&batch);
        // Serialised by user code, which may have forked.
        batch.check()?;
        if let Err(error) = lines.and_then(|lines| self.file.append(&lines)) {
            let lost = batch.gap().saturating_add(batch.len() as u64);
            self.missing = self.missing.saturating_add(lost);
            return Err(error);
        }
        if self.account.is_open() {
            self.account.keep(batch.len() as u64);
        }
        // As it is: a batch that is read again may differ from it, as far as its serialiser does.
        if is_only && was_offered {
            self.head = Some(batch);
        }
        Ok(())
    }
}

/// Returns whether a batch that failed so may be offered again: it has failed as a whole, or the sink remembers which events have.
fn may_be_taken_later(error: &SinkError, events: usize) -> bool {
    error.is_transient() && (!error.is_partial(events) || error.is_resumable())
}

impl<S: Sink<E>, E: Event + Serialize + DeserializeOwned> Sink<E> for Spill<S, E> {
    fn name(&self) -> &str {
        self.sink.name()
    }

    fn write_batch(&mut self, batch: &Batch<E>) -> Result<(), SinkError> {
        batch.check()?;
        if !self.is_paused()
            && let Err(error) = self.replay(AT_ONCE)
        {
            // The sink may have forked. Where the file is at fault, this batch is another one, and has its own chance.
            batch.check()?;
            self.account.note_error(&error);
        }
        let is_empty = self.file.batches() == 0;
        if batch.is_redriven() {
            // They have a place of their own, and a fate.
            if is_empty {
                return self.sink.write_batch(batch);
            }
            return Err(SinkError::unavailable(format!("batches wait in {}", self.path().display())));
        }
        let mut batch = batch.clone();
        batch.add_gap(std::mem::take(&mut self.missing));
        let is_offered = is_empty && !self.is_paused();
        if is_offered {
            let Err(error) = self.sink.write_batch(&batch) else {
                self.failed = None;
                return Ok(());
            };
            batch.check()?;
            if !may_be_taken_later(&error, batch.len()) {
                return Err(error);
            }
            let said = error.to_string();
            self.leave(&error, said);
        }
        self.keep(batch, is_offered)
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        let is_empty = self.replay(usize::MAX)?;
        self.sink.flush()?;
        if is_empty {
            return Ok(());
        }
        let (batches, path) = (self.file.batches(), self.path().display());
        Err(SinkError::flush_failed(format!("{batches} batches wait in {path}: {}", self.said)))
    }

    fn hook(&mut self, hook: Hook<'_>) {
        match hook {
            Hook::MayWait(may_wait) => return *may_wait = true,
            Hook::Open(account) => self.account = account.clone(),
            _ => {}
        }
        self.sink.hook(hook);
    }
}

impl<S, E> fmt::Debug for Spill<S, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spill").field("file", &self.file).field("pause", &self.pause).finish_non_exhaustive()
    }
}
