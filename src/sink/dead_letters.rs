//! Dead letters: events that a sink could not take.

use std::collections::{BTreeMap, VecDeque};
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
    /// How many letters each owner has. Those without one are not in it.
    counts: BTreeMap<u64, Counts>,
    /// Letters that were looked at in a search for due ones.
    #[cfg(test)]
    looks: u64,
    /// Wrappers that put letters here and take them again, by number.
    takers: Vec<(u64, Account)>,
    evicted: u64,
    pace: Option<Pace>,
    /// The clock of the pace counts from here.
    begun: Instant,
}

/// Number of letters of one owner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    kept: u64,
    /// Those of them that are to be offered again.
    due: u64,
}

struct Kept<E> {
    /// Shared while somebody looks at the letters: a clone of an event is user code, which must not run under the lock.
    event: Arc<E>,
    attempts: u32,
    error: String,
    time: SystemTime,
    handler: Option<Name>,
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
            counts: BTreeMap::new(),
            #[cfg(test)]
            looks: 0,
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
        let shown: Vec<Kept<E>> = shared.letters.iter().map(Kept::share).collect();
        drop(shared);
        shown.into_iter().map(Kept::into_letter).collect()
    }

    /// Removes all letters, and returns them, oldest first. An event that another thread is looking at is cloned.
    pub fn purge(&self) -> Vec<DeadLetter<E>>
    where
        E: Clone,
    {
        let Ok(mut shared) = self.shared.enter() else { return Vec::new() };
        let letters = std::mem::take(&mut shared.letters);
        shared.counts.clear();
        shared.bytes = 0;
        drop(shared);
        letters.into_iter().map(Kept::into_letter).collect()
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
        for kept in letters.letters.iter_mut().filter(|kept| takers.contains(&kept.owner)) {
            kept.is_due = true;
        }
        let mut offered = 0;
        for (_, counts) in letters.counts.iter_mut().filter(|(owner, _)| takers.contains(owner)) {
            counts.due = counts.kept;
            offered += counts.kept as usize;
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
    pub fn take_due(&self, owner: u64) -> Vec<DeadLetter<E>>
    where
        E: Clone,
    {
        let due = self.shared.enter().map_or_else(|_| Vec::new(), |mut letters| letters.take_due(owner));
        due.into_iter().map(Kept::into_letter).collect()
    }

    /// Offers those no more that are of nobody whom `is_known` knows.
    #[doc(hidden)]
    pub fn leave_unknown(&self, is_known: impl Fn(u64) -> bool) {
        let Ok(mut letters) = self.shared.enter() else { return };
        let mut has_changed = false;
        for (_, counts) in
            letters.counts.iter_mut().filter(|(owner, counts)| counts.due > 0 && !is_known(**owner))
        {
            counts.due = 0;
            has_changed = true;
        }
        if has_changed {
            letters.letters.iter_mut().for_each(|kept| kept.is_due &= is_known(kept.owner));
        }
    }

    /// Returns whether some are to be offered again.
    #[doc(hidden)]
    pub fn has_due(&self) -> bool {
        self.shared.enter().is_ok_and(|letters| letters.counts.values().any(|counts| counts.due > 0))
    }
}

/// The most letters that are offered again at once.
const AT_ONCE: usize = 100;

impl<E: Event> Kept<E> {
    fn new(letter: DeadLetter<E>, owner: u64) -> Self {
        let bytes = owned_bytes(&letter.event).saturating_add(letter.error.len() as u64);
        let DeadLetter { event, attempts, error, time, handler } = letter;
        let event = Arc::new(event);
        Self { event, attempts, error, time, handler, number: 0, bytes, owner, is_due: false }
    }
}

impl<E> Kept<E> {
    /// Returns the same letter, with the same event. Runs no user code.
    fn share(&self) -> Self {
        let (event, error, handler) = (Arc::clone(&self.event), self.error.clone(), self.handler.clone());
        Self { event, error, handler, ..*self }
    }

    /// Returns the letter. Where the event is shared, this is a clone of it.
    fn into_letter(self) -> DeadLetter<E>
    where
        E: Clone,
    {
        let event = Arc::try_unwrap(self.event).unwrap_or_else(|event| (*event).clone());
        let Self { attempts, error, time, handler, .. } = self;
        DeadLetter { event, attempts, error, time, handler }
    }
}

impl<E> Letters<E> {
    /// Puts letters in, in the place of the oldest where there is no space; those come out.
    fn put(&mut self, new: Vec<Kept<E>>) -> Vec<Arc<E>> {
        for mut kept in new {
            kept.number = self.next;
            self.next += 1;
            self.add(&kept);
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
        self.counts_of(owner).kept
    }

    fn counts_of(&self, owner: u64) -> Counts {
        self.counts.get(&owner).copied().unwrap_or_default()
    }

    /// Counts a letter that comes in.
    fn add(&mut self, kept: &Kept<E>) {
        self.bytes = self.bytes.saturating_add(kept.bytes);
        let counts = self.counts.entry(kept.owner).or_default();
        counts.kept += 1;
        counts.due += u64::from(kept.is_due);
    }

    /// Counts a letter that has come out.
    fn subtract(&mut self, kept: &Kept<E>) {
        self.bytes = self.bytes.saturating_sub(kept.bytes);
        if let Some(counts) = self.counts.get_mut(&kept.owner) {
            counts.kept = counts.kept.saturating_sub(1);
            counts.due = counts.due.saturating_sub(u64::from(kept.is_due));
            if counts.kept == 0 {
                self.counts.remove(&kept.owner);
            }
        }
    }

    fn make_room(&mut self) -> Vec<Arc<E>> {
        let mut evicted = Vec::new();
        while (self.letters.len() > self.max_letters || self.bytes > self.max_bytes && self.letters.len() > 1)
            && let Some(oldest) = self.letters.pop_front()
        {
            self.subtract(&oldest);
            evicted.push(oldest.event);
        }
        self.evicted += evicted.len() as u64;
        evicted
    }

    /// Takes those out that may be offered to their sink now.
    fn take_due(&mut self, owner: u64) -> Vec<Kept<E>> {
        let now = self.begun.elapsed();
        let mut due = Vec::new();
        let mut place = 0;
        // None is looked at where none is due, which is so at nearly every batch.
        while due.len() < AT_ONCE && place < self.letters.len() && self.counts_of(owner).due > 0 {
            #[cfg(test)]
            {
                self.looks += 1;
            }
            let is_due = self.letters[place].is_due && self.letters[place].owner == owner;
            if !is_due {
                place += 1;
            } else if self.pace.as_mut().is_none_or(|pace| pace.take(now).is_ok()) {
                let kept = self.letters.remove(place);
                kept.iter().for_each(|kept| self.subtract(kept));
                due.extend(kept);
            } else {
                break;
            }
        }
        due
    }

    /// Puts those back that were not taken, where they were; those for which there is no space come out.
    fn put_back(&mut self, letters: Vec<Kept<E>>) -> Vec<Arc<E>> {
        for kept in letters.into_iter().rev() {
            self.add(&kept);
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
        let events = catch_panic(|| due.iter().map(|kept| E::clone(&kept.event)).collect());
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
            end_all(due.into_iter().map(|kept| kept.event).collect());
            return Taken::All;
        };
        failure.error.iter().for_each(|error| self.account.note_error(error));
        if let Some(failed) = failure.in_part {
            self.account.note_redriven((count as u64).saturating_sub(failed));
            if let Ok(mut shared) = self.letters.shared.enter() {
                shared.evicted += failed;
            }
            end_all(due.into_iter().map(|kept| kept.event).collect());
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
            kept.attempts = kept.attempts.saturating_add(failure.attempts);
            kept.bytes = kept.bytes.saturating_sub(kept.error.len() as u64);
            kept.bytes = kept.bytes.saturating_add(failure.said.len() as u64);
            kept.error.clone_from(&failure.said);
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
fn end_all<E>(mut events: Vec<Arc<E>>) {
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
                // Letters may be offered before the next try: another batch to the sink.
                return Err(error.not_resumable());
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    struct Down;

    impl Sink<Record> for Down {
        fn name(&self) -> &str {
            "down"
        }

        fn write_batch(&mut self, _: &Batch<Record>) -> Result<(), SinkError> {
            Err(SinkError::unavailable("nobody is there"))
        }
    }

    /// Checks that what is counted is what a walk counts.
    fn check(letters: &DeadLetters) {
        let letters = letters.shared.lock();
        let mut counts = BTreeMap::<u64, Counts>::new();
        for kept in &letters.letters {
            let counts = counts.entry(kept.owner).or_default();
            counts.kept += 1;
            counts.due += u64::from(kept.is_due);
        }
        assert_eq!(letters.counts, counts);
        assert_eq!(letters.bytes, letters.letters.iter().map(|kept| kept.bytes).sum::<u64>());
    }

    fn letter(step: u64) -> DeadLetter {
        DeadLetter::new(Record::new("a").with_step(step), 1, "down".to_owned(), SystemTime::now())
    }

    #[test]
    fn no_letter_is_looked_at_where_none_of_the_owner_is_due() {
        let letters = DeadLetters::new(1000);
        let mut sink = DeadLettering::new(Down, &letters);
        letters.keep(DeadLetters::<Record>::new_owner(), (0..500).map(letter).collect());
        for step in 0..100 {
            let batch = Batch::from_events(vec![Record::new("a").with_step(step)]);
            assert!(sink.write_batch(&batch).is_err());
        }
        assert_eq!((letters.len(), letters.shared.lock().of(sink.id)), (600, 100));
        assert!(!letters.has_due());
        assert_eq!(letters.shared.lock().looks, 0);
        // Those of the other owner, which nobody takes, are passed once a letter that is due.
        assert_eq!(letters.redrive(None), 100);
        assert!(letters.has_due());
        assert_eq!(letters.shared.lock().take_due(sink.id).len(), 100);
        assert_eq!(letters.shared.lock().looks, 600);
        assert!(letters.shared.lock().take_due(sink.id).is_empty());
        assert_eq!(letters.shared.lock().looks, 600);
        check(&letters);
    }

    #[test]
    fn the_counts_of_owners_are_those_of_a_walk_whatever_comes_and_goes() {
        let letters = DeadLetters::new(20).max_bytes(1_000);
        let owners = [1, 2, 3];
        letters.add_taker(1);
        letters.add_taker(2);
        let mut random = fastrand::Rng::with_seed(7);
        for step in 0..5_000 {
            let owner = owners[random.usize(..3)];
            match random.u8(..8) {
                0..3 => letters.keep(owner, (0..random.u64(..6)).map(letter).collect()),
                3 => _ = letters.redrive(random.bool().then_some(3)),
                4 => _ = letters.take_due(owner),
                5 => {
                    let due = letters.shared.lock().take_due(owner);
                    letters.shared.lock().put_back(due);
                }
                6 if step % 50 == 0 => _ = letters.purge(),
                6 => letters.leave_unknown(|known| known != owner),
                _ => assert_eq!(letters.entries().len(), letters.len()),
            }
            check(&letters);
        }
    }

    /// Event whose clone looks at the letters that it is among.
    struct Looks(DeadLetters<Looks>);

    impl Event for Looks {}

    impl Clone for Looks {
        fn clone(&self) -> Self {
            assert!(self.0.shared.try_lock().is_some(), "the lock is held while an event is cloned");
            Self(self.0.clone())
        }
    }

    #[test]
    fn events_are_cloned_without_the_lock() {
        let letters = DeadLetters::new(10);
        let letter = DeadLetter::new(Looks(letters.clone()), 1, String::new(), SystemTime::now());
        letters.keep(1, vec![letter]);
        assert_eq!(letters.entries().len(), 1);
        // Also where somebody looks at it.
        let looks = letters.shared.lock().letters[0].share();
        assert_eq!(letters.purge().len(), 1);
        assert_eq!(Arc::strong_count(&looks.event), 1);
    }
}
