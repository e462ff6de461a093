//! Wrappers of sinks: each does what it says, in any order, and the account of the sink stays exact.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use crate::support::*;
use forebay::collector::{FlushError, StopError};
use forebay::sink::{
    BreakerPolicy, BreakerState, DeadLetters, Hook, JsonLinesSink, MemorySink, RetryPolicy, Sink, SinkError,
    SinkExt, from_fn,
};
use forebay::stats::SinkStats;
use forebay::{Batch, Builder, Collector, Event, FlushStrategy, ManualClock, Overflow, Record};
use proptest::prelude::*;

const HOUR: Duration = Duration::from_secs(3600);

fn scalars(collector: &Collector, name: &'static str, steps: std::ops::Range<u64>) {
    steps.for_each(|step| _ = collector.collect(Record::scalar(name, 0.5).with_step(step)));
}

fn steps(memory: &MemorySink) -> Vec<u64> {
    memory.events().iter().filter_map(Record::step).collect()
}

fn builder() -> Builder {
    Collector::builder().flush(HOURLY)
}

fn sink<E: Event>(collector: &Collector<E>, name: &str) -> SinkStats {
    collector.stats().sink(name).unwrap().clone()
}

/// Returns a sink that fails, by the number of the call from 0, as `fails` says; and how often it was called.
fn flaky(
    fails: impl Fn(u64) -> Option<SinkError> + Send + 'static,
) -> (impl Sink + 'static, MemorySink, Arc<AtomicU64>) {
    let (memory, calls) = (MemorySink::new(), Arc::new(AtomicU64::new(0)));
    let (mut kept, counted) = (memory.clone(), Arc::clone(&calls));
    let write = move |batch: &Batch| match fails(counted.fetch_add(1, Ordering::Relaxed)) {
        Some(error) => Err(error),
        None => kept.write_batch(batch),
    };
    (from_fn("flaky", write), memory, calls)
}

fn nobody() -> SinkError {
    SinkError::unavailable("nobody is there")
}

// ---- route, filter, map ----

#[test]
fn a_route_passes_names_and_patterns_and_passes_over_the_rest() {
    let (memory, folder) = (MemorySink::new(), tempfile::tempdir().unwrap());
    let path = folder.path().join("train.jsonl");
    let collector = builder()
        .sink(memory.clone().route("train.*").route("exactly.this"))
        .sink(JsonLinesSink::create(&path).unwrap().route("exactly.this"))
        .start()
        .unwrap();
    for name in ["train.loss", "exactly.this", "train.a.b", "exactly.this.not", "other"] {
        scalars(&collector, name, 0..2);
    }
    collector.stop().unwrap();
    law(&collector, 10);
    let names: Vec<String> = memory.events().iter().map(|record| record.name().to_owned()).collect();
    assert_eq!(names, ["train.loss", "train.loss", "exactly.this", "exactly.this", "train.a.b", "train.a.b"]);
    assert_eq!((sink(&collector, "memory").delivered, sink(&collector, "json_lines").delivered), (10, 10));
    assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 2);
}

#[test]
fn a_filter_chooses_and_a_map_makes_something_else_of_it() {
    let lengths = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&lengths);
    let inner = from_fn("lengths", move |batch: &Batch<u64>| {
        kept.lock().unwrap().extend(batch.iter().copied());
        Ok(())
    });
    let sink = inner
        .filter(|step: &u64| step.is_multiple_of(2))
        .map(|record: &Record| record.step().unwrap_or_default() * 10)
        .filter(|record: &Record| record.name() == "a");
    let collector = builder().sink(sink).start().unwrap();
    scalars(&collector, "a", 0..3);
    scalars(&collector, "b", 0..3);
    collector.stop().unwrap();
    law(&collector, 6);
    assert_eq!(*lengths.lock().unwrap(), [0, 10, 20]);
}

#[test]
fn a_part_that_fails_is_all_that_fails() {
    let collector = builder().sink(failing("broken").route("a")).start().unwrap();
    scalars(&collector, "a", 0..3);
    scalars(&collector, "b", 0..4);
    collector.stop().unwrap();
    law(&collector, 7);
    let stats = sink(&collector, "broken");
    assert_eq!((stats.delivered, stats.failed), (4, 3));
}

// ---- isolated ----

#[test]
fn a_hung_sink_with_a_thread_of_its_own_holds_up_nobody() {
    let (gate, memory) = (Gate::closed(), MemorySink::new());
    let hung = gate.sink().isolated(4).flush_timeout(Duration::from_millis(20));
    let collector = builder().sink(hung).sink(memory.clone()).start().unwrap();
    scalars(&collector, "a", 0..10);
    let report = collector.flush().unwrap();
    assert_eq!(memory.len(), 10, "the other one has everything");
    let named: Vec<_> = report.sinks.iter().filter(|sink| sink.error.is_some()).collect();
    assert_eq!(named[0].error.as_deref(), Some("not flushed in time, 10 events are in its queue"));
    assert_eq!((named.len(), named[0].name.as_str(), report.is_clean()), (1, "gate", false));
    // And goes on, with batches that the queue takes, until it is full.
    for round in 0..10 {
        scalars(&collector, "a", 0..10);
        until("the other one has the next", || {
            let _ = collector.flush();
            memory.len() == 20 + 10 * round
        });
    }
    gate.await_arrivals(1);
    let stats = sink(&collector, "gate");
    assert_eq!((stats.delivered, stats.in_flight + stats.evicted), (0, 110));
    assert_eq!(stats.in_flight, 50, "the one it hangs in, and four that wait");
    let Err(StopError::TimedOut { report }) = collector.stop() else { panic!("a stop that is not reported") };
    assert_eq!((report.busy_sink.as_deref(), report.left_behind), (Some("gate"), 0));
    law(&collector, 110);
    gate.open();
    until("the rest is delivered", || sink(&collector, "gate").in_flight == 0);
    let stats = sink(&collector, "gate");
    assert_eq!((stats.delivered, stats.evicted), (50, 60));
    law(&collector, 110);
}

