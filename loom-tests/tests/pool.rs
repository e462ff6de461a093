//! The models of lanes of threads, on the shipped pool alone: who may touch which slot, and what a round finds. How lanes wake the
//! worker is modelled on the collector, in `lanes.rs`.

use std::sync::atomic::{AtomicUsize, Ordering};

use forebay_loom_tests::{Witness, check, check_long};
use forebay_sync::pool::{Eviction, Numbered, OwnLane, Pool, Refused};
use loom::thread;

/// Number of tokens that are alive. Never freed, so that a token that is dropped twice does no other harm.
type Alive = &'static AtomicUsize;

/// Event that is counted while it is alive, so that one which is lost or dropped twice shows.
#[derive(Debug)]
struct Token {
    number: u64,
    alive: Alive,
}

impl Drop for Token {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Pool of a model, and what was made for it.
#[derive(Clone)]
struct Tokens {
    pool: std::sync::Arc<Pool<Token>>,
    alive: Alive,
}

impl Tokens {
    fn new(blocks: usize, slots: usize, lanes: usize) -> Self {
        Self { pool: Pool::with_blocks(blocks, slots, lanes, None), alive: Box::leak(Box::default()) }
    }

    /// Those of a pool whose lanes are merged by the numbers of tokens within their hundred.
    fn merged(blocks: usize, slots: usize, lanes: usize) -> Self {
        let time = |token: &Token| token.number % 100;
        Self { pool: Pool::with_blocks(blocks, slots, lanes, Some(time)), alive: Box::leak(Box::default()) }
    }

    fn token(&self, number: u64) -> Token {
        self.alive.fetch_add(1, Ordering::Relaxed);
        Token { number, alive: self.alive }
    }

    /// Pushes tokens of these numbers into a lane, one after the other.
    fn push(&self, lane: &OwnLane<Token>, numbers: std::ops::Range<u64>) {
        for number in numbers {
            let pushed = lane.place().push(self.token(number), || Eviction::AndDrop, &mut None).is_ok();
            assert!(pushed, "there are more blocks than lanes, so one can be evicted");
        }
    }

    /// Ends a model of `offered` tokens that all came in: takes what is left, and checks that each of them had one fate.
    fn end(self, mut reader: Reader, offered: u64) -> u64 {
        // A gap may be told by the round after the one that meets it.
        (0..2).for_each(|_| reader.round(&self, usize::MAX));
        let evicted = self.pool.evicted();
        assert_eq!(reader.gaps, evicted, "gaps; got {:?}", reader.numbers);
        assert_eq!(reader.numbers.len() as u64 + evicted, offered, "got {:?}", reader.numbers);
        assert_eq!(self.pool.pending(), 0);
        assert!(!self.pool.is_full(), "blocks that are not free");
        drop(self.pool);
        assert_eq!(self.alive.load(Ordering::Relaxed), 0, "tokens that were not dropped, or twice");
        evicted
    }
}

/// The side that takes tokens out.
#[derive(Default)]
struct Reader {
    numbers: Vec<u64>,
    gaps: u64,
    batch: u64,
    /// Whether the numbers are those of the only lane. Then a gap must be where it is reported.
    is_one_lane: bool,
}

impl Reader {
    /// Reader of a pool whose only lane gets tokens from number 0 on.
    fn of_one_lane() -> Self {
        Self { is_one_lane: true, ..Self::default() }
    }

    /// Makes a round, in batches of at most `max` tokens.
    fn round(&mut self, tokens: &Tokens, max: usize) {
        tokens.pool.begin_round();
        loop {
            self.batch += 1;
            let mut events = Vec::new();
            let taken = tokens.pool.take(&mut events, max, self.batch);
            assert_eq!(taken.events, events.len());
            self.gaps += taken.gap;
            for token in &events {
                if self.is_one_lane {
                    assert_eq!(
                        token.number,
                        self.numbers.len() as u64 + self.gaps,
                        "a gap is not where it was told"
                    );
                }
                self.numbers.push(token.number);
            }
            if taken.is_over {
                return;
            }
        }
    }

