//! `Builder`: how a collector is put together.

use std::fmt;
use std::time::Duration;

use crate::batch::{Batcher, Enrich};
use crate::clock::{self, Clock, ManualClock};
use crate::collector::{BuildError, Collector, StartError};
use crate::config::{Config, FlushStrategy, GateConfig, HealthConfig, Lanes, Overflow};
use crate::dispatch::{NotRegistered, Prepared, Slot};
use crate::event::{Event, Record};
use crate::gate::Gate;
use crate::lanes;
use crate::mailbox::Mailbox;
use crate::origin::{CurrentRun, Origin};
use crate::self_log::{Hook, LogEntry, SelfLog};
use crate::settings::Settings;
use crate::shared::Shared;
use crate::sink::Sink;
use crate::stats::{Registry, Tally};
use crate::sync::{Arc, PlainMutex, PlainU64, catch_panic};
use crate::unix;
use crate::wake::{Phase, SpaceWaiters};
use crate::worker_state::WorkerState;

/// Builder of a collector: settings, sinks, then [`start`](Self::start).
///
/// Every setting is a field of [`Config`], which documents its default and its limits.
///
/// ```
/// use std::time::Duration;
/// use forebay::{Collector, FlushStrategy, Overflow, sink::MemorySink};
///
/// # fn main() -> Result<(), forebay::collector::StartError> {
/// let collector = Collector::builder()
///     .capacity(16_384)
///     .overflow(Overflow::DropOldest)
///     .flush(FlushStrategy::Hybrid { events: 512, interval: Duration::from_secs(1) })
///     .sink(MemorySink::new())
///     .start()?;
/// assert!(collector.is_running());
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing until `start` or `build`"]
pub struct Builder<E: Event = Record> {
    config: Config,
    sinks: Vec<Box<dyn Sink<E>>>,
    clock: Clock,
    is_ordered: bool,
    enrich: Option<Box<Enrich<E>>>,
    on_log: Option<Box<Hook>>,
}

impl<E: Event> Builder<E> {
    /// Creates a builder with the default settings and no sinks.
    pub fn new() -> Self {
        Self {
            config: Config::default(),
            sinks: Vec::new(),
            clock: Clock::System,
            is_ordered: false,
            enrich: None,
            on_log: None,
        }
    }

    /// Replaces all settings.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Sets [`Config::capacity`].
    pub fn capacity(mut self, events: usize) -> Self {
        self.config.capacity = events;
        self
    }

    /// Sets [`Config::critical_capacity`].
    pub fn critical_capacity(mut self, events: usize) -> Self {
        self.config.critical_capacity = events;
        self
    }

    /// Sets [`Config::low_capacity`].
    pub fn low_capacity(mut self, events: usize) -> Self {
        self.config.low_capacity = events;
        self
    }

    /// Sets [`Config::lanes`].
    pub fn lanes(mut self, lanes: Lanes) -> Self {
        self.config.lanes = lanes;
        self
    }

