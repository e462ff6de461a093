//! The answer of `forebay merge` on its way out: a row for each number of a step, for each step, or for each rank.

use forebay::Record;
use forebay_history::{HistoryError, Pivot, RankInfo, RankStatus, RankStep, Reduce, Reduced};

use super::remarks::status;
use crate::args::{Merge, Reduction, Shape};
use crate::commands::query::{Field, Rows};
use crate::error::Error;
use crate::out::{Out, harmless, number};

fn reduce_of(reduction: Reduction) -> (&'static str, Reduce) {
    match reduction {
        Reduction::Last => ("last", Reduce::Last),
        Reduction::Mean => ("mean", Reduce::Mean),
        Reduction::Min => ("min", Reduce::Min),
        Reduction::Max => ("max", Reduce::Max),
        Reduction::Sum => ("sum", Reduce::Sum),
    }
}

/// All that is made of numbers, unless one is asked for.
const ALL: [Reduction; 4] = [Reduction::Mean, Reduction::Min, Reduction::Max, Reduction::Sum];

/// The answer on its way out.
pub(super) struct Printed<'a> {
    asked: &'a Merge,
    reduces: Vec<Reduce>,
    rows: Rows<'a>,
    pivot: Option<Pivot>,
    shape: Shape,
}

impl<'a> Printed<'a> {
    pub(super) fn begin(asked: &'a Merge, shape: Shape, out: &'a mut Out) -> Self {
        let reductions = asked.reduce.as_ref().map_or(&ALL[..], std::slice::from_ref);
        let (columns, reduces): (Vec<&str>, Vec<Reduce>) = reductions.iter().copied().map(reduce_of).unzip();
        let head: Vec<&str> = if asked.ranks {
            RANKS.to_vec()
        } else if asked.pivot {
            Vec::new()
        } else {
            let front = ["step", "generation", "revision", "ranks", "missing", "name", "count", "finite"];
            // Afterwards, each step is given once.
            front.into_iter().filter(|name| asked.follow || *name != "revision").chain(columns).collect()
        };
        // Several numbers of a rank are one by now.
        let pivot = asked.pivot.then(|| Pivot::new(Reduce::Last));
        let rows = Rows::begin(head.into_iter().map(str::to_owned).collect(), shape, out);
        Self { asked, reduces, rows, pivot, shape }
    }

    pub(super) fn step(&mut self, step: &RankStep) -> Result<(), Error> {
        if self.asked.ranks {
            return Ok(());
        }
        let reduce = self.reduces.first().copied().unwrap_or(Reduce::Mean);
        for value in &step.values {
            if self.asked.follow && self.shape == Shape::Table {
                self.rows.line(line_of(step, value, reduce))?;
                continue;
            }
            let Some(pivot) = &mut self.pivot else {
                self.rows.cells(cells(step, value, &self.reduces, self.asked.follow))?;
                continue;
            };
            if let Some(number) = value.get(reduce) {
                let record = Record::scalar(value.name.to_string(), number).with_signed_step(step.step);
                pivot.add(&record).map_err(|error| HistoryError::new("the answer", error))?;
            }
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<(), Error> {
        self.rows.flush()
    }

    /// Prints what waits for the end.
    pub(super) fn end(mut self, ranks: &[RankInfo]) -> Result<u8, Error> {
        if let Some(pivot) = self.pivot {
            let table = pivot.finish();
            let names = table.names.iter().map(|name| name.to_string());
            self.rows.head(std::iter::once("step".to_owned()).chain(names).collect());
            for row in &table.rows {
                let values = row.values.iter().map(|value| value.map_or(Field::None, Field::Number));
                self.rows.cells(std::iter::once(Field::Step(row.step)).chain(values))?;
            }
        }
        if self.asked.ranks {
            for rank in ranks.iter().filter(|rank| rank.status != RankStatus::Joined) {
                self.rows.cells(rank_cells(rank).into_iter())?;
            }
        }
        self.rows.end()
    }
}

fn cells(
    step: &RankStep,
    value: &Reduced,
    reduces: &[Reduce],
    has_revisions: bool,
) -> impl Iterator<Item = Field> {
    let place = [Field::Step(step.step), Field::Count(step.generation)];
    let revision = has_revisions.then_some(Field::Count(step.revision));
    let counts = [
        Field::Count(step.ranks),
        Field::Count(step.missing.len() as u64),
        Field::Text(value.name.to_string()),
        Field::Count(value.count),
        Field::Count(value.finite),
    ];
    let value = |reduce: &Reduce| value.get(*reduce).map_or(Field::None, Field::Number);
    place.into_iter().chain(revision).chain(counts).chain(reduces.iter().map(value))
}

/// Returns the line of a number that is shown as it comes.
fn line_of(step: &RankStep, value: &Reduced, reduce: Reduce) -> String {
    let all = step.ranks + step.missing.len() as u64;
    let again = if step.revision > 0 { "  (again)" } else { "" };
    let shown = value.get(reduce).map_or_else(String::new, number);
    format!(
        "{:>8}  {:>9}  {:<32}  {shown}{again}",
        step.step,
        format!("{}/{all}", step.ranks),
        harmless(&value.name)
    )
}

/// Columns of the ranks.
const RANKS: [&str; 14] = [
    "run",
    "rank",
    "status",
    "generation",
    "first_step",
    "last_step",
    "restarts",
    "late",
    "superseded",
    "last",
    "mean",
    "max",
    "max_step",
    "clock",
];

fn rank_cells(rank: &RankInfo) -> [Field; 14] {
    let step = |step: Option<i64>| step.map_or(Field::None, Field::Step);
    let behind = (rank.behind.steps > 0).then_some(rank.behind);
    [
        Field::Text(rank.name.clone()),
        rank.number.map_or(Field::None, Field::Count),
        Field::Text(status(rank).to_owned()),
        Field::Count(rank.generation),
        step(rank.first_step),
        step(rank.last_step),
        Field::Count(rank.restarts),
        Field::Count(rank.late),
        Field::Count(rank.superseded),
        behind.map_or(Field::None, |behind| Field::Count(behind.last)),
        behind.map_or(Field::None, |behind| Field::Number(behind.mean().as_secs_f64())),
        behind.and_then(|behind| behind.max).map_or(Field::None, |(max, _)| Field::Number(max.as_secs_f64())),
        step(behind.and_then(|behind| behind.max).map(|(_, step)| step)),
        rank.clock.map_or(Field::None, |clock| Field::Number(clock.mean)),
    ]
}
