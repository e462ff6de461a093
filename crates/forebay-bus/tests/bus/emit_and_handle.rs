//! A bus gives every event to the handlers that it is for, and tells what became of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::time::Duration;

use crate::support;
use crate::support::{LONG, until};
use forebay::event::catalog::training::EpochCompleted;
use forebay::sink::RetryPolicy;
use forebay::{Fields, FlushStrategy, Outcome, Priority, Record, Value, config::ConfigError};
use forebay_bus::{
    Bus, BusConfig, BusStats, Calls, Delivery, EmitError, EmitOptions, Filter, Handler, HandlerError, Mode,
    SubscribeError, correlate,
};
use forebay_history::EventQuery;

/// Checks the law of a bus, and that nothing is on its way.
#[track_caller]
fn law(bus: &Bus, emitted: u64) -> BusStats {
    let stats = bus.stats();
    if let Err(broken) = stats.check_law(emitted) {
        panic!("{broken}");
    }
    for handler in stats.handlers.iter().chain([&stats.gone]) {
        assert_eq!(handler.in_flight, 0, "{handler:?}");
    }
    stats
}

/// The names of the events that a handler was called with.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn push(&self, name: &str) {
        self.0.lock().unwrap().push(name.to_owned());
    }

    fn sorted(&self) -> Vec<String> {
        let mut seen = self.0.lock().unwrap().clone();
        seen.sort();
        seen
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

fn see(bus: &Bus, topics: impl Into<forebay_bus::Topics>) -> Seen {
    let seen = Seen::default();
    let own = seen.clone();
    bus.on(topics, move |event| own.push(event.name())).unwrap().keep();
    seen
}

/// Runs a test with both ways of calling handlers, which are to do the same.
fn both(test: impl Fn(Bus)) {
    test(Bus::new().unwrap());
    test(Bus::builder().inline().start().unwrap());
}

#[test]
fn handlers_are_called_by_name_by_pattern_and_several_at_once() {
    both(|bus| {
        let exact = see(&bus, "training.completed");
        let pattern = see(&bus, "training.*");
        let partial = see(&bus, "model.checkpoint_*");
        let several = see(&bus, ["*.error", "*.failed", "training.failed"]);
        let names = ["training.completed", "training.failed", "model.checkpoint_saved", "plugin.error"];
        names.iter().for_each(|name| assert_eq!(bus.emit(*name, ()).unwrap().outcome, Outcome::Queued));
        bus.flush().unwrap();
        assert_eq!(exact.sorted(), ["training.completed"]);
        assert_eq!(pattern.sorted(), ["training.completed", "training.failed"]);
        assert_eq!(partial.sorted(), ["model.checkpoint_saved"]);
        assert_eq!(several.sorted(), ["plugin.error", "training.failed"], "each event once");
        law(&bus, 4);
    });
}

#[test]
fn a_value_goes_along_with_a_record_and_ends_with_it() {
    both(|bus| {
        let along = Arc::new(7_u64);
        let got = Arc::new(Mutex::new(Vec::new()));
        let (named, typed) = (Arc::clone(&got), Arc::clone(&got));
        let by_name = move |event: &Delivery| {
            let along = event.as_type::<Arc<u64>>().map(|along| **along);
            named.lock().unwrap().push((event.value().as_i64(), along));
        };
        bus.on("a", by_name).unwrap().keep();
        bus.on_type(move |along: &Arc<u64>| typed.lock().unwrap().push((None, Some(**along))))
            .unwrap()
            .keep();
        bus.emit_record_along(Record::integer("a", 3), Arc::clone(&along)).unwrap();
        bus.flush().unwrap();
        let mut got = got.lock().unwrap().clone();
        got.sort_unstable();
        assert_eq!(got, [(None, Some(7)), (Some(3), Some(7))]);
        bus.stop().unwrap();
        law(&bus, 1);
        // The history has the record alone.
        assert_eq!(bus.query(&EventQuery::new()).unwrap().len(), 1);
        assert_eq!(Arc::strong_count(&along), 1);
    });
}

#[test]
fn handlers_by_type_get_what_was_emitted() {
    both(|bus| {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let own = Arc::clone(&seen);
        bus.on_type(move |event: &EpochCompleted| own.lock().unwrap().push(event.epoch)).unwrap().keep();
        let by_name = see(&bus, "training.epoch_completed");
        bus.emit_event(EpochCompleted { epoch: 3, ..EpochCompleted::default() }).unwrap();
        // The same name, but made by hand.
        bus.emit("training.epoch_completed", Fields::new().with("epoch", 4)).unwrap();
        bus.flush().unwrap();
        assert_eq!(*seen.lock().unwrap(), [3]);
        assert_eq!(by_name.all().len(), 2);
        law(&bus, 2);
    });
}

#[test]
fn an_event_has_what_it_was_emitted_with() {
    both(|bus| {
        let (sender, events) = mpsc::channel();
        bus.on("a.b", move |event| sender.send((event.id(), event.attempt(), Record::clone(event))).unwrap())
            .unwrap()
            .keep();
        let options = EmitOptions::new()
            .with_priority(Priority::Critical)
            .with_correlation_id("run-7")
            .with_source("trainer")
            .with_metadata("host", "a");
        let receipt = bus.emit_with("a.b", Fields::new().with("loss", 0.5), options).unwrap();
        let (id, attempt, event) = events.recv_timeout(LONG).unwrap();
        assert_eq!((id, attempt), (receipt.id, 1));
        assert_eq!(event.priority(), Priority::Critical);
        assert_eq!(event.value().as_fields().unwrap().get("loss"), Some(&Value::Scalar(0.5)));
        let extra = event.extra().unwrap();
        assert_eq!(extra.correlation_id.as_deref(), Some("run-7"));
        assert_eq!(extra.source.as_deref(), Some("trainer"));
        assert_eq!(extra.metadata.get("host"), Some(&Value::from("a")));
        let next = bus.emit("a.b", ()).unwrap();
        assert!(next.id > receipt.id);
        bus.flush().unwrap();
        law(&bus, 2);
    });
}

#[test]
fn emit_sync_returns_when_the_handlers_of_this_event_have_run() {
    both(|bus| {
        let calls = Arc::new(AtomicU64::new(0));
        for _ in 0..3 {
            let calls = Arc::clone(&calls);
            bus.on("a.b", move |_| _ = calls.fetch_add(1, Ordering::SeqCst)).unwrap().keep();
        }
        let broken = Handler::new("a.b", |_| Err(forebay_bus::HandlerError::new("no").permanent()));
        bus.subscribe(broken).unwrap().keep();
        for round in 1..=100 {
            let receipt = bus.emit_sync("a.b", ()).unwrap();
            assert_eq!(calls.load(Ordering::SeqCst), 3 * round);
            let made = receipt.calls.unwrap();
            assert_eq!((made.handled, made.failed, made.cancelled), (3, 1, 0));
        }
        // Nobody listens.
        assert_eq!(bus.emit_sync("c.d", ()).unwrap().calls, Some(Calls::default()));
        law(&bus, 101);
    });
}

#[test]
fn emit_sync_does_not_wait_for_other_events_nor_for_a_batch_to_fill() {
    let config = BusConfig::default();
    let collector = config.collector.clone().with_flush(FlushStrategy::Manual);
    let bus = Bus::builder().config(config.with_collector(collector)).start().unwrap();
    let gate = support::Gate::closed();
    let own = gate.clone();
    bus.on("slow.one", move |_| own.pass()).unwrap().keep();
    bus.emit("slow.one", ()).unwrap();
    let seen = see(&bus, "a.b");
    assert_eq!(bus.emit_sync("a.b", ()).unwrap().calls.unwrap().handled, 1);
    assert_eq!(seen.all().len(), 1);
    gate.await_arrivals(1);
    gate.open();
    bus.flush().unwrap();
    law(&bus, 2);
}

#[test]
fn emit_sync_in_a_handler_enqueues() {
    both(|bus| {
        let (sender, reported) = mpsc::channel();
        let emitter = bus.clone();
        let seen = see(&bus, "derived.one");
        let before = seen.clone();
        let id = bus
            .on("a.b", move |_| {
                let receipt = emitter.emit_sync("derived.one", ()).unwrap();
                sender.send((receipt.outcome, receipt.calls, before.all().len())).unwrap();
            })
            .unwrap()
            .keep();
        bus.emit_sync("a.b", ()).unwrap();
        let (outcome, calls, _) = reported.recv_timeout(LONG).unwrap();
        assert_eq!((outcome, calls), (Outcome::Queued, None));
        until("the derived event is handled", || seen.all().len() == 1);
        bus.flush().unwrap();
        law(&bus, 2);
        bus.unsubscribe(id);
    });
}

#[test]
fn a_handler_is_unsubscribed_by_the_drop_of_its_guard_or_by_its_number_and_numbers_are_not_used_again() {
    both(|bus| {
        let calls = Arc::new(AtomicU64::new(0));
        let count = || {
            let calls = Arc::clone(&calls);
            move |_: &forebay_bus::Delivery| _ = calls.fetch_add(1, Ordering::SeqCst)
        };
        let guard = bus.on("a.b", count()).unwrap();
        let first = guard.id();
        bus.emit_sync("a.b", ()).unwrap();
        drop(guard);
        bus.emit_sync("a.b", ()).unwrap();
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        let second = bus.on("a.b", count()).unwrap().keep();
        assert!(second > first);
        bus.emit_sync("a.b", ()).unwrap();
        assert!(bus.unsubscribe(second));
        assert!(!bus.unsubscribe(second) && !bus.unsubscribe(first), "gone is gone");
        bus.emit_sync("a.b", ()).unwrap();
        assert_eq!(calls.load(Ordering::SeqCst), 2);
        let mut numbers = std::collections::HashSet::from([first, second]);
        for _ in 0..100 {
            assert!(numbers.insert(bus.on("a.b", count()).unwrap().id()));
        }
        let stats = law(&bus, 4);
        assert_eq!((stats.gone.matched, stats.gone.handled), (2, 2));
    });
}

#[test]
fn no_call_begins_after_unsubscribe_has_returned() {
    // The one worker stands in a call; four events wait behind it, and whoever delivers waits with the others.
    let config = BusConfig::default().with_workers(1).with_handler_queue(4);
    let bus = Bus::builder().config(config).start().unwrap();
    let gate = support::Gate::closed();
    let (own, calls) = (gate.clone(), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&calls);
    let id = bus
        .on("a.b", move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            own.pass();
        })
        .unwrap()
        .keep();
    // The first call has begun before others wait: what it takes out then would make space, but not enough to be reported.
    bus.emit("a.b", ()).unwrap();
    gate.await_arrivals(1);
    for _ in 0..9 {
        bus.emit("a.b", ()).unwrap();
    }
    until("its queue is full", || bus.stats().handlers[0].in_flight == 5);
    assert!(bus.unsubscribe(id));
    gate.open();
    bus.flush().unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    let stats = law(&bus, 10);
    assert_eq!((stats.gone.handled, stats.gone.cancelled), (1, 4));
}

