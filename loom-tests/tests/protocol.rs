//! The models: the shipped collector on the real ring, one promise each. Run them with `./run`.

use std::task::Waker;
use std::time::Duration;

use forebay::collector::{FlushError, StopError};
use forebay::sink::{Sink, SinkError, SinkExt, from_fn};
use forebay::{Batch, Collector, FlushStrategy, Outcome, Overflow};
use forebay_loom_tests::{
    EAGER, Heavy, Log, Tick, Witness, check, check_at, check_long, law, poll_once, signal_waker, small,
    small_of, wait_for,
};
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::sync::{Arc, Notify};
use loom::thread;

const MANUAL: FlushStrategy = FlushStrategy::Manual;
const FOREVER: Duration = Duration::MAX;
const DAY: Duration = Duration::from_secs(24 * 3600);

// ---- wake-up ----

/// Must report `announce-fence-removed`, `no-second-look-at-the-rings`, `producer-does-not-notify` and `push-fence-removed`.
#[test]
fn an_event_alone_wakes_the_worker() {
    check("an event alone wakes the worker", 3, 10_000, || {
        let signal = Arc::new(Notify::new());
        let collector = small(2, EAGER).sink(Log::notifying(&signal)).start().unwrap();
        assert_eq!(collector.collect(Tick(0)), Outcome::Queued);
        // Nothing but the event can wake the worker, nothing but the worker rings.
        signal.wait();
        collector.stop().unwrap();
        law(&collector, 1);
    });
}

/// Must report `producer-does-not-notify`.
#[test]
fn the_event_that_makes_enough_pending_wakes_the_worker() {
    check("the second of two producers wakes the worker", 1, 17_000, || {
        let signal = Arc::new(Notify::new());
        let collector =
            small(2, FlushStrategy::Size { events: 2 }).sink(Log::notifying(&signal)).start().unwrap();
        let other = thread::spawn({
            let collector = collector.clone();
            move || collector.collect(Tick(0))
        });
        collector.collect(Tick(1));
        signal.wait();
        other.join().unwrap();
        collector.stop().unwrap();
        assert_eq!(law(&collector, 2).processed, 2);
    });
}

/// Must report `critical-does-not-notify`.
#[test]
fn a_critical_event_wakes_the_worker() {
    check("a critical event wakes the worker", 3, 19_000, || {
        let signal = Arc::new(Notify::new());
        // Neither enough events nor a full lane.
        let builder = small(2, FlushStrategy::Size { events: 2 }).critical_capacity(2);
        let collector = builder.sink(Log::notifying(&signal)).start().unwrap();
        collector.collect(Tick(100));
        signal.wait();
        collector.stop().unwrap();
        law(&collector, 1);
    });
}

/// Must report `full-lane-does-not-notify`.
#[test]
fn a_full_lane_wakes_the_worker() {
    check("a full lane wakes the worker", 3, 10_000, || {
        let signal = Arc::new(Notify::new());
        // Two events would set off a delivery, but the low lane has only one slot.
        let builder = small(2, FlushStrategy::Size { events: 2 });
        let collector = builder.sink(Log::notifying(&signal)).start().unwrap();
        collector.collect(Tick(200));
        signal.wait();
        collector.stop().unwrap();
        law(&collector, 1);
    });
}

/// Must report `nap-announces-no-threshold`, `nap-lasts-until-a-lane-is-full` and `nap-looks-for-more-than-it-announced`.
#[test]
fn half_a_lane_ends_a_nap() {
    check_long("half a lane ends a nap", 2, 15_000, 740, || {
        let (signal, delivered) = (Arc::new(Notify::new()), Arc::new(AtomicU32::new(0)));
        let sink = from_fn("counts", {
            let (signal, delivered) = (Arc::clone(&signal), Arc::clone(&delivered));
            move |batch: &Batch<Tick>| {
                delivered.fetch_add(batch.len() as u32, Ordering::Relaxed);
                signal.notify();
                Ok(())
            }
        });
        // Two events are a batch, three are half of the lane. No timer of a model ever ends a nap.
        let builder = small(6, FlushStrategy::Size { events: 2 }).low_capacity(6).max_nap(DAY);
        let collector = builder.sink(sink).start().unwrap();
        (0..6).for_each(|number| _ = collector.collect(Tick(number)));
        // Two may be left, which do not end a nap.
        while delivered.load(Ordering::Relaxed) < 4 {
            signal.wait();
        }
        collector.stop().unwrap();
        assert_eq!(law(&collector, 6).processed, 6);
    });
}

/// Must report `stop-does-not-notify`.
#[test]
fn a_stop_ends_a_nap() {
    check("a stop ends a nap", 2, 4_300, || {
        let builder = small(8, FlushStrategy::Size { events: 2 }).low_capacity(8).max_nap(DAY);
        let collector = builder.start().unwrap();
        let other = thread::spawn({
            let collector = collector.clone();
            move || (0..3).for_each(|number| _ = collector.collect(Tick(number)))
        });
        other.join().unwrap();
        collector.stop().unwrap();
        assert_eq!(law(&collector, 3).processed, 3);
    });
}

