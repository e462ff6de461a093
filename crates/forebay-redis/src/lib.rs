//! Redis and Valkey Streams for [`forebay`]: [`RedisSink`] appends batches to a stream, and [`RedisHistory`] reads them back.
//!
//! # What is promised
//!
//! | | |
//! |---|---|
//! | delivered | a batch counts as delivered once the server has answered that it is in the stream |
//! | twice | never: each entry has an id that follows from its first event, so that the server refuses it the second time. But for [dead letters](#dead-letters) |
//! | order | that of the producer, within its stream. Across streams, none |
//! | not promised | what was still in the ring when the process died; what the server loses (`appendfsync everysec`: a second) |
//!
//! # Entries
//!
//! One stream for each session of a collector, `forebay:SESSION` unless [`stream`](RedisSink::stream) names it; one entry a
//! batch, with the id `GENERATION-NUMBER`: the generation of the training run (0 without one), and the number of the
//! first event, counted from 1, because Redis has no entry `0-0`.
//!
//! | field | content |
//! |---|---|
//! | `writer` | an id of the sink that wrote the entry. Two that write to one stream are found by it |
//! | `first`, `count` | number of the first event, and of events |
//! | `gap` | number of events that were evicted before the first |
//! | `origin` | session, source, host, process and rank, as JSON |
//! | `events` | the events as JSON Lines, as a [`JsonLinesSink`](forebay::sink::JsonLinesSink) writes them: a record `forebay.gap` stands where events are missing, by an eviction or because a batch failed |
//!
//! # When something is wrong
//!
//! | | outcome |
//! |---|---|
//! | server down, restarting, loading, without an answer in [`timeout`](RedisSink::timeout) | transient; the next attempt connects again |
//! | out of memory, disk full, read-only replica, master down, too few replicas | transient |
//! | wrong certificate | transient, as every connection that cannot be made |
//! | wrong password, no permission, key of another type | permanent; the error has the server's words |
//! | another producer writes to the stream | permanent; the error names its host and process |
//! | stream deleted, or the server restarted empty | the stream begins again; the reader sees by the numbers what is gone |
//! | batch above [`max_entry_bytes`](RedisSink::max_entry_bytes) | split into several entries, of one transaction |
//! | an event above it | an entry of its own: the server may refuse it (512 MB at most, `proto-max-bulk-len`) |
//!
//! A transient failure is tried again by [`retry`](forebay::sink::SinkExt::retry), which also runs the sink on a thread of its own.
//! Without it, the batch fails, and a slow server delays the other sinks: so put it around.
//!
//! # Dead letters
//!
//! A batch that failed for good and is delivered later finds higher ids in the stream. It is then appended behind them with an id of the
//! server's choice, unless it is found in its place. Should the answer to that get lost, it may be appended twice; its
//! field `first` tells.
//!
//! # Examples
//!
//! ```no_run
//! use forebay::sink::{RetryPolicy, SinkExt};
//! use forebay::{Collector, Record};
//! use forebay_history::{EventQuery, History};
//! use forebay_redis::{RedisHistory, RedisSink};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let sink = RedisSink::open("redis://127.0.0.1/")?.stream("forebay:digits").retry(RetryPolicy::default());
//! let collector = Collector::builder().sink(sink).start()?;
//! collector.collect(Record::scalar("train.loss", 0.5).with_step(1));
//! collector.stop()?;
//!
//! let history = RedisHistory::open("redis://127.0.0.1/", "forebay:digits")?;
//! assert_eq!(history.query(&EventQuery::new().name("train.*"))?.len(), 1);
//! # Ok(())
//! # }
//! ```

#[cfg(doctest)]
#[doc = include_str!("../../../docs/redis.md")]
struct Page;

mod connection;
mod entry;
mod error;
mod history;
mod sink;

pub use error::UrlError;
pub use history::{Account, RedisHistory, RedisReader};
pub use sink::RedisSink;
