//! A call that was taken out of a mailbox and has not started when its handler goes.

use std::sync::Mutex;
use std::time::Duration;

use forebay::Record;
use forebay::sink::RetryPolicy;

use super::super::calls::call;
use super::super::{Bus, BusConfig, Delivery, Handler, HandlerError, HandlerStats, Mode};
use super::*;
use crate::envelope::{Envelope, Mark};

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

/// Notes, where it is dropped, how many letters its handler is counted to have by then. As an evicted letter, it is dropped once
/// the letter that takes its place is kept.
struct Probe(Arc<Subscriber>, Arc<Mutex<Vec<u64>>>);

impl Drop for Probe {
    fn drop(&mut self) {
        let counted = self.0.mailbox.lock().snapshot().dead_lettered;
        self.1.lock().unwrap().push(counted);
    }
}

/// Returns a bus with one letter, a probe, and space for no other; its handler; and what the probe has noted. The handler makes
/// retries of its events `a`.
fn probed() -> (Bus, Arc<Subscriber>, Arc<Mutex<Vec<u64>>>) {
    let config = BusConfig::default().with_mode(Mode::Inline).with_dead_letters(1).with_handler_queue(1);
    let bus = Bus::builder().config(config).start().unwrap();
    let fails = |event: &Delivery| {
        let error = HandlerError::new("no");
        Err::<(), _>(if event.as_type::<Probe>().is_some() { error.permanent() } else { error })
    };
    let handler = Handler::new(["a", "probe"], fails).ordered();
    bus.subscribe(handler.retry(RetryPolicy::fixed(Duration::ZERO, 3))).unwrap().keep();
    let (subscriber, noted) = (Arc::clone(&bus.shared.engine.table().subscribers[0]), Arc::default());
    let mut mark = Mark::default();
    mark.typed = Some(Arc::new(Probe(Arc::clone(&subscriber), Arc::clone(&noted))));
    bus.shared.engine.dispatch_one(Envelope::new(Record::new("probe"), mark));
    let (_, started) = taken(&bus);
    assert!(enters(&bus, &subscriber, started));
    assert_eq!(bus.dead_letters().len(), 1);
    (bus, subscriber, noted)
}

/// Puts an event into the queue for its second call: it is kept even if the bus stops without time.
fn put_retried(bus: &Bus) {
    put(bus, "a");
    let (subscriber, started) = taken(bus);
    assert!(enters(bus, &subscriber, started));
    bus.shared.engine.retry_due(bus.shared.engine.clock.now() + Duration::from_secs(1));
}

#[test]
fn the_letter_of_a_call_that_did_not_begin_is_kept_before_it_is_counted() {
    let (bus, _, noted) = probed();
    put_retried(&bus);
    let (subscriber, started) = taken(&bus);
    let (call, waiting) = subscriber.close(CloseReason::Stopped);
    assert!(call.is_some() && waiting.is_empty());
    assert!(!enters(&bus, &subscriber, started));
    assert_eq!(*noted.lock().unwrap(), [1]);
    assert_eq!(subscriber.mailbox.lock().snapshot().dead_lettered, 2);
}

#[test]
fn the_letter_of_an_event_behind_a_retry_is_kept_before_it_is_counted() {
    let (bus, subscriber, noted) = probed();
    put(&bus, "a");
    let (_, started) = taken(&bus);
    put(&bus, "a");
    assert!(enters(&bus, &subscriber, started));
    assert_eq!(*noted.lock().unwrap(), [1]);
    assert_eq!(subscriber.mailbox.lock().snapshot().dead_lettered, 2);
}

#[test]
fn an_event_that_waited_when_its_mailbox_was_closed_is_in_flight_until_its_letter_is_kept() {
    let (bus, subscriber, noted) = probed();
    put_retried(&bus);
    let closed = subscriber.close(CloseReason::Stopped);
    let stats = subscriber.mailbox.lock().snapshot();
    assert_eq!((stats.dead_lettered, stats.in_flight), (1, 1));
    let is_quiet = || bus.shared.engine.await_quiet(Some(Instant::now()));
    assert!(!is_quiet(), "a second stop waits for it");
    bus.shared.engine.end_closed(&subscriber, closed);
    assert_eq!(*noted.lock().unwrap(), [1]);
    let stats = subscriber.mailbox.lock().snapshot();
    assert_eq!((stats.dead_lettered, stats.in_flight), (2, 0));
    assert!(is_quiet());
}

#[test]
fn a_letter_that_is_put_back_is_in_flight_until_it_is() {
    let bus = bus();
    let fails = |_: &Delivery| Err::<(), _>(HandlerError::new("no").permanent());
    bus.on("a", fails).unwrap().keep();
    put(&bus, "a");
    let (subscriber, started) = taken(&bus);
    assert!(enters(&bus, &subscriber, started));
    bus.shared.engine.dead_letters.redrive(None);
    bus.shared.engine.redrive();
    let closed = subscriber.close(CloseReason::Stopped);
    let is_quiet = || bus.shared.engine.await_quiet(Some(Instant::now()));
    assert!(!is_quiet() && bus.dead_letters().is_empty());
    assert_eq!(subscriber.mailbox.lock().snapshot().in_flight, 0, "it is counted already");
    bus.shared.engine.end_closed(&subscriber, closed);
    assert!(is_quiet());
    assert_eq!((law(&bus, 1).dead_lettered, bus.dead_letters().len()), (1, 1));
}
