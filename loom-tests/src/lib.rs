//! Helpers that the models share. See `docs/verification.md` in the repository.

#[cfg(not(forebay_loom))]
compile_error!(
    "the cfg forebay_loom is missing: run this in loom-tests/, with RUSTFLAGS unset, or nothing is modelled"
);

/// Fails to compile where the queue is not the one on loom.
pub use crossbeam_queue::ON_LOOM;
/// Fails to compile where the names of loom are not those on shuttle.
#[cfg(feature = "shuttle")]
pub use loom::ON_SHUTTLE;

#[cfg_attr(feature = "shuttle", path = "under_shuttle.rs")]
#[cfg_attr(not(feature = "shuttle"), path = "under_loom.rs")]
mod visit;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use forebay::sink::{Sink, SinkError};
use forebay::{Batch, Builder, Collector, Event, FlushStrategy, Priority};
use loom::cell::UnsafeCell;
use loom::sync::Notify;
use visit::visit;
#[cfg(feature = "shuttle")]
pub use visit::visit_cases;

/// An event with a number; numbers from 100 are critical, those from 200 low.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick(pub u32);

impl Event for Tick {
    fn priority(&self) -> Priority {
        match self.0 {
            0..100 => Priority::Normal,
            100..200 => Priority::Critical,
            _ => Priority::Low,
        }
    }
}

/// An event that owns so many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heavy(pub usize);

impl Event for Heavy {
    fn size_hint(&self) -> usize {
        size_of::<Self>() + self.0
    }
}

/// Begins a collector of ticks as small as it can be.
pub fn small(capacity: usize, flush: FlushStrategy) -> Builder<Tick> {
    small_of(capacity, flush)
}

/// Returns the builder of [`small`] for other events.
pub fn small_of<E: Event>(capacity: usize, flush: FlushStrategy) -> Builder<E> {
    // With all that would be asked of the system for every execution.
    Builder::new()
        .capacity(capacity)
        .critical_capacity(1)
        .low_capacity(1)
        .session_id("model")
        .host("model")
        .rank(0)
        .flush(flush)
}

/// Delivers at the first event.
pub const EAGER: FlushStrategy = FlushStrategy::Size { events: 1 };

/// Checks the law, and that nothing is pending. `offered` counts the calls of `collect`.
#[track_caller]
pub fn law<E: Event>(collector: &Collector<E>, offered: u64) -> forebay::Stats {
    let stats = collector.stats();
    stats.check_law(offered).unwrap();
    assert_eq!(stats.pending, 0, "{stats:?}");
    for sink in &stats.sinks {
        assert_eq!(sink.offered, stats.processed, "the sink missed a batch: {stats:?}");
    }
    stats
}

/// A sink that keeps numbers in a cell whose accesses loom checks: reading them without a happens-before
/// edge from the worker's write is an error. It can also notify a signal for every event.
#[derive(Clone)]
pub struct Log {
    name: &'static str,
    pages: Arc<UnsafeCell<Pages>>,
    signal: Option<loom::sync::Arc<Notify>>,
}

/// What a [`Log`] was given, and how much of it was flushed.
#[derive(Default)]
struct Pages {
    numbers: Vec<u32>,
    flushed: usize,
}

// SAFETY: that the cell is not accessed by two threads at once is what loom checks.
unsafe impl Send for Log {}

impl Log {
    pub fn new() -> Self {
        Self::named("log")
    }

    pub fn named(name: &'static str) -> Self {
        Self { name, pages: Arc::new(UnsafeCell::new(Pages::default())), signal: None }
    }

    pub fn notifying(signal: &loom::sync::Arc<Notify>) -> Self {
        Self { signal: Some(signal.clone()), ..Self::new() }
    }

    /// Returns what was delivered, in order. The caller has flushed, stopped or removed the sink: an event that was
    /// written and not flushed since is an error.
    #[track_caller]
    pub fn numbers(&self) -> Vec<u32> {
        // SAFETY: as above.
        let (numbers, flushed) =
            self.pages.with(|pages| unsafe { ((*pages).numbers.clone(), (*pages).flushed) });
        assert_eq!(flushed, numbers.len(), "answered before the sink was flushed: {numbers:?}");
        numbers
    }
}

