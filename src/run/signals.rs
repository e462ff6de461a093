//! SIGTERM and SIGINT: what was collected is delivered, the run is marked, and the process ends as it would have.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::flag::{register_conditional_default, register_usize};
use signal_hook::iterator;
use signal_hook::low_level::{emulate_default_handler, signal_name};

use super::{Life, TrainingRun};
use crate::catalog::training;
use crate::collector::Collector;
use crate::control::Reply;
use crate::event::Event;
use crate::sync::{self, Arc, Condvar, JoinHandle, Mutex, Ordering, PlainBool, PlainU64};
use crate::unix::{ForkSignals, when_forked};

/// Sees SIGTERM and SIGINT come, on a thread of its own (feature `signals`, Unix).
///
/// At the first signal, within the grace period ([`SignalsBuilder::grace`]): the run is marked as preempted, if it was
/// given; the collector is stopped, which delivers and flushes what was collected; then the process ends by that signal,
/// with the status that everybody expects of it. A second signal, or the end of the grace period, ends it at once.
///
/// With [`leave_time`](SignalsBuilder::leave_time) the loop may end by itself: what was collected is flushed at once, and
/// the rest waits until the grace period is nearly over, the value is dropped, or a second signal comes. Ask
/// [`received`](Self::received) in the loop, which is one load.
///
/// Dropped, signals have their default effect again. In a forked child, they have it from the begin. It holds a handle of
/// the collector.
///
/// ```no_run
/// use std::time::Duration;
/// use forebay::run::{Signals, TrainingRun};
/// use forebay::{Collector, Record};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let collector = Collector::builder().start()?;
/// let run = TrainingRun::builder().start(&collector)?;
/// let signals = Signals::builder(&collector).run(&run).leave_time().grace(Duration::from_secs(20)).start()?;
/// for step in 0..1_000_000 {
///     collector.collect(Record::scalar("train.loss", 0.5).step(step));
///     if let Some(signal) = signals.received() {
///         // Save a checkpoint.
///         run.preempted(signal)?;
///         return Ok(());
///     }
/// }
/// run.completed([("val_accuracy", 0.97)])?;
/// # Ok(())
/// # }
/// ```
pub struct Signals {
    watch: Arc<Watch>,
    handle: iterator::Handle,
    thread: Option<JoinHandle<()>>,
}

/// Says what signals do, then [`start`](Self::start).
#[must_use = "a builder does nothing until `start`"]
pub struct SignalsBuilder {
    flush: Box<dyn Fn(Duration) + Send>,
    stop: Box<dyn Fn(Duration) + Send>,
    run: Option<Arc<Life>>,
    signals: Vec<i32>,
    grace: Duration,
    leaves_time: bool,
}

/// What the value, its thread, and whoever waits for the end of the grace period share.
struct Watch {
    /// The first signal; 0 before.
    received: PlainU64,
    /// From now on signals have their default effect. Read by the handler.
    is_over: Arc<PlainBool>,
    in_child: ForkSignals,
    hurry: Mutex<bool>,
    hurried: Condvar,
}

/// Signals cannot be watched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignalsError {
    /// A setting is outside of what is allowed.
    #[error("{field} is {value}, allowed is {allowed}")]
    #[non_exhaustive]
    Invalid {
        /// Which setting.
        field: &'static str,
        /// The value it has.
        value: String,
        /// The values it may have.
        allowed: &'static str,
    },
    /// The system refused.
    #[error("cannot watch signals: {0}")]
    System(#[from] io::Error),
}

impl Signals {
    /// Signals that stop this collector.
    pub fn builder<E: Event>(collector: &Collector<E>) -> SignalsBuilder {
        let (flushed, stopped) = (collector.clone(), collector.clone());
        SignalsBuilder {
            flush: Box::new(move |longest| drop(flushed.shared.flush(Reply::unheard(), longest))),
            stop: Box::new(move |longest| drop(stopped.stop_timeout(longest))),
            run: None,
            signals: vec![SIGTERM, SIGINT],
            grace: Duration::from_secs(5),
            leaves_time: false,
        }
    }

    /// The name of the signal that came first, such as `SIGTERM`.
    #[inline]
    pub fn received(&self) -> Option<&'static str> {
        match self.watch.received.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(name(signal as i32)),
        }
    }
}

impl SignalsBuilder {
    /// Marks that run as preempted.
    pub fn run(mut self, run: &TrainingRun) -> Self {
        self.run = Some(Arc::clone(&run.life));
        self
    }