/// Checks that a low and a normal event wake the worker together, of one thread and of two. `start` makes a collector for which neither is
/// enough.
fn check_low_and_normal(names: [&'static str; 2], start: fn(&Arc<Notify>) -> Collector<Tick>) {
    check_long(names[0], 2, 14_000, 1700, move || {
        let signal = Arc::new(Notify::new());
        let collector = start(&signal);
        collector.collect(Tick(200));
        collector.collect(Tick(0));
        signal.wait();
        collector.stop().unwrap();
        law(&collector, 2);
    });
    check(names[1], 1, 7_700, move || {
        let signal = Arc::new(Notify::new());
        let collector = start(&signal);
        let other = thread::spawn({
            let collector = collector.clone();
            move || collector.collect(Tick(200))
        });
        collector.collect(Tick(0));
        signal.wait();
        other.join().unwrap();
        collector.stop().unwrap();
        law(&collector, 2);
    });
}

/// Must report `split-ring-does-not-notify`.
#[test]
fn the_fullest_of_two_rings_and_the_low_lane_together_wake_the_worker() {
    let names = [
        "two rings: a low event, then a normal one, wake it",
        "two rings: a low and a normal event of two producers",
    ];
    // One event in a ring of two counts as two; the low one is the third.
    check_low_and_normal(names, |signal| {
        let builder = small(4, FlushStrategy::Size { events: 3 }).shards(2).low_capacity(2);
        builder.sink(Log::notifying(signal)).start().unwrap()
    });
}

/// Must report `ring-overlooks-low-events`.
#[test]
fn a_low_and_a_normal_event_together_wake_the_worker() {
    let names =
        ["a low event, then a normal one, wake the worker", "a low and a normal event of two producers wake it"];
    check_low_and_normal(names, |signal| {
        let builder = small(2, FlushStrategy::Size { events: 2 }).low_capacity(2);
        builder.sink(Log::notifying(signal)).start().unwrap()
    });
}

/// Must report `new-settings-do-not-notify` and `new-settings-overlooked`.
#[test]
fn new_settings_alone_wake_the_worker() {
    check("new settings alone wake the worker", 3, 4_000, || {
        let signal = Arc::new(Notify::new());
        let collector = small(2, MANUAL).sink(Log::notifying(&signal)).start().unwrap();
        collector.collect(Tick(0));
        collector.update_config(|config| config.flush = EAGER).unwrap();
        // The event did not ring; the change must.
        signal.wait();
        collector.stop().unwrap();
        law(&collector, 1);
    });
}

/// Must report `new-settings-wake-nobody`.
#[test]
fn new_settings_release_who_waits_for_space() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("new settings release who waits for space", 3, 23, move || {
        let collector = small(1, MANUAL).overflow(Overflow::Block { timeout: DAY }).build().unwrap();
        collector.collect(Tick(0));
        let other = thread::spawn({
            let collector = collector.clone();
            move || collector.collect(Tick(1))
        });
        collector.update_config(|config| config.overflow = Overflow::DropNewest).unwrap();
        assert_eq!(other.join().unwrap(), Outcome::Full);
        collector.stop().unwrap();
        let stats = law(&collector, 2);
        assert_eq!(stats.rejected.full, 1);
        seen.saw(stats.waits);
    });
    witness.expect(&["0", "1"]);
}

/// Must report `task-does-not-ask-again-under-the-lock`.
#[test]
fn new_settings_reach_a_task_that_waits_for_space() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("new settings reach a CollectAsync that waits", 3, 37, move || {
        let collector = small(1, MANUAL).overflow(Overflow::Block { timeout: DAY }).build().unwrap();
        collector.collect(Tick(0));
        let other = thread::spawn({
            let collector = collector.clone();
            move || wait_for(collector.collect_async(Tick(1)))
        });
        collector.update_config(|config| config.overflow = Overflow::DropNewest).unwrap();
        assert_eq!(other.join().unwrap(), Outcome::Full);
        collector.stop().unwrap();
        let stats = law(&collector, 2);
        assert_eq!(stats.rejected.full, 1);
        seen.saw(stats.waits);
    });
    witness.expect(&["0", "1"]);
}

// ---- fates ----

/// Must report `eviction-uncounted`.
#[test]
fn accepted_is_delivered_or_evicted_in_order() {
    let witness = Witness::default();
    let seen = witness.clone();
    check_long("accepted = delivered + evicted, in order", 3, 67_000, 4100, move || {
        let log = Log::new();
        let collector = small(2, EAGER).sink(log.clone()).start().unwrap();
        for number in 0..3 {
            assert!(collector.collect(Tick(number)).is_queued());
        }
        collector.stop().unwrap();
        let stats = law(&collector, 3);
        let numbers = log.numbers();
        assert!(numbers.is_sorted() && numbers.len() as u64 == stats.processed);
        assert_eq!(numbers.last(), Some(&2), "the newest is never evicted");
        seen.saw(stats.evicted);
    });
    witness.expect(&["0", "1"]);
}

/// Must report `take-reverses-its-events`.
#[test]
fn two_producers_keep_their_order() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("two producers keep their order", 1, 67_000, move || {
        let log = Log::new();
        let collector = small(4, EAGER).sink(log.clone()).start().unwrap();
        let other = thread::spawn({
            let collector = collector.clone();
            move || (10..12).for_each(|number| _ = collector.collect(Tick(number)))
        });
        (0..2).for_each(|number| _ = collector.collect(Tick(number)));
        other.join().unwrap();
        collector.stop().unwrap();
        assert_eq!(law(&collector, 4).processed, 4);
        let numbers = log.numbers();
        assert!(numbers.iter().filter(|n| **n < 10).is_sorted());
        assert!(numbers.iter().filter(|n| **n >= 10).is_sorted());
        seen.saw(numbers);
    });
    witness.expect(&["[0, 1, 10, 11]", "[10, 11, 0, 1]", "[0, 10, 11, 1]"]);
}

