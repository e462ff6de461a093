//! P2 for a bus, by bytes: what holds events or errors keeps to its bound, whatever passed through it.

use std::sync::atomic::Ordering;

use crate::allocator::{IN_USE, turn};
use crate::support::*;
use forebay_bus::{Bus, BusConfig, Delivery, Handler, HandlerError};

const MIB: usize = 1 << 20;

/// Runs one test at a time: the counts are of the whole process.
fn alone<R>(body: impl FnOnce() -> R) -> R {
    let _turn = turn();
    body()
}

fn in_use() -> usize {
    IN_USE.load(Ordering::Relaxed)
}

/// Returns settings for large events: a bus takes events of 5 KiB by default.
fn large_events() -> BusConfig {
    let mut config = BusConfig::default();
    config.collector.gate.max_event_bytes = Some(MIB);
    config
}

#[test]
fn a_handler_that_is_behind_holds_its_own_events_and_not_their_batches() {
    alone(|| {
        let gate = Gate::closed();
        let mut config = large_events();
        config.collector.flush = HOURLY;
        let bus = Bus::builder().config(config).workers(2).start().unwrap();
        let slow = gate.clone();
        // It keeps one worker, and leaves one to the other.
        let handler = Handler::new("small", move |_| slow.pass()).max_concurrent(1);
        let small = bus.subscribe(handler).unwrap();
        let all = bus.on("large", |_| ()).unwrap();
        let before = in_use();
        for _ in 0..200 {
            bus.emit("large", "x".repeat(MIB / 2)).unwrap();
            bus.emit("small", 1).unwrap();
            assert!(bus.collector().flush().unwrap().is_clean());
        }
        gate.await_arrivals(1);
        // The history of the bus may hold 50 MiB.
        until_timeout(SOON, "only the small ones are left", || in_use().saturating_sub(before) < 60 * MIB);
        gate.open();
        bus.flush().unwrap();
        drop((small, all));
        let report = bus.stop().unwrap();
        report.stats.check_law(400).unwrap();
        assert_eq!(report.stats.gone.handled, 400);
    });
}

#[test]
fn a_handler_of_rare_events_that_is_behind_does_not_hold_their_batches() {
    alone(|| {
        let gate = Gate::closed();
        let mut config = large_events();
        config.collector.flush = HOURLY;
        config.collector.capacity = 16_384;
        config.collector.batch_size = Some(8_192);
        let bus = Bus::builder().config(config).workers(2).start().unwrap();
        let slow = gate.clone();
        let rare = bus.on("rare.event", move |_| slow.pass()).unwrap();
        let round = || {
            for number in 0..4_000 {
                bus.emit("train.loss", number).unwrap();
            }
            bus.emit("rare.event", 1).unwrap();
            assert!(bus.collector().flush().unwrap().is_clean());
        };
        round();
        gate.await_arrivals(1);
        let before = in_use();
        (0..50).for_each(|_| round());
        let held = in_use().saturating_sub(before);
        gate.open();
        bus.flush().unwrap();
        drop(rare);
        let report = bus.stop().unwrap();
        report.stats.check_law(51 * 4_001).unwrap();
        assert_eq!(report.stats.gone.handled, 51);
        assert!(held < 4 * MIB, "{held}");
    });
}

#[test]
fn the_sinks_of_an_inline_bus_have_50_mib_waiting_at_most() {
    alone(|| {
        let gate = Gate::closed();
        let builder = Bus::builder().config(large_events()).inline();
        let bus = builder.sink(gate.sink()).start().unwrap();
        let before = in_use();
        let held = std::thread::scope(|scope| {
            let first = scope.spawn(|| bus.emit("a.b", ()).unwrap());
            gate.await_arrivals(1);
            (0..240).for_each(|_| _ = bus.emit("a.b", "x".repeat(MIB / 2)).unwrap());
            let held = in_use().saturating_sub(before);
            gate.open();
            first.join().unwrap();
            held
        });
        // The history of the bus may hold as much.
        assert!(held < 110 * MIB, "{held} bytes");
        bus.flush().unwrap();
        let report = bus.stop().unwrap();
        report.stats.check_law(241).unwrap();
        let sink = report.stats.events.sink("gate").unwrap();
        assert_eq!(sink.delivered + sink.evicted, 241);
        assert!((140..=143).contains(&sink.evicted), "{sink:?}");
    });
}

#[test]
fn what_a_handler_says_is_kept_up_to_4_kib() {
    alone(|| {
        let long = "é".repeat(MIB);
        let bus = Bus::builder().inline().start().unwrap();
        let fails = move |_: &Delivery| Err::<(), _>(HandlerError::new(long.clone()).permanent());
        bus.subscribe(Handler::new("a.b", fails)).unwrap().keep();
        bus.emit("a.b", ()).unwrap();
        let stats = bus.stats();
        let kept = stats.handlers[0].last_error.clone().unwrap();
        assert!(kept.len() < 4_200 && kept.ends_with("é…"), "{} bytes", kept.len());
        bus.stop().unwrap().stats.check_law(1).unwrap();
    });
}