    /// How long after the first signal the process ends at the latest. Defaults to 5 s. (Kubernetes and Slurm kill it after
    /// 30 s, unless they are told otherwise.)
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Leaves the loop time to end by itself, instead of ending the process at once.
    pub fn leave_time(mut self) -> Self {
        self.leaves_time = true;
        self
    }

    /// Sees another signal come as well: SIGHUP, SIGQUIT, SIGUSR1 or SIGUSR2, by its number.
    pub fn also(mut self, signal: i32) -> Self {
        self.signals.push(signal);
        self
    }

    /// Watches from now on, until the value is dropped.
    ///
    /// # Errors
    ///
    /// A signal that is not allowed; or the system refused a handler, a pipe or a thread.
    pub fn start(self) -> Result<Signals, SignalsError> {
        let allowed = [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2];
        if let Some(signal) = self.signals.iter().find(|signal| !allowed.contains(signal)) {
            let allowed = "the number of SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1 or SIGUSR2";
            return Err(SignalsError::Invalid { field: "signal", value: signal.to_string(), allowed });
        }
        let watch = Arc::new(Watch {
            received: PlainU64::new(0),
            is_over: Arc::default(),
            in_child: when_forked(),
            hurry: Mutex::new(false),
            hurried: Condvar::new(),
        });
        // Before the handler that tells our thread: in a child there is none, and after the drop it has ended.
        for signal in &self.signals {
            register_conditional_default(*signal, Arc::clone(&watch.is_over))?;
            register_usize(*signal, Arc::clone(&watch.in_child.last), *signal as usize)?;
            register_conditional_default(*signal, Arc::clone(&watch.in_child.is_child))?;
        }
        let coming = iterator::Signals::new(&self.signals)?;
        let handle = coming.handle();
        let shared = Arc::clone(&watch);
        let thread = sync::spawn("forebay-signals", None, move || shared.wait(coming, self))?;
        Ok(Signals { watch, handle, thread: Some(thread) })
    }
}

impl Watch {
    /// The body of the thread: waits for the first signal, then ends the process.
    fn wait(self: &Arc<Self>, mut coming: iterator::Signals, settings: SignalsBuilder) {
        let Some(signal) = coming.forever().next() else { return };
        let begun = Instant::now();
        self.received.store(signal as u64, Ordering::Relaxed);
        let grace = settings.grace;
        let left = || grace.saturating_sub(begun.elapsed());
        // The second one is for another thread: this one is busy with the first. Without it, a second signal is not seen.
        let listener = Arc::clone(self);
        let second = sync::spawn("forebay-signals", None, move || {
            if coming.forever().next().is_some() {
                // No waiting for anything any more.
                listener.end(signal);
            }
        });
        if settings.leaves_time {
            (settings.flush)(left());
            // A tenth of the time is for the end.
            let until = begun.checked_add(grace - grace / 10);
            let mut hurry = self.hurry.lock();
            while !*hurry && !self.hurried.wait_until(&mut hurry, until) {}
            if *hurry {
                // The value was dropped: the program ends by itself.
                drop(hurry);
                if let Ok(second) = second {
                    sync::join(second);
                }
                return;
            }
        }
        if let Some(life) = &settings.run {
            let preempted = training::Preempted { reason: name(signal).to_owned(), epoch: life.epoch() };
            let _ = life.end_within(preempted, left() / 2);
        }
        (settings.stop)(left().max(Duration::from_millis(50)));
        self.end(signal);
    }

    /// The process ends as it would have without us.
    fn end(&self, signal: i32) {
        self.is_over.store(true, Ordering::SeqCst);
        // It fails for a signal that is unknown to the library alone, and ours are known.
        let _ = emulate_default_handler(signal);
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        if self.watch.in_child.is_child.load(Ordering::SeqCst) {
            // Nor may a handle of the collector end here, or a lock be taken.
            std::mem::forget((self.thread.take(), Arc::clone(&self.watch)));
            return;
        }
        self.watch.is_over.store(true, Ordering::SeqCst);
        self.handle.close();
        *self.watch.hurry.lock() = true;
        self.watch.hurried.notify_all();
        if let Some(thread) = self.thread.take() {
            sync::join(thread);
        }
    }
}

fn name(signal: i32) -> &'static str {
    signal_name(signal).unwrap_or("a signal")
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signals").field("received", &self.received()).finish_non_exhaustive()
    }
}

impl fmt::Debug for SignalsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignalsBuilder")
            .field("signals", &self.signals.iter().copied().map(name).collect::<Vec<_>>())
            .field("grace", &self.grace)
            .finish_non_exhaustive()
    }
}
