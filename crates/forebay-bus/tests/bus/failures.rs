//! Calls that fail or panic, their retries, and dead letters.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::{HOUR, counter, failing, law, once};
use crate::support::{Gate, hush, until};
use forebay::sink::{RetryPolicy, SinkError, SinkExt, from_fn};
use forebay::{Batch, ManualClock};
use forebay_bus::{AlertKind, Bus, BusConfig, Envelope, Handler, HandlerError, Scaling, watch};

#[test]
fn a_call_that_fails_is_made_again_after_1_2_and_4_seconds_and_then_the_event_is_a_dead_letter() {
    for is_inline in [false, true] {
        let clock = ManualClock::new();
        let mut builder = Bus::builder().manual_clock(&clock);
        if is_inline {
            builder = builder.inline();
        }
        let bus = builder.start().unwrap();
        let attempts = Arc::default();
        bus.subscribe(failing(&attempts, &clock).named("unlucky")).unwrap().keep();
        let seen = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&seen);
        bus.on("other.event", move |_| _ = count.fetch_add(1, Ordering::SeqCst)).unwrap().keep();
        let receipt = bus.emit_sync("fails.always", 7).unwrap();
        assert_eq!(receipt.calls.unwrap().failed, 1);
        for (retry, wait) in [(1, 1_000), (2, 2_000), (3, 4_000)] {
            clock.advance(Duration::from_millis(wait - 1));
            // Nothing before its time; and others are not held up.
            bus.emit_sync("other.event", ()).unwrap();
            bus.flush().unwrap();
            assert_eq!(attempts.lock().unwrap().len(), retry, "{retry}");
            clock.advance(Duration::from_millis(1));
            if is_inline {
                bus.flush().unwrap();
            }
            until("it is called again", || attempts.lock().unwrap().len() == retry + 1);
            // Its wait begins when the call has ended: not before the clock is moved again.
            until("the call is over", || {
                let unlucky = bus.stats().handler("unlucky").unwrap().clone();
                unlucky.retries + unlucky.dead_lettered == retry as u64 + 1
            });
        }
        until("it is a dead letter", || bus.dead_letters().len() == 1);
        let made: Vec<u128> = attempts.lock().unwrap().iter().map(Duration::as_millis).collect();
        assert_eq!(made, [0, 1_000, 3_000, 7_000]);
        let letter = bus.dead_letters().entries().remove(0);
        assert_eq!((letter.attempts, &*letter.error), (4, "unlucky: no luck"));
        assert_eq!(letter.event.value().as_i64(), Some(7));
        until("the call is over", || bus.stats().handler("unlucky").unwrap().in_flight == 0);
        let stats = law(&bus, 4);
        let unlucky = stats.handler("unlucky").unwrap();
        assert_eq!((unlucky.dead_lettered, unlucky.retries, unlucky.failed), (1, 3, 0));
        assert_eq!((bus.metrics().retry.total, seen.load(Ordering::SeqCst)), (3, 3));
        assert_eq!(bus.health().alerts[0].kind, AlertKind::DeadLetters);
    }
}

#[test]
fn a_call_that_panics_fails_and_the_worker_goes_on() {
    hush();
    let bus = Bus::builder().config(once().with_workers(1)).start().unwrap();
    bus.on("a.b", |_| -> Result<(), HandlerError> { panic!("on purpose") }).unwrap().keep();
    let seen = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&seen);
    bus.on("a.b", move |_| _ = count.fetch_add(1, Ordering::SeqCst)).unwrap().keep();
    for _ in 0..100 {
        bus.emit("a.b", ()).unwrap();
    }
    bus.flush().unwrap();
    assert_eq!(seen.load(Ordering::SeqCst), 100);
    let stats = law(&bus, 100);
    assert_eq!((stats.handlers[0].panics, stats.handlers[0].dead_lettered), (100, 100));
    assert_eq!(stats.handlers[0].last_error.as_deref(), Some("panicked: on purpose"));
    assert_eq!(bus.worker_stats().total, 1);
}

