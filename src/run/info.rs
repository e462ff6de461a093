//! Information about a training run, from its events.

use std::time::{Duration, SystemTime};

use crate::event::catalog::training;
use crate::event::{Event, Record, Value};

/// Facts about one process of a training run, read from its events.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RunInfo {
    /// The id of the run.
    pub run_id: String,
    /// The name of the run, if it has one.
    pub name: Option<String>,
    /// The generation: 1 for the first process of the run, and one more with each resumption.
    pub generation: u64,
    /// The number of the process among those that worked on the run at the same time.
    pub rank: u64,
    /// The number of processes that worked on the run at the same time.
    pub world_size: u64,
    /// Time when the run began.
    pub began: SystemTime,
    /// The time of its last event, by the clock of its machine. The last event counts, not the latest time: a clock
    /// that was set back does not hide what came later.
    pub last_seen: SystemTime,
    /// Time that the run had been running at its last heartbeat, by the monotonic clock of its machine. It grows as
    /// long as the process lives, whatever wall clocks show.
    pub uptime: Option<Duration>,
    /// The step of its last heartbeat, or of its end.
    pub last_step: Option<u64>,
    /// The interval of its heartbeats.
    pub heartbeat: Option<Duration>,
    /// End of the run, if it has reported one.
    pub end: Option<RunEnd>,
}

/// End of a run, as the run reported it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunEnd {
    /// The run completed.
    Completed,
    /// The run ended early, on purpose.
    EarlyStopped {
        /// Reason of the end.
        reason: String,
    },
    /// The run failed.
    Failed {
        /// Error that ended the run.
        error: String,
    },
    /// The run was interrupted, and may be resumed.
    Preempted {
        /// Reason of the interruption.
        reason: String,
    },
}

/// Status of a run at a given time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunStatus {
    /// The last event is at most three heartbeats old.
    Running,
    /// The run has ended, completed or early on purpose.
    Finished,
    /// The run has failed.
    Failed,
    /// The run was interrupted, and may be resumed.
    Preempted,
    /// No end was reported, and three heartbeats are missing: its process was killed, or its machine is gone.
    Vanished,
    /// No end was reported, and its last event lies more than three heartbeats in the future: a clock was set back since then, or
    /// the clocks of writer and reader differ. Read the history again after a heartbeat. A process that lives has reported
    /// more by then, and its [`uptime`](RunInfo::uptime) has grown.
    Unclear,
}

impl RunInfo {
    /// Returns the status at the time `now`. A run without heartbeats, made by hand and not by a
    /// [`TrainingRun`](crate::run::TrainingRun), counts as running until it reports its end.
    ///
    /// Processes share no clock but the wall clock, so those of writer and reader should agree to a heartbeat. After a clock
    /// was set forward, a run that goes on seems to have vanished until its next heartbeat. After one was set back, it is
    /// [`Unclear`](RunStatus::Unclear) until then.
    pub fn status(&self, now: SystemTime) -> RunStatus {
        match (&self.end, self.heartbeat.map(|heartbeat| heartbeat.saturating_mul(3))) {
            (Some(RunEnd::Completed | RunEnd::EarlyStopped { .. }), _) => RunStatus::Finished,
            (Some(RunEnd::Failed { .. }), _) => RunStatus::Failed,
            (Some(RunEnd::Preempted { .. }), _) => RunStatus::Preempted,
            (None, None) => RunStatus::Running,
            (None, Some(max_silence)) => match now.duration_since(self.last_seen) {
                Ok(silence) if silence > max_silence => RunStatus::Vanished,
                Err(ahead) if ahead.duration() > max_silence => RunStatus::Unclear,
                _ => RunStatus::Running,
            },
        }
    }

    /// Returns what the begin of a run, or a heartbeat, reports of it.
    pub(crate) fn from_record(record: &Record) -> Self {
        let fields = record.value().as_fields();
        let of = |name| fields.and_then(|fields| fields.get(name));
        let number = |name, or| {
            of(name).and_then(Value::as_i64).and_then(|number| u64::try_from(number).ok()).unwrap_or(or)
        };
        let seconds = |name| {
            of(name).and_then(Value::as_f64).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        };
        let uptime = seconds("uptime");
        Self {
            run_id: of("run_id").and_then(Value::as_str).unwrap_or_default().to_owned(),
            name: of("name").and_then(Value::as_str).filter(|name| !name.is_empty()).map(str::to_owned),
            generation: number("generation", 1),
            rank: number("rank", 0),
            world_size: number("world_size", 1),
            began: record.time().checked_sub(uptime.unwrap_or_default()).unwrap_or(record.time()),
            last_seen: record.time(),
            uptime,
            last_step: None,
            heartbeat: seconds("heartbeat"),
            end: None,
        }
    }

    /// Adds what a later record of the run reports.
    pub(crate) fn add(&mut self, record: &Record) {
        self.last_seen = record.time();
        self.last_step = record.step().or(self.last_step);
        let text = |name| {
            let fields = record.value().as_fields();
            fields.and_then(|fields| fields.get(name)).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let end = match Event::name(record) {
            training::Completed::NAME => RunEnd::Completed,
            training::EarlyStopped::NAME => RunEnd::EarlyStopped { reason: text("reason") },
            training::Failed::NAME => RunEnd::Failed { error: text("error") },
            training::Preempted::NAME => RunEnd::Preempted { reason: text("reason") },
            _ => return,
        };
        self.end = Some(end);
    }
}
