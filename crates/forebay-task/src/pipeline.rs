//! Pipeline of a task: source, settings, handler, gathering, start.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use forebay::config::ConfigError;
use forebay::parts::check;
use forebay::{Collector, Event, Name, Record};
use forebay_sync::clock::{Clock, ManualClock};
use forebay_sync::sync::{Arc, Mutex};

use crate::cancel::CancelToken;
use crate::channel::{Control, Shared};
use crate::gather::Gather;
use crate::item::{Item, TaskId};
use crate::output::{Observer, Output};
use crate::policy::ErrorPolicy;
use crate::results::{Results, outlet};
use crate::sender::Sender;
use crate::source::Source;
use crate::state::Report;
use crate::strategy::Strategy;
use crate::summary::check_name;
use crate::task::{Final, Promise, Task, TaskError};
use crate::worker::{Job, Tools, Work, feed};

/// The first half of a task: its source and its settings. Made by [`from_iter`](crate::from_iter) and the other functions of
/// [the module](crate); a handler ([`map`](Self::map), [`try_map`](Self::try_map), [`map_batch`](Self::map_batch)) makes a
/// [`Stage`] of it.
///
/// Settings are checked at the start. A pipeline that is dropped before drops what was sent, and refuses senders.
#[must_use = "a pipeline does nothing until it is started"]
pub struct Pipeline<T> {
    channel: Channel<T>,
    settings: Settings,
}

/// The second half of a task: what becomes of the items, and of the results.
#[must_use = "a pipeline does nothing until it is started"]
pub struct Stage<T, R, O = u64> {
    pipeline: Pipeline<T>,
    work: Work<T, R>,
    output: Output<R, O>,
}

struct Settings {
    capacity: usize,
    max_items: u64,
    strategy: Strategy,
    policy: ErrorPolicy,
    token: CancelToken,
    report: Option<Report>,
    drop_timeout: Duration,
    clock: Clock,
    interval: Option<Duration>,
    debounce: Option<Duration>,
}

/// Channel of a pipeline, and its source. Dropped before the start, it closes the channel.
struct Channel<T> {
    shared: Arc<Shared<T>>,
    /// `None` if items come from senders.
    source: Option<Source<T>>,
}

impl<T> Drop for Channel<T> {
    fn drop(&mut self) {
        if self.shared.is_left() {
            // The source is the parent's: what it captured, as a receiver, may take a lock that has no holder here.
            std::mem::forget(self.source.take());
        }
        self.shared.abandon();
    }
}

impl<T> Pipeline<T> {
    pub(crate) fn new(source: Option<Source<T>>) -> Self {
        let settings = Settings {
            capacity: 64,
            max_items: u64::MAX,
            strategy: Strategy::default(),
            policy: ErrorPolicy::default(),
            token: CancelToken::new(),
            report: None,
            drop_timeout: Duration::from_secs(1),
            clock: Clock::System,
            interval: None,
            debounce: None,
        };
        Self { channel: Channel { shared: Arc::new(Shared::new()), source }, settings }
    }

    /// Notes the period of the source, which is checked at the start.
    pub(crate) fn with_interval(mut self, every: Duration) -> Self {
        self.settings.interval = Some(every);
        self
    }

    pub(crate) fn sender(&self) -> Sender<T> {
        Sender::new(&self.channel.shared)
    }

    /// Sets how many items the channel holds, 1 or more. When it is full, senders and the source wait. Defaults to 64.
    pub fn capacity(mut self, items: usize) -> Self {
        self.settings.capacity = items;
        // Senders may be at work already. Of none is an error at the start.
        self.channel.shared.change_bounds(|state| state.capacity = items.max(1));
        self
    }

    /// Closes the channel after so many items. Defaults to no limit.
    pub fn take(mut self, items: u64) -> Self {
        self.settings.max_items = items;
        self.channel.shared.change_bounds(|state| state.max_items = items);
        self
    }

    /// Hands an item on when no other has come for `quiet`, by the clock of the task; more than zero.
    ///
    /// An item that comes sooner takes the place of the one before, which is dropped and counted as
    /// [`evicted`](crate::Summary::evicted). The last item is handed on at the end. So senders never wait for space, and the capacity
    /// has no effect. Evicted items are not among the [items](Stage::items). Not allowed with [`Strategy::Batched`]. Defaults to off.
    ///
    /// ```
    /// use std::time::Duration;
    /// use forebay_task::{self as task, Gather};
    ///
    /// # fn main() -> Result<(), forebay_task::TaskError> {
    /// let typed = task::from_iter(["f", "fo", "for"]).debounce(Duration::from_secs(3600));
    /// let end = typed.map(|text| text.len()).gather(Gather::list()).run()?;
    /// assert_eq!((end.results, end.summary.evicted), (vec![3], 2));
    /// # Ok(())
    /// # }
    /// ```
    pub fn debounce(mut self, quiet: Duration) -> Self {
        self.settings.debounce = Some(quiet);
        self.channel.shared.debounce(quiet);
        self
    }

