//! Tests of every number that a caller gives, at both ends: nothing overflows, panics or hangs, and the law holds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::support::*;
use forebay::config::{GateConfig, HealthConfig, Sampling};
use forebay::sink::{
    Account, BreakerPolicy, DeadLetters, Fate, Hook, JsonLinesSink, MemorySink, RetryPolicy, Sink, SinkError,
    SinkExt, SyncPolicy, from_fn,
};
use forebay::{
    Batch, Builder, Collector, Event, FlushStrategy, Histogram, ManualClock, Overflow, Priority, Record,
};

/// The ends, and what lies beside them.
const DURATIONS: [Duration; 4] =
    [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(u64::MAX), Duration::MAX];

fn scalars(collector: &Collector, steps: std::ops::Range<u64>) {
    steps.for_each(|step| _ = collector.collect(Record::scalar("x", 0.5).with_step(step)));
}

#[test]
fn timeouts_and_intervals_of_any_length() {
    for long in DURATIONS {
        for flush in [
            FlushStrategy::Time { interval: long.max(Duration::from_millis(1)) },
            FlushStrategy::Hybrid { events: 2, interval: long.max(Duration::from_millis(1)) },
        ] {
            let collector = Collector::builder()
                .flush(flush)
                .critical_timeout(long)
                .flush_timeout(long.max(LONG))
                .stop_timeout(long.max(LONG))
                .drop_timeout(long)
                .sink(MemorySink::new())
                .start()
                .unwrap();
            collector.collect(Record::new("x").with_priority(Priority::Critical));
            let _ = collector.flush().unwrap();
            let _ = collector.flush_timeout(long);
            collector.stop().unwrap();
            law(&collector, 1);
        }
    }
}

#[test]
fn wrappers_with_the_largest_and_the_smallest_numbers() {
    for large in [0, 1, usize::MAX] {
        for long in DURATIONS {
            let calls = AtomicU64::new(0);
            let flaky = from_fn("flaky", move |_: &Batch| match calls.fetch_add(1, Ordering::SeqCst) {
                0 | 2 => Err(SinkError::unavailable("nobody is there")),
                _ => Ok(()),
            });
            let policy = BreakerPolicy::default();
            let policy = {
                let mut policy = policy;
                (policy.failures, policy.probes) = (large as u32, large as u32);
                (policy.rate, policy.window, policy.open_for) = (f64::NAN, large, Duration::ZERO);
                policy
            };
            let retries =
                RetryPolicy::list([Duration::ZERO]).retries(3).cap(Duration::ZERO).max_elapsed(long);
            let letters = DeadLetters::new(large).max_bytes(large);
            let sink = flaky.breaker(policy).retry(retries.jitter(f64::INFINITY)).dead_letters(&letters);
            let isolated =
                sink.isolated(large).max_bytes(large).overflow(Overflow::DropNewest).flush_timeout(LONG);
            let memory = MemorySink::new().keep_last(large);
            let collector = Collector::builder()
                .flush(FlushStrategy::Manual)
                .flush_timeout(LONG)
                .sink(isolated)
                .sink(memory.rate_limited(u32::MAX).isolated(large).flush_timeout(LONG))
                .start()
                .unwrap();
            let subscription = collector.subscribe_with("*", large).unwrap();
            scalars(&collector, 0..3);
            let _ = collector.flush().unwrap();
            letters.redrive(Some(large as u32));
            scalars(&collector, u64::MAX - 3..u64::MAX);
            let _ = collector.flush().unwrap();
            letters.redrive(None);
            let _ = collector.flush().unwrap();
            while subscription.try_recv().is_ok() {}
            collector.stop().unwrap();
            law(&collector, 6);
        }
    }
}

