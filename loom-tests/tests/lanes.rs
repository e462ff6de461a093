//! The models of lanes of threads, on the shipped collector: a push against sleep and stop, and threads that take lanes. A whole
//! worker reads too much that a lane writes, so that no model of it ends; these have its sleep, drain and stop alone. What a round
//! finds is modelled on the pool, in `pool.rs`.

use forebay::collector::{Producer, State};
use forebay::config::Lanes;
use forebay::parts::BareWorker;
use forebay::{Builder, Collector, FlushStrategy, Outcome};
use forebay_loom_tests::{Tick, Witness, check, small};
use loom::thread::{self, JoinHandle};

const MANUAL: FlushStrategy = FlushStrategy::Manual;

/// Begins a collector whose threads have lanes: blocks of one slot, as many as `capacity` and lanes together.
fn lanes(capacity: usize, max: usize) -> Builder<Tick> {
    small(capacity, MANUAL).lanes(Lanes::PerThread { max })
}

/// Opens such a collector, with the worker of the model.
fn bare(capacity: usize, max: usize) -> (Collector<Tick>, BareWorker<Tick>) {
    let collector = lanes(capacity, max).build().unwrap();
    let worker = BareWorker::of(&collector).unwrap();
    (collector, worker)
}

/// Pushes these events on another thread, into a lane of its own.
fn producer(collector: &Collector<Tick>, events: &[u32]) -> JoinHandle<()> {
    let (producer, events) = (collector.local(), events.to_vec());
    thread::spawn(move || {
        events.iter().for_each(|&number| assert!(producer.collect(Tick(number)).is_queued()))
    })
}

/// Has each of these look at all lanes, once: from now on they look at their own.
fn has_looked(worker: &BareWorker<Tick>, producers: &[&Producer<Tick>]) {
    worker.announce(1000);
    producers.iter().for_each(|producer| _ = producer.collect(Tick(9)));
    assert_eq!(worker.take().len(), producers.len());
}

/// Two threads make `events` pending, and nobody looks but they. One of them must wake the worker, which has announced before that
/// it sleeps until so many are pending.
fn wake_the_worker(
    collector: &Collector<Tick>,
    worker: &BareWorker<Tick>,
    events: usize,
    first: impl FnOnce(),
    second: impl FnOnce() + Send + 'static,
) {
    worker.announce(events as u32);
    let second = thread::spawn(second);
    first();
    second.join().unwrap();
    assert_eq!(collector.state(), State::Awake, "enough is pending, and nobody has woken the worker");
    assert_eq!(worker.take().len(), events);
}

/// Must report `lane-in-use-uncounted`, `lane-open-block-is-not-pending` and `lane-push-fence-removed`.
#[test]
fn an_event_alone_in_a_lane_wakes_the_worker() {
    check("lanes: an event alone wakes the worker", 3, 800, || {
        let (collector, worker) = bare(2, 1);
        let producer = producer(&collector, &[0]);
        // Nothing but the event ends the sleep: a lost wake-up is a deadlock.
        while worker.take().is_empty() {
            worker.sleep(1);
        }
        producer.join().unwrap();
    });
}

/// Must report `lane-push-fence-removed`.
#[test]
fn the_event_of_a_lane_that_makes_enough_pending_wakes_the_worker() {
    check("lanes: the second event of a lane wakes the worker", 3, 2700, || {
        let (collector, worker) = bare(4, 1);
        let producer = producer(&collector, &[0, 1]);
        // It may wake a little too early, and never too late.
        worker.sleep(2);
        producer.join().unwrap();
        assert_eq!(worker.take(), [Tick(0), Tick(1)]);
    });
}

/// Must report `lane-counts-itself-alone`.
#[test]
fn two_lanes_with_an_event_each_wake_the_worker() {
    check("lanes: the second of two producers wakes the worker", 3, 12, || {
        let (collector, worker) = bare(8, 2);
        let (first, other) = (collector.local(), collector.local());
        has_looked(&worker, &[&first, &other]);
        wake_the_worker(
            &collector,
            &worker,
            2,
            || _ = first.collect(Tick(0)),
            move || _ = other.collect(Tick(1)),
        );
    });
}

/// Must report `lane-that-is-new-does-not-look-at-all`.
#[test]
fn a_lane_that_is_new_reckons_with_the_others() {
    check("lanes: a new lane reckons with the others", 3, 1500, || {
        let (collector, worker) = bare(8, 2);
        let (first, new) = (collector.local(), collector.clone());
        has_looked(&worker, &[&first]);
        first.collect(Tick(0));
        // The first lane has two events then, and the new one has one. Either the first sees that there are two lanes, or the new one
        // sees what the first has.
        wake_the_worker(
            &collector,
            &worker,
            3,
            || _ = first.collect(Tick(1)),
            move || _ = new.local().collect(Tick(2)),
        );
    });
}

/// Must report `lane-overlooked-by-low-events` and `lane-overlooks-low-events`.
#[test]
fn a_low_event_and_one_of_a_lane_wake_the_worker() {
    check("lanes: a low event and one of a lane wake the worker", 3, 12, || {
        let collector = lanes(8, 1).low_capacity(4).build().unwrap();
        let worker = BareWorker::of(&collector).unwrap();
        let (first, other) = (collector.local(), collector.clone());
        has_looked(&worker, &[&first]);
        wake_the_worker(
            &collector,
            &worker,
            2,
            || _ = first.collect(Tick(0)),
            move || _ = other.collect(Tick(200)),
        );
    });
}