/// Must report `eviction-uncounted`.
#[test]
fn gaps_add_up_to_evictions_after_a_flush() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("gaps add up to evictions after a flush", 2, 13_000, move || {
        let gaps = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let sink = from_fn("gaps", {
            let gaps = gaps.clone();
            move |batch: &Batch<Tick>| {
                gaps.fetch_add(batch.gap(), std::sync::atomic::Ordering::Relaxed);
                Ok(())
            }
        });
        let collector = small(1, EAGER).sink(sink).start().unwrap();
        (0..3).for_each(|number| _ = collector.collect(Tick(number)));
        let _ = collector.flush().unwrap();
        let evicted = collector.stats().evicted;
        assert_eq!(gaps.load(std::sync::atomic::Ordering::Relaxed), evicted);
        collector.stop().unwrap();
        law(&collector, 3);
        seen.saw(evicted);
    });
    witness.expect(&["0", "1", "2"]);
}

// ---- flush ----

/// Must report `answer-waited-for-once`, `flush-does-not-notify` and `no-second-look-at-the-mailbox`.
#[test]
fn a_flush_covers_what_was_collected_before_it() {
    check("a flush covers, and happens after, what came before", 3, 2_500, || {
        let log = Log::new();
        let collector = small(2, MANUAL).sink(log.clone()).start().unwrap();
        collector.collect(Tick(0));
        let _ = collector.flush().unwrap();
        // The cell of the log is read without any other edge than the flush.
        assert_eq!(log.numbers(), [0]);
        collector.stop().unwrap();
        law(&collector, 1);
    });
}

/// Must report `flush-does-not-notify`.
#[test]
fn a_flush_covers_what_another_thread_collected_before_it() {
    check_long("a flush covers what another thread reported", 1, 16_000, 310, || {
        let log = Log::new();
        let collector = small(2, EAGER).sink(log.clone()).start().unwrap();
        let other = thread::spawn({
            let collector = collector.clone();
            move || collector.collect(Tick(7))
        });
        collector.collect(Tick(0));
        other.join().unwrap();
        let _ = collector.flush().unwrap();
        let mut numbers = log.numbers();
        numbers.sort();
        assert_eq!(numbers, [0, 7]);
        collector.stop().unwrap();
        law(&collector, 2);
    });
}

/// Must report `flushers-stranded` and `ticket-after-the-drain`.
#[test]
fn two_flushers_are_both_answered() {
    check("two flushers are both answered, each covered", 1, 2_600, || {
        // Not modelled, so that it adds no edge and no schedules.
        let delivered = std::sync::Arc::new([const { std::sync::atomic::AtomicBool::new(false) }; 2]);
        let sink = from_fn("delivered", {
            let delivered = delivered.clone();
            move |batch: &Batch<Tick>| {
                for tick in batch {
                    delivered[tick.0 as usize].store(true, std::sync::atomic::Ordering::Relaxed);
                }
                Ok(())
            }
        });
        let collector = small(2, MANUAL).sink(sink).start().unwrap();
        let flush_after = {
            let (collector, delivered) = (collector.clone(), delivered.clone());
            move |number: u32| {
                collector.collect(Tick(number));
                let _ = collector.flush().unwrap();
                let is_there = delivered[number as usize].load(std::sync::atomic::Ordering::Relaxed);
                assert!(is_there, "not delivered by its flush: {number}");
            }
        };
        let other = thread::spawn({
            let flush_after = flush_after.clone();
            move || flush_after(1)
        });
        flush_after(0);
        other.join().unwrap();
        collector.stop().unwrap();
        assert_eq!(law(&collector, 2).processed, 2);
    });
}

/// Must report `last-requests-stranded`, `stop-does-not-notify` and `last-flush-answered-before-it`: what a flush is answered for has
/// been flushed.
#[test]
fn a_flush_against_a_stop_is_answered() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("a flush against a stop is answered", 2, 1_800, move || {
        let log = Log::new();
        let collector = small(2, MANUAL).sink(log.clone()).start().unwrap();
        collector.collect(Tick(0));
        let flusher = thread::spawn({
            let collector = collector.clone();
            let log = log.clone();
            move || {
                let flushed = collector.flush().map(drop);
                if flushed.is_ok() {
                    assert_eq!(log.numbers(), [0]);
                }
                flushed
            }
        });
        collector.stop().unwrap();
        let flushed = flusher.join().unwrap();
        assert!(matches!(flushed, Ok(()) | Err(FlushError::Stopped)), "{flushed:?}");
        assert_eq!(log.numbers(), [0]);
        law(&collector, 1);
        seen.saw(flushed);
    });
    witness.expect(&["Ok(())", "Err(Stopped)"]);
}

/// A sink without events that counts its flushes. Not modelled, so that it adds no edge and no schedules.
struct CountsFlushes(std::sync::Arc<std::sync::atomic::AtomicU32>);

impl Sink<Tick> for CountsFlushes {
    fn name(&self) -> &str {
        "counts flushes"
    }

    fn write_batch(&mut self, _: &Batch<Tick>) -> Result<(), SinkError> {
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Ok(())
    }
}

/// Must report `flush-admits-no-sink`.
#[test]
fn a_flush_covers_a_sink_that_was_added() {
    check("a flush covers a sink that was added", 2, 200, || {
        let flushes = std::sync::Arc::default();
        let collector = small(2, MANUAL).start().unwrap();
        collector.add_sink(CountsFlushes(std::sync::Arc::clone(&flushes))).unwrap();
        // No event has the worker look for new sinks.
        let report = collector.flush().unwrap();
        assert_eq!(report.sinks.len(), 1, "a sink that was not flushed");
        assert_eq!(flushes.load(std::sync::atomic::Ordering::SeqCst), 1, "not flushed");
        collector.stop().unwrap();
    });
}

