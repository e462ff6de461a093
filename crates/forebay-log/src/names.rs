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

fn find(text: &str, make: impl for<'a> Fn(&'a str) -> Cow<'a, str>) -> Name {
    if text.len() > MAX_BYTES {
        return Name::from(make(text).into_owned());
    }
    // FNV-1a (Fowler, Noll, Vo). 0 stands for a free slot.
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, fnv) | 1;
    let first = (hash >> 40) as usize;
    for slot in (0..PROBES).filter_map(|probe| TABLE.get((first + probe) % SLOTS)) {
        // Relaxed: the hash says whose slot it is, and what is in there is published by `OnceLock`.
        match slot.hash.compare_exchange(0, hash, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => {
                let (_, name) = slot.name.get_or_init(|| kept(text, make(text)));
                return Name::from_static(name);
            }
            Err(other) if other == hash => match slot.name.get() {
                Some((known, name)) if *known == text => return Name::from_static(name),
                // Another text with this hash, or one that is just being put there.
                _ => {}
            },
            Err(_) => {}
        }
    }
    Name::from(make(text).into_owned())
}

/// Keeps a text and its name for ever.
fn kept(text: &str, name: Cow<'_, str>) -> (&'static str, &'static str) {
    let known: &'static str = text.to_owned().leak();
    match name {
        Cow::Borrowed(_) => (known, known),
        Cow::Owned(name) => (known, name.leak()),
    }
}
