//! Helpers for tests of programs that use forebay (feature `testing`): a collector that remembers, sinks that fail,
//! block and panic by script, and [`assert_emitted!`](crate::assert_emitted). A bus that remembers is in the crate
//! `forebay-bus`.
//!
//! Nothing here sleeps. Time can be a [`ManualClock`] that the test moves.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;

use crate::batch::Batch;
use crate::builder::Builder;
use crate::collector::{Collector, StartError};
use crate::event::{Event, Record};
use crate::pattern::Pattern;
use crate::sink::{MemorySink, Sink, SinkError};
use crate::sync::{Arc, Condvar, Mutex};

pub use crate::clock::ManualClock;

/// Something that remembers records: what [`assert_emitted!`](crate::assert_emitted) looks at.
pub trait Emitted {
    /// Returns all records so far, in order.
    fn emitted(&self) -> Vec<Record>;
}

impl<T: Emitted + ?Sized> Emitted for &T {
    fn emitted(&self) -> Vec<Record> {
        (**self).emitted()
    }
}

impl<T: Emitted + ?Sized> Emitted for Arc<T> {
    fn emitted(&self) -> Vec<Record> {
        (**self).emitted()
    }
}

/// Checks that a record was emitted. It takes something that is [`Emitted`], and a name or [`Pattern`]; then nothing (at
/// least once), `times = n` (exactly), or a function of a record (at least one for which it holds).
///
/// # Panics
///
/// If not; the text has the names of all records that there are. Also if no name fits the pattern, such as one with a brace
/// that is not closed: of such records there are none, whatever was emitted.
#[macro_export]
macro_rules! assert_emitted {
    ($of:expr, $pattern:expr $(,)?) => {
        $crate::assert_emitted!($of, $pattern, |_| true)
    };
    ($of:expr, $pattern:expr, times = $times:expr $(,)?) => {{
        let times: usize = $times;
        if let ::std::result::Result::Err(why) = $crate::testing::check_times(&$of, $pattern, times) {
            ::std::panic!("{why}");
        }
    }};
    ($of:expr, $pattern:expr, $holds:expr $(,)?) => {{
        if let ::std::result::Result::Err(why) = $crate::testing::check_any(&$of, $pattern, $holds) {
            ::std::panic!("{why}");
        }
    }};
}

/// Checks what [`assert_emitted!`](crate::assert_emitted) asks with a number.
///
/// # Errors
///
/// The sentence that it panics with.
pub fn check_times(of: &impl Emitted, pattern: impl Into<Pattern>, times: usize) -> Result<(), String> {
    let (pattern, records) = (possible(pattern.into())?, of.emitted());
    let found = records.iter().filter(|record| pattern.matches(record.name())).count();
    if found == times {
        return Ok(());
    }
    Err(format!("{pattern} was emitted {found} times, expected were {times}; all: {}", names(&records)))
}

/// Checks what [`assert_emitted!`](crate::assert_emitted) asks with a function.
///
/// # Errors
///
/// The sentence that it panics with.
pub fn check_any(
    of: &impl Emitted,
    pattern: impl Into<Pattern>,
    holds: impl Fn(&Record) -> bool,
) -> Result<(), String> {
    let (pattern, records) = (possible(pattern.into())?, of.emitted());
    let fitting: Vec<&Record> = records.iter().filter(|record| pattern.matches(record.name())).collect();
    if fitting.iter().any(|record| holds(record)) {
        return Ok(());
    }
    match fitting.len() {
        0 => Err(format!("{pattern} was never emitted; all: {}", names(&records))),
        count => Err(format!("{pattern} was emitted {count} times, never as expected: {fitting:?}")),
    }
}

/// Returns the pattern, unless its text is none: then it would stand for itself alone, and for no name.
fn possible(pattern: Pattern) -> Result<Pattern, String> {
    Pattern::new(pattern.as_str()).map_err(|error| error.to_string())
}

fn names(records: &[Record]) -> String {
    let names: Vec<&str> = records.iter().map(Record::name).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// A [`Collector`] that remembers every event, on a clock that the test moves. It is used as the collector that it is.
///
/// ```
/// use forebay::testing::RecordingCollector;
/// use forebay::{Record, assert_emitted};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let collector = RecordingCollector::new()?;
/// collector.collect(Record::scalar("train.loss", 0.5));
/// assert_emitted!(collector, "train.loss", |loss| loss.value().as_f64() == Some(0.5));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct RecordingCollector<E: Event = Record> {
    collector: Collector<E>,
    memory: MemorySink<E>,
    clock: ManualClock,
}

impl RecordingCollector {
    /// Starts a collector of records with the default settings.
    ///
    /// # Errors
    ///
    /// As for [`Builder::start`].
    pub fn new() -> Result<Self, StartError> {
        Self::of(Builder::new())
    }
}

impl<E: Event + Clone> RecordingCollector<E> {
    /// Starts a collector with these settings, but for the clock.
    ///
    /// # Errors
    ///
    /// As for [`Builder::start`].
    pub fn of(builder: Builder<E>) -> Result<Self, StartError> {
        let (memory, clock) = (MemorySink::new(), ManualClock::new());
        let collector = builder.manual_clock(&clock).sink(memory.clone().named("recording")).start()?;
        Ok(Self { collector, memory, clock })
    }

