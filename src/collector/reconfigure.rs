//! Settings that change while the collector exists.

use super::Collector;
use crate::config::{Config, ConfigError};
use crate::event::Event;
use crate::sync::Arc;

impl<E: Event> Collector<E> {
    /// Changes settings while the collector exists, running or not.
    ///
    /// `change` gets a copy. It is called again whenever another thread has changed settings meanwhile, so it
    /// should be quick, and must not change settings itself: that would never end.
    ///
    /// * The overflow policy and `critical_wait` hold for every `collect` that begins after this call, and for
    ///   those that wait for room.
    /// * `max_bytes` and what can change of the gate hold for every `collect` that begins after this call.
    /// * The flush strategy and the batch size hold from the worker's next look at its requests, for which it is
    ///   woken. If the old and the new strategy have an interval, what is pending is due at the earlier of the
    ///   old moment and one new interval from now. A strategy without an interval ends the timer.
    /// * Deadlines hold for the calls that begin afterwards, the name and the stack of the worker thread from
    ///   the next `start`.
    ///
    /// It may be called on the worker thread. It takes a lock, and waits for no sink.
    ///
    /// ```
    /// use forebay::{Collector, Overflow, config::ConfigError};
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
    /// allocated once, `shards`, the session id, and the names of the gate); or this is a forked child. Nothing changes then.
    pub fn update_config(&self, mut change: impl FnMut(&mut Config)) -> Result<(), ConfigError> {
        let shared = &self.shared;
        loop {
            let before = shared.settings.config();
            let mut after = Config::clone(&before);
            change(&mut after);
            after.validate()?;
            after.keeps_what_is_fixed(&before)?;
            let mut request = shared.mailbox.reconfigure()?;
            if Arc::ptr_eq(&before, &shared.settings.config()) {
                shared.lanes.budget().set_max(after.max_bytes);
                shared.settings.set(after);
                request.post();
                break;
            }
        }
        shared.phase.wake();
        // Who waits for room goes by the new policy.
        shared.space_waiters.wake_all();
        Ok(())
    }
}
