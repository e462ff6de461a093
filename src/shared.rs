//! `Shared`: what handles and worker share.

use crate::batch::destroy;
use crate::clock::Clock;
use crate::event::Event;
use crate::lanes::Lanes;
use crate::mailbox::Mailbox;
use crate::origin::Origin;
use crate::settings::Settings;
use crate::stats::{Alerts, Registry, Tally};
use crate::sync::{Arc, PlainMutex, PlainU64, WorkerMark, is_worker_of};
use crate::unix::ForkWatch;
use crate::wake::{Phase, SpaceWaiters, State};
use crate::worker_state::WorkerState;

/// What handles and worker share. Made by the builder; handles and worker hold it, and the last of them
/// drops it, with whatever a collector that was never stopped still has in its rings.
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
    pub(crate) clock: Clock,
    /// 1 once the last handle is being dropped. Ordered by the mailbox's mutex, which `stop` takes after it is
    /// written and the worker before it is read.
    pub(crate) is_disowned: PlainU64,
    /// Takes the phase off the list of those that a fork orphans.
    pub(crate) _fork_watch: ForkWatch,
}

impl<E: Event> Shared<E> {
    /// Counts and destroys events that came too late; says how many there were.
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

    /// Whether the calling thread is this collector's worker.
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
