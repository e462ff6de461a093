//! Calls of a bus that are made again: what waits behind them, and what becomes of both at the end.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::{Gate, LONG, until};
use forebay::sink::RetryPolicy;
use forebay::{FlushStrategy, ManualClock, Overflow, Priority, Record};
use forebay_bus::{
    Bus, BusConfig, BusStats, BusStopError, Delivery, EmitOptions, Filter, Handler, HandlerError,
};

const HOUR: Duration = Duration::from_secs(3600);

/// Returns settings with so many events in the queue of a handler; retries after one second; a flush that gives up soon.
fn config(handler_queue: usize) -> BusConfig {
    let collector = BusConfig::default().collector.with_flush_timeout(Duration::from_secs(2));
    let retry = RetryPolicy::fixed(Duration::from_secs(1), 3);
    BusConfig::default().with_handler_queue(handler_queue).with_collector(collector).with_retry(retry)
}

/// Returns a bus of either kind, by a clock that is moved by hand.
fn start(config: BusConfig, is_inline: bool) -> (Bus, ManualClock) {
    let clock = ManualClock::new();
    let builder = Bus::builder().config(config).manual_clock(&clock);
    let builder = if is_inline { builder.inline() } else { builder };
    (builder.start().unwrap(), clock)
}

/// Events that handlers took, in order.
type Taken = Arc<Mutex<Vec<(String, i64)>>>;

fn number(event: &Record) -> i64 {
    event.value().as_i64().unwrap()
}

/// Fails with 0, the first time or always; remembers all others.
fn unlucky(taken: &Taken, fails: fn(&Delivery) -> bool) -> Handler {
    let taken = Arc::clone(taken);
    Handler::new("order.*", move |event| {
        if number(event) == 0 && fails(event) {
            return Err(HandlerError::new("no luck"));
        }
        taken.lock().unwrap().push((event.name().to_owned(), number(event)));
        Ok(())
    })
}

fn once(event: &Delivery) -> bool {
    event.attempt() == 1
}

fn always(_: &Delivery) -> bool {
    true
}

fn numbers_of(taken: &Taken, name: &str) -> Vec<i64> {
    taken.lock().unwrap().iter().filter(|(of, _)| of == name).map(|(_, number)| *number).collect()
}

#[track_caller]
fn law(bus: &Bus, emitted: u64) -> BusStats {
    let stats = bus.stats();
    if let Err(broken) = stats.check_law(emitted) {
        panic!("{broken}");
    }
    stats
}

#[test]
fn what_waits_behind_a_retry_holds_up_neither_the_bus_nor_a_flush() {
    for is_inline in [false, true] {
        let (bus, clock) = start(config(4), is_inline);
        let taken = Taken::default();
        bus.subscribe(unlucky(&taken, once).ordered()).unwrap().keep();
        bus.emit("order.a", 0).unwrap();
        until("it waits for its retry", || bus.metrics().retry.waiting == 1);
        (1..4).for_each(|number| _ = bus.emit("order.a", number).unwrap());
        for number in 0..20 {
            bus.emit("order.b", 100 + number).unwrap();
            bus.flush().unwrap();
        }
        assert_eq!(numbers_of(&taken, "order.b").len(), 20);
        assert_eq!((numbers_of(&taken, "order.a"), bus.metrics().queue.waiting), (vec![], 0));
        assert_eq!(law(&bus, 24).handlers[0].in_flight, 4);
        clock.advance(Duration::from_secs(1));
        until("all are taken", || {
            bus.flush().unwrap();
            numbers_of(&taken, "order.a") == [0, 1, 2, 3]
        });
        bus.flush().unwrap();
        let handled = law(&bus, 24).handlers[0].clone();
        assert_eq!((handled.handled, handled.in_flight, bus.dead_letters().len()), (24, 0, 0));
        bus.stop().unwrap();
    }
}

