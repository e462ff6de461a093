//! The settings, and their change at run time.

use std::time::Duration;

use arc_swap::ArcSwap;

use crate::collector::Collector;
use crate::config::{Config, ConfigError, Overflow};
use crate::event::{Event, Priority};
use crate::lanes::WhenFull;
use crate::sync::{Arc, AtomicU64, Ordering};
use crate::wake::State;

/// The settings of a collector, read without a lock.
///
/// Written under the mailbox's mutex alone, so that the copy for the hot path never disagrees with them for long.
#[derive(Debug)]
pub(crate) struct Settings {
    config: ArcSwap<Config>,
    /// Of `config`, for the hot path. Relaxed: it guards nothing, and a push that races with a change goes
    /// by either.
    evicts: AtomicU64,
}

impl Settings {
    pub(crate) fn new(config: Config) -> Self {
        Self { evicts: AtomicU64::new(evicts(&config)), config: ArcSwap::from_pointee(config) }
    }

    /// For whoever holds the mailbox.
    fn set(&self, config: Config) {
        self.evicts.store(evicts(&config), Ordering::Relaxed);
        self.config.store(Arc::new(config));
    }

    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// What a full lane of normal or low events does.
    #[inline]
    pub(crate) fn when_full(&self) -> WhenFull {
        if self.evicts.load(Ordering::Relaxed) == 0 { WhenFull::Refuse } else { WhenFull::Evict }
    }

    /// How long `collect` waits for room in the lane of `priority`.
    pub(crate) fn patience(&self, priority: Priority) -> Duration {
        let config = self.config.load();
        match (priority, config.overflow) {
            (Priority::Critical, _) => config.critical_wait,
            (_, Overflow::Block { timeout }) => timeout,
            (_, Overflow::DropOldest | Overflow::DropNewest) => Duration::ZERO,
        }
    }

    /// Whether a task waits for room in the lane of `priority`. It does so without a deadline.
    #[cfg(feature = "futures")]
    pub(crate) fn waits(&self, priority: Priority) -> bool {
        priority == Priority::Critical || matches!(self.config.load().overflow, Overflow::Block { .. })
    }
}

fn evicts(config: &Config) -> u64 {
    u64::from(config.overflow == Overflow::DropOldest)
}

impl<E: Event> Collector<E> {
    /// Changes settings while the collector exists, running or not.
    ///
    /// `change` gets a copy and may be called again when another thread changes settings meanwhile. A new
    /// overflow policy holds for every `collect` that begins after this call, and for those that wait for
    /// room. A new flush strategy holds from the worker's next look at its requests, for which it is woken: what is
    /// pending then is due no later than under either strategy. New deadlines hold for the calls that begin
    /// afterwards, the name and the stack of the worker thread from the next `start`. It may be called on the
    /// worker thread. It takes a lock, and waits for no sink.
    ///
    /// ```
    /// use forebay::{Collector, ConfigError, Overflow};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let collector = Collector::builder().start()?;
    /// collector.update_config(|config| config.overflow = Overflow::DropNewest)?;
    /// assert_eq!(collector.config().overflow, Overflow::DropNewest);
    ///
    /// let refused = collector.update_config(|config| config.capacity = 5);
    /// assert_eq!(refused, Err(ConfigError::Immutable { field: "capacity" }));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// A setting is not allowed; it is one that cannot change (the capacities of the lanes, whose slots are
    /// allocated once, and the session id); or this is a forked child. Nothing changes then.
    pub fn update_config(&self, mut change: impl FnMut(&mut Config)) -> Result<(), ConfigError> {
        let shared = &self.shared;
        if self.state() == State::Forked {
            // The holder of the lock may not exist here.
            return Err(ConfigError::Forked);
        }
        loop {
            let before = shared.settings.config();
            let mut after = Config::clone(&before);
            change(&mut after);
            after.validate()?;
            after.keeps_what_is_fixed(&before)?;
            let mut request = shared.control.reconfigure();
            if Arc::ptr_eq(&before, &shared.settings.config()) {
                shared.settings.set(after);
                request.post();
                break;
            }
        }
        shared.phase.wake();
        // Who waits for room goes by the new policy.
        shared.room.release();
        Ok(())
    }
}
