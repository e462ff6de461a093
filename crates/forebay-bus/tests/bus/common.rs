//! Helpers that tests of the bus share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::Gate;
use forebay::sink::RetryPolicy;
use forebay::{Config, ManualClock, Overflow};
use forebay_bus::{Bus, BusConfig, BusStats, Handler, HandlerError, Plugin, SubscribeError, Wiring};

#[track_caller]
pub(crate) fn law(bus: &Bus, emitted: u64) -> BusStats {
    let stats = bus.stats();
    if let Err(broken) = stats.check_law(emitted) {
        panic!("{broken}");
    }
    stats
}

/// Returns settings without retries.
pub(crate) fn once() -> BusConfig {
    BusConfig::default().with_retry(RetryPolicy::list([]))
}

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// Rings of so many events, for which whoever emits waits.
pub(crate) fn blocking(capacity: usize) -> Config {
    BusConfig::default().collector.with_capacity(capacity).with_overflow(Overflow::Block { timeout: HOUR })
}

pub(crate) fn counter(bus: &Bus, topic: &'static str) -> Arc<AtomicU64> {
    let calls = Arc::new(AtomicU64::new(0));
    let own = Arc::clone(&calls);
    bus.on(topic, move |_| _ = own.fetch_add(1, Ordering::SeqCst)).unwrap().keep();
    calls
}

/// Panics when it ends.
pub(crate) struct Spite;

impl Drop for Spite {
    fn drop(&mut self) {
        panic!("on purpose");
    }
}

pub(crate) fn failing(attempts: &Arc<Mutex<Vec<Duration>>>, clock: &ManualClock) -> Handler {
    let (attempts, clock) = (Arc::clone(attempts), clock.clone());
    Handler::new("fails.always", move |_| {
        attempts.lock().unwrap().push(clock.elapsed());
        Err(HandlerError::new("no luck"))
    })
}

pub(crate) struct Failing;

impl Plugin for Failing {
    fn name(&self) -> &str {
        "failing"
    }

    fn start(&self, wiring: &mut Wiring<'_>) -> Result<(), SubscribeError> {
        wiring.on("a.b", |_| Err(HandlerError::new("no")))
    }
}

/// One call at a time, at a gate.
pub(crate) struct Hanging(pub(crate) Gate);

impl Plugin for Hanging {
    fn name(&self) -> &str {
        "hanging"
    }

    fn start(&self, wiring: &mut Wiring<'_>) -> Result<(), SubscribeError> {
        let gate = self.0.clone();
        wiring.subscribe(Handler::new("a.b", move |_| gate.pass()).max_concurrent(1))
    }
}
