//! Iterators that tell how long their items take.

use std::time::Duration;

use crate::support::*;
use forebay::event::catalog::{data, system};
use forebay::run::timed;
use forebay::sink::MemorySink;
use forebay::{Collector, ManualClock, Priority, Record};

/// Items that take so many milliseconds of the clock.
fn taking(clock: &ManualClock, millis: &'static [u64]) -> impl Iterator<Item = Vec<u64>> + use<> {
    let clock = clock.clone();
    millis.iter().map(move |took| {
        clock.advance(Duration::from_millis(*took));
        vec![*took; *took as usize]
    })
}

fn number(record: &Record, field: &str) -> f64 {
    record.value().as_fields().unwrap().get(field).unwrap().as_f64().unwrap()
}

#[test]
fn every_item_is_reported_with_its_time_and_size_and_passed_on() {
    let (memory, clock) = (MemorySink::new(), ManualClock::new());
    let collector = Collector::builder().sink(memory.clone()).start().unwrap();
    let mut items =
        timed(taking(&clock, &[3, 0, 20]), &collector, "loader").size(Vec::len).manual_clock(&clock);
    assert_eq!(items.size_hint(), (3, Some(3)));
    for took in [3, 0, 20] {
        // What the loop does with an item is not the time of the next one.
        clock.advance(Duration::from_secs(1));
        assert_eq!(items.next().unwrap().len(), took);
    }
    assert!(items.next().is_none());
    collector.stop().unwrap();
    let reported = memory.events();
    let seen: Vec<_> =
        reported.iter().map(|it| (number(it, "load_time"), number(it, "batch_size"))).collect();
    assert_eq!(seen, [(0.003, 3.0), (0.0, 0.0), (0.02, 20.0)]);
    assert!(reported.iter().all(|it| it.name() == data::BatchLoaded::NAME && it.priority() == Priority::Low));
    law(&collector, 3);
}

#[test]
fn the_first_of_items_that_take_too_long_is_a_bottleneck() {
    let (memory, clock) = (MemorySink::new(), ManualClock::new());
    let collector = Collector::builder().sink(memory.clone()).start().unwrap();
    let items = taking(&clock, &[10, 11, 30, 10, 12]);
    let items = timed(items, &collector, "loader").warn_above(Duration::from_millis(10)).manual_clock(&clock);
    assert_eq!(items.count(), 5);
    collector.stop().unwrap();
    let warnings: Vec<_> = memory.events();
    let warnings = warnings.iter().filter(|it| it.name() == system::BottleneckDetected::NAME);
    let texts: Vec<_> = warnings
        .map(|it| {
            let fields = it.value().as_fields().unwrap();
            assert_eq!(fields.get("component").unwrap().as_str(), Some("loader"));
            assert!(fields.get("suggestions").is_some());
            fields.get("description").unwrap().as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(texts, ["an item took 11ms, more than 10ms", "an item took 12ms, more than 10ms"]);
    law(&collector, 7);
}
