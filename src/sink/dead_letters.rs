//! Dead letters: events that a sink could not take.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Instant, SystemTime};

use super::panics::Panics;
use super::{Account, Fate, Hook, Sink, SinkError};
use crate::batch::{Batch, destroy};
use crate::escape::shortened;
use crate::event::{Event, Name, Record};
use crate::lanes::owned_bytes;
use crate::rate::Pace;
use crate::sync::{Arc, Mutex, Ordering, PlainU64, catch_panic};

/// Bounded queue of events that a sink could not take, to be looked at and offered to it again. A clone is the same
/// queue: give one to [`SinkExt::dead_letters`](crate::sink::SinkExt::dead_letters), and keep one.
///
/// A full queue evicts its oldest letter ([`evicted`](Self::evicted) counts them). It is full when it holds as many
/// letters as it was made for, or letters that own more than [`max_bytes`](Self::max_bytes), but for one.
///
/// In a forked child the queue is its parent's. It says that it is empty there, offers nothing again, and keeps nothing: events
/// that would become dead letters count as failed.
///
/// ```
/// use forebay::sink::{DeadLetters, SinkError, SinkExt, from_fn};
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

/// Event that a sink could not take.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DeadLetter<E = Record> {
    /// The event.
    pub event: E,
    /// Number of times that it was offered to the sink.
    pub attempts: u32,
    /// Last error of the sink: the first 4 KiB of it.
    pub error: String,
    /// Time when the event was put here first.
    pub time: SystemTime,
    /// Name of the handler of a bus that could not take it, if there is one.
    handler: Option<Name>,
}

impl<E> DeadLetter<E> {
    /// Makes a letter.
    #[doc(hidden)]
    pub fn new(event: E, attempts: u32, error: String, time: SystemTime) -> Self {
        Self { event, attempts, error, time, handler: None }
    }

    /// Names the handler of a bus that could not take the event.
    #[doc(hidden)]
    pub fn of_handler(mut self, name: Name) -> Self {
        self.handler = Some(name);
        self
    }

    /// Returns the name of the handler that could not take the event. `None` for a letter of a sink.
    pub fn handler(&self) -> Option<&str> {
        self.handler.as_deref()
    }
}

struct Letters<E> {
    /// Number of the next letter.
    next: u64,
    max_letters: usize,
    max_bytes: u64,
    /// Bytes that all letters own.
    bytes: u64,
    letters: VecDeque<Kept<E>>,
    /// Wrappers that put letters here and take them again, by number.
    takers: Vec<(u64, Account)>,
    evicted: u64,
    pace: Option<Pace>,
    /// The clock of the pace counts from here.
    begun: Instant,
}

struct Kept<E> {
    letter: DeadLetter<E>,
    /// Number by which the letters are in order.
    number: u64,
    /// Bytes that its event owns, and the length of its error.
    bytes: u64,
    /// Number of the wrapper that put it here: it goes back to the same sink.
    owner: u64,
    /// True if the letter is to be offered again.
    is_due: bool,
}

impl<E> DeadLetters<E> {
    /// Creates a queue of that many letters, at least one.
    pub fn new(letters: usize) -> Self {
        let (max_letters, letters) = (letters.max(1), VecDeque::new());
        let letters = Letters {
            next: 0,
            max_letters,
            max_bytes: 50 << 20,
            bytes: 0,
            letters,
            takers: Vec::new(),
            evicted: 0,
            pace: None,
            begun: Instant::now(),
        };
        Self { shared: Arc::new(Mutex::new(letters)) }
    }

    /// Changes how many bytes the events of all letters may own beyond their own size
    /// ([`Event::size_hint`](crate::Event::size_hint)), with the texts of their errors. Defaults to 50 MiB.
    pub fn max_bytes(self, bytes: usize) -> Self {
        let Ok(mut letters) = self.shared.enter() else { return self };
        letters.max_bytes = bytes as u64;
        let evicted = letters.make_room();
        drop(letters);
        end_all(evicted);
        self
    }

