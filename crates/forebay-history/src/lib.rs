//! Histories of [`forebay`]: one query over every place that keeps records, with the same answers.
//!
//! | history | the records that it has |
//! |---|---|
//! | [`JsonLinesHistory`] | those that a [`JsonLinesSink`](forebay::sink::JsonLinesSink) wrote |
//! | `SqliteHistory` (feature `sqlite`) | those that a `SqliteSink` wrote |
//! | [`Recent`] | the last records, in memory |
//!
//! `Run` (features `json-lines` and `tensorboard`, both on by default) reads the folder of a run while it grows: its curves,
//! its status, and what is missing. `find_runs` finds such folders, `open` opens one for queries, and [`runs()`] lists the
//! training runs of a history.
//!
//! A history can be queried while a run goes on and writes. It also answers with tables: the last record of each name, aggregates of
//! windows of steps or of time, a row for each step; and [`merge`] puts the records of several ranks in order.
//! [`reduce_ranks`] and [`RankReducer`] make one of the ranks of a job, step by step, and say which of them vanished, came late or kept the others
//! waiting.
//!
//! ```
//! use forebay_history::{EventQuery, History, Recent};
//! use forebay::{Collector, Record};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let recent = Recent::<1000>::new();
//! let collector = Collector::builder().sink(recent.clone()).start()?;
//! for step in 0..100 {
//!     collector.collect(Record::scalar("train.loss", 1.0 / (step + 1) as f64).with_step(step));
//! }
//! collector.stop()?;
//! let last = recent.query(&EventQuery::new().name("train.*").steps(50..).newest_first().limit(2))?;
//! assert_eq!(last.iter().map(|record| record.step()).collect::<Vec<_>>(), [Some(99), Some(98)]);
//! # Ok(())
//! # }
//! ```

#[cfg(all(feature = "json-lines", feature = "tensorboard"))]
mod distributions;
#[cfg(all(feature = "json-lines", feature = "tensorboard"))]
mod event_files;
mod feed;
#[cfg(all(feature = "json-lines", feature = "tensorboard"))]
mod follow;
#[cfg(feature = "json-lines")]
mod json_lines;
mod lineage;
#[cfg(all(feature = "json-lines", feature = "tensorboard"))]
mod lines;
mod merge;
mod query;
mod ranks;
mod recent;
#[cfg(all(feature = "json-lines", feature = "tensorboard"))]
mod run;
mod runs;
mod series;
#[cfg(feature = "sqlite")]
mod sqlite;
mod tables;
mod values;

#[cfg(all(feature = "json-lines", feature = "tensorboard"))]
pub use distributions::Distribution;
pub use feed::Feed;
pub use forebay::run::{RunEnd, RunInfo, RunStatus};
#[cfg(feature = "json-lines")]
pub use json_lines::{JsonLinesHistory, JsonLinesReader};
pub use merge::{MergeOrder, Merged, Straggler, merge, stragglers};
pub use query::{EventQuery, History, HistoryError, Records};
pub use ranks::{
    ClockOffset, RankAccount, RankInfo, RankReducer, RankStatus, RankStep, RankSteps, Reduced, Slowest,
    reduce_ranks,
};
pub use recent::Recent;
#[cfg(all(feature = "json-lines", feature = "tensorboard"))]
pub use run::{Format, Other, RecordFollower, Run, find_runs, open};
pub use runs::{Trouble, TroubleKind, runs};
pub use series::{Point, Series};
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteHistory;
pub use tables::{
    Aggregate, AggregateTable, Aggregator, LastPerName, Pivot, PivotRow, PivotTable, Reduce, Sample,
    TooLarge, Window, WindowStart,
};
pub use values::values;
