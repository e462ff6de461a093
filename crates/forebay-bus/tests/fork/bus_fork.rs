//! A bus in a forked child: every call returns, refused or with what can be said without a lock.
#![allow(unsafe_code, reason = "fork and waitpid")]

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use crate::child::{fork_once, in_child, leave_if_child, status_of};
use crate::support::{LONG, Raise, alone};
use forebay::collector::{FlushError, State};
use forebay::sink::{MemorySink, RetryPolicy, Sink, SinkError};
use forebay::stats::HealthStatus;
use forebay::{Batch, Outcome};
use forebay_bus::{
    Bus, BusConfig, BusStopError, Envelope, Filter, Handler, HandlerError, Plugin, PluginError, Plugins,
    ScaleError, SubscribeError, Wiring, watch,
};
use forebay_history::EventQuery;

struct Quiet;

impl Plugin for Quiet {
    fn name(&self) -> &str {
        "quiet"
    }

    fn start(&self, wiring: &mut Wiring<'_>) -> Result<(), SubscribeError> {
        wiring.on("never.this", |_| ())
    }
}

/// Uses in the child a bus, and the subscription and plugins that the parent has made.
fn use_in_child(bus: &Bus, own: &mut Option<(forebay_bus::Subscription, watch::Watcher, Plugins)>) -> bool {
    assert_eq!(bus.emit("a.b", ()).unwrap().outcome, Outcome::Forked);
    let reported = bus.emit_sync("a.b", ()).unwrap();
    assert_eq!((reported.outcome, reported.calls), (Outcome::Forked, None));
    assert_eq!(bus.emitter().emit("a.b", ()).unwrap().outcome, Outcome::Forked);
    assert!(!bus.enabled("a.b"));
    assert_eq!(bus.on("a.b", |_| ()).unwrap_err(), SubscribeError::Forked);
    assert!(watch::error_budget(bus, 10).is_err());
    let (subscription, watcher, plugins) = own.take().unwrap();
    assert!(!bus.unsubscribe(subscription.id()));
    assert!(!bus.unsubscribe_and_wait(subscription.id(), LONG));
    drop(subscription);
    drop(watcher);
    assert_eq!(plugins.start(Quiet).unwrap_err(), PluginError::Subscribe(SubscribeError::Forked));
    assert!(!plugins.stop("quiet") && plugins.names().is_empty());
    drop(plugins);
    let filter = bus.add_filter(Filter::new(|_| true));
    assert!(!bus.remove_filter(filter));
    assert_eq!(bus.flush().unwrap_err(), FlushError::Forked);
    assert!(matches!(bus.stop().unwrap_err(), BusStopError::Forked));
    assert!(matches!(bus.scale_workers(3).unwrap_err(), ScaleError::Forked));
    assert!(bus.query(&EventQuery::new()).is_err() && bus.correlated("x").is_err());
    assert_eq!(bus.redrive(None), 0);
    let stats = bus.stats();
    assert_eq!((stats.events.state, stats.handlers.len()), (State::Forked, 0));
    assert_eq!((bus.metrics().retry.waiting, bus.worker_stats().total), (0, 0));
    assert_eq!(bus.health().status, HealthStatus::Unhealthy);
    assert!(format!("{bus:?}").contains("Forked"));
    // As the last handle of the child, when it exits in an orderly way.
    drop(bus.clone());
    true
}

#[test]
fn a_child_of_a_busy_parent_neither_hangs_nor_does_what_is_the_parents() {
    alone!();
    for is_inline in [false, true] {
        let config = BusConfig::default().with_retry(RetryPolicy::fixed(Duration::from_micros(1), 1));
        let builder = Bus::builder().config(config);
        let bus = if is_inline { builder.inline() } else { builder }.start().unwrap();
        bus.subscribe(Handler::new("a.*", |_| Err(HandlerError::new("no")))).unwrap().keep();
        let (is_over, emitted) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let raise = Raise(&is_over);
            let busy = |work: fn(&Bus) -> u64| {
                let (bus, is_over, emitted) = (&bus, &is_over, &emitted);
                scope.spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        emitted.fetch_add(work(bus), Ordering::Relaxed);
                    }
                })
            };
            // In the middle of whatever they do when the fork catches them, with whatever locks.
            busy(|bus| bus.emit("a.b", ()).map_or(0, |_| 1));
            busy(|bus| {
                drop(bus.on("a.b", |_| ()).unwrap());
                bus.remove_filter(bus.add_filter(Filter::new(|_| true)));
                0
            });
            busy(|bus| {
                let _ = (bus.stats(), bus.metrics(), bus.health(), bus.query(&EventQuery::new()));
                0
            });
            for _ in 0..50 {
                let made = Cell::new(Some((
                    bus.on("b.c", |_| ()).unwrap(),
                    watch::aggregate(&bus, LONG, 10).unwrap(),
                    Plugins::new(&bus),
                )));
                let mut own = made.take();
                let status = in_child(|| use_in_child(&bus, &mut own));
                assert_eq!(status, Some(0), "the child hangs or failed");
            }
            drop(raise);
        });
        let stats = bus.stop().unwrap().stats;
        stats.check_law(emitted.load(Ordering::Relaxed)).unwrap();
        assert_eq!((stats.events.rejected.forked, stats.stopped), (0, 0));
    }
}