    /// Checks that the tokens of each hundred came in order.
    fn is_in_order(&self) {
        for hundred in 0..3 {
            let own: Vec<_> = self.numbers.iter().filter(|&&number| number / 100 == hundred).collect();
            assert!(own.is_sorted_by(|one, next| one < next), "{:?}", self.numbers);
        }
    }
}

/// One producer pushes `events` while as many rounds are made, in batches of `max`.
#[track_caller]
fn one_lane(
    name: &'static str,
    (bound, floor): (usize, u64),
    (blocks, slots): (usize, usize),
    events: u64,
    (rounds, max): (usize, usize),
    evicted: &[&str],
) {
    let witness = Witness::default();
    let seen = witness.clone();
    check(name, bound, floor, move || {
        let tokens = Tokens::new(blocks, slots, 1);
        let producer = thread::spawn({
            let tokens = tokens.clone();
            move || tokens.push(&tokens.pool.own_lane().unwrap(), 0..events)
        });
        let mut reader = Reader::of_one_lane();
        (0..rounds).for_each(|_| reader.round(&tokens, max));
        producer.join().unwrap();
        seen.saw(tokens.end(reader, events));
    });
    witness.expect(evicted);
}

/// Must report `lane-blocks-in-any-order`, `lane-evicted-events-leak`, `lane-eviction-uncounted`,
/// `lane-evicts-a-pinned-block`, `lane-frees-without-release`, `lane-no-second-look-for-a-free-block`,
/// `lane-opens-without-release`, `lane-takes-a-bit-without-acquire` and `lane-words-have-no-version`.
#[test]
fn a_lane_overtakes_the_drain() {
    one_lane(
        "pool: one lane overtakes the drain, 2 blocks of 1",
        (3, 15_000),
        (2, 1),
        3,
        (1, 9),
        &["0", "1"],
    );
}

/// Must report `lane-gap-told-before-what-precedes-it` and `lane-takes-what-was-opened-later`.
#[test]
fn a_lane_overtakes_the_drain_in_more_blocks() {
    one_lane(
        "pool: one lane overtakes the drain, 3 blocks of 1",
        (3, 59_000),
        (3, 1),
        4,
        (1, 9),
        &["0", "1"],
    );
}

/// Must report `lane-commits-without-release`, `lane-drain-reads-the-count-without-acquire`,
/// `lane-pin-looks-without-acquire`, `lane-pins-after-a-seal-without-acquire` and `lane-seals-without-release`.
#[test]
fn a_lane_overtakes_the_drain_by_blocks() {
    one_lane(
        "pool: one lane overtakes the drain, 2 blocks of 2",
        (3, 16_000),
        (2, 2),
        5,
        (1, 9),
        &["0", "1", "2"],
    );
}

/// Must report `lane-looks-before-it-knows-what-is-sealed`, `lane-reads-what-is-sealed-without-acquire` and
/// `lane-tells-what-is-sealed-without-release`.
#[test]
fn a_lane_overtakes_two_rounds() {
    one_lane("pool: one lane overtakes two rounds", (2, 24_000), (2, 1), 3, (2, 9), &["0", "1"]);
}

/// Must report `lane-eviction-forgets-what-was-taken` and `lane-frees-a-block-taken-in-part`.
#[test]
fn a_block_that_was_taken_in_part_is_evicted() {
    one_lane("pool: a block taken in part is evicted", (3, 19_000), (2, 2), 5, (1, 1), &["0", "1", "2"]);
}

/// Must report `lane-evicted-events-drop-twice`, `lane-evicts-without-acquire` and `lane-unpins-without-release`.
#[test]
fn a_sealed_block_that_was_taken_in_part_is_evicted() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("pool: a sealed block taken in part is evicted", 3, 9700, move || {
        let tokens = Tokens::new(2, 2, 1);
        let lane = tokens.pool.own_lane().unwrap();
        // One block is sealed, the other open.
        tokens.push(&lane, 0..3);
        let producer = thread::spawn({
            let tokens = tokens.clone();
            move || tokens.push(&lane, 3..5)
        });
        let mut reader = Reader::of_one_lane();
        reader.round(&tokens, 1);
        producer.join().unwrap();
        seen.saw(tokens.end(reader, 5));
    });
    // The first block was evicted whole, in part, or not at all.
    witness.expect(&["0", "1", "2"]);
}

/// Must report `lane-eviction-uncounted`.
#[test]
fn lanes_evict_from_each_other() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("pool: a lane evicts of another one, against a round", 2, 4000, move || {
        let tokens = Tokens::new(3, 1, 2);
        let (first, second) = (tokens.pool.own_lane().unwrap(), tokens.pool.own_lane().unwrap());
        tokens.push(&first, 0..3);
        let producer = thread::spawn({
            let tokens = tokens.clone();
            // It finds no free block, and has none of its own.
            move || tokens.push(&second, 100..101)
        });
        let mut reader = Reader::default();
        reader.round(&tokens, 9);
        producer.join().unwrap();
        drop(first);
        reader.is_in_order();
        seen.saw(tokens.end(reader, 4));
    });
    witness.expect(&["0", "1"]);
}