    /// Returns how many letters there are.
    pub fn len(&self) -> usize {
        self.shared.enter().map_or(0, |shared| shared.letters.len())
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many letters were evicted: for newer ones, or because a sink took a part of them and nobody knows which.
    pub fn evicted(&self) -> u64 {
        self.shared.enter().map_or(0, |shared| shared.evicted)
    }

    /// Returns all letters, oldest first.
    pub fn entries(&self) -> Vec<DeadLetter<E>>
    where
        E: Clone,
    {
        let Ok(shared) = self.shared.enter() else { return Vec::new() };
        shared.letters.iter().map(|kept| kept.letter.clone()).collect()
    }

    /// Removes all letters, and returns them, oldest first.
    pub fn purge(&self) -> Vec<DeadLetter<E>> {
        let Ok(mut shared) = self.shared.enter() else { return Vec::new() };
        let letters = std::mem::take(&mut shared.letters);
        shared.bytes = 0;
        drop(shared);
        letters.into_iter().map(|kept| kept.letter).collect()
    }

    /// Offers all present letters once more to the sink that they come from, and returns how many. Letters of a sink
    /// that was removed are not offered.
    ///
    /// The oldest come first, with the next batches and flushes of the sink, a hundred at once. `per_second` limits the
    /// pace; `None` sets no limit, and 0 counts as 1. A letter leaves the queue when the sink has taken it. One that
    /// the sink did not take stays, with one more attempt and the new error, until the next call. If the sink reports
    /// only [how many of a batch failed](SinkError::with_failed_events), nobody knows which: these are evicted, and
    /// counted.
    pub fn redrive(&self, per_second: Option<u32>) -> usize {
        let Ok(mut letters) = self.shared.enter() else { return 0 };
        let takers: Vec<u64> = letters.takers().collect();
        let mut offered = 0;
        for kept in letters.letters.iter_mut().filter(|kept| takers.contains(&kept.owner)) {
            kept.is_due = true;
            offered += 1;
        }
        letters.pace = per_second.map(Pace::new);
        letters.begun = Instant::now();
        offered
    }
}

/// Methods for the bus (see `parts`), whose handlers are what sinks are here.
impl<E: Event> DeadLetters<E> {
    /// Returns a new number under which letters are put in and taken out.
    #[doc(hidden)]
    pub fn new_owner() -> u64 {
        NEXT_ID.fetch_add(1, Ordering::Relaxed)
    }

    /// Registers an owner that puts letters in and takes them under that number.
    #[doc(hidden)]
    pub fn add_taker(&self, owner: u64) {
        if let Ok(mut letters) = self.shared.enter() {
            letters.takers.push((owner, Account::nobody()));
        }
    }

    /// Removes an owner.
    #[doc(hidden)]
    pub fn remove_taker(&self, owner: u64) {
        if let Ok(mut letters) = self.shared.enter() {
            letters.remove_taker(owner);
        }
    }

    /// Puts letters in, behind the others; what is evicted for them ends here, without the lock.
    #[doc(hidden)]
    pub fn keep(&self, owner: u64, letters: Vec<DeadLetter<E>>) {
        let letters = letters.into_iter().map(|letter| Kept::new(letter, owner)).collect();
        let Ok(mut shared) = self.shared.enter() else { return };
        let evicted = shared.put(letters);
        drop(shared);
        end_all(evicted);
    }

    /// Takes those out that may be offered again now.
    #[doc(hidden)]
    pub fn take_due(&self, owner: u64) -> Vec<DeadLetter<E>> {
        let due = self.shared.enter().map_or_else(|_| Vec::new(), |mut letters| letters.take_due(owner));
        due.into_iter().map(|kept| kept.letter).collect()
    }

    /// Offers those no more that are of nobody whom `is_known` knows.
    #[doc(hidden)]
    pub fn leave_unknown(&self, is_known: impl Fn(u64) -> bool) {
        let Ok(mut letters) = self.shared.enter() else { return };
        letters.letters.iter_mut().for_each(|kept| kept.is_due &= is_known(kept.owner));
    }

