//! Runs of a history.

use forebay::Event;
use forebay::event::catalog::training;
use forebay::parts::{add_to_run, run_of};
use forebay::run::RunInfo;

use crate::{EventQuery, History, HistoryError};

/// Returns the runs of a history, in the order in which they began, each generation by itself. The last is the one to resume.
///
/// The events of [`catalog::training`](forebay::event::catalog::training) tell a run; a
/// [`TrainingRun`](forebay::run::TrainingRun) emits them.
///
/// A run whose begin is not there any more, because only so many files or records are kept, is known by its heartbeats. A history
/// has one run at a time: two that go on at once and share their files cannot be distinguished.
///
/// # Errors
///
/// The history cannot be read.
pub fn runs(history: &dyn History) -> Result<Vec<RunInfo>, HistoryError> {
    let life = "training.{started,heartbeat,completed,early_stopped,failed,preempted}";
    let mut runs: Vec<RunInfo> = Vec::new();
    for record in history.query(&EventQuery::new().name(life))? {
        let run_info = run_of(&record);
        match (Event::name(&record), runs.last_mut()) {
            (training::Started::NAME, _) => runs.push(run_info),
            (training::HEARTBEAT, Some(run))
                if run.run_id == run_info.run_id && run.generation == run_info.generation =>
            {
                run.uptime = run_info.uptime;
                add_to_run(run, &record);
            }
            // Its begin is not there any more.
            (training::HEARTBEAT, _) => {
                runs.push(run_info);
                runs.last_mut().into_iter().for_each(|run| add_to_run(run, &record));
            }
            (_, Some(run)) => add_to_run(run, &record),
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