/// Must report `lane-eviction-uncounted`.
#[test]
fn two_lanes_and_the_drain() {
    check("pool: two lanes evict, against a round", 1, 660, || {
        let tokens = Tokens::new(3, 1, 2);
        let producers = [0, 100].map(|hundred| {
            let (tokens, lane) = (tokens.clone(), tokens.pool.own_lane().unwrap());
            thread::spawn(move || tokens.push(&lane, hundred..hundred + 2))
        });
        let mut reader = Reader::default();
        reader.round(&tokens, 9);
        producers.into_iter().for_each(|producer| producer.join().unwrap());
        reader.is_in_order();
        tokens.end(reader, 4);
    });
}

/// Must report `lane-evicts-a-pinned-block`.
#[test]
fn lanes_that_are_merged_are_evicted_meanwhile() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("pool: lanes are merged and evicted meanwhile", 2, 3100, move || {
        let tokens = Tokens::merged(4, 2, 2);
        let (first, second) = (tokens.pool.own_lane().unwrap(), tokens.pool.own_lane().unwrap());
        tokens.push(&first, 0..4);
        tokens.push(&second, 101..103);
        let producer = thread::spawn({
            let tokens = tokens.clone();
            // It takes the last block, and then evicts one.
            move || tokens.push(&second, 103..106)
        });
        let mut reader = Reader::default();
        reader.round(&tokens, 9);
        producer.join().unwrap();
        drop(first);
        reader.is_in_order();
        seen.saw(tokens.end(reader, 9));
    });
    witness.expect(&["0", "2"]);
}

/// Must report `lane-looks-before-it-knows-what-is-sealed`.
#[test]
fn a_round_covers_what_came_before_it() {
    check_long("pool: a round covers what came before it", 3, 26_000, 4200, || {
        let tokens = Tokens::new(2, 1, 1);
        let pushed = loom::sync::Arc::new(loom::sync::atomic::AtomicU64::new(0));
        let producer = thread::spawn({
            let (tokens, pushed) = (tokens.clone(), pushed.clone());
            move || {
                let lane = tokens.pool.own_lane().unwrap();
                for number in 0..3 {
                    tokens.push(&lane, number..number + 1);
                    pushed.store(number + 1, loom::sync::atomic::Ordering::Release);
                }
            }
        });
        let mut reader = Reader::of_one_lane();
        let before = pushed.load(loom::sync::atomic::Ordering::Acquire);
        reader.round(&tokens, 9);
        let covered = reader.numbers.len();
        producer.join().unwrap();
        reader.round(&tokens, 9);
        let later = &reader.numbers[covered..];
        assert!(
            later.iter().all(|&number| number >= before),
            "{later:?} came before the round, as {before} did"
        );
        tokens.end(reader, 3);
    });
}

/// Must report `lane-frees-without-release`.
#[test]
fn a_lane_goes_from_handle_to_handle() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("pool: a lane goes from handle to handle", 3, 25, move || {
        let tokens = Tokens::new(2, 2, 1);
        let push = |tokens: &Tokens, numbers| {
            let Some(lane) = tokens.pool.own_lane() else { return 0 };
            tokens.push(&lane, numbers);
            2
        };
        let other = thread::spawn({
            let tokens = tokens.clone();
            move || push(&tokens, 0..2)
        });
        let own = push(&tokens, 100..102);
        let offered = own + other.join().unwrap();
        let reader = Reader::default();
        seen.saw(offered);
        tokens.end(reader, offered);
    });
    // One after the other, or at the same time.
    witness.expect(&["4", "2"]);
}