/// Must report `sink-panic-not-caught`.
#[test]
fn a_panicking_sink_strands_no_flusher() {
    check("a panicking sink strands no flusher", 3, 3_300, || {
        let sink = from_fn("mad", |_: &Batch<Tick>| panic!("on purpose"));
        let collector = small(2, MANUAL).sink(sink).start().unwrap();
        collector.collect(Tick(0));
        let report = collector.flush().unwrap();
        assert_eq!(report.sinks[0].failed, 1);
        collector.stop().unwrap();
        law(&collector, 1);
    });
}

// ---- stop ----

/// Must report `pass-skips-a-ring`.
#[test]
fn two_rings_lose_nothing_while_it_stops() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("two rings: accepted or refused while it stops", 2, 14_000, move || {
        let log = Log::new();
        let collector = small(2, MANUAL).shards(2).sink(log.clone()).start().unwrap();
        // This thread has the first ring, the other the second.
        collector.collect(Tick(9));
        let producer = thread::spawn({
            let collector = collector.clone();
            move || collector.collect(Tick(0))
        });
        assert!(collector.flush_timeout(FOREVER).unwrap().processed >= 1);
        collector.stop().unwrap();
        let outcome = producer.join().unwrap();
        let numbers = log.numbers();
        assert!(numbers.contains(&9));
        assert_eq!(numbers.contains(&0), outcome == Outcome::Queued);
        law(&collector, 2);
        seen.saw((outcome, collector.stats().rejected.stopped));
    });
    witness.expect(&["(Queued, 0)", "(Stopped, 1)"]);
}

/// Must report `late-event-lost`, `no-sweep-after-stopped` and `stopped-before-the-drain`.
#[test]
fn what_is_accepted_while_it_stops_is_accounted_for() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("accepted or refused while it stops: accounted for", 2, 1_600, move || {
        let log = Log::new();
        let collector = small(2, MANUAL).sink(log.clone()).start().unwrap();
        collector.collect(Tick(9));
        let producer = thread::spawn({
            let collector = collector.clone();
            move || collector.collect(Tick(0))
        });
        collector.stop().unwrap();
        let outcome = producer.join().unwrap();
        // No other producer could have swept it: queued is delivered, refused is not.
        let numbers = log.numbers();
        assert!(numbers.contains(&9), "collected before the stop, not delivered");
        match outcome {
            Outcome::Queued => assert!(numbers.contains(&0)),
            Outcome::Stopped => assert_eq!(numbers, [9]),
            other => panic!("{other:?}"),
        }
        law(&collector, 2);
        seen.saw((outcome, collector.stats().rejected.stopped));
    });
    witness.expect(&["(Queued, 0)", "(Stopped, 1)"]);
}

/// Must report `no-sweep-after-stopped`.
#[test]
fn two_producers_while_it_stops_are_accounted_for() {
    let witness = Witness::default();
    let seen = witness.clone();
    check_at("two producers while it stops: accounted for", 1, 1_300, move || {
        let log = Log::new();
        let collector = small(2, MANUAL).sink(log.clone()).start().unwrap();
        let producers: Vec<_> = (0..2)
            .map(|number| {
                let collector = collector.clone();
                thread::spawn(move || collector.collect(Tick(number)))
            })
            .collect();
        collector.stop().unwrap();
        producers.into_iter().for_each(|producer| _ = producer.join().unwrap());
        let stats = law(&collector, 2);
        assert_eq!(log.numbers().len() as u64, stats.processed);
        seen.saw((stats.processed, stats.rejected.stopped));
    });
    witness.expect(&["(0, 2)", "(1, 1)", "(2, 0)"]);
}

/// Must report `end-wakes-one-who-stops` and `starting-worker-overlooked-by-a-stop`.
#[test]
fn two_stops_both_end() {
    check("two stops both end, and tell the same", 2, 1_300, || {
        let collector = small(2, MANUAL).sink(Log::new()).start().unwrap();
        collector.collect(Tick(0));
        let other = thread::spawn({
            let collector = collector.clone();
            move || collector.stop().unwrap().stats.processed
        });
        assert_eq!(collector.stop().unwrap().stats.processed, 1);
        assert_eq!(other.join().unwrap(), 1);
        law(&collector, 1);
    });
}

/// Must report `late-event-lost`.
#[test]
fn a_stop_before_the_start_discards_and_counts() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("a stop before the start discards and counts", 3, 82, move || {
        let collector = small(2, MANUAL).sink(Log::new()).build().unwrap();
        let producer = thread::spawn({
            let collector = collector.clone();
            move || collector.collect(Tick(0))
        });
        let report = collector.stop().unwrap();
        let outcome = producer.join().unwrap();
        assert_eq!(law(&collector, 1).rejected.stopped, 1);
        seen.saw((outcome, report.left_behind));
    });
    witness.expect(&["(Queued, 1)", "(Stopped, 0)"]);
}

/// Must report `stop-does-not-notify`.
#[test]
fn a_restarted_collector_loses_nothing() {
    check("a restart loses nothing", 2, 1_000, || {
        let log = Log::new();
        let collector = small(2, EAGER).sink(log.clone()).start().unwrap();
        collector.collect(Tick(0));
        collector.stop().unwrap();
        collector.start().unwrap();
        collector.collect(Tick(1));
        collector.stop().unwrap();
        assert_eq!(log.numbers(), [0, 1]);
        law(&collector, 2);
    });
}

