//! `SelfLog`: messages of forebay about itself, to a hook. They are rate-limited, and none comes from within the
//! hook.

use std::fmt;
use std::time::SystemTime;

use serde::Serialize;

use crate::clock::Clock;
use crate::escape::OneLine;
use crate::sync::{HookMark, Ordering, PlainU64, catch_panic};

/// Log entry of forebay about itself: see [`Builder::on_log`](crate::Builder::on_log).
///
/// # Examples
///
/// ```
/// use forebay::sink::{SinkError, from_fn};
/// use forebay::log::LogLevel;
/// use forebay::{Batch, Collector, Record};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (said, heard) = std::sync::mpsc::channel();
/// let collector = Collector::builder()
///     .on_log(move |entry| _ = said.send(entry.clone()))
///     .sink(from_fn("disk", |_: &Batch| Err(SinkError::unavailable("no such device"))))
///     .start()?;
/// collector.collect(Record::new("tick"));
/// collector.stop()?;
/// let entry = heard.recv()?;
/// assert_eq!((entry.level, entry.sink.as_deref()), (LogLevel::Error, Some("disk")));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LogEntry {
    /// Severity of a log entry.
    pub level: LogLevel,
    /// The topic.
    pub topic: LogTopic,
    /// The sink, if the entry is about one.
    pub sink: Option<String>,
    /// The message: a sentence without a full stop.
    pub message: String,
    /// Number of entries of that topic and sink that were held back since the last one.
    pub held_back: u64,
    /// Time when the entry was made.
    pub time: SystemTime,
}

/// Severity of a log entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LogLevel {
    /// Information.
    Info,
    /// Something was lost, or will be.
    Warn,
    /// Something does not work.
    Error,
}

/// Topic of a log entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LogTopic {
    /// A call of a sink failed.
    SinkFailed,
    /// A call of a sink panicked.
    SinkPanicked,
    /// A failed batch is tried again.
    Retried,
    /// Events became dead letters.
    DeadLettered,
    /// The queue of a sink was full: events were evicted or rejected.
    QueueFull,
    /// A breaker opened or closed.
    Breaker,
    /// Events were evicted.
    Evicted,
    /// The closure of [`Builder::enrich`](crate::Builder::enrich) panicked.
    EnrichPanicked,
    /// The worker ended by a panic in forebay itself.
    WorkerGone,
    /// A sink goes on where an earlier run has written. A resumed run is reported too, except by
    /// [`TensorBoardSink::resume`](crate::sink::TensorBoardSink::resume), and so is a sink that is created again. Two processes that
    /// start at the same time may see nothing of each other.
    EarlierRun,
    /// A call of `health` raised or cleared an alert.
    Alert,
}

const TOPICS: usize = LogTopic::Alert as usize + 1;

/// Minimum time between two entries of a topic, in nanoseconds.
const INTERVAL_NANOS: u64 = 1_000_000_000;

pub(crate) type Hook = dyn Fn(&LogEntry) + Send + Sync;

/// Hook of a collector, if it has one.
#[derive(Default)]
pub(crate) struct SelfLog {
    hook: Option<Box<Hook>>,
    clock: Clock,
}

/// State of the rate limits, by topic: one for the collector, one for each sink.
#[derive(Debug, Default)]
pub(crate) struct LogPaces([Topic; TOPICS]);

#[derive(Debug, Default)]
struct Topic {
    /// Time when the next entry may pass, by the collector's clock.
    next: PlainU64,
    held_back: PlainU64,
}

impl SelfLog {
    pub(crate) fn new(hook: Option<Box<Hook>>, clock: Clock) -> Self {
        Self { hook, clock }
    }

    /// Calls the hook, unless it was called for this topic within a second, or this thread is in a hook. The caller
    /// holds no lock: the hook is user code, and may ask for statistics.
    pub(crate) fn say(
        &self,
        paces: &LogPaces,
        (level, topic): (LogLevel, LogTopic),
        sink: Option<&str>,
        message: impl FnOnce() -> String,
    ) {
        let Some(hook) = &self.hook else { return };
        let Some(last) = paces.0.get(topic as usize) else { return };
        let mark = HookMark::set();
        if mark.is_none() || !last.is_due(self.clock.nanos()) {
            last.held_back.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let entry = LogEntry {
            level,
            topic,
            sink: sink.map(str::to_owned),
            message: message(),
            held_back: last.held_back.swap(0, Ordering::Relaxed),
            time: SystemTime::now(),
        };
        // A panic of the hook concerns no caller.
        _ = catch_panic(|| hook(&entry));
        drop(mark);
    }
}

impl Drop for SelfLog {
    fn drop(&mut self) {
        // User code.
        let hook = self.hook.take();
        _ = catch_panic(|| drop(hook));
    }
}

impl Topic {
    fn is_due(&self, now: u64) -> bool {
        let next = self.next.load(Ordering::Relaxed);
        // If the moment is further ahead than any pace, the clock went backward.
        let is_due = next <= now || next > now.saturating_add(2 * INTERVAL_NANOS);
        // A second thread that comes at the same time fails here.
        is_due
            && self
                .next
                .compare_exchange(
                    next,
                    now.saturating_add(INTERVAL_NANOS),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok()
    }
}

impl fmt::Display for LogEntry {
    /// Writes `warn: sink: message (and 3 more before)` on one line. Control and bidirectional characters are
    /// escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            LogLevel::Info => "info",
            LogLevel::Warn => "warn",
            LogLevel::Error => "error",
        };
        write!(f, "{level}: ")?;
        if let Some(sink) = &self.sink {
            write!(f, "{}: ", OneLine(sink))?;
        }
        write!(f, "{}", OneLine(&self.message))?;
        if self.held_back > 0 {
            write!(f, " (and {} more before)", self.held_back)?;
        }
        Ok(())
    }
}

impl fmt::Debug for SelfLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SelfLog").field("has_hook", &self.hook.is_some()).finish_non_exhaustive()
    }
}
