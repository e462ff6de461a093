//! Cases of the test: settings, sinks and operations, as proptest makes them.

use std::time::Duration;

use forebay::config::Lanes;
use forebay::{Config, FlushStrategy, Overflow, Priority};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::lockstep::{Change, Lockstep, NAMES, Op};
use crate::reference::Manner;
use crate::support;

const MINUTE: Duration = Duration::from_secs(60);

fn strategies() -> impl Strategy<Value = FlushStrategy> {
    let (events, interval) = (1..=6usize, (1..=4u32).prop_map(|n| n * MINUTE));
    prop_oneof![
        Just(FlushStrategy::Manual),
        events.clone().prop_map(|events| FlushStrategy::Size { events }),
        interval.clone().prop_map(|interval| FlushStrategy::Time { interval }),
        (events, interval).prop_map(|(events, interval)| FlushStrategy::Hybrid { events, interval }),
    ]
}

fn overflows() -> impl Strategy<Value = Overflow> {
    prop_oneof![
        2 => Just(Overflow::DropOldest),
        1 => Just(Overflow::DropNewest),
        1 => waits().prop_map(|timeout| Overflow::Block { timeout }),
    ]
}

/// Returns how long a call waits: as short as it can be, because in lock-step nobody makes space meanwhile.
fn waits() -> impl Strategy<Value = Duration> {
    prop_oneof![Just(Duration::ZERO), Just(Duration::from_micros(10))]
}

fn priorities() -> impl Strategy<Value = Priority> {
    prop_oneof![4 => Just(Priority::Normal), 1 => Just(Priority::Critical), 2 => Just(Priority::Low)]
}

pub(crate) fn manners() -> impl Strategy<Value = Manner> {
    prop_oneof![
        2 => Just(Manner::Good),
        1 => Just(Manner::Failing),
        1 => Just(Manner::LosesOne),
        1 => Just(Manner::Panicking),
        3 => Just(Manner::Slow),
        2 => Just(Manner::Reentrant),
    ]
}

pub(crate) fn configs() -> impl Strategy<Value = Config> {
    let lanes = (1..=5usize, 1..=2usize, 1..=3usize);
    let batches = proptest::option::of(1..=4usize);
    (lanes, batches, overflows(), strategies(), waits()).prop_map(
        |((capacity, critical_capacity, low_capacity), batch_size, overflow, flush, critical_timeout)| {
            Config::default()
                .with_capacity(capacity)
                .with_critical_capacity(critical_capacity)
                .with_low_capacity(low_capacity)
                .with_batch_size(batch_size)
                .with_overflow(overflow)
                .with_flush(flush)
                .with_critical_timeout(critical_timeout)
                .with_flush_timeout(support::LONG)
        },
    )
}

/// Returns lanes of threads with blocks of one slot to three, fewer lanes than there are handles and more.
pub(crate) fn with_lanes(config: impl Strategy<Value = Config>) -> impl Strategy<Value = Config> {
    let capacities = prop_oneof![1..=5usize, 8..=12usize];
    (config, 1..=5usize, capacities).prop_map(|(config, max, capacity)| {
        config.with_lanes(Lanes::PerThread { max }).with_capacity(capacity)
    })
}

fn changes() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => strategies().prop_map(Change::Flush),
        3 => overflows().prop_map(Change::Overflow),
        2 => proptest::option::of(1..=4usize).prop_map(Change::BatchSize),
        1 => waits().prop_map(Change::CriticalTimeout),
    ]
}

pub(crate) fn ops() -> impl Strategy<Value = Op> {
    let name = 0..NAMES.len();
    let event = || (0..3u32, priorities());
    prop_oneof![
        16 => event().prop_map(|(producer, priority)| Op::Collect(producer, priority)),
        3 => event().prop_map(|(producer, priority)| Op::TryCollect(producer, priority)),
        5 => vec(event(), 0..12).prop_map(Op::CollectBatch),
        4 => event().prop_map(|(producer, priority)| Op::CollectAsync(producer, priority)),
        2 => Just(Op::PollCollect),
        1 => Just(Op::DropCollect),
        4 => Just(Op::Flush),
        1 => Just(Op::DropFlush),
        4 => Just(Op::Start),
        2 => Just(Op::Stop),
        2 => (name.clone(), manners()).prop_map(|(name, manner)| Op::AddSink(name, manner)),
        2 => name.prop_map(Op::RemoveSink),
        2 => changes().prop_map(Op::Reconfigure),
        3 => (1..=3u32).prop_map(|n| Op::Advance(n * MINUTE)),
        3 => Just(Op::OpenGate),
        3 => Just(Op::CloseGate),
    ]
}

/// Runs a case to its end.
pub(crate) fn run(config: &Config, sinks: &[Manner], starts_at_once: bool, ops: &[Op]) {
    support::hush();
    let mut both = Lockstep::new(config, sinks);
    if starts_at_once {
        both.step(&Op::Start);
    }
    for op in ops {
        both.step(op);
    }
    both.finish();
}