#[test]
fn what_a_full_queue_evicts_or_rejects_is_counted_and_reported_where_it_is_missing() {
    let block = Overflow::Block { timeout: HOUR };
    for overflow in [Overflow::DropOldest, Overflow::DropNewest, block] {
        let evicts = overflow == Overflow::DropOldest;
        let (gate, memory) = (Gate::closed(), MemorySink::new());
        let (own, mut kept) = (gate.clone(), memory.clone());
        let inner = from_fn("slow", move |batch: &Batch| {
            own.pass();
            kept.write_batch(batch)
        });
        let sink_of = inner.isolated(2).overflow(overflow).flush_timeout(LONG);
        let collector = builder().flush(FlushStrategy::Size { events: 1 }).batch_size(1);
        let collector = collector.sink(sink_of).start().unwrap();
        scalars(&collector, "a", 0..1);
        gate.await_arrivals(1);
        scalars(&collector, "a", 1..8);
        // The worker has put all of them into the queue, which holds two.
        let full = if evicts { (5, 0) } else { (0, 5) };
        until("the queue is full", || {
            let stats = sink(&collector, "slow");
            (stats.evicted, stats.rejected) == full
        });
        gate.open();
        assert!(!collector.flush().unwrap().is_clean());
        let expected = if evicts { vec![0, 6, 7] } else { vec![0, 1, 2] };
        assert_eq!(steps(&memory), expected);
        assert_eq!(audit_gaps(&memory), 5, "{overflow:?}");
        let places: Vec<u64> = memory.batches().iter().map(Batch::gap).collect();
        let reported = if evicts { vec![0, 5, 0] } else { vec![0, 0, 0, 5] };
        assert_eq!(places, reported);
        collector.stop().unwrap();
        law(&collector, 8);
    }
}

/// Returns the sum of all gaps, each in its place: events are numbered without a hole but for them.
#[track_caller]
fn audit_gaps(memory: &MemorySink) -> u64 {
    let (mut next, mut gaps) = (0, 0);
    for batch in memory.batches() {
        assert_eq!(batch.first_event(), next + batch.gap());
        next = batch.first_event() + batch.len() as u64;
        gaps += batch.gap();
    }
    gaps
}

#[test]
fn a_flush_covers_the_queue_and_a_removed_sink_gets_its_rest() {
    let memory = MemorySink::new();
    let collector = builder().batch_size(1).sink(memory.clone().isolated(1000)).start().unwrap();
    for round in 1..20 {
        scalars(&collector, "a", 0..20);
        let report = collector.flush().unwrap();
        assert!(report.is_clean());
        assert_eq!(report.sinks[0].delivered, 20, "what the worker had not seen is reported as well");
        assert_eq!(memory.len(), 20 * round);
    }
    scalars(&collector, "a", 0..100);
    let stats = collector.remove_sink("memory").unwrap();
    assert_eq!((stats.delivered, stats.in_flight, memory.len()), (480, 0, 480));
    collector.stop().unwrap();
    law(&collector, 480);
}

#[cfg(feature = "futures")]
#[test]
fn a_flush_that_is_awaited_covers_the_queue_too() {
    let memory = MemorySink::new();
    let collector = builder().batch_size(1).sink(memory.clone().isolated(1000)).start().unwrap();
    for round in 1..20 {
        scalars(&collector, "a", 0..20);
        let report = futures::executor::block_on(collector.flush_async()).unwrap();
        assert_eq!((report.sinks[0].delivered, memory.len()), (20, 20 * round));
    }
    collector.stop().unwrap();
    law(&collector, 380);
}

#[test]
fn an_isolated_sink_cannot_wait_for_itself_and_may_fail_and_panic() {
    hush();
    let own: Arc<Mutex<Option<Collector<Tick>>>> = Arc::default();
    let (inner, said) = (Arc::clone(&own), Arc::new(Mutex::new(Vec::new())));
    let reported = Arc::clone(&said);
    let asks = from_fn("asks", move |_: &Batch<Tick>| {
        let collector = inner.lock().unwrap().clone();
        reported.lock().unwrap().extend(collector.map(|collector| collector.flush().map(drop)));
        Ok(())
    });
    let collector = ticks()
        .flush(HOURLY)
        .sink(asks.isolated(4))
        .sink(panicking::<Tick>("panics").isolated(4))
        .sink(failing::<Tick>("fails").isolated(4))
        .start()
        .unwrap();
    *own.lock().unwrap() = Some(collector.clone());
    collector.collect(tick(0));
    let _ = collector.flush().unwrap();
    assert_eq!(*said.lock().unwrap(), [Err(FlushError::OnWorker)]);
    *own.lock().unwrap() = None;
    collector.stop().unwrap();
    law(&collector, 1);
    let (panics, fails) = (sink(&collector, "panics"), sink(&collector, "fails"));
    assert_eq!((panics.failed, panics.panics, fails.failed, fails.errors), (1, 1, 1, 1));
}

// ---- retry ----

#[test]
fn a_batch_that_fails_for_now_is_tried_again_and_delivered_once() {
    let (inner, memory, calls) = flaky(|call| (call < 2).then(nobody));
    let collector = builder().sink(inner.retry(RetryPolicy::fixed(Duration::ZERO, 3))).start().unwrap();
    scalars(&collector, "a", 0..10);
    assert!(collector.flush().unwrap().sinks[0].failed == 0);
    collector.stop().unwrap();
    law(&collector, 10);
    let stats = sink(&collector, "flaky");
    assert_eq!((stats.delivered, stats.retries, calls.load(Ordering::Relaxed)), (10, 2, 3));
    assert!(steps(&memory).into_iter().eq(0..10));
}

#[test]
fn what_cannot_help_is_not_tried_again() {
    let permanent: fn(u64) -> Option<SinkError> = |_| Some(nobody().permanent());
    let in_part: fn(u64) -> Option<SinkError> = |_| Some(nobody().with_failed_events(3));
    for (fails, failed) in [(permanent, 10), (in_part, 3)] {
        let (inner, _, calls) = flaky(fails);
        let collector = builder().sink(inner.retry(RetryPolicy::fixed(Duration::ZERO, 3))).start().unwrap();
        scalars(&collector, "a", 0..10);
        collector.stop().unwrap();
        law(&collector, 10);
        let stats = sink(&collector, "flaky");
        assert_eq!((stats.failed, stats.retries, calls.load(Ordering::Relaxed)), (failed, 0, 1));
    }
}

