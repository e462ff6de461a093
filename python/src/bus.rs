//! `BusCore`: what `forebay.bus.EventBus` is built on.
//!
//! A [`Bus`] of Rust has the events: its rings, its journal, its queries and its account. Its one worker puts each event into the
//! [queues](queues) of the handlers that it is for, and never waits for Python. Threads of Python take the events out, and call.

mod data;
mod queues;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use forebay::sink::RetryPolicy;
use forebay::{Event, Pattern, Priority, Record, Value};
use forebay_bus::watch::{self, Watcher};
use forebay_bus::{Bus, BusConfig, Delivery, EmitError, EventId, Handler, SubscribeError, Topics};
use forebay_history::EventQuery;
use forebay_sync::sync::{Arc, Home, Mutex, Ordering, PlainU64};
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::names::intern;
use crate::watch::{SIGNALS, interruptible};
use crate::{collector, convert, value};
use queues::{Caller, Counts, Emission, Fate, Item, Limits, Notice, Pending, Queues, Tracked};

/// Bytes that the events may own which wait for one handler.
const QUEUE_BYTES: usize = 50 << 20;

/// A bus, and the queues of its handlers in Python.
#[pyclass(frozen, module = "forebay._forebay")]
pub(crate) struct BusCore {
    bus: Bus,
    queues: Arc<Queues>,
    home: Home,
    max_depth: u32,
    /// Number of events that were given to the bus of Rust.
    emitted: PlainU64,
    /// Number of events that a filter did not let in.
    filtered: PlainU64,
    /// Number of events to which too many others led.
    too_deep: PlainU64,
    /// Number of events that were emitted in a forked child.
    forked: PlainU64,
}

#[pymethods]
impl BusCore {
    #[new]
    #[pyo3(signature = (*, buffer_size, max_subscribers, journal, max_file_bytes, handler_queue, max_event_bytes, dead_letters, max_depth))]
    #[allow(clippy::too_many_arguments, reason = "the settings of a bus")]
    fn new(
        py: Python<'_>,
        buffer_size: usize,
        max_subscribers: usize,
        journal: Option<PathBuf>,
        max_file_bytes: u64,
        handler_queue: usize,
        max_event_bytes: usize,
        dead_letters: usize,
        max_depth: u32,
    ) -> PyResult<Self> {
        let mut config = BusConfig::default().with_workers(1).with_max_subscribers(max_subscribers);
        config.collector.capacity = buffer_size;
        config.collector.gate = config.collector.gate.with_max_event_bytes(Some(max_event_bytes));
        config.retry = RetryPolicy::list([]);
        let limits = Limits { events: handler_queue.max(1), bytes: QUEUE_BYTES, dead_letters };
        let bus = py.detach(|| {
            let builder = Bus::builder().config(config);
            let builder = match journal {
                Some(path) => builder.journal_with(path, max_file_bytes)?,
                None => builder,
            };
            builder.start().map_err(|error| match error {
                forebay::collector::StartError::Build(error) => PyValueError::new_err(error.to_string()),
                error => PyOSError::new_err(error.to_string()),
            })
        })?;
        Ok(Self {
            bus,
            queues: Queues::new(limits),
            home: Home::here(),
            max_depth,
            emitted: PlainU64::new(0),
            filtered: PlainU64::new(0),
            too_deep: PlainU64::new(0),
            forked: PlainU64::new(0),
        })
    }

