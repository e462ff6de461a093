//! `intern`: names that come again and again, each allocated once in the life of the process.

use std::cell::Cell;
use std::collections::HashSet;
use std::hash::{BuildHasher, Hasher};

use forebay::Name;
use forebay_sync::per_thread;
use forebay_sync::sync::{Mutex, unforked};
use forebay_sync::unix::is_without_lost_threads;

/// Names that live as long as the process. A name of Python is a new text in every call, and a loop gives the same few in every step.
///
/// A name that lives for ever costs an event nothing: it is no memory that the event owns, so that no budget has to be asked, and it has no
/// count of references, whose cache line the loop and the worker would take from each other with every event.
///
/// It holds at most [`MAX_NAMES`] names and [`MAX_BYTES`] bytes of them. What comes then is allocated with each event, and freed with it. So
/// is a name for which the lock is not free: its holder may be a thread that the system has taken the processor from.
static KEPT: Mutex<Kept> = Mutex::fixed(Kept { names: HashSet::with_hasher(ByWords), bytes: 0 });

struct Kept {
    names: HashSet<&'static str, ByWords>,
    /// Bytes of all names.
    bytes: usize,
}

const MAX_NAMES: usize = 16_384;
const MAX_BYTES: usize = 1 << 20;

/// Sets of names that a thread remembers; a power of two.
const SETS: usize = 256;

/// Names of one set: the one that was asked for last stands first.
type Recent = [Cell<&'static str>; 2];

per_thread! {
    /// Names that this thread has asked for, so that a loop takes no lock. 8 KiB.
    static RECENT: [Recent; SETS] = [const { [const { Cell::new("") }; 2] }; SETS];
}

/// Returns the name of this text. It costs a hash and a comparison where the thread has asked for the name lately.
#[inline]
pub(crate) fn intern(text: &str) -> Name {
    let recent = RECENT.try_with(|sets| {
        let [first, second] = &sets[set_of(text)];
        if first.get() == text {
            return Some(first.get());
        }
        // Two names that take turns in a set both stay.
        if second.get() == text || kept(text).map(|name| second.set(name)).is_some() {
            first.swap(second);
            return Some(first.get());
        }
        None
    });
    match recent {
        Ok(Some(name)) => Name::from_static(name),
        // There is no more room; the lock is not free; or the thread is being torn down.
        _ => Name::from(text.to_owned()),
    }
}

/// Returns the name of this text that lives for ever, or `None` where there is no more room, or the lock is not free.
#[cold]
fn kept(text: &str) -> Option<&'static str> {
    // No fork finds the lock held, so that a child has names as well. Where one has waited in vain, the child does without.
    unforked(|| {
        if !is_without_lost_threads() {
            return None;
        }
        let mut kept = KEPT.try_lock()?;
        if let Some(name) = kept.names.get(text) {
            return Some(*name);
        }
        if kept.names.len() >= MAX_NAMES || kept.bytes + text.len() > MAX_BYTES {
            return None;
        }
        let name: &'static str = Box::leak(text.into());
        kept.bytes += name.len();
        kept.names.insert(name);
        Some(name)
    })
}

#[inline]
fn set_of(text: &str) -> usize {
    let mut hash = ByWords.build_hasher();
    hash.write(text.as_bytes());
    // The uppermost bits depend on all bytes, and no others do.
    (hash.0 >> (u64::BITS - SETS.ilog2())) as usize
}

/// Hash of eight bytes at a time. Names are chosen by the program that pays for them, so that nobody gains by collisions.
struct ByWords;

impl BuildHasher for ByWords {
    type Hasher = Words;

    #[inline]
    fn build_hasher(&self) -> Words {
        Words(0)
    }
}

struct Words(u64);

impl Words {
    #[inline]
    fn add(&mut self, word: [u8; 8]) {
        // The golden ratio, whose bits have no pattern.
        self.0 = (self.0.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for Words {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.add(*word));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.add(last);
    }

    fn finish(&self) -> u64 {
        // A table looks at the lower bits, on which the upper ones of the text have no effect.
        self.0 ^ self.0 >> 32
    }
}
