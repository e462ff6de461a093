//! The number of workers follows the load.

use std::time::Duration;

use crate::common::{law, once};
use crate::support::{Gate, until};
use forebay::ManualClock;
use forebay_bus::{Bus, Scaling};

#[test]
fn the_number_of_workers_follows_the_load_and_the_hand() {
    let clock = ManualClock::new();
    let scaling = Some(Scaling::default());
    let config = once().with_workers(2).with_scaling(scaling).with_deadline(Duration::from_secs(3_600));
    let bus = Bus::builder().config(config).manual_clock(&clock).start().unwrap();
    let gate = Gate::closed();
    let own = gate.clone();
    bus.on("a.b", move |_| own.pass()).unwrap().keep();
    let looked = |is_there: fn(u64) -> bool| {
        // The first look only begins the window, so the clock is moved until the number changes.
        until("the number of workers changes", || {
            clock.advance(Duration::from_secs(1));
            is_there(bus.worker_stats().target)
        });
    };
    for _ in 0..8 {
        bus.emit("a.b", ()).unwrap();
    }
    gate.await_arrivals(2);
    looked(|workers| workers >= 4);
    gate.await_arrivals(4);
    looked(|workers| workers == 8);
    gate.await_arrivals(8);
    assert_eq!(bus.worker_stats().active, 8);
    gate.open();
    bus.flush().unwrap();
    looked(|workers| workers == 2);
    until("the others have gone", || bus.worker_stats().total == 2);
    bus.stop().unwrap();
    law(&bus, 8);
    // By hand, where nobody else changes it.
    let bus = Bus::builder().workers(2).start().unwrap();
    bus.scale_workers(5).unwrap();
    until("there are five", || bus.worker_stats().total == 5);
    bus.scale_workers(1).unwrap();
    until("there is one", || bus.worker_stats().total == 1);
    bus.stop().unwrap();
    law(&bus, 0);
}

#[test]
fn the_decision_to_scale_is_one_of_numbers() {
    let scaling = Scaling::default();
    let cases = [
        (2, 0.81, 4),
        (4, 0.81, 8),
        (5, 0.9, 8),
        (8, 1.0, 8),
        (2, 0.8, 2),
        (8, 0.2, 8),
        (8, 0.19, 4),
        (4, 0.0, 2),
        (3, 0.0, 2),
        (2, 0.0, 2),
        (1, 0.5, 2),
        (100, 0.5, 8),
        (4, f64::NAN, 4),
        (usize::MAX, f64::INFINITY, 8),
    ];
    for (workers, utilization, expected) in cases {
        assert_eq!(scaling.decide(workers, utilization), expected, "{workers} at {utilization}");
    }
}
