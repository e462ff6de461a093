//! Bridge from [`log`] to [`forebay`]: a logger that makes a record of every line, which another thread writes.
//!
//! It waits for no file. An `Error` is critical: if the lane of critical events is full, it waits for space, at most 100 ms by default. What is lost when a sink is too slow is counted by its reason, and marked at its place in the output. [`Logger`] has an example.
//!
//! # What happens when
//!
//! | when | then |
//! |---|---|
//! | a sink is too slow | the oldest records are evicted, as [`Overflow`](forebay::Overflow) of the collector says; a record `forebay.gap` stands where they are missing |
//! | an `Error` finds the lane of critical events full | it waits for space for at most [`critical_timeout`](forebay::Config::critical_timeout), 100 ms by default, and is rejected and counted then; [`Logger::priority`] gives it another priority |
//! | a sink, or a library that it uses, logs | on the threads that deliver, also for another collector, the line is left out and counted ([`Counts::own_thread`]); for threads of its own, see [`Logger::ignore`] |
//! | a `Debug` or `Display` panics | its field says `(panicked: MESSAGE)`; the line is counted and goes on (with `panic = "abort"` the process ends) |
//! | a `Debug` or `Display` returns an error | its field ends with `(failed)`, and is counted ([`Counts::failed`]) |
//! | the source of key-values fails or panics | the pairs before that are there, and a field `key_values` says why it ended; it is counted |
//! | a `Debug` logs | its line is collected; more than four within each other are left out and counted |
//! | a text is longer than 1 MiB | it is cut, ends with `…`, and is counted ([`Logger::max_text_bytes`]) |
//! | [`log::Log::flush`] is called | it waits for what was logged before, and ends by [`Logger::flush_timeout`] |
//! | the process forks | in the child, every line is refused at once and counted |
//! | the guard is dropped | the collector stops by its deadline; [`Guard::on_stop`] gets the report. `std::process::exit` drops nothing |
//!
//! The names of targets and keys, and messages without arguments, are kept in a table of 2,048. Each that finds no place costs an allocation in
//! every line.

mod sync;

mod logger;
mod names;

#[doc(inline)]
pub use forebay::bridge::{Counts, Guard, Report};
pub use logger::{FilterError, Logger};