    /// Emits an event: queues it and returns.
    #[pyo3(signature = (name, data, priority, correlation_id, source, metadata, depth, unawaited_loop))]
    #[allow(clippy::too_many_arguments, reason = "the parts of an event")]
    fn emit(
        &self,
        py: Python<'_>,
        name: &str,
        data: Option<&Bound<'_, PyAny>>,
        priority: &str,
        correlation_id: Option<&str>,
        source: Option<&str>,
        metadata: Option<&Bound<'_, PyAny>>,
        depth: u32,
        unawaited_loop: u64,
    ) -> PyResult<BusEmission> {
        let priority = collector::priority_of(priority)?;
        let fields = data::fields("data", data)?;
        if self.home.is_left() {
            self.forked.fetch_add(1, Ordering::Relaxed);
            return Ok(BusEmission::refused("forked"));
        }
        if depth > self.max_depth {
            self.too_deep.fetch_add(1, Ordering::Relaxed);
            return Ok(BusEmission::refused("too_deep"));
        }
        let mut record = Record::fields(intern(name), fields).with_priority(priority);
        if correlation_id.is_some() || source.is_some() || metadata.is_some_and(|it| !it.is_none()) {
            let metadata = data::fields("metadata", metadata)?;
            let extra = record.extra_mut();
            extra.correlation_id = correlation_id.map(Into::into);
            extra.source = source.map(Into::into);
            extra.metadata = metadata;
        }
        let emission = Emission::new(&self.queues, unawaited_loop);
        let pending = Arc::new(Pending(Arc::clone(&emission)));
        let tracked = Tracked { emission: Arc::clone(&emission), pending, depth };
        self.emitted.fetch_add(1, Ordering::Relaxed);
        let receipt = match priority {
            // Waits for a moment where its lane is full.
            Priority::Critical => py.detach(|| self.bus.emit_record_along(record, tracked)),
            _ => self.bus.emit_record_along(record, tracked),
        };
        match receipt {
            Ok(receipt) => {
                let is_queued = receipt.outcome.is_queued();
                let outcome = if is_queued { "queued" } else { collector::outcome(receipt.outcome) };
                Ok(BusEmission { outcome, id: is_queued.then_some(receipt.id), emission: Some(emission) })
            }
            Err(error @ EmitError::Config(_)) => Err(PyValueError::new_err(error.to_string())),
            Err(_) => Ok(BusEmission::refused("too_deep")),
        }
    }

    /// Counts an event that a filter did not let in.
    fn refuse(&self, outcome: &str) -> BusEmission {
        match outcome {
            "filtered" if !self.home.is_left() => {
                self.filtered.fetch_add(1, Ordering::Relaxed);
                BusEmission::refused("filtered")
            }
            _ => {
                self.forked.fetch_add(1, Ordering::Relaxed);
                BusEmission::refused("forked")
            }
        }
    }

    /// Fails in a forked child.
    fn check(&self) -> PyResult<()> {
        match self.home.is_left() {
            true => Err(PyRuntimeError::new_err(SubscribeError::Forked.to_string())),
            false => Ok(()),
        }
    }

    /// Returns whether an event of that name would be taken.
    fn enabled(&self, name: &str) -> bool {
        self.bus.enabled(name)
    }

    /// Makes the queue of a handler, and returns its number. Its calls are made by threads, or by the event loop of a number that is not 0.
    fn add(&self, name: String, event_loop: u64, batch: usize) -> PyResult<u64> {
        self.check()?;
        let caller = if event_loop == 0 { Caller::Thread } else { Caller::Loop(event_loop) };
        let closed = || PyRuntimeError::new_err(SubscribeError::Stopped.to_string());
        self.queues.add(name, caller, batch).ok_or_else(closed)
    }

    /// Fills the queue of a handler from now on. The queue is gone where that fails.
    fn subscribe(&self, py: Python<'_>, key: u64, patterns: Vec<String>, name: String) -> PyResult<()> {
        let topics = self::patterns(patterns).inspect_err(|_| {
            self.queues.remove(key);
        })?;
        let queues = Arc::clone(&self.queues);
        let push = move |event: &Delivery| _ = queues.push(key, event, event.as_type::<Tracked>());
        // In the order of delivery: one worker, one call at a time.
        let handler = Handler::new(topics, push).named(name).max_concurrent(1);
        match py.detach(|| self.bus.subscribe(handler)) {
            Ok(subscription) => {
                self.queues.set_id(key, subscription.keep());
                Ok(())
            }
            Err(error) => {
                self.queues.remove(key);
                Err(refused(error))
            }
        }
    }

