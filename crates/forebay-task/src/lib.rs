//! Tasks of [`forebay`]: many items through a few handlers, from a source through a bounded channel to results and one final event.
//!
//! ```text
//! iterator, closure, interval,        bounded        workers by a strategy:            gathering:          final event:
//! receiver, subscription,  --send-->  channel  -->   serial, parallel, batched,  -->   list, ordered, ..,  -->  outcome,
//! or a Sender in your hands  (waits)                 adaptive                          or an iterator      counts, results
//! ```
//!
//! ```
//! use forebay_task::{self as task, ErrorPolicy, Gather, Strategy};
//!
//! # fn main() -> Result<(), forebay_task::TaskError> {
//! let lines = ["4", "8", "fifteen", "16"];
//! let end = task::from_iter(lines)
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
//! * The law: `sent = handled + failed + cancelled + evicted + left`, at every moment ([`Summary::check_law`]). Every item is dropped
//!   exactly once, after the last call of its handler and before the end of the task is reported. (The sender drops an item that is
//!   evicted.) The captures of handler, policy and source are dropped before the end as well, unless the source blocks.
//! * The channel is bounded. A sender waits while it is full, and so does the source.
//! * Items are begun in the order of sending, each once, except for the attempts that the [`ErrorPolicy`] adds.
//! * Once [`CancelToken::cancel`] has returned, no worker takes an item, and no call of the handler begins. Items that were begun, one
//!   (or a batch) per worker, are finished, and their results gathered. Items that a worker has taken and not begun are cancelled.
//!   Senders are refused from then on, also those that wait.
//! * Every task has exactly one final event: the [`Final`] for the thread that waits, and a record for the collector of
//!   [`report_to`](Pipeline::report_to), if there is one.
//! * The threads belong to the task, are named `forebay-task`, and end with it. A thread in a handler or a source that does not return
//!   ends later.
//!
//! # What happens when
//!
//! | when | then |
//! |---|---|
//! | a handler panics | The item has failed, by [`Failure::Panic`]. The policy decides, and the thread goes on |
//! | a handler hangs | Other workers go on. [`wait_timeout`](Task::wait_timeout) gives the task back. The drop of the task collects a critical record that counts the item as left, and returns at its deadline. Destructors are left to a thread |
//! | a source panics | What it has sent is handled. The outcome is [`TaskOutcome::Failed`] |
//! | a source waits for a receiver of crossbeam-channel, a subscription or an interval | A cancel wakes it, and the task ends at once |
//! | a source blocks otherwise | A cancelled task waits for it for 100 ms, and ends without it. The thread ends when the source returns, and drops what that made |
//! | the destructor of a source or of a refused item blocks | The task waits for it for 3 s, and ends without it. The thread ends when the destructor returns |
//! | the gathering panics | The item has failed, by [`Failure::Gather`]. The results before it are kept |
//! | a strategy has 0 workers, a name breaks the rule | [`TaskError::Config`] at the start names the setting, the value and what is allowed. Nothing is started |
//! | a handler or the source waits for its own task | [`wait`](Task::wait), [`wait_timeout`](Task::wait_timeout) and [`recv`](Results::recv) refuse at once |
//! | the process forks | In the child, senders and [`wait`](Task::wait) are refused, a poll is pending, [`wait_timeout`](Task::wait_timeout) gives the task back, and a cancel or a drop does nothing. The task goes on in the parent. A handler that forks may return in the child: its thread ends there and does nothing more |
//! | the pipeline is dropped without a start | The items that were sent are dropped, and senders are refused |
//! | a handler sends into its own full channel | The item is refused as full, because the handler would wait for itself |
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
//! of .NET (Hellerstein, Morrison, Eilebrecht, 2009), with the slow start of TCP (Jacobson, 1988).

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
pub use task::{Final, Task, TaskError};

/// The code of the page in `docs/`, compiled and run with the other tests of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/tasks.md")]
struct Page;

use std::time::Duration;