    /// Sets how items are handled. Defaults to [`Strategy::Serial`].
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.settings.strategy = strategy;
        self
    }

    /// Sets what is done about failures. Defaults to [`ErrorPolicy::Continue`].
    pub fn on_error(mut self, policy: ErrorPolicy) -> Self {
        self.settings.policy = policy;
        self
    }

    /// Sets the token that cancels the task. If it is cancelled before the start, the task handles nothing.
    pub fn cancel_token(mut self, token: &CancelToken) -> Self {
        self.settings.token = token.child();
        self
    }

    /// Collects one critical record of this name at the end of the task: after its last item, a failure, a cancel or the drop of the
    /// task. The record has the fields of [`Summary`](crate::Summary). A wait for the task returns after the record was collected.
    ///
    /// The name has two or more words of `a-z`, `0-9` and `_`, joined by dots: `import.files.finished`. The task holds a handle of
    /// the collector. So a task whose source is a subscription to this collector does not end with it: cancel it.
    ///
    /// The collector may be that of a bus, or of events of your own that are made from a record.
    pub fn report_to<E: Event + From<Record>>(
        mut self,
        collector: &Collector<E>,
        name: impl Into<Name>,
    ) -> Self {
        let collector = collector.clone();
        let collect = Box::new(move |record: Record| _ = collector.collect(record));
        self.settings.report = Some(Report { collect, name: name.into() });
        self
    }

    /// Sets how long the drop of the task waits for handlers that run. If they do not return in time, the drop collects the record of
    /// [`report_to`](Self::report_to) itself, and leaves destructors to a thread. Defaults to 1 s.
    pub fn drop_timeout(mut self, timeout: Duration) -> Self {
        self.settings.drop_timeout = timeout;
        self
    }

    /// Sets a clock that a test moves, for delays, rates, windows and intervals.
    pub fn manual_clock(mut self, clock: &ManualClock) -> Self {
        self.settings.clock = Clock::Manual(clock.clone());
        self
    }
}

impl<T: Send + 'static> Pipeline<T> {
    /// Handles items by a function that fails only by a panic.
    pub fn map<R: Send + 'static>(self, handler: impl Fn(&T) -> R + Send + Sync + 'static) -> Stage<T, R> {
        self.stage(Work::Item(Box::new(move |item| Ok(handler(item)))))
    }

    /// Handles items by a function that can fail. It may be called by several threads at a time, and again for the same item
    /// ([`ErrorPolicy::Retry`]); the item is dropped behind its last call.
    pub fn try_map<R: Send + 'static, E: Into<Box<dyn Error + Send + Sync>>>(
        self,
        handler: impl Fn(&T) -> Result<R, E> + Send + Sync + 'static,
    ) -> Stage<T, R> {
        self.stage(Work::Item(Box::new(move |item| handler(item).map_err(Into::into))))
    }

    /// Handles all items that a worker takes at once, as a unit with one result: they are handled, tried again, or fail,
    /// together. By [`Strategy::Batched`] that is a batch, by every other strategy one item.
    pub fn map_batch<R: Send + 'static, E: Into<Box<dyn Error + Send + Sync>>>(
        self,
        handler: impl Fn(&[T]) -> Result<R, E> + Send + Sync + 'static,
    ) -> Stage<T, R> {
        self.stage(Work::Batch(Box::new(move |items| handler(items).map_err(Into::into))))
    }

    fn stage<R: Send + 'static>(self, work: Work<T, R>) -> Stage<T, R> {
        Stage { pipeline: self, work, output: Output::Results(Gather::count()) }
    }
}

impl Settings {
    fn check(&self) -> Result<(), ConfigError> {
        check("task.capacity", self.capacity, "1 or more", self.capacity >= 1)?;
        self.strategy.check()?;
        if let Some(every) = self.interval {
            check("task.interval", format!("{every:?}"), "more than zero", !every.is_zero())?;
        }
        if let Some(quiet) = self.debounce {
            check("task.debounce", format!("{quiet:?}"), "more than zero", !quiet.is_zero())?;
            let is_batched = matches!(self.strategy, Strategy::Batched { .. });
            check("task.debounce", format!("{quiet:?}"), "none with Strategy::Batched", !is_batched)?;
        }
        self.report.iter().try_for_each(|report| check_name(&report.name))
    }
}

