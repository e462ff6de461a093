//! Ten thousand lives of a collector leave no thread, no descriptor and no byte behind.

use std::sync::atomic::Ordering;

use crate::allocator::{IN_USE, turn};
use crate::support::*;
use forebay::sink::{JsonLinesSink, from_fn};
use forebay::{Batch, Collector, Record};

fn entries(folder: &str) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

/// Returns the threads, descriptors and bytes that are in use. A thread that was joined may be listed a moment longer.
fn in_use(threads: usize) -> (usize, usize) {
    until("the threads that ended are gone", || entries("/proc/self/task") <= threads);
    (entries("/proc/self/fd"), IN_USE.load(Ordering::Relaxed))
}

// Alone, so that no other test allocates beside it.
#[test]
fn ten_thousand_starts_and_stops_leave_nothing_behind() {
    let _turn = turn();
    alone!();
    let threads = entries("/proc/self/task");

    // One collector that is started again and again.
    let collector = ticks().capacity(16).sink(from_fn("null", |_: &Batch<Tick>| Ok(()))).build().unwrap();
    let life = |round: u64| {
        collector.start().unwrap();
        collector.collect(tick(round));
        collector.collect(critical(round));
        collector.stop().unwrap();
    };
    // Buffers grow to their size in the first lives.
    (0..100).for_each(life);
    let before = in_use(threads);
    (100..10_100).for_each(life);
    assert_eq!(in_use(threads), before, "descriptors and bytes");
    law(&collector, 2 * 10_100);
    drop(collector);

    // Collectors that are built, stopped or just dropped, one after the other.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let life = |round: usize| {
        let sink = JsonLinesSink::create(&path).unwrap();
        let collector = Collector::builder().capacity(64).sink(sink).start().unwrap();
        for step in 0..3 {
            collector.collect(Record::scalar("train.loss", 0.5).with_step(step).with_source("leaks"));
        }
        collector.collect_batch((0..100).map(|step| Record::text("note", "evicts some").with_step(step)));
        if round.is_multiple_of(2) {
            collector.stop().unwrap();
            law(&collector, 103);
        }
    };
    (0..100).for_each(life);
    let before = in_use(threads);
    (0..1_000).for_each(life);
    assert_eq!(in_use(threads), before, "descriptors and bytes");
}
