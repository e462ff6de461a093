//! `Names`: names that come again and again, each allocated once.

use std::collections::HashSet;

use forebay::Name;
use forebay_sync::sync::Mutex;

/// Cache of names. A loop gives the same few in every step; a name of Python is a new text each time.
///
/// It holds at most `MAX_NAMES` names and `MAX_BYTES` bytes of them, and begins anew once it is full: a program that makes names without
/// end pays an allocation for each.
pub(crate) struct Names(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    names: HashSet<Name>,
    /// Bytes of all names.
    bytes: usize,
}

const MAX_NAMES: usize = 16_384;
const MAX_BYTES: usize = 1 << 20;

impl Names {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Kept::default()))
    }

    /// Returns the name of this text, to be shared. In a forked child, whose parent may have held the lock, it is a new one.
    pub(crate) fn intern(&self, text: &str) -> Name {
        let Ok(mut kept) = self.0.enter() else { return Name::from(text.to_owned()) };
        if let Some(name) = kept.names.get(text) {
            return name.clone();
        }
        let name = Name::from(text.to_owned());
        if kept.names.len() >= MAX_NAMES || kept.bytes + text.len() > MAX_BYTES {
            *kept = Kept::default();
        }
        if text.len() <= MAX_BYTES {
            kept.bytes += text.len();
            kept.names.insert(name.clone());
        }
        name
    }
}
