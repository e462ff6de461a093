//! Three rings, one a priority: bounded memory, and the order in which it is emptied.
//!
//! * *Critical* never evicts: a full lane makes the producer wait (`collector.rs`).
//! * *Normal* and *low* follow the overflow policy. The normal one may be split into several rings (`shards.rs`).
//!
//! The worker takes critical events first, then normal and low ones two to one, so that a flood of
//! normal events cannot starve the low lane. Within a lane, events of one producer keep their order.

mod shards;

use crate::config::Config;
use crate::event::{Event, Priority};
use crate::ring::Ring;
use crate::sync::thread_index;
use crate::wake::NEVER;
use shards::Shards;

/// How many normal events are taken for [`LOW_SHARE`] low ones.
const NORMAL_SHARE: usize = 2;
const LOW_SHARE: usize = 1;

/// The three lanes of a collector.
#[derive(Debug)]
pub(crate) struct Lanes<E> {
    critical: Ring<E>,
    normal: Shards<E>,
    low: Ring<E>,
}

impl<E: Event> Lanes<E> {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            critical: Ring::new(config.critical_capacity),
            normal: Shards::new(config.capacity, config.shards),
            low: Ring::new(config.low_capacity),
        }
    }

    /// Appends `event` to the lane of its priority, or gives it back when that is full.
    #[inline(always)]
    pub(crate) fn push(&self, priority: Priority, event: E) -> Result<(), E> {
        self.lane(priority).push(event)
    }

    /// Appends `event` to the lane of its priority, which must be one that may evict. The oldest, if
    /// it had to make room, is returned: the caller counts it, and ends it when the push has been settled, because
    /// its destructor is foreign code and may be slow.
    #[inline(always)]
    pub(crate) fn push_evicting(&self, priority: Priority, event: E) -> Option<E> {
        self.lane(priority).push_evicting(event)
    }

    /// Counts an event that `push_evicting` returned.
    #[inline(always)]
    pub(crate) fn count_evicted(&self, priority: Priority) {
        let stripe = if priority == Priority::Normal { self.normal.stripe() } else { thread_index() };
        self.lane(priority).count_evicted(stripe);
    }

    /// Whether a worker that sleeps with threshold `wake_at` has reason to get up after a push to the
    /// lane of `priority`.
    #[inline]
    pub(crate) fn calls_after_push(&self, priority: Priority, wake_at: u32) -> bool {
        // A worker that sleeps and may be called has left no critical event behind, so two lanes make up all that
        // is pending.
        let (lane, other) = match priority {
            Priority::Critical => return wake_at != NEVER,
            Priority::Normal if self.normal.is_split() => return self.calls_after_push_to_split(wake_at),
            Priority::Normal => (self.normal.mine(), &self.low),
            Priority::Low if self.normal.is_split() => return self.presses(wake_at),
            Priority::Low => (&self.low, self.normal.mine()),
        };
        let pending = lane.len();
        wake_at != NEVER
            && (pending >= wake_at as usize
                || pending == lane.capacity()
                || !other.is_empty() && pending + other.len() >= wake_at as usize)
    }

    /// The same where the normal lane is several rings. Each counts as if the others held as many: whoever pushes
    /// looks at its own alone, and the last who pushes into the fullest ring or into the low lane sees what
    /// `presses` sees.
    #[inline(never)]
    fn calls_after_push_to_split(&self, wake_at: u32) -> bool {
        let ring = self.normal.mine();
        wake_at != NEVER
            && (ring.len() == ring.capacity()
                || self.normal.load_like(ring) + self.low.len() >= wake_at as usize)
    }

    /// The same question, asked by the worker of all lanes.
    pub(crate) fn calls(&self, wake_at: u32) -> bool {
        self.has_critical(wake_at) || self.presses(wake_at)
    }

    /// Whether a critical event waits for a worker that sleeps with this threshold.
    pub(crate) fn has_critical(&self, wake_at: u32) -> bool {
        wake_at != NEVER && !self.critical.is_empty()
    }

    /// Whether `trigger` events are pending, or a ring is full.
    pub(crate) fn presses(&self, trigger: u32) -> bool {
        let full = |ring: &Ring<E>| ring.len() == ring.capacity();
        trigger != NEVER
            && (self.critical.len() + self.normal.load() + self.low.len() >= trigger as usize
                || self.normal.iter().any(full)
                || full(&self.low)
                || full(&self.critical))
    }

    /// How many events are queued in all lanes.
    #[inline]
    pub(crate) fn pending(&self) -> usize {
        self.critical.len() + self.normal.len() + self.low.len()
    }

    /// How many events were evicted since the collector was built.
    pub(crate) fn evicted(&self) -> u64 {
        self.normal.evicted() + self.low.evicted()
    }

    /// Begins a round: see [`Round`]. The one before it may not have ended: then the next of several normal
    /// rings comes first.
    pub(crate) fn round(&self, turn: &mut Turn) -> Round {
        turn.shard = turn.shard.wrapping_add(1);
        Round {
            critical: self.critical.capacity(),
            normal: self.normal.get(turn.shard).capacity(),
            more_normal: self.normal.count() - 1,
            low: self.low.capacity(),
        }
    }

    /// Moves events into `events` until it holds `most`, or the round is over.
    pub(crate) fn take(&self, round: &mut Round, turn: &mut Turn, events: &mut Vec<E>, most: usize) {
        if round.critical == 0 && !round.is_over() {
            // Those that came since the round saw the end of their lane. At most half a batch, so that a flood of
            // them cannot keep the round from ending.
            take_from(&self.critical, &mut (most / 2), usize::MAX, events, most);
        }
        while events.len() < most && !round.is_over() {
            take_from(&self.critical, &mut round.critical, usize::MAX, events, most);
            // Alone, the normal lane need not take turns.
            let share = if round.low == 0 { usize::MAX } else { NORMAL_SHARE - turn.normal };
            if share > 0 && round.normal == 0 && round.more_normal > 0 {
                // Only now, when this ring gives at least one: a round that ended before is followed by one that begins
                // with it.
                turn.shard = turn.shard.wrapping_add(1);
                round.more_normal -= 1;
                round.normal = self.normal.get(turn.shard).capacity();
            }
            let before = events.len();
            take_from(self.normal.get(turn.shard), &mut round.normal, share, events, most);
            turn.normal = (turn.normal + events.len() - before).min(NORMAL_SHARE);
            let is_over = round.normal == 0 && round.more_normal == 0;
            if round.normal == 0 && !is_over && turn.normal < NORMAL_SHARE {
                // The rest of the share is the next ring's.
                continue;
            }
            if events.len() < most && round.low > 0 {
                // The normal lane has had its share, or has no more.
                let share = if is_over { usize::MAX } else { LOW_SHARE };
                take_from(&self.low, &mut round.low, share, events, most);
                turn.normal = 0;
            }
        }
    }

    /// Takes out all that is queued. For whoever finds events in the rings of a collector that no longer has a
    /// worker.
    pub(crate) fn take_all(&self) -> Vec<E> {
        let mut taken = Vec::new();
        let mut turn = Turn::default();
        self.take(&mut self.round(&mut turn), &mut turn, &mut taken, usize::MAX);
        taken
    }

    #[inline(always)]
    fn lane(&self, priority: Priority) -> &Ring<E> {
        match priority {
            Priority::Critical => &self.critical,
            Priority::Normal => self.normal.mine(),
            Priority::Low => &self.low,
        }
    }
}