#[test]
fn what_was_there_before_the_call_failed_waits_behind_its_retry_as_well() {
    let (bus, clock) = start(config(100), false);
    let (taken, gate) = (Taken::default(), Gate::closed());
    let (own, seen) = (gate.clone(), Arc::clone(&taken));
    let handler = Handler::new("order.a", move |event| {
        if number(event) == 0 && event.attempt() == 1 {
            own.pass();
            return Err(HandlerError::new("once"));
        }
        seen.lock().unwrap().push((event.name().to_owned(), number(event)));
        Ok(())
    });
    bus.subscribe(handler.ordered()).unwrap().keep();
    (0..10).for_each(|number| _ = bus.emit("order.a", number).unwrap());
    gate.await_arrivals(1);
    until("the others wait for it", || bus.stats().handlers[0].in_flight == 10);
    gate.open();
    bus.flush().unwrap();
    assert_eq!((bus.metrics().queue.waiting, bus.stats().handlers[0].in_flight), (0, 10));
    clock.advance(Duration::from_secs(1));
    until("all are taken", || numbers_of(&taken, "order.a") == (0..10).collect::<Vec<i64>>());
    bus.stop().unwrap();
    law(&bus, 10);
}

#[test]
fn too_many_behind_a_retry_are_dead_letters_at_once_or_let_go_of() {
    for discards in [false, true] {
        for is_inline in [false, true] {
            let (bus, clock) = start(config(4), is_inline);
            let taken = Taken::default();
            let handler = unlucky(&taken, once).ordered().named("h");
            let handler = if discards { handler.discard_failed() } else { handler };
            bus.subscribe(handler).unwrap().keep();
            bus.emit("order.a", 0).unwrap();
            until("it waits for its retry", || bus.metrics().retry.waiting == 1);
            (1..=10).for_each(|number| _ = bus.emit("order.a", number).unwrap());
            bus.flush().unwrap();
            let stats = law(&bus, 11).handlers.remove(0);
            let letters = if discards { 0 } else { 7 };
            assert_eq!((stats.dead_lettered, stats.failed), (letters, 7 - letters));
            assert_eq!(bus.dead_letters().len() as u64, letters);
            clock.advance(Duration::from_secs(1));
            until("the others are taken", || {
                bus.flush().unwrap();
                numbers_of(&taken, "order.a") == [0, 1, 2, 3]
            });
            bus.stop().unwrap();
            law(&bus, 11);
        }
    }
}

#[test]
fn a_critical_event_does_not_wait_behind_a_retry_of_a_normal_one() {
    for is_inline in [false, true] {
        let (bus, clock) = start(config(4), is_inline);
        let taken = Taken::default();
        bus.subscribe(unlucky(&taken, once).ordered()).unwrap().keep();
        bus.emit("order.a", 0).unwrap();
        until("it waits for its retry", || bus.metrics().retry.waiting == 1);
        bus.emit("order.a", 1).unwrap();
        let critical = || EmitOptions::new().with_priority(Priority::Critical);
        bus.emit_with("order.a", 2, critical()).unwrap();
        bus.flush().unwrap();
        assert_eq!(numbers_of(&taken, "order.a"), [2]);
        clock.advance(Duration::from_secs(1));
        until("all are taken", || {
            bus.flush().unwrap();
            numbers_of(&taken, "order.a") == [2, 0, 1]
        });
        bus.stop().unwrap();
        law(&bus, 3);
    }
}

#[test]
fn a_stop_makes_a_dead_letter_of_the_retry_and_handles_what_waits_behind_it() {
    for is_inline in [false, true] {
        let (bus, _clock) = start(config(100), is_inline);
        let taken = Taken::default();
        bus.subscribe(unlucky(&taken, always).ordered()).unwrap().keep();
        (0..5).for_each(|number| _ = bus.emit("order.a", number).unwrap());
        bus.emit("order.b", 9).unwrap();
        until("it waits for its retry", || bus.metrics().retry.waiting == 1);
        bus.stop().unwrap().stats.check_law(6).unwrap();
        assert_eq!(numbers_of(&taken, "order.a"), [1, 2, 3, 4]);
        let stats = law(&bus, 6).handlers.remove(0);
        assert_eq!((stats.handled, stats.dead_lettered, stats.cancelled), (5, 1, 0));
        let letter = bus.dead_letters().entries().remove(0);
        assert_eq!((number(&letter.event), letter.attempts, &*letter.error), (0, 1, "order.*: no luck"));
    }
}