    /// Unsubscribes a handler: what waits for it is cancelled. Returns whether it was there.
    fn unsubscribe(&self, py: Python<'_>, key: u64) -> bool {
        py.detach(|| {
            let Some(id) = self.queues.remove(key) else { return false };
            id.is_none_or(|id| self.bus.unsubscribe(id))
        })
    }

    /// Watches for errors: see `forebay_bus::watch`, as for the others.
    fn watch_errors(&self, py: Python<'_>, threshold: u64) -> PyResult<BusWatcher> {
        BusWatcher::begin(py, || watch::error_budget(&self.bus, threshold))
    }

    /// Watches a number of events.
    fn watch_field(
        &self,
        py: Python<'_>,
        topics: Vec<String>,
        field: String,
        threshold: f64,
    ) -> PyResult<BusWatcher> {
        let topics = patterns(topics)?;
        BusWatcher::begin(py, || watch::threshold(&self.bus, topics, field, threshold))
    }

    /// Watches the rates of events.
    fn watch_rates(&self, py: Python<'_>, every: f64, last: usize) -> PyResult<BusWatcher> {
        BusWatcher::begin(py, || watch::aggregate(&self.bus, convert::duration(every), last))
    }

    /// Watches the memory.
    fn watch_memory(&self, py: Python<'_>, every: f64) -> PyResult<BusWatcher> {
        BusWatcher::begin(py, || watch::memory(&self.bus, convert::duration(every)))
    }

    /// Watches a disk.
    fn watch_disk(&self, py: Python<'_>, every: f64, path: PathBuf) -> PyResult<BusWatcher> {
        BusWatcher::begin(py, || watch::disk(&self.bus, convert::duration(every), path))
    }

    /// Watches for slow handlers.
    fn watch_bottlenecks(&self, py: Python<'_>, every: f64) -> PyResult<BusWatcher> {
        BusWatcher::begin(py, || watch::bottlenecks(&self.bus, convert::duration(every)))
    }

    /// Returns what the threads need that make the calls.
    fn calls(&self) -> BusCalls {
        BusCalls { queues: Arc::clone(&self.queues), home: self.home }
    }

