//! `update_config`: settings that change while the collector exists.

use super::Collector;
use crate::config::{Config, ConfigError};
use crate::event::Event;
use crate::sync::Arc;

impl<E: Event> Collector<E> {
    /// Changes settings while the collector exists, running or not.
    ///
    /// `change` gets a copy. It is called again whenever another thread has changed settings meanwhile, so it should
    /// be quick. It must not change settings itself: that would never end.
    ///
    /// * The overflow policy and `critical_timeout` apply to every `collect` that begins after this call, and to those
    ///   that wait for space.
    /// * `max_bytes` and the changeable settings of the gate apply to every `collect` that begins after this call.
    /// * The flush strategy and the batch size apply from the worker's next look at its requests, for which it is
    ///   woken. If the old and the new strategy have an interval, what is pending is due at the earlier of the old
    ///   moment and one new interval from now. A strategy without an interval ends the timer.
    /// * Deadlines apply to the calls that begin afterwards. The name and the stack of the worker thread apply from
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
    /// A setting is not allowed, a setting cannot change, or this is a forked child. Nothing changes then. The
    /// capacities of the lanes cannot change, because their slots are allocated once. Nor can `shards`, `lanes`,
    /// `session_id`, `source`, `host`, `rank`, and `allow`, `deny`, `rules` and `seed` of the gate.
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
        // Waiters apply the new policy.
        shared.space_waiters.wake_all();
        Ok(())
    }
}