#[test]
fn unsubscribe_and_wait_waits_for_the_call_that_runs() {
    let bus = Bus::new().unwrap();
    let gate = support::Gate::closed();
    let (own, is_over) = (gate.clone(), Arc::new(AtomicU64::new(0)));
    let over = Arc::clone(&is_over);
    let id = bus
        .on("a.b", move |_| {
            own.pass();
            over.store(1, Ordering::SeqCst);
        })
        .unwrap()
        .keep();
    bus.emit("a.b", ()).unwrap();
    gate.await_arrivals(1);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            assert!(bus.unsubscribe_and_wait(id, LONG));
            is_over.load(Ordering::SeqCst)
        });
        until("it is unsubscribed", || bus.stats().handlers.is_empty());
        gate.open();
        assert_eq!(waiting.join().unwrap(), 1);
    });
    law(&bus, 1);
}

#[test]
fn filters_decide_by_name_priority_data_or_a_function_and_can_be_taken_out() {
    both(|bus| {
        let seen = see(&bus, "*");
        let emit = |bus: &Bus| {
            let mut outcomes = Vec::new();
            let fields = Fields::new().with("important", true);
            outcomes.push(bus.emit("training.completed", fields).unwrap().outcome);
            outcomes.push(bus.emit("training.debug", ()).unwrap().outcome);
            let low = EmitOptions::new().with_priority(Priority::Low);
            outcomes.push(bus.emit_with("training.low", (), low).unwrap().outcome);
            outcomes.iter().map(|outcome| u8::from(*outcome == Outcome::Queued)).collect::<Vec<_>>()
        };
        let is_true = |value: Option<&Value>| value == Some(&Value::Bool(true));
        for (filter, expected) in [
            (Filter::allow(["training.c*", "training.low"]), [1, 0, 1]),
            (Filter::deny(["*.debug"]), [1, 0, 1]),
            (Filter::min_priority(Priority::Normal), [1, 1, 0]),
            (Filter::data("important", is_true), [1, 0, 0]),
            (Filter::new(|event| event.name().len() < 13), [0, 0, 1]),
        ] {
            let id = bus.add_filter(filter);
            assert_eq!(emit(&bus), expected);
            assert!(bus.remove_filter(id) && !bus.remove_filter(id));
        }
        assert_eq!(emit(&bus), [1, 1, 1]);
        bus.flush().unwrap();
        let stats = law(&bus, 18);
        assert_eq!((stats.filtered, seen.all().len()), (7, 11));
    });
}

