//! P9: in a forked child, the recorder of its parent hangs nowhere and collects nothing.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forebay::{Collector, sink::MemorySink};
use forebay_metrics::Builder;
use metrics::{counter, describe_counter, histogram, with_local_recorder};

use crate::child::in_child;
use crate::support::*;

#[test]
fn a_child_of_a_busy_parent_neither_hangs_nor_collects() {
    alone!();
    let memory = MemorySink::new();
    let collector = Collector::builder().sink(memory.clone()).start().unwrap();
    let (recorder, sampler) = Builder::new().interval(Duration::from_millis(1)).start(&collector).unwrap();
    let sampler = Mutex::new(Some(sampler));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Tables are half-changed when the fork catches them.
        for thread in 0..2 {
            let (recorder, is_over) = (&recorder, &is_over);
            scope.spawn(move || {
                let mut number = 0_u64;
                while !is_over.load(Ordering::Relaxed) {
                    with_local_recorder(recorder, || {
                        counter!("hits", "key" => format!("{thread} {}", number % 4000)).increment(1);
                        histogram!("sizes").record(number as f64);
                    });
                    number += 1;
                }
            });
        }
        let raise = Raise(&is_over);
        for _ in 0..30 {
            let status = in_child(|| {
                with_local_recorder(&recorder, || {
                    describe_counter!("in the child", "");
                    counter!("in the child").increment(1);
                    counter!("hits", "key" => "0 0").increment(1);
                    histogram!("sizes").record(1.0);
                });
                let sampler = sampler.lock().unwrap().take().unwrap();
                assert_eq!(sampler.sample(), 0);
                drop(sampler);
                true
            });
            assert_eq!(status, Some(0));
        }
        drop(raise);
    });
    drop(sampler);
    collector.stop().unwrap();
    assert!(memory.events().iter().all(|event| event.name() != "in the child"));
    law(&collector, collector.stats().offered);
}