impl<T, R, O> Stage<T, R, O>
where
    T: Send + 'static,
    R: Send + 'static,
    O: Send + 'static,
{
    /// Sets how results are gathered. Defaults to [`Gather::count`].
    pub fn gather<P: Send + 'static>(self, gather: Gather<R, P>) -> Stage<T, R, P> {
        Stage { pipeline: self.pipeline, work: self.work, output: Output::Results(gather) }
    }

    /// Gathers items in the place of results: one [`Item`] for every item, with its times and its fate, and one for the end. An item
    /// costs three readings of the clock. Without this call it costs nothing.
    ///
    /// ```
    /// use forebay_task::{self as task, Gather, ItemKind};
    ///
    /// # fn main() -> Result<(), forebay_task::TaskError> {
    /// let lines = task::from_iter(["4", "eight"]).try_map(|line| line.parse::<u32>());
    /// let items = lines.gather_items(Gather::list()).run()?.results;
    /// assert_eq!((items[0].id, &items[0].kind), (0, &ItemKind::Data(4)));
    /// assert_eq!(items[1].kind, ItemKind::Continue("invalid digit found in string".to_owned()));
    /// assert!(matches!(&items[2].kind, ItemKind::Final(summary) if summary.failed == 1));
    /// assert!(items[0].created <= items[0].completed);
    /// # Ok(())
    /// # }
    /// ```
    pub fn gather_items<P: Send + 'static>(self, gather: Gather<Item<R>, P>) -> Stage<T, R, P> {
        Stage { pipeline: self.pipeline, work: self.work, output: Output::Items(gather) }
    }

    /// Starts the task on threads of its own.
    ///
    /// # Errors
    ///
    /// A setting is not allowed, or the system refused a thread.
    pub fn start(self) -> Result<Task<O>, TaskError> {
        let Stage { pipeline: Pipeline { mut channel, settings }, work, output } = self;
        settings.check()?;
        let Settings { capacity, max_items, strategy, policy, token, report, drop_timeout, clock, .. } =
            settings;
        let shared = Arc::clone(&channel.shared);
        if shared.is_left() {
            return Err(TaskError::Forked);
        }
        let plan = strategy.plan();
        let workers = plan.threads();
        shared.change_bounds(|state| {
            (state.capacity, state.max_items, state.plan, state.clock) =
                (capacity, max_items, plan, clock.clone());
            state.report = report;
            state.is_observed = matches!(output, Output::Items(_));
        });
        let promise = Arc::new(Promise::new());
        let id = TaskId::next();
        let observer = matches!(output, Output::Items(_)).then(|| Observer::new(id, &clock));
        let output = Mutex::new(Some(output));
        let (own, own_promise) = (token.clone(), Arc::clone(&promise));
        let tools = Mutex::new(Some(Arc::new(Tools { work, policy })));
        let job = Job {
            shared: Arc::clone(&shared),
            tools,
            output,
            observer,
            promise: own_promise,
            clock,
            _token: own,
        };
        // One that is cancelled already asks its source for nothing.
        token.add_listener(&(Arc::clone(&shared) as _));
        // Before any worker looks, or one that finds no sender would leave.
        let feeding = channel.source.take().map_or(Ok(()), |source| feed(&shared, source));
        feeding.map_err(TaskError::Thread)?;
        shared.begin(workers);
        let control: Arc<dyn Control> = shared;
        let task = Task::new(id, control, token, promise, drop_timeout);
        let job = Arc::new(job);
        if let Err((missing, error)) = job.hire(workers) {
            task.disown();
            job.depart(missing);
            return Err(TaskError::Thread(error));
        }
        Ok(task)
    }

    /// Starts the task and waits for its end.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start). What becomes of the task is no error: see [`Summary::outcome`](crate::Summary::outcome).
    pub fn run(self) -> Result<Final<O>, TaskError> {
        self.start()?.wait()
    }

    /// Starts the task, and returns its results as they come. This replaces [`gather`](Self::gather).
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start).
    pub fn results(self) -> Result<Results<R>, TaskError> {
        let (writer, into_results) = outlet(self.pipeline.settings.capacity);
        self.gather(Gather::from_steps(writer)).start().map(into_results)
    }

    /// Starts the task, and returns its items as they are done with: one [`Item`] for every item, and then one for the end. See
    /// [`gather_items`](Self::gather_items).
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start).
    pub fn items(self) -> Result<Results<Item<R>>, TaskError> {
        let (writer, into_results) = outlet(self.pipeline.settings.capacity);
        self.gather_items(Gather::from_steps(writer)).start().map(into_results)
    }
}

impl<T> fmt::Debug for Pipeline<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { capacity, strategy, policy, .. } = &self.settings;
        f.debug_struct("Pipeline")
            .field("capacity", capacity)
            .field("strategy", strategy)
            .field("on_error", policy)
            .finish_non_exhaustive()
    }
}

impl<T, R, O> fmt::Debug for Stage<T, R, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage").field("pipeline", &self.pipeline).finish_non_exhaustive()
    }
}
