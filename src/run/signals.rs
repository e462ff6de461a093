//! SIGTERM and SIGINT: events are delivered, the run is marked as preempted, and the process ends by the signal.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::{register, register_conditional_default};
use signal_hook::iterator;
use signal_hook::low_level::{emulate_default_handler, signal_name};

use super::TrainingRun;
use crate::clock::deadline_in;
use crate::collector::Collector;
use crate::config::{ConfigError, check};
use crate::event::catalog::training;
use crate::event::{Event, Record};
use crate::reply::Reply;
use crate::sync::{self, Arc, Condvar, JoinHandle, Mutex, Ordering, PlainBool, PlainU64, catch_panic};
use crate::unix::{SIGNALS, SignalSlot, has_default_effect, hook_forks};

/// Watch for SIGTERM and SIGINT, on a thread of its own (feature `signals`, Unix).
///
/// The first signal marks the run as preempted, if there is one. It stops the collector, which delivers and flushes what was
/// collected. Then the process ends by that signal, with the status that shells and schedulers expect. All of it ends within the
/// grace period ([`SignalsBuilder::grace`]). A second signal, or the end of that period, ends the process at once. One that comes
/// within a second of the first is no second one: launchers signal a whole group of processes, and then forward the signal.
///
/// With [`leave_time`](SignalsBuilder::leave_time) the loop may end by itself. What was collected is flushed at once. The
/// rest waits until the grace period is nearly over, the value is dropped, or a second signal comes. Ask
/// [`received`](Self::received) in the loop, which is one load, or let a thread [`wait`](Self::wait).
///
/// Several values may watch the same signals: the process ends when all are done. A signal that no value watches has its
/// default effect again, unless other code of the program handled it before the first value was made. The same holds in a forked
/// child, until it makes a value of its own. Where the program sets a handler of its own later and takes it away again, the
/// next value to be made restores the watch for all. The value holds a handle of the collector.
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
///     collector.collect(Record::scalar("train.loss", 0.5).with_step(step));
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
}

/// Builder of [`Signals`]. [`start`](Self::start) begins to watch.
#[must_use = "a builder does nothing until `start`"]
pub struct SignalsBuilder {
    flush: Box<dyn Fn(Duration) + Send>,
    stop: Box<dyn Fn(Duration) + Send>,
    /// Marks the run as preempted by the signal of this name, within this time.
    preempt: Option<Box<Preempt>>,
    signals: Vec<i32>,
    grace: Duration,
    leaves_time: bool,
}

type Preempt = dyn Fn(&str, Duration) + Send;

/// State that the value shares with the threads that get signals.
struct Watch {
    /// Another process is a forked child, which has none of these threads.
    process: u32,
    signals: Vec<i32>,
    grace: Duration,
    /// The first signal; 0 before.
    received: PlainU64,
    /// Plan of what a signal starts. The thread that does it takes it.
    plan: Mutex<Option<SignalsBuilder>>,
    /// Thread that carries out the plan.
    finisher: Mutex<Option<JoinHandle<()>>>,
    is_dropped: Mutex<bool>,
    /// Notified when the value is dropped, or a signal was received.
    changed: Condvar,
}

/// The one thread of the process that gets signals, and the values that watch them.
struct Listener {
    process: u32,
    /// Adds more signals to those that the thread gets.
    handle: iterator::Handle,
    watches: Vec<Arc<Watch>>,
}

/// `None` until the first value is made. Never held while anything waits, and only [unforked](sync::unforked): a forked child
/// makes values of its own, and must not find it locked.
static LISTENER: Mutex<Option<Listener>> = Mutex::fixed(None);

/// Time after the first signal in which another is the same one, forwarded by a parent.
const REPEATS: Duration = Duration::from_secs(1);

