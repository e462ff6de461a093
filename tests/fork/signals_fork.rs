//! P9 with signals, whose list of watchers is that of the process: a forked child watches signals of its own, whatever the
//! threads of its parent are doing with theirs.
#![allow(unsafe_code, reason = "fork and waitpid")]

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::child::in_child;
use crate::support::*;
use forebay::run::Signals;
use forebay::sink::MemorySink;
use forebay::{Collector, Record};

#[test]
fn a_child_watches_signals_of_its_own_while_threads_of_its_parent_begin_and_end_to_do_so() {
    alone!();
    let collector = Collector::builder().sink(MemorySink::new()).start().unwrap();
    let inherited = Cell::new(Some(Signals::builder(&collector).start().unwrap()));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _raise = Raise(&is_over);
        for signal in [libc::SIGHUP, libc::SIGUSR1] {
            let (collector, is_over) = (&collector, &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    drop(Signals::builder(collector).also(signal).start().unwrap());
                }
            });
        }
        for _ in 0..200 {
            let status = in_child(|| {
                drop(inherited.take());
                let own = Collector::builder().sink(MemorySink::new()).start().unwrap();
                let signals = Signals::builder(&own).also(libc::SIGUSR2).start().unwrap();
                own.collect(Record::integer("child", 1));
                assert_eq!(signals.received(), None);
                drop(signals);
                own.stop().unwrap();
                law(&own, 1);
                true
            });
            assert_eq!(status, Some(0), "the child hangs or failed");
        }
    });
    collector.collect(Record::integer("parent", 1));
    collector.stop().unwrap();
    law(&collector, 1);
}