#[test]
fn others_go_on_while_one_waits_to_try_again_and_its_end_ends_the_wait() {
    let (inner, _, calls) = flaky(|_| Some(nobody()));
    let memory = MemorySink::new();
    let waits = inner.retry(RetryPolicy::fixed(HOUR, 1000)).isolated(10).flush_timeout(Duration::ZERO);
    let collector = builder().sink(waits).sink(memory.clone()).start().unwrap();
    for round in 1..5 {
        scalars(&collector, "a", 0..10);
        assert!(!collector.flush().unwrap().is_clean());
        assert_eq!(memory.len(), 10 * round);
    }
    until("the first try", || calls.load(Ordering::Relaxed) == 1);
    assert_eq!(sink(&collector, "flaky").in_flight, 40);
    assert!(matches!(collector.stop(), Err(StopError::TimedOut { .. })), "reported, not waited for");
    law(&collector, 40);
    collector.start().unwrap();
    // Taken out, it gives up; each batch in the queue has its one try.
    let _ = collector.remove_sink("flaky");
    until("each has its try", || calls.load(Ordering::Relaxed) == 4);
    collector.stop().unwrap();
    law(&collector, 40);
}

#[test]
fn a_batch_that_failed_in_part_is_tried_again_if_the_sink_remembers_which_events_failed() {
    for is_resumable in [true, false] {
        let calls = Arc::new(AtomicU64::new(0));
        let calling = Arc::clone(&calls);
        let sink = from_fn("sink", move |batch: &Batch<Tick>| {
            assert_eq!(batch.len(), 5);
            if calling.fetch_add(1, Ordering::Relaxed) > 0 {
                return Ok(());
            }
            let error = SinkError::unavailable("busy").with_failed_events(2);
            Err(if is_resumable { error.resumable() } else { error })
        });
        let policy = RetryPolicy::fixed(Duration::ZERO, 3);
        let collector = ticks().flush(HOURLY).sink(sink.retry(policy)).start().unwrap();
        for number in 0..5 {
            collector.collect(tick(number));
        }
        collector.stop().unwrap();
        let stats = law(&collector, 5);
        let expected = if is_resumable { (2, 5, 0) } else { (1, 3, 2) };
        assert_eq!(
            (calls.load(Ordering::Relaxed), stats.sinks[0].delivered, stats.sinks[0].failed),
            expected
        );
    }
}

#[test]
fn what_may_offer_another_batch_in_between_is_not_tried_again_for_a_part() {
    type Chain = fn(Partly) -> Box<dyn Sink<Tick>>;
    let chains: [Chain; 3] = [
        |sink| {
            Box::new(sink.dead_letters(&DeadLetters::new(10)).retry(RetryPolicy::fixed(Duration::ZERO, 3)))
        },
        |sink| Box::new(sink.filter(|_| true).retry(RetryPolicy::fixed(Duration::ZERO, 3))),
        |sink| Box::new(sink.route("*").retry(RetryPolicy::fixed(Duration::ZERO, 3))),
    ];
    for chain in chains {
        let calls = Arc::new(AtomicU64::new(0));
        let collector = ticks().flush(HOURLY).sink(chain(Partly(Arc::clone(&calls)))).start().unwrap();
        (0..5).for_each(|number| _ = collector.collect(tick(number)));
        collector.stop().unwrap();
        let stats = law(&collector, 5);
        assert_eq!(
            (calls.load(Ordering::Relaxed), stats.sinks[0].delivered, stats.sinks[0].failed),
            (1, 3, 2)
        );
    }
}

/// Takes all but two events of a batch, and would go on with these.
struct Partly(Arc<AtomicU64>);

impl Sink<Tick> for Partly {
    fn name(&self) -> &str {
        "partly"
    }

    fn write_batch(&mut self, _: &Batch<Tick>) -> Result<(), SinkError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Err(SinkError::unavailable("busy").with_failed_events(2).resumable())
    }
}

#[test]
fn a_destination_that_takes_parts_opens_a_breaker_and_what_it_took_is_no_dead_letter() {
    let calls = Arc::new(AtomicU64::new(0));
    let calling = Arc::clone(&calls);
    // It takes three of five, and then no more.
    let sink = from_fn("sink", move |_: &Batch<Tick>| {
        calling.fetch_add(1, Ordering::Relaxed);
        Err(SinkError::unavailable("busy").with_failed_events(2).resumable())
    });
    let mut policy = BreakerPolicy::default();
    policy.failures = 2;
    let (breaker, letters) = (sink.breaker(policy), DeadLetters::new(100));
    let watch = breaker.watch();
    let chain = breaker.retry(RetryPolicy::fixed(Duration::ZERO, 5)).dead_letters(&letters);
    let collector = ticks().flush(HOURLY).sink(chain).start().unwrap();
    for number in 0..5 {
        collector.collect(tick(number));
    }
    collector.stop().unwrap();
    let stats = law(&collector, 5);
    assert_eq!((watch.opened(), calls.load(Ordering::Relaxed)), (1, 2));
    // The breaker said that all have failed.
    assert_eq!((stats.sinks[0].delivered, stats.sinks[0].failed, stats.sinks[0].retries), (3, 2, 5));
    assert!(letters.is_empty(), "they would come twice");
}