    /// Returns whether some are to be offered again.
    #[doc(hidden)]
    pub fn has_due(&self) -> bool {
        self.shared.enter().is_ok_and(|letters| letters.letters.iter().any(|kept| kept.is_due))
    }
}

/// The most letters that are offered again at once.
const AT_ONCE: usize = 100;

impl<E: Event> Kept<E> {
    fn new(letter: DeadLetter<E>, owner: u64) -> Self {
        let bytes = owned_bytes(&letter.event).saturating_add(letter.error.len() as u64);
        Self { letter, number: 0, bytes, owner, is_due: false }
    }
}

impl<E> Letters<E> {
    /// Puts letters in, in the place of the oldest where there is no space; those come out.
    fn put(&mut self, new: Vec<Kept<E>>) -> Vec<E> {
        for mut kept in new {
            kept.number = self.next;
            self.next += 1;
            self.bytes = self.bytes.saturating_add(kept.bytes);
            self.letters.push_back(kept);
        }
        self.make_room()
    }

    /// Returns the owners that may still take letters: not a sink that was removed, or whose thread is to end.
    fn takers(&self) -> impl Iterator<Item = u64> {
        self.takers.iter().filter(|(_, account)| !account.is_cancelled()).map(|(owner, _)| *owner)
    }

    fn remove_taker(&mut self, owner: u64) {
        self.takers.retain(|(taker, _)| *taker != owner);
    }

    /// Returns how many are of that wrapper.
    fn of(&self, owner: u64) -> u64 {
        self.letters.iter().filter(|kept| kept.owner == owner).count() as u64
    }

    fn make_room(&mut self) -> Vec<E> {
        let mut evicted = Vec::new();
        while (self.letters.len() > self.max_letters || self.bytes > self.max_bytes && self.letters.len() > 1)
            && let Some(oldest) = self.letters.pop_front()
        {
            self.bytes = self.bytes.saturating_sub(oldest.bytes);
            evicted.push(oldest.letter.event);
        }
        self.evicted += evicted.len() as u64;
        evicted
    }

    /// Takes those out that may be offered to their sink now.
    fn take_due(&mut self, owner: u64) -> Vec<Kept<E>> {
        let now = self.begun.elapsed();
        let mut due = Vec::new();
        let mut place = 0;
        while due.len() < AT_ONCE && place < self.letters.len() {
            let is_due = self.letters[place].is_due && self.letters[place].owner == owner;
            if !is_due {
                place += 1;
            } else if self.pace.as_mut().is_none_or(|pace| pace.take(now).is_ok()) {
                let kept = self.letters.remove(place);
                self.bytes = self.bytes.saturating_sub(kept.as_ref().map_or(0, |kept| kept.bytes));
                due.extend(kept);
            } else {
                break;
            }
        }
        due
    }

    /// Puts those back that were not taken, where they were; those for which there is no space come out.
    fn put_back(&mut self, letters: Vec<Kept<E>>) -> Vec<E> {
        for kept in letters.into_iter().rev() {
            self.bytes = self.bytes.saturating_add(kept.bytes);
            let place = self.letters.partition_point(|other| other.number < kept.number);
            self.letters.insert(place, kept);
        }
        self.make_room()
    }
}

/// Which of the letters that a sink was offered it has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    All,
    Part,
    /// None, and it may be that it takes none for now.
    Nothing,
}

/// Sink whose failed events become dead letters. Made by [`SinkExt::dead_letters`](crate::sink::SinkExt::dead_letters).
///
/// A batch that fails as a whole becomes letters, by whatever error or panic. Of one that fails in part, nobody knows
/// which events: they count as failed. Put it outside of a [`retry`](crate::sink::SinkExt::retry), so that what is
/// left after all retries becomes a letter; inside of a [`route`](crate::sink::SinkExt::route), so that only its
/// events do; and inside of [`isolated`](crate::sink::SinkExt::isolated), outside of which nothing fails.
///
/// Files that mark missing events count letters as missing, when they failed first.
pub struct DeadLettering<S, E = Record> {
    sink: S,
    letters: DeadLetters<E>,
    account: Account,
    /// Number by which its own letters are known.
    id: u64,
    /// The header of the last batch that became letters, without its events.
    last: Option<Batch<E>>,
}

/// Counts the wrappers of the process.
static NEXT_ID: PlainU64 = PlainU64::new(1);

impl<S, E> DeadLettering<S, E> {
    pub(super) fn new(sink: S, letters: &DeadLetters<E>) -> Self {
        let (letters, account) = (letters.clone(), Account::nobody());
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        // In a forked child, nobody takes letters of its parent.
        if let Ok(mut shared) = letters.shared.enter() {
            shared.takers.push((id, account.clone()));
        }
        Self { sink, letters, account, id, last: None }
    }
}

