//! Runs of a history.

use std::ops::ControlFlow;
use std::time::{Duration, SystemTime};

use forebay::event::catalog::training;
use forebay::parts::{add_to_run, run_of};
use forebay::run::RunInfo;
use forebay::{Event, Record, Value};

use crate::{EventQuery, History, HistoryError};

/// The events that tell the life of a run.
const LIFE: &str = "training.{started,heartbeat,completed,early_stopped,failed,preempted}";

/// The same, name by name.
const IS_OF_LIFE: [&str; 6] = [
    training::Started::NAME,
    training::HEARTBEAT,
    training::Completed::NAME,
    training::EarlyStopped::NAME,
    training::Failed::NAME,
    training::Preempted::NAME,
];

/// Most runs that are kept, the last ones: a file may hold the begin of a run in each of its lines.
const MAX_RUNS: usize = 10_000;

/// Runs among which that of an event is looked for: those that began last.
const MAX_OVERLAPPING: usize = 100;

/// Most troubles that are kept, the first ones.
const MAX_TROUBLES: usize = 1_000;

/// How far the clock may move away from that of the process between two heartbeats: what a time server corrects is less.
const MAX_JUMP: i64 = 10;

/// What went wrong in a run, and where.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Trouble {
    /// What it was.
    pub kind: TroubleKind,
    /// The moment of the event that tells of it.
    pub time: SystemTime,
    /// The last step before it.
    pub step: Option<i64>,
}

/// Kind of a [`Trouble`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum TroubleKind {
    /// So many events are missing.
    Gap(u64),
    /// The clock moved by so many seconds more than the process lived: it was set, or the machine slept.
    ClockJump(i64),
    /// The process was alive, and no heartbeat came for so long.
    Silence(Duration),
    /// The process of an earlier generation goes on, while a later one writes.
    TwoWriters,
}

/// The runs that records tell of: the last 10,000 of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lives {
    runs: Vec<RunInfo>,
    /// Moment and uptime of the last heartbeat, and the begin of its run.
    last_beat: Option<(SystemTime, Duration, SystemTime)>,
    last_step: Option<i64>,
    troubles: Vec<Trouble>,
}

impl Lives {
    /// Sees the next record.
    pub(crate) fn see(&mut self, record: &Record) {
        let name = Event::name(record);
        self.last_step = record.signed_step().or(self.last_step);
        if !IS_OF_LIFE.contains(&name) {
            return;
        }
        let run_info = run_of(record);
        if name == training::HEARTBEAT {
            self.see_beat(record, &run_info);
        }
        let runs = &mut self.runs;
        if runs.len() >= 2 * MAX_RUNS {
            runs.drain(..MAX_RUNS);
        }
        let own = runs.iter_mut().rev().take(MAX_OVERLAPPING).find(|run| is_of(record, run));
        match (name, own) {
            (training::Started::NAME, _) => runs.push(run_info),
            (training::HEARTBEAT, Some(run)) => {
                run.uptime = run_info.uptime;
                add_to_run(run, record);
            }
            // Its begin is not there any more.
            (training::HEARTBEAT, None) => {
                runs.push(run_info);
                runs.last_mut().into_iter().for_each(|run| add_to_run(run, record));
            }
            (_, Some(run)) => add_to_run(run, record),
            (_, None) => {}
        }
    }

    /// Returns them, in the order in which they began.
    pub(crate) fn runs(&self) -> &[RunInfo] {
        &self.runs[self.runs.len().saturating_sub(MAX_RUNS)..]
    }

    /// Returns what went wrong: the first thousand.
    #[cfg(all(feature = "json-lines", feature = "tensorboard"))]
    pub(crate) fn troubles(&self) -> &[Trouble] {
        &self.troubles
    }

    /// Notes a step that no record of an event tells.
    #[cfg(all(feature = "json-lines", feature = "tensorboard"))]
    pub(crate) fn at_step(&mut self, step: Option<i64>) {
        self.last_step = step.or(self.last_step);
    }

