//! `Batch`: what a sink receives, events and one header for all of them. `Batcher`: what makes batches of queued
//! events.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::buffer::empty;
use crate::clock;
use crate::event::{Event, Record};
use crate::lanes::{DrainPass, LaneCursor, Lanes, owned_bytes};
use crate::origin::{CurrentRun, Origin, RunIdentity};
use crate::sync::{Arc, Forked, Home, PlainMutex, catch_panic};

/// Number of buffers that wait for reuse. One is in use while sinks run on the worker thread; sinks that keep a clone
/// of a batch may hold a few more.
const SPARE_BUFFERS: usize = 4;

/// User code that completes an event on the worker thread.
pub(crate) type Enrich<E> = dyn FnMut(&mut E, &Origin) + Send;

/// Batch of events in the order of their delivery, with a header. It is immutable, and a clone shares the events.
///
/// The events of one producer and one priority keep their order, within a batch and from batch to batch.
///
/// # Examples
///
/// ```
/// use forebay::sink::{MemorySink, Sink};
/// use forebay::{Batch, Record};
///
/// # fn main() -> Result<(), forebay::sink::SinkError> {
/// // A test of a sink needs no collector.
/// let batch = Batch::from_events(vec![Record::scalar("train.loss", 0.5)]);
/// assert_eq!((batch.len(), batch.gap(), batch.session()), (1, 0, "test"));
/// let mut memory = MemorySink::new();
/// memory.write_batch(&batch)?;
/// assert_eq!(memory.events(), batch.events());
/// # Ok(())
/// # }
/// ```
pub struct Batch<E = Record> {
    header: Header,
    events: Arc<Buffer<E>>,
}

#[derive(Debug, Clone)]
struct Header {
    number: u64,
    first_event: u64,
    gap: u64,
    origin: Arc<Origin>,
    run: Option<Arc<RunIdentity>>,
    time: SystemTime,
    /// Time when the batch was handed out, in nanoseconds of the worker's clock. Spans are measured by it, because nobody
    /// can set it.
    moment: u64,
    /// True if its events were offered before, and failed.
    is_redriven: bool,
    /// True if an earlier process has made it.
    is_replayed: bool,
    /// The process that delivers it.
    process: Home,
}

/// What is kept of a header.
#[cfg(feature = "json-lines")]
pub(crate) struct KeptHeader {
    pub(crate) number: u64,
    pub(crate) first_event: u64,
    pub(crate) gap: u64,
    pub(crate) time: SystemTime,
    pub(crate) origin: Arc<Origin>,
    pub(crate) run: Option<Arc<RunIdentity>>,
    pub(crate) is_replayed: bool,
}

impl<E> Batch<E> {
    /// Makes a batch by hand, to try a sink without a collector. It has number 0, session `test` and no gap.
    pub fn from_events(events: Vec<E>) -> Self {
        let header = Header {
            number: 0,
            first_event: 0,
            gap: 0,
            origin: Arc::new(Origin::of_test()),
            run: None,
            time: SystemTime::now(),
            moment: clock::nanos(),
            is_redriven: false,
            is_replayed: false,
            process: Home::here(),
        };
        Self { events: Buffer::alone(events, header.process), header }
    }

    /// Sets where the events come from, and the run that they belong to.
    pub(crate) fn with_origin(mut self, origin: Arc<Origin>, run: Option<Arc<RunIdentity>>) -> Self {
        (self.header.origin, self.header.run) = (origin, run);
        self
    }

    /// Fails in a forked child of the process that delivers the batch, because its events are the parent's. Call it
    /// after user code has run, and before anything is written.
    pub(crate) fn check(&self) -> Result<(), Forked> {
        self.header.process.check()
    }

    /// Returns whether this process is a forked child of the one that delivers the batch. Its events are then the parent's. A sink that
    /// runs code of its users, as their `Serialize`, asks before it touches what it shares with the parent: a connection, a file.
    pub fn is_forked(&self) -> bool {
        self.check().is_err()
    }

    /// Returns a batch of other events with the same header.
    #[doc(hidden)]
    pub fn with_events<T>(&self, events: Vec<T>) -> Batch<T> {
        Batch { header: self.header.clone(), events: Buffer::alone(events, self.header.process) }
    }