#[test]
fn a_filter_of_a_handler_is_its_own_and_one_that_panics_lets_in() {
    support::hush();
    both(|bus| {
        let (some, all) = (Seen::default(), see(&bus, "*"));
        let own = some.clone();
        let broken = Filter::new(|_| panic!("on purpose"));
        let handler = Handler::new("*", move |event| own.push(event.name()));
        bus.subscribe(handler.filter(Filter::deny(["*.b"])).filter(broken)).unwrap().keep();
        bus.emit("a.b", ()).unwrap();
        bus.emit("a.c", ()).unwrap();
        bus.flush().unwrap();
        assert_eq!(
            (some.all(), all.sorted()),
            (vec!["a.c".to_owned()], vec!["a.b".to_owned(), "a.c".to_owned()])
        );
        law(&bus, 2);
    });
}

#[test]
fn what_came_is_asked_for_by_query_and_by_correlation() {
    both(|bus| {
        {
            let _outer = correlate("outer");
            bus.emit("a.one", 1).unwrap();
            {
                let _inner = correlate("inner");
                bus.emit("a.two", 2).unwrap();
                let own = EmitOptions::new().with_correlation_id("own");
                bus.emit_with("a.three", 3, own).unwrap();
            }
            bus.emit("a.four", 4).unwrap();
            // Other threads have their own.
            std::thread::scope(|scope| _ = scope.spawn(|| bus.emit("a.five", 5).unwrap()));
        }
        bus.emit("a.six", Fields::new().with("epoch", 5)).unwrap();
        bus.flush().unwrap();
        let names = |id: &str| -> Vec<String> {
            bus.correlated(id).unwrap().iter().map(|record| record.name().to_owned()).collect()
        };
        assert_eq!(names("outer"), ["a.one", "a.four"]);
        assert_eq!((names("inner"), names("own")), (vec!["a.two".to_owned()], vec!["a.three".to_owned()]));
        assert_eq!(bus.query(&EventQuery::new().contains("epoch", 5)).unwrap().len(), 1);
        assert_eq!(bus.query(&EventQuery::new()).unwrap().len(), 6);
        law(&bus, 6);
    });
}