#[test]
fn what_waits_behind_a_retry_is_kept_when_a_stop_has_no_time_for_it() {
    let (bus, _clock) = start(config(100), false);
    let gate = Gate::closed();
    let own = gate.clone();
    let handler = Handler::new("order.a", move |event| match number(event) {
        0 => Err(HandlerError::new("no luck")),
        _ => {
            own.pass();
            Ok(())
        }
    });
    bus.subscribe(handler.ordered()).unwrap().keep();
    (0..4).for_each(|number| _ = bus.emit("order.a", number).unwrap());
    until("all wait", || {
        (bus.metrics().retry.waiting, bus.stats().handlers[0].in_flight, bus.collector().pending())
            == (1, 4, 0)
    });
    let Err(BusStopError::TimedOut { report }) = bus.stop_timeout(Duration::from_millis(50)) else {
        panic!()
    };
    report.stats.check_law(4).unwrap();
    gate.await_arrivals(1);
    gate.open();
    until("the last call is over", || bus.stats().handlers[0].in_flight == 0);
    let stats = law(&bus, 4).handlers.remove(0);
    assert_eq!((stats.handled, stats.dead_lettered, stats.cancelled), (1, 3, 0));
    let letters = bus.dead_letters().entries();
    assert_eq!(letters.iter().map(|letter| number(&letter.event)).collect::<Vec<_>>(), [0, 2, 3]);
}

/// Returns a handler of one call at a time that stands at a gate for `x.block`, and fails otherwise.
fn blocking(gate: &Gate) -> Handler {
    let own = gate.clone();
    let handler = Handler::new("x.*", move |event| match event.name() {
        "x.block" => {
            own.pass();
            Ok(())
        }
        _ => Err(HandlerError::new("no")),
    });
    handler.max_concurrent(1)
}

#[test]
fn a_retry_that_is_due_when_time_is_over_is_a_dead_letter() {
    let (bus, clock) = start(config(100), false);
    let gate = Gate::closed();
    bus.subscribe(blocking(&gate)).unwrap().keep();
    bus.emit("x.fails", ()).unwrap();
    until("it waits for its retry", || bus.metrics().retry.waiting == 1);
    bus.emit("x.block", ()).unwrap();
    gate.await_arrivals(1);
    until("the retry is due", || {
        clock.advance(Duration::from_secs(1));
        bus.metrics().retry.waiting == 0
    });
    until("it is queued", || bus.metrics().queue.waiting == 1);
    assert!(bus.stop_timeout(Duration::from_millis(50)).is_err());
    let stats = bus.stats().handlers.remove(0);
    assert_eq!((stats.dead_lettered, stats.cancelled), (1, 0));
    assert_eq!(bus.dead_letters().entries()[0].attempts, 1);
    gate.open();
    until("the last call is over", || bus.stats().handlers[0].in_flight == 0);
    law(&bus, 2);
}

#[test]
fn a_retry_that_is_due_is_made_before_the_bus_has_stopped() {
    for is_inline in [false, true] {
        let (bus, clock) = start(config(100), is_inline);
        let taken = Taken::default();
        bus.subscribe(unlucky(&taken, once)).unwrap().keep();
        bus.emit("order.a", 0).unwrap();
        until("it waits for its retry", || bus.metrics().retry.waiting == 1);
        clock.advance(Duration::from_secs(1));
        if !is_inline {
            until("it is made", || bus.metrics().retry.waiting == 0);
        }
        bus.stop().unwrap();
        let stats = law(&bus, 1).handlers.remove(0);
        assert_eq!((stats.cancelled, stats.in_flight), (0, 0));
        assert_eq!(stats.handled, 1);
    }
}

#[test]
fn a_call_that_fails_after_its_handler_was_unsubscribed_is_not_made_again() {
    let bus = Bus::builder().config(config(100).with_retry(RetryPolicy::fixed(HOUR, 1)));
    let bus = bus.start().unwrap();
    let gate = Gate::closed();
    let own = gate.clone();
    let handler = Handler::new("a.b", move |_| {
        own.pass();
        Err(HandlerError::new("no"))
    });
    let id = bus.subscribe(handler).unwrap().keep();
    bus.emit("a.b", ()).unwrap();
    gate.await_arrivals(1);
    bus.unsubscribe(id);
    gate.open();
    bus.flush().unwrap();
    let stats = law(&bus, 1);
    assert_eq!((stats.gone.dead_lettered, stats.gone.in_flight), (1, 0));
    assert_eq!((bus.metrics().retry.waiting, bus.dead_letters().len()), (0, 1));
    bus.stop().unwrap();
}