impl Default for Log {
    fn default() -> Self {
        Self::new()
    }
}

impl Sink<Tick> for Log {
    fn name(&self) -> &str {
        self.name
    }

    fn write_batch(&mut self, batch: &Batch<Tick>) -> Result<(), SinkError> {
        // SAFETY: as above.
        self.pages.with_mut(|pages| unsafe { (*pages).numbers.extend(batch.iter().map(|tick| tick.0)) });
        if let Some(signal) = &self.signal {
            batch.iter().for_each(|_| signal.notify());
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        // SAFETY: as above.
        let is_flushed = self.pages.with(|pages| unsafe { (*pages).flushed == (*pages).numbers.len() });
        // A flush that finds nothing new only reads: somebody whom an earlier one has answered may read as well.
        if !is_flushed {
            // SAFETY: as above.
            self.pages.with_mut(|pages| unsafe { (*pages).flushed = (*pages).numbers.len() });
        }
        Ok(())
    }
}

/// Notifies when it is woken.
struct SignalWaker(loom::sync::Arc<Notify>);

impl Wake for SignalWaker {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }
}

/// Returns a signal, and the waker that notifies it.
pub fn signal_waker() -> (loom::sync::Arc<Notify>, Waker) {
    let notify = loom::sync::Arc::new(Notify::new());
    (notify.clone(), Arc::new(SignalWaker(notify)).into())
}

/// Polls until it is ready; between polls only the waker can wake it.
pub fn wait_for<F: Future + Unpin>(mut future: F) -> F::Output {
    let (signal, waker) = signal_waker();
    loop {
        match poll_once(&mut future, &waker) {
            Poll::Ready(output) => return output,
            Poll::Pending => signal.wait(),
        }
    }
}

pub fn poll_once<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

/// Collects which outcomes a model visited.
#[derive(Clone, Default)]
pub struct Witness(Arc<Mutex<BTreeMap<String, u64>>>);

impl Witness {
    /// Notes how this execution ended.
    pub fn saw(&self, outcome: impl Debug) {
        *self.0.lock().unwrap().entry(format!("{outcome:?}")).or_default() += 1;
    }

    /// Checks that every expected outcome was visited: else the model does not show what it is meant to.
    #[track_caller]
    pub fn expect(&self, outcomes: &[&str]) {
        let seen = self.0.lock().unwrap();
        for outcome in outcomes {
            assert!(seen.contains_key(*outcome), "never visited: {outcome}; visited: {seen:?}");
        }
    }
}

/// Keeps panics that a model throws itself off the screen: there are thousands.
fn hush() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        visit::prepare();
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !panic.payload().downcast_ref::<&str>().is_some_and(|text| text.starts_with("on purpose")) {
                tell(panic);
            }
        }));
    });
}

/// Visits the schedules of `body` with at most `bound` preemptions (or FOREBAY_EXTRA more), prints one line, and
/// demands that there were at least `floor` of them: fewer, and the model no longer models much. At its own bound it
/// also demands that there were at most twice as many: a floor far below says nothing.
#[track_caller]
pub fn check(name: &str, bound: usize, floor: u64, body: impl Fn() + Send + Sync + 'static) {
    let extra = std::env::var("FOREBAY_EXTRA").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    hush();
    visit(name, bound + extra, floor, extra == 0, body);
}

/// Checks a model that takes long as `check` does, but for `loom-tests/run quick`, which leaves out the last preemption. Then
/// there are at least `quick_floor` schedules.
#[track_caller]
pub fn check_long(
    name: &str,
    bound: usize,
    floor: u64,
    quick_floor: u64,
    body: impl Fn() + Send + Sync + 'static,
) {
    hush();
    match std::env::var_os("FOREBAY_QUICK") {
        Some(_) => visit(name, bound - 1, quick_floor, true, body),
        None => check(name, bound, floor, body),
    }
}

/// Checks a model at this bound and never deeper: for a model whose next preemption takes hours.
#[track_caller]
pub fn check_at(name: &str, bound: usize, floor: u64, body: impl Fn() + Send + Sync + 'static) {
    hush();
    visit(name, bound, floor, true, body);
}
