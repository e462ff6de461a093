//! Where events go that a sink could not take.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Instant, SystemTime};

use super::{Account, Fate, PendingFlush, Sink, SinkError, forward};
use crate::batch::Batch;
use crate::event::{Event, Record};
use crate::rate::Gcra;
use crate::sync::{Arc, Mutex};

/// A bounded queue of events that a sink could not take, to be looked at and offered to it again. A clone is the same
/// queue: give one to [`Sink::dead_letters`], and keep one.
///
/// A full queue forgets its oldest letter ([`forgotten`](Self::forgotten) counts them).
///
/// ```
/// use forebay::sink::{DeadLetters, Sink, SinkError, from_fn};
/// use forebay::{Batch, Collector, Record};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let letters = DeadLetters::new(1000);
/// let broken = from_fn("broken", |_: &Batch<Record>| Err(SinkError::unavailable("nobody is there")));
/// let collector = Collector::builder().sink(broken.dead_letters(&letters)).start()?;
/// collector.collect(Record::scalar("train.loss", 0.5));
/// let report = collector.stop()?;
/// assert_eq!(report.stats.sinks[0].dead_lettered, 1);
/// let letter = &letters.entries()[0];
/// assert_eq!((letter.event.name(), &*letter.error), ("train.loss", "sink unavailable: nobody is there"));
/// # Ok(())
/// # }
/// ```
pub struct DeadLetters<E = Record> {
    shared: Arc<Mutex<Letters<E>>>,
}

/// An event that a sink could not take.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DeadLetter<E = Record> {
    /// The event.
    pub event: E,
    /// How often it was offered to the sink.
    pub attempts: u32,
    /// What the sink said last.
    pub error: String,
    /// When it was put here first.
    pub time: SystemTime,
}

struct Letters<E> {
    most: usize,
    letters: VecDeque<DeadLetter<E>>,
    forgotten: u64,
    /// How many of them, from the oldest, are to be offered again.
    due: usize,
    pace: Option<Gcra>,
    /// The clock of the pace counts from here.
    begun: Instant,
}

impl<E> DeadLetters<E> {
    /// A queue of that many letters; of none is one of one.
    pub fn new(letters: usize) -> Self {
        let most = letters.max(1);
        let letters = Letters {
            most,
            letters: VecDeque::new(),
            forgotten: 0,
            due: 0,
            pace: None,
            begun: Instant::now(),
        };
        Self { shared: Arc::new(Mutex::new(letters)) }
    }

    /// How many letters there are.
    pub fn len(&self) -> usize {
        self.shared.lock().letters.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many letters were forgotten for newer ones.
    pub fn forgotten(&self) -> u64 {
        self.shared.lock().forgotten
    }

    /// All letters, oldest first.
    pub fn entries(&self) -> Vec<DeadLetter<E>>
    where
        E: Clone,
    {
        self.shared.lock().letters.iter().cloned().collect()
    }

    /// Takes all letters out; here they are.
    pub fn purge(&self) -> Vec<DeadLetter<E>> {
        let mut letters = self.shared.lock();
        letters.due = 0;
        std::mem::take(&mut letters.letters).into()
    }

    /// Has all letters that are here offered to the sink again, oldest first, with its next batches and flushes, at
    /// `per_second` letters a second at most; `None` sets no pace. Each leaves the queue when the sink has taken it, and
    /// stays, with one more attempt and the new error, when it has not: then the rest is not offered, until you ask again.
    /// How many will be offered.
    pub fn redrive(&self, per_second: Option<u32>) -> usize {
        let mut letters = self.shared.lock();
        letters.due = letters.letters.len();
        letters.pace = per_second.map(|rate| Gcra::new(rate.max(1), rate.max(1)));
        letters.begun = Instant::now();
        letters.due
    }
}

impl<E> Letters<E> {
    fn put(&mut self, letter: DeadLetter<E>) -> Option<DeadLetter<E>> {
        self.letters.push_back(letter);
        if self.letters.len() <= self.most {
            return None;
        }
        self.forgotten += 1;
        self.due = self.due.saturating_sub(1);
        self.letters.pop_front()
    }

