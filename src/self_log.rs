//! What forebay says of itself: to a hook, rate-limited, and never within the hook.

use std::fmt;
use std::time::SystemTime;

use serde::Serialize;

use crate::clock::Clock;
use crate::escape::OneLine;
use crate::sync::{HookMark, Ordering, PlainU64, guarded};

/// Something that forebay has to say of itself: see [`Builder::on_log`](crate::Builder::on_log).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LogEntry {
    /// How bad it is.
    pub level: LogLevel,
    /// What it is about.
    pub topic: LogTopic,
    /// The sink that it is about, if it is about one.
    pub sink: Option<String>,
    /// A sentence without a full stop.
    pub message: String,
    /// How many entries of that topic and sink were held back since the last one.
    pub held_back: u64,
    /// When it was said.
    pub time: SystemTime,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LogLevel {
    /// Good to know.
    Info,
    /// Something was lost, or will be.
    Warn,
    /// Something does not work.
    Error,
}

/// What an entry is about.
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
    /// The queue of an isolated sink overflowed.
    Shed,
    /// A breaker opened or closed.
    Breaker,
    /// Events made room for newer ones.
    Evicted,
    /// What completes events panicked.
    EnrichPanicked,
    /// The worker ended by a panic in forebay itself.
    WorkerGone,
    /// The health of the collector was looked at, and an alert was raised or cleared.
    Alert,
}

const TOPICS: usize = LogTopic::Alert as usize + 1;

/// An entry of a topic is said once in so many nanoseconds.
const PACE_NANOS: u64 = 1_000_000_000;

pub(crate) type Hook = dyn Fn(&LogEntry) + Send + Sync;

/// The hook of a collector, if it has one.
#[derive(Default)]
pub(crate) struct SelfLog {
    hook: Option<Box<Hook>>,
    clock: Clock,
}

/// What was said last, by topic: one for the collector, one for each sink.
#[derive(Debug, Default)]
pub(crate) struct Said([Topic; TOPICS]);

#[derive(Debug, Default)]
struct Topic {
    /// When the next entry may be said, by the collector's clock.
    next: PlainU64,
    held_back: PlainU64,
}

impl SelfLog {
    pub(crate) fn new(hook: Option<Box<Hook>>, clock: Clock) -> Self {
        Self { hook, clock }
    }

    /// Calls the hook, unless one was called for this topic within a second, or this thread is in a hook. Not under a
    /// lock: the hook is foreign code, and may ask for statistics.
    pub(crate) fn say(
        &self,
        said: &Said,
        (level, topic): (LogLevel, LogTopic),
        sink: Option<&str>,
        message: impl FnOnce() -> String,
    ) {
        let Some(hook) = &self.hook else { return };
        let Some(last) = said.0.get(topic as usize) else { return };
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
        // A panic in it is nobody's.
        _ = guarded(|| hook(&entry));
        drop(mark);
    }
}

impl Drop for SelfLog {
    fn drop(&mut self) {
        // Foreign code.
        let hook = self.hook.take();
        _ = guarded(|| drop(hook));
    }
}

impl Topic {
    fn is_due(&self, now: u64) -> bool {
        let next = self.next.load(Ordering::Relaxed);
        // Further ahead than any pace: the clock went backward.
        let is_due = next <= now || next > now.saturating_add(2 * PACE_NANOS);
        // A second thread that comes at the same time finds it taken.
        is_due
            && self
                .next
                .compare_exchange(next, now.saturating_add(PACE_NANOS), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

impl fmt::Display for LogEntry {
    /// `warn: sink: message (and 3 more)`, on one line: control and bidirectional characters are escaped.
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
