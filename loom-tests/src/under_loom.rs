//! How loom visits the schedules of a model.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Does nothing: loom needs no preparation.
pub fn prepare() {}

/// Visits all schedules with at most `bound` preemptions that loom does not skip. There must be at least `floor` of them, and, if the
/// bound is the normal one, at most twice as many.
#[track_caller]
pub fn visit(name: &str, bound: usize, floor: u64, is_normal: bool, body: impl Fn() + Send + Sync + 'static) {
    let executions = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    limits(bound).check({
        let executions = executions.clone();
        move || {
            executions.fetch_add(1, Ordering::Relaxed);
            body();
        }
    });
    let executions = executions.load(Ordering::Relaxed);
    println!(
        "{name:<58} bound {bound}  {executions:>9} executions  {:>6.1} s",
        begun.elapsed().as_secs_f64()
    );
    assert!(executions >= floor, "{name}: only {executions} executions, expected at least {floor}");
    let better = executions * 3 / 4;
    assert!(
        !is_normal || executions <= 2 * floor,
        "{name}: {executions} executions, raise the floor to {better}"
    );
}

/// Returns loom's settings of a model. Each limit is set here: loom reads those that are left alone from the environment,
/// and one that ends a model early (LOOM_MAX_PERMUTATIONS, LOOM_MAX_DURATION) ends it as if it had passed.
fn limits(bound: usize) -> loom::model::Builder {
    let mut limits = loom::model::Builder::new();
    limits.preemption_bound = Some(bound);
    limits.max_threads = 5;
    limits.max_branches = 100_000;
    limits.max_permutations = None;
    limits.max_duration = None;
    limits.checkpoint_file = None;
    limits.expect_explicit_explore = false;
    limits
}
