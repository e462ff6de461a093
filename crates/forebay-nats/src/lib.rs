//! NATS JetStream for [`forebay`]: [`NatsSink`] appends batches to a stream, and [`NatsHistory`] reads them back.
//!
//! # What is promised
//!
//! | | |
//! |---|---|
//! | delivered | a batch counts as delivered once the server has answered that it is in the stream |
//! | twice | never: every message names the one that must be the last of its subject, and has an id by which it is found again. [Dead letters](forebay::sink::DeadLetters) are new messages: where the answer to every try was lost, they are there twice |
//! | order | that of the producer, within its subject. Across subjects, none |
//! | not promised | what was still in the ring when the process died; what the server loses (it syncs to disk every 2 min, unless `sync_interval: always`) |
//!
//! The client needs tokio. It lives on a thread of its own inside of the sink, which starts with the first batch and waits for nothing when
//! it ends. A program needs no runtime, and may have another one.
//!
//! # Messages
//!
//! One subject for each producer, `forebay.RUN.RANK` unless [`subject`](NatsSink::subject) names it, in the stream that takes it, which is made where there
//! is none: [`NatsStream`]. One message a batch, which holds its events as JSON Lines, as a [`JsonLinesSink`](forebay::sink::JsonLinesSink) writes them: a record
//! `forebay.gap` stands where events are missing, by an eviction or because a batch failed.
//!
//! | header | content |
//! |---|---|
//! | `Nats-Msg-Id` | `WRITER/GENERATION-NUMBER`: the generation of the training run (1 without one), and the number of the first event, counted from 1, or the next higher one behind dead letters |
//! | `writer` | an id of the sink that wrote the message |
//! | `first`, `count` | number of the first event, and of events |
//! | `gap` | number of events that were evicted before the first |
//! | `redriven` | 1 if they are dead letters, of which `first` says nothing |
//! | `origin` | session, source, host, process and rank, as JSON |
//!
//! # When something is wrong
//!
//! | | outcome |
//! |---|---|
//! | server down, restarting, half-open connection, wrong certificate | transient; the next attempt connects again |
//! | no answer | transient after [`timeout`](NatsSink::timeout) for the whole batch; beside that, as long for a connection |
//! | no JetStream answers; stream or disk full | transient |
//! | wrong password, no permission, a subject that is none, or of another stream than the one that is named | permanent |
//! | another producer begins to write to the subject | all batches of the earlier one fail for good, and the error names host and process of the later one |
//! | stream deleted, or the server restarted empty | the stream begins again; the reader sees by the numbers what is gone |
//! | batch above [`max_message_bytes`](NatsSink::max_message_bytes), or above what server and stream allow | several messages: at once, all of them or none, where the stream allows that (server 2.14, `allow_atomic`, up to 1,000), and else one after the other |
//! | an event above what server and stream allow | it fails for good, and the rest of its batch is delivered |
//! | forked child | refused, before the connection of the parent is touched |
//!
//! A transient failure is tried again by [`retry`](forebay::sink::SinkExt::retry), which also runs the sink on a thread of its own.
//! Without it, the batch fails, and a slow server delays the other sinks: so put it around.
//!
//! # Examples
//!
//! ```no_run
//! use forebay::sink::{RetryPolicy, SinkExt};
//! use forebay::{Collector, Record};
//! use forebay_history::{EventQuery, History};
//! use forebay_nats::{NatsHistory, NatsSink};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let sink = NatsSink::open("nats://127.0.0.1")?.subject("forebay.digits.0").retry(RetryPolicy::default());
//! let collector = Collector::builder().sink(sink).start()?;
//! collector.collect(Record::scalar("train.loss", 0.5).with_step(1));
//! collector.stop()?;
//!
//! let history = NatsHistory::open("nats://127.0.0.1", "forebay.digits.0")?;
//! assert_eq!(history.query(&EventQuery::new().name("train.*"))?.len(), 1);
//! # Ok(())
//! # }
//! ```

#[cfg(doctest)]
#[doc = include_str!("../../../docs/nats.md")]
struct Page;

mod connection;
mod error;
mod history;
mod lookup;
mod message;
mod sink;
mod stream;

pub use error::UrlError;
pub use history::{Account, NatsHistory, NatsReader};
pub use sink::NatsSink;
pub use stream::NatsStream;
