//! `GateFilter`: the gate of a collector, asked before an event is made.

use forebay::{Collector, Priority};
use tracing_core::{Interest, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter, Layer};

use crate::callsites;
use crate::layer::{PRIORITIES, place_of};

/// Filter that asks the [gate](forebay::config::GateConfig) of a collector: what [`gate`](crate::gate) returns.
///
/// The layer asks the collector itself, when an event comes, and the collector counts what it rejects. With this filter, tracing asks
/// before: events that are kept out count nowhere. Given to [`with_filter`](Layer::with_filter), it keeps them from that layer; added as a
/// layer, it keeps them from all of them, and what the expressions in their fields cost is saved. Spans pass, for the sake of their events,
/// and so does everything after a stop that passes the gate: other layers go on.
///
/// The gate may change at any time, so no answer is cached. Where that costs too much, use a `LevelFilter` beside it.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use forebay::{Collector, Priority, config::GateConfig, sink::MemorySink};
/// use tracing_subscriber::prelude::*;
///
/// let memory = MemorySink::new();
/// let gate = GateConfig::default().with_min_priority(Priority::Normal);
/// let collector = Collector::builder().gate(gate).sink(memory.clone()).start()?;
/// let filter = forebay_tracing::gate(&collector);
/// let (layer, guard) = forebay_tracing::layer(collector);
/// let costly = || -> f64 { unreachable!("nobody asks for it") };
/// tracing::subscriber::with_default(tracing_subscriber::registry().with(layer).with(filter), || {
///     tracing::debug!(norm = costly(), "low");
///     tracing::info!("normal");
/// });
/// assert_eq!((guard.stop().stats.offered, memory.len()), (1, 1));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct GateFilter {
    collector: Collector,
    priorities: [Priority; 5],
}

impl GateFilter {
    pub(crate) fn new(collector: Collector) -> Self {
        Self { collector, priorities: PRIORITIES }
    }

    /// Sets the priority of a level, as [`CollectorLayer::priority`](crate::CollectorLayer::priority) does.
    pub fn priority(mut self, level: Level, priority: Priority) -> Self {
        self.priorities[place_of(&level)] = priority;
        self
    }
}

impl GateFilter {
    /// Asks the gate alone: what a stopped collector, or one of a parent process, refuses, other layers may want. Spans pass, because
    /// events in them have their fields.
    fn passes(&self, metadata: &Metadata<'_>) -> bool {
        let priority = self.priorities[place_of(metadata.level())];
        metadata.is_span() || self.collector.passes_gate(&callsites::name(metadata), priority)
    }
}

impl<S> Filter<S> for GateFilter {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.passes(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        _ = callsites::of(metadata);
        Interest::sometimes()
    }
}

impl<S: Subscriber> Layer<S> for GateFilter {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.passes(metadata)
    }

    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        _ = callsites::of(metadata);
        Interest::sometimes()
    }
}