/// Must report `draining-run-taken-for-ended` and `events-of-the-next-run-taken-for-late`.
#[test]
fn a_start_against_a_late_event_loses_nothing() {
    let witness = Witness::default();
    let seen = witness.clone();
    check_long("a late event against a restart: accounted for", 2, 34_000, 640, move || {
        let log = Log::new();
        let collector = small(2, MANUAL).sink(log.clone()).start().unwrap();
        let producer = thread::spawn({
            let collector = collector.clone();
            move || collector.collect(Tick(0))
        });
        collector.stop().unwrap();
        collector.start().unwrap();
        assert_eq!(collector.collect(Tick(1)), Outcome::Queued);
        collector.stop().unwrap();
        let outcome = producer.join().unwrap();
        let stats = law(&collector, 2);
        assert!(log.numbers().contains(&1), "an event of the new run was taken for a late one of the old");
        assert_eq!(log.numbers().len() as u64, stats.processed);
        seen.saw((outcome, stats.processed));
    });
    witness.expect(&["(Queued, 2)", "(Stopped, 1)"]);
}

/// Must report `run-read-behind-the-close` and `stop-waits-for-any-run`.
#[test]
fn a_stop_does_not_wait_for_a_run_that_was_started_meanwhile() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("a stop against a start waits for its own run", 2, 1_300, move || {
        let collector = small(1, MANUAL).start().unwrap();
        let starter = thread::spawn({
            let collector = collector.clone();
            move || collector.start().is_ok()
        });
        // Waiting is untimed here: for a run that nobody stops it would never end.
        collector.stop().unwrap();
        seen.saw(starter.join().unwrap());
        collector.stop().unwrap();
        law(&collector, 0);
    });
    witness.expect(&["true", "false"]);
}

/// Must report `stop-does-not-notify`.
#[test]
fn the_last_handle_stops_the_worker() {
    check("dropping the last handle delivers and ends", 3, 680, || {
        let log = Log::new();
        let collector = small(2, MANUAL).sink(log.clone()).start().unwrap();
        collector.collect(Tick(0));
        drop(collector);
        assert_eq!(log.numbers(), [0]);
    });
}

// ---- room ----

/// Must report `no-space-waiter-woken-by-the-drain`, `push-after-space-lock` and `waiting-thread-uncounted`.
#[test]
fn a_blocked_producer_is_released_by_the_drain() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("a blocked producer is released by the drain", 2, 7_700, move || {
        let log = Log::new();
        let overflow = Overflow::Block { timeout: FOREVER };
        let collector = small(1, EAGER).overflow(overflow).sink(log.clone()).start().unwrap();
        let outcomes = [0, 1].map(|number| collector.collect(Tick(number)));
        collector.stop().unwrap();
        assert_eq!(log.numbers(), [0, 1]);
        law(&collector, 2);
        seen.saw(outcomes[1]);
    });
    witness.expect(&["Queued", "QueuedAfterWait"]);
}

/// Must report `bytes-kept-by-the-drain`, `bytes-wanted-does-not-notify` and `bytes-wanted-fence-removed`.
#[test]
fn who_waits_for_bytes_is_released_by_the_delivery() {
    let witness = Witness::default();
    let seen = witness.clone();
    check_long("who waits for bytes is released by the delivery", 2, 40_000, 2700, move || {
        let log = from_fn("log", |_: &Batch<Heavy>| Ok(()));
        // Neither their number nor half of the bytes sets off a delivery: only that the second does not fit.
        let collector = small_of::<Heavy>(2, FlushStrategy::Size { events: 2 })
            .max_bytes(100)
            .overflow(Overflow::Block { timeout: FOREVER })
            .sink(log)
            .start()
            .unwrap();
        let outcomes = [Heavy(40), Heavy(60)].map(|event| collector.collect(event));
        collector.stop().unwrap();
        let stats = law(&collector, 2);
        assert_eq!((stats.processed, stats.pending_bytes), (2, 0));
        seen.saw(outcomes[1]);
    });
    witness.expect(&["QueuedAfterWait"]);
}

/// Must report `bytes-eviction-uncounted`.
#[test]
fn bytes_that_are_given_up_are_evicted_events() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("events that make space in bytes are counted, reported by a gap", 2, 12_000, move || {
        let (gaps, counter) =
            (std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0)), std::sync::atomic::Ordering::SeqCst);
        let sink = from_fn("gaps", {
            let gaps = gaps.clone();
            move |batch: &Batch<Heavy>| {
                gaps.fetch_add(batch.gap(), counter);
                Ok(())
            }
        });
        let collector = small_of::<Heavy>(2, EAGER).max_bytes(100).sink(sink).start().unwrap();
        [60, 60].into_iter().for_each(|bytes| _ = collector.collect(Heavy(bytes)));
        let _ = collector.flush().unwrap();
        let stats = collector.stats();
        assert_eq!(gaps.load(counter), stats.evicted);
        collector.stop().unwrap();
        let stats = law(&collector, 2);
        assert_eq!(stats.pending_bytes, 0);
        seen.saw((stats.processed, stats.evicted, stats.rejected.full));
    });
    // Made room; delivered before it was in the way. (In the hands of the worker, where nothing makes space: bound 3.)
    witness.expect(&["(1, 1, 0)", "(2, 0, 0)"]);
}

/// Must report `no-space-waiter-woken-by-stop`.
#[test]
fn a_blocked_producer_is_released_by_a_stop_without_a_worker() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("a blocked producer is released by stop alone", 3, 130, move || {
        let overflow = Overflow::Block { timeout: FOREVER };
        let collector = small(1, EAGER).overflow(overflow).build().unwrap();
        collector.collect(Tick(0));
        let producer = thread::spawn({
            let collector = collector.clone();
            move || collector.collect(Tick(1))
        });
        collector.stop().unwrap();
        let outcome = producer.join().unwrap();
        law(&collector, 2);
        seen.saw(outcome);
    });
    witness.expect(&["Stopped"]);
}

