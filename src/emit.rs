//! Many items through a few handlers: a source, a bounded channel, a strategy, the results, and one final event.
//!
//! ```text
//! iterator, closure, interval,        bounded        workers by a strategy:            gathering:          final event:
//! receiver, subscription,  --send-->  channel  -->   serial, parallel, batched,  -->   list, ordered, ..,  -->  outcome,
//! or a Sender in your hands  (waits)                 adaptive                          or an iterator      counts, results
//! ```
//!
//! ```
//! use forebay::emit::{self, ErrorPolicy, Gather, Strategy};
//!
//! # fn main() -> Result<(), forebay::emit::EmitError> {
//! let lines = ["4", "8", "fifteen", "16"];
//! let end = emit::from_iter(lines)
//!     .strategy(Strategy::Parallel { workers: 2, rate_limit: None })
//!     .on_error(ErrorPolicy::Continue)
//!     .try_map(|line| line.parse::<u32>())
//!     .gather(Gather::ordered())
//!     .run()?;
//! assert_eq!(end.results, [4, 8, 16]);
//! assert_eq!((end.summary.handled, end.summary.failed), (3, 1));
//! assert_eq!(end.summary.first_error.as_deref(), Some("invalid digit found in string"));
//! # Ok(())
//! # }
//! ```
//!
//! # What holds for all strategies
//!
//! * The law: `sent = handled + failed + cancelled + evicted + left`, at every moment ([`Summary::check_law`]). Every item
//!   is dropped
//!   exactly once, behind the last call of its handler, before the end of the task is reported (one that is evicted, by who
//!   sends); what handler, policy and source captured,
//!   too, unless the source blocks.
//! * The channel is bounded. Who sends into a full one waits, and so does the source.
//! * Items are begun in the order of sending, each once, but for attempts that the [`ErrorPolicy`] asks for.
//! * Once [`CancelToken::cancel`] has returned, no item is taken by a worker, and no call of the handler begins. Items that
//!   were begun, one (or a batch) a worker, are finished, and their results gathered; what a worker has taken and not begun is
//!   cancelled. Senders are refused from then on, also those that wait.
//! * Every task has exactly one final event: the [`Final`] for whoever waits, and a record for the collector of
//!   [`report_to`](Pipeline::report_to), if there is one.
//! * Threads are the task's own, named `forebay-emit`; they end with it, but for one in a handler or source that does not
//!   return.
//!
//! # What happens when
//!
//! | when | then |
//! |---|---|
//! | a handler panics | its item has failed, by [`Failure::Panic`]; the policy decides, the thread goes on |
//! | a handler hangs | other workers go on; [`wait_timeout`](Task::wait_timeout) gives the task back; the drop of the task returns at its deadline, behind a critical event for the collector, and that counts the item as left; destructors are left to a thread |
//! | a source panics | what it has sent is handled; the outcome is [`TaskOutcome::Failed`] |
//! | a source blocks | a cancelled task waits for it for 100 ms, and ends without it; its thread ends when it returns, and what it then makes is dropped |
//! | the destructor of a source blocks, or that of an item that is refused | the task waits for it for 3 s, and ends without it; its thread ends when it returns |
//! | what gathers panics | the item has failed, by [`Failure::Gather`]; what was gathered before is kept |
//! | a strategy has 0 workers, a name breaks the rule | an [`EmitError::Config`] at the start names the setting, the value and what is allowed; nothing is started |
//! | a handler or the source waits for its own task | [`wait`](Task::wait), [`wait_timeout`](Task::wait_timeout) and [`recv`](Results::recv) refuse at once |
//! | the process forks | in the child, senders and [`wait`](Task::wait) are refused, a poll is pending, [`wait_timeout`](Task::wait_timeout) gives the task back, a cancel and a drop do nothing; the task goes on in the parent. A handler that forks may return in the child: its thread ends there, with nothing done |
//! | the pipeline is dropped without a start | what was sent is dropped, senders are refused |
//! | a handler sends into its own full channel | it is refused as full, instead of waiting for itself |
//!
//! # Adaptive
//!
//! [`Strategy::Adaptive`] climbs the hill of throughput. It begins with `min` workers and doubles them, window by window, as long
//! as a step brings at least half of what it would bring if handlers only waited. Then it tries a quarter more and a quarter
//! less in turn, keeps more where that pays by the same measure, and keeps fewer where it costs less than that. So handlers that
//! wait get many workers, handlers that compute get as many as there are processors, and a slow source gets no more than
//! keep up with it; where load changes, it follows. A window lasts at least until every worker has ended some items, so numbers
//! are judged slowly where handlers are slow. Only time in which all workers had an item and another waited counts, so a source
//! that comes in bursts is judged by its bursts; a number that a window had no use for is lowered. Where nothing is completed although
//! items wait, as when handlers wait for each other, the number is doubled: after four windows at first, or four times what an
//! item took before, then after twice as long; so also where a reader of results pauses. The method is that of the thread pool
//! of .NET (Hellerstein, Morrison, Eilebrecht,
//! 2009), with the slow start of TCP (Jacobson, 1988).