#[test]
fn what_is_too_much_for_a_handler_that_hangs_is_let_go_of_if_it_says_so() {
    let (bus, clock) = start(config(2).with_workers(1), false);
    let gate = Gate::closed();
    let own = gate.clone();
    bus.subscribe(Handler::new("a.b", move |_| own.pass()).max_concurrent(1).discard_failed())
        .unwrap()
        .keep();
    bus.emit("a.b", ()).unwrap();
    gate.await_arrivals(1);
    until("it hangs", || {
        clock.advance(Duration::from_secs(10));
        bus.worker_stats().stuck == 1
    });
    (0..10).for_each(|_| _ = bus.emit("a.b", ()).unwrap());
    let _ = bus.collector().flush().unwrap();
    let stats = bus.stats().handlers.remove(0);
    assert_eq!((stats.failed, stats.dead_lettered, bus.dead_letters().len()), (8, 0, 0));
    gate.open();
    bus.stop_timeout(LONG).unwrap();
    assert_eq!(law(&bus, 11).handlers[0].handled, 3);
}

/// Counts its end.
#[derive(Clone)]
struct Counted(#[allow(dead_code, reason = "it is there to end")] Arc<Ends>);

struct Ends(Arc<AtomicU64>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl From<Counted> for Record {
    fn from(_: Counted) -> Record {
        Record::new("counted.event")
    }
}

#[test]
fn an_event_that_waits_for_a_retry_does_not_keep_those_of_its_batch() {
    let folder = tempfile::tempdir().unwrap();
    let collector = BusConfig::default().collector.with_flush(FlushStrategy::Manual);
    let config = BusConfig::default().with_retry(RetryPolicy::fixed(HOUR, 1)).with_collector(collector);
    // Without a journal, the last events are remembered.
    let builder = Bus::builder().config(config).journal(folder.path().join("events.jsonl")).unwrap();
    let bus = builder.start().unwrap();
    bus.on("x.fails", |_| Err(HandlerError::new("no"))).unwrap().keep();
    let ends = Arc::new(AtomicU64::new(0));
    bus.emit("x.fails", 7).unwrap();
    (0..10).for_each(|_| _ = bus.emit_event(Counted(Arc::new(Ends(Arc::clone(&ends))))).unwrap());
    bus.flush().unwrap();
    // The last of them is waited for; its end comes right behind.
    until("the others have ended", || ends.load(Ordering::SeqCst) == 10);
    assert_eq!(bus.metrics().retry.waiting, 1);
    bus.stop().unwrap();
    assert_eq!(bus.dead_letters().entries()[0].event.value().as_i64(), Some(7));
    law(&bus, 11);
}

#[test]
fn a_call_is_not_made_again_after_the_longest_time_that_the_policy_gives() {
    for is_inline in [false, true] {
        let retry = RetryPolicy::fixed(Duration::from_secs(1), 10).max_elapsed(Duration::from_millis(2_500));
        let (bus, clock) = start(config(10).with_retry(retry), is_inline);
        let calls = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&calls);
        let handler = Handler::new("a.b", move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            Err(HandlerError::new("no"))
        });
        bus.subscribe(handler).unwrap().keep();
        bus.emit("a.b", ()).unwrap();
        for call in 1..=2 {
            until("it waits for its retry", || {
                bus.metrics().retry.waiting == 1 && calls.load(Ordering::SeqCst) == call
            });
            clock.advance(Duration::from_secs(1));
            until("it is called again", || {
                bus.flush().unwrap();
                calls.load(Ordering::SeqCst) == call + 1
            });
        }
        until("it is a dead letter", || bus.dead_letters().len() + bus.metrics().retry.waiting as usize == 1);
        assert_eq!((calls.load(Ordering::SeqCst), bus.dead_letters().len()), (3, 1));
        assert_eq!(bus.dead_letters().entries()[0].attempts, 3);
        bus.stop().unwrap();
        law(&bus, 1);
    }
}

