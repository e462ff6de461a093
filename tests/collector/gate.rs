//! The gate: what may come in, decided by name, priority, chance, rate and size, and counted by reason.

use std::time::Duration;

use crate::support::*;
use forebay::collector::Refusal;
use forebay::config::{ConfigError, GateConfig, NameRule, Sampling};
use forebay::event::catalog::metrics::Measured;
use forebay::sink::MemorySink;
use forebay::{Builder, Collector, Event, ManualClock, Outcome, Priority, Record};
use proptest::prelude::*;

fn gated(gate: GateConfig) -> Collector {
    Collector::builder().gate(gate).flush(HOURLY).start().unwrap()
}

fn offer(collector: &Collector, name: &'static str) -> Outcome {
    collector.collect(Record::scalar(name, 1.0))
}

#[test]
fn names_are_let_in_as_they_are_allowed_denied_and_ruled() {
    let gate = GateConfig::default()
        .with_allow(vec!["train.*".into(), "data.*".into()])
        .with_deny(vec!["*.debug".into()])
        .with_rules(vec![
            NameRule::new("data.*").with_min_priority(Priority::Critical),
            NameRule::new("train.{gradient,weight}*").with_sampling(Sampling::Every { nth: 2 }),
        ]);
    let collector = gated(gate);
    // Twice: the second time from the table of verdicts.
    for turn in 0..2 {
        assert_eq!(offer(&collector, "train.loss"), Outcome::Queued);
        assert_eq!(offer(&collector, "train.debug"), Outcome::Filtered);
        assert_eq!(offer(&collector, "system.gpu"), Outcome::Filtered);
        assert_eq!(offer(&collector, "data.loaded"), Outcome::Filtered);
        let expected = if turn == 0 { Outcome::Queued } else { Outcome::SampledOut };
        assert_eq!(offer(&collector, "train.gradients"), expected);
    }
    let enabled =
        ["train.loss", "train.debug", "system.gpu", "data.loaded"].map(|name| collector.enabled(name));
    assert_eq!(enabled, [true, false, false, false]);
    let critical = Record::new("system.gpu").with_priority(Priority::Critical);
    assert_eq!(collector.collect(critical), Outcome::Queued, "critical events pass");
    collector.stop().unwrap();
    let stats = law(&collector, 11);
    assert_eq!((stats.filtered, stats.sampled_out, stats.processed), (6, 1, 4));
    assert!(!collector.enabled("train.loss"), "nothing comes in any more");
}

#[test]
fn the_switch_and_the_limits_change_while_it_runs_and_the_names_do_not() {
    let collector = gated(GateConfig::default());
    let set = |change: fn(&mut GateConfig)| collector.update_config(|config| change(&mut config.gate));
    assert_eq!(offer(&collector, "a"), Outcome::Queued);
    set(|gate| gate.enabled = false).unwrap();
    let critical = || collector.collect(Record::new("a").with_priority(Priority::Critical));
    assert_eq!((offer(&collector, "a"), critical()), (Outcome::Filtered, Outcome::Filtered));
    assert!(!collector.enabled("a"));
    set(|gate| {
        gate.enabled = true;
        gate.min_priority = Priority::Normal;
    })
    .unwrap();
    let low = || collector.collect(Record::new("a").with_priority(Priority::Low));
    assert_eq!(
        (offer(&collector, "a"), low(), critical()),
        (Outcome::Queued, Outcome::Filtered, Outcome::Queued)
    );
    set(|gate| gate.min_priority = Priority::Critical).unwrap();
    assert_eq!((offer(&collector, "a"), critical()), (Outcome::Filtered, Outcome::Queued));
    set(|gate| *gate = GateConfig::default().with_max_event_bytes(100)).unwrap();
    assert_eq!(offer(&collector, "a"), Outcome::Queued);
    assert_eq!(collector.collect(Record::text("a", "x".repeat(100))), Outcome::Oversize);
    let refused = collector.try_collect(Record::text("a", "x".repeat(100))).unwrap_err();
    assert_eq!((refused.reason, refused.event.name()), (Refusal::Oversize, "a"), "it comes back");
    set(|gate| *gate = GateConfig::default().with_sampling(Some(Sampling::Keyed { rate: 0.0 }))).unwrap();
    let keyed = collector.collect(Record::new("a").with_correlation_id("1"));
    assert_eq!((keyed, offer(&collector, "a")), (Outcome::SampledOut, Outcome::Queued));
    set(|gate| *gate = GateConfig::default()).unwrap();
    assert_eq!(low(), Outcome::Queued);
    for (change, field) in [
        ((|gate| gate.allow.push("a".into())) as fn(&mut GateConfig), "gate.allow"),
        (|gate| gate.deny.push("a".into()), "gate.deny"),
        (|gate| gate.rules.push(NameRule::new("a")), "gate.rules"),
        (|gate| gate.seed = Some(1), "gate.seed"),
    ] {
        assert_eq!(set(change), Err(ConfigError::Immutable { field }));
    }
    collector.stop().unwrap();
    let stats = law(&collector, 14);
    assert_eq!((stats.filtered, stats.oversize, stats.sampled_out), (4, 2, 1));
}