    /// Returns the events that a query asks for. Flushes before, for `timeout` seconds at most.
    #[allow(clippy::too_many_arguments, reason = "the conditions of a query")]
    #[pyo3(signature = (name, since, before, contains, correlation_id, source, limit, newest_first, timeout))]
    fn query<'py>(
        &self,
        py: Python<'py>,
        name: Option<String>,
        since: Option<u64>,
        before: Option<u64>,
        contains: Option<&Bound<'_, PyAny>>,
        correlation_id: Option<String>,
        source: Option<String>,
        limit: Option<usize>,
        newest_first: bool,
        timeout: f64,
    ) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        self.check()?;
        let mut query = EventQuery::new();
        if let Some(name) = name {
            query = query.name(Pattern::new(name).map_err(|error| PyValueError::new_err(error.to_string()))?);
        }
        if let Some(since) = since {
            query = query.since(time(since));
        }
        if let Some(before) = before {
            query = query.before(time(before));
        }
        for (name, value) in data::fields("data", contains)?.iter() {
            query = query.contains(name.clone(), value.clone());
        }
        if let Some(id) = correlation_id {
            query = query.correlation(id);
        }
        if let Some(source) = source {
            query = query.source(source);
        }
        if let Some(limit) = limit {
            query = query.limit(limit);
        }
        if newest_first {
            query = query.newest_first();
        }
        let (bus, timeout) = (self.bus.clone(), convert::duration(timeout));
        let found = interruptible(py, move || {
            // What it cannot flush in time is not found. The account tells of sinks that fail.
            let _ = bus.flush_timeout(timeout);
            bus.query(&query)
        })?;
        let found = found.map_err(|error| PyOSError::new_err(format!("{error}: {}", error.source)))?;
        found.iter().map(|record| event(py, record)).collect()
    }

    /// Waits until all handlers are done with what was emitted before, but for those of one loop. Returns whether they are.
    fn flush(&self, py: Python<'_>, timeout: f64, unawaited_loop: u64) -> PyResult<bool> {
        self.check()?;
        let deadline = Instant::now() + convert::duration(timeout);
        // Every round covers one more link of each chain of events.
        for _ in 0..=self.max_depth {
            let before = self.emitted.load(Ordering::Relaxed);
            let is_flushed = self.flush_bus(py, deadline)?;
            let last = self.queues.last_number();
            if !wait(py, deadline, |timeout| self.queues.wait(last, unawaited_loop, timeout))? {
                return Ok(false);
            }
            if !is_flushed || self.emitted.load(Ordering::Relaxed) == before {
                return Ok(is_flushed);
            }
        }
        Ok(true)
    }

    /// Refuses what comes, waits until the handlers are done, and ends the threads that wait for calls. Returns whether all were done.
    fn stop(&self, py: Python<'_>, timeout: f64, unawaited_loop: u64) -> PyResult<bool> {
        if self.home.is_left() {
            return Ok(false);
        }
        let deadline = Instant::now() + convert::duration(timeout);
        let bus = self.bus.clone();
        let stopped = interruptible(py, move || bus.stop_timeout(left(deadline)).is_ok());
        let done = stopped.and_then(|is_stopped| {
            let last = self.queues.last_number();
            let is_done = wait(py, deadline, |timeout| self.queues.wait(last, unawaited_loop, timeout))?;
            Ok(is_stopped && is_done)
        });
        // Also where the handler of a signal has raised: the threads would wait for calls for ever.
        py.detach(|| self.queues.close());
        done
    }

    /// Returns numbers about the whole, then a list of what is known of each handler, then of those that are gone.
    fn metrics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let metrics = self.bus.metrics();
        let stats = self.bus.stats();
        let (handlers, gone) = self.queues.counts();
        let [mean, p50, p95, p99] = self.queues.times();
        let mut letters = 0;
        let evicted_letters = self.queues.with_dead_letters(|_| letters += 1);
        let dict = PyDict::new(py);
        let of = |number: &PlainU64| number.load(Ordering::Relaxed);
        let counts = BTreeMap::from([
            ("emitted", of(&self.emitted) + of(&self.filtered) + of(&self.too_deep) + of(&self.forked)),
            ("total_events", metrics.total_events),
            ("pending", metrics.queue.len),
            ("pending_bytes", metrics.queue.memory_bytes),
            ("evicted", stats.events.evicted),
            ("oversize", stats.events.oversize),
            ("rejected", stats.events.rejected.total() + stats.stopped),
            ("filtered", of(&self.filtered)),
            ("too_deep", of(&self.too_deep) + stats.too_deep),
            ("forked", of(&self.forked)),
            ("misnamed", stats.misnamed),
            ("dead_letters", letters),
            ("evicted_dead_letters", evicted_letters),
        ]);
        for (name, count) in counts {
            dict.set_item(name, count)?;
        }
        dict.set_item("events_per_second", metrics.events_per_second)?;
        dict.set_item("avg_processing_time_ms", mean)?;
        dict.set_item("p50_processing_time_ms", p50)?;
        dict.set_item("p95_processing_time_ms", p95)?;
        dict.set_item("p99_processing_time_ms", p99)?;
        let handlers: Vec<_> = handlers
            .iter()
            .map(|(key, name, counts)| counts_of(py, *key, name, counts))
            .collect::<PyResult<_>>()?;
        dict.set_item("handlers", handlers)?;
        dict.set_item("gone", counts_of(py, 0, "", &gone)?)?;
        Ok(dict)
    }

    /// Checks that the fates of all events add up. Exact when nothing is on its way. Returns what does not hold.
    fn check_law(&self) -> Option<String> {
        if let Err(broken) = self.bus.stats().check_law(self.emitted.load(Ordering::Relaxed)) {
            return Some(broken);
        }
        let (handlers, gone) = self.queues.counts();
        let named = handlers.into_iter().map(|(_, name, counts)| (name, counts));
        named.chain([("handlers that are gone".to_owned(), gone)]).find_map(|(name, it)| {
            let fates = it.handled + it.failed + it.evicted + it.cancelled + it.in_flight;
            let text = || {
                format!(
                    "{name}: {} matched, but {} handled + {} failed + {} evicted + {} cancelled + {} in flight",
                    it.matched, it.handled, it.failed, it.evicted, it.cancelled, it.in_flight
                )
            };
            (it.matched != fates).then(text)
        })
    }

    /// Returns the events that handlers did not take: each the handler, the error, the time and the event.
    fn dead_letters<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        let mut letters = Vec::new();
        // No object of Python is made under the lock.
        let copy = |it: &queues::DeadLetter| {
            letters.push((it.handler.clone(), it.error.clone(), nanos(it.time), it.record.clone()));
        };
        self.queues.with_dead_letters(copy);
        let tuple = |(handler, error, time, record): &(String, String, u64, Record)| {
            (handler, error, *time, event(py, record)?).into_pyobject(py)
        };
        letters.iter().map(tuple).collect()
    }

    /// Offers all dead letters again to their handlers. Returns how many are offered.
    fn redrive(&self, py: Python<'_>) -> usize {
        py.detach(|| self.queues.redrive())
    }

    /// Forgets all dead letters.
    fn clear_dead_letters(&self, py: Python<'_>) -> usize {
        py.detach(|| self.queues.take_dead_letters().len())
    }
}

