//! A process that forks: the child's lines are refused at once and counted, and nothing hangs.

use std::sync::atomic::{AtomicBool, Ordering};

use forebay::Collector;
use forebay::sink::MemorySink;
use forebay_log::Logger;

use crate::child::in_child;
use crate::support::{Raise, alone, law};

#[test]
fn in_a_forked_child_lines_are_refused_and_counted_and_it_may_log_by_itself() {
    alone!();
    let memory = MemorySink::new();
    let collector = Collector::builder().sink(memory.clone()).start().unwrap();
    let guard = Logger::new(collector.clone()).install().unwrap();
    let is_over = AtomicBool::new(false);
    let mut sent = 0;
    std::thread::scope(|scope| {
        let loops: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut sent = 0_u64;
                    while !is_over.load(Ordering::Relaxed) {
                        // New targets, whose names are just being kept when a fork comes.
                        log::info!(target: &format!("busy::{sent}"), sent; "busy");
                        sent += 1;
                    }
                    sent
                })
            })
            .collect();
        let raise = Raise(&is_over);
        for _ in 0..50 {
            let status = in_child(|| {
                let before = collector.stats().rejected.forked;
                for number in 0..100 {
                    log::info!(target: &format!("busy::{number}"), number; "of the child");
                }
                log::logger().flush();
                assert_eq!(collector.stats().rejected.forked - before, 100);
                let memory = MemorySink::new();
                let own = Logger::new(Collector::builder().sink(memory.clone()).start().unwrap());
                let guard = own.guard();
                log::info!(logger: own, "of the child alone");
                assert_eq!((guard.stop().stats.processed, memory.len()), (1, 1));
                true
            });
            assert_eq!(status, Some(0), "the child hangs or failed");
        }
        drop(raise);
        sent = loops.into_iter().map(|sender| sender.join().unwrap()).sum();
    });
    let report = guard.stop();
    let stats = law(&collector, sent);
    assert_eq!((report.lost(), stats.rejected.forked), (sent - memory.len() as u64, 0));
    assert!(!memory.events().iter().any(|record| format!("{record:?}").contains("of the child")));
}
