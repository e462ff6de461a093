//! P9, where the fork happens inside user code that forebay calls on a thread of the user: it returns on both sides. In the child
//! the call returns and says `Forked`; no other sink or event is called, written or dropped there, and no lock is taken.
#![allow(unsafe_code, reason = "fork and waitpid")]

use std::sync::atomic::{AtomicI32, Ordering};

use crate::child::{fork_once, leave_if_child};
use crate::forking_sink::{DROPPED, Forker, odd};
use crate::support::*;
use forebay::collector::{BuildError, FlushError, SinkChangeError, StopError};
use forebay::config::Lanes;
use forebay::sink::MemorySink;
use forebay::{Builder, Collector, Event, Outcome, Record};

#[test]
fn a_sink_that_forks_while_it_is_removed_is_not_dropped_in_the_child_which_learns_it() {
    alone!();
    for call in ["flush", "drop"] {
        let forker = Forker::default();
        let builder = Collector::builder().sink(odd(&forker, call)).sink(odd(&forker, "quiet"));
        let collector = builder.build().unwrap();
        let removed = collector.remove_sink("odd");
        forker.end_child(removed == Err(SinkChangeError::Unanswered(FlushError::Forked)));
        forker.child_has_ended();
        assert_eq!(removed.unwrap().name, "odd", "{call}");
        collector.start().unwrap();
        collector.collect(Record::new("parent"));
        collector.stop().unwrap();
        law(&collector, 1);
    }
}

#[test]
fn a_sink_that_forks_while_it_is_added_is_not_dropped_in_the_child_which_learns_it() {
    alone!();
    for call in ["name", "may_wait", "open"] {
        let forker = Forker::default();
        let collector = Collector::builder().sink(odd(&forker, "quiet")).start().unwrap();
        let added = collector.add_sink(odd(&forker, call));
        forker.end_child(added == Err(SinkChangeError::Unanswered(FlushError::Forked)));
        forker.child_has_ended();
        added.unwrap();
        collector.collect(Record::new("parent"));
        collector.stop().unwrap();
        law(&collector, 1);
    }
}

#[test]
fn a_sink_that_forks_while_its_collector_is_built_is_not_dropped_in_the_child_which_learns_it() {
    alone!();
    for call in ["name", "may_wait", "open"] {
        let forker = Forker::default();
        let builder = Collector::builder();
        let builder = builder.sink(odd(&forker, "quiet")).sink(odd(&forker, call)).sink(MemorySink::new());
        let built = builder.build();
        forker.end_child(matches!(built, Err(BuildError::Forked)));
        forker.child_has_ended();
        let collector = built.unwrap();
        collector.start().unwrap();
        collector.collect(Record::new("parent"));
        collector.stop().unwrap();
        law(&collector, 1);
    }
}

#[test]
fn a_sink_that_forks_while_the_last_handle_ends_leaves_the_other_sinks_to_the_parent() {
    alone!();
    for is_started in [true, false] {
        let forker = Forker::default();
        let builder = Collector::builder().sink(odd(&forker, "drop")).sink(odd(&forker, "quiet"));
        let quiet = odd(&forker, "quiet");
        let builder = builder.enrich(move |_: &mut Record, _| quiet.called("enrich"));
        let collector = builder.build().unwrap();
        if is_started {
            collector.start().unwrap();
            collector.collect(Record::new("parent"));
            collector.stop().unwrap();
            law(&collector, 1);
        }
        drop(collector);
        forker.end_child(true);
        forker.child_has_ended();
    }
}

/// An event that forks in its destructor, or does not; no other may be dropped in the child.
struct Fragile(Forker, bool);

impl Event for Fragile {
    fn name(&self) -> &str {
        "fragile"
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        leave_if_child(&self.0.0, DROPPED);
        if self.1 {
            fork_once(&self.0.0);
        }
    }
}

/// Returns a collector without a worker, and five events in its rings, of which the middle one forks.
fn idle(forker: &Forker) -> Collector<Fragile> {
    let collector = Builder::new().sink(odd(forker, "quiet")).build().unwrap();
    (0..5).for_each(|number| _ = collector.collect(Fragile(forker.clone(), number == 2)));
    collector
}

#[test]
fn an_event_that_forks_while_it_is_discarded_leaves_the_others_to_the_parent() {
    alone!();
    let forker = Forker::default();
    let collector = idle(&forker);
    let stopped = collector.stop();
    forker.end_child(matches!(stopped, Err(StopError::Forked)));
    forker.child_has_ended();
    assert_eq!(stopped.unwrap().left_behind, 5);
    law(&collector, 5);
    let forker = Forker::default();
    drop(idle(&forker));
    forker.end_child(true);
    forker.child_has_ended();
}

