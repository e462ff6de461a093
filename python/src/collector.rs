//! `Collector`: the collector itself, for Python.

use std::path::PathBuf;

use forebay::collector::StartError;
use forebay::sink::{ConsoleSink, JsonLinesSink, Sink, TensorBoardSink};
use forebay::subscription::{RecvError, Subscription};
use forebay::{Builder, Config, Event, Outcome, Pattern, Priority, Record, Value};
use forebay_sync::sync::{Arc, Ordering, PlainU64};
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::convert;
use crate::names::intern;
use crate::point::Point;
use crate::said::Said;
use crate::value::{self, Given};
use crate::watch::{self, Work};

/// Base of ``forebay.Collector``.
#[pyclass(frozen, subclass, weakref, module = "forebay._forebay", name = "CollectorBase")]
pub(crate) struct PyCollector {
    pub(crate) inner: forebay::Collector<Point>,
    said: Said,
    /// Number of events since the last flush that were larger than the queue. Relaxed: it guards no other data.
    too_large: Arc<PlainU64>,
}

/// An event that owns no more is not looked at closely: the queue has room for it.
const SMALL: usize = 4096;

/// Sink as it comes from Python: its kind, its path, and a number: the size in bytes at which a file of JSON Lines is closed, or the step
/// at which TensorBoard's files go on.
type SinkRow = (String, Option<PathBuf>, Option<u64>);

#[pymethods]
impl PyCollector {
    /// Builds and starts a collector, whose settings are JSON.
    #[new]
    fn new(py: Python<'_>, sinks: Vec<SinkRow>, settings: &str) -> PyResult<Self> {
        let config: Config =
            serde_json::from_str(settings).map_err(|error| PyValueError::new_err(error.to_string()))?;
        let said = Said::default();
        let inner = py.detach(|| {
            let builder = Builder::<Point>::new().config(config).on_log(said.hook());
            let heard = said.clone();
            let builder = builder.enrich(move |point: &mut Point, _| {
                if !point.complete() {
                    heard.leave_out(point.name());
                }
            });
            let sinks = sinks.into_iter().map(sink).collect::<PyResult<Vec<_>>>()?;
            builder.sinks(sinks).start().map_err(|error| match error {
                StartError::Build(error) => PyValueError::new_err(error.to_string()),
                // The system refuses the thread.
                error => PyOSError::new_err(error.to_string()),
            })
        })?;
        Ok(Self { inner, said, too_large: Arc::new(PlainU64::new(0)) })
    }