/// Reason why signals cannot be watched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignalsError {
    /// The signal is not allowed.
    #[error(transparent)]
    Signal(#[from] ConfigError),
    /// The system refused a handler, a pipe or a thread.
    #[error("cannot watch signals: {0}")]
    System(#[from] io::Error),
}

impl Signals {
    /// Returns a builder of signals that stop this collector.
    pub fn builder<E: Event>(collector: &Collector<E>) -> SignalsBuilder {
        let (flushed, stopped) = (collector.clone(), collector.clone());
        SignalsBuilder {
            flush: Box::new(move |max| drop(flushed.shared.flush(Reply::unheard(), max))),
            stop: Box::new(move |max| drop(stopped.stop_timeout(max))),
            preempt: None,
            signals: vec![SIGTERM, SIGINT],
            grace: Duration::from_secs(5),
            leaves_time: false,
        }
    }

    /// Returns the name of the signal that came first, such as `SIGTERM`.
    #[inline]
    pub fn received(&self) -> Option<&'static str> {
        match self.watch.received.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(name(signal as i32)),
        }
    }

    /// Blocks until a signal comes, and returns its name. Returns at once if one has come.
    ///
    /// A program that waits here should [leave time](SignalsBuilder::leave_time) for its end: without, the process ends with the
    /// signal, although a thread waits. Several threads may wait. In a forked child, no signal is seen: this returns at once there,
    /// with a signal if it came before the fork.
    ///
    /// ```no_run
    /// use forebay::{Collector, run::Signals};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let collector = Collector::builder().start()?;
    /// let signals = Signals::builder(&collector).leave_time().start()?;
    /// // The service runs on other threads.
    /// let signal = signals.wait();
    /// println!("ends by {}", signal.unwrap_or("nothing"));
    /// collector.stop()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait(&self) -> Option<&'static str> {
        self.wait_until(None)
    }

    /// Blocks until a signal comes, for `timeout` at most, and returns its name. Returns `None` when none came in time.
    pub fn wait_timeout(&self, timeout: Duration) -> Option<&'static str> {
        self.wait_until(deadline_in(timeout))
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Option<&'static str> {
        if self.watch.process == std::process::id() {
            let mut guard = self.watch.is_dropped.lock();
            while self.received().is_none() && !self.watch.changed.wait_until(&mut guard, deadline) {}
        }
        self.received()
    }
}

impl SignalsBuilder {
    /// Makes the first signal mark a run as preempted.
    pub fn run<E: Event + From<Record>>(mut self, run: &TrainingRun<E>) -> Self {
        let life = Arc::clone(&run.life);
        self.preempt = Some(Box::new(move |signal, timeout| {
            let preempted = training::Preempted { reason: signal.to_owned(), epoch: life.epoch() };
            let _ = life.end_timeout(preempted, timeout);
        }));
        self
    }

    /// Sets how long after the first signal the process ends at the latest. (Kubernetes and Slurm kill it after 30 s by default.)
    /// Defaults to 5 s.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Leaves the loop time to end by itself, instead of ending the process at once.
    pub fn leave_time(mut self) -> Self {
        self.leaves_time = true;
        self
    }

    /// Watches another signal as well: SIGHUP, SIGQUIT, SIGUSR1 or SIGUSR2, by its number.
    pub fn also(mut self, signal: i32) -> Self {
        self.signals.push(signal);
        self
    }

    /// Watches this signal alone, in the place of SIGTERM and SIGINT: for a host that handles the others by itself, as Python does
    /// with SIGINT.
    pub fn only(mut self, signal: i32) -> Self {
        self.signals = vec![signal];
        self
    }

    /// Watches from now on, until the value is dropped.
    ///
    /// # Errors
    ///
    /// A signal that is not allowed; or the system refused a handler, a pipe or a thread. Signals have their default effect
    /// then, unless they are watched already.
    pub fn start(self) -> Result<Signals, SignalsError> {
        let slot = |signal: &i32| SIGNALS.iter().find(|slot| slot.signal == *signal);
        let allowed = "the number of SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1 or SIGUSR2";
        for signal in &self.signals {
            check("signal", signal, allowed, slot(signal).is_some())?;
        }
        hook_forks();
        let watch = Arc::new(Watch {
            process: std::process::id(),
            signals: self.signals.clone(),
            grace: self.grace,
            received: PlainU64::new(0),
            plan: Mutex::new(Some(self)),
            finisher: Mutex::new(None),
            is_dropped: Mutex::new(false),
            changed: Condvar::new(),
        });
        // The locks of signal-hook are taken in there as well. What fails is dropped out here: it may hold the last handle of
        // the collector.
        sync::unforked(|| listen(&watch))?;
        Ok(Signals { watch })
    }
}

