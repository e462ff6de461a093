//! `Bridge`, `Guard` and `Report`: what a bridge from another library of logs stands on.
//!
//! A bridge gets events from code that knows nothing of a collector. Such code logs from within a sink, and from within a `Debug` that
//! is being formatted for an earlier event. Either may go on without an end, so both are bounded here, and counted.

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use crate::collector::{Collector, StopError};
use crate::event::{Event, Formatted, List, Priority, Record, Text};
use crate::stats::{SinkStats, Stats, StopReport};
use crate::sync::{Arc, Ordering, PlainU64, catch_panic, is_delivering};

/// Number of events that may be within each other.
const MAX_DEPTH: u32 = 4;

/// Most causes of an error that are kept.
const MAX_CAUSES: usize = 16;

/// Most bytes of the message of a panic that is no value's own.
const MAX_MESSAGE_BYTES: usize = 1 << 12;

thread_local! {
    /// Number of events that this thread is in. It has no destructor, so that it can be read for as long as the thread lives.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Handle of a collector for a bridge from another library: what comes by [`enter`](Self::enter) cannot go in circles.
///
/// # Examples
///
/// ```
/// use forebay::bridge::Bridge;
/// use forebay::{Collector, Priority, Record, sink::MemorySink};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let memory = MemorySink::new();
/// let bridge = Bridge::new(Collector::builder().sink(memory.clone()).start()?);
/// let guard = bridge.guard();
/// let log = |error: &dyn std::fmt::Debug| {
///     let Some(_entered) = bridge.enter() else { return };
///     let make = || Record::new("log").with_field("error", bridge.text(100, format_args!("{error:?}")));
///     bridge.collector().collect_with("log", Priority::Normal, make);
/// };
/// log(&"no space");
/// assert_eq!(guard.stop().lost(), 0);
/// assert_eq!(memory.len(), 1);
/// # Ok(())
/// # }
/// ```
pub struct Bridge<E: Event = Record> {
    collector: Collector<E>,
    counters: Arc<Counters>,
}

/// Counters of what does not reach the collector, or reaches it changed. Nothing depends on them: they are only read for a report.
#[derive(Debug, Default)]
struct Counters {
    own_thread: PlainU64,
    too_deep: PlainU64,
    ignored: PlainU64,
    panicked: PlainU64,
    failed: PlainU64,
    cut: PlainU64,
}

impl<E: Event> Bridge<E> {
    /// Makes a bridge to a collector.
    pub fn new(collector: Collector<E>) -> Self {
        Self { collector, counters: Arc::default() }
    }

    /// Returns the collector.
    #[inline]
    pub fn collector(&self) -> &Collector<E> {
        &self.collector
    }

    /// Makes a guard that stops the collector.
    pub fn guard(&self) -> Guard<E> {
        let timeout = self.collector.config().stop_timeout;
        Guard { bridge: self.clone(), timeout, on_stop: None, is_stopped: false }
    }

    /// Begins an event, which ends when the value is dropped. Returns `None`, and counts the event, on a thread that delivers for any
    /// collector, and within four other events.
    ///
    /// For any: two bridges whose sinks log would hand their events to one another without an end.
    #[inline]
    pub fn enter(&self) -> Option<Entered> {
        self.enter_or(add)
    }

    /// Begins an event of that name and priority, as [`enter`](Self::enter) does. One that the [gate](Collector::passes_gate) would
    /// reject is not counted as kept away: nobody wants it.
    #[inline]
    pub fn enter_as(&self, name: &str, priority: Priority) -> Option<Entered> {
        self.enter_or(|counter| {
            if self.collector.passes_gate(name, priority) {
                add(counter);
            }
        })
    }

    /// Begins something that formats values and is no event, such as a span. It is refused as an event is, and not counted.
    #[inline]
    pub fn enter_uncounted(&self) -> Option<Entered> {
        self.enter_or(|_| ())
    }

    #[inline]
    fn enter_or(&self, refuse: impl FnOnce(&PlainU64)) -> Option<Entered> {
        let depth = DEPTH.get();
        if is_delivering() {
            refuse(&self.counters.own_thread);
            return None;
        }
        if depth >= MAX_DEPTH {
            refuse(&self.counters.too_deep);
            return None;
        }
        DEPTH.set(depth + 1);
        Some(Entered(PhantomData))
    }

    /// Formats a value, as [`Formatted::of`] does, and counts a panic, an error and a cut.
    pub fn text(&self, max_bytes: usize, arguments: fmt::Arguments<'_>) -> Text {
        self.text_known(max_bytes, arguments, None)
    }

    /// Formats a value, as [`Formatted::of_known`] does, and counts a panic, an error and a cut.
    pub fn text_known(
        &self,
        max_bytes: usize,
        arguments: fmt::Arguments<'_>,
        known: Option<&'static &'static str>,
    ) -> Text {
        let formatted = Formatted::of_known(max_bytes, arguments, known);
        if formatted.is_cut {
            add(&self.counters.cut);
        }
        if formatted.has_panicked {
            add(&self.counters.panicked);
        }
        if formatted.has_failed {
            add(&self.counters.failed);
        }
        formatted.text
    }

    /// Formats the causes of an error, the nearest first, each as [`text`](Self::text) does: 16 at most. A panic of
    /// [`source`](std::error::Error::source) leaves `(panicked: MESSAGE)` in its place, and ends the list.
    pub fn causes(&self, max_bytes: usize, error: &(dyn Error + 'static)) -> List {
        let mut causes = Vec::new();
        let mut last = Some(error);
        while let Some(error) = last.take()
            && causes.len() < MAX_CAUSES
        {
            match self.catch(|| error.source()) {
                Ok(source) => {
                    causes.extend(source.map(|source| self.text(max_bytes, format_args!("{source}"))));
                    last = source;
                }
                Err(panicked) => causes.push(panicked),
            }
        }
        causes.into_iter().collect()
    }

    /// Calls user code, and counts its panic. Returns `(panicked: MESSAGE)` then.
    ///
    /// # Errors
    ///
    /// It panicked.
    pub fn catch<R>(&self, user_code: impl FnOnce() -> R) -> Result<R, Text> {
        catch_panic(user_code).map_err(|said| {
            add(&self.counters.panicked);
            Formatted::of(MAX_MESSAGE_BYTES, format_args!("(panicked: {said})")).text
        })
    }

    /// Counts a value that its own code could not give, by an error.
    pub fn count_failed(&self) {
        add(&self.counters.failed);
    }

    /// Counts an event that the bridge leaves out, because it was asked to.
    pub fn count_ignored(&self) {
        add(&self.counters.ignored);
    }

    /// Returns the counts so far.
    pub fn counts(&self) -> Counts {
        let get = |counter: &PlainU64| counter.load(Ordering::Relaxed);
        let Counters { own_thread, too_deep, ignored, panicked, failed, cut } = &*self.counters;
        Counts {
            own_thread: get(own_thread),
            too_deep: get(too_deep),
            ignored: get(ignored),
            panicked: get(panicked),
            failed: get(failed),
            cut: get(cut),
        }
    }
}

fn add(counter: &PlainU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl<E: Event> Clone for Bridge<E> {
    fn clone(&self) -> Self {
        Self { collector: self.collector.clone(), counters: Arc::clone(&self.counters) }
    }
}

impl<E: Event> fmt::Debug for Bridge<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bridge").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

/// Event that the calling thread is in: what [`Bridge::enter`] returns. It stays on its thread, and so in no task across an `await`:
///
/// ```compile_fail,E0277
/// fn is_send<T: Send>(_: T) {}
/// let collector = forebay::Collector::builder().build().unwrap();
/// is_send(forebay::bridge::Bridge::new(collector).enter());
/// ```
#[derive(Debug)]
#[must_use = "dropped at once, it marks nothing"]
pub struct Entered(PhantomData<*const ()>);

impl Drop for Entered {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get().saturating_sub(1));
    }
}

/// Counts of what a bridge kept away from its collector (the first three), or changed.
///
/// Everything else was offered to the collector, whose [`Stats`] say what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counts {
    /// Events of the threads that deliver, for this collector or another one: a sink, or a library that it uses, has logged. They would
    /// lead to one another without an end.
    pub own_thread: u64,
    /// Events within four other events: a `Debug` that logs itself.
    pub too_deep: u64,
    /// Events that the bridge was asked to ignore.
    pub ignored: u64,
    /// Values whose `Debug` or `Display` panicked, or other code of theirs. Their field says `(panicked: MESSAGE)`.
    pub panicked: u64,
    /// Values whose `Debug` or `Display` returned an error, or other code of theirs. Their field ends with `(failed)`.
    pub failed: u64,
    /// Texts that were cut, because they were longer than allowed.
    pub cut: u64,
}

