//! `Settings`: the settings of a collector, read without a lock.

use std::time::Duration;

use arc_swap::ArcSwap;

use crate::config::{Config, Overflow};
use crate::event::Priority;
use crate::gate::Gate;
use crate::sync::{Arc, AtomicU64, CachePadded, Ordering, PlainU64};

/// Settings of a collector, read without a lock. They are written only under the mailbox's mutex.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Settings, but not for `collect`, because the first load of a thread allocates.
    config: ArcSwap<Config>,
    hot: CachePadded<Hot>,
    gate: Gate,
}

/// Settings that `collect` reads. Relaxed: they guard no other data, and a call that races with a change uses the old
/// or the new policy.
#[derive(Debug)]
struct Hot {
    /// A [`Policy`], in one word so that nobody reads half of it.
    policy: AtomicU64,
    /// Longest wait of a critical event, in nanoseconds.
    critical_timeout: AtomicU64,
    /// 1 if the gate has to be asked. Not modelled, because no decision of the protocol depends on it.
    is_gated: PlainU64,
}

/// Overflow policy of the normal and low lanes in 64 bits: two for the kind and 62 for the nanoseconds of a wait. The
/// longest wait, 146 years, is practically for ever. A caller that decides by it reads it once: of two readings, one
/// could allow a wait and the other could not refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy(u64);

impl Policy {
    const EVICT: u64 = 0;
    const REFUSE: u64 = 1;
    const WAIT: u64 = 2;
    const MAX_WAIT: u64 = (1 << 62) - 1;

    fn of(config: &Config) -> Self {
        match config.overflow {
            Overflow::DropOldest => Self(Self::EVICT),
            Overflow::DropNewest => Self(Self::REFUSE),
            Overflow::Block { timeout } => Self(Self::WAIT | nanos(timeout).min(Self::MAX_WAIT) << 2),
        }
    }

    /// Returns whether a full lane of this priority evicts. The critical one never does.
    #[inline(always)]
    pub(crate) fn evicts(self, priority: Priority) -> bool {
        self.0 == Self::EVICT && priority != Priority::Critical
    }

    /// Returns whether a task waits for space in the lane of `priority`. It waits without a deadline.
    #[cfg(feature = "futures")]
    pub(crate) fn waits(self, priority: Priority) -> bool {
        priority == Priority::Critical || self.0 & 3 == Self::WAIT
    }
}

fn nanos(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)
}

impl Settings {
    pub(crate) fn new(config: Config, gate: Gate) -> Self {
        let hot = Hot {
            policy: AtomicU64::new(Policy::of(&config).0),
            critical_timeout: AtomicU64::new(nanos(config.critical_timeout)),
            is_gated: PlainU64::new(u64::from(!config.gate.is_open())),
        };
        Self { config: ArcSwap::from_pointee(config), hot: CachePadded::new(hot), gate }
    }

    /// Stores other settings. The caller holds the mailbox.
    pub(crate) fn set(&self, config: Config) {
        self.hot.critical_timeout.store(nanos(config.critical_timeout), Ordering::Relaxed);
        self.hot.policy.store(Policy::of(&config).0, Ordering::Relaxed);
        self.gate.set(&config.gate);
        self.hot.is_gated.store(u64::from(!config.gate.is_open()), Ordering::Relaxed);
        self.config.store(Arc::new(config));
    }

    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    #[inline(always)]
    pub(crate) fn policy(&self) -> Policy {
        Policy(self.hot.policy.load(Ordering::Relaxed))
    }

    /// Returns the gate, if it has to be asked.
    #[inline(always)]
    pub(crate) fn gate(&self) -> Option<&Gate> {
        (self.hot.is_gated.load(Ordering::Relaxed) != 0).then_some(&self.gate)
    }

    /// Returns how long `collect` waits for space in the lane of `priority` under `policy`. It never waits where the
    /// policy evicts.
    pub(crate) fn wait_timeout(&self, policy: Policy, priority: Priority) -> Duration {
        if priority == Priority::Critical {
            return Duration::from_nanos(self.hot.critical_timeout.load(Ordering::Relaxed));
        }
        match policy.0 {
            Policy::EVICT | Policy::REFUSE => Duration::ZERO,
            wait => Duration::from_nanos(wait >> 2),
        }
    }
}