impl<S, E> Drop for DeadLettering<S, E> {
    fn drop(&mut self) {
        // In a forked child, the letters and their lock are the parent's.
        if let Ok(mut letters) = self.letters.shared.enter() {
            letters.remove_taker(self.id);
        }
    }
}

impl<S: Sink<E>, E: Event + Clone> DeadLettering<S, E> {
    /// Takes note of the account.
    fn open(&mut self, account: &Account) {
        let (letters, id) = (Arc::downgrade(&self.letters.shared), self.id);
        account.count_letters_with(move || {
            let letters = letters.upgrade();
            letters.map_or(0, |letters| letters.enter().map_or(0, |letters| letters.of(id)))
        });
        self.account = account.clone();
        if let Ok(mut letters) = self.letters.shared.enter()
            && let Some(taker) = letters.takers.iter_mut().find(|taker| taker.0 == id)
        {
            taker.1 = account.clone();
        }
    }

    /// Offers letters again that are due.
    fn redrive(&mut self) {
        let Some(header) = self.last.clone() else { return };
        loop {
            // In a forked child the letters are the parent's: none is due.
            let Ok(mut shared) = self.letters.shared.enter() else { return };
            let due = shared.take_due(self.id);
            drop(shared);
            let is_last = due.len() < AT_ONCE;
            if due.is_empty() {
                return;
            }
            if self.offer_again(&header, due) != Taken::All || is_last {
                return;
            }
        }
    }

    /// Offers letters to the sink once more. Those that it did not take wait for the next `redrive`. If it took a part and does
    /// not say which, the letters that failed are evicted.
    fn offer_again(&mut self, header: &Batch<E>, due: Vec<Kept<E>>) -> Taken {
        let count = due.len();
        // A clone is user code.
        let events = catch_panic(|| due.iter().map(|kept| kept.letter.event.clone()).collect());
        let offered = match events {
            _ if header.check().is_err() => Ok(()),
            Ok(events) => self.catch_panic(&header.redriven(events)),
            Err(said) => Err(self.panicked(&said)),
        };
        if header.check().is_err() {
            // The sink or the clone has forked: letters and locks are the parent's.
            std::mem::forget(due);
            return Taken::Part;
        }
        let Err(failure) = offered else {
            self.account.note_redriven(count as u64);
            end_all(due.into_iter().map(|kept| kept.letter.event).collect());
            return Taken::All;
        };
        failure.error.iter().for_each(|error| self.account.note_error(error));
        if let Some(failed) = failure.in_part {
            self.account.note_redriven((count as u64).saturating_sub(failed));
            if let Ok(mut shared) = self.letters.shared.enter() {
                shared.evicted += failed;
            }
            end_all(due.into_iter().map(|kept| kept.letter.event).collect());
            return Taken::Part;
        }
        if count > 1 && !failure.is_transient {
            // One of them may be the reason: each by itself.
            return self.offer_each(header, due, &failure);
        }
        let is_unavailable = failure.is_transient && failure.error.is_some();
        self.put_back(due, &failure);
        if is_unavailable { Taken::Nothing } else { Taken::Part }
    }

    /// Offers letters one by one, until the sink takes nothing for now. Those behind that one failed as the `failure` of all.
    fn offer_each(&mut self, header: &Batch<E>, due: Vec<Kept<E>>, failure: &Failure) -> Taken {
        let (mut taken, mut due) = (Taken::All, due.into_iter());
        while let Some(kept) = due.next() {
            let of_one = self.offer_again(header, vec![kept]);
            if header.check().is_err() {
                // As above.
                std::mem::forget(due);
                return Taken::Part;
            }
            if of_one != Taken::All {
                taken = Taken::Part;
            }
            if of_one == Taken::Nothing {
                break;
            }
        }
        self.put_back(due.collect(), failure);
        taken
    }