#[test]
fn retries_end_by_number_and_by_time() {
    let tries = |policy: RetryPolicy| {
        let (inner, _, calls) = flaky(|_| Some(nobody()));
        let letters = DeadLetters::new(10);
        let collector = builder().sink(inner.retry(policy).dead_letters(&letters)).start().unwrap();
        scalars(&collector, "a", 0..1);
        collector.stop().unwrap();
        law(&collector, 1);
        assert_eq!(u64::from(letters.entries()[0].attempts), calls.load(Ordering::Relaxed));
        calls.load(Ordering::Relaxed)
    };
    assert_eq!(tries(RetryPolicy::fixed(Duration::ZERO, 0)), 1);
    assert_eq!(tries(RetryPolicy::fixed(Duration::ZERO, 3)), 4);
    assert_eq!(tries(RetryPolicy::fixed(HOUR, 3).max_elapsed(Duration::from_secs(60))), 1);
    assert_eq!(tries(RetryPolicy::list([Duration::ZERO, HOUR]).max_elapsed(Duration::from_secs(60))), 2);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn waits_grow_as_those_of_backon(first in 1..10_000u64, retries in 0..40u32, cap in 1..100_000u64) {
        use backon::BackoffBuilder;
        let (first, cap) = (Duration::from_millis(first), Duration::from_millis(cap));
        let ours = RetryPolicy::exponential(first, retries).cap(cap);
        let theirs = backon::ExponentialBuilder::default()
            .with_min_delay(first.min(cap))
            .with_max_delay(cap)
            .with_factor(2.0)
            .with_max_times(retries as usize)
            .build();
        let ours: Vec<Duration> = (0..).map_while(|retry| ours.delay(retry)).collect();
        let theirs: Vec<Duration> = theirs.collect();
        prop_assert_eq!(ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(&theirs) {
            // They count in floats.
            prop_assert!(ours.abs_diff(*theirs) <= *ours / 100_000 + Duration::from_micros(1), "{:?} {:?}", ours, theirs);
        }
    }

    #[test]
    fn a_list_goes_on_by_doubling(list in prop::collection::vec(0..1000u64, 1..5), more in 0..5u32) {
        let policy = RetryPolicy::list(list.iter().copied().map(Duration::from_millis));
        let longer = policy.clone().retries(list.len() as u32 + more);
        let waits = |policy: &RetryPolicy| -> Vec<u64> {
            (0..).map_while(|retry| policy.delay(retry)).map(|wait| wait.as_millis() as u64).collect()
        };
        prop_assert_eq!(waits(&policy), list.clone());
        let mut expected = list.clone();
        (0..more).for_each(|_| expected.push(expected.last().unwrap() * 2));
        prop_assert_eq!(waits(&longer), expected);
    }
}

// ---- dead letters ----

#[test]
fn dead_letters_are_kept_looked_at_and_delivered_once_when_they_are_redriven() {
    let (inner, memory, _) = flaky(|call| (call < 2).then(nobody));
    let letters = DeadLetters::new(100);
    let collector = builder().sink(inner.dead_letters(&letters)).start().unwrap();
    scalars(&collector, "a", 0..5);
    let report = collector.flush().unwrap();
    assert_eq!((report.sinks[0].dead_lettered, report.sinks[0].failed, report.is_clean()), (5, 0, false));
    let entries = letters.entries();
    assert_eq!(entries.len(), 5);
    assert_eq!((entries[0].attempts, &*entries[0].error), (1, "sink unavailable: nobody is there"));
    // The second call fails as well: they stay, and are not offered again by themselves.
    assert_eq!(letters.redrive(None), 5);
    let _ = collector.flush().unwrap();
    let _ = collector.flush().unwrap();
    assert_eq!((letters.len(), letters.entries()[0].attempts), (5, 2));
    scalars(&collector, "a", 5..7);
    letters.redrive(None);
    let _ = collector.flush().unwrap();
    assert!(letters.is_empty());
    assert!(steps(&memory).into_iter().eq(0..7), "each once, the old ones first: {:?}", steps(&memory));
    collector.stop().unwrap();
    law(&collector, 7);
    let stats = sink(&collector, "flaky");
    assert_eq!((stats.delivered, stats.dead_lettered, stats.redriven), (2, 5, 5));
}

#[test]
fn dead_letters_that_fail_again_keep_their_order() {
    let letters = DeadLetters::new(200);
    let collector = builder().sink(failing("down").dead_letters(&letters)).start().unwrap();
    scalars(&collector, "a", 0..150);
    let _ = collector.flush().unwrap();
    assert_eq!(letters.redrive(None), 150);
    // A hundred at once.
    for attempts in [(2, 1), (2, 2)] {
        let _ = collector.flush().unwrap();
        let entries = letters.entries();
        assert!(entries.iter().map(|letter| letter.event.step()).eq((0..150).map(Some)));
        assert_eq!((entries[0].attempts, entries[149].attempts), attempts);
    }
    collector.stop().unwrap();
    law(&collector, 150);
}

#[test]
fn only_letters_are_promised_that_somebody_will_take() {
    let letters = DeadLetters::new(100);
    let collector = builder().start().unwrap();
    collector.add_sink(failing("removed").dead_letters(&letters)).unwrap();
    collector.add_sink(failing("isolated").dead_letters(&letters).isolated(10)).unwrap();
    let (inner, memory, _) = flaky(|call| (call == 0).then(nobody));
    collector.add_sink(inner.dead_letters(&letters)).unwrap();
    scalars(&collector, "a", 0..10);
    let _ = collector.flush().unwrap();
    assert_eq!(letters.len(), 30);
    collector.remove_sink("removed").unwrap();
    collector.remove_sink("isolated").unwrap();
    // Another sink of the same name is another sink.
    collector.add_sink(MemorySink::new().named("removed").dead_letters(&letters)).unwrap();
    assert_eq!(letters.redrive(None), 10);
    let _ = collector.flush().unwrap();
    assert_eq!((letters.len(), memory.len(), letters.redrive(None)), (20, 10, 0));
    collector.stop().unwrap();
    law(&collector, 10);
    drop(collector);
    assert_eq!((letters.len(), letters.redrive(None)), (20, 0), "there is no collector any more");
}

#[test]
fn a_sink_with_a_thread_of_its_own_takes_no_letters_from_outside() {
    hush();
    let (memory, letters) = (MemorySink::new(), DeadLetters::new(100));
    let is_broken = Arc::new(AtomicU64::new(1));
    let seen = Arc::clone(&is_broken);
    let mapped = memory.clone().isolated(8).map(move |record: &Record| {
        assert_eq!(seen.load(Ordering::Relaxed), 0, "on purpose");
        record.clone()
    });
    let collector = builder().sink(mapped.dead_letters(&letters)).start().unwrap();
    scalars(&collector, "a", 0..10);
    let _ = collector.flush().unwrap();
    is_broken.store(0, Ordering::Relaxed);
    scalars(&collector, "a", 10..12);
    let _ = collector.flush().unwrap();
    assert_eq!((letters.redrive(None), memory.len()), (10, 2));
    let _ = collector.flush().unwrap();
    collector.stop().unwrap();
    law(&collector, 12);
    let stats = sink(&collector, "memory");
    assert_eq!((stats.delivered, stats.dead_lettered, stats.redriven), (2, 10, 0));
    assert_eq!((letters.len(), memory.len()), (10, 2), "they can be looked at, and offered elsewhere");
}

#[test]
fn letters_that_come_later_leave_the_mark_of_those_that_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/events.jsonl");
    let letters = DeadLetters::new(4);
    let sink = JsonLinesSink::create(&path).unwrap();
    let collector = builder().sink(sink.dead_letters(&letters)).start().unwrap();
    scalars(&collector, "a", 0..2);
    let _ = collector.flush().unwrap();
    // The file cannot be begun anew, where there is another one in the place of its folder.
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path.parent().unwrap(), "").unwrap();
    scalars(&collector, "a", 2..12);
    let _ = collector.flush().unwrap();
    assert_eq!((letters.len(), letters.evicted()), (4, 6));
    std::fs::remove_file(path.parent().unwrap()).unwrap();
    assert_eq!(letters.redrive(None), 4);
    let _ = collector.flush().unwrap();
    assert!(letters.is_empty());
    scalars(&collector, "a", 12..13);
    collector.stop().unwrap();
    law(&collector, 13);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains("forebay.gap") && lines[0].ends_with("\"integer\":10}"), "{text}");
    let reported = lines.iter().filter(|line| line.contains("forebay.gap")).count();
    assert_eq!((lines.len(), reported), (6, 1), "four letters and a new one: {text}");
}