/// Must report `refusal-after-wait-uncounted`.
#[test]
fn a_blocked_producer_is_released_by_a_stop_of_a_worker_that_delivers_nothing() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("a blocked producer is released by stop and drain", 2, 2_600, move || {
        let overflow = Overflow::Block { timeout: Duration::from_secs(1) };
        let collector = small(1, MANUAL).overflow(overflow).sink(Log::new()).start().unwrap();
        collector.collect(Tick(0));
        let producer = thread::spawn({
            let collector = collector.clone();
            move || collector.collect(Tick(1))
        });
        collector.stop().unwrap();
        let outcome = producer.join().unwrap();
        let stats = law(&collector, 2);
        seen.saw((outcome, stats.processed, stats.waits));
    });
    // It waited; or the stop came first.
    witness.expect(&["(Stopped, 1, 1)", "(Stopped, 1, 0)"]);
}

/// Must report `critical-lane-evicts`.
#[test]
fn a_critical_event_waits_for_space_and_is_never_evicted() {
    let witness = Witness::default();
    let seen = witness.clone();
    check_long("a critical event waits and is never evicted", 2, 41_000, 2900, move || {
        let log = Log::new();
        let collector = small(1, EAGER).sink(log.clone()).start().unwrap();
        let outcomes = [100, 0, 101].map(|number| collector.collect(Tick(number)));
        assert!(outcomes.iter().all(|outcome| outcome.is_queued()));
        collector.stop().unwrap();
        let numbers = log.numbers();
        assert!(numbers.iter().filter(|n| **n >= 100).eq([100, 101].iter()), "{numbers:?}");
        law(&collector, 3);
        seen.saw(outcomes[2]);
    });
    witness.expect(&["Queued", "QueuedAfterWait"]);
}

// ---- futures ----

/// Must report `waiting-task-not-woken`.
#[test]
fn a_waiting_future_is_woken_when_there_is_space() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("a waiting CollectAsync is woken by the drain", 2, 16_000, move || {
        let log = Log::new();
        let overflow = Overflow::Block { timeout: FOREVER };
        let collector = small(1, EAGER).overflow(overflow).sink(log.clone()).start().unwrap();
        collector.collect(Tick(0));
        let outcome = wait_for(collector.collect_async(Tick(1)));
        collector.stop().unwrap();
        assert_eq!(log.numbers(), [0, 1]);
        law(&collector, 2);
        seen.saw(outcome);
    });
    witness.expect(&["Queued", "QueuedAfterWait"]);
}

/// Must report `space-waker-not-replaced`.
#[test]
fn a_future_polled_by_another_task_wakes_that_one() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("CollectAsync polled again by another task", 2, 18_000, move || {
        let overflow = Overflow::Block { timeout: FOREVER };
        let collector = small(1, EAGER).overflow(overflow).sink(Log::new()).start().unwrap();
        collector.collect(Tick(0));
        let mut future = collector.collect_async(Tick(1));
        // The first task polls once and is never heard of again.
        let is_pending = poll_once(&mut future, Waker::noop()).is_pending();
        if is_pending {
            assert!(wait_for(&mut future).is_queued());
        }
        collector.stop().unwrap();
        law(&collector, 2);
        seen.saw(is_pending);
    });
    witness.expect(&["true", "false"]);
}

/// Must report `waiting-task-not-woken`.
#[test]
fn a_dropped_future_disturbs_nobody() {
    let witness = Witness::default();
    let seen = witness.clone();
    check_long("CollectAsync dropped while another waits", 2, 27_000, 2000, move || {
        let overflow = Overflow::Block { timeout: FOREVER };
        let collector = small(1, EAGER).overflow(overflow).sink(Log::new()).start().unwrap();
        collector.collect(Tick(0));
        let mut dropped = collector.collect_async(Tick(1));
        let was_ready = poll_once(&mut dropped, Waker::noop()).is_ready();
        let mut kept = collector.collect_async(Tick(2));
        let (signal, waker) = signal_waker();
        let first = poll_once(&mut kept, &waker);
        drop(dropped);
        seen.saw((was_ready, first.is_ready()));
        if first.is_pending() {
            signal.wait();
            assert!(wait_for(kept).is_queued());
        }
        collector.stop().unwrap();
        law(&collector, 2 + u64::from(was_ready));
    });
    witness.expect(&["(false, false)", "(false, true)", "(true, false)"]);
}

/// Must report `no-space-waiter-woken-by-stop`.
#[test]
fn a_waiting_future_is_woken_by_stop() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("a waiting CollectAsync is woken by stop", 3, 140, move || {
        let overflow = Overflow::Block { timeout: FOREVER };
        let collector = small(1, EAGER).overflow(overflow).build().unwrap();
        collector.collect(Tick(0));
        let task = thread::spawn({
            let collector = collector.clone();
            move || wait_for(collector.collect_async(Tick(1)))
        });
        collector.stop().unwrap();
        assert_eq!(task.join().unwrap(), Outcome::Stopped);
        seen.saw(law(&collector, 2).waits);
    });
    witness.expect(&["0", "1"]);
}

/// Must report `flush-does-not-notify`.
#[test]
fn a_flush_future_covers_and_is_woken() {
    check("FlushAsync covers, and its task is woken", 2, 3_500, || {
        let log = Log::new();
        let collector = small(2, MANUAL).sink(log.clone()).start().unwrap();
        collector.collect(Tick(0));
        let _ = wait_for(collector.flush_async()).unwrap();
        assert_eq!(log.numbers(), [0]);
        collector.stop().unwrap();
        law(&collector, 1);
    });
}

