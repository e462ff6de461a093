//! `Name`: the name of an event or a field, 16 bytes, without an allocation for a literal.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::sync::Arc;

/// Name of an event or a field: a string literal, or shared text. Any text is allowed; the custom is
/// `component.action.result`.
///
/// A literal costs nothing. A name that is made at run time is allocated once and then shared by its clones: make it
/// outside of the loop.
///
/// # Examples
///
/// ```
/// use forebay::{Name, Record};
///
/// let literal = Name::from("train.loss"); // allocates nothing
/// let made = Name::from(format!("layer.{}.norm", 3)); // shared by its clones
/// assert_eq!(Record::new(made.clone()).name(), &*made);
/// assert_eq!(&*literal, "train.loss");
/// ```
#[derive(Clone)]
pub struct Name(Repr);

/// The thin pointer of `Shared` fits beside the niche of `Static`, so that both take 16 bytes.
#[derive(Clone)]
enum Repr {
    Static(&'static str),
    Shared(Arc<Box<str>>),
}

impl Name {
    /// Makes a name from a literal, also in a `const`.
    pub const fn from_static(name: &'static str) -> Self {
        Self(Repr::Static(name))
    }

    /// Returns the name as text.
    #[inline]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Repr::Static(name) => name,
            Repr::Shared(name) => name,
        }
    }

    /// Returns the size of its shared text on the heap, in bytes.
    #[inline]
    pub(crate) fn heap_size(&self) -> usize {
        match &self.0 {
            Repr::Static(_) => 0,
            Repr::Shared(name) => name.len(),
        }
    }
}

impl Default for Name {
    /// Returns the empty name.
    fn default() -> Self {
        Self::from_static("")
    }
}

impl From<&'static str> for Name {
    fn from(name: &'static str) -> Self {
        Self::from_static(name)
    }
}

impl From<String> for Name {
    fn from(name: String) -> Self {
        Self(Repr::Shared(Arc::new(name.into_boxed_str())))
    }
}

impl Deref for Name {
    type Target = str;

    #[inline]
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        self
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        self
    }
}

impl PartialEq for Name {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Name {}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other)
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}
