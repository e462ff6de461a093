//! `Table` of verdicts and `Windows` of counters, by name. They have a fixed size, and are read and written without a
//! lock.

use crate::sync::{Ordering, PlainU64, fetch_update};

/// Returns the hash of a name or an id: FNV-1a (Fowler, Noll, Vo), mixed. It is the same in every process, whatever
/// compiler made it, which the standard library's does not promise. Processes that sample by an id must agree.
pub(super) fn hash(text: &str) -> u64 {
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    mix(text.bytes().fold(0xcbf2_9ce4_8422_2325, fnv))
}

/// Mixes bits by one step of SplitMix64 (Steele, Lea, Flood 2014), so that every bit depends on every bit.
pub(super) fn mix(bits: u64) -> u64 {
    let mut mixed = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Verdicts on names. An entry holds the upper 48 bits of the hash, which its index does not tell, and the verdict
/// plus one. A newer name replaces an older one. Two names are confused if 58 bits of their hashes are the same.
#[derive(Debug)]
pub(super) struct Table(Box<[PlainU64]>);

const ENTRIES: usize = 1 << 10;

impl Default for Table {
    fn default() -> Self {
        Self((0..ENTRIES).map(|_| PlainU64::new(0)).collect())
    }
}

impl Table {
    /// Returns the verdict on a name, at most 65,534. It is decided now if the table has none.
    pub(super) fn get_or_put(&self, hash: u64, decide: impl FnOnce() -> u16) -> u16 {
        let entry = &self.0[hash as usize % ENTRIES];
        let known = entry.load(Ordering::Relaxed);
        if known >> 16 == hash >> 16 && known & 0xffff != 0 {
            return (known & 0xffff) as u16 - 1;
        }
        let verdict = decide();
        entry.store(hash & !0xffff | (u64::from(verdict) + 1), Ordering::Relaxed);
        verdict
    }
}

/// Counters by name. Names that share an index share a counter.
#[derive(Debug)]
pub(super) struct Windows(Box<[Window]>);

const WINDOWS: usize = 1 << 14;

impl Default for Windows {
    fn default() -> Self {
        Self((0..WINDOWS).map(|_| Window(PlainU64::new(0))).collect())
    }
}

impl Windows {
    pub(super) fn of(&self, hash: u64) -> &Window {
        &self.0[(hash >> 16) as usize % WINDOWS]
    }

    /// Sets all counters to zero.
    pub(super) fn clear(&self) {
        self.0.iter().for_each(|window| window.0.store(0, Ordering::Relaxed));
    }
}

/// Counter of one name. The upper 32 bits hold the number of the current window, the lower ones how many events were
/// accepted in it. For turns, it holds how many there were.
#[derive(Debug)]
pub(super) struct Window(PlainU64);

impl Window {
    /// Returns whether fewer than `first` events were accepted in window `number`. If so, counts this one.
    pub(super) fn is_among_first(&self, number: u64, first: u64) -> bool {
        fetch_update(&self.0, |word| {
            let count = Self::count_in(word, number);
            (count < first).then_some(Self::word(number, count + 1))
        })
    }

    /// Counts one more accepted event in window `number`.
    pub(super) fn count(&self, number: u64) {
        let more = |word| Some(Self::word(number, Self::count_in(word, number) + 1));
        fetch_update(&self.0, more);
    }

    /// Counts a turn, and returns how many there were before it.
    pub(super) fn next_turn(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    fn count_in(word: u64, number: u64) -> u64 {
        // Window 0 belongs to a counter that was never used, or to a clock that starts: both have no events.
        if word >> 32 == number & 0xffff_ffff { word & 0xffff_ffff } else { 0 }
    }

    fn word(number: u64, count: u64) -> u64 {
        number << 32 | count.min(0xffff_ffff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_every_other_process() {
        // The published vectors of FNV-1a for "" and "a", one step of SplitMix64 further.
        assert_eq!(hash(""), mix(0xcbf2_9ce4_8422_2325));
        assert_eq!(hash("a"), mix(0xaf63_dc4c_8601_ec8c));
        // The first number of SplitMix64 from seed 0.
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
    }
}