    /// Takes those out that may be offered now.
    fn take_due(&mut self) -> Vec<DeadLetter<E>> {
        let now = self.begun.elapsed();
        let mut count = self.due.min(self.letters.len());
        if let Some(pace) = &mut self.pace {
            count = (0..count).take_while(|_| pace.take(now).is_ok()).count();
        }
        self.due -= count;
        self.letters.drain(..count).collect()
    }

    /// Puts those back that were not taken, where they were.
    fn put_back(&mut self, letters: Vec<DeadLetter<E>>) {
        self.due = 0;
        letters.into_iter().rev().for_each(|letter| self.letters.push_front(letter));
        while self.letters.len() > self.most {
            self.forgotten += 1;
            self.letters.pop_front();
        }
    }
}

/// A sink whose failed events become dead letters. Made by [`Sink::dead_letters`].
///
/// A batch that fails as a whole becomes letters, whatever the error. Of one that fails in part, nobody knows which events:
/// they count as failed. Put it outside of a [`retry`](Sink::retry): what is left after all retries becomes a letter.
pub struct DeadLettering<S, E = Record> {
    sink: S,
    letters: DeadLetters<E>,
    account: Account,
}

impl<S, E> DeadLettering<S, E> {
    pub(super) fn new(sink: S, letters: &DeadLetters<E>) -> Self {
        Self { sink, letters: letters.clone(), account: Account::nobody() }
    }

    /// Offers letters again that are due.
    fn redrive(&mut self)
    where
        S: Sink<E>,
        E: Event + Clone,
    {
        let due = self.letters.shared.lock().take_due();
        if due.is_empty() {
            return;
        }
        let batch = Batch::from_events(due.iter().map(|letter| letter.event.clone()).collect());
        match self.sink.write_batch(&batch) {
            Ok(()) => self.account.note_redriven(due.len() as u64),
            Err(error) => {
                self.account.note_error(&error);
                // Of one that failed in part, all but those are delivered, and nobody knows which: none comes back.
                if error.failed_events().is_none() {
                    let said = error.to_string();
                    let again = |letter: DeadLetter<E>| DeadLetter {
                        attempts: letter.attempts.saturating_add(error.attempts()),
                        error: said.clone(),
                        ..letter
                    };
                    self.letters.shared.lock().put_back(due.into_iter().map(again).collect());
                }
            }
        }
    }
}

impl<S: Sink<E>, E: Event + Clone> Sink<E> for DeadLettering<S, E> {
    forward!(sink, without open and flush);

    fn open(&mut self, account: Account) {
        self.account = account.clone();
        self.sink.open(account);
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.redrive();
        self.sink.flush()
    }

    fn write_batch(&mut self, batch: &Batch<E>) -> Result<(), SinkError> {
        self.redrive();
        let Err(error) = self.sink.write_batch(batch) else { return Ok(()) };
        if error.failed_events().is_some() || batch.is_empty() {
            return Err(error);
        }
        self.account.note_error(&error);
        let (said, time) = (error.to_string(), SystemTime::now());
        // What is forgotten ends without the lock: events have destructors.
        let mut forgotten = Vec::new();
        let mut letters = self.letters.shared.lock();
        for event in batch {
            let letter =
                DeadLetter { event: event.clone(), attempts: error.attempts(), error: said.clone(), time };
            forgotten.extend(letters.put(letter));
        }
        drop(letters);
        self.account.keep(batch.len() as u64);
        self.account.settle(Fate::DeadLettered, batch.len() as u64);
        Ok(())
    }
}

impl<E> Clone for DeadLetters<E> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<E> fmt::Debug for DeadLetters<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetters").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl<S, E> fmt::Debug for DeadLettering<S, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLettering").field("letters", &self.letters).finish_non_exhaustive()
    }
}