#[test]
fn order_and_account_hold_under_retries_of_many_names_from_many_threads() {
    for is_inline in [false, true] {
        let retry = RetryPolicy::fixed(Duration::from_micros(50), 2);
        let overflow = Overflow::Block { timeout: LONG };
        let collector = BusConfig::default().collector.with_capacity(64).with_overflow(overflow);
        let config = BusConfig::default().with_handler_queue(16).with_retry(retry).with_collector(collector);
        let builder = Bus::builder().config(config);
        let bus = if is_inline { builder.inline() } else { builder }.start().unwrap();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let own = Arc::clone(&taken);
        let handler = Handler::new("order.*", move |event| {
            // Some fail once, some until they are dead letters, some for good.
            match number(event) % 7 {
                0 if event.attempt() == 1 => return Err(HandlerError::new("once")),
                3 => return Err(HandlerError::new("always")),
                5 => return Err(HandlerError::new("for good").permanent()),
                _ => {}
            }
            own.lock().unwrap().push((event.name().to_owned(), event.priority(), number(event)));
            Ok(())
        });
        let plain = Handler::new("order.*", |event| match number(event) % 3 {
            0 => Err(HandlerError::new("no")),
            _ => Ok(()),
        });
        bus.subscribe(handler.ordered()).unwrap().keep();
        bus.subscribe(plain.discard_failed()).unwrap().keep();
        std::thread::scope(|scope| {
            for name in ["order.a", "order.b", "order.c"] {
                let bus = &bus;
                scope.spawn(move || {
                    for number in 0..2_000 {
                        let priority = [Priority::Critical, Priority::Normal, Priority::Low][number % 3];
                        let options = EmitOptions::new().with_priority(priority);
                        bus.emit_with(name, number as i64, options).unwrap();
                        if number % 500 == 0 {
                            bus.flush().unwrap();
                        }
                    }
                });
            }
        });
        bus.stop_timeout(LONG).unwrap();
        let stats = law(&bus, 6_000);
        assert!(stats.handlers.iter().all(|it| (it.cancelled, it.in_flight) == (0, 0)), "{stats:?}");
        assert_eq!((stats.handlers[0].failed, stats.handlers[1].dead_lettered), (0, 0));
        let taken = taken.lock().unwrap();
        assert_eq!(taken.len() as u64, stats.handlers[0].handled);
        for name in ["order.a", "order.b", "order.c"] {
            for priority in [Priority::Critical, Priority::Normal, Priority::Low] {
                let of = taken.iter().filter(|(of, at, _)| of == name && *at == priority);
                let numbers: Vec<i64> = of.map(|(_, _, number)| *number).collect();
                assert!(numbers.is_sorted(), "{name} {priority:?}: {numbers:?}");
            }
        }
    }
}

fn options(priority: Priority) -> EmitOptions {
    EmitOptions::new().with_priority(priority)
}

#[test]
fn letters_of_one_name_are_offered_again_one_after_the_other() {
    let (bus, _clock) = start(config(100).with_workers(4), false);
    let (gate, is_open, taken) = (Gate::closed(), Arc::new(AtomicBool::new(false)), Taken::default());
    let (own, is_well, seen) = (gate.clone(), Arc::clone(&is_open), Arc::clone(&taken));
    let handler = Handler::new("order.*", move |event| {
        if event.name() == "order.a" {
            if !is_well.load(Ordering::SeqCst) {
                return Err(HandlerError::new("not yet").permanent());
            }
            own.pass();
        }
        seen.lock().unwrap().push((event.name().to_owned(), number(event)));
        Ok(())
    });
    bus.subscribe(handler.ordered()).unwrap().keep();
    (0..3).for_each(|number| _ = bus.emit("order.a", number).unwrap());
    bus.flush().unwrap();
    is_open.store(true, Ordering::SeqCst);
    assert_eq!(bus.redrive(None), 3);
    gate.await_arrivals(1);
    bus.emit_sync("order.b", 9).unwrap();
    let waiting = bus.metrics().queue.waiting;
    gate.open();
    bus.flush().unwrap();
    assert_eq!(waiting, 2, "behind the first of them");
    // The letters themselves may have been kept in another order.
    let mut numbers = numbers_of(&taken, "order.a");
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2]);
    let stats = law(&bus, 4);
    assert_eq!((stats.handlers[0].redriven, stats.handlers[0].in_flight), (3, 0));
    bus.stop().unwrap();
}

