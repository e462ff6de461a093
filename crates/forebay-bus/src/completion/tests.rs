//! A call that was taken out of a mailbox and has not started when its handler goes.

use std::time::Duration;

use forebay::Record;
use forebay::sink::RetryPolicy;
use forebay_sync::sync::Arc;

use super::super::calls::call;
use super::super::mailbox::StartedCall;
use super::super::subscriber::Subscriber;
use super::super::{Bus, Delivery, Handler, HandlerError, HandlerStats};

/// Returns a bus whose events stay in the mailboxes, as nobody takes them out.
fn bus() -> Bus {
    Bus::builder().inline().start().unwrap()
}

/// Gives the bus an event that nobody is called with yet.
fn put(bus: &Bus, name: &'static str) {
    bus.shared.counts.emitted.add(1);
    bus.shared.counts.inline.add(1);
    bus.shared.engine.dispatch_one(Record::new(name).into());
}

/// Returns what a worker does under the lock, before its call.
fn taken(bus: &Bus) -> (Arc<Subscriber>, StartedCall) {
    let subscriber = Arc::clone(&bus.shared.engine.table().subscribers[0]);
    let started = subscriber.mailbox.lock().start_call(1, bus.shared.engine.clock.now()).unwrap();
    (subscriber, started)
}

/// Returns what it does behind that.
fn enters(bus: &Bus, subscriber: &Arc<Subscriber>, started: StartedCall) -> bool {
    match call(&subscriber.permit, &started.call, &started.delivery) {
        Some(result) => {
            let now = bus.shared.engine.clock.now();
            bus.shared.engine.complete(subscriber, started, result, (now, now));
            true
        }
        None => {
            bus.shared.engine.withdraw(subscriber, started);
            false
        }
    }
}

#[track_caller]
fn law(bus: &Bus, emitted: u64) -> HandlerStats {
    let stats = bus.stats();
    stats.check_law(emitted).unwrap();
    let mut all = stats.gone.clone();
    stats.handlers.iter().for_each(|handler| all.add(handler));
    all
}

fn forbidden(_: &Delivery) {
    panic!("called after it was unsubscribed");
}

#[test]
fn a_call_that_was_taken_does_not_begin_after_an_unsubscription() {
    let bus = bus();
    let id = bus.on("a", forbidden).unwrap().keep();
    put(&bus, "a");
    let (subscriber, started) = taken(&bus);
    assert!(bus.unsubscribe(id));
    assert_eq!(law(&bus, 1).in_flight, 1, "the worker still has it");
    assert!(!bus.shared.engine.await_idle(&subscriber, Some(std::time::Instant::now())));
    assert!(!enters(&bus, &subscriber, started));
    assert!(bus.shared.engine.await_idle(&subscriber, None), "who waits is let go");
    let all = law(&bus, 1);
    assert_eq!((all.matched, all.cancelled, all.handled, all.in_flight), (1, 1, 0, 0));
    bus.stop().unwrap();
}

#[test]
fn nor_does_it_after_the_drop_of_its_subscription_or_a_stop() {
    for stops in [false, true] {
        let bus = bus();
        let subscription = bus.on("a", forbidden).unwrap();
        put(&bus, "a");
        let (subscriber, started) = taken(&bus);
        if stops {
            let _ = bus.stop_timeout(Duration::ZERO);
        } else {
            drop(subscription);
        }
        assert!(!enters(&bus, &subscriber, started));
        let all = law(&bus, 1);
        assert_eq!((all.matched, all.cancelled, all.in_flight), (1, 1, 0));
    }
}

#[test]
fn a_retry_that_was_taken_is_cancelled_like_one_that_waits() {
    let bus = bus();
    let fails = |_: &Delivery| Err::<(), _>(HandlerError::new("no"));
    let handler = Handler::new("a", fails).retry(RetryPolicy::fixed(Duration::ZERO, 3));
    let id = bus.subscribe(handler).unwrap().keep();
    put(&bus, "a");
    let (subscriber, started) = taken(&bus);
    assert!(enters(&bus, &subscriber, started));
    bus.shared.engine.retry_due(bus.shared.engine.clock.now() + Duration::from_secs(1));
    let (subscriber, started) = taken(&bus);
    assert!(bus.unsubscribe(id));
    assert!(!enters(&bus, &subscriber, started));
    let all = law(&bus, 1);
    assert_eq!((all.matched, all.retries, all.cancelled, all.in_flight), (1, 1, 1, 0));
    assert!(bus.dead_letters().is_empty());
    bus.stop().unwrap();
}

#[test]
fn a_letter_that_was_taken_is_what_it_was_before() {
    let bus = bus();
    let fails = |_: &Delivery| Err::<(), _>(HandlerError::new("no").permanent());
    let id = bus.on("a", fails).unwrap().keep();
    put(&bus, "a");
    let (subscriber, started) = taken(&bus);
    assert!(enters(&bus, &subscriber, started));
    let before = bus.dead_letters().entries();
    assert_eq!(before.len(), 1);
    bus.shared.engine.dead_letters.redrive(None);
    bus.shared.engine.redrive();
    let (subscriber, started) = taken(&bus);
    assert!(bus.unsubscribe(id));
    assert!(!enters(&bus, &subscriber, started));
    let after = bus.dead_letters().entries();
    assert_eq!((after.len(), after[0].attempts), (1, before[0].attempts));
    let all = law(&bus, 1);
    assert_eq!((all.matched, all.dead_lettered, all.cancelled, all.in_flight), (1, 1, 0, 0));
    bus.stop().unwrap();
}