/// Must report `stale-waker-kept`.
#[test]
fn a_flush_future_polled_by_another_task_wakes_that_one_and_a_dropped_one_nobody() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("FlushAsync polled again, and one dropped", 2, 4_300, move || {
        let log = Log::new();
        let collector = small(2, MANUAL).sink(log.clone()).start().unwrap();
        collector.collect(Tick(0));
        let mut dropped = collector.flush_async();
        let _ = poll_once(&mut dropped, Waker::noop());
        let mut kept = collector.flush_async();
        let is_pending = poll_once(&mut kept, Waker::noop()).is_pending();
        seen.saw(is_pending);
        if is_pending {
            drop(dropped);
            let _ = wait_for(&mut kept).unwrap();
        }
        assert_eq!(log.numbers(), [0]);
        collector.stop().unwrap();
        law(&collector, 1);
    });
    witness.expect(&["true"]);
}

// ---- sinks ----

/// Must report `removed-sink-not-flushed` and `sink-admitted-after-dispatch`.
#[test]
fn a_sink_gets_what_is_collected_after_it_was_added_and_before_it_is_removed() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("add_sink and remove_sink against dispatch", 2, 6_700, move || {
        let collector = small(3, EAGER).start().unwrap();
        collector.collect(Tick(0));
        let log = Log::new();
        collector.add_sink(log.clone()).unwrap();
        collector.collect(Tick(1));
        let reported = collector.remove_sink("log").unwrap();
        let numbers = log.numbers();
        assert!(numbers.contains(&1), "collected after it was added, not delivered: {numbers:?}");
        assert_eq!(reported.delivered, numbers.len() as u64);
        seen.saw(numbers);
        collector.collect(Tick(2));
        collector.stop().unwrap();
        assert!(!log.numbers().contains(&2));
        assert_eq!(law(&collector, 3).processed, 3);
    });
    witness.expect(&["[1]", "[0, 1]"]);
}

/// Must report `added-sink-forgotten-by-the-end`.
#[test]
fn a_sink_added_against_a_stop_is_kept() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("a sink added against a stop is kept", 2, 250, move || {
        let collector = small(2, MANUAL).start().unwrap();
        let flushes = std::sync::Arc::default();
        let other = thread::spawn({
            let (collector, flushes) = (collector.clone(), std::sync::Arc::clone(&flushes));
            move || collector.add_sink(CountsFlushes(flushes)).unwrap()
        });
        collector.stop().unwrap();
        other.join().unwrap();
        let in_stop = flushes.load(std::sync::atomic::Ordering::SeqCst);
        collector.remove_sink("counts flushes").unwrap();
        assert_eq!(flushes.load(std::sync::atomic::Ordering::SeqCst), in_stop + 1, "by its removal");
        seen.saw(in_stop);
    });
    // Added too late for the last flush, or in time.
    witness.expect(&["0", "1"]);
}

/// Must report `removal-admits-no-sink`.
#[test]
fn a_sink_that_was_just_added_can_be_removed() {
    check("a sink that was just added can be removed", 2, 180, || {
        let flushes = std::sync::Arc::default();
        let collector = small(2, MANUAL).start().unwrap();
        collector.add_sink(CountsFlushes(std::sync::Arc::clone(&flushes))).unwrap();
        collector.remove_sink("counts flushes").unwrap();
        assert_eq!(flushes.load(std::sync::atomic::Ordering::SeqCst), 1, "by its removal");
        collector.stop().unwrap();
    });
}

/// Must report `flush-does-not-notify`.
#[test]
fn a_sink_that_collects_does_not_hang_a_flush() {
    check("a sink that collects into its own collector", 2, 400, || {
        let handle = std::sync::Arc::new(std::sync::OnceLock::<forebay::Collector<Tick>>::new());
        let sink = from_fn("echo", {
            let handle = handle.clone();
            move |batch: &Batch<Tick>| {
                if let Some(collector) = handle.get()
                    && batch.events().contains(&Tick(0))
                {
                    collector.collect(Tick(1));
                    assert_eq!(collector.stop(), Err(StopError::OnWorker));
                }
                Ok(())
            }
        });
        let collector = small(2, MANUAL).sink(sink).start().unwrap();
        assert!(handle.set(collector.clone()).is_ok());
        collector.collect(Tick(0));
        let _ = collector.flush().unwrap();
        collector.stop().unwrap();
        assert_eq!(law(&collector, 2).processed, 2);
    });
}

// ---- a sink on a thread of its own ----

/// Must report `isolated-flush-covers-less`, `isolated-flush-does-not-notify` and `isolated-flush-answered-before-it`: the log was
/// flushed on its thread.
#[test]
fn a_flush_covers_the_queue_of_an_isolated_sink() {
    check("a flush covers the queue of an isolated sink", 2, 9_400, || {
        let log = Log::new();
        let collector = small(2, EAGER).sink(log.clone().isolated(2)).start().unwrap();
        collector.collect(Tick(0));
        let report = collector.flush_timeout(FOREVER).unwrap();
        // Read without a lock: the flush happens after the write, on the third thread.
        assert_eq!(log.numbers(), [0]);
        assert_eq!((report.sinks[0].delivered, report.is_clean()), (1, true));
        collector.stop().unwrap();
        assert_eq!(law(&collector, 1).sinks[0].delivered, 1);
    });
}