#[test]
fn a_letter_that_is_offered_again_waits_behind_a_retry_and_nobody_waits_for_it() {
    for is_inline in [false, true] {
        let (bus, clock) = start(config(4), is_inline);
        let (taken, calls) = (Taken::default(), Arc::new(AtomicU64::new(0)));
        let (seen, count) = (Arc::clone(&taken), Arc::clone(&calls));
        let handler = Handler::new("order.*", move |event| {
            match count.fetch_add(1, Ordering::SeqCst) {
                0 => return Err(HandlerError::new("for good").permanent()),
                1 => return Err(HandlerError::new("once")),
                _ => seen.lock().unwrap().push((event.name().to_owned(), number(event))),
            }
            Ok(())
        });
        bus.subscribe(handler.ordered()).unwrap().keep();
        bus.emit("order.a", 0).unwrap();
        bus.flush().unwrap();
        bus.emit("order.a", 1).unwrap();
        until("it waits for its retry", || bus.metrics().retry.waiting == 1);
        bus.redrive(None);
        until("it is offered", || bus.dead_letters().is_empty());
        bus.flush().unwrap();
        assert_eq!((numbers_of(&taken, "order.a"), law(&bus, 2).handlers[0].in_flight), (vec![], 1));
        clock.advance(Duration::from_secs(1));
        until("all are taken", || {
            bus.flush().unwrap();
            numbers_of(&taken, "order.a") == [1, 0]
        });
        bus.stop().unwrap();
        let stats = law(&bus, 2);
        assert_eq!((stats.handlers[0].handled, stats.handlers[0].redriven), (1, 1));
    }
}

#[test]
fn letters_that_find_no_space_behind_a_retry_and_those_of_a_stopped_bus_stay_what_they_are() {
    for is_inline in [false, true] {
        let (bus, _clock) = start(config(2), is_inline);
        let handler = Handler::new("order.*", |event| match number(event) {
            9 => Err(HandlerError::new("once")),
            _ => Err(HandlerError::new("for good").permanent()),
        });
        bus.subscribe(handler.ordered().named("h")).unwrap().keep();
        (0..4).for_each(|number| _ = bus.emit("order.a", number).unwrap());
        bus.flush().unwrap();
        let before = bus.dead_letters().entries();
        bus.emit("order.a", 9).unwrap();
        until("it waits for its retry", || bus.metrics().retry.waiting == 1);
        bus.redrive(None);
        until("one waits behind it", || bus.dead_letters().len() == 3);
        let stopped = bus.stop_timeout(Duration::ZERO);
        let kept = bus.dead_letters().entries();
        let of = |number_of: i64| {
            let letter = kept.iter().find(|letter| number(&letter.event) == number_of);
            let letter = letter.unwrap_or_else(|| panic!("{number_of} is gone: {kept:?}"));
            (letter.attempts, letter.error.clone(), letter.time)
        };
        let mut calls = 0;
        for letter in &before {
            let (attempts, error, time) = of(number(&letter.event));
            calls += attempts;
            assert_eq!((&*error, time), ("h: for good", letter.time), "{stopped:?}");
        }
        // The one that waited may have been called once more before the end.
        assert!(calls == 4 || calls == 5, "{stopped:?}: {calls}");
        let _ = bus.stop();
        law(&bus, 5);
    }
}

#[test]
fn what_is_released_or_called_again_keeps_its_priority() {
    let (bus, clock) = start(config(100).with_workers(1), false);
    let (taken, gate) = (Taken::default(), Gate::closed());
    let (own, seen) = (gate.clone(), Arc::clone(&taken));
    let handler = Handler::new("order.*", move |event| {
        match (event.name(), number(event), event.attempt()) {
            ("order.block", ..) => own.pass(),
            (_, 0, 1) => return Err(HandlerError::new("once")),
            _ => seen.lock().unwrap().push((event.name().to_owned(), number(event))),
        }
        Ok(())
    });
    bus.subscribe(handler.ordered()).unwrap().keep();
    (0..2).for_each(|number| _ = bus.emit_with("order.a", number, options(Priority::Low)).unwrap());
    until("they wait for the retry", || {
        bus.metrics().retry.waiting == 1 && bus.stats().handlers[0].in_flight == 2
    });
    bus.flush().unwrap();
    bus.emit("order.block", 0).unwrap();
    gate.await_arrivals(1);
    clock.advance(Duration::from_secs(1));
    until("the retry is due", || bus.metrics().queue.waiting == 2);
    bus.emit("order.b", 5).unwrap();
    until("it is there", || bus.metrics().queue.waiting == 3);
    gate.open();
    bus.flush().unwrap();
    let numbers: Vec<i64> = taken.lock().unwrap().iter().map(|(_, number)| *number).collect();
    assert_eq!(numbers, [5, 0, 1], "a normal one first");
    bus.stop().unwrap();
    law(&bus, 4);
}

