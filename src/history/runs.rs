//! The runs that a history tells of.

use super::{EventQuery, History, HistoryError};
use crate::event::Event;
use crate::event::catalog::training;
use crate::run::RunInfo;

/// The runs that a history tells of, in the order in which they began; each generation by itself. The last is the one
/// to resume. They need not have been told by a [`TrainingRun`](crate::run::TrainingRun): the events of
/// [`catalog::training`](crate::event::catalog::training) are enough.
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
            (training::HEARTBEAT, Some(run))
                if run.run_id == told.run_id && run.generation == told.generation =>
            {
                run.uptime = told.uptime;
                run.goes_on_with(&record);
            }
            // Its begin is not there any more.
            (training::HEARTBEAT, _) => {
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
