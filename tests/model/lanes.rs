//! Lanes of threads as one would write them if there were only one thread: a list of blocks that are taken, in the order in which they
//! were opened.

use std::collections::{BTreeMap, VecDeque};

use crate::support::Tick;

/// Who pushes: a handle with a lane of its own, or the thread of the test.
pub(crate) type Holder = Option<u32>;

/// Block that is not free.
#[derive(Debug, Clone)]
struct Block {
    lane: usize,
    /// Number of its first event, counted within the lane.
    first: u64,
    events: Vec<Tick>,
    consumed: usize,
    is_open: bool,
}

impl Block {
    fn queued(&self) -> u64 {
        (self.events.len() - self.consumed) as u64
    }
}

#[derive(Debug, Clone, Default)]
struct Lane {
    /// Number of its next event.
    next: u64,
    open: Option<u64>,
    /// Numbers of blocks that it has opened. Those that it lost are forgotten when they come first.
    own: VecDeque<u64>,
    /// Number of the event that the worker expects next.
    expected: u64,
    /// Number of the next event when the round began, without those in the open block.
    sealed: u64,
    last_batch: u64,
}

impl Lane {
    fn pending(&self) -> u64 {
        self.next - self.expected
    }
}

/// What became of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Push {
    Queued { evicted: u64 },
    Full,
    NoLane,
}

/// What a batch gets.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taken {
    pub(crate) events: Vec<Tick>,
    pub(crate) gap: u64,
    pub(crate) ends_batch: bool,
    pub(crate) is_over: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Pool {
    slots: usize,
    blocks: usize,
    lanes: Vec<Lane>,
    /// Lanes that were ever taken: the first ones.
    used: usize,
    /// By the number of their opening.
    taken: BTreeMap<u64, Block>,
    next_block: u64,
    /// Lane of each who ever pushed; `None` for those who found none.
    holders: BTreeMap<Holder, Option<usize>>,
    /// Blocks of the round that are left.
    round: VecDeque<u64>,
    owed: u64,
}

impl Pool {
    /// Creates a pool. The handles have their lanes from the beginning.
    pub(crate) fn new(capacity: usize, lanes: usize, handles: u32) -> Self {
        let fewest = (capacity / 4).clamp(1, 8);
        let slots = (capacity / (4 * lanes)).clamp(fewest, 64);
        let mut pool = Self {
            slots,
            blocks: capacity.div_ceil(slots) + lanes,
            lanes: vec![Lane::default(); lanes],
            used: 0,
            taken: BTreeMap::new(),
            next_block: 0,
            holders: BTreeMap::new(),
            round: VecDeque::new(),
            owed: 0,
        };
        (0..handles).for_each(|handle| _ = pool.lane_of(Some(handle)));
        pool
    }

    fn lane_of(&mut self, holder: Holder) -> Option<usize> {
        let (used, lanes) = (&mut self.used, self.lanes.len());
        *self.holders.entry(holder).or_insert_with(|| {
            let vacant = (*used < lanes).then_some(*used);
            *used = (*used + 1).min(lanes);
            vacant
        })
    }

    pub(crate) fn push(&mut self, holder: Holder, event: Tick, evicts: bool) -> Push {
        let Some(lane) = self.lane_of(holder) else { return Push::NoLane };
        let slots = self.slots;
        let mut evicted = 0;
        let has_space = |block: &&mut Block| block.events.len() < slots;
        let open = self.lanes[lane].open.and_then(|open| self.taken.get_mut(&open));
        if open.filter(has_space).is_none() {
            match self.open_block(lane, evicts) {
                Some(events) => evicted = events,
                None => return Push::Full,
            }
        }
        let open = self.lanes[lane].open.unwrap();
        self.taken.get_mut(&open).unwrap().events.push(event);
        self.lanes[lane].next += 1;
        Push::Queued { evicted }
    }