#[test]
fn what_is_not_allowed_is_named_with_what_is() {
    let said = |gate: GateConfig| Collector::builder().gate(gate).build().unwrap_err().to_string();
    let sampled = |sampling| said(GateConfig::default().with_sampling(Some(sampling)));
    let second = Duration::from_secs(1);
    let rate = |rate, window| sampled(Sampling::Rate { rate, min_per_window: 1, window });
    assert_eq!(rate(f64::NAN, second), "invalid gate.sampling: a rate of NaN (expected a rate from 0 to 1)");
    assert_eq!(rate(1.1, second), "invalid gate.sampling: a rate of 1.1 (expected a rate from 0 to 1)");
    assert_eq!(rate(-0.1, second), "invalid gate.sampling: a rate of -0.1 (expected a rate from 0 to 1)");
    assert_eq!(
        rate(0.5, Duration::ZERO),
        "invalid gate.sampling: a window of 0ns (expected a window of a millisecond to a day)"
    );
    assert_eq!(
        sampled(Sampling::Every { nth: 0 }),
        "invalid gate.sampling: every 0th (expected every 1st, or a later one)"
    );
    let rules = vec![NameRule::new("a").with_sampling(Sampling::Keyed { rate: 2.0 })];
    let ruled = said(GateConfig::default().with_rules(rules));
    assert_eq!(ruled, "invalid gate.rules.sampling: a rate of 2 (expected a rate from 0 to 1)");
    let limit = said(GateConfig::default().with_rate_limit(0));
    assert_eq!(limit, "invalid gate.rate_limit: 0 (expected 1 or more)");
    let bytes = said(GateConfig::default().with_max_event_bytes(0));
    assert_eq!(bytes, "invalid gate.max_event_bytes: 0 (expected 1 or more)");
}

/// Returns how many of `offered` events of a name are let in.
fn let_in(collector: &Collector, name: &'static str, offered: u64) -> u64 {
    (0..offered).filter(|_| offer(collector, name).is_queued()).count() as u64
}

fn sampled(sampling: Sampling, seed: u64, clock: &ManualClock) -> Collector {
    let gate = GateConfig::default().with_sampling(Some(sampling)).with_seed(seed);
    Collector::builder().gate(gate).capacity(200_000).flush(HOURLY).manual_clock(clock).start().unwrap()
}

#[test]
fn of_every_name_the_first_of_a_window_are_let_in_then_chance_decides() {
    let clock = ManualClock::new();
    let window = Duration::from_secs(60);
    let collector = sampled(Sampling::Rate { rate: 0.0, min_per_window: 3, window }, 1, &clock);
    assert_eq!((let_in(&collector, "a", 100), let_in(&collector, "b", 100)), (3, 3), "by name");
    // A nanosecond before its end, and at it.
    clock.advance(window - Duration::from_nanos(1));
    assert_eq!(let_in(&collector, "a", 100), 0);
    clock.advance(Duration::from_nanos(1));
    assert_eq!((let_in(&collector, "a", 2), let_in(&collector, "a", 100)), (2, 1));
    // Windows in which nothing came are as if they had not been.
    clock.advance(window * 1000);
    assert_eq!(let_in(&collector, "a", 100), 3);
    collector.stop().unwrap();
    law(&collector, 502);
    let all = sampled(Sampling::Rate { rate: 1.0, min_per_window: 0, window }, 1, &clock);
    assert_eq!(let_in(&all, "a", 1000), 1000);
    all.stop().unwrap();
    law(&all, 1000);
}