#[test]
fn permanent_errors_are_not_tried_again_and_failures_can_be_let_go_of() {
    let bus = Bus::new().unwrap();
    let handler =
        |name: &'static str| Handler::new("a.b", |_| Err(HandlerError::new("never").permanent())).named(name);
    bus.subscribe(handler("kept")).unwrap().keep();
    bus.subscribe(handler("discarded").discard_failed()).unwrap().keep();
    bus.emit("a.b", ()).unwrap();
    bus.flush().unwrap();
    let stats = law(&bus, 1);
    assert_eq!((stats.handlers[0].dead_lettered, stats.handlers[0].retries), (1, 0));
    assert_eq!((stats.handlers[1].failed, bus.dead_letters().len()), (1, 1));
}

#[test]
fn dead_letters_are_offered_again_and_purged() {
    for is_inline in [false, true] {
        let mut builder = Bus::builder().config(once());
        if is_inline {
            builder = builder.inline();
        }
        let bus = builder.start().unwrap();
        let is_broken = Arc::new(AtomicU64::new(1));
        let broken = Arc::clone(&is_broken);
        let handler = Handler::new("a.b", move |event| match broken.load(Ordering::SeqCst) {
            0 => Ok(()),
            _ => Err(HandlerError::new(format!("attempt {}", event.attempt()))),
        });
        let id = bus.subscribe(handler.named("h")).unwrap().keep();
        for number in 0..150 {
            bus.emit("a.b", number).unwrap();
        }
        bus.flush().unwrap();
        assert_eq!(bus.dead_letters().len(), 150);
        // It fails again: the same letters, one attempt older.
        assert_eq!(bus.redrive(None), 150);
        let all_of = |attempts| {
            move |bus: &Bus| {
                let letters = bus.dead_letters().entries();
                letters.len() == 150 && letters.iter().all(|letter| letter.attempts == attempts)
            }
        };
        until("all were offered again", || all_of(2)(&bus));
        assert!(bus.dead_letters().entries().iter().all(|letter| letter.error == "h: attempt 2"));
        is_broken.store(0, Ordering::SeqCst);
        assert_eq!(bus.redrive(None), 150);
        until("all were taken", || bus.dead_letters().is_empty() && bus.stats().handlers[0].redriven == 150);
        let stats = law(&bus, 150);
        assert_eq!((stats.handlers[0].dead_lettered, stats.handlers[0].matched), (150, 150));
        // Those of a handler that is gone stay.
        is_broken.store(1, Ordering::SeqCst);
        bus.emit("a.b", ()).unwrap();
        bus.flush().unwrap();
        bus.unsubscribe(id);
        bus.redrive(None);
        bus.flush().unwrap();
        assert_eq!(bus.dead_letters().len(), 1);
        assert_eq!(bus.dead_letters().purge().len(), 1);
        law(&bus, 151);
    }
}

#[test]
fn order_is_kept_through_a_retry_and_other_names_do_not_wait() {
    let clock = ManualClock::new();
    let bus = Bus::builder().manual_clock(&clock).start().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let own = Arc::clone(&seen);
    let handler = Handler::new("order.*", move |event| {
        if event.name() == "order.a" && event.value().as_i64() == Some(0) && event.attempt() == 1 {
            return Err(HandlerError::new("once"));
        }
        own.lock().unwrap().push((event.name().to_owned(), event.value().as_i64().unwrap()));
        Ok(())
    });
    bus.subscribe(handler.ordered()).unwrap().keep();
    for number in 0..3 {
        bus.emit("order.a", number).unwrap();
    }
    bus.emit("order.b", 9).unwrap();
    until("the other name went on", || *seen.lock().unwrap() == [("order.b".to_owned(), 9)]);
    until("the one waits for its retry", || bus.metrics().retry.waiting == 1);
    clock.advance(Duration::from_secs(1));
    until("all are taken", || seen.lock().unwrap().len() == 4);
    bus.flush().unwrap();
    let numbers: Vec<i64> = seen.lock().unwrap().iter().map(|(_, number)| *number).collect();
    assert_eq!(numbers, [9, 0, 1, 2]);
    law(&bus, 4);
}