/// Guard that stops a collector when it is dropped: keep it until the end of `main`.
///
/// The drop waits for at most [`timeout`](Self::timeout). [`stop`](Self::stop) does the same at once, and reports. A program
/// that ends by `std::process::exit` drops nothing: call `stop` before.
///
/// It stops the collector with all of its handles.
#[must_use = "dropped at once, it stops the collector at once"]
pub struct Guard<E: Event = Record> {
    bridge: Bridge<E>,
    timeout: Duration,
    /// User code that gets the report. `None` once it was called.
    on_stop: Option<Box<OnStop>>,
    is_stopped: bool,
}

type OnStop = dyn FnOnce(&Report) + Send + Sync;

impl<E: Event> Guard<E> {
    /// Sets how long the stop may take. Defaults to [`Config::stop_timeout`](crate::Config::stop_timeout) of the collector.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Calls a function with the report when the collector was stopped, also by a drop. Its panic is caught. In a forked child, where
    /// the collector is its parent's, it is not called.
    pub fn on_stop(mut self, report: impl FnOnce(&Report) + Send + Sync + 'static) -> Self {
        self.on_stop = Some(Box::new(report));
        self
    }

    /// Stops the collector, delivers what is pending, and reports what was lost.
    pub fn stop(mut self) -> Report {
        self.end()
    }

