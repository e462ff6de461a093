//! `Work` and `interruptible`: work that may take long, which a thread of ours does while the caller waits for it.
//!
//! The caller's own thread tells how far the work is, and looks for signals of Python. The thread that works never attaches to the
//! interpreter: before Python 3.14, one that does so while the interpreter ends is killed, with all that it holds.
//!
//! Rejected: a wait in slices, each with a request of its own. A flush that takes longer than a slice would begin again for ever.

use std::time::{Duration, Instant};

use forebay_sync::clock::deadline_in;
use forebay_sync::sync::{self, Arc, Condvar, JoinHandle, Mutex};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::convert;

/// Time between two looks for a signal, while a thread waits.
pub(crate) const SIGNALS: Duration = Duration::from_millis(100);

/// Returns whether this is the thread of Python that handles signals.
pub(crate) fn is_main_thread(py: Python<'_>) -> PyResult<bool> {
    let threading = py.import("threading")?;
    let main = threading.call_method0("main_thread")?.getattr("ident")?;
    threading.call_method0("get_ident")?.eq(main)
}

/// Does work that loses nothing when nobody waits for it any more. Raises what a handler of a signal raises; the work goes on then.
pub(crate) fn interruptible<R: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> R + Send + 'static,
) -> PyResult<R> {
    let (task, result) = Task::of(work);
    task.begin(py);
    while !task.is_over_by(py, deadline_in(SIGNALS)) {
        py.check_signals()?;
    }
    let result = result.lock().take();
    result.ok_or_else(panicked)
}

/// Work that has begun, for Python code that tells how far it is: no Rust is below that code, which would have to be unwound where the
/// interpreter ends the thread.
#[pyclass(frozen, module = "forebay._forebay")]
pub(crate) struct Work {
    task: Arc<Task>,
    /// Makes an object of the result, once.
    result: Mutex<Option<Box<MakeObject>>>,
    /// Counts the events that are left. `None` while it is dropped.
    pending: Option<Box<dyn Fn() -> u64 + Send + Sync>>,
}

type MakeObject = dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send;

impl Work {
    /// Begins work. It goes on if nobody waits for it.
    pub(crate) fn begin<R>(
        py: Python<'_>,
        pending: impl Fn() -> u64 + Send + Sync + 'static,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Self
    where
        R: for<'py> IntoPyObject<'py> + Send + 'static,
    {
        let (task, result) = Task::of(work);
        task.begin(py);
        let object = move |py: Python<'_>| {
            let result = result.lock().take();
            result.ok_or_else(panicked)?.into_py_any(py)
        };
        Self { task, result: Mutex::new(Some(Box::new(object))), pending: Some(Box::new(pending)) }
    }
}

#[pymethods]
impl Work {
    /// Waits for so many seconds at most, and returns whether it is done.
    fn wait(&self, py: Python<'_>, seconds: f64) -> bool {
        self.task.is_over_by(py, deadline_in(convert::duration(seconds)))
    }

    /// The number of events that are left.
    #[getter]
    fn pending(&self) -> u64 {
        self.pending.as_ref().map_or(0, |pending| pending())
    }

    /// Waits until it is done, and returns what it returns: once.
    fn result(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.task.is_over_by(py, None);
        let object = self.result.lock().take();
        object.ok_or_else(panicked)?(py)
    }
}

impl Drop for Work {
    /// What counts the events may hold the last handle of a collector: where that has not stopped in time, its drop waits once more.
    fn drop(&mut self) {
        let mut pending = self.pending.take();
        Python::try_attach(|py| py.detach(|| drop(pending.take())));
    }
}

fn panicked() -> PyErr {
    PyRuntimeError::new_err("a thread of forebay has panicked, or its result is taken")
}

/// Work for another thread.
struct Task {
    stage: Mutex<Stage>,
    changed: Condvar,
}

struct Stage {
    /// Taken by the thread that does it.
    work: Option<Box<dyn FnOnce() + Send>>,
    is_over: bool,
    /// The thread, until somebody has seen that the work is over, and joins it.
    thread: Option<JoinHandle<()>>,
}

impl Task {
    /// Makes a task of work, and the place of its result.
    fn of<R: Send + 'static>(
        work: impl FnOnce() -> R + Send + 'static,
    ) -> (Arc<Self>, Arc<Mutex<Option<R>>>) {
        let result = Arc::new(Mutex::new(None));
        let theirs = Arc::clone(&result);
        let work = move || {
            let done = work();
            *theirs.lock() = Some(done);
        };
        let stage = Mutex::new(Stage { work: Some(Box::new(work)), is_over: false, thread: None });
        (Arc::new(Self { stage, changed: Condvar::new() }), result)
    }

    /// Starts a thread that does it. Where the system refuses one, this thread does it.
    fn begin(self: &Arc<Self>, py: Python<'_>) {
        py.detach(|| {
            let task = Arc::clone(self);
            match sync::spawn("forebay-wait", None, move || task.run()) {
                Ok(thread) => self.stage.lock().thread = Some(thread),
                Err(_) => self.run(),
            }
        });
    }

    fn run(&self) {
        /// Says that the work is over, also where it panics.
        struct Over<'a>(&'a Task);

        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.stage.lock().is_over = true;
                self.0.changed.notify_all();
            }
        }

        let _over = Over(self);
        let work = self.stage.lock().work.take();
        if let Some(work) = work {
            work();
        }
    }

    /// Waits until that moment, detached, and returns whether the work is over.
    fn is_over_by(&self, py: Python<'_>, moment: Option<Instant>) -> bool {
        py.detach(|| {
            let mut stage = self.stage.lock();
            while !stage.is_over && !self.changed.wait_until(&mut stage, moment) {}
            let is_over = stage.is_over;
            let thread = if is_over { stage.thread.take() } else { None };
            drop(stage);
            if let Some(thread) = thread {
                sync::join(thread);
            }
            is_over
        })
    }
}