#[test]
fn a_critical_event_that_is_called_again_is_as_urgent_as_before() {
    let (bus, clock) = start(config(100).with_workers(1), false);
    let (order, gate) = (Arc::new(Mutex::new(Vec::new())), Gate::closed());
    let (own, seen) = (gate.clone(), Arc::clone(&order));
    let busy = Handler::new("busy.one", move |event| {
        own.pass();
        seen.lock().unwrap().push(number(event));
    });
    bus.subscribe(busy).unwrap().keep();
    let seen = Arc::clone(&order);
    let urgent = Handler::new("urgent.one", move |event| {
        if event.attempt() == 1 {
            return Err(HandlerError::new("once"));
        }
        seen.lock().unwrap().push(number(event));
        Ok(())
    });
    bus.subscribe(urgent.ordered()).unwrap().keep();
    bus.on("spare.one", |_| Err(HandlerError::new("for good").permanent())).unwrap().keep();
    bus.emit("spare.one", ()).unwrap();
    bus.flush().unwrap();
    bus.emit_with("urgent.one", 100, options(Priority::Critical)).unwrap();
    until("it waits for its retry", || bus.metrics().retry.waiting == 1);
    (0..3).for_each(|number| _ = bus.emit("busy.one", number).unwrap());
    gate.await_arrivals(1);
    until("the others wait", || bus.metrics().queue.waiting == 2);
    clock.advance(Duration::from_secs(1));
    until("the retry is due", || bus.metrics().queue.waiting == 3);
    // Whoever has put it there sees to this behind it.
    bus.redrive(None);
    until("it stands in line", || bus.dead_letters().is_empty());
    gate.open();
    bus.flush().unwrap();
    assert_eq!(*order.lock().unwrap(), [0, 100, 1, 2]);
    bus.stop().unwrap();
    law(&bus, 5);
}

#[test]
fn a_retry_that_is_due_at_the_stop_is_made_although_nobody_has_seen_to_it() {
    let (bus, clock) = start(config(100), false);
    let (busy, telling) = (Gate::closed(), Gate::closed());
    let (taken, own) = (Taken::default(), busy.clone());
    bus.on("busy.one", move |_| own.pass()).unwrap().keep();
    bus.subscribe(unlucky(&taken, once)).unwrap().keep();
    let own = telling.clone();
    bus.add_filter(Filter::new(move |event| {
        if event.name() == "system.performance_warning" {
            own.pass();
        }
        true
    }));
    bus.emit("busy.one", ()).unwrap();
    busy.await_arrivals(1);
    // Whoever looks after retries tells of the call that hangs, and is held up by that.
    until("it is reported", || {
        clock.advance(Duration::from_secs(10));
        bus.worker_stats().stuck == 1
    });
    telling.await_arrivals(1);
    bus.emit("order.a", 0).unwrap();
    until("it waits for its retry", || bus.metrics().retry.waiting == 1);
    clock.advance(Duration::from_secs(1));
    busy.open();
    let stats = std::thread::scope(|scope| {
        let stop = scope.spawn(|| bus.stop().unwrap().stats);
        until("the stop makes it", || bus.stats().handlers[1].handled == 1);
        telling.open();
        stop.join().unwrap()
    });
    assert_eq!((stats.handlers[1].handled, stats.handlers[1].dead_lettered), (1, 0));
    until("the warning is refused", || bus.stats().own == bus.stats().events.rejected.stopped);
    law(&bus, 2);
}

#[test]
fn a_worker_that_hangs_with_a_letter_is_replaced_although_its_handler_is_gone() {
    let (bus, clock) = start(config(100).with_workers(1), false);
    let gate = Gate::closed();
    let own = gate.clone();
    let handler = Handler::new("a.b", move |event| match event.attempt() {
        1 => Err(HandlerError::new("for good").permanent()),
        _ => {
            own.pass();
            Ok(())
        }
    });
    let id = bus.subscribe(handler).unwrap().keep();
    bus.emit("a.b", ()).unwrap();
    bus.flush().unwrap();
    bus.redrive(None);
    gate.await_arrivals(1);
    bus.unsubscribe(id);
    let _ = bus.stats();
    let begun = Instant::now();
    let mut is_stuck = false;
    while !is_stuck && begun.elapsed() < Duration::from_secs(5) {
        clock.advance(Duration::from_secs(10));
        is_stuck = bus.worker_stats().stuck == 1;
        std::thread::yield_now();
    }
    gate.open();
    bus.flush().unwrap();
    assert!(is_stuck, "nobody has looked at its call");
    until("the warning is on its way", || bus.stats().check_law(1).is_ok());
    assert_eq!(law(&bus, 1).gone.redriven, 1);
    bus.stop().unwrap();
}