    /// Collects an event, and returns what became of it: ``"queued"``, ``"full"``, ``"filtered"`` and others.
    ///
    /// Args:
    ///     name: The name, such as ``"train.loss"``.
    ///     value: A number, a text, a truth value, a list, a dictionary, a :class:`forebay.Histogram`, a :class:`forebay.Image`, or a
    ///         tensor: one of one element is a number, a larger one a histogram.
    ///     step: The step.
    ///     priority: A critical event is never evicted, and a low one is the first to go.
    ///     walltime: The moment, in seconds since 1970. Defaults to now.
    #[pyo3(signature = (name, value = None, *, step = None, priority = "normal", walltime = None))]
    fn collect<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        value: Option<&Bound<'py, PyAny>>,
        step: Option<&Bound<'py, PyAny>>,
        priority: &str,
        walltime: Option<f64>,
    ) -> PyResult<Bound<'py, PyString>> {
        let point = self.point(py, name, value, step, priority, walltime)?;
        Ok(match self.offer(py, point) {
            Outcome::Queued => pyo3::intern!(py, "queued").clone(),
            other => PyString::new(py, outcome(other)),
        })
    }

    /// Collects an event as :meth:`collect` does, but never waits: where there is no place, the event is rejected at once.
    ///
    /// Args:
    ///     name: The name.
    ///     value: The value.
    ///     step: The step.
    ///     priority: The priority.
    ///     walltime: The moment, in seconds since 1970. Defaults to now.
    #[pyo3(signature = (name, value = None, *, step = None, priority = "normal", walltime = None))]
    fn try_collect(
        &self,
        py: Python<'_>,
        name: &str,
        value: Option<&Bound<'_, PyAny>>,
        step: Option<&Bound<'_, PyAny>>,
        priority: &str,
        walltime: Option<f64>,
    ) -> PyResult<&'static str> {
        let point = self.point(py, name, value, step, priority, walltime)?;
        let large = self.too_large(&point);
        Ok(match self.inner.try_collect(point) {
            Ok(taken) => outcome(taken),
            Err(refused) => outcome(self.note(refused.reason.into(), large)),
        })
    }

    /// Collects the values of a step, each under its name, and returns how many were taken.
    ///
    /// Args:
    ///     values: Values by name: see :meth:`collect`.
    ///     step: The step.
    #[pyo3(signature = (values, step = None))]
    fn log(
        &self,
        py: Python<'_>,
        values: &Bound<'_, PyAny>,
        step: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<usize> {
        self.log_at(py, values, convert::step(step)?)
    }

    /// Delivers everything that was collected before, and returns a report as JSON; none where an event was too large, which nobody
    /// delivers.
    #[pyo3(signature = (timeout = None))]
    fn _flush(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<(Option<String>, Vec<String>)> {
        let (collector, said) = (self.inner.clone(), self.said.clone());
        let has_all = self.too_large.swap(0, Ordering::Relaxed) == 0;
        watch::interruptible(py, move || {
            let flushed = match timeout {
                Some(seconds) => collector.flush_timeout(convert::duration(seconds)),
                None => collector.flush(),
            };
            let report = flushed.map_err(|error| said.push(error.to_string()));
            let report = report.ok().filter(|_| has_all);
            (report.and_then(|report| serde_json::to_string(&report).ok()), said.take())
        })
    }

    /// Stops the collector. The result is its statistics as JSON, and what there is to say.
    #[pyo3(signature = (timeout = None))]
    fn _stop(&self, py: Python<'_>, timeout: Option<f64>) -> Work {
        let (collector, said) = (self.inner.clone(), self.said.clone());
        Work::begin(py, self.watched_pending(), move || {
            let stopped = match timeout {
                Some(seconds) => collector.stop_timeout(convert::duration(seconds)),
                None => collector.stop(),
            };
            let statistics = statistics(&collector);
            match stopped {
                Ok(_) => end_subscriptions(&collector),
                Err(error) => said.push(error.to_string()),
            }
            (statistics, said.take())
        })
    }

    /// Returns the statistics as JSON.
    fn _stats(&self, py: Python<'_>) -> String {
        py.detach(|| statistics(&self.inner))
    }

    /// Returns the account of all events as a line, and one for each sink.
    fn _account(&self) -> String {
        self.inner.stats().to_string()
    }

    /// Returns the health as JSON.
    fn _health(&self, py: Python<'_>) -> String {
        py.detach(|| serde_json::to_string(&self.inner.health()).unwrap_or_default())
    }

    /// Returns the most seconds that a flush and a stop take by default.
    #[getter]
    fn _timeouts(&self) -> (f64, f64) {
        let config = self.inner.config();
        (config.flush_timeout.as_secs_f64(), config.stop_timeout.as_secs_f64())
    }

    /// Subscribes to events whose names a pattern stands for.
    #[pyo3(signature = (pattern, capacity))]
    fn _subscribe(&self, py: Python<'_>, pattern: &str, capacity: usize) -> PyResult<PySubscription> {
        let pattern = Pattern::new(pattern).map_err(|error| PyValueError::new_err(error.to_string()))?;
        let subscribed = py.detach(|| self.inner.subscribe_with(pattern, capacity));
        let inner = subscribed.map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        // A stop that came before has not ended this one.
        if !self.inner.is_running() {
            py.detach(|| end_subscriptions(&self.inner));
        }
        Ok(PySubscription { inner })
    }

    /// Whether a worker is there to deliver what is collected.
    #[getter]
    fn is_running(&self) -> bool {
        self.inner.is_running()
    }

    /// The number of events that are queued or with the worker.
    #[getter]
    fn pending(&self) -> u64 {
        self.inner.pending()
    }

    /// The id that every batch carries.
    #[getter]
    fn session_id(&self) -> &str {
        self.inner.session_id()
    }
}

impl PyCollector {
    /// Returns what tells the number of pending events, from any thread.
    pub(crate) fn watched_pending(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let collector = self.inner.clone();
        move || collector.pending()
    }

    /// Collects the values of a step.
    pub(crate) fn log_at(
        &self,
        py: Python<'_>,
        values: &Bound<'_, PyAny>,
        step: Option<i64>,
    ) -> PyResult<usize> {
        let values = convert::items(values)?;
        // All of them, or none: a value that is wrong is found first.
        let mut points = Vec::with_capacity(values.len());
        for (name, value) in values {
            let Ok(name) = name.cast::<PyString>() else {
                return Err(PyTypeError::new_err(format!("names must be str, got {}", name.repr()?)));
            };
            let given = value::given(&value)?.fitting(py, || self.max_owned(Priority::Normal));
            let point = given.point(intern(name.to_str()?));
            points.push(point.map(|record| convert::placed(record, step, None)));
        }
        Ok(points.into_iter().map(|point| usize::from(self.offer(py, point).is_queued())).sum())
    }

    /// Collects a point. Where that waits for space, other threads of Python run meanwhile.
    #[inline]
    fn offer(&self, py: Python<'_>, point: Point) -> Outcome {
        let large = self.too_large(&point);
        let outcome = match self.inner.collect_unless_full(point) {
            Ok(outcome) => outcome,
            Err(full) => py.detach(|| full.wait()),
        };
        self.note(outcome, large)
    }

    /// Returns the event of these arguments.
    #[inline]
    fn point(
        &self,
        py: Python<'_>,
        name: &str,
        value: Option<&Bound<'_, PyAny>>,
        step: Option<&Bound<'_, PyAny>>,
        priority: &str,
        walltime: Option<f64>,
    ) -> PyResult<Point> {
        let priority = priority_of(priority)?;
        let value = value.map_or(Ok(Given::Value(Value::Empty)), value::given)?;
        let value = value.fitting(py, || self.max_owned(priority));
        let step = convert::step(step)?;
        let place = |record: Record| convert::placed(record.with_priority(priority), step, walltime);
        Ok(value.point(intern(name)).map(place))
    }

    /// Returns the most bytes that an event of this priority may own: of those of the queue, one in eight is for critical events alone.
    fn max_owned(&self, priority: Priority) -> usize {
        let max = self.inner.config().max_bytes.unwrap_or(usize::MAX);
        if priority == Priority::Critical { max } else { max - max / 8 }
    }

    /// Returns the name of an event that the queue never has room for, its bytes, and the most that it may have.
    #[inline]
    fn too_large(&self, point: &Point) -> Option<(String, usize, usize)> {
        let bytes = Event::size_hint(point) - size_of::<Point>();
        if bytes <= SMALL { None } else { self.larger_than_queue(point, bytes) }
    }

    #[cold]
    fn larger_than_queue(&self, point: &Point, bytes: usize) -> Option<(String, usize, usize)> {
        let max = self.max_owned(Event::priority(point));
        (bytes > max && !point.is_too_deep()).then(|| (point.name().to_owned(), bytes, max))
    }

    /// Counts an event that was refused because it is too large, and says the first since the last flush.
    #[inline]
    fn note(&self, outcome: Outcome, large: Option<(String, usize, usize)>) -> Outcome {
        if outcome == Outcome::Oversize
            && let Some((name, bytes, max)) = large
            && self.too_large.fetch_add(1, Ordering::Relaxed) == 0
        {
            self.said.refuse(&name, bytes, max);
        }
        outcome
    }
}

/// Returns the statistics of a collector as JSON.
fn statistics(collector: &forebay::Collector<Point>) -> String {
    serde_json::to_string(&collector.stats()).unwrap_or_default()
}

/// Ends the subscriptions of a collector that has stopped: from Python, none starts again. What they have can be received still.
fn end_subscriptions(collector: &forebay::Collector<Point>) {
    // Other sinks from Python have other names.
    for name in collector.sinks().iter().filter(|name| name.starts_with("subscription-")) {
        // Where it is gone meanwhile, it has ended.
        let _ = collector.remove_sink(name);
    }
}

impl Drop for PyCollector {
    /// Ends the collector, which waits for its worker, detached.
    fn drop(&mut self) {
        // The drop of the last handle does the same, and would hold the GIL.
        let timeout = self.inner.config().drop_timeout;
        Python::try_attach(|py| py.detach(|| drop(self.inner.stop_timeout(timeout))));
    }
}

/// Makes the sink that Python asks for.
fn sink((kind, path, number): SinkRow) -> PyResult<Box<dyn Sink<Point>>> {
    let path = path.unwrap_or_default();
    Ok(match kind.as_str() {
        "json_lines" => {
            let sink = JsonLinesSink::create(path)?.records_in::<Point>();
            Box::new(match number {
                Some(bytes) => sink.rotate_at(bytes),
                None => sink,
            })
        }
        "tensorboard" => Box::new(match number {
            Some(step) => TensorBoardSink::resume(path, step)?,
            None => TensorBoardSink::create(path)?,
        }),
        "console" => Box::new(ConsoleSink::stderr("")),
        other => return Err(PyOSError::new_err(format!("a sink must be known, got {other:?}"))),
    })
}

/// Returns the priority of that name.
pub(crate) fn priority_of(name: &str) -> PyResult<Priority> {
    match name {
        "normal" => Ok(Priority::Normal),
        "critical" => Ok(Priority::Critical),
        "low" => Ok(Priority::Low),
        other => {
            let why = format!("priority must be 'critical', 'normal' or 'low', got '{other}'");
            Err(PyValueError::new_err(why))
        }
    }
}

/// Returns the name of a priority.
pub(crate) fn priority_name(priority: Priority) -> &'static str {
    match priority {
        Priority::Critical => "critical",
        Priority::Normal => "normal",
        Priority::Low => "low",
    }
}