    pub(crate) fn trouble(&mut self, kind: TroubleKind, time: SystemTime) {
        if self.troubles.len() < MAX_TROUBLES {
            self.troubles.push(Trouble { kind, time, step: self.last_step });
        }
    }

    /// Compares a heartbeat with the one before it.
    fn see_beat(&mut self, record: &Record, beat: &RunInfo) {
        let time = record.time();
        if let Some(uptime) = beat.uptime {
            // Two processes have two clocks, and begins of their own.
            let is_near = |one: SystemTime, other: SystemTime| seconds_between(one, other).abs() <= 3_600;
            if let Some((last, last_uptime, began)) = self.last_beat
                && let Some(lived) = uptime.checked_sub(last_uptime)
                && (is_near(began, beat.began) || seconds_between(last, time).abs() > MAX_JUMP)
            {
                let jump = seconds_between(last, time) - lived.as_secs() as i64;
                if jump.abs() > MAX_JUMP {
                    self.trouble(TroubleKind::ClockJump(jump), time);
                } else if beat.heartbeat.is_some_and(|heartbeat| lived > heartbeat.saturating_mul(3)) {
                    self.trouble(TroubleKind::Silence(lived), time);
                }
            }
            self.last_beat = Some((time, uptime, beat.began));
        }
        let own = self.runs.iter().rev().take(MAX_OVERLAPPING).position(|run| is_of(record, run));
        if let (Some(own @ 1..), Some(last)) = (own, self.runs.last())
            && self.runs[self.runs.len() - 1 - own].run_id == last.run_id
            && !self.troubles.iter().any(|trouble| trouble.kind == TroubleKind::TwoWriters)
        {
            self.trouble(TroubleKind::TwoWriters, time);
        }
    }
}

/// Returns the runs of a history, in the order in which they began, each generation by itself: the last 10,000. The last is the one to
/// resume.
///
/// The events of [`catalog::training`](forebay::event::catalog::training) tell a run; a
/// [`TrainingRun`](forebay::run::TrainingRun) emits them.
///
/// A run whose begin is not there any more, because only so many files or records are kept, is known by its heartbeats. Where two runs
/// overlap, heartbeats and ends name their run; other events say nothing of either. An end that names no run, such as one made
/// by hand, ends the run that began last. An event of a run is known by its name among the 100 runs that began last before it.
///
/// # Errors
///
/// The history cannot be read.
pub fn runs(history: &dyn History) -> Result<Vec<RunInfo>, HistoryError> {
    let mut lives = Lives::default();
    history.visit(&EventQuery::new().name(LIFE), &mut |record| {
        lives.see(&record);
        ControlFlow::Continue(())
    })?;
    let mut runs = lives.runs().to_vec();
    // All its events show that it lives, not heartbeats alone. What lies further away than heartbeats do has a moment that
    // came from elsewhere, such as a measurement that was imported.
    let last = history.query(&EventQuery::new().newest_first().limit(1))?;
    if let (Some(run), Some(last)) = (runs.last_mut(), last.first())
        && is_of(last, run)
        && let Ok(later) = last.time().duration_since(run.last_seen)
        && run.heartbeat.is_none_or(|heartbeat| later <= heartbeat.saturating_mul(3))
    {
        run.last_seen = last.time();
    }
    Ok(runs)
}

/// Returns how many seconds one moment is behind another.
fn seconds_between(one: SystemTime, other: SystemTime) -> i64 {
    let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    match other.duration_since(one) {
        Ok(span) => seconds(span),
        Err(error) => -seconds(error.duration()),
    }
}

/// Returns whether a record names this run, or none.
///
/// Without `run_id`, its `generation` is a field of its own: an event that was made by hand may count the generations of something
/// else.
pub(crate) fn is_of(record: &Record, run: &RunInfo) -> bool {
    let fields = record.value().as_fields().filter(|_| Event::name(record).starts_with("training."));
    let of = |name| fields.and_then(|fields| fields.get(name));
    let Some(run_id) = of("run_id").and_then(Value::as_str) else { return true };
    run_id == run.run_id
        && of("generation")
            .and_then(Value::as_i64)
            .is_none_or(|generation| u64::try_from(generation) == Ok(run.generation))
}
