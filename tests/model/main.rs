//! The whole collector in lock-step with a plain reference: every strategy, overflow policy, priority and kind of
//! sink, under every operation, with the law and the order per producer after every step.
//!
//! A failure shrinks to the shortest list of operations; found seeds are kept in `seeds.txt` beside this file.
#![cfg(feature = "futures")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod cases;
mod lanes;
mod lockstep;
mod primitives;
mod reference;
#[path = "../support/mod.rs"]
mod support;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use cases::{configs, manners, ops, run, with_lanes};
use lockstep::NAMES;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000),
        // A failure may be a worker that never rests, which takes its time each.
        max_shrink_time: 240_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/model/seeds.txt"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_collector_does_what_the_reference_does(
        config in configs(),
        sinks in vec(manners(), 0..=NAMES.len()),
        starts_at_once in any::<bool>(),
        ops in vec(ops(), 1..60),
    ) {
        run(&config, &sinks, starts_at_once, &ops);
    }

    #[test]
    fn lanes_of_threads_do_what_the_reference_does(
        config in with_lanes(configs()),
        sinks in vec(manners(), 0..=NAMES.len()),
        starts_at_once in any::<bool>(),
        ops in vec(ops(), 1..60),
    ) {
        run(&config, &sinks, starts_at_once, &ops);
    }
}
