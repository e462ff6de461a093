//! `Run`: a training run, for Python.

use std::path::PathBuf;

use forebay::Config;
use forebay::run::{Rank, RunBuilder, RunEnd, RunError, RunInfo, RunStatus, Signals, TrainingRun};
use forebay_history::JsonLinesHistory;
use forebay_sync::sync::{Mutex, Ordering};
use forebay_sync::unix::{SIGNALS, has_default_effect};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::collector::PyCollector;
use crate::convert;
use crate::point::Point;
use crate::value;
use crate::watch::{self, Work};

/// Guard of a training run, for ``forebay.Run``.
#[pyclass(frozen, module = "forebay._forebay", name = "RunGuard")]
pub(crate) struct RunGuard {
    /// `None` once it has ended.
    run: Mutex<Option<(TrainingRun<Point>, Option<Signals>)>>,
    run_id: String,
    /// Kept until the run has ended, also where Python drops the collector first.
    collector: Py<PyCollector>,
}

/// Returns the error of a run that cannot begin.
fn not_begun(error: RunError) -> PyErr {
    match error {
        // The system refuses the thread.
        RunError::Thread(_) => PyOSError::new_err(error.to_string()),
        error => PyValueError::new_err(error.to_string()),
    }
}

/// Creates a new folder for a run, named after the time and the run.
#[pyfunction]
pub(crate) fn run_folder(runs: PathBuf, name: Option<String>) -> PyResult<PathBuf> {
    Ok(named(name).folder(runs)?)
}

fn named(name: Option<String>) -> RunBuilder {
    let run = TrainingRun::builder();
    match name {
        Some(name) => run.name(name),
        None => run,
    }
}

#[pymethods]
impl RunGuard {
    /// Begins a run. Where it `watches` SIGTERM, that marks the run as preempted and flushes, before it ends the process.
    ///
    /// `resumed` is an earlier run and a step: that run goes on there, as its next generation. `rank` is as `environment_rank` returns it.
    #[new]
    #[pyo3(signature = (collector, name, config, watches, rank, resumed = None))]
    fn new(
        py: Python<'_>,
        collector: &Bound<'_, PyCollector>,
        name: Option<String>,
        config: &Bound<'_, PyDict>,
        watches: bool,
        rank: RankRow,
        resumed: Option<(Bound<'_, LastRun>, u64)>,
    ) -> PyResult<Self> {
        let (rank, local_rank, world_size) = rank;
        let mut run = named(name).config(value::fields(config)?).rank(Rank { rank, local_rank, world_size });
        if let Some((earlier, step)) = resumed {
            run = run.resume(&earlier.get().info, step);
        }
        let held = collector.clone().unbind();
        let collector = &collector.get().inner;
        let (run, run_id) = py.detach(|| {
            let run = run.start(collector).map_err(not_begun)?;
            let run_id = run.run_id().to_owned();
            // Where the system refuses it, SIGTERM costs the last second and the end of the run.
            let watch = || Signals::builder(collector).run(&run).only(SIGTERM).start().ok();
            let signals = if watches && sigterm_is_free() { watch() } else { None };
            PyResult::Ok(((run, signals), run_id))
        })?;
        Ok(Self { run: Mutex::new(Some(run)), run_id, collector: held })
    }

    /// The id of the run.
    #[getter]
    fn run_id(&self) -> &str {
        &self.run_id
    }

    /// Collects the values of a step, which heartbeats and the end of the run carry from then on.
    #[pyo3(signature = (values, step = None))]
    fn log(
        &self,
        py: Python<'_>,
        values: &Bound<'_, PyAny>,
        step: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let step = convert::step(step)?;
        if let Some(step) = step.and_then(|step| u64::try_from(step).ok())
            && let Ok(run) = self.run.enter()
            && let Some((run, _)) = &*run
        {
            run.set_step(step);
        }
        self.collector.get().log_at(py, values, step).map(drop)
    }

    /// Reports the end, once, and waits for `timeout` seconds at most until it is written; the statistics tell how that went. Returns
    /// `None` if it has ended already.
    #[pyo3(signature = (status, reason, metrics, timeout = None))]
    fn end(
        &self,
        py: Python<'_>,
        status: String,
        reason: &Bound<'_, PyString>,
        metrics: &Bound<'_, PyDict>,
        timeout: Option<f64>,
    ) -> Option<Work> {
        // The end is written also where there is no memory for its reason.
        let reason = convert::text(reason).unwrap_or_default();
        let metrics = value::last_fields(metrics);
        let ended = py.detach(|| self.run.enter().map(|mut run| run.take()));
        let (run, signals) = ended.ok()??;
        let collector = self.collector.get().inner.clone();
        Some(Work::begin(py, self.collector.get().watched_pending(), move || {
            if let Some(timeout) = timeout.map(convert::duration) {
                // Where it is refused, the collector forked or stopped, and waits for nothing.
                let _ = collector
                    .update_config(|config| config.flush_timeout = config.flush_timeout.min(timeout));
            }
            let _ = match status.as_str() {
                "failed" => run.failed(reason),
                "preempted" => run.preempted(reason),
                "stopped" => run.early_stopped(reason),
                _ => run.completed(metrics),
            };
            drop(signals);
        }))
    }
}

impl Drop for RunGuard {
    /// A run that nobody has ended has failed. Its drop waits for the worker, detached.
    fn drop(&mut self) {
        let Ok(mut run) = self.run.enter() else { return };
        let Some(run) = run.take() else { return };
        let mut run = Some(run);
        Python::try_attach(|py| py.detach(|| drop(run.take())));
    }
}

/// What a file of JSON Lines tells of the process that worked on its last run last.
#[pyclass(frozen, module = "forebay._forebay")]
pub(crate) struct LastRun {
    info: RunInfo,
}

#[pymethods]
impl LastRun {
    /// Reads the file.
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let shown = path.display().to_string();
        let found = watch::interruptible(py, move || forebay_history::runs(&JsonLinesHistory::open(path)?))?;
        let found = found.map_err(|error| PyOSError::new_err(error.to_string()))?;
        let last = found.into_iter().max_by_key(|run| (run.began, run.generation));
        last.map(|info| Self { info }).ok_or_else(|| {
            PyValueError::new_err(format!("resume must name a run that has begun, got none in {shown}"))
        })
    }
}