#[test]
fn a_flush_covers_what_handlers_have_emitted_down_to_the_end_of_the_chain() {
    both(|bus| {
        let emitter = bus.emitter();
        bus.on("count.down", move |event| {
            let left = event.value().as_i64().unwrap();
            if left > 0 {
                emitter.emit("count.down", left - 1).unwrap();
            }
        })
        .unwrap()
        .keep();
        for _ in 0..20 {
            bus.emit("count.down", 16).unwrap();
            bus.flush().unwrap();
            assert_eq!(bus.stats().handlers[0].handled % 17, 0);
        }
        assert_eq!(law(&bus, 20 * 17).handlers[0].handled, 20 * 17);
    });
}

#[test]
fn a_derived_event_belongs_to_what_the_one_before_belongs_to() {
    both(|bus| {
        let emitter = bus.emitter();
        bus.on("a.b", move |_| _ = emitter.emit("derived.one", ()).unwrap()).unwrap().keep();
        bus.emit_with("a.b", (), EmitOptions::new().with_correlation_id("run-7")).unwrap();
        until("both are there", || bus.correlated("run-7").unwrap().len() == 2);
        bus.flush().unwrap();
        law(&bus, 2);
    });
}

#[test]
fn a_journal_is_written_rotated_and_asked() {
    for is_inline in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let mut builder = Bus::builder().journal_with(&path, 2_000).unwrap();
        if is_inline {
            builder = builder.inline();
        }
        let bus = builder.start().unwrap();
        for step in 0..200 {
            bus.emit_record(Record::scalar("train.loss", 0.5).with_step(step)).unwrap();
            if step % 10 == 0 {
                bus.flush().unwrap();
            }
        }
        bus.flush().unwrap();
        assert!(std::fs::read_dir(folder.path()).unwrap().count() > 2, "closed files");
        let steps = bus.query(&EventQuery::new().steps(50..60)).unwrap();
        assert_eq!(steps.iter().filter_map(Record::step).collect::<Vec<_>>(), (50..60).collect::<Vec<_>>());
        law(&bus, 200);
        bus.stop().unwrap();
        // What a bus leaves, the next one goes on with.
        let next = Bus::builder().journal(&path).unwrap().start().unwrap();
        assert_eq!(next.query(&EventQuery::new()).unwrap().len(), 200);
    }
}

