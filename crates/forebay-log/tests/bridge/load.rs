//! The law under load: several threads, and a ring that is too small.

use std::sync::Barrier;

use forebay::sink::MemorySink;
use forebay::{Collector, Overflow};
use forebay_log::Logger;

use crate::support::{audit, law};

const THREADS: u64 = 4;
const LINES: u64 = 5_000;

#[test]
fn every_line_of_several_threads_has_one_fate_and_gaps_tell_what_is_missing() {
    log::set_max_level(log::LevelFilter::Trace);
    for overflow in [Overflow::DropOldest, Overflow::DropNewest] {
        let memory = MemorySink::new();
        let collector =
            Collector::builder().capacity(64).overflow(overflow).sink(memory.clone()).start().unwrap();
        let logger = Logger::new(collector.clone());
        let guard = logger.guard();
        let barrier = Barrier::new(THREADS as usize);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (logger, barrier) = (&logger, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    for number in 0..LINES {
                        log::info!(logger: logger, thread, number; "step done");
                    }
                });
            }
        });
        let report = guard.stop();
        let stats = law(&collector, THREADS * LINES);
        assert_eq!(audit(&memory), stats.evicted);
        assert_eq!(report.lost(), THREADS * LINES - memory.len() as u64);
    }
}
