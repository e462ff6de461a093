//! The model test, `tests/model`, under shuttle: the whole collector in lock-step with a plain reference, in schedules that shuttle chooses
//! and not the system. What would end by a time limit is left out, since none comes here.

#[path = "../../../../tests/model/cases.rs"]
mod cases;
#[path = "../../../../tests/model/lanes.rs"]
mod lanes;
#[path = "../../../../tests/model/lockstep.rs"]
mod lockstep;
mod primitives;
#[path = "../../../../tests/model/reference.rs"]
mod reference;
#[path = "../../../../tests/support/mod.rs"]
mod support;

use cases::{configs, manners, ops, run, with_lanes};
use forebay::{Config, Priority};
use forebay_loom_tests::visit_cases;
use lockstep::{NAMES, Op};
use proptest::collection::vec;
use proptest::prelude::*;
use reference::Manner;

/// Visits some schedules of each of many cases. A failure shrinks to the shortest list of operations.
#[track_caller]
fn check(name: &str, configs: impl Strategy<Value = Config>) {
    let sinks = vec(manners().prop_filter("it collects low events", |manner| *manner != Manner::Reentrant), 0..=NAMES.len());
    let cases = (configs, sinks, any::<bool>(), vec(ops().prop_map(of_one_lane), 1..60));
    visit_cases(name, &cases, |(config, sinks, starts_at_once, ops)| run(config, sinks, *starts_at_once, ops));
}

/// Makes all events normal ones. Which lane has its turn depends on what woke the worker, which looks without a reason here.
fn of_one_lane(mut op: Op) -> Op {
    match &mut op {
        Op::Collect(_, priority) | Op::TryCollect(_, priority) | Op::CollectAsync(_, priority) => *priority = Priority::Normal,
        Op::CollectBatch(events) => events.iter_mut().for_each(|(_, priority)| *priority = Priority::Normal),
        _ => {}
    }
    op
}

#[test]
fn the_collector_does_what_the_reference_does() {
    check("lock-step: the collector", configs());
}

#[test]
fn lanes_of_threads_do_what_the_reference_does() {
    check("lock-step: lanes of threads", with_lanes(configs()));
}
