//! A process that forks: the child's events are refused at once and counted, and nothing hangs.

use std::sync::atomic::{AtomicBool, Ordering};

use forebay::sink::MemorySink;
use forebay::{Builder, Collector};
use forebay_tracing::{Line, LinesSink};
use tracing_subscriber::prelude::*;

use crate::child::in_child;
use crate::support::{Raise, alone, law};

#[test]
fn a_guard_in_a_forked_child_reports_nothing_of_its_parent() {
    alone!();
    let collector = Collector::builder().sink(MemorySink::new()).start().unwrap();
    let (layer, guard) = forebay_tracing::layer(collector.clone());
    let parent = std::process::id();
    let reports = std::sync::Arc::new(AtomicBool::new(false));
    let said = std::sync::Arc::clone(&reports);
    let mut guard = Some(guard.on_stop(move |_| said.store(std::process::id() != parent, Ordering::Relaxed)));
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || tracing::info!("one"));
    let status = in_child(|| {
        drop(guard.take());
        !reports.load(Ordering::Relaxed)
    });
    assert_eq!(status, Some(0), "the child hangs or has reported");
    drop(guard);
    law(&collector, 1);
}

#[test]
fn in_a_forked_child_events_are_refused_and_counted_and_it_may_log_by_itself() {
    alone!();
    let memory = MemorySink::new();
    let collector = Collector::builder().sink(memory.clone()).start().unwrap();
    let (layer, guard) = forebay_tracing::layer(collector.clone());
    let lines = Builder::<Line>::new().sink(LinesSink::new(std::io::sink())).start().unwrap();
    let (writer, line_guard) = forebay_tracing::lines(lines.clone());
    let format = tracing_subscriber::fmt::layer().json().with_writer(writer);
    let subscriber = tracing_subscriber::registry().with(layer.with_durations()).with(format);
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let is_over = AtomicBool::new(false);
    let mut sent = 0;
    std::thread::scope(|scope| {
        let loops: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut sent = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        let _span = tracing::info_span!("busy", sent).entered();
                        tracing::info!(sent, "busy");
                        sent += 1;
                    }
                    sent
                })
            })
            .collect();
        let raise = Raise(&is_over);
        for _ in 0..50 {
            let status = in_child(|| {
                let before = (collector.stats().rejected.forked, lines.stats().rejected.forked);
                for _ in 0..10 {
                    tracing::info!(number = 1, "of the child");
                }
                assert_eq!(collector.stats().rejected.forked - before.0, 10);
                assert_eq!(lines.stats().rejected.forked - before.1, 10);
                // A collector of its own.
                let memory = MemorySink::new();
                let own = Collector::builder().sink(memory.clone()).start().unwrap();
                let (layer, guard) = forebay_tracing::layer(own);
                tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
                    tracing::info!("of the child alone");
                });
                assert_eq!((guard.stop().stats.processed, memory.len()), (1, 1));
                true
            });
            assert_eq!(status, Some(0), "the child hangs or failed");
        }
        drop(raise);
        sent = loops.into_iter().map(|sender| sender.join().unwrap()).sum();
    });
    let report = guard.stop();
    // Each pass is an event, and the record of a span that closes.
    let stats = law(&collector, 2 * sent);
    assert_eq!((report.lost(), stats.rejected.forked), (2 * sent - memory.len() as u64, 0));
    assert!(!memory.events().iter().any(|record| format!("{record:?}").contains("of the child")));
    drop(line_guard);
    law(&lines, sent);
}
