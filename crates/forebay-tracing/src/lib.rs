//! Bridge from [`tracing`] to [`forebay`]: a layer that makes records of events, and a writer for those who keep their formatter.
//!
//! Neither waits for a file. An `ERROR` of the layer is critical: if the lane of critical events is full, it waits for space, at most 100 ms by
//! default. What is lost when a sink is too slow is counted by its reason, and marked at its place in the output.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use forebay::{Collector, sink::JsonLinesSink};
//! use tracing_subscriber::{filter::LevelFilter, prelude::*};
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("events.jsonl");
//! let collector = Collector::builder().sink(JsonLinesSink::create(&path)?).start()?; // path: "events.jsonl"
//! let (layer, guard) = forebay_tracing::layer(collector);
//! # let subscriber =
//! tracing_subscriber::registry().with(layer.with_filter(LevelFilter::INFO))
//! # ; let _default = tracing::subscriber::set_default(subscriber);
//! # let _ =
//!     // .init()
//! # ();
//! tracing::info!(target: "train", step = 7, loss = 0.5, "step done");
//! println!("{}", guard.stop()); // 1 processed, 0 lost
//! # assert!(std::fs::read_to_string(&path)?.contains(r#""step":7,"fields":{"level":"INFO","message":"step done","loss":0.5}"#));
//! # Ok(())
//! # }
//! ```
//!
//! A formatter of `tracing-subscriber` stays, and its lines are written on another thread:
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use tracing_subscriber::prelude::*;
//!
//! let (writer, guard) = forebay_tracing::non_blocking(std::io::stdout())?;
//! let format = tracing_subscriber::fmt::layer().with_writer(writer);
//! tracing::subscriber::with_default(tracing_subscriber::registry().with(format), || tracing::info!("ready"));
//! assert_eq!(guard.stop().lost(), 0);
//! # Ok(())
//! # }
//! ```
//!
//! # What happens when
//!
//! | when | then |
//! |---|---|
//! | a sink is too slow | the oldest events are evicted, as [`Overflow`](forebay::Overflow) of the collector says; a record `forebay.gap`, or a line, stands where they are missing |
//! | an `ERROR` finds the lane of critical events full | it waits for space for at most [`critical_timeout`](forebay::Config::critical_timeout), 100 ms by default, and is rejected and counted then; [`CollectorLayer::priority`] gives it another priority |
//! | a sink, or a library that it uses, logs | on the threads that deliver, also for another collector, the event is left out and counted ([`Counts::own_thread`]); for threads of its own, see [`CollectorLayer::ignore`] |
//! | a `Debug` or `Display` panics | its field says `(panicked: MESSAGE)`; the event is counted and goes on (with `panic = "abort"` the process ends) |
//! | a `Debug` or `Display` returns an error | its field ends with `(failed)`, and is counted ([`Counts::failed`]) |
//! | a `Debug` logs | its event is collected; more than four within each other are left out and counted |
//! | a text is longer than 1 MiB, or 4 KiB in a span | it is cut, ends with `…`, and is counted ([`CollectorLayer::max_text_bytes`]); the collector has its [byte budget](forebay::Config::max_bytes) beside that |
//! | text has control characters | `JsonLinesSink` and `TextLinesSink::create` escape them; a writer gets what the formatter makes of them |
//! | the process forks | in the child, every event is refused at once and counted; it may build a collector of its own; [`Guard::on_stop`] is not called there |
//! | the guard is dropped | the collector stops by its deadline; [`Guard::on_stop`] gets the report. `std::process::exit` drops nothing |
//! | a program has more than about 2,048 events and spans in its code | the names of the others are made for each event; 2 MiB are kept at most, also for a million of them |
//!
//! [`tracing`]: https://docs.rs/tracing

mod sync;

mod callsites;
mod fields;
mod filter;
mod layer;
mod lines;

pub use filter::GateFilter;
#[doc(inline)]
pub use forebay::bridge::{Counts, Guard, Report};
pub use layer::CollectorLayer;
pub use lines::{Line, LineWriter, LineWriterRef, LinesSink};

use std::io::{self, Write};
use std::path::Path;

use forebay::Collector;
use forebay::collector::StartError;
use forebay::sink::TextLinesSink;

/// Makes a layer that hands every event to `collector`, and the guard that stops it.
pub fn layer(collector: Collector) -> (CollectorLayer, Guard) {
    CollectorLayer::new(collector)
}

/// Makes a filter that asks the gate of `collector` before an event is made.
pub fn gate(collector: &Collector) -> GateFilter {
    GateFilter::new(collector.clone())
}

/// Makes a writer for formatters that hands each line to another thread, which writes it to `out`, and the guard that stops it.
///
/// The oldest lines are evicted when 10,000 wait, or lines of 50 MiB, and marked in the output: those are the defaults of
/// [`Config`](forebay::Config). For other settings, see [`lines()`].
///
/// # Errors
///
/// The system refused a thread.
pub fn non_blocking(out: impl Write + Send + 'static) -> Result<(LineWriter, Guard<Line>), StartError> {
    lines::start(LinesSink::new(out))
}

/// Makes a sink that appends lines to a file: by [`daily`](TextLinesSink::daily), to a file a day.
///
/// # Errors
///
/// The file cannot be opened.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use forebay::Builder;
/// use tracing_subscriber::prelude::*;
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("logs/app.log");
/// let file = forebay_tracing::file(&path)?.daily()?.keep(7); // path: "logs/app.log", which becomes "logs/app.2026-11-30.log"
/// # let today = file.path().to_owned();
/// let (writer, guard) = forebay_tracing::lines(Builder::new().sink(file).start()?);
/// let format = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer);
/// tracing::subscriber::with_default(tracing_subscriber::registry().with(format), || tracing::info!("ready"));
/// assert_eq!(guard.stop().lost(), 0);
/// # assert!(std::fs::read_to_string(today)?.ends_with("ready\n"));
/// # Ok(())
/// # }
/// ```
pub fn file(path: impl AsRef<Path>) -> io::Result<TextLinesSink<Line>> {
    TextLinesSink::create_with(path, |line: &Line, out| {
        out.extend_from_slice(line);
        Ok(())
    })
}

/// Makes the writer of a collector of lines that was set up already, with a [`LinesSink`] or another sink, and the guard that stops it.
pub fn lines(collector: Collector<Line>) -> (LineWriter, Guard<Line>) {
    LineWriter::new(collector)
}