    /// Returns a batch that carries only a gap, to follow this one.
    pub(crate) fn without_events(&self, gap: u64) -> Self {
        let mut batch = self.with_events(Vec::new());
        batch.header.first_event = batch.header.first_event.saturating_add(self.len() as u64);
        batch.header.gap = gap;
        batch
    }

    /// Returns a batch of events that were offered before, and failed.
    pub(crate) fn redriven(&self, events: Vec<E>) -> Self {
        let mut batch = self.with_events(events);
        batch.header.gap = 0;
        batch.header.is_redriven = true;
        batch
    }

    /// Returns whether these are dead letters, which are offered again: they failed before, and earlier batches have reported them as
    /// missing. The [first event](Self::first_event) is then none of theirs.
    pub fn is_redriven(&self) -> bool {
        self.header.is_redriven
    }

    /// Returns a batch that was kept outside of this process, or of memory.
    #[cfg(feature = "json-lines")]
    pub(crate) fn restored(kept: KeptHeader, events: Vec<E>) -> Self {
        let KeptHeader { number, first_event, gap, time, origin, run, is_replayed } = kept;
        let (moment, process) = (clock::nanos(), Home::here());
        let header = Header {
            number,
            first_event,
            gap,
            origin,
            run,
            time,
            moment,
            is_redriven: false,
            is_replayed,
            process,
        };
        Self { events: Buffer::alone(events, process), header }
    }

    /// Returns whether an earlier process has made this batch, and left it in the file of a [`Spill`](crate::sink::Spill). Its header is the one
    /// that it had: [origin](Self::origin) and numbers are those of that process. Of the batches of that process, the first one may have been delivered.
    pub fn is_replayed(&self) -> bool {
        self.header.is_replayed
    }

    /// Adds to the number of events that are missing before these.
    #[doc(hidden)]
    pub fn add_gap(&mut self, events: u64) {
        self.header.gap = self.header.gap.saturating_add(events);
    }

    /// Returns the number of this batch. It counts from 0 in steps of one, through stops and restarts.
    pub fn number(&self) -> u64 {
        self.header.number
    }

    /// Returns the number of the first event. Evicted events are counted too: without a gap, a batch begins where the
    /// one before it ended.
    pub fn first_event(&self) -> u64 {
        self.header.first_event
    }

    /// Returns how many events were evicted before these, and not reported by an earlier batch. A gap is never
    /// reported before the events that precede it. One that opens while a batch is put together is reported by the
    /// next.
    ///
    /// For an [isolated](crate::sink::Isolated) sink, it also counts events that its own queue lost. For a sink
    /// inside a map, a filter or a route, it also counts events at which their user code panicked.
    ///
    /// After a flush, the gaps of all batches add up to [`Stats::evicted`](crate::Stats::evicted). If no event
    /// follows the last evictions, a batch without events reports them.
    pub fn gap(&self) -> u64 {
        self.header.gap
    }

    /// Returns the session id of the collector.
    pub fn session(&self) -> &str {
        &self.header.origin.session_id
    }

    /// Returns where the events come from.
    pub fn origin(&self) -> &Origin {
        &self.header.origin
    }

    /// Returns the training run that the events belong to, if a [`TrainingRun`](crate::run::TrainingRun) has begun.
    pub fn run(&self) -> Option<&RunIdentity> {
        self.header.run.as_deref()
    }

    /// Calls user code to complete the events, one by one. Returns how often it panicked. No sink has them yet.
    pub(crate) fn enrich(&mut self, enrich: &mut Enrich<E>) -> u64 {
        let Some(buffer) = Arc::get_mut(&mut self.events) else { return 0 };
        let origin = &*self.header.origin;
        let panics = buffer.events.iter_mut().filter_map(|event| catch_panic(|| enrich(event, origin)).err());
        panics.count() as u64
    }

    /// Returns when the batch was put together, by the system's clock.
    pub fn time(&self) -> SystemTime {
        self.header.time
    }

    /// Returns when the batch was handed out, in nanoseconds of the worker's clock. Spans use it, because they must
    /// not depend on what the system's clock is set to.
    pub(crate) fn moment(&self) -> u64 {
        self.header.moment
    }

    /// Sets when the batch is handed out.
    pub(crate) fn set_moment(&mut self, moment: u64) {
        self.header.moment = moment;
    }

