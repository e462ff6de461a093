//! Names of records and of their fields, without an allocation for those that were seen before.
//!
//! Targets and keys are borrowed texts, so a table keeps those that come first, for the life of the process. It has a fixed size: what
//! does not fit is allocated each time.
//!
//! A slot is claimed by one thread, which fills it. All others pass by a slot that is claimed and not filled. So no thread waits, not
//! even in a child that was forked while a slot was being filled.

use std::borrow::Cow;

use forebay::Name;

use crate::sync::{AtomicU64, OnceLock, Ordering};

/// Number of slots.
const SLOTS: usize = 1 << 11;

/// Number of slots in which a text may be.
const PROBES: usize = 8;

/// The longest text that is kept, so that the table holds 1 MiB at most.
const MAX_BYTES: usize = 512;

static TABLE: [Slot; SLOTS] = [const { Slot { hash: AtomicU64::new(0), name: OnceLock::new() } }; SLOTS];

struct Slot {
    /// Hash of the text; 0 while the slot is free. Set once.
    hash: AtomicU64,
    /// The text, and the name that is made of it.
    name: OnceLock<(&'static str, &'static str)>,
}

/// Returns a path of modules as a name: `a::b` becomes `a.b`.
pub(crate) fn of_target(target: &str) -> Name {
    find(target, |target| match target.contains("::") {
        true => Cow::Owned(target.replace("::", ".")),
        false => Cow::Borrowed(target),
    })
}

/// Returns a key as a name, as it is.
#[cfg(feature = "kv")]
pub(crate) fn of_key(key: &str) -> Name {
    // A key that looks like a path is rare, and is no target.
    if key.contains("::") { Name::from(key.to_owned()) } else { find(key, |key| Cow::Borrowed(key)) }
}

/// Returns a message as a text. A literal is kept.
pub(crate) fn of_message(message: &'static str) -> Option<&'static &'static str> {
    // One that has a path in it might be kept as a target.
    if message.contains("::") { None } else { kept_of(message, |message| Cow::Borrowed(message)) }
}

fn find(text: &str, make: impl for<'a> Fn(&'a str) -> Cow<'a, str>) -> Name {
    match kept_of(text, &make) {
        Some(name) => Name::from_static(name),
        None => Name::from(make(text).into_owned()),
    }
}

/// Returns what is kept of a text, and keeps it if there is space.
fn kept_of(text: &str, make: impl for<'a> Fn(&'a str) -> Cow<'a, str>) -> Option<&'static &'static str> {
    if text.len() > MAX_BYTES {
        return None;
    }
    // FNV-1a (Fowler, Noll, Vo). 0 stands for a free slot.
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, fnv) | 1;
    let first = (hash >> 40) as usize;
    for slot in (0..PROBES).filter_map(|probe| TABLE.get((first + probe) % SLOTS)) {
        // Loaded first, so that threads share its line. Relaxed: the hash says whose slot it is, and what is in there is published by
        // `OnceLock`.
        let mut owner = slot.hash.load(Ordering::Relaxed);
        if owner == 0 {
            owner = match slot.hash.compare_exchange(0, hash, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(&slot.name.get_or_init(|| kept(text, make(text))).1),
                Err(owner) => owner,
            };
        }
        // Another text may have this hash, or it is just being put there.
        if owner == hash
            && let Some((known, name)) = slot.name.get()
            && *known == text
        {
            return Some(name);
        }
    }
    None
}

/// Keeps a text and its name for ever.
fn kept(text: &str, name: Cow<'_, str>) -> (&'static str, &'static str) {
    let known: &'static str = text.to_owned().leak();
    match name {
        Cow::Borrowed(_) => (known, known),
        Cow::Owned(name) => (known, name.leak()),
    }
}
