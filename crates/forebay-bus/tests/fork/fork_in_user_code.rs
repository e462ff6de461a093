//! P9 for a bus, where the fork happens inside user code that it calls: a handler, a filter or a sink returns on both sides. What is
//! the parent's is not called, written or dropped in the child. The parent does not notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::child::Forker;
use crate::forking_sink::{self, odd};
use crate::support::alone;
use forebay_bus::{Bus, BusConfig, Filter, Handler, Mode};

#[test]
fn a_sink_that_forks_in_an_inline_bus_is_left_to_the_parent() {
    alone!();
    for call in ["write", "flush"] {
        let forker = forking_sink::Forker::default();
        let config = BusConfig::default().with_mode(Mode::Inline);
        let builder = Bus::builder().config(config).sink(odd(&forker, call)).sink(odd(&forker, "quiet"));
        let bus = builder.start().unwrap();
        let _ = bus.emit("parent", ());
        let flushed = bus.flush();
        if forker.0.load(Ordering::SeqCst) == -1 {
            let is_reported = flushed.is_err() && bus.stop().is_err();
            drop(bus);
            return forker.end_child(is_reported);
        }
        forker.child_has_ended();
        flushed.unwrap();
        bus.stop().unwrap();
    }
}

#[test]
fn every_hook_of_a_bus_may_fork() {
    alone!();
    for hook in ["handler", "filter"] {
        let (forker, calls) = (Forker::default(), Arc::new(AtomicU64::new(0)));
        let bus = Bus::new().unwrap();
        let (own, count) = (forker.clone(), Arc::clone(&calls));
        let end = NotInChild(forker.clone());
        let handler = Handler::new("a.b", move |_| {
            let _held = &end;
            own.must_not_be_child();
            count.fetch_add(1, Ordering::SeqCst);
            if hook == "handler" && own.0.load(Ordering::SeqCst) == 0 {
                own.fork();
            }
        });
        let own = forker.clone();
        let filter = Filter::new(move |_| {
            own.must_not_be_child();
            if hook == "filter" && own.0.load(Ordering::SeqCst) == 0 {
                own.fork();
            }
            true
        });
        let subscription = bus.subscribe(handler.filter(filter)).unwrap();
        for _ in 0..20 {
            bus.emit("a.b", ()).unwrap();
        }
        bus.flush().unwrap();
        assert_eq!(calls.load(Ordering::SeqCst), 20);
        bus.stop().unwrap().stats.check_law(20).unwrap();
        drop((subscription, bus));
        forker.child_has_ended();
    }
}

/// Value that must not be dropped in the child.
struct NotInChild(Forker);

impl Drop for NotInChild {
    fn drop(&mut self) {
        self.0.must_not_be_child();
    }
}
