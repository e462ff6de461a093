//! Which run, and which generation of it, a record belongs to: told by where it stands among the begins of runs.

use std::time::{Duration, SystemTime};

use super::{EventQuery, History, HistoryError};
use crate::catalog::training;
use crate::event::{Event, Record, Value};
use crate::run::HEARTBEAT;

/// What was delivered from one begin of a run until the next.
#[derive(Debug, Clone, PartialEq)]
struct Section {
    run_id: String,
    generation: u64,
    /// From this step on, a later generation has taken the place of this one.
    superseded_from: Option<u64>,
}

/// The sections of a history, as far as it was seen.
#[derive(Debug, Default)]
pub(super) struct Lineage {
    sections: Vec<Section>,
    /// As in a section, for the records before the first begin: those of a run whose begin is not there any more.
    leading_superseded_from: Option<u64>,
}

/// Of which runs and generations records are asked for. All conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Wanted {
    pub(super) run_id: Option<String>,
    pub(super) generation: Option<u64>,
    /// Of each step, the last.
    pub(super) is_current: bool,
}

impl Wanted {
    /// Whether the place of a record tells nothing of what is asked for.
    pub(super) fn is_everything(&self) -> bool {
        *self == Self::default()
    }
}

impl Lineage {
    /// Sees the next record, and says how many sections have begun by then.
    pub(super) fn see(&mut self, record: &Record) -> usize {
        if Event::name(record) == training::Started::NAME {
            let fields = record.value().as_fields();
            let of = |name| fields.and_then(|fields| fields.get(name));
            let number =
                |name| of(name).and_then(Value::as_i64).and_then(|number| u64::try_from(number).ok());
            let run_id = of("run_id").and_then(Value::as_str).unwrap_or_default().to_owned();
            if let Some(step) = number("first_step") {
                let earlier = self.sections.iter_mut().filter(|section| section.run_id == run_id);
                let mut earlier: Vec<_> = earlier.map(|section| &mut section.superseded_from).collect();
                if earlier.is_empty() {
                    earlier.push(&mut self.leading_superseded_from);
                }
                for superseded_from in earlier {
                    *superseded_from = Some(superseded_from.map_or(step, |before| before.min(step)));
                }
            }
            let generation = number("generation").unwrap_or(1);
            self.sections.push(Section { run_id, generation, superseded_from: None });
        }
        self.sections.len()
    }

    /// Whether a record of that step, which came when so many sections had begun, is asked for.
    pub(super) fn has(&self, wanted: &Wanted, begun: usize, step: Option<u64>) -> bool {
        let section = begun.checked_sub(1).and_then(|last| self.sections.get(last));
        let superseded_from = section.map_or(self.leading_superseded_from, |section| section.superseded_from);
        let is_superseded = step.zip(superseded_from).is_some_and(|(step, from)| step >= from);
        let is_of =
            |what: fn(&Section, &Wanted) -> bool| section.is_some_and(|section| what(section, wanted));
        (wanted.run_id.is_none() || is_of(|section, wanted| wanted.run_id.as_ref() == Some(&section.run_id)))
            && (wanted.generation.is_none()
                || is_of(|section, wanted| wanted.generation == Some(section.generation)))
            && !(wanted.is_current && is_superseded)
    }
}

/// A process that worked on a training run, as its events tell it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RunInfo {
    /// Which run.
    pub run_id: String,
    /// The how-manieth process that worked on it, one after the other, from 1.
    pub generation: u64,
    /// Its number among those that worked on the run at the same time, and how many there were.
    pub rank: u64,
    /// See `rank`.
    pub world_size: u64,
    /// When it began.
    pub began: SystemTime,
    /// When it was last heard of, by the clock of its machine: the moment of its last word, not the latest of all moments.
    /// A clock that was set back meanwhile does not hide what came later.
    pub last_seen: SystemTime,
    /// How long it had been running by its last heartbeat, by the monotonic clock of its machine. It grows as long as the
    /// process lives, whatever the clocks show.
    pub uptime: Option<Duration>,
    /// The last step it told with a heartbeat or its end.
    pub last_step: Option<u64>,
    /// How often it promised to be heard of.
    pub heartbeat: Option<Duration>,
    /// How it ended, if it told.
    pub end: Option<RunEnd>,
}

