//! P9: a forked child can build what it needs, whatever the threads of its parent wait for, or are about to wait for: what that
//! goes through is theirs alone.
#![allow(unsafe_code, reason = "fork and waitpid")]

use std::sync::atomic::{AtomicBool, Ordering};

use crate::child::in_child;
use crate::support::*;
use forebay::sink::{MemorySink, SinkExt};
use forebay::{Collector, Outcome, Record};
use forebay_bus::Bus;

/// Returns whether a collector with many threads that wait works in the child, and the parent's refuses.
fn collects(parent: &Collector) -> bool {
    let memory = MemorySink::new();
    let mut builder = Collector::builder().flush(HOURLY).sink(memory.clone());
    for number in 0..12 {
        builder = builder.sink(MemorySink::new().named(format!("isolated {number}")).isolated(8));
    }
    let own = builder.start().unwrap();
    assert_ne!(own.session_id(), parent.session_id());
    (0..100).for_each(|number| _ = own.collect(Record::integer("child", number)));
    let _ = own.flush().unwrap();
    own.stop().unwrap();
    law(&own, 100);
    memory.len() == 100 && parent.collect(Record::integer("child", 0)) == Outcome::Forked
}

fn calls_handlers() -> bool {
    let own = Bus::new().unwrap();
    own.on("a.b", |_| ()).unwrap().keep();
    let handled = own.emit_sync("a.b", ()).unwrap().calls.unwrap().handled;
    own.stop().unwrap().stats.check_law(1).unwrap();
    handled == 1
}

#[test]
fn a_child_can_build_what_it_needs_while_threads_of_its_parent_wait() {
    alone!();
    let collector = Collector::builder().flush(HOURLY).start().unwrap();
    let bus = Bus::new().unwrap();
    bus.on("a.b", |_| ()).unwrap().keep();
    let (is_over, begun) = (AtomicBool::new(false), std::sync::Barrier::new(7));
    let mut emitted = 0;
    std::thread::scope(|scope| {
        let raise = Raise(&is_over);
        let flush = || {
            begun.wait();
            while !is_over.load(Ordering::Relaxed) {
                let _ = collector.flush().unwrap();
            }
        };
        let emit = || {
            begun.wait();
            let calls = (0_u64..).take_while(|_| {
                bus.emit_sync("a.b", ()).unwrap();
                !is_over.load(Ordering::Relaxed)
            });
            calls.count() as u64 + 1
        };
        (0..4).for_each(|_| _ = scope.spawn(flush));
        let emitters = [scope.spawn(emit), scope.spawn(emit)];
        begun.wait();
        // Hundreds of forks, in all.
        for _ in 0..334 {
            assert_eq!(in_child(|| collects(&collector)), Some(0), "a child hangs or failed");
            assert_eq!(in_child(calls_handlers), Some(0), "a child hangs or failed");
        }
        drop(raise);
        emitted = emitters.into_iter().map(|emitter| emitter.join().unwrap()).sum();
    });
    assert_eq!(
        collector.collect(Record::integer("parent", 0)),
        Outcome::Queued,
        "the parent does not notice"
    );
    collector.stop().unwrap();
    law(&collector, 1);
    bus.stop().unwrap().stats.check_law(emitted).unwrap();
}