/// A barrier without tickets: how many events each lane may still give.
///
/// A ring is first-in first-out and bounded. So once it was seen empty, or gave as many events as it
/// has slots, all that was in it when the round began has left (an eviction counts as having left). A
/// round therefore ends even while producers keep pushing, and it covers every event that was collected
/// before it began.
#[derive(Debug)]
pub(crate) struct Round {
    critical: usize,
    /// Of the ring whose turn it is.
    normal: usize,
    /// How many normal rings come after it.
    more_normal: usize,
    low: usize,
}

impl Round {
    pub(crate) fn is_over(&self) -> bool {
        self.critical == 0 && self.normal == 0 && self.more_normal == 0 && self.low == 0
    }
}

/// Whose turn it is, the normal or the low lane's: kept from batch to batch, so that small batches starve
/// nobody.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// How many normal events were taken since it was the low lane's turn.
    normal: usize,
    /// Of the normal rings, the one that gives; counts on beyond the last.
    shard: usize,
}

/// Takes at most `share` events of one lane; `left` becomes 0 when the lane was seen empty.
fn take_from<E>(ring: &Ring<E>, left: &mut usize, share: usize, events: &mut Vec<E>, most: usize) {
    let wanted = share.min(*left).min(most - events.len());
    let before = events.len();
    events.extend(std::iter::from_fn(|| ring.pop()).take(wanted));
    *left = if events.len() - before < wanted { 0 } else { *left - wanted };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq)]
    struct Tagged(Priority, u32);

    impl Event for Tagged {
        fn priority(&self) -> Priority {
            self.0
        }
    }

    fn lanes(capacity: usize) -> Lanes<Tagged> {
        Lanes::new(&Config {
            capacity,
            critical_capacity: capacity,
            low_capacity: capacity,
            ..Config::default()
        })
    }

    #[derive(Debug, PartialEq)]
    enum Offer {
        Queued,
        Evicted(u32),
        Full(u32),
    }

    fn offer(lanes: &Lanes<Tagged>, priority: Priority, n: u32) -> Offer {
        let event = Tagged(priority, n);
        if priority != Priority::Critical {
            match lanes.push_evicting(priority, event) {
                None => Offer::Queued,
                Some(evicted) => {
                    lanes.count_evicted(priority);
                    Offer::Evicted(evicted.1)
                }
            }
        } else {
            lanes.push(priority, event).map_or_else(|event| Offer::Full(event.1), |()| Offer::Queued)
        }
    }

    #[test]
    fn critical_first_then_normal_and_low_two_to_one() {
        let lanes = lanes(8);
        for n in 0..4 {
            for priority in [Priority::Low, Priority::Normal, Priority::Critical] {
                assert!(matches!(offer(&lanes, priority, n), Offer::Queued));
            }
        }
        let mut taken = Vec::new();
        let mut turn = Turn::default();
        lanes.take(&mut lanes.round(&mut turn), &mut turn, &mut taken, 100);
        let order: String = taken
            .iter()
            .map(|event| match event.0 {
                Priority::Critical => 'c',
                Priority::Normal => 'n',
                Priority::Low => 'l',
            })
            .collect();
        assert_eq!(order, "ccccnnlnnlll");
        for priority in [Priority::Critical, Priority::Normal, Priority::Low] {
            let of_lane: Vec<u32> = taken.iter().filter(|e| e.0 == priority).map(|e| e.1).collect();
            assert_eq!(of_lane, [0, 1, 2, 3], "a lane keeps its order");
        }
    }

    #[test]
    fn turns_go_on_from_batch_to_batch() {
        for most in 1..=7 {
            let lanes = lanes(16);
            for n in 0..12 {
                offer(&lanes, Priority::Normal, n);
                offer(&lanes, Priority::Low, n);
            }
            let mut turn = Turn::default();
            let mut order = String::new();
            for _ in 0..18_usize.div_ceil(most) {
                let mut taken = Vec::new();
                lanes.take(&mut lanes.round(&mut turn), &mut turn, &mut taken, most);
                order.extend(taken.iter().map(|event| if event.0 == Priority::Low { 'l' } else { 'n' }));
            }
            assert!(order.starts_with("nnlnnlnnlnnlnnlnnl"), "batches of {most}: {order}");
        }
    }

    #[test]
    fn a_critical_event_is_never_evicted_and_a_normal_one_is_counted() {
        let lanes = lanes(2);
        for n in 0..2 {
            offer(&lanes, Priority::Critical, n);
            offer(&lanes, Priority::Normal, n);
        }
        assert!(matches!(offer(&lanes, Priority::Critical, 2), Offer::Full(2)));
        assert!(matches!(offer(&lanes, Priority::Normal, 2), Offer::Evicted(0)));
        assert_eq!(lanes.evicted(), 1);
        assert_eq!(lanes.pending(), 4);
    }

    #[test]
    fn a_round_ends_although_events_keep_coming() {
        let lanes = lanes(4);
        for n in 0..4 {
            offer(&lanes, Priority::Normal, n);
        }
        let mut turn = Turn::default();
        let mut round = lanes.round(&mut turn);
        let mut taken = Vec::new();
        let mut n = 4;
        while !round.is_over() {
            let most = taken.len() + 1;
            lanes.take(&mut round, &mut turn, &mut taken, most);
            offer(&lanes, Priority::Normal, n);
            n += 1;
        }
        assert_eq!(taken.len(), 4, "as many as the lane has slots, then the round is over");
        assert_eq!(taken.iter().map(|e| e.1).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    #[test]
    fn a_sleeper_is_called_by_number_by_a_full_lane_and_by_a_critical_event() {
        let lanes = lanes(3);
        offer(&lanes, Priority::Normal, 0);
        assert!(!lanes.calls_after_push(Priority::Normal, 2));
        offer(&lanes, Priority::Low, 0);
        assert!(lanes.calls_after_push(Priority::Low, 2), "two lanes count together");
        assert!(!lanes.calls(100));
        offer(&lanes, Priority::Normal, 1);
        offer(&lanes, Priority::Normal, 2);
        assert!(lanes.calls_after_push(Priority::Normal, 100) && lanes.calls(100), "a full lane");
        assert!(!lanes.calls(NEVER) && !lanes.calls_after_push(Priority::Critical, NEVER));
        assert_eq!(lanes.take_all().len(), 4);
        offer(&lanes, Priority::Critical, 0);
        assert!(lanes.calls(100) && lanes.calls_after_push(Priority::Critical, 100));
    }
    /// Four normal rings of four slots.
    fn split() -> Lanes<Tagged> {
        Lanes::new(&Config { capacity: 16, shards: 4, ..Config::default() })
    }

    fn into_ring(lanes: &Lanes<Tagged>, ring: usize, n: u32) {
        lanes.normal.get(ring).push(Tagged(Priority::Normal, n)).unwrap();
    }

    #[test]
    fn a_round_goes_through_every_ring_once() {
        for most in 1..=20 {
            let lanes = split();
            for n in 0..16 {
                into_ring(&lanes, n as usize, n);
            }
            offer(&lanes, Priority::Low, 100);
            let mut turn = Turn::default();
            let mut round = lanes.round(&mut turn);
            let mut taken = Vec::new();
            while !round.is_over() {
                let batch = taken.len() + most;
                lanes.take(&mut round, &mut turn, &mut taken, batch);
                // What comes later does not keep the round from ending.
                let _ = lanes.normal.get(3).push(Tagged(Priority::Normal, 200));
            }
            for ring in 0..4 {
                let of_ring: Vec<u32> =
                    taken.iter().map(|e| e.1).filter(|n| *n < 100 && n % 4 == ring).collect();
                assert_eq!(of_ring, [ring, ring + 4, ring + 8, ring + 12], "batches of {most}");
            }
            assert_eq!(taken.iter().filter(|e| e.1 == 100).count(), 1);
        }
    }

    #[test]
    fn a_flood_in_one_ring_does_not_starve_the_others() {
        let lanes = split();
        (0..4).for_each(|ring| into_ring(&lanes, ring, ring as u32));
        let mut turn = Turn::default();
        let mut taken = Vec::new();
        for _ in 0..4 {
            // A round that is not gone through to its end, as the delivery of a load is.
            let mut round = lanes.round(&mut turn);
            let most = taken.len() + 1;
            lanes.take(&mut round, &mut turn, &mut taken, most);
            while lanes.normal.get(1).push(Tagged(Priority::Normal, 200)).is_ok() {}
        }
        let mut first: Vec<u32> = taken.iter().map(|e| e.1).collect();
        first.sort_unstable();
        assert_eq!(first, [0, 1, 2, 3]);
    }

    #[test]
    fn nor_when_a_batch_ends_with_a_ring() {
        // As many as a ring holds, and a part of that: both end batch and ring at once.
        for most in [4, 2, 1] {
            let lanes = split();
            (0..4).for_each(|ring| into_ring(&lanes, ring, ring as u32));
            let mut turn = Turn::default();
            let mut taken = Vec::new();
            for _ in 0..4 {
                let mut round = lanes.round(&mut turn);
                let mut left = 4_usize;
                while left > 0 && !round.is_over() {
                    for flooded in [1, 3] {
                        while lanes.normal.get(flooded).push(Tagged(Priority::Normal, 200)).is_ok() {}
                    }
                    let before = taken.len();
                    lanes.take(&mut round, &mut turn, &mut taken, before + most);
                    left = left.saturating_sub(taken.len() - before);
                }
            }
            assert!([0, 2].iter().all(|n| taken.iter().any(|e| e.1 == *n)), "batches of {most}: {taken:?}");
        }
    }

    #[test]
    fn nor_when_a_low_event_ends_a_batch_behind_a_ring() {
        // Two rings of four, one flooded, and a flood of low events: two to one, six at a time.
        let config = Config { capacity: 8, shards: 2, low_capacity: 8, ..Config::default() };
        for (flooded, starved) in [(0, 1), (1, 0)] {
            let lanes = Lanes::new(&config);
            into_ring(&lanes, starved, 0);
            let mut turn = Turn::default();
            let mut taken = Vec::new();
            for _ in 0..4 {
                while lanes.normal.get(flooded).push(Tagged(Priority::Normal, 200)).is_ok() {}
                while lanes.low.push(Tagged(Priority::Low, 100)).is_ok() {}
                let mut round = lanes.round(&mut turn);
                let most = taken.len() + 6;
                lanes.take(&mut round, &mut turn, &mut taken, most);
            }
            assert!(taken.iter().any(|event| event.1 == 0), "ring {starved}: {taken:?}");
        }
    }

    #[test]
    fn a_sleeper_is_called_by_the_fullest_ring_times_their_number() {
        let lanes = split();
        into_ring(&lanes, 2, 0);
        assert!(!lanes.presses(5) && lanes.presses(4));
        offer(&lanes, Priority::Low, 0);
        assert!(lanes.presses(5) && lanes.calls_after_push(Priority::Low, 5));
        assert!(!lanes.presses(6) && !lanes.calls_after_push(Priority::Low, 6));
        into_ring(&lanes, 3, 0);
        assert!(!lanes.presses(6), "the others count as if they held as many, not twice");
        (1..4).for_each(|n| into_ring(&lanes, 2, n));
        assert!(lanes.presses(1000), "a full ring");
        // The ring of this thread, whichever it is.
        let lanes = split();
        offer(&lanes, Priority::Normal, 0);
        assert!(lanes.calls_after_push(Priority::Normal, 4) && !lanes.calls_after_push(Priority::Normal, 5));
        assert!(!lanes.calls_after_push(Priority::Normal, NEVER));
        assert_eq!(lanes.pending(), 1);
    }
}
