//! The law under load: several threads, a sink that is slow, and values that panic.

use std::sync::Barrier;

use forebay::sink::{MemorySink, from_fn};
use forebay::{Batch, Collector, Overflow};
use tracing_subscriber::prelude::*;

use crate::support::{audit, hush, law};

const THREADS: u64 = 4;
const EVENTS: u64 = 5_000;

struct PanicsNowAndThen(u64);

impl std::fmt::Debug for PanicsNowAndThen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_multiple_of(100) {
            std::panic::panic_any("on purpose");
        }
        write!(f, "{}", self.0)
    }
}

#[test]
fn every_event_of_several_threads_has_one_fate() {
    hush();
    for overflow in [Overflow::DropOldest, Overflow::DropNewest] {
        let memory = MemorySink::new();
        let slow = from_fn("slow", |batch: &Batch| {
            // Time in which the ring fills.
            std::hint::black_box(batch.iter().map(|event| format!("{event:?}").len()).sum::<usize>());
            Ok(())
        });
        let collector = Collector::builder()
            .capacity(64)
            .overflow(overflow)
            .sink(memory.clone())
            .sink(slow)
            .start()
            .unwrap();
        let (layer, guard) = forebay_tracing::layer(collector.clone());
        let dispatch = tracing::Dispatch::new(tracing_subscriber::registry().with(layer.with_durations()));
        let barrier = Barrier::new(THREADS as usize);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (dispatch, barrier) = (&dispatch, &barrier);
                scope.spawn(move || {
                    tracing::dispatcher::with_default(dispatch, || {
                        barrier.wait();
                        for number in 0..EVENTS {
                            let _span = tracing::info_span!("step", thread).entered();
                            tracing::info!(number, value = ?PanicsNowAndThen(number), "step done");
                            if number.is_multiple_of(50) {
                                tracing::error!(number, "critical");
                            }
                        }
                    });
                });
            }
        });
        let report = guard.stop();
        let offered = THREADS * (2 * EVENTS + EVENTS / 50);
        let stats = law(&collector, offered);
        assert_eq!(report.counts.panicked, THREADS * EVENTS / 100);
        assert_eq!(audit(&memory), stats.evicted);
        assert_eq!(report.lost(), offered - memory.len() as u64);
    }
}
