//! Redis and Valkey Streams for [`forebay`]: [`RedisSink`] appends batches to a stream, and [`RedisHistory`] reads them back.
//!
//! # What is promised
//!
//! | | |
//! |---|---|
//! | delivered | a batch counts as delivered once the server has answered that it is in the stream |
//! | twice | never: a batch that is tried again has the ids that it had, and the server refuses them the second time. [Dead letters](forebay::sink::DeadLetters) are new entries: where the answer to every try was lost, they are there twice |
//! | order | that of the producer, within its stream. Across streams, none |
//! | not promised | what was still in the ring when the process died; what the server loses (`appendfsync everysec`: a second) |
//!
//! # Entries
//!
//! One stream for each session of a collector, `forebay:SESSION` unless [`stream`](RedisSink::stream) names it; one entry a
//! batch, with the id `GENERATION-NUMBER`: the generation of the training run (1 without one), or a higher one where another sink has
//! written to the stream before; and the number of the first event, counted from 1, or the next higher one behind dead letters.
//!
//! | field | content |
//! |---|---|
//! | `writer` | an id of the sink that wrote the entry |
//! | `first`, `count` | number of the first event, and of events |
//! | `gap` | number of events that were evicted before the first |
//! | `redriven` | 1 if they are dead letters, of which `first` says nothing |
//! | `replayed` | 1 if an earlier process has left them in a [`Spill`](forebay::sink::Spill); `origin` is that of it |
//! | `origin` | session, source, host, process and rank, as JSON |
//! | `events` | the events as JSON Lines, as a [`JsonLinesSink`](forebay::sink::JsonLinesSink) writes them: a record `forebay.gap` stands where events are missing, by an eviction or because a batch failed |
//!
//! # When something is wrong
//!
//! | | outcome |
//! |---|---|
//! | server down, restarting, loading, wrong certificate | transient; the next attempt connects again |
//! | no answer | transient after [`timeout`](RedisSink::timeout) for the whole batch, and at most as much again for the answer at hand; beside that, as long for a connection |
//! | out of memory, disk full, too few replicas | transient |
//! | the server has become a replica, or its master is down | transient; the next attempt connects again, and may be led elsewhere |
//! | wrong password, no permission, key of another type | permanent |
//! | another producer begins to write to the stream | its entries have a higher generation: all batches of the earlier one fail for good, and the error names host and process of the later one |
//! | stream deleted, or the server restarted empty | the stream begins again; the reader sees by the numbers what is gone |
//! | entries removed by a limit or by a reader before a lost answer is asked for | delivered |
//! | batch above [`max_entry_bytes`](RedisSink::max_entry_bytes) | split into several entries, of one transaction |
//! | an event above it | an entry of its own: the server may refuse it (512 MB at most, `proto-max-bulk-len`) |
//! | forked child | refused, before the connection of the parent is touched |
//!
//! A transient failure is tried again by [`retry`](forebay::sink::SinkExt::retry), which also runs the sink on a thread of its own.
//! [`spill`](forebay::sink::SinkExt::spill) puts batches into a local file instead, and replays them when the server is back. Without either,
//! the batch fails, and a slow server delays the other sinks: so put one around.
//!
//! A user of the server needs the rights `+xadd +xrange +xrevrange +xinfo +multi +exec`, and `+select` where the URL names a
//! database other than 0, and `+scan` to find streams.
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

mod address;
mod connection;
mod entry;
mod error;
mod history;
mod sink;

pub use error::UrlError;
pub use history::{Account, RedisHistory, RedisReader};
pub use sink::RedisSink;