/// Adds a watch to the listener of this process.
fn listen(watch: &Arc<Watch>) -> Result<(), SignalsError> {
    let mut listener = LISTENER.lock();
    let slot = |signal: &i32| SIGNALS.iter().find(|slot| slot.signal == *signal);
    for slot in watch.signals.iter().filter_map(slot) {
        prepare(slot)?;
    }
    if listener.as_ref().is_some_and(|listener| listener.process != watch.process) {
        // That of a forked child's parent.
        std::mem::forget(listener.take());
    }
    let listener = match &mut *listener {
        Some(listener) => listener,
        none => none.insert(Listener::start(watch.process)?),
    };
    for signal in &watch.signals {
        listener.handle.add_signal(*signal)?;
    }
    listener.watches.push(Arc::clone(watch));
    listener.decide_defaults();
    Ok(())
}

/// Registers the flags that the handler of a signal reads. Until they change, the signal has its default effect.
fn prepare(slot: &'static SignalSlot) -> io::Result<()> {
    if slot.is_default.get().is_none() {
        let had_default = has_default_effect(slot.signal);
        slot.had_default.store(had_default, Ordering::SeqCst);
        let (is_default, came) = (Arc::new(PlainBool::new(had_default)), Arc::new(PlainBool::new(false)));
        register(slot.signal, Arc::clone(&came))?;
        register_conditional_default(slot.signal, Arc::clone(&is_default))?;
        slot.note_handler();
        // In this order: the hook of a fork looks at both.
        _ = slot.came.set(came);
        _ = slot.is_default.set(is_default);
    } else if slot.had_default.load(Ordering::SeqCst) && has_default_effect(slot.signal) {
        // The program has set a handler of its own since, and taken it away. The library registers each signal with the system once.
        slot.restore_handler()?;
    }
    Ok(())
}

impl Listener {
    fn start(process: u32) -> Result<Self, SignalsError> {
        let mut coming = iterator::Signals::new([] as [i32; 0])?;
        let handle = coming.handle();
        sync::spawn("forebay-signals", None, move || {
            let mut first = None;
            for signal in coming.forever() {
                on_signal(signal, &mut first);
            }
        })?;
        Ok(Self { process, handle, watches: Vec::new() })
    }

    /// Signals that nobody watches have their default effect, unless somebody else saw to them before.
    fn decide_defaults(&self) {
        for slot in &SIGNALS {
            let is_watched = self.watches.iter().any(|watch| watch.signals.contains(&slot.signal));
            if let Some(is_default) = slot.is_default.get() {
                is_default.store(!is_watched && slot.had_default.load(Ordering::SeqCst), Ordering::SeqCst);
            }
        }
    }
}