    /// Lets letters wait for the next `redrive`.
    fn put_back(&self, letters: Vec<Kept<E>>, failure: &Failure) {
        let again = letters.into_iter().map(|mut kept| {
            kept.is_due = false;
            kept.letter.attempts = kept.letter.attempts.saturating_add(failure.attempts);
            kept.bytes = kept.bytes.saturating_sub(kept.letter.error.len() as u64);
            kept.bytes = kept.bytes.saturating_add(failure.said.len() as u64);
            kept.letter.error.clone_from(&failure.said);
            kept
        });
        let again = again.collect();
        if let Ok(mut shared) = self.letters.shared.enter() {
            let evicted = shared.put_back(again);
            drop(shared);
            end_all(evicted);
        }
    }

    /// Offers a batch to the sink; what it says, or that it panicked, is noted.
    fn catch_panic(&mut self, batch: &Batch<E>) -> Result<(), Failure> {
        // What lies below an error is user code, and ends in here.
        let describe = |error: SinkError| (error.to_string(), error.without_source());
        match catch_panic(|| self.sink.write_batch(batch).map_err(describe)) {
            Ok(Ok(())) => Ok(()),
            Ok(Err((said, error))) => {
                let failure = Failure {
                    said: shortened(said),
                    attempts: error.attempts(),
                    is_transient: error.is_transient(),
                    in_part: error.is_partial(batch.len()).then(|| error.failed_of(batch.len() as u64)),
                    error: Some(Box::new(error)),
                };
                Err(failure)
            }
            Err(said) => Err(Failure { is_transient: true, ..self.panicked(&said) }),
        }
    }

    /// Notes a panic.
    fn panicked(&self, said: &str) -> Failure {
        self.account.note_panic(said);
        let said = shortened(format!("panicked: {said}"));
        Failure { said, attempts: 1, is_transient: false, in_part: None, error: None }
    }
}

/// Reason why a batch was not taken.
struct Failure {
    /// The begin of it: every letter of the batch gets a copy, before any bound applies.
    said: String,
    attempts: u32,
    is_transient: bool,
    /// Number of events that failed, when others were taken.
    in_part: Option<u64>,
    /// `None` for a panic, which is noted.
    error: Option<Box<SinkError>>,
}

/// Ends events, whose destructors are user code; without a lock.
fn end_all<E>(mut events: Vec<E>) {
    destroy(&mut events);
}

impl<S: Sink<E>, E: Event + Clone> Sink<E> for DeadLettering<S, E> {
    fn name(&self) -> &str {
        self.sink.name()
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.redrive();
        self.sink.flush()
    }

    fn write_batch(&mut self, batch: &Batch<E>) -> Result<(), SinkError> {
        self.redrive();
        let Err(failure) = self.catch_panic(batch) else { return Ok(()) };
        // The sink may have forked.
        batch.check()?;
        if let Some(error) = failure.error {
            // Of a part, be it by a route inside, nobody knows which events.
            if failure.in_part.is_some() || error.is_of_part() || batch.is_empty() {
                return Err(*error);
            }
            self.account.note_error(&error);
        }
        let time = SystemTime::now();
        // A clone and a size hint are user code: an event that has none fails.
        let mut panics = Panics::of("the clone or the size hint of an event");
        let letters = batch.iter().filter_map(|event| {
            let error = failure.said.clone();
            panics.catch(|| {
                let letter = DeadLetter::new(event.clone(), failure.attempts, error, time);
                Kept::new(letter, self.id)
            })
        });
        let letters: Vec<_> = letters.collect();
        batch.check()?;
        let kept = letters.len() as u64;
        // In a forked child the queue is the parent's: nobody could take the events out of it again, and they fail.
        let mut shared = self.letters.shared.enter()?;
        let evicted = shared.put(letters);
        drop(shared);
        self.last = Some(batch.without_events(0));
        self.account.keep(kept);
        self.account.complete(Fate::DeadLettered, kept);
        end_all(evicted);
        if !self.account.is_open() {
            // Whoever wraps this one counts them by what is returned.
            let why = format!("the events became dead letters: {}", failure.said);
            return Err(SinkError::unavailable(why).permanent());
        }
        if panics.is_none() { Ok(()) } else { Err(panics.error()) }
    }

    fn hook(&mut self, hook: Hook<'_>) {
        if let Hook::Open(account) = &hook {
            self.open(account);
        }
        self.sink.hook(hook);
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
