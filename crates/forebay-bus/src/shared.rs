//! State that the handles and emitters of a bus share.

use std::fmt;
use std::time::Duration;

use arc_swap::ArcSwap;
use forebay::Collector;
use forebay::collector::{FlushError, State};
use forebay::parts::{Count, Inside};
use forebay_history::{History, HistoryError};
use forebay_sync::permit::Permit;
use forebay_sync::sync::{Arc, Forked, Mutex, PlainU64};
use uuid::Uuid;

use super::config::{Mode, OnWorkerFailure};
use super::context;
use super::engine::Engine;
use super::envelope::Envelope;
use super::filter::Filter;
use super::id::FilterId;
use super::inline_sinks::InlineSinks;

/// State that all handles and emitters of a bus share.
pub(crate) struct Shared {
    pub(super) collector: Collector<Envelope>,
    pub(super) engine: Arc<Engine>,
    /// Read without a lock by whoever emits; replaced under the lock of `last_filter`.
    pub(super) filters: ArcSwap<Vec<AddedFilter>>,
    /// The number of the filter that was added last.
    pub(super) last_filter: Mutex<u64>,
    history: Box<dyn History + Send + Sync>,
    pub(super) sinks: InlineSinks,
    pub(super) counts: Counts,
    /// The first half of the ids of its events.
    pub(super) session: Uuid,
    /// The number of the next event: the second half of its id.
    pub(super) next_event: PlainU64,
}

/// Filter of a bus.
#[derive(Clone)]
pub(super) struct AddedFilter {
    pub(super) id: FilterId,
    pub(super) filter: Filter,
    /// Permission to ask it, revoked when it is removed.
    pub(super) permit: Arc<Permit>,
}

/// Counts of events that ended before the rings, and of all others together.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) emitted: Count,
    pub(super) misnamed: Count,
    pub(super) too_deep: Count,
    pub(super) filtered: Count,
    pub(super) stopped: Count,
    pub(super) inline: Count,
    pub(super) own: Count,
    /// Events whose fate before the handlers is known, those of the bus itself included.
    pub(super) completed: Count,
}

impl Shared {
    pub(super) fn new(
        collector: Collector<Envelope>,
        engine: Arc<Engine>,
        history: Box<dyn History + Send + Sync>,
        sinks: InlineSinks,
        session: Uuid,
    ) -> Self {
        Self {
            collector,
            engine,
            filters: ArcSwap::default(),
            last_filter: Mutex::default(),
            history,
            sinks,
            counts: Counts::default(),
            session,
            next_event: PlainU64::new(1),
        }
    }

    /// Returns whether the calling thread is in a handler of some bus, or in a sink of this one: it cannot wait for handlers.
    pub(super) fn is_inside(&self) -> bool {
        context::is_inside()
            || context::is_calling_for(self.engine.address())
            || Inside::of(&self.collector).is_worker()
    }

    /// Refuses in a forked child, where the bus and its locks are the parent's.
    pub(super) fn check(&self) -> Result<(), Forked> {
        self.engine.check()
    }

    /// Returns who calls the handlers at present.
    pub(super) fn mode(&self) -> Mode {
        let config = &self.engine.config;
        match config.on_worker_failure {
            OnWorkerFailure::Inline if self.collector.state() == State::WorkerGone => Mode::Inline,
            _ => config.mode,
        }
    }

    /// Returns the history of the bus, but in a forked child.
    pub(super) fn history(&self) -> Result<&(dyn History + Send + Sync), HistoryError> {
        let refuse = |forked| HistoryError::new("the events of the bus", FlushError::from(forked));
        self.check().map_err(refuse)?;
        Ok(&*self.history)
    }

    pub(super) fn drop_timeout(&self) -> Duration {
        self.collector.config().drop_timeout
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("collector", &self.collector).finish_non_exhaustive()
    }
}
