//! Events that set something off: a bus calls handlers, by name, pattern or type, on worker threads of its own.
//!
//! It is built on a [`Collector`](forebay::Collector): emitting is a push into its rings, whose bounds, priorities, overflow policy, gate and
//! account hold for the bus. Behind them every event goes to a history, to whatever sinks there are, and to its handlers.
//!
//! ```
//! use forebay::Fields;
//! use forebay_bus::Bus;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let bus = Bus::new()?;
//! let emitter = bus.emitter();
//! let best = bus.on("training.epoch_completed", move |event| {
//!     let loss = event.value().as_fields().and_then(|fields| fields.get("val_loss")?.as_f64());
//!     if loss.is_some_and(|loss| loss < 0.2) {
//!         // Derived from the event at hand.
//!         let _ = emitter.emit("training.new_best_model", loss);
//!     }
//! })?;
//! bus.emit("training.epoch_completed", Fields::new().with("epoch", 5).with("val_loss", 0.15))?;
//! bus.flush()?;
//! assert_eq!(bus.query(&forebay_history::EventQuery::new().name("training.new_*"))?.len(), 1);
//! drop(best);
//! # Ok(())
//! # }
//! ```
//!
//! | you want to | look at |
//! |---|---|
//! | emit | [`Bus::emit`], [`Bus::emit_sync`], [`Emitter`] |
//! | handle events | [`Bus::on`], [`Handler`], [`Subscription`] (dropped, it unsubscribes: [`keep`](Subscription::keep) it) |
//! | choose retries, limits and threads | [`BusConfig`], [`BusBuilder`] |
//! | see what failed | [`Bus::dead_letters`], [`BusStats`], [`Bus::health`] |
//! | test | `testing::MockBus` (feature `testing`) |
//!
//! `docs/bus.md` in the repository says what is delivered when, in which order, and what happens when something fails.

// From the bottom up: a module imports only from those that stand before it.
mod context;
mod id;
mod name;
mod user_code;

mod scaling;

mod config;
#[cfg(feature = "config")]
mod config_keys;

mod stats;
mod tally;

mod envelope;

mod filter;
mod in_flight;

mod delivery;

mod handler;

mod mailbox;

mod subscriber;

mod subscribers;

mod periodic_tasks;
mod retry_queue;
mod worker_pool;

mod engine;

mod dead_letters;

mod completion;

mod calls;

mod dispatch;

mod inline_sinks;

mod shared;

mod emit;
mod report;

mod stop;
mod subscription;

mod handle;
mod once;

mod plugin;
mod scheduler;
pub mod watch;

mod builder;

#[cfg(feature = "testing")]
pub mod testing;

pub use builder::BusBuilder;
pub use config::{BusConfig, Mode, OnWorkerFailure};
pub use context::{CorrelationScope, correlate};
pub use delivery::Delivery;
pub use emit::{Calls, EmitError, EmitOptions, Emitter, Receipt, SyncReceipt};
pub use envelope::Envelope;
pub use filter::Filter;
#[cfg(feature = "testing")]
pub use forebay::assert_emitted;
pub use forebay::event::{EventId, EventIdError};
pub use handle::Bus;
pub use handler::{Handled, Handler, HandlerError, Topics};
pub use id::{FilterId, SubscriptionId};
pub use once::WaitError;
pub use plugin::{Plugin, PluginError, Plugins, Wiring};
pub use scaling::{ScaleError, Scaling};
pub use stats::{
    Alert, AlertKind, BusHealth, BusReport, BusStats, BusStopError, HandlerStats, Metrics, QueueMetrics,
    RetryMetrics, WorkerStats,
};
pub use subscribers::SubscribeError;
pub use subscription::Subscription;

/// The code of those pages in `docs/` that show a bus, compiled and run with the other tests of the documentation.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../../docs/bus.md")]
    struct Bus;
    #[doc = include_str!("../../../docs/coming-from.md")]
    struct ComingFrom;
}