#[test]
fn chance_lets_in_as_many_as_it_should() {
    for (rate, seed) in [(0.5, 1), (0.1, 2), (0.01, 3), (0.9, 4)] {
        let clock = ManualClock::new();
        let sampling = Sampling::Rate { rate, min_per_window: 0, window: Duration::from_secs(1) };
        let collector = sampled(sampling, seed, &clock);
        let (offered, kept) = (100_000.0, let_in(&collector, "a", 100_000) as f64);
        // Five standard deviations of a binomial distribution.
        let bound = 5.0 * (offered * rate * (1.0 - rate)).sqrt();
        assert!((kept - offered * rate).abs() < bound, "{kept} of {offered} at {rate}");
        collector.stop().unwrap();
        law(&collector, 100_000);
        let again = sampled(sampling, seed, &clock);
        assert_eq!(
            let_in(&again, "a", 1000),
            let_in(&sampled(sampling, seed, &clock), "a", 1000),
            "by the seed"
        );
    }
}

#[test]
fn turns_and_ids_decide_the_same_each_time() {
    let clock = ManualClock::new();
    let collector = sampled(Sampling::Every { nth: 4 }, 1, &clock);
    let turns: Vec<bool> = (0..10).map(|_| offer(&collector, "a").is_queued()).collect();
    let every_fourth: Vec<bool> = (0..10).map(|turn| turn % 4 == 0).collect();
    assert_eq!(turns, every_fourth);
    let collector = sampled(Sampling::FirstThenEvery { first: 3, every: 2 }, 1, &clock);
    let turns: Vec<bool> = (0..9).map(|_| offer(&collector, "a").is_queued()).collect();
    assert_eq!(turns, [true, true, true, false, true, false, true, false, true]);
    // Two collectors, two processes even: the same ids.
    let kept = |collector: &Collector| -> Vec<u64> {
        let id = |id: u64| Record::new("a").with_correlation_id(id.to_string());
        (0..1000).filter(|number| collector.collect(id(*number)).is_queued()).collect()
    };
    let (one, other) = (
        sampled(Sampling::Keyed { rate: 0.3 }, 1, &clock),
        sampled(Sampling::Keyed { rate: 0.3 }, 2, &clock),
    );
    let ids = kept(&one);
    assert_eq!((&ids, kept(&one)), (&kept(&other), ids.clone()), "all of an id or none");
    assert!((200..400).contains(&ids.len()), "{}", ids.len());
    let more = sampled(Sampling::Keyed { rate: 0.5 }, 1, &clock);
    let more = kept(&more);
    assert!(ids.iter().all(|id| more.contains(id)), "a larger rate adds ids, and takes none away");
    one.stop().unwrap();
    law(&one, 2000);
}

#[test]
fn another_kind_of_sampling_begins_to_count_anew_but_for_names_that_a_rule_samples() {
    let clock = ManualClock::new();
    let window = Duration::from_secs(60);
    let rate = Sampling::Rate { rate: 0.0, min_per_window: 3, window };
    let turns = Sampling::FirstThenEvery { first: 4, every: 1_000 };
    let rule = NameRule::new("ruled").with_sampling(Some(turns));
    let gate = GateConfig::default().with_sampling(Some(rate)).with_rules(vec![rule]).with_seed(1);
    let collector = Collector::builder().gate(gate).flush(HOURLY).manual_clock(&clock).start().unwrap();
    let change = |sampling| collector.update_config(|config| config.gate.sampling = sampling).unwrap();
    assert_eq!((let_in(&collector, "a", 10), let_in(&collector, "ruled", 10)), (3, 4));
    change(Some(turns));
    assert_eq!(let_in(&collector, "a", 10), 4, "the number of the window is no number of turns");
    change(None);
    change(Some(rate));
    assert_eq!((let_in(&collector, "a", 10), let_in(&collector, "ruled", 10)), (3, 0));
    // Other numbers of the same kind go on.
    change(Some(Sampling::Rate { rate: 0.0, min_per_window: 5, window }));
    assert_eq!(let_in(&collector, "a", 10), 2);
    collector.stop().unwrap();
    law(&collector, 60);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..Default::default() })]

    #[test]
    fn events_come_when_governor_lets_them(
        rate in 1..2_000u32,
        pauses in prop::collection::vec(prop_oneof![3 => Just(0u64), 2 => 0..2_000_000u64, 1 => 0..3_000_000_000u64], 1..200),
    ) {
        use governor::{Quota, RateLimiter, clock::FakeRelativeClock};
        let their_clock = FakeRelativeClock::default();
        let quota = Quota::per_second(std::num::NonZeroU32::new(rate).unwrap());
        let theirs = RateLimiter::direct_with_clock(quota, their_clock.clone());
        let clock = ManualClock::new();
        let gate = GateConfig::default().with_rate_limit(rate);
        let collector = Collector::builder().gate(gate).flush(HOURLY).manual_clock(&clock).start().unwrap();
        let offered = pauses.len() as u64;
        for pause in pauses {
            their_clock.advance(Duration::from_nanos(pause));
            clock.advance(Duration::from_nanos(pause));
            let outcome = offer(&collector, "a");
            prop_assert_eq!(outcome.is_queued(), theirs.check().is_ok());
            prop_assert!(outcome.is_queued() || outcome == Outcome::RateLimited);
        }
        collector.stop().unwrap();
        law(&collector, offered);
    }
}