/// Returns the name of an outcome.
pub(crate) fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Queued => "queued",
        Outcome::QueuedEvicting => "queued_evicting",
        Outcome::QueuedAfterWait => "queued_after_wait",
        Outcome::Full => "full",
        Outcome::Filtered => "filtered",
        Outcome::SampledOut => "sampled_out",
        Outcome::RateLimited => "rate_limited",
        Outcome::Oversize => "oversize",
        Outcome::Stopped => "stopped",
        Outcome::WorkerGone => "worker_gone",
        Outcome::Forked => "forked",
        _ => "rejected",
    }
}

/// Subscription: an iterator of the events that match, as they come.
///
/// It ends when its collector or its run has stopped, and what was delivered before is received. A subscriber that lags loses its own
/// oldest events, and never delays anybody: see ``evicted``.
#[pyclass(frozen, module = "forebay._forebay", name = "Subscription")]
pub(crate) struct PySubscription {
    inner: Subscription<Point>,
}

#[pymethods]
impl PySubscription {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<PyRecord>> {
        // A handler of a signal runs on the main thread alone: no other has to look for one.
        let mut looks = true;
        loop {
            let receive = || match looks {
                true => self.inner.recv_timeout(watch::SIGNALS),
                false => self.inner.recv(),
            };
            match py.detach(receive) {
                Ok(point) => return Ok(Some(PyRecord { record: point.into_record() })),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Empty) => {
                    py.check_signals()?;
                    looks = watch::is_main_thread(py)?;
                }
                Err(_) => return Ok(None),
            }
        }
    }

    /// Returns the next event, or ``None`` where none comes in time or the collector has stopped.
    ///
    /// Args:
    ///     timeout: Seconds to wait.
    #[pyo3(signature = (timeout = 0.0))]
    fn receive(&self, py: Python<'_>, timeout: f64) -> PyResult<Option<PyRecord>> {
        let mut left = convert::duration(timeout);
        loop {
            let slice = left.min(watch::SIGNALS);
            match py.detach(|| self.inner.recv_timeout(slice)) {
                Ok(point) => return Ok(Some(PyRecord { record: point.into_record() })),
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Empty) => py.check_signals()?,
                Err(_) => return Ok(None),
            }
            left -= slice;
            if left.is_zero() {
                return Ok(None);
            }
        }
    }

    /// The number of events that were evicted here, because the subscriber lagged.
    #[getter]
    fn evicted(&self) -> u64 {
        self.inner.evicted()
    }

    fn __len__(&self) -> usize {
        self.inner.len()
    }

    fn __repr__(&self) -> String {
        format!("<Subscription with {} events, {} evicted>", self.inner.len(), self.inner.evicted())
    }
}

/// Event as a subscriber or a reader gets it.
#[pyclass(frozen, module = "forebay", name = "Record")]
pub(crate) struct PyRecord {
    pub(crate) record: Record,
}

#[pymethods]
impl PyRecord {
    /// The name.
    #[getter]
    fn name(&self) -> &str {
        self.record.name()
    }

    /// The value: a number, a text, a truth value, a list, a dictionary, or ``None``.
    #[getter]
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        value::object(py, self.record.value())
    }

    /// The step, or ``None``.
    #[getter]
    fn step(&self) -> Option<i64> {
        self.record.signed_step()
    }

    /// The moment, in seconds since 1970.
    #[getter]
    fn walltime(&self) -> f64 {
        self.record.unix_nanos() as f64 / 1e9
    }

    /// The priority: ``"critical"``, ``"normal"`` or ``"low"``.
    #[getter]
    fn priority(&self) -> &'static str {
        priority_name(self.record.priority())
    }

    fn __repr__(&self) -> String {
        format!("<Record {}>", self.record)
    }
}
