//! Runs of a history.

use std::ops::ControlFlow;

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

/// The runs that records tell of: the last 10,000 of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lives(Vec<RunInfo>);

impl Lives {
    /// Sees the next record.
    pub(crate) fn see(&mut self, record: &Record) {
        let name = Event::name(record);
        if !IS_OF_LIFE.contains(&name) {
            return;
        }
        let runs = &mut self.0;
        let run_info = run_of(record);
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
        &self.0[self.0.len().saturating_sub(MAX_RUNS)..]
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

/// Returns whether a record names this run, or none.
///
/// Without `run_id`, its `generation` is a field of its own: an event that was made by hand may count the generations of something
/// else.
fn is_of(record: &Record, run: &RunInfo) -> bool {
    let fields = record.value().as_fields().filter(|_| Event::name(record).starts_with("training."));
    let of = |name| fields.and_then(|fields| fields.get(name));
    let Some(run_id) = of("run_id").and_then(Value::as_str) else { return true };
    run_id == run.run_id
        && of("generation")
            .and_then(Value::as_i64)
            .is_none_or(|generation| u64::try_from(generation) == Ok(run.generation))
}