// From the bottom up: a module imports only from those that stand before it.
mod cancel;
mod policy;
mod source;
mod summary;
mod user_code;

mod adaptive;

mod strategy;

mod state;

mod channel;

mod gather;
mod item;
mod sender;

mod output;
mod task;

mod results;
mod worker;

mod pipeline;

#[cfg(feature = "futures")]
mod stream;

pub use cancel::CancelToken;
pub use channel::{SendError, SendRefusal};
pub use gather::Gather;
pub use item::{Item, ItemKind, TaskId};
pub use pipeline::{Pipeline, Stage};
pub use policy::{Decide, Decision, ErrorPolicy, Failure};
pub use results::{Results, ResultsIter};
pub use sender::Sender;
pub use strategy::Strategy;
pub use summary::{Summary, TaskOutcome};
pub use task::{EmitError, Final, Task};

use std::time::Duration;

use crate::event::Event;
use crate::subscription::Subscription;
use crate::sync::Receiver;

/// Items from an iterator, which is run on a thread of its own. It is asked for an item when there is room for it, or soon.
///
/// Receivers that are iterators, such as those of crossbeam-channel, come in here as well.
pub fn from_iter<I>(items: I) -> Pipeline<I::Item>
where
    I: IntoIterator,
    I::IntoIter: Send + 'static,
{
    let mut items = items.into_iter();
    from_fn(move || items.next())
}

/// Items from a function, which is called on a thread of its own until it returns `None`.
pub fn from_fn<T>(mut next: impl FnMut() -> Option<T> + Send + 'static) -> Pipeline<T> {
    Pipeline::new(Some(Box::new(move |_| next())))
}

/// Items from a channel of the standard library, until all of its senders are gone. Of a task that ends before, the thread
/// waits for one more item, and drops it.
pub fn from_receiver<T: Send + 'static>(receiver: Receiver<T>) -> Pipeline<T> {
    from_iter(receiver)
}

/// Events from a subscription, until its collector is gone. A task that lags loses its oldest there, like every subscriber.
pub fn from_subscription<E: Event + Clone>(subscription: Subscription<E>) -> Pipeline<E> {
    Pipeline::new(Some(source::of_subscription(subscription)))
}

/// The numbers 0, 1, 2 and so on: the first at once, number `n` as many periods later. More than zero. Numbers for which the
/// task had no time are left out. It ends when it is cancelled, or by [`Pipeline::take`].
pub fn interval(every: Duration) -> Pipeline<u64> {
    Pipeline::new(Some(source::of_interval(every))).with_interval(every)
}

/// Items from your own threads: a sender, and the pipeline at its other end, with a capacity in items.
///
/// ```
/// use forebay::emit::{self, Gather};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (sender, pipeline) = emit::channel(16);
/// let task = pipeline.map(|word: &&str| word.len()).gather(Gather::list()).start()?;
/// sender.send("ring")?;
/// sender.send("worker")?;
/// drop(sender);
/// assert_eq!(task.wait()?.results, [4, 6]);
/// # Ok(())
/// # }
/// ```
pub fn channel<T>(capacity: usize) -> (Sender<T>, Pipeline<T>) {
    let pipeline = Pipeline::new(None).capacity(capacity);
    (pipeline.sender(), pipeline)
}