    /// Merges the events of threads by the time when they were [made](Event::made_at), where threads have lanes of their own
    /// ([`Lanes::PerThread`]). Without it, they come in runs of up to 64 of one thread. Events of one thread keep their order, whatever
    /// their times.
    ///
    /// The order is exact for all that was collected before the worker began to take events. One that is collected meanwhile may come
    /// behind later ones of other threads, as may one of a thread that stopped between making and collecting it. An event without a time
    /// comes as soon as those of its thread before it have come. Critical and low events, and those of threads without a lane, are not
    /// merged. It costs the worker about what taking the events does, and `collect` nothing.
    ///
    /// ```
    /// use forebay::config::Lanes;
    /// use forebay::{Collector, Record, sink::MemorySink};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let memory = MemorySink::new();
    /// let builder = Collector::builder().lanes(Lanes::PerThread { max: 0 }).ordered_by_time();
    /// let collector = builder.sink(memory.clone()).build()?;
    /// let (left, right) = (collector.local(), collector.local());
    /// for step in 0..100 {
    ///     left.collect(Record::new("left").with_step(step));
    ///     right.collect(Record::new("right").with_step(step));
    /// }
    /// collector.start()?;
    /// collector.stop()?;
    /// assert!(memory.events().is_sorted_by_key(|record| record.unix_nanos()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn ordered_by_time(mut self) -> Self {
        self.is_ordered = true;
        self
    }

    /// Sets [`Config::shards`].
    pub fn shards(mut self, rings: usize) -> Self {
        self.config.shards = rings;
        self
    }

    /// Sets [`Config::max_bytes`].
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.config.max_bytes = Some(bytes);
        self
    }

    /// Sets [`Config::batch_size`].
    pub fn batch_size(mut self, events: usize) -> Self {
        self.config.batch_size = Some(events);
        self
    }

    /// Sets [`Config::overflow`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.config.overflow = overflow;
        self
    }

    /// Sets [`Config::gate`].
    pub fn gate(mut self, gate: GateConfig) -> Self {
        self.config.gate = gate;
        self
    }

    /// Sets [`Config::health`].
    pub fn health(mut self, health: HealthConfig) -> Self {
        self.config.health = health;
        self
    }

    /// Sets [`Config::flush`].
    pub fn flush(mut self, strategy: FlushStrategy) -> Self {
        self.config.flush = strategy;
        self
    }

    /// Sets [`Config::max_nap`].
    pub fn max_nap(mut self, nap: Duration) -> Self {
        self.config.max_nap = nap;
        self
    }

    /// Sets [`Config::critical_timeout`].
    pub fn critical_timeout(mut self, timeout: Duration) -> Self {
        self.config.critical_timeout = timeout;
        self
    }

    /// Sets [`Config::flush_timeout`].
    pub fn flush_timeout(mut self, timeout: Duration) -> Self {
        self.config.flush_timeout = timeout;
        self
    }

    /// Sets [`Config::stop_timeout`].
    pub fn stop_timeout(mut self, timeout: Duration) -> Self {
        self.config.stop_timeout = timeout;
        self
    }

    /// Sets [`Config::drop_timeout`].
    pub fn drop_timeout(mut self, timeout: Duration) -> Self {
        self.config.drop_timeout = timeout;
        self
    }

    /// Sets [`Config::session_id`].
    pub fn session_id(mut self, id: impl Into<String>) -> Self {
        self.config.session_id = Some(id.into());
        self
    }

    /// Sets [`Config::source`].
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.config.source = Some(source.into());
        self
    }

    /// Sets [`Config::host`].
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.config.host = Some(host.into());
        self
    }

    /// Sets [`Config::rank`].
    pub fn rank(mut self, rank: u64) -> Self {
        self.config.rank = Some(rank);
        self
    }

    /// Sets a closure that completes every event on the worker thread, before any sink sees it. It is for work that
    /// should not cost the loop time, such as looking up what a number stands for. What is the same for all events of
    /// the collector is in [`Batch::origin`](crate::Batch::origin) and need not be written into each.
    ///
    /// A panic is caught and counted ([`Stats::enrich_panics`](crate::Stats::enrich_panics)), and the event continues
    /// as it is. A child that is forked in the closure ends when this returns, as for a [`Sink`](crate::sink::Sink).
    /// A second call replaces the closure.
    ///
    /// ```
    /// use forebay::{Collector, Record, sink::MemorySink};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let memory = MemorySink::new();
    /// let collector = Collector::builder()
    ///     .source("trainer")
    ///     .enrich(|record: &mut Record, origin| {
    ///         let extra = record.extra_mut();
    ///         extra.session_id.get_or_insert_with(|| origin.session_id.as_str().into());
    ///     })
    ///     .sink(memory.clone())
    ///     .start()?;
    /// collector.collect(Record::scalar("train.loss", 0.5));
    /// collector.stop()?;
    /// let session = memory.events()[0].extra().and_then(|extra| extra.session_id.clone());
    /// assert_eq!(session.as_deref(), Some(collector.session_id()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn enrich(mut self, enrich: impl FnMut(&mut E, &Origin) + Send + 'static) -> Self {
        self.enrich = Some(Box::new(enrich));
        self
    }

    /// Sets a hook for messages of forebay about itself: sinks that fail, breakers that open, events that are lost.
    /// Nothing is printed anywhere else.
    ///
    /// The worker calls it, and so do the threads of isolated sinks and callers of
    /// [`health`](crate::Collector::health). Where no worker runs, callers that add or remove a sink, or stop, call
    /// it too. `collect` never does. So it may be slow like a sink. On the worker's threads, it must not call `flush`
    /// or `stop`: they fail. A hook that holds a handle keeps the collector from being dropped.
    ///
    /// Each topic and each sink passes one entry a second; [`LogEntry::held_back`] counts those between. Entries that
    /// would come while the hook runs, on its own thread, are held back too. A hook may collect into the same
    /// collector. If the events that it collects lead to entries, the same limit applies. A panic of the hook is
    /// caught.
    ///
    /// ```
    /// use forebay::sink::{SinkError, from_fn};
    /// use forebay::{Batch, Collector, Record, log::LogEntry};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (said, heard) = std::sync::mpsc::channel();
    /// let collector = Collector::builder()
    ///     .on_log(move |entry: &LogEntry| _ = said.send(entry.to_string()))
    ///     .sink(from_fn("disk", |_: &Batch| Err(SinkError::unavailable("no such device"))))
    ///     .start()?;
    /// collector.collect(Record::scalar("train.loss", 0.5));
    /// collector.stop()?;
    /// assert_eq!(heard.recv()?, "error: disk: sink unavailable: no such device");
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_log(mut self, hook: impl Fn(&LogEntry) + Send + Sync + 'static) -> Self {
        self.on_log = Some(Box::new(hook));
        self
    }

    /// Sets [`Config::thread_name`].
    pub fn thread_name(mut self, name: impl Into<String>) -> Self {
        self.config.thread_name = name.into();
        self
    }

    /// Sets [`Config::thread_stack_size`].
    pub fn thread_stack_size(mut self, bytes: usize) -> Self {
        self.config.thread_stack_size = Some(bytes);
        self
    }

    /// Adds a sink. Every sink gets every batch, in the order in which they were added.
    pub fn sink(mut self, sink: impl Sink<E> + 'static) -> Self {
        self.sinks.push(Box::new(sink));
        self
    }

    /// Adds several sinks.
    pub fn sinks(mut self, sinks: impl IntoIterator<Item = Box<dyn Sink<E>>>) -> Self {
        self.sinks.extend(sinks);
        self
    }

    /// Measures the intervals of the flush strategy by a clock that is moved by hand, for tests.
    pub fn manual_clock(mut self, clock: &ManualClock) -> Self {
        self.clock = Clock::Manual(clock.clone());
        self
    }

    /// Builds the collector without starting it: events are queued, and delivered once [`Collector::start`] is
    /// called.
    ///
    /// # Errors
    ///
    /// A setting is not allowed, a lane does not fit into memory, or two sinks have the same name. In a child that a
    /// sink forks here, [`BuildError::Forked`].
    pub fn build(self) -> Result<Collector<E>, BuildError> {
        let Self { config, sinks, clock, is_ordered, enrich, on_log } = self;
        config.validate()?;
        let log = Arc::new(SelfLog::new(on_log, clock.clone()));
        let lanes = lanes::Lanes::new(&config, is_ordered)?;
        let registry = Registry::new(Arc::clone(&log));
        let slots = register_all(sinks, &registry)?;
        clock::calibrate();
        let (session_id, source) = (config.session_id.clone(), config.source.clone());
        let origin = Arc::new(Origin::new(session_id, source, config.host.clone(), config.rank));
        let (phase, parker, unparker) = Phase::new();
        clock.register(&unparker);
        let phase = Arc::new(phase);
        let fork_watch = unix::watch_forks(&phase);
        let gate = Gate::new(&config.gate, clock.clone());
        let run = CurrentRun::default();
        let batcher = Batcher::new(Arc::clone(&origin), run.clone());
        let shared = Shared {
            phase,
            lanes,
            tally: Tally::new(&clock, log),
            space_waiters: SpaceWaiters::new(),
            mailbox: Mailbox::new(WorkerState::new(slots, batcher, parker, enrich)),
            registry,
            alerts: PlainMutex::default(),
            origin,
            run,
            clock,
            settings: Settings::new(config, gate),
            is_disowned: PlainU64::new(0),
            _fork_watch: fork_watch,
        };
        Ok(Collector::from_shared(Arc::new(shared)))
    }

    /// Builds the collector and starts its worker.
    ///
    /// # Errors
    ///
    /// As for [`build`](Self::build), or no thread could be created.
    pub fn start(self) -> Result<Collector<E>, StartError> {
        let collector = self.build()?;
        collector.start()?;
        Ok(collector)
    }
}

