//! `watched`: work that may take long, and a watcher that is called while it lasts.
//!
//! The work waits in Rust, detached, so that Python cannot look at it. A thread can, and calls into Python only where the work does take
//! long. Work that was cut into slices instead, with a look between them, would have a deadline in each place where it waits.

use std::time::{Duration, Instant};

use forebay_sync::clock::deadline_in;
use forebay_sync::sync::{self, Arc, Condvar, Mutex};
use pyo3::prelude::*;

use crate::convert;

/// Time between two calls of a watcher.
const INTERVAL: Duration = Duration::from_millis(500);

/// The longest wait for a watcher that is at it when the work is done: its terminal may be stopped.
const GRACE: Duration = Duration::from_secs(1);

/// Watcher as it comes from Python: the seconds before its first call, and what is called with the number of events that are left.
pub(crate) type Watcher = (f64, Py<PyAny>);

struct Watch {
    stage: Mutex<Stage>,
    changed: Condvar,
    call: Py<PyAny>,
}

#[derive(PartialEq)]
enum Stage {
    Working,
    Done,
    /// The thread calls no more.
    Left,
}

/// Does work, detached. Calls the watcher with what `pending` returns while the work lasts, from another thread.
///
/// An exception of the watcher is discarded. Where no thread can be started, it is not called.
pub(crate) fn watched<R: Send>(
    py: Python<'_>,
    watcher: Option<Watcher>,
    pending: impl Fn() -> u64 + Send + 'static,
    work: impl FnOnce() -> R + Send,
) -> R {
    let Some((patience, call)) = watcher else {
        return py.detach(move || {
            let result = work();
            // It may hold the last handle of a collector.
            drop(pending);
            result
        });
    };
    let watch = Arc::new(Watch { stage: Mutex::new(Stage::Working), changed: Condvar::new(), call });
    let theirs = Arc::clone(&watch);
    py.detach(|| {
        let body = move || theirs.watch(convert::duration(patience), pending);
        let thread = sync::spawn("forebay-watch", None, body);
        let result = work();
        if let Ok(thread) = thread
            && watch.end()
        {
            sync::join(thread);
        }
        result
    })
}

impl Watch {
    fn watch(&self, patience: Duration, pending: impl Fn() -> u64) {
        let mut next = deadline_in(patience);
        while self.is_working_at(next) {
            Python::try_attach(|py| self.call.call1(py, (pending(),)).map(drop));
            next = Instant::now().checked_add(INTERVAL);
        }
        *self.stage.lock() = Stage::Left;
        self.changed.notify_all();
    }

    /// Waits until that moment, and returns whether the work lasts longer.
    fn is_working_at(&self, moment: Option<Instant>) -> bool {
        let mut stage = self.stage.lock();
        while *stage == Stage::Working && !self.changed.wait_until(&mut stage, moment) {}
        *stage == Stage::Working
    }

    /// Says that the work is done. Returns whether the thread has ended its calls in time.
    fn end(&self) -> bool {
        let mut stage = self.stage.lock();
        if *stage == Stage::Working {
            *stage = Stage::Done;
        }
        self.changed.notify_all();
        let deadline = deadline_in(GRACE);
        while *stage != Stage::Left && !self.changed.wait_until(&mut stage, deadline) {}
        *stage == Stage::Left
    }
}
