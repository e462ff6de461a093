//! What was collected, asked for again: one query, the same answers from every place that keeps records.
//!
//! | place | what it keeps |
//! |---|---|
//! | [`JsonLinesHistory`] | what a [`JsonLinesSink`](crate::sink::JsonLinesSink) wrote |
//! | `SqliteHistory` (feature `sqlite`) | what a `SqliteSink` wrote |
//! | [`Recent`] | the last records, in memory |
//!
//! All may be asked while a run goes on and writes.
//!
//! ```
//! use forebay::history::{EventQuery, History, Recent};
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

mod json_lines;
mod lineage;
mod query;
mod recent;
mod runs;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use crate::run::{RunEnd, RunInfo, RunStatus};
pub use json_lines::{JsonLinesHistory, JsonLinesReader};
pub use query::{EventQuery, History, HistoryError};
pub use recent::Recent;
pub use runs::runs;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteHistory;