    /// Returns the events.
    pub fn events(&self) -> &[E] {
        &self.events.events
    }

    /// Returns the number of events.
    pub fn len(&self) -> usize {
        self.events().len()
    }

    /// Returns whether there is no event, only a gap.
    pub fn is_empty(&self) -> bool {
        self.events().is_empty()
    }

    /// Iterates over the events.
    pub fn iter(&self) -> std::slice::Iter<'_, E> {
        self.events().iter()
    }
}

impl<E: Event> Batch<E> {
    /// Returns how many bytes a clone keeps in memory: the buffer, which may have space for more events than it
    /// holds, and what the events own. An event that panics when it is asked owns nothing, and `on_panic` gets its
    /// message.
    #[doc(hidden)]
    pub fn bytes(&self, mut on_panic: impl FnMut(String)) -> u64 {
        let of = |event: &E| {
            catch_panic(|| owned_bytes(event)).unwrap_or_else(|message| {
                on_panic(message);
                0
            })
        };
        let buffer = (self.events.events.capacity() as u64).saturating_mul(size_of::<E>() as u64);
        self.iter().map(of).fold(buffer, u64::saturating_add)
    }
}

impl<E> Clone for Batch<E> {
    fn clone(&self) -> Self {
        Self { header: self.header.clone(), events: Arc::clone(&self.events) }
    }
}

impl<E: fmt::Debug> fmt::Debug for Batch<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("header", &self.header).field("events", &self.events()).finish()
    }
}

impl<'a, E> IntoIterator for &'a Batch<E> {
    type Item = &'a E;
    type IntoIter = std::slice::Iter<'a, E>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Events of a batch. The last clone of the batch returns the empty vector to its pool.
struct Buffer<E> {
    events: Vec<E>,
    /// The process in which the events may be dropped.
    process: Home,
    /// The pool of the vector; `None` for a batch that was made by hand.
    pool: Option<Arc<BufferPool<E>>>,
}

impl<E> Buffer<E> {
    /// Creates a buffer that belongs to no pool.
    fn alone(events: Vec<E>, process: Home) -> Arc<Self> {
        Arc::new(Self { events, process, pool: None })
    }
}

impl<E> Drop for Buffer<E> {
    fn drop(&mut self) {
        if self.process.is_left() {
            // This is a forked child. The events are the parent's, and must not be dropped here.
            std::mem::forget(std::mem::take(&mut self.events));
            return;
        }
        destroy(&mut self.events);
        empty(&mut self.events);
        if let Some(pool) = self.pool.take().filter(|_| self.events.capacity() > 0) {
            pool.put(std::mem::take(&mut self.events));
        }
    }
}

/// Empty buffers of one collector, for reuse. A lock suffices: it is taken at most once a batch, for a push or a pop.
struct BufferPool<E> {
    buffers: PlainMutex<Vec<Vec<E>>>,
}

impl<E> BufferPool<E> {
    fn new() -> Self {
        Self { buffers: PlainMutex::new(Vec::with_capacity(SPARE_BUFFERS)) }
    }

    /// Keeps a buffer, unless there are enough.
    fn put(&self, buffer: Vec<E>) {
        let mut buffers = self.buffers.lock();
        if buffers.len() < SPARE_BUFFERS {
            buffers.push(buffer);
        }
    }

