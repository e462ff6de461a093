//! Builder of a bus.

use std::fmt;
use std::io;
use std::path::Path;

use forebay::collector::StartError;
use forebay::parts::{Inside, Slot, new_uuid};
use forebay::sink::{JsonLinesSink, Sink};
use forebay::{Builder, Collector, ManualClock};
use forebay_history::{History, JsonLinesHistory, Recent};
use forebay_sync::clock::Clock;
use forebay_sync::sync;
use forebay_sync::sync::{Arc, Unparker};
use uuid::Uuid;

use super::config::{BusConfig, Mode, OnWorkerFailure};
use super::dispatch::{DISPATCHER, Dispatcher};
use super::engine::Engine;
use super::envelope::Envelope;
use super::handle::Bus;
use super::inline_sinks::InlineSinks;
use super::scheduler::Scheduler;
use super::shared::Shared;
use super::stop::{DeferredStop, Owner};

/// Builder of a bus: settings, sinks, then [`start`](Self::start).
#[must_use = "a builder does nothing until `start`"]
pub struct BusBuilder {
    config: BusConfig,
    sinks: Vec<Box<dyn Sink<Envelope>>>,
    journal: Option<JsonLinesSink>,
    clock: Option<ManualClock>,
}

/// The size at which a file of the journal is closed. 100 MiB.
const JOURNAL_BYTES: u64 = 100 << 20;

/// Number of recent events that can be asked for without a journal.
const RECENT: usize = 1_000;

impl Bus {
    /// Starts a bus with the default settings.
    ///
    /// # Errors
    ///
    /// As for [`BusBuilder::start`].
    pub fn new() -> Result<Self, StartError> {
        Self::builder().start()
    }

    /// Begins a bus with the default settings and no sinks.
    pub fn builder() -> BusBuilder {
        BusBuilder::new()
    }
}

impl BusBuilder {
    pub(super) fn new() -> Self {
        Self { config: BusConfig::default(), sinks: Vec::new(), journal: None, clock: None }
    }

    /// Replaces all settings.
    pub fn config(mut self, config: BusConfig) -> Self {
        self.config = config;
        self
    }

    /// Lets the thread that emits call the handlers: [`Mode::Inline`].
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
    pub fn sink(mut self, sink: impl Sink<Envelope> + 'static) -> Self {
        self.sinks.push(Box::new(sink));
        self
    }

    /// Writes all events to a file of JSON Lines, which is closed at 100 MiB and numbered; [`query`](Bus::query) reads
    /// all of them. Without a journal, [`query`](Bus::query) finds the last 1,000 events. An existing file is
    /// continued.
    ///
    /// # Errors
    ///
    /// The file cannot be opened.
    pub fn journal(self, path: impl AsRef<Path>) -> io::Result<Self> {
        self.journal_with(path, JOURNAL_BYTES)
    }

    /// Writes a [`journal`](Self::journal) whose files are closed at another size, in bytes.
    ///
    /// # Errors
    ///
    /// As for [`journal`](Self::journal).
    pub fn journal_with(mut self, path: impl AsRef<Path>, max_bytes: u64) -> io::Result<Self> {
        self.journal = Some(JsonLinesSink::create(path)?.named("journal").rotate_at(max_bytes));
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
        let mut collector = Builder::<Envelope>::new().config(engine.config.collector.clone());
        if let Some(clock) = &clock {
            collector = collector.manual_clock(clock);
        }
        collector = collector.sinks(sinks);
        if engine.config.mode == Mode::Pooled {
            collector = collector.sink(Dispatcher::new(Arc::clone(&engine)));
        }
        let collector = collector.build()?;
        let deferred_stop = Arc::new(DeferredStop::default());
        let engine = match engine.config.mode {
            Mode::Inline => engine,
            Mode::Pooled => match start_threads(&engine, &collector, &deferred_stop) {
                Ok(()) => engine,
                Err(error) => fall_back(&engine, &collector, error)?,
            },
        };
        let slots = match engine.config.mode {
            Mode::Inline => Inside::of(&collector).take_slots(),
            Mode::Pooled => spare.map_or_else(Vec::new, |recent| spare_slots(&collector, recent)),
        };
        let sinks = InlineSinks::new(slots, engine.address(), &collector);
        let session = session_of(&collector);
        let shared = Arc::new(Shared::new(collector, Arc::clone(&engine), history, sinks, session));
        let own = Arc::downgrade(&shared);
        let emit_own = move |record, depth| {
            if let Some(shared) = own.upgrade() {
                shared.emit_own_at(record, depth);
            }
        };
        let _ = engine.emitter.set(Box::new(emit_own));
        Ok(Bus { _owner: Arc::new(Owner { shared: Arc::clone(&shared), deferred_stop }), shared })
    }
}

/// Returns the session of the collector, unless it is set by the user: many runs may share that one.
fn session_of(collector: &Collector<Envelope>) -> Uuid {
    let is_own = collector.config().session_id.is_none();
    let own = is_own.then(|| collector.session_id().parse().ok()).flatten();
    own.unwrap_or_else(new_uuid)
}

fn start_threads(
    engine: &Arc<Engine>,
    collector: &Collector<Envelope>,
    deferred_stop: &Arc<DeferredStop>,
) -> Result<(), StartError> {
    let (parker, unparker) = sync::Parker::new();
    register_scheduler(engine, &unparker);
    let scheduler = Scheduler::new(Arc::clone(engine), Arc::clone(deferred_stop), parker);
    engine.pool.set_scheduler(true);
    let thread = sync::spawn("forebay-bus", None, move || scheduler.run());
    let thread = thread.inspect_err(|_| engine.pool.set_scheduler(false)).map_err(StartError::Thread)?;
    // The scheduler ends by itself, and nobody joins it: it may be the thread that stops the bus.
    drop(thread);
    engine.start_workers().map_err(StartError::Thread)?;
    collector.start()
}

/// Ends the threads that were started, and goes on without any, if the settings say so.
fn fall_back(
    before: &Arc<Engine>,
    collector: &Collector<Envelope>,
    error: StartError,
) -> Result<Arc<Engine>, StartError> {
    before.close();
    let StartError::Thread(_) = error else { return Err(error) };
    if before.config.on_worker_failure == OnWorkerFailure::Refuse {
        return Err(error);
    }
    // The dispatcher gives events to the engine that is closed.
    let _ = collector.remove_sink(DISPATCHER);
    let config = BusConfig { mode: Mode::Inline, ..before.config.clone() };
    let engine = Arc::new(Engine::new(config, before.clock.clone()));
    let _ = engine.failure.set(error.to_string());
    Ok(engine)
}

/// Returns the sinks that remain if the worker of the collector ends, and its sinks with it.
fn spare_slots(collector: &Collector<Envelope>, recent: Recent<RECENT>) -> Vec<Slot<Envelope>> {
    let name = Sink::<Envelope>::name(&recent).to_owned();
    let tally = Inside::of(collector).tally_of(&name);
    tally.map(|tally| Slot::new(Box::new(recent), tally)).into_iter().collect()
}

/// Lets the scheduler wake up when a retry is added, and when a manual clock is moved.
fn register_scheduler(engine: &Engine, unparker: &Unparker) {
    engine.clock.register(unparker);
    let _ = engine.retries.scheduler.set(unparker.clone());
}

impl fmt::Debug for BusBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BusBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}
