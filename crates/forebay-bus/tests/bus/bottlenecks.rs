//! Tests that what holds things up is reported as `system.bottleneck_detected`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support;
use crate::support::law;
use forebay::event::catalog::system::BottleneckDetected;
use forebay::sink::{BreakerPolicy, SinkError, SinkExt, from_fn};
use forebay::{Batch, Collector, ManualClock, Record};
use forebay_bus::{Bus, Envelope, Handler, HandlerError, watch};

const EVERY: Duration = Duration::from_secs(5);

/// Returns an inline bus, its clock, and the components that were reported.
fn bus() -> (Bus, ManualClock, Arc<Mutex<Vec<String>>>) {
    let clock = ManualClock::new();
    let bus = Bus::builder().inline().manual_clock(&clock).start().unwrap();
    let reported = Arc::<Mutex<Vec<String>>>::default();
    let kept = Arc::clone(&reported);
    bus.on(BottleneckDetected::NAME, move |event| {
        let fields = event.value().as_fields().unwrap();
        assert!(fields.get("suggestions").is_some() && fields.get("description").is_some());
        let component = fields.get("component").and_then(|component| component.as_str());
        kept.lock().unwrap().push(component.unwrap().to_owned());
    })
    .unwrap()
    .keep();
    (bus, clock, reported)
}

/// Looks once more, and returns what has been reported since the last.
fn look(bus: &Bus, clock: &ManualClock, reported: &Mutex<Vec<String>>) -> Vec<String> {
    clock.advance(EVERY);
    bus.flush().unwrap();
    std::mem::take(&mut *reported.lock().unwrap())
}

#[test]
fn what_is_wrong_with_a_collector_is_reported_once_as_long_as_it_is_up() {
    let (bus, clock, reported) = bus();
    let is_broken = Arc::new(AtomicBool::new(false));
    let broken = Arc::clone(&is_broken);
    let sink = from_fn("broken", move |_: &Batch| match broken.load(Ordering::SeqCst) {
        true => Err(SinkError::unavailable("nobody is there")),
        false => Ok(()),
    });
    let collector = Collector::builder().sink(sink).start().unwrap();
    let watcher = watch::bottlenecks_of(&bus, EVERY, &collector).unwrap();
    let many = |is_now_broken| {
        is_broken.store(is_now_broken, Ordering::SeqCst);
        for step in 0..20 {
            collector.collect(Record::scalar("train.loss", 0.5).with_step(step));
            let _ = collector.flush().unwrap();
        }
    };
    assert!(look(&bus, &clock, &reported).is_empty(), "all is well");
    many(true);
    assert_eq!(look(&bus, &clock, &reported), ["broken"]);
    assert!(look(&bus, &clock, &reported).is_empty(), "it is known");
    many(false);
    assert!(look(&bus, &clock, &reported).is_empty(), "it is over");
    many(true);
    assert_eq!(look(&bus, &clock, &reported), ["broken"], "it is there again");
    many(false);
    look(&bus, &clock, &reported);
    many(true);
    law(&collector, 100);
    drop(watcher);
    assert!(look(&bus, &clock, &reported).is_empty(), "nobody watches");
    bus.stop().unwrap().stats.check_law(0).unwrap();
}

#[test]
fn a_collector_that_is_watched_ends_with_its_last_handle() {
    let (bus, clock, reported) = bus();
    let is_dropped = Arc::new(AtomicBool::new(false));
    let raise = {
        let is_dropped = Arc::clone(&is_dropped);
        OnDrop(move || is_dropped.store(true, Ordering::SeqCst))
    };
    let sink = from_fn("held", move |_: &Batch| {
        let _ = &raise;
        Ok(())
    });
    let collector = Collector::builder().sink(sink).start().unwrap();
    let _watcher = watch::bottlenecks_of(&bus, EVERY, &collector).unwrap();
    drop(collector);
    assert!(is_dropped.load(Ordering::SeqCst));
    assert!(look(&bus, &clock, &reported).is_empty());
    bus.stop().unwrap().stats.check_law(0).unwrap();
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
}

#[test]
fn what_is_wrong_with_the_bus_is_reported_as_well() {
    let (bus, clock, reported) = bus();
    let _watcher = watch::bottlenecks(&bus, EVERY).unwrap();
    let failing = Handler::new("a.b", |_| Err(HandlerError::new("never").permanent()));
    bus.subscribe(failing).unwrap().keep();
    assert!(look(&bus, &clock, &reported).is_empty());
    bus.emit("a.b", ()).unwrap();
    assert_eq!(look(&bus, &clock, &reported), ["bus"], "a dead letter");
    bus.emit("a.b", ()).unwrap();
    assert!(look(&bus, &clock, &reported).is_empty(), "that there are some is known");
    bus.dead_letters().purge();
    assert!(look(&bus, &clock, &reported).is_empty());
    bus.emit("a.b", ()).unwrap();
    assert_eq!(look(&bus, &clock, &reported), ["bus"]);
    bus.stop().unwrap().stats.check_law(3).unwrap();
}

#[test]
fn an_interval_of_nothing_is_refused() {
    let (bus, _, _) = bus();
    let refused = watch::bottlenecks(&bus, Duration::ZERO).unwrap_err();
    assert_eq!(refused.to_string(), "invalid every: 0ns (expected more than zero)");
}

#[test]
fn a_second_trouble_of_one_sink_is_reported_as_well() {
    let (clock, reported) = (ManualClock::new(), Arc::<Mutex<Vec<String>>>::default());
    // It opens at the fifth failure in a row.
    let broken = support::failing::<Envelope>("broken").breaker(BreakerPolicy::default());
    let bus = Bus::builder().inline().manual_clock(&clock).sink(broken).start().unwrap();
    let kept = Arc::clone(&reported);
    bus.on(BottleneckDetected::NAME, move |event| {
        let fields = event.value().as_fields().unwrap();
        kept.lock().unwrap().push(fields.get("description").unwrap().as_str().unwrap().to_owned());
    })
    .unwrap()
    .keep();
    let _watcher = watch::bottlenecks(&bus, EVERY).unwrap();
    (0..3).for_each(|_| _ = bus.emit("a.b", ()).unwrap());
    let failing = look(&bus, &clock, &reported);
    assert_eq!(failing.len(), 1, "{failing:?}");
    (0..3).for_each(|_| _ = bus.emit("a.b", ()).unwrap());
    let open = look(&bus, &clock, &reported);
    assert_eq!(open.len(), 1, "{open:?}");
    assert_ne!(failing, open);
    assert!(look(&bus, &clock, &reported).is_empty());
    bus.stop().unwrap().stats.check_law(6).unwrap();
}
