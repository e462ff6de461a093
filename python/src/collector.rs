//! `Collector`: the collector itself, for Python.

use std::path::PathBuf;
use std::time::Duration;

use forebay::sink::{ConsoleSink, JsonLinesSink, Sink, TensorBoardSink};
use forebay::subscription::{RecvError, Subscription};
use forebay::{Config, Outcome, Pattern, Priority, Record};
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::convert;
use crate::names::Names;
use crate::said::Said;
use crate::value;
use crate::watch::{self, Watcher};

/// Base of ``forebay.Collector``.
#[pyclass(frozen, subclass, weakref, module = "forebay._forebay", name = "CollectorBase")]
pub(crate) struct PyCollector {
    pub(crate) inner: forebay::Collector,
    names: Names,
    said: Said,
}

/// Sink as it comes from Python: its kind, its path, and the size in bytes at which its file is closed.
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
            let builder = forebay::Collector::builder().config(config).on_log(said.hook());
            let sinks = sinks.into_iter().map(sink).collect::<PyResult<Vec<_>>>()?;
            builder.sinks(sinks).start().map_err(|error| PyValueError::new_err(error.to_string()))
        })?;
        Ok(Self { inner, names: Names::new(), said })
    }

    /// Collects an event, and returns what became of it.
    #[pyo3(signature = (name, value, step, priority, walltime))]
    fn _collect(
        &self,
        py: Python<'_>,
        name: &str,
        value: &Bound<'_, PyAny>,
        step: Option<&Bound<'_, PyAny>>,
        priority: &str,
        walltime: Option<f64>,
    ) -> PyResult<&'static str> {
        let priority = match priority {
            "normal" => Priority::Normal,
            "critical" => Priority::Critical,
            "low" => Priority::Low,
            other => {
                let why = format!("priority must be 'critical', 'normal' or 'low', got '{other}'");
                return Err(PyValueError::new_err(why));
            }
        };
        let record =
            Record::with_value(self.names.intern(name), value::value(value)?).with_priority(priority);
        let record = convert::placed(record, convert::step(step)?, walltime);
        Ok(outcome(self.collect(py, record)))
    }

    /// Collects the values of a step, and returns how many were taken.
    #[pyo3(signature = (values, step = None))]
    fn _log(
        &self,
        py: Python<'_>,
        values: &Bound<'_, PyDict>,
        step: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<usize> {
        let step = convert::step(step)?;
        // All of them, or none: a value that is wrong is found first.
        let mut records = Vec::with_capacity(values.len());
        for (name, value) in values {
            let name = self.names.intern(name.cast::<PyString>()?.to_str()?);
            records.push(convert::placed(Record::with_value(name, value::value(&value)?), step, None));
        }
        Ok(records.into_iter().filter(|record| self.collect(py, record.clone()).is_queued()).count())
    }

    /// Delivers everything that was collected before, and returns a report as JSON.
    #[pyo3(signature = (timeout = None))]
    fn _flush(&self, py: Python<'_>, timeout: Option<f64>) -> (Option<String>, Vec<String>) {
        py.detach(|| {
            let flushed = match timeout {
                Some(seconds) => self.inner.flush_timeout(convert::duration(seconds)),
                None => self.inner.flush(),
            };
            let report = flushed.map_err(|error| self.said.push(error.to_string()));
            (report.ok().and_then(|report| serde_json::to_string(&report).ok()), self.said.take())
        })
    }

    /// Stops the collector, and returns its statistics as JSON. Tells the watcher while that takes long.
    #[pyo3(signature = (timeout = None, watcher = None))]
    fn _stop(&self, py: Python<'_>, timeout: Option<f64>, watcher: Option<Watcher>) -> (String, Vec<String>) {
        let pending = self.watched_pending();
        watch::watched(py, watcher, pending, || {
            let stopped = match timeout {
                Some(seconds) => self.inner.stop_timeout(convert::duration(seconds)),
                None => self.inner.stop(),
            };
            if let Err(error) = stopped {
                self.said.push(error.to_string());
            }
            (self.statistics(), self.said.take())
        })
    }

    /// Returns the statistics as JSON.
    fn _stats(&self, py: Python<'_>) -> String {
        py.detach(|| self.statistics())
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
    pub(crate) fn watched_pending(&self) -> impl Fn() -> u64 + Send + 'static {
        let collector = self.inner.clone();
        move || collector.pending()
    }

    fn statistics(&self) -> String {
        serde_json::to_string(&self.inner.stats()).unwrap_or_default()
    }

    /// Collects a record. Where that may wait, it lets other threads of Python run.
    fn collect(&self, py: Python<'_>, record: Record) -> Outcome {
        let config = self.inner.config();
        let may_wait = record.priority() == Priority::Critical
            || matches!(config.overflow, forebay::Overflow::Block { .. })
                && self.inner.pending() + config.capacity as u64 / 8 >= config.capacity as u64;
        match may_wait {
            true => py.detach(|| self.inner.collect(record)),
            false => self.inner.collect(record),
        }
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
fn sink((kind, path, rotate_at): SinkRow) -> PyResult<Box<dyn Sink>> {
    let path = path.unwrap_or_default();
    Ok(match kind.as_str() {
        "json_lines" => {
            let sink = JsonLinesSink::create(path)?;
            Box::new(match rotate_at {
                Some(bytes) => sink.rotate_at(bytes),
                None => sink,
            })
        }
        "tensorboard" => Box::new(TensorBoardSink::create(path)?),
        "console" => Box::new(ConsoleSink::stderr("")),
        other => return Err(PyOSError::new_err(format!("a sink must be known, got {other:?}"))),
    })
}

fn outcome(outcome: Outcome) -> &'static str {
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
/// It ends with its collector. A subscriber that lags loses its own oldest events, and never delays anybody: see ``evicted``.
#[pyclass(frozen, module = "forebay._forebay", name = "Subscription")]
pub(crate) struct PySubscription {
    inner: Subscription<Record>,
}

/// The longest wait without a look at the signals of Python.
const LOOK: Duration = Duration::from_millis(100);

#[pymethods]
impl PySubscription {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<PyRecord>> {
        loop {
            match py.detach(|| self.inner.recv_timeout(LOOK)) {
                Ok(record) => return Ok(Some(PyRecord { record })),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Empty) => py.check_signals()?,
                Err(_) => return Ok(None),
            }
        }
    }

    /// Returns the next event, or ``None`` where none comes in time or the collector is gone.
    ///
    /// Args:
    ///     timeout: Seconds to wait.
    #[pyo3(signature = (timeout = 0.0))]
    fn receive(&self, py: Python<'_>, timeout: f64) -> PyResult<Option<PyRecord>> {
        let mut left = convert::duration(timeout);
        loop {
            let slice = left.min(LOOK);
            match py.detach(|| self.inner.recv_timeout(slice)) {
                Ok(record) => return Ok(Some(PyRecord { record })),
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
        match self.record.priority() {
            Priority::Critical => "critical",
            Priority::Normal => "normal",
            Priority::Low => "low",
        }
    }

    fn __repr__(&self) -> String {
        format!("<Record {}>", self.record)
    }
}