#[test]
fn a_breaker_that_is_open_for_ever_and_a_retry_that_waits_for_ever() {
    for long in [Duration::from_secs(u64::MAX), Duration::MAX] {
        let policies = [
            RetryPolicy::fixed(long, u32::MAX),
            RetryPolicy::exponential(long, u32::MAX).cap(long).jitter(1.0),
            RetryPolicy::list([long, long]).retries(u32::MAX),
        ];
        for policy in policies {
            for retry in [0, 1, 2, 31, 32, u32::MAX - 1] {
                assert!(policy.delay(retry).unwrap() <= Duration::MAX);
            }
            let collector = Collector::builder()
                .flush(FlushStrategy::Manual)
                .flush_timeout(Duration::from_millis(1))
                .drop_timeout(Duration::from_millis(1))
                .sink(failing::<Record>("failing").retry(policy).isolated(1).flush_timeout(Duration::ZERO))
                .start()
                .unwrap();
            scalars(&collector, 0..1);
            let _ = collector.flush();
            // Of that sink, it tells that it is not done.
            let _ = collector.stop_timeout(LONG);
            law(&collector, 1);
        }
        let mut policy = BreakerPolicy::default();
        (policy.failures, policy.open_for) = (1, long);
        let clock = ManualClock::new();
        let sink = failing::<Record>("failing").breaker(policy).manual_clock(&clock);
        let collector = Collector::builder()
            .manual_clock(&clock)
            .flush(FlushStrategy::Manual)
            .sink(sink)
            .start()
            .unwrap();
        for _ in 0..3 {
            scalars(&collector, 0..1);
            let _ = collector.flush().unwrap();
            clock.advance(Duration::MAX);
        }
        assert!(collector.stats().uptime <= clock.elapsed());
        collector.stop().unwrap();
        law(&collector, 3);
    }
}

#[test]
fn files_with_the_largest_and_the_smallest_numbers() {
    for (number, large) in [0, 1, u64::MAX - 1, u64::MAX].into_iter().enumerate() {
        for (other, long) in DURATIONS.into_iter().enumerate() {
            let folder = tempfile::tempdir().unwrap();
            let sink = JsonLinesSink::create(folder.path().join(format!("{number}-{other}.jsonl")))
                .unwrap()
                .rotate_at(large)
                .rotate_every(long)
                .keep_closed(large as usize)
                .sync(SyncPolicy::Every(long));
            let collector = Collector::builder().flush(FlushStrategy::Manual).sink(sink).start().unwrap();
            for _ in 0..3 {
                scalars(&collector, u64::MAX - 1..u64::MAX);
                assert!(collector.flush().unwrap().is_clean(), "{large} {long:?}");
            }
            collector.stop().unwrap();
            law(&collector, 3);
        }
    }
}

#[test]
fn gates_with_the_largest_and_the_smallest_numbers() {
    for large in [1, u32::MAX] {
        let samplings = [
            Sampling::Every { nth: large },
            Sampling::FirstThenEvery { first: large, every: large },
            Sampling::FirstThenEvery { first: 0, every: large },
            Sampling::Rate { rate: 1.0, min_per_window: large, window: Duration::from_millis(1) },
            Sampling::Rate { rate: 0.0, min_per_window: 0, window: Duration::from_secs(24 * 3600) },
        ];
        for sampling in samplings {
            let gate = GateConfig::default()
                .with_sampling(Some(sampling))
                .with_rate_limit(large)
                .with_max_event_bytes(large as usize)
                .with_seed(u64::MAX);
            let clock = ManualClock::new();
            let health = HealthConfig::default()
                .with_max_busy_time(Duration::MAX)
                .with_max_latency(Duration::MAX)
                .with_min_rate(f64::MAX)
                .with_max_dead_letters(u64::MAX);
            let collector = Collector::builder()
                .manual_clock(&clock)
                .gate(gate)
                .health(health)
                .flush(FlushStrategy::Manual)
                .start()
                .unwrap();
            for _ in 0..3 {
                scalars(&collector, 0..100);
                clock.advance(Duration::from_secs(u64::MAX));
            }
            _ = (collector.health(), collector.stats());
            collector.stop().unwrap();
            law(&collector, 300);
        }
    }
}

/// Says that it is as large as can be.
struct Boasts(usize);

impl Event for Boasts {
    fn size_hint(&self) -> usize {
        self.0
    }

    fn made_at(&self) -> Option<u64> {
        Some(self.0 as u64)
    }
}