#[test]
fn a_full_queue_of_letters_forgets_the_oldest_and_counts() {
    let letters = DeadLetters::new(3);
    let collector = builder().sink(failing("broken").dead_letters(&letters)).start().unwrap();
    scalars(&collector, "a", 0..5);
    collector.stop().unwrap();
    law(&collector, 5);
    let kept: Vec<_> = letters.purge().into_iter().map(|letter| letter.event.step()).collect();
    assert_eq!(kept, [Some(2), Some(3), Some(4)]);
    assert_eq!((letters.evicted(), letters.len()), (2, 0));
    assert_eq!(sink(&collector, "broken").dead_lettered, 5);
}

#[test]
fn redriving_keeps_to_its_pace() {
    let (inner, memory, _) = flaky(|call| (call == 0).then(nobody));
    let letters = DeadLetters::new(100);
    let collector = builder().sink(inner.dead_letters(&letters)).start().unwrap();
    scalars(&collector, "a", 0..10);
    let _ = collector.flush().unwrap();
    // Three at once; the next comes in a third of a second at the earliest, which a slow machine may reach.
    let begun = Instant::now();
    letters.redrive(Some(3));
    let _ = collector.flush().unwrap();
    let most = 3 + 3 * (begun.elapsed().as_secs() + 1);
    assert!((3..=most).contains(&(memory.len() as u64)), "{}", memory.len());
    until("all are redriven", || {
        let _ = collector.flush().unwrap();
        letters.is_empty()
    });
    assert!(steps(&memory).into_iter().eq(0..10), "in order, each once");
    collector.stop().unwrap();
    law(&collector, 10);
}

// ---- breaker ----

#[test]
fn a_breaker_opens_probes_and_closes() {
    let clock = ManualClock::new();
    let broken = Arc::new(AtomicU64::new(1));
    let fails = Arc::clone(&broken);
    let (inner, memory, calls) = flaky(move |_| (fails.load(Ordering::Relaxed) == 1).then(nobody));
    let policy = BreakerPolicy::default();
    let breaker = inner.breaker(policy).manual_clock(&clock);
    let watch = breaker.watch();
    let collector = builder().sink(breaker).start().unwrap();
    let offer = |batches: u64| {
        for step in 0..batches {
            scalars(&collector, "a", step..step + 1);
            let _ = collector.flush().unwrap();
        }
    };
    offer(4);
    assert_eq!(watch.state(), BreakerState::Closed);
    offer(6);
    assert_eq!((watch.state(), calls.load(Ordering::Relaxed)), (BreakerState::Open, 5), "left alone");
    clock.advance(Duration::from_secs(29));
    offer(1);
    assert_eq!(calls.load(Ordering::Relaxed), 5);
    clock.advance(Duration::from_secs(1));
    offer(3);
    assert_eq!((watch.state(), calls.load(Ordering::Relaxed)), (BreakerState::Open, 6), "one probe");
    broken.store(0, Ordering::Relaxed);
    clock.advance(Duration::from_secs(30));
    offer(2);
    assert_eq!((watch.state(), watch.opened(), memory.len()), (BreakerState::Closed, 2, 2));
    collector.stop().unwrap();
    law(&collector, 16);
    let stats = sink(&collector, "flaky");
    assert_eq!((stats.delivered, stats.failed), (2, 14));
}

#[test]
fn a_breaker_opens_by_rate_and_by_panics() {
    hush();
    let batch = Batch::from_events(vec![Record::new("a")]);
    // Every other batch fails: never five in a row.
    let (inner, ..) = flaky(|call| (call % 2 == 1).then(nobody));
    let mut breaker = inner.breaker(BreakerPolicy::default());
    let watch = breaker.watch();
    for call in 0..20 {
        assert_eq!(watch.state(), BreakerState::Closed, "{call}");
        let _ = breaker.write_batch(&batch);
    }
    assert_eq!(watch.state(), BreakerState::Open);
    let mut policy = BreakerPolicy::default();
    policy.failures = 2;
    let mut breaker = panicking::<Record>("panics").breaker(policy);
    let watch = breaker.watch();
    for _ in 0..2 {
        let write = std::panic::AssertUnwindSafe(|| breaker.write_batch(&batch));
        assert!(std::panic::catch_unwind(write).is_err());
    }
    assert_eq!(watch.state(), BreakerState::Open);
    assert!(breaker.write_batch(&batch).unwrap_err().is_transient());
    // What cannot be delivered by anybody is no sign of a destination that is gone.
    let (inner, ..) = flaky(|_| Some(nobody().with_failed_events(1)));
    let mut breaker = inner.breaker(BreakerPolicy::default());
    let batch = Batch::from_events(vec![Record::new("a"), Record::new("b")]);
    (0..30).for_each(|_| assert!(breaker.write_batch(&batch).is_err()));
    assert_eq!(breaker.watch().state(), BreakerState::Closed);
}

