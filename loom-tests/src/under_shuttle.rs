//! How shuttle visits schedules of a model: random ones, and as many of PCT.

use std::sync::Arc;
use std::time::Instant;

use proptest::prelude::{ProptestConfig, Strategy};
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
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
    let is_of_bus = name.starts_with("bus:") || name.starts_with("pooled:");
    let schedules = schedules(if is_of_bus { SCHEDULES_OF_BUS } else { SCHEDULES });
    let seed = seed();
    let begun = Instant::now();
    let of_random = run(RandomScheduler::new_from_seed(seed, schedules), Arc::clone(&body));
    let of_pct = run(PctScheduler::new_from_seed(seed, DEPTH, schedules), body);
    assert_eq!((of_random, of_pct), (schedules, schedules), "{name}: shuttle ended early");
    let elapsed = begun.elapsed().as_secs_f64();
    println!("{name:<58} shuttle  {schedules:>7} schedules of each kind  {elapsed:>6.1} s");
}

/// Returns FOREBAY_SCHEDULES, or the usual number.
#[track_caller]
fn schedules(usual: usize) -> usize {
    let schedules = number("FOREBAY_SCHEDULES", usual);
    assert!(schedules >= MIN_SCHEDULES, "FOREBAY_SCHEDULES is {schedules}, and {MIN_SCHEDULES} is the least");
    schedules
}

fn seed() -> u64 {
    number("FOREBAY_SEED", 1) as u64
}

fn number(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}

#[track_caller]
fn run(scheduler: impl Scheduler + 'static, body: Arc<impl Fn() + Send + Sync + 'static>) -> usize {
    let mut config = Config::new();
    config.stack_size = 1 << 17;
    // A model that waits without giving way is at fault. (A case of the model test takes 100,000 steps.)
    config.max_steps = shuttle::MaxSteps::FailAfter(1_000_000);
    // The schedules are the same in the next run. And shuttle would write one for each panic that a model throws on purpose.
    config.failure_persistence = FailurePersistence::None;
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(move || body())
}

/// Number of schedules of each kind of all cases of the model test, and of one.
const SCHEDULES_OF_CASES: usize = 1_000;
const SCHEDULES_OF_A_CASE: usize = 10;

/// Visits schedules of many cases, [`SCHEDULES_OF_A_CASE`] of each kind of one. A case that fails shrinks.
#[track_caller]
pub fn visit_cases<S: Strategy>(name: &str, cases: &S, body: fn(&S::Value))
where
    S::Value: Clone + Send + Sync + 'static,
{
    let (schedules, seed) = (schedules(SCHEDULES_OF_CASES), seed());
    let config = ProptestConfig {
        cases: u32::try_from(schedules / SCHEDULES_OF_A_CASE).unwrap(),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let begun = Instant::now();
    let result = TestRunner::new_with_rng(config, random).run(cases, |case| {
        let body = Arc::new(move || {
            // PCT refuses a case that has one thread, such as one that never starts the collector.
            let other = shuttle::thread::spawn(|| {});
            body(&case);
            other.join().unwrap();
        });
        run(RandomScheduler::new_from_seed(seed, SCHEDULES_OF_A_CASE), Arc::clone(&body));
        run(PctScheduler::new_from_seed(seed, DEPTH, SCHEDULES_OF_A_CASE), body);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{name}: {error}");
    }
    let elapsed = begun.elapsed().as_secs_f64();
    println!("{name:<58} shuttle  {schedules:>7} schedules of each kind  {elapsed:>6.1} s");
}
