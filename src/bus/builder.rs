//! How a bus is put together.

use std::fmt;
use std::io;
use std::path::Path;

use arc_swap::ArcSwap;

use super::dispatch::{Desk, Dispatcher};
use super::engine::Engine;
use super::foreman::{Estate, Foreman};
use super::sinks::InlineSinks;
use super::{Bus, BusConfig, Counts, Mode, Owner, RECENT, Shared};
use crate::builder::Builder;
use crate::clock::{Clock, ManualClock};
use crate::error::StartError;
use crate::event::Record;
use crate::history::{History, JsonLinesHistory, Recent};
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
    /// `recent`); or no thread could be created.
    pub fn start(self) -> Result<Bus, StartError> {
        let Self { config, mut sinks, journal, clock } = self;
        config.validate()?;
        let history: Box<dyn History + Send + Sync> = match journal {
            Some(sink) => {
                let path = sink.path().to_owned();
                sinks.insert(0, Box::new(sink));
                Box::new(JsonLinesHistory::new(path))
            }
            None => {
                let recent = Recent::<RECENT>::new();
                sinks.insert(0, Box::new(recent.clone()));
                Box::new(recent)
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
        let slots = match engine.config.mode {
            Mode::Pooled => Vec::new(),
            Mode::Inline => collector.shared.control.take_slots(),
        };
        let estate = Arc::new(Estate::default());
        let shared = Arc::new(Shared {
            collector,
            engine: Arc::clone(&engine),
            filters: ArcSwap::default(),
            changes: Mutex::default(),
            history,
            sinks: InlineSinks::new(slots, engine.place()),
            counts: Counts::default(),
            next_event: PlainU64::new(1),
        });
        let _ = engine.voice.set(Arc::downgrade(&shared));
        if engine.config.mode == Mode::Pooled
            && let Err(error) = start_threads(&shared, &estate)
        {
            engine.close();
            engine.timers.ring();
            return Err(error);
        }
        Ok(Bus { _owner: Arc::new(Owner { shared: Arc::clone(&shared), estate }), shared })
    }
}

fn start_threads(shared: &Arc<Shared>, estate: &Arc<Estate>) -> Result<(), StartError> {
    let engine = &shared.engine;
    let (parker, bell) = sync::Parker::new();
    tell(engine, &bell);
    let foreman = Foreman::new(Arc::clone(engine), Arc::clone(estate), parker);
    let thread = sync::spawn("forebay-bus", None, move || foreman.run()).map_err(StartError::Thread)?;
    // It ends by itself, and is not waited for: it may be the one that stops the bus.
    drop(thread);
    engine.fill().map_err(StartError::Thread)?;
    shared.collector.start()
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
