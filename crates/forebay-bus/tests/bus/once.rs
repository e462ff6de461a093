//! Handlers that are called at most once, the wait for an event, and reports for people.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::{law, once};
use crate::support::{Gate, LONG, until};
use forebay_bus::{Bus, Handler, HandlerError, WaitError};

#[test]
fn a_function_that_is_subscribed_once_is_called_for_one_event_and_then_gone() {
    for is_inline in [false, true] {
        let builder = Bus::builder();
        let bus = if is_inline { builder.inline() } else { builder }.start().unwrap();
        let (calls, emitter) = (Arc::new(AtomicU64::new(0)), bus.emitter());
        let own = Arc::clone(&calls);
        let call = move |_: &forebay_bus::Delivery| {
            own.fetch_add(1, Ordering::SeqCst);
            // Does not come back to it.
            emitter.emit("a.again", ()).unwrap();
        };
        bus.once("a.*", call).unwrap().keep();
        for _ in 0..10 {
            bus.emit("a.b", ()).unwrap();
        }
        bus.flush().unwrap();
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        assert!(bus.stats().handlers.is_empty());
        law(&bus, 11);
    }
}

#[test]
fn a_function_that_fails_once_is_not_called_again_and_its_event_is_a_dead_letter() {
    let bus = Bus::new().unwrap();
    bus.once("a.b", |_| Err::<(), _>(HandlerError::new("no"))).unwrap().keep();
    bus.emit_sync("a.b", ()).unwrap();
    bus.flush().unwrap();
    let letters = bus.dead_letters().entries();
    assert_eq!((letters.len(), letters[0].attempts, letters[0].handler()), (1, 1, Some("a.b")));
    assert!(bus.stats().handlers.is_empty());
    law(&bus, 1);
}

#[test]
fn a_subscription_of_one_call_ends_with_its_guard() {
    let bus = Bus::new().unwrap();
    drop(bus.once("a.b", |_| Err::<(), _>(HandlerError::new("is not called"))).unwrap());
    bus.emit_sync("a.b", ()).unwrap();
    assert!(bus.dead_letters().is_empty());
    law(&bus, 1);
}

#[test]
fn a_wait_ends_with_the_next_event_that_matches() {
    let bus = Bus::new().unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| bus.wait_for("a.*", LONG));
        until("the thread waits", || !bus.stats().handlers.is_empty());
        bus.emit("b.c", 1).unwrap();
        bus.emit("a.b", 2).unwrap();
        let event = waits.join().unwrap().unwrap();
        assert_eq!((event.name(), event.value().as_i64()), ("a.b", Some(2)));
    });
    assert!(bus.stats().handlers.is_empty());
    law(&bus, 2);
}

#[test]
fn a_wait_ends_at_its_deadline_and_when_the_bus_stops() {
    let bus = Bus::new().unwrap();
    let waited = Duration::from_millis(1);
    assert_eq!(bus.wait_for("a.b", waited), Err(WaitError::TimedOut { waited }));
    assert!(bus.stats().handlers.is_empty());
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| bus.wait_for("a.b", LONG));
        until("the thread waits", || !bus.stats().handlers.is_empty());
        bus.stop().unwrap();
        assert_eq!(waits.join().unwrap(), Err(WaitError::Stopped));
    });
    assert!(matches!(bus.wait_for("a.b", LONG), Err(WaitError::Subscribe(_))));
}

#[test]
fn a_wait_does_not_end_with_an_event_that_was_emitted_before_it() {
    let gate = Gate::closed();
    let bus = Bus::builder().sink(gate.sink()).start().unwrap();
    bus.emit("a.b", 1).unwrap();
    gate.await_arrivals(1);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| bus.wait_for("a.*", LONG));
        until("the thread waits", || !bus.stats().handlers.is_empty());
        bus.emit("a.c", 2).unwrap();
        gate.open();
        let event = waits.join().unwrap().unwrap();
        assert_eq!((event.name(), event.value().as_i64()), ("a.c", Some(2)));
    });
    bus.flush().unwrap();
    law(&bus, 2);
}

#[test]
fn each_handled_event_of_a_single_call_or_a_wait_was_seen() {
    let bus = Bus::new().unwrap();
    let (emitter, is_over) = (bus.emitter(), Arc::new(AtomicU64::new(0)));
    let own = Arc::clone(&is_over);
    let emits = std::thread::spawn(move || {
        (0_u64..).take_while(|_| own.load(Ordering::SeqCst) == 0 && emitter.emit("a.b", ()).is_ok()).count()
    });
    let (calls, mut waits) = (Arc::new(AtomicU64::new(0)), 0);
    for _ in 0..500 {
        let own = Arc::clone(&calls);
        bus.once("a.b", move |_| _ = own.fetch_add(1, Ordering::SeqCst)).unwrap().keep();
        // Many deadlines pass just when the event comes.
        waits += u64::from(bus.wait_for("a.b", Duration::from_micros(50)).is_ok());
    }
    is_over.store(1, Ordering::SeqCst);
    let emitted = emits.join().unwrap() as u64;
    bus.flush().unwrap();
    let stats = law(&bus, emitted);
    let handled = stats.handlers.iter().map(|it| it.handled).sum::<u64>() + stats.gone.handled;
    assert_eq!(handled, calls.load(Ordering::SeqCst) + waits);
}

#[test]
fn a_handler_that_would_wait_for_an_event_is_refused() {
    let bus = Bus::new().unwrap();
    let (own, said) = (bus.clone(), Arc::new(Mutex::new(None)));
    let kept = Arc::clone(&said);
    let id = bus.on("a.b", move |_| *kept.lock().unwrap() = Some(own.wait_for("b.c", LONG))).unwrap().keep();
    bus.emit_sync("a.b", ()).unwrap();
    assert_eq!(said.lock().unwrap().take(), Some(Err(WaitError::Inside)));
    bus.unsubscribe(id);
}

#[test]
fn a_dead_letter_names_its_handler_also_when_it_is_offered_again() {
    let bus = Bus::builder().config(once()).start().unwrap();
    bus.subscribe(Handler::new("a.b", |_| Err(HandlerError::new("no"))).named("broken")).unwrap().keep();
    bus.emit_sync("a.b", ()).unwrap();
    bus.flush().unwrap();
    for _ in 0..2 {
        let letters = bus.dead_letters().entries();
        assert_eq!((letters.len(), letters[0].handler()), (1, Some("broken")));
        bus.redrive(None);
        bus.flush().unwrap();
    }
    law(&bus, 1);
}

#[test]
fn the_account_of_a_bus_is_written_for_people() {
    let bus = Bus::builder().config(once()).start().unwrap();
    let (gate, own) = (Gate::default(), Gate::default());
    gate.open();
    own.open();
    bus.on("a.b", move |_| gate.pass()).unwrap().keep();
    let broken = Handler::new("a.*", move |_| {
        own.pass();
        Err(HandlerError::new("no\nluck"))
    });
    bus.subscribe(broken.named("broken")).unwrap().keep();
    bus.emit("a.b", ()).unwrap();
    bus.emit("not allowed", ()).unwrap_err();
    let stats = bus.stop().unwrap().stats;
    let text = stats.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "2 emitted + 0 of the bus = 1 offered + 1 misnamed");
    assert_eq!(lines[1], "a.b: 1 matched = 1 handled + 0 in flight");
    assert_eq!(
        lines[2],
        r"broken: 1 matched = 0 handled + 0 in flight + 1 dead letters (last error: no\nluck)"
    );
    assert_eq!(lines[3..].join("\n"), stats.events.to_string());
}