// Not generic, so that `Collector::builder()` needs no annotation. With `collect(impl Into<E>)`, nothing else would
// tell the compiler that events are records.
impl Collector {
    /// Creates a builder of a collector of [`Record`]s, with the default settings and no sinks.
    ///
    /// For events of another type, begin with [`Builder::new`]: `Builder::<MyEvent>::new()`.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Builds and starts a collector of [`Record`]s without sinks; add them with
    /// [`add_sink`](Self::add_sink).
    ///
    /// # Errors
    ///
    /// A setting is not allowed, a lane does not fit into memory, or no thread could be created.
    pub fn new(config: Config) -> Result<Self, StartError> {
        Builder::new().config(config).start()
    }
}

/// Registers the sinks of a builder.
fn register_all<E: Event>(
    sinks: Vec<Box<dyn Sink<E>>>,
    registry: &Registry,
) -> Result<Vec<Slot<E>>, BuildError> {
    let mut slots = Vec::with_capacity(sinks.len());
    let mut sinks = sinks.into_iter();
    for sink in &mut sinks {
        match Prepared::new(sink).register(registry) {
            Ok(slot) => slots.push(slot),
            Err(NotRegistered::Forked) => {
                std::mem::forget(sinks);
                return Err(BuildError::Forked);
            }
            Err(NotRegistered::Taken(name)) => {
                // Destructors of sinks are user code.
                slots.into_iter().for_each(|slot| drop(slot.end()));
                sinks.for_each(|sink| _ = catch_panic(|| drop(sink)));
                return Err(BuildError::DuplicateSink { name });
            }
        }
    }
    Ok(slots)
}

impl<E: Event> Default for Builder<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E: Event> fmt::Debug for Builder<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("config", &self.config)
            .field("sinks", &self.sinks.iter().map(|sink| sink.name()).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