#[test]
fn events_that_say_any_size_and_any_moment() {
    for budget in [None, Some(1), Some(usize::MAX)] {
        for boast in [0, 1, usize::MAX / 2, usize::MAX] {
            let mut builder = Builder::<Boasts>::new().flush(FlushStrategy::Manual).capacity(4);
            if let Some(bytes) = budget {
                builder = builder.max_bytes(bytes);
            }
            let mut config = forebay::Config::default();
            if budget.is_none() {
                config.max_bytes = None;
                config.capacity = 4;
                config.flush = FlushStrategy::Manual;
                builder = builder.config(config);
            }
            let collector = builder
                .sink(MemorySink::new().isolated(2).max_bytes(boast).overflow(Overflow::DropOldest))
                .start()
                .unwrap();
            for _ in 0..3 {
                (0..10).for_each(|_| _ = collector.collect(Boasts(boast)));
                _ = collector.stats();
                let _ = collector.flush().unwrap();
            }
            collector.stop().unwrap();
            law(&collector, 30);
        }
    }
}

#[test]
fn histograms_of_any_counts_and_values() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::builder()
        .flush(FlushStrategy::Manual)
        .sink(JsonLinesSink::create(folder.path().join("events.jsonl")).unwrap())
        .start()
        .unwrap();
    #[cfg(feature = "tensorboard")]
    collector.add_sink(forebay::sink::TensorBoardSink::create(folder.path().join("tb")).unwrap()).unwrap();
    let mut offered = 0;
    let mut collect = |histogram: Histogram| {
        let shown = Record::histogram("weights", histogram).with_step(offered);
        assert!(!shown.to_string().is_empty());
        collector.collect(shown);
        offered += 1;
    };
    let edges = vec![f64::MIN, 0.0, f64::MAX];
    collect(Histogram::from_counts(edges, vec![u64::MAX; 2], f64::MAX, f64::INFINITY).unwrap());
    collect(Histogram::from_values(&[f64::MIN, f64::MAX, f64::NAN, f64::INFINITY], usize::MAX));
    collect(Histogram::from_values::<f64>(&[], usize::MAX));
    collect(Histogram::from_values(&[f64::MIN_POSITIVE, -0.0, 5e-324], 0));
    let _ = collector.flush().unwrap();
    collector.stop().unwrap();
    law(&collector, offered);
}

#[test]
fn an_account_of_a_sink_that_is_given_any_number() {
    /// Sink that does that with its account at every batch.
    struct Wrong(fn(&Account), Option<Account>);

    impl Sink for Wrong {
        fn name(&self) -> &str {
            "wrong"
        }

        fn write_batch(&mut self, _: &Batch) -> Result<(), SinkError> {
            (self.0)(self.1.as_ref().unwrap());
            Ok(())
        }

        fn hook(&mut self, hook: Hook<'_>) {
            if let Hook::Open(account) = hook {
                self.1 = Some(account.clone());
            }
        }
    }

    let wrong: [fn(&Account); 8] = [
        |account| account.keep(u64::MAX),
        |account| {
            account.keep(u64::MAX);
            account.complete(Fate::Delivered, u64::MAX);
        },
        |account| account.complete(Fate::Delivered, u64::MAX - 1),
        |account| account.complete(Fate::Failed, u64::MAX - 1),
        |account| account.complete(Fate::DeadLettered, u64::MAX),
        |account| account.complete(Fate::Evicted, u64::MAX),
        |account| account.complete(Fate::Rejected, u64::MAX),
        |account| {
            account.complete(Fate::Delivered, u64::MAX / 2);
            account.complete(Fate::Failed, u64::MAX / 2 + 9);
            account.keep(1 << 63);
        },
    ];
    for wrong in wrong {
        let memory = MemorySink::new();
        let collector = Collector::builder().sink(Wrong(wrong, None)).sink(memory.clone()).start().unwrap();
        for number in 0..4 {
            scalars(&collector, number..number + 1);
            let report = collector.flush().unwrap();
            assert_eq!(report.sinks.len(), 2);
            let stats = collector.stats();
            // What it was given is wrong; what forebay itself counts is not.
            let _ = stats.check_law(number + 1);
            assert_eq!(stats.delta(&stats).rejected_or_evicted(), 0);
            assert!(
                !format!("{report:?} {stats} {:?} {}", collector.health(), collector.health()).is_empty()
            );
            #[cfg(feature = "prometheus")]
            assert!(!stats.to_prometheus("").is_empty());
        }
        collector.stop().unwrap();
        let stats = collector.stats();
        assert_eq!((stats.offered, stats.processed, memory.len()), (4, 4, 4));
    }
}