/// How a run ended, as it told itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunEnd {
    /// Well.
    Completed,
    /// Early, on purpose.
    EarlyStopped {
        /// Why.
        reason: String,
    },
    /// Badly.
    Failed {
        /// What went wrong.
        error: String,
    },
    /// It was interrupted, and may be resumed.
    Preempted {
        /// By what.
        reason: String,
    },
}

/// What has become of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunStatus {
    /// It was heard of within three heartbeats.
    Running,
    /// It told its end, other than by failing.
    Finished,
    /// It told that it failed.
    Failed,
    /// It was interrupted, and may be resumed.
    Preempted,
    /// It told no end, and was not heard of for three heartbeats: its process was killed, or its machine is gone.
    Vanished,
    /// It told no end, and its last word lies more than three heartbeats in the future: a clock was set back since then, or
    /// the clocks of writer and reader differ. Read the history again after a heartbeat. A process that lives has told
    /// more by then, and its [`uptime`](RunInfo::uptime) has grown.
    Unclear,
}

impl RunInfo {
    /// What has become of it by `now`. A run that promised no heartbeat, because it was not told by a
    /// [`TrainingRun`](crate::run::TrainingRun), counts as running until it tells its end.
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
            (None, Some(longest)) => match now.duration_since(self.last_seen) {
                Ok(silence) if silence > longest => RunStatus::Vanished,
                Err(ahead) if ahead.duration() > longest => RunStatus::Unclear,
                _ => RunStatus::Running,
            },
        }
    }

    /// What the begin of a run tells of it, or a heartbeat.
    fn told_by(record: &Record) -> Self {
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

    fn goes_on_with(&mut self, record: &Record) {
        self.last_seen = record.time();
        self.last_step = record.get_step().or(self.last_step);
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

/// The runs that a history tells of, in the order in which they began; each generation by itself. The last is the one
/// to resume. They need not have been told by a [`TrainingRun`](crate::run::TrainingRun): the events of
/// [`catalog::training`](crate::catalog::training) are enough.
///
/// A run whose begin is not there any more, because only so many files or records are kept, is told by its heartbeats. A
/// history tells one run at a time: two that go on at once and share their files cannot be told apart.
///
/// # Errors
///
/// The history cannot be read.
pub fn runs(history: &dyn History) -> Result<Vec<RunInfo>, HistoryError> {
    let life = "training.{started,heartbeat,completed,early_stopped,failed,preempted}";
    let mut runs: Vec<RunInfo> = Vec::new();
    for record in history.query(&EventQuery::new().name(life))? {
        let told = RunInfo::told_by(&record);
        match (Event::name(&record), runs.last_mut()) {
            (training::Started::NAME, _) => runs.push(told),
            (HEARTBEAT, Some(run)) if run.run_id == told.run_id && run.generation == told.generation => {
                run.uptime = told.uptime;
                run.goes_on_with(&record);
            }
            // Its begin is not there any more.
            (HEARTBEAT, _) => {
                runs.push(told);
                runs.last_mut().into_iter().for_each(|run| run.goes_on_with(&record));
            }
            (_, Some(run)) => run.goes_on_with(&record),
            (_, None) => {}
        }
    }
    // All its events show that it lives, not heartbeats alone. What lies further away than heartbeats do has a moment that
    // came from elsewhere, such as a measurement that was imported.
    let last = history.query(&EventQuery::new().newest_first().limit(1))?;
    if let (Some(run), Some(last)) = (runs.last_mut(), last.first())
        && let Ok(later) = last.time().duration_since(run.last_seen)
        && run.heartbeat.is_none_or(|heartbeat| later <= heartbeat.saturating_mul(3))
    {
        run.last_seen = last.time();
    }
    Ok(runs)
}