/// Has every watch of the signal finish its run on a thread of its own. A second signal ends the process, except within a second of the
/// moment of the first.
fn on_signal(signal: i32, first_at: &mut Option<Instant>) {
    let mut watches: Vec<Arc<Watch>> = sync::unforked(|| match &*LISTENER.lock() {
        Some(listener) => listener.watches.clone(),
        None => Vec::new(),
    });
    let repeats = first_at.is_some_and(|moment| moment.elapsed() < REPEATS);
    let before = watches.iter().map(|watch| watch.received.load(Ordering::Relaxed)).find(|first| *first != 0);
    if let Some(first) = before {
        if !repeats {
            // The second one: no waiting for anything any more.
            end(first as i32);
        }
        return;
    }
    watches.retain(|watch| watch.signals.contains(&signal));
    let plan_of = |watch: Arc<Watch>| {
        let plan = watch.plan.lock().take();
        plan.map(|plan| (watch, plan))
    };
    let plans: Vec<_> = watches.into_iter().filter_map(plan_of).collect();
    if plans.is_empty() {
        // Who watched it was dropped since it came. One that repeats the first is answered by what the first began.
        let had_default =
            |slot: &SignalSlot| slot.signal == signal && slot.had_default.load(Ordering::SeqCst);
        if !repeats && SIGNALS.iter().any(had_default) {
            end(signal);
        }
        return;
    }
    *first_at = Some(Instant::now());
    // How many are not done, and whether one of those who are leaves the process to us.
    let (left, is_ours) = (Arc::new(PlainU64::new(plans.len() as u64)), Arc::new(PlainBool::new(false)));
    let begun = Instant::now();
    let mut threadless = Vec::new();
    for (watch, plan) in plans {
        watch.receive(signal);
        let (own, left, is_ours) = (Arc::clone(&watch), Arc::clone(&left), Arc::clone(&is_ours));
        let plan = Mutex::new(Some(plan));
        let finish = Arc::new(move || {
            let Some(plan) = plan.lock().take() else { return };
            is_ours.fetch_or(own.finish(signal, plan, begun), Ordering::SeqCst);
            if left.fetch_sub(1, Ordering::SeqCst) == 1 && is_ours.load(Ordering::SeqCst) {
                end(signal);
            }
        });
        let theirs = Arc::clone(&finish);
        let mut finisher = watch.finisher.lock();
        match sync::spawn("forebay-signals", None, move || theirs()) {
            Ok(thread) => *finisher = Some(thread),
            Err(_) => threadless.push(finish),
        }
        drop(finisher);
        // Whatever hangs: the grace period is an end.
        let _ = sync::spawn("forebay-signals", None, move || {
            if !watch.waits_for_drop(Instant::now().checked_add(watch.grace)) {
                end(signal);
            }
        });
    }
    // Where the system refuses a thread, this one does it, once all others have begun. It hears no second signal meanwhile.
    threadless.into_iter().for_each(|finish| finish());
}

/// Ends the process as the signal would have without a handler.
fn end(signal: i32) {
    for is_default in SIGNALS.iter().filter_map(|slot| slot.is_default.get()) {
        is_default.store(true, Ordering::SeqCst);
    }
    // It fails for a signal that is unknown to the library alone, and ours are known.
    let _ = emulate_default_handler(signal);
}

impl Watch {
    /// Notes which signal came, and wakes who waits for one.
    fn receive(&self, signal: i32) {
        self.received.store(signal as u64, Ordering::Relaxed);
        // Whoever saw none before the store holds the lock until it waits.
        drop(self.is_dropped.lock());
        self.changed.notify_all();
    }

    /// Carries out what the signal that came at `begun` is to start. Returns whether the process is then ours to end.
    fn finish(&self, signal: i32, plan: SignalsBuilder, begun: Instant) -> bool {
        let left = || plan.grace.saturating_sub(begun.elapsed());
        if plan.leaves_time {
            let _ = catch_panic(|| (plan.flush)(left()));
            // A tenth of the time is for the end.
            if self.waits_for_drop(begun.checked_add(plan.grace - plan.grace / 10)) {
                // The program ends by itself.
                return false;
            }
        }
        // Each runs code of the user's events. Whatever of it panics, the process ends in time, and what can be delivered is.
        if let Some(preempt) = &plan.preempt {
            let _ = catch_panic(|| preempt(name(signal), left() / 2));
        }
        let _ = catch_panic(|| (plan.stop)(left().max(Duration::from_millis(50))));
        true
    }

    /// Waits until the value is dropped. Returns `false` if the deadline came first.
    fn waits_for_drop(&self, until: Option<Instant>) -> bool {
        let mut is_dropped = self.is_dropped.lock();
        while !*is_dropped && !self.changed.wait_until(&mut is_dropped, until) {}
        *is_dropped
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        if self.watch.process != std::process::id() {
            // In a forked child, neither a handle of the collector may end here, nor a lock be taken.
            std::mem::forget(Arc::clone(&self.watch));
            return;
        }
        sync::unforked(|| {
            if let Some(listener) = &mut *LISTENER.lock() {
                listener.watches.retain(|watch| !Arc::ptr_eq(watch, &self.watch));
                listener.decide_defaults();
            }
        });
        *self.watch.is_dropped.lock() = true;
        self.watch.changed.notify_all();
        // One that is past waiting ends the process.
        let finisher = self.watch.finisher.lock().take();
        if let Some(finisher) = finisher {
            sync::join(finisher);
        }
        let plan = self.watch.plan.lock().take();
        // It may hold the last handle of the collector: not under our lock.
        drop(plan);
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