#[test]
fn a_retry_that_is_given_up_is_no_second_answer() {
    let (clock, busy, other) = (ManualClock::new(), Gate::closed(), Gate::closed());
    let bus = Bus::builder().manual_clock(&clock).start().unwrap();
    let (first, second) = (busy.clone(), other.clone());
    let handler = Handler::new("x.*", move |event| match event.name() {
        "x.block" => {
            first.pass();
            Ok(())
        }
        _ => Err(HandlerError::new("no")),
    });
    let id = bus.subscribe(handler.max_concurrent(1).named("failing")).unwrap().keep();
    bus.on("x.sync", move |_| second.pass()).unwrap().keep();
    std::thread::scope(|scope| {
        let emitting = scope.spawn(|| bus.emit_sync("x.sync", ()).unwrap().calls.unwrap());
        other.await_arrivals(1);
        until("the one waits for its retry", || bus.metrics().retry.waiting == 1);
        bus.emit("x.block", ()).unwrap();
        busy.await_arrivals(1);
        until("the retry is due", || {
            clock.advance(Duration::from_secs(1));
            bus.metrics().retry.waiting == 0
        });
        bus.unsubscribe(id);
        busy.open();
        other.open();
        let calls = emitting.join().unwrap();
        assert_eq!((calls.handled, calls.failed, calls.cancelled), (1, 1, 0));
    });
    bus.stop().unwrap().stats.check_law(2).unwrap();
}

#[test]
fn dead_letters_of_a_sink_and_of_a_handler_are_not_mixed_up() {
    let bus = Bus::builder().config(once()).start().unwrap();
    let calls = counter(&bus, "never.this");
    let broken = from_fn("broken", |_: &Batch<Envelope>| Err(SinkError::unavailable("always")));
    bus.collector().add_sink(broken.dead_letters(bus.dead_letters())).unwrap();
    bus.emit("a.b", ()).unwrap();
    bus.flush().unwrap();
    bus.redrive(None);
    bus.flush().unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    assert_eq!(bus.stats().handlers[0].redriven, 0);
    bus.stop().unwrap().stats.check_law(1).unwrap();
}

#[test]
fn retries_are_bounded_and_what_is_too_many_is_a_dead_letter() {
    let config = BusConfig::default().with_handler_queue(10).with_retry(RetryPolicy::fixed(HOUR, 1));
    let bus = Bus::builder().config(config).start().unwrap();
    bus.subscribe(Handler::new("a.b", |_| Err(HandlerError::new("no"))).max_concurrent(1)).unwrap().keep();
    for _ in 0..100 {
        bus.emit("a.b", ()).unwrap();
    }
    bus.flush().unwrap();
    assert_eq!((bus.metrics().retry.waiting, bus.dead_letters().len()), (10, 90));
    let stats = bus.stop().unwrap().stats;
    stats.check_law(100).unwrap();
    assert_eq!(stats.handlers[0].dead_lettered, 100);
}

/// Panics in the process whose text has this.
fn panics_with(text: &'static str) -> Arc<AtomicU64> {
    let (count, tell) = (Arc::new(AtomicU64::new(0)), std::panic::take_hook());
    let own = Arc::clone(&count);
    std::panic::set_hook(Box::new(move |panic| {
        if panic.to_string().contains(text) {
            own.fetch_add(1, Ordering::SeqCst);
        }
        tell(panic);
    }));
    count
}

#[test]
fn the_longest_intervals_are_as_good_as_never() {
    let panics = panics_with("overflow when adding duration");
    let clock = ManualClock::new();
    let scaling = Some(Scaling::default().with_interval(Duration::MAX));
    let retry = RetryPolicy::fixed(Duration::MAX, 1);
    let config = BusConfig::default()
        .with_scaling(scaling)
        .with_workers(2)
        .with_deadline(Duration::MAX)
        .with_retry(retry);
    let bus = Bus::builder().config(config).manual_clock(&clock).start().unwrap();
    let watcher = watch::aggregate(&bus, Duration::MAX, 10).unwrap();
    bus.on("a.b", |_| Err(HandlerError::new("no"))).unwrap().keep();
    let calls = counter(&bus, "a.c");
    bus.emit("a.b", ()).unwrap();
    for number in 1..=10 {
        clock.advance(Duration::from_secs(1));
        bus.emit("a.c", ()).unwrap();
        until("it is served", || calls.load(Ordering::SeqCst) == number);
    }
    bus.flush().unwrap();
    assert_eq!(bus.metrics().retry.waiting, 1, "it is due when no clock can tell, not at once");
    drop(watcher);
    bus.stop().unwrap().stats.check_law(11).unwrap();
    assert_eq!(panics.load(Ordering::SeqCst), 0);
}
