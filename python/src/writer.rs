//! `Writer`: what `forebay.SummaryWriter` is built on.

use std::path::PathBuf;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use forebay::sink::TensorBoardSink;
use forebay::{Builder, Collector, FlushStrategy, Outcome, Overflow, Record};
use forebay_sync::sync::{Arc, Home, Mutex, OnceLock, Ordering, PlainU64};
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};

use crate::convert;
use crate::names::Names;
use crate::point::Point;

/// Slots of the ring, in events. A loop that logs 20 scalars a millisecond fills them in a second and a half.
const CAPACITY: usize = 32_768;

/// Number of free slots below which a call lets other threads of Python run, because it may have to wait.
const MARGIN: u64 = 2_048;

/// Bytes that queued events may own: histograms, images, texts.
const MAX_BYTES: usize = 256 << 20;

/// The longest wait for space of one call.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Base of `forebay.SummaryWriter`: a collector with a TensorBoard sink, which is opened again when it is used after a close.
#[pyclass(frozen, subclass, module = "forebay._forebay")]
pub(crate) struct Writer {
    /// Set by `_setup`, once.
    settings: OnceLock<Settings>,
    /// `None` while the writer is closed.
    core: ArcSwapOption<Core>,
    /// Held while it is opened.
    opening: Mutex<()>,
    /// Number of calls that added nothing, because the writer is a copy.
    ignored: PlainU64,
}

struct Settings {
    folder: PathBuf,
    /// Time between deliveries while little happens.
    interval: Duration,
    #[allow(dead_code, reason = "the sink learns of it next")]
    filename_suffix: String,
    /// Whether a forked child, or a copy, writes into a folder of its own. Otherwise it writes nothing, and what it adds is counted.
    reopens_in_child: bool,
    /// Whether it was unpickled: the original is in another process.
    is_copy: bool,
}

/// What an open writer has.
struct Core {
    collector: Collector<Point>,
    names: Names,
    /// The process that opened it.
    home: Home,
}

#[pymethods]
impl Writer {
    /// Takes any arguments: classes that are derived from it have their own, and pass them to `_setup`.
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self {
            settings: OnceLock::new(),
            core: ArcSwapOption::empty(),
            opening: Mutex::new(()),
            ignored: PlainU64::new(0),
        }
    }

    /// Sets what the writer writes, and opens it.
    fn _setup(
        slf: &Bound<'_, Self>,
        folder: PathBuf,
        interval: f64,
        purge_step: Option<i64>,
        filename_suffix: String,
        reopens_in_child: bool,
        is_copy: bool,
    ) -> PyResult<()> {
        // At most a second: what a killed process loses.
        let interval = Duration::from_secs_f64(interval.clamp(0.01, 1.0));
        let settings = Settings { folder, interval, filename_suffix, reopens_in_child, is_copy };
        let this = slf.get();
        if this.settings.set(settings).is_err() {
            return Err(PyRuntimeError::new_err("the writer is set up already"));
        }
        if is_copy { Ok(()) } else { this.open(slf, purge_step).map(drop) }
    }

    /// Adds a scalar.
    #[pyo3(signature = (tag, scalar_value, global_step = None, walltime = None, new_style = false, double_precision = false))]
    #[allow(clippy::too_many_arguments, reason = "the arguments of PyTorch's method")]
    fn add_scalar(
        slf: &Bound<'_, Self>,
        tag: &str,
        scalar_value: &Bound<'_, PyAny>,
        global_step: Option<&Bound<'_, PyAny>>,
        walltime: Option<f64>,
        new_style: bool,
        double_precision: bool,
    ) -> PyResult<()> {
        let _ = (new_style, double_precision);
        let value = convert::scalar(scalar_value)?;
        let step = convert::step(global_step)?;
        Self::with(slf, |core| {
            let record = Record::scalar(core.names.intern(tag), value);
            core.collect(slf.py(), Point::new(placed(record, step, walltime)));
        })?;
        Ok(())
    }

    /// Waits until everything that was added before is in its file.
    fn _flush(&self, py: Python<'_>) {
        if let Some(core) = &*self.core.load() {
            // The statistics tell how that went.
            let _ = py.detach(|| core.collector.flush());
        }
    }

    /// Writes what is left, and closes the files.
    #[pyo3(signature = (timeout = None))]
    fn _close(&self, py: Python<'_>, timeout: Option<f64>) {
        let Some(core) = self.core.swap(None) else { return };
        py.detach(|| {
            let _ = match timeout {
                Some(seconds) => core.collector.stop_timeout(convert::duration(seconds)),
                None => core.collector.stop(),
            };
            drop(core);
        });
    }

    /// Opens it if it is closed.
    fn _reopen(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::with(slf, |_| ()).map(drop)
    }

    /// Returns whether it is open.
    #[getter]
    fn _is_open(&self) -> bool {
        self.core.load().is_some()
    }
}