#[test]
fn names_that_break_the_rule_are_refused_and_counted() {
    both(|bus| {
        let long = "x".repeat(201);
        let bad = ["", ".", "a.", ".a", "a..b", "a b", "a.*", "ä.b", "a/b", &long];
        for name in bad {
            let refused = bus.emit(name.to_owned(), ()).unwrap_err();
            let EmitError::Config(ConfigError::Invalid { field, value, .. }) = refused else {
                panic!("{refused:?}")
            };
            assert_eq!((field, value), ("name", format!("{name:?}")));
        }
        for name in ["a", "a.b", "A-1.b_2.c", &"x".repeat(200)] {
            bus.emit(name.to_owned(), ()).unwrap();
        }
        // Nor can anybody wait for them.
        for topic in ["a b", "a..b", ""] {
            assert!(matches!(bus.on(topic, |_| ()), Err(SubscribeError::Config(_))), "{topic:?}");
        }
        bus.flush().unwrap();
        assert_eq!(law(&bus, 14).misnamed, 10);
    });
}

#[test]
fn a_thousand_subscribers_and_not_one_more() {
    both(|bus| {
        let calls = Arc::new(AtomicU64::new(0));
        let mut guards: Vec<_> = (0..1_000)
            .map(|_| {
                let calls = Arc::clone(&calls);
                bus.on("a.b", move |_| _ = calls.fetch_add(1, Ordering::SeqCst)).unwrap()
            })
            .collect();
        let refused = bus.on("a.b", |_| ()).unwrap_err();
        assert_eq!(refused, SubscribeError::TooMany { max: 1_000 });
        assert_eq!(bus.emit_sync("a.b", ()).unwrap().calls.unwrap().handled, 1_000);
        assert_eq!(calls.load(Ordering::SeqCst), 1_000);
        guards.pop();
        guards.push(bus.on("a.b", |_| ()).unwrap());
        law(&bus, 1);
    });
}