    fn take(&self) -> Option<Vec<E>> {
        self.buffers.lock().pop()
    }
}

/// Empties `events`. Their destructors are user code, whose panics are caught here. Each event leaves the vector
/// before its drop. So one that panics takes no other with it, and no second panic comes while the first unwinds.
pub(crate) fn destroy<E>(events: &mut Vec<E>) {
    if std::mem::needs_drop::<E>() {
        let home = Home::now();
        while !events.is_empty() {
            let _ = catch_panic(|| {
                while let Some(event) = events.pop() {
                    drop(event);
                    if home.is_left() {
                        // The destructor has forked on a thread of the user, and this is the child. The other events
                        // are the parent's.
                        return std::mem::forget(std::mem::take(events));
                    }
                }
            });
        }
    } else {
        events.clear();
    }
}

/// Maker of batches: takes events out of the lanes, numbers them and stamps the gaps. The worker owns it. It is kept
/// from run to run, so that the numbers go on.
pub(crate) struct Batcher<E> {
    pool: Arc<BufferPool<E>>,
    /// The buffer of the last batch, if no sink has kept it. The next batch reuses it.
    spare: Option<Arc<Buffer<E>>>,
    spare_events: Vec<E>,
    origin: Arc<Origin>,
    run: CurrentRun,
    /// The most events of a batch, at least 1. Each run of the worker begins by setting it.
    max_events: usize,
    next_batch: u64,
    next_event: u64,
    /// Evictions that the batches so far have reported.
    reported_evictions: u64,
    /// Those of rings, among them.
    reported_of_rings: u64,
    /// Bytes that the events of the last batch owned when they were taken.
    bytes: u64,
    cursor: LaneCursor,
}

impl<E: Event> Batcher<E> {
    pub(crate) fn new(origin: Arc<Origin>, run: CurrentRun) -> Self {
        Self {
            pool: Arc::new(BufferPool::new()),
            spare: None,
            spare_events: Vec::new(),
            origin,
            run,
            max_events: 1,
            next_batch: 0,
            next_event: 0,
            reported_evictions: 0,
            reported_of_rings: 0,
            bytes: 0,
            cursor: LaneCursor::default(),
        }
    }

    /// Changes the most events of a batch, at least 1.
    pub(crate) fn set_max_events(&mut self, max_events: usize) {
        self.max_events = max_events;
    }

    /// Returns how many evictions the batches so far have reported.
    pub(crate) fn reported_evictions(&self) -> u64 {
        self.reported_evictions
    }

    /// Returns how many bytes of the budget the events of the last batch hold.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Begins a pass through the lanes.
    pub(crate) fn begin_pass(&mut self, lanes: &Lanes<E>) -> DrainPass {
        lanes.begin_pass(&mut self.cursor)
    }

    /// Returns the next batch of a pass. `None` means that the pass has ended and nothing is left to report; it uses
    /// up no number.
    pub(crate) fn next_batch(&mut self, lanes: &Lanes<E>, pass: &mut DrainPass) -> Option<Batch<E>> {
        // Read before the events are taken: everything evicted by now was older than all that is in the rings. A
        // later read could report a gap that lies behind these events.
        let evicted = lanes.evicted_of_rings();
        let mut gap = evicted - self.reported_of_rings;
        let mut events = std::mem::take(&mut self.spare_events);
        if events.capacity() == 0 {
            events = self.pool.take().unwrap_or_default();
        }
        self.bytes = lanes.take(pass, &mut self.cursor, &mut events, self.max_events);
        // Lanes of threads know their gaps by the numbers of their events.
        gap += self.cursor.take_gap();
        if events.is_empty() && gap == 0 {
            self.spare_events = events;
            return None;
        }
        self.reported_of_rings = evicted;
        self.reported_evictions += gap;
        let header = Header {
            number: self.next_batch,
            first_event: self.next_event + gap,
            gap,
            origin: Arc::clone(&self.origin),
            run: self.run.get(),
            time: UNIX_EPOCH + Duration::from_nanos(clock::unix_nanos()),
            moment: 0,
            is_redriven: false,
            is_replayed: false,
            process: Home::now(),
        };
        self.next_batch += 1;
        self.next_event += gap + events.len() as u64;
        Some(Batch { header, events: self.wrap(events) })
    }

    fn wrap(&mut self, events: Vec<E>) -> Arc<Buffer<E>> {
        if let Some(mut spare) = self.spare.take()
            && let Some(buffer) = Arc::get_mut(&mut spare)
        {
            buffer.events = events;
            return spare;
        }
        Arc::new(Buffer { events, process: Home::here(), pool: Some(Arc::clone(&self.pool)) })
    }

    /// Takes back a batch that every sink has seen. Drops its events unless a sink has kept them.
    pub(crate) fn recycle(&mut self, batch: Batch<E>) {
        let mut events = batch.events;
        if let Some(buffer) = Arc::get_mut(&mut events) {
            destroy(&mut buffer.events);
            empty(&mut buffer.events);
            self.spare_events = std::mem::take(&mut buffer.events);
            self.spare = Some(events);
        }
    }
}

impl<E> fmt::Debug for Batcher<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batcher")
            .field("next_batch", &self.next_batch)
            .field("next_event", &self.next_event)
            .finish_non_exhaustive()
    }
}