/// Adds the step and the moment to a record.
#[inline]
fn placed(record: Record, step: Option<i64>, walltime: Option<f64>) -> Record {
    let record = match step {
        Some(step) => record.with_step(step as u64),
        None => record,
    };
    match walltime {
        Some(seconds) => record.with_unix_nanos(convert::nanos(seconds)),
        None => record,
    }
}

impl Writer {
    /// Calls `body` with what it works with. Opens the writer first where it is closed. Returns `None` for a copy that writes nothing.
    #[inline]
    fn with<R>(slf: &Bound<'_, Self>, body: impl FnOnce(&Core) -> R) -> PyResult<Option<R>> {
        match &*slf.get().core.load() {
            Some(core) if !core.home.is_left() => Ok(Some(body(core))),
            core => Ok(slf.get().reopened(slf, core.as_ref())?.map(|core| body(&core))),
        }
    }

    /// Returns what a writer works with that is closed, or was opened by another process.
    #[cold]
    fn reopened(&self, slf: &Bound<'_, Self>, left: Option<&Arc<Core>>) -> PyResult<Option<Arc<Core>>> {
        let is_elsewhere = left.is_some() || self.opening.check().is_err() || self.settings()?.is_copy;
        if is_elsewhere && !self.settings()?.reopens_in_child {
            if left.is_none() {
                self.ignored.fetch_add(1, Ordering::Relaxed);
            }
            // The collector of the parent counts what is given to it.
            return Ok(left.cloned());
        }
        self.open(slf, None).map(Some)
    }

    fn settings(&self) -> PyResult<&Settings> {
        let unset = "the `__init__` of SummaryWriter must be called before its methods";
        self.settings.get().ok_or_else(|| PyRuntimeError::new_err(unset))
    }

    /// Begins a file, unless another thread has meanwhile.
    fn open(&self, slf: &Bound<'_, Self>, purge_step: Option<i64>) -> PyResult<Arc<Core>> {
        let settings = self.settings()?;
        let core = slf.py().detach(|| {
            // In a child, the lock is the parent's.
            let lock = self.opening.enter();
            if let Some(core) = self.core.load_full().filter(|core| !core.home.is_left()) {
                return Ok(core);
            }
            let core = Arc::new(Core::open(settings, purge_step, lock.is_err() || settings.is_copy)?);
            self.core.store(Some(Arc::clone(&core)));
            PyResult::Ok(core)
        })?;
        // So that it is closed at the end of this process.
        static REGISTER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        REGISTER.import(slf.py(), "forebay._lifecycle", "register")?.call1((slf,))?;
        Ok(core)
    }
}

impl Core {
    fn open(settings: &Settings, purge_step: Option<i64>, is_child: bool) -> PyResult<Self> {
        let folder = match is_child {
            true => settings.folder.join(format!("pid_{}", std::process::id())),
            false => settings.folder.clone(),
        };
        let sink = match purge_step {
            Some(step) => TensorBoardSink::resume(folder, u64::try_from(step).unwrap_or(0))?,
            None => TensorBoardSink::create(folder)?,
        };
        let collector = Builder::<Point>::new()
            .capacity(CAPACITY)
            .critical_capacity(1)
            .low_capacity(1)
            .max_bytes(MAX_BYTES)
            .overflow(Overflow::Block { timeout: MAX_WAIT })
            .flush(FlushStrategy::Hybrid { events: 1_000, interval: settings.interval })
            .enrich(|point: &mut Point, _| point.complete())
            .sink(sink)
            .start()
            .map_err(|error| PyOSError::new_err(error.to_string()))?;
        Ok(Self { collector, names: Names::new(), home: Home::here() })
    }

    /// Collects a point. Where that may wait for space, it lets other threads of Python run.
    #[inline]
    fn collect(&self, py: Python<'_>, point: Point) -> Outcome {
        match self.collector.pending() + MARGIN < CAPACITY as u64 {
            true => self.collector.collect(point),
            false => py.detach(|| self.collector.collect(point)),
        }
    }
}

impl Drop for Writer {
    /// Ends the collector, which waits for its worker, detached.
    fn drop(&mut self) {
        let Some(core) = self.core.swap(None) else { return };
        let end = || drop(core);
        // While the interpreter ends, there is nobody to let run.
        let mut end = Some(end);
        Python::try_attach(|py| py.detach(|| end.take().map(|end| end())));
        if let Some(end) = end {
            end();
        }
    }
}
