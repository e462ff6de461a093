//! `Shared`: the state that handles and worker share.

use crate::batch::destroy;
use crate::clock::Clock;
use crate::event::Event;
use crate::lanes::Lanes;
use crate::mailbox::Mailbox;
use crate::origin::{CurrentRun, Origin};
use crate::settings::Settings;
use crate::stats::{Alerts, Registry, Tally};
use crate::sync::{Arc, PlainMutex, PlainU64, WorkerMark, is_worker_of};
use crate::unix::ForkWatch;
use crate::wake::{Phase, SpaceWaiters, State};
use crate::worker_state::WorkerState;

/// State that handles and worker share. The builder makes it. The last owner drops it, with the events still in the
/// rings of a collector that was never stopped.
pub(crate) struct Shared<E> {
    pub(crate) phase: Arc<Phase>,
    pub(crate) lanes: Lanes<E>,
    pub(crate) settings: Settings,
    pub(crate) tally: Tally,
    pub(crate) space_waiters: SpaceWaiters,
    pub(crate) mailbox: Mailbox<E, WorkerState<E>>,
    pub(crate) registry: Registry,
    pub(crate) alerts: PlainMutex<Alerts>,
    pub(crate) origin: Arc<Origin>,
    pub(crate) run: CurrentRun,
    pub(crate) clock: Clock,
    /// 1 once the last handle is being dropped. The mailbox's mutex orders it: `stop` takes the mutex after the
    /// write, and the worker before the read.
    pub(crate) is_disowned: PlainU64,
    /// Guard that, on drop, removes the phase from the list of those that a fork orphans.
    pub(crate) _fork_watch: ForkWatch,
}

impl<E: Event> Shared<E> {
    /// Counts and drops events that came too late. Returns how many there were.
    pub(crate) fn discard(&self, mut late: Vec<E>) -> u64 {
        let discarded = late.len() as u64;
        if self.phase.load().state() == State::WorkerGone {
            self.tally.rejected.worker_gone.add(discarded);
        } else {
            self.tally.rejected.stopped.add(discarded);
        }
        destroy(&mut late);
        discarded
    }

    /// Announces that the worker sleeps until `wake_at` events are pending, and calls `park`, unless there is something to do.
    pub(crate) fn sleep(&self, wake_at: u32, park: impl FnOnce()) {
        if !self.phase.fall_asleep(wake_at) {
            return;
        }
        // Nobody unparks the worker for what came before the announcement, so it looks again.
        if !self.lanes.needs_worker(wake_at) && self.mailbox.has_no_requests() {
            park();
        }
        self.phase.set_awake();
    }

    /// Returns whether the calling thread is this collector's worker.
    pub(crate) fn is_worker(&self) -> bool {
        is_worker_of(self.address())
    }

    /// Marks the calling thread as this collector's worker.
    pub(crate) fn mark_worker(&self) -> WorkerMark {
        WorkerMark::set(self.address())
    }

    pub(crate) fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}