/// Must report `lane-full-pool-does-not-wake` and `lane-without-a-free-block-looks-at-itself`.
#[test]
fn a_lane_without_a_free_block_wakes_the_worker() {
    check("lanes: no free block wakes the worker", 2, 1000, || {
        // Two blocks of one slot: ten events will never be pending, and nobody comes after the one that takes the last block.
        let (collector, worker) = bare(1, 1);
        let producer = producer(&collector, &[0, 1]);
        worker.sleep(10);
        producer.join().unwrap();
        assert_eq!(worker.take().len(), 2);
    });
}

/// Must report `push-fence-removed`.
#[test]
fn an_event_of_a_thread_without_a_lane_wakes_the_worker() {
    check("lanes: an event without a lane wakes the worker", 3, 160, || {
        let (collector, worker) = bare(2, 1);
        let _taken = collector.local();
        let producer = producer(&collector, &[0]);
        while worker.take().is_empty() {
            worker.sleep(1);
        }
        producer.join().unwrap();
    });
}

/// Must report `lane-late-event-lost`.
#[test]
fn a_lane_loses_nothing_while_it_stops() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("lanes: accepted or refused while it stops", 3, 160, move || {
        let (collector, worker) = bare(2, 1);
        let other = thread::spawn({
            let producer = collector.local();
            move || producer.collect(Tick(0))
        });
        let got = worker.stop().len();
        let outcome = other.join().unwrap();
        // Accepted, it was taken by the drain; too late, its own thread has removed it, unless the drain was there first.
        let removed = collector.stats().rejected.stopped;
        assert_eq!(got as u64 + removed, 1, "{outcome:?}");
        assert!(outcome == Outcome::Queued || got == 0, "{outcome:?}, and delivered");
        seen.saw((outcome, got, removed));
    });
    witness.expect(&["(Queued, 1, 0)", "(Stopped, 0, 1)"]);
}

/// Must report `lane-commits-without-release`.
#[test]
fn a_flush_covers_what_a_lane_got_before_it() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("lanes: a drain covers what came before it", 3, 350, move || {
        let (collector, worker) = bare(4, 1);
        let (told, pushed) = (loom::sync::Arc::new(loom::sync::Mutex::new(0)), collector.local());
        let other = thread::spawn({
            let told = told.clone();
            move || {
                for number in 0..2 {
                    pushed.collect(Tick(number));
                    // As one who asks for a flush does.
                    *told.lock().unwrap() = number as usize + 1;
                }
            }
        });
        let before = *told.lock().unwrap();
        let numbers: Vec<_> = worker.take().iter().map(|tick| tick.0).collect();
        assert!(numbers.len() >= before, "{numbers:?} of {before}");
        assert!(numbers.iter().copied().eq(0..numbers.len() as u32));
        seen.saw((before, numbers.len()));
        other.join().unwrap();
    });
    witness.expect(&["(0, 0)", "(1, 1)", "(1, 2)", "(2, 2)"]);
}

/// Must report `lane-round-goes-on-with-an-old-look`.
#[test]
fn a_flush_that_is_asked_for_covers_every_lane() {
    check("lanes: a flush that is asked for covers every lane", 2, 4400, || {
        let (collector, mut worker) = bare(4, 2);
        let lanes = [collector.local(), collector.local()];
        // The worker is in the middle of a round, which has not seen what follows.
        (0..2).for_each(|number| _ = lanes[0].collect(Tick(number)));
        let mut got = worker.take_some(1).len();
        let caller = thread::spawn(move || {
            lanes.iter().for_each(|lane| _ = lane.collect(Tick(2)));
            lanes[0].collector().flush().unwrap()
        });
        loop {
            // Nothing but the request ends the sleep.
            worker.sleep(1000);
            let (events, is_asked) = worker.serve();
            got += events.len();
            if is_asked {
                assert_eq!(got, 4, "collected before the flush, and not covered");
                break;
            }
        }
        assert!(caller.join().unwrap().processed <= 3);
    });
}

/// Must report `lane-drain-tells-more-than-it-took`.
#[test]
fn half_a_lane_ends_a_nap_that_follows_a_delivery() {
    check("lanes: half a lane ends a nap after a delivery", 1, 2300, || {
        let (collector, worker) = bare(6, 1);
        let producer = producer(&collector, &[0, 1, 2]);
        // The worker takes what it finds, as the events come, and naps until half of three are pending. No timer ends a nap here.
        let mut got = worker.take().len();
        while got < 2 {
            worker.sleep(2);
            got += worker.take().len();
        }
        producer.join().unwrap();
        assert_eq!(got + worker.take().len(), 3);
    });
}

/// Must report `lane-of-a-thread-that-ended-stays-taken`.
#[test]
fn threads_come_to_their_lanes_by_themselves() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("lanes: threads take lanes and give them back", 3, 9, move || {
        let (collector, worker) = bare(8, 1);
        let other = thread::spawn({
            let collector = collector.clone();
            move || (0..2).for_each(|n| assert_eq!(collector.collect(Tick(n)), Outcome::Queued))
        });
        (10..12).for_each(|n| assert_eq!(collector.collect(Tick(n)), Outcome::Queued));
        other.join().unwrap();
        let has_lane = collector.local().has_lane();
        let numbers: Vec<_> = worker.take().iter().map(|tick| tick.0).collect();
        for thread in 0..2 {
            let own: Vec<_> = numbers.iter().filter(|&&number| number / 10 == thread).collect();
            assert_eq!(own, [&(10 * thread), &(10 * thread + 1)]);
        }
        seen.saw(has_lane);
    });
    // The only lane was this thread's, or the other's, which has ended.
    witness.expect(&["false", "true"]);
}
