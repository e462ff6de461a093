//! Parts of the collector that the crates above this one need, and no user does. No promise holds here: their versions
//! go in lock step.
//!
//! The types stand in private modules and are `pub` for these crates alone.

use std::fmt;

use crate::batch::Batch;
use crate::clock::Clock;
use crate::collector::Collector;
use crate::event::{Event, Priority, Record};
use crate::health::Health;
use crate::outcome::Refusal;
use crate::run::RunInfo;
use crate::shared::Shared;
use crate::sync::Arc;

pub use crate::buffer::empty;
pub use crate::config::duration;
pub use crate::config::error::check;
#[cfg(feature = "config")]
pub use crate::config::keys::{Alias, Key, key, millis, same};
#[cfg(feature = "config")]
pub use crate::config::loader::{
    Choice, Settings, Unread, deserialize, from_full_tree, read, read_one, slot, to_full_tree, to_table,
    write,
};
pub use crate::config::setters::setters;
pub use crate::dispatch::{LateFlush, Slot, dispatch};
pub use crate::escape::{OneLine, shortened};
pub use crate::event::shown::{Metrics, Shown, settings, shown_of};
pub use crate::lanes::owned_bytes;
pub use crate::origin::new_uuid;
pub use crate::rate::Pace;
#[cfg(feature = "json-lines")]
pub use crate::sink::json_lines::{Closed, ClosedFiles, closed, decode};
pub use crate::sink::panics::Panics;
#[cfg(feature = "sqlite")]
pub use crate::sink::sqlite::{
    Live, inside, open_fixed, open_to_read, refuse_inherited, row_to_record, version,
};
pub use crate::sink::target::resolve;
#[cfg(feature = "tensorboard")]
pub use crate::sink::tensorboard::check_sub_run;
pub use crate::stats::tally::{Count, SinkTally};

/// Returns what the begin of a run, or a heartbeat, reports of it.
pub fn run_of(record: &Record) -> RunInfo {
    RunInfo::from_record(record)
}

/// Adds to a run what a later record of it reports.
pub fn add_to_run(run: &mut RunInfo, record: &Record) {
    run.add(record);
}

#[cfg(forebay_loom)]
mod model;
#[cfg(forebay_loom)]
pub use model::BareWorker;

/// Inside of a collector: what stands in for its worker counts as the worker does.
pub struct Inside<'a, E>(&'a Arc<Shared<E>>);

impl<E> fmt::Debug for Inside<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inside").finish_non_exhaustive()
    }
}

impl<'a, E: Event> Inside<'a, E> {
    /// Returns the inside of `collector`.
    pub fn of(collector: &'a Collector<E>) -> Self {
        Self(&collector.shared)
    }

    /// Returns the number by which threads are marked as its worker.
    pub fn address(&self) -> usize {
        self.0.address()
    }

    /// Returns whether the calling thread is its worker, or stands in for it.
    pub fn is_worker(&self) -> bool {
        self.0.is_worker()
    }

    /// Returns the clock by which it counts.
    pub fn clock(&self) -> &'a Clock {
        &self.0.clock
    }

    /// Takes the sinks of a collector that is not started.
    pub fn take_slots(&self) -> Vec<Slot<E>> {
        self.0.mailbox.take_slots()
    }

    /// Returns a function that makes batches of events that do not come by its worker: of its origin, and of the run that it works
    /// on by then.
    pub fn to_batch(&self) -> impl Fn(Vec<E>) -> Batch<E> + Send + Sync + 'static {
        let (origin, run) = (Arc::clone(&self.0.origin), self.0.run.clone());
        move |events| Batch::from_events(events).with_origin(Arc::clone(&origin), run.get())
    }

    /// Returns the account of the sink of that name.
    pub fn tally_of(&self, name: &str) -> Option<Arc<SinkTally>> {
        self.0.registry.all().into_iter().find(|tally| tally.name == name)
    }

    /// Returns the name of the sink that the worker is in.
    pub fn busy_sink(&self) -> Option<String> {
        self.0.registry.busy()
    }

    /// Asks the gate whether it lets an event in, and counts a refusal.
    pub fn admit(&self, event: &E) -> Result<(), Refusal> {
        if let Some(gate) = self.0.settings.gate()
            && let Err(reason) = gate.admit(event.priority(), event)
        {
            return Err(self.refuse(reason));
        }
        if event.is_too_deep() { Err(self.refuse(Refusal::Oversize)) } else { Ok(()) }
    }

    fn refuse(&self, reason: Refusal) -> Refusal {
        self.0.count_refusal(reason);
        reason
    }

    /// Returns whether the gate lets in events of that name.
    pub fn is_enabled(&self, name: &str) -> bool {
        self.0.settings.gate().is_none_or(|gate| gate.enabled(name, Priority::Normal))
    }

    /// Notes for rate and latency that the caller has delivered an event in the place of the worker; `delivered`
    /// counts those that came so before, and this one.
    pub fn note_delivered(&self, event: &E, delivered: u64) {
        let (tally, now) = (&self.0.tally, self.0.clock.fast_nanos());
        tally.meter.delivered(now, std::slice::from_ref(event), delivered + tally.worker.processed.get());
    }

    /// Returns a function that tells how the collector is, and does not keep it alive.
    pub fn watch_health(&self) -> impl Fn() -> Option<Health> + Send + 'static {
        let shared = Arc::downgrade(self.0);
        move || shared.upgrade().map(|shared| shared.health())
    }

    /// Makes the collector lose its worker, as if no thread could be started.
    pub fn lose_worker(&self) {
        self.0.phase.set_gone();
        self.0.mailbox.lose_worker();
    }
}