    /// Returns the collector: for its statistics, its health, or a flush.
    pub fn collector(&self) -> &Collector<E> {
        &self.bridge.collector
    }

    /// Returns what the bridge kept away or changed so far.
    pub fn counts(&self) -> Counts {
        self.bridge.counts()
    }

    fn end(&mut self) -> Report {
        self.is_stopped = true;
        let collector = &self.bridge.collector;
        let stop = collector.stop_timeout(self.timeout);
        // In this order: what leaves a queue in between is counted once at most.
        let stats = collector.stats();
        let left_in_sinks = collector.shared.registry.kept();
        let report = Report { stats, stop, left_in_sinks, counts: self.counts() };
        let on_stop = self.on_stop.take().filter(|_| !matches!(report.stop, Err(StopError::Forked)));
        if let Some(on_stop) = on_stop {
            // Nobody is left to be told of its panic.
            _ = catch_panic(|| on_stop(&report));
        }
        report
    }
}

impl<E: Event> Drop for Guard<E> {
    fn drop(&mut self) {
        if !self.is_stopped {
            drop(self.end());
        }
    }
}

impl<E: Event> fmt::Debug for Guard<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// Report of a [`Guard`]: what became of all events.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Report {
    /// The report of the collector, or why it did not stop in time.
    pub stop: Result<StopReport, StopError>,
    /// The account of the collector at that moment.
    pub stats: Stats,
    /// Events that sinks still had in queues of their own, as [isolated](crate::sink::Isolated) ones have, once for each sink.
    pub left_in_sinks: u64,
    /// What the bridge kept away or changed.
    pub counts: Counts,
}

impl Report {
    /// Returns how many events were lost: evicted, rejected, too large, left behind, or kept away by the bridge lest they go in circles.
    /// An event that a sink did not take is lost there, once for each sink: it failed, the queue of the sink was full, it is still in that
    /// queue, or it is a dead letter that was not delivered after all. What the gate or an ignored target kept out was not wanted, and is
    /// not lost.
    pub fn lost(&self) -> u64 {
        self.reasons().map(|(count, _)| count).fold(0, u64::saturating_add)
    }

    fn reasons(&self) -> impl Iterator<Item = (u64, &'static str)> {
        let (stats, counts) = (&self.stats, &self.counts);
        // Saturating: a sink may give its account any number.
        let in_sinks =
            |count: fn(&SinkStats) -> u64| stats.sinks.iter().map(count).fold(0, u64::saturating_add);
        [
            (stats.evicted, "evicted"),
            (stats.rejected.full, "rejected as full"),
            (stats.rejected.stopped, "after the stop"),
            (stats.rejected.worker_gone, "without a worker"),
            (stats.rejected.forked, "of a forked child"),
            (stats.oversize, "too large"),
            (in_sinks(|sink| sink.failed), "failed in a sink"),
            (in_sinks(|sink| sink.evicted), "evicted by the queue of a sink"),
            (in_sinks(|sink| sink.rejected), "rejected by the queue of a sink"),
            (in_sinks(|sink| sink.dead_lettered.saturating_sub(sink.redriven)), "dead letters"),
            (self.left_in_sinks, "left in the queue of a sink"),
            (stats.pending, "left behind"),
            (counts.own_thread, "of the threads that deliver"),
            (counts.too_deep, "too deep in each other"),
        ]
        .into_iter()
    }
}

impl fmt::Display for Report {
    /// Writes one line: how many the collector has processed, and how many were lost on the way or in a sink, by reason.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} processed, {} lost", self.stats.processed, self.lost())?;
        for (place, (count, reason)) in self.reasons().filter(|(count, _)| *count > 0).enumerate() {
            write!(f, "{} {count} {reason}", if place == 0 { ":" } else { "," })?;
        }
        match &self.stop {
            Ok(_) => Ok(()),
            Err(error) => write!(f, " ({error})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::PlainMutex;

    #[test]
    fn the_report_of_a_guard_names_each_loss_by_its_reason() {
        let bridge = Bridge::new(Collector::builder().capacity(2).build().unwrap());
        let guard = bridge.guard();
        for _ in 0..3 {
            bridge.collector().collect(Record::new("tick"));
        }
        let entered: Vec<_> = (0..6).filter_map(|_| bridge.enter()).collect();
        assert_eq!(entered.len(), 4);
        drop(entered);
        assert!(bridge.enter().is_some(), "an event that ended is not counted");
        bridge.text(3, format_args!("long"));
        let heard = Arc::new(PlainMutex::new(String::new()));
        let said = Arc::clone(&heard);
        let guard = guard.on_stop(move |report| *said.lock() = report.to_string());
        // It never ran: what is queued is discarded.
        let report = guard.stop();
        assert_eq!(
            report.to_string(),
            "0 processed, 5 lost: 1 evicted, 2 after the stop, 2 too deep in each other"
        );
        assert_eq!((heard.lock().clone(), report.counts.cut), (report.to_string(), 1));
    }
}