/// Must report `lane-of-a-thread-that-ended-stays-taken` and `lane-thread-changes-sides`.
#[test]
fn a_thread_that_ends_leaves_its_lane_to_the_next() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("pool: a thread that ends leaves its lane to the next", 3, 5900, move || {
        let tokens = Tokens::new(2, 2, 1);
        let push = |tokens: &Tokens, number| match Numbered::new(tokens.pool.clone()).place().push(
            tokens.token(number),
            || Eviction::AndDrop,
            &mut None,
        ) {
            Ok(_) => 1,
            Err((_, why)) => {
                assert_eq!(why, Refused::NoLane, "one can be evicted");
                0
            }
        };
        let threads = [0, 100].map(|hundred| {
            let tokens = tokens.clone();
            thread::spawn(move || {
                let queued = [push(&tokens, hundred), push(&tokens, hundred + 1)];
                assert_eq!(queued[0], queued[1], "a thread never changes sides");
                queued[0] + queued[1]
            })
        });
        let mut reader = Reader::default();
        reader.round(&tokens, 9);
        let queued: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        reader.is_in_order();
        seen.saw(queued);
        tokens.end(reader, queued);
    });
    witness.expect(&["4", "2"]);
}

/// Must report `lane-takes-a-bit-without-acquire`.
#[test]
fn a_lane_that_may_not_evict_gives_the_event_back() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("pool: a lane that may not evict", 3, 1000, move || {
        let tokens = Tokens::new(2, 1, 1);
        let producer = thread::spawn({
            let tokens = tokens.clone();
            move || {
                let lane = tokens.pool.own_lane().unwrap();
                let push =
                    |number| lane.place().push(tokens.token(number), || Eviction::Never, &mut None).is_ok();
                // What was refused is offered again, so that the numbers have no gap.
                (0..4).fold(0, |number, _| number + u64::from(push(number)))
            }
        });
        let mut reader = Reader::of_one_lane();
        reader.round(&tokens, 9);
        let queued = producer.join().unwrap();
        seen.saw(queued);
        assert_eq!(tokens.end(reader, queued), 0);
    });
    witness.expect(&["2", "3", "4"]);
}

/// Must report `lane-looks-before-it-knows-what-is-sealed`.
#[test]
fn a_block_is_evicted_for_its_bytes() {
    let witness = Witness::default();
    let seen = witness.clone();
    check_long("pool: a block is evicted for its bytes", 3, 27_000, 4400, move || {
        let tokens = Tokens::new(3, 1, 1);
        let producer = thread::spawn({
            let tokens = tokens.clone();
            move || {
                let lane = tokens.pool.own_lane().unwrap();
                tokens.push(&lane, 0..2);
                // The sealed block, or the open one where the drain has taken that.
                if let Some(block) = tokens.pool.evict_block(Some(&lane)) {
                    block.for_each(drop);
                }
                tokens.push(&lane, 2..3);
            }
        });
        let mut reader = Reader::of_one_lane();
        reader.round(&tokens, 9);
        producer.join().unwrap();
        seen.saw(tokens.end(reader, 3));
    });
    witness.expect(&["0", "1"]);
}

/// Must report `lane-evicted-block-is-never-free`, `lane-evicts-a-free-block` and `lane-gap-behind-the-last-block-untold`.
#[test]
fn a_gap_behind_the_last_event_is_told() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("pool: a gap behind the last event is reported", 3, 6300, move || {
        let tokens = Tokens::new(2, 1, 1);
        let producer = thread::spawn({
            let tokens = tokens.clone();
            move || {
                let lane = tokens.pool.own_lane().unwrap();
                tokens.push(&lane, 0..2);
                // Both blocks, if it can: no event of the lane will follow.
                (0..2).for_each(|_| drop(tokens.pool.evict_block(Some(&lane))));
            }
        });
        let mut reader = Reader::of_one_lane();
        reader.round(&tokens, 9);
        producer.join().unwrap();
        seen.saw(tokens.end(reader, 2));
    });
    witness.expect(&["0", "1", "2"]);
}

/// Must report `lane-frees-without-release`.
#[test]
fn blocks_are_evicted_by_a_thread_without_a_lane() {
    let witness = Witness::default();
    let seen = witness.clone();
    check("pool: a thread without a lane evicts blocks", 2, 16_000, move || {
        let tokens = Tokens::new(3, 1, 1);
        let lane = tokens.pool.own_lane().unwrap();
        tokens.push(&lane, 0..2);
        let other = thread::spawn({
            let tokens = tokens.clone();
            move || _ = tokens.pool.evict_block(None)
        });
        tokens.push(&lane, 2..3);
        let mut reader = Reader::of_one_lane();
        reader.round(&tokens, 9);
        other.join().unwrap();
        drop(lane);
        seen.saw(tokens.end(reader, 3));
    });
    witness.expect(&["0", "1"]);
}