#[test]
fn settings_outside_of_what_is_allowed_are_named() {
    let broken = [
        (BusConfig::default().with_workers(0), "workers"),
        (BusConfig::default().with_workers(257), "workers"),
        (BusConfig::default().with_max_subscribers(0), "max_subscribers"),
        (BusConfig::default().with_handler_queue(0), "handler_queue"),
        (BusConfig::default().with_handler_bytes(0), "handler_bytes"),
        (BusConfig::default().with_dead_letters(0), "dead_letters"),
        (BusConfig::default().with_deadline(Duration::ZERO), "deadline"),
    ];
    for (config, wrong) in broken {
        let ConfigError::Invalid { field, .. } = config.validate().unwrap_err() else { panic!() };
        assert_eq!(field, wrong);
        assert!(Bus::builder().config(config).start().is_err());
    }
    for fine in [BusConfig::default(), BusConfig::development(), BusConfig::production()] {
        fine.validate().unwrap();
    }
    assert_eq!(BusConfig::development().workers, 2);
    assert_eq!(BusConfig::production().workers, 8);
    assert_eq!(BusConfig::production().collector.capacity, 50_000);
    let bus = Bus::new().unwrap();
    assert!(bus.scale_workers(0).is_err());
    assert!(bus.subscribe(Handler::new("a.b", |_| ()).max_concurrent(0)).is_err());
    assert!(bus.subscribe(Handler::new("a.b", |_| ()).deadline(Duration::ZERO)).is_err());
    assert!(bus.subscribe(Handler::new(Vec::<&str>::new(), |_| ())).is_err());
}

#[test]
fn buses_with_the_largest_and_the_smallest_numbers() {
    for large in [1, usize::MAX] {
        for long in [Duration::from_nanos(1), Duration::MAX] {
            let config = BusConfig::default()
                .with_workers(1)
                .with_max_subscribers(large)
                .with_handler_queue(large)
                .with_handler_bytes(large as u64)
                .with_retry(RetryPolicy::fixed(Duration::ZERO, 2).max_elapsed(long))
                .with_deadline(long)
                .with_dead_letters(large)
                .with_max_depth(large as u32);
            for mode in [Mode::Pooled, Mode::Inline] {
                let bus = Bus::builder().config(config.clone().with_mode(mode)).start().unwrap();
                let fails = |_: &Delivery| Err::<(), _>(HandlerError::new("no").permanent());
                let _subscribed =
                    bus.subscribe(Handler::new("*", fails).max_concurrent(large).deadline(long)).unwrap();
                for step in [0, u64::MAX] {
                    bus.emit_record(Record::scalar("x", 0.5).with_step(step)).unwrap();
                }
                bus.flush().unwrap();
                bus.redrive(Some(large as u32));
                bus.flush().unwrap();
                // A call that is overdue at once is reported by an event of the bus, which matches too. It may come after the flush.
                until("every event has matched", || {
                    let stats = bus.stats();
                    stats.handlers[0].matched == 2 + stats.own
                });
                bus.stop().unwrap();
                bus.stats().check_law(2).unwrap();
            }
        }
    }
}

#[test]
fn as_many_calls_run_at_once_as_there_are_workers_and_no_more_than_a_handler_allows() {
    let bus = Bus::builder().workers(4).start().unwrap();
    let barrier = Arc::new(Barrier::new(4));
    let own = Arc::clone(&barrier);
    bus.on("all.at_once", move |_| _ = own.wait()).unwrap().keep();
    let running = Arc::new(AtomicU64::new(0));
    let alone = Handler::new("one.by_one", move |_| {
        assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0);
        std::thread::yield_now();
        running.fetch_sub(1, Ordering::SeqCst);
    });
    bus.subscribe(alone.max_concurrent(1)).unwrap().keep();
    for _ in 0..100 {
        bus.emit("all.at_once", ()).unwrap();
        bus.emit("one.by_one", ()).unwrap();
    }
    bus.flush().unwrap();
    let stats = law(&bus, 200);
    assert!(stats.handlers.iter().all(|handler| handler.handled == 100), "{stats:?}");
}

