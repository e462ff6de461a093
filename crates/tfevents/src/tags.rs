//! Tags of a run: found by their name, and mostly before that, by the tag that came before them last time.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::summary::Kind;
use crate::wire::{Wire, varint_size};

/// What the encoder knows of a tag.
#[derive(Debug)]
pub(super) struct Tag {
    pub(super) kind: Kind,
    /// The step that the next one must not lie before; `None` after [`Encoder::forget_steps`](crate::Encoder::forget_steps).
    pub(super) last_step: Option<i64>,
    /// The largest step ever seen: values without a step go on after it.
    pub(super) largest_step: i64,
    /// The number of the last file that holds the metadata of the tag.
    pub(super) described_in: u64,
}

/// All that stands before the number of a scalar: the head of the value, the tag, the key of the number. The name of the tag is in
/// there, and nowhere else.
#[derive(Debug, Clone)]
struct Head {
    bytes: Arc<[u8]>,
    /// The begin of the name.
    begin: usize,
}

/// The key of the number, behind the name.
const NUMBER_KEY: usize = 1;

impl Head {
    fn new(name: &str) -> Self {
        let size = name.len() as u64;
        let value = 1 + varint_size(size) as u64 + size + (NUMBER_KEY + size_of::<f32>()) as u64;
        let mut bytes = Vec::new();
        bytes.key_of_message(1, value);
        bytes.key_of_message(1, size);
        let begin = bytes.len();
        bytes.extend_from_slice(name.as_bytes());
        bytes.fixed32(2, 0.0);
        bytes.truncate(bytes.len() - size_of::<f32>());
        Self { bytes: bytes.into(), begin }
    }

    fn name(&self) -> &[u8] {
        &self.bytes[self.begin..self.bytes.len() - NUMBER_KEY]
    }
}

impl Borrow<[u8]> for Head {
    fn borrow(&self) -> &[u8] {
        self.name()
    }
}

impl Hash for Head {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Head {}

#[derive(Debug)]
struct Entry {
    head: Head,
    tag: Tag,
    /// The place of the tag that came after this one last time.
    next: usize,
}

/// The tags of a run, each at a place that never changes.
#[derive(Debug, Default)]
pub(super) struct Tags {
    entries: Vec<Entry>,
    places: HashMap<Head, usize>,
    /// The place of the tag that was found last.
    last: usize,
}

impl Tags {
    /// Returns the place of a tag that is about to be written.
    #[inline]
    pub(super) fn find(&mut self, name: &str) -> Option<usize> {
        let guess = self.entries.get(self.last)?.next;
        if self.entries.get(guess)?.head.name() == name.as_bytes() {
            self.last = guess;
            return Some(guess);
        }
        self.look_up(name)
    }

    fn look_up(&mut self, name: &str) -> Option<usize> {
        let place = *self.places.get(name.as_bytes())?;
        self.follow(place);
        Some(place)
    }

    /// Notes that this tag came after the last one.
    fn follow(&mut self, place: usize) {
        if let Some(last) = self.entries.get_mut(self.last) {
            last.next = place;
        }
        self.last = place;
    }

    /// Adds a tag that is not there, and returns its place.
    pub(super) fn insert(&mut self, name: &str, tag: Tag) -> usize {
        let (place, head) = (self.entries.len(), Head::new(name));
        self.places.insert(head.clone(), place);
        self.entries.push(Entry { head, tag, next: 0 });
        self.follow(place);
        place
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns the tag of that name, without expecting it to be written.
    pub(super) fn get(&self, name: &str) -> Option<&Tag> {
        self.places.get(name.as_bytes()).map(|place| &self.entries[*place].tag)
    }

    /// Borrows the tag at a place that [`find`](Self::find) or [`insert`](Self::insert) returned.
    pub(super) fn get_mut(&mut self, place: usize) -> &mut Tag {
        &mut self.entries[place].tag
    }

    /// Returns all that stands before the number of a scalar of the tag at that place.
    pub(super) fn head(&self, place: usize) -> &[u8] {
        &self.entries[place].head.bytes
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Tag> {
        self.entries.iter().map(|entry| &entry.tag)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Tag> {
        self.entries.iter_mut().map(|entry| &mut entry.tag)
    }
}
