//! How a bus is put together.

use std::fmt;
use std::io;
use std::path::Path;

use arc_swap::ArcSwap;
use uuid::Uuid;

use super::dispatch::{DISPATCHER, Desk, Dispatcher};
use super::ending::Owner;
use super::engine::Engine;
use super::foreman::{Estate, Foreman};
use super::sinks::InlineSinks;
use super::{Bus, BusConfig, Counts, Mode, OnWorkerFailure, RECENT, Shared};
use crate::builder::Builder;
use crate::clock::{Clock, ManualClock};
use crate::collector::{Collector, StartError};
use crate::dispatch::Slot;
use crate::event::Record;
use crate::history::{History, JsonLinesHistory, Recent};
use crate::origin::new_uuid;
use crate::sink::{JsonLinesSink, Sink};
use crate::sync::{self, Arc, Mutex, PlainU64, Unparker};

/// Puts a bus together: settings, sinks, then [`start`](Self::start).
#[must_use = "a builder does nothing until `start`"]
pub struct BusBuilder {
    config: BusConfig,
    sinks: Vec<Box<dyn Sink<Record>>>,
    journal: Option<JsonLinesSink>,
    clock: Option<ManualClock>,
}

/// 100 MiB.
const JOURNAL_BYTES: u64 = 100 << 20;

impl BusBuilder {
    pub(super) fn new() -> Self {
        Self { config: BusConfig::default(), sinks: Vec::new(), journal: None, clock: None }
    }

    /// Replaces all settings.
    pub fn config(mut self, config: BusConfig) -> Self {
        self.config = config;
        self
    }

    /// Has whoever emits call the handlers: [`Mode::Inline`].
    pub fn inline(mut self) -> Self {
        self.config.mode = Mode::Inline;
        self
    }

    /// Sets [`BusConfig::on_worker_failure`].
    pub fn on_worker_failure(mut self, what: OnWorkerFailure) -> Self {
        self.config.on_worker_failure = what;
        self
    }

    /// Sets [`BusConfig::workers`].
    pub fn workers(mut self, workers: usize) -> Self {
        self.config.workers = workers;
        self
    }

    /// Adds a sink, which gets every event before its handlers do.
    pub fn sink(mut self, sink: impl Sink<Record> + 'static) -> Self {
        self.sinks.push(Box::new(sink));
        self
    }

    /// Writes all events to a file of JSON Lines, which is closed at 100 MiB and numbered; [`query`](Bus::query) reads all of
    /// them. Without, the last 1,000 events can be asked for. A file that is there is gone on with.
    ///
    /// # Errors
    ///
    /// The file cannot be opened.
    pub fn journal(self, path: impl AsRef<Path>) -> io::Result<Self> {
        self.journal_with(path, JOURNAL_BYTES)
    }

    /// The same with another size, in bytes.
    ///
    /// # Errors
    ///
    /// As for [`journal`](Self::journal).
    pub fn journal_with(mut self, path: impl AsRef<Path>, most_bytes: u64) -> io::Result<Self> {
        self.journal = Some(JsonLinesSink::create(path)?.named("journal").rotate_at(most_bytes));
        Ok(self)
    }

    /// Lets retries, deadlines and scaling go by a clock that is moved by hand, for tests.
    pub fn manual_clock(mut self, clock: &ManualClock) -> Self {
        self.clock = Some(clock.clone());
        self
    }

