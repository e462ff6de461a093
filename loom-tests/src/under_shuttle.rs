//! How shuttle visits schedules of a model: random ones, and as many of PCT.

use std::sync::Arc;
use std::time::Instant;

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, Runner};

/// Number of schedules of each kind, unless FOREBAY_SCHEDULES says otherwise: as many as two processors do in two minutes.
const SCHEDULES: usize = 8_000;

/// Number of schedules of each kind of a model of a bus, which costs ten times as much.
const SCHEDULES_OF_BUS: usize = 2_000;

/// Depth of a bug, in the sense of PCT: a thread loses its priority at two places, one less.
///
/// PCT reaches other schedules than an even choice does. The bound of its paper says little here: with seven threads and 300 choices, a
/// schedule finds a bug of this depth with a probability of a millionth at least.
const DEPTH: usize = 3;

/// Lets shuttle set its hook for panics, which writes lines, so that ours comes before it.
pub fn prepare() {
    _ = run(RandomScheduler::new_from_seed(0, 1), Arc::new(|| {}));
}

/// The fewest schedules that show something.
const MIN_SCHEDULES: usize = 100;

/// Visits the schedules of a model. They are the same in every run, but for another FOREBAY_SEED.
#[track_caller]
pub fn visit(name: &str, _: usize, _: u64, _: bool, body: impl Fn() + Send + Sync + 'static) {
    let body = Arc::new(body);
    let number = |name, otherwise| std::env::var(name).map_or(otherwise, |text| text.parse().unwrap());
    let is_of_bus = name.starts_with("bus:") || name.starts_with("pooled:");
    let schedules = number("FOREBAY_SCHEDULES", if is_of_bus { SCHEDULES_OF_BUS } else { SCHEDULES });
    let seed = number("FOREBAY_SEED", 1) as u64;
    assert!(schedules >= MIN_SCHEDULES, "FOREBAY_SCHEDULES is {schedules}, and {MIN_SCHEDULES} is the least");
    let begun = Instant::now();
    let of_random = run(RandomScheduler::new_from_seed(seed, schedules), Arc::clone(&body));
    let of_pct = run(PctScheduler::new_from_seed(seed, DEPTH, schedules), body);
    assert_eq!((of_random, of_pct), (schedules, schedules), "{name}: shuttle ended early");
    let elapsed = begun.elapsed().as_secs_f64();
    println!("{name:<58} shuttle  {schedules:>7} schedules of each kind  {elapsed:>6.1} s");
}

#[track_caller]
fn run(scheduler: impl Scheduler + 'static, body: Arc<impl Fn() + Send + Sync + 'static>) -> usize {
    let mut config = Config::new();
    config.stack_size = 1 << 17;
    // A model that waits without giving way is at fault.
    config.max_steps = shuttle::MaxSteps::FailAfter(100_000);
    // The schedules are the same in the next run. And shuttle would write one for each panic that a model throws on purpose.
    config.failure_persistence = FailurePersistence::None;
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(move || body())
}
