//! `Callsite`: what is known of a place that logs, found again without an allocation, a lock, or a count of references.
//!
//! A place has a static description, so its address is its key. A program may make any number of them, so the table has a fixed size,
//! and is one for the process: what does not fit is worked out each time. The names and messages in it stay for the life of the process.
//!
//! A slot is claimed by one thread, which fills it. All others pass by a slot that is claimed and not filled. So no thread waits, not even in
//! a child that was forked while a slot was being filled.

use std::ops::Deref;

use forebay::Name;
use tracing_core::Metadata;

use crate::sync::{AtomicBool, AtomicUsize, OnceLock, Ordering};

/// Number of slots.
const SLOTS: usize = 1 << 11;

/// Number of slots in which a place may be.
const PROBES: usize = 8;

/// The longest name and the longest message that are kept, so that the table holds 2 MiB at most.
const MAX_TEXT_BYTES: usize = 512;

static TABLE: [Slot; SLOTS] = [const { Slot { key: AtomicUsize::new(0), callsite: OnceLock::new() } }; SLOTS];

struct Slot {
    /// Address of the description; 0 while the slot is free. Set once.
    key: AtomicUsize,
    callsite: OnceLock<Callsite>,
}

/// What is known of a place that logs.
pub(crate) struct Callsite {
    pub(crate) name: Name,
    /// The first message of the place, if it is in the table. Most places have one alone.
    message: OnceLock<&'static str>,
    /// True once a thread has set the message, or is about to.
    has_message: AtomicBool,
    /// True if it stands for all events of the crate `log`, which have their target in a field.
    pub(crate) is_of_log: bool,
}

/// A place, in the table or beside it.
pub(crate) enum Found {
    Kept(&'static Callsite),
    Made(Box<Callsite>),
}

impl Deref for Found {
    type Target = Callsite;

    fn deref(&self) -> &Callsite {
        match self {
            Self::Kept(callsite) => callsite,
            Self::Made(callsite) => callsite,
        }
    }
}

impl Found {
    /// Returns the message that the place had first.
    pub(crate) fn message(&self) -> Option<&'static &'static str> {
        match self {
            Self::Kept(callsite) => callsite.message.get(),
            Self::Made(_) => None,
        }
    }

    /// Keeps a message, unless the place has one.
    pub(crate) fn keep_message(&self, message: &str) {
        let Self::Kept(callsite) = self else { return };
        // Loaded first, so that threads that log at one place share its line. Relaxed: what is kept is published by `OnceLock`.
        let is_free = message.len() <= MAX_TEXT_BYTES && !callsite.has_message.load(Ordering::Relaxed);
        if is_free && !callsite.has_message.swap(true, Ordering::Relaxed) {
            _ = callsite.message.set(message.to_owned().leak());
        }
    }
}

/// Returns what is known of a place, and keeps it if there is space.
#[inline]
pub(crate) fn of(metadata: &'static Metadata<'static>) -> Found {
    let key = key_of(metadata);
    for slot in probe(key) {
        // Loaded first, so that threads that log at one place share its line. Relaxed: the key says whose slot it is, and what is in there
        // is published by `OnceLock`.
        let mut owner = slot.key.load(Ordering::Relaxed);
        if owner == 0 {
            owner = match slot.key.compare_exchange(0, key, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Found::Kept(slot.callsite.get_or_init(|| kept(metadata))),
                Err(owner) => owner,
            };
        }
        if owner == key {
            return slot.callsite.get().map_or_else(|| made(metadata), Found::Kept);
        }
    }
    made(metadata)
}

/// Returns the name of a place that may be known.
pub(crate) fn name(metadata: &Metadata<'_>) -> Name {
    let key = key_of(metadata);
    let mut slots = probe(key);
    let known =
        slots.find(|slot| slot.key.load(Ordering::Relaxed) == key).and_then(|slot| slot.callsite.get());
    known.map_or_else(|| name_of(metadata).into(), |known| known.name.clone())
}

fn key_of(metadata: &Metadata<'_>) -> usize {
    std::ptr::from_ref(metadata).addr()
}

fn probe(key: usize) -> impl Iterator<Item = &'static Slot> {
    // By Fibonacci hashing (Knuth, volume 3, section 6.4): descriptions lie in a row, some bytes apart.
    let first = (key as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    (0..PROBES).filter_map(move |probe| TABLE.get((first as usize + probe) % SLOTS))
}

#[cold]
fn made(metadata: &Metadata<'_>) -> Found {
    Found::Made(Box::new(describe(name_of(metadata).into(), metadata)))
}

fn describe(name: Name, metadata: &Metadata<'_>) -> Callsite {
    Callsite {
        name,
        message: OnceLock::new(),
        has_message: AtomicBool::new(false),
        is_of_log: is_of_log(metadata),
    }
}

/// Describes a place for ever. Its name is a literal from now on, which is cloned without a count.
fn kept(metadata: &'static Metadata<'static>) -> Callsite {
    let name = name_of(metadata);
    let name = match name.len() {
        _ if name == metadata.target() => Name::from_static(metadata.target()),
        0..=MAX_TEXT_BYTES => Name::from_static(name.leak()),
        _ => Name::from(name),
    };
    describe(name, metadata)
}

fn is_of_log(metadata: &Metadata<'_>) -> bool {
    metadata.is_event() && metadata.fields().field("log.target").is_some()
}

/// Returns the name of the records of a place: its target, and its own name behind it. An event without one has a name that tells its
/// file and line.
fn name_of(metadata: &Metadata<'_>) -> String {
    let mut name = dotted(metadata.target());
    if metadata.is_span() || !metadata.name().starts_with("event ") && !is_of_log(metadata) {
        name.push('.');
        name.push_str(metadata.name());
    }
    name
}

/// Returns a path of modules as a name: `a::b` becomes `a.b`.
pub(crate) fn dotted(target: &str) -> String {
    target.replace("::", ".")
}