    /// Builds the bus and starts its threads, if it has any.
    ///
    /// # Errors
    ///
    /// A setting is not allowed; two sinks have one name (`bus` is taken, and so is `journal` or
    /// `recent`); or no thread could be created, and the bus is not to be inline for that
    /// ([`BusConfig::on_worker_failure`]).
    pub fn start(self) -> Result<Bus, StartError> {
        let Self { config, mut sinks, journal, clock } = self;
        config.validate()?;
        let (history, spare): (Box<dyn History + Send + Sync>, _) = match journal {
            Some(sink) => {
                let path = sink.path().to_owned();
                sinks.insert(0, Box::new(sink));
                (Box::new(JsonLinesHistory::new(path)), None)
            }
            None => {
                let recent = Recent::<RECENT>::new();
                sinks.insert(0, Box::new(recent.clone()));
                (Box::new(recent.clone()), Some(recent))
            }
        };
        let engine_clock = clock.as_ref().map_or(Clock::System, |clock| Clock::Manual(clock.clone()));
        let engine = Arc::new(Engine::new(config, engine_clock));
        let mut collector = Builder::new().config(engine.config.collector.clone());
        if let Some(clock) = &clock {
            collector = collector.manual_clock(clock);
        }
        collector = collector.sinks(sinks);
        if engine.config.mode == Mode::Pooled {
            collector = collector.sink(Dispatcher { engine: Arc::clone(&engine), desk: Desk::default() });
        }
        let collector = collector.build()?;
        let estate = Arc::new(Estate::default());
        let engine = match engine.config.mode {
            Mode::Inline => engine,
            Mode::Pooled => match start_threads(&engine, &collector, &estate) {
                Ok(()) => engine,
                Err(error) => fall_back(&engine, &collector, error)?,
            },
        };
        let slots = match engine.config.mode {
            Mode::Inline => collector.shared.mailbox.take_slots(),
            Mode::Pooled => spare.map_or_else(Vec::new, |recent| spare_slots(&collector, recent)),
        };
        let sinks = InlineSinks::new(slots, engine.place(), &collector);
        let session = session_of(&collector);
        let shared = Arc::new(Shared {
            collector,
            engine: Arc::clone(&engine),
            filters: ArcSwap::default(),
            changes: Mutex::default(),
            history,
            sinks,
            counts: Counts::default(),
            session,
            next_event: PlainU64::new(1),
        });
        let _ = engine.voice.set(Arc::downgrade(&shared));
        Ok(Bus { _owner: Arc::new(Owner { shared: Arc::clone(&shared), estate }), shared })
    }
}

/// That of the collector, where nobody else has it: one that is set may be that of many runs.
fn session_of(collector: &Collector) -> Uuid {
    let is_own = collector.config().session_id.is_none();
    let own = is_own.then(|| collector.session_id().parse().ok()).flatten();
    own.unwrap_or_else(new_uuid)
}

fn start_threads(
    engine: &Arc<Engine>,
    collector: &Collector,
    estate: &Arc<Estate>,
) -> Result<(), StartError> {
    let (parker, bell) = sync::Parker::new();
    tell(engine, &bell);
    let foreman = Foreman::new(Arc::clone(engine), Arc::clone(estate), parker);
    let thread = sync::spawn("forebay-bus", None, move || foreman.run()).map_err(StartError::Thread)?;
    // It ends by itself, and is not waited for: it may be the one that stops the bus.
    drop(thread);
    engine.fill().map_err(StartError::Thread)?;
    collector.start()
}

/// Sends the threads home that were started, and goes on without any, if that is wanted.
fn fall_back(
    before: &Arc<Engine>,
    collector: &Collector,
    error: StartError,
) -> Result<Arc<Engine>, StartError> {
    before.close();
    let StartError::Thread(_) = error else { return Err(error) };
    if before.config.on_worker_failure == OnWorkerFailure::Refuse {
        return Err(error);
    }
    // It gives events to those who are gone.
    let _ = collector.remove_sink(DISPATCHER);
    let config = BusConfig { mode: Mode::Inline, ..before.config.clone() };
    let engine = Arc::new(Engine::new(config, before.clock.clone()));
    let _ = engine.failure.set(error.to_string());
    Ok(engine)
}

/// Those that are left should the worker end, and the sinks with it.
fn spare_slots(collector: &Collector, recent: Recent<RECENT>) -> Vec<Slot<Record>> {
    let name = Sink::<Record>::name(&recent).to_owned();
    let tallies = collector.shared.registry.all();
    let tally = tallies.into_iter().find(|tally| tally.name == name);
    tally.map(|tally| Slot::new(Box::new(recent), tally)).into_iter().collect()
}

/// The bell of the foreman rings when a retry is to be watched, and when a clock is moved.
fn tell(engine: &Engine, bell: &Unparker) {
    engine.clock.tell(bell);
    let _ = engine.timers.bell.set(bell.clone());
}

impl fmt::Debug for BusBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BusBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}