#[test]
fn order_is_kept_for_every_name_where_that_is_asked_for() {
    let bus = Bus::builder().workers(4).start().unwrap();
    let seen = Arc::new(Mutex::new(std::collections::HashMap::<String, Vec<i64>>::new()));
    let own = Arc::clone(&seen);
    let handler = Handler::new("order.*", move |event| {
        let number = event.value().as_i64().unwrap();
        // Time for others to overtake.
        (0..number % 7).for_each(|_| std::thread::yield_now());
        own.lock().unwrap().entry(event.name().to_owned()).or_default().push(number);
    });
    bus.subscribe(handler.ordered()).unwrap().keep();
    for number in 0..2_000 {
        bus.emit(["order.a", "order.b", "order.c"][number % 3], number).unwrap();
    }
    bus.flush().unwrap();
    for (name, numbers) in &*seen.lock().unwrap() {
        assert!(numbers.is_sorted(), "{name}");
    }
    assert_eq!(law(&bus, 2_000).handlers[0].handled, 2_000);
}

#[test]
fn critical_events_come_first_and_low_ones_are_not_starved() {
    let bus = Bus::builder().workers(1).start().unwrap();
    let gate = support::Gate::closed();
    let own = gate.clone();
    bus.on("first.one", move |_| own.pass()).unwrap().keep();
    let (usual, urgent) = (Seen::default(), Seen::default());
    let (all, other) = (usual.clone(), usual.clone());
    let order = urgent.clone();
    bus.on("event.*", move |event| all.push(event.name())).unwrap().keep();
    bus.on("other.*", move |event| {
        other.push(event.name());
        order.push(event.name());
    })
    .unwrap()
    .keep();
    bus.emit("first.one", ()).unwrap();
    gate.await_arrivals(1);
    let emit = |name: &'static str, priority| {
        bus.emit_with(name, (), EmitOptions::new().with_priority(priority)).unwrap();
    };
    (0..3).for_each(|_| emit("event.low", Priority::Low));
    (0..6).for_each(|_| emit("event.normal", Priority::Normal));
    let _ = bus.collector().flush().unwrap();
    emit("event.critical", Priority::Critical);
    emit("other.critical", Priority::Critical);
    let _ = bus.collector().flush().unwrap();
    gate.open();
    bus.flush().unwrap();
    let usual: Vec<String> = usual.all().iter().map(|name| name.replace("event.", "")).collect();
    assert_eq!(usual[0], "critical");
    let place = usual.iter().position(|name| name == "other.critical").unwrap();
    assert!(place <= 2, "an urgent handler does not wait for the burst of another: {usual:?}");
    let rest: Vec<&str> =
        usual.iter().map(String::as_str).filter(|name| !name.contains("critical")).collect();
    assert_eq!(rest, ["normal", "normal", "low", "normal", "normal", "low", "normal", "normal", "low"]);
    law(&bus, 12);
}

#[test]
fn a_handler_is_called_with_a_burst_of_its_events_once_no_critical_one_waits() {
    let bus = Bus::builder().workers(1).start().unwrap();
    let gate = support::Gate::closed();
    let (own, seen) = (gate.clone(), Seen::default());
    bus.on("first.one", move |_| own.pass()).unwrap().keep();
    for topic in ["usual.a", "usual.b"] {
        let own = seen.clone();
        bus.on(topic, move |event| own.push(event.name())).unwrap().keep();
    }
    bus.emit_with("first.one", (), EmitOptions::new().with_priority(Priority::Critical)).unwrap();
    gate.await_arrivals(1);
    (0..3).for_each(|_| ["usual.a", "usual.b"].iter().for_each(|name| _ = bus.emit(*name, ()).unwrap()));
    let _ = bus.collector().flush().unwrap();
    gate.open();
    bus.flush().unwrap();
    assert_eq!(seen.all(), ["usual.a", "usual.a", "usual.a", "usual.b", "usual.b", "usual.b"]);
    law(&bus, 7);
}