#[test]
fn dead_letters_that_no_retry_helps_open_no_breaker() {
    let mut policy = BreakerPolicy::default();
    policy.failures = 3;
    let calls = Arc::new(AtomicU64::new(0));
    let called = Arc::clone(&calls);
    let inner = from_fn("invalid", move |_: &Batch| match called.fetch_add(1, Ordering::Relaxed) {
        0 => Err(nobody()),
        _ => Err(nobody().permanent()),
    });
    let invalid = inner.breaker(policy.clone());
    // An error that may go away is a sign of the destination, with dead letters as well.
    let gone = failing("gone").breaker(policy);
    let (of_invalid, of_gone) = (invalid.watch(), gone.watch());
    let (letters, letters_of_gone) = (DeadLetters::new(100), DeadLetters::new(100));
    let collector = builder()
        .sink(invalid.dead_letters(&letters))
        .sink(gone.dead_letters(&letters_of_gone))
        .start()
        .unwrap();
    scalars(&collector, "a", 0..10);
    let _ = collector.flush().unwrap();
    for _ in 0..2 {
        assert_eq!(of_gone.state(), BreakerState::Closed);
        assert_eq!((letters.redrive(None), letters_of_gone.redrive(None)), (10, 10));
        let _ = collector.flush().unwrap();
    }
    assert_eq!((of_invalid.opened(), of_gone.opened()), (0, 1));
    assert_eq!(calls.load(Ordering::Relaxed), 23, "all at once, then each letter by itself");
    collector.stop().unwrap();
    law(&collector, 10);
}

// ---- together ----

#[test]
fn whatever_fails_how_often_the_accounts_agree() {
    let all: fn(u64) -> Option<SinkError> = |_| Some(nobody());
    let half: fn(u64) -> Option<SinkError> =
        |call| (call.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 63 == 0).then(nobody);
    let every_other: fn(u64) -> Option<SinkError> = |call| (call % 2 == 0).then(nobody);
    for (which, fails) in [all, half, every_other].into_iter().enumerate() {
        for retries in [0, 1] {
            let (inner, memory, calls) = flaky(fails);
            let letters = DeadLetters::new(10_000);
            let mut policy = BreakerPolicy::default();
            (policy.failures, policy.window) = (u32::MAX, 0);
            let chain = inner
                .breaker(policy)
                .retry(RetryPolicy::fixed(Duration::ZERO, retries))
                .dead_letters(&letters)
                .route("a")
                .isolated(1000);
            let healthy = MemorySink::new().named("healthy");
            let collector = builder().batch_size(7).sink(chain).sink(healthy.clone()).start().unwrap();
            scalars(&collector, "a", 0..500);
            scalars(&collector, "b", 0..100);
            let _ = collector.flush().unwrap();
            collector.stop().unwrap();
            law(&collector, 600);
            let stats = sink(&collector, "flaky");
            assert_eq!((stats.in_flight, stats.evicted, stats.failed), (0, 0, 0));
            assert_eq!(stats.dead_lettered, letters.len() as u64);
            assert_eq!(stats.delivered, memory.len() as u64 + 100, "b is passed over");
            assert_eq!(memory.len() + letters.len(), 500, "each is in one place");
            assert_eq!(healthy.len(), 600);
            if retries == 1 && which == 2 {
                assert_eq!((memory.len(), letters.len()), (500, 0), "every other call works");
            }
            assert_eq!(calls.load(Ordering::Relaxed), stats.retries + memory_calls(&stats, &collector));
        }
    }
}

/// Returns how many batches with events of the route there were: each had a first try.
fn memory_calls(stats: &SinkStats, collector: &Collector) -> u64 {
    assert!(stats.offered == 600);
    // 500 events of the one name come first, in batches of seven.
    collector.stats().batches - (600 - 504) / 7 - u64::from((600 - 504) % 7 > 0)
}

#[test]
fn a_rate_limit_delivers_everything_in_its_time() {
    let memory = MemorySink::new();
    let collector = builder().batch_size(1).sink(memory.clone().rate_limited(200)).start().unwrap();
    scalars(&collector, "a", 0..30);
    let begun = Instant::now();
    let _ = collector.flush().unwrap();
    // The first 200 may come at once.
    assert!(begun.elapsed() < LONG);
    collector.stop().unwrap();
    law(&collector, 30);
    assert!(steps(&memory).into_iter().eq(0..30));
}

// ---- what reviews found ----

/// Returns a sink that writes each batch only after the worker has flushed: a flush that does not wait for the sink's
/// own thread is answered before.
fn late(name: &str, collector: &Arc<OnceLock<Collector>>, mut memory: MemorySink) -> impl Sink + 'static {
    let collector = Arc::clone(collector);
    let mut written = 0;
    from_fn(name, move |batch: &Batch| {
        let flushes = || collector.get().map_or(0, |collector| collector.stats().flushes);
        until("the worker has flushed", || flushes() > written);
        // A busy machine takes milliseconds for each.
        (0..100).for_each(|_| std::thread::yield_now());
        written += 1;
        memory.write_batch(batch)
    })
}