impl BusCore {
    /// Has the bus of Rust give to the queues what was emitted before. Returns whether it has in time.
    fn flush_bus(&self, py: Python<'_>, deadline: Instant) -> PyResult<bool> {
        // Most flushes are done at once, and need no thread of their own.
        if py.detach(|| self.bus.flush_timeout(left(deadline).min(SIGNALS)).is_ok()) {
            return Ok(true);
        }
        py.check_signals()?;
        let bus = self.bus.clone();
        interruptible(py, move || bus.flush_timeout(left(deadline)).is_ok())
    }
}

impl Drop for BusCore {
    /// Ends the threads that wait for calls. The bus is stopped by its own drop, detached.
    fn drop(&mut self) {
        self.queues.close();
        let bus = self.bus.clone();
        let stop = || {
            // By the deadline of a drop. Nobody is left who could read the result.
            let timeout = bus.collector().config().drop_timeout;
            let _ = bus.stop_timeout(timeout);
        };
        // While the interpreter ends, there is nobody to let run.
        if Python::try_attach(|py| py.detach(stop)).is_none() {
            stop();
        }
    }
}

fn patterns(patterns: Vec<String>) -> PyResult<Topics> {
    let patterns = patterns.into_iter().map(Pattern::new).collect::<Result<Vec<_>, _>>();
    patterns.map(Topics::from).map_err(|error| PyValueError::new_err(error.to_string()))
}

fn refused(error: SubscribeError) -> PyErr {
    match error {
        SubscribeError::Config(error) => PyValueError::new_err(error.to_string()),
        error => PyRuntimeError::new_err(error.to_string()),
    }
}

/// Returns whether `done` says so before the deadline. Calls it detached, and looks for signals between two calls.
fn wait(py: Python<'_>, deadline: Instant, done: impl Fn(Duration) -> bool + Sync) -> PyResult<bool> {
    loop {
        let timeout = left(deadline).min(SIGNALS);
        if py.detach(|| done(timeout)) {
            return Ok(true);
        }
        if left(deadline).is_zero() {
            return Ok(false);
        }
        py.check_signals()?;
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

fn time(nanos: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanos)
}

fn nanos(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

fn counts_of<'py>(py: Python<'py>, key: u64, name: &str, counts: &Counts) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("key", key)?;
    dict.set_item("name", name)?;
    dict.set_item("matched", counts.matched)?;
    dict.set_item("handled", counts.handled)?;
    dict.set_item("failed", counts.failed)?;
    dict.set_item("evicted", counts.evicted)?;
    dict.set_item("cancelled", counts.cancelled)?;
    dict.set_item("in_flight", counts.in_flight)?;
    dict.set_item("last_error", counts.last_error.as_deref())?;
    Ok(dict)
}