use crossbeam_channel::Receiver;
use forebay::Event;
use forebay::sink::EventReceiver;
use forebay::subscription::Subscription;
use forebay_sync::sync::Receiver as MpscReceiver;

/// Makes a source of an iterator, which runs on its own thread. It may be one item ahead of the space in the channel.
pub fn from_iter<I>(items: I) -> Pipeline<I::Item>
where
    I: IntoIterator,
    I::IntoIter: Send + 'static,
{
    let mut items = items.into_iter();
    from_fn(move || items.next())
}

/// Makes a source of a function, which is called on its own thread until it returns `None`.
pub fn from_fn<T>(mut next: impl FnMut() -> Option<T> + Send + 'static) -> Pipeline<T> {
    Pipeline::new(Some(Box::new(move |_| next())))
}

/// Makes a source of a receiver of crossbeam-channel, until all of its senders are gone.
///
/// A cancel wakes the wait for the next item. What was not received then stays in the channel for other receivers; an item that
/// was just received is dropped.
///
/// ```
/// use forebay_task::{self as task, Gather, TaskOutcome};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (sender, receiver) = crossbeam_channel::unbounded();
/// let lengths = task::from_receiver(receiver).map(|word: &&str| word.len()).results()?;
/// sender.send("lane")?;
/// assert_eq!(lengths.recv(), Some(4));
/// lengths.task().cancel(); // Although the sender is still there.
/// assert_eq!(lengths.into_task().wait()?.summary.outcome, TaskOutcome::Cancelled);
/// # Ok(())
/// # }
/// ```
pub fn from_receiver<T: Send + 'static>(receiver: Receiver<T>) -> Pipeline<T> {
    Pipeline::new(Some(source::of_receiver(receiver)))
}

/// Makes a source of a receiver of the standard library, until all of its senders are gone.
///
/// Nothing but an item wakes the wait of such a receiver. A cancelled task ends without it after 100 ms. The thread of the source
/// waits for one more item, drops it, and ends. Prefer [`from_receiver`].
pub fn from_mpsc<T: Send + 'static>(receiver: MpscReceiver<T>) -> Pipeline<T> {
    from_iter(receiver)
}

/// Makes a source of a subscription, until its collector is gone. A task that lags loses its oldest events there,
/// like every subscriber.
pub fn from_subscription<E: Event + Clone>(subscription: Subscription<E>) -> Pipeline<E> {
    Pipeline::new(Some(source::of_subscription(subscription)))
}

/// Makes a source of the receiver of [`Collector::subscribe_channel`](forebay::Collector::subscribe_channel) or
/// [`sink::channel`](forebay::sink::channel), until its collector is gone. A task that lags has new events rejected there.
///
/// ```
/// use forebay::{Collector, Record};
/// use forebay_task as task;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let collector = Collector::builder().start()?;
/// let losses = collector.subscribe_channel("train.loss", 1000)?;
/// let steps = task::from_events(losses).map(Record::step).results()?;
/// collector.collect(Record::scalar("train.loss", 0.5).with_step(7));
/// collector.stop()?;
/// drop(collector);
/// assert_eq!(steps.iter().collect::<Vec<_>>(), [Some(7)]);
/// # Ok(())
/// # }
/// ```
pub fn from_events<E: Event>(events: EventReceiver<E>) -> Pipeline<E> {
    Pipeline::new(Some(source::of_events(events)))
}

/// Makes a source of the numbers 0, 1, 2 and so on: the first at once, number `n` as many periods later. The period
/// is more than zero. Numbers for which the task had no time are left out. The source ends by a cancel, or by
/// [`Pipeline::take`].
pub fn interval(every: Duration) -> Pipeline<u64> {
    Pipeline::new(Some(source::of_interval(every))).with_interval(every)
}

/// Makes a sender for your own threads and the pipeline at its other end, with a capacity in items.
///
/// ```
/// use forebay_task::{self as task, Gather};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (sender, pipeline) = task::channel(16);
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