#[test]
fn a_flush_reaches_through_two_queues_and_a_stop_waits_for_all_that_can_end() {
    let (inner, other, gate) = (MemorySink::new(), MemorySink::new(), Gate::closed());
    let known = Arc::default();
    let collector = builder()
        .sink(late("nested", &known, inner.clone()).isolated(8).rate_limited(1_000_000))
        .sink(gate.sink().isolated(8).flush_timeout(Duration::ZERO))
        .sink(late("late", &known, other.clone()).isolated(8))
        .start()
        .unwrap();
    _ = known.set(collector.clone());
    scalars(&collector, "a", 0..10);
    let report = collector.flush().unwrap();
    let named: Vec<&str> =
        report.sinks.iter().filter(|sink| sink.error.is_some()).map(|sink| sink.name.as_str()).collect();
    assert_eq!((named, inner.len(), other.len()), (vec!["gate"], 10, 10));
    scalars(&collector, "a", 0..10);
    let Err(StopError::TimedOut { report }) = collector.stop() else { panic!("the gate is closed") };
    assert_eq!((report.busy_sink.as_deref(), inner.len(), other.len()), (Some("gate"), 20, 20));
    law(&collector, 20);
    gate.open();
}

#[test]
fn a_failure_behind_a_route_or_counted_in_full_is_one_of_the_whole() {
    let whole: fn(u64) -> Option<SinkError> = |_| Some(nobody());
    let counted: fn(u64) -> Option<SinkError> = |_| Some(nobody().with_failed_events(5));
    for fails in [whole, counted] {
        let (inner, _, calls) = flaky(fails);
        let letters = DeadLetters::new(100);
        let retry = RetryPolicy::fixed(Duration::ZERO, 3);
        let collector = builder().sink(inner.retry(retry).dead_letters(&letters).route("a")).start().unwrap();
        scalars(&collector, "a", 0..5);
        scalars(&collector, "b", 0..5);
        collector.stop().unwrap();
        law(&collector, 10);
        assert_eq!((calls.load(Ordering::Relaxed), letters.len()), (4, 5));
    }
    // The route inside: tried again as well, and a breaker sees it.
    let (inner, _, calls) = flaky(whole);
    let breaker = inner.route("a").breaker(BreakerPolicy::default());
    let watch = breaker.watch();
    let collector = builder().sink(breaker.retry(RetryPolicy::fixed(Duration::ZERO, 4))).start().unwrap();
    scalars(&collector, "a", 0..5);
    scalars(&collector, "b", 0..5);
    collector.stop().unwrap();
    law(&collector, 10);
    let stats = sink(&collector, "flaky");
    assert_eq!((calls.load(Ordering::Relaxed), watch.state()), (5, BreakerState::Open));
    assert_eq!((stats.delivered, stats.failed), (5, 5), "b was passed over");
}

#[test]
fn the_last_handle_leaves_a_retry_the_time_that_a_stop_would() {
    let (inner, memory, _) = flaky(|call| (call == 0).then(nobody));
    let retry = RetryPolicy::fixed(Duration::from_millis(20), 3);
    let collector = builder().drop_timeout(LONG).sink(inner.retry(retry)).start().unwrap();
    scalars(&collector, "a", 0..10);
    drop(collector);
    assert_eq!(memory.len(), 10);
}