#[test]
fn a_handler_with_a_critical_event_comes_before_all_others() {
    let bus = Bus::builder().workers(1).start().unwrap();
    let gate = support::Gate::closed();
    let (own, seen) = (gate.clone(), Seen::default());
    bus.on("first.one", move |_| own.pass()).unwrap().keep();
    for topic in ["usual.a", "usual.b", "usual.c", "urgent.d"] {
        let own = seen.clone();
        bus.on(topic, move |event| own.push(event.name())).unwrap().keep();
    }
    bus.emit("first.one", ()).unwrap();
    gate.await_arrivals(1);
    ["usual.a", "usual.b", "usual.c"].iter().for_each(|name| _ = bus.emit(*name, ()).unwrap());
    let _ = bus.collector().flush().unwrap();
    bus.emit_with("urgent.d", (), EmitOptions::new().with_priority(Priority::Critical)).unwrap();
    let _ = bus.collector().flush().unwrap();
    gate.open();
    bus.flush().unwrap();
    assert_eq!(seen.all(), ["urgent.d", "usual.a", "usual.b", "usual.c"]);
    law(&bus, 5);
}

#[test]
fn the_metrics_report_what_happened() {
    both(|bus| {
        bus.on("a.b", |_| ()).unwrap().keep();
        for _ in 0..10 {
            bus.emit("a.b", ()).unwrap();
        }
        bus.flush().unwrap();
        let metrics = bus.metrics();
        assert_eq!((metrics.total_events, metrics.queue.processed, metrics.queue.len), (10, 10, 0));
        assert!(metrics.events_per_second > 0.0 && metrics.processing_time_p99 > Duration::ZERO);
        assert_eq!((metrics.retry.total, metrics.retry.dead_letters), (0, 0));
        assert!((metrics.retry.success_rate - 1.0).abs() < 1e-9);
        assert_eq!(bus.health().status, forebay::stats::HealthStatus::Healthy);
        bus.stop().unwrap();
        assert_eq!(bus.health().status, forebay::stats::HealthStatus::Unhealthy);
        law(&bus, 10);
    });
}

#[test]
fn the_defaults_are_those_of_the_documents() {
    let config = BusConfig::default();
    assert_eq!((config.workers, config.max_subscribers, config.handler_queue), (4, 1_000, 1_000));
    assert_eq!((config.dead_letters, config.handler_bytes, config.max_depth), (1_000, 50 << 20, 16));
    assert_eq!((config.collector.capacity, config.collector.max_bytes), (10_000, Some(50 << 20)));
    let bus = Bus::builder().inline().start().unwrap();
    assert_eq!(bus.emit("large", "x".repeat(4_500)).unwrap().outcome, Outcome::Queued);
    assert_eq!(bus.emit("large", "x".repeat(5_120)).unwrap().outcome, Outcome::Oversize, "5 KiB an event");
    bus.stop().unwrap().stats.check_law(2).unwrap();
}

type Received = Arc<Mutex<Vec<Record>>>;

/// Keeps what comes.
fn keep(bus: &Bus, topics: &str) -> Received {
    let received = Received::default();
    let kept = Arc::clone(&received);
    bus.on(topics, move |event| kept.lock().unwrap().push(Record::clone(event))).unwrap().keep();
    received
}

#[test]
fn a_handler_gets_an_event_with_its_fields() {
    let bus = Bus::new().unwrap();
    let received = keep(&bus, "test.*");
    bus.emit("test.example", Fields::new().with("key", "value")).unwrap();
    bus.flush().unwrap();
    let received = received.lock().unwrap();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].name(), "test.example");
    assert_eq!(received[0].value().as_fields(), Some(&Fields::new().with("key", "value")));
    bus.stop().unwrap().stats.check_law(1).unwrap();
}

#[test]
fn a_filter_of_the_bus_decides_by_a_field() {
    let bus = Bus::new().unwrap();
    let is_important = |event: &Record| {
        event.value().as_fields().and_then(|fields| fields.get("important")?.as_bool()).unwrap_or(false)
    };
    bus.add_filter(Filter::new(is_important));
    let received = keep(&bus, "test.*");
    _ = bus.emit("test.filtered", Fields::new().with("important", false));
    bus.emit("test.important", Fields::new().with("important", true)).unwrap();
    bus.flush().unwrap();
    let received = received.lock().unwrap();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].name(), "test.important");
    bus.stop().unwrap().stats.check_law(2).unwrap();
}