/// Returns the parts of an event, in the order of the fields of `forebay.bus.Event`; the moment in nanoseconds since 1970.
fn event<'py>(py: Python<'py>, record: &Record) -> PyResult<Bound<'py, PyTuple>> {
    let extra = record.extra();
    let data = match record.value() {
        Value::Empty => PyDict::new(py),
        Value::Fields(fields) => value::dict(py, fields)?,
        // Of another program.
        other => {
            let dict = PyDict::new(py);
            dict.set_item("value", value::object(py, other)?)?;
            dict
        }
    };
    let metadata = match extra {
        Some(extra) => value::dict(py, &extra.metadata)?,
        None => PyDict::new(py),
    };
    (
        Event::name(record),
        data,
        record.unix_nanos(),
        extra.and_then(|extra| extra.source.as_deref()).unwrap_or_default(),
        extra.and_then(|extra| extra.correlation_id.as_deref()),
        metadata,
        collector::priority_name(Event::priority(record)),
        record.event_id().map(|id| id.to_string()),
    )
        .into_pyobject(py)
}

/// What became of an event that was emitted.
#[pyclass(frozen, module = "forebay._forebay")]
pub(crate) struct BusEmission {
    /// What became of it.
    #[pyo3(get)]
    outcome: &'static str,
    id: Option<EventId>,
    /// `None` if it was refused.
    emission: Option<Arc<Emission>>,
}

impl BusEmission {
    fn refused(outcome: &'static str) -> Self {
        Self { outcome, id: None, emission: None }
    }
}

#[pymethods]
impl BusEmission {
    /// Returns whether its handlers are done.
    #[getter]
    fn done(&self) -> bool {
        self.emission.as_ref().is_none_or(|it| it.is_over())
    }

    /// Returns the id of the event, or `None` if it was not taken.
    #[getter]
    fn id(&self) -> Option<String> {
        self.id.map(|id| id.to_string())
    }

    /// Returns the numbers of handlers that took it, failed, lost it, and were not called after all.
    #[getter]
    fn counts(&self) -> (u64, u64, u64, u64) {
        let of = |number: &PlainU64| number.load(Ordering::Relaxed);
        self.emission
            .as_ref()
            .map_or((0, 0, 0, 0), |it| (of(&it.handled), of(&it.failed), of(&it.evicted), of(&it.cancelled)))
    }

    /// Waits until its handlers are done. Returns whether they are.
    fn wait(&self, py: Python<'_>, timeout: f64) -> PyResult<bool> {
        let Some(emission) = &self.emission else { return Ok(true) };
        let deadline = Instant::now() + convert::duration(timeout);
        wait(py, deadline, |timeout| emission.wait(timeout))
    }

    /// Has the number be a notice once its handlers are done. Returns `False` if they are.
    fn watch(&self, token: u64) -> bool {
        self.emission.as_ref().is_some_and(|it| it.watch(token))
    }
}

/// A watcher of the bus of Rust.
#[pyclass(frozen, module = "forebay._forebay")]
pub(crate) struct BusWatcher(Mutex<Option<Watcher>>);

impl BusWatcher {
    fn begin(
        py: Python<'_>,
        watch: impl FnOnce() -> Result<Watcher, SubscribeError> + Send,
    ) -> PyResult<Self> {
        py.detach(watch).map(|watcher| Self(Mutex::new(Some(watcher)))).map_err(refused)
    }
}