/// An event that owns some bytes, and forks in its destructor, or when it is asked how many it owns after it was taken out.
struct Heavy {
    forker: Forker,
    call: &'static str,
    bytes: usize,
    asked: AtomicI32,
}

fn heavy(forker: &Forker, call: &'static str, bytes: usize) -> Heavy {
    Heavy { forker: forker.clone(), call, bytes, asked: AtomicI32::new(0) }
}

impl Event for Heavy {
    fn size_hint(&self) -> usize {
        if self.call == "size" && self.asked.fetch_add(1, Ordering::SeqCst) == 1 {
            fork_once(&self.forker.0);
        }
        size_of::<Self>() + self.bytes
    }

    fn is_too_deep(&self) -> bool {
        if self.call == "deep" {
            fork_once(&self.forker.0);
        }
        false
    }
}

impl Drop for Heavy {
    fn drop(&mut self) {
        // That of the call that forks is the child's as well, which has its own copy refused.
        if self.call != "new" && self.call != "deep" {
            leave_if_child(&self.forker.0, DROPPED);
        }
        if self.call == "drop" {
            fork_once(&self.forker.0);
        }
    }
}

/// Returns a collector without a worker, full of events, of which the first one forks.
fn full_of_bytes(forker: &Forker, call: &'static str) -> Collector<Heavy> {
    let collector = Builder::new().max_bytes(800).build().unwrap();
    for number in 0..5 {
        let call = if number == 0 { call } else { "never" };
        assert_eq!(collector.collect(heavy(forker, call, 100)), Outcome::Queued);
    }
    collector
}

#[test]
fn an_event_that_forks_while_it_makes_space_evicts_nothing_more_in_the_child() {
    alone!();
    for call in ["drop", "size"] {
        let forker = Forker::default();
        let collector = full_of_bytes(&forker, call);
        let outcome = collector.collect(heavy(&forker, "new", 550));
        forker.end_child(outcome == Outcome::Forked);
        forker.child_has_ended();
        assert_eq!(outcome, Outcome::QueuedEvicting);
        collector.stop().unwrap();
        assert_eq!(law(&collector, 6).evicted, 4);
    }
}

#[test]
fn an_event_that_forks_when_it_is_asked_how_deep_it_is_is_refused_in_the_child() {
    alone!();
    for lanes in [Lanes::Shared, Lanes::PerThread { max: 1 }] {
        let forker = Forker::default();
        let collector = Builder::<Heavy>::new().lanes(lanes).build().unwrap();
        let outcome = collector.collect(heavy(&forker, "deep", 100));
        forker.end_child(outcome == Outcome::Forked);
        forker.child_has_ended();
        assert_eq!(outcome, Outcome::Queued);
        collector.stop().unwrap();
        law(&collector, 1);
    }
}

#[test]
fn an_event_that_forks_while_it_is_evicted_is_dropped_by_the_parent_alone_and_so_are_the_others() {
    alone!();
    for (lanes, call) in [
        (Lanes::Shared, "size"),
        (Lanes::Shared, "drop"),
        (Lanes::PerThread { max: 1 }, "size"),
        (Lanes::PerThread { max: 1 }, "drop"),
    ] {
        let forker = Forker::default();
        let collector = Builder::<Heavy>::new().lanes(lanes).capacity(32).build().unwrap();
        let mut events = 0;
        // The first one is evicted first. The child has its event in its own copy of the queue, where nobody takes it out.
        while forker.0.load(Ordering::SeqCst) == 0 {
            let call = if events == 0 { call } else { "never" };
            collector.collect(heavy(&forker, call, 100));
            events += 1;
        }
        forker.end_child(true);
        forker.child_has_ended();
        collector.stop().unwrap();
        assert!(law(&collector, events).evicted > 0, "{lanes:?}, {call}");
    }
}

#[test]
fn an_event_that_forks_while_it_is_taken_out_leaves_the_others_to_the_parent() {
    alone!();
    let forker = Forker::default();
    let collector = full_of_bytes(&forker, "size");
    let stopped = collector.stop();
    forker.end_child(matches!(stopped, Err(StopError::Forked)));
    forker.child_has_ended();
    stopped.unwrap();
    law(&collector, 5);
}