    /// Opens the next block of a lane, and returns how many events were evicted for it.
    fn open_block(&mut self, lane: usize, evicts: bool) -> Option<u64> {
        if let Some(open) = self.lanes[lane].open.take() {
            self.taken.get_mut(&open).unwrap().is_open = false;
        }
        let mut evicted = 0;
        if self.taken.len() == self.blocks {
            if !evicts {
                return None;
            }
            let victim = self.victim(lane);
            evicted = self.taken.remove(&victim).unwrap().queued();
        }
        let number = self.next_block;
        self.next_block += 1;
        let taken = &self.taken;
        let own = &mut self.lanes[lane].own;
        while own.front().is_some_and(|block| taken.get(block).is_none_or(|block| block.is_open)) {
            own.pop_front();
        }
        own.push_back(number);
        let first = self.lanes[lane].next;
        self.lanes[lane].open = Some(number);
        let block = Block { lane, first, events: Vec::new(), consumed: 0, is_open: true };
        self.taken.insert(number, block);
        Some(evicted)
    }

    /// Chooses what is evicted for a lane: its oldest block if it has half of its share or more, else the oldest of the others.
    fn victim(&mut self, lane: usize) -> u64 {
        let sealed = |is_own: bool| {
            let mut blocks = self.taken.iter().filter(|(_, block)| !block.is_open);
            blocks.find(|(_, block)| (block.lane == lane) == is_own).map(|(number, _)| *number)
        };
        let share = self.blocks / self.used;
        let (own, others) = (sealed(true), sealed(false));
        let has_half = 2 * self.lanes[lane].own.len() >= share;
        let victim = if has_half { own.or(others) } else { others.or(own) };
        self.lanes[lane].own.retain(|number| Some(*number) != victim);
        victim.unwrap()
    }

    // ---- the worker ----

    pub(crate) fn begin_round(&mut self) {
        for lane in &mut self.lanes {
            let open = lane.open.map_or(0, |open| self.taken[&open].events.len() as u64);
            lane.sealed = lane.next - open;
        }
        self.round = self.taken.keys().copied().collect();
    }

    /// Takes at most `max` events, in order of the openings. A gap behind events of the same lane ends the batch.
    pub(crate) fn take(&mut self, max: usize, batch: u64) -> Taken {
        let mut taken = Taken { gap: std::mem::take(&mut self.owed), ..Taken::default() };
        while taken.events.len() < max
            && let Some(&number) = self.round.front()
        {
            if let Some(block) = self.taken.get_mut(&number) {
                let lane = &mut self.lanes[block.lane];
                let next = block.first + block.consumed as u64;
                let gap = next.saturating_sub(lane.expected);
                if gap > 0 && lane.last_batch == batch {
                    taken.ends_batch = true;
                    return taken;
                }
                let count = (block.queued() as usize).min(max - taken.events.len());
                taken.events.extend(&block.events[block.consumed..][..count]);
                taken.gap += gap;
                block.consumed += count;
                lane.expected = next + count as u64;
                if count > 0 {
                    lane.last_batch = batch;
                }
                if block.queued() > 0 {
                    continue;
                }
                if !block.is_open {
                    self.taken.remove(&number);
                }
            }
            self.round.pop_front();
        }
        if self.round.is_empty() {
            for lane in &mut self.lanes {
                let gap = lane.sealed.saturating_sub(lane.expected);
                lane.expected += gap;
                *(if lane.last_batch == batch { &mut self.owed } else { &mut taken.gap }) += gap;
            }
            taken.ends_batch = self.owed > 0;
            taken.is_over = !taken.ends_batch;
        }
        taken
    }

    /// Takes everything, and returns how much that was. The next batch tells the gaps.
    pub(crate) fn take_all(&mut self) -> usize {
        self.begin_round();
        let (mut events, mut gap) = (0, 0);
        loop {
            // A batch that no worker has.
            let taken = self.take(usize::MAX, u64::MAX);
            events += taken.events.len();
            gap += taken.gap;
            if taken.is_over {
                self.owed = gap;
                return events;
            }
            // The next one is another batch.
            self.lanes.iter_mut().for_each(|lane| lane.last_batch = 0);
        }
    }

    // ---- counts ----

    pub(crate) fn pending(&self) -> usize {
        self.taken.values().map(Block::queued).sum::<u64>() as usize
    }

    /// Returns how many events would be pending if every lane held as many as the fullest.
    pub(crate) fn load(&self) -> usize {
        self.lanes.iter().map(Lane::pending).max().unwrap_or(0) as usize * self.used
    }

    pub(crate) fn is_full(&self) -> bool {
        self.taken.len() == self.blocks
    }
}