#[pymethods]
impl BusWatcher {
    /// Ends it.
    fn close(&self, py: Python<'_>) {
        py.detach(|| drop(self.0.enter().ok().and_then(|mut watcher| watcher.take())));
    }
}

/// What the threads hold that make calls: not the bus, which ends without them.
#[pyclass(frozen, module = "forebay._forebay")]
pub(crate) struct BusCalls {
    queues: Arc<Queues>,
    home: Home,
}

#[pymethods]
impl BusCalls {
    /// Waits for the next call of a thread. Returns `None` at the end.
    fn next_call(&self, py: Python<'_>) -> Option<BusCall> {
        if self.home.is_left() {
            return None;
        }
        let (key, items) = py.detach(|| self.queues.next_call())?;
        Some(BusCall::begin(key, items, &self.queues))
    }

    /// Waits for the next notice: a call of an event loop, or the number of an emission that is over. Returns `None` at the end.
    fn next_notice<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        if self.home.is_left() {
            return Ok(None);
        }
        Ok(match py.detach(|| self.queues.next_notice()) {
            Some(Notice::Call(key, items)) => {
                Some(BusCall::begin(key, items, &self.queues).into_pyobject(py)?.into_any())
            }
            Some(Notice::Over(token)) => Some(token.into_pyobject(py)?.into_any()),
            None => None,
        })
    }
}

/// A call that is to be made. Without an end, it is cancelled when it is dropped.
#[pyclass(frozen, module = "forebay._forebay")]
pub(crate) struct BusCall {
    /// Number of its handler.
    #[pyo3(get)]
    key: u64,
    items: Mutex<Vec<Item>>,
    begun: Instant,
    queues: Arc<Queues>,
}

impl BusCall {
    fn begin(key: u64, items: Vec<Item>, queues: &Arc<Queues>) -> Self {
        Self { key, items: Mutex::new(items), begun: Instant::now(), queues: Arc::clone(queues) }
    }

    fn finish(&self, fate: Fate, error: Option<String>, takes_next: bool) -> Option<Self> {
        let items = self.items.enter().map(|mut items| std::mem::take(&mut *items)).ok()?;
        if items.is_empty() {
            return None;
        }
        let next = self.queues.end(self.key, items, fate, error, self.begun.elapsed(), takes_next)?;
        Some(Self::begin(self.key, next, &self.queues))
    }
}

#[pymethods]
impl BusCall {
    /// Returns the events of the call.
    fn events<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        // No object of Python is made under the lock.
        let items = self.items.enter().map_or_else(
            |_| Vec::new(),
            |items| items.iter().map(|item| item.record.clone()).collect::<Vec<_>>(),
        );
        items.iter().map(|record| event(py, record)).collect()
    }

    /// Returns how many events led to what the handler emits.
    #[getter]
    fn depth(&self) -> u32 {
        self.items.enter().map_or(0, |items| items.iter().map(|item| item.depth).max().unwrap_or(0) + 1)
    }

    /// Ends it: the handler took the events; or did not, and the error says why. Returns the next call of its loop, where that takes it.
    #[pyo3(signature = (error = None, takes_next = false))]
    fn end(&self, py: Python<'_>, error: Option<String>, takes_next: bool) -> Option<Self> {
        let fate = if error.is_some() { Fate::Failed } else { Fate::Handled };
        py.detach(|| self.finish(fate, error, takes_next))
    }

    /// Ends it without a call.
    fn cancel(&self, py: Python<'_>) {
        py.detach(|| drop(self.finish(Fate::Cancelled, None, false)));
    }
}

impl Drop for BusCall {
    fn drop(&mut self) {
        self.finish(Fate::Cancelled, None, false);
    }
}

/// Returns whether a pattern stands for a name.
#[pyfunction]
pub(crate) fn matches(pattern: &str, name: &str) -> PyResult<bool> {
    let pattern = Pattern::new(pattern).map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok(pattern.matches(name))
}
