//! `Collector`: the handle, which is all that a hot loop sees.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};

use super::owner::Owner;
use crate::config::Config;
use crate::event::{Event, Record};
use crate::origin::{Origin, RunIdentity};
use crate::shared::Shared;
use crate::stats::Stats;
use crate::sync::Arc;
use crate::wake::State;

/// Handle of an event collector. Give a clone to every thread that collects.
///
/// A clone is another handle of the same collector and costs two reference counts. Dropping the last handle stops the
/// collector with a short deadline ([`Config::drop_timeout`](crate::Config::drop_timeout)). Call [`stop`](Self::stop)
/// to learn how that went. If the collector does not run, that drop also runs the destructors of its sinks. A sink
/// that holds a handle keeps its collector alive until the sink is removed.
///
/// ```
/// use forebay::{Collector, Record, sink::MemorySink};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let memory = MemorySink::new();
/// let collector = Collector::builder().sink(memory.clone()).start()?;
/// for step in 0..1000 {
///     collector.collect(Record::scalar("train.loss", 1.0 / (step + 1) as f64).with_step(step));
/// }
/// let report = collector.stop()?;
/// assert_eq!(report.stats.processed, 1000);
/// assert_eq!(memory.len(), 1000);
/// # Ok(())
/// # }
/// ```
pub struct Collector<E: Event = Record> {
    pub(crate) shared: Arc<Shared<E>>,
    /// Held by handles alone, never by the worker, so that its drop is the drop of the last handle.
    _owner: Arc<Owner<E>>,
}

impl<E: Event> Collector<E> {
    pub(crate) fn from_shared(shared: Arc<Shared<E>>) -> Self {
        let owner = Arc::new(Owner::of(&shared));
        Self { shared, _owner: owner }
    }

    /// Returns whether a worker is there to deliver what is collected.
    pub fn is_running(&self) -> bool {
        self.state().is_running()
    }

    /// Returns what the collector is doing.
    pub fn state(&self) -> State {
        self.shared.phase.load().state()
    }

    /// Returns how many events are queued or with the worker. Events that the worker is just taking out of a ring may be left
    /// out: wait for a [`flush`](Self::flush), not for a 0.
    pub fn pending(&self) -> u64 {
        self.shared.pending()
    }

    /// Returns how many bytes the events own that are queued or with the worker, beyond their slots. See
    /// [`Config::max_bytes`](crate::Config::max_bytes).
    pub fn pending_bytes(&self) -> u64 {
        self.shared.lanes.budget().held()
    }

    /// Returns the account of all events so far.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Returns the current settings; [`update_config`](Self::update_config) changes them. Takes no lock.
    pub fn config(&self) -> Arc<Config> {
        self.shared.settings.config()
    }

    /// Returns the id that every batch carries: the one of the settings, or a UUID made with the collector.
    pub fn session_id(&self) -> &str {
        &self.shared.origin.session_id
    }

    /// Returns where its events come from. Every batch carries this.
    pub fn origin(&self) -> &Origin {
        &self.shared.origin
    }

    /// Returns the training run that began last with this collector, also if it has ended: see
    /// [`TrainingRun`](crate::run::TrainingRun#several-runs-of-one-collector).
    pub fn current_run(&self) -> Option<Arc<RunIdentity>> {
        self.shared.run.get()
    }
}

impl<E: Event> Clone for Collector<E> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), _owner: Arc::clone(&self._owner) }
    }
}

/// A panic of the caller cannot leave a collector half-changed: no lock is poisoned, and no call runs user code in
/// the middle of a change.
impl<E: Event> UnwindSafe for Collector<E> {}
impl<E: Event> RefUnwindSafe for Collector<E> {}

impl<E: Event> fmt::Debug for Collector<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector")
            .field("state", &self.state())
            .field("pending", &self.pending())
            .finish_non_exhaustive()
    }
}