#[test]
fn a_child_that_has_the_last_handle_drops_it_and_the_parent_does_not_notice() {
    alone!();
    for is_inline in [false, true] {
        let builder = Bus::builder();
        let bus = Cell::new(Some(if is_inline { builder.inline() } else { builder }.start().unwrap()));
        let status = in_child(|| {
            drop(bus.take());
            true
        });
        assert_eq!(status, Some(0));
        let bus = bus.take().unwrap();
        bus.on("a.b", |_| ()).unwrap().keep();
        assert_eq!(bus.emit_sync("a.b", ()).unwrap().calls.unwrap().handled, 1);
        bus.stop().unwrap().stats.check_law(1).unwrap();
    }
}

#[test]
fn no_filter_is_asked_in_a_child() {
    alone!();
    for is_inline in [false, true] {
        let bus = if is_inline { Bus::builder().inline() } else { Bus::builder() }.start().unwrap();
        let asked = Arc::new(AtomicU64::new(0));
        let own = Arc::clone(&asked);
        bus.add_filter(Filter::new(move |_| {
            own.fetch_add(1, Ordering::SeqCst);
            false
        }));
        let status = in_child(|| {
            let outcome = bus.emit("a.b", ()).unwrap().outcome;
            outcome == Outcome::Forked && asked.load(Ordering::SeqCst) == 0
        });
        assert_eq!(status, Some(0));
        assert_eq!(bus.emit("a.b", ()).unwrap().outcome, Outcome::Filtered);
        bus.stop().unwrap().stats.check_law(1).unwrap();
    }
}

#[test]
fn a_handler_that_forks_may_return_in_the_child_which_leaves_the_rest_to_its_parent() {
    alone!();
    for is_inline in [false, true] {
        let builder = Bus::builder().workers(1);
        let bus = if is_inline { builder.inline() } else { builder }.start().unwrap();
        let (child, calls) = (Arc::new(AtomicI32::new(0)), Arc::new(AtomicU64::new(0)));
        let own = Arc::clone(&child);
        bus.on("a.b", move |_| fork_once(&own)).unwrap().keep();
        let (own, count) = (Arc::clone(&child), Arc::clone(&calls));
        bus.on("a.b", move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            leave_if_child(&own, 7);
        })
        .unwrap()
        .keep();
        let reported = bus.emit_sync("a.b", ()).unwrap();
        leave_if_child(&child, calls.load(Ordering::SeqCst) + u64::from(reported.calls.is_some()));
        assert_eq!(reported.calls.unwrap().handled, 2);
        assert_eq!(status_of(&child), Some(0), "7 where the child has called the other handler");
        bus.stop().unwrap().stats.check_law(1).unwrap();
    }
}

#[test]
fn an_inline_sink_that_forks_may_return_in_the_child_which_leaves_the_rest_to_its_parent() {
    alone!();
    for forks_in_flush in [false, true] {
        let child = Arc::new(AtomicI32::new(0));
        let memory = MemorySink::new();
        let forking = Forking(Arc::clone(&child), forks_in_flush);
        let bus = Bus::builder().inline().sink(forking).sink(memory.clone()).start().unwrap();
        bus.on("a.b", |_| ()).unwrap().keep();
        let outcome = bus.emit("a.b", ()).unwrap().outcome;
        leave_if_child(&child, memory.len() as u64 + u64::from(outcome != Outcome::Forked));
        let flushed = bus.flush();
        leave_if_child(&child, u64::from(flushed != Err(FlushError::Forked)));
        assert_eq!(status_of(&child), Some(0));
        assert_eq!((flushed, memory.len()), (Ok(()), 1));
        bus.stop().unwrap().stats.check_law(1).unwrap();
    }
}

/// Forks in its first write, or in its first flush.
struct Forking(Arc<AtomicI32>, bool);

impl Sink<Envelope> for Forking {
    fn name(&self) -> &str {
        "forking"
    }

    fn write_batch(&mut self, _: &Batch<Envelope>) -> Result<(), SinkError> {
        if !self.1 {
            fork_once(&self.0);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        if self.1 {
            fork_once(&self.0);
        }
        Ok(())
    }
}
