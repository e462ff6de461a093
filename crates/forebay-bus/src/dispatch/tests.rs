//! An event between the moment when a mailbox rejects it and that when its letter is kept.

use std::time::{Duration, Instant};

use forebay::sink::RetryPolicy;

use super::*;
use crate::{Bus, BusConfig, Handler, HandlerError, HandlerStats, Mode};

/// Returns a bus whose handler has space for one event, and the handler.
fn bus(handler: Handler) -> (Bus, Arc<Subscriber>) {
    let config = BusConfig::default().with_mode(Mode::Inline).with_handler_queue(1);
    let bus = Bus::builder().config(config).start().unwrap();
    bus.subscribe(handler).unwrap().keep();
    let subscriber = Arc::clone(&bus.shared.engine.table().subscribers[0]);
    (bus, subscriber)
}

/// Gives the handler an event that nobody is called with yet.
fn put(bus: &Bus, subscriber: &Arc<Subscriber>) -> Rejected {
    bus.shared.counts.emitted.add(1);
    bus.shared.counts.inline.add(1);
    let in_flight =
        bus.shared.engine.accept(bus.shared.engine.blank.with_events(vec![Record::new("a").into()]));
    let mut mail = VecDeque::from([Delivery::new(&in_flight, 0)]);
    bus.shared.engine.put_in(subscriber, &mut mail, WhenFull::DeadLetter)
}

fn is_quiet(bus: &Bus) -> bool {
    bus.shared.engine.await_quiet(Some(Instant::now()))
}

#[track_caller]
fn law(bus: &Bus, emitted: u64) -> HandlerStats {
    let stats = bus.stats();
    stats.check_law(emitted).unwrap();
    stats.handlers[0].clone()
}

#[test]
fn an_event_that_was_rejected_is_in_flight_until_its_letter_is_kept() {
    let (bus, subscriber) = bus(Handler::new("a", |_: &Delivery| {}));
    assert!(put(&bus, &subscriber).others.is_empty());
    let rejected = put(&bus, &subscriber);
    assert_eq!(rejected.others.len(), 1);
    bus.shared.engine.run_inline(None);
    let stats = law(&bus, 2);
    assert_eq!((stats.handled, stats.dead_lettered, stats.in_flight), (1, 0, 1));
    assert!(!is_quiet(&bus), "a stop waits for it");
    bus.shared.engine.reject(&subscriber, rejected);
    assert!(is_quiet(&bus));
    assert_eq!((law(&bus, 2).dead_lettered, bus.dead_letters().len()), (1, 1));
    bus.stop().unwrap();
}

#[test]
fn so_is_one_that_finds_no_space_behind_a_retry() {
    let fails = |_: &Delivery| Err::<(), _>(HandlerError::new("no"));
    let retry = RetryPolicy::fixed(Duration::from_secs(3600), 3);
    let (bus, subscriber) = bus(Handler::new("a", fails).ordered().retry(retry));
    assert!(put(&bus, &subscriber).overflow.is_empty());
    bus.shared.engine.run_inline(None);
    let rejected = put(&bus, &subscriber);
    assert_eq!(rejected.overflow.len(), 1);
    bus.shared.engine.end_retries();
    let stats = law(&bus, 2);
    assert_eq!((stats.dead_lettered, stats.in_flight, bus.dead_letters().len()), (1, 1, 1));
    assert!(!is_quiet(&bus), "a stop waits for it");
    bus.shared.engine.reject(&subscriber, rejected);
    assert!(is_quiet(&bus));
    assert_eq!((law(&bus, 2).dead_lettered, bus.dead_letters().len()), (2, 2));
    bus.stop().unwrap();
}