#[cfg(feature = "futures")]
#[test]
fn a_flush_that_is_dropped_beside_a_hung_sink_leaves_its_news_to_the_next() {
    use std::future::Future;
    use std::task::{Context, Waker};
    let gate = Gate::closed();
    let hung = gate.sink().isolated(4).flush_timeout(Duration::ZERO);
    let collector = builder().sink(failing("fails")).sink(hung).start().unwrap();
    scalars(&collector, "a", 0..5);
    let mut flush = Box::pin(collector.flush_async());
    let begun = Instant::now();
    // Until the worker has done its part, and some time more: it answers right after.
    let mut after = 0;
    while after < 1000 {
        assert!(flush.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert!(begun.elapsed() < LONG);
        after += u64::from(collector.stats().flushes == 1);
        std::thread::yield_now();
    }
    drop(flush);
    let report = collector.flush().unwrap();
    assert_eq!((report.sinks[0].failed, report.sinks[0].error.is_some()), (5, true));
    gate.open();
    until("the other one has ended", || sink(&collector, "gate").in_flight == 0);
    // It is left no time to say so.
    let _ = collector.stop();
    law(&collector, 5);
}

#[test]
fn flushes_that_gave_up_leave_nothing_in_the_queue_of_a_hung_sink() {
    struct Flushes(Gate, Arc<AtomicU64>);
    impl Sink for Flushes {
        fn name(&self) -> &str {
            "flushes"
        }
        fn write_batch(&mut self, _: &Batch) -> Result<(), SinkError> {
            self.0.pass();
            Ok(())
        }
        fn flush(&mut self) -> Result<(), SinkError> {
            self.1.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }
    let (gate, flushes) = (Gate::closed(), Arc::new(AtomicU64::new(0)));
    let hung = Flushes(gate.clone(), Arc::clone(&flushes)).isolated(4).flush_timeout(Duration::ZERO);
    let collector = builder().sink(hung).start().unwrap();
    scalars(&collector, "a", 0..1);
    (0..1000).for_each(|_| assert!(!collector.flush().unwrap().is_clean()));
    gate.open();
    until("it has ended", || sink(&collector, "flushes").in_flight == 0);
    let _ = collector.stop();
    law(&collector, 1);
    assert!(flushes.load(Ordering::Relaxed) <= 3, "{flushes:?}");
}

#[test]
fn dead_letters_survive_panics_bad_ones_among_them_and_go_back_to_their_own() {
    hush();
    // The first batch fails; what is redriven panics once, then one letter is the reason of a permanent error.
    let memory = MemorySink::new();
    let mut kept = memory.clone();
    let mut call = 0;
    let sessions = Arc::new(Mutex::new(Vec::new()));
    let reported = Arc::clone(&sessions);
    let inner = from_fn("odd", move |batch: &Batch| {
        call += 1;
        match call {
            1 => Err(nobody()),
            2 => panic!("on purpose"),
            _ if batch.iter().any(|record| record.step() == Some(3)) => Err(nobody().permanent()),
            _ => {
                reported.lock().unwrap().push(batch.session().to_owned());
                kept.write_batch(batch)
            }
        }
    });
    let letters = DeadLetters::new(100);
    let collector = builder()
        .sink(inner.dead_letters(&letters))
        .sink(MemorySink::new().named("another").dead_letters(&letters))
        .start()
        .unwrap();
    scalars(&collector, "a", 0..5);
    let _ = collector.flush().unwrap();
    letters.redrive(None);
    let _ = collector.flush().unwrap();
    assert_eq!((letters.len(), letters.entries()[0].attempts), (5, 2), "a panic loses none");
    letters.redrive(None);
    let _ = collector.flush().unwrap();
    let left: Vec<_> = letters.entries().iter().map(|letter| letter.event.step()).collect();
    assert_eq!((left, steps(&memory)), (vec![Some(3)], vec![0, 1, 2, 4]), "one by one");
    assert!(sessions.lock().unwrap().iter().all(|session| session == collector.session_id()));
    collector.stop().unwrap();
    law(&collector, 5);
    let stats = sink(&collector, "odd");
    assert_eq!((stats.dead_lettered, stats.redriven, stats.panics), (5, 4, 1));
    assert_eq!(sink(&collector, "another").delivered, 5, "and nothing of the other's letters");
    // A panic makes letters as an error does.
    let letters = DeadLetters::new(100);
    let collector = builder().sink(panicking::<Record>("panics").dead_letters(&letters)).start().unwrap();
    scalars(&collector, "a", 0..3);
    collector.stop().unwrap();
    law(&collector, 3);
    assert_eq!((letters.len(), &*letters.entries()[0].error), (3, "panicked: on purpose"));
}

#[test]
fn what_letters_forget_ends_without_harm() {
    hush();
    struct Bomb(DeadLetters<Bomb>, bool);
    impl Event for Bomb {}
    impl Clone for Bomb {
        fn clone(&self) -> Self {
            Self(self.0.clone(), true)
        }
    }
    impl Drop for Bomb {
        fn drop(&mut self) {
            // It looks at the queue that forgets it, and panics.
            let _ = self.0.len();
            if self.1 {
                std::panic::panic_any("on purpose");
            }
        }
    }
    let letters = DeadLetters::new(1);
    let collector = Builder::<Bomb>::new()
        .flush(HOURLY)
        .sink(failing::<Bomb>("fails").dead_letters(&letters))
        .start()
        .unwrap();
    for _ in 0..5 {
        collector.collect(Bomb(letters.clone(), false));
    }
    let _ = collector.flush().unwrap();
    letters.redrive(None);
    let _ = collector.flush().unwrap();
    collector.stop().unwrap();
    law(&collector, 5);
    assert_eq!((letters.len(), letters.evicted()), (1, 4));
    std::mem::forget((letters, collector));
}

#[test]
fn odd_policies_and_odd_sinks_do_no_harm() {
    hush();
    let (inner, _, calls) = flaky(|_| Some(nobody()));
    let retry = RetryPolicy::fixed(Duration::MAX, 3).max_elapsed(HOUR);
    let collector = builder().sink(inner.retry(retry)).start().unwrap();
    scalars(&collector, "a", 0..1);
    collector.stop().unwrap();
    law(&collector, 1);
    assert_eq!((calls.load(Ordering::Relaxed), sink(&collector, "flaky").panics), (1, 0));
    struct Odd;
    impl Sink for Odd {
        fn name(&self) -> &str {
            "odd"
        }
        fn write_batch(&mut self, _: &Batch) -> Result<(), SinkError> {
            Ok(())
        }
        fn hook(&mut self, hook: Hook<'_>) {
            if matches!(hook, Hook::MayWait(_)) {
                std::panic::panic_any("on purpose")
            }
        }
    }
    collector.add_sink(Odd).unwrap();
    assert_eq!(collector.sinks(), ["flaky", "odd"]);
    assert_eq!(sink(&collector, "odd").panics, 1, "it is counted, and reaches no caller");
}

/// A wrapper of somebody else, which knows the three methods of a sink and no more.
struct Foreign<S>(S);

impl<S: Sink> Sink for Foreign<S> {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn write_batch(&mut self, batch: &Batch) -> Result<(), SinkError> {
        self.0.write_batch(batch)
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.0.flush()
    }
}

#[test]
fn inside_of_somebody_elses_wrapper_ours_have_no_thread_and_no_waits_and_the_account_is_exact() {
    // The third and the fourth of ten batches fail.
    let fails = |call| (2..4).contains(&call).then(nobody);
    let letters = DeadLetters::new(1000);
    type Wrap = fn(Box<dyn Sink>, &DeadLetters) -> Box<dyn Sink>;
    let wrapped: [(&str, Wrap); 4] = [
        ("isolated", |sink, _| Box::new(Foreign(sink.isolated(4)))),
        ("retry", |sink, _| Box::new(Foreign(sink.retry(RetryPolicy::fixed(HOUR, 3))))),
        ("rate_limited", |sink, _| Box::new(Foreign(sink.rate_limited(1)))),
        ("dead_letters", |sink, letters| Box::new(Foreign(sink.dead_letters(letters).isolated(4)))),
    ];
    for (name, wrap) in wrapped {
        let (inner, memory, calls) = flaky(fails);
        let collector = builder().batch_size(10).sink(wrap(Box::new(inner), &letters)).start().unwrap();
        scalars(&collector, "a", 0..100);
        assert!(!collector.flush().unwrap().is_clean(), "{name}");
        let stats = sink(&collector, "flaky");
        assert_eq!((stats.delivered, stats.failed, stats.in_flight), (80, 20, 0), "{name}");
        assert_eq!((memory.len(), calls.load(Ordering::Relaxed)), (80, 10), "{name}");
        assert_eq!(
            letters.len(),
            if name == "dead_letters" { 20 } else { 0 },
            "they are kept, and not delivered"
        );
        if name == "dead_letters" {
            assert_eq!(letters.redrive(None), 20);
            let _ = collector.flush().unwrap();
            assert_eq!((letters.len(), memory.len()), (0, 100));
        }
        collector.stop().unwrap();
        law(&collector, 100);
    }
}