#[test]
fn many_threads_get_no_more_than_the_rate_and_the_first_of_a_window_together() {
    for (limit, sampling) in [
        (Some(100), None),
        (None, Some(Sampling::Rate { rate: 0.0, min_per_window: 100, window: Duration::from_secs(60) })),
    ] {
        let clock = ManualClock::new();
        let gate = GateConfig::default().with_rate_limit(limit).with_sampling(sampling);
        let collector = Collector::builder().gate(gate).flush(HOURLY).manual_clock(&clock).start().unwrap();
        let kept: u64 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| let_in(&collector, "a", 10_000))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(kept, 100, "to the event");
        collector.stop().unwrap();
        law(&collector, 40_000);
    }
}

#[test]
fn an_event_of_another_type_has_defaults_that_come_in() {
    struct Plain;
    impl Event for Plain {}
    let gate = GateConfig::default().with_deny(vec!["*Plain".into()]);
    let collector = Builder::<Plain>::new().gate(gate).start().unwrap();
    assert_eq!(collector.collect(Plain), Outcome::Filtered, "its name is that of its type");
    collector.stop().unwrap();
    assert_eq!(collector.collect(Plain), Outcome::Stopped, "whatever the gate would say");
    law(&collector, 2);
}

#[cfg(feature = "futures")]
#[test]
fn what_is_awaited_passes_the_gate_once() {
    let memory = forebay::sink::MemorySink::new();
    let gate = GateConfig::default().with_sampling(Some(Sampling::Every { nth: 2 }));
    let collector = Collector::builder().gate(gate).sink(memory.clone()).start().unwrap();
    let outcomes: Vec<Outcome> = futures::executor::block_on(async {
        let mut outcomes = Vec::new();
        for step in 0..4 {
            outcomes.push(collector.collect_async(Record::scalar("a", 1.0).with_step(step)).await);
        }
        outcomes
    });
    assert_eq!(outcomes, [Outcome::Queued, Outcome::SampledOut, Outcome::Queued, Outcome::SampledOut]);
    collector.stop().unwrap();
    law(&collector, 4);
    assert_eq!(memory.len(), 2);
}

#[test]
fn all_events_are_counted_sampled_or_not() {
    let half = Sampling::Rate { rate: 0.5, min_per_window: 0, window: std::time::Duration::from_secs(1) };
    for sampling in [None, Some(half)] {
        let (sink, is_sampled) = (MemorySink::new(), sampling.is_some());
        let gate = GateConfig::default().with_sampling(sampling);
        let collector = Collector::builder().gate(gate).sink(sink.clone()).start().unwrap();
        for _ in 0..100 {
            let measured = Measured { metric: "latency".to_owned(), value: 100.0, unit: "ms".to_owned() };
            collector.collect(Record::from(measured));
        }
        let _ = collector.flush().unwrap();
        let stats = law(&collector, 100);
        assert_eq!(stats.offered, 100, "all are counted, those as well that were left out");
        assert_eq!(stats.processed, sink.len() as u64);
        assert_eq!(stats.sampled_out, 100 - stats.processed);
        assert_eq!(is_sampled, stats.sampled_out > 0);
        collector.stop().unwrap();
    }
}