/// Rank of a process: its number among all, its number on its machine, and the number of all.
type RankRow = (u64, Option<u64>, u64);

/// Returns the rank of this process as the environment tells it. Raises ``ValueError`` where that contradicts itself.
#[pyfunction]
pub(crate) fn environment_rank() -> PyResult<RankRow> {
    let rank = Rank::from_env().map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok((rank.rank, rank.local_rank, rank.world_size))
}

/// Raises ``ValueError`` where the settings of a collector, as JSON, are unknown or not allowed.
#[pyfunction]
pub(crate) fn check_settings(settings: &str) -> PyResult<()> {
    let config: Config =
        serde_json::from_str(settings).map_err(|error| PyValueError::new_err(error.to_string()))?;
    config.validate().map_err(|error| PyValueError::new_err(error.to_string()))
}

/// The number of SIGTERM, on every Unix.
pub(crate) const SIGTERM: i32 = 15;

/// Returns whether SIGTERM has its default effect, but for ours: code that is not Python may handle it, and Python would not know.
pub(crate) fn sigterm_is_free() -> bool {
    match SIGNALS.iter().find(|slot| slot.signal == SIGTERM && slot.is_default.get().is_some()) {
        Some(watched) => watched.had_default.load(Ordering::SeqCst),
        None => has_default_effect(SIGTERM),
    }
}

/// Returns what a file of JSON Lines tells of the runs that wrote to it, each as a dictionary.
#[pyfunction]
pub(crate) fn runs_of<'py>(py: Python<'py>, path: PathBuf) -> PyResult<Vec<Bound<'py, PyDict>>> {
    let found = watch::interruptible(py, move || {
        let history = JsonLinesHistory::open(path)?;
        forebay_history::runs(&history)
    })?;
    let found = found.map_err(|error| PyOSError::new_err(error.to_string()))?;
    found.iter().map(|run| described(py, run)).collect()
}

fn described<'py>(py: Python<'py>, run: &RunInfo) -> PyResult<Bound<'py, PyDict>> {
    let now = std::time::SystemTime::now();
    let seconds = |time: std::time::SystemTime| {
        time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
    };
    let status = match run.status(now) {
        RunStatus::Running => "running",
        RunStatus::Finished => "finished",
        RunStatus::Failed => "failed",
        RunStatus::Preempted => "preempted",
        RunStatus::Vanished => "vanished",
        _ => "unclear",
    };
    let reason = match &run.end {
        Some(RunEnd::EarlyStopped { reason } | RunEnd::Preempted { reason }) => Some(reason),
        Some(RunEnd::Failed { error }) => Some(error),
        _ => None,
    };
    let shown = PyDict::new(py);
    shown.set_item("run_id", &run.run_id)?;
    shown.set_item("name", &run.name)?;
    shown.set_item("generation", run.generation)?;
    shown.set_item("rank", run.rank)?;
    shown.set_item("status", status)?;
    shown.set_item("began", seconds(run.began))?;
    shown.set_item("last_seen", seconds(run.last_seen))?;
    shown.set_item("last_step", run.last_step)?;
    shown.set_item("reason", reason)?;
    Ok(shown)
}
