//! Settings: every value that is not allowed is refused with its field, its value and what is allowed, and
//! nothing is half-started.

use std::time::Duration;

use crate::support::law;
use forebay::collector::{BuildError, StartError};
use forebay::{Collector, Config, FlushStrategy, Overflow};

#[test]
fn the_defaults_are_the_documented_ones() {
    let config = Config::default();
    assert_eq!((config.capacity, config.critical_capacity, config.low_capacity), (10_000, 1_000, 10_000));
    assert_eq!((config.batch_size, config.overflow), (None, Overflow::DropOldest));
    assert_eq!(config.flush, FlushStrategy::Hybrid { events: 100, interval: Duration::from_secs(1) });
    assert_eq!(config.stop_timeout, Duration::from_secs(10));
    assert_eq!(config.flush_timeout, Duration::from_secs(10));
    assert_eq!(config.drop_timeout, Duration::from_secs(1));
    assert_eq!(config.max_nap, Duration::from_millis(20));
    assert_eq!(config.critical_timeout, Duration::from_millis(100));
    assert_eq!(config.validate(), Ok(()));
    assert_eq!(config.warnings(), []);
}

#[test]
fn a_setting_that_is_not_allowed_is_named_with_its_value_and_what_is_allowed() {
    let zero = Duration::ZERO;
    let base = Config::default;
    let day = "a day at most under the flush strategy Manual, because nobody makes space";
    let day_and_more = Duration::from_secs(86_401);
    let slots = "(expected 1..=1073741824)";
    let cases = [
        (base().with_capacity(0), format!("invalid capacity: 0 {slots}")),
        (base().with_capacity(1 << 31), format!("invalid capacity: 2147483648 {slots}")),
        (base().with_critical_capacity(0), format!("invalid critical_capacity: 0 {slots}")),
        (base().with_low_capacity(0), format!("invalid low_capacity: 0 {slots}")),
        (base().with_batch_size(0), "invalid batch_size: 0 (expected 1 or more)".into()),
        (
            base().with_flush(FlushStrategy::Size { events: 0 }),
            "invalid flush.events: 0 (expected 1 or more)".into(),
        ),
        (
            base().with_flush(FlushStrategy::Time { interval: zero }),
            "invalid flush.interval: 0ns (expected more than zero)".into(),
        ),
        (
            base().with_flush(FlushStrategy::Hybrid { events: 1, interval: zero }),
            "invalid flush.interval: 0ns (expected more than zero)".into(),
        ),
        (
            base()
                .with_flush(FlushStrategy::Manual)
                .with_overflow(Overflow::Block { timeout: Duration::MAX }),
            format!("invalid overflow_timeout: {:?} (expected {day})", Duration::MAX),
        ),
        (
            base().with_flush(FlushStrategy::Manual).with_critical_timeout(day_and_more),
            format!("invalid critical_timeout: 86401s (expected {day})"),
        ),
        (
            base().with_session_id(Some(String::new())),
            "invalid session_id: empty (expected a text that is not empty)".into(),
        ),
        (base().with_shards(3), "invalid shards: 3 (expected 1, 2, 4, 8, 16, 32 or 64)".into()),
        (base().with_shards(128), "invalid shards: 128 (expected 1, 2, 4, 8, 16, 32 or 64)".into()),
        (base().with_shards(0), "invalid shards: 0 (expected 1, 2, 4, 8, 16, 32 or 64)".into()),
        (
            base().with_thread_name("a\0b".into()),
            "invalid thread_name: \"a\\0b\" (expected a text without NUL)".into(),
        ),
    ];
    for (config, expected) in cases {
        let error = config.validate().unwrap_err();
        assert_eq!(error.to_string(), expected);
        let error = Collector::new(config).unwrap_err();
        assert!(matches!(error, StartError::Build(BuildError::Config(_))), "{error:?}");
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn the_largest_and_smallest_allowed_settings_are_allowed() {
    let config = Config::default()
        .with_capacity(1)
        .with_critical_capacity(1)
        .with_low_capacity(1 << 30)
        .with_batch_size(usize::MAX)
        .with_flush(FlushStrategy::Hybrid { events: usize::MAX, interval: Duration::MAX })
        .with_overflow(Overflow::Block { timeout: Duration::MAX });
    assert_eq!(config.validate(), Ok(()));
}

#[test]
fn a_batch_larger_than_the_lane_is_clamped_and_says_so() {
    let flush = FlushStrategy::Size { events: 50 };
    let config = Config::default().with_capacity(2).with_batch_size(100).with_flush(flush);
    let warnings: Vec<String> = config.warnings().iter().map(ToString::to_string).collect();
    let why = "used is 2: a lane of `capacity` events never holds more";
    assert_eq!(warnings, [format!("batch_size is 100, {why}"), format!("flush.events is 50, {why}")]);
    let memory = forebay::sink::MemorySink::new();
    let collector = Collector::builder().config(config).sink(memory.clone()).start().unwrap();
    for step in 0..2 {
        collector.collect(forebay::Record::new("x").with_step(step));
    }
    assert!(
        memory.wait_for(2, Duration::from_secs(60)),
        "two events set off a delivery, although 50 were asked for"
    );
    collector.stop().unwrap();
    collector.stats().check_law(2).unwrap();
}

#[test]
fn a_capacity_that_rings_cannot_share_evenly_is_rounded_up_and_says_so() {
    let config = Config::default().with_capacity(10).with_shards(4);
    let warnings: Vec<String> = config.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "capacity is 10, used is 12: every one of `shards` rings has the same number of slots",
            "flush.events is 100, used is 12: a lane of `capacity` events never holds more"
        ]
    );
}

#[test]
fn the_session_id_is_the_given_one_or_a_new_one() {
    let collector = Collector::builder().session_id("run-7").start().unwrap();
    assert_eq!(collector.session_id(), "run-7");
    let memory = forebay::sink::MemorySink::new();
    let other = Collector::builder().sink(memory.clone()).start().unwrap();
    assert_eq!(uuid::Uuid::parse_str(other.session_id()).unwrap().get_version_num(), 7);
    other.collect(forebay::Record::new("x"));
    other.stop().unwrap();
    assert_eq!(memory.batches()[0].session(), other.session_id());
    other.stats().check_law(1).unwrap();
}

#[test]
fn a_collector_of_default_settings_has_counted_nothing() {
    let collector = Collector::new(forebay::Config::default()).unwrap();
    assert_eq!(collector.stats().offered, 0);
    collector.stop().unwrap();
    law(&collector, 0);
}
