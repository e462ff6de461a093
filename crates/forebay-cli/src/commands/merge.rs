//! `forebay merge`: the ranks of a job as one, step by step, and what is wrong with some of them.

mod follow;
mod printed;
mod remarks;
mod trace;

use std::path::Path;

use forebay_history::{EventQuery, History, RankInfo, RankReducer, RankStatus, open, reduce_ranks};

use crate::args::{Merge, Shape};
use crate::broker;
use crate::commands::query::steps_of;
use crate::error::Error;
use crate::file::Beside;
use crate::folder;
use crate::out::{Out, Written, complain};
use crate::progress::Progress;

use printed::Printed;
use remarks::{max_lag, remark};

pub(crate) fn run(asked: &Merge, out: &mut Out) -> Result<u8, Error> {
    let shape = match (asked.json, asked.csv) {
        (true, _) => Shape::Json,
        (_, true) => Shape::Csv,
        _ => asked.shape,
    };
    let places = folder::find(&asked.paths)?;
    if asked.follow {
        let printed = Printed::begin(asked, shape, out);
        return follow::follow(&places, asked, reducer_of(asked)?, printed);
    }
    let (mut ranks, mut has_failed) = (Vec::new(), false);
    for (name, path) in &places {
        match open_rank(path) {
            Ok(history) => ranks.push((name.clone(), history)),
            Err(error) => {
                complain(&error);
                has_failed = true;
            }
        }
    }
    let _progress = Progress::of(places.iter().map(|(_, path)| path).filter(|path| !broker::is_stream(path)));
    let histories = ranks.iter().map(|(name, history)| (name.as_str(), &**history as &dyn History));
    let mut steps = reduce_ranks(histories, reducer_of(asked)?);
    let mut printed = asked.trace.is_none().then(|| Printed::begin(asked, shape, out));
    for step in &mut steps {
        match (step, &mut printed) {
            (Ok(step), Some(printed)) => printed.step(&step)?,
            (Ok(_), None) => {}
            (Err(error), _) => {
                complain(&error.into());
                has_failed = true;
            }
        }
    }
    let infos: Vec<RankInfo> = steps.job().ranks().collect();
    let code = match (printed, &asked.trace) {
        (Some(printed), _) => printed.end(&infos)?,
        (None, Some(path)) => write_trace(path, &ranks, &infos, asked, out)?,
        (None, None) => 0,
    };
    remark(&infos, steps.job());
    Ok(if has_failed { 2 } else { code })
}

/// Writes the trace of the ranks to a file.
fn write_trace(
    path: &Path,
    ranks: &[(String, Box<dyn History>)],
    infos: &[RankInfo],
    asked: &Merge,
    out: &mut Out,
) -> Result<u8, Error> {
    // A later session has the clock of its rank.
    let of_rank = |info: &RankInfo| match info.status {
        RankStatus::Joined => infos
            .iter()
            .find(|other| other.number == info.number && other.status != RankStatus::Joined)
            .and_then(|other| other.clock),
        _ => info.clock,
    };
    let processes: Vec<trace::Process<'_>> = ranks
        .iter()
        .zip(infos)
        .map(|((name, history), info)| {
            let wrong = of_rank(info).filter(|clock| clock.is_wrong());
            let offset = wrong.map_or(0, |clock| (clock.mean * 1e9) as i128);
            trace::Process { name, offset, history: &**history }
        })
        .collect();
    let timer = asked.timer.as_deref().map(|timer| folder::pattern(Some(timer))).transpose()?;
    let failed = |error: std::io::Error| Error::Asked(format!("{}: {error}", path.display()));
    let mut file = Beside::of(path).map_err(failed)?;
    let count = trace::write(&processes, timer.as_ref(), &mut file).map_err(|error| match error {
        Error::Write(error) => failed(error),
        other => other,
    })?;
    file.commit().map_err(failed)?;
    Written { path, what: "event", count, runs: ranks.len(), left_out: 0 }.report(asked.json, out)?;
    Ok(0)
}

fn open_rank(path: &Path) -> Result<Box<dyn History>, Error> {
    if broker::is_stream(path) { broker::open(path) } else { Ok(open(path)?) }
}

fn reducer_of(asked: &Merge) -> Result<RankReducer, Error> {
    let mut query = EventQuery::new();
    if asked.name.is_some() {
        query = query.name(folder::pattern(asked.name.as_deref())?);
    }
    if let Some(steps) = &asked.steps {
        let (first, last) = steps_of(steps)?;
        query = query.steps(first..=last);
    }
    let reducer = RankReducer::new().query(query).max_lag(max_lag(asked));
    Ok(match &asked.timer {
        Some(timer) => reducer.timer(folder::pattern(Some(timer))?),
        None => reducer,
    })
}