    /// Returns all events that were collected before this, in order. The call flushes; what cannot be flushed in time
    /// is not among them.
    pub fn events(&self) -> Vec<E> {
        // Of a collector that is stopped, all are there.
        _ = self.collector.flush();
        self.memory.events()
    }

    /// Clears the events so far.
    pub fn clear(&self) {
        self.events();
        self.memory.clear();
    }

    /// Returns the clock.
    pub fn clock(&self) -> &ManualClock {
        &self.clock
    }
}

impl<E: Event> Deref for RecordingCollector<E> {
    type Target = Collector<E>;

    fn deref(&self) -> &Collector<E> {
        &self.collector
    }
}

impl Emitted for RecordingCollector {
    fn emitted(&self) -> Vec<Record> {
        self.events()
    }
}

impl Emitted for MemorySink {
    fn emitted(&self) -> Vec<Record> {
        self.events()
    }
}

/// Action of a [`ScriptedSink`] for a batch.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Act {
    /// Takes it.
    Take,
    /// Fails, so that trying again may help.
    Fail,
    /// Fails for good.
    FailForGood,
    /// Fails for so many of its events.
    FailFor(u64),
    /// Panics.
    Panic,
    /// Waits until the gate is open, then takes it.
    Wait(Gate),
}

/// A sink that does what its script says, batch by batch; then it takes everything. A clone is the same sink, to be looked at.
///
/// ```
/// use forebay::testing::{Act, ScriptedSink};
/// use forebay::{Collector, Record};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let sink = ScriptedSink::new("disk", [Act::Fail, Act::Panic]);
/// let collector = Collector::builder().sink(sink.clone()).start()?;
/// for step in 0..3 {
///     collector.collect(Record::scalar("train.loss", 0.5).with_step(step));
///     collector.flush()?;
/// }
/// assert_eq!((sink.calls(), sink.taken().len()), (3, 1));
/// # Ok(())
/// # }
/// ```
pub struct ScriptedSink<E = Record> {
    name: String,
    shared: Arc<Mutex<Script>>,
    memory: MemorySink<E>,
}

struct Script {
    acts: VecDeque<Act>,
    calls: u64,
}

impl<E> ScriptedSink<E> {
    /// Creates a sink of that name and script.
    pub fn new(name: impl Into<String>, acts: impl IntoIterator<Item = Act>) -> Self {
        let script = Script { acts: acts.into_iter().collect(), calls: 0 };
        Self { name: name.into(), shared: Arc::new(Mutex::new(script)), memory: MemorySink::new() }
    }

    /// Goes on with this script, behind the one that there is.
    pub fn then(&self, acts: impl IntoIterator<Item = Act>) {
        if let Ok(mut script) = self.shared.enter() {
            script.acts.extend(acts);
        }
    }

    /// Returns how many batches the sink was offered. In a forked child, 0: it is its parent's, and takes nothing there.
    pub fn calls(&self) -> u64 {
        self.shared.enter().map_or(0, |script| script.calls)
    }

    /// Returns the events that the sink has taken.
    pub fn taken(&self) -> Vec<E>
    where
        E: Clone,
    {
        self.memory.events()
    }
}

impl<E: Event> Sink<E> for ScriptedSink<E> {
    fn name(&self) -> &str {
        &self.name
    }

    #[allow(clippy::panic, reason = "that is what the script says")]
    fn write_batch(&mut self, batch: &Batch<E>) -> Result<(), SinkError> {
        let act = {
            let mut script = self.shared.enter()?;
            script.calls += 1;
            script.acts.pop_front().unwrap_or(Act::Take)
        };
        match act {
            Act::Take => {}
            Act::Fail => return Err(SinkError::unavailable("by script")),
            Act::FailForGood => return Err(SinkError::write_failed("by script").permanent()),
            Act::FailFor(events) => {
                return Err(SinkError::write_failed("by script").with_failed_events(events));
            }
            Act::Panic => panic!("by script"),
            Act::Wait(gate) => gate.pass(),
        }
        self.memory.write_batch(batch)
    }
}

impl<E> Clone for ScriptedSink<E> {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), shared: Arc::clone(&self.shared), memory: self.memory.clone() }
    }
}

impl<E> fmt::Debug for ScriptedSink<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedSink").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A gate that threads come to, closed at first. A clone is the same gate.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<Passage>, Condvar)>);

#[derive(Default)]
struct Passage {
    is_open: bool,
    arrivals: u64,
}

impl Gate {
    /// Creates a closed gate.
    pub fn closed() -> Self {
        Self::default()
    }

    /// Lets all pass from now on.
    pub fn open(&self) {
        self.0.0.lock().is_open = true;
        self.0.1.notify_all();
    }

    /// Waits until it is open.
    pub fn pass(&self) {
        let mut passage = self.0.0.lock();
        passage.arrivals += 1;
        self.0.1.notify_all();
        while !passage.is_open {
            self.0.1.wait_until(&mut passage, None);
        }
    }

    /// Waits until somebody has come to it so many times, for up to a minute; whether they have.
    #[must_use = "they may not have come"]
    pub fn await_arrivals(&self, arrivals: u64) -> bool {
        let deadline = crate::clock::deadline_in(std::time::Duration::from_secs(60));
        let mut passage = self.0.0.lock();
        while passage.arrivals < arrivals && !self.0.1.wait_until(&mut passage, deadline) {}
        passage.arrivals >= arrivals
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("is_open", &self.0.0.lock().is_open).finish_non_exhaustive()
    }
}
