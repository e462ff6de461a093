//! Events that are emitted while others are handled.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use crate::common::{Failing, law, once};
use crate::support::{Gate, LONG, until};
use forebay::sink::from_fn;
use forebay::{Batch, Record, collector::FlushError};
use forebay_bus::{Bus, BusStopError, EmitError, Envelope, Filter, Plugins, watch};

#[test]
fn a_chain_of_events_ends_at_its_greatest_depth() {
    for is_inline in [false, true] {
        let mut builder = Bus::builder();
        if is_inline {
            builder = builder.inline();
        }
        let bus = builder.start().unwrap();
        let (emitter, (sender, ended)) = (bus.emitter(), mpsc::channel());
        bus.on("again.and_again", move |_| {
            if let Err(error) = emitter.emit("again.and_again", ()) {
                sender.send(error).unwrap();
            }
        })
        .unwrap()
        .keep();
        bus.emit("again.and_again", ()).unwrap();
        let error = ended.recv_timeout(LONG).unwrap();
        let name = "again.and_again".to_owned();
        assert_eq!(error, EmitError::TooDeep { name, depth: 17, max: 16 });
        bus.flush().unwrap();
        let stats = law(&bus, 18);
        assert_eq!((stats.too_deep, stats.handlers[0].handled), (1, 17));
    }
}

#[test]
fn calls_that_would_wait_for_themselves_are_refused() {
    let bus = Bus::new().unwrap();
    let (own, (sender, reported)) = (bus.clone(), mpsc::channel());
    let id = bus
        .on("a.b", move |_| {
            assert_eq!(own.flush().unwrap_err(), FlushError::OnWorker);
            assert_eq!(own.stop().unwrap_err(), BusStopError::Inside);
            sender.send(()).unwrap();
        })
        .unwrap()
        .keep();
    bus.emit_sync("a.b", ()).unwrap();
    reported.recv_timeout(LONG).unwrap();
    bus.unsubscribe(id);
    law(&bus, 1);
}

#[test]
fn a_sink_that_emits_and_waits_only_enqueues() {
    for is_inline in [false, true] {
        let place: Arc<Mutex<Option<forebay_bus::Emitter>>> = Arc::default();
        let own = Arc::clone(&place);
        let sink = from_fn("echo", move |batch: &Batch<Envelope>| {
            let emitter = own.lock().unwrap().clone();
            for event in batch.iter().filter(|event| event.name() == "a.b") {
                let echo = Record::with_value("echo.event", event.value().clone());
                emitter.as_ref().unwrap().emit_record(echo).unwrap();
            }
            Ok(())
        });
        let mut builder = Bus::builder().sink(sink);
        if is_inline {
            builder = builder.inline();
        }
        let bus = builder.start().unwrap();
        *place.lock().unwrap() = Some(bus.emitter());
        let seen = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&seen);
        bus.on("echo.event", move |_| _ = count.fetch_add(1, Ordering::SeqCst)).unwrap().keep();
        for _ in 0..10 {
            bus.emit_sync("a.b", ()).unwrap();
        }
        until("all are echoed", || seen.load(Ordering::SeqCst) == 10);
        bus.flush().unwrap();
        law(&bus, 20);
    }
}

#[test]
fn a_flush_covers_what_a_handler_is_about_to_emit() {
    let bus = Bus::builder().config(once()).start().unwrap();
    let (gate, seen) = (Gate::closed(), Arc::new(Mutex::new(Vec::new())));
    let (own, emitter) = (gate.clone(), bus.emitter());
    bus.add_filter(Filter::new(move |event| {
        if event.name() == "derived.one" {
            own.pass();
        }
        true
    }));
    bus.on("a.b", move |_| _ = emitter.emit("derived.one", ())).unwrap().keep();
    let reported = Arc::clone(&seen);
    bus.on("derived.one", move |event| reported.lock().unwrap().push(event.id())).unwrap().keep();
    bus.emit("a.b", ()).unwrap();
    gate.await_arrivals(1);
    std::thread::scope(|scope| {
        let flush = scope.spawn(|| bus.flush().map(|()| seen.lock().unwrap().len()).unwrap());
        until("the flush has begun", || bus.collector().stats().flushes > 0);
        gate.open();
        assert_eq!(flush.join().unwrap(), 1);
    });
    bus.stop().unwrap().stats.check_law(2).unwrap();
}

#[test]
fn events_of_the_bus_that_are_answered_by_what_caused_them_come_to_an_end() {
    for is_inline in [false, true] {
        let builder = Bus::builder().config(once());
        let bus = if is_inline { builder.inline() } else { builder }.start().unwrap();
        let plugins = Plugins::new(&bus);
        plugins.start(Failing).unwrap();
        let (emitter, refused) = (bus.emitter(), Arc::new(Mutex::new(Vec::new())));
        let (own, answers) = (Arc::clone(&refused), AtomicU64::new(0));
        bus.on("plugin.error", move |_| {
            // Were there no end, the test would have one.
            if answers.fetch_add(1, Ordering::SeqCst) < 100 {
                own.lock().unwrap().extend(emitter.emit("a.b", ()).err());
            }
        })
        .unwrap()
        .keep();
        bus.emit("a.b", ()).unwrap();
        bus.flush().unwrap();
        let refused = refused.lock().unwrap().clone();
        // 0, 2, ... 16 are the causes, 1, 3, ... what is reported of them: the last is at 17.
        assert_eq!((refused.len(), bus.dead_letters().len()), (0, 9));
        let stats = bus.stats();
        assert_eq!((stats.too_deep, stats.emitted), (1, 9));
        drop(plugins);
        bus.stop().unwrap().stats.check_law(9).unwrap();
    }
}

#[test]
fn what_a_watcher_reports_is_an_event_of_the_chain_that_it_watches() {
    for is_inline in [false, true] {
        let builder = Bus::builder().config(once().with_max_depth(1));
        let bus = if is_inline { builder.inline() } else { builder }.start().unwrap();
        let watcher = watch::threshold(&bus, "x.*", "value", 1.0).unwrap();
        let (emitter, reported) = (bus.emitter(), Arc::new(Mutex::new(Vec::new())));
        let answers = Arc::clone(&reported);
        bus.on("system.performance_warning", move |_| {
            answers.lock().unwrap().push(emitter.emit("x.one", 2.0))
        })
        .unwrap()
        .keep();
        bus.emit("x.one", 2.0).unwrap();
        bus.flush().unwrap();
        assert!(matches!(reported.lock().unwrap()[..], [Err(EmitError::TooDeep { depth: 2, .. })]));
        drop(watcher);
        bus.stop().unwrap().stats.check_law(2).unwrap();
    }
}