/// Must report `flush-awaits-one-sink` and `flush-future-awaits-one-sink`.
#[test]
fn a_flush_covers_several_isolated_sinks() {
    for (is_task, name, bound, floor) in [
        (false, "a flush covers two isolated sinks", 1, 1_100),
        (true, "a FlushAsync covers two isolated sinks", 0, 19),
    ] {
        check(name, bound, floor, move || {
            let logs = ["one", "two"].map(Log::named);
            let builder =
                small(2, MANUAL).sink(logs[0].clone().isolated(2)).sink(logs[1].clone().isolated(2));
            let collector = builder.start().unwrap();
            collector.collect(Tick(0));
            let report = match is_task {
                false => collector.flush_timeout(FOREVER).unwrap(),
                true => wait_for(collector.flush_async()).unwrap(),
            };
            assert_eq!(report.sinks.iter().map(|sink| sink.delivered).sum::<u64>(), 2);
            logs.iter().for_each(|log| assert_eq!(log.numbers(), [0]));
            collector.stop().unwrap();
            law(&collector, 1);
        });
    }
}

/// Must report `stop-awaits-one-sink`, `stop-future-awaits-one-sink` and `late-flushes-of-the-end-forgotten`.
#[test]
fn a_stop_covers_several_isolated_sinks() {
    for (is_task, name, floor) in [
        (false, "a stop covers two isolated sinks", 51),
        (true, "a StopAsync covers two isolated sinks", 180),
    ] {
        check(name, 1, floor, move || {
            let logs = ["one", "two"].map(Log::named);
            let builder =
                small(2, MANUAL).sink(logs[0].clone().isolated(2)).sink(logs[1].clone().isolated(2));
            let collector = builder.start().unwrap();
            collector.collect(Tick(0));
            match is_task {
                false => collector.stop().unwrap(),
                true => wait_for(collector.stop_async()).unwrap(),
            };
            logs.iter().for_each(|log| assert_eq!(log.numbers(), [0]));
            law(&collector, 1);
        });
    }
}

/// Must report `isolated-flush-forgets-the-one-before`.
#[test]
fn two_flushers_of_an_isolated_sink_are_both_answered() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("two flushers of an isolated sink are both answered", 0, 100, move || {
        let log = Log::new();
        let collector = small(2, MANUAL).sink(log.clone().isolated(2)).start().unwrap();
        collector.collect(Tick(0));
        // Two tasks of one thread.
        let mut flushes = [collector.flush_async(), collector.flush_async()];
        let polls = flushes.each_mut().map(|flush| {
            let (signal, waker) = signal_waker();
            (poll_once(flush, &waker).is_ready(), signal)
        });
        seen.saw(polls.each_ref().map(|(is_ready, _)| *is_ready));
        for (flush, (is_ready, signal)) in flushes.into_iter().zip(polls) {
            if !is_ready {
                signal.wait();
            }
            assert!(wait_for(flush).is_ok());
        }
        assert_eq!(log.numbers(), [0]);
        collector.stop().unwrap();
        law(&collector, 1);
    });
    witness.expect(&["[false, false]"]);
}

/// Must report `isolated-queue-does-not-notify`.
#[test]
fn an_event_alone_reaches_an_isolated_sink() {
    check_long("an event alone reaches an isolated sink", 2, 21_000, 1200, || {
        let signal = Arc::new(Notify::new());
        let collector = small(2, EAGER).sink(Log::notifying(&signal).isolated(2)).start().unwrap();
        collector.collect(Tick(0));
        // No flush has the thread look.
        signal.wait();
        collector.stop().unwrap();
        law(&collector, 1);
    });
}

/// Must report `isolated-eviction-unreported`.
#[test]
fn a_stop_covers_the_queue_and_what_is_evicted_is_counted_and_reported() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("an isolated sink evicts, and its account is exact", 2, 3_500, move || {
        let gaps = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let reported = std::sync::Arc::clone(&gaps);
        let sink = from_fn("gaps", move |batch: &Batch<Tick>| {
            reported.fetch_add(batch.gap(), std::sync::atomic::Ordering::Relaxed);
            Ok(())
        });
        let builder = small(2, EAGER).batch_size(1);
        let collector = builder.sink(sink.isolated(1)).start().unwrap();
        collector.collect(Tick(0));
        collector.collect(Tick(1));
        collector.stop().unwrap();
        let stats = law(&collector, 2);
        let sink = &stats.sinks[0];
        assert_eq!((sink.in_flight, sink.delivered + sink.evicted), (0, 2));
        assert_eq!(
            gaps.load(std::sync::atomic::Ordering::Relaxed),
            sink.evicted,
            "reported where it is missing"
        );
        seen.saw(sink.evicted);
    });
    witness.expect(&["0", "1"]);
}

/// Must report `isolated-end-does-not-notify` and `isolated-end-told-before-it`.
#[test]
fn the_last_handle_ends_an_isolated_sink_with_everything_delivered() {
    check("the last handle ends an isolated sink", 2, 1_000, || {
        let log = Log::new();
        let collector = small(2, EAGER).sink(log.clone().isolated(2)).start().unwrap();
        collector.collect(Tick(0));
        // Should its thread not end, the model has a deadlock.
        drop(collector);
        assert_eq!(log.numbers(), [0]);
    });
}

/// Must report `removal-does-not-notify`.
#[test]
fn a_removed_isolated_sink_gets_its_rest() {
    check("a removed isolated sink gets its rest", 2, 2_200, || {
        let log = Log::new();
        let collector = small(2, MANUAL).sink(log.clone().isolated(2)).start().unwrap();
        collector.collect(Tick(0));
        let stats = collector.remove_sink("log").unwrap();
        assert_eq!((stats.delivered, stats.in_flight), (1, 0));
        assert_eq!(log.numbers(), [0]);
        collector.stop().unwrap();
        law(&collector, 1);
    });
}
